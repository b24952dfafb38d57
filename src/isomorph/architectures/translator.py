"""Networks that read one text and write another, as T5 does, as one ONNX graph that keeps keys and values of both.

Inputs: `input_ids` [batch, source], `attention_mask` [batch, source total], `decoder_input_ids` [batch, sequence], and for each layer
`past_key_values.N.decoder.key` and `.value` [batch, heads, past, size] and `past_key_values.N.encoder.key` and `.value` [batch, heads, source past, size].
Outputs: `logits` [batch, sequence, words] and as many `present.N.*`. The first call gives the text and no keys and values of the encoder; later ones give those
that it answered and a text of no tokens, of which the encoder makes nothing.
What they compute: transformers' models/t5/modeling_t5.py.
"""
from __future__ import annotations

import math

import numpy as np

from isomorph.architectures.layers import FLOAT32, Layers, Network, Sizes, Value, ir, number_of
from isomorph.model import Checkpoint, Model

BUCKETS, FARTHEST = 32, 128             # of relative positions, where the keys do not say otherwise
LOWEST = float(np.finfo(np.float32).min)
NETWORKS = {"t5": Network("", activation="relu")}
GATED = Network("", activation="gelu")


def graph(content: Checkpoint, architecture: str, **how: bool) -> Model:
    """The network that these weights, under GGUF's names, belong to. Raises `Unsupported` as `Layers` and `Sizes` do."""
    network = GATED if "enc.blk.0.ffn_gate.weight" in content else NETWORKS[architecture]
    return _Translator(content, architecture, network, **how).build()


class _Translator(Layers):
    def build(self) -> Model:
        op, products, keys, name = self.op, self.products, self.source.metadata, self.architecture
        self.sizes = sizes = Sizes.of(name, keys, self.width)
        buckets = int(number_of(keys, f"{name}.attention.relative_buckets_count", BUCKETS))
        farthest = int(number_of(keys, f"{name}.attention.relative_max_distance", FARTHEST))
        ids, mask = self.input("input_ids", ["batch", "source"]), self.input("attention_mask", ["batch", "source_total"])
        words = self.input("decoder_input_ids", ["batch", "sequence"])
        seen = op.Unsqueeze(op.Cast(mask, to=ir.DataType.BOOL), products.constant([1, 2]))
        products.empty = True
        self.apart = self.bucket_tables(buckets, farthest)
        encoded = self.encoded(ids, seen)
        x = products.rows(words, "token_embd.weight")
        for layer in range(int(number_of(keys, f"{name}.decoder_block_count", sizes.layers))):
            x = self.written(x, encoded, seen, layer)
        x = self.normalised(x, "dec.output_norm", sizes.epsilon)
        tied = "output.weight" not in self.content
        scaled = keys.get(f"{name}.scale_decoder_outputs", tied)
        x = self.times(x, 1 / math.sqrt(self.width)) if scaled else x
        self.output(products.product(x, "token_embd" if tied else "output"), "logits", ["batch", "sequence", self.words])
        self.outputs.insert(0, self.outputs.pop())
        return self.finished()

    # ---- relative positions

    def bucket_tables(self, buckets: int, farthest: int) -> dict[str, np.ndarray]:
        """The bucket of each distance from -farthest to farthest, key minus query: of the encoder, where half of them look ahead, and of the decoder."""
        distance = np.arange(-farthest, farthest + 1)
        half = buckets // 2
        both = np.where(distance > 0, half, 0) + bucket_of(np.abs(distance), half, farthest)
        return {"enc": both, "dec": bucket_of(np.maximum(-distance, 0), buckets, farthest)}

    def bias(self, side: str, queries: Value, keys: Value) -> Value:
        """What is added to queries times keys [1, heads, queries, keys], of their positions, each a vector. All layers take that of the first."""
        op, constant, farthest = self.op, self.products.constant, len(self.apart[side]) // 2
        distances = op.Sub(op.Unsqueeze(keys, constant([0])), op.Unsqueeze(queries, constant([1])))
        places = op.Add(op.Min(op.Max(distances, constant(-farthest)), constant(farthest)), constant(farthest))
        table = op.Gather(self.products.vector(f"{side}.blk.0.attn_rel_b.weight"), constant(self.apart[side]), axis=0)
        return op.Unsqueeze(op.Transpose(op.Gather(table, places, axis=0), perm=[2, 0, 1]), constant([0]))

    def count(self, value: Value, axis: int) -> Value:
        return self.op.Squeeze(self.op.Shape(value, start=axis, end=axis + 1), self.products.constant([0]))

    def range(self, start: Value, stop: Value) -> Value:
        return self.op.Range(start, stop, self.products.constant(1))

    def masked(self, bias: Value, allowed: Value) -> Value:
        return self.op.Where(allowed, bias, self.products.constant(LOWEST, np.float32))

    # ---- the text that is read

    def encoded(self, ids: Value, seen: Value) -> Value:
        op, constant, epsilon = self.op, self.products.constant, self.sizes.epsilon
        places = self.range(constant(0), self.count(ids, 1))
        own = op.Slice(seen, op.Unsqueeze(op.Sub(self.count(seen, 3), self.count(ids, 1)), constant([0])), constant([np.iinfo(np.int64).max]), constant([3]))
        mask = self.masked(self.bias("enc", places, places), own)
        x = self.products.rows(ids, "token_embd.weight")
        for layer in range(self.sizes.layers):
            names = f"enc.blk.{layer}."
            q, k, v = self.three(self.normalised(x, names + "attn_norm", epsilon), names + "attn_")
            x = op.Add(x, self.products.product(self.weighed(q, self.heads(k), self.heads(v), mask), names + "attn_o"))
            x = op.Add(x, self.inner(self.normalised(x, names + "ffn_norm", epsilon), names))
        return self.normalised(x, "enc.output_norm", epsilon)

    def three(self, x: Value, names: str, other: Value | None = None) -> list[Value]:
        """Queries of `x`; keys and values of it or of `other`."""
        sources = (x, x if other is None else other, x if other is None else other)
        return [self.products.product(source, names + part) for source, part in zip(sources, "qkv", strict=True)]

    # ---- the text that is written

    def written(self, x: Value, encoded: Value, seen: Value, layer: int) -> Value:
        names, epsilon, op = f"dec.blk.{layer}.", self.sizes.epsilon, self.op
        past = self.past(layer, "decoder", "past")
        if not layer:
            self.causal = self.before(x, past[0])
        q, k, v = self.three(self.normalised(x, names + "attn_norm", epsilon), names + "attn_")
        x = op.Add(x, self.products.product(self.attended(q, k, v, self.causal, past, layer, "decoder", "total"), names + "attn_o"))
        q, k, v = self.three(self.normalised(x, names + "cross_attn_norm", epsilon), names + "cross_attn_", encoded)
        mask = self.masked(self.products.constant(0, np.float32), seen)
        y = self.attended(q, k, v, mask, self.past(layer, "encoder", "source_past"), layer, "encoder", "source_total")
        x = op.Add(x, self.products.product(y, names + "cross_attn_o"))
        return op.Add(x, self.inner(self.normalised(x, names + "ffn_norm", epsilon), names))

    def before(self, x: Value, past: Value) -> Value:
        """The bias of the decoder, with nothing behind a query seen."""
        op, constant = self.op, self.products.constant
        length = self.count(past, 2)
        total = op.Add(length, self.count(x, 1))
        queries, keys = self.range(length, total), self.range(constant(0), total)
        return self.masked(self.bias("dec", queries, keys), op.LessOrEqual(op.Unsqueeze(keys, constant([0])), op.Unsqueeze(queries, constant([1]))))

    def past(self, layer: int, side: str, length: str) -> list[Value]:
        dims = ["batch", self.sizes.heads, length, self.sizes.head]
        return [self.input(f"past_key_values.{layer}.{side}.{part}", dims, FLOAT32) for part in ("key", "value")]

    def attended(self, q: Value, k: Value, v: Value, mask: Value, past: list[Value], layer: int, side: str, length: str) -> Value:
        """Attention over what is kept and what is new, which is kept with it."""
        keys, values = (self.op.Concat(before, self.heads(new), axis=2) for before, new in zip(past, (k, v), strict=True))
        for value, part in ((keys, "key"), (values, "value")):
            self.output(value, f"present.{layer}.{side}.{part}", ["batch", self.sizes.heads, length, self.sizes.head])
        return self.weighed(q, keys, values, mask)

    def heads(self, x: Value) -> Value:
        """[batch, length, heads * size] as [batch, heads, length, size]."""
        return self.op.Transpose(self.op.Reshape(x, self.products.constant([0, 0, self.sizes.heads, self.sizes.head])), perm=[0, 2, 1, 3])

    def weighed(self, q: Value, keys: Value, values: Value, mask: Value) -> Value:
        """Attention whose scores are not scaled. ONNX Runtime's operator refuses a text of no tokens, which is what later calls read."""
        op = self.op
        scores = op.Add(op.MatMul(self.heads(q), op.Transpose(keys, perm=[0, 1, 3, 2])), mask)
        y = op.Transpose(op.MatMul(op.Softmax(scores, axis=-1), values), perm=[0, 2, 1, 3])
        return op.Reshape(y, self.products.constant([0, 0, self.sizes.heads * self.sizes.head]))


def bucket_of(distance: np.ndarray, buckets: int, farthest: int) -> np.ndarray:
    """The first half of the buckets hold one distance each, the others grow with its logarithm, in float32 as transformers computes it."""
    exact = buckets // 2
    with np.errstate(divide="ignore"):
        logarithm = np.log(distance.astype(np.float32) / np.float32(exact)) / np.float32(math.log(farthest / exact)) * np.float32(buckets - exact)
    large = np.minimum(exact + np.where(distance > 0, logarithm, 0).astype(np.int64), buckets - 1)
    return np.where(distance < exact, distance, large)

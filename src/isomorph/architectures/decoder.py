"""Language models as graphs: a checkpoint under GGUF's names becomes an ONNX model that reads tokens and keeps its keys and values.

Inputs: `input_ids` [batch, sequence], `attention_mask` [batch, total], `position_ids` [batch, sequence], and for each layer `past_key_values.N.key` and
`.value` [batch, key heads, past, size]. Outputs: `logits` [batch, sequence, words] and `present.N.key`, `.value` [batch, key heads, total, size].
The names are those that ONNX Runtime's generators and Transformers.js expect. What the networks compute: transformers' models/*/modeling_*.py and llama.cpp's
src/models/*.cpp.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.architectures.products import FLOAT, Products
from isomorph.errors import Unsupported
from isomorph.model import HUB_IR_VERSION, HUB_OPSET, Checkpoint, Model
from isomorph.report import Finding, Severity
from isomorph.tensors import dims_of

PAIRS, HALVES = "pairs", "halves"           # what a rotation turns against each other: neighbours, or the two halves of a head
Value = ir.Value


@dataclass(frozen=True)
class Network:
    """What a family computes where others differ. `rotates` is empty where positions are a table. Every so many layers as `every` says, one does not rotate,
    and as `wide` says, one sees everything where the others see a window; 1 means a window for all. `parallel`: attention and the inner layer read the same."""

    rotates: str = HALVES
    norm: str = "rms"
    activation: str = "silu"
    scales_embedding: bool = False
    every: int = 0
    wide: int = 0
    parallel: bool = False


NETWORKS = {
    "llama": Network(PAIRS), "qwen2": Network(), "qwen3": Network(), "smollm3": Network(PAIRS, every=4), "phi3": Network(wide=1),
    "gemma": Network(activation="gelu", scales_embedding=True), "gemma2": Network(activation="gelu", scales_embedding=True, wide=2),
    "gemma3": Network(activation="gelu", scales_embedding=True, wide=6), "olmo2": Network(), "granite": Network(PAIRS), "stablelm": Network(norm="layer"),
    "starcoder2": Network(norm="layer", activation="gelu", wide=1), "phi2": Network(norm="layer", activation="gelu", parallel=True),
    "gpt2": Network("", norm="layer", activation="gelu"),
}
WHOLE_HEADS = {("gemma2", 46), ("gemma3", 62)}      # the 27B models, whose attention is scaled by the width that falls to a head, not by its size


@dataclass(frozen=True)
class Sizes:
    """The numbers of one model, from the keys of GGUF. Raises `Unsupported` for keys that ask for something that is not built."""

    layers: int
    heads: int
    key_heads: int
    head: int
    rotated: int
    base: float
    epsilon: float
    window: int
    attention_cap: float
    logit_cap: float
    factor: float                           # that positions are divided by
    near_base: float                        # of the rotation in layers that see a window
    scale: float                            # of queries times keys
    embedding: float                        # that the words of the table are multiplied by
    residual: float                         # and what every layer adds
    logits: float                           # what the logits are divided by

    @classmethod
    def of(cls, architecture: str, keys: Mapping[str, Any], width: int) -> Sizes:
        def number(key: str, default: float = 0.0) -> float:
            value = keys.get(f"{architecture}.{key}", default)
            if isinstance(value, Sequence) and not isinstance(value, str) and len(set(value)) == 1:
                value = value[0]
            if not isinstance(value, (int, float)):
                raise Unsupported(f"{architecture}.{key} is {str(value)[:60]}, which differs from layer to layer")
            return value
        heads = int(number("attention.head_count"))
        if not heads or not number("block_count"):
            raise Unsupported(f"the keys {architecture}.attention.head_count and {architecture}.block_count are missing")
        scaling = str(keys.get(f"{architecture}.rope.scaling.type", "none"))
        if scaling not in ("none", "linear"):
            raise Unsupported(f"positions are scaled by {scaling!r}, which is not built")
        head = int(number("attention.key_length", width // heads))
        if number("attention.value_length", head) != head or number("expert_count"):
            raise Unsupported("values of another size than keys, or experts, are not built")
        default = 1e-5 if architecture == "gpt2" else 1e-6
        layers = int(number("block_count"))
        whole = width // heads if (architecture, layers) in WHOLE_HEADS else head
        epsilon = number("attention.layer_norm_rms_epsilon") or number("attention.layer_norm_epsilon") or default
        return cls(layers, heads, int(number("attention.head_count_kv", heads)), head, int(number("rope.dimension_count", head)),
                   number("rope.freq_base", 10000.0), epsilon, int(number("attention.sliding_window")), number("attn_logit_softcapping"),
                   number("final_logit_softcapping"), number("rope.scaling.factor", 1.0) if scaling == "linear" else 1.0,
                   number("rope.freq_base_swa", 10000.0), number("attention.scale") or 1 / math.sqrt(whole), number("embedding_scale", 1.0),
                   number("residual_scale", 1.0), number("logit_scale", 1.0))


def graph(content: Checkpoint, *, quantised: bool = True) -> Model:
    """The network that these weights, under GGUF's names, belong to. With `quantised`, blocks stay codes and scales; else they are decoded to float32.

    Raises `Unsupported` for an architecture that is not built, with every weight that its network would not read.
    """
    architecture = str(content.metadata.get("general.architecture", ""))
    network = NETWORKS.get(architecture)
    if network is None:
        raise Unsupported(f"no graph is built for the architecture {architecture!r}", hint="those that are: " + ", ".join(NETWORKS))
    if "token_embd.weight" not in content:
        raise Unsupported("the file holds no table of words, token_embd.weight", hint="a vocabulary or an adapter is no whole model")
    return _Decoder(content, network, architecture, quantised).build()


def samples(model: Model, seed: int, past: int = 3, sequence: int = 5) -> dict[str, np.ndarray]:
    """Inputs that fit together: `sequence` random tokens behind `past` others, whose keys and values are random."""
    random = np.random.default_rng(seed)
    dims: dict[str, list[Any]] = {str(value.name): list(value.shape or ()) for value in (*model.graph.inputs, *model.graph.outputs)}
    feeds: dict[str, np.ndarray] = {"input_ids": random.integers(0, dims["logits"][2], (1, sequence)),
                                    "attention_mask": np.ones((1, past + sequence), np.int64), "position_ids": np.arange(past, past + sequence)[None]}
    for value in model.graph.inputs:
        if value.name not in feeds:
            _, heads, _, size = dims[str(value.name)]
            feeds[str(value.name)] = random.normal(size=(1, heads, past, size)).astype(np.float32)
    return feeds


class _Decoder:
    def __init__(self, content: Checkpoint, network: Network, architecture: str, quantised: bool):
        self.content, self.network, self.architecture = content, network, architecture
        self.read: set[str] = set()
        self.products = Products(_Watched(content, self.read), quantised=quantised)
        self.op = self.products.op
        self.words, self.width = dims_of(content["token_embd.weight"])
        self.sizes = Sizes.of(architecture, content.metadata, self.width)
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []

    def build(self) -> Model:
        op, products = self.op, self.products
        ids, mask = self.input("input_ids", ["batch", "sequence"]), self.input("attention_mask", ["batch", "total"])
        positions = self.input("position_ids", ["batch", "sequence"])
        x = products.rows(ids, "token_embd.weight")
        x = self.times(x, math.sqrt(self.width) if self.network.scales_embedding else self.sizes.embedding)
        if not self.network.rotates:
            x = op.Add(x, products.rows(positions, "position_embd.weight"))
        if self.network.rotates:
            everything = self.rotation(positions, self.sizes.base, self.sizes.factor)
            self.angles = everything, everything if self.network.wide < 3 else self.rotation(positions, self.sizes.near_base, 1.0)
        self.masks = self.allowed(ids, mask)
        for layer in range(self.sizes.layers):
            x = self.block(x, layer)
        x = self.normalised(x, "output_norm")
        logits = products.product(x, "output" if "output.weight" in self.content else "token_embd")
        logits = self.capped(self.times(logits, 1 / self.sizes.logits), self.sizes.logit_cap)
        self.output(logits, "logits", ir.DataType.FLOAT, ["batch", "sequence", self.words])
        self.outputs.insert(0, self.outputs.pop())
        return self.finished()

    def finished(self) -> Model:
        left = [name for name in self.content if name not in self.read]
        if left:
            blockers = [(name, name, f"the network of {self.architecture} does not read it") for name in left]
            raise Unsupported(f"{len(left)} weights have no place in the network of {self.architecture}: {', '.join(left[:5])}", blockers=blockers)
        made = self.products.finished(self.inputs, self.outputs, self.architecture, HUB_OPSET, HUB_IR_VERSION)
        findings = list(self.content.findings)
        if self.products.kept:
            sentence = f"{self.products.kept} products compute with the codes of their weights, by the operator MatMulNBits of ONNX Runtime"
            findings.append(Finding("weights.codes", Severity.LOW, self.architecture, sentence, "for other runtimes, convert with --dtype fp32"))
        return Model(made, "onnx", metadata=dict(self.content.metadata), findings=findings)

    def input(self, name: str, dims: list[Any], dtype: ir.DataType = ir.DataType.INT64) -> Value:
        self.inputs.append(Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(dims)))
        return self.inputs[-1]

    def output(self, value: Value, name: str, dtype: ir.DataType, dims: list[Any]) -> None:
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(dims)
        self.outputs.append(value)

    # ---- positions

    def times(self, x: Value, factor: float) -> Value:
        return x if factor == 1 else self.op.Mul(x, self.products.constant(factor, np.float32))

    def rotation(self, positions: Value, base: float, factor: float) -> tuple[Value, Value]:
        """Cosine and sine [batch, sequence, rotated / 2] of every angle, once for all layers."""
        op, sizes, products = self.op, self.sizes, self.products
        steps = np.arange(0, sizes.rotated, 2, dtype=np.float64) / sizes.rotated
        frequencies = products.constant((1 / (base ** steps) / factor).astype(np.float32), np.float32)
        if "rope_freqs.weight" in self.content:
            frequencies = op.Div(frequencies, products.vector("rope_freqs.weight"))
        angles = op.Mul(op.Unsqueeze(op.Cast(positions, to=FLOAT), products.constant([-1])), frequencies)
        return op.Cos(angles), op.Sin(angles)

    def rotated(self, x: Value, heads: int, near: bool) -> Value:
        cosine, sine = self.angles[near]
        return self.op.RotaryEmbedding(x, cosine, sine, num_heads=heads, interleaved=int(self.network.rotates == PAIRS),
                                       rotary_embedding_dim=self.sizes.rotated if self.sizes.rotated < self.sizes.head else 0)

    def allowed(self, ids: Value, mask: Value) -> tuple[Value, Value]:
        """Which keys each query sees [batch, 1, sequence, total]: those before it that the mask does not leave out; and those of them in its window."""
        op, constant = self.op, self.products.constant
        sequence, total = (op.Squeeze(op.Shape(value, start=1, end=2), constant([0])) for value in (ids, mask))
        keys = op.Range(constant(0), total, constant(1))
        queries = op.Unsqueeze(op.Add(op.Range(constant(0), sequence, constant(1)), op.Sub(total, sequence)), constant([1]))
        seen = op.Unsqueeze(op.Unsqueeze(op.Cast(mask, to=ir.DataType.BOOL), constant([1])), constant([1]))
        everything = op.And(op.LessOrEqual(keys, queries), seen)
        if not self.sizes.window or not self.network.wide:
            return everything, everything
        near = op.Less(op.Sub(queries, keys), constant(self.sizes.window))
        return everything, op.And(near, everything)

    # ---- layers

    def block(self, x: Value, layer: int) -> Value:
        names = f"blk.{layer}."
        before = self.around(x, names + "attn_norm")
        y = self.around(self.attention(before, names, layer), names + "post_attention_norm")
        if self.network.parallel:
            return self.op.Add(self.op.Add(x, y), self.inner(before, names))
        x = self.op.Add(x, self.times(y, self.sizes.residual))
        y = self.around(self.inner(self.around(x, names + "ffn_norm"), names), names + "post_ffw_norm")
        return self.op.Add(x, self.times(y, self.sizes.residual))

    def around(self, x: Value, name: str) -> Value:
        """A norm, where the family has one there."""
        return self.normalised(x, name) if name + ".weight" in self.content else x

    def attention(self, x: Value, names: str, layer: int) -> Value:
        op, sizes = self.op, self.sizes
        q, k, v = self.queries(x, names)
        q, k = self.head_norm(q, names + "attn_q_norm"), self.head_norm(k, names + "attn_k_norm")
        near = bool(sizes.window and self.network.wide) and (self.network.wide == 1 or (layer + 1) % self.network.wide != 0)
        if self.network.rotates and not (self.network.every and (layer + 1) % self.network.every == 0):
            q, k = self.rotated(q, sizes.heads, near), self.rotated(k, sizes.key_heads, near)
        dims = ["batch", sizes.key_heads, "past", sizes.head]
        past = [self.input(f"past_key_values.{layer}.{part}", dims, ir.DataType.FLOAT) for part in ("key", "value")]
        y, keys, values = op.Attention(q, k, v, self.masks[near], *past, q_num_heads=sizes.heads, kv_num_heads=sizes.key_heads, scale=float(sizes.scale),
                                       softcap=float(sizes.attention_cap), _outputs=3)
        for value, part in ((keys, "key"), (values, "value")):
            self.output(value, f"present.{layer}.{part}", ir.DataType.FLOAT, ["batch", sizes.key_heads, "total", sizes.head])
        return self.products.product(y, names + "attn_output")

    def queries(self, x: Value, names: str) -> list[Value]:
        """Queries, keys and values [batch, sequence, heads * size], of three matrices or of one."""
        if names + "attn_qkv.weight" not in self.content:
            return [self.products.product(x, f"{names}attn_{part}") for part in "qkv"]
        sizes = [heads * self.sizes.head for heads in (self.sizes.heads, self.sizes.key_heads, self.sizes.key_heads)]
        return list(self.op.Split(self.products.product(x, names + "attn_qkv"), self.products.constant(sizes), axis=-1, _outputs=3))

    def head_norm(self, x: Value, name: str) -> Value:
        """A norm over each head or over all of them together, where there is one."""
        if name + ".weight" not in self.content:
            return x
        if self.content[name + ".weight"].size > self.sizes.head:
            return self.normalised(x, name)
        op, constant = self.op, self.products.constant
        heads = op.Reshape(x, constant([0, 0, -1, self.sizes.head]))
        return op.Reshape(self.normalised(heads, name), constant([0, 0, -1]))

    def inner(self, x: Value, names: str) -> Value:
        products, op = self.products, self.op
        if names + "ffn_gate.weight" in self.content:
            gate, up = products.product(x, names + "ffn_gate"), products.product(x, names + "ffn_up")
        elif dims_of(self.content[names + "ffn_up.weight"])[0] == 2 * dims_of(self.content[names + "ffn_down.weight"])[1]:
            gate, up = op.Split(products.product(x, names + "ffn_up"), axis=-1, num_outputs=2, _outputs=2)
        else:
            return products.product(self.activated(products.product(x, names + "ffn_up")), names + "ffn_down")
        return products.product(op.Mul(self.activated(gate), up), names + "ffn_down")

    def activated(self, x: Value) -> Value:
        return self.op.Gelu(x, approximate="tanh") if self.network.activation == "gelu" else self.op.Mul(x, self.op.Sigmoid(x))

    def normalised(self, x: Value, name: str) -> Value:
        weight = self.products.vector(name + ".weight")
        if self.network.norm == "rms":
            return self.op.RMSNormalization(x, weight, axis=-1, epsilon=float(self.sizes.epsilon))
        bias = [self.products.vector(name + ".bias")] if name + ".bias" in self.content else []
        return self.op.LayerNormalization(x, weight, *bias, axis=-1, epsilon=float(self.sizes.epsilon))

    def capped(self, x: Value, limit: float) -> Value:
        if not limit:
            return x
        cap = self.products.constant(limit, np.float32)
        return self.op.Mul(self.op.Tanh(self.op.Div(x, cap)), cap)


class _Watched(Mapping[str, Any]):
    """Weights that remember which of them were read."""

    def __init__(self, content: Checkpoint, read: set[str]):
        self.content, self.read = content, read

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return self.content[name]

    def __contains__(self, name: object) -> bool:
        return name in self.content

    def __iter__(self) -> Any:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

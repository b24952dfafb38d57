"""Networks that read tokens and keep their keys and values, as ONNX graphs.

Inputs: `input_ids` [batch, sequence], `attention_mask` [batch, total], `position_ids` [batch, sequence], and for each layer `past_key_values.N.key` and
`.value` [batch, key heads, past, size]. Outputs: `logits` [batch, sequence, words] and `present.N.key`, `.value` [batch, key heads, total, size].
The names are those that ONNX Runtime's generators and Transformers.js expect.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np

from isomorph.architectures.layers import FLOAT32, NETWORKS, PAIRS, Layers, Sizes, Value, ir
from isomorph.architectures.positions import Rotation
from isomorph.model import Checkpoint, Model


def graph(content: Checkpoint, architecture: str, **how: bool) -> Model:
    """The network that these weights, under GGUF's names, belong to. Raises `Unsupported` as `Layers` and `Sizes` do."""
    return _Decoder(content, architecture, NETWORKS[architecture], **how).build()


class _Decoder(Layers):
    def build(self) -> Model:
        op, products = self.op, self.products
        self.sizes = sizes = Sizes.of(self.architecture, self.source.metadata, self.width)
        ids, mask = self.input("input_ids", ["batch", "sequence"]), self.input("attention_mask", ["batch", "total"])
        positions = self.input("position_ids", ["batch", "sequence"])
        x = products.rows(ids, "token_embd.weight")
        x = self.times(x, math.sqrt(self.width) if self.network.scales_embedding else sizes.embedding)
        if self.network.rotates:
            everything = self.scaled_rotation(positions, sizes.base, sizes.rotated)
            self.angles = everything, everything if self.network.wide < 3 else self.near_rotation(positions)
        else:
            x = op.Add(x, products.rows(positions, "position_embd.weight"))
        self.masks = self.allowed(ids, mask)
        for layer in range(sizes.layers):
            x = self.block(x, layer)
        x = self.normalised(x, "output_norm", sizes.epsilon)
        logits = products.product(x, "output" if "output.weight" in self.content else "token_embd")
        logits = self.capped(self.times(logits, 1 / sizes.logits), sizes.logit_cap)
        self.output(logits, "logits", ["batch", "sequence", self.words])
        self.outputs.insert(0, self.outputs.pop())
        return self.finished()

    # ---- positions

    def near_rotation(self, positions: Value) -> tuple[Value, Value]:
        """Of layers that see a window, whose positions are not scaled."""
        frequencies = self.sizes.near_base ** -(np.arange(0, self.sizes.rotated, 2, dtype=np.float64) / self.sizes.rotated)
        return self.rotation(positions, Rotation(frequencies.astype(np.float32), self.sizes.near_base), self.sizes.rotated)

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
        if self.network.parallel:
            return self.parallel_block(x, names, layer)
        y = self.around(self.attention(self.around(x, names + "attn_norm"), names, layer), names + "post_attention_norm")
        x = self.op.Add(x, self.times(y, self.sizes.residual))
        y = self.around(self.behind(self.around(x, names + "ffn_norm"), names), names + "post_ffw_norm")
        return self.op.Add(x, self.times(y, self.sizes.residual))

    def parallel_block(self, x: Value, names: str, layer: int) -> Value:
        """Attention and the inner layer read what comes in, behind one norm or each behind its own."""
        first = self.normalised(x, names + "attn_norm", self.sizes.epsilon)
        attended = self.attention(self.around(x, names + "attn_norm_2") if names + "attn_norm_2.weight" in self.content else first, names, layer)
        read = self.around(x, names + "ffn_norm") if names + "ffn_norm.weight" in self.content else first
        return self.op.Add(self.op.Add(x, attended), self.behind(read, names))

    def behind(self, x: Value, names: str) -> Value:
        return self.experts(x, names, self.sizes) if names + "ffn_gate_inp.weight" in self.content else self.inner(x, names)

    def around(self, x: Value, name: str) -> Value:
        """A norm, where the family has one there."""
        return self.normalised(x, name, self.sizes.epsilon) if name + ".weight" in self.content else x

    def attention(self, x: Value, names: str, layer: int) -> Value:
        op, sizes = self.op, self.sizes
        q, k, v = self.attention_inputs(x, names, sizes)
        q, k = self.head_norm(q, names + "attn_q_norm"), self.head_norm(k, names + "attn_k_norm")
        near = bool(sizes.window and self.network.wide) and (self.network.wide == 1 or (layer + 1) % self.network.wide != 0)
        if self.network.rotates and not (self.network.every and (layer + 1) % self.network.every == 0):
            q, k = self.rotated(q, sizes.heads, near), self.rotated(k, sizes.key_heads, near)
        dims: list[Any] = ["batch", sizes.key_heads, "past", sizes.head]
        past = [self.input(f"past_key_values.{layer}.{part}", dims, FLOAT32) for part in ("key", "value")]
        y, keys, values = op.Attention(q, k, v, self.masks[near], *past, q_num_heads=sizes.heads, kv_num_heads=sizes.key_heads, scale=float(sizes.scale),
                                       softcap=float(sizes.attention_cap), _outputs=3)
        for value, part in ((keys, "key"), (values, "value")):
            self.output(value, f"present.{layer}.{part}", ["batch", sizes.key_heads, "total", sizes.head])
        return self.products.product(y, names + "attn_output")

    def head_norm(self, x: Value, name: str) -> Value:
        """A norm over each head or over all of them together, where there is one."""
        if name + ".weight" not in self.content:
            return x
        if self.content[name + ".weight"].size > self.sizes.head:
            return self.normalised(x, name, self.sizes.epsilon)
        op, constant = self.op, self.products.constant
        heads = op.Reshape(x, constant([0, 0, -1, self.sizes.head]))
        return op.Reshape(self.normalised(heads, name, self.sizes.epsilon), constant([0, 0, -1]))

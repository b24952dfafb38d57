"""Networks that read a whole text at once, as BERT does, as ONNX graphs.

Inputs: `input_ids`, `attention_mask`, `token_type_ids`, each [batch, sequence]. Outputs: `last_hidden_state` [batch, sequence, width], and where the weights
have a pooler, `pooler_output` [batch, width].
"""
from __future__ import annotations

from typing import Any

from isomorph.architectures.layers import ENCODERS, Layers, Sizes, Value, ir
from isomorph.model import Checkpoint, Model


def graph(content: Checkpoint, architecture: str, **how: bool) -> Model:
    """The network that these weights, under GGUF's names, belong to. Raises `Unsupported` as `Layers` and `Sizes` do."""
    return _Encoder(content, architecture, ENCODERS[architecture], **how).build()


class _Encoder(Layers):
    def build(self) -> Model:
        op, products, constant = self.op, self.products, self.products.constant
        self.sizes = sizes = Sizes.of(self.architecture, self.source.metadata, self.width)
        dims: list[Any] = ["batch", "sequence"]
        ids, mask, types = (self.input(name, dims) for name in ("input_ids", "attention_mask", "token_type_ids"))
        x = products.rows(ids, "token_embd.weight")
        if "token_types.weight" in self.content:
            x = op.Add(x, products.rows(types, "token_types.weight"))
        count = op.Squeeze(op.Shape(ids, start=1, end=2), constant([0]))
        positions = op.Unsqueeze(op.Range(constant(0), count, constant(1)), constant([0]))
        if self.network.rotates:
            positions = op.Expand(positions, op.Shape(ids))
            self.angles = self.scaled_rotation(positions, sizes.base, sizes.rotated)
        else:
            x = op.Add(x, products.rows(positions, "position_embd.weight"))
        x = self.normalised(x, "token_embd_norm", sizes.epsilon)
        seen = op.Unsqueeze(op.Cast(mask, to=ir.DataType.BOOL), constant([1, 2]))
        self.mask = op.Expand(seen, op.Concat(constant([1, 1]), op.Unsqueeze(count, constant([0])), constant([1]), axis=0))
        for layer in range(sizes.layers):
            x = self.block(x, f"blk.{layer}.")
        self.output(op.Identity(x), "last_hidden_state", ["batch", "sequence", self.width])
        if "cls.weight" in self.content:
            pooled = op.Tanh(products.product(op.Gather(x, constant(0), axis=1), "cls"))
            self.output(pooled, "pooler_output", ["batch", self.width])
        return self.finished()

    def block(self, x: Value, names: str) -> Value:
        """Norms stand behind what is added."""
        y = self.op.Add(x, self.attention(x, names))
        x = self.normalised(y, names + "attn_output_norm", self.sizes.epsilon)
        return self.normalised(self.op.Add(x, self.inner(x, names)), names + "layer_output_norm", self.sizes.epsilon)

    def attention(self, x: Value, names: str) -> Value:
        q, k, v = self.attention_inputs(x, names, self.sizes)
        if self.network.rotates:
            q, k = (self.op.RotaryEmbedding(part, *self.angles, num_heads=self.sizes.heads) for part in (q, k))
        y = self.op.Attention(q, k, v, self.mask, q_num_heads=self.sizes.heads, kv_num_heads=self.sizes.key_heads, scale=float(self.sizes.scale))
        return self.products.product(y, names + "attn_output")

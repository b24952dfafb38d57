"""Networks that keep states of a fixed size instead of keys and values, as ONNX graphs: Mamba and RWKV 4.

Inputs: `input_ids` [batch, sequence], and for each layer `past_key_values.N.NAME`, zeros before the first token. Outputs: `logits` [batch, sequence, words] and
`present.N.NAME`. Every token passes through the layers, so texts of unequal length are not padded but read apart.
What they compute: transformers' models/mamba/modeling_mamba.py and models/rwkv/modeling_rwkv.py.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.architectures.layers import FLOAT32, Layers, Network, Value, number_of
from isomorph.architectures.products import Nodes
from isomorph.errors import Unsupported
from isomorph.model import HUB_OPSET, Checkpoint, Model
from isomorph.tensors import dims_of

NOTHING_YET = -1e38                         # the greatest exponent before the first token


def graph(content: Checkpoint, architecture: str, **how: bool) -> Model:
    """The network that these weights, under GGUF's names, belong to. Raises `Unsupported` as `Layers` does."""
    return NETWORKS[architecture](content, architecture, Network(norm="rms" if architecture == "mamba" else "layer"), **how).build()


class _Recurrent(Layers):
    def build(self) -> Model:
        """Words, layers, logits."""
        keys, name = self.source.metadata, self.architecture
        self.count = int(number_of(keys, f"{name}.block_count"))
        self.epsilon = number_of(keys, f"{name}.attention.layer_norm_rms_epsilon") or number_of(keys, f"{name}.attention.layer_norm_epsilon", 1e-5)
        if not self.count:
            raise Unsupported(f"the key {name}.block_count is missing")
        x = self.products.rows(self.input("input_ids", ["batch", "sequence"]), "token_embd.weight")
        if "token_embd_norm.weight" in self.content:
            x = self.normalised(x, "token_embd_norm", self.epsilon)
        for layer in range(self.count):
            x = self.block(x, layer)
        x = self.normalised(x, "output_norm", self.epsilon)
        logits = self.products.product(x, "output" if "output.weight" in self.content else "token_embd")
        self.output(logits, "logits", ["batch", "sequence", self.words])
        self.outputs.insert(0, self.outputs.pop())
        return self.finished()

    def block(self, x: Value, layer: int) -> Value:
        raise NotImplementedError

    def state(self, layer: int, part: str, *dims: int) -> Value:
        return self.input(f"past_key_values.{layer}.{part}", ["batch", *dims], FLOAT32)

    def kept(self, value: Value, layer: int, part: str, *dims: int) -> None:
        self.output(value, f"present.{layer}.{part}", ["batch", *dims])

    def last(self, x: Value, count: int = 1) -> Value:
        """The last tokens of [batch, sequence, width]."""
        constant = self.products.constant
        return self.op.Slice(x, constant([-count]), constant([np.iinfo(np.int64).max]), constant([1]))

    def scan(self, states: list[Value], pieces: list[Value], step: Callable[[Nodes, list[Value], list[Value]], tuple[list[Value], Value]]
             ) -> tuple[list[Value], Value]:
        """Runs `step` once a token: it takes the states and the token's pieces [batch, ...] and answers new states and the token's result. `pieces` and the
        results are [batch, sequence, ...]."""
        body = Nodes()
        inner = [Value(name=f"{state.name}.before", type=ir.TensorType(FLOAT32)) for state in states]
        token = [Value(name=f"piece.{place}.{states[0].name}", type=ir.TensorType(FLOAT32)) for place in range(len(pieces))]
        after, result = step(body, inner, token)
        after = [body.Identity(value) for value in after]
        for value in (*after, result):
            value.type = ir.TensorType(FLOAT32)
        inside = ir.Graph([*inner, *token], [*after, result], nodes=body.tape.nodes, opset_imports={"": HUB_OPSET}, name=f"step.{states[0].name}")
        axes = [1] * len(pieces)
        outputs = self.op.Scan(*states, *pieces, body=inside, num_scan_inputs=len(pieces), scan_input_axes=axes, scan_output_axes=[1],
                               _outputs=len(states) + 1)
        return list(outputs[:-1]), outputs[-1]


class _Mamba(_Recurrent):
    """A convolution over the last tokens, then a state whose decay and whose input follow from the token itself."""

    def block(self, x: Value, layer: int) -> Value:
        op, products, constant, names = self.op, self.products, self.products.constant, f"blk.{layer}."
        inner, kernel, size, rank = (int(number_of(self.source.metadata, f"mamba.ssm.{key}")) for key in
                                     ("inner_size", "conv_kernel", "state_size", "time_step_rank"))
        if not all((inner, kernel, size, rank)):
            raise Unsupported("the keys mamba.ssm.* do not state the sizes")
        y, gate = op.Split(products.product(self.normalised(x, names + "attn_norm", self.epsilon), names + "ssm_in"), axis=-1, num_outputs=2, _outputs=2)
        before = op.Concat(self.state(layer, "convolution", kernel - 1, inner), y, axis=1)
        self.kept(self.last(before, kernel - 1), layer, "convolution", kernel - 1, inner)
        weight = op.Unsqueeze(products.vector(names + "ssm_conv1d.weight"), constant([1]))
        y = op.Conv(op.Transpose(before, perm=[0, 2, 1]), weight, products.vector(names + "ssm_conv1d.bias"), group=inner, kernel_shape=[kernel])
        y = op.Transpose(y, perm=[0, 2, 1])
        y = op.Mul(y, op.Sigmoid(y))
        steps, into, out = op.Split(products.product(y, names + "ssm_x"), constant([rank, size, size]), axis=-1, _outputs=3)
        steps = op.Softplus(products.product(steps, names + "ssm_dt"))
        decay, column = products.vector(names + "ssm_a"), constant([-1])

        def step(op: Nodes, states: list[Value], token: list[Value]) -> tuple[list[Value], Value]:
            inputs, wide, into, out = token[0], op.Unsqueeze(token[1], column), op.Unsqueeze(token[2], constant([1])), op.Unsqueeze(token[3], column)
            moved = op.Mul(op.Mul(wide, into), op.Unsqueeze(inputs, column))
            after = op.Add(op.Mul(op.Exp(op.Mul(wide, decay)), states[0]), moved)
            return [after], op.Squeeze(op.MatMul(after, out), column)
        states, found = self.scan([self.state(layer, "state", inner, size)], [y, steps, into, out], step)
        self.kept(states[0], layer, "state", inner, size)
        found = op.Add(found, op.Mul(y, products.vector(names + "ssm_d")))
        return op.Add(x, products.product(op.Mul(found, op.Mul(gate, op.Sigmoid(gate))), names + "ssm_out"))


class _Rwkv(_Recurrent):
    """A weighted mean over all tokens so far, whose weights decay at the pace of each channel; both layers look at the token before, too."""

    def block(self, x: Value, layer: int) -> Value:
        names = f"blk.{layer}."
        x = self.op.Add(x, self.time_mix(self.normalised(x, names + "attn_norm", self.epsilon), names, layer))
        return self.op.Add(x, self.channel_mix(self.normalised(x, names + "attn_norm_2", self.epsilon), names, layer))

    def mixed(self, x: Value, names: str, part: str, layer: int, shares: str) -> list[Value]:
        """The token blended with the one before it, once a share, in the order of the letters of `shares`."""
        op = self.op
        before = self.state(layer, part, self.width)
        shifted = op.Concat(op.Unsqueeze(before, self.products.constant([1])), op.Slice(x, *(self.products.constant([place]) for place in (0, -1, 1))), axis=1)
        self.kept(op.Squeeze(self.last(x), self.products.constant([1])), layer, part, self.width)
        return [op.Add(shifted, op.Mul(op.Sub(x, shifted), self.products.vector(f"{names}{part}_lerp_{letter}.weight"))) for letter in shares]

    def time_mix(self, x: Value, names: str, layer: int) -> Value:
        op, products, constant = self.op, self.products, self.products.constant
        key, value, gate = self.mixed(x, names, "time_mix", layer, "kvr")
        key, value = products.product(key, names + "time_mix_key"), products.product(value, names + "time_mix_value")
        gate = op.Sigmoid(products.product(gate, names + "time_mix_receptance"))
        decay = op.Neg(op.Exp(products.vector(names + "time_mix_decay.weight")))
        first = products.vector(names + "time_mix_first.weight")
        width = dims_of(self.content[names + "time_mix_first.weight"])[0]
        least, zero = constant(NOTHING_YET, np.float32), constant(0, np.float32)

        def step(op: Nodes, states: list[Value], token: list[Value]) -> tuple[list[Value], Value]:
            (above, below, most), (key, value) = states, token
            most = op.Where(op.Equal(below, zero), least, most)

            def joined(old: Value, new: Value) -> tuple[Value, Value, Value]:
                greatest = op.Max(old, new)
                kept, come = op.Exp(op.Sub(old, greatest)), op.Exp(op.Sub(new, greatest))
                return op.Add(op.Mul(kept, above), op.Mul(come, value)), op.Add(op.Mul(kept, below), come), greatest
            seen = joined(most, op.Add(key, first))
            return list(joined(op.Add(most, decay), key)), op.Div(seen[0], seen[1])
        states = [self.state(layer, part, width) for part in ("numerator", "denominator", "exponent")]
        after, found = self.scan(states, [key, value], step)
        for state, part in zip(after, ("numerator", "denominator", "exponent"), strict=True):
            self.kept(state, layer, part, width)
        return products.product(op.Mul(gate, found), names + "time_mix_output")

    def channel_mix(self, x: Value, names: str, layer: int) -> Value:
        op, products = self.op, self.products
        key, gate = self.mixed(x, names, "channel_mix", layer, "kr")
        key = op.Relu(products.product(key, names + "channel_mix_key"))
        value = products.product(op.Mul(key, key), names + "channel_mix_value")
        return op.Mul(op.Sigmoid(products.product(gate, names + "channel_mix_receptance")), value)


NETWORKS: dict[str, Any] = {"mamba": _Mamba, "rwkv": _Rwkv}

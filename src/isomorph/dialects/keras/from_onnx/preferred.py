"""Operators that are layers where they keep the batch apart, so that every generation of Keras has them; `operators` takes what is left."""
from __future__ import annotations

from typing import Any

import onnx_ir as ir

from isomorph.dialects._lower import Ints, Mapping
from isomorph.dialects.keras.from_onnx.writing import LayerBuilder as Op
from isomorph.dialects.keras.from_onnx.writing import Value, number

as_layers = Mapping("")
FLOATS = {ir.DataType.FLOAT, ir.DataType.FLOAT16, ir.DataType.BFLOAT16, ir.DataType.DOUBLE}
ACTIVATIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Softplus": "softplus", "Softsign": "softsign"}
MERGES = {"Add": "Add", "Mul": "Multiply", "Sub": "Subtract", "Max": "Maximum", "Min": "Minimum"}


def batched(op: Op, *xs: Value) -> bool:
    """Whether these are floats computed from inputs, with a batch axis of the same size as that of the result."""
    first = op.of(op.outputs[0])[1][:1]
    return all(x.dtype in FLOATS and not op.is_stored(x) and op.of(x)[0] >= 2 and op.of(x)[1][:1] == first and first[0] is not None for x in xs)


@as_layers("Relu")
def relu(op, x):
    return op.layer("ReLU", x) if batched(op, x) else NotImplemented


@as_layers("Clip")
def clipped_relu(op, x, low=None, high=None):
    """From nothing to a limit."""
    fits = low is not None and high is not None and number(low) == 0 and number(high) is not None and batched(op, x)
    return op.layer("ReLU", x, max_value=number(high)) if fits else NotImplemented


@as_layers(*ACTIVATIONS)
def activation(op, x):
    return op.layer("Activation", x, activation=ACTIVATIONS[op.node.op_type]) if batched(op, x) else NotImplemented


@as_layers("LeakyRelu")
def leaky_relu(op, x, *, alpha=0.01):
    return op.layer("LeakyReLU", x, negative_slope=float(alpha)) if batched(op, x) else NotImplemented


@as_layers("Elu")
def elu(op, x, *, alpha=1.0):
    return op.layer("ELU", x, alpha=float(alpha)) if batched(op, x) else NotImplemented


@as_layers("Softmax")
def softmax(op, x, *, axis=-1):
    rank = op.of(x)[0]
    return op.layer("Softmax", x, axis=-1 if axis % rank == rank - 1 else axis % rank) if batched(op, x) and axis % rank else NotImplemented


@as_layers(*MERGES)
def merge(op, *xs):
    same = len(xs) == 2 and batched(op, *xs) and op.of(xs[0])[1] == op.of(xs[1])[1]
    return op.layer(MERGES[op.node.op_type], list(xs)) if same else NotImplemented


@as_layers("Concat")
def concat(op, *xs, axis):
    return op.layer("Concatenate", list(xs), axis=axis % op.of(xs[0])[0]) if len(xs) > 1 and batched(op, *xs) and axis % op.of(xs[0])[0] else NotImplemented


@as_layers("Transpose")
def transpose(op, x, *, perm=None):
    return op.layer("Permute", x, dims=list(perm[1:])) if perm is not None and perm[0] == 0 and batched(op, x) else NotImplemented


@as_layers("Reshape", "Flatten")
def reshape(op, x, shape=None, *, allowzero=0, axis=1):
    sizes = op.of(op.outputs[0])[1]
    if not batched(op, x) or not all(isinstance(size, int) for size in sizes[1:]) or len(sizes) < 2:
        return NotImplemented
    if len(sizes) == 2 and all(isinstance(size, int) for size in op.of(x)[1][1:]):
        return op.layer("Flatten", x)
    return op.layer("Reshape", x, target_shape=sizes[1:])


@as_layers("Squeeze", "Unsqueeze")
def rank_changed(op, x, axes: Ints | None = None):
    return reshape(op, x)


@as_layers("ReduceMean", "ReduceMax")
def pooled(op, x, axes: Ints | None = None, *, keepdims=1, noop_with_empty_axes=0):
    rank = op.of(x)[0]
    if not axes or not 3 <= rank <= 5 or sorted(axis % rank for axis in axes) != list(range(1, rank - 1)) or not batched(op, x):
        return NotImplemented
    kind = "Average" if op.node.op_type == "ReduceMean" else "Max"
    y = op.layer(f"Global{kind}Pooling{rank - 2}D", x, data_format="channels_last")
    channels = op.of(x)[1][-1]
    if not keepdims:
        return y
    return op.layer("Reshape", y, target_shape=[*[1] * (rank - 2), channels]) if isinstance(channels, int) else NotImplemented


@as_layers("Pad")
def pad(op, x, pads: Ints, value=None, axes: Ints | None = None, *, mode="constant"):
    rank = op.of(x)[0]
    chosen = [axis % rank for axis in axes] if axes is not None else list(range(rank))
    pairs: dict[int, list[Any]] = {axis: [pads[place], pads[place + len(chosen)]] for place, axis in enumerate(chosen)}
    outside = [pair for axis, pair in pairs.items() if axis in (0, rank - 1)]
    if mode != "constant" or rank not in (4, 5) or any(map(any, outside)) or min(pads) < 0 or not batched(op, x) or (value is not None and number(value) != 0):
        return NotImplemented
    widths = [pairs.get(axis, [0, 0]) for axis in range(1, rank - 1)]
    return op.layer(f"ZeroPadding{rank - 2}D", x, padding=widths, data_format="channels_last")

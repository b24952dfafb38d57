"""ONNX -> Keras layers with variables: what can be trained again."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant
from isomorph.dialects.keras.from_onnx.writing import LayerBuilder as Op
from isomorph.dialects.keras.from_onnx.writing import Value, from_onnx

T = ir.DataType
REAL = {T.FLOAT, T.DOUBLE, T.FLOAT16, T.BFLOAT16}
PADDING = {"VALID": "valid", "SAME_UPPER": "same"}


@from_onnx("Linear")
def linear(op, x, w, b=None):
    """x @ w + b over the last axis."""
    inputs, units = op.static(w)
    return op.layer("Dense", x, _variables={"kernel": w, "bias": b}, units=units, activation="linear", use_bias=b is not None)


@from_onnx("last::Conv")
def conv(op, x, w, b=None, *, auto_pad="VALID", strides=(1,), dilations=None, group=1, kernel_shape=None, pads=None):
    """[out, in, ...] -> [..., in, out]; one group for each channel is a depthwise layer. A computed kernel goes to an operation."""
    count = len(strides)
    dilations = list(dilations or [1] * count)
    settings = {"strides": list(strides), "padding": PADDING[auto_pad], "data_format": "channels_last"}
    settings["dilation_rate"] = dilations if any(step != 1 for step in dilations) else 1
    perm = (*range(2, count + 2), 1, 0)
    if not (op.is_stored(w) and (b is None or op.is_stored(b))):
        kernel = op.turned(w, perm) if op.is_stored(w) else op.ops("Transpose", w, axes=list(perm))
        y = op.ops("Conv", x, kernel, **settings)
        return y if b is None else op.ops("Add", y, b)
    out, per_group, *window = op.static(w)
    activation: dict[str, Any] = {"activation": "linear", "use_bias": b is not None}
    channels = op.of(x)[1][-1]
    if group > 1 and per_group == 1 and group == channels and count < 3 and len(set(strides)) == 1 and (len(set(dilations)) == 1):
        dims = (*window, group, out // group)
        kernel = op.computed(lambda a: np.moveaxis(a.reshape(group, out // group, *window), (0, 1), (-2, -1)), w, dims)
        settings["dilation_rate"] = dilations
        return op.layer(f"DepthwiseConv{count}D", x, _variables={"kernel": kernel, "bias": b}, kernel_size=window, depth_multiplier=out // group, **settings, **activation)
    settings["dilation_rate"] = dilations
    return op.layer(f"Conv{count}D", x, _variables={"kernel": op.turned(w, perm), "bias": b}, filters=out, kernel_size=window, groups=group, **settings, **activation)


@from_onnx("last::TransposedConv")
def conv_transpose(op, x, w, b=None, shape=None, *, auto_pad="VALID", strides=(1,), kernel_shape=None):
    """[in, out, ...] -> [..., out, in]. Without output padding Keras gives what the full and the same form give, where windows are not shorter than steps."""
    count = len(strides)
    window = op.static(w)[2:]
    if any(k < s for k, s in zip(window, strides, strict=True)):
        op.reject("windows shorter than their steps")
    settings = {"strides": list(strides), "padding": PADDING[auto_pad], "data_format": "channels_last"}
    perm = (*range(2, count + 2), 1, 0)
    if not (op.is_stored(w) and (b is None or op.is_stored(b))):
        kernel = op.turned(w, perm) if op.is_stored(w) else op.ops("Transpose", w, axes=list(perm))
        y = op.ops("ConvTranspose", x, kernel, **settings)
        return y if b is None else op.ops("Add", y, b)
    variables = {"kernel": op.turned(w, perm), "bias": b}
    return op.layer(f"Conv{count}DTranspose", x, _variables=variables, filters=op.static(w)[1], kernel_size=window, activation="linear", use_bias=b is not None, **settings)


@from_onnx("last::MaxPool", "last::AveragePool")
def pool(op, x, *, kernel_shape, auto_pad="VALID", strides=None, count_include_pad=0, dilations=None, pads=None, ceil_mode=0, storage_order=0):
    kind = "Max" if op.node.op_type == "MaxPool" else "Average"
    count = len(kernel_shape)
    steps = list(strides or [1] * count)
    if x.dtype not in REAL:
        return op.ops(f"{kind}Pool", x, pool_size=list(kernel_shape), strides=steps, padding=PADDING[auto_pad], data_format="channels_last")
    return op.layer(f"{kind}Pooling{count}D", x, pool_size=list(kernel_shape), strides=steps, padding=PADDING[auto_pad], data_format="channels_last")


@from_onnx("last::ResizeSpatial")
def resize(op, x, sizes, *, mode, align_corners=0, half_pixel_centers=0):
    """Keras resizes with half-pixel centres; whole factors of the nearest kind are upsampling."""
    known, given = constant(sizes), op.of(x)[1]
    if known is None:
        op.reject("the new size is computed")
    factors = [out / size for out, size in zip(known.tolist(), given[1:3], strict=True)] if all(isinstance(size, int) for size in given[1:3]) else [0.5]
    if mode == "nearest" and not align_corners and all(factor == int(factor) for factor in factors):
        return op.layer("UpSampling2D", x, size=[int(factor) for factor in factors], interpolation="nearest", data_format="channels_last")
    if not half_pixel_centers or mode == "nearest":
        op.reject("resizing without half-pixel centres")
    return op.layer("Resizing", x, height=int(known[0]), width=int(known[1]), interpolation="bilinear", data_format="channels_last")


@from_onnx("last::DepthToSpace", "last::SpaceToDepth")
def blocks(op, x, *, blocksize, mode="DCR"):
    return op.ops(op.node.op_type, x, block_size=blocksize, data_format="channels_last")


@from_onnx("last::BatchNormalization")
def batch_normalization(op, x, scale, bias, mean, variance, *, epsilon=1e-5, momentum=0.9, training_mode=0):
    variables = {"gamma": scale, "beta": bias, "moving_mean": mean, "moving_variance": variance}
    return op.layer("BatchNormalization", x, _variables=variables, axis=-1, epsilon=float(epsilon), momentum=float(momentum), center=True, scale=True)


@from_onnx("BatchNormalization")
def batch_normalization_of_vectors(op, x, scale, bias, mean, variance, *, epsilon=1e-5, momentum=0.9, training_mode=0):
    variables = {"gamma": scale, "beta": bias, "moving_mean": mean, "moving_variance": variance}
    return op.layer("BatchNormalization", x, _variables=variables, axis=1, epsilon=float(epsilon), momentum=float(momentum), center=True, scale=True)


@from_onnx("LayerNormalization")
def layer_normalization(op, x, scale, bias=None, *, axis=-1, epsilon=1e-5, stash_type=1):
    rank = op.of(x)[0]
    axes = list(range(axis % rank, rank))
    return op.layer("LayerNormalization", x, _variables={"gamma": scale, "beta": bias}, axis=axes if len(axes) > 1 else axes[0], epsilon=float(epsilon),
                    center=bias is not None, scale=True)


@from_onnx("PRelu")
def prelu(op, x, slope):
    """The slope has the sizes of x behind the batch, or one on axes that share it."""
    rank = op.of(x)[0]
    sizes = op.static(slope)
    shape = [1] * (rank - 1 - len(sizes)) + sizes[max(0, len(sizes) - rank + 1):]
    shared = [place + 1 for place, size in enumerate(shape) if size == 1]
    return op.layer("PReLU", x, _variables={"alpha": op.computed(lambda a: a.reshape(shape), slope, shape)}, shared_axes=shared or None)


# ---- recurrent

GATES = {"LSTM": (0, 2, 3, 1), "GRU": (0, 1, 2), "RNN": (0,)}              # ONNX's gates in Keras' order
KINDS = {"LSTM": "LSTM", "GRU": "GRU", "RNN": "SimpleRNN"}
ACTIVATIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu", "Softsign": "softsign", "Softplus": "softplus"}


@from_onnx("LSTM", "GRU", "RNN")
def recurrent(op, x, w, r, b=None, lengths=None, *states, hidden_size, direction="forward", activations=None, linear_before_reset=0, layout=0, clip=None,
              input_forget=0, **rest):
    """One layer for each direction, which goes backwards where ONNX does; sequences lie time first in ONNX."""
    kind = op.node.op_type
    states, peepholes = ([*states, None, None, None][:2], states[2] if len(states) > 2 else None) if kind == "LSTM" else ([*states, None][:1], None)
    count = 2 if direction == "bidirectional" else 1
    names = [ACTIVATIONS.get(name) for name in activations] if activations else (["sigmoid", "tanh", "tanh"] if kind == "LSTM" else ["sigmoid", "tanh"] if kind == "GRU"
                                                                                    else ["tanh"]) * count
    per = len(names) // count
    if lengths is not None or peepholes is not None or clip or input_forget or layout or None in names or rest.get("activation_alpha") or (
            kind == "LSTM" and names[1] != names[2]):
        op.reject("sequence lengths, peepholes, clipping and other activations")
    if not all(op.is_stored(value) for value in (w, r, b) if value is not None):
        op.reject("its weights must be constants")
    time, batch, _ = op.of(x)[1]
    rows = op.ops("Transpose", x, axes=[1, 0, 2], _dtype=x.dtype, _shape=[batch, time, op.of(x)[1][2]])
    outputs, lasts = [], []
    for place in range(count):
        backwards = direction == "reverse" or place == 1
        own = names[place * per:(place + 1) * per]
        given = [op.ops("GetItem", state, [place], _dtype=x.dtype, _shape=[batch, hidden_size]) for state in states if state is not None]
        settings = {"units": hidden_size, "activation": own[-1], "return_sequences": True, "return_state": True, "go_backwards": backwards, "use_bias": b is not None}
        settings |= {"recurrent_activation": own[0]} if kind != "RNN" else {}
        settings |= {"reset_after": bool(linear_before_reset)} if kind == "GRU" else {}
        variables = _variables(op, kind, place, hidden_size, w, r, b, bool(linear_before_reset))
        ys, *last = op.layer(KINDS[kind], rows, *([given] if given else []), _variables=variables, _outputs=3 if kind == "LSTM" else 2, **settings)
        ys.shape = ir.Shape([batch, time, hidden_size])
        ys = op.ops("Flip", ys, axis=1, _dtype=x.dtype, _shape=[batch, time, hidden_size]) if backwards else ys
        outputs.append(op.ops("Transpose", ys, axes=[1, 0, 2], _dtype=x.dtype, _shape=[time, batch, hidden_size]))
        lasts.append(last)
    stacked = [op.ops("Stack", outputs, axis=1, _dtype=x.dtype)]
    for parts in zip(*lasts, strict=True):
        stacked.append(op.ops("Stack", list(parts), axis=0, _dtype=x.dtype))
    return stacked


def _variables(op: Op, kind: str, place: int, units: int, w: Value, r: Value, b: Value | None, after: bool) -> dict[str, Value | None]:
    order = GATES[kind]

    def columns(array: np.ndarray) -> np.ndarray:
        parts = np.split(array[place], len(order))
        return np.concatenate([parts[gate] for gate in order]).T

    def biases(array: np.ndarray) -> np.ndarray:
        rows = [np.concatenate([np.split(half, len(order))[gate] for gate in order]) for half in np.split(array[place], 2)]
        return np.stack(rows) if kind == "GRU" and after else rows[0] + rows[1]

    width = len(order) * units
    bias = None
    if b is not None:
        bias = op.computed(biases, b, (2, width) if kind == "GRU" and after else (width,))
    return {"kernel": op.computed(columns, w, (op.static(w)[2], width)), "recurrent_kernel": op.computed(columns, r, (units, width)), "bias": bias}



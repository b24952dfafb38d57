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
    units = op.static(w)[1]
    return op.layer("Dense", x, _variables={"kernel": w, "bias": b}, units=units, activation="linear", use_bias=b is not None)


@from_onnx("last::Conv")
def conv(op, x, w, b=None, *, auto_pad="VALID", strides=(1,), dilations=None, group=1, kernel_shape=None, pads=None):
    """[out, in, ...] -> [..., in, out]; one group for each channel is a depthwise layer. A computed kernel goes to an operation."""
    count = len(strides)
    dilations = list(dilations or [1] * count)
    settings: dict[str, Any] = {"strides": list(strides), "padding": PADDING[auto_pad], "data_format": "channels_last"}
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
        return op.layer(f"DepthwiseConv{count}D", x, _variables={"kernel": kernel, "bias": b}, kernel_size=window, depth_multiplier=out // group, **settings,
                        **activation)
    settings["dilation_rate"] = dilations
    return op.layer(f"Conv{count}D", x, _variables={"kernel": op.turned(w, perm), "bias": b}, filters=out, kernel_size=window, groups=group, **settings,
                    **activation)


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
    return op.layer(f"Conv{count}DTranspose", x, _variables=variables, filters=op.static(w)[1], kernel_size=window, activation="linear",
                    use_bias=b is not None, **settings)


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


@from_onnx("last::WholeUpsampling")
def upsampling(op, x, *, factors, mode):
    return op.layer("UpSampling2D", x, size=list(factors), interpolation="nearest" if mode == "nearest" else "bilinear", data_format="channels_last")


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
HARD = {2: 0.2, 3: 1 / 6}                  # the slope of hard_sigmoid in each generation of Keras
ACTIVATIONS = {"Sigmoid": "sigmoid", "Tanh": "tanh", "Relu": "relu", "Softsign": "softsign", "Softplus": "softplus"}


def settings_of(op: Op, kind: str, count: int, hidden_size: int, activations: Any, after: bool, rest: dict[str, Any]) -> list[dict[str, Any]]:
    """The settings of the layer for each direction."""
    defaults = {"LSTM": ["sigmoid", "tanh", "tanh"], "GRU": ["sigmoid", "tanh"], "RNN": ["tanh"]}[kind] * count
    names = [ACTIVATIONS.get(name) or hard(name, rest) for name in activations] if activations else defaults
    per = len(names) // count
    if None in names or (kind == "LSTM" and names[1] != names[2]) or rest.get("clip") or rest.get("input_forget") or rest.get("layout"):
        op.reject("clipping, coupled gates, and other activations")
    found = []
    for place in range(count):
        own = names[place * per:(place + 1) * per]
        settings: dict[str, Any] = {"units": hidden_size, "activation": own[-1]}
        settings |= {"recurrent_activation": own[0]} if kind != "RNN" else {}
        found.append(settings | ({"reset_after": after} if kind == "GRU" else {}))
    return found


def states_of(op: Op, kind: str, lengths: Value | None, states: tuple[Value | None, ...], *weights: Value | None) -> list[Value]:
    """First states that are given, [directions, batch, units] each."""
    if lengths is not None or (len(states) > 2 and states[2] is not None):
        op.reject("sequence lengths and peepholes")
    if not all(op.is_stored(value) for value in weights if value is not None):
        op.reject("its weights must be constants")
    return [state for state in states[:2 if kind == "LSTM" else 1] if state is not None]


@from_onnx("LSTM", "GRU", "RNN")
def recurrent(op, x, w, r, b=None, lengths=None, *states, hidden_size, direction="forward", activations=None, linear_before_reset=0, **rest):
    """One layer for each direction, which goes backwards where ONNX does; sequences lie time first in ONNX."""
    kind, count, after = op.node.op_type, 2 if direction == "bidirectional" else 1, bool(linear_before_reset)
    given = states_of(op, kind, lengths, states, w, r, b)
    time, batch, width = op.of(x)[1]
    rows = op.ops("Transpose", x, axes=[1, 0, 2], _dtype=x.dtype, _shape=[batch, time, width])
    outputs, lasts = [], []
    for place, settings in enumerate(settings_of(op, kind, count, hidden_size, activations, after, rest)):
        backwards = direction == "reverse" or place == 1
        first = [op.ops("GetItem", state, [place], _dtype=x.dtype, _shape=[batch, hidden_size]) for state in given]
        ys, *last = op.layer(KINDS[kind], rows, *([first] if first else []), _variables=_variables(op, kind, place, hidden_size, w, r, b, after),
                             _outputs=3 if kind == "LSTM" else 2, return_sequences=True, return_state=True, go_backwards=backwards, use_bias=b is not None,
                             **settings)
        ys.shape = ir.Shape([batch, time, hidden_size])
        ys = op.ops("Flip", ys, axis=1, _dtype=x.dtype, _shape=[batch, time, hidden_size]) if backwards else ys
        outputs.append(op.ops("Transpose", ys, axes=[1, 0, 2], _dtype=x.dtype, _shape=[time, batch, hidden_size]))
        lasts.append(last)
    return [op.ops("Stack", outputs, axis=1, _dtype=x.dtype), *(op.ops("Stack", list(parts), axis=0, _dtype=x.dtype) for parts in zip(*lasts, strict=True))]


@from_onnx("BatchRecurrent")
def batch_recurrent(op, x, w, r, b=None, lengths=None, *states, kind, sequences, hidden_size, direction="forward", activations=None, linear_before_reset=0,
                    **rest):
    """The form that `legalize` makes of a recurrent operator between two transposes: a layer as it stands in most models."""
    after, backwards = bool(linear_before_reset), direction == "reverse"
    given = states_of(op, kind, lengths, states, w, r, b)
    first = [op.ops("GetItem", state, [0], _dtype=x.dtype, _shape=[op.of(x)[1][0], hidden_size]) for state in given]
    settings = settings_of(op, kind, 1, hidden_size, activations, after, rest)[0]
    y = op.layer(KINDS[kind], x, *([first] if first else []), _variables=_variables(op, kind, 0, hidden_size, w, r, b, after), return_sequences=bool(sequences),
                 go_backwards=backwards, use_bias=b is not None, **settings)
    if not (backwards and sequences):
        return y
    y.shape = op.outputs[0].shape
    return op.ops("Flip", y, axis=1)


@from_onnx("BatchBidirectional")
def bidirectional(op, x, w, r, b=None, w_back=None, r_back=None, b_back=None, *, kind, sequences, hidden_size, activations=None,
                  linear_before_reset=0):
    """The form that `legalize` makes of two recurrences in both directions over the same sequence."""
    after = bool(linear_before_reset)
    settings = settings_of(op, kind, 1, hidden_size, activations, after, {})[0]
    states_of(op, kind, None, (), w, r, b, w_back, r_back, b_back)
    inner = {"name": KINDS[kind].lower(), "return_sequences": bool(sequences), "use_bias": b is not None, **settings}
    variables = {f"{way}_layer/{name}": value for way, own in (("forward", (w, r, b)), ("backward", (w_back, r_back, b_back)))
                 for name, value in _variables(op, kind, 0, hidden_size, *own, after).items()}
    layer = {"module": "keras.layers", "class_name": KINDS[kind], "config": inner, "registered_name": None}
    return op.layer("Bidirectional", x, _variables=variables, merge_mode="concat", layer=layer)


def hard(name: str, rest: dict[str, Any]) -> str | None:
    """`hard_sigmoid` of the generation that has this slope; where there are several slopes they are the same."""
    slopes, offsets = set(rest.get("activation_alpha") or ()), set(rest.get("activation_beta") or ())
    if name != "HardSigmoid" or len(slopes) != 1 or len(offsets) != 1 or abs(min(offsets) - 0.5) > 1e-6:
        return None
    return next((f"hard_sigmoid_{generation}" for generation, slope in HARD.items() if abs(min(slopes) - slope) < 1e-6), None)


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



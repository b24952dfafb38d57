"""ONNX operators in the form that aten's calls take, still on ONNX, so that ONNX's inference types what is made."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Array, Builder, Ints, Mapping, constant
from isomorph.dialects.torch.from_onnx.windows import limits
from isomorph.passes.decompose import decompose, interval, shape_of
from isomorph.passes.dropping import dropped_at_random
from isomorph.passes.recurrent import recurrent
from isomorph.passes.resample import resample
from isomorph.tensors import lazily

forms = Mapping()
D = ir.DataType
END = np.iinfo(np.int64).max


def other(name: str) -> Any:
    """How the operator is taken apart where aten has no call for it."""
    for table in (decompose, resample, recurrent):
        if ("", name) in table.rules:
            return table.rules["", name].function
    raise KeyError(name)


# ---- normalisations and activations whose form aten may lack


@forms("BatchNormalization")
def batch_normalization(op, x, scale, bias, mean, variance, **attributes):
    if attributes.get("training_mode") or not x.dtype == scale.dtype == mean.dtype or op.of(x)[0] < 2:
        return other("BatchNormalization")(op, x, scale, bias, mean, variance, **attributes)
    return NotImplemented


@forms("LayerNormalization", "RMSNormalization")
def layer_normalization(op, x, *parameters, axis=-1, **attributes):
    rank, sizes = op.of(x)
    behind = sizes[axis % rank:]
    same = all(value is None or (list(value.shape or ()) == behind and value.dtype == x.dtype) for value in parameters)
    wide = x.dtype in (D.FLOAT, D.DOUBLE) or attributes.get("stash_type", 1) == 1
    extra = any(value.uses() or value.is_graph_output() for value in op.outputs[1:])
    if same and wide and not extra and all(isinstance(size, int) for size in behind):
        return NotImplemented if len(op.outputs) == 1 else op.make(op.node.op_type, [x, *parameters], {"axis": axis, **attributes})
    name = op.node.op_type
    return other(name)(op, x, *parameters, axis=axis, **attributes)


@forms("InstanceNormalization", "GroupNormalization")
def small_normalization(op, x, scale, bias, **attributes):
    """aten refuses to normalise one element."""
    _, (_, channels, *sizes) = op.of(x)
    known = all(isinstance(size, int) for size in sizes) and np.prod([int(size) for size in sizes]) * channels // attributes.get("num_groups", channels) > 1
    return NotImplemented if known and x.dtype == scale.dtype else other(op.node.op_type)(op, x, scale, bias, **attributes)


@forms("HardSigmoid")
def hard_sigmoid(op, x, *, alpha=0.2, beta=0.5):
    if abs(alpha - 1 / 6) < 1e-7 and beta == 0.5:
        return NotImplemented
    return op.Clip(op.Add(op.Mul(x, alpha), beta), op.const(0.0, like=x.dtype), op.const(1.0, like=x.dtype))


@forms("Swish")
def swish(op, x, *, alpha=1.0):
    return NotImplemented if alpha == 1.0 else op.Mul(x, op.Sigmoid(op.Mul(x, alpha)))


@forms("Selu")
def selu(op, x, *, alpha=1.67326319217681884765625, gamma=1.05070102214813232421875):
    return op.Mul(op.Elu(x, alpha=alpha), gamma)


@forms("PRelu")
def prelu(op, x, slope):
    rank, sizes = op.of(x)
    shape = op.of(slope)[1]
    if rank > 1 and len(shape) == 1 and (shape == [1] or (rank == 2 and shape == [sizes[1]])):
        return NotImplemented
    if rank > 1 and len(shape) == rank - 1 and shape[0] == sizes[1] and all(size == 1 for size in shape[1:]):
        return op.PRelu(x, op.Reshape(slope, [-1])) if rank == 2 else _flat_slope(op, x, slope)
    return op.Where(op.Less(x, op.const(0, like=x.dtype)), op.Mul(x, slope), x)


def _flat_slope(op: Builder, x: ir.Value, slope: ir.Value) -> ir.Value:
    """One slope a channel, [C, 1, 1] in ONNX and [C] in PyTorch; still an ONNX node, whose name says that it is in PyTorch's form."""
    return op.make("ChannelPRelu", [x, op.Reshape(slope, [-1])], {}, dtype=x.dtype, shape=list(x.shape))


@forms("Pow")
def power(op, x, y):
    """The result has the type of the base."""
    if x.dtype == y.dtype:
        return NotImplemented
    if x.dtype.is_integer() and y.dtype.is_floating_point():
        return op.Cast(op.Pow(op.Cast(x, to=int(y.dtype)), y), to=int(x.dtype))
    return op.Pow(x, op.Cast(y, to=int(x.dtype)))


@forms("Clip")
def clip(op, x, low=None, high=None):
    """A lower bound above the upper one: ONNX gives the upper one, and so does aten. Without bounds nothing happens."""
    return op.Identity(x) if low is None and high is None else NotImplemented


# Of the 8-bit floats: the largest value, where rounding would go above it, and whether that very place still rounds down
LARGEST = {D.FLOAT8E4M3FN: (448.0, 464.0, True), D.FLOAT8E4M3FNUZ: (240.0, 248.0, False), D.FLOAT8E5M2: (57344.0, 61440.0, False),
           D.FLOAT8E5M2FNUZ: (57344.0, 61440.0, False)}


@forms("Cast")
def cast(op, x, *, to, saturate=1, round_mode="up"):
    """What is too large for 8 bits becomes the largest value, or with saturate=0 infinity or no number; aten has rules of its own."""
    if D(to) not in LARGEST or "fits" in x.meta or not x.dtype.is_floating_point() or x.dtype in LARGEST:
        return NotImplemented
    largest, edge, inside = LARGEST[D(to)]
    wide = x if x.dtype == D.FLOAT else op.Cast(x, to=int(D.FLOAT))
    y = op.Clip(wide, op.const(np.float32(-largest)), op.const(np.float32(largest)))
    if not saturate:
        beyond = (op.Greater if inside else op.GreaterOrEqual)(op.Abs(wide), op.const(np.float32(edge)))
        y = op.Where(beyond, op.Mul(op.Sign(wide), op.const(np.float32(np.inf))) if D(to) == D.FLOAT8E5M2 else op.const(np.float32(np.nan)), y)
    y.meta["fits"] = True
    return op.Cast(y, to=to)


@forms("Dropout")
def dropout(op, x, ratio=None, training_mode=None, *, seed=0):
    """Nothing outside of training."""
    training = constant(training_mode) if training_mode is not None else np.bool_(False)
    if training is None:
        op.reject("whether it drops values is decided at run time")
    if training.any() and (ratio is None or constant(ratio) is None or constant(ratio).any()):
        return dropped_at_random(op, x, ratio)
    mask = op.Expand(op.const(np.bool_(True)), op.Shape(x)) if len(op.outputs) > 1 else None
    return [op.Identity(x), mask][:len(op.outputs)]


@forms("CastLike")
def cast_like(op, x, like, *, saturate=1, round_mode="up"):
    return op.Cast(x, to=int(like.dtype), saturate=saturate)


@forms("Gemm")
def gemm(op, a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):
    """A layer stays one call, so that its weights keep names and meaning; other products are taken apart."""
    plain = alpha == 1.0 and (beta == 1.0 or c is None) and a.dtype.is_floating_point()
    if plain and not transA and transB and (c is None or (len(op.of(c)[1]) == 1 and op.of(c)[1] == [op.of(b)[1][0]])):
        return NotImplemented
    a, b = (op.Transpose(x, perm=[1, 0]) if turned else x for x, turned in ((a, transA), (b, transB)))
    y = op.MatMul(a, b)
    y = y if alpha == 1.0 else op.Mul(y, op.const(alpha, like=y.dtype) if y.dtype.is_floating_point() else int(alpha))
    if c is None:
        return y
    return op.Add(y, c if beta == 1.0 else op.Mul(c, op.const(beta, like=c.dtype) if c.dtype.is_floating_point() else int(beta)))


# ---- positions


def flipped(op: Builder, x: ir.Value, axes: list[int]) -> ir.Value:
    """aten::flip, which ONNX lacks: a node of no schema, with the type that it has."""
    return op.make("Flip", [x, op.const(axes)], {}, dtype=x.dtype, shape=list(x.shape) if x.shape is not None else None)


@forms("GatherElements", "ScatterElements")
def positive(op, x, indices, *rest, axis=0, **attributes):
    """aten::gather and aten::scatter count from the front only."""
    array = constant(indices)
    if "positive" in indices.meta or (array is not None and (array >= 0).all()):
        return NotImplemented
    rank, _ = op.of(x)
    size = shape_of(op, x, axis % rank)
    indices = op.Cast(indices, to=int(D.INT64)) if indices.dtype != D.INT64 else indices
    moved = op.Where(op.Less(indices, op.const(0, like=D.INT64)), op.Add(indices, size), indices)
    moved.meta["positive"] = True
    return op.make(op.node.op_type, [x, moved, *rest], {"axis": axis, **attributes})


@forms("Scatter")
def scatter(op, x, indices, updates, *, axis=0):
    return op.ScatterElements(x, indices, updates, axis=axis)


@forms("ScatterND")
def scatter_nd(op, x, indices, updates, *, reduction="none"):
    """Other reductions count the elements of the flat tensor."""
    if reduction in ("none", "add"):
        return NotImplemented
    sizes, depth = op.static(x), op.of(indices)[1][-1]
    inner = int(np.prod(sizes[depth:]))
    strides = [int(np.prod(sizes[axis + 1:])) for axis in range(depth)]
    wrapped = op.Where(op.Less(indices, op.const(0, like=D.INT64)), op.Add(indices, op.const(np.asarray(sizes[:depth], np.int64))), indices)
    start = op.ReduceSum(op.Mul(wrapped, op.const(np.asarray(strides, np.int64))), [-1], keepdims=1)
    flat = op.Reshape(op.Add(op.Reshape(start, [-1, 1]), op.const(np.arange(inner, dtype=np.int64)[None])), [-1])
    flat.meta["positive"] = True
    y = op.ScatterElements(op.Reshape(x, [-1]), flat, op.Reshape(updates, [-1]), axis=0, reduction=reduction)
    return op.Reshape(y, op.const(np.asarray(sizes, np.int64)))


@forms("Slice")
def slice_(op, x, starts, ends, axes: Ints | None = None, steps: Array | None = None):
    """aten::slice reads forwards only: what is read backwards is turned around first, and its bounds with it."""
    rank, _ = op.of(x)
    if steps is None or (steps > 0).all():
        return NotImplemented
    where = [axis % rank for axis in (axes if axes is not None else range(len(steps)))]
    backward = [(place, axis) for place, axis in enumerate(where) if steps[place] < 0]
    y = flipped(op, x, [axis for _, axis in backward])
    first, last = constant(starts), constant(ends)
    if first is None or last is None:
        op.reject("it reads backwards between bounds that are known only at run time")
    begins, stops, strides = first.astype(np.int64).tolist(), last.astype(np.int64).tolist(), [abs(int(step)) for step in steps]
    for place, axis in backward:
        size = op.of(x)[1][axis]
        begins[place], stops[place] = _turned(begins[place], size), _turned(stops[place], size)
    return op.Slice(y, begins, stops, where, strides)


def _turned(bound: int, size: Any) -> int:
    """Element i from the front is element size - 1 - i from the back: i becomes -1 - i, which aten reads relative to the end; far out stays far out."""
    if isinstance(size, int):
        bound = max(bound + size if bound < 0 else bound, -1)
        return min(max(size - 1 - bound, 0), size)
    return END if bound < -(1 << 31) else 0 if bound >= 1 << 31 else -1 - bound


@forms("CumSum", "CumProd")
def cumulative(op, x, axis, *, exclusive=0, reverse=0):
    if not exclusive and not reverse:
        return NotImplemented
    array = constant(axis)
    if array is None:
        op.reject("its axis is known only at run time")
    place = int(array.reshape(-1)[0]) % op.of(x)[0]
    x = flipped(op, x, [place]) if reverse else x
    y = op.make(op.node.op_type, [x, op.const(np.int64(place))], {})
    if exclusive:
        rank = op.of(x)[0]
        neutral = op.const(0 if op.node.op_type == "CumSum" else 1, like=x.dtype)
        y = op.Pad(interval(op, y, place, 0, -1), [int(axis == place) for axis in range(rank)] + [0] * rank, neutral)
    return flipped(op, y, [place]) if reverse else y


@forms("ArgMax", "ArgMin")
def arg_extreme(op, x, *, axis=0, keepdims=1, select_last_index=0):
    """The last of equal elements is the first from behind."""
    if not select_last_index:
        return NotImplemented
    size = shape_of(op, x, axis % op.of(x)[0])
    found = op.make(op.node.op_type, [flipped(op, x, [axis])], {"axis": axis, "keepdims": keepdims})
    return op.Sub(op.Sub(op.Squeeze(size, [0]), op.const(np.int64(1))), found)


@forms("Flatten")
def flatten(op, x, *, axis=1):
    rank = op.of(x)[0]
    if axis % max(rank, 1) == 1 and rank > 2:
        return NotImplemented
    return other("Flatten")(op, x, axis=axis)


@forms("Pad")
def pad(op, x, pads, value=None, axes: Ints | None = None, *, mode="constant"):
    """aten mirrors and repeats the last one to three axes of what has a batch and channels, by less than their size; the rest is a gather."""
    if mode == "constant":
        return NotImplemented
    rank, sizes = op.of(x)
    amounts = constant(pads)
    if amounts is None:
        op.reject(f"{mode} by amounts that are known only at run time")
    count = len(amounts) // 2
    given = {axis % rank: (int(amounts[place]), int(amounts[place + count])) for place, axis in enumerate(axes if axes is not None else range(count))}
    used = [axis for axis, pair in given.items() if any(pair)]
    if not used:
        return op.Identity(x)
    inside = all(min(given[axis]) >= 0 and isinstance(sizes[axis], int) and max(given[axis]) < sizes[axis] for axis in used)
    if rank in (3, 4, 5) and min(used) >= 2 and len(used) <= 3 and rank - min(used) == len(range(2, rank)) and inside and x.dtype == D.FLOAT:
        return NotImplemented
    for axis in used:
        before, behind = given[axis]
        if not isinstance(sizes[axis], int):
            op.reject(f"{mode} of an axis whose size is not known")
        positions = np.pad(np.arange(sizes[axis]), (max(before, 0), max(behind, 0)), mode)
        positions = positions[max(-before, 0):len(positions) - max(-behind, 0)]
        x = op.Gather(x, op.const(positions.astype(np.int64)), axis=axis)
    return x


@forms("Range")
def range_(op, start, limit, delta):
    """Real numbers are counted as integers first."""
    if not start.dtype.is_floating_point() or all(constant(value) is not None for value in (start, limit, delta)):
        return NotImplemented
    count = op.Cast(op.Ceil(op.Div(op.Sub(limit, start), delta)), to=int(D.INT64))
    steps = op.Range(op.const(np.int64(0)), op.Max(count, op.const(np.int64(0))), op.const(np.int64(1)))
    return op.Add(op.Mul(op.Cast(steps, to=int(start.dtype)), delta), start)


@forms("ReduceMax", "ReduceMin")
def reduce_extreme(op, x, axes: Ints | None = None, *, keepdims=1, noop_with_empty_axes=0):
    """aten refuses to choose among no elements, where ONNX gives the neutral one."""
    shape = op.outputs[0].shape
    if 0 not in list(op.of(x)[1]) or shape is None or not all(isinstance(dim, int) for dim in shape):
        return NotImplemented
    value = np.asarray([limits(x)[op.node.op_type == "ReduceMin"]], x.dtype.numpy())
    return op.ConstantOfShape(op.const(np.asarray(list(shape), np.int64)), value=value)


@forms("DepthToSpace")
def depth_to_space(op, x, *, blocksize, mode="DCR"):
    return NotImplemented if mode == "CRD" else other("DepthToSpace")(op, x, blocksize=blocksize, mode=mode)


# ---- resampling


@forms("Resize")
def resize(op, x, roi=None, scales=None, sizes=None, *, mode="nearest", coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_floor",
           antialias=0, exclude_outside=0, cubic_coeff_a=-0.75, axes=None, keep_aspect_ratio_policy="stretch", **rest):
    """aten's kernels: nearest by floor without half pixels, linear and cubic by half pixels or aligned corners, of the axes behind batch and channel."""
    rank, shape = op.of(x)
    factors = constant(scales) if scales is not None and op.of(scales)[1] != [0] else None
    wanted = sizes is not None and op.of(sizes)[1] != [0]
    full = axes is None or list(axes) == list(range(rank))
    spatial = full and rank in (3, 4, 5) and ((factors is not None and (factors[:2] == 1).all()) or (wanted and _keeps_channels(sizes, shape)))
    if mode == "nearest":
        same = coordinate_transformation_mode == "asymmetric" and nearest_mode == "floor"
    elif mode == "linear":
        same = coordinate_transformation_mode in ("half_pixel", "pytorch_half_pixel", "align_corners")
        same = same and (coordinate_transformation_mode == "half_pixel" or not _shrinks_to_one(op.outputs[0]))
    else:
        same = coordinate_transformation_mode in ("half_pixel", "align_corners") and rank == 4 and cubic_coeff_a == -0.75 and not exclude_outside
    exact = factors is None or all(float(factor).is_integer() for factor in factors)
    if spatial and same and exact and not antialias and keep_aspect_ratio_policy == "stretch" and x.dtype == D.FLOAT:
        return NotImplemented
    arrays = [None if value is None else constant(value) for value in (roi, scales, sizes)]
    if any(value is not None and array is None for value, array in zip((roi, scales, sizes), arrays, strict=True)):
        op.reject("sizes that are known only at run time, in a mode that aten lacks")
    return other("Resize")(op, x, *arrays, mode=mode, coordinate_transformation_mode=coordinate_transformation_mode, nearest_mode=nearest_mode,
                           antialias=antialias, exclude_outside=exclude_outside, cubic_coeff_a=cubic_coeff_a, axes=axes,
                           keep_aspect_ratio_policy=keep_aspect_ratio_policy, **rest)


def _keeps_channels(sizes: ir.Value, shape: list) -> bool:
    from isomorph.passes.shapes import known
    wanted = known(sizes)
    return wanted is not None and list(wanted[:2]) == list(shape[:2]) and None not in wanted[:2]


def _shrinks_to_one(value: ir.Value) -> bool:
    return value.shape is not None and any(dim == 1 for dim in list(value.shape)[2:])


@forms("GridSample")
def grid_sample(op, x, grid, *, mode="linear", padding_mode="zeros", align_corners=0):
    rank = op.of(x)[0]
    mode = {"bilinear": "linear", "bicubic": "cubic"}.get(mode, mode)
    if rank in (4, 5) and (mode != "cubic" or rank == 4) and x.dtype in (D.FLOAT, D.DOUBLE):
        same = mode == op.attribute("mode", "linear")
        return NotImplemented if same else op.GridSample(x, grid, mode=mode, padding_mode=padding_mode, align_corners=align_corners)
    return other("GridSample")(op, x, grid, mode=mode, padding_mode=padding_mode, align_corners=align_corners)


# ---- recurrent networks


@forms("LSTM", "GRU", "RNN")
def recurrent_network(op, x, w, r, b=None, lengths=None, h0=None, c0=None, p=None, *, direction="forward", layout=0, activations=None, clip=None,
                      input_forget=0, linear_before_reset=0, activation_alpha=None, activation_beta=None, hidden_size=None):
    """aten's networks, where the weights are constants and nothing is unusual; otherwise the steps written out."""
    kind = op.node.op_type
    usual = {"LSTM": ["Sigmoid", "Tanh", "Tanh"], "GRU": ["Sigmoid", "Tanh"], "RNN": ["Tanh"]}[kind]
    both = 1 + (direction == "bidirectional")
    names = [str(name).capitalize() for name in activations] if activations else usual * both
    plain = names == usual * both or (kind == "RNN" and set(names) == {"Relu"})
    stored = all(value is None or (value.const_value is not None and value.is_initializer() and not value.is_graph_input()) for value in (w, r, b))
    if plain and stored and direction != "reverse" and not layout and clip is None and not input_forget and lengths is None and p is None \
            and (kind != "GRU" or linear_before_reset) and x.dtype in (D.FLOAT, D.DOUBLE):
        return NotImplemented
    rest = {"LSTM": {"input_forget": input_forget}, "GRU": {"linear_before_reset": linear_before_reset}, "RNN": {}}[kind]
    more = [c0, p] if kind == "LSTM" else []
    return other(kind)(op, x, w, r, b, lengths, h0, *more, hidden_size=hidden_size, direction=direction, activations=activations,
                       activation_alpha=activation_alpha, activation_beta=activation_beta, clip=clip, layout=layout, **rest)


# ---- integers for real numbers


def _along(op: Builder, x: ir.Value, parameter: ir.Value, axis: int, block_size: int) -> ir.Value:
    """A scale or zero point in the shape of what it is applied to."""
    rank, sizes = op.of(x)[0], op.of(parameter)[1]
    if not sizes or sizes == [1]:
        return op.Reshape(parameter, op.const(np.zeros(0, np.int64))) if sizes else parameter
    if block_size:
        sizes_of_x = op.static(x)
        axis %= rank
        spread = op.Unsqueeze(parameter, [axis + 1])
        repeated = op.Expand(spread, [*sizes[:axis + 1], block_size, *sizes[axis + 1:]])
        whole = op.Reshape(repeated, [*sizes[:axis], -1, *sizes[axis + 1:]])
        return interval(op, whole, axis, 0, sizes_of_x[axis])
    return op.Reshape(parameter, [-1 if place == axis % rank else 1 for place in range(rank)]) if len(sizes) == 1 else parameter


@forms("DequantizeLinear")
def dequantize(op, x, scale, zero=None, *, axis=1, block_size=0, output_dtype=0):
    kind = D(output_dtype) if output_dtype else scale.dtype
    wide = op.Cast(x, to=int(D.FLOAT))
    if zero is not None:
        wide = op.Sub(wide, _along(op, x, op.Cast(zero, to=int(D.FLOAT)), axis, block_size))
    factor = _along(op, x, op.Cast(scale, to=int(D.FLOAT)) if scale.dtype != D.FLOAT else scale, axis, block_size)
    y = op.Mul(wide, factor)
    return y if kind == D.FLOAT else op.Cast(y, to=int(kind))


RANGE = {D.UINT8: (0, 255), D.INT8: (-128, 127), D.UINT16: (0, 65535), D.INT16: (-32768, 32767), D.INT4: (-8, 7), D.UINT4: (0, 15), D.INT2: (-2, 1),
         D.UINT2: (0, 3)}


@forms("QuantizeLinear")
def quantize(op, x, scale, zero=None, *, axis=1, block_size=0, saturate=1, output_dtype=0, precision=0):
    kind = D(output_dtype) if output_dtype else zero.dtype if zero is not None else D.UINT8
    wide = x if x.dtype == D.FLOAT else op.Cast(x, to=int(D.FLOAT))
    factor = _along(op, x, scale if scale.dtype == D.FLOAT else op.Cast(scale, to=int(D.FLOAT)), axis, block_size)
    y = op.Div(wide, factor)
    if kind not in RANGE:
        return op.Cast(y, to=int(kind), saturate=saturate)
    y = op.Round(y)
    if zero is not None:
        y = op.Add(y, _along(op, x, op.Cast(zero, to=int(D.FLOAT)), axis, block_size))
    low, high = RANGE[kind]
    return op.Cast(op.Clip(y, op.const(np.float32(low)), op.const(np.float32(high))), to=int(kind))


# ---- control flow


@forms("Scan")
def scan(op, *xs, body, num_scan_inputs, **attributes):
    return other("Scan")(op, *xs, body=body, num_scan_inputs=num_scan_inputs, **attributes)


@forms("Loop")
def loop(op, count=None, condition=None, *carried, body):
    return other("Loop")(op, count, condition, *carried, body=body)


# ---- layers: products with a constant matrix, which PyTorch keeps turned and calls a weight


biased_layers, bare_layers = Mapping(), Mapping()          # in this order, because a product with a bias is one without it as well


@bare_layers("MatMul")
def layer(op, x, w):
    if not _is_matrix(x, w):
        return NotImplemented
    return op.make("Linear", [x, _turned_weight(op, w)], {}, dtype=x.dtype, shape=op.outputs[0].shape)


@biased_layers("Add")
def layer_with_bias(op, a, b):
    for product, bias in ((a, b), (b, a)):
        node = product.producer()
        if node is None or node.op_type != "MatMul" or node.domain or len(product.uses()) != 1 or product.is_graph_output() or not _is_matrix(*node.inputs):
            continue
        if constant(bias) is None or list(bias.shape or ()) != [node.inputs[1].shape[1]]:
            continue
        return op.make("Linear", [node.inputs[0], _turned_weight(op, node.inputs[1]), bias], {}, dtype=product.dtype, shape=op.outputs[0].shape)
    return NotImplemented


def _is_matrix(x: ir.Value, w: ir.Value) -> bool:
    """Whether a product is one with a constant matrix of real numbers."""
    stored = w.const_value is not None and w.is_initializer() and not w.is_graph_input()
    return stored and len(w.shape or ()) == 2 and x.dtype in (D.FLOAT, D.DOUBLE, D.FLOAT16, D.BFLOAT16) and len(x.shape or ()) > 0


def _turned_weight(op: Builder, w: ir.Value) -> ir.Value:
    """The same for all who use it. What a reader has turned the other way gets its name back."""
    if "weight" not in w.meta:
        w.meta["weight"] = op.const(lazily((1, 0), w.const_value), name=(w.name or "weight").removesuffix(".T"))
    return w.meta["weight"]

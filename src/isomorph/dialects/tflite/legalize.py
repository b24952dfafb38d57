"""ONNX -> the forms of ONNX that TensorFlow Lite's kernels have: two-dimensional windows with VALID or SAME padding, reductions of the last axis,
scatters that add, loops that are While. A rule returns NotImplemented for a node that is in its form already.

Operators that ONNX has no name for: FullyConnected, TopKLast, AddScattered, NonMaxSuppressionOne, ReverseAxis, While, Unique1D, Rsqrt.
"""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Float, Int, Ints, Mapping, constant
from isomorph.dialects.tflite.from_onnx import is_weight
from isomorph.dialects.tflite.quantized import WIDE, parameters
from isomorph.passes.fuse import made_by
from isomorph.passes.tidy import scalar
from isomorph.passes.decompose import interval, shape_of
from isomorph.tensors import lazily

legalize = Mapping()
FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


# ---- windows

def same_pads(size: int, kernel: int, stride: int, dilation: int = 1) -> tuple[int, int]:
    """What TensorFlow's SAME puts before and after an axis: the output has ceil(size / stride) elements, the odd one goes behind."""
    total = max((-(-size // stride) - 1) * stride + (kernel - 1) * dilation + 1 - size, 0)
    return total // 2, total - total // 2


def resolve_pads(op: Builder, sizes: list, kernel: list[int], strides: list[int], dilations: list[int], pads: Any, auto_pad: str) -> tuple[str, list[int]]:
    """The padding of a window operator as TensorFlow's keyword, and what must be padded by hand before it."""
    rank = len(kernel)
    axes = list(zip(sizes, kernel, strides, dilations, strict=True))
    if auto_pad == "SAME_UPPER":
        return "SAME_UPPER", [0] * 2 * rank
    if auto_pad == "SAME_LOWER":
        if not all(isinstance(size, int) for size in sizes):
            if all(stride == 1 and (k - 1) * d % 2 == 0 for _, k, stride, d in axes):
                return "SAME_UPPER", [0] * 2 * rank
            op.reject("SAME_LOWER padding of an unknown size")
        pairs = [same_pads(*axis)[::-1] for axis in axes]
        pads = [before for before, _ in pairs] + [after for _, after in pairs]
    pads = [0] * 2 * rank if auto_pad == "VALID" or pads is None else list(pads)
    if not any(pads):
        return "VALID", pads
    pairs = list(zip(pads[:rank], pads[rank:], strict=True))
    if all(pair == (same_pads(*axis) if isinstance(axis[0], int) else ((axis[1] - 1) * axis[3] // 2,) * 2) and (isinstance(axis[0], int) or (axis[2] == 1 and axis[1] % 2))
           for pair, axis in zip(pairs, axes, strict=True)):
        return "SAME_UPPER", [0] * 2 * rank
    return "VALID", pads


def padded(op: Builder, x: ir.Value, pads: list[int], value: float = 0.0) -> ir.Value:
    """Pads (or, where negative, cuts) the axes behind batch and channel."""
    rank = len(pads) // 2
    if not any(pads):
        return x
    for axis, (before, after) in enumerate(zip(pads[:rank], pads[rank:], strict=True), 2):
        if before < 0 or after < 0:
            size = op.static(x)[axis]
            x = interval(op, x, axis, max(-before, 0), size - max(-after, 0))
    pads = [max(pad, 0) for pad in pads]
    filler = op.const(np.asarray(value, x.dtype.numpy()))
    return op.Pad(x, [0, 0, *pads[:rank], 0, 0, *pads[rank:]], filler) if any(pads) else x


def flat_weight(op: Builder, w: ir.Value, axis: int) -> ir.Value:
    """A weight with an extra axis of size one."""
    if w.const_value is None:
        return op.Unsqueeze(w, [axis])
    sizes = list(op.static(w))
    sizes.insert(axis, 1)
    return op.const(lazily(lambda a: a.reshape(sizes), w.const_value, dims=sizes), name=w.name)


@legalize("Conv")
def conv(op, x, w, b=None, *, kernel_shape=None, auto_pad="NOTSET", pads=None, strides=None, dilations=None, group=1):
    rank, (_, _, *sizes) = op.of(x)
    n = rank - 2
    kernel = list(op.static(w)[2:])
    strides, dilations = strides or [1] * n, dilations or [1] * n
    if n == 1:
        y = op.Conv(op.Unsqueeze(x, [2]), flat_weight(op, w, 2), b, auto_pad=auto_pad, pads=pads and [0, pads[0], 0, pads[1]], strides=[1, *strides],
                    dilations=[1, *dilations], group=group)
        return op.Squeeze(y, [2])
    if n > 3:
        op.reject(f"a convolution over {n} axes")
    if n == 3 and group > 1:
        return grouped(op, x, w, b, group, lambda xi, wi, bi: op.Conv(xi, wi, bi, auto_pad=auto_pad, pads=pads, strides=strides, dilations=dilations))
    keyword, explicit = resolve_pads(op, sizes, kernel, strides, dilations, pads, auto_pad)
    if not any(explicit) and auto_pad == keyword and pads is None:
        return NotImplemented
    return op.Conv(padded(op, x, explicit), w, b, auto_pad=keyword, strides=strides, dilations=dilations, group=group)


def grouped(op: Builder, x: ir.Value, w: ir.Value, b: ir.Value | None, group: int, convolve: Any, *, weight_axis: int = 0) -> ir.Value:
    """One convolution a group, joined along the channels."""
    channels, outputs = op.of(x)[1][1] // group, w.shape[weight_axis] // group
    parts = []
    for i in range(group):
        bias = None if b is None else interval(op, b, 0, i * len_of(b) // group, (i + 1) * len_of(b) // group)
        parts.append(convolve(interval(op, x, 1, i * channels, (i + 1) * channels), interval(op, w, weight_axis, i * outputs, (i + 1) * outputs), bias))
    return op.Concat(*parts, axis=1)


def len_of(vector: ir.Value) -> int:
    return int(vector.shape[0])


@legalize("ConvTranspose")
def conv_transpose(op, x, w, b=None, *, kernel_shape=None, auto_pad="NOTSET", pads=None, strides=None, dilations=None, group=1, output_padding=None, output_shape=None):
    """The full result of a VALID transposed convolution, cut by the pads and extended by the output padding; SAME where that is the same."""
    rank, (_, _, *sizes) = op.of(x)
    n = rank - 2
    strides, dilations, output_padding = strides or [1] * n, dilations or [1] * n, output_padding or [0] * n
    if n == 1:
        y = op.ConvTranspose(op.Unsqueeze(x, [2]), flat_weight(op, w, 2), b, auto_pad=auto_pad, pads=pads and [0, pads[0], 0, pads[1]], strides=[1, *strides],
                             dilations=[1, *dilations], group=group, output_padding=[0, *output_padding], output_shape=output_shape and [1, *output_shape])
        return op.Squeeze(y, [2])
    if group > 1:
        return grouped(op, x, w, b, group, weight_axis=0, convolve=lambda xi, wi, bi: op.ConvTranspose(
            xi, wi, bi, auto_pad=auto_pad, pads=pads, strides=strides, dilations=dilations, output_padding=output_padding, output_shape=output_shape))
    if any(d != 1 for d in dilations):
        w = _dilated(op, w, dilations)
    kernel = list(op.static(w)[2:])
    full = [(size - 1) * stride + k if isinstance(size, int) else None for size, stride, k in zip(sizes, strides, kernel, strict=True)]
    pads = _transposed_pads(op, full, sizes, kernel, strides, pads, auto_pad, output_padding, output_shape)
    sums = [before + after - extra for before, after, extra in zip(pads[:n], pads[n:], output_padding, strict=True)]
    same = all(total == k - stride >= 0 and before == total // 2 for total, k, stride, before in zip(sums, kernel, strides, pads, strict=False))
    channels = w.shape[1]
    if same:
        out = [size * stride if isinstance(size, int) else None for size, stride in zip(sizes, strides, strict=True)]
        return _transposed(op, x, w, b, out, strides, "SAME_UPPER", channels)
    y = _transposed(op, x, w, b if not any(output_padding) else None, full, strides, "VALID", channels)
    y = padded(op, y, [-before for before in pads[:n]] + [extra - after for after, extra in zip(pads[n:], output_padding, strict=True)])
    return y if b is None or not any(output_padding) else op.Add(y, op.Reshape(b, [-1] + [1] * n))


def _dilated(op: Builder, w: ir.Value, dilations: list[int]) -> ir.Value:
    array = constant(w)
    if array is None:
        op.reject("dilated weights must be constant")
    wide = np.zeros((*array.shape[:2], *((k - 1) * d + 1 for k, d in zip(array.shape[2:], dilations, strict=True))), array.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = array
    return op.const(wide)


def _transposed_pads(op: Builder, full: list, sizes: list, kernel: list[int], strides: list[int], pads: Any, auto_pad: str, extra: list[int], shape: Any) -> list[int]:
    n = len(kernel)
    if shape is not None or auto_pad in ("SAME_UPPER", "SAME_LOWER"):
        if shape is None:
            totals = [max(k - s + e, 0) for k, s, e in zip(kernel, strides, extra, strict=True)]
        elif not all(isinstance(size, int) for size in full):
            return op.reject("a fixed output shape for an unknown input size")
        else:
            totals = [f + e - want for f, e, want in zip(full, extra, list(shape)[-n:], strict=True)]
        half = [total // 2 for total in totals] if auto_pad != "SAME_LOWER" else [total - total // 2 for total in totals]
        if shape is not None and auto_pad == "NOTSET":
            half = [total - total // 2 for total in totals]
        return half + [total - part for total, part in zip(totals, half, strict=True)]
    return list(pads) if pads is not None and auto_pad != "VALID" else [0] * 2 * n


def _transposed(op: Builder, x: ir.Value, w: ir.Value, b: ir.Value | None, out: list, strides: list[int], auto_pad: str, channels: int) -> ir.Value:
    """The canonical node, with the channels-last size of its result as an input."""
    _, (batch, _, *sizes) = op.of(x)
    if isinstance(batch, int) and all(isinstance(size, int) for size in out):
        shape = op.const([batch, *out, channels])
    else:
        spatial = op.Mul(shape_of(op, x, *range(2, len(sizes) + 2)), op.const(strides))
        if auto_pad == "VALID":
            spatial = op.Add(spatial, op.const([k - s for k, s in zip(op.static(w)[2:], strides, strict=True)]))
        shape = op.Concat(shape_of(op, x, 0), spatial, op.const([channels]), axis=0)
    return op.TransposedConv(x, w, b, shape, auto_pad=auto_pad, strides=strides, _dtype=x.dtype, _shape=[batch, channels, *out])


# ---- pools

def _pool_ends(sizes: list[int], kernel: list[int], strides: list[int], dilations: list[int], pads: list[int], ceil: bool) -> list[int]:
    """How much further than the explicit padding a window of the last output reaches (ceil mode), never starting beyond the input."""
    n, extra = len(kernel), []
    for i, (size, k, s, d) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        span = size + pads[i] + pads[i + n] - (k - 1) * d - 1
        out = -(-span // s) + 1 if ceil else span // s + 1
        if ceil and (out - 1) * s >= size + pads[i]:
            out -= 1
        extra.append(max((out - 1) * s + (k - 1) * d + 1 - (size + pads[i] + pads[i + n]), 0))
    return extra


def _pool_pads(op: Builder, sizes: list, kernel: list[int], strides: list[int], dilations: list[int], pads: Any, auto_pad: str, ceil: int) -> tuple[str, list[int], list[int]]:
    """The keyword, explicit pads, and the extension of ceil mode."""
    keyword, explicit = resolve_pads(op, sizes, kernel, strides, dilations, pads, auto_pad)
    if not ceil or (keyword == "SAME_UPPER" and auto_pad != "NOTSET"):
        return keyword, explicit, [0] * len(kernel)
    if not all(isinstance(size, int) for size in sizes):
        if all(k <= s for k, s in zip(kernel, strides, strict=True)) and not any(explicit):
            return "SAME_UPPER", explicit, [0] * len(kernel)
        op.reject("ceil_mode over an unknown size")
    real = list(pads) if pads is not None and auto_pad == "NOTSET" else explicit
    extra = _pool_ends(sizes, kernel, strides, dilations, real, True)
    return ("VALID", real, extra) if any(extra) else (keyword, explicit, extra)


def _lowest(dtype: ir.DataType) -> float:
    return -math.inf if dtype in FLOATS else np.iinfo(dtype.numpy()).min


@legalize("MaxPool")
def max_pool(op, x, *, kernel_shape, auto_pad="NOTSET", pads=None, strides=None, dilations=None, ceil_mode=0, storage_order=0):
    rank, (_, _, *sizes) = op.of(x)
    n = rank - 2
    strides, dilations = strides or [1] * n, dilations or [1] * n
    indices = len(op.outputs) > 1 and (op.outputs[1].uses() or op.outputs[1].is_graph_output())
    keyword, explicit, extra = _pool_pads(op, sizes, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    plain = n == 2 and not indices and dilations == [1, 1]
    if plain and auto_pad == keyword and pads is None and not ceil_mode:
        return NotImplemented
    ends = [*explicit[:n], *(end + more for end, more in zip(explicit[n:], extra, strict=True))]
    if plain:
        return op.MaxPool(padded(op, x, ends, _lowest(x.dtype)), kernel_shape=kernel_shape, auto_pad=keyword, strides=strides)
    if n == 1 and not indices:
        y = op.MaxPool(op.Unsqueeze(x, [2]), kernel_shape=[1, *kernel_shape], auto_pad=auto_pad, pads=pads and [0, pads[0], 0, pads[1]], strides=[1, *strides],
                       dilations=[1, *dilations], ceil_mode=ceil_mode)
        return op.Squeeze(y, [2])
    if keyword == "SAME_UPPER":
        pairs = [same_pads(*axis) for axis in zip([op.static(x)[i + 2] for i in range(n)], kernel_shape, strides, dilations, strict=True)]
        ends = [before for before, _ in pairs] + [after for _, after in pairs]
    return _shifted_maximum(op, x, kernel_shape, strides, dilations, ends, storage_order if indices else None)


def _shifted_maximum(op: Builder, x: ir.Value, kernel: list[int], strides: list[int], dilations: list[int], ends: list[int], storage_order: int | None) -> Any:
    """The greatest of one strided slice a kernel position; with `storage_order`, also the flat position in the unpadded input."""
    _, _, *sizes = op.static(x)
    n = len(kernel)
    source = padded(op, x, ends, _lowest(x.dtype))
    positions = _flat_positions(op.static(x), ends, storage_order) if storage_order is not None else None
    outs = [(size + ends[i] + ends[i + n] - (kernel[i] - 1) * dilations[i] - 1) // strides[i] + 1 for i, size in enumerate(sizes)]
    best = where = None
    for offset in np.ndindex(*kernel):
        starts = [o * d for o, d in zip(offset, dilations, strict=True)]
        stops = [start + (out - 1) * stride + 1 for start, out, stride in zip(starts, outs, strides, strict=True)]
        here = op.Slice(source, starts, stops, list(range(2, n + 2)), list(strides))
        if positions is not None:
            index = op.const(positions[(..., *(slice(a, b, s) for a, b, s in zip(starts, stops, strides, strict=True)))])
            if best is not None:
                where = op.Where(op.Greater(here, best), index, where)
            else:
                where = op.Identity(index)
        best = here if best is None else op.Max(best, here)
    return (best, where) if positions is not None else best


def _flat_positions(sizes: list[int], ends: list[int], storage_order: int) -> np.ndarray:
    """The flat index of every element of [N, C, *spatial], padded with 0; column-major over the spatial axes where storage_order is 1."""
    spatial = sizes[2:]
    inner = np.arange(math.prod(spatial)).reshape(spatial, order="F" if storage_order else "C")
    outer = np.arange(sizes[0] * sizes[1]).reshape(*sizes[:2], *[1] * len(spatial)) * math.prod(spatial)
    n = len(spatial)
    return np.pad((outer + inner).astype(np.int64), [(0, 0), (0, 0), *zip(ends[:n], ends[n:], strict=True)])


@legalize("AveragePool")
def average_pool(op, x, *, kernel_shape, auto_pad="NOTSET", pads=None, strides=None, dilations=None, ceil_mode=0, count_include_pad=0):
    """The kernel's own SAME counts what lies inside. Other paddings: the mean over zeros, times a constant that corrects the count."""
    rank, (_, _, *sizes) = op.of(x)
    n = rank - 2
    strides, dilations = strides or [1] * n, dilations or [1] * n
    if n == 1:
        y = op.AveragePool(op.Unsqueeze(x, [2]), kernel_shape=[1, *kernel_shape], auto_pad=auto_pad, pads=pads and [0, pads[0], 0, pads[1]], strides=[1, *strides],
                           dilations=[1, *dilations], ceil_mode=ceil_mode, count_include_pad=count_include_pad)
        return op.Squeeze(y, [2])
    keyword, explicit, extra = _pool_pads(op, sizes, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    plain = n == 2 and dilations == [1, 1]
    if plain and auto_pad == keyword and pads is None and not ceil_mode and not (count_include_pad and keyword == "SAME_UPPER"):
        return NotImplemented
    if plain and not any(extra) and ((keyword == "SAME_UPPER" and not count_include_pad) or (not any(explicit) and keyword == "VALID")):
        return op.AveragePool(x, kernel_shape=kernel_shape, auto_pad=keyword, strides=strides)
    real = op.static(x)[2:] if keyword == "SAME_UPPER" or any(extra) or not count_include_pad or not plain else None
    if keyword == "SAME_UPPER":
        pairs = [same_pads(*axis) for axis in zip(real, kernel_shape, strides, dilations, strict=True)]
        explicit = [before for before, _ in pairs] + [after for _, after in pairs]
    ends = [*explicit[:n], *(end + more for end, more in zip(explicit[n:], extra, strict=True))]
    source = padded(op, x, ends)
    if plain:
        mean = op.AveragePool(source, kernel_shape=kernel_shape, auto_pad="VALID", strides=strides)
        factor = math.prod(kernel_shape)
    else:
        mean, factor = _shifted_sum(op, source, kernel_shape, strides, dilations), 1
    if count_include_pad and not any(extra) and plain:
        return mean
    counts = _counts(real, kernel_shape, strides, dilations, explicit, extra, bool(count_include_pad))
    return op.Mul(mean, op.const((factor / counts).astype(x.dtype.numpy())))


def _shifted_sum(op: Builder, source: ir.Value, kernel: list[int], strides: list[int], dilations: list[int]) -> ir.Value:
    sizes, n, total = op.static(source)[2:], len(kernel), None
    outs = [(size - (k - 1) * d - 1) // s + 1 for size, k, d, s in zip(sizes, kernel, dilations, strides, strict=True)]
    for offset in np.ndindex(*kernel):
        starts = [o * d for o, d in zip(offset, dilations, strict=True)]
        stops = [start + (out - 1) * stride + 1 for start, out, stride in zip(starts, outs, strides, strict=True)]
        here = op.Slice(source, starts, stops, list(range(2, n + 2)), list(strides))
        total = here if total is None else op.Add(total, here)
    return total


def _counts(sizes: list[int], kernel: list[int], strides: list[int], dilations: list[int], pads: list[int], extra: list[int], include: bool) -> np.ndarray:
    """How many elements each window averages over."""
    n, counts = len(kernel), np.ones((1, 1, *[1] * len(kernel)))
    for i, (size, k, s, d) in enumerate(zip(sizes, kernel, strides, dilations, strict=True)):
        inside = np.concatenate([np.full(pads[i], float(include)), np.ones(size), np.full(pads[i + n], float(include)), np.zeros(extra[i])])
        starts = range(0, len(inside) - (k - 1) * d, s)
        line = np.array([inside[start:start + (k - 1) * d + 1:d].sum() for start in starts])
        counts = counts * line.reshape([-1 if axis == i + 2 else 1 for axis in range(n + 2)])
    return np.maximum(counts, 1)


@legalize("LpPool")
def lp_pool(op, x, *, kernel_shape, p=2, **window):
    """(sum |x|^p)^(1/p) as an average that counts the padding."""
    powered = op.Mul(x, x) if p == 2 else op.Abs(x) if p == 1 else op.Pow(op.Abs(x), float(p))
    mean = op.AveragePool(powered, kernel_shape=kernel_shape, count_include_pad=1, **window)
    if window.get("ceil_mode"):
        op.reject("ceil_mode of LpPool divides by a count that the average does not know")
    total = op.Mul(mean, float(math.prod(kernel_shape)))
    return op.Sqrt(total) if p == 2 else total if p == 1 else op.Pow(total, 1.0 / p)


@legalize("GlobalAveragePool")
def global_average_pool(op, x):
    return op.ReduceMean(x, list(range(2, op.of(x)[0])), keepdims=1)


@legalize("GlobalMaxPool")
def global_max_pool(op, x):
    return op.ReduceMax(x, list(range(2, op.of(x)[0])), keepdims=1)


@legalize("GlobalLpPool")
def global_lp_pool(op, x, *, p=2):
    return op.Pow(op.ReduceSum(op.Pow(op.Abs(x), float(p)), list(range(2, op.of(x)[0])), keepdims=1), 1.0 / p)


# ---- reductions and orders along the last axis

@legalize("ArgMax", "ArgMin")
def arg_extreme(op, x, *, axis=0, keepdims=1, select_last_index=0):
    rank, sizes = op.of(x)
    axis %= rank
    kind = getattr(op, op.node.op_type)
    if select_last_index:
        size = op.Squeeze(shape_of(op, x, axis), [0])
        y = op.Sub(op.Sub(size, np.int64(1)), kind(op.ReverseAxis(x, axis=axis, _dtype=x.dtype, _shape=x.shape), axis=axis, keepdims=0))
        return op.Unsqueeze(y, [axis]) if keepdims else y
    return op.Unsqueeze(kind(x, axis=axis, keepdims=0), [axis]) if keepdims else NotImplemented


@legalize("TopK")
def top_k(op, x, k, *, axis=-1, largest=1, sorted=1):
    rank, sizes = op.of(x)
    axis %= rank
    order = [i for i in range(rank) if i != axis] + [axis]
    y = x if axis == rank - 1 else op.Transpose(x, perm=order)
    y = y if largest else op.Neg(y)
    count = constant(k)
    k32 = op.const(np.asarray(count.reshape(()), np.int32)) if count is not None else op.Cast(op.Squeeze(k, [0]), to=6)
    shape = [*(sizes[i] for i in order[:-1]), None if count is None else int(count.reshape(-1)[0])]
    values, indices = op.TopKLast(y, k32, _outputs=2, _dtype=x.dtype, _shape=shape)
    indices.dtype = ir.DataType.INT32
    values, indices = values if largest else op.Neg(values), op.Cast(indices, to=7)
    back = [order.index(i) for i in range(rank)]
    return (values, indices) if axis == rank - 1 else (op.Transpose(values, perm=back), op.Transpose(indices, perm=back))


@legalize("CumProd")
def cumprod(op, x, axis: Int, *, exclusive=0, reverse=0):
    """One product a position, for short axes."""
    size = op.static(x)[axis]
    rank = len(op.static(x))
    axis %= rank
    parts = [interval(op, x, axis, i, i + 1) for i in range(size)]
    parts = parts[::-1] if reverse else parts
    total, results = None, []
    for part in parts:
        if exclusive:
            results.append(total if total is not None else op.const(np.ones([1 if i == axis else s for i, s in enumerate(op.static(x))], x.dtype.numpy())))
        total = part if total is None else op.Mul(total, part)
        if not exclusive:
            results.append(total)
    return op.Concat(*(results[::-1] if reverse else results), axis=axis)


# ---- positions: kernels know no negative ones, and scatter only by adding

def wrapped(op: Builder, indices: ir.Value, sizes: list | int | str | None, vector: Any) -> ir.Value:
    """Indices counted from the end made positive; constants and booleans are settled at once."""
    array = constant(indices)
    if array is not None:
        if not (array < 0).any():
            return indices
        if isinstance(sizes, int) or (isinstance(sizes, list) and all(isinstance(size, int) for size in sizes)):
            return op.const(np.where(array < 0, array + np.asarray(sizes), array).astype(array.dtype))
    return op.Mod(indices, op.const(np.asarray(sizes, indices.dtype.numpy())) if isinstance(sizes, int) or (isinstance(sizes, list) and all(isinstance(s, int) for s in sizes))
                  else op.Cast(vector(), to=int(indices.dtype)))


def _is_wrapped(value: ir.Value) -> bool:
    array = constant(value)
    producer = value.producer()
    return (array is not None and not (array < 0).any()) or (producer is not None and producer.op_type in ("Mod", "ArgMax", "ArgMin", "NonZero", "Range")) \
        or (producer is not None and producer.op_type in ("Squeeze", "Unsqueeze", "Cast", "Reshape", "Concat") and all(_is_wrapped(v) for v in producer.inputs[:1]))


@legalize("Gather")
def gather(op, x, indices, *, axis=0):
    if _is_wrapped(indices):
        return NotImplemented
    _, sizes = op.of(x)
    return op.Gather(x, wrapped(op, indices, sizes[axis], lambda: op.Squeeze(shape_of(op, x, axis), [0])), axis=axis)


@legalize("GatherND")
def gather_nd(op, x, indices, *, batch_dims=0):
    """Batch axes become leading coordinates."""
    _, sizes = op.of(x)
    depth = op.static(indices)[-1]
    if batch_dims:
        lead = op.static(indices)[:-1]
        grids = [np.broadcast_to(np.arange(lead[i]).reshape([-1 if j == i else 1 for j in range(len(lead))]), lead)[..., None].astype(np.int64) for i in range(batch_dims)]
        return op.GatherND(x, op.Concat(*(op.const(grid) for grid in grids), indices, axis=-1))
    if _is_wrapped(indices):
        return NotImplemented
    return op.GatherND(x, wrapped(op, indices, sizes[:depth], lambda: shape_of(op, x, *range(depth))))


@legalize("ScatterND")
def scatter_nd(op, x, indices, updates, *, reduction="none"):
    """The kernel adds updates to zeros. Overwriting: a scattered count of ones chooses between old and new."""
    rank, sizes = op.of(x)
    depth = op.static(indices)[-1]
    indices = wrapped(op, indices, sizes[:depth], lambda: shape_of(op, x, *range(depth)))
    shape = shape_of(op, x)
    work = x.dtype if x.dtype in (ir.DataType.FLOAT, ir.DataType.INT32, ir.DataType.INT64, ir.DataType.INT8, ir.DataType.UINT8) else ir.DataType.FLOAT
    data, new = (value if value.dtype == work else op.Cast(value, to=int(work)) for value in (x, updates))

    def scatter(values: ir.Value) -> ir.Value:
        return op.AddScattered(indices, values, shape, _dtype=values.dtype, _shape=x.shape)
    if reduction == "add":
        y = op.Add(data, scatter(new))
    elif reduction == "none":
        hit = scatter(op.Expand(op.const(np.float32(1)), shape_of(op, updates)))
        y = op.Where(op.Greater(hit, op.const(np.float32(0))), scatter(new), data)
    else:
        y = _scatter_in_rounds(op, data, indices, new, reduction, scatter, shape)
    return y if y.dtype == x.dtype else op.Cast(y, to=int(x.dtype))


def _scatter_in_rounds(op: Builder, data: ir.Value, indices: ir.Value, updates: ir.Value, reduction: str, scatter: Any, shape: ir.Value) -> ir.Value:
    """Products and extremes: constant positions are split into rounds without repetition, each combined with what stands there."""
    positions = constant(indices)
    if positions is None:
        return _scatter_one_by_one(op, data, indices, updates, reduction, shape)
    flat = positions.reshape(-1, positions.shape[-1])
    rounds: list[list[int]] = []
    for row, position in enumerate(map(tuple, flat.tolist())):
        level = sum(tuple(flat[other]) == position for other in range(row))
        while len(rounds) <= level:
            rounds.append([])
        rounds[level].append(row)
    tail = op.static(updates)[positions.ndim - 1:]
    rows = op.Reshape(updates, [len(flat), *tail])
    for members in rounds:
        data = _combined(op, data, op.const(flat[members]), op.Gather(rows, op.const(np.asarray(members, np.int64))), reduction, shape, [len(members), *tail])
    return data


def _combined(op: Builder, data: ir.Value, where: ir.Value, new: ir.Value, reduction: str, shape: ir.Value, sizes: list[int]) -> ir.Value:
    changed = {"mul": op.Mul, "max": op.Max, "min": op.Min}[reduction](op.GatherND(data, where), new)
    hit = op.AddScattered(where, op.const(np.ones(sizes, np.float32)), shape, _dtype=1, _shape=data.shape)
    moved = op.AddScattered(where, changed, shape, _dtype=data.dtype, _shape=data.shape)
    return op.Where(op.Greater(hit, op.const(np.float32(0))), moved, data)


def _scatter_one_by_one(op: Builder, data: ir.Value, indices: ir.Value, updates: ir.Value, reduction: str, shape: ir.Value) -> ir.Value:
    """Positions that only the run knows may repeat: one row after another, for few rows."""
    *lead, depth = op.static(indices)
    count, tail = math.prod(lead), op.static(updates)[len(lead):]
    if count > ROWS:
        op.reject(f"a scatter of {count} rows with reduction {reduction!r} at positions that are not constant")
    where, rows = op.Reshape(indices, [count, depth]), op.Reshape(updates, [count, *tail])
    for row in range(count):
        data = _combined(op, data, interval(op, where, 0, row, row + 1), interval(op, rows, 0, row, row + 1), reduction, shape, [1, *tail])
    return data


ROWS = 64

@legalize("Pad")
def pad(op, x, pads, value=None, axes: Ints | None = None, *, mode="constant"):
    """All axes, no cuts; edge and wrap read constant positions."""
    rank, sizes = op.of(x)
    amounts = constant(pads)
    if axes is not None:
        if amounts is None:
            op.reject("pads of chosen axes that are not constant")
        spread = np.zeros(2 * rank, np.int64)
        for i, axis in enumerate(axes):
            spread[axis % rank], spread[axis % rank + rank] = amounts[i], amounts[i + len(axes)]
        return op.Pad(x, op.const(spread), value, mode=mode)
    if amounts is None:
        return NotImplemented if mode == "constant" else op.reject(f"{mode} padding that is not constant")
    if mode in ("edge", "wrap") or (mode == "reflect" and (amounts < 0).any()):
        for axis in range(rank):
            before, after = int(amounts[axis]), int(amounts[axis + rank])
            if before or after:
                index = np.arange(-before, op.static(x)[axis] + after)
                size = op.static(x)[axis]
                index = np.clip(index, 0, size - 1) if mode == "edge" else index % size if mode == "wrap" else np.abs((index + size - 1) % max(2 * size - 2, 1) - (size - 1))
                x = op.Gather(x, op.const(index.astype(np.int64)), axis=axis)
        return x if x is not op.node.inputs[0] else op.Identity(x)
    if (amounts < 0).any():
        for axis in range(rank):
            before, after = min(int(amounts[axis]), 0), min(int(amounts[axis + rank]), 0)
            if before or after:
                x = interval(op, x, axis, -before, op.static(x)[axis] + after)
        return op.Pad(x, op.const(np.maximum(amounts, 0)), value, mode=mode)
    return NotImplemented


# ---- matrices

@legalize("Gemm")
def gemm(op, a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):
    """A constant weight with a bias vector is a fully connected layer."""
    weight, bias = is_weight(b), c is None or (is_weight(c) and len(op.static(c)) == 1)
    outputs = op.static(b)[0 if transB else 1]
    if weight and bias and alpha == beta == 1 and (b.producer() is not None or (c is not None and c.producer() is not None)):
        a = op.Transpose(a, perm=[1, 0]) if transA else a       # stored in fewer bits: taken as they are
        return op.FullyConnected(a, b, c, transB=transB, _dtype=a.dtype, _shape=[op.of(a)[1][0], outputs])
    weight, bias = constant(b) is not None, c is None or constant(c) is not None
    if not weight or not bias or a.dtype != ir.DataType.FLOAT or (c is not None and constant(c).size not in (1, outputs)):
        return _plain_gemm(op, a, b, c, alpha, beta, transA, transB)
    a = op.Transpose(a, perm=[1, 0]) if transA else a
    w = b if alpha == 1.0 else op.const(lazily(lambda array: (array * np.float32(alpha)).astype(array.dtype), b.const_value), name=b.name)
    bias_value = None if c is None else op.const(np.broadcast_to(constant(c).reshape(-1) * np.float32(beta), (outputs,)).copy(), name=c.name)
    return op.FullyConnected(a, w, bias_value, transB=transB, _dtype=a.dtype, _shape=[op.of(a)[1][0], outputs])


def _plain_gemm(op: Builder, a: ir.Value, b: ir.Value, c: ir.Value | None, alpha: float, beta: float, transA: int, transB: int) -> ir.Value:
    from isomorph.passes.decompose import gemm as plain
    return plain(op, a, b, c, alpha=alpha, beta=beta, transA=transA, transB=transB)


@legalize("MatMul")
def matmul(op, a, b):
    """Vectors become matrices with one row or column."""
    (rank_a, _), (rank_b, _) = op.of(a), op.of(b)
    if rank_a > 1 and rank_b > 1:
        if rank_b > rank_a and rank_a == 2 and rank_b > 2:
            return op.MatMul(op.Unsqueeze(a, list(range(rank_b - rank_a))), b)
        return NotImplemented
    y = op.MatMul(op.Unsqueeze(a, [0]) if rank_a == 1 else a, op.Unsqueeze(b, [1]) if rank_b == 1 else b)
    rank = op.of(y)[0]
    return op.Squeeze(y, [rank - 2 + i for i, one in enumerate((rank_a == 1, rank_b == 1)) if one])


# ---- the rest

# What exporters write as powers, without a logarithm.
POWERS: dict[float | None, Any] = {2.0: lambda op, x: op.Mul(x, x), 0.5: lambda op, x: op.Sqrt(x), 3.0: lambda op, x: op.Mul(op.Mul(x, x), x),
                                   1.0: lambda op, x: op.Identity(x), -1.0: lambda op, x: op.Div(op.const(np.float32(1)), x)}


@legalize("Pow")
def power(op, a, b):
    """Both operands have one type in the kernel; ONNX keeps the type of the base."""
    if ir.DataType.INT64 in (a.dtype, b.dtype) and a.dtype not in FLOATS:
        op.lose("values.narrowed", "Pow computes in INT32 instead of INT64")
        return op.Cast(op.Pow(*(op.Cast(x, to=6) for x in (a, b))), to=int(a.dtype))
    exponent = scalar(b)
    if _float(a) and exponent in POWERS:
        return POWERS[exponent](op, a)
    if a.dtype == b.dtype:
        return NotImplemented
    if _float(a) or b.dtype not in FLOATS:
        return op.Pow(a, op.Cast(b, to=int(a.dtype)))
    return op.Cast(op.Pow(op.Cast(a, to=1), b if _float(b) else op.Cast(b, to=1)), to=int(a.dtype))


@legalize("ReduceMax", "ReduceMin")
def reduce_truth(op, x, axes=None, *, keepdims=1, noop_with_empty_axes=0):
    """Any and all; an empty reduction gives false and true."""
    if x.dtype != ir.DataType.BOOL:
        return NotImplemented
    y = getattr(op, op.node.op_type)(op.Cast(x, to=6), axes, keepdims=keepdims, noop_with_empty_axes=noop_with_empty_axes)
    return op.Greater(y, op.const(np.int32(0)))


def _random(op: Builder, sizes: ir.Value, kind: ir.DataType, name: str, scale: float, offset: float, seed: float | None) -> ir.Value:
    """A generator of its own: other numbers than any other runtime draws, from the same distribution."""
    op.lose("values.random", "random numbers differ from those of other runtimes")
    y = op.make(name, [sizes], {"seed": int(seed or 0)}, dtype=1, shape=op.outputs[0].shape)
    y = op.Add(op.Mul(y, float(scale)), float(offset))
    return y if kind == ir.DataType.FLOAT else op.Cast(y, to=int(kind))


@legalize("RandomUniform", "RandomUniformLike")
def random_uniform(op, x=None, *, dtype=None, high=1.0, low=0.0, seed=None, shape=None):
    sizes = op.const(list(shape)) if x is None else shape_of(op, x)
    return _random(op, sizes, ir.DataType(dtype) if dtype else x.dtype if x is not None else ir.DataType.FLOAT, "DrawUniform", high - low, low, seed)


@legalize("RandomNormal", "RandomNormalLike")
def random_normal(op, x=None, *, dtype=None, mean=0.0, scale=1.0, seed=None, shape=None):
    sizes = op.const(list(shape)) if x is None else shape_of(op, x)
    return _random(op, sizes, ir.DataType(dtype) if dtype else x.dtype if x is not None else ir.DataType.FLOAT, "DrawNormal", scale, mean, seed)


@legalize("OptionalHasElement")
def optional_has_element(op, x=None):
    """A tensor is always there."""
    return op.const(np.bool_(x is not None))


@legalize("OptionalGetElement")
def optional_get_element(op, x):
    return op.Identity(x)


@legalize("ai.onnx.ml::Binarizer")
def binarizer(op, x, *, threshold=0.0):
    return op.Cast(op.Greater(x, op.const(threshold, like=x.dtype)), to=int(x.dtype))


@legalize("ai.onnx.ml::ArrayFeatureExtractor")
def array_feature_extractor(op, x, positions):
    rank, sizes = op.of(x)
    y = op.Gather(x, op.Reshape(positions, [-1]), axis=rank - 1)
    return y if rank > 1 else op.Reshape(y, [1, -1])


@legalize("Sign")
def sign(op, x):
    if x.dtype == ir.DataType.INT64:
        zero, one = op.const(np.int64(0)), op.const(np.int64(1))
        return op.Where(op.Greater(x, zero), one, op.Where(op.Less(x, zero), op.const(np.int64(-1)), zero))
    return NotImplemented


@legalize("Asin")
def asin(op, x):
    return op.Atan2(x, op.Sqrt(op.Sub(op.const(1.0, like=x.dtype), op.Mul(x, x))), _dtype=x.dtype, _shape=x.shape)


@legalize("Acos")
def acos(op, x):
    return op.Atan2(op.Sqrt(op.Sub(op.const(1.0, like=x.dtype), op.Mul(x, x))), x, _dtype=x.dtype, _shape=x.shape)


@legalize("Atan")
def atan(op, x):
    """The kernel does not broadcast: the ones have the shape of x."""
    return op.Atan2(x, op.Add(op.Mul(x, 0.0), 1.0), _dtype=x.dtype, _shape=x.shape)


@legalize("BitwiseNot")
def bitwise_not(op, x):
    """-1 - x in two's complement, greatest - x without a sign; neither leaves the type's range."""
    info = np.iinfo(x.dtype.numpy())
    return op.Sub(op.const(np.asarray(-1 if info.min else info.max, x.dtype.numpy())), x)


@legalize("BitwiseAnd")
def bitwise_and(op, a, b):
    """The kernel does not broadcast."""
    out = op.outputs[0].shape
    if out is None or a.shape == b.shape:
        return NotImplemented
    wide = [x if x.shape == out else op.Expand(x, op.const(op.static(op.outputs[0]))) for x in (a, b)]
    return op.BitwiseAnd(*wide)


@legalize("Range")
def range_of(op, *bounds):
    """Scalars; function bodies hand in vectors of one element."""
    if all(op.of(bound)[0] == 0 for bound in bounds):
        return NotImplemented
    return op.Range(*(op.Reshape(bound, op.const(np.zeros(0, np.int64))) if op.of(bound)[0] else bound for bound in bounds))


@legalize("BitwiseOr")
def bitwise_or(op, a, b):
    """a + b counts the common bits twice."""
    return op.Sub(op.Add(a, b), op.BitwiseAnd(a, b))


@legalize("BitwiseXor")
def bitwise_xor(op, a, b):
    """The kernel has no 64-bit form: a + b less twice the common bits."""
    if a.dtype not in (ir.DataType.INT64, ir.DataType.UINT64):
        return NotImplemented
    both = op.BitwiseAnd(a, b)
    return op.Sub(op.Sub(op.Add(a, b), both), both)


@legalize("BitShift")
def bit_shift(op, x, y, *, direction):
    """Beyond the width of the type nothing is left but the sign. Left: a product with a power of two, which wraps in 64 bits."""
    width = x.dtype.itemsize * 8 if hasattr(x.dtype, "itemsize") else 64
    if direction == "RIGHT":
        return NotImplemented
    power = op.Cast(op.Pow(op.const(np.float32(2)), op.Cast(op.Min(y, op.const(width - 1, like=y.dtype)), to=1)), to=7)
    shifted = op.Cast(op.Mul(op.Cast(x, to=7), power), to=int(x.dtype))
    return op.Where(op.Less(y, op.const(width, like=y.dtype)), shifted, op.const(0, like=x.dtype))


@legalize("Dropout")
def dropout(op, x, ratio=None, training_mode=None, **seed):
    """Nothing at inference; the mask is all true."""
    if training_mode is not None and constant(training_mode) is not None and bool(constant(training_mode)):
        if ratio is not None and constant(ratio) is not None and float(constant(ratio)) == 0.0:
            return op.Identity(x), op.Expand(op.const(np.bool_(True)), shape_of(op, x))
        op.reject("dropout in training is random")
    if training_mode is not None and constant(training_mode) is None:
        op.reject("dropout whose training mode is decided at run time")
    return (op.Identity(x), op.Expand(op.const(np.bool_(True)), shape_of(op, x))) if len(op.outputs) > 1 else op.Identity(x)


@legalize("TensorScatter")
def tensor_scatter(op, past, update, write_indices=None, *, axis=-2, mode="linear"):
    """Writes `update` into each batch row of `past` from its own position on."""
    sizes, new = op.static(past), op.static(update)
    axis %= len(sizes)
    batch, steps = new[0], new[axis]
    start = op.Reshape(write_indices, [batch, 1]) if write_indices is not None else op.const(np.zeros((batch, 1), np.int64))
    where = op.Add(start, op.const(np.arange(steps)[None]))
    where = op.Mod(where, op.const(np.int64(sizes[axis]))) if mode == "circular" else where
    order = [0, axis, *(i for i in range(1, len(sizes)) if i != axis)]
    rows = op.const(np.broadcast_to(np.arange(batch)[:, None, None], (batch, steps, 1)).astype(np.int64).copy())
    y = op.ScatterND(op.Transpose(past, perm=order), op.Concat(rows, op.Unsqueeze(where, [2]), axis=2), op.Transpose(update, perm=order))
    return op.Transpose(y, perm=[order.index(i) for i in range(len(sizes))])


@legalize("NonMaxSuppression")
def non_max_suppression(op, boxes, scores, count: Int | None = None, iou: Float | None = None, threshold: Float | None = None, *, center_point_box=0):
    """One single-class suppression for each batch and class; rows (batch, class, box) in that order. ONNX keeps a box whose overlap equals
    the threshold, the kernel does not: the threshold is the next larger number."""
    batches, classes, total = op.static(scores)
    limit = min(count or 0, total)
    if center_point_box:
        x, y, w, h = (interval(op, boxes, 2, i, i + 1) for i in range(4))
        boxes = op.Concat(op.Sub(y, op.Div(h, 2.0)), op.Sub(x, op.Div(w, 2.0)), op.Add(y, op.Div(h, 2.0)), op.Add(x, op.Div(w, 2.0)), axis=2)
    rows = []
    for b in range(batches if limit else 0):
        these = op.Squeeze(interval(op, boxes, 0, b, b + 1), [0])
        for c in range(classes):
            line = op.Squeeze(interval(op, interval(op, scores, 0, b, b + 1), 1, c, c + 1), [0, 1])
            positions, valid = op.NonMaxSuppressionOne(these, line, op.const(np.int32(limit)), op.const(np.nextafter(np.float32(iou or 0.0), np.float32(2))),
                                                       op.const(np.float32(-3e38 if threshold is None else threshold)), _outputs=2, _dtype=6, _shape=[limit])
            valid.shape = ir.Shape([])
            chosen = op.Slice(op.Cast(positions, to=7), op.const([0]), op.Unsqueeze(op.Cast(valid, to=7), [0]), op.const([0]))
            column = op.Unsqueeze(chosen, [1])
            rows.append(op.Concat(op.Add(op.Mul(column, np.int64(0)), np.int64(b)), op.Add(op.Mul(column, np.int64(0)), np.int64(c)), column, axis=1))
    if not rows:
        return op.const(np.zeros((0, 3), np.int64))
    return op.Concat(*rows, axis=0) if len(rows) > 1 else rows[0]


# ---- Resize, where a kernel has the same coordinates

@legalize("Resize")
def resize(op, x, roi=None, scales=None, sizes=None, *, mode="nearest", coordinate_transformation_mode="half_pixel", nearest_mode="round_prefer_floor", axes=None,
           antialias=0, exclude_outside=0, cubic_coeff_a=-0.75, extrapolation_value=0.0, keep_aspect_ratio_policy="stretch"):
    """Two spatial axes, nearest or linear, and coordinates that agree with one of the kernel's three; others become matrices and gathers."""
    rank, dims = op.of(x)
    if all(isinstance(size, int) for size in dims) and (scales is None or constant(scales) is not None) and (sizes is None or constant(sizes) is not None):
        found = _kernel_resize(op, x, constant(scales), constant(sizes), mode, coordinate_transformation_mode, nearest_mode, axes, antialias, exclude_outside,
                               keep_aspect_ratio_policy)
        if found is not None:
            return found
        from isomorph.passes.resample import resize as matrices
        return matrices(op, x, constant(roi), constant(scales), constant(sizes), mode=mode, coordinate_transformation_mode=coordinate_transformation_mode,
                        nearest_mode=nearest_mode, axes=axes, antialias=antialias, exclude_outside=exclude_outside, cubic_coeff_a=cubic_coeff_a,
                        extrapolation_value=extrapolation_value, keep_aspect_ratio_policy=keep_aspect_ratio_policy)
    return _dynamic_resize(op, x, scales, sizes, mode, coordinate_transformation_mode, nearest_mode, axes)


KERNEL_MODES = {"half_pixel": {"half_pixel_centers": 1}, "align_corners": {"align_corners": 1}, "asymmetric": {}}


def _spatial(op: Builder, x: ir.Value, sizes: ir.Value, out: list, mode: str, flags: dict[str, int]) -> ir.Value:
    return op.ResizeSpatial(x, sizes, mode=mode, **flags, _dtype=x.dtype, _shape=[*list(x.shape)[:2], *out])


def _kernel_resize(op, x, scales, sizes, mode, transformation, nearest_mode, axes, antialias, exclude_outside, policy):
    from isomorph.passes.resample import coordinates, nearest, resize_targets
    dims = op.static(x)
    axes = [axis % len(dims) for axis in axes] if axes is not None else list(range(len(dims)))
    targets = dict(zip(axes, resize_targets(dims, axes, scales, sizes, policy), strict=True))
    if len(dims) != 4 or transformation == "tf_crop_and_resize" or antialias or exclude_outside or mode not in ("nearest", "linear") or any(targets.get(axis, (dims[axis], 1.0))[0] != dims[axis] for axis in (0, 1)):
        return None
    targets = {axis: targets.get(axis, (dims[axis], 1.0, None)) for axis in (2, 3)}
    for kernel, flags in KERNEL_MODES.items():
        agree = True
        for axis, (out, scale, length) in targets.items():
            wanted = coordinates(out, dims[axis], scale, transformation, length=length)
            given = coordinates(out, dims[axis], out / dims[axis], kernel)
            if mode == "nearest":
                wanted = np.clip(nearest(wanted, nearest_mode), 0, dims[axis] - 1)
                given = _kernel_nearest(out, dims[axis], kernel)
            agree = agree and np.allclose(np.clip(wanted, 0, dims[axis] - 1), np.clip(given, 0, dims[axis] - 1), atol=1e-6)
        if agree:
            out = [targets[2][0], targets[3][0]]
            return _spatial(op, x, op.const(out), out, mode, flags)
    return None


def _kernel_nearest(out: int, size: int, kernel: str) -> np.ndarray:
    """GetNearestNeighbor of the kernel, in float32 as it computes."""
    i = np.arange(out, dtype=np.float32)
    scale = np.float32((size - 1) / (out - 1) if kernel == "align_corners" and out > 1 else size / out)
    value = (i + np.float32(0.5 if kernel == "half_pixel" else 0)) * scale
    value = np.floor(value + np.float32(0.5)) if kernel == "align_corners" else np.floor(value)
    return np.clip(value, 0, size - 1)


def _dynamic_resize(op, x, scales, sizes, mode, transformation, nearest_mode, axes):
    """Unknown sizes: the spatial axes, and coordinates that agree for every size."""
    rank, dims = op.of(x)
    exact = {"linear": ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")}.get(mode, ("asymmetric", "half_pixel"))
    factors = constant(scales)
    whole = factors is not None and np.allclose(factors, np.round(factors))
    if rank != 4 or transformation not in exact or (mode == "nearest" and not ((nearest_mode == "floor" and transformation == "asymmetric") or whole)):
        op.reject(f"{mode} Resize with {transformation} coordinates of an unknown size")
    chosen = [axis % 4 for axis in axes] if axes is not None else [0, 1, 2, 3]
    places = [chosen.index(2), chosen.index(3)]
    if sizes is not None:
        target = op.Gather(sizes, op.const(places))
    elif factors is not None and whole:
        target = op.Mul(shape_of(op, x, 2, 3), op.const(np.round(factors[places]).astype(np.int64)))
    else:
        chosen_scales = op.Gather(scales, op.const(places)) if factors is None else op.const(factors[places].astype(np.float32))
        target = op.Cast(op.Floor(op.Mul(op.Cast(shape_of(op, x, 2, 3), to=1), chosen_scales)), to=7)
    flags = KERNEL_MODES["asymmetric" if mode == "nearest" and (whole or transformation == "asymmetric") else transformation.removeprefix("pytorch_")]
    out = list(op.outputs[0].shape)[2:] if op.outputs[0].shape is not None else [None, None]
    return _spatial(op, x, target, out, mode, flags)


# ---- operators whose kernels cover part of what ONNX allows

def _by_decomposition(name: str, kernel_has: Any) -> None:
    from isomorph.passes.decompose import decompose
    rule = decompose.rules["", name].function

    def choose(op, *inputs, **attributes):
        return NotImplemented if kernel_has(op, *inputs, **attributes) else rule(op, *inputs, **attributes)
    legalize(name)(choose)


def _float(value: ir.Value) -> bool:
    return value.dtype == ir.DataType.FLOAT


def _channel_slope(op: Builder, x: ir.Value, slope: ir.Value) -> bool:
    """PRELU's slope has the rank of x less one: what broadcasts over the batch."""
    array, rank = constant(slope), op.of(x)[0]
    return _float(x) and array is not None and 1 < rank <= 4 and (array.ndim < rank or array.shape[0] == 1)


_by_decomposition("Elu", lambda op, x, alpha=1.0: alpha == 1.0)
_by_decomposition("Mod", lambda op, a, b, fmod=0: not fmod)
_by_decomposition("Max", lambda op, *xs: len(xs) == 2)
_by_decomposition("Min", lambda op, *xs: len(xs) == 2)
_by_decomposition("PRelu", _channel_slope)
_by_decomposition("DepthToSpace", lambda op, x, blocksize, mode="DCR": mode == "DCR" and op.of(x)[0] == 4)


@legalize("Clip")
def clip(op, x, low=None, high=None):
    """The ranges that kernels have as activations."""
    bounds = tuple(None if bound is None else (float(array.reshape(-1)[0]) if (array := constant(bound)) is not None else math.nan) for bound in (low, high))
    if _float(x) and bounds == (0.0, None):
        return op.Relu(x)
    if _float(x) and bounds in ((0.0, 6.0), (0.0, 1.0)):
        return op.make("Relu6" if bounds[1] == 6.0 else "Relu0To1", [x], {}, dtype=x.dtype, shape=x.shape)
    from isomorph.passes.decompose import clip as plain
    return plain(op, x, low, high)


@legalize("HardSigmoid")
def hard_sigmoid(op, x, *, alpha=0.2, beta=0.5):
    return op.Clip(op.Add(op.Mul(x, alpha), beta), 0.0, 1.0)


@legalize("Div")
def divide(op, a, b):
    """By a square root: one kernel that runtimes have for it."""
    root = made_by(b, "Sqrt")
    if root is not None and _float(a):
        return op.Mul(a, op.Rsqrt(root.inputs[0], _dtype=a.dtype, _shape=b.shape))
    return NotImplemented


@legalize("Softmax", "LogSoftmax")
def softmax(op, x, *, axis=-1):
    """The kernel knows the last axis. A middle axis of a picture is left to the layout pass, which may make it the last."""
    rank, _ = op.of(x)
    if rank == 0:
        return op.Reshape(getattr(op, op.node.op_type)(op.Reshape(x, [1]), axis=-1), op.const(np.zeros(0, np.int64)))
    if axis % rank == rank - 1 or (rank in (3, 4, 5) and axis % rank == 1):
        return NotImplemented
    return last_axis_softmax(op, x, axis=axis)


def last_axis_softmax(op, x, *, axis=-1):
    rank, _ = op.of(x)
    axis %= rank
    if axis == rank - 1:
        return NotImplemented
    order = [i if i not in (axis, rank - 1) else axis + rank - 1 - i for i in range(rank)]
    return op.Transpose(getattr(op, op.node.op_type)(op.Transpose(x, perm=order), axis=-1), perm=order)


# ---- quantisation that no kernel has is arithmetic

@legalize("DequantizeLinear")
def dequantize(op, x, scale, zero=None, *, axis=1, block_size=0, output_dtype=0):
    found = parameters(op.node)
    if found is not None and scale.dtype == ir.DataType.FLOAT and (
            (x.dtype in WIDE and not found.per_axis and (x.dtype != ir.DataType.INT16 or not found.zero_point.any())) or (x.is_initializer() and x.dtype in STORED)):
        return NotImplemented
    y = op.Cast(x, to=int(scale.dtype))
    scale, zero = (None if v is None else _spread(op, v, x, axis, block_size) for v in (scale, zero))
    y = op.Mul(y if zero is None else op.Sub(y, op.Cast(zero, to=int(scale.dtype))), scale)
    return op.Cast(y, to=int(op.outputs[0].dtype)) if op.outputs[0].dtype not in (None, y.dtype) else y


@legalize("QuantizeLinear")
def quantize(op, x, scale, zero=None, *, axis=1, block_size=0, saturate=1, output_dtype=0, precision=0):
    """round half to even, shift, saturate."""
    found = parameters(op.node)
    kind = zero.dtype if zero is not None else ir.DataType(output_dtype or 2)
    if found is not None and not found.per_axis and kind in WIDE and x.dtype == ir.DataType.FLOAT and (kind != ir.DataType.INT16 or not found.zero_point.any()):
        return NotImplemented
    if kind not in WIDE | {ir.DataType.UINT16, ir.DataType.INT32}:
        op.reject(f"quantisation to {kind.name}")
    info = np.iinfo(kind.numpy())
    scale, zero = (None if v is None else _spread(op, v, x, axis, block_size) for v in (scale, zero))
    y = op.Round(op.Div(x, op.Cast(scale, to=int(x.dtype)) if scale.dtype != x.dtype else scale))
    y = y if zero is None else op.Add(y, op.Cast(zero, to=int(x.dtype)))
    return op.Cast(op.Min(op.Max(y, float(info.min)), float(info.max)), to=int(kind))


STORED = WIDE | {ir.DataType.INT32, ir.DataType.INT4}


def _spread(op: Builder, vector: ir.Value, x: ir.Value, axis: int, block: int) -> ir.Value:
    """Parameters along an axis in the shape that broadcasts; blocks repeat each one."""
    rank, sizes = op.of(x)
    if block:
        count = op.static(vector)[axis % rank]
        index = np.repeat(np.arange(count), block)[:op.static(x)[axis % rank]]
        return op.Gather(vector, op.const(index.astype(np.int64)), axis=axis % rank)
    if op.of(vector)[0] == 1 and op.of(vector)[1] != [1] and rank > 1:
        return op.Reshape(vector, [-1 if i == axis % rank else 1 for i in range(rank)])
    return op.Reshape(vector, op.const(np.zeros(0, np.int64))) if op.of(vector)[0] == 1 and op.of(vector)[1] == [1] else vector


# ---- loops

@legalize("Loop")
def loop(op, count, condition, *carried, body):
    """WHILE over [round, go on, carried values, collected outputs, captured values]; collected outputs grow by concatenation."""
    from isomorph.passes.captures import captured, is_dynamic, lift
    from isomorph.passes.recurrent import loop as written_out
    whole = written_out(op, count, condition, *carried, body=body)
    if whole is not NotImplemented:
        return whole
    outer = captured(body)
    lift(body, outer)
    given = [value for value in outer if is_dynamic(value)]
    scans = list(body.outputs)[1 + len(carried):]
    limit = count if count is not None else op.const(np.int64(1 << 62))
    limit = op.Reshape(limit, op.const(np.zeros(0, np.int64)))
    start = op.Reshape(condition, op.const(np.zeros(0, np.int64))) if condition is not None else op.const(np.bool_(True))
    empty = [_empty(op, value) for value in scans]
    state = [op.const(np.int64(0)), op.Identity(start), op.Identity(limit), *carried, *empty, *given]
    cond_graph, body_graph = _while_graphs(op, body, len(carried), len(scans), state)
    results = op.make("While", state, {"cond": cond_graph, "body": body_graph}, outputs=len(state), dtype=1, shape=[])
    for result, value, inner in zip(results, state, body_graph.outputs, strict=True):
        result.type, result.shape = value.type, inner.shape if inner.shape is not None else value.shape
    for result, old in zip(results[3:], op.outputs, strict=False):
        if old.shape is not None:
            result.shape = old.shape
    return list(results[3:3 + len(carried) + len(scans)])


def _empty(op: Builder, value: ir.Value) -> ir.Value:
    sizes = op.of(value)[1]
    if not all(isinstance(size, int) for size in sizes):
        op.reject(f"collects {value.name}, whose shape {sizes} is not known before the loop runs")
    return op.const(np.zeros((0, *sizes), value.dtype.numpy()))


def _while_graphs(op: Builder, body: ir.Graph, carried: int, scans: int, state: list[ir.Value]) -> tuple[ir.Graph, ir.Graph]:
    imports = {"": 26}

    def inputs(tag: str) -> list[ir.Value]:
        made = [ir.Value(name=op.context.unique(f"{tag}_{i}"), type=value.type, shape=value.shape) for i, value in enumerate(state)]
        for value in made[3 + carried:3 + carried + scans]:
            value.shape = ir.Shape([None, *list(value.shape)[1:]])
        return made
    asked = inputs("cond")
    with op.body() as nodes:
        verdict = op.And(op.Less(asked[0], asked[2]), asked[1])
    cond_graph = ir.Graph(asked, [verdict], nodes=nodes, name="cond", opset_imports=imports)
    given = inputs("body")
    with op.body() as head:
        following = op.Add(given[0], np.int64(1))
    # The body keeps its nodes; its inputs are replaced by the state's.
    for old, new in zip(body.inputs, [given[0], given[1], *given[3:3 + carried], *given[3 + carried + scans:]], strict=True):
        new.shape = old.shape if old.shape is not None else new.shape
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    results = list(body.outputs)
    with op.body() as tail:
        go = op.Identity(op.Reshape(results[0], op.const(np.zeros(0, np.int64))))
        carried_out = [value if value.producer() is not None and value not in given else op.Identity(value) for value in results[1:1 + carried]]
        grown = [op.Concat(old, op.Unsqueeze(value, [0]), axis=0) for old, value in zip(given[3 + carried:3 + carried + scans], results[1 + carried:], strict=True)]
        limit = op.Identity(given[2])
        kept = [op.Identity(value) for value in given[3 + carried + scans:]]
    for value in grown:
        value.shape = ir.Shape([None, *list(value.shape)[1:]])
    inner, constants = list(body), list(body.initializers.values())
    while body.outputs:
        body.outputs.pop()
    body.remove(inner)
    body.initializers.clear()
    graph = ir.Graph(given, [following, go, limit, *carried_out, *grown, *kept], nodes=[*head, *inner, *tail], initializers=constants, name="body", opset_imports=imports)
    return cond_graph, graph

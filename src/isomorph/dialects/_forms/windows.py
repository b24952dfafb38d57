"""Convolutions and pools in the form of the kernels: two axes (three for plain convolutions), VALID or SAME padding, one group or one a channel."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._forms.common import FLOATS
from isomorph.dialects._lower import Builder, Mapping, constant
from isomorph.passes.decompose import interval, shape_of
from isomorph.tensors import lazily

windows = Mapping()

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
    if all(
        pair == (same_pads(*axis) if isinstance(axis[0], int) else ((axis[1] - 1) * axis[3] // 2,) * 2)
        and (isinstance(axis[0], int) or (axis[2] == 1 and axis[1] % 2))
        for pair, axis in zip(pairs, axes, strict=True)
    ):
        return "SAME_UPPER", [0] * 2 * rank
    return "VALID", pads


def padded(op: Builder, x: ir.Value, pads: list[int], value: float = 0.0) -> ir.Value:
    """Pads (or, where negative, cuts) the axes behind batch and channel."""
    rank = len(pads) // 2
    if not any(pads):
        return x
    for axis, (before, after) in enumerate(zip(pads[:rank], pads[rank:], strict=True), 2):
        if before < 0 or after < 0:
            size = spatial(op, x)[axis - 2]
            x = interval(op, x, axis, max(-before, 0), size - max(-after, 0))
    pads = [max(pad, 0) for pad in pads]
    filler = op.const(np.asarray(value, x.dtype.numpy()))
    return op.Pad(x, [0, 0, *pads[:rank], 0, 0, *pads[rank:]], filler) if any(pads) else x


def spatial(op: Builder, x: ir.Value) -> list[int]:
    """The sizes behind batch and channel, all numbers; rejects the node otherwise."""
    _, (_, _, *sizes) = op.of(x)
    if not all(isinstance(size, int) for size in sizes):
        op.reject(f"the spatial sizes {sizes} of {x.name} are not known")
    return sizes  # type: ignore[return-value]


def flat_weight(op: Builder, w: ir.Value, axis: int) -> ir.Value:
    """A weight with an extra axis of size one."""
    if w.const_value is None:
        return op.Unsqueeze(w, [axis])
    sizes = list(op.static(w))
    sizes.insert(axis, 1)
    return op.const(lazily(lambda a: a.reshape(sizes), w.const_value, dims=sizes), name=w.name)


@windows("Conv")
def conv(op, x, w, b=None, *, kernel_shape=None, auto_pad="NOTSET", pads=None, strides=None, dilations=None, group=1):
    rank, (_, _, *sizes) = op.of(x)
    n = rank - 2
    kernel = list(op.static(w)[2:])
    strides, dilations = list(strides or [1] * n), list(dilations or [1] * n)
    if n == 1:
        y = op.Conv(
            op.Unsqueeze(x, [2]),
            flat_weight(op, w, 2),
            b,
            auto_pad=auto_pad,
            pads=pads and [0, pads[0], 0, pads[1]],
            strides=[1, *strides],
            dilations=[1, *dilations],
            group=group,
        )
        return op.Squeeze(y, [2])
    if n > 3:
        op.reject(f"a convolution over {n} axes")
    if n == 3 and group > 1:
        return grouped(op, x, w, b, group, lambda xi, wi, bi: op.Conv(xi, wi, bi, auto_pad=auto_pad, pads=pads, strides=strides, dilations=dilations))
    keyword, explicit = resolve_pads(op, sizes, kernel, strides, dilations, pads, auto_pad)
    if keyword == "VALID" and n == 2 and frames(op, x, w, strides, dilations, group):
        return framed(op, padded(op, x, explicit), w, b, strides[1])
    if not any(explicit) and auto_pad == keyword and pads is None:
        return NotImplemented
    return op.Conv(padded(op, x, explicit), w, b, auto_pad=keyword, strides=strides, dilations=dilations, group=group)


SHORTEST_FRAME = 4


def frames(op: Builder, x: ir.Value, w: ir.Value, strides: list[int], dilations: list[int], group: int) -> bool:
    """Whether a convolution reads one channel in steps along the last axis, each of which divides its window, as spectra of sound do."""
    (_, channels, _, length), (_, _, height, width) = op.of(x)[1], op.static(w)
    steps = height == strides[0] == 1 and strides[1] >= SHORTEST_FRAME and width % strides[1] == 0 and all(d == 1 for d in dilations)
    return steps and channels == 1 and group == 1 and isinstance(length, int) and w.const_value is not None and x.dtype == ir.DataType.FLOAT


def framed(op: Builder, x: ir.Value, w: ir.Value, b: ir.Value | None, step: int) -> ir.Value:
    """A step is a pixel whose channels are its samples: the same numbers in memory, and kernels like many channels better than long windows."""
    outputs, _, _, width = op.static(w)
    length: int = op.of(x)[1][3]  # type: ignore[assignment]
    used = (length - width) // step * step + width
    x = interval(op, x, 3, 0, used) if used < length else x
    pixels = op.Transpose(op.Reshape(x, [0, -1, used // step, step]), perm=[0, 3, 1, 2])
    dims = [outputs, step, 1, width // step]
    weight = op.const(lazily(lambda a: a.reshape(outputs, 1, width // step, step).transpose(0, 3, 1, 2), w.const_value, dims=dims), name=w.name)
    return op.Conv(pixels, weight, b, auto_pad="VALID", strides=[1, 1])


def grouped(op: Builder, x: ir.Value, w: ir.Value, b: ir.Value | None, group: int, convolve: Any, *, weight_axis: int = 0) -> ir.Value:
    """One convolution a group, joined along the channels."""
    sizes: Any = op.of(x)[1]
    kernel: Any = w.shape
    channels, outputs = sizes[1] // group, kernel[weight_axis] // group
    parts = []
    for i in range(group):
        bias = None if b is None else interval(op, b, 0, i * len_of(b) // group, (i + 1) * len_of(b) // group)
        parts.append(convolve(interval(op, x, 1, i * channels, (i + 1) * channels), interval(op, w, weight_axis, i * outputs, (i + 1) * outputs), bias))
    return op.Concat(*parts, axis=1)


def len_of(vector: ir.Value) -> int:
    sizes: Any = vector.shape
    return int(sizes[0])


@windows("ConvTranspose")
def conv_transpose(
    op, x, w, b=None, *, kernel_shape=None, auto_pad="NOTSET", pads=None, strides=None, dilations=None, group=1, output_padding=None, output_shape=None
):
    """The full result of a VALID transposed convolution, cut by the pads and extended by the output padding; SAME where that is the same."""
    rank, (_, _, *sizes) = op.of(x)
    n = rank - 2
    strides, dilations, output_padding = list(strides or [1] * n), list(dilations or [1] * n), list(output_padding or [0] * n)
    if n == 1:
        y = op.ConvTranspose(
            op.Unsqueeze(x, [2]),
            flat_weight(op, w, 2),
            b,
            auto_pad=auto_pad,
            pads=pads and [0, pads[0], 0, pads[1]],
            strides=[1, *strides],
            dilations=[1, *dilations],
            group=group,
            output_padding=[0, *output_padding],
            output_shape=output_shape and [1, *output_shape],
        )
        return op.Squeeze(y, [2])
    if group > 1:
        return grouped(
            op,
            x,
            w,
            b,
            group,
            weight_axis=0,
            convolve=lambda xi, wi, bi: op.ConvTranspose(
                xi, wi, bi, auto_pad=auto_pad, pads=pads, strides=strides, dilations=dilations, output_padding=output_padding, output_shape=output_shape
            ),
        )
    if any(d != 1 for d in dilations):
        w = dilated(op, w, dilations)
    kernel = list(op.static(w)[2:])
    if n == 2 and kernel == strides == [kernel[0]] * 2 and not any(pads or ()) and not any(output_padding) and auto_pad != "SAME_LOWER" and not output_shape:
        blocks = as_blocks(op, x, w, b, kernel[0])
        if blocks is not None:
            return blocks
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


def as_blocks(op: Builder, x: ir.Value, w: ir.Value, b: ir.Value | None, size: int) -> ir.Value | None:
    """A transposed convolution whose windows do not overlap: each pixel makes a block, which is a 1x1 convolution and a move of depth to space."""
    bias = None if b is None else constant(b)
    if w.const_value is None or (b is not None and bias is None) or x.dtype != ir.DataType.FLOAT:
        return None
    inputs, outputs = op.static(w)[:2]
    dims = [size * size * outputs, inputs, 1, 1]
    weight = op.const(lazily(lambda a: a.transpose(2, 3, 1, 0).reshape(dims), w.const_value, dims=dims), name=w.name)
    y = op.Conv(x, weight, None if bias is None else op.const(np.tile(bias, size * size)), kernel_shape=[1, 1], strides=[1, 1])
    return op.DepthToSpace(y, blocksize=size, mode="DCR")


def dilated(op: Builder, w: ir.Value, dilations: list[int]) -> ir.Value:
    """A constant weight with zeros between its elements."""
    array = constant(w)
    if array is None:
        op.reject("dilated weights must be constant")
    wide = np.zeros((*array.shape[:2], *((k - 1) * d + 1 for k, d in zip(array.shape[2:], dilations, strict=True))), array.dtype)
    wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = array
    return op.const(wide)


def _transposed_pads(
    op: Builder, full: list, sizes: list, kernel: list[int], strides: list[int], pads: Any, auto_pad: str, extra: list[int], shape: Any
) -> list[int]:
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


def _pool_pads(
    op: Builder, sizes: list, kernel: list[int], strides: list[int], dilations: list[int], pads: Any, auto_pad: str, ceil: int
) -> tuple[str, list[int], list[int]]:
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


@windows("MaxPool")
def max_pool(op, x, *, kernel_shape, auto_pad="NOTSET", pads=None, strides=None, dilations=None, ceil_mode=0, storage_order=0):
    rank, (_, _, *sizes) = op.of(x)
    n = rank - 2
    strides, dilations = list(strides or [1] * n), list(dilations or [1] * n)
    indices = len(op.outputs) > 1 and (op.outputs[1].uses() or op.outputs[1].is_graph_output())
    keyword, explicit, extra = _pool_pads(op, sizes, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    plain = n == 2 and not indices and dilations == [1, 1]
    if plain and auto_pad == keyword and pads is None and not ceil_mode:
        return NotImplemented
    ends = [*explicit[:n], *(end + more for end, more in zip(explicit[n:], extra, strict=True))]
    if plain:
        return op.MaxPool(padded(op, x, ends, _lowest(x.dtype)), kernel_shape=kernel_shape, auto_pad=keyword, strides=strides)
    if n == 1 and not indices:
        y = op.MaxPool(
            op.Unsqueeze(x, [2]),
            kernel_shape=[1, *kernel_shape],
            auto_pad=auto_pad,
            pads=pads and [0, pads[0], 0, pads[1]],
            strides=[1, *strides],
            dilations=[1, *dilations],
            ceil_mode=ceil_mode,
        )
        return op.Squeeze(y, [2])
    if keyword == "SAME_UPPER":
        pairs = [same_pads(*axis) for axis in zip(spatial(op, x), kernel_shape, strides, dilations, strict=True)]
        ends = [before for before, _ in pairs] + [after for _, after in pairs]
    return _shifted_maximum(op, x, kernel_shape, strides, dilations, ends, storage_order if indices else None)


def _shifted_maximum(op: Builder, x: ir.Value, kernel: list[int], strides: list[int], dilations: list[int], ends: list[int], storage_order: int | None) -> Any:
    """The greatest of one strided slice a kernel position; with `storage_order`, also the flat position in the unpadded input."""
    sizes = spatial(op, x)
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
            window: Any = (..., *(slice(a, b, s) for a, b, s in zip(starts, stops, strides, strict=True)))
            index = op.const(positions[window])
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


@windows("AveragePool")
def average_pool(op, x, *, kernel_shape, auto_pad="NOTSET", pads=None, strides=None, dilations=None, ceil_mode=0, count_include_pad=0):
    """The kernel's own SAME counts what lies inside. Other paddings: the mean over zeros, times a constant that corrects the count."""
    rank, (_, _, *sizes) = op.of(x)
    n = rank - 2
    strides, dilations = list(strides or [1] * n), list(dilations or [1] * n)
    if n == 1:
        y = op.AveragePool(
            op.Unsqueeze(x, [2]),
            kernel_shape=[1, *kernel_shape],
            auto_pad=auto_pad,
            pads=pads and [0, pads[0], 0, pads[1]],
            strides=[1, *strides],
            dilations=[1, *dilations],
            ceil_mode=ceil_mode,
            count_include_pad=count_include_pad,
        )
        return op.Squeeze(y, [2])
    keyword, explicit, extra = _pool_pads(op, sizes, kernel_shape, strides, dilations, pads, auto_pad, ceil_mode)
    plain = n == 2 and dilations == [1, 1]
    if plain and auto_pad == keyword and pads is None and not ceil_mode and not (count_include_pad and keyword == "SAME_UPPER"):
        return NotImplemented
    if plain and not any(extra) and ((keyword == "SAME_UPPER" and not count_include_pad) or (not any(explicit) and keyword == "VALID")):
        return op.AveragePool(x, kernel_shape=kernel_shape, auto_pad=keyword, strides=strides)
    real = spatial(op, x) if keyword == "SAME_UPPER" or any(extra) or not count_include_pad or not plain else None
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
    sizes, total = spatial(op, source), None
    n = len(kernel)
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
        line = np.array([inside[start : start + (k - 1) * d + 1 : d].sum() for start in starts])
        counts = counts * line.reshape([-1 if axis == i + 2 else 1 for axis in range(n + 2)])
    return np.maximum(counts, 1)


@windows("LpPool")
def lp_pool(op, x, *, kernel_shape, p=2, **window):
    """(sum |x|^p)^(1/p) as an average that counts the padding."""
    powered = op.Mul(x, x) if p == 2 else op.Abs(x) if p == 1 else op.Pow(op.Abs(x), float(p))
    mean = op.AveragePool(powered, kernel_shape=kernel_shape, count_include_pad=1, **window)
    if window.get("ceil_mode"):
        op.reject("ceil_mode of LpPool divides by a count that the average does not know")
    total = op.Mul(mean, float(math.prod(kernel_shape)))
    return op.Sqrt(total) if p == 2 else total if p == 1 else op.Pow(total, 1.0 / p)


@windows("GlobalAveragePool")
def global_average_pool(op, x):
    return op.ReduceMean(x, list(range(2, op.of(x)[0])), keepdims=1)


@windows("GlobalMaxPool")
def global_max_pool(op, x):
    return op.ReduceMax(x, list(range(2, op.of(x)[0])), keepdims=1)


@windows("GlobalLpPool")
def global_lp_pool(op, x, *, p=2):
    return op.Pow(op.ReduceSum(op.Pow(op.Abs(x), float(p)), list(range(2, op.of(x)[0])), keepdims=1), 1.0 / p)

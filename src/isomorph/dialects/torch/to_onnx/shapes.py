"""aten -> ONNX: shapes, parts and orders."""
from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant
from isomorph.dialects.torch.to_onnx.common import BOOL, END, INT64, as_type, axes_of, axis_of, cast, listed, number, promoted, rank, shaped, to_onnx, vector


@to_onnx("view", "reshape", "_unsafe_view", "_reshape_alias", "view_copy")
def view(op, x, size, *rest):
    """At most one size is not known: it becomes -1, so that the others stay known."""
    named = list(size)
    open_sizes = [place for place, item in enumerate(size) if not isinstance(item, int)]
    if len(open_sizes) == 1 and -1 not in [item for item in size if isinstance(item, int)]:
        size = [-1 if place == open_sizes[0] else item for place, item in enumerate(size)]
    return shaped(op.Reshape(x, vector(op, size), allowzero=1 if 0 in [item for item in size if isinstance(item, int)] else None), named)


@to_onnx("view_as", "reshape_as")
def view_as(op, x, other):
    return op.Reshape(x, op.Shape(other))


@to_onnx("flatten")
def flatten(op, x, start_dim=0, end_dim=-1):
    count, sizes = op.of(x)
    if not count:
        return op.Reshape(x, [1])
    first, last = axis_of(op, x, start_dim), axis_of(op, x, end_dim)
    joined = sizes[first:last + 1]
    size = math.prod(joined) if all(isinstance(item, int) for item in joined) else -1
    if size == -1 and any(not isinstance(item, int) for item in sizes[:first]):
        sizes = [0] * first + sizes[first:]
    kept = [item if isinstance(item, int) else None for item in (*sizes[:first], size, *sizes[last + 1:])]
    if None in kept or kept.count(-1) > 1:
        parts = ([op.Shape(x, start=0, end=first)] if first else []) + [op.const([-1])] + ([op.Shape(x, start=last + 1)] if last + 1 < count else [])
        return op.Reshape(x, op.Concat(*parts, axis=0) if len(parts) > 1 else parts[0])
    return op.Reshape(x, kept)


@to_onnx("unflatten")
def unflatten(op, x, dim, sizes):
    axis = axis_of(op, x, dim)
    parts = [*([op.Shape(x, start=0, end=axis)] if axis else []), vector(op, sizes), *([op.Shape(x, start=axis + 1)] if axis + 1 < rank(op, x) else [])]
    given = op.of(x)[1]
    return shaped(op.Reshape(x, op.Concat(*parts, axis=0) if len(parts) > 1 else parts[0]), [*given[:axis], *sizes, *given[axis + 1:]])


@to_onnx("squeeze")
def squeeze(op, x, dim=None):
    count, sizes = op.of(x)
    if dim is None:
        wanted = [axis for axis, size in enumerate(op.static(x)) if size == 1]
    else:
        wanted = [axis for axis in (axes_of(op, x, dim) if dim != [] and count else []) if (count and sizes[axis] == 1) or not isinstance(sizes[axis], int)]
        if any(not isinstance(sizes[axis], int) for axis in wanted):
            op.lose("torch.assumed", f"axis {wanted} is squeezed as if it were 1, which the file does not say")
    return op.Squeeze(x, op.const(wanted)) if wanted else x


@to_onnx("unsqueeze")
def unsqueeze(op, x, dim):
    return op.Unsqueeze(x, op.const([dim]))


@to_onnx("transpose", "swapaxes", "swapdims", "transpose_copy")
def transpose(op, x, dim0, dim1):
    perm = list(range(rank(op, x)))
    if not perm:
        return x
    a, b = axis_of(op, x, dim0), axis_of(op, x, dim1)
    perm[a], perm[b] = perm[b], perm[a]
    return op.Transpose(x, perm=perm)


@to_onnx("t", "numpy_T")
def t(op, x):
    return op.Transpose(x, perm=list(range(rank(op, x)))[::-1])


@to_onnx("permute")
def permute(op, x, dims):
    return op.Transpose(x, perm=axes_of(op, x, dims))


@to_onnx("movedim")
def movedim(op, x, source, destination):
    sources, targets = axes_of(op, x, source), axes_of(op, x, destination)
    rest = [axis for axis in range(rank(op, x)) if axis not in sources]
    for target, axis in sorted(zip(targets, sources, strict=True)):
        rest.insert(target, axis)
    return op.Transpose(x, perm=rest)


@to_onnx("expand", "broadcast_to")
def expand(op, x, size, *rest, **more):
    return op.Expand(x, vector(op, [1 if isinstance(item, int) and item == -1 else item for item in size]))


@to_onnx("expand_as")
def expand_as(op, x, other):
    return op.Expand(x, op.Shape(other))


@to_onnx("repeat")
def repeat(op, x, repeats):
    missing = len(repeats) - rank(op, x)
    if missing:
        x = op.Unsqueeze(x, op.const(list(range(missing))))
    return op.Tile(x, vector(op, repeats))


@to_onnx("repeat_interleave")
def repeat_interleave(op, x, repeats, dim=None, output_size=None):
    if not isinstance(repeats, int) or dim is None:
        op.reject("repeat_interleave by other than one number along an axis")
    axis = axis_of(op, x, dim)
    wide = op.Unsqueeze(x, op.const([axis + 1]))
    tiled = op.Tile(wide, [repeats if place == axis + 1 else 1 for place in range(rank(op, x) + 1)])
    parts = [*([op.Shape(x, start=0, end=axis)] if axis else []), op.const([-1]), *([op.Shape(x, start=axis + 1)] if axis + 1 < rank(op, x) else [])]
    return op.Reshape(tiled, op.Concat(*parts, axis=0) if len(parts) > 1 else parts[0])


@to_onnx("cat", "concat", "concatenate")
def cat(op, tensors, dim=0):
    kept = [x for x in tensors if not (x.shape is not None and list(x.shape) == [0])] or tensors[:1]
    return op.Concat(*promoted(op, *kept), axis=axis_of(op, kept[0], dim)) if len(kept) > 1 else kept[0]


@to_onnx("stack")
def stack(op, tensors, dim=0):
    axis = dim % (rank(op, tensors[0]) + 1)
    return op.Concat(*(op.Unsqueeze(x, op.const([axis])) for x in promoted(op, *tensors)), axis=axis)


def sections(op: Any, x: Any, sizes: list[int], axis: int) -> list[Any]:
    if len(sizes) == 1:
        return [x]
    return list(op.Split(x, op.const(sizes), axis=axis, _outputs=len(sizes)))


def length(op: Any, x: Any, axis: int) -> int:
    size = op.of(x)[1][axis]
    return size if isinstance(size, int) else op.reject(f"the size of axis {axis} must be known")


@to_onnx("split", "split_with_sizes", "unsafe_split")
def split(op, x, size, dim=0):
    axis = axis_of(op, x, dim)
    if isinstance(size, int):
        total = length(op, x, axis)
        size = [min(size, total - start) for start in range(0, total, size)] or [0]
    return sections(op, x, list(size), axis)


@to_onnx("tensor_split")
def tensor_split(op, x, count, dim=0):
    """Into a number of parts, or between places, which may be a constant tensor."""
    axis = axis_of(op, x, dim)
    if isinstance(count, ir.Value):
        array = constant(count)
        if array is None:
            op.reject("places that are known only at run time")
        count = array.tolist()
    if isinstance(count, list) and not isinstance(op.of(x)[1][axis], int) and all(place >= 0 for place in count) and sorted(count) == count:
        return [slice_(op, x, axis, low, high) for low, high in itertools.pairwise([0, *count, None])]
    total = length(op, x, axis)
    if isinstance(count, list):
        bounds = [0, *(slice(place).indices(total)[1] for place in count), total]
        return [slice_(op, x, axis, low, max(high, low)) for low, high in itertools.pairwise(bounds)]
    return sections(op, x, [total // count + (place < total % count) for place in range(count)], axis)


@to_onnx("chunk", "unsafe_chunk")
def chunk(op, x, chunks, dim=0):
    axis = axis_of(op, x, dim)
    return split(op, x, -(-length(op, x, axis) // chunks), axis)


@to_onnx("unbind")
def unbind(op, x, dim=0):
    axis = axis_of(op, x, dim)
    return [select(op, x, axis, place) for place in range(length(op, x, axis))]


@to_onnx("select")
def select(op, x, dim, index):
    index = op.const(np.asarray(index, np.int64)) if isinstance(index, int) else op.Reshape(index, op.const(np.zeros(0, np.int64)))
    return op.Gather(x, index, axis=axis_of(op, x, dim))


@to_onnx("slice")
def slice_(op, x, dim=0, start=None, end=None, step=1):
    start, end = 0 if start is None else start, END if end is None else end
    if isinstance(start, int) and start == 0 and isinstance(end, int) and end == END and step == 1:
        return x
    return op.Slice(x, number(op, start), number(op, end), op.const([axis_of(op, x, dim)]), number(op, step))


@to_onnx("narrow")
def narrow(op, x, dim, start, length):
    end = start + length if isinstance(start, int) and isinstance(length, int) else op.Add(number(op, start), number(op, length))
    return slice_(op, x, dim, start, end)


@to_onnx("index_select")
def index_select(op, x, dim, index):
    if not rank(op, x):
        return op.Identity(x)
    return op.Gather(x, index, axis=axis_of(op, x, dim))


@to_onnx("gather")
def gather(op, x, dim, index, sparse_grad=False, **more):
    """A number counts as a vector of one, on either side."""
    rows, places = (value if rank(op, value) else op.Reshape(value, [1]) for value in (x, index))
    found = op.GatherElements(rows, places, axis=axis_of(op, x, dim))
    return found if rank(op, index) else op.Reshape(found, op.const(np.zeros(0, np.int64)))


@to_onnx("index")
def index_(op, x, indices):
    """x[..., i, j]: one index is a Gather, several that stand together a GatherND over broadcast indices; masks are left to NonZero."""
    places = [axis for axis, index in enumerate(indices) if index is not None]
    if any(indices[axis].dtype == BOOL for axis in places):
        if len(places) == 1 and places[0] == 0:
            return op.GatherND(x, op.Transpose(op.NonZero(indices[0]), perm=[1, 0]))
        op.reject("indexing by a mask beside other indices")
    if len(places) == 1:
        return op.Gather(x, cast(op, indices[places[0]], INT64), axis=places[0])
    together = places == list(range(places[0], places[0] + len(places)))
    count = rank(op, x)
    first = places[0]
    if first or not together:
        x = op.Transpose(x, perm=[*places, *(axis for axis in range(count) if axis not in places)])
    chosen = [cast(op, indices[axis], INT64) for axis in places]
    total = chosen[0]
    for other in chosen[1:]:
        total = op.Add(total, op.Mul(other, 0))
    shape = op.Shape(total)
    joined = op.Concat(*(op.Unsqueeze(op.Expand(index, shape), op.const([-1])) for index in chosen), axis=-1)
    result = op.GatherND(x, joined)
    if not first or not together:                  # with an axis between them, what they choose comes first
        return result
    width = rank(op, total)
    return op.Transpose(result, perm=[*range(width, width + first), *range(width), *range(width + first, rank(op, result))])


@to_onnx("roll")
def roll(op, x, shifts, dims=()):
    if dims in ((), []):
        return op.Reshape(roll(op, op.Reshape(x, [-1]), shifts, [0]), op.Shape(x))
    for shift, dim in zip(listed(shifts, 1), listed(dims, 1), strict=True):
        axis = axis_of(op, x, dim)
        x = op.Concat(slice_(op, x, axis, -shift), slice_(op, x, axis, 0, -shift), axis=axis) if shift else x
    return x


@to_onnx("flip")
def flip(op, x, dims):
    axes = axes_of(op, x, dims) if dims != [] else []
    if not axes:
        return x
    return op.Slice(x, [-1] * len(axes), [-END] * len(axes), axes, [-1] * len(axes))


@to_onnx("tril", "triu")
def tril(op, x, diagonal=0):
    return op.Trilu(x, np.asarray(diagonal, np.int64), upper=int(op.node.op_type == "triu"))


@to_onnx("pad", "constant_pad_nd")
def pad(op, x, pad, mode="constant", value=0):
    if isinstance(mode, (int, float)) and not isinstance(mode, bool):
        mode, value = "constant", mode
    return padded(op, x, pad, {"constant": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}[mode], value)


def padded(op: Any, x: Any, pad: Sequence[Any], mode: str, value: Any = 0) -> Any:
    """PyTorch lists (begin, end) from the last axis on."""
    axes = [rank(op, x) - 1 - place for place in range(len(pad) // 2)]
    amounts = [*pad[0::2], *pad[1::2]]
    shape = op.of(x)[1]
    known = all(isinstance(amount, int) for amount in amounts) and all(isinstance(shape[axis], int) for axis in axes)
    if mode == "edge" and known and min(amounts) < 0:                  # the edge is that of the whole axis, also where everything is cut off
        for axis, before, behind in zip(axes, amounts, amounts[len(axes):], strict=False):
            places = np.clip(np.arange(shape[axis] + before + behind) - before, 0, shape[axis] - 1)
            x = op.Gather(x, op.const(places), axis=axis)
        return x
    if mode != "constant" and any(isinstance(amount, int) and amount < 0 for amount in amounts):         # cut off first: ONNX only takes that away from zeros
        cut = [min(amount, 0) if isinstance(amount, int) else 0 for amount in amounts]
        x = op.Pad(x, vector(op, cut), None, op.const(axes), mode="constant")
        amounts = [max(amount, 0) if isinstance(amount, int) else amount for amount in amounts]
    constant_value = as_type(op, x.dtype, value or 0)[0] if mode == "constant" else None
    return op.Pad(x, vector(op, amounts), constant_value, op.const(axes), mode=mode)


for _count in (1, 2, 3):
    def _reflect(op, x, pad):
        return padded(op, x, pad, "reflect")

    def _replicate(op, x, pad):
        return padded(op, x, pad, "edge")
    to_onnx(f"reflection_pad{_count}d")(_reflect)
    to_onnx(f"replication_pad{_count}d")(_replicate)


@to_onnx("pixel_shuffle")
def pixel_shuffle(op, x, factor):
    return op.DepthToSpace(x, blocksize=factor, mode="CRD")


@to_onnx("upsample_nearest1d", "upsample_nearest2d", "upsample_nearest3d")
def upsample_nearest(op, x, size=None, *scales):
    return resized(op, x, size, [s for scale in scales for s in listed(scale, 1) if scale is not None], mode="nearest", nearest_mode="floor",
                   coordinate_transformation_mode="asymmetric")


@to_onnx("_upsample_nearest_exact1d", "_upsample_nearest_exact2d", "_upsample_nearest_exact3d")
def upsample_nearest_exact(op, x, size=None, *scales):
    return resized(op, x, size, [s for scale in scales for s in listed(scale, 1) if scale is not None], mode="nearest", nearest_mode="round_prefer_ceil",
                   coordinate_transformation_mode="half_pixel")


@to_onnx("upsample_bilinear2d", "upsample_linear1d", "upsample_trilinear3d", "upsample_bicubic2d")
def upsample_linear(op, x, size, align_corners, *scales):
    more = {"cubic_coeff_a": -0.75} if "bicubic" in op.node.op_type else {}
    return resized(op, x, size, [s for scale in scales for s in listed(scale, 1) if scale is not None], mode="cubic" if more else "linear",
                   coordinate_transformation_mode="align_corners" if align_corners else "pytorch_half_pixel", **more)


def resized(op: Any, x: Any, size: Any, scales: list[float], **attributes: Any) -> Any:
    if size is not None:
        target = op.Concat(op.Shape(x, start=0, end=2), vector(op, size), axis=0)
        return op.Resize(x, None, None, target, **attributes)
    scales = listed(scales, rank(op, x) - 2)
    return op.Resize(x, None, op.const(np.asarray([1, 1, *scales], np.float32)), **attributes)

"""aten operators that are a few other aten operators: what PyTorch itself defines them by. `a.mul(x, y)` in a rule is the rule of aten::mul."""
from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.to_onnx import BOOL, INT64, SCALAR_TYPES, axes_of, axis_of, cast, floating, is_float, rank, result_type, to_onnx

LARGE = {ir.DataType.FLOAT: 3.4028234663852886e38, ir.DataType.DOUBLE: 1.7976931348623157e308, ir.DataType.FLOAT16: 65504.0}


class Aten:
    """Calls of other rules from inside one."""

    def __init__(self, op: Any):
        self.op = op

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return lambda *args, **keywords: self.op.context.call(name, list(args), keywords)


def composed(*names: str) -> Callable[[Callable], Callable]:
    """Registers a rule whose first parameter calls aten."""
    def register(function: Callable) -> Callable:
        def rule(op, *args, **keywords):
            return function(Aten(op), *args, **keywords)
        to_onnx(*names)(rule)
        return function
    return register


def like(x: ir.Value) -> int:
    """The number of an element type, as calls take it."""
    return SCALAR_TYPES.index(x.dtype)


def sizes(a: Aten, x: ir.Value) -> list[int]:
    """All sizes as numbers. Rejects the call where one is open."""
    return a.op.static(x)


# Copies that are no views, and names of the same thing
for _name in ("alias", "expand", "permute", "squeeze", "t", "unbind", "unfold", "unsqueeze", "view", "narrow", "split_with_sizes", "split", "select", "slice",
              "transpose", "diagonal", "as_strided", "detach"):
    composed(f"{_name}_copy")(lambda a, *args, _name=_name, **more: getattr(a, _name)(*args, **more))
for _other, _name in {"special_expit": "sigmoid", "special_expm1": "expm1", "special_log1p": "log1p", "special_exp2": "exp2", "special_erf": "erf",
                      "special_softmax": "softmax", "special_log_softmax": "log_softmax", "special_round": "round", "special_sinc": "sinc",
                      "special_xlogy": "xlogy", "special_logit": "logit", "special_erfc": "erfc", "special_logsumexp": "logsumexp",
                      "linalg_diagonal": "diagonal", "linalg_vecdot": "vecdot", "negative": "neg", "absolute": "abs", "conj": "alias", "real": "alias",
                      "conj_physical": "alias", "sgn": "sign", "greater": "gt", "greater_equal": "ge", "less": "lt", "less_equal": "le", "not_equal": "ne",
                      "arccos": "acos", "arcsin": "asin", "arctan": "atan", "arctan2": "atan2", "arccosh": "acosh", "arcsinh": "asinh", "arctanh": "atanh",
                      "tile": "repeat_tiled", "row_stack": "vstack", "swapaxes": "transpose", "swapdims": "transpose", "moveaxis": "movedim",
                      "ger": "outer", "linalg_matmul": "matmul", "linalg_multi_dot": "chain_matmul", "concatenate": "cat",
                      "_unsafe_index": "index", "_unsafe_masked_index": "masked_index"}.items():
    composed(_other)(lambda a, *args, _name=_name, **more: getattr(a, _name)(*args, **more))

NUMBERS = {
    "deg2rad": lambda a, x: a.mul(floating(a.op, x), math.pi / 180), "rad2deg": lambda a, x: a.mul(floating(a.op, x), 180 / math.pi),
    "erfc": lambda a, x: a.rsub(a.erf(x), 1), "isfinite": lambda a, x: a.logical_not(a.logical_or(a.isnan(x), a.isinf(x))),
    "isreal": lambda a, x: a.ones_like(x, dtype=11), "isposinf": lambda a, x: a.eq(floating(a.op, x), math.inf),
    "isneginf": lambda a, x: a.eq(floating(a.op, x), -math.inf),
    "sinc": lambda a, x: a.where(a.eq(x, 0), 1.0, a.div(a.sin(a.mul(floating(a.op, x), math.pi)), a.mul(floating(a.op, x), math.pi))),
    "special_entr": lambda a, x: a.where(a.lt(x, 0), -math.inf, a.where(a.eq(x, 0), 0.0, a.neg(a.mul(floating(a.op, x), a.log(x))))),
    "special_ndtr": lambda a, x: a.mul(a.add(a.erf(a.mul(floating(a.op, x), math.sqrt(0.5))), 1), 0.5),
    "angle": lambda a, x: a.where(a.isnan(x), floating(a.op, x), a.where(a.lt(floating(a.op, x), 0), math.pi, 0.0)),
    "mT": lambda a, x: a.transpose(x, -2, -1), "mH": lambda a, x: a.transpose(x, -2, -1), "adjoint": lambda a, x: a.transpose(x, -2, -1),
    "matrix_H": lambda a, x: a.transpose(x, 0, 1), "T": lambda a, x: a.permute(x, list(reversed(range(rank(a.op, x))))),
    "ravel": lambda a, x: a.reshape(x, [-1]), "fliplr": lambda a, x: a.flip(x, [1]), "flipud": lambda a, x: a.flip(x, [0]),
    "argwhere": lambda a, x: a.nonzero(x), "msort": lambda a, x: a.sort(x, 0, False)[0], "tanhshrink": lambda a, x: a.sub(x, a.tanh(x)),
    "softsign": lambda a, x: a.div(x, a.add(a.abs(x), 1)),
}
for _name, _rule in NUMBERS.items():
    composed(_name)(_rule)

PAIRS = {
    "xlogy": lambda a, x, y: a.where(a.eq(x, 0), a.where(a.isnan(y), math.nan, 0.0), a.mul(x, a.log(y))),
    "special_xlog1py": lambda a, x, y: a.where(a.eq(x, 0), a.where(a.isnan(y), math.nan, 0.0), a.mul(x, a.log1p(y))),
    "heaviside": lambda a, x, y: a.where(a.eq(x, 0), y, a.type_as(a.gt(x, 0), x)),
    "fmax": lambda a, x, y: a.where(a.isnan(y), x, a.where(a.isnan(x), y, a.maximum(x, y))),
    "fmin": lambda a, x, y: a.where(a.isnan(y), x, a.where(a.isnan(x), y, a.minimum(x, y))),
    "hypot": lambda a, x, y: a.sqrt(a.add(a.mul(x, x), a.mul(y, y))), "ldexp": lambda a, x, y: a.mul(x, a.pow(a.full_like(floating(a.op, y), 2.0), y)),
    "inner": lambda a, x, y: a.matmul(x, a.transpose(y, -2, -1)) if rank(a.op, y) > 1 else a.matmul(x, y) if rank(a.op, x) else a.mul(x, y),
    "logaddexp": lambda a, x, y: a.add(a.maximum(x, y), a.log1p(a.exp(a.neg(a.abs(a.sub(x, y)))))),
    "logaddexp2": lambda a, x, y: a.add(a.maximum(x, y), a.log2(a.add(a.exp2(a.neg(a.abs(a.sub(x, y)))), 1))),
    "vdot": lambda a, x, y: a.sum(a.mul(x, y)), "outer": lambda a, x, y: a.mul(a.unsqueeze(x, 1), y), "mv": lambda a, x, y: a.matmul(x, y),
    "float_power": lambda a, x, y: a.pow(a.to(x, 7) if isinstance(x, ir.Value) else x, a.to(y, 7) if isinstance(y, ir.Value) else y),
}
for _name, _pair in PAIRS.items():
    composed(_name)(_pair)

LOSSES = {0: lambda a, x: x, 1: lambda a, x: a.mean(x), 2: lambda a, x: a.sum(x)}


@composed("special_log_ndtr")
def log_ndtr(a, x):
    return a.log(a.special_ndtr(x))


@composed("logit")
def logit(a, x, eps=None):
    x = floating(a.op, x)
    x = a.clamp(x, eps, 1 - eps) if eps is not None else x
    return a.log(a.div(x, a.rsub(x, 1)))


@composed("copysign")
def copysign(a, x, y):
    size = a.abs(floating(a.op, x))
    return a.where(a.signbit(y) if isinstance(y, ir.Value) else y < 0, a.neg(size), size) if isinstance(y, ir.Value) else (a.neg(size) if y < 0 else size)


@composed("signbit")
def signbit(a, x):
    """Below zero, or a zero whose reciprocal is."""
    if x.dtype == BOOL:
        return a.zeros_like(x, dtype=11)
    return a.logical_or(a.lt(x, 0), a.lt(a.reciprocal(x), 0)) if is_float(x) else a.lt(x, 0)


@composed("nan_to_num")
def nan_to_num(a, x, nan=None, posinf=None, neginf=None):
    if not is_float(x):
        return x
    top = LARGE.get(x.dtype, 3.3895313892515355e38)
    y = a.where(a.isnan(x), float(nan or 0.0), x)
    y = a.where(a.eq(x, math.inf), float(top if posinf is None else posinf), y)
    return a.where(a.eq(x, -math.inf), float(-top if neginf is None else neginf), y)


@composed("isclose")
def isclose(a, x, y, rtol=1e-5, atol=1e-8, equal_nan=False):
    near = a.eq(x, y)
    if equal_nan and is_float(x):
        near = a.logical_or(near, a.logical_and(a.isnan(x), a.isnan(y)))
    if not rtol and not atol:
        return near
    p, q = floating(a.op, x), floating(a.op, y)
    within = a.le(a.abs(a.sub(p, q)), a.add(a.abs(a.mul(q, rtol)), atol))
    return a.logical_or(near, a.logical_and(within, a.isfinite(a.sub(p, q))))


@composed("nansum")
def nansum(a, x, dim=None, keepdim=False, dtype=None):
    return a.sum(a.where(a.isnan(x), 0.0, x) if is_float(x) else x, dim, keepdim, dtype)


@composed("nanmean")
def nanmean(a, x, dim=None, keepdim=False, dtype=None):
    count = a.sum(a.logical_not(a.isnan(x)), dim, keepdim)
    return a.div(a.nansum(x, dim, keepdim), count)


@composed("count_nonzero")
def count_nonzero(a, x, dim=None):
    return a.sum(a.ne(x, 0) if x.dtype != BOOL else x, dim)


@composed("aminmax")
def aminmax(a, x, dim=None, keepdim=False):
    return [a.amin(x, [] if dim is None else [dim], keepdim), a.amax(x, [] if dim is None else [dim], keepdim)]


@composed("sum_to_size")
def sum_to_size(a, x, size):
    extra = rank(a.op, x) - len(size)
    x = numeric(a, x)
    axes = [*range(extra), *(extra + axis for axis, want in enumerate(size) if want == 1 and a.op.of(x)[1][extra + axis] != 1)]
    return a.reshape(a.sum(x, axes, True), list(size)) if axes else x


@composed("cumulative_trapezoid", "trapezoid", "trapz")
def trapezoid(a, y, x=None, dim=-1, dx=1):
    if isinstance(x, (int, float)):
        x, dx = None, x
    axis, size = axis_of(a.op, y, dim), sizes(a, y)[axis_of(a.op, y, dim)]
    total = a.add(a.slice(y, axis, 1, size), a.slice(y, axis, 0, size - 1))
    if x is not None:
        step = a.diff(x, 1, -1)
        step = step if rank(a.op, step) > 1 or axis == rank(a.op, y) - 1 else a.reshape(step, [-1, *[1] * (rank(a.op, y) - 1 - axis)])
        total = a.mul(total, step if rank(a.op, x) == 1 else a.diff(x, 1, axis))
    else:
        total = a.mul(floating(a.op, total), dx)
    half = a.div(total, 2)
    return a.cumsum(half, axis) if a.op.node.op_type == "cumulative_trapezoid" else a.sum(half, [axis])


@composed("diff")
def diff(a, x, n=1, dim=-1, prepend=None, append=None):
    axis = axis_of(a.op, x, dim)
    parts = [part for part in (prepend, x, append) if part is not None]
    x = a.cat(parts, axis) if len(parts) > 1 else x
    for _ in range(n):
        size = sizes(a, x)[axis]
        after, before = a.slice(x, axis, 1, size), a.slice(x, axis, 0, size - 1)
        x = a.logical_xor(after, before) if x.dtype == BOOL else a.sub(after, before)
    return x


# ---- putting together and taking apart


def at_least(a: Aten, x: ir.Value, count: int) -> ir.Value:
    shape = list(range(rank(a.op, x)))
    if len(shape) >= count:
        return x
    if count == 3 and len(shape) == 2:
        return a.unsqueeze(x, 2)
    if count == 3 and len(shape) == 1:
        return a.unsqueeze(a.unsqueeze(x, 0), 2)
    return at_least(a, a.unsqueeze(x, 0), count)


for _count in (1, 2, 3):
    composed(f"atleast_{_count}d")(lambda a, x, _count=_count: [at_least(a, item, _count) for item in x] if isinstance(x, list) else at_least(a, x, _count))
composed("hstack")(lambda a, xs: a.cat([at_least(a, x, 1) for x in xs], 0 if max(rank(a.op, x) for x in xs) <= 1 else 1))
composed("vstack")(lambda a, xs: a.cat([at_least(a, x, 2) for x in xs], 0))
composed("dstack")(lambda a, xs: a.cat([at_least(a, x, 3) for x in xs], 2))
composed("column_stack")(lambda a, xs: a.cat([a.reshape(x, [-1, 1]) if rank(a.op, x) <= 1 else x for x in xs], 1))
composed("hsplit")(lambda a, x, parts: a.tensor_split(x, parts, 0 if rank(a.op, x) == 1 else 1))
composed("vsplit")(lambda a, x, parts: a.tensor_split(x, parts, 0))
composed("dsplit")(lambda a, x, parts: a.tensor_split(x, parts, 2))


@composed("_chunk_cat")
def chunk_cat(a, xs, dim, num_chunks):
    axis = axis_of(a.op, xs[0], dim)
    parts = []
    for x in xs:
        shape = sizes(a, x)
        width = -(-shape[axis] // num_chunks)
        x = a.constant_pad_nd(x, [0, 0] * (len(shape) - 1 - axis) + [0, width * num_chunks - shape[axis]], 0)
        parts.append(a.reshape(x, [*shape[:axis], num_chunks, -1]))
    return a.cat(parts, axis + 1)


@composed("block_diag")
def block_diag(a, xs):
    xs = [at_least(a, x, 2) for x in xs]
    dtype = result_type(*xs)
    width = sum(sizes(a, x)[1] for x in xs)
    rows, left = [], 0
    for x in xs:
        own = sizes(a, x)[1]
        rows.append(a.constant_pad_nd(cast(a.op, x, dtype), [left, width - left - own], 0))
        left += own
    return a.cat(rows, 0)


@composed("cartesian_prod")
def cartesian_prod(a, xs):
    if len(xs) == 1:
        return xs[0]
    counts = [sizes(a, x)[0] for x in xs]
    columns = [a.reshape(a.expand(a.reshape(x, [-1 if place == axis else 1 for place in range(len(xs))]), counts), [-1]) for axis, x in enumerate(xs)]
    return a.stack(columns, 1)


@composed("combinations")
def combinations(a, x, r=2, with_replacement=False):
    chosen = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    places = list(chosen(range(sizes(a, x)[0]), r))
    return a.index(x, [a.op.const(np.asarray(places, np.int64).reshape(len(places), r))])


@composed("repeat_tiled")
def repeat_tiled(a, x, dims):
    return a.repeat(x, [1] * (rank(a.op, x) - len(dims)) + list(dims))


@composed("rot90")
def rot90(a, x, k=1, dims=(0, 1)):
    k, (p, q) = k % 4, dims
    turned = {0: lambda: x, 1: lambda: a.transpose(a.flip(x, [q]), p, q), 2: lambda: a.flip(x, [p, q]), 3: lambda: a.flip(a.transpose(x, p, q), [q])}
    return turned[k]()


@composed("kron")
def kron(a, x, y):
    count = max(rank(a.op, x), rank(a.op, y))
    p, q = ([1] * (count - rank(a.op, v)) + sizes(a, v) for v in (x, y))
    left = a.reshape(x, [n for size in p for n in (size, 1)])
    right = a.reshape(y, [n for size in q for n in (1, size)])
    return a.reshape(a.mul(left, right), [m * n for m, n in zip(p, q, strict=True)])


@composed("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(a, x, groups):
    shape = sizes(a, x)
    return a.reshape(a.transpose(a.reshape(x, [shape[0], groups, shape[1] // groups, *shape[2:]]), 1, 2), shape)


@composed("pixel_unshuffle")
def pixel_unshuffle(a, x, factor):
    *batch, channels, height, width = sizes(a, x)
    split = a.reshape(x, [*batch, channels, height // factor, factor, width // factor, factor])
    n = len(batch)
    moved = a.permute(split, [*range(n), n, n + 2, n + 4, n + 1, n + 3])
    return a.reshape(moved, [*batch, channels * factor * factor, height // factor, width // factor])


# ---- diagonals and windows: gathers at positions that the shape decides


def at_positions(a: Aten, x: ir.Value, positions: np.ndarray) -> ir.Value:
    """Elements of the flat tensor, in the shape of `positions`."""
    return a.index(a.reshape(x, [-1]), [a.op.const(positions.astype(np.int64))])


def numbered(a: Aten, x: ir.Value) -> np.ndarray:
    """The places of the elements in the flat tensor, in its shape."""
    shape = sizes(a, x)
    return np.arange(math.prod(shape)).reshape(shape)


@composed("diagonal")
def diagonal(a, x, offset=0, dim1=0, dim2=1):
    return at_positions(a, x, np.diagonal(numbered(a, x), offset, dim1, dim2))


@composed("diag")
def diag(a, x, diagonal=0):
    return a.diag_embed(x, diagonal) if rank(a.op, x) == 1 else a.diagonal(x, diagonal)


@composed("diagflat")
def diagflat(a, x, offset=0):
    return a.diag_embed(a.reshape(x, [-1]), offset)


@composed("diag_embed")
def diag_embed(a, x, offset=0, dim1=-2, dim2=-1):
    """Zero is put behind the data, and everything outside of the diagonal reads it."""
    shape = sizes(a, x)
    size, count = shape[-1] + abs(offset), len(shape) + 1
    places = np.full((*shape[:-1], size, size), math.prod(shape))
    here = np.arange(shape[-1])
    places[..., here + max(-offset, 0), here + max(offset, 0)] = numbered(a, x)
    places = np.moveaxis(places, (-2, -1), (dim1 % count, dim2 % count))
    flat = a.cat([a.reshape(x, [-1]), a.zeros([1], dtype=like(x))], 0)
    return a.index(flat, [a.op.const(places.astype(np.int64))])


@composed("unfold")
def unfold(a, x, dimension, size, step):
    if not rank(a.op, x):
        return a.expand(a.reshape(x, [1]), [size])
    axis = axis_of(a.op, x, dimension)
    count = (sizes(a, x)[axis] - size) // step + 1
    places = numbered(a, x)
    windows = np.stack([np.take(places, range(start * step, start * step + size), axis) for start in range(count)], axis)
    return at_positions(a, x, np.moveaxis(windows, axis + 1, -1))


@composed("as_strided")
def as_strided(a, x, size, stride, storage_offset=None):
    places = np.full(list(size), storage_offset or 0)
    for axis, (length, step) in enumerate(zip(size, stride, strict=True)):
        places = places + (np.arange(length) * step).reshape([-1 if place == axis else 1 for place in range(len(size))])
    return at_positions(a, x, places)


@composed("take")
def take(a, x, index):
    return a.index(a.reshape(x, [-1]), [index])


@composed("take_along_dim")
def take_along_dim(a, x, indices, dim=None):
    if dim is None:
        return a.gather(a.reshape(x, [-1]), 0, a.reshape(indices, [-1]))
    axis = axis_of(a.op, x, dim)
    common = [max(p, q) for p, q in zip(sizes(a, x), sizes(a, indices), strict=True)]
    wide = [*common[:axis], sizes(a, x)[axis], *common[axis + 1:]], [*common[:axis], sizes(a, indices)[axis], *common[axis + 1:]]
    return a.gather(a.expand(x, wide[0]), axis, a.expand(indices, wide[1]))


@composed("fft_fftshift", "fft_ifftshift")
def fft_shift(a, x, dim=None):
    axes = axes_of(a.op, x, dim)
    back = a.op.node.op_type == "fft_ifftshift"
    return a.roll(x, [-(sizes(a, x)[axis] // 2) if back else sizes(a, x)[axis] // 2 for axis in axes], axes)


# ---- writing by position


@composed("select_scatter")
def select_scatter(a, x, src, dim, index):
    axis = axis_of(a.op, x, dim)
    return a.slice_scatter(x, a.unsqueeze(src, axis), axis, index, index + 1 if index != -1 else None)


@composed("slice_scatter")
def slice_scatter(a, x, src, dim=0, start=None, end=None, step=1):
    return written_at(a, x, _sliced(numbered(a, x), dim, start, end, step), src)


def _sliced(places: np.ndarray, dim: int, start: Any, end: Any, step: int) -> np.ndarray:
    return places[tuple(slice(start, end, step) if axis == dim % places.ndim else slice(None) for axis in range(places.ndim))]


@composed("diagonal_scatter")
def diagonal_scatter(a, x, src, offset=0, dim1=0, dim2=1):
    return written_at(a, x, np.diagonal(numbered(a, x), offset, dim1, dim2), src)


@composed("as_strided_scatter")
def as_strided_scatter(a, x, src, size, stride, storage_offset=None):
    places = np.full(list(size), storage_offset or 0)
    for axis, (length, step) in enumerate(zip(size, stride, strict=True)):
        places = places + (np.arange(length) * step).reshape([-1 if place == axis else 1 for place in range(len(size))])
    return written_at(a, x, places, src)


def written_at(a: Aten, x: ir.Value, places: np.ndarray, src: ir.Value) -> ir.Value:
    """The tensor with the elements at these places of the flat one replaced."""
    op = a.op
    src = a.expand(cast(op, src, x.dtype), list(places.shape)) if list(op.of(src)[1]) != list(places.shape) else cast(op, src, x.dtype)
    flat = op.ScatterND(a.reshape(x, [-1]), op.const(places.reshape(-1, 1).astype(np.int64)), a.reshape(src, [-1]))
    return a.reshape(flat, sizes(a, x))


REDUCTIONS = {"sum": "add", "prod": "mul", "amax": "max", "amin": "min", "add": "add", "multiply": "mul", "mean": "add"}


def numeric(a: Aten, x: ir.Value) -> ir.Value:
    """bool as integers, for reductions that no kernel has for bool."""
    return cast(a.op, x, INT64) if x.dtype == BOOL else x


@composed("scatter", "scatter_add")
def scatter(a, x, dim, index, src=None, value=None, reduce=None):
    src = value if src is None else src
    reduce = "add" if a.op.node.op_type == "scatter_add" else reduce
    return _scattered(a, x, dim, index, src, reduce)


def _scattered(a: Aten, x: ir.Value, dim: int, index: ir.Value, src: Any, reduce: str | None) -> ir.Value:
    op = a.op
    if not rank(op, x):
        return a.reshape(_scattered(a, a.reshape(x, [1]), 0, a.reshape(index, [1]), a.reshape(src, [1]) if isinstance(src, ir.Value) else src, reduce), [])
    if not isinstance(src, ir.Value):
        src = a.full_like(index, src, dtype=like(x))
    elif list(op.of(src)[1]) != list(op.of(index)[1]):
        src = a.reshape(src, [-1]) if not rank(op, src) else at_corner(a, src, sizes(a, index))
    data, updates = (numeric(a, x), numeric(a, src)) if reduce else (x, src)
    how = REDUCTIONS[reduce] if reduce else None
    y = op.ScatterElements(data, cast(op, index, INT64), cast(op, updates, data.dtype), axis=axis_of(op, x, dim), reduction=how)
    return cast(op, y, x.dtype)


def at_corner(a: Aten, x: ir.Value, shape: list[int]) -> ir.Value:
    """The part of a tensor from its first element that has this shape."""
    for axis, size in enumerate(shape):
        x = a.slice(x, axis, 0, size) if sizes(a, x)[axis] != size else x
    return x


@composed("scatter_reduce")
def scatter_reduce(a, x, dim, index, src, reduce, include_self=True):
    op = a.op
    flat = not rank(op, x)
    if flat:
        x, index, src = a.reshape(x, [1]), a.reshape(index, [1]), a.reshape(src, [1])
    start = x
    if not include_self:
        low, high = (-math.inf, math.inf) if is_float(x) else (0, 1) if x.dtype == BOOL else (np.iinfo(x.dtype.numpy()).min, np.iinfo(x.dtype.numpy()).max)
        neutral = {"sum": 0, "mean": 0, "prod": 1, "amax": low, "amin": high}[reduce]
        start = _scattered(a, x, dim, index, a.full_like(index, neutral, dtype=like(x)), None)
    y = _scattered(a, start, dim, index, src, reduce)
    if reduce == "mean":
        own = a.ones_like(x, dtype=4)
        ones = a.ones_like(index, dtype=4)
        counted = _scattered(a, own if include_self else _scattered(a, own, dim, index, a.zeros_like(index, dtype=4), None), dim, index, ones, "sum")
        y = cast(op, a.div(y, counted, rounding_mode=None if is_float(y) else "floor"), x.dtype)
    return a.reshape(y, []) if flat else y


def along(a: Aten, x: ir.Value, dim: int, index: ir.Value) -> ir.Value:
    """Positions along one axis in the shape of what is written there."""
    axis, shape = axis_of(a.op, x, dim), sizes(a, x)
    count = sizes(a, index)[0] if rank(a.op, index) else 1
    return a.expand(a.reshape(index, [-1 if place == axis else 1 for place in range(len(shape))]), [*shape[:axis], count, *shape[axis + 1:]])


def flat_first(function: Callable) -> Callable:
    """Tensors without axes count as those of one element."""
    def rule(a, x, dim, index, *rest, **more):
        if rank(a.op, x):
            return function(a, x, dim, index, *rest, **more)
        rest = tuple(a.reshape(item, [1]) if isinstance(item, ir.Value) else item for item in rest)
        return a.reshape(function(a, a.reshape(x, [1]), 0, index, *rest, **more), [])
    return rule


@composed("index_add")
@flat_first
def index_add(a, x, dim, index, source, alpha=1):
    source = source if rank(a.op, source) else a.reshape(source, [1])
    source = source if alpha == 1 else a.mul(source, alpha)
    return _scattered(a, x, dim, along(a, x, dim, index), cast(a.op, source, x.dtype), "sum")


@composed("index_copy")
@flat_first
def index_copy(a, x, dim, index, source):
    source = source if rank(a.op, source) else a.reshape(source, [1])
    return _scattered(a, x, dim, along(a, x, dim, index), source, None)


@composed("index_fill")
@flat_first
def index_fill(a, x, dim, index, value):
    places = along(a, x, dim, index)
    if isinstance(value, ir.Value):
        value = a.expand(cast(a.op, value, x.dtype), sizes(a, places))
    return _scattered(a, x, dim, places, value, None)


@composed("index_reduce")
@flat_first
def index_reduce(a, x, dim, index, source, reduce, include_self=True):
    return a.scatter_reduce(x, dim, along(a, x, dim, index), source, {"mean": "mean", "prod": "prod", "amax": "amax", "amin": "amin"}[reduce], include_self)


@composed("masked_scatter")
def masked_scatter(a, x, mask, source):
    """Element number n that the mask chooses becomes element n of the source."""
    shape = [max(p, q) for p, q in zip(*([1] * (max(rank(a.op, x), rank(a.op, mask)) - rank(a.op, v)) + sizes(a, v) for v in (x, mask)), strict=True)]
    mask = a.expand(mask, shape)
    place = a.clamp(a.sub(a.cumsum(a.to(a.reshape(mask, [-1]), 4), 0), 1), 0)
    return a.where(mask, a.reshape(a.index(a.reshape(source, [-1]), [place]), shape), x)


@composed("masked_select")
def masked_select(a, x, mask):
    shape = [max(p, q) for p, q in zip(*([1] * (max(rank(a.op, x), rank(a.op, mask)) - rank(a.op, v)) + sizes(a, v) for v in (x, mask)), strict=True)]
    return a.op.Compress(a.reshape(a.expand(x, shape), [-1]), a.reshape(a.expand(mask, shape), [-1]))


@composed("put")
def put(a, x, index, source, accumulate=False):
    flat = _scattered(a, a.reshape(x, [-1]), 0, a.reshape(index, [-1]), a.reshape(source, [-1]), "sum" if accumulate else None)
    return a.reshape(flat, sizes(a, x))


@composed("index_put", "_unsafe_index_put", "_index_put_impl")
def index_put(a, x, indices, values, accumulate=False, unsafe=False):
    """One mask chooses between values, positions become rows of a ScatterND."""
    op = a.op
    given = [(axis, index) for axis, index in enumerate(indices) if index is not None]
    if len(given) == 1 and given[0][1].dtype == BOOL and rank(op, values) == 0:
        mask = given[0][1]
        mask = a.reshape(mask, [*[1] * given[0][0], *sizes(a, mask), *[1] * (rank(op, x) - given[0][0] - rank(op, mask))])
        return a.where(mask, a.add(x, values) if accumulate else cast(op, values, x.dtype), x)
    if any(index.dtype == BOOL for _, index in given):
        op.reject("it writes where a mask is, more than one value")
    axes = [axis for axis, _ in given]
    if axes != list(range(len(axes))):
        rest = [axis for axis in range(rank(op, x)) if axis not in axes]
        if axes != list(range(axes[0], axes[0] + len(axes))) or rank(op, values) > 1:
            op.reject("positions with an axis before them")
        order = [*axes, *rest]
        moved = a.index_put(a.permute(x, order), [index for _, index in given], values, accumulate)
        return a.permute(moved, [order.index(axis) for axis in range(len(order))])
    total = given[0][1]
    for _, index in given[1:]:
        total = a.add(total, a.mul(index, 0))
    shape = sizes(a, total)
    rows = a.stack([a.expand(cast(op, index, INT64), shape) for _, index in given], -1)
    updates = a.expand(cast(op, values, x.dtype), [*shape, *sizes(a, x)[len(given):]])
    data = numeric(a, x) if accumulate else x
    return cast(op, op.ScatterND(data, rows, cast(op, updates, data.dtype), reduction="add" if accumulate else None), x.dtype)


# ---- matrices and distances


def blended(a: Aten, x: ir.Value, product: ir.Value, beta: Any, alpha: Any) -> ir.Value:
    product = product if alpha == 1 else a.mul(product, alpha)
    return product if beta == 0 else a.add(product, x if beta == 1 else a.mul(x, beta))


composed("addr")(lambda a, x, p, q, beta=1, alpha=1: a.logical_or(a.logical_and(x, bool(beta)), a.logical_and(a.logical_and(a.unsqueeze(p, 1), q), bool(alpha)))
                 if x.dtype == BOOL else blended(a, x, a.outer(p, q), beta, alpha))
composed("addmv")(lambda a, x, p, q, beta=1, alpha=1: blended(a, x, a.matmul(p, q), beta, alpha))
composed("addbmm")(lambda a, x, p, q, beta=1, alpha=1: blended(a, x, a.sum(a.matmul(p, q), [0]), beta, alpha))
composed("chain_matmul")(lambda a, xs: xs[0] if len(xs) == 1 else a.chain_matmul([a.matmul(xs[0], xs[1]), *xs[2:]]))
composed("vecdot")(lambda a, x, y, dim=-1: a.sum(a.mul(x, y), [dim]))
composed("linalg_det")(lambda a, x: a.op.Det(x))


@composed("pairwise_distance")
def pairwise_distance(a, x, y, p=2.0, eps=1e-6, keepdim=False):
    return a.norm(a.add(a.sub(x, y), eps), p, [-1], keepdim)


@composed("linalg_cross", "cross")
def cross(a, x, y, dim=None):
    shape = [max(p, q) for p, q in zip(sizes(a, x), sizes(a, y), strict=True)]
    dim = -1 if dim is None and a.op.node.op_type == "linalg_cross" else shape.index(3) if dim is None else dim
    x, y = a.expand(x, shape), a.expand(y, shape)
    x1, y2, x2, y1 = (a.roll(v, [shift], [dim]) for v, shift in ((x, -1), (y, -2), (x, -2), (y, -1)))
    return a.sub(a.mul(x1, y2), a.mul(x2, y1))


@composed("cosine_embedding_loss")
def cosine_embedding_loss(a, x, y, target, margin=0.0, reduction=1):
    eps = 1e-12
    dot = a.sum(a.mul(x, y), [-1])
    size = a.sqrt(a.mul(a.add(a.sum(a.mul(x, x), [-1]), eps), a.add(a.sum(a.mul(y, y), [-1]), eps)))
    cosine = a.div(dot, size)
    positive, negative = a.rsub(cosine, 1), a.clamp_min(a.sub(cosine, margin), 0)
    zeros = a.zeros_like(positive)
    return LOSSES[reduction](a, a.add(a.where(a.eq(target, 1), positive, zeros), a.where(a.eq(target, -1), negative, zeros)))

"""aten operators that are a few other aten operators: what PyTorch itself defines them by. `a.mul(x, y)` in a rule is the rule of aten::mul."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from isomorph.dialects.torch.to_onnx.common import BOOL, INT64, SCALAR_TYPES, axis_of, cast, floating, is_float, rank, to_onnx

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


def numeric(a: Aten, x: ir.Value) -> ir.Value:
    """bool as integers, for reductions that no kernel has for bool."""
    return cast(a.op, x, INT64) if x.dtype == BOOL else x


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
                      "_unsafe_index": "index"}.items():
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
    "inner": lambda a, x, y: a.mul(x, y) if not rank(a.op, x) or not rank(a.op, y) else a.matmul(x, a.transpose(y, -2, -1) if rank(a.op, y) > 1 else y),
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

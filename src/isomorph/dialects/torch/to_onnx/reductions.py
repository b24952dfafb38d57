"""aten -> ONNX: reductions, and what looks through an axis."""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.to_onnx.common import (
    BOOL,
    INT64,
    INTEGERS,
    D,
    axes_of,
    axis_of,
    cast,
    dtype_of,
    floating,
    is_float,
    is_tensor,
    number,
    rank,
    to_onnx,
)
from isomorph.dialects.torch.to_onnx.elementwise import maximum, minimum
from isomorph.dialects.torch.to_onnx.shapes import length


def _reduce(target: str, average: bool = False) -> Callable[..., Any]:
    def rule(op, x, dim=None, keepdim=False, dtype=None, **more):
        if isinstance(dim, bool) or (dim is not None and not isinstance(dim, (int, list, tuple))):
            op.reject("a reduction with other arguments")
        x = cast(op, x, dtype_of(dtype)) if isinstance(dtype, int) else x
        if (x.dtype == BOOL and target not in ("ReduceMax", "ReduceMin")) or (x.dtype in INTEGERS and target in ("ReduceSum", "ReduceProd") and dtype is None):
            x = cast(op, x, INT64)
        axes = None if dim is None or dim == [] or not rank(op, x) else op.const(axes_of(op, x, dim))
        return op.make(target, [floating(op, x) if average else x, axes], {"keepdims": int(keepdim)})
    return rule


to_onnx("mean")(_reduce("ReduceMean", True))
to_onnx("sum")(_reduce("ReduceSum"))
to_onnx("amax")(_reduce("ReduceMax"))
to_onnx("amin")(_reduce("ReduceMin"))
to_onnx("logsumexp")(_reduce("ReduceLogSumExp", True))


@to_onnx("prod")
def prod(op, x, dim=None, keepdim=False, **more):
    return _reduce("ReduceProd")(op, x, dim, keepdim)


def _extreme(target: str, choose: str, pair: Callable) -> Callable[..., Any]:
    def rule(op, x, dim=None, keepdim=False):
        if is_tensor(dim):
            return pair(op, x, dim)
        if dim is None:
            return op.make(target, [x], {"keepdims": 0})
        if not rank(op, x):
            return [x, op.const(np.asarray(0, np.int64))]
        axis = axis_of(op, x, dim)
        return [op.make(target, [x, op.const([axis])], {"keepdims": int(keepdim)}), op.make(choose, [x], {"axis": axis, "keepdims": int(keepdim)})]
    return rule


to_onnx("max")(_extreme("ReduceMax", "ArgMax", maximum))
to_onnx("min")(_extreme("ReduceMin", "ArgMin", minimum))


@to_onnx("argmax", "argmin")
def argmax(op, x, dim=None, keepdim=False):
    target = "ArgMax" if op.node.op_type == "argmax" else "ArgMin"
    if dim is None:
        return op.make(target, [op.Reshape(x, [-1])], {"axis": 0, "keepdims": 0})
    return op.make(target, [x], {"axis": axis_of(op, x, dim), "keepdims": int(keepdim)})


@to_onnx("any", "all")
def any_(op, x, dim=None, keepdim=False):
    axes = None if dim is None else op.const(axes_of(op, x, dim))
    target = "ReduceMax" if op.node.op_type == "any" else "ReduceMin"
    return cast(op, op.make(target, [cast(op, cast(op, x, BOOL), D.INT32), axes], {"keepdims": int(keepdim)}), BOOL)


def _variance(op: Any, x: Any, dims: Any, correction: float, keepdim: bool) -> Any:
    axes = axes_of(op, x, dims)
    centred = op.Sub(x, op.ReduceMean(x, op.const(axes), keepdims=1))
    total = op.ReduceMean(op.Mul(centred, centred), op.const(axes), keepdims=int(keepdim))
    if not correction:
        return total
    count = math.prod(length(op, x, axis) for axis in axes)
    return op.Mul(total, count / (count - correction))


@to_onnx("var", "std")
def var(op, x, dim=None, unbiased=True, keepdim=False, *, correction=None):
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    amount = correction if correction is not None else float(bool(unbiased))
    result = _variance(op, x, dim, amount, keepdim)
    return op.Sqrt(result) if op.node.op_type == "std" else result


@to_onnx("norm", "linalg_vector_norm", "frobenius_norm")
def norm(op, x, p=2, dim=None, keepdim=False, dtype=None):
    """The root of the sum of powers; its limits are the extremes, and for 0 how many are not zero."""
    if isinstance(p, (ir.Value, str)) and p != "fro":
        op.reject(f"the norm {p if isinstance(p, str) else 'of the run'}")
    x = cast(op, x, dtype_of(dtype)) if isinstance(dtype, int) else x
    axes = None if dim is None or not rank(op, x) else op.const(axes_of(op, x, dim))
    known = {1: "ReduceL1", 2: "ReduceL2", None: "ReduceL2", "fro": "ReduceL2", math.inf: "ReduceMax", -math.inf: "ReduceMin"}.get(p)
    if known is not None:
        return op.make(known, [op.Abs(x) if isinstance(p, (int, float)) and math.isinf(p) else x, axes], {"keepdims": int(keepdim)})
    if p == 0:
        return op.ReduceSum(cast(op, op.Not(op.Equal(x, 0)), x.dtype), axes, keepdims=int(keepdim))
    return op.Pow(op.ReduceSum(op.Pow(op.Abs(x), float(p)), axes, keepdims=int(keepdim)), 1 / float(p))


@to_onnx("cumsum")
def cumsum(op, x, dim, dtype=None, **more):
    x = cast(op, x, dtype_of(dtype, x.dtype if is_float(x) else INT64))
    if not rank(op, x):
        return x
    return op.CumSum(x, np.asarray(axis_of(op, x, dim), np.int64))


@to_onnx("topk")
def topk(op, x, k, dim=-1, largest=True, sorted=True):
    if not rank(op, x):
        return [x, op.const(np.asarray(0, np.int64))]
    return list(op.TopK(x, number(op, k), axis=axis_of(op, x, dim), largest=int(largest), sorted=int(sorted), _outputs=2))


@to_onnx("sort")
def sort(op, x, dim=-1, descending=False, **more):
    axis = axis_of(op, x, dim)
    return list(op.TopK(x, op.Shape(x, start=axis, end=axis + 1), axis=axis, largest=int(descending), _outputs=2))


@to_onnx("argsort")
def argsort(op, x, dim=-1, descending=False, **more):
    return sort(op, x, dim, descending)[1]


@to_onnx("nonzero")
def nonzero(op, x):
    if not rank(op, x):                            # ONNX gives a row where PyTorch gives none
        return op.Slice(op.Transpose(op.NonZero(op.Reshape(x, [1])), perm=[1, 0]), [0], [0], [1])
    return op.Transpose(op.NonZero(x), perm=[1, 0])


@to_onnx("nonzero_numpy")
def nonzero_numpy(op, x):
    x = x if rank(op, x) else op.Reshape(x, [1])
    count = rank(op, x)
    rows = op.Split(op.NonZero(x), op.const([1] * count), axis=0, _outputs=count)
    return [op.Squeeze(row, op.const([0])) for row in ([rows] if count == 1 else rows)]

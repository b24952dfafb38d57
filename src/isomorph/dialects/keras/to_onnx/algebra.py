"""`keras.ops.linalg`: inverses and systems of equations by elimination, because ONNX has no linear algebra beyond products and Det."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._scan import scanned_together
from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.operations import floating, paired
from isomorph.dialects.keras.to_onnx.table import ops


@ops("Inv")
def inverse(op: Op, x: Value) -> Value:
    return solved(op, x, None)


@ops("Solve")
def solve(op: Op, a: Any, b: Any) -> Value:
    """A right side with an axis less is one vector."""
    left, right = paired(op, a, b)
    if op.rank(right) == op.rank(left):
        return solved(op, left, right)
    y = solved(op, left, op.Unsqueeze(right, op.const([-1])))
    return op.Squeeze(y, op.const([-1]))


@ops("Cholesky", "Qr", "SVD", "Eigh", "Eig", "LuFactor", "SolveTriangular", "Lstsq", "Pinv", "MatrixRank", "CholeskyInverse")
def linear_algebra(op: Op, *xs: Any, **settings: Any) -> Value:
    return op.reject("ONNX has no linear algebra of this kind")


def solved(op: Op, x: Value, right: Value | None) -> Value:
    """x^-1 @ right, or x^-1: Gauss and Jordan with a pivot for each column, one round of a Scan a column, in double precision.

    A round swaps the row with the greatest element of its column to its place, divides it, and takes it from all others. Rows and columns are picked by
    products with one-hot vectors, which the Scan hands in, so that nothing depends on how many matrices lie in the batch.
    """
    size = op.sizes(x)[-1]
    if not isinstance(size, int):
        return op.reject("the size of its matrix is not known")
    kind, wide = floating(op, x).dtype, op.cast(x, ir.DataType.DOUBLE)
    second = op.cast(right, ir.DataType.DOUBLE) if right is not None else op.Expand(op.const(np.eye(size)), op.Shape(x))
    more = op.sizes(right)[-1] if right is not None else size
    if not isinstance(more, int):
        return op.reject("the size of its right side is not known")
    whole = op.Concat(wide, second, axis=-1)
    whole.dtype, whole.shape = ir.DataType.DOUBLE, ir.Shape([*op.sizes(x)[:-1], size + more])
    sequences = [op.const(array) for array in (np.eye(size), np.eye(size, size + more), np.triu(np.ones((size, size))))]

    def column(parts: list[Value], states: list[Value]) -> tuple[Value, list[Value]]:
        row, place, left = parts                                   # [size], [size + more], [size]: one-hot, one-hot, the rows that no pivot was taken from
        matrix = states[0]
        sizes_ = op.Abs(op.MatMul(matrix, place))
        best = op.ArgMax(op.Sub(op.Mul(op.Add(sizes_, op.const(np.asarray(1, np.float64))), left), op.const(np.asarray(1, np.float64))), axis=-1, keepdims=1)
        chosen = op.cast(op.Equal(best, op.const(np.arange(size))), ir.DataType.DOUBLE)
        own, other = op.MatMul(op.Unsqueeze(row, op.const([0])), matrix), op.MatMul(op.Unsqueeze(chosen, op.const([-2])), matrix)
        swap = op.Sub(op.Unsqueeze(row, op.const([-1])), op.Unsqueeze(chosen, op.const([-1])))
        matrix = op.Add(matrix, op.Mul(swap, op.Sub(other, own)))
        pivot = op.Div(other, op.Unsqueeze(op.MatMul(other, place), op.const([-1])))
        rest = op.Unsqueeze(op.Sub(op.MatMul(matrix, place), row), op.const([-1]))
        return row, [op.Sub(matrix, op.Mul(rest, pivot))]

    _, (last,) = scanned_together(op, sequences, [whole], column, axis=0)
    last.dtype, last.shape = whole.dtype, whole.shape
    y = op.cast(op.Slice(last, op.const([size]), op.const([size + more]), op.const([-1])), kind)
    y.shape = ir.Shape([*op.sizes(x)[:-1], more])
    return y

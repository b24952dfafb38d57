"""Operators of TensorFlow with inputs, types and attributes to try. Read only by `tensorflow_child.py`, in a Python that has TensorFlow.

A row is the operator, its inputs in order (arrays are fed, `C(array)` is a constant of the graph, a list is an argument of several values), and attributes.
"""
from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

rng = np.random.default_rng(20261123)
raw = tf.raw_ops
F32, F64, I32, I64 = np.float32, np.float64, np.int32, np.int64


class C:
    """A constant of the graph."""

    def __init__(self, value: Any, dtype: Any = None):
        self.value = np.asarray(value, dtype)


def f(*shape: int, dtype: Any = F32, low: float = -2.0, high: float = 2.0) -> np.ndarray:
    return rng.uniform(low, high, shape).astype(dtype)


def i(*shape: int, low: int = -9, high: int = 10, dtype: Any = I32) -> np.ndarray:
    return rng.integers(low, high, shape).astype(dtype)


def b(*shape: int) -> np.ndarray:
    return rng.integers(0, 2, shape).astype(bool)


def s(*texts: str) -> np.ndarray:
    return np.asarray(texts, object)


Row = tuple[str, list[Any], dict[str, Any]]


def row(op: str, *inputs: Any, **attributes: Any) -> Row:
    return op, list(inputs), attributes


def elementwise() -> Iterator[Row]:
    plain = ["Sin", "Cos", "Tan", "Sinh", "Cosh", "Asinh", "Atan", "Tanh", "Erf", "Exp", "Expm1", "Floor", "Ceil", "Round",
             "Rint", "Sigmoid", "Softplus", "Softsign", "Elu", "Selu", "Erfc", "Neg", "Abs", "Sign", "Square", "Relu", "Relu6"]
    for op in plain:
        for dtype in (F32, F64):
            yield row(op, f(3, 4, dtype=dtype))
    for op in ("Neg", "Abs", "Sign", "Square", "Relu", "Relu6", "OnesLike", "ZerosLike", "Identity"):
        for dtype in (I32, I64):
            yield row(op, i(3, 4, dtype=dtype))
    for op in ("Acos", "Asin", "Atanh"):
        for dtype in (F32, F64):
            yield row(op, f(3, 4, dtype=dtype, low=-0.9, high=0.9))
    for op in ("Log", "Sqrt", "Rsqrt", "Log1p", "Acosh", "Reciprocal", "Inv"):
        for dtype in (F32, F64):
            yield row(op, f(3, 4, dtype=dtype, low=1.1, high=5))
    yield row("Log1p", f(3, 4, low=-1e-5, high=1e-5))
    yield row("Expm1", f(3, 4, low=-1e-5, high=1e-5))
    yield row("LeakyRelu", f(3, 4), alpha=0.3)
    yield row("LeakyRelu", f(3, 4))
    for op in ("IsNan", "IsInf", "IsFinite"):
        yield row(op, np.asarray([1, np.nan, np.inf, -np.inf], F32))
    for op in ("OnesLike", "ZerosLike", "Identity", "StopGradient", "Softmax", "LogSoftmax"):
        yield row(op, f(2, 5))
        yield row(op, f(2, 5, dtype=F64))
    yield row("Softmax", f(2, 3, 5))
    yield row("IdentityN", [f(2), i(3)])
    yield row("EnsureShape", f(2, 3), shape=[2, 3])
    yield row("LogicalNot", b(5))
    yield row("Invert", i(5))
    for target in (tf.float32, tf.float64, tf.int32, tf.int64, tf.bool, tf.uint8, tf.int8, tf.float16):
        yield row("Cast", f(3, 4, low=0, high=100), DstT=target)
        yield row("Cast", i(3, 4, low=0), DstT=target)
    yield row("Bitcast", f(3, 4), type=tf.int32)
    yield row("ClipByValue", f(3, 4), C(-0.5, F32), C(0.7, F32))
    yield row("ClipByValue", i(3, 4), C(-2, I32), C(5, I32))
    yield row("CheckNumerics", f(3), message="no")


def binary() -> Iterator[Row]:
    for op in ["Add", "AddV2", "Sub", "Mul", "Maximum", "Minimum", "SquaredDifference"]:
        for dtype in (F32, F64):
            yield row(op, f(3, 4, dtype=dtype), f(4, dtype=dtype))
        for kind in (I32, I64):
            yield row(op, i(3, 4, dtype=kind), i(3, 1, dtype=kind))
    for op in ["Div", "RealDiv", "DivNoNan", "Xdivy", "FloorDiv", "FloorMod", "Mod", "TruncateMod"]:
        for dtype in (F32, F64):
            yield row(op, f(3, 4, dtype=dtype, low=-9, high=9), f(4, dtype=dtype, low=0.5, high=3))
        yield row(op, f(3, 4, low=-9, high=9), f(4, low=-3, high=-0.5))
    for op in ["Div", "FloorDiv", "FloorMod", "Mod", "TruncateMod", "TruncateDiv"]:
        for kind in (I32, I64):
            yield row(op, i(3, 4, dtype=kind), i(4, low=1, high=5, dtype=kind))
            yield row(op, i(3, 4, dtype=kind), i(4, low=-5, high=-1, dtype=kind))
    zeros = np.asarray([1, 0, 2, 0], F32)
    for op in ("DivNoNan", "MulNoNan"):
        yield row(op, f(3, 4), zeros)
    yield row("Xdivy", zeros, f(4))
    yield row("Xlogy", zeros, f(4, low=0.5, high=2))
    yield row("Pow", f(3, 4, low=0.2, high=3), f(4))
    yield row("Pow", i(3, 4, low=1, high=4), i(4, low=0, high=4))
    yield row("Atan2", f(3, 4), f(3, 4))
    yield row("Atan2", f(3, 4, dtype=F64), f(3, 4, dtype=F64))
    for op in ["Equal", "NotEqual", "Greater", "GreaterEqual", "Less", "LessEqual"]:
        yield row(op, i(3, 4, low=0, high=3), i(4, low=0, high=3))
        yield row(op, i(3, 4, low=0, high=3, dtype=I64), i(4, low=0, high=3, dtype=I64))
        yield row(op, f(3, 4), f(4))
        yield row(op, f(3, 4, dtype=F64), f(4, dtype=F64))
        yield row(op, i(3, 4, low=0, high=3, dtype=np.uint8), i(4, low=0, high=3, dtype=np.uint8))
    yield row("Equal", b(4), b(4))
    yield row("Equal", s("a", "b"), s("a", "c"))
    for op in ("LogicalAnd", "LogicalOr"):
        yield row(op, b(3, 4), b(4))
    for op in ("BitwiseAnd", "BitwiseOr", "BitwiseXor"):
        yield row(op, i(3, 4, low=0), i(4, low=0))
        yield row(op, i(3, 4, low=0, dtype=np.uint8), i(4, low=0, dtype=np.uint8))
    for op in ("LeftShift", "RightShift"):
        yield row(op, i(3, 4), i(4, low=0, high=4))
        yield row(op, i(3, 4, low=0, dtype=np.uint8), i(4, low=0, high=4, dtype=np.uint8))
    yield row("AddN", [f(2, 3), f(2, 3), f(2, 3)])
    yield row("AddN", [i(2, 3), i(2, 3)])
    yield row("AddV2", f(2, 3, dtype=np.float16), f(3, dtype=np.float16))
    for dtype in (np.uint8, np.int8, np.int16):
        yield row("AddV2", i(3, 4, low=0, high=5, dtype=dtype), i(4, low=0, high=5, dtype=dtype))
        yield row("Mul", i(3, 4, low=0, high=5, dtype=dtype), i(4, low=0, high=5, dtype=dtype))
        yield row("Maximum", i(3, 4, low=0, high=5, dtype=dtype), i(4, low=0, high=5, dtype=dtype))
    for op in ("Select", "SelectV2"):
        yield row(op, b(3, 4), f(3, 4), f(3, 4))
        yield row(op, b(3, 4), i(3, 4), i(3, 4))
    yield row("Select", b(3), f(3, 4), f(3, 4))
    yield row("SelectV2", b(4), f(3, 4), f(3, 1))
    yield row("SelectV2", b(3), s("a", "b", "c"), s("x", "y", "z"))
    yield row("BiasAdd", f(2, 3, 4), f(4))
    yield row("BiasAdd", f(2, 4, 3, 3), f(4), data_format="NCHW")


def reductions() -> Iterator[Row]:
    for op in ["Sum", "Prod", "Max", "Min", "Mean"]:
        for axes, keep in (([1], False), ([0, 2], True), ([-1], False), ([], False)):
            yield row(op, f(2, 3, 4), C(axes, I32), keep_dims=keep)
        yield row(op, f(2, 3, dtype=F64), C(1, I32))
        yield row(op, i(2, 3), C([0], I32))
        yield row(op, i(2, 3, dtype=I64), C([0], I64))
    yield row("Max", i(2, 3, low=0, dtype=np.uint8), C([0], I32))
    yield row("EuclideanNorm", f(2, 3), C([1], I32))
    yield row("EuclideanNorm", f(2, 3, dtype=F64), C([0, 1], I32), keep_dims=True)
    for op in ("Any", "All"):
        for axes, keep in (([1], False), ([0, 1], True)):
            yield row(op, b(3, 4), C(axes, I32), keep_dims=keep)
    for op in ("ArgMax", "ArgMin"):
        for kind in (I32, I64):
            yield row(op, f(3, 4), C(1, I32), output_type=tf.as_dtype(kind))
        yield row(op, i(3, 4), C(0, I32))
        yield row(op, f(3, 4, dtype=F64), C(-1, I32))
    for op in ("Cumsum", "Cumprod"):
        for exclusive in (False, True):
            for reverse in (False, True):
                yield row(op, f(3, 5), C(1, I32), exclusive=exclusive, reverse=reverse)
        yield row(op, i(3, 4, low=1, high=4), C(0, I32))
        yield row(op, f(3, 4, dtype=F64), C(-1, I32))
    yield row("TopKV2", f(3, 7), C(3, I32))
    yield row("TopKV2", i(3, 7, low=-99, high=99), C(2, I32))
    yield row("Unique", C([3, 1, 3, 2, 1], I32))
    yield row("Unique", np.asarray([3, 1, 3, 2, 1], I64), out_idx=tf.int64)
    yield row("Unique", np.asarray([3, 1, 3, 2, 1], F32))
    yield row("UniqueV2", np.asarray([3, 1, 3, 2, 1], I32), C([0], I32))
    yield row("UniqueWithCounts", np.asarray([3, 1, 3, 2, 1], I32))
    yield row("Bincount", i(9, low=0, high=5), C(6, I32), C([], I32))
    yield row("Bincount", i(9, low=0, high=5), C(6, I32), f(9))
    for binary_output in (False, True):
        yield row("DenseBincount", i(9, low=0, high=5), C(6, I32), C([], F32), binary_output=binary_output)
        yield row("DenseBincount", i(2, 9, low=0, high=5), C(6, I32), C([], I32), binary_output=binary_output)
    yield row("DenseBincount", i(2, 9, low=0, high=5), C(6, I32), f(2, 9))
    yield row("InTopKV2", f(4, 5), i(4, low=0, high=5), C(2, I32))
    yield row("Bucketize", f(3, 4), boundaries=[-1.0, 0.0, 1.0])
    yield row("L2Loss", f(3, 4))
    yield row("SoftmaxCrossEntropyWithLogits", f(3, 5), np.eye(5, dtype=F32)[[1, 3, 0]])
    yield row("SoftmaxCrossEntropyWithLogits", f(3, 5, dtype=F64), np.eye(5)[[1, 3, 0]])
    yield row("SparseSoftmaxCrossEntropyWithLogits", f(3, 5), i(3, low=0, high=5))
    yield row("SparseSoftmaxCrossEntropyWithLogits", f(3, 5), i(3, low=0, high=5, dtype=I64))
    for op in ["SegmentSum", "SegmentMean", "SegmentMax", "SegmentMin", "SegmentProd"]:
        yield row(op, f(6, 3), C([0, 0, 1, 1, 3, 3], I32))
        yield row(op, f(6), C([0, 0, 1, 2, 2, 2], I64))
    for op in ["UnsortedSegmentSum", "UnsortedSegmentMax", "UnsortedSegmentMin", "UnsortedSegmentProd"]:
        yield row(op, f(6, 3), C([1, 0, 1, 2, 0, 2], I32), C(3, I32))
    yield row("UnsortedSegmentSum", f(6), C([1, 0, -1, 2, 0, 2], I32), C(4, I32))
    for op in ("SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN"):
        yield row(op, f(6, 3), C([0, 2, 5, 1], I32), C([0, 0, 1, 1], I32))


def matrices() -> Iterator[Row]:
    for dtype in (F32, F64):
        for a in (False, True):
            for c in (False, True):
                yield row("MatMul", f(*((4, 3) if a else (3, 4)), dtype=dtype), f(*((5, 4) if c else (4, 5)), dtype=dtype), transpose_a=a, transpose_b=c)
        for op in ("BatchMatMul", "BatchMatMulV2"):
            yield row(op, f(2, 3, 4, dtype=dtype), f(2, 4, 5, dtype=dtype))
            yield row(op, f(2, 4, 3, dtype=dtype), f(2, 5, 4, dtype=dtype), adj_x=True, adj_y=True)
    yield row("BatchMatMulV2", f(2, 3, 4), f(4, 5))
    yield row("MatMul", i(3, 4), i(4, 5))
    yield row("MatMul", f(3, 4), C(f(4, 5)))
    yield row("_FusedMatMul", f(3, 4), C(f(4, 5)), [C(f(5))], fused_ops=["BiasAdd", "Relu"])
    yield row("Einsum", [f(2, 3, 4), f(2, 4, 5)], equation="bij,bjk->bik")
    yield row("Einsum", [f(3, 4)], equation="ij->ji")
    yield row("Einsum", [f(3, 4, dtype=F64), f(4, dtype=F64)], equation="ij,j->i")
    yield row("Einsum", [f(2, 3, 4), f(5, 4)], equation="...k,dk->...d")
    yield row("MatrixDiag", f(2, 3))
    yield row("MatrixDiagV3", f(2, 3), C(0, I32), C(-1, I32), C(-1, I32), C(0, F32))
    yield row("MatrixDiagV3", f(2, 3), C(1, I32), C(-1, I32), C(-1, I32), C(0.5, F32))
    yield row("MatrixDiagV2", f(3), C(-1, I32), C(4, I32), C(3, I32), C(0, F32))
    yield row("MatrixDiagPart", f(2, 3, 4))
    yield row("MatrixDiagPartV3", f(2, 3, 4), C(1, I32), C(0, F32))
    yield row("MatrixDiagPartV3", f(4, 4), C(-1, I32), C(0, F32))
    yield row("MatrixSetDiag", f(2, 3, 3), f(2, 3))
    yield row("MatrixSetDiagV3", f(2, 3, 4), f(2, 3), C(0, I32))
    for low, high in ((0, 0), (1, -1), (-1, 0), (-1, -1)):
        yield row("MatrixBandPart", f(2, 4, 5), C(low, I64), C(high, I64))
    yield row("MatrixDeterminant", f(2, 3, 3))
    yield row("Cross", f(4, 3), f(4, 3))
    yield row("Diag", f(4))
    yield row("DiagPart", f(4, 4))


def shapes() -> Iterator[Row]:
    for kind in (tf.int32, tf.int64):
        yield row("Shape", f(2, 3), out_type=kind)
        yield row("Size", f(2, 3), out_type=kind)
    yield row("ShapeN", [f(2, 3), f(4)])
    yield row("Rank", f(2, 3))
    for shape in ([6], [3, -1], [1, 2, 3], [-1]):
        yield row("Reshape", f(2, 3), C(shape, I32))
    yield row("Reshape", i(2, 3, dtype=I64), C([3, 2], I64))
    yield row("Reshape", f(2, 3), np.asarray([3, 2], I32))
    yield row("Squeeze", f(1, 3, 1), axis=[0])
    yield row("Squeeze", f(1, 3, 1))
    for axis in (0, 1, -1):
        yield row("ExpandDims", f(2, 3), C(axis, I32))
    yield row("Transpose", f(2, 3, 4), C([2, 0, 1], I32))
    yield row("Transpose", i(2, 3), C([1, 0], I64))
    yield row("InvertPermutation", C([2, 0, 1], I32))
    for axis in (0, 1, -1):
        yield row("Pack", [f(2, 3), f(2, 3)], axis=axis)
        yield row("Unpack", f(2, 3), num=2 if axis == 0 else 3, axis=axis)
    yield row("Pack", [i(), i()])
    yield row("ConcatV2", [f(2, 3), f(2, 2)], C(1, I32))
    yield row("ConcatV2", [i(2, 3), i(1, 3)], C(0, I32))
    yield row("Concat", C(1, I32), [f(2, 3), f(2, 2)])
    yield row("ConcatV2", [s("a"), s("b", "c")], C(0, I32))
    yield row("Split", C(1, I32), f(2, 6), num_split=3)
    yield row("Split", C(0, I32), i(4, 2), num_split=1)
    yield row("SplitV", f(2, 6), C([1, 2, 3], I32), C(1, I32), num_split=3)
    yield row("SplitV", f(2, 6), C([1, -1], I32), C(1, I32), num_split=2)
    yield row("Tile", f(2, 3), C([2, 1], I32))
    yield row("Tile", i(2), C([3], I64))
    yield row("BroadcastTo", f(3, 1), C([2, 3, 4], I32))
    yield row("BroadcastArgs", C([2, 1], I32), C([3, 1, 5], I32))
    yield row("Fill", C([2, 3], I32), f())
    yield row("Fill", np.asarray([2, 3], I32), C(7, I64))
    yield row("Range", C(1, I32), C(9, I32), C(2, I32))
    yield row("Range", np.asarray(1, F32), np.asarray(4, F32), np.asarray(0.5, F32))
    yield row("Range", np.asarray(1, I64), np.asarray(9, I64), np.asarray(3, I64))
    yield row("LinSpace", np.asarray(0, F32), np.asarray(4, F32), C(5, I32))
    for op in ("Pad",):
        yield row(op, f(2, 3), C([[1, 2], [0, 1]], I32))
        yield row(op, i(2, 3, dtype=I64), C([[1, 2], [0, 1]], I64))
    yield row("PadV2", f(2, 3), C([[1, 2], [0, 1]], I32), C(0.5, F32))
    yield row("PadV2", i(2, 3), C([[1, 2], [0, 1]], I32), C(7, I32))
    for mode in ("REFLECT", "SYMMETRIC"):
        yield row("MirrorPad", f(3, 4), C([[1, 2], [0, 1]], I32), mode=mode)
        yield row("MirrorPad", i(3, 4), C([[1, 1], [2, 1]], I32), mode=mode)
    yield row("Reverse", f(2, 3), C([False, True]))
    yield row("ReverseV2", f(2, 3), C([1], I32))
    yield row("ReverseV2", i(2, 3), C([0, 1], I32))
    yield row("ReverseSequence", f(3, 5, 2), C([2, 3, 5], I32), seq_dim=1, batch_dim=0)
    yield row("ReverseSequence", f(5, 3), C([2, 3, 5], I64), seq_dim=0, batch_dim=1)
    yield row("Roll", f(4, 5), C([1, -2], I32), C([0, 1], I32))
    yield row("Slice", f(3, 4), C([1, 0], I32), C([2, -1], I32))
    yield row("Slice", f(3, 4), np.asarray([1, 0], I32), np.asarray([2, 3], I32))
    yield row("Slice", i(3, 4, dtype=I64), C([0, 1], I64), C([2, 2], I64))
    for masks in ({}, {"begin_mask": 1}, {"end_mask": 2}, {"shrink_axis_mask": 1}, {"new_axis_mask": 1}, {"ellipsis_mask": 1},
                  {"begin_mask": 3, "end_mask": 3}):
        yield row("StridedSlice", f(4, 5, 3), C([1, 0], I32), C([3, 4], I32), C([1, 2], I32), **masks)
        yield row("StridedSlice", f(4, 5, 3), np.asarray([1, 0], I32), np.asarray([3, 4], I32), C([1, 2], I32), **masks)
    yield row("StridedSlice", f(6), C([-1], I32), C([-7], I32), C([-2], I32))
    yield row("StridedSlice", i(6), C([-1], I32), C([0], I32), C([1], I32), shrink_axis_mask=1)
    yield row("Where", b(3, 4))
    yield row("Where", i(3, 4, low=0, high=2))


def places() -> Iterator[Row]:
    for axis in (0, 1, -1):
        yield row("GatherV2", f(4, 5, 3), C([2, 0], I32), C(axis, I32))
    yield row("GatherV2", f(4, 5), i(2, 3, low=0, high=4), C(0, I32))
    yield row("GatherV2", f(2, 5, 3), i(2, 4, low=0, high=5), C(1, I32), batch_dims=1)
    yield row("GatherV2", i(4, 5, dtype=I64), i(3, low=0, high=4, dtype=I64), C(0, I64))
    yield row("Gather", f(4, 5), i(2, low=0, high=4))
    yield row("GatherNd", f(4, 5, 3), i(6, 2, low=0, high=4))
    yield row("GatherNd", i(4, 5), C([[0, 1], [3, 4]], I64))
    for axis in (0, -1):
        yield row("OneHot", i(2, 3, low=-1, high=4), C(4, I32), C(1, F32), C(0, F32), axis=axis)
    yield row("OneHot", i(3, low=0, high=4, dtype=I64), C(4, I32), C(5, I32), C(-1, I32))
    yield row("ScatterNd", C([[1], [3], [1]], I32), f(3, 2), C([5, 2], I32))
    yield row("ScatterNd", np.asarray([[0, 1], [2, 2]], I64), i(2), C([3, 3], I64))
    for op in ["TensorScatterUpdate", "TensorScatterAdd", "TensorScatterSub", "TensorScatterMax", "TensorScatterMin"]:
        yield row(op, f(5, 2), C([[1], [3]], I32), f(2, 2))
        yield row(op, i(5), C([[1], [3]], I64), i(2))
    yield row("SparseToDense", C([1, 3], I32), C([5], I32), f(2), C(0, F32))
    yield row("SparseToDense", C([[0, 1], [2, 2]], I64), C([3, 3], I64), i(2), C(-1, I32))
    for op in ("LowerBound", "UpperBound"):
        yield row(op, np.sort(f(2, 6), 1), f(2, 3))
    yield row("ListDiff", np.asarray([1, 2, 3, 4], I32), np.asarray([2, 4], I32))
    yield row("DynamicStitch", [C([0, 2], I32), C([1, 3], I32)], [f(2, 3), f(2, 3)])
    yield row("DynamicPartition", f(4, 2), C([0, 1, 0, 1], I32), num_partitions=2)
    yield row("SparseReshape", C([[0, 1], [1, 0], [1, 2]], I64), C([2, 3], I64), C([3, -1], I64))
    yield row("SparseFillEmptyRows", C([[0, 1], [2, 0]], I64), f(2), C([4, 3], I64), C(9, F32))
    yield row("SparseFillEmptyRows", np.asarray([[0, 1], [0, 2], [3, 0]], I64), np.asarray([5, 6, 7], I64), C([4, 3], I64), C(9, I64))
    yield row("RaggedRange", C([0, 5], I32), C([3, 9], I32), C([1, 2], I32))
    yield row("RaggedRange", np.asarray([0, 5], I64), np.asarray([3, 9], I64), np.asarray([1, 1], I64))
    yield row("RaggedGather", [C([0, 2, 3, 6], I64)], f(6), C([2, 0], I64), OUTPUT_RAGGED_RANK=1)
    yield row("RaggedTensorToTensor", C([-1, -1], I64), f(6), C(0, F32), [C([0, 2, 3, 6], I64)], row_partition_types=["ROW_SPLITS"])
    yield row("RaggedTensorToTensor", C([3, 2], I64), f(6), C(0, F32), [C(3, I64), C([0, 0, 1, 2, 2, 2], I64)],
              row_partition_types=["FIRST_DIM_SIZE", "VALUE_ROWIDS"])
    yield row("SparseTensorDenseMatMul", C([[0, 1], [2, 0]], I64), f(2), C([3, 4], I64), f(4, 2))


def windows() -> Iterator[Row]:
    for padding in ("SAME", "VALID"):
        for strides in ([1, 1, 1, 1], [1, 2, 2, 1]):
            yield row("Conv2D", f(2, 7, 8, 3), C(f(3, 3, 3, 4)), strides=strides, padding=padding)
            yield row("Conv2D", f(2, 7, 8, 3), f(3, 3, 3, 4), strides=strides, padding=padding)
            yield row("DepthwiseConv2dNative", f(2, 7, 8, 3), C(f(3, 3, 3, 2)), strides=strides, padding=padding)
            yield row("MaxPool", f(2, 7, 8, 3), ksize=[1, 2, 2, 1], strides=strides, padding=padding)
            yield row("AvgPool", f(2, 7, 8, 3), ksize=[1, 2, 2, 1], strides=strides, padding=padding)
            yield row("MaxPoolWithArgmax", f(2, 7, 8, 3), ksize=[1, 2, 2, 1], strides=strides, padding=padding, include_batch_in_index=False)
        for strides in ([1, 1, 1, 1, 1], [1, 2, 2, 2, 1]):
            yield row("Conv3D", f(1, 5, 6, 7, 2), C(f(2, 3, 3, 2, 4)), strides=strides, padding=padding)
            yield row("MaxPool3D", f(1, 5, 6, 7, 2), ksize=[1, 2, 2, 2, 1], strides=strides, padding=padding)
            yield row("AvgPool3D", f(1, 5, 6, 7, 2), ksize=[1, 2, 2, 2, 1], strides=strides, padding=padding)
        yield row("MaxPoolV2", f(2, 7, 8, 3), C([1, 3, 3, 1], I32), C([1, 2, 2, 1], I32), padding=padding)
        yield row("Conv2DBackpropInput", C([2, 8, 8, 3], I32), C(f(3, 3, 3, 4)), f(2, *((4, 4) if padding == "SAME" else (3, 3)), 4), strides=[1, 2, 2, 1],
                  padding=padding)
        yield row("Conv2DBackpropInput", C([2, 7, 7, 3], I32), C(f(3, 3, 3, 4)), f(2, *((4, 4) if padding == "SAME" else (3, 3)), 4), strides=[1, 2, 2, 1],
                  padding=padding)
        yield row("Conv3DBackpropInputV2", C([1, 4, 4, 4, 2], I32), C(f(2, 2, 2, 2, 3)), f(1, 2, 2, 2, 3), strides=[1, 2, 2, 2, 1], padding=padding)
        yield row("ExtractImagePatches", f(1, 6, 6, 2), ksizes=[1, 3, 3, 1], strides=[1, 2, 2, 1], rates=[1, 1, 1, 1], padding=padding)
        yield row("Dilation2D", f(1, 6, 6, 2), f(3, 3, 2), strides=[1, 1, 1, 1], rates=[1, 1, 1, 1], padding=padding)
        yield row("_FusedConv2D", f(2, 7, 8, 3), C(f(3, 3, 3, 4)), [C(f(4))], [], strides=[1, 1, 1, 1], padding=padding, fused_ops=["BiasAdd", "Relu"])
    yield row("Conv2D", f(2, 9, 9, 3), C(f(3, 3, 3, 4)), strides=[1, 1, 1, 1], padding="SAME", dilations=[1, 2, 2, 1])
    yield row("Conv2D", f(2, 9, 9, 3), C(f(3, 3, 3, 4)), strides=[1, 1, 1, 1], padding="EXPLICIT", explicit_paddings=[0, 0, 1, 2, 0, 1, 0, 0])
    yield row("Conv2D", f(2, 9, 9, 3, dtype=F64), C(f(3, 3, 3, 4, dtype=F64)), strides=[1, 1, 1, 1], padding="SAME")
    yield row("Conv2D", f(2, 9, 9, 4), C(f(3, 3, 2, 4)), strides=[1, 1, 1, 1], padding="SAME")
    yield row("DepthwiseConv2dNative", f(2, 9, 9, 3), C(f(3, 3, 3, 1)), strides=[1, 1, 1, 1], padding="EXPLICIT", explicit_paddings=[0, 0, 1, 2, 0, 1, 0, 0])
    for training in (False, True):
        for op in ("FusedBatchNorm", "FusedBatchNormV2", "FusedBatchNormV3"):
            empty = [C([], F32)] * 2 if training else [C(f(3)), C(f(3, low=0.5, high=2))]
            yield row(op, f(2, 4, 4, 3), C(f(3)), C(f(3)), *empty, is_training=training, epsilon=1e-3)
    yield row("LRN", f(1, 4, 4, 7), depth_radius=2, bias=1.5, alpha=0.1, beta=0.6)
    for align, half in ((False, False), (True, False), (False, True)):
        for op in ("ResizeBilinear", "ResizeNearestNeighbor"):
            for size in ([8, 10], [3, 2]):
                yield row(op, f(1, 5, 4, 3), C(size, I32), align_corners=align, half_pixel_centers=half)
    yield row("ResizeBilinear", i(1, 5, 4, 3, low=0, high=255, dtype=np.uint8), C([8, 10], I32))
    for align, half in ((False, False), (True, False), (False, True)):
        for size in ([8, 10], [3, 7], [10, 8]):
            yield row("ResizeBicubic", f(1, 5, 4, 3), C(size, I32), align_corners=align, half_pixel_centers=half)
    boxes = np.sort(rng.uniform(0, 1, (3, 2, 2)), 1).reshape(3, 4).astype(F32)
    for method in ("bilinear", "nearest"):
        yield row("CropAndResize", f(2, 6, 7, 3), C(boxes), C([0, 1, 0], I32), C([4, 5], I32), method=method)
    yield row("CropAndResize", f(2, 6, 7, 3), boxes * 1.5 - 0.2, np.asarray([0, 1, 0], I32), C([3, 3], I32), extrapolation_value=0.5)
    transforms = np.asarray([[1, 0.1, -1, 0.05, 0.9, 0.5, 0, 0.001], [1, 0, 0, 0, 1, 0, 0, 0]], F32)
    for interpolation in ("NEAREST", "BILINEAR"):
        yield row("ImageProjectiveTransformV3", f(2, 6, 7, 3), C(transforms), C([5, 6], I32), C(0, F32), interpolation=interpolation, fill_mode="CONSTANT")
        yield row("ImageProjectiveTransformV2", f(2, 6, 7, 3), C(transforms), C([5, 6], I32), interpolation=interpolation)
    yield row("SpaceToDepth", f(1, 4, 6, 3), block_size=2)
    yield row("DepthToSpace", f(1, 4, 6, 8), block_size=2)
    yield row("SpaceToBatchND", f(2, 4, 6, 3), C([2, 2], I32), C([[0, 0], [1, 1]], I32))
    yield row("BatchToSpaceND", f(8, 2, 3, 2), C([2, 2], I32), C([[0, 0], [1, 0]], I32))
    yield row("SpaceToBatch", f(1, 4, 4, 1), C([[0, 0], [0, 0]], I32), block_size=2)
    yield row("BatchToSpace", f(4, 2, 2, 1), C([[0, 0], [0, 0]], I32), block_size=2)
    yield row("AdjustContrastv2", f(1, 4, 4, 3), C(1.5, F32))
    scores = rng.permutation(12).astype(F32) / 12
    corners = np.sort(rng.uniform(0, 1, (12, 2, 2)), 1).reshape(12, 4).astype(F32)
    yield row("NonMaxSuppression", corners, scores, C(5, I32), iou_threshold=0.4)
    yield row("NonMaxSuppressionV2", corners, scores, C(5, I32), C(0.4, F32))
    yield row("NonMaxSuppressionV3", corners, scores, C(5, I32), C(0.4, F32), C(0.2, F32))
    for pad in (False, True):
        yield row("NonMaxSuppressionV4", corners, scores, C(8, I32), C(0.2, F32), C(0.5, F32), pad_to_max_output_size=pad)
        yield row("NonMaxSuppressionV5", corners, scores, C(8, I32), C(0.2, F32), C(0.5, F32), C(0, F32), pad_to_max_output_size=pad)
    odd = corners[:, [2, 1, 0, 3]]                          # corners in another order, and a box without an area
    odd[3] = 0.5
    for bound, least, sigma in ((1.0, 0.05, 0.5), (0.4, 0.1, 0.3), (1.0, 0.0, 0.1)):
        for boxes, pad in ((corners, False), (odd, True)):
            yield row("NonMaxSuppressionV5", boxes, scores, C(8, I32), C(bound, F32), C(least, F32), C(sigma, F32), pad_to_max_output_size=pad)
    yield row("NonMaxSuppressionV5", corners, scores, C(30, I32), C(0.9, F32), C(0.3, F32), C(0.5, F32), pad_to_max_output_size=True)
    for bits, narrow in ((8, False), (8, True), (4, False)):
        yield row("FakeQuantWithMinMaxVars", f(3, 4), C(-1.0, F32), C(1.5, F32), num_bits=bits, narrow_range=narrow)
        yield row("FakeQuantWithMinMaxArgs", f(3, 4), min=-1.0, max=1.5, num_bits=bits, narrow_range=narrow)
    yield row("FakeQuantWithMinMaxVarsPerChannel", f(3, 4), C([-1, -0.5, -2, -1], F32), C([1, 0.5, 2, 3], F32))


def spectra() -> Iterator[Row]:
    yield row("ComplexAbs", "complex", f(3, 4), f(3, 4))
    for op in ("Real", "Imag", "Angle", "Conj", "FFT", "IFFT", "FFT2D", "IFFT2D", "Exp", "Neg"):
        yield row(op, "complex", f(3, 8), f(3, 8))
    for op in ("Mul", "AddV2", "Sub", "RealDiv"):
        yield row(op, "complex", f(3, 4), f(3, 4), f(3, 4), f(3, 4))
    for length in (8, 6):
        yield row("RFFT", f(3, 8), C([length], I32))
        yield row("IRFFT", "complex", f(3, 5), f(3, 5), C([length], I32))
    yield row("RFFT", f(8), C([8], I32))
    yield row("RFFT2D", f(2, 4, 8), C([4, 8], I32))
    yield row("IRFFT2D", "complex", f(2, 4, 5), f(2, 4, 5), C([4, 8], I32))
    yield row("Complex", f(3), f(3))


def texts() -> Iterator[Row]:
    yield row("StringJoin", [s("a", "b"), s("x", "y")], separator="-")
    yield row("StringLower", s("Ab", "CD"))
    yield row("StringUpper", s("Ab", "CD").reshape(2, 1))
    yield row("StringSplit", s("a b", "c d e"), C(" "))
    yield row("StringSplitV2", s("a b", "c d e"), C(" "))
    yield row("StringSplitV2", s("a b", "c  d e"), C(""))
    yield row("StaticRegexFullMatch", s("abc", "xbz"), pattern="a.*")
    yield row("StaticRegexReplace", s("abc", "xbz"), pattern="b", rewrite="q")
    yield row("StringToHashBucketFast", s("abc", "xbz"), num_buckets=10)
    yield row("StringToNumber", s("1.5", "-2"))
    yield row("AsString", i(3))


ROWS: tuple[Callable[[], Iterator[Row]], ...] = (elementwise, binary, reductions, matrices, shapes, places, windows, spectra, texts)


def rows() -> list[Row]:
    return [item for make in ROWS for item in make()]


# ---- what needs more than one operator


@tf.function
def _loop(x: Any) -> Any:
    total = tf.zeros_like(x[0])
    for t in tf.range(tf.shape(x)[0]):
        total = total * 0.5 + x[t]
    return total


@tf.function
def _array(x: Any) -> Any:
    out = tf.TensorArray(tf.float32, size=tf.shape(x)[0])
    state = tf.zeros_like(x[0])
    for t in tf.range(tf.shape(x)[0]):
        state = tf.tanh(state + x[t])
        out = out.write(t, state)
    return out.stack(), state


WORDS = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(["a", "b", "c"], tf.constant([3, 1, 2], tf.int64)), -1)
NUMBERS = tf.lookup.StaticHashTable(tf.lookup.KeyValueTensorInitializer(tf.constant([5, 7, 9], tf.int64), ["x", "y", "z"]), "?")
CHANGING = tf.lookup.experimental.MutableHashTable(tf.string, tf.int64, -1)             # their content stands in the checkpoint
CHANGING.insert(["a", "b"], tf.constant([4, 6], tf.int64))
DENSE = tf.lookup.experimental.DenseHashTable(tf.int64, tf.int64, -1, -1, -2, initial_num_buckets=8)
DENSE.insert(tf.constant([1, 2], tf.int64), tf.constant([10, 20], tf.int64))


def _columns() -> tuple[Any, Any]:
    """Tables that are filled from the columns of a file, and from its lines, counted from 2."""
    path = os.path.join(tempfile.mkdtemp(), "columns.txt")
    with open(path, "w") as file:
        file.write("red|5\ngreen|7\nblue|9\n")
    words = tf.lookup.TextFileInitializer(path, tf.string, 0, tf.int64, 1, delimiter="|")
    lines = tf.lookup.TextFileInitializer(path, tf.string, 0, tf.int64, tf.lookup.TextFileIndex.LINE_NUMBER, delimiter="|", value_index_offset=2)
    return tf.lookup.StaticHashTable(words, -1), tf.lookup.StaticHashTable(lines, -1)


COLUMNS, LINES = _columns()
TABLES = [WORDS, NUMBERS, CHANGING, DENSE, COLUMNS, LINES]


def _if(x: Any) -> Any:
    return tf.cond(tf.reduce_sum(x) > 0, lambda: x * 2, lambda: x - 1)


def _case(x: Any, n: Any) -> Any:
    return tf.switch_case(n, [lambda: x + 1, lambda: x * 2, lambda: x - 3])


def _lists(x: Any) -> Any:
    handle = raw.TensorListFromTensor(tensor=x, element_shape=tf.constant(x.shape[1:].as_list(), tf.int32))
    item = raw.TensorListGetItem(input_handle=handle, index=1, element_shape=tf.constant(x.shape[1:].as_list(), tf.int32), element_dtype=x.dtype)
    handle = raw.TensorListSetItem(input_handle=handle, index=0, item=item * 2)
    handle = raw.TensorListPushBack(input_handle=handle, tensor=item)
    stacked = raw.TensorListStack(input_handle=handle, element_shape=tf.constant(x.shape[1:].as_list(), tf.int32), element_dtype=x.dtype)
    picked = raw.TensorListGather(input_handle=handle, indices=[2, 0], element_shape=tf.constant(x.shape[1:].as_list(), tf.int32), element_dtype=x.dtype)
    return stacked, raw.TensorListLength(input_handle=handle), picked


def _reserved(x: Any) -> Any:
    shape = tf.constant(x.shape.as_list(), tf.int32)
    handle = raw.TensorListReserve(element_shape=shape, num_elements=3, element_dtype=x.dtype)
    handle = raw.TensorListSetItem(input_handle=handle, index=1, item=x)
    handle = raw.TensorListResize(input_handle=handle, size=5)
    return raw.TensorListStack(input_handle=handle, element_shape=shape, element_dtype=x.dtype)


def _concatenated(x: Any) -> Any:
    handle = raw.TensorListFromTensor(tensor=x, element_shape=tf.constant(x.shape[1:].as_list(), tf.int32))
    return raw.TensorListConcatV2(input_handle=handle, element_shape=tf.constant([-1, *x.shape[2:].as_list()], tf.int32),
                                  leading_dims=tf.constant([], tf.int64), element_dtype=x.dtype).tensor


def _arrays_v3(x: Any) -> Any:
    array = raw.TensorArrayV3(size=3, dtype=tf.float32)
    flow = raw.TensorArrayScatterV3(handle=array.handle, indices=[0, 1, 2], value=x, flow_in=array.flow)
    flow = raw.TensorArrayWriteV3(handle=array.handle, index=1, value=x[0] * 0 + 5, flow_in=raw.TensorArrayV3(size=3, dtype=tf.float32).flow * 0 + flow) \
        if False else flow
    one = raw.TensorArrayReadV3(handle=array.handle, index=1, flow_in=flow, dtype=tf.float32)
    both = raw.TensorArrayGatherV3(handle=array.handle, indices=[2, 0], flow_in=flow, dtype=tf.float32)
    return one, both, raw.TensorArraySizeV3(handle=array.handle, flow_in=flow)


def _cell(x: Any, c: Any, h: Any, w: Any) -> Any:
    zeros = tf.zeros([4])
    made = raw.LSTMBlockCell(x=x, cs_prev=c, h_prev=h, w=w, wci=zeros, wcf=zeros, wco=zeros, b=tf.linspace(-1.0, 1.0, 16), forget_bias=1.0, cell_clip=-1.0)
    return made.h, made.cs


PROGRAMS: list[tuple[str, Callable[..., Any], list[np.ndarray]]] = [
    ("While", _loop, [f(5, 3)]), ("While", lambda x: _array(x)[0], [f(5, 3)]), ("While", lambda x: tf.while_loop(
        lambda k, y: tf.reduce_sum(y) < 100.0, lambda k, y: (k + 1, y * 2), [0, tf.abs(x)])[1], [f(3)]),
    ("If", _if, [f(3)]), ("If", _if, [-np.abs(f(3))]), ("Case", _case, [f(3), np.asarray(1, I32)]), ("Case", _case, [f(3), np.asarray(7, I32)]),
    ("TensorListFromTensor", lambda x: _lists(x)[0], [f(2, 3)]), ("TensorListLength", lambda x: _lists(x)[1], [f(2, 3)]),
    ("TensorListGather", lambda x: _lists(x)[2], [f(2, 3)]), ("TensorListReserve", _reserved, [f(2, 3)]), ("TensorListResize", _reserved, [f(4)]),
    ("TensorListConcatV2", _concatenated, [f(3, 2, 4)]), ("TensorArrayV3", lambda x: _arrays_v3(x)[0], [f(3, 2)]),
    ("TensorArrayGatherV3", lambda x: _arrays_v3(x)[1], [f(3, 2)]), ("TensorArraySizeV3", lambda x: _arrays_v3(x)[2], [f(3, 2)]),
    ("LSTMBlockCell", lambda x, c, h, w: _cell(x, c, h, w)[0], [f(2, 3), f(2, 4), f(2, 4), f(7, 16)]),
    ("LSTMBlockCell", lambda x, c, h, w: _cell(x, c, h, w)[1], [f(2, 3), f(2, 4), f(2, 4), f(7, 16)]),
    ("LookupTableFindV2", lambda x: WORDS.lookup(x), [s("a", "c", "q")]), ("LookupTableFindV2", lambda x: NUMBERS.lookup(x), [np.asarray([5, 6, 9], I64)]),
    ("MutableHashTableV2", lambda x: CHANGING.lookup(x), [s("b", "zz")]), ("MutableDenseHashTableV2", lambda x: DENSE.lookup(x), [np.asarray([2, 3], I64)]),
    ("InitializeTableFromTextFileV2", lambda x: COLUMNS.lookup(x) * 10 + LINES.lookup(x), [s("green", "zz", "blue")]),
    ("DenseBincount", lambda x: tf.math.bincount(x, minlength=3, maxlength=6, axis=-1), [i(2, 5, low=0, high=5)]),
    ("RaggedBincount", lambda x: tf.math.bincount(tf.RaggedTensor.from_row_lengths(x, [2, 0, 3]), minlength=4, maxlength=4, axis=-1), [i(5, low=0, high=6)]),
    ("RaggedBincount", lambda x: tf.math.bincount(tf.RaggedTensor.from_row_lengths(x, [2, 3]), minlength=4, maxlength=4, axis=-1, binary_output=True),
     [i(5, low=0, high=3)]),
    ("LookupTableSizeV2", lambda x: WORDS.size() + tf.zeros_like(x), [i(2, dtype=I64)]),
    ("HashTableV2", lambda x: WORDS.lookup(tf.strings.join([x, ""])), [s("b", "zz")]),
    ("StatelessIf", lambda x: _stateless_if(x), [f(3)]), ("StatelessWhile", lambda x: _stateless_while(x), [f(3)]),
    ("TensorListGetItem", lambda x: _items(x)[0], [f(3, 2)]), ("TensorListSetItem", lambda x: _items(x)[1], [f(3, 2)]),
    ("TensorListStack", lambda x: _items(x)[1], [i(3, 2)]),
    ("PlaceholderWithDefault", lambda x: raw.PlaceholderWithDefault(input=x * 2, shape=[3]), [f(3)]),
    ("NoOp", lambda x: _after_nothing(x), [f(3)]), ("Assert", lambda x: _asserted(x), [f(3)]), ("Print", lambda x: _printed(x), [f(3)]),
]


def _items(x: Any) -> Any:
    shape = tf.constant(x.shape[1:].as_list(), tf.int32)
    handle = raw.TensorListFromTensor(tensor=x, element_shape=shape)
    item = raw.TensorListGetItem(input_handle=handle, index=2, element_shape=shape, element_dtype=x.dtype)
    handle = raw.TensorListSetItem(input_handle=handle, index=1, item=item)
    return item, raw.TensorListStack(input_handle=handle, element_shape=shape, element_dtype=x.dtype)


def _stateless_if(x: Any) -> Any:
    then, other = (tf.function(each).get_concrete_function(tf.TensorSpec(x.shape, x.dtype)) for each in (lambda y: y * 2, lambda y: y - 1))
    return raw.StatelessIf(cond=tf.reduce_sum(x) > 0, input=[x], Tout=[x.dtype], then_branch=then, else_branch=other)[0]


def _stateless_while(x: Any) -> Any:
    specs = [tf.TensorSpec([], tf.int32), tf.TensorSpec(x.shape, x.dtype)]
    condition, body = (tf.function(each).get_concrete_function(*specs) for each in (lambda k, y: k < 4, lambda k, y: (k + 1, y * 1.5)))
    return raw.StatelessWhile(input=[0, x], cond=condition, body=body)[1]


def _after_nothing(x: Any) -> Any:
    with tf.control_dependencies([tf.no_op()]):
        return x + 1


def _asserted(x: Any) -> Any:
    with tf.control_dependencies([raw.Assert(condition=tf.reduce_all(x < 1e9), data=[x])]):
        return x + 1


def _printed(x: Any) -> Any:
    return raw.Print(input=x, data=[x], message="", first_n=0) + 1

"""Which element types the CPU kernels of TensorFlow take for an ONNX operator in kernel form. Measured by running each kernel of TensorFlow 2.21 on each type.

An operator that is not listed takes every type that TensorFlow computes with.
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

T = ir.DataType
REAL = frozenset({T.FLOAT, T.DOUBLE, T.FLOAT16, T.BFLOAT16})
ANALYTIC = REAL | {T.COMPLEX64, T.COMPLEX128}
SIGNED = REAL | {T.INT8, T.INT16, T.INT32, T.INT64}
INTEGERS = frozenset({T.INT8, T.UINT8, T.INT16, T.UINT16, T.INT32, T.UINT32, T.INT64, T.UINT64})
ORDERED = REAL | INTEGERS
NUMBERS = ORDERED | {T.COMPLEX64, T.COMPLEX128}
ALL = NUMBERS | {T.BOOL, T.STRING}
PRODUCTS = ANALYTIC | {T.INT32, T.INT64}

KERNELS: dict[str, frozenset[ir.DataType]] = {
    **dict.fromkeys(("Exp", "Log", "Sqrt", "Rsqrt", "Sin", "Cos", "Tan", "Sinh", "Cosh", "Asin", "Acos", "Atan", "Asinh", "Acosh", "Atanh", "Tanh", "Sigmoid",
                     "Reciprocal"), ANALYTIC),
    **dict.fromkeys(("Floor", "Ceil", "Softplus", "Softsign", "Erf", "IsNaN", "IsInf", "LeakyRelu", "Elu", "Softmax", "LogSoftmax", "Atan2", "AveragePool",
                     "Conv", "TransposedConv"), REAL),
    "Round": REAL | {T.INT32, T.INT64},
    "Abs": SIGNED,
    **dict.fromkeys(("Neg", "Sign", "Pow"), SIGNED | {T.COMPLEX64, T.COMPLEX128}),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div", "ReduceSum", "ReduceProd", "ReduceMean", "CumSum", "CumProd"), NUMBERS),
    **dict.fromkeys(("Max", "Min", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "TopKLast", "Relu", "Relu6", "Mod"), ORDERED),
    **dict.fromkeys(("ReduceMax", "ReduceMin", "ArgMax", "ArgMin"), ORDERED | {T.BOOL}),
    **dict.fromkeys(("BitShift", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot"), INTEGERS),
    **dict.fromkeys(("MatMul", "Gemm"), PRODUCTS),
    "Range": REAL | {T.INT32, T.INT64},
    "MaxPool": REAL | {T.INT8, T.UINT8, T.INT16, T.UINT16, T.INT32, T.INT64},
    "ResizeSpatial": frozenset({T.FLOAT}),
    "NonZero": ALL - {T.FLOAT16, T.STRING},
    "Tile": ALL - {T.UINT16},
    "Det": frozenset({T.FLOAT, T.DOUBLE, T.COMPLEX64, T.COMPLEX128}),
    **dict.fromkeys(("Equal", "NotEqual", "Where", "Identity", "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Expand", "Concat", "Split", "Slice", "Pad",
                     "Gather", "GatherND", "ReverseAxis", "ReverseSequence", "DepthToSpace", "SpaceToDepth"), ALL),
}


def kernel_types(node: ir.Node) -> Collection[ir.DataType] | None:
    """The element types of the data of an ONNX operator in kernel form; None where the kernel takes what comes."""
    if node.domain not in ("", "last"):
        return None
    if node.op_type == "Mod" and "fmod" in node.attributes and node.attributes["fmod"].value:
        return frozenset({T.FLOAT, T.DOUBLE, T.INT32, T.INT64})
    if node.op_type == "ScatterND":
        return {"none": ALL, "add": NUMBERS}.get(node.attributes.get_string("reduction", "none") or "none", ORDERED)
    return KERNELS.get(node.op_type)

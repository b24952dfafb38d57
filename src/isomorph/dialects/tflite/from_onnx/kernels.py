"""Which element types the CPU kernels of LiteRT take for an ONNX operator in kernel form. None: all that occur."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

T = ir.DataType
REAL = frozenset({T.FLOAT})
SMALL = frozenset({T.FLOAT, T.INT32})
NUMBERS = frozenset({T.FLOAT, T.INT32, T.INT64})
SHIFTED = frozenset({T.INT8, T.UINT8, T.INT16, T.UINT16, T.INT32, T.UINT32})
COPIED = NUMBERS | {T.INT8, T.UINT8, T.INT16}
MOVED = COPIED | {T.BOOL}


def kernel_types(node: ir.Node) -> Collection[ir.DataType] | None:
    """The element types of the data of an ONNX operator in kernel form; None where the kernel takes what comes."""
    return KERNELS.get(node.op_type) if node.domain in ("", "last") and "quantized" not in node.meta else None


# Measured by running each kernel of LiteRT 2.3.0 on each type. FLOAT16 and integer arithmetic without quantisation are left out where only a delegate has them.
KERNELS: dict[str, frozenset[ir.DataType]] = {
    **dict.fromkeys(
        (
            "Exp", "Log", "Sqrt", "Rsqrt", "Sin", "Cos", "Floor", "Ceil", "Round", "Tanh", "Sigmoid", "Relu", "Relu6", "Relu0To1", "HardSwish", "LeakyRelu",
            "PRelu", "Elu", "Gelu", "Softmax", "LogSoftmax", "Conv", "TransposedConv", "AveragePool", "MatMul", "FullyConnected", "Atan2", "ReduceMean"),
        REAL,
    ),
    **dict.fromkeys(("Abs", "Sign", "Pow", "Div", "ArgMax", "ArgMin", "TopKLast", "SquaredDifference", "FloorDiv"), SMALL),
    **dict.fromkeys(
        (
            "Add", "Sub", "Mul", "Max", "Min", "Neg", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Mod", "CumSum", "Range", "ReduceSum", "ReduceMax",
            "ReduceMin", "ReduceProd"),
        NUMBERS,
    ),
    "Equal": NUMBERS | {T.BOOL, T.STRING},
    **dict.fromkeys(("BitShift", "BitwiseXor"), SHIFTED),
    "BitwiseAnd": SHIFTED | {T.INT64, T.UINT64, T.BOOL},
    **dict.fromkeys(("Split",), COPIED),
    **dict.fromkeys(("Gather", "Concat", "Pad", "ReverseAxis"), MOVED),
    "AddScattered": frozenset({T.FLOAT, T.INT8, T.UINT8, T.INT32, T.INT64, T.BOOL}),
    "GatherND": MOVED | {T.STRING},
    "NonZero": frozenset({T.FLOAT, T.BOOL, T.INT8, T.UINT8, T.INT32, T.UINT32, T.INT64}),
    "MaxPool": frozenset({T.FLOAT, T.INT8, T.UINT8}),
    "ResizeSpatial": frozenset({T.FLOAT, T.INT8, T.UINT8}),
}
KERNELS["Gather"] = KERNELS["Gather"] | {T.STRING}
KERNELS["Concat"] = KERNELS["Concat"] | {T.UINT32}

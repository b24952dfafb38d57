"""Which element types the CPU kernels of LiteRT take for an ONNX operator in kernel form. None: all that occur."""
from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

T = ir.DataType
REAL = frozenset({T.FLOAT})
NUMBERS = frozenset({T.FLOAT, T.INT32, T.INT64})
SMALL = frozenset({T.FLOAT, T.INT32})


def kernel_types(node: ir.Node) -> Collection[ir.DataType] | None:
    return KERNELS.get(node.op_type) if node.domain in ("", "last") else None


KERNELS: dict[str, frozenset[ir.DataType]] = {
    **dict.fromkeys(("Exp", "Log", "Sqrt", "Rsqrt", "Sin", "Cos", "Floor", "Ceil", "Round", "Tanh", "Sigmoid", "Relu", "Relu6", "HardSwish", "LeakyRelu", "PRelu", "Elu",
                     "Gelu", "Softmax", "LogSoftmax", "Conv", "TransposedConv", "MaxPool", "AveragePool", "MatMul", "FullyConnected", "Atan2", "ResizeSpatial",
                     "NonMaxSuppressionOne", "QuantizeLinear"), REAL),
    **dict.fromkeys(("Abs", "Sign", "Pow", "Div"), SMALL),
    **dict.fromkeys(("Add", "Sub", "Mul", "Max", "Min", "Neg", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "FloorDiv", "Mod", "CumSum", "Range", "ReduceSum",
                     "ReduceMax", "ReduceMin", "ReduceProd", "ReduceMean"), NUMBERS),
    "Equal": NUMBERS | {T.BOOL},
    "TopKLast": SMALL,
    "ArgMax": SMALL, "ArgMin": SMALL,
    "BitShift": frozenset({T.INT8, T.UINT8, T.INT16, T.UINT16, T.INT32, T.UINT32}),
    "BitwiseXor": frozenset({T.INT8, T.UINT8, T.INT16, T.UINT16, T.INT32, T.UINT32}),
}

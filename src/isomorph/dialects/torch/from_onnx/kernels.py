"""Which element types aten's kernels on the CPU take. None: all that PyTorch has."""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir

T = ir.DataType
REAL = frozenset({T.FLOAT, T.DOUBLE, T.FLOAT16, T.BFLOAT16})
SMALL_INTEGERS = frozenset({T.UINT8, T.INT8, T.INT16, T.INT32, T.INT64})
NUMBERS = REAL | SMALL_INTEGERS
ALL = NUMBERS | {T.BOOL}
COMPLEX = frozenset({T.COMPLEX64, T.COMPLEX128})
# Types that PyTorch has but computes little with: they are stored, moved and cast
MOVED = ALL | COMPLEX | {T.UINT16, T.UINT32, T.UINT64, T.FLOAT8E4M3FN, T.FLOAT8E4M3FNUZ, T.FLOAT8E5M2, T.FLOAT8E5M2FNUZ, T.FLOAT8E8M0}
SINGLE = frozenset({T.FLOAT, T.DOUBLE})


def kernel_types(node: ir.Node) -> Collection[ir.DataType] | None:
    """The element types of the data of an ONNX operator in aten's form; None where the call takes what comes."""
    return KERNELS.get(node.op_type) if not node.domain else None


KERNELS: dict[str, frozenset[ir.DataType]] = {
    **dict.fromkeys(("Exp", "Log", "Sqrt", "Reciprocal", "Sin", "Cos", "Tan", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Erf",
                     "Sigmoid", "Tanh", "Mish", "HardSwish", "Gelu", "Elu", "Celu", "LeakyRelu", "HardSigmoid", "Swish", "PRelu", "ChannelPRelu", "Softplus",
                     "Softmax", "LogSoftmax", "ReduceLogSumExp", "AveragePool", "BatchNormalization", "InstanceNormalization", "GroupNormalization",
                     "LayerNormalization", "RMSNormalization", "Bernoulli", "GlobalAveragePool", "Atan2", "ReduceMean"), REAL),
    **dict.fromkeys(("Det", "GridSample", "AffineGrid", "Resize", "Einsum"), SINGLE),
    **dict.fromkeys(("Conv", "ConvTranspose", "Gemm"), REAL),
    **dict.fromkeys(("Abs", "Neg", "Sign", "Relu", "Clip", "Add", "Sub", "Mul", "Div", "Mod", "Pow", "Max", "Min", "Sum", "MatMul", "ReduceMax", "ReduceMin",
                     "ReduceSum", "ReduceProd", "ArgMax", "ArgMin", "CumSum", "CumProd", "TopK", "MaxPool", "GlobalMaxPool", "Less", "LessOrEqual", "Greater",
                     "GreaterOrEqual", "Range", "IsNaN", "IsInf", "Floor", "Ceil", "Round"), NUMBERS),
    **dict.fromkeys(("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot", "BitShift"), SMALL_INTEGERS | {T.BOOL}),
    **dict.fromkeys(("Equal", "Where", "Pad", "Tile", "ScatterElements", "ScatterND", "GatherElements", "Gather", "GatherND", "Trilu", "NonZero", "Flip",
                     "ReduceMax", "ReduceMin"), ALL),
}
KERNELS["ReduceMax"] = KERNELS["ReduceMin"] = ALL

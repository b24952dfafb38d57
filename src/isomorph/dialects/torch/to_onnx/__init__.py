"""aten -> ONNX, operator by operator. A rule's signature is the operator's schema, with Python's own numbers and lists where they are known.

Tensors are values with a type and, as a rule, a known rank. An `int` may be a value where it is known only at run time; lists may mix both.
The schemas: aten/src/ATen/native/native_functions.yaml. Numbers of dtypes in printed code: c10/core/ScalarType.h.

    common       the table, types, axes          elementwise, creation, shapes, reductions, layers, recurrent    ONNX nodes
    composed     what calls other rules of aten  joining, positions, matrices, losses, statistics, pictures, special      by composed calls
    iterations   what takes rounds, by loops
"""
from isomorph.dialects.torch.to_onnx import (
    composed,
    creation,
    elementwise,
    iterations,
    joining,
    layers,
    losses,
    matrices,
    pictures,
    positions,
    recurrent,
    reductions,
    shapes,
    special,
    statistics,
)
from isomorph.dialects.torch.to_onnx.common import SCALAR_TYPES, result_type, to_onnx

__all__ = ["SCALAR_TYPES", "result_type", "to_onnx"]
TABLES = (elementwise, creation, shapes, reductions, layers, recurrent, composed, joining, positions, matrices, losses, statistics, pictures, special,
          iterations)

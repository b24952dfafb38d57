"""The table that legalize, windows, resizing, positions and loops fill: ONNX operators -> the forms of them that kernels have."""

from __future__ import annotations

import onnx_ir as ir

from isomorph.dialects._lower import Mapping

legalize = Mapping()
FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


def is_float(value: ir.Value) -> bool:
    """Whether a value has the one real type that all kernels know."""
    return value.dtype == ir.DataType.FLOAT

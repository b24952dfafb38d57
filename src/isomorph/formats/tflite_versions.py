"""The version of a TFLite operator: which revision of its kernel understands these types, ranks and options.

A runtime refuses an operator above the newest revision it has, so each gets the lowest that will do. The rules restate
`tflite/converter/tools/versioning/op_version.cc` of https://github.com/google-ai-edge/LiteRT as rows, the first that applies wins.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

FLOAT8 = ("FLOAT8_E4M3FN", "FLOAT8_E5M2")


@dataclass(frozen=True)
class Operand:
    """What a rule may ask about a tensor: its TensorType name, its dimensions, its scales (none where it is not quantised), whether it is stored sparse."""

    type: str = ""
    shape: tuple[int, ...] = ()
    scales: Sequence[float] = ()
    axis: int = 0
    sparse: bool = False


@dataclass(frozen=True)
class Use:
    """One operator with its operands and options."""

    inputs: Sequence[Operand]
    outputs: Sequence[Operand]
    options: Mapping[str, Any]

    def type(self, index: int, *names: str) -> bool:
        return index < len(self.inputs) and self.inputs[index].type in names

    def types(self, first: str, second: str, output: str) -> bool:
        return self.type(0, first) and self.type(1, second) and self.result(output)

    def result(self, *names: str) -> bool:
        return bool(self.outputs) and self.outputs[0].type in names

    def rank(self, index: int = 0) -> int:
        return len(self.inputs[index].shape) if index < len(self.inputs) else 0

    def broadcasts(self) -> bool:
        """Binary inputs of different shapes, one of more than four dimensions."""
        return len(self.inputs) > 1 and self.inputs[0].shape != self.inputs[1].shape and max(self.rank(0), self.rank(1)) > 4

    def per_channel(self, operand: Operand, axis: int) -> bool:
        return len(operand.shape) > axis and len(operand.scales) == operand.shape[axis] > 0

    def hybrid(self) -> bool:
        return self.types("FLOAT32", "INT8", "FLOAT32")

    def grouped(self) -> bool:
        return self.rank(0) == self.rank(1) == 4 and self.inputs[0].shape[3] != self.inputs[1].shape[3]

    def wide_bias(self) -> bool:
        return self.types("INT16", "INT8", "INT16") and self.options.get("quantized_bias_type", "FLOAT32") != "FLOAT32"

    def rescaled(self) -> bool:
        """Scale of input 1 * scale of input 2 / scale of output is at least 1, which older MUL kernels could not do."""
        scales = [operand.scales[0] if len(operand.scales) else 0 for operand in (*self.inputs[:2], *self.outputs[:1])]
        return len(scales) == 3 and all(scales) and scales[0] * scales[1] / scales[2] >= 1

    def quantised(self) -> bool:
        return bool(self.inputs and len(self.inputs[0].scales))


Rule = tuple[int, Callable[[Use], Any]]


def _input_is(index: int, *names_and_use: Any) -> bool:
    *names, use = names_and_use
    return use.type(index, *names)


def _either_is(*names_and_use: Any) -> bool:
    *names, use = names_and_use
    return use.type(0, *names) or use.result(*names)


def _input(index: int, **versions: str) -> tuple[Rule, ...]:
    """Rows by the type of one input: `_input(0, v3="INT16", v2="INT8 UINT8")`."""
    return tuple((int(version[1:]), partial(_input_is, index, *names.split())) for version, names in versions.items())


def _first(**versions: str) -> tuple[Rule, ...]:
    return _input(0, **versions)


def _either(**versions: str) -> tuple[Rule, ...]:
    """Rows by the type of the input or the output."""
    return tuple((int(version[1:]), partial(_either_is, *names.split())) for version, names in versions.items())


_FLOAT8 = " ".join(FLOAT8)
_INT8 = _first(v2="INT8")
_INT16_INT8 = _first(v3="INT16", v2="INT8")
_WEIGHTS_INT8 = ((3, lambda use: use.type(1, "INT8") and use.result("FLOAT32") and use.options.get("asymmetric_quantize_inputs")),
                 (2, lambda use: use.type(1, "INT8") and use.result("FLOAT32")))

RULES: dict[str, tuple[Rule, ...]] = {
    "CONV_2D": ((8, Use.wide_bias), (6, Use.grouped), (4, lambda use: use.type(0, "INT16")), (3, lambda use: use.types("INT8", "INT8", "INT8")),
                (7, lambda use: use.types("INT8", "INT4", "INT8")), (5, lambda use: use.hybrid() and use.per_channel(use.inputs[1], 0)), (2, Use.hybrid)),
    "DEPTHWISE_CONV_2D": ((5, lambda use: use.type(0, "INT16")), (6, lambda use: use.hybrid() and use.per_channel(use.inputs[1], 3)), (4, Use.hybrid),
                          (3, lambda use: use.types("INT8", "INT8", "INT8")), (7, lambda use: use.types("INT8", "INT4", "INT8")),
                          (2, lambda use: use.options.get("dilation_w_factor", 1) != 1 or use.options.get("dilation_h_factor", 1) != 1)),
    "EMBEDDING_LOOKUP": ((4, lambda use: use.type(1, "INT4") or (len(use.inputs[1].scales) > 1 and use.per_channel(use.inputs[1], 0))), *_input(1, v5="INT2")),
    "FAKE_QUANT": ((2, lambda use: use.options.get("narrow_range")),),
    "FULLY_CONNECTED": (*_input(1, v14="INT2"), (13, lambda use: use.types("INT16", "INT4", "INT16")),
                        (12, lambda use: use.hybrid() and use.per_channel(use.inputs[1], 0)), (11, Use.wide_bias), (8, lambda use: use.inputs[1].sparse),
                        (7, lambda use: use.type(0, "INT16")), (6, lambda use: len(use.inputs) == 2), (5, lambda use: use.options.get("keep_num_dims")),
                        (4, lambda use: use.types("INT8", "INT8", "INT8")), (10, lambda use: use.types("INT8", "INT4", "INT8")),
                        (9, lambda use: use.hybrid() and use.options.get("asymmetric_quantize_inputs")), (3, Use.hybrid),
                        (2, lambda use: use.options.get("weights_format", "DEFAULT") != "DEFAULT")),
    "GATHER": (*_first(v8=_FLOAT8, v7="INT4"), *_input(1, v6="INT16"), (5, lambda use: use.options.get("batch_dims")),
               *_first(v4="INT16", v3="BOOL", v2="INT8")),
    "SVDF": (*_first(v3="INT8"), (4, lambda use: use.hybrid() and use.options.get("asymmetric_quantize_inputs")), (2, Use.hybrid)),
    "SIGN": _first(v2="INT32"),
    "SIN": _first(v2="FLOAT16"), "COS": _first(v2="FLOAT16"),
    "MUL": (*_first(v8="FLOAT16"), (7, lambda use: (use.type(0, "INT16") and not use.quantised()) or use.type(0, "UINT32")),
            *_first(v6="COMPLEX64", v5="INT64", v4="INT16"), (3, Use.rescaled), *_INT8),
    "MAX_POOL_2D": _INT16_INT8, "AVERAGE_POOL_2D": _INT16_INT8,
    "TRANSPOSE": (*_first(v9="FLOAT16"), (8, lambda use: use.rank() > 6 or use.type(0, "BFLOAT16")), *_first(v7="INT4"), (6, lambda use: use.rank() > 5),
                  *_first(v5="INT16"), (4, lambda use: use.rank() > 4), *_first(v3="BOOL", v2="INT8")),
    "TRANSPOSE_CONV": ((5, Use.wide_bias), (4, lambda use: use.options.get("fused_activation_function", "NONE") != "NONE"),
                       (3, lambda use: len(use.inputs) == 4 and use.inputs[3].type), *_input(1, v2="INT8")),
    "LSTM": ((4, lambda use: use.type(2, "INT8") and use.result("FLOAT32") and use.options.get("asymmetric_quantize_inputs")),
             (3, lambda use: use.type(2, "INT8") and use.result("FLOAT32")), (2, lambda use: use.options.get("kernel_type") == "BASIC")),
    "SPLIT": _input(1, v5=_FLOAT8, v4="INT16", v3="INT32", v2="INT8"),
    "SPARSE_TO_DENSE": _input(2, v3="INT8 UINT8", v2="INT64"),
    "SLICE": (*_first(v8="FLOAT16", v7="INT4", v6="UINT32"), (5, lambda use: use.rank() > 4), *_first(v4="INT16", v3="STRING", v2="INT8")),
    "UNPACK": _first(v6=_FLOAT8, v2="INT8 UINT8", v3="BOOL", v4="INT16", v5="FLOAT16 BFLOAT16"),
    "DEQUANTIZE": (*_first(v9=_FLOAT8, v8="UINT4", v7="INT2", v6="INT4", v3="INT16 FLOAT16"),
                   (5, lambda use: use.type(0, "INT8") and len(use.inputs[0].scales) > 1 and use.per_channel(use.inputs[0], use.inputs[0].axis)), *_INT8),
    "QUANTIZE": (*_either(v5="UINT4", v4="INT4"),
                 (3, lambda use: use.outputs and len(use.outputs[0].scales) > 1 and use.per_channel(use.outputs[0], use.outputs[0].axis)),
                 (2, lambda use: use.result("INT16"))),
    "FLOOR_DIV": _first(v3="INT16 INT8", v2="FLOAT32"),
    "FLOOR_MOD": _first(v2="INT16 INT8"),
    "L2_NORMALIZATION": ((2, lambda use: use.result("INT8")),),
    "ABS": (*_first(v5="INT32"), (3, lambda use: use.type(0, "INT16") and use.quantised()), *_first(v4="INT16", v2="INT8 UINT8")),
    "RELU": _first(v3="INT16", v2="INT8 UINT8"),
    "STRIDED_SLICE": ((8, lambda use: use.options.get("offset")), *_first(v7="UINT32"),
                      (6, lambda use: use.options.get("ellipsis_mask") or use.options.get("new_axis_mask")), *_first(v5="STRING"),
                      (4, lambda use: use.rank() > 4), *_first(v3="BOOL", v2="INT8")),
    "REVERSE_V2": _first(v4=_FLOAT8, v3="INT8", v2="BOOL"),
    "RESIZE_BILINEAR": (*_first(v4="INT16"), (3, lambda use: use.options.get("half_pixel_centers")), *_INT8),
    "RESIZE_NEAREST_NEIGHBOR": (*_first(v4="INT16"), (3, lambda use: use.options.get("half_pixel_centers") or use.options.get("align_corners")), *_INT8),
    "MAXIMUM": (*_first(v4="INT16"), (3, Use.broadcasts), *_INT8), "MINIMUM": (*_first(v4="INT16"), (3, Use.broadcasts), *_INT8),
    "PACK": _first(v5=_FLOAT8, v2="INT8", v3="INT16", v4="UINT32"),
    "TILE": _first(v3="INT8", v2="STRING"),
    "SQUEEZE": _first(v2="STRING"),
    "SPACE_TO_BATCH_ND": (*_first(v4="INT16"), (3, lambda use: use.rank() != 4), *_INT8),
    "BATCH_TO_SPACE_ND": (*_first(v4="INT16"), (3, lambda use: use.rank() != 4), *_INT8),
    "ADD": (*_first(v6="FLOAT16"), (5, lambda use: use.type(0, "INT16") and not use.quantised()), *_first(v4="INT64"),
            (3, lambda use: use.type(0, "INT16") and not use.options.get("pot_scale_int16", True)), *_INT8),
    "SUB": ((5, lambda use: use.type(0, "INT16") and use.result("INT16") and not use.options.get("pot_scale_int16", True)), *_first(v4="INT64"),
            (3, Use.broadcasts), *_INT8),
    "GATHER_ND": (*_first(v6=_FLOAT8, v5="BOOL"), *_input(1, v4="INT16"), *_first(v3="INT16", v2="STRING")),
    "DIV": ((2, Use.broadcasts),),
    "TANH": _INT16_INT8, "LOGISTIC": _INT16_INT8,
    "FILL": _input(1, v5=_FLOAT8, v4="FLOAT16", v3="INT8 INT16", v2="BOOL STRING"),
    "EQUAL": _first(v5="INT16", v3="STRING", v2="INT8"),
    "NOT_EQUAL": _first(v4="INT16", v3="STRING", v2="INT8"),
    "LEAKY_RELU": _first(v2="INT16"),
    "RANGE": _first(v2="INT64"),
    "BATCH_MATMUL": (*_INT16_INT8, (4, lambda use: use.hybrid() and use.options.get("asymmetric_quantize_inputs"))),
    "PAD": (*_first(v6=_FLOAT8, v5="BOOL"), (4, lambda use: use.rank() > 4), *_INT16_INT8),
    "PADV2": (*_first(v6=_FLOAT8, v5="BOOL"), (4, lambda use: use.rank() > 4), *_INT16_INT8),
    "CONCATENATION": _first(v7=_FLOAT8, v6="FLOAT16", v5="INT4", v4="UINT32", v3="INT16", v2="INT8"),
    "SOFTMAX": _first(v4="FLOAT16", v3="INT16", v2="INT8"),
    "MEAN": _INT16_INT8, "MIRROR_PAD": _INT16_INT8, "REDUCE_MAX": _INT16_INT8, "REDUCE_MIN": _INT16_INT8, "RELU6": _INT16_INT8, "RSQRT": _INT16_INT8,
    "RNN": _WEIGHTS_INT8, "UNIDIRECTIONAL_SEQUENCE_RNN": _WEIGHTS_INT8, "BIDIRECTIONAL_SEQUENCE_RNN": _WEIGHTS_INT8,
    "BIDIRECTIONAL_SEQUENCE_LSTM": _WEIGHTS_INT8,
    "UNIDIRECTIONAL_SEQUENCE_LSTM": ((4, lambda use: use.options.get("diagonal_recurrent_tensors")),
                                     (3, lambda use: use.type(2, "INT8") and use.result("FLOAT32") and use.options.get("asymmetric_quantize_inputs")),
                                     (2, lambda use: use.type(2, "INT8") and use.result("FLOAT32"))),
    "ARG_MAX": _first(v3="BOOL", v2="INT8"), "ARG_MIN": _first(v3="BOOL", v2="INT8"),
    "SELECT": (*_first(v4="UINT32"), (3, lambda use: 5 in (use.rank(0), use.rank(1), use.rank(2))), *_INT8),
    "LESS": _INT16_INT8, "GREATER_EQUAL": _INT16_INT8,
    "SELECT_V2": _first(v2="UINT32"),
    "SPLIT_V": _first(v3=_FLOAT8, v2="INT8"),
    "SPACE_TO_DEPTH": _INT8, "SUM": _INT8, "LOG_SOFTMAX": _INT8, "GREATER": _INT8, "LESS_EQUAL": _INT8, "SQUARED_DIFFERENCE": _INT8, "DEPTH_TO_SPACE": _INT8,
    "TOPK_V2": ((3, lambda use: use.type(0, "INT16") or use.type(1, "INT16") or (len(use.outputs) > 1 and use.outputs[1].type == "INT16")), *_INT8),
    "EXP": _first(v2="INT8 INT16"), "LOG": _first(v2="INT8 INT16"), "REDUCE_PROD": _first(v2="INT8 INT16"), "SQRT": _first(v2="INT8 INT16"),
    "DYNAMIC_UPDATE_SLICE": (*_first(v6="BFLOAT16", v5="INT4", v4="INT16", v3="FLOAT16"), *_input(2, v2="INT64")),
    "BROADCAST_TO": (*_first(v4=_FLOAT8, v3="INT8 INT16"), (2, lambda use: True)),
    "CAST": (*_either(v9=_FLOAT8, v8="INT2 UINT4", v7="BFLOAT16"), (6, lambda use: use.type(0, "INT4") and use.result("FLOAT32")),
             *_either(v5="FLOAT64 FLOAT16", v4="UINT16", v3="INT8", v2="UINT32")),
    "WHERE": ((2, lambda use: not use.type(0, "BOOL")),),
    "GELU": _first(v3="FLOAT16", v2="INT8 UINT8"),
}


def version(operator: str, use: Use) -> int:
    """The revision of `operator` that this use of it needs."""
    return next((number for number, applies in RULES.get(operator, ()) if applies(use)), 1)

"""Quantised TFLite operators -> QDQ ONNX: LiteRT's reference kernels and ONNX Runtime, within one quantum of each other.

A row builds a graph for a stored type: int8 and uint8 with zero points, int16 without. The outputs' scales are chosen so that most values are inside.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import running
from running import needs_litert
from tflite_models import Graph, quantized, read

from isomorph.dialects.tflite.to_onnx.pipeline import to_hub

ZERO = {"int8": 3, "uint8": 131, "int16": 0}
UNIT = {"int8": 1.0, "uint8": 1.0, "int16": 1 / 256}
BYTES = ("int8", "uint8")
Built = Callable[[Graph, str], Any]


def real(dtype: str, reach: float) -> Any:
    """The scale at which the stored type reaches about +- `reach`."""
    return quantized(reach / 128 * UNIT[dtype], ZERO[dtype])


def feed(g: Graph, dtype: str, *shape: int, reach: float = 2.0) -> ir.Value:
    return g.input(dtype, *shape, quantization=real(dtype, reach))


def result(g: Graph, dtype: str, *shape: int, reach: float = 2.0) -> ir.Value:
    return g.value(dtype, *shape, quantization=real(dtype, reach))


def weight(g: Graph, dtype: str, *shape: int, axis: int | None = 0, scale: float = 0.01) -> ir.Value:
    """int8 along an axis, as converters write it; uint8 for a whole tensor, as they once did."""
    generator = np.random.default_rng(4)
    if dtype == "uint8":
        return g.const(generator.integers(90, 170, shape).astype(np.uint8), quantized(scale, 128))
    stored = generator.integers(-127, 128, shape).astype(np.int8)
    if axis is None:
        return g.const(stored, quantized(scale / 2))
    return g.const(stored, quantized(np.linspace(0.5, 1, shape[axis]) * scale, 0, axis))


def bias(g: Graph, x: ir.Value, w: ir.Value, count: int) -> ir.Value:
    scale = np.broadcast_to(np.float64(x.meta["quantization"].scale) * w.meta["quantization"].scale, (count,) if w.meta["quantization"].per_axis else ())
    values = np.random.default_rng(8).integers(-300, 300, count).astype(np.int64 if x.dtype == ir.DataType.INT16 else np.int32)
    return g.const(values, quantized(scale))


def conv(dtype: str, g: Graph, **attributes: Any) -> Any:
    x, w = feed(g, dtype, 2, 8, 9, 3), weight(g, dtype, 5, 3, 3, 3)
    return g.CONV_2D(x, w, bias(g, x, w, 5), out=result(g, dtype, 2, 4, 5, 5, reach=8), stride_h=2, stride_w=2, **attributes)


def depthwise(g: Graph, dtype: str) -> Any:
    x, w = feed(g, dtype, 2, 8, 9, 4), weight(g, dtype, 1, 3, 3, 4, axis=3)
    return g.DEPTHWISE_CONV_2D(x, w, bias(g, x, w, 4), out=result(g, dtype, 2, 8, 9, 4, reach=4), stride_h=1, stride_w=1, depth_multiplier=1)


def dense(g: Graph, dtype: str) -> Any:
    x, w = feed(g, dtype, 4, 16), weight(g, dtype, 8, 16, axis=None)
    return g.FULLY_CONNECTED(x, w, bias(g, x, w, 8), out=result(g, dtype, 4, 8, reach=8), fused_activation_function="RELU")


def transpose_conv(g: Graph, dtype: str) -> Any:
    x, w = feed(g, dtype, 1, 5, 5, 3), weight(g, dtype, 4, 3, 3, 3)
    return g.TRANSPOSE_CONV(g.const([1, 10, 10, 4]), w, x, bias(g, x, w, 4), out=result(g, dtype, 1, 10, 10, 4, reach=6), stride_h=2, stride_w=2)


def int4_dense(g: Graph, dtype: str) -> Any:
    import ml_dtypes
    x = feed(g, dtype, 4, 16)
    w = g.const(np.random.default_rng(4).integers(-7, 8, (8, 16)).astype(ml_dtypes.int4), quantized(np.linspace(0.05, 0.1, 8), 0, 0))
    return g.FULLY_CONNECTED(x, w, bias(g, x, w, 8), out=result(g, dtype, 4, 8, reach=6))


def elementwise(operator: str, reach: float = 2.0, shape: tuple = (3, 5, 7), **attributes: Any) -> Built:
    return lambda g, dtype: getattr(g, operator)(feed(g, dtype, *shape), out=result(g, dtype, *shape, reach=reach), **attributes)


def fixed(operator: str, scale: float, zero: dict[str, int], shape: tuple = (3, 11), **attributes: Any) -> Built:
    """An output whose scale the kernel prescribes."""
    def build(g: Graph, dtype: str) -> Any:
        units = {"int16": 1 / 32768}.get(dtype, scale)
        out = g.value(dtype, *shape, quantization=quantized(units, zero.get(dtype, 0)))
        return getattr(g, operator)(feed(g, dtype, *shape, reach=4.0), out=out, **attributes)
    return build


def pair(operator: str, reach: float, right: tuple = (3, 5, 7), **attributes: Any) -> Built:
    return lambda g, dtype: getattr(g, operator)(feed(g, dtype, 3, 5, 7), feed(g, dtype, *right, reach=1.0), out=result(g, dtype, 3, 5, 7, reach=reach),
                                                 **attributes)


def pool(operator: str) -> Built:
    return lambda g, dtype: getattr(g, operator)(feed(g, dtype, 2, 7, 6, 3), out=result(g, dtype, 2, 4, 3, 3), stride_w=2, stride_h=2, filter_width=3,
                                                 filter_height=2)


def moved(operator: str, x: tuple, y: tuple, *constants: Any, **attributes: Any) -> Built:
    return lambda g, dtype: getattr(g, operator)(feed(g, dtype, *x), *(g.const(np.asarray(item, np.int32)) for item in constants), out=result(g, dtype, *y),
                                                 **attributes)


def comparison(g: Graph, dtype: str) -> Any:
    return g.GREATER(feed(g, dtype, 3, 5), feed(g, dtype, 3, 5), out=("bool", 3, 5))


def concatenation(g: Graph, dtype: str) -> Any:
    return g.CONCATENATION(feed(g, dtype, 3, 5), feed(g, dtype, 3, 4), out=result(g, dtype, 3, 9), axis=1)


def requantize(g: Graph, dtype: str) -> Any:
    return g.QUANTIZE(feed(g, dtype, 30), out=result(g, dtype, 30, reach=3.0))


def to_float(g: Graph, dtype: str) -> Any:
    return g.DEQUANTIZE(feed(g, dtype, 30), out=("float32", 30))


def from_float(g: Graph, dtype: str) -> Any:
    return g.QUANTIZE(g.input("float32", 30), out=result(g, dtype, 30, reach=0.8))


ROWS: dict[str, tuple[Built, tuple[str, ...]]] = {
    "CONV_2D": (lambda g, dtype: conv(dtype, g), ("int8", "uint8", "int16")),
    "CONV_2D:relu6": (lambda g, dtype: conv(dtype, g, fused_activation_function="RELU6"), BYTES),
    "DEPTHWISE_CONV_2D": (depthwise, ("int8", "uint8", "int16")), "FULLY_CONNECTED": (dense, ("int8", "uint8", "int16")),
    "FULLY_CONNECTED:int4": (int4_dense, ("int8",)), "TRANSPOSE_CONV": (transpose_conv, ("int8",)),
    "ADD": (pair("ADD", 3.0), ("int8", "uint8", "int16")), "ADD:relu": (pair("ADD", 3.0, fused_activation_function="RELU"), BYTES),
    "SUB": (pair("SUB", 3.0, right=(5, 1)), BYTES), "MUL": (pair("MUL", 2.0), ("int8", "uint8", "int16")),
    "MAXIMUM": (lambda g, dtype: g.MAXIMUM(feed(g, dtype, 3, 5), feed(g, dtype, 3, 5), out=result(g, dtype, 3, 5)), BYTES),
    "AVERAGE_POOL_2D": (pool("AVERAGE_POOL_2D"), ("int8", "uint8", "int16")), "MAX_POOL_2D": (pool("MAX_POOL_2D"), ("int8", "uint8", "int16")),
    "SOFTMAX": (fixed("SOFTMAX", 1 / 256, {"int8": -128}, beta=1.0), ("int8", "uint8", "int16")),
    "LOGISTIC": (fixed("LOGISTIC", 1 / 256, {"int8": -128}), ("int8", "uint8", "int16")),
    "TANH": (fixed("TANH", 1 / 128, {"uint8": 128}), ("int8", "uint8", "int16")), "LOG_SOFTMAX": (fixed("LOG_SOFTMAX", 16 / 256, {"int8": 127,
    "uint8": 255}), ("int8",)),
    "L2_NORMALIZATION": (fixed("L2_NORMALIZATION", 1 / 128, {"uint8": 128}), BYTES),
    "HARD_SWISH": (elementwise("HARD_SWISH"), BYTES), "RELU": (elementwise("RELU"), BYTES), "RELU6": (elementwise("RELU6"), BYTES),
    "LEAKY_RELU": (elementwise("LEAKY_RELU", alpha=0.25), BYTES), "GELU": (elementwise("GELU"), BYTES),
    "ABS": (elementwise("ABS"), ("int8", "int16")), "EXP": (elementwise("EXP", reach=8.0), ("int8",)),
    "MEAN": (moved("MEAN", (2, 4, 5, 3), (2, 3), [1, 2]), BYTES),
    "SUM": (lambda g, dtype: g.SUM(feed(g, dtype, 2, 4, 3), g.const([1]), out=result(g, dtype, 2, 3, reach=6)), BYTES),
    "REDUCE_MAX": (moved("REDUCE_MAX", (2, 4, 3), (2, 3), [1]), BYTES),
    "RESHAPE": (moved("RESHAPE", (2, 6), (3, 4), [3, 4]), BYTES), "TRANSPOSE": (moved("TRANSPOSE", (2, 3, 4), (4, 2, 3), [2, 0, 1]), BYTES),
    "SLICE": (moved("SLICE", (4, 5), (2, 3), [1, 0], [2, 3]), BYTES),
    "STRIDED_SLICE": (moved("STRIDED_SLICE", (4, 5), (5,), [1], [2], [1], shrink_axis_mask=1), BYTES),
    "PAD": (moved("PAD", (2, 3), (3, 6), [[1, 0], [2, 1]]), ("int8", "uint8", "int16")), "GATHER": (moved("GATHER", (4, 5), (3, 5), [2, 0, 3]), BYTES),
    "SPACE_TO_DEPTH": (moved("SPACE_TO_DEPTH", (1, 4, 4, 2), (1, 2, 2, 8), block_size=2), BYTES),
    "RESIZE_BILINEAR": (moved("RESIZE_BILINEAR", (1, 4, 5, 2), (1, 7, 9, 2), [7, 9], half_pixel_centers=1), BYTES),
    "RESIZE_NEAREST_NEIGHBOR": (moved("RESIZE_NEAREST_NEIGHBOR", (1, 4, 5, 2), (1, 7, 9, 2), [7, 9]), BYTES),
    "CONCATENATION": (concatenation, ("int8", "uint8", "int16")), "GREATER": (comparison, BYTES), "QUANTIZE": (requantize, BYTES),
    "DEQUANTIZE": (to_float, ("int8", "uint8", "int16")),
    "QUANTIZE:float": (from_float, ("int8", "uint8", "int16")),
    "PRELU": (lambda g, dtype: g.PRELU(feed(g, dtype, 2, 3, 3, 4), weight(g, dtype, 1, 1, 4, axis=None), out=result(g, dtype, 2, 3, 3, 4)), BYTES),
    "BATCH_MATMUL": (lambda g, dtype: g.BATCH_MATMUL(feed(g, dtype, 2, 3, 4), feed(g, dtype, 2, 4, 5), out=result(g, dtype, 2, 3, 5, reach=8)), ("int8",)),
    "ARG_MAX": (lambda g, dtype: g.ARG_MAX(feed(g, dtype, 3, 50), g.const(np.int32(1)), out=("int32", 3), output_type="INT32"), BYTES),
}
CASES = [(name, dtype) for name, (_, dtypes) in ROWS.items() for dtype in dtypes]


@needs_litert
@pytest.mark.parametrize(("name", "dtype"), CASES, ids=[f"{name}-{dtype}" for name, dtype in CASES])
def test_quantised_operator_is_within_a_quantum(name, dtype, tmp_path):
    g = Graph()
    output = ROWS[name][0](g, dtype)
    path = g.save(tmp_path / "model.tflite", output)
    model = to_hub(read(path))
    ir.save(model.ir, tmp_path / "model.onnx")
    for seed in (1, 5):
        whole = {value.name: np.random.default_rng(seed + place).integers(*bounds(dtype), [int(dim) for dim in value.shape], endpoint=True).astype(dtype)
                 for place, value in enumerate(g.inputs) if value.dtype != ir.DataType.FLOAT}
        feeds, expected = running.run(path, whole or None, seed=seed, kernels=KERNELS.get(name, "reference"))
        _, found = running.run(tmp_path / "model.onnx", feeds)
        (want,), (have,) = expected.values(), found.values()
        assert want.dtype == have.dtype
        assert want.shape == have.shape
        if want.dtype == np.float32:
            assert np.allclose(want, have, rtol=1e-6)
        else:
            difference = np.abs(want.astype(np.int64) - have.astype(np.int64))
            assert difference.max() <= (0 if want.dtype == bool else MORE.get((name, dtype), 1))
            assert want.dtype == bool or len(np.unique(want)) > 2


EXACT = ("CONV_2D", "CONV_2D:relu6", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "ADD", "ADD:relu", "SUB", "MUL", "AVERAGE_POOL_2D", "QUANTIZE")


@needs_litert
@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name in EXACT for dtype in BYTES])
def test_arithmetic_of_integers_has_the_bits_of_the_reference(name, dtype, tmp_path):
    g = Graph()
    path = g.save(tmp_path / "model.tflite", ROWS[name][0](g, dtype))
    model = to_hub(read(path), integers=True)
    assert not {node.op_type for node in model.graph} & {"QuantizeLinear", "DequantizeLinear"}
    ir.save(model.ir, tmp_path / "model.onnx")
    for seed in (1, 5):
        limits = np.iinfo(dtype)
        whole = {value.name: np.random.default_rng(seed + place).integers(limits.min, limits.max, [int(dim) for dim in value.shape], dtype, endpoint=True)
                 for place, value in enumerate(g.inputs)}
        feeds, expected = running.run(path, whole, seed=seed, kernels="reference")
        _, found = running.run(tmp_path / "model.onnx", feeds)
        (want,), (have,) = expected.values(), found.values()
        np.testing.assert_array_equal(want, have)
        assert len(np.unique(want)) > 10


def test_an_operator_without_a_rule_for_integers_is_computed_in_floats():
    g = Graph()
    model = to_hub(g.model(ROWS["HARD_SWISH"][0](g, "int8")), integers=True)
    assert [node.op_type for node in model.graph] == ["DequantizeLinear", "HardSwish", "QuantizeLinear"]


# Kernels that compute in tables or in few bits, where one quantum of 1 / 32768 is finer than they are
KERNELS = {"SUM": "builtin"}                        # its reference kernel adds int8 in int8, which overflows
MORE = {("SOFTMAX", "int16"): 4, ("LOGISTIC", "int16"): 4, ("TANH", "int16"): 4}


def bounds(dtype: str) -> tuple[int, int]:
    """Most of the range: sums of extreme values would only show saturation."""
    limits = np.iinfo(dtype)
    return (limits.min // 2, limits.max // 2) if limits.min else (limits.max // 4, 3 * limits.max // 4)


@needs_litert
def test_weights_stay_integers():
    g = Graph()
    output = conv("int8", g)
    from isomorph.formats import tflite
    model = g.model(output)
    assert tflite.FORMAT.dialect == model.dialect
    hub = to_hub(model)
    stored = [value for value in hub.graph.initializers.values() if value.dtype == ir.DataType.INT8 and value.shape.rank() == 4]
    assert [list(value.shape) for value in stored] == [[5, 3, 3, 3]]
    operators = [node.op_type for node in hub.graph]
    assert operators.count("QuantizeLinear") == 1
    assert operators.count("DequantizeLinear") == 3

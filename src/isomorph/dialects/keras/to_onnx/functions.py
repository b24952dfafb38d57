"""Raw TensorFlow functions in models of Keras 2 (`TFOpLambda`, `SlicingOpLambda`): most are operations of Keras under another name."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.images import resized
from isomorph.dialects.keras.to_onnx.operations import axes_of, paired, value_of
from isomorph.dialects.keras.to_onnx.table import tf
from isomorph.dialects.keras.tracing import TYPES

# function -> (class of the operation, names of its arguments in TensorFlow)
UNARY = {
    "math.abs": "Absolute", "abs": "Absolute", "math.negative": "Negative", "math.floor": "Floor", "floor": "Floor", "math.ceil": "Ceil", "math.round": "Round",
    "round": "Round", "math.sign": "Sign", "sign": "Sign", "math.sin": "Sin", "math.cos": "Cos", "math.tan": "Tan", "math.asin": "Arcsin",
    "math.acos": "Arccos",
    "math.atan": "Arctan", "math.sinh": "Sinh", "math.cosh": "Cosh", "math.asinh": "Arcsinh", "math.acosh": "Arccosh", "math.atanh": "Arctanh",
    "math.exp": "Exp",
    "math.expm1": "Expm1", "math.log": "Log", "math.log1p": "Log1p", "math.sqrt": "Sqrt", "sqrt": "Sqrt", "math.rsqrt": "Rsqrt", "math.square": "Square",
    "square": "Square", "math.reciprocal": "Reciprocal", "math.erf": "Erf", "math.is_nan": "Isnan", "math.is_inf": "Isinf", "math.is_finite": "Isfinite",
    "math.logical_not": "LogicalNot", "zeros_like": "ZerosLike", "ones_like": "OnesLike", "identity": "Copy", "stop_gradient": "StopGradient",
    "nn.crelu": "CRelu", "nn.selu": "Selu", "nn.softplus": "Softplus", "sigmoid": "Sigmoid", "tanh": "Tanh", "exp": "Exp", "nn.tanh": "Tanh",
    "nn.sigmoid": "Sigmoid",
    "compat.v1.math.negative": "Negative", "math.rint": "Round",
}
BINARY = {
    "math.add": "Add", "__operators__.add": "Add", "add": "Add", "math.subtract": "Subtract", "subtract": "Subtract", "math.multiply": "Multiply",
    "multiply": "Multiply", "math.truediv": "Divide", "math.divide": "Divide", "divide": "Divide", "realdiv": "Divide", "math.pow": "Power", "pow": "Power",
    "math.maximum": "Maximum", "maximum": "Maximum", "math.minimum": "Minimum", "minimum": "Minimum", "math.floormod": "Mod", "math.mod": "Mod",
    "math.floordiv": "FloorDivide", "floor_div": "FloorDivide", "floordiv": "FloorDivide", "math.equal": "Equal", "__operators__.eq": "Equal",
    "math.not_equal": "NotEqual", "__operators__.ne": "NotEqual",
    "math.greater": "Greater", "math.greater_equal": "GreaterEqual", "math.less": "Less", "math.less_equal": "LessEqual", "math.logical_and": "LogicalAnd",
    "math.logical_or": "LogicalOr", "math.logical_xor": "LogicalXor", "math.atan2": "Arctan2", "math.divide_no_nan": "DivideNoNan",
}
REDUCTIONS = {
    "math.reduce_sum": "Sum", "math.reduce_mean": "Mean", "math.reduce_max": "Max", "math.reduce_min": "Min", "math.reduce_prod": "Prod",
    "math.reduce_any": "Any",
    "math.reduce_all": "All", "math.reduce_logsumexp": "Logsumexp", "math.reduce_std": "Std", "math.reduce_variance": "Var",
}
REDUCTIONS |= {name.removeprefix("math."): kind for name, kind in REDUCTIONS.items()}


def _unary(kind: str) -> Any:
    def rule(op: Op, x: Any, **settings: Any) -> Value:
        return op.call("ops", kind, x)
    return rule


def _binary(kind: str) -> Any:
    def rule(op: Op, x: Any, y: Any = None, **settings: Any) -> Value:
        return op.call("ops", kind, x, y)
    return rule


def _reduction(kind: str) -> Any:
    def rule(op: Op, input_tensor: Value, axis: Any = None, keepdims: bool = False) -> Value:
        return op.call("ops", kind, input_tensor, axis=axis, keepdims=bool(keepdims))
    return rule


for _table, _rule in ((UNARY, _unary), (BINARY, _binary), (REDUCTIONS, _reduction)):
    for _name, _kind in _table.items():
        tf(_name)(_rule(_kind))


@tf("__operators__.getitem", "getitem")
def getitem(op: Op, x: Value, slice_spec: Any) -> Value:
    return op.call("ops", "GetItem", x, slice_spec)


@tf("math.squared_difference")
def squared_difference(op: Op, x: Any, y: Any) -> Value:
    difference = op.Sub(*paired(op, x, y))
    return op.Mul(difference, difference)


@tf("concat")
def concat(op: Op, values: Any, axis: int = 0) -> Value:
    return op.call("ops", "Concatenate", values, axis=axis)


@tf("stack")
def stack(op: Op, values: Any, axis: int = 0) -> Value:
    return op.call("ops", "Stack", values, axis=axis)


@tf("split")
def split(op: Op, value: Value, num_or_size_splits: Any, axis: int = 0) -> Any:
    if isinstance(num_or_size_splits, list):
        sizes = list(num_or_size_splits)
        edges = [int(edge) for edge in np.cumsum(sizes)[:-1]] if -1 not in sizes else op.reject("one of its sizes is left open")
        return op.call("ops", "Split", value, indices_or_sections=edges, axis=axis)
    return op.call("ops", "Split", value, indices_or_sections=num_or_size_splits, axis=axis)


@tf("unstack")
def unstack(op: Op, value: Value, num: int | None = None, axis: int = 0) -> Any:
    return op.call("ops", "Unstack", value, num=num, axis=axis)


@tf("reshape")
def reshape(op: Op, tensor: Value, shape: Any) -> Value:
    if isinstance(shape, Value):
        return op.Reshape(tensor, op.cast(shape, ir.DataType.INT64), allowzero=1)
    return op.call("ops", "Reshape", tensor, shape)


@tf("transpose", "compat.v1.transpose")
def transpose(op: Op, a: Value, perm: Any = None) -> Value:
    return op.call("ops", "Transpose", a, axes=perm)


@tf("expand_dims", "compat.v1.expand_dims")
def expand_dims(op: Op, input: Value, axis: Any = None) -> Value:
    return op.call("ops", "ExpandDims", input, axis=axis)


@tf("squeeze", "compat.v1.squeeze")
def squeeze(op: Op, input: Value, axis: Any = None) -> Value:
    return op.call("ops", "Squeeze", input, axis=axis)


@tf("tile")
def tile(op: Op, input: Value, multiples: Any) -> Value:
    return op.Tile(input, op.cast(value_of(op, multiples), ir.DataType.INT64))


@tf("repeat")
def repeat(op: Op, input: Value, repeats: Any, axis: Any = None) -> Value:
    return op.call("ops", "Repeat", input, repeats=repeats, axis=axis)


@tf("gather", "compat.v1.gather")
def gather(op: Op, params: Any, indices: Any, validate_indices: Any = None, axis: Any = None, batch_dims: int = 0) -> Value:
    if batch_dims:
        return op.reject("batched gathering is not mapped")
    return op.call("ops", "Take", params, indices, axis=0 if axis is None else axis)


@tf("gather_nd")
def gather_nd(op: Op, params: Value, indices: Any, batch_dims: int = 0) -> Value:
    return op.GatherND(params, op.cast(value_of(op, indices), ir.DataType.INT64), batch_dims=batch_dims)


@tf("pad", "compat.v1.pad")
def pad(op: Op, tensor: Value, paddings: Any, mode: str = "CONSTANT", constant_values: Any = 0) -> Value:
    return op.call("ops", "Pad", tensor, None if mode != "CONSTANT" else constant_values, pad_width=paddings, mode=mode.lower())


@tf("clip_by_value")
def clip_by_value(op: Op, t: Value, clip_value_min: Any, clip_value_max: Any) -> Value:
    return op.Clip(t, value_of(op, clip_value_min, t), value_of(op, clip_value_max, t))


@tf("cast")
def cast(op: Op, x: Value, dtype: Any) -> Value:
    return op.cast(x, ir.DataType[TYPES[str(dtype)]])


@tf("linalg.matmul", "matmul")
def matmul(op: Op, a: Any, b: Any, transpose_a: bool = False, transpose_b: bool = False) -> Value:
    left, right = paired(op, a, b)
    return op.MatMul(swapped(op, left) if transpose_a else left, swapped(op, right) if transpose_b else right)


def swapped(op: Op, x: Value) -> Value:
    rank = op.rank(x)
    return op.turned(x, (*range(rank - 2), rank - 1, rank - 2))


@tf("einsum")
def einsum(op: Op, equation: str, *inputs: Any) -> Value:
    values = inputs[0] if len(inputs) == 1 and isinstance(inputs[0], list) else list(inputs)
    return op.Einsum(*values, equation=equation.replace(" ", ""))


@tf("tensordot")
def tensordot(op: Op, a: Any, b: Any, axes: Any) -> Value:
    return op.call("ops", "Tensordot", a, b, axes=axes)


@tf("where")
def where(op: Op, condition: Any, x: Any = None, y: Any = None) -> Value:
    return op.call("ops", "Where", condition, x, y)


@tf("math.argmax", "argmax", "math.argmin", "argmin")
def arg(op: Op, input: Value, axis: Any = None, output_type: Any = "int64") -> Value:
    kind = "ArgMax" if "argmax" in op.layer.class_name else "ArgMin"
    found = op.make(kind, [input], {"axis": 0 if axis is None else axis, "keepdims": 0})
    return op.cast(found, ir.DataType[TYPES[str(output_type)]])


@tf("nn.l2_normalize", "math.l2_normalize", "linalg.l2_normalize")
def l2_normalize(op: Op, x: Value, axis: Any = None, epsilon: float = 1e-12) -> Value:
    squares = op.ReduceSumSquare(x, op.const(axes_of(op, x, axis)), keepdims=1)
    return op.Div(x, op.Sqrt(op.Max(squares, op.scalar(epsilon, x))))


@tf("norm", "linalg.norm")
def norm(op: Op, tensor: Value, ord: Any = "euclidean", axis: Any = None, keepdims: Any = None) -> Value:
    return op.call("ops", "Norm", tensor, ord=ord, axis=axis, keepdims=bool(keepdims))


@tf("one_hot")
def one_hot(op: Op, indices: Value, depth: int, on_value: Any = None, off_value: Any = None, axis: Any = None, dtype: Any = None) -> Value:
    if on_value is not None or off_value is not None:
        return op.reject("other values than one and zero are not mapped")
    return op.call("ops", "OneHot", indices, num_classes=depth, axis=-1 if axis is None else axis, dtype=dtype)


@tf("math.cumsum", "cumsum", "math.cumulative_sum")
def cumsum(op: Op, x: Value, axis: int = 0, exclusive: bool = False, reverse: bool = False) -> Value:
    return op.CumSum(x, op.const(np.asarray(axis)), exclusive=int(exclusive), reverse=int(reverse))


@tf("reverse")
def reverse(op: Op, tensor: Value, axis: Any) -> Value:
    return op.call("ops", "Flip", tensor, axis=axis)


@tf("math.top_k", "nn.top_k")
def top_k(op: Op, input: Value, k: int = 1, sorted: bool = True) -> list[Value]:
    return op.call("ops", "TopK", input, k=k)


@tf("broadcast_to")
def broadcast_to(op: Op, input: Value, shape: Any) -> Value:
    return op.Expand(input, op.cast(value_of(op, shape), ir.DataType.INT64))


@tf("shape", "compat.v1.shape")
def shape(op: Op, input: Value, out_type: Any = "int32") -> Value:
    return op.cast(op.Shape(input), ir.DataType[TYPES[str(out_type or "int32")]])


@tf("fill")
def fill(op: Op, dims: Any, value: Any) -> Value:
    return op.Expand(value_of(op, value), op.cast(value_of(op, dims), ir.DataType.INT64))


@tf("range")
def range_(op: Op, start: Any, limit: Any = None, delta: Any = 1) -> Value:
    return op.call("ops", "Arange", *([start] if limit is None else [start, limit, delta]))


@tf("nn.bias_add")
def bias_add(op: Op, value: Value, bias: Any, data_format: Any = None) -> Value:
    vector = value_of(op, bias, value)
    if data_format and data_format.startswith("NC"):
        vector = op.Reshape(vector, op.const([-1, *[1] * (op.rank(value) - 2)]))
    return op.Add(value, vector)


# ---- pictures

def _settings(op: Op, x: Value, strides: Any, padding: Any, data_format: Any, dilations: Any = None) -> dict[str, Any]:
    rank = op.rank(x)
    first = bool(data_format and data_format.startswith("NC"))
    if not isinstance(padding, str):
        return op.reject("explicit padding is not mapped")
    return {"strides": spatial(strides, rank, first), "padding": padding.lower(), "data_format": "channels_first" if first else "channels_last"} | (
        {"dilation_rate": spatial(dilations, rank, first)} if dilations is not None else {})


def spatial(sizes: Any, rank: int, first: bool) -> list[int]:
    """The sizes for spatial axes, of all axes or of those or one for all."""
    if isinstance(sizes, int):
        return [sizes] * (rank - 2)
    if len(sizes) == rank:
        return list(sizes[2:] if first else sizes[1:-1])
    return list(sizes) * (rank - 2) if len(sizes) == 1 else list(sizes)


@tf("nn.conv2d", "nn.conv1d", "nn.convolution", "nn.conv3d")
def conv(op: Op, input: Value, filters: Any, strides: Any = 1, padding: Any = "VALID", data_format: Any = None, dilations: Any = None) -> Value:
    return op.call("ops", "Conv", input, value_of(op, filters, input), **_settings(op, input, strides or 1, padding, data_format, dilations))


@tf("compat.v1.nn.conv2d")
def old_conv(op: Op, input: Value, filter: Any, strides: Any = 1, padding: Any = "VALID", use_cudnn_on_gpu: bool = True, data_format: Any = None,
             dilations: Any = None) -> Value:
    return conv(op, input, filter, strides, padding, data_format, dilations)


@tf("nn.depthwise_conv2d", "compat.v1.nn.depthwise_conv2d")
def depthwise(op: Op, input: Value, filter: Any, strides: Any, padding: Any, rate: Any = None, data_format: Any = None, dilations: Any = None) -> Value:
    dilations = rate if dilations is None else dilations
    return op.call("ops", "DepthwiseConv", input, value_of(op, filter, input), **_settings(op, input, strides, padding, data_format, dilations))


@tf("nn.max_pool2d", "nn.max_pool", "nn.max_pool1d", "nn.max_pool3d", "nn.avg_pool2d", "nn.avg_pool", "nn.avg_pool1d", "nn.avg_pool3d")
def pool(op: Op, input: Value, ksize: Any, strides: Any, padding: Any, data_format: Any = None) -> Value:
    settings = _settings(op, input, strides, padding, data_format)
    window = spatial(ksize, op.rank(input), settings["data_format"] == "channels_first")
    return op.call("ops", "MaxPool" if "max" in op.layer.class_name else "AveragePool", input, pool_size=window, **settings)


@tf("image.resize", "compat.v1.image.resize")
def resize(op: Op, images: Value, size: Any, method: Any = "bilinear", preserve_aspect_ratio: bool = False, antialias: bool = False) -> Value:
    if preserve_aspect_ratio or antialias or isinstance(size, Value):
        return op.reject("only a fixed size without antialiasing is mapped")
    y = resized(op, op.first(images, None), int(size[0]), int(size[1]), str(method).lower())
    return op.last(y, None)


@tf("compat.v1.image.resize_bilinear", "compat.v1.image.resize_nearest_neighbor")
def old_resize(op: Op, images: Value, size: Any, align_corners: bool = False, half_pixel_centers: bool = False) -> Value:
    how = "align_corners" if align_corners else "half_pixel" if half_pixel_centers else "asymmetric"
    x = op.first(images, None)
    sizes = op.shape(op.size_of(x, 0), op.size_of(x, 1), int(size[0]), int(size[1]))
    linear = "bilinear" in op.layer.class_name
    y = op.Resize(x, None, None, sizes, mode="linear" if linear else "nearest", coordinate_transformation_mode=how,
                  nearest_mode=None if linear else "round_prefer_ceil" if align_corners else "floor")
    return op.last(y, None)


@tf("nn.depth_to_space", "nn.space_to_depth")
def blocks(op: Op, input: Value, block_size: int, data_format: str = "NHWC") -> Value:
    kind = "DepthToSpace" if "depth_to" in op.layer.class_name else "SpaceToDepth"
    return op.call("ops", kind, input, block_size=block_size, data_format="channels_first" if data_format.startswith("NC") else "channels_last")

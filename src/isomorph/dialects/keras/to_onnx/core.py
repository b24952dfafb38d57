"""Dense and embedding layers, reshaping, cropping, padding, merging, and what does nothing when a model is used."""
from __future__ import annotations

import math
from functools import reduce
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value, policy
from isomorph.dialects.keras.to_onnx.convolution import several
from isomorph.dialects.keras.to_onnx.table import layer
from isomorph.dialects.keras.tracing import TYPES
from isomorph.dialects.keras.variables import quantization_of, wrapped
from isomorph.tensors import lazily

# Layers that only act while a model is trained.
IDLE = ("Dropout", "SpatialDropout1D", "SpatialDropout2D", "SpatialDropout3D", "AlphaDropout", "GaussianDropout", "GaussianNoise", "ActivityRegularization",
        "AugMix", "CutMix", "MixUp", "RandAugment", "RandomBrightness", "RandomColorDegeneration", "RandomColorJitter", "RandomContrast",
        "RandomElasticTransform", "RandomErasing", "RandomFlip", "RandomGaussianBlur", "RandomGrayscale", "RandomHue", "RandomInvert", "RandomPerspective",
        "RandomPosterization", "RandomRotation", "RandomSaturation", "RandomSharpness", "RandomShear", "RandomTranslation", "RandomZoom", "RandomWidth",
        "RandomHeight", "Equalization", "Solarization", "MaxNumBoundingBoxes")


@layer(*IDLE)
def idle(op: Op, x: Any, **settings: Any) -> Any:
    return x


@layer("Dense")
def dense(op: Op, x: Value, *, units: int = 0, activation: Any = None, use_bias: bool = True) -> Value:
    """The last axis times the kernel."""
    mode = quantization_of(op.layer.config)
    y = op.MatMul(x, op.need("kernel")) if not mode else quantized_product(op, x, mode)
    bias = op.variable("bias") if use_bias else None
    return op.activation(y if bias is None else op.Add(y, bias), activation)


LEAST = 1e-7                                    # keras.backend.epsilon()


def quantized_product(op: Op, x: Value, mode: str) -> Value:
    """Weights of eight bits; the input too, where the layer has a quantiser for it, with a scale for each row. Keras keeps inverse scales."""
    if mode.startswith("int4"):
        return op.MatMul(x, four_bits(op, "kernel", op.static(op.need("kernel_scale"))[-1], by_row=False))
    if mode != "int8":
        return op.reject(f"weights quantised by {mode} are not mapped")
    kernel = op.need("kernel")
    inverse = op.stored(lambda array: (1 / array.astype(np.float32)).reshape(-1), op.need("kernel_scale"), dims=(op.static(kernel)[1],))
    if not (op.layer.config.get("quantization_config") or {}).get("config", {}).get("activation_quantizer"):
        return op.MatMul(x, op.DequantizeLinear(kernel, inverse, axis=1))
    largest = op.ReduceMax(op.Abs(x), op.const([-1]), keepdims=1)
    scale = op.Div(op.scalar(127, x), op.Add(largest, op.scalar(LEAST, x)))
    rounded = op.Clip(op.Round(op.Mul(x, scale)), op.scalar(-127, x), op.scalar(127, x))
    return op.Mul(op.Div(op.MatMul(rounded, op.cast(kernel, x.dtype)), scale), inverse)


@layer("EinsumDense")
def einsum_dense(op: Op, x: Value, *, equation: str, output_shape: Any = None, activation: Any = None, bias_axes: str | None = None) -> Value:
    if quantization_of(op.layer.config):
        return op.reject("its quantised weights are not mapped")
    y = op.Einsum(x, op.need("kernel"), equation=spelled(equation, op.rank(x)))
    bias = op.variable("bias")
    return op.activation(y if bias is None else op.Add(y, bias), activation)


def spelled(equation: str, rank: int) -> str:
    """Keras writes `...` on one side only at times; ONNX takes them as they are."""
    return equation.replace(" ", "")


@layer("Embedding")
def embedding(op: Op, x: Value, *, output_dim: int = 0, mask_zero: bool = False) -> Value:
    """Rows of the table."""
    index = op.cast(x, ir.DataType.INT32) if x.dtype not in (ir.DataType.INT32, ir.DataType.INT64) else x
    if mask_zero:
        op.result_mask = op.Not(op.Equal(index, op.scalar(0, index)))
    if quantization_of(op.layer.config):
        return op.Gather(_quantized_table(op, output_dim), index, axis=0)
    return op.Gather(op.need("embeddings"), index, axis=0)


def _quantized_table(op: Op, width: int) -> Value:
    mode = quantization_of(op.layer.config)
    if mode.startswith("int4"):
        return four_bits(op, "embeddings", width, by_row=True)
    if mode != "int8":
        return op.reject(f"weights quantised by {mode} are not mapped")
    scale = op.stored(lambda array: (1 / array.astype(np.float32)).reshape(-1), op.need("embeddings_scale"), dims=(op.static(op.need("embeddings"))[0],))
    return op.DequantizeLinear(op.need("embeddings"), scale, axis=0)


def four_bits(op: Op, name: str, width: int, *, by_row: bool) -> Value:
    """Two numbers to a byte along the last axis, the first in the low half; in blocks (q - zero) * scale, else q / scale. As floats when they are written."""
    packed, scale = op.need(name), op.need(f"{name}_scale")
    dims = (op.static(packed)[0], width)

    def whole(pairs: np.ndarray) -> np.ndarray:
        halves = np.stack([pairs.view(np.int8) << 4, pairs.view(np.int8) & ~15], -1).astype(np.int8) >> 4
        return halves.reshape(len(pairs), -1)[:, :width].astype(np.float32)

    if "g_idx" not in op.variables:
        shape = (-1, 1) if by_row else (1, -1)
        return op.const(
            lazily(lambda pairs, scales: whole(pairs) / scales.astype(np.float32).reshape(shape), packed.const_value, scale.const_value, dims=dims,
                   element_type=FLOAT32), name=name)

    def blocks(pairs: np.ndarray, scales: np.ndarray, zeros: np.ndarray, groups: np.ndarray) -> np.ndarray:
        place = groups.astype(np.int64)
        each = (scales[:, place], zeros[:, place]) if by_row else (scales[place], zeros[place])
        return (whole(pairs) - each[1].astype(np.float32)) * each[0].astype(np.float32)

    parts = [packed, scale, op.need(f"{name}_zero"), op.need("g_idx")]
    return op.const(lazily(blocks, *(part.const_value for part in parts), dims=dims, element_type=FLOAT32), name=name)


FLOAT32 = int(ir.DataType.FLOAT)


@layer("ReversibleEmbedding")
def reversible_embedding(op: Op, x: Value, *, output_dim: int = 0, mask_zero: bool = False, tie_weights: bool = True, reverse: bool = False,
                         logit_soft_cap: float | None = None, reverse_dtype: str | None = None) -> Value:
    """An embedding, or with `reverse` the projection back onto its table."""
    if not reverse:
        return embedding(op, x, output_dim=output_dim, mask_zero=mask_zero)
    matrix = op.turned(op.need("embeddings"), (1, 0)) if tie_weights else op.need("reverse_embeddings")
    y = op.MatMul(x, matrix)
    if not logit_soft_cap:
        return y
    cap = op.scalar(logit_soft_cap, y)
    return op.Mul(op.Tanh(op.Div(y, cap)), cap)


@layer("Masking")
def masking(op: Op, x: Value, *, mask_value: float = 0.0) -> Value:
    """Steps in which every feature has the value are masked, and become zero."""
    other = op.cast(op.Not(op.Equal(x, op.scalar(mask_value, x))), ir.DataType.INT32)
    kept = op.ReduceMax(other, op.const([-1]), keepdims=1)
    op.result_mask = op.cast(op.Squeeze(kept, op.const([-1])), ir.DataType.BOOL)
    return op.Mul(x, op.cast(kept, x.dtype))


# ---- shapes

@layer("Flatten")
def flatten(op: Op, x: Value, *, data_format: str | None = None) -> Value:
    """Channels-first pictures are flattened as if their channels were last."""
    rank, sizes = op.of(x)
    if data_format == "channels_first" and rank > 1:
        x = op.turned(x, (0, *range(2, rank), 1))
    if rank == 1:
        return op.Reshape(x, op.const([-1, 1]))
    known = math.prod(size for size in sizes[1:] if isinstance(size, int)) if all(isinstance(size, int) for size in sizes[1:]) else -1
    return op.Reshape(x, op.const([-1 if known >= 0 and not isinstance(sizes[0], int) else 0, known] if known != -1 else [0, -1]))


@layer("Reshape")
def reshape(op: Op, x: Value, *, target_shape: Any) -> Value:
    wanted = [-1 if size is None else int(size) for size in target_shape]
    sizes = op.sizes(x)
    if -1 in wanted and all(isinstance(size, int) for size in sizes[1:]):
        rest = int(np.prod([size for size in wanted if size != -1]))
        wanted = [int(np.prod(sizes[1:])) // max(rest, 1) if size == -1 else size for size in wanted]
    batch: Any = -1 if -1 not in wanted else op.size_of(x, 0)
    return op.reshaped(x, [sizes[0] if isinstance(sizes[0], int) else batch, *wanted])


@layer("Permute")
def permute(op: Op, x: Value, *, dims: Any) -> Value:
    return op.turned(x, (0, *(int(dim) for dim in dims)))


@layer("RepeatVector")
def repeat_vector(op: Op, x: Value, *, n: int) -> Value:
    return op.Expand(op.Unsqueeze(x, op.const([1])), op.const([1, int(n), 1]))


def _pairs(value: Any, count: int) -> list[list[int]]:
    """(begin, end) for every spatial axis, from an int, a pair, a list of ints or of pairs."""
    if not isinstance(value, list):
        return [[int(value)] * 2] * count
    if count == 1 and len(value) == 2 and not isinstance(value[0], list):
        return [[int(x) for x in value]]
    if len(value) == 4 and count == 2:                        # Keras 1: top, bottom, left, right
        return [value[:2], value[2:]]
    return [[int(x) for x in item] if isinstance(item, list) else [int(item)] * 2 for item in value]


def _spatial(op: Op, x: Value, data_format: str | None) -> list[int]:
    rank = op.rank(x)
    return list(range(2, rank)) if data_format == "channels_first" else list(range(1, rank - 1))


@layer("ZeroPadding1D", "ZeroPadding2D", "ZeroPadding3D")
def zero_padding(op: Op, x: Value, *, padding: Any = 1, data_format: str | None = None) -> Value:
    axes = _spatial(op, x, data_format)
    pads = _pairs(padding, len(axes))
    begins, ends = [0] * op.rank(x), [0] * op.rank(x)
    for axis, (begin, end) in zip(axes, pads, strict=True):
        begins[axis], ends[axis] = begin, end
    return op.Pad(x, op.const([*begins, *ends]))


@layer("Cropping1D", "Cropping2D", "Cropping3D")
def cropping(op: Op, x: Value, *, cropping: Any = 1, data_format: str | None = None) -> Value:
    axes = _spatial(op, x, data_format)
    pairs = _pairs(cropping, len(axes))
    ends = [-end if end else np.iinfo(np.int64).max for _, end in pairs]
    return op.Slice(x, op.const([begin for begin, _ in pairs]), op.const(ends), op.const(axes))


@layer("UpSampling1D", "UpSampling3D")
def up_sampling(op: Op, x: Value, *, size: Any = 2, data_format: str | None = None) -> Value:
    """Every step repeated."""
    y = op.first(x, data_format)
    factors = several(size, op.rank(x) - 2)
    from isomorph.dialects.keras.to_onnx.images import enlarged
    return op.last(enlarged(op, y, factors, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"), data_format)


@layer("UpSampling2D")
def up_sampling_2d(op: Op, x: Value, *, size: Any = 2, data_format: str | None = None, interpolation: str = "nearest") -> Value:
    from isomorph.dialects.keras.to_onnx.images import scaled
    return op.last(scaled(op, op.first(x, data_format), several(size, 2), interpolation), data_format)


# ---- merging

MERGES = {"Add": "Add", "Multiply": "Mul", "Subtract": "Sub"}


def merged_mask(op: Op) -> Any:
    """Steps that any of the inputs keeps; nothing is masked where one of them is not. Keras 2 leaves those out."""
    masks = list(op.mask) if isinstance(op.mask, list) else []
    if op.context.generation >= 3 and any(mask is None for mask in masks):
        return None
    masks = [mask for mask in masks if mask is not None]
    return reduce(lambda a, b: op.Or(a, b), masks) if masks else None


def aligned(op: Op, xs: list[Value]) -> list[Value]:
    """Ranks made equal behind the batch axis."""
    most = max(op.rank(x) for x in xs)
    return [x if op.rank(x) == most else op.Unsqueeze(x, op.const(list(range(1, 1 + most - op.rank(x))))) for x in xs]


@layer("Add", "Multiply", "Subtract")
def merge(op: Op, xs: Any) -> Value:
    op.result_mask = merged_mask(op)
    values = aligned(op, xs if isinstance(xs, list) else [xs])
    return reduce(lambda a, b: op.make(MERGES[op.layer.class_name], [a, b], {}), values)


@layer("Average")
def average(op: Op, xs: Any) -> Value:
    op.result_mask = merged_mask(op)
    values = aligned(op, xs)
    total = reduce(lambda a, b: op.Add(a, b), values)
    return op.Div(total, op.scalar(len(values), total))


@layer("Maximum", "Minimum")
def extreme(op: Op, xs: Any) -> Value:
    op.result_mask = merged_mask(op)
    return op.make(op.layer.class_name[:3], aligned(op, xs), {})


@layer("Concatenate")
def concatenate(op: Op, xs: Any, *, axis: int = -1) -> Value:
    masks = op.mask if isinstance(op.mask, list) else []
    rank = op.rank(xs[0])
    if any(mask is not None for mask in masks):
        op.result_mask = _joined_masks(op, xs, masks, axis % rank)
    return op.Concat(*xs, axis=axis % rank)


def _joined_masks(op: Op, xs: list[Value], masks: list[Any], axis: int) -> Value:
    """Masks joined where steps are; the steps that every input keeps where features are."""
    parts = []
    for x, mask in zip(xs, masks, strict=True):
        if mask is None:
            kept = op.Expand(op.const(np.asarray(True)), op.Shape(x))
        else:
            missing = list(range(op.rank(mask), op.rank(x)))
            kept = op.And(op.Unsqueeze(mask, op.const(missing)) if missing else mask, op.Expand(op.const(np.asarray(True)), op.Shape(x)))
        parts.append(kept)
    joined = op.cast(op.Concat(*parts, axis=axis), ir.DataType.INT32)
    return op.cast(op.ReduceMin(joined, op.const([-1]), keepdims=0), ir.DataType.BOOL)


@layer("Dot")
def dot(op: Op, xs: Any, *, axes: Any, normalize: bool = False) -> Value:
    """A product of two batches over one axis each."""
    op.result_mask = None
    a, b = xs
    ranks = op.rank(a), op.rank(b)
    left, right = ([axes, axes] if isinstance(axes, int) else list(axes))
    left, right = left % ranks[0], right % ranks[1]
    if normalize:
        a, b = normalized(op, a, left), normalized(op, b, right)
    letters = "abcdefghijklmnop"
    first = "".join("z" if axis == left else "Z" if axis == 0 else letters[axis] for axis in range(ranks[0]))
    second = "".join("z" if axis == right else "Z" if axis == 0 else letters[axis + 8] for axis in range(ranks[1]))
    result = first.replace("z", "") + second.replace("z", "")[1:]
    y = op.Einsum(a, b, equation=f"{first},{second}->{result}")
    return y if len(result) > 1 else op.Unsqueeze(y, op.const([1]))


def normalized(op: Op, x: Value, axis: int) -> Value:
    """Divided by its length, which is taken to be at least 1e-6."""
    squares = op.Max(op.ReduceSumSquare(x, op.const([axis]), keepdims=1), op.scalar(1e-12, x))
    return op.Div(x, op.Sqrt(squares))


@layer("Merge")
def old_merge(op: Op, xs: Any, *, mode: str = "sum", concat_axis: int = -1, dot_axes: Any = -1, **rest: Any) -> Value:
    """Keras 1."""
    modes = {"sum": ("Add", {}), "mul": ("Multiply", {}), "ave": ("Average", {}), "max": ("Maximum", {}), "concat": ("Concatenate", {"axis": concat_axis}),
             "dot": ("Dot", {"axes": dot_axes}), "cos": ("Dot", {"axes": dot_axes, "normalize": True})}
    if mode not in modes:
        return op.reject(f"its mode {mode!r} is Python code or unknown")
    kind, settings = modes[mode]
    return op.call("keras", kind, xs, **settings)


@layer("MaxoutDense")
def maxout(op: Op, x: Value, *, output_dim: int = 0, nb_feature: int = 4, bias: bool = True) -> Value:
    """Keras 1: the largest of several dense layers."""
    if quantization_of(op.layer.config):
        return op.reject("its quantised weights are not mapped")
    y = op.Einsum(x, op.need("kernel"), equation="bi,fio->bfo")
    y = op.Add(y, op.need("bias")) if bias else y
    return op.ReduceMax(y, op.const([1]), keepdims=0)


@layer("Highway")
def highway(op: Op, x: Value, *, activation: Any = "linear", bias: bool = True, transform_bias: float = -2) -> Value:
    """Keras 1: a gate between the input and a dense layer of it."""
    y, gate = op.MatMul(x, op.need("kernel")), op.MatMul(x, op.need("gate_kernel"))
    if bias:
        y, gate = op.Add(y, op.need("bias")), op.Add(gate, op.need("gate_bias"))
    open_ = op.Sigmoid(gate)
    return op.Add(op.Mul(op.activation(y, activation), open_), op.Mul(op.Sub(op.scalar(1, x), open_), x))


@layer("LayerScale")
def layer_scale(op: Op, x: Value, **settings: Any) -> Value:
    """Of keras.applications."""
    return op.Mul(x, op.need("gamma"))


@layer("CustomScaleLayer")
def custom_scale(op: Op, xs: Any, *, scale: float) -> Value:
    """Of keras.applications."""
    return op.Add(xs[0], op.Mul(xs[1], op.scalar(scale, xs[1])))


# ---- wrappers

@layer("TimeDistributed")
def time_distributed(op: Op, x: Value, *, layer: Any) -> Value:
    """The layer inside, with time as part of the batch."""
    attribute, inner = wrapped(op.layer)[0]
    sizes = op.sizes(x)
    mask = op.mask
    flat = op.reshaped(x, [-1, *(size if isinstance(size, int) else op.size_of(x, axis) for axis, size in enumerate(sizes) if axis >= 2)])
    if isinstance(mask, Value) and op.rank(mask) > 2:
        flat.meta["mask"] = op.reshaped(mask, [-1, *(op.size_of(mask, axis) for axis in range(2, op.rank(mask)))])
    result = op.inner(inner, (flat,), {}, attribute)
    if isinstance(mask, Value) and op.rank(mask) == 2:
        op.result_mask = mask
    if isinstance(result, list):
        return op.reject("the layer inside gives several results")
    tail = op.sizes(result)[1:]
    lead: list[Any] = [sizes[0] if isinstance(sizes[0], int) else op.size_of(x, 0), sizes[1] if isinstance(sizes[1], int) else op.size_of(x, 1)]
    if isinstance(lead[1], int) and not isinstance(lead[0], int):
        lead[0] = -1
    rest = [size if isinstance(size, int) else op.size_of(result, axis + 1) for axis, size in enumerate(tail)]
    return op.reshaped(result, [*lead, *rest])


@layer("SpectralNormalization", "Wrapper")
def around(op: Op, x: Value, *, layer: Any, power_iterations: int = 1) -> Value:
    attribute, inner = wrapped(op.layer)[0]
    return op.inner(inner, (x,), {}, attribute)


@layer("Pipeline")
def pipeline(op: Op, x: Value, *, layers: Any) -> Value:
    for attribute, inner in wrapped(op.layer):
        x = op.inner(inner, (x,), {}, attribute)
    return x


@layer("InputLayer")
def input_layer(op: Op, x: Value, **settings: Any) -> Value:
    return x


def stored_type(config: dict[str, Any]) -> ir.DataType:
    return ir.DataType[TYPES.get(policy(config)[0], "FLOAT")]



"""aten -> ONNX: products, convolutions, pools, normalisations."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.to_onnx.common import BOOL, MOST_IMPLIED, axis_of, cast, dtype_of, filled_with, is_float, listed, promoted, rank, to_onnx, vector
from isomorph.dialects.torch.to_onnx.elementwise import scaled
from isomorph.dialects.torch.to_onnx.shapes import chunk, length

# ---- products

@to_onnx("linear")
def linear(op, x, weight, bias=None):
    """x times the transposed weight; a constant weight is turned lazily."""
    turned = op.turned(weight) if len(weight.shape) == 2 else weight
    product = op.MatMul(x, turned)
    return op.Add(product, bias) if bias is not None else product


@to_onnx("matmul", "mm", "bmm", "mv", "dot")
def matmul(op, x, y):
    return op.MatMul(*promoted(op, x, y))


@to_onnx("addmm")
def addmm(op, bias, x, y, beta=1, alpha=1):
    return op.Gemm(x, y, bias, alpha=float(alpha), beta=float(beta))


@to_onnx("baddbmm")
def baddbmm(op, bias, x, y, beta=1, alpha=1):
    return op.Add(scaled(op, bias, beta), scaled(op, op.MatMul(x, y), alpha))


@to_onnx("einsum")
def einsum(op, equation, tensors, path=None):
    return op.Einsum(*tensors, equation=equation.replace(" ", ""))


@to_onnx("outer")
def outer(op, x, y):
    return op.Mul(op.Unsqueeze(x, op.const([1])), op.Unsqueeze(y, op.const([0])))


@to_onnx("embedding")
def embedding(op, weight, indices, *rest):
    return op.Gather(weight, indices, axis=0)


@to_onnx("one_hot")
def one_hot(op, x, classes=-1):
    if not rank(op, x):
        return op.Squeeze(one_hot(op, op.Reshape(x, [1]), classes), op.const([0]))
    if classes == -1:
        return op.OneHot(x, op.Add(op.ReduceMax(x, keepdims=0), 1), np.asarray([0, 1], np.int64), axis=-1)
    return op.OneHot(x, np.asarray(classes, np.int64), np.asarray([0, 1], np.int64), axis=-1)


@to_onnx("scaled_dot_product_attention")
def attention(op, q, k, v, mask=None, dropout_p=0.0, is_causal=False, *, scale=None, enable_gqa=False):
    """softmax(q k^T * scale + mask) v, over the last two axes."""
    if enable_gqa:
        heads = length(op, q, rank(op, q) - 3) // length(op, k, rank(op, k) - 3)
        k, v = (op.context.call("repeat_interleave", [x, heads, -3], {}) for x in (k, v))
    turned = op.Transpose(k, perm=[*range(rank(op, k) - 2), rank(op, k) - 1, rank(op, k) - 2])
    factor = scale if scale is not None else 1 / math.sqrt(length(op, q, rank(op, q) - 1))
    scores = op.Mul(op.MatMul(q, turned), float(factor))
    if is_causal:
        row, column = (op.Range(np.asarray(0, np.int64), op.Reshape(op.Shape(x, start=-2, end=-1), op.const(np.zeros(0, np.int64))), np.asarray(1, np.int64))
                       for x in (q, k))
        mask = op.LessOrEqual(op.Unsqueeze(column, op.const([0])), op.Unsqueeze(row, op.const([1])))
    if mask is not None and mask.dtype == BOOL:
        scores = op.Where(mask, scores, op.const(np.asarray(-np.inf, q.dtype.numpy())))
    elif mask is not None:
        scores = op.Add(scores, mask)
    return op.MatMul(op.Softmax(scores, axis=-1), v)


# ---- convolutions, pools, norms

def convolved(op: Any, x: Any, weight: Any, bias: Any, stride: Any, padding: Any, dilation: Any, groups: int) -> Any:
    spatial = len(weight.shape) - 2
    unbatched = rank(op, x) == spatial + 1
    x = op.Unsqueeze(x, op.const([0])) if unbatched else x
    if padding == "same":                          # written out, because ONNX Runtime has no dilation beside SAME_UPPER
        totals = [(size - 1) * step for size, step in zip(op.static(weight)[2:], listed(dilation, spatial), strict=True)]
        pads = [*(total // 2 for total in totals), *(total - total // 2 for total in totals)]
    else:
        pads = listed(0 if padding == "valid" else padding, spatial) * 2
    y = op.Conv(x, weight, bias, strides=listed(stride, spatial), dilations=listed(dilation, spatial), group=groups, pads=pads)
    return op.Squeeze(y, op.const([0])) if unbatched else y


@to_onnx("conv1d", "conv2d", "conv3d")
def conv(op, x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    return convolved(op, x, weight, bias, stride, padding, dilation, groups)


@to_onnx("conv_transpose1d", "conv_transpose2d", "conv_transpose3d")
def conv_transpose(op, x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    spatial = len(weight.shape) - 2
    unbatched = rank(op, x) == spatial + 1
    x = op.Unsqueeze(x, op.const([0])) if unbatched else x
    y = op.ConvTranspose(x, weight, bias, strides=listed(stride, spatial), pads=listed(padding, spatial) * 2, output_padding=listed(output_padding, spatial),
                         dilations=listed(dilation, spatial), group=groups)
    return op.Squeeze(y, op.const([0])) if unbatched else y


@to_onnx("_convolution_mode")
def convolution_mode(op, x, weight, bias, stride, padding, dilation, groups):
    return convolved(op, x, weight, bias, stride, padding, dilation, groups)


@to_onnx("_convolution", "convolution")
def convolution(op, x, weight, bias, stride, padding, dilation, transposed, output_padding, groups, *tuning):
    if transposed:
        return conv_transpose(op, x, weight, bias, stride, padding, output_padding, groups, dilation)
    return convolved(op, x, weight, bias, stride, padding, dilation, groups)


@to_onnx("max_pool1d", "max_pool2d", "max_pool3d")
def max_pool(op, x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
    spatial = int(op.node.op_type[-2])
    kernel = listed(kernel_size, spatial)
    return op.MaxPool(x, kernel_shape=kernel, strides=listed(stride, spatial) if stride else kernel, pads=listed(padding, spatial) * 2,
                      dilations=listed(dilation, spatial), ceil_mode=int(ceil_mode))


@to_onnx("avg_pool1d", "avg_pool2d", "avg_pool3d")
def avg_pool(op, x, kernel_size, stride=(), padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    spatial = int(op.node.op_type[-2])
    kernel, pads = listed(kernel_size, spatial), listed(padding, spatial)
    strides = listed(stride, spatial) if stride else kernel
    if divisor_override and ceil_mode:
        x, pads, ceil_mode = _filled(op, x, kernel, strides, pads), [0] * spatial, False
    whole, kind = divisor_override and not is_float(x), x.dtype
    y = op.AveragePool(cast(op, x, ir.DataType.FLOAT) if whole else x, kernel_shape=kernel, strides=strides, pads=pads * 2,
                       ceil_mode=int(ceil_mode), count_include_pad=int(count_include_pad or bool(divisor_override)))
    if whole:
        return cast(op, op.Div(op.Round(op.Mul(y, float(math.prod(kernel)))), float(divisor_override)), kind)
    return op.Mul(y, math.prod(kernel) / divisor_override) if divisor_override else y


def _filled(op: Any, x: Any, kernel: list[int], strides: list[int], pads: list[int]) -> Any:
    """Zeros around, as many as the last window of each axis reaches beyond the end; a window begins inside or in the padding before."""
    axes = list(range(rank(op, x) - len(kernel), rank(op, x)))
    ends = []
    for size, window, step, pad in zip(op.of(x)[1][-len(kernel):], kernel, strides, pads, strict=True):
        if not isinstance(size, int):
            op.reject("an average with a divisor of its own over windows that reach beyond an end that only the run knows")
        last = -(-(size + 2 * pad - window) // step)
        last -= last * step >= size + pad
        ends.append(max(last * step + window - size - pad, 0))
    return op.Pad(x, op.const([*pads, *ends]), None, op.const(axes))


@to_onnx("_adaptive_avg_pool2d", "_adaptive_avg_pool3d", *(f"adaptive_{kind}_pool{axes}d" for kind in ("avg", "max") for axes in (1, 2, 3)))
def adaptive_pool(op, x, output_size):
    """One cell is a global pool, sizes that divide are a pool of their quotient; others have windows of several lengths, gathered axis by axis."""
    spatial = int(op.node.op_type[-2])
    average = "avg" in op.node.op_type
    first = rank(op, x) - spatial
    if not average:
        return _adaptive_max(op, x, listed(output_size, spatial), first)
    wanted = listed(output_size, spatial)
    if all(size == 1 for size in wanted):
        axes = list(range(first, rank(op, x)))
        return op.ReduceMean(x, op.const(axes), keepdims=1)
    sizes = [length(op, x, first + place) for place in range(spatial)]
    wanted = [size if size is not None else given for size, given in zip(wanted, sizes, strict=True)]
    if not any(given % size for size, given in zip(wanted, sizes, strict=True)) and first == 2:
        kernel = [given // size for size, given in zip(wanted, sizes, strict=True)]
        return op.AveragePool(x, kernel_shape=kernel, strides=kernel)
    for place, (given, size) in enumerate(zip(sizes, wanted, strict=True)):
        places, inside = _windows(op, given, size)
        weights = op.const((inside / inside.sum(1, keepdims=True)).astype(x.dtype.numpy()).reshape(*inside.shape, *[1] * (rank(op, x) - first - place - 1)))
        x = op.ReduceSum(op.Mul(op.Gather(x, op.const(places), axis=first + place), weights), op.const([first + place + 1]), keepdims=0)
    return x


def _windows(op: Any, given: int, size: int) -> tuple[np.ndarray, np.ndarray]:
    """Window i of an axis reaches from floor(i * given / size) to ceil((i + 1) * given / size): positions, of which shorter ones repeat their last, and which
    of them count."""
    if size > MOST_IMPLIED:
        op.reject(f"a pool with {size} windows")
    starts = np.arange(size)[:, None] * given // size
    ends = -(-(np.arange(size)[:, None] + 1) * given // size)
    steps = np.arange(int((ends - starts).max(initial=1)))
    if steps.size * size > MOST_IMPLIED:
        op.reject(f"a pool with {size} windows of {steps.size}")
    return np.minimum(starts + steps, ends - 1), starts + steps < ends


def _adaptive_max(op: Any, x: Any, wanted: list[Any], first: int) -> list[Any]:
    """The largest elements, and their places in what the pooled axes are when they are one. Where the sizes are open, one cell is all that has no places."""
    spatial = len(wanted)
    sizes = op.of(x)[1][first:]
    if all(size == 1 for size in wanted) and not all(isinstance(size, int) for size in sizes):
        return [op.ReduceMax(x, op.const(list(range(first, first + spatial))), keepdims=1), None]
    sizes = [length(op, x, first + place) for place in range(spatial)]
    wanted = [size if size is not None else given for size, given in zip(wanted, sizes, strict=True)]
    flat = np.zeros((1, 1), np.int64)                                # [cells, positions of a window] in the flattened axes
    for given, size in zip(sizes, wanted, strict=True):
        places, _ = _windows(op, given, size)
        flat = (flat[:, None, :, None] * given + places[None, :, None, :]).reshape(flat.shape[0] * size, -1)
        if flat.size > MOST_IMPLIED:
            op.reject(f"a pool with {flat.shape[0]} windows")
    lead = [0] * first
    windows = op.Gather(op.Reshape(x, [*lead, -1]), op.const(flat), axis=first)
    chosen = op.ArgMax(windows, axis=first + 1, keepdims=1)
    values = op.Reshape(op.ReduceMax(windows, op.const([first + 1]), keepdims=0), [*lead, *wanted])
    everywhere = op.Expand(op.const(flat), op.Shape(windows))
    return [values, op.Reshape(op.GatherElements(everywhere, chosen, axis=first + 1), [*lead, *wanted])]


@to_onnx("col2im")
def col2im(op, x, output_size, kernel_size, dilation, padding, stride):
    single = rank(op, x) == 2
    y = op.Col2Im(op.Unsqueeze(x, op.const([0])) if single else x, vector(op, output_size), vector(op, kernel_size), dilations=listed(dilation, 2),
                  pads=listed(padding, 2) * 2, strides=listed(stride, 2))
    return op.Squeeze(y, op.const([0])) if single else y


@to_onnx("batch_norm")
def batch_norm(op, x, weight, bias, mean, variance, training=False, momentum=0.1, eps=1e-5, cudnn_enabled=True):
    if training or mean is None:
        if mean is not None:
            op.lose("torch.assumed", "the statistics that a normalisation keeps while it is trained stay as they are")
        return _by_its_own_statistics(op, x, weight, bias, [0, *range(2, rank(op, x))], eps)
    size = mean.shape[0]
    weight = filled_with(op, 1, [size]) if weight is None else weight
    bias = filled_with(op, 0, [size]) if bias is None else bias
    return op.BatchNormalization(x, weight, bias, mean, variance, epsilon=float(eps))


def _by_its_own_statistics(op: Any, x: Any, weight: Any, bias: Any, axes: list[int], eps: float) -> Any:
    """Minus the mean and divided by the deviation of the batch itself, then weighted by channel."""
    centred = op.Sub(x, op.ReduceMean(x, op.const(axes), keepdims=1))
    y = op.Div(centred, op.Sqrt(op.Add(op.ReduceMean(op.Mul(centred, centred), op.const(axes), keepdims=1), float(eps))))
    spread = [-1, *[1] * (rank(op, x) - 2)]
    y = op.Mul(y, op.Reshape(weight, spread)) if weight is not None else y
    return op.Add(y, op.Reshape(bias, spread)) if bias is not None else y


@to_onnx("layer_norm")
def layer_norm(op, x, normalized_shape, weight=None, bias=None, eps=1e-5, cudnn_enable=True):
    weight = filled_with(op, 1, normalized_shape, x.dtype) if weight is None else weight
    return op.LayerNormalization(x, weight, bias, axis=-len(normalized_shape), epsilon=float(eps))


@to_onnx("rms_norm")
def rms_norm(op, x, normalized_shape, weight=None, eps=None):
    weight = filled_with(op, 1, normalized_shape, x.dtype) if weight is None else weight
    return op.RMSNormalization(x, weight, axis=-len(normalized_shape), epsilon=float(eps if eps is not None else np.finfo(x.dtype.numpy()).eps))


@to_onnx("group_norm")
def group_norm(op, x, groups, weight=None, bias=None, eps=1e-5, cudnn_enabled=True):
    channels = length(op, x, 1)
    weight = filled_with(op, 1, [channels]) if weight is None else weight
    bias = filled_with(op, 0, [channels]) if bias is None else bias
    return op.GroupNormalization(x, weight, bias, num_groups=groups, epsilon=float(eps))


@to_onnx("instance_norm")
def instance_norm(op, x, weight, bias, mean, variance, use_input_stats, momentum=0.1, eps=1e-5, cudnn_enabled=True):
    if not use_input_stats:
        return batch_norm(op, x, weight, bias, mean, variance, False, momentum, eps)
    channels = length(op, x, 1)
    weight = filled_with(op, 1, [channels]) if weight is None else weight
    bias = filled_with(op, 0, [channels]) if bias is None else bias
    return op.InstanceNormalization(x, weight, bias, epsilon=float(eps))


@to_onnx("native_layer_norm")
def native_layer_norm(op, x, normalized_shape, weight, bias, eps):
    """With the mean and the reciprocal of the deviation."""
    scale = filled_with(op, 1, normalized_shape, x.dtype) if weight is None else weight
    return list(op.LayerNormalization(x, scale, bias, axis=-len(normalized_shape), epsilon=float(eps), _outputs=3))


@to_onnx("_native_batch_norm_legit_no_training")
def native_batch_norm(op, x, weight, bias, mean, variance, momentum, eps):
    return [batch_norm(op, x, weight, bias, mean, variance, False, momentum, eps), None, None]


@to_onnx("native_batch_norm", "_native_batch_norm_legit", "_batch_norm_with_update")
def native_batch_norm_in_training(op, x, weight, bias, mean, variance, *rest):
    """With the mean and the reciprocal of the deviation of the batch, which are empty where those that are kept were used; and a reserve that nobody reads."""
    training, momentum, eps = (True, *rest) if len(rest) == 2 else rest
    y = batch_norm(op, x, weight, bias, mean, variance, training, momentum, eps)
    more = [op.const(np.zeros(0, np.uint8))] if op.node.op_type == "_batch_norm_with_update" else []
    if not training:
        return [y, op.const(np.zeros(0, np.float32)), op.const(np.zeros(0, np.float32)), *more]
    return [y, *_moments(op, x, [0, *range(2, rank(op, x))], eps), *more]


def _moments(op: Any, x: Any, axes: list[int], eps: float) -> list[Any]:
    """The mean and the reciprocal of the deviation."""
    centred = op.Sub(x, op.ReduceMean(x, op.const(axes), keepdims=1))
    deviation = op.Sqrt(op.Add(op.ReduceMean(op.Mul(centred, centred), op.const(axes), keepdims=0), float(eps)))
    return [op.ReduceMean(x, op.const(axes), keepdims=0), op.Reciprocal(deviation)]


@to_onnx("native_group_norm")
def native_group_norm(op, x, weight, bias, n, channels, size, groups, eps):
    grouped = op.Reshape(x, [0, groups, -1])
    return [group_norm(op, x, groups, weight, bias, eps), *_moments(op, grouped, [2], eps)]


@to_onnx("max_pool1d_with_indices", "max_pool2d_with_indices", "max_pool3d_with_indices")
def max_pool_with_indices(op, x, kernel_size, stride=(), padding=0, dilation=1, ceil_mode=False):
    """ONNX counts from the first element of the tensor, PyTorch inside each channel; what is no batch becomes one."""
    spatial = int(op.node.op_type[8])
    kernel, single = listed(kernel_size, spatial), rank(op, x) == spatial + 1
    whole = op.Unsqueeze(x, op.const([0])) if single else x
    y, places = op.MaxPool(whole, kernel_shape=kernel, strides=listed(stride, spatial) if stride else kernel, pads=listed(padding, spatial) * 2,
                           dilations=listed(dilation, spatial), ceil_mode=int(ceil_mode), _outputs=2)
    image = op.ReduceProd(op.Shape(whole, start=2), keepdims=0)
    both = [y, op.Mod(places, image)]
    return [op.Squeeze(value, op.const([0])) for value in both] if single else both


def _softmax(op, x, dim, dtype, operator: str):
    """Along one axis; of a scalar, as of one element."""
    x = cast(op, x, dtype_of(dtype)) if isinstance(dtype, int) and not isinstance(dtype, bool) else x
    if not rank(op, x):
        return op.Reshape(getattr(op, operator)(op.Reshape(x, [1]), axis=0), op.const(np.zeros(0, np.int64)))
    return getattr(op, operator)(x, axis=axis_of(op, x, dim))


@to_onnx("softmax", "_softmax")
def softmax(op, x, dim, dtype=None, **more):
    return _softmax(op, x, dim, dtype, "Softmax")


@to_onnx("log_softmax", "_log_softmax")
def log_softmax(op, x, dim, dtype=None, **more):
    return _softmax(op, x, dim, dtype, "LogSoftmax")


@to_onnx("glu")
def glu(op, x, dim=-1):
    a, b = chunk(op, x, 2, dim)
    return op.Mul(a, op.Sigmoid(b))

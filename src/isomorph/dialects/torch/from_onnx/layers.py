"""ONNX -> aten: convolutions, pools, normalisations, resampling, recurrent networks. Weights keep their names; `forms` leaves only what aten can do."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Array, Ints
from isomorph.dialects.torch.from_onnx.operators import from_onnx
from isomorph.tensors import lazily


@from_onnx("Conv")
def conv(op, x, w, b=None, *, kernel_shape=None, auto_pad="NOTSET", pads=None, strides=None, dilations=None, group=1):
    n = op.of(x)[0] - 2
    return getattr(op, f"conv{n}d")(x, w, b, list(strides or [1] * n), list(pads or [0] * 2 * n)[:n], list(dilations or [1] * n), group)


@from_onnx("ConvTranspose")
def conv_transpose(op, x, w, b=None, *, kernel_shape=None, auto_pad="NOTSET", pads=None, strides=None, dilations=None, group=1, output_padding=None,
                   output_shape=None):
    n = op.of(x)[0] - 2
    name = f"conv_transpose{n}d"
    return getattr(op, name)(x, w, b, list(strides or [1] * n), list(pads or [0] * 2 * n)[:n], list(output_padding or [0] * n), group,
                             list(dilations or [1] * n))


@from_onnx("Gemm")
def gemm(op, a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):
    """A layer of weights where it is one; `forms` leaves no others."""
    return op.linear(a, b, c)


@from_onnx("Linear")
def linear(op, x, w, b=None):
    """A name of `forms`."""
    return op.linear(x, w, b)


@from_onnx("MaxPool")
def max_pool(op, x, *, kernel_shape, auto_pad="NOTSET", pads=None, strides=None, dilations=None, ceil_mode=0, storage_order=0):
    n = len(kernel_shape)
    window = [list(kernel_shape), list(strides or [1] * n), list(pads or [0] * 2 * n)[:n], list(dilations or [1] * n), bool(ceil_mode)]
    if len(op.outputs) == 1:
        return getattr(op, f"max_pool{n}d")(x, *window)
    y, places = getattr(op, f"max_pool{n}d_with_indices")(x, *window, _outputs=2)
    places.dtype, places.shape, y.shape = ir.DataType.INT64, op.outputs[0].shape, op.outputs[0].shape
    return y, _from_the_start(op, x, places, n)


def _from_the_start(op: Any, x: ir.Value, places: ir.Value, n: int) -> ir.Value:
    """aten counts places inside each channel, ONNX from the first element of the tensor."""
    batch, channels, *sizes = op.static(x)
    image = int(np.prod(sizes))
    offset = (np.arange(batch * channels, dtype=np.int64) * image).reshape(batch, channels, *[1] * n)
    return op.add(places, op.const(offset))


@from_onnx("AveragePool")
def average_pool(op, x, *, kernel_shape, auto_pad="NOTSET", pads=None, strides=None, dilations=None, ceil_mode=0, count_include_pad=0):
    n = len(kernel_shape)
    return getattr(op, f"avg_pool{n}d")(x, list(kernel_shape), list(strides or [1] * n), list(pads or [0] * 2 * n)[:n], bool(ceil_mode),
                                        bool(count_include_pad))


@from_onnx("GlobalAveragePool")
def global_average_pool(op, x):
    return op.mean(x, list(range(2, op.of(x)[0])), True)


@from_onnx("GlobalMaxPool")
def global_max_pool(op, x):
    return op.amax(x, list(range(2, op.of(x)[0])), True)


@from_onnx("BatchNormalization")
def batch_normalization(op, x, scale, bias, mean, variance, *, epsilon=1e-5, momentum=0.9, training_mode=0):
    return op.batch_norm(x, scale, bias, mean, variance, False, 1 - momentum, epsilon, False)


@from_onnx("InstanceNormalization")
def instance_normalization(op, x, scale, bias, *, epsilon=1e-5):
    return op.instance_norm(x, scale, bias, None, None, True, 0.0, epsilon, False)


@from_onnx("GroupNormalization")
def group_normalization(op, x, scale, bias, *, num_groups, epsilon=1e-5, stash_type=1):
    return op.group_norm(x, num_groups, scale, bias, epsilon, False)


@from_onnx("LayerNormalization")
def layer_normalization(op, x, scale, bias=None, *, axis=-1, epsilon=1e-5, stash_type=1):
    """`forms` leaves those with one result and sizes that are known."""
    return op.layer_norm(x, _behind(op, x, axis), scale, bias, epsilon, False)


@from_onnx("RMSNormalization")
def rms_normalization(op, x, scale, *, axis=-1, epsilon=1e-5, stash_type=1):
    return op.rms_norm(x, _behind(op, x, axis), scale, epsilon)


def _behind(op: Any, x: ir.Value, axis: int) -> list[Any]:
    rank, sizes = op.of(x)
    return list(sizes[axis % rank:])


@from_onnx("DepthToSpace")
def depth_to_space(op, x, *, blocksize, mode="DCR"):
    """`forms` leaves PyTorch's order of the channels."""
    return op.pixel_shuffle(x, blocksize)


@from_onnx("Resize")
def resize(op, x, roi=None, scales: Array | None = None, sizes=None, *, mode="nearest", coordinate_transformation_mode="half_pixel", **rest):
    """`forms` leaves only those that aten's kernels compute in the same way."""
    n = op.of(x)[0] - 2
    targets: list[Any] = [None] * n
    factors: list[Any] = [None] * n
    if scales is not None and scales.size:
        factors = [float(scale) for scale in scales[-n:]]
        known = list(op.outputs[0].shape)[2:]
        targets = known if all(isinstance(size, int) for size in known) else [
            op.sym_trunc(op.sym_mul(op.size(x, 2 + axis), factors[axis], _number="float"), _number="int") for axis in range(n)]
    else:
        targets = op.sizes(sizes)[-n:]
    if mode == "nearest":
        return getattr(op, f"upsample_nearest{n}d")(x, targets, *factors)
    name = {("linear", 1): "upsample_linear1d", ("linear", 2): "upsample_bilinear2d", ("linear", 3): "upsample_trilinear3d",
            ("cubic", 2): "upsample_bicubic2d"}[mode, n]
    return getattr(op, name)(x, targets, coordinate_transformation_mode == "align_corners", *factors)


@from_onnx("GridSample")
def grid_sample(op, x, grid, *, mode="linear", padding_mode="zeros", align_corners=0):
    name = f"grid_sampler_{op.of(x)[0] - 2}d"
    return getattr(op, name)(x, grid, ("linear", "nearest", "cubic").index(mode), ("zeros", "border", "reflection").index(padding_mode), bool(align_corners))


@from_onnx("AffineGrid")
def affine_grid(op, theta, size: Ints, *, align_corners=0):
    return op.affine_grid_generator(theta, list(size), bool(align_corners))


# ---- recurrent networks

GATES = {"LSTM": (4, (0, 2, 3, 1)), "GRU": (3, (1, 0, 2)), "RNN": (1, (0,))}     # how many gates, and ONNX's in the order of PyTorch's
CALLS = {"LSTM": "lstm", "GRU": "gru"}


def _rearranged(op: Any, tensor: Any, direction: int, order: tuple[int, ...], part: tuple[int, int] | None, name: str) -> ir.Value:
    """One direction of a weight with its gates in PyTorch's order, computed when it is written; of a bias, one of its two halves."""
    dims = [int(dim) for dim in tensor.shape][1:]
    rows = dims[0] if part is None else dims[0] // 2
    first = 0 if part is None else part[0] * rows

    def arranged(array: np.ndarray) -> np.ndarray:
        gates = array[direction, first:first + rows].reshape(len(order), rows // len(order), *dims[1:])
        return gates[list(order)].reshape(rows, *dims[1:])
    return op.const(lazily(arranged, tensor, dims=[rows, *dims[1:]]), name=name)


@from_onnx("LSTM", "GRU", "RNN")
def recurrent(op, x, w, r, b=None, lengths=None, h0=None, c0=None, p=None, *, hidden_size=None, direction="forward", layout=0, **rest):
    """ONNX stacks the directions, [directions, gates * hidden, inputs]; PyTorch takes four tensors a direction and joins both in the last axis."""
    kind = op.node.op_type
    _, order = GATES[kind]
    both = direction == "bidirectional"
    steps, batch, hidden = op.size(x, 0), op.size(x, 1), op.static(r)[2]
    weights = []
    for d in range(1 + both):
        suffix = f"l0{'_reverse' if d else ''}"
        base = (op.node.name or kind).rstrip("/")
        weights += [_rearranged(op, w.const_value, d, order, None, f"{base}.weight_ih_{suffix}"),
                    _rearranged(op, r.const_value, d, order, None, f"{base}.weight_hh_{suffix}")]
        if b is not None:
            weights += [_rearranged(op, b.const_value, d, order, (half, 2), f"{base}.bias_{name}_{suffix}") for half, name in enumerate(("ih", "hh"))]
    state_shape = [1 + both, None, hidden]
    zeros = None if h0 is not None and (c0 is not None or kind != "LSTM") else op.full([1 + both, batch, hidden], 0, dtype=x.dtype, _shape=state_shape)
    first = h0 if h0 is not None else zeros
    name = CALLS.get(kind) or f"rnn_{(rest.get('activations') or ['Tanh'])[0].lower()}"
    states = [first, c0 if c0 is not None else zeros] if kind == "LSTM" else first
    y, *last = getattr(op, name)(x, states, weights, b is not None, 1, 0.0, False, both, False, _outputs=2 + (kind == "LSTM"))
    y.shape = ir.Shape([None, None, hidden * (1 + both)])
    for state in last:
        state.shape = ir.Shape(state_shape)
    split = op.reshape(y, [steps, batch, 1 + both, hidden], _shape=[None, None, 1 + both, hidden])
    return op.permute(split, [0, 2, 1, 3]), *last

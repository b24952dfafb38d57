"""ONNX -> the forms of ONNX that Keras' layers have, over the shared ones."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir

from isomorph.dialects._forms.resizing import resize as shared_resize
from isomorph.dialects._forms.windows import conv_transpose as shared_conv_transpose
from isomorph.dialects._forms.windows import padded, resolve_pads
from isomorph.dialects._lower import Mapping, constant
from isomorph.passes.decompose import decompose

legalize, settle = Mapping(), Mapping()
FLOATS = {ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16, ir.DataType.BFLOAT16}


def stored(*values: ir.Value | None) -> bool:
    return all(value is None or constant(value) is not None for value in values)


def _unless(name: str, kernel_has) -> None:
    """An operator whose layer covers part of what ONNX allows; the rest is decomposed."""
    rule = decompose.rules["", name].function

    def choose(op, *inputs, **attributes):
        return NotImplemented if kernel_has(op, *inputs, **attributes) else rule(op, *inputs, **attributes)

    legalize(name)(choose)


def _whole_norm(op, x, scale, bias=None, *, axis=-1, epsilon=1e-5, stash_type=1):
    used = any(value.uses() or value.is_graph_output() for value in op.outputs[1:])
    rank, sizes = op.of(x)
    axis %= rank
    fits = axis > 0 and list(op.of(scale)[1]) == sizes[axis:] and (bias is None or list(op.of(bias)[1]) == sizes[axis:])
    return stored(scale, bias) and not used and fits and x.dtype == ir.DataType.FLOAT


_unless("LayerNormalization", _whole_norm)
_unless("Max", lambda op, *xs: len(xs) == 2)
_unless("Min", lambda op, *xs: len(xs) == 2)
_unless("BatchNormalization", lambda op, x, scale, bias, mean, variance, training_mode=0, **rest: not training_mode and stored(scale, bias, mean, variance)
        and x.dtype == ir.DataType.FLOAT and op.of(x)[0] >= 2)
_unless("DepthToSpace", lambda op, x, blocksize, mode="DCR": mode == "DCR")
_unless("PRelu", lambda op, x, slope: stored(slope) and x.dtype == ir.DataType.FLOAT and op.of(x)[0] >= 2 and op.of(slope)[0] <= op.of(x)[0]
        and (op.of(slope)[0] < op.of(x)[0] or op.of(slope)[1][0] == 1))


@legalize("Conv")
def conv(op, x, w, b=None, *, kernel_shape=None, auto_pad="NOTSET", pads=None, strides=None, dilations=None, group=1):
    """The layers know `valid` and `same`; other paddings are zeros before. Steps and dilations do not go together."""
    rank, (_, _, *sizes) = op.of(x)
    n = rank - 2
    if n > 3:
        op.reject(f"a convolution over {n} axes")
    kernel = list(op.static(w)[2:])
    strides, dilations = list(strides or [1] * n), list(dilations or [1] * n)
    if any(step != 1 for step in strides) and any(step != 1 for step in dilations):
        array = constant(w)
        if array is None:
            op.reject("dilated weights must be constant")
        wide = np.zeros((*array.shape[:2], *((k - 1) * d + 1 for k, d in zip(kernel, dilations, strict=True))), array.dtype)
        wide[(slice(None), slice(None), *(slice(None, None, d) for d in dilations))] = array
        return op.Conv(x, op.const(wide), b, auto_pad=auto_pad, pads=pads, strides=strides, group=group)
    keyword, explicit = resolve_pads(op, sizes, kernel, strides, dilations, pads, auto_pad)
    if not any(explicit) and auto_pad == keyword and pads is None:
        return NotImplemented
    return op.Conv(padded(op, x, explicit), w, b, auto_pad=keyword, strides=strides, dilations=dilations, group=group)


@legalize("ConvTranspose")
def conv_transpose(op, x, w, b=None, **window):
    return shared_conv_transpose(op, x, w, b, **window)


@legalize("Resize")
def resize(op, x, roi=None, scales=None, sizes=None, **settings):
    """Pictures made larger by whole factors have a layer of their own, whatever their size is."""
    factors = constant(scales)
    mode, where = settings.get("mode", "nearest"), settings.get("coordinate_transformation_mode", "half_pixel")
    nearest = mode == "nearest" and ((where == "asymmetric" and settings.get("nearest_mode") == "floor") or where == "half_pixel")
    plain = not any(settings.get(name) for name in ("antialias", "exclude_outside", "axes"))
    if factors is None or sizes is not None or not plain or not (nearest or (mode == "linear" and where == "half_pixel")) or len(factors) != 4 or (
            any(factors[:2] != 1) or any(factors != factors.astype(int)) or any(factors < 1)):
        return shared_resize(op, x, roi, scales, sizes, **settings)
    whole = [int(factor) for factor in factors[2:]]
    shape = [*op.of(x)[1][:2], *(size * factor if isinstance(size, int) else None for size, factor in zip(op.of(x)[1][2:], whole, strict=True))]
    return op.WholeUpsampling(x, factors=whole, mode=mode, _dtype=x.dtype, _shape=shape)


@legalize("MatMul")
def matmul(op, a, b):
    """A product with a stored matrix is a layer."""
    if op.of(b)[0] == 2 and op.of(a)[0] >= 2 and stored(b) and not stored(a) and a.dtype in FLOATS:
        return op.Linear(a, b, _dtype=a.dtype, _shape=[*op.of(a)[1][:-1], op.of(b)[1][1]])
    return NotImplemented


@legalize("Gemm")
def gemm(op, a, b, c=None, *, alpha=1.0, beta=1.0, transA=0, transB=0):
    a = op.Transpose(a, perm=[1, 0]) if transA else a
    b = op.Transpose(b, perm=[1, 0]) if transB else b
    y = op.MatMul(a, b)
    y = y if alpha == 1.0 else op.Mul(y, op.const(alpha, like=a.dtype))
    if c is None or beta == 0:
        return y
    return op.Add(y, c if beta == 1.0 else op.Mul(c, op.const(beta, like=a.dtype)))


@settle("Add")
def biased(op, a, b):
    """A stored vector added to a layer without one is its bias."""
    for x, bias in ((a, b), (b, a)):
        node = x.producer()
        if node is not None and node.op_type == "Linear" and len(node.inputs) == 2 and len(x.uses()) == 1 and not x.is_graph_output() and stored(bias) and (
                op.of(bias)[0] == 1 and op.of(bias)[1] == [op.of(node.inputs[1])[1][1]]):
            return op.Linear(*node.inputs, bias, _dtype=x.dtype, _shape=op.of(x)[1])
    return NotImplemented


# ---- recurrent operators with the batch first, as their users have it

RECURRENT = ("LSTM", "GRU", "RNN")
BATCH_FIRST = (1, 0, 2)


def _batch_first(value: ir.Value | None) -> ir.Value | None:
    """What a transpose to time first was made of."""
    node = value.producer() if value is not None else None
    swaps = node is not None and node.op_type == "Transpose" and node.domain == "" and tuple(node.attributes["perm"].value) == BATCH_FIRST
    return node.inputs[0] if swaps else None


def _one_way(value: ir.Value, place: int, axis: int) -> ir.Node | None:
    """The recurrent node behind a squeezed result, where only this result of it is used, it goes one way, and its input was turned to time first."""
    squeeze = value.producer()
    if squeeze is None or squeeze.op_type != "Squeeze" or len(squeeze.inputs) < 2 or constant(squeeze.inputs[1]) is None or constant(
            squeeze.inputs[1]).tolist() != [axis]:
        return None
    node = squeeze.inputs[0].producer()
    if node is None or node.op_type not in RECURRENT or squeeze.inputs[0].index() != place or node.attributes.get_string("direction",
        "forward") == "bidirectional":
        return None
    others = [other for other in node.outputs if other is not squeeze.inputs[0] and (other.uses() or other.is_graph_output())]
    alone = len(squeeze.inputs[0].uses()) == 1 and not squeeze.inputs[0].is_graph_output()
    return node if alone and not others and _batch_first(node.inputs[0]) is not None else None


def _made(op, node: ir.Node, sequences: bool, shape):
    attributes = {name: attribute.value for name, attribute in node.attributes.items()} | {"sequences": int(sequences), "kind": node.op_type}
    inputs = [_batch_first(node.inputs[0]), *node.inputs[1:]]
    return op.make("BatchRecurrent", inputs, attributes, dtype=node.inputs[0].dtype, shape=shape)


@settle("Transpose")
def sequence(op, x, *, perm=None):
    """All outputs, batch first again."""
    node = _one_way(x, 0, 1) if perm is not None and tuple(perm) == BATCH_FIRST else None
    if node is None or len(x.uses()) != 1 or x.is_graph_output():
        return NotImplemented
    return _made(op, node, True, op.outputs[0].shape)


@settle("Squeeze")
def last_state(op, x, axes=None):
    """The last output."""
    node = _one_way(op.outputs[0], 1, 0)
    return NotImplemented if node is None else _made(op, node, False, op.outputs[0].shape)


SAME_IN_BOTH = ("kind", "sequences", "hidden_size", "activations", "linear_before_reset")


@settle("Concat")
def both_directions(op, *xs, axis):
    """What a recurrence and the same one backwards give for the same sequence, side by side: one layer that goes both ways."""
    nodes = [x.producer() for x in xs]
    if len(xs) != 2 or any(node is None or node.op_type != "BatchRecurrent" for node in nodes) or axis not in (-1, op.of(xs[0])[0] - 1):
        return NotImplemented
    forward, backward = nodes
    settings = [{name: attribute.value for name, attribute in node.attributes.items()} for node in nodes]
    ways = tuple(each.pop("direction", "forward") for each in settings)
    plain = all(set(each) <= set(SAME_IN_BOTH) and len([value for value in node.inputs if value is not None]) == len(node.inputs[:4])
                for each, node in zip(settings, nodes, strict=True))
    alone = all(len(x.uses()) == 1 and not x.is_graph_output() for x in xs)
    same = settings[0] == settings[1] and forward.inputs[0] is backward.inputs[0] and len(forward.inputs) == len(backward.inputs)
    if ways != ("forward", "reverse") or not (plain and alone and same):
        return NotImplemented
    weights = [value for node in nodes for value in (*node.inputs[1:4], None)[:3]]
    return op.make("BatchBidirectional", [forward.inputs[0], *weights], settings[0], dtype=xs[0].dtype, shape=op.outputs[0].shape)

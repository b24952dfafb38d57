"""Neighbouring TensorFlow Lite operators that say the same in less time. Measured with LiteRT 2.3.0 and XNNPACK.

Everything here keeps the values bit for bit: it moves, merges and drops operators that only move data. `dense` merges layers.
"""
from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant
from isomorph.dialects.tflite.from_onnx import _nodes as nodes
from isomorph.dialects.tflite.from_onnx import dense
from isomorph.passes.tidy import single_use

# One element at a time, whatever the shape.
UNARY = {"RELU", "RELU6", "LOGISTIC", "TANH", "HARD_SWISH", "ABS", "NEG", "EXP", "LOG", "SQRT", "RSQRT", "ELU", "GELU", "LEAKY_RELU", "SQUARE"}
ROWWISE = {"SOFTMAX", "LOG_SOFTMAX"}         # these work along the last axis
MOVES = {"RESHAPE", "DEPTH_TO_SPACE"}       # operators that unary ones may pass
CONVOLUTIONS = {"CONV_2D", "DEPTHWISE_CONV_2D"}     # XNNPACK makes a PAD in front of these their own
THIN = 8                                    # elements that lie together below which XNNPACK's PAD and CONCATENATION take several ns an element
ROUNDS = 100


def improve(graph: ir.Graph) -> None:
    """Applies the rules until none has anything to do."""
    _apply(graph, {"CONV_2D": [dense.whole_window], "PAD": [_wide_pad], "MIRROR_PAD": [_mirrored], "CONCATENATION": [_wide_concatenation]})
    for _ in range(ROUNDS):
        if not _apply(graph, RULES):
            return


def _apply(graph: ir.Graph, rules: dict[str, list[Callable[[ir.Node], bool]]]) -> bool:
    """Whether any rule changed the graph in one walk over it."""
    changed = False
    for node in list(graph):
        for rule in rules.get(node.op_type, ()) if node.domain == "tflite" else ():
            if node.graph is graph and rule(node):
                changed = True
                break
    return changed


def _drop(node: ir.Node) -> bool:
    """Lets readers of the node's output read its input; an output of the graph keeps its name."""
    x, y = node.inputs[0], node.outputs[0]
    if y.is_graph_output():
        if x.producer() is None or not single_use(x):
            return False
        x.name, y.name = y.name, None
    y.replace_all_uses_with(x, replace_graph_outputs=True)
    node.graph.remove(node, safe=True)
    return True


def _reshape(node: ir.Node) -> bool:
    """A reshape of a reshape is one reshape; one to the same shape is none."""
    x, y = node.inputs[0], node.outputs[0]
    before, target = x.producer(), constant(node.inputs[1])
    chained = before is not None and before.op_type == "RESHAPE" and before.domain == "tflite" and before.graph is node.graph
    if chained and target is not None and -1 not in target:
        node.replace_input_with(0, before.inputs[0])
        if not x.uses() and not x.is_graph_output():
            before.graph.remove(before, safe=True)
        return True
    return nodes.sizes(x) is not None and nodes.sizes(x) == nodes.sizes(y) and _drop(node)


def _slice(node: ir.Node) -> bool:
    """A slice of everything is none."""
    strides, size = constant(node.inputs[3]), nodes.sizes(node.inputs[0])
    return size is not None and size == nodes.sizes(node.outputs[0]) and strides is not None and bool((strides == 1).all()) and _drop(node)


def _slice_of_slice(node: ir.Node) -> bool:
    """Two slices with steps of one are one."""
    before = nodes.before(node.inputs[0], "STRIDED_SLICE")
    if before is None or not all(_steps_by_one(each) for each in (before, node)):
        return False
    sizes, whole, part = (nodes.sizes(value) for value in (before.inputs[0], before.outputs[0], node.outputs[0]))
    if sizes is None or whole is None or part is None or not len(sizes) == len(whole) == len(part):
        return False
    begin = [a + b for a, b in zip(_begin(before), _begin(node), strict=True)]
    bounds = [begin, [a + b for a, b in zip(begin, part, strict=True)], [1] * len(begin)]
    node.replace_input_with(0, before.inputs[0])
    for index, bound in enumerate(bounds, 1):
        node.replace_input_with(index, nodes.constant_of(node.graph, np.asarray(bound, np.int32), f"{node.name}/bound"))
    for mask in MASKS:
        node.attributes.pop(mask, None)
    before.graph.remove(before, safe=True)
    return True


MASKS = ("begin_mask", "end_mask", "ellipsis_mask", "new_axis_mask", "shrink_axis_mask", "offset")


def _steps_by_one(node: ir.Node) -> bool:
    strides = constant(node.inputs[3])
    return strides is not None and bool((strides == 1).all()) and constant(node.inputs[1]) is not None \
        and not any(node.attributes.get_int(mask, 0) for mask in MASKS[2:])


def _begin(node: ir.Node) -> list[int]:
    """The first position along each axis; one that counts from the end is counted from the front."""
    mask, sizes = node.attributes.get_int("begin_mask", 0), nodes.sizes(node.inputs[0])
    places = constant(node.inputs[1]).tolist()
    return [0 if mask >> axis & 1 else place + size if place < 0 else min(place, size) for axis, (place, size) in enumerate(zip(places, sizes, strict=True))]


def _flattened(node: ir.Node) -> bool:
    """A fully connected layer flattens its input itself."""
    move = nodes.before(node.inputs[0], "RESHAPE")
    x, y = node.inputs[0], node.outputs[0]
    if move is None or len(x.shape or ()) != 2 or len(y.shape or ()) != 2 or _is_set(node, "keep_num_dims") or not nodes.is_plain(move.inputs[0], x):
        return False
    before = nodes.sizes(move.inputs[0])
    if before is None or len(before) < 3 or before[0] != x.shape[0] or x.dtype != ir.DataType.FLOAT:
        return False
    node.replace_input_with(0, move.inputs[0])
    move.graph.remove(move, safe=True)
    return True


def _bitcast(node: ir.Node) -> bool:
    return node.inputs[0].dtype == node.outputs[0].dtype and _drop(node)


def _before_move(node: ir.Node) -> bool:
    """An activation in front of a move of data joins the layer before it, and the move what follows."""
    move = nodes.before(node.inputs[0], *MOVES)
    if move is None or not nodes.is_plain(move.inputs[0], node.inputs[0], node.outputs[0]) or node.inputs[0].dtype != ir.DataType.FLOAT:
        return False
    if node.op_type in ROWWISE and not _keeps_rows(move):
        return False
    x, moved, y = move.inputs[0], move.outputs[0], node.outputs[0]
    node.replace_input_with(0, x)
    move.replace_input_with(0, y)
    y.replace_all_uses_with(moved, replace_graph_outputs=True)
    move.replace_input_with(0, y)
    moved.name, y.name = y.name, moved.name
    moved.shape, y.shape = y.shape, x.shape
    node.graph.remove(move)
    node.graph.insert_after(node, move)
    return True


def _keeps_rows(move: ir.Node) -> bool:
    """Whether what is moved has the same last axis before and after, and few enough axes for every kernel."""
    before, after = nodes.sizes(move.inputs[0]), nodes.sizes(move.outputs[0])
    return bool(move.op_type == "RESHAPE" and before and after and before[-1] == after[-1] and len(before) <= 4)


def _is_set(node: ir.Node, name: str) -> bool:
    return name in node.attributes and bool(node.attributes[name].value)


def _wide_pad(node: ir.Node) -> bool:
    """Axes behind the last padded one join it, so that whole rows are copied: [H, W, 1] is padded as [H, W]."""
    sizes, pairs = nodes.sizes(node.inputs[0]), constant(node.inputs[1])
    if sizes is None or pairs is None or not pairs.any() or not nodes.is_plain(node.inputs[0], node.outputs[0]):
        return False
    if any(use.node.op_type in CONVOLUTIONS for use in node.outputs[0].uses()):
        return False
    last = int(np.flatnonzero(pairs.any(axis=1))[-1])
    inner = math.prod(sizes[last + 1:])
    if last == len(sizes) - 1 or inner >= THIN:
        return False
    amounts = np.asarray([*pairs[:last].tolist(), (pairs[last] * inner).tolist()], np.int32)
    narrow = [*sizes[:last], sizes[last] * inner]
    wide = [size + int(before + after) for size, (before, after) in zip(narrow, amounts, strict=True)]
    x = nodes.reshaped(node, node.inputs[0], narrow, f"{node.name}/rows")
    y = nodes.made(node, "PAD", [x, nodes.constant_of(node.graph, amounts, f"{node.name}/pads")], node.inputs[0], wide, f"{node.name}/padded")
    return nodes.take_over(node, nodes.reshaped(node, y, nodes.sizes(node.outputs[0]), f"{node.name}/whole"))


def _mirrored(node: ir.Node) -> bool:
    """A reflection at the ends of one axis is two slices that go backwards, which takes less than half the time."""
    sizes, pairs = nodes.sizes(node.inputs[0]), constant(node.inputs[1])
    axes = [] if pairs is None else np.flatnonzero(pairs.any(axis=1)).tolist()
    reflects = node.attributes.get_string("mode", "REFLECT") == "REFLECT"
    if sizes is None or len(axes) != 1 or not reflects or len(sizes) > MOST_SLICED or node.inputs[0].dtype != ir.DataType.FLOAT:
        return False
    axis, size = axes[0], sizes[axes[0]]
    before, after = (int(amount) for amount in pairs[axis])
    parts = [node.inputs[0]]
    if before:
        parts.insert(0, _backwards(node, axis, before, before, f"{node.name}/before"))
    if after:
        parts.append(_backwards(node, axis, size - 2, after, f"{node.name}/after"))
    whole = nodes.sizes(node.outputs[0]) or [*sizes[:axis], size + before + after, *sizes[axis + 1:]]
    joined = nodes.made(node, "CONCATENATION", parts, node.inputs[0], whole, node.name, {"axis": axis, "fused_activation_function": "NONE"})
    return nodes.take_over(node, joined)


def _backwards(node: ir.Node, axis: int, start: int, count: int, name: str) -> ir.Value:
    """`count` elements of an axis of the node's input, from `start` towards the front."""
    sizes = nodes.sizes(node.inputs[0]) or []
    bounds = [[start if i == axis else 0 for i in range(len(sizes))], [max(start - count, 0) if i == axis else size for i, size in enumerate(sizes)],
              [-1 if i == axis else 1 for i in range(len(sizes))]]
    inputs = [node.inputs[0], *(nodes.constant_of(node.graph, np.asarray(bound, np.int32), f"{name}/bound") for bound in bounds)]
    attributes = {"begin_mask": 0, "end_mask": 1 << axis if start - count < 0 else 0}
    return nodes.made(node, "STRIDED_SLICE", inputs, node.inputs[0], [*sizes[:axis], count, *sizes[axis + 1:]], name, attributes)


MOST_SLICED = 5                             # axes that STRIDED_SLICE knows


def _wide_concatenation(node: ir.Node) -> bool:
    """Single elements are not put side by side one by one: whole inputs are put one behind the other, and transposed."""
    sizes = [nodes.sizes(value) for value in node.inputs]
    rank, axis = len(node.outputs[0].shape or ()), node.attributes.get_int("axis", 0)
    thin = all(each is not None and each[-1] == 1 for each in sizes)
    if not thin or axis % max(rank, 1) != rank - 1 or len(sizes) < 3 or nodes.activation(node) != "NONE" or not nodes.is_plain(*node.inputs, node.outputs[0]):
        return False
    rest, count = math.prod(sizes[0]), len(sizes)
    if rest < LARGE or node.outputs[0].dtype != ir.DataType.FLOAT:
        return False
    rows = [nodes.reshaped(node, value, [1, rest], f"{node.name}/row_{index}") for index, value in enumerate(node.inputs)]
    whole = nodes.made(node, "CONCATENATION", rows, rows[0], [count, rest], f"{node.name}/rows", {"axis": 0, "fused_activation_function": "NONE"})
    order = nodes.constant_of(node.graph, np.asarray([1, 0], np.int32), f"{node.name}/order")
    turned = nodes.made(node, "TRANSPOSE", [whole, order], rows[0], [rest, count], f"{node.name}/turned")
    return nodes.take_over(node, nodes.reshaped(node, turned, nodes.sizes(node.outputs[0]), f"{node.name}/whole"))


LARGE = 1024
RULES: dict[str, list[Callable[[ir.Node], bool]]] = {
    "ADD": [dense.summed], "RESHAPE": [_reshape], "STRIDED_SLICE": [_slice, _slice_of_slice], "BITCAST": [_bitcast], "FULLY_CONNECTED": [_flattened],
    **{name: [_before_move] for name in UNARY | ROWWISE},
}

"""Types and shapes of one node at a time, by ONNX's own inference functions, and what is known about integer values that are not constant.

`Value.meta["known"]` of a 0-D or 1-D integer value is a tuple with an int for an element that is known, a string for one that equals a
symbolic dimension, and None for any other.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import defs, helper, shape_inference

from isomorph.dialects._lower import constant
from isomorph.model import HUB_IR_VERSION, HUB_ML_OPSET, HUB_OPSET

OPSETS = {"": HUB_OPSET, "ai.onnx.ml": HUB_ML_OPSET}
NEWEST = 1 << 16
_IMPORTS = [helper.make_opsetid(domain, version) for domain, version in OPSETS.items()]
Known = tuple[Any, ...]
MOST_KNOWN = 1024  # the largest integer constant that takes part in shape inference


def schema_of(node: ir.Node) -> Any:
    """The ONNX schema of a node at the hub's opset (of the newest one for operators that came later), None for operators ONNX does not define."""
    if not defs.has(node.op_type, node.domain):
        return None
    try:
        return defs.get_schema(node.op_type, OPSETS.get(node.domain, NEWEST), node.domain)
    except defs.SchemaError:
        return defs.get_schema(node.op_type, NEWEST, node.domain)


def infer_node(node: ir.Node) -> None:
    """Sets type and shape of a node's outputs from its inputs, as far as the operator's inference function can tell."""
    schema = schema_of(node)
    if schema is None or any(value is not None and value.type is None for value in node.inputs):
        return
    for index, value in enumerate(node.outputs):
        if value.name is None:
            value.name = f"{node.name or node.op_type}:{index}"
    types, data = {}, {}
    for value in node.inputs:
        if value is None or value.name is None:
            continue
        types[value.name] = ir.serde.serialize_value(value).type
        if value.dtype in (ir.DataType.INT64, ir.DataType.INT32, ir.DataType.FLOAT) and value.shape is not None and value.shape.rank() <= 1:
            array = constant(value)
            if array is not None and array.size <= MOST_KNOWN:
                data[value.name] = onnx.numpy_helper.from_array(np.array(array))
            elif is_number(known(value)):
                data[value.name] = onnx.numpy_helper.from_array(
                    np.asarray(known(value), np.int64).reshape([dim for dim in value.shape if isinstance(dim, int)])
                )
    try:
        inferred = shape_inference.infer_node_outputs(schema, ir.serde.serialize_node(node), types, data, opset_imports=_IMPORTS, ir_version=HUB_IR_VERSION)
    except (shape_inference.InferenceError, onnx.checker.ValidationError, RuntimeError, ValueError):
        return
    for value in node.outputs:
        if value.name in inferred:
            merge(value, inferred[value.name])
    BY_KNOWN.get(node.op_type, lambda node: None)(node)


def merge(value: ir.Value, proto: onnx.TypeProto) -> None:
    """Adds what was inferred to what the file declared; the declared name of a dimension stays where inference has none."""
    declared = ir.serde.deserialize_type_proto_for_type(proto)
    shape = ir.serde.deserialize_type_proto_for_shape(proto)
    if declared is not None:
        value.type = declared
    if shape is None:
        return
    # A file that was tampered with can lead inference to sizes below zero, on which other inference functions end the process.
    shape = ir.Shape([None if isinstance(dim, int) and dim < 0 else dim for dim in shape])
    old = value.shape
    if old is not None and len(old) == len(shape):
        shape = ir.Shape([new if isinstance(new, int) or new.value is not None else was for new, was in zip(shape, old, strict=True)])
    value.shape = shape


def dims(value: ir.Value | None) -> list[int | str | None] | None:
    """The dimensions of a value: ints, names of symbolic ones, None where unknown; None as a whole where the rank is unknown."""
    if value is None or value.shape is None:
        return None
    return [dim if isinstance(dim, int) else dim.value for dim in value.shape]


def known(value: ir.Value | None) -> Known | None:
    """What is known about the elements of a 0-D or 1-D integer value."""
    if value is None:
        return None
    if "known" in value.meta:
        return value.meta["known"]
    if value.dtype not in (ir.DataType.INT64, ir.DataType.INT32) or value.shape is None or value.shape.rank() > 1:
        return None
    array = constant(value)
    return tuple(int(x) for x in array.reshape(-1)) if array is not None and array.size <= MOST_KNOWN else None


def is_number(elements: Known | None) -> bool:
    return elements is not None and all(isinstance(element, int) for element in elements)


def set_dims(value: ir.Value, elements: Known | list) -> None:
    """A shape from partly known sizes; a dimension that was known before stays."""
    old = dims(value)
    elements = [int(x) if isinstance(x, int) and x >= 0 else x if isinstance(x, str) else None for x in elements]
    if old is not None and len(old) == len(elements):
        elements = [new if isinstance(new, int) or (new and not isinstance(was, int)) else was for new, was in zip(elements, old, strict=True)]
    value.shape = ir.Shape(elements)


# ---- shapes from partly known sizes, which ONNX's functions see only when they are constants


def _reshape(node: ir.Node) -> None:
    target, source = known(node.inputs[1]), dims(node.inputs[0])
    if target is None:
        return
    zero_copies = not node.attributes.get_int("allowzero", 0)
    out: list[Any] = [source[i] if x == 0 and zero_copies and source is not None and i < len(source) else x for i, x in enumerate(target)]
    if -1 in out and source is not None and all(isinstance(x, int) for x in source) and all(isinstance(x, int) for x in out):
        rest = math.prod(x for x in out if x != -1)
        out[out.index(-1)] = math.prod(list[Any](source)) // rest if rest else 0
    elif -1 in out and source is not None:
        # The one inferred size is the source's one symbol where all other sizes cancel.
        left, right = list[Any](source), [x for x in out if x != -1]
        for size in list(right):
            if size in left and size is not None:
                left.remove(size)
                right.remove(size)
        numbers = [x for x in left if isinstance(x, int)]
        symbols = [x for x in left if not isinstance(x, int)]
        if len(symbols) == 1 and all(isinstance(x, int) for x in right) and math.prod(numbers) == math.prod(right):
            out[out.index(-1)] = symbols[0]
        elif not symbols and all(isinstance(x, int) for x in right) and math.prod(right):
            out[out.index(-1)] = math.prod(numbers) // math.prod(right)
    set_dims(node.outputs[0], out)


def _constant_of_shape(node: ir.Node) -> None:
    if (elements := known(node.inputs[0])) is not None:
        set_dims(node.outputs[0], elements)


def _expand(node: ir.Node) -> None:
    target, source = known(node.inputs[1]), dims(node.inputs[0])
    if target is None or source is None:
        return
    rank = max(len(target), len(source))
    pairs = zip([1] * (rank - len(source)) + source, [1] * (rank - len(target)) + list(target), strict=True)
    set_dims(node.outputs[0], [b if a == 1 else a if b == 1 or a == b or isinstance(a, int) else b if isinstance(b, int) else None for a, b in pairs])


def _tile(node: ir.Node) -> None:
    repeats, source = known(node.inputs[1]), dims(node.inputs[0])
    if repeats is not None and source is not None:
        set_dims(node.outputs[0], [a if b == 1 else a * b if isinstance(a, int) and isinstance(b, int) else None for a, b in zip(source, repeats, strict=True)])


def _sizes(node: ir.Node) -> None:
    if len(node.inputs) > 3 and (sizes := known(node.inputs[3])) is not None and "axes" not in node.attributes:
        set_dims(node.outputs[0], sizes)


def _slice(node: ir.Node) -> None:
    """Ends beyond the size or partly known starts leave only the rank; ONNX handles the constant case, but forgets the name of an axis that is kept whole."""
    source = dims(node.inputs[0])
    if source is not None and node.outputs[0].shape is not None:
        set_dims(node.outputs[0], [size if axis in _kept_whole(node, len(source)) else None for axis, size in enumerate(source)])
    if source is not None and node.outputs[0].shape is None:
        axes = known(node.inputs[3]) if len(node.inputs) > 3 and node.inputs[3] is not None else tuple(range(len(source)))
        cut = {axis % len(source) for axis in axes} if is_number(axes) else set(range(len(source)))
        set_dims(node.outputs[0], [None if i in cut else x for i, x in enumerate(source)])


def _kept_whole(node: ir.Node, rank: int) -> set[int]:
    """The axes of which a Slice takes everything, in order."""
    bounds = [known(value) for value in node.inputs[1:]]
    if any(not is_number(bound) for bound in bounds) or len(bounds) < 2:
        return set()
    starts, ends, *rest = (list(bound or ()) for bound in bounds)
    axes = rest[0] if rest else list(range(len(starts)))
    steps = rest[1] if len(rest) > 1 else [1] * len(starts)
    return {axis % rank for axis, start, end, step in zip(axes, starts, ends, steps, strict=False) if start == 0 and end >= 1 << 31 and step == 1}


BY_KNOWN: dict[str, Callable[[ir.Node], None]] = {
    "Reshape": _reshape, "ConstantOfShape": _constant_of_shape, "Expand": _expand, "Tile": _tile, "Resize": _sizes, "Slice": _slice}


# ---- integer values that are not constant but partly known


def _shape(node: ir.Node) -> Known | None:
    sizes = dims(node.inputs[0])
    return (
        None if sizes is None else tuple(sizes[slice(node.attributes.get_int("start", 0), node.attributes["end"].value if "end" in node.attributes else None)])
    )


def _size(node: ir.Node) -> Known | None:
    sizes: Any = dims(node.inputs[0])
    return (math.prod(sizes),) if sizes is not None and all(isinstance(x, int) for x in sizes) else None


def _gather(node: ir.Node) -> Known | None:
    data, indices = known(node.inputs[0]), known(node.inputs[1])
    if data is None or not is_number(indices) or node.inputs[0].shape.rank() != 1:
        return None
    return tuple(data[i] for i in indices) if all(-len(data) <= i < len(data) for i in indices) else None


def _cut(node: ir.Node) -> Known | None:
    data, bounds = known(node.inputs[0]), [known(value) for value in node.inputs[1:]]
    if data is None or any(not is_number(bound) for bound in bounds):
        return None
    step = bounds[3][0] if len(bounds) > 3 else 1
    start, end = bounds[0][0], bounds[1][0]
    return data[slice(start, None if step < 0 and end < -len(data) else end, step)]


def _concat(node: ir.Node) -> Known | None:
    parts = [known(value) for value in node.inputs]
    return None if any(part is None for part in parts) else tuple(x for part in parts for x in part)


def _through(node: ir.Node) -> Known | None:
    return known(node.inputs[0])


def _arithmetic(function: Callable[[int, int], int]) -> Callable[[ir.Node], Known | None]:
    def apply(node: ir.Node) -> Known | None:
        a, b = (known(value) for value in node.inputs)
        if a is None or b is None or (len(a) != len(b) and 1 not in (len(a), len(b))):
            return None
        count = max(len(a), len(b))
        pairs = zip(a * (count // len(a)), b * (count // len(b)), strict=True)
        return tuple(
            function(x, y) if isinstance(x, int) and isinstance(y, int) else x if _neutral(node.op_type, y) else y if _neutral(node.op_type, x, True) else None
            for x, y in pairs
        )

    return apply


def _neutral(op_type: str, element: Any, first: bool = False) -> bool:
    return element == {"Add": 0, "Sub": 0, "Mul": 1, "Div": 1}.get(op_type, object()) and not (first and op_type in ("Sub", "Div"))


KNOWN: dict[str, Callable[[ir.Node], Known | None]] = {
    "Shape": _shape,
    "Size": _size,
    "Gather": _gather,
    "Slice": _cut,
    "Concat": _concat,
    "Unsqueeze": _through,
    "Squeeze": _through,
    "Cast": _through,
    "Identity": _through,
    "Add": _arithmetic(lambda a, b: a + b),
    "Sub": _arithmetic(lambda a, b: a - b),
    "Mul": _arithmetic(lambda a, b: a * b),
    "Div": _arithmetic(lambda a, b: abs(a) // abs(b) * (1 if a * b >= 0 else -1) if b else 0),
    "Max": _arithmetic(max),
    "Min": _arithmetic(min),
}


def learn(node: ir.Node) -> None:
    """Notes what is known about a node's first output."""
    if (
        node.domain == ""
        and node.op_type in KNOWN
        and node.outputs[0].shape is not None
        and node.outputs[0].shape.rank() <= 1
        and node.outputs[0].dtype in (ir.DataType.INT64, ir.DataType.INT32)
    ):
        elements = KNOWN[node.op_type](node) if all(value is not None for value in node.inputs) else None
        if elements is not None and len(elements) <= MOST_KNOWN:
            node.outputs[0].meta["known"] = elements

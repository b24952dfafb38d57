"""The hub's operator set to an older one, down to opset 13: the way back of `upgrade`, one adapter for every change of form.

Operators that the older version lacks are replaced by the function body that ONNX defines for them; element types that it lacks are cast around the
operator. Nodes are visited from the last to the first, so that what feeds a node still has the hub's form when its types are inferred.
"""
from __future__ import annotations

import functools
from typing import Any

import numpy as np
import onnx
import onnx_ir as ir
from onnx import defs

from isomorph.passes._edit import Adapters, Edit, Walk, bodies, constant_of
from isomorph.passes.upgrade import REDUCE
from isomorph.report import Finding

adapters = Adapters()

# element type -> wider ones to compute in instead, the nearest first
WIDER = {"BFLOAT16": ["FLOAT"], "FLOAT16": ["FLOAT"], "BOOL": ["UINT8", "INT32"], "INT8": ["INT32", "INT64"], "UINT8": ["INT32", "INT64"],
         "INT16": ["INT32", "INT64"], "UINT16": ["INT32", "INT64"], "UINT32": ["INT64"], "INT32": ["INT64"]}
# names of element types in ONNX's schemas are the lower-case names of the types


def downgrade(model: ir.Model, opset: int, where: str = "") -> list[Finding]:
    """Brings a model of the hub's operator set to an older `opset`, in place. Raises `Unsupported` with every node that cannot be expressed there."""
    walk = Walk(model, where, opset)
    for graph in [model.graph, *(function.graph for function in model.functions.values())]:
        current = graph.opset_imports.get("", opset)
        walk.in_function = graph is not model.graph
        walk.run(graph, functools.partial(adapt_down, current=current, target=opset), backwards=True)
        graph.opset_imports[""] = opset
    return walk.finish(f"opset {opset}")


def adapt_down(edit: Edit, current: int, target: int) -> None:
    """Undoes every change between two versions of a node's operator, newest first; what is left must exist at the target with these types."""
    if edit.node.domain != "":
        return
    operator = edit.node.op_type
    if not defs.has(operator, ""):
        return
    first = first_version(operator)
    if first > target and first not in adapters.table.get(operator, ()):
        inline(edit, current, target)
        return
    for version in reversed(adapters.between(operator, target, current)):
        adapters.table[operator][version](edit)
        if edit.node.op_type != operator or edit.node.graph is None:
            break
    if edit.node.graph is not None:
        fit_types(edit, target)


@functools.cache
def first_version(operator: str) -> int:
    return min(schema.since_version for schema in defs.get_all_schemas_with_history() if schema.name == operator and schema.domain == "")


# ---- function bodies

def inline(edit: Edit, current: int, target: int) -> None:
    """Replaces a node by the body ONNX defines for its operator, whose nodes are adapted in turn."""
    version, proto = function_body(edit, current)
    formal_outputs = list(proto.output)
    names = _keep_produced_outputs(edit, proto)
    function = ir.serde.deserialize_function(proto)
    node, graph = edit.node, edit.graph
    for inner in list(function.all_nodes()):
        _bind_attributes(inner, node)
    given = [*node.inputs, *[None] * len(function.inputs)]
    for formal, actual in zip(function.inputs, given, strict=False):
        for use in list(formal.uses()):
            use.node.replace_input_with(use.idx, actual)
    results = dict(zip(names, function.outputs, strict=True))
    nodes = list(function)
    for inner in nodes:
        inner.name = edit.walk.unique(f"{edit.label}/{inner.name or inner.op_type}")
        for value in inner.outputs:
            value.name = edit.walk.unique(f"{edit.label}/{value.name or inner.op_type}")
    function.graph.outputs.clear()
    function.graph.remove(nodes)
    graph.insert_before(node, nodes)
    for old, new in zip(node.outputs, map(results.get, formal_outputs), strict=False):
        if new is None:
            continue
        if new in function.inputs:
            copy = ir.node("Identity", [given[function.inputs.index(new)]], name=edit.walk.unique(f"{edit.label}/Identity"))
            graph.insert_before(node, copy)
            new = copy.outputs[0]
        new.type, new.shape = old.type, old.shape
        name, old.name = old.name, edit.walk.unique(f"{old.name}/replaced")
        new.name = name
        old.replace_all_uses_with(new, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    for inner in reversed(nodes):
        edit.walk.visit(Edit(inner, graph, edit.walk), lambda e: adapt_down(e, version, target))
        for body in bodies(inner):
            edit.walk.run(body, lambda e: adapt_down(e, version, target), backwards=True)


def function_body(edit: Edit, current: int) -> tuple[int, onnx.FunctionProto]:
    """The body of a node's operator and the opset it is written in."""
    if first_version(edit.node.op_type) > current:
        edit.block(f"it came with opset {first_version(edit.node.op_type)} and the model says opset {current}")
    schema: Any = defs.get_schema(edit.node.op_type, current, "")      # its type stubs know no functions
    contextual = [version for version in schema.context_dependent_function_opset_versions if version <= current]
    fixed = [version for version in schema.function_opset_versions if version <= current]
    proto = onnx.FunctionProto()
    if fixed:
        body = schema.get_function_with_opset_version(max(fixed))
        proto.ParseFromString(body if isinstance(body, bytes) else body.SerializeToString())
    elif contextual:
        types = [_type_bytes(edit, index) for index in range(len(edit.node.inputs))]
        node = ir.serde.serialize_node(edit.node).SerializeToString()
        proto.ParseFromString(schema.get_context_dependent_function_with_opset_version(max(contextual), node, types))
    else:
        edit.block(f"it came with opset {first_version(edit.node.op_type)} and ONNX defines it by no simpler operators")
    return next((item.version for item in proto.opset_import if item.domain == ""), current), proto


def _keep_produced_outputs(edit: Edit, proto: onnx.FunctionProto) -> list[str]:
    """A body that depends on the node leaves out what the node does not use; its signature still names it."""
    produced = {name for node in proto.node for name in node.output} | set(proto.input)
    missing = [name for index, name in enumerate(proto.output) if name not in produced and edit.used(index)]
    if missing:
        edit.block(f"the body that ONNX defines for it does not compute {', '.join(missing)}")
    names = [name for name in proto.output if name in produced]
    del proto.output[:]
    proto.output.extend(names)
    return names


def _type_bytes(edit: Edit, index: int) -> bytes:
    value = edit.input(index)
    if value is None:
        return onnx.TypeProto().SerializeToString()
    edit.walk.shape(value)
    if value.type is None:
        edit.block(f"the type of its input {index} is not known")
    return ir.serde.serialize_value(value).type.SerializeToString()


def _bind_attributes(inner: ir.Node, outer: ir.Node) -> None:
    """Attributes of the body that name attributes of the operator take their values, or their defaults."""
    schema = defs.get_schema(outer.op_type, "")
    for name, attribute in list(inner.attributes.items()):
        if not attribute.is_ref():
            continue
        given = outer.attributes.get(attribute.ref_attr_name)
        formal = schema.attributes.get(attribute.ref_attr_name)
        if given is not None:
            inner.attributes[name] = ir.Attr(name, given.type, given.value)
        elif formal is not None and formal.default_value.name:
            default = ir.serde.deserialize_attribute(formal.default_value)
            inner.attributes[name] = ir.Attr(name, default.type, default.value)
        else:
            inner.attributes.pop(name)


# ---- element types

def fit_types(edit: Edit, target: int) -> None:
    """Casts around a node what its older version does not take; blocks where nothing wider exists."""
    schema = defs.get_schema(edit.node.op_type, target, "")
    for index, formal in enumerate(schema.inputs):
        if formal.option == defs.OpSchema.FormalParameterOption.Single and edit.input(index) is None:
            edit.block(f"its input `{formal.name}` is required at opset {target}")
    allowed = {constraint.type_param_str: set(constraint.allowed_type_strs) for constraint in schema.type_constraints}
    inputs, outputs = _parameters(schema.inputs, edit.node.inputs), _parameters(schema.outputs, edit.node.outputs)
    for parameter in dict.fromkeys(inputs + outputs):
        kinds = allowed.get(parameter, {parameter})
        for index, name in enumerate(inputs):
            kind = _type_name(edit, edit.input(index)) if name == parameter else None
            if kind is not None and kind not in kinds:
                _cast_around(edit, parameter, inputs, outputs, kind, kinds, target)
                break
        else:
            for index, name in enumerate(outputs):
                kind = _type_name(edit, edit.node.outputs[index]) if name == parameter and edit.used(index) else None
                if kind is not None and kind not in kinds:
                    edit.block(f"opset {target} does not give {kind}")


def _parameters(formals: Any, actual: Any) -> list[str]:
    """The type parameter of every actual input or output; the last formal one stands for the rest where it is variadic."""
    if not formals:
        return []
    return [formals[min(index, len(formals) - 1)].type_str for index in range(len(actual))]


def _type_name(edit: Edit, value: ir.Value | None) -> str | None:
    """A type as ONNX's schemas write it."""
    if value is None:
        return None
    edit.walk.dtype(value)
    return _spelled(value.type)


def _spelled(kind: Any) -> str | None:
    if isinstance(kind, ir.TensorType):
        return f"tensor({kind.dtype.name.lower()})"
    wrapper = {ir.SequenceType: "seq", ir.OptionalType: "optional"}.get(type(kind))
    return f"{wrapper}({_spelled(kind.elem_type)})" if wrapper else None


def _cast_around(edit: Edit, formal: str, inputs: list[str], outputs: list[str], kind: str, kinds: set[str], target: int) -> None:
    index = next(index for index, name in enumerate(inputs) if name == formal and edit.input(index) is not None)
    dtype = edit.dtype(index)
    wider = next((name for name in WIDER.get(dtype.name, ()) if f"tensor({name.lower()})" in kinds), None) if kind.startswith("tensor(") else None
    if wider is None:
        edit.block(f"opset {target} does not take {kind}")
    for place, name in enumerate(inputs):
        if name == formal and edit.input(place) is not None:
            edit.set_input(place, edit.add("Cast", edit.input(place), to=int(ir.DataType[wider])))
    for place, name in enumerate(outputs):
        if name == formal and edit.used(place):
            edit.after(place, "Cast", to=int(dtype))
            edit.node.outputs[place].type = ir.TensorType(ir.DataType[wider])


# ---- inputs that were attributes

def to_attribute(e: Edit, index: int, name: str) -> tuple[int, ...] | None:
    """A constant input becomes an attribute again; None where it is absent."""
    if e.input(index) is None:
        e.drop_inputs(index)
        return None
    array = constant_of(e.input(index))
    if array is None:
        e.block(f"its `{name}` is computed, and was an attribute in older versions")
    values = tuple(int(x) for x in array.reshape(-1))
    e.drop_inputs(index)
    return values


@adapters(18, *REDUCE)
def axes_are_an_attribute(e: Edit) -> None:
    axes = to_attribute(e, 1, "axes")
    keeps_all = e.take("noop_with_empty_axes", 0)
    if axes:
        e.set(axes=axes)
    elif keeps_all:
        e.set(axes=[])
        e.block("it reduces over no axis, which older versions cannot say")


@adapters(20, "DFT")
def axis_is_an_attribute(e: Edit) -> None:
    axis = to_attribute(e, 2, "axis") or (-2,)
    e.set(axis=axis[0] % e.rank(0) if axis[0] < 0 else axis[0])


@adapters(18, "Pad")
def pads_for_every_axis(e: Edit) -> None:
    axes = to_attribute(e, 3, "axes")
    if axes is None:
        return
    rank, pads = e.rank(0), e.constant(1)
    places = [axis % rank + side * rank for side in (0, 1) for axis in axes]
    if pads is None:
        e.set_input(1, e.add("ScatterElements", e.const(np.zeros(2 * rank, np.int64)), e.const(places), e.add("Cast", e.input(1), to=int(ir.DataType.INT64))))
        return
    full = np.zeros(2 * rank, np.int64)
    full[places] = pads
    e.set_input(1, e.const(full))


@adapters(18, "Split")
def sizes_instead_of_a_number(e: Edit) -> None:
    """Without sizes older versions cut into equal parts; the newer one lets the last part be smaller."""
    count = e.take("num_outputs")
    if count is None or e.input(1) is not None:
        return
    axis, sizes = e.get("axis", 0), e.dims(0)
    size = sizes[axis] if sizes is not None else None
    if size is not None:
        part = -(-size // count)
        if size % count:
            e.set_input(1, e.const([part] * (count - 1) + [size - part * (count - 1)]))
        return
    whole = e.add("Gather", e.add("Shape", e.input(0)), e.const([axis]), axis=0)
    part = e.add("Div", e.add("Add", whole, e.const([count - 1])), e.const([count]))
    last = e.add("Sub", whole, e.add("Mul", part, e.const([count - 1])))
    e.set_input(1, e.add("Concat", *[part] * (count - 1), last, axis=0))


@adapters(18, "Resize")
def every_axis_is_resized(e: Edit) -> None:
    _only(e, antialias=0, keep_aspect_ratio_policy="stretch")
    axes = e.take("axes")
    if axes is None:
        return
    rank, sizes = e.rank(0), e.dims(0)
    axes = [axis % rank for axis in axes]
    for index, plain in ((1, None), (2, 1.0), (3, sizes)):
        value = e.constant(index)
        if e.input(index) is None or (value is not None and not value.size):
            continue
        rest = plain if isinstance(plain, list) else [plain] * rank
        if value is None or None in [rest[axis] for axis in range(rank) if axis not in axes]:
            e.block("it resizes some axes by values that are not constant")
        full = np.asarray([value.reshape(-1)[axes.index(axis)] if axis in axes else rest[axis] for axis in range(rank)], value.dtype)
        e.set_input(index, e.const(full))


@adapters(19, "Resize")
def known_coordinates(e: Edit) -> None:
    if e.get("coordinate_transformation_mode") == "half_pixel_symmetric":
        e.block("coordinate_transformation_mode half_pixel_symmetric came with opset 19")


# ---- attributes that had no older form: dropped where they say what was always so

def _only(e: Edit, **meaning: Any) -> None:
    """Drops attributes; blocks where one is not the one value older versions know."""
    for name, old in meaning.items():
        value = e.take(name, old)
        if value != old:
            e.block(f"its `{name}` is {value!r}, and older versions know only {old!r}")


@adapters(15, "Shape")
def slice_of_the_shape(e: Edit) -> None:
    start, end = e.take("start", 0), e.take("end")
    if start or end is not None:
        e.after(0, "Slice", e.const([start]), e.const([np.iinfo(np.int64).max if end is None else end]))


@adapters(14, "Reshape")
def zero_copies_a_size(e: Edit) -> None:
    shape = e.constant(1)
    if e.take("allowzero", 0) and (shape is None or 0 in shape):
        e.block("its `allowzero` keeps a size of zero, which older versions cannot say")


@adapters(14, "BatchNormalization")
def inference_only(e: Edit) -> None:
    _only(e, training_mode=0)


@adapters(14, "RNN", "GRU", "LSTM")
def time_comes_first(e: Edit) -> None:
    """`layout=1` puts the batch first; the transposes do the same."""
    if not e.take("layout", 0):
        return
    for index in (0, 5, 6):
        if e.input(index) is not None:
            e.set_input(index, e.add("Transpose", e.input(index), perm=[1, 0, 2]))
    for index, perm in enumerate(([2, 0, 1, 3], [1, 0, 2], [1, 0, 2])):
        if e.used(index):
            e.after(index, "Transpose", perm=perm)


@adapters(14, "Trilu")
def triangle_by_comparison(e: Edit) -> None:
    """Row and column numbers say which elements stay."""
    x, upper = e.input(0), e.take("upper", 1)
    diagonal = e.input(1) or e.const(0)
    sizes = e.add("Shape", x)
    rank = e.rank(0)
    rows, columns = (e.add("Range", e.const(0), e.add("Gather", sizes, e.const(rank - back), axis=0), e.const(1)) for back in (2, 1))
    distance = e.add("Sub", e.add("Unsqueeze", columns, e.const([0])), e.add("Unsqueeze", rows, e.const([1])))
    kept = e.add("GreaterOrEqual" if upper else "LessOrEqual", distance, e.add("Reshape", diagonal, e.const([1])))
    e.become("Where", kept, x, e.const(0, e.numpy_type()))


@adapters(16, "RoiAlign")
def boxes_without_a_shift(e: Edit) -> None:
    if e.take("coordinate_transformation_mode", "half_pixel") != "output_half_pixel":
        e.block("its coordinate_transformation_mode half_pixel came with opset 16")


@adapters(18, "ScatterElements", "ScatterND")
def sums_and_products(e: Edit) -> None:
    if e.get("reduction", "none") in ("max", "min"):
        e.block(f"its reduction {e.get('reduction')} came with opset 18")


@adapters(16, "ScatterElements", "ScatterND")
def plain_scatter(e: Edit) -> None:
    _only(e, reduction="none")


@adapters(20, "GridSample")
def modes_for_images(e: Edit) -> None:
    if e.rank(0) != 4:
        e.block("it samples volumes, which came with opset 20")
    e.set(mode={"linear": "bilinear", "cubic": "bicubic"}.get(e.get("mode", "linear"), e.get("mode", "linear")))


@adapters(19, "AveragePool")
@adapters(18, "LpPool")
def dense_windows(e: Edit) -> None:
    if any(step != 1 for step in e.take("dilations", ())):
        e.block("its window has dilations, which older versions do not know")
    if e.node.op_type == "LpPool":
        _only(e, ceil_mode=0)


@adapters(19, "Pad")
def no_wrapping(e: Edit) -> None:
    if e.get("mode") == "wrap":
        e.block("its mode wrap came with opset 19")


@adapters(19, "Cast", "CastLike", "QuantizeLinear")
def saturation_is_for_float8(e: Edit) -> None:
    e.take("saturate")


@adapters(24, "Cast", "CastLike")
def rounding_is_for_float8(e: Edit) -> None:
    e.take("round_mode")


@adapters(23, "DequantizeLinear")
def output_has_the_type_of_the_scale(e: Edit) -> None:
    wanted = e.take("output_dtype", 0)
    if wanted and wanted != e.dtype(1):
        e.after(0, "Cast", to=wanted)


@adapters(23, "QuantizeLinear")
def precision_is_that_of_the_input(e: Edit) -> None:
    _only(e, precision=0)


@adapters(21, "QuantizeLinear")
def output_has_the_type_of_the_zero_point(e: Edit) -> None:
    """Without a zero point the type is uint8; another one needs a zero of that type."""
    _only(e, block_size=0)
    wanted = e.take("output_dtype", 0)
    if wanted and e.input(2) is None and wanted != ir.DataType.UINT8:
        scale = e.constant(1)
        if scale is None:
            e.block("its `output_dtype` needs a zero point, whose shape is not known")
        e.set_input(2, e.const(np.zeros(scale.shape, ir.DataType(wanted).numpy())))


@adapters(21, "DequantizeLinear")
def no_blocks(e: Edit) -> None:
    _only(e, block_size=0)


@adapters(21, "GroupNormalization")
def groups_by_their_definition(e: Edit) -> None:
    """Scale and bias of one element a group cannot say what one a channel says."""
    inline(e, 21, e.walk.target)


@adapters(25, "Attention")
def whole_window(e: Edit) -> None:
    _only(e, left_window_size=-1, right_window_size=-1)


@adapters(24, "Attention")
def whole_cache(e: Edit) -> None:
    if e.input(6) is not None:
        e.block("its `nonpad_kv_seqlen` came with opset 24")
    e.drop_inputs(6)


@adapters(27, "Range")
def computed_in_its_own_type(e: Edit) -> None:
    e.take("stash_type")


@adapters(28, "SpaceToDepth")
def depth_first(e: Edit) -> None:
    if e.get("mode", "DCR") == "DCR":
        e.take("mode")
    else:
        inline(e, 28, e.walk.target)


@adapters(28, "BitShift")
def shift_of_signed(e: Edit) -> None:
    """Signed numbers are shifted as unsigned ones of the same bits. An arithmetic shift of a negative number is the logical one of its complement,
    complemented again. Shifts below zero or beyond the width leave the sign."""
    dtype = e.dtype()
    if dtype is None or dtype.name not in SIGNED:
        return
    unsigned, direction = ir.DataType["U" + dtype.name], e.get("direction")
    x, y = e.input(0), e.input(1)
    width = e.const(dtype.itemsize * 8, dtype.numpy())
    zero = e.const(0, dtype.numpy())
    outside = e.add("Or", e.add("Less", y, zero), e.add("GreaterOrEqual", y, width))
    amount = e.add("Cast", e.add("Where", outside, zero, y), to=int(unsigned))
    negative = e.add("Less", x, zero)
    start = e.add("Where", negative, e.add("BitwiseNot", x), x) if direction == "RIGHT" else x
    shifted = e.add("Cast", e.add("BitShift", e.add("Cast", start, to=int(unsigned)), amount, direction=direction), to=int(dtype))
    kept = e.add("Where", outside, zero, shifted)
    if direction == "RIGHT":
        e.become("Where", negative, e.add("BitwiseNot", kept), kept)
    else:
        e.become("Identity", kept)


SIGNED = ("INT8", "INT16", "INT32", "INT64")

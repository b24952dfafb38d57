"""Function bodies: those that ONNX defines for its own operators, and those that a model brings along."""

from __future__ import annotations

from typing import Any

import onnx
import onnx_ir as ir
from onnx_ir.passes.common import InlinePass, RemoveInitializersFromInputsPass

from isomorph.dialects._lower import Builder, Rule
from isomorph.model import Model
from isomorph.passes.shapes import schema_of
from isomorph.report import Finding, Severity

ABSENT = "isomorph.absent"


def inline(model: ir.Model) -> None:
    """Replaces every call of a function of the model by its body."""
    if model.functions:
        InlinePass()(model)


def own_copy(model: Model, why: str) -> tuple[ir.Model, list[Finding]]:
    """A copy to rewrite, without functions and without defaults of inputs: these become constants, each with a finding that says `why`."""
    whole, findings = model.ir.clone(), list(model.findings)
    findings += [Finding("input.fixed", Severity.MEDIUM, value.name or "", f"{value.name} has a default value; {why}")
                 for value in whole.graph.inputs if value.is_initializer()]
    RemoveInitializersFromInputsPass()(whole)
    inline(whole)
    return whole, findings


def has_function(node: ir.Node) -> bool:
    schema = schema_of(node)
    return schema is not None and (schema.has_function or schema.has_context_dependent_function)


def function_of(node: ir.Node, opset: int) -> ir.Function | None:
    """The body that ONNX defines for this node, for the newest operator set up to `opset`."""
    schema = schema_of(node)
    if schema.has_function:
        versions = [version for version in schema.function_opset_versions if version <= opset] or schema.function_opset_versions
        return _read(onnx.FunctionProto.FromString(schema.get_function_with_opset_version(max(versions))))
    types = [ir.serde.serialize_value(value).type.SerializeToString() if value is not None else b"" for value in node.inputs]
    versions = [version for version in schema.context_dependent_function_opset_versions if version <= opset] or schema.context_dependent_function_opset_versions
    body = schema.get_context_dependent_function_with_opset_version(max(versions), ir.serde.serialize_node(node).SerializeToString(), types)
    return _read(onnx.FunctionProto.FromString(body)) if body else None


def _read(proto: onnx.FunctionProto) -> ir.Function:
    """Bodies made for certain types leave out the outputs that are not asked for, but still list them."""
    made = {name for node in proto.node for name in node.output} | set(proto.input)
    for name in [name for name in proto.output if name not in made]:
        proto.node.append(onnx.helper.make_node(ABSENT, [], [name]))
    return ir.serde.deserialize_function(proto)


def expand(op: Builder, *inputs: ir.Value | None) -> Any:
    """Appends the nodes of the operator's own function body."""
    from isomorph.passes.shapes import OPSETS

    node = op.node
    function = function_of(node, OPSETS[""])
    if function is None:
        op.reject("ONNX defines no function body for these types and attributes")
    schema = schema_of(node)
    attributes = {name: default for name, default in ((name, _default(a)) for name, a in schema.attributes.items()) if default is not None}
    attributes |= {name: attribute.value for name, attribute in node.attributes.items()}
    values: dict[ir.Value, ir.Value | None] = dict(zip(function.inputs, [*inputs, *[None] * (len(function.inputs) - len(inputs))], strict=False))
    for inner in function:
        if inner.op_type == ABSENT:
            continue
        given = {}
        for name, attribute in inner.attributes.items():
            if attribute.is_ref():
                if attribute.ref_attr_name in attributes:
                    given[name] = attributes[attribute.ref_attr_name]
            elif attribute.type == ir.AttributeType.GRAPH:
                given[name] = _bound(attribute.value, values, attributes)
            else:
                given[name] = attribute.value
        outs = op.make(inner.op_type, [values.get(v) if v is not None else None for v in inner.inputs], given, outputs=len(inner.outputs), domain=inner.domain)
        for old, new in zip(inner.outputs, outs if isinstance(outs, tuple) else (outs,), strict=True):
            values[old] = new
    return [values.get(v) for v in function.outputs][: len(node.outputs)]


def _default(attribute: Any) -> Any:
    return ir.serde.deserialize_attribute(attribute.default_value).value if attribute.default_value.type else None


def _bound(graph: ir.Graph, values: dict, attributes: dict) -> ir.Graph:
    """A body with the function's values and attribute parameters put in."""
    clone = graph.clone(allow_outer_scope_values=True)
    for node in clone.all_nodes():
        for index, value in enumerate(node.inputs):
            if value in values:
                node.replace_input_with(index, values[value])
        for name, attribute in list(node.attributes.items()):
            if attribute.is_ref():
                node.attributes.pop(name)
                if attribute.ref_attr_name in attributes:
                    node.attributes[name] = ir.Attr(name, attribute.type, attributes[attribute.ref_attr_name])
    for index, value in enumerate(list(clone.outputs)):
        if value in values:
            clone.outputs[index] = values[value]
    return clone


EXPAND = Rule(expand, variadic=True)
EXPAND.inputs, EXPAND.attributes, EXPAND.ignores_rest = [], {}, False

"""What every other pass may rely on: nodes of ONNX's own operators have the inputs, outputs and attributes that their schema demands."""
from __future__ import annotations

import functools
from typing import Any, NamedTuple

import onnx_ir as ir
from onnx import defs

from isomorph.errors import Damaged
from isomorph.model import HUB_ML_OPSET, HUB_OPSET

OPSETS = {"": HUB_OPSET, "ai.onnx.ml": HUB_ML_OPSET}
MOST_NAMED = 5                   # nodes that the message lists


class Signature(NamedTuple):
    inputs: tuple[int, int]                   # least and most
    needed: tuple[int, ...]                   # places that may not be left empty
    outputs: tuple[int, int]
    types: dict[str, int]                     # attribute -> AttributeType
    required: frozenset[str]


@functools.cache
def signature_of(operator: str, domain: str) -> Signature | None:
    """The demands of an operator at the hub's opset; None for operators ONNX does not define there."""
    if domain not in OPSETS or not defs.has(operator, domain):
        return None
    try:
        schema: Any = defs.get_schema(operator, OPSETS[domain], domain)      # its type stubs lack what pybind adds
    except defs.SchemaError:
        return None
    single = defs.OpSchema.FormalParameterOption.Single
    return Signature((schema.min_input, schema.max_input), tuple(place for place, formal in enumerate(schema.inputs) if formal.option == single),
                     (schema.min_output, schema.max_output), {name: int(formal.type.value) for name, formal in schema.attributes.items()},
                     frozenset(name for name, formal in schema.attributes.items() if formal.required))


def refuse_malformed(model: ir.Model, where: str) -> None:
    """Raises `Damaged` that names the nodes whose inputs, outputs or attributes contradict their operator. Unknown attributes are left to the mappings."""
    found = []
    for graph in (model.graph, *(function.graph for function in model.functions.values())):
        for node in graph.all_nodes():
            function = model.functions.get(node.op_identifier())
            signature = signature_of(node.op_type, node.domain)
            if reason := _call(node, function) if function is not None else _contradiction(node, signature) if signature is not None else "":
                found.append(f"{node.op_type} {(node.name or (node.outputs[0].name if node.outputs else '') or '')[:80]!r}: {reason}")
    if found:
        raise Damaged(f"{len(found)} nodes contradict the definition of their operators: {'; '.join(found[:MOST_NAMED])}", where=where)


def _contradiction(node: ir.Node, signature: Signature) -> str:
    least, most = signature.inputs
    if not least <= len(node.inputs) <= most:
        return f"it has {len(node.inputs)} inputs, the operator takes {least} to {most}"
    for place in signature.needed:
        if node.inputs[place] is None:
            return f"its input {place} is missing"
    if not signature.outputs[0] <= len(node.outputs) <= signature.outputs[1]:
        return f"it has {len(node.outputs)} outputs, the operator gives {signature.outputs[0]} to {signature.outputs[1]}"
    for name in signature.required:
        if name not in node.attributes:
            return f"its attribute `{name}` is missing"
    for name, attribute in node.attributes.items():
        wanted = signature.types.get(name)
        if wanted is not None and int(attribute.type) != wanted:
            return f"its attribute `{name}` is of type {_type_name(attribute.type)}, the operator takes {_type_name(wanted)}"
    further = FURTHER.get(node.op_type) if node.domain == "" else None
    return further(node) if further is not None else ""


def _call(node: ir.Node, function: ir.Function) -> str:
    if len(node.inputs) > len(function.inputs) or len(node.outputs) > len(function.outputs):
        return f"it has {len(node.inputs)} inputs and {len(node.outputs)} outputs, the function {len(function.inputs)} and {len(function.outputs)}"
    return ""


def _constant(node: ir.Node) -> str:
    return "" if len(node.attributes) == 1 else f"it has {len(node.attributes)} attributes, of which one is to be the value"


def _if(node: ir.Node) -> str:
    return _bodies(node, ("then_branch", "else_branch"), 0, len(node.outputs))


def _loop(node: ir.Node) -> str:
    """The body takes the iteration number and the condition before the carried values, and gives the condition before them."""
    return _bodies(node, ("body",), len(node.inputs) if len(node.inputs) > 1 else 2, len(node.outputs) + 1)


def _scan(node: ir.Node) -> str:
    scanned = node.attributes["num_scan_inputs"].value
    if not 1 <= scanned <= len(node.inputs):
        return f"it scans {scanned} of {len(node.inputs)} inputs"
    return _bodies(node, ("body",), len(node.inputs), len(node.outputs))


def _bodies(node: ir.Node, names: tuple[str, ...], inputs: int, outputs: int) -> str:
    for name in names:
        body = node.attributes[name].value
        if (len(body.inputs), len(body.outputs)) != (inputs, outputs):
            return f"its {name} has {len(body.inputs)} inputs and {len(body.outputs)} outputs where it needs {inputs} and {outputs}"
    return ""


# operators of which the schema does not say everything
FURTHER = {"Constant": _constant, "If": _if, "Loop": _loop, "Scan": _scan}


def _type_name(kind: Any) -> str:
    return ir.AttributeType(int(kind)).name.lower()

"""What stands in a model file: inputs, outputs, operators, tensors, metadata. Weights are described without being read."""
from __future__ import annotations

import math
from collections.abc import Sequence
from inspect import signature
from typing import TYPE_CHECKING, Any

from isomorph.artifact import Artifact
from isomorph.errors import Unsupported
from isomorph.formats import _table
from isomorph.report import Report
from isomorph.tensors import BITS, NAME, TYPES, dims_of, type_of

if TYPE_CHECKING:
    import onnx_ir

    from isomorph.model import Checkpoint, Model

LONGEST_LIST = 8                                        # elements of a list attribute that are shown
LONGEST_TEXT = 200


def inspect(source: Any, *, graph: bool = False) -> Report:
    """Describes a model file. Facts for all: `format`, `version`, `flavour`, `holds`, `bytes`, `detail`; for what is read also `metadata`, `parameters`
    and `tensors`; for graphs also `inputs`, `outputs`, `operators`, `opsets`, `functions`, `signatures` and, with `graph`, `nodes`.

    A file that is only recognised is described by its header. Raises `NotRecognised`, `Damaged` or `Unsafe`.
    """
    artifact = Artifact.open(source)
    match = _table.identify(artifact)
    report = Report(artifact.where, facts={"format": match.format, "version": match.version, "flavour": match.flavour, "holds": match.holds,
                                           "bytes": artifact.size, "detail": match.detail})
    try:
        reader = _table.get(match.format).read
    except Unsupported:
        reader = None
    if reader is None:
        report.facts["hint"] = match.hint
        return report
    as_it_is = {"upgrade": False} if "upgrade" in signature(reader).parameters else {}
    content = reader(artifact, **as_it_is)
    report.extend(content.findings)
    report.facts["metadata"] = {name: _plain(value) for name, value in content.metadata.items()}
    if hasattr(content, "tensors"):
        _describe_weights(content, report)
    else:
        _describe_graph(content, report, graph)
    return report


def _describe_weights(content: Checkpoint, report: Report) -> None:
    tensors = [_tensor(name, tensor) for name, tensor in content.items()]
    report.facts |= {"parameters": sum(math.prod(dims_of(tensor)) for tensor in content.values()), "tensors": tensors}


def _describe_graph(content: Model, report: Report, nodes: bool) -> None:
    from isomorph import model
    weights = model.weights(content)
    main = content.graph
    report.facts |= {
        "inputs": [_value(value) for value in main.inputs if value.name not in main.initializers], "outputs": [_value(value) for value in main.outputs],
        "operators": dict(model.operators(content).most_common()), "opsets": dict(main.opset_imports), "functions": len(content.ir.functions),
        "signatures": [{"name": signature.name, "inputs": dict(signature.inputs), "outputs": dict(signature.outputs)} for signature in content.signatures],
        "parameters": sum(tensor.size for tensor in weights.values()), "tensors": [_tensor(name, tensor) for name, tensor in weights.items()]}
    if nodes:
        report.facts["nodes"] = [_node(node) for node in main.all_nodes()]


def _tensor(name: str, tensor: Any) -> dict[str, Any]:
    """Blocks are described by the name and the size that they are stored with."""
    number, dims, kind = type_of(tensor), list(dims_of(tensor)), getattr(tensor, "kind", None)
    return {"name": name, "dtype": kind.name if kind else _type_name(number), "shape": dims,
            "bytes": tensor.stored_bytes if kind else (math.prod(dims) * BITS[number] + 7) // 8}


def _type_name(number: int) -> str:
    """As NumPy and ml_dtypes write it, "string" for text."""
    return "string" if NAME[number] == "STRING" else TYPES[NAME[number]][2]


def _value(value: onnx_ir.Value) -> dict[str, Any]:
    dtype = _type_name(int(value.dtype)) if value.dtype is not None else str(value.type or "")
    described: dict[str, Any] = {"name": value.name, "dtype": dtype, "shape": None if value.shape is None else [_dimension(dim) for dim in value.shape]}
    quantization = value.meta.get("quantization")
    if quantization is not None:
        described["quantization"] = {"scale": quantization.scale.reshape(-1)[:LONGEST_LIST].tolist(),
                                     "zero_point": quantization.zero_point.reshape(-1)[:LONGEST_LIST].tolist()}
    return described


def _dimension(dim: Any) -> int | str | None:
    return dim if isinstance(dim, int) else dim.value


def _node(node: onnx_ir.Node) -> dict[str, Any]:
    return {"name": node.name or "", "operator": f"{node.domain}::{node.op_type}" if node.domain else node.op_type,
            "inputs": [value.name if value is not None else "" for value in node.inputs], "outputs": [value.name for value in node.outputs],
            "attributes": {name: _plain(getattr(attribute, "value", None)) for name, attribute in node.attributes.items()}}


def _plain(value: Any) -> Any:
    """A value as JSON: long lists and texts cut, what is no plain value named."""
    if isinstance(value, (bool, int, float, type(None))):
        return value
    if isinstance(value, str):
        return value if len(value) <= LONGEST_TEXT else value[:LONGEST_TEXT] + "..."
    if isinstance(value, dict):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray, memoryview)):
        return [_plain(item) for item in value[:LONGEST_LIST]] + (["..."] if len(value) > LONGEST_LIST else [])
    if isinstance(value, (bytes, bytearray, memoryview)):
        return f"<{len(value)} bytes>"
    return f"<{type(value).__name__}>"

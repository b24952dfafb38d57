"""`extra/isomorph.json` beside a program: the names, types and shapes of its inputs and the names of its outputs, which printed code does not have."""
from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import onnx_ir as ir

    from isomorph.model import Model
    from isomorph.wire.archive import Archive

EXTRA = "extra/isomorph.json"
LONGEST = 1 << 22
Port = tuple[str, str, list[Any] | None]         # name, element type by ONNX's name, dimensions: numbers, symbols, or None


def written(model: Model) -> str:
    """The text of the file."""
    def port(value: ir.Value) -> dict[str, Any]:
        shape = None if value.shape is None else [dim if isinstance(dim, int) else dim.value for dim in value.shape]
        return {"name": value.name, "dtype": value.dtype.name if value.dtype is not None else "", "shape": shape}
    return json.dumps({"inputs": [port(value) for value in model.graph.inputs], "outputs": [port(value) for value in model.graph.outputs]})


def read(archive: Archive, root: str) -> tuple[list[Port], list[Port]]:
    """Inputs and outputs as the file says; empty lists where it is not there or says something else."""
    name = root + EXTRA
    if name not in archive.members or archive.members[name].size > LONGEST:
        return [], []
    try:
        document = json.loads(bytes(archive.read(name, LONGEST)))
        return [_port(item) for item in document["inputs"]], [_port(item) for item in document["outputs"]]
    except (ValueError, KeyError, TypeError, RecursionError):
        return [], []


def _port(item: Any) -> Port:
    """Raises `TypeError` for what no port is."""
    from isomorph.tensors import NUMBER
    name, dtype, shape = item["name"], item["dtype"], item["shape"]
    sized = shape is None or (isinstance(shape, list) and all(dim is None or isinstance(dim, str) or (isinstance(dim, int) and dim >= 0) for dim in shape))
    if not isinstance(name, str) or dtype not in NUMBER or not sized:
        raise TypeError
    return name, dtype, shape


def restore(graph: ir.Graph, archive: Archive, root: str) -> None:
    """Gives the inputs, their open dimensions and the outputs of a graph the names that the file keeps, where there are as many and none stands twice."""
    inputs, outputs = read(archive, root)
    for values, ports in ((list(graph.inputs), inputs), (list(graph.outputs), outputs)):
        if len(values) == len(ports) and len({name for name, _, _ in ports}) == len(ports):
            for value, (name, _, _) in zip(values, ports, strict=True):
                value.name = name
    if len(graph.inputs) == len(inputs):
        _rename_symbols(graph, _symbols(list(graph.inputs), inputs))


def _symbols(values: list[ir.Value], ports: list[Port]) -> dict[str, str]:
    """Names of dimensions in the program -> names that they had."""
    found: dict[str, str] = {}
    for value, (_, _, shape) in zip(values, ports, strict=True):
        for dim, stated in zip(value.shape or (), shape or (), strict=False):
            if not isinstance(dim, int) and isinstance(dim.value, str) and isinstance(stated, str):
                found.setdefault(dim.value, stated)
    return found


def _rename_symbols(graph: ir.Graph, names: dict[str, str]) -> None:
    import onnx_ir as ir
    for each in (graph, *graph.subgraphs()):
        for value in (*each.inputs, *(value for node in each for value in node.outputs)):
            if value.shape is not None and any(not isinstance(dim, int) and dim.value in names for dim in value.shape):
                value.shape = ir.Shape([dim if isinstance(dim, int) else names.get(dim.value or "", dim.value) for dim in value.shape])

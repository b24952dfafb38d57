"""What a file holds: a `Model` (a graph in some dialect) or a `Checkpoint` (named lazy tensors)."""
from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from isomorph.report import Finding

if TYPE_CHECKING:
    import onnx_ir


HUB_OPSET = 26              # the newest that ONNX Runtime 1.31 takes without special settings
HUB_ML_OPSET = 5
HUB_IR_VERSION = 13
NEXT = "/next"              # behind the name of a state, an input: the output that holds what it becomes


def unused(name: str, used: set[str]) -> str:
    """`name`, or it with the first number behind it that makes it a name which is not in `used` yet; from now on it is."""
    candidate, count = name, 0
    while candidate in used:
        count += 1
        candidate = f"{name}_{count}"
    used.add(candidate)
    return candidate


@dataclass(frozen=True)
class Quantization:
    """real = scale * (stored - zero_point), per tensor or along `axis`. Kept in `Value.meta["quantization"]` of dialects whose tensors carry it."""

    scale: Any                       # ndarray of float32, [] or [n]
    zero_point: Any                  # ndarray of int64, the same shape
    axis: int = 0

    @property
    def per_axis(self) -> bool:
        return self.scale.size > 1


@dataclass(frozen=True)
class Signature:
    """A named entry point: public argument name -> name of the graph value."""

    name: str
    inputs: Mapping[str, str]
    outputs: Mapping[str, str]


@dataclass
class Model:
    """A graph whose nodes are the operators of `dialect` (`onnx` is the hub). `ir.graph` is the main graph, `ir.functions` its functions."""

    ir: onnx_ir.Model
    dialect: str = "onnx"
    signatures: list[Signature] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)        # what the format carries besides the graph, by the format's own names
    findings: list[Finding] = field(default_factory=list)

    @property
    def graph(self) -> onnx_ir.Graph:
        return self.ir.graph


@dataclass
class Checkpoint(Mapping[str, Any]):
    """Named lazy tensors in the order of the file, with its metadata. Tensors are `tensors.Tensor`s."""

    tensors: dict[str, Any] = field(default_factory=dict)
    metadata: dict[str, Any] = field(default_factory=dict)
    findings: list[Finding] = field(default_factory=list)

    def __getitem__(self, name: str) -> Any:
        return self.tensors[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.tensors)

    def __len__(self) -> int:
        return len(self.tensors)


def by_name(shapes: Mapping[str, Sequence[int]], names: Sequence[str]) -> dict[str, Sequence[int]]:
    """Shapes of inputs by name. A caller may say "0" for the first input, "1" for the second, where no input is called so."""
    return {names[int(name)] if name not in names and name.isdecimal() and int(name) < len(names) else name: shape for name, shape in shapes.items()}


def operators(model: Model) -> Counter[str]:
    """How often each operator stands in the graph and in its bodies; domains other than the dialect's own are written out."""
    return Counter(f"{node.domain}::{node.op_type}" if node.domain not in ("", "ai.onnx", model.dialect) else node.op_type
                   for graph in (model.graph, *model.graph.subgraphs()) for node in graph)


def weights(model: Model, *, used: bool = False) -> Checkpoint:
    """The initializers of the graph and of its bodies, by name; with `used`, only those that a node or an output uses."""
    return Checkpoint({name: value.const_value for graph in (model.graph, *model.graph.subgraphs()) for name, value in graph.initializers.items()
                       if value.const_value is not None and not (used and not value.uses() and not value.is_graph_output())})

"""One side of a comparison: a model file, read by us where that is needed, run in its own runtime where there is one."""
from __future__ import annotations

import contextlib
import inspect
import re
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph import runtime
from isomorph.artifact import Artifact
from isomorph.errors import Missing, Unsupported
from isomorph.formats import _table
from isomorph.model import NEXT, Checkpoint, Model
from isomorph.report import Severity
from isomorph.runtime.session import Session

if TYPE_CHECKING:
    import onnx_ir

FLOATS = {"DOUBLE": 64, "FLOAT": 32, "BFLOAT16": 16, "FLOAT16": 16}
BOUNDED = frozenset({"Sigmoid", "Softmax", "Tanh", "HardSigmoid", "Softsign", "Sin", "Cos", "Erf", "LSTM", "GRU", "RNN"})
MOVED = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity", "Slice", "Cast", "Concat"})
MOST_DECODED = 4 << 30                          # bytes of decoded weights that are run to prove a network
LARGE = 64                                      # elements from which a constant counts as a weight


@dataclass(frozen=True)
class Traits:
    """What the tolerance of a comparison depends on: operators, the types of weights and activations, quantisation."""

    operators: Counter[str]
    weight_types: frozenset[str]
    value_types: frozenset[str]
    quantised_values: bool
    quantised_weights: bool


PARSES = re.compile(r"Parse(Single)?Example")
# In the configuration of a layer what Keras would import, unmarshal or call by its name, inside a wrapper too.
FOREIGN = re.compile(r'"module": "(?!keras\b|builtins")|"foreign"|"class_name": "(Lambda|TFSMLayer|TFOpLambda|SlicingOpLambda|TensorFlowOpLayer)"')


class Subject:
    """A model file. Reading is lazy: what is not needed is not read."""

    def __init__(self, source: Any, *, input_shapes: Mapping[str, Sequence[int]] | None = None, signature: str = ""):
        self.artifact, self.signature = Artifact.open(source), signature
        self.options: dict[str, Any] = {name: value for name, value in (("input_shapes", dict(input_shapes or {})), ("signature", signature)) if value}
        self.match = _table.identify(self.artifact)
        self.format = _table.get(self.match.format)

    @property
    def where(self) -> str:
        return self.artifact.where

    @cached_property
    def content(self) -> Model | Checkpoint:
        """What the format's reader makes of the file."""
        if self.format.read is None:
            raise Unsupported(f"isomorph recognises {self.format.title} but does not read it", where=self.where, hint=self.match.hint)
        return self._read()

    def _read(self) -> Any:
        """The file read anew, with the shapes of its inputs and its entry point where its reader asks for them."""
        assert self.format.read is not None
        known = inspect.signature(self.format.read).parameters
        return self.format.read(self.artifact, **{name: value for name, value in self.options.items() if name in known})

    @property
    def harmless(self) -> bool:
        """Whether its own runtime may run it: not where our reader found operators that touch files, processes or Python, or code that Keras would run."""
        if self.format.dialect == "keras" and isinstance(self.content, Model):
            from isomorph.dialects.keras.to_onnx.pipeline import is_known
            return not any(node.domain == "keras.custom" or node.op_type in ("Lambda", "TFSMLayer") or not is_known(node)
                           or FOREIGN.search(str(node.attributes["layer"].value)) for node in self.content.graph)
        return self.format.dialect != "tf" or not any(finding.code == "tf.effect" and finding.severity >= Severity.HIGH for finding in self.content.findings)

    @property
    def holds_graph(self) -> bool:
        return self.match.holds in ("graph", "both")

    @cached_property
    def network(self) -> Model | None:
        """The graph that weights belong to, computed with decoded weights; None for what is neither a language model nor a module that says what it computes.

        Raises `Unsupported` where the decoded weights are too many to run."""
        from isomorph import architectures
        content = self.content
        if isinstance(content, Model):
            return None
        try:
            model = architectures.network(content, self.artifact, self.match.format, quantised=False, input_shapes=self.options.get("input_shapes"))
        except (Unsupported, Missing):
            return None
        size = sum(tensor.nbytes for tensor in content.values())
        if size > MOST_DECODED:
            raise Unsupported(f"the decoded weights take {size / 1e9:.1f} GB, too much to run them", where=self.where)
        return model

    @cached_property
    def graph(self) -> Model:
        """What is run: the file's graph, or the one that its weights belong to."""
        if isinstance(self.content, Model):
            return self.content
        assert self.network is not None
        return self.network

    @cached_property
    def traits(self) -> Traits:
        """Of the file as it is, in its own dialect."""
        return traits(self.graph)

    @cached_property
    def hub(self) -> Model:
        """The same network in ONNX. Reads the file once more, because mapping changes what was read."""
        from isomorph import dialects
        content = self.graph
        if content.dialect == "onnx":
            return content
        return dialects.to_hub(self._read())

    def ports(self) -> dict[str, Any]:
        """Inputs and outputs as the graph that we read has them, for runtimes whose files do not say."""
        graph = self.hub.graph

        def port(value: onnx_ir.Value) -> dict[str, Any]:
            shape = None if value.shape is None else [dim if isinstance(dim, int) else dim.value for dim in value.shape]
            return {"name": value.name, "dtype": value.dtype.name if value.dtype is not None else "FLOAT", "shape": shape}
        return {"inputs": [port(value) for value in graph.inputs], "outputs": [port(value) for value in graph.outputs]}

    @property
    def examples(self) -> dict[str, Any]:
        """Which inputs of a TensorFlow graph take tf.Example messages, and the features that our graph takes instead."""
        if self.format.dialect != "tf" or not isinstance(self.content, Model) or not any(PARSES.match(kind) for kind in self.traits.operators):
            return {}
        return dict(self.hub.metadata.get("tf.examples", {}))

    @property
    def beyond_its_runtime(self) -> bool:
        """Whether no published version of its runtime loads it: SavedModels in chunks."""
        return self.match.flavour == "chunked"

    @property
    def keeps_to_itself(self) -> bool:
        """Whether its own runtime keeps tensors between calls that our graph takes and gives, so that both do not take the same inputs."""
        told = self.format.name in runtime.native(self.format.name).told
        return told and any((value.name or "").endswith(NEXT) for value in self.hub.graph.outputs)

    @contextlib.contextmanager
    def session(self, *, reference: bool = False, timeout: float = 300.0, rewritten: bool = False, expose: bool = False,
                threads: int = 1) -> Iterator[tuple[Session, str]]:
        """The file in its own runtime ("native") or, where it has none or refuses it, rewritten as ONNX in ONNX Runtime ("re-read")."""
        if self.artifact.path is not None and runtime.has_native(self.format.name) and not rewritten and self.harmless \
                and not self.beyond_its_runtime and not self.keeps_to_itself:
            options: dict[str, Any] = dict(runtime.native(self.format.name).reference) if reference else {}
            options = options | {"expose": True} if expose else options
            if self.signature and runtime.native(self.format.name).name == "tensorflow":
                options = options | {"signature": self.signature}
            if examples := self.examples:
                options = options | {"examples": examples}
            if self.format.name in runtime.native(self.format.name).told:
                options = options | {"ports": self.ports()}
            native = Session(self.artifact.path, self.format.name, timeout=timeout, threads=threads, options=options)
            try:
                opened = native.__enter__()
            except Unsupported:
                if self.format.name != "onnx":
                    raise
            else:
                with contextlib.closing(opened):
                    yield opened, "native"
                return
        with tempfile.TemporaryDirectory() as folder, rewritten_session(self.hub, Path(folder), timeout, threads) as session:
            yield session, "re-read"


@contextlib.contextmanager
def rewritten_session(hub: Model, folder: Path, timeout: float, threads: int = 1) -> Iterator[Session]:
    """A hub model written as ONNX into `folder` and loaded in ONNX Runtime."""
    path = folder / "model.onnx"
    _table.get("onnx").writer(hub, path)
    with Session(path, "onnx", timeout=timeout, threads=threads) as session:
        yield session


def traits(model: Model) -> Traits:
    """The traits of a graph in any dialect."""
    operators: Counter[str] = Counter()
    weights: set[str] = set()
    values: set[str] = set()
    quantised_values = quantised_weights = False
    for graph in (model.graph, *model.graph.subgraphs()):
        for initializer in graph.initializers.values():
            if initializer.const_value is not None and initializer.const_value.size >= LARGE:
                stored = initializer.meta.get("stored", initializer.const_value.dtype.name)         # in the file, where that is fewer bits
                weights.add(stored)
                quantised_weights |= "quantization" in initializer.meta or stored in ("UINT8", "UINT16")
        for node in graph:
            operators[node.op_type] += 1
            for value in node.outputs:
                if value.dtype is not None:
                    values.add(value.dtype.name)
                quantised_values |= "quantization" in value.meta
    quantised_values |= bool(operators["QuantizeLinear"] or operators["QLinearConv"] or operators["DynamicQuantizeLinear"])
    quantised_weights |= bool(weights & {"INT8", "UINT8", "INT4", "UINT4", "INT2", "UINT2"}) and bool(operators["DequantizeLinear"])
    return Traits(operators, frozenset(weights), frozenset(values), quantised_values, quantised_weights)


def narrowest(types: frozenset[str]) -> int:
    """Bits of the narrowest float type among these, 64 where there is none."""
    return min((FLOATS[name] for name in types if name in FLOATS), default=64)


def is_bounded(output: onnx_ir.Value) -> bool:
    """Whether a graph output is made by a function whose results lie in -1..1, moved or not."""
    value: onnx_ir.Value | None = output
    while value is not None and (node := value.producer()) is not None:
        if node.op_type in BOUNDED:
            return True
        value = node.inputs[0] if node.op_type in MOVED and node.inputs else None
    return False


def quantum_of(output: onnx_ir.Value) -> float | None:
    """The scale of the DequantizeLinear that makes a graph output, where it is one number."""
    producer = output.producer()
    scale = producer.inputs[1] if producer is not None and producer.op_type == "DequantizeLinear" else None
    if scale is None or scale.const_value is None or scale.const_value.size != 1:
        return None
    return float(scale.const_value.numpy().reshape(-1)[0])

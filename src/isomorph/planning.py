"""Plans: what a conversion does, computed by doing all of it but the writing, and run afterwards without doing it again."""
from __future__ import annotations

import inspect
import json
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.artifact import Artifact
from isomorph.errors import Missing, Unsupported, Usage
from isomorph.formats import Format, Match, _table
from isomorph.model import Checkpoint, Model, by_name, operators, weights
from isomorph.progress import SILENT, Progress
from isomorph.report import Finding, Report, Severity
from isomorph.tensors import BITS, NUMBER, lazily, numpy_type, type_of

if TYPE_CHECKING:
    import numpy as np

    from isomorph.runtime.factories import Program

NODE_BYTES = 64                             # what a node takes in a file besides its weights, roughly
HASH_CHUNK = 1 << 20
ARCHITECTURE = "general.architecture"       # the key that weights under GGUF's names have
DTYPES = {"fp32": "FLOAT", "fp16": "FLOAT16", "bf16": "BFLOAT16", "fp64": "DOUBLE"}


@dataclass(frozen=True)
class Step:
    """One step of a conversion and what it did or will do."""

    name: str
    detail: str

    def to_json(self) -> dict[str, str]:
        return {"name": self.name, "detail": self.detail}


@dataclass
class Plan:
    """A conversion, tried in full except for the file: `blockers` lists every (operator, where, reason) that stops it, `findings` every loss."""

    source: Artifact
    match: Match
    target: Format
    options: dict[str, Any]
    steps: list[Step] = field(default_factory=list)
    operators: Counter[str] = field(default_factory=Counter)                # of the source, in its own dialect
    result_operators: Counter[str] = field(default_factory=Counter)
    blockers: list[tuple[str, str, str]] = field(default_factory=list)
    findings: list[Finding] = field(default_factory=list)
    bytes: int = 0                                                          # estimated size of the result
    result: Model | Checkpoint | None = None
    program: Program | None = None                                          # what the user's own code made of the weights, which proves the result

    @property
    def possible(self) -> bool:
        return not self.blockers

    def required(self) -> Plan:
        """Itself. Raises `Unsupported` with every blocker where the conversion cannot be done."""
        if self.blockers:
            kinds = Counter(subject for subject, _, _ in self.blockers)
            named = ", ".join(f"{kind} x {count}" if count > 1 else kind for kind, count in kinds.most_common(8)) + (", ..." if len(kinds) > 8 else "")
            count = "one obstacle" if len(self.blockers) == 1 else f"{len(self.blockers)} obstacles"
            raise Unsupported(f"{count} to {self.target.title}: {named}", where=self.source.where, blockers=self.blockers,
                              hint=f"see each with `isomorph plan {self.source.name} --to {self.target.name}`")
        return self

    def to_json(self) -> dict[str, Any]:
        blockers = [{"subject": subject, "where": where, "reason": reason} for subject, where, reason in self.blockers]
        return {"schema_version": 1, "source": {"path": self.source.where, "format": self.match.format, "bytes": self.source.size}, "to": self.target.name,
                "options": self.options, "possible": self.possible, "steps": [step.to_json() for step in self.steps],
                "operators": dict(self.operators.most_common()), "result_operators": dict(self.result_operators.most_common()), "blockers": blockers,
                "findings": [finding.to_json() for finding in self.findings], "estimated_bytes": self.bytes}

    def run(self, destination: str | Path, *, force: bool = False, verify: bool = True, provenance: bool = False, timeout: float = 300.0,
            progress: Progress = SILENT) -> Report:
        """Writes the result and, unless told not to, proves it: facts `source`, `destination`, `verified` ("native", "re-read" or "no"), `outputs`.

        Raises `Unsupported` where there are blockers, `Usage` where the output exists and `force` is not set, `Mismatch` where the proof fails.
        With `provenance`, a JSON file beside the output says from what and how it was made.
        """
        self.required()
        path = Path(destination)
        _never_the_source(self.source, path)
        assert self.result is not None
        start = time.perf_counter()
        progress.start(f"write {path.name}")
        written = self.target.writer(self.result, path, force=force, progress=progress, **_accepted(self.target.writer, self.options))
        progress.finish()
        path = path if path.exists() else Path(written.subject)             # the first of several parts
        report = Report(str(path), [*self.findings, *written.findings], {
            "source": {"path": self.source.where, "format": self.match.format, "bytes": self.source.size},
            "destination": {"path": str(path), "format": self.target.name, "bytes": written.facts.get("bytes") or Artifact.open(path).size},
            "seconds": round(time.perf_counter() - start, 3), "verified": "no", "outputs": []})
        if verify:
            self._prove(report, path, timeout, progress)
        if provenance:
            _write_provenance(report, self, path)
        return report

    def _prove(self, report: Report, path: Path, timeout: float, progress: Progress) -> None:
        from isomorph import verification
        from isomorph.verification import weights as weights_proof
        if "names" in self.options or self.target.name == "ggml":
            assert isinstance(self.result, Checkpoint)
            report.facts |= {"verified": "re-read", "runtime": "isomorph", "outputs": weights_proof.read_back(self.result, path)}
            verification.require(report)
            return
        try:
            first = self.program.path if self.program is not None else self.source if self.source.path is None else self.source.path
            proof = verification.verify(first, path, timeout=timeout, progress=progress,
                                        inputs=self._input_shapes(), input_shapes=self.options.get("input_shapes"),
                                        signature=self.options.get("signature") or "")
        except Unsupported as error:
            report.add("verify.impossible", Severity.MEDIUM, str(path), f"not verified: {error.what}", error.hint)
            return
        report.extend(proof.findings)
        # A source without a runtime of its own went through the same mapping as the result, so that comparing them proves the writing and not the mapping.
        how = proof.facts["second"]["proof"] if proof.facts["first"]["proof"] == "native" else "re-read"
        report.facts |= {"verified": how, "runtime": proof.facts["second"]["runtime"], "outputs": proof.facts["outputs"]}
        proof.facts |= {"conversion": report.facts}
        verification.require(proof)

    def _input_shapes(self) -> dict[str, Any]:
        from isomorph.verification import Given
        return {name: Given(shape=tuple(shape)) for name, shape in (self.options.get("input_shapes") or {}).items() if all(dim > 0 for dim in shape)}


def plan(source: Any, *, to: str, opset: int | None = None, dtype: str | None = None, names: str | None = None,
         external_data: bool | None = None, signature: str | None = None, genai: bool | None = None, integers: bool | None = None,
         input_shapes: Mapping[str, Sequence[int]] | None = None, module: str | None = None, shard_bytes: int | None = None,
         progress: Progress = SILENT) -> Plan:
    """What converting `source` (a path) to the format named `to` would do: a dry run of the conversion itself.

    `opset` is the ONNX version to write; `dtype` ("fp16", "bf16", "fp32") the type to store float weights in; `names` ("gguf", "huggingface") how the
    weights of a language model are named and laid out; `external_data` puts the weights of an ONNX file beside it, `genai` what onnxruntime-genai asks for
    beside the graph of a language model; `integers` makes quantised operators of TensorFlow Lite arithmetic of integers; `signature` chooses an
    entry point; `input_shapes` fixes the shapes of inputs, by name or by their place ("0"), -1 for a size that stays open.
    `shard_bytes` splits a file of weights into parts of at most that many bytes of weights.
    `module` ("package.module:factory") is code of the caller's own, which is imported and run in the Python that has PyTorch to make the graph that weights
    belong to; without it nobody's code is imported.
    Raises `NotRecognised`, `Damaged` or `Unsafe` for the source, `Usage` for an unknown format or an option that it does not take.
    """
    artifact = Artifact.open(source)
    match, target = _table.identify(artifact), _table.get(to)
    options = {name: value for name, value in (("opset", opset), ("dtype", dtype), ("names", names), ("external_data", external_data), ("signature", signature),
                                               ("genai", genai), ("integers", integers or None), ("module", module), ("shard_bytes", shard_bytes),
                                               ("input_shapes", dict(input_shapes) if input_shapes else None)) if value is not None}
    made = Plan(artifact, match, target, options)
    if target.write is None:
        made.blockers.append((target.title, "", "isomorph does not write this format"))
        return made
    reader = _table.get(match.format)
    if reader.read is None:
        made.blockers.append((reader.title, artifact.where, match.hint or "isomorph recognises this format but does not read it"))
        return made
    progress.start(f"read {artifact.name}")
    content = reader.read(artifact, progress=progress, **_accepted(reader.read, options))
    progress.finish()
    try:
        if isinstance(content, Checkpoint):
            _plan_weights(made, content, progress)
        else:
            _plan_graph(made, content, progress)
    except Unsupported as error:
        made.blockers += error.blockers or [(error.what, error.where, error.hint)]
    return made


def convert(source: Any, destination: str | Path, *, to: str | None = None, opset: int | None = None, verify: bool = True, force: bool = False,
            dtype: str | None = None, names: str | None = None, external_data: bool | None = None, signature: str | None = None,
            genai: bool | None = None, integers: bool | None = None, input_shapes: Mapping[str, Sequence[int]] | None = None, module: str | None = None,
            shard_bytes: int | None = None, provenance: bool = False, timeout: float = 300.0, progress: Progress = SILENT) -> Report:
    """Converts a model file: `plan(...)` and `run(destination)`. The format comes from the suffix of `destination` unless `to` names it."""
    path = Path(destination)
    if path.exists() and not force:
        raise Usage("the output exists already", where=str(path), hint="choose another name or add --force")
    _never_the_source(Artifact.open(source), path)
    made = plan(source, to=to or _format_of(path), opset=opset, dtype=dtype, names=names, external_data=external_data, signature=signature, genai=genai,
                integers=integers, input_shapes=input_shapes, module=module, shard_bytes=shard_bytes, progress=progress)
    return made.run(path, force=force, verify=verify, provenance=provenance, timeout=timeout, progress=progress)


def _format_of(path: Path) -> str:
    name = _table.by_extension(path)
    if name is None:
        raise Usage("the name of the output does not say its format", where=str(path), hint="add --to FORMAT; `isomorph formats` lists them")
    return name


def _plan_weights(made: Plan, content: Checkpoint, progress: Progress) -> None:
    made.steps.append(Step("read", f"{len(content):,} tensors of {made.match.format}"))
    if made.target.holds == "graph":
        (_plan_program if "module" in made.options else _plan_network)(made, content, progress)
        return
    if "module" in made.options:
        raise Usage(f"{made.target.title} holds weights, for which no module is needed", hint="leave --module out")
    if made.target.name == "hf" and made.match.format in ("gguf", "ggml"):
        made.options.setdefault("names", "huggingface")
    if made.target.name == "ggml":
        content = _before_gguf(made, content)
    elif "names" in made.options:
        content = _with_names(made, content, made.options["names"])
    made.findings += content.findings
    _finish_weights(made, content)


def _plan_network(made: Plan, content: Checkpoint, progress: Progress) -> None:
    """Weights whose architecture is known become the graph that they belong to."""
    from isomorph import architectures
    dtype = made.options.pop("dtype", None)
    if dtype not in (None, "fp32"):
        raise Usage(f"the weights of a network are not stored as {dtype} yet", hint="quantize them, or convert them, before they become a graph")
    try:
        model = architectures.network(content, made.source, made.match.format, quantised=dtype is None, input_shapes=made.options.get("input_shapes"))
    except (Unsupported, Missing) as error:
        reason = f"the file holds weights without a graph, and this format needs one: {error.what}" + (f"; {error.hint}" if error.hint else "")
        made.blockers += [(made.match.format, made.source.where, reason), *getattr(error, "blockers", ())]
        return
    made.steps.append(Step("build the network", str(content.metadata.get("general.architecture", model.metadata.get("class", "")))))
    _plan_graph(made, model, progress)


def _plan_program(made: Plan, content: Checkpoint, progress: Progress) -> None:
    """Weights and code of the user's own become the graph that PyTorch exports."""
    from isomorph.runtime.factories import Program
    factory = made.options.pop("module")
    progress.start(f"export {factory}")
    made.program = Program(content, factory, made.options.get("input_shapes") or {})
    progress.finish()
    made.steps.append(Step("export", f"{made.program.facts['class']} by PyTorch {made.program.version}, given {', '.join(made.program.facts['inputs'])}"))
    made.options.pop("input_shapes", None)                  # the program has them, open sizes among them
    made.findings += content.findings
    _plan_graph(made, made.program.model(), progress)


def _before_gguf(made: Plan, content: Checkpoint) -> Checkpoint:
    """The weights of a language model as programs of the time before GGUF have them, with matrices stored as `dtype` says."""
    from isomorph import architectures
    from isomorph.architectures import ggml
    if "names" in made.options:
        raise Usage(f"{made.target.title} has names of its own", hint="leave --names out")
    content = architectures.under_gguf_names(content, made.source, made.match.format)
    return ggml.of_gguf(_stored_as(content, made.options.pop("dtype"), made.findings, gguf=True) if "dtype" in made.options else content)


def _with_names(made: Plan, content: Checkpoint, names: str) -> Checkpoint:
    """The weights of a language model under the names of the other world. What a Hugging Face folder says of itself stands in its config.json."""
    from isomorph import architectures
    if names == "huggingface":
        return architectures.to_hugging_face(architectures.under_gguf_names(content, made.source, "ggml") if made.match.format == "ggml" else content)
    if names != "gguf":
        raise Usage(f"there are no names {names!r}", hint="gguf or huggingface")
    if made.match.format == "gguf":
        raise Usage("the weights have GGUF's names already", where=made.source.where)
    return architectures.under_gguf_names(content, made.source, made.match.format)


def _finish_weights(made: Plan, content: Checkpoint) -> None:
    if "shard_bytes" in made.options and "shard_bytes" not in inspect.signature(made.target.writer).parameters:
        raise Usage(f"{made.target.title} is not split into parts", hint="leave --shard-bytes out")
    gguf = made.target.name == "gguf" and ARCHITECTURE in content.metadata
    made.result = _stored_as(content, made.options["dtype"], made.findings, gguf=gguf) if "dtype" in made.options else content
    made.bytes = sum(tensor.stored_bytes if made.target.can.quantised and hasattr(tensor, "stored_bytes") else tensor.nbytes for tensor in made.result.values())
    made.steps.append(Step("write", f"{made.target.title}, about {made.bytes:,} bytes"))


def _plan_graph(made: Plan, content: Model, progress: Progress) -> None:
    from isomorph import dialects
    if "module" in made.options:
        raise Usage("the file holds a graph, for which no module is needed", where=made.source.where, hint="leave --module out")
    made.operators = operators(content)
    made.steps.append(Step("read", f"{sum(made.operators.values()):,} operators of {len(made.operators)} kinds from {made.match.format}"))
    if made.target.holds == "weights":
        made.findings.append(Finding("graph.dropped", Severity.MEDIUM, made.source.where, f"{made.target.title} holds weights only: the graph is not written"))
        _finish_weights(made, weights(content))
        return
    progress.start("to onnx")
    known = dialects.options_to_hub(content.dialect)
    hub = dialects.to_hub(content, **{name: value for name, value in made.options.items() if name in known})
    progress.finish()
    if content.dialect != "onnx" or made.target.dialect != "onnx":
        made.steps.append(Step("to onnx", f"{sum(operators(hub).values()):,} ONNX operators"))
    if "input_shapes" in made.options:
        made.options["input_shapes"] = by_name(made.options["input_shapes"], [str(value.name) for value in hub.graph.inputs])
        _fix_shapes(hub, made.options["input_shapes"])
    progress.start(f"to {made.target.dialect}")
    model = dialects.from_hub(hub, made.target.dialect, **_accepted_by_dialect(dialects.options_of(made.target.dialect), made, known))
    progress.finish()
    made.result, made.findings = model, [*made.findings, *_unique([*content.findings, *hub.findings, *model.findings])]
    made.result_operators = operators(model)
    made.bytes = sum(tensor.nbytes for tensor in weights(model, used=True).values()) + NODE_BYTES * sum(made.result_operators.values())
    if made.target.dialect != "onnx":
        made.steps.append(Step(f"to {made.target.dialect}", f"{sum(made.result_operators.values()):,} operators of {len(made.result_operators)} kinds"))
    made.steps.append(Step("write", f"{made.target.title}, about {made.bytes:,} bytes"))


def _unique(findings: Sequence[Finding]) -> list[Finding]:
    return list(dict.fromkeys(findings))


def _stored_as(content: Checkpoint, dtype: str, findings: list[Finding], *, gguf: bool) -> Checkpoint:
    """The same tensors with their floats stored as `dtype`, converted when they are written. In a language model for programs that read `gguf`, those that
    they take as float32 only stay as they are."""
    from isomorph.architectures import float32_only
    if dtype not in DTYPES:
        raise Usage(f"there is no type {dtype!r} to store weights in", hint="one of " + ", ".join(DTYPES))
    number, floats = NUMBER[DTYPES[dtype]], {NUMBER[name] for name in DTYPES.values()}
    tensors, narrowed = {}, []
    for name, tensor in content.items():
        if type_of(tensor) not in floats or type_of(tensor) == number or (gguf and float32_only(name, tensor)):
            tensors[name] = tensor.decoded() if hasattr(tensor, "decoded") else tensor
            continue
        narrowed += [name] if BITS[number] < BITS[type_of(tensor)] else []
        tensors[name] = lazily(_cast_to(numpy_type(number)), tensor, element_type=number, name=name)
    if narrowed:
        findings.append(Finding("weights.narrowed", Severity.LOW, narrowed[0], f"{len(narrowed)} tensors are stored as {dtype}"))
    return Checkpoint(tensors, content.metadata, content.findings)


def _cast_to(dtype: np.dtype) -> Any:
    return lambda array: array.astype(dtype)


def _fix_shapes(hub: Model, shapes: Mapping[str, Sequence[int]]) -> None:
    """Sets input shapes, where -1 leaves a size as it is; a symbol that gets a size gets it everywhere."""
    import onnx_ir
    inputs = {value.name: value for value in hub.graph.inputs}
    sizes: dict[str, int] = {}
    for name, shape in shapes.items():
        value = inputs.get(name)
        if value is None:
            raise Usage(f"no input is named {name!r}", hint="the inputs are " + ", ".join(str(known) for known in inputs))
        old = list(value.shape) if value.shape is not None else [None] * len(shape)
        wanted: list[Any] = [dim if size < 0 else size for dim, size in zip(old, shape, strict=True)] if len(old) == len(shape) else list(shape)
        if len(old) != len(wanted) or any(isinstance(dim, int) and dim != size for dim, size in zip(old, wanted, strict=True)):
            raise Usage(f"the input {name!r} cannot have the shape {list(shape)}", hint=f"the model says {value.shape}")
        sizes |= {dim.value: size for dim, size in zip(old, wanted, strict=True)
                  if isinstance(dim, onnx_ir.SymbolicDim) and dim.value and isinstance(size, int)}
        value.shape = onnx_ir.Shape(wanted)
    for value in (*hub.graph.inputs, *hub.graph.outputs, *(output for node in hub.graph.all_nodes() for output in node.outputs)):
        if value.shape is not None:
            value.shape = onnx_ir.Shape([sizes.get(dim.value or "", dim) if isinstance(dim, onnx_ir.SymbolicDim) else dim for dim in value.shape])


def _accepted(function: Any, options: Mapping[str, Any]) -> dict[str, Any]:
    """Those of the options that a writer takes."""
    known = inspect.signature(function).parameters
    return {name: value for name, value in options.items() if name in known}


def _accepted_by_dialect(known: frozenset[str], made: Plan, used: frozenset[str]) -> dict[str, Any]:
    """The options that the mapping takes. Raises `Usage` for one that neither it nor reader and writer take, nor was `used` on the way to ONNX."""
    writers = inspect.signature(made.target.writer).parameters
    reader = _table.get(made.match.format).read
    readers = inspect.signature(reader).parameters if reader is not None else {}
    if strange := [name for name in made.options if name not in {*known, *used, *writers, *readers, "input_shapes"}]:
        raise Usage(f"{made.target.title} takes no --{strange[0].replace('_', '-')}")
    return {name: value for name, value in made.options.items() if name in known}


def _never_the_source(source: Artifact, destination: Path) -> None:
    if source.path is not None and destination.exists() and destination.samefile(source.path):
        raise Usage("the output is the source itself, which is never written to", where=str(destination), hint="choose another name")


def _write_provenance(report: Report, made: Plan, path: Path) -> None:
    """`OUT.provenance.json`: hashes, versions, options, and the error of every output."""
    from isomorph import __version__
    from isomorph.wire import files
    content = {"schema_version": 1, "isomorph": __version__, "source": report.facts["source"] | {"sha256": sha256(made.source.path)},
               "destination": report.facts["destination"] | {"sha256": sha256(path)}, "options": made.options,
               "findings": [finding.to_json() for finding in report.findings], "verified": report.facts["verified"], "outputs": report.facts["outputs"]}
    with files.replacing(path.with_name(path.name + ".provenance.json"), force=True) as file:
        file.write((json.dumps(content, indent=2) + "\n").encode())


def sha256(path: Path | None) -> str:
    """Of a file, in hexadecimal; of nothing for what is no single file."""
    if path is None or not path.is_file():
        return ""
    import hashlib
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(HASH_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()

"""Weights in fewer bits: a checkpoint written as GGUF, each tensor in the type that the scheme gives it."""
from __future__ import annotations

import os
import time
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.artifact import Artifact
from isomorph.errors import Missing, NotRecognised, Unsupported, Usage
from isomorph.formats import _table
from isomorph.model import Checkpoint
from isomorph.progress import SILENT, Progress
from isomorph.quant import mixes
from isomorph.quant.blocks import BLOCKS, PLAIN
from isomorph.report import Finding, Report, Severity
from isomorph.tensors import NAME, NUMBER, dims_of, type_of

if TYPE_CHECKING:
    from isomorph.quant.importance import Importance

FLOATS = {NUMBER[name] for name in ("FLOAT", "FLOAT16", "BFLOAT16", "DOUBLE")}
VERSION = 2                                  # general.quantization_version: how ggml lays out its blocks today
SPLIT = "split."


def quantize(source: Any, destination: str | Path, *, scheme: str, pure: bool = False, importance: str | Path | None = None, threads: int | None = None,
             force: bool = False, verify: bool = True, shard_bytes: int | None = None, progress: Progress = SILENT) -> Report:
    """Writes the weights of `source` (a path) as GGUF in a named scheme, such as "q4_k_m" or "q8_0"; with `pure`, every tensor in the scheme's own type.

    `importance` is a file with an importance matrix (see `quant.importance`); `threads` are as many as there are processors if not given.

    Facts: `source`, `destination`, `scheme`, `types` (how many tensors of each), `bits_per_weight`, `tensors` (name, type, and with `verify` the
    signal-to-noise ratio in dB of what was written). Raises `Usage` for an unknown scheme, `Unsupported` where a type cannot be encoded
    or weights are not finite.
    """
    artifact, path = Artifact.open(source), Path(destination)
    matrix = _importance(importance)
    content, chosen = _chosen(artifact, scheme, pure, matrix is not None, progress)
    name, count = _scheme(scheme).name, threads or os.cpu_count() or 1
    result = Checkpoint({tensor: _as(content[tensor], chosen.get(tensor), matrix, count) for tensor in _order(content)}, _metadata(content, name))
    if matrix is not None:
        _told(result.metadata, matrix, importance)
    findings = [*content.findings, *_again(content, result), *_unweighed(name, chosen, matrix)]
    start = time.perf_counter()
    written = _table.get("gguf").writer(result, path, force=force, progress=progress, shard_bytes=shard_bytes)
    seconds = time.perf_counter() - start
    kinds = {name: kind_of(tensor) for name, tensor in result.items()}
    rows: list[dict[str, Any]] = [{"name": name, "type": kind, "shape": list(dims_of(result[name]))} for name, kind in kinds.items()]
    if verify:
        _measure(rows, content, written.subject, progress)
    size, elements = written.facts["bytes"], sum(tensor.size for tensor in result.values())
    return Report(str(path), findings, {
        "source": {"path": artifact.where, "bytes": artifact.size}, "destination": {"path": written.subject, "bytes": size, "files": written.facts["files"]},
        "scheme": name, "types": dict(Counter(kinds.values()).most_common()), "bits_per_weight": round(8 * size / elements, 3) if elements else None,
        "seconds": round(seconds, 3), "tensors": rows})


def _scheme(text: str) -> mixes.Scheme:
    name = text.upper().replace("-", "_")
    if name not in mixes.SCHEMES:
        raise Usage(f"there is no scheme {text!r}", hint="one of " + ", ".join(known.lower() for known in mixes.SCHEMES))
    return mixes.SCHEMES[name]


def _importance(path: str | Path | None) -> Importance | None:
    if path is None:
        return None
    from isomorph.quant import importance
    return importance.read(path)


def _told(keys: Any, matrix: Importance, path: Any) -> None:
    """The keys by which llama-quantize says what it weighed with."""
    told = {"file": str(path), "dataset": matrix.texts[0] if matrix.texts else None, "entries_count": len(matrix.weights),
            "chunks_count": matrix.chunks or None}
    for name, value in told.items():
        if value is not None:
            keys[f"quantize.imatrix.{name}"] = value
            keys.kinds[f"quantize.imatrix.{name}"] = "string" if isinstance(value, str) else "u32"


def _unweighed(scheme: str, chosen: dict[str, str], matrix: Importance | None) -> list[Finding]:
    """Weights in so few bits that they need an importance matrix and have none."""
    from isomorph.quant.encode import WEIGHTED
    wanting = [name for name, kind in chosen.items() if kind in WEIGHTED and (matrix is None or name not in matrix.weights)]
    if matrix is not None and wanting:
        sentence = f"the importance matrix says nothing of {len(wanting)} tensors, whose errors all count the same"
        return [Finding("quantize.unweighed", Severity.LOW, wanting[0], sentence)]
    if scheme == "Q2_K_S" and matrix is None:
        return [Finding("quantize.unweighed", Severity.HIGH, wanting[0] if wanting else "", "two bits a weight without an importance matrix lose much",
                        "measure one with `isomorph imatrix`")]
    return []


def _chosen(artifact: Artifact, scheme: str, pure: bool, weighed: bool, progress: Progress) -> tuple[Checkpoint, dict[str, str]]:
    """The weights, and the type that each quantised one gets. Raises `Unsupported` with every tensor whose type cannot be encoded."""
    from isomorph.quant.encode import ENCODERS
    match, wanted = _table.identify(artifact), _scheme(scheme)
    reader = _table.get(match.format).read
    if reader is None:
        raise NotRecognised(f"{match.format} is not read", where=artifact.where, hint=match.hint)
    content = reader(artifact, progress=progress)
    if not isinstance(content, Checkpoint):
        raise Unsupported(f"{match.format} holds a graph, and only files of weights are quantised so", where=artifact.where)
    content = _under_gguf_names(content, artifact, match.format)
    shapes = {name: dims_of(tensor) for name, tensor in content.items() if type_of(tensor) in FLOATS}
    if pure:
        chosen = {name: mixes.fitting(wanted.base, dims[-1]) for name, dims in shapes.items() if mixes.allowed(name, dims)}
    else:
        chosen = mixes.types(wanted.name, shapes, replace(mixes.Model.of(content.metadata), weighed=weighed))
    blockers = [(kind, name, "no encoder") for name, kind in chosen.items() if not BLOCKS[kind].element_type and kind not in ENCODERS]
    if blockers:
        kinds = ", ".join(sorted({kind for kind, _, _ in blockers}))
        raise Unsupported(f"{len(blockers)} tensors would be stored as {kinds}, which isomorph decodes but does not encode", where=artifact.where,
                          blockers=blockers, hint="choose a scheme of four or more bits")
    return content, chosen


def _under_gguf_names(content: Checkpoint, artifact: Artifact, format_name: str) -> Checkpoint:
    """The weights of a language model as programs that read GGUF name them, where the file or a config.json beside it says which they are."""
    from isomorph import architectures
    try:
        return architectures.under_gguf_names(content, artifact, format_name)
    except Missing:
        return content
    except Unsupported as error:
        told = Finding("names.kept", Severity.LOW, artifact.where, f"the tensors keep their names: {error.what}", error.hint)
        return Checkpoint(content.tensors, content.metadata, [*content.findings, told])


def kind_of(tensor: Any) -> str:
    """The ggml name of how a tensor is stored."""
    kind = getattr(tensor, "kind", None) or PLAIN.get(NAME[type_of(tensor)])
    return kind.name if kind else NAME[type_of(tensor)]


def _order(content: Checkpoint) -> list[str]:
    return mixes.in_order(list(content))


def _as(tensor: Any, kind: str | None, matrix: Importance | None, threads: int) -> Any:
    from isomorph.quant.tensor import CastTensor, EncodedTensor
    if kind is None or kind == kind_of(tensor):
        return tensor
    wanted = BLOCKS[kind]
    return CastTensor(NUMBER[wanted.element_type], tensor) if wanted.element_type else EncodedTensor(
        wanted, tensor, matrix.of(tensor.name, tensor) if matrix else None, threads)


def _metadata(content: Checkpoint, scheme: str) -> Any:
    """The keys of the source with the two that say how it is quantised moved to the end, as llama-quantize leaves them."""
    from isomorph.formats.gguf import keys_of
    keys = keys_of(content.metadata)
    result = type(keys)({name: value for name, value in keys.items() if not name.startswith(SPLIT)}, keys.kinds)
    for name, value in (("general.quantization_version", VERSION), ("general.file_type", mixes.SCHEMES[scheme].number)):
        result.pop(name, None)
        result[name], result.kinds[name] = value, "u32"
    return result


def _again(content: Checkpoint, result: Checkpoint) -> list[Finding]:
    twice = [name for name, tensor in content.items() if hasattr(tensor, "kind") and result[name] is not tensor]
    return [Finding("quantize.twice", Severity.MEDIUM, twice[0], f"{len(twice)} tensors were quantised already, so their errors add up",
                    "start from float weights where you have them")] if twice else []


def _measure(rows: list[dict[str, Any]], content: Checkpoint, written: str, progress: Progress) -> None:
    """Adds `snr_db` to each row: what was written, read back, against the source. None where they are equal or no floats."""
    again = _table.get("gguf").reader(Artifact.open(written))
    progress.start("measure", len(rows), "tensors")
    for row in rows:
        row["snr_db"] = _snr(content[row["name"]], again[row["name"]])
        progress.advance(1)
    progress.finish()


def _snr(source: Any, result: Any) -> float | None:
    import math

    import numpy as np

    from isomorph.quant.tensor import SLAB, float_slabs
    if type_of(source) not in FLOATS:
        return None
    power = lost = 0.0
    for one, other in zip(float_slabs(source, SLAB), float_slabs(result, SLAB), strict=True):
        wide = one.astype(np.float64)
        power += float(wide @ wide)
        wide -= other
        lost += float(wide @ wide)
    return round(10 * math.log10(power / lost), 2) if lost and power else None

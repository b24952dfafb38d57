"""What the two formats of TensorFlow.js share: model.json and the weight shards that its manifest lists."""
from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Unsafe, Unsupported, Usage
from isomorph.formats import Match
from isomorph.report import Finding, Severity
from isomorph.tensors import CHUNK, NAME, NUMBER, SliceTensor, Tensor, array_tensor, dims_of, lazily, numpy_type, packed, type_of, unpacked
from isomorph.wire import json_head

if TYPE_CHECKING:
    from isomorph.artifact import Artifact
    from isomorph.wire.tfjs_weights import Stored, Weight

# The types that TensorFlow.js computes in, and what others are written as
STORED_AS = {"FLOAT": "float32", "DOUBLE": "float32", "BFLOAT16": "float32", "FLOAT16": "float32", "INT64": "int32", "UINT64": "int32", "UINT32": "int32",
             "INT32": "int32", "INT16": "int32", "UINT16": "int32", "INT8": "int32", "UINT8": "int32", "INT4": "int32", "UINT4": "int32", "BOOL": "bool",
             "COMPLEX64": "complex64", "COMPLEX128": "complex64", "STRING": "string"}
ELEMENTS = {"float32": "FLOAT", "int32": "INT32", "bool": "BOOL", "complex64": "COMPLEX64", "uint8": "UINT8", "uint16": "UINT16", "float16": "FLOAT16",
            "int8": "INT8", "int16": "INT16", "float64": "DOUBLE", "int64": "INT64"}
NARROWED = {"fp16": "float16", "uint8": "uint8", "uint16": "uint16"}
LEAST_NARROWED = 1 << 10                   # bytes; smaller weights are not worth what they lose
LARGEST_HALF = 65504.0


def identify(artifact: Artifact, name: str, kind: str) -> Match | None:
    """The match of a model.json of one kind, "layers-model" or "graph-model", or of the folder it stands in."""
    if artifact.is_folder:
        return _identify_folder(artifact, name, kind)
    if not json_head.begins_json(artifact.head):
        return None
    document = json_head.read(artifact.view).value
    topology = document.get("modelTopology") if isinstance(document, dict) else None
    if not isinstance(topology, dict) or _kind(document, topology) != kind:
        return None
    manifest = document.get("weightsManifest")
    groups = [group for group in manifest if isinstance(group, dict)] if isinstance(manifest, list) else []
    shards = [path for group in groups for path in group.get("paths", []) if isinstance(path, str)]
    weights = [weight for group in groups for weight in group.get("weights", []) if isinstance(weight, dict)]
    quantised = sorted({str(weight["quantization"].get("dtype")) for weight in weights if isinstance(weight.get("quantization"), dict)})
    detail: dict[str, Any] = {"generated_by": document.get("generatedBy"), "converted_by": document.get("convertedBy"), "shards": len(shards)}
    detail |= {"companions": shards, "quantization": quantised} if shards else {}
    return Match(name, "", ", ".join(quantised), "graph", detail)


def _kind(document: dict[str, Any], topology: dict[str, Any]) -> str:
    """What the file says it is; the oldest converters did not say, but only a graph has nodes."""
    stated = document.get("format")
    if stated in ("layers-model", "graph-model"):
        return stated
    if "node" in topology:
        return "graph-model"
    return "layers-model" if {"model_config", "class_name"} & topology.keys() else ""


def _identify_folder(artifact: Artifact, name: str, kind: str) -> Match | None:
    """A folder whose model.json finds all its shards in it."""
    file = artifact.child("model.json") if "model.json" in artifact.names else None
    match = identify(file, name, kind) if file and not file.is_folder else None
    inside = match and all("/" in shard or shard in artifact.names for shard in match.detail.get("companions", []))
    return match if inside else None


def document(file: Artifact) -> dict[str, Any]:
    """The whole of a model.json. Raises `Unsafe` where it is too long or too deep, `Damaged` where it is no JSON object."""
    if file.size > file.limits.json_bytes:
        raise Unsafe(f"{file.size} bytes of JSON", where=file.where, hint="raise Limits.json_bytes if the file is trusted")
    try:
        found = json.loads(bytes(file.view))
    except (ValueError, RecursionError) as error:
        raise Damaged(f"it is no JSON: {str(error)[:120]}", where=file.where) from None
    if not isinstance(found, dict):
        raise Damaged("it is no JSON object", where=file.where)
    return found


class _Parts(Tensor):
    """A weight that crosses shards: put together whenever it is asked for, and never kept."""

    def __init__(self, weight: Weight, element: int):
        super().__init__(weight.name, element, weight.shape)
        self.weight = weight

    def numpy(self) -> Any:
        return unpacked(self.weight.data(), self.element_type, self.dims)

    def chunks(self) -> Any:
        return iter(self.weight.parts)


def tensor(weight: Weight, element: int | None = None) -> Any:
    """A weight as a lazy tensor, dequantised as TensorFlow.js does, in the element type that is asked for or in its own."""
    if weight.dtype == "string":
        import numpy as np
        texts = np.empty(math.prod(weight.shape), object)
        texts[:] = weight.strings()
        return array_tensor(texts.reshape(weight.shape), weight.name)
    stored, own = NUMBER[ELEMENTS[weight.stored]], NUMBER[ELEMENTS[weight.dtype]]
    wanted = own if element is None or element == NUMBER["STRING"] else element
    plain = _Parts(weight, stored) if len(weight.parts) > 1 else SliceTensor(weight.name, stored, weight.shape, weight.data())
    if stored == wanted and weight.stored == weight.dtype:
        return plain
    return lazily(lambda array: _widened(array, weight, own).astype(numpy_type(wanted)), plain, element_type=wanted, name=weight.name)


def _widened(array: Any, weight: Weight, own: int) -> Any:
    """stored * scale + min in double precision; whole numbers are rounded."""
    import numpy as np
    if weight.stored == weight.dtype or weight.stored == "float16":
        return array.astype(numpy_type(own))
    values = array.astype(np.float64) * weight.scale + weight.minimum
    return (np.floor(values + 0.5) if weight.dtype == "int32" else values).astype(numpy_type(own))


def stored(constants: Iterable[tuple[str, Any]], dtype: str | None = None) -> tuple[list[Stored], list[Finding]]:
    """Tensors (or lists of texts) as weights that are to be written. With `dtype` fp16, uint8 or uint16, large float weights are stored in fewer bits.

    Raises `Usage` for another `dtype`, `Unsupported` for a type that TensorFlow.js does not have.
    """
    if dtype not in (None, "fp32", *NARROWED):
        raise Usage(f"TensorFlow.js stores no weights as {dtype}", hint="--dtype " + ", ".join(NARROWED))
    found, narrowed = [], 0
    kinds: set[str] = set()
    for name, item in constants:
        kind = NAME[type_of(item)]
        if kind not in STORED_AS:
            raise Unsupported(f"TensorFlow.js has no type for the {kind} of {name}", where=name)
        short = NARROWED.get(dtype or "", "") if STORED_AS[kind] == "float32" and item.nbytes >= LEAST_NARROWED else ""
        made = _texts(name, item) if kind == "STRING" else _quantised(name, item, short) if short else _plain(name, item, STORED_AS[kind])
        narrowed += "quantization" in made.row
        if kind in ("INT64", "UINT64", "UINT32", "DOUBLE", "COMPLEX128"):
            kinds.add(f"{kind} as {STORED_AS[kind].upper()}")
        found.append(made)
    findings = [Finding("values.narrowed", Severity.LOW, "weights", f"constants are written in the types that TensorFlow.js has: {', '.join(sorted(kinds))}")]
    report = findings if kinds else []
    if narrowed and dtype:
        report.append(Finding("weights.narrowed", Severity.LOW, "weights", f"{narrowed} weights are stored as {dtype}"))
    return found, report


def _texts(name: str, item: Any) -> Stored:
    from isomorph.wire.tfjs_weights import Stored
    texts = list(item.numpy().reshape(-1))
    data = b"".join(len(text).to_bytes(4, "little") + bytes(text) for text in texts)
    return Stored({"name": name, "shape": list(dims_of(item)), "dtype": "string"}, len(data), lambda: [data])


def _plain(name: str, item: Any, dtype: str) -> Stored:
    """As it is, or cast while it is written. Whole numbers that 32 bits cannot hold become the nearest one that they can."""
    import numpy as np

    from isomorph.wire.tfjs_weights import ELEMENT_BYTES, Stored
    target = np.dtype(dtype)

    def chunks() -> Sequence[Any]:
        array = item.numpy()
        if target.kind == "i" and array.dtype.itemsize >= 4 and array.dtype != target:
            array = np.clip(array, np.iinfo(np.int32).min, np.iinfo(np.int32).max)
        return [packed(array.astype(target))]
    same = NAME[type_of(item)] == ELEMENTS[dtype] and hasattr(item, "chunks")
    dims = list(dims_of(item))
    return Stored({"name": name, "shape": dims, "dtype": dtype}, math.prod(dims) * ELEMENT_BYTES[dtype], item.chunks if same else chunks)


def _quantised(name: str, item: Any, short: str) -> Stored:
    """float16, or stored * scale + min over the range of the weight, moved so that zero stays zero (tfjs-converter, quantization.py)."""
    import numpy as np

    from isomorph.wire.tfjs_weights import Stored
    array = item.numpy().astype(np.float32)
    low, high = (float(array.min()), float(array.max())) if array.size else (0.0, 0.0)
    if not (math.isfinite(low) and math.isfinite(high)) or (short == "float16" and max(-low, high) > LARGEST_HALF):
        return _plain(name, item, "float32")
    row = {"name": name, "shape": list(dims_of(item)), "dtype": "float32"}
    if short == "float16":
        return Stored(row | {"quantization": {"dtype": short, "original_dtype": "float32"}}, 2 * array.size, lambda: [packed(item.numpy().astype(np.float16))])
    most = np.iinfo(short).max
    scale = (high - low) / most or 1.0
    if low <= 0 <= high:
        low = -round(-low / scale) * scale

    def chunks() -> Iterable[Any]:
        values = item.numpy().astype(np.float32).reshape(-1)
        for start in range(0, values.size, CHUNK):
            yield packed(np.clip(np.round((values[start:start + CHUNK] - low) / scale), 0, most).astype(short))
    about = {"dtype": short, "min": low, "scale": scale, "original_dtype": "float32"}
    return Stored(row | {"quantization": about}, array.size * np.dtype(short).itemsize, chunks)

"""The GGML family before GGUF: lmgg (no version), fmgg, tjgg v1 to v3. The architecture is not stored and is told from the shape of the header."""
from __future__ import annotations

import math
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Unsafe, Unsupported
from isomorph.formats import Capabilities, Format, Match
from isomorph.formats.gguf import FILE_TYPES
from isomorph.progress import SILENT, Progress
from isomorph.quant.blocks import BLOCKS
from isomorph.quant.tensor import QuantizedTensor
from isomorph.tensors import NUMBER, SliceTensor

if TYPE_CHECKING:
    import os

    from isomorph.artifact import Artifact
    from isomorph.model import Checkpoint
    from isomorph.report import Report

MAGICS = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt", b"algg": "ggla"}           # as they stand in the file, little-endian
RWKV_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 4: "Q4_1_O", 5: "Q4_2", 6: "Q4_3", 7: "Q5_0", 8: "Q5_1", 9: "Q8_0"}
# ggml.h, enum ggml_ftype, which the examples of ggml and whisper.cpp use: llama.cpp counts mixes beside the types
EXAMPLE_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 4: "Q4_1 and F16", 5: "Q4_2", 6: "Q4_3", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K", 11: "Q3_K",
                 12: "Q4_K", 13: "Q5_K", 14: "Q6_K"}
QUANTIZATION_STEP = 1000                   # the examples store the quantization version as ftype / 1000
WHISPER_VOCABULARIES = (51864, 51865, 51866)

LLAMA = ("vocabulary", "embedding", "multiple", "heads", "layers", "rotary", "file_type")
WHISPER = ("vocabulary", "audio_context", "audio_state", "audio_heads", "audio_layers", "text_context", "text_state", "text_heads", "text_layers", "mels",
           "file_type")
RWKV = ("vocabulary", "embedding", "layers", "file_type")
SILERO = b"silero"                         # how the text begins that such files of whisper.cpp have in the place of numbers


def identify(artifact: Artifact) -> Match | None:
    """Recognises the magic number; the kind (llama, whisper, rwkv, gpt) follows from the hyperparameters behind it."""
    container = MAGICS.get(artifact.head[:4])
    if container is None:
        return None
    words = [int.from_bytes(artifact.head[at:at + 4], "little") for at in range(4, min(len(artifact.head) - 3, 68), 4)]
    if container == "ggla":
        return Match("ggml", str(words[0]) if words else "", "lora adapter", "weights", {"container": container, "rank": words[1] if len(words) > 1 else None})
    version = 0 if container == "ggml" else words[0] if words else 0
    if container == "ggml" and artifact.head[8:8 + len(SILERO)] == SILERO:
        return Match("ggml", "", "silero", "weights", {"container": container})
    kind, parameters = _kind(words if container == "ggml" else words[1:], version)
    detail: dict[str, Any] = {"container": container, "hyperparameters": parameters}
    if "file_type" in parameters:
        types = {"rwkv": RWKV_TYPES, "llama": FILE_TYPES}.get(kind, EXAMPLE_TYPES)
        detail["file_type"] = types.get(parameters["file_type"] % QUANTIZATION_STEP, str(parameters["file_type"]))
    if not parameters:
        detail["truncated"] = True
    return Match("ggml", str(version) if version else "", kind, "weights", detail)


def _kind(words: list[int], version: int) -> tuple[str, dict[str, int]]:
    if version in (100, 101):              # rwkv.cpp counts its versions from 100
        return "rwkv", _named(RWKV, words)
    if words and words[0] in WHISPER_VOCABULARIES and len(words) >= len(WHISPER) and words[9] in (80, 128):
        return "whisper", _named(WHISPER, words)
    if version == 0:
        for length, kind in ((6, "gpt-2 or gpt-j"), (7, "gpt-j or gpt-neox"), (8, "starcoder or replit")):
            if len(words) > length and words[length] == words[0]:          # these repeat the size of the vocabulary before its words
                return kind, {"vocabulary": words[0], "file_type": words[length - 1]}
    if len(words) >= len(LLAMA) and 0 < words[3] <= 1024 and 0 < words[4] <= 1024 and words[1] % words[3] == 0:
        return "llama", _named(LLAMA, words)
    return "unknown kind", {}


def _named(names: tuple[str, ...], words: list[int]) -> dict[str, int]:
    return dict(zip(names, words, strict=False)) if len(words) >= len(names) else {}


# Reading

class _Cursor:
    """A place in the bytes. No length stands in front of anything, so every count is compared with what is left."""

    def __init__(self, view: memoryview, at: int):
        self.view, self.at = view, at

    @property
    def rest(self) -> int:
        return len(self.view) - self.at

    def words(self, count: int) -> tuple[int, ...]:
        if count * 4 > self.rest:
            raise Damaged(f"the file ends where {count} numbers should stand", offset=self.at)
        values = struct.unpack_from(f"<{count}I", self.view, self.at)
        self.at += 4 * count
        return values

    def take(self, size: int) -> memoryview:
        if size > self.rest:
            raise Damaged(f"{size} bytes where {self.rest} are left", offset=self.at)
        piece = self.view[self.at:self.at + size]
        self.at += size
        return piece


@dataclass(frozen=True)
class Layout:
    """What stands between the magic number and the tensors: hyperparameters, filters of a spectrogram, words."""

    kind: str
    names: tuple[str, ...]
    containers: tuple[str, ...]
    words: str = "plain"             # "plain", "counted" (their number stands once more before them), "scored" (each with a float), "" for none
    filters: bool = False
    head: Callable[[_Cursor], dict[str, Any]] | None = None         # reads what stands there where it is more than numbers with names
    names_begin: str = ""            # how the names of its tensors begin, where the numbers alone do not tell it from another


def _silero(cursor: _Cursor) -> dict[str, Any]:
    """whisper.cpp's models/convert-silero-vad-to-ggml.py: what it is, its version, and for each convolution channels in, out and width."""
    length = cursor.words(1)[0]
    if length > LONGEST_NAME or not bytes(name := cursor.take(length)).startswith(SILERO):
        raise Damaged("it is no voice detector of whisper.cpp", offset=4)
    *version, window, context, layers = cursor.words(6)
    if layers * 12 > cursor.rest:
        raise Damaged(f"{layers} layers in {cursor.rest} bytes", offset=cursor.at)
    return {"model": str(name, "utf-8", "surrogateescape"), "model_version": ".".join(map(str, version)), "window": window, "context": context,
            "encoder": list(cursor.words(3 * layers)), "lstm": list(cursor.words(2)), "last": list(cursor.words(2))}


LATEST = 3                                 # the generation of the blocks of today, see quant.legacy
LONGEST_WORD, LONGEST_NAME, MOST_DIMENSIONS, ALIGNMENT = 4096, 4096, 4, 32
GPT = ("vocabulary", "context", "embedding", "heads", "layers")
LAYOUTS = (
    Layout("silero", (), ("ggml",), "", head=_silero),
    Layout("whisper", WHISPER, ("ggml",), "counted", True),
    Layout("gpt-2", (*GPT, "file_type"), ("ggml",), "counted"),
    Layout("gpt-j", (*GPT, "rotary", "file_type"), ("ggml",), "counted"),
    Layout("gpt-neox", (*GPT, "rotary", "parallel_residual", "file_type"), ("ggml",)),
    Layout("gpt-neox", (*GPT, "rotary", "file_type"), ("ggml",), names_begin="gpt_neox."),
    Layout("llama", LLAMA, ("ggml",)),
    Layout("llama", LLAMA, ("ggmf", "ggjt"), "scored"),
)
RWKV_LAYOUT = Layout("rwkv", RWKV, ("ggmf",), "")
RWKV_VERSIONS = {100: 1, 101: 3}           # rwkv.cpp's version -> generation of the blocks


def read(artifact: Artifact, *, progress: Progress = SILENT) -> Checkpoint:
    """The tensors under the names of the file, its hyperparameters, words and scores as metadata. Blocks of every generation are understood.

    Nothing says which architecture a file holds: the layout counts that leads exactly to the end of the file. Raises `Damaged` where none does, `Unsupported`
    for an adapter.
    """
    container = MAGICS.get(artifact.head[:4])
    if container == "ggla":
        raise Unsupported("a LoRA adapter of GGML is recognised, but not read", where=artifact.where)
    version = int.from_bytes(artifact.head[4:8], "little") if container != "ggml" else 0
    if container is None or (container == "ggmf" and version not in (1, *RWKV_VERSIONS)) or (container == "ggjt" and version not in (1, 2, 3)):
        raise Damaged(f"no GGML file of a known version ({container} {version})", where=artifact.where, offset=0)
    layouts = [RWKV_LAYOUT] if version in RWKV_VERSIONS else [layout for layout in LAYOUTS if container in layout.containers]
    failures: list[Damaged] = []
    for layout in layouts:
        try:
            return _read(artifact, container, version, layout)
        except Damaged as error:
            failures.append(error)
    furthest = max(failures, key=lambda error: error.offset or 0)
    raise Damaged(furthest.what, where=artifact.where, offset=furthest.offset)


def _read(artifact: Artifact, container: str, version: int, layout: Layout) -> Checkpoint:
    from isomorph.model import Checkpoint
    cursor = _Cursor(artifact.view, 4 if container == "ggml" else 8)
    parameters = layout.head(cursor) if layout.head is not None else dict(zip(layout.names, cursor.words(len(layout.names)), strict=True))
    metadata: dict[str, Any] = {"ggml.container": container, "ggml.version": version, "ggml.kind": layout.kind}
    metadata |= {f"ggml.{name}": value for name, value in parameters.items()}
    if layout.filters:
        mels, bins = cursor.words(2)
        metadata["ggml.filters"] = [mels, bins]
        filters = cursor.take(4 * mels * bins)
    if layout.words:
        metadata |= _read_words(cursor, layout, parameters["vocabulary"])
    generation = _generation(container, version, parameters.get("file_type", 0))
    tensors: dict[str, Any] = {}
    while cursor.rest:
        name, tensor = _read_tensor(cursor, layout, container == "ggjt", generation)
        if name in tensors:
            raise Damaged(f"the tensor {name[:80]!r} stands twice", offset=cursor.at)
        tensors[name] = tensor
        if len(tensors) > artifact.limits.tensors:
            raise Unsafe(f"more than {artifact.limits.tensors} tensors", where=artifact.where)
    if not tensors or (layout.names_begin and not any(name.startswith(layout.names_begin) for name in tensors)):
        raise Damaged("there are no tensors", offset=cursor.at if not tensors else 0)
    if layout.filters:
        tensors["mel_filters"] = SliceTensor("mel_filters", NUMBER["FLOAT"], metadata.pop("ggml.filters"), filters)
    return Checkpoint(tensors, metadata)


def _generation(container: str, version: int, file_type: int) -> int:
    """Which of the three orders of blocks a file has. The examples of ggml count them in the thousands of the file type."""
    if version in RWKV_VERSIONS:
        return RWKV_VERSIONS[version]
    if container == "ggml":
        return min(file_type // QUANTIZATION_STEP + 1, LATEST)
    return version if container == "ggjt" else 1


def _read_words(cursor: _Cursor, layout: Layout, count: int) -> dict[str, Any]:
    """Words are bytes, which need not be text: what is no UTF-8 becomes half surrogates."""
    if layout.words == "counted":
        count = cursor.words(1)[0]
    scored = layout.words == "scored"
    if count * (8 if scored else 4) > cursor.rest:
        raise Damaged(f"{count} words in {cursor.rest} bytes", offset=cursor.at)
    words, scores = [], []
    for _ in range(count):
        length = cursor.words(1)[0]
        if length > LONGEST_WORD:
            raise Damaged(f"a word of {length} bytes", offset=cursor.at - 4)
        words.append(str(cursor.take(length), "utf-8", "surrogateescape"))
        if scored:
            scores.append(struct.unpack("<f", cursor.take(4))[0])
    return {"ggml.tokens": words} | ({"ggml.scores": scores} if scored else {})


def _read_tensor(cursor: _Cursor, layout: Layout, aligned: bool, generation: int) -> tuple[str, Any]:
    from isomorph.quant.legacy import block_type
    start = cursor.at
    count, length, number = cursor.words(3)
    if count > MOST_DIMENSIONS or not 0 < length <= LONGEST_NAME:
        raise Damaged(f"a tensor of {count} dimensions with a name of {length} bytes", offset=start)
    dims = cursor.words(count)[::-1]
    try:
        name = str(cursor.take(length), "utf-8")
    except UnicodeDecodeError:
        raise Damaged("the name of a tensor is no text", offset=start) from None
    if aligned:
        cursor.take(-cursor.at % ALIGNMENT)
    kind = block_type(_number(number, layout), generation)
    if kind is None:
        raise Damaged(f"tensor {name[:80]!r} has the unknown type {number}", offset=start)
    if kind.elements > 1 and (not dims or dims[-1] % kind.elements):
        raise Damaged(f"tensor {name[:80]!r} has rows of {dims[-1] if dims else 1} elements, and {kind.name} has blocks of {kind.elements}", offset=start)
    data = cursor.take(math.prod(dims) // kind.elements * kind.bytes)
    if kind.element_type:
        return name, SliceTensor(name, NUMBER[kind.element_type], dims, data)
    return name, QuantizedTensor(name, kind, dims, data)


def _number(number: int, layout: Layout) -> int:
    """rwkv.cpp counts types in its own way."""
    if layout.kind != "rwkv":
        return number
    name = RWKV_TYPES.get(number, "")
    return {"Q4_2": 4, "Q4_3": 5}.get(name) or (BLOCKS[name].number if name in BLOCKS else -1)


def write(model: Checkpoint, path: str | os.PathLike[str], *, force: bool = False, progress: Progress = SILENT) -> Report:
    """A llama as version 3 of GGJT, a GPT-2 as the example of ggml has it. Raises as `_ggml_writer.write`."""
    from isomorph.formats import _ggml_writer
    return _ggml_writer.write(model, path, force=force, progress=progress)


FORMAT = Format(
    name="ggml", title="GGML before GGUF", extensions=(".ggml", ".ggmlv3.bin"), holds="weights",
    spec="https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#historical-state-of-affairs",
    identify=identify, read=read, write=write, can=Capabilities(dtypes=frozenset({"FLOAT", "FLOAT16"}), quantised=True), of="language model",
)

"""GGUF, versions 1 to 3, of both byte orders, whole or in split parts."""
from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, Literal

from isomorph.formats import Format, Match

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

WIDTHS = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}          # of value types; 8 is a string, 9 an array
SIGNED, REAL, BOOL, STRING, ARRAY = (1, 3, 5, 11), (6, 12), 7, 8, 9
PART = re.compile(r"-(\d{5})-of-(\d{5})\.gguf$")
MOST_KEYS, MOST_STRINGS, LONGEST = 20_000, 1_000_000, 4_096

# general.file_type, llama.h LLAMA_FTYPE_*
FILE_TYPES = {
    0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 4: "Q4_1 and F16", 7: "Q8_0", 8: "Q5_0", 9: "Q5_1", 10: "Q2_K",
    11: "Q3_K_S", 12: "Q3_K_M", 13: "Q3_K_L", 14: "Q4_K_S", 15: "Q4_K_M", 16: "Q5_K_S", 17: "Q5_K_M", 18: "Q6_K",
    19: "IQ2_XXS", 20: "IQ2_XS", 21: "Q2_K_S", 22: "IQ3_XS", 23: "IQ3_XXS", 24: "IQ1_S", 25: "IQ4_NL", 26: "IQ3_S",
    27: "IQ3_M", 28: "IQ2_S", 29: "IQ2_M", 30: "IQ4_XS", 31: "IQ1_M", 32: "BF16", 36: "TQ1_0", 37: "TQ2_0",
    38: "MXFP4_MOE", 39: "NVFP4",
}
KEPT = ("general.", "split.", "adapter.", "clip.", "imatrix.", "controlvector.", "tokenizer.ggml.model", "tokenizer.ggml.pre")


class _Ended(Exception):
    """The file ends, or stops making sense, inside its keys."""


class _Enough(Exception):
    """The keys are longer than a look at the header should take."""


class _Keys:
    """Walks the key-value section. Long arrays are stepped over; nothing is allocated for a count that the file states."""

    def __init__(self, artifact: Artifact):
        self.view = artifact.view
        raw = int.from_bytes(artifact.head[4:8], "little")
        self.order: Literal["big", "little"] = "big" if raw & 0xFFFF == 0 else "little"          # nothing in the file states it, but no version is 65536
        self.version = int.from_bytes(artifact.head[4:8], self.order)
        self.wide = 4 if self.version == 1 else 8
        self.elements = 0
        self.at = 8

    def number(self, width: int, signed: bool = False) -> int:
        piece = self.view[self.at:self.at + width]
        if len(piece) < width:
            raise _Ended
        self.at += width
        return int.from_bytes(piece, self.order, signed=signed)

    def text(self) -> str:
        length = self.number(self.wide)
        start = self.at
        self.skip(length)
        return bytes(self.view[start:start + min(length, LONGEST)]).decode("utf-8", "replace")

    def skip(self, count: int) -> None:
        if count > len(self.view) - self.at:
            raise _Ended
        self.at += count

    def value(self, kind: int, depth: int = 0) -> Any:
        if kind == STRING:
            return self.text()
        if kind == ARRAY:
            return self.array(depth)
        if kind not in WIDTHS:
            raise _Ended
        number = self.number(WIDTHS[kind], kind in SIGNED)
        return bool(number) if kind == BOOL else None if kind in REAL else number

    def array(self, depth: int) -> list:
        """Only its length is kept: a vocabulary of 262,144 tokens is stepped over in about 30 ms."""
        kind, count = self.number(4), self.number(self.wide)
        if kind in WIDTHS:
            self.skip(WIDTHS[kind] * count)
        elif kind == STRING:
            self.skip_strings(count)
        elif kind == ARRAY and depth < 4 and count <= MOST_KEYS:
            self.count(count)
            for _ in range(count):
                self.array(depth + 1)
        else:
            raise _Ended
        return [count]

    def count(self, elements: int) -> None:
        """Bounds the elements that are stepped over one by one."""
        self.elements += elements
        if self.elements > MOST_STRINGS:
            raise _Enough

    def skip_strings(self, count: int) -> None:
        self.count(count)
        if count * self.wide > len(self.view) - self.at:
            raise _Ended
        view, at, wide, order = self.view, self.at, self.wide, self.order
        read = int.from_bytes
        for _ in range(count):
            at += wide + read(view[at:at + wide], order)
        if at > len(view):
            raise _Ended
        self.at = at


def identify(artifact: Artifact) -> Match | None:
    """Recognises the magic number and reads the keys: version, byte order, architecture, what kind of file it is, parts."""
    if not artifact.head.startswith(b"GGUF"):
        return None
    keys = _Keys(artifact)
    if not 1 <= keys.version <= 99:
        return None
    detail: dict[str, Any] = {"byte_order": keys.order}
    found: dict[str, Any] = {}
    try:
        detail["tensors"], count = keys.number(keys.wide), keys.number(keys.wide)
        for _ in range(min(count, MOST_KEYS)):
            name = keys.text()
            value = keys.value(keys.number(4))
            if name.startswith(KEPT):
                found[name] = value
            elif name.startswith("tokenizer."):
                found["tokenizer"] = True
    except _Ended:
        detail["truncated"] = True
    except _Enough:
        detail["partly_read"] = True
    detail |= _facts(found)
    detail |= _parts(artifact, found)
    return Match("gguf", str(keys.version), _kind(found, detail), "weights", detail)


def _facts(found: dict[str, Any]) -> dict[str, Any]:
    names = {"architecture": "general.architecture", "name": "general.name", "quantization_version": "general.quantization_version",
             "tokenizer": "tokenizer.ggml.model", "license": "general.license"}
    facts = {name: found[key] for name, key in names.items() if key in found}
    if isinstance(kind := found.get("general.file_type"), int):
        facts["file_type"] = FILE_TYPES.get(kind, str(kind))
    return facts


def _parts(artifact: Artifact, found: dict[str, Any]) -> dict[str, Any]:
    name = PART.search(artifact.name)
    count = found.get("split.count") or (int(name[2]) if name else 0)
    if not isinstance(count, int) or count < 2:
        return {}
    number = found.get("split.no")
    part = number + 1 if isinstance(number, int) else int(name[1]) if name else 1
    parts: dict[str, Any] = {"part": part, "parts": count}
    if part == 1 and name and count <= 10_000:
        parts["companions"] = [f"{artifact.name[:name.start()]}-{index:05d}-of-{count:05d}.gguf" for index in range(2, count + 1)]
    return parts


def _kind(found: dict[str, Any], detail: dict[str, Any]) -> str:
    """What the file is for. general.type says it in newer files, the architecture or the keys in older ones."""
    kind, architecture = found.get("general.type"), found.get("general.architecture")
    if kind == "adapter" or "adapter.type" in found:
        return "lora adapter" if found.get("adapter.type", "lora") == "lora" else "adapter"
    if kind == "mmproj" or architecture == "clip":
        return "mmproj"
    if kind == "imatrix" or architecture == "imatrix":
        return "imatrix"
    if architecture == "controlvector":
        return "control vector"
    if detail.get("tensors") == 0 and ("tokenizer" in found or "tokenizer.ggml.model" in found):
        return "vocabulary only" if detail.get("parts", 0) < 2 else "llm"
    return "llm" if "tokenizer" in found or "tokenizer.ggml.model" in found else "weights"


FORMAT = Format(
    name="gguf", title="GGUF", extensions=(".gguf",), holds="weights", spec="https://github.com/ggml-org/ggml/blob/master/docs/gguf.md", identify=identify,
)

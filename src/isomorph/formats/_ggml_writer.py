"""The bytes of GGML files: llama as version 3 of GGJT, GPT-2 as the example of ggml has it, blocks in the order of today.

Source: llama.cpp's llama_file_saver and ggml's examples/common-ggml.cpp, both of August 2023.
"""
from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Unsupported, Usage
from isomorph.formats.ggml import ALIGNMENT, LATEST, LAYOUTS, LONGEST_WORD, QUANTIZATION_STEP, Layout
from isomorph.formats.gguf import stored_size, write_data
from isomorph.progress import SILENT, Progress
from isomorph.quant.blocks import PLAIN, BlockType
from isomorph.report import Report
from isomorph.tensors import NAME, dims_of, type_of
from isomorph.wire import files

if TYPE_CHECKING:
    from isomorph.model import Checkpoint

# The types that programs of the last generation know, with the numbers of files that hold mostly such: llama's (llama.h, enum llama_ftype) and GPT-2's
FILE_TYPES = {"F32": (0, 0), "F16": (1, 1), "Q4_0": (2, 2), "Q4_1": (3, 3), "Q8_0": (7, 7), "Q5_0": (8, 8), "Q5_1": (9, 9), "Q2_K": (10, 10),
              "Q3_K": (12, 11), "Q4_K": (15, 12), "Q5_K": (17, 13), "Q6_K": (18, 14)}
MOST_DIMENSIONS = 2
ONE_TYPE = "gpt-2"                         # the kind whose matrices all have the type that the head of the file names
FLOAT_MATRICES = ("model/wpe",)            # of it, those that are float32 whatever the others are
KINDS = {"llama": (b"tjgg", LATEST), "gpt-2": (b"lmgg", 0)}


def write(model: Checkpoint, path: str | os.PathLike[str], *, force: bool = False, progress: Progress = SILENT) -> Report:
    """Writes weights whose metadata says `ggml.kind`, "llama" or "gpt-2", with the numbers and words of that kind, tensor by tensor and without a copy.

    Raises `Unsupported` for other weights, and with every tensor that programs of then cannot read, `Usage` where the file exists.
    """
    path = Path(path)
    if not hasattr(model, "tensors"):
        raise Usage("GGML files hold weights and not a graph", where=str(path), hint="convert weights")
    kind = model.metadata.get("ggml.kind")
    if kind not in KINDS:
        raise Unsupported(f"no GGML file of the kind {kind!r} is written" if kind else "nothing says which kind of network the weights belong to",
                          hint="llama and GPT-2 are, from GGUF files and Hugging Face folders")
    magic, version = KINDS[kind]
    layout = next(layout for layout in LAYOUTS if layout.kind == kind and ("ggjt" if version else "ggml") in layout.containers)
    types = _types(model, kind)
    head = magic + (struct.pack("<I", version) if version else b"") + _head(model.metadata, layout, _file_type(model, types, kind))
    progress.start("write", sum(map(stored_size, model.values())), "bytes")
    with files.replacing(path, force=force) as output:
        output.write(head)
        at = len(head)
        for name, tensor in model.items():
            info = _info(name, tensor, types[name].number)
            info += bytes(-(at + len(info)) % ALIGNMENT if version else 0)
            output.write(info)
            write_data(tensor, name, stored_size(tensor), output, progress)
            at += len(info) + stored_size(tensor)
    progress.finish()
    return Report(str(path), [], {"bytes": at, "tensors": len(model), "files": [path.name]})


def _types(model: Checkpoint, kind: str) -> dict[str, BlockType]:
    found: dict[str, BlockType] = {}
    blockers = []
    for name, tensor in model.items():
        block = getattr(tensor, "kind", None) or PLAIN.get(NAME[type_of(tensor)])
        if len(dims_of(tensor)) > MOST_DIMENSIONS or not dims_of(tensor):
            blockers.append((name, name, f"it has {len(dims_of(tensor))} dimensions, and such files hold vectors and matrices"))
        elif block is None or block.name not in FILE_TYPES:
            old = block is not None and block.number < 0
            blockers.append((name, name, f"programs of the last generation read no {block.name.partition('.')[0] if block else NAME[type_of(tensor)]}"
                             + (" of that time" if old else "")))
        elif len(dims_of(tensor)) < MOST_DIMENSIONS and block.name != "F32":
            blockers.append((name, name, f"it is a vector and has to be F32, not {block.name}"))
        else:
            found[name] = block
    if not blockers and kind == ONE_TYPE:
        blockers = _of_several_types(model, found)
    if blockers:
        raise Unsupported(f"{len(blockers)} tensors cannot be stored: {', '.join(name for name, _, _ in blockers[:5])}", blockers=blockers,
                          hint="store them as floats with --dtype fp16, or encode them with `isomorph quantize --scheme q4_0 --pure`")
    return found


def _matrices(model: Checkpoint, types: Mapping[str, BlockType]) -> Counter[str]:
    return Counter(block.name for name, block in types.items() if len(dims_of(model[name])) == MOST_DIMENSIONS and name not in FLOAT_MATRICES)


def _of_several_types(model: Checkpoint, types: Mapping[str, BlockType]) -> list[tuple[str, str, str]]:
    """The matrices that are not of the type that most are."""
    usual = _matrices(model, types).most_common(1)
    wanted = {name: "F32" if name in FLOAT_MATRICES else usual[0][0] for name in types if len(dims_of(model[name])) == MOST_DIMENSIONS}
    others = {name: kind for name, kind in wanted.items() if types[name].name != kind}
    return [(name, name, f"it is {types[name].name}, and in files of this kind it has to be {kind}") for name, kind in others.items()]


def _file_type(model: Checkpoint, types: Mapping[str, BlockType], kind: str) -> int:
    """The number that says what most matrices are. In the thousands, GPT-2 says which order its blocks have."""
    usual = _matrices(model, types).most_common(1)
    name = usual[0][0] if usual else "F32"
    llama, example = FILE_TYPES[name]
    return llama if kind != ONE_TYPE else example + (0 if name in ("F32", "F16") else (LATEST - 1) * QUANTIZATION_STEP)


def _head(metadata: Mapping[str, Any], layout: Layout, file_type: int) -> bytes:
    """Numbers and words, in the order of the layout. Raises `Unsupported` where one is missing."""
    numbers = [file_type if name == "file_type" else metadata.get(f"ggml.{name}") for name in layout.names]
    words, scores = metadata.get("ggml.tokens"), metadata.get("ggml.scores")
    if any(not isinstance(number, int) or not 0 <= number < 1 << 32 for number in numbers) or not isinstance(words, list) \
            or len(words) != metadata["ggml.vocabulary"]:
        raise Unsupported("the numbers or the words of the model are missing", hint="convert from a GGUF file or a Hugging Face folder")
    scored = layout.words == "scored"
    out = bytearray(struct.pack(f"<{len(numbers)}I", *numbers))
    out += struct.pack("<I", len(words)) if layout.words == "counted" else b""
    for place, word in enumerate(words):
        data = word.encode("utf-8", "surrogateescape")
        if len(data) > LONGEST_WORD:
            raise Unsupported(f"a word of {len(data)} bytes, at most {LONGEST_WORD} are read")
        out += struct.pack("<I", len(data)) + data + (struct.pack("<f", scores[place] if scores else 0.0) if scored else b"")
    return bytes(out)


def _info(name: str, tensor: Any, number: int) -> bytes:
    dims, data = dims_of(tensor)[::-1], name.encode()
    return struct.pack(f"<3I{len(dims)}I", len(dims), len(data), number, *dims) + data

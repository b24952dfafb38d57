"""The GGML family before GGUF: lmgg (no version), fmgg, tjgg v1 to v3. The architecture is not stored and is told from the shape of the header."""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isomorph.formats import Format, Match
from isomorph.formats.gguf import FILE_TYPES

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

MAGICS = {b"lmgg": "ggml", b"fmgg": "ggmf", b"tjgg": "ggjt", b"algg": "ggla"}           # as they stand in the file, little-endian
RWKV_TYPES = {0: "F32", 1: "F16", 2: "Q4_0", 3: "Q4_1", 4: "Q4_1_O", 5: "Q4_2", 6: "Q4_3", 7: "Q5_0", 8: "Q5_1", 9: "Q8_0"}
QUANTIZATION_STEP = 1000                   # the examples store the quantization version as ftype / 1000
WHISPER_VOCABULARIES = (51864, 51865, 51866)

LLAMA = ("vocabulary", "embedding", "multiple", "heads", "layers", "rotary", "file_type")
WHISPER = ("vocabulary", "audio_context", "audio_state", "audio_heads", "audio_layers", "text_context", "text_state", "text_heads", "text_layers", "mels",
           "file_type")
RWKV = ("vocabulary", "embedding", "layers", "file_type")


def identify(artifact: Artifact) -> Match | None:
    """Recognises the magic number; the kind (llama, whisper, rwkv, gpt) follows from the hyperparameters behind it."""
    container = MAGICS.get(artifact.head[:4])
    if container is None:
        return None
    words = [int.from_bytes(artifact.head[at:at + 4], "little") for at in range(4, min(len(artifact.head) - 3, 68), 4)]
    if container == "ggla":
        return Match("ggml", str(words[0]) if words else "", "lora adapter", "weights", {"container": container, "rank": words[1] if len(words) > 1 else None})
    version = 0 if container == "ggml" else words[0] if words else 0
    kind, parameters = _kind(words if container == "ggml" else words[1:], version)
    detail: dict[str, Any] = {"container": container, "hyperparameters": parameters}
    if "file_type" in parameters:
        types = RWKV_TYPES if kind == "rwkv" else FILE_TYPES
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


FORMAT = Format(
    name="ggml", title="GGML before GGUF", extensions=(".ggml", ".ggmlv3.bin"), holds="weights",
    spec="https://github.com/ggml-org/ggml/blob/master/docs/gguf.md#historical-state-of-affairs", identify=identify,
)

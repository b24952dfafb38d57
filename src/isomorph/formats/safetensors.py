"""safetensors: a JSON header and raw tensors, single or in shards that an index lists."""
from __future__ import annotations

import json
import math
import re
from collections import Counter
from typing import TYPE_CHECKING, Any

from isomorph.formats import Format, Match
from isomorph.wire import json_head

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

DTYPES = frozenset({
    "BOOL", "F4", "F6_E2M3", "F6_E3M2", "U8", "I8", "F8_E5M2", "F8_E4M3", "F8_E8M0", "F8_E4M3FNUZ", "F8_E5M2FNUZ",
    "I16", "U16", "F16", "BF16", "I32", "U32", "F32", "C64", "F64", "I64", "U64",
})
LONGEST_HEADER_READ = 4 << 20              # a longer header is counted by a search instead of parsed, which would cost more than 0.1 s
MOST_DIMENSIONS = 64
SHARD = re.compile(r"-(\d{5})-of-(\d{5})\.safetensors$")
INDEX = ".safetensors.index.json"


def identify(artifact: Artifact) -> Match | None:
    """Recognises the header (its length, then a JSON object of tensors) or an index file: tensors, dtypes, metadata, shards, LoRA adapters."""
    if artifact.is_folder:
        return _identify_folder(artifact)
    if json_head.begins_json(artifact.head):
        return _identify_index(artifact)
    length = int.from_bytes(artifact.head[:8], "little")
    if artifact.head[8:9] != b"{" or not 2 <= length <= artifact.limits.json_bytes:
        return None
    if length > LONGEST_HEADER_READ or 8 + length > artifact.size:
        return _from_long_header(artifact, length)
    try:
        header = json.loads(bytes(artifact.view[8:8 + length]))
    except (ValueError, RecursionError):
        return None
    return _from_header(artifact, header, 8 + length) if isinstance(header, dict) else None


def _from_header(artifact: Artifact, header: dict[str, Any], data: int) -> Match | None:
    metadata = header.pop("__metadata__", {})
    dtypes: Counter[str] = Counter()
    parameters = end = 0
    for entry in header.values():
        if not isinstance(entry, dict) or entry.get("dtype") not in DTYPES or not _is_counts(entry.get("shape")) or not _is_counts(entry.get("data_offsets")):
            return None
        dtypes[entry["dtype"]] += 1
        parameters += math.prod(entry["shape"])
        end = max([end, *entry["data_offsets"]])
    detail: dict[str, Any] = {"tensors": len(header), "parameters": parameters, "dtypes": dict(dtypes), "metadata": metadata}
    if data + end > artifact.size:
        detail["truncated"] = True
    if shard := SHARD.search(artifact.name):
        detail["shard"], detail["shards"] = int(shard[1]), int(shard[2])
    return Match("safetensors", "", _flavour(artifact, header), "weights", detail)


def _is_counts(value: Any) -> bool:
    return isinstance(value, list) and len(value) <= MOST_DIMENSIONS and all(type(number) is int and number >= 0 for number in value)


def _flavour(artifact: Artifact, header: dict[str, Any]) -> str:
    if any(".lora_A." in name or "lora_down" in name or ".lora.down." in name for name in header):
        return "lora adapter"
    return "shard" if SHARD.search(artifact.name) else "single"


def _from_long_header(artifact: Artifact, length: int) -> Match | None:
    """A header that is too long to parse here, or cut off: judged by its first tensor."""
    head = json_head.read(artifact.head[8:])
    entries = [value for key, value in head.value.items() if key != "__metadata__"] if isinstance(head.value, dict) else []
    if not entries or not isinstance(entries[0], dict) or entries[0].get("dtype") not in DTYPES:
        return None
    if 8 + length > artifact.size:
        return Match("safetensors", "", "single", "weights", {"truncated": True}, "the file ends inside its header: download or copy it again")
    count = bytes(artifact.view[8:8 + length]).count(b'"data_offsets"')
    return Match("safetensors", "", "single", "weights", {"tensors": count, "metadata": head.value.get("__metadata__", {})})


def _identify_index(artifact: Artifact) -> Match | None:
    head = json_head.read(artifact.view)
    document = head.value if isinstance(head.value, dict) else {}
    shards = document.get("weight_map")
    if not isinstance(shards, dict) or not any(isinstance(name, str) and name.endswith(".safetensors") for name in shards.values()):
        return None
    files = sorted({name for name in shards.values() if isinstance(name, str)})
    metadata = document.get("metadata")
    detail: dict[str, Any] = {"shards": len(files), "companions": files, "metadata": metadata if isinstance(metadata, dict) else {}}
    if head.complete:
        detail["tensors"] = len(shards)
    return Match("safetensors", "", "indexed", "weights", detail)


def _identify_folder(artifact: Artifact) -> Match | None:
    """A folder that holds only shards and their index; one with a config.json beside them is a Hugging Face folder."""
    indexes = [name for name in artifact.names if name.endswith(INDEX)]
    if len(indexes) != 1 or "config.json" in artifact.names:
        return None
    index = artifact.child(indexes[0])
    match = _identify_index(index) if index and not index.is_folder else None
    if match is None or set(artifact.names) - set(match.detail["companions"]) - set(indexes):
        return None
    return match


FORMAT = Format(
    name="safetensors", title="safetensors", extensions=(".safetensors",), holds="weights",
    spec="https://github.com/huggingface/safetensors#format", identify=identify,
)

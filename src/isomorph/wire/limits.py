"""What a file may ask of us before it is refused, as one frozen value."""
from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds on what reading a file may cost. Sizes are bytes. A limit that is reached raises `Unsafe` and names this field."""

    archive_entries: int = 100_000
    archive_depth: int = 4
    expansion: int = 100                    # unpacked : packed, judged above `expansion_floor`
    expansion_floor: int = 16 << 20
    recursion: int = 100                    # protobuf messages, as C++ and upb
    flatbuffer_depth: int = 64              # as the C++ verifier
    flatbuffer_tables: int = 1_000_000
    json_bytes: int = 100_000_000           # also the header limit of safetensors
    json_depth: int = 64
    tensors: int = 1_000_000
    dimensions: int = 64
    pickle_opcodes: int = 5_000_000
    pickle_memo: int = 1_000_000
    pickle_stack: int = 1_000_000
    pickle_bytes: int = 100_000_000         # of records, by estimate
    pickle_nesting: int = 4                 # pickles inside pickles
    pickle_depth: int = 100                 # containers inside containers
    fold_bytes: int = 64 << 20              # the largest tensor that constant folding may make


DEFAULT = Limits()

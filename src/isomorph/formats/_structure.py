"""What a file is made of, whatever it means: zip, pickle, JSON, protobuf, ... It decides which formats are asked at all, so that few modules are loaded."""
from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from isomorph.wire import archive, compressed, json_head
from isomorph.wire.riegeli import SIGNATURE

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

HDF5 = b"\x89HDF\r\n\x1a\n"
PICKLE_STARTS = (b"\x80\2", b"\x80\3", b"\x80\4", b"\x80\5", b"(", b"c", b"]", b"}", b"l", b"I")       # from protocol 2 on there is a PROTO opcode
GGML = (b"lmgg", b"fmgg", b"tjgg", b"algg")
SORTED_TABLE = (0xDB4775248B80FB57).to_bytes(8, "little")
UTF16 = (b"\xff\xfe", b"\xfe\xff")
NO_TEXT = bytes(set(range(32)) - {9, 10, 12, 13, 27}) + b"\x7f"


def _is_text(artifact: Artifact) -> bool:
    sample = artifact.head[:4096]
    return artifact.size > 0 and (sample.startswith(UTF16) or sample.translate(None, NO_TEXT) == sample)


def _is_xml(artifact: Artifact) -> bool:
    head = artifact.head[:4096].removeprefix(b"\xef\xbb\xbf").lstrip()
    return head.startswith((b"<", *UTF16))


def _is_protobuf(artifact: Artifact) -> bool:
    """A first tag with a field number below 32, of a varint or of bytes: all that a message without a magic number gives away."""
    return artifact.head[:1] != b"" and artifact.head[0] & 7 in (0, 2) and 1 <= artifact.head[0] >> 3 < 16


def _holds_zip(artifact: Artifact) -> bool:
    """A zip at the beginning, or one that ends the file behind something else."""
    if artifact.head.startswith((b"PK\3\4", b"PK\5\6")):
        return True
    return artifact.size >= archive.END.size and archive.END_MARK in bytes(artifact.view[-archive.END.size - 1024:])


TESTS: dict[str, Callable[[Artifact], bool]] = {
    "empty": lambda artifact: artifact.size == 0,
    "zip": _holds_zip,
    "tar": lambda artifact: archive.is_tar(artifact.view),
    "hdf5": lambda artifact: any(artifact.head[at:at + 8] == HDF5 for at in (0, 512, 1024, 2048, 4096, 8192)),
    "gguf": lambda artifact: artifact.head.startswith(b"GGUF"),
    "ggml": lambda artifact: artifact.head.startswith(GGML),
    "flatbuffer": lambda artifact: artifact.head[4:8].isalnum(),
    "json": lambda artifact: json_head.begins_json(artifact.head),
    "xml": _is_xml,
    "pickle": lambda artifact: (artifact.head[:1] == b"\x80" and artifact.head[1:2] in b"\2\3\4\5") or artifact.head[:1] in PICKLE_STARTS,
    "lengthed json": lambda artifact: artifact.head[8:9] == b"{",
    "mxnet": lambda artifact: artifact.head.startswith(b"\x12\1\0\0\0\0\0\0"),
    "sstable": lambda artifact: bytes(artifact.view[-8:]) == SORTED_TABLE,
    "shard": lambda artifact: ".data-0" in artifact.name,
    "records": lambda artifact: artifact.head.startswith(SIGNATURE),
    "npy": lambda artifact: artifact.head.startswith(b"\x93NUMPY"),
    "compressed": lambda artifact: compressed.begins_compressed(artifact.head),
    "text": _is_text,
    "protobuf": _is_protobuf,
    "binary": lambda artifact: not _is_text(artifact),
}


def structures(artifact: Artifact) -> frozenset[str]:
    """The names of all structures that the beginning and the end of a file show. A folder is just "folder"."""
    if artifact.is_folder:
        return frozenset({"folder"})
    return frozenset(name for name, test in TESTS.items() if test(artifact))

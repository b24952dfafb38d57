"""What a file that no format claims looks like, in words, so that the message says more than no."""
from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

BEGINNINGS: tuple[tuple[bytes, str], ...] = (
    (b"\x89PNG", "a PNG image"), (b"\xff\xd8\xff", "a JPEG image"), (b"GIF8", "a GIF image"), (b"BM", "a BMP image"), (b"RIFF", "a WAV, AVI or WebP file"),
    (b"OggS", "an Ogg file"), (b"ID3", "an MP3 file"), (b"fLaC", "a FLAC file"), (b"%PDF", "a PDF document"), (b"\x7fELF", "a Linux program or library"),
    (b"MZ", "a Windows program or library"), (b"\xcf\xfa\xed\xfe", "a macOS program or library"), (b"\xca\xfe\xba\xbe", "a Java class or a macOS program"),
    (b"SQLite format 3", "an SQLite database"), (b"PAR1", "a Parquet file"), (b"ARROW1", "an Arrow file"), (b"\0asm", "a WebAssembly module"),
    (b"#!", "a script"), (b"<!--", "an XML document"), (b"<?xml", "an XML document"), (b"<svg", "an SVG image"),
)
# Structures in the order in which they say most
STRUCTURES = {
    "zip": "a zip without a model in it", "tar": "a tar without a model in it", "hdf5": "an HDF5 file", "compressed": "a compressed file without a model in it",
    "flatbuffer": "a flatbuffer of an unknown schema", "sstable": "a sorted table", "json": "a JSON document of no known model", "xml": "an XML document",
    "pickle": "a Python pickle that breaks off", "text": "plain text", "protobuf": "a protocol buffer of no known schema",
    "binary": "binary data without a known mark",
}


def describe(artifact: Artifact, structures: frozenset[str]) -> str:
    """What the beginning of a file, or its structure, resembles most."""
    if artifact.is_folder:
        return "a folder that is no model itself"
    if not any(artifact.head):
        return "nothing but zero bytes, as a download that was reserved and never filled"
    for mark, words in BEGINNINGS:
        if artifact.head.startswith(mark):
            return words
    certain = structures - {"protobuf", "flatbuffer", "pickle"} if "text" in structures else structures
    return next((words for name, words in STRUCTURES.items() if name in certain), "nothing known")

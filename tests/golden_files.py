"""Archives of small published or generated models under tests/golden."""
from __future__ import annotations

import tarfile
from pathlib import Path


def unpacked(name: str, folder: Path) -> Path:
    """The folder, with what the archive of that name holds."""
    with tarfile.open(Path(__file__).parent / "golden" / f"{name}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    return folder

"""The registry, as data: which formats there are, where their modules stand, and which file is asked about which of them.

Content decides what a file is; its extension only orders the candidates. Modules are imported when they are needed. Packages add formats of their own
through the entry-point group `isomorph.formats`, each entry naming a `Format`.
"""
from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Missing, NotRecognised, Unsupported, Usage
from isomorph.formats import Format, Match, _holding
from isomorph.formats._recognised import RECOGNISED
from isomorph.formats._structure import structures

if TYPE_CHECKING:
    import os

    from isomorph.artifact import Artifact

GROUP = "isomorph.formats"


@dataclass(frozen=True)
class Row:
    """A format: what it is called, which structures of files it is made of, and where its module stands.

    A row without a module is only recognised: `hint` is the sentence that says what to do with such a file, `Match.holds` stays empty.
    `install` is the command for an optional package that reading or writing needs. A `last` row is asked when all others have declined.
    """

    name: str
    title: str
    extensions: tuple[str, ...]
    within: tuple[str, ...]
    module: str = ""
    hint: str = ""
    install: str = ""
    last: bool = False
    function: Callable[[Artifact], Match | None] | None = None

    def load(self) -> Format:
        """The format's `FORMAT`. Raises `Unsupported` for a row that is only recognised, `Missing` where an optional package is absent."""
        if not self.module:
            raise Unsupported(f"{self.title} is recognised, but neither read nor written", hint=self.hint)
        try:
            return importlib.import_module(self.module).FORMAT
        except ModuleNotFoundError as error:
            if error.name and error.name.startswith("isomorph"):
                raise
            raise Missing(f"{self.title} needs the package {error.name}", hint=self.install or f"pip install {error.name}") from error

    def identify(self, artifact: Artifact) -> Match | None:
        match = (self.function or self.load().identify)(artifact)
        return replace(match, format=match.format or self.name, hint=match.hint or self.hint) if match else None


def _row(name: str, title: str, extensions: tuple[str, ...], within: tuple[str, ...], **rest: Any) -> Row:
    return Row(name, title, extensions, within, f"isomorph.formats.{name}", **rest)


def _hdf5(artifact: Artifact) -> Match | None:
    return Match("hdf5")


ROWS: tuple[Row, ...] = (
    _row("onnx", "ONNX", (".onnx",), ("protobuf",)),
    _row("tflite", "TensorFlow Lite", (".tflite", ".lite"), ("flatbuffer",)),
    _row("saved_model", "TensorFlow SavedModel", ("saved_model.pb", "saved_model.pbtxt", "saved_model.cpb"), ("folder", "protobuf", "text", "records")),
    _row("graphdef", "TensorFlow GraphDef", (".pb", ".pbtxt"), ("protobuf", "text")),
    _row("tf_checkpoint", "TensorFlow checkpoint", (".index", ".ckpt", ".meta"), ("folder", "sstable", "protobuf", "shard")),
    _row("tfjs_graph", "TensorFlow.js GraphModel", ("model.json",), ("json", "folder")),
    _row("tfjs_layers", "TensorFlow.js LayersModel", ("model.json",), ("json", "folder")),
    _row("keras", "Keras 3", (".keras",), ("zip", "folder")),
    _row("keras_h5", "Keras HDF5", (".h5", ".hdf5"), ("hdf5",)),
    _row("torch", "PyTorch", (".pt", ".pth", ".bin", ".ckpt"), ("zip", "pickle", "tar", "json", "folder")),
    _row("torchscript", "TorchScript", (".jit", ".ts", ".ptl", ".pt"), ("zip",)),
    _row("torch_export", "PyTorch exported program", (".pt2",), ("zip",)),
    _row("safetensors", "safetensors", (".safetensors",), ("lengthed json", "json", "folder")),
    _row("gguf", "GGUF", (".gguf",), ("gguf",)),
    _row("ggml", "GGML before GGUF", (".ggml", ".ggmlv3.bin"), ("ggml",)),
    _row("coreml", "Core ML", (".mlpackage", ".mlmodel"), ("protobuf", "folder")),
    _row("mxnet", "MXNet", ("-symbol.json", ".params"), ("json", "mxnet", "folder")),
    _row("pmml", "PMML", (".pmml",), ("xml",)),
    _row("pfa", "PFA", (".pfa",), ("json", "text")),
    _row("npz", "NumPy arrays", (".npz", ".npy"), ("zip", "npy")),
    _row("hf", "Hugging Face folder", (), ("folder", "json")),
    *(Row(row.name, row.title, row.extensions, row.within, hint=row.hint, function=row.look) for row in RECOGNISED),
    Row("hdf5", "HDF5", (".h5", ".hdf5"), ("hdf5",), hint="it is no Keras model: give the file that a supported library wrote", function=_hdf5, last=True),
    Row("archive", "Archive that holds a model", (".zip", ".tar", ".gz", ".tgz", ".bz2", ".xz", ".zst", ".7z"), ("zip", "tar", "compressed"),
        hint=_holding.UNPACK, function=_holding.identify, last=True),
)

FORMATS: dict[str, Row] = {row.name: row for row in ROWS}


def get(name: str) -> Format:
    """The format of that canonical name. Raises `Usage` where there is none, `Unsupported` where it is only recognised."""
    row = FORMATS.get(name) or plugins().get(name)
    if row is None:
        from difflib import get_close_matches
        near = get_close_matches(name, FORMATS, 1)
        raise Usage(f"no format is called {name!r}", hint=f"did you mean {near[0]!r}?" if near else "`isomorph formats` lists them")
    return row.load() if isinstance(row, Row) else row


def identify(artifact: Artifact) -> Match:
    """What a file or folder is. Raises `NotRecognised` where no format claims it, `Damaged` or `Unsafe` where its container cannot be opened."""
    found = structures(artifact)
    rows = [row for row in ROWS if not found.isdisjoint(row.within)]
    rows.sort(key=lambda row: (row.last, not artifact.name.lower().endswith(row.extensions)))
    for row in rows:
        if match := row.identify(artifact):
            return match
    for plugin in plugins().values():
        if match := plugin.identify(artifact):
            return match
    raise _not_recognised(artifact, found)


def _not_recognised(artifact: Artifact, found: frozenset[str]) -> NotRecognised:
    from isomorph.formats import _resemblance
    stated = by_extension(artifact.name)
    hint = f"its name says {FORMATS[stated].title}, its content does not: it may be cut off, encrypted, or something else" if stated in FORMATS else ""
    return NotRecognised(f"no format claims it; it looks like {_resemblance.describe(artifact, found)}", where=artifact.where, hint=hint)


def by_extension(path: str | os.PathLike) -> str | None:
    """The canonical name of the format that an output of that name is written in, None where its extension says nothing.

    The longest extension decides (`.ggmlv3.bin` is not `.bin`), and of several formats that share it the first that can be written.
    """
    name = Path(path).name.lower()
    known = {row.name: row.extensions for row in ROWS if row.module} | {plugin.name: plugin.extensions for plugin in plugins().values()}
    endings = {form: max((len(each) for each in extensions if name.endswith(each)), default=0) for form, extensions in known.items()}
    longest = max(endings.values(), default=0)
    found = [form for form, length in endings.items() if length == longest > 0]
    first = next(iter(found), None)
    return first if len(found) < 2 else next((form for form in found if get(form).write), first)


def output_name(name: str, stem: str) -> str:
    """The name of an output in that format: `stem` with the extension, or for formats whose files have fixed names such a file in a folder of its own."""
    extension = next(iter(FORMATS[name].extensions if name in FORMATS else plugins()[name].extensions), f"_{name}")
    return stem + extension if not extension[0].isalnum() else f"{stem}_{name}/{extension}"


def writable() -> list[str]:
    """The canonical names of all formats that can be written, in the order of the table."""
    known = [(row.name, row.load()) for row in ROWS if row.module]
    return [name for name, form in [*known, *plugins().items()] if form.write]


@cache
def plugins() -> dict[str, Format]:
    """The formats of other packages by name. Raises `Missing` where one is installed but does not load."""
    from importlib.metadata import entry_points
    found = {}
    for entry in entry_points(group=GROUP):
        try:
            form = entry.load()
        except ImportError as error:
            raise Missing(f"the plug-in {entry.name} ({entry.value}) does not load: {error}", hint="install what it needs, or uninstall it") from error
        if form.name not in FORMATS:
            found[form.name] = form
    return found

"""The ways that the ONNX node tests go, as data: which formats they are written in, one after the other, and which runtime answers for the last.

A new format that writes graphs is one row here, and rows in `cannot.toml` for the cases that it cannot carry.
"""
from __future__ import annotations

import zlib
from dataclasses import dataclass
from pathlib import Path

import onnx

from isomorph.artifact import Artifact
from isomorph.dialects import from_hub, to_hub
from isomorph.formats import _table


@dataclass(frozen=True)
class Route:
    """`formats` are written and read in turn, the last one is run by `runtime`. `share`: one case in so many belongs to the default run, the rest is
    marked slow. `bars`: how many cases must pass, of all and of those whose result is float32."""

    name: str
    title: str
    formats: tuple[str, ...]
    runtime: str
    environment: str = ""                   # of `tests/environments.toml`, where the runtime is not a dependency of the tests
    share: int = 1
    bars: tuple[int, int] = (0, 0)

    def is_slow(self, case: str) -> bool:
        """Whether a case is left to the slow run. By its name, so that the choice stays when cases are added."""
        return zlib.crc32(case.encode()) % self.share != 0

    def convert(self, proto: onnx.ModelProto, folder: Path) -> Path:
        """The file that the runtime is given."""
        source = Artifact.open(proto.SerializeToString())
        content = _table.get("onnx").read(source)  # type: ignore[misc]
        for name in self.formats:
            form = _table.get(name)
            path = folder / _table.output_name(name, "model")
            form.write(from_hub(content, form.dialect), path, force=True)  # type: ignore[misc]
            if name != self.formats[-1]:
                content = to_hub(form.read(Artifact.open(path)))  # type: ignore[misc]
        return path


ROUTES = {route.name: route for route in (
    Route("tflite", "ONNX → TFLite, run by LiteRT", ("tflite",), "litert", bars=(1300, 1150)),
    Route("keras", "ONNX → Keras, run by Keras", ("keras",), "keras", environment="tensorflow", share=20, bars=(1500, 1100)),
    Route("tflite-onnx", "and back to ONNX, run by ONNX Runtime", ("tflite", "onnx"), "onnxruntime"),
    Route("saved_model", "ONNX → SavedModel, run by TensorFlow", ("saved_model",), "tensorflow", environment="tensorflow", share=4, bars=(1700, 1200)),
    Route("tfjs_graph", "ONNX → TF.js GraphModel, run by TensorFlow.js", ("tfjs_graph",), "tfjs", environment="tfjs", share=4, bars=(1620, 1190)),
    Route("torchscript", "ONNX → TorchScript, run by PyTorch", ("torchscript",), "torch", environment="torch", bars=(1450, 1100)),
    Route("pt2", "ONNX → exported program, run by PyTorch", ("torch_export",), "torch", environment="torch", share=4, bars=(1450, 1100)),
)}

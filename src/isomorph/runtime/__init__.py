"""Other people's runtimes, always in a child process with a time limit: they crash on hostile or odd files, and they must not take us with them.

`RUNTIMES` lists them as data; `Session` runs a file in one of them. Nothing here imports a runtime, only the child does. A runtime may live in another
environment than isomorph: the variable `ISOMORPH_PYTHON_` with the runtime's name in capitals names the Python interpreter that has it, and
`ISOMORPH_NODE_` with that name the folder whose `node_modules` has a runtime of Node.js, which its driver starts.
"""
from __future__ import annotations

import importlib.util
import os
import sys
from dataclasses import dataclass, field

from isomorph.errors import Missing, Unsupported, Usage
from isomorph.runtime.session import Port, Session, Timing

__all__ = ["RUNTIMES", "Port", "Runtime", "Session", "Timing", "get", "has_native", "native"]


@dataclass(frozen=True)
class Runtime:
    """A runtime: which formats it takes as they are, which package it needs, which module of ours drives it inside the child."""

    name: str
    title: str
    formats: tuple[str, ...]
    package: str
    install: str
    module: str
    reference: dict[str, str] = field(default_factory=dict)      # options that choose its plain reference kernels
    told: tuple[str, ...] = ()                                   # formats whose files do not say what goes in and out: the option `ports` tells it

    @property
    def of_node(self) -> bool:
        """Whether its package is one of npm, by its name."""
        return self.package.startswith("@")

    @property
    def variable(self) -> str:
        """The environment variable that names a Python which has the package or, for a package of npm, the folder that has it under `node_modules`."""
        return f"ISOMORPH_{'NODE' if self.of_node else 'PYTHON'}_{self.name.upper()}"

    def interpreter(self) -> str:
        """The Python that runs the driver: the one that the variable names, else this one. Imports nothing."""
        return sys.executable if self.of_node else os.environ.get(self.variable) or sys.executable

    def available(self) -> bool:
        """Whether its package is installed here, or a place is named that is said to have it. Does not import it."""
        if self.of_node:
            folder = os.environ.get(self.variable, "")
            return bool(folder) and os.path.isdir(os.path.join(folder, "node_modules", *self.package.split("/")))
        return bool(os.environ.get(self.variable)) or importlib.util.find_spec(self.package) is not None

    def required(self) -> Runtime:
        """Itself. Raises `Missing` with the command that installs it where it is not installed."""
        if not self.available():
            place = "a folder" if self.of_node else "a Python"
            raise Missing(f"{self.title} is not installed", where=self.package, hint=f"run `{self.install}`, or name {place} that has it in {self.variable}")
        return self


RUNTIMES: tuple[Runtime, ...] = (
    Runtime("onnxruntime", "ONNX Runtime", ("onnx",), "onnxruntime", "pip install onnxruntime", "isomorph.runtime.onnxruntime"),
    Runtime("litert", "LiteRT", ("tflite",), "ai_edge_litert", "pip install 'isomorph[litert]'", "isomorph.runtime.litert", {"kernels": "reference"}),
    Runtime("keras", "Keras", ("keras", "keras_h5"), "keras", "pip install keras tensorflow-cpu", "isomorph.runtime.keras"),
    Runtime("torch", "PyTorch", ("torchscript", "torch_export"), "torch", "pip install 'isomorph[torch]'", "isomorph.runtime.torch",
            told=("torchscript",)),
    Runtime("tensorflow", "TensorFlow", ("saved_model", "graphdef"), "tensorflow", "pip install tensorflow-cpu", "isomorph.runtime.tensorflow"),
    Runtime("tfjs", "TensorFlow.js", ("tfjs_graph", "tfjs_layers"), "@tensorflow/tfjs", "npm install @tensorflow/tfjs", "isomorph.runtime.tfjs"),
    # No format is its own: what proves a GGUF file is the network that isomorph builds. It makes text.
    Runtime("llama", "llama.cpp", (), "llama_cpp", "pip install llama-cpp-python", "isomorph.runtime.llama"),
)


def get(name: str) -> Runtime:
    """The runtime of this name. Raises `Usage` for an unknown one."""
    for runtime in RUNTIMES:
        if runtime.name == name:
            return runtime
    raise Usage(f"there is no runtime named {name!r}", hint="one of " + ", ".join(runtime.name for runtime in RUNTIMES))


def native(format_name: str) -> Runtime:
    """The runtime that this format is made for. Raises `Unsupported` where isomorph drives none, `Missing` where it is not installed."""
    for runtime in RUNTIMES:
        if format_name in runtime.formats:
            return runtime.required()
    raise Unsupported(f"isomorph drives no runtime for {format_name}", hint="convert it to onnx or tflite and run that")


def has_native(format_name: str) -> bool:
    """Whether `native` would answer."""
    return any(format_name in runtime.formats and runtime.available() for runtime in RUNTIMES)

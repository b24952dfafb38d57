"""What operators mean. `_lower` is the engine; a dialect has two tables of rules, to the hub and from it."""
from __future__ import annotations

import importlib
import inspect
from typing import Any

from isomorph.errors import Unsupported
from isomorph.model import Model

# dialect -> module with `to_hub(model, **options) -> Model` and `from_hub(model, **options) -> Model`
DIALECTS = {
    "keras": "isomorph.dialects.keras",
    "tf": "isomorph.dialects.tf",
    "tfjs": "isomorph.dialects.tfjs",
    "tflite": "isomorph.dialects.tflite",
    "torch": "isomorph.dialects.torch",
}


def to_hub(model: Model, **options: Any) -> Model:
    """The same computation in ONNX operators. Raises `Unsupported` with every operator that has none."""
    return model if model.dialect == "onnx" else _module(model.dialect).to_hub(model, **options)


def from_hub(model: Model, dialect: str, **options: Any) -> Model:
    """The same computation in the operators of `dialect`. Raises `Unsupported` with every operator that has none."""
    return model if dialect == "onnx" else _module(dialect).from_hub(model, **options)


def options_of(dialect: str) -> frozenset[str]:
    """The names of the options that `from_hub` takes for this dialect."""
    return _options(dialect, "from_hub")


def options_to_hub(dialect: str) -> frozenset[str]:
    """The names of the options that `to_hub` takes for this dialect."""
    return _options(dialect, "to_hub")


def _options(dialect: str, direction: str) -> frozenset[str]:
    parameters = {} if dialect == "onnx" else inspect.signature(getattr(_module(dialect), direction)).parameters
    return frozenset(parameters) - {"model"}


def _module(dialect: str) -> Any:
    if dialect not in DIALECTS:
        raise Unsupported(f"there is no mapping for the dialect {dialect!r}", hint="run `isomorph formats` for what can be converted")
    return importlib.import_module(DIALECTS[dialect])

"""isomorph: identify, inspect, convert, prove and run AI model files of any common format.

    import isomorph
    isomorph.convert("model.onnx", "model.tflite")

Everything public is named in `__all__`; any other module may change. Nothing heavy is imported before it is used.
"""
from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from isomorph import _sympy

if TYPE_CHECKING:
    from isomorph.api import bench as bench
    from isomorph.api import identify as identify
    from isomorph.api import open as open
    from isomorph.api import run as run
    from isomorph.artifact import Artifact as Artifact
    from isomorph.difference import diff as diff
    from isomorph.importance import measure_importance as measure_importance
    from isomorph.inspection import inspect as inspect
    from isomorph.live import from_torch as from_torch
    from isomorph.live import to_torch as to_torch
    from isomorph.model import Checkpoint as Checkpoint
    from isomorph.model import Model as Model
    from isomorph.planning import Plan as Plan
    from isomorph.planning import convert as convert
    from isomorph.planning import plan as plan
    from isomorph.quantization import quantize as quantize
    from isomorph.report import Finding as Finding
    from isomorph.report import Report as Report
    from isomorph.verification import verify as verify

__version__ = "0.1.0"
_sympy.install()

# Public name -> the module that defines it. No public name is that of a module of this package, because importing a module sets its name here.
_HOME = {
    "open": "api", "identify": "api", "run": "api", "bench": "api", "inspect": "inspection", "plan": "planning", "convert": "planning",
    "Plan": "planning", "verify": "verification", "diff": "difference", "quantize": "quantization", "measure_importance": "importance",
    "from_torch": "live", "to_torch": "live",
    "Artifact": "artifact", "Model": "model", "Checkpoint": "model",
    "Finding": "report", "Report": "report",
}

__all__ = ["Artifact", "Checkpoint", "Finding", "Model", "Plan", "Report", "bench", "convert", "diff", "from_torch", "identify", "inspect",
           "measure_importance", "open", "plan", "quantize", "run", "to_torch", "verify"]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'isomorph' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"isomorph.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]

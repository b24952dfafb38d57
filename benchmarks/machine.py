"""Where and with what was measured: the processor and the versions, nothing that names the machine."""
from __future__ import annotations

import datetime
import os
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

PACKAGES = ("isomorph", "onnx", "onnx-ir", "onnxruntime", "ai-edge-litert", "numpy")


def description() -> dict[str, Any]:
    """Cores, processor, Python, versions of what isomorph stands on, and the day."""
    return {"cores": len(os.sched_getaffinity(0)), "cpu": _processor(), "python": platform.python_version(), "date": datetime.date.today().isoformat(),
            "versions": {name: _version(name) for name in PACKAGES}}


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        import isomorph
        return isomorph.__version__ if package == "isomorph" else "absent"

"""Lets `import onnx_ir` cost half: it imports sympy for arithmetic on symbolic dimensions, which conversions rarely do.

While onnx_ir is imported, a stand-in answers for sympy; afterwards `import sympy` finds the real one again. The stand-in's names load the real
module when they are called. Remove this once onnx_ir imports sympy where it uses it.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any


class _Name:
    """A function or class of sympy, looked up when it is called or compared with."""

    def __init__(self, name: str):
        self.name = name

    def __call__(self, *arguments: Any, **options: Any) -> Any:
        return getattr(importlib.import_module("sympy"), self.name)(*arguments, **options)

    def __instancecheck__(self, value: object) -> bool:
        return "sympy" in sys.modules and isinstance(value, getattr(sys.modules["sympy"], self.name))


class _StandIn(ModuleType):
    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return _Name(name)


class _Finder:
    """Finds onnx_ir as Python would, and puts the stand-in in place while it is executed. A finder needs no base, and importlib.abc would cost 8 ms."""

    def find_spec(self, fullname: str, path: Any = None, target: Any = None) -> ModuleSpec | None:
        if fullname != "onnx_ir" or "sympy" in sys.modules:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def without_sympy(module: ModuleType) -> None:
            sys.modules["sympy"] = stand_in = _StandIn("sympy")
            try:
                execute(module)
            finally:
                if sys.modules.get("sympy") is stand_in:
                    del sys.modules["sympy"]

        spec.loader.exec_module = without_sympy  # type: ignore[method-assign]
        return spec


def install() -> None:
    """Arranges it for the first import of onnx_ir in this process."""
    if "onnx_ir" not in sys.modules:
        sys.meta_path.insert(0, _Finder())

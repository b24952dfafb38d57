"""The stand-in for sympy: gone after the import, and symbolic arithmetic still right."""
from __future__ import annotations

import subprocess
import sys


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()


def test_onnx_ir_does_not_load_sympy():
    assert run("import isomorph, onnx_ir, sys; print('sympy' in sys.modules, 'sympy.core' in sys.modules)") == "False False"


def test_arithmetic_loads_it():
    assert run("import isomorph, onnx_ir as ir; print(ir.SymbolicDim('n') + 2, ir.SymbolicDim('n + 2').evaluate({'n': 3}))") == "n + 2 5"


def test_the_real_sympy_is_there_for_others():
    assert run("import isomorph, onnx_ir, sympy; print(sympy.simplify(sympy.Symbol('x') * 2 / 2), sympy.Integer.__mro__[-1].__name__)") == "x object"


def test_an_earlier_sympy_is_left_alone():
    assert run("import sympy, isomorph, onnx_ir as ir; print(sympy.Symbol('x') + 1, ir.SymbolicDim('n') * 2)") == "x + 1 2*n"

"""Node tests passed: isomorph's by the list that its tests keep true, onnx2tf's quoted or, where asked, run."""
from __future__ import annotations

import subprocess
import sys
import tempfile
import tomllib
from collections import Counter
from collections.abc import Callable, Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import ROOT
from benchmarks.environments import Environment
from benchmarks.results import Wrong, fitted, least_distant, matched
from isomorph.errors import IsomorphError
from isomorph.runtime.session import Port, Session

# Measured by the same count with rtol 1e-3, atol 1e-7, on onnx 1.23.2, in November 2026; not measured by this program.
QUOTED = {
    "onnx reference": (1865, 1291), "ONNX Runtime 1.31.1": (1727, 1230), "OpenVINO 2026.4.1": (1471, 1117), "tinygrad 0.14": (1353, 1072),
    "apache-tvm 0.27": (946, 667), "onnx2tf 2.6.9": (903, 758), "onnx2torch 1.5.15": (619, 456),
}
ROUTES = {"isomorph → tflite, in LiteRT": "tflite", "isomorph → tflite → onnx, in ONNX Runtime": "tflite-onnx"}
WORKER = Path(__file__).with_name("_onnx2tf_worker.py")


def counted(peers: Mapping[str, Environment]) -> dict[str, Any]:
    """Rows of name, all cases passed, float32 cases passed, and where the numbers come from."""
    sys.path.insert(0, str(ROOT / "tests" / "conformance"))
    import node_cases
    cases = node_cases.cases()
    rows = [{"tool": title, **_listed(cases, route), "from": "tests/conformance"} for title, route in ROUTES.items()]
    rows += [{"tool": f"onnx2tf {environment.version}", **_run_onnx2tf(environment, cases), "from": "run"} for environment in peers.values()]
    known = {row["tool"] for row in rows}
    rows += [{"tool": tool, "all": every, "float32": floats, "from": "quoted"} for tool, (every, floats) in QUOTED.items() if tool not in known]
    return {"cases": len(cases), "float32_cases": sum(case.kind == "float32" for case in cases.values()), "rows": rows}


def _listed(cases: Mapping[str, Any], route: str) -> dict[str, int]:
    rows = tomllib.loads((ROOT / "tests" / "conformance" / "cannot.toml").read_text())["cannot"]
    patterns = [pattern for row in rows if route in row["routes"] for pattern in row["cases"]]
    passed = [case for name, case in cases.items() if not any(fnmatchcase(name, pattern) for pattern in patterns)]
    return {"all": len(passed), "float32": sum(case.kind == "float32" for case in passed)}


def _run_onnx2tf(environment: Environment, cases: Mapping[str, Any]) -> dict[str, Any]:
    """Each case as our own conformance tests run it, with onnx2tf as the converter. It is imported once and forked for each case."""
    import node_cases
    verdicts: Counter[str] = Counter()
    floats = 0
    with tempfile.TemporaryDirectory() as scratch:
        worker = subprocess.Popen([str(environment.python), str(WORKER), scratch], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert worker.stdin is not None
        assert worker.stdout is not None

        def convert(proto: Any) -> Path:
            (Path(scratch) / "source.onnx").write_bytes(proto.SerializeToString())
            worker.stdin.write("\n")
            worker.stdin.flush()
            said = worker.stdout.readline().strip()
            if said != "done":
                raise RuntimeError(said)
            return Path(scratch) / "result" / "source_float32.tflite"
        for case in cases.values():
            kind, _ = node_cases.attempt(case, convert, _in_any_layout(case))
            verdicts[kind] += 1
            floats += kind == "pass" and case.kind == "float32"
        worker.stdin.close()
        worker.wait()
    return {"all": verdicts["pass"], "float32": floats, "verdicts": dict(verdicts)}


def _in_any_layout(case: Any) -> Callable[[Path, Mapping[str, np.ndarray]], dict[str, np.ndarray]]:
    """A function that runs a file whose inputs and outputs may have other names and layouts than those of the case."""
    expected = {value.name: array for value, array in zip(case.model.graph.output, case.data[0][1], strict=False)}

    def run(path: Path, feeds: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        try:
            with Session(path, "tflite") as session:
                inputs = matched([_port(name, array) for name, array in feeds.items()], session.inputs())
                outputs = matched([_port(name, array) for name, array in expected.items()], session.outputs())
                made = session.run({inputs[name].name: fitted(array, inputs[name]) for name, array in feeds.items()})
            return {name: _like(made[outputs[name].name], array) for name, array in expected.items()}
        except (IsomorphError, Wrong) as error:
            raise RuntimeError(str(error)) from None
    return run


def _port(name: str, array: Any) -> Port:
    array = np.asarray(array)
    return Port(name, array.dtype.name, array.shape)


def _like(have: np.ndarray, want: Any) -> np.ndarray:
    """A result in the layout of what is expected, and in its type where both are whole numbers."""
    want = np.asarray(want)
    moved = least_distant(want, have) if want.dtype.kind in "fiub" and have.dtype.kind in "fiub" else have
    return moved.astype(want.dtype) if moved.dtype.kind in "iu" and want.dtype.kind in "iu" else moved

"""Layers of Keras, made and run by Keras itself, converted and run by ONNX Runtime. `keras_cases.py` makes them and holds them against Keras' own list of
exports.

The default run takes a share of the cases; `pytest -m slow` takes all, and prints how many there are, and which Keras itself refuses.
"""
from __future__ import annotations

import json
import subprocess
from fnmatch import fnmatchcase
from pathlib import Path

import environments
import numpy as np
import onnxruntime
import pytest

from isomorph.artifact import Artifact
from isomorph.dialects import to_hub
from isomorph.errors import IsomorphError
from isomorph.formats import _table, onnx

SUFFIX = {"keras": "keras", "tf_keras": "keras_h5"}
# One or two of every kind of layer, and all that are composed of several.
SHARE = ("[A-Z]*-0,[A-Z]*-11,first-Conv2D*-0,Bidirectional-LSTM*True,masked-L*,masked-[a-z]*,RNN-*ed,RNN-s*-True,TimeDistributed-*,MultiHead*,Grouped*,nested*,"
         "shared,sequential*,two-*,encoder-*,dynamic-*,reduce-*m*-1,ops-s[l-t]*,picture-[a-c]*,raw-[a-c]*,raw-e*,policy-mixed_float16,quantized-*,adapted-*")
TOLERANCE, HALF = 1e-5, 1e-2                 # of the range of each output; half precision rounds otherwise in every library
# What cannot be carried, with the reason.
CANNOT = {
    "Hash*": "FarmHash and SipHash of letters have no operator in ONNX",
    "TextVectorization-letters": "ONNX splits text at a delimiter, not into letters",
    "policy-bfloat16": "ONNX Runtime has no convolution of bfloat16 on the CPU",
    "policy-mixed_bfloat16": "ONNX Runtime has no convolution of bfloat16 on the CPU",
    "policy-float64": "ONNX Runtime has no convolution of float64",
}


def made(library: str, folder: Path, pattern: str) -> list[dict]:
    """The cases that one process of Keras made."""
    return [line for line in told(library, folder, pattern) if "file" in line]


def told(library: str, folder: Path, pattern: str) -> list[dict]:
    """What it said of each case, and in the end which exported layers were in none."""
    python = environments.python("tensorflow")
    command = [str(python), str(Path(__file__).with_name("keras_cases.py")), str(folder), library, pattern]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=3600)
    assert done.returncode == 0, done.stderr[-2000:]
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]


def judged(case: dict, library: str, folder: Path) -> str:
    """Empty where ONNX Runtime computes what Keras did, else what is wrong."""
    try:
        hub = to_hub(_table.get(SUFFIX[library]).read(Artifact.open(folder / case["file"])))
        onnx.write(hub, folder / "case.onnx", force=True)
    except IsomorphError as error:
        return "; ".join(f"{kind}: {why}" for kind, _, why in getattr(error, "blockers", [])) or str(error)
    try:
        session = onnxruntime.InferenceSession(folder / "case.onnx")
        arrays = np.load(folder / f"{case['name']}.npz")
        fed = [arrays[f"in{index}"] for index in range(len(case["inputs"]))]
        feeds = {port.name: array.astype(object) if array.dtype.kind == "U" else array for port, array in zip(session.get_inputs(), fed, strict=True)}
        results = session.run(None, feeds)
    except Exception as error:                 # ONNX Runtime raises classes of its own
        return f"ONNX Runtime: {str(error)[:200]}"
    wanted = [arrays[f"out{index}"] for index in range(sum(name.startswith("out") for name in arrays.files))]
    if len(results) != len(wanted):
        return f"{len(results)} outputs instead of {len(wanted)}"
    return next((why for got, want in zip(results, wanted, strict=True) if (why := different(np.asarray(got), want, case["name"]))), "")


def different(got: np.ndarray, want: np.ndarray, name: str) -> str:
    if got.shape != want.shape:
        return f"shape {got.shape} instead of {want.shape}"
    if want.dtype.kind == "U":
        return "" if (got.astype("U") == want).all() else "other text"
    if got.dtype != want.dtype and "bfloat16" not in name:
        return f"dtype {got.dtype} instead of {want.dtype}"
    a, b = got.astype(np.float64), want.astype(np.float64)
    finite = np.isfinite(b)
    if not np.array_equal(finite, np.isfinite(a)):
        return "not finite in other places"
    if not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return "not finite in other places"
    scale = max(np.abs(b[finite]).max(), 1e-30) if finite.any() else 1.0
    error = np.abs(a - b)[finite].max() / scale if finite.any() else 0.0
    return "" if error <= (HALF if "16" in name and "policy" in name else TOLERANCE) else f"differs by {error:.2g} of the range"


def excused(name: str) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in CANNOT)


@pytest.mark.parametrize("library", SUFFIX)
def test_layers_compute_the_same(library: str, tmp_path: Path) -> None:
    cases = made(library, tmp_path, SHARE)
    assert len(cases) > 150
    wrong = {case["name"]: why for case in cases if not excused(case["name"]) and (why := judged(case, library, tmp_path))}
    assert not wrong


@pytest.mark.slow
@pytest.mark.parametrize("library", SUFFIX)
def test_all_layers_compute_the_same(library: str, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    """At least 99 of 100, the ones that cannot be carried counted as wrong, and no exported layer without a case or a reason."""
    *lines, last = told(library, tmp_path, "*")
    cases = [line for line in lines if "file" in line]
    wrong = {case["name"]: why for case in cases if (why := judged(case, library, tmp_path))}
    with capsys.disabled():
        print(f"\n{library}: {len(cases) - len(wrong)} of {len(cases)} cases within {TOLERANCE} of the range; not within: {', '.join(wrong) or 'none'}")
        print(*(f"    refused by Keras: {line['name']}: {line['error']}" for line in lines if "error" in line), sep="\n")
    assert not {name: why for name, why in wrong.items() if not excused(name)}
    assert len(wrong) <= 0.01 * len(cases)
    assert not last["missing"]


def test_the_judge_sees_differences() -> None:
    assert different(np.float32([1, 2]), np.float32([1, 2.0001]), "x")
    assert different(np.float32([1, np.nan]), np.float32([1, 2]), "x")
    assert not different(np.float32([1, np.inf]), np.float32([1, np.inf]), "x")

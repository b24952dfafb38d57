"""Sessions: exact inputs and outputs, and a parent that survives whatever its child does."""
from __future__ import annotations

import io
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest

from isomorph import runtime
from isomorph.errors import Crashed, Missing, TimedOut, Unsupported, Usage
from isomorph.runtime import Session, pipe

DIGITS = Path(runtime.__file__).parents[1] / "data" / "digits.onnx"
X = np.arange(4, dtype=np.float32).reshape(2, 2)


@pytest.fixture
def deed(tmp_path, monkeypatch):
    """A session in which the model "file" is an instruction to the runtime."""
    monkeypatch.syspath_prepend(str(Path(__file__).parent))
    row = runtime.Runtime("crashing", "Crashing", ("deed",), "crashing", "pip install crashing", "crashing")
    monkeypatch.setattr(runtime, "RUNTIMES", (*runtime.RUNTIMES, row))

    def session(text: str, **options) -> Session:
        (tmp_path / "model").write_text(text)
        return Session(tmp_path / "model", "deed", **options)
    return session


def test_answers_keep_their_structure(deed):
    with deed("fine") as session:
        assert [str(port) for port in session.inputs()] == ["x: float32[n, 2]"]
        answer = session.run({"x": X})
    np.testing.assert_array_equal(answer["y"], X)
    first, pairs, nothing, text = answer["nested"]
    np.testing.assert_array_equal(first, X)
    assert pairs == {3: 0.0}
    assert (nothing, text) == (None, "text")


def test_a_crash_is_an_error_that_names_the_signal(deed):
    with deed("abort") as session, pytest.raises(Crashed, match="SIGABRT"):
        session.run({"x": X})


def test_a_slow_runtime_is_killed(deed):
    with deed("sleep") as session:
        session.timeout = 1.0                           # a child needs longer to start where others are at work
        with pytest.raises(TimedOut, match="longer than 1 s"):
            session.run({"x": X})


def test_what_the_runtime_raises_is_told(deed):
    with deed("raise") as session:
        with pytest.raises(Crashed, match="no kernel for FROB"):
            session.run({"x": X})
        with pytest.raises(Crashed, match="no kernel for FROB"):           # the child is still there
            session.run({"x": X})


def test_a_refused_file_is_unsupported(deed):
    with pytest.raises(Unsupported, match="not a model of mine"), deed("refuse"):
        pass


@pytest.mark.parametrize(("feeds", "complaint"), [
    ({}, "the input 'x' is not fed"),
    ({"x": X, "z": X}, "no input is named 'z'"),
    ({"x": X.astype(np.float64)}, "is float64"),
    ({"x": X[:, :1]}, r"is float32\[2, 1\]"),
    ({"x": X[0]}, r"is float32\[2\]"),
])
def test_inputs_are_never_guessed(deed, feeds, complaint):
    with deed("fine") as session, pytest.raises(Usage, match=complaint):
        session.run(feeds)


def test_a_runtime_may_live_in_another_environment(deed, tmp_path, monkeypatch):
    """The named interpreter gets its own search path, not that of isomorph."""
    python = tmp_path / "python"
    run = f'PYTHONPATH={shlex.quote(str(Path(__file__).parent))} exec {shlex.quote(sys.executable)} "$@"'
    python.write_text(f'#!/bin/sh\ntest -z "$PYTHONPATH" || exit 9\n{run}\n')
    python.chmod(0o700)
    monkeypatch.setenv("ISOMORPH_PYTHON_CRASHING", str(python))
    with deed("fine") as session:
        np.testing.assert_array_equal(session.run({"x": X})["y"], X)
    monkeypatch.setenv("ISOMORPH_PYTHON_CRASHING", str(tmp_path / "absent"))
    with pytest.raises(Missing, match="does not start"), deed("fine"):
        pass


def test_missing_and_unknown_runtimes():
    with pytest.raises(Unsupported, match="no runtime for pmml"):
        runtime.native("pmml")
    with pytest.raises(Usage, match="no runtime named"):
        runtime.get("abacus")
    absent = runtime.Runtime("absent", "Absent", ("x",), "no_such_package_here", "pip install absent", "absent")
    with pytest.raises(Missing, match="pip install absent"):
        absent.required()


@pytest.mark.parametrize("dtype", ["float32", "int8", "bool", "complex64", "bfloat16", "int4", "float8_e4m3fn", "uint64", "float16"])
@pytest.mark.parametrize("shape", [(), (0,), (3,), (2, 0, 3), (2, 3)])
def test_arrays_survive_the_pipe(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(pipe.element_dtype(dtype))
    answer = through_a_pipe({"a": array, "b": [array.T]})
    for sent, got in ((array, answer["a"]), (array.T, answer["b"][0])):
        assert (got.dtype, got.shape) == (sent.dtype, sent.shape)
        assert got.tobytes() == sent.tobytes()


def test_text_survives_the_pipe():
    text = pipe.text_array(["a", "é\n", ""], (3, 1))
    assert through_a_pipe(text).tolist() == [["a"], ["é\n"], [""]]


def through_a_pipe(message):
    buffer = io.BytesIO()
    pipe.send(buffer, message)
    buffer.seek(0)
    return pipe.receive(buffer)


def test_onnx_runtime_runs_the_digits():
    digits = np.load(DIGITS.with_suffix(".npz"))
    images = digits["images"].astype(np.float32) / 16
    with Session(DIGITS, "onnx") as session:
        assert [str(port) for port in session.inputs()] == ["image: float32[batch, 1, 8, 8]"]
        guesses = session.run({"image": images})["probabilities"].argmax(1)
        timing = session.bench({"image": images[:1]}, runs=5, warm_up=1)
    assert (guesses == digits["labels"]).mean() > 0.97
    assert 0 < timing.median <= timing.p90 < 1
    assert 10 << 20 < timing.rss < 1 << 30


def test_the_parent_imports_no_runtime():
    import subprocess
    code = "import sys, isomorph.runtime; sys.exit(any(m in sys.modules for m in ('numpy', 'onnxruntime', 'ai_edge_litert', 'onnx', 'onnx_ir')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

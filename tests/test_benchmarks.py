"""The benchmarks run, on one tiny model and without peers. What they measure is never asserted."""
from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

import isomorph

ROOT = Path(__file__).resolve().parent.parent
pytest.importorskip("ai_edge_litert", reason="the extra [litert] is not installed")


def test_the_harness_measures_isomorph_alone(tmp_path):
    results = tmp_path / "results.json"
    command = [sys.executable, "-m", "benchmarks", "conversions", "--only", "digits", "--repeats", "1", "--no-peers", "--results", str(results)]
    source = {"PYTHONPATH": str(Path(isomorph.__file__).parents[1])}
    done = subprocess.run(command, cwd=ROOT, env=os.environ | source, capture_output=True, text=True, timeout=240, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(results.read_text())
    row = found["conversions"]["onnx"]["digits"]
    assert set(row["tools"]) == {"isomorph", "isomorph verified"}
    for tool in row["tools"].values():
        assert not tool["failure"]
        assert not tool["source_rewritten"]
        assert tool["difference"]["of_range"] < 1e-4
        assert tool["cpu"] > 0
        assert tool["rss"] > 10_000_000
        assert tool["latency"] > 0
        assert tool["weights"] < tool["bytes"] < 2 * tool["weights"]
    assert "| digits |" in done.stdout
    assert str(Path.home()) not in results.read_text()


def test_a_peer_without_its_interpreter_says_so(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import environments
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with pytest.raises(environments.Absent, match=r"onnx2tf needs Python 3\.12"):
        environments.peer("onnx2tf")


def test_results_are_compared_in_the_layout_that_is_nearest(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    import numpy as np

    from benchmarks import results
    from isomorph.runtime.session import Port
    image = np.arange(2 * 3 * 3 * 3, dtype=np.float32).reshape(2, 3, 3, 3)
    assert np.array_equal(results.least_distant(image, image.transpose(0, 2, 3, 1)), image)
    assert results.fitted(image[:, :, :2], Port("x", "float32", (None, 2, 3, 3))).shape == (2, 2, 3, 3)
    assert results.fitted(np.int64(16000), Port("sr", "int64", ())).shape == ()
    with pytest.raises(results.Wrong, match="takes no array of the shape"):
        results.fitted(image, Port("x", "float32", (7, None, None, None)))


def test_a_failed_tool_is_quoted_without_the_folders_of_the_machine(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks import processes
    log = "Traceback (most recent call last):\n  File \"/home/someone/x.py\", line 1\nValueError: no /home/someone/model.onnx here\nsome last line"
    assert processes.last_words(log) == "ValueError: no model.onnx here"

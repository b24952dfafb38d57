"""A few thousand mutants of every format that is read; `python tests/attacks/mutate.py` reads as many as one likes."""
from __future__ import annotations

import sys

import mutate
import pytest

COUNT = 1500
# The least share of mutants that must get past the container, so that the mutations do not merely destroy files.
LEAST_READ = {"onnx": 0.1, "npz": 0.1, "zip": 0.1, "tflite": 0.1}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is measured with Linux's /proc")
@pytest.mark.parametrize("name", mutate.SEEDS)
def test_mutants_give_only_errors_of_isomorph_in_bounded_time_and_memory(name):
    if not mutate.SEEDS[name]():
        pytest.skip(f"the repository holds no small {name} file to start from")
    result = mutate.run(name, COUNT, seed=7)
    assert result["broken"] == []
    assert sum(result["outcomes"].values()) == COUNT
    assert result["outcomes"]["read"] >= LEAST_READ.get(name, 0) * COUNT
    assert set(result["outcomes"]) <= {"read", "damaged", "unsafe", "unsupported", "missing", "not-recognised"}


def test_the_child_notices_what_breaks_a_rule(tmp_path, monkeypatch):
    """The harness itself: a reader that raises, hangs or opens a file for writing is reported."""
    script = tmp_path / "broken.py"
    script.write_text(f"""
import sys
sys.path.insert(0, {str(mutate.Path(mutate.__file__).parent)!r})
import mutate, time
mutate.SECONDS = 2
calls = []
def read_one(name, data):
    calls.append(data)
    if len(calls) == 10: raise KeyError("a key")
    if len(calls) == 11: time.sleep(4)
    if len(calls) == 12: open({str(tmp_path / "written")!r}, "w")
    if len(calls) == 13: b"x" * (400 << 20)
    return "read"
mutate.read_one = read_one
mutate.work("zip", 20, 1, 0)
""")
    child = mutate.subprocess.run([sys.executable, script], capture_output=True, text=True, check=True)
    expected = ["KeyError", "longer than", "did open", "MB resident"]
    assert [word for word in expected if word in child.stdout] == expected

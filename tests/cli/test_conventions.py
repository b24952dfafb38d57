"""What holds for every verb: help that imports nothing, exit codes, errors in one line, JSON on standard output alone."""
from __future__ import annotations

import json
import os
import pty
import subprocess
import sys

import pytest
from commandline import SOURCE, isomorph

from isomorph.cli import COMMANDS

HEAVY = ("numpy", "onnx", "onnx_ir", "onnxruntime", "sympy.core", "ai_edge_litert", "rich")


def imported(code: str) -> set[str]:
    """Which heavy modules these lines leave in memory."""
    program = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{code}\nprint('imported', *(m for m in {HEAVY!r} if m in sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    return set(done.stdout.splitlines()[-1].split()[1:])


@pytest.mark.parametrize("code", ["from isomorph.cli import run; run(['--help'])", "from isomorph.cli import run; run(['convert'])",
                                  "from isomorph.cli import run; run(['convert', '--help'])", "import isomorph; dir(isomorph)"])
def test_help_and_errors_import_nothing_heavy(code):
    assert imported(code) == set()


def test_weights_are_inspected_without_the_graph_library(digits):
    isomorph("convert", "digits.onnx", "digits.safetensors", "--no-verify", folder=digits)
    for flags in ("[]", "['--tensors']", "['--json']"):
        assert imported(f"from isomorph.cli import run; run(['inspect', {str(digits / 'digits.safetensors')!r}] + {flags})") == set()


def test_the_measure_of_imports_sees_them():
    assert imported("import numpy") == {"numpy"}


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_has_help(name):
    done = isomorph(name, "--help")
    assert done.returncode == 0
    assert f"Usage: isomorph {name}" in done.stdout
    assert "--json" in done.stdout


@pytest.mark.parametrize(("arguments", "status", "code"), [
    (["frobnicate"], 4, "usage"),
    (["identify"], 4, "usage"),
    (["identify", "--frob", "x"], 4, "usage"),
    (["identify", "nothing.here"], 3, "not-recognised"),
    (["identify", "noise"], 3, "not-recognised"),
    (["convert", "digits.onnx", "out.frob"], 4, "usage"),
    (["convert", "digits.onnx", "out", "--to", "frob"], 4, "usage"),
    (["convert", "digits.onnx", "digits.onnx", "--force"], 4, "usage"),
    (["convert", "digits.onnx", "noise", "--to", "onnx"], 4, "usage"),
    (["verify", "digits.onnx", "nothing.here"], 3, "not-recognised"),
    (["explain", "frob"], 4, "usage"),
    (["formats", "onnx"], 4, "usage"),
])
def test_exit_codes(digits, arguments, status, code):
    (digits / "noise").write_bytes(bytes(range(1, 200)))
    done = isomorph(*arguments, folder=digits)
    assert done.returncode == status
    assert done.stderr.startswith(f"error[{code}]")
    assert "Traceback" not in done.stderr
    again = isomorph(*arguments, "--json", folder=digits)
    assert again.returncode == status
    document = json.loads(again.stdout)
    assert document["schema_version"] == 1
    assert code in again.stdout


def test_a_broken_pipe_is_silent():
    command = f"{sys.executable} -m isomorph explain | head -c 1"
    environment = os.environ | {"PYTHONPATH": str(SOURCE)}
    done = subprocess.run(["bash", "-o", "pipefail", "-c", command], capture_output=True, text=True, check=False, env=environment)
    assert done.stderr == ""
    assert done.stdout in ("c", "")


def test_an_interruption_ends_with_130():
    code = (f"import sys; sys.path.insert(0, {str(SOURCE)!r})\nimport isomorph.cli as c\ndef stop(*a, **k): raise KeyboardInterrupt\nc.group.main = stop\n"
            "c.main(['doctor'])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")


def test_a_defect_shows_its_traceback_only_when_asked():
    code = (f"import sys; sys.path.insert(0, {str(SOURCE)!r})\nimport isomorph.cli as c\ndef fail(*a, **k): raise KeyError('frob')\nc.group.main = fail\n"
            "c.main(sys.argv[1:])")
    quiet, loud = (subprocess.run([sys.executable, "-c", code, *flags], capture_output=True, text=True, check=False) for flags in ([], ["--trace"]))
    assert quiet.returncode == loud.returncode == 2
    assert "a defect of isomorph: KeyError: 'frob'" in quiet.stderr
    assert "Traceback" not in quiet.stderr
    assert "Traceback" in loud.stderr


def test_the_machine_refusing_is_named():
    code = (f"import sys; sys.path.insert(0, {str(SOURCE)!r})\nimport errno, isomorph.cli as c\n"
            "def fail(*a, **k): raise OSError(errno.ENOSPC, 'No space left on device', 'out.onnx')\nc.group.main = fail\nc.main([])")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr.startswith("error[machine]: No space left on device - at out.onnx")


def test_version_and_no_colour_in_a_pipe():
    done = isomorph("doctor")
    assert "\x1b" not in done.stdout
    assert "onnxruntime" in done.stdout


def on_a_terminal(*arguments, folder, **environment) -> str:
    """What a person sees: the bytes that arrive at a pseudo-terminal."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "isomorph", *arguments]
    child = subprocess.Popen(command, cwd=folder, stdout=theirs, stderr=theirs, env=os.environ | {"PYTHONPATH": str(SOURCE), "TERM": "xterm"} | environment)
    os.close(theirs)
    seen = b""
    try:
        while chunk := os.read(ours, 65536):
            seen += chunk
    except OSError:                                     # Linux says so when the last writer is gone
        pass
    os.close(ours)
    child.wait()
    return seen.decode()


def test_a_terminal_gets_tables_and_bars_and_its_cursor_back(digits):
    seen = on_a_terminal("convert", "digits.onnx", "digits.tflite", folder=digits)
    assert "probabilities" in seen
    assert "\u2501" in seen                            # the line of a table or a bar
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h") > 0
    (digits / "digits.tflite").unlink()
    seen = on_a_terminal("convert", "digits.onnx", "digits.tflite", "--dtype", "fp64", folder=digits)
    assert "error" in seen
    assert seen.count("\x1b[?25l") == seen.count("\x1b[?25h")


def test_colour_can_be_turned_off(digits):
    red = "\x1b[31m"
    assert red in on_a_terminal("identify", "nothing", folder=digits)
    assert red not in on_a_terminal("identify", "nothing", folder=digits, NO_COLOR="1")


def test_gguf_is_inspected_without_numpy(tmp_path):
    from gguf_files import ARRAY, F32, Q4_0, STRING, gguf
    keys = [("general.architecture", STRING, "llama"), ("tokenizer.ggml.tokens", ARRAY, (STRING, ["a", "b"]))]
    (tmp_path / "x.gguf").write_bytes(gguf(keys=keys, tensors=[("w", (4,), F32, 0), ("q", (32,), Q4_0, 32)], data=bytes(64)))
    for flags in ("['--tensors', '--metadata']", "['--json']"):
        assert imported(f"from isomorph.cli import run; run(['inspect', {str(tmp_path / 'x.gguf')!r}] + {flags})") == set()

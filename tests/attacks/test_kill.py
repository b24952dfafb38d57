"""A writer that is killed, or that fills the disk, leaves the old file or the new one, whole; and its remains go with the next run."""
from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from isomorph.artifact import Artifact
from isomorph.formats import onnx as onnx_format
from isomorph.formats import safetensors

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="signals and limits of POSIX")
TENSORS, SIZE = 24, 1 << 15           # 3 MiB
LONGEST_WAIT = 0.06                   # seconds; a write takes about a third of it

# A process that imports once and then, for each number it reads, forks a child that writes files full of that number until it is killed.
WRITER = """
import os, sys
import numpy as np
import onnx_ir as ir
from pathlib import Path
from isomorph.errors import IsomorphError
from isomorph.formats import onnx, safetensors
from isomorph.model import Checkpoint, Model
from isomorph.passes import downgrade
from isomorph.tensors import array_tensor

kind, path = sys.argv[1], Path(sys.argv[2])

def writer(number):
    arrays = [array_tensor(np.full({size}, number, np.float32), f"w{{place}}") for place in range({tensors})]
    if kind == "safetensors":
        return lambda: safetensors.write(Checkpoint({{array.name: array for array in arrays}}), path, force=True)
    values = [ir.Value(name=array.name, type=ir.TensorType(array.dtype), shape=ir.Shape(array.shape), const_value=array) for array in arrays]
    node = ir.node("Sum", values)
    node.outputs[0].name = "y"
    graph = ir.Graph([], node.outputs, nodes=[node], initializers=values, opset_imports={{"": 26}}, name="g")
    return lambda: onnx.write(Model(ir.Model(graph, ir_version=13)), path, force=True, external_data=kind == "external")
"""
LOOP = WRITER + """
for line in sys.stdin:
    once = writer(float(line))
    once()
    child = os.fork()
    if not child:
        while True:
            once()
    print(child, flush=True)
    os.waitpid(child, 0)
    print("dead", flush=True)
"""
ONCE = """
import resource, signal
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
""" + WRITER + """
try:
    writer(1.0)()
except IsomorphError as error:
    print(error)
    raise SystemExit(9)
"""


def values_in(kind: str, path: Path) -> set[float]:
    """Every value that the weights of a file hold: one, where it was written by one writer and whole."""
    if kind == "safetensors":
        tensors = list(safetensors.read(Artifact.open(path)).values())
    else:
        tensors = [value.const_value for value in onnx_format.read(Artifact.open(path)).graph.initializers.values()]
    assert len(tensors) == TENSORS
    return {float(value) for tensor in tensors for value in np.unique(tensor.numpy())}


@pytest.mark.parametrize(("kind", "kills"), [("safetensors", 40), ("single", 40), ("external", 100)])
def test_killed_at_any_moment(kind, kills, tmp_path):
    rng = random.Random(5)
    path = tmp_path / ("m.safetensors" if kind == "safetensors" else "m.onnx")
    orphans = 0
    with subprocess.Popen([sys.executable, "-c", LOOP.format(size=SIZE, tensors=TENSORS), kind, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                          text=True) as server:
        for number in range(kills):
            server.stdin.write(f"{number}\n")
            server.stdin.flush()
            child = int(server.stdout.readline())
            time.sleep(rng.random() * LONGEST_WAIT)
            os.kill(child, signal.SIGKILL)
            assert server.stdout.readline() == "dead\n"
            assert values_in(kind, path) == {float(number)}
            orphans += len(list(tmp_path.glob("*.part")))
        server.stdin.close()
    assert orphans, "no kill ever hit a write, so this test shows nothing"
    subprocess.run([sys.executable, "-c", WRITER.format(size=SIZE, tensors=TENSORS) + "writer(777.0)()", kind, str(path)], check=True)
    assert values_in(kind, path) == {777.0}
    names = {item.name for item in tmp_path.iterdir()}
    assert names in ({path.name}, {path.name, f"{path.name}.data"}, {path.name, f"{path.name}.1.data"})


@pytest.mark.parametrize(("kind", "limit"), [("safetensors", 1 << 12), ("single", 1 << 20), ("external", 1 << 20), ("external", (3 << 20) - 1)])
def test_a_full_disk(kind, limit, tmp_path):
    """RLIMIT_FSIZE makes a write fail as a full disk does, after as many bytes."""
    path = tmp_path / ("m.safetensors" if kind == "safetensors" else "m.onnx")
    script = ONCE.format(size=SIZE, tensors=TENSORS, limit=limit)
    child = subprocess.run([sys.executable, "-c", script, kind, str(path)], capture_output=True, text=True, check=False)
    assert (child.returncode, child.stderr) == (9, "")
    assert "nothing was left behind" in child.stdout
    assert list(tmp_path.iterdir()) == []

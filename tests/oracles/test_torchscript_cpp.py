"""A C++ program loads and runs what we write as TorchScript: recurrent layers, branches and loops of the run, constants, several inputs and results."""
from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import environments
import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

import isomorph

SOURCE = Path(__file__).with_name("torchscript.cpp")
PLACES = "import torch, os; print(os.path.dirname(torch.__file__), int(torch._C._GLIBCXX_USE_CXX11_ABI))"


@pytest.fixture(scope="module")
def program(tmp_path_factory) -> Path:
    """The compiled program. Compiling PyTorch's headers takes a minute."""
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("there is no g++")
    answer = subprocess.run([str(environments.use("torch")), "-c", PLACES], capture_output=True, text=True, check=True).stdout.split()
    root, binary = Path(answer[0]), tmp_path_factory.mktemp("program") / "run"
    libraries = root / "lib"
    includes = [f"-I{root / 'include'}", f"-I{root / 'include/torch/csrc/api/include'}"]
    linked = [f"-L{libraries}", f"-Wl,-rpath,{libraries}", "-ltorch", "-ltorch_cpu", "-lc10"]
    subprocess.run([compiler, "-std=c++20", "-O0", f"-D_GLIBCXX_USE_CXX11_ABI={answer[1]}", *includes, str(SOURCE), "-o", str(binary), *linked],
                   check=True, capture_output=True, text=True, timeout=600)
    return binary


def value(name: str, kind: int = TensorProto.FLOAT, shape: list | None = None) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def network() -> onnx.ModelProto:
    """An LSTM, a branch on its state, and a loop whose rounds an input decides and whose values are collected."""
    draw = np.random.default_rng(0)
    weights = {"w": draw.standard_normal((1, 16, 3), np.float32), "r": draw.standard_normal((1, 16, 4), np.float32), "zero": np.float32(0),
               "b": draw.standard_normal((1, 32), np.float32), "half": np.float32(0.5), "axes": np.array([0], np.int64)}
    node = helper.make_node
    then = helper.make_graph([node("Mul", ["k", "half"], ["halved"])], "then", [], [value("halved", shape=["n"])])
    other = helper.make_graph([node("Neg", ["k"], ["turned"])], "other", [], [value("turned", shape=["n"])])
    body = helper.make_graph([node("Add", ["seen", "z"], ["next"]), node("Identity", ["go"], ["go_on"]), node("Mul", ["next", "half"], ["collected"])], "body",
                             [value("round", TensorProto.INT64, []), value("go", TensorProto.BOOL, []), value("seen", shape=["n"])],
                             [value("go_on", TensorProto.BOOL, []), value("next", shape=["n"]), value("collected", shape=["n"])])
    nodes = [node("LSTM", ["x", "w", "r", "b"], ["y", "h"], hidden_size=4), node("ReduceSum", ["h"], ["s"], keepdims=0), node("Greater", ["s", "zero"], ["c"]),
             node("If", ["c"], ["z"], then_branch=then, else_branch=other), node("ReduceMax", ["k"], ["m"], keepdims=0),
             node("Cast", ["m"], ["rounds"], to=TensorProto.INT64), node("Loop", ["rounds", "", "k"], ["last", "all"], body=body)]
    graph = helper.make_graph(nodes, "g", [value("x", shape=[5, 2, 3]), value("k", shape=["n"])],
                              [value("y", shape=[5, 1, 2, 4]), value("last", shape=["n"]), value("all", shape=["m", "n"])],
                              [numpy_helper.from_array(array, name) for name, array in weights.items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def stored(array: np.ndarray) -> bytes:
    return np.array([array.ndim, *array.shape], np.int64).tobytes() + array.astype(np.float32).tobytes()


def unpacked(data: bytes) -> list[np.ndarray]:
    found = []
    while data:
        rank = int.from_bytes(data[:8], "little")
        shape = np.frombuffer(data[8:8 * (rank + 1)], np.int64)
        stop = 8 * (rank + 1) + 4 * int(shape.prod())
        found.append(np.frombuffer(data[8 * (rank + 1):stop], np.float32).reshape(shape))
        data = data[stop:]
    return found


@pytest.mark.slow
@pytest.mark.parametrize("sign", [1, -1])
def test_a_program_in_cpp_gives_what_onnx_runtime_gives(program, tmp_path, sign):
    onnx.save(network(), tmp_path / "m.onnx")
    isomorph.convert(tmp_path / "m.onnx", tmp_path / "m.jit", verify=False)
    feeds = {"x": sign * np.random.default_rng(1).standard_normal((5, 2, 3), np.float32), "k": np.array([3.0, 1.0, -2.0], np.float32)}
    (tmp_path / "inputs").write_bytes(b"".join(map(stored, feeds.values())))
    done = subprocess.run([str(program), str(tmp_path / "m.jit"), str(tmp_path / "inputs"), str(tmp_path / "outputs")], capture_output=True, text=True,
                          timeout=120, env=os.environ)
    assert done.returncode == 0, done.stderr[-2000:]
    wanted = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, feeds)
    found = unpacked((tmp_path / "outputs").read_bytes())
    assert len(found) == len(wanted) == 3
    for have, want in zip(found, wanted, strict=True):
        np.testing.assert_allclose(have, want, atol=1e-5)

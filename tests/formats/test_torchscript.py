"""TorchScript written by hand, executed symbolically and run by ONNX Runtime."""
from __future__ import annotations

import io
import zipfile

import numpy as np
import onnxruntime
import pytest

import isomorph
from isomorph.artifact import Artifact
from isomorph.errors import Damaged, Unsupported
from isomorph.formats import torchscript

HEAD = "class Net(Module):\n  __parameters__ = [\"w\", ]\n  __buffers__ = []\n  training : bool\n  w : Tensor\n  size : Final[int] = 3\n"
WEIGHT = (b"ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\nFloatStorage\nV0\nVcpu\nI6\ntQI0\n(I2\nI3\nt(I3\nI1\ntI00\nccollections\nOrderedDict\n"
          b")RtR")
VALUES = np.arange(6, dtype=np.float32).reshape(2, 3) / 6


def script(body: str, arguments: str = "x: Tensor", functions: str = "") -> bytes:
    code = f"{functions}{HEAD}  def forward(self: __torch__.Net,\n    {arguments}) -> Tensor:\n" + "".join(f"    {line}\n" for line in body.splitlines())
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"n/data.pkl": b"\x80\x02c__torch__\nNet\n)\x81(dVtraining\nI00\nsVw\n" + WEIGHT + b"sb.", "n/code/__torch__.py": code.encode(),
                              "n/constants.pkl": b"\x80\x02).", "n/data/0": VALUES.tobytes(), "n/version": b"3\n", "n/byteorder": b"little"}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def run(tmp_path, body: str, feeds: dict, shapes: dict | None = None, **more) -> list[np.ndarray]:
    (tmp_path / "net.pt").write_bytes(script(body, **more))
    isomorph.convert(tmp_path / "net.pt", tmp_path / "net.onnx", verify=False, input_shapes=shapes or {"x": (-1, 3)})
    return onnxruntime.InferenceSession(tmp_path / "net.onnx").run(None, feeds)


X = np.array([[1, -2, 3], [0.5, 0, -1]], np.float32)


def test_a_guess_is_told_and_a_statement_is_no_guess(tmp_path):
    (tmp_path / "net.pt").write_bytes(script("return torch.relu(x)"))
    assert "torch.guessed-rank" in [finding.code for finding in torchscript.read(Artifact.open(tmp_path / "net.pt")).findings]
    assert not torchscript.read(Artifact.open(tmp_path / "net.pt"), input_shapes={"x": (-1, 3)}).findings


def test_a_stated_shape_reaches_the_proof(tmp_path, monkeypatch):
    """Only a matrix of two axes goes through, which nothing but the caller says."""
    monkeypatch.setattr("isomorph.runtime.has_native", lambda name: name == "onnx")
    (tmp_path / "net.pt").write_bytes(script("y = torch.t(x)\nreturn torch.matmul(y, x)"))
    report = isomorph.convert(tmp_path / "net.pt", tmp_path / "net.onnx", input_shapes={"x": (-1, 3)})
    assert report.facts["verified"] == "re-read"
    assert report.facts["outputs"][0]["shape"] == [3, 3]


def test_a_layer(tmp_path):
    (y,) = run(tmp_path, "w = self.w\nreturn torch.relu(torch.linear(x, w))", {"x": X})
    np.testing.assert_allclose(y, np.maximum(X @ VALUES.T, 0), rtol=1e-6)


def test_known_branches_loops_and_functions(tmp_path):
    body = "if torch.eq(torch.dim(x), 2):\n  y = __torch__.twice(x, self.size)\nelse:\n  y = x\nfor i in range(3):\n  y = torch.add(y, i)\nreturn y"
    (y,) = run(tmp_path, body, {"x": X}, functions="def twice(x: Tensor,\n    n: int=2) -> Tensor:\n  return torch.mul(x, n)\n")
    np.testing.assert_allclose(y, X * 3 + 3)


@pytest.mark.parametrize("sign", [1, -1])
def test_a_branch_on_a_value(tmp_path, sign):
    body = "if bool(torch.gt(torch.sum(x), 0)):\n  y, n = torch.neg(x), 2\nelse:\n  y, n = torch.mul(x, x), 3\nreturn torch.mul(y, n)"
    (y,) = run(tmp_path, body, {"x": sign * X})
    np.testing.assert_allclose(y, -X * 2 if sign > 0 else X * X * 3)


@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_loop_over_a_size_of_the_run(tmp_path, rows):
    body = "y = torch.zeros([3])\nn = torch.size(x, 0)\nfor i in range(n):\n  y = torch.add(torch.mul(y, 2), torch.select(x, 0, i))\nreturn y"
    x = np.arange(rows * 3, dtype=np.float32).reshape(rows, 3)
    (y,) = run(tmp_path, body, {"x": x})
    np.testing.assert_allclose(y, sum(row * 2 ** (rows - 1 - place) for place, row in enumerate(x)))


def test_a_loop_until_a_value_is_large_collects_what_it_saw(tmp_path):
    body = ("y, seen, n = x, annotate(List[Tensor], []), 0\ngo = bool(torch.lt(torch.sum(y), 100))\nwhile go:\n  _0 = torch.append(seen, y)\n"
            "  y = torch.mul(y, 2)\n"
            "  n = torch.add(n, 1)\n  go = bool(torch.lt(torch.sum(y), 100))\nreturn torch.mul(torch.stack(seen), n)")
    (y,) = run(tmp_path, body, {"x": np.full((1, 3), 4, np.float32)})
    np.testing.assert_allclose(y, 4 * np.float32([4, 8, 16, 32])[:, None, None] * np.ones((1, 3), np.float32))


def test_a_loop_whose_value_grows_has_an_open_size(tmp_path):
    body = "y = x\nfor i in range(int(torch.sum(x))):\n  y = torch.cat([y, x])\nreturn y"
    (y,) = run(tmp_path, body, {"x": np.ones((1, 3), np.float32)})
    assert y.shape == (4, 3)


@pytest.mark.parametrize("body", ["for i in range(torch.size(x, 0)):\n  y = torch.add_(x, 1)\nreturn x",
                                  "y = x\nfor i in range(torch.size(x, 0)):\n  y = torch.unsqueeze(y, 0)\nreturn y",
                                  "z = [x]\nfor i in range(torch.size(x, 0)):\n  _0 = torch.append(z, x)\nreturn torch.stack(z)"])
def test_what_no_loop_of_onnx_carries_is_refused(tmp_path, body):
    with pytest.raises(Unsupported) as refused:
        run(tmp_path, body, {"x": X})
    assert "before the run" in refused.value.blockers[0][2]


def test_writes_in_place_reach_what_they_are_views_of(tmp_path):
    body = "y = torch.clone(x)\nz = torch.slice(y, 1, 1, 3)\n_0 = torch.mul_(z, 10)\n"
    body += "_1 = torch.copy_(torch.select(y, 1, 0), torch.select(x, 1, 2))\nreturn torch.add(y, 0)"
    (y,) = run(tmp_path, body, {"x": X})
    np.testing.assert_allclose(y, np.stack([X[:, 2], X[:, 1] * 10, X[:, 2] * 10], 1))


def test_what_a_module_assigns_to_itself_is_a_state(tmp_path):
    body = "self.w = torch.add(self.w, torch.sum(x))\nreturn torch.mul(self.w, 2)"
    first, state = run(tmp_path, body, {"x": X, "w": VALUES})
    np.testing.assert_allclose(state, VALUES + X.sum(), rtol=1e-6)
    np.testing.assert_allclose(first, state * 2)


def test_ranks_are_tried_until_the_program_takes_them():
    body = 'if torch.ne(torch.dim(x), 3):\n  ops.prim.RaiseException("three axes", "builtins.ValueError")\nelse:\n  pass\nreturn torch.relu(x)'
    model = torchscript.read(Artifact.open(script(body)))
    assert len(model.graph.inputs[0].shape) == 3


def test_every_call_without_a_mapping_is_named(tmp_path):
    (tmp_path / "net.pt").write_bytes(script("y = torch.geqrf(x)\nz = ops.library.secret(x)\nreturn torch.add(torch.relu(y), z)"))
    with pytest.raises(Unsupported) as caught:
        isomorph.convert(tmp_path / "net.pt", tmp_path / "net.onnx", verify=False, input_shapes={"x": (3, 3)})
    assert [blocker[0] for blocker in caught.value.blockers] == ["aten::geqrf", "library::secret"]
    assert isomorph.inspect(tmp_path / "net.pt").facts["metadata"]["class"] == "__torch__.Net"


@pytest.mark.parametrize("body", ["while True:\n  x = torch.relu(x)\nreturn x", "for i in range(100000000):\n  x = torch.relu(x)\nreturn x",
                                  "return __torch__.again(x)", "import os\nreturn x", "return (lambda: x)()", "return x[torch.size(x, 0)]"])
def test_programs_without_end_or_of_another_grammar_are_refused(tmp_path, body):
    (tmp_path / "net.pt").write_bytes(script(body, functions="def again(x: Tensor) -> Tensor:\n  return __torch__.again(x)\n"))
    with pytest.raises(Unsupported):
        isomorph.convert(tmp_path / "net.pt", tmp_path / "net.onnx", verify=False, input_shapes={"x": (2, 2)})


def test_code_that_cannot_be_parsed_is_damage():
    with pytest.raises(Damaged, match="cannot be parsed"):
        torchscript.read(Artifact.open(script("return (")))


def test_a_source_that_no_runtime_runs_is_not_called_proven(tmp_path, monkeypatch):
    """Both sides came from our own mapping: that proves what was written, not what was understood."""
    monkeypatch.setattr("isomorph.runtime.has_native", lambda name: name == "onnx")
    (tmp_path / "net.pt").write_bytes(script("return torch.relu(x)"))
    assert isomorph.convert(tmp_path / "net.pt", tmp_path / "net.onnx").facts["verified"] == "re-read"

"""An exported program written by hand: read as a graph, with what stands beside it told and never loaded."""
from __future__ import annotations

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

import isomorph
from isomorph.artifact import Artifact
from isomorph.errors import Damaged, Unsafe, Unsupported
from isomorph.formats import torch_export
from isomorph.report import Severity

GOLDEN = Path(__file__).parents[1] / "golden" / "exported_programs"
WEIGHT = np.arange(6, dtype=np.float32).reshape(2, 3)
META = {"dtype": 7, "sizes": [{"as_int": 2}, {"as_int": 3}], "strides": [{"as_int": 3}, {"as_int": 1}], "storage_offset": {"as_int": 0}, "layout": 7}
CONFIG = {"w": {"path_name": "weight_0", "is_param": True, "use_pickle": False, "tensor_meta": META}}


def tensor(name: str) -> dict:
    return {"as_tensor": {"name": name}}


def node(target: str, args: list, output: str) -> dict:
    return {"target": target, "inputs": [{"name": "x", "arg": arg, "kind": 1} for arg in args], "outputs": [tensor(output)], "metadata": {}}


def program(nodes: list, output: str = "y") -> dict:
    sizes = [{"as_expr": {"expr_str": "Symbol('s7', positive=True, integer=True)"}}, {"as_int": 3}]
    signature = {"input_specs": [{"parameter": {"arg": {"name": "p_w"}, "parameter_name": "w"}}, {"user_input": {"arg": tensor("x")}}],
                 "output_specs": [{"user_output": {"arg": tensor(output)}}]}
    return {"graph_module": {"graph": {"inputs": [], "outputs": [tensor(output)], "nodes": nodes, "tensor_values": {"x": META | {"sizes": sizes}}},
                             "signature": signature}}


LINEAR = program([node("torch.ops.aten.linear.default", [tensor("x"), tensor("p_w")], "z"), node("torch.ops.aten.relu.default", [tensor("z")], "y")])


def package(document: dict, config: dict = CONFIG, data: bytes = WEIGHT.tobytes(), **more: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in {"m/archive_format": b"pt2", "m/archive_version": b"0", "m/models/model.json": json.dumps(document).encode(),
                              "m/data/weights/model_weights_config.json": json.dumps({"config": config}).encode(), "m/data/weights/weight_0": data,
                              **{name.replace("__", "/").replace("_pt", ".pt"): content for name, content in more.items()}}.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def test_the_graph_and_its_symbols(tmp_path):
    (tmp_path / "m.pt2").write_bytes(package(LINEAR))
    isomorph.convert(tmp_path / "m.pt2", tmp_path / "m.onnx", verify=False)
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx")
    assert session.get_inputs()[0].shape == ["s7", 3]
    x = np.array([[1, -2, 3], [-1, 0, -1]], np.float32)
    np.testing.assert_allclose(session.run(None, {"x": x})[0], np.maximum(x @ WEIGHT.T, 0))


@pytest.mark.parametrize("path", sorted(GOLDEN.glob("*.pt2")), ids=lambda path: path.stem)
def test_programs_of_every_release_give_what_pytorch_gave(path, tmp_path):
    """Written by PyTorch 2.1 to 2.8, each of another layout; what the module gives stands beside them."""
    isomorph.convert(path, tmp_path / "m.onnx", verify=False)
    session, arrays = onnxruntime.InferenceSession(tmp_path / "m.onnx"), np.load(path.with_suffix(".npz"))
    free = [value for value in session.get_inputs() if not value.name.endswith("seen")]
    feeds = {value.name: arrays[f"in{place}"] for place, value in enumerate(free)}
    states = {value.name: np.zeros(1, np.float32) for value in session.get_inputs() if value not in free}
    found = dict(zip([value.name for value in session.get_outputs()], session.run(None, feeds | states), strict=True))
    results = [found.pop(name) for name in list(found) if not name.endswith("/next")]
    assert len(results) == sum(name.startswith("out") for name in arrays)
    for place, result in enumerate(results):
        np.testing.assert_allclose(result, arrays[f"out{place}"], atol=1e-6)
    for state in found.values():
        np.testing.assert_allclose(state, [arrays["in0"].sum()], atol=1e-6)
    if path.stem.startswith("net"):
        (batch, *_), (other, *_) = (value.shape for value in free)
        assert isinstance(batch, str)
        assert batch == other


def test_a_pickle_in_the_sample_inputs_is_told_and_not_run():
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("a/data.pkl", b"cposix\nsystem\n(Vmarker\ntR.")
    model = torch_export.read(Artifact.open(package(LINEAR, m__data__sample_inputs__model_pt=inner.getvalue())))
    assert "blockers" not in model.metadata
    assert ("pickle.call", "posix.system" in model.findings[0].message) == (model.findings[0].code, True)


def test_every_operator_without_a_mapping_is_named():
    document = program([node("torch.ops.aten.geqrf.default", [tensor("x")], "a"), node("torch.ops.library.secret.default", [tensor("a")], "y")])
    blockers = torch_export.read(Artifact.open(package(document))).metadata["blockers"]
    assert [blocker[0] for blocker in blockers] == ["aten::geqrf", "torch.ops.library.secret.default"]


@pytest.mark.parametrize(("config", "data"), [(CONFIG, b"\0" * 20), ({"w": CONFIG["w"] | {"path_name": "../x"}}, WEIGHT.tobytes()),
                                              ({"w": CONFIG["w"] | {"tensor_meta": META | {"dtype": 99}}}, WEIGHT.tobytes()),
                                              ({"w": CONFIG["w"] | {"tensor_meta": META | {"sizes": [{"as_int": -1}, {"as_int": 3}]}}}, WEIGHT.tobytes())])
def test_weights_that_lie_are_damage(config, data):
    with pytest.raises(Damaged):
        torch_export.read(Artifact.open(package(LINEAR, config, data)))


def test_an_object_that_only_a_pickle_holds_is_not_loaded():
    model = torch_export.read(Artifact.open(package(LINEAR, {"w": CONFIG["w"] | {"use_pickle": True}})))
    assert "torch_export.not-loaded" in {finding.code for finding in model.findings}
    assert model.metadata["blockers"][0][0] == "w"


def test_many_pickles_have_one_budget():
    """Each is within it, and the archive holds any number of them."""
    flood = io.BytesIO()
    with zipfile.ZipFile(flood, "w") as archive:
        archive.writestr("a/data.pkl", b"\x80\x02}" + b"N0" * 100_000 + b".")
    with pytest.raises(Unsafe, match="together"):
        torch_export.read(Artifact.open(package(LINEAR, **{f"m__data__weights__{number}_pt": flood.getvalue() for number in range(40)})))


def test_native_code_beside_a_program_is_named_and_left_alone():
    data = io.BytesIO(package(LINEAR))
    with zipfile.ZipFile(data, "a") as archive:
        archive.writestr("m/data/aotinductor/model/x.so", b"\x7fELF")
    artifact = Artifact.open(data.getvalue())
    assert torch_export.identify(artifact).flavour == "exported program and AOTInductor package"
    found = {finding.code: finding for finding in torch_export.read(artifact).findings}
    assert found["torch_export.native-code"].severity == Severity.HIGH
    assert "x.so" in found["torch_export.native-code"].message


def test_compiled_code_alone_is_no_program():
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("m/archive_format", b"pt2")
        archive.writestr("m/data/aotinductor/model/x.so", b"\x7fELF")
    with pytest.raises(Unsupported, match="compiled code"):
        torch_export.read(Artifact.open(buffer.getvalue()))

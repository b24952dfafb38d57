"""Plans and conversions: what is promised is what is done, and what cannot be done is said in full."""
from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys

import numpy as np
import onnx
import pytest
from networks import DIGITS, changed_digits, save
from onnx import TensorProto, helper

import isomorph
from isomorph.errors import Mismatch, NotRecognised, Unsupported, Usage
from isomorph.formats import _table

FLOAT = TensorProto.FLOAT


def test_a_plan_writes_nothing_and_names_everything(tmp_path):
    before = hashlib.sha256(DIGITS.read_bytes()).hexdigest()
    made = isomorph.plan(DIGITS, to="tflite")
    assert made.possible
    assert made.operators["Conv"] == 2
    assert made.result_operators["CONV_2D"] == 2
    assert [step.name for step in made.steps] == ["read", "to onnx", "to tflite", "write"]
    document = json.loads(json.dumps(made.to_json()))
    assert (document["to"], document["possible"], document["blockers"]) == ("tflite", True, [])
    report = made.run(tmp_path / "digits.tflite")
    assert report.facts["verified"] == "native"
    assert made.bytes == pytest.approx(report.facts["destination"]["bytes"], rel=0.1)
    assert hashlib.sha256(DIGITS.read_bytes()).hexdigest() == before
    assert os.listdir(tmp_path) == ["digits.tflite"]


def test_every_obstacle_is_named_at_once(tmp_path):
    nodes = [helper.make_node("Frob", ["x"], ["a"], "first", domain="com.example"), helper.make_node("Grob", ["a"], ["b"], "second", domain="com.example"),
             helper.make_node("Frob", ["b"], ["y"], "third", domain="com.example")]
    path = save(tmp_path / "custom.onnx", nodes, [("x", FLOAT, [2])], [("y", FLOAT, [2])])
    model = onnx.load(path)
    model.opset_import.append(helper.make_opsetid("com.example", 1))
    onnx.save(model, path)
    made = isomorph.plan(path, to="tflite")
    assert sorted(where for _, where, _ in made.blockers) == ["first", "second", "third"]
    with pytest.raises(Unsupported, match=r"3 obstacles .*Frob x 2.*Grob") as error:
        isomorph.convert(path, tmp_path / "custom.tflite")
    assert len(error.value.to_json()["blockers"]) == 3
    assert not (tmp_path / "custom.tflite").exists()


def test_a_conversion_reports_every_output(tmp_path):
    report = isomorph.convert(DIGITS, tmp_path / "digits.tflite")
    (output,) = report.facts["outputs"]
    assert {"name", "max_abs", "max_rel", "range", "snr_db", "top1", "runtime", "proof"} <= output.keys()
    assert (output["name"], output["proof"], output["passed"], output["top1"]) == ("probabilities", "native", True, 1.0)
    assert output["runtime"].startswith("LiteRT")
    assert 0 < output["max_abs"] < 1e-5
    json.dumps(report.to_json(), allow_nan=False)


def test_the_format_comes_from_the_suffix_or_from_to(tmp_path):
    isomorph.convert(DIGITS, tmp_path / "model.bin", to="onnx", verify=False)
    assert isomorph.identify(tmp_path / "model.bin").format == "onnx"
    with pytest.raises(Usage, match="does not say its format"):
        isomorph.convert(DIGITS, tmp_path / "model.frob")
    with pytest.raises(Usage, match="no format is called"):
        isomorph.convert(DIGITS, tmp_path / "model.frob", to="frob")


def test_nothing_is_replaced_unless_forced(tmp_path):
    target = tmp_path / "digits.onnx"
    target.write_text("precious")
    with pytest.raises(Usage, match="exists already"):
        isomorph.convert(DIGITS, target)
    assert target.read_text() == "precious"
    isomorph.convert(DIGITS, target, force=True, verify=False)
    assert isomorph.identify(target).format == "onnx"


def test_the_source_is_never_written_to(tmp_path):
    source = tmp_path / "digits.onnx"
    source.write_bytes(DIGITS.read_bytes())
    os.symlink(source, tmp_path / "other.onnx")
    for target in (source, tmp_path / "other.onnx"):
        with pytest.raises(Usage, match="never written to"):
            isomorph.convert(source, target, force=True)
    assert source.read_bytes() == DIGITS.read_bytes()


def test_options_reach_the_writer_or_are_refused(tmp_path):
    isomorph.convert(DIGITS, tmp_path / "old.onnx", opset=13)
    assert isomorph.inspect(tmp_path / "old.onnx").facts["opsets"][""] == 13
    with pytest.raises(Usage, match="takes no --opset"):
        isomorph.convert(DIGITS, tmp_path / "digits.tflite", opset=13)
    isomorph.convert(DIGITS, tmp_path / "apart.onnx", external_data=True)
    assert isomorph.identify(tmp_path / "apart.onnx").flavour == "external data"


def test_input_shapes_fix_a_symbol_everywhere(tmp_path):
    isomorph.convert(DIGITS, tmp_path / "four.onnx", input_shapes={"image": (4, 1, 8, 8)})
    facts = isomorph.inspect(tmp_path / "four.onnx").facts
    assert facts["inputs"][0]["shape"] == [4, 1, 8, 8]
    assert facts["outputs"][0]["shape"] == [4, 10]
    with pytest.raises(Usage, match="cannot have the shape"):
        isomorph.plan(DIGITS, to="onnx", input_shapes={"image": (4, 3, 8, 8)})
    with pytest.raises(Usage, match="no input is named 'picture'"):
        isomorph.plan(DIGITS, to="onnx", input_shapes={"picture": (4, 1, 8, 8)})


def test_provenance(tmp_path):
    isomorph.convert(DIGITS, tmp_path / "digits.tflite", provenance=True)
    told = json.loads((tmp_path / "digits.tflite.provenance.json").read_text())
    assert told["source"]["sha256"] == hashlib.sha256(DIGITS.read_bytes()).hexdigest()
    assert told["destination"]["sha256"] == hashlib.sha256((tmp_path / "digits.tflite").read_bytes()).hexdigest()
    assert told["verified"] == "native"
    assert told["isomorph"] == isomorph.__version__


def test_a_wrong_writer_is_found_out(tmp_path, monkeypatch):
    """The proof is worth nothing unless it fails when the writer is wrong."""
    form = _table.get("onnx")

    def wrong(model, path, **options):
        changed_digits(path, "weight")
        return isomorph.Report(str(path))
    monkeypatch.setattr(_table, "get", lambda name: form if name != "wrong" else type(form)(**{**vars(form), "write": wrong}))
    with pytest.raises(Mismatch, match="probabilities") as error:
        isomorph.convert(DIGITS, tmp_path / "wrong.onnx", to="wrong")
    assert error.value.report.facts["outputs"][0]["passed"] is False


def test_what_is_no_model_is_not_converted(tmp_path):
    (tmp_path / "noise.onnx").write_bytes(np.random.default_rng(0).bytes(1000))
    with pytest.raises(NotRecognised):
        isomorph.plan(tmp_path / "noise.onnx", to="tflite")


@pytest.mark.parametrize("to", ["tflite", "saved_model", "torchscript"])
def test_the_same_source_makes_the_same_bytes(to, tmp_path):
    """In another process too, with other addresses: a network with branches, whose bodies read what stands outside."""
    inner = [helper.make_graph([helper.make_node(operator, ["x", "w"], [f"{operator}_y"])], operator, [],
                               [helper.make_tensor_value_info(f"{operator}_y", TensorProto.FLOAT, [2, 3])]) for operator in ("Add", "Mul")]
    nodes = [helper.make_node("If", ["c"], ["y"], then_branch=inner[0], else_branch=inner[1]), helper.make_node("Add", ["y", "w"], ["z"])]
    path = save(tmp_path / "if.onnx", nodes, [("c", TensorProto.BOOL, []), ("x", TensorProto.FLOAT, [2, 3])], [("z", TensorProto.FLOAT, [2, 3])],
                         {"w": np.arange(3, dtype=np.float32)})
    made = []
    for turn in range(2):
        folder = tmp_path / str(turn)
        folder.mkdir()
        call = f"isomorph.convert({str(path)!r}, {str(folder / 'out')!r}, to={to!r}, verify=False)"
        code = f"ballast = [object() for _ in range({turn * 10_000})]; import isomorph; {call}"
        subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | {"PYTHONHASHSEED": str(turn), "PYTHONPATH": os.pathsep.join(sys.path)})
        made.append({file.relative_to(folder): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()})
    assert made[0] == made[1]

"""GraphModels of TensorFlow.js made by hand: fused layers, functions, quantised weights, old files without a signature, and every lie in a model.json."""
from __future__ import annotations

import base64
import copy
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from golden_files import unpacked

import isomorph
from isomorph.artifact import Artifact
from isomorph.errors import Damaged, IsomorphError, Missing, Unsafe, Usage
from isomorph.formats import _table
from isomorph.formats._tf_tensors import schema
from isomorph.runtime.session import Session
from isomorph.wire import protobuf, protobuf_json
from isomorph.wire.limits import DEFAULT

FLOAT = {"type": "DT_FLOAT"}
WEIGHT, BIAS = np.arange(6, dtype=np.float32).reshape(3, 2) - 2, np.array([0.5, -0.5], np.float32)


def constant(name: str, array: np.ndarray) -> dict[str, Any]:
    dims = [{"size": str(size)} for size in array.shape]
    return {"name": name, "op": "Const", "attr": {"dtype": FLOAT, "value": {"tensor": {"dtype": "DT_FLOAT", "tensorShape": {"dim": dims}}}}}


def dense() -> dict[str, Any]:
    """One fused layer: x times a matrix, a bias, an activation."""
    shape = {"shape": {"dim": [{"size": "-1"}, {"size": "3"}]}}
    words = [base64.b64encode(word).decode() for word in (b"BiasAdd", b"Relu")]
    nodes = [{"name": "x", "op": "Placeholder", "attr": {"dtype": FLOAT, "shape": shape}}, constant("w", WEIGHT), constant("b", BIAS),
             {"name": "y", "op": "_FusedMatMul", "input": ["x", "w", "b"],
              "attr": {"T": FLOAT, "transpose_a": {"b": False}, "transpose_b": {"b": False}, "num_args": {"i": "1"}, "epsilon": {"f": 0},
                       "fused_ops": {"list": {"s": words}}}}]
    weights = [{"name": "w", "shape": [3, 2], "dtype": "float32"}, {"name": "b", "shape": [2], "dtype": "float32"}]
    return {"format": "graph-model", "modelTopology": {"node": nodes, "versions": {"producer": 1}},
            "signature": {"inputs": {"x": {"name": "x:0", "dtype": "DT_FLOAT"}}, "outputs": {"y": {"name": "y:0", "dtype": "DT_FLOAT"}}},
            "weightsManifest": [{"paths": ["one.bin"], "weights": weights}]}


def laid(folder: Path, document: Any, data: bytes | None = None) -> Path:
    (folder / "one.bin").write_bytes(WEIGHT.tobytes() + BIAS.tobytes() if data is None else data)
    (folder / "model.json").write_text(json.dumps(document))
    return folder / "model.json"


def run(path: Path, feeds: dict[str, np.ndarray], folder: Path) -> dict[str, np.ndarray]:
    isomorph.convert(path, folder / "out.onnx", verify=False, force=True)
    onnx.checker.check_model(folder / "out.onnx", full_check=True)
    with Session(folder / "out.onnx", "onnx") as session:
        return session.run(feeds)


X = np.array([[1, 2, 3], [-1, 0.5, 0]], np.float32)


def test_a_fused_layer(tmp_path: Path) -> None:
    got = run(laid(tmp_path, dense()), {"x": X}, tmp_path)
    np.testing.assert_allclose(got["y"], np.maximum(X @ WEIGHT + BIAS, 0), rtol=1e-6)


def test_a_file_without_a_signature(tmp_path: Path) -> None:
    document = dense()
    del document["signature"], document["format"]
    got = run(laid(tmp_path, document), {"x": X}, tmp_path)
    np.testing.assert_allclose(got["y"], np.maximum(X @ WEIGHT + BIAS, 0), rtol=1e-6)


def test_quantised_weights(tmp_path: Path) -> None:
    """value = stored * scale + min"""
    document = dense()
    document["weightsManifest"][0]["weights"][0]["quantization"] = {"dtype": "uint8", "scale": 0.5, "min": -2.0, "original_dtype": "float32"}
    stored = np.array([0, 1, 2, 4, 8, 255], np.uint8)
    got = run(laid(tmp_path, document, stored.tobytes() + BIAS.tobytes()), {"x": X}, tmp_path)
    np.testing.assert_allclose(got["y"], np.maximum(X @ (stored.reshape(3, 2) * np.float32(0.5) - 2) + BIAS, 0), rtol=1e-6)


@pytest.mark.parametrize("kind", ["INT16", "UINT16", "UINT32", "UINT64"])
def test_types_that_the_runtime_does_not_know_stand_in_the_signature(kind: str, tmp_path: Path) -> None:
    """TensorFlow.js computes them as int32; whoever reads the file gets inputs and outputs of the type that they had."""
    dtype = getattr(onnx.TensorProto, kind)
    ports = [onnx.helper.make_tensor_value_info(name, dtype, [3]) for name in "xyz"]
    graph = onnx.helper.make_graph([onnx.helper.make_node("Add", ["x", "y"], ["z"])], "sum", ports[:2], ports[2:])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 18)], ir_version=9), tmp_path / "sum.onnx")
    isomorph.convert(tmp_path / "sum.onnx", tmp_path / "js" / "model.json", verify=False)
    nodes = json.loads((tmp_path / "js" / "model.json").read_text())["modelTopology"]["node"]
    assert {node["attr"]["dtype"]["type"] for node in nodes if node["op"] == "Placeholder"} == {"DT_INT32"}
    one, two = (np.array(numbers, kind.lower()) for numbers in ([1, 2, 30000], [5, 6, 2000]))
    total = run(tmp_path / "js" / "model.json", {"x": one, "y": two}, tmp_path)["z"]
    assert total.dtype == one.dtype
    np.testing.assert_array_equal(total, one + two)


@pytest.fixture(scope="module")
def tables(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models with tables, as TensorFlow.js' own converter wrote them."""
    return unpacked("tfjs_tables", tmp_path_factory.mktemp("tables"))


@pytest.mark.parametrize("name", ["one", "two"])
def test_tables_are_filled_by_the_second_graph(tables: Path, name: str, tmp_path: Path) -> None:
    """One generation shares a table by the name of its node, the other hands it over by number."""
    found = run(tables / name / "model.json", {"words": np.array(["red", "blue", "none of them"], object)}, tmp_path)
    assert found["number"].tolist() == [3, 2, -1]
    assert found["weight"].tolist() == [4, 3, 1]
    if name == "two":
        assert found["letter"].tolist() == ["r", "b", "none"]
        assert found["size"] == 3


@pytest.mark.parametrize("broken", [lambda document: document.update(modelInitializer={"node": [{"name": "a", "op": "NoOp"}]}),
                                    lambda document: document.update(modelInitializer=[1]),
                                    lambda document: document["initializerSignature"]["outputs"]["Identity:0"].update(name="nothing"),
                                    lambda document: document["signature"]["inputs"]["unknown:0"].update(name="nothing")])
def test_a_table_that_nothing_makes(tables: Path, broken: Any, tmp_path: Path) -> None:
    document = json.loads((tables / "two" / "model.json").read_text())
    broken(document)
    (tables / "two" / "broken.json").write_text(json.dumps(document))
    with pytest.raises(Damaged):
        isomorph.convert(tables / "two" / "broken.json", tmp_path / "out.onnx", verify=False)


def test_constants_of_texts_keep_their_shape(tmp_path: Path) -> None:
    """Compared words of a small table, and a matrix of texts."""
    words = onnx.helper.make_tensor("words", onnx.TensorProto.STRING, [2, 2], [b"a", b"b", b"c", b"d"])
    node = onnx.helper.make_node("Gather", ["words", "x"], ["y"], axis=1)
    graph = onnx.helper.make_graph([node], "g", [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.INT64, [3])],
                                   [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.STRING, [2, 3])], [words])
    onnx.save(onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 21)], ir_version=10), tmp_path / "words.onnx")
    isomorph.convert(tmp_path / "words.onnx", tmp_path / "js", to="tfjs_graph", verify=False)
    assert run(tmp_path / "js", {"x": np.array([1, 0, 1])}, tmp_path)["y"].tolist() == [["b", "a", "b"], ["d", "c", "d"]]


def test_written_shards_are_those_of_the_manifest(tmp_path: Path) -> None:
    isomorph.convert(laid(tmp_path, dense()), tmp_path / "again" / "model.json", verify=False)
    document = json.loads((tmp_path / "again" / "model.json").read_text())
    assert sorted(path.name for path in (tmp_path / "again").iterdir()) == ["group1-shard1of1.bin", "model.json"]
    assert {node["op"] for node in document["modelTopology"]["node"]} == {"Placeholder", "Const", "_FusedMatMul"}
    np.testing.assert_allclose(run(tmp_path / "again" / "model.json", {"x": X}, tmp_path)["y"], np.maximum(X @ WEIGHT + BIAS, 0), rtol=1e-6)
    with pytest.raises(Usage, match="exists"):
        isomorph.convert(tmp_path / "model.json", tmp_path / "again" / "model.json", verify=False)


def test_nothing_is_left_where_writing_fails(tmp_path: Path) -> None:
    form = _table.get("tfjs_graph")
    model = form.read(Artifact.open(laid(tmp_path, dense())))
    with pytest.raises(Usage):
        form.write(model, tmp_path / "new" / "model.json", dtype="int3")
    assert not (tmp_path / "new").exists()


def changed(path: str, value: Any) -> dict[str, Any]:
    document = copy.deepcopy(dense())
    place: Any = document
    *steps, last = path.split("/")
    for step in steps:
        place = place[int(step) if isinstance(place, list) else step]
    place[int(last) if isinstance(place, list) else last] = value
    return document


NODE = "modelTopology/node/3"


@pytest.mark.parametrize(("document", "error"), [
    ([], Damaged), (changed("modelTopology", []), Damaged), (changed("modelTopology/node", {}), Damaged), (changed("modelTopology/node/0", 3), Damaged),
    (changed(f"{NODE}/input", "x"), Damaged), (changed(f"{NODE}/input", ["x", "w", "missing"]), Damaged), (changed(f"{NODE}/input", ["y", "w", "b"]), Damaged),
    (changed(f"{NODE}/name", "w"), Damaged), (changed(f"{NODE}/name", 7), Damaged), (changed(f"{NODE}/attr", []), Damaged),
    (changed(f"{NODE}/attr/num_args", {"i": "many"}), Damaged), (changed(f"{NODE}/attr/num_args", {"i": str(1 << 80)}), Damaged),
    (changed(f"{NODE}/attr/fused_ops", {"list": {"s": [5]}}), Damaged), (changed(f"{NODE}/attr/T", {"type": "DT_NOTHING"}), Damaged),
    (changed("modelTopology/node/1/attr/value/tensor/tensorShape/dim", [{"size": "9"}]), Damaged), (changed("modelTopology/node/1/attr", {}), Damaged),
    (changed("signature/outputs/y/name", "nothing:0"), Damaged), (changed("signature/outputs/y/name", "y:7"), Damaged),
    (changed("signature/inputs/x/name", "nothing"), Damaged), (changed("weightsManifest", None), Damaged),
    (changed("weightsManifest/0/paths", ["two.bin"]), Missing), (changed("weightsManifest/0/paths", ["../one.bin"]), Unsafe),
    (changed("weightsManifest/0/paths", ["/etc/hostname"]), Unsafe), (changed("weightsManifest/0/weights/0/shape", [300, 2]), Damaged),
    (changed("weightsManifest/0/weights/0/shape", [3]), Damaged),
])
def test_lies_are_errors_of_ours(document: Any, error: type[IsomorphError], tmp_path: Path) -> None:
    with pytest.raises(error):
        _table.get("tfjs_graph").read(Artifact.open(laid(tmp_path, document)))


@pytest.mark.parametrize("length", [0, 1, 31])
def test_a_shard_that_is_cut_off(length: int, tmp_path: Path) -> None:
    with pytest.raises(Damaged, match="download or copy"):
        _table.get("tfjs_graph").read(Artifact.open(laid(tmp_path, dense(), bytes(length))))


def test_json_beyond_the_limits(tmp_path: Path) -> None:
    path = laid(tmp_path, dense())
    with pytest.raises(Unsafe, match="json_bytes"):
        _table.get("tfjs_graph").read(Artifact.open(path, replace(DEFAULT, json_bytes=100)))
    path.write_text('{"modelTopology":' + '{"node":[' * 5000 + "]}" * 5000 + "}")
    with pytest.raises(IsomorphError):
        _table.get("tfjs_graph").read(Artifact.open(path))


def test_records_as_json_and_back() -> None:
    kinds = schema()
    attr = kinds["AttrValue"]
    record = kinds["NodeDef"](name="n", op="Op", input=["a", "^b"], attr={
        "bytes": attr(s=b"\x00\xff?"), "wide": attr(i=-(1 << 60)), "real": attr(f=0.5), "odd": attr(f=float("nan")),
        "far": attr(f=float("-inf")), "yes": attr(b=True),
        "kind": attr(type=1), "many": attr(list=kinds["ListValue"](i=[1, 2], s=[b"x"], type=[3])),
        "shape": attr(shape=kinds["TensorShapeProto"](unknown_rank=True))})
    enums = {("AttrValue", "type"): {"DT_FLOAT": 1}, ("ListValue", "type"): {"DT_INT32": 3}}
    text = json.loads(json.dumps(protobuf_json.write(record, enums), allow_nan=False))
    assert text["attr"]["kind"] == {"type": "DT_FLOAT"}
    assert text["attr"]["wide"] == {"i": str(-(1 << 60))}
    assert text["attr"]["shape"] == {"shape": {"unknownRank": True}}
    again = protobuf_json.read(text, kinds["NodeDef"], enums=enums)
    assert protobuf.dumps(again) == protobuf.dumps(record)

"""Every format and flavour as itself, under a wrong name, cut off, damaged, and by no other format."""
from __future__ import annotations

import pickle
import random
import struct
import time
from pathlib import Path

import joblib
import numpy
import pytest
from golden.make_identify import CASES, Case, as_json, core_ml, gguf_file, message, node_def, npy_file, pmml_file, write, zipped
from sklearn.tree import DecisionTreeClassifier
from zoo import catalogue, zoo

from isomorph.artifact import Artifact
from isomorph.errors import Damaged, NotRecognised, Unsafe, Unsupported, Usage
from isomorph.formats import Format, Match, _table, coreml, pmml
from isomorph.identification import identify

FILES = [case for case in CASES if isinstance(case.make(), bytes) and not case.named]
OURS = (NotRecognised, Damaged, Unsafe)
SHARED = next((folder / "shared/data" for folder in Path(__file__).parents if (folder / "shared/data").is_dir()), None)
# Published models: path, format, flavour, version
PUBLISHED = (
    ("mlperf-tiny/ad01.h5", "keras_h5", "model", "2.4.0"),
    ("mlperf-tiny/ad01_fp32.tflite", "tflite", "float32", "3"),
    ("mlperf-tiny/ad01_int8.tflite", "tflite", "int8", "3"),
    ("mlperf-tiny/kws_ref_model.tflite", "tflite", "int8", "3"),
    ("mlperf-tiny/kws_ref_model_float32.tflite", "tflite", "dynamic range int8", "3"),          # whatever its name says
    ("tflite-int8/mobilenet_v2_1.0_224_quant.tflite", "tflite", "uint8", "3"),
    ("tflite-int8/keras_lstm_mnist_ptq.tflite", "tflite", "int8", "3"),
    ("frozen-graphdef/ae0.pb", "graphdef", "frozen", ""),
    ("frozen-graphdef/lstm.pb", "graphdef", "frozen", ""),
    ("rwkv-ggml/tiny-rwkv-4v0-660K-FP16.bin", "ggml", "rwkv", "100"),
    ("rwkv-ggml/tiny-rwkv-4v0-660K-Q5_1.bin", "ggml", "rwkv", "101"),
    ("tfjs-e2e/layers_model", "tfjs_layers", "", ""),
    ("pfa/hipparcos_numerical_10.pfa", "pfa", "JSON", ""),
)
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)
each_file = pytest.mark.parametrize("case", FILES, ids=lambda case: case.id)


@each
def test_as_itself(case: Case, tmp_path: Path) -> None:
    (row,) = identify([write(case, tmp_path)])
    assert "error" not in row
    assert row["format"] == case.format
    assert case.flavour in (None, row["flavour"])
    assert case.version in (None, row["version"])
    assert row["detail"] | case.detail == row["detail"]
    assert "truncated" not in row["detail"]
    assert row["bytes"] > 0 or case.format == "empty"


@each_file
@pytest.mark.parametrize("name", ["x", "x.bin", "x.onnx", "x.json", "x.pt", "x.tflite", "x.zip"])
def test_under_a_wrong_name(case: Case, name: str, tmp_path: Path) -> None:
    (row,) = identify([write(case, tmp_path, name)])
    assert row["format"] == case.format


@each
def test_by_no_other_format(case: Case, tmp_path: Path) -> None:
    artifact = Artifact.open(write(case, tmp_path))
    claims = []
    for row in _table.ROWS:
        try:
            claims += [row.name] if not row.last and row.identify(artifact) else []
        except OURS:
            continue
    assert claims in ([case.format], [] if _table.FORMATS[case.format].last else [case.format])


@each_file
def test_cut_off_anywhere(case: Case) -> None:
    data = case.make()
    assert isinstance(data, bytes)
    steps = sorted({*range(0, min(len(data), 200)), *range(0, len(data), max(1, len(data) // 150))})
    start = time.process_time()
    for length in steps:
        looked_at(data[:length])
    assert time.process_time() - start < 0.02 * len(steps) + 1


def looked_at(data: bytes) -> str:
    """What identification says of some bytes; only errors of ours count as an answer."""
    try:
        return _table.identify(Artifact.open(data)).format
    except OURS as error:
        return error.code


def test_mutated_files_raise_only_our_errors() -> None:
    chance = random.Random(20261123)
    seen = set()
    slowest = 0.0
    for case in FILES:
        data = case.make()
        assert isinstance(data, bytes)
        for _ in range(60):
            start = time.process_time()
            seen.add(looked_at(mutated(bytearray(data), chance)))
            slowest = max(slowest, time.process_time() - start)
    assert {case.format for case in FILES} <= seen
    assert "not-recognised" in seen
    assert slowest < 1


def mutated(data: bytearray, chance: random.Random) -> bytes:
    """One to four edits: odd numbers, flips, cuts, repeats; most near the head, where the structure is."""
    for _ in range(chance.randint(1, 4)):
        reach = len(data) if chance.random() < 0.4 else min(64, len(data))
        at = chance.randrange(reach) if reach else 0
        edit = chance.randrange(5)
        if edit == 0:
            data[at:at + 8] = chance.choice([b"\xff" * 8, bytes(8), b"\xff\xff\xff\x7f", (1 << 63).to_bytes(8, "little"), (10**9).to_bytes(4, "little")])
        elif edit == 1 and data:
            data[at % len(data)] ^= 1 << chance.randrange(8)
        elif edit == 2:
            del data[at:at + chance.randint(1, 16)]
        elif edit == 3:
            data[at:at] = data[at:at + chance.randint(1, 40)]
        else:
            data[at:at + 1] = chance.randbytes(chance.randint(0, 3))
    return bytes(data)


def test_nothing_is_recognised_in_other_files(tmp_path: Path) -> None:
    others = {"a.txt": b"Just a few words.\n" * 20, "b.png": b"\x89PNG\r\n\x1a\n" + bytes(100), "c.py": b"import os\nprint(1)\n" * 9,
              "d.bin": random.Random(5).randbytes(3000), "e.onnx": b"\0" * 1000, "f.json": b'{"a": [1, 2, {"b": null}]}'}
    for name, data in others.items():
        (tmp_path / name).write_bytes(data)
        (row,) = identify([tmp_path / name])
        assert row["format"] == "", name
        assert row["error"]["code"] == "not-recognised"
    (row,) = identify([tmp_path])
    assert row["error"]["code"] == "not-recognised"


def framed(header: dict) -> bytes:
    text = as_json(header)
    return struct.pack("<Q", len(text)) + text + bytes(4)


# What resembles a format but breaks one of its rules: (the format it must not be, the file)
NEAR_MISSES = (
    ("graphdef", message((1, node_def("x", "Relu")), (1, message((1, "y"), (2, "not an operator"))))),
    ("graphdef", message((1, node_def("x", "Relu")), (9, "no field of a graph"))),
    ("coreml", message((1, 4), (2, message((1, "x"))), (7, "no field of a model"), (500, b""))),
    ("coreml", message((1, 4), (2, message((1, "x"))), (499, b""))),
    ("onnx", message((1, 8), (2, "maker"), (7, message((1, message((1, 5))))), (8, message((2, 17))))),
    ("onnx", message((1, 8), (2, "maker"), (7, message((3, "no field of a graph"))), (8, message((2, 17))))),
    ("saved_model", message((1, 1), (2, message((1, "no meta graph"))))),
    ("pfa", as_json({"input": "int", "output": "int", "action": [], "surprise": 1})),
    ("pfa", as_json({"input": "int", "output": "int"})),
    ("safetensors", framed({"a": {"dtype": "F99", "shape": [1], "data_offsets": [0, 4]}})),
    ("safetensors", framed({"a": {"dtype": "F32", "shape": [-1], "data_offsets": [0, 4]}})),
    ("npz", zipped({"a.npy": npy_file(), "b.txt": b"hello"})),
    ("npz", zipped({"a.npy": b"not an array"})),
    ("caffe2", b'op { type: "Conv" input: "x" }\nnode { op: "Relu" }\n'),
    ("mxnet", as_json({"nodes": [{"op": 5, "name": "x"}], "arg_nodes": [], "heads": []})),
    ("tfjs_graph", as_json({"format": "graph-model", "modelTopology": []})),
    ("keras", zipped({"config.json": b"{}", "metadata.json": b"{}"})),
    ("xgboost", as_json({"learner": "none"})),
    ("gguf", b"GGUF" + bytes(20)),
    ("torchscript", zipped({"a/code/x.py": b"", "a/constants.pkl": b"."})),
    ("pmml", b"<?xml version='1.0'?><PMMLs version='4.4'/>"),
    ("darknet", b"[section]\nkey=value\n[net]\n"),
    ("lightgbm", b"tree of words\nversion=v4\n"),
)


@pytest.mark.parametrize(("form", "data"), NEAR_MISSES, ids=[f"{form}-{index}" for index, (form, _) in enumerate(NEAR_MISSES)])
def test_near_misses(form: str, data: bytes) -> None:
    assert looked_at(data) in ("not-recognised", "archive")
    artifact = Artifact.open(data)
    assert _table.FORMATS[form].identify(artifact) is None


def test_a_missing_file_is_a_row_too(tmp_path: Path) -> None:
    (row,) = identify([tmp_path / "absent"])
    assert row["error"]["exit_code"] == 3


def test_every_row_is_covered_by_a_case() -> None:
    assert {case.format for case in CASES} == set(_table.FORMATS)


def test_a_folder_lists_its_models_and_leaves_out_companions(tmp_path: Path) -> None:
    made = {case.make.__name__: case for case in CASES}
    for name in ("onnx_external", "safetensors_index", "openvino", "saved_model", "hf"):
        write(made[name], tmp_path)
    for name in ("b.onnx.data", "model-00001-of-00002.safetensors", "a.bin", "__init__.py", "notes.txt"):
        (tmp_path / name).write_bytes(b"" if name == "__init__.py" else b"words\n")
    (tmp_path / "deep/er").mkdir(parents=True)
    write(made["gguf_3"], tmp_path / "deep/er")
    (tmp_path / "loop").symlink_to(tmp_path)
    rows = identify([tmp_path])
    assert {(str(Path(row["path"]).relative_to(tmp_path)), row["format"]) for row in rows} == {
        ("b.onnx", "onnx"), ("model.safetensors.index.json", "safetensors"), ("a.xml", "openvino"), ("a", "saved_model"), ("hf", "hf"),
        ("deep/er/a.gguf", "gguf")}


def test_split_files_are_one_model(tmp_path: Path) -> None:
    for number in (1, 2, 3):
        part = gguf_file(3, general__architecture="llama", tokenizer__ggml__model="x", split__no=number - 1, split__count=3)
        (tmp_path / f"m-{number:05d}-of-00003.gguf").write_bytes(part)
    (row,) = identify([tmp_path])
    assert row["path"].endswith("m-00001-of-00003.gguf")
    assert (row["detail"]["part"], row["detail"]["parts"]) == (1, 3)


@pytest.mark.parametrize(("number", "name"), coreml.TYPES.items())
def test_every_type_of_core_ml(number: int, name: str) -> None:
    match = _table.identify(Artifact.open(core_ml(number)))
    assert (match.format, match.flavour) == ("coreml", name)


@pytest.mark.parametrize("model", pmml.MODELS)
def test_every_model_of_pmml(model: str) -> None:
    match = _table.identify(Artifact.open(pmml_file(model)))
    assert (match.format, match.flavour) == ("pmml", model)


def test_text_of_a_file_cannot_steer_the_terminal(tmp_path: Path) -> None:
    hostile = "\x1b[2Jevil\u202e\r\n" + "x" * 5000
    (tmp_path / "a.gguf").write_bytes(gguf_file(3, general__architecture="llama", general__name=hostile))
    (row,) = identify([tmp_path / "a.gguf"])
    name = row["detail"]["name"]
    assert name.isprintable()
    assert name.startswith("\\u001b[2Jevil\\u202e\\u000d\\u000a")
    assert len(name) < 400


@pytest.mark.parametrize(("data", "words"), [
    (b"\x89PNG\r\n\x1a\n" + bytes(9), "PNG"), (bytes(5000), "zero bytes"), (b"Dear all,\n", "plain text"), (b'{"a": 1}', "JSON"), (b"<a/>", "XML"),
    (b"\x7fELF" + bytes(60), "Linux program")])
def test_what_is_not_recognised_is_described(data: bytes, words: str, tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(data)
    (row,) = identify([tmp_path / "model.onnx"])
    assert words in row["error"]["what"]
    assert "its name says ONNX" in row["error"]["hint"]


def test_registry_functions() -> None:
    assert _table.by_extension("a/b.ONNX") == "onnx"
    assert _table.by_extension("x.mlpackage") == "coreml"
    assert _table.by_extension("x.unknown") is None
    assert _table.by_extension("x.ggmlv3.bin") == "ggml"                # the longest extension decides
    assert _table.by_extension("x.ckpt") == "torch"                     # TensorFlow's checkpoints are read only
    with pytest.raises(Usage, match="'onx'"):
        _table.get("onx")
    with pytest.raises(Unsupported, match="TensorRT plan is recognised"):
        _table.get("tensorrt")
    for name, row in _table.FORMATS.items():
        if row.module:
            assert row.load().name == name
            assert row.load().extensions == row.extensions, name


def test_a_plug_in_adds_a_format(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def look(artifact: Artifact) -> Match | None:
        return Match("mine", "1") if artifact.head.startswith(b"MINE") else None
    form = Format("mine", "Mine", (".mine",), "weights", "https://example.org", look)
    entry = type("Entry", (), {"name": "mine", "value": "mine:FORMAT", "load": lambda self: form})()
    monkeypatch.setattr("importlib.metadata.entry_points", lambda group: [entry] if group == "isomorph.formats" else [])
    _table.plugins.cache_clear()
    try:
        (tmp_path / "x").write_bytes(b"MINE, all mine")
        assert identify([tmp_path / "x"])[0]["format"] == "mine"
        assert _table.get("mine") is form
        assert _table.by_extension("x.mine") == "mine"
    finally:
        _table.plugins.cache_clear()


@pytest.mark.parametrize("compress", [0, *(("zlib", 3), ("gzip", 3), ("bz2", 3), ("xz", 3), ("lzma", 3))], ids=str)
def test_models_that_joblib_wrote(compress: int | tuple[str, int], tmp_path: Path) -> None:
    model = DecisionTreeClassifier(max_depth=2).fit([[0.0], [1.0]], [0, 1])
    for value, form in ((model, "sklearn"), ({"model": model, "labels": ["a"]}, "sklearn"), ([1, {"a": numpy.ones(3)}], "joblib")):
        joblib.dump(value, tmp_path / "x", compress=compress)
        (row,) = identify([tmp_path / "x"])
        assert row["format"] == form
        assert row["flavour"].startswith("joblib")


@pytest.mark.parametrize("protocol", range(6))
def test_models_that_pickle_wrote(protocol: int, tmp_path: Path) -> None:
    model = DecisionTreeClassifier(max_depth=2).fit([[0.0], [1.0]], [0, 1])
    (tmp_path / "x").write_bytes(pickle.dumps(model, protocol))
    (row,) = identify([tmp_path / "x"])
    assert (row["format"], row["flavour"]) == ("sklearn", "pickle")
    assert row["detail"]["class"] == "sklearn.tree._classes.DecisionTreeClassifier"


@pytest.mark.skipif(SHARED is None, reason="the folder shared/data with published models does not stand beside the repository")
def test_published_models() -> None:
    rows = {Path(row["path"]).relative_to(SHARED).as_posix(): row for row in identify([SHARED])}
    assert not [row for row in rows.values() if "error" in row]
    for path, form, flavour, version in PUBLISHED:
        row = rows[path]
        assert (row["format"], row["flavour"], row["version"]) == (form, flavour, version), path
    pmml = [row for path, row in rows.items() if path.startswith("pmml/") and path.endswith(".pmml")]
    assert len(pmml) == 25
    assert all(row["format"] == "pmml" and row["flavour"] and row["version"].startswith("4.") for row in pmml)
    assert {row["format"] for path, row in rows.items() if path.endswith(".gz")} == {"archive"}


@pytest.mark.parametrize("name", list(catalogue()["model"]))
def test_models_of_the_zoo(name: str) -> None:
    path = zoo(name)
    (row,) = identify([path])
    expected = {".onnx": "onnx", ".tflite": "tflite", ".safetensors": "safetensors", ".jit": "torchscript", ".pb": "saved_model", ".mlmodel": "coreml",
                ".gguf": "gguf", ".json": "tfjs_graph"}
    assert row["format"] == (catalogue()["model"][name].get("format") or expected[path.suffix])
    assert row["holds"] in ("graph", "weights")

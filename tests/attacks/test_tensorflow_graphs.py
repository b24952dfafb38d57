"""TensorFlow graphs that are meant to harm or to exhaust: what would touch the machine is named and never run, the rest is refused with its reason."""
from __future__ import annotations

import contextlib
import random
import shutil
import tracemalloc
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import isomorph
from isomorph import dialects, runtime
from isomorph.artifact import Artifact
from isomorph.errors import Damaged, IsomorphError, Missing, NotRecognised, Unsafe, Unsupported
from isomorph.formats import _table, saved_model
from isomorph.formats._tf_tensors import encode, schema, shape_record
from isomorph.report import Severity
from isomorph.tensors import array_tensor
from isomorph.verification.subject import Subject
from isomorph.wire import protobuf
from isomorph.wire.tf_operators import TYPES

KINDS = schema()
ROUNDS = 300


def attr(**field: Any) -> Any:
    return KINDS["AttrValue"](**field)


FLOAT = attr(type=TYPES["float"])


def node(name: str, op: str, *inputs: str, **attributes: Any) -> Any:
    return KINDS["NodeDef"](name=name, op=op, input=list(inputs), attr=attributes)


def const(name: str, array: Any) -> Any:
    record = encode(array_tensor(array))
    return node(name, "Const", dtype=attr(type=record.dtype), value=attr(tensor=record))


def call(name: str, function: str, *inputs: str, op: str = "PartitionedCall") -> Any:
    types = attr(list=KINDS["ListValue"](type=[1] * len(inputs)))
    return node(name, op, *inputs, f=attr(func=KINDS["NameAttrList"](name=function)), Tin=types, Tout=types)


def function(name: str, *nodes: Any, result: str) -> Any:
    argument = [KINDS["ArgDef"](name="a", type=1)]
    signature = KINDS["OpDef"](name=name, input_arg=argument, output_arg=[KINDS["ArgDef"](name="r", type=1)])
    return KINDS["FunctionDef"](signature=signature, node_def=list(nodes), ret={"r": result})


X = node("x", "Placeholder", dtype=FLOAT, shape=attr(shape=shape_record((2,))))


def written(folder: Path, *nodes: Any, functions: tuple[Any, ...] = (), output: str = "y:0") -> Path:
    """A SavedModel with these nodes; its signature goes from x to y."""
    graph = KINDS["GraphDef"](node=[X, *nodes], library=KINDS["FunctionDefLibrary"](function=list(functions)))
    info = {name: KINDS["TensorInfo"](name=value, dtype=1) for name, value in (("x", "x:0"), ("y", output))}
    signature = KINDS["SignatureDef"](inputs={"x": info["x"]}, outputs={"y": info["y"]})
    meta = KINDS["MetaGraphDef"](meta_info_def=KINDS["MetaInfoDef"](tags=["serve"]), graph_def=graph, signature_def={"serving_default": signature})
    folder.mkdir(exist_ok=True)
    (folder / "saved_model.pb").write_bytes(protobuf.dumps(KINDS["SavedModel"](saved_model_schema_version=1, meta_graphs=[meta])))
    return folder


def effects(path: Path) -> list[tuple[Severity, str]]:
    return [(finding.severity, finding.message) for finding in saved_model.read(Artifact.open(path)).findings if finding.code == "tf.effect"]


TRIGGER = node("y", "Identity", "x", "^bad", T=FLOAT)


@pytest.mark.parametrize(("op", "severity"), [("WriteFile", Severity.CRITICAL), ("PyFunc", Severity.CRITICAL), ("ReadFile", Severity.HIGH),
                                              ("EagerPyFunc", Severity.CRITICAL), ("MatchingFiles", Severity.HIGH), ("RpcClient", Severity.HIGH)])
def test_operators_with_effects_are_named(op: str, severity: Severity, tmp_path: Path) -> None:
    path = written(tmp_path / "model", const("file", np.asarray("/tmp/file", object)), node("bad", op, "file"), TRIGGER)
    assert [found for found, _ in effects(path)] == [severity]


def test_inside_of_functions_too(tmp_path: Path) -> None:
    hidden = function("f", node("bad", "WriteFile", "a", "a"), node("r", "Identity", "a", "^bad", T=FLOAT), result="r:output:0")
    path = written(tmp_path / "model", call("y", "f", "x"), functions=(hidden,))
    ((severity, _),) = effects(path)
    assert severity == Severity.CRITICAL


def test_inside_of_graphs_in_constants_too(tmp_path: Path) -> None:
    inner = KINDS["GraphDef"](node=[const("file", np.asarray("/tmp/file", object)), node("bad", "WriteFile", "file", "file")])
    outer = KINDS["GraphDef"](node=[const("text", np.asarray(protobuf.dumps(inner), object))])
    path = written(tmp_path / "model", const("text", np.asarray(protobuf.dumps(outer), object)), node("y", "Identity", "x", T=FLOAT))
    found = effects(path)
    assert [severity for severity, _ in found].count(Severity.CRITICAL) == 1
    assert sum("a constant holds a graph" in message for _, message in found) == 2


def test_a_path_that_the_graph_decides_is_an_effect_and_a_savers_is_not(tmp_path: Path) -> None:
    names = const("names", np.asarray(["w"], object))
    own = written(tmp_path / "own", const("path", np.asarray("/etc/x", object)), names, node("bad", "RestoreV2", "path", "names", "names"), TRIGGER)
    assert [severity for severity, _ in effects(own)] == [Severity.HIGH]
    text = node("path", "Placeholder", dtype=attr(type=TYPES["string"]), shape=attr(shape=shape_record(())))
    savers = written(tmp_path / "saver", text, names, node("bad", "RestoreV2", "path", "names", "names"), node("y", "Identity", "x", T=FLOAT))
    assert effects(savers) == []


def test_what_has_effects_is_not_given_to_tensorflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtime, "has_native", lambda name: name == "saved_model")
    path = written(tmp_path / "model", const("file", np.asarray("/tmp/file", object)), node("bad", "WriteFile", "file", "file"), TRIGGER)
    with Subject(path).session() as (session, proof):
        assert proof == "re-read"
        assert session.runtime.name == "onnxruntime"


@pytest.mark.parametrize(("nodes", "functions", "error", "reason"), [
    ([call("y", "f", "x")], (function("f", call("again", "f", "a"), result="again:output:0"),), Damaged, "calls itself"),
    ([call("y", "f", "x")], (function("f", call("b", "g", "a"), result="b:output:0"), function("g", call("b", "f", "a"), result="b:output:0")), Damaged,
     "calls itself"),
    ([call("y", "missing", "x")], (), Damaged, "does not have"),
    ([node("y", "Neg", "z", T=FLOAT), node("z", "Neg", "y", T=FLOAT)], (), Damaged, "cycle"),
    ([const("w", np.zeros(1, np.float32)), node("y", "Add", "x", "w:3", T=FLOAT)], (), Damaged, "w:3"),
    ([call("y", "f", "x")], (function("f", result="nothing:y:0"),), Damaged, "nothing"),
])
def test_graphs_that_contradict_themselves(nodes: list[Any], functions: tuple[Any, ...], error: type[Exception], reason: str, tmp_path: Path) -> None:
    path = written(tmp_path / "model", *nodes, functions=functions)
    with pytest.raises(error, match=reason):
        dialects.to_hub(saved_model.read(Artifact.open(path)))


def test_functions_that_double_again_and_again(tmp_path: Path) -> None:
    """2^40 nodes from 40 functions."""
    doubling = [function(f"f{level}", call("b", f"f{level + 1}", "a"), call("c", f"f{level + 1}", "b:output:0"), result="c:output:0") for level in range(40)]
    last = function("f40", node("b", "Neg", "a", T=FLOAT), result="b:y:0")
    path = written(tmp_path / "model", call("y", "f0", "x"), functions=(*doubling, last))
    with pytest.raises(Unsafe, match="times what the file holds"):
        dialects.to_hub(saved_model.read(Artifact.open(path)))


def test_constants_that_ask_for_too_much(tmp_path: Path) -> None:
    huge = KINDS["TensorProto"](dtype=1, tensor_shape=shape_record((1 << 30, 1 << 20)), float_val=[1.0])
    path = written(tmp_path / "model", node("w", "Const", dtype=FLOAT, value=attr(tensor=huge)), node("y", "Add", "x", "w", T=FLOAT))
    with pytest.raises(Unsafe, match="repeated"):
        saved_model.read(Artifact.open(path))


def test_sizes_that_operators_ask_for_stay_in_the_graph(tmp_path: Path) -> None:
    """A Fill of 10^12 elements is not carried out while it is converted."""
    path = written(tmp_path / "model", const("dims", np.asarray([1_000_000, 1_000_000], np.int64)), const("one", np.float32(1)),
                   node("big", "Fill", "dims", "one", T=FLOAT, index_type=attr(type=TYPES["int64"])), const("axes", np.asarray([0, 1], np.int32)),
                   node("sum", "Sum", "big", "axes", T=FLOAT, Tidx=attr(type=TYPES["int32"])), node("y", "Add", "x", "sum", T=FLOAT))
    model = dialects.to_hub(saved_model.read(Artifact.open(path)))
    assert "ReduceSum" in {item.op_type for item in model.graph}


def ints(*values: int) -> Any:
    return attr(list=KINDS["ListValue"](i=list(values)))


def count(value: int) -> Any:
    return attr(i=value)


WHOLE = attr(type=TYPES["int32"])
AXIS = const("axis", np.int32(0))


@pytest.mark.parametrize(("nodes", "output"), [
    ([AXIS, node("y", "Split", "axis", "x", T=FLOAT, num_split=count(1 << 40))], "y:0"),
    ([AXIS, node("y", "Split", "axis", "x", T=FLOAT, num_split=count(-5))], "y:0"),
    ([node("y", "Unpack", "x", T=FLOAT, num=count(1 << 40))], "y:0"),
    ([AXIS, node("y", "ConcatV2", "x", "x", "axis", T=FLOAT, Tidx=WHOLE, N=count(1 << 60))], "y:0"),
    ([node("y", "Pack", "x", T=FLOAT, N=count(1 << 60), axis=count(1 << 60))], "y:0"),
    ([node("y", "Squeeze", "x", T=FLOAT, squeeze_dims=ints(*range(100_000)))], "y:0"),
    ([node("y", "MaxPool", "x", T=FLOAT, ksize=ints(1, 1 << 62, 1 << 62, 1), strides=ints(1, 1, 1, 1), padding=attr(s=b"SAME"))], "y:0"),
    ([const("n", np.int32(2_000_000_000)), node("y", "OneHot", "n", "n", "n", "n", T=WHOLE, TI=WHOLE)], "y:0"),
    ([node("y", "Identity", "x", T=attr(type=(1 << 31) - 1))], "y:0"),
    ([node("y", "Neg", "x", T=FLOAT, note=attr(s=b"\x0a" * (1 << 20)))], "y:0"),
    ([node("y", "IdentityN", "x", T=attr(list=KINDS["ListValue"](type=[1] * 100_000)))], "y:99999"),
    ([node("y", "PlaceholderWithDefault", "x", dtype=FLOAT, shape=attr(shape=shape_record((1 << 62, 1 << 62))))], "y:0"),
    ([node("y", "StridedSlice", "x", "x", "x", "x", T=FLOAT, Index=FLOAT, begin_mask=count((1 << 63) - 1))], "y:0"),
])
def test_giant_attributes_end_soon(nodes: list[Any], output: str, tmp_path: Path) -> None:
    """They are refused with their reason, or what they ask for stays in the graph: nothing of their size is made."""
    path = written(tmp_path / "model", *nodes, output=output)
    tracemalloc.start()
    try:
        with contextlib.suppress(IsomorphError):
            dialects.to_hub(saved_model.read(Artifact.open(path)))
    finally:
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak < 300e6


@pytest.fixture(scope="module")
def digits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("digits") / "model"
    isomorph.convert(Path(str(resources.files("isomorph") / "data" / "digits.onnx")), folder, to="saved_model", verify=False)
    return folder


@pytest.mark.parametrize("name", ["variables/variables.index", "variables/variables.data-00000-of-00001", "saved_model.pb"])
@pytest.mark.parametrize("share", [0.0, 0.01, 0.5, 0.9])
def test_cut_bundles_are_damaged(name: str, share: float, digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "model")
    cut = tmp_path / "model" / name
    data = cut.read_bytes()
    cut.write_bytes(data[:int(len(data) * share)])
    with pytest.raises((Damaged, NotRecognised) if name == "saved_model.pb" else Damaged):
        isomorph.convert(tmp_path / "model", tmp_path / "model.onnx", verify=False)
    assert not (tmp_path / "model.onnx").exists()


@pytest.mark.parametrize(("name", "error"), [("variables/variables.index", Unsupported), ("variables/variables.data-00000-of-00001", Missing),
                                             ("saved_model.pb", NotRecognised)])
def test_parts_that_are_not_there_are_told(name: str, error: type[Exception], digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "model")
    (tmp_path / "model" / name).unlink()
    with pytest.raises(error):
        isomorph.convert(tmp_path / "model", tmp_path / "model.onnx", verify=False)


def test_the_name_of_chunks_is_not_enough(digits: Path, tmp_path: Path) -> None:
    shutil.copytree(digits, tmp_path / "model")
    (tmp_path / "model" / "saved_model.pb").unlink()
    (tmp_path / "model" / "saved_model.cpb").write_bytes(b"\x83chunks")
    with pytest.raises(NotRecognised):
        isomorph.identify(tmp_path / "model")


def test_a_name_that_two_nodes_share_hides_nothing(tmp_path: Path) -> None:
    path = written(tmp_path / "model", const("file", np.asarray("/tmp/file", object)), node("bad", "WriteFile", "file", "file"),
                   node("bad", "Identity", "x", T=FLOAT), node("y", "Identity", "x", T=FLOAT))
    try:
        found = effects(path)
    except Damaged:
        return
    assert [severity for severity, _ in found] == [Severity.CRITICAL]


def test_an_asset_that_leads_outside(tmp_path: Path) -> None:
    path = written(tmp_path / "model", node("y", "Identity", "x", T=FLOAT))
    (path / "assets").mkdir()
    root = protobuf.read((path / "saved_model.pb").read_bytes(), KINDS["SavedModel"])
    root.meta_graphs[0].asset_file_def = [KINDS["AssetFileDef"](filename="../../secret")]
    (path / "saved_model.pb").write_bytes(protobuf.dumps(root))
    findings = saved_model.read(Artifact.open(path)).findings
    assert any(finding.code == "tf.asset" and finding.severity == Severity.HIGH for finding in findings)


def test_changed_bytes_never_end_in_anything_but_a_typed_error(tmp_path: Path) -> None:
    """Every kind of node that control flow and functions have, changed at random places."""
    body = function("body", const("one", np.float32(1)), node("b", "Add", "a", "one:output:0", T=FLOAT), result="b:z:0")
    test = function("test", const("two", np.float32(9)), const("axes", np.asarray([0], np.int32)),
                    node("s", "Sum", "a", "axes:output:0", T=FLOAT, Tidx=attr(type=3)), node("b", "Less", "s:output:0", "two:output:0", T=FLOAT),
                    result="b:z:0")
    test.signature.output_arg[0].type = TYPES["bool"]
    loop = node("y", "While", "x", T=attr(list=KINDS["ListValue"](type=[1])), cond=attr(func=KINDS["NameAttrList"](name="test")),
                body=attr(func=KINDS["NameAttrList"](name="body")))
    path = written(tmp_path / "model", loop, functions=(body, test))
    dialects.to_hub(saved_model.read(Artifact.open(path)))
    data = (path / "saved_model.pb").read_bytes()
    rng = random.Random(4)
    for _ in range(ROUNDS):
        changed = bytearray(data)
        for _ in range(rng.randint(1, 4)):
            changed[rng.randrange(len(changed))] = rng.randrange(256)
        cut = bytes(changed[:rng.randrange(len(changed))]) if rng.random() < 0.2 else bytes(changed)
        (path / "saved_model.pb").write_bytes(cut)
        try:
            artifact = Artifact.open(path)
            read = _table.get(_table.identify(artifact).format).read
            assert read is not None
            dialects.to_hub(read(artifact))
        except IsomorphError:
            continue

"""Inputs that are made up: seeded, bounded, of consistent sizes, and never against what was given."""
from __future__ import annotations

import numpy as np
import onnx_ir as ir
import pytest

from isomorph.errors import Unsupported, Usage
from isomorph.runtime.session import Port
from isomorph.verification.inputs import Given, candidates, from_archive, parse, ports_of

IMAGE = Port("image", "float32", ("batch", 3, "height", "width"))
STATE = Port("state", "float32", (2, "batch", 128))


def first(ports, given=None, **options):
    return next(candidates(ports, given, **options))


def test_the_same_symbol_has_the_same_size_and_the_batch_is_one():
    feeds = first([IMAGE, STATE, Port("other", "float32", ("batch", "width"))])
    assert {name: array.shape for name, array in feeds.arrays.items()} == {"image": (1, 3, 64, 64), "state": (2, 1, 128), "other": (1, 64)}
    assert feeds.sizes == {"batch": 1, "height": 64, "width": 64}
    assert set(feeds.origin.values()) == {"random"}


def test_the_seed_decides_the_values():
    one, same, other = (first([IMAGE], seed=seed).arrays["image"] for seed in (1, 1, 2))
    np.testing.assert_array_equal(one, same)
    assert (one != other).any()
    assert abs(one.mean()) < 0.2
    assert 0.8 < one.std() < 1.2


def test_sizes_can_be_fixed_by_name_by_shape_by_array_and_by_the_partner():
    assert first([IMAGE], sizes={"height": 48}).arrays["image"].shape == (1, 3, 48, 64)
    assert first([IMAGE, STATE], {"image": Given(shape=(4, 3, 8, 8))}).arrays["state"].shape == (2, 4, 128)
    given = first([IMAGE, STATE], {"state": Given(array=np.zeros((2, 5, 128), np.float32))})
    assert given.arrays["image"].shape == (5, 3, 64, 64)
    assert given.origin == {"image": "random", "state": "given"}
    assert first([IMAGE], fixed={"image": (1, 3, 224, 224)}).arrays["image"].shape == (1, 3, 224, 224)


def test_other_sizes_follow_when_the_first_is_refused():
    shapes = [feeds.arrays["x"].shape for feeds in candidates([Port("x", "float32", (None, None, "t"))])]
    assert shapes[:4] == [(1, 16, 16), (1, 1, 16), (1, 32, 32), (1, 1, 32)]
    assert (1, 512, 512) in shapes
    assert len(set(shapes)) == len(shapes)
    assert len(list(candidates([Port("x", "float32", (1, 2))]))) == 1


@pytest.mark.parametrize(("dtype", "low", "high"), [("uint8", 0, 255), ("int8", -128, 127), ("int4", -8, 7), ("int64", 0, 1), ("bool", 0, 1), ("int32", 0, 1)])
def test_whole_numbers_are_bounded(dtype, low, high):
    array = first([Port("x", dtype, (5000,))]).arrays["x"].astype(np.int64)
    assert (array.min(), array.max()) == (low, high)


def test_text_and_complex_and_scalars():
    feeds = first([Port("t", "object", (2,)), Port("c", "complex64", (3,)), Port("n", "int64", ()), Port("h", "bfloat16", (2,))]).arrays
    assert feeds["t"].dtype == object
    assert feeds["c"].imag.any()
    assert feeds["n"] == 1
    assert feeds["h"].dtype.name == "bfloat16"


def graph_of(nodes, inputs, constants=()):
    values = {name: ir.Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(shape)) for name, dtype, shape in inputs}
    for name, array in constants:
        values[name] = ir.Value(name=name, const_value=ir.tensor(array), type=ir.TensorType(ir.tensor(array).dtype), shape=ir.Shape(array.shape))
    made = []
    for op, names, output in nodes:
        node = ir.node(op, [values[name] for name in names])
        values[output] = node.outputs[0]
        made.append(node)
    return ir.Graph([values[name] for name, _, _ in inputs], [made[-1].outputs[0]], nodes=made, initializers=[values[name] for name, _ in constants])


def test_an_index_stays_inside_what_it_indexes():
    graph = graph_of([("Cast", ["ids"], "wide"), ("Gather", ["table", "wide"], "rows")], [("ids", ir.DataType.INT32, [4000])],
                     [("table", np.zeros((7, 3), np.float32))])
    array = first(ports_of(graph), graph=graph).arrays["ids"]
    assert (array.min(), array.max(), array.dtype) == (0, 6, np.int32)


def test_a_number_that_is_compared_takes_the_value_it_is_compared_with():
    graph = graph_of([("Equal", ["rate", "known"], "same")], [("rate", ir.DataType.INT64, [])], [("known", np.array(16000))])
    assert first(ports_of(graph), graph=graph).arrays["rate"] == 16000


def test_parsing(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(3))
    given = parse([f"x=@{tmp_path / 'x.npy'}", "a:0=1x2", "rate=:16000"])
    assert given["x"].array.tolist() == [0, 1, 2]
    assert given["a:0"].shape == (1, 2)
    feeds = first([Port("rate", "int64", ()), Port("x", "int64", (3,)), Port("a:0", "float32", (1, "n"))], given)
    assert feeds.arrays["rate"] == 16000
    assert feeds.arrays["a:0"].shape == (1, 2)


@pytest.mark.parametrize("text", ["x", "=1", "x=", "x=1xy", "x=@nothing.npy", "x=1x-2"])
def test_what_cannot_be_parsed_is_a_usage_error(text):
    with pytest.raises(Usage):
        parse([text])


def test_archives(tmp_path):
    np.savez(tmp_path / "all.npz", x=np.ones(2))
    assert from_archive(str(tmp_path / "all.npz"))["x"].array.tolist() == [1, 1]
    (tmp_path / "bad.npz").write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(Usage, match=r"bad\.npz"):
        from_archive(str(tmp_path / "bad.npz"))
    np.save(tmp_path / "pickled.npy", np.array([{}], object), allow_pickle=True)
    with pytest.raises(Usage):
        parse([f"x=@{tmp_path / 'pickled.npy'}"])


def test_contradictions_are_usage_errors():
    with pytest.raises(Usage, match="no input is named 'y'"):
        first([IMAGE], {"y": Given(shape=(1,))})
    with pytest.raises(Usage, match="has 4 dimensions, not 1"):
        first([IMAGE], {"image": Given(shape=(1,))})
    with pytest.raises(Usage, match="no value of type int64"):
        first([Port("n", "int64", ())], {"n": Given(literal="much")})
    with pytest.raises(Unsupported, match="no value can be made up"):
        first([Port("s", "seq(tensor(float))", None)])


@pytest.mark.parametrize(("through", "value"), [([], 0.0), (["Sub"], 1.0)])
def test_nothing_is_dropped_and_a_rank_comes_from_the_graph(through, value):
    """The share of a Dropout is the one where its result is not random; that it is a scalar says only the graph."""
    x, share = (ir.Value(name=name, type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(shape)) for name, shape in (("x", [4]), ("share", [])))
    subtract = ir.node("Sub", [None, share])
    drop = ir.node("Dropout", [x, subtract.outputs[0] if through else share, None])
    graph = ir.Graph([x, share], drop.outputs, nodes=[*([subtract] if through else []), drop])
    feeds = first([Port("x", "float32", (4,)), Port("share", "float32", None)], graph=graph).arrays
    assert feeds["share"].shape == ()
    assert feeds["share"] == value

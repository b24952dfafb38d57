"""The TFLite codec: what it writes LiteRT loads and computes, what it reads it writes back, what is damaged it refuses."""
from __future__ import annotations

import random
import struct
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import running
from running import needs_litert
from tflite_models import Graph, quantized, read, real_model, real_models

from isomorph.artifact import Artifact
from isomorph.errors import Damaged, IsomorphError, NotRecognised, Unsafe, Unsupported
from isomorph.formats import tflite
from isomorph.tensors import array_tensor, lazily
from isomorph.wire import flatbuffers


def convolution() -> tuple[Graph, ir.Value]:
    graph, generator = Graph(), np.random.default_rng(1)
    x = graph.input("float32", None, 8, 8, 3, name="image")
    w, b = graph.const(generator.normal(size=(4, 3, 3, 3)).astype(np.float32)), graph.const(np.ones(4, np.float32))
    y = graph.CONV_2D(x, w, b, out=("float32", None, 4, 4, 4), padding="SAME", stride_w=2, stride_h=2, fused_activation_function="RELU6")
    z = graph.ADD(y, graph.const(np.float32(0.5)), out=("float32", None, 4, 4, 4))
    return graph, z


@needs_litert
def test_a_written_graph_runs_with_a_dynamic_batch(tmp_path):
    graph, z = convolution()
    feeds, outputs = running.run(graph.save(tmp_path / "a.tflite", z), {"image": running.random_array("float32", (5, 8, 8, 3), 3)})
    assert feeds["image"].shape[0] == 5
    assert outputs[z.name].shape == (5, 4, 4, 4)
    assert 0.5 <= outputs[z.name].min() < outputs[z.name].max() <= 6.5


def test_attributes_shapes_and_names_come_back(tmp_path):
    graph, z = convolution()
    model = read(graph.save(tmp_path / "a.tflite", z))
    conv, add = model.graph
    assert {name: attribute.value for name, attribute in conv.attributes.items()} == {"stride_w": 2, "stride_h": 2, "fused_activation_function": "RELU6"}
    assert (conv.domain, conv.op_type, add.op_type, conv.version) == ("tflite", "CONV_2D", "ADD", 1)
    assert [isinstance(dim, int) for dim in model.graph.inputs[0].shape] == [False, True, True, True]
    assert model.signatures[0].name == "serving_default"
    assert model.signatures[0].inputs == {"image": "image"}
    assert not model.findings


def test_equal_data_is_stored_once_and_unused_constants_are_left_out(tmp_path):
    graph, data = Graph(), np.random.default_rng(0).normal(size=1000).astype(np.float32)
    x = graph.input("float32", 1000)
    graph.const(np.zeros(5000, np.float32))
    y = graph.ADD(graph.MUL(x, graph.const(data), out=("float32", 1000)), graph.const(np.float32(1)), out=("float32", 1000))
    graph.save(tmp_path / "a.tflite", y)
    twice = read(tmp_path / "a.tflite")
    second = ir.Value(name="again", const_value=tflite.SliceTensor("again", 1, (1000,), bytes(twice.graph.node(0).inputs[1].const_value.data)))
    second.dtype, second.shape = ir.DataType.FLOAT, ir.Shape([1000])
    twice.graph.register_initializer(second)
    twice.graph.node(1).replace_input_with(1, second)
    report = tflite.write(twice, tmp_path / "b.tflite")
    assert report.facts["weights"] == 4000
    assert (tmp_path / "a.tflite").stat().st_size < 5500


def test_equal_computed_data_is_stored_once(tmp_path):
    """The same weights, put in another order for each of two layers only when they are written."""
    graph, data = Graph(), np.random.default_rng(0).normal(size=(40, 50)).astype(np.float32)
    x, constants = graph.input("float32", 40, 50), [graph.const(data) for _ in range(2)]
    for constant in constants:
        constant.const_value = lazily((1, 0), array_tensor(data.T.copy(), "weights"))
    y = graph.ADD(graph.MUL(x, constants[0], out=("float32", 40, 50)), constants[1], out=("float32", 40, 50))
    assert data.nbytes < graph.save(tmp_path / "a.tflite", y).stat().st_size < 1.5 * data.nbytes


@needs_litert
def test_control_flow_bodies_are_subgraphs(tmp_path):
    cond, body, graph = Graph("cond"), Graph("body"), Graph()
    i = cond.input("int32")
    stop = cond.LESS(i, cond.const(np.int32(5)), out=("bool",))
    cond.input("float32", 2)
    j, x = body.input("int32"), body.input("float32", 2)
    following, doubled = body.ADD(j, body.const(np.int32(1)), out=("int32",)), body.ADD(x, x, out=("float32", 2))
    start, y = graph.input("int32", name="start"), graph.input("float32", 2, name="x")
    outs = graph.WHILE(start, y, outs=[("int32",), ("float32", 2)], cond=cond.graph(stop), body=body.graph(following, doubled))
    path = graph.save(tmp_path / "a.tflite", *outs)
    tflite.write(read(path), tmp_path / "b.tflite")
    for name in ("a.tflite", "b.tflite"):
        _, outputs = running.run(tmp_path / name, {"start": np.int32(2), "x": np.float32([1, 3])})
        assert [value.tolist() for value in outputs.values()] == [5, [8.0, 24.0]]


@needs_litert
def test_texts_are_decoded_and_encoded(tmp_path):
    graph = Graph()
    x = graph.input("string", 3, name="x")
    y = graph.EQUAL(x, graph.const(np.array(["red", "", "grün"], object)), out=("bool", 3))
    path = graph.save(tmp_path / "a.tflite", y)
    model = read(path)
    assert model.graph.node(0).inputs[1].const_value.string_data() == [b"red", b"", "grün".encode()]
    _, outputs = running.run(path, {"x": np.array(["red", "x", "grün"], object)})
    assert outputs[y.name].tolist() == [True, False, True]


@needs_litert
def test_data_behind_the_flatbuffer_loads(tmp_path, monkeypatch):
    """The scheme for files above 2 GB, made small by lowering the threshold."""
    monkeypatch.setattr(tflite, "LARGE", 10)
    graph, z = convolution()
    path = graph.save(tmp_path / "a.tflite", z)
    record = flatbuffers.read(Artifact.open(path).view, tflite.schema(), "Model")
    assert [buffer.offset % 16 for buffer in record.buffers] == [0] * len(record.buffers)
    assert all(not len(buffer.data) for buffer in record.buffers)
    assert path.read_bytes()[-16:] == bytes(16)
    monkeypatch.undo()
    graph, z = convolution()
    inside = graph.save(tmp_path / "b.tflite", z)
    feeds, outputs = running.run(path)
    assert np.array_equal(outputs[z.name], running.run(inside, feeds)[1][z.name])
    tflite.write(read(path), tmp_path / "c.tflite")
    assert np.array_equal(outputs[z.name], running.run(tmp_path / "c.tflite", feeds)[1][z.name])


def test_quantization_and_variables_come_back(tmp_path):
    graph = Graph()
    x = graph.input("int8", 1, 4, quantization=quantized(0.5, 3))
    state = graph.variable("float32", 1, 4)
    y = graph.DEQUANTIZE(x, out=("float32", 1, 4))
    w = graph.const(np.ones((3, 4), np.int8), quantized([0.1, 0.2, 0.3], 0, 0))
    z = graph.FULLY_CONNECTED(graph.ADD(y, state, out=("float32", 1, 4)), w, None, out=("float32", 1, 3))
    model = read(graph.save(tmp_path / "a.tflite", z))
    dequantize, add, dense = model.graph
    found = dequantize.inputs[0].meta["quantization"]
    assert (float(found.scale), int(found.zero_point), found.per_axis) == (0.5, 3, False)
    assert np.allclose(dense.inputs[1].meta["quantization"].scale, [0.1, 0.2, 0.3])
    assert add.inputs[1].meta["variable"]
    assert len(dense.inputs) == 3
    assert dense.inputs[2] is None
    assert dense.version == 12


def test_custom_options_and_metadata_are_carried(tmp_path):
    graph = Graph()
    y = graph.MyOperator(graph.input("float32", 2), out=("float32", 2), domain="tflite.custom", custom_options=b"\x01\x02")
    model = graph.model(y)
    model.metadata |= {"description": "hello", "metadata": {"notes": b"abc"}}
    tflite.write(model, tmp_path / "a.tflite")
    again = read(tmp_path / "a.tflite")
    assert again.graph.node(0).attributes["custom_options"].value == b"\x01\x02"
    assert again.metadata["description"] == "hello"
    assert bytes(again.metadata["metadata"]["notes"]) == b"abc"


def test_what_tflite_does_not_have_is_refused_with_every_reason(tmp_path):
    graph = Graph()
    x = graph.input("float32", 2)
    y = graph.CONV_9D(graph.ABS(x, out=("float32", 2), nonsense=3), out=("float32", 2))
    with pytest.raises(Unsupported) as caught:
        graph.save(tmp_path / "a.tflite", y)
    assert {subject for subject, _, _ in caught.value.blockers} == {"tflite::CONV_9D", "tflite::ABS"}
    assert not list(tmp_path.iterdir())


def changed(path: Path, **fields: object) -> Artifact:
    """The file with fields of its first subgraph's records replaced: `tensor_shape=...` sets `shape` of tensor 1."""
    import io
    record = flatbuffers.read(Artifact.open(path).view, tflite.schema(), "Model")
    subgraph = record.subgraphs[0]
    owners = {"tensor": subgraph.tensors[1], "operator": subgraph.operators[0], "subgraph": subgraph, "model": record, "buffer": record.buffers[1]}
    for name, value in fields.items():
        owner, _, field = name.partition("_")
        owners[owner]._fields[field] = value
    file = io.BytesIO()
    flatbuffers.write(record, tflite.schema(), file)
    return Artifact.open(file.getvalue())


@pytest.mark.parametrize(("fields", "error", "words"), [
    ({"tensor_shape": [1, 2]}, Damaged, "bytes of data"),
    ({"tensor_shape": [1 << 30, 1 << 30, 1 << 30, 1 << 30]}, Damaged, "bytes of data"),
    ({"tensor_shape": [-4, 3, 3, 3]}, Damaged, "constant of the shape"),
    ({"tensor_shape": [1] * 100}, Unsafe, "dimensions"),
    ({"tensor_buffer": 77}, Damaged, "buffer 77 does not exist"),
    ({"tensor_type": 99}, Unsupported, "element type 99"),
    ({"tensor_external_buffer": 1}, Unsupported, "another file"),
    ({"operator_inputs": [99]}, Damaged, "tensor 99 does not exist"),
    ({"operator_inputs": [-2]}, Damaged, "tensor -2 does not exist"),
    ({"operator_inputs": [5, 1, 2]}, Damaged, "before anything has written it"),
    ({"operator_opcode_index": 9}, Damaged, "operator code 9"),
    ({"subgraph_inputs": [0, 0]}, Damaged, "input twice"),
    ({"subgraph_outputs": [123456]}, Damaged, "does not exist"),
    ({"model_subgraphs": []}, Damaged, "subgraph 0 does not exist"),
    ({"model_version": 2}, Unsupported, "version 2"),
    ({"buffer_offset": 1 << 40, "buffer_size": 8}, Damaged, "outside the file"),
    ({"buffer_offset": 16, "buffer_size": (1 << 64) - 1}, Damaged, "outside the file"),
])
def test_contradictions_are_refused(tmp_path, fields, error, words):
    graph, z = convolution()
    with pytest.raises(error, match=words):
        tflite.read(changed(graph.save(tmp_path / "a.tflite", z), **fields))


def test_subgraphs_that_call_each_other_cannot_explode(tmp_path):
    """2 ** 40 copies from 40 subgraphs, and a subgraph that calls itself."""
    schema, record = tflite.schema(), tflite.schema().record

    def chain(depth: int, last: int | None) -> Artifact:
        subgraphs = []
        for number in range(depth):
            following = number + 1 if number + 1 < depth else last
            options = record("IfOptions", then_subgraph_index=following, else_subgraph_index=following) if following is not None else None
            operators = [record("Operator", inputs=[0, 1], outputs=[1], builtin_options=options)] if options else []
            subgraphs.append(record("SubGraph", tensors=[record("Tensor", type="BOOL", name="c"), record("Tensor", name="x")], inputs=[0, 1], outputs=[1],
                                    operators=operators))
        path = tmp_path / "chain.tflite"
        with path.open("wb") as file:
            flatbuffers.write(record("Model", version=3, operator_codes=[record("OperatorCode", deprecated_builtin_code=118, builtin_code="IF")],
                                     subgraphs=subgraphs, buffers=[record("Buffer")]), schema, file)
        return Artifact.open(path)
    with pytest.raises(Unsafe, match="16 times"):
        tflite.read(chain(40, None))
    with pytest.raises(Damaged, match="calls itself"):
        tflite.read(chain(1, 0))


def test_truncation_at_every_byte_is_refused(tmp_path):
    graph, z = convolution()
    data = graph.save(tmp_path / "a.tflite", z).read_bytes()
    last = max(index for index, byte in enumerate(data) if byte)
    for size in range(8, last, 3):
        with pytest.raises((Damaged, NotRecognised, Unsafe)):
            tflite.read(Artifact.open(data[:size]))


def test_damaged_words_leave_only_our_errors(tmp_path):
    graph, z = convolution()
    data = graph.save(tmp_path / "a.tflite", z).read_bytes()
    generator, refused = random.Random(7), 0
    for _ in range(3000):
        damaged = bytearray(data)
        place = generator.randrange(0, len(data) - 4) & ~1
        struct.pack_into("<I", damaged, place, generator.choice((0, 1, 4, 255, 1 << 16, 0x7FFFFFFF, 0xFFFFFFFF, len(data), generator.getrandbits(32))))
        try:
            tflite.read(Artifact.open(bytes(damaged)))
        except IsomorphError:
            refused += 1
    assert refused > 300


@needs_litert
@pytest.mark.parametrize("name", real_models())
def test_real_files_survive_a_round_trip(name, tmp_path):
    path = real_model(name)
    tflite.write(read(path), tmp_path / "again.tflite")
    _, expected = running.run(path)
    _, found = running.run(tmp_path / "again.tflite")
    assert len(expected) == len(found)
    for name, array in expected.items():
        assert np.array_equal(array, found[name], equal_nan=True)
    assert (tmp_path / "again.tflite").stat().st_size <= 1.02 * path.stat().st_size

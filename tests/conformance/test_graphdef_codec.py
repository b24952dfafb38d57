"""The codec between GraphDef records and graphs: nothing is lost on the way there and back, and what contradicts itself is refused."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from isomorph.errors import Damaged, Unsafe
from isomorph.formats._graphdef import Decoder
from isomorph.formats._graphdef_writer import Encoder
from isomorph.formats._tf_tensors import decode, encode, schema, shape_record
from isomorph.tensors import array_tensor
from isomorph.wire import protobuf, tf_operators
from isomorph.wire.tf_operators import TYPES

KINDS = schema()
DTYPES = ("float32", "float64", "int32", "uint8", "int16", "int8", "int64", "bool", "float16", "bfloat16", "uint16", "uint32", "uint64", "complex64",
          "complex128", "int4", "uint4", "float8_e5m2", "float8_e4m3fn")


def attr(**field: Any) -> Any:
    return KINDS["AttrValue"](**field)


def node(name: str, op: str, *inputs: str, **attributes: Any) -> Any:
    return KINDS["NodeDef"](name=name, op=op, input=list(inputs), attr=attributes)


def const(name: str, array: Any) -> Any:
    return node(name, "Const", dtype=attr(type=encode(array_tensor(array)).dtype), value=attr(tensor=encode(array_tensor(array))))


def argument(name: str, kind: str) -> Any:
    return KINDS["ArgDef"](name=name, type=TYPES[kind])


def tensor(size: int, **values: Any) -> Any:
    return attr(tensor=KINDS["TensorProto"](dtype=1, tensor_shape=shape_record((size,)), **values))


FLOAT = attr(type=TYPES["float"])
BODY = KINDS["FunctionDef"](
    signature=KINDS["OpDef"](name="body", input_arg=[argument("x", "float")], output_arg=[argument("y", "float"), argument("z", "float")]),
    node_def=[const("two", np.float32(2)), node("twice", "Mul", "x", "two:output:0", T=FLOAT),
              node("parts", "Split", "axis:output:0", "twice:z:0", T=FLOAT, num_split=attr(i=2)), const("axis", np.int32(0))],
    ret={"y": "twice:z:0", "z": "parts:output:1"})


def graph(*nodes: Any, functions: tuple[Any, ...] = ()) -> Any:
    return KINDS["GraphDef"](node=list(nodes), library=KINDS["FunctionDefLibrary"](function=list(functions)))


def around(record: Any) -> Any:
    """What the codec makes of what it made, from bytes."""
    model = Decoder(protobuf.read(protobuf.dumps(record), KINDS["GraphDef"])).model()
    return protobuf.read(protobuf.dumps(Encoder().graph_def(model.graph, model.functions.values())), KINDS["GraphDef"])


def test_a_graph_with_a_function_survives() -> None:
    shape = attr(shape=shape_record((-1, 3)))
    record = graph(node("x", "Placeholder", dtype=FLOAT, shape=shape), const("w", np.ones((2, 3), np.float32)),
                   node("sum", "Add", "x", "w", "^w", T=FLOAT, _class=attr(list=KINDS["ListValue"](s=[b"loc:@w"]))),
                   node("call", "PartitionedCall", "sum", f=attr(func=KINDS["NameAttrList"](name="body")), Tin=attr(list=KINDS["ListValue"](type=[1])),
                        Tout=attr(list=KINDS["ListValue"](type=[1, 1]))),
                   node("end", "Sub", "call:1", "call", T=FLOAT), functions=(BODY,))
    made = around(record)
    nodes = {item.name: item for item in made.node}
    assert set(nodes) == {"x", "w", "sum", "call", "end"}
    assert nodes["sum"].input == ["x", "w", "^w"]
    assert bytes(nodes["sum"].attr["_class"].list.s[0]) == b"loc:@w"
    assert nodes["end"].input == ["call:1", "call"]
    assert [dim.size for dim in nodes["x"].attr["shape"].shape.dim] == [-1, 3]
    (function,) = made.library.function
    assert function.ret == {"y": "twice:z:0", "z": "parts:output:1"}
    assert {item.name: list(item.input) for item in function.node_def}["twice"] == ["x", "two:output:0"]
    assert protobuf.dumps(around(made)) == protobuf.dumps(made)


def test_types_counts_and_lists_are_filled_in() -> None:
    """The mapping names a node's values only; the attributes that follow from them are made."""
    record = graph(const("a", np.int64([1, 2])), const("b", np.int64([3])), const("axis", np.int32(0)), node("both", "ConcatV2", "a", "b", "axis",
                                                                                                         N=attr(i=2), T=attr(type=9), Tidx=attr(type=3)))
    model = Decoder(protobuf.read(protobuf.dumps(record), KINDS["GraphDef"])).model()
    joined = model.graph[0]
    for name in ("N", "T", "Tidx"):
        del joined.attributes[name]
    made = {item.name: item for item in Encoder().graph_def(model.graph).node}["both"]
    assert (made.attr["N"].i, made.attr["T"].type, made.attr["Tidx"].type) == (2, TYPES["int64"], TYPES["int32"])


def test_a_loop_of_tensorflow_1_has_its_edge_backwards() -> None:
    nodes = [const("zero", np.float32(0)), node("enter", "Enter", "zero", T=FLOAT, frame_name=attr(s=b"loop")),
             node("merge", "Merge", "enter", "next", T=FLOAT, N=attr(i=2)),
             node("next", "NextIteration", "merge", T=FLOAT)]
    model = Decoder(protobuf.read(protobuf.dumps(graph(*nodes)), KINDS["GraphDef"])).model()
    merge = next(item for item in model.graph if item.op_type == "Merge")
    assert merge.inputs[1].producer().op_type == "NextIteration"


@pytest.mark.parametrize("dtype", DTYPES)
def test_tensors_of_every_type(dtype: str) -> None:
    import ml_dtypes
    kind = np.dtype(dtype) if dtype in np.sctypeDict else np.dtype(getattr(ml_dtypes, dtype))
    array = (np.arange(6) % 5).astype(kind).reshape(2, 3)
    made = decode(protobuf.read(protobuf.dumps(encode(array_tensor(array))), KINDS["TensorProto"]), "w", "here").numpy()
    assert made.dtype == kind
    assert made.tobytes() == array.tobytes()


def test_strings_and_repeated_values() -> None:
    texts = decode(encode(array_tensor(np.asarray(["a", "bc"], object))), "w", "here")
    assert list(texts.string_data()) == [b"a", b"bc"]
    repeated = KINDS["TensorProto"](dtype=1, tensor_shape=shape_record((2, 2)), float_val=[1.0, 5.0])
    assert decode(repeated, "w", "here").numpy().tolist() == [[1, 5], [5, 5]]


@pytest.mark.parametrize(("record", "error", "reason"), [
    (graph(node("a", "Neg", "b", T=FLOAT), node("b", "Neg", "a", T=FLOAT)), Damaged, "cycle"),
    (graph(node("a", "Neg", "missing", T=FLOAT)), Damaged, "no node 'missing'"),
    (graph(const("a", np.float32(1)), const("a", np.float32(2))), Damaged, "two nodes"),
    (graph(const("a", np.float32(1)), node("b", "Neg", "a:7", T=FLOAT)), Damaged, "'a:7'"),
    (graph(const("a", np.float32(1)), node("b", "Split", "a", "a", T=FLOAT, num_split=attr(i=1 << 40))), Damaged, "num_split"),
    (graph(node("a", "Const", dtype=FLOAT, value=tensor(1 << 40, float_val=[1.0]))), Unsafe, "repeated"),
    (graph(node("a", "Const", dtype=FLOAT, value=tensor(2, tensor_content=b"12345"))), Damaged, "bytes"),
    (graph(node("a", "Placeholder", dtype=FLOAT, shape=attr(shape=shape_record((1,) * 100)))), Unsafe, "dimensions"),
])
def test_contradictions_are_refused(record: Any, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason):
        Decoder(protobuf.read(protobuf.dumps(record), KINDS["GraphDef"])).model()


def test_every_line_of_the_table_of_operators_is_read() -> None:
    for name in tf_operators.names():
        known = tf_operators.operator(name)
        assert known is not None
        assert all(argument.type or argument.attribute in known.attributes for argument in (*known.inputs, *known.outputs)), name
    assert len(tf_operators.names()) > 1_500

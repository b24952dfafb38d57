"""TensorFlow -> ONNX: TensorList and TensorArray, as one tensor with all elements along its first axis."""
from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant
from isomorph.dialects.tf.to_onnx.lowering import Elements, TfBuilder
from isomorph.dialects.tf.to_onnx.operators import Value, scalar_of, to_onnx
from isomorph.dialects.tflite.to_onnx.common import END, longs, vector
from isomorph.formats._tf_tensors import ELEMENT
from isomorph.passes import shapes


def elements(op: TfBuilder, handle: Value) -> Elements:
    thing = handle.meta.get("thing")
    return thing if isinstance(thing, Elements) else op.reject("a list that comes from outside")


def kind_of(name: str) -> Any:
    return ir.DataType(ELEMENT[name]) if name in ELEMENT else None


def dims_of_shape(shape: Value | None) -> tuple[int, ...] | None:
    array = constant(shape)
    if array is None:
        return None
    return tuple(int(dim) for dim in array) if array.ndim == 1 else None          # the scalar -1 is an unknown rank


def tensor_of(op: TfBuilder, thing: Elements) -> Value:
    """All elements; zeros where nothing has been written."""
    if thing.slot is not None:
        thing.watched.append(thing.slot)
        dims = [None, *(dim if dim >= 0 else None for dim in thing.shape or ())]
        # The first walk through the body of a loop only finds out that its elements are read; the next one has them.
        return Value(name=op.context.unique("unread"), type=ir.TensorType(thing.dtype), shape=ir.Shape(dims))
    if thing.tensor is not None:
        return thing.tensor
    if thing.shape is None or any(dim < 0 for dim in thing.shape) or thing.length is None:
        op.reject("a list that was never written, with elements of unknown shape")
    shape = op.Concat(op.Unsqueeze(longs(op, thing.length), [0]), op.const(list(thing.shape)), axis=0) if thing.shape else vector(op, thing.length)
    return op.ConstantOfShape(shape, value=np.zeros(1, thing.dtype.numpy()))


def written(op: TfBuilder, thing: Elements, index: Value, item: Value) -> Value:
    if thing.slot is not None:
        return op.as_value(replace(thing, writes=(*thing.writes, (index, item))))
    tensor = thing.tensor
    if tensor is None:
        if thing.length is None:
            op.reject("a list without a length")
        shape = op.Concat(op.Unsqueeze(longs(op, thing.length), [0]), op.Shape(item), axis=0)
        tensor = op.ConstantOfShape(shape, value=np.zeros(1, item.dtype.numpy()))
        dims = shapes.dims(item)
        if tensor.shape is None and dims is not None:
            tensor.shape = ir.Shape([None, *dims])
    place = op.Unsqueeze(scalar_of(op, longs(op, index)), [0, 1])
    length = shapes.dims(tensor)
    if length is not None and length[0] == 1 and constant(index) is not None:
        made = op.Unsqueeze(item, [0])                      # the only element
    else:
        made = op.ScatterND(tensor, place, op.Unsqueeze(item, [0]))
    return op.as_value(replace(thing, tensor=made, length=None))


def read(op: TfBuilder, thing: Elements, index: Value) -> Value:
    return op.Gather(tensor_of(op, thing), scalar_of(op, longs(op, index)), axis=0)


# ---- TensorList


@to_onnx("TensorListReserve")
def tensor_list_reserve(op, shape, length, *, element_dtype, **rest):
    return op.as_value(Elements(kind_of(element_dtype), length=scalar_of(op, length), shape=dims_of_shape(shape)))


@to_onnx("EmptyTensorList")
def empty_tensor_list(op, shape, most, *, element_dtype, **rest):
    return op.as_value(Elements(kind_of(element_dtype), length=op.const(np.int32(0)), shape=dims_of_shape(shape)))


@to_onnx("TensorListFromTensor")
def tensor_list_from_tensor(op, x, shape, *, element_dtype="", **rest):
    return op.as_value(Elements(x.dtype, tensor=x, shape=dims_of_shape(shape)))


@to_onnx("TensorListStack")
def tensor_list_stack(op, handle, shape, *, num_elements=-1, **rest):
    thing = elements(op, handle)
    return tensor_of(op, replace(thing, shape=thing.shape if dims_of_shape(shape) is None else _closer(thing.shape, dims_of_shape(shape))))


def _closer(first: Any, second: Any) -> Any:
    if first is None or second is None or len(first) != len(second):
        return second or first
    return tuple(max(a, b) for a, b in zip(first, second, strict=True))


@to_onnx("TensorListGetItem")
def tensor_list_get_item(op, handle, index, shape=None, **rest):
    return read(op, elements(op, handle), index)


@to_onnx("TensorListSetItem")
def tensor_list_set_item(op, handle, index, item, **rest):
    return written(op, elements(op, handle), index, item)


@to_onnx("TensorListPushBack")
def tensor_list_push_back(op, handle, item, **rest):
    thing = elements(op, handle)
    if thing.slot is not None:
        return op.as_value(replace(thing, writes=(*thing.writes, (None, item))))
    item = op.Unsqueeze(item, [0])
    length = constant(thing.length)
    if thing.tensor is None and (length is None or length.any()):
        op.reject("a list that is lengthened before it is written")
    return op.as_value(replace(thing, tensor=item if thing.tensor is None else op.Concat(thing.tensor, item, axis=0), length=None))


@to_onnx("TensorListPopBack")
def tensor_list_pop_back(op, handle, shape, **rest):
    thing = elements(op, handle)
    tensor = tensor_of(op, thing)
    last = op.Squeeze(op.Slice(tensor, [-1], [END], [0]), [0])
    return op.as_value(replace(thing, tensor=op.Slice(tensor, [0], [-1], [0]), length=None)), last


@to_onnx("TensorListLength")
def tensor_list_length(op, handle):
    return _length(op, elements(op, handle))


def _length(op: TfBuilder, thing: Elements) -> Value:
    if thing.slot is not None and thing.length is not None and all(index is not None for index, _ in thing.writes):
        return thing.length
    return thing.length if thing.tensor is None and thing.slot is None else op.Squeeze(op.Shape(tensor_of(op, thing), start=0, end=1), [0])


@to_onnx("TensorListElementShape")
def tensor_list_element_shape(op, handle, *, shape_type=""):
    thing = elements(op, handle)
    return op.const(list(thing.shape)) if thing.shape is not None else op.Shape(tensor_of(op, thing), start=1)


@to_onnx("TensorListResize")
def tensor_list_resize(op, handle, length):
    """Cut off, or filled up with zeros."""
    thing = elements(op, handle)
    if thing.tensor is None and thing.slot is None:
        return op.as_value(replace(thing, length=scalar_of(op, length)))
    tensor = tensor_of(op, thing)
    wanted = vector(op, length)
    rank = op.of(tensor)[0]
    more = op.Max(op.Sub(wanted, op.Shape(tensor, start=0, end=1)), 0)
    pads = op.Concat(op.const([0] * rank), more, op.const([0] * (rank - 1)), axis=0) if rank > 1 else op.Concat(op.const([0]), more, axis=0)
    return op.as_value(replace(thing, tensor=op.Slice(op.Pad(tensor, pads), [0], wanted, [0]), length=None))


@to_onnx("TensorListGather")
def tensor_list_gather(op, handle, places, shape, **rest):
    return op.Gather(tensor_of(op, elements(op, handle)), longs(op, places), axis=0)


@to_onnx("TensorListScatter", "TensorListScatterV2", "TensorListScatterIntoExistingList")
def tensor_list_scatter(op, *inputs, **rest):
    """Items to their places: in a list that is there, or in a new one of the given length (or as long as the last place says)."""
    if op.node.op_type == "TensorListScatterIntoExistingList":
        handle, x, places = inputs
        thing = elements(op, handle)
        start = thing.tensor
        length = vector(op, thing.length) if start is None else None
    else:
        x, places, shape, *more = inputs
        thing, start = Elements(x.dtype, shape=dims_of_shape(shape)), None
        length = vector(op, more[0]) if more and (constant(more[0]) is None or constant(more[0]) >= 0) else op.Add(op.ReduceMax(longs(op, places)), [1])
    if start is None:
        start = op.ConstantOfShape(op.Concat(length, op.Shape(x, start=1), axis=0) if op.of(x)[0] > 1 else length, value=np.zeros(1, x.dtype.numpy()))
    return op.as_value(replace(thing, tensor=op.ScatterND(start, op.Unsqueeze(longs(op, places), [1]), x), length=None, slot=None, writes=()))


@to_onnx("TensorListConcat", "TensorListConcatV2")
def tensor_list_concat(op, handle, *rest_of_inputs, **rest):
    """Elements of one shape, one behind the other, and the length of each."""
    tensor = tensor_of(op, elements(op, handle))
    flat = op.Reshape(tensor, op.Concat(op.const([-1]), op.Shape(tensor, start=2), axis=0) if op.of(tensor)[0] > 2 else op.const([-1]))
    return flat, op.Expand(op.Shape(tensor, start=1, end=2), op.Shape(tensor, start=0, end=1))


# ---- TensorArray: the handle names the array, the flow carries its content


@to_onnx("TensorArrayV3", "TensorArrayV2", "TensorArray")
def tensor_array(op, length, *, dtype, element_shape=None, **rest):
    thing = Elements(kind_of(dtype), length=scalar_of(op, length), shape=element_shape)
    return op.as_value(thing), op.as_value(thing)


@to_onnx("TensorArrayWriteV3", "TensorArrayWriteV2")
def tensor_array_write(op, handle, index, item, flow):
    return written(op, elements(op, flow), index, item)


@to_onnx("TensorArrayReadV3", "TensorArrayReadV2")
def tensor_array_read(op, handle, index, flow, *, dtype=""):
    return read(op, elements(op, flow), index)


@to_onnx("TensorArrayGatherV3", "TensorArrayGatherV2")
def tensor_array_gather(op, handle, places, flow, *, dtype="", element_shape=None):
    """All elements in order are the tensor itself."""
    tensor = tensor_of(op, elements(op, flow))
    if _all_places(places, tensor):
        return tensor
    return op.Gather(tensor, longs(op, places), axis=0)


def _all_places(places: Value, x: Value) -> bool:
    """Whether places are 0, 1, 2, ... up to the length of x."""
    node = places.producer()
    if node is not None and node.op_type == "Cast":
        node = node.inputs[0].producer()                                # type: ignore[union-attr]
    if node is not None and node.op_type == "Range":
        start, step = constant(node.inputs[0]), constant(node.inputs[2])
        return start is not None and step is not None and int(start) == 0 and int(step) == 1
    array, dims = constant(places), shapes.dims(x)
    return array is not None and dims is not None and dims[0] == len(array) and bool((array == np.arange(len(array))).all())


@to_onnx("TensorArrayScatterV3", "TensorArrayScatterV2")
def tensor_array_scatter(op, handle, places, x, flow):
    thing = elements(op, flow)
    if _all_places(places, x):
        return op.as_value(replace(thing, tensor=x, length=None))
    start = thing.tensor
    if start is None:
        start = op.ConstantOfShape(op.Concat(vector(op, thing.length), op.Shape(x, start=1), axis=0), value=np.zeros(1, x.dtype.numpy()))
    return op.as_value(replace(thing, tensor=op.ScatterND(start, op.Unsqueeze(longs(op, places), [1]), x), length=None))


@to_onnx("TensorArraySizeV3", "TensorArraySizeV2")
def tensor_array_size(op, handle, flow):
    return _length(op, elements(op, flow))


@to_onnx("TensorArrayConcatV3")
def tensor_array_concat(op, handle, flow, **rest):
    tensor = tensor_of(op, elements(op, flow))
    flat = op.Reshape(tensor, op.Concat(op.const([-1]), op.Shape(tensor, start=2), axis=0) if op.of(tensor)[0] > 2 else op.const([-1]))
    return flat, op.Expand(op.Shape(tensor, start=1, end=2), op.Shape(tensor, start=0, end=1))


@to_onnx("TensorArrayCloseV3")
def tensor_array_close(op, handle):
    return []

"""Inputs to run a model on: given ones as they are, the rest random but sensible, from the signature and from how the graph uses them."""
from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from isomorph.errors import Unsupported, Usage
from isomorph.runtime.pipe import element_dtype, text_array
from isomorph.runtime.session import Port

if TYPE_CHECKING:
    import onnx_ir

# Tried in this order for dimensions that nothing fixes: in sequences and the like, and in images.
SIZES = ((16, 64), (32, 48), (64, 32), (128, 128), (224, 224), (256, 256), (320, 320), (512, 512), (576, 576), (640, 640), (1, 96), (8, 8))
IMAGE_RANK = 4
PASSING = frozenset({"Cast", "Identity", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Transpose", "Expand", "Slice", "Concat", "Where", "Clip"})
PICKING = frozenset({"Gather", "GatherND", "GatherElements", "Compress"})       # some of their first input
INDEXING = {"Gather": 1, "GatherND": 1, "GatherElements": 1}       # which input holds the indices
LARGEST_INDEX = 1000
UNNAMED = (None, "", "?")


@dataclass(frozen=True)
class Given:
    """What a person said about one input: its array, its shape, or its dtype-free literal value."""

    array: np.ndarray | None = None
    shape: tuple[int, ...] | None = None
    literal: str = ""


@dataclass
class Feeds:
    """Arrays by input name, and for each how it came about: "given", "random", and the sizes that were chosen for free dimensions."""

    arrays: dict[str, Any]
    origin: dict[str, str]
    sizes: dict[str, int] = field(default_factory=dict)

    def to_json(self) -> list[dict[str, Any]]:
        return [{"name": name, "dtype": array.dtype.name, "shape": list(array.shape), "origin": self.origin[name]} for name, array in self.arrays.items()]


def parse(texts: Sequence[str]) -> dict[str, Given]:
    """`name=@file.npy`, `name=1x3x224x224` (a shape) or `name=:16000` (a value) -> what is given. Raises `Usage` for anything else."""
    given = {}
    for text in texts:
        name, equals, value = text.rpartition("=")
        if not equals or not name or not value:
            raise Usage(f"cannot read the input {text!r}", hint="write name=@file.npy, name=1x3x224x224 or name=:VALUE")
        given[name] = _parsed(text, value)
    return given


def from_archive(path: str) -> dict[str, Given]:
    """The arrays of an .npz file by name. Raises `Usage` where it is none."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: Given(array=archive[name]) for name in archive.files}
    except (OSError, ValueError, EOFError, AttributeError, zipfile.BadZipFile) as error:
        raise Usage(f"cannot read {path} as NumPy arrays: {error}", hint="write it with numpy.savez") from None


def _parsed(text: str, value: str) -> Given:
    if value.startswith("@"):
        try:
            return Given(array=np.load(value[1:], allow_pickle=False))
        except (OSError, ValueError, EOFError) as error:
            raise Usage(f"cannot read {value[1:]} as a NumPy array: {error}", hint="write it with numpy.save") from None
    if value.startswith(":"):
        return Given(literal=value[1:])
    if all(part.isdecimal() for part in value.split("x")):
        return Given(shape=tuple(int(part) for part in value.split("x")))
    raise Usage(f"cannot read the input {text!r}", hint="write name=@file.npy, name=1x3x224x224 or name=:VALUE")


def ports_of(graph: onnx_ir.Graph) -> list[Port]:
    """The inputs of an ONNX graph that have no default."""
    return [port_of(value) for value in graph.inputs if value.name not in graph.initializers]


def port_of(value: onnx_ir.Value) -> Port:
    """Name, dtype and shape of a graph value. What is no tensor, or has no type, has no shape."""
    import onnx_ir
    kind = value.type
    if value.dtype is None or not isinstance(kind, (onnx_ir.TensorType, type(None))):
        return Port(value.name or "", str(kind), None)
    dtype = "object" if value.dtype == onnx_ir.DataType.STRING else value.dtype.numpy().name
    shape = None if value.shape is None else tuple(dim if isinstance(dim, int) else dim.value for dim in value.shape)
    return Port(value.name or "", dtype, shape)


def candidates(ports: Sequence[Port], given: Mapping[str, Given] | None = None, *, graph: onnx_ir.Graph | None = None, seed: int = 0,
               sizes: Mapping[str, int] | None = None, fixed: Mapping[str, Sequence[Any]] | None = None) -> Iterator[Feeds]:
    """Sets of inputs to try, the likeliest first: the same values in other sizes where the signature leaves dimensions open.

    The first axis counts as the batch and is 1; the same symbol is the same size everywhere. `sizes` fixes symbols by name, `fixed` is the shape
    that a partner (the other model of a comparison) states for an input. Raises `Usage` where what is given contradicts the signature,
    `Unsupported` for inputs that cannot be made up.
    """
    given = dict(given or {})
    if unknown := [name for name in given if name not in {port.name for port in ports}]:
        raise Usage(f"no input is named {unknown[0]!r}", hint="the model takes " + "; ".join(map(str, ports)))
    known = dict(sizes or {}) | _learnt(ports, given, fixed or {})
    limits = _limits(graph) if graph is not None else {}
    ports = [_ranked(port, graph) for port in ports]
    seen: set[tuple[Any, ...]] = set()
    for size in SIZES:
        for only_last in (False, True):
            chosen = dict(known)
            shapes = {port.name: _shape(port, given.get(port.name), (fixed or {}).get(port.name), chosen, size[len(port.shape or ()) >= IMAGE_RANK], only_last)
                      for port in ports}
            key = tuple(shapes.values())
            if key in seen:
                continue
            seen.add(key)
            random = np.random.default_rng(seed)
            arrays = {port.name: _array(port, given.get(port.name), shapes[port.name], random, limits.get(port.name)) for port in ports}
            origin = {port.name: "given" if _is_given(given.get(port.name)) else "random" for port in ports}
            yield Feeds(arrays, origin, {name: value for name, value in chosen.items() if name not in UNNAMED})


def _is_given(item: Given | None) -> bool:
    return item is not None and (item.array is not None or bool(item.literal))


def _learnt(ports: Sequence[Port], given: Mapping[str, Given], fixed: Mapping[str, Sequence[Any]]) -> dict[Any, int]:
    """Sizes of symbols that given arrays, given shapes or the partner's fixed dimensions state."""
    sizes: dict[Any, int] = {}
    for port in ports:
        item = given.get(port.name)
        stated = item.array.shape if item and item.array is not None else item.shape if item and item.shape else fixed.get(port.name, ())
        if port.shape is None or len(stated) != len(port.shape):
            continue
        pairs = zip(port.shape, stated, strict=True)
        sizes |= {symbol: size for symbol, size in pairs if isinstance(symbol, str) and isinstance(size, int) and symbol not in UNNAMED}
    return sizes


def _shape(port: Port, item: Given | None, fixed: Sequence[Any] | None, chosen: dict[Any, int], size: int, only_last: bool) -> tuple[int, ...]:
    """The shape to make for a port. Sizes of new symbols are entered into `chosen`."""
    if item is not None and item.array is not None:
        return item.array.shape
    if item is not None and item.shape is not None:
        if port.shape is not None and len(port.shape) != len(item.shape):
            raise Usage(f"the input {port.name!r} has {len(port.shape)} dimensions, not {len(item.shape)}", hint=f"the model takes {port}")
        return item.shape
    if port.shape is None:
        if item is not None and item.literal:
            return ()
        raise Unsupported(f"no value can be made up for the input {port}", hint=f"give one with --input {port.name}=@file.npy")
    dims = []
    for axis, dim in enumerate(port.shape):
        partner = fixed[axis] if fixed is not None and len(fixed) == len(port.shape) else None
        dims.append(dim if isinstance(dim, int) else _free(dim, axis, partner, len(port.shape), chosen, size, only_last))
    return tuple(dims)


def _free(dim: str | None, axis: int, partner: Any, rank: int, chosen: dict[Any, int], size: int, only_last: bool) -> int:
    """The size of a dimension that is not a number."""
    if isinstance(partner, int):
        return partner
    if dim in chosen:
        return chosen[dim]
    batch = axis == 0 or (only_last and axis != rank - 1)
    value = 1 if batch else size
    if dim not in UNNAMED:
        chosen[dim] = value
    return value


def _ranked(port: Port, graph: onnx_ir.Graph | None) -> Port:
    """A port whose file says no rank, with what the graph found out about it."""
    if port.shape is not None or graph is None:
        return port
    return next((port_of(value) for value in graph.inputs if value.name == port.name), port)


@dataclass(frozen=True)
class Limit:
    """What a graph tells about an input: values below `below`, exactly `value`, or some of `texts`."""

    below: int = 0
    value: int | None = None
    texts: tuple[str, ...] = ()


def _limits(graph: onnx_ir.Graph) -> dict[str, Limit]:
    """The length of what an input indexes, which Keras takes as floats at times, or else for whole numbers a constant that they are compared with. For the
    share of a Dropout: that nothing is dropped, because what is dropped is random. For texts: the words of a vocabulary."""
    limits = {}
    for value in graph.inputs:
        whole = value.dtype is not None and value.dtype.is_integer()
        text = value.dtype is not None and value.dtype.is_string()
        limit = None if value.dtype is None else _looked_up(value) if text else _followed(value)
        if not text and not whole and (limit is None or not limit.below):
            limit = _undropped(value)
        if limit is not None:
            limits[value.name or ""] = limit
    return limits


def _undropped(value: onnx_ir.Value) -> Limit | None:
    """0 for an input that is the ratio of a Dropout, 1 for one that is what remains of 1."""
    for node, place in value.uses():
        if node.op_type == "Dropout" and place == 1:
            return Limit(value=0)
        if node.op_type == "Sub" and place == 1 and any(user.op_type == "Dropout" and where == 1 for user, where in node.outputs[0].uses()):
            return Limit(value=1)
    return None


def _looked_up(value: onnx_ir.Value) -> Limit | None:
    """The keys of the table that a text is looked up in, maybe moved before."""
    queue, seen = [value], {id(value)}
    while queue:
        for node, place in queue.pop().uses():
            table = node.attributes.get("keys_strings") if node.op_type == "LabelEncoder" else None
            if table is not None:
                return Limit(texts=tuple(table.as_strings()))
            if node.op_type in PASSING or (node.op_type in PICKING and place == 0):
                fresh = [output for output in node.outputs if id(output) not in seen]
                seen.update(id(output) for output in fresh)
                queue += fresh
    return None


def _followed(value: onnx_ir.Value) -> Limit | None:
    queue, seen, below, equal = [value], {id(value)}, 0, None
    while queue:
        current = queue.pop()
        for node, place in current.uses():
            if node.op_type == "Equal" and (constant := _constant(node.inputs[1 - place])) is not None and constant.size:
                equal = Limit(value=int(constant.reshape(-1)[0]))
            data = node.inputs[0]
            if INDEXING.get(node.op_type) == place and data is not None and data.shape is not None:
                axis = node.attributes.get_int("axis", 0)
                length = data.shape[axis] if len(data.shape) else 0
                below = min(below or LARGEST_INDEX, length) if isinstance(length, int) else below
            elif node.op_type in PASSING or (node.op_type in PICKING and place == 0):
                fresh = [output for output in node.outputs if id(output) not in seen]
                seen.update(id(output) for output in fresh)
                queue += fresh
    return Limit(below=below) if below else equal


def _constant(value: onnx_ir.Value | None) -> np.ndarray | None:
    """The array of an initializer or a Constant node."""
    if value is None:
        return None
    if value.const_value is not None:
        return value.const_value.numpy()
    producer = value.producer()
    attribute = producer.attributes.get("value") if producer is not None and producer.op_type == "Constant" else None
    return attribute.as_tensor().numpy() if attribute is not None else None


def _array(port: Port, item: Given | None, shape: tuple[int, ...], random: np.random.Generator, limit: Limit | None) -> np.ndarray:
    dtype = element_dtype(port.dtype) if port.shape is not None else np.dtype("float32")
    if item is not None and item.array is not None:
        return item.array
    if item is not None and item.literal:
        return np.broadcast_to(np.array(_number(item.literal, dtype), dtype), shape).copy()
    if dtype.kind == "O" and limit is not None and limit.texts:
        return text_array([limit.texts[place] for place in random.integers(0, len(limit.texts), int(np.prod(shape)))], shape)
    if dtype.kind == "O":
        return text_array([f"text {number}" for number in random.integers(0, 100, int(np.prod(shape)))], shape)
    if dtype.kind == "b":
        return random.integers(0, 2, shape).astype(bool)
    if dtype.kind in "iu" or "int" in dtype.name:
        return _whole(dtype, shape, random, limit)
    if limit is not None:
        return random.integers(0, limit.below, shape).astype(dtype) if limit.below else np.full(shape, limit.value, dtype)
    if dtype.kind == "c":
        return (random.standard_normal(shape) + 1j * random.standard_normal(shape)).astype(dtype)
    return random.standard_normal(shape, np.float32).astype(dtype)


def _whole(dtype: np.dtype, shape: tuple[int, ...], random: np.random.Generator, limit: Limit | None) -> np.ndarray:
    """Bytes and smaller over their whole range, as pixels are; wider ones as indices, or as the flags 0 and 1; a scalar is 1."""
    if limit is not None and limit.value is not None:
        return np.full(shape, limit.value, dtype)
    if limit is not None:
        return random.integers(0, limit.below, shape).astype(dtype)
    if dtype.itemsize == 1:
        bits = int(dtype.name.rpartition("int")[2])
        low = 0 if dtype.name.startswith("u") else -(1 << bits - 1)
        return random.integers(low, low + (1 << bits), shape).astype(dtype)
    return random.integers(0, 2, shape).astype(dtype) if shape else np.ones(shape, dtype)


def _number(text: str, dtype: np.dtype) -> Any:
    if dtype.kind == "O":
        return text
    try:
        return text.lower() in ("true", "1") if dtype.kind == "b" else int(text) if dtype.kind in "iu" else float(text)
    except ValueError:
        raise Usage(f"{text!r} is no value of type {dtype.name}") from None

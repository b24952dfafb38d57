"""Makes one small file of every format and flavour, from bytes alone, for the tests of identification.

They hold what a format is recognised by and little more; most could not be run. `CASES` lists them, `write(case, folder)` puts one on disk.
"""
from __future__ import annotations

import io
import json
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """A file (bytes) or folder (name -> bytes) and what `identify` must say of it. Of `detail` only the given keys are compared."""

    file: str
    format: str
    make: Callable[[], bytes | dict[str, bytes]]
    flavour: str | None = None
    version: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)

    @property
    def id(self) -> str:
        return f"{self.format}-{self.make.__name__}"


CASES: list[Case] = []


def case(file: str, form: str, flavour: str | None = None, version: str | None = None, **detail: Any) -> Callable:
    """Registers the function below as the maker of a file of that name."""
    def register(make: Callable[[], bytes | dict[str, bytes]]) -> Callable[[], bytes | dict[str, bytes]]:
        CASES.append(Case(file, form, make, flavour, version, detail))
        return make
    return register


def write(item: Case, folder: Path, name: str = "") -> Path:
    """Writes the file, or the folder, of a case and returns its path."""
    made, path = item.make(), folder / (name or item.file)
    files = {"": made} if isinstance(made, bytes) else made
    for inner, data in files.items():
        target = path / inner if inner else path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(data)
    return path


def varint(value: int) -> bytes:
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*out, value])


def message(*fields: tuple[int, int | str | bytes]) -> bytes:
    """A protobuf message: an int becomes a varint, text and bytes become length-delimited."""
    out = b""
    for number, value in fields:
        if isinstance(value, int):
            out += varint(number << 3) + varint(value)
        else:
            data = value.encode() if isinstance(value, str) else value
            out += varint(number << 3 | 2) + varint(len(data)) + data
    return out


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data, method)
    return buffer.getvalue()


def as_json(value: Any) -> bytes:
    return json.dumps(value).encode()


def onnx_model(tensor: bytes, ir: int = 8, *rest: tuple[int, bytes]) -> bytes:
    node = message((1, "x"), (2, "y"), (3, "relu"), (4, "Relu"))
    graph = message((1, node), (2, "g"), (5, tensor), (11, message((1, "x"))), (12, message((1, "y"))))
    return message((1, ir), (2, "maker"), (3, "1.0"), (7, graph), (8, message((1, ""), (2, 17))), *rest)


@case("a.onnx", "onnx", "", "8", opset=17, producer="maker 1.0", external_data=False)
def onnx() -> bytes:
    return onnx_model(message((1, 2), (2, 1), (8, "w"), (9, bytes(8))))


@case("b.onnx", "onnx", "external data", "8", external_data=True, companions=["b.onnx.data"])
def onnx_external() -> bytes:
    location = message((1, "location"), (2, "b.onnx.data"))
    return onnx_model(message((1, 2), (2, 1), (8, "w"), (13, location), (14, 1)))


@case("c.onnx", "onnx", "", "3", opset=17, domains={"ai.onnx": 17, "ai.onnx.ml": 3})
def onnx_ml() -> bytes:
    return onnx_model(b"", 3, (8, message((1, "ai.onnx.ml"), (2, 3))))


class Flat:
    """Writes flatbuffers front to back: tables at growing positions, children before their parents' offsets are patched in."""

    def __init__(self, identifier: bytes):
        self.data = bytearray(struct.pack("<L4s", 0, identifier))

    def table(self, *fields: int | bytes | list | str | tuple | None) -> int:
        """A table: bytes are inline scalars, an int is the position of a table, a list a vector of tables or ints, text a string, None absent."""
        self.pad(4)
        vtable = len(self.data)
        sizes = [0 if value is None else len(value) if isinstance(value, bytes) else 4 for value in fields]
        self.data += struct.pack("<HH", 4 + 2 * len(fields), 0)
        body, places = 4, []
        for size in sizes:
            body += -body % max(size, 1) if size in (2, 4, 8) else 0
            places.append(body if size else 0)
            body += size
        self.data += b"".join(struct.pack("<H", place) for place in places)
        struct.pack_into("<H", self.data, vtable + 2, body)
        self.pad(8)
        start = len(self.data)
        self.data += struct.pack("<l", start - vtable) + bytes(body - 4)
        for place, value in zip(places, fields, strict=True):
            if isinstance(value, bytes):
                self.data[start + place:start + place + len(value)] = value
        self.pending(start, places, fields)
        return start

    def pending(self, start: int, places: list[int], fields: tuple) -> None:
        """Vectors, strings and child tables stand behind their parent, as offsets only point forwards."""
        for place, value in zip(places, fields, strict=True):
            if value is None or isinstance(value, bytes):
                continue
            at = self.child(value)
            struct.pack_into("<L", self.data, start + place, at - start - place)

    def child(self, value: str | list | tuple) -> int:
        if isinstance(value, tuple):
            return self.table(*value)
        self.pad(16)
        at = len(self.data) + 12
        self.data += bytes(12)
        if isinstance(value, str):
            self.data += struct.pack("<L", len(value)) + value.encode() + b"\0"
        elif value and isinstance(value[0], tuple):
            self.data += struct.pack("<L", len(value)) + bytes(4 * len(value))
            for index, item in enumerate(value):
                place = at + 4 + 4 * index
                struct.pack_into("<L", self.data, place, self.table(*item) - place)
        else:
            self.data += struct.pack("<L", len(value)) + b"".join(value)
        return at

    def pad(self, to: int) -> None:
        self.data += bytes(-len(self.data) % to)

    def finish(self, *fields: Any) -> bytes:
        struct.pack_into("<L", self.data, 0, self.table(*fields))
        return bytes(self.data)


U8, U32 = struct.Struct("<B").pack, struct.Struct("<L").pack
F32, I64 = struct.Struct("<f").pack, struct.Struct("<q").pack


def tflite_model(weight: int, activation: int, quantised: bool) -> bytes:
    """One FULLY_CONNECTED: three activations without data, one weight with data. Types are numbers of TensorType."""
    quantization = (None, None, [F32(0.5)], [I64(0)]) if quantised else None
    shape = [U32(1), U32(4)]
    activations = [(shape, U8(activation), U32(0), name, quantization if activation not in (0, 1) else None) for name in ("x", "h", "y")]
    weights = [(shape, U8(weight), U32(1), "w", quantization if weight not in (0, 1) else None)]
    operator = (U32(0), [U32(0), U32(3)], [U32(2)])
    return Flat(b"TFL3").finish(
        U32(3), [(U8(9), None, U32(1), U32(9))], [(activations + weights, [U32(0)], [U32(2)], [operator], "main")], "made", [(None,), ([U8(1)] * 16,)])


@case("a.tflite", "tflite", "float32", "3", schema=3, description="made", subgraphs=1)
def tflite_float() -> bytes:
    return tflite_model(0, 0, False)


@case("b.tflite", "tflite", "float16")
def tflite_float16() -> bytes:
    return tflite_model(1, 0, False)


@case("c.tflite", "tflite", "int8")
def tflite_int8() -> bytes:
    return tflite_model(9, 9, True)


@case("d.tflite", "tflite", "uint8")
def tflite_uint8() -> bytes:
    return tflite_model(3, 3, True)


@case("e.tflite", "tflite", "int16x8")
def tflite_int16() -> bytes:
    return tflite_model(9, 7, True)


@case("f.tflite", "tflite", "dynamic range int8")
def tflite_hybrid() -> bytes:
    return tflite_model(9, 0, True)


@case("g.tflite", "tflite", "dynamic range int4")
def tflite_int4() -> bytes:
    return tflite_model(17, 0, True)


def safetensors_file(*names: str, metadata: dict[str, str] | None = None) -> bytes:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    for index, name in enumerate(names):
        header[name] = {"dtype": "F16", "shape": [2, 2], "data_offsets": [8 * index, 8 * index + 8]}
    text = as_json(header)
    return struct.pack("<Q", len(text)) + text + bytes(8 * len(names))


@case("a.safetensors", "safetensors", "single", tensors=1, parameters=4, dtypes={"F16": 1}, metadata={"format": "pt"})
def safetensors() -> bytes:
    return safetensors_file("layer.weight", metadata={"format": "pt"})


@case("b.safetensors", "safetensors", "lora adapter")
def safetensors_lora() -> bytes:
    return safetensors_file("q.lora_A.weight", "q.lora_B.weight")


INDEX = {"metadata": {"total_size": 16}, "weight_map": {"a": "model-00001-of-00002.safetensors", "b": "model-00002-of-00002.safetensors"}}


@case("model.safetensors.index.json", "safetensors", "indexed", shards=2, tensors=2)
def safetensors_index() -> bytes:
    return as_json(INDEX)


@case("sharded", "safetensors", "indexed", shards=2)
def safetensors_folder() -> dict[str, bytes]:
    shards = {f"model-0000{number}-of-00002.safetensors": safetensors_file(name) for number, name in ((1, "a"), (2, "b"))}
    return {"model.safetensors.index.json": as_json(INDEX), **shards}


def npy_file(descr: str = "<f4", shape: str = "(2,)") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\1\0" + struct.pack("<H", len(text)) + text.encode() + bytes(8)


@case("a.npy", "npz", "npy", "1.0", dtype="<f4", shape=[2])
def npy() -> bytes:
    return npy_file()


@case("b.npy", "npz", "npy, pickled objects")
def npy_objects() -> bytes:
    return npy_file("|O")


@case("a.npz", "npz", "npz", arrays=2, dtypes=["<f4"], compressed=True)
def npz() -> bytes:
    return zipped({"a.npy": npy_file(), "b.npy": npy_file()}, zipfile.ZIP_DEFLATED)

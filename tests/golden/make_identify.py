"""Makes one small file of every format and flavour, from bytes alone, for the tests of identification.

They hold what a format is recognised by and little more; most could not be run. `CASES` lists them, `write(case, folder)` puts one on disk.
"""
from __future__ import annotations

import io
import json
import struct
import tarfile
import zipfile
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Case:
    """A file (bytes) or folder (name -> bytes) and what `identify` must say of it. Of `detail` only the given keys are compared.

    `named` marks a file that has no structure of its own, so that its name must help; `inner` is the file in a folder that is looked at.
    """

    file: str
    format: str
    make: Callable[[], bytes | dict[str, bytes]]
    flavour: str | None = None
    version: str | None = None
    detail: dict[str, Any] = field(default_factory=dict)
    named: bool = False
    inner: str = ""

    @property
    def id(self) -> str:
        return f"{self.format}-{self.make.__name__}"


CASES: list[Case] = []


def case(file: str, form: str, flavour: str | None = None, version: str | None = None, *, named: bool = False, inner: str = "", **detail: Any) -> Callable:
    """Registers the function below as the maker of a file of that name."""
    def register(make: Callable[[], bytes | dict[str, bytes]]) -> Callable[[], bytes | dict[str, bytes]]:
        CASES.append(Case(file, form, make, flavour, version, detail, named, inner))
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
    return path / item.inner if item.inner else path


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

    def __init__(self, identifier: bytes = b""):
        self.data = bytearray(struct.pack(f"<L{len(identifier)}s", 0, identifier))

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
        elif value and isinstance(value[0], (tuple, str)):
            self.data += struct.pack("<L", len(value)) + bytes(4 * len(value))
            for index, item in enumerate(value):
                place = at + 4 + 4 * index
                struct.pack_into("<L", self.data, place, self.child(item) - place)
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


def node_def(name: str, operator: str) -> bytes:
    return message((1, name), (2, operator))


GRAPH_DEF = message((1, node_def("x", "Placeholder")), (1, node_def("w", "Const")), (1, node_def("y", "MatMul")), (4, message((1, 1882))))
SIGNATURE = message((1, "serving_default"), (2, message((3, "tensorflow/serving/predict"))))


def meta_graph(*more: tuple[int, bytes]) -> bytes:
    info = message((1, "v1"), (4, "serve"), (5, "2.15.0"))
    return message((1, info), (2, GRAPH_DEF), (5, SIGNATURE), *more)


@case("a", "saved_model", "TensorFlow 1", "1", tags=["serve"], tensorflow_version="2.15.0", signatures=["serving_default"], variables=False)
def saved_model() -> dict[str, bytes]:
    return {"saved_model.pb": message((1, 1), (2, meta_graph()))}


@case("b", "saved_model", "TensorFlow 2", "1", variables=True)
def saved_model_2() -> dict[str, bytes]:
    return {"saved_model.pb": message((1, 1), (2, meta_graph((7, message((1, b"")))))), "variables/variables.index": b"", "fingerprint.pb": b"x"}


@case("saved_model.pb", "saved_model", "TensorFlow 1")
def saved_model_file() -> bytes:
    return message((1, 1), (2, meta_graph()))


@case("saved_model.pbtxt", "saved_model", "text", "1")
def saved_model_text() -> bytes:
    return (b'saved_model_schema_version: 1\nmeta_graphs {\n  meta_info_def {\n    tags: "serve"\n  }\n'
            b'  graph_def {\n    node { name: "x" op: "Placeholder" }\n  }\n}\n')


@case("a.pb", "graphdef", "frozen", "1882", nodes=3, operators=["Const", "MatMul", "Placeholder"])
def graphdef() -> bytes:
    return GRAPH_DEF


@case("b.pb", "graphdef", "not frozen")
def graphdef_variables() -> bytes:
    return message((1, node_def("v", "VariableV2")), (1, node_def("y", "MatMul")))


@case("a.pbtxt", "graphdef", "text", "27")
def graphdef_text() -> bytes:
    return b'# made\nnode {\n  name: "x"\n  op: "Placeholder"\n  attr { key: "dtype" value { type: DT_FLOAT } }\n}\nversions { producer: 27 }\n'


def sorted_table(value: bytes) -> bytes:
    """One block whose first key is empty, and the footer."""
    block = bytes(2) + varint(len(value)) + value + struct.pack("<LL", 0, 1)
    return block + bytes(40) + (0xDB4775248B80FB57).to_bytes(8, "little")


BUNDLE = sorted_table(message((1, 1), (3, message((1, 1)))))


@case("model.ckpt.index", "tf_checkpoint", "index", "2", shards=1, byte_order="little")
def checkpoint_index() -> bytes:
    return BUNDLE


@case("model.ckpt", "tf_checkpoint", "single file", "1")
def checkpoint_1() -> bytes:
    return sorted_table(message((1, message((1, message((1, "w")))))))


@case("model.ckpt.meta", "tf_checkpoint", "meta graph", tensorflow_version="2.15.0")
def checkpoint_meta() -> bytes:
    return meta_graph((3, message((1, "save/Const:0"))))


CHECKPOINT = {"checkpoint": b'model_checkpoint_path: "model-5"\n', "model-5.index": BUNDLE, "model-5.data-00000-of-00001": bytes(16),
              "model-5.meta": meta_graph()}


@case("checkpoint", "tf_checkpoint", "index", "2", checkpoints=["model-5"], graph=True)
def checkpoint_folder() -> dict[str, bytes]:
    return CHECKPOINT


@case("checkpoint2", "tf_checkpoint", "data", inner="model-5.data-00000-of-00001", shard=1, shards=1)
def checkpoint_shard() -> dict[str, bytes]:
    return CHECKPOINT


MANIFEST = [{"paths": ["group1-shard1of1.bin"], "weights": [{"name": "w", "shape": [2], "dtype": "float32"}]}]
QUANTISED = [{"paths": ["g.bin"], "weights": [{"name": "w", "shape": [2], "dtype": "float32", "quantization": {"dtype": "uint8", "min": 0, "scale": 1}}]}]
LAYERS = {"keras_version": "2.15.0", "backend": "tensorflow", "model_config": {"class_name": "Sequential", "config": {"layers": []}}}
NODES = {"node": [{"name": "x", "op": "Placeholder"}], "versions": {"producer": 1882}}


@case("model.json", "tfjs_layers", "", shards=1, companions=["group1-shard1of1.bin"])
def tfjs_layers() -> bytes:
    return as_json({"format": "layers-model", "generatedBy": "keras v2.15.0", "modelTopology": LAYERS, "weightsManifest": MANIFEST})


@case("b.json", "tfjs_layers", "")
def tfjs_layers_old() -> bytes:
    return as_json({"modelTopology": LAYERS, "weightsManifest": MANIFEST})


@case("tfjs", "tfjs_graph", "uint8", quantization=["uint8"])
def tfjs_graph_folder() -> dict[str, bytes]:
    text = as_json({"format": "graph-model", "modelTopology": NODES, "weightsManifest": QUANTISED})
    return {"model.json": text, "g.bin": bytes(2)}


@case("model.json", "tfjs_graph", "", converted_by="TensorFlow.js Converter v4")
def tfjs_graph() -> bytes:
    return as_json({"format": "graph-model", "convertedBy": "TensorFlow.js Converter v4", "modelTopology": NODES, "weightsManifest": MANIFEST})


KERAS = {"metadata.json": as_json({"keras_version": "3.15.1", "date_saved": "2026-11-23@08:00:00"}),
         "config.json": as_json({"module": "keras", "class_name": "Functional", "config": {"name": "net", "layers": []}, "registered_name": "Functional"}),
         "model.weights.h5": b"\x89HDF\r\n\x1a\n" + bytes(64)}


@case("a.keras", "keras", "", "3.15.1", name="net", weights="model.weights.h5", **{"class": "Functional"})
def keras() -> bytes:
    return zipped(KERAS)


@case("unpacked", "keras", "unpacked", "3.15.1")
def keras_unpacked() -> dict[str, bytes]:
    return KERAS


def hdf5(attributes: dict[str, Any], *groups: str, newest: bool = False) -> bytes:
    """Written by h5py, the only maker here that is not made of bytes: an HDF5 writer would be longer than all others together."""
    import h5py
    buffer = io.BytesIO()
    with h5py.File(buffer, "w", libver="latest" if newest else "earliest") as file:
        for name, value in attributes.items():
            file.attrs[name] = value
        for name in groups:
            file.create_group(name)
    return buffer.getvalue()


@case("a.h5", "keras_h5", "model", "2.15.0", backend="tensorflow", **{"class": "Sequential"})
def keras_h5() -> bytes:
    config = as_json({"class_name": "Sequential", "config": {"name": "s", "layers": []}}).decode()
    return hdf5({"keras_version": "2.15.0", "backend": "tensorflow", "model_config": config}, "model_weights")


@case("b.h5", "keras_h5", "weights only", "2.9.0", layers=2)
def keras_h5_weights() -> bytes:
    return hdf5({"keras_version": "2.9.0", "backend": "tensorflow", "layer_names": [b"dense", b"out"]}, "dense", "out")


@case("c.weights.h5", "keras_h5", "weights only, Keras 3 layout", "3")
def keras_3_weights() -> bytes:
    return hdf5({}, "layers", "optimizer", "vars")


@case("d.h5", "keras_h5", "model", "3.1.0")
def keras_h5_newest_layout() -> bytes:
    return hdf5({"keras_version": "3.1.0", "model_config": '{"class_name": "Functional"}'}, "model_weights", newest=True)


def text(value: str) -> bytes:
    return b"X" + struct.pack("<L", len(value)) + value.encode()


def torch_tensor(key: str = "0") -> bytes:
    """What torch.save writes for a tensor of four floats."""
    storage = b"(" + text("storage") + b"ctorch\nFloatStorage\n" + text(key) + text("cpu") + b"K\4tQ"
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\0K\4\x85K\1\x85\x89ccollections\nOrderedDict\n)RtR"


STATE_DICT = b"\x80\2ccollections\nOrderedDict\n)R(" + text("fc.weight") + torch_tensor() + text("fc.bias") + torch_tensor() + b"u."
CHECKPOINT_PICKLE = b"\x80\2}(" + text("epoch") + b"K\7" + text("model") + STATE_DICT[2:-1] + text("optimizer") + b"}u."
MODULE = b"\x80\2cmodels.nets\nResNet\n)\x81}(" + text("training") + b"\x89" + text("_parameters") + b"}ub."
LIGHTNING = b"\x80\2}(" + text("pytorch-lightning_version") + text("2.0") + text("state_dict") + b"}u."
WITH_MODULE = b"\x80\2}(" + text("epoch") + b"K\1" + text("model") + b"cyolo.tasks\nDetect\n)\x81}bu."


def torch_zip(pickled: bytes, method: int = zipfile.ZIP_STORED, **more: bytes) -> bytes:
    return zipped({"archive/data.pkl": pickled, "archive/byteorder": b"little", "archive/data/0": bytes(16), "archive/version": b"3\n",
                   **{f"archive/{name}": data for name, data in more.items()}}, method)


@case("a.pt", "torch", "state_dict, zip", container="zip", storages=1, entries=2, byte_order="little", first_entries=["fc.weight", "fc.bias"])
def torch_state_dict() -> bytes:
    return torch_zip(STATE_DICT)


@case("b.pth", "torch", "training checkpoint, zip", keys=["epoch", "model", "optimizer"])
def torch_checkpoint() -> bytes:
    return torch_zip(CHECKPOINT_PICKLE, zipfile.ZIP_DEFLATED)


@case("c.pt", "torch", "module, zip", **{"class": "models.nets.ResNet"})
def torch_module() -> bytes:
    return torch_zip(MODULE)


@case("d.ckpt", "torch", "lightning checkpoint, zip")
def torch_lightning() -> bytes:
    return torch_zip(LIGHTNING)


@case("e.pt", "torch", "checkpoint with a module, zip", **{"class": "yolo.tasks.Detect"})
def torch_checkpoint_with_module() -> bytes:
    return torch_zip(WITH_MODULE)


@case("f.pt", "torch", "tensor, zip")
def torch_one_tensor() -> bytes:
    return torch_zip(b"\x80\2" + torch_tensor() + b".")


def torch_legacy(pickled: bytes) -> bytes:
    magic = b"\x80\2\x8a\x0a" + (0x1950A86A20F9469CFC6C).to_bytes(10, "little") + b"."
    system = b"\x80\2}(" + text("protocol_version") + b"M\xe9\3" + text("little_endian") + b"\x88u."
    return magic + b"\x80\2M\xe9\3." + system + pickled + b"\x80\2]" + text("0") + b"a." + struct.pack("<q", 4) + bytes(16)


@case("g.pth", "torch", "state_dict, legacy", container="legacy", entries=2)
def torch_legacy_state_dict() -> bytes:
    return torch_legacy(STATE_DICT)


@case("h.pth", "torch", "module, legacy", **{"class": "models.nets.ResNet"})
def torch_legacy_module() -> bytes:
    return torch_legacy(MODULE)


@case("j.pth", "torch", "module, legacy", **{"class": "models.nets.ResNet"})
def torch_legacy_module_with_source() -> bytes:
    """torch.save keeps the source of a class in a persistent id."""
    name = b"(" + text("module") + b"cmodels.nets\nResNet\n" + text("nets.py") + text("class ResNet: ...") + b"tQ"
    return torch_legacy(b"\x80\2" + name + b")\x81}(" + text("training") + b"\x89ub.")


@case("k.pt", "torch", "package", extern_modules=["torch", "collections"])
def torch_package() -> bytes:
    return zipped({"k/.data/extern_modules": b"torch\ncollections\n", "k/.data/version": b"6\n", "k/m/m.pkl": STATE_DICT})


@case("pytorch_model.bin.index.json", "torch", "indexed", shards=2)
def torch_index() -> bytes:
    return as_json({"metadata": {}, "weight_map": {"a": "pytorch_model-00001-of-00002.bin", "b": "pytorch_model-00002-of-00002.bin"}})


def tarred(members: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.GNU_FORMAT) as file:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            file.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


@case("i.pt", "torch", "state_dict, tar", container="tar")
def torch_tar() -> bytes:
    tensors = b"\x80\2ccollections\nOrderedDict\n)R(" + text("w") + b"K\1Qu."
    return tarred({"storages": b"\x80\2K\0.", "tensors": b"\x80\2K\0.", "pickle": tensors})


SCRIPT = b"\x80\2c__torch__\nNet\n)\x81}(" + text("training") + b"\x89ub."


@case("a.jit", "torchscript", "", "3", code_files=1, **{"class": "__torch__.Net"})
def torchscript() -> bytes:
    return torch_zip(SCRIPT, **{"constants.pkl": b"\x80\2).", "code/__torch__.py": b"class Net(Module):\n  pass\n"})


@case("a.ptl", "torchscript", "mobile")
def torchscript_mobile() -> bytes:
    return torch_zip(SCRIPT, **{"constants.pkl": b"\x80\2).", "bytecode.pkl": b"\x80\2).", "code/__torch__.py": b""})


PROGRAM = as_json({"graph_module": {"graph": {}}, "schema_version": {"major": 8, "minor": 14}, "torch_version": "2.13.0"})


def exported(**members: bytes) -> bytes:
    common = {"archive_format": b"pt2", "archive_version": b"0", "byteorder": b"little"}
    return zipped({f"net/{name}": data for name, data in (common | members).items()})


@case("a.pt2", "torch_export", "exported program, raw weights", "0", models=["model"], schema_version="8.14", torch_version="2.13.0")
def torch_export() -> bytes:
    return exported(**{"models/model.json": PROGRAM, "data/weights/model_weights_config.json": b"{}", "data/weights/weight_0": bytes(8)})


@case("b.pt2", "torch_export", "exported program, pickled weights", "0")
def torch_export_pickled() -> bytes:
    return exported(**{"models/model.json": PROGRAM, "data/weights/model.pt": torch_zip(STATE_DICT)})


@case("c.pt2", "torch_export", "exported program, flat layout", "5", weights="serialized_state_dict.pt")
def torch_export_flat() -> bytes:
    return zipped({"serialized_exported_program.json": PROGRAM, "serialized_state_dict.pt": b"x", "serialized_constants.pt": b"x", "version": b"5"})


@case("d.pt2", "torch_export", "AOTInductor package", "0", models=["model"])
def aot_inductor() -> bytes:
    return exported(**{"data/aotinductor/model/abc.wrapper.so": b"\x7fELF", "data/aotinductor/model/abc.wrapper.cpp": b""})


@case("e.pt2", "torch_export", "AOTInductor package", "")
def aot_inductor_old() -> bytes:
    return zipped({"data/aotinductor/model/abc.so": b"\x7fELF", "data/aotinductor/model/metadata.json": b"{}"})


def gguf_file(version: int, order: str = "<", tensors: int = 1, **keys: Any) -> bytes:
    """Keys by name with "__" for the dot; int is a u32, bytes the raw type and value."""
    length = order + ("L" if version == 1 else "Q")

    def string(value: str) -> bytes:
        return struct.pack(length, len(value)) + value.encode()
    out = b"GGUF" + struct.pack(order + "L", version) + struct.pack(length, tensors) + struct.pack(length, len(keys))
    for name, value in keys.items():
        out += string(name.replace("__", "."))
        if isinstance(value, str):
            out += struct.pack(order + "L", 8) + string(value)
        elif isinstance(value, list):
            out += struct.pack(order + "LL", 9, 8) + struct.pack(length, len(value)) + b"".join(string(item) for item in value)
        else:
            out += struct.pack(order + "LL", 4, value)
    for index in range(tensors):
        out += string(f"t{index}") + struct.pack(order + "L", 1) + struct.pack(length, 4) + struct.pack(order + "LQ", 0, 32 * index)
    return out + bytes(-len(out) % 32) + bytes(32 * tensors)


LLAMA = {"general__architecture": "llama", "general__name": "tiny", "general__file_type": 15, "tokenizer__ggml__model": "gpt2",
         "tokenizer__ggml__tokens": ["a", "b"]}


@case("a.gguf", "gguf", "llm", "3", architecture="llama", name="tiny", file_type="Q4_K_M", byte_order="little", tensors=1, tokenizer="gpt2")
def gguf_3() -> bytes:
    return gguf_file(3, **LLAMA)


@case("b.gguf", "gguf", "llm", "3", byte_order="big", architecture="llama")
def gguf_3_big() -> bytes:
    return gguf_file(3, ">", **LLAMA)


@case("c.gguf", "gguf", "llm", "2")
def gguf_2() -> bytes:
    return gguf_file(2, **LLAMA)


@case("d.gguf", "gguf", "llm", "1", architecture="llama")
def gguf_1() -> bytes:
    return gguf_file(1, **LLAMA)


@case("e.gguf", "gguf", "lora adapter")
def gguf_lora() -> bytes:
    return gguf_file(3, general__architecture="llama", general__type="adapter", adapter__type="lora")


@case("f.gguf", "gguf", "mmproj")
def gguf_mmproj() -> bytes:
    return gguf_file(3, general__architecture="clip", general__type="mmproj", clip__vision__image_size=336)


@case("g.gguf", "gguf", "imatrix")
def gguf_imatrix() -> bytes:
    return gguf_file(3, general__type="imatrix", imatrix__chunk_count=5)


@case("h.gguf", "gguf", "vocabulary only", tensors=0)
def gguf_vocabulary() -> bytes:
    return gguf_file(3, tensors=0, **LLAMA)


@case("i.gguf", "gguf", "control vector")
def gguf_control_vector() -> bytes:
    return gguf_file(3, general__architecture="controlvector", controlvector__layer_count=2)


@case("m-00001-of-00002.gguf", "gguf", "llm", part=1, parts=2)
def gguf_split() -> bytes:
    return gguf_file(3, split__no=0, split__count=2, split__tensors__count=2, **LLAMA)


SHAPE = (32000, 64, 32, 4, 2, 16, 2)


@case("a.bin", "ggml", "llama", "", container="ggml", file_type="Q4_0")
def ggml() -> bytes:
    return b"lmgg" + struct.pack("<7L", *SHAPE) + bytes(64)


@case("b.bin", "ggml", "llama", "1", container="ggmf")
def ggmf() -> bytes:
    return b"fmgg" + struct.pack("<8L", 1, *SHAPE) + bytes(64)


def ggjt(version: int) -> bytes:
    return b"tjgg" + struct.pack("<8L", version, *SHAPE) + bytes(64)


@case("c1.bin", "ggml", "llama", "1", container="ggjt")
def ggjt_1() -> bytes:
    return ggjt(1)


@case("c2.bin", "ggml", "llama", "2", container="ggjt")
def ggjt_2() -> bytes:
    return ggjt(2)


@case("c3.bin", "ggml", "llama", "3", container="ggjt", hyperparameters={
    "vocabulary": 32000, "embedding": 64, "multiple": 32, "heads": 4, "layers": 2, "rotary": 16, "file_type": 2})
def ggjt_3() -> bytes:
    return ggjt(3)


@case("d.bin", "ggml", "whisper", "", file_type="F16")
def ggml_whisper() -> bytes:
    return b"lmgg" + struct.pack("<11L", 51865, 1500, 384, 6, 4, 448, 384, 6, 4, 80, 1) + bytes(64)


@case("e.bin", "ggml", "rwkv", "101", file_type="Q5_0")
def ggml_rwkv() -> bytes:
    return b"fmgg" + struct.pack("<5L", 101, 256, 128, 4, 7) + bytes(64)


@case("f.bin", "ggml", "gpt-2 or gpt-j")
def ggml_gpt2() -> bytes:
    return b"lmgg" + struct.pack("<7L", 50257, 1024, 768, 12, 12, 1, 50257) + bytes(64)


@case("g.bin", "ggml", "lora adapter", "1", rank=8)
def ggla() -> bytes:
    return b"algg" + struct.pack("<3L", 1, 8, 16) + bytes(64)


def core_ml(kind: int, specification: int = 4) -> bytes:
    description = message((1, message((1, "x"))), (10, message((1, "y"))), (100, message((1, "a model"))))
    return message((1, specification), (2, description), (kind, b"\x0a\0"))


@case("a.mlmodel", "coreml", "neuralNetwork", "4", inputs=["x"], outputs=["y"], description="a model")
def coreml() -> bytes:
    return core_ml(500)


@case("b.mlmodel", "coreml", "treeEnsembleClassifier", "1")
def coreml_trees() -> bytes:
    return core_ml(402, 1)


@case("c.mlmodel", "coreml", "pipeline")
def coreml_pipeline() -> bytes:
    return core_ml(202)


@case("a.mlpackage", "coreml", "mlProgram", "8", package=True)
def coreml_package() -> dict[str, bytes]:
    items = {"ABC": {"path": "com.apple.CoreML/model.mlmodel", "name": "model.mlmodel"}, "DEF": {"path": "com.apple.CoreML/weights", "name": "weights"}}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": items, "rootModelIdentifier": "ABC"}
    return {"Manifest.json": as_json(manifest), "Data/com.apple.CoreML/model.mlmodel": core_ml(502, 8), "Data/com.apple.CoreML/weights/weight.bin": bytes(64)}


CONVOLUTION = {"op": "Convolution", "name": "c", "attrs": {"kernel": "(3, 3)"}, "inputs": [[0, 0, 0]]}
SYMBOL = as_json({"nodes": [{"op": "null", "name": "data", "inputs": []}, CONVOLUTION],
                  "arg_nodes": [0], "node_row_ptr": [0, 1, 2], "heads": [[1, 0, 0]], "attrs": {"mxnet_version": ["int", 10901]}})
PARAMS = struct.pack("<3Q", 0x112, 0, 1) + struct.pack("<LlLq3l", 0xF993FAC9, 0, 1, 2, 1, 0, 0) + bytes(8) + struct.pack("<QQ", 1, 5) + b"arg:w"


@case("net-symbol.json", "mxnet", "symbol", "1.9.1", first_operators=["Convolution"])
def mxnet_symbol() -> bytes:
    return SYMBOL


@case("net-0000.params", "mxnet", "params", arrays=1)
def mxnet_params() -> bytes:
    return PARAMS


@case("mx", "mxnet", "symbol and params", "1.9.1", companions=["net-0000.params"])
def mxnet_pair() -> dict[str, bytes]:
    return {"net-symbol.json": SYMBOL, "net-0000.params": PARAMS}


def pmml_file(model: str, version: str = "4.4", before: str = "") -> bytes:
    return (f'<?xml version="1.0"?>\n{before}<PMML version="{version}" xmlns="http://www.dmg.org/PMML-{version.replace(".", "_")}"><Header/>'
            f'<DataDictionary><DataField name="x"/></DataDictionary><{model} functionName="regression"></{model}></PMML>').encode()


@case("a.pmml", "pmml", "TreeModel", "4.4", models=["TreeModel"], doctype=False)
def pmml() -> bytes:
    return pmml_file("TreeModel")


@case("b.pmml", "pmml", "Scorecard", "4.2")
def pmml_after_comment() -> bytes:
    return pmml_file("Scorecard", "4.2", "<!-- made by <TreeModel> -->\n")


@case("c.pmml", "pmml", "NeuralNetwork", "4.1")
def pmml_utf16() -> bytes:
    return pmml_file("NeuralNetwork", "4.1").decode().encode("utf-16")


PFA = {"name": "double", "version": 3, "input": "double", "output": "double", "action": [{"*": ["input", 2]}]}


@case("a.pfa", "pfa", "JSON", "3", name="double", method="map")
def pfa() -> bytes:
    return as_json(PFA)


@case("b.pfa", "pfa", "YAML", "", name="fold", method="fold", parts=["cells"])
def pfa_yaml() -> bytes:
    return b"name: fold\nmethod: fold\ninput: double\noutput: double\nzero: 0\ncells:\n  x: {type: int, init: 0}\naction:\n  - {+: [input, tally]}\n"


CONFIG = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "transformers_version": "4.50.0", "vocab_size": 32000}


@case("hf", "hf", "safetensors", "4.50.0", architecture="LlamaForCausalLM", weights=["safetensors"], tokenizer=["tokenizer.json"], dtype="bfloat16")
def hf() -> dict[str, bytes]:
    return {"config.json": as_json(CONFIG), "model.safetensors": safetensors_file("w"), "tokenizer.json": b"{}"}


@case("hf2", "hf", "pytorch", weights=["pytorch"], custom_code=True)
def hf_pytorch() -> dict[str, bytes]:
    return {"config.json": as_json(CONFIG | {"auto_map": {"AutoModel": "m.M"}}), "pytorch_model.bin": torch_zip(STATE_DICT)}


@case("hf3", "hf", "lora adapter", base_model="base", weights=["adapter_model.safetensors"])
def hf_adapter() -> dict[str, bytes]:
    config = {"peft_type": "LORA", "base_model_name_or_path": "base", "task_type": "CAUSAL_LM"}
    return {"adapter_config.json": as_json(config), "adapter_model.safetensors": safetensors_file("q.lora_A.weight")}


@case("hf4", "hf", "diffusers pipeline", "0.30.0", architecture="StableDiffusionPipeline", parts=["unet"])
def hf_pipeline() -> dict[str, bytes]:
    index = {"_class_name": "StableDiffusionPipeline", "_diffusers_version": "0.30.0", "unet": ["diffusers", "UNet2DConditionModel"]}
    return {"model_index.json": as_json(index), "unet/config.json": b"{}"}


@case("config.json", "hf", "configuration only")
def hf_configuration() -> bytes:
    return as_json(CONFIG)


from golden import make_recognised  # noqa: E402, F401  (it registers its cases here)

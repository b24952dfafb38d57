"""What is recognised but not ours to convert: each a row with the sentence that says what to do, and a function that looks at the head."""
from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

from isomorph.formats import Match
from isomorph.wire import flatbuffers_head as flat
from isomorph.wire import json_head, protobuf_head, prototext_head, xml_head
from isomorph.wire.protobuf_head import BYTES, FIXED32, VARINT

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

Look = Callable[["Artifact"], Match | None]


class Recognised(NamedTuple):
    """One row: name, title, extensions, structures it is made of, the function that looks, what to do with such a file."""

    name: str
    title: str
    extensions: tuple[str, ...]
    within: tuple[str, ...]
    look: Look
    hint: str


def found(version: str = "", flavour: str = "", **detail: Any) -> Match:
    """A match whose format name the table fills in."""
    return Match("", version, flavour, "", detail)


def magic(*marks: bytes, at: int = 0, flavour: str = "") -> Look:
    """A look for one of some marks at a position."""
    return lambda artifact: found(flavour=flavour) if not artifact.is_folder and artifact.head[at:].startswith(marks) else None


def members(*names: str) -> Look:
    """A look for members of an archive, or names of a folder, that all stand there under one root."""
    def look(artifact: Artifact) -> Match | None:
        if artifact.is_folder:
            there: tuple[str, ...] = artifact.names
        else:
            archive = artifact.archive
            there = archive.names if archive else ()
        ends = {name.removeprefix("./") for name in there} | {name.partition("/")[2] for name in there}
        return found(members=len(there)) if ends.issuperset(names) else None
    return look


def text_head(artifact: Artifact) -> str:
    return "" if artifact.is_folder else artifact.head[:4096].removeprefix(b"\xef\xbb\xbf").decode("utf-8", "replace")


def begins(pattern: str) -> Look:
    """A look for a regular expression at the beginning of the text; its group `version` is the version."""
    def look(artifact: Artifact) -> Match | None:
        match = re.match(pattern, text_head(artifact))
        return found(match.groupdict().get("version") or "") if match else None
    return look


def document(artifact: Artifact) -> dict[str, Any]:
    value = None if artifact.is_folder or not json_head.begins_json(artifact.head) else json_head.read(artifact.view).value
    return value if isinstance(value, dict) else {}


def keys(*names: str) -> Look:
    """A look for keys that a JSON document has at its top."""
    return lambda artifact: found() if document(artifact).keys() >= set(names) else None


def empty(artifact: Artifact) -> Match | None:
    return found() if not artifact.is_folder and artifact.size == 0 else None


def html(artifact: Artifact) -> Match | None:
    """A page instead of a file: what a failed download leaves. Its title often says why."""
    head = text_head(artifact)
    if not re.match(r"(?>\s+|<!--.*?-->)*+<(?:!doctype\s+html|html)\b", head, re.IGNORECASE | re.DOTALL):
        return None
    title = re.search(r"<title[^>]*>([^<]{0,200})", head, re.IGNORECASE)
    return found(title=title[1].strip() if title else "")


def git_lfs(artifact: Artifact) -> Match | None:
    """The pointer that stands in place of a file which was not fetched. Specification: git-lfs docs/spec.md."""
    pointer = re.match(r"version https://git-lfs\.github\.com/spec/v(\d+)\n(?:ext-.*\n)*oid (\S+)\nsize (\d+)", text_head(artifact))
    return found(pointer[1], object=pointer[2], size=int(pointer[3])) if pointer else None


def tensorrt(artifact: Artifact) -> Match | None:
    """A plan begins with a mark; some exporters put a length and their metadata as JSON before it."""
    head = artifact.head
    length = int.from_bytes(head[:4], "little")
    wrapped = head[4:5] == b"{" and 4 + length < artifact.size
    mark = bytes(artifact.view[4 + length:8 + length]) if wrapped else head[:4]
    return found(flavour="with metadata" if wrapped else "") if mark in (b"ptrt", b"ftrt") else None


def openvino(artifact: Artifact) -> Match | None:
    root = xml_head.read(artifact.head)
    if root is None or root.name != "net" or not root.attributes.get("version", "").isdigit():
        return None
    weights = artifact.name.removesuffix(".xml") + ".bin"
    return found(root.attributes["version"], "IR", name=root.attributes.get("name", ""), companions=[weights])


def beside(*extensions: str, flavour: str = "weights") -> Look:
    """A look for a file that has no structure of its own, by its .bin name and the graph that stands beside it."""
    def look(artifact: Artifact) -> Match | None:
        if not artifact.name.endswith(".bin") or artifact.path is None:
            return None
        graph = next((name for suffix in extensions if (name := artifact.name[:-4] + suffix) and (artifact.path.parent / name).is_file()), "")
        return found(flavour=flavour, graph=graph) if graph else None
    return look


def ncnn(artifact: Artifact) -> Match | None:
    """The parameters begin with 7767517, as text or as a number."""
    weights = [artifact.name.removesuffix(".param") + ".bin"] if artifact.name.endswith(".param") else []
    if artifact.head[:4] == (7767517).to_bytes(4, "little"):
        return found(flavour="binary parameters")
    lines = text_head(artifact).split("\n", 3)
    if lines[0].strip() != "7767517":
        return beside(".param")(artifact)
    pnnx = re.search(r"^(?:pnnx\.|nn\.|F\.|torch\.|aten::)", text_head(artifact), re.MULTILINE)
    return found(flavour="pnnx" if pnnx else "parameters", companions=weights)


def mnn(artifact: Artifact) -> Match | None:
    """A flatbuffer without identifier: operators in slot 3, names of tensors in slot 7, each operator with a type."""
    view = artifact.view
    root = flat.root(view)
    operators = flat.tables(view, root, 3, 4) if root else []
    names = flat.vector(view, root, 7, 4)[1] if root else 0
    if artifact.head[4:8].isalnum() or not operators or not names or not all(flat.string(view, operator, 3).isprintable() for operator in operators):
        return None
    return found(operators=flat.vector(view, root, 3, 4)[1], tensors=names)


def flatbuffer(pattern: str) -> Look:
    """A look for a flatbuffer identifier whose group is the version."""
    def look(artifact: Artifact) -> Match | None:
        match = re.fullmatch(pattern, flat.identifier(artifact.head))
        return found(match[1] if match.groups() else "") if match and flat.root(artifact.view) else None
    return look


def paddle(artifact: Artifact) -> Match | None:
    """A ProgramDesc (blocks with an index and a parent), combined parameters (16 zero bytes, then a TensorDesc), or a program as JSON."""
    if document(artifact).keys() >= {"base_code", "program"}:
        return found(flavour="program, JSON")
    view = artifact.view
    if artifact.head[:16] == bytes(16):
        size = int.from_bytes(view[16:20], "little")
        tensor = protobuf_head.outline(view, 20, min(20 + size, len(view)), 80)
        fits = 2 <= size < 1024 and tensor.complete and tensor.fits({1: VARINT, 2: VARINT}) and tensor.first(1)
        return found(flavour="parameters") if fits else None
    program = protobuf_head.outline(view, most=64)
    block = program.first(1)
    if not program.valid or not program.fits({1: BYTES, 2: BYTES, 3: BYTES, 4: BYTES, 5: BYTES}) or block is None:
        return None
    inner = protobuf_head.outline(view, block.start, block.stop, 256)
    numbers = inner.kinds().keys()
    if not inner.fits({1: VARINT, 2: VARINT, 3: BYTES, 4: BYTES, 5: VARINT}) or not numbers >= {1, 2} or not numbers & {3, 4}:
        return None
    return found(flavour="program", blocks=len(program.all(1)))


def caffe(artifact: Artifact) -> Match | None:
    """A NetParameter: binary, with a name and layers that have a name and a type; or its text."""
    if artifact.head[:1].isalpha() or artifact.head[:1] in b"#":
        head = prototext_head.read(artifact.head)
        layers = {"layer.type", "layers.type"} & head.fields.keys()
        solver = {"base_lr", "lr_policy"} <= head.fields.keys()
        return found(flavour="network, text" if layers else "solver") if head.sound and (layers or solver) else None
    view = artifact.view
    net = protobuf_head.outline(view, most=2_000)
    layer = net.first(100) or net.first(2)
    if not net.valid or layer is None or not net.fits({1: BYTES, 2: BYTES, 3: BYTES, 4: VARINT, 5: VARINT, 6: BYTES, 7: VARINT, 8: BYTES, 100: BYTES}):
        return None
    inner = protobuf_head.outline(view, layer.start, layer.stop, 200)
    modern = layer.number == 100
    named = protobuf_head.text(view, inner.first(1 if modern else 4))
    kind = inner.first(2 if modern else 5)
    if not named or kind is None or kind.wire != (BYTES if modern else VARINT):
        return None
    return found("2" if modern else "1", "weights", layers=len(net.all(layer.number)))


def caffe2(artifact: Artifact) -> Match | None:
    """A NetDef: a name, operators with a type in field 4, external inputs and outputs; or its text."""
    if artifact.head[:1].isalpha():
        head = prototext_head.read(artifact.head)
        operators = "op.type" in head.fields and {"op.input", "op.output"} & head.fields.keys()
        return found(flavour="text") if head.sound and operators and not {"node.op", "layer.type"} & head.fields.keys() else None
    view = artifact.view
    net = protobuf_head.outline(view, most=2_000)
    fits = net.fits(dict.fromkeys((1, 2, 3, 5, 6, 7, 8, 9), BYTES) | {4: VARINT})
    operator = net.first(2)
    if not net.valid or not fits or operator is None or not (net.first(7) or net.first(8)):
        return None
    inner = protobuf_head.outline(view, operator.start, operator.stop, 200)
    kind = protobuf_head.text(view, inner.first(4))
    if not inner.fits(dict.fromkeys((1, 2, 3, 4, 5, 6, 7, 8, 9), BYTES)) or not re.fullmatch(r"[A-Z]\w+", kind):
        return None
    return found(operators=len(net.all(2)))


def cntk(artifact: Artifact) -> Match | None:
    """Version 1 begins with B, C, N in UTF-16; version 2 is a Dictionary of text keys to typed values."""
    if artifact.head.startswith(b"B\0C\0N\0\0\0"):
        return found("1")
    view = artifact.view
    message = protobuf_head.outline(view, most=256)
    entry = message.first(2)
    if not message.valid or not message.fits({1: VARINT, 2: BYTES}) or entry is None or not message.first(1):
        return None
    pair = protobuf_head.outline(view, entry.start, entry.stop, 4)
    value = pair.first(2)
    inner = protobuf_head.outline(view, value.start, value.stop, 8) if value and value.wire == BYTES else None
    keyed = re.fullmatch(r"[a-z_]\w*", protobuf_head.text(view, pair.first(1)))
    return found("2") if keyed and inner and inner.kinds().get(1) == VARINT and inner.kinds().get(2) == VARINT else None


def darknet(artifact: Artifact) -> Match | None:
    """A configuration begins with its [net] section. Weights have only version numbers, so their name counts, too."""
    sections = re.findall(r"^\s*\[(\w+)\]", text_head(artifact), re.MULTILINE)
    if sections[:1] in (["net"], ["network"]) and len(sections) > 1:
        return found(flavour="configuration", sections=len(sections))
    words = [int.from_bytes(artifact.head[at:at + 4], "little") for at in (0, 4, 8)]
    if artifact.suffix == ".weights" and words[0] == 0 and words[1] in (1, 2) and words[2] < 10 and artifact.size > 20:
        return found(f"0.{words[1]}.{words[2]}", "weights")
    return None


def torch7(artifact: Artifact) -> Match | None:
    """Objects of Lua Torch: a type (3 table, 4 object), an index, and for objects the mark "V 1" and a class name."""
    head = artifact.head[:1024]
    binary = head[:8] in (b"\4\0\0\0\1\0\0\0", b"\3\0\0\0\1\0\0\0")
    mark = head.find(b"\3\0\0\0V 1") if binary else -1
    if mark >= 0:
        name = head[mark + 11:mark + 11 + int.from_bytes(head[mark + 7:mark + 11], "little")]
        return found("1", "binary", **{"class": name[:100].decode("utf-8", "replace")})
    text = re.match(r"[34]\n1\n(?:.*\n){0,40}?3\nV 1\n\d+\n([\w.]+)\n", text_head(artifact))
    return found("1", "text", **{"class": text[1]}) if text else None


def kmodel(artifact: Artifact) -> Match | None:
    """Versions 4 and later have a mark; version 3 is only a number, so its name counts, too."""
    if artifact.head.startswith(b"LDMK"):
        return found(str(int.from_bytes(artifact.head[4:8], "little")))
    return found("3") if artifact.suffix == ".kmodel" and artifact.head.startswith(b"\3\0\0\0") else None


def rknn(artifact: Artifact) -> Match | None:
    marks = (b"RKNN", b"RKNX", b"CYPTRKNN", b"VPMN")
    return found() if artifact.head.startswith(marks) or artifact.head[4:8] == b"RKNN" else None


def barracuda(artifact: Artifact) -> Match | None:
    """A version below 64, the number of inputs, then the length-prefixed name of the first."""
    head = artifact.head
    version, inputs, length = (int.from_bytes(head[a:b], "little") for a, b in ((0, 8), (8, 12), (12, 16)))
    name = head[16:16 + length] if 0 < length < 200 else b""
    if 7 <= version < 64 and 0 < inputs < 64 and len(name) == length and name.isascii() and name.decode("ascii").isprintable() and name:
        return found(str(version), inputs=inputs)
    return None


def sentis(artifact: Artifact) -> Match | None:
    return found() if artifact.suffix == ".sentis" and flat.root(artifact.view) else None


def xgboost(artifact: Artifact) -> Match | None:
    """JSON and UBJSON with a learner; the old binary, where the name of the objective stands behind 136 bytes of parameters; the text dump."""
    value = document(artifact)
    if isinstance(value.get("learner"), dict):
        version = value.get("version")
        return found(".".join(str(part) for part in version) if isinstance(version, list) else "", "JSON")
    head = artifact.head
    if head.startswith((b"{L", b"{l", b"{i")) and b"learner" in head[:64]:
        return found(flavour="UBJSON")
    if head.startswith((b"booster[0]:", b"bs64\t")):
        return found(flavour="text dump" if head.startswith(b"boo") else "base64")
    body = head.removeprefix(b"binf")
    length = int.from_bytes(body[136:144], "little")
    objective = body[144:144 + length] if length < 64 else b""
    known = re.fullmatch(rb"(?:reg|binary|multi|rank|count|survival):[\w:]+", objective)
    return found(flavour="binary", objective=objective.decode()) if known else None


# Fields of model_config.proto
TRITON = {
    "name", "platform", "backend", "runtime", "version_policy", "max_batch_size", "input", "output", "batch_input", "batch_output", "optimization",
    "dynamic_batching", "sequence_batching", "ensemble_scheduling", "instance_group", "default_model_filename", "cc_model_filenames", "metric_tags",
    "parameters", "model_warmup", "model_operations", "model_transaction_policy", "model_repository_agents", "response_cache", "model_metrics",
}


def triton(artifact: Artifact) -> Match | None:
    """config.pbtxt, or the folder of a model repository that holds it beside numbered versions."""
    if artifact.is_folder:
        file = artifact.child("config.pbtxt") if "config.pbtxt" in artifact.names else None
        match = triton(file) if file and not file.is_folder else None
        return found(match.version, match.flavour, versions=[name for name in artifact.names if name.isdigit()], **match.detail) if match else None
    head = prototext_head.read(artifact.head) if artifact.head[:1].isalpha() or artifact.head[:1] in b"#" else None
    outer = {name.split(".")[0] for name in head.fields} if head and head.sound else set()
    if head is None or not outer & {"platform", "backend"} or not outer <= TRITON:
        return None
    return found(flavour=head.fields.get("backend") or head.fields.get("platform", ""), name=head.fields.get("name", ""))


def mlflow(artifact: Artifact) -> Match | None:
    """A folder with an MLmodel file, which is YAML with a list of flavors; or that file."""
    file = artifact.child("MLmodel") if artifact.is_folder and "MLmodel" in artifact.names else None if artifact.is_folder else artifact
    text = text_head(file) if file and not file.is_folder else ""
    if not re.search(r"^flavors:\s*$", text, re.MULTILINE):
        return None
    flavours = re.findall(r"^  (\w+):\s*$", text.partition("flavors:")[2].split("\nm")[0], re.MULTILINE)
    version = re.search(r"^mlflow_version: *(\S+)", text, re.MULTILINE)
    return found(version[1] if version else "", ", ".join(name for name in flavours if name != "python_function"))


def compiled_coreml(artifact: Artifact) -> Match | None:
    known = {"model.mil", "model.espresso.net", "metadata.json", "model0", "model"} & set(artifact.names) if artifact.is_folder else set()
    return found() if known and "coremldata.bin" in artifact.names else None


def orbax(artifact: Artifact) -> Match | None:
    names = set(artifact.names) if artifact.is_folder else set()
    marks = {"_METADATA", "_CHECKPOINT_METADATA", "manifest.ocdbt"} & names
    return found(flavour="orbax") if marks and ("_sharding" in names or "manifest.ocdbt" in names or "_METADATA" in names) else None


def flax(artifact: Artifact) -> Match | None:
    """MessagePack: maps of text keys down to an extension of type 1, which is an array. Specification: msgpack spec.md."""
    head, at = artifact.head, 0
    names: list[str] = []
    for _ in range(64):
        code = head[at:at + 1]
        if not code:
            return None
        if 0x80 < code[0] <= 0x8F or code in (b"\xde", b"\xdf"):
            at += {b"\xde": 3, b"\xdf": 5}.get(code, 1)
        elif names and code in (b"\xc7", b"\xc8", b"\xc9"):
            kind = at + {b"\xc7": 2, b"\xc8": 3, b"\xc9": 5}[code]
            return found(flavour="msgpack", first="/".join(names)[:200]) if head[kind:kind + 1] == b"\1" else None
        else:
            return None
        length, start = (head[at] & 0x1F, at + 1) if 0xA0 <= (head[at:at + 1] or b"\0")[0] <= 0xBF else (head[at + 1:at + 2] or b"\0", at + 2)
        length = length if isinstance(length, int) else length[0] if head[at:at + 1] == b"\xd9" else 0
        name = head[start:start + length]
        if not name or not name.isascii() or not name.decode("ascii").isprintable():
            return None
        names.append(name.decode("ascii"))
        at = start + length
    return None


def nnef(artifact: Artifact) -> Match | None:
    """graph.nnef is text, a tensor file begins with 4E EF; the folder holds both."""
    if artifact.is_folder:
        file = artifact.child("graph.nnef") if "graph.nnef" in artifact.names else None
        return nnef(file) if file and not file.is_folder else None
    if artifact.head[:2] == b"\x4e\xef" and artifact.size >= 128 and artifact.head[2:3] == b"\1":
        return found(f"{artifact.head[2]}.{artifact.head[3]}", "tensor")
    match = re.match(r"(?:\s|#.*\n)*version\s+(\d+\.\d+)\s*;", text_head(artifact))
    return found(match[1], "graph") if match else None


def llamafile(artifact: Artifact) -> Match | None:
    """A program that carries its weights in a zip behind itself."""
    if not artifact.head.startswith((b"\x7fELF", b"MZqFpD", b"MZ")) or artifact.archive is None:
        return None
    weights = [name for name in artifact.archive.names if name.endswith(".gguf")]
    return found(weights=weights) if weights else None


def sentencepiece(artifact: Artifact) -> Match | None:
    """A ModelProto: pieces of text with a score (a float) and a type."""
    view = artifact.view
    model = protobuf_head.outline(view, most=32)
    if not model.valid or not model.fits(dict.fromkeys((1, 2, 3, 4, 5), BYTES)) or not model.first(1):
        return None
    pieces = [protobuf_head.outline(view, item.start, item.stop, 4) for item in model.all(1)]
    fits = all(piece.fits({1: BYTES, 2: FIXED32, 3: VARINT}) and piece.first(1) and piece.first(2) for piece in pieces)
    return found() if fits else None


def keras_json(artifact: Artifact) -> Match | None:
    value = document(artifact)
    layered = {"class_name", "config"} <= value.keys() and {"keras_version", "backend", "module", "build_config"} & value.keys()
    if not layered or "modelTopology" in value:
        return None
    detail: dict[str, Any] = {"class": value.get("class_name")}
    return found(str(value.get("keras_version", ""))[:40], **detail)


def tvm(artifact: Artifact) -> Match | None:
    nodes = document(artifact).get("nodes")
    compiled = isinstance(nodes, list) and any(isinstance(node, dict) and str(node.get("op", "")).startswith("tvm_") for node in nodes)
    return found(flavour="graph") if compiled else None


def spark(artifact: Artifact) -> Match | None:
    file = artifact.child("metadata") if artifact.is_folder and {"metadata", "data"} <= set(artifact.names) else None
    part = file.child("part-00000") if file and file.is_folder and "part-00000" in file.names else None
    value = document(part) if part else {}
    return found(str(value.get("sparkVersion", "")), **{"class": value["class"]}) if isinstance(value.get("class"), str) else None


def har(artifact: Artifact) -> Match | None:
    archive = artifact.archive
    named = archive is not None and archive.kind == "tar" and any(name.endswith(".hn") for name in archive.names)
    return found(flavour="archive") if named else None


def hailo(artifact: Artifact) -> Match | None:
    return found(flavour="executable") if artifact.head.startswith(b"\x01HEF") else har(artifact)


def torchserve(artifact: Artifact) -> Match | None:
    return members("MAR-INF/MANIFEST.json")(artifact)


def pickled(name: str) -> Look:
    """A look into a pickle by the function of that name; the machine that interprets pickles is loaded when one is met."""
    def look(artifact: Artifact) -> Match | None:
        from isomorph.formats import _pickled
        return getattr(_pickled, name)(artifact)
    return look


def zip_with(*names: str) -> Look:
    """A look for members of a file that begins like a zip, so that no other file is searched for an archive."""
    look = members(*names)
    return lambda artifact: look(artifact) if artifact.head.startswith(b"PK\3\4") else None


FROM_SOURCE = "convert the model it was made from"
RETRAIN = "isomorph cannot read it"

RECOGNISED: tuple[Recognised, ...] = (
    Recognised("empty", "Empty file", (), ("empty",), empty, "it holds nothing: download or copy it again"),
    Recognised("git_lfs", "Git LFS pointer", (), ("text",), git_lfs, "it only names the real file: run `git lfs pull` in its repository"),
    Recognised("html", "HTML page", (), ("xml",), html,
               "a web page was saved instead of the model: download the file itself, after signing in if that is needed"),
    Recognised("tensorrt", "TensorRT plan", (".engine", ".plan", ".trt"), ("binary",), tensorrt,
               "a plan runs only on the GPU and TensorRT version it was built for: convert the ONNX file it was built from"),
    Recognised("openvino", "OpenVINO IR", (".xml",), ("xml",), openvino, f"IR has no way back: {FROM_SOURCE}; OpenVINO also reads ONNX and TFLite directly"),
    Recognised("openvino_weights", "OpenVINO IR weights", (".bin",), ("binary",), beside(".xml"),
               "these are the weights of the .xml beside it: give that file"),
    Recognised("ncnn", "ncnn", (".param", ".param.bin", ".bin"), ("text", "binary"), ncnn,
               f"{RETRAIN}: {FROM_SOURCE}; pnnx makes ncnn from TorchScript or ONNX"),
    Recognised("mnn", "MNN", (".mnn",), ("binary",), mnn, f"MNN's own MNNConvert writes it as JSON, nothing converts it back: {FROM_SOURCE}"),
    Recognised("paddle", "PaddlePaddle", (".pdmodel", ".pdiparams", ".json"), ("protobuf", "binary", "json"), paddle,
               "run `paddle2onnx --model_dir FOLDER --model_filename FILE --params_filename FILE --save_file model.onnx`, then convert that"),
    Recognised("mlmodelc", "Compiled Core ML model", (".mlmodelc",), ("folder",), compiled_coreml,
               "it is compiled for Apple devices: convert the .mlpackage or .mlmodel it was made from"),
    Recognised("executorch", "ExecuTorch program", (".pte",), ("flatbuffer",), flatbuffer(r"ET(\d\d)"),
               "it is lowered to kernels: convert the .pt2 it was made from"),
    Recognised("ort", "ONNX Runtime flatbuffer", (".ort",), ("flatbuffer",), flatbuffer("ORTM"),
               "it may hold operators fused for one machine: convert the .onnx it was made from"),
    Recognised("circle", "Circle", (".circle",), ("flatbuffer",), flatbuffer(r"CIR(\d)"), "convert the TFLite or ONNX file it was made from"),
    Recognised("mindspore", "MindSpore Lite", (".ms",), ("flatbuffer",), flatbuffer(r"MSL(\d)"), FROM_SOURCE),
    Recognised("sklearn", "Pickled scikit-learn model", (".pkl", ".pickle", ".joblib"), ("pickle", "compressed"), pickled("sklearn"),
               "loading it runs code: where you trust it, run `skl2onnx.to_onnx` in the Python that made it and convert the ONNX file"),
    Recognised("joblib", "joblib file", (".joblib", ".pkl"), ("pickle", "compressed"), pickled("joblib"),
               "loading it runs code: where you trust it, save its arrays as .npz or its model as ONNX in the Python that made it"),
    Recognised("pickle", "Python pickle", (".pkl", ".pickle"), ("pickle", "compressed"), pickled("other"),
               "loading it runs code: where you trust it, save it in a format without code in the Python that made it"),
    Recognised("skops", "skops file", (".skops",), ("zip",), zip_with("schema.json"),
               "load it with skops.io, check its types, and run `skl2onnx.to_onnx`"),
    Recognised("triton", "Triton model configuration", ("config.pbtxt",), ("text", "folder"), triton,
               "it describes how a model is served: give the model file in the numbered folder beside it"),
    Recognised("nemo", "NVIDIA NeMo archive", (".nemo",), ("tar",), lambda a: None if a.is_folder else members("model_config.yaml", "model_weights.ckpt")(a),
               "unpack it with tar: model_weights.ckpt is a PyTorch file that isomorph reads"),
    Recognised("mlflow", "MLflow model", ("MLmodel",), ("folder", "text"), mlflow, "give the model file that its MLmodel names"),
    Recognised("xgboost", "XGBoost", (".ubj", ".xgb", ".model"), ("json", "binary", "text"), xgboost,
               "run `onnxmltools.convert_xgboost` and convert the ONNX file"),
    Recognised("lightgbm", "LightGBM", (".txt", ".lgb"), ("text",), begins(r"tree\r?\nversion=(?P<version>\S+)"),
               "run `onnxmltools.convert_lightgbm` and convert the ONNX file"),
    Recognised("catboost", "CatBoost", (".cbm",), ("text", "binary"), magic(b"CBM1"), "run `model.save_model('model.onnx', format='onnx')` in CatBoost"),
    Recognised("catboost_json", "CatBoost JSON", (".json",), ("json",), keys("features_info", "model_info"),
               "run `model.save_model('model.onnx', format='onnx')` in CatBoost"),
    Recognised("caffe", "Caffe", (".prototxt", ".caffemodel"), ("text", "protobuf"), caffe, "OpenCV and caffe2onnx read it; isomorph does not"),
    Recognised("caffe2", "Caffe2", (".pb", ".pbtxt"), ("text", "protobuf"), caffe2, f"Caffe2 is discontinued: {FROM_SOURCE}"),
    Recognised("cntk", "CNTK", (".cntk", ".model", ".dnn"), ("binary", "protobuf"), cntk,
               "CNTK 2.7 itself writes ONNX: `model.save(path, format=ModelFormat.ONNX)`"),
    Recognised("darknet", "Darknet", (".cfg", ".weights"), ("text", "binary"), darknet, "isomorph does not read it; OpenCV and several YOLO repositories do"),
    Recognised("torch7", "Lua Torch", (".t7",), ("binary", "text"), torch7,
               "Lua Torch is discontinued: load it with torchfile in Python and save the arrays as .npz"),
    Recognised("torchserve", "TorchServe archive", (".mar",), ("zip",), zip_with("MAR-INF/MANIFEST.json"),
               "unpack it: the model file inside is what to convert"),
    Recognised("rknn", "Rockchip RKNN", (".rknn",), ("binary", "text"), rknn, f"it is compiled for one chip: {FROM_SOURCE}"),
    Recognised("hailo", "Hailo executable", (".hef", ".har"), ("binary", "tar"), hailo, f"it is compiled for one chip: {FROM_SOURCE}"),
    Recognised("kmodel", "Canaan kmodel", (".kmodel",), ("binary",), kmodel, f"it is compiled for one chip: {FROM_SOURCE}"),
    Recognised("ascend", "Ascend offline model", (".om",), ("binary",), magic(b"IMOD"), f"it is compiled for one chip: {FROM_SOURCE}"),
    Recognised("dlc", "Qualcomm DLC", (".dlc",), ("zip",), zip_with("dlc.metadata"), f"it is compiled for one chip: {FROM_SOURCE}"),
    Recognised("barracuda", "Unity Barracuda", (".nn",), ("binary",), barracuda, "convert the ONNX file it was imported from"),
    Recognised("sentis", "Unity Sentis", (".sentis",), ("binary", "flatbuffer"), sentis, "convert the ONNX file it was imported from"),
    Recognised("llamafile", "llamafile", (".llamafile",), ("zip",), llamafile, "it is a program with a GGUF inside: take that out with unzip and give it"),
    Recognised("litertlm", "LiteRT-LM bundle", (".litertlm",), ("binary", "text"), magic(b"LITERTLM"),
               "it bundles TFLite files with a tokenizer: give the model it was made from"),
    Recognised("nnef", "NNEF", (".nnef", ".dat"), ("text", "binary", "folder"), nnef, "Khronos' nnef_tools convert it to ONNX"),
    Recognised("mlir", "MLIR bytecode", (".mlirbc", ".mlir"), ("binary",), magic(b"ML\xefR"), f"it is an intermediate form of a compiler: {FROM_SOURCE}"),
    Recognised("tvm", "TVM graph", (".json",), ("json",), tvm, f"its kernels are in a library beside it: {FROM_SOURCE}"),
    Recognised("jax", "JAX checkpoint", (".msgpack",), ("folder", "binary"), lambda a: orbax(a) if a.is_folder else flax(a),
               "restore it in JAX and save the arrays as .safetensors or .npz"),
    Recognised("keras_json", "Keras architecture", (".json",), ("json",), keras_json, "it holds no weights: give the .keras or .h5 file of the whole model"),
    Recognised("spark_ml", "Spark ML model", (), ("folder",), spark, "write it as PMML with JPMML-SparkML and convert that"),
    Recognised("mojo", "H2O MOJO", (".mojo", ".zip"), ("zip",), zip_with("model.ini"),
               "isomorph does not read it; H2O also writes its GLM and trees as Java code"),
    Recognised("sentencepiece", "SentencePiece vocabulary", (".model", ".spm"), ("protobuf",), sentencepiece,
               "it is the tokenizer of a language model: give the folder it stands in"),
)

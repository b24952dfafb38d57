"""A Hugging Face folder: a configuration that names an architecture, a tokenizer, and weights.

Read: the weights, in safetensors where they are there, else as PyTorch wrote them; what stands beside them as text comes along. Written: weights with the
names of transformers, in shards, with what stands beside them.
"""
from __future__ import annotations

import fnmatch
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Unsupported
from isomorph.formats import Format, Match
from isomorph.model import Checkpoint
from isomorph.progress import SILENT, Progress
from isomorph.report import Finding, Report
from isomorph.wire import files, json_head

if TYPE_CHECKING:
    import os

    from isomorph.artifact import Artifact

# The files that weights are read from, the preferred ones first, with the format that reads them
SOURCES = (("model.safetensors.index.json", "safetensors"), ("model.safetensors", "safetensors"), ("pytorch_model.bin.index.json", "torch"),
           ("pytorch_model.bin", "torch"))
BESIDE = ("config.json", "generation_config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
          "merges.txt", "vocab.txt", "chat_template.jinja")
PREFIX = "file:"                            # before their names, in the metadata
SHARD_BYTES = 5_000_000_000

# What the weights are, the preferred kind first
WEIGHTS = {
    "safetensors": ("model.safetensors", "model-*-of-*.safetensors", "*.safetensors"),
    "pytorch": ("pytorch_model.bin", "pytorch_model-*-of-*.bin", "*.pt", "*.pth"),
    "gguf": ("*.gguf",),
    "onnx": ("*.onnx", "onnx"),
    "tensorflow": ("tf_model.h5", "tf_model-*.h5"),
    "flax": ("flax_model.msgpack", "flax_model-*.msgpack"),
}
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.txt", "vocab.json", "spiece.model", "sentencepiece.bpe.model", "tokenizer_config.json")


def identify(artifact: Artifact) -> Match | None:
    """Recognises config.json with a model type or architectures, an adapter's or a pipeline's configuration: which network, which weights, which tokenizer."""
    if artifact.is_folder:
        for name, reader in (("model_index.json", _pipeline), ("adapter_config.json", _adapter), ("config.json", _model)):
            file = artifact.child(name) if name in artifact.names else None
            config = _document(file) if file and not file.is_folder else None
            if config and (match := reader(artifact.names, config)):
                return match
        return None
    config = _document(artifact) if json_head.begins_json(artifact.head) else None
    if not config:
        return None
    match = _model((), config) or _adapter((), config) or _pipeline((), config)
    return Match("hf", match.version, "configuration only", "", match.detail, "give the folder it stands in") if match else None


def _document(file: Artifact) -> dict[str, Any] | None:
    value = json_head.read(file.view).value
    return value if isinstance(value, dict) else None


def _model(names: tuple[str, ...], config: dict[str, Any]) -> Match | None:
    architectures, kind = config.get("architectures"), config.get("model_type")
    if not isinstance(kind, str) and not (isinstance(architectures, list) and architectures and isinstance(architectures[0], str)):
        return None
    detail: dict[str, Any] = {"architecture": architectures[0] if isinstance(architectures, list) and architectures else None, "model_type": kind}
    weights = [found for found, patterns in WEIGHTS.items() if any(fnmatch.filter(names, pattern) for pattern in patterns)]
    detail |= {"weights": weights, "tokenizer": [name for name in TOKENIZERS if name in names], "dtype": config.get("dtype") or config.get("torch_dtype")}
    if isinstance(quantization := config.get("quantization_config"), dict):
        detail["quantization"] = quantization.get("quant_method")
    if "auto_map" in config:
        detail["custom_code"] = True
    version = config.get("transformers_version")
    return Match("hf", version if isinstance(version, str) else "", weights[0] if weights else "configuration only", "weights" if weights else "", detail)


def _adapter(names: tuple[str, ...], config: dict[str, Any]) -> Match | None:
    if not isinstance(config.get("peft_type"), str):
        return None
    detail = {"base_model": config.get("base_model_name_or_path"), "task": config.get("task_type"),
              "weights": [name for name in names if name.startswith("adapter_model.")]}
    return Match("hf", "", f"{config['peft_type'].lower()} adapter", "weights", detail)


def _pipeline(names: tuple[str, ...], config: dict[str, Any]) -> Match | None:
    kind = config.get("_class_name")
    if not isinstance(kind, str) or "_diffusers_version" not in config:
        return None
    parts = [key for key, value in config.items() if isinstance(value, list) and not key.startswith("_")]
    return Match("hf", str(config["_diffusers_version"]), "diffusers pipeline", "weights", {"architecture": kind, "parts": parts})


def read(artifact: Artifact, *, progress: Progress = SILENT) -> Checkpoint:
    """The weights of a folder. `metadata` has the texts of the files beside them under `file:` and their names. Raises `Unsupported` where there are none."""
    from isomorph.formats import _table
    folder = artifact if artifact.is_folder else None
    found = next(((name, kind) for name, kind in SOURCES if folder is not None and name in folder.names), None)
    if folder is None or found is None:
        raise Unsupported("the folder holds no weights that are read as a whole", where=artifact.where, hint="give one of its files")
    file = folder.child(found[0])
    assert file is not None
    content = _table.get(found[1]).reader(file, progress=progress)
    texts = {name: _text(folder.child(name)) for name in BESIDE if name in folder.names}
    return Checkpoint(content.tensors, dict(content.metadata) | {PREFIX + name: text for name, text in texts.items() if text is not None}, content.findings)


def _text(file: Artifact | None) -> str | None:
    if file is None or file.is_folder or file.size > file.limits.json_bytes:
        return None
    return bytes(file.view).decode("utf-8", "replace")


def write(model: Checkpoint, path: str | os.PathLike[str], *, force: bool = False, progress: Progress = SILENT, shard_bytes: int = SHARD_BYTES) -> Report:
    """A folder that `AutoModel.from_pretrained` loads. What stands beside the weights is what was read beside them, or made from the keys of GGUF.

    Raises `Unsupported` for weights of which neither is known, `Usage` where a file of the folder exists and `force` is not set.
    """
    from isomorph.formats import safetensors
    folder = Path(path)
    beside = {name.removeprefix(PREFIX): text for name, text in model.metadata.items() if name.startswith(PREFIX)}
    findings: list[Finding] = []
    if "config.json" not in beside:
        from isomorph.architectures import folder as made
        if "general.architecture" not in model.metadata:
            raise Unsupported("nothing says which network the weights belong to", hint="convert a GGUF file, or a folder with a config.json")
        beside, findings = made.beside(model)
    with files.inside_new_folders([folder]):
        paths = [folder / name for name in beside]
        with files.replacing_all(paths, force=force) as outputs:
            for text, output in zip(beside.values(), outputs, strict=True):
                output.write(text.encode("utf-8", "surrogateescape"))
            weights = Checkpoint(model.tensors, {"format": "pt"})
            report = safetensors.write(weights, folder / "model.safetensors", force=force, progress=progress, shard_bytes=shard_bytes)
    return Report(str(folder), [*findings, *report.findings], report.facts | {"files": [*report.facts["files"], *beside]})


FORMAT = Format(
    name="hf", title="Hugging Face folder", extensions=(), holds="weights", spec="https://huggingface.co/docs/transformers/main_classes/configuration",
    identify=identify, read=read, write=write, of="language model",
)

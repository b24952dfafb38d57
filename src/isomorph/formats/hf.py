"""A Hugging Face folder: a configuration that names an architecture, a tokenizer, and weights."""
from __future__ import annotations

import fnmatch
from typing import TYPE_CHECKING, Any

from isomorph.formats import Format, Match
from isomorph.wire import json_head

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

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


FORMAT = Format(
    name="hf", title="Hugging Face folder", extensions=(), holds="weights", spec="https://huggingface.co/docs/transformers/main_classes/configuration",
    identify=identify,
)

"""Language models under two sets of names: those of Hugging Face folders and those of GGUF, with what the weights go through on the way.

A family is a table (`_table`): names on both sides, and for some a change of the weights, each of which is undone on the way back.
"""
from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isomorph.architectures._table import FAMILIES, GGML_LLAMA, KEYS, Family
from isomorph.errors import Damaged, Missing, Unsupported
from isomorph.formats.gguf import KINDS_KEY, Typed, keys_of
from isomorph.model import Checkpoint
from isomorph.quant.mixes import Model
from isomorph.report import Finding, Severity
from isomorph.tensors import BITS, NAME, NUMBER, ComputedTensor, dims_of, type_of

if TYPE_CHECKING:
    import numpy as np

    from isomorph import model
    from isomorph.artifact import Artifact

SPECIAL = ("<unk>", "<s>", "</s>")
NORMAL, UNKNOWN, CONTROL, BYTE = 1, 2, 3, 6                       # tokenizer.ggml.token_type
FILE_TYPES = {"FLOAT": 0, "FLOAT16": 1, "BFLOAT16": 32}           # general.file_type
FLOATS = {NUMBER[name] for name in ("FLOAT", "FLOAT16", "BFLOAT16")}


def network(content: Checkpoint, artifact: Artifact, format_name: str, *, quantised: bool = True,
            input_shapes: Mapping[str, Sequence[int]] | None = None) -> model.Model:
    """The graph that the weights of a file belong to, as ONNX: what the file itself says (`Format.network`), else that of a language model with keys and
    values kept (see `decoder`). Raises as `under_gguf_names`, and `Unsupported`."""
    from isomorph.architectures import decoder
    from isomorph.formats import _table
    own = _table.get(format_name).network
    stated = own(artifact, input_shapes=input_shapes) if own is not None else None
    if stated is not None:
        return stated
    return decoder.graph(under_gguf_names(content, artifact, format_name), quantised=quantised)


def under_gguf_names(content: Checkpoint, artifact: Artifact, format_name: str) -> Checkpoint:
    """The weights of a file under GGUF's names. Raises `Unsupported` as `to_gguf` does, `Missing` and `Damaged` as `config_beside` does."""
    if format_name == "gguf":
        return content
    return of_ggml(content) if format_name == "ggml" else to_gguf(content, config_beside(artifact))


def config_beside(artifact: Artifact) -> dict[str, Any]:
    """What a Hugging Face folder says of its model in config.json. Raises `Missing` where there is none beside the weights, `Damaged` where it is no JSON."""
    config = artifact.child("config.json") if artifact.is_folder else artifact.sibling("config.json")
    if config is None or config.size > artifact.limits.json_bytes:
        raise Missing("there is no config.json beside the weights", where=artifact.where, hint="put it there: it says which architecture they belong to")
    try:
        document = json.loads(bytes(config.view))
    except (ValueError, RecursionError):
        raise Damaged("it is no JSON", where=config.where) from None
    return document if isinstance(document, dict) else {}


def to_gguf(content: Checkpoint, config: Mapping[str, Any]) -> Checkpoint:
    """The weights of a Hugging Face folder under GGUF's names. `config` is its config.json; vectors become float32, as llama.cpp asks for.

    Raises `Unsupported` for a family that has no table, with every tensor that the table does not name.
    """
    family = next((family for family in FAMILIES.values() if set(family.classes) & set(_texts(config.get("architectures")))), None)
    if family is None:
        raise Unsupported(f"there is no table for {', '.join(_texts(config.get('architectures'))) or 'a model without architectures in its config.json'}",
                          hint="the tables are " + ", ".join(FAMILIES))
    metadata = _metadata(family, config)
    if KINDS_KEY in content.metadata:           # the file was GGUF once, so its keys came along, tokenizer and all
        metadata = keys_of(content.metadata)
        metadata.pop("general.quantization_version", None)
    result = _renamed(content, family, Model.of(metadata), forward=True)
    left = [name for name in content if family.ignored(name)]
    findings = [*content.findings, *([Finding("names.left-out", Severity.LOW, left[0], f"{len(left)} tensors have no place in GGUF: {', '.join(left[:5])}")]
                                     if left else [])]
    tensors = {name: _as_float32(tensor) if len(dims_of(tensor)) < 2 else tensor for name, tensor in result.items()}
    types = Counter(NAME[type_of(tensor)] for tensor in tensors.values() if len(dims_of(tensor)) > 1)
    metadata["general.file_type"] = FILE_TYPES.get(types.most_common(1)[0][0] if types else "", 0)
    metadata.kinds["general.file_type"] = "u32"
    return Checkpoint(tensors, metadata, findings)


def of_ggml(content: Checkpoint) -> Checkpoint:
    """A llama of the time before GGUF under GGUF's names, with the keys that llama.cpp asks for. What its file never said is llama's default of then:
    a context of 2,048, heads that share no keys, an epsilon of 5e-6. Raises `Unsupported` for other kinds."""
    from isomorph.wire.gguf import Keys
    facts = {name.removeprefix("ggml."): value for name, value in content.metadata.items()}
    if facts.get("kind") != "llama":
        raise Unsupported(f"there is no table for the kind {facts.get('kind')!r} of GGML files", hint="convert it to safetensors")
    if not facts["heads"] or facts["embedding"] % facts["heads"]:
        raise Damaged(f"{facts['embedding']} columns do not divide into {facts['heads']} heads")
    inner = next((dims_of(tensor)[0] for name, tensor in content.items() if name.endswith("feed_forward.w1.weight")), 0)
    words, types = _words(facts["tokens"])
    metadata = Keys({"general.architecture": "llama", "general.file_type": facts["file_type"], "llama.context_length": 2048,
                     "llama.embedding_length": facts["embedding"], "llama.block_count": facts["layers"], "llama.feed_forward_length": inner,
                     "llama.rope.dimension_count": facts["embedding"] // facts["heads"], "llama.attention.head_count": facts["heads"],
                     "llama.attention.head_count_kv": facts["heads"], "llama.attention.layer_norm_rms_epsilon": 5e-6, "tokenizer.ggml.model": "llama",
                     "tokenizer.ggml.tokens": words, "tokenizer.ggml.scores": facts.get("scores") or [0.0] * len(words),
                     "tokenizer.ggml.token_type": Typed("i32", types), "tokenizer.ggml.unknown_token_id": 0, "tokenizer.ggml.bos_token_id": 1,
                     "tokenizer.ggml.eos_token_id": 2})
    finding = Finding("names.assumed", Severity.MEDIUM, "llama.context_length", "the file does not say its context length, its epsilon or whether heads share "
                      "keys", "if it is no LLaMA 1, correct these keys")
    return Checkpoint(_renamed(content, GGML_LLAMA, Model("llama", facts["layers"], 1, 0), forward=True), metadata, [*content.findings, finding])


def _words(tokens: list[str]) -> tuple[list[str], list[int]]:
    """Words and their types as sentencepiece has them: the first three are special, single bytes follow, a blank is written as a low line."""
    words, types = [], []
    for place, word in enumerate(tokens):
        raw = word.encode("utf-8", "surrogateescape")
        if place < len(SPECIAL):
            words.append(SPECIAL[place])
            types.append(UNKNOWN if place == 0 else CONTROL)
        elif not raw:
            words.append(word)
            types.append(CONTROL)
        elif place < len(SPECIAL) + 256 and len(raw) == 1:
            words.append(f"<0x{raw[0]:02X}>")
            types.append(BYTE)
        else:
            words.append(word.replace(" ", "\u2581"))
            types.append(NORMAL)
    return words, types


def to_hugging_face(content: Checkpoint) -> Checkpoint:
    """The weights of a GGUF file under the names that transformers gives them; the keys stay in the metadata. Raises `Unsupported` as `to_gguf` does."""
    model = Model.of(content.metadata)
    family = FAMILIES.get(model.architecture)
    if family is None:
        raise Unsupported(f"there is no table for the architecture {model.architecture!r}", hint="the tables are " + ", ".join(FAMILIES))
    return Checkpoint(_renamed(content, family, model, forward=False), content.metadata, content.findings)


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _metadata(family: Family, config: Mapping[str, Any]) -> Any:
    from isomorph.wire.gguf import Keys
    keys = Keys({"general.architecture": family.name})
    config = dict(config) | _rotation(config, keys, family.name)
    for name, key in KEYS:
        value = config.get(family.spelled(name), config.get(name))
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            keys[key.format(arch=family.name)] = float(value) if isinstance(value, float) or "epsilon" in key or "freq_base" in key else value
    return keys


def _rotation(config: Mapping[str, Any], keys: Any, name: str) -> dict[str, Any]:
    """The base of rotary positions, where transformers 5 keeps it, and as keys their scaling, how much of a head they turn, and the base of windowed layers.
    Raises `Unsupported` for a scaling that GGUF keeps in tensors."""
    parameters = config.get("rope_parameters") or config.get("rope_scaling") or {}
    parameters = parameters if isinstance(parameters, dict) else {}
    if isinstance(parameters.get("sliding_attention"), dict):
        keys[f"{name}.rope.freq_base_swa"] = float(parameters["sliding_attention"].get("rope_theta", 10000.0))
        parameters = parameters.get("full_attention") or {}
    elif "rope_local_base_freq" in config:
        keys[f"{name}.rope.freq_base_swa"] = float(config["rope_local_base_freq"])
    kind = parameters.get("rope_type", parameters.get("type", "default"))
    if kind == "linear":
        keys[f"{name}.rope.scaling.type"] = "linear"
        keys[f"{name}.rope.scaling.factor"] = float(parameters.get("factor", 1.0))
    elif kind != "default":
        raise Unsupported(f"positions are scaled by {kind!r}, which has no place in the keys that are written")
    part = parameters.get("partial_rotary_factor", config.get("partial_rotary_factor"))
    width, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if isinstance(part, float) and isinstance(width, int) and isinstance(heads, int) and heads:
        keys[f"{name}.rope.dimension_count"] = int(part * (config.get("head_dim") or width // heads))
    scalar, head = config.get("query_pre_attn_scalar"), config.get("head_dim")
    if isinstance(scalar, (int, float)) and scalar > 0 and scalar != head:
        keys[f"{name}.attention.scale"] = float(scalar) ** -0.5
    return {"rope_theta": parameters["rope_theta"]} if "rope_theta" in parameters else {}


def _renamed(content: Checkpoint, family: Family, model: Model, *, forward: bool) -> dict[str, Any]:
    rows = [(re.compile("^" + re.escape(one).replace(r"\{\}", r"(\d+)") + "$"), other, change)
            for hf, gguf, change in family.rows for one, other in [(hf, gguf) if forward else (gguf, hf)]]
    result: dict[str, Any] = {}
    blockers = []
    for name, tensor in content.items():
        found = next(((match, other, change) for pattern, other, change in rows if (match := pattern.match(name))), None)
        if found is None:
            if not family.ignored(name):
                blockers.append((name, name, f"the table of {family.name} does not name it"))
            continue
        match, other, change = found
        new = other.format(*match.groups())
        if new in result:
            raise Damaged(f"two tensors would be called {new!r}", where=name)
        result[new] = _changed(tensor, new, change, family, model, forward)
    if blockers:
        raise Unsupported(f"{len(blockers)} tensors are not in the table of {family.name}: {', '.join(name for name, _, _ in blockers[:5])}", blockers=blockers)
    return result


def _changed(tensor: Any, name: str, change: str, family: Family, model: Model, forward: bool) -> Any:
    if not change:
        return tensor
    dims = dims_of(tensor)
    if change == "transposed":
        return ComputedTensor(name, type_of(tensor), dims[::-1], lambda array: array.T, (tensor,))
    if change == "plus one":
        return ComputedTensor(name, NUMBER["FLOAT"], dims, _shift(1.0 if forward else -1.0), (tensor,))
    heads = model.heads if change == "query" else model.key_heads
    if not heads or dims[0] % (2 * heads):
        raise Damaged(f"{dims[0]} rows are not those of {heads} heads", where=name)
    return ComputedTensor(name, type_of(tensor), dims, _halves_to_pairs(heads) if forward else _pairs_to_halves(heads), (tensor,))


def _shift(by: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array.astype("float32") + array.astype("float32").dtype.type(by)


def _halves_to_pairs(heads: int) -> Callable[[np.ndarray], np.ndarray]:
    """Rows of each head: from the two halves that transformers rotates against each other to the neighbours that ggml rotates."""
    return lambda array: array.reshape(heads, 2, array.shape[0] // heads // 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _pairs_to_halves(heads: int) -> Callable[[np.ndarray], np.ndarray]:
    return lambda array: array.reshape(heads, array.shape[0] // heads // 2, 2, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)


def _as_float32(tensor: Any) -> Any:
    from isomorph.quant.tensor import CastTensor
    number = type_of(tensor)
    return CastTensor(NUMBER["FLOAT"], tensor) if number in FLOATS and BITS[number] < BITS[NUMBER["FLOAT"]] else tensor

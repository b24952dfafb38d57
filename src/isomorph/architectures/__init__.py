"""Language models under two sets of names: those of Hugging Face folders and those of GGUF, with what the weights go through on the way.

A family is a table (`_table`): names on both sides, and for some a change of the weights, each of which is undone on the way back.
"""
from __future__ import annotations

import contextlib
import copy
import json
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from isomorph.architectures import changes, positions
from isomorph.architectures._table import FAMILIES, FLAGS, Family
from isomorph.errors import Damaged, Missing, Unsafe, Unsupported
from isomorph.formats.gguf import KINDS_KEY, Typed, keys_of
from isomorph.model import Checkpoint
from isomorph.quant.mixes import Model
from isomorph.report import Finding, Severity
from isomorph.tensors import BITS, NAME, NUMBER, dims_of, type_of

if TYPE_CHECKING:
    from isomorph import model
    from isomorph.artifact import Artifact

KEY = "tokenizer.ggml."
NO_TOKENIZER = "no_vocab"                                         # tokenizer.ggml.model of a file without one
FILE_TYPES = {"FLOAT": 0, "FLOAT16": 1, "BFLOAT16": 32}           # general.file_type
# What llama.cpp takes as float32 only, beside vectors, and what it computes from config.json.
FLOAT32_ONLY = ("ffn_gate_inp.weight", "position_embd.weight", "token_types.weight", "ssm_conv1d.weight", ".ssm_a", "attn_rel_b.weight")
COMPUTED = (positions.FACTORS, positions.LONG, positions.SHORT)
FLOATS = {NUMBER[name] for name in ("FLOAT", "FLOAT16", "BFLOAT16")}


def network(content: Checkpoint, artifact: Artifact, format_name: str, *, quantised: bool = True,
            input_shapes: Mapping[str, Sequence[int]] | None = None) -> model.Model:
    """The graph that the weights of a file belong to, as ONNX: what the file itself says (`Format.network`), else that of a language model (see
    `networks`). Raises as `under_gguf_names`, and `Unsupported`."""
    from isomorph.architectures import networks
    from isomorph.formats import _table
    own = _table.get(format_name).network
    stated = own(artifact, input_shapes=input_shapes) if own is not None else None
    if stated is not None:
        return stated
    return networks.graph(under_gguf_names(content, artifact, format_name), quantised=quantised)


def under_gguf_names(content: Checkpoint, artifact: Artifact, format_name: str) -> Checkpoint:
    """The weights of a file under GGUF's names. Raises `Unsupported` as `to_gguf` does, `Missing` and `Damaged` as `config_beside` does."""
    if format_name == "gguf":
        return content
    if format_name == "ggml":
        from isomorph.architectures import ggml
        return ggml.to_gguf(content)
    made = to_gguf(content, config_beside(artifact))
    return made if KEY + "tokens" in made.metadata else _with_words(made, artifact)


def _with_words(made: Checkpoint, artifact: Artifact) -> Checkpoint:
    """With the keys of the tokenizer that stands beside the weights, where one does. One that is damaged is left out, and said."""
    settings = document_beside(artifact, "tokenizer_config.json") or {}
    template = _beside(artifact, "chat_template.jinja")
    if template is not None:
        settings = {"chat_template": bytes(template.view).decode("utf-8", "replace"), **settings}
    table = made.get("token_embd.weight")
    try:
        keys, findings = _words_beside(artifact, settings, dims_of(table)[0] if table is not None else 0)
    except (Damaged, Unsafe) as error:
        keys, findings = {}, [Finding("tokenizer.left-out", Severity.MEDIUM, "tokenizer.json", f"no tokenizer is written: {error.what}")]
    return Checkpoint(made.tensors, _with(made.metadata, keys), [*made.findings, *findings])


def _words_beside(artifact: Artifact, settings: Mapping[str, Any], size: int) -> tuple[dict[str, Any], list[Finding]]:
    """The keys of tokenizer.json or else of a model of SentencePiece."""
    from isomorph.architectures import sentencepiece, vocabulary
    document = document_beside(artifact, "tokenizer.json")
    if document is not None:
        return vocabulary.keys(document, settings, size)
    model = next((found for name in sentencepiece.FILES if (found := _beside(artifact, name)) is not None), None)
    return (sentencepiece.keys(model.view, settings, size) if model is not None else {}), []


def _beside(artifact: Artifact, name: str) -> Artifact | None:
    found = artifact.child(name) if artifact.is_folder else artifact.sibling(name)
    return found if found is not None and not found.is_folder and found.size <= found.limits.json_bytes else None


def document_beside(artifact: Artifact, name: str) -> dict[str, Any] | None:
    """A JSON object beside the weights; None where there is none, or no JSON."""
    found = _beside(artifact, name)
    try:
        document = json.loads(bytes(found.view)) if found is not None else None
    except (ValueError, RecursionError):
        return None
    return document if isinstance(document, dict) else None


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
    family = _family_of(config, content)
    metadata, more, findings = _metadata(family, config)
    if KINDS_KEY in content.metadata:           # the file was GGUF once, so its keys came along, tokenizer and all
        metadata = keys_of(content.metadata)
        metadata.pop("general.quantization_version", None)
    remainders: dict[str, Any] = {}
    result = renamed(content, family, Model.of(metadata), forward=True, remainders=remainders) | more
    left = [name for name in content if family.ignored(name)]
    findings = [*content.findings, *findings, *([Finding("names.left-out", Severity.LOW, left[0], f"{len(left)} tensors have no place in GGUF: "
                                                         f"{', '.join(left[:5])}")] if left else [])]
    tensors = {name: _as_float32(tensor) if float32_only(name, tensor) else tensor for name, tensor in result.items()}
    types = Counter(NAME[type_of(tensor)] for name, tensor in tensors.items() if not float32_only(name, tensor))
    metadata["general.file_type"] = FILE_TYPES.get(types.most_common(1)[0][0] if types else "", 0)
    metadata.kinds["general.file_type"] = "u32"
    for name in [name for name in metadata if name.startswith(changes.REMAINDER)]:
        del metadata[name]
    return Checkpoint(tensors, _with(metadata, {changes.REMAINDER + name: Typed("f32", values.tolist()) for name, values in remainders.items()}), findings)


def float32_only(name: str, tensor: Any) -> bool:
    """Whether llama.cpp takes a tensor of that name as float32 only: vectors, and some others."""
    return len(dims_of(tensor)) < 2 or name.endswith(FLOAT32_ONLY)


def _with(metadata: Any, more: Mapping[str, Any]) -> Any:
    metadata.update(more)
    return metadata


def _family_of(config: Mapping[str, Any], names: Iterable[str]) -> Family:
    """The family that config.json names; of several, the one whose mark the names of the tensors have."""
    classes, names = set(_texts(config.get("architectures"))), list(names)
    for family in FAMILIES.values():
        if classes & set(family.classes) and (not family.mark[0] or any(family.mark[0] in name for name in names)):
            return family
    raise Unsupported(f"there is no table for {', '.join(_texts(config.get('architectures'))) or 'a model without architectures in its config.json'}",
                      hint="the tables are " + ", ".join(FAMILIES))


def family_of_gguf(architecture: str, names: Iterable[str]) -> Family:
    """The family of an architecture of GGUF, of several that share its name the one whose mark the tensors have, under the names of either world.
    Raises `Unsupported` where there is none."""
    names = list(names)
    for family in FAMILIES.values():
        if family.name == architecture and (not family.mark[1] or any(mark in name for mark in family.mark for name in names)):
            return family
    raise Unsupported(f"there is no table for the architecture {architecture!r}", hint="the tables are " + ", ".join(FAMILIES))


def to_hugging_face(content: Checkpoint) -> Checkpoint:
    """The weights of a GGUF file under the names that transformers gives them; the keys stay in the metadata. Raises `Unsupported` as `to_gguf` does."""
    model = Model.of(content.metadata)
    family = family_of_gguf(model.architecture, content)
    return Checkpoint(renamed(content, family, model, forward=False), _with_scaling(content, model), content.findings)


def _with_scaling(content: Checkpoint, model: Model) -> Any:
    """The keys, with the scaling of positions that GGUF keeps in tensors as config.json states it."""
    if positions.STATED in content.metadata or not any(name in content for name in COMPUTED):
        return content.metadata
    name, metadata = model.architecture, copy.copy(content.metadata)
    head = metadata.get(f"{name}.embedding_length", 0) // (model.heads or 1)
    with contextlib.suppress(Unsupported):          # then config.json cannot state it, which whoever writes one says
        stated = positions.to_config(metadata, content, name, float(metadata.get(f"{name}.rope.freq_base", positions.BASE)),
                                     int(metadata.get(f"{name}.rope.dimension_count", metadata.get(f"{name}.attention.key_length", head))))
        return _with(metadata, {positions.STATED: json.dumps(stated)})
    return _with(metadata, {positions.STATED: ""})


def _texts(value: Any) -> list[str]:
    return [item for item in value if isinstance(item, str)] if isinstance(value, list) else []


def _metadata(family: Family, config: Mapping[str, Any]) -> tuple[Any, dict[str, Any], list[Finding]]:
    """The keys that config.json gives, the tensors that GGUF keeps some of its entries in, and findings."""
    from isomorph.wire.gguf import Keys
    keys = Keys({"general.architecture": family.name})
    config = dict(config) | (family.derived(config) if family.derived else {})
    replaced, tensors, findings = positions.to_keys(config, keys, family.name)
    config |= replaced
    scalar, head = config.get("query_pre_attn_scalar"), config.get("head_dim")
    if isinstance(scalar, (int, float)) and scalar > 0 and scalar != head:
        keys[f"{family.name}.attention.scale"] = float(scalar) ** -0.5
    for name, spelled, key in family.entries():
        value = config.get(spelled, config.get(name))
        if isinstance(value, (int, float)) and (not isinstance(value, bool) or name in FLAGS):
            keys[key] = float(value) if isinstance(value, float) or "epsilon" in key or "freq_base" in key else value
    for key, value in {**family.constants, "tokenizer.ggml.model": NO_TOKENIZER}.items():
        keys.setdefault(key, value)
    return keys, tensors, findings


def renamed(content: Checkpoint, family: Family, model: Model, *, forward: bool, remainders: dict[str, Any] | None = None) -> dict[str, Any]:
    """The tensors under their other names. What a change would lose on its way back goes into `remainders`, by GGUF's name. Raises `Unsupported` with every
    tensor that the table does not name."""
    rows = [(re.compile("^" + re.escape(one).replace(r"\{\}", r"(\d+)") + "$"), other, change)
            for hf, gguf, change in family.rows for one, other in [(hf, gguf) if forward else (gguf, hf)]]
    result: dict[str, Any] = {}
    blockers = []
    for name, tensor in (content if forward else changes.separated(content)).items():
        found = next(((match, other, change) for pattern, other, change in rows if (match := pattern.match(name))), None)
        if found is None:
            if not family.ignored(name) and name not in COMPUTED:
                blockers.append((name, name, f"the table of {family.name} does not name it"))
            continue
        match, other, change = found
        new = other.format(*match.groups())
        if new in result:
            raise Damaged(f"two tensors would be called {new!r}", where=name)
        if forward and remainders is not None and (lost := changes.remainder(tensor, change, model)) is not None:
            remainders[new] = lost
        result[new] = changes.changed(tensor, new, change, model, forward=forward, remainder=None if forward else _remainder(content, name))
    if blockers:
        raise Unsupported(f"{len(blockers)} tensors are not in the table of {family.name}: {', '.join(name for name, _, _ in blockers[:5])}", blockers=blockers)
    return changes.stacked(result) if forward else result


def _remainder(content: Checkpoint, name: str) -> Any:
    stated = content.metadata.get(changes.REMAINDER + name)
    if stated is None:
        return None
    import numpy as np
    try:
        return np.asarray(list(stated), np.float32)
    except (TypeError, ValueError):
        raise Damaged("it is no array of numbers", where=changes.REMAINDER + name) from None


def _as_float32(tensor: Any) -> Any:
    from isomorph.quant.tensor import CastTensor
    number = type_of(tensor)
    return CastTensor(NUMBER["FLOAT"], tensor) if number in FLOATS and BITS[number] < BITS[NUMBER["FLOAT"]] else tensor

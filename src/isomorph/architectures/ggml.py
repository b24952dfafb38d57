"""Files of the time before GGUF under GGUF's names, and back. llama, GPT-2, GPT-J, GPT-NeoX and RWKV 4 go to GGUF; llama and GPT-2 come back.

Such a file says a handful of numbers and its words. What its programs took for granted, and how they made some numbers of others, stands here. Sources:
llama.cpp's llama.cpp and convert.py of August 2023, ggml's examples/gpt-2, gpt-j and gpt-neox, rwkv.cpp's rwkv_file_format.inc.
"""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from isomorph.architectures import COMPUTED, NO_TOKENIZER, renamed, words
from isomorph.architectures._table import FAMILIES, GGML_GPT2, GGML_LLAMA, GGML_RWKV, Family
from isomorph.errors import Damaged, Unsupported
from isomorph.formats.ggml import EXAMPLE_TYPES, QUANTIZATION_STEP
from isomorph.formats.gguf import FILE_TYPES
from isomorph.model import Checkpoint
from isomorph.quant.mixes import Model
from isomorph.report import Finding, Severity
from isomorph.tensors import dims_of
from isomorph.wire.gguf import Keys

Facts = Mapping[str, Any]
Made = tuple[dict[str, Any], list[Finding]]
# general.file_type of the types that llama.cpp counts otherwise than the examples of ggml
NUMBERS = {name: number for number, name in FILE_TYPES.items()} | {"Q3_K": 12, "Q4_K": 15, "Q5_K": 17}
USUAL_MULTIPLE = 256                                    # that the width of llama's inner layer is one of
EPSILON, BASE, CONTEXT = 5e-6, 10000.0, 2048            # of llama, where nobody told its program otherwise


@dataclass(frozen=True)
class Kind:
    """A kind of GGML file: GGUF's name of its architecture, the table of its names, and what makes the keys of GGUF from its numbers."""

    architecture: str
    family: Family
    keys: Callable[[Checkpoint, Facts], Made]


# ---- to GGUF

def to_gguf(content: Checkpoint) -> Checkpoint:
    """A GGML file under GGUF's names, with the keys that a network needs. Raises `Unsupported` for kinds that are no architecture of GGUF."""
    facts = {name.removeprefix("ggml."): value for name, value in content.metadata.items()}
    kind = KINDS.get(str(facts.get("kind")))
    if kind is None:
        raise Unsupported(f"there is no table for the kind {facts.get('kind')!r} of GGML files", hint="convert it to safetensors")
    made, findings = kind.keys(content, facts)
    keys = Keys({"general.architecture": kind.architecture} | made)
    heads = facts.get("heads", 1)
    tensors = renamed(content, kind.family, Model(kind.architecture, facts["layers"], 1, 0, heads, heads), forward=True)
    return Checkpoint(tensors, keys, [*content.findings, *findings])


def _rows(content: Checkpoint, ending: str) -> int:
    """The rows of the first matrix whose name ends like that."""
    return next((dims_of(tensor)[0] for name, tensor in content.items() if name.endswith(ending)), 0)


def _shared(name: str, facts: Facts) -> dict[str, Any]:
    """Keys that every network has whose file counts heads. Raises `Damaged` where they do not divide its width."""
    if not facts["heads"] or facts["embedding"] % facts["heads"]:
        raise Damaged(f"{facts['embedding']} columns do not divide into {facts['heads']} heads")
    kind = facts["file_type"] % QUANTIZATION_STEP
    number = kind if name == "llama" else NUMBERS.get(EXAMPLE_TYPES.get(kind, ""), kind)
    return {"general.file_type": number, f"{name}.embedding_length": facts["embedding"], f"{name}.block_count": facts["layers"],
            f"{name}.attention.head_count": facts["heads"]}


def _llama(content: Checkpoint, facts: Facts) -> Made:
    """How many heads hold keys is told by the rows of their matrix, which programs of then were told."""
    keys = _shared("llama", facts)
    head = facts["embedding"] // facts["heads"]
    rows = _rows(content, "attention.wk.weight")
    keys |= {"llama.context_length": CONTEXT, "llama.feed_forward_length": _rows(content, "feed_forward.w1.weight"), "llama.rope.dimension_count": head,
             "llama.attention.head_count_kv": rows // head if rows and rows % head == 0 else facts["heads"], "llama.attention.layer_norm_rms_epsilon": EPSILON}
    finding = Finding("names.assumed", Severity.MEDIUM, "llama.context_length", "the file does not say its context length, its epsilon or its base of rotation",
                      "if it is no LLaMA 1, correct these keys")
    return keys | words.keys_of_pieces(facts["tokens"], facts.get("scores") or []), [finding]


def _gpt(name: str, inner: str) -> Callable[[Checkpoint, Facts], Made]:
    """GPT-2 and what is built like it; `inner` is how the name of the first matrix behind attention ends."""
    def keys(content: Checkpoint, facts: Facts) -> Made:
        found = _shared(name, facts)
        found |= {f"{name}.context_length": facts["context"], f"{name}.feed_forward_length": _rows(content, inner),
                  f"{name}.attention.head_count_kv": facts["heads"], f"{name}.attention.layer_norm_epsilon": 1e-5}
        if "rotary" in facts:
            found[f"{name}.rope.dimension_count"] = facts["rotary"]
        if name == "gptneox":
            found["gptneox.use_parallel_residual"] = bool(facts.get("parallel_residual", True))
        made, lost = words.keys_of_bytes(facts["tokens"])
        sentence = f"{lost} of {len(facts['tokens'])} words are spelled as others are"
        finding = Finding("ggml.words", Severity.MEDIUM, "tokenizer.ggml.tokens", sentence, "texts that need them are cut otherwise than in training")
        return found | made, [finding] if lost else []
    return keys


def _rwkv(content: Checkpoint, facts: Facts) -> Made:
    return {"rwkv.architecture_version": 4, "rwkv.embedding_length": facts["embedding"], "rwkv.block_count": facts["layers"],
            "rwkv.feed_forward_length": _rows(content, "ffn.key.weight"), "rwkv.attention.layer_norm_epsilon": 1e-5, "rwkv.attention.head_count": 0,
            "rwkv.vocab_size": facts["vocabulary"], "tokenizer.ggml.model": NO_TOKENIZER}, []


KINDS = {
    "llama": Kind("llama", GGML_LLAMA, _llama), "gpt-2": Kind("gpt2", GGML_GPT2, _gpt("gpt2", "mlp/c_fc/w")),
    "gpt-j": Kind("gptj", FAMILIES["gptj"], _gpt("gptj", "mlp.fc_in.weight")),
    "gpt-neox": Kind("gptneox", FAMILIES["gptneox"], _gpt("gptneox", "mlp.dense_h_to_4h.weight")), "rwkv": Kind("rwkv", GGML_RWKV, _rwkv),
}


# ---- from GGUF

def of_gguf(content: Checkpoint) -> Checkpoint:
    """Weights under GGUF's names as a GGML file has them: llama as version 3 of GGJT, GPT-2 as GGML. Raises `Unsupported` for other architectures, and with
    every reason why programs of then would compute something else."""
    name = str(content.metadata.get("general.architecture", ""))
    if name not in WRITTEN:
        raise Unsupported(f"no GGML file is written for the architecture {name!r}", hint="those that are: " + ", ".join(WRITTEN))
    kind, container, version, numbers = WRITTEN[name]
    table = content.get("token_embd.weight")
    if table is None or len(dims_of(table)) != 2:
        raise Unsupported("the file holds no table of words, token_embd.weight", hint="a vocabulary or an adapter is no whole model")
    keys, (count, width) = content.metadata, dims_of(table)
    heads, layers = (int(keys.get(f"{name}.{key}", 0)) for key in ("attention.head_count", "block_count"))
    if not heads or width % heads:
        raise Unsupported(f"{width} columns do not divide into {heads} heads")
    facts, reasons, findings = numbers(content, width, heads)
    if reasons:
        blockers = [(name, name, reason) for reason in reasons]
        raise Unsupported(f"programs of the time before GGUF compute this model otherwise: {'; '.join(reasons)}", blockers=blockers)
    tensors = renamed(content, KINDS[kind].family, Model(name, layers, 1, 0, heads, heads), forward=False)
    spelled, scores, known = words.as_bytes(keys, count)
    if not known or (name == "llama") != (keys.get(words.KEY + "model") == "llama"):
        sentence = "programs of the time before GGUF cut text for this architecture otherwise"
        findings.append(Finding("ggml.tokenizer", Severity.MEDIUM, words.KEY + "model", sentence, "cut text with the tokenizer of the source"))
    facts = {"vocabulary": count, "embedding": width, "heads": heads, "layers": layers, **facts}
    said = {"container": container, "version": version, "kind": kind, **facts, "tokens": spelled} | ({"scores": scores} if container == "ggjt" else {})
    return Checkpoint(tensors, {f"ggml.{key}": value for key, value in said.items()}, [*content.findings, *findings])


Counted = tuple[dict[str, Any], list[str], list[Finding]]


def _of_llama(content: Checkpoint, width: int, heads: int) -> Counted:
    keys, head, reasons = content.metadata, width // heads, []

    def key(name: str, usual: Any) -> Any:
        return keys.get(f"llama.{name}", usual)
    inner = _rows(content, "ffn_gate.weight")
    multiple = next((number for number in (*range(USUAL_MULTIPLE, 0, -1), *range(USUAL_MULTIPLE + 1, inner + 1)) if inner_width(width, number) == inner), 0)
    if not multiple:
        reasons.append(f"{inner} is no width of the inner layer that they make of {width} columns")
    if any(key(name, head) != head for name in ("attention.key_length", "attention.value_length", "rope.dimension_count")):
        reasons.append(f"heads of {head} elements are not rotated whole")
    if any(name in content for name in COMPUTED) or key("rope.scaling.type", "none") not in ("none", "linear"):
        reasons.append("its positions are scaled")
    if key("expert_count", 0):
        reasons.append("it asks experts")
    told = {"n_gqa": (heads // int(key("attention.head_count_kv", heads)), 1), "rms_norm_eps": (key("attention.layer_norm_rms_epsilon", EPSILON), EPSILON),
            "rope_freq_base": (key("rope.freq_base", BASE), BASE), "rope_freq_scale": (1 / key("rope.scaling.factor", 1.0), 1.0)}
    missing = [f"{name} {value:.6g}" for name, (value, usual) in told.items() if abs(value - usual) > 1e-3 * usual]
    finding = Finding("ggml.told", Severity.MEDIUM, "llama", f"the file has no place for {', '.join(missing)}", "give these to the program that loads it")
    return {"multiple": multiple, "rotary": head}, reasons, [finding] if missing else []


def inner_width(width: int, multiple: int) -> int:
    """How wide llama's inner layer is: two thirds of four times the width of the words, up to the next multiple."""
    return -(-(2 * (4 * width) // 3) // multiple) * multiple


def _of_gpt2(content: Checkpoint, width: int, heads: int) -> Counted:
    inner = _rows(content, "ffn_up.weight")
    return {"context": _rows(content, "position_embd.weight")}, [f"its inner layer has {inner} columns and not {4 * width}"] if inner != 4 * width else [], []


# GGUF's name of the architecture -> kind, container, version, and what makes its numbers
WRITTEN = {"llama": ("llama", "ggjt", 3, _of_llama), "gpt2": ("gpt-2", "ggml", 0, _of_gpt2)}

"""What stands beside the weights in a Hugging Face folder, made from the keys of GGUF: config.json, and the tokenizer as tokenizer.json.

Sources: transformers' models/*/configuration_*.py.
"""
from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from typing import Any

from isomorph.architectures import family_of_gguf, positions, sentencepiece
from isomorph.architectures._table import FLAGS, Family
from isomorph.architectures.layers import ENCODERS, NETWORKS
from isomorph.errors import Missing, Unsupported
from isomorph.model import Checkpoint
from isomorph.report import Finding, Severity
from isomorph.tensors import NAME, dims_of, type_of

CONFIG, TOKENIZER, SETTINGS = "config.json", "tokenizer.json", "tokenizer_config.json"
ACTIVATIONS = {"silu": "silu", "gelu": "gelu_pytorch_tanh", "exact gelu": "gelu"}
DTYPES = {"FLOAT": "float32", "FLOAT16": "float16", "BFLOAT16": "bfloat16"}
TABLES = ("embed_tokens.weight", "wte.weight", "word_embeddings.weight", "embed_in.weight", "shared.weight", "backbone.embeddings.weight",
          "rwkv.embeddings.weight")
HEADS = ("lm_head.weight", "embed_out.weight", "head.weight")           # what makes words, where it is not the table of words itself
MODELS = {"llama": "tokenizer.model", "t5": "spiece.model"}     # SentencePiece's, as transformers calls its file
SPECIAL = ("bos", "eos", "unk", "pad")
NAMED = {"unk": "unknown", "pad": "padding"}                # what GGUF calls them in its keys


def beside(content: Checkpoint) -> tuple[dict[str, str], list[Finding]]:
    """The texts of the files beside weights that have Hugging Face's names and GGUF's keys. Raises `Unsupported` for a family without a table."""
    keys = content.metadata
    family = family_of_gguf(str(keys.get("general.architecture", "")), content)
    files = {CONFIG: _text(config(content, family))}
    try:
        texts, findings = tokenizer_files(keys, family.name)
    except (Missing, Unsupported) as error:
        return files, [Finding("tokenizer.left-out", Severity.MEDIUM, "tokenizer.json", f"no tokenizer is written: {error.what}", error.hint)]
    return files | texts, findings


def tokenizer_files(keys: Mapping[str, Any], name: str) -> tuple[dict[str, str], list[Finding]]:
    """tokenizer.json and tokenizer_config.json of the keys of the architecture `name`. Raises `Unsupported` and `Missing` as `tokenizer` does."""
    from isomorph.architectures.tokenizer import tokenizer
    made, findings = tokenizer(keys)
    words = {name: made.id_to_token(keys[key]) for name in SPECIAL if isinstance(keys.get(key := f"tokenizer.ggml.{NAMED.get(name, name)}_token_id"), int)}
    if keys.get("tokenizer.ggml.add_bos_token") and words.get("bos"):
        from tokenizers.processors import TemplateProcessing
        first = str(words["bos"])
        made.post_processor = TemplateProcessing(single=f"{first} $A", pair=f"{first} $A $B", special_tokens=[(first, made.token_to_id(first))])
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    settings |= {f"{name}_token": word for name, word in words.items() if word}
    template = keys.get("tokenizer.chat_template")
    settings |= {"chat_template": template} if isinstance(template, str) else {}
    settings |= {"model_max_length": keys[key]} if (key := f"{name}.context_length") in keys else {}
    data = sentencepiece.model(keys)
    model = {MODELS[str(keys["tokenizer.ggml.model"])]: data.decode("utf-8", "surrogateescape")} if data is not None else {}
    return {TOKENIZER: made.to_str(), SETTINGS: _text(settings), **model}, findings


def config(content: Checkpoint, family: Family) -> dict[str, Any]:
    """config.json: the keys under the names of transformers, and what GGUF leaves to the family."""
    keys, name = content.metadata, family.name
    found: dict[str, Any] = {"architectures": [family.classes[0]], "model_type": family.model_type}
    for ours, spelled, key in family.entries():
        value = keys.get(key)
        if isinstance(value, (int, float)) and (not isinstance(value, bool) or ours in FLAGS):
            found[spelled] = _short(value)
    network = NETWORKS.get(name) or ENCODERS.get(name)
    if network is not None:
        found |= {"hidden_act": ACTIVATIONS[network.activation]} if name not in ("gpt2", "gptj") else {"activation_function": "gelu_new"}
        found |= _rotation(keys, content, name, found) if network.rotates else {}
    table = next((tensor for weight, tensor in content.items() if weight.endswith(TABLES)), None)
    if table is not None:
        found["vocab_size"], found["dtype"] = int(dims_of(table)[0]), DTYPES.get(NAME[type_of(table)], "float32")
    found["tie_word_embeddings"] = not any(head in content for head in HEADS)
    found |= _biases(content, name)
    found |= OF_FAMILY[name](keys, found, content) if name in OF_FAMILY else {}
    for word in ("bos", "eos", "pad"):
        number = keys.get(f"tokenizer.ggml.{NAMED.get(word, word)}_token_id")
        if isinstance(number, int) or name not in ENCODERS:             # none, where transformers would assume one
            found[f"{word}_token_id"] = number if isinstance(number, int) else None
    return found


def _rotation(keys: Mapping[str, Any], content: Mapping[str, Any], name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    """Positions, as transformers 5 keeps them and as versions before it did."""
    base = found.get("rope_theta", 10000.0)
    turned, width, heads = keys.get(f"{name}.rope.dimension_count"), found.get("hidden_size"), found.get("num_attention_heads")
    size = found.get("head_dim", width // heads) if width and heads else 0
    parameters = positions.to_config(keys, content, name, base, turned if isinstance(turned, int) else size) | {"rope_theta": base}
    if name in PARTLY and isinstance(turned, int) and size:
        parameters["partial_rotary_factor"] = turned / size
    more = {"partial_rotary_factor": parameters["partial_rotary_factor"]} if "partial_rotary_factor" in parameters else {}
    if "original_max_position_embeddings" in parameters and parameters["rope_type"] == "longrope":
        more["original_max_position_embeddings"] = parameters["original_max_position_embeddings"]
    if name in NETWORKS and NETWORKS[name].wide > 2:
        near = _short(keys.get(f"{name}.rope.freq_base_swa", 10000.0))
        more["rope_local_base_freq"] = near
        parameters = {"full_attention": parameters, "sliding_attention": {"rope_type": "default", "rope_theta": near}}
    return {"rope_theta": base, "rope_parameters": parameters} | more


PARTLY = ("stablelm", "phi2", "phi3", "gptneox")               # families that may turn only a part of each head


def _biases(content: Checkpoint, name: str) -> dict[str, Any]:
    """Whether layers have biases, for the families that leave it open."""
    attention, inner = (any(part in weight for weight in content) for part in ("q_proj.bias", "mlp.up_proj.bias"))
    if name == "stablelm":
        return {"use_qkv_bias": attention}
    if name not in ("llama", "qwen3", "smollm3", "gemma", "gemma2", "gemma3", "olmo2", "granite"):
        return {}
    return {"attention_bias": attention} | ({"mlp_bias": inner} if name in ("llama", "granite") else {})


Stated = dict[str, Any]


def _gemma(keys: Mapping[str, Any], found: Stated, _: Checkpoint) -> Stated:
    name = str(keys["general.architecture"])
    scale = keys.get(f"{name}.attention.scale")
    scalar = {} if name == "gemma" else {"query_pre_attn_scalar": round(scale ** -2) if isinstance(scale, float) else found.get("head_dim", 256)}
    return {"hidden_activation": found["hidden_act"]} | scalar


def _falcon(keys: Mapping[str, Any], found: Stated, content: Checkpoint) -> Stated:
    shared = found.get("num_key_value_heads", found.get("num_attention_heads", 1))
    new = any("ln_attn" in name for name in content)
    return {"activation": "gelu", "ffn_hidden_size": found.get("intermediate_size"), "num_kv_heads": shared, "multi_query": shared == 1 or new,
            "new_decoder_architecture": new, "parallel_attn": True, "bias": False, "alibi": False}


def _t5(keys: Mapping[str, Any], found: Stated, content: Checkpoint) -> Stated:
    gated = any("wi_0" in name for name in content)
    return {"feed_forward_proj": "gated-gelu" if gated else "relu", "is_encoder_decoder": True}


OF_FAMILY: dict[str, Callable[[Mapping[str, Any], Stated, Checkpoint], Stated]] = {
    "phi2": lambda *_: {"hidden_act": "gelu_new"}, "gemma": _gemma, "gemma2": _gemma, "gemma3": _gemma, "falcon": _falcon, "t5": _t5,
}


def _short(value: float) -> float:
    """A float32 as the shortest decimal that is it: 1e-05, not 9.999999747378752e-06."""
    import numpy as np
    return float(str(np.float32(value))) if isinstance(value, float) and np.float32(value) == value else value


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2, ensure_ascii=False) + "\n"

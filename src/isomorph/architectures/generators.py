"""What stands beside the graph of a language model so that onnxruntime-genai loads its folder: genai_config.json, and the tokenizer as Hugging Face keeps it.

Source: onnxruntime-genai's src/config.cpp and docs (https://onnxruntime.ai/docs/genai/reference/config.html).
"""
from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from isomorph.architectures import folder
from isomorph.errors import Unsupported
from isomorph.model import Model
from isomorph.report import Finding

CONFIG = "genai_config.json"
KEY = "tokenizer.ggml."
LENGTH = 2048                               # of a text, where the model does not say how long it may be
# Words that end an answer beside the one that the file names: of a chat, its own turn ends otherwise than a text.
ENDS = ("<|im_end|>", "<|eot_id|>", "<|end|>", "<end_of_turn>", "<|endoftext|>", "</s>")


def beside(model: Model, file: str) -> tuple[dict[str, str], list[Finding]]:
    """The texts of the files beside the graph that is called `file`. Raises `Unsupported` for what is no decoder with keys and values, or has no
    tokenizer, `Missing` where the package tokenizers is not installed."""
    names = {str(value.name): [dim if isinstance(dim, int) else str(getattr(dim, "value", dim)) for dim in value.shape or ()]
             for value in (*model.ir.graph.inputs, *model.ir.graph.outputs)}
    past = names.get("past_key_values.0.key")
    architecture = str(model.metadata.get("general.architecture", ""))
    if past is None or "logits" not in names or not architecture:
        raise Unsupported("it is no decoder that keeps keys and values", hint="onnxruntime-genai runs what GGUF and Hugging Face weights of decoders become")
    texts, findings = folder.tokenizer_files(model.metadata, architecture)
    return {CONFIG: json.dumps(config(model.metadata, names, architecture, file), indent=2) + "\n"} | texts, findings


def config(keys: Mapping[str, Any], names: Mapping[str, list[Any]], architecture: str, file: str) -> dict[str, Any]:
    """The document: sizes, names of inputs and outputs, special words, and how to search."""
    layers = sum(name.startswith("past_key_values.") and name.endswith(".key") for name in names)
    _, shared, _, size = names["past_key_values.0.key"]
    length = int(keys.get(f"{architecture}.context_length", LENGTH))
    words = {word: place for place, word in enumerate(keys[KEY + "tokens"])}
    ends = [keys.get(KEY + "eos_token_id"), keys.get(KEY + "eot_token_id"), *(words[word] for word in ENDS if word in words)]
    ends = list(dict.fromkeys(number for number in ends if isinstance(number, int)))
    first = keys.get(KEY + "bos_token_id", ends[0] if ends else 0)
    decoder = {"session_options": {"log_id": "onnxruntime-genai", "provider_options": []}, "filename": file, "head_size": size,
               "hidden_size": int(keys.get(f"{architecture}.embedding_length", 0)), "num_hidden_layers": layers, "num_key_value_heads": shared,
               "num_attention_heads": int(keys.get(f"{architecture}.attention.head_count", shared)),
               "inputs": {"input_ids": "input_ids", "attention_mask": "attention_mask", "position_ids": "position_ids",
                          "past_key_names": "past_key_values.%d.key", "past_value_names": "past_key_values.%d.value"},
               "outputs": {"logits": "logits", "present_key_names": "present.%d.key", "present_value_names": "present.%d.value"}}
    return {"model": {"type": "decoder", "bos_token_id": first, "eos_token_id": ends or first, "pad_token_id": keys.get(KEY + "padding_token_id", first),
                      "context_length": length, "vocab_size": names["logits"][2], "decoder": decoder},
            "search": {"do_sample": False, "max_length": length, "min_length": 0, "num_beams": 1, "num_return_sequences": 1, "past_present_share_buffer": False,
                       "repetition_penalty": 1.0, "temperature": 1.0, "top_k": 50, "top_p": 1.0}}

"""Runs inside an environment that has transformers: makes a small language model of each family with random weights, and says what it computes.

    python language_model_child.py make FOLDER
    python language_model_child.py load EXPECTED.npz FOLDER ...
"""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
import transformers

COMMON = {"vocab_size": 97, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
          "max_position_embeddings": 64, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS = {
    "llama": ("Llama", {"rope_theta": 5000.0}), "llama_tied": ("Llama", {"tie_word_embeddings": True, "attention_bias": True}),
    "mistral": ("Mistral", {"sliding_window": None}), "qwen2": ("Qwen2", {}), "qwen3": ("Qwen3", {"head_dim": 24}), "smollm3": ("SmolLM3", {}),
    "phi3": ("Phi3", {"sliding_window": 6}), "gemma": ("Gemma", {"head_dim": 24}),
    "gemma2": ("Gemma2", {"head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 6}),
    "gemma3": ("Gemma3", {"head_dim": 24, "query_pre_attn_scalar": 32, "sliding_window": 4, "num_hidden_layers": 7}),
    "olmo2": ("Olmo2", {}), "stablelm": ("StableLm", {"use_qkv_bias": True}), "starcoder2": ("Starcoder2", {"sliding_window": 6}),
    "gemma3_usual": ("Gemma3", {"head_dim": 24, "query_pre_attn_scalar": 24, "sliding_window": 4, "num_hidden_layers": 7}),
    "starcoder2_wide": ("Starcoder2", {"sliding_window": None}), "phi2": ("Phi", {}),
    "granite": ("Granite", {"embedding_multiplier": 3.0, "residual_multiplier": 0.3, "attention_multiplier": 0.2, "logits_scaling": 4.0}),
    "gpt2": ("GPT2", {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 64}),
    "gptj": ("GPTJ", {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 64, "rotary_dim": 8}),
    "blocks": ("Llama", {"hidden_size": 256, "intermediate_size": 768, "num_hidden_layers": 1, "num_key_value_heads": 4}),        # columns that K-blocks fill
    "mixtral": ("Mixtral", {"num_local_experts": 5, "num_experts_per_tok": 2, "sliding_window": None}),
    "qwen2moe": ("Qwen2Moe", {"num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 32, "shared_expert_intermediate_size": 48}),
    "gptneox": ("GPTNeoX", {"num_key_value_heads": None}), "gptneox_serial": ("GPTNeoX", {"num_key_value_heads": None, "use_parallel_residual": False}),
    "falcon": ("Falcon", {"new_decoder_architecture": False, "multi_query": True, "bias": False, "num_key_value_heads": None, "ffn_hidden_size": 96}),
    "falcon_40b": ("Falcon", {"new_decoder_architecture": True, "num_kv_heads": 2, "bias": False, "num_key_value_heads": None, "ffn_hidden_size": 96}),
    "linear": ("Llama", {"rope_parameters": {"rope_type": "linear", "rope_theta": 5000.0, "factor": 4.0}}),
    "llama3": ("Llama", {"rope_parameters": {"rope_type": "llama3", "rope_theta": 5000.0, "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
                                             "original_max_position_embeddings": 64}}),
    "yarn": ("Qwen2", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 16}}),
    "yarn_weighed": ("Llama", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 5000.0, "factor": 4.0, "original_max_position_embeddings": 16,
                                                   "attention_factor": 1.3, "beta_fast": 16.0}}),
    "longrope": ("Phi3", {"sliding_window": None, "original_max_position_embeddings": 16, "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 5000.0, "original_max_position_embeddings": 16, "long_factor": [1.0 + place for place in range(8)],
        "short_factor": [1.0 + place / 10 for place in range(8)]}}),
    "longrope_long": ("Phi3", {"sliding_window": None, "original_max_position_embeddings": 8, "rope_parameters": {
        "rope_type": "longrope", "rope_theta": 5000.0, "original_max_position_embeddings": 8, "long_factor": [1.0 + place for place in range(8)],
        "short_factor": [1.0 + place / 10 for place in range(8)]}}),
    "dynamic": ("Llama", {"max_position_embeddings": 8, "rope_parameters": {"rope_type": "dynamic", "rope_theta": 5000.0, "factor": 4.0}}),
}
STATES = {
    "mamba": ("Mamba", {"vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 3, "state_size": 8}),
    "rwkv": ("Rwkv", {"vocab_size": 97, "hidden_size": 64, "num_hidden_layers": 3, "attention_hidden_size": 64, "context_length": 64}),
}
TRANSLATORS = {
    "t5": ("T5", {"vocab_size": 97, "d_model": 64, "d_kv": 12, "d_ff": 96, "num_layers": 3, "num_decoder_layers": 2, "num_heads": 4,
                  "relative_attention_num_buckets": 12}),
    "t5-1.1": ("T5", {"vocab_size": 97, "d_model": 64, "d_kv": 12, "d_ff": 96, "num_layers": 3, "num_heads": 4, "feed_forward_proj": "gated-gelu",
                      "tie_word_embeddings": False}),
}
ENCODERS = {"bert": ("Bert", {"type_vocab_size": 2}), "nomic-bert": ("NomicBert", {"type_vocab_size": 2})}


def make(folder: Path, family: str) -> None:
    """config.json and model.safetensors of a model, and in expected.npz its logits for tokens of two rows, the first padded on the left."""
    name, more = CONFIGS[family]
    torch.manual_seed(7)
    known = {key: value for key, value in (COMMON | more).items() if not (key == "num_key_value_heads" and (name in ("GPT2", "GPTJ") or value is None))}
    config = getattr(transformers, f"{name}TextConfig" if name == "Gemma3" else f"{name}Config")(**known)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{name}LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")(config).eval()
    _shaken(model)
    model.save_pretrained(folder / family)
    ids = torch.randint(3, 97, (2, 12))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    np.savez(folder / family / "expected.npz", ids=ids.numpy(), mask=mask.numpy(), positions=positions.numpy(), logits=logits.numpy())


def encode(folder: Path, family: str) -> None:
    """As `make`, for a network that reads a whole text: what stands behind its last layer, and what its pooler makes of the first word."""
    name, more = ENCODERS[family]
    torch.manual_seed(7)
    config = getattr(transformers, f"{name}Config")(**{key: value for key, value in COMMON.items() if key != "num_key_value_heads"} | more)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{name}Model")(config).eval()
    _shaken(model)
    model.save_pretrained(folder / family)
    ids, mask = torch.randint(3, 97, (2, 12)), torch.ones((2, 12), dtype=torch.int64)
    mask[0, 9:] = 0
    types = torch.randint(0, 2, (2, 12))
    with torch.no_grad():
        found = model(input_ids=ids, attention_mask=mask, token_type_ids=types)
        plain = model(input_ids=ids, attention_mask=mask).last_hidden_state
    pooled = {"pooled": found.pooler_output.numpy()} if found.pooler_output is not None else {}
    arrays = {"ids": ids, "mask": mask, "types": types, "hidden": found.last_hidden_state, "plain": plain}
    np.savez(folder / family / "expected.npz", **{name: array.numpy() for name, array in arrays.items()}, **pooled)


def remember(folder: Path, family: str) -> None:
    """As `make`, for a network that keeps states: its logits for two texts of the same length."""
    name, more = STATES[family]
    torch.manual_seed(7)
    model = getattr(transformers, f"{name}ForCausalLM")(getattr(transformers, f"{name}Config")(**more)).eval()
    _shaken(model)
    model.train().save_pretrained(folder / family)              # RWKV divides its weights in place for inference
    ids = torch.randint(3, 97, (2, 12))
    with torch.no_grad():
        logits = model.eval()(input_ids=ids).logits
    np.savez(folder / family / "expected.npz", ids=ids.numpy(), mask=np.ones((2, 12), np.int64), logits=logits.numpy())


def translate(folder: Path, family: str) -> None:
    """As `make`, for a network that reads one text and writes another: its logits for two of each, the first read text padded on the right."""
    name, more = TRANSLATORS[family]
    torch.manual_seed(7)
    config = getattr(transformers, f"{name}Config")(**more)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{name}ForConditionalGeneration")(config).eval()
    _shaken(model)
    model.save_pretrained(folder / family)
    ids, mask, written = torch.randint(3, 97, (2, 40)), torch.ones((2, 40), dtype=torch.int64), torch.randint(3, 97, (2, 31))
    mask[0, 33:] = 0
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, decoder_input_ids=written).logits
    np.savez(folder / family / "expected.npz", ids=ids.numpy(), mask=mask.numpy(), written=written.numpy(), logits=logits.numpy())


def _shaken(model: torch.nn.Module) -> None:
    """Norms of ones and biases of zeros would hide what is left out."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter += 0.05 * torch.randn_like(parameter)


def load(expected: Path, folder: Path) -> None:
    """Prints the greatest difference of what the model in a folder computes, and what transformers missed or found too much there."""
    wanted = np.load(expected)
    inputs = {"input_ids": wanted["ids"], "attention_mask": wanted["mask"]}
    others = {"token_type_ids": "types", "position_ids": "positions", "decoder_input_ids": "written"}
    inputs |= {name: wanted[short] for name, short in others.items() if short in wanted}
    name = "AutoModel" if "types" in wanted else "AutoModelForSeq2SeqLM" if "written" in wanted else "AutoModelForCausalLM"
    made = getattr(transformers, name)
    model, missed = made.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    with torch.no_grad():
        found = model(**{name: torch.tensor(array) for name, array in inputs.items()})
    have, want = (found.last_hidden_state, wanted["hidden"]) if "types" in wanted else (found.logits, wanted["logits"])
    counted = np.ones(want.shape[:2], bool) if "written" in wanted else wanted["mask"].astype(bool)
    print(np.abs(have.numpy() - want)[counted].max(), sum(map(len, missed.values())))


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    if sys.argv[1] == "load":
        for each in zip(sys.argv[2::2], sys.argv[3::2], strict=True):
            load(*map(Path, each))
    else:
        makers = ((make, CONFIGS), (encode, ENCODERS), (remember, STATES), (translate, TRANSLATORS))
        for maker, names in makers:
            for each in names:
                maker(Path(sys.argv[2]), each)

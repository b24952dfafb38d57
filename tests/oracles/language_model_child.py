"""Runs inside an environment that has transformers: makes a small language model of each family with random weights, and says what it computes.

    python language_model_child.py make FOLDER FAMILY...
    python language_model_child.py load EXPECTED.npz FOLDER
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
    "olmo2": ("Olmo2", {}), "stablelm": ("StableLm", {"use_qkv_bias": True}), "starcoder2": ("Starcoder2", {"sliding_window": 6}), "phi2": ("Phi", {}),
    "granite": ("Granite", {"embedding_multiplier": 3.0, "residual_multiplier": 0.3, "attention_multiplier": 0.2, "logits_scaling": 4.0}),
    "gpt2": ("GPT2", {"n_embd": 64, "n_layer": 4, "n_head": 4, "n_positions": 64}),
}


def make(folder: Path, family: str) -> None:
    """config.json and model.safetensors of a model, and in expected.npz its logits for tokens of two rows, the first padded on the left."""
    name, more = CONFIGS[family]
    torch.manual_seed(7)
    known = {key: value for key, value in COMMON.items() if not (name == "GPT2" and key == "num_key_value_heads")}
    config = getattr(transformers, f"{name}TextConfig" if name == "Gemma3" else f"{name}Config")(**known | more)
    config._attn_implementation = "eager"
    model = getattr(transformers, f"{name}LMHeadModel" if name == "GPT2" else f"{name}ForCausalLM")(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():                # norms of ones and biases of zeros would hide what is left out
            parameter += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(folder / family)
    ids = torch.randint(3, 97, (2, 12))
    mask = torch.ones_like(ids)
    mask[0, :3] = 0
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    with torch.no_grad():
        logits = model(input_ids=ids, attention_mask=mask, position_ids=positions).logits
    np.savez(folder / family / "expected.npz", ids=ids.numpy(), mask=mask.numpy(), positions=positions.numpy(), logits=logits.numpy())


def load(expected: Path, folder: Path) -> None:
    """Prints the greatest difference of the logits of the model in a folder, and what transformers missed or found too much there."""
    model, missed = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True, attn_implementation="eager")
    wanted = np.load(expected)
    inputs = {"input_ids": wanted["ids"], "attention_mask": wanted["mask"], "position_ids": wanted["positions"]}
    with torch.no_grad():
        logits = model(**{name: torch.tensor(array) for name, array in inputs.items()}).logits.numpy()
    print(np.abs(logits - wanted["logits"])[wanted["mask"].astype(bool)].max(), sum(map(len, missed.values())))


if __name__ == "__main__":
    transformers.logging.set_verbosity_error()
    if sys.argv[1] == "load":
        load(Path(sys.argv[2]), Path(sys.argv[3]))
    else:
        for each in sys.argv[3:] or CONFIGS:
            make(Path(sys.argv[2]), each)

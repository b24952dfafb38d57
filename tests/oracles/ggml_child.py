"""Runs inside an environment that has transformers and ctransformers, the last programs that read files of the time before GGUF.

    python ggml_child.py make FOLDER                               small models, and what transformers computes with each
    python ggml_child.py logits (KIND FILE EXPECTED.npz OUT.npy)...     what the program of that kind computes with a file, token by token
    python ggml_child.py words KIND FILE TEXTS.json                the tokens of each text, a line each
"""
from __future__ import annotations

import ctypes
import importlib.util
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np

GPT = {"vocab_size": 97, "n_embd": 256, "n_layer": 2, "n_head": 4, "n_positions": 64, "bos_token_id": 1, "eos_token_id": 2}
LLAMA = {"vocab_size": 97, "hidden_size": 256, "num_hidden_layers": 2, "num_attention_heads": 8, "num_key_value_heads": 8, "intermediate_size": 768,
         "max_position_embeddings": 64, "rms_norm_eps": 5e-6, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
CONFIGS = {
    "llama": ("Llama", LLAMA), "llama-70b": ("Llama", LLAMA | {"num_key_value_heads": 1}), "gpt2": ("GPT2", GPT),
    "gptj": ("GPTJ", GPT | {"rotary_dim": 32}),
    "gpt_neox": ("GPTNeoX", {name: value for name, value in LLAMA.items() if name not in ("rms_norm_eps", "num_key_value_heads")}
                 | {"intermediate_size": 1024, "rotary_pct": 0.5}),
    "gpt_neox_serial": ("GPTNeoX", {name: value for name, value in LLAMA.items() if name not in ("rms_norm_eps", "num_key_value_heads")}
                        | {"intermediate_size": 1024, "rotary_pct": 0.5, "use_parallel_residual": False}),
}


class Config(ctypes.Structure):
    _fields_ = (("context_length", ctypes.c_int), ("gpu_layers", ctypes.c_int), ("mmap", ctypes.c_bool), ("mlock", ctypes.c_bool))


def make(folder: Path) -> None:
    import torch
    import transformers
    transformers.logging.set_verbosity_error()
    for name, (family, values) in CONFIGS.items():
        torch.manual_seed(7)
        made = getattr(transformers, f"{family}{'LMHeadModel' if family == 'GPT2' else 'ForCausalLM'}")
        model = made(getattr(transformers, f"{family}Config")(**values)).eval()
        with torch.no_grad():
            for parameter in model.parameters():
                parameter += 0.05 * torch.randn_like(parameter)
            ids = torch.randint(3, 97, (1, 10))
            logits = model(ids).logits[0]
        model.save_pretrained(folder / name)
        np.savez(folder / name / "expected.npz", ids=ids.numpy()[0], logits=logits.numpy())


def opened(kind: str, path: str) -> tuple[Any, Any]:
    """The library and the model in it. Exits where it does not take the file."""
    found = importlib.util.find_spec("ctransformers")
    library = ctypes.CDLL(str(Path(found.origin).parent / "lib" / "avx2" / "libctransformers.so"))
    integers = ctypes.POINTER(ctypes.c_int)
    library.ctransformers_llm_create.argtypes, library.ctransformers_llm_create.restype = [ctypes.c_char_p, ctypes.c_char_p, Config], ctypes.c_void_p
    library.ctransformers_llm_logits_data.argtypes, library.ctransformers_llm_logits_data.restype = [ctypes.c_void_p], ctypes.POINTER(ctypes.c_float)
    library.ctransformers_llm_logits_size.argtypes = [ctypes.c_void_p]
    library.ctransformers_llm_batch_eval.argtypes = [ctypes.c_void_p, integers, *[ctypes.c_int] * 4]
    library.ctransformers_llm_tokenize.argtypes = [ctypes.c_void_p, ctypes.c_char_p, ctypes.c_bool, integers]
    model = library.ctransformers_llm_create(path.encode(), kind.encode(), Config(64, 0, True, False))
    if not model:
        sys.exit(f"{path} was not loaded as {kind}")
    return library, model


def logits(kind: str, path: str, expected: str, out: str) -> None:
    library, model = opened(kind, path)
    rows = []
    for place, token in enumerate(np.load(expected)["ids"].tolist()):
        if not library.ctransformers_llm_batch_eval(model, (ctypes.c_int * 1)(token), 1, place, 1, 1):
            sys.exit(f"{path} does not run")
        size = library.ctransformers_llm_logits_size(model)
        rows.append(np.ctypeslib.as_array(library.ctransformers_llm_logits_data(model), (size,)).copy())
    np.save(out, np.stack(rows))


def words(kind: str, path: str, texts: str) -> None:
    library, model = opened(kind, path)
    for text in json.loads(Path(texts).read_text()):
        data = text.encode()
        tokens = (ctypes.c_int * (len(data) + 8))()
        print(*tokens[:library.ctransformers_llm_tokenize(model, data, False, tokens)])


if __name__ == "__main__":
    if sys.argv[1] == "logits":
        for group in zip(*(sys.argv[start::4] for start in (2, 3, 4, 5)), strict=True):
            logits(*group)
    else:
        {"make": lambda folder: make(Path(folder)), "words": words}[sys.argv[1]](*sys.argv[2:])

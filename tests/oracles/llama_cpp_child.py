"""Runs inside an environment that has llama-cpp-python: what llama.cpp computes with GGUF files.

    python llama_cpp_child.py logits FILE.gguf EXPECTED.npz OUT.npz ...        logits of every row of ids, without its padding
    python llama_cpp_child.py embed FILE.gguf EXPECTED.npz OUT.npz ...         what stands behind the last layer of every token
    python llama_cpp_child.py translate FILE.gguf EXPECTED.npz OUT.npz ...     logits of every row of what is written, behind what is read
    python llama_cpp_child.py greedy FILE.gguf COUNT half|float PROMPT ...     the best tokens that follow each prompt, a line each
    python llama_cpp_child.py tokens FILE.gguf TEXTS.json                      of each text, a line each
"""
from __future__ import annotations

import json
import sys
from pathlib import Path

import llama_cpp
import numpy as np


def opened(path: str, **options: object) -> llama_cpp.Llama:
    return llama_cpp.Llama(path, n_ctx=64, n_batch=64, verbose=False, n_threads=1, flash_attn=False, type_k=0, type_v=0, **options)


def rows(expected: str) -> list[list[int]]:
    """The tokens of each text, without what its mask leaves out."""
    found = np.load(expected)
    return [ids[mask.astype(bool)].tolist() for ids, mask in zip(found["ids"], found["mask"], strict=True)]


def logits(path: str, expected: str, out: str) -> None:
    model = opened(path, logits_all=True)
    found = []
    for tokens in rows(expected):
        model.reset()
        model._ctx.kv_cache_clear()
        model.eval(tokens)
        found.append(model.scores[:len(tokens)].copy())
    np.savez(out, *found)


def embed(path: str, expected: str, out: str) -> None:
    model = opened(path, embedding=True, pooling_type=llama_cpp.LLAMA_POOLING_TYPE_NONE, n_ubatch=64)
    found = []
    for tokens in rows(expected):
        model._ctx.kv_cache_clear()
        model._batch.reset()
        model._batch.add_sequence(tokens, 0, True)
        model._ctx.decode(model._batch)
        width = model.n_embd()
        found.append(np.stack([np.array(llama_cpp.llama_get_embeddings_ith(model._ctx.ctx, place)[:width], np.float32) for place in range(len(tokens))]))
    np.savez(out, *found)


def translate(path: str, expected: str, out: str) -> None:
    model, found = opened(path, logits_all=True), []
    for read, written in zip(rows(expected), np.load(expected)["written"].tolist(), strict=True):
        model._ctx.kv_cache_clear()
        for run, given in ((llama_cpp.llama_encode, read), (llama_cpp.llama_decode, written)):
            model._batch.reset()
            model._batch.add_sequence(given, 0, True)
            assert run(model._ctx.ctx, model._batch.batch) == 0
        pointers = [llama_cpp.llama_get_logits_ith(model._ctx.ctx, place) for place in range(len(written))]
        found.append(np.stack([np.array(pointer[:model.n_vocab()], np.float32) for pointer in pointers]))
    np.savez(out, *found)


def tokens(path: str, texts: str) -> None:
    """One line of numbers a text; the texts are a JSON list in a file."""
    model = llama_cpp.Llama(path, vocab_only=True, verbose=False)
    for text in json.loads(Path(texts).read_text()):
        print(*model.tokenize(text.encode(), add_bos=False, special=False))


def greedy(path: str, count: str, cache: str, *prompts: str) -> None:
    kept = {"type_k": 0, "type_v": 0} if cache == "float" else {}
    model = llama_cpp.Llama(path, n_ctx=512, verbose=False, n_threads=1, logits_all=True, **kept)
    for prompt in prompts:
        model.reset()
        model._ctx.kv_cache_clear()
        tokens, found = model.tokenize(prompt.encode(), add_bos=False, special=True), []
        model.eval(tokens)
        for _ in range(int(count)):
            found.append(int(model.scores[model.n_tokens - 1].argmax()))
            model.eval(found[-1:])
        print(*found)


if __name__ == "__main__":
    verb, arguments = {"logits": logits, "embed": embed, "translate": translate, "greedy": greedy, "tokens": tokens}[sys.argv[1]], sys.argv[2:]
    for group in [arguments] if verb in (greedy, tokens) else zip(arguments[::3], arguments[1::3], arguments[2::3], strict=True):
        verb(*group)

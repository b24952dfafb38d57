"""Runs inside an environment that has onnxruntime-genai: loads a folder with genai_config.json and prints the best tokens that follow a prompt.

    python genai_child.py FOLDER COUNT PROMPT ...
"""
from __future__ import annotations

import sys

import onnxruntime_genai


def main(folder: str, count: str, *prompts: str) -> None:
    """A line a prompt: its own tokens, a bar, those that follow."""
    model = onnxruntime_genai.Model(folder)
    tokenizer = onnxruntime_genai.Tokenizer(model)
    for prompt in prompts:
        tokens = list(tokenizer.encode(prompt))
        settings = onnxruntime_genai.GeneratorParams(model)
        settings.set_search_options(max_length=len(tokens) + int(count), do_sample=False)
        generator = onnxruntime_genai.Generator(model, settings)
        generator.append_tokens(tokens)
        while not generator.is_done():
            generator.generate_next_token()
        print(*tokens, "|", *generator.get_sequence(0)[len(tokens):])


if __name__ == "__main__":
    main(*sys.argv[1:])

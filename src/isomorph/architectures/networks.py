"""Which graph the weights of an architecture become, and inputs that fit together to try it with."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from isomorph.architectures import decoder, encoder, recurrent, translator
from isomorph.architectures.layers import ENCODERS, NETWORKS
from isomorph.errors import Unsupported
from isomorph.model import Checkpoint, Model

Builder = Callable[..., Model]
BUILDERS: dict[str, Builder] = {name: module.graph for module, names in ((decoder, NETWORKS), (encoder, ENCODERS), (recurrent, recurrent.NETWORKS),
                                                                                (translator, translator.NETWORKS))
                                for name in names}


def graph(content: Checkpoint, *, quantised: bool = True, rounded: bool = False) -> Model:
    """The network that these weights, under GGUF's names, belong to. With `quantised`, blocks stay codes and scales; else they are decoded to float32. With
    `rounded`, what they are multiplied with is rounded as ggml rounds it, so that the network computes what llama.cpp computes.

    Raises `Unsupported` for an architecture that is not built, with every weight that its network would not read.
    """
    architecture = str(content.metadata.get("general.architecture", ""))
    made = builder(architecture)(content, architecture, quantised=quantised, rounded=rounded)
    made.metadata[WORDS] = int(content["token_embd.weight"].dims[0])
    return made


def builder(architecture: str) -> Builder:
    """What makes the graphs of an architecture. Raises `Unsupported` for one that is not built."""
    if architecture not in BUILDERS:
        raise Unsupported(f"no graph is built for the architecture {architecture!r}", hint="those that are: " + ", ".join(BUILDERS))
    return BUILDERS[architecture]


WORDS = "isomorph.words"                        # how many words the model knows, in the metadata of its graph


def samples(model: Model, seed: int, past: int = 3, sequence: int = 5) -> dict[str, np.ndarray]:
    """Inputs that fit together: `sequence` random tokens, behind `past` others whose keys and values are random where the model keeps them."""
    random = np.random.default_rng(seed)
    dims: dict[str, list[Any]] = {str(value.name): list(value.shape or ()) for value in model.graph.inputs}
    before = past if any("past" in shape for shape in dims.values()) else 0
    known = {"sequence": sequence, "past": before, "total": before + sequence, "batch": 1, "source": sequence, "source_past": 0, "source_total": sequence}
    feeds: dict[str, np.ndarray] = {}
    for name, shape in dims.items():
        sizes = [dim if isinstance(dim, int) else known[str(getattr(dim, "value", dim))] for dim in shape]
        feeds[name] = VALUES[name](random, sizes, model.metadata[WORDS], before) if name in VALUES else random.normal(size=sizes).astype(np.float32)
    return feeds


Made = Callable[[np.random.Generator, list[int], int, int], np.ndarray]
VALUES: dict[str, Made] = {
    "input_ids": lambda random, sizes, words, _: random.integers(0, words, sizes),
    "decoder_input_ids": lambda random, sizes, words, _: random.integers(0, words, sizes),
    "attention_mask": lambda _, sizes, __, ___: np.ones(sizes, np.int64),
    "position_ids": lambda _, sizes, __, before: np.arange(before, before + sizes[1])[None],
    "token_type_ids": lambda _, sizes, __, ___: np.zeros(sizes, np.int64),
}

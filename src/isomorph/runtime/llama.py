"""llama.cpp by way of llama-cpp-python, for text from GGUF files. Runs inside the child only."""
from __future__ import annotations

from typing import Any

import numpy as np

LONGEST = 4096                              # tokens that are kept, where the model was trained with more


def prepare() -> None:
    """Imports the runtime."""
    import llama_cpp  # noqa: F401


def version() -> str:
    """Of the installed package."""
    import llama_cpp
    return str(llama_cpp.__version__)


def load(path: str, *, threads: int) -> Loaded:
    """What was read stays in this process: each run follows the one before."""
    import llama_cpp
    return Loaded(llama_cpp.Llama(path, n_ctx=LONGEST, n_threads=threads, n_threads_batch=threads, verbose=False))


class Loaded:
    """A model that reads `input_ids` [1, sequence] and answers the `logits` [1, 1, words] behind the last of them."""

    def __init__(self, model: Any):
        self.model = model
        self.inputs = [{"name": "input_ids", "dtype": "int64", "shape": [1, "sequence"]}]
        self.outputs = [{"name": "logits", "dtype": "float32", "shape": [1, 1, model.n_vocab()]}]

    def run(self, feeds: dict[str, Any]) -> dict[str, Any]:
        """Outputs by name."""
        import llama_cpp
        self.model.eval(feeds["input_ids"][0].tolist())
        found = llama_cpp.llama_get_logits_ith(self.model._ctx.ctx, -1)
        return {"logits": np.ctypeslib.as_array(found, shape=(self.model.n_vocab(),)).reshape(1, 1, -1).copy()}

    def forget(self) -> None:
        """The next run is the first."""
        self.model.reset()
        self.model._ctx.kv_cache_clear()

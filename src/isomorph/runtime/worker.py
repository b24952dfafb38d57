"""The child process: loads one model file into one runtime and answers requests over its standard input and output until they end.

It imports NumPy and that runtime, nothing else. A runtime's own chatter on standard output goes to standard error.
"""
from __future__ import annotations

import contextlib
import importlib
import os
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

from isomorph.runtime import pipe


def main() -> None:
    """Answers until the parent goes away."""
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    loaded: Any = None
    with contextlib.suppress(EOFError, BrokenPipeError):
        while True:
            request = pipe.receive(sys.stdin.buffer)
            try:
                if request["do"] == "load":
                    loaded, answer = load(**request["with"])
                else:
                    answer = ANSWERS[request["do"]](loaded, **request["with"])
            except Exception as error:              # whatever a runtime raises is an answer for its user
                answer = {"error": str(error).strip() or type(error).__name__}
            pipe.send(answers, answer)


def load(module: str, path: str, threads: int, options: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    """The loaded model, and what the parent is told of it. Importing the runtime does not count as loading."""
    driver = importlib.import_module(module)
    driver.prepare()
    start = time.perf_counter()
    loaded = driver.load(path, threads=threads, **options)
    return loaded, {"inputs": loaded.inputs, "outputs": loaded.outputs, "seconds": time.perf_counter() - start, "version": driver.version()}


def run(loaded: Any, feeds: dict[str, Any]) -> dict[str, Any]:
    """Outputs by name."""
    return {"outputs": loaded.run(feeds)}


def forget(loaded: Any) -> dict[str, Any]:
    """Drops what is carried from one run to the next."""
    loaded.forget()
    return {}


def measure(loaded: Any, feeds: dict[str, Any], runs: int, warm_up: int) -> dict[str, Any]:
    """Seconds of each run, and the peak of resident memory in bytes."""
    once = loaded.prepared(feeds)
    for _ in range(warm_up):
        once()
    seconds = []
    for _ in range(runs):
        start = time.perf_counter()
        once()
        seconds.append(time.perf_counter() - start)
    return {"seconds": seconds, "rss": peak_memory()}


def peak_memory() -> int:
    """Bytes. Not `ru_maxrss` where it can be helped: Linux lets a child inherit that of its parent across exec."""
    try:
        with open("/proc/self/status") as status:
            return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM:"))
    except (OSError, StopIteration):
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


ANSWERS: dict[str, Callable[..., dict[str, Any]]] = {"run": run, "measure": measure, "forget": forget}

"""A runtime for tests: what it does with a model is the text in the file."""
from __future__ import annotations

import os
import time


def prepare() -> None:
    print("noise on standard output")


def version() -> str:
    return "0"


class Loaded:
    inputs = [{"name": "x", "dtype": "float32", "shape": ["n", 2]}]
    outputs = [{"name": "y", "dtype": "float32", "shape": ["n", 2]}]

    def __init__(self, deed: str):
        self.deed = deed

    def run(self, feeds: dict) -> dict:
        if self.deed == "abort":
            os.abort()
        if self.deed == "sleep":
            time.sleep(60)
        if self.deed == "raise":
            raise RuntimeError("no kernel for FROB")
        return {"y": feeds["x"], "nested": [feeds["x"], {3: feeds["x"][0, 0]}, None, "text"]}


def load(path: str, *, threads: int) -> Loaded:
    with open(path) as file:
        deed = file.read()
    if deed == "refuse":
        raise ValueError("not a model of mine")
    return Loaded(deed)

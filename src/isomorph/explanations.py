"""What the codes of errors and findings mean, from `data/explanations.toml`."""
from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path

FILE = Path(__file__).parent / "data" / "explanations.toml"


@cache
def explanations() -> dict[str, str]:
    """Code -> explanation, in the order of the file."""
    with FILE.open("rb") as file:
        return {code: " ".join(text.split()) for code, text in tomllib.load(file).items()}

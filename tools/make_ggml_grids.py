"""Makes src/isomorph/data/ggml_grids.npz, the codebooks of the IQ types, from ggml's own header.

    python tools/make_ggml_grids.py PATH/TO/ggml-common.h

The points of the grids are constants of the file format, published in ggml/src/ggml-common.h (MIT licence, the ggml authors).
"""
from __future__ import annotations

import re
import sys
from pathlib import Path

import numpy as np

NAMES = {"iq2xxs": ("uint64_t", 8), "iq2xs": ("uint64_t", 8), "iq2s": ("uint64_t", 8), "iq3xxs": ("uint32_t", 4),
         "iq3s": ("uint32_t", 4), "iq1s": ("uint64_t", 8)}
TARGET = Path(__file__).parents[1] / "src" / "isomorph" / "data" / "ggml_grids.npz"


def main(header: str) -> None:
    text = Path(header).read_text()
    grids = {}
    for name, (kind, width) in NAMES.items():
        body = re.search(rf"GGML_TABLE_BEGIN\({kind}, {name}_grid, \w+\)(.*?)GGML_TABLE_END", text, re.S)[1]
        values = np.array([int(word, 16) for word in re.findall(r"0x[0-9a-f]+", body)], f"<u{width}")
        grids[name] = values.view(np.int8).reshape(-1, width)
    np.savez_compressed(TARGET, **grids)
    print({name: points.shape for name, points in grids.items()}, TARGET.stat().st_size)


if __name__ == "__main__":
    main(sys.argv[1])

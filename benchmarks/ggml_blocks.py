"""Compares the blocks of `isomorph.quant.encode` with those of ggml's own code, and both speeds.

    python benchmarks/ggml_blocks.py [--blocks 1000000] [--types Q4_K Q6_K] [--importance]

prints a line a type: blocks compared over all distributions, how many differ, MB of float32 a second of CPU time here and in C. Needs libggml-python.
"""
from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1] / "tests" / "oracles"))

import reference_ggml
from distributions import DISTRIBUTIONS, rows

from isomorph.quant.blocks import BLOCKS
from isomorph.quant.encode import ENCODERS, WEIGHTED, quantize

COLUMNS = 4096
ELEMENTS = 1 << 22                            # of one comparison


def compared(name: str, blocks: int, weighed: bool) -> tuple[int, int, float, float]:
    """Blocks compared, blocks that differ, MB/s here, MB/s of the reference."""
    kind = BLOCKS[name]
    count = max(1, min(ELEMENTS, blocks * kind.elements // len(DISTRIBUTIONS)) // COLUMNS)
    done = different = seed = 0
    here = there = 0.0
    while done < blocks:
        for distribution in DISTRIBUTIONS:
            source = rows(distribution, seed, count, COLUMNS)
            importance = np.square(np.random.default_rng(seed).standard_normal(COLUMNS)).astype(np.float32) if weighed else None
            start = time.process_time()
            have = quantize(name, source, importance)
            here += time.process_time() - start
            start = time.process_time()
            want = reference_ggml.encoded(name, source, importance)
            there += time.process_time() - start
            different += int((have != want).any(1).sum())
            done += len(have)
            seed += 1
    size = done * kind.elements * 4 / 1e6
    return done, different, size / here, size / there


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--blocks", type=int, default=1_000_000)
    parser.add_argument("--types", nargs="*")
    parser.add_argument("--importance", action="store_true", help="weigh errors by an importance of each column")
    options = parser.parse_args()
    print("type      blocks   different   MB/s here   MB/s C   numpy", np.__version__)
    wrong = 0
    for name in options.types or (sorted(WEIGHTED) if options.importance else ENCODERS):
        done, different, here, there = compared(name, options.blocks, options.importance)
        wrong += different
        print(f"{name:8}{done:9,}{different:11}{here:12.0f}{there:9.0f}", flush=True)
    return int(wrong > 0)


if __name__ == "__main__":
    sys.exit(main())

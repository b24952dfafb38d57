"""The types of ggml: how many elements and bytes a block has, and which fields stand in it. No NumPy is needed to look at them.

Layouts: ggml/src/ggml-common.h; numbers: ggml/include/ggml.h, enum ggml_type.
"""
from __future__ import annotations

import re
from dataclasses import dataclass

WIDTHS = {"u8": 1, "i8": 1, "u16": 2, "i16": 2, "f16": 2, "f32": 4}
# name, number, elements of a block, fields in order; of a plain type its ONNX element type instead of fields
ROWS = """
F32      0   1    FLOAT
F16      1   1    FLOAT16
Q4_0     2   32   f16 d, u8 qs[16]
Q4_1     3   32   f16 d, f16 m, u8 qs[16]
Q5_0     6   32   f16 d, u8 qh[4], u8 qs[16]
Q5_1     7   32   f16 d, f16 m, u8 qh[4], u8 qs[16]
Q8_0     8   32   f16 d, i8 qs[32]
Q8_1     9   32   f16 d, f16 s, i8 qs[32]
Q2_K     10  256  u8 scales[16], u8 qs[64], f16 d, f16 dmin
Q3_K     11  256  u8 hmask[32], u8 qs[64], u8 scales[12], f16 d
Q4_K     12  256  f16 d, f16 dmin, u8 scales[12], u8 qs[128]
Q5_K     13  256  f16 d, f16 dmin, u8 scales[12], u8 qh[32], u8 qs[128]
Q6_K     14  256  u8 ql[128], u8 qh[64], i8 scales[16], f16 d
Q8_K     15  256  f32 d, i8 qs[256], i16 bsums[16]
IQ2_XXS  16  256  f16 d, u16 qs[32]
IQ2_XS   17  256  f16 d, u16 qs[32], u8 scales[8]
IQ3_XXS  18  256  f16 d, u8 qs[96]
IQ1_S    19  256  f16 d, u8 qs[32], u16 qh[8]
IQ4_NL   20  32   f16 d, u8 qs[16]
IQ3_S    21  256  f16 d, u8 qs[64], u8 qh[8], u8 signs[32], u8 scales[4]
IQ2_S    22  256  f16 d, u8 qs[64], u8 qh[8], u8 scales[8]
IQ4_XS   23  256  f16 d, u16 scales_h[1], u8 scales_l[4], u8 qs[128]
I8       24  1    INT8
I16      25  1    INT16
I32      26  1    INT32
I64      27  1    INT64
F64      28  1    DOUBLE
IQ1_M    29  256  u8 qs[32], u8 qh[16], u8 scales[8]
BF16     30  1    BFLOAT16
TQ1_0    34  256  u8 qs[48], u8 qh[4], f16 d
TQ2_0    35  256  u8 qs[64], f16 d
MXFP4    39  32   u8 e, u8 qs[16]
NVFP4    40  64   u8 d[4], u8 qs[32]
Q1_0     41  128  f16 d, u8 qs[16]
Q2_0     42  64   f16 d, u8 qs[16]
"""
PLAIN_BYTES = {"FLOAT": 4, "FLOAT16": 2, "BFLOAT16": 2, "DOUBLE": 8, "INT8": 1, "INT16": 2, "INT32": 4, "INT64": 8}
FIELD = re.compile(r"(\w+) (\w+)(?:\[(\d+)\])?")


@dataclass(frozen=True)
class BlockType:
    """A type of ggml. `fields` are (name, type, count) in the order of their bytes, with a count of 0 for a single number; a plain type has none."""

    name: str
    number: int
    elements: int
    bytes: int
    fields: tuple[tuple[str, str, int], ...] = ()
    element_type: str = ""               # of a plain type: the name of its ONNX element type

    @property
    def bits_per_weight(self) -> float:
        return 8 * self.bytes / self.elements


def row(line: str) -> BlockType:
    """A type from a line of a table such as `ROWS`."""
    name, number, elements, rest = line.split(maxsplit=3)
    if rest in PLAIN_BYTES:
        return BlockType(name, int(number), 1, PLAIN_BYTES[rest], element_type=rest)
    fields = tuple((label, kind, int(count or 0)) for kind, label, count in FIELD.findall(rest))
    return BlockType(name, int(number), int(elements), sum(WIDTHS[kind] * (count or 1) for _, kind, count in fields), fields)


BLOCKS: dict[str, BlockType] = {kind.name: kind for kind in map(row, ROWS.strip().splitlines())}
BY_NUMBER: dict[int, BlockType] = {kind.number: kind for kind in BLOCKS.values()}
PLAIN: dict[str, BlockType] = {kind.element_type: kind for kind in BLOCKS.values() if kind.element_type}
# Numbers that once meant something: the repacked forms hold the same codes in the order of one processor.
RETIRED = {4: "Q4_2", 5: "Q4_3", 31: "Q4_0_4_4", 32: "Q4_0_4_8", 33: "Q4_0_8_8", 36: "IQ4_NL_4_4", 37: "IQ4_NL_4_8", 38: "IQ4_NL_8_8"}

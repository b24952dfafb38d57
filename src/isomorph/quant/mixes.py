"""Which type each tensor of a language model gets in a named scheme (Q4_K_M and the rest), as llama-quantize decides it.

The decisions are rows of tables: schemes, the place where they hold, the type. The first row that fits counts. Source: llama.cpp src/llama-quant.cpp.
"""
from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from isomorph.quant.blocks import BLOCKS

# scheme, general.file_type, the type of most tensors
ROWS = """
F32 0 F32          F16 1 F16          BF16 32 BF16
Q4_0 2 Q4_0        Q4_1 3 Q4_1        Q5_0 8 Q5_0        Q5_1 9 Q5_1        Q8_0 7 Q8_0        Q1_0 40 Q1_0       Q2_0 41 Q2_0
Q2_K 10 Q2_K       Q2_K_S 21 Q2_K     Q3_K_S 11 Q3_K     Q3_K_M 12 Q3_K     Q3_K_L 13 Q3_K     Q4_K_S 14 Q4_K     Q4_K_M 15 Q4_K
Q5_K_S 16 Q5_K     Q5_K_M 17 Q5_K     Q6_K 18 Q6_K       TQ1_0 36 TQ1_0     TQ2_0 37 TQ2_0     MXFP4_MOE 38 MXFP4
IQ1_S 24 IQ1_S     IQ1_M 31 IQ1_M     IQ2_XXS 19 IQ2_XXS IQ2_XS 20 IQ2_XS   IQ2_S 28 IQ2_XS    IQ2_M 29 IQ2_S
IQ3_XXS 23 IQ3_XXS IQ3_XS 22 IQ3_S    IQ3_S 26 IQ3_S     IQ3_M 27 IQ3_S     IQ4_NL 25 IQ4_NL   IQ4_XS 30 IQ4_XS
"""


@dataclass(frozen=True)
class Scheme:
    """A named mix: its number in `general.file_type` and the type of most tensors."""

    name: str
    number: int
    base: str


WORDS = ROWS.split()
SCHEMES = {name: Scheme(name, int(number), base) for name, number, base in zip(WORDS[::3], WORDS[1::3], WORDS[2::3], strict=True)}

# Parts of a name -> role, the first that fits. attn_qkv and attn_kv_b hold values too, so they count as values.
ROLES = (("attn_qkv.weight", "value"), ("attn_kv_b.weight", "value"), ("attn_v.weight", "value"), ("attn_k.weight", "key"), ("attn_q.weight", "query"),
         ("attn_output.weight", "attention output"), ("ffn_up", "up"), ("ffn_gate", "gate"), ("ffn_down", "down"))
WHOLE_NAMES = {"output.weight": "output", "token_embd.weight": "embedding", "per_layer_token_embd.weight": "embedding"}
# A tensor is left as it is where its name has one of these parts, does not end with "weight", or it has one dimension.
KEPT = ("_norm.weight", "ffn_gate_inp.weight", "ffn_gate_tid2eid.weight", "altup", "laurel", "per_layer_model_proj", "ssm_conv1d", "shortconv.conv.weight",
        "indexer.k_proj.weight", "indexer.q_proj.weight", "time_mix_first.weight", "time_mix_w0.weight", "time_mix_w1.weight", "time_mix_w2.weight",
        "time_mix_v0.weight", "time_mix_v1.weight", "time_mix_v2.weight", "time_mix_a0.weight", "time_mix_a1.weight", "time_mix_a2.weight",
        "time_mix_g1.weight", "time_mix_g2.weight", "time_mix_decay_w1.weight", "time_mix_decay_w2.weight", "time_mix_lerp_fused.weight",
        "attn_rel_b.weight", ".position_embd", "sam.pos_embd", "sam.neck.", "sam.net_", ".rel_pos", ".patch_embd", ".patch_merger", "a.rvq.codebook",
        "mm.a.code_embd")
KEPT_WHOLE = ("position_embd.weight", "token_types.weight")
# What takes the place of a type whose blocks do not fill a row; F16 where that does not either.
FALLBACKS = {name: "IQ4_NL" for name in ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ3_XXS", "IQ3_S", "IQ4_XS")} | {
    name: "Q4_0" for name in ("Q2_0", "Q2_K", "Q3_K", "TQ1_0", "TQ2_0")} | {"Q4_K": "Q5_0", "Q5_K": "Q5_1", "Q6_K": "Q8_0"}


@dataclass(frozen=True)
class Place:
    """Where a tensor stands: its number among `count` of its role, and what the model is."""

    index: int
    count: int
    model: Model


@dataclass(frozen=True)
class Model:
    """What the decisions depend on. `sharing` is how many heads share a key and a value, `weighed` whether there is an importance matrix."""

    architecture: str
    layers: int
    sharing: int
    experts: int
    heads: int = 0
    key_heads: int = 0
    weighed: bool = False

    @classmethod
    def of(cls, metadata: Mapping[str, Any]) -> Model:
        architecture = str(metadata.get("general.architecture", ""))

        def number(key: str, default: int) -> int:
            value = metadata.get(f"{architecture}.{key}", default)
            if isinstance(value, Sequence) and not isinstance(value, str):
                value = value[0] if len(value) else default
            return int(value) if isinstance(value, (int, float)) else default
        heads = number("attention.head_count", 0)
        shared = number("attention.head_count_kv", heads)
        return cls(architecture, number("block_count", 0), heads // shared if shared else 0, number("expert_count", 0), heads, shared)

    @property
    def eight_experts(self) -> bool:
        return self.experts == 8

    @property
    def is_70b(self) -> bool:
        return self.layers == 80 and self.sharing > 1


def _more_bits(place: Place) -> bool:
    """The first and the last eighth of the layers, and every third between."""
    return place.index < place.count // 8 or place.index >= 7 * place.count // 8 or (place.index - place.count // 8) % 3 == 2


WHERE: dict[str, Callable[[Place], bool]] = {
    "": lambda place: True,
    "shared heads": lambda place: place.model.sharing >= 4,
    "shared heads or experts": lambda place: place.model.sharing >= 4 or place.model.experts >= 4,
    "first two": lambda place: place.index < 2,
    "first four": lambda place: place.index < 4,
    "first eighth": lambda place: place.index < place.count // 8,
    "first sixteenth": lambda place: place.index < place.count // 16,
    "middle": lambda place: place.count // 8 <= place.index < 7 * place.count // 8,
    "not weighed": lambda place: not place.model.weighed,
    "first eighth, weighed": lambda place: place.index < place.count // 8 and place.model.weighed,
    "first eighth, not weighed": lambda place: place.index < place.count // 8 and not place.model.weighed,
    "more bits": _more_bits,
    "eight experts": lambda place: place.model.eight_experts,
    "first eighth, or eight experts and more bits": lambda place: place.index < place.count // 8 or (place.model.eight_experts and _more_bits(place)),
    "falcon": lambda place: place.model.architecture == "falcon",
    "falcon, first sixteenth": lambda place: place.model.architecture == "falcon" and place.index < place.count // 16,
    "falcon, more bits": lambda place: place.model.architecture == "falcon" and _more_bits(place),
    "first eighth, not falcon": lambda place: place.index < place.count // 8 and place.model.architecture != "falcon",
}
LOW = ("IQ1_S", "IQ1_M", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ2_M")
# role -> rows of (schemes, where, type)
RULES: dict[str, tuple[tuple[str, str, str], ...]] = {
    "embedding": (("IQ1_S IQ1_M IQ2_XXS IQ2_XS", "", "Q2_K"), ("IQ2_S IQ2_M IQ3_XXS", "", "IQ3_S"), ("TQ1_0 TQ2_0 Q2_0", "", "Q4_K")),
    "value": (
        ("IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M", "shared heads or experts", "Q4_K"), ("IQ2_S IQ2_M", "", "IQ3_S"),
        ("IQ1_S IQ1_M IQ2_XXS IQ2_XS", "", "Q2_K"), ("Q2_K Q2_K_S IQ3_XXS IQ3_XS IQ3_S", "shared heads", "Q4_K"), ("Q2_K", "", "Q3_K"),
        ("IQ3_XXS", "not weighed", "IQ3_S"), ("IQ3_M", "", "Q4_K"), ("Q3_K_M", "first two", "Q5_K"), ("Q3_K_M", "", "Q4_K"), ("Q3_K_L", "", "Q5_K"),
        ("IQ4_NL IQ4_XS", "shared heads", "Q5_K"), ("Q4_K_M Q5_K_M", "more bits", "Q6_K"), ("Q4_K_S", "first four", "Q5_K")),
    "key": (("IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M", "eight experts", "Q4_K"), ("IQ3_XS", "", "IQ3_XXS"), ("IQ3_XXS", "", "IQ2_S")),
    "query": (("IQ3_XS", "", "IQ3_XXS"), ("IQ3_XXS", "", "IQ2_S")),
    "down": (
        ("IQ2_S IQ2_M", "first eighth", "IQ3_S"), ("IQ1_S IQ1_M IQ2_XXS IQ2_XS", "first eighth", "Q2_K"), ("Q2_K", "", "Q3_K"),
        ("Q2_K_S", "first eighth", "Q4_K"), ("IQ3_XXS", "first eighth, not weighed", "Q4_K"), ("IQ3_XXS", "not weighed", "Q3_K"),
        ("Q3_K_M", "first sixteenth", "Q5_K"), ("Q3_K_M", "falcon, more bits", "Q4_K"),
        ("Q3_K_M", "falcon", "Q3_K"), ("Q3_K_M", "", "Q4_K"), ("IQ3_M", "first eighth, or eight experts and more bits", "Q4_K"), ("Q3_K_L", "falcon", "Q4_K"),
        ("Q3_K_L", "", "Q5_K"), ("Q4_K_M", "falcon, first sixteenth", "Q6_K"), ("Q4_K_M", "falcon, more bits", "Q5_K"), ("Q4_K_M", "falcon", "Q4_K"),
        ("Q4_K_M Q5_K_M", "more bits", "Q6_K"), ("IQ4_NL IQ4_XS", "first eighth, not weighed", "Q5_K"), ("Q4_K_S", "first eighth, not falcon", "Q5_K"),
        ("Q4_0", "first eighth, weighed", "Q4_1"), ("Q5_0", "first eighth, weighed", "Q5_1")),
    "attention output": (
        ("Q3_K_L", "falcon", "Q4_K"), ("Q2_K IQ3_XS IQ3_XXS Q3_K_S Q3_K_M IQ4_NL Q4_K_S Q4_K_M IQ3_S IQ3_M IQ4_XS", "falcon", ""),
        ("Q2_K IQ3_XS IQ3_XXS Q3_K_S Q3_K_M IQ4_NL Q4_K_S Q4_K_M IQ3_S IQ3_M IQ4_XS IQ1_S IQ1_M IQ2_XXS IQ2_XS IQ2_S IQ2_M", "eight experts", "Q5_K"),
        ("Q3_K_L", "eight experts", ""), ("IQ1_S IQ1_M", "", "IQ2_XXS"), ("IQ2_S IQ2_M", "", "IQ3_S"), ("Q2_K", "", "Q3_K"), ("IQ3_XXS", "", "IQ3_S"),
        ("Q3_K_M IQ3_M", "", "Q4_K"), ("Q3_K_L", "", "Q5_K")),
    "gate": (("IQ3_XS", "middle", "IQ3_XXS"),),
    "up": (("IQ3_XS", "middle", "IQ3_XXS"),),
}
BLOCK = re.compile(r"blk\.(\d+)\.")


def in_order(names: Sequence[str]) -> list[str]:
    """By layer, then by name: the order in which llama-quantize decides and writes."""
    return sorted(names, key=lambda name: (int(found[1]) if (found := BLOCK.match(name)) else -1, name.encode()))


def types(scheme: str, tensors: Mapping[str, Sequence[int]], model: Model) -> dict[str, str]:
    """Name -> type of every tensor that is quantised, given the dims [.., columns] of all. Names that are not in the result stay as they are.

    Raises `KeyError` for an unknown scheme.
    """
    chosen, counts = {}, dict.fromkeys(RULES, 0)
    values = sum(_role(name) == "value" for name in tensors)
    tied = "output.weight" not in tensors
    for name in in_order(list(tensors)):
        dims = tensors[name]
        if not allowed(name, dims):
            continue
        role = _role(name)
        count = values if role == "value" else model.layers
        index = counts.get(role, 0)
        if model.experts > 1 and scheme not in LOW and role in ("down", "gate", "up") and (found := BLOCK.match(name)):
            index = int(found[1])
        base = SCHEMES[scheme].base
        if BLOCKS[base].element_type:
            chosen[name] = base
            continue
        kind = _chosen(scheme, role, dims, Place(index, count, model), tied)
        if role in counts and not (role in ("gate", "up") and scheme in LOW) and scheme != "MXFP4_MOE":
            counts[role] += 1
        chosen[name] = fitting(kind, dims[-1])
    return chosen


def allowed(name: str, dims: Sequence[int]) -> bool:
    """Whether a tensor is quantised at all."""
    wide = len(dims) - next((place for place, dim in enumerate(dims) if dim != 1), len(dims))
    return wide > 1 and name.endswith("weight") and name not in KEPT_WHOLE and not any(part in name for part in KEPT)


def _role(name: str) -> str:
    return WHOLE_NAMES.get(name) or next((role for part, role in ROLES if part in name), "")


def _chosen(scheme: str, role: str, dims: Sequence[int], place: Place, tied: bool) -> str:
    base = SCHEMES[scheme].base
    if role == "output" or (tied and role == "embedding"):
        return _of_output(scheme, base, dims, place.model)
    if scheme == "MXFP4_MOE":
        return "MXFP4" if len(dims) > 2 and dims[-3] > 1 else "Q8_0"
    found = next((kind for schemes, where, kind in RULES.get(role, ()) if scheme in schemes.split() and WHERE[where](place)), "") or base
    if role == "value" and scheme not in LOW:
        found = "Q5_K" if place.model.is_70b and found in ("Q3_K", "Q4_K") else found
    if role in ("value", "key") and scheme not in LOW and place.model.eight_experts:
        return "Q8_0"
    return found


def _of_output(scheme: str, base: str, dims: Sequence[int], model: Model) -> str:
    if scheme == "MXFP4_MOE" or model.architecture == "falcon" or dims[-1] % BLOCKS[base].elements:
        return "Q8_0"
    return "Q5_K" if scheme in LOW or scheme == "IQ3_XXS" else "Q8_0" if base == "Q8_0" else "Q6_K"


def fitting(kind: str, columns: int) -> str:
    """The type itself where its blocks fill the rows, else what takes its place."""
    if columns % BLOCKS[kind].elements == 0:
        return kind
    kind = FALLBACKS.get(kind, kind)
    return kind if columns % BLOCKS[kind].elements == 0 else "F16"

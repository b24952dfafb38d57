"""Rotary positions and how they are scaled beyond the length that a model was trained with: of config.json, of GGUF's keys and tensors, and as frequencies.

Kinds: linear, llama3, yarn, longrope and dynamic. Sources: transformers' modeling_rope_utils.py; llama.cpp's conversion/llama.py, conversion/phi.py and
ggml_rope_yarn in ggml-cpu/ops.cpp. GGUF keeps llama3 as a tensor of factors and has no dynamic scaling, so what config.json said comes along as a key of ours.
"""
from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isomorph.errors import Unsupported
from isomorph.report import Finding, Severity
from isomorph.tensors import array_tensor

if TYPE_CHECKING:
    import numpy as np

STATED = "isomorph.rope_parameters"             # what config.json said, as JSON
FACTORS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
BASE = 10000.0
# What published models of Llama 3.1, 3.2 and 3.3 state, to recognise the factors that GGUF keeps instead: factor, low, high, length.
LLAMA3 = ((8.0, 1.0, 4.0, 8192), (32.0, 1.0, 4.0, 8192), (16.0, 1.0, 1.0, 8192))


@dataclass(frozen=True)
class Rotation:
    """Angles a position turns each pair of a head by, float32 [rotated / 2]; `long` are those of texts longer than `limit`. `stretch` is the factor of dynamic
    scaling, which begins behind `limit`. Cosine and sine are multiplied by `amplitude`."""

    frequencies: np.ndarray
    base: float
    amplitude: float = 1.0
    limit: int = 0
    long: np.ndarray | None = None
    stretch: float = 0.0


# ---- config.json -> GGUF

def parameters_of(config: Mapping[str, Any]) -> dict[str, Any]:
    """What config.json says of rotary positions, under the names of transformers 5, wherever the version that wrote it keeps them."""
    found = config.get("rope_parameters") or config.get("rope_scaling") or {}
    found = dict(found) if isinstance(found, dict) else {}
    if isinstance(found.get("sliding_attention"), dict):
        found = dict(found.get("full_attention") or {})
    found.setdefault("rope_type", found.get("type", "default"))
    if found["rope_type"] not in ("default", "linear"):
        for name in ("original_max_position_embeddings", "max_position_embeddings"):
            if isinstance(config.get(name), int):
                found.setdefault("original_max_position_embeddings", config[name])
    return found


def to_keys(config: Mapping[str, Any], keys: Any, name: str) -> tuple[dict[str, Any], dict[str, Any], list[Finding]]:
    """Adds the keys of rotary positions for the architecture `name`. Answers what replaces entries of config.json, the tensors of factors, and findings.
    Raises `Unsupported` for a kind that is not known."""
    given = config.get("rope_parameters")
    near = given.get("sliding_attention") if isinstance(given, dict) else None
    if isinstance(near, dict):
        keys[f"{name}.rope.freq_base_swa"] = float(near.get("rope_theta", BASE))
    elif "rope_local_base_freq" in config:
        keys[f"{name}.rope.freq_base_swa"] = float(config["rope_local_base_freq"])
    found = parameters_of(config)
    kind = "longrope" if found["rope_type"] == "su" else str(found["rope_type"])
    part = found.get("partial_rotary_factor", config.get("partial_rotary_factor", config.get("rotary_pct")))
    width, heads = config.get("hidden_size"), config.get("num_attention_heads")
    if isinstance(part, float) and isinstance(width, int) and isinstance(heads, int) and heads:
        keys[f"{name}.rope.dimension_count"] = int(part * (config.get("head_dim") or width // heads))
    base = found.get("rope_theta", config.get("rope_theta", config.get("rotary_emb_base")))
    replaced = {"rope_theta": float(base)} if isinstance(base, (int, float)) else {}
    if kind == "default":
        return replaced, {}, []
    if kind not in KINDS:
        raise Unsupported(f"positions are scaled by {kind!r}, which is not known", hint="known are " + ", ".join(KINDS))
    try:
        return replaced, *KINDS[kind](found, dict(config) | replaced, keys, name)
    except (KeyError, TypeError, ValueError, ZeroDivisionError) as error:
        raise Unsupported(f"the numbers of the scaling of positions by {kind!r} are missing or no numbers: {error}") from None


def _stated(found: Mapping[str, Any], keys: Any) -> None:
    keys[STATED] = json.dumps({name: value for name, value in found.items() if name != "type"})


Made = tuple[dict[str, Any], list[Finding]]


def _linear(found: Mapping[str, Any], _: Mapping[str, Any], keys: Any, name: str) -> Made:
    keys[f"{name}.rope.scaling.type"] = "linear"
    keys[f"{name}.rope.scaling.factor"] = float(found.get("factor", 1.0))
    return {}, []


def _llama3(found: Mapping[str, Any], config: Mapping[str, Any], keys: Any, name: str) -> Made:
    _stated(found, keys)
    width = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    factors = llama3_factors(float(config.get("rope_theta", BASE)), keys.get(f"{name}.rope.dimension_count", width), float(found["factor"]),
                             float(found["low_freq_factor"]), float(found["high_freq_factor"]), int(found["original_max_position_embeddings"]))
    return {FACTORS: array_tensor(factors, FACTORS)}, []


def _yarn(found: Mapping[str, Any], config: Mapping[str, Any], keys: Any, name: str) -> Made:
    _stated(found, keys)
    length = int(found["original_max_position_embeddings"])
    factor = float(found.get("factor") or config["max_position_embeddings"] / length)
    keys[f"{name}.rope.scaling.type"] = "yarn"
    keys[f"{name}.rope.scaling.factor"] = factor
    keys[f"{name}.rope.scaling.original_context_length"] = length
    for entry, key, usual in (("beta_fast", "yarn_beta_fast", 32.0), ("beta_slow", "yarn_beta_slow", 1.0)):
        if found.get(entry) and found[entry] != usual:
            keys[f"{name}.rope.scaling.{key}"] = float(found[entry])
    amplitude = yarn_amplitude(found, factor)
    if amplitude != _mscale(factor):            # ggml multiplies by the logarithm of the factor itself
        keys[f"{name}.rope.scaling.attn_factor"] = amplitude / _mscale(factor)
    return {}, []


def _longrope(found: Mapping[str, Any], config: Mapping[str, Any], keys: Any, name: str) -> Made:
    _stated(found, keys)
    length = int(found["original_max_position_embeddings"])
    factor = float(found.get("factor") or config["max_position_embeddings"] / length)
    keys[f"{name}.rope.scaling.original_context_length"] = length
    keys[f"{name}.rope.scaling.attn_factor"] = float(found.get("attention_factor") or long_amplitude(factor, length))
    import numpy as np
    return {tensor: array_tensor(np.asarray(found[entry], np.float32), tensor) for tensor, entry in ((LONG, "long_factor"), (SHORT, "short_factor"))}, []


def _dynamic(found: Mapping[str, Any], config: Mapping[str, Any], keys: Any, name: str) -> Made:
    limit = int(config["max_position_embeddings"])
    _stated({**found, "original_max_position_embeddings": limit, "factor": float(found["factor"])}, keys)
    return {}, [Finding("positions.dynamic", Severity.LOW, f"{name}.rope.scaling.type", f"GGUF has no dynamic scaling: llama.cpp computes texts up to {limit} "
                        "tokens as the model does, and longer ones without it", "isomorph keeps it in a key of its own and builds it")]


KINDS: dict[str, Callable[[Mapping[str, Any], Mapping[str, Any], Any, str], Made]] = {
    "linear": _linear, "llama3": _llama3, "yarn": _yarn, "longrope": _longrope, "dynamic": _dynamic}


# ---- GGUF -> config.json

def to_config(keys: Mapping[str, Any], content: Mapping[str, Any], name: str, base: float, rotated: int) -> dict[str, Any]:
    """`rope_parameters` of config.json, without the base. Raises `Unsupported` for factors of Llama 3 that nothing explains."""
    stated = keys.get(STATED)
    if stated == "":
        raise Unsupported("the positions are scaled by factors that no published setting gives, so config.json cannot state them")
    if isinstance(stated, str):
        try:
            found = json.loads(stated)
        except (ValueError, RecursionError):
            found = None
        if isinstance(found, dict) and found.get("rope_type") in KINDS:
            return found
    kind = str(keys.get(f"{name}.rope.scaling.type", "none"))
    factor, length = keys.get(f"{name}.rope.scaling.factor", 1.0), keys.get(f"{name}.rope.scaling.original_context_length")
    if FACTORS in content:
        return _recognised(content[FACTORS].numpy(), base, rotated)
    if LONG in content and SHORT in content:
        factors = {entry: [float(value) for value in content[tensor].numpy()] for entry, tensor in (("long_factor", LONG), ("short_factor", SHORT))}
        return {"rope_type": "longrope", "original_max_position_embeddings": length, **factors}
    if kind == "yarn":
        fast = {entry: keys[key] for entry, key in (("beta_fast", f"{name}.rope.scaling.yarn_beta_fast"), ("beta_slow", f"{name}.rope.scaling.yarn_beta_slow"))
                if key in keys}
        return {"rope_type": "yarn", "factor": float(factor), "original_max_position_embeddings": length, **fast}
    if kind == "linear":
        return {"rope_type": "linear", "factor": float(factor)}
    if kind not in ("none", "longrope"):
        raise Unsupported(f"positions are scaled by {kind!r}, which is not written into config.json")
    return {"rope_type": "default"}


def _recognised(factors: np.ndarray, base: float, rotated: int) -> dict[str, Any]:
    import numpy as np
    for factor, low, high, length in LLAMA3:
        wanted = llama3_factors(base, rotated, factor, low, high, length)
        if wanted.shape == factors.shape and np.allclose(wanted, factors, rtol=1e-4):
            return {"rope_type": "llama3", "factor": factor, "low_freq_factor": low, "high_freq_factor": high, "original_max_position_embeddings": length}
    raise Unsupported(f"{FACTORS} holds factors that no published setting of llama3 gives, so config.json cannot state them")


# ---- frequencies

def rotation(keys: Mapping[str, Any], content: Mapping[str, Any], name: str, base: float, rotated: int) -> Rotation:
    """The rotation that GGUF's keys and tensors describe. Raises `Unsupported` for a scaling that is not known, or factors of another length."""
    import numpy as np
    plain = base ** -(np.arange(0, rotated, 2, dtype=np.float64) / rotated)
    kind = str(keys.get(f"{name}.rope.scaling.type", "none"))
    if kind not in ("none", "linear", "yarn", "longrope"):
        raise Unsupported(f"positions are scaled by {kind!r}, which is not built")
    if FACTORS in content:
        return Rotation((plain / _factors(content, FACTORS, len(plain))).astype(np.float32), base)
    length = int(keys.get(f"{name}.rope.scaling.original_context_length", keys.get(f"{name}.context_length", 0)))
    amplitude = float(keys.get(f"{name}.rope.scaling.attn_factor", 1.0))
    factor = float(keys.get(f"{name}.rope.scaling.factor", 1.0)) or 1.0
    if LONG in content:
        found = [(plain / _factors(content, tensor, len(plain))).astype(np.float32) for tensor in (SHORT, LONG)]
        whole = keys.get(f"{name}.context_length", length)
        usual = long_amplitude(whole / length, length) if length else 1.0
        return Rotation(found[0], base, float(keys.get(f"{name}.rope.scaling.attn_factor", usual)), length, found[1])
    if kind == "yarn":
        fast, slow = (float(keys.get(f"{name}.rope.scaling.yarn_beta_{speed}", usual)) for speed, usual in (("fast", 32.0), ("slow", 1.0)))
        return Rotation(_yarn_frequencies(plain, base, rotated, factor, length, fast, slow).astype(np.float32), base, amplitude * _mscale(factor))
    stated = to_config(keys, {}, name, base, rotated) if STATED in keys else {}
    if stated.get("rope_type") == "dynamic":
        return Rotation(plain.astype(np.float32), base, 1.0, int(stated["original_max_position_embeddings"]), None, float(stated["factor"]))
    return Rotation((plain / (factor if kind == "linear" else 1.0)).astype(np.float32), base)


def _factors(content: Mapping[str, Any], name: str, count: int) -> np.ndarray:
    import numpy as np
    found = content[name].numpy().astype(np.float64).reshape(-1)
    if len(found) != count or not np.all(found > 0):
        raise Unsupported(f"{name} holds {len(found)} factors where {count} pairs of a head turn", where=name)
    return found


def llama3_factors(base: float, rotated: int, factor: float, low: float, high: float, length: int) -> np.ndarray:
    """What each frequency is divided by: nothing for short waves, `factor` for long ones, and a blend between."""
    import numpy as np
    waves = 2 * math.pi * base ** (np.arange(0, rotated, 2, dtype=np.float64) / rotated)
    with np.errstate(divide="ignore", invalid="ignore"):
        smooth = (length / waves - low) / (high - low)
        blend = 1 / ((1 - smooth) / factor + smooth)
    return np.where(waves < length / high, 1.0, np.where(waves > length / low, factor, blend)).astype(np.float32)


def _yarn_frequencies(plain: np.ndarray, base: float, rotated: int, factor: float, length: int, fast: float, slow: float) -> np.ndarray:
    """Pairs that turn often within `length` keep their frequency, those that turn seldom are slowed down."""
    import numpy as np

    def place(turns: float) -> float:
        return rotated * math.log(length / (turns * 2 * math.pi)) / (2 * math.log(base))
    if length < 1:
        raise Unsupported("positions are scaled by 'yarn' without the length that the model was trained with")
    low, high = max(math.floor(place(fast)), 0), min(math.ceil(place(slow)), rotated - 1)
    ramp = np.clip((np.arange(len(plain)) - low) / max(high - low, 1e-3), 0, 1)
    return plain / factor * ramp + plain * (1 - ramp)


def _mscale(factor: float, weight: float = 1.0) -> float:
    return 0.1 * weight * math.log(factor) + 1.0 if factor > 1 else 1.0


def yarn_amplitude(found: Mapping[str, Any], factor: float) -> float:
    """What transformers multiplies cosine and sine by."""
    if found.get("attention_factor") is not None:
        return float(found["attention_factor"])
    whole, all_ = found.get("mscale"), found.get("mscale_all_dim")
    return _mscale(factor, whole) / _mscale(factor, all_) if whole and all_ else _mscale(factor)


def long_amplitude(factor: float, length: int) -> float:
    """What LongRoPE multiplies cosine and sine by."""
    return math.sqrt(1 + math.log(factor) / math.log(length)) if factor > 1 and length > 1 else 1.0

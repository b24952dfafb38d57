"""What the head of a TensorFlow Lite file says, for `identify`: quickly, and without trusting the rest."""
from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

from isomorph.formats import Match
from isomorph.wire import flatbuffers_head as flat

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

# Slots of the schema's tables, schema.fbs of LiteRT
MODEL_VERSION, MODEL_OPERATORS, MODEL_SUBGRAPHS, MODEL_DESCRIPTION, MODEL_BUFFERS, MODEL_METADATA, MODEL_SIGNATURES = 0, 1, 2, 3, 4, 6, 7
SUBGRAPH_TENSORS = 0
TENSOR_TYPE, TENSOR_BUFFER, TENSOR_QUANTIZATION, TENSOR_SPARSITY = 1, 2, 4, 6
CODE_OLD, CODE_CUSTOM, CODE_NEW = 0, 1, 3
BUFFER_DATA, BUFFER_OFFSET = 0, 1
QUANTIZATION_SCALE, QUANTIZATION_DETAILS = 2, 5
METADATA_NAME, METADATA_BUFFER = 0, 1
SIGNATURE_KEY = 2
CUSTOM = 32                                # BuiltinOperator.CUSTOM

TYPES = ("float32", "float16", "int32", "uint8", "int64", "string", "bool", "int16", "complex64", "int8", "float64", "complex128", "uint64", "resource",
         "variant", "uint32", "uint16", "int4", "bfloat16", "int2", "uint4", "float8_e4m3fn", "float8_e5m2")
ACTIVATIONS = {"int8*": "int8", "uint8*": "uint8", "int16*": "int16x8", "float32": "float32"}
MOST_TENSORS = 4_000


def identify(artifact: Artifact) -> Match | None:
    """Recognises the identifier TFL3 and reads the tables near the root: schema version, what is quantised and how, signatures, custom operators."""
    mark = flat.identifier(artifact.head)
    if not mark.startswith("TFL"):
        return None
    view = artifact.view
    root = flat.root(view)
    if not root or not flat.vector(view, root, MODEL_SUBGRAPHS, 4)[1]:
        return Match("tflite", mark[3:], "", "graph", {"truncated": True}, "its tables do not hold: download or copy it again")
    weights, activations, sparse = _tensor_types(view, root)
    codes = [(_code(view, code), flat.string(view, code, CODE_CUSTOM)) for code in flat.tables(view, root, MODEL_OPERATORS, 500)]
    detail: dict[str, Any] = {
        "schema": flat.scalar(view, root, MODEL_VERSION, 4), "description": flat.string(view, root, MODEL_DESCRIPTION),
        "subgraphs": flat.vector(view, root, MODEL_SUBGRAPHS, 4)[1], "operators": len(codes),
        "custom_operators": [name for code, name in codes if code == CUSTOM or name],
        "signatures": [flat.string(view, signature, SIGNATURE_KEY) for signature in flat.tables(view, root, MODEL_SIGNATURES, 64)],
        "weights": dict(weights), "activations": dict(activations), "sparse": sparse, "min_runtime_version": _runtime_version(view, root),
    }
    return Match("tflite", mark[3:], _flavour(weights, activations), "graph", detail)


def _tensor_types(view: memoryview, root: int) -> tuple[Counter[str], Counter[str], bool]:
    """How many tensors with data (weights) and without (activations) there are of each type; "*" marks a quantised one."""
    buffers, count = flat.vector(view, root, MODEL_BUFFERS, 4)
    weights: Counter[str] = Counter()
    activations: Counter[str] = Counter()
    sparse, left = False, MOST_TENSORS
    for subgraph in flat.tables(view, root, MODEL_SUBGRAPHS, 64):
        for tensor in flat.tables(view, subgraph, SUBGRAPH_TENSORS, left):
            left -= 1
            kind = flat.scalar(view, tensor, TENSOR_TYPE, 1)
            index = flat.scalar(view, tensor, TENSOR_BUFFER, 4)
            name = TYPES[kind] if kind < len(TYPES) else f"type {kind}"
            if _is_quantised(view, tensor):
                name += "*"
            sparse = sparse or bool(flat.field(view, tensor, TENSOR_SPARSITY))
            filled = index < count and _has_data(view, flat.target(view, buffers + 4 * index))
            (weights if filled else activations)[name] += 1
    return weights, activations, sparse


def _is_quantised(view: memoryview, tensor: int) -> bool:
    quantization = flat.child(view, tensor, TENSOR_QUANTIZATION)
    return bool(quantization and (flat.vector(view, quantization, QUANTIZATION_SCALE, 4)[1] or flat.field(view, quantization, QUANTIZATION_DETAILS)))


def _has_data(view: memoryview, buffer: int) -> bool:
    if not flat.is_table(view, buffer):
        return False
    return flat.vector(view, buffer, BUFFER_DATA, 1)[1] > 0 or flat.scalar(view, buffer, BUFFER_OFFSET, 8) > 1


def _code(view: memoryview, code: int) -> int:
    """The builtin operator: old files know only the byte, new ones write both."""
    return max(flat.scalar(view, code, CODE_OLD, 1), flat.scalar(view, code, CODE_NEW, 4))


def _runtime_version(view: memoryview, root: int) -> str:
    buffers, count = flat.vector(view, root, MODEL_BUFFERS, 4)
    for entry in flat.tables(view, root, MODEL_METADATA, 64):
        index = flat.scalar(view, entry, METADATA_BUFFER, 4)
        if flat.string(view, entry, METADATA_NAME) == "min_runtime_version" and index < count:
            return flat.string(view, flat.target(view, buffers + 4 * index), BUFFER_DATA).rstrip("\0")
    return ""


def _flavour(weights: Counter[str], activations: Counter[str]) -> str:
    """What a user calls the file: by its quantised activations first, then by what its weights are stored as."""
    kind = max(ACTIVATIONS, key=lambda known: activations[known])
    if activations[kind] and kind != "float32":
        return ACTIVATIONS[kind]
    for kind, name in (("int2*", "dynamic range int2"), ("int4*", "dynamic range int4"), ("int8*", "dynamic range int8"), ("uint8*", "dynamic range uint8"),
                       ("float16", "float16"), ("bfloat16", "bfloat16")):
        if weights[kind]:
            return name
    return "float32"

"""What weights go through between Hugging Face's layout and GGUF's: each change as a row with its inverse, and experts that are stacked or apart.

Most changes move elements only. Those that compute (`Change.computes`) lose a rounding on the way back, so `remainder` is what is added then.
"""
from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged
from isomorph.quant.mixes import Model
from isomorph.quant.tensor import QuantizedTensor
from isomorph.tensors import NUMBER, ComputedTensor, SliceTensor, StackedTensor, array_tensor, dims_of, type_of

if TYPE_CHECKING:
    import numpy as np

Dims = tuple[int, ...]
Step = Callable[["np.ndarray", Dims, Model], "np.ndarray"]
EXPERT = re.compile(r"^(blk\.\d+\.ffn_(?:gate|up|down))\.(\d+)\.weight$")
STACKED = re.compile(r"^(blk\.\d+\.ffn_(?:gate|up|down))_exps\.weight$")
MOST_EXPERTS = 4096
REMAINDER = "isomorph.remainder."           # before the name of a tensor, among the keys: what its way back has to add


@dataclass(frozen=True)
class Change:
    """`forward` goes to GGUF, `backward` to Hugging Face; each takes an array, the dimensions of its result, and the model. `shaped` and `unshaped` say what
    dimensions come out. Where `computes`, values change, in float32."""

    forward: Step
    backward: Step
    shaped: Callable[[Dims], Dims] = lambda dims: dims
    unshaped: Callable[[Dims], Dims] = lambda dims: dims
    computes: bool = False


def _reshaped(array: np.ndarray, dims: Dims, _: Model) -> np.ndarray:
    return array.reshape(dims)


def _pairs(heads: Callable[[Model], int]) -> Change:
    """Rows of each head: from the two halves that transformers rotates against each other to the neighbours that ggml rotates."""
    def split(array: np.ndarray, model: Model, *, halves: bool) -> np.ndarray:
        count, rows = heads(model), array.shape[0]
        if not count or rows % (2 * count):
            raise Damaged(f"{rows} rows are not those of {count} heads")
        parts = (2, rows // count // 2) if halves else (rows // count // 2, 2)
        return array.reshape(count, *parts, *array.shape[1:]).swapaxes(1, 2).reshape(array.shape)
    return Change(lambda array, _, model: split(array, model, halves=True), lambda array, _, model: split(array, model, halves=False))


def _ungrouped(array: np.ndarray, _: Dims, model: Model) -> np.ndarray:
    """From groups of queries with the key and the value that they share, to all queries, all keys, all values."""
    import numpy as np
    shared, size = _groups(array, model)
    groups = array.reshape(shared, -1, size, *array.shape[1:])
    return np.concatenate([part.reshape(-1, *array.shape[1:]) for part in (groups[:, :-2], groups[:, -2], groups[:, -1])])


def _grouped(array: np.ndarray, _: Dims, model: Model) -> np.ndarray:
    import numpy as np
    shared, size = _groups(array, model)
    parts = np.split(array, [model.heads * size, (model.heads + shared) * size])
    groups = [part.reshape(shared, -1, size, *array.shape[1:]) for part in parts]
    return np.concatenate(groups, axis=1).reshape(array.shape)


def _groups(array: np.ndarray, model: Model) -> tuple[int, int]:
    """How many heads hold keys, and the size of a head."""
    total = model.heads + 2 * model.key_heads
    if not model.key_heads or model.heads % model.key_heads or array.shape[0] % total:
        raise Damaged(f"{array.shape[0]} rows are not those of {model.heads} heads with {model.key_heads} of keys")
    return model.key_heads, array.shape[0] // total


def _turned(array: np.ndarray, _: Dims, __: Model) -> np.ndarray:
    return array.T


def _moved(by: float) -> Step:
    return lambda array, _, __: array.astype("float32") + array.astype("float32").dtype.type(by)


def _decay(array: np.ndarray, _: Dims, __: Model) -> np.ndarray:
    import numpy as np
    return -np.exp(array.astype(np.float32))


def _logarithm(array: np.ndarray, _: Dims, __: Model) -> np.ndarray:
    import numpy as np
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log(-array.astype(np.float32))


CHANGES: dict[str, Change] = {
    "query": _pairs(lambda model: model.heads), "key": _pairs(lambda model: model.key_heads),
    "grouped": Change(_ungrouped, _grouped),
    "transposed": Change(_turned, _turned, lambda dims: dims[::-1], lambda dims: dims[::-1]),
    "row": Change(_reshaped, _reshaped, lambda dims: dims[1:] if dims[:1] == (1,) else dims, lambda dims: (1, *dims)),
    "line": Change(_reshaped, _reshaped, lambda dims: dims[-1:] if dims[:-1] == (1, 1) else dims, lambda dims: (1, 1, *dims)),
    "channel": Change(_reshaped, _reshaped, lambda dims: (dims[0], *dims[2:]) if dims[1:2] == (1,) else dims, lambda dims: (dims[0], 1, *dims[1:])),
    "plus one": Change(_moved(1.0), _moved(-1.0), computes=True),
    "decay": Change(_decay, _logarithm, computes=True), "logarithm": Change(_logarithm, _decay, computes=True),
}


def changed(tensor: Any, name: str, kind: str, model: Model, *, forward: bool, remainder: np.ndarray | None = None) -> Any:
    """A tensor under its new name and through a change, computed when it is read. Raises `Damaged` then where its dimensions do not fit the model."""
    if not kind:
        return tensor
    change, old = CHANGES[kind], dims_of(tensor)
    dims = change.shaped(old) if forward else change.unshaped(old)
    if math.prod(dims) != math.prod(old):
        raise Damaged(f"its dimensions {list(old)} are none that are {kind}", where=name)
    step = change.forward if forward else change.backward
    number = NUMBER["FLOAT"] if change.computes else type_of(tensor)

    def function(array: np.ndarray) -> np.ndarray:
        found = step(array, dims, model)
        return found if remainder is None else _added(found, remainder)
    return ComputedTensor(name, number, dims, function, (tensor,))


def _added(array: np.ndarray, remainder: np.ndarray) -> np.ndarray:
    import numpy as np
    return array if remainder.size != array.size else (array.astype(np.float64) + remainder.reshape(array.shape)).astype(np.float32)


def remainder(tensor: Any, kind: str, model: Model) -> np.ndarray | None:
    """What has to be added after the way back of a change that computes, so that every bit returns; None where nothing is lost."""
    import numpy as np
    if not kind or not CHANGES[kind].computes:
        return None
    change, given = CHANGES[kind], tensor.numpy().astype(np.float32)
    back = change.backward(change.forward(given, given.shape, model), given.shape, model)
    with np.errstate(invalid="ignore"):
        lost = (given.astype(np.float64) - back).astype(np.float32)
    return lost.reshape(-1) if np.isfinite(lost).all() and np.any(lost) else None


# ---- experts

def stacked(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The matrices of the experts of a layer as one tensor [experts, rows, columns]. Raises `Damaged` where one is missing or has other dimensions."""
    result: dict[str, Any] = {}
    experts: dict[str, dict[int, Any]] = {}
    for name, tensor in tensors.items():
        match = EXPERT.match(name)
        if match is None:
            result[name] = tensor
            continue
        joined = f"{match[1]}_exps.weight"
        result.setdefault(joined, None)
        experts.setdefault(joined, {})[int(match[2])] = tensor
    for name, parts in experts.items():
        if sorted(parts) != list(range(len(parts))) or len({(dims_of(part), type_of(part)) for part in parts.values()}) != 1:
            raise Damaged(f"its {len(parts)} experts are not numbered from 0, or not alike", where=name)
        result[name] = StackedTensor(name, [parts[number] for number in range(len(parts))])
    return result


def separated(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """The matrix of each expert under a name of its own."""
    return dict(_separated(tensors))


def _separated(tensors: Mapping[str, Any]) -> Iterable[tuple[str, Any]]:
    for name, tensor in tensors.items():
        match = STACKED.match(name)
        if match is None:
            yield name, tensor
            continue
        dims = dims_of(tensor)
        if len(dims) != 3 or not 0 < dims[0] <= MOST_EXPERTS:
            raise Damaged(f"{list(dims)} are no dimensions of stacked experts", where=name)
        for number in range(dims[0]):
            yield f"{match[1]}.{number}.weight", _part(tensor, number, f"{match[1]}.{number}.weight")


def _part(tensor: Any, number: int, name: str) -> Any:
    """One of the matrices of a stack: a piece of the file where the stack is one."""
    count, *dims = dims_of(tensor)
    if isinstance(tensor, StackedTensor):
        return tensor.parts[number]
    if isinstance(tensor, SliceTensor):
        size = tensor.data.nbytes // count
        return SliceTensor(name, tensor.element_type, dims, tensor.data[number * size:(number + 1) * size])
    if type(tensor) is QuantizedTensor:
        size = tensor.stored_bytes // count
        return QuantizedTensor(name, tensor.kind, dims, tensor.blocks[number * size:(number + 1) * size], swapped=tensor.swapped)
    return ComputedTensor(name, type_of(tensor), dims, lambda array: array[number], (tensor,))


def constant(values: Any, name: str) -> Any:
    """A small array of float32 as a tensor."""
    import numpy as np
    return array_tensor(np.asarray(values, np.float32), name)

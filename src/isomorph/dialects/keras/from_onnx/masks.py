"""What scores of attention are masked with, as Keras takes it: a boolean mask that is true where a place may be looked at, and whether it only looks back.

A score that is left out is replaced by a very low number, or has one added. Keras replaces, which is the same where nothing is left of the score, and
where a place is left out everywhere: a row without any place stays as even as it was when replaced, and undefined where the number is minus infinity.
"""
from __future__ import annotations

from functools import reduce
from typing import Any, NamedTuple

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant
from isomorph.passes.fuse import made_by

LOW = -1e4                         # what is as low as this is nothing behind a softmax
ABSORBING = -1e30                  # what is as low as this is all that is left of a sum
Part = ir.Value | np.ndarray       # a boolean mask, as wide as the scores or with leading axes missing


class Mask(NamedTuple):
    """Places that may be looked at, all of them where there is no value; `causal` leaves out those that are later, too."""

    value: Part | None
    causal: bool


def unmasked(op: Any, value: ir.Value | None) -> tuple[ir.Value | None, list[Part]]:
    """Scores in front of their masks, and the masks."""
    node, found = made_by(value, "Where", "Add"), None
    if node is not None and node.op_type == "Where":
        found = _replaced(op, node)
    elif node is not None:
        found = next((pair for place in (0, 1) if (pair := _lowered(op, node.inputs[place], node.inputs[1 - place])) is not None), None)
    if found is None:
        return value, []
    scores, more = unmasked(op, found[0])
    return scores, [found[1], *more]


def _low(value: ir.Value | None, bound: float) -> bool:
    array = constant(value)
    return array is not None and array.dtype.kind == "f" and bool((array <= bound).all())


def _known(value: ir.Value) -> Part:
    array = constant(value)
    return value if array is None else array


def _not(op: Any, part: Part) -> Part:
    if isinstance(part, np.ndarray):
        return ~part
    node = part.producer()
    return node.inputs[0] if node is not None and node.op_type == "Not" and node.domain == "" else op.Not(part)


def _replaced(op: Any, node: ir.Node) -> tuple[ir.Value | None, Part] | None:
    """(scores, mask) of a choice between scores and a low number."""
    chosen, a, b = node.inputs
    if _low(b, LOW):
        return a, _known(chosen)
    return (b, _not(op, _known(chosen))) if _low(a, LOW) else None


def _lowered(op: Any, scores: ir.Value, offset: ir.Value) -> tuple[ir.Value, Part] | None:
    """(scores, mask) of a sum of scores and numbers that are nothing or low."""
    array = constant(offset)
    if array is None:
        mask = _chosen(op, offset)
        return None if mask is None else (scores, mask)
    fits = array.dtype.kind == "f" and array.ndim >= 2 and bool(((array == 0) | (array <= LOW)).all()) and bool((array == 0).any(-1).all())
    return (scores, array == 0) if fits else None


def _chosen(op: Any, offset: ir.Value) -> Part | None:
    """Where an offset that is computed is nothing: a choice, or a low number times a boolean."""
    node = made_by(offset, "Where", "Mul")
    if node is None:
        return None
    if node.op_type == "Where":
        chosen, a, b = node.inputs
        if _is(a, 0) and _low(b, ABSORBING):
            return _known(chosen)
        return _not(op, _known(chosen)) if _is(b, 0) and _low(a, ABSORBING) else None
    for number, factor in (node.inputs, node.inputs[::-1]):
        if _low(number, ABSORBING) and not np.isinf(constant(number)).any():
            left_out = _boolean(factor)
            rest = made_by(factor, "Sub")
            kept = _boolean(rest.inputs[1]) if rest is not None and _is(rest.inputs[0], 1) else None
            return kept if left_out is None else _not(op, left_out)
    return None


def _is(value: ir.Value | None, number: float) -> bool:
    array = constant(value)
    return array is not None and array.dtype.kind == "f" and bool((array == number).all())


def _boolean(value: ir.Value | None) -> ir.Value | None:
    """The boolean behind a cast, seen through axes that were put in."""
    node = value.producer() if value is not None else None
    if node is None or node.op_type != "Cast" or node.inputs[0] is None or node.inputs[0].dtype != ir.DataType.BOOL:
        return None
    return node.inputs[0]


# ---- one mask of several

def joined(op: Any, masks: list[Part], queries: ir.Value, keys: ir.Value) -> Mask:
    """All masks as one. `queries` and `keys` are [batch, places, ...]."""
    parts = [part for mask in masks for part in _parts(mask)]
    places = [list(value.shape)[1] if value.shape is not None else None for value in (queries, keys)]
    rest = [part for part in parts if not _looks_back(part, places)]
    if not rest:
        return Mask(None, bool(parts))
    causal = len(rest) < len(parts)
    if len(masks) == 1 and not causal and isinstance(masks[0], ir.Value):
        return Mask(_narrow(masks[0]), False)
    highest = max(map(_rank, rest))
    arrays = [part for part in rest if isinstance(part, np.ndarray)]
    values = [_widened(op, part, highest) for part in rest if isinstance(part, ir.Value)]
    if not values:
        return Mask(reduce(np.logical_and, arrays), causal)
    return Mask(reduce(lambda a, b: op.And(a, b), [*values, *([op.const(reduce(np.logical_and, arrays))] if arrays else [])]), causal)


def _rank(part: Part) -> int:
    return part.ndim if isinstance(part, np.ndarray) else len(part.shape)


def _narrow(value: ir.Value) -> ir.Value:
    """Without the axis of the heads, where it was put in."""
    node = value.producer()
    axes = constant(node.inputs[1]) if node is not None and node.op_type == "Unsqueeze" and node.domain == "" else None
    return node.inputs[0] if axes is not None and axes.tolist() == [1] and len(value.shape) == 4 else value


def _widened(op: Any, value: ir.Value, rank: int) -> ir.Value:
    """With the axis of the heads, where another mask has one."""
    return op.Unsqueeze(value, op.const([1])) if rank == 4 and len(value.shape) == 3 else value


def _parts(mask: Part) -> list[Part]:
    """The masks whose conjunction one is, each without leading axes of one."""
    if isinstance(mask, np.ndarray):
        return [mask.reshape(mask.shape[_ones(mask.shape):])]
    value = _narrow(mask)
    node, array = value.producer(), constant(value)
    if array is not None:
        return _parts(array)
    if node is not None and node.op_type == "And" and node.domain == "":
        return [part for each in node.inputs for part in _parts(each)]
    return [value]


def _ones(shape: tuple[int, ...]) -> int:
    """How many leading axes in front of the last two have one element."""
    return next((place for place, size in enumerate(shape[:-2]) if size != 1), max(0, len(shape) - 2))


def _looks_back(part: Part, places: list[Any]) -> bool:
    """Whether a mask leaves out what is later and nothing else: a constant, or places of the run compared with one another."""
    if isinstance(part, np.ndarray):
        return part.ndim == 2 and list(part.shape) == places and bool((part == np.tril(np.ones(part.shape, bool))).all())
    node = part.producer()
    if node is not None and node.op_type == "Unsqueeze":
        node = node.inputs[0].producer()
    if node is None or node.op_type not in ("GreaterOrEqual", "LessOrEqual"):
        return False
    rows, columns = node.inputs if node.op_type == "GreaterOrEqual" else node.inputs[::-1]
    return _counted(rows, 1) and _counted(columns, 0)


def _counted(value: ir.Value | None, axis: int) -> bool:
    """Whether a value is 0, 1, 2... along the first or the second of two axes."""
    node = value.producer() if value is not None else None
    axes = constant(node.inputs[1]) if node is not None and node.op_type == "Unsqueeze" else None
    if node is None or axes is None or axes.tolist() != [axis]:
        return False
    counting = node.inputs[0].producer() if node.inputs[0] is not None else None
    return counting is not None and counting.op_type == "Range" and [constant(counting.inputs[place]) for place in (0, 2)] == [0, 1]

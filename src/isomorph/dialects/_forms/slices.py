"""ONNX's Slice as the strided slice of the TensorFlow family."""

from __future__ import annotations

from collections.abc import Sequence

BOUND = (1 << 31) - 1


def strided(
    sizes: Sequence[int | str | None], starts: Sequence[int], ends: Sequence[int], axes: Sequence[int], steps: Sequence[int]
) -> tuple[tuple[list[int], list[int], list[int]], int, int]:
    """(begin, end, stride) of every axis, and the masks of axes that begin or end where the data does.

    An end before the beginning of a reversed axis has no number, because -1 is the last element: it needs the mask.
    """
    rank = len(sizes)
    begin, end, stride = [0] * rank, [0] * rank, [1] * rank
    begin_mask = end_mask = (1 << rank) - 1
    for axis, start, stop, step in zip(axes, starts, ends, steps, strict=True):
        begin_mask &= ~(1 << axis)
        end_mask &= ~(1 << axis)
        size = sizes[axis]
        if isinstance(size, int):
            start, stop, step = slice(start, stop if step > 0 or stop >= -size else None, step).indices(size)
            if stop == -1:
                stop, end_mask = 0, end_mask | 1 << axis
            if (stop - start) * step <= 0 and not end_mask >> axis & 1:
                stop = start = min(max(start, 0), size)
        else:
            if step < 0 and stop < -(1 << 30):
                end_mask |= 1 << axis
            if step > 0 and stop > 1 << 30:
                end_mask |= 1 << axis
        begin[axis], end[axis], stride[axis] = max(min(start, BOUND), -BOUND), max(min(stop, BOUND), -BOUND), step
    return (begin, end, stride), begin_mask, end_mask

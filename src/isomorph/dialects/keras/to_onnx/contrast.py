"""Layers of Keras that change the contrast of pictures whether or not a model is trained."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.images import framed, unframed
from isomorph.dialects.keras.to_onnx.table import layer

LEVELS = 256
BYTES = (0.0, 255.0)


def ranged(op: Op, x: Value, before: Sequence[float], after: Sequence[float]) -> Value:
    """Values of one range in another."""
    if tuple(before) == tuple(after):
        return x
    low, width, wanted = (op.scalar(number, x) for number in (before[0], before[1] - before[0], after[1] - after[0]))
    return op.Add(op.Mul(op.Div(op.Sub(x, low), width), wanted), op.scalar(after[0], x))


@layer("AutoContrast")
def auto_contrast(op: Op, x: Value, *, value_range: Sequence[float] = BYTES, data_format: str | None = None, **rest: Any) -> Value:
    """Each channel between its own extremes; one that has a single value stays. Keras takes the same axes whatever the order of the axes is."""
    bytes_ = ranged(op, op.cast(x, op.compute), value_range, BYTES)
    axes = op.const([1, 2] if op.rank(x) == 4 else [0, 1])
    low, high = (reduce(bytes_, axes, keepdims=1) for reduce in (op.ReduceMin, op.ReduceMax))
    width = op.Sub(high, low)
    stretched = op.Div(op.Mul(op.Sub(bytes_, low), op.scalar(BYTES[1], width)), width)
    result = ranged(op, op.Clip(stretched, op.scalar(0, width), op.scalar(BYTES[1], width)), BYTES, value_range)
    return op.Where(op.Equal(width, op.scalar(0, width)), op.cast(x, op.compute), result)


@layer("ContrastLimitedAdaptiveHistogramEqualization")
def equalised_in_tiles(op: Op, x: Value, *, value_range: Sequence[float] = BYTES, clip_limit: float = 4.0, tile_grid_size: Sequence[int] = (8, 8),
                       data_format: str | None = None, **rest: Any) -> Value:
    """Each channel of each tile has a curve of its own; what a pixel becomes lies between the curves of the four tiles around it."""
    first, alone = framed(op, op.cast(x, ir.DataType.FLOAT), data_format)
    channels, *sizes = op.sizes(first)[1:]
    if not all(isinstance(size, int) for size in (channels, *sizes)):
        return op.reject("it needs a known size of its input")
    pictures = ranged(op, first, value_range, BYTES)
    tiles = [-(-size // count) for size, count in zip(sizes, tile_grid_size, strict=True)]
    for axis, (size, tile, count) in enumerate(zip(sizes, tiles, tile_grid_size, strict=True)):
        if tile * count > size:
            pictures = op.Gather(pictures, op.const(np.pad(np.arange(size), (0, tile * count - size), mode="symmetric")), axis=axis + 2)
    levels = op.cast(op.Clip(pictures, op.scalar(0, pictures), op.scalar(BYTES[1], pictures)), ir.DataType.INT64)
    curves = _curves(op, levels, channels, tiles, tile_grid_size, float(clip_limit))
    result = _between(op, levels, curves, channels, tiles, tile_grid_size)
    whole = op.Slice(result, op.const([0, 0]), op.const(list(sizes)), op.const([2, 3]))
    return unframed(op, op.cast(ranged(op, whole, BYTES, value_range), x.dtype), alone, data_format)


def _curves(op: Op, levels: Value, channels: int, tiles: Sequence[int], grid: Sequence[int], limit: float) -> Value:
    """[batch, channels, rows, columns, levels]: what each level becomes in a tile. Levels that are too many are spread over all."""
    area = tiles[0] * tiles[1]
    cut = op.reshaped(levels, [-1, channels, grid[0], tiles[0], grid[1], tiles[1]])
    flat = op.reshaped(op.Transpose(cut, perm=[0, 1, 2, 4, 3, 5]), [-1, channels, *grid, area])
    counts = op.ReduceSum(op.OneHot(flat, op.const([LEVELS]), op.const(np.asarray([0, 1], np.float32)), axis=-1), op.const([-2]), keepdims=0)
    if limit > 0:
        kept = op.Min(counts, op.scalar(limit * area / LEVELS, counts))
        excess = op.ReduceSum(op.Sub(counts, kept), op.const([-1]), keepdims=1)
        counts = op.Add(kept, op.Div(excess, op.scalar(LEVELS, counts)))
    total = op.CumSum(counts, op.const(np.asarray(-1)))
    least = op.ReduceMin(total, op.const([-1]), keepdims=1)
    rest = op.Sub(op.scalar(area, total), least)
    rest = op.Where(op.Equal(rest, op.scalar(0, rest)), op.scalar(1, rest), rest)
    return op.Clip(op.Div(op.Mul(op.Sub(total, least), op.scalar(BYTES[1], total)), rest), op.scalar(0, total), op.scalar(BYTES[1], total))


def _between(op: Op, levels: Value, curves: Value, channels: int, tiles: Sequence[int], grid: Sequence[int]) -> Value:
    """The curves of the tiles above, below, left and right of each pixel at its level, by how near their middles are."""
    flat = op.reshaped(curves, [-1, channels * grid[0] * grid[1] * LEVELS])
    sides: list[list[tuple[np.ndarray, np.ndarray]]] = []
    for tile, count in zip(tiles, grid, strict=True):
        place = (np.arange(tile * count) - tile / 2) / tile
        lower = np.floor(place)
        share = (place - lower).astype(np.float32)
        sides.append([(np.clip(lower + step, 0, count - 1).astype(np.int64), weight) for step, weight in ((0, 1 - share), (1, share))])
    channel = np.arange(channels)[:, None, None]
    parts = []
    for rows, above in sides[0]:
        for columns, beside in sides[1]:
            start = ((channel * grid[0] + rows[:, None]) * grid[1] + columns) * LEVELS
            found = op.GatherND(flat, op.Unsqueeze(op.Add(levels, op.const(start[None])), op.const([-1])), batch_dims=1)
            parts.append(op.Mul(found, op.const(above[:, None] * beside)))
    return op.Sum(*parts)

"""Composed calls: putting together and taking apart."""
from __future__ import annotations

import itertools

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.to_onnx.common import axis_of, cast, rank, result_type
from isomorph.dialects.torch.to_onnx.composed import Aten, composed, sizes


def at_least(a: Aten, x: ir.Value, count: int) -> ir.Value:
    shape = list(range(rank(a.op, x)))
    if len(shape) >= count:
        return x
    if count == 3 and len(shape) == 2:
        return a.unsqueeze(x, 2)
    if count == 3 and len(shape) == 1:
        return a.unsqueeze(a.unsqueeze(x, 0), 2)
    return at_least(a, a.unsqueeze(x, 0), count)


for _count in (1, 2, 3):
    composed(f"atleast_{_count}d")(lambda a, x, _count=_count: [at_least(a, item, _count) for item in x] if isinstance(x, list) else at_least(a, x, _count))
composed("hstack")(lambda a, xs: a.cat([at_least(a, x, 1) for x in xs], 0 if max(rank(a.op, x) for x in xs) <= 1 else 1))
composed("vstack")(lambda a, xs: a.cat([at_least(a, x, 2) for x in xs], 0))
composed("dstack")(lambda a, xs: a.cat([at_least(a, x, 3) for x in xs], 2))
composed("column_stack")(lambda a, xs: a.cat([a.reshape(x, [-1, 1]) if rank(a.op, x) <= 1 else x for x in xs], 1))
composed("hsplit")(lambda a, x, parts: a.tensor_split(x, parts, 0 if rank(a.op, x) == 1 else 1))
composed("vsplit")(lambda a, x, parts: a.tensor_split(x, parts, 0))
composed("dsplit")(lambda a, x, parts: a.tensor_split(x, parts, 2))


@composed("_chunk_cat")
def chunk_cat(a, xs, dim, num_chunks):
    axis = axis_of(a.op, xs[0], dim)
    parts = []
    for x in xs:
        shape = sizes(a, x)
        width = -(-shape[axis] // num_chunks)
        x = a.constant_pad_nd(x, [0, 0] * (len(shape) - 1 - axis) + [0, width * num_chunks - shape[axis]], 0)
        parts.append(a.reshape(x, [*shape[:axis], num_chunks, -1]))
    return a.cat(parts, axis + 1)


@composed("block_diag")
def block_diag(a, xs):
    xs = [at_least(a, x, 2) for x in xs]
    dtype = result_type(*xs)
    width = sum(sizes(a, x)[1] for x in xs)
    rows, left = [], 0
    for x in xs:
        own = sizes(a, x)[1]
        rows.append(a.constant_pad_nd(cast(a.op, x, dtype), [left, width - left - own], 0))
        left += own
    return a.cat(rows, 0)


@composed("cartesian_prod")
def cartesian_prod(a, xs):
    if len(xs) == 1:
        return xs[0]
    counts = [sizes(a, x)[0] for x in xs]
    columns = [a.reshape(a.expand(a.reshape(x, [-1 if place == axis else 1 for place in range(len(xs))]), counts), [-1]) for axis, x in enumerate(xs)]
    return a.stack(columns, 1)


@composed("combinations")
def combinations(a, x, r=2, with_replacement=False):
    chosen = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    places = list(chosen(range(sizes(a, x)[0]), r))
    return a.index(x, [a.op.const(np.asarray(places, np.int64).reshape(len(places), r))])


@composed("repeat_tiled")
def repeat_tiled(a, x, dims):
    return a.repeat(x, [1] * (rank(a.op, x) - len(dims)) + list(dims))


@composed("rot90")
def rot90(a, x, k=1, dims=(0, 1)):
    k, (p, q) = k % 4, dims
    turned = {0: lambda: x, 1: lambda: a.transpose(a.flip(x, [q]), p, q), 2: lambda: a.flip(x, [p, q]), 3: lambda: a.flip(a.transpose(x, p, q), [q])}
    return turned[k]()


@composed("kron")
def kron(a, x, y):
    count = max(rank(a.op, x), rank(a.op, y))
    p, q = ([1] * (count - rank(a.op, v)) + sizes(a, v) for v in (x, y))
    left = a.reshape(x, [n for size in p for n in (size, 1)])
    right = a.reshape(y, [n for size in q for n in (1, size)])
    return a.reshape(a.mul(left, right), [m * n for m, n in zip(p, q, strict=True)])


@composed("channel_shuffle", "native_channel_shuffle")
def channel_shuffle(a, x, groups):
    shape = sizes(a, x)
    return a.reshape(a.transpose(a.reshape(x, [shape[0], groups, shape[1] // groups, *shape[2:]]), 1, 2), shape)


@composed("pixel_unshuffle")
def pixel_unshuffle(a, x, factor):
    *batch, channels, height, width = sizes(a, x)
    split = a.reshape(x, [*batch, channels, height // factor, factor, width // factor, factor])
    n = len(batch)
    moved = a.permute(split, [*range(n), n, n + 2, n + 4, n + 1, n + 3])
    return a.reshape(moved, [*batch, channels * factor * factor, height // factor, width // factor])

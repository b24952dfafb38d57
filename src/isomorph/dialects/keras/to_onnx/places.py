"""`keras.ops` that move, join, cut and pick elements."""
from __future__ import annotations

from functools import reduce
from itertools import pairwise
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.operations import axes_of, paired, value_of
from isomorph.dialects.keras.to_onnx.table import ops
from isomorph.dialects.keras.tracing import TYPES

# ---- shapes

@ops("Reshape")
def reshape(op: Op, x: Value, newshape: Any = None) -> Value:
    sizes = [size if isinstance(size, Value) else -1 if size is None else int(size) for size in newshape]
    parts = [op.Reshape(op.cast(size, ir.DataType.INT64), op.const([1])) if isinstance(size, Value) else size for size in sizes]
    return op.reshaped(x, parts)


@ops("Transpose")
def transpose(op: Op, x: Value, *, axes: Any = None) -> Value:
    return op.turned(x, tuple(int(axis) % op.rank(x) for axis in axes) if axes is not None else tuple(reversed(range(op.rank(x)))))


@ops("Swapaxes")
def swapaxes(op: Op, x: Value, *, axis1: int, axis2: int) -> Value:
    order = list(range(op.rank(x)))
    order[axis1], order[axis2] = order[axis2], order[axis1]
    return op.turned(x, tuple(order))


@ops("Moveaxis")
def moveaxis(op: Op, x: Value, *, source: Any, destination: Any) -> Value:
    rank = op.rank(x)
    sources, targets = ([each] if isinstance(each, int) else list(each) for each in (source, destination))
    order = [axis for axis in range(rank) if axis not in [each % rank for each in sources]]
    for target, origin in sorted((t % rank, s % rank) for t, s in zip(targets, sources, strict=True)):
        order.insert(target, origin)
    return op.turned(x, tuple(order))


@ops("ExpandDims")
def expand_dims(op: Op, x: Value, *, axis: Any) -> Value:
    return op.Unsqueeze(x, op.const([axis] if isinstance(axis, int) else list(axis)))


@ops("Squeeze")
def squeeze(op: Op, x: Value, *, axis: Any = None) -> Value:
    chosen = [place for place, size in enumerate(op.sizes(x)) if size == 1] if axis is None else [axis] if isinstance(axis, int) else list(axis)
    return op.Squeeze(x, op.const(chosen)) if chosen else x


@ops("Ravel")
def ravel(op: Op, x: Value) -> Value:
    return op.Reshape(x, op.const([-1]))


@ops("BroadcastTo")
def broadcast_to(op: Op, x: Value, *, shape: Any) -> Value:
    return op.Expand(x, op.const([int(size) for size in shape]))


@ops("Concatenate", "Hstack", "Vstack", "Dstack", "Append")
def concatenate(op: Op, xs: Any, other: Any = None, *, axis: Any = 0) -> Value:
    """`hstack` joins the second axis (of vectors the first), `vstack` the first, `dstack` the third."""
    values = [xs, other] if other is not None else list(xs)
    like = next(value for value in values if isinstance(value, Value))
    values = [value_of(op, value, like) for value in values]
    kind, rank = op.layer.class_name, op.rank(values[0])
    axis = {"Hstack": min(1, rank - 1), "Vstack": 0, "Dstack": 2}.get(kind, axis)
    if kind == "Append" and axis is None:
        values, axis = [op.Reshape(value, op.const([-1])) for value in values], 0
    if (kind == "Vstack" and rank == 1) or (kind == "Dstack" and rank < 3):
        values = [op.Reshape(value, op.const([1, -1] if kind == "Vstack" else [1, -1, 1] if rank == 1 else [0, 0, 1])) for value in values]
    return op.Concat(*values, axis=int(axis))


@ops("Stack")
def stack(op: Op, xs: Any, *, axis: int = 0) -> Value:
    like = next(value for value in xs if isinstance(value, Value))
    rank = op.rank(like) + 1
    return op.Concat(*(op.Unsqueeze(value_of(op, value, like), op.const([axis % rank])) for value in xs), axis=axis % rank)


@ops("Split", "ArraySplit", "Hsplit", "Vsplit", "Dsplit")
def split(op: Op, x: Value, *, indices_or_sections: Any, axis: int = 0) -> Any:
    axis = {"Hsplit": 1, "Vsplit": 0, "Dsplit": 2}.get(op.layer.class_name, axis) % op.rank(x)
    size = op.sizes(x)[axis]
    if isinstance(indices_or_sections, int):
        if not isinstance(size, int):
            return list(_as_tuple(op.Split(x, axis=axis, num_outputs=indices_or_sections, _outputs=indices_or_sections)))
        each, more = divmod(size, indices_or_sections)
        sizes = [each + 1] * more + [each] * (indices_or_sections - more)
    else:
        if not isinstance(size, int):
            return op.reject("the size of its axis is not known")
        edges = [0, *(int(index) % size if index < 0 else min(int(index), size) for index in indices_or_sections), size]
        sizes = [stop - start for start, stop in pairwise(edges)]
    return list(_as_tuple(op.Split(x, op.const(sizes), axis=axis, _outputs=len(sizes))))


def _as_tuple(values: Any) -> tuple[Value, ...]:
    return values if isinstance(values, tuple) else (values,)


@ops("Unstack")
def unstack(op: Op, x: Value, *, num: int | None = None, axis: int = 0) -> list[Value]:
    count = num if num is not None else op.sizes(x)[axis]
    return [op.Gather(x, op.const(np.asarray(index)), axis=axis) for index in range(count)]


@ops("Tile")
def tile(op: Op, x: Value, *, repeats: Any) -> Value:
    times = [repeats] if isinstance(repeats, int) else list(repeats)
    rank = op.rank(x)
    times = [1] * (rank - len(times)) + times
    if len(times) > rank:
        x = op.Unsqueeze(x, op.const(list(range(len(times) - rank))))
    return op.Tile(x, op.const(times))


@ops("Repeat")
def repeat(op: Op, x: Value, *, repeats: Any, axis: Any = None) -> Value:
    flat, place = (op.Reshape(x, op.const([-1])), 0) if axis is None else (x, int(axis) % op.rank(x))
    if isinstance(repeats, list) and len(repeats) > 1:
        return op.Gather(flat, op.const(np.repeat(np.arange(len(repeats)), repeats)), axis=place)
    times = int(repeats[0] if isinstance(repeats, list) else repeats)
    wide = op.Unsqueeze(flat, op.const([place + 1]))
    shape = [1] * op.rank(wide)
    shape[place + 1] = times
    wide = op.Expand(wide, op.const(shape))
    sizes: list[Any] = [size if isinstance(size, int) else op.size_of(flat, index) for index, size in enumerate(op.sizes(flat))]
    sizes[place] = sizes[place] * times if isinstance(sizes[place], int) else -1
    return op.reshaped(wide, sizes)


@ops("Flip", "Fliplr", "Flipud")
def flip(op: Op, x: Value, *, axis: Any = None) -> Value:
    axes = {"Fliplr": [1], "Flipud": [0]}.get(op.layer.class_name) or axes_of(op, x, axis)
    return op.Slice(x, op.const([-1] * len(axes)), op.const([np.iinfo(np.int64).min] * len(axes)), op.const(axes), op.const([-1] * len(axes)))


@ops("Roll")
def roll(op: Op, x: Value, *, shift: Any, axis: Any = None) -> Value:
    if axis is None:
        flat = rolled(op, op.Reshape(x, op.const([-1])), int(shift), 0)
        return op.Reshape(flat, op.Shape(x))
    shifts, axes = ([each] if isinstance(each, int) else list(each) for each in (shift, axis))
    for each, place in zip(shifts * len(axes) if len(shifts) == 1 else shifts, axes, strict=True):
        x = rolled(op, x, each, place)
    return x


def rolled(op: Op, x: Value, shift: int, axis: int) -> Value:
    size = op.sizes(x)[axis]
    shift = shift % size if isinstance(size, int) else shift
    if shift == 0:
        return x
    most = np.iinfo(np.int64).max
    tail = op.Slice(x, op.const([-shift]), op.const([most]), op.const([axis]))
    return op.Concat(tail, op.Slice(x, op.const([0]), op.const([-shift]), op.const([axis])), axis=axis)


@ops("Rot90")
def rot90(op: Op, x: Value, *, k: int = 1, axes: Any = (0, 1)) -> Value:
    first, second = (axis % op.rank(x) for axis in axes)
    order = list(range(op.rank(x)))
    order[first], order[second] = second, first
    for _ in range(k % 4):
        x = op.call("ops", "Flip", op.Transpose(x, perm=order), axis=first)
    return x


@ops("Pad")
def pad(op: Op, x: Value, constant_values: Any = None, *, pad_width: Any, mode: str = "constant") -> Value:
    rank = op.rank(x)
    widths = [[pad_width] * 2] * rank if isinstance(pad_width, int) else [list(each) if isinstance(each, list) else [each] * 2 for each in pad_width]
    if len(widths) == 1 and rank > 1:
        widths = widths * rank
    elif len(widths) == 2 and isinstance(pad_width[0], int):
        widths = [list(pad_width)] * rank
    if mode == "symmetric":
        return mirrored(op, x, widths)
    pads = op.const([begin for begin, _ in widths] + [end for _, end in widths])
    if mode != "constant":
        return op.Pad(x, pads, mode={"reflect": "reflect", "edge": "edge", "wrap": "wrap"}[mode])
    return op.Pad(x, pads, None if constant_values is None else op.Reshape(value_of(op, constant_values, x), op.const(np.zeros(0, np.int64))))


def mirrored(op: Op, x: Value, widths: list[list[int]]) -> Value:
    """Mirrored with the edge itself: by index."""
    for axis, (begin, end) in enumerate(widths):
        size = op.sizes(x)[axis]
        if begin or end:
            if not isinstance(size, int):
                return op.reject("the size of its axis is not known")
            x = op.Gather(x, op.const(np.pad(np.arange(size), (begin, end), mode="symmetric")), axis=axis)
    return x


@ops("Meshgrid")
def meshgrid(op: Op, *xs: Any, indexing: str = "xy") -> list[Value]:
    count = len(xs)
    order = [1, 0, *range(2, count)] if indexing == "xy" and count > 1 else list(range(count))
    shaped = [op.Reshape(x, op.const([-1 if place == order.index(index) else 1 for place in range(count)])) for index, x in enumerate(xs)]
    shape = reduce(lambda a, b: op.Max(a, b), [op.Shape(each) for each in shaped])
    return [op.Expand(each, shape) for each in shaped]


@ops("Diff")
def diff(op: Op, a: Value, *, n: int = 1, axis: int = -1) -> Value:
    for _ in range(n):
        later = op.Slice(a, op.const([1]), op.const([np.iinfo(np.int64).max]), op.const([axis]))
        a = op.Sub(later, op.Slice(a, op.const([0]), op.const([-1]), op.const([axis])))
    return a


@ops("Tril", "Triu")
def triangle(op: Op, x: Value, *, k: int = 0) -> Value:
    return op.Trilu(x, op.const(np.asarray(k)), upper=int(op.layer.class_name == "Triu"))


@ops("Diagonal", "Trace")
def diagonal(op: Op, x: Value, *, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Value:
    rank = op.rank(x)
    one, two = axis1 % rank, axis2 % rank
    order = [axis for axis in range(rank) if axis not in (one, two)] + [one, two]
    y = op.turned(x, tuple(order))
    rows, columns = op.sizes(y)[-2:]
    if not (isinstance(rows, int) and isinstance(columns, int)):
        return op.reject("the sizes of its axes are not known")
    places = [row * columns + row + offset for row in range(rows) if 0 <= row + offset < columns]
    lead = [size if isinstance(size, int) else op.size_of(y, index) for index, size in enumerate(op.sizes(y)[:-2])]
    found = op.Gather(op.reshaped(y, [*lead, rows * columns]), op.const(places), axis=rank - 2)
    return op.ReduceSum(found, op.const([-1]), keepdims=0) if op.layer.class_name == "Trace" else found


# ---- elements by place

@ops("GetItem")
def get_item(op: Op, x: Value, key: Any) -> Value:
    """Indexing as Python writes it: numbers, slices, an ellipsis, new axes, and arrays of places."""
    keys = key if (isinstance(key, list) and any(isinstance(each, (dict, list, Value)) or each is None for each in key)) or (
        isinstance(key, list) and all(isinstance(each, int) for each in key)) else [key]
    return indexed(op, x, list(keys))


def indexed(op: Op, x: Value, keys: list[Any]) -> Value:
    rank = op.rank(x)
    taken = sum(1 for each in keys if each is not None and not (isinstance(each, dict) and "ellipsis" in each))
    if not any(isinstance(each, dict) and "ellipsis" in each for each in keys):
        keys = [*keys, {"ellipsis": True}]
    place = next(index for index, each in enumerate(keys) if isinstance(each, dict) and "ellipsis" in each)
    keys = [*keys[:place], *([{"slice": [None, None, None]}] * (rank - taken)), *keys[place + 1:]]
    slices, squeezed, added, arrays, axis, out = [], [], [], [], 0, 0
    for each in keys:
        if each is None:
            added.append(out)
            out += 1
            continue
        if isinstance(each, dict) and "slice" in each:
            if each["slice"] != [None, None, None]:
                slices.append((axis, each["slice"]))
            out += 1
        elif isinstance(each, int) and not isinstance(each, bool):
            slices.append((axis, [each, each + 1 if each != -1 else None, 1]))
            squeezed.append(axis)
        elif isinstance(each, (Value, list)):
            arrays.append((axis, each))
            out += 1
        else:
            return op.reject(f"indexing by {each!r} is not mapped")
        axis += 1
    x = sliced(op, x, slices)
    if len(arrays) > 1 or (arrays and (squeezed or added)):
        return op.reject("indexing by several arrays is not mapped")
    for axis, array in arrays:
        x = op.Gather(x, value_of(op, array), axis=axis)
    x = op.Squeeze(x, op.const(squeezed)) if squeezed else x
    return op.Unsqueeze(x, op.const(added)) if added else x


def sliced(op: Op, x: Value, slices: list[tuple[int, list[Any]]]) -> Value:
    """Python's slices: bounds may be missing or computed."""
    if not slices:
        return x
    most, least = np.iinfo(np.int64).max, np.iinfo(np.int64).min
    steps = [1 if step is None else int(step) for _, (_, _, step) in slices]
    starts = [(0 if step > 0 else most) if start is None else start for (_, (start, _, _)), step in zip(slices, steps, strict=True)]
    stops = [(most if step > 0 else least) if stop is None else stop for (_, (_, stop, _)), step in zip(slices, steps, strict=True)]

    def vector(bounds: list[Any]) -> Value:
        if not any(isinstance(bound, Value) for bound in bounds):
            return op.const([int(bound) for bound in bounds])
        return op.Concat(*(op.Reshape(op.cast(bound, ir.DataType.INT64), op.const([1])) if isinstance(bound,
            Value) else op.const([int(bound)]) for bound in bounds), axis=0)

    return op.Slice(x, vector(starts), vector(stops), op.const([axis for axis, _ in slices]), op.const(steps))


@ops("Take")
def take(op: Op, x: Any, indices: Any, *, axis: Any = None) -> Value:
    flat, place = (op.Reshape(x, op.const([-1])), 0) if axis is None else (value_of(op, x), axis)
    index = value_of(op, indices)
    return op.Gather(flat, index if index.dtype in (ir.DataType.INT32, ir.DataType.INT64) else op.cast(index, ir.DataType.INT64), axis=place)


@ops("TakeAlongAxis")
def take_along_axis(op: Op, x: Value, indices: Any, *, axis: Any = None) -> Value:
    index = value_of(op, indices)
    if axis is None:
        return op.GatherElements(op.Reshape(x, op.const([-1])), op.Reshape(index, op.const([-1])), axis=0)
    rank, place = op.rank(x), int(axis) % op.rank(x)
    shape = op.Concat(*(op.size_of(index if each == place else x, each) for each in range(rank)), axis=0)
    return op.GatherElements(x, op.Expand(index, shape), axis=place)


@ops("Nonzero")
def nonzero(op: Op, x: Value) -> list[Value]:
    """The places of what is not zero, a vector for each axis."""
    rank = op.rank(x)
    found = op.cast(op.NonZero(x), ir.DataType.INT32)
    return [op.Gather(found, op.const(np.asarray(axis)), axis=0) for axis in range(rank)]


@ops("OneHot")
def one_hot(op: Op, x: Value, *, num_classes: int, axis: int = -1, dtype: Any = None, sparse: bool = False) -> Value:
    """Indices outside give zeros, not, as in ONNX, the element counted from behind."""
    kind = ir.DataType[TYPES[dtype or "float32"]]
    index = op.cast(x, ir.DataType.INT64)
    index = op.Where(op.Less(index, op.scalar(0, index)), op.scalar(num_classes, index), index)
    return op.OneHot(index, op.const(np.asarray(num_classes)), op.const(np.asarray([0, 1], kind.numpy())), axis=axis)


@ops("MultiHot")
def multi_hot(op: Op, x: Value, *, num_classes: int, axis: int = -1, dtype: Any = None, sparse: bool = False) -> Value:
    reduction = 1 if op.rank(x) > 1 else 0
    return op.ReduceMax(one_hot(op, x, num_classes=num_classes, axis=-1, dtype=dtype), op.const([reduction]), keepdims=0)


@ops("TopK")
def top_k(op: Op, x: Value, *, k: int, sorted: bool = True) -> list[Value]:
    values, places = op.TopK(x, op.const([k]), _outputs=2)
    return [values, op.cast(places, ir.DataType.INT32)]


@ops("Sort", "Argsort")
def sort(op: Op, x: Value, *, axis: Any = -1) -> Value:
    flat, place = (op.Reshape(x, op.const([-1])), 0) if axis is None else (x, axis)
    values, places = op.TopK(flat, op.size_of(flat, place), axis=place, largest=0, _outputs=2)
    return values if op.layer.class_name == "Sort" else op.cast(places, ir.DataType.INT32)


@ops("Digitize")
def digitize(op: Op, x: Value, bins: Any) -> Value:
    return bucket(op, x, value_of(op, bins))


def bucket(op: Op, x: Value, edges: Value, right: bool = False) -> Value:
    """How many edges are not above each element."""
    wide = op.Unsqueeze(x, op.const([-1]))
    a, b = paired(op, wide, edges)
    passed = op.Greater(a, b) if right else op.GreaterOrEqual(a, b)
    return op.ReduceSum(op.cast(passed, ir.DataType.INT32), op.const([-1]), keepdims=0)


@ops("SearchSorted")
def search_sorted(op: Op, sorted_sequence: Any, values: Any, *, side: str = "left") -> Value:
    return bucket(op, value_of(op, values), value_of(op, sorted_sequence), right=side == "left")


@ops("Slice")
def slice_(op: Op, x: Value, start_indices: Any, *, shape: Any) -> Value:
    starts = value_of(op, start_indices) if not (isinstance(start_indices, list) and any(isinstance(each, Value) for each in start_indices)) else op.Concat(
        *(op.Reshape(value_of(op, each), op.const([1])) for each in start_indices), axis=0)
    begins = op.cast(starts, ir.DataType.INT64)
    return op.Slice(x, begins, op.Add(begins, op.const([int(size) for size in shape])), op.const(list(range(op.rank(x)))))


@ops("SliceUpdate")
def slice_update(op: Op, x: Value, start_indices: Any, updates: Any) -> Value:
    """The block at constant places."""
    new = value_of(op, updates, x)
    if any(isinstance(each, Value) for each in start_indices):
        return op.reject("its place is computed")
    places = np.stack(np.meshgrid(*(np.arange(size) + int(start) for size, start in zip(op.static(new), start_indices, strict=True)), indexing="ij"), -1)
    return op.ScatterND(x, op.const(places), new)


@ops("ScatterUpdate")
def scatter_update(op: Op, x: Value, indices: Any, updates: Any, *, reduction: Any = None) -> Value:
    kinds = {None: None, "add": "add", "max": "max", "min": "min", "mul": "mul"}
    return op.ScatterND(x, op.cast(value_of(op, indices), ir.DataType.INT64), value_of(op, updates, x), reduction=kinds[reduction])


@ops("Scatter")
def scatter(op: Op, indices: Any, values: Any, *, shape: Any) -> Value:
    new = value_of(op, values)
    zeros = op.const(np.zeros([int(size) for size in shape], new.dtype.numpy()))
    return op.ScatterND(zeros, op.cast(value_of(op, indices), ir.DataType.INT64), new, reduction="add")


@ops("Linspace")
def linspace(op: Op, start: Any, stop: Any, *, num: int = 50, endpoint: bool = True, retstep: bool = False, dtype: Any = None, axis: int = 0) -> Value:
    if isinstance(start, Value) or isinstance(stop, Value):
        return op.reject("its ends are computed")
    return op.const(np.linspace(start, stop, num, endpoint=endpoint).astype(dtype or np.float32))


@ops("Full")
def full(op: Op, fill_value: Any, *, shape: Any, dtype: Any = None) -> Value:
    value = value_of(op, fill_value)
    return op.Expand(op.cast(value, ir.DataType[TYPES[dtype]]) if dtype else value, op.const([int(size) for size in shape]))


@ops("Arange")
def arange(op: Op, start: Any, stop: Any = None, step: Any = None, *, dtype: Any = None) -> Value:
    bounds = [0, start, 1 if step is None else step] if stop is None else [start, stop, 1 if step is None else step]
    kind = ir.DataType[TYPES[dtype]] if dtype else next((each.dtype for each in bounds if isinstance(each, Value)), ir.DataType.INT32 if all(
        isinstance(each, int) for each in bounds) else ir.DataType.FLOAT)
    return op.Range(*(op.cast(each, kind) if isinstance(each, Value) else op.const(np.asarray(each, kind.numpy())) for each in bounds))


@ops("ExtractSequences")
def extract_sequences(op: Op, x: Value, *, sequence_length: int, sequence_stride: int) -> Value:
    """Overlapping stretches of the last axis."""
    size = op.sizes(x)[-1]
    if not isinstance(size, int):
        return op.reject("the size of its axis is not known")
    starts = np.arange(0, size - sequence_length + 1, sequence_stride)
    return op.Gather(x, op.const(starts[:, None] + np.arange(sequence_length)), axis=-1)


@ops("Rearrange")
def rearrange(op: Op, tensor: Value, pattern: str, **lengths: Any) -> Value:
    """einops: split axes, transpose, join axes."""
    left, right = (_groups(side) for side in pattern.split("->"))
    known: dict[str, Any] = {name: int(size) for name, size in lengths.items() if isinstance(size, int)}
    known |= {name: int(size) for name, size in op.layer.config.items() if isinstance(size, int) and not isinstance(size, bool)}
    sizes = op.sizes(tensor)
    flat: list[Any] = []
    for group, size in zip(left, sizes, strict=True):
        inside = int(np.prod([known[name] for name in group if name in known]))
        for name in group:
            if name not in known:
                known[name] = size // inside if isinstance(size, int) else -1 if -1 not in known.values() else op.size_of(tensor, left.index(group))
        flat += [known[name] for name in group]
    names = [name for group in left for name in group]
    split_ = op.reshaped(tensor, flat)
    moved = op.turned(split_, tuple(names.index(name) for group in right for name in group))
    joined = [int(np.prod([known[name] for name in group])) if all(isinstance(known[name],
        int) and known[name] > 0 for name in group) else -1 for group in right]
    return op.reshaped(moved, joined)


def _groups(side: str) -> list[list[str]]:
    groups: list[list[str]] = []
    inside = False
    for word in side.replace("(", " ( ").replace(")", " ) ").split():
        if word in "()":
            inside = word == "("
            if inside:
                groups.append([])
        elif inside:
            groups[-1].append(word)
        else:
            groups.append([word])
    return groups

"""ONNX -> the forms of ONNX that TensorFlow's kernels have: what only they want, over the forms of `dialects/_forms`."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._forms import positions
from isomorph.dialects._forms.windows import conv as shared_conv
from isomorph.dialects._forms.windows import dilated, grouped, padded, same_pads, spatial
from isomorph.dialects._lower import Builder, Mapping
from isomorph.dialects.tf.from_onnx.kernels import REAL
from isomorph.passes.decompose import decompose, shape_of

legalize = Mapping()


def _unless(name: str, kernel_has: Any) -> None:
    """An operator whose kernel covers part of what ONNX allows; the rest is decomposed."""
    rule = decompose.rules["", name].function

    def choose(op, *inputs, **attributes):
        return NotImplemented if kernel_has(op, *inputs, **attributes) else rule(op, *inputs, **attributes)

    legalize(name)(choose)


_unless("Elu", lambda op, x, alpha=1.0: alpha == 1.0)
_unless("Max", lambda op, *xs: len(xs) == 2)
_unless("Min", lambda op, *xs: len(xs) == 2)
_unless("IsInf", lambda op, x, detect_negative=1, detect_positive=1: detect_negative and detect_positive)
_unless("DepthToSpace", lambda op, x, blocksize, mode="DCR": mode == "DCR")


@legalize("Conv")
def conv(op, x, w, b=None, *, kernel_shape=None, group=1, dilations=None, strides=None, pads=None, auto_pad="NOTSET"):
    """One group, or one a channel; the kernel of the latter knows one stride for both axes. It, and that of three axes, know no steps between the elements of
    a window, so zeros stand there instead."""
    n = op.of(x)[0] - 2
    alone = group > 1 and op.static(w)[1] == 1
    window = {"strides": list(strides or [1] * n), "dilations": list(dilations or [1] * n), "pads": pads, "auto_pad": auto_pad}
    if n == 2 and group > 1 and not alone:
        return grouped(op, x, w, b, group, lambda xi, wi, bi: op.Conv(xi, wi, bi, **window))
    if any(step != 1 for step in window["dilations"]) and (n == 3 or (n == 2 and alone)):
        return op.Conv(x, dilated(op, w, window["dilations"]), b, **window | {"dilations": [1] * n}, group=group)
    if n == 2 and alone and len(set(window["strides"])) > 1:
        ends = _ends(op, x, list(op.static(w)[2:]), window["strides"], pads, auto_pad)
        y = op.Conv(padded(op, x, ends), w, b, strides=[1, 1], auto_pad="VALID", group=group)
        return op.Slice(y, [0, 0], [1 << 31, 1 << 31], [2, 3], window["strides"])
    return shared_conv(op, x, w, b, group=group, **window)


def _ends(op: Builder, x: ir.Value, kernel: list[int], strides: list[int], pads: Any, auto_pad: str) -> list[int]:
    """What is padded before and after each axis, as numbers."""
    if auto_pad not in ("SAME_UPPER", "SAME_LOWER"):
        return list(pads) if pads is not None and auto_pad == "NOTSET" else [0, 0, 0, 0]
    pairs = [same_pads(*axis)[::1 if auto_pad == "SAME_UPPER" else -1] for axis in zip(spatial(op, x), kernel, strides, strict=True)]
    return [before for before, _ in pairs] + [after for _, after in pairs]


@legalize("Pow")
def power(op, a, b):
    """Both operands have one type in the kernel; ONNX keeps the type of the base. Integers have no negative powers."""
    if a.dtype == b.dtype:
        return NotImplemented
    if a.dtype in REAL or b.dtype not in REAL:
        return op.Pow(a, op.Cast(b, to=int(a.dtype)))
    return op.Cast(op.Pow(op.Cast(a, to=int(b.dtype)), b), to=int(a.dtype))


@legalize("BitShift")
def bit_shift(op, x, y, *, direction):
    """Beyond the width of the type nothing is left but the sign, where the kernel repeats its last step."""
    if op.node.meta.get("bounded"):
        return NotImplemented
    width = x.dtype.bitwidth
    shifted = op.BitShift(x, op.Min(y, op.const(width - 1, like=y.dtype)), direction=direction)
    shifted.producer().meta["bounded"] = True
    return op.Where(op.Less(y, op.const(width, like=y.dtype)), shifted, op.const(0, like=x.dtype))


@legalize("ScatterND")
def scatter_nd(op, x, indices, updates, *, reduction="none"):
    """Every reduction but the product has a kernel; positions count from the front."""
    if reduction == "mul":
        return positions.scatter_nd(op, x, indices, updates, reduction=reduction)
    if positions.is_wrapped(indices):
        return NotImplemented
    depth = positions.depth_of(op, indices)
    places = positions.wrapped(op, indices, op.of(x)[1][:depth], lambda: shape_of(op, x, *range(depth)))
    return op.ScatterND(x, places, updates, reduction=reduction)


@legalize("StringNormalizer")
def string_normalizer(op, x, *, case_change_action="NONE", is_case_sensitive=0, locale="", stopwords=()):
    """Words that are to be left out are compared in lower case unless case counts; without any word left there is one empty one."""
    if stopwords and op.of(x)[0] > 1 and op.of(x)[1][0] != 1:
        op.reject("stop words of several rows")
    key = x if is_case_sensitive else op.ChangedCase(x, upper=0, _dtype=x.dtype, _shape=x.shape)
    words = x if case_change_action == "NONE" else op.ChangedCase(x, upper=int(case_change_action == "UPPER"), _dtype=x.dtype, _shape=x.shape)
    if not stopwords:
        return op.Identity(words)
    kept = None
    for word in stopwords:
        differs = op.Not(op.Equal(key, op.const(np.asarray(word if is_case_sensitive else word.lower(), object))))
        kept = differs if kept is None else op.And(kept, differs)
    flat = op.Gather(op.Reshape(words, [-1]), op.Squeeze(op.NonZero(op.Reshape(kept, [-1])), [0]))
    empty = op.Equal(op.Size(flat), np.int64(0))
    filled = op.Pad(flat, op.Concat(op.const([0]), op.Unsqueeze(op.Cast(empty, to=7), [0]), axis=0), op.const(np.asarray("", object)))
    return filled if op.of(x)[0] == 1 else op.Unsqueeze(filled, [0])


@legalize("Unique")
def unique(op, x, *, axis=None, sorted=1):
    """The kernel finds distinct slices in order of appearance. ONNX sorts them, which needs an order: numbers in one axis."""
    data, along = (op.Reshape(x, [-1]), 0) if axis is None else (x, axis % op.of(x)[0])
    count = op.of(data)[1][along]
    if sorted and (op.of(data)[0] != 1 or data.dtype == ir.DataType.STRING or not isinstance(count, int)):
        op.reject("distinct slices of several axes in their order")
    shape = [None if i == along else size for i, size in enumerate(op.of(data)[1])]
    y, places, counts = op.DistinctRows(data, axis=along, _outputs=3, _dtype=x.dtype, _shape=shape)
    places.dtype = counts.dtype = ir.DataType.INT64
    places.shape, counts.shape = ir.Shape([count]), ir.Shape([None])
    each = op.const(np.arange(count)) if isinstance(count, int) else op.Range(np.int64(0), op.Size(places), np.int64(1))
    first = op.SegmentFirst(each, places, op.Size(counts), _dtype=ir.DataType.INT64, _shape=[None])
    if not sorted:
        return [op.Identity(y), first, op.Identity(places), op.Identity(counts)][:len(op.outputs)]
    _, order = op.TopK(y, op.Reshape(op.Size(y), [1]), largest=0, _outputs=2)
    rank_of = op.ScatterND(op.Mul(order, np.int64(0)), op.Unsqueeze(order, [1]), op.Range(np.int64(0), op.Size(y), np.int64(1)))
    return [op.Gather(y, order), op.Gather(first, order), op.Gather(rank_of, places), op.Gather(counts, order)][:len(op.outputs)]

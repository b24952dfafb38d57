"""Resize by a kernel where its coordinates are the same, by matrices and gathers otherwise."""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Mapping, constant
from isomorph.passes.decompose import shape_of

resizing = Mapping()


@resizing("Resize")
def resize(
    op,
    x,
    roi=None,
    scales=None,
    sizes=None,
    *,
    mode="nearest",
    coordinate_transformation_mode="half_pixel",
    nearest_mode="round_prefer_floor",
    axes=None,
    antialias=0,
    exclude_outside=0,
    cubic_coeff_a=-0.75,
    extrapolation_value=0.0,
    keep_aspect_ratio_policy="stretch",
):
    """Two spatial axes, nearest or linear, and coordinates that agree with one of the kernel's three; others become matrices and gathers."""
    _rank, dims = op.of(x)
    if all(isinstance(size, int) for size in dims) and (scales is None or constant(scales) is not None) and (sizes is None or constant(sizes) is not None):
        found = _kernel_resize(
            op,
            x,
            constant(scales),
            constant(sizes),
            mode,
            coordinate_transformation_mode,
            nearest_mode,
            axes,
            antialias,
            exclude_outside,
            keep_aspect_ratio_policy,
        )
        if found is not None:
            return found
        from isomorph.passes.resample import resize as matrices

        return matrices(
            op,
            x,
            constant(roi),
            constant(scales),
            constant(sizes),
            mode=mode,
            coordinate_transformation_mode=coordinate_transformation_mode,
            nearest_mode=nearest_mode,
            axes=axes,
            antialias=antialias,
            exclude_outside=exclude_outside,
            cubic_coeff_a=cubic_coeff_a,
            extrapolation_value=extrapolation_value,
            keep_aspect_ratio_policy=keep_aspect_ratio_policy,
        )
    return _dynamic_resize(op, x, scales, sizes, mode, coordinate_transformation_mode, nearest_mode, axes)


KERNEL_MODES = {"half_pixel": {"half_pixel_centers": 1}, "align_corners": {"align_corners": 1}, "asymmetric": {}}


def _spatial(op: Builder, x: ir.Value, sizes: ir.Value, out: list, mode: str, flags: dict[str, int]) -> ir.Value:
    return op.ResizeSpatial(x, sizes, mode=mode, **flags, _dtype=x.dtype, _shape=[*list(x.shape)[:2], *out])


def _kernel_resize(op, x, scales, sizes, mode, transformation, nearest_mode, axes, antialias, exclude_outside, policy):
    from isomorph.passes.resample import coordinates, nearest, resize_targets

    dims = op.static(x)
    axes = [axis % len(dims) for axis in axes] if axes is not None else list(range(len(dims)))
    targets = dict(zip(axes, resize_targets(dims, axes, scales, sizes, policy), strict=True))
    if (
        len(dims) != 4
        or transformation == "tf_crop_and_resize"
        or antialias
        or exclude_outside
        or mode not in ("nearest", "linear")
        or any(targets.get(axis, (dims[axis], 1.0))[0] != dims[axis] for axis in (0, 1))
    ):
        return None
    targets = {axis: targets.get(axis, (dims[axis], 1.0, None)) for axis in (2, 3)}
    for kernel, flags in KERNEL_MODES.items():
        agree = True
        for axis, (out, scale, length) in targets.items():
            wanted = coordinates(out, dims[axis], scale, transformation, length=length)
            given = coordinates(out, dims[axis], out / dims[axis], kernel)
            if mode == "nearest":
                wanted = np.clip(nearest(wanted, nearest_mode), 0, dims[axis] - 1)
                given = _kernel_nearest(out, dims[axis], kernel)
            agree = agree and np.allclose(np.clip(wanted, 0, dims[axis] - 1), np.clip(given, 0, dims[axis] - 1), atol=1e-6)
        if agree:
            out = [targets[2][0], targets[3][0]]
            return _spatial(op, x, op.const(out), out, mode, flags)
    return None


def _kernel_nearest(out: int, size: int, kernel: str) -> np.ndarray:
    """GetNearestNeighbor of the kernel, in float32 as it computes."""
    i = np.arange(out, dtype=np.float32)
    scale = np.float32((size - 1) / (out - 1) if kernel == "align_corners" and out > 1 else size / out)
    value = (i + np.float32(0.5 if kernel == "half_pixel" else 0)) * scale
    value = np.floor(value + np.float32(0.5)) if kernel == "align_corners" else np.floor(value)
    return np.clip(value, 0, size - 1)


def _dynamic_resize(op, x, scales, sizes, mode, transformation, nearest_mode, axes):
    """Unknown sizes: the spatial axes, and coordinates that agree for every size."""
    rank, _dims = op.of(x)
    exact = {"linear": ("half_pixel", "align_corners", "asymmetric", "pytorch_half_pixel")}.get(mode, ("asymmetric", "half_pixel"))
    factors = constant(scales)
    whole = factors is not None and np.allclose(factors, np.round(factors))
    if rank != 4 or transformation not in exact or (mode == "nearest" and not ((nearest_mode == "floor" and transformation == "asymmetric") or whole)):
        op.reject(f"{mode} Resize with {transformation} coordinates of an unknown size")
    chosen = [axis % 4 for axis in axes] if axes is not None else [0, 1, 2, 3]
    places = [chosen.index(2), chosen.index(3)]
    if sizes is not None:
        target = op.Gather(sizes, op.const(places))
    elif factors is not None and whole:
        target = op.Mul(shape_of(op, x, 2, 3), op.const(np.round(factors[places]).astype(np.int64)))
    else:
        chosen_scales = op.Gather(scales, op.const(places)) if factors is None else op.const(factors[places].astype(np.float32))
        target = op.Cast(op.Floor(op.Mul(op.Cast(shape_of(op, x, 2, 3), to=1), chosen_scales)), to=7)
    flags = KERNEL_MODES["asymmetric" if mode == "nearest" and (whole or transformation == "asymmetric") else transformation.removeprefix("pytorch_")]
    out = list(op.outputs[0].shape)[2:] if op.outputs[0].shape is not None else [None, None]
    return _spatial(op, x, target, out, mode, flags)

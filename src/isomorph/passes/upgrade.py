"""Older ONNX to the hub's operator set: one adapter for every change of form or meaning, in the order of the versions that made it.

What is not here only gained types or attributes whose default is the old meaning. The changes stand in onnx/docs/Changelog.md.
"""
from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.errors import Damaged
from isomorph.model import HUB_IR_VERSION, HUB_ML_OPSET, HUB_OPSET
from isomorph.passes._edit import Adapters, Edit, Walk
from isomorph.report import Finding, Severity
from isomorph.tensors import NUMBER, lazily

ML = "ai.onnx.ml"
ML_BEFORE_TREE_ENSEMBLE = 4          # ai.onnx.ml 5 deprecates the older tree operators, whose outputs TreeEnsemble does not have
INPUTS_HOLD_INITIALIZERS = 4         # below this IR version every initializer had to be listed among the inputs

adapters = Adapters()
ml_adapters = Adapters()

REDUCE = ["ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSumSquare"]
CONSUMING = ["Abs", "Ceil", "Clip", "Elu", "Exp", "Floor", "HardSigmoid", "InstanceNormalization", "LeakyRelu", "Log", "Max", "Mean", "Min", "Neg", "PRelu",
             "Reciprocal", "Relu", "Sigmoid", "Sqrt", "Sum", "Tanh", "Dropout", "BatchNormalization"]


def upgrade(model: ir.Model, where: str = "") -> list[Finding]:
    """Brings a model to the hub's operator set, in place. Raises `Unsupported` with every node that has no equivalent, `Damaged` without a version."""
    walk = Walk(model, where, HUB_OPSET)
    if model.ir_version < INPUTS_HOLD_INITIALIZERS:
        _forget_initializers_among_inputs(model.graph)
    graphs = [model.graph, *(function.graph for function in model.functions.values())]
    for graph in graphs:
        imports = graph.opset_imports
        if "" not in imports and graph is model.graph and model.ir_version >= 3 and any(node.domain == "" for node in graph.all_nodes()):
            raise Damaged("no version of the ONNX operators is imported", where=where)
        version, ml_version = imports.get("", 1), imports.get(ML, HUB_ML_OPSET)
        walk.in_function = graph is not model.graph
        if version > HUB_OPSET:
            from isomorph.passes.downgrade import adapt_down
            walk.run(graph, partial(adapt_down, current=version, target=HUB_OPSET), backwards=True)
        elif version < HUB_OPSET or ml_version < HUB_ML_OPSET:
            walk.run(graph, partial(adapt, version=version, ml_version=ml_version))
        imports[""] = HUB_OPSET
        if ML in imports:
            old_trees = any(node.domain == ML and node.op_type in ("TreeEnsembleClassifier", "TreeEnsembleRegressor") for node in graph.all_nodes())
            imports[ML] = ML_BEFORE_TREE_ENSEMBLE if old_trees else HUB_ML_OPSET
    model.ir_version = HUB_IR_VERSION
    return walk.finish(f"opset {HUB_OPSET}")


def adapt(edit: Edit, version: int, ml_version: int) -> None:
    """Applies every adapter from the version of the file up; one may turn the node into another operator, whose later changes then follow."""
    table, current, newest = (adapters, version, HUB_OPSET) if edit.node.domain == "" else (ml_adapters, ml_version, HUB_ML_OPSET)
    if edit.node.domain not in ("", ML):
        return
    while following := table.between(edit.node.op_type, current, newest):
        current = following[0]
        table.table[edit.node.op_type][current](edit)


def _forget_initializers_among_inputs(graph: ir.Graph) -> None:
    for value in [value for value in graph.inputs if value.is_initializer()]:
        graph.inputs.remove(value)


# ---- versions 2 to 6: names and types of attributes

@adapters(6, *CONSUMING)
def memory_hints_are_gone(e: Edit) -> None:
    e.take("consumed_inputs")


@adapters(2, "GlobalLpPool", "LpPool")
def p_is_whole(e: Edit) -> None:
    e.set(p=int(e.get("p", 2.0)))


@adapters(2, "Pad")
def paddings_are_called_pads(e: Edit) -> None:
    e.set(pads=e.take("paddings"))


@adapters(4, "Concat")
def axis_is_required(e: Edit) -> None:
    e.set(axis=e.get("axis", 1))


@adapters(5, "Reshape")
def shape_is_an_input(e: Edit) -> None:
    e.take("consumed_inputs")
    e.to_input("shape", 1)


@adapters(6, "Cast")
def type_is_a_number(e: Edit) -> None:
    name = e.get("to")
    e.set(to=NUMBER[name] if name in NUMBER else e.block(f"it casts to the unknown type {name!r}"))


@adapters(6, "Selu")
def rounded_defaults(e: Edit) -> None:
    e.take("consumed_inputs")
    e.set(alpha=e.get("alpha", 1.6732), gamma=e.get("gamma", 1.0507))


@adapters(6, "Tile")
def repeats_per_axis(e: Edit) -> None:
    tiles, axis = e.constant(1), e.constant(2)
    if tiles is None or axis is None:
        e.block("its `tiles` and `axis` are not constant")
    repeats = np.ones(e.rank(0), np.int64)
    repeats[int(axis.reshape(-1)[0])] = int(tiles.reshape(-1)[0])
    e.drop_inputs(2)
    e.set_input(1, e.const(repeats))


# ---- version 7: NumPy's broadcasting

@adapters(7, "Add", "Sub", "Mul", "Div", "Pow", "And", "Or", "Xor", "Equal", "Greater", "Less")
def broadcasting_is_numpys(e: Edit) -> None:
    """`axis` said where the first dimension of B stands in A; now B must end with ones instead."""
    e.take("consumed_inputs")
    broadcast, axis = e.take("broadcast", 0), e.take("axis")
    if not broadcast or axis is None:
        return
    left, right = e.rank(0), e.rank(1)
    trailing = left - axis % max(left, 1) - right
    if trailing > 0 and right > 0:
        e.set_input(1, e.add("Unsqueeze", e.input(1), e.const(range(right, right + trailing))))


@adapters(7, "PRelu")
def slope_is_broadcast(e: Edit) -> None:
    """A vector of slopes was one per channel."""
    rank, slope = e.rank(0), e.dims(1)
    if slope is None:
        e.block("the rank of its slope is not known")
    if len(slope) == 1 and slope[0] != 1 and rank > 2:
        e.set_input(1, e.add("Unsqueeze", e.input(1), e.const(range(1, rank - 1))))


@adapters(7, "Gemm", "Dropout", "BatchNormalization", "RNN", "GRU", "LSTM")
def hints_are_gone(e: Edit) -> None:
    for name in ("broadcast", "is_test", "output_sequence"):
        e.take(name)


@adapters(7, "Upsample")
def scales_are_a_list(e: Edit) -> None:
    mode = e.get("mode", "nearest")
    e.set(scales=[1.0, 1.0, e.take("height_scale", 1.0), e.take("width_scale", 1.0)], mode="linear" if mode == "bilinear" else mode)


# ---- versions 9 and 10

@adapters(9, "BatchNormalization")
def statistics_per_element(e: Edit) -> None:
    """`spatial=0` normalised every element with its own statistics: the formula itself broadcasts."""
    if e.take("spatial", 1):
        return
    x, scale, bias, mean, variance = (e.input(index) for index in range(5))
    spread = e.add("Sqrt", e.add("Add", variance, e.const(e.get("epsilon", 1e-5), e.numpy_type())))
    e.become("Add", e.add("Mul", e.add("Div", e.add("Sub", x, mean), spread), scale), bias)


@adapters(9, "Upsample")
def scales_are_an_input(e: Edit) -> None:
    e.to_input("scales", 1, np.float32)


@adapters(9, "Scan")
def batches_are_gone(e: Edit) -> None:
    e.block("Scan of opset 8 runs its body for every sample of a batch, which has no equivalent")


@adapters(10, "Upsample")
def upsample_is_a_resize(e: Edit) -> None:
    e.node.op_type = "Resize"


@adapters(10, "Slice")
def bounds_are_inputs(e: Edit) -> None:
    for index, name in enumerate(("starts", "ends", "axes"), 1):
        e.to_input(name, index)


@adapters(10, "TopK")
def k_is_an_input(e: Edit) -> None:
    e.to_input("k", 1)


@adapters(10, "Dropout")
def mask_is_boolean(e: Edit) -> None:
    if e.used(1):
        e.after(1, "Cast", to=int(e.dtype() or ir.DataType.FLOAT))


# ---- operators that were experimental and went away with version 10

@adapters(10, "Affine")
def affine(e: Edit) -> None:
    alpha, beta = (e.const(e.get(name, default), e.numpy_type()) for name, default in (("alpha", 1.0), ("beta", 0.0)))
    e.become("Add", e.add("Mul", e.input(0), alpha), beta)


@adapters(10, "ImageScaler")
def image_scaler(e: Edit) -> None:
    bias = e.const(np.asarray(e.get("bias", [0.0]), e.numpy_type()).reshape(-1, 1, 1))
    e.become("Add", e.add("Mul", e.input(0), e.const(e.get("scale", 1.0), e.numpy_type())), bias)


@adapters(10, "Scale")
def scale(e: Edit) -> None:
    e.become("Mul", e.input(0), e.const(e.get("scale", 1.0), e.numpy_type()))


@adapters(10, "ScaledTanh")
def scaled_tanh(e: Edit) -> None:
    inner = e.add("Tanh", e.add("Mul", e.input(0), e.const(e.get("beta", 1.0), e.numpy_type())))
    e.become("Mul", inner, e.const(e.get("alpha", 1.0), e.numpy_type()))


@adapters(10, "ParametricSoftplus")
def parametric_softplus(e: Edit) -> None:
    inner = e.add("Softplus", e.add("Mul", e.input(0), e.const(e.get("beta", 1.0), e.numpy_type())))
    e.become("Mul", inner, e.const(e.get("alpha", 1.0), e.numpy_type()))


@adapters(10, "Crop")
def crop(e: Edit) -> None:
    """`border` is left, top, right, bottom; `scale` is the height and width to keep instead of right and bottom."""
    left, top, right, bottom = e.get("border")
    kept = e.get("scale")
    ends = [top + kept[0], left + kept[1]] if kept else [-bottom or np.iinfo(np.int64).max, -right or np.iinfo(np.int64).max]
    e.become("Slice", e.input(0), e.const([top, left]), e.const(ends), e.const([2, 3]))


# ---- version 11

@adapters(11, "Clip")
def bounds_may_be_computed(e: Edit) -> None:
    dtype = e.numpy_type()
    for index, name in enumerate(("min", "max"), 1):
        e.to_input(name, index, dtype, vector=False)


@adapters(11, "Pad")
def pads_may_be_computed(e: Edit) -> None:
    dtype = e.numpy_type()
    e.to_input("pads", 1)
    e.to_input("value", 2, dtype, vector=False)


@adapters(11, "Resize")
def coordinates_are_explicit(e: Edit) -> None:
    """Version 10 mapped coordinates without a shift and, in ONNX Runtime, rounded down when enlarging and up when shrinking."""
    scales = e.constant(1)
    shrinks = scales is not None and bool((scales < 1).any())
    e.node.resize_inputs(3)
    e.set_input(2, e.input(1))
    e.set_input(1, None)
    e.set(coordinate_transformation_mode="asymmetric", nearest_mode="ceil" if shrinks else "floor")


@adapters(11, "Scatter")
def scatter_has_a_new_name(e: Edit) -> None:
    e.node.op_type = "ScatterElements"


# ---- versions 12 and 13

@adapters(12, "Dropout")
def ratio_is_an_input(e: Edit) -> None:
    e.to_input("ratio", 1, e.numpy_type(), vector=False)


@adapters(13, "Softmax", "LogSoftmax", "Hardmax")
def one_axis_instead_of_two_dimensions(e: Edit) -> None:
    """The input was seen as a matrix whose rows begin at `axis`; now only that one axis is normalised."""
    axis, sizes = e.take("axis", 1), e.dims(0)
    rank = None if sizes is None else len(sizes)
    e.set(axis=-1)
    if axis == -1 or (rank is not None and axis % max(rank, 1) == rank - 1):
        return
    if sizes is not None and all(size == 1 for size in sizes[axis % rank + 1:]):
        e.set(axis=axis)
        return
    x = e.input(0)
    e.set_input(0, e.add("Flatten", x, axis=axis))
    e.after(0, "Reshape", e.add("Shape", x))


@adapters(13, "Squeeze", "Unsqueeze", "ReduceSum")
@adapters(18, *REDUCE)
def axes_are_an_input(e: Edit) -> None:
    e.to_input("axes", 1)


@adapters(13, "Split")
def sizes_are_an_input(e: Edit) -> None:
    e.to_input("split", 1)


@adapters(13, "Resize")
def empty_inputs_are_absent(e: Edit) -> None:
    """`roi` and `scales` had to be given, if only as empty tensors."""
    if e.get("coordinate_transformation_mode") == "tf_half_pixel_for_nn":
        e.block("coordinate_transformation_mode tf_half_pixel_for_nn has no equivalent after opset 12")
    for index in (1, 2):
        if e.dims(index) == [0]:
            e.set_input(index, None)


# ---- versions 14 to 21

@adapters(14, "BatchNormalization")
def training_is_explicit(e: Edit) -> None:
    """More than one output meant training."""
    if e.used(3) or e.used(4):
        e.block("its saved mean and variance are used, which have no equivalent")
    if e.used(1) or e.used(2):
        e.set(training_mode=1)
    e.node.resize_outputs(3 if e.get("training_mode") else 1)


@adapters(16, "RoiAlign")
def half_pixel_is_the_default(e: Edit) -> None:
    e.set(coordinate_transformation_mode=e.get("coordinate_transformation_mode", "output_half_pixel"))


@adapters(18, "Split")
def number_of_outputs_is_stated(e: Edit) -> None:
    if e.input(1) is None:
        e.set(num_outputs=len(e.node.outputs))


@adapters(20, "DFT")
def axis_may_be_computed(e: Edit) -> None:
    e.set(axis=e.get("axis", 1))
    e.to_input("axis", 2, vector=False)


@adapters(20, "GridSample")
def modes_for_any_rank(e: Edit) -> None:
    e.set(mode={"bilinear": "linear", "bicubic": "cubic"}.get(e.get("mode", "bilinear"), e.get("mode", "bilinear")))


@adapters(21, "GroupNormalization")
def scale_per_channel(e: Edit) -> None:
    """Scale and bias had one element a group and have one a channel."""
    groups, sizes = e.get("num_groups"), e.dims(0)
    for index in (1, 2):
        value = e.input(index)
        channels = sizes[1] if sizes is not None else None
        if channels is not None and value.const_value is not None and value.is_initializer():
            tensor = lazily(lambda array, times=channels // groups: np.repeat(array, times), value.const_value, dims=[channels])
            wide = ir.Value(name=e.walk.unique(f"{value.name}/per_channel"), type=value.type, shape=ir.Shape([channels]), const_value=tensor)
            tensor.name = wide.name
            e.graph.register_initializer(wide)
            e.set_input(index, wide)
            continue
        all_channels = e.add("Shape", e.input(0), start=1, end=2)
        target = e.add("Concat", e.const([groups]), e.add("Div", all_channels, e.const([groups])), axis=0)
        e.set_input(index, e.add("Reshape", e.add("Expand", e.add("Unsqueeze", value, e.const([1])), target), e.const([-1])))


# ---- ai.onnx.ml

@ml_adapters(2, "LabelEncoder")
def keys_and_values(e: Edit) -> None:
    """One list of classes became keys and values: text to its place in the list, or a place to its text."""
    classes = e.take("classes_strings", ())
    text, number = e.take("default_string", "_Unused"), e.take("default_int64", -1)
    places: Any = list(range(len(classes)))
    if e.dtype() == ir.DataType.STRING:
        e.set(keys_strings=classes, values_int64s=places, default_int64=number)
    elif e.dtype() is None:
        e.block("the type of its input is not known")
    else:
        e.set(keys_int64s=places, values_strings=classes, default_string=text)


def overridable(model: ir.Model, where: str) -> list[Finding]:
    """A finding for each initializer that is an input as well: its caller may override it, which few formats can express."""
    return [Finding("input.default", Severity.INFO, f"{where}, {value.name}", "an input with a default value") for value in model.graph.inputs
            if value.is_initializer()]

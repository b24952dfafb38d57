"""Everything that is known before the model runs is computed now: constants, shapes, branches. One walk in topological order."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx_ir as ir
from onnx.reference import ReferenceEvaluator

from isomorph.dialects._lower import constant
from isomorph.passes import shapes, types
from isomorph.report import Finding, Severity
from isomorph.tensors import BITS, array_tensor, dims_of, lazily
from isomorph.wire.limits import DEFAULT, Limits

NOT_CONSTANT = {
    "RandomNormal", "RandomUniform", "RandomNormalLike", "RandomUniformLike", "Bernoulli", "Multinomial", "Dropout", "If", "Loop", "Scan", "SequenceMap",
    "DequantizeLinear", "ImageDecoder", "OptionalHasElement", "OptionalGetElement", "Optional"}
EAGER_BYTES = 1 << 16  # larger results are recomputed when they are written and never kept
GROWTH = 4  # a folded constant may not be larger than its inputs by more than this: a file must not swell


def fold(graph: ir.Graph, limits: Limits = DEFAULT) -> None:
    """Infers types and shapes, turns nodes over constants into constants, and takes the branch of an If whose condition is known."""
    for value in (*graph.inputs, *graph.outputs):
        if value.shape is not None and any(isinstance(dim, int) and dim < 0 for dim in value.shape):
            value.shape = ir.Shape([None if isinstance(dim, int) and dim < 0 else dim for dim in value.shape])  # some exporters write -1
    for node in list(graph):
        if node.graph is not None:
            _visit(node, limits)


def _visit(node: ir.Node, limits: Limits) -> None:
    if node.domain == "" and node.op_type == "Constant":
        return _lift(node)
    if node.domain == "" and node.op_type == "Identity" and node.inputs[0] is not None and not node.outputs[0].is_graph_output():
        node.outputs[0].replace_all_uses_with(node.inputs[0])
        node.graph.remove(node, safe=True)
        return None
    if node.domain == "" and node.op_type in BODIES:
        return BODIES[node.op_type](node, limits)
    shapes.infer_node(node)
    shapes.learn(node)
    if _foldable(node, limits):
        _evaluate(node)
        return None
    for value in node.outputs:
        elements = value.meta.get("known")
        if shapes.is_number(elements) and value.uses():
            # A shape that turned out to be a number.
            array = np.asarray(elements, value.dtype.numpy()).reshape([x for x in value.shape if isinstance(x, int)])
            _become(value, array_tensor(array))
    if node.domain == "" and node.op_type == "Reshape":
        _settle_reshape(node)
    return None


def _lift(node: ir.Node) -> None:
    name, attribute = next(iter(node.attributes.items()))
    if name == "value":
        tensor = attribute.value
    elif name in ("value_float", "value_floats"):
        tensor = array_tensor(np.asarray(attribute.value, np.float32))
    elif name in ("value_int", "value_ints"):
        tensor = array_tensor(np.asarray(attribute.value, np.int64))
    elif name in ("value_string", "value_strings"):
        tensor = array_tensor(np.asarray(attribute.value, object))
    else:
        return  # sparse_value stays a node
    _become(node.outputs[0], tensor)
    if not node.outputs[0].uses() and not node.outputs[0].is_graph_output():
        node.graph.remove(node, safe=True)


def _become(value: ir.Value, tensor: Any) -> ir.Value:
    """A new initializer takes over the uses of a computed value. A graph output keeps its node, which now copies the constant."""
    graph = value.producer().graph
    name = value.name or f"constant_{id(value)}"
    fresh = ir.Value(name=name + "/constant", type=ir.TensorType(tensor.dtype), shape=ir.Shape(dims_of(tensor)), const_value=tensor)
    while fresh.name in graph.initializers:
        fresh.name += "_"
    graph.register_initializer(fresh)
    for use in list(value.uses()):
        use.node.replace_input_with(use.idx, fresh)
    if value.is_graph_output():
        copy = ir.node("Identity", [fresh])
        copy.outputs[0].name, value.name = value.name, None
        copy.outputs[0].type, copy.outputs[0].shape = ir.TensorType(tensor.dtype), ir.Shape(tensor.shape)
        graph.insert_before(value.producer(), copy)
        value.replace_all_uses_with(copy.outputs[0], replace_graph_outputs=True)
    return fresh


def _foldable(node: ir.Node, limits: Limits) -> bool:
    if shapes.schema_of(node) is None or node.op_type in NOT_CONSTANT or node.op_type == "Identity" or not node.outputs:
        return False
    if not all(value is None or (value.is_initializer() and value.const_value is not None and not value.is_graph_input()) for value in node.inputs):
        return False
    if node.op_type == "Cast" and types.is_compact(node.inputs[0], ir.DataType(node.attributes.get_int("to"))):
        return False
    size = 0
    for value in node.outputs:
        sizes = shapes.dims(value)
        if value.dtype is None or ((sizes is None or not all(isinstance(x, int) for x in sizes)) and value.uses()):
            return _small(node)
        if sizes is not None:
            size += math.prod(x for x in sizes if isinstance(x, int)) * max(8, BITS[int(value.dtype)]) // 8
    given = sum(value.const_value.nbytes for value in node.inputs if value is not None)
    return size <= limits.fold_bytes and (size <= EAGER_BYTES or size <= GROWTH * given or (_small(node) and size <= EAGER_BYTES))


def _small(node: ir.Node) -> bool:
    """Results of unknown size are computed only where no input can ask for a large one."""
    return node.op_type not in (
        "ConstantOfShape", "Expand", "Tile", "Range", "Resize", "Pad", "OneHot", "EyeLike", "Upsample", "CenterCropPad", "BlackmanWindow", "HannWindow",
        "HammingWindow", "MelWeightMatrix") and all(value is None or value.const_value.nbytes <= EAGER_BYTES for value in node.inputs)


def _evaluate(node: ir.Node) -> None:
    names = {value.name: value for value in node.inputs if value is not None}

    def compute(*arrays: np.ndarray, index: int = 0) -> np.ndarray:
        return np.asarray(_results(node_proto, dict(zip(names, arrays, strict=True)))[index])

    node_proto = ir.serde.serialize_node(node)
    tensors = [value.const_value for value in names.values()]
    first = node.outputs[0]
    # The same operation on the same constants is one constant, however often an exporter wrote it.
    twin = (
        node.op_type,
        node.domain,
        str(sorted((name, str(attribute)) for name, attribute in node.attributes.items())),
        tuple(id(tensor) for tensor in tensors),
    )
    folded = node.graph.meta.setdefault("folded", {})
    if twin in folded and len(node.outputs) == 1 and not first.is_graph_output() and folded[twin][0].graph is node.graph:
        first.replace_all_uses_with(folded[twin][0])
        node.graph.remove(node, safe=True)
        return
    sizes: Any = shapes.dims(first)
    if len(node.outputs) == 1 and sizes is not None and None not in sizes and math.prod(sizes) * 4 > EAGER_BYTES and first.dtype != ir.DataType.STRING:
        folded[twin] = _become(first, lazily(compute, *tensors, dims=sizes, element_type=int(first.dtype))), tensors
    else:
        try:
            results = _results(node_proto, {name: tensor.numpy() for name, tensor in zip(names, tensors, strict=True)})
        except Exception:  # the reference implementation raises whatever its NumPy code does; the node then stays as it is
            return
        for value, result in zip(node.outputs, results, strict=False):
            if value.name and isinstance(result, (np.ndarray, np.generic)) and value.uses():
                array = np.asarray(result)
                if value.dtype is not None and value.dtype != ir.DataType.STRING:
                    array = array.astype(value.dtype.numpy(), copy=False)
                _become(value, array_tensor(array))
    if not any(value.uses() or value.is_graph_output() for value in node.outputs):
        node.graph.remove(node, safe=True)


def _results(node_proto: Any, arrays: dict[str, np.ndarray]) -> list[Any]:
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(node_proto, opsets=shapes.OPSETS).run(None, arrays))


def _settle_reshape(node: ir.Node) -> None:
    """A target shape with at most one unknown size needs no run-time shape: 0 copies a size from the same axis, -1 is the rest."""
    target, source, out = shapes.known(node.inputs[1]), shapes.dims(node.inputs[0]), shapes.dims(node.outputs[0])
    if target is None or out is None or node.inputs[1].is_initializer() or node.attributes.get_int("allowzero", False):
        return
    sizes: list[int] = []
    for axis, size in enumerate(out):
        same = source is not None and axis < len(source) and size is not None and size == source[axis]
        sizes.append(size if isinstance(size, int) else 0 if same else -1)
    if sizes.count(-1) + sizes.count(0) == 1:
        sizes = [-1 if size == 0 else size for size in sizes]
    if sizes.count(-1) <= 1 and not any(isinstance(size, int) and size == 0 for size in out):
        name = f"{node.outputs[0].name}/shape"
        fresh = ir.Value(name=name, type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([len(sizes)]), const_value=array_tensor(np.asarray(sizes, np.int64)))
        if name not in node.graph.initializers:
            node.graph.register_initializer(fresh)
            node.replace_input_with(1, fresh)


# ---- control flow


def _if(node: ir.Node, limits: Limits) -> None:
    branches = [node.attributes["then_branch"].value, node.attributes["else_branch"].value]
    condition = constant(node.inputs[0])
    if condition is not None:
        return _inline(node, branches[0 if condition.reshape(-1)[0] else 1], limits)
    for branch in branches:
        fold(branch, limits)
    squeeze = _squeeze_idiom(branches)
    if squeeze is not None:
        node.graph.meta.setdefault("findings", []).append(
            Finding(
                "branch.assumed",
                Severity.MEDIUM,
                node.name or node.outputs[0].name or "If",
                f"the axis that {squeeze.name or 'Squeeze'} removes is taken to have size 1; other sizes would change the rank of everything after it",
                "give the input shapes if the axis has another size: --input-shape NAME=SHAPE",
            )
        )
        return _inline(node, squeeze.graph, limits)
    for value, *results in zip(node.outputs, *(branch.outputs for branch in branches), strict=True):
        _agree(value, results)


def _squeeze_idiom(branches: list[ir.Graph]) -> ir.Node | None:
    """torch.squeeze(axis) of a size that the exporter did not know: an If between Squeeze and Identity of the same value."""
    for mine, other in (branches, branches[::-1]):
        if len(mine) == 1 and mine[0].op_type == "Squeeze" and len(mine.outputs) == len(other.outputs) == 1:
            result = other.outputs[0]
            source = result.producer().inputs[0] if result.producer() is not None and result.producer().op_type == "Identity" and len(other) == 1 else result
            if source is mine[0].inputs[0]:
                return mine[0]
    return None


def _agree(value: ir.Value, results: list[ir.Value]) -> None:
    """The type of a value that has several sources: equal dimensions stay, others become unknown."""
    if value.type is None:
        value.type = results[0].type
    sizes = [shapes.dims(result) for result in results]
    if all(size is not None for size in sizes) and len({len(size) for size in sizes}) == 1:
        value.shape = ir.Shape([options[0] if len(set(options)) == 1 else None for options in zip(*sizes, strict=True)])


def _inline(node: ir.Node, branch: ir.Graph, limits: Limits) -> None:
    """Moves the nodes of a branch to where its If stood."""
    graph = node.graph
    taken = set(graph.initializers) | {value.name for other in graph for value in other.outputs} | {value.name for value in graph.inputs}
    for value in list(branch.initializers.values()):
        tensor = value.const_value
        fresh = ir.Value(name=_free(value.name, taken), type=ir.TensorType(tensor.dtype), shape=ir.Shape(dims_of(tensor)), const_value=tensor)
        value.replace_all_uses_with(fresh, replace_graph_outputs=True)
        graph.register_initializer(fresh)
    nodes, outputs = list(branch), list(branch.outputs)
    while branch.outputs:
        branch.outputs.pop()
    branch.remove(nodes)
    for inner in nodes:
        for value in inner.outputs:
            value.name = _free(value.name, taken)
    graph.insert_before(node, nodes)
    for value, result in zip(node.outputs, outputs, strict=True):
        if value.is_graph_output():
            copy = ir.node("Identity", [result])
            copy.outputs[0].name, value.name = value.name, None
            copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
            graph.insert_before(node, copy)
            result = copy.outputs[0]
        value.replace_all_uses_with(result, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    for inner in nodes:
        if inner.graph is not None:
            _visit(inner, limits)


def _free(name: str | None, taken: set[str | None]) -> str:
    candidate = base = name or "value"
    count = 0
    while candidate in taken:
        count += 1
        candidate = f"{base}_{count}"
    taken.add(candidate)
    return candidate


def _loop(node: ir.Node, limits: Limits) -> None:
    """Carried values keep only what holds in every round; scan outputs gain the round as first dimension."""
    body = node.attributes["body"].value
    carried = list(node.inputs[2:])
    for inner, outer in zip(body.inputs[2:], carried, strict=True):
        if outer is not None:
            inner.type = inner.type or outer.type
            if inner.shape is None and outer.shape is not None:
                inner.shape = ir.Shape([None] * len(outer.shape))
    fold(body, limits)
    for inner, start, result in zip(body.inputs[2:], carried, body.outputs[1:], strict=False):
        if start is not None and shapes.dims(start) is not None and shapes.dims(start) == shapes.dims(result) and None not in shapes.dims(start):
            inner.shape = ir.Shape(shapes.dims(start))
    for index, (value, result) in enumerate(zip(node.outputs, body.outputs[1:], strict=True)):
        value.type = value.type or result.type
        sizes = shapes.dims(result)
        if index < len(carried):
            if carried[index] is not None:
                _agree(value, [carried[index], result])
        elif sizes is not None:
            count = constant(node.inputs[0]) if len(node.inputs) and node.inputs[0] is not None and constant(node.inputs[1]) is not None else None
            value.shape = ir.Shape([None if count is None or shapes.known(body.outputs[0]) is None else int(count), *sizes])


def _scan(node: ir.Node, limits: Limits) -> None:
    body, scanned = node.attributes["body"].value, node.attributes["num_scan_inputs"].value
    states = len(node.inputs) - scanned
    axes = node.attributes["scan_input_axes"].value if "scan_input_axes" in node.attributes else [0] * scanned
    for index, (inner, outer) in enumerate(zip(body.inputs, node.inputs, strict=True)):
        inner.type = inner.type or outer.type
        sizes = shapes.dims(outer)
        if inner.shape is None and sizes is not None:
            inner.shape = ir.Shape(sizes if index < states else [x for axis, x in enumerate(sizes) if axis != axes[index - states] % len(sizes)])
    fold(body, limits)
    length = shapes.dims(node.inputs[states])
    out_axes = node.attributes["scan_output_axes"].value if "scan_output_axes" in node.attributes else [0] * (len(node.outputs) - states)
    for index, (value, result) in enumerate(zip(node.outputs, body.outputs, strict=True)):
        value.type = value.type or result.type
        sizes = shapes.dims(result)
        if sizes is not None and value.shape is None:
            if index >= states:
                sizes.insert(out_axes[index - states] % (len(sizes) + 1), None if length is None else length[axes[0] % len(length)])
            value.shape = ir.Shape(sizes)


BODIES = {"If": _if, "Loop": _loop, "Scan": _scan}

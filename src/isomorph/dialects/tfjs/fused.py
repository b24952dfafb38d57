"""Layers of TensorFlow.js that are one operator with their bias and activation: taken apart when read, put together when written."""

from __future__ import annotations

import onnx_ir as ir

from isomorph.dialects._lower import Mapping, rewrite

# fused operator -> the operator alone, and the attributes that belong to it
LAYERS = {
    "_FusedConv2D": ("Conv2D", ("strides", "padding", "data_format", "explicit_paddings", "dilations")),
    "FusedDepthwiseConv2dNative": ("DepthwiseConv2dNative", ("strides", "padding", "data_format", "explicit_paddings", "dilations")),
    "_FusedMatMul": ("MatMul", ("transpose_a", "transpose_b")),
}
FUSED = {alone: (fused, kept) for fused, (alone, kept) in LAYERS.items()}
ACTIVATIONS = {"Relu", "Relu6", "Elu", "Prelu", "LeakyRelu", "Sigmoid", "Tanh"}
NORMALISATION = "FusedBatchNorm"

apart = Mapping("tf")


@apart("Prelu")
def prelu(op, x, slope, **rest):
    """max(x, 0) + slope * min(x, 0)"""
    zero = op.const(0.0, like=x.dtype)
    return op.AddV2(op.Maximum(x, zero), op.Mul(slope, op.Minimum(x, zero)))


def _layer(fused: str) -> None:
    alone, kept = LAYERS[fused]

    def rule(op, x, weight, *more, fused_ops=(), leakyrelu_alpha=0.2, **attributes):
        names, extra = [name for name in fused_ops if name], list(more)
        y = op.make(alone, [x, weight], {name: value for name, value in attributes.items() if name in kept}, domain="tf")
        for name in names:
            if name == "BiasAdd":
                y = op.BiasAdd(y, extra.pop(0), data_format=attributes.get("data_format", "NHWC"))
            elif name == "Prelu":
                y = prelu(op, y, extra.pop(0))
            elif name == "LeakyRelu":
                y = op.LeakyRelu(y, alpha=float(leakyrelu_alpha))
            elif name in ACTIVATIONS:
                y = op.make(name, [y], {}, domain="tf")
            else:
                op.reject(f"the fused operator {name}")
        return y

    apart(fused)(rule)


for _fused in LAYERS:
    _layer(_fused)


def take_apart(graph: ir.Graph) -> None:
    """Puts plain operators of TensorFlow for the fused ones, in place. One that cannot be taken apart stays, and its reader says so."""
    rewrite(graph, apart, "tf", keep=lambda node: True)


def told_apart(graph: ir.Graph) -> None:
    """Marks what TensorFlow.js computes in another way than TensorFlow: soft suppression leaves out boxes that overlap too much."""
    for node in graph:
        if node.op_type == "NonMaxSuppressionV5":
            node.attributes["hard"] = ir.AttrInt64("hard", 1)


def put_together(graph: ir.Graph) -> None:
    """Joins a bias and then an activation to the layer before them, in place, where nothing else reads what stands between."""
    for each in (graph, *graph.subgraphs()):
        for node in list(each):
            if node.op_type in FUSED and node.domain == "tf":
                _join(each, node)


def _join(graph: ir.Graph, node: ir.Node) -> None:
    bias = _only_reader(node, {"BiasAdd"})
    if bias is None or bias.inputs[1] is None or bias.inputs[1].producer() is not None:
        return
    # The kernel of depthwise convolutions forgets the slope of LeakyRelu, and its results are NaN.
    activation = _only_reader(bias, {"Relu", "Relu6", "Elu", "Sigmoid"} | ({"LeakyRelu"} if node.op_type != "DepthwiseConv2dNative" else set()))
    last = activation or bias
    fused, kept = FUSED[node.op_type]
    names = ["BiasAdd", *([activation.op_type] if activation is not None else [])]
    attributes: list[ir.Attr] = [attribute for name, attribute in node.attributes.items() if name in kept]
    attributes += [ir.AttrStrings("fused_ops", names), ir.AttrInt64("num_args", 1), ir.AttrFloat32("epsilon", 0.0)]
    if activation is not None and activation.op_type == "LeakyRelu":
        attributes.append(ir.AttrFloat32("leakyrelu_alpha", activation.attributes.get_float("alpha", 0.2)))
    made = ir.Node("tf", fused, [*node.inputs[:2], bias.inputs[1]], attributes, num_outputs=1, name=last.name)
    out, old = made.outputs[0], last.outputs[0]
    graph.insert_after(last, made)
    out.type, out.shape, out.name, old.name = old.type, old.shape, old.name, None
    out.meta.update(old.meta)
    old.replace_all_uses_with(out, replace_graph_outputs=True)
    for each in (activation, bias, node):
        if each is not None:
            graph.remove(each, safe=True)


def _only_reader(node: ir.Node, names: set[str]) -> ir.Node | None:
    """What alone reads the node's output, where it is one of these operators and reads it first."""
    value = node.outputs[0]
    uses = list(value.uses())
    if len(uses) != 1 or value.is_graph_output() or uses[0].idx != 0 or uses[0].node.op_type not in names or uses[0].node.graph is not node.graph:
        return None
    return uses[0].node

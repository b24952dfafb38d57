"""Dequantize -> operator -> Quantize becomes one integer kernel, so that a quantised model stays one.

Three steps on the ONNX graph in kernel form: unsigned activations beside signed weights become signed; Dequantize sinks and Quantize rises through
operators that only move elements; then every operator between them takes the integers themselves. Values of such operators carry their
parameters in `meta["quantization"]`, the operators carry `meta["quantized"]`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant
from isomorph.model import Quantization
from isomorph.passes.tidy import scalar, single_use
from isomorph.tensors import array_tensor, lazily

T = ir.DataType
SMALL, WIDE = frozenset({T.INT8, T.UINT8}), frozenset({T.INT8, T.UINT8, T.INT16})

MOVES = {
    "Reshape", "Transpose", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Gather", "GatherND", "Expand", "Tile", "ReverseAxis", "Split", "Pad", "MaxPool",
    "DepthToSpace", "SpaceToDepth", "ResizeSpatial", "Identity"}
# Integer kernels: the types they take, and whether all quantised inputs and outputs must have the same parameters.
COMPUTES: dict[str, tuple[frozenset[ir.DataType], bool]] = {
    **dict.fromkeys(
        (
            "Add", "Sub", "Mul", "Conv", "TransposedConv", "FullyConnected", "MatMul", "ReduceMean", "Softmax", "Sigmoid", "Tanh", "LeakyRelu", "Relu",
            "ReduceSum"),
        (WIDE, False),
    ),
    **dict.fromkeys(("HardSwish", "PRelu", "Relu6", "LogSoftmax", "SquaredDifference"), (SMALL, False)),
    **dict.fromkeys(("Abs", "Rsqrt", "Elu", "Gelu"), (frozenset({T.INT8}), False)),
    **dict.fromkeys(("AveragePool", "Concat", "Max", "Min", "ReduceMax", "ReduceMin"), (WIDE, True)),
}
# Kernels whose result has one scale by definition: (scale, zero point of int8, of uint8, of int16).
FIXED = {"Softmax": (1 / 256, -128, 0), "Sigmoid": (1 / 256, -128, 0), "Tanh": (1 / 128, 0, 128), "LogSoftmax": (16 / 256, 127, 255)}
FIXED_16 = {"Softmax": 1 / 32768, "Sigmoid": 1 / 32768, "Tanh": 1 / 32768}
WEIGHTED = {"Conv": 0, "TransposedConv": 1, "FullyConnected": 0}
ACTIVATIONS = {"Relu": "RELU", "Relu6": "RELU6"}
CARRIES_ACTIVATION = {"Conv", "TransposedConv", "FullyConnected", "Add", "Sub", "Mul", "AveragePool", "MaxPool"}


def quantize(graph: ir.Graph) -> None:
    """Turns every quantised region of the graph and of its bodies into integer kernels."""
    for place, each in enumerate((*graph.subgraphs(), graph)):
        _Quantize(each, place).run()


def parameters(node: ir.Node) -> Quantization | None:
    """Of a Quantize or Dequantize with constant parameters."""
    scale = constant(node.inputs[1])
    if scale is None or node.attributes.get_int("block_size", False):
        return None
    zero = constant(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else np.zeros(scale.shape)
    if zero is None:
        return None
    axis = node.attributes.get_int("axis", 1) % max(len(node.inputs[0].shape or [0]), 1) if scale.size > 1 else 0
    return Quantization(scale.reshape(-1).astype(np.float32), np.asarray(zero, np.int64).reshape(-1), axis)


def _same(a: Quantization | None, b: Quantization | None) -> bool:
    return (
        a is not None
        and b is not None
        and np.array_equal(a.scale, b.scale)
        and np.array_equal(a.zero_point, b.zero_point)
        and (not a.per_axis or a.axis == b.axis)
    )


def _dequantize(value: ir.Value | None) -> ir.Node | None:
    producer = None if value is None else value.producer()
    return producer if producer is not None and producer.op_type == "DequantizeLinear" and producer.domain == "" and parameters(producer) is not None else None


def _quantizes(value: ir.Value) -> list[ir.Node]:
    """The Quantize nodes that are all that reads a value, where they agree; empty otherwise."""
    nodes = [use.node for use in value.uses()]
    if not nodes or value.is_graph_output() or any(node.op_type != "QuantizeLinear" or node.domain for node in nodes):
        return []
    found = [parameters(node) for node in nodes]
    same = all(_same(found[0], other) for other in found) and len({node.outputs[0].dtype for node in nodes}) == 1
    return nodes if same and found[0] is not None and not found[0].per_axis else []


def _quantizes_alike(node: ir.Node, quantization: Quantization, kind: ir.DataType) -> bool:
    return node.op_type == "QuantizeLinear" and node.outputs[0].dtype == kind and _same(parameters(node), quantization)


class _Quantize:
    def __init__(self, graph: ir.Graph, place: int):
        self.graph, self.place = graph, place
        self.count = 0

    def run(self) -> None:
        if not any(node.op_type == "DequantizeLinear" for node in self.graph):
            return
        self.signed()
        for _ in range(32):
            if not (self.sink() | self.rise()):
                break
        for node in list(self.graph):
            if node.graph is not None and node.domain == "" and node.op_type in COMPUTES and "quantized" not in node.meta:
                self.compute(node)
        self.sink()
        self.cancel()
        self.drop()
        self.spread()

    # -- small tools

    def name(self, base: str | None) -> str:
        self.count += 1
        return f"{base}/q{self.place}_{self.count}"

    def constant(self, array: Any, base: str | None, quantization: Quantization | None = None) -> ir.Value:
        tensor = array_tensor(array) if isinstance(array, (np.ndarray, np.generic)) else array
        value = ir.Value(name=self.name(base), type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor)
        tensor.name = value.name
        if quantization is not None:
            value.meta["quantization"] = quantization
        self.graph.register_initializer(value)
        return value

    def node(self, operator: str, inputs: list[ir.Value], like: ir.Value, dtype: ir.DataType) -> ir.Node:
        made = ir.node(operator, inputs)
        made.outputs[0].name, made.outputs[0].type, made.outputs[0].shape = self.name(like.name), ir.TensorType(dtype), like.shape
        return made

    def pair(self, quantization: Quantization, dtype: ir.DataType, base: str | None) -> list[ir.Value]:
        return [self.constant(quantization.scale.reshape(()), base), self.constant(quantization.zero_point.reshape(()).astype(dtype.numpy()), base)]

    # -- unsigned beside signed

    def signed(self) -> None:
        """The integer kernels want activations and weights of one sign: uint8 x is int8 x - 128 with the zero point moved along."""
        weights = {
            node.inputs[0].dtype
            for node in self.graph
            if node.op_type == "DequantizeLinear" and node.inputs[0].is_initializer() and len(node.inputs[0].shape) > 1
        }
        if T.INT8 not in weights:
            return
        for node in list(self.graph):
            if node.op_type not in ("QuantizeLinear", "DequantizeLinear") or node.domain:
                continue
            stored, found = node.outputs[0] if node.op_type == "QuantizeLinear" else node.inputs[0], parameters(node)
            if stored.dtype != T.UINT8 or found is None or found.per_axis:
                continue
            moved = Quantization(found.scale, found.zero_point - 128)
            producer = stored.producer()
            if node.op_type == "QuantizeLinear" and all(use.node.op_type == "DequantizeLinear" for use in stored.uses()) and not stored.is_graph_output():
                stored.dtype = T.INT8
                self.renew(node, moved)
                for use in list(stored.uses()):
                    self.renew(use.node, moved)
            elif node.op_type == "DequantizeLinear" and stored.is_initializer():
                node.replace_input_with(
                    0, self.constant(lazily(lambda a: (a.astype(np.int16) - 128).astype(np.int8), stored.const_value, element_type=int(T.INT8)), stored.name)
                )
                self.renew(node, moved)
            elif node.op_type == "DequantizeLinear" and (producer is None or producer.op_type != "QuantizeLinear"):
                self.behind(node, moved)
            elif node.op_type == "QuantizeLinear":
                self.ahead(node, moved)

    def renew(self, node: ir.Node, quantization: Quantization) -> None:
        scale, zero = self.pair(quantization, T.INT8, node.outputs[0].name)
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(1, scale)
        node.replace_input_with(2, zero)
        if "output_dtype" in node.attributes:
            node.attributes.pop("output_dtype")

    def behind(self, node: ir.Node, quantization: Quantization) -> None:
        """A signed pair behind the Dequantize of a value that comes from outside."""
        out = node.outputs[0]
        uses = list(out.uses())
        to = self.node("QuantizeLinear", [out, *self.pair(quantization, T.INT8, out.name)], out, T.INT8)
        back = self.node("DequantizeLinear", [to.outputs[0], *self.pair(quantization, T.INT8, out.name)], out, T.FLOAT)
        for use in uses:
            use.node.replace_input_with(use.idx, back.outputs[0])
        self.graph.insert_after(node, [to, back])

    def ahead(self, node: ir.Node, quantization: Quantization) -> None:
        """A signed pair in front of the Quantize of a value that goes outside."""
        x = node.inputs[0]
        to = self.node("QuantizeLinear", [x, *self.pair(quantization, T.INT8, x.name)], x, T.INT8)
        back = self.node("DequantizeLinear", [to.outputs[0], *self.pair(quantization, T.INT8, x.name)], x, T.FLOAT)
        self.graph.insert_before(node, [to, back])
        node.replace_input_with(0, back.outputs[0])

    # -- moving

    def sink(self) -> bool:
        """op(Dequantize(x)) -> Dequantize(op(x)) for operators that only move elements."""
        changed = False
        for node in list(self.graph):
            if node.graph is None or node.domain or node.op_type not in MOVES or "quantized" in node.meta:
                continue
            before = _dequantize(node.inputs[0])
            if before is None or before.inputs[0].is_initializer() or before.inputs[0].dtype not in WIDE or parameters(before).per_axis:
                continue
            quantization, kind = parameters(before), before.inputs[0].dtype
            if (node.op_type == "ResizeSpatial" and node.attributes.get_string("mode") == "linear" and kind == T.UINT8) or not self.moves_zero(
                node, quantization, kind
            ):
                continue
            node.replace_input_with(0, before.inputs[0])
            self.carry(before.inputs[0], quantization)
            node.meta["quantized"] = True
            for out in node.outputs:
                self.dequantized_after(node, out, quantization, kind)
            changed = True
        return changed

    def moves_zero(self, node: ir.Node, quantization: Quantization, kind: ir.DataType) -> bool:
        """A padding's value must be representable; zero is the zero point. -inf of a pool's padding is the least integer."""
        if node.op_type != "Pad":
            return True
        if node.attributes.get_string("mode", "constant") != "constant":
            return True
        value = scalar(node.inputs[2]) if len(node.inputs) > 2 and node.inputs[2] is not None else 0.0
        if value is None:
            return False
        info = np.iinfo(kind.numpy())
        stored = (
            int(quantization.zero_point[0])
            if value == 0
            else info.min
            if value == -np.inf
            else round(value / float(quantization.scale[0])) + int(quantization.zero_point[0])
        )
        if not info.min <= stored <= info.max:
            return False
        if len(node.inputs) < 3:
            node.resize_inputs(3)
        node.replace_input_with(2, self.constant(np.asarray(stored, kind.numpy()), node.outputs[0].name, quantization))
        return True

    @staticmethod
    def carry(value: ir.Value, quantization: Quantization) -> None:
        value.meta.setdefault("quantization", quantization)

    def dequantized_after(self, node: ir.Node, out: ir.Value, quantization: Quantization, kind: ir.DataType) -> None:
        """`out` now holds integers: its readers get it through a Dequantize, and a following equal Quantize gets it as it is."""
        is_output, uses = out.is_graph_output(), list(out.uses())
        again = [use.node for use in uses if _quantizes_alike(use.node, quantization, kind)]
        others = [use for use in uses if use.node not in again]
        out.dtype = kind
        self.carry(out, quantization)
        for reader in again:
            self.hand_over(reader.outputs[0], out, reader)
        if not others and not is_output:
            return
        back = self.node("DequantizeLinear", [out, *self.pair(quantization, kind, out.name)], out, T.FLOAT)
        for use in others:
            use.node.replace_input_with(use.idx, back.outputs[0])
        if is_output:
            back.outputs[0].name, out.name = out.name, self.name(out.name)
            for index, value in enumerate(list(self.graph.outputs)):
                if value is out:
                    self.graph.outputs[index] = back.outputs[0]
        self.graph.insert_after(node, back)

    def hand_over(self, old: ir.Value, new: ir.Value, owner: ir.Node) -> None:
        """The readers of `old` read `new`; a graph output keeps its name."""
        if old.is_graph_output():
            name = old.name
            old.name = self.name(name)
            old.replace_all_uses_with(new, replace_graph_outputs=True)
            new.name = name
        else:
            old.replace_all_uses_with(new)
        self.graph.remove(owner, safe=True)

    def rise(self) -> bool:
        """Quantize(op(x)) -> op(Quantize(x)) where x is computed in float."""
        changed = False
        for node in list(self.graph):
            if (
                node.graph is None
                or node.domain
                or node.op_type not in MOVES - {"Split", "Pad", "ResizeSpatial"}
                or len(node.outputs) != 1
                or "quantized" in node.meta
            ):
                continue
            after = _quantizes(node.outputs[0])
            if (
                not after
                or node.inputs[0].dtype != T.FLOAT
                or after[0].outputs[0].dtype not in WIDE
                or node.inputs[0].is_graph_input()
                or node.inputs[0].is_initializer()
            ):
                continue
            quantization, kind = parameters(after[0]), after[0].outputs[0].dtype
            x = node.inputs[0]
            first = self.node("QuantizeLinear", [x, *self.pair(quantization, kind, x.name)], x, kind)
            self.graph.insert_before(node, first)
            node.replace_input_with(0, first.outputs[0])
            node.meta["quantized"] = True
            self.carry(first.outputs[0], quantization)
            node.outputs[0].dtype = kind
            self.carry(node.outputs[0], quantization)
            for each in after:
                self.hand_over(each.outputs[0], node.outputs[0], each)
            changed = True
        return changed

    # -- computing

    def compute(self, node: ir.Node) -> None:
        allowed, equal = COMPUTES[node.op_type]
        data = [0, 1] if node.op_type in WEIGHTED else [i for i, value in enumerate(node.inputs) if value is not None and value.dtype == T.FLOAT]
        sources = {i: _dequantize(node.inputs[i]) for i in data}
        if any(source is None for source in sources.values()):
            return
        out, activation, passed = node.outputs[0], None, None
        if node.op_type in CARRIES_ACTIVATION and single_use(out) and next(iter(out.uses())).node.op_type in ACTIVATIONS:
            passed = next(iter(out.uses())).node
            activation, out = ACTIVATIONS[passed.op_type], passed.outputs[0]
        after = _quantizes(out)
        if not after or len(node.outputs) != 1:
            return
        result, kind = parameters(after[0]), after[0].outputs[0].dtype
        found = {i: parameters(source) for i, source in sources.items()}
        kinds = {i: source.inputs[0].dtype for i, source in sources.items()}
        if kind not in allowed or not self.fits(node, found, kinds, result, kind, equal):
            return
        if node.op_type in WEIGHTED and not self.bias(node, found[0], found[1], kind):
            return
        for i, source in sources.items():
            stored = source.inputs[0]
            if stored.is_initializer():
                stored = self.constant(stored.const_value, stored.name, found[i])
            self.carry(stored, found[i])
            node.replace_input_with(i, stored)
        node.meta["quantized"] = True
        if activation is not None:
            low = int(result.zero_point[0])
            if activation != "RELU" or low != np.iinfo(kind.numpy()).min:
                node.attributes["activation"] = ir.AttrString("activation", activation)
            out.replace_all_uses_with(node.outputs[0], replace_graph_outputs=True)
            self.graph.remove(passed, safe=True)
        node.outputs[0].dtype = kind
        node.outputs[0].meta["quantization"] = result
        for each in after:
            self.hand_over(each.outputs[0], node.outputs[0], each)

    def fits(self, node: ir.Node, found: dict[int, Quantization], kinds: dict[int, ir.DataType], result: Quantization, kind: ir.DataType, equal: bool) -> bool:
        weight = found.get(1) if node.op_type in WEIGHTED else None
        if any(q.per_axis for i, q in found.items() if q is not weight) or kinds[0] != kind:
            return False
        if node.op_type in WEIGHTED:
            axis = WEIGHTED[node.op_type]
            if node.op_type == "FullyConnected" and not node.attributes.get_int("transB", True):
                axis = 1
            signed = kinds[1] == T.INT8 and not weight.zero_point.any() and (not weight.per_axis or weight.axis == axis)
            return (signed if kind != T.UINT8 else kinds[1] == T.UINT8 and not weight.per_axis) and node.inputs[1].producer().inputs[0].is_initializer()
        if any(other != kind for other in kinds.values()):
            return False
        if node.op_type in FIXED:
            scale, signed_zero, unsigned_zero = FIXED[node.op_type]
            scale = FIXED_16.get(node.op_type, 0) if kind == T.INT16 else scale
            zero = 0 if kind == T.INT16 else signed_zero if kind == T.INT8 else unsigned_zero
            return bool(np.isclose(float(result.scale[0]), scale, rtol=1e-5, atol=0)) and int(result.zero_point[0]) == zero
        if node.op_type == "Mul" and kind == T.INT16 and any(q.zero_point.any() for q in (*found.values(), result)):
            return False
        return not equal or all(_same(q, result) for q in found.values())

    def bias(self, node: ir.Node, x: Quantization, w: Quantization, kind: ir.DataType) -> bool:
        """The bias as int32 (int64 beside int16) of scale x.scale * w.scale, zeros where there is none. False where it is not constant."""
        while len(node.inputs) < 3:
            node.resize_inputs(len(node.inputs) + 1)
        value = node.inputs[2]
        weight_axis = WEIGHTED[node.op_type] if node.op_type != "FullyConnected" or node.attributes.get_int("transB", True) else 1
        channels: Any = node.inputs[1].shape[weight_axis]
        quantization = Quantization((x.scale * w.scale).astype(np.float32), np.zeros(w.scale.size, np.int64), 0)
        source = _dequantize(value)
        integer = np.int64 if kind == T.INT16 else np.int32
        if source is not None and source.inputs[0].is_initializer():
            stored, given = source.inputs[0].const_value.numpy(), parameters(source)
            if stored.dtype == np.int32 and np.allclose(given.scale, quantization.scale, rtol=1e-5, atol=0):
                node.replace_input_with(2, self.constant(stored.astype(integer), value.name, quantization))
                return True
            real = (stored.astype(np.float64) - given.zero_point) * given.scale
        elif value is None:
            real = np.zeros(channels)
        elif constant(value) is not None:
            real = constant(value).astype(np.float64)
        else:
            return False
        rounded = np.round(np.broadcast_to(real.reshape(-1), (channels,)) / quantization.scale.astype(np.float64))
        info = np.iinfo(integer)
        node.replace_input_with(2, self.constant(np.clip(rounded, info.min, info.max).astype(integer), node.outputs[0].name, quantization))
        return True

    def spread(self) -> None:
        """Integers that an operator only moves have the same parameters before and behind it, also where no Dequantize stands."""
        nodes = [node for node in self.graph if node.domain == "" and node.op_type in MOVES and node.inputs[0] is not None and node.inputs[0].dtype in WIDE]
        for node in reversed(nodes):
            for out in node.outputs:
                if "quantization" in out.meta and not out.meta["quantization"].per_axis:
                    self.carry(node.inputs[0], out.meta["quantization"])
        for node in nodes:
            if "quantization" in node.inputs[0].meta and not node.inputs[0].meta["quantization"].per_axis:
                for out in node.outputs:
                    if out.dtype == node.inputs[0].dtype:
                        self.carry(out, node.inputs[0].meta["quantization"])

    def cancel(self) -> None:
        """Quantize(Dequantize(x)) with the same parameters is x."""
        for node in list(self.graph):
            before = _dequantize(node.inputs[0]) if node.graph is not None and node.op_type == "QuantizeLinear" and not node.domain else None
            if before is not None and _quantizes_alike(node, parameters(before), before.inputs[0].dtype) and not node.outputs[0].is_graph_output():
                self.hand_over(node.outputs[0], before.inputs[0], node)

    def drop(self) -> None:
        """Parameters that nodes lower to tensors; pairs that nobody reads any more go."""
        for node in reversed(list(self.graph)):
            if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not any(value.uses() or value.is_graph_output() for value in node.outputs):
                self.graph.remove(node, safe=True)

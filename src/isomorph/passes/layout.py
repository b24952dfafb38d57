"""Channels-first and channels-last: as few transposes as possible, by a minimum cut.

Every value can be stored as it is ("first") or moved, that is transposed by one fixed permutation for its rank. Operators that do not care
get one variable each; a value whose producer and consumers disagree costs one transpose of its size, however many consumers there are.
The minimum cut of that network chooses, and the graph is rewritten once. Works in either direction: towards channels-last when writing,
towards channels-first when reading. (The formulation follows google-ai-edge/litert-torch, optimize_layout_transposes_pass.)
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant
from isomorph.model import Quantization
from isomorph.tensors import array_tensor, lazily

Perm = tuple[int, ...]
LAST = "last"
RANKS = (3, 4, 5)


def to_last(rank: int) -> Perm:
    """[N, C, ...] -> [N, ..., C]"""
    return (0, *range(2, rank), 1)


def to_first(rank: int) -> Perm:
    """[N, ..., C] -> [N, C, ...]"""
    return (0, rank - 1, *range(1, rank - 1))


def inverse(perm: Sequence[int]) -> Perm:
    return tuple(int(i) for i in np.argsort(perm))


def wrap(graph: ir.Graph, wants: Callable[[ir.Node], bool]) -> None:
    """Gives every node that `wants` channels-last data exactly that, between two transposes, and marks it by the domain `last`."""
    for node in list(graph):
        if not wants(node) or not node.inputs or node.inputs[0] is None or node.inputs[0].shape is None:
            continue
        rank, result = len(node.inputs[0].shape), node.outputs[0].shape
        if rank not in RANKS or (result is not None and len(result) != rank):
            continue
        x = _transpose(node.inputs[0], to_last(rank))
        graph.insert_before(node, x)
        node.replace_input_with(0, x.outputs[0])
        y = node.outputs[0]
        back = ir.node("Transpose", [y], {"perm": list(to_first(rank))})
        y.replace_all_uses_with(back.outputs[0], replace_graph_outputs=True)
        back.replace_input_with(0, y)
        back.outputs[0].type, back.outputs[0].shape = y.type, y.shape
        back.outputs[0].name, y.name = y.name, f"{y.name}/last"
        if y.shape is not None:
            y.shape = ir.Shape([y.shape[i] for i in to_last(rank)])
        back.outputs[0].meta.update(y.meta)
        graph.insert_after(node, back)
        node.domain = LAST


def _transpose(value: ir.Value, perm: Sequence[int], shape: Any = None, quantization: Quantization | None = None) -> ir.Node:
    """A transpose of a value; its stored shape and quantisation are given where they are not the ones the value still carries."""
    node = ir.node("Transpose", [value], {"perm": list(perm)})
    out = node.outputs[0]
    out.name = f"{value.name}/{'_'.join(map(str, perm))}"
    out.type = value.type
    shape = value.shape if shape is None else shape
    out.shape = ir.Shape([shape[i] for i in perm]) if shape is not None else None
    quantization = quantization or value.meta.get("quantization")
    if quantization is not None:
        out.meta["quantization"] = _moved_quantization(quantization, perm)
    return node


def _moved_quantization(quantization: Quantization, perm: Sequence[int]) -> Quantization:
    return Quantization(quantization.scale, quantization.zero_point, list(perm).index(quantization.axis) if quantization.per_axis else 0)


# ---- what an operator needs to work on moved data

ELEMENTWISE = {
    "Abs", "Neg", "Exp", "Log", "Sqrt", "Rsqrt", "Sin", "Cos", "Floor", "Ceil", "Round", "Sign", "Tanh", "Sigmoid", "Relu", "Relu6", "Relu0To1", "HardSwish",
    "Not", "Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "And", "Or", "Xor", "Equal", "Greater", "GreaterOrEqual", "Less", "LessOrEqual", "Where",
    "BitwiseXor", "LeakyRelu", "Elu", "Gelu", "Cast", "Identity", "Clip", "Mod", "PRelu", "Erf", "Softplus", "Softsign", "HardSigmoid", "Selu", "Celu",
    "Swish", "Mish", "Tan", "Atan2", "FloorDiv", "SquaredDifference", "IsNaN", "IsInf", "Reciprocal", "Dropout", "BitwiseAnd", "BitwiseOr", "BitwiseNot",
    "BitShift", "Sum", "Mean", "ThresholdedRelu", "Shrink", "NotEqual", "Asin", "Acos", "Atan", "Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "CastLike"}
REDUCTIONS = {"ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceLogSum", "ReduceLogSumExp", "ReduceSumSquare"}
BY_AXIS_ATTRIBUTE = {"Concat": 0, "Split": 0, "Softmax": -1, "LogSoftmax": -1, "Gather": 0, "Hardmax": -1, "ReverseAxis": 0}
LAST_AXIS_ONLY = {"Softmax", "LogSoftmax"}


def _rank(value: ir.Value | None) -> int:
    return -1 if value is None or value.shape is None else len(value.shape)


def _reduced_axes(node: ir.Node) -> list[int] | None:
    if len(node.inputs) > 1 and node.inputs[1] is not None:
        array = constant(node.inputs[1])
        if array is None:
            return None
        if array.size:
            return [int(axis) % _rank(node.inputs[0]) for axis in array.reshape(-1)]
    return [] if node.attributes.get_int("noop_with_empty_axes", 0) else list(range(_rank(node.inputs[0])))


def transparent(node: ir.Node) -> bool:
    """Whether the node computes the same on moved data, after its axes are renamed."""
    op, rank = node.op_type, _rank(node.outputs[0]) if node.outputs else -1
    if node.domain != "" or rank not in RANKS or any(_rank(value) != rank for value in node.outputs if value.uses() or value.is_graph_output()):
        return False
    if op in ELEMENTWISE:
        return all(value is None or 0 <= _rank(value) <= rank for value in node.inputs)
    if any(value is not None and _rank(value) < 0 for value in node.inputs):
        return False
    if op == "Gather":
        return _rank(node.inputs[0]) == rank and _rank(node.inputs[1]) == 1 and constant(node.inputs[1]) is not None
    if op == "Split":
        return True
    if op in BY_AXIS_ATTRIBUTE:
        return all(_rank(value) == rank for value in node.inputs)
    if op in REDUCTIONS:
        return bool(node.attributes.get_int("keepdims", 1)) and _reduced_axes(node) is not None
    if op == "Slice":
        return all(value is None or constant(value) is not None for value in node.inputs[3:]) and (
            len(node.inputs) > 3 or all(constant(v) is not None for v in node.inputs[1:3])
        )
    if op == "Pad":
        return constant(node.inputs[1]) is not None and len(node.inputs) < 4
    if op in ("Expand", "Tile"):
        array = constant(node.inputs[1])
        return array is not None and len(array) == rank == _rank(node.inputs[0])
    if op == "CumSum":
        return constant(node.inputs[1]) is not None
    return op in ("QuantizeLinear", "DequantizeLinear") and not node.attributes.get_int("block_size", 0)


def _spatial_ones(shape: Any, perm: Perm) -> bool:
    """Whether moving a value of this shape changes nothing in memory: the axes longer than one keep their order."""
    sizes = [dim if isinstance(dim, int) else 0 for dim in shape]
    longer = [i for i in perm if sizes[i] != 1]
    return longer == sorted(longer)


def _regroups(node: ir.Node, moves: Callable[[int], Perm]) -> bool:
    """A reshape that keeps batch and channel and only regroups the rest, which moves along (from the layout that keeps channels in front)."""
    if node.op_type not in ("Reshape", "Squeeze", "Unsqueeze", "Flatten") or node.domain:
        return False
    x, y = node.inputs[0], node.outputs[0]
    if _rank(x) not in RANKS or _rank(y) not in RANKS or moves(4) != to_last(4):
        return False
    same = all(
        (isinstance(a, int) and a == b) or (not isinstance(a, int) and a.value is not None and a == b) for a, b in zip(x.shape[:2], y.shape[:2], strict=True)
    )
    return same and sum(not isinstance(dim, int) for dim in y.shape[2:]) <= 1 and (all(isinstance(dim, int) for dim in y.shape) or _one_unknown(y))


def _one_unknown(value: ir.Value) -> bool:
    return sum(not isinstance(dim, int) for dim in value.shape) <= 1


# ---- the network


class _Network:
    """Maximum flow by Dinic's algorithm; vertices are any hashable, S and T the terminals."""

    def __init__(self) -> None:
        self.ids: dict[Any, int] = {"S": 0, "T": 1}
        self.edges: list[list[int]] = []  # to, capacity; edge i ^ 1 is the reverse of edge i
        self.out: list[list[int]] = [[], []]

    def vertex(self, key: Any) -> int:
        if key not in self.ids:
            self.ids[key] = len(self.out)
            self.out.append([])
        return self.ids[key]

    def edge(self, a: Any, b: Any, capacity: int) -> None:
        u, v = self.vertex(a), self.vertex(b)
        self.out[u].append(len(self.edges))
        self.edges.append([v, capacity])
        self.out[v].append(len(self.edges))
        self.edges.append([u, 0])

    def _levels(self) -> list[int]:
        level = [-1] * len(self.out)
        level[0] = 0
        queue = deque([0])
        while queue:
            u = queue.popleft()
            for e in self.out[u]:
                v, capacity = self.edges[e]
                if capacity > 0 and level[v] < 0:
                    level[v] = level[u] + 1
                    queue.append(v)
        return level

    def cut(self) -> Callable[[Any], bool]:
        """After the flow: whether a vertex stays connected to T, that is, is moved."""
        while True:
            level = self._levels()
            if level[1] < 0:
                return lambda key: key in self.ids and level[self.ids[key]] < 0
            cursor = [0] * len(self.out)
            while self._augment(level, cursor):
                pass

    def _augment(self, level: list[int], cursor: list[int]) -> bool:
        path: list[int] = []
        u = 0
        while u != 1:
            while cursor[u] < len(self.out[u]):
                e = self.out[u][cursor[u]]
                v, capacity = self.edges[e]
                if capacity > 0 and level[v] == level[u] + 1:
                    break
                cursor[u] += 1
            else:
                if not path:
                    return False
                cursor[self.edges[path[-1] ^ 1][0]] += 1
                u = self.edges[path.pop() ^ 1][0]
                continue
            path.append(self.out[u][cursor[u]])
            u = self.edges[path[-1]][0]
        flow = min(self.edges[e][1] for e in path)
        for e in path:
            self.edges[e][1] -= flow
            self.edges[e ^ 1][1] += flow
        return True


FOREVER = 1 << 60


def _cost(value: ir.Value) -> int:
    return math.prod(dim if isinstance(dim, int) and dim > 0 else 64 for dim in value.shape)


def clean(graph: ir.Graph, moves: Callable[[int], Perm] = to_last) -> None:
    """Removes every transpose by `moves` and back that the minimum cut can do without, in the graph and in its bodies."""
    for body in graph.subgraphs():
        _Clean(body, moves).run()
    _Clean(graph, moves).run()


class _Clean:
    def __init__(self, graph: ir.Graph, moves: Callable[[int], Perm]):
        self.graph, self.moves = graph, moves
        self.first: dict[ir.Value, ir.Value] = {}  # logical value -> the stored value that holds it as it is
        self.moved: dict[ir.Value, ir.Value] = {}  # logical value -> the stored value that holds it moved
        self.kinds: dict[ir.Node, str] = {}

    def run(self) -> None:
        nodes = list(self.graph)
        self.kinds = {node: self.kind(node) for node in nodes}
        if not {"to", "from"} & set(self.kinds.values()):
            return
        is_moved = self.network(nodes)
        for node in nodes:
            self.apply(node, is_moved(node))
        for index, value in enumerate(list(self.graph.outputs)):
            stored = self.as_first(value)
            if stored is not value:
                name = value.name
                value.name = None
                self.graph.outputs[index] = stored
                stored.name = name
        for value, stored in self.moved.items():
            if value is stored:
                # Until here every value kept the shape of its logical form, by which the rules reason.
                value.shape, quantization = ir.Shape(self.stored_shape(value)), self.stored_quantization(value)
                if quantization is not None:
                    value.meta["quantization"] = quantization
        _sweep(self.graph)

    def stored_shape(self, value: ir.Value) -> list:
        return [value.shape[i] for i in self.moves(_rank(value))] if self.moved.get(value) is value else list(value.shape)

    def stored_quantization(self, value: ir.Value) -> Quantization | None:
        quantization = value.meta.get("quantization")
        moved = quantization is not None and self.moved.get(value) is value
        return _moved_quantization(quantization, self.moves(_rank(value))) if moved else quantization

    def kind(self, node: ir.Node) -> str:
        if node.domain == "" and node.op_type == "Transpose" and _rank(node.inputs[0]) in RANKS:
            perm = tuple(node.attributes["perm"].value) if "perm" in node.attributes else tuple(range(_rank(node.inputs[0])))[::-1]
            move = self.moves(len(perm))
            return "to" if perm == move else "from" if perm == inverse(move) else "turn"
        if transparent(node):
            return "any"
        return "regroup" if _regroups(node, self.moves) else "fixed"

    def network(self, nodes: list[ir.Node]) -> Callable[[Any], bool]:
        network = _Network()
        kinds, own = self.kinds, set(nodes)
        values = [*self.graph.inputs, *(value for node in nodes for value in node.outputs)]
        for value in values:
            if _rank(value) not in RANKS or value.is_initializer():
                continue
            producer = value.producer()
            source = (
                producer if producer in own and kinds[producer] in ("any", "turn", "regroup") else "T" if producer in own and kinds[producer] == "from" else "S"
            )
            consumers: set[Any] = {self.consumer(use.node, use.idx, kinds, own) for use in value.uses()} | ({"S"} if value.is_graph_output() else set())
            consumers.discard(None)
            if _spatial_ones(value.shape, self.moves(_rank(value))):
                cost = 1
            else:
                cost = _cost(value)
            if consumers - {source}:
                network.edge(source, ("moved", value), cost)
                network.edge(("first", value), source, cost)
                for consumer in consumers:
                    if consumer != "S":
                        network.edge(("moved", value), consumer, FOREVER)
                    if consumer != "T":
                        network.edge(consumer, ("first", value), FOREVER)
        for node in nodes:
            if node.op_type in LAST_AXIS_ONLY and kinds[node] == "any":
                rank = _rank(node.outputs[0])
                axis = node.attributes.get_int("axis", -1) % rank
                if axis != rank - 1:
                    network.edge(node, "T", 2 * _cost(node.outputs[0]))
                if self.moves(rank)[-1] != axis:
                    network.edge("S", node, 2 * _cost(node.outputs[0]))
        return network.cut()

    def consumer(self, node: ir.Node, index: int, kinds: dict[ir.Node, str], own: set[ir.Node]) -> Any:
        """What a use asks of its value: a variable, S, T, or None where both are the same to it."""
        if node not in own:
            return "S"
        kind = kinds[node]
        if kind in ("any", "regroup"):
            value = node.inputs[index]
            return node if _rank(value) == _rank(node.outputs[0]) or (kind == "regroup" and index == 0) else "S"
        if kind == "to":
            return "T"
        if kind in ("turn", "from") or _free_consumer(node, index, self.moves):
            return None
        return "S"

    # -- stored values

    def as_first(self, value: ir.Value) -> ir.Value:
        if value in self.first or value not in self.moved:
            return self.first.get(value, value)
        return self.first.setdefault(value, self.turned(self.moved[value], inverse(self.moves(_rank(value)))))

    def as_moved(self, value: ir.Value) -> ir.Value:
        if value in self.moved:
            return self.moved[value]
        stored = self.as_first(value)
        return self.moved.setdefault(value, self.turned(stored, self.moves(_rank(value))))

    def turned(self, value: ir.Value, perm: Perm) -> ir.Value:
        if value.is_initializer() and value.const_value is not None:
            return self.constant(
                lazily(perm, value.const_value), value, _moved_quantization(value.meta["quantization"], perm) if "quantization" in value.meta else None
            )
        shape = self.stored_shape(value)
        node = _transpose(value, perm, shape, self.stored_quantization(value))
        if _spatial_ones(shape, perm) and _one_unknown(node.outputs[0]):
            sizes = [dim if isinstance(dim, int) else -1 for dim in node.outputs[0].shape]
            flat = ir.node("Reshape", [value, self.constant(array_tensor(np.asarray(sizes, np.int64)), value, None)])
            flat.outputs[0].name, flat.outputs[0].type, flat.outputs[0].shape = node.outputs[0].name, value.type, node.outputs[0].shape
            flat.outputs[0].meta.update(node.outputs[0].meta)
            node.replace_input_with(0, None)
            node = flat
        producer = value.producer()
        if producer is not None and producer.graph is self.graph:
            self.graph.insert_after(producer, node)
        elif len(self.graph):
            self.graph.insert_before(self.graph[0], node)
        return node.outputs[0]

    def constant(self, tensor: Any, like: ir.Value, quantization: Quantization | None) -> ir.Value:
        name = f"{like.name}/moved"
        while name in self.graph.initializers:
            name += "_"
        fresh = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor)
        tensor.name = name
        if quantization is not None:
            fresh.meta["quantization"] = quantization
        self.graph.register_initializer(fresh)
        return fresh

    # -- rewriting

    def apply(self, node: ir.Node, moved: bool) -> None:
        kind = self.kinds[node]
        if kind == "from":
            self.moved[node.outputs[0]] = self.as_first(node.inputs[0])
            node.replace_input_with(0, self.as_first(node.inputs[0]))
        elif kind == "to" and node.inputs[0] in self.moved:
            self.first[node.outputs[0]] = self.moved[node.inputs[0]]
        elif kind == "turn":
            self.turn(node, moved)
        elif moved and kind == "any":
            self.move(node)
        elif moved and kind == "regroup":
            y = node.outputs[0]
            shape = [y.shape[i] for i in self.moves(_rank(y))]
            sizes = [dim if isinstance(dim, int) else -1 for dim in shape]
            fresh = ir.node("Reshape", [self.as_moved(node.inputs[0]), self.constant(array_tensor(np.asarray(sizes, np.int64)), y, None)])
            self.substitute(node, fresh, shape)
        else:
            self.keep(node)

    def substitute(self, node: ir.Node, fresh: ir.Node, shape: list) -> None:
        """A new node makes the moved form of the old one's output; the old one stays until nothing needs it."""
        old, new = node.outputs[0], fresh.outputs[0]
        new.name, new.type, new.shape = f"{old.name}/moved", old.type, ir.Shape(shape)
        if "quantization" in old.meta:
            new.meta["quantization"] = _moved_quantization(old.meta["quantization"], self.moves(len(shape)))
        self.graph.insert_after(node, fresh)
        self.moved[old] = new
        # The old node would compute the value a second time, from data that may no longer be stored that way.
        self.first.setdefault(old, self.turned(new, inverse(self.moves(len(shape)))))

    def keep(self, node: ir.Node) -> None:
        for index in reversed(range(len(node.inputs))):  # the data comes last: reading it moved may renew the axes
            value = node.inputs[index]
            if value is None:
                continue
            if value in self.moved and value not in self.first and _free_consumer(node, index, self.moves):
                _rename_free(node, index, self.moves, self)
            else:
                node.replace_input_with(index, self.as_first(value))
        for body in (attribute.value for attribute in node.attributes.values() if attribute.type == ir.AttributeType.GRAPH):
            for inner in body.all_nodes():
                for index, value in enumerate(inner.inputs):
                    if value is not None and value in self.moved:
                        inner.replace_input_with(index, self.as_first(value))

    def turn(self, node: ir.Node, moved: bool) -> None:
        value, out = node.inputs[0], node.outputs[0]
        rank = _rank(value)
        perm = tuple(node.attributes["perm"].value) if "perm" in node.attributes else tuple(range(rank))[::-1]
        if value in self.moved and value not in self.first:
            back = inverse(self.moves(rank))
            perm = tuple(back[i] for i in perm)
            value = self.moved[value]
        else:
            value = self.as_first(value)
        if moved:
            perm = tuple(perm[i] for i in self.moves(rank))
        fresh = _transpose(value, perm, self.stored_shape(value), self.stored_quantization(value))
        self.graph.insert_before(node, fresh)
        new = value if perm == tuple(range(rank)) else fresh.outputs[0]
        (self.moved if moved else self.first)[out] = new

    def move(self, node: ir.Node) -> None:
        """Renames the axes of a node that now works on moved data."""
        rank = _rank(node.outputs[0])
        perm = self.moves(rank)
        place = inverse(perm)  # old axis -> new axis
        op = node.op_type
        if op in ELEMENTWISE:
            for index, value in enumerate(node.inputs):
                if value is not None and _rank(value) > 0:
                    node.replace_input_with(index, self.as_moved(value) if _rank(value) == rank else self.aligned(value, rank))
        else:
            for index, value in enumerate(node.inputs):
                if value is not None and (index == 0 or op == "Concat"):
                    node.replace_input_with(index, self.as_moved(value))
        if op in BY_AXIS_ATTRIBUTE or (op in ("QuantizeLinear", "DequantizeLinear") and _rank(node.inputs[1]) == 1):
            axis = node.attributes.get_int("axis", BY_AXIS_ATTRIBUTE.get(op, 1))
            node.attributes["axis"] = ir.AttrInt64("axis", place[axis % rank])
        elif op in REDUCTIONS:
            axes = [place[axis] for axis in _reduced_axes(node) or []]
            if len(node.inputs) > 1 and node.inputs[1] is not None:
                node.replace_input_with(1, self.constant(array_tensor(np.asarray(axes, np.int64)), node.inputs[1], None))
        elif op == "CumSum":
            axis = int(constant(node.inputs[1]).reshape(-1)[0]) % rank
            node.replace_input_with(1, self.constant(array_tensor(np.asarray(place[axis], np.int64)), node.inputs[1], None))
        elif op == "Slice":
            given = len(node.inputs) > 3 and node.inputs[3] is not None
            cut = constant(node.inputs[3]).reshape(-1) if given else np.arange(len(constant(node.inputs[1])))
            renamed = self.constant(array_tensor(np.asarray([place[int(axis) % rank] for axis in cut], np.int64)), node.inputs[1], None)
            if len(node.inputs) < 4:
                node.resize_inputs(4)
            node.replace_input_with(3, renamed)
        elif op == "Pad":
            pairs = constant(node.inputs[1]).reshape(2, rank)[:, list(perm)]
            node.replace_input_with(1, self.constant(array_tensor(pairs.reshape(-1).copy()), node.inputs[1], None))
        elif op in ("Expand", "Tile"):
            node.replace_input_with(1, self.constant(array_tensor(constant(node.inputs[1])[list(perm)].copy()), node.inputs[1], None))
        for value in node.outputs:
            self.moved[value] = value

    def aligned(self, value: ir.Value, rank: int) -> ir.Value:
        """A value that broadcasting would give leading axes, with these axes written out and moved."""
        perm = self.moves(rank)
        sizes = [1] * (rank - _rank(value)) + list(value.shape)
        longer = [i for i, size in enumerate(sizes) if size != 1]
        if value.is_initializer() and value.const_value is not None:
            dims = [sizes[i] for i in perm]
            if longer == [perm[-1]] and "quantization" not in value.meta:
                dims = [dims[-1]]  # one number a channel: a vector, as the kernels like it
            return self.constant(lazily(lambda a: a.reshape(sizes).transpose(perm).reshape(dims), value.const_value, dims=dims), value, None)
        stored = self.as_first(value)
        wide = ir.node("Unsqueeze", [stored, self.constant(array_tensor(np.arange(rank - _rank(value))), value, None)])
        wide.outputs[0].name, wide.outputs[0].type, wide.outputs[0].shape = f"{value.name}/wide", value.type, ir.Shape(sizes)
        producer = stored.producer()
        if producer is not None and producer.graph is self.graph:
            self.graph.insert_after(producer, wide)
        else:
            self.graph.insert_before(self.graph[0], wide)
        return self.turned(wide.outputs[0], perm)


# ---- consumers that change the rank but read either layout


def _free_consumer(node: ir.Node, index: int, moves: Callable[[int], Perm]) -> bool:
    if node.domain or index:
        return False
    x, y = node.inputs[0], node.outputs[0]
    if _rank(x) not in RANKS:
        return False
    perm = moves(_rank(x))
    if node.op_type in ("Reshape", "Squeeze", "Flatten") and _rank(y) >= 0 and _spatial_ones(x.shape, perm):
        return _one_unknown(y)
    if node.op_type in REDUCTIONS and not node.attributes.get_int("keepdims", 1):
        axes = _reduced_axes(node)
        return axes is not None and [i for i in perm if i not in axes] == [i for i in range(len(perm)) if i not in axes]
    return _flat_layer(node) is not None


def _flat_layer(node: ir.Node) -> ir.Node | None:
    """The fully connected layer behind a flattening reshape [N, C, ...] -> [N, C * ...], whose constant weights can be put in order instead."""
    x, y = node.inputs[0], node.outputs[0]
    if node.op_type not in ("Reshape", "Flatten") or _rank(y) != 2 or y.is_graph_output() or len(y.uses()) != 1:
        return None
    use = next(iter(y.uses()))
    if (
        use.node.op_type not in ("FullyConnected", "Gemm", "MatMul", "Linear")
        or use.node.attributes.get_int("transA", 0) != 0
        or use.idx
        or not use.node.inputs[1].is_initializer()
        or _rank(use.node.inputs[1]) != 2
    ):
        return None
    sizes = list(x.shape)[1:]
    return (
        use.node if all(isinstance(size, int) for size in sizes) and y.shape[1] == math.prod(sizes) and "quantization" not in use.node.inputs[1].meta else None
    )


def _rename_free(node: ir.Node, index: int, moves: Callable[[int], Perm], state: _Clean) -> None:
    value, y = node.inputs[0], node.outputs[0]
    perm = moves(_rank(value))
    layer = _flat_layer(node) if not _spatial_ones(value.shape, perm) else None
    if layer is not None:
        sizes = [size for size in list(value.shape)[1:] if isinstance(size, int)]
        weight = layer.inputs[1]
        axis = int(layer.attributes.get_int("transB", layer.op_type == "FullyConnected"))  # of the inputs in the weight

        def reorder(array: np.ndarray) -> np.ndarray:
            return _reordered(array, sizes, perm, axis)

        layer.replace_input_with(1, state.constant(lazily(reorder, weight.const_value), weight, None))
    elif node.op_type in REDUCTIONS and len(node.inputs) > 1 and node.inputs[1] is not None:
        axes = [inverse(perm)[axis] for axis in _reduced_axes(node) or []]
        node.replace_input_with(1, state.constant(array_tensor(np.asarray(axes, np.int64)), node.inputs[1], None))
    node.replace_input_with(0, state.moved[value])
    if node.op_type not in REDUCTIONS:
        target = [dim if isinstance(dim, int) else -1 for dim in y.shape]
        fresh = ir.node("Reshape", [state.moved[value], state.constant(array_tensor(np.asarray(target, np.int64)), y, None)])
        fresh.outputs[0].name, fresh.outputs[0].type, fresh.outputs[0].shape = f"{y.name}/flat", y.type, y.shape
        fresh.outputs[0].meta.update(y.meta)
        state.graph.insert_after(node, fresh)
        state.first[y] = fresh.outputs[0]


def _reordered(array: np.ndarray, logical: list[int], perm: Perm, axis: int) -> np.ndarray:
    """[outputs, C * ...] (axis 1) or [C * ..., outputs] (axis 0) with the inputs in the order of the moved layout, in one copy."""
    inner = [i - 1 for i in perm[1:]]
    if axis:
        return array.reshape(-1, *logical).transpose(0, *(i + 1 for i in inner)).reshape(array.shape)
    return array.reshape(*logical, -1).transpose(*inner, len(logical)).reshape(array.shape)


def _sweep(graph: ir.Graph) -> None:
    """Removes nodes whose results nobody reads, last first."""
    for node in reversed(list(graph)):
        if not any(value.uses() or value.is_graph_output() for value in node.outputs):
            graph.remove(node, safe=True)
    graph.sort()

"""Loops whose body is one step of an LSTM, a GRU or a plain recurrent network become the operator that ONNX has for it.

A framework without such an operator writes the step out in the body of a loop over time. Every step is the same few products and activations, put together in
many ways; so what goes into an activation is taken apart into its products (`Terms`), and only what is done with the activations is compared.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import constant
from isomorph.passes import shapes
from isomorph.passes._steps import Gate, Terms, axes_of, clipped, is_inside, origin, scalar_and_value, scaled, through_casts
from isomorph.tensors import array_tensor, lazily

ACTIVATIONS = {"Sigmoid", "Tanh", "Relu", "Softsign", "Softplus", "Elu", "HardSigmoid", "LeakyRelu", "ThresholdedRelu"}
PARAMETERS = {"HardSigmoid": ("alpha", "beta"), "Elu": ("alpha",), "LeakyRelu": ("alpha",), "ThresholdedRelu": ("alpha",)}
DEFAULTS = {"HardSigmoid": {"alpha": 0.2, "beta": 0.5}, "Elu": {"alpha": 1.0}, "LeakyRelu": {"alpha": 0.01}, "ThresholdedRelu": {"alpha": 1.0}}
Value = ir.Value


class Other(Exception):
    """The loop is something else."""


def raise_recurrent(graph: ir.Graph) -> None:
    """Turns every Loop of `graph` (not those inside of others) over a sequence whose body is one recurrent cell into LSTM, GRU or RNN."""
    for node in list(graph):
        if node.op_type == "Loop" and node.domain == "" and node.graph is graph:
            try:
                _Loop(node).replace()
            except Other:
                continue


class _Loop:
    """One Loop, its variables and what its body reads."""

    def __init__(self, node: ir.Node):
        self.node, self.graph = node, node.graph
        self.body: ir.Graph = node.attributes["body"].value
        self.entries = list(self.body.inputs)[2:]
        count = len(self.entries)
        outputs = [origin(value) for value in self.body.outputs]
        self.again, self.following, self.scanned = outputs[0], outputs[1:1 + count], outputs[1 + count:]
        self.starts = list(node.inputs)[2:]
        self.counters = [place for place in range(count) if self._counts(place)]
        self.x: Value | None = None
        self.read: Value | None = None

    def _counts(self, place: int) -> bool:
        """From zero, one more in every round."""
        node, start = self.following[place].producer(), constant(self.starts[place])
        if start is None or start.size != 1 or start.any() or node is None or node.op_type != "Add":
            return False
        step = next((constant(value) for value in node.inputs if value is not self.entries[place]), None)
        return self.entries[place] in node.inputs and step is not None and step.size == 1 and step.reshape(-1)[0] == 1

    def replace(self) -> None:
        """Finds the sequence, then the cell, then writes the operator. Raises `Other` where one of them is not there."""
        self.find_sequence()
        cells = [self.lstm, self.gru, self.rnn]
        states = [place for place in range(len(self.entries)) if place not in self.counters and not self._kept(place)]
        for cell in cells:
            found = cell(states)
            if found is not None:
                return found()
        raise Other

    def _kept(self, place: int) -> bool:
        """A variable that only keeps the last result of the step, with an axis before it."""
        node = self.following[place].producer()
        return not self.entries[place].uses() and node is not None and node.op_type == "Unsqueeze" and axes_of(node) == [0]

    # ---- the sequence

    def find_sequence(self) -> None:
        reads = [node for node in self.body if node.op_type == "Gather" and node.attributes.get_int("axis", 0) == 0
                 and self._counter_of(node.inputs[1]) is not None and node.inputs[0] is not None and not is_inside(self.body, node.inputs[0])]
        if len(reads) != 1:
            raise Other
        sequence = reads[0].inputs[0]
        dims = shapes.dims(sequence)
        if dims is None or len(dims) != 3:
            raise Other
        limits = self.limits(self.again)
        go = constant(self.node.inputs[1]) if self.node.inputs[1] is not None else np.bool_(True)
        if not limits or any(limit != dims[0] or limit is None for limit in limits) or self.node.inputs[0] is not None:
            raise Other
        if go is None and not isinstance(dims[0], str):
            raise Other
        self.x, self.read, self.length = sequence, reads[0].outputs[0], dims[0]

    def _counter_of(self, value: Value | None) -> int | None:
        node = value.producer() if value is not None else None
        while node is not None and node.op_type in ("Cast", "Identity"):
            value = node.inputs[0]
            node = value.producer() if value is not None else None
        return next((place for place in self.counters if self.entries[place] is value), None)

    def limits(self, value: Value) -> list[Any]:
        """What the counters must stay below for another round: numbers or names of sizes."""
        node = value.producer()
        if node is None:
            raise Other
        if node.op_type == "And":
            return [limit for part in node.inputs for limit in self.limits(part)]                # type: ignore[arg-type]
        if node.op_type != "Less" or not any(node.inputs[0] is self.following[place] for place in self.counters):
            raise Other
        limit = node.inputs[1]
        array = constant(limit)
        known = shapes.known(through_casts(limit))
        return [int(array.reshape(-1)[0])] if array is not None and array.size == 1 else [known[0]] if known is not None and len(known) == 1 else [None]

    # ---- gates

    def gate(self, value: Value, state: Value) -> Gate:
        node = value.producer()
        if node is None:
            raise Other
        source = node.inputs[0].producer() if node.op_type == "Split" and node.inputs[0] is not None else None
        if source is not None and source.op_type in ACTIVATIONS:                                  # one activation for all gates, taken apart afterwards
            whole = self.gate(node.inputs[0], state)                                              # type: ignore[arg-type]
            start, stop = self.columns(node, value)
            return Gate(whole.name, whole.terms.cut(start, stop), whole.parameters)
        if node.op_type in ACTIVATIONS:
            defaults = DEFAULTS.get(node.op_type, {})
            parameters = {name: float(node.attributes[name].value) if name in node.attributes else default for name, default in defaults.items()}
            return Gate(node.op_type, self.terms(node.inputs[0], state), parameters)             # type: ignore[arg-type]
        hard = self._hard_sigmoid(node)
        if hard is not None:
            inner, alpha, beta = hard
            return Gate("HardSigmoid", self.terms(inner, state), {"alpha": alpha, "beta": beta})
        return Gate("Affine", self.terms(value, state), {"alpha": 1.0, "beta": 0.0})

    @staticmethod
    def _hard_sigmoid(node: ir.Node) -> tuple[Value, float, float] | None:
        """What is between 0 and 1 of alpha * x + beta, as frameworks write it out: cut with Clip or Min and Max, and perhaps scaled afterwards."""
        cut, scale = scaled(node.outputs[0])
        inner, low, high = clipped(cut)
        if inner is None or low != 0 or high is None or abs(high * scale - 1) > 1e-6:
            return None
        add = inner.producer()
        moved, beta = scalar_and_value(add) if add is not None and add.op_type == "Add" else (None, None)
        if moved is None or beta is None:
            return None
        x, alpha = scaled(moved)
        return x, alpha * scale, beta * scale

    def terms(self, value: Value, state: Value) -> Terms:
        """A value of the body as products and constants. Raises `Other` where there is anything else in it."""
        array = constant(value)
        if array is not None:
            if array.ndim > 1 and array.shape[0] != 1 and array.size != 1:
                raise Other
            return Terms(constants=[(value.const_value, 0, array.shape[-1] if array.ndim else 1)])
        node = value.producer()
        if node is None or not is_inside(self.body, value):
            raise Other
        if node.op_type in ("Add", "Sum"):
            found = Terms()
            for part in node.inputs:
                found = found.plus(self.terms(part, state))                                      # type: ignore[arg-type]
            return found
        if node.op_type == "Identity":
            return self.terms(node.inputs[0], state)                                              # type: ignore[arg-type]
        if node.op_type in ("MatMul", "Gemm"):
            return self.product(node, state)
        if node.op_type == "Split":
            return self.split(node, value, state)
        if node.op_type == "Slice":
            return self.slice(node, state)
        raise Other

    def product(self, node: ir.Node, state: Value) -> Terms:
        left, right = node.inputs[:2]
        plain = not any(node.attributes.get_int(name, 0) for name in ("transA", "transB")) and all(
            name not in node.attributes or node.attributes[name].value == 1 for name in ("alpha", "beta"))
        if right is None or left is None or right.const_value is None or right.producer() is not None or not plain:
            raise Other
        columns = int(right.const_value.shape.numpy()[-1])
        added = self.terms(node.inputs[2], state) if len(node.inputs) > 2 and node.inputs[2] is not None else Terms()
        left = origin(left)
        if left is self.read:
            return added.plus(Terms(inputs=[(right.const_value, None, 0, columns)]))
        if left is state:
            return added.plus(Terms(states=[(right.const_value, None, 0, columns)]))
        joined = left.producer()
        if joined is None or joined.op_type != "Concat" or len(joined.inputs) != 2:
            raise Other
        found, row = added, 0
        for part in joined.inputs:
            dims = shapes.dims(part)
            if dims is None or not isinstance(dims[-1], int):
                raise Other
            where = slice(row, row + dims[-1])
            row += dims[-1]
            one = Terms(inputs=[(right.const_value, where, 0, columns)]) if part is self.read else Terms(states=[(right.const_value, where, 0, columns)])
            if part is not self.read and part is not state:
                raise Other
            found = found.plus(one)
        return found

    def split(self, node: ir.Node, value: Value, state: Value) -> Terms:
        return self.terms(node.inputs[0], state).cut(*self.columns(node, value))                   # type: ignore[arg-type]

    @staticmethod
    def columns(node: ir.Node, value: Value) -> tuple[int, int]:
        """Which columns a part of a Split along the last axis has."""
        dims = shapes.dims(node.inputs[0])
        lengths = [shapes.dims(output) for output in node.outputs]
        axis = node.attributes.get_int("axis", 0)
        if dims is None or axis not in (len(dims) - 1, -1) or any(each is None or not isinstance(each[-1], int) for each in lengths):
            raise Other
        start = sum(each[-1] for each in lengths[:value.index() or 0])                            # type: ignore[index,misc]
        return start, start + lengths[value.index() or 0][-1]                                     # type: ignore[index,operator]

    def slice(self, node: ir.Node, state: Value) -> Terms:
        """Along the last axis, without a step."""
        dims, cut = shapes.dims(node.inputs[0]), [constant(value) for value in node.inputs[1:]]
        if dims is None or not isinstance(dims[-1], int) or any(array is None for array in cut):
            raise Other
        axes = [int(axis) % len(dims) for axis in cut[2]] if len(cut) > 2 else list(range(len(cut[0])))            # type: ignore[union-attr,arg-type]
        steps = cut[3].tolist() if len(cut) > 3 else [1] * len(axes)                              # type: ignore[union-attr]
        start, stop = 0, dims[-1]
        for axis, first, last, step in zip(axes, cut[0].tolist(), cut[1].tolist(), steps, strict=True):          # type: ignore[union-attr]
            whole = first == 0 and (last >= (dims[axis] if isinstance(dims[axis], int) else 1 << 31))
            if step != 1 or (axis != len(dims) - 1 and not whole):
                raise Other
            if axis == len(dims) - 1:
                start, stop, _ = slice(first, last).indices(dims[-1])
        return self.terms(node.inputs[0], state).cut(start, stop)                                  # type: ignore[arg-type]

    # ---- cells

    def lstm(self, states: Sequence[int]) -> Callable[[], None] | None:
        """h' = o * f(c'), c' = forget * c + enter * new."""
        if len(states) != 2:
            return None
        for h, c in (tuple(states), tuple(reversed(states))):
            try:
                return self._lstm(h, c)
            except Other:
                continue
        return None

    def _lstm(self, h: int, c: int) -> Callable[[], None]:
        state, cell = self.entries[h], self.entries[c]
        out, squashed = self.factors(self.following[h], lambda value: self.through(value) is self.following[c])
        name, parameters = self.activation_of(squashed, self.following[c])
        kept, entered = self.parts(self.following[c], "Add")
        if not self.multiplies(kept, cell):
            kept, entered = entered, kept
        forget, _ = self.factors(kept, lambda value: value is cell)
        first, second = self.parts(entered, "Mul")
        gates = [self.gate(value, state) for value in (first, second, forget, out)]
        enter, new = gates[:2] if gates[0].name in ("Sigmoid", "HardSigmoid") else (gates[1], gates[0])
        if not enter.name == gates[2].name == gates[3].name or enter.parameters != gates[2].parameters or enter.parameters != gates[3].parameters:
            raise Other
        ordered = [enter, gates[3], gates[2], new]
        last = Gate(name, Terms(), parameters)
        return lambda: self.write("LSTM", ordered, [enter, new, last], h, c, {})

    def gru(self, states: Sequence[int]) -> Callable[[], None] | None:
        """h' = z * h + (1 - z) * new, where the reset gate works on the state, or on its product with the matrix."""
        if len(states) != 1:
            return None
        try:
            return self._gru(states[0])
        except Other:
            return None

    def _gru(self, h: int) -> Callable[[], None]:
        state = self.entries[h]
        kept, renewed = self.parts(self.following[h], "Add")
        if not self.multiplies(kept, state):
            kept, renewed = renewed, kept
        update, _ = self.factors(kept, lambda value: value is state)
        new, _ = self.factors(renewed, lambda value: self._one_minus(value, update))
        z = self.gate(update, state)
        node = new.producer()
        if node is None or node.op_type not in ACTIVATIONS:
            raise Other
        reset, candidate, linear_before_reset, own = self.candidate(node.inputs[0], state)         # type: ignore[arg-type]
        r = self.gate(reset, state)
        if r.name != z.name or r.parameters != z.parameters:
            raise Other
        defaults = DEFAULTS.get(node.op_type, {})
        activation = Gate(node.op_type, candidate, {name: float(node.attributes[name].value) if name in node.attributes else default
                                                    for name, default in defaults.items()})
        return lambda: self.write("GRU", [z, r, activation], [z, activation], h, None, {"linear_before_reset": linear_before_reset}, own)

    def candidate(self, value: Value, state: Value) -> tuple[Value, Terms, int, Terms]:
        """What goes into the activation of the new state: (reset gate, terms, whether the reset comes after the product, constants inside of it)."""
        plain, special = Terms(), None
        waiting = [value]
        while waiting:
            part = waiting.pop()
            node = part.producer()
            if node is not None and node.op_type == "Add" and is_inside(self.body, part):
                waiting += [each for each in node.inputs if each is not None]
                continue
            try:
                plain = plain.plus(self.terms(part, state))
            except Other:
                if special is not None:
                    raise
                special = part
        if special is None or plain.states:
            raise Other
        node = special.producer()
        if node is not None and node.op_type == "Mul":                                            # reset * (state * R + bias)
            for reset, inner in (tuple(node.inputs), tuple(reversed(node.inputs))):
                try:
                    terms = self.terms(inner, state)
                except Other:
                    continue
                if terms.states and not terms.inputs:
                    return reset, Terms(plain.inputs, terms.states, plain.constants), 1, Terms(constants=terms.constants)
            raise Other
        if node is not None and node.op_type == "MatMul":                                         # (reset * state) * R
            product, matrix = node.inputs[0].producer(), node.inputs[1]                            # type: ignore[union-attr]
            if product is not None and product.op_type == "Concat" and matrix is not None and matrix.const_value is not None:
                return self.joined(product, matrix, plain, state)
            if product is None or product.op_type != "Mul" or matrix is None or matrix.const_value is None or matrix.producer() is not None:
                raise Other
            reset, _ = self.factors(node.inputs[0], lambda each: each is state)                    # type: ignore[arg-type]
            return reset, plain.plus(Terms(states=[(matrix.const_value, None, 0, int(matrix.const_value.shape.numpy()[-1]))])), 0, Terms()
        raise Other

    def joined(self, node: ir.Node, matrix: Value, plain: Terms, state: Value) -> tuple[Value, Terms, int, Terms]:
        """The product of a matrix with the input and the state that was reset, side by side."""
        dims = [shapes.dims(part) for part in node.inputs]
        known = all(each is not None and isinstance(each[-1], int) for each in dims)
        if len(dims) != 2 or node.inputs[0] is not self.read or matrix.producer() is not None or not known:
            raise Other
        reset, _ = self.factors(node.inputs[1], lambda each: each is state)                        # type: ignore[arg-type]
        rows, columns = dims[0][-1], int(matrix.const_value.shape.numpy()[-1])                     # type: ignore[index,union-attr]
        both = Terms([(matrix.const_value, slice(0, rows), 0, columns)], [(matrix.const_value, slice(rows, None), 0, columns)])
        return reset, plain.plus(both), 0, Terms()

    def rnn(self, states: Sequence[int]) -> Callable[[], None] | None:
        if len(states) != 1:
            return None
        try:
            gate = self.gate(self.following[states[0]], self.entries[states[0]])
        except Other:
            return None
        if not gate.terms.states or not gate.terms.inputs:
            return None
        return lambda: self.write("RNN", [gate], [gate], states[0], None, {})

    # ---- pieces of patterns

    def parts(self, value: Value, kind: str) -> tuple[Value, Value]:
        node = value.producer()
        if node is None or node.op_type != kind or len(node.inputs) != 2 or None in node.inputs:
            raise Other
        return node.inputs[0], node.inputs[1]                                                      # type: ignore[return-value]

    def factors(self, value: Value, wanted: Callable[[Value], bool]) -> tuple[Value, Value]:
        """(the other factor, the one that is wanted)."""
        first, second = self.parts(value, "Mul")
        if wanted(second):
            return first, second
        if wanted(first):
            return second, first
        raise Other

    def multiplies(self, value: Value, factor: Value) -> bool:
        node = value.producer()
        return node is not None and node.op_type == "Mul" and factor in node.inputs

    @staticmethod
    def through(value: Value) -> Value | None:
        node = value.producer()
        return node.inputs[0] if node is not None and node.op_type in ACTIVATIONS else value

    @staticmethod
    def activation_of(value: Value, inner: Value) -> tuple[str, dict[str, float]]:
        if value is inner:
            return "Affine", {"alpha": 1.0, "beta": 0.0}
        node = value.producer()
        assert node is not None
        defaults = DEFAULTS.get(node.op_type, {})
        return node.op_type, {name: float(node.attributes[name].value) if name in node.attributes else default for name, default in defaults.items()}

    @staticmethod
    def _one_minus(value: Value, gate: Value) -> bool:
        node = value.producer()
        first = constant(node.inputs[0]) if node is not None and node.op_type == "Sub" else None
        return first is not None and first.size == 1 and float(first.reshape(-1)[0]) == 1 and node is not None and node.inputs[1] is gate

    # ---- writing

    def write(self, kind: str, gates: Sequence[Gate], activations: Sequence[Gate], h: int, c: int | None, attributes: dict[str, Any],
              inner: Terms | None = None) -> None:
        """The operator in the place of the loop. `inner` are the constants of a GRU's state that stand inside of its reset gate."""
        assert self.x is not None
        size = (shapes.dims(self.entries[h]) or [None])[-1]
        inputs = (shapes.dims(self.x) or [None])[-1]
        if not isinstance(size, int) or not isinstance(inputs, int) or self.x.dtype != ir.DataType.FLOAT:
            raise Other
        for gate in gates:
            widths = {stop - start for items in (gate.terms.inputs, gate.terms.states) for *_, start, stop in items}
            if widths != {size} or not gate.terms.inputs or not gate.terms.states:
                raise Other
        results = self.results(h, c)
        weights = [self.stacked([gate.terms.matrix(which, rows, size) for gate in gates], (1, len(gates) * size, rows), name)
                   for which, rows, name in (("inputs", inputs, "W"), ("states", size, "R"))]
        vectors = [gate.terms.vector(size) for gate in gates]
        inside = [(inner if inner is not None and gate is gates[-1] else Terms()).vector(size) for gate in gates]
        bias = self.stacked([*vectors, *inside], (1, 2 * len(gates) * size), "B")
        starts = [None if place is None else self.start(place) for place in ((h,) if c is None else (h, c))]
        names, alphas, betas = self.functions(activations)
        extra = {"activations": names, "activation_alpha": alphas or None, "activation_beta": betas or None, **attributes}
        x, direction = self.direction(results)
        node = ir.node(kind, [x, *weights, bias, None, *starts], {"hidden_size": size, "direction": direction,
                                                                   **{name: value for name, value in extra.items() if value not in (None, 0)}},
                       num_outputs=2 if c is None else 3, name=f"{self.node.name}/{kind}")
        self.insert(node)
        self.hand_over(node, results)

    def functions(self, activations: Sequence[Gate]) -> tuple[list[str] | None, list[float], list[float]]:
        names = [gate.name for gate in activations]
        usual = {2: ["Sigmoid", "Tanh"], 3: ["Sigmoid", "Tanh", "Tanh"], 1: ["Tanh"]}[len(names)]
        if names == usual:
            return None, [], []
        alphas = [gate.parameters["alpha"] for gate in activations if "alpha" in gate.parameters]
        betas = [gate.parameters["beta"] for gate in activations if "beta" in gate.parameters]
        return names, alphas, betas

    def stacked(self, parts: Sequence[Any], dims: tuple[int, ...], name: str) -> Value:
        """Matrices or vectors one below the other, with an axis for the direction before."""
        tensors = [tensor for each, _ in parts for tensor in each]
        counts = [len(each) for each, _ in parts]
        functions = [function for _, function in parts]

        def built(*arrays: np.ndarray) -> np.ndarray:
            rows, at = [], 0
            for count, function in zip(counts, functions, strict=True):
                rows.append(function(*arrays[at:at + count]))
                at += count
            return np.concatenate(rows).reshape(dims).astype(np.float32)
        tensor = lazily(built, *tensors, dims=dims, element_type=int(ir.DataType.FLOAT)) if tensors else array_tensor(np.zeros(dims, np.float32))
        return self.held(tensor, name)

    def held(self, tensor: Any, name: str) -> Value:
        assert self.graph is not None
        label, number = f"{self.node.name}/{name}", 0
        while label in self.graph.initializers:
            number += 1
            label = f"{self.node.name}/{name}_{number}"
        tensor.name = label
        value = Value(name=label, type=ir.TensorType(tensor.dtype), shape=ir.Shape(tensor.shape), const_value=tensor)
        self.graph.register_initializer(value)
        return value

    def start(self, place: int) -> Value | None:
        """The initial state with an axis for the direction; zeros are left out."""
        value = self.starts[place]
        assert value is not None
        node, array = value.producer(), constant(value)
        filled = node is not None and node.op_type == "ConstantOfShape"
        if filled and ("value" not in node.attributes or not node.attributes["value"].value.numpy().any()):          # type: ignore[union-attr]
            return None
        if array is not None and not array.any() and array.shape[0] == (shapes.dims(self.x) or [0, 0])[1]:
            return None
        lifted = ir.node("Unsqueeze", [value, self.held(array_tensor(np.asarray([0], np.int64)), "axes")], name=f"{self.node.name}/start_{place}")
        self.insert(lifted)
        return lifted.outputs[0]

    def results(self, h: int, c: int | None) -> list[tuple[Value, str]]:
        """Which result of the operator each used output of the loop is."""
        found = []
        places = {h: "last"} | ({} if c is None else {c: "cell"})
        for place, value in enumerate(self.node.outputs):
            if not value.uses() and not value.is_graph_output():
                continue
            if place < len(self.entries):
                kind = places.get(place) or ("kept" if self._kept(place) and self._is_state(place, h) else "count" if place in self.counters else "")
            else:
                kind = "all" if self.scanned[place - len(self.entries)] is self.following[h] else ""
            if not kind or (kind == "count" and not isinstance(self.length, int)):
                raise Other
            found.append((value, kind))
        return found

    def _is_state(self, place: int, h: int) -> bool:
        node = self.following[place].producer()
        return node is not None and node.inputs[0] is self.following[h]

    def direction(self, results: Sequence[tuple[Value, str]]) -> tuple[Value, str]:
        """A sequence that was turned round is read from its end, where only the last state matters."""
        assert self.x is not None
        node = self.x.producer()
        if node is None or node.op_type != "Slice" or any(kind == "all" for _, kind in results) or len(node.inputs) < 5:
            return self.x, "forward"
        start, end, axes, steps = (constant(value) for value in node.inputs[1:5])
        numbers = [int(array[0]) if array is not None and array.size == 1 else None for array in (start, axes, steps, end)]
        if numbers[:3] != [-1, 0, -1] or numbers[3] is None or numbers[3] > -(1 << 31):
            return self.x, "forward"
        return node.inputs[0], "reverse"                                                          # type: ignore[return-value]

    def insert(self, node: ir.Node) -> None:
        assert self.graph is not None
        for number, value in enumerate(node.outputs):
            value.name = value.name or f"{node.name}:{number}"
        shapes.infer_node(node)
        self.graph.insert_before(self.node, node)

    def hand_over(self, made: ir.Node, results: Sequence[tuple[Value, str]]) -> None:
        """Y is [time, 1, batch, size], the last states are [1, batch, size]."""
        assert self.graph is not None
        sources = {"all": (made.outputs[0], 1), "last": (made.outputs[1], 0), "cell": (made.outputs[-1], 0)}
        for value, kind in results:
            if kind == "kept":
                new = made.outputs[1]
            elif kind == "count":
                new = self.held(array_tensor(np.asarray(self.length, (value.dtype or ir.DataType.INT64).numpy())), "count")
            else:
                source, axis = sources[kind]
                node = ir.node("Squeeze", [source, self.held(array_tensor(np.asarray([axis], np.int64)), "axes")], name=f"{self.node.name}/{kind}")
                self.insert(node)
                new = node.outputs[0]
            if value.is_graph_output():
                copy = ir.node("Identity", [new])
                copy.outputs[0].name, value.name = value.name, None
                copy.outputs[0].type, copy.outputs[0].shape = value.type, value.shape
                self.graph.insert_before(self.node, copy)
                new = copy.outputs[0]
            value.replace_all_uses_with(new, replace_graph_outputs=True)
        self.graph.remove(self.node, safe=True)

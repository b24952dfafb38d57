"""Recurrent layers: ONNX's LSTM, GRU and RNN where nothing is masked and their activations are ONNX's, else a Scan over one step of the cell.

A recurrence here gives its outputs in the order of time. Keras returns those of a layer that goes backwards in the order in which they were made.
"""
from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._scan import scanned_together
from isomorph.dialects.keras.config import Layer, flat
from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.activations import hard_slope
from isomorph.dialects.keras.to_onnx.convolution import convolved, several
from isomorph.dialects.keras.to_onnx.table import layer
from isomorph.dialects.keras.variables import wrapped
from isomorph.report import Severity

Config = dict[str, Any]
Variables = dict[str, Value]
ONNX_ACTIVATIONS = {"sigmoid": "Sigmoid", "tanh": "Tanh", "relu": "Relu", "softsign": "Softsign", "softplus": "Softplus", "linear": "Affine",
                    "hard_sigmoid": "HardSigmoid", "elu": "Elu"}
# Gates in Keras' order -> in ONNX's.
GATES = {"LSTM": (0, 3, 1, 2), "GRU": (0, 1, 2), "SimpleRNN": (0,)}
OPERATORS = {"LSTM": "LSTM", "GRU": "GRU", "SimpleRNN": "RNN"}
CELLS = {"LSTMCell": "LSTM", "GRUCell": "GRU", "SimpleRNNCell": "SimpleRNN", "CuDNNLSTM": "LSTM", "CuDNNGRU": "GRU"}
DEFAULTS = {"LSTM": ("tanh", "sigmoid"), "GRU": ("tanh", "sigmoid"), "SimpleRNN": ("tanh", None)}


class Recurrence:
    """One direction of a recurrent layer: what its cell is, its variables, and how it is called."""

    def __init__(self, op: Op, kind: str, config: Config, variables: Variables):
        self.op, self.kind, self.config, self.variables = op, kind, config, variables
        self.sizes_of_last: Any = None                       # of what the uppermost cell of a stack gives
        activation, gate = DEFAULTS.get(kind, ("tanh", "sigmoid"))
        self.activation, self.gate = config.get("activation", activation), config.get("recurrent_activation", gate)
        if config.get("keras_1") and "recurrent_activation" not in config and gate:
            self.gate = "hard_sigmoid"

    def part(self, name: str) -> Value:
        found = self.variables.get(name)
        if found is None:
            return self.op.reject(f"its variable `{name}` is not in the file")
        return self.op.cast(found, self.op.compute) if found.dtype != self.op.compute and found.dtype in (ir.DataType.FLOAT, ir.DataType.DOUBLE) else found

    @property
    def units(self) -> int:
        return self.op.static(self.variables["recurrent_kernel"])[0]

    @property
    def bias(self) -> Value | None:
        return self.part("bias") if "bias" in self.variables else None

    @property
    def after(self) -> bool:
        """Whether a GRU applies its reset gate after the matrix product."""
        return bool(self.config.get("reset_after", "bias" in self.variables and self.op.rank(self.variables["bias"]) == 2))

    # ---- ONNX's operators

    def functions(self) -> tuple[list[str], list[float], list[float]] | None:
        """ONNX's names of the activations with their parameters, None where it lacks one."""
        wanted = {"LSTM": [self.gate, self.activation, self.activation], "GRU": [self.gate, self.activation], "SimpleRNN": [self.activation]}[self.kind]
        wanted = ["linear" if name is None else name for name in wanted]
        if not all(isinstance(name, str) and name in ONNX_ACTIVATIONS for name in wanted):
            return None
        slopes = {"hard_sigmoid": (hard_slope(self.op), 0.5), "linear": (1.0, 0.0), "elu": (1.0, None)}
        alpha = [slopes[name][0] for name in wanted if name in slopes]
        beta = [slopes[name][1] for name in wanted if name in slopes and slopes[name][1] is not None]
        return [ONNX_ACTIVATIONS[name] for name in wanted], alpha, beta  # type: ignore[misc]

    def plain(self, mask: Any) -> bool:
        return self.kind in OPERATORS and mask is None and self.op.compute == ir.DataType.FLOAT and self.functions() is not None and self.stored()

    def stored(self) -> bool:
        return all(value.const_value is not None and value.is_initializer() for value in self.variables.values())

    def matrices(self) -> tuple[Value, Value, Value | None]:
        """W, R and B of one direction, computed when they are written."""
        units, order = self.units, GATES[self.kind]

        def turn(array: np.ndarray) -> np.ndarray:
            return np.concatenate([np.split(array, len(order), axis=-1)[gate] for gate in order], axis=-1).T[None]

        def biases(array: np.ndarray) -> np.ndarray:
            both = array if array.ndim == 2 else np.stack([array, np.zeros_like(array)])
            return np.concatenate([np.concatenate([np.split(row, len(order))[gate] for gate in order]) for row in both])[None]

        kernel, recurrent = self.part("kernel"), self.part("recurrent_kernel")
        count = len(order) * units
        w = self.op.stored(turn, kernel, dims=(1, count, self.op.static(kernel)[0]))
        r = self.op.stored(turn, recurrent, dims=(1, count, units))
        return w, r, None if self.bias is None else self.op.stored(biases, self.bias, dims=(1, 2 * count))

    def by_operator(self, x: Value, states: list[Value], backwards: bool) -> tuple[Value, Value, list[Value]]:
        op = self.op
        w, r, b = self.matrices()
        names, alpha, beta = self.functions() or op.reject("no activation")
        attributes: Config = {"hidden_size": self.units, "direction": "reverse" if backwards else None, "activations": names, "activation_alpha": alpha or None,
                              "activation_beta": beta or None, "linear_before_reset": int(self.after) if self.kind == "GRU" else None}
        initial = [op.Unsqueeze(state, op.const([0])) for state in states]
        results = op.make(OPERATORS[self.kind], [op.Transpose(x, perm=[1, 0, 2]), w, r, b, None, *initial], attributes, outputs=3 if self.kind == "LSTM" else 2)
        ys = op.Transpose(op.Squeeze(results[0], op.const([1])), perm=[1, 0, 2])
        last = [op.Squeeze(state, op.const([0])) for state in results[1:]]
        return ys, last[0], last

    # ---- one step at a time

    def __call__(self, x: Value, states: list[Value] | None, mask: Any, backwards: bool) -> tuple[Value, Value, list[Value]]:
        """(outputs [batch, time, ...] in the order of time, the last one, the last states)."""
        op = self.op
        if self.plain(mask):
            return self.by_operator(x, states or [], backwards)
        step, sizes = STEPS[self.kind](self, x)
        states = states if states else [self.zeros(x, size) for size in sizes]
        if not isinstance(mask, Value):
            ys, last = scanned_together(op, [x], states, lambda parts, inner: step(parts[0], inner), axis=1, backwards=backwards)
            self.shape(ys, x, sizes[-1 if self.kind == "stack" else 0])
            return ys, self.final(ys, backwards), last
        held = not self.config.get("zero_output_for_mask")
        carried = [*states, self.zeros(x, self.output_size(sizes))] if held else list(states)

        def masked(parts: list[Value], inner: list[Value]) -> tuple[Value, list[Value]]:
            y, following = step(parts[0], inner[:len(states)])
            chosen = [op.Where(self.spread(parts[1], new), new, old) for new, old in zip(following, inner, strict=False)]
            previous = inner[-1] if held else op.Mul(y, op.scalar(0, y))
            y = op.Where(self.spread(parts[1], y), y, previous)
            return y, [*chosen, y] if held else chosen

        ys, last = scanned_together(op, [x, mask], carried, masked, axis=1, backwards=backwards)
        self.shape(ys, x, self.output_size(sizes))
        return ys, self.final(ys, backwards), last[:len(states)]

    def output_size(self, sizes: list[Any]) -> Any:
        if self.kind == "stack":
            return self.sizes_of_last
        return sizes[0]

    def spread(self, mask: Value, like: Value) -> Value:
        """[batch] as it broadcasts over [batch, ...]."""
        rank = self.op.rank(like) if like.shape is not None else 2
        return self.op.Unsqueeze(mask, self.op.const(list(range(1, rank)))) if self.op.rank(mask) == 1 else mask

    def shape(self, ys: Value, x: Value, size: Any) -> None:
        sizes = self.op.sizes(x)
        tail = self.output_size([size]) if self.kind == "stack" else size
        ys.dtype, ys.shape = x.dtype, ir.Shape([sizes[0], sizes[1], *(tail if isinstance(tail, list) else [tail])])

    def final(self, ys: Value, backwards: bool) -> Value:
        return self.op.Gather(ys, self.op.const(np.asarray(0 if backwards else -1)), axis=1)

    def zeros(self, x: Value, size: Any) -> Value:
        """A first state."""
        tail = size if isinstance(size, list) else [size]
        batch = self.op.sizes(x)[0]
        shape = self.op.shape(batch if isinstance(batch, int) else self.op.size_of(x, 0), *tail)
        value = self.op.Expand(self.op.scalar(0, x), shape)
        value.shape = ir.Shape([batch, *tail])
        return value


Stepper = tuple[Callable[[Value, list[Value]], tuple[Value, list[Value]]], list[Any]]


def lstm_step(cell: Recurrence, x: Value) -> Stepper:
    op, kernel, recurrent, bias = cell.op, cell.part("kernel"), cell.part("recurrent_kernel"), cell.bias

    def step(x: Value, states: list[Value]) -> tuple[Value, list[Value]]:
        z = op.Add(op.MatMul(x, kernel), op.MatMul(states[0], recurrent))
        i, f, c, o = op.Split(z if bias is None else op.Add(z, bias), axis=1, num_outputs=4, _outputs=4)
        carry = op.Add(op.Mul(op.activation(f, cell.gate), states[1]), op.Mul(op.activation(i, cell.gate), op.activation(c, cell.activation)))
        h = op.Mul(op.activation(o, cell.gate), op.activation(carry, cell.activation))
        return h, [h, carry]

    return step, [cell.units, cell.units]


def gru_step(cell: Recurrence, x: Value) -> Stepper:
    op, kernel, recurrent, units = cell.op, cell.part("kernel"), cell.part("recurrent_kernel"), cell.units
    rows = op.rank(cell.bias) if cell.bias is not None else 0
    first = op.Gather(cell.bias, op.const(np.asarray(0)), axis=0) if rows == 2 else cell.bias
    second = op.Gather(cell.bias, op.const(np.asarray(1)), axis=0) if rows == 2 else None
    gates, candidate = op.Split(recurrent, op.const([2 * units, units]), axis=1, _outputs=2)

    def step(x: Value, states: list[Value]) -> tuple[Value, list[Value]]:
        h = states[0]
        wide = op.MatMul(x, kernel)
        z, r, c = op.Split(wide if first is None else op.Add(wide, first), axis=1, num_outputs=3, _outputs=3)
        if cell.after:
            inner = op.MatMul(h, recurrent)
            iz, ir_, ic = op.Split(inner if second is None else op.Add(inner, second), axis=1, num_outputs=3, _outputs=3)
        else:
            iz, ir_ = op.Split(op.MatMul(h, gates), axis=1, num_outputs=2, _outputs=2)
        z, r = op.activation(op.Add(z, iz), cell.gate), op.activation(op.Add(r, ir_), cell.gate)
        back = op.Mul(r, ic) if cell.after else op.MatMul(op.Mul(r, h), candidate)
        new = op.activation(op.Add(c, back), cell.activation)
        h = op.Add(op.Mul(z, h), op.Mul(op.Sub(op.scalar(1, z), z), new))
        return h, [h]

    return step, [units]


def simple_step(cell: Recurrence, x: Value) -> Stepper:
    op, kernel, recurrent, bias = cell.op, cell.part("kernel"), cell.part("recurrent_kernel"), cell.bias

    def step(x: Value, states: list[Value]) -> tuple[Value, list[Value]]:
        wide = op.MatMul(x, kernel)
        wide = wide if bias is None else op.Add(wide, bias)
        h = op.activation(op.Add(wide, op.MatMul(states[0], recurrent)), cell.activation)
        return h, [h]

    return step, [cell.units]


def conv_step(cell: Recurrence, x: Value) -> Stepper:
    """ConvLSTM: convolutions instead of products; states have the sizes of the output."""
    op, config = cell.op, cell.config
    kernel, recurrent, bias = cell.part("kernel"), cell.part("recurrent_kernel"), cell.bias
    count, layout = op.rank(x) - 3, config.get("data_format")
    strides, dilation, padding = config.get("strides", 1), config.get("dilation_rate", 1), config.get("padding", "valid")
    spatial = op.sizes(x)[3:] if layout == "channels_first" else op.sizes(x)[2:-1]
    if not all(isinstance(size, int) for size in spatial):
        return op.reject("the size of its pictures is not known")
    window, steps, steps_inside = op.static(kernel)[:count], several(strides, count), several(dilation, count)
    sizes = [-(-size // s) if padding == "same" else (size - (k - 1) * d - 1) // s + 1
             for size, k, s, d in zip(spatial, window, steps, steps_inside, strict=True)]
    filters = op.static(recurrent)[-2]
    state = [filters, *sizes] if layout == "channels_first" else [*sizes, filters]

    def step(x: Value, states: list[Value]) -> tuple[Value, list[Value]]:
        wide = convolved(op, op.first(x, layout), kernel, bias, strides, padding, dilation)
        inner = convolved(op, op.first(states[0], layout), recurrent, None, 1, "same", 1)
        i, f, c, o = op.Split(op.Add(wide, inner), axis=1, num_outputs=4, _outputs=4)
        carry = op.Add(op.Mul(op.activation(f, cell.gate), op.first(states[1], layout)), op.Mul(op.activation(i, cell.gate), op.activation(c, cell.activation)))
        h = op.last(op.Mul(op.activation(o, cell.gate), op.activation(carry, cell.activation)), layout)
        return h, [h, op.last(carry, layout)]

    return step, [state, state]


def stack_step(cell: Recurrence, x: Value) -> Stepper:
    """Cells on top of each other."""
    steps, sizes, counts = [], [], []
    for attribute, inner in cell_layers(cell.config):
        start = f"{attribute}/"
        variables = {name[len(start):]: value for name, value in cell.variables.items() if name.startswith(start)}
        one = Recurrence(cell.op, kind_of(inner, cell.op), inner.config, variables)
        step, own = STEPS[one.kind](one, x)
        steps.append(step)
        sizes += own
        counts.append(len(own))
        cell.sizes_of_last = own[0]

    def step_all(x: Value, states: list[Value]) -> tuple[Value, list[Value]]:
        following, at = [], 0
        for step, count in zip(steps, counts, strict=True):
            x, new = step(x, states[at:at + count])
            following += new
            at += count
        return x, following

    return step_all, sizes


def cell_layers(config: Config) -> list[tuple[str, Layer]]:
    return wrapped(Layer("StackedRNNCells", "", config))


STEPS: dict[str, Callable[[Recurrence, Value], Stepper]] = {"LSTM": lstm_step, "GRU": gru_step, "SimpleRNN": simple_step, "ConvLSTM": conv_step,
                                                            "stack": stack_step}


def kind_of(cell: Layer, op: Op) -> str:
    if cell.class_name == "StackedRNNCells":
        return "stack"
    return CELLS.get(cell.class_name) or op.reject(f"its cell {cell.class_name} has no mapping")


# ---- layers

def recurrence_of(op: Op, inner: Layer, variables: Variables) -> Recurrence:
    """The recurrence that a layer (`LSTM`, `RNN` over a cell, ...) runs."""
    name = inner.class_name
    if name == "RNN":
        attribute, cell = wrapped(inner)[0]
        own = {key[len(attribute) + 1:]: value for key, value in variables.items() if key.startswith(f"{attribute}/")}
        config = {**cell.config, "zero_output_for_mask": inner.config.get("zero_output_for_mask")}
        return Recurrence(op, kind_of(cell, op), config, own)
    if inner.config.get("keras_1") and name in GATES:
        variables = _joined_gates(op, name, variables)
    kind = "ConvLSTM" if name.startswith("ConvLSTM") else CELLS.get(name, name)
    if kind not in STEPS:
        return op.reject(f"{name} has no mapping")
    if name.startswith("CuDNN"):
        return Recurrence(op, kind, {**inner.config, "reset_after": True}, _as_plain(op, kind, variables))
    return Recurrence(op, kind, inner.config, variables)


def _as_plain(op: Op, kind: str, variables: Variables) -> Variables:
    """cuDNN's variables as those of LSTM and GRU: each gate has its kernel in Fortran's order and its recurrent kernel turned, and there are two biases."""
    count = len(GATES[kind])

    def gates(turn: Callable[[np.ndarray], np.ndarray]) -> Callable[[np.ndarray], np.ndarray]:
        return lambda array: np.concatenate([turn(gate) for gate in np.split(array, count, axis=1)], axis=1)
    turns: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "kernel": gates(lambda gate: gate.T.reshape(gate.shape, order="F")), "recurrent_kernel": gates(lambda gate: gate.T),
        "bias": lambda array: array.reshape(2, -1).sum(0) if kind == "LSTM" else array.reshape(2, -1)}
    width = op.static(variables["recurrent_kernel"])[1]
    dims = {name: tuple(op.static(value)) for name, value in variables.items()} | {"bias": (width,) if kind == "LSTM" else (2, width)}
    return {name: op.stored(turns[name], value, dims=dims[name]) for name, value in variables.items()}


def _joined_gates(op: Op, kind: str, variables: Variables) -> Variables:
    """Keras 1 keeps one matrix for every gate."""
    if "kernel" in variables:
        return variables
    letters = {"LSTM": "ifco", "GRU": "zrh"}.get(kind)
    if letters is None:
        return variables
    parts = {"kernel": "W", "recurrent_kernel": "U", "bias": "b"}
    return {name: op.Concat(*(variables[f"{letter}_{gate}"] for gate in letters), axis=-1) for name, letter in parts.items()}


def run(op: Op, inner: Layer, variables: Variables, x: Value, states: list[Value] | None, mask: Any) -> tuple[Value, Value, list[Value]]:
    """(outputs in the order of time, last output, last states)."""
    if inner.config.get("stateful"):
        op.lose("keras.stateful", "the layer keeps its state between calls; here every call starts from zeros", Severity.MEDIUM)
    if inner.config.get("time_major"):
        x = op.Transpose(x, perm=[1, 0, *range(2, op.rank(x))])
    return recurrence_of(op, inner, variables)(x, states, mask, bool(inner.config.get("go_backwards")))


def _states(initial: Any, args: tuple[Any, ...]) -> list[Value] | None:
    found = [value for value in flat([initial, *args]) if isinstance(value, Value)]
    return found or None


@layer("LSTM", "GRU", "SimpleRNN", "RNN", "ConvLSTM1D", "ConvLSTM2D", "ConvLSTM3D", "CuDNNLSTM", "CuDNNGRU")
def recurrent(op: Op, x: Any, initial_state: Any = None, *, return_sequences: bool = False, return_state: bool = False, **settings: Any) -> Any:
    """Keras 2 gives the initial state as more inputs."""
    if isinstance(x, list):
        x, initial_state = x[0], [initial_state, *x[1:]]
        op.mask = op.mask[0] if isinstance(op.mask, list) else op.mask
    ys, last, states = run(op, op.layer, op.variables, x, _states(initial_state, ()), op.mask)
    op.result_mask = op.mask if return_sequences and isinstance(op.mask, Value) else None
    y = (flipped(op, ys) if settings.get("go_backwards") else ys) if return_sequences else last
    if settings.get("time_major") and return_sequences:
        y = op.Transpose(y, perm=[1, 0, *range(2, op.rank(y))])
    return [y, *states] if return_state else y


def flipped(op: Op, x: Value) -> Value:
    """The other way round in time."""
    return op.Slice(x, op.const([-1]), op.const([np.iinfo(np.int64).min]), op.const([1]), op.const([-1]))


@layer("Bidirectional")
def bidirectional(op: Op, x: Any, initial_state: Any = None, *, merge_mode: Any = "concat", **settings: Any) -> Any:
    if isinstance(x, list):
        x, initial_state = x[0], [initial_state, *x[1:]]
        op.mask = op.mask[0] if isinstance(op.mask, list) else op.mask
    (_, forward), (_, backward) = wrapped(op.layer)
    if not op.layer.config.get("backward_layer"):
        backward = Layer(backward.class_name, backward.name, {**backward.config, "go_backwards": not forward.config.get("go_backwards")}, backward.kind)
    given = _states(initial_state, ())
    half = len(given) // 2 if given else 0
    sequences = bool(forward.config.get("return_sequences"))
    results = []
    for attribute, inner, states in (("forward_layer", forward, given[:half] if given else None), ("backward_layer", backward,
        given[half:] if given else None)):
        own = {key[len(attribute) + 1:]: value for key, value in op.variables.items() if key.startswith(f"{attribute}/")}
        config = dict(inner.config)
        if sequences and op.context.generation < 3:
            config["zero_output_for_mask"] = True
        results.append(run(op, Layer(inner.class_name, inner.name, config, inner.kind), own, x, states, op.mask))
    (ys, last, states), (back_ys, back_last, back_states) = results
    if forward.config.get("go_backwards"):
        ys = flipped(op, ys)
    if not backward.config.get("go_backwards"):
        back_ys = flipped(op, back_ys)
    op.result_mask = op.mask if sequences and isinstance(op.mask, Value) and merge_mode is not None else None
    y, y_back = (ys, back_ys) if sequences else (last, back_last)
    merged = _merged(op, y, y_back, merge_mode)
    every = merged if isinstance(merged, list) else [merged]
    return [*every, *states, *back_states] if forward.config.get("return_state") else merged


def _merged(op: Op, y: Value, back: Value, mode: Any) -> Any:
    if mode is None:
        return [y, back]
    if mode == "concat":
        return op.Concat(y, back, axis=-1)
    if mode == "ave":
        return op.Mul(op.Add(y, back), op.scalar(0.5, y))
    return op.make({"sum": "Add", "mul": "Mul"}[mode], [y, back], {})


@layer("LSTMCell", "GRUCell", "SimpleRNNCell", "StackedRNNCells")
def cell_alone(op: Op, x: Value, states: Any, **settings: Any) -> Any:
    """One step."""
    cell = Recurrence(op, kind_of(op.layer, op), op.layer.config, op.variables)
    step, _ = STEPS[cell.kind](cell, op.Unsqueeze(x, op.const([1])))
    y, following = step(x, flat(states))
    return [y, *following]



"""RNN, GRU and LSTM as one step function, written out for short sequences and as a Loop for others; Scan as Loop; loops of known length written out."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, Mapping, constant
from isomorph.passes import shapes

recurrent = Mapping()
UNROLL = 16  # the longest sequence that is written out step by step

ACTIVATIONS: dict[str, Callable[[Builder, ir.Value, float | None, float | None], ir.Value]] = {
    "Relu": lambda op, x, a, b: op.Relu(x),
    "Tanh": lambda op, x, a, b: op.Tanh(x),
    "Sigmoid": lambda op, x, a, b: op.Sigmoid(x),
    "Affine": lambda op, x, a, b: op.Add(op.Mul(x, 1.0 if a is None else a), b or 0.0),
    "LeakyRelu": lambda op, x, a, b: op.LeakyRelu(x, alpha=0.01 if a is None else a),
    "ThresholdedRelu": lambda op, x, a, b: op.ThresholdedRelu(x, alpha=1.0 if a is None else a),
    "ScaledTanh": lambda op, x, a, b: op.Mul(op.Tanh(op.Mul(x, 1.0 if b is None else b)), 1.0 if a is None else a),
    "HardSigmoid": lambda op, x, a, b: op.HardSigmoid(x, alpha=0.2 if a is None else a, beta=0.5 if b is None else b),
    "Elu": lambda op, x, a, b: op.Elu(x, alpha=1.0 if a is None else a),
    "Softsign": lambda op, x, a, b: op.Softsign(x),
    "Softplus": lambda op, x, a, b: op.Softplus(x),
}


def _activation(op: Builder, names: list[str], alphas: list[float], betas: list[float], index: int, clip: float | None) -> Callable[[ir.Value], ir.Value]:
    def value(given: list[float]) -> float | None:
        return given[index] if index < len(given) else None

    function = {name.lower(): f for name, f in ACTIVATIONS.items()}[names[index].lower()]
    return lambda x: function(op, op.Min(op.Max(x, -clip), clip) if clip else x, value(alphas), value(betas))


def _gates(op: Builder, x: ir.Value, count: int) -> tuple[ir.Value, ...]:
    return op.Split(x, num_outputs=count, axis=1, _outputs=count)


def _lstm_step(op: Builder, size: int, f: list[Callable], peephole: ir.Value | None, input_forget: int) -> Callable:
    """Gates i, o, f, c; peepholes i, o, f."""

    def look(index: int, c: ir.Value) -> ir.Value | None:
        return None if peephole is None else op.Mul(op.Slice(peephole, [index * size], [(index + 1) * size], [0]), c)

    def plus(x: ir.Value, extra: ir.Value | None) -> ir.Value:
        return x if extra is None else op.Add(x, extra)

    def step(gates: ir.Value, h: ir.Value, r: ir.Value, rb: ir.Value | None, c: ir.Value) -> tuple[ir.Value, ir.Value]:
        gates = op.Add(gates, op.MatMul(h, r))
        gates = gates if rb is None else op.Add(gates, rb)
        i, o, forget, new = _gates(op, gates, 4)
        i = f[0](plus(i, look(0, c)))
        forget = op.Sub(op.const(np.float32(1)), i) if input_forget else f[0](plus(forget, look(2, c)))
        new_c = op.Add(op.Mul(forget, c), op.Mul(i, f[1](new)))
        o = f[0](plus(o, look(1, new_c)))
        return op.Mul(o, f[2](new_c)), new_c

    return step


def _gru_step(op: Builder, size: int, f: list[Callable], linear_before_reset: int) -> Callable:
    """Gates z, r, h."""

    def step(gates: ir.Value, h: ir.Value, r: ir.Value, rb: ir.Value | None, c: ir.Value) -> tuple[ir.Value, ir.Value]:
        def part(index: int, x: ir.Value) -> ir.Value:
            y = op.MatMul(x, op.Slice(r, [index * size], [(index + 1) * size], [1]))
            return y if rb is None else op.Add(y, op.Slice(rb, [index * size], [(index + 1) * size], [0]))

        z, reset, new = _gates(op, gates, 3)
        z = f[0](op.Add(z, part(0, h)))
        reset = f[0](op.Add(reset, part(1, h)))
        candidate = op.Mul(reset, part(2, h)) if linear_before_reset else part(2, op.Mul(reset, h))
        new = f[1](op.Add(new, candidate))
        return op.Add(op.Mul(op.Sub(op.const(np.float32(1)), z), new), op.Mul(z, h)), c

    return step


def _rnn_step(op: Builder, f: list[Callable]) -> Callable:
    def step(gates: ir.Value, h: ir.Value, r: ir.Value, rb: ir.Value | None, c: ir.Value) -> tuple[ir.Value, ir.Value]:
        y = op.Add(gates, op.MatMul(h, r))
        return f[0](y if rb is None else op.Add(y, rb)), c

    return step


def _network(
    op: Builder,
    x: ir.Value,
    w: ir.Value,
    r: ir.Value,
    b: ir.Value | None,
    lengths: ir.Value | None,
    h0: ir.Value | None,
    c0: ir.Value | None,
    steps: Callable[[int], Callable],
    gates: int,
    hidden_size: int,
    direction: str,
    layout: int,
    joined_bias: bool = True,
) -> list[ir.Value]:
    """Runs both directions; x is [time, batch, inputs]. `joined_bias` says that both biases are only ever added together.
    Returns Y [time, directions, batch, hidden], Y_h and Y_c."""
    if layout:
        x = op.Transpose(x, perm=[1, 0, 2])
        h0, c0 = (None if state is None else op.Transpose(state, perm=[1, 0, 2]) for state in (h0, c0))
    _, (time, _batch, _) = op.of(x)
    directions = 2 if direction == "bidirectional" else 1
    results = []
    for d in range(directions):
        backwards = direction == "reverse" or d == 1
        weight, recurrent_weight = (op.Transpose(op.Squeeze(op.Slice(m, [d], [d + 1], [0]), [0]), perm=[1, 0]) for m in (w, r))
        bias = None if b is None else op.Squeeze(op.Slice(b, [d], [d + 1], [0]), [0])
        wb, rb = (
            (None, None)
            if bias is None
            else (op.Slice(bias, [0], [gates * hidden_size], [0]), op.Slice(bias, [gates * hidden_size], [2 * gates * hidden_size], [0]))
        )
        if rb is not None and joined_bias:
            wb, rb = op.Add(wb, rb), None
        projected = op.MatMul(x, weight)
        projected = projected if wb is None else op.Add(projected, wb)
        h, c = (_initial(op, state, d, x, hidden_size) for state in (h0, c0))
        run = _written_out if isinstance(time, int) and time <= UNROLL else _looped
        results.append(run(op, projected, time, backwards, steps(d), h, c, recurrent_weight, rb, lengths))
    ys, hs, cs = zip(*results, strict=True)
    y = op.Concat(*ys, axis=1) if directions > 1 else ys[0]
    last_h = op.Concat(*hs, axis=0) if directions > 1 else hs[0]
    last_c = op.Concat(*cs, axis=0) if directions > 1 else cs[0]
    if layout:
        return [op.Transpose(y, perm=[2, 0, 1, 3]), op.Transpose(last_h, perm=[1, 0, 2]), op.Transpose(last_c, perm=[1, 0, 2])]
    return [y, last_h, last_c]


def _initial(op: Builder, state: ir.Value | None, d: int, x: ir.Value, size: int) -> ir.Value:
    if state is not None:
        return op.Squeeze(op.Slice(state, [d], [d + 1], [0]), [0])
    _, (_, batch, _) = op.of(x)
    if isinstance(batch, int):
        return op.const(np.zeros((batch, size), x.dtype.numpy()))
    return op.Expand(op.const(np.zeros((1, 1), x.dtype.numpy())), op.Concat(op.Gather(op.Shape(x), op.const([1])), op.const([size]), axis=0))


def _masked(op: Builder, t: Any, lengths: ir.Value | None, new: ir.Value, old: ir.Value) -> ir.Value:
    """Beyond the length of its sequence a state stays."""
    if lengths is None:
        return new
    alive = op.Unsqueeze(op.Greater(op.Cast(lengths, to=7), op.const(np.int64(t)) if isinstance(t, int) else t), [1])
    return op.Where(alive, new, old)


def _written_out(op, projected, time, backwards, step, h, c, r, rb, lengths):
    outs: list[Any] = [None] * time
    _, (_, batch, width) = op.of(projected)
    flat = isinstance(batch, int) and isinstance(width, int)  # then a step is a slice of rows
    rows = op.Reshape(projected, [time * batch, width]) if flat else projected
    for t in reversed(range(time)) if backwards else range(time):
        gates = op.Slice(rows, [t * batch], [(t + 1) * batch], [0]) if flat else op.Squeeze(op.Slice(projected, [t], [t + 1], [0]), [0])
        new_h, new_c = step(gates, h, r, rb, c)
        visible = _masked(op, t, lengths, new_h, op.Mul(new_h, 0.0))
        h, c = _masked(op, t, lengths, new_h, h), _masked(op, t, lengths, new_c, c) if new_c is not c else c
        outs[t] = visible if flat else op.Unsqueeze(visible, [0, 1])
    y = op.Concat(*outs, axis=0) if time > 1 else outs[0]
    y = op.Reshape(y, [time, 1, batch, op.of(h)[1][1]]) if flat else y
    return y, op.Unsqueeze(h, [0]), op.Unsqueeze(c, [0])


def _looped(op, projected, time, backwards, step, h, c, r, rb, lengths):
    """One Loop over time; outputs are collected in the order of the rounds."""
    count = op.const(np.int64(time)) if isinstance(time, int) else op.Squeeze(op.Gather(op.Shape(projected), op.const([0])), [0])
    i = ir.Value(name=op.context.unique("round"), type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([]))
    go = ir.Value(name=op.context.unique("go"), type=ir.TensorType(ir.DataType.BOOL), shape=ir.Shape([]))
    h_in, c_in = (ir.Value(name=op.context.unique(name), type=v.type, shape=v.shape) for name, v in (("h", h), ("c", c)))
    with op.body() as made:
        t = op.Sub(op.Sub(count, np.int64(1)), i) if backwards else i
        gates = op.Gather(projected, t, axis=0)
        new_h, new_c = step(gates, h_in, r, rb, c_in)
        visible = _masked(op, t, lengths, new_h, op.Mul(new_h, 0.0))
        h_out, c_out = _masked(op, t, lengths, new_h, h_in), _masked(op, t, lengths, new_c, c_in) if new_c is not c_in else op.Identity(c_in)
        outs = [op.Identity(go), op.Identity(h_out) if h_out is h_in else h_out, c_out, op.Unsqueeze(visible, [0])]
    body = ir.Graph([i, go, h_in, c_in], outs, nodes=made, name="step", opset_imports={"": shapes.OPSETS[""]})
    last_h, last_c, ys = op.Loop(count, op.const(np.bool_(True)), h, c, body=body, _outputs=3)
    last_h.type, last_h.shape, last_c.type, last_c.shape = h.type, h.shape, c.type, c.shape
    _, (batch, size) = op.of(h)
    ys.type, ys.shape = h.type, ir.Shape([time, 1, batch, size])
    if backwards:
        steps = op.Sub(op.Sub(count, np.int64(1)), op.Range(op.const(np.int64(0)), count, op.const(np.int64(1))))
        ys = op.Gather(ys, steps, axis=0)
    return ys, op.Unsqueeze(last_h, [0]), op.Unsqueeze(last_c, [0])


def _functions(op: Builder, default: list[str], per: int, d: int, activations: Any, alphas: Any, betas: Any, clip: float | None) -> list[Callable]:
    names = list(activations) if activations else default * 2
    return [_activation(op, names, list(alphas or []), list(betas or []), d * per + i, clip) for i in range(per)]


@recurrent("LSTM")
def lstm(
    op,
    x,
    w,
    r,
    b=None,
    lengths=None,
    h0=None,
    c0=None,
    p=None,
    *,
    hidden_size=None,
    direction="forward",
    activations=None,
    activation_alpha=None,
    activation_beta=None,
    clip=None,
    input_forget=0,
    layout=0,
):
    size = hidden_size or op.static(r)[2]

    def steps(d: int) -> Callable:
        f = _functions(op, ["Sigmoid", "Tanh", "Tanh"], 3, d, activations, activation_alpha, activation_beta, clip)
        return _lstm_step(op, size, f, None if p is None else op.Squeeze(op.Slice(p, [d], [d + 1], [0]), [0]), input_forget)

    return _network(op, x, w, r, b, lengths, h0, c0, steps, 4, size, direction, layout)


@recurrent("GRU")
def gru(
    op,
    x,
    w,
    r,
    b=None,
    lengths=None,
    h0=None,
    *,
    hidden_size=None,
    direction="forward",
    activations=None,
    activation_alpha=None,
    activation_beta=None,
    clip=None,
    linear_before_reset=0,
    layout=0,
):
    size = hidden_size or op.static(r)[2]

    def steps(d: int) -> Callable:
        return _gru_step(op, size, _functions(op, ["Sigmoid", "Tanh"], 2, d, activations, activation_alpha, activation_beta, clip), linear_before_reset)

    return _network(op, x, w, r, b, lengths, h0, None, steps, 3, size, direction, layout, joined_bias=False)[:2]


@recurrent("RNN")
def rnn(
    op,
    x,
    w,
    r,
    b=None,
    lengths=None,
    h0=None,
    *,
    hidden_size=None,
    direction="forward",
    activations=None,
    activation_alpha=None,
    activation_beta=None,
    clip=None,
    layout=0,
):
    size = hidden_size or op.static(r)[2]

    def steps(d: int) -> Callable:
        return _rnn_step(op, _functions(op, ["Tanh"], 1, d, activations, activation_alpha, activation_beta, clip))

    return _network(op, x, w, r, b, lengths, h0, None, steps, 1, size, direction, layout)[:2]


# ---- loops


def copy_body(op: Builder, body: ir.Graph, inputs: list[ir.Value | None]) -> list[ir.Value]:
    """Appends the nodes of a body once more, with `inputs` in place of its inputs; returns what stands for its outputs."""
    values: dict[ir.Value, ir.Value | None] = dict(zip(body.inputs, inputs, strict=True))
    for value in body.initializers.values():
        values[value] = op.const(value.const_value, name=value.name)
    for node in body:
        nested = {name: attribute.value for name, attribute in node.attributes.items() if attribute.type == ir.AttributeType.GRAPH}
        attributes = {name: nested.get(name) or attribute.value for name, attribute in node.attributes.items()}
        for name, graph in nested.items():
            attributes[name] = _copy_graph(op, graph, values)
        outs = op.make(
            node.op_type, [values.get(v, v) if v is not None else None for v in node.inputs], attributes, outputs=len(node.outputs), domain=node.domain
        )
        for old, new in zip(node.outputs, outs if isinstance(outs, tuple) else (outs,), strict=True):
            values[old] = new
            if new.type is None:
                new.type, new.shape = old.type, old.shape
    return [values.get(v, v) for v in body.outputs]  # type: ignore[misc]


def _copy_graph(op: Builder, graph: ir.Graph, outer: dict) -> ir.Graph:
    clone = graph.clone(allow_outer_scope_values=True)
    for node in clone.all_nodes():
        for index, value in enumerate(node.inputs):
            if value in outer:
                node.replace_input_with(index, outer[value])
    for index, value in enumerate(list(clone.outputs)):
        if value in outer:
            clone.outputs[index] = outer[value]
    return clone


@recurrent("Scan")
def scan(op, *xs, body, num_scan_inputs, scan_input_axes=None, scan_input_directions=None, scan_output_axes=None, scan_output_directions=None):
    """Written out where the length is known, which it nearly always is."""
    states = len(xs) - num_scan_inputs
    axes = list(scan_input_axes or [0] * num_scan_inputs)
    lengths = [op.of(x)[1][axis] for x, axis in zip(xs[states:], axes, strict=True)]
    length = next((n for n in lengths if isinstance(n, int)), None)
    outputs = len(op.node.outputs) - states
    if length is None or length > 64 or length == 0:
        op.reject("a Scan over an unknown or long sequence")
    backwards = list(scan_input_directions or [0] * num_scan_inputs)
    carried = list(xs[:states])
    collected: list[list[Any]] = [[] for _ in range(outputs)]
    for t in range(length):
        items = [
            op.Squeeze(op.Slice(x, [at], [at + 1], [axis]), [axis])
            for x, axis, back in zip(xs[states:], axes, backwards, strict=True)
            for at in [length - 1 - t if back else t]
        ]
        results = copy_body(op, body, [*carried, *items])
        carried = results[:states]
        for pile, value in zip(collected, results[states:], strict=True):
            pile.append(value)
    out_axes, out_back = list(scan_output_axes or [0] * outputs), list(scan_output_directions or [0] * outputs)
    stacked = []
    for pile, axis, back in zip(collected, out_axes, out_back, strict=True):
        axis %= len(op.of(pile[0])[1]) + 1
        parts = [op.Unsqueeze(value, [axis]) for value in (pile[::-1] if back else pile)]
        stacked.append(op.Concat(*parts, axis=axis) if len(parts) > 1 else parts[0])
    return [*carried, *stacked]


@recurrent("Loop")
def loop(op, count=None, condition=None, *carried, body):
    """Written out where the number of rounds is known, small, and the body never ends it early."""
    rounds = None if count is None else constant(count)
    first = True if condition is None else constant(condition)
    goes_on = constant(body.outputs[0]) if body.outputs[0].is_initializer() else None
    through = _origin(body.outputs[0]) is body.inputs[1]
    if rounds is None or first is None or not (through or (goes_on is not None and bool(goes_on))) or int(rounds) > UNROLL:
        return NotImplemented
    total = int(rounds) if bool(np.asarray(first).reshape(-1)[0]) else 0
    state = list(carried)
    collected: list[list[Any]] = [[] for _ in range(len(body.outputs) - 1 - len(carried))]
    for i in range(total):
        results = copy_body(op, body, [op.const(np.int64(i)), op.const(np.bool_(True)), *state])
        state = results[1 : len(carried) + 1]
        for pile, value in zip(collected, results[len(carried) + 1 :], strict=True):
            pile.append(op.Unsqueeze(value, [0]))
    if total == 0 and collected:
        return NotImplemented
    return [*state, *(op.Concat(*pile, axis=0) if len(pile) > 1 else pile[0] for pile in collected)]


def _origin(value: ir.Value) -> ir.Value:
    while value.producer() is not None and value.producer().op_type in ("Identity", "Cast") and value.producer().domain == "":
        value = value.producer().inputs[0]
    return value

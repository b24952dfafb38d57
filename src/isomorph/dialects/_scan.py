"""One step of a recurrence, repeated by a Scan: what every dialect does whose cells are not one of ONNX's."""
from __future__ import annotations

from collections.abc import Callable, Sequence

import onnx_ir as ir

from isomorph.dialects._lower import Builder

Value = ir.Value
Step = Callable[[Value, list[Value]], tuple[Value, list[Value]]]
StepOfSeveral = Callable[[list[Value], list[Value]], tuple[Value, list[Value]]]


def scanned(op: Builder, x: Value, states: Sequence[Value], step: Step, *, axis: int, backwards: bool = False) -> tuple[Value, list[Value]]:
    """Runs `step` along `axis` of x, [time, batch, ...] or [batch, time, ...]: all outputs along the same axis, and the last states."""
    return scanned_together(op, [x], states, lambda slices, inner: step(slices[0], inner), axis=axis, backwards=backwards)


def scanned_together(op: Builder, xs: Sequence[Value], states: Sequence[Value], step: StepOfSeveral, *, axis: int,
                     backwards: bool = False) -> tuple[Value, list[Value]]:
    """The same along several sequences at once."""
    slices = [Value(name=op.context.unique("step"), type=x.type, shape=ir.Shape([dim for place, dim in enumerate(x.shape) if place != axis])) for x in xs]
    inner = [Value(name=op.context.unique("state"), type=state.type, shape=state.shape) for state in states]
    with op.body() as made:
        y, following = step(slices, inner)
        results = [op.Identity(value) for value in (*following, y)]
        kinds = [*(state.type for state in states), y.type if isinstance(y.type, ir.TensorType) else xs[0].type]
    body = ir.Graph([*inner, *slices], results, nodes=made, name=op.context.unique("body"), opset_imports={"": 1})
    for result, kind in zip(results, kinds, strict=True):
        result.type, result.shape = kind, None
    direction, count = int(backwards), len(xs)
    *last, ys = op.Scan(*states, *xs, body=body, num_scan_inputs=count, scan_input_axes=[axis] * count, scan_output_axes=[axis],
                        scan_input_directions=[direction] * count, scan_output_directions=[direction], _outputs=len(states) + 1)
    return ys, last

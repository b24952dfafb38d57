"""Loops whose number of rounds only the run tells, as ONNX's Loop: of printed code (`while`, `for`) and of exported programs (`while_loop`)."""
from __future__ import annotations

import ast
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Rejected
from isomorph.dialects.torch.lowering import scalar

if TYPE_CHECKING:
    from isomorph.dialects.torch.interpreter import Interpreter
    from isomorph.dialects.torch.lowering import Lowering

NUMBERS = (bool, int, float)
ATTEMPTS = 4                              # how often the shapes of carried values may turn out to be less fixed than thought
Step = Callable[[ir.Value, list[ir.Value]], tuple[Any, list[Any], list[ir.Value]]]


class Pile:
    """A list to which every round of a loop appends one tensor: they stand along the first axis of `value`."""

    __slots__ = ("value",)

    def __init__(self, value: ir.Value):
        self.value = value


def emit_loop(lowering: Lowering, count: Any, condition: Any, start: Sequence[Any], step: Step) -> list[ir.Value]:
    """`step(round, values)` makes the nodes of one round and answers whether to go on, the values after it, and values to collect. Carried values may have
    other shapes then, in which case the round is made again with what they have in common. Raises `Rejected` where their ranks differ.
    Returns the carried values, then the collected ones along a new first axis."""
    outer = lowering.current
    op = lowering.builder("loop")
    first = [value if isinstance(value, ir.Value) else op.const(np.asarray(value)) for value in start]
    shapes = [value.shape for value in first]
    for _ in range(ATTEMPTS):
        inputs = [ir.Value(name=lowering.unique(f"{lowering.scope}/{name}"), type=ir.TensorType(dtype), shape=ir.Shape([]))
                  for name, dtype in (("round", ir.DataType.INT64), ("go", ir.DataType.BOOL))]
        inputs += [ir.Value(name=lowering.unique(f"{lowering.scope}/carried_{place}"), type=value.type, shape=shape)
                   for place, (value, shape) in enumerate(zip(first, shapes, strict=True))]
        nodes: list[ir.Node] = []
        lowering.current = nodes
        try:
            go, results, collected = step(inputs[0], inputs[2:])
            inner = lowering.builder("round")
            finals = [inner.Identity(go if isinstance(go, ir.Value) else inner.const(np.asarray(bool(go))))]
            for value, result in zip(first, results, strict=True):
                result = result if isinstance(result, ir.Value) else inner.const(np.asarray(result, value.dtype.numpy() if value.dtype is not None else None))
                finals.append(inner.Identity(result) if result.dtype == value.dtype else inner.Cast(result, to=value.dtype))
            collected = [inner.Identity(value) for value in collected]
        finally:
            lowering.current = outer
        wider = [_common(shape, result.shape) for shape, result in zip(shapes, finals[1:], strict=True)]
        if all(_same(shape, other) for shape, other in zip(shapes, wider, strict=True)):
            break
        shapes = wider
        for node in nodes:                        # of a round that is made again: its constants are used no more
            for place in range(len(node.inputs)):
                node.replace_input_with(place, None)
    else:
        raise Rejected("the shapes of what it carries never settle")
    body = ir.Graph(inputs, [*finals, *collected], nodes=nodes, name=lowering.unique(f"{lowering.scope}/body"))
    made = op.make("Loop", [count, condition, *first], {"body": body}, outputs=len(first) + len(collected), dtype=ir.DataType.FLOAT)
    made = list(made) if isinstance(made, tuple) else [made]
    for value, result, shape in zip(made, finals[1:], shapes, strict=False):
        value.dtype, value.shape = result.dtype, shape
    for value, result in zip(made[len(first):], collected, strict=True):
        value.dtype, value.shape = result.dtype, ir.Shape([None, *result.shape]) if result.shape is not None else None
    return made


def _common(a: Any, b: Any) -> Any:
    if a is None or b is None:
        return None
    if len(a) != len(b):
        raise Rejected(f"a value of {len(a)} axes has {len(b)} after a round")
    return ir.Shape([x if x == y else None for x, y in zip(a, b, strict=True)])


def _same(a: Any, b: Any) -> bool:
    return (a is None) == (b is None) and (a is None or list(a) == list(b))


def carried(machine: Interpreter, body: list[ast.stmt], env: dict[str, Any]) -> list[str]:
    """The names that the body assigns and that stood before it, and the tensors that it may change in place. Raises `Rejected` for what no loop carries."""
    from isomorph.dialects.torch.program_values import Cell
    assigned = {node.id: None for statement in body for node in ast.walk(statement) if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)}
    names = [name for name in assigned if name in env]
    for name in names:
        if not isinstance(env[name], (Cell, ir.Value, *NUMBERS)):
            raise Rejected(f"it changes {name}, which is a {type(env[name]).__name__.lower()}")
    return names


def run_loop(machine: Interpreter, statement: ast.While | ast.For, env: dict[str, Any], count: Any, index: Callable[[ir.Value], Any] | None) -> None:
    """A loop of printed code: `count` rounds at most (None: until its test fails), `index(round)` is what the variable of a `for` is in a round."""
    from isomorph.dialects.torch.program_values import Cell
    names = carried(machine, statement.body, env)
    tensors = {name: isinstance(env[name], Cell) for name in names}
    kinds = {name: type(env[name]) for name in names if isinstance(env[name], NUMBERS)}
    before = (dict(machine.attributes), dict(machine.changed))
    outside = {id(cell) for cell in (*machine.weights.values(), *_cells(env.values()))} | set(before[1])
    lists = {name: (value, list(value)) for name, value in env.items() if isinstance(value, list)}
    grown: list[str] = []

    def test(inner: dict[str, Any]) -> Any:
        return True if isinstance(statement, ast.For) else machine.truth(machine.evaluate(statement.test, inner))

    def step(place: ir.Value, values: list[ir.Value]) -> tuple[Any, list[Any], list[ir.Value]]:
        inner = dict(env)
        for name, value in zip(names, values, strict=True):
            inner[name] = Cell(value) if tensors[name] else scalar(value)
        if index is not None and isinstance(statement, ast.For):
            machine.assign(statement.target, index(place), inner)
        machine.execute(statement.body, inner)
        if machine.attributes != before[0] or any(machine.changed.get(key) is not before[1].get(key) for key in outside):
            raise Rejected("it changes in place what stands outside of it")
        grown[:], collected = _appended(machine, lists)
        return test(inner), [machine.plain(inner[name]) for name in names], collected

    op = machine.lowering.builder("loop")
    condition = test(env)
    start = [machine.plain(env[name]) for name in names]
    start = [value if isinstance(value, ir.Value) else op.const(np.asarray(value, {bool: np.bool_, int: np.int64, float: np.float64}[kinds[name]]))
             for name, value in zip(names, start, strict=True)]
    made = emit_loop(machine.lowering, count, None if condition is True else condition, start, step)
    machine.attributes, machine.changed = before
    for name, value in zip(names, made, strict=False):
        env[name] = Cell(value) if tensors[name] else scalar(value)
    for name, value in zip(grown, made[len(names):], strict=True):
        env[name] = Pile(value)


def _cells(items: Iterable[Any]) -> Iterator[Any]:
    from isomorph.dialects.torch.program_values import Cell
    for item in items:
        if isinstance(item, Cell):
            yield item
        elif isinstance(item, (list, tuple)):
            yield from _cells(item)


def _appended(machine: Interpreter, lists: dict[str, tuple[list[Any], list[Any]]]) -> tuple[list[str], list[ir.Value]]:
    """The lists that a round has appended a tensor to, and these tensors; the lists are as they were afterwards. Raises `Rejected` for other changes."""
    names, values = [], []
    for name, (now, then) in lists.items():
        more = now[len(then):]
        if len(now) == len(then) and all(a is b for a, b in zip(now, then, strict=True)):
            continue
        value = machine.plain(more[0]) if len(more) == 1 and not then else None
        now[:] = then
        if not isinstance(value, ir.Value):
            raise Rejected(f"it changes the list {name}")
        names.append(name)
        values.append(value)
    return names, values

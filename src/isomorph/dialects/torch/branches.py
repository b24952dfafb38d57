"""Branches on values of the run: both sides are executed, and what they leave behind differently comes out of an If."""
from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.lowering import scalar, static
from isomorph.dialects.torch.program_functions import Machine
from isomorph.dialects.torch.program_values import NUMBERS, UNKNOWN, Cell, Raised, Returned, Stop, Unchanged, Unknown, common_shape
from isomorph.dialects.torch.to_onnx import result_type
from isomorph.report import Finding, Severity


class Branching(Machine):
    """A machine that can follow both sides of a condition."""

    def execute(self, body: list[ast.stmt], env: dict[str, Any]) -> None:
        """Statements, one after the other: the interpreter knows how."""
        raise NotImplementedError

    def truth(self, value: Any) -> Any:
        """A condition as True, False, or the value that decides it at run time."""
        if isinstance(value, Cell):
            value = self.value(value)
        if isinstance(value, Unchanged):
            return True
        if isinstance(value, ir.Value):
            value = static(value)
        return value if isinstance(value, (ir.Value, Unknown)) else bool(value)

    def branch(self, condition: ir.Value, statement: ast.If, env: dict[str, Any]) -> None:
        """Both bodies are executed into graphs of their own; what they leave behind differently comes out of the If."""
        before = (self.attributes, self.changed, self.lowering.current)
        results: list[Any] = []
        for body in (statement.body, statement.orelse):
            inner = dict(env)
            self.attributes, self.changed, self.lowering.current = dict(before[0]), dict(before[1]), []
            try:
                self.execute(body, inner)
                results.append((inner, self.attributes, self.changed, self.lowering.current))
            except Raised as raised:
                results.append(raised)
            except Returned:
                self.lowering.block("return", "inside a branch on a value of the run")
                raise Stop from None
            finally:
                self.attributes, self.changed, self.lowering.current = before
        alive = [result for result in results if not isinstance(result, Raised)]
        if len(alive) < 2:
            if not alive:
                raise results[0]
            text = next(str(result) for result in results if isinstance(result, Raised))
            self.note("torch.assumed", f"the program would raise an error here on some inputs, the graph does not: {text[:120]}")
            inner, self.attributes, self.changed, nodes = alive[0]
            env.update(inner)
            self.lowering.current.extend(nodes)
            return
        self.join(condition, alive, env)

    def join(self, condition: ir.Value, sides: list[tuple], env: dict[str, Any]) -> None:
        outputs: list[tuple[ir.Value, ir.Value]] = []

        def pair(a: Any, b: Any) -> Callable[[list[ir.Value]], Any]:
            """How the joined value is made of the outputs of the If."""
            if a is b or (type(a) is type(b) and isinstance(a, (*NUMBERS, str, type(None))) and a == b):
                return lambda made: a
            if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)) and len(a) == len(b):
                parts = [pair(x, y) for x, y in zip(a, b, strict=True)]
                return lambda made: type(a)(part(made) for part in parts)
            x, y = (side.get(id(item), item.value) if isinstance(item, Cell) else item for item, side in ((a, sides[0][2]), (b, sides[1][2])))
            if x is y and isinstance(x, ir.Value):
                return lambda made: a
            if not all(isinstance(item, (ir.Value, *NUMBERS)) for item in (x, y)) or isinstance(a, Cell) is not isinstance(b, Cell):
                return lambda made: UNKNOWN
            place = len(outputs)
            outputs.append((x, y))
            return (lambda made: Cell(made[place])) if isinstance(a, Cell) else (lambda made: scalar(made[place]))

        names = [name for name in sides[0][0] if name in sides[1][0]]
        joined = {name: pair(sides[0][0][name], sides[1][0][name]) for name in names}
        keys = set(sides[0][1]) | set(sides[1][1])
        attributes = {key: pair(*(side[1].get(key, self.attributes.get(key, UNKNOWN)) for side in sides)) for key in keys}
        changes = {key: pair(*(Cell(side[2][key]) if key in side[2] else Cell(self.changed[key]) if key in self.changed else UNKNOWN for side in sides))
                   for key in set(sides[0][2]) | set(sides[1][2])}
        made = self.emit_if(condition, [(list(side[3]), [output[place] for output in outputs]) for place, side in enumerate(sides)])
        env.clear()
        env.update({name: make(made) for name, make in joined.items()})
        self.attributes = {key: make(made) for key, make in attributes.items()}
        self.changed = {key: cell.value for key, make in changes.items() if isinstance(cell := make(made), Cell)}

    def emit_if(self, condition: ir.Value, sides: list[tuple[list[ir.Node], list[Any]]]) -> list[ir.Value]:
        """An If with these bodies; values that differ in type are brought to one."""
        count = len(sides[0][1])
        outer = self.lowering.current
        if not count:
            return []
        types = [result_type(*(x for x in (sides[0][1][place], sides[1][1][place]))) for place in range(count)]
        graphs = []
        for nodes, values in sides:
            self.lowering.current = nodes
            op = self.lowering.builder("branch")
            finals = []
            for value, dtype in zip(values, types, strict=True):
                value = value if isinstance(value, ir.Value) else op.const(np.asarray(value, dtype.numpy()))
                finals.append(op.Cast(value, to=dtype) if value.dtype != dtype else op.Identity(value))
            graphs.append(ir.Graph([], finals, nodes=nodes, name=self.lowering.unique(f"{self.lowering.scope}/branch")))
        self.lowering.current = outer
        op = self.lowering.builder("if")
        made = op.make("If", [op.Reshape(condition, op.const(np.zeros(0, np.int64))) if condition.shape is None or len(condition.shape) else condition],
                       {"then_branch": graphs[0], "else_branch": graphs[1]}, outputs=count, dtype=ir.DataType.FLOAT)
        made = [made] if count == 1 else list(made)
        for value, dtype, a, b in zip(made, types, graphs[0].outputs, graphs[1].outputs, strict=True):
            value.dtype, value.shape = dtype, common_shape(a.shape, b.shape)
        return made

    def note(self, code: str, message: str) -> None:
        finding = Finding(code, Severity.LOW, self.lowering.scope or "forward", message)
        if finding not in self.lowering.findings:
            self.lowering.findings.append(finding)

"""Executes the printed code of TorchScript over our own values: the syntax tree is walked, nothing of it is ever evaluated by Python.

Methods and functions are inlined, attributes and constants resolved, branches taken whose condition is known, and loops of a known length unrolled. A branch on
a value of the run becomes an If whose bodies are both executed. What an object is assigned lives in an overlay, so that bodies do not disturb each other.
The grammar: torch/csrc/jit/serialization/python_print.cpp.
"""
from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects.torch.loops import Pile, run_loop
from isomorph.dialects.torch.lowering import Lowering, Rejected, scalar, static, symbol
from isomorph.dialects.torch.to_onnx import SCALAR_TYPES, result_type
from isomorph.report import Finding, Severity

MOST_STEPS = 2_000_000                     # statements executed
MOST_UNROLLED = 4096
DEEPEST = 200                              # calls inside calls


class Stop(Exception):
    """The program cannot be followed beyond this point; the blockers say why."""


class Raised(Exception):
    """The program raises an exception."""


class Returned(Exception):
    """A method gives its result."""

    def __init__(self, value: Any):
        super().__init__()
        self.value = value


class Cell:
    """A tensor of the program. Operations in place give it another value."""

    __slots__ = ("origin", "value")

    def __init__(self, value: Any, origin: tuple | None = None):
        self.value, self.origin = value, origin       # origin: (cell, how a new value is written back), for views


class Obj:
    """An object of a class of the file: a module, or what the code makes."""

    __slots__ = ("fields", "kind", "path")

    def __init__(self, kind: str, fields: dict[str, Any], path: str = ""):
        self.kind, self.fields, self.path = kind, fields, path


class Unknown:
    """What cannot be told any more: different objects of two branches, or a result that could not be mapped."""


class Unchanged:
    """A number that an object keeps between calls, taken to be what the call before left."""


class Range:
    """range() between bounds of the run."""

    __slots__ = ("high", "low", "step")

    def __init__(self, low: Any, high: Any, step: int):
        self.low, self.high, self.step = low, high, step

    def count(self, machine: Interpreter) -> Any:
        """How many numbers it has."""
        return machine.tensor(machine.numbers("__range_length", [self.low, self.high, self.step], {}))

    def item(self, machine: Interpreter) -> Callable[[ir.Value], Any]:
        """The number of a round."""
        return lambda place: machine.numbers("__derive_index", [scalar(place), self.low, self.step], {})


UNKNOWN = Unknown()
NUMBERS = (bool, int, float)

# Functions of numbers, lists and texts, where no tensor takes part
PLAIN: dict[str, Callable[..., Any]] = {
    "add": operator.add, "sub": operator.sub, "mul": operator.mul, "div": operator.truediv, "floordiv": operator.floordiv, "remainder": operator.mod,
    "pow": operator.pow, "neg": operator.neg, "eq": operator.eq, "ne": operator.ne, "lt": operator.lt, "le": operator.le, "gt": operator.gt, "ge": operator.ge,
    "__not__": operator.not_, "__and__": operator.and_, "__or__": operator.or_, "__xor__": operator.xor, "ceil": math.ceil,
    "floor": math.floor, "sqrt": math.sqrt, "log": math.log, "exp": math.exp, "round": round, "abs": abs, "Int": int, "Float": float, "Bool": bool,
    "str": str, "IntImplicit": int,
    "FloatImplicit": float, "ScalarImplicit": lambda x: x, "__contains__": lambda items, item: item in items, "__getitem__": lambda items, place: items[place],
    "__range_length": lambda low, high, step: max(0, -(-(high - low) // step)), "__derive_index": lambda place, start, step: start + place * step,
    "keys": lambda d: list(d), "values": lambda d: list(d.values()), "items": lambda d: list(d.items()), "floor_divide": operator.floordiv,
    "__lshift__": operator.lshift,
    "fmod": math.fmod, "item": lambda x: x, "trunc": math.trunc, "sin": math.sin, "cos": math.cos, "is_grad_enabled": lambda: False,
}
# The same where a number is known only at run time: the rule for tensors
DYNAMIC = {"add": "add", "sub": "sub", "mul": "mul", "div": "div", "floordiv": "floor_divide", "floor_divide": "floor_divide", "remainder": "remainder",
           "neg": "neg", "eq": "eq", "ne": "ne", "lt": "lt", "le": "le", "gt": "gt", "ge": "ge", "__not__": "logical_not", "__and__": "logical_and",
           "__or__": "logical_or", "Bool": "tensor_bool", "Int": "tensor_long", "Float": "tensor_float", "IntImplicit": "tensor_long",
           "FloatImplicit": "tensor_float", "item": "clone", "ScalarImplicit": "clone", "ceil": "ceil", "floor": "floor", "sqrt": "sqrt", "pow": "pow",
           "min": "minimum", "max": "maximum", "abs": "abs"}
# Methods of tensors that have no effect on what a model computes
IGNORED = {"set_grad_enabled", "manual_seed", "warn", "_set_grad_enabled", "retain_grad"}


class Interpreter:
    """One execution of a method of a program. `program` has `function(name)`, `method(kind, name)`, `constant(place)` and `class_constant(kind, name)`."""

    def __init__(self, program: Any, lowering: Lowering):
        self.program, self.lowering = program, lowering
        self.attributes: dict[tuple[int, str], Any] = {}
        self.changed: dict[int, Any] = {}             # of cells that were changed in place
        self.weights: dict[int, Cell] = {}
        self.keep: list[Any] = []                     # ids are keys above: what they belong to must live
        self.assigned: dict[tuple[int, str], Obj] = {}
        self.steps = self.depth = 0

    # ---- values

    def value(self, cell: Cell) -> Any:
        return self.changed.get(id(cell), cell.value)

    def plain(self, item: Any) -> Any:
        """Cells as values, inside lists as well."""
        if isinstance(item, Cell):
            return self.value(item)
        return [self.plain(part) for part in item] if isinstance(item, (list, tuple)) else item

    def cells(self, item: Any) -> Any:
        """Values as cells."""
        if isinstance(item, ir.Value):
            return item if "scalar" in item.meta else Cell(item)
        return [self.cells(part) for part in item] if isinstance(item, (list, tuple)) else item

    def aten(self, name: str, args: list[Any], keywords: dict[str, Any]) -> Any:
        """An operator on tensors. What cannot be mapped is noted, and its result is unknown."""
        in_place = name.endswith("_") and not name.endswith("__") and ("aten", name) not in self.lowering.mapping.rules
        plain, more = [self.plain(arg) for arg in args], {key: self.plain(arg) for key, arg in keywords.items()}
        if any(has_unknown(arg) for arg in (*plain, *more.values())):
            return UNKNOWN
        target = name[:-1] if in_place else name
        try:
            if target == "copy":
                result = self.lowering.call("expand_as", [self.lowering.call("type_as", [self.tensor(plain[1]), plain[0]], {}), plain[0]], {})
            elif target in ("zero", "fill"):
                result = self.lowering.call("full_like", [plain[0], plain[1] if target == "fill" else 0], {})
            else:
                result = self.lowering.call(target, plain, more)
        except Rejected as why:
            self.lowering.block(f"aten::{name}", str(why))
            return UNKNOWN
        if in_place and isinstance(args[0], Cell):
            kept = self.lowering.call("type_as", [result, plain[0]], {}) if isinstance(result, ir.Value) else result
            self.write(args[0], kept)
            return args[0]
        made = self.cells(result)
        if name in VIEWS and isinstance(made, Cell) and isinstance(args[0], Cell):
            made.origin = (args[0], name, plain[1:], more)
        return made

    def tensor(self, item: Any) -> ir.Value:
        return item if isinstance(item, ir.Value) else self.lowering.call("scalar_tensor", [item], {})

    def write(self, cell: Cell, value: Any) -> None:
        """Another value for a tensor, and for what it is a view of."""
        self.keep.append(cell)
        self.changed[id(cell)] = value
        if cell.origin is None:
            return
        base, name, rest, more = cell.origin
        whole = self.value(base)
        try:
            self.write(base, written_back(self.lowering, name, whole, value, rest, more))
        except Rejected as why:
            self.lowering.block(f"aten::{name}", f"it is written to in place: {why}")

    def attribute(self, owner: Any, name: str) -> Any:
        if isinstance(owner, Obj):
            key = (id(owner), name)
            if key in self.attributes:
                return self.attributes[key]
            if name in owner.fields:
                return self.stored(owner.fields[name], f"{owner.path}.{name}" if owner.path else name, owner)
            found = self.program.class_constant(owner.kind, name)
            if found is not None:
                return self.evaluate(found, {})
        if isinstance(owner, Cell):
            return self.call_function("ops.prim." + name, [owner], {})
        if isinstance(owner, tuple) and hasattr(owner, name):
            return getattr(owner, name)
        self.lowering.block(f"attribute {name}", f"{type(owner).__name__.lower()} has none of that name")
        return UNKNOWN

    def stored(self, given: Any, path: str, owner: Obj | None = None) -> Any:
        """What the file keeps in an attribute, as values of the program; a tensor once for all who look at it."""
        if self.program.is_tensor(given):
            if id(given) not in self.weights:
                tensor = self.program.tensor(given, path)
                self.weights[id(given)] = Cell(self.lowering.weight(tensor, path))
                self.keep.append(given)
            return self.weights[id(given)]
        if isinstance(given, (list, tuple)):
            return type(given)(self.stored(item, f"{path}.{place}") for place, item in enumerate(given))
        if isinstance(given, dict):
            return {key: self.stored(item, f"{path}.{key}") for key, item in given.items()}
        return given

    # ---- statements

    def call_method(self, owner: Obj, name: str, args: list[Any], keywords: dict[str, Any] | None = None) -> Any:
        function = self.program.method(owner.kind, name)
        if function is None:
            self.lowering.block(f"{owner.kind}.{name}", "the file has no code of that name")
            return UNKNOWN
        scope, self.lowering.scope = self.lowering.scope, owner.path or self.lowering.scope
        try:
            return self.run(function, [owner, *args], keywords or {})
        finally:
            self.lowering.scope = scope

    def run(self, function: ast.FunctionDef, args: list[Any], keywords: dict[str, Any]) -> Any:
        """The result of a function of the file."""
        self.depth += 1
        if self.depth > DEEPEST:
            self.lowering.block(function.name, f"calls more than {DEEPEST} deep")
            raise Stop
        names = [argument.arg for argument in function.args.args]
        defaults = dict(zip(names[len(names) - len(function.args.defaults):], function.args.defaults, strict=True))
        env = dict(zip(names, args, strict=False)) | keywords
        for name in names:
            if name not in env and name in defaults:
                env[name] = self.evaluate(defaults[name], {})
        try:
            self.execute(function.body, env)
        except Returned as returned:
            return returned.value
        finally:
            self.depth -= 1
        return None

    def execute(self, body: list[ast.stmt], env: dict[str, Any]) -> None:
        for statement in body:
            self.steps += 1
            if self.steps > MOST_STEPS:
                self.lowering.block("code", f"more than {MOST_STEPS:,} statements")
                raise Stop
            handler = getattr(self, f"do_{type(statement).__name__.lower()}", None)
            if handler is None:
                self.lowering.block(type(statement).__name__, "a statement that TorchScript does not print")
                raise Stop
            handler(statement, env)

    def do_pass(self, statement: ast.Pass, env: dict[str, Any]) -> None:
        """Nothing."""

    def do_return(self, statement: ast.Return, env: dict[str, Any]) -> None:
        raise Returned(self.evaluate(statement.value, env) if statement.value else None)

    def do_expr(self, statement: ast.Expr, env: dict[str, Any]) -> None:
        self.evaluate(statement.value, env)

    def do_assert(self, statement: ast.Assert, env: dict[str, Any]) -> None:
        """What a program asserts about itself is taken to hold."""

    def do_with(self, statement: ast.With, env: dict[str, Any]) -> None:
        self.execute(statement.body, env)

    def do_assign(self, statement: ast.Assign, env: dict[str, Any]) -> None:
        value = self.evaluate(statement.value, env)
        for target in statement.targets:
            self.assign(target, value, env)

    def do_annassign(self, statement: ast.AnnAssign, env: dict[str, Any]) -> None:
        if statement.value is not None:
            self.assign(statement.target, self.evaluate(statement.value, env), env)

    def assign(self, target: ast.expr, value: Any, env: dict[str, Any]) -> None:
        if isinstance(target, ast.Name):
            env[target.id] = value
        elif isinstance(target, (ast.Tuple, ast.List)):
            items = [UNKNOWN] * len(target.elts) if isinstance(value, Unknown) else list(value)
            if len(items) < len(target.elts):
                raise Stop
            for part, item in zip(target.elts, items, strict=False):
                self.assign(part, item, env)
        elif isinstance(target, ast.Attribute) and isinstance(owner := self.evaluate(target.value, env), Obj):
            self.keep.append(owner)
            self.attributes[id(owner), target.attr] = value
            self.assigned[id(owner), target.attr] = owner
        elif isinstance(target, ast.Subscript) and isinstance(owner := self.evaluate(target.value, env), (list, dict)):
            owner[self.evaluate(target.slice, env)] = value
        else:
            self.lowering.block("assignment", "to what is neither a name nor an attribute")
            raise Stop

    def do_if(self, statement: ast.If, env: dict[str, Any]) -> None:
        condition = self.truth(self.evaluate(statement.test, env))
        if isinstance(condition, bool):
            self.execute(statement.body if condition else statement.orelse, env)
        elif isinstance(condition, Unknown):
            raise Stop
        else:
            self.branch(condition, statement, env)

    def do_for(self, statement: ast.For, env: dict[str, Any]) -> None:
        items = self.evaluate(statement.iter, env)
        if isinstance(items, Range):
            return self.loop(statement, env, items.count(self), items.item(self))
        if not isinstance(items, (list, tuple, range)) or len(items) > MOST_UNROLLED:
            self.lowering.block("for", "a loop whose length is not known before the run")
            raise Stop
        for item in items:
            self.assign(statement.target, item, env)
            self.execute(statement.body, env)
        return None

    def loop(self, statement: ast.While | ast.For, env: dict[str, Any], count: Any, index: Callable[[ir.Value], Any] | None) -> None:
        """A loop whose length is known only at run time."""
        try:
            run_loop(self, statement, env, count, index)
        except Rejected as why:
            self.lowering.block("for" if isinstance(statement, ast.For) else "while", f"a loop whose length is not known before the run: {why}")
            raise Stop from None

    def do_while(self, statement: ast.While, env: dict[str, Any]) -> None:
        for _ in range(MOST_UNROLLED):
            condition = self.truth(self.evaluate(statement.test, env))
            if condition is False:
                return None
            if condition is not True:
                return self.loop(statement, env, None, None)
            self.execute(statement.body, env)
        self.lowering.block("while", f"a loop of more than {MOST_UNROLLED} rounds")
        raise Stop

    # ---- branches on values of the run

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

    # ---- expressions

    def evaluate(self, node: ast.expr, env: dict[str, Any]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return self.name(node.id, env)
        if isinstance(node, (ast.List, ast.Tuple)):
            items = [self.evaluate(item, env) for item in node.elts]
            return items if isinstance(node, ast.List) else tuple(items)
        if isinstance(node, ast.Dict):
            return {self.evaluate(key, env): self.evaluate(item, env) for key, item in zip(node.keys, node.values, strict=True) if key is not None}
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
            return self.call_function("torch.neg", [self.evaluate(node.operand, env)], {})
        if isinstance(node, ast.Subscript):
            return self.item(self.evaluate(node.value, env), self.evaluate(node.slice, env))
        if isinstance(node, ast.IfExp):
            condition = self.truth(self.evaluate(node.test, env))
            return self.evaluate(node.body if condition is True else node.orelse, env) if isinstance(condition, bool) else UNKNOWN
        if isinstance(node, ast.Attribute):
            dotted = dotted_name(node)
            if dotted and dotted.startswith("CONSTANTS.c"):
                return self.stored(self.program.constant(int(dotted[11:])), "constants." + dotted[11:])
            if dotted and dotted.partition(".")[0] in ("__torch__", "torch", "ops"):
                return Function(dotted)
            return self.attribute(self.evaluate(node.value, env), node.attr)
        if isinstance(node, ast.Call):
            return self.call(node, env)
        self.lowering.block(type(node).__name__, "an expression that TorchScript does not print")
        raise Stop

    def name(self, name: str, env: dict[str, Any]) -> Any:
        if name in env:
            return env[name]
        if name in ("inf", "nan"):
            return float(name)
        return Function(name)

    def item(self, owner: Any, place: Any) -> Any:
        if isinstance(owner, (Unknown,)):
            return UNKNOWN
        if isinstance(owner, dict) or (isinstance(owner, (list, tuple, str)) and isinstance(place, int)):
            try:
                return owner[place]
            except (KeyError, IndexError):
                raise Raised(f"no element {place}") from None
        self.lowering.block("subscript", f"element {place if isinstance(place, int) else 'of the run'} of a {type(owner).__name__.lower()}")
        return UNKNOWN

    def call(self, node: ast.Call, env: dict[str, Any]) -> Any:
        callee = node.func
        if isinstance(callee, ast.Name) and callee.id in ("annotate", "unchecked_cast"):
            return self.evaluate(node.args[1], env)           # the first argument is a type
        if isinstance(callee, ast.Name) and callee.id == "uninitialized":
            return UNKNOWN
        args = [self.evaluate(argument, env) for argument in node.args if not isinstance(argument, ast.Starred)]
        keywords = {keyword.arg: self.evaluate(keyword.value, env) for keyword in node.keywords if keyword.arg}
        if isinstance(callee, ast.Name) and callee.id == "getattr":
            return self.attribute(args[0], args[1])
        if isinstance(callee, ast.Attribute) and not (dotted_name(callee) or "").startswith(("torch.", "ops.", "__torch__.")):
            owner = self.evaluate(callee.value, env)
            if isinstance(owner, Obj):
                return self.call_method(owner, callee.attr, args, keywords)
            return UNKNOWN if isinstance(owner, Unknown) else self.call_function("torch." + callee.attr, [owner, *args], keywords)
        target = self.evaluate(callee, env)
        if isinstance(target, Function):
            return self.call_function(target.name, args, keywords)
        self.lowering.block("call", "of what is no function")
        return UNKNOWN

    def call_function(self, name: str, args: list[Any], keywords: dict[str, Any]) -> Any:
        if name.startswith("__torch__."):
            return self.call_own(name, args, keywords)
        short = {"int": "Int", "float": "Float", "bool": "Bool"}.get(name, name.rpartition(".")[2])
        special = getattr(self, f"fn_{short}", None)
        if special is not None:
            return special(*args, **keywords)
        if short in IGNORED:
            return None
        if name.startswith("ops.") and not name.startswith(("ops.prim.", "ops.aten.")):
            self.lowering.block(name.removeprefix("ops.").replace(".", "::"), "an operator of somebody's library")
            return UNKNOWN
        return self.numbers(short, args, keywords) if self.is_numbers(args, short) else self.aten(short, args, keywords)

    def is_numbers(self, args: list[Any], name: str) -> bool:
        """Whether a call is one of numbers: no tensor takes part, besides constants of one element beside a number."""
        if name not in PLAIN and name not in DYNAMIC:
            return False
        plain = (*NUMBERS, str, list, tuple, dict, Unchanged, type(None))
        has_number = any(isinstance(arg, plain) or (isinstance(arg, ir.Value) and "scalar" in arg.meta) for arg in args)
        tensors = [arg for arg in args if isinstance(arg, Cell)]
        if name in ("Int", "Float", "Bool", "item", "IntImplicit", "FloatImplicit", "ScalarImplicit"):
            return True
        return (has_number or not args) and not tensors

    def numbers(self, name: str, args: list[Any], keywords: dict[str, Any]) -> Any:
        args = [static(self.value(arg)) if isinstance(arg, Cell) else arg for arg in args]
        if any(isinstance(arg, Unknown) for arg in args):
            return UNKNOWN
        if any(isinstance(arg, Unchanged) for arg in args):
            return {"ne": False, "eq": True, "Bool": True, "__not__": False}.get(name, UNKNOWN)
        if not any(isinstance(arg, ir.Value) for arg in flat(args)):
            try:
                return PLAIN[name](*args, **keywords)
            except (TypeError, ValueError, KeyError, ArithmeticError, IndexError) as error:
                raise Raised(f"{name}: {error}") from None
        if name == "Bool" and symbol(args[0]):
            return True                               # a size of a tensor that is used
        if name in ("eq", "ne") and symbol(args[0]) and symbol(args[0]) == symbol(args[1]):
            return name == "eq"
        if name in ("eq", "ne") and args[0] is args[1]:
            return name == "eq"
        if name in ("eq", "ne") and all(isinstance(arg, (list, tuple)) for arg in args):
            return self.same_lists(args[0], args[1], name == "eq")
        if name == "__range_length":
            low, high, step = args
            return self.numbers("floordiv", [self.numbers("add", [self.numbers("sub", [high, low], {}), step - 1], {}), step], {})
        if name == "__derive_index":
            return self.numbers("add", [args[1], self.numbers("mul", [args[0], args[2]], {})], {})
        if name == "__contains__":
            found: Any = False
            for item in args[0]:
                same = self.numbers("eq", [item, args[1]], {})
                found = same if found is False else self.numbers("__or__", [found, same], {})
            return found
        if name not in DYNAMIC:
            self.lowering.block(f"aten::{name}", "of a number that is known only at run time")
            return UNKNOWN
        try:
            made = self.lowering.call(DYNAMIC[name], [self.tensor(arg) if place == 0 else arg for place, arg in enumerate(args)], {})
        except Rejected as why:
            self.lowering.block(f"aten::{name}", str(why))
            return UNKNOWN
        return scalar(made)

    def same_lists(self, a: Any, b: Any, wanted: bool) -> Any:
        """Whether two lists of numbers are equal, some of which are known only at run time."""
        same: Any = len(a) == len(b)
        for x, y in zip(a, b, strict=False) if same else ():
            found = self.numbers("eq", [x, y], {})
            same = found if same is True else same if found is True else False if found is False else self.numbers("__and__", [same, found], {})
            if same is False:
                break
        return same if wanted else self.numbers("__not__", [same], {})

    def call_own(self, name: str, args: list[Any], keywords: dict[str, Any]) -> Any:
        """A function or class of the file, or a method that is named through its class."""
        function = self.program.function(name)
        if function is not None:
            return self.run(function, args, keywords)
        owner, _, method = name.rpartition(".")
        if method == "__new__":
            return Obj(owner, {})
        if self.program.has_class(name):
            made = Obj(name, dict(zip(self.program.fields(name), args, strict=False)))
            if self.program.method(name, "__init__") is not None:
                self.call_method(made, "__init__", args, keywords)
            return made
        self.lowering.block(name, "the file has no code of that name")
        return UNKNOWN

    # ---- functions with an own meaning

    def fn_RaiseException(self, message: Any = "", *rest: Any) -> Any:
        raise Raised(str(message))

    def fn_format(self, text: str, *args: Any) -> str:
        return text + " " + ", ".join(str(arg) for arg in args if isinstance(arg, (*NUMBERS, str)))

    def fn_range(self, *bounds: Any) -> Any:
        if all(isinstance(bound, int) for bound in bounds):
            return range(*bounds)
        low, high, step = (0, bounds[0], 1) if len(bounds) == 1 else (*bounds, 1)[:3]
        return Range(low, high, step) if isinstance(step, int) else UNKNOWN

    def fn_len(self, item: Any) -> Any:
        if isinstance(item, Pile):
            return self.fn_size(Cell(item.value), 0)
        return self.fn_size(item, 0) if isinstance(item, Cell) else UNKNOWN if isinstance(item, Unknown) else len(item)

    def fn_size(self, x: Any, dim: Any = None) -> Any:
        value = self.plain(x)
        if not isinstance(value, ir.Value) or value.shape is None:
            if isinstance(value, ir.Value):
                self.lowering.block("aten::size", f"the rank of {value.name} is not known")
            return UNKNOWN
        sizes = list(value.shape)
        if dim is None:
            return [self.fn_size(x, axis) for axis in range(len(sizes))]
        if not isinstance(dim, int) or not -len(sizes) <= dim < len(sizes):
            raise Raised(f"axis {dim} of a tensor of {len(sizes)}")
        axis = dim % len(sizes)
        if isinstance(sizes[axis], int):
            return sizes[axis]
        op = self.lowering.builder("size")
        return scalar(op.Squeeze(op.Shape(value, start=axis, end=axis + 1), op.const([0])))

    def fn_dim(self, x: Any) -> Any:
        value = self.plain(x)
        if not isinstance(value, ir.Value) or value.shape is None:
            return UNKNOWN
        return len(value.shape)

    def fn_numel(self, x: Any) -> Any:
        sizes = self.fn_size(x)
        return sizes if isinstance(sizes, Unknown) else math.prod(sizes) if all(isinstance(size, int) for size in sizes) else self.product(sizes)

    def product(self, sizes: list[Any]) -> Any:
        result: Any = 1
        for size in sizes:
            result = self.numbers("mul", [result, size], {})
        return result

    def fn_dtype(self, x: Any) -> Any:
        value = self.plain(x)
        return SCALAR_TYPES.index(value.dtype) if isinstance(value, ir.Value) and value.dtype in SCALAR_TYPES else UNKNOWN

    def fn_device(self, *rest: Any) -> str:
        return "cpu"

    def fn_layout(self, *rest: Any) -> None:
        return None

    def fn_is_cuda(self, *rest: Any) -> bool:
        return False

    fn_requires_grad = fn_is_mkldnn = fn_is_quantized = fn_is_scripting = fn_is_complex = fn_is_cuda

    def fn_is_floating_point(self, x: Any) -> Any:
        value = self.plain(x)
        return value.dtype.is_floating_point() if isinstance(value, ir.Value) else UNKNOWN

    def fn_NumToTensor(self, x: Any) -> Any:
        """A number as a tensor: traces do arithmetic on sizes with it. It becomes a tensor where a tensor meets it."""
        return x

    def fn_unchecked_unwrap_optional(self, x: Any) -> Any:
        return x

    fn__unwrap_optional = fn_unchecked_unwrap_optional

    def fn___is__(self, x: Any, y: Any) -> Any:
        return UNKNOWN if isinstance(x, Unknown) else x is None if y is None else x is y

    def fn___isnot__(self, x: Any, y: Any) -> Any:
        found = self.fn___is__(x, y)
        return found if isinstance(found, Unknown) else not found

    def fn_append(self, items: list, item: Any) -> Any:
        if isinstance(items, list):
            items.append(item)
        return items

    def fn_extend(self, items: list, more: Any) -> None:
        if isinstance(items, list) and isinstance(more, (list, tuple)):
            items.extend(more)

    def fn_stack(self, items: Any, dim: int = 0) -> Any:
        if not isinstance(items, Pile):
            return self.aten("stack", [items, dim], {})
        return self.aten("movedim", [Cell(items.value), 0, dim], {}) if dim else Cell(items.value)

    def fn_cat(self, items: Any, dim: int = 0) -> Any:
        """Of a pile: its axis moves before the one along which the tensors are joined, and both become one."""
        if not isinstance(items, Pile):
            return self.aten("cat", [items, dim], {})
        rank = len(items.value.shape) - 1 if items.value.shape is not None else 0
        axis = dim % max(rank, 1)
        moved = self.aten("movedim", [Cell(items.value), 0, axis], {}) if axis else Cell(items.value)
        return self.aten("flatten", [moved, axis, axis + 1], {})

    def fn_list(self, items: Any) -> list:
        return list(items)

    def fn_insert(self, items: list, place: int, item: Any) -> None:
        items.insert(place, item)

    def fn_pop(self, items: list, place: int = -1) -> Any:
        return items.pop(place)

    def fn_min(self, *args: Any, **more: Any) -> Any:
        return self.extreme("min", min, args, more)

    def fn_max(self, *args: Any, **more: Any) -> Any:
        return self.extreme("max", max, args, more)

    def extreme(self, name: str, choose: Callable, args: tuple, more: dict[str, Any]) -> Any:
        if any(isinstance(arg, Cell) for arg in args):
            return self.aten(name, list(args), more)
        if any(isinstance(arg, ir.Value) for arg in args):
            return self.numbers(name, list(args), {})
        return choose(*args)

    def fn_broadcast_tensors(self, tensors: list) -> list:
        total = tensors[0]
        for other in tensors[1:]:
            total = self.aten("add", [total, self.aten("mul", [other, 0], {})], {})
        return [self.aten("expand_as", [x, total], {}) for x in tensors]

    def fn_meshgrid(self, tensors: list, indexing: str = "ij") -> list:
        count = len(tensors)
        shaped = [self.aten("reshape", [x, [-1 if place == axis else 1 for place in range(count)]], {}) for axis, x in enumerate(tensors)]
        if indexing == "xy" and count > 1:
            shaped = [self.aten("transpose", [x, 0, 1], {}) for x in shaped]
        return self.fn_broadcast_tensors(shaped)


class Function:
    """A name that is called."""

    __slots__ = ("name",)

    def __init__(self, name: str):
        self.name = name


def dotted_name(node: ast.expr) -> str | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else None


def flat(items: Any) -> Iterator[Any]:
    for item in items:
        if isinstance(item, (list, tuple)):
            yield from flat(item)
        else:
            yield item


def has_unknown(item: Any) -> bool:
    return isinstance(item, (Unknown, Unchanged)) or (isinstance(item, (list, tuple)) and any(map(has_unknown, item)))


def common_shape(a: Any, b: Any) -> Any:
    """The shape of what has one of two shapes, None where their ranks differ."""
    if a is None or b is None or len(a) != len(b):
        return None
    return ir.Shape([x if x == y else None for x, y in zip(a, b, strict=True)])


VIEWS = ("select", "slice", "narrow", "squeeze", "unsqueeze", "view", "reshape", "transpose", "t", "alias", "detach", "view_as", "permute")


def written_back(lowering: Lowering, name: str, whole: ir.Value, part: ir.Value, rest: list[Any], more: dict[str, Any]) -> ir.Value:
    """`whole` with the part that a view shows replaced."""
    op = lowering.builder("write")
    if name in ("view", "reshape", "squeeze", "unsqueeze", "view_as"):
        return op.Reshape(part, op.Shape(whole))
    if name in ("alias", "detach"):
        return part
    if name == "t" or name == "transpose":
        return lowering.call(name, [part, *rest], {})
    if name not in ("select", "slice", "narrow"):
        raise Rejected("through this view")
    if name == "slice" and (len(rest) < 2 or not rest[1]) and (len(rest) < 3 or rest[2] is None) and (len(rest) < 4 or rest[3] == 1):
        return part
    dim = rest[0] if rest else 0
    axis = dim % len(whole.shape)
    size = whole.shape[axis]
    if not isinstance(size, int):
        raise Rejected("along an axis whose size is not known")
    if name == "select":
        start, end, step = rest[1] % size, rest[1] % size + 1, 1
        part = op.Unsqueeze(part, op.const([axis]))
    else:
        start = 0 if len(rest) < 2 or rest[1] is None else rest[1]
        end = (start + rest[2] if name == "narrow" else size if len(rest) < 3 or rest[2] is None else rest[2])
        step = rest[3] if name == "slice" and len(rest) > 3 else 1
        if not all(isinstance(x, int) for x in (start, end, step)) or step != 1:
            raise Rejected("of a part that is known only at run time")
        start, end, _ = slice(start, end).indices(size)
    pieces = [op.Slice(whole, [0], [start], [axis])] if start else []
    pieces.append(part)
    pieces += [op.Slice(whole, [end], [size], [axis])] if end < size else []
    return op.Concat(*pieces, axis=axis) if len(pieces) > 1 else pieces[0]

"""Executes the printed code of TorchScript over our own values: the syntax tree is walked, nothing of it is ever evaluated by Python.

Methods and functions are inlined, attributes and constants resolved, branches taken whose condition is known, and loops of a known length unrolled. A branch on
a value of the run becomes an If whose bodies are both executed. What an object is assigned lives in an overlay, so that bodies do not disturb each other.
The grammar: torch/csrc/jit/serialization/python_print.cpp.
"""
from __future__ import annotations

import ast
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from isomorph.dialects.torch.branches import Branching
from isomorph.dialects.torch.loops import run_loop
from isomorph.dialects.torch.lowering import Rejected
from isomorph.dialects.torch.program_functions import Range
from isomorph.dialects.torch.program_values import UNKNOWN, Cell, Function, Obj, Raised, Returned, Stop, Unknown

MOST_STEPS = 2_000_000                     # statements executed
MOST_UNROLLED = 4096
DEEPEST = 200                              # calls inside calls


class Interpreter(Branching):
    """One execution of a method of a program. `program` has `function(name)`, `method(kind, name)`, `constant(place)` and `class_constant(kind, name)`."""

    # ---- attributes

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


def dotted_name(node: ast.expr) -> str | None:
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id])) if isinstance(node, ast.Name) else None

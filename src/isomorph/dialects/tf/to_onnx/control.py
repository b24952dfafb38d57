"""TensorFlow -> ONNX: calls, branches and loops. Functions are walked through where they are called, so that their types and shapes are known."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Rejected, constant
from isomorph.dialects.tf.to_onnx.lowering import Elements, Lowering, TfBuilder, Variable, detach
from isomorph.dialects.tf.to_onnx.operators import BOOL, INT64, STRING, Value, to_onnx
from isomorph.dialects.tflite.to_onnx.common import longs
from isomorph.passes import shapes

TRIES = 4                           # walks through the body of a loop until the shapes of its variables no longer change


@to_onnx("PartitionedCall", "StatefulPartitionedCall")
def call(op, *inputs, f, **rest):
    return op.context.call(f, inputs, op.node.name or f)


@to_onnx("Case", "StatelessCase")
def case(op, index, *inputs, branches, **rest):
    """Ifs, each in the else of the one before; a number outside takes the last branch."""
    number = constant(index)
    if number is not None:
        place = int(number) if 0 <= int(number) < len(branches) else len(branches) - 1
        return op.context.call(branches[place], inputs, f"{op.node.name}/{place}")
    return _cases(op, index, inputs, branches, 0)


def _cases(op: TfBuilder, index: Value, inputs: Sequence[Value | None], branches: Sequence[str], place: int) -> list[Value]:
    if place == len(branches) - 1:
        return op.context.call(branches[place], inputs, f"{op.node.name}/{place}")
    inner = TfBuilder(op.node, op.context)
    return branched(inner, inner.Equal(index, op.const(np.asarray(place, index.dtype.numpy()))),
                    lambda: op.context.call(branches[place], inputs, f"{op.node.name}/{place}"), lambda: _cases(op, index, inputs, branches, place + 1))


@to_onnx("If", "StatelessIf")
def if_(op, condition, *inputs, then_branch, else_branch, **rest):
    """A condition that is known takes its branch."""
    name = op.node.name or "if"
    return branched(op, truth(op, condition), lambda: op.context.call(then_branch, inputs, f"{name}/then"),
                    lambda: op.context.call(else_branch, inputs, f"{name}/else"))


def truth(op: TfBuilder, value: Value) -> Value:
    """What TensorFlow takes for true: a number that is not zero, a text that is not empty, a tensor that is not empty."""
    if value.shape is not None and value.shape.rank():
        return op.Greater(op.Size(value), 0)
    if value.dtype == STRING:
        return op.Not(op.Equal(value, op.const(np.asarray("", object))))
    return value if value.dtype == BOOL else op.Cast(value, to=BOOL)


def branched(op: TfBuilder, condition: Value, then: Any, otherwise: Any) -> list[Value]:
    """An If of two things to do, or one of the two where the condition is known."""
    known = constant(condition)
    if known is not None:
        return then() if bool(known) else otherwise()
    context = op.context
    before = dict(context.state)
    bodies, results = [], []
    changed: list[dict[str, Value]] = []
    for what in (then, otherwise):
        context.state = dict(before)
        with context.block() as made:
            values = list(what())
            changed.append({name: value for name, value in context.state.items() if before.get(name) is not value})
            results.append(values)
            bodies.append(made)
    context.state = before
    names = list(dict.fromkeys(name for each in changed for name in each))
    for values, each in zip(results, changed, strict=True):
        values += [each.get(name, before[name]) for name in names]
    if any("thing" in value.meta for values in results for value in values):
        return _of_things(op, condition, results, bodies)
    graphs = []
    for made, values in zip(bodies, results, strict=True):
        outputs = [_own(context, made, value) for value in values]
        graphs.append(ir.Graph([], outputs, nodes=made, name=context.unique("branch"), opset_imports={"": 1}))
    node = ir.node("If", [condition], {"then_branch": graphs[0], "else_branch": graphs[1]}, num_outputs=len(results[0]), name=context.unique("if"))
    for value, first, second in zip(node.outputs, *(graph.outputs for graph in graphs), strict=True):
        value.name = context.unique(f"{op.node.name}/result")
        value.type, value.shape = first.type or second.type, _common(first, second)
    op.made.append(node)
    outputs = list(node.outputs)
    for name, value in zip(names, outputs[len(outputs) - len(names):], strict=True):
        context.state[name] = value
    return outputs[:len(outputs) - len(names)]


def _of_things(op: TfBuilder, condition: Value, results: list[list[Value]], bodies: list[list[ir.Node]]) -> Any:
    """Branches that give the same resource back."""
    for made in bodies:
        if made:
            op.reject("branches that give lists or other resources")
    first, second = results
    if all(a.meta.get("thing") is b.meta.get("thing") for a, b in zip(first, second, strict=True)):
        return first
    return op.reject("branches that give different resources")


def _own(context: Lowering, made: list[ir.Node], value: Value) -> Value:
    """A body's output is the result of a node of its own, each of another."""
    copy = ir.node("Identity", [value])
    copy.outputs[0].name, copy.outputs[0].type, copy.outputs[0].shape = context.unique(f"{value.name}/out"), value.type, value.shape
    if "known" in value.meta:
        copy.outputs[0].meta["known"] = value.meta["known"]
    made.append(copy)
    return copy.outputs[0]


def _common(first: Value, second: Value) -> ir.Shape | None:
    a, b = shapes.dims(first), shapes.dims(second)
    if a is None or b is None or len(a) != len(b):
        return None
    return ir.Shape([x if x == y else None for x, y in zip(a, b, strict=True)])


# ---- loops


@to_onnx("While", "StatelessWhile")
def while_(op, *inputs, cond, body, **rest):
    name = op.node.name or "while"
    context = op.context
    return looped(op, list(inputs), lambda values: context.call(cond, values, f"{name}/cond")[0], lambda values: context.call(body, values, f"{name}/body"),
                  fixed=_unchanged(context, body))


def _unchanged(context: Lowering, body: str) -> set[int]:
    """The variables of a loop that its body hands on as they are."""
    function = context.functions.get(body)
    if function is None:
        return set()
    found = set()
    for place, (value, start) in enumerate(zip(function.outputs, function.inputs, strict=False)):
        while value.producer() is not None and value.producer().op_type == "Identity":        # type: ignore[union-attr]
            value = value.producer().inputs[0]                                                # type: ignore[union-attr]
        if value is start:
            found.add(place)
    return found


def looped(op: TfBuilder, inputs: list[Value], condition: Any, body: Any, fixed: set[int]) -> list[Value]:
    """A Loop. Lists that are written one item a round become its scan outputs; other lists are carried whole."""
    return _Loop(op, inputs, condition, body, fixed).run()


class _Loop:
    """One loop while it is made. Slots are its variables, as many as the function has; those in `fixed` are seen from outside instead."""

    def __init__(self, op: TfBuilder, inputs: list[Value], condition: Any, body: Any, fixed: set[int]):
        self.op, self.context, self.inputs, self.condition, self.body = op, op.context, inputs, condition, body
        self.fixed = fixed | {place for place, value in enumerate(inputs) if isinstance(value.meta.get("thing"), Variable)}
        self.lists = {place: value.meta["thing"] for place, value in enumerate(inputs)
                      if isinstance(value.meta.get("thing"), Elements) and place not in self.fixed}
        for place, value in enumerate(inputs):
            if "thing" in value.meta and place not in self.lists:
                self.fixed.add(place)
        self.whole: set[int] = set()            # lists that are carried as tensors
        self.shapes: dict[int, Any] = {place: shapes.dims(value) for place, value in enumerate(inputs)}
        self.start: dict[int, Value] = {}
        self.variables: list[str] = []          # resource variables that the body assigns

    def carried(self) -> list[int]:
        return [place for place in range(len(self.inputs)) if place not in self.fixed and (place not in self.lists or place in self.whole)]

    def run(self) -> list[Value]:
        context = self.context
        known = constant(self.condition(list(self.inputs))) if not any("blocked" in value.meta for value in self.inputs) else None
        if known is not None and not bool(known):
            return list(self.inputs)                                        # it never runs
        for attempt in range(TRIES + len(self.lists) + 1):
            before, blockers = dict(context.state), len(context.blockers)
            made, entries, results = self.trial()
            problem = self.problem(entries, results, before) if len(context.blockers) == blockers else ""
            if not problem or attempt == TRIES + len(self.lists):
                if problem:
                    self.op.reject(problem)
                return self.finish(made, entries, results, before)
            for node in reversed(made):
                detach(node)
            context.state = before
        raise AssertionError

    def trial(self) -> tuple[list[ir.Node], list[Value], list[Value]]:
        """The body once, on variables of the shapes that are assumed now."""
        context = self.context
        entries: list[Value] = []
        for place, value in enumerate(self.inputs):
            if place in self.fixed:
                entries.append(value)
                continue
            if place in self.lists:
                thing = self.lists[place]
                entry = self.op.as_value(replace(thing, slot=place, writes=(), watched=[], tensor=None))
                if place in self.whole:
                    start = self.start[place]
                    tensor = Value(name=context.unique("list"), type=start.type, shape=self.shape(place, start))
                    entry.meta["thing"] = replace(thing, tensor=tensor, slot=None, writes=())
                    entry.meta["tensor"] = tensor
                entries.append(entry)
                continue
            start = value
            entries.append(Value(name=context.unique("variable"), type=start.type, shape=self.shape(place, start)))
        self.held = {name: Value(name=context.unique(f"{name}/held"), type=context.state[name].type, shape=context.state[name].shape)
                     for name in self.variables}
        context.state.update(self.held)
        with context.block() as made:
            results = list(self.body(list(entries)))
        return made, entries, results

    def shape(self, place: int, start: Value) -> ir.Shape | None:
        dims = self.shapes[place]
        return None if dims is None else ir.Shape(dims)

    def problem(self, entries: list[Value], results: list[Value], before: dict[str, Value]) -> str:
        """Why the assumptions do not hold, after they were widened for the next trial; "" where they do."""
        found = ""
        for name, value in self.context.state.items():
            if name not in self.held and before.get(name) is not value:
                self.variables.append(name)
                found = "a variable that the body assigns"
        for place, (entry, result) in enumerate(zip(entries, results, strict=False)):
            if place in self.fixed:
                if result is not entry and result.meta.get("thing") is not entry.meta.get("thing") and "thing" in result.meta:
                    return "a resource that changes in a loop"
                continue
            if place in self.lists:
                found = self.list_problem(place, entries, results) or found
                continue
            now, then = shapes.dims(result), self.shapes[place]
            if then is not None and (now is None or len(now) != len(then)):
                self.shapes[place], found = None, f"the shape of its variable {place} changes"
            elif then is not None and now is not None and any(a is not None and a != b for a, b in zip(then, now, strict=True)):
                self.shapes[place] = [a if a == b else None for a, b in zip(then, now, strict=True)]
                found = f"the shape of its variable {place} changes"
        return found

    def list_problem(self, place: int, entries: list[Value], results: list[Value]) -> str:
        thing = results[place].meta.get("thing")
        if not isinstance(thing, Elements):
            return "a list that becomes something else in a loop"
        if place in self.whole:
            tensor = thing.tensor
            now, then = shapes.dims(tensor), self.shapes[place]
            if then is not None and (now is None or any(a is not None and a != b for a, b in zip(then, now, strict=True))):
                self.shapes[place] = [a if a == b else None for a, b in zip(then, now, strict=True)] if now is not None and len(now) == len(then) else None
                return "the shape of a list changes"
            return ""
        read = place in entries[place].meta["thing"].watched
        if thing.slot == place and not thing.writes and not read:
            self.fixed.add(place)
            return "a list that does not change"
        if thing.slot == place and not read and len(thing.writes) == 1 and self.fresh(place) and self.in_order(thing.writes[0][0], entries, results):
            return ""
        return self.make_whole(place, thing)

    def fresh(self, place: int) -> bool:
        return self.lists[place].tensor is None and not self.lists[place].writes

    def make_whole(self, place: int, thing: Elements) -> str:
        """The list is carried as a tensor, which takes the shape of its items."""
        start = self.lists[place]
        tensor = start.tensor
        if tensor is None:
            item = next((shapes.dims(value) for _, value in thing.writes), list(start.shape) if start.shape is not None else None)
            dims = self.sized(item, start)
            length = self.op.Unsqueeze(longs(self.op, start.length), [0]) if start.length is not None else self.op.const([0])
            tensor = self.op.ConstantOfShape(self.op.Concat(length, dims, axis=0), value=np.zeros(1, start.dtype.numpy()))
            if tensor.shape is None and item is not None:
                tensor.shape = ir.Shape([None, *item])
        self.whole.add(place)
        self.start[place], self.shapes[place] = tensor, shapes.dims(tensor)
        if any(index is None for index, _ in thing.writes) and self.shapes[place]:
            self.shapes[place] = [None, *self.shapes[place][1:]]
        return "a list that is read and written"

    def sized(self, item: Any, start: Elements) -> Value:
        """The shape of an item as a vector. Sizes that are symbols are taken from an input of the graph that has them."""
        if item is None:
            self.op.reject("a list in a loop whose items have no known shape")
        parts = [self.size(dim, place, start) for place, dim in enumerate(item)]
        return self.op.Concat(*parts, axis=0) if parts else self.op.const(np.zeros(0, np.int64))

    def size(self, dim: Any, place: int, start: Elements) -> Value:
        if isinstance(dim, int):
            return self.op.const([dim])
        if start.shape is not None and len(start.shape) > place and start.shape[place] >= 0:
            return self.op.const([start.shape[place]])
        for value in (*self.inputs, *self.context.graph.inputs):
            dims = shapes.dims(value) if "thing" not in value.meta else None
            if dims and dim is not None and dim in dims:
                axis = dims.index(dim)
                return self.op.Shape(value, start=axis, end=axis + 1)
        return self.op.const([0])                       # the first item that is written says it: the tensor may change its shape between rounds

    def in_order(self, index: Value | None, entries: list[Value], results: list[Value]) -> bool:
        """Whether an item is added at the end, or at the place of a counter that starts at zero and grows by one."""
        if index is None:
            return True
        place = next((place for place, entry in enumerate(entries) if entry is index), None)
        return place is not None and self.counts(place, entries, results)

    def counts(self, place: int, entries: list[Value], results: list[Value]) -> bool:
        first = constant(self.inputs[place])
        node = results[place].producer()
        if first is None or first.any() or node is None or node.op_type != "Add":
            return False
        steps = [constant(value) for value in node.inputs if value is not entries[place]]
        return len(steps) == 1 and steps[0] is not None and steps[0].size == 1 and int(steps[0].reshape(-1)[0]) == 1

    def finish(self, made: list[ir.Node], entries: list[Value], results: list[Value], before: dict[str, Value]) -> list[Value]:
        op, context = self.op, self.context
        carried = self.carried()
        scanned = [place for place in self.lists if place not in self.fixed and place not in self.whole]
        after = {name: context.state[name] for name in self.held}
        outer = context.current
        context.current = made
        context.depth += 1
        try:
            again = truth(TfBuilder(op.node, context), self.condition(list(results)))
        finally:
            context.current = outer
            context.depth -= 1
        for name in self.held:
            context.state[name] = before[name]
        go = truth(op, self.condition(list(self.inputs)))
        for name, value in before.items():
            context.state[name] = value
        if any("blocked" in value.meta for value in (go, again, *(results[place] for place in carried))):
            return [Lowering.unknown(value) for value in op.outputs]
        outputs = [_own(context, made, value) for value in (again, *(self.tensor(results[place]) for place in carried), *after.values(),
                                                            *(self.item(results[place]) for place in scanned))]
        count = Value(name=context.unique("iteration"), type=ir.TensorType(INT64), shape=ir.Shape([]))
        still = Value(name=context.unique("condition"), type=ir.TensorType(BOOL), shape=ir.Shape([]))
        variables = [self.entry(entries[place]) for place in carried]
        starts = [self.start.get(place, self.inputs[place]) for place in carried]
        graph = ir.Graph([count, still, *variables, *self.held.values()], outputs, nodes=made, name=context.unique("body"), opset_imports={"": 1})
        node = ir.node("Loop", [None, go, *starts, *(before[name] for name in self.held)], {"body": graph},
                       num_outputs=len(carried) + len(self.held) + len(scanned), name=context.unique("loop"))
        for value, body_value in zip(node.outputs, outputs[1:], strict=True):
            value.name, value.type = context.unique(f"{op.node.name}/result"), body_value.type
            dims = shapes.dims(body_value)
            value.shape = None if dims is None else ir.Shape(dims)
        for place, value in zip(carried, node.outputs, strict=False):
            dims = self.shapes[place]
            value.shape = None if dims is None else ir.Shape(dims)
        for place, value in zip(scanned, node.outputs[len(carried) + len(self.held):], strict=True):
            dims = shapes.dims(value)
            length = self.lists[place].length
            in_place = results[place].meta["thing"].writes[0][0] is not None
            known = constant(length) if length is not None and in_place and self.fills(place, again, entries, results) else None
            value.shape = None if dims is None else ir.Shape([int(known.reshape(-1)[0]) if known is not None else None, *dims])
        op.made.append(node)
        context.state = dict(before) | dict(zip(self.held, node.outputs[len(carried):], strict=False))
        final: dict[Any, Value] = dict(zip([*carried, *self.held, *scanned], node.outputs, strict=True))
        for place in scanned:
            if results[place].meta["thing"].writes[0][0] is not None and not self.fills(place, again, entries, results):
                final[place] = self.filled(final[place], self.lists[place])
        return [self.inputs[place] if place in self.fixed else self.result(place, final[place]) for place in range(len(self.inputs))]

    def fills(self, place: int, again: Value, entries: list[Value], results: list[Value]) -> bool:
        """Whether the loop runs until every element of a list has been written: all that it asks is whether counters are below the length."""
        length = self.lists[place].length
        node = again.producer()
        if length is None or node is None:
            return False
        if node.op_type == "And":
            return all(self.fills(place, part, entries, results) for part in node.inputs if part is not None)
        if node.op_type != "Less" or node.inputs[1] is None:
            return False
        counter = next((slot for slot, value in enumerate(results) if value is node.inputs[0]), None)
        return counter is not None and self.counts(counter, entries, results) and same_number(node.inputs[1], length)

    def filled(self, tensor: Value, thing: Elements) -> Value:
        """The elements that the loop never reached are zeros."""
        op, rank = self.op, self.op.of(tensor)[0]
        more = op.Sub(op.Unsqueeze(longs(op, thing.length), [0]), op.Shape(tensor, start=0, end=1))               # type: ignore[arg-type]
        rest = [op.const([0] * (rank - 1))] if rank > 1 else []
        dims, length = shapes.dims(tensor), constant(thing.length)
        made = op.Pad(tensor, op.Concat(op.const([0] * rank), more, *rest, axis=0))
        made.shape = ir.Shape([int(length.reshape(-1)[0]) if length is not None else None, *(dims or [])[1:]]) if dims else made.shape
        return made

    @staticmethod
    def entry(value: Value) -> Value:
        return value.meta.get("tensor", value)

    @staticmethod
    def tensor(value: Value) -> Value:
        thing = value.meta.get("thing")
        return thing.tensor if isinstance(thing, Elements) else value

    @staticmethod
    def item(value: Value) -> Value:
        return value.meta["thing"].writes[0][1]

    def result(self, place: int, value: Value) -> Value:
        if place not in self.lists:
            return value
        return self.op.as_value(replace(self.lists[place], tensor=value, length=None, slot=None, writes=()))


def same_number(first: Value, second: Value) -> bool:
    """Whether two scalars are one: the same value, the same constant, or the same size."""
    a, b = constant(first), constant(second)
    if a is not None and b is not None:
        return int(a.reshape(-1)[0]) == int(b.reshape(-1)[0])
    known = [shapes.known(value) for value in (first, second)]
    return first is second or (known[0] is not None and known[0] == known[1] and known[0] != (None,))


# ---- TensorFlow 1


@to_onnx("Switch", "RefSwitch")
def switch(op, x, condition):
    """Two names for x, one in each branch. Both branches are carried out, unless the condition is known; Merge chooses."""
    known, outer = constant(condition), x.meta.get("branches", ())
    found = []
    for side in (0, 1):
        if known is not None and bool(known) != bool(side):
            found.append(Lowering.unknown(op.outputs[side]))
            continue
        value = op.as_value(x.meta["thing"]) if "thing" in x.meta else TfBuilder(op.node, op.context).Identity(x)
        value.meta["branches"] = (*outer, (condition, side))
        if "known" in x.meta:
            value.meta["known"] = x.meta["known"]
        found.append(value)
    op.context.pivots[op.context.scope + "?"] = ()
    return found


@to_onnx("Enter", "RefEnter", "Exit", "RefExit", "LoopCond", "NextIteration", "RefNextIteration")
def pass_on(op, x, **rest):
    return x


def merged(context: Lowering, node: ir.Node, env: dict[ir.Value, ir.Value]) -> tuple[Value, Value]:
    """The value of the branch that was taken, and which one that was."""
    values = [context.lookup(env, value) for value in node.inputs]
    tags = [_tags(context, source, value) for source, value in zip(node.inputs, values, strict=True)]
    op = TfBuilder(node, context)
    alive = [place for place, value in enumerate(values) if value is not None and not value.meta.get("blocked")]
    if len(alive) == 1 or len(values) == 1:
        place = alive[0] if alive else 0
        return values[place], op.const(np.int32(place))                         # type: ignore[return-value]
    both = [tag for tag in tags[0] if any(other[0] is tag[0] and other[1] != tag[1] for other in tags[1])]
    choice = both[-1] if both else tags[0][-1] if tags[0] else (tags[1][-1][0], 1 - tags[1][-1][1]) if tags[1] else None
    if len(values) != 2 or choice is None or not alive:
        context.blocked(node, values, "its branches do not show which condition they belong to")
        return Lowering.unknown(node.outputs[0]), Lowering.unknown(node.outputs[1])
    condition, side = choice
    first, second = (0, 1) if side else (1, 0)                                 # the branch of a true condition, that of a false one
    (result,) = branched(op, truth(op, condition), lambda: [values[first]], lambda: [values[second]])
    rest = tuple(tag for tag in tags[0] if tag[0] is not condition)
    if rest:
        result.meta["branches"] = rest
    index = op.Where(truth(op, condition), op.const(np.int32(first)), op.const(np.int32(second)))
    return result, index


def _tags(context: Lowering, source: Value | None, value: Value | None) -> tuple:
    """The branches that a value is in; a constant is in those of the node that it waits for."""
    if value is None:
        return ()
    waited = source.meta.get("control", ()) if source is not None else ()
    return value.meta.get("branches") or tuple(tag for name in waited for tag in context.pivots.get(context.scope + name, ()))


def frame(context: Lowering, loop: Any, env: dict[ir.Value, ir.Value]) -> None:
    """A loop of TensorFlow 1. What it reads from around it is in `env`."""
    inputs = [context.lookup(env, value) for value in loop.starts]
    outputs = [ir.Value(name=None, type=value.type) for value in loop.rounds]
    node = ir.Node("tf", "While", [], outputs=outputs, name=context.scope + (loop.name.rpartition("/")[0] or loop.name or "while"))

    def carried_out(items: Sequence[Any], names: Sequence[Value], values: Sequence[Value], wanted: Sequence[Value]) -> list[Value]:
        inner = dict(env)
        inner.update(zip(names, values, strict=True))
        if names is not loop.rounds:
            inner.update(zip(loop.rounds, values, strict=True))
        for item in items:
            context.carry_out(item, inner)
        return [context.lookup(inner, value) for value in wanted]               # type: ignore[misc]
    if any(value is not None and value.meta.get("blocked") for value in inputs):
        results = [Lowering.unknown(value) for value in outputs]
    else:
        op = TfBuilder(node, context)
        fixed = {place for place, (start, end) in enumerate(zip(loop.inner, loop.following, strict=True)) if _same(start, end)}
        try:
            results = looped(op, inputs, lambda values: carried_out(loop.condition, loop.rounds, values, [loop.test])[0],      # type: ignore[arg-type]
                             lambda values: carried_out(loop.body, loop.inner, values, loop.following), fixed)
        except Rejected as why:
            results = [value or Lowering.unknown(output) for value, output in zip(context.blocked(node, inputs, str(why)), outputs, strict=True)]
    for exits, result in zip(loop.exits, results, strict=True):
        for value in exits:
            env[value] = result


def _same(start: Value, end: Value) -> bool:
    """Whether a variable is handed on as it is."""
    node = end.producer()
    while node is not None and node.op_type in ("Identity", "NextIteration") and node.inputs[0] is not None:
        end = node.inputs[0]
        node = end.producer() if end is not start else None
    return end is start

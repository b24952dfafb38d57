"""Loops of TensorFlow 1, which are wired from Enter, Merge, Switch, NextIteration, LoopCond and Exit, found as what they are.

A variable of a loop enters through Enter, meets the value of the round before in Merge, leaves through the first output of Switch and Exit, and goes into the
body through the second; NextIteration is its next value. What is only read enters through an Enter that says so (https://arxiv.org/abs/1805.01772).
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from isomorph.errors import Damaged

Value = ir.Value
Item = Any                          # an ir.Node or a Frame


@dataclass
class Frame:
    """A loop. Its variables have a value before it, one at the start of a round, one inside of the body, the next one, and those that leave."""

    name: str
    starts: list[Value] = field(default_factory=list)
    rounds: list[Value] = field(default_factory=list)
    inner: list[Value] = field(default_factory=list)
    following: list[Value] = field(default_factory=list)
    exits: list[list[Value]] = field(default_factory=list)
    test: Value | None = None
    condition: list[Item] = field(default_factory=list)
    body: list[Item] = field(default_factory=list)

    @property
    def outputs(self) -> list[Value]:
        return [value for exits in self.exits for value in exits]


@dataclass
class Order:
    """Nodes and loops in an order in which they can be carried out."""

    inputs: Sequence[Value]
    outputs: Sequence[Value]
    items: list[Item]
    name: str | None

    def __iter__(self) -> Iterator[Item]:
        return iter(self.items)


def raise_control_flow(graph: ir.Graph) -> ir.Graph | Order:
    """The graph with its loops as frames; the graph itself where it has none. Raises `Damaged` for loops that are wired wrongly."""
    enters: dict[str, list[ir.Node]] = {}
    for node in graph:
        if node.op_type in ("Enter", "RefEnter"):
            enters.setdefault(node.attributes.get_string("frame_name", ""), []).append(node)
    if not enters:
        return graph
    makers: dict[Value, Item] = {value: node for node in graph for value in node.outputs}
    waiting = dict(enters)
    members: set[int] = set()
    while waiting:
        for name, nodes in list(waiting.items()):
            frame = _frame(name, nodes, makers, {id(node) for other, listed in waiting.items() if other != name for node in listed})
            if frame is None:
                continue
            makers.update({value: frame for value in frame.outputs})
            members |= {id(item) for item in (*frame.condition, *frame.body)} | _inside(nodes)
            del waiting[name]
            break
        else:
            raise Damaged(f"its loops {', '.join(sorted(waiting)[:3])!r} contain each other", where=graph.name or "")
    wiring = {"NextIteration", "LoopCond", "Exit", "RefExit", "RefNextIteration"}
    roots = [node for node in graph if id(node) not in members and node.op_type not in wiring and not _of_loop(node)]
    items = _sorted([*roots, *(makers[value] for value in graph.outputs if value in makers)], makers.get)
    return Order(list(graph.inputs), list(graph.outputs), items, graph.name)


def _inside(enters: Sequence[ir.Node]) -> set[int]:
    """Every node that works on what entered a loop, whether or not anything comes of it."""
    found: set[int] = set()
    waiting = list(enters)
    while waiting:
        node = waiting.pop()
        if id(node) not in found and node.op_type not in ("Exit", "RefExit"):
            found.add(id(node))
            waiting += [use.node for value in node.outputs for use in value.uses()]
    return found


def _of_loop(node: ir.Node) -> bool:
    """A Merge or Switch that belongs to a loop's variable."""
    makers = [value.producer() for value in node.inputs if value is not None]
    kinds = {maker.op_type for maker in makers if maker is not None}
    return (node.op_type in ("Merge", "RefMerge") and bool(kinds & {"NextIteration", "RefNextIteration"})) or (
        node.op_type in ("Switch", "RefSwitch") and "LoopCond" in kinds)


def _frame(name: str, enters: Sequence[ir.Node], makers: dict[Value, Item], others: set[int]) -> Frame | None:
    """The loop of one name; None where it contains a loop that has not been found yet."""
    frame = Frame(name)
    for enter in enters:
        merge = next((use.node for use in enter.outputs[0].uses() if use.node.op_type in ("Merge", "RefMerge")), None)
        if merge is None:
            continue                                            # only read in the loop
        back = next((value.producer() for value in merge.inputs[1:] if value is not None), None)
        switch = next((use.node for use in merge.outputs[0].uses() if use.idx == 0 and use.node.op_type in ("Switch", "RefSwitch") and _of_loop(use.node)),
                      None)
        if back is None or switch is None or back.op_type not in ("NextIteration", "RefNextIteration") or enter.inputs[0] is None or back.inputs[0] is None:
            raise Damaged(f"the loop {name!r} is wired in a way that TensorFlow does not wire loops", where=enter.name or "")
        frame.starts.append(enter.inputs[0])
        frame.rounds.append(merge.outputs[0])
        frame.inner.append(switch.outputs[1])
        frame.following.append(back.inputs[0])
        frame.exits.append([use.node.outputs[0] for use in switch.outputs[0].uses() if use.node.op_type in ("Exit", "RefExit")])
        loop_condition = switch.inputs[1].producer() if switch.inputs[1] is not None else None
        frame.test = loop_condition.inputs[0] if loop_condition is not None else None
    if frame.test is None:
        raise Damaged(f"the loop {name!r} has no variables", where=enters[0].name or "")
    stops = {*frame.rounds, *frame.inner}
    frame.condition = _collected([frame.test], stops, makers)
    frame.body = _collected(frame.following, stops, makers)
    if any(id(item) in others for item in (*frame.condition, *frame.body)):
        return None
    return frame


def _collected(values: Iterable[Value], stops: set[Value], makers: dict[Value, Item]) -> list[Item]:
    """What must be carried out for these values, in order; what enters from outside ends the search."""
    roots = [makers[value] for value in values if value not in stops and value in makers]

    def maker(value: Value) -> Item | None:
        return None if value in stops else makers.get(value)
    return _sorted(roots, maker, lambda item: isinstance(item, ir.Node) and item.op_type in ("Enter", "RefEnter", "NextIteration", "RefNextIteration"))


def _needs(item: Item) -> list[Value]:
    if isinstance(item, ir.Node):
        return [value for value in item.inputs if value is not None]
    made = {value for inner in (*item.condition, *item.body) for value in inner.outputs}
    own = {*item.rounds, *item.inner, *made}
    return [*item.starts, *(value for inner in (*item.condition, *item.body) for value in _needs(inner) if value not in own)]


def _sorted(roots: Sequence[Item], maker: Callable[[Value], Item | None], ends: Callable[[Item], bool] = lambda item: False) -> list[Item]:
    """The roots and what they need, each after what it needs itself. Raises `Damaged` for a cycle."""
    done: dict[int, bool] = {}
    order: list[Item] = []
    for root in roots:
        stack: list[tuple[Item, Iterator[Item | None]]] = []
        if id(root) not in done:
            done[id(root)] = False
            stack.append((root, iter(() if ends(root) else [maker(value) for value in _needs(root)])))
        while stack:
            item, needs = stack[-1]
            following = next((need for need in needs if need is not None and done.get(id(need)) is not True), None)
            if following is None:
                stack.pop()
                done[id(item)] = True
                order.append(item)
            elif id(following) in done:
                raise Damaged("its nodes form a cycle that is no loop", where=getattr(following, "name", "") or "")
            else:
                done[id(following)] = False
                stack.append((following, iter(() if ends(following) else [maker(value) for value in _needs(following)])))
    return order

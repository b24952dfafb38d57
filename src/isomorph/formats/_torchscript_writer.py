"""A graph of aten calls as a TorchScript archive: one module with a tree of submodules that hold its weights, and `forward` as printed code.

Layout and grammar: torch/csrc/jit/docs/serialization.md. The names, types and shapes of inputs, and the names of outputs, stand beside the code in
`extra/isomorph.json`, because the code has none of them.
"""
from __future__ import annotations

import json
import math
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx_ir as ir

from isomorph.dialects.torch.calls import DOMAIN, arguments
from isomorph.dialects.torch.to_onnx import SCALAR_TYPES
from isomorph.errors import Unsupported, Usage
from isomorph.formats import _torch_interface, _torch_names, _torch_zip
from isomorph.progress import SILENT, Progress
from isomorph.report import Report, Severity

if TYPE_CHECKING:
    from isomorph.model import Model

INDENT = "  "
VERSION = 10                            # of the operators: what code of earlier versions means is adapted when it is loaded
# Numbers of element types that printed code uses, c10/core/ScalarType.h, beyond those that the mapping back knows
TYPES = {kind: place for place, kind in enumerate(SCALAR_TYPES) if kind is not None} | {ir.DataType.FLOAT8E8M0: 44}
SYMBOLIC = {"sym_add": "add", "sym_mul": "mul", "sym_trunc": "floor", "sym_size": "size"}     # what calls of numbers are called in code
ABSENT = ("view",)                      # overloads that the compiler of TorchScript does not know
READ = {"int": "int", "float": "float", "bool": "bool"}
OPTIONAL_LISTS = {"index": 1, "index_put": 1}


def write(model: Model, path: str | os.PathLike[str], *, force: bool = False, progress: Progress = SILENT) -> Report:
    """A file that `torch.jit.load` takes. Raises `Usage` where the output exists or the model is in another dialect."""
    path = Path(path)
    if model.dialect != "torch":
        raise Usage("a TorchScript file holds calls of aten", where=str(path), hint="hand over the model in the dialect torch")
    weights = _torch_names.weights(model)
    code = Code(model, weights)
    report = Report(str(path))
    if model.metadata:
        report.add("metadata.dropped", Severity.INFO, str(path), f"{len(model.metadata)} entries of metadata are not written")
    progress.start("write", sum(weight.tensor.nbytes for weight in weights), "bytes")
    with _torch_zip.writing(path, path.stem or "model", force=force, progress=progress) as archive:
        archive.member("data.pkl", [_pickled(weights)])
        archive.text("code/__torch__.py", code.text())
        archive.member("constants.pkl", [b"\x80\x02)."])
        archive.text("byteorder", "little")
        for place, weight in enumerate(weights):
            archive.tensor(f"data/{place}", weight.tensor)
        archive.text("version", f"{VERSION}\n")
        archive.text(_torch_interface.EXTRA, _torch_interface.written(model))
    progress.finish()
    report.facts |= {"bytes": path.stat().st_size, "tensors": len(weights)}
    return report


# The tree of modules

Tree = dict[str, Any]


def _tree(weights: Iterable[_torch_names.Weight]) -> Tree:
    """Submodules are dictionaries, weights are (place of the storage, weight)."""
    root: Tree = {}
    for place, weight in enumerate(weights):
        node = root
        for part in weight.path[:-1]:
            node = node.setdefault(part, {})
        node[weight.path[-1]] = (place, weight)
    return root


def _class_name(path: tuple[str, ...]) -> str:
    return "_".join(("Model", *path)) if path else "Model"


def _pickled(weights: list[_torch_names.Weight]) -> bytes:
    """`__torch__.Model` with its attributes, submodules inside."""
    def module(tree: Tree, path: tuple[str, ...]) -> bytes:
        out = [f"c__torch__\n{_class_name(path)}\n".encode(), b")\x81}("]
        for name, item in tree.items():
            out += [_torch_zip.text(name), module(item, (*path, name)) if isinstance(item, dict) else _tensor(*item)]
        return b"".join([*out, _torch_zip.text("training"), b"\x89ub"])
    return b"\x80\x02" + module(_tree(weights), ()) + b"."


def _tensor(place: int, weight: _torch_names.Weight) -> bytes:
    return _torch_zip.rebuilt_whole(weight.tensor, place, trained=weight.trained)


# The code

class Code:
    """Printed code of the classes and of `forward`. Every value of the graph has one name in it."""

    def __init__(self, model: Model, weights: list[_torch_names.Weight]):
        self.model, self.weights = model, weights
        self.lines: list[str] = []
        self.names: dict[ir.Value, str] = {}
        self.used = {"self", "torch", "ops", "annotate", "inf", "nan", "True", "False", "None", "int", "float", "bool", "CONSTANTS", "uninitialized"}
        self.depth = 2

    def text(self) -> str:
        inputs = [self.named(value) for value in self.model.graph.inputs]
        for weight in self.weights:
            self.say(f"{self.named(weight.value)} = {_reach(weight.path)}")
        self.block(self.model.graph)
        self.returned()
        header = ["def forward(self: __torch__.Model" + "".join(f",\n    {name}: Tensor" for name in inputs) + f") -> {self.result_type()}:"]
        classes: list[str] = []
        self.classes(_tree(self.weights), (), classes)
        return "\n".join([*classes, f"{INDENT}{header[0]}", *self.lines, ""])

    def classes(self, tree: Tree, path: tuple[str, ...], lines: list[str]) -> None:
        """Inner classes first, because a class must be known where it is named."""
        for name, item in tree.items():
            if isinstance(item, dict):
                self.classes(item, (*path, name), lines)
        trained = [name for name, item in tree.items() if isinstance(item, tuple) and item[1].trained]
        kept = [name for name, item in tree.items() if isinstance(item, tuple) and not item[1].trained]
        lines += [f"class {_class_name(path)}(Module):", f"{INDENT}__parameters__ = [{''.join(f'{json.dumps(name)}, ' for name in trained)}]",
                  f"{INDENT}__buffers__ = [{''.join(f'{json.dumps(name)}, ' for name in kept)}]"]
        for name, item in tree.items():
            kind = "Tensor" if isinstance(item, tuple) else f"__torch__.{_class_name((*path, name))}"
            lines.append(f"{INDENT}__annotations__[{json.dumps(name)}] = {kind}" if name.isdigit() else f"{INDENT}{name} : {kind}")
        lines.append(f"{INDENT}training : bool")

    # ---- values

    def named(self, value: Any) -> str:
        if value not in self.names:
            self.names[value] = self.fresh((value.name or "value").rpartition("/")[2] if value.producer() is not None else value.name or "value")
        return self.names[value]

    def fresh(self, base: str) -> str:
        return _torch_names.fresh(base, self.used)

    def say(self, line: str) -> None:
        self.lines.append(INDENT * self.depth + line)

    # ---- nodes

    def block(self, graph: ir.Graph) -> None:
        for node in graph:
            if node.domain != DOMAIN:
                (self.branch if node.op_type == "If" else self.loop)(node)
            elif node.op_type == "Identity":
                self.say(f"{self.named(node.outputs[0])} = {self.named(node.inputs[0])}")
            else:
                self.call(node)

    def call(self, node: ir.Node) -> None:
        args, keywords = arguments(node)
        results = "".join(f"{self.named(value)}, " for value in node.outputs) if len(node.outputs) > 1 else self.named(node.outputs[0])
        if node.op_type == "item":
            self.say(f"{results} = {READ[node.outputs[0].meta['number']]}({self.named(args[0])})")
            return
        if node.op_type in ABSENT:
            why = "TorchScript has no call that reads bits as another type"
            raise Unsupported(why, blockers=[("BitCast", node.name or "", why)], hint="write a .pt2, which has one")
        name = SYMBOLIC.get(node.op_type, node.op_type)
        given = [self.argument(argument, optional=OPTIONAL_LISTS.get(name) == place) for place, argument in enumerate(args)]
        given += [f"{key}={self.argument(argument)}" for key, argument in keywords.items()]
        self.say(f"{results} = torch.{name}({', '.join(given)})")

    def argument(self, argument: Any, *, optional: bool = False) -> str:
        if isinstance(argument, ir.Value):
            return self.named(argument)
        if isinstance(argument, ir.DataType):
            if argument not in TYPES:
                raise Unsupported(f"PyTorch has no element type {argument.name}")
            return str(TYPES[argument])
        if isinstance(argument, list):
            items = ", ".join(map(self.argument, argument))
            if optional:
                return f"annotate(List[Optional[Tensor]], [{items}])"
            return f"[{items}]" if argument else "annotate(List[int], [])"
        if isinstance(argument, float):
            return _number(argument)
        return json.dumps(argument) if isinstance(argument, str) else repr(argument)

    # ---- control flow

    def branch(self, node: ir.Node) -> None:
        """Both branches assign the same names."""
        self.say(f"if bool({self.named(node.inputs[0])}):")
        names = [self.named(value) for value in node.outputs]
        for attribute in ("then_branch", "else_branch"):
            if attribute == "else_branch":
                self.say("else:")
            body = node.attributes[attribute].value
            self.depth += 1
            self.block(body)
            for name, value in zip(names, body.outputs, strict=True):
                self.say(f"{name} = {self.named(value)}")
            self.depth -= 1

    def loop(self, node: ir.Node) -> None:
        """Carried values keep their names from round to round; collected ones go into lists."""
        body = node.attributes["body"].value
        (count, condition), carried = (*node.inputs, None, None)[:2], node.inputs[2:]
        names = [self.named(value) for value in body.inputs]
        round_name, go = self.fresh("round"), self.fresh("go")
        limit = "9223372036854775807" if count is None else f"int({self.named(count)})"
        piles = [self.fresh("pile") for _ in node.outputs[len(carried):]]
        for name, value in zip(names[2:], carried, strict=True):
            self.say(f"{name} = {self.named(value)}")
        for pile in piles:
            self.say(f"{pile} = annotate(List[Tensor], [])")
        self.say(f"{round_name} = 0")
        limit_name = self.fresh("limit")
        self.say(f"{limit_name} = {limit}")
        start = "True" if condition is None else f"bool({self.named(condition)})"
        self.say(f"{go} = torch.__and__(torch.lt({round_name}, {limit_name}), {start})")
        self.say(f"while {go}:")
        self.depth += 1
        self.say(f"{names[0]} = torch.tensor({round_name})")
        self.say(f"{names[1]} = torch.tensor(True)")
        self.block(body)
        results = [self.named(value) for value in body.outputs]
        for pile, result in zip(piles, results[1 + len(carried):], strict=True):
            self.say(f"{self.fresh('appended')} = torch.append({pile}, {result})")
        self.say(f"{round_name} = torch.add({round_name}, 1)")
        following = [f"torch.__and__(torch.lt({round_name}, {limit_name}), bool({results[0]}))", *results[1:1 + len(carried)]]
        self.say(f"{', '.join([go, *names[2:]])} = {', '.join(following)}" if len(following) > 1 else f"{go} = {following[0]}")
        self.depth -= 1
        for value, name in zip(node.outputs, names[2:], strict=False):
            self.say(f"{self.named(value)} = {name}")
        for value, pile, item in zip(node.outputs[len(carried):], piles, body.outputs[1 + len(carried):], strict=True):
            empty = [0, *(dim if isinstance(dim, int) else 0 for dim in item.shape or ())]
            self.say(f"if torch.gt(torch.len({pile}), 0):")
            self.say(f"{INDENT}{self.named(value)} = torch.stack({pile})")
            self.say("else:")
            self.say(f"{INDENT}{self.named(value)} = torch.zeros({empty}, dtype={TYPES[item.dtype]})")

    # ---- results

    def returned(self) -> None:
        outputs = [self.named(value) for value in self.model.graph.outputs]
        self.say(f"return {outputs[0]}" if len(outputs) == 1 else f"return ({', '.join(outputs)})")

    def result_type(self) -> str:
        count = len(self.model.graph.outputs)
        return "Tensor" if count == 1 else f"Tuple[{', '.join(['Tensor'] * count)}]"


def _reach(path: tuple[str, ...]) -> str:
    reached = "self"
    for part in path:
        reached = f"getattr({reached}, {json.dumps(part)})" if part.isdigit() else f"{reached}.{part}"
    return reached


def _number(value: float) -> str:
    if math.isnan(value):
        return "nan"
    return ("inf" if value > 0 else "-inf") if math.isinf(value) else repr(value)

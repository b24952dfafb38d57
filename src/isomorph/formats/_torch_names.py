"""Names of weights as attributes of modules: `layer1.0.conv.weight` is what a user of PyTorch trains, prunes and looks for."""
from __future__ import annotations

import keyword
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isomorph.dialects.torch.calls import Ref
from isomorph.model import unused
from isomorph.tensors import NAME, dims_of, type_of

if TYPE_CHECKING:
    import onnx_ir as ir

    from isomorph.model import Model

WORD, NAMELESS = re.compile(r"[^0-9A-Za-z_]"), re.compile(r"(onnx::\w+_)?\d+$")
# Attributes of every torch.nn.Module: a weight of such a name would hide them
TAKEN = frozenset({
    "T_destination", "add_module", "apply", "bfloat16", "buffers", "call_super_init", "children", "compile", "cpu", "cuda", "double", "dump_patches",
    "eval", "extra_repr", "float", "forward", "get_buffer", "get_extra_state", "get_parameter", "get_submodule", "half", "ipu", "load_state_dict",
    "modules", "mtia", "named_buffers", "named_children", "named_modules", "named_parameters", "parameters", "register_backward_hook",
    "register_buffer", "register_forward_hook", "register_module", "register_parameter", "requires_grad_", "self", "set_extra_state", "set_submodule",
    "share_memory", "state_dict", "to", "to_empty", "train", "training", "type", "xpu", "zero_grad",
})
# Calls whose arguments at these places are their weights, under the names that PyTorch's layers give them
LAYERS = {**{f"conv{n}d": {1: "weight", 2: "bias"} for n in (1, 2, 3)}, **{f"conv_transpose{n}d": {1: "weight", 2: "bias"} for n in (1, 2, 3)},
          "linear": {1: "weight", 2: "bias"}, "batch_norm": {1: "weight", 2: "bias", 3: "running_mean", 4: "running_var"}, "prelu": {1: "weight"},
          "layer_norm": {2: "weight", 3: "bias"}, "group_norm": {2: "weight", 3: "bias"}, "instance_norm": {1: "weight", 2: "bias"},
          "rms_norm": {2: "weight"}, "embedding": {0: "weight"}}
STATISTICS = ("running_mean", "running_var")


@dataclass(frozen=True)
class Weight:
    """A constant of the graph: where the module keeps it, and whether it is trained."""

    value: ir.Value
    path: tuple[str, ...]
    trained: bool

    @property
    def name(self) -> str:
        return ".".join(self.path)

    @property
    def tensor(self) -> Any:
        return self.value.const_value


def identifier(name: str) -> str:
    """A word of Python that is close to `name`."""
    word = WORD.sub("_", name) or "_"
    return word + "_" if keyword.iskeyword(word) or word in TAKEN else word


def weights(model: Model) -> list[Weight]:
    """The constants of a graph of calls and of its bodies, each with a path of its own. Floating ones of at least one axis are trained, statistics are not."""
    found: list[Weight] = []
    leaves: set[tuple[str, ...]] = set()
    inner: set[tuple[str, ...]] = set()
    for graph in (model.graph, *model.graph.subgraphs()):
        for value in graph.initializers.values():
            if value.const_value is None:
                continue
            role = _role(value)
            path = _path(value, role)
            while (clash := _clash(path, leaves, inner)) is not None:
                path = (*path[:clash], path[clash] + "_", *path[clash + 1:])
            leaves.add(path)
            inner.update(path[:depth] for depth in range(1, len(path)))
            found.append(Weight(value, path, _is_trained(value.const_value) and role not in STATISTICS))
    return found


def _clash(path: tuple[str, ...], leaves: set[tuple[str, ...]], inner: set[tuple[str, ...]]) -> int | None:
    """The place of the word that stands for something else already: a weight where a module is wanted, or anything where a weight is."""
    taken = [depth - 1 for depth in range(1, len(path) + 1) if path[:depth] in leaves]
    return taken[0] if taken else len(path) - 1 if path in inner else None


def _is_trained(tensor: Any) -> bool:
    return NAME[type_of(tensor)] in ("FLOAT", "DOUBLE", "FLOAT16", "BFLOAT16") and len(dims_of(tensor)) > 0


def _role(value: ir.Value) -> str:
    for use in value.uses():
        args = use.node.meta.get("call", ((), {}))[0]
        for place, role in LAYERS.get(use.node.op_type, {}).items():
            if place < len(args) and isinstance(args[place], Ref) and use.node.inputs[args[place]] is value:
                return role
    return ""


def _path(value: ir.Value, role: str) -> tuple[str, ...]:
    """The parts of its name; where the exporter left it nameless, the name of the node that reads it and what it is there."""
    name = value.name or ""
    if NAMELESS.match(name):
        node = next((use.node for use in value.uses()), None)
        source = (node.metadata_props.get("source") or node.name or "") if node is not None else ""
        name = f"{source.strip('/')}/{role or name.rpartition('_')[2]}" if source else name.replace("::", "_")
    parts = [part for part in re.split(r"[./]+|::", name) if part]
    words = [identifier(part) if not part.isdigit() else part for part in parts] or ["constant"]
    words[-1] = f"w{words[-1]}" if words[-1].isdigit() else words[-1]
    return tuple(word if word.isdigit() or not word[0].isdigit() else f"_{word}" for word in words)


def fresh(base: str, used: set[str]) -> str:
    """An identifier made of `base` that is not in `used` yet; from now on it is."""
    word = identifier(base)
    word = f"_{word}" if word[0].isdigit() else word
    return unused(word, used)

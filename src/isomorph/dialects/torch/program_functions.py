"""The functions of TorchScript's programs: operators on tensors, numbers and lists of Python, and those that have a meaning of their own."""
from __future__ import annotations

import math
import operator
from collections.abc import Callable
from typing import Any

import onnx_ir as ir

from isomorph.dialects.torch.loops import Pile
from isomorph.dialects.torch.lowering import Lowering, Rejected, scalar, static, symbol
from isomorph.dialects.torch.program_values import NUMBERS, UNKNOWN, Cell, Obj, Raised, Unchanged, Unknown, flat, has_unknown
from isomorph.dialects.torch.to_onnx import SCALAR_TYPES
from isomorph.dialects.torch.views import VIEWS, written_back

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


class Range:
    """range() between bounds of the run."""

    __slots__ = ("high", "low", "step")

    def __init__(self, low: Any, high: Any, step: int):
        self.low, self.high, self.step = low, high, step

    def count(self, machine: Machine) -> Any:
        """How many numbers it has."""
        return machine.tensor(machine.numbers("__range_length", [self.low, self.high, self.step], {}))

    def item(self, machine: Machine) -> Callable[[ir.Value], Any]:
        """The number of a round."""
        return lambda place: machine.numbers("__derive_index", [scalar(place), self.low, self.step], {})


class Machine:
    """The tensors of one execution, and the functions that its program calls."""

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

    # ---- calls

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
        """A function or class of the file: whoever has one answers this."""
        self.lowering.block(name, "there is no code of that name")
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

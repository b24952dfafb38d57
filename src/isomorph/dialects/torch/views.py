"""Views of tensors that are written to: the whole tensor with the part that a view shows replaced."""
from __future__ import annotations

from typing import Any

import onnx_ir as ir

from isomorph.dialects.torch.lowering import Lowering, Rejected

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

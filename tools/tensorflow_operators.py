"""Prints the operators of the installed TensorFlow as `wire/schemas/tensorflow_operators.txt` keeps them; run it where TensorFlow is installed."""
from __future__ import annotations

import json
import sys

import tensorflow
from tensorflow.core.framework import op_def_pb2, types_pb2
from tensorflow.python.client import pywrap_tf_session

HEAD = """\
# The operators of TensorFlow {version}, one a line, made by tools/tensorflow_operators.py: NAME[!] inputs -> outputs | attributes
# `!` marks operators with effects or state. An argument is `name:type`, where the type is an element type, or the name of the attribute that holds it;
# `N*T` is a list of as many values of one type as attribute N says, `*T` a list whose types attribute T lists, `&` a reference.
# An attribute is `name:kind`, with `=default` in JSON where it has one.
"""


def argument(arg: op_def_pb2.OpDef.ArgDef) -> str:
    kind = "*" + arg.type_list_attr if arg.type_list_attr else arg.type_attr or types_pb2.DataType.Name(arg.type)[3:].lower()
    count = arg.number_attr + "*" if arg.number_attr else ""
    return f"{arg.name}:{'&' if arg.is_ref else ''}{count}{kind}"


def plain(value: object) -> object:
    """An attribute's value as JSON: types by name, shapes as lists, None where the rank is unknown."""
    field = value.WhichOneof("value")
    if field == "list":
        lists = [(name, getattr(value.list, name)) for name in ("s", "i", "f", "b", "type", "shape")]
        return next(([element(name, item) for item in items] for name, items in lists if items), [])
    return element(field, getattr(value, field)) if field else None


def element(field: str, item: object) -> object:
    if field == "type":
        return types_pb2.DataType.Name(item)[3:].lower()
    if field == "shape":
        return None if item.unknown_rank else [dim.size for dim in item.dim]
    if field == "s":
        return item.decode()
    return None if field in ("tensor", "func") else item


def attribute(attr: op_def_pb2.OpDef.AttrDef) -> str:
    default = "=" + json.dumps(plain(attr.default_value), separators=(",", ":")) if attr.HasField("default_value") else ""
    if " " in default:
        default = ""
    return f"{attr.name}:{attr.type}{default}"


def main() -> None:
    operators = op_def_pb2.OpList()
    operators.ParseFromString(pywrap_tf_session.TF_GetBuffer(pywrap_tf_session.TF_GetAllOpList()))
    sys.stdout.write(HEAD.format(version=".".join(tensorflow.__version__.split(".")[:2])))
    for op in sorted(operators.op, key=lambda op: op.name):
        parts = [op.name + "!" * op.is_stateful, *map(argument, op.input_arg), "->", *map(argument, op.output_arg), "|", *map(attribute, op.attr)]
        print(" ".join(parts))


if __name__ == "__main__":
    main()

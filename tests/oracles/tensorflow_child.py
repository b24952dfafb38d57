"""Makes SavedModels of the cases in `tensorflow_cases`, in a Python that has TensorFlow: `tensorflow_child.py FOLDER [FILTER]`.

Every folder holds many signatures; `cases.json` beside them lists (name, operator, folder, inputs, outputs), `values.npz` what goes in and comes out.
"""
from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
os.environ.setdefault("CUDA_VISIBLE_DEVICES", "-1")

import inspect

import numpy as np
import tensorflow as tf

sys.path.insert(0, str(Path(__file__).parent))
import tensorflow_cases as cases

AT_ONCE = 25
# Operators whose later results are only for their own gradient.
OUTPUTS = {"FusedBatchNorm": 3, "FusedBatchNormV2": 3, "FusedBatchNormV3": 3}


def parameters(op: str) -> list[str]:
    """The names of the inputs of an operator, in order."""
    return [name for name in inspect.signature(getattr(tf.raw_ops, op)).parameters if name != "name"]


def body(op: str, inputs: list[Any], attributes: dict[str, Any]) -> tuple[Any, list[np.ndarray]]:
    """A function of the fed arrays, and the arrays."""
    if op.startswith("_Fused"):
        return fused(op, inputs, attributes)
    paired = bool(inputs) and isinstance(inputs[0], str)
    if paired:
        inputs = inputs[1:]
        real = [place for place, item in enumerate(inputs) if not isinstance(item, cases.C)]
        inputs = [tuple(inputs[place:place + 2]) for place in real[::2]] + [item for item in inputs if isinstance(item, cases.C)]
    fed: list[np.ndarray] = []

    def keep(item: Any) -> Any:
        if isinstance(item, cases.C):
            return ("constant", item.value)
        if isinstance(item, (list, tuple)):
            return ("pair" if isinstance(item, tuple) else "list", [keep(each) for each in item])
        fed.append(np.asarray(item))
        return ("fed", len(fed) - 1)
    kept = [keep(item) for item in inputs]
    names = parameters(op)[:len(kept)]

    def value(item: Any, tensors: list[Any]) -> Any:
        kind, content = item
        if kind == "constant":
            return tf.constant(content.tolist() if content.dtype.kind in "OSU" else content, dtype=tf.string if content.dtype.kind in "OSU" else None)
        if kind == "fed":
            return tensors[content]
        values = [value(each, tensors) for each in content]
        return tf.complex(*values) if kind == "pair" else values

    def run(*tensors: Any) -> Any:
        made = getattr(tf.raw_ops, op)(**{name: value(item, list(tensors)) for name, item in zip(names, kept, strict=True)}, **attributes)
        return made[:OUTPUTS[op]] if op in OUTPUTS else made
    return run, fed


def fused(op: str, inputs: list[Any], attributes: dict[str, Any]) -> tuple[Any, list[np.ndarray]]:
    """Operators that only the graph optimiser makes have no wrapper in Python."""
    x, w, arguments, *_ = inputs
    from tensorflow.core.framework.attr_value_pb2 import AttrValue
    from tensorflow.python.framework import ops

    def run(tensor: Any) -> Any:
        graph = ops.get_default_graph()
        values = [tensor, tf.constant(w.value), *(tf.constant(item.value) for item in arguments)]
        node = {"fused_ops": AttrValue(list=AttrValue.ListValue(s=[name.encode() for name in attributes["fused_ops"]])),
                "num_args": AttrValue(i=len(arguments)), "T": AttrValue(type=1)}
        if "Conv" in op:
            node["TArgs"] = AttrValue(list=AttrValue.ListValue(type=[1] * len(arguments)))
            node["strides"] = AttrValue(list=AttrValue.ListValue(i=attributes["strides"]))
            node["padding"] = AttrValue(s=attributes["padding"].encode())
        return graph._create_op_internal(op, values, attrs=node, dtypes=[tf.float32]).outputs[0]
    return run, [np.asarray(x)]


def flat(made: Any) -> list[Any]:
    """The tensors among the results; complex ones in two parts."""
    if made is None:
        return []
    if isinstance(made, tf.Tensor):
        return [tf.math.real(made), tf.math.imag(made)] if made.dtype.is_complex else [tf.identity(made)]
    return [tensor for item in made for tensor in flat(item)]


def named(function: Any) -> Any:
    """The same function with names for what it gives."""
    def results(*tensors: Any) -> dict[str, Any]:
        return {f"y{place}": tensor for place, tensor in enumerate(flat(function(*tensors)))}
    return results


def main(folder: Path, wanted: str = "") -> None:
    listed, values, refused = [], {}, []
    programs = []
    for op, inputs, attributes in cases.rows():
        if not wanted or op == wanted:
            try:
                programs.append((op, *body(op, inputs, attributes)))
            except AttributeError as error:
                refused.append(("", op, str(error)))
    programs += [(op, function, arrays) for op, function, arrays in cases.PROGRAMS if not wanted or op == wanted]
    for start in range(0, len(programs), AT_ONCE):
        module = tf.Module()
        module.kept, module.tables = [], cases.TABLES
        signatures = {}
        for number, (op, function, arrays) in enumerate(programs[start:start + AT_ONCE], start):
            name = f"case_{number:04d}"
            specs = [tf.TensorSpec(array.shape, tf.string if array.dtype.kind in "OSU" else array.dtype, name=f"x{place}")
                     for place, array in enumerate(arrays)]
            made = tf.function(named(function), input_signature=specs)
            try:
                concrete = made.get_concrete_function()
                given = [tf.constant(array.tolist() if array.dtype.kind in "OSU" else array, dtype=spec.dtype)
                         for array, spec in zip(arrays, specs, strict=True)]
                results = {key: tensor.numpy() for key, tensor in concrete(*given).items()}
            except Exception as error:
                refused.append((name, op, f"{type(error).__name__}: {str(error)[-300:]}"))
                continue
            module.kept.append(made)
            signatures[name] = concrete
            listed.append({"name": name, "operator": op, "folder": f"models_{start:04d}", "inputs": len(arrays), "outputs": sorted(results)})
            values.update({f"{name}/x{place}": array if array.dtype.kind != "O" else array.astype(str) for place, array in enumerate(arrays)})
            values.update({f"{name}/{key}": array if array.dtype.kind != "O" else array.astype(str) for key, array in results.items()})
        if signatures:
            tf.saved_model.save(module, str(folder / f"models_{start:04d}"), signatures=signatures)
    np.savez(folder / "values.npz", **values)
    (folder / "cases.json").write_text(json.dumps({"cases": listed, "refused": refused}))
    print(len(listed), len(refused))


if __name__ == "__main__":
    main(Path(sys.argv[1]), *sys.argv[2:3])

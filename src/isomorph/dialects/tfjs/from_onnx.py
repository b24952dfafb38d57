"""What TensorFlow.js has of TensorFlow's operators, and the forms of ONNX that it wants instead of the others.

It computes in float32, int32 and bool: 64-bit and narrow types are written as these, so wrapping around at 8 or 16 bits is not kept.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from isomorph.dialects._forms.common import label_encoder as compared
from isomorph.dialects._forms.common import matmul as shared_matmul
from isomorph.dialects._forms.common import table_of
from isomorph.dialects._forms.pipeline import Target, target
from isomorph.dialects._lower import Mapping
from isomorph.dialects.tf.from_onnx.kernels import kernel_types as tensorflow_types
from isomorph.dialects.tf.from_onnx.legalize import legalize
from isomorph.dialects.tf.from_onnx.operators import from_onnx
from isomorph.formats._graphdef_writer import type_of_value
from isomorph.passes.decompose import decompose, shape_of

T = ir.DataType
MOST_COMPARED = 256                         # keys
# Operators of the hub whose kernel in TensorFlow has none in TensorFlow.js 4.22 (its op_list).
# Its converter reads the operands of BitwiseAnd under a wrong name, so that no graph with it runs.
ABSENT = (
    "Softsign", "BitwiseNot", "BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitShift", "Det", "ReverseSequence", "ScatterND", "StringConcat", "RegexFullMatch",
    "ChangedCase", "DistinctRows", "SegmentFirst", "BitCast", "last::SpaceToDepth", "Rsqrt",
)

kernel = Mapping().update(from_onnx)
for _name in ABSENT:
    _domain, _, _operator = _name.rpartition("::")
    kernel.rules.pop((_domain, _operator), None)
own = Mapping().update(legalize)
for _name in ("ScatterND", "BitShift", "StringNormalizer", "Unique"):
    own.rules.pop(("", _name), None)


@own("BitwiseNot")
def bitwise_not(op, x):
    """-1 - x in two's complement."""
    return op.Sub(op.const(-1, like=x.dtype), x) if x.dtype in SIGNED else op.reject(f"bits of {x.dtype.name} in a runtime of 32 signed bits")


@own("BitShift")
def bit_shift(op, x, y, *, direction):
    """A product with a power of two, or a quotient that is rounded down; beyond the width of the type nothing is left."""
    width = x.dtype.bitwidth
    power = op.Cast(op.Pow(op.const(np.float32(2)), op.Cast(op.Min(y, op.const(width - 1, like=y.dtype)), to=1)), to=int(x.dtype))
    shifted = op.Mul(x, power) if direction == "LEFT" else _rounded_down(op, x, power)
    return op.Where(op.Less(y, op.const(width, like=y.dtype)), shifted, op.const(0, like=x.dtype))


def _rounded_down(op, x, divisor):
    quotient = op.Div(x, divisor)
    quotient.producer().meta["rounds"] = "down"
    return quotient


@own("ai.onnx.ml::LabelEncoder")
def label_encoder(op, x, *, keys_tensor=None, values_tensor=None, default_tensor=None, **columns):
    """Large tables are tables, which flatten what is looked up. Small ones are compared, because `predict` does that too, and only executeAsync looks up."""
    keys, values, missing = table_of(op, keys_tensor, values_tensor, default_tensor, columns)
    if op.static(keys)[0] <= MOST_COMPARED or keys.dtype == T.FLOAT or op.context.graph_of(op.node) is not op.context.graph:
        return compared(op, x, keys_tensor=keys_tensor, values_tensor=values_tensor, default_tensor=default_tensor, **columns)
    flat = op.Reshape(x, [-1])
    return op.Reshape(op.LookedUp(flat, keys, values, missing, _dtype=values.dtype, _shape=flat.shape), shape_of(op, x))


@own("Mod")
def mod(op, a, b, *, fmod=0):
    return decompose.rules["", "Mod"].function(op, a, b, fmod=fmod) if fmod else NotImplemented


@own("Div")
def divide(op, a, b):
    """Integers divide towards zero; the kernel rounds down, which is the same for what has no sign."""
    if a.dtype not in INTEGERS or op.node.meta.get("rounds"):
        return NotImplemented
    return op.Mul(op.Mul(op.Sign(a), op.Sign(b)), _rounded_down(op, op.Abs(a), op.Abs(b)))


@own("MatMul")
def matmul(op, a, b):
    """The kernel repeats one whole operand, but not single axes of both (TensorFlow.js 4.22 gives too few numbers then)."""
    whole = shared_matmul(op, a, b)
    (rank_a, sizes_a), (rank_b, sizes_b) = op.of(a), op.of(b)
    if whole is not NotImplemented or rank_a <= 2 or rank_b <= 2:
        return whole
    rank = max(rank_a, rank_b) - 2
    lead_a, lead_b = ([1] * (rank + 2 - len(sizes)) + sizes[:-2] for sizes in (sizes_a, sizes_b))
    if lead_a == lead_b or set(lead_a) == {1} or set(lead_b) == {1}:
        return NotImplemented
    lead = [max(pair) for pair in zip(op.static(a)[:-2][::-1] + [1] * rank, op.static(b)[:-2][::-1] + [1] * rank, strict=False)][:rank][::-1]
    return op.MatMul(op.Expand(a, [*lead, *op.static(a)[-2:]]), op.Expand(b, [*lead, *op.static(b)[-2:]]))


SIGNED = {T.INT8, T.INT16, T.INT32, T.INT64}
INTEGERS = SIGNED | {T.UINT8, T.UINT16, T.UINT32, T.UINT64}


@kernel("Div")
def kernel_divide(op, a, b):
    return op.FloorDiv(a, b) if a.dtype in INTEGERS else op.RealDiv(a, b)


@kernel("Cast")
def cast(op, x, *, to, **attributes):
    if any(kind.name.startswith("FLOAT8") for kind in (x.dtype, ir.DataType(to))):
        op.reject("TensorFlow.js has no floats of 8 bits")
    return from_onnx.rules["", "Cast"].function(op, x, to=to, **attributes)


@kernel("LookedUp")
def looked_up(op, x, keys, values, missing):
    """The inputs of the table itself are what fills it: `_tfjs_initializer` brings them into the second graph of the file."""
    op.lose("tfjs.table", f"a table of {keys.shape[0]} keys is filled when the model is loaded, and looked into by executeAsync only")
    kinds = {"key_dtype": type_of_value(keys), "value_dtype": type_of_value(values)}
    table = op.make("HashTableV2", [keys, values], {**kinds, "shared_name": op.context.unique("table")})
    table.meta["tf_type"] = "resource"
    table.dtype = None
    return op.LookupTableFindV2(table, x, missing, _dtype=values.dtype, _shape=x.shape)


@kernel("Relu")
def relu(op, x):
    """The kernel gives float32 for whatever it gets."""
    return op.Relu(x) if x.dtype not in INTEGERS else op.Maximum(x, op.const(0, like=x.dtype))


@kernel("last::TransposedConv")
def conv_transpose(op, x, w, b=None, shape=None, **window):
    if len(window.get("strides", (1, 1))) == 3:
        op.reject("TensorFlow.js transposes no convolution of three axes")
    return from_onnx.rules["last", "TransposedConv"].function(op, x, w, b, shape, **window)


def kernel_types(node: ir.Node) -> Collection[ir.DataType] | None:
    """As TensorFlow's, where a type stands for what it is computed in."""
    if node.domain not in ("", "last"):
        return None
    if node.op_type in ("ReduceMax", "ReduceMin", "ArgMax", "ArgMin"):
        return frozenset(INTEGERS | {T.FLOAT, T.DOUBLE, T.FLOAT16, T.BFLOAT16})
    found = tensorflow_types(node)
    return None if found is None else [*found]


TENSORFLOW_JS: Target = target("tfjs", "tf", "TensorFlow.js", kernel, own, kernel_types)

"""TensorFlow -> ONNX: variables, hash tables and text."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._lower import Builder, constant
from isomorph.dialects.tf.to_onnx.lowering import Lookup, TfBuilder, Variable
from isomorph.dialects.tf.to_onnx.operators import FLOAT, FLOATING, INT64, STRING, Value, to_onnx
from isomorph.dialects.tf.to_onnx.places import chosen_rows
from isomorph.dialects.tflite.to_onnx.common import longs

# ---- variables


def variable_of(op: TfBuilder, handle: Value) -> str:
    thing = handle.meta.get("thing")
    if not isinstance(thing, Variable):
        op.reject("a variable that comes from outside")
    return thing.name


@to_onnx("VarHandleOp", "VariableV2", "Variable", "TemporaryVariable")
def var_handle(op, *, shared_name="", container="", dtype, shape=None, **rest):
    """A variable whose content the file does not hold; it may be assigned before it is read."""
    if op.node.op_type != "VarHandleOp":
        op.reject("the file does not hold the content of this variable")
    return op.as_value(Variable(shared_name or op.node.name or ""))


@to_onnx("ReadVariableOp")
def read_variable(op, handle, *, dtype=""):
    name = variable_of(op, handle)
    return op.context.state[name] if name in op.context.state else op.reject(f"the file does not hold the content of the variable {name}")


@to_onnx("AssignVariableOp", "AssignAddVariableOp", "AssignSubVariableOp")
def assign_variable(op, handle, value, *, dtype="", validate_shape=0):
    name = variable_of(op, handle)
    if op.node.op_type != "AssignVariableOp":
        old = op.context.state.get(name)
        value = op.reject("it changes a variable that has no content") if old is None else (op.Add if "Add" in op.node.op_type else op.Sub)(old, value)
    op.context.state[name] = value
    op.context.assigned[name] = None
    return []


@to_onnx("VarIsInitializedOp", "IsVariableInitialized")
def var_is_initialized(op, handle):
    return op.const(np.bool_(True))


@to_onnx("VariableShape")
def variable_shape(op, handle, *, out_type=""):
    return op.Shape(op.context.state[variable_of(op, handle)])


@to_onnx("ResourceScatterAdd", "ResourceScatterUpdate")
def resource_scatter(op, handle, places, updates, *, dtype=""):
    name = variable_of(op, handle)
    reduction = "add" if op.node.op_type == "ResourceScatterAdd" else None
    op.context.state[name] = op.ScatterND(op.context.state[name], op.Unsqueeze(longs(op, places), [-1]), updates, reduction=reduction)
    op.context.assigned[name] = None
    return []


# ---- hash tables


@to_onnx("HashTableV2", "HashTable", "MutableHashTableV2", "MutableHashTable", "MutableDenseHashTableV2", "MutableDenseHashTable")
def hash_table(op, *marks, shared_name="", container="", key_dtype="", value_dtype="", use_node_name_sharing=0, **rest):
    """`marks` are the keys that stand for nothing where a dense table has room."""
    name = shared_name or op.node.name or ""
    thing = op.context.tables.setdefault(name, Lookup(name, str(key_dtype), str(value_dtype)))
    if marks and thing.keys is not None:
        there = ~np.isin(thing.keys, [constant(mark).reshape(-1)[0] for mark in marks if constant(mark) is not None])
        thing.keys, thing.values = thing.keys[there], thing.values[there]
    return op.as_value(thing)


@to_onnx("LookupTableImportV2", "LookupTableImport", "InitializeTableV2", "InitializeTable")
def lookup_table_import(op, handle, keys, values):
    thing = handle.meta.get("thing")
    if constant(keys) is None or constant(values) is None:
        op.reject("the content of the table must be constant")
    thing.keys, thing.values = constant(keys).reshape(-1), constant(values)
    return []


@to_onnx("LookupTableFindV2", "LookupTableFind")
def lookup_table_find(op, handle, wanted, default, *, Tin="", Tout=""):
    """ONNX's LabelEncoder knows texts, floats and int64; other integers go through int64."""
    thing = handle.meta.get("thing")
    if not isinstance(thing, Lookup) or thing.keys is None:
        op.reject("the content of the table is not in the file")
    if thing.values.ndim != 1:
        op.reject("a table of vectors")
    missing = constant(default)
    if missing is None:
        op.reject("the value of unknown keys must be a constant")
    keys, values = _encodable(thing.keys), _encodable(thing.values)
    a = wanted if wanted.dtype in (STRING, INT64, FLOAT) else op.Cast(wanted, to=FLOAT if wanted.dtype in FLOATING else INT64)
    attributes = {f"keys_{_suffix(keys)}s": keys, f"values_{_suffix(values)}s": values, f"default_{_suffix(values)}": _encodable(missing.reshape(-1))[0]}
    return op.make("LabelEncoder", (a,), attributes, domain="ai.onnx.ml", dtype=_kind(values), shape=a.shape)


def _encodable(array: np.ndarray) -> list[Any]:
    if array.dtype.kind in "OSU":
        return [x.decode("utf-8", "surrogateescape") if isinstance(x, bytes) else str(x) for x in array]
    return [float(x) for x in array] if array.dtype.kind == "f" else [int(x) for x in array]


def _suffix(values: list[Any]) -> str:
    return {str: "string", float: "float", int: "int64"}[type(values[0])]


def _kind(values: list[Any]) -> Any:
    return {str: STRING, float: FLOAT, int: INT64}[type(values[0])]


@to_onnx("LookupTableSizeV2", "LookupTableSize")
def lookup_table_size(op, handle):
    thing = handle.meta.get("thing")
    if not isinstance(thing, Lookup) or thing.keys is None:
        op.reject("the content of the table is not in the file")
    return op.const(np.int64(len(thing.keys)))


@to_onnx("InitializeTableFromTextFileV2", "InitializeTableFromTextFile")
def initialize_from_text(op, handle, filename, *, key_index, value_index, vocab_size=-1, delimiter="\t", offset=0):
    """The vocabulary lies in the model's own folder, where the reader has opened it; -1 is the number of a line and the offset, -2 the whole line."""
    thing = handle.meta.get("thing")
    name = constant(filename)
    lines = op.context.assets.get(_text(name)) if name is not None else None
    if lines is None:
        op.reject("the vocabulary is not among the files of the model")
    lines = lines[:vocab_size if vocab_size > 0 else None]
    rows = [line.split(delimiter.encode()) for line in lines]

    def column(place: int, kind: str) -> np.ndarray:
        if place == -1:
            return np.arange(len(lines), dtype=np.int64) + offset
        texts = np.asarray(lines if place == -2 else [row[place] for row in rows], object)
        return texts if kind in ("string", "") else texts.astype(NUMBERS[kind])
    if any(len(row) <= max(key_index, value_index) for row in rows):
        op.reject("a line of the vocabulary has too few columns")
    thing.keys, thing.values = column(key_index, thing.key_type), column(value_index, thing.value_type)
    return []


NUMBERS = {"int64": np.int64, "int32": np.int32, "float": np.float32, "double": np.float64}


def _text(array: np.ndarray) -> str:
    item = array.reshape(-1)[0]
    return item.decode("utf-8", "surrogateescape") if isinstance(item, bytes) else str(item)


# ---- text


@to_onnx("StringJoin")
def string_join(op, *xs, separator="", N=0):
    y = xs[0]
    for x in xs[1:]:
        y = op.StringConcat(op.StringConcat(y, op.const(np.asarray(separator, object))) if separator else y, x)
    return op.Identity(y) if len(xs) == 1 else y


@to_onnx("StringLower", "StringUpper")
def string_case(op, x, *, encoding=""):
    """ASCII only in TensorFlow without an encoding, as far as that goes all the same."""
    flat = op.Reshape(x, [-1])                 # ONNX takes rows of texts
    case = "LOWER" if op.node.op_type == "StringLower" else "UPPER"
    return op.Reshape(op.StringNormalizer(flat, case_change_action=case, is_case_sensitive=1, locale="C", _dtype=STRING, _shape=flat.shape), op.Shape(x))


@to_onnx("StringSplit", "StringSplitV2")
def string_split(op, x, separator, maxsplit=None, *, skip_empty=1, **rest):
    """Texts of [n, most parts] become rows of (text, part), the parts, and the shape."""
    between = constant(separator)
    if between is None:
        op.reject("the separator must be a constant")
    text = _text(between)
    if op.node.op_type == "StringSplit" and len(text) > 1:
        op.reject("several separators")
    most = rest.get("maxsplit", -1)
    if most > 0 or (op.node.op_type == "StringSplit" and text and not skip_empty):
        op.reject("a limit of the number of parts, or empty parts")
    parts, counts = op.StringSplit(x, delimiter=text or None, _outputs=2)
    widest = op.ReduceMax(counts, keepdims=1)
    columns = op.Range(op.const(np.int64(0)), op.Squeeze(widest, [0]), op.const(np.int64(1)))
    there = op.Less(op.Unsqueeze(columns, [0]), op.Unsqueeze(counts, [1]))
    if text and op.node.op_type == "StringSplit":
        there = op.And(there, op.Not(op.Equal(parts, op.const(np.asarray("", object)))))
    places = op.Transpose(op.NonZero(there), perm=[1, 0])
    return places, op.GatherND(parts, places), op.Concat(op.Shape(x), widest, axis=0)


@to_onnx("StringStrip")
def string_strip(op, x):
    op.reject("ONNX does not strip texts")


@to_onnx("StaticRegexFullMatch")
def static_regex_full_match(op, x, *, pattern):
    return op.RegexFullMatch(x, pattern=pattern)


@to_onnx("RegexFullMatch")
def regex_full_match(op, x, pattern):
    known = constant(pattern)
    return op.RegexFullMatch(x, pattern=_text(known)) if known is not None else op.reject("the pattern must be a constant")


@to_onnx("StaticRegexReplace")
def static_regex_replace(op, x, *, pattern, rewrite, replace_global=1):
    """Texts are only known where they are constants; ONNX has no operator that replaces. A pattern of letters at a fixed place is left to runtimes."""
    op.reject("ONNX has no operator that replaces parts of texts")


@to_onnx("StringToHashBucketFast", "StringToHashBucket", "StringToHashBucketStrong", "StringLength", "Substr", "UnicodeDecode", "UnicodeEncode")
def string_without_form(op, *xs, **rest):
    op.reject("ONNX has no such operator on texts")


@to_onnx("AsString")
def as_string(op, x, *, precision=-1, scientific=0, shortest=0, width=-1, fill=""):
    if x.dtype in FLOATING or width > 0:
        op.reject("floats or a width")
    return op.Cast(op.Cast(x, to=INT64), to=STRING)


@to_onnx("StringToNumber")
def string_to_number(op, x, *, out_type="float"):
    return op.Cast(x, to=op.outputs[0].dtype)


# ---- ragged and sparse


@to_onnx("RaggedRange")
def ragged_range(op, starts, limits, deltas):
    """One range of rows after the other, and where each begins."""
    a, b, d = starts, limits, deltas
    span = op.Div(op.Cast(op.Sub(b, a), to=ir.DataType.DOUBLE), op.Cast(d, to=ir.DataType.DOUBLE))
    lengths = op.Cast(op.Max(op.Ceil(span), op.const(np.zeros(()))), to=INT64)
    if a.shape is not None and a.shape.rank() == 0:
        lengths = op.Reshape(lengths, [-1])
    ends = op.CumSum(lengths, op.const(np.int64(0)))
    splits = op.Concat(op.const([0]), ends, axis=0)
    rows = op.Shape(lengths)
    total = op.ReduceSum(lengths, keepdims=0)
    place = op.Range(op.const(np.int64(0)), total, op.const(np.int64(1)))
    row = op.ReduceSum(op.Cast(op.GreaterOrEqual(op.Unsqueeze(place, [1]), op.Unsqueeze(ends, [0])), to=INT64), [1], keepdims=0)
    inside = op.Cast(op.Sub(place, op.Gather(splits, row)), to=a.dtype)
    a, d = (op.Expand(value, rows) for value in (a, d))
    return splits, op.Add(op.Gather(a, row), op.Mul(inside, op.Gather(d, row)))


@to_onnx("RaggedGather")
def ragged_gather(op, splits, *inputs, PARAMS_RAGGED_RANK=1, OUTPUT_RAGGED_RANK=1, **rest):
    """Rows of a ragged tensor of one ragged axis."""
    if PARAMS_RAGGED_RANK != 1 or len(inputs) != 2 or (op.of(inputs[1])[0] != 1):
        op.reject("several ragged axes")
    values, places = inputs
    index = longs(op, places)
    starts, ends = (op.Gather(longs(op, splits), index if not more else op.Add(index, 1)) for more in (0, 1))
    new, flat = ragged_range(op, starts, ends, op.const(np.int64(1)))
    return new, op.Gather(values, flat, axis=0)


@to_onnx("RaggedBincount")
def ragged_bincount(op, splits, values, count, weights, *, binary_output=0):
    """How often, or with which weight, each number below `count` stands in each row."""
    kind = op.outputs[0].dtype
    bounds, number, most = longs(op, splits), longs(op, values), op.Reshape(longs(op, count), [1])
    ends = op.Slice(bounds, [1], [np.iinfo(np.int64).max], [0])
    place = op.Range(op.const(np.int64(0)), op.Squeeze(op.Shape(number), [0]), op.const(np.int64(1)))
    row = op.ReduceSum(op.Cast(op.GreaterOrEqual(op.Unsqueeze(place, [1]), op.Unsqueeze(ends, [0])), to=INT64), [1], keepdims=0)
    inside = op.Less(number, most)
    places = op.Compress(op.Concat(op.Unsqueeze(row, [1]), op.Unsqueeze(number, [1]), axis=1), inside, axis=0)
    weighed = not binary_output and not (weights.shape is not None and 0 in list(weights.shape))
    ones = op.Expand(op.const(np.ones((), kind.numpy())), op.Shape(number))
    hits = op.Compress(op.Cast(weights, to=kind) if weighed else ones, inside, axis=0)
    zeros = op.ConstantOfShape(op.Concat(op.Shape(ends), most, axis=0), value=np.zeros(1, kind.numpy()))
    total = op.ScatterND(zeros, places, hits, reduction="add")
    return op.Min(total, op.const(np.ones((), kind.numpy()))) if binary_output else total


@to_onnx("RaggedTensorToTensor")
def ragged_tensor_to_tensor(op, shape, values, default, *partitions, row_partition_types=(), **rest):
    """One ragged axis, by row splits or by value row ids: every element goes to its row and place."""
    kinds = [str(kind) for kind in row_partition_types]
    if kinds not in (["ROW_SPLITS"], ["FIRST_DIM_SIZE", "VALUE_ROWIDS"]):
        op.reject("several ragged axes")
    count = op.Shape(values, start=0, end=1)
    place = op.Range(op.const(np.int64(0)), op.Squeeze(count, [0]), op.const(np.int64(1)))
    if kinds == ["ROW_SPLITS"]:
        splits = longs(op, partitions[0])
        rows = op.Sub(op.Shape(splits), 1)
        starts = op.Slice(splits, [0], [-1], [0])
        lengths = op.Sub(op.Slice(splits, [1], [np.iinfo(np.int64).max], [0]), starts)
        row = op.Sub(op.ReduceSum(op.Cast(op.GreaterOrEqual(op.Unsqueeze(place, [1]), op.Unsqueeze(splits, [0])), to=INT64), [1], keepdims=0), 1)
    else:
        rows, row = op.Reshape(longs(op, partitions[0]), [1]), longs(op, partitions[1])
        lengths = op.ScatterND(op.ConstantOfShape(rows, value=np.zeros(1, np.int64)), op.Unsqueeze(row, [1]),
                               op.ConstantOfShape(count, value=np.ones(1, np.int64)), reduction="add")
        starts = op.CumSum(lengths, op.const(np.int64(0)), exclusive=1)
    widest = op.ReduceMax(op.Concat(lengths, op.const([0]), axis=0), keepdims=1)
    wanted = constant(shape)
    if wanted is not None and wanted.ndim == 1 and len(wanted) > 1 and wanted[1] >= 0:
        widest = op.const([int(wanted[1])])
    if wanted is not None and wanted.ndim == 1 and len(wanted) and wanted[0] >= 0:
        rows = op.const([int(wanted[0])])
    column = op.Sub(place, op.Gather(starts, row))
    keep = op.And(op.Less(column, widest), op.Less(row, rows))
    places = op.Compress(op.Concat(op.Unsqueeze(row, [1]), op.Unsqueeze(column, [1]), axis=1), keep, axis=0)
    inner = op.Shape(values, start=1)
    full = op.Concat(rows, widest, inner, axis=0) if op.of(values)[0] > 1 else op.Concat(rows, widest, axis=0)
    return op.ScatterND(op.Expand(default, full), places, op.Compress(values, keep, axis=0))


@to_onnx("SparseReshape")
def sparse_reshape(op, places, shape, new):
    """Places of one shape as places of another: by way of their number."""
    old, wanted = longs(op, shape), longs(op, new)
    total = op.ReduceProd(old, keepdims=1)
    known = op.ReduceProd(op.Where(op.Less(wanted, 0), op.const(np.int64(1)), wanted), keepdims=1)
    full = op.Where(op.Less(wanted, 0), op.Div(total, known), wanted)
    number = op.ReduceSum(op.Mul(longs(op, places), _steps(op, old)), [1], keepdims=1)
    return op.Mod(op.Div(number, _steps(op, full)), full), full


def _steps(op: Builder, sizes: Value) -> Value:
    """How far apart neighbours along each axis are."""
    count = op.static(sizes)[0]
    parts = [op.ReduceProd(op.Slice(sizes, [axis + 1], [count], [0]), keepdims=1) if axis + 1 < count else op.const([1]) for axis in range(count)]
    return op.Concat(*parts, axis=0)


@to_onnx("SparseFillEmptyRows")
def sparse_fill_empty_rows(op, places, values, shape, default):
    """Rows without an element get one, in the order of rows."""
    a, dims = longs(op, places), longs(op, shape)
    rows = op.Slice(dims, [0], [1], [0])
    row = op.Squeeze(op.Slice(a, [0], [1], [1]), [1])
    hits = op.ScatterND(op.ConstantOfShape(rows, value=np.zeros(1, np.int64)), op.Unsqueeze(row, [1]),
                        op.ConstantOfShape(op.Shape(row), value=np.ones(1, np.int64)), reduction="add")
    empty = op.Equal(hits, 0)
    missing = op.Transpose(op.NonZero(empty), perm=[1, 0])
    width = op.of(a)[1][1]
    if not isinstance(width, int):
        op.reject("the number of axes is not known")
    filled = op.Pad(missing, [0, 0, 0, width - 1])
    every = op.Concat(a, filled, axis=0)
    content = op.Concat(values, op.Expand(default, op.Shape(missing, start=0, end=1)), axis=0)
    key = op.Squeeze(op.Slice(every, [0], [1], [1]), [1])
    count = op.Shape(key)
    # A key that is unique keeps the order of what is in one row.
    unique = op.Add(op.Mul(key, count), op.Range(op.const(np.int64(0)), op.Squeeze(count, [0]), op.const(np.int64(1))))
    _, order = op.TopK(unique, count, largest=0, sorted=1, _outputs=2)
    back = op.ScatterND(op.ConstantOfShape(count, value=np.zeros(1, np.int64)), op.Unsqueeze(order, [1]),
                        op.Range(op.const(np.int64(0)), op.Squeeze(count, [0]), op.const(np.int64(1))))
    return op.Gather(every, order, axis=0), op.Gather(content, order, axis=0), empty, op.Slice(back, [0], op.Shape(row), [0])


@to_onnx("SparseSegmentSum", "SparseSegmentMean", "SparseSegmentSqrtN", "SparseSegmentSumWithNumSegments", "SparseSegmentMeanWithNumSegments")
def sparse_segments(op, x, places, ids, count=None, *, sparse_gradient=0, **rest):
    """Rows of x are gathered first, then added up in their segments."""
    rows, segment = chosen_rows(op, x, places), longs(op, ids)
    number = op.Add(op.ReduceMax(op.Concat(segment, op.const([-1]), axis=0), keepdims=1), [1]) if count is None else op.Reshape(longs(op, count), [1])
    rank = op.of(x)[0]
    shape = op.Concat(number, op.Shape(rows, start=1), axis=0) if rank > 1 else number
    total = op.ScatterND(op.ConstantOfShape(shape, value=np.zeros(1, x.dtype.numpy())), op.Unsqueeze(segment, [1]), rows, reduction="add")
    if "Sum" in op.node.op_type:
        return total
    ones = op.ConstantOfShape(op.Shape(segment), value=np.ones(1, x.dtype.numpy()))
    hits = op.ScatterND(op.ConstantOfShape(number, value=np.zeros(1, x.dtype.numpy())), op.Unsqueeze(segment, [1]), ones, reduction="add")
    hits = op.Max(hits, op.const(np.ones((), x.dtype.numpy())))
    hits = op.Sqrt(hits) if "Sqrt" in op.node.op_type else hits
    return op.Div(total, op.Unsqueeze(hits, list(range(1, rank))) if rank > 1 else hits)


@to_onnx("SparseTensorDenseMatMul")
def sparse_matmul(op, places, values, shape, dense, *, adjoint_a=0, adjoint_b=0):
    full = op.ScatterND(op.ConstantOfShape(longs(op, shape), value=np.zeros(1, values.dtype.numpy())), longs(op, places), values, reduction="add")
    a = op.Transpose(full, perm=[1, 0]) if adjoint_a else full
    return op.MatMul(a, op.Transpose(dense, perm=[1, 0]) if adjoint_b else dense)


@to_onnx("SparseSoftmax")
def sparse_softmax(op, *xs):
    op.reject("softmax over what a sparse tensor holds")


# ---- random numbers: the same distribution, never the same numbers


def _random(op: Builder) -> None:
    op.lose("values.random", "random numbers of the same distribution, but other ones")


def _empty(op: Builder, shape: Value, kind: Any = None) -> Value:
    return op.ConstantOfShape(longs(op, shape), value=np.zeros(1, (kind or FLOAT).numpy()))


@to_onnx("RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2")
def random_uniform(op, shape, *inputs, **rest):
    _random(op)
    return op.RandomUniformLike(_empty(op, shape), low=0.0, high=1.0)


@to_onnx("RandomStandardNormal", "StatelessRandomNormal", "StatelessRandomNormalV2")
def random_standard_normal(op, shape, *inputs, **rest):
    _random(op)
    return op.RandomNormalLike(_empty(op, shape))


@to_onnx("TruncatedNormal", "StatelessTruncatedNormal", "StatelessTruncatedNormalV2")
def truncated_normal(op, shape, *inputs, **rest):
    """By the inverse of its distribution: uniform numbers between those of -2 and 2."""
    _random(op)
    spread = 0.9544997361036416
    u = op.RandomUniformLike(_empty(op, shape), low=-spread, high=spread)
    # Winitzki's approximation of the inverse error function, 0.1 % at worst.
    a = 0.147
    log = op.Log(op.Sub(1.0, op.Mul(u, u)))
    half = op.Add(op.Mul(log, 0.5), 2 / (np.pi * a))
    root = op.Sqrt(op.Sub(op.Sqrt(op.Sub(op.Mul(half, half), op.Div(log, a))), half))
    return op.Clip(op.Mul(op.Mul(op.Sign(u), root), float(np.sqrt(2))), -2.0, 2.0)


@to_onnx("RandomUniformInt", "StatelessRandomUniformInt", "StatelessRandomUniformIntV2")
def random_uniform_int(op, shape, *inputs, **rest):
    _random(op)
    low, high = inputs[-2:]
    u = op.RandomUniformLike(_empty(op, shape), low=0.0, high=1.0)
    span = op.Cast(op.Sub(high, low), to=FLOAT)
    return op.Min(op.Add(op.Cast(op.Floor(op.Mul(u, span)), to=low.dtype), low), op.Sub(high, op.const(np.ones((), high.dtype.numpy()))))


@to_onnx("Multinomial", "StatelessMultinomial")
def multinomial(op, logits, count, *inputs, **rest):
    _random(op)
    number = constant(count)
    if number is None:
        op.reject("the number of samples must be a constant")
    return op.Multinomial(logits, sample_size=int(number.reshape(-1)[0]), dtype=ir.DataType.INT32)


@to_onnx("RandomShuffle")
def random_shuffle(op, x, **rest):
    _random(op)
    length = op.Shape(x, start=0, end=1)
    _, order = op.TopK(op.RandomUniformLike(op.ConstantOfShape(length)), length, _outputs=2)
    return op.Gather(x, order, axis=0)

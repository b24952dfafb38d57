"""Preprocessing of categories and text, with the tables that the file keeps."""
from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.dialects._scan import scanned
from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.places import bucket
from isomorph.dialects.keras.to_onnx.table import layer

ML = "ai.onnx.ml"
PUNCTUATION = "!\"#$%&()*+,-./:;<=>?@[\\]^_`{|}~'"


def encoded(op: Op, index: Value, mode: str, depth: int, *, weights: Any = None, whole: ir.DataType = ir.DataType.INT64) -> Value:
    """Categories as they are, one-hot, as a set, counted, or weighted."""
    if mode == "int":
        return op.cast(index, whole)
    index = op.cast(index, ir.DataType.INT64)
    kind = np.float32
    if mode == "one_hot" and op.rank(index) > 1 and op.sizes(index)[-1] == 1:
        index = op.Squeeze(index, op.const([-1]))
    hot = op.OneHot(index, op.const(np.asarray(depth)), op.const(np.asarray([0, 1], kind)), axis=-1)
    if mode == "one_hot":
        return hot
    if op.rank(index) == 0:
        return hot
    axis = op.const([op.rank(index) - 1])
    if mode == "multi_hot":
        return op.ReduceMax(hot, axis, keepdims=0)
    if isinstance(weights, Value):
        hot = op.Mul(hot, op.Unsqueeze(op.cast(weights, ir.DataType.FLOAT), op.const([-1])))
    return op.ReduceSum(hot, axis, keepdims=0)


@layer("CategoryEncoding")
def category_encoding(op: Op, x: Value, count_weights: Any = None, *, num_tokens: int, output_mode: str = "multi_hot", sparse: bool = False) -> Value:
    return encoded(op, x, output_mode, num_tokens, weights=count_weights)


@layer("Discretization")
def discretization(op: Op, x: Value, *, bin_boundaries: Any = None, num_bins: int | None = None, epsilon: float = 0.01, output_mode: str = "int",
                   sparse: bool = False) -> Value:
    if bin_boundaries is None:
        bin_boundaries = _boundaries(op, num_bins)
    index = bucket(op, x, op.const(np.asarray(bin_boundaries, np.float32)))
    whole = ir.DataType.INT32 if op.context.generation >= 3 else ir.DataType.INT64
    return encoded(op, index, output_mode, len(bin_boundaries) + 1, whole=whole)


def _boundaries(op: Op, bins: int | None) -> np.ndarray:
    """Of Keras 2: the quantiles of what the layer was adapted to, of which its variable holds values and weights."""
    stored = op.variable("summary", cast=False)
    summary = None if stored is None else op.value(stored)
    if summary is None or not bins or summary.ndim != 2 or len(summary) != 2 or not summary.size:
        return op.reject("its boundaries are not in the file: it was never adapted")
    values, share = summary[0], 1 / bins
    if summary.shape[1] * share >= 1:
        reached = summary[1].cumsum() / summary[1].sum()
        values = np.interp(share + np.arange(0, 1, share), reached, values)
    return values[:-1].astype(np.float32)


def _words(op: Op, vocabulary: Any) -> list[Any]:
    """The vocabulary of the configuration, where the reader puts that of the file's assets too."""
    if isinstance(vocabulary, list) and vocabulary:
        return vocabulary
    return op.reject("its vocabulary is not in the file")


class Table:
    """Which number each entry of a vocabulary has: a mask, then places for what is unknown, then the entries."""

    def __init__(self, op: Op, words: list[Any], mask: Any, unknown: int, oov: Any, *, counted: bool = False):
        """Where entries are counted, a mask counts for nothing and has no place: its number lies outside."""
        self.op, self.mask, self.unknown, self.counted = op, mask, unknown, counted
        special = ([mask] if mask is not None else []) + ([oov] * unknown)
        if words[:len(special)] == special and special:
            words = words[len(special):]
        masked = int(mask is not None and not counted)
        self.words, self.start, self.oov_place = words, masked + unknown, masked

    @property
    def size(self) -> int:
        return self.start + len(self.words)

    def __call__(self, x: Value) -> Value:
        keys = [*self.words, *([self.mask] if self.mask is not None else [])]
        places = [*range(self.start, self.size), *([self.size if self.counted else 0] if self.mask is not None else [])]
        if self.unknown > 1:
            return self._hashed(x, keys, places)
        default = self.oov_place if self.unknown else -1
        if x.dtype == ir.DataType.STRING:
            return self.op.LabelEncoder(x, _domain=ML, keys_strings=[str(key) for key in keys], values_int64s=places, default_int64=default)
        return self.op.LabelEncoder(self.op.cast(x, ir.DataType.INT64), _domain=ML, keys_int64s=[int(key) for key in keys], values_int64s=places,
                                    default_int64=default)

    def _hashed(self, x: Value, keys: list[Any], places: list[int]) -> Value:
        """Several places for what is unknown: numbers by their remainder, words by a hash that ONNX has not."""
        op = self.op
        if x.dtype == ir.DataType.STRING:
            return op.reject("unknown words are told apart by a hash of their letters, which ONNX has not")
        index = op.cast(x, ir.DataType.INT64)
        found = op.LabelEncoder(index, _domain=ML, keys_int64s=[int(key) for key in keys], values_int64s=places, default_int64=-1)
        other = op.Add(op.Mod(index, op.scalar(self.unknown, index)), op.scalar(self.oov_place, index))
        return op.Where(op.Less(found, op.scalar(0, found)), other, found)


@layer("IntegerLookup", "StringLookup")
def lookup(op: Op, x: Value, *, vocabulary: Any = None, mask_token: Any = None, oov_token: Any = None, num_oov_indices: int = 1, invert: bool = False,
           output_mode: str = "int", max_tokens: Any = None, pad_to_max_tokens: bool = False, idf_weights: Any = None, vocabulary_dtype: Any = None,
           vocabulary_size: Any = None, sparse: bool = False, encoding: Any = None) -> Value:
    words = _words(op, vocabulary)
    text = op.layer.class_name == "StringLookup"
    oov = oov_token if oov_token is not None else "[UNK]" if text else -1
    table = Table(op, words, mask_token, num_oov_indices, oov, counted=output_mode != "int")
    if invert:
        return _inverse(op, x, table, oov, text)
    index = table(x)
    depth = max_tokens if pad_to_max_tokens and max_tokens else table.size
    if output_mode == "tf_idf":
        return _weighted(op, index, depth, table, idf_weights)
    return counted(op, encoded(op, index, output_mode, depth))


def counted(op: Op, y: Value) -> Value:
    """Keras 3 counts in whole numbers, Keras 2 in float32; places are whole in both."""
    return y if y.dtype == ir.DataType.INT64 or op.context.generation < 3 else op.cast(y, ir.DataType.INT64)


def _inverse(op: Op, x: Value, table: Table, oov: Any, text: bool) -> Value:
    keys, index = list(range(table.start, table.size)), op.cast(x, ir.DataType.INT64)
    if table.mask is not None:
        keys, words = [*keys, 0], [*table.words, table.mask]
    else:
        words = list(table.words)
    if text:
        return op.LabelEncoder(index, _domain=ML, keys_int64s=keys, values_strings=[str(word) for word in words], default_string=str(oov))
    return op.LabelEncoder(index, _domain=ML, keys_int64s=keys, values_int64s=[int(word) for word in words], default_int64=int(oov))


def _weighted(op: Op, index: Value, depth: int, table: Table, weights: Any) -> Value:
    """Counts times the weight of each entry; what is unknown has the mean of them."""
    if weights is None:
        return op.reject("its weights are not in the file")
    given = np.asarray(weights, np.float32)
    full = np.concatenate([np.full(table.size - len(given), given.mean(), np.float32), given]) if len(given) < table.size else given
    full = np.pad(full, (0, max(0, depth - len(full))))
    return op.Mul(encoded(op, index, "count", depth), op.const(full))


@layer("TextVectorization")
def text_vectorization(op: Op, x: Value, *, vocabulary: Any = None, max_tokens: Any = None, standardize: Any = "lower_and_strip_punctuation",
                       split: Any = "whitespace",
                       ngrams: Any = None, output_mode: str = "int", output_sequence_length: Any = None, pad_to_max_tokens: bool = False,
                       idf_weights: Any = None,
                       sparse: bool = False, ragged: bool = False, encoding: Any = None, vocabulary_size: Any = None) -> Value:
    """Words in lower case without punctuation, split at blanks, looked up, padded with zeros or counted."""
    if ragged or split not in ("whitespace", None) or not isinstance(standardize, (str, type(None))):
        return op.reject("of ragged results, single letters and functions of its author there is no mapping")
    words = _words(op, vocabulary)
    words = words[2:] if words[:2] == ["", "[UNK]"] else words[1:] if words[:1] == ["[UNK]"] else words
    flat = op.Squeeze(x, op.const([-1])) if op.rank(x) == 2 else x
    if op.rank(flat) != 1:
        return op.reject("only one text for each row is mapped")
    text = _standardized(op, flat, standardize)
    parts = op.Unsqueeze(text, op.const([-1]))
    if split == "whitespace":
        parts, _ = op.StringSplit(text, _outputs=2)
        parts.shape = ir.Shape([op.sizes(flat)[0], None])
    whole = output_mode == "int"
    if ngrams is not None:
        parts = _grams(op, parts, list(range(1, ngrams + 1)) if isinstance(ngrams, int) else [int(width) for width in ngrams], whole)
    table = Table(op, words, "" if whole else None, 1, "[UNK]")
    index = table(parts)
    if not whole:
        # Rows that are shorter are filled with empty words, which count for nothing.
        real = op.cast(op.Not(op.Equal(parts, op.const(np.asarray([""], object)))), ir.DataType.FLOAT)
        depth = max_tokens if pad_to_max_tokens and max_tokens else table.size
        hot = op.OneHot(index, op.const(np.asarray(depth)), op.const(np.asarray([0, 1], np.float32)), axis=-1)
        total = op.ReduceSum(op.Mul(hot, op.Unsqueeze(real, op.const([-1]))), op.const([1]), keepdims=0)
        if output_mode == "tf_idf":
            given = np.asarray(idf_weights if idf_weights is not None else op.reject("its weights are not in the file"), np.float32)
            full = np.concatenate([np.full(table.size - len(given), given.mean(), np.float32), given])
            return op.Mul(total, op.const(np.pad(full, (0, max(0, depth - len(full))))))
        return counted(op, op.Min(total, op.scalar(1, total)) if output_mode == "multi_hot" else total)
    return _length(op, index, output_sequence_length)


def _grams(op: Op, parts: Value, widths: list[int], in_order: bool) -> Value:
    """Rows of words that stand beside each other, those of each width behind those of the one before; what a row lacks is empty and, `in_order`, at its end."""
    rows, empty = op.sizes(parts)[0], op.const(np.asarray("", object))
    found = []
    for width in widths:
        filling = op.Expand(empty, op.Concat(op.Shape(parts, start=0, end=1), op.const([width - 1]), axis=0))
        longer = op.Concat(parts, filling, axis=1)
        ends = [index - (width - 1) or np.iinfo(np.int64).max for index in range(width)]
        shifted = [op.Slice(longer, op.const([index]), op.const([end]), op.const([1])) for index, end in enumerate(ends)]
        joined = shifted[0]
        for each in shifted[1:]:
            joined = op.StringConcat(op.StringConcat(joined, op.const(np.asarray(" ", object))), each)
        found.append(op.Where(op.Equal(shifted[-1], empty), empty, joined))
    every = op.Concat(*found, axis=1)
    every.dtype, every.shape = ir.DataType.STRING, ir.Shape([rows, None])
    if not in_order:
        return every
    missing = op.cast(op.Equal(every, empty), ir.DataType.INT64)
    count = op.Shape(every, start=1, end=2)
    place = op.Range(op.const(np.asarray(0)), op.Squeeze(count, op.const([0])), op.const(np.asarray(1)))
    _, order = op.TopK(op.Add(op.Mul(missing, count), place), count, axis=1, largest=0, _outputs=2)
    longest = op.ReduceMax(op.ReduceSum(op.Sub(op.const(np.asarray(1)), missing), op.const([1]), keepdims=0), op.const([0]), keepdims=1)
    ordered = op.Slice(op.GatherElements(every, order, axis=1), op.const([0]), longest, op.const([1]))
    ordered.dtype, ordered.shape = ir.DataType.STRING, ir.Shape([rows, None])
    return ordered


def _standardized(op: Op, text: Value, how: Any) -> Value:
    if how in (None, "lower"):
        return text if how is None else op.StringNormalizer(text, case_change_action="LOWER", locale="C")
    if how not in ("lower_and_strip_punctuation", "strip_punctuation"):
        return op.reject(f"the standardisation {how!r} is not mapped")
    text = text if how == "strip_punctuation" else op.StringNormalizer(text, case_change_action="LOWER", locale="C")
    for mark in PUNCTUATION:
        text = _without(op, text, mark)
    return text


def _without(op: Op, text: Value, mark: str) -> Value:
    """Texts without a letter: ONNX has no replacement, but splits at it, and joins piece by piece."""
    sizes = op.sizes(text)
    pieces, _ = op.StringSplit(text, delimiter=mark, _outputs=2)
    pieces.dtype, pieces.shape = ir.DataType.STRING, ir.Shape([sizes[0], None])
    empty = op.Expand(op.const(np.asarray("", object)), op.Shape(text))
    _, (joined,) = scanned(op, pieces, [empty], lambda piece, states: (op.StringConcat(states[0], piece),) * 1 + ([op.StringConcat(states[0], piece)],), axis=1)
    joined.dtype, joined.shape = ir.DataType.STRING, ir.Shape(sizes)
    return joined


def _length(op: Op, index: Value, length: Any) -> Value:
    if length is None:
        return index
    padded = op.Pad(index, op.const([0, 0, 0, int(length)]))
    return op.Slice(padded, op.const([0]), op.const([int(length)]), op.const([1]))


@layer("Hashing", "HashedCrossing")
def hashing(op: Op, x: Any, **settings: Any) -> Value:
    return op.reject("it hashes the letters of its input (FarmHash), for which ONNX has no operator")



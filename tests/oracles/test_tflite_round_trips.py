"""Quantised .tflite -> .onnx -> .tflite: the same integer kernels, a file of the same size, and the same results in LiteRT, run after run. And as arithmetic of
integers in ONNX: the bits of LiteRT's reference kernels."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import running
from running import needs_litert
from tflite_models import Graph, quantized

import isomorph
from isomorph.artifact import Artifact
from isomorph.dialects.tflite.to_onnx import fixed_point
from isomorph.formats import tflite

SHARED = next((folder / "shared/data" for folder in Path(__file__).parents if (folder / "shared/data").is_dir()), None)
PUBLISHED = ("mlperf-tiny/ad01_int8", "mlperf-tiny/kws_ref_model", "mlperf-tiny/pretrainedResnet_quant", "tflite-int8/keras_lstm_mnist_ptq",
             "tflite-int8/mobilenet_v2_1.0_224_quant")
MOVES = {"RESHAPE", "TRANSPOSE", "SQUEEZE", "EXPAND_DIMS", "PAD"}            # which may be merged with each other or with a kernel
RUNS, BATCH, STEPS, FEATURES, CELLS = 3, 2, 5, 6, 4


def kernels(path: Path) -> Counter:
    """(operator, element type of its result) of every operator that computes."""
    graph = tflite.read(Artifact.open(path)).graph
    return Counter((node.op_type, str(node.outputs[0].dtype)) for node in graph if node.op_type not in MOVES)


def integer_lstm(path: Path) -> Path:
    """One LSTM as TensorFlow's converter quantises it: matrices of 8 bits, cells of 16 bits, states that stay between runs."""
    generator = np.random.default_rng(3)
    g = Graph()
    scale = 0.01
    x = g.input("int8", BATCH, STEPS, FEATURES, quantization=quantized(scale, 4), name="x")
    weights = [g.const(generator.integers(-127, 128, (CELLS, FEATURES)).astype(np.int8), quantized(0.004 + gate / 1000)) for gate in range(4)]
    recurrent = [g.const(generator.integers(-127, 128, (CELLS, CELLS)).astype(np.int8), quantized(0.005 + gate / 1000)) for gate in range(4)]
    biases = [g.const(generator.integers(-9000, 9000, CELLS).astype(np.int32), quantized(scale * (0.004 + gate / 1000))) for gate in range(4)]
    hidden = quantized(1 / 128, -2)
    states = [g.variable("int8", BATCH, CELLS, quantization=hidden), g.variable("int16", BATCH, CELLS, quantization=quantized(2.0 ** -11))]
    scratch = [g.value("float32", 0) for _ in range(4)] + [g.value("int8", 0, quantization=hidden)]
    y = g.UNIDIRECTIONAL_SEQUENCE_LSTM(x, *weights, *recurrent, None, None, None, *biases, None, None, *states, None, None, None, None,
                                       out=g.value("int8", BATCH, STEPS, CELLS, quantization=hidden, name="y"), fused_activation_function="TANH",
                                       cell_clip=10.0, meta={"intermediates": scratch})
    return g.save(path, y)


def answers(path: Path) -> list[np.ndarray]:
    """The outputs of several runs in one interpreter, so that states count; inputs are the same for every file, by their place."""
    feeds, outputs = running.run(path, seed=9)
    found = list(outputs.values())
    for turn in range(1, RUNS):
        again = {name: running.random_array(array.dtype.name, array.shape, 10 * turn + place) for place, (name, array) in enumerate(feeds.items())}
        found += running.once_more(path, again).values()
    return [array.copy() for array in found]


def agree(one: Path, other: Path) -> None:
    """The same bytes in every run, and answers that are not all the same, which would prove nothing."""
    mine, theirs = answers(one), answers(other)
    assert any(array.std() > 0 for array in mine)
    for left, right in zip(mine, theirs, strict=True):
        np.testing.assert_array_equal(left, right)


def there_and_back(source: Path, folder: Path) -> Path:
    isomorph.convert(source, folder / "there.onnx", verify=False)
    isomorph.convert(folder / "there.onnx", folder / "back.tflite", verify=False)
    return folder / "back.tflite"


@needs_litert
def test_an_integer_lstm_keeps_its_kernel_and_its_states(tmp_path):
    source = integer_lstm(tmp_path / "source.tflite")
    back = there_and_back(source, tmp_path)
    assert kernels(back) == kernels(source) == {("UNIDIRECTIONAL_SEQUENCE_LSTM", "INT8"): 1}
    agree(source, back)


@needs_litert
@pytest.mark.skipif(SHARED is None, reason="the folder shared/data with published models does not stand beside the repository")
@pytest.mark.parametrize("name", PUBLISHED)
def test_published_integer_models_stay_what_they_are(name, tmp_path):
    source = SHARED / f"{name}.tflite"
    back = there_and_back(source, tmp_path)
    assert kernels(back) == kernels(source)
    assert back.stat().st_size <= 1.05 * source.stat().st_size
    agree(source, back)


def has_the_bits_of_the_reference(source: Path, folder: Path, inputs: int = 3) -> None:
    isomorph.convert(source, folder / "integers.onnx", integers=True, verify=False)
    names = [value.name for value in isomorph.open(folder / "integers.onnx").graph.inputs]           # LiteRT has those of the signature; states come last
    for seed in range(inputs):
        feeds, want = running.run(source, seed=seed, kernels="reference")
        _, have = running.run(folder / "integers.onnx", dict(zip(names, feeds.values(), strict=False)))
        assert any(len(np.unique(array)) > 2 for array in want.values())
        for mine, theirs in zip(have.values(), want.values(), strict=False):
            np.testing.assert_array_equal(mine, theirs)


@needs_litert
def test_the_arithmetic_of_an_integer_lstm_has_the_bits_of_the_reference(tmp_path):
    has_the_bits_of_the_reference(integer_lstm(tmp_path / "source.tflite"), tmp_path)


@needs_litert
@pytest.mark.skipif(SHARED is None, reason="the folder shared/data with published models does not stand beside the repository")
@pytest.mark.parametrize("name", PUBLISHED)
def test_the_arithmetic_of_published_models_has_the_bits_of_the_reference(name, tmp_path):
    has_the_bits_of_the_reference(SHARED / f"{name}.tflite", tmp_path)


@pytest.mark.parametrize(("table", "bits", "function"), [(fixed_point.sigmoid(), 3, lambda x: 1 / (1 + np.exp(-x))), (fixed_point.tanh(3), 3, np.tanh),
                                                         (fixed_point.tanh(4), 4, np.tanh)])
def test_tables_of_fixed_point_functions_are_near_the_real_ones(table, bits, function):
    """gemmlowp's polynomial has about 11 bits; equality with it is what the tests of the LSTM show."""
    assert np.abs(table / 2.0 ** 15 - function(fixed_point.ARGUMENTS / 2.0 ** (15 - bits))).max() < 4e-4

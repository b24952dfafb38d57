"""Whole pickled modules without PyTorch: a tree of standard layers becomes a graph, whichever generation wrote it, and hostile trees end soon."""
from __future__ import annotations

import time

import numpy as np
import onnxruntime
import pytest
from test_torch_containers import VALUES, tensor, zipped

import isomorph
from isomorph.cli import main
from isomorph.errors import Unsafe, Unsupported
from isomorph.formats import torch

EMPTY = b"(d"


def dictionary(**entries: bytes) -> bytes:
    return b"(d" + b"".join(b"V" + name.encode() + b"\n" + value + b"s" for name, value in entries.items())


def module(kind: str, parameters: bytes = EMPTY, modules: bytes = EMPTY, **attributes: bytes) -> bytes:
    package, _, name = kind.rpartition(".")
    return b"ctorch.nn.modules.%s\n%s\n)\x81" % (package.encode(), name.encode()) + dictionary(
        _parameters=parameters, _buffers=EMPTY, _modules=modules, **attributes) + b"b"


LINEAR = module("linear.Linear", dictionary(weight=tensor(0, (2, 3), (3, 1)), bias=b"N"), in_features=b"I3\n", out_features=b"I2\n")


def saved(path, pickle: bytes):
    path.write_bytes(zipped(more={"x/data.pkl": b"\x80\x02" + pickle + b"."}))
    return path


def sequential(*layers: bytes) -> bytes:
    return module("container.Sequential", modules=dictionary(**{str(place): layer for place, layer in enumerate(layers)}))


def test_a_chain_of_layers_becomes_a_graph(tmp_path):
    """An activation of 2017 has no attributes at all: what it lacks is what PyTorch meant then."""
    source = saved(tmp_path / "chain.pt", sequential(LINEAR, sequential(module("activation.LeakyReLU"), module("dropout.Dropout", p=b"F0.5\n"))))
    report = isomorph.convert(source, tmp_path / "chain.onnx")
    assert report.facts["outputs"][0]["passed"]
    session = onnxruntime.InferenceSession(tmp_path / "chain.onnx")
    x = np.asarray([[1, -2, 3], [0, 1, -5]], np.float32)
    want = x @ VALUES.reshape(2, 3).T
    np.testing.assert_allclose(session.run(None, {"input": x})[0], np.where(want > 0, want, want * 0.01), rtol=1e-6)
    assert session.get_inputs()[0].shape == ["batch", 3]
    assert [name for name in isomorph.open(tmp_path / "chain.onnx").graph.initializers if "0.weight" in name]


def test_the_caller_may_fix_the_shape(tmp_path):
    source = saved(tmp_path / "chain.pt", sequential(LINEAR))
    isomorph.convert(source, tmp_path / "chain.onnx", input_shapes={"input": (4, 7, 3)})
    assert onnxruntime.InferenceSession(tmp_path / "chain.onnx").get_inputs()[0].shape == [4, 7, 3]


def test_inspect_shows_the_tree(tmp_path, capsys):
    source = saved(tmp_path / "chain.pt", sequential(LINEAR, module("activation.ReLU")))
    with pytest.raises(SystemExit) as done:
        main(["inspect", str(source)])
    shown = capsys.readouterr().out
    assert done.value.code in (0, None)
    assert "0       torch.nn.modules.linear.Linear(in_features=3, out_features=2)" in shown
    assert "1       torch.nn.modules.activation.ReLU()" in shown


@pytest.mark.parametrize(("layer", "reason"), [
    (module("activation.MultiheadAttention"), "takes more than one tensor"), (module("pooling.MaxPool2d"), "does not say its kernel_size"),
    (module("rnn.LSTM", hidden_size=b"I2\n", num_layers=b"I1000000000\n", input_size=b"I3\n"), "1000000000 layers"),
    (module("pooling.AdaptiveAvgPool2d", output_size=b"I1000000000\n"), "1000000000 windows"),
    (module("normalization.LayerNorm", normalized_shape=b"(I1000000000\nt"), "stand for absent weights"),
    (b"cmy_package\nNet\n)\x81" + dictionary(_modules=EMPTY, _parameters=EMPTY) + b"b", "`forward` computes is not in the file"),
    (module("activation.ReLU", _forward_hooks=b"(dI0\ncmy_package\nhook\ns"), "the hook my_package.hook"),
])
def test_what_has_no_graph_is_told_with_its_reason(tmp_path, layer, reason):
    source = saved(tmp_path / "model.pt", sequential(layer))
    shapes = {"input": (1, 3, 5, 5)} if b"Pool" in layer else {"input": (1, 2, 3)} if b"LSTM" in layer else None
    with pytest.raises(Unsupported) as caught:
        isomorph.convert(source, tmp_path / "model.onnx", input_shapes=shapes)
    assert any(reason in why for _, _, why in caught.value.blockers), caught.value.blockers
    assert isomorph.convert(source, tmp_path / "model.safetensors").facts["verified"] == "re-read"


def test_modules_inside_each_other_without_end_are_unsafe(tmp_path):
    """Each level holds the one before it ten times."""
    level = module("activation.ReLU")
    for number in range(12):
        again = b"".join(b"V%d\nh%c" % (place, number + 1) + b"s" for place in range(9))
        inside = b"(dVx\n" + level + b"q%cs" % (number + 1) + again
        level = b"ctorch.nn.modules.container\nSequential\n)\x81" + dictionary(_modules=inside, _parameters=EMPTY) + b"b"
    source = saved(tmp_path / "bomb.pt", level)
    started = time.process_time()
    with pytest.raises(Unsafe):
        torch.network(isomorph.artifact.Artifact.open(source))
    assert time.process_time() - started < 10


def test_a_shape_without_a_name_is_that_of_the_first_input(tmp_path):
    source = saved(tmp_path / "chain.pt", sequential(LINEAR))
    with pytest.raises(SystemExit) as done:
        main(["convert", str(source), str(tmp_path / "chain.onnx"), "--input", "?x7x3"])
    assert done.value.code in (0, None)
    assert onnxruntime.InferenceSession(tmp_path / "chain.onnx").get_inputs()[0].shape == ["batch", 7, 3]

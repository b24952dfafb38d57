"""Real ONNX models, read, upgraded to the hub and written at several opsets, compute in ONNX Runtime what the published file computes."""
from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
import zoo

from isomorph.artifact import Artifact
from isomorph.formats import onnx as onnx_format

OPSETS = (26, 21, 17, 13)
RANGE = 1e-5                # greatest difference as a part of the output's range: a changed form may round differently
# model -> sizes of its dynamic inputs, where they are not all 1, and integer inputs
FEEDS = {
    "basic_pitch_onnx": {"serving_default_input_2:0": (1, 43844, 1)},
    "silero_vad": {"input": (1, 512), "state": (2, 1, 128), "sr": np.array(16000)},
    "silero_vad_op15": {"input": (1, 512), "state": (2, 1, 128), "sr": np.array(16000)},
    "silero_vad_sequence": {"input": (4, 576), "h": (1, 1, 128), "c": (1, 1, 128)},
    "silero_vad_half": {"input": (1, 512), "state": (2, 1, 128)},
    "silero_vad_ifless": {"input": (1, 512), "state": (2, 1, 128), "sr": np.array(16000)},
    "silero_vad_openvino": {"input": (1, 576), "state": (2, 1, 128)},
    "ppocr_det": {"x": (1, 3, 64, 96)},
    "ppocr_rec": {"x": (1, 3, 48, 80)},
    "ppocr_cls": {"x": (1, 3, 48, 192)},
}


def test_every_model_has_inputs():
    assert set(FEEDS) == set(zoo.names(".onnx"))


@pytest.mark.parametrize("external", [False, True])
@pytest.mark.parametrize("name", FEEDS)
def test_results_stay(name, external, tmp_path):
    onnxruntime.set_default_logger_severity(4)
    source = zoo.zoo(name)
    rng = np.random.default_rng(0)
    feeds = {key: value if isinstance(value, np.ndarray) else (0.1 * rng.standard_normal(value)).astype(np.float32) for key, value in FEEDS[name].items()}
    expected = onnxruntime.InferenceSession(str(source), providers=["CPUExecutionProvider"]).run(None, feeds)
    before = source.read_bytes()
    model = onnx_format.read(Artifact.open(source))
    for opset in OPSETS[:1] if external else OPSETS:
        path = tmp_path / f"{opset}.onnx"
        onnx_format.write(model, path, opset=opset, external_data=external)
        onnx.checker.check_model(str(path))
        found = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"]).run(None, feeds)
        for left, right in zip(expected, found, strict=True):
            assert left.shape == right.shape
            assert np.abs(left - right).max(initial=0) <= RANGE * np.ptp(left), (name, opset)
    assert source.read_bytes() == before

"""Networks whose activations are rounded as ggml rounds them, against llama.cpp itself: what it computes of blocks, to the last digits."""
from __future__ import annotations

import os
import subprocess
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest

import isomorph
from isomorph.architectures import activations, networks
from isomorph.architectures.products import Products
from isomorph.formats import onnx as onnx_format
from isomorph.model import HUB_IR_VERSION, HUB_OPSET, Model

LLAMA = os.environ.get("ISOMORPH_PYTHON_LLAMA", "")
SCHEMES = ("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_k", "q3_k_m", "q4_k_m", "q5_k_m", "q6_k", "iq4_nl", "iq4_xs")


@pytest.mark.parametrize("kind", ["Q8_0", "Q4_K"])
def test_numbers_are_rounded_by_the_formulas(kind, tmp_path):
    """Q8_0 and Q8_K of ggml-quants.c, in NumPy; blocks of zeros too."""
    random = np.random.default_rng(1)
    x = random.normal(size=(2, 3, 512)).astype(np.float32) * np.float32(10.0) ** random.integers(-3, 3, (2, 3, 512)).astype(np.float32)
    x[1, 2] = 0
    products = Products({})
    given = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape([2, 3, 512]))
    made = activations.rounded(products.op, products.constant, given, 512, kind).values
    made.name, made.type, made.shape = "y", ir.TensorType(ir.DataType.FLOAT), ir.Shape([2, 3, 512])
    onnx_format.write(Model(products.finished([given], [made], "rounded", HUB_OPSET, HUB_IR_VERSION)), tmp_path / "x.onnx")
    found = onnxruntime.InferenceSession(tmp_path / "x.onnx").run(None, {"x": x})[0]
    if kind == "Q8_0":
        blocks = x.reshape(-1, 32)
        largest = np.abs(blocks).max(axis=1, keepdims=True)
        with np.errstate(divide="ignore", invalid="ignore"):
            codes = np.where(largest > 0, np.round(blocks * (np.float32(127) / largest)), 0)
        wanted = codes * (largest / np.float32(127)).astype(np.float16).astype(np.float32)
    else:
        blocks = x.reshape(-1, 256)
        signed = blocks[np.arange(len(blocks)), np.abs(blocks).argmax(axis=1)][:, None]
        factor = np.float32(-127) / np.where(signed == 0, 1, signed).astype(np.float32)
        wanted = np.minimum(np.round(blocks * factor), 127) * (np.float32(1) / factor)
    np.testing.assert_allclose(found.reshape(wanted.shape), wanted, rtol=2e-7)


@pytest.mark.slow
@pytest.mark.skipif(not LLAMA, reason="no interpreter with llama-cpp-python is named by ISOMORPH_PYTHON_LLAMA")
def test_logits_of_blocks_are_those_of_llama_cpp(families, tmp_path):
    """Of tokens where no number lies on the edge between two codes: half of them at least in every scheme, most in most. Without rounding none are as near."""
    asked: list[object] = []
    for scheme in SCHEMES:
        isomorph.quantize(families / "blocks" / "model.safetensors", tmp_path / f"{scheme}.gguf", scheme=scheme, pure=True, verify=False)
        asked += [tmp_path / f"{scheme}.gguf", families / "blocks" / "expected.npz", tmp_path / f"{scheme}.npz"]
    done = subprocess.run([LLAMA, Path(__file__).with_name("llama_cpp_child.py"), "logits", *asked], capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = np.load(families / "blocks" / "expected.npz")
    ids, mask, positions = (expected[name][1:] for name in ("ids", "mask", "positions"))              # the row without padding
    for scheme in SCHEMES:
        wanted = np.load(tmp_path / f"{scheme}.npz")["arr_1"]
        apart = {}
        for rounded in (True, False):
            onnx_format.write(networks.graph(isomorph.open(tmp_path / f"{scheme}.gguf"), rounded=rounded), tmp_path / "x.onnx", force=True)
            session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
            past = {value.name: np.zeros((1, value.shape[1], 0, value.shape[3]), np.float32) for value in session.get_inputs() if value.name.startswith("past")}
            found = session.run(["logits"], {"input_ids": ids, "attention_mask": mask, "position_ids": positions} | past)[0][0]
            apart[rounded] = np.abs(found - wanted).max(axis=1) / np.abs(wanted).max()
        assert np.mean(apart[True] < 2e-5) >= 0.5, (scheme, apart)
        assert np.median(apart[True]) < 0.01 * np.median(apart[False]), (scheme, apart)

"""Files against gguf-py, the reference implementation in Python."""
from __future__ import annotations

import numpy as np
import pytest

from isomorph.artifact import Artifact
from isomorph.formats import gguf
from isomorph.model import Checkpoint
from isomorph.quant.blocks import BLOCKS
from isomorph.quant.tensor import QuantizedTensor
from isomorph.tensors import array_tensor
from isomorph.wire.gguf import Array

reference = pytest.importorskip("gguf", reason="the reference is not installed: pip install gguf")


def test_it_reads_what_we_write(tmp_path):
    """Every type that it knows, every kind of value."""
    metadata = {"general.architecture": "llama", "int": 7, "negative": -7, "large": 1 << 40, "real": 0.25, "yes": True, "text": "ä", "ints": [1, 2, 3],
                "texts": ["a", "b"], "reals": [0.5, 1.5]}
    random = np.random.default_rng(0)
    # gguf-py gives Q8_1, which no file uses, two float32 where ggml itself has two float16.
    known = [kind for kind in BLOCKS.values() if kind.fields and kind.name in reference.GGMLQuantizationType.__members__ and kind.name != "Q8_1"]
    tensors = {f"blocks.{kind.name}": QuantizedTensor(None, kind, (3, 2 * kind.elements), random.integers(0, 256, 6 * kind.bytes, np.uint8).tobytes())
               for kind in known}
    arrays = {str(dtype): random.integers(0, 100, (2, 3)).astype(dtype) for dtype in ("float32", "float16", "float64", "int8", "int16", "int32", "int64")}
    gguf.write(Checkpoint(tensors | {name: array_tensor(array) for name, array in arrays.items()}, metadata), tmp_path / "x.gguf")
    reader = reference.GGUFReader(tmp_path / "x.gguf")
    assert {name: reader.get_field(name).contents() for name in metadata} == metadata
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert len(known) > 20
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name].data, array)
    for name, tensor in tensors.items():
        assert found[name].tensor_type.name == tensor.kind.name
        assert found[name].data.tobytes() == tensor.blocks


def test_we_read_what_it_writes_and_write_the_same_bytes(tmp_path):
    writer = reference.GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_uint8("u8", 1)
    writer.add_uint16("u16", 2)
    writer.add_int64("i64", -3)
    writer.add_float64("f64", 0.1)
    writer.add_bool("bool", False)
    writer.add_array("texts", ["a", "bc"])
    writer.add_array("ints", [1, -2])
    writer.add_custom_alignment(64)
    weights = np.arange(64, dtype=np.float32).reshape(2, 32)
    writer.add_tensor("w", weights)
    writer.add_tensor("q", reference.quants.quantize(weights, reference.GGMLQuantizationType.Q4_0), raw_dtype=reference.GGMLQuantizationType.Q4_0)
    for step in (writer.write_header_to_file, writer.write_kv_data_to_file, writer.write_tensors_to_file, writer.close):
        step()
    checkpoint = gguf.read(Artifact.open(tmp_path / "x.gguf"))
    assert {name: list(value) if isinstance(value, Array) else value for name, value in checkpoint.metadata.items()} == {
        "general.architecture": "llama",
        "u8": 1, "u16": 2, "i64": -3, "f64": 0.1, "bool": False, "texts": ["a", "bc"], "ints": [1, -2], "general.alignment": 64}
    np.testing.assert_array_equal(checkpoint["w"].numpy(), weights)
    gguf.write(checkpoint, tmp_path / "y.gguf")
    assert (tmp_path / "y.gguf").read_bytes() == (tmp_path / "x.gguf").read_bytes()

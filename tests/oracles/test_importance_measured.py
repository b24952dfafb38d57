"""An importance matrix of a published model against the same sums done by hand, where its inputs can be known without the network."""
from __future__ import annotations

import numpy as np
import pytest
import zoo

import isomorph
from isomorph.artifact import Artifact
from isomorph.errors import Usage
from isomorph.formats import gguf
from isomorph.generation import Generation
from isomorph.quant import importance

TEXT = "Weights that are multiplied with large numbers have to be kept more exactly than those that are multiplied with small ones. " * 12
CHUNK, CHUNKS = 32, 3


def test_the_first_layer_gets_what_the_embedding_gives(tmp_path):
    """The inputs of the first attention are the embeddings of the tokens, divided by their root mean square and multiplied by a vector."""
    pytest.importorskip("tokenizers")
    source = zoo.zoo("smollm2")
    (tmp_path / "text").write_text(TEXT)
    report = isomorph.measure_importance(source, tmp_path / "text", tmp_path / "matrix.gguf", chunk=CHUNK, chunks=CHUNKS)
    found, content = importance.read(tmp_path / "matrix.gguf"), gguf.read(Artifact.open(source))
    reader = Generation(source)
    reader.prepare()
    tokens = reader.tokenizer.encode(TEXT, add_special_tokens=False).ids[:CHUNK * CHUNKS]
    rows = content["token_embd.weight"].numpy()[tokens].astype(np.float64)
    rows /= np.sqrt(np.square(rows).mean(1, keepdims=True) + content.metadata["llama.attention.layer_norm_rms_epsilon"])
    want = np.square(rows * content["blk.0.attn_norm.weight"].numpy()).mean(0)
    np.testing.assert_allclose(found.weights["blk.0.attn_q.weight"].reshape(-1), want, rtol=1e-4, atol=1e-6 * want.max())
    layers = [name for name in content if name.startswith("blk.") and content[name].dims[1:]]
    assert set(found.weights) == set(layers)
    assert report.facts["tokens"] == CHUNK * CHUNKS
    for name in layers:
        assert found.weights[name].size == content[name].dims[-1]
        assert found.weights[name].std() > 0


def test_a_text_that_is_too_short_is_said(tmp_path):
    pytest.importorskip("tokenizers")
    (tmp_path / "text").write_text("short")
    with pytest.raises(Usage, match="one chunk takes 512"):
        isomorph.measure_importance(zoo.zoo("smollm2"), tmp_path / "text", tmp_path / "matrix.gguf")
    assert not (tmp_path / "matrix.gguf").exists()

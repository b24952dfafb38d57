"""The catalogue of real models: what it pins is what is fetched, and what isomorph says of it."""
from __future__ import annotations

import pytest
from zoo import catalogue, names, zoo

import isomorph


@pytest.mark.parametrize("name", catalogue()["model"])
def test_every_model_is_what_its_suffix_says(name):
    path = zoo(name)
    match = isomorph.identify(path)
    assert match.format == catalogue()["model"][name].get("format", path.suffix[1:])
    assert path.stat().st_size == catalogue()["model"][name]["bytes"]


def test_a_file_that_was_changed_fails(tmp_path, monkeypatch):
    source = zoo("silero_vad_op15")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    copy = tmp_path / "isomorph" / "zoo" / "silero_vad_op15" / source.name
    copy.parent.mkdir(parents=True)
    copy.write_bytes(source.read_bytes()[:-1] + b"x")
    with pytest.raises(AssertionError, match=r"not the file that zoo\.toml pins"):
        zoo("silero_vad_op15")


def test_no_registry_is_a_skip_with_its_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(pytest.skip.Exception, match=r"pip download silero-vad==.* failed"):
        zoo("silero_vad")


def test_names_by_suffix():
    assert "ppocr_det" in names(".onnx")
    assert "iris" in names(".tflite")
    assert not set(names(".onnx")) & set(names(".tflite"))

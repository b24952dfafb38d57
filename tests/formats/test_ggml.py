"""Files of the time before GGUF: every layout, every generation of blocks, and a real network whose results are published."""
from __future__ import annotations

import struct
from pathlib import Path

import ggml_files
import numpy as np
import onnxruntime
import pytest
from ggml_files import F16, F32, Q4_0, Q4_1, Q4_2, Q4_3, Q4_K, Q5_0, Q5_1, Q8_0, file

import isomorph
from isomorph.architectures import words
from isomorph.artifact import Artifact
from isomorph.errors import Damaged, Unsafe, Unsupported
from isomorph.formats import _table, ggml
from isomorph.quant.encode import quantize

RWKV = Path(__file__).parents[1] / "golden" / "rwkv"
WEIGHTS = np.arange(12, dtype=np.float32).reshape(3, 4)
OLD_BLOCK = struct.pack("<f", 0.3) + bytes(range(16))
ROWS = [("w", (3, 4), F32, WEIGHTS.tobytes()), ("h", (4,), F16, np.float16([1, 2, 3, 4]).tobytes())]


@pytest.mark.parametrize(("kind", "version"), [("llama", 0), ("llama", -1), ("llama", 1), ("llama", 2), ("llama", 3), ("gpt-2", 0), ("gpt-j", 0),
                                               ("gpt-neox", 0), ("whisper", 0), ("silero", 0), ("rwkv", 100), ("rwkv", 101)])
def test_the_kind_is_told_from_the_structure(kind, version):
    artifact = Artifact.open(file(kind, ROWS, version))
    assert _table.identify(artifact).format == "ggml"
    checkpoint = ggml.read(artifact)
    assert checkpoint.metadata["ggml.kind"] == kind
    np.testing.assert_array_equal(checkpoint["w"].numpy(), WEIGHTS)
    np.testing.assert_array_equal(checkpoint["h"].numpy(), np.float16([1, 2, 3, 4]))
    if kind == "gpt-neox":
        early = ggml.read(Artifact.open(file("gpt-neox early", [("gpt_neox." + ROWS[0][0], *ROWS[0][1:])])))
        assert (early.metadata["ggml.kind"], early.metadata["ggml.layers"]) == (kind, 2)
    if kind not in ("rwkv", "silero"):
        assert checkpoint.metadata["ggml.tokens"] == ["a", "\udcff", "", "word"]
    if kind == "llama" and version:
        assert checkpoint.metadata["ggml.scores"] == [0, -1, -2, -3]
    if kind == "whisper":
        np.testing.assert_array_equal(checkpoint["mel_filters"].numpy(), np.arange(6).reshape(2, 3))


def test_a_voice_detector_says_its_layers_and_has_a_bias_without_dimensions(tmp_path):
    """As whisper.cpp's converter writes the last bias, whose one number it squeezes; and every kind becomes safetensors."""
    (tmp_path / "vad.bin").write_bytes(file("silero", [*ROWS, ("last.bias", (), F32, struct.pack("<f", 0.5))]))
    match = _table.identify(Artifact.open(tmp_path / "vad.bin"))
    assert (match.format, match.flavour) == ("ggml", "silero")
    checkpoint = isomorph.open(tmp_path / "vad.bin")
    facts = {name: checkpoint.metadata[f"ggml.{name}"] for name in ("model", "model_version", "window", "encoder", "lstm")}
    assert facts == {"model": "silero-16k", "model_version": "5.1.2", "window": 512, "encoder": [129, 128, 3, 128, 64, 3], "lstm": [128, 128]}
    assert checkpoint["last.bias"].numpy() == np.float32(0.5)
    isomorph.convert(tmp_path / "vad.bin", tmp_path / "x.safetensors")
    assert isomorph.open(tmp_path / "x.safetensors")["last.bias"].dims == ()


def test_words_that_merge_for_hours_are_refused():
    """No vocabulary has them, and what their merges are is not looked for."""
    with pytest.raises(Unsafe, match="too long to find"):
        words.merges_of([b"a" * length for length in range(1, 5000)])
    assert words.merges_of([b"a", b"b", b"ab", b"abab", b"cd" * 1000]) == ([(b"a", b"b"), (b"ab", b"ab")], {4})


@pytest.mark.parametrize(("kind", "version"), [("llama", 3), ("gpt-2", 0)])
def test_what_is_read_is_written_byte_for_byte(kind, version, tmp_path):
    """Words that are no text, scores, the order of tensors, padding."""
    data = file(kind, [("w", (3, 4), F32, WEIGHTS.tobytes()), ("v", (4,), F32, WEIGHTS[0].tobytes())], version)
    ggml.write(ggml.read(Artifact.open(data)), tmp_path / "x.ggml")
    assert (tmp_path / "x.ggml").read_bytes() == data


@pytest.mark.parametrize(("rows", "reason"), [
    ([("v", (4,), F16, bytes(8))], "has to be F32"), ([("w", (1, 2, 2), F32, bytes(16))], "3 dimensions"),
    ([("w", (1, 4), F32, bytes(16)), ("u", (1, 4), F32, bytes(16)), ("x", (1, 4), F16, bytes(8))], "has to be F32"),
    ([("b", (1, 32), Q4_0, OLD_BLOCK)], "no Q4_0 of that time")])
def test_what_programs_of_then_cannot_read_is_not_written(rows, reason, tmp_path):
    with pytest.raises(Unsupported) as caught:
        ggml.write(ggml.read(Artifact.open(file("gpt-2", rows, 0, 2))), tmp_path / "x.ggml")
    assert any(reason in why for _, _, why in caught.value.blockers)
    assert not list(tmp_path.iterdir())


def test_weights_of_no_known_kind_are_not_written(tmp_path):
    for metadata, reason in (({}, "nothing says"), ({"ggml.kind": "whisper"}, "'whisper'"), ({"ggml.kind": "llama"}, "missing")):
        with pytest.raises(Unsupported, match=reason):
            ggml.write(isomorph.Checkpoint({}, metadata), tmp_path / "x.ggml")


# Blocks as the programs of their time wrote them: number, generation -> (bytes, what they mean by the loops that read them)
CODES = list(range(16)) + list(range(15, -1, -1))
FIVE = [(7 * place) % 32 for place in range(32)]
BYTES = [(11 * place) % 256 - 128 for place in range(32)]


def neighbours(codes: list[int]) -> bytes:
    return bytes(low & 15 | (high & 15) << 4 for low, high in zip(codes[::2], codes[1::2], strict=True))


def halves(codes: list[int]) -> bytes:
    return bytes(low & 15 | (high & 15) << 4 for low, high in zip(codes[:16], codes[16:], strict=True))


def high(codes: list[int]) -> bytes:
    return sum((code >> 4) << place for place, code in enumerate(codes)).to_bytes(4, "little")


def signed(codes: list[int]) -> bytes:
    return struct.pack("<32b", *codes)


OLD = {
    (Q4_0, 1): (struct.pack("<f", 0.3) + neighbours(CODES), [np.float32(0.3) * np.float32(code - 8) for code in CODES]),
    (Q4_1, 1): (struct.pack("<2f", 0.3, -2) + neighbours(CODES), [np.float32(0.3) * np.float32(code) - 2 for code in CODES]),
    (Q4_2, 1): (2 * (struct.pack("<e", 0.5) + neighbours(CODES[:16])), [0.5 * (code - 8) for code in 2 * CODES[:16]]),
    (Q4_3, 1): (2 * (struct.pack("<2e", 0.5, -2) + neighbours(CODES[:16])), [0.5 * code - 2 for code in 2 * CODES[:16]]),
    (Q5_0, 1): (struct.pack("<e", 0.5) + high(FIVE) + neighbours(FIVE), [0.5 * (code - 16) for code in FIVE]),
    (Q5_1, 1): (struct.pack("<2e", 0.5, -2) + high(FIVE) + neighbours(FIVE), [0.5 * code - 2 for code in FIVE]),
    (Q8_0, 1): (struct.pack("<f", 0.3) + signed(BYTES), [np.float32(0.3) * np.float32(code) for code in BYTES]),
    (Q4_0, 2): (struct.pack("<f", 0.3) + halves(CODES), [np.float32(0.3) * np.float32(code - 8) for code in CODES]),
    (Q4_1, 2): (struct.pack("<2f", 0.3, -2) + halves(CODES), [np.float32(0.3) * np.float32(code) - 2 for code in CODES]),
    (Q5_0, 2): (struct.pack("<e", 0.5) + high(FIVE) + halves(FIVE), [0.5 * (code - 16) for code in FIVE]),
    (Q8_0, 2): (struct.pack("<f", 0.3) + signed(BYTES), [np.float32(0.3) * np.float32(code) for code in BYTES]),
    (Q4_0, 3): (struct.pack("<e", 0.5) + halves(CODES), [0.5 * (code - 8) for code in CODES]),
    (Q5_1, 3): (struct.pack("<2e", 0.5, -2) + high(FIVE) + halves(FIVE), [0.5 * code - 2 for code in FIVE]),
    (Q8_0, 3): (struct.pack("<e", 0.5) + signed(BYTES), [0.5 * code for code in BYTES]),
}


@pytest.mark.parametrize(("number", "generation"), OLD)
def test_every_generation_of_blocks(number, generation):
    data, want = OLD[number, generation]
    llama = ggml.read(Artifact.open(file("llama", [("b", (32,), number, data)], generation)))
    np.testing.assert_array_equal(llama["b"].numpy(), np.float32(want))
    # The examples of ggml say the same with thousands in the file type.
    gpt = ggml.read(Artifact.open(file("gpt-2", [("b", (32,), number, data)], 0, 1000 * (generation - 1) + 2)))
    np.testing.assert_array_equal(gpt["b"].numpy(), np.float32(want))


def test_k_blocks_came_without_a_new_version():
    data = quantize("Q4_K", np.random.default_rng(0).standard_normal((1, 256))).tobytes()
    tensor = ggml.read(Artifact.open(file("llama", [("b", (256,), Q4_K, data)], 3)))["b"]
    assert tensor.kind.name == "Q4_K"


def test_old_blocks_become_floats_or_new_blocks(tmp_path):
    (tmp_path / "old.ggml").write_bytes(file("llama", [("b.weight", (2, 32), Q4_0, 2 * OLD[Q4_0, 1][0])], 1))
    want = np.float32([OLD[Q4_0, 1][1]] * 2)
    report = isomorph.convert(tmp_path / "old.ggml", tmp_path / "x.safetensors")
    assert report.facts["verified"] == "re-read"
    np.testing.assert_array_equal(isomorph.open(tmp_path / "x.safetensors")["b.weight"].numpy(), want)
    with pytest.raises(Unsupported) as caught:
        isomorph.convert(tmp_path / "old.ggml", tmp_path / "x.gguf")
    assert "before May 2023" in caught.value.blockers[0][2]
    isomorph.quantize(tmp_path / "old.ggml", tmp_path / "x.gguf", scheme="q4_0", pure=True)
    np.testing.assert_allclose(isomorph.open(tmp_path / "x.gguf")["b.weight"].numpy(), want, rtol=1e-3)


bad = {
    "layers of a voice detector": (b"lmgg" + struct.pack("<I", 6) + b"silero" + struct.pack("<6I", 5, 1, 2, 512, 64, 1 << 31), "layers in"),
    "version": (b"tjgg" + struct.pack("<I", 4) + bytes(64), "known version"),
    "nothing behind the numbers": (file("llama", [], 3), "no tensors"),
    "cut in the data": (file("llama", ROWS, 3)[:-1], "bytes where"),
    "a word that is too long": (b"tjgg" + struct.pack("<8I", 3, 1, 64, 32, 4, 2, 16, 0) + struct.pack("<I", 5000) + bytes(6000), "a word of 5000"),
    "more words than bytes": (b"tjgg" + struct.pack("<8I", 3, (1 << 32) - 1, 64, 32, 4, 2, 16, 0) + bytes(64), "words in"),
    "dimensions": (file("llama", [("w", (1, 1, 1, 1, 1), F32, bytes(4))], 3), "5 dimensions"),
    "no name": (file("llama", [("", (1,), F32, bytes(4))], 3), "a name of 0"),
    "type": (file("llama", [("w", (1,), 99, bytes(4))], 3), "unknown type 99"),
    "a type of another time": (file("llama", [("w", (32,), Q4_2, bytes(20))], 3), "unknown type 4"),
    "part of a block": (file("llama", [("w", (33,), Q4_0, bytes(36))], 3), "rows of 33"),
    "wild sizes": (file("llama", [("w", (1 << 31, 1 << 31, 1 << 31), F32, bytes(4))], 3), "bytes where"),
    "twice": (file("llama", [ROWS[0], ROWS[0]], 3), "stands twice"),
}


@pytest.mark.parametrize("name", bad)
def test_damage_is_found(name):
    data, what = bad[name]
    with pytest.raises(Damaged, match=what):
        ggml.read(Artifact.open(data))


def test_an_adapter_is_not_read():
    with pytest.raises(Unsupported, match="LoRA"):
        ggml.read(Artifact.open(b"algg" + struct.pack("<3I", 1, 8, 16) + bytes(32)))
    assert ggml_files.WORDS


def rwkv_logits(checkpoint: isomorph.Checkpoint, tokens: bytes) -> np.ndarray:
    """The network RWKV 4 as its paper has it (arXiv 2305.13048, appendix), in float64."""
    w = {name: tensor.numpy().astype(np.float64).squeeze() for name, tensor in checkpoint.items()}
    width, layers = w["emb.weight"].shape[1], checkpoint.metadata["ggml.layers"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        return (x - x.mean()) / np.sqrt(x.var() + 1e-5) * w[name + ".weight"] + w[name + ".bias"]

    def sigmoid(x: np.ndarray) -> np.ndarray:
        return 1 / (1 + np.exp(-x))
    before = {(layer, part): np.zeros(width) for layer in range(layers) for part in ("att", "ffn")}
    sums = {layer: (np.zeros(width), np.zeros(width)) for layer in range(layers)}
    for token in tokens:
        x = norm(w["emb.weight"][token], "blocks.0.ln0")
        for layer in range(layers):
            name, y = f"blocks.{layer}.att.", norm(x, f"blocks.{layer}.ln1")
            mixed = {part: y * w[f"{name}time_mix_{part}"] + before[layer, "att"] * (1 - w[f"{name}time_mix_{part}"]) for part in "rkv"}
            before[layer, "att"] = y
            key, value = w[name + "key.weight"] @ mixed["k"], w[name + "value.weight"] @ mixed["v"]
            above, below = sums[layer]
            now = np.exp(w[name + "time_first"] + key)
            average = (above + now * value) / (below + now)
            decay = np.exp(w[name + "time_decay"])
            sums[layer] = (decay * above + np.exp(key) * value, decay * below + np.exp(key))
            x = x + w[name + "output.weight"] @ (sigmoid(w[name + "receptance.weight"] @ mixed["r"]) * average)
            name, y = f"blocks.{layer}.ffn.", norm(x, f"blocks.{layer}.ln2")
            mixed = {part: y * w[f"{name}time_mix_{part}"] + before[layer, "ffn"] * (1 - w[f"{name}time_mix_{part}"]) for part in "rk"}
            before[layer, "ffn"] = y
            inner = np.maximum(w[name + "key.weight"] @ mixed["k"], 0) ** 2
            x = x + sigmoid(w[name + "receptance.weight"] @ mixed["r"]) * (w[name + "value.weight"] @ inner)
    return w["head.weight"] @ norm(x, "ln_out")


# What rwkv.cpp's own tests let the sum of all differences be, 5 % more than it was (tests/test_tiny_rwkv.c, tests/test_quantization_format_compatibility.c and
# tests/logit_difference_validator.inc at d622368).
PUBLISHED = {"FP32": 0.001, "FP16": 0.013652, "Q5_0": 0.170404, "Q5_1": 0.278034}
GREATEST = {"FP32": 1e-5, "FP16": 2e-3, "Q5_0": 0.13, "Q5_1": 0.1}          # of one logit


def assert_published(logits: np.ndarray, name: str) -> None:
    wanted = np.frombuffer((RWKV / "expected-logits-4v0-660K.bin").read_bytes(), np.float32)
    difference = logits - wanted
    assert abs(difference.sum()) <= 1.05 * PUBLISHED[name]
    assert np.abs(difference).max() < GREATEST[name]


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_real_network_becomes_a_graph_with_the_published_logits(name, tmp_path):
    """In ONNX Runtime, in one piece and in three whose states are carried on, as rwkv.cpp's tests evaluate it."""
    report = isomorph.convert(RWKV / f"tiny-rwkv-4v0-660K-{name}.bin", tmp_path / "x.onnx")
    assert report.facts["verified"] == "re-read"
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    names = [value.name for value in session.get_outputs()]
    first = {value.name: np.zeros([1, *value.shape[1:]], np.float32) for value in session.get_inputs() if value.name.startswith("past")}
    for pieces in ([b'"in'], [b'"', b"i", b"n"]):
        states = first
        for piece in pieces:
            found = dict(zip(names, session.run(None, states | {"input_ids": np.array([list(piece)])}), strict=True))
            states = {state.replace("present", "past_key_values"): value for state, value in found.items() if state != "logits"}
        assert_published(found["logits"][0, -1], name)


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_real_network_gives_the_published_logits(name, tmp_path):
    """rwkv.cpp publishes what its test network answers to three characters; the file is converted before it is run."""
    isomorph.convert(RWKV / f"tiny-rwkv-4v0-660K-{name}.bin", tmp_path / "x.safetensors")
    converted = isomorph.open(tmp_path / "x.safetensors")
    converted.metadata["ggml.layers"] = int(converted.metadata["ggml.layers"])
    assert_published(rwkv_logits(converted, b'"in'), name)

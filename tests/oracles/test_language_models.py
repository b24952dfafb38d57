"""Language models as graphs: logits against transformers, products with blocks of ggml against their decoded weights, and the published SmolLM2."""
from __future__ import annotations

import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import environments
import numpy as np
import onnx_ir as ir
import onnxruntime
import pytest
from zoo import zoo

import isomorph
from isomorph.architectures import layers, networks, translator
from isomorph.architectures.products import Products, coded
from isomorph.artifact import Artifact
from isomorph.errors import Unsupported, Usage
from isomorph.formats import _table, gguf
from isomorph.formats import onnx as onnx_format
from isomorph.generation import Generation
from isomorph.model import HUB_IR_VERSION, HUB_OPSET, Checkpoint, Model
from isomorph.quant.blocks import BLOCKS
from isomorph.quant.decode import dequantize
from isomorph.quant.encode import ENCODERS, quantize
from isomorph.quant.tensor import QuantizedTensor
from isomorph.tensors import array_tensor

CHILD = Path(__file__).with_name("language_model_child.py")
FAMILIES = ("llama", "llama_tied", "mistral", "qwen2", "qwen3", "smollm3", "phi3", "gemma", "gemma2", "gemma3", "gemma3_usual", "olmo2", "granite", "stablelm",
            "starcoder2", "starcoder2_wide", "phi2", "gpt2", "gptj", "mixtral", "qwen2moe", "gptneox", "gptneox_serial", "falcon", "falcon_40b")
SCALED = ("linear", "llama3", "yarn", "yarn_weighed", "longrope", "longrope_long", "dynamic")           # positions beyond what was trained
READERS = ("bert", "nomic-bert")                                                                        # of whole texts
TRANSLATING = ("t5", "t5-1.1")                                                                          # one text into another
REMEMBERING = ("mamba", "rwkv")                                                                         # states of a fixed size
SAME = {"mistral": "llama", "mixtral": "llama"}                                                         # in GGUF
NAMES = (*FAMILIES, *SCALED, *READERS, *TRANSLATING, *REMEMBERING)
ROWS, COLUMNS = 24, 512


def run(path: Path, ids: np.ndarray, mask: np.ndarray, positions: np.ndarray, cuts: list[int]) -> np.ndarray:
    """Logits of a model that is fed in pieces, its keys and values carried from one to the next."""
    return in_pieces(path, lambda shape: (len(ids), shape[1], 0, shape[3]), [
        {"input_ids": ids[:, start:stop], "attention_mask": mask[:, :stop], "position_ids": positions[:, start:stop]}
        for start, stop in zip([0, *cuts], [*cuts, ids.shape[1]], strict=True)])


def in_pieces(path: Path, first: Callable[[list], Sequence[int]], calls: list[dict[str, np.ndarray]]) -> np.ndarray:
    """Logits of calls that each go on from what the one before kept; `first` gives the sizes of what is kept in the beginning, from those in the file."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(path, options)
    names, pieces = [value.name for value in session.get_outputs()], []
    kept = {value.name: np.zeros(first(value.shape), np.float32) for value in session.get_inputs() if value.name.startswith("past")}
    for feeds in calls:
        found = dict(zip(names, session.run(None, feeds | kept), strict=True))
        pieces.append(found.pop("logits"))
        kept = {name.replace("present", "past_key_values"): value for name, value in found.items()}
    return np.concatenate(pieces, axis=1)


def test_every_network_is_made():
    assert {SAME.get(family, family.split("_")[0]) for family in FAMILIES} == set(layers.NETWORKS)
    assert set(READERS) == set(layers.ENCODERS)
    assert {name.split("-")[0] for name in TRANSLATING} == set(translator.NETWORKS)


@pytest.mark.parametrize("family", [*FAMILIES, *SCALED])
def test_logits_equal_transformers(family, families, tmp_path):
    """From the folder and by way of GGUF, in pieces, with padding on the left."""
    source, expected = families / family / "model.safetensors", np.load(families / family / "expected.npz")
    isomorph.convert(source, tmp_path / "model.gguf", names="gguf")
    for place, path in enumerate((source, tmp_path / "model.gguf")):
        report = isomorph.convert(path, tmp_path / f"{place}.onnx", timeout=120)
        assert report.facts["verified"] == "re-read"
        cuts = [] if family in ("longrope_long", "dynamic") else [7, 8]             # whose keys turn otherwise once a text is long
        logits = run(tmp_path / f"{place}.onnx", expected["ids"], expected["mask"], expected["positions"], cuts)
        kept = expected["mask"].astype(bool)
        assert np.abs(logits - expected["logits"])[kept].max() <= 1e-5 * np.abs(expected["logits"]).max()


@pytest.mark.parametrize("family", REMEMBERING)
def test_logits_of_networks_that_keep_states_equal_transformers(family, families, tmp_path):
    source, expected = families / family / "model.safetensors", np.load(families / family / "expected.npz")
    isomorph.convert(source, tmp_path / "model.gguf", names="gguf")
    for place, path in enumerate((source, tmp_path / "model.gguf")):
        assert isomorph.convert(path, tmp_path / f"{place}.onnx", timeout=120).facts["verified"] == "re-read"
        calls = [{"input_ids": expected["ids"][:, start:stop]} for start, stop in ((0, 7), (7, 8), (8, 12))]
        logits = in_pieces(tmp_path / f"{place}.onnx", lambda shape: [2, *shape[1:]], calls)
        assert np.abs(logits - expected["logits"]).max() <= 1e-5 * np.abs(expected["logits"]).max()


@pytest.mark.parametrize("family", TRANSLATING)
def test_logits_of_networks_that_translate_equal_transformers(family, families, tmp_path):
    """In pieces: the first call reads, the others read nothing and go on from what is kept."""
    source, expected = families / family / "model.safetensors", np.load(families / family / "expected.npz")
    isomorph.convert(source, tmp_path / "model.gguf", names="gguf")
    for place, path in enumerate((source, tmp_path / "model.gguf")):
        assert isomorph.convert(path, tmp_path / f"{place}.onnx", timeout=120).facts["verified"] == "re-read"
        calls = [{"input_ids": expected["ids"][:, :0] if start else expected["ids"], "attention_mask": expected["mask"],
                  "decoder_input_ids": expected["written"][:, start:stop]} for start, stop in ((0, 20), (20, 21), (21, 31))]
        logits = in_pieces(tmp_path / f"{place}.onnx", lambda shape: (2, shape[1], 0, shape[3]), calls)
        assert np.abs(logits - expected["logits"]).max() <= 1e-5 * np.abs(expected["logits"]).max()


@pytest.mark.parametrize("rounded", [False, True])
def test_blocks_take_a_text_of_no_tokens(rounded, families, tmp_path):
    """The second call of a network that translates, with blocks that have a minimum: what is kept equals what is computed anew."""
    isomorph.quantize(families / "t5" / "model.safetensors", tmp_path / "x.gguf", scheme="q4_1", pure=True, verify=False)
    made = networks.graph(isomorph.open(tmp_path / "x.gguf"), rounded=rounded)
    onnx_format.write(made, tmp_path / "x.onnx")
    expected = np.load(families / "t5" / "expected.npz")
    session = onnxruntime.InferenceSession(tmp_path / "x.onnx")
    names, written = [value.name for value in session.get_outputs()], expected["written"]
    empty = {value.name: np.zeros((2, value.shape[1], 0, value.shape[3]), np.float32) for value in session.get_inputs() if value.name.startswith("past")}
    given = {"input_ids": expected["ids"], "attention_mask": expected["mask"]}
    whole = session.run(["logits"], given | {"decoder_input_ids": written} | empty)[0]
    first = dict(zip(names, session.run(None, given | {"decoder_input_ids": written[:, :1]} | empty), strict=True))
    kept = {name.replace("present", "past_key_values"): value for name, value in first.items() if name != "logits"}
    second = session.run(["logits"], given | {"input_ids": expected["ids"][:, :0], "decoder_input_ids": written[:, 1:2]} | kept)[0]
    assert np.abs(second[:, 0] - whole[:, 1]).max() <= 1e-5 * np.abs(whole).max()


@pytest.mark.parametrize("family", READERS)
def test_what_stands_behind_the_last_layer_equals_transformers(family, families, tmp_path):
    source, expected = families / family / "model.safetensors", np.load(families / family / "expected.npz")
    isomorph.convert(source, tmp_path / "model.gguf", names="gguf")
    feeds = {"input_ids": expected["ids"], "attention_mask": expected["mask"], "token_type_ids": expected["types"]}
    for place, path in enumerate((source, tmp_path / "model.gguf")):
        assert isomorph.convert(path, tmp_path / f"{place}.onnx", timeout=120).facts["verified"] == "re-read"
        hidden, *pooled = onnxruntime.InferenceSession(tmp_path / f"{place}.onnx").run(None, feeds)
        assert np.abs(hidden - expected["hidden"])[expected["mask"].astype(bool)].max() <= 1e-5 * np.abs(expected["hidden"]).max()
        assert len(pooled) == ("pooled" in expected)
        if pooled:
            assert np.abs(pooled[0] - expected["pooled"]).max() <= 1e-5


def test_transformers_loads_the_folders_that_files_become(families, tmp_path):
    """Every family, in one process: no weight missed, none too many, the same results to the last bit."""
    names = NAMES
    command = [str(environments.python("torch")), "-W", "ignore", str(CHILD), "load"]
    for family in names:
        isomorph.convert(families / family / "model.safetensors", tmp_path / f"{family}.gguf", names="gguf")
        report = isomorph.convert(tmp_path / f"{family}.gguf", tmp_path / family, to="hf")
        assert report.facts["verified"] == "re-read"
        assert [finding.code for finding in report.findings] == ["tokenizer.left-out"]
        command += [str(families / family / "expected.npz"), str(tmp_path / family)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    answers = dict(zip(names, done.stdout.splitlines(), strict=True))
    assert {family: answer for family, answer in answers.items() if answer != "0.0 0"} == {}
    again = isomorph.convert(tmp_path / "llama", tmp_path / "again", to="hf", dtype="fp16")
    assert again.facts["verified"] == "re-read"
    assert {path.name for path in (tmp_path / "again").iterdir()} == {"config.json", "model.safetensors"}


@pytest.mark.parametrize("dtype", ["fp32", "fp16", "bf16"])
def test_weights_come_back_byte_for_byte(dtype, families, tmp_path):
    """Random weights of transformers, as float32, float16 and bfloat16, to GGUF and back."""
    for family in NAMES:
        folder, back = tmp_path / family, tmp_path / family / "back.safetensors"
        folder.mkdir()
        (folder / "config.json").write_text((families / family / "config.json").read_text())
        isomorph.convert(families / family / "model.safetensors", folder / "model.safetensors", dtype=dtype)
        isomorph.convert(folder / "model.safetensors", folder / "x.gguf", names="gguf")
        isomorph.convert(folder / "x.gguf", back, names="huggingface", dtype=dtype)
        want, have = isomorph.open(folder / "model.safetensors"), isomorph.open(back)
        assert set(want) == set(have), family
        assert [name for name in want if want[name].tobytes() != have[name].tobytes()] == [], family


def test_a_published_model_becomes_a_folder_with_its_tokenizer(tmp_path):
    isomorph.convert(zoo("smollm2"), tmp_path / "folder", to="hf", dtype="bf16")
    names = {path.name for path in (tmp_path / "folder").iterdir()}
    assert names == {"config.json", "model.safetensors", "tokenizer.json", "tokenizer_config.json"}
    with Generation(tmp_path / "folder", timeout=120) as model:
        assert "".join(model.text(model.prompt("What is the capital of France?"), most=24)) == "The capital of France is Paris."
    with pytest.raises(Usage, match="exists"):
        isomorph.convert(zoo("smollm2"), tmp_path / "folder", to="hf")


def test_weights_of_no_known_network_become_no_folder(tmp_path):
    with pytest.raises(Unsupported, match="nothing says which network"):
        _table.get("hf").write(Checkpoint({"w": array_tensor(np.zeros(3, np.float32), "w")}), tmp_path / "folder")
    assert not (tmp_path / "folder").exists()


@pytest.mark.parametrize("kind", ENCODERS)
def test_products_with_blocks_are_those_with_their_weights(kind, tmp_path):
    random = np.random.default_rng(3)
    weights = random.normal(size=(ROWS, COLUMNS)).astype(np.float32)
    blocks = quantize(kind, weights.reshape(-1, BLOCKS[kind].elements)).tobytes()
    tensor = QuantizedTensor("w.weight", BLOCKS[kind], (ROWS, COLUMNS), blocks)
    exact = dequantize(kind, blocks).reshape(ROWS, COLUMNS).astype(np.float64)
    products = Products({"w.weight": tensor})
    x = ir.Value(name="x", type=ir.TensorType(ir.DataType.FLOAT), shape=ir.Shape(["b", "s", COLUMNS]))
    ids = ir.Value(name="ids", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape(["b", "n"]))
    outputs = [products.product(x, "w"), products.rows(ids, "w.weight")]
    for output, name in zip(outputs, ("y", "rows"), strict=True):
        output.name, output.type, output.shape = name, ir.TensorType(ir.DataType.FLOAT), ir.Shape(["b", None, None])
    onnx_format.write(Model(products.finished([x, ids], outputs, "product", HUB_OPSET, HUB_IR_VERSION)), tmp_path / "m.onnx")
    array, chosen = random.normal(size=(2, 3, COLUMNS)).astype(np.float32), np.array([[0, 5], [ROWS - 1, 5]])
    y, rows = onnxruntime.InferenceSession(tmp_path / "m.onnx").run(None, {"x": array, "ids": chosen})
    wanted = array.astype(np.float64) @ exact.T
    assert np.abs(y - wanted).max() <= 5e-6 * np.abs(wanted).max()
    assert np.abs(rows - exact[chosen]).max() <= 5e-7 * np.abs(exact).max()
    assert (products.kept == 1) == (coded(tensor) is not None)


def test_a_published_model_keeps_its_codes(tmp_path):
    report = isomorph.convert(zoo("smollm2"), tmp_path / "smollm2.onnx", timeout=300)
    assert report.facts["verified"] == "re-read"
    assert [finding.code for finding in report.findings].count("weights.codes") == 1
    assert (tmp_path / "smollm2.onnx").stat().st_size < 1.15 * zoo("smollm2").stat().st_size
    ids = np.array([[1, 4093, 198, 1780, 416, 260, 2412, 282, 4649, 47, 2, 198, 1, 520, 9531, 198]])
    for _ in range(6):
        logits = run(tmp_path / "smollm2.onnx", ids, np.ones_like(ids), np.arange(ids.shape[1])[None], cuts=[])
        ids = np.concatenate([ids, logits[:, -1:].argmax(-1)], axis=1)
    words = gguf.read(Artifact.open(zoo("smollm2"))).metadata["tokenizer.ggml.tokens"]
    assert [words[int(place)] for place in ids[0, -6:]] == ["The", "Ġclimate", "Ġof", "ĠFrance", "Ġis", "Ġcharacterized"]


def test_what_is_not_built_is_said(tmp_path):
    tensors = {"token_embd.weight": array_tensor(np.zeros((4, 8), np.float32), "token_embd.weight")}
    for metadata, reason in (({"general.architecture": "frob"}, "no graph is built"), ({"general.architecture": "llama"}, "are missing"),
                             ({"general.architecture": "llama", "llama.block_count": 1, "llama.attention.head_count": 2, "llama.rope.scaling.type": "frob"},
                              "frob")):
        with pytest.raises(Unsupported, match=reason):
            networks.graph(Checkpoint(tensors, metadata))


"""Attention as exporters of other frameworks write it out, which becomes one layer of Keras whatever its scores are masked with."""
from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest

from isomorph.artifact import Artifact
from isomorph.dialects import from_hub, to_hub
from isomorph.formats import keras
from isomorph.formats import onnx as onnx_format
from isomorph.model import operators

PLACES, WIDTH, HEADS, SIZE = 4, 6, 4, 3
LOWEST = float(np.finfo(np.float32).min)
SPLIT = """
{0}_flat = MatMul(x, {0}_kernel)
{0}_biased = Add({0}_bias, {0}_flat)
{0}_split = Reshape({0}_biased, {0}_shape)
{0} = Transpose <perm = [0, 2, 1, 3]> ({0}_split)
"""
# Scores in front of the softmax, by what they are masked with.
MASKS = {
    "nothing": "scores = Identity(raw)",
    "replaced": "scores = Where(keep, raw, low)",
    "left out": "drop = Not(keep)\nscores = Where(drop, infinite, raw)",
    "offsets of choices": "offset = Where(keep, zero, infinite)\nscores = Add(raw, offset)",
    "offsets of products": "kept = Cast <to = 1> (keep)\ndropped = Sub(one, kept)\noffset = Mul(dropped, lowest)\nscores = Add(offset, raw)",
    "later places": "scores = Add(raw, later)",
    "later places and others": "both = And(keep, back)\nscores = Where(both, raw, low)",
    "some places": "scores = Add(raw, some)",
}
LAYER = {"nothing": {}, "later places": {"use_causal_mask": True}, "later places and others": {"attention_mask": 2, "use_causal_mask": True}}
CONSTANTS = {"low": -1e9, "infinite": -np.inf, "zero": 0.0, "one": 1.0, "lowest": LOWEST, "root": np.sqrt(SIZE)}
# What is not the same in Keras: a sum in which something is left of the score, and a mask that is a number.
KEPT_APART = {
    "a little less": "scores = Add(raw, somewhat)",
    "a low number that is added": "offset = Where(keep, zero, low)\nscores = Add(raw, offset)",
    "numbers": "dropped = Sub(one, number)\noffset = Mul(dropped, lowest)\nscores = Add(raw, offset)",
    "a row of which nothing is left": "scores = Add(raw, nothing)",
}


# How keys are turned, and where the shape of what is split comes from.
TURNED = {"at once": "turned = Transpose <perm = [0, 1, 3, 2]> (k_all)",
          "as three axes": "flat = Reshape(k_all, three)\nflat_turned = Transpose <perm = [0, 2, 1]> (flat)\nturned = Reshape(flat_turned, four)"}
SIZES = "{0}_lead = Shape <start = 0, end = 2> ({0}_biased)\n{0}_sizes = Concat <axis = 0> ({0}_lead, apart)\n"
COMPUTED = SPLIT.replace("{0}_split =", f"{SIZES}{{0}}_split =").replace("{0}_shape)", "{0}_sizes)")


def network(mask: str, shared: str = "", split: str = SPLIT, turned: str = TURNED["at once"]) -> onnx.ModelProto:
    """A graph with heads of attention over its input; `shared` widens two heads of keys and values to four."""
    rng = np.random.default_rng(2)
    groups = 2 if shared else HEADS
    text = f"""<ir_version: 10, opset_import: ["" : 21]>
    attention (float[batch, {PLACES}, {WIDTH}] x, bool[batch, 1, {PLACES}, {PLACES}] keep, float[batch, 1, {PLACES}, {PLACES}] number)
      => (float[batch, {PLACES}, {WIDTH}] y) {{
    {"".join(split.format(name) for name in "qkv")}
    {shared.format("k") + shared.format("v") if shared else "k_all = Identity(k)" + chr(10) + "v_all = Identity(v)"}
    {turned}
    product = MatMul(q, turned)
    raw = Div(product, root)
    {mask}
    weights = Softmax <axis = -1> (scores)
    gathered = MatMul(weights, v_all)
    back_in_place = Transpose <perm = [0, 2, 1, 3]> (gathered)
    joined = Reshape(back_in_place, joined_shape)
    projected = MatMul(joined, out_kernel)
    y = Add(projected, out_bias)
    }}"""
    model = onnx.parser.parse_model(text)
    counts = {"q": HEADS, "k": groups, "v": groups}
    places = np.arange(PLACES)
    later = np.where(places[:, None] >= places, 0.0, -np.inf)
    arrays = {f"{name}_kernel": rng.standard_normal((WIDTH, count * SIZE)) for name, count in counts.items()}
    arrays |= {f"{name}_bias": rng.standard_normal(count * SIZE) for name, count in counts.items()}
    arrays |= {"out_kernel": rng.standard_normal((HEADS * SIZE, WIDTH)), "out_bias": rng.standard_normal(WIDTH), **CONSTANTS, "later": later}
    nothing_left = np.where((places == 0)[:, None], -1e9, 0.0)
    arrays |= {"some": np.where(places % 2 == 0, 0.0, -1e4)[None, :].repeat(PLACES, 0), "somewhat": later.clip(-1), "nothing": nothing_left.repeat(PLACES, 1)}
    given = {name: np.asarray(array, np.float32) for name, array in arrays.items()}
    given |= {f"{name}_shape": np.asarray([0, 0, count, SIZE]) for name, count in counts.items()}
    given |= {"joined_shape": np.asarray([0, 0, HEADS * SIZE]), "back": later == 0, "second": np.asarray([2]), "repeats": np.asarray([0, 0, 1, 1]),
              "wide": np.asarray([1, 1, HEADS // groups, 1, 1]), "all": np.asarray([0, HEADS, PLACES, SIZE]),
              "three": np.asarray([-1, PLACES, SIZE]), "four": np.asarray([-1, HEADS, SIZE, PLACES]), "apart": np.asarray([HEADS, SIZE])}
    used = {name for node in model.graph.node for name in node.input}
    model.graph.initializer.extend(onnx.numpy_helper.from_array(array, name) for name, array in given.items() if name in used)
    for value in [value for value in model.graph.input if value.name not in used]:
        model.graph.input.remove(value)
    onnx.checker.check_model(model)
    return model


def feeds(session: onnxruntime.InferenceSession) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    keep = (rng.random((2, 1, PLACES, PLACES)) < 0.6) | np.eye(PLACES, dtype=bool)
    made = {"x": rng.standard_normal((2, PLACES, WIDTH)).astype(np.float32), "keep": keep, "number": keep.astype(np.float32)}
    return {value.name: made[value.name] for value in session.get_inputs()}


def through(proto: onnx.ModelProto, tmp_path):
    """The model in Keras' layers, and the greatest difference of what is read of its file, in parts of the range."""
    model = from_hub(to_hub(onnx_format.read(Artifact.open(proto.SerializeToString()))), "keras")
    keras.write(model, tmp_path / "m.keras")
    onnx_format.write(to_hub(keras.read(Artifact.open(tmp_path / "m.keras"))), tmp_path / "m.onnx")
    sessions = [onnxruntime.InferenceSession(each) for each in (proto.SerializeToString(), str(tmp_path / "m.onnx"))]
    wanted, got = (session.run(None, feeds(session))[0] for session in sessions)
    return model, np.abs(got - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize("name", MASKS)
def test_masks_are_those_of_the_layer(tmp_path, name):
    model, difference = through(network(MASKS[name]), tmp_path)
    assert operators(model)["MultiHeadAttention"] == 1
    assert not {"Softmax", "keras.ops::Where", "Dense"} & operators(model).keys()
    assert difference < 1e-6


def test_later_places_are_a_word(tmp_path):
    """use_causal_mask, and beside it what else there is."""
    for name, others in (("later places", 0), ("later places and others", 1)):
        folder = tmp_path / str(others)
        folder.mkdir()
        model, _ = through(network(MASKS[name]), folder)
        node = next(node for node in model.graph if node.op_type == "MultiHeadAttention")
        call = node.attributes["call"].value
        assert '"use_causal_mask": true' in call
        assert call.count("attention_mask") == others


@pytest.mark.parametrize("name", KEPT_APART)
def test_what_keras_would_compute_otherwise_stays_apart(tmp_path, name):
    model, difference = through(network(KEPT_APART[name]), tmp_path)
    assert "MultiHeadAttention" not in operators(model)
    assert difference < 1e-6


@pytest.mark.parametrize("shared", ["{0}_all = Gather <axis = 1> ({0}, repeats)\n",
                                    "{0}_one = Unsqueeze({0}, second)\n{0}_wide = Expand({0}_one, wide)\n{0}_all = Reshape({0}_wide, all)\n"])
def test_heads_that_share_keys(tmp_path, shared):
    model, difference = through(network(MASKS["replaced"], shared), tmp_path)
    assert operators(model)["GroupedQueryAttention"] == 1
    assert difference < 1e-6


@pytest.mark.parametrize(("split", "turned"), [(COMPUTED, "at once"), (SPLIT, "as three axes"), (COMPUTED, "as three axes")])
def test_forms_of_exporters(tmp_path, split, turned):
    model, difference = through(network(MASKS["replaced"], split=split, turned=TURNED[turned]), tmp_path)
    assert operators(model) == {"MultiHeadAttention": 1}
    assert difference < 1e-6

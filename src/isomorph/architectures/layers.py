"""What the networks of language models are made of, as ONNX nodes: norms, rotations, inner layers, a choice of experts; and the numbers of one model.

What they compute: transformers' models/*/modeling_*.py and llama.cpp's src/models/*.cpp.
"""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import onnx_ir as ir

from isomorph.architectures.changes import separated
from isomorph.architectures.positions import FACTORS, LONG, SHORT, Rotation, rotation
from isomorph.architectures.products import FLOAT, Products
from isomorph.errors import Unsupported
from isomorph.model import HUB_IR_VERSION, HUB_OPSET, Checkpoint, Model
from isomorph.report import Finding, Severity
from isomorph.tensors import dims_of

PAIRS, HALVES = "pairs", "halves"           # what a rotation turns against each other: neighbours, or the two halves of a head
INT64, FLOAT32 = ir.DataType.INT64, ir.DataType.FLOAT
Value = ir.Value


@dataclass(frozen=True)
class Network:
    """What a family computes where others differ. `rotates` is empty where positions are a table. Every so many layers as `every` says, one does not rotate,
    and as `wide` says, one sees everything where the others see a window; 1 means a window for all. `parallel`: attention and the inner layer read the same.
    `shares`: the weights of the experts that are asked sum to one."""

    rotates: str = HALVES
    norm: str = "rms"
    activation: str = "silu"
    scales_embedding: bool = False
    every: int = 0
    wide: int = 0
    parallel: bool = False
    shares: bool = False

    def of(self, architecture: str, keys: Mapping[str, Any]) -> Network:
        """With what the keys of one model say otherwise."""
        parallel, shares = keys.get(f"{architecture}.use_parallel_residual"), keys.get(f"{architecture}.expert_weights_norm")
        return replace(self, parallel=parallel if isinstance(parallel, bool) else self.parallel, shares=shares if isinstance(shares, bool) else self.shares)


NETWORKS = {
    "llama": Network(PAIRS, shares=True), "qwen2": Network(), "qwen3": Network(), "smollm3": Network(PAIRS, every=4), "phi3": Network(wide=1),
    "gemma": Network(activation="gelu", scales_embedding=True), "gemma2": Network(activation="gelu", scales_embedding=True, wide=2),
    "gemma3": Network(activation="gelu", scales_embedding=True, wide=6), "olmo2": Network(), "granite": Network(PAIRS), "stablelm": Network(norm="layer"),
    "starcoder2": Network(norm="layer", activation="gelu", wide=1), "phi2": Network(norm="layer", activation="gelu", parallel=True),
    "gpt2": Network("", norm="layer", activation="gelu"), "qwen2moe": Network(), "gptneox": Network(norm="layer", activation="exact gelu", parallel=True),
    "falcon": Network(norm="layer", activation="exact gelu", parallel=True), "gptj": Network(PAIRS, norm="layer", activation="gelu", parallel=True),
}
ENCODERS = {"bert": Network("", norm="layer", activation="exact gelu"), "nomic-bert": Network(norm="layer")}
WHOLE_HEADS = {("gemma2", 46), ("gemma3", 62)}      # the 27B models, whose attention is scaled by the width that falls to a head, not by its size
EPSILONS = {"gpt2": 1e-5, "gptj": 1e-5, "gptneox": 1e-5, "falcon": 1e-5, "bert": 1e-12, "nomic-bert": 1e-12}


@dataclass(frozen=True)
class Sizes:
    """The numbers of one model, from the keys of GGUF. Raises `Unsupported` for keys that ask for something that is not built."""

    layers: int
    heads: int
    key_heads: int
    head: int
    rotated: int
    base: float
    epsilon: float
    window: int
    attention_cap: float
    logit_cap: float
    near_base: float                        # of the rotation in layers that see a window
    scale: float                            # of queries times keys
    embedding: float                        # that the words of the table are multiplied by
    residual: float                         # and what every layer adds
    logits: float                           # what the logits are divided by
    experts: int
    asked: int                              # experts of each token

    @classmethod
    def of(cls, architecture: str, keys: Mapping[str, Any], width: int) -> Sizes:
        def number(key: str, default: float = 0.0) -> float:
            return number_of(keys, f"{architecture}.{key}", default)
        heads, layers = int(number("attention.head_count")), int(number("block_count"))
        if not heads or not layers:
            raise Unsupported(f"the keys {architecture}.attention.head_count and {architecture}.block_count are missing")
        head = int(number("attention.key_length", width // heads))
        if number("attention.value_length", head) != head:
            raise Unsupported("values of another size than keys are not built")
        experts, asked = int(number("expert_count")), int(number("expert_used_count"))
        if experts and not 0 < asked <= experts:
            raise Unsupported(f"{asked} of {experts} experts are asked")
        whole = width // heads if (architecture, layers) in WHOLE_HEADS else head
        epsilon = number("attention.layer_norm_rms_epsilon") or number("attention.layer_norm_epsilon") or EPSILONS.get(architecture, 1e-6)
        return cls(layers, heads, int(number("attention.head_count_kv", heads)), head, int(number("rope.dimension_count", head)),
                   number("rope.freq_base", 10000.0), epsilon, int(number("attention.sliding_window")), number("attn_logit_softcapping"),
                   number("final_logit_softcapping"), number("rope.freq_base_swa", 10000.0), number("attention.scale") or 1 / math.sqrt(whole),
                   number("embedding_scale", 1.0), number("residual_scale", 1.0), number("logit_scale", 1.0), experts, asked)


def number_of(keys: Mapping[str, Any], key: str, default: float = 0.0) -> float:
    """A key that is a number, or the same number for every layer. Raises `Unsupported` for others."""
    value = keys.get(key, default)
    if isinstance(value, Sequence) and not isinstance(value, str) and len(set(value)) == 1:
        value = value[0]
    if not isinstance(value, (int, float)):
        raise Unsupported(f"{key} is {str(value)[:60]}, which differs from layer to layer")
    return value


class Layers:
    """Appends the layers of one model, whose weights have GGUF's names. `inputs` and `outputs` are those of the graph so far."""

    def __init__(self, content: Checkpoint, architecture: str, network: Network, **how: bool):
        self.source, self.architecture, self.network = content, architecture, network.of(architecture, content.metadata)
        self.content = separated(content)
        if "token_embd.weight" not in self.content:
            raise Unsupported("the file holds no table of words, token_embd.weight", hint="a vocabulary or an adapter is no whole model")
        self.read: set[str] = set()
        self.products = Products(Watched(self.content, self.read), **how)
        self.op = self.products.op
        self.words, self.width = dims_of(self.content["token_embd.weight"])
        self.inputs: list[Value] = []
        self.outputs: list[Value] = []

    def finished(self) -> Model:
        """The model. Raises `Unsupported` with every weight that nothing has read."""
        left = [name for name in self.content if name not in self.read]
        if left:
            blockers = [(name, name, f"the network of {self.architecture} does not read it") for name in left]
            raise Unsupported(f"{len(left)} weights have no place in the network of {self.architecture}: {', '.join(left[:5])}", blockers=blockers)
        made = self.products.finished(self.inputs, self.outputs, self.architecture, HUB_OPSET, HUB_IR_VERSION)
        findings = list(self.source.findings)
        if self.products.kept:
            sentence = f"{self.products.kept} products compute with the codes of their weights, by the operator MatMulNBits of ONNX Runtime"
            findings.append(Finding("weights.codes", Severity.LOW, self.architecture, sentence, "for other runtimes, convert with --dtype fp32"))
        return Model(made, "onnx", metadata=dict(self.source.metadata), findings=findings)

    def input(self, name: str, dims: list[Any], dtype: ir.DataType = INT64) -> Value:
        self.inputs.append(Value(name=name, type=ir.TensorType(dtype), shape=ir.Shape(dims)))
        return self.inputs[-1]

    def output(self, value: Value, name: str, dims: list[Any], dtype: ir.DataType = FLOAT32) -> None:
        value.name, value.type, value.shape = name, ir.TensorType(dtype), ir.Shape(dims)
        self.outputs.append(value)

    # ---- numbers

    def times(self, x: Value, factor: float) -> Value:
        return x if factor == 1 else self.op.Mul(x, self.products.constant(factor, np.float32))

    def capped(self, x: Value, limit: float) -> Value:
        if not limit:
            return x
        cap = self.products.constant(limit, np.float32)
        return self.op.Mul(self.op.Tanh(self.op.Div(x, cap)), cap)

    def normalised(self, x: Value, name: str, epsilon: float) -> Value:
        weight = self.products.vector(name + ".weight")
        if self.network.norm == "rms":
            return self.op.RMSNormalization(x, weight, axis=-1, epsilon=float(epsilon))
        bias = [self.products.vector(name + ".bias")] if name + ".bias" in self.content else []
        return self.op.LayerNormalization(x, weight, *bias, axis=-1, epsilon=float(epsilon))

    # ---- positions

    def scaled_rotation(self, positions: Value, base: float, rotated: int) -> tuple[Value, Value]:
        """Cosine and sine of the positions that the keys and tensors of the file describe."""
        watched = self.products.weights
        self.read |= {name for name in (FACTORS, LONG, SHORT) if name in watched}
        return self.rotation(positions, rotation(self.source.metadata, watched, self.architecture, base, rotated), rotated)

    def rotation(self, positions: Value, turns: Rotation, rotated: int) -> tuple[Value, Value]:
        """Cosine and sine [batch, sequence, rotated / 2] of every angle, once for all layers."""
        op, constant = self.op, self.products.constant
        frequencies = constant(turns.frequencies, np.float32)
        if turns.limit:
            length = op.Add(op.ReduceMax(positions, keepdims=0), constant(1))
            if turns.long is not None:
                frequencies = op.Where(op.Greater(length, constant(turns.limit)), constant(turns.long, np.float32), frequencies)
            else:
                frequencies = self.stretched(length, turns, rotated)
        angles = op.Mul(op.Unsqueeze(op.Cast(positions, to=FLOAT), constant([-1])), frequencies)
        return self.times(op.Cos(angles), turns.amplitude), self.times(op.Sin(angles), turns.amplitude)

    def stretched(self, length: Value, turns: Rotation, rotated: int) -> Value:
        """Frequencies whose base grows with the length of the text, behind the length that the model was trained with."""
        op, constant = self.op, self.products.constant
        share = op.Div(op.Cast(op.Max(length, constant(turns.limit)), to=FLOAT), constant(turns.limit, np.float32))
        grown = op.Sub(op.Mul(share, constant(turns.stretch, np.float32)), constant(turns.stretch - 1, np.float32))
        steps = np.arange(0, rotated, 2, dtype=np.float64) / rotated
        base = op.Mul(op.Pow(grown, constant(rotated / (rotated - 2), np.float32)), constant(turns.base, np.float32))
        return op.Pow(base, constant(-steps, np.float32))

    # ---- layers

    def attention_inputs(self, x: Value, names: str, sizes: Sizes) -> list[Value]:
        """Queries, keys and values [batch, sequence, heads * size], of three matrices or of one."""
        if names + "attn_qkv.weight" not in self.content:
            return [self.products.product(x, f"{names}attn_{part}") for part in "qkv"]
        widths = [heads * sizes.head for heads in (sizes.heads, sizes.key_heads, sizes.key_heads)]
        return list(self.op.Split(self.products.product(x, names + "attn_qkv"), self.products.constant(widths), axis=-1, _outputs=3))

    def inner(self, x: Value, names: str, suffix: str = "") -> Value:
        """The two or three matrices behind attention. `suffix` stands behind their names: that of an expert."""
        products, op = self.products, self.op
        gate_name, up_name, down_name = (f"{names}ffn_{part}{suffix}" for part in ("gate", "up", "down"))
        if gate_name + ".weight" in self.content:
            gate, up = products.product(x, gate_name), products.product(x, up_name)
        elif dims_of(self.content[up_name + ".weight"])[0] == 2 * dims_of(self.content[down_name + ".weight"])[1]:
            gate, up = op.Split(products.product(x, up_name), axis=-1, num_outputs=2, _outputs=2)
        else:
            return products.product(self.activated(products.product(x, up_name)), down_name)
        return products.product(op.Mul(self.activated(gate), up), down_name)

    def activated(self, x: Value) -> Value:
        return ACTIVATIONS[self.network.activation](self.op, x)

    def experts(self, x: Value, names: str, sizes: Sizes) -> Value:
        """The answers of the experts that a token's router asks, each weighted; an expert computes only the tokens that ask it."""
        op, constant = self.op, self.products.constant
        rows = op.Reshape(x, constant([-1, self.width]))
        likely = op.Softmax(self.products.product(rows, names + "ffn_gate_inp"), axis=-1)
        weights, places = op.TopK(likely, constant([sizes.asked]), axis=-1, _outputs=2)
        if self.network.shares:
            weights = op.Div(weights, op.ReduceSum(weights, constant([-1]), keepdims=1))
        answer = op.Mul(rows, constant(0, np.float32))
        for number in range(sizes.experts):
            asked = op.Cast(op.Equal(places, constant(number)), to=FLOAT)
            share = op.ReduceSum(op.Mul(weights, asked), constant([-1]), keepdims=1)
            tokens = op.Transpose(op.NonZero(op.ReduceMax(asked, constant([-1]), keepdims=0)), perm=[1, 0])
            found = self.inner(op.GatherND(rows, tokens), names, f".{number}")
            answer = op.ScatterND(answer, tokens, op.Mul(found, op.GatherND(share, tokens)), reduction="add")
        if names + "ffn_gate_inp_shexp.weight" in self.content:
            column = op.Unsqueeze(self.products.vector(names + "ffn_gate_inp_shexp.weight"), constant([-1]))
            answer = op.Add(answer, op.Mul(op.Sigmoid(op.MatMul(rows, column)), self.inner(rows, names, "_shexp")))
        return op.Reshape(answer, op.Shape(x))


ACTIVATIONS = {
    "silu": lambda op, x: op.Mul(x, op.Sigmoid(x)), "gelu": lambda op, x: op.Gelu(x, approximate="tanh"), "exact gelu": lambda op, x: op.Gelu(x),
    "relu": lambda op, x: op.Relu(x),
}


class Watched(Mapping[str, Any]):
    """Weights that remember which of them were read."""

    def __init__(self, content: Mapping[str, Any], read: set[str]):
        self.content, self.read = content, read

    def __getitem__(self, name: str) -> Any:
        self.read.add(name)
        return self.content[name]

    def __contains__(self, name: object) -> bool:
        return name in self.content

    def __iter__(self) -> Any:
        return iter(self.content)

    def __len__(self) -> int:
        return len(self.content)

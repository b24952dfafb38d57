"""TFLite -> ONNX, operator by operator: a small file of our own writer, run by LiteRT and, as ONNX, by ONNX Runtime, on the same random inputs.

A row is an operator (a word after a colon tells variants apart) and a function that adds it to a graph. `low`, `high` bound float inputs;
`tolerance` is the greatest difference allowed, of the output's range.
"""
from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx_ir as ir
import pytest
import running
from running import needs_litert
from tflite_models import Graph, read, real_model, real_models

from isomorph.dialects.tflite.to_onnx.common import to_onnx
from isomorph.dialects.tflite.to_onnx.pipeline import to_hub
from isomorph.formats import onnx

F, N, L, B, S = "float32", "int32", "int64", "bool", "string"


@dataclass(frozen=True)
class Case:
    build: Callable[[Graph], Any]
    low: float = -2.0
    high: float = 2.0
    tolerance: float = 1e-6
    quanta: int = 1                 # for integers that stand for reals
    kernels: str = "default"


def weights(*shape: int, seed: int = 5, scale: float = 0.5) -> np.ndarray:
    return (np.random.default_rng(seed).normal(size=shape) * scale).astype(np.float32)


def unary(operator: str, dtype: str = F, out: str | None = None, shape: tuple = (2, 3, 4), **attributes: Any) -> Callable[[Graph], Any]:
    return lambda g: getattr(g, operator)(g.input(dtype, *shape), out=(out or dtype, *shape), **attributes)


def binary(operator: str, dtype: str = F, out: str | None = None, left: tuple = (2, 3, 4), right: tuple = (3, 1), **attributes: Any) -> Callable[[Graph], Any]:
    shape = np.broadcast_shapes(left, right)
    return lambda g: getattr(g, operator)(g.input(dtype, *left), g.input(dtype, *right), out=(out or dtype, *shape), **attributes)


def reduction(operator: str, dtype: str = F, axes: list = [1, -1], keep: bool = False) -> Callable[[Graph], Any]:  # noqa: B006
    shape = tuple(np.zeros((2, 3, 4)).sum(axis=tuple(axes), keepdims=keep).shape)
    return lambda g: getattr(g, operator)(g.input(dtype, 2, 3, 4), g.const(axes), out=(dtype, *shape), **({"keep_dims": 1} if keep else {}))


def conv(x: tuple, w: tuple, y: tuple, **attributes: Any) -> Callable[[Graph], Any]:
    options = {"stride_w": 1, "stride_h": 1} | attributes
    return lambda g: g.CONV_2D(g.input(F, *x), g.const(weights(*w)), g.const(weights(w[0])), out=(F, *y), **options)


def depthwise(x: tuple, w: tuple, y: tuple, **attributes: Any) -> Callable[[Graph], Any]:
    options = {"stride_w": 1, "stride_h": 1, "depth_multiplier": w[3] // x[3]} | attributes
    return lambda g: g.DEPTHWISE_CONV_2D(g.input(F, *x), g.const(weights(*w)), g.const(weights(w[3])), out=(F, *y), **options)


def pool(operator: str, padding: str, y: tuple, activation: str = "NONE") -> Callable[[Graph], Any]:
    return lambda g: getattr(g, operator)(g.input(F, 2, 7, 6, 3), out=(F, *y), padding=padding, stride_w=2, stride_h=2, filter_width=3, filter_height=2,
                                          fused_activation_function=activation)


def transpose_conv(y: tuple, bias: bool = True, shape: bool = True, **attributes: Any) -> Callable[[Graph], Any]:
    def build(g: Graph) -> Any:
        inputs = [g.const(list(y)), g.const(weights(4, 3, 3, 2)), g.input(F, 2, 5, 5, 2)] + ([g.const(weights(4))] if bias else [])
        return g.TRANSPOSE_CONV(*inputs, out=(F, *y), **attributes)
    return build


def resize(operator: str, **attributes: Any) -> Callable[[Graph], Any]:
    return lambda g: getattr(g, operator)(g.input(F, 2, 5, 6, 3), g.const([8, 9]), out=(F, 2, 8, 9, 3), **attributes)


def strided(begin: list, end: list, strides: list, shape: tuple, x: tuple = (4, 5, 6), dtype: str = F, **masks: int) -> Callable[[Graph], Any]:
    return lambda g: g.STRIDED_SLICE(g.input(dtype, *x), g.const(begin), g.const(end), g.const(strides), out=(dtype, *shape), **masks)


def segment(operator: str, dtype: str = F) -> Callable[[Graph], Any]:
    return lambda g: getattr(g, operator)(g.input(dtype, 6, 3), g.const([0, 2, -1, 2, 0, 3]), g.const(np.int32(5)), out=(dtype, 5, 3))


def nms(operator: str) -> Callable[[Graph], Any]:
    def build(g: Graph) -> Any:
        corner = np.random.default_rng(3).uniform(0, 1, (12, 2)).astype(np.float32)
        boxes = np.concatenate([corner, corner + 0.4], 1)
        tail = [g.const(np.float32(0))] if operator.endswith("V5") else []
        outs = [(N, 8), (F, 8), (N,)] if tail else [(N, 8), (N,)]
        return getattr(g, operator)(g.const(boxes), g.input(F, 12), g.const(np.int32(8)), g.const(np.float32(0.3)), g.const(np.float32(-0.5)), *tail, outs=outs)
    return build


def lstm_inputs(g: Graph, n_in: int, n_cell: int, n_out: int, *, coupled: bool, peephole: bool, projection: bool, norm: bool) -> list:
    def gates(count: int, skip_first: bool, *shape: int, seed: int) -> list:
        return [None if skip_first and not gate else g.const(weights(*shape, seed=seed + gate)) for gate in range(count)]
    inputs = gates(4, coupled, n_cell, n_in, seed=10) + gates(4, coupled, n_cell, n_out, seed=20)
    inputs += gates(3, coupled, n_cell, seed=30) if peephole else [None] * 3
    inputs += gates(4, coupled, n_cell, seed=40)
    inputs += [g.const(weights(n_out, n_cell, seed=50)), g.const(weights(n_out, seed=51))] if projection else [None, None]
    return [*inputs, gates(4, coupled, n_cell, seed=60) if norm else []]


def lstm(sequence: bool = True, time_major: bool = False, coupled: bool = False, peephole: bool = False, projection: bool = False, norm: bool = False,
         **attributes: Any) -> Callable[[Graph], Any]:
    def build(g: Graph) -> Any:
        batch, steps, n_in, n_cell = 2, 5, 3, 4
        n_out = 3 if projection else n_cell
        *inputs, norms = lstm_inputs(g, n_in, n_cell, n_out, coupled=coupled, peephole=peephole, projection=projection, norm=norm)
        dims = ((steps, batch) if time_major else (batch, steps)) if sequence else (batch,)
        states = [g.variable(F, batch, n_out), g.variable(F, batch, n_cell)]
        options = {"fused_activation_function": "TANH"} | ({"time_major": int(time_major)} if sequence else {}) | attributes
        operator = g.UNIDIRECTIONAL_SEQUENCE_LSTM if sequence else g.LSTM
        return operator(g.input(F, *dims, n_in), *inputs, *states, *norms, out=(F, *dims, n_out), **options)
    return build


def bidirectional_lstm(merge: bool) -> Callable[[Graph], Any]:
    def build(g: Graph) -> Any:
        forward, backward = (lstm_inputs(g, 3, 4, 4, coupled=False, peephole=False, projection=False, norm=False)[:17] for _ in range(2))
        states = [g.variable(F, 2, 4) for _ in range(4)]
        outs = [(F, 5, 2, 8)] if merge else [(F, 5, 2, 4), (F, 5, 2, 4)]
        return g.BIDIRECTIONAL_SEQUENCE_LSTM(g.input(F, 5, 2, 3), *forward, *backward, *states, *[None] * 9, outs=outs, fused_activation_function="TANH",
                                             merge_outputs=int(merge), time_major=1)
    return build


def rnn(operator: str, dims: tuple, **attributes: Any) -> Callable[[Graph], Any]:
    def build(g: Graph) -> Any:
        return getattr(g, operator)(g.input(F, *dims, 3), g.const(weights(4, 3)), g.const(weights(4, 4)), g.const(weights(4)), g.variable(F, 2, 4),
                                    out=(F, *dims, 4), **attributes)
    return build


def bidirectional_rnn(g: Graph) -> Any:
    cell = [[g.const(weights(4, 3, seed=seed)), g.const(weights(4, 4, seed=seed)), g.const(weights(4)), g.variable(F, 2, 4)] for seed in (1, 2)]
    return g.BIDIRECTIONAL_SEQUENCE_RNN(g.input(F, 2, 5, 3), *cell[0], *cell[1], None, None, None, outs=[(F, 2, 5, 4), (F, 2, 5, 4)],
                                        fused_activation_function="TANH")


def basic_lstm(g: Graph) -> Any:
    inputs = [g.input(F, 2, 3), g.input(F, 2, 4), g.const(weights(16, 7)), g.const(weights(16)), g.input(F, 2, 4)]
    return g.LSTM(*inputs, outs=[(F, 2, 4), (F, 2, 4), (F, 2, 7), (F, 2, 16)], kernel_type="BASIC", fused_activation_function="TANH")[:2]


def svdf(g: Graph) -> Any:
    return g.SVDF(g.input(F, 2, 3), g.const(weights(8, 3)), g.const(weights(8, 5)), g.const(weights(4)), g.variable(F, 2, 40), out=(F, 2, 4), rank=2,
                  fused_activation_function="RELU")


def conditional(g: Graph) -> Any:
    then, other = Graph("then"), Graph("other")
    x, y = then.input(F, 2, 3), other.input(F, 2, 3)
    return g.IF(g.GREATER(g.SUM(g.input(F, 4), g.const([0]), out=(F,)), g.const(np.float32(0)), out=(B,)), g.input(F, 2, 3), outs=[(F, 2, 3), (F, 2, 3)],
                then_branch=then.graph(then.ADD(x, x, out=(F, 2, 3)), x), else_branch=other.graph(y, other.MUL(y, y, out=(F, 2, 3))))


def loop(g: Graph) -> Any:
    cond, body = Graph("cond"), Graph("body")
    i, _ = cond.input(N), cond.input(F, 2, 3)
    j, x = body.input(N), body.input(F, 2, 3)
    return g.WHILE(g.const(np.int32(0)), g.input(F, 2, 3), outs=[(N,), (F, 2, 3)], cond=cond.graph(cond.LESS(i, cond.const(np.int32(4)), out=(B,))),
                   body=body.graph(body.ADD(j, body.const(np.int32(1)), out=(N,)), body.MUL(x, body.const(weights(3)), out=(F, 2, 3))))


def once(g: Graph) -> Any:
    init = Graph("init")
    handle = init.VAR_HANDLE(out=(None,), shared_name="counter")
    init.ASSIGN_VARIABLE(handle, init.const(weights(2, 3)), outs=[])
    g.CALL_ONCE(outs=[], init=init.graph())
    mine = g.VAR_HANDLE(out=(None,), shared_name="counter")
    total = g.ADD(g.READ_VARIABLE(mine, out=(F, 2, 3)), g.input(F, 2, 3), out=(F, 2, 3))
    g.ASSIGN_VARIABLE(mine, total, outs=[])
    return g.MUL(total, total, out=(F, 2, 3))


def table(g: Graph) -> Any:
    init = Graph("init")
    options = {"table_id": 7, "key_dtype": "INT64", "value_dtype": "STRING"}
    init.HASHTABLE_IMPORT(init.HASHTABLE(out=(None, 1), **options), init.const(np.int64([3, 5, 900])), init.const(np.array(["a", "b", "c"], object)), outs=[])
    g.CALL_ONCE(outs=[], init=init.graph())
    handle = g.HASHTABLE(out=(None, 1), **options)
    found = g.HASHTABLE_FIND(handle, g.const(np.int64([5, 4, 900, 3])), g.const(np.array(["?"], object)), out=(S, 4))
    return found, g.HASHTABLE_SIZE(handle, out=(L, 1))


def detection(regular: bool, classes: int) -> Callable[[Graph], Any]:
    def build(g: Graph) -> Any:
        from flatbuffers import flexbuffers
        options = dict(max_detections=6, max_classes_per_detection=classes, detections_per_class=5, use_regular_nms=regular, nms_score_threshold=0.3,
                       nms_iou_threshold=0.4, num_classes=3, y_scale=10.0, x_scale=10.0, h_scale=5.0, w_scale=5.0)
        builder = flexbuffers.Builder()
        with builder.Map():
            for name, value in options.items():
                {bool: builder.Bool, int: builder.Int, float: builder.Float}[type(value)](name, value)
        custom = bytes(builder.Finish())
        generator = np.random.default_rng(9)
        anchors = np.concatenate([generator.uniform(0.2, 0.8, (20, 2)), generator.uniform(0.1, 0.3, (20, 2))], 1).astype(np.float32)
        scores = g.LOGISTIC(g.input(F, 1, 20, 4), out=(F, 1, 20, 4))
        count = 6 * classes
        return g.TFLite_Detection_PostProcess(g.input(F, 1, 20, 4), scores, g.const(anchors), domain="tflite.custom", custom_options=custom,
                                              outs=[(F, 1, count, 4), (F, 1, count), (F, 1, count), (F, 1)])
    return build


def complex_chain(g: Graph) -> Any:
    spectrum = g.RFFT2D(g.input(F, 3, 8, 16), g.const([8, 16]), out=("complex64", 3, 8, 9))
    return tuple(getattr(g, name)(spectrum, out=(F, 3, 8, 9)) for name in ("REAL", "IMAG", "COMPLEX_ABS"))


def dynamic_reshape(g: Graph) -> Any:
    x = g.input(F, None, 4, 6)
    batch = g.STRIDED_SLICE(g.SHAPE(x, out=(N, 3), out_type="INT32"), g.const([0]), g.const([1]), g.const([1]), out=(N,), shrink_axis_mask=1)
    shape = g.PACK(batch, g.const(np.int32(24)), out=(N, 2), values_count=2)
    return g.RESHAPE(x, shape, out=(F, None, 24))


def composite(g: Graph) -> Any:
    inner = Graph("inner")
    x, y = inner.input(F, 2, 3), inner.input(F, 2, 3)
    empty = b"\x00\x00\x01\x00\x00$\x01"                                       # a FlexBuffers map without entries
    return g.STABLEHLO_COMPOSITE(g.input(F, 2, 3), g.input(F, 2, 3), out=(F, 2, 3), name="my.sum", composite_attributes=empty,
                                 decomposition=inner.graph(inner.ADD(x, y, out=(F, 2, 3))))


def branches(g: Graph) -> Any:
    graphs = []
    for number in range(3):
        inner = Graph(f"case{number}")
        x = inner.input(F, 2, 3)
        graphs.append(inner.graph(inner.MUL(x, inner.const(np.float32(number + 2)), out=(F, 2, 3))))
    return g.STABLEHLO_CASE(g.const(np.int32(1)), g.input(F, 2, 3), out=(F, 2, 3), branches=graphs)


def sparse_embedding(combiner: str) -> Callable[[Graph], Any]:
    return lambda g: g.EMBEDDING_LOOKUP_SPARSE(g.const([3, 0, 2, 2]), g.const(np.int32([[0, 0], [0, 2], [2, 0], [2, 1]])), g.const([4, 3]), g.input(F, 4),
                                               g.const(weights(5, 6)), out=(F, 4, 6), combiner=combiner)


def windowed(target: str, dtype: str = F) -> Callable[[Graph], Any]:
    def build(g: Graph) -> Any:
        body = Graph("body")
        x, y = body.input(dtype), body.input(dtype)
        inner = body.graph(getattr(body, target)(x, y, out=(dtype,)))
        return g.STABLEHLO_REDUCE_WINDOW(g.input(dtype, 5, 7), g.const(np.zeros((), np.dtype(dtype))), out=(dtype, 6, 4), body=inner, window_dimensions=[2, 3],
                                         window_strides=[1, 2], base_dilations=[1, 1], window_dilations=[2, 1], padding=[1, 2, 1, 1])
    return build


def gathered(g: Graph) -> Any:
    return g.STABLEHLO_GATHER(g.input(F, 3, 4, 2), g.const(np.int64([[[0, 0], [1, 0], [2, 1]], [[0, 1], [1, 1], [0, 9]]])), out=(F, 2, 3, 2, 2),
                              offset_dims=[2, 3], collapsed_slice_dims=[0], start_index_map=[1, 0], index_vector_dim=2, slice_sizes=[1, 2, 2])


def scattered(target: str) -> Callable[[Graph], Any]:
    def build(g: Graph) -> Any:
        body = Graph("body")
        x, y = body.input(F), body.input(F)
        inner = body.graph(getattr(body, target)(x, y, out=(F,))) if target else body.graph(y)
        return g.STABLEHLO_SCATTER(g.input(F, 3, 4, 2), g.const(np.int64([[[0, 2], [1, 0], [2, 1]], [[0, 1], [1, 0], [0, 2]]])), g.input(F, 2, 3, 2, 2),
                                   out=(F, 3, 4, 2), update_window_dims=[2, 3], inserted_window_dims=[0], scatter_dims_to_operand_dims=[1, 0],
                                   index_vector_dim=2, update_computation=inner)
    return build


def nested(g: Graph) -> Any:
    """An IF inside the body of a WHILE, which counts to five and halves or doubles on the way."""
    cond, body, then, other = Graph("cond"), Graph("body"), Graph("then"), Graph("other")
    i, _ = cond.input(N), cond.input(F, 3)
    j, x = body.input(N), body.input(F, 3)
    y, z = then.input(F, 3), other.input(F, 3)
    chosen = body.IF(body.LESS(j, body.const(np.int32(2)), out=(B,)), x, out=(F, 3),
                     then_branch=then.graph(then.MUL(y, then.const(np.float32(2)), out=(F, 3))),
                     else_branch=other.graph(other.MUL(z, other.const(np.float32(0.5)), out=(F, 3))))
    return g.WHILE(g.const(np.int32(0)), g.input(F, 3), outs=[(N,), (F, 3)], cond=cond.graph(cond.LESS(i, cond.const(np.int32(5)), out=(B,))),
                   body=body.graph(body.ADD(j, body.const(np.int32(1)), out=(N,)), chosen))


ROWS: dict[str, Case] = {name: case if isinstance(case, Case) else Case(case) for name, case in {
    **{name: unary(name) for name in ("ABS", "FLOOR", "CEIL", "ROUND", "NEG", "SIN", "COS", "EXP", "RELU", "RELU6", "RELU_N1_TO_1", "RELU_0_TO_1", "ELU",
        "TANH",
                                      "LOGISTIC", "HARD_SWISH", "SQUARE", "SIGN", "ZEROS_LIKE", "LOG_SOFTMAX", "L2_NORMALIZATION")},
    **{name: Case(unary(name), low=0.1, high=3) for name in ("LOG", "SQRT", "RSQRT")},
    **{f"{name}:int": unary(name, N) for name in ("ABS", "NEG", "SIGN")},
    "LEAKY_RELU": unary("LEAKY_RELU", alpha=0.2), "GELU": Case(unary("GELU"), tolerance=2e-6), "GELU:tanh": Case(unary("GELU", approximate=1), tolerance=1e-5),
    "SOFTMAX": unary("SOFTMAX", beta=1.0), "SOFTMAX:beta": unary("SOFTMAX", beta=0.5),
    **{name: binary(name) for name in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE")},
    **{f"{name}:int": binary(name, N) for name in ("ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM", "SQUARED_DIFFERENCE")},
    **{f"{name}:long": binary(name, L) for name in ("ADD", "SUB", "MUL")},
    "MAXIMUM:int8": binary("MAXIMUM", "int8"), "MINIMUM:int16": binary("MINIMUM", "int16"), "ADD:int16": binary("ADD", "int16", right=(2, 3, 4)),
    "ADD:relu": binary("ADD", fused_activation_function="RELU"), "MUL:relu6": binary("MUL", fused_activation_function="RELU6"),
    "SUB:clip": binary("SUB", fused_activation_function="RELU_N1_TO_1"),
    "DIV": Case(binary("DIV"), low=0.5, high=3), "DIV:int": lambda g: g.DIV(g.input(N, 3, 4), g.const(np.int32([3, -2, 7, -5])), out=(N, 3, 4)),
    "POW": Case(binary("POW"), low=0.1, high=2), "ATAN2": binary("ATAN2", right=(2, 3, 4)),
    "FLOOR_DIV": Case(binary("FLOOR_DIV"), low=-3, high=3), "FLOOR_MOD": Case(binary("FLOOR_MOD"), low=-3, high=3),
    "FLOOR_DIV:int": lambda g: g.FLOOR_DIV(g.input(N, 3, 4), g.const(np.int32([3, -2, 7, -5])), out=(N, 3, 4)),
    "FLOOR_MOD:int": lambda g: g.FLOOR_MOD(g.input(N, 3, 4), g.const(np.int32([3, -2, 7, -5])), out=(N, 3, 4)),
    **{name: binary(name, out=B) for name in ("EQUAL", "NOT_EQUAL", "GREATER", "GREATER_EQUAL", "LESS", "LESS_EQUAL")},
    **{f"{name}:int": binary(name, N, B) for name in ("EQUAL", "NOT_EQUAL", "GREATER", "LESS")},
    "EQUAL:bool": binary("EQUAL", B, B), "LOGICAL_AND": binary("LOGICAL_AND", B), "LOGICAL_OR": binary("LOGICAL_OR", B), "LOGICAL_NOT": unary("LOGICAL_NOT", B),
    "BITWISE_XOR": binary("BITWISE_XOR", N), "RIGHT_SHIFT": lambda g: g.RIGHT_SHIFT(g.input(N, 3, 4), g.const(np.int32([0, 1, 3, 9])), out=(N, 3, 4)),
    "ADD_N": lambda g: g.ADD_N(g.input(F, 2, 3), g.input(F, 2, 3), g.input(F, 2, 3), out=(F, 2, 3)),
    "PRELU": lambda g: g.PRELU(g.input(F, 2, 4, 4, 3), g.const(weights(1, 1, 3)), out=(F, 2, 4, 4, 3)),
    "SELECT": lambda g: g.SELECT(g.input(B, 2, 3), g.input(F, 2, 3), g.input(F, 2, 3), out=(F, 2, 3)),
    "SELECT:rows": lambda g: g.SELECT(g.input(B, 4), g.input(F, 4, 3), g.input(F, 4, 3), out=(F, 4, 3)),
    "SELECT_V2": lambda g: g.SELECT_V2(g.input(B, 2, 3), g.input(F, 3), g.input(F, 2, 1), out=(F, 2, 3)),
    "CAST": lambda g: g.CAST(g.input(F, 2, 3), out=(N, 2, 3)), "CAST:bool": lambda g: g.CAST(g.input(N, 2, 3), out=(B, 2, 3)),
    "CAST:float": lambda g: g.CAST(g.input("uint8", 2, 3), out=(F, 2, 3)),
    "CAST:half": Case(lambda g: g.CAST(g.CAST(g.input(F, 2, 3), out=("float16", 2, 3)), out=(F, 2, 3))),
    "BITCAST": lambda g: g.BITCAST(g.input(F, 2, 3), out=(N, 2, 3)),
    "CUMSUM": Case(lambda g: g.CUMSUM(g.input(F, 2, 3, 4), g.const(np.int32(1)), out=(F, 2, 3, 4))),
    "CUMSUM:backwards": Case(lambda g: g.CUMSUM(g.input(F, 2, 3, 4), g.const(np.int32(-1)), out=(F, 2, 3, 4), exclusive=1, reverse=1)),
    "BUCKETIZE": lambda g: g.BUCKETIZE(g.input(F, 20), out=(N, 20), boundaries=[-1.0, 0.25, 1.5]),
    "FAKE_QUANT": Case(unary("FAKE_QUANT", min=-1.3, max=1.1, num_bits=8), tolerance=1e-5),
    "CONV_2D": conv((2, 8, 9, 3), (4, 3, 3, 3), (2, 6, 7, 4), padding="VALID"),
    "CONV_2D:same": conv((2, 8, 9, 3), (4, 3, 2, 3), (2, 4, 5, 4), stride_w=2, stride_h=2, fused_activation_function="RELU"),
    "CONV_2D:dilated": conv((2, 9, 9, 3), (4, 3, 3, 3), (2, 9, 9, 4), dilation_w_factor=2, dilation_h_factor=3),
    "CONV_2D:groups": conv((2, 5, 5, 6), (4, 3, 3, 3), (2, 5, 5, 4)),
    "CONV_2D:dynamic": conv((None, 8, 9, 3), (4, 3, 3, 3), (None, 8, 9, 4), fused_activation_function="RELU6"),
    "CONV_2D:computed": Case(lambda g: g.CONV_2D(g.input(F, 1, 5, 5, 2), g.input(F, 3, 2, 2, 2), g.input(F, 3), out=(F, 1, 4, 4, 3), padding="VALID",
        stride_w=1, stride_h=1)),
    "CONV_2D:sizes": conv((None, None, None, 3), (4, 3, 3, 3), (None, None, None, 4), stride_w=2, stride_h=2),
    "MAX_POOL_2D:sizes": lambda g: g.MAX_POOL_2D(g.input(F, None, None, None, 3), out=(F, None, None, None, 3), stride_w=2, stride_h=2, filter_width=2,
                                                 filter_height=2),
    "RESIZE_BILINEAR:batch": lambda g: g.RESIZE_BILINEAR(g.input(F, None, 5, 6, 3), g.const([8, 9]), out=(F, None, 8, 9, 3), half_pixel_centers=1),
    "FULLY_CONNECTED:batch": lambda g: g.FULLY_CONNECTED(g.input(F, None, 3, 5), g.const(weights(4, 15)), None, out=(F, None, 4)),
    "WHILE:nested": nested,
    "DEPTHWISE_CONV_2D": depthwise((2, 8, 9, 3), (1, 3, 3, 3), (2, 4, 5, 3), stride_w=2, stride_h=2),
    "DEPTHWISE_CONV_2D:multiplier": depthwise((2, 7, 7, 3), (1, 3, 3, 6), (2, 5, 5, 6), padding="VALID", fused_activation_function="RELU6"),
    "DEPTHWISE_CONV_2D:dilated": depthwise((1, 9, 9, 2), (1, 3, 3, 2), (1, 9, 9, 2), dilation_w_factor=2, dilation_h_factor=2),
    "CONV_3D": lambda g: g.CONV_3D(g.input(F, 2, 5, 6, 7, 2), g.const(weights(2, 3, 3, 2, 4)), g.const(weights(4)), out=(F, 2, 3, 3, 4, 4), stride_d=2,
        stride_w=2,
                                   stride_h=2),
    "CONV_3D_TRANSPOSE": lambda g: g.CONV_3D_TRANSPOSE(g.const([1, 6, 8, 10, 3]), g.const(weights(2, 3, 3, 3, 2)), g.input(F, 1, 3, 4, 5, 2),
                                                       out=(F, 1, 6, 8, 10, 3), stride_d=2, stride_w=2, stride_h=2),
    "TRANSPOSE_CONV": transpose_conv((2, 10, 10, 4), stride_w=2, stride_h=2),
    "TRANSPOSE_CONV:valid": transpose_conv((2, 11, 11, 4), stride_w=2, stride_h=2, padding="VALID"),
    "TRANSPOSE_CONV:odd": transpose_conv((2, 9, 9, 4), stride_w=2, stride_h=2, bias=False),
    "TRANSPOSE_CONV:one": transpose_conv((2, 5, 5, 4), stride_w=1, stride_h=1),
    "TRANSPOSE_CONV:extra": transpose_conv((2, 12, 12, 4), stride_w=2, stride_h=2, padding="VALID"),
    "AVERAGE_POOL_2D": pool("AVERAGE_POOL_2D", "SAME", (2, 4, 3, 3)), "AVERAGE_POOL_2D:valid": pool("AVERAGE_POOL_2D", "VALID", (2, 3, 2, 3), "RELU"),
    "MAX_POOL_2D": pool("MAX_POOL_2D", "SAME", (2, 4, 3, 3)), "MAX_POOL_2D:valid": pool("MAX_POOL_2D", "VALID", (2, 3, 2, 3), "RELU6"),
    "L2_POOL_2D": pool("L2_POOL_2D", "SAME", (2, 4, 3, 3)),
    "FULLY_CONNECTED": lambda g: g.FULLY_CONNECTED(g.input(F, 2, 5), g.const(weights(3, 5)), g.const(weights(3)), out=(F, 2, 3),
        fused_activation_function="RELU"),
    "FULLY_CONNECTED:flattened": lambda g: g.FULLY_CONNECTED(g.input(F, 2, 3, 5), g.const(weights(4, 5)), None, out=(F, 6, 4)),
    "FULLY_CONNECTED:kept": lambda g: g.FULLY_CONNECTED(g.input(F, 2, 3, 5), g.const(weights(4, 5)), g.const(weights(4)), out=(F, 2, 3, 4), keep_num_dims=1),
    "BATCH_MATMUL": lambda g: g.BATCH_MATMUL(g.input(F, 2, 3, 4), g.input(F, 2, 4, 5), out=(F, 2, 3, 5)),
    "BATCH_MATMUL:turned": lambda g: g.BATCH_MATMUL(g.input(F, 2, 4, 3), g.input(F, 5, 4), out=(F, 2, 3, 5), adj_x=1, adj_y=1),
    "LOCAL_RESPONSE_NORMALIZATION": unary("LOCAL_RESPONSE_NORMALIZATION", shape=(2, 3, 4, 8), radius=2, bias=1.5, alpha=0.7, beta=0.6),
    "RESIZE_BILINEAR": resize("RESIZE_BILINEAR"), "RESIZE_BILINEAR:corners": resize("RESIZE_BILINEAR", align_corners=1),
    "RESIZE_BILINEAR:half": resize("RESIZE_BILINEAR", half_pixel_centers=1), "RESIZE_NEAREST_NEIGHBOR": resize("RESIZE_NEAREST_NEIGHBOR"),
    "RESIZE_NEAREST_NEIGHBOR:corners": resize("RESIZE_NEAREST_NEIGHBOR", align_corners=1),
    "RESIZE_NEAREST_NEIGHBOR:half": resize("RESIZE_NEAREST_NEIGHBOR", half_pixel_centers=1),
    "SPACE_TO_DEPTH": lambda g: g.SPACE_TO_DEPTH(g.input(F, 2, 4, 6, 3), out=(F, 2, 2, 3, 12), block_size=2),
    "DEPTH_TO_SPACE": lambda g: g.DEPTH_TO_SPACE(g.input(F, 2, 2, 3, 12), out=(F, 2, 4, 6, 3), block_size=2),
    "SPACE_TO_BATCH_ND": lambda g: g.SPACE_TO_BATCH_ND(g.input(F, 2, 4, 5, 3), g.const([2, 3]), g.const(np.int32([[0, 2], [1, 0]])), out=(F, 12, 3, 2, 3)),
    "SPACE_TO_BATCH_ND:dynamic": lambda g: g.SPACE_TO_BATCH_ND(g.input(F, None, 4, 3), g.const([2]), g.const(np.int32([[0, 2]])), out=(F, None, 3, 3)),
    "BATCH_TO_SPACE_ND": lambda g: g.BATCH_TO_SPACE_ND(g.input(F, 12, 3, 2, 3), g.const([2, 3]), g.const(np.int32([[0, 2], [1, 0]])), out=(F, 2, 4, 5, 3)),
    "BATCH_TO_SPACE_ND:dynamic": lambda g: g.BATCH_TO_SPACE_ND(g.input(F, None, 3, 3), g.const([2]), g.const(np.int32([[0, 0]])), out=(F, None, 6, 3)),
    **{name: reduction(name) for name in ("SUM", "MEAN", "REDUCE_PROD", "REDUCE_MAX", "REDUCE_MIN")},
    "SUM:kept": reduction("SUM", keep=True), "SUM:int": reduction("SUM", N), "MEAN:int": Case(reduction("MEAN", N), kernels="reference"),
    "REDUCE_MAX:int": reduction("REDUCE_MAX", N), "REDUCE_ANY": reduction("REDUCE_ANY", B), "REDUCE_ALL": reduction("REDUCE_ALL", B, keep=True),
    "MEAN:dynamic": lambda g: g.MEAN(g.input(F, None, 3, 4), g.const([1]), out=(F, None, 4)),
    "ARG_MAX": lambda g: g.ARG_MAX(g.input(F, 2, 5, 3), g.const(np.int32(1)), out=(L, 2, 3), output_type="INT64"),
    "ARG_MIN": lambda g: g.ARG_MIN(g.input(N, 2, 5, 3), g.const(np.int32(-1)), out=(N, 2, 5), output_type="INT32"),
    "TOPK_V2": lambda g: g.TOPK_V2(g.input(F, 3, 9), g.const(np.int32(4)), outs=[(F, 3, 4), (N, 3, 4)]),
    "UNIQUE": lambda g: g.UNIQUE(g.const(np.int32([4, 1, 4, 9, 1, 0])), outs=[(N, None), (N, 6)]),
    "RESHAPE": lambda g: g.RESHAPE(g.input(F, 2, 6), g.const([3, -1]), out=(F, 3, 4)),
    "RESHAPE:option": lambda g: g.RESHAPE(g.input(F, 2, 6), out=(F, 4, 3), new_shape=[4, 3]),
    "RESHAPE:dynamic": dynamic_reshape, "TRANSPOSE": lambda g: g.TRANSPOSE(g.input(F, 2, 3, 4), g.const([2, 0, 1]), out=(F, 4, 2, 3)),
    "SQUEEZE": lambda g: g.SQUEEZE(g.input(F, 1, 3, 1, 4), out=(F, 3, 1, 4), squeeze_dims=[0]),
    "SQUEEZE:all": lambda g: g.SQUEEZE(g.input(F, 1, 3, 1, 4), out=(F, 3, 4)),
    "EXPAND_DIMS": lambda g: g.EXPAND_DIMS(g.input(F, 3, 4), g.const(np.int32(-2)), out=(F, 3, 1, 4)),
    "PACK": lambda g: g.PACK(g.input(F, 3, 4), g.input(F, 3, 4), out=(F, 3, 2, 4), values_count=2, axis=1),
    "UNPACK": lambda g: g.UNPACK(g.input(F, 3, 2, 4), outs=[(F, 3, 4), (F, 3, 4)], num=2, axis=-2),
    "UNPACK:one": lambda g: g.UNPACK(g.input(F, 1, 4), out=(F, 4), num=1),
    "CONCATENATION": lambda g: g.CONCATENATION(g.input(F, 3, 2), g.input(F, 3, 4), out=(F, 3, 6), axis=-1),
    "SPLIT": lambda g: g.SPLIT(g.const(np.int32(1)), g.input(F, 3, 6), outs=[(F, 3, 2)] * 3, num_splits=3),
    "SPLIT_V": lambda g: g.SPLIT_V(g.input(F, 3, 6), g.const([1, 3, 2]), g.const(np.int32(1)), outs=[(F, 3, 1), (F, 3, 3), (F, 3, 2)], num_splits=3),
    "TILE": lambda g: g.TILE(g.input(F, 2, 3), g.const([2, 3]), out=(F, 4, 9)),
    "BROADCAST_TO": lambda g: g.BROADCAST_TO(g.input(F, 3, 1), g.const([2, 3, 4]), out=(F, 2, 3, 4)),
    "BROADCAST_ARGS": lambda g: g.BROADCAST_ARGS(g.const([3, 1]), g.const([2, 1, 4]), out=(N, 3)),
    "FILL": lambda g: g.FILL(g.const([2, 3]), g.input(F), out=(F, 2, 3)),
    "RANGE": lambda g: g.RANGE(g.const(np.int32(2)), g.const(np.int32(11)), g.const(np.int32(3)), out=(N, 3)),
    "RANGE:float": lambda g: g.RANGE(g.const(np.float32(1)), g.const(np.float32(-1)), g.const(np.float32(-0.5)), out=(F, 4)),
    "SHAPE": lambda g: g.SHAPE(g.input(F, None, 3), out=(L, 2), out_type="INT64"), "RANK": lambda g: g.RANK(g.input(F, 2, 3, 1), out=(N,)),
    "PAD": lambda g: g.PAD(g.input(F, 2, 3), g.const(np.int32([[1, 0], [2, 1]])), out=(F, 3, 6)),
    "PAD:int": lambda g: g.PAD(g.input(N, 2, 3), g.const(np.int32([[1, 0], [2, 1]])), out=(N, 3, 6)),
    "PADV2": lambda g: g.PADV2(g.input(F, 2, 3), g.const(np.int32([[1, 0], [2, 1]])), g.const(np.float32(1.5)), out=(F, 3, 6)),
    "MIRROR_PAD": lambda g: g.MIRROR_PAD(g.input(F, 4, 5), g.const(np.int32([[1, 2], [3, 0]])), out=(F, 7, 8)),
    "MIRROR_PAD:symmetric": lambda g: g.MIRROR_PAD(g.input(F, 4, 5), g.const(np.int32([[1, 4], [3, 0]])), out=(F, 9, 8), mode="SYMMETRIC"),
    "SLICE": lambda g: g.SLICE(g.input(F, 4, 5, 6), g.const([1, 0, 2]), g.const([2, -1, 3]), out=(F, 2, 5, 3)),
    "STRIDED_SLICE": strided([1, 0, -3], [3, 5, -1], [1, 2, 1], (2, 3, 2)),
    "STRIDED_SLICE:backwards": strided([3, 4], [0, 0], [-1, -2], (4, 3, 6), begin_mask=3, end_mask=3),
    "STRIDED_SLICE:shrink": strided([-1, 1], [0, 3], [1, 1], (2, 6), shrink_axis_mask=1),
    "STRIDED_SLICE:new": strided([0, 0, 1], [0, 0, 3], [1, 1, 1], (1, 4, 5, 2), new_axis_mask=1, ellipsis_mask=2),
    "STRIDED_SLICE:ellipsis": strided([0, 2], [0, 3], [1, 1], (4, 5), ellipsis_mask=1, shrink_axis_mask=2),
    "STRIDED_SLICE:ints": strided([1], [3], [1], (2, 5, 6), dtype=N),
    "REVERSE_V2": lambda g: g.REVERSE_V2(g.input(F, 2, 3, 4), g.const([1]), out=(F, 2, 3, 4)),
    "REVERSE_SEQUENCE": lambda g: g.REVERSE_SEQUENCE(g.input(F, 3, 2, 5), g.const(np.int32([2, 5, 1])), out=(F, 3, 2, 5), seq_dim=2, batch_dim=0),
    "GATHER": lambda g: g.GATHER(g.input(F, 4, 5, 6), g.const([[2, 0], [1, 1]]), out=(F, 4, 2, 2, 6), axis=1),
    "GATHER:batch": lambda g: g.GATHER(g.input(F, 3, 4, 5), g.const(np.int32([[2, 0], [1, 1], [3, 2]])), out=(F, 3, 2, 5), axis=1, batch_dims=1),
    "GATHER:between": lambda g: g.GATHER(g.input(F, 3, 4, 5), g.const(np.int32([[2, 0], [1, 1], [3, 2]])), out=(F, 3, 4, 2), axis=2, batch_dims=1),
    "GATHER_ND": lambda g: g.GATHER_ND(g.input(F, 4, 5, 6), g.const(np.int32([[2, 0], [1, 4]])), out=(F, 2, 6)),
    "SCATTER_ND": lambda g: g.SCATTER_ND(g.const(np.int32([[4], [1], [4]])), g.input(F, 3, 2), g.const([6, 2]), out=(F, 6, 2)),
    "SPARSE_TO_DENSE": lambda g: g.SPARSE_TO_DENSE(g.const(np.int32([[0, 1], [2, 3]])), g.const([3, 4]), g.input(F, 2), g.const(np.float32(-1)), out=(F, 3, 4)),
    "SPARSE_TO_DENSE:list": lambda g: g.SPARSE_TO_DENSE(g.const([1, 3]), g.const([5]), g.input(F), g.const(np.float32(0)), out=(F, 5)),
    "DYNAMIC_UPDATE_SLICE": lambda g: g.DYNAMIC_UPDATE_SLICE(g.input(F, 4, 5), g.input(F, 2, 3), g.const([3, 1]), out=(F, 4, 5)),
    "ONE_HOT": lambda g: g.ONE_HOT(g.const(np.int32([[0, 2], [-1, 5]])), g.const(np.int32(4)), g.const(np.float32(2)), g.const(np.float32(-1)), out=(F, 2,
        2, 4), axis=-1),
    "WHERE": lambda g: g.WHERE(g.const(np.array([[True, False], [True, True]])), out=(L, None, 2)),
    "MATRIX_DIAG": lambda g: g.MATRIX_DIAG(g.input(F, 2, 3), out=(F, 2, 3, 3)),
    "MATRIX_SET_DIAG": lambda g: g.MATRIX_SET_DIAG(g.input(F, 2, 4, 3), g.input(F, 2, 3), out=(F, 2, 4, 3)),
    "MATRIX_SET_DIAG:wide": lambda g: g.MATRIX_SET_DIAG(g.input(F, 2, 3, 5), g.input(F, 2, 3), out=(F, 2, 3, 5)),
    "EMBEDDING_LOOKUP": lambda g: g.EMBEDDING_LOOKUP(g.const([2, 0, 2]), g.const(weights(4, 5)), out=(F, 3, 5)),
    "SEGMENT_SUM": lambda g: g.SEGMENT_SUM(g.input(F, 5, 3), g.const([0, 0, 1, 2, 3]), out=(F, 4, 3)),
    **{f"UNSORTED_SEGMENT_{name}": segment(f"UNSORTED_SEGMENT_{name}") for name in ("SUM", "PROD", "MAX", "MIN")},
    "UNSORTED_SEGMENT_MAX:int": segment("UNSORTED_SEGMENT_MAX", N),
    "NON_MAX_SUPPRESSION_V4": nms("NON_MAX_SUPPRESSION_V4"), "NON_MAX_SUPPRESSION_V5": nms("NON_MAX_SUPPRESSION_V5"),
    "TFLite_Detection_PostProcess": Case(detection(False, 1), tolerance=1e-5),
    "TFLite_Detection_PostProcess:classes": Case(detection(False, 2), tolerance=1e-5),
    "TFLite_Detection_PostProcess:regular": Case(detection(True, 1), tolerance=1e-5),
    "RFFT2D": Case(complex_chain, tolerance=1e-5),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": lstm(), "UNIDIRECTIONAL_SEQUENCE_LSTM:time": lstm(time_major=True),
    "UNIDIRECTIONAL_SEQUENCE_LSTM:peephole": lstm(peephole=True),
    "UNIDIRECTIONAL_SEQUENCE_LSTM:keras": lstm(cell_clip=10.0),
    "UNIDIRECTIONAL_SEQUENCE_LSTM:coupled": lstm(coupled=True), "UNIDIRECTIONAL_SEQUENCE_LSTM:projection": lstm(projection=True, cell_clip=0.5, proj_clip=0.4),
    "UNIDIRECTIONAL_SEQUENCE_LSTM:norm": Case(lstm(norm=True, time_major=True), tolerance=1e-5), "LSTM": lstm(sequence=False), "LSTM:basic": basic_lstm,
    "BIDIRECTIONAL_SEQUENCE_LSTM": bidirectional_lstm(False), "BIDIRECTIONAL_SEQUENCE_LSTM:merged": bidirectional_lstm(True),
    "RNN": rnn("RNN", (2,), fused_activation_function="RELU"),
    "UNIDIRECTIONAL_SEQUENCE_RNN": rnn("UNIDIRECTIONAL_SEQUENCE_RNN", (2, 5), fused_activation_function="TANH"),
    "UNIDIRECTIONAL_SEQUENCE_RNN:clip": rnn("UNIDIRECTIONAL_SEQUENCE_RNN", (5, 2), fused_activation_function="RELU6", time_major=1),
    "BIDIRECTIONAL_SEQUENCE_RNN": bidirectional_rnn, "SVDF": svdf, "IF": conditional, "WHILE": loop, "CALL_ONCE": once, "HASHTABLE": table,
    "STABLEHLO_COMPOSITE": composite, "STABLEHLO_CASE": branches,
    **{f"STABLEHLO_{name}": binary(f"STABLEHLO_{name}", right=(2, 3, 4)) for name in ("ADD", "MULTIPLY", "MAXIMUM", "MINIMUM")},
    "STABLEHLO_SHIFT_LEFT": lambda g: g.STABLEHLO_SHIFT_LEFT(g.input(N, 3, 4), g.const(np.tile(np.int32([0, 1, 3, 9]), (3, 1))), out=(N, 3, 4)),
    **{f"EMBEDDING_LOOKUP_SPARSE:{name}": sparse_embedding(name) for name in ("SUM", "MEAN", "SQRTN")},
    "HASHTABLE_LOOKUP": lambda g: g.HASHTABLE_LOOKUP(g.const([7, 2, 30]), g.const([2, 5, 7]), g.input(F, 3, 4), outs=[(F, 3, 4), ("uint8", 3)]),
    "STABLEHLO_REDUCE_WINDOW": windowed("ADD"), "STABLEHLO_REDUCE_WINDOW:max": windowed("MAXIMUM"), "STABLEHLO_REDUCE_WINDOW:int": windowed("MINIMUM", N),
    "REDUCE_WINDOW": lambda g: g.REDUCE_WINDOW(g.input(F, 5, 7), g.const(np.float32(0)), g.const(np.int64([2, 3])), g.const(np.int64([1, 2])),
                                               g.const(np.int64([2, 1])), out=(F, 3, 3), reduce_function="ADD"),
    "STABLEHLO_GATHER": gathered, "STABLEHLO_SCATTER": scattered("STABLEHLO_ADD"), "STABLEHLO_SCATTER:update": scattered(""),
    "STABLEHLO_PAD": lambda g: g.STABLEHLO_PAD(g.input(F, 3, 4), g.const(np.float32(9)), out=(F, 6, 10), edge_padding_low=[1, -1], edge_padding_high=[0, 1],
                                               interior_padding=[1, 2]),
    "DILATE": lambda g: g.DILATE(g.input(F, 3, 4), g.const([2, 3]), g.const(np.float32(7)), out=(F, 5, 10)),
}.items()}


def both(g: Graph, outputs: Any, folder: Path, seed: int, case: Case) -> tuple[list[np.ndarray], list[np.ndarray], Any]:
    """The outputs of LiteRT and of ONNX Runtime for the same inputs, and the ONNX model."""
    outputs = outputs if isinstance(outputs, tuple) else (outputs,)
    path = g.save(folder / "model.tflite", *outputs)
    feeds = {value.name: running.random_array("object" if value.dtype == ir.DataType.STRING else value.dtype.numpy().name,
                                              tuple(dim if isinstance(dim, int) else None for dim in value.shape), seed + place, case.low, case.high)
             for place, value in enumerate(g.inputs)}
    _, expected = running.run(path, feeds, kernels=case.kernels)
    model = to_hub(read(path))
    ir.save(model.ir, folder / "model.onnx")
    _, found = running.run(folder / "model.onnx", feeds)
    return list(expected.values()), [found[value.name] for value in model.graph.outputs][:len(expected)], model


@needs_litert
@pytest.mark.parametrize("name", ROWS)
def test_operator_computes_the_same(name, tmp_path):
    case = ROWS[name]
    for seed in (1, 2):
        g = Graph()
        expected, found, model = both(g, case.build(g), tmp_path, seed, case)
        assert not [finding.message for finding in model.findings if finding.code == "operator.kept"]
        assert len(expected) == len(found)
        for want, have in zip(expected, found, strict=True):
            assert want.shape == have.shape
            if want.dtype.kind in "biuOSU":
                assert want.dtype.kind in "OSU" or want.dtype == have.dtype
                assert [str(x) for x in want.ravel().tolist()] == [str(x) for x in have.ravel().tolist()]
            else:
                scale = max(np.ptp(want), np.abs(want).max(), 1e-30) if want.size else 1
                assert np.abs(want - have).max(initial=0) <= case.tolerance * scale


def test_every_mapped_operator_has_a_row():
    tested = {name.partition(":")[0] for name in ROWS} | {"DEQUANTIZE", "QUANTIZE", "DENSIFY"}               # by the quantised and the real models
    tested |= {"REAL", "IMAG", "COMPLEX_ABS"}                                                                # in the row of RFFT2D
    tested |= {"RANDOM_UNIFORM", "RANDOM_STANDARD_NORMAL", "MULTINOMIAL"}                                    # in a test of their own
    tested |= {"ROUND_INPUT"}                                                                                # ours, in the hybrid rows and models
    untestable = {"STABLEHLO_AND", "STABLEHLO_WHILE", "CALL"}                                                # no kernel of LiteRT takes them from a file
    assert {name for _, name in to_onnx.rules} - tested - untestable == set()


def test_random_numbers_have_the_same_distribution(tmp_path):
    g = Graph()
    shape = g.const([4000])
    outputs = (g.RANDOM_UNIFORM(shape, out=(F, 4000), seed=3), g.RANDOM_STANDARD_NORMAL(shape, out=(F, 4000), seed=3),
               g.MULTINOMIAL(g.const(np.log(np.float32([[0.25, 0.75]]))), g.const(np.int32(4000)), out=(L, 1, 4000), seed=3))
    model = to_hub(read(g.save(tmp_path / "model.tflite", *outputs)))
    onnx.write(model, tmp_path / "model.onnx", opset=21)                        # ONNX Runtime 1.31 has no generators of later opsets
    uniform, normal, chosen = running.run(tmp_path / "model.onnx", {})[1].values()
    assert {finding.code for finding in model.findings} == {"values.random"}
    assert abs(uniform.mean() - 0.5) < 0.05
    assert 0 <= uniform.min() < uniform.max() < 1
    assert abs(normal.std() - 1) < 0.1
    assert abs(chosen.mean() - 0.75) < 0.05


def test_operators_without_an_onnx_form_stay(tmp_path):
    g = Graph()
    x = g.ABS(g.input(F, 2, 3), out=(F, 2, 3))
    y = g.LSH_PROJECTION(g.const(weights(2, 3)), x, out=(N, 6), type="SPARSE")
    z = g.Mystery(x, out=(F, 2, 3), domain="tflite.custom", custom_options=b"abc")
    model = to_hub(read(g.save(tmp_path / "model.tflite", y, z)))
    assert [(node.domain, node.op_type) for node in model.graph] == [("", "Abs"), ("tflite", "LSH_PROJECTION"), ("tflite.custom", "Mystery")]
    assert [finding.code for finding in model.findings] == ["operator.kept", "operator.kept"]
    assert model.graph.node(2).attributes["custom_options"].value == b"abc"


@needs_litert
def test_a_state_goes_on_where_it_ended(tmp_path):
    """Two runs in LiteRT, which keeps the state, and two in ONNX Runtime, which is fed the last one."""
    g = Graph()
    y = lstm()(g)
    path = g.save(tmp_path / "model.tflite", y)
    model = to_hub(read(path))
    ir.save(model.ir, tmp_path / "model.onnx")
    x = running.random_array("float32", (2, 5, 3), 4)
    states = [value.name for value in model.graph.inputs[1:]]
    assert [finding.code for finding in model.findings] == ["tflite.state", "tflite.state"]
    feeds, _ = running.run(path, {model.graph.inputs[0].name: x})
    again = running.once_more(path, feeds)
    first = running.run(tmp_path / "model.onnx", feeds)[1]
    import onnxruntime
    session = onnxruntime.InferenceSession(str(tmp_path / "model.onnx"))
    second = session.run(None, feeds | dict(zip(states, list(first.values())[1:], strict=True)))
    assert np.abs(second[0] - next(iter(again.values()))).max() < 1e-6
    assert np.abs(second[0] - next(iter(first.values()))).max() > 1e-3


@needs_litert
@pytest.mark.parametrize("name", real_models())
def test_real_models_compute_the_same(name, tmp_path):
    """Floats within 1e-5 of the range. 99.9 % of integers within one quantum of LiteRT's kernels: of the default or the reference ones, which on
    MobileNet v2 differ from each other in 0.3 % of the outputs (the reference rounds twice) while ONNX Runtime agrees with the default in every one."""
    path = real_model(name)
    model = to_hub(read(path))
    assert not [finding.message for finding in model.findings if finding.code == "operator.kept"]
    ir.save(model.ir, tmp_path / "model.onnx")
    feeds, expected = running.run(path)
    _, reference = running.run(path, feeds, kernels="reference")
    names = [value.name for value in model.graph.inputs if not value.is_initializer()]
    _, found = running.run(tmp_path / "model.onnx", dict(zip(names, feeds.values(), strict=True)))
    hybrid = any(finding.code == "tflite.hybrid" for finding in model.findings)
    for want, plain, have in zip(expected.values(), reference.values(), found.values(), strict=False):
        if want.dtype.kind in "iu":
            apart = [np.abs(kernels.astype(np.int64) - have.astype(np.int64)) for kernels in (want, plain)]
            assert max((difference <= 1).mean() for difference in apart) >= 0.999
        else:
            want = plain if hybrid else want            # LiteRT's kernel sets round the inputs of hybrid operators differently, by a percent of the range
            assert np.abs(want - have).max() <= 1e-5 * max(np.ptp(want), np.abs(want).max())

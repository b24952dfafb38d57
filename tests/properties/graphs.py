"""Random small networks: chains and joins of the operators whose layout, padding and broadcasting a conversion has to get right."""
from __future__ import annotations

import math
from typing import Any

import numpy as np
import onnx
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper


class Network:
    """Grows a model value by value; every value has a known shape of rank 1 to 5."""

    def __init__(self, draw: Any, dynamic: bool):
        self.draw, self.nodes, self.constants = draw, [], []
        self.random = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
        self.shapes: dict[str, list[int]] = {}
        rank = draw(st.sampled_from([2, 3, 4, 4, 4, 5]))
        self.shapes["x"] = [draw(st.sampled_from([1, 2])), *(draw(st.integers(1, 7)) for _ in range(rank - 1))]
        self.input = list(self.shapes["x"])
        self.dynamic = dynamic

    def one_of(self, *options: Any) -> Any:
        return self.draw(st.sampled_from(options))

    def constant(self, *shape: int) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(self.random.uniform(-1, 1, shape).astype(np.float32), name))
        return name

    def integers(self, values: list[int]) -> str:
        name = f"c{len(self.constants)}"
        self.constants.append(numpy_helper.from_array(np.asarray(values, np.int64), name))
        return name

    def add(self, operator: str, inputs: list[str], shape: list[int], **attributes: Any) -> str:
        name = f"v{len(self.nodes)}"
        self.nodes.append(helper.make_node(operator, inputs, [name], name=name, **attributes))
        self.shapes[name] = [int(size) for size in shape]
        return name

    def step(self) -> None:
        x = self.one_of(*list(self.shapes)[-3:])
        steps = [grow for grow in STEPS if grow(self, x, check=True)]
        if steps:
            self.one_of(*steps)(self, x, check=False)

    def model(self) -> onnx.ModelProto:
        used = {name for node in self.nodes for name in node.input}
        ends = [node.output[0] for node in self.nodes if node.output[0] not in used]
        shape = ["n", *self.input[1:]] if self.dynamic else self.input
        graph = helper.make_graph(self.nodes, "random", [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
                                  [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ends], self.constants)
        return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)


def unary(net: Network, x: str, check: bool) -> bool:
    return check or bool(net.add(net.one_of("Relu", "Sigmoid", "Tanh", "Neg", "Abs", "HardSwish", "Softplus", "Erf"), [x], net.shapes[x]))


def with_constant(net: Network, x: str, check: bool) -> bool:
    if check:
        return True
    shape = [size if net.one_of(True, False) else 1 for size in net.shapes[x]][net.draw(st.integers(0, len(net.shapes[x]) - 1)):]
    pair = [x, net.constant(*shape)]
    return bool(net.add(net.one_of("Add", "Mul", "Sub", "Max"), pair if net.one_of(True, False) else pair[::-1], net.shapes[x]))


def with_other(net: Network, x: str, check: bool) -> bool:
    others = [name for name, shape in net.shapes.items() if shape == net.shapes[x]]
    return check or bool(net.add(net.one_of("Add", "Mul", "Min"), [x, net.one_of(*others)], net.shapes[x]))


def conv(net: Network, x: str, check: bool) -> bool:
    shape = net.shapes[x]
    if check:
        return len(shape) in (3, 4, 5) and math.prod(shape) < 600
    n, channels, *sizes = shape
    kernel = [net.draw(st.integers(1, min(3, size))) for size in sizes]
    strides = [net.one_of(1, 2) for _ in sizes]
    pads = [net.draw(st.integers(0, k - 1)) for k in kernel] + [net.draw(st.integers(0, k - 1)) for k in kernel]
    group = net.one_of(1, channels)
    outputs = channels if group > 1 else net.draw(st.integers(1, 4))
    out = [(size + pads[i] + pads[i + len(sizes)] - k) // s + 1 for i, (size, k, s) in enumerate(zip(sizes, kernel, strides, strict=True))]
    weights = [x, net.constant(outputs, channels // group, *kernel), *([net.constant(outputs)] if net.one_of(True, False) else [])]
    return bool(net.add("Conv", weights, [n, outputs, *out], kernel_shape=kernel, strides=strides, pads=pads, group=group))


def pool(net: Network, x: str, check: bool) -> bool:
    shape = net.shapes[x]
    if check:
        return len(shape) in (3, 4)
    kernel = [net.draw(st.integers(1, min(3, size))) for size in shape[2:]]
    pads = [net.draw(st.integers(0, k // 2)) for k in kernel] * 2
    strides = [net.one_of(1, 2) for _ in kernel]
    out = [(size + pads[i] + pads[i + len(kernel)] - k) // s + 1 for i, (size, k, s) in enumerate(zip(shape[2:], kernel, strides, strict=True))]
    kind = net.one_of("MaxPool", "AveragePool")
    extra = {"count_include_pad": net.one_of(0, 1)} if kind == "AveragePool" else {}
    return bool(net.add(kind, [x], [*shape[:2], *out], kernel_shape=kernel, strides=strides, pads=pads, **extra))


def transpose(net: Network, x: str, check: bool) -> bool:
    shape = net.shapes[x]
    if check:
        return len(shape) > 1 and not net.dynamic
    perm = net.draw(st.permutations(range(len(shape))))
    return bool(net.add("Transpose", [x], [shape[i] for i in perm], perm=perm))


def reshape(net: Network, x: str, check: bool) -> bool:
    shape = net.shapes[x]
    if check:
        return len(shape) > 1
    at = net.draw(st.integers(1, len(shape) - 1))
    if len(shape) < 5 and net.one_of(True, False):
        new = [*shape[:at], 1, *shape[at:]]
    else:
        new = [*shape[:at - 1], shape[at - 1] * shape[at], *shape[at + 1:]] if at > 1 or not net.dynamic else shape
    target = [-1, *new[1:]] if net.dynamic else new
    return bool(net.add("Reshape", [x, net.integers(target)], new))


def concat(net: Network, x: str, check: bool) -> bool:
    shape = net.shapes[x]
    if check:
        return len(shape) > 1 and math.prod(shape) < 600
    axis = net.draw(st.integers(1, len(shape) - 1))
    rest = [*shape[:axis], *shape[axis + 1:]]
    others = [name for name, other in net.shapes.items() if len(other) == len(shape) and [*other[:axis], *other[axis + 1:]] == rest]
    other = net.one_of(*others)
    new = [size + net.shapes[other][axis] if i == axis else size for i, size in enumerate(shape)]
    return bool(net.add("Concat", [x, other], new, axis=axis - (len(shape) if net.one_of(True, False) else 0)))


def reduce(net: Network, x: str, check: bool) -> bool:
    shape = net.shapes[x]
    if check:
        return len(shape) > 2
    axes = sorted(net.draw(st.sets(st.integers(1, len(shape) - 1), min_size=1, max_size=len(shape) - 1)))
    keep = net.one_of(0, 1)
    new = [1 if i in axes else size for i, size in enumerate(shape) if keep or i not in axes]
    return bool(net.add(net.one_of("ReduceMean", "ReduceMax", "ReduceSum"), [x, net.integers(axes)], new, keepdims=keep))


def softmax(net: Network, x: str, check: bool) -> bool:
    return check or bool(net.add("Softmax", [x], net.shapes[x], axis=net.draw(st.integers(0, len(net.shapes[x]) - 1))))


def cut(net: Network, x: str, check: bool) -> bool:
    shape = net.shapes[x]
    axes = [i for i, size in enumerate(shape) if size > 1 and i]
    if check:
        return bool(axes)
    axis = net.one_of(*axes)
    start = net.draw(st.integers(0, shape[axis] - 1))
    end = net.draw(st.integers(start + 1, shape[axis]))
    inputs = [x, *(net.integers([value]) for value in (start, end, axis))]
    return bool(net.add("Slice", inputs, [end - start if i == axis else size for i, size in enumerate(shape)]))


def pad(net: Network, x: str, check: bool) -> bool:
    shape = net.shapes[x]
    if check:
        return math.prod(shape) < 400
    amounts = [0, *(net.draw(st.integers(0, 1)) for _ in shape[1:]), 0, *(net.draw(st.integers(0, 1)) for _ in shape[1:])]
    return bool(net.add("Pad", [x, net.integers(amounts)], [size + amounts[i] + amounts[i + len(shape)] for i, size in enumerate(shape)]))


def dense(net: Network, x: str, check: bool) -> bool:
    shape = net.shapes[x]
    if check:
        return len(shape) >= 2
    outputs = net.draw(st.integers(1, 5))
    if len(shape) == 2 and net.one_of(True, False):
        return bool(net.add("Gemm", [x, net.constant(outputs, shape[1]), net.constant(outputs)], [shape[0], outputs], transB=1))
    return bool(net.add("MatMul", [x, net.constant(shape[-1], outputs)], [*shape[:-1], outputs]))


def resize(net: Network, x: str, check: bool) -> bool:
    shape = net.shapes[x]
    if check:
        return len(shape) == 4 and math.prod(shape) < 300
    name = f"c{len(net.constants)}"
    net.constants.append(numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), name))
    mode = net.one_of("nearest", "linear")
    where = net.one_of("asymmetric", "half_pixel")
    extra = {"nearest_mode": "floor"} if mode == "nearest" and where == "asymmetric" else {}
    return bool(net.add("Resize", [x, "", name], [*shape[:2], shape[2] * 2, shape[3] * 2], mode=mode, coordinate_transformation_mode=where, **extra))


def normalise(net: Network, x: str, check: bool) -> bool:
    shape = net.shapes[x]
    if check:
        return len(shape) > 2
    channels = shape[1]
    variance = f"c{len(net.constants)}"
    net.constants.append(numpy_helper.from_array(net.random.uniform(0.5, 2, channels).astype(np.float32), variance))
    return bool(net.add("BatchNormalization", [x, net.constant(channels), net.constant(channels), net.constant(channels), variance], shape))


STEPS = [unary, with_constant, with_other, conv, conv, pool, transpose, reshape, concat, reduce, softmax, cut, pad, dense, resize, normalise]


@st.composite
def models(draw: Any) -> tuple[onnx.ModelProto, np.ndarray]:
    """A model and an input for it."""
    net = Network(draw, draw(st.booleans()))
    for _ in range(draw(st.integers(1, 9))):
        net.step()
    if not net.nodes:
        unary(net, "x", False)
    return net.model(), net.random.standard_normal(net.input).astype(np.float32)

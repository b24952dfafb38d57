"""The activations of Keras, which are also layers (`ReLU`), operations (`keras.ops.relu`) and raw functions (`tf.nn.relu`)."""
from __future__ import annotations

from typing import Any

import numpy as np

from isomorph.dialects.keras.lowering import KerasBuilder as Op
from isomorph.dialects.keras.lowering import Value
from isomorph.dialects.keras.to_onnx.table import act, layer, ops, tf

# name of the activation -> (class of the operation, TensorFlow's function, ONNX operator, its attributes)
PLAIN: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "sigmoid": ("Sigmoid", "math.sigmoid", "Sigmoid", {}), "tanh": ("Tanh", "math.tanh", "Tanh", {}), "softplus": ("Softplus", "math.softplus", "Softplus", {}),
    "softsign": ("Softsign", "nn.softsign", "Softsign", {}), "exponential": ("Exp", "math.exp", "Exp", {}), "selu": ("Selu", "nn.selu", "Selu", {}),
    "mish": ("Mish", "", "Mish", {}),
    "hard_silu": ("HardSilu", "", "HardSwish", {}), "hard_swish": ("HardSwish", "", "HardSwish", {}),
}


def _plain(name: str, attributes: dict[str, Any]) -> Any:
    def rule(op: Op, x: Value) -> Value:
        return op.make(name, [x], attributes)
    return rule


for _name, (_class, _tf, _onnx, _attributes) in PLAIN.items():
    _rule = _plain(_onnx, _attributes)
    act(_name)(_rule)
    ops(_class)(_rule)
    if _tf:
        tf(_tf)(_rule)


@act("linear")
@layer("Identity")
@ops("Identity")
def identity(op: Op, x: Value) -> Value:
    return x


@act("silu", "swish")
@ops("Silu")
@tf("nn.silu", "nn.swish")
def silu(op: Op, x: Value) -> Value:
    """x * sigmoid(x), which runtimes fuse; few have ONNX's Swish."""
    return op.Mul(x, op.Sigmoid(x))


@act("relu6")
@ops("Relu6")
@tf("nn.relu6")
def relu6(op: Op, x: Value) -> Value:
    return op.Clip(x, op.scalar(0, x), op.scalar(6, x))


@ops("ReLU")
@act("relu", "ReLU")
def relu(op: Op, x: Value, negative_slope: float = 0.0, max_value: float | None = None, threshold: float = 0.0) -> Value:
    """0 below the threshold (or a slope from there), x above it, at most `max_value`."""
    if not threshold and not negative_slope:
        return op.Relu(x) if max_value is None else op.Clip(x, op.scalar(0, x), op.scalar(max_value, x))
    kept = op.Relu(x) if not threshold else op.Where(op.Greater(x, op.scalar(threshold, x)), x, op.scalar(0, x))
    if max_value is not None:
        kept = op.Clip(kept, op.scalar(0, x), op.scalar(max_value, x))
    if not negative_slope:
        return kept
    if not threshold and max_value is None:
        return op.LeakyRelu(x, alpha=float(negative_slope))
    below = op.Relu(op.Sub(op.scalar(threshold, x), x))
    return op.Sub(kept, op.Mul(below, op.scalar(negative_slope, x)))


@layer("ReLU")
def relu_layer(op: Op, x: Value, *, max_value: float | None = None, negative_slope: float | None = 0.0, threshold: float | None = 0.0) -> Value:
    return relu(op, x, negative_slope or 0.0, max_value, threshold or 0.0)


@layer("ThresholdedReLU")
def thresholded_relu(op: Op, x: Value, *, theta: float = 1.0) -> Value:
    return op.ThresholdedRelu(x, alpha=float(theta))


@act("threshold")
@ops("Threshold")
def threshold(op: Op, x: Value, *, threshold: float = 1.0, default_value: float = 0.0) -> Value:
    return op.Where(op.Greater(x, op.scalar(threshold, x)), x, op.scalar(default_value, x))


@ops("Relu")
@tf("nn.relu")
def plain_relu(op: Op, x: Value) -> Value:
    return op.Relu(x)


@act("leaky_relu")
@ops("LeakyRelu")
def leaky_relu(op: Op, x: Value, *, negative_slope: float = 0.2) -> Value:
    return op.LeakyRelu(x, alpha=float(negative_slope))


@tf("nn.leaky_relu")
def tf_leaky_relu(op: Op, features: Value, alpha: float = 0.2) -> Value:
    return op.LeakyRelu(features, alpha=float(alpha))


@layer("LeakyReLU")
def leaky_relu_layer(op: Op, x: Value, *, negative_slope: float | None = None, alpha: float | None = None) -> Value:
    """`alpha` is Keras 2's name; both default to 0.3."""
    slope = negative_slope if negative_slope is not None else alpha
    return op.LeakyRelu(x, alpha=0.3 if slope is None else float(slope))


@act("elu")
@ops("Elu")
@tf("nn.elu")
@layer("ELU")
def elu(op: Op, x: Value, *, alpha: float = 1.0) -> Value:
    return op.Elu(x, alpha=float(alpha))


@act("celu")
@ops("Celu")
def celu(op: Op, x: Value, *, alpha: float = 1.0) -> Value:
    return op.Celu(x, alpha=float(alpha))


@act("gelu")
def gelu(op: Op, x: Value, *, approximate: bool = False) -> Value:
    return op.Gelu(x, approximate="tanh" if approximate else "none")


@ops("Gelu")
def gelu_operation(op: Op, x: Value, *, approximate: bool = True) -> Value:
    return gelu(op, x, approximate=approximate)


@tf("nn.gelu")
def tf_gelu(op: Op, features: Value, approximate: bool = False) -> Value:
    return gelu(op, features, approximate=approximate)


@act("hard_sigmoid")
@ops("HardSigmoid")
def hard_sigmoid(op: Op, x: Value) -> Value:
    """relu6(x + 3) / 6 since Keras 3, clip(0.2 x + 0.5) before."""
    return op.HardSigmoid(x, alpha=hard_slope(op), beta=0.5)


def hard_slope(op: Op) -> float:
    return 1 / 6 if op.context.generation >= 3 else 0.2


@act("hard_tanh")
@ops("HardTanh")
def hard_tanh(op: Op, x: Value) -> Value:
    return op.Clip(x, op.scalar(-1, x), op.scalar(1, x))


@act("log_sigmoid")
@ops("LogSigmoid")
@tf("math.log_sigmoid")
def log_sigmoid(op: Op, x: Value) -> Value:
    return op.Neg(op.Softplus(op.Neg(x)))


@act("tanh_shrink")
@ops("TanhShrink")
def tanh_shrink(op: Op, x: Value) -> Value:
    return op.Sub(x, op.Tanh(x))


@act("soft_shrink")
@ops("SoftShrink")
def soft_shrink(op: Op, x: Value, *, threshold: float = 0.5) -> Value:
    return op.Shrink(x, lambd=float(threshold), bias=float(threshold))


@act("hard_shrink")
@ops("HardShrink")
def hard_shrink(op: Op, x: Value, *, threshold: float = 0.5) -> Value:
    return op.Shrink(x, lambd=float(threshold), bias=0.0)


@act("sparse_plus")
@ops("SparsePlus")
def sparse_plus(op: Op, x: Value) -> Value:
    """0 up to -1, (x + 1)² / 4 up to 1, then x."""
    raised = op.Add(x, op.scalar(1, x))
    curve = op.Mul(op.Mul(raised, raised), op.scalar(0.25, x))
    upper = op.Where(op.Less(x, op.scalar(1, x)), curve, x)
    return op.Where(op.LessOrEqual(x, op.scalar(-1, x)), op.scalar(0, x), upper)


@act("sparse_sigmoid")
@ops("SparseSigmoid")
def sparse_sigmoid(op: Op, x: Value) -> Value:
    return op.HardSigmoid(x, alpha=0.5, beta=0.5)


@act("squareplus")
@ops("Squareplus")
def squareplus(op: Op, x: Value, *, b: float = 4) -> Value:
    root = op.Sqrt(op.Add(op.Mul(x, x), op.scalar(b, x)))
    return op.Mul(op.Add(x, root), op.scalar(0.5, x))


@act("glu")
@ops("Glu")
def glu(op: Op, x: Value, *, axis: int = -1) -> Value:
    left, right = op.Split(x, axis=axis, num_outputs=2, _outputs=2)
    return op.Mul(left, op.Sigmoid(right))


@act("softmax")
@ops("Softmax")
def softmax(op: Op, x: Value, axis: Any = -1) -> Value:
    """Over one axis, several (as one), or all."""
    return _over(op, x, axis, "Softmax")


@act("log_softmax")
@ops("LogSoftmax")
def log_softmax(op: Op, x: Value, axis: Any = -1) -> Value:
    return _over(op, x, axis, "LogSoftmax")


@tf("nn.softmax")
def tf_softmax(op: Op, logits: Value, axis: int | None = -1) -> Value:
    return op.Softmax(logits, axis=-1 if axis is None else axis)


@tf("nn.log_softmax")
def tf_log_softmax(op: Op, logits: Value, axis: int | None = -1) -> Value:
    return op.LogSoftmax(logits, axis=-1 if axis is None else axis)


def _over(op: Op, x: Value, axis: Any, kind: str) -> Value:
    rank = op.rank(x)
    axes = list(range(rank)) if axis is None else [a % rank for a in axis] if isinstance(axis, list) else [axis % rank]
    if len(axes) == 1:
        return op.make(kind, [x], {"axis": axes[0]})
    if kind == "Softmax":
        # The largest element is taken off first, as every softmax does, so that nothing overflows.
        shifted = op.Exp(op.Sub(x, op.ReduceMax(x, op.const(axes), keepdims=1)))
        return op.Div(shifted, op.ReduceSum(shifted, op.const(axes), keepdims=1))
    return op.Sub(x, op.ReduceLogSumExp(x, op.const(axes), keepdims=1))


@layer("Softmax")
def softmax_layer(op: Op, x: Value, mask: Value | None = None, *, axis: Any = -1) -> Value:
    """A mask takes scores away by a number so large that nothing is left of them."""
    chosen = mask if mask is not None else op.mask
    if isinstance(chosen, Value):
        floor = -3e4 if x.dtype.name == "FLOAT16" else -1e9
        x = op.Add(x, op.Mul(op.Sub(op.scalar(1, x), op.cast(chosen, x.dtype)), op.scalar(floor, x)))
    return _over(op, x, axis, "Softmax")


@layer("Activation")
def activation(op: Op, x: Value, *, activation: Any = "linear") -> Value:
    return op.activation(x, activation)


@act("sparsemax")
@ops("Sparsemax")
def sparsemax(op: Op, x: Value, *, axis: int = -1) -> Value:
    """Scores sorted, the k largest that stay positive, and a threshold taken off, which Keras takes from the sum of the running sums."""
    size = op.sizes(x)[axis]
    if not isinstance(size, int):
        return op.reject("the size of its axis is not known")
    axis %= op.rank(x)
    spread = [size if place == axis else 1 for place in range(op.rank(x))]
    ordered, _ = op.TopK(x, op.const([size]), axis=axis, _outputs=2)
    total = op.CumSum(ordered, op.const(np.asarray(axis)))
    counts = op.const(np.arange(1, size + 1, dtype=x.dtype.numpy()).reshape(spread))
    inside = op.Greater(op.Sub(ordered, op.Div(op.Sub(total, op.scalar(1, x)), counts)), op.scalar(0, x))
    kept = op.Where(inside, total, op.scalar(0, x))
    number = op.ReduceSum(op.cast(inside, x.dtype), op.const([axis]), keepdims=1)
    rest = op.Div(op.Sub(op.ReduceSum(kept, op.const([axis]), keepdims=1), op.scalar(1, x)), number)
    return op.Relu(op.Sub(x, rest))


@layer("PReLU")
def prelu(op: Op, x: Value) -> Value:
    """ONNX broadcasts the slope from behind, as Keras does, which has sizes of one on shared axes."""
    return op.PRelu(x, op.need("alpha"))



"""Trees of standard modules as graphs: what `forward` of each class of torch.nn calls, from the attributes that a pickle keeps.

A rule's keyword-only parameters are the attributes of the module, with the values that older versions of PyTorch meant where they had no such attribute.
`net.conv2d(...)` makes the aten call that TorchScript would have printed, so that no operator is mapped a second time. The classes: torch/nn/modules.
"""
from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import onnx_ir as ir

from isomorph.dialects._lower import Rejected
from isomorph.dialects.torch.lowering import Lowering
from isomorph.report import Finding, Severity

STANDARD = "torch.nn.modules."
WRAPPERS = ("torch.nn.parallel.data_parallel.DataParallel", "torch.nn.parallel.distributed.DistributedDataParallel")
HOOKS = ("_forward_hooks", "_forward_pre_hooks")
Shape = list[Any]


@dataclass
class Module:
    """A module as a pickle has it: attributes that are plain, tensors (None where the module has none), modules inside, and the names of its hooks."""

    kind: str
    settings: dict[str, Any] = field(default_factory=dict)
    tensors: dict[str, Any] = field(default_factory=dict)
    children: dict[str, Module] = field(default_factory=dict)
    hooks: list[str] = field(default_factory=list)

    @property
    def name(self) -> str:
        return self.kind.rpartition(".")[2]

    @property
    def standard(self) -> bool:
        return self.kind.startswith(STANDARD) or self.kind in WRAPPERS


RULES: dict[str, Callable[..., Any]] = {}


def layer(*names: str) -> Callable[[Callable], Callable]:
    """Registers what classes of these names call."""
    def register(function: Callable) -> Callable:
        RULES.update(dict.fromkeys(names, function))
        return function
    return register


class Network:
    """`net` in the rules: makes aten calls for one module after the other."""

    def __init__(self, lowering: Lowering, tensor: Callable[[Any, str], Any]):
        self.lowering, self.make_tensor = lowering, tensor
        self.weights: dict[Any, ir.Value] = {}
        self.training: list[str] = []
        self.path, self.kind = "", ""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        if name.startswith("__"):
            raise AttributeError(name)
        return lambda *args, **keywords: self.lowering.call(name, list(args), keywords)

    @property
    def op(self) -> Any:
        """For nodes that no call makes."""
        return self.lowering.builder(self.kind)

    @property
    def axes(self) -> int:
        """How many spatial axes the class has, from its name."""
        return int(self.kind[-2])

    def run(self, module: Module, path: str, x: Any, rule: Callable[..., Any] | None = None) -> Any:
        """What a module makes of a value, by the rule of its class or another one. Raises `Rejected`, having noted which module and why."""
        before = (self.lowering.scope, self.path, self.kind)
        self.lowering.scope, self.path, self.kind = path, path, module.name
        try:
            if isinstance(x, (tuple, list)):
                raise Rejected("it is given several tensors, those of the layer before it")
            rule = rule or self.rule(module)
            return rule(self, x, **self.bound(module, path, rule))
        except Rejected as why:
            if not self.lowering.blockers:              # the innermost module says it
                self.lowering.block(module.kind, str(why))
            raise
        finally:
            self.lowering.scope, self.path, self.kind = before

    @staticmethod
    def rule(module: Module) -> Callable[..., Any]:
        if module.name not in RULES:
            raise Rejected("it takes more than one tensor, or is no layer whose computation isomorph knows")
        return RULES[module.name]

    def bound(self, module: Module, path: str, rule: Callable[..., Any]) -> dict[str, Any]:
        """The attributes that the rule asks for: values for tensors, plain Python for the rest."""
        given: dict[str, Any] = {}
        for name, parameter in list(inspect.signature(rule).parameters.items())[2:]:
            if parameter.kind is parameter.VAR_KEYWORD:
                given |= {key: self.weight(record, f"{path}.{key}") for key, record in module.tensors.items() if key not in given}
            elif name == "children":
                given[name] = module.children
            elif name in module.tensors:
                given[name] = self.weight(module.tensors[name], f"{path}.{name}")
            elif name in module.settings:
                given[name] = module.settings[name]
            elif parameter.default is parameter.empty:
                raise Rejected(f"the file does not say its {name}")
        if module.settings.get("training") and module.name in DIFFERENT_IN_TRAINING:
            self.training.append(path)
        return given

    def weight(self, record: Any, path: str) -> ir.Value | None:
        """A tensor of the file; one value for all names of it."""
        if record is None:
            return None
        key = record.place()
        if key not in self.weights:
            self.weights[key] = self.lowering.weight(self.make_tensor(record, path), path.removeprefix("."))
        return self.weights[key]


def build(root: Module, tensor: Callable[[Any, str], Any], dtype: str, shape: Shape) -> Lowering:
    """The graph of a tree on an input of this type and shape. Its blockers name every module that cannot be followed."""
    lowering = Lowering(root.name)
    net = Network(lowering, tensor)
    for path, module in foreign(root):
        lowering.scope = path
        lowering.block(module.kind, f"it has the hook {module.hooks[0]}, whose code is not in the file" if module.hooks
                       else "what its `forward` computes is not in the file")
    lowering.scope = ""
    if lowering.blockers:
        return lowering
    try:
        result = net.run(root, "", lowering.input("input", ir.DataType[dtype], shape))
    except Rejected:
        return lowering
    names = iter(["output"] if not isinstance(result, (tuple, list)) else ["output", "h_n", "c_n"])
    lowering.finish([(next(names), value) for value in (result if isinstance(result, (tuple, list)) else [result])])
    if net.training:
        lowering.findings.append(Finding("torch.eval", Severity.LOW, net.training[0] or root.name,
                                         "the module was saved while it was trained; the graph is that of `eval()`, where dropout does nothing and "
                                         "normalisations use the statistics that they kept"))
    return lowering


def walk(module: Module, path: str = "") -> Iterator[tuple[str, Module]]:
    """A module and all inside it, with their paths."""
    yield path, module
    for name, child in module.children.items():
        yield from walk(child, f"{path}.{name}" if path else name)


def foreign(root: Module) -> list[tuple[str, Module]]:
    """The modules whose computation is not in the file, because their class is nobody's that is known or because of hooks."""
    return [(path, module) for path, module in walk(root) if module.hooks or not module.standard]


# ---- the likely input

SPATIAL = {1: ["length"], 2: ["height", "width"], 3: ["depth", "height", "width"]}
KEEPS = ("Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout", "Identity", "Flatten")


def likely_inputs(root: Module) -> list[tuple[str, Shape]]:
    """(type, shape) to try, the likeliest first: the first layer that says anything says how many axes there are and how long one is."""
    for _, module in walk(root):
        if module.children or module.name in KEEPS:
            continue
        said = _said(module)
        if said is not None:
            wider = [[*said[1][:1], "length", *said[1][1:]]] if len(said[1]) == 2 and said[0] == "FLOAT" else []
            return [said, *(("FLOAT", shape) for shape in wider)]
    return [("FLOAT", ["batch", *(f"input_{axis}" for axis in range(1, rank))]) for rank in (4, 2, 3, 5)]


def _said(module: Module) -> tuple[str, Shape] | None:
    """What a layer says about its input; None where it takes any."""
    settings, axes = module.settings, int(module.name[-2]) if module.name[-1:] == "d" and module.name[-2:-1].isdigit() else 0
    width = next((settings[name] for name in ("in_channels", "num_features", "num_channels", "in_features", "input_size") if name in settings), "channels")
    if module.name.startswith("Embedding"):
        return "INT64", ["batch", "length"]
    if module.name in ("LSTM", "GRU", "RNN"):
        return "FLOAT", ["batch", "length", width] if settings.get("batch_first") else ["length", "batch", width]
    if module.name in ("LayerNorm", "RMSNorm"):
        return "FLOAT", ["batch", *settings.get("normalized_shape", [])]
    if module.name == "BatchNorm1d":
        return "FLOAT", ["batch", width]
    if axes:
        return "FLOAT", ["batch", width, *SPATIAL.get(axes, [])]
    if module.name == "GroupNorm" or module.name.startswith(("Pixel", "Upsampling", "ChannelShuffle", "Unfold")):
        return "FLOAT", ["batch", width, *SPATIAL[2]]
    return ("FLOAT", ["batch", width]) if "in_features" in settings or "input_size" in settings else None


# ---- containers and what does nothing

DIFFERENT_IN_TRAINING = {"BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout",
                         "FeatureAlphaDropout", "RReLU"}


@layer("Sequential", "DataParallel", "DistributedDataParallel")
def sequential(net, x, *, children):
    path = net.path
    for name, child in children.items():
        x = net.run(child, f"{path}.{name}" if path else name, x)
    return x


@layer("Identity", "Dropout", "Dropout1d", "Dropout2d", "Dropout3d", "AlphaDropout", "FeatureAlphaDropout")
def identity(net, x):
    return x


# ---- functions of one number

for _name, _call in {"ReLU": "relu", "ReLU6": "relu6", "Sigmoid": "sigmoid", "Tanh": "tanh", "SELU": "selu", "SiLU": "silu", "Mish": "mish",
                     "Hardsigmoid": "hardsigmoid", "Hardswish": "hardswish", "LogSigmoid": "log_sigmoid", "Softsign": "softsign",
                     "Tanhshrink": "tanhshrink"}.items():
    RULES[_name] = lambda net, x, *, _call=_call: getattr(net, _call)(x)


@layer("Hardtanh")
def hardtanh(net, x, *, min_val=-1.0, max_val=1.0):
    return net.hardtanh(x, min_val, max_val)


@layer("ELU", "CELU")
def elu(net, x, *, alpha=1.0):
    return net.elu(x, alpha) if net.kind == "ELU" else net.celu(x, alpha)


@layer("GELU")
def gelu(net, x, *, approximate="none"):
    return net.gelu(x, approximate)


@layer("LeakyReLU")
def leaky_relu(net, x, *, negative_slope=0.01):
    return net.leaky_relu(x, negative_slope)


@layer("RReLU")
def rrelu(net, x, *, lower=1 / 8, upper=1 / 3):
    """Outside training the mean of its bounds."""
    return net.leaky_relu(x, (lower + upper) / 2)


@layer("PReLU")
def prelu(net, x, *, weight):
    return net.prelu(x, weight)


@layer("Softplus")
def softplus(net, x, *, beta=1, threshold=20):
    return net.softplus(x, beta, threshold)


@layer("Softshrink", "Hardshrink")
def shrink(net, x, *, lambd=0.5):
    return net.softshrink(x, lambd) if net.kind == "Softshrink" else net.hardshrink(x, lambd)


@layer("Threshold")
def threshold(net, x, *, threshold, value):
    return net.threshold(x, threshold, value)


@layer("GLU")
def glu(net, x, *, dim=-1):
    return net.glu(x, dim)


@layer("Softmax", "LogSoftmax", "Softmin")
def softmax(net, x, *, dim=None):
    """Without an axis it is the first one of a vector or a cube, else the second."""
    axis = dim if dim is not None else 0 if len(x.shape) in (0, 1, 3) else 1
    return net.log_softmax(x, axis) if net.kind == "LogSoftmax" else net.softmax(net.neg(x) if net.kind == "Softmin" else x, axis)


@layer("Softmax2d")
def softmax_2d(net, x):
    return net.softmax(x, -3)


# ---- products

@layer("Linear", "NonDynamicallyQuantizableLinear")
def linear(net, x, *, weight, bias=None):
    return net.linear(x, weight, bias)


@layer("Embedding")
def embedding(net, x, *, weight, max_norm=None):
    if max_norm is not None:
        raise Rejected("it shortens its own weights while it runs (max_norm)")
    return net.embedding(weight, x)


@layer("EmbeddingBag")
def embedding_bag(net, x, *, weight, max_norm=None, mode="mean", padding_idx=None):
    if max_norm is not None or padding_idx is not None or len(x.shape) != 2:
        raise Rejected("bags with offsets, padding or weights that are shortened")
    rows = net.embedding(weight, x)
    return net.amax(rows, [1]) if mode == "max" else getattr(net, mode)(rows, [1])


@layer("Conv1d", "Conv2d", "Conv3d")
def conv(net, x, *, weight, bias=None, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"):
    call = getattr(net, f"conv{net.axes}d")
    if padding_mode == "zeros":
        return call(x, weight, bias, stride, padding, dilation, groups)
    amounts = _amounts(padding, [dim for dim in weight.shape[2:]], _each(dilation, net.axes))
    return call(net.pad(x, amounts, padding_mode), weight, bias, stride, 0, dilation, groups)


def _each(value: Any, count: int) -> list[int]:
    return list(value) if isinstance(value, (list, tuple)) else [value] * count


def _amounts(padding: Any, kernel: list[int], dilation: list[int]) -> list[int]:
    """What is added before and behind each axis, the last axis first."""
    if isinstance(padding, str):
        totals = [(size - 1) * step if padding == "same" else 0 for size, step in zip(kernel, dilation, strict=True)]
        pairs = [(total // 2, total - total // 2) for total in totals]
    else:
        pairs = [(amount, amount) for amount in _each(padding, len(kernel))]
    return [amount for pair in reversed(pairs) for amount in pair]


@layer("ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d")
def conv_transpose(net, x, *, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
    return getattr(net, f"conv_transpose{net.axes}d")(x, weight, bias, stride, padding, output_padding, groups, dilation)


@layer("Unfold")
def unfold(net, x, *, kernel_size, dilation=1, padding=0, stride=1):
    return net.im2col(x, *(_each(value, 2) for value in (kernel_size, dilation, padding, stride)))


@layer("Fold")
def fold(net, x, *, output_size, kernel_size, dilation=1, padding=0, stride=1):
    return net.col2im(x, *(_each(value, 2) for value in (output_size, kernel_size, dilation, padding, stride)))


# ---- normalisations

@layer("BatchNorm1d", "BatchNorm2d", "BatchNorm3d", "SyncBatchNorm")
def batch_norm(net, x, *, weight=None, bias=None, running_mean=None, running_var=None, eps=1e-5):
    return net.batch_norm(x, weight, bias, running_mean, running_var, running_mean is None, 0.1, eps)


@layer("InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d")
def instance_norm(net, x, *, weight=None, bias=None, running_mean=None, running_var=None, eps=1e-5):
    single = len(x.shape) == net.axes + 1
    y = net.instance_norm(net.unsqueeze(x, 0) if single else x, weight, bias, running_mean, running_var, running_mean is None, 0.1, eps)
    return net.squeeze(y, 0) if single else y


@layer("LayerNorm")
def layer_norm(net, x, *, normalized_shape, weight=None, bias=None, eps=1e-5):
    return net.layer_norm(x, list(normalized_shape), weight, bias, eps)


@layer("RMSNorm")
def rms_norm(net, x, *, normalized_shape, weight=None, eps=None):
    return net.rms_norm(x, list(normalized_shape), weight, eps)


@layer("GroupNorm")
def group_norm(net, x, *, num_groups, weight=None, bias=None, eps=1e-5):
    return net.group_norm(x, num_groups, weight, bias, eps)


@layer("LocalResponseNorm")
def local_response_norm(net, x, *, size, alpha=1e-4, beta=0.75, k=1.0):
    """Divided by a power of the mean of squares over neighbouring channels, zeros beyond the ends."""
    if len(x.shape) not in (3, 4):
        raise Rejected(f"over {len(x.shape)} axes")
    flat = [0, 0] * (len(x.shape) - 2)
    squares = net.pad(net.unsqueeze(net.mul(x, x), 1), [*flat, size // 2, (size - 1) // 2])
    mean = getattr(net, f"avg_pool{len(x.shape) - 1}d")(squares, [size] + [1] * (len(x.shape) - 2), [1] * (len(x.shape) - 1))
    return net.div(x, net.pow(net.add(net.mul(net.squeeze(mean, 1), alpha), k), beta))


# ---- pools

@layer("MaxPool1d", "MaxPool2d", "MaxPool3d")
def max_pool(net, x, *, kernel_size, stride=None, padding=0, dilation=1, ceil_mode=False, return_indices=False):
    call = getattr(net, f"max_pool{net.axes}d_with_indices" if return_indices else f"max_pool{net.axes}d")
    return call(x, kernel_size, stride or [], padding, dilation, ceil_mode)


@layer("AvgPool1d", "AvgPool2d", "AvgPool3d")
def avg_pool(net, x, *, kernel_size, stride=None, padding=0, ceil_mode=False, count_include_pad=True, divisor_override=None):
    return getattr(net, f"avg_pool{net.axes}d")(x, kernel_size, stride or [], padding, ceil_mode, count_include_pad, divisor_override)


@layer("LPPool1d", "LPPool2d", "LPPool3d")
def lp_pool(net, x, *, norm_type, kernel_size, stride=None, ceil_mode=False):
    count = math.prod(_each(kernel_size, net.axes))
    sums = net.mul(getattr(net, f"avg_pool{net.axes}d")(net.pow(x, norm_type), kernel_size, stride or [], 0, ceil_mode), count)
    return net.pow(net.mul(net.sign(sums), net.relu(net.abs(sums))), 1.0 / norm_type)


@layer("AdaptiveAvgPool1d", "AdaptiveAvgPool2d", "AdaptiveAvgPool3d")
def adaptive_avg_pool(net, x, *, output_size):
    return getattr(net, f"adaptive_avg_pool{net.axes}d")(x, output_size)


@layer("AdaptiveMaxPool1d", "AdaptiveMaxPool2d", "AdaptiveMaxPool3d")
def adaptive_max_pool(net, x, *, output_size, return_indices=False):
    if return_indices:
        raise Rejected("an adaptive pool that gives places")
    return getattr(net, f"adaptive_max_pool{net.axes}d")(x, output_size)[0]


# ---- shapes

@layer("Flatten")
def flatten(net, x, *, start_dim=1, end_dim=-1):
    return net.flatten(x, start_dim, end_dim)


@layer("Unflatten")
def unflatten(net, x, *, dim, unflattened_size):
    return net.unflatten(x, dim, list(unflattened_size))


@layer("PixelShuffle")
def pixel_shuffle(net, x, *, upscale_factor):
    return net.pixel_shuffle(x, upscale_factor)


@layer("PixelUnshuffle")
def pixel_unshuffle(net, x, *, downscale_factor):
    return net.pixel_unshuffle(x, downscale_factor)


@layer("ChannelShuffle")
def channel_shuffle(net, x, *, groups):
    return net.channel_shuffle(x, groups)


@layer(*(f"{mode}Pad{axes}d" for mode in ("Constant", "Zero") for axes in (1, 2, 3)))
def constant_pad(net, x, *, padding, value=0):
    return net.pad(x, _each(padding, 2 * net.axes), "constant", value)


@layer(*(f"{mode}Pad{axes}d" for mode in ("Reflection", "Replication", "Circular") for axes in (1, 2, 3)))
def other_pad(net, x, *, padding):
    mode = {"Ref": "reflect", "Rep": "replicate", "Cir": "circular"}[net.kind[:3]]
    return net.pad(x, _each(padding, 2 * net.axes), mode)


@layer("Upsample", "UpsamplingNearest2d", "UpsamplingBilinear2d")
def upsample(net, x, *, size=None, scale_factor=None, mode="nearest", align_corners=None):
    axes = len(x.shape) - 2
    scales = [] if size is not None else [_each(float(scale_factor) if not isinstance(scale_factor, (list, tuple)) else scale_factor, axes)]
    wanted = None if size is None else _each(size, axes)
    if mode in ("nearest", "nearest-exact"):
        return getattr(net, f"{'_upsample_nearest_exact' if mode == 'nearest-exact' else 'upsample_nearest'}{axes}d")(x, wanted, *scales)
    call = {"linear": "upsample_linear1d", "bilinear": "upsample_bilinear2d", "trilinear": "upsample_trilinear3d", "bicubic": "upsample_bicubic2d"}.get(mode)
    if call is None:
        raise Rejected(f"the mode {mode!r}")
    return getattr(net, call)(x, wanted, bool(align_corners), *scales)


# ---- recurrent layers, which give several tensors: they may only be the last

@layer("LSTM", "GRU", "RNN")
def recurrent(net, x, *, hidden_size, num_layers=1, bias=True, batch_first=False, bidirectional=False, proj_size=0, mode="", **weights):
    """The states begin with zeros."""
    if proj_size or len(x.shape) != 3 or num_layers > len(weights):
        raise Rejected("projections of the state" if proj_size else f"{num_layers} layers over {len(x.shape)} axes: it is for batches of sequences")
    suffixes = [f"_l{number}{side}" for number in range(num_layers) for side in ("", "_reverse")[:1 + bool(bidirectional)]]
    parts = ("weight_ih", "weight_hh", "bias_ih", "bias_hh")[:4 if bias else 2]
    params = [weights[part + suffix] for suffix in suffixes for part in parts]
    axis = 0 if batch_first else 1
    batch = x.shape[axis] if isinstance(x.shape[axis], int) else net.op.Shape(x, start=axis, end=axis + 1)
    state = net.new_zeros(x, [len(suffixes), batch, hidden_size])
    rest = (bool(bias), num_layers, 0.0, False, bool(bidirectional), bool(batch_first))
    if net.kind == "LSTM":
        return net.lstm(x, [state, state], params, *rest)
    return getattr(net, {"GRU": "gru"}.get(net.kind, "rnn_relu" if mode == "RNN_RELU" else "rnn_tanh"))(x, state, params, *rest)


# ---- transformers

@layer("TransformerEncoder")
def transformer_encoder(net, x, *, children):
    path = net.path
    for name, child in children["layers"].children.items():
        x = net.run(child, f"{path}.layers.{name}".removeprefix("."), x)
    return net.run(children["norm"], f"{path}.norm".removeprefix("."), x) if "norm" in children else x


@layer("TransformerEncoderLayer")
def transformer_encoder_layer(net, x, *, children, norm_first=False, activation=None):
    path = net.path

    def inner(name: str, value: Any) -> Any:
        return net.run(children[name], f"{path}.{name}".removeprefix("."), value)

    def attend(value: Any) -> Any:
        return net.run(children["self_attn"], f"{path}.self_attn".removeprefix("."), value, self_attention)

    def forward(value: Any) -> Any:
        middle = inner("linear1", value)
        middle = inner("activation", middle) if "activation" in children else _activation(net, activation, middle)
        return inner("linear2", middle)
    if norm_first:
        x = net.add(x, attend(inner("norm1", x)))
        return net.add(x, forward(inner("norm2", x)))
    x = inner("norm1", net.add(x, attend(x)))
    return inner("norm2", net.add(x, forward(x)))


def _activation(net: Network, activation: Any, x: Any) -> Any:
    """A function of torch.nn.functional, which the pickle names; the attribute is absent in the oldest files, where it is relu."""
    name = str(activation or "relu").rpartition(".")[2]
    if name not in ("relu", "gelu"):
        raise Rejected(f"its activation is the function {activation}")
    return getattr(net, name)(x)


def self_attention(net, x, *, children, num_heads, embed_dim, in_proj_weight=None, in_proj_bias=None, batch_first=False, bias_k=None, add_zero_attn=False):
    """MultiheadAttention of a value with itself, as encoders use it; by itself it takes three."""
    if in_proj_weight is None or bias_k is not None or add_zero_attn or len(x.shape) != 3:
        raise Rejected("attention with keys of other widths or with added keys")
    path = net.path
    x = x if batch_first else net.transpose(x, 0, 1)
    both = net.unflatten(net.linear(x, in_proj_weight, in_proj_bias), -1, [3, num_heads, embed_dim // num_heads])
    q, k, v = (net.squeeze(part, 0) for part in net.split(net.permute(both, [2, 0, 3, 1, 4]), 1, 0))
    y = net.flatten(net.transpose(net.scaled_dot_product_attention(q, k, v), 1, 2), -2, -1)
    y = net.run(children["out_proj"], f"{path}.out_proj".removeprefix("."), y)
    return y if batch_first else net.transpose(y, 0, 1)

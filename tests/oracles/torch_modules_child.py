"""Runs inside an environment that has PyTorch: one file a case with a whole pickled module, and one .npz with what each module makes of its input.

    python torch_modules_child.py FOLDER
"""
from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn

Case = tuple[nn.Module, torch.Tensor]


def floats(*sizes: int) -> torch.Tensor:
    return torch.randn(*sizes)


LINE, PICTURE, VOLUME = (2, 6, 13), (2, 6, 9, 11), (2, 6, 5, 7, 6)
SIZES = {1: LINE, 2: PICTURE, 3: VOLUME}
FUNCTIONS = ("ReLU", "ReLU6", "Sigmoid", "Tanh", "SELU", "SiLU", "Mish", "Hardsigmoid", "Hardswish", "LogSigmoid", "Softsign", "Tanhshrink", "ELU", "CELU",
             "GELU", "LeakyReLU", "RReLU", "PReLU", "Softplus", "Softshrink", "Hardshrink", "Hardtanh", "Identity", "Dropout", "AlphaDropout")


def layers() -> dict[str, Case]:
    """Every class with the options that change what it computes."""
    cases: dict[str, Case] = {name: (getattr(nn, name)(), floats(2, 6, 5)) for name in FUNCTIONS}
    cases |= {"elu-alpha": (nn.ELU(0.3), floats(3, 4)), "celu-alpha": (nn.CELU(2.0), floats(3, 4)), "gelu-tanh": (nn.GELU("tanh"), floats(3, 4)),
              "leaky-slope": (nn.LeakyReLU(0.3), floats(3, 4)), "prelu-channels": (nn.PReLU(6), floats(*PICTURE)), "prelu-flat": (nn.PReLU(4), floats(3, 4)),
              "softplus-beta": (nn.Softplus(2, 3), floats(3, 4) * 3), "softshrink-lambd": (nn.Softshrink(0.2), floats(3, 4)),
              "hardtanh-bounds": (nn.Hardtanh(-0.4, 0.7), floats(3, 4)), "threshold": (nn.Threshold(0.1, -2.0), floats(3, 4)), "glu": (nn.GLU(), floats(3, 8)),
              "glu-first": (nn.GLU(0), floats(4, 5)), "rrelu-bounds": (nn.RReLU(0.2, 0.3), floats(3, 4))}
    for name in ("Softmax", "LogSoftmax", "Softmin"):
        cases |= {f"{name.lower()}-{dim}": (getattr(nn, name)(dim), floats(2, 6, 5)) for dim in (0, 1, -1)}
        cases |= {f"{name.lower()}-none": (getattr(nn, name)(None), floats(2, 6))}
    cases |= {"softmax2d": (nn.Softmax2d(), floats(*PICTURE)), "linear": (nn.Linear(5, 7), floats(3, 5)),
              "linear-bare": (nn.Linear(5, 7, bias=False), floats(2, 3, 5)),
              "embedding": (nn.Embedding(9, 4, padding_idx=2), torch.randint(0, 9, (2, 5)))}
    cases |= {f"bag-{mode}": (nn.EmbeddingBag(9, 4, mode=mode), torch.randint(0, 9, (2, 5))) for mode in ("mean", "sum", "max")}
    return cases


def windows() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for axes, sizes in SIZES.items():
        x = floats(*sizes)
        options = {"plain": {}, "stride": {"stride": 2, "padding": 1}, "dilated": {"dilation": 2, "groups": 2}, "same": {"padding": "same", "dilation": 2},
                   "bare": {"bias": False, "padding": tuple(range(axes))}, "reflect": {"padding": 1, "padding_mode": "reflect"},
                   "replicate": {"padding": 2, "padding_mode": "replicate"}, "circular": {"padding": "same", "padding_mode": "circular"},
                   "depthwise": {"groups": 6}}
        cases |= {f"conv{axes}-{name}": (getattr(nn, f"Conv{axes}d")(6, 6, 3 if name != "circular" else 4, **more), x) for name, more in options.items()
                  if not (axes == 3 and name == "reflect" and min(sizes[2:]) < 2)}
        turned = {"plain": {}, "stride": {"stride": 2, "padding": 1, "output_padding": 1}, "groups": {"groups": 2, "dilation": 2, "bias": False}}
        cases |= {f"transposed{axes}-{name}": (getattr(nn, f"ConvTranspose{axes}d")(6, 4, 3, **more), x) for name, more in turned.items()}
        pools = {"plain": {}, "stride": {"stride": 1, "padding": 1}, "ceil": {"stride": 2, "ceil_mode": True}}
        for kind in ("Max", "Avg"):
            cases |= {f"{kind.lower()}pool{axes}-{name}": (getattr(nn, f"{kind}Pool{axes}d")(3, **more), x) for name, more in pools.items()}
            cases |= {f"adaptive-{kind.lower()}{axes}-{size}": (getattr(nn, f"Adaptive{kind}Pool{axes}d")(size), x) for size in (1, 2, 3)}
        cases |= {f"maxpool{axes}-dilated": (getattr(nn, f"MaxPool{axes}d")(2, dilation=2), x),
                  f"avgpool{axes}-uncounted": (getattr(nn, f"AvgPool{axes}d")(3, 2, 1, count_include_pad=False), x),
                  f"lppool{axes}": (getattr(nn, f"LPPool{axes}d")(2, 2), x)}
    cases |= {"adaptive-pair": (nn.AdaptiveAvgPool2d((3, None)), floats(*PICTURE)), "avgpool2-divisor": (nn.AvgPool2d(2, divisor_override=3), floats(*PICTURE)),
              "unfold": (nn.Unfold((2, 3), dilation=2, padding=1, stride=2), floats(*PICTURE)),
              "fold": (nn.Fold((4, 5), (2, 2), stride=1, padding=0), floats(2, 12, 12))}
    return cases


def shapes() -> dict[str, Case]:
    picture = floats(*PICTURE)
    cases: dict[str, Case] = {
        "flatten": (nn.Flatten(), picture), "flatten-some": (nn.Flatten(0, 2), picture), "unflatten": (nn.Unflatten(1, (2, 3)), picture),
        "shuffle": (nn.PixelShuffle(2), floats(2, 8, 3, 4)), "unshuffle": (nn.PixelUnshuffle(2), floats(2, 3, 4, 6)),
        "channels": (nn.ChannelShuffle(3), picture),
        "nearest2d": (nn.UpsamplingNearest2d(scale_factor=2), picture), "bilinear2d": (nn.UpsamplingBilinear2d(scale_factor=2), picture)}
    for axes, sizes in SIZES.items():
        for mode in ("Constant", "Zero", "Reflection", "Replication", "Circular"):
            value = (1.5,) if mode == "Constant" else ()
            amounts = tuple(range(1, 2 * axes + 1)) if axes < 3 else 2
            cases |= {f"{mode.lower()}pad{axes}": (getattr(nn, f"{mode}Pad{axes}d")(amounts, *value), floats(*sizes))}
        for mode in ("nearest", "nearest-exact", {1: "linear", 2: "bilinear", 3: "trilinear"}[axes], *(["bicubic"] if axes == 2 else [])):
            cases |= {f"upsample{axes}-{mode}": (nn.Upsample(scale_factor=2, mode=mode), floats(*sizes)),
                      f"upsample{axes}-{mode}-size": (nn.Upsample(size=tuple(2 * size + 1 for size in sizes[2:]), mode=mode), floats(*sizes))}
            if "nearest" not in mode:
                cases |= {f"upsample{axes}-{mode}-corners": (nn.Upsample(scale_factor=2, mode=mode, align_corners=True), floats(*sizes))}
    return cases


def trained(norm: nn.Module) -> nn.Module:
    """With weights and statistics that are not those of the beginning."""
    for tensor in (*norm.parameters(), *norm.buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.rand_like(tensor) + 0.5
    return norm


def norms() -> dict[str, Case]:
    cases: dict[str, Case] = {}
    for axes, sizes in SIZES.items():
        for kind in ("BatchNorm", "InstanceNorm"):
            make = getattr(nn, f"{kind}{axes}d")
            options = {"plain": {}, "bare": {"affine": False}, "batch": {"track_running_stats": kind == "InstanceNorm", "eps": 1e-3}}
            cases |= {f"{kind.lower()}{axes}-{name}": (trained(make(6, **more)), floats(*sizes)) for name, more in options.items()}
    cases |= {"batchnorm1-flat": (trained(nn.BatchNorm1d(6)), floats(3, 6)), "layernorm": (trained(nn.LayerNorm(5)), floats(2, 3, 5)),
              "layernorm-two": (trained(nn.LayerNorm((3, 5))), floats(2, 3, 5)), "layernorm-bare": (nn.LayerNorm(5, elementwise_affine=False), floats(2, 5)),
              "layernorm-unbiased": (trained(nn.LayerNorm(5, bias=False)), floats(2, 5)), "groupnorm": (trained(nn.GroupNorm(3, 6)), floats(*PICTURE)),
              "groupnorm-bare": (nn.GroupNorm(2, 6, affine=False), floats(*LINE)), "rmsnorm": (trained(nn.RMSNorm(5)), floats(2, 3, 5)),
              "rmsnorm-bare": (nn.RMSNorm(5, eps=1e-3, elementwise_affine=False), floats(2, 5)), "lrn": (nn.LocalResponseNorm(3), floats(*PICTURE)),
              "lrn-even": (nn.LocalResponseNorm(4, 0.1, 0.5, 2.0), floats(*LINE)), "syncbatchnorm": (trained(nn.SyncBatchNorm(6)), floats(*PICTURE))}
    return cases


def recurrent() -> dict[str, Case]:
    """Layers that give several tensors, and so stand last."""
    cases: dict[str, Case] = {}
    for kind in ("LSTM", "GRU", "RNN"):
        options = {"plain": {}, "first": {"batch_first": True}, "both": {"bidirectional": True, "num_layers": 2},
                   "unbiased": {"bias": False, "batch_first": True}}
        cases |= {f"{kind.lower()}-{name}": (getattr(nn, kind)(6, 5, **more), floats(4, 3, 6)) for name, more in options.items()}
    return cases | {"rnn-relu": (nn.RNN(6, 5, nonlinearity="relu"), floats(4, 3, 6)),
                    "lstm-behind": (nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.LSTM(6, 5, batch_first=True)), floats(2, 3, 4))}


def networks() -> dict[str, Case]:
    block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), trained(nn.BatchNorm2d(8)), nn.SiLU())
    cases: dict[str, Case] = {
        "nested": (nn.Sequential(nn.Conv2d(3, 8, 3, stride=2), block, nn.Sequential(nn.MaxPool2d(2), block), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
                                 nn.Dropout(), nn.Linear(8, 4), nn.Softmax(1)), floats(2, 3, 17, 19)),
        "dense": (nn.Sequential(nn.Flatten(), nn.Linear(24, 16), trained(nn.BatchNorm1d(16)), nn.ReLU(), nn.Linear(16, 3)), floats(5, 24)),
        "words": (nn.Sequential(nn.Embedding(11, 8), nn.LayerNorm(8), nn.Linear(8, 2)), torch.randint(0, 11, (2, 7))),
        "parallel": (nn.DataParallel(nn.Sequential(nn.Linear(5, 4), nn.Tanh())), floats(2, 5)), "decoder": (nn.Sequential(
            nn.Linear(6, 48), nn.Unflatten(1, (12, 2, 2)), nn.ConvTranspose2d(12, 4, 4, 2, 1), nn.ReLU(), nn.Upsample(scale_factor=2), nn.ReflectionPad2d(1),
            nn.Conv2d(4, 3, 3), nn.Sigmoid()), floats(2, 6)),
        "tied": (tied(), floats(3, 6))}
    for name, more in {"plain": {}, "first": {"batch_first": True, "norm_first": True, "activation": "gelu"}}.items():
        layer = nn.TransformerEncoderLayer(8, 2, 16, **more)
        cases |= {f"encoder-layer-{name}": (layer, floats(4, 3, 8)), f"encoder-{name}": (nn.TransformerEncoder(layer, 2, trained(nn.LayerNorm(8)),
                                                                                                           enable_nested_tensor=False), floats(4, 3, 8))}
    return cases


def tied() -> nn.Module:
    first, second = nn.Linear(6, 6), nn.Linear(6, 6)
    second.weight = first.weight
    return nn.Sequential(first, nn.ReLU(), second)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.inner(x) * 2


def twice(module: nn.Module, args: object, output: torch.Tensor) -> torch.Tensor:
    return output * 2


def make(folder: Path) -> None:
    torch.manual_seed(0)
    arrays = {}
    for group in (layers, windows, shapes, norms, recurrent, networks):
        for name, (module, x) in group().items():
            module.eval()
            with torch.no_grad():
                result = module(x)
            torch.save(module, folder / f"{name}.pt", **({"_use_new_zipfile_serialization": False} if len(name) % 3 == 0 else {}))
            arrays[f"{name}/in"] = x.numpy()
            for place, value in enumerate(flat(result)):
                arrays[f"{name}/out{place}"] = value.numpy()
    np.savez(folder / "results.npz", **arrays)
    torch.save(nn.Sequential(nn.Linear(2, 3), Own()), folder / "own.pth")
    hooked = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    hooked[0].register_forward_hook(twice)
    torch.save(hooked, folder / "hooked.pth")
    torch.save({"model": nn.Sequential(nn.Linear(2, 3), nn.Dropout()), "epoch": 3}, folder / "trained.pth")


def flat(result: object) -> list[torch.Tensor]:
    return [result] if isinstance(result, torch.Tensor) else [tensor for item in result for tensor in flat(item)]  # type: ignore[attr-defined]


if __name__ == "__main__":
    make(Path(sys.argv[1]))

"""Runs inside an environment that has PyTorch.

    python torchscript_child.py stream FILE.jit OUT.npz          60 s of sound through silero_vad, chunk by chunk
    python torchscript_child.py make FOLDER                      small scripted, traced and exported modules, with inputs and what they give
"""
from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import torch
from torch import nn


def stream(file: Path, out: Path) -> None:
    model = torch.jit.load(str(file)).eval()
    arrays = {}
    for rate, size in ((16000, 512), (8000, 256)):
        generator = np.random.default_rng(rate)
        time = np.arange(60 * rate) / rate
        sound = (np.sin(2 * np.pi * 220 * time) * (np.sin(2 * np.pi * 0.5 * time) > 0) + 0.05 * generator.standard_normal(len(time))).astype(np.float32)
        chunks = np.stack([sound[start:start + size] for start in range(0, len(sound) - size + 1, size)])
        model.reset_states()
        with torch.no_grad():
            arrays[f"x{rate}"] = chunks
            arrays[f"y{rate}"] = np.stack([model(torch.from_numpy(chunk[None]), rate).numpy() for chunk in chunks])
    np.savez(out, **arrays)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(8, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.norm(self.conv(x)))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU6(), Residual(), nn.MaxPool2d(2), Residual(), nn.AdaptiveAvgPool2d(1))
        self.head = nn.Linear(8, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.softmax(self.head(torch.flatten(self.body(x), 1)), dim=-1)


class Attention(nn.Module):
    """One block of a transformer, as libraries write it: sizes are taken from the tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.norm, self.qkv, self.out = nn.Embedding(50, 32), nn.LayerNorm(32), nn.Linear(32, 96), nn.Linear(32, 32)
        self.more = nn.Sequential(nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32))

    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        x = self.embedding(ids)
        batch, length = x.shape[0], x.shape[1]
        q, k, v = self.qkv(self.norm(x)).view(batch, length, 3, 4, 8).permute(2, 0, 3, 1, 4).unbind(0)
        scores = q @ k.transpose(-2, -1) / 8 ** 0.5
        scores = scores.masked_fill(mask[:, None, None, :] == 0, -1e9)
        x = x + self.out((scores.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, 32))
        return x + self.more(x)


class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.lstm, self.gru = nn.LSTM(6, 7, num_layers=2, bidirectional=True, batch_first=True), nn.GRU(14, 5, batch_first=True)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        y, _ = self.lstm(x)
        z, last = self.gru(y)
        return z, last


class Choosing(nn.Module):
    """Branches on what the input holds, writes in place, and loops."""

    def forward(self, x: torch.Tensor, n: int) -> torch.Tensor:
        y = x.clone()
        y[:, 0] = 0
        y[:, 1:3] *= 2
        if bool(x.sum() > 0):
            y = y + 1
        else:
            y = y - n
        for i in range(3):
            y = y * (i + 1)
        return torch.cat([y, x], 1)


class Shapes(nn.Module):
    def forward(self, x: torch.Tensor) -> list[torch.Tensor]:
        a, b = x.chunk(2, 1)
        top, places = torch.topk(x, 2, dim=1)
        return [a.flatten(1), torch.stack([a, b], 0), x.mean((2, 3), keepdim=True), nn.functional.interpolate(x, scale_factor=2.0, mode="bilinear"),
                nn.functional.interpolate(x, scale_factor=2.0), torch.where(x > 0, x, x * 0.1), x.max(1)[0], top, places, nn.functional.pad(x, [1, 2, 0, 1]),
                torch.einsum("bchw,bdhw->bcd", x, x), x.clamp(-0.5, 0.5), nn.functional.group_norm(x, 2), x[:, :, ::2, 1:], x.std((2, 3)), x.cumsum(1),
                torch.arange(4, dtype=torch.float32) + x[0, 0, 0, :4], x.roll(1, 2), x.tril(), nn.functional.pixel_shuffle(x, 2), x.pow(3), x // 0.3]


class Equations(nn.Module):
    """What takes rounds: systems of equations, factors of matrices, polynomials of an order, spectra, bags, and writes where a mask is."""

    def forward(self, x: torch.Tensor, numbers: torch.Tensor) -> list[torch.Tensor]:
        n = numbers.long()
        square, right = x[:, :3] + torch.eye(3), x[:, 3:].transpose(1, 2)
        whole = square @ square.transpose(1, 2) + torch.eye(3)
        factor = torch.linalg.cholesky(whole)
        q, r = torch.linalg.qr(x)
        bags = nn.functional.embedding_bag(n, x[0], torch.tensor([0, 2, 2]), mode="mean")
        written = torch.index_put(x, [x > 0.5], (x * 2)[x > 0.5])
        return [torch.linalg.inv(square), torch.linalg.solve(square, right), torch.linalg.solve(square, x[:, 3]), torch.linalg.solve(square, x, left=False),
                factor, torch.cholesky_solve(right, factor), torch.linalg.solve_triangular(whole, right, upper=True), q, r,
                torch.linalg.matrix_power(square, -2), torch.special.legendre_polynomial_p(x[0, :, 0], n), torch.gcd(n * 6, n.flip(0) + 4),
                torch.fft.irfftn(x), bags, written, torch.mode(n)[0]]


PACKAGES = {"outer_part/__init__.py": "", "outer_part/inner_part/__init__.py": "", "outer_part/shared.py": """
import torch
@torch.jit.script
def doubled(x: torch.Tensor) -> torch.Tensor:
    return x * 2
""", "outer_part/inner_part/nets.py": """
import torch
from outer_part.shared import doubled
class Block(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = torch.nn.Linear(3, 3)
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return doubled(self.layer(x))
class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.blocks = torch.nn.ModuleList([Block(), Block()])
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for block in self.blocks:
            x = torch.relu(block(x))
        return x
"""}


def packaged(folder: Path) -> nn.Module:
    """A module whose classes and functions stand in packages inside packages: code/__torch__/outer_part/inner_part/nets.py."""
    for name, text in PACKAGES.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    sys.path.insert(0, str(folder))
    return importlib.import_module("outer_part.inner_part.nets").Net()


def make(folder: Path) -> None:
    torch.manual_seed(0)
    ids, mask = torch.randint(0, 50, (2, 7)), torch.tensor([[1] * 7, [1] * 4 + [0] * 3])
    cases = {"network": (Network(), (torch.randn(2, 3, 32, 32),), (torch.randn(3, 3, 32, 32),)),
             "attention": (Attention(), (ids, mask), (torch.randint(0, 50, (3, 9)), torch.ones(3, 9, dtype=torch.int64))),
             "recurrent": (Recurrent(), (torch.randn(2, 9, 6),), (torch.randn(3, 4, 6),)),
             "shapes": (Shapes(), (torch.randn(2, 4, 6, 6),), (torch.randn(2, 4, 6, 6),)),
             "equations": (Equations(), (torch.randn(2, 5, 3), torch.arange(5.0)), (torch.randn(2, 5, 3), torch.tensor([3.0, 0, 4, 4, 1]))),
             "packaged": (packaged(folder), (torch.randn(2, 3),), (torch.randn(4, 3),)),
             "choosing": (Choosing(), (torch.randn(2, 5), 3), (-torch.rand(2, 5), 3))}
    for name, (module, first, second) in cases.items():
        module.eval()
        kinds = {"scripted": lambda m, x: torch.jit.script(m), "traced": lambda m, x: torch.jit.trace(m, x),
                 "frozen": lambda m, x: torch.jit.freeze(torch.jit.script(m))}
        for kind, make_module in kinds.items():
            if name == "choosing" and kind == "traced":
                continue
            made = make_module(module, first)
            torch.jit.save(made, str(folder / f"{name}-{kind}.pt"))
        arrays = {}
        for call, inputs in enumerate((first, second)):
            with torch.no_grad():
                result = module(*inputs)
            arrays |= {f"in{call}_{place}": np.asarray(value) for place, value in enumerate(inputs)}
            arrays |= {f"out{call}_{place}": value.numpy() for place, value in enumerate(result if isinstance(result, (tuple, list)) else [result])}
        np.savez(folder / f"{name}.npz", **arrays)
    export(folder, cases)


class Counting(nn.Module):
    """A buffer that a call changes."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("total", torch.zeros(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.total.add_(x.sum(0))
        return self.total * 2


def export(folder: Path, cases: dict) -> None:
    batch, length = torch.export.Dim("batch"), torch.export.Dim("length")
    shapes = {"network": ({0: batch},), "attention": ({0: batch, 1: length},) * 2, "shapes": None, "recurrent": ({0: batch},), "equations": None}
    for name, dynamic in shapes.items():
        module, first, _ = cases[name]
        program = torch.export.export(module, first if name != "recurrent" else (torch.randn(2, 4, 6),), dynamic_shapes=dynamic)
        torch.export.save(program, folder / f"{name}.pt2")
        torch.export.save(program.run_decompositions(), folder / f"{name}-core.pt2")
    torch.export.save(torch.export.export(Counting(), (torch.ones(2, 3),)), folder / "counting.pt2")


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    {"make": make, "stream": stream}[command](*map(Path, paths))

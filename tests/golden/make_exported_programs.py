"""Makes the exported programs of tests/golden/exported_programs: the same three modules, written by the PyTorch that runs this.

    python tests/golden/make_exported_programs.py tests/golden/exported_programs

Run it with each release whose layout is another one: 2.1 (members of unions that are null, a signature by name), 2.2 (specifications in order, pickles called
.json), 2.4 (pickles called .pt), 2.6 (schema 8), 2.8 (an archive with pickled weights), 2.13 (raw weights). Inputs and what the module gives for them stand
beside each program.
"""
from __future__ import annotations

import re
import sys
import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

PLACE = re.compile(rb"(?<![\w.])(?:/[\w.-]+)+/(?=[\w-]+\.py)")
RELEASE = torch.__version__.partition("+")[0]


class Net(nn.Module):
    """Parameters, a buffer, a constant, two inputs that share an open size, two outputs."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv1d(2, 3, 3, padding=1), nn.Linear(3, 4)
        self.register_buffer("shift", torch.arange(4.0))
        self.scale = torch.tensor([2.0])

    def forward(self, x, y):
        z = self.head(torch.relu(self.conv(x)).mean(-1)) * self.scale + self.shift
        return z.reshape(x.shape[0] * 2, 2), torch.cat([z, y.to(torch.float32)], 1).softmax(-1)


class Counter(nn.Module):
    """A buffer that every run changes."""

    def __init__(self):
        super().__init__()
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, x):
        self.seen.add_(x.sum())
        return x * self.seen


class Branch(nn.Module):
    """A condition of the run."""

    def forward(self, x):
        from functorch.experimental.control_flow import cond
        return cond(x.sum() > 0, lambda x: x.sin(), lambda x: x.cos(), [x])


def exported(module, inputs, names):
    from torch import export
    if not names:
        return export.export(module, inputs)
    if RELEASE.startswith("2.1."):
        first = export.dynamic_dim(inputs[0], 0)
        return export.export(module, inputs, constraints=[first, *(export.dynamic_dim(other, 0) == first for other in inputs[1:])])
    batch = export.Dim("batch")
    return export.export(module, inputs, dynamic_shapes={name: {0: batch} for name in names})


def without_places(path: Path) -> None:
    """Forgets in which folders the code stood that each node came from."""
    with zipfile.ZipFile(path) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, PLACE.sub(b"", content) if content[:1] == b"{" else content)


def main(folder: Path) -> None:
    torch.manual_seed(0)
    cases = {"net": (Net(), (torch.randn(5, 2, 6), torch.arange(10).reshape(5, 2)), ("x", "y")), "counter": (Counter(), (torch.randn(3, 4),), ()),
             "branch": (Branch(), (torch.randn(3, 4),), ())}
    for name, (module, inputs, names) in cases.items():
        given = tuple(value.clone() for value in inputs)
        torch.export.save(exported(module.eval(), inputs, names), folder / f"{name}-{RELEASE}.pt2")
        without_places(folder / f"{name}-{RELEASE}.pt2")
        results = (Counter() if name == "counter" else module)(*given)           # exporting may have counted already
        results = results if isinstance(results, tuple) else (results,)
        np.savez(folder / f"{name}-{RELEASE}.npz", **{f"in{place}": value.numpy() for place, value in enumerate(given)},
                 **{f"out{place}": value.detach().numpy() for place, value in enumerate(results)})


if __name__ == "__main__":
    main(Path(sys.argv[1]))

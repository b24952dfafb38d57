"""Runs inside an environment that has PyTorch: makes files, and says what PyTorch loads from a file, as arrays of bytes in an .npz.

    python torch_child.py make FOLDER            python torch_child.py load FILE OUT.npz
"""
from __future__ import annotations

import collections
import json
import sys
from pathlib import Path

import numpy as np
import torch

DTYPES = ("float32", "float64", "float16", "bfloat16", "uint8", "int8", "int16", "int32", "int64", "bool", "complex64", "complex128")
NEWER = ("uint16", "uint32", "uint64", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")


def every_dtype(names: tuple[str, ...]) -> dict:
    torch.manual_seed(0)
    state = collections.OrderedDict()
    for name in names:
        state[name] = (torch.randn(3, 4) * 3).abs().to(getattr(torch, name)) if name != "bool" else torch.rand(3, 4) > 0.5
    base = torch.arange(24.0).reshape(4, 6)
    state |= {"scalar": torch.tensor(3.5), "empty": torch.zeros(0, 3), "turned": base.t(), "row": base[1], "stepped": base[::2, 1::2], "whole": base,
              "again": base, "expanded": torch.ones(1, 3).expand(5, 3), "parameter": torch.nn.Parameter(torch.randn(2, 2))}
    return state


def make(folder: Path) -> None:
    state = every_dtype(DTYPES + NEWER)
    for protocol in (2, 3, 4, 5):
        torch.save(state, folder / f"protocol{protocol}.pt", pickle_protocol=protocol)
    torch.save({name: value for name, value in state.items() if name != "complex128"}, folder / "shared.pt")
    torch.save(every_dtype(DTYPES), folder / "legacy.pt", _use_new_zipfile_serialization=False)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(144, 5))
    optimizer = torch.optim.Adam(network.parameters())
    network(torch.randn(2, 3, 8, 8)).sum().backward()
    optimizer.step()
    torch.save({"model": network.state_dict(), "optimizer": optimizer.state_dict(), "epoch": 7}, folder / "training.pt")
    torch.save({"state_dict": network.state_dict(), "epoch": 3, "hyper_parameters": {"lr": 0.1}, "pytorch-lightning_version": "2.5"}, folder / "lightning.ckpt")
    torch.save(network, folder / "module.pt")
    torch.save({"a": {"b": [torch.ones(2), {"c": torch.zeros(3)}]}}, folder / "nested.pt")
    torch.save(odd(), folder / "odd.pt")
    index = {"metadata": {"total_size": 1}, "weight_map": {}}
    for number, names in enumerate((DTYPES, NEWER)):
        torch.save({name: state[name] for name in names}, folder / f"pytorch_model-{number}.bin")
        index["weight_map"] |= dict.fromkeys(names, f"pytorch_model-{number}.bin")
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))


def odd() -> dict:
    """What is no plain dense tensor, of values that the test knows."""
    dense = torch.tensor([[0.0, 1.5, 0.0], [2.5, 0.0, 3.5]])
    return {"coo": dense.to_sparse(), "csr": dense.to_sparse_csr(), "csc": dense.to_sparse_csc(), "meta": torch.empty(2, 3, device="meta"),
            "per_tensor": torch.quantize_per_tensor(dense, 0.5, 3, torch.quint8),
            "per_channel": torch.quantize_per_channel(dense, torch.tensor([0.5, 0.25], dtype=torch.float64), torch.tensor([1, 2]), 0, torch.qint8),
            "jagged": torch.nested.nested_tensor([torch.ones(2, 3), torch.zeros(1, 3)], layout=torch.jagged),
            "half": torch.tensor([1 + 2j, 3 - 4j], dtype=torch.complex32), "overlapping": torch.arange(5.0).as_strided((3, 3), (1, 1)),
            "list": [np.float32(1.5), np.arange(3), {"deep": torch.nn.Parameter(torch.ones(2))}]}


def flat(value: object, name: str = "") -> dict[str, torch.Tensor]:
    if isinstance(value, torch.nn.Module):
        value = value.state_dict()
    if isinstance(value, torch.Tensor):
        return {name: value}
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, (list, tuple)) else ()
    found: dict[str, torch.Tensor] = {}
    for key, item in items:
        found |= flat(item, f"{name}.{key}" if name else str(key))
    return found


def load(file: Path, out: Path) -> None:
    """Bytes, dtype, shape and storage address of every tensor; `weights_only` unless the file holds a module."""
    tensors = flat(torch.load(file, map_location="cpu", weights_only=not file.name.startswith(("module", "protocol"))))
    arrays = {}
    facts = {}
    for name, tensor in tensors.items():
        tensor = tensor.detach()
        facts[name] = [str(tensor.dtype).removeprefix("torch."), list(tensor.shape), tensor.untyped_storage().data_ptr()]
        arrays[name] = np.array(tensor.contiguous().flatten().view(torch.uint8)) if tensor.numel() else np.zeros(0, np.uint8)
    np.savez(out, __facts__=np.array(json.dumps(facts)), **arrays)


if __name__ == "__main__":
    command, *paths = sys.argv[1:]
    {"make": make, "load": load}[command](*map(Path, paths))

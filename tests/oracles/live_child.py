"""Runs in an environment with PyTorch: modules and state dicts there and back through isomorph, in one process."""
import sys

import torch

import isomorph
import isomorph.errors

torch.manual_seed(0)
module = torch.nn.Sequential(torch.nn.Conv2d(1, 4, 3, padding=1), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(4 * 36, 5)).eval()
batch = torch.export.Dim("batch", min=1, max=64)
model = isomorph.from_torch(module, [torch.randn(2, 1, 6, 6)], dynamic_shapes=({0: batch},))
assert [str(dim) for dim in model.graph.inputs[0].shape][1:] == ["1", "6", "6"]
back = isomorph.to_torch(model)
assert {name for name, _ in back.named_parameters()} == {name for name, _ in module.named_parameters()}, [name for name, _ in back.named_parameters()]
for rows in (1, 3):
    x = torch.randn(rows, 1, 6, 6)
    assert torch.allclose(module(x), back(x), atol=1e-5)
back(torch.randn(2, 1, 6, 6)).sum().backward()
assert all(parameter.grad is not None for parameter in back.parameters())
weights = isomorph.to_torch(isomorph.from_torch(module.state_dict()))
assert all(torch.equal(value, weights[name]) for name, value in module.state_dict().items())
try:
    isomorph.from_torch(3)
except isomorph.errors.Usage:
    sys.stdout.write("done")

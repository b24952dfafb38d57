"""PyTorch: aten operators to ONNX and back. Programs are mapped while they are read, because their code branches on ranks; `to_hub` says what could not be."""
from __future__ import annotations

from isomorph.errors import Unsupported
from isomorph.model import Model


def to_hub(model: Model) -> Model:
    """The same model as ONNX. Raises `Unsupported` with every call that has no mapping."""
    blockers = model.metadata.get("blockers")
    if blockers:
        raise Unsupported(f"{len(blockers)} parts of the program cannot be mapped, the first is {blockers[0][0]}: {blockers[0][2]}", blockers=blockers)
    metadata = {name: value for name, value in model.metadata.items() if name not in ("operators", "blockers")}
    return Model(model.ir, "onnx", model.signatures, metadata, model.findings)


def from_hub(model: Model) -> Model:
    """The same computation in calls of aten. Raises `Unsupported` with every operator that has none."""
    from isomorph.dialects.torch.from_onnx import pipeline
    return pipeline.from_hub(model)

"""PyTorch objects of the caller, in memory: the only place that uses PyTorch in the caller's own process, and only when it is called."""
from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from isomorph.errors import Missing, Unsupported, Usage
from isomorph.model import Checkpoint, Model


def from_torch(source: Any, example_inputs: Sequence[Any] = (), *, example_keywords: Mapping[str, Any] | None = None, dynamic_shapes: Any = None
               ) -> Model | Checkpoint:
    """A `torch.nn.Module` (or what `torch.export` made of one) as a `Model` in ONNX operators, a state dict as a `Checkpoint`.

    A module is exported by `torch.export` with `example_inputs`; `dynamic_shapes` is what that function calls so and says which sizes stay open.
    Raises `Missing` where PyTorch is not installed, `Unsupported` where the module cannot be exported or has operators without a mapping.
    """
    torch = _torch()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if isinstance(source, Mapping):
            torch.save(dict(source), Path(folder) / "weights.pt")
            return _read(Path(folder) / "weights.pt", "torch")
        program = source
        if isinstance(source, torch.nn.Module):
            try:
                program = torch.export.export(source, tuple(example_inputs), dict(example_keywords or {}), dynamic_shapes=dynamic_shapes)
            except Exception as error:              # whatever the user's code or PyTorch's tracing raises
                raise Unsupported(f"torch.export does not take the module: {str(error).strip()[:400]}", where=type(source).__name__) from error
        if not isinstance(program, torch.export.ExportedProgram):
            raise Usage(f"a {type(source).__name__} is no module, exported program or state dict")
        torch.export.save(program, str(Path(folder) / "program.pt2"))
        return _read(Path(folder) / "program.pt2", "torch_export")


def to_torch(content: Model | Checkpoint) -> Any:
    """A `Model` as a `torch.nn.Module` whose parameters can be trained and keep their names, a `Checkpoint` as a state dict.

    Raises `Missing` where PyTorch is not installed, `Unsupported` with every operator or element type that it lacks.
    """
    from isomorph.dialects import from_hub, to_hub
    from isomorph.formats import _table
    torch = _torch()
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        if isinstance(content, Checkpoint):
            _table.get("torch").writer(content, Path(folder) / "weights.pt")
            return torch.load(Path(folder) / "weights.pt", weights_only=True)
        path = Path(folder) / "program.pt2"
        _table.get("torch_export").writer(from_hub(to_hub(content), "torch"), path)
        return torch.export.load(str(path)).module()


def _read(path: Path, form: str) -> Any:
    """Read while the file is there; its pages stay mapped when its name is gone."""
    from isomorph.artifact import Artifact
    from isomorph.dialects import to_hub
    from isomorph.formats import _table
    content = _table.get(form).reader(Artifact.open(path))
    return content if isinstance(content, Checkpoint) else to_hub(content)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise Missing("PyTorch is not installed here", where="torch", hint="run `pip install 'isomorph[torch]'`") from error
    return torch

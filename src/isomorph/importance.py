"""An importance matrix from a text: the language model runs over it in ONNX Runtime, and the squares of what each weight is multiplied with are summed.

The same is measured as by llama-imatrix: chunks of 512 tokens, each from an empty cache, all positions; the output layer is left out.
"""
from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isomorph.errors import Unsupported, Usage
from isomorph.formats import _table
from isomorph.generation import Generation
from isomorph.progress import SILENT, Progress
from isomorph.report import Finding, Report, Severity

if TYPE_CHECKING:
    import numpy as np
    import onnx_ir as ir

    from isomorph.model import Model

STORED = (".turned", ".codes")              # how the stored form of a weight is called in the graph
MEASURED = "blk."


def measure_importance(source: Any, text: str | Path, destination: str | Path, *, chunk: int = 512, chunks: int | None = None, threads: int = 0,
                       force: bool = False, progress: Progress = SILENT) -> Report:
    """Writes the importance matrix of a language model (GGUF or Hugging Face weights) over the text in a file, as GGUF that `quantize` takes.

    `chunk` is in tokens, `chunks` how many of them at most. Facts: `weights`, `chunks`, `tokens`. Raises `Unsupported` for what is no language model,
    `Usage` for a text that is shorter than one chunk.
    """
    import numpy as np

    from isomorph.quant.importance import checkpoint
    from isomorph.runtime import Session
    reader = Generation(source, threads=threads)
    model = reader.prepare()
    tokens = reader.prompt(Path(text).read_text("utf-8", "replace"), chat=False)
    count = min(len(tokens) // chunk, chunks or len(tokens))
    if not count:
        raise Usage(f"the text has {len(tokens)} tokens, and one chunk takes {chunk}", where=str(text), hint="give a longer text")
    empty, findings = _observe(model), _stacked(model)
    sums: dict[str, np.ndarray] = {}
    with tempfile.TemporaryDirectory(prefix="isomorph-") as folder:
        path = Path(folder) / "model.onnx"
        _table.get("onnx").writer(model, path)
        progress.start("measure", count, "chunks")
        with Session(path, "onnx", threads=threads or os.cpu_count() or 1, timeout=600.0) as session:
            for place in range(count):
                given = np.asarray([reader.window(tokens, place, chunk)], np.int64)
                feeds = {"input_ids": given, "attention_mask": np.ones_like(given), "position_ids": np.arange(chunk, dtype=np.int64)[None]} | empty
                found = session.run({port.name: feeds[port.name] for port in session.inputs()})
                for name, values in found.items():
                    sums[name] = sums.get(name, 0) + values.astype(np.float64)
                progress.advance(1)
        progress.finish()
    content = checkpoint(sums, dict.fromkeys(sums, count * chunk), chunks=count, chunk=chunk, texts=[str(text)])
    written = _table.get("gguf").writer(content, Path(destination), force=force)
    facts = {"path": written.subject, "weights": len(sums), "chunks": count, "tokens": count * chunk}
    return Report(written.subject, [*reader.findings, *findings], facts)


def _observe(model: Model) -> dict[str, np.ndarray]:
    """Leaves of the graph's outputs only sums of squares, one for each weight of a layer under its name; answers empty keys and values."""
    import numpy as np
    import onnx_ir as ir

    from isomorph.passes.tidy import sweep
    from isomorph.tensors import array_tensor
    graph = model.graph
    axes = ir.Value(name="importance.axes", type=ir.TensorType(ir.DataType.INT64), shape=ir.Shape([2]), const_value=array_tensor(np.asarray([0, 1])))
    graph.register_initializer(axes)
    graph.outputs.clear()
    for node, name in list(_products(graph)):
        squares = ir.node("ReduceSumSquare", [node.inputs[0], axes], {"keepdims": 0})
        squares.outputs[0].name, squares.outputs[0].type = name, ir.TensorType(ir.DataType.FLOAT)
        squares.outputs[0].shape = ir.Shape([None])
        graph.insert_after(node, squares)
        graph.outputs.append(squares.outputs[0])
    if not graph.outputs:
        raise Unsupported("the graph has no products with weights of layers", where=graph.name or "", hint="importance is measured for decoders")
    sweep(graph)
    empty = {}
    for value in graph.inputs:
        if (value.name or "").startswith("past_key_values."):
            dims = [dim if isinstance(dim, int) else 0 for dim in value.shape or ()]
            empty[value.name or ""] = np.zeros([1, *dims[1:]], value.dtype.numpy() if value.dtype else np.float32)
    return empty


def _products(graph: ir.Graph) -> Iterator[tuple[ir.Node, str]]:
    """The products with a weight of a layer, each weight once, with the weight's name."""
    seen = set()
    for node in graph:
        if node.op_type not in ("MatMul", "MatMulNBits"):
            continue
        weight: Any = node.inputs[1]
        before = weight.producer()
        stored = (before.inputs[0] if before is not None and before.op_type == "Cast" else weight).name or ""
        name = next((stored.removesuffix(end) for end in STORED if stored.endswith(end)), "")
        if name.startswith(MEASURED) and name.endswith(".weight") and name not in seen:
            seen.add(name)
            yield node, name


def _stacked(model: Model) -> list[Finding]:
    """What is said of experts, whose tokens are chosen inside of the graph."""
    experts = sorted({name for name in model.graph.initializers if "_exps." in name})
    return [Finding("importance.experts", Severity.MEDIUM, experts[0], "weights of experts are not measured", "llama-imatrix measures them")] if experts else []

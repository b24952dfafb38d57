"""The ONNX backend node tests as conversions: which cases there are, how one is run, how its result is judged.

A case counts when it passes as it is, or with its auxiliary inputs (axes, shapes, weights, scales) made initializers, as they are in real models.
"""

from __future__ import annotations

import subprocess
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from isomorph.errors import IsomorphError
from isomorph.runtime import Runtime, pipe
from isomorph.runtime.session import started

RELATIVE, ABSOLUTE_OF_SCALE = 1e-3, 1e-5
# Formal input names that real models keep as constants. Data, states, indices and masks are not among them.
AUXILIARY = {
    "axes", "axis", "shape", "scales", "sizes", "roi", "pads", "constant_value", "repeats", "starts", "ends", "steps", "split", "k", "K", "depth", "values",
    "W", "R", "B", "P", "w", "weight", "scale", "bias", "b_scale", "b_zero_point", "a_scale", "a_zero_point", "y_scale", "y_zero_point", "x_scale",
    "x_zero_point", "w_scale", "w_zero_point", "mean", "var", "input_mean", "input_var", "min", "max", "output_shape", "image_shape", "block_shape", "size",
    "dft_length", "frame_length", "frame_step", "window", "max_output_boxes_per_class", "iou_threshold", "score_threshold", "slope", "M", "sequence_lens",
    "condition", "zero_point", "to", "new_shape", "start", "limit", "delta", "num_mel_bins", "sample_rate", "lower_edge_hertz", "upper_edge_hertz", "rois",
    "batch_indices", "cos_cache", "sin_cache", "scale_factor", "pooled_shape", "trip_count", "ratio", "training_mode"}


@dataclass(frozen=True)
class Case:
    """One node test: its model and pairs of inputs and expected outputs."""

    name: str
    model: onnx.ModelProto
    data: list[tuple[list[Any], list[Any]]]

    @property
    def kind(self) -> str:
        """The element type of the first output, by which the cases are counted."""
        kind = self.model.graph.output[0].type
        if kind.HasField("tensor_type"):
            return onnx.helper.tensor_dtype_to_np_dtype(kind.tensor_type.elem_type).name if kind.tensor_type.elem_type != 8 else "string"
        return kind.WhichOneof("value").removesuffix("_type")


@cache
def cases() -> dict[str, Case]:
    """All node tests of the installed onnx package."""
    warnings.simplefilter("ignore")
    from onnx.backend.test.case.node import collect_testcases

    found = {}
    for case in collect_testcases(None):
        data = [([_array(x) for x in inputs], [_array(x) for x in outputs]) for inputs, outputs in case.data_sets]
        found[case.name] = Case(case.name, case.model, data)
    return found


def _array(value: Any) -> Any:
    """The package gives scalars as NumPy scalars, and types that NumPy does not have as protocol buffers."""
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    return np.asarray(value) if isinstance(value, np.generic) else value


def variants(case: Case) -> Iterator[tuple[str, onnx.ModelProto, set[str]]]:
    """The model as it is, then with auxiliary inputs as initializers; with the names of what is still fed."""
    names = [value.name for value in case.model.graph.input]
    yield "as is", case.model, set(names)
    fixed = auxiliary(case)
    if fixed:
        model = onnx.ModelProto()
        model.CopyFrom(case.model)
        for name, array in zip(names, case.data[0][0], strict=False):
            if name in fixed and isinstance(array, np.ndarray):
                model.graph.initializer.append(onnx.numpy_helper.from_array(array, name))
        kept = [value for value in model.graph.input if value.name not in fixed]
        del model.graph.input[:]
        model.graph.input.extend(kept)
        yield "constants", model, set(names) - fixed


def auxiliary(case: Case) -> set[str]:
    """Graph inputs that every node reads only as auxiliary inputs."""
    found, data = set(), set()
    opsets = {item.domain: item.version for item in case.model.opset_import}
    graph_inputs = {value.name for value in case.model.graph.input}
    original = cases().get(case.name.split("_expanded")[0])
    if original is not None and original.name != case.name:
        return auxiliary(original) & graph_inputs
    for node in case.model.graph.node:
        try:
            schema = onnx.defs.get_schema(node.op_type, opsets.get(node.domain, 1), node.domain)
        except onnx.defs.SchemaError:
            continue
        for index, name in enumerate(node.input):
            formal = schema.inputs[min(index, len(schema.inputs) - 1)].name
            (
                found
                if (formal in AUXILIARY and index > 0) or formal in ("shape", "start", "limit", "delta", "num_mel_bins") or _is_weight(node.op_type, index)
                else data
            ).add(name)
    return (found - data) & graph_inputs


def _is_weight(op_type: str, index: int) -> bool:
    return index > 0 and op_type in (
        "Conv", "ConvTranspose", "ConvInteger", "QLinearConv", "Gemm", "MatMul", "MatMulInteger", "QLinearMatMul", "LSTM", "GRU", "RNN", "BatchNormalization",
        "InstanceNormalization", "LayerNormalization", "GroupNormalization", "PRelu", "QuantizeLinear", "DequantizeLinear", "DeformConv")


def equal(got: Any, expected: Any) -> str:
    """Empty where a result is right, else what is wrong."""
    if isinstance(expected, list) or expected is None:
        return "a sequence or optional cannot be a result here"
    expected = np.asarray(expected)
    got = np.asarray(got)
    if got.shape != expected.shape:
        return f"shape {got.shape} instead of {expected.shape}"
    if expected.dtype.kind in "OSU":
        same = [x.decode() if isinstance(x, bytes) else str(x) for x in got.ravel()] == [
            x.decode() if isinstance(x, bytes) else str(x) for x in expected.ravel()
        ]
        return "" if same else "different text"
    if got.dtype != expected.dtype:
        return f"dtype {got.dtype} instead of {expected.dtype}"
    wide = np.complex128 if expected.dtype.kind == "c" else np.float64
    a, b = got.astype(wide), expected.astype(wide)
    if not np.array_equal(np.isnan(a), np.isnan(b)):
        return "NaN in other places"
    finite = np.isfinite(b)
    scale = float(np.abs(b[finite]).max()) if finite.any() else 1.0
    if not np.array_equal(a[~finite & ~np.isnan(b)], b[~finite & ~np.isnan(b)]):
        return "infinities differ"
    with np.errstate(invalid="ignore"):
        error = np.abs(a - b)[finite]
    wrong = error > ABSOLUTE_OF_SCALE * scale + RELATIVE * np.abs(b[finite])
    return f"{int(wrong.sum())} of {b.size} elements differ, by up to {error.max():.3g}" if wrong.any() else ""


class Runner:
    """A child process that loads and runs one file after another in a runtime; started again after a crash."""

    def __init__(self, runtime: Runtime):
        self.runtime, self.process = runtime.required(), None

    def __call__(self, path: Path, feeds: dict[str, np.ndarray], **options: Any) -> dict[str, Any]:
        """Outputs by name. Raises RuntimeError with what the runtime said, or that it died."""
        if self.process is None or self.process.poll() is not None:
            self.process = started(self.runtime, subprocess.DEVNULL)
        try:
            for request in (
                {"do": "load", "with": {"module": self.runtime.module, "path": str(path), "threads": 1, "options": options}},
                {"do": "run", "with": {"feeds": feeds}},
            ):
                pipe.send(self.process.stdin, request)
                answer = pipe.receive(self.process.stdout)
                if "error" in answer:
                    raise RuntimeError(answer["error"])
                ports = answer.get("inputs", [])
                missing = {port["name"] for port in ports} ^ set(feeds)
                if ports and missing:
                    raise RuntimeError(f"inputs differ: {sorted(missing)}")
            return answer["outputs"]
        except (EOFError, BrokenPipeError, OSError) as dead:
            self.close()
            raise RuntimeError("the runtime died") from dead

    def close(self) -> None:
        """Ends the child process."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None


def attempt(case: Case, convert: Any, run: Any) -> tuple[str, str]:
    """("pass" | "refused" | "failed" | "wrong" | "bug", why) of the best variant. `convert(proto) -> path`, `run(path, feeds) -> outputs`."""
    best = ("refused", "")
    for variant, model, fed in variants(case):
        verdict = _attempt(case, model, fed, convert, run)
        if verdict[0] == "pass":
            return "pass", variant
        best = verdict if not best[1] or ORDER.index(verdict[0]) > ORDER.index(best[0]) else best
    return best


ORDER = ["refused", "bug", "failed", "wrong"]


def _attempt(case: Case, model: onnx.ModelProto, fed: set[str], convert: Any, run: Any) -> tuple[str, str]:
    try:
        path = convert(model)
    except IsomorphError as error:
        blockers = getattr(error, "blockers", None)
        return "refused", "; ".join(f"{op}: {why}" for op, _, why in blockers) if blockers else str(error)
    except Exception as error:
        return "bug", f"{type(error).__name__}: {error}"
    names = [value.name for value in case.model.graph.input]
    for inputs, expected in case.data:
        feeds = {name: array for name, array in zip(names, inputs, strict=False) if name in fed}
        if any(not isinstance(array, np.ndarray) for array in feeds.values()):
            return "refused", "a sequence or optional is fed"
        try:
            outputs = run(path, feeds)
        except RuntimeError as error:
            return "failed", str(error)[:300]
        for value, wanted in zip(model.graph.output, expected, strict=False):
            if value.name not in outputs:
                return "wrong", f"no output {value.name}"
            why = equal(outputs[value.name], wanted)
            if why:
                return "wrong", f"{value.name}: {why}"
    return "pass", ""

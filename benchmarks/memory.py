"""How much memory the conversion of a model of several gigabytes takes. The model is generated, and deleted afterwards."""
from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.cases import ROOT
from benchmarks.environments import Environment
from benchmarks.processes import anonymous_peak
from isomorph.formats import _table

WIDTH = 4096
LAYER_BYTES = 4 * WIDTH * WIDTH                     # 64 MiB, the largest tensor
CONVOLUTIONS = 4                                    # their weights are stored in another order in TensorFlow Lite
CHANNELS = (1024, 1024, 3, 3)


def measure(ours: Environment, gigabytes: float) -> dict[str, Any]:
    """Greatest anonymous memory of each conversion in bytes, and that of converting a model of 56 kB, which is what the imports take."""
    with tempfile.TemporaryDirectory(dir=ROOT / "benchmarks", prefix=".memory-") as scratch:
        folder = Path(scratch)
        source = generate(folder, int(gigabytes * 1e9))
        small = ROOT / "src" / "isomorph" / "data" / "digits.onnx"
        found: dict[str, Any] = {"bytes": sum(path.stat().st_size for path in folder.iterdir()), "largest_tensor": LAYER_BYTES, "routes": {}}
        for route in ROUTES:
            before, _, after = route.partition(" → ")
            start = source if before == "onnx" else folder / _table.output_name(before, "big")
            end = folder / _table.output_name(after, "again" if after == "onnx" else "big")
            if before == "onnx":
                base = _peak(ours, small, folder / _table.output_name(after, "small"))[0]
            else:
                base = found["routes"][f"onnx → {before}"]["baseline"]
            peak, code = _peak(ours, start, end)
            found["routes"][route] = {"baseline": base, "peak": peak, "above": peak - base, "code": code, "bytes": sum(map(_size, _files(end, folder)))}
            if after == "onnx":
                _delete([*_files(end, folder), *(_files(start, folder) if start != source else [])])
    return found


# A format that is written stays until it has been read again.
ROUTES = ("onnx → tflite", "onnx → onnx", "tflite → onnx", "onnx → saved_model", "saved_model → onnx", "onnx → tfjs_graph", "tfjs_graph → onnx")


def _peak(ours: Environment, source: Path, result: Path) -> tuple[int, int]:
    command = [str(ours.python), "-m", "isomorph", "convert", str(source), str(result), "--no-verify", "--quiet", "--force"]
    return anonymous_peak(command, ours.variables)


def _files(path: Path, folder: Path) -> list[Path]:
    """The files of an output: those of its own folder, or those whose names begin like it."""
    return [part for part in (path.parent.rglob("*") if path.parent != folder else folder.glob(f"{path.name}*")) if part.is_file()]


def _size(path: Path) -> int:
    return path.stat().st_size


def _delete(paths: list[Path]) -> None:
    for path in paths:
        path.unlink()


def generate(folder: Path, size: int) -> Path:
    """A chain of convolutions and of dense layers, their weights in a sparse file beside the graph. No two are equal: each starts with its number."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper
    layers = max(1, -(-(size - CONVOLUTIONS * 4 * math.prod(CHANNELS)) // LAYER_BYTES))
    shapes = {f"filter{index}": CHANNELS for index in range(CONVOLUTIONS)} | {f"dense{index}": (WIDTH, WIDTH) for index in range(layers)}
    tensors, place = [], 0
    with open(folder / "weights.bin", "wb") as file:
        for number, (name, shape) in enumerate(shapes.items()):
            length = 4 * math.prod(shape)
            tensor = TensorProto(name=name, data_type=TensorProto.FLOAT, dims=shape, data_location=TensorProto.EXTERNAL)
            for key, value in (("location", "weights.bin"), ("offset", str(place)), ("length", str(length))):
                tensor.external_data.add(key=key, value=value)
            tensors.append(tensor)
            file.seek(place)
            file.write(np.float32(number + 1).tobytes())
            place += length
        file.truncate(place)
    nodes = [helper.make_node("Conv", [f"c{index}", f"filter{index}"], [f"c{index + 1}"], pads=[1, 1, 1, 1]) for index in range(CONVOLUTIONS)]
    nodes.append(helper.make_node("Flatten", [f"c{CONVOLUTIONS}"], ["d0"]))
    nodes += [helper.make_node("MatMul", [f"d{index}", f"dense{index}"], [f"d{index + 1}"]) for index in range(layers)]
    graph = helper.make_graph(nodes, "big", [helper.make_tensor_value_info("c0", TensorProto.FLOAT, [1, CHANNELS[1], 2, 2])],
                              [helper.make_tensor_value_info(f"d{layers}", TensorProto.FLOAT, [1, WIDTH])], tensors)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=9), folder / "big.onnx")
    return folder / "big.onnx"

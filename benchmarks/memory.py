"""How much memory the conversion of a model of several gigabytes takes. The model is generated, and deleted afterwards."""
from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.cases import ROOT
from benchmarks.environments import Environment
from benchmarks.processes import anonymous_peak

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
        routes = {"onnx → tflite": (source, folder / "big.tflite", small), "onnx → onnx": (source, folder / "again.onnx", small),
                  "tflite → onnx": (folder / "big.tflite", folder / "back.onnx", None)}
        for route, (start, end, baseline) in routes.items():
            base = _peak(ours, baseline, folder / f"small{end.suffix}")[0] if baseline else found["routes"]["onnx → tflite"]["baseline"]
            peak, code = _peak(ours, start, end)
            found["routes"][route] = {"baseline": base, "peak": peak, "above": peak - base, "code": code, "bytes": _size(end)}
            if route != "onnx → tflite":
                _delete(end)
    return found


def _peak(ours: Environment, source: Path, result: Path) -> tuple[int, int]:
    command = [str(ours.python), "-m", "isomorph", "convert", str(source), str(result), "--no-verify", "--quiet", "--force"]
    return anonymous_peak(command, ours.variables)


def _size(path: Path) -> int:
    return sum(part.stat().st_size for part in path.parent.glob(f"{path.name}*"))


def _delete(path: Path) -> None:
    for part in path.parent.glob(f"{path.name}*"):
        part.unlink()


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

"""Runs inside an environment with PyTorch: samples of its own OpInfo as traced modules and exported programs, and as ONNX by `torch.onnx.export`.

python _opinfo_worker.py list                          names of all cases, one a line, with why one is left out behind a tab
python _opinfo_worker.py trace FOLDER                  NAME.jit and NAME.npz (inputs and results) for each case whose name comes on standard input
python _opinfo_worker.py export FOLDER                 NAME.pt2, likewise
python _opinfo_worker.py peer FOLDER                   peer.json: what `torch.onnx.export(dynamo=True)` and ONNX Runtime make of the same samples
"""
from __future__ import annotations

import itertools
import json
import logging
import signal
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.testing._internal.common_methods_invocations import op_db
from torch.utils import _pytree as trees

DTYPES = (torch.float32, torch.int64, torch.bool)
WITHIN = (*DTYPES, torch.float64, torch.float16, torch.int32, torch.int16, torch.int8, torch.uint8)     # types of inputs and results
SECONDS = 30
CHOSEN, MOST_LOOKED_AT = 5, 200            # samples of an operator and element type that are taken, and among how many they are spread
# Operators whose result no other program can repeat, and why
LEFT_OUT = {
    "random": ("bernoulli", "multinomial", "normal", "rand", "randint", "randint_like", "randn", "randn_like", "rand_like", "uniform", "cauchy", "exponential",
               "geometric", "log_normal", "nn.functional.dropout", "nn.functional.dropout2d", "nn.functional.dropout3d", "nn.functional.alpha_dropout",
               "nn.functional.feature_alpha_dropout", "nn.functional.rrelu", "nn.functional.fractional_max_pool2d", "nn.functional.fractional_max_pool3d",
               "nn.functional.multi_head_attention_forward", "pca_lowrank", "svd_lowrank", "nn.functional.gumbel_softmax"),
    "memory without values": ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "empty_permuted", "resize_", "resize_as_"),
    "no tensor comes out": ("item", "equal", "allclose", "is_same_size", "tolist", "size", "stride", "numel"),
}
REASONS = {name: reason for reason, names in LEFT_OUT.items() for name in names}


class Call(torch.nn.Module):
    """An operator with everything but its tensors bound."""

    def __init__(self, function: Any, spec: Any, leaves: list[Any], places: list[int]):
        super().__init__()
        self.function, self.spec, self.leaves, self.places = function, spec, leaves, places

    def forward(self, *tensors: torch.Tensor) -> Any:
        leaves = list(self.leaves)
        for place, tensor in zip(self.places, tensors, strict=True):
            leaves[place] = tensor
        args, keywords = trees.tree_unflatten(leaves, self.spec)
        return tuple(leaf for leaf in trees.tree_leaves(self.function(*args, **keywords)) if isinstance(leaf, torch.Tensor))


def candidates() -> dict[str, tuple[Any, torch.dtype, str]]:
    """name -> operator, element type, why it is left out (empty where it is not)."""
    found = {}
    for operator in op_db:
        for dtype in DTYPES:
            if dtype in operator.supported_dtypes("cpu"):
                variant = f".{operator.variant_test_name}" if operator.variant_test_name else ""
                name = f"{operator.name}{variant}-{str(dtype).removeprefix('torch.')}".replace("/", "_")
                found[name] = (operator, dtype, REASONS.get(operator.name, ""))
    return found


Sample = tuple[Call, tuple[torch.Tensor, ...], list[torch.Tensor]]


def samples(operator: Any, dtype: torch.dtype, wanted: set[int] | None = None) -> tuple[dict[int, Sample], str]:
    """Place -> module, tensors, results; and why there is none. Of the samples whose tensors have elements, MOST_LOOKED_AT at most, those at CHOSEN steps
    from the first to the last are taken; PyTorch itself must compute them, and into dense tensors. `wanted` are places that alone matter."""
    torch.manual_seed(0)
    complaint = "no sample has elements"
    given = (bound(operator, sample) for sample in operator.sample_inputs("cpu", dtype, requires_grad=False))
    found = list(itertools.islice(filter(None, given), MOST_LOOKED_AT))
    made: dict[int, Sample] = {}
    places = sorted({round(step * (len(found) - 1) / (CHOSEN - 1)) for step in range(CHOSEN)} if found else ())
    for place in itertools.chain(places, range(len(found))):
        if place in made or (place not in places and made) or (wanted is not None and place not in wanted):
            continue                               # the others only stand in where none of the chosen can be computed
        module, tensors = found[place]
        try:
            results = list(module(*(tensor.clone() for tensor in tensors)))
        except Exception as error:
            complaint = f"it raises {type(error).__name__}"
            continue
        if not results or any(result.layout != torch.strided or result.dtype not in WITHIN for result in (*results, *tensors)):
            complaint = "no dense tensors of types that NumPy has, complex ones left out"
            continue
        made[place] = module.eval(), tensors, results
    return made, complaint


def bound(operator: Any, given: Any) -> tuple[Call, tuple[torch.Tensor, ...]] | None:
    """A sample as a module and its tensors; None where it has none, or one without elements."""
    leaves, spec = trees.tree_flatten(((given.input, *given.args), given.kwargs))
    places = [place for place, leaf in enumerate(leaves) if isinstance(leaf, torch.Tensor)]
    tensors = tuple(leaves[place] for place in places)
    if not tensors or any(not tensor.numel() or tensor.layout != torch.strided for tensor in tensors):
        return None
    return Call(operator.op, spec, [None if isinstance(leaf, torch.Tensor) else leaf for leaf in leaves], places), tensors


def case(name: str, place: int) -> str:
    """The first sample has the name of its operator and element type, others have their place behind it."""
    return name if not place else f"{name}@{place}"


def grouped(names: list[str]) -> dict[str, set[int]]:
    """Operator and element type -> places of its samples."""
    found: dict[str, set[int]] = {}
    for name in names:
        head, _, place = name.partition("@")
        found.setdefault(head, set()).add(int(place or 0))
    return found


class Late(Exception):
    pass


def attempt(function: Any) -> str:
    """Empty, or what went wrong."""
    def too_late(*_: Any) -> None:
        raise Late
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(SECONDS)
    try:
        function()
        return ""
    except BaseException as error:
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)


def make(folder: Path, names: list[str], exported: bool) -> None:
    """What is there already is left as it is."""
    known = candidates()
    for head, places in grouped(names).items():
        wanted = {place for place in places if not (folder / f"{case(head, place)}.npz").exists()
                  or (exported and not (folder / f"{case(head, place)}.pt2").exists())}
        for place, (module, tensors, results) in (samples(*known[head][:2], wanted)[0] if wanted else {}).items():
            name = case(head, place)
            np.savez(folder / f"{name}.npz", **{f"in/{number}": tensor.numpy() for number, tensor in enumerate(tensors)},
                     **{f"out/{number}": result.detach().resolve_conj().resolve_neg().numpy() for number, result in enumerate(results)})

            def trace(module: Any = module, tensors: Any = tensors, name: str = name) -> None:
                with torch.no_grad():
                    torch.jit.trace(module, tensors, check_trace=False).save(str(folder / f"{name}.jit"))

            def export(module: Any = module, tensors: Any = tensors, name: str = name) -> None:
                with torch.no_grad():
                    torch.export.save(torch.export.export(module, tensors), str(folder / f"{name}.pt2"))
            attempt(export if exported else trace)
            print(name, flush=True)


def peer(folder: Path, names: list[str]) -> None:
    import onnxruntime
    known = candidates()
    answers = json.loads((folder / "peer.json").read_text()) if (folder / "peer.json").exists() else {}
    for head, places in grouped([name for name in names if name not in answers]).items():
        for place, (module, tensors, _) in samples(*known[head][:2], places)[0].items():
            name = case(head, place)
            got: list[np.ndarray] = []

            def run(module: Any = module, tensors: Any = tensors, got: list[np.ndarray] = got) -> None:
                with torch.no_grad():
                    torch.onnx.export(module, tensors, str(folder / "peer.onnx"), dynamo=True, external_data=False, verbose=False, optimize=True)
                session = onnxruntime.InferenceSession(str(folder / "peer.onnx"), providers=["CPUExecutionProvider"])
                # Inputs that the exporter found unused are not there; the others are named in order.
                feeds = {port.name: tensors[int(port.name.rpartition("_")[2]) if "_" in port.name else number].numpy()
                         for number, port in enumerate(session.get_inputs())} if len(session.get_inputs()) == len(tensors) else {}
                if not feeds:
                    feeds = {port.name: tensor.numpy() for port, tensor in zip(session.get_inputs(), tensors, strict=False)}
                got.extend(session.run(None, feeds))
            why = attempt(run)
            if not why:
                np.savez(folder / f"{name}.peer.npz", **{f"peer/{number}": array for number, array in enumerate(got)})
            answers[name] = why
            print(name, why[:80], flush=True)
            (folder / "peer.json").write_text(json.dumps(answers, indent=1))


def listed() -> None:
    for name, (operator, dtype, reason) in candidates().items():
        found, complaint = ({}, reason) if reason else samples(operator, dtype)
        for place in found:
            print(case(name, place))
        if not found:
            print(f"{name}\t{complaint}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.CRITICAL)
    verb, *rest = sys.argv[1:]
    if verb == "list":
        listed()
    elif verb == "peer":
        peer(Path(rest[0]), sys.stdin.read().split())
    else:
        make(Path(rest[0]), sys.stdin.read().split(), exported=verb == "export")

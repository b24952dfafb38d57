"""PyTorch's own samples of its operators, from traced modules and exported programs to ONNX Runtime, beside `torch.onnx.export(dynamo=True)`.

`opinfo.txt` is the frozen list: up to five samples of each operator and element type, spread over all that there are. Traces of all of them are converted.
torch.export takes seconds for each, and so does the exporter: they are compared on every fourth first sample and every 24th of the others, chosen by name.
"""
from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
import zlib
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.cases import ROOT
from benchmarks.environments import Environment, peer

LIST, WORKER = Path(__file__).with_name("opinfo.txt"), Path(__file__).with_name("_opinfo_worker.py")
SHARE, SHARE_OF_MORE, SECONDS = 4, 24, 30
FORMATS = {"torchscript": ".jit", "torch_export": ".pt2"}


class _Late(Exception):
    pass


def environment() -> Environment:
    """The environment that the variable ISOMORPH_PYTHON_TORCH names, else the one of the peers. Raises `Absent` where it cannot be made."""
    named = os.environ.get("ISOMORPH_PYTHON_TORCH")
    if not named:
        return peer("torch")
    version = subprocess.run([named, "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True, check=True).stdout.strip()
    return Environment(Path(named), version)


def names() -> list[str]:
    """The cases of the list that are not left out."""
    return [line for line in LIST.read_text().splitlines() if not line.startswith("#") and "\t" not in line]


def is_shared(name: str) -> bool:
    """Whether exported programs are made of a case and the exporter runs on it too: seconds each, where a trace takes milliseconds."""
    return zlib.crc32(name.encode()) % (SHARE_OF_MORE if "@" in name else SHARE) == 0


def measure(environment: Environment, folder: Path | None = None) -> dict[str, Any]:
    """Counts of what passes, of all cases and of those that all tools run on. In `folder` what was made before is used again."""
    with tempfile.TemporaryDirectory() as scratch:
        place = folder or Path(scratch)
        shared = [name for name in names() if is_shared(name)]
        variables = os.environ | environment.variables
        chosen = {"torchscript": names(), "torch_export": shared, "peer": shared}
        for verb, form in (("trace", "torchscript"), ("export", "torch_export"), ("peer", "peer")):
            subprocess.run([str(environment.python), str(WORKER), verb, str(place)], input="\n".join(chosen[form]), text=True, check=True, env=variables,
                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        verdicts = {form: {name: _ours(place, name, form) for name in chosen[form]} for form in FORMATS}
        answers = json.loads((place / "peer.json").read_text())
        theirs = {name: answers[name] or _compared(place, name, list(np.load(place / f"{name}.peer.npz").values())) for name in shared if name in answers}
        (place / "verdicts.json").write_text(json.dumps(verdicts | {"peer": theirs}, indent=1))
    rows = [{"tool": f"isomorph, from {form}", "cases": len(found), "all": sum(not why for why in found.values()),
             "shared": sum(not found[name] for name in shared)} for form, found in verdicts.items()]
    rows.append({"tool": "torch.onnx.export(dynamo=True)", "cases": len(theirs), "all": None, "shared": sum(not why for why in theirs.values())})
    reasons = Counter(why.split(":")[0] for found in verdicts.values() for why in found.values() if why)
    return {"torch": environment.version, "cases": len(names()), "shared": len(shared), "rows": rows, "most_missing": dict(reasons.most_common(20))}


def _ours(folder: Path, name: str, form: str) -> str:
    """Empty where the results are equal, else what is wrong."""
    import onnxruntime

    from isomorph.artifact import Artifact
    from isomorph.dialects import to_hub
    from isomorph.errors import IsomorphError
    from isomorph.formats import _table
    source = folder / f"{name}{FORMATS[form]}"
    if not source.exists():
        return "PyTorch makes no file of it"

    def too_late(*_: Any) -> None:
        raise _Late
    signal.signal(signal.SIGALRM, too_late)
    signal.alarm(SECONDS)
    try:
        _table.get("onnx").write(to_hub(_table.get(form).read(Artifact.open(source))), folder / "ours.onnx", force=True)  # type: ignore[misc]
        session = onnxruntime.InferenceSession(str(folder / "ours.onnx"), providers=["CPUExecutionProvider"])
        with np.load(folder / f"{name}.npz") as kept:
            given = [kept[key] for key in kept.files if key.startswith("in/")]
        got = session.run(None, {port.name: array for port, array in zip(session.get_inputs(), given, strict=False)})
    except IsomorphError as error:
        return "; ".join(f"{subject}: {reason}" for subject, _, reason in getattr(error, "blockers", None) or []) or str(error)
    except _Late:
        return "it takes too long"
    except Exception as error:                                              # whatever a runtime raises
        return f"{type(error).__name__}: {str(error)[:200]}"
    finally:
        signal.alarm(0)
    return _compared(folder, name, got)


def _compared(folder: Path, name: str, got: list[Any]) -> str:
    """As the node tests compare: 1e-3 of each element and 1e-5 of the scale."""
    sys.path.insert(0, str(ROOT / "tests" / "conformance"))
    from node_cases import equal
    with np.load(folder / f"{name}.npz") as kept:
        wanted = [kept[key] for key in kept.files if key.startswith("out/")]
    if len(got) != len(wanted):
        return f"{len(got)} results instead of {len(wanted)}"
    return next((why for why in map(equal, got, wanted) if why), "")

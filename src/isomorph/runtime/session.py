"""A model file loaded in a runtime, in a child process that is killed when it takes too long."""
from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import IO, TYPE_CHECKING, Any

from isomorph.errors import Crashed, IsomorphError, Missing, TimedOut, Unsupported, Usage

if TYPE_CHECKING:
    from isomorph.runtime import Runtime


# The child finds `isomorph.runtime` by its folder alone: another environment must neither see what is installed beside isomorph nor need what it needs.
PACKAGE = str(Path(__file__).resolve().parents[1])
WORKER = """
import sys, types
package = sys.modules["isomorph"] = types.ModuleType("isomorph")
package.__path__ = [sys.argv[1]]
from isomorph.runtime import worker
worker.main()
"""


@dataclass(frozen=True)
class Port:
    """An input or output: dimensions are ints, symbols, or None where nothing is known; `shape` itself is None for what is no tensor."""

    name: str
    dtype: str                                      # as NumPy or ml_dtypes name it, "object" for text
    shape: tuple[int | str | None, ...] | None
    scale: float | None = None                      # of one quantum, where the runtime states it

    def __str__(self) -> str:
        return f"{self.name}: {self.dtype}" + ("" if self.shape is None else f"[{', '.join('?' if dim is None else str(dim) for dim in self.shape)}]")


@dataclass(frozen=True)
class Timing:
    """Seconds of every run, of loading, and the peak of resident memory in bytes, all in the child."""

    seconds: tuple[float, ...]
    load_seconds: float
    rss: int

    @property
    def median(self) -> float:
        return median(self.seconds)

    @property
    def p90(self) -> float:
        return sorted(self.seconds)[round(0.9 * (len(self.seconds) - 1))]


def started(runtime: Runtime, noise: IO[bytes] | int) -> subprocess.Popen[bytes]:
    """A worker in the interpreter of this runtime; what it prints goes to `noise`. Raises `Missing` where that interpreter does not start."""
    interpreter = runtime.interpreter()
    path = "" if interpreter != sys.executable else os.pathsep.join(entry for entry in sys.path if entry)
    try:
        return subprocess.Popen([interpreter, "-P", "-c", WORKER, PACKAGE], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=noise,
                                env=os.environ | {"PYTHONPATH": path, "TF_CPP_MIN_LOG_LEVEL": "3"})
    except OSError as error:
        raise Missing(f"{interpreter} does not start: {error.strerror}", where=runtime.variable, hint="name a Python interpreter") from error


class Session:
    """`with Session(path, "tflite") as session: session.run({"x": array})`.

    `runtime` defaults to the one that the format is made for. `options` go to its driver (LiteRT: `kernels`, `expose`; ONNX Runtime: `optimise`).
    `timeout` is seconds for each request. Raises `Missing` where the runtime is not installed, `Unsupported` where it does not take the file,
    `TimedOut` where it is too slow, `Crashed` where it dies or gives up, `Usage` where the inputs are not those of the model.
    """

    def __init__(self, path: str | os.PathLike[str], format: str, *, runtime: str | None = None, threads: int = 1, options: Mapping[str, Any] | None = None,
                 timeout: float = 60.0):
        from isomorph import runtime as runtimes
        self.runtime = runtimes.get(runtime).required() if runtime else runtimes.native(format)
        self.path, self.format, self.threads, self.options, self.timeout = Path(path), format, threads, dict(options or {}), timeout
        self._child: subprocess.Popen[bytes] | None = None
        self._ports: tuple[list[Port], list[Port]] = ([], [])
        self.load_seconds = 0.0
        self.version = ""

    def __enter__(self) -> Session:
        self._noise = tempfile.TemporaryFile()
        self._child = started(self.runtime, self._noise)
        loading = {"module": self.runtime.module, "path": str(self.path), "threads": self.threads, "options": self.options}
        try:
            answer = self._ask("load", loading, refused=Unsupported)
        except BaseException:
            self.close()
            raise
        self._ports = ([_port(port) for port in answer["inputs"]], [_port(port) for port in answer["outputs"]])
        self.load_seconds, self.version = answer["seconds"], answer["version"]
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child. Does nothing the second time."""
        child, self._child = self._child, None
        if child is None:
            return
        child.kill()                                # it holds nothing that is worth an orderly end
        for end in (child.stdin, child.stdout):
            try:
                end.close()                         # type: ignore[union-attr]
            except BrokenPipeError:
                continue
        child.wait()
        self._noise.close()

    def inputs(self) -> list[Port]:
        return self._ports[0]

    def outputs(self) -> list[Port]:
        return self._ports[1]

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The outputs, by name, in the order of the file."""
        return self._ask("run", {"feeds": self._checked(feeds)})["outputs"]

    def forget(self) -> None:
        """Drops what the runtime was told to carry from one run to the next, so that the next run is the first."""
        self._ask("forget", {})

    def bench(self, feeds: Mapping[str, Any], *, runs: int = 30, warm_up: int = 3) -> Timing:
        """Runs `warm_up + runs` times in the child and times the last `runs`."""
        answer = self._ask("measure", {"feeds": self._checked(feeds), "runs": runs, "warm_up": warm_up})
        return Timing(tuple(answer["seconds"]), self.load_seconds, answer["rss"])

    def _checked(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """The inputs, when they are exactly those of the model: an input that is not fed, or fed in another type or shape, is never guessed."""
        known = {port.name: port for port in self.inputs()}
        complaints = [f"no input is named {name!r}" for name in feeds if name not in known]
        complaints += [f"the input {name!r} is not fed" for name in known if name not in feeds]
        complaints += [f"the input {name!r} is {array.dtype.name}{list(array.shape)}" for name, array in feeds.items()
                       if name in known and not _fits(known[name], array)]
        if complaints:
            raise Usage("; ".join(complaints), where=str(self.path), hint="the model takes " + ("; ".join(map(str, known.values())) or "no inputs"))
        return dict(feeds)

    def _ask(self, request: str, arguments: dict[str, Any], refused: type[IsomorphError] = Crashed) -> dict[str, Any]:
        """Sends a request and waits for its answer. A refusal of the runtime is raised as `refused`."""
        from isomorph.runtime import pipe
        child = self._child
        if child is None or child.stdin is None or child.stdout is None:
            raise Usage("the session is closed", where=str(self.path))
        late = threading.Event()

        def too_late() -> None:
            late.set()
            child.kill()
        clock = threading.Timer(self.timeout, too_late)
        clock.daemon = True
        clock.start()
        try:
            pipe.send(child.stdin, {"do": request, "with": arguments})
            answer = pipe.receive(child.stdout)
        except (EOFError, BrokenPipeError):
            raise self._death(request, child.wait(), late.is_set()) from None
        finally:
            clock.cancel()
        if "error" in answer:
            raise refused(f"{self.runtime.title} refuses to {request} it: {_shortened(answer['error'])}", where=str(self.path))
        return answer

    def _death(self, request: str, status: int, late: bool) -> IsomorphError:
        if late:
            return TimedOut(f"{self.runtime.title} took longer than {self.timeout:g} s to {request} it", where=str(self.path),
                            hint="give it longer with --timeout SECONDS")
        self._noise.seek(0, os.SEEK_END)
        self._noise.seek(max(0, self._noise.tell() - 2000))
        lines = self._noise.read().decode("utf-8", "replace").strip().splitlines()
        cause = f"signal {-status} ({signal.Signals(-status).name})" if status < 0 else f"exit status {status}"
        said = f": {_shortened(lines[-1])}" if lines else ""
        death = Crashed(f"{self.runtime.title} died of {cause} when asked to {request} it{said}", where=str(self.path),
                        hint="only its child process is gone; the file may be damaged or hit a defect of the runtime")
        death.died = True
        return death


def _port(answer: dict[str, Any]) -> Port:
    shape = answer["shape"]
    return Port(answer["name"], answer["dtype"], None if shape is None else tuple(shape), answer.get("scale"))


def _fits(port: Port, value: Any) -> bool:
    """Whether an array has the dtype, the rank and the fixed dimensions of the port. What is no tensor is left to the runtime."""
    if port.shape is None or not hasattr(value, "dtype"):
        return port.shape is None
    same_type = value.dtype.kind in "OSU" if port.dtype == "object" else value.dtype.name == port.dtype
    same_rank = len(port.shape) == value.ndim
    return same_type and same_rank and all(want == have for want, have in zip(port.shape, value.shape, strict=True) if isinstance(want, int))


def _shortened(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 400 else text[:400] + "..."

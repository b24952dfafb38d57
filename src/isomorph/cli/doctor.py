"""`isomorph doctor`."""
from __future__ import annotations

import os
import platform
from importlib.metadata import PackageNotFoundError, version

from isomorph.cli._output import Output, verb

PACKAGES = ("numpy", "onnx", "onnx-ir", "onnxruntime", "ml-dtypes", "protobuf", "flatbuffers", "click", "rich", "defusedxml")
OPTIONAL = ("ai-edge-litert", "h5py", "tokenizers", "jinja2")


@verb("doctor")
def command(out: Output) -> int:
    """Show the environment, and what is missing."""
    from isomorph import __version__, runtime
    packages = {name: _version(name) for name in (*PACKAGES, *OPTIONAL)}
    runtimes = [{"name": row.name, "title": row.title, "formats": list(row.formats), "installed": row.available(), "install": row.install}
                for row in runtime.RUNTIMES]
    machine = {"isomorph": __version__, "python": platform.python_version(), "system": platform.platform(terse=True), "machine": platform.machine(),
               "cores": os.cpu_count(), "memory_bytes": _memory()}
    absent = [name for name in PACKAGES if packages[name] is None]
    if out.as_json:
        out.document({"machine": machine, "packages": packages, "runtimes": runtimes, "missing": absent})
        return 5 if absent else 0
    out.pairs([(name, str(value)) for name, value in machine.items()])
    out.line()
    out.pairs([(name, found or "not installed") for name, found in packages.items()])
    out.line()
    out.table(("runtime", "runs", "installed"),
              [(row.title, " ".join(row.formats), "yes" if row.available() else f"no: {row.install}") for row in runtime.RUNTIMES])
    return 5 if absent else 0


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _memory() -> int | None:
    """Bytes of the machine."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError, AttributeError):
        return None

"""Hostile pickles of the published classes (names after the advisories, payloads inert): every one is told, none runs, in bounded time and memory.

The child process that reads them has an audit hook: no import, no call of what a payload names, no file besides the input, no network.
"""
from __future__ import annotations

import io
import json
import pickle as standard
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import pytest

from isomorph.artifact import Artifact
from isomorph.errors import Damaged, Unsafe
from isomorph.formats import torch
from isomorph.report import Severity

MARKER = "isomorph-marker"


def reduces(module: str, name: str) -> bytes:
    """A pickle that calls `module.name(MARKER)`."""
    return f"c{module}\n{name}\n(V{MARKER}\ntR.".encode()


def zipped(pickle: bytes, **members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in {"archive/data.pkl": pickle, "archive/version": b"3\n", "archive/byteorder": b"little", **members}.items():
            archive.writestr(name, data)
    return buffer.getvalue()


CALLS = {
    "CVE-2025-1716 installer": ("pip", "main"), "CVE-2025-71351 timer": ("timeit", "timeit"), "CVE-2025-71341 profiler": ("cProfile", "run"),
    "CVE-2025-71352 tracer": ("trace", "Trace.run"), "CVE-2025-71378 doctest": ("doctest", "debug_script"),
    "CVE-2025-71354 shell": ("idlelib.pyshell", "ModifiedInterpreter"), "CVE-2025-71359 grammar": ("lib2to3.pgen2.pgen", "ParserGenerator"),
    "CVE-2025-71355 numpy": ("numpy.testing._private.utils", "runstring"), "CVE-2025-71347 f2py": ("numpy.f2py.crackfortran", "myeval"),
    "CVE-2025-71348 torch": ("torch.utils.bottleneck.__main__", "run_cprofile"), "CVE-2025-71353 torch": ("torch.utils.collect_env", "run"),
    "CVE-2025-71364 processes": ("_osx_support", "_find_build_tool"), "CVE-2025-71323 foreign": ("ctypes", "CDLL"),
    "CVE-2025-71320 string to callable": ("operator", "methodcaller"), "CVE-2026-3490 pkgutil": ("pkgutil", "resolve_name"),
    "CVE-2025-71321 writer": ("distutils.file_util", "write_file"), "CVE-2025-46417 network": ("ssl", "get_server_certificate"),
    "CVE-2026-56315 library": ("logging.config", "listen"), "CVE-2025-10157 submodule": ("asyncio.unix_events", "_UnixSubprocessTransport._start"),
    "CVE-2026-22609 prefix": ("ctypes.util", "find_library"), "CVE-2025-67748 pty": ("pty", "spawn"), "CVE-2026-22612 builtins": ("builtins", "eval"),
    "python 2 spelling": ("__builtin__", "eval"), "dotted attribute": ("collections", "OrderedDict.fromkeys"), "posix": ("posix", "system"),
    "weights_only wrapper subclass": ("torch._utils", "_rebuild_wrapper_subclass"), "joblib": ("joblib.memory", "Memory"),
}
STRUCTURE = {
    "CVE-2025-71325 operand at position 0": b"\x80\x04\x8c\5posix\x94\x8c\6system\x94\x93\x94\x8c\4mark\x94\x85R.",
    "operand through the memo": b"\x80\x04\x8c\6system\x94\x8c\5posix\x940h\1h\0\x93\x8c\4mark\x85R.",
    "memo holds the top": b"(Vposix\np1\n0Vsystem\np2\n0g1\ng2\n\x93(Vmark\ntR.",
    "result popped": b"cposix\nsystem\n(Vmark\ntR0}.", "computed callee": b"cbuiltins\ngetattr\n(cos\npath\nVx\ntR(Vmark\ntR.",
    "INST": b"(Vmark\niposix\nsystem\n.", "OBJ": b"(cposix\nsystem\nVmark\no.", "NEWOBJ": b"\x80\x02cposix\nsystem\nVmark\n\x85\x81.",
    "NEWOBJ_EX": b"\x80\x04\x8c\5posix\x8c\6system\x93\x8c\4mark\x85}\x92.", "BUILD with a state": b"cuser\nClass\n)R}Vkey\ncposix\nsystem\n(Vmark\ntRsb.",
    "inside a tensor subclass": b"ctorch._tensor\n_rebuild_from_type_v2\n(cposix\nsystem\nctorch\nTensor\n(Vmark\ntNtR.",
}


def facts(data: bytes):
    checkpoint = torch.read(Artifact.open(data))
    return {finding.code for finding in checkpoint.findings}, max(finding.severity for finding in checkpoint.findings)


@pytest.mark.parametrize("name", CALLS)
def test_a_call_of_a_known_package_is_told_as_dangerous(name):
    codes, severity = facts(zipped(reduces(*CALLS[name])))
    assert "pickle.call" in codes
    assert severity >= Severity.HIGH


@pytest.mark.parametrize("name", STRUCTURE)
def test_no_structure_hides_a_call(name):
    codes, severity = facts(zipped(STRUCTURE[name]))
    assert codes & {"pickle.call", "pickle.computed-callee"}
    assert severity >= Severity.HIGH


def test_a_class_of_a_user_is_opaque_and_not_dangerous():
    assert facts(zipped(b"cmy_package.model\nNet\n)\x81}b."))[1] == Severity.MEDIUM
    assert facts(zipped(b"ctorch.nn.modules.linear\nLinear\n)\x81}b."))[1] == Severity.LOW


def test_a_second_pickle_behind_the_first_is_told():
    codes, _ = facts(zipped(b"}." + reduces("posix", "system")))
    assert "pickle.tail" in codes


def test_the_call_in_the_fourth_pickle_of_an_old_file_is_told():
    head = [standard.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    codes, severity = facts(b"".join([*head, b"\x80\x02" + reduces("posix", "system"), standard.dumps([], 2)]))
    assert ("pickle.call" in codes, severity) == (True, Severity.HIGH)


def test_bytes_that_are_a_torch_file_are_read_one_level_deeper():
    inner = zipped(reduces("posix", "system"))
    outer = b"\x80\x03ctorch.storage\n_load_from_bytes\nB" + len(inner).to_bytes(4, "little") + inner + b"\x85R."
    assert facts(zipped(outer))[1] == Severity.HIGH
    for _ in range(6):
        outer = b"\x80\x03ctorch.storage\n_load_from_bytes\nB" + len(inner).to_bytes(4, "little") + inner + b"\x85R."
        inner = zipped(outer)
    with pytest.raises(Unsafe, match="deep"):
        facts(inner)


def tensor(offset: int = 0, sizes: tuple = (2,), strides: tuple = (1,), key: str = "0", count: int = 2, kind: str = "FloatStorage") -> bytes:
    numbers = [b"(" + b"".join(f"L{x}L\n".encode() for x in row) + b"t" for row in (sizes, strides)]
    return (f"ctorch._utils\n_rebuild_tensor_v2\n((Vstorage\nctorch\n{kind}\nV{key}\nVcpu\nI{count}\ntQI{offset}\n".encode() + b"".join(numbers)
            + b"I00\nccollections\nOrderedDict\n)RtR.")


@pytest.mark.parametrize(("pickle", "message"), [
    (tensor(offset=1), "reaches over the end"), (tensor(sizes=(3,)), "reaches over the end"), (tensor(strides=(2,)), "reaches over the end"),
    (tensor(sizes=(-1,)), "sizes and strides are none"), (tensor(sizes=(2, 2)), "sizes and strides are none"), (tensor(offset=-1), "sizes and strides"),
    (tensor(key="../../etc/passwd"), "has no storage"), (tensor(count=3), "8 bytes where the pickle says 12"), (tensor(kind="X"), "no class of a storage"),
    (tensor(sizes=(1 << 62,), strides=(0,)), "repeats a storage"), (b"Vx\nQ.", "no storage"), (tensor()[:-1] + b"I0\nI1\ns.", "no dictionary"),
])
def test_tensors_that_lie_are_refused(pickle, message):
    with pytest.raises((Damaged, Unsafe), match=message):
        torch.read(Artifact.open(zipped(pickle, **{"archive/data/0": b"\0" * 8})))


def test_a_memo_bomb_does_not_expand():
    """Each list holds the one before it ten times: 10 ** 30 elements in a few hundred bytes."""
    data = b"\x80\x02]q\0" + b"".join(b"(" + b"h" + bytes([level]) * 1 + (b"h" + bytes([level])) * 9 + b"lq" + bytes([level + 1]) for level in range(30)) + b"."
    with pytest.raises(Unsafe, match="expand"):
        facts(zipped(data))


def test_a_list_that_holds_itself_ends():
    assert torch.read(Artifact.open(zipped(b"]q\0h\0a."))).tensors == {}


def test_nesting_is_bounded():
    with pytest.raises(Unsafe, match="nested"):
        torch.read(Artifact.open(zipped(b"]" * 5000 + b"a" * 4999 + b".")))


def legacy(body: bytes) -> bytes:
    """A file of five pickles, whose object is what `body` makes."""
    head = [standard.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"protocol_version": 1001, "little_endian": True})]
    return b"".join([*head, b"\x80\x02" + body + b".", standard.dumps([], 2)])


LOAD = b"ctorch.storage\n_load_from_bytes\n"


def test_a_file_inside_a_pickle_is_loaded_as_often_as_the_budget_of_all_allows():
    """200 kB that would take days: the same bytes, of 200,000 operations, loaded a thousand times."""
    inner = legacy(b"]" + b"N0" * 100_000)
    data = b"B" + len(inner).to_bytes(4, "little") + inner + b"q\0" + LOAD + b"q\1" + b"0" + b"h\1h\0\x85R0" * 1000 + b"N."
    start = time.process_time()
    with pytest.raises(Unsafe, match="operations"):
        torch.read(Artifact.open(zipped(data)))
    assert time.process_time() - start < 10
    inner = legacy(b"](" + b"]" * 200_000 + b"e")
    data = b"B" + len(inner).to_bytes(4, "little") + inner + b"q\0" + LOAD + b"q\1" + b"0(" + b"h\1h\0\x85R" * 20 + b"l."
    with pytest.raises(Unsafe, match="bytes of values in memory"):
        torch.read(Artifact.open(zipped(data)))


def test_files_inside_pickles_are_bounded_in_depth():
    data = legacy(b"]")
    for _ in range(8):
        data = legacy(LOAD + b"B" + len(data).to_bytes(4, "little") + data + b"\x85R")
    with pytest.raises(Unsafe, match="deep"):
        torch.read(Artifact.open(data))


WATCHED = r"""
import re, sys, json, time
from isomorph.artifact import Artifact
from isomorph.formats import torch, _torch_files, _torch_modules
from isomorph.errors import IsomorphError
import isomorph.model, ml_dtypes, numpy.lib.stride_tricks
events, results = [], []
cases = json.load(open(sys.argv[1]))
"x".encode("raw_unicode_escape"), "x".encode("unicode_escape")       # the codecs are modules that Python imports when they are first used
def hook(event, arguments):
    if event in ("import", "exec", "compile", "open", "pickle.find_class") or event.startswith(("subprocess", "socket", "os.", "ctypes", "shutil")):
        events.append([event, str(arguments)[:200]])
sys.addaudithook(hook)
for case in cases:
    start = time.process_time()             # others may be at work on this machine
    try:
        checkpoint = torch.read(Artifact.open(bytes.fromhex(case)))
        results.append("read")
    except IsomorphError as error:
        results.append(type(error).__name__)
    results.append(time.process_time() - start)
seen = list(events)                    # before the look at its own memory
peak = int(re.search("VmHWM:\s*(\d+)", open("/proc/self/status").read())[1])
print(json.dumps([seen, results, peak // 1024]))
"""


def watched(cases: list[bytes], tmp_path) -> tuple[list, list, int]:
    (tmp_path / "cases.json").write_text(json.dumps([case.hex() for case in cases]))
    child = subprocess.run([sys.executable, "-c", WATCHED, str(tmp_path / "cases.json")], capture_output=True, text=True, check=True, timeout=120)
    return tuple(json.loads(child.stdout))


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the child looks into Linux's /proc")
def test_nothing_is_imported_called_or_opened(tmp_path):
    events, results, _ = watched([zipped(data) for data in (*STRUCTURE.values(), *(reduces(*call) for call in CALLS.values()))], tmp_path)
    assert events == []
    assert set(results[::2]) == {"read"}


FLOODS = {
    "opcodes": b"N0" * 5_000_000, "lists": b"]" * 10_000_000, "marks": b"(" * 10_000_000, "pairs": b"](" + b"}}}e(" * 2_500_000,
    "memo bomb": b"]q\0" + b"".join(b"(" + (b"h" + bytes([level])) * 10 + b"lq" + bytes([level + 1]) for level in range(30)),
    "memo": b"N" + b"".join(b"r" + number.to_bytes(4, "little") for number in range(2_000_000)), "calls": b"cos\nsystem\nq\0)q\1" + b"h\0h\1R0" * 1_600_000,
}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="resident memory is measured with Linux's /proc")
@pytest.mark.parametrize("name", FLOODS)
def test_ten_megabytes_of_opcodes_end_soon(name, tmp_path):
    """The bar of the issue: Unsafe or Damaged in at most 10 s and 150 MB, above the input and its copy in hexadecimal."""
    path = tmp_path / "flood.pt"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02" + FLOODS[name] + b".")
    script = WATCHED.replace("cases = json.load(open(sys.argv[1]))", "cases = sys.argv[1:]").replace("bytes.fromhex(case)", "case")
    child = subprocess.run([sys.executable, "-c", script, str(path)], capture_output=True, text=True, check=True, timeout=60)
    events, (outcome, seconds), megabytes = json.loads(child.stdout)
    assert all(event == "open" and str(path) in arguments for event, arguments in events)
    assert outcome in ("Unsafe", "Damaged")
    assert seconds < 10
    assert megabytes < 150


PROGRAMS = r"""
import io, json, sys, zipfile
sys.path[:0] = sys.argv[1].split(":")
import test_torch_export as exported
import test_torchscript as scripted
from isomorph.artifact import Artifact
from isomorph.errors import IsomorphError
from isomorph.formats import torch_export, torchscript

def read(module, data):
    try:
        module.read(Artifact.open(data))
    except IsomorphError:
        pass

def package(nodes, **members):
    data = io.BytesIO(exported.package(exported.program(nodes, "x")))
    with zipfile.ZipFile(data, "a") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return data.getvalue()

CODE = ["return torch.relu(x)", "return __import__('os').system('true')", "import os\nreturn os.system('true')", "return eval('1')",
        "return torch.ops.load_library('x.so')", "return ops.torchbind.run(x)", "return [y for y in ().__class__.__base__.__subclasses__()]",
        "return open('/etc/passwd')", "with open('/etc/passwd') as f:\n  y = f\nreturn x", "return getattr(x, '__globals__')", "return (lambda: x)()"]
NODES = [("_operator.attrgetter", "__class__"), ("os.system", "true"), ("builtins.eval", "1"), ("torch.ops.load_library", "x.so"),
         ("torch.ops.aten.relu.default", "x")]
programs = [(torchscript, scripted.script(body)) for body in CODE]
programs += [(torch_export, package([exported.node(target, [{"as_string": text}], "y")])) for target, text in NODES]
programs.append((torch_export, package([], **{"m/data/aotinductor/model/x.so": b"\x7fELF", "m/data/constants/c.pt": b"cos\nsystem\n(Vtrue\ntR."})))
for module, data in programs[:1] + programs[-2:-1]:
    read(module, data)                       # what is imported at the first use is imported now
events = []
def hook(event, arguments):
    if event in ("import", "exec", "open", "pickle.find_class") or event.startswith(("subprocess", "socket", "os.", "ctypes.dlopen", "shutil")):
        events.append([event, str(arguments)[:200]])
sys.addaudithook(hook)
for module, data in programs:
    read(module, data)
print(json.dumps([len(programs), events]))
"""


def test_programs_are_walked_and_never_run(tmp_path):
    """Code of TorchScript and nodes of exported programs that would reach for the system: parsed (which `compile` would tell), and no more."""
    folders = f"{Path(__file__).parents[1] / 'formats'}:{Path(__file__).parents[1]}"
    child = subprocess.run([sys.executable, "-c", PROGRAMS, folders], capture_output=True, text=True, check=True, timeout=120)
    count, events = json.loads(child.stdout)
    assert (count, events) == (17, [])

"""Mutants of small files of each format, and a process that reads them: only errors of isomorph may come out, in bounded time and memory.

    python tests/attacks/mutate.py --count 100000 --seed 1 [--formats onnx safetensors npz zip tflite] [--convert] [--keep FOLDER]

prints one JSON object: how many mutants, what became of them, and every one that broke a rule. The mutants of a seed are always the same.
"""
from __future__ import annotations

import argparse
import io
import json
import random
import re
import resource
import signal
import struct
import subprocess
import sys
import time
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))       # for the builders of files, when this runs as a script

CONVERT = "--convert" in sys.argv
SECONDS = 5                      # for one mutant
MEGABYTES = 256                  # resident, besides twice the file
WHOLE_LIMIT = 8 << 30            # address space of the process: a wild allocation fails at once
INTERESTING = (0, 1, 2, 127, 128, 255, 1 << 16, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
FORBIDDEN_EVENTS = ("os.system", "os.exec", "os.posix_spawn", "os.fork", "subprocess.", "socket.", "exec", "compile", "ctypes.dlopen", "pickle.find_class")


# ---- seeds

def onnx_seeds() -> list[bytes]:
    import onnx
    from onnx import TensorProto, helper, numpy_helper
    info = helper.make_tensor_value_info
    node = helper.make_node

    def model(nodes: list, inputs: list, outputs: list, initializers: list = (), opset: int = 26, ir_version: int = 13, **extra: object) -> bytes:
        graph = helper.make_graph(nodes, "g", inputs, outputs, initializer=list(initializers))
        imports = [helper.make_opsetid("", opset), *extra.pop("imports", [])]
        return helper.make_model(graph, opset_imports=imports, ir_version=ir_version, **extra).SerializeToString()

    def weight(name: str, *shape: int) -> TensorProto:
        return numpy_helper.from_array(np.arange(np.prod(shape), dtype=np.float32).reshape(shape), name)

    x, y = info("x", 1, ["n", 3, 8, 8]), info("y", 1, None)
    convolution = model([node("Conv", ["x", "w", "b"], ["c"], pads=[1, 1, 1, 1]), node("Relu", ["c"], ["r"]), node("GlobalAveragePool", ["r"], ["y"])],
                        [x], [y], [weight("w", 4, 3, 3, 3), weight("b", 4)], producer_name="tests")
    old = model([node("Add", ["x", "b"], ["a"], broadcast=1, axis=1), node("Pad", ["a"], ["p"], pads=[0, 0, 1, 1, 0, 0, 1, 1], value=1.0),
                 node("Slice", ["p"], ["s"], starts=[0, 0], ends=[2, 2], axes=[2, 3]), node("Softmax", ["s"], ["f"], axis=1),
                 node("BatchNormalization", ["f", "b", "b", "b", "b"], ["n"], is_test=1), node("Squeeze", ["n"], ["q"], axes=[0]),
                 node("Upsample", ["q"], ["u"], height_scale=2.0, width_scale=2.0), node("Clip", ["u"], ["y"], min=0.0, max=1.0)],
                [x, info("b", 1, [3])], [y], [weight("b", 3)], opset=6, ir_version=3)
    body = helper.make_graph([node("Mul", ["x", "x"], ["m"])], "then", [], [info("m", 1, None)])
    other = helper.make_graph([node("Neg", ["x"], ["m"])], "else", [], [info("m", 1, None)])
    branch = model([node("If", ["c"], ["y"], then_branch=body, else_branch=other)], [info("c", 9, []), x], [y], opset=13)
    function = helper.make_function("local", "Twice", ["a"], ["z"], [node("Add", ["a", "a"], ["z"])], [helper.make_opsetid("", 20)])
    functions = model([node("Twice", ["x"], ["t"], domain="local"), node("Gelu", ["t"], ["y"])], [x], [y], functions=[function],
                      imports=[helper.make_opsetid("local", 1)], opset=20, ir_version=10)
    typed = [helper.make_tensor(name, kind, [4], values) for name, kind, values in (
        ("i", TensorProto.INT32, [1, -2, 3, 300]), ("h", TensorProto.FLOAT16, [1.0, 2.0, 3.0, 4.0]), ("d", TensorProto.DOUBLE, [1.0, 2.0, 3.0, 4.0]),
        ("l", TensorProto.INT64, [1, 2, 3, -4]), ("u", TensorProto.UINT64, [1, 2, 3, 4]), ("t", TensorProto.STRING, [b"a", b"b", b"c", b"d"]))]
    sparse = helper.make_sparse_tensor(weight("sv", 2), numpy_helper.from_array(np.array([1, 5]), "si"), [3, 4])
    nodes = [node("Constant", [], [f"o{place}"], value=tensor) for place, tensor in enumerate(typed)]
    constants = model([*nodes, node("Constant", [], ["s"], sparse_value=sparse)], [], [info("s", 1, [3, 4])], opset=11, ir_version=6)
    apart = onnx.load_from_string(convolution)
    tensor = apart.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    for key, value in (("location", "w.data"), ("offset", "0"), ("length", "432")):
        tensor.external_data.add(key=key, value=value)
    encoder = node("LabelEncoder", ["x"], ["y"], domain="ai.onnx.ml", classes_strings=["a", "b"])
    classical = helper.make_model(helper.make_graph([encoder], "g", [info("x", 8, [2])], [info("y", 7, [2])]),
                                  opset_imports=[helper.make_opsetid("ai.onnx.ml", 1)], ir_version=3)
    newest = model([node("SwiGLU", ["x"], ["y"])], [info("x", 1, [2, 8])], [info("y", 1, [2, 4])], opset=28, ir_version=14)
    return [convolution, old, branch, functions, constants, apart.SerializeToString(), classical.SerializeToString(), newest]


def safetensors_seeds() -> list[bytes]:
    rows = (("w", "F32", [2, 3], 0, 24), ("b", "BF16", [3], 24, 30), ("e", "I64", [0, 4], 30, 30), ("q", "F4", [4], 30, 32))
    header = {"__metadata__": {"format": "pt"}} | {
        name: {"dtype": dtype, "shape": shape, "data_offsets": [start, stop]} for name, dtype, shape, start, stop in rows}
    text = json.dumps(header).encode()
    index = json.dumps({"metadata": {"total_size": 32}, "weight_map": {"w": "a-00001-of-00002.safetensors", "b": "../b.safetensors"}}).encode()
    return [len(text).to_bytes(8, "little") + text + bytes(range(32)), index]


def npz_seeds() -> list[bytes]:
    arrays = {"w": np.arange(6, dtype=np.float32).reshape(2, 3), "f": np.asfortranarray(np.ones((2, 3))), "t": np.array(["a", "bc"]), "s": np.array(1, ">i4")}
    seeds = []
    for save in (np.savez, np.savez_compressed):
        file = io.BytesIO()
        save(file, **arrays)
        seeds.append(file.getvalue())
    file = io.BytesIO()
    np.save(file, arrays["w"])
    return [*seeds, file.getvalue()]


def zip_seeds() -> list[bytes]:
    seeds = []
    for method, comment in ((zipfile.ZIP_STORED, b""), (zipfile.ZIP_DEFLATED, b"a comment")):
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", method) as archive:
            archive.comment = comment
            for name, data in (("archive/data.pkl", b"\x80\2}."), ("archive/data/0", bytes(100)), ("archive/version", b"3\n")):
                archive.writestr(name, data)
        seeds.append(file.getvalue())
    return seeds


def tflite_seeds() -> list[bytes]:
    """A convolution, quantised arithmetic and a signature, written by the package itself."""
    import tempfile
    sys.path.insert(0, str(Path(__file__).parents[1] / "oracles"))
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from tflite_models import Graph, quantized
    plain = Graph()
    x = plain.input("float32", 1, 4, 4, 2)
    y = plain.CONV_2D(x, plain.const(np.ones((3, 2, 2, 2), np.float32)), plain.const(np.zeros(3, np.float32)), out=("float32", 1, 3, 3, 3), padding="VALID",
                      stride_w=1, stride_h=1)
    z = plain.RESHAPE(y, plain.const([1, 27]), out=("float32", 1, 27), new_shape=[1, 27])
    whole, small = Graph(), quantized(0.5, 3)
    a = whole.input("int8", 1, 4, quantization=small)
    b = whole.ADD(a, a, out=whole.value("int8", 1, 4, quantization=small))
    with tempfile.TemporaryDirectory() as folder:
        return [graph.save(Path(folder) / "x.tflite", output).read_bytes() for graph, output in ((plain, z), (whole, b))]


def gguf_seeds() -> list[bytes]:
    """Every version and byte order, every kind of value, blocks; one with many tensors."""
    from gguf_files import ARRAY, F32, Q4_0, STRING, gguf
    keys = [("general.architecture", STRING, "llama"), ("general.alignment", 4, 32), ("a.f32", 6, 0.5), ("a.bool", 7, 1), ("a.u64", 10, 5),
            ("tokens", ARRAY, (STRING, ["a", "b" * 40])), ("scores", ARRAY, (6, [0.5, -1.0])), ("nested", ARRAY, (ARRAY, [(4, [1, 2]), (STRING, ["x"])]))]
    tensors = [("w", (4, 2), F32, 0), ("q", (32, 2), Q4_0, 32), ("k", (256,), 12, 96)]
    many = [(f"t{number}", (8,), F32, 32 * number) for number in range(20)]
    return [gguf(version, keys, tensors, bytes(96 + 160), order) for version in (1, 2, 3) for order in "<>"] + [gguf(3, [], many, bytes(640))]


def ggml_seeds() -> list[bytes]:
    """Every layout, floats and old blocks."""
    from ggml_files import F16, F32, Q4_0, file
    rows = [("w", (3, 4), F32, bytes(48)), ("h", (4,), F16, bytes(8)), ("q", (2, 32), Q4_0, bytes(40))]
    kinds = [("llama", 0), ("llama", -1), ("llama", 1), ("gpt-2", 0), ("gpt-j", 0), ("gpt-neox", 0), ("whisper", 0), ("rwkv", 100)]
    return [file(kind, rows, version) for kind, version in kinds]


SEEDS: dict[str, Callable[[], list[bytes]]] = {"gguf": gguf_seeds,
                                               "ggml": ggml_seeds,
                                               "onnx": onnx_seeds, "safetensors": safetensors_seeds, "npz": npz_seeds, "zip": zip_seeds, "tflite": tflite_seeds}


# ---- mutants

def protobuf_fields(data: bytes, start: int = 0, stop: int | None = None, depth: int = 0) -> Iterator[tuple[int, int, int]]:
    """(begin of the tag, begin of the value, end) of every field that parses, nested ones included."""
    at, stop = start, len(data) if stop is None else stop
    while at < stop:
        begin = at
        tag, at = _varint(data, at, stop)
        wire = tag & 7
        if at > stop or tag < 8 or wire in (3, 4, 6, 7):
            return
        if wire == 2:
            length, at = _varint(data, at, stop)
            end = at + length
        else:
            end = {0: _varint(data, at, stop)[1], 1: at + 8, 5: at + 4}[wire]
        if end > stop:
            return
        yield begin, at, end
        if wire == 2 and depth < 12:
            yield from protobuf_fields(data, at, end, depth + 1)
        at = end


def _varint(data: bytes, at: int, stop: int) -> tuple[int, int]:
    value = shift = 0
    while at < stop and shift < 70:
        value |= (data[at] & 127) << shift
        shift, at = shift + 7, at + 1
        if data[at - 1] < 128:
            return value, at
    return value, stop + 1


def _as_varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    return bytes([*out, value])


def mutate_protobuf(data: bytes, rng: random.Random) -> bytes:
    """Changes one field: its number, its length, its value; drops, doubles or moves it. The lengths of the messages around it mostly stay right."""
    fields = list(protobuf_fields(data))
    begin, value, end = rng.choice(fields)
    kind = rng.choice((0, 0, 0, 1, 2, 3, 4, 5, 5))
    if kind == 0:
        piece = data[begin:value] + (_as_varint(rng.choice((*INTERESTING, *range(30)))) if data[begin] & 7 == 0 else _changed_text(data[value:end], rng))
    elif kind == 1:
        piece = b""
    elif kind == 2:
        piece = data[begin:end] * rng.choice((2, 3, 50))
    elif kind == 3:
        piece = bytes([rng.randrange(256)]) + data[begin + 1:end]
    elif kind == 4 and data[begin] & 7 == 2:
        piece = data[begin:begin + 1] + _as_varint(rng.choice((*INTERESTING, end - value + 1, max(end - value - 1, 0)))) + data[value:end]
    else:
        other = rng.choice(fields)
        piece = data[begin:begin + 1] + _as_varint(other[2] - other[1]) + data[other[1]:other[2]] if data[begin] & 7 == 2 else data[other[0]:other[2]]
    return _spliced(data, fields, begin, end, piece) if rng.random() < 0.9 else data[:begin] + piece + data[end:]


def _changed_text(data: bytes, rng: random.Random) -> bytes:
    """The same number of bytes: one letter changed, or all of them."""
    at = rng.randrange(len(data)) if data else 0
    return data[:at] + rng.choice((b"a", b"x", b"0", b"\0", b"\xff"))[:len(data)] + data[at + 1:] if rng.random() < 0.7 else rng.randbytes(len(data))


def _spliced(data: bytes, fields: list[tuple[int, int, int]], begin: int, end: int, piece: bytes) -> bytes:
    """Replaces a field and corrects the lengths of all messages that contain it, from the inside out."""
    around = [field for field in fields if field[1] <= begin and field[2] >= end and field[0] != begin and data[field[0]] & 7 == 2]
    around.sort(key=lambda field: -field[1])
    for outer_begin, outer_value, outer_end in around:
        content = data[outer_value:begin] + piece + data[end:outer_end]
        tag_end = _varint(data, outer_begin, len(data))[1]
        piece = data[outer_begin:tag_end] + _as_varint(len(content)) + content
        begin, end = outer_begin, outer_end
    return data[:begin] + piece + data[end:]


def mutate_text(data: bytes, rng: random.Random) -> bytes:
    """Changes a number or a word of JSON or of a Python literal, or exchanges two parts."""
    spots = [match.span() for match in re.finditer(rb"-?\d+|[A-Za-z_]\w+|[\[\]{}\",:]", data[:100_000])]
    begin, end = rng.choice(spots)
    piece = rng.choice([str(rng.choice(INTERESTING)).encode(), b"-1", b"1e400", b"null", b"[" * 2000, b'"\\ud800"', b"{}", b"", data[begin:end] * 2, b"\xff"])
    return data[:begin] + piece + data[end:]


def mutate_safetensors(data: bytes, rng: random.Random) -> bytes:
    if data[:1] == b"{" or rng.random() < 0.1:
        return mutate_text(data, rng)
    length = int.from_bytes(data[:8], "little")
    header = mutate_text(data[8:8 + length], rng)
    stated = len(header) if rng.random() < 0.8 else rng.choice(INTERESTING)
    return stated.to_bytes(8, "little") + header + data[8 + length:]


def mutate_zip(data: bytes, rng: random.Random) -> bytes:
    """Sets one field of a header to an interesting number, or changes the text of an .npy header inside."""
    if b"\x93NUMPY" in data and rng.random() < 0.5:
        at = data.index(b"{'descr'")
        end = data.index(b"\n", at)
        return data[:at] + mutate_text(data[at:end], rng)[:end - at].ljust(end - at) + data[end:]
    spots = [match.start() for match in re.finditer(rb"PK(\x01\x02|\x03\x04|\x05\x06)", data)] or [0]
    at = rng.choice(spots) + 4 + 2 * rng.randrange(0, 21)
    width = rng.choice((2, 4))
    value = rng.choice((*INTERESTING, len(data), len(data) + 1, rng.randrange(max(len(data), 1)))) & ((1 << 8 * width) - 1)
    return data[:at] + struct.pack("<H" if width == 2 else "<I", value) + data[at + width:]


def mutate_words(data: bytes, rng: random.Random) -> bytes:
    """Sets an aligned word, as FlatBuffers offsets, lengths and vtables are."""
    width = rng.choice((2, 4))
    at = rng.randrange(0, max(1, len(data) - width)) // width * width
    value = rng.choice((*INTERESTING, len(data), len(data) - at, rng.randrange(max(len(data), 1)))) & ((1 << 8 * width) - 1)
    return data[:at] + struct.pack("<H" if width == 2 else "<I", value) + data[at + width:]


def mutate_numbers(data: bytes, rng: random.Random) -> bytes:
    """Sets one small number, wherever it stands and however wide it is: counts, lengths, types and offsets of formats without alignment."""
    spots = [at for at in range(4, len(data) - 8) if data[at] and not any(data[at + 1:at + 4])] or [0]
    at, width = rng.choice(spots), rng.choice((1, 2, 4, 8))
    value = rng.choice((*INTERESTING, *range(40), len(data), len(data) - at)) & ((1 << 8 * width) - 1)
    return data[:at] + value.to_bytes(width, rng.choice(("little", "little", "big"))) + data[at + width:]


def mutate_bytes(data: bytes, rng: random.Random) -> bytes:
    """What knows nothing of the format: flips, cuts, insertions, repeated parts."""
    kind, at = rng.randrange(5), rng.randrange(max(1, len(data)))
    if kind == 0:
        changed = bytearray(data)
        for _ in range(rng.choice((1, 1, 2, 8, 64))):
            changed[rng.randrange(len(changed))] = rng.choice((0, 1, 127, 128, 255, rng.randrange(256)))
        return bytes(changed)
    if kind == 1:
        return data[:at]
    if kind == 2:
        return data[:at] + rng.randbytes(rng.choice((1, 2, 4, 8, 100))) + data[at:]
    end = min(len(data), at + rng.choice((1, 4, 16, 256)))
    return data[:at] + data[end:] if kind == 3 else data[:end] + data[at:end] * rng.choice((1, 2, 100)) + data[end:]


STRUCTURED = {"gguf": mutate_numbers, "ggml": mutate_numbers,
              "onnx": mutate_protobuf, "safetensors": mutate_safetensors, "npz": mutate_zip, "zip": mutate_zip, "tflite": mutate_words}


def mutants(name: str, count: int, seed: int) -> Iterator[bytes]:
    """`count` mutants of a format, one to four changes each; the same for the same `seed`."""
    seeds = SEEDS[name]()
    for number in range(count if seeds else 0):
        rng = random.Random(f"{name} {seed} {number}")
        data = rng.choice(seeds)
        for _ in range(rng.choice((1, 1, 1, 2, 4))):
            change = STRUCTURED[name] if rng.random() < 0.7 else mutate_bytes
            try:
                data = change(data, rng)
            except (IndexError, ValueError):      # nothing left to change in that way
                data = mutate_bytes(data or b"\0", rng)
        yield data[:1 << 20]


# ---- the process that reads them

class Hang(BaseException):
    pass


def read_one(name: str, data: bytes) -> str:
    """What becomes of one mutant: "read" (or converted), or the code of isomorph's error."""
    from isomorph.artifact import Artifact
    from isomorph.errors import IsomorphError
    from isomorph.formats import _table
    artifact = Artifact.open(data)
    try:
        _table.identify(artifact)
    except IsomorphError as error:
        if error.code in ("internal", "usage"):
            raise
    try:
        if name == "zip":
            if artifact.archive is not None:
                artifact.archive.check()
            return "read"
        held = _table.get(name).read(artifact)
        tensors = held.values() if hasattr(held, "tensors") else [value.const_value for value in held.graph.initializers.values()]
        for tensor in tensors:
            if tensor is not None and tensor.nbytes < 1 << 20:
                tensor.numpy()
        if CONVERT and hasattr(held, "graph"):
            from isomorph.dialects import from_hub, to_hub
            from_hub(to_hub(held), "tflite")
        return "read"
    except IsomorphError as error:
        if error.code in ("internal", "usage"):
            raise
        return error.code


def peak() -> int:
    """Resident bytes at their highest since the last call."""
    with open("/proc/self/status") as file:
        found = int(re.search(r"VmHWM:\s+(\d+)", file.read())[1]) << 10
    with open("/proc/self/clear_refs", "w") as file:
        file.write("5")
    return found


def importing() -> bool:
    """Whether an import of our own or of a library is under way: modules are loaded when they are first needed."""
    frame = sys._getframe()
    while frame is not None and "importlib._bootstrap" not in frame.f_code.co_filename:
        frame = frame.f_back
    return frame is not None


def work(name: str, count: int, seed: int, first: int) -> None:
    """Reads mutants from number `first` on and prints a line before each and after it, so that the parent knows which one killed the process."""
    resource.setrlimit(resource.RLIMIT_AS, (WHOLE_LIMIT, WHOLE_LIMIT))
    signal.signal(signal.SIGALRM, lambda *_: (_ for _ in ()).throw(Hang()))
    for data in SEEDS[name]():
        try:
            read_one(name, data)
        except BaseException as error:
            print(json.dumps({"number": -1, "broken": f"a seed: {type(error).__name__}: {error}"[:300]}), flush=True)
    forbidden: list[str] = []
    watching = [False]

    def watch(event: str, arguments: tuple) -> None:
        writes = event == "open" and isinstance(arguments[1], str) and set("wax+") & set(arguments[1])
        if watching[0] and (writes or event.startswith(FORBIDDEN_EVENTS)) and not importing():
            forbidden.append(f"{event} {str(arguments)[:100]}")

    sys.addaudithook(watch)
    peak()
    outcomes: Counter[str] = Counter()
    for number, data in enumerate(mutants(name, count, seed)):
        if number < first:
            continue
        if number % 100 == 0:
            print(json.dumps({"at": number}), flush=True)
        started = time.monotonic()
        signal.setitimer(signal.ITIMER_REAL, SECONDS)
        broken = ""
        watching[0] = True
        try:
            outcomes[read_one(name, data)] += 1
        except Hang:
            broken = f"took longer than {SECONDS} s"
        except Exception as error:
            broken = f"{type(error).__name__}: {error}"[:300]
        finally:
            watching[0] = False
            signal.setitimer(signal.ITIMER_REAL, 0)
        resident = peak()
        if resident > (MEGABYTES << 20) + 2 * len(data):
            broken = broken or f"{resident >> 20} MB resident for {len(data)} bytes"
        if forbidden:
            broken = f"did {forbidden.pop()}"
            forbidden.clear()
        if broken:
            print(json.dumps({"number": number, "broken": broken, "seconds": round(time.monotonic() - started, 2), "size": len(data)}), flush=True)
    print(json.dumps({"outcomes": outcomes}), flush=True)


def run(name: str, count: int, seed: int, *, keep: Path | None = None) -> dict:
    """Runs `work` in a child, again from the next mutant where one kills it. Returns the outcomes and what broke."""
    outcomes: Counter[str] = Counter()
    broken: list[dict] = []
    first = 0
    while first < count:
        child = subprocess.run([sys.executable, __file__, "--work", name, "--count", str(count), "--seed", str(seed), "--first", str(first)]
                               + ["--convert"] * CONVERT, capture_output=True, text=True, check=False)
        last = first
        lines = [json.loads(line) for line in child.stdout.splitlines() if line.startswith("{")]
        for line in lines:
            last = max(last, line.get("at", 0), line.get("number", 0))
            outcomes.update(line.get("outcomes", {}))
            if "broken" in line:
                broken.append(line)
        if lines and "outcomes" in lines[-1]:
            break
        broken.append({"number": last, "broken": f"the process died with {child.returncode} in the 100 mutants from here on: {child.stderr[-300:]}"})
        first = last + 100
    if keep and broken:
        wanted = {item["number"] for item in broken}
        keep.mkdir(parents=True, exist_ok=True)
        for number, data in enumerate(mutants(name, count, seed)):
            if number in wanted:
                (keep / f"{name}-{seed}-{number}").write_bytes(data)
    return {"format": name, "mutants": count, "outcomes": dict(outcomes), "broken": broken}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="mutants, over all formats")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--formats", nargs="*", default=list(SEEDS))
    parser.add_argument("--keep", type=Path, help="a folder for the mutants that broke a rule")
    parser.add_argument("--convert", action="store_true", help="also convert what is a graph to TensorFlow Lite, in memory")
    parser.add_argument("--work", help=argparse.SUPPRESS)
    parser.add_argument("--first", type=int, default=0, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        work(options.work, options.count, options.seed, options.first)
        return 0
    results = [run(name, options.count // len(options.formats), options.seed, keep=options.keep) for name in options.formats]
    print(json.dumps({"schema_version": 1, "results": results}, indent=1))
    return int(any(result["broken"] for result in results))


if __name__ == "__main__":
    sys.exit(main())

"""Pickles, code and programs inside archives, changed at random: only errors of isomorph come out, soon."""
from __future__ import annotations

import io
import random
import re
import sys
import time
import zipfile
from pathlib import Path

import pytest

from isomorph.artifact import Artifact
from isomorph.errors import IsomorphError
from isomorph.formats import torch, torch_export, torchscript

sys.path.insert(0, str(Path(__file__).parents[1] / "formats"))
import test_torch_containers as containers
import test_torch_export as exported
import test_torchscript as scripted

BODY = ("if bool(torch.gt(torch.sum(x), 0)):\n  y, n = torch.neg(x), 2\nelse:\n  y, n = torch.mul(x, x), 3\nself.w = torch.add(self.w, 1)\n"
        "z = torch.slice(y, 1, 1, 3)\n_0 = torch.mul_(z, 10)\nfor i in range(3):\n  y = torch.add(y, [i][0])\nreturn torch.mul(torch.linear(y, self.w), n)")
SEEDS = {"torch": (torch, containers.zipped(), ("x/data.pkl",)), "torchscript": (torchscript, scripted.script(BODY), ("n/data.pkl", "n/code/__torch__.py")),
         "torch_export": (torch_export, exported.package(exported.LINEAR), ("m/models/model.json", "m/data/weights/model_weights_config.json"))}
WORDS = (b"x", b"1", b"-1", b"None", b"torch.add", b"torch.size", b"self", b"self.w", b"[", b")", b"99999999999", b"null", b"{}", b"true", b"[]", b"int")
COUNT, SECONDS = 300, 5


def changed(data: bytes, rng: random.Random) -> bytes:
    out = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        kind, at = rng.randrange(4), rng.randrange(max(len(out), 1))
        if kind == 0 and out:
            out[at] = rng.choice((rng.randrange(256), *b'0(.]}tRbQ-19{"['))
        elif kind == 1:
            del out[at:at + rng.randrange(1, 9)]
        elif kind == 2:
            out[at:at] = out[at // 2:at // 2 + rng.randrange(1, 20)]
        elif spots := list(re.finditer(rb'[A-Za-z_.0-9]+|"[^"]*"', bytes(out))):
            spot = rng.choice(spots)
            out[spot.start():spot.end()] = rng.choice(WORDS)
    return bytes(out)


def repacked(data: bytes, member: str, rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(buffer, "w") as target:
        for name in source.namelist():
            target.writestr(name, changed(source.read(name), rng) if name == member else source.read(name))
    return buffer.getvalue()


@pytest.mark.parametrize("name", SEEDS)
def test_changed_contents_give_only_errors_of_isomorph(name):
    module, data, members = SEEDS[name]
    outcomes = set()
    for number in range(COUNT):
        rng = random.Random(f"{name} {number}")
        mutant = repacked(data, rng.choice(members), rng)
        started = time.monotonic()
        try:
            held = module.read(Artifact.open(mutant))
            for tensor in held.values() if hasattr(held, "tensors") else ():
                tensor.numpy()
            outcomes.add("read")
        except IsomorphError as error:
            outcomes.add(error.code)
        assert time.monotonic() - started < SECONDS, number
    assert outcomes >= {"read", "damaged"}
    assert not outcomes & {"internal", "usage"}

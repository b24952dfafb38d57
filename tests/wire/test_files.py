"""Companions never leave their folder, and outputs appear whole or not at all."""
from __future__ import annotations

import errno
import io
import os
import subprocess
import sys
import threading
import time

import pytest

from isomorph.errors import IsomorphError, Unsafe, Usage
from isomorph.wire import files

HOSTILE = ["", ".", "..", "../x", "a/../../x", "/etc/passwd", "~/x", "C:/x", "C:\\x", "a\\b", "\\\\host\\share\\x", "//host/x", "http://host/x", "file:///x",
           "a\0b", "x/" * 40 + "x", "x" * 2000, "*/_ORT_MEM_ADDR_/*/.."]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(tmp_path, name):
    for function in (files.contained, files.open_contained, files.map_contained):
        with pytest.raises(Unsafe):
            function(tmp_path, name)


def test_a_plain_companion_is_opened(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "w.data").write_bytes(b"weights")
    for name in ("sub/w.data", "./sub//w.data"):
        assert files.contained(tmp_path, name) == tmp_path / "sub" / "w.data"
        with files.open_contained(tmp_path, name) as file:
            assert file.read() == b"weights"
    assert bytes(files.map_contained(tmp_path, "sub/w.data")) == b"weights"
    for name in ("gone", "sub/gone", "gone/gone"):
        assert files.open_contained(tmp_path, name) is None
    (tmp_path / "empty").touch()
    assert bytes(files.map_contained(tmp_path, "empty")) == b""


def make_link(folder, outside):
    (folder / "link").symlink_to(outside / "secret")
    return "link"


def make_linked_parent(folder, outside):
    (folder / "parent").symlink_to(outside)
    return "parent/secret"


def make_hard_link(folder, outside):
    os.link(outside / "secret", folder / "hard")
    return "hard"


def make_pipe(folder, outside):
    os.mkfifo(folder / "pipe")
    return "pipe"


def make_folder(folder, outside):
    (folder / "folder").mkdir()
    return "folder"


def make_file_as_parent(folder, outside):
    (folder / "file").touch()
    return "file/x"


@pytest.mark.skipif(sys.platform == "win32", reason="links and pipes need POSIX")
@pytest.mark.parametrize("make", [make_link, make_linked_parent, make_hard_link, make_pipe, make_folder, make_file_as_parent])
def test_odd_files_are_refused(tmp_path, make):
    folder, outside = tmp_path / "model", tmp_path / "model_outside"          # a prefix of its sibling's name
    folder.mkdir()
    outside.mkdir()
    (outside / "secret").write_text("secret")
    name = make(folder, outside)
    with pytest.raises(Unsafe):
        files.open_contained(folder, name)


def test_a_swap_between_check_and_opening_gains_nothing(tmp_path):
    """Another thread exchanges a folder for a link all the time: what is opened is either the file inside or an error."""
    inside, outside = tmp_path / "in", tmp_path / "out"
    for folder, text in ((inside / "real", "inside"), (outside, "outside")):
        folder.mkdir(parents=True)
        (folder / "w").write_text(text)
    stop = threading.Event()

    def swap():
        while not stop.is_set():
            os.rename(inside / "real", inside / "away")
            (inside / "real").symlink_to(outside)
            (inside / "real").unlink()
            os.rename(inside / "away", inside / "real")
            time.sleep(0.0002)

    thread = threading.Thread(target=swap)
    thread.start()
    found = set()
    try:
        started = time.monotonic()
        while time.monotonic() < started + 1 or ("inside" not in found and time.monotonic() < started + 30):
            try:
                file = files.open_contained(inside, "real/w")
            except Unsafe:
                found.add("refused")
                continue
            if file is not None:
                with file:
                    found.add(file.read().decode())
    finally:
        stop.set()
        thread.join()
    assert "outside" not in found
    assert "inside" in found


def write_all(paths, failure: BaseException | None = None) -> None:
    with files.replacing_all(paths) as outputs:
        for output in outputs:
            output.write(b"new")
        assert not any(path.exists() for path in paths)
        if failure:
            raise failure


def test_several_files_appear_together_or_not_at_all(tmp_path):
    paths = [tmp_path / "m.data", tmp_path / "m.onnx"]
    with pytest.raises(KeyError):
        write_all(paths, KeyError())
    assert list(tmp_path.iterdir()) == []
    write_all(paths)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m.data", "m.onnx"]


def test_an_existing_output_needs_force(tmp_path):
    path = tmp_path / "x"
    path.write_text("old")
    with pytest.raises(Usage, match="exists already"), files.replacing(path):
        pass
    with files.replacing(path, force=True) as file:
        file.write(b"new")
    assert path.read_text() == "new"
    with pytest.raises(Usage, match="folder"), files.replacing(tmp_path, force=True):
        pass
    with pytest.raises(Usage, match="cannot be written"), files.replacing(tmp_path / "gone" / "x"):
        pass


def test_a_file_made_meanwhile_is_not_overwritten(tmp_path):
    path = tmp_path / "x"

    def write() -> None:
        with files.replacing(path) as file:
            file.write(b"mine")
            path.write_text("theirs")

    with pytest.raises(Usage, match="in the meantime"):
        write()
    assert path.read_text() == "theirs"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.filterwarnings("error::pytest.PytestUnhandledThreadExceptionWarning")
def test_concurrent_writers_do_not_mix(tmp_path):
    path = tmp_path / "x"

    def write(letter: bytes) -> None:
        with files.replacing(path, force=True) as file:
            for _ in range(50):
                file.write(letter * 1000)
                file.flush()

    threads = [threading.Thread(target=write, args=(letter,)) for letter in (b"a", b"b", b"c")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert path.read_bytes() in [letter * 50_000 for letter in (b"a", b"b", b"c")]
    assert list(tmp_path.iterdir()) == [path]


def test_no_writer_takes_the_part_of_another_for_an_orphan(tmp_path):
    """Between the making of a part and its locking others may look."""
    failures = []

    def write() -> None:
        for _ in range(100):
            try:
                with files.replacing(tmp_path / "x", force=True) as file:
                    file.write(b"1")
            except OSError as error:
                failures.append(error)
    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert [path.name for path in tmp_path.iterdir()] == ["x"]


@pytest.mark.skipif(sys.platform == "win32", reason="locks of living writers are POSIX")
def test_orphans_of_dead_writers_go_and_parts_of_living_ones_stay(tmp_path):
    path = tmp_path / "x"
    (tmp_path / "x.00000000.part").write_text("left behind")
    (tmp_path / "x.notatoken.part").write_text("somebody's file")
    (tmp_path / "xy.00000000.part").write_text("of another output")
    with files.replacing(path) as file:
        file.write(b"1")
        assert not (tmp_path / "x.00000000.part").exists()
        script = f"from isomorph.wire import files; from pathlib import Path; files.remove_orphans(Path({str(path)!r}))"
        subprocess.run([sys.executable, "-c", script], check=True)
        assert len(list(tmp_path.glob("x.*.part"))) == 2
    assert sorted(path.name for path in tmp_path.iterdir()) == ["x", "x.notatoken.part", "xy.00000000.part"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path, code):
    with pytest.raises(IsomorphError, match=r"disk|quota|larger"):
        write_all([tmp_path / "x"], OSError(code, "full"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("before", [0, 1, 808, files.BUFFERED - 1, files.BUFFERED])
def test_slices_of_a_mapping_are_written_whole(tmp_path, before):
    """At any place of the source and of the output, behind what is still in the buffer of the output."""
    data = os.urandom(3 * files.BUFFERED + 77)
    (tmp_path / "source").write_bytes(data)
    with open(tmp_path / "source", "rb") as source:
        view = files.mapped(source)
    with files.replacing(tmp_path / "out") as output:
        output.write(b"x" * before)
        files.put(output, view[5:])
        output.write(b"end")
        files.put(output, view[:files.LEAST_COPIED])
    assert (tmp_path / "out").read_bytes() == b"x" * before + data[5:] + b"end" + data[:files.LEAST_COPIED]
    memory = io.BytesIO(b"")
    files.put(memory, view)
    assert memory.getvalue() == data


def test_room_is_reserved_and_a_full_disk_is_told_before_anything_is_written(tmp_path, monkeypatch):
    asked = []

    def full(descriptor: int, offset: int, count: int) -> None:
        asked.append((offset, count))
        raise OSError(errno.ENOSPC, "full")
    monkeypatch.setattr(os, "posix_fallocate", full)

    def write() -> None:
        with files.replacing(tmp_path / "out") as output:
            output.write(b"head")
            files.put(output, bytes(files.BUFFERED))
    with pytest.raises(IsomorphError, match="disk is full"):
        write()
    assert asked == [(4, files.BUFFERED)]
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("force", [False, True])
def test_what_is_replaced_is_given_up_once_the_new_file_is_on_the_disk(tmp_path, monkeypatch, force):
    """A power failure loses no file that was there before; for one that replaces nothing nobody waits."""
    path, seen = tmp_path / "out", []
    if force:
        path.write_text("old")
    monkeypatch.setattr(os, "fsync", lambda descriptor: seen.append(path.read_text()))
    with files.replacing(path, force=force) as output:
        output.write(b"new")
    assert path.read_text() == "new"
    assert seen == (["old", "new"] if force else [])          # the file, then the folder with its name

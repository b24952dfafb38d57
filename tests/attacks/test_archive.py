"""Hostile zip and tar files: what is refused, what is reported, and that nothing else happens. The files are built here, byte by byte."""
from __future__ import annotations

import io
import random
import struct
import tarfile
import time
import zipfile
import zlib

import pytest

from isomorph.errors import Damaged, Unsafe
from isomorph.wire import archive
from isomorph.wire.limits import DEFAULT, Limits


def zipped(members: dict[str, bytes], method: int = zipfile.ZIP_STORED) -> bytearray:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as file:
        for name, data in members.items():
            file.writestr(zipfile.ZipInfo(name), data, method)
    return bytearray(buffer.getvalue())


def tarred(*members: tuple[str, bytes], form: int = tarfile.GNU_FORMAT, kind: bytes = tarfile.REGTYPE) -> bytearray:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as file:
        for name, data in members:
            info = tarfile.TarInfo(name)
            info.type, info.size = kind, len(data)
            file.addfile(info, io.BytesIO(data))
    return bytearray(buffer.getvalue())


def opened(data: bytes | bytearray, limits: Limits = DEFAULT) -> archive.Archive:
    result = archive.open_archive(memoryview(data), "test", limits)
    assert result is not None
    return result


def codes(found: archive.Archive) -> set[str]:
    return {note.code for note in found.findings}



def central_at(data: bytes, name: str) -> int:
    return data.rindex(name.encode()) - 46


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_reads_what_zipfile_wrote(method: int) -> None:
    data = zipped({"a/b": b"hello" * 1000, "c": b"", "d": bytes(3 << 20)}, method)
    found = opened(data)
    assert found.names == ("a/b", "c", "d")
    assert bytes(found.read("a/b")) == b"hello" * 1000
    assert bytes(found.read("c")) == b""
    assert b"".join(bytes(piece) for piece in found.stream("d")) == bytes(3 << 20)
    assert found.head("a/b", 7) == b"hellohe"
    assert found.check() == []


def test_stored_members_are_slices_of_the_mapping() -> None:
    data = zipped({"a": b"hello"})
    piece = opened(data).read("a")
    data[data.index(b"hello")] = ord("j")
    assert bytes(piece) == b"jello"


def test_zip64_of_a_stream() -> None:
    """A writer that does not know sizes in advance puts them behind the data and in zip64 fields."""
    class Unseekable(io.RawIOBase):
        def __init__(self) -> None:
            self.data = bytearray()

        def writable(self) -> bool:
            return True

        def write(self, piece) -> int:                                # type: ignore[no-untyped-def, override]
            self.data += piece
            return len(piece)
    sink = Unseekable()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as file, file.open("x", "w", force_zip64=True) as member:   # type: ignore[arg-type]
        member.write(b"data" * 500)
    found = opened(sink.data)
    assert bytes(found.read("x")) == b"data" * 500
    assert found.check() == []


def test_data_before_the_archive_is_reported_and_read_past() -> None:
    found = opened(b"\x7fELF program " + bytes(zipped({"a": b"hello"})))
    assert found.prefix == 13
    assert codes(found) == {"archive.leading-data"}
    assert bytes(found.read("a")) == b"hello"


def test_data_behind_the_archive_is_reported() -> None:
    assert codes(opened(bytes(zipped({"a": b"hello"})) + b"more")) == {"archive.trailing-data"}


@pytest.mark.parametrize(("offset", "value", "what"), [
    (30, b"b", "name"), (14, b"\1\2\3\4", "CRC"), (22, b"\6", "size"), (18, b"\6", "packed size"), (8, b"\x08", "method"), (6, b"\x01", "flags")])
def test_a_local_header_that_lies_is_reported(offset: int, value: bytes, what: str) -> None:
    data = zipped({"a": b"hello"})
    data[offset:offset + len(value)] = value
    found = opened(data)
    found.check()
    assert any(note.code == "archive.local-header-differs" and what in note.message and note.severity == archive.HIGH for note in found.findings)


def test_a_wrong_crc_is_reported_and_the_member_still_read() -> None:
    data = zipped({"a": b"hello" * 99}, zipfile.ZIP_DEFLATED)
    for at in (14, central_at(data, "a") + 16):
        data[at:at + 4] = b"\1\2\3\4"
    found = opened(data)
    assert bytes(found.read("a")) == b"hello" * 99
    assert codes(found) == {"archive.wrong-crc"}


@pytest.mark.parametrize(("declared", "message"), [(10, "more than the 10 bytes"), (100_000, "states 100000")])
def test_a_size_that_lies_is_damage(declared: int, message: str) -> None:
    data = zipped({"a": b"hello" * 99}, zipfile.ZIP_DEFLATED)
    for at in (22, central_at(data, "a") + 24):
        struct.pack_into("<L", data, at, declared)
    with pytest.raises(Damaged, match=message):
        opened(data).read("a")


def test_a_bomb_is_refused_before_it_unpacks() -> None:
    data = zipped({"a": bytes(64 << 20)}, zipfile.ZIP_DEFLATED)
    found = opened(data)
    start = time.process_time()
    with pytest.raises(Unsafe, match=r"Limits\.expansion"):
        found.read("a")
    assert time.process_time() - start < 0.05
    assert found.head("a", 16) == bytes(16)


def test_all_members_together_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each member alone stays below the floor; together they do not."""
    monkeypatch.setattr(archive, "LEAST_TOTAL", 4 << 20)
    found = opened(zipped({str(index): bytes(1 << 20) for index in range(8)}, zipfile.ZIP_DEFLATED))
    with pytest.raises(Unsafe, match="its members"):
        [found.read(name) for name in found.names]


def test_members_that_share_bytes_are_reported() -> None:
    """The kernel of an overlapping-file bomb: two directory records over one local header."""
    data = zipped({"a": b"hello", "b": b"world"})
    struct.pack_into("<L", data, central_at(data, "b") + 42, 0)
    assert "archive.overlapping-members" in codes(opened(data))


def test_a_member_that_runs_into_the_next_is_reported() -> None:
    data = zipped({"a": b"hello", "b": b"world"})
    for at in (18, 22, central_at(data, "a") + 20, central_at(data, "a") + 24):
        struct.pack_into("<L", data, at, 20)
    assert "archive.overlapping-members" in codes(opened(data))


def test_duplicate_names_are_reported() -> None:
    data = zipped({"aa": b"hello", "ab": b"world"})
    data[central_at(data, "ab") + 47] = ord("a")
    found = opened(data)
    assert codes(found) == {"archive.duplicate-name"}
    assert found.names == ("aa",)


def test_an_encrypted_member_is_refused() -> None:
    data = zipped({"a": b"hello"})
    for at in (6, central_at(data, "a") + 8):
        data[at] |= 1
    found = opened(data)
    assert codes(found) == {"archive.encrypted"}
    with pytest.raises(Unsafe, match="encrypted"):
        found.read("a")


@pytest.mark.parametrize(("name", "problem"), [
    ("../a", "'..'"), ("a/../../b", "'..'"), ("/etc/passwd", "absolute"), ("~/a", "absolute"), ("C:x", "drive"), ("a\\b", "backslash"), ("a?b", "NUL")])
def test_names_that_would_escape_are_reported(name: str, problem: str) -> None:
    archives = [bytes(zipped({name: b"x"})).replace(b"a?b", b"a\0b")]
    if "?" not in name:                    # a tar name ends at its NUL byte
        archives.append(bytes(tarred((name, b"x"))))
    for data in archives:
        assert [(note.code, problem in note.message) for note in opened(data).findings] == [("archive.escaping-name", True)]


def test_two_end_records_are_reported() -> None:
    inner = zipped({"evil": b"1"})
    outer = zipped({"good": b"2"})
    comment = bytes(inner)
    struct.pack_into("<H", outer, len(outer) - 2, len(comment))
    found = opened(bytes(outer) + comment)
    assert "archive.two-end-records" in codes(found)


def test_a_zip64_record_that_disagrees_is_reported() -> None:
    data = bytes(zipped({"a": b"hello"}))
    at = data.index(b"PK\5\6")
    _, _, _, _, entries, size, offset, _ = archive.END.unpack_from(data, at)
    wide = archive.END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, entries, entries, size, offset)
    locator = archive.LOCATOR64.pack(b"PK\6\7", 0, at, 1)
    end = archive.END.pack(b"PK\5\6", 0, 0, 7, 7, size, offset, 0)
    assert codes(opened(data[:at] + wide + locator + data[at:])) == set()
    assert codes(opened(data[:at] + wide + locator + end)) == {"archive.zip64-disagrees"}


@pytest.mark.parametrize("count", [10**9, 2**63])
def test_counts_beyond_the_file_are_refused_at_once(count: int) -> None:
    data = bytes(zipped({"a": b"hello"}))
    at = data.index(b"PK\5\6")
    wide = archive.END64.pack(b"PK\6\6", 44, 45, 45, 0, 0, count, count, len(data) - at, 35)
    start = time.process_time()
    with pytest.raises((Unsafe, Damaged)):
        archive.open_archive(memoryview(data[:at] + wide + archive.LOCATOR64.pack(b"PK\6\7", 0, at, 1) + data[at:]), "test")
    assert time.process_time() - start < 0.05


def test_too_many_entries_are_refused() -> None:
    data = zipped({str(index): b"" for index in range(50)})
    with pytest.raises(Unsafe, match="archive_entries"):
        opened(data, Limits(archive_entries=49))
    with pytest.raises(Unsafe, match="archive_entries"):
        opened(tarred(*((str(index), b"") for index in range(50))), Limits(archive_entries=49))


def test_other_compression_methods_are_refused_by_name() -> None:
    with pytest.raises(Unsafe, match="method 14"):
        opened(zipped({"a": b"hello" * 50}, zipfile.ZIP_LZMA)).read("a")


def test_an_unknown_member_and_a_limit() -> None:
    found = opened(zipped({"a": b"hello"}))
    with pytest.raises(Damaged, match="no member"):
        found.read("b")
    with pytest.raises(Unsafe, match="at most 4"):
        found.read("a", 4)


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_reads_what_tarfile_wrote(form: int) -> None:
    long = "d/" * 40 + "n" * 60
    found = opened(tarred((long, b"hello"), ("b", b"x" * 1000), form=form))
    assert found.kind == "tar"
    assert found.names == (long, "b")
    assert bytes(found.read(long)) == b"hello"
    assert bytes(found.read("b")) == b"x" * 1000
    assert found.check() == []


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.CHRTYPE, tarfile.BLKTYPE, tarfile.FIFOTYPE])
def test_links_and_devices_in_a_tar_are_not_members(kind: bytes) -> None:
    found = opened(tarred(("x", b""), kind=kind))
    assert found.names == ()
    assert codes(found) == {"archive.special-member"}


def test_a_tar_size_beyond_the_file_is_damage() -> None:
    data = tarred(("a", b"hello"))
    data[124:136] = b"\x80" + b"\xff" * 11
    data[148:156] = b" " * 8
    data[148:156] = b"%06o\0 " % sum(data[:512])
    with pytest.raises(Damaged, match="do not fit"):
        opened(data)


def test_a_cut_zip_says_what_it_was() -> None:
    data = zipped({"model/data.pkl": b"hello"})
    with pytest.raises(Damaged, match=r"cut off.*model/data\.pkl"):
        opened(data[:60])


def test_other_bytes_are_no_archive() -> None:
    for data in (b"", b"hello", bytes(4096), b"x" * 100 + b"PK\5\6" + b"\xff" * 18, random.Random(1).randbytes(5000)):
        assert archive.open_archive(memoryview(data), "test") is None


def test_mutated_archives_raise_only_our_errors() -> None:
    """Every header byte of a zip and a tar set to odd values, and random damage besides: no other error, no long wait, no large memory."""
    chance = random.Random(20261123)
    seeds = [zipped({"a/b": b"hello" * 40, "c": zlib.compress(b"x")}, method) for method in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)]
    seeds += [tarred(("a" * 120, b"hello"), ("b", b"")), tarred(("é" * 80, b"hello"), form=tarfile.PAX_FORMAT)]
    refused = 0
    for seed in seeds:
        places = range(len(seed)) if len(seed) < 2000 else chance.sample(range(len(seed)), 2000)
        for at in places:
            data = bytearray(seed)
            data[at:at + 4] = chance.choice([b"\0\0\0\0", b"\xff\xff\xff\xff", b"\0\0\0\x80", chance.randbytes(4)])[:len(data) - at]
            try:
                found = archive.open_archive(memoryview(data), "test")
                for name in found.names if found else ():
                    found.read(name)
                    found.head(name, 10)
            except (Damaged, Unsafe):
                refused += 1
    assert refused > 100

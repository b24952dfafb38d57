"""Zip and tar, read where they lie: members are slices of the mapping or bounded streams, and nothing is ever extracted to disk.

Layouts: PKWARE APPNOTE 6.3.10, sections 4.3 to 4.5; POSIX.1-2001 ustar and pax; GNU tar manual, "Basic Tar Format".
The standard library's zipfile hides the local headers, and loaders of other languages read those: where the two disagree, a scanner and a loader see
different files. Here both are read and every disagreement is a note.
"""
from __future__ import annotations

import re
import struct
import zlib
from collections.abc import Iterator
from typing import NamedTuple

from isomorph.errors import Damaged, Unsafe
from isomorph.wire.limits import DEFAULT, Limits

END = struct.Struct("<4s4H2LH")            # signature, disk, directory disk, entries here, entries, directory size, directory offset, comment length
LOCATOR64 = struct.Struct("<4sLQL")        # signature, disk, offset of the zip64 end record, disks
END64 = struct.Struct("<4sQ2H2L4Q")        # signature, size, made by, needed, disk, directory disk, entries here, entries, directory size, directory offset
CENTRAL = struct.Struct("<4s6H3L5H2L")     # signature, made by, needed, flags, method, time, date, crc, packed, size, name, extra, comment, disk, ..., offset
LOCAL = struct.Struct("<4s5H3L2H")         # signature, needed, flags, method, time, date, crc, packed, size, name, extra

END_MARK, END64_MARK, LOCATOR64_MARK, CENTRAL_MARK, LOCAL_MARK = b"PK\5\6", b"PK\6\6", b"PK\6\7", b"PK\1\2", b"PK\3\4"
LONGEST_COMMENT = 0xFFFF
ENCRYPTED, DESCRIPTOR_FOLLOWS, UTF8 = 0x1, 0x8, 0x800
STORED, DEFLATED = 0, 8
FULL = 0xFFFFFFFF                          # the value stands in the zip64 extra field

BLOCK = 512                                # tar counts in blocks
REGULAR, FOLDER = (b"0", b"\0", b"7"), b"5"
LINKS = {b"1": "a hard link", b"2": "a symbolic link", b"3": "a character device", b"4": "a block device", b"6": "a named pipe"}
LONGEST_PAX = 1 << 20

PLAIN = re.compile(r"\w[\w./ +=@,()\[\]-]*", re.ASCII)      # a name that needs no closer look, unless it has ".." in it

INFO, LOW, MEDIUM, HIGH = 0, 1, 2, 3       # the numbers of report.Severity, which stands a floor above
CHUNK = 1 << 20
LEAST_TOTAL = 1 << 30                      # what an archive may always unpack to in total, whatever its size


class Note(NamedTuple):
    """Something odd about an archive. `severity` is the number of `report.Severity`; upper floors make it a `Finding`."""

    code: str
    severity: int
    where: str
    message: str


class Member(NamedTuple):
    """One file of an archive, as its directory describes it. `offset` is that of its header (zip) or data (tar) in bytes."""

    name: str
    size: int
    packed_size: int
    stored: bool
    offset: int
    method: int = STORED
    flags: int = 0
    crc: int = 0
    raw_name: bytes = b""
    stop: int = 0                          # where the next member or the directory begins


class Archive:
    """The members of a zip or tar file. Only `Damaged` and `Unsafe` leave it.

    `names` is in the order of the directory, every name once; `findings` grows as members are touched, `check()` touches them all.
    """

    def __init__(self, kind: str, view: memoryview, where: str, limits: Limits, members: dict[str, Member], findings: list[Note], prefix: int = 0):
        self.kind, self.view, self.where, self.limits, self.members, self.findings, self.prefix = kind, view, where, limits, members, findings, prefix
        self.names = tuple(members)
        self._starts: dict[str, int] = {}
        self._unpacked = 0

    def member(self, name: str) -> Member:
        """The member of that name. Raises `Damaged` where there is none."""
        if name not in self.members:
            raise Damaged(f"the archive has no member {name[:200]!r}", where=self.where)
        return self.members[name]

    def read(self, name: str, limit: int | None = None) -> memoryview:
        """All bytes of a member: a slice of the mapping where it is stored, else unpacked in memory and checked against its CRC.

        Raises `Unsafe` where it is larger than `limit` bytes, expands beyond the limits or is encrypted, `Damaged` where its sizes do not hold.
        """
        member = self.member(name)
        if limit is not None and member.size > limit:
            raise Unsafe(f"{member.size} bytes where at most {limit} were expected", where=self._at(name))
        if member.stored:
            start = self._start(member)
            return self.view[start:start + member.size]
        data = b"".join(self.stream(name))
        if member.crc != zlib.crc32(data):
            self._note("archive.wrong-crc", HIGH, name, "the bytes do not have the CRC that the directory states")
        return memoryview(data)

    def head(self, name: str, length: int) -> bytes:
        """At most the first `length` bytes of a member; nothing beyond them is unpacked."""
        member = self.member(name)
        start = self._start(member)
        if member.stored:
            return bytes(self.view[start:start + min(length, member.size)])
        packed = self.view[start:start + min(member.packed_size, length + CHUNK)]
        try:
            return zlib.decompressobj(-zlib.MAX_WBITS).decompress(packed, max(1, min(length, member.size)))[:length]
        except zlib.error as error:
            raise Damaged(f"the packed data is not valid ({error})", where=self._at(name), offset=start) from None

    def stream(self, name: str) -> Iterator[memoryview]:
        """The bytes of a member in pieces of at most 1 MiB, under the same conditions as `read` but without its CRC."""
        member = self.member(name)
        start = self._start(member)
        packed = self.view[start:start + member.packed_size]
        if member.stored:
            for at in range(0, member.size, CHUNK):
                yield packed[at:at + CHUNK]
            return
        self._reject_bomb(member)
        unpacker, done = zlib.decompressobj(-zlib.MAX_WBITS), 0
        try:
            for at in range(0, len(packed), CHUNK):
                piece: bytes | memoryview = packed[at:at + CHUNK]
                while unpacked := unpacker.decompress(piece, CHUNK):
                    done += len(unpacked)
                    self._account(member, done, len(unpacked))
                    yield memoryview(unpacked)
                    piece = unpacker.unconsumed_tail
        except zlib.error as error:
            raise Damaged(f"the packed data is not valid ({error})", where=self._at(name), offset=start) from None
        if done != member.size:
            raise Damaged(f"unpacks to {done} bytes where the directory states {member.size}", where=self._at(name))

    def check(self) -> list[Note]:
        """Compares every local header with the directory, and the CRC of every member with its bytes. Returns all findings, these included."""
        for name, member in self.members.items():
            try:
                crc = 0
                for piece in self.stream(name):
                    crc = zlib.crc32(piece, crc)
                if self.kind == "zip" and crc != member.crc:
                    self._note("archive.wrong-crc", HIGH, name, "the bytes do not have the CRC that the directory states")
            except (Damaged, Unsafe) as error:
                self._note("archive.unreadable", HIGH, name, error.what)
        return self.findings

    def _reject_bomb(self, member: Member) -> None:
        if member.size > self.limits.expansion_floor and member.size > self.limits.expansion * max(1, member.packed_size):
            raise Unsafe(f"{member.packed_size} bytes that unpack to {member.size}, more than {self.limits.expansion} times (Limits.expansion)",
                         where=self._at(member.name))

    def _account(self, member: Member, done: int, added: int) -> None:
        """Bounds what one member and all members together may unpack to."""
        self._unpacked += added
        if done > member.size:
            raise Damaged(f"unpacks to more than the {member.size} bytes that the directory states", where=self._at(member.name))
        if self._unpacked > max(LEAST_TOTAL, self.limits.expansion * len(self.view)):
            raise Unsafe(f"its members unpack to more than {self.limits.expansion} times the file (Limits.expansion)", where=self.where)

    def _start(self, member: Member) -> int:
        """Where the data of a member begins, found once. The local header of a zip is compared with the directory on the way."""
        if self.kind == "tar":
            return member.offset
        if member.name not in self._starts:
            self._starts[member.name] = self._read_local(member)
        return self._starts[member.name]

    def _read_local(self, member: Member) -> int:
        at, end = member.offset, len(self.view)
        if at + LOCAL.size > end:
            raise Damaged("its local header lies beyond the end of the file", where=self._at(member.name), offset=at)
        mark, _, flags, method, _, _, crc, packed, size, name_length, extra_length = LOCAL.unpack_from(self.view, at)
        if mark != LOCAL_MARK:
            raise Damaged("there is no local header where the directory states one", where=self._at(member.name), offset=at)
        start = at + LOCAL.size + name_length + extra_length
        raw_name = bytes(self.view[at + LOCAL.size:at + LOCAL.size + name_length])
        extra = self.view[at + LOCAL.size + name_length:start]
        size, packed = _wide_values(extra, [size, packed])
        stated = [("name", raw_name, member.raw_name), ("flags", flags & ENCRYPTED, member.flags & ENCRYPTED), ("method", method, member.method)]
        if not flags & DESCRIPTOR_FOLLOWS or size or packed or crc:
            stated += [("size", size, member.size), ("packed size", packed, member.packed_size), ("CRC", crc, member.crc)]
        for what, local, central in stated:
            if local != central:
                self._note("archive.local-header-differs", HIGH, member.name, f"the {what} is {local!r} in its local header and {central!r} in the directory")
        if (flags | member.flags) & ENCRYPTED:
            raise Unsafe("the member is encrypted", where=self._at(member.name))
        if member.method not in (STORED, DEFLATED):
            raise Unsafe(f"compression method {member.method}; only stored and deflated members are read", where=self._at(member.name))
        if start + member.packed_size > end:
            raise Damaged(f"{member.packed_size} bytes of data do not fit before the end of the file", where=self._at(member.name), offset=start)
        if start + member.packed_size > member.stop:
            self._note("archive.overlapping-members", HIGH, member.name, "its data runs into the next record")
        if member.stored and member.size != member.packed_size:
            raise Damaged(f"stored, but {member.size} bytes in {member.packed_size}", where=self._at(member.name))
        return start

    def _at(self, name: str) -> str:
        return f"{self.where}!{name[:200]}"

    def _note(self, code: str, severity: int, name: str, message: str) -> None:
        note = Note(code, severity, self._at(name), message)
        if note not in self.findings:
            self.findings.append(note)


def open_archive(view: memoryview, where: str, limits: Limits = DEFAULT) -> Archive | None:
    """The archive in `view`, or None where the bytes are neither zip nor tar.

    A zip may stand behind other data, as behind a program or a model that carries labels. Raises `Damaged` where a zip or tar is cut off or contradicts
    itself, `Unsafe` where it exceeds the limits. Members that would leave a folder on extraction are listed and noted; as nothing is extracted, reading
    them is safe.
    """
    if is_tar(view):
        return _open_tar(view, where, limits)
    return _open_zip(view, where, limits)


def name_problem(name: str) -> str:
    """Why a member's name must never become a path, or an empty string."""
    if not name:
        return "an empty name"
    problems = {"\0": "a NUL byte", "\\": "a backslash"}
    for character, problem in problems.items():
        if character in name:
            return f"{problem} in the name"
    if name.startswith(("/", "~")):
        return "an absolute path"
    if name[1:2] == ":":
        return "a drive letter"
    return "'..' in the path" if ".." in name.split("/") else ""


class _End(NamedTuple):
    """What the end records of a zip say: where the directory lies in the file, its size, its entries, and the bytes before the archive."""

    start: int
    size: int
    entries: int
    prefix: int
    position: int
    agree: bool                            # whether the zip64 end record says the same as the end record


def _open_zip(view: memoryview, where: str, limits: Limits) -> Archive | None:
    begins = bytes(view[:4]) == LOCAL_MARK
    ends = _ends(view)
    if not ends:
        if begins:
            raise Damaged(f"the zip has no end record, so it is cut off; its first member is {_first_name(view)!r}", where=where,
                          hint="download or copy it again")
        return None
    end = ends[0]
    findings: list[Note] = []
    if len(ends) > 1:
        findings.append(Note("archive.two-end-records", HIGH, where, "more than one end record leads to a directory, so two readers may see two archives"))
    if not end.agree:
        findings.append(Note("archive.zip64-disagrees", HIGH, where, "the zip64 end record contradicts the end record, so two readers may see two archives"))
    comment = END.unpack_from(view, end.position)[-1]
    if end.position + END.size + comment != len(view):
        findings.append(Note("archive.trailing-data", MEDIUM, where, f"{len(view) - end.position - END.size - comment} bytes follow the end record"))
    if end.prefix:
        findings.append(Note("archive.leading-data", INFO if not begins else HIGH, where, f"{end.prefix} bytes stand before the archive"))
    members = _read_directory(view, end, where, limits, findings)
    return Archive("zip", view, where, limits, members, findings, end.prefix)


def _ends(view: memoryview) -> list[_End]:
    """Every end record that leads to a directory, the last one first. At most eight signatures are looked at."""
    begin = max(0, len(view) - LONGEST_COMMENT - END.size)
    tail = bytes(view[begin:])
    found: list[_End] = []
    at = len(tail)
    for _ in range(8):
        at = tail.rfind(END_MARK, 0, at)
        if at < 0:
            break
        end = _end_at(view, begin + at) if at + END.size <= len(tail) else None
        if end and not any(other.start == end.start for other in found):
            found.append(end)
    return found


def _end_at(view: memoryview, position: int) -> _End | None:
    _, disk, _, _, entries, size, offset, comment = END.unpack_from(view, position)
    if position + END.size + comment > len(view) or disk not in (0, 0xFFFF):
        return None
    stop, agree = position, True
    locator = position - LOCATOR64.size
    if locator >= 0 and bytes(view[locator:locator + 4]) == LOCATOR64_MARK:              # PyTorch writes one where nothing needs it
        stop = _end64_position(view, locator)
        if stop < 0:
            return None
        narrow = (entries, size, offset)
        *_, entries, size, offset = END64.unpack_from(view, stop)
        agree = all(a in (b, full) for a, b, full in zip(narrow, (entries, size, offset), (0xFFFF, FULL, FULL), strict=True))
    elif FULL in (size, offset):
        return None
    start = stop - size
    if start < 0 or offset > start:
        return None
    if entries and bytes(view[start:start + 4]) != CENTRAL_MARK:
        return None
    if not entries and size:
        return None
    return _End(start, size, entries, start - offset, position, agree)


def _end64_position(view: memoryview, locator: int) -> int:
    """Where the zip64 end record stands: directly before its locator, or where the locator says. -1 where it is in neither place."""
    stated = LOCATOR64.unpack_from(view, locator)[2]
    for at in (locator - END64.size, stated):
        if 0 <= at <= locator - END64.size and bytes(view[at:at + 4]) == END64_MARK:
            return at
    return -1


def _read_directory(view: memoryview, end: _End, where: str, limits: Limits, findings: list[Note]) -> dict[str, Member]:
    if end.entries > limits.archive_entries:
        raise Unsafe(f"{end.entries} members, more than Limits.archive_entries = {limits.archive_entries}", where=where)
    if end.entries * CENTRAL.size > end.size:
        raise Damaged(f"{end.entries} members in a directory of {end.size} bytes", where=where, offset=end.start)
    at, stop = end.start, end.start + end.size
    entries: list[Member] = []
    while at < stop:
        if at + CENTRAL.size > stop or bytes(view[at:at + 4]) != CENTRAL_MARK:
            raise Damaged("expected a record of the zip directory", where=where, offset=at)
        if len(entries) >= limits.archive_entries:
            raise Unsafe(f"more members than Limits.archive_entries = {limits.archive_entries}", where=where)
        member, at = _directory_record(view, at, stop, end.prefix, where)
        entries.append(member)
    if len(entries) & 0xFFFF != end.entries & 0xFFFF:
        findings.append(Note("archive.wrong-count", HIGH, where, f"the end record states {end.entries} members, the directory holds {len(entries)}"))
    return _without_overlap(entries, end.start, where, findings)


def _directory_record(view: memoryview, at: int, stop: int, prefix: int, where: str) -> tuple[Member, int]:
    (_, _, _, flags, method, _, _, crc, packed, size, name_length, extra_length, comment_length, _, _, _, offset) = CENTRAL.unpack_from(view, at)
    name_at = at + CENTRAL.size
    extra_at = name_at + name_length
    following = extra_at + extra_length + comment_length
    if following > stop:
        raise Damaged("a record of the zip directory runs over its end", where=where, offset=at)
    if FULL in (size, packed, offset):
        size, packed, offset = _wide_values(view[extra_at:extra_at + extra_length], [size, packed, offset])
    raw_name = bytes(view[name_at:extra_at])
    try:
        name = raw_name.decode()
    except UnicodeDecodeError:
        name = raw_name.decode("utf-8", "surrogateescape") if flags & UTF8 else raw_name.decode("cp437")
    return Member(name, size, packed, method == STORED, offset + prefix, method, flags, crc, raw_name), following


def _wide_values(extra: memoryview, values: list[int]) -> list[int]:
    """The values of a record, where those that are FULL stand in its zip64 extra field (kind 1), in their order."""
    if FULL not in values:
        return values
    at = 0
    while at + 4 <= len(extra):
        kind, length = struct.unpack_from("<HH", extra, at)
        if kind == 1:
            wide = [int.from_bytes(extra[p:p + 8], "little") for p in range(at + 4, min(at + 4 + length, len(extra)) - 7, 8)]
            return [wide.pop(0) if value == FULL and wide else value for value in values]
        at += 4 + length
    return values


def _without_overlap(entries: list[Member], directory: int, where: str, findings: list[Note]) -> dict[str, Member]:
    """The members by name, each knowing where the next one begins; duplicates, overlaps and escapes are noted. The last of a name wins, as in zipfile."""
    starts = sorted({member.offset for member in entries} | {directory})
    following = dict(zip(starts, [*starts[1:], directory], strict=True))
    members: dict[str, Member] = {}
    seen: set[int] = set()
    for member in entries:
        offset = member.offset
        if offset >= directory:
            raise Damaged("its local header lies in or behind the directory", where=f"{where}!{member.name[:200]}", offset=offset)
        if offset in seen or offset + LOCAL.size + len(member.raw_name) + member.packed_size > following[offset]:
            findings.append(Note("archive.overlapping-members", HIGH, f"{where}!{member.name[:200]}", "its bytes overlap those of another member"))
        seen.add(offset)
        _note_name(member, where, member.name in members, findings)
        members[member.name] = Member._make((*member[:-1], following[member.offset]))
    return members


def _note_name(member: Member, where: str, repeated: bool, findings: list[Note]) -> None:
    if not repeated and not member.flags & ENCRYPTED and PLAIN.fullmatch(member.name) and ".." not in member.name:
        return
    at = f"{where}!{member.name[:200]}"
    if repeated:
        findings.append(Note("archive.duplicate-name", HIGH, at, "the name stands in the directory twice, so two readers may take different members"))
    if problem := name_problem(member.name):
        findings.append(Note("archive.escaping-name", HIGH, at, problem))
    if member.flags & ENCRYPTED:
        findings.append(Note("archive.encrypted", HIGH, at, "the member is encrypted, so nobody can look inside"))


def _first_name(view: memoryview) -> str:
    length = int.from_bytes(view[26:28], "little")
    return bytes(view[LOCAL.size:LOCAL.size + length][:200]).decode("utf-8", "replace")


def is_tar(view: memoryview) -> bool:
    """Whether the first block is a tar header: named, and with the right checksum. There is no magic number in the oldest kind."""
    return len(view) >= BLOCK and view[0] != 0 and _checksum_holds(bytes(view[:BLOCK]))


def _checksum_holds(block: bytes) -> bool:
    stated = _octal(block[148:156])
    unsigned = sum(block) - sum(block[148:156]) + 8 * 0x20
    if stated is None or stated == unsigned:
        return stated is not None
    return stated == unsigned - 256 * sum(byte > 127 for byte in block[:148] + block[156:])          # old Sun tar summed signed characters


def _octal(field: bytes) -> int | None:
    text = field.strip(b" \0")
    try:
        return int(text, 8) if text else None
    except ValueError:
        return None


def _tar_number(field: bytes, where: str, at: int) -> int:
    """Octal text, or base 256 where the first bit is set (GNU, for 8 GiB and more)."""
    if field[0] & 0x80:
        return int.from_bytes(bytes([field[0] & 0x7F]) + field[1:], "big")
    value = _octal(field) if field.strip(b" \0") else 0
    if value is None or value < 0:
        raise Damaged("a size in a tar header is no octal number", where=where, offset=at)
    return value


def _open_tar(view: memoryview, where: str, limits: Limits) -> Archive:
    members: dict[str, Member] = {}
    findings: list[Note] = []
    pending: dict[str, str] = {}           # what a pax or GNU record says about the member after it
    at, count = 0, 0
    while at + BLOCK <= len(view):
        block = bytes(view[at:at + BLOCK])
        if not any(block):
            break
        if not _checksum_holds(block):
            raise Damaged("a tar header has the wrong checksum", where=where, offset=at)
        count += 1
        if count > limits.archive_entries:
            raise Unsafe(f"more members than Limits.archive_entries = {limits.archive_entries}", where=where)
        kind, size, data = block[156:157], _tar_number(block[124:136], where, at), at + BLOCK
        if kind in (b"x", b"g", b"L", b"K"):
            pending |= _tar_extension(view[data:data + size], kind, where, data, size)
        else:
            size = _pax_size(pending, size)
            name = pending.get("path") or _tar_name(block)
            _add_tar_member(members, findings, Member(name, size, size, True, data, raw_name=name.encode("utf-8", "surrogateescape")), kind, where)
            pending = {}
        if data + size > len(view):
            raise Damaged(f"{size} bytes of data do not fit before the end of the file", where=where, offset=data)
        at = data + -(-size // BLOCK) * BLOCK
    if any(view[at:at + 2 * BLOCK]):
        findings.append(Note("archive.trailing-data", MEDIUM, where, f"{len(view) - at} bytes follow the last member"))
    return Archive("tar", view, where, limits, members, findings)


def _add_tar_member(members: dict[str, Member], findings: list[Note], member: Member, kind: bytes, where: str) -> None:
    at = f"{where}!{member.name[:200]}"
    if kind == FOLDER:
        return
    if kind in LINKS:
        findings.append(Note("archive.special-member", HIGH, at, f"the member is {LINKS[kind]}; it is not followed"))
        return
    if kind not in REGULAR:
        findings.append(Note("archive.unread", MEDIUM, at, f"members of the kind {kind!r} are not read"))
        return
    _note_name(member, where, member.name in members, findings)
    members[member.name] = member


def _tar_name(block: bytes) -> str:
    name, prefix = block[:100].split(b"\0")[0], block[345:500].split(b"\0")[0]
    if prefix and block[257:263] == b"ustar\0":
        name = prefix + b"/" + name
    return name.decode("utf-8", "surrogateescape")


def _tar_extension(data: memoryview, kind: bytes, where: str, at: int, size: int) -> dict[str, str]:
    """What a pax record ("length key=value\\n" lines) or a GNU long name says."""
    if size > LONGEST_PAX:
        raise Unsafe(f"an extension header of {size} bytes", where=where)
    text = bytes(data)
    if kind == b"L":
        return {"path": text.rstrip(b"\0").decode("utf-8", "surrogateescape")}
    values: dict[str, str] = {}
    while kind == b"x" and text:
        length, _, _ = text.partition(b" ")
        if not length.isdigit() or len(length) > 7 or not len(length) < int(length) <= len(text):
            raise Damaged("a pax record has no valid length", where=where, offset=at)
        record, text = text[len(length) + 1:int(length)], text[int(length):]
        key, _, value = record.rstrip(b"\n").partition(b"=")
        values[key.decode("utf-8", "replace")] = value.decode("utf-8", "surrogateescape")
    return values


def _pax_size(pending: dict[str, str], size: int) -> int:
    text = pending.get("size", "")
    return int(text) if text.isascii() and text.isdigit() and len(text) < 20 else size

"""Messages of TensorFlow that lie in chunks (`saved_model.cpb`), put together: tensorflow/tools/proto_splitter/g3doc/in-depth-guide.md and merge.cc.

The last record of the file says which records there are and where in the message each belongs: by numbers of fields, keys of maps and places in lists. A record
is a message, which is merged into what is there, or the bytes of one field. No TensorFlow that is published writes these files; this follows its source.
"""
from __future__ import annotations

from typing import TYPE_CHECKING, Any

from isomorph.errors import Damaged, Unsafe, Unsupported
from isomorph.wire import protobuf, riegeli
from isomorph.wire.protobuf import BYTES, Record

if TYPE_CHECKING:
    from isomorph.artifact import Artifact

JOINS = 1                   # the version of joining that this is
MOST_TIMES = 4              # the bytes that are merged, as a multiple of those of all records


def read(artifact: Artifact, message: type[Record]) -> Record:
    """The message that the chunks make. Raises `Damaged` where they do not say how, `Unsupported` for a later version, `Unsafe` where they multiply."""
    return _Joined(artifact).message(message)


class _Joined:
    def __init__(self, artifact: Artifact):
        self.where, self.limits = artifact.where, artifact.limits
        self.records = riegeli.Records(artifact.view, artifact.limits, artifact.where)
        self.metadata = protobuf.read(self.records[self.records.last], protobuf.schema("chunked")["ChunkMetadata"], self.limits, self.where)
        self.left = MOST_TIMES * self.records.size + riegeli.BLOCK
        version = self.metadata.version
        if version is not None and version.join_version > JOINS:
            raise Unsupported(f"chunks of version {version.join_version}", where=self.where)

    def message(self, kind: type[Record]) -> Record:
        if self.metadata.message is None:
            raise Damaged("it does not say which message its chunks make", where=self.where)
        record = kind()
        self.join(record, self.metadata.message, 0)
        return record

    def chunk(self, chunked: Record) -> Any:
        """The bytes of a chunk."""
        number = chunked.chunk_index
        if number >= len(self.metadata.chunks):
            raise Damaged(f"there is no chunk {number}", where=self.where)
        info = self.metadata.chunks[number]
        data = self.records[info.offset]
        self.left -= len(data)
        if self.left < 0:
            raise Unsafe("its chunks are used over and over", where=self.where)
        if len(data) != info.size:
            raise Damaged(f"chunk {number} has {len(data)} bytes, and should have {info.size}", where=self.where)
        return data

    def join(self, record: Record, chunked: Record, depth: int) -> None:
        """A message, then what is merged into its fields: outer fields before inner ones, and lists in their order."""
        if depth > self.limits.recursion:
            raise Unsafe(f"chunks are nested deeper than {self.limits.recursion}", where=self.where)
        if "chunk_index" in chunked:
            protobuf.merge(record, self.chunk(chunked), self.limits, self.where)
        for field in sorted(chunked.chunked_fields, key=_order):
            if field.message is None:
                raise Damaged("a field without a chunk", where=self.where)
            self.field(record, list(field.field_tag), field.message, depth + 1)

    def field(self, record: Record, tags: list[Record], chunked: Record, depth: int) -> None:
        while tags:
            tag = tags.pop(0)
            row = record.ROWS.get(tag.field)
            if "field" not in tag or row is None:
                raise Damaged("a chunk belongs to a field that its message does not have", where=self.where)
            place = tags.pop(0) if tags and "field" not in tags[0] else None
            if row.message is None:
                if tags:
                    raise Damaged(f"a chunk belongs into {row.name}, which is no message", where=self.where)
                self.scalar(record, row, place, self.chunk(chunked))
                return
            record = self.inner(record, row, place)
        self.join(record, chunked, depth)

    def inner(self, record: Record, row: protobuf.Row, place: Record | None) -> Record:
        """The message that a field holds, or that a key or place of it does; made where it is not there yet."""
        if not row.many:
            found = getattr(record, row.name)
            if found is None:
                found = row.message()
                setattr(record, row.name, found)
            return found
        if row.many == "map":
            entries, kind = record.__dict__.setdefault(row.name, {}), row.message.ROWS[2].message
            key = next(iter(place.map_key.__dict__.values()), None) if place is not None and place.map_key is not None else None
            if key is None or kind is None:
                raise Damaged(f"a chunk belongs into {row.name} under no key", where=self.where)
            return entries.setdefault(key, kind()) if key not in entries else entries[key]
        return self.listed(record, row, place, row.message)

    def listed(self, record: Record, row: protobuf.Row, place: Record | None, empty: Any) -> Any:
        items = record.__dict__.setdefault(row.name, [])
        index = place.index if place is not None else -1
        if not 0 <= index <= len(items) + len(self.metadata.chunks):
            raise Damaged(f"a chunk belongs to the place {index} of {row.name}", where=self.where)
        items.extend(empty() for _ in range(index + 1 - len(items)))
        return items[index]

    def scalar(self, record: Record, row: protobuf.Row, place: Record | None, data: Any) -> None:
        """Bytes and texts are what the chunk holds."""
        if row.wire != BYTES or row.many == "*packed":
            raise Unsupported(f"numbers of {row.name} in a chunk of their own", where=self.where)
        value = str(data, "utf-8", "surrogateescape") if row.type == "string" else data
        if not row.many:
            setattr(record, row.name, value)
            return
        self.listed(record, row, place, bytes)
        getattr(record, row.name)[place.index if place is not None else 0] = value


def _order(field: Record) -> tuple[Any, ...]:
    message = field.message
    return ([(tag.field, 0 if tag.map_key is not None else tag.index) for tag in field.field_tag], message.chunk_index if message is not None else 0)


def is_chunked(artifact: Artifact) -> bool:
    """Whether a file begins as a file of records does."""
    return bytes(artifact.head[:len(riegeli.SIGNATURE)]) == riegeli.SIGNATURE

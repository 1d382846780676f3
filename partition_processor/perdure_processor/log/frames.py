"""● core · Frames: the bytes of the embedded log, one frame per group commit.

A segment file is a segment header, then frames back to back, then zeros to its end.  All numbers are
little-endian.  Since 0.1 (format version 1):

    segment header  64 bytes  magic "perdure\\0" · version u32 · log id 16 · segment number u64 · CRC-32 u32 · zeros
    frame header    56 bytes  version u32 · log id 16 · first offset u64 · synced offset u64 · records u32
                              · carried u32 · body size u32 · CRC-32 of the previous frame u32
                              · own CRC-32 u32 (over the header before it, then the body)
    body                      carried × (partition u32 · next offset u64), then per record
                              partition u32 · size u32 · timestamp ms u64 · CRC-32 u32 · payload

The records of a frame have consecutive offsets from the first one on.  A record's CRC, of its payload and
seeded with the low half of its timestamp, lets one record be read and checked without its frame.

*Synced offset* says: all records before it were durable when this frame was written.  With fsync `always` it
equals the first offset; in the other modes it tells records that a power cut may take from damage.

*Carried*, in the first frame of a segment, is where each partition's next record was to be found: what is
known of a partition whose records are all in segments that are gone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, TypeAlias
from zlib import crc32

from perdure_processor.log import Outcome
from perdure_processor.model.errors import UpgradeRequired
from perdure_processor.model.ids import Millis, Offset, PartitionId
from perdure_processor.model.value import value

FORMAT_VERSION: Final = 1
LOG_ID_SIZE: Final = 16
SEGMENT_HEADER_SIZE: Final = 64
FRAME_HEADER_SIZE: Final = 56
CARRIED_SIZE: Final = 12
RECORD_HEADER_SIZE: Final = 20

_SEGMENT_MAGIC: Final = b"perdure\0"
_SEGMENT_HEADER: Final = Struct("<8sI16sQ")
_FRAME_HEADER: Final = Struct("<I16sQQIIII")
_LOG_ID_IN_FRAME: Final = 4
_CARRIED: Final = Struct("<IQ")
_RECORD_HEADER: Final = Struct("<IIQI")
_LOW_HALF: Final = 0xFFFFFFFF
_CRC: Final = Struct("<I")

assert _FRAME_HEADER.size + _CRC.size == FRAME_HEADER_SIZE
assert _SEGMENT_HEADER.size + _CRC.size <= SEGMENT_HEADER_SIZE
assert _CARRIED.size == CARRIED_SIZE
assert _RECORD_HEADER.size == RECORD_HEADER_SIZE

# What an append is while it waits: the partition, the payload, and whom to tell.
Pending: TypeAlias = tuple[PartitionId, bytes, Callable[[Outcome], None]]


@value
class Frame:
    """One whole frame found in a segment; records are (partition, position of its header, payload size).

    `timestamp_ms` is that of its last record."""

    first_offset: Offset
    synced_offset: Offset
    timestamp_ms: Millis
    previous_crc: int
    crc: int
    carried: Sequence[tuple[PartitionId, Offset]]
    records: Sequence[tuple[PartitionId, int, int]]
    end: int


def segment_header(log_id: bytes, number: int) -> bytes:
    head = _SEGMENT_HEADER.pack(_SEGMENT_MAGIC, FORMAT_VERSION, log_id, number)
    return (head + _CRC.pack(crc32(head))).ljust(SEGMENT_HEADER_SIZE, b"\0")


def parse_segment_header(data: bytes) -> tuple[bytes, int] | None:
    """(log id, segment number), or None if these bytes are no segment header."""
    if len(data) < SEGMENT_HEADER_SIZE:
        return None
    head = data[: _SEGMENT_HEADER.size]
    magic, version, log_id, number = _SEGMENT_HEADER.unpack(head)
    if magic != _SEGMENT_MAGIC or _CRC.unpack_from(data, _SEGMENT_HEADER.size)[0] != crc32(head):
        return None
    if version != FORMAT_VERSION:
        raise UpgradeRequired(f"segment format {version}; this release knows {FORMAT_VERSION}")
    return log_id, number


def seal(
    log_id: bytes,
    first_offset: int,
    synced_offset: int,
    timestamp_ms: int,
    previous_crc: int,
    carried: Sequence[tuple[int, int]],
    batch: Sequence[Pending],
) -> tuple[bytes, bytes, int]:
    """A frame as (header, body, its CRC). Hot: once per group commit, its loop once per record."""
    parts = [_CARRIED.pack(partition, offset) for partition, offset in carried]
    add = parts.append
    pack = _RECORD_HEADER.pack
    seed = timestamp_ms & _LOW_HALF
    for partition, payload, _ in batch:
        add(pack(partition, len(payload), timestamp_ms, crc32(payload, seed)))
        add(payload)
    body = b"".join(parts)
    head = _FRAME_HEADER.pack(
        FORMAT_VERSION,
        log_id,
        first_offset,
        synced_offset,
        len(batch),
        len(carried),
        len(body),
        previous_crc,
    )
    crc = crc32(body, crc32(head))
    return head + _CRC.pack(crc), body, crc


def parse_frame(data: bytes, position: int, log_id: bytes) -> Frame | None:
    """The frame at `position` of a segment's bytes, or None if there is no whole and undamaged one."""
    if position + FRAME_HEADER_SIZE > len(data):
        return None
    version, frame_log_id, first_offset, synced_offset, count, carried_count, size, previous_crc = (
        _FRAME_HEADER.unpack_from(data, position)
    )
    if frame_log_id != log_id or version != FORMAT_VERSION:
        return None
    body = position + FRAME_HEADER_SIZE
    end = body + size
    if end > len(data):
        return None
    view = memoryview(data)
    crc = crc32(view[body:end], crc32(view[position : position + _FRAME_HEADER.size]))
    if crc != _CRC.unpack_from(data, position + _FRAME_HEADER.size)[0]:
        return None
    carried = [_CARRIED.unpack_from(data, body + index * CARRIED_SIZE) for index in range(carried_count)]
    records = []
    at = body + carried_count * CARRIED_SIZE
    unpack = _RECORD_HEADER.unpack_from
    timestamp_ms = 0
    for _ in range(count):
        partition, payload_size, timestamp_ms, _ = unpack(data, at)
        records.append((partition, at, payload_size))
        at += RECORD_HEADER_SIZE + payload_size
    assert at == end, "a frame with a good CRC was sealed wrongly"
    return Frame(
        first_offset=Offset(first_offset),
        synced_offset=Offset(synced_offset),
        timestamp_ms=Millis(timestamp_ms),
        previous_crc=previous_crc,
        crc=crc,
        carried=carried,
        records=records,
        end=end,
    )


def check_version(data: bytes, position: int, log_id: bytes) -> None:
    """Raise UpgradeRequired where a frame of a newer release lies: to cut it off as torn would destroy it."""
    if data[position + _LOG_ID_IN_FRAME : position + _LOG_ID_IN_FRAME + LOG_ID_SIZE] == log_id:
        version = int.from_bytes(data[position : position + _LOG_ID_IN_FRAME], "little")
        if version > FORMAT_VERSION:
            raise UpgradeRequired(f"frame format {version}; this release knows {FORMAT_VERSION}")


def parse_record(data: bytes, position: int, size: int) -> tuple[Millis, bytes] | None:
    """(timestamp, payload) of the record whose header is at `position`; None if it is not what was written."""
    payload = data[position + RECORD_HEADER_SIZE : position + RECORD_HEADER_SIZE + size]
    _, written_size, timestamp_ms, crc = _RECORD_HEADER.unpack_from(data, position)
    if written_size != size or crc != crc32(payload, timestamp_ms & _LOW_HALF):
        return None
    return timestamp_ms, payload


def is_end(data: bytes, position: int) -> bool:
    """Whether no frame was begun at `position`: only zeros from there to the end of the segment."""
    return data[position:] == bytes(len(data) - position)


def later_frame(data: bytes, position: int, log_id: bytes, synced_beyond: int) -> int | None:
    """Where, from `position` on, a valid frame says that the record at offset `synced_beyond` was durable.

    A broken frame has no size to trust, so the log id is searched for, which every frame carries."""
    found = data.find(log_id, position + _LOG_ID_IN_FRAME)
    while found >= 0:
        frame = parse_frame(data, found - _LOG_ID_IN_FRAME, log_id)
        if frame is not None and frame.synced_offset > synced_beyond:
            return found - _LOG_ID_IN_FRAME
        found = data.find(log_id, found + 1)
    return None

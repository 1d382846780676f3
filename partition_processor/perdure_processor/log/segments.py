"""○ adapter · The files of the embedded log: made full of zeros, read back after a crash, repaired or refused.

A segment is written in full, synced and renamed before its first use, so that an append never changes a
file's size: fdatasync then has no metadata to commit, and a full disk is noticed before anything is promised.
"""

from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from perdure_processor.log import frames
from perdure_processor.log.index import PLACE_BITS, PartitionIndex
from perdure_processor.model.errors import LogDamaged
from perdure_processor.model.ids import Millis, Offset, PartitionId
from perdure_processor.model.limits import LOG_DISK_FREE_BYTES_MIN, LOG_ZEROS_BYTES
from perdure_processor.storage.directory import sync_directory

# The errors that mean "no room": nothing is broken, and there may be room again.
FULL_ERRNOS: Final = frozenset((errno.ENOSPC, errno.EDQUOT, errno.EFBIG))

_SUFFIX: Final = ".log"
_UNFINISHED: Final = ".tmp"
# macOS has no fdatasync.
_fdatasync: Callable[[int], None] = getattr(os, "fdatasync", os.fsync)
_logger = logging.getLogger(__name__)


def _free_bytes(directory: Path) -> int:
    found = os.statvfs(directory)
    return found.f_bavail * found.f_frsize


@dataclass(slots=True, frozen=True)
class Disk:
    """What may fail on a full or broken disk; the tests pass other functions to make it so."""

    write: Callable[[int, Sequence[bytes], int], int] = os.pwritev
    sync: Callable[[int], None] = _fdatasync
    free_bytes: Callable[[Path], int] = _free_bytes


class Segment:
    """One open file of the log."""

    __slots__ = ("file", "first_offset", "number", "path", "size")

    def __init__(self, path: Path, number: int, file: int, size: int) -> None:
        self.path = path
        self.number = number
        self.file = file
        self.size = size
        # Of its first frame; None while it is the reserve.
        self.first_offset: Offset | None = None

    def read(self) -> bytes:
        return os.pread(self.file, self.size, 0)

    def close(self) -> None:
        os.close(self.file)


@dataclass(slots=True)
class Recovered:
    """The log as it was found: where to write next, and where everything is."""

    log_id: bytes
    segments: list[Segment]
    indexes: dict[PartitionId, PartitionIndex] = field(default_factory=dict)
    next_offset: Offset = Offset(0)
    previous_crc: int = 0
    timestamp_ms: Millis = Millis(0)
    # Where the last frame ends; later segments are empty.
    active: int = 0
    position: int = frames.SEGMENT_HEADER_SIZE

    def add(self, segment: Segment, frame: frames.Frame) -> None:
        """Take in the next frame of the chain."""
        if segment.first_offset is None:
            segment.first_offset = frame.first_offset
        for partition, start in frame.carried:
            if partition not in self.indexes:
                self.indexes[partition] = PartitionIndex(Offset(start))
        offset = frame.first_offset
        base = segment.number << PLACE_BITS
        for partition, position, size in frame.records:
            index = self.indexes.get(partition)
            if index is None:
                index = self.indexes[partition] = PartitionIndex(Offset(0))
            index.offsets.append(offset)
            index.places.append(base | position)
            index.sizes.append(size)
            offset = Offset(offset + 1)
            index.next = offset
        self.next_offset = offset
        self.previous_crc = frame.crc
        self.timestamp_ms = frame.timestamp_ms


def create(directory: Path, number: int, log_id: bytes, size: int, disk: Disk) -> Segment:
    """A new durable segment, all zeros after its header. Slow; raises OSError and leaves nothing behind."""
    if disk.free_bytes(directory) < size + LOG_DISK_FREE_BYTES_MIN:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(directory))
    path = directory / f"segment-{number:010}{_SUFFIX}"
    unfinished = path.with_suffix(_UNFINISHED)
    file = os.open(unfinished, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o644)
    try:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file, 0, size)
        _write_all(disk, file, frames.segment_header(log_id, number), 0)
        _write_zeros(disk, file, frames.SEGMENT_HEADER_SIZE, size)
        os.fsync(file)
        os.rename(unfinished, path)
        sync_directory(directory)
    except BaseException:
        os.close(file)
        unfinished.unlink(missing_ok=True)
        raise
    return Segment(path, number, file, size)


def remove(path: Path) -> None:
    """Durably remove one segment: a later one must never be gone while this is still there."""
    path.unlink()
    sync_directory(path.parent)


def recover(directory: Path, disk: Disk) -> Recovered | None:
    """Read back all segments, cut off a torn tail, and make the rest durable; None if there is no log yet.

    Raises LogDamaged where what was once durable is broken."""
    for unfinished in directory.glob(f"*{_UNFINISHED}"):
        unfinished.unlink()
    segments = _open_all(directory)
    if not segments:
        return None
    try:
        recovered = _read_chain(segments, disk)
        # What was read may so far be in the page cache only: the process before us may have died between
        # write and sync. It is about to be applied, so it must be durable first.
        for segment in recovered.segments:
            disk.sync(segment.file)
        sync_directory(directory)
    except BaseException:
        for segment in segments:
            segment.close()
        raise
    return recovered


def _open_all(directory: Path) -> list[Segment]:
    segments: list[Segment] = []
    try:
        for path in sorted(directory.glob(f"segment-*{_SUFFIX}")):
            file = os.open(path, os.O_RDWR)
            segment = Segment(path, int(path.stem.removeprefix("segment-")), file, os.fstat(file).st_size)
            segments.append(segment)
            if segment.number != segments[0].number + len(segments) - 1:
                raise LogDamaged(f"{directory}: the segment before {path.name} is missing")
    except BaseException:
        for segment in segments:
            segment.close()
        raise
    return segments


def _read_chain(segments: list[Segment], disk: Disk) -> Recovered:
    log_id = _log_id_of(segments[0])
    found = Recovered(log_id, segments)
    for at, segment in enumerate(segments):
        if _log_id_of(segment) != log_id:
            raise LogDamaged(f"{segment.path} belongs to another log")
        data = segment.read()
        position = frames.SEGMENT_HEADER_SIZE
        while (frame := frames.parse_frame(data, position, log_id)) is not None:
            first_of_log = at == 0 and position == frames.SEGMENT_HEADER_SIZE
            if not first_of_log and (
                frame.first_offset != found.next_offset or frame.previous_crc != found.previous_crc
            ):
                break
            found.add(segment, frame)
            position = frame.end
            found.active, found.position = at, position
        if at == 0 and segment.number > 0 and segment.first_offset is None:
            # Earlier segments are removed only once this one holds a durable frame.
            raise LogDamaged(f"{segment.path} at byte {position}: the log's first frame is broken")
        if not frames.is_end(data, position):
            _refuse_damage(found, at, data, position)
            frames.check_version(data, position, log_id)
            _cut_tail(found, at, position, disk)
            break
    return found


def _log_id_of(segment: Segment) -> bytes:
    header = frames.parse_segment_header(os.pread(segment.file, frames.SEGMENT_HEADER_SIZE, 0))
    if header is None or header[1] != segment.number:
        raise LogDamaged(f"{segment.path} at byte 0: the segment's header is broken")
    return header[0]


def _refuse_damage(found: Recovered, at: int, data: bytes, position: int) -> None:
    """Raise if anything after the broken place proves that what stood there was durable."""
    broken = found.segments[at]
    for segment in found.segments[at:]:
        if segment is not broken:
            data = segment.read()
        start = position if segment is broken else frames.SEGMENT_HEADER_SIZE
        proof = frames.later_frame(data, start, found.log_id, found.next_offset)
        if proof is not None:
            raise LogDamaged(
                f"{broken.path} at byte {position}: the frame at offset {found.next_offset} is broken, "
                f"but a later one ({segment.path.name} at byte {proof}) was written after it was durable; "
                "restore the file from a copy"
            )


def _cut_tail(found: Recovered, at: int, position: int, disk: Disk) -> None:
    """Zero the torn tail in place (the file keeps its size) and drop the segments after it."""
    segment = found.segments[at]
    _logger.warning(
        "%s: the last write, at byte %d, was cut off by a crash; removing what there is of it",
        segment.path,
        position,
    )
    _write_zeros(disk, segment.file, position, segment.size)
    for later in reversed(found.segments[at + 1 :]):
        later.close()
        remove(later.path)
    del found.segments[at + 1 :]


def _write_zeros(disk: Disk, file: int, position: int, end: int) -> None:
    zeros = bytes(LOG_ZEROS_BYTES)
    while position < end:
        size = min(LOG_ZEROS_BYTES, end - position)
        _write_all(disk, file, zeros[:size], position)
        disk.sync(file)
        position += size


def _write_all(disk: Disk, file: int, data: bytes, position: int) -> None:
    if disk.write(file, (data,), position) != len(data):
        raise OSError(errno.ENOSPC, "short write")

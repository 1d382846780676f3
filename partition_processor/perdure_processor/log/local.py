"""○ adapter · LocalLog: the Log port on one disk, durable by group commit, one file sequence for all partitions.

All appends of one turn of the loop become one frame, one write and one sync.  A frame is written only after
the sync of the one before it returned, so a crash can break the last frame alone.  Formats are in frames.py,
files and recovery in segments.py, their life in chain.py.
"""

from __future__ import annotations

import asyncio
import errno
import logging
import os
from asyncio import AbstractEventLoop
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from secrets import token_bytes
from time import perf_counter
from typing import Final, Literal, TypeAlias

from perdure_processor.clock import Clock
from perdure_processor.log import Appended, Outcome, ReadBatch, Record, Refused, Unknown, frames, segments
from perdure_processor.log.chain import SegmentChain
from perdure_processor.log.frames import CARRIED_SIZE, FRAME_HEADER_SIZE, RECORD_HEADER_SIZE, SEGMENT_HEADER_SIZE
from perdure_processor.log.index import PLACE_BITS, POSITION_MASK, PartitionIndex
from perdure_processor.log.segments import Disk, Recovered, Segment
from perdure_processor.log.worker import Worker
from perdure_processor.model.errors import LogDamaged, LogGap
from perdure_processor.model.ids import Millis, Offset, PartitionId
from perdure_processor.model.limits import (
    LOG_FRAME_BYTES_MAX,
    LOG_PARTITIONS_MAX,
    LOG_QUEUE_BYTES_MAX,
    LOG_READ_BYTES_MAX,
    LOG_READ_WINDOW_BYTES,
    LOG_SEGMENT_BYTES,
    RECORD_MAX,
)
from perdure_processor.storage.directory import DirectoryLock

# A segment takes any frame, with the positions of all partitions carried into it.
_CARRIED_BYTES_MAX: Final = LOG_PARTITIONS_MAX * CARRIED_SIZE
SEGMENT_BYTES_MIN: Final = SEGMENT_HEADER_SIZE + FRAME_HEADER_SIZE + _CARRIED_BYTES_MAX + LOG_FRAME_BYTES_MAX

# A sync that is faster than this on average runs on the loop's thread: handing it over costs more.
INLINE_SYNC_SECONDS_MAX: Final = 0.001
# The average forgets by this share per sync, and one slow sync counts for no more than this: a hiccup does not
# move the syncs to the thread, three in a row do.
SYNC_AVERAGE_SHARE: Final = 0.125
SYNC_SAMPLE_SECONDS_MAX: Final = 0.004
# Every so many syncs on the thread one is tried inline. The thread cannot judge by itself: its time includes
# waiting for the interpreter, and a log once moved there would stay.
SYNC_PROBE_INTERVAL: Final = 64

# always: acknowledged is durable. interval: durable within so many milliseconds. never: when the kernel likes.
Fsync: TypeAlias = Literal["always", "never"] | tuple[Literal["interval"], int]

_logger = logging.getLogger(__name__)


class LocalLog:
    """The embedded log. Open it on the event loop's thread, in a directory of its own.

    Offsets count the records of all partitions together, so each partition sees gaps."""

    @classmethod
    def open(
        cls,
        directory: Path,
        *,
        clock: Clock,
        fsync: Fsync = "always",
        segment_bytes: int = LOG_SEGMENT_BYTES,
        queue_bytes_max: int = LOG_QUEUE_BYTES_MAX,
        disk: Disk | None = None,
    ) -> LocalLog:
        """Lock the directory, recover or create the log; blocks while it reads what is there.

        Raises DirectoryLocked, LogDamaged, UpgradeRequired, or OSError where there is no room for a new log."""
        assert segment_bytes >= SEGMENT_BYTES_MIN, "a frame of the largest size must fit"
        assert segment_bytes <= POSITION_MASK
        disk = disk if disk is not None else Disk()
        lock = DirectoryLock(directory)
        try:
            recovered = segments.recover(directory, disk)
            if recovered is None:
                log_id = token_bytes(frames.LOG_ID_SIZE)
                recovered = Recovered(log_id, [segments.create(directory, 0, log_id, segment_bytes, disk)])
            return cls(directory, lock, recovered, clock, fsync, segment_bytes, queue_bytes_max, disk)
        except BaseException:
            lock.release()
            raise

    def __init__(
        self,
        directory: Path,
        lock: DirectoryLock,
        recovered: Recovered,
        clock: Clock,
        fsync: Fsync,
        segment_bytes: int,
        queue_bytes_max: int,
        disk: Disk,
    ) -> None:
        """Use `open`."""
        self._loop: AbstractEventLoop = asyncio.get_running_loop()
        self._directory = directory
        self._lock = lock
        self._clock = clock
        self._disk = disk

        # Where the log stands: the next frame begins at the chain's position and continues from these.
        self._log_id = recovered.log_id
        self._indexes = recovered.indexes
        self._next_offset: int = recovered.next_offset
        self._previous_crc = recovered.previous_crc
        self._timestamp_ms: int = recovered.timestamp_ms

        # What gathers for the next frame. _accept_max is what may gather: below zero, nothing is accepted.
        self._queue: list[frames.Pending] = []
        self._queued_bytes = 0
        self._accept_max = self._queue_bytes_max = queue_bytes_max
        self._refused: list[tuple[Callable[[Outcome], None], str]] = []
        # Why nothing can be written until a restart.
        self._failure: str | None = None
        self._closed = False
        # True while somebody will call _flush: the loop soon, or the end of what is in flight.
        self._scheduled = False
        # The next frame waits for the chain's reserve.
        self._held = False
        self._settled: list[asyncio.Future[None]] = []

        self._synced_offset: int = recovered.next_offset
        self._always = fsync == "always"
        self._sync_after_seconds = fsync[1] / 1000 if isinstance(fsync, tuple) else None
        self._sync_thread = Worker("perdure-log-sync", self._loop)
        # With fsync `always`: the average that chooses between the loop's thread and the other.
        self._sync_seconds = 0.0
        self._thread_syncs = 0
        # In the other modes: what was written since its last sync, and who waits for the next.
        self._dirty: dict[int, Segment] = {}
        self._syncing = False
        self._sync_timer: asyncio.TimerHandle | None = None
        self._sync_waiters: list[asyncio.Future[None]] = []

        self._chain = SegmentChain(
            directory,
            recovered,
            segment_bytes,
            disk,
            self._loop,
            settled=self._reserve_settled,
            failed=self._poison,
        )

    @property
    def log_id(self) -> bytes:
        """Who this log is: 16 random bytes drawn when it was created. A store belongs to one log."""
        return self._log_id

    @property
    def failure(self) -> str | None:
        """Why nothing is taken until a restart, or None."""
        return self._failure

    @property
    def synced_offset(self) -> Offset:
        """All records with smaller offsets are durable. Stores must not flush beyond it (correctness 8)."""
        return Offset(self._synced_offset)

    def append(self, partition: PartitionId, payload: bytes, done: Callable[[Outcome], None]) -> None:
        size = len(payload)
        assert size <= RECORD_MAX, "a larger command travels in parts"
        queued_bytes = self._queued_bytes + size + RECORD_HEADER_SIZE
        if queued_bytes > self._accept_max:
            self._refuse(done)
            return
        self._queued_bytes = queued_bytes
        self._queue.append((partition, payload, done))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    async def read(self, partition: PartitionId, position: Offset, limit: int) -> ReadBatch:
        index = self._indexes.get(partition)
        if index is None:
            return ReadBatch([], position)
        if position < index.start:
            raise LogGap(
                f"partition {partition} must be read from offset {position}, "
                f"but the log in {self._directory} starts at {index.start}"
            )
        first = index.find(position)
        last = first
        room = LOG_READ_BYTES_MAX
        end = min(first + limit, len(index.offsets))
        while last < end and (room > 0 or last == first):
            room -= index.sizes[last]
            last += 1
        if last == first:
            return ReadBatch([], max(position, index.next))
        records = self._fetch(index, first, last)
        return ReadBatch(records, Offset(index.offsets[last - 1] + 1) if last < len(index.offsets) else index.next)

    async def end(self, partition: PartitionId) -> Offset:
        index = self._indexes.get(partition)
        return Offset(0) if index is None else index.next

    def trim(self, partition: PartitionId, before: Offset) -> None:
        index = self._indexes.get(partition)
        if index is not None and before > index.trimmed:
            index.trimmed = before
            self._chain.remove_trimmed(self._indexes.values(), self._synced_offset)

    async def sync(self) -> Offset:
        """Make all that is acknowledged durable and return synced_offset; for the modes that do not always sync.

        Raises OSError if that fails; the log is poisoned then."""
        # Not until nothing is dirty: under load that moment may never come.
        target = self._next_offset
        while self._failure is None and self._synced_offset < target:
            waiter = self._loop.create_future()
            self._sync_waiters.append(waiter)
            self._start_sync()
            await waiter
        if self._failure is not None:
            raise OSError(errno.EIO, self._failure)
        return self.synced_offset

    async def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        self._accept_max = -1
        while self._scheduled or self._chain.allocating:
            waiter = self._loop.create_future()
            self._settled.append(waiter)
            await waiter
        if self._sync_timer is not None:
            self._sync_timer.cancel()
        try:
            # After a failed sync another may succeed without having written anything: the failure stands.
            if self._failure is None:
                await self.sync()
        finally:
            self._sync_thread.stop()
            self._chain.close()
            self._lock.release()

    # -- the next frame ----------------------------------------------------------

    def _flush(self) -> None:
        """Write what has gathered as one frame. Nothing is in flight here."""
        if self._queue:
            if self._failure is not None:
                self._refuse_queue(self._failure)
            elif not self._chain.has_room(
                FRAME_HEADER_SIZE + min(self._queued_bytes, LOG_FRAME_BYTES_MAX) + CARRIED_SIZE * len(self._indexes)
            ):
                if self._chain.allocate():
                    self._held = True
                    return
                self._refuse_queue(self._chain.full_reason)
        size = self._queued_bytes
        if size > LOG_FRAME_BYTES_MAX:
            flight, size = self._take_some()
        else:
            flight = _Flight(self._queue, self._refused)
            self._queue = []
            self._refused = []
            if self._failure is None and not self._closed:
                self._accept_max = self._queue_bytes_max
        self._queued_bytes -= size
        if flight.batch:
            self._commit(flight, size + FRAME_HEADER_SIZE)
        else:
            self._land(flight, [])

    def _take_some(self) -> tuple[_Flight, int]:
        """The first of the queue, as many as fit into one frame, and their bytes. What is refused comes after all."""
        size = count = 0
        for _, payload, _ in self._queue:
            record_size = len(payload) + RECORD_HEADER_SIZE
            if size + record_size > LOG_FRAME_BYTES_MAX:
                break
            size += record_size
            count += 1
        flight = _Flight(self._queue[:count], [])
        self._queue = self._queue[count:]
        return flight, size

    def _commit(self, flight: _Flight, size: int) -> None:
        carried: Sequence[tuple[int, int]] = ()
        position = self._chain.position
        if position == SEGMENT_HEADER_SIZE:
            carried = [(partition, index.next) for partition, index in self._indexes.items()]
        flight.size = size + CARRIED_SIZE * len(carried)
        flight.records_at = position + FRAME_HEADER_SIZE + CARRIED_SIZE * len(carried)
        now_ms = self._clock.now_ms()
        if now_ms > self._timestamp_ms:
            self._timestamp_ms = now_ms
        header, body, flight.crc = frames.seal(
            self._log_id,
            self._next_offset,
            self._synced_offset,
            self._timestamp_ms,
            self._previous_crc,
            carried,
            flight.batch,
        )
        file = self._chain.active.file
        if self._always and self._sync_seconds > INLINE_SYNC_SECONDS_MAX:
            self._thread_syncs += 1
            if self._thread_syncs % SYNC_PROBE_INTERVAL:
                write = partial(self._write, file, header, body, position, True)
                self._sync_thread.submit(write, partial(self._written, flight))
                return
        try:
            sync_seconds = self._write(file, header, body, position, self._always)
        except OSError as error:
            self._written(flight, None, error)
            return
        sample = min(sync_seconds, SYNC_SAMPLE_SECONDS_MAX)
        self._sync_seconds += (sample - self._sync_seconds) * SYNC_AVERAGE_SHARE
        self._written(flight, sync_seconds, None)

    def _write(self, file: int, header: bytes, body: bytes, position: int, sync: bool) -> float:
        """Write one frame, on the loop's thread or the other; returns how many seconds the sync took."""
        if self._disk.write(file, (header, body), position) != len(header) + len(body):
            raise OSError(errno.EIO, "short write")
        if not sync:
            return 0.0
        began = perf_counter()
        self._disk.sync(file)
        return perf_counter() - began

    def _written(self, flight: _Flight, _sync_seconds: float | None, error: Exception | None) -> None:
        """The frame is as durable as the fsync mode asks, or lost: index its records and tell who waits."""
        if error is not None:
            # Whether the frame is in the file, now or after a restart, nobody can know.
            self._land(flight, [Unknown(self._poison(error))] * len(flight.batch))
            return
        chain = self._chain
        segment = chain.active
        indexes = self._indexes
        offset = self._next_offset
        if segment.first_offset is None:
            segment.first_offset = Offset(offset)
        place = segment.number << PLACE_BITS | flight.records_at
        timestamp_ms = Millis(self._timestamp_ms)
        outcomes: list[Outcome] = []
        add = outcomes.append
        for partition, payload, _ in flight.batch:
            index = indexes.get(partition)
            if index is None:
                index = indexes[partition] = PartitionIndex(Offset(0))
            size = len(payload)
            index.offsets.append(offset)
            index.places.append(place)
            index.sizes.append(size)
            add(Appended(offset, timestamp_ms, index.next))  # type: ignore[arg-type]
            place += RECORD_HEADER_SIZE + size
            offset += 1
            # Offset(offset) would be a call per record that only the checker needs.
            index.next = offset  # type: ignore[assignment]
        self._next_offset = offset
        self._previous_crc = flight.crc
        chain.position += flight.size
        if self._always:
            self._synced_offset = offset
        else:
            self._dirty[segment.number] = segment
            if self._sync_after_seconds is not None and self._sync_timer is None:
                self._sync_timer = self._loop.call_later(self._sync_after_seconds, self._sync_due)
        self._land(flight, outcomes)

    def _land(self, flight: _Flight, outcomes: list[Outcome]) -> None:
        """Tell the outcomes, in append order; the next frame may gather and be scheduled meanwhile."""
        self._scheduled = bool(self._queue or self._refused)
        if self._scheduled:
            self._loop.call_soon(self._flush)
        tell = self._tell
        for (_, _, done), outcome in zip(flight.batch, outcomes, strict=True):
            tell(done, outcome)
        for done, reason in flight.refused:
            tell(done, Refused(reason))
        _wake(self._settled)

    def _tell(self, done: Callable[[Outcome], None], outcome: Outcome) -> None:
        # As the loop does with its own callbacks: one that raises must not cost the others their outcome.
        try:
            done(outcome)
        except Exception as error:
            self._loop.call_exception_handler({"message": "the callback of an append raised", "exception": error})

    # -- refusing ----------------------------------------------------------------

    def _refuse(self, done: Callable[[Outcome], None]) -> None:
        """Refuse one append in its turn: after those that gather now, whose outcomes come first."""
        # Until the queue is written nothing more joins it, or a smaller record would overtake this one.
        self._accept_max = -1
        reason = self._failure or ("the log is closed" if self._closed else "queue full: the log's disk is behind")
        self._refused.append((done, reason))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._flush)

    def _refuse_queue(self, reason: str) -> None:
        self._refused[:0] = [(done, reason) for _, _, done in self._queue]
        self._queue = []
        self._queued_bytes = 0

    def _poison(self, error: Exception) -> str:
        """Take nothing until a restart: after a failed sync the page cache no longer says what the disk has."""
        if self._failure is None:
            self._failure = f"the log in {self._directory} failed and takes nothing until a restart: {error}"
            self._accept_max = -1
            _logger.error("%s", self._failure)
        return self._failure

    def _reserve_settled(self) -> None:
        """There is a reserve now, or a reason why not: the frame that waited for it goes on, or is refused."""
        if self._held:
            self._held = False
            self._flush()
        _wake(self._settled)

    # -- syncing later -----------------------------------------------------------

    def _sync_due(self) -> None:
        self._sync_timer = None
        if self._failure is None:
            self._start_sync()

    def _start_sync(self) -> None:
        """Sync what is written so far, unless that is going on: its end begins the next one if somebody waits."""
        if self._syncing:
            return
        self._syncing = True
        files = [segment.file for segment in self._dirty.values()]
        self._dirty.clear()

        def sync_files() -> None:
            for file in files:
                self._disk.sync(file)

        self._sync_thread.submit(sync_files, partial(self._synced, self._next_offset))

    def _synced(self, offset: int, _: None, error: Exception | None) -> None:
        self._syncing = False
        if error is None:
            self._synced_offset = offset
        else:
            self._poison(error)
        _wake(self._sync_waiters)
        # A timer that fired meanwhile found this sync running.
        if self._dirty and self._sync_after_seconds is not None and self._sync_timer is None:
            self._sync_timer = self._loop.call_later(self._sync_after_seconds, self._sync_due)

    # -- reading, closing --------------------------------------------------------

    def _fetch(self, index: PartitionIndex, first: int, last: int) -> list[Record]:
        """The records [first, last) of an index; neighbours come with one system call."""
        records: list[Record] = []
        places, sizes, offsets = index.places, index.sizes, index.offsets
        while first < last:
            number, begin = places[first] >> PLACE_BITS, places[first] & POSITION_MASK
            segment = self._chain.segment(number)
            end = begin + RECORD_HEADER_SIZE + sizes[first]
            beyond = first + 1
            while beyond < last and places[beyond] >> PLACE_BITS == number:
                record_end = (places[beyond] & POSITION_MASK) + RECORD_HEADER_SIZE + sizes[beyond]
                if record_end - begin > LOG_READ_WINDOW_BYTES:
                    break
                end = record_end
                beyond += 1
            data = os.pread(segment.file, end - begin, begin)
            for at in range(first, beyond):
                position = places[at] & POSITION_MASK
                found = frames.parse_record(data, position - begin, sizes[at])
                if found is None:
                    raise LogDamaged(f"{segment.path} at byte {position}: the record at offset {offsets[at]} is broken")
                records.append(Record(Offset(offsets[at]), found[0], found[1]))
            first = beyond
        return records


class _Flight:
    """One frame on its way: the appends in it, those refused after them, and where its bytes lie."""

    __slots__ = ("batch", "crc", "records_at", "refused", "size")

    def __init__(self, batch: list[frames.Pending], refused: list[tuple[Callable[[Outcome], None], str]]) -> None:
        self.batch = batch
        self.refused = refused
        self.size = 0
        self.records_at = 0
        self.crc = 0


def _wake(waiters: list[asyncio.Future[None]]) -> None:
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)
    waiters.clear()

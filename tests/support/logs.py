"""What the tests of logs share: an append that can be awaited, a clock to set, disks that fail on demand."""

from __future__ import annotations

import asyncio
import errno
import os
import threading
from collections.abc import Sequence
from pathlib import Path

from perdure_processor.log import Appended, Log, Outcome, Record
from perdure_processor.log.segments import Disk
from perdure_processor.model.ids import Millis, Offset, PartitionId

P0 = PartitionId(0)
P1 = PartitionId(1)
P2 = PartitionId(2)


class SetClock:
    """A clock that stands where the test puts it."""

    def __init__(self, now_ms: int = 1_000) -> None:
        self.now = now_ms

    def now_ms(self) -> Millis:
        return Millis(self.now)

    def monotonic_ms(self) -> int:
        return self.now


def start_append(log: Log, partition: PartitionId, payload: bytes) -> asyncio.Future[Outcome]:
    """Append now; the future is the outcome. A second call of `done` would raise in the log's callback."""
    future: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()
    log.append(partition, payload, future.set_result)
    return future


async def append(log: Log, partition: PartitionId, payload: bytes) -> Appended:
    """Append and expect success."""
    outcome = await start_append(log, partition, payload)
    assert isinstance(outcome, Appended), outcome
    return outcome


async def read_all(log: Log, partition: PartitionId, position: int = 0, limit: int = 100) -> list[Record]:
    """Read to the end as every reader must: by positions, undisturbed by empty reads."""
    records: list[Record] = []
    at = Offset(position)
    end = await log.end(partition)
    while at < end:
        batch = await log.read(partition, at, limit)
        assert len(batch.records) <= limit
        assert batch.position >= at
        records += batch.records
        at = batch.position
    return records


async def payloads(log: Log, partition: PartitionId, position: int = 0) -> list[bytes]:
    return [record.payload for record in await read_all(log, partition, position)]


class WatchedDisk:
    """A real disk that counts and can be told to fail, to stall, or to be full."""

    def __init__(self) -> None:
        self.events: list[str] = []
        self.write_error: int | None = None
        self.sync_error: int | None = None
        self.short_write = False
        self.free = 1 << 40
        # Set: syncs return at once. Cleared: they block, as on a disk that hangs.
        self.running = threading.Event()
        self.running.set()
        self.slow_seconds = 0.0

    def disk(self) -> Disk:
        return Disk(write=self._write, sync=self._sync, free_bytes=self._free_bytes)

    def _write(self, file: int, data: Sequence[bytes], position: int) -> int:
        # Frames come as header and body, zeros and headers of segments in one piece.
        if len(data) == 2:
            self.events.append("write")
            if self.write_error is not None:
                raise OSError(self.write_error, os.strerror(self.write_error))
            if self.short_write:
                return os.pwritev(file, (data[0],), position)
        return os.pwritev(file, data, position)

    def _sync(self, file: int) -> None:
        if threading.current_thread().name != "perdure-log-files":
            self.running.wait()
            threading.Event().wait(self.slow_seconds)
            if self.sync_error is not None:
                self.events.append("sync failed")
                raise OSError(self.sync_error, os.strerror(self.sync_error))
            self.events.append("sync")
        os.fdatasync(file)

    def _free_bytes(self, _: Path) -> int:
        return self.free


EIO = errno.EIO

"""◐ shell · MemoryLog: the Log port in lists, with every freedom that a real log has; its choices come from a seed.

`StoredRecords` is what survives; a MemoryLog is one process's connection to it.  A crash ends the connection:
what was not yet acknowledged is in the log up to some point, and nobody is told.
"""

from __future__ import annotations

import asyncio
from bisect import bisect_left
from collections import deque
from collections.abc import Callable
from typing import Protocol

from perdure_processor.clock import Clock, SystemClock
from perdure_processor.log import Appended, Outcome, ReadBatch, Record, Refused, Unknown
from perdure_processor.model.errors import LogGap
from perdure_processor.model.ids import Millis, Offset, PartitionId
from perdure_processor.model.limits import RECORD_MAX
from perdure_processor.model.value import value


class Chooser(Protocol):
    """Where choices come from: `random.Random(seed)` is one."""

    def random(self) -> float:
        """A number in [0, 1)."""

    def randint(self, a: int, b: int) -> int:
        """A number in [a, b]."""


@value
class LogFaults:
    """How often the log uses its freedoms; probabilities per call, all off by default."""

    # An append skips up to gap_max offsets first.
    gap: float = 0.0
    gap_max: int = 3
    # A read returns nothing although there are records, or fewer than there are.
    empty_read: float = 0.0
    short_read: float = 0.0
    # An append is refused, or unknown; an unknown one is lost, in the log, or comes later by delay_ms_max.
    refused: float = 0.0
    unknown: float = 0.0
    # After an unknown outcome everything is refused until the log is opened again, as the embedded log does.
    unknown_is_final: bool = False
    # An append's outcome, and every read, takes up to this long; order is kept per connection.
    delay_ms_max: int = 0


NO_FAULTS = LogFaults()


class StoredRecords:
    """What is in the log, whoever wrote it: offsets, times and payloads per partition."""

    def __init__(self) -> None:
        self._partitions: dict[PartitionId, _Partition] = {}
        self._timestamp_ms = Millis(0)

    def partition(self, partition: PartitionId) -> _Partition:
        found = self._partitions.get(partition)
        if found is None:
            found = self._partitions[partition] = _Partition()
        return found

    def add(self, partition: PartitionId, payload: bytes, now_ms: Millis, gap: int) -> Appended:
        """Append one record, `gap` offsets after the last one."""
        self._timestamp_ms = max(self._timestamp_ms, now_ms)
        into = self.partition(partition)
        position = into.next
        offset = Offset(position + gap)
        into.offsets.append(offset)
        into.records.append(Record(offset, self._timestamp_ms, payload))
        into.next = Offset(offset + 1)
        return Appended(offset, self._timestamp_ms, position)


class _Partition:
    __slots__ = ("next", "offsets", "records", "start")

    def __init__(self) -> None:
        self.offsets: list[Offset] = []
        self.records: list[Record] = []
        self.start = Offset(0)
        self.next = Offset(0)


class _Append:
    """One append on its way."""

    __slots__ = ("done", "due", "partition", "payload", "refusal")

    def __init__(
        self,
        partition: PartitionId,
        payload: bytes,
        done: Callable[[Outcome], None],
        due: float,
        refusal: str | None,
    ) -> None:
        self.partition = partition
        self.payload = payload
        self.done = done
        self.due = due
        self.refusal = refusal


class MemoryLog:
    """One connection to stored records; made on the event loop's thread.

    Faults need a chooser. `faults` may be replaced at any time: the simulator calms the log to see it end well."""

    def __init__(
        self,
        stored: StoredRecords | None = None,
        *,
        clock: Clock | None = None,
        faults: LogFaults = NO_FAULTS,
        chooser: Chooser | None = None,
    ) -> None:
        assert faults == NO_FAULTS or chooser is not None, "faults are drawn from a chooser"
        self.stored = stored if stored is not None else StoredRecords()
        self.faults = faults
        self._chooser = chooser
        self._clock = clock if clock is not None else SystemClock()
        self._loop = asyncio.get_running_loop()
        self._pending: deque[_Append] = deque()
        self._timer: asyncio.Handle | None = None
        self._idle: list[asyncio.Future[None]] = []
        self._refusal: str | None = None
        self._crashed = False

    def append(self, partition: PartitionId, payload: bytes, done: Callable[[Outcome], None]) -> None:
        assert len(payload) <= RECORD_MAX, "a larger command travels in parts"
        if self._crashed:
            return
        refusal = self._refusal
        if refusal is None and self._happens(self.faults.refused):
            refusal = "refused by chance"
        due = self._loop.time() + self._delay()
        if self._pending:
            due = max(due, self._pending[-1].due)
        self._pending.append(_Append(partition, payload, done, due, refusal))
        if self._timer is None:
            self._schedule()

    async def read(self, partition: PartitionId, position: Offset, limit: int) -> ReadBatch:
        await self._travel()
        found = self.stored.partition(partition)
        if position < found.start:
            raise LogGap(f"partition {partition} must be read from offset {position}, the log starts at {found.start}")
        first = bisect_left(found.offsets, position)
        available = min(limit, len(found.records) - first)
        if available and self._happens(self.faults.empty_read):
            available = 0
        elif available and self._happens(self.faults.short_read):
            available = self._choose(1, available)
        else:
            if first + available == len(found.records):
                return ReadBatch(found.records[first:], max(position, found.next))
        records = found.records[first : first + available]
        return ReadBatch(records, Offset(records[-1].offset + 1) if records else position)

    async def end(self, partition: PartitionId) -> Offset:
        await self._travel()
        return self.stored.partition(partition).next

    async def sync(self) -> None:
        """Nothing to do: what is acknowledged is stored."""

    def trim(self, partition: PartitionId, before: Offset) -> None:
        if self._crashed:
            return
        found = self.stored.partition(partition)
        # The end is as far as a log can be trimmed.
        before = min(before, found.next)
        if before > found.start:
            count = bisect_left(found.offsets, before)
            del found.offsets[:count]
            del found.records[:count]
            found.start = before

    async def close(self) -> None:
        if self._refusal is None:
            self._refusal = "the log is closed"
        while self._pending:
            waiter = self._loop.create_future()
            self._idle.append(waiter)
            await waiter

    @property
    def pending(self) -> int:
        """How many appends wait for their outcome: what a crash may take."""
        return len(self._pending)

    def crash(self, kept: int | None = None) -> None:
        """End this process's connection: the first `kept` pending appends (by default drawn; all without a
        chooser) reach the log, and nobody is told."""
        assert not self._crashed
        self._crashed = True
        if self._timer is not None:
            self._timer.cancel()
        sendable = [append for append in self._pending if append.refusal is None]
        for append in sendable[: self._choose(0, len(sendable)) if kept is None else kept]:
            self._store(append)
        self._pending.clear()
        # Late ones are still on their way through the network: a crash of the sender does not stop them.

    def poison(self, reason: str) -> None:
        """Refuse everything from here on, as after a failed sync."""
        if self._refusal is None:
            self._refusal = reason

    # -- appends under way -------------------------------------------------------

    def _schedule(self) -> None:
        due = self._pending[0].due
        if due <= self._loop.time():
            self._timer = self._loop.call_soon(self._drain)
        else:
            self._timer = self._loop.call_at(due, self._drain)

    def _drain(self) -> None:
        """Decide what is due and tell the outcomes, all in append order."""
        self._timer = None
        now = self._loop.time()
        decided: list[tuple[Callable[[Outcome], None], Outcome]] = []
        while self._pending and self._pending[0].due <= now:
            append = self._pending.popleft()
            decided.append((append.done, self._decide(append)))
        if self._pending:
            self._schedule()
        for done, outcome in decided:
            # A callback may crash this process: then the others are never told either.
            if self._crashed:
                break
            try:
                done(outcome)
            except Exception as error:
                # As the loop does with its own callbacks: one that raises must not cost the others theirs.
                self._loop.call_exception_handler({"message": "the callback of an append raised", "exception": error})
        if not self._pending:
            for waiter in self._idle:
                if not waiter.done():
                    waiter.set_result(None)
            self._idle.clear()

    def _decide(self, append: _Append) -> Outcome:
        if append.refusal is not None:
            return Refused(append.refusal)
        if not self._happens(self.faults.unknown):
            return self._store(append)
        if self.faults.unknown_is_final:
            self.poison("an earlier append's outcome is unknown")
            for later in self._pending:
                later.refusal = self._refusal
        # Lost, stored, or (where the log is elsewhere) stored later: the caller cannot tell which.
        match self._choose(0, 1 if self.faults.unknown_is_final else 2):
            case 0:
                pass
            case 1:
                self._store(append)
            case _:
                self._loop.call_later(self._delay(), self._store, append)
        return Unknown("the connection broke before the answer came")

    def _store(self, append: _Append) -> Appended:
        gap = self._choose(1, self.faults.gap_max) if self._happens(self.faults.gap) else 0
        return self.stored.add(append.partition, append.payload, self._clock.now_ms(), gap)

    # -- choices -----------------------------------------------------------------

    def _happens(self, probability: float) -> bool:
        # Nothing is drawn for what is switched off: adding a fault does not change the runs without it.
        return probability > 0 and self._chooser is not None and self._chooser.random() < probability

    def _choose(self, low: int, high: int) -> int:
        return high if self._chooser is None else self._chooser.randint(low, high)

    def _delay(self) -> float:
        return self._choose(0, self.faults.delay_ms_max) / 1000 if self.faults.delay_ms_max else 0.0

    async def _travel(self) -> None:
        delay = self._delay()
        if delay:
            await asyncio.sleep(delay)

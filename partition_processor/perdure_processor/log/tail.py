"""◐ shell · A partition's end of the log on this node: appends, and the records that come of it, in order.

A record this node appended is applied from memory when its acknowledgement arrives at the reader's
position; when somebody else wrote in between, or an append's outcome was unknown, the reader fetches
what lies there (correctness 13).  The same records reach the machine either way.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeAlias

from perdure_processor.log import Appended, Log, Outcome
from perdure_processor.model import codec
from perdure_processor.model.commands import Envelope, Part
from perdure_processor.model.ids import Offset, PartitionId
from perdure_processor.model.limits import PART_PAYLOAD_MAX, PAYLOAD_MAX, RECORD_MAX, RECORDS_PER_BATCH_MAX
from perdure_processor.state_machine.machine import AppliedRecord

Done: TypeAlias = Callable[[Outcome], None]


class TooLarge(Exception):
    """The command exceeds PAYLOAD_MAX; nothing was appended."""


class Tail:
    """Append to one partition and receive its records from `position` on."""

    def __init__(
        self,
        log: Log,
        partition: PartitionId,
        position: Offset,
        *,
        deliver: Callable[[list[AppliedRecord]], None],
        failed: Callable[[BaseException], None],
        new_group: Callable[[], bytes],
    ) -> None:
        self._log = log
        self._partition = partition
        self._deliver = deliver
        self._failed = failed
        self._new_group = new_group
        self._loop = asyncio.get_running_loop()
        # Where the next record to be delivered is read or met; records before it were handed over.
        self.position = position
        self._ready: list[AppliedRecord] = []
        self._scheduled = False
        # Acknowledged records that lie beyond a stretch which must be fetched first.
        self._beyond: list[tuple[Appended, Envelope]] = []
        self._fetching: asyncio.Task[None] | None = None
        # Somebody reads: what is acknowledged meanwhile may be among what that brings, and waits in _beyond.
        # From the beginning, since other partitions may append before this one has caught up.
        self._reading = True
        self._closed = False

    # -- writing ---------------------------------------------------------------
    def append(self, envelope: Envelope, done: Done | None) -> int:
        """Append a command; a large one in parts, of which the last carries the dedup (correctness 12).

        `done` hears of the last part's outcome, or that an earlier one failed. Returns the number of bytes;
        raises TooLarge before anything is appended."""
        payload = codec.encode(envelope)
        if len(payload) > RECORD_MAX:
            return self._append_parts(envelope, done)

        def on_outcome(outcome: Outcome) -> None:
            if type(outcome) is Appended:
                self._acknowledged(outcome, envelope)
            if done is not None:
                done(outcome)

        self._log.append(self._partition, payload, on_outcome)
        return len(payload)

    def _append_parts(self, envelope: Envelope, done: Done | None) -> int:
        payload = codec.encode(Envelope(envelope.slot, None, envelope.command))
        if len(payload) > PAYLOAD_MAX:
            raise TooLarge(f"a command of {len(payload)} bytes; at most {PAYLOAD_MAX} are taken")
        pieces = [payload[at : at + PART_PAYLOAD_MAX] for at in range(0, len(payload), PART_PAYLOAD_MAX)]
        group, last = self._new_group(), len(pieces) - 1
        failure: list[Outcome] = []

        def on_outcome(outcome: Outcome) -> None:
            if type(outcome) is not Appended:
                failure.append(outcome)

        def on_last(outcome: Outcome) -> None:
            # Without all the others the last part assembles to nothing: the command was not taken.
            if done is not None:
                done(failure[0] if failure else outcome)

        for index, piece in enumerate(pieces):
            part = Part(group, index, len(pieces), piece)
            if index < last:
                self.append(Envelope(None, None, part), on_outcome)
            else:
                self.append(Envelope(None, envelope.dedup, part), on_last)
        return len(payload)

    def _acknowledged(self, outcome: Appended, envelope: Envelope) -> None:
        if self._beyond or self._reading or outcome.position > self.position:
            self._beyond.append((outcome, envelope))
            self._fetch()
            return
        if outcome.offset < self.position:
            return  # fetched meanwhile
        self.position = Offset(outcome.offset + 1)
        self._ready.append((outcome.offset, outcome.timestamp_ms, envelope))
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._hand_over)

    def _hand_over(self) -> None:
        self._scheduled = False
        records = self._ready
        self._ready = []
        if records and not self._closed:
            self._deliver(records)

    # -- reading ---------------------------------------------------------------
    async def catch_up(self) -> None:
        """Deliver everything that is in the log by now: once, when starting. Raises LogGap."""
        assert self._reading and self._fetching is None, "only one may read, and this one reads first"
        try:
            await self._read_to(await self._log.end(self._partition))
        finally:
            self._reading = False
        if self._beyond:
            self._fetch()

    def poll(self) -> None:
        """Fetch what an append of unknown outcome may have left in the log."""
        self._fetch()

    def _fetch(self) -> None:
        if not self._reading and not self._closed:
            self._reading = True
            self._fetching = self._loop.create_task(self._fill())

    async def _fill(self) -> None:
        try:
            await self._read_to(await self._log.end(self._partition))
            while self._beyond:
                outcome, envelope = self._beyond[0]
                if outcome.position > self.position:
                    await self._read_to(outcome.position)
                    assert outcome.position <= self.position, "an acknowledged record is in the log"
                self._beyond.pop(0)
                if outcome.offset >= self.position:
                    self._deliver([(outcome.offset, outcome.timestamp_ms, envelope)])
                    self.position = Offset(outcome.offset + 1)
        except Exception as error:  # the partition's owner decides; it logs and stops the partition
            self._failed(error)
        finally:
            self._fetching = None
            self._reading = False

    async def _read_to(self, end: Offset) -> None:
        self._hand_over()
        while self.position < end and not self._closed:
            batch = await self._log.read(self._partition, self.position, RECORDS_PER_BATCH_MAX)
            if batch.records:
                self._deliver(
                    [(record.offset, record.timestamp_ms, codec.decode(record.payload)) for record in batch.records]
                )
            self.position = max(self.position, batch.position)

    def close(self) -> None:
        """Deliver nothing more."""
        self._closed = True
        if self._fetching is not None:
            self._fetching.cancel()

"""● core · The Log port: an ordered, durable sequence of records per partition.

What Kafka does, every implementation may do, and the contract tests hold all of them to it: offsets
have gaps, a read may be empty although the end was not reached, an append may end as Unknown.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from perdure_processor.model.ids import Millis, Offset, PartitionId
from perdure_processor.model.value import value


@value
class Record:
    """One record as the log gave it back; `timestamp_ms` is the time of the append."""

    offset: Offset
    timestamp_ms: Millis
    payload: bytes


@value
class ReadBatch:
    """What one read found. `position` is where to read on: beyond every record here and every gap skipped.

    An empty batch is legal and may still move the position."""

    records: list[Record]
    position: Offset


@value
class Appended:
    """The record is durable at `offset`, and by now is acknowledged.

    `position` is the smallest position from which a reader meets this record next: a reader standing
    anywhere in [position, offset] may apply it from memory instead of fetching it (correctness 13)."""

    offset: Offset
    timestamp_ms: Millis
    position: Offset


@value
class Refused:
    """The record was never sent: disk full, queue full, log closed. Trying again is safe."""

    reason: str


@value
class Unknown:
    """The record may or may not be in the log, now or later. The term that wrote it must end."""

    reason: str


Outcome: TypeAlias = Appended | Refused | Unknown


class Log(Protocol):
    """Append, read, trim. All calls and callbacks happen on the event loop's thread."""

    def append(self, partition: PartitionId, payload: bytes, done: Callable[[Outcome], None]) -> None:
        """Append one record of at most RECORD_MAX bytes; never blocks for long, never raises for the world's faults.

        Appends of one turn of the loop become durable together.  `done` is called exactly once, later
        (never from within append), and in append order per partition."""

    async def read(self, partition: PartitionId, position: Offset, limit: int) -> ReadBatch:
        """Up to `limit` records with offset >= position, in order; raises LogGap if the log starts after position.

        Returns at once with an empty batch at the end of the log."""

    async def end(self, partition: PartitionId) -> Offset:
        """The position after the last acknowledged record."""

    async def sync(self) -> object:
        """Make what was acknowledged survive a power cut, where that is not so already.

        Raises OSError if that fails; the log takes nothing more then."""

    def trim(self, partition: PartitionId, before: Offset) -> None:
        """Records with offset < before are no longer needed. A hint: space comes back eventually."""

    async def close(self) -> None:
        """Flush what was appended, then refuse everything."""

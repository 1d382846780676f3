"""◐ shell · Carries outbox messages to other partitions' logs, one queue per target, in order (correctness 6)."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, cast

from perdure_processor.log import Appended, Outcome
from perdure_processor.log.tail import Done
from perdure_processor.model import codec
from perdure_processor.model.actions import ShipOutboxMessage
from perdure_processor.model.commands import (
    Ask,
    Attach,
    ByOutbox,
    Command,
    DropPromises,
    Envelope,
    GetOutput,
    Invoke,
    KillCall,
    Operate,
    Respond,
    RestartAsNew,
    Resume,
    Signal,
    TruncateOutbox,
)
from perdure_processor.model.ids import PartitionId, slot_of
from perdure_processor.model.limits import (
    OUTBOX_IN_FLIGHT_MAX,
    OUTBOX_SCAN_PAGE,
    OUTBOX_SHIP_AGAIN_S,
    OUTBOX_TRUNCATE_AFTER_S,
)
from perdure_processor.storage import keys

if TYPE_CHECKING:
    from perdure_processor.leader.leader import Leader


class Shuffle:
    """The outbox table is the truth, the actions are only a hint that it has grown."""

    def __init__(self, leader: Leader, append: Callable[[PartitionId, Envelope, Done], int]) -> None:
        self._leader = leader
        self._append = append
        self._loop = asyncio.get_running_loop()
        self._queues: dict[PartitionId, _Queue] = {}

    def start(self) -> None:
        """Ship what earlier terms left."""
        targets: dict[PartitionId, None] = {}
        low = keys.OUTBOX
        while True:
            key = next((key for key, _ in self._leader.store.scan(low, keys.end_of(keys.OUTBOX))), None)
            if key is None:
                break
            target, _ = keys.parse_outbox(key)
            targets[target] = None
            low = keys.outbox(PartitionId(target + 1), 0)
        for target in targets:
            self._queue(target).restart()

    def ship(self, action: ShipOutboxMessage) -> None:
        self._queue(action.target).offer(action.sequence, action.command)

    def close(self) -> None:
        for queue in self._queues.values():
            queue.closed = True

    def _queue(self, target: PartitionId) -> _Queue:
        queue = self._queues.get(target)
        if queue is None:
            queue = self._queues[target] = _Queue(target, self._leader, self._append, self._loop)
        return queue


class _Queue:
    """The messages for one target partition."""

    def __init__(
        self,
        target: PartitionId,
        leader: Leader,
        append: Callable[[PartitionId, Envelope, Done], int],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self._target = target
        self._leader = leader
        self._append = append
        self._loop = loop
        self._next = -1  # the next sequence to append; -1: whichever row comes first
        self._in_flight: deque[int] = deque()
        self._acknowledged = 0
        self._truncated = 0
        self._truncating = False
        # Rows wait in the table beyond what is in flight.
        self._behind = False
        self._pausing = False
        # Raised at each restart: outcomes of appends before it say nothing any more.
        self._round = 0
        self.closed = False

    def offer(self, sequence: int, command: Command) -> None:
        """A new row. Appended at once if it is the next one and there is room."""
        if self._pausing or self._behind or len(self._in_flight) >= OUTBOX_IN_FLIGHT_MAX:
            self._behind = True
        elif self._next in (-1, sequence):
            self._ship(sequence, command)

    def restart(self) -> None:
        """Begin from the first row."""
        self._pausing = False
        self._round += 1
        self._in_flight.clear()
        self._next = -1
        self._read_on()

    def _read_on(self) -> None:
        if self.closed or self._pausing:
            return
        self._behind = False
        low = keys.outbox(self._target, max(self._next, self._acknowledged + 1))
        room = min(OUTBOX_SCAN_PAGE, OUTBOX_IN_FLIGHT_MAX - len(self._in_flight))
        for key, data in self._leader.store.scan(low, keys.outbox(PartitionId(self._target + 1), 0)):
            if room == 0:
                self._behind = True
                break
            room -= 1
            self._ship(keys.parse_outbox(key)[1], cast(Command, codec.decode(data)))

    def _ship(self, sequence: int, command: Command) -> None:
        self._next = sequence + 1
        self._in_flight.append(sequence)
        self._leader.metrics.outbox_shipped += 1
        of_round = self._round

        def on_outcome(outcome: Outcome) -> None:
            if not self.closed and of_round == self._round:
                self._on_outcome(outcome)

        dedup = ByOutbox(self._leader.partition, sequence)
        self._append(self._target, Envelope(_slot_of(command), dedup, command), on_outcome)

    def _on_outcome(self, outcome: Outcome) -> None:
        sequence = self._in_flight.popleft()
        if type(outcome) is Appended:
            self._acknowledged = sequence
            if not self._truncating:
                self._truncating = True
                self._loop.call_later(OUTBOX_TRUNCATE_AFTER_S, self._truncate)
            if self._behind and len(self._in_flight) <= OUTBOX_IN_FLIGHT_MAX // 2:
                self._read_on()
            return
        # Unknown or refused: it may be missing, so all that follow it are too.  The target drops what it has.
        self._pausing = True
        self._round += 1
        self._loop.call_later(OUTBOX_SHIP_AGAIN_S, self._restart_if_open)

    def _restart_if_open(self) -> None:
        if not self.closed:
            self.restart()

    def _truncate(self) -> None:
        self._truncating = False
        if not self.closed and self._acknowledged > self._truncated:
            self._truncated = self._acknowledged
            self._leader.propose(TruncateOutbox(self._target, self._acknowledged))


def _slot_of(command: Command) -> int:
    match command:
        case (
            Invoke()
            | Signal()
            | Attach()
            | GetOutput()
            | Ask()
            | KillCall()
            | Operate()
            | Resume()
            | RestartAsNew()
            | DropPromises()
        ):
            return slot_of(command.id)
        case Respond(sink=sink):
            return slot_of(sink.id)
        case _:
            raise AssertionError(f"{type(command).__name__} does not travel between partitions")

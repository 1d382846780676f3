"""● core · What one record may read, write and ask for."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from perdure_processor.model.actions import Action, Answer, RespondToIngress, SetTimer, ShipOutboxMessage
from perdure_processor.model.commands import Command
from perdure_processor.model.ids import Millis, Offset, PartitionId, partition_of_slot
from perdure_processor.model.limits import ROWS_MAX
from perdure_processor.model.results import RequestId
from perdure_processor.storage.tables import Tables


@dataclass(slots=True)
class Step:
    """The world as apply sees it: tables, the record's place and time, and two ways to cause something."""

    tables: Tables
    partition: PartitionId
    partitions: int
    offset: Offset = Offset(0)
    now_ms: Millis = Millis(0)
    # For the leader, after the commit; dropped by everyone else.
    actions: list[Action] = field(default_factory=list)
    # Commands this record causes in its own partition: applied with it, after the command at hand.
    local: deque[Command] = field(default_factory=deque)
    # What this record may still do of work that has no other bound (correctness 27).
    rows_left: int = ROWS_MAX

    def deliver(self, slot: int, command: Command) -> None:
        """Hand a command to the partition of `slot`: at once if it is this one, else through the outbox."""
        target = partition_of_slot(slot, self.partitions)
        if target == self.partition:
            self.local.append(command)
            return
        outbound = self.tables.progress.outbound
        sequence = outbound.get(target, 0) + 1
        outbound[target] = sequence
        self.tables.put_outbox(target, sequence, command)
        self.actions.append(ShipOutboxMessage(target, sequence, command))

    def go_on(self, timer_key: bytes, number: int, detail: bytes = b"") -> None:
        """Leave the rest of some work for a later record: a timer of deadline 0, which the leader finds due."""
        self.tables.put_timer(timer_key, number, detail)
        self.actions.append(SetTimer(Millis(0)))

    def respond(self, request: RequestId | None, answer: Answer) -> None:
        if request is not None:
            self.actions.append(RespondToIngress(request, answer))

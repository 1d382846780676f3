"""● core · apply(): which records count, what time it is, and the one dispatch.

Applying is deterministic: the same records from the same tables give the same tables and actions on
every replica, today and next year.  Nothing is caught here: a bug stops the partition at its record.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import assert_never

from perdure.protocol.messages import SIGNAL_CANCEL
from perdure_processor.model import codec
from perdure_processor.model.actions import Action
from perdure_processor.model.commands import (
    AnnounceLeader,
    Ask,
    Attach,
    AttemptEffects,
    ByLeader,
    ByOutbox,
    Command,
    DropPromises,
    Envelope,
    Expire,
    GetOutput,
    Invoke,
    KillCall,
    Operate,
    Part,
    ReplaceState,
    Respond,
    RestartAsNew,
    Resume,
    Signal,
    TimersFired,
    TruncateOutbox,
)
from perdure_processor.model.ids import LeaderEpoch, Millis, NodeId, Offset, PartitionId, partition_of_slot
from perdure_processor.model.limits import ROWS_MAX
from perdure_processor.state_machine import (
    execution,
    notifications,
    operations,
    partition,
    restart,
    retention,
    submission,
    termination,
)
from perdure_processor.state_machine.step import Step
from perdure_processor.storage.records import Progress
from perdure_processor.storage.tables import Tables

# (offset, timestamp, envelope): a record, decoded or never encoded.
AppliedRecord = tuple[Offset, Millis, Envelope]


@dataclass(slots=True)
class Elected:
    """An announcement was accepted; the batch ends with it."""

    node: NodeId
    epoch: LeaderEpoch
    nonce: int


@dataclass(slots=True)
class Batch:
    """What applying some records asks for. `taken` records were applied; the rest come with the next batch."""

    taken: int
    actions: list[Action]
    elected: Elected | None


class Machine:
    """The state machine of one partition, over its tables."""

    def __init__(self, tables: Tables, partition_id: PartitionId, partitions: int, skipped: frozenset[Offset]) -> None:
        self._tables = tables
        self._step = Step(tables, partition_id, partitions)
        self._skipped = skipped

    def apply_all(self, records: Sequence[AppliedRecord]) -> Batch:
        """Apply records in order, up to and including an accepted announcement."""
        step = self._step
        actions: list[Action] = []
        step.actions = actions
        progress = self._tables.progress
        taken = 0
        for offset, timestamp_ms, envelope in records:
            taken += 1
            assert offset >= progress.position, f"record {offset} was applied already"
            progress.position = offset + 1
            progress.applied = offset
            if timestamp_ms > progress.now_ms:
                progress.now_ms = timestamp_ms
            if offset in self._skipped:
                continue
            step.offset = offset
            step.now_ms = progress.now_ms
            step.rows_left = ROWS_MAX
            elected = self._apply(step, progress, envelope)
            if elected is not None:
                # Earlier actions are dropped: the new leader derives its work from the tables.
                return Batch(taken, [], elected)
        return Batch(taken, actions, None)

    def _apply(self, step: Step, progress: Progress, envelope: Envelope) -> Elected | None:
        if not _is_next(progress, envelope.dedup):
            return None
        command = envelope.command
        if type(command) is Part:
            whole = partition.on_part(step, command)
            if whole is None:
                # Either more are to come, or one was lost: then the last one's dedup is not spent, and it comes again.
                return None
            inner: Envelope = codec.decode(whole)
            _spend(progress, envelope.dedup)
            envelope, command = inner, inner.command
        else:
            _spend(progress, envelope.dedup)
        if envelope.slot is not None and partition_of_slot(envelope.slot, step.partitions) != step.partition:
            step.deliver(envelope.slot, command)
            return None
        if type(command) is AnnounceLeader:
            accepted = partition.on_announce_leader(step, command)
            return Elected(command.node, command.epoch, command.nonce) if accepted else None
        _dispatch(step, command)
        while step.local:
            _dispatch(step, step.local.popleft())
        self._tables.seal_record(step.now_ms)
        return None


def _is_next(progress: Progress, dedup: ByLeader | ByOutbox | None) -> bool:
    """Whether a record is the one that its writer's order asks for next (correctness 6)."""
    # Two of these for each invocation: compared by type, which is several times faster than patterns.
    if dedup is None:
        return True
    if type(dedup) is ByLeader:
        return dedup.epoch == progress.epoch and dedup.sequence == progress.sequence + 1
    assert type(dedup) is ByOutbox
    return dedup.sequence == progress.inbound.get(dedup.source, 0) + 1


def _spend(progress: Progress, dedup: ByLeader | ByOutbox | None) -> None:
    if type(dedup) is ByLeader:
        progress.sequence = dedup.sequence
    elif type(dedup) is ByOutbox:
        progress.inbound[dedup.source] = dedup.sequence


def _dispatch(step: Step, command: Command) -> None:
    match command:
        case AttemptEffects():
            execution.on_attempt_effects(step, command)
        case Invoke():
            submission.on_invoke(step, command)
        case Respond():
            notifications.on_respond(step, command)
        case TimersFired():
            partition.on_timers_fired(step, command)
        case TruncateOutbox():
            partition.on_truncate_outbox(step, command)
        case Attach():
            submission.on_attach(step, command)
        case GetOutput():
            submission.on_get_output(step, command)
        case Signal() if command.signal == SIGNAL_CANCEL and command.request is None:
            termination.on_cancel_signal(step, command)
        case Signal():
            notifications.on_signal(step, command)
        case Ask():
            submission.on_ask(step, command)
        case Operate():
            operations.on_operate(step, command)
        case Resume():
            operations.on_resume(step, command)
        case RestartAsNew():
            restart.on_restart(step, command)
        case KillCall():
            termination.on_kill_call(step, command)
        case DropPromises():
            operations.on_drop_promises(step, command)
        case ReplaceState():
            operations.on_replace_state(step, command)
        case Expire():
            retention.on_expire(step, command)
        case AnnounceLeader() | Part():
            raise AssertionError(f"{type(command).__name__} is handled before the dispatch")
        case _:
            assert_never(command)

"""● core · What concerns the partition itself: timers, the outbox, leadership, parts of large commands."""

from __future__ import annotations

from perdure_processor.model.actions import SetTimer
from perdure_processor.model.commands import AnnounceLeader, Part, TimersFired, TruncateOutbox
from perdure_processor.model.ids import Millis, PartitionId
from perdure_processor.model.limits import PARTS_KEEP_MS
from perdure_processor.state_machine import lifecycle, notifications, objects, promises, retention
from perdure_processor.state_machine.step import Step
from perdure_processor.storage import keys
from perdure_processor.storage.records import Completed, Live, Proof, Status

ROWS_PER_TIMER = 6  # what a timer that fires touches at most: itself, invocation, segment, active, lock, inbox


def on_timers_fired(step: Step, fired: TimersFired) -> None:
    """Each timer is valid iff its row still exists: that, and not the clock, decides (correctness 22)."""
    tables = step.tables
    for key in fired.keys:
        if step.rows_left <= 0:
            # The rows of the others stay, so they are still due.
            step.actions.append(SetTimer(Millis(0)))
            return
        step.rows_left -= ROWS_PER_TIMER
        timer = tables.timer(key)
        if timer is None:
            continue
        tables.delete_timer(key)
        incarnation, detail = timer
        deadline, invocation_id, kind, number = keys.parse_timer(key)
        if kind == keys.TIMER_CLEAR:
            objects.clear_state_on(step, key, incarnation, detail)
            continue
        if kind == keys.TIMER_PATCH:
            lifecycle.pass_on(step, invocation_id, detail)
            continue
        if kind == keys.TIMER_PROMISE:
            promises.tell_on(step, key, detail)
            continue
        if kind == keys.TIMER_TRUNCATE:
            _truncate(step, keys.parse_outbox_subject(invocation_id), incarnation)
            continue
        row = tables.invocation(invocation_id)
        if row is None or isinstance(row, Proof) or row.incarnation != incarnation:
            continue
        if kind == keys.TIMER_ANSWER:
            assert type(row) is Completed, "only an ended invocation has somebody left to tell"
            lifecycle.answer_on(step, invocation_id, row)
        elif type(row) is not Live:
            continue
        elif kind == keys.TIMER_SLEEP:
            notifications.on_sleep_over(step, invocation_id, row, number, deadline)
        elif kind == keys.TIMER_RETRY:
            if row.status is Status.INVOKED and row.next_retry_ms == deadline:
                lifecycle.begin(step, invocation_id, row)
        elif row.status is Status.SCHEDULED:
            assert kind == keys.TIMER_START, f"timers of kind {kind} are handled above"
            lifecycle.begin_in_turn(step, invocation_id, row)


def on_truncate_outbox(step: Step, truncate: TruncateOutbox) -> None:
    """The target's log holds what comes before: it need not be kept any longer."""
    _truncate(step, truncate.target, truncate.sequence)


def _truncate(step: Step, target: PartitionId, sequence: int) -> None:
    room = max(step.rows_left, 0)
    deleted = step.tables.truncate_outbox(target, sequence, room)
    step.rows_left -= deleted
    if deleted == room:
        step.go_on(keys.timer(0, keys.outbox_subject(target), keys.TIMER_TRUNCATE, 0), sequence)


def on_announce_leader(step: Step, announce: AnnounceLeader) -> bool:
    """The first claim of a higher epoch wins; ties lose. True when accepted."""
    progress = step.tables.progress
    if announce.epoch <= progress.epoch:
        return False
    progress.epoch = announce.epoch
    progress.sequence = 0
    progress.leader = f"{announce.node.name}:{announce.node.generation}:{announce.nonce}"
    return True


def on_part(step: Step, part: Part) -> bytes | None:
    """Keep a piece; the last one gives the whole envelope back, or nothing if a piece never came."""
    tables = step.tables
    assert part.count > 1 and len(part.group) != retention.ID_BYTES
    if part.index == 0 or not tables.has_part(part.group, part.index - 1):
        # Found by this row when the last one never comes, or one before this was lost.
        tables.put_expiry(Millis(step.now_ms + PARTS_KEEP_MS), part.group)
    if part.index < part.count - 1:
        tables.put_part(part.group, part.index, step.now_ms, part.payload)
        return None
    before = tables.take_parts(part.group, part.count - 1)
    if before is None:
        return None
    began_ms, pieces = before
    tables.delete_expiry(Millis(began_ms + PARTS_KEEP_MS), part.group)
    return b"".join([*pieces, part.payload])


def group_of(created_ms: Millis, unique: bytes) -> bytes:
    """A part group's name: when it was begun, then what makes it unique."""
    return created_ms.to_bytes(8, "big") + unique

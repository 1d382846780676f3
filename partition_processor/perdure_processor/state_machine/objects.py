"""● core · The lock and the inbox that make a virtual object single-writer."""

from __future__ import annotations

from perdure_processor.model.ids import InvocationId, InvocationTarget
from perdure_processor.model.schema import HandlerKind
from perdure_processor.state_machine import state_patch
from perdure_processor.state_machine.step import Step
from perdure_processor.storage import keys
from perdure_processor.storage.records import Live, ObjectRow

_EXCLUSIVE = (int(HandlerKind.EXCLUSIVE), int(HandlerKind.WORKFLOW))


def holds_lock(row: Live) -> bool:
    """Whether a handler of this kind needs its key for itself."""
    return row.handler_kind in _EXCLUSIVE


def suffix_of(invocation_id: InvocationId, target: InvocationTarget) -> bytes:
    """The common part of the keys of an object's rows."""
    assert target.key is not None, f"{target} has no key"
    return keys.object_suffix(invocation_id, target.service, target.key)


def acquire(step: Step, invocation_id: InvocationId, row: Live) -> bool:
    """Take the lock, or join the queue behind its holder and answer False."""
    suffix = suffix_of(invocation_id, row.target)
    lock = step.tables.object(suffix)
    if lock is None:
        step.tables.put_object(suffix, ObjectRow(invocation_id, 0, 0))
        return True
    assert lock.holder != invocation_id, "a lock is taken once"
    assert lock.holder is not None or lock.patches, "an unheld lock has no row, unless state patches have their turn"
    row.inbox_sequence = lock.tail
    row.inboxed_ms = step.now_ms
    step.tables.put_inbox(suffix, lock.tail, invocation_id)
    lock.tail += 1
    step.tables.put_object(suffix, lock)
    return False


def release(step: Step, invocation_id: InvocationId, row: Live) -> InvocationId | None:
    """Give the lock to the next in the queue and name it, or give it up; state patches before it are applied."""
    suffix = suffix_of(invocation_id, row.target)
    lock = step.tables.object(suffix)
    assert lock is not None and lock.holder == invocation_id, f"{row.target} is not held by its invocation"
    return _pass_on(step, invocation_id, suffix, lock)


def pass_on(step: Step, invocation_id: InvocationId, suffix: bytes) -> InvocationId | None:
    """Go on with the state patches whose turn it is, then as release."""
    lock = step.tables.object(suffix)
    assert lock is not None and lock.holder is None, "the lock waits for its patches"
    return _pass_on(step, invocation_id, suffix, lock)


def _pass_on(step: Step, invocation_id: InvocationId, suffix: bytes, lock: ObjectRow) -> InvocationId | None:
    found = step.tables.next_in_inbox(suffix, lock.head, lock.tail)
    if lock.patches:
        before = lock.tail if found is None else found[0]
        if not state_patch.take_turns(step, invocation_id, suffix, lock, before):
            lock.holder = None
            step.tables.put_object(suffix, lock)
            step.go_on(keys.timer(0, invocation_id, keys.TIMER_PATCH, 0), 0, suffix)
            return None
    if found is None:  # nobody is left: whoever waited has gone before its turn
        step.tables.put_object(suffix, None)
        return None
    sequence, heir = found
    step.tables.delete_inbox(suffix, sequence)
    lock.holder = heir
    lock.head = sequence + 1
    step.tables.put_object(suffix, lock)
    return heir


def clear_state(step: Step, invocation_id: InvocationId, target: InvocationTarget) -> None:
    """Drop all state of a key, for every reader at once."""
    state_patch.clear(step, invocation_id, suffix_of(invocation_id, target))


def clear_state_on(step: Step, timer_key: bytes, number: int, position: bytes) -> None:
    """Go on deleting what clear number `number` cleared, from the row `position`."""
    tables = step.tables
    suffix = keys.object_suffix_of(position)
    cleared = tables.cleared(suffix)
    for key, written in tables.state_rows_from(suffix, position):
        if step.rows_left <= 0:
            step.go_on(timer_key, number, key)
            return
        step.rows_left -= 1
        if written < cleared:
            tables.delete_row(key)
    # A later clear of the same key began at the first row again, and is the one to take the mark away.
    if cleared == number:
        tables.put_cleared(suffix, 0)

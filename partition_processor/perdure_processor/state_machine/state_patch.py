"""● core · The state of a key replaced as a whole by an operator: at once, or in its turn behind who holds the key.

A patch takes a place in the queue of its key like a call.  It is applied whole, in one record, when nobody
holds the key: no handler sees it in its middle, and whoever comes after it sees it.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Sequence
from itertools import islice

from perdure_processor.model.actions import Deed, ReportRefusedPatch
from perdure_processor.model.ids import InvocationId
from perdure_processor.model.limits import ROWS_MAX, STATE_PATCH_BYTES_PER_ROW
from perdure_processor.state_machine.step import Step
from perdure_processor.storage import keys
from perdure_processor.storage.records import ObjectRow, PendingPatch


def version_of(state: Iterable[tuple[bytes, bytes]]) -> str:
    """The version of a state, given as names and values in the order of the names: as the original computes it."""
    digest = hashlib.sha256()
    for index, (name, value) in enumerate(state):
        digest.update(b"".join((index.to_bytes(8, "big"), b"\x01", name, b"\x02", value, b"\x03")))
    return base64.urlsafe_b64encode(digest.digest()).rstrip(b"=").decode()


def replace(
    step: Step, invocation_id: InvocationId, suffix: bytes, version: str | None, state: Sequence[tuple[bytes, bytes]]
) -> Deed:
    """Make `state` the whole state of a key that nobody holds, if its version is still the given one.

    `invocation_id` is any id of the key's slot; it names the work that is left for later."""
    tables = step.tables
    if version is not None:
        there = list(islice(tables.state_rows(suffix), ROWS_MAX + 1))
        step.rows_left -= len(there)
        if len(there) > ROWS_MAX:
            return Deed.TOO_LARGE
        if version_of(there) != version:
            return Deed.WRONG_STATE
    clear(step, invocation_id, suffix)
    for name, value in state:
        tables.put_state(suffix, name, value)
    step.rows_left -= len(state) + sum(len(value) for _, value in state) // STATE_PATCH_BYTES_PER_ROW
    return Deed.DONE


def wait(step: Step, suffix: bytes, lock: ObjectRow, version: str | None, state: Sequence[tuple[bytes, bytes]]) -> None:
    """Take the next place in the queue of a key that is held."""
    step.tables.put_patch(suffix, lock.tail, PendingPatch(version, list(state)))
    lock.tail += 1
    lock.patches += 1
    step.tables.put_object(suffix, lock)


def take_turns(step: Step, invocation_id: InvocationId, suffix: bytes, lock: ObjectRow, before: int) -> bool:
    """Apply what waits at places below `before`; False when this record may do no more of it (correctness 27)."""
    for place, patch in step.tables.patches(suffix, before):
        if step.rows_left <= 0:
            return False
        step.rows_left -= 1
        step.tables.delete_patch(suffix, place)
        lock.patches -= 1
        deed = replace(step, invocation_id, suffix, patch.version, patch.state)
        if deed is not Deed.DONE:
            # Whoever asked was told long since that it waits: now only an operator's log can say so.
            service, key, _ = keys.parse_object_suffix(keys.OBJECT + suffix)
            step.actions.append(ReportRefusedPatch(service, key, deed))
    return True


def clear(step: Step, invocation_id: InvocationId, suffix: bytes) -> None:
    """Drop all state of a key: at once for every reader, and from the store as fast as records may (correctness 27)."""
    tables = step.tables
    room = max(step.rows_left, 0)
    state_keys = list(islice(tables.stored_state_keys(suffix), room + 1))
    for state_key in state_keys[:room]:
        tables.delete_state(suffix, state_key)
    step.rows_left -= min(len(state_keys), room)
    if len(state_keys) > room:
        tables.progress.clears += 1
        number = tables.progress.clears
        tables.put_cleared(suffix, number)
        key = keys.timer(0, invocation_id, keys.TIMER_CLEAR, number & 0xFFFFFFFF)
        step.go_on(key, number, keys.STATE + suffix + state_keys[room])

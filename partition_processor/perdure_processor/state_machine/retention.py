"""● core · Retention: what an ended invocation leaves, and when each part of it goes.

A completed row goes through at most three moments: its journal expires, its result expires, and the
proof of its requests is dropped.  One expiry row stands for the next of them (correctness 3, 17, 22).
"""

from __future__ import annotations

from itertools import islice

from perdure_processor.model.commands import Expire
from perdure_processor.model.ids import InvocationId
from perdure_processor.model.schema import HandlerKind
from perdure_processor.state_machine import lifecycle, objects, promises
from perdure_processor.state_machine.step import Step
from perdure_processor.storage.records import Completed, Proof

ID_BYTES = 24  # an expiry row with a longer or shorter subject is that of a group of parts


def on_expire(step: Step, expire: Expire) -> None:
    """Take the next step for every row that was due at `until_ms`, at most `limit` of them.

    What this record has no room for stays due, and goes with the next Expire (correctness 27)."""
    tables = step.tables
    # Listed first: what this loop writes must not be met by it again.
    for deadline_ms, subject in list(islice(tables.due_expiries(expire.until_ms), expire.limit)):
        if step.rows_left <= 0:
            return
        step.rows_left -= 1
        if len(subject) != ID_BYTES:
            tables.delete_expiry(deadline_ms, subject)
            step.rows_left -= tables.drop_parts(subject)
            continue
        invocation_id = InvocationId(subject)
        row = tables.invocation(invocation_id)
        if type(row) is Completed and deadline_ms in (row.expires_ms, row.journal_expires_ms):
            row.segments = lifecycle.drop_journal(step, invocation_id, row.segments, row.events)
            tables.put_invocation(invocation_id, row)
            if row.segments:
                return
            row.events = 0
            if deadline_ms == row.expires_ms:
                if not _expire_result(step, invocation_id, row):
                    return
            else:
                tables.put_expiry(row.expires_ms, invocation_id)
        elif type(row) is Proof and row.drop_ms == deadline_ms:
            tables.delete_invocation(invocation_id)
        tables.delete_expiry(deadline_ms, invocation_id)


def _expire_result(step: Step, invocation_id: InvocationId, row: Completed) -> bool:
    """Drop the result and what lives as long; False when the next Expire has to go on."""
    if row.handler_kind == HandlerKind.WORKFLOW:
        # A workflow's promises and state live as long as its result.
        assert row.target.key is not None, "a workflow has a key"
        if not promises.drop(step, invocation_id, row.target.service, row.target.key):
            return False
        objects.clear_state(step, invocation_id, row.target)
    step.tables.delete_invocation(invocation_id)
    if lifecycle.proven_ms(row.requests) > row.expires_ms:
        lifecycle.keep_proof(step, invocation_id, row.requests, row.result)
    return True

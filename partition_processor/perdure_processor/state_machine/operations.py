"""● core · What operators ask for, once however often it is appended: each verb, and what it answers."""

from __future__ import annotations

from typing import assert_never

from perdure_processor.model.actions import Acted, Crowded, Deed, Expired, Missing, PauseAttempt
from perdure_processor.model.commands import DropPromises, Operate, Repin, ReplaceState, Resume, Verb
from perdure_processor.model.derived_ids import workflow_id
from perdure_processor.model.ids import InvocationId, Millis
from perdure_processor.model.limits import (
    REPLY_KEEP_MS,
    REQUEST_HORIZON_MS,
    REQUESTS_KNOWN_MAX,
    STATE_PATCHES_WAITING_MAX,
)
from perdure_processor.model.results import Failed, KnownRequest, RequestId
from perdure_processor.state_machine import events, lifecycle, promises, state_patch, termination
from perdure_processor.state_machine.step import Step
from perdure_processor.storage import keys
from perdure_processor.storage.records import Completed, InvocationRow, Live, Proof, Status


def on_operate(step: Step, command: Operate) -> None:
    """Cancel, kill, pause, purge or purge-journal."""
    if answered_before(step, command.id, command.request, command.issued_ms):
        return
    row = step.tables.invocation(command.id)
    if not isinstance(row, Live | Completed):
        step.respond(command.request, Missing())
    elif crowded(step, row) and not (command.verb == Verb.KILL and type(row) is Live):
        # But nothing is too large to be killed.
        step.respond(command.request, Crowded())
    else:
        acted(step, command.id, command.request, command.issued_ms, Acted(_operate(step, command, row)))


def _operate(step: Step, command: Operate, row: Live | Completed) -> Deed:
    verb = Verb(command.verb)
    match verb:
        case Verb.CANCEL:
            return Deed.COMPLETED if type(row) is Completed else termination.cancel(step, command.id, _live(row))
        case Verb.KILL:
            return Deed.COMPLETED if type(row) is Completed else termination.kill(step, command.id, _live(row))
        case Verb.PAUSE:
            return Deed.COMPLETED if type(row) is Completed else _pause(step, command.id, _live(row))
        case Verb.PURGE:
            return termination.purge(step, command.id, row) if type(row) is Completed else Deed.NOT_COMPLETED
        case Verb.PURGE_JOURNAL:
            return termination.purge_journal(step, command.id, row) if type(row) is Completed else Deed.NOT_COMPLETED
        case _:
            assert_never(verb)


def _live(row: Live | Completed) -> Live:
    assert type(row) is Live
    return row


def _pause(step: Step, invocation_id: InvocationId, row: Live) -> Deed:
    if row.status is Status.PAUSED:
        return Deed.DONE
    if row.status is not Status.INVOKED:
        return Deed.NOT_RUNNING
    row.modified_ms = step.now_ms
    if row.next_retry_ms:
        lifecycle.drop_retry(step, invocation_id, row)
        row.status = Status.PAUSED
        events.paused(step, invocation_id, row)
    else:
        row.pausing = True
        step.actions.append(PauseAttempt(invocation_id, row.attempt))
    step.tables.put_invocation(invocation_id, row)
    return Deed.ACCEPTED


def on_resume(step: Step, command: Resume) -> None:
    """Start the next attempt now, perhaps on another deployment."""
    if answered_before(step, command.id, command.request, command.issued_ms):
        return
    row = step.tables.invocation(command.id)
    if not isinstance(row, Live | Completed):
        step.respond(command.request, Missing())
        return
    if crowded(step, row):
        step.respond(command.request, Crowded())
        return
    refused = _may_resume(row, command.repin)
    if refused is not None:
        acted(step, command.id, command.request, command.issued_ms, refused)
        return
    assert type(row) is Live
    row.pausing = False
    if command.repin is not None:
        row.deployment_id = command.repin.deployment_id
    if row.status is not Status.INVOKED or row.next_retry_ms:
        row.retry_count = 0
        lifecycle.begin_now(step, command.id, row)
    acted(step, command.id, command.request, command.issued_ms, Acted(Deed.DONE))


def _may_resume(row: Live | Completed, repin: Repin | None) -> Acted | None:
    if type(row) is Completed:
        return Acted(Deed.COMPLETED)
    assert type(row) is Live
    if row.status in (Status.SCHEDULED, Status.INBOXED):
        return Acted(Deed.NOT_STARTED)
    if repin is None:
        return None
    if row.status is Status.INVOKED or row.deployment_id is None:
        return Acted(Deed.NOT_PINNED)
    return wrong_version(row, repin)


def wrong_version(row: Live | Completed, repin: Repin) -> Acted | None:
    """The refusal, if the deployment does not speak the protocol version of the journal."""
    version, least, most = row.protocol_version, repin.min_protocol_version, repin.max_protocol_version
    if least <= version <= most:
        return None
    return Acted(
        Deed.WRONG_VERSION,
        None,
        f"the journal was written in protocol version {version}, "
        f"deployment {repin.deployment_id} speaks {least} to {most}",
    )


def on_replace_state(step: Step, command: ReplaceState) -> None:
    """Give a key another state: now if nobody holds it, else in its turn."""
    if answered_before(step, command.id, command.request, command.issued_ms):
        return
    suffix = keys.object_suffix(command.id, command.service, command.key)
    lock = step.tables.object(suffix)
    if lock is None:
        deed = state_patch.replace(step, command.id, suffix, command.version, command.state)
    elif lock.patches >= STATE_PATCHES_WAITING_MAX:
        step.respond(command.request, Crowded())
        return
    else:
        state_patch.wait(step, suffix, lock, command.version, command.state)
        deed = Deed.ACCEPTED
    acted(step, command.id, command.request, command.issued_ms, Acted(deed))


def on_drop_promises(step: Step, command: DropPromises) -> None:
    """What a workflow key without a run has gathered: promises that others completed, and nobody will read."""
    if answered_before(step, command.id, command.request, command.issued_ms):
        return
    if isinstance(step.tables.invocation(workflow_id(command.workflow, command.key)), Live | Completed):
        deed = Deed.HAS_RUN
    elif promises.drop(step, command.id, command.workflow, command.key):
        state_patch.clear(step, command.id, keys.object_suffix(command.id, command.workflow, command.key))
        deed = Deed.DONE
    else:
        deed = Deed.UNFINISHED
    acted(step, command.id, command.request, command.issued_ms, Acted(deed))


def answered_before(step: Step, invocation_id: InvocationId, request: RequestId, issued_ms: Millis) -> bool:
    """Whether this request was applied already, or is too old to be: then it has its answer (correctness 3)."""
    if step.now_ms > issued_ms + REQUEST_HORIZON_MS:
        step.respond(request, Expired())
        return True
    row = step.tables.invocation(invocation_id)
    known = None if row is None else lifecycle.known_request(row, request)
    if known is None or known.deed is None:
        return False
    step.respond(request, Acted(Deed(known.deed), known.new_id))
    return True


def crowded(step: Step, row: Live | Completed) -> bool:
    """Whether the row remembers as many requests as it may, all of which may still be repeated."""
    return len(row.requests) >= REQUESTS_KNOWN_MAX and len(_repeatable(step, row)) >= REQUESTS_KNOWN_MAX


def _repeatable(step: Step, row: InvocationRow) -> list[KnownRequest]:
    return [known for known in row.requests if step.now_ms <= known.issued_ms + REPLY_KEEP_MS]


def acted(step: Step, invocation_id: InvocationId, request: RequestId, issued_ms: Millis, done: Acted) -> None:
    """Answer, and remember the request, whatever it left of the invocation.

    A refusal is remembered too: what was refused once must not be done by the same request later, when the state
    is another. Those that say a detail are not: no later state changes them."""
    step.respond(request, done)
    if done.deed is Deed.UNFINISHED or done.detail:
        return
    known = KnownRequest(request, issued_ms, deed=done.deed, new_id=done.new_id)
    row: InvocationRow | None = step.tables.invocation(invocation_id)
    if row is None:
        lifecycle.keep_proof(step, invocation_id, [known], Failed(410, "gone"))
        return
    row.requests = [*_repeatable(step, row), known]
    if type(row) is Proof:
        step.tables.delete_expiry(row.drop_ms, invocation_id)
        lifecycle.keep_proof(step, invocation_id, row.requests, row.result, row.purged_ms)
    else:
        step.tables.put_invocation(invocation_id, row)

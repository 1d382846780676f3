"""● core · How an invocation comes to run and how it ends: the two moves that every cause shares."""

from __future__ import annotations

from perdure_processor.model.actions import Answered, StartAttempt
from perdure_processor.model.commands import Respond
from perdure_processor.model.ids import InvocationId, InvocationTarget, Millis, slot_of
from perdure_processor.model.limits import ANSWER_BYTES_PER_RECORD_MAX, ANSWERS_PER_RECORD_MAX
from perdure_processor.model.results import CallerSink, Failed, KnownRequest, RequestId, Result, Sink, Succeeded
from perdure_processor.model.schema import HandlerKind
from perdure_processor.state_machine import objects
from perdure_processor.state_machine.step import Step
from perdure_processor.storage import keys
from perdure_processor.storage.records import Completed, InvocationRow, Live, Status


def begin(step: Step, invocation_id: InvocationId, row: Live, input_frame: bytes | None = None) -> None:
    """Start the next attempt. Whatever the one before still reports is dropped from here on."""
    row.status = Status.INVOKED
    row.attempt += 1
    row.awaiting = None
    row.next_retry_ms = Millis(0)
    row.modified_ms = step.now_ms
    if not row.running_ms:
        row.running_ms = step.now_ms
    step.tables.put_active(invocation_id)
    step.tables.put_invocation(invocation_id, row)
    step.actions.append(StartAttempt(invocation_id, row.incarnation, row.attempt, input_frame, row))


def begin_in_turn(step: Step, invocation_id: InvocationId, row: Live, input_frame: bytes | None = None) -> None:
    """Start, or wait in the queue of the key."""
    if objects.holds_lock(row) and not objects.acquire(step, invocation_id, row):
        row.status = Status.INBOXED
        row.modified_ms = step.now_ms
        step.tables.put_invocation(invocation_id, row)
        return
    begin(step, invocation_id, row, input_frame)


def complete(step: Step, invocation_id: InvocationId, row: Live, result: Result) -> None:
    """End the invocation: answer whoever waits, keep what is to be kept, let the next one have the key."""
    tables = step.tables
    tables.seal_record(step.now_ms)
    tables.delete_active(invocation_id)
    for completion_id, deadline in row.open_sleeps:
        tables.delete_timer(keys.timer(deadline, invocation_id, keys.TIMER_SLEEP, completion_id))
    if row.next_retry_ms:
        tables.delete_timer(keys.timer(row.next_retry_ms, invocation_id, keys.TIMER_RETRY, 0))
    waiting = _answer(step, invocation_id, row.target, row.sinks, result)
    _keep(step, invocation_id, row, result, waiting)
    if objects.holds_lock(row):
        heir = objects.release(step, invocation_id, row)
        if heir is not None:
            heir_row = tables.invocation(heir)
            assert type(heir_row) is Live and heir_row.status is Status.INBOXED, "the queue holds only the waiting"
            begin(step, heir, heir_row)


def _answer(
    step: Step, invocation_id: InvocationId, target: InvocationTarget, sinks: list[Sink], result: Result
) -> list[Sink]:
    """Tell as many of those who wait as one record may; the others are told with the next ones (correctness 27)."""
    size = len(result.value) if type(result) is Succeeded else 0
    now = min(ANSWERS_PER_RECORD_MAX, ANSWER_BYTES_PER_RECORD_MAX // (size + 1) + 1)
    for sink in sinks[:now]:
        match sink:
            case RequestId():
                step.respond(sink, Answered(invocation_id, result, None, target))
            case CallerSink():
                step.deliver(slot_of(sink.id), Respond(sink, result))
    return sinks[now:]


def answer_on(step: Step, invocation_id: InvocationId, row: Completed) -> None:
    """Tell the next of those who wait."""
    row.waiting = _answer(step, invocation_id, row.target, row.waiting, row.result)
    step.tables.put_invocation(invocation_id, row)
    _then(step, invocation_id, row)


def _keep(step: Step, invocation_id: InvocationId, row: Live, result: Result, waiting: list[Sink]) -> None:
    """Turn the row into what its retention asks for; proof of a client's request is kept in any case."""
    now_ms = step.now_ms
    kept = kept_ms(row)
    journal_ms = min(row.journal_retention_ms, kept)
    segments = row.segments
    if journal_ms == 0:
        segments = drop_journal(step, invocation_id, segments)
    requests = _may_be_repeated(row, now_ms)
    is_workflow = row.handler_kind == HandlerKind.WORKFLOW
    if kept == 0 and not (requests or waiting or segments or is_workflow):
        step.tables.delete_invocation(invocation_id)
        return
    completed = Completed(
        row.incarnation,
        row.target,
        row.service_kind,
        row.handler_kind,
        row.idempotency_key,
        requests,
        row.parent,
        result,
        row.created_ms,
        row.running_ms,
        now_ms,
        Millis(min(now_ms + kept, keys.DEADLINE_MAX)),
        Millis(min(now_ms + journal_ms, keys.DEADLINE_MAX)),
        row.deployment_id,
        row.protocol_version,
        segments,
        row.entries,
        row.commands,
        row.journal_retention_ms,
        row.completion_retention_ms,
        waiting,
    )
    step.tables.put_invocation(invocation_id, completed)
    _then(step, invocation_id, completed)


def kept_ms(row: Live | Completed) -> int:
    """How long the result is kept: what nobody can attach to by a key goes with its journal."""
    return row.completion_retention_ms if can_be_named(row) else row.journal_retention_ms


def can_be_named(row: Live | Completed) -> bool:
    """Whether a client can name it by what it called: by idempotency key, or as a workflow."""
    return row.idempotency_key is not None or row.handler_kind == HandlerKind.WORKFLOW


def _then(step: Step, invocation_id: InvocationId, row: Completed) -> None:
    """What is next for an ended invocation: there are waiters left to tell, or something of it expires.

    One expiry row stands for the first thing that does; each expiry writes the next one (retention.py)."""
    if row.waiting:
        step.go_on(keys.timer(0, invocation_id, keys.TIMER_ANSWER, 0), row.incarnation)
    else:
        first_ms = min(row.journal_expires_ms, row.expires_ms) if row.segments else row.expires_ms
        step.tables.put_expiry(first_ms, invocation_id)


def _may_be_repeated(row: Live, ended_ms: Millis) -> list[KnownRequest]:
    """The requests to remember: whoever waited may ask again when the answer got lost on its way."""
    if len(row.requests) == 1 and row.sinks == [row.requests[0].request]:
        only = row.requests[0]  # by far the most: one client asked, and waits
        return [
            KnownRequest(only.request, max(only.issued_ms, ended_ms), only.previously, only.execution_ms, only.result)
        ]
    known = {
        each.request: each
        if each.result is not None
        else KnownRequest(each.request, max(each.issued_ms, ended_ms), each.previously, each.execution_ms)
        for each in row.requests
    }
    for sink in row.sinks:
        if type(sink) is RequestId and sink not in known:
            known[sink] = KnownRequest(sink, ended_ms)
    return list(known.values())


def known_request(row: InvocationRow, request: RequestId | None) -> KnownRequest | None:
    """What the row remembers of a request, if it was applied before."""
    if request is not None:
        for known in row.requests:
            if known.request == request:
                return known
    return None


def drop_journal(step: Step, invocation_id: InvocationId, segments: int) -> int:
    """Delete a journal's rows from its end, as many as this record may; how many are left."""
    left = max(0, segments - step.rows_left)
    step.rows_left -= segments - left
    step.tables.drop_journal(invocation_id, left, segments)
    return left


ALREADY_INVOKED = Failed(409, "the workflow method was already invoked")

"""● core · How an invocation comes to run and how it ends: the two moves that every cause shares."""

from __future__ import annotations

from perdure_processor.model.actions import Answered, StartAttempt
from perdure_processor.model.commands import KillCall, Respond
from perdure_processor.model.ids import CompletionId, Incarnation, InvocationId, InvocationTarget, Millis, slot_of
from perdure_processor.model.limits import (
    ANSWER_BYTES_PER_RECORD_MAX,
    ANSWERS_PER_RECORD_MAX,
    EVENTS_MAX,
    KILLS_PER_RECORD_MAX,
    REPLY_KEEP_MS,
)
from perdure_processor.model.results import CallerSink, Failed, KnownRequest, RequestId, Result, Sink, Succeeded
from perdure_processor.model.schema import HandlerKind
from perdure_processor.state_machine import objects
from perdure_processor.state_machine.step import Step
from perdure_processor.storage import keys
from perdure_processor.storage.records import Completed, InvocationRow, Live, Proof, Status


def begin(step: Step, invocation_id: InvocationId, row: Live, input_frame: bytes | None = None) -> None:
    """Start the next attempt. Whatever the one before still reports is dropped from here on."""
    row.status = Status.INVOKED
    row.attempt += 1
    row.awaiting = None
    row.next_retry_ms = Millis(0)
    row.pausing = False
    row.modified_ms = step.now_ms
    if not row.running_ms:
        row.running_ms = step.now_ms
    step.tables.put_active(invocation_id)
    step.tables.put_invocation(invocation_id, row)
    step.actions.append(StartAttempt(invocation_id, row.incarnation, row.attempt, input_frame, row))


def begin_now(step: Step, invocation_id: InvocationId, row: Live) -> None:
    """Start the next attempt of one that was to wait for it: paused, or backing off."""
    drop_retry(step, invocation_id, row)
    begin(step, invocation_id, row)


def drop_retry(step: Step, invocation_id: InvocationId, row: Live) -> None:
    """There will be no attempt at the end of the back-off."""
    if row.next_retry_ms:
        step.tables.delete_timer(keys.timer(row.next_retry_ms, invocation_id, keys.TIMER_RETRY, 0))
        row.next_retry_ms = Millis(0)


def begin_in_turn(step: Step, invocation_id: InvocationId, row: Live, input_frame: bytes | None = None) -> None:
    """Start, or wait in the queue of the key."""
    if objects.holds_lock(row) and not objects.acquire(step, invocation_id, row):
        row.status = Status.INBOXED
        row.modified_ms = step.now_ms
        step.tables.put_invocation(invocation_id, row)
        return
    begin(step, invocation_id, row, input_frame)


def complete(
    step: Step,
    invocation_id: InvocationId,
    row: Live,
    result: Result,
    to_kill: list[tuple[bytes, int]] | None = None,
) -> None:
    """End the invocation: answer whoever waits, keep what is to be kept, let the next one have the key.

    `to_kill` are the calls that end with it: (callee, completion id)."""
    tables = step.tables
    tables.seal_record(step.now_ms)
    tables.delete_active(invocation_id)
    # No attempt is current any more: the leader acts after the commit, and shall not perform a start that this
    # very batch asked for, from a journal that may be gone by then (correctness 1).
    row.attempt += 1
    for completion_id, deadline in row.open_sleeps:
        tables.delete_timer(keys.timer(deadline, invocation_id, keys.TIMER_SLEEP, completion_id))
    drop_retry(step, invocation_id, row)
    left_to_kill = _kill_callees(step, invocation_id, row.incarnation, to_kill) if to_kill else []
    waiting = _answer(step, invocation_id, row.target, row.sinks, result)
    _keep(step, invocation_id, row, result, waiting, left_to_kill)
    if objects.holds_lock(row):
        _begin_heir(step, objects.release(step, invocation_id, row))


def pass_on(step: Step, invocation_id: InvocationId, suffix: bytes) -> None:
    """Apply the next state patches of a key that nobody holds, then let the next one have it."""
    _begin_heir(step, objects.pass_on(step, invocation_id, suffix))


def _begin_heir(step: Step, heir: InvocationId | None) -> None:
    if heir is not None:
        row = step.tables.invocation(heir)
        assert type(row) is Live and row.status is Status.INBOXED, "the queue holds only the waiting"
        begin(step, heir, row)


def end_unstarted(step: Step, invocation_id: InvocationId, row: Live, result: Failed) -> None:
    """End one that never began: whoever waits is told, and nothing is kept but the proof of its requests."""
    tables = step.tables
    tables.seal_record(step.now_ms)
    if row.status is Status.SCHEDULED:
        tables.delete_timer(keys.timer(row.execution_ms, invocation_id, keys.TIMER_START, 0))
    else:
        assert row.status is Status.INBOXED, f"{row.target} has begun"
        tables.delete_inbox(objects.suffix_of(invocation_id, row.target), row.inbox_sequence)
    waiting = _answer(step, invocation_id, row.target, row.sinks, result)
    if waiting:
        row.journal_retention_ms = row.completion_retention_ms = 0
        _keep(step, invocation_id, row, result, waiting, [])
        return
    tables.drop_journal(invocation_id, 0, row.segments)
    tables.delete_invocation(invocation_id)
    purged_ms = step.now_ms if can_be_named(row) else Millis(0)
    keep_proof(step, invocation_id, _may_be_repeated(row, step.now_ms), result, purged_ms)


def forget(step: Step, invocation_id: InvocationId, row: Completed) -> None:
    """Drop an ended invocation whose journal is gone, but for the proof of its requests (correctness 3)."""
    assert not row.segments
    # One of the two: the journal may have gone before its time.
    step.tables.delete_expiry(row.journal_expires_ms, invocation_id)
    step.tables.delete_expiry(row.expires_ms, invocation_id)
    step.tables.delete_invocation(invocation_id)
    keep_proof(step, invocation_id, row.requests, row.result, step.now_ms if can_be_named(row) else Millis(0))


def keep_proof(
    step: Step,
    invocation_id: InvocationId,
    requests: list[KnownRequest],
    result: Result,
    purged_ms: Millis = Millis(0),
) -> None:
    """Whoever may still repeat one of these gets the same answer, although there is nothing left to see."""
    if requests or purged_ms:
        drop_ms = Millis(max(proven_ms(requests), purged_ms + REPLY_KEEP_MS if purged_ms else 0))
        step.tables.put_invocation(invocation_id, Proof(requests, result, drop_ms, purged_ms))
        step.tables.put_expiry(drop_ms, invocation_id)


def proven_ms(requests: list[KnownRequest]) -> int:
    """Until when one of these requests may be repeated."""
    return max((known.issued_ms for known in requests), default=0) + REPLY_KEEP_MS


def _kill_callees(
    step: Step, invocation_id: InvocationId, incarnation: Incarnation, to_kill: list[tuple[bytes, int]]
) -> list[tuple[bytes, int]]:
    """Kill as many of the calls as one record may; the others go with the next ones (correctness 27)."""
    now = min(KILLS_PER_RECORD_MAX, max(1, step.rows_left))
    for callee, completion_id in to_kill[:now]:
        caller = CallerSink(invocation_id, incarnation, CompletionId(completion_id))
        step.deliver(slot_of(InvocationId(callee)), KillCall(InvocationId(callee), caller))
    step.rows_left -= min(now, len(to_kill))
    return to_kill[now:]


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
    """Kill the next calls of a killed one, or tell the next of those who wait."""
    if row.to_kill:
        row.to_kill = _kill_callees(step, invocation_id, row.incarnation, row.to_kill)
    row.waiting = _answer(step, invocation_id, row.target, row.waiting, row.result)
    step.tables.put_invocation(invocation_id, row)
    _then(step, invocation_id, row)


def _keep(
    step: Step,
    invocation_id: InvocationId,
    row: Live,
    result: Result,
    waiting: list[Sink],
    to_kill: list[tuple[bytes, int]],
) -> None:
    """Turn the row into what its retention asks for; proof of a client's request is kept in any case."""
    now_ms = step.now_ms
    kept = kept_ms(row)
    journal_ms = min(row.journal_retention_ms, kept)
    segments = row.segments
    if journal_ms == 0:
        segments = drop_journal(step, invocation_id, segments, row.events)
        if not segments:
            row.events = 0
    requests = _may_be_repeated(row, now_ms)
    is_workflow = row.handler_kind == HandlerKind.WORKFLOW
    if kept == 0 and not (requests or waiting or segments or to_kill or is_workflow):
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
        row.events,
        row.restarted_from,
        to_kill,
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
    if row.waiting or row.to_kill:
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
        if each.result is not None or each.deed is not None
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


def drop_journal(step: Step, invocation_id: InvocationId, segments: int, events: int) -> int:
    """Delete a journal's rows from its end, as many as this record may, its events last; how many are left."""
    left = max(0, segments - max(step.rows_left, 0))
    step.rows_left -= segments - left
    step.tables.drop_journal(invocation_id, left, segments)
    if events and not left:
        step.rows_left -= min(events, EVENTS_MAX)
        step.tables.drop_events(invocation_id, events)
    return left


ALREADY_INVOKED = Failed(409, "the workflow method was already invoked")

"""● core · Invoke, Attach, GetOutput: once, later, or now."""

from __future__ import annotations

from perdure_processor.model.actions import (
    Answer,
    Answered,
    Crowded,
    Expired,
    Missing,
    Running,
    SetTimer,
    Taken,
    Unkept,
)
from perdure_processor.model.commands import Ask, Attach, GetOutput, Invoke, Respond
from perdure_processor.model.ids import Incarnation, InvocationId, Millis, slot_of
from perdure_processor.model.limits import REPLY_KEEP_MS, REQUEST_HORIZON_MS, REQUESTS_KNOWN_MAX, SINKS_MAX
from perdure_processor.model.results import CallerSink, Failed, KnownRequest, RequestId, Result, Sink, SinkKind
from perdure_processor.model.schema import HandlerKind
from perdure_processor.state_machine import lifecycle
from perdure_processor.state_machine.lifecycle import known_request
from perdure_processor.state_machine.step import Step
from perdure_processor.storage import keys
from perdure_processor.storage.records import Completed, InvocationRow, Live, Proof, Status

NOT_FOUND = Failed(404, "not found")


def on_invoke(step: Step, invoke: Invoke) -> None:
    """Create the invocation, or join the one that its id names already."""
    if invoke.request is not None and step.now_ms > invoke.issued_ms + REQUEST_HORIZON_MS:
        step.respond(invoke.request, Expired())
        return
    row = step.tables.invocation(invoke.id)
    if row is None:
        _create(step, invoke, [])
    elif (known := known_request(row, invoke.request)) is not None:
        _answer_again(step, invoke, row, known)
    elif type(row) is Proof:
        _create_after(step, invoke, row)
    else:
        assert type(row) is Live or type(row) is Completed
        _join(step, invoke, row)


def on_attach(step: Step, attach: Attach) -> None:
    """Answer when the invocation ends, or now if it has."""
    if step.now_ms > attach.issued_ms + REQUEST_HORIZON_MS:
        step.respond(attach.request, Expired())
        return
    row = step.tables.invocation(attach.id)
    if type(row) is Live and _earlier_result(row, attach.request) is None:
        _wait(step, attach.id, row, attach.request)
    else:
        step.respond(attach.request, _ended(attach.id, row, attach.request))


def on_get_output(step: Step, query: GetOutput) -> None:
    """Answer now with the result, or with why there is none."""
    row = step.tables.invocation(query.id)
    if type(row) is Live:
        step.respond(query.request, Running() if lifecycle.can_be_named(row) else Unkept())
    elif type(row) is Completed and not lifecycle.can_be_named(row):
        step.respond(query.request, Unkept())
    else:
        step.respond(query.request, _ended(query.id, row, query.request))


def on_ask(step: Step, ask: Ask) -> None:
    """A handler attaches, or looks whether there is an output."""
    row = step.tables.invocation(ask.id)
    sink = ask.sink
    if type(row) is Live and sink.kind == SinkKind.ATTACH:
        _wait(step, ask.id, row, sink)
        return
    result: Result | None = NOT_FOUND
    if type(row) is Live:
        result = None
    elif type(row) is Completed:
        result = row.result
    step.deliver(slot_of(sink.id), Respond(sink, result))


def _create_after(step: Step, invoke: Invoke, proof: Proof) -> None:
    """The id is free again; the new life answers for the requests of earlier ones as long as they may be repeated."""
    if invoke.request is not None and invoke.issued_ms < proof.purged_ms:
        # The row may have answered it before it was purged, so it does not count as one that came after.
        is_workflow = invoke.handler_kind == HandlerKind.WORKFLOW
        if invoke.one_way:
            step.respond(invoke.request, Taken(invoke.id, True, Millis(0)))
        else:
            answer = lifecycle.ALREADY_INVOKED if is_workflow else proof.result
            step.respond(invoke.request, Answered(invoke.id, answer, None))
        return
    earlier = [
        KnownRequest(
            known.request,
            known.issued_ms,
            known.previously,
            known.execution_ms,
            known.result or proof.result,
            known.deed,
            known.new_id,
        )
        for known in proof.requests
        if step.now_ms <= known.issued_ms + REPLY_KEEP_MS
    ]
    if len(earlier) >= REQUESTS_KNOWN_MAX:
        if invoke.request is not None:
            step.respond(invoke.request, Crowded())
        elif invoke.caller is not None:
            _tell(step, invoke.id, invoke.caller, Failed(429, f"{invoke.target} was called too often lately"))
        return
    step.tables.delete_expiry(proof.drop_ms, invoke.id)
    _create(step, invoke, earlier)


def _create(step: Step, invoke: Invoke, earlier: list[KnownRequest]) -> None:
    requests = earlier
    if invoke.request is not None:
        requests = [KnownRequest(invoke.request, invoke.issued_ms, False, invoke.execution_ms), *earlier]
    row = Live(
        Status.SCHEDULED,
        Incarnation(step.offset),
        0,
        invoke.target,
        invoke.service_kind,
        invoke.handler_kind,
        invoke.idempotency_key,
        requests,
        invoke.parent,
        [],
        invoke.journal_retention_ms,
        invoke.completion_retention_ms,
        step.now_ms,
        step.now_ms,
        execution_ms=invoke.execution_ms,
    )
    if not invoke.one_way:
        row.sinks.append(_waiter(invoke))
    step.tables.append_entry(invoke.id, row, invoke.input, is_command=True)
    if invoke.execution_ms:
        key = keys.timer(invoke.execution_ms, invoke.id, keys.TIMER_START, 0)
        step.tables.put_timer(key, row.incarnation)
        step.tables.put_invocation(invoke.id, row)
        step.actions.append(SetTimer(invoke.execution_ms))
    else:
        lifecycle.begin_in_turn(step, invoke.id, row, invoke.input)
    if invoke.one_way:
        step.respond(invoke.request, Taken(invoke.id, False, invoke.execution_ms))


def _join(step: Step, invoke: Invoke, row: Live | Completed) -> None:
    refused = lifecycle.ALREADY_INVOKED if row.handler_kind == HandlerKind.WORKFLOW and not invoke.one_way else None
    if not invoke.one_way and refused is None and type(row) is Live:
        _wait(step, invoke.id, row, _waiter(invoke))
    elif not _remember(step, invoke, row, refused):
        step.respond(invoke.request, Crowded())
    elif invoke.one_way:
        step.respond(invoke.request, Taken(invoke.id, True, _execution_ms(row)))
    elif refused is not None:
        _tell(step, invoke.id, _waiter(invoke), refused)
    else:
        assert type(row) is Completed
        sink = _waiter(invoke)
        if type(sink) is RequestId:
            step.respond(sink, Answered(invoke.id, row.result, row.expires_ms))
        else:
            _tell(step, invoke.id, sink, row.result)


def _waiter(invoke: Invoke) -> Sink:
    sink = invoke.request or invoke.caller
    assert sink is not None, "a call has somebody who waits"
    return sink


def _remember(step: Step, invoke: Invoke, row: Live | Completed, answer: Result | None) -> bool:
    """Have the row remember a request that joined it; False when it remembers too many.

    Where the row outlives the time in which the request may be repeated, it gives the same answer anyway."""
    request = invoke.request
    if request is None:
        return True
    expires_ms = row.expires_ms if type(row) is Completed else step.now_ms + lifecycle.kept_ms(row)
    if expires_ms > invoke.issued_ms + REQUEST_HORIZON_MS:
        return True
    known = [each for each in row.requests if step.now_ms <= each.issued_ms + REPLY_KEEP_MS]
    if len(known) >= REQUESTS_KNOWN_MAX:
        return False
    row.requests = [*known, KnownRequest(request, invoke.issued_ms, True, _execution_ms(row), answer)]
    step.tables.put_invocation(invoke.id, row)
    return True


def _answer_again(step: Step, invoke: Invoke, row: InvocationRow, known: KnownRequest) -> None:
    """The same request once more: nothing changes, and the answer is the first one."""
    if invoke.one_way:
        step.respond(invoke.request, Taken(invoke.id, known.previously, known.execution_ms))
    elif known.result is not None:
        step.respond(invoke.request, Answered(invoke.id, known.result, None))
    elif isinstance(row, Live):
        _wait(step, invoke.id, row, known.request)
    else:
        step.respond(invoke.request, Answered(invoke.id, row.result, None))


def _wait(step: Step, invocation_id: InvocationId, row: Live, sink: Sink) -> None:
    """Add a waiter, once however often it asks."""
    if sink in row.sinks:
        return
    if len(row.sinks) >= SINKS_MAX:
        if type(sink) is RequestId:
            step.respond(sink, Crowded())
        else:
            _tell(step, invocation_id, sink, Failed(429, f"{SINKS_MAX} others wait for {row.target} already"))
        return
    row.sinks.append(sink)
    step.tables.put_invocation(invocation_id, row)


def _tell(step: Step, invocation_id: InvocationId, sink: Sink, result: Result) -> None:
    match sink:
        case RequestId():
            step.respond(sink, Answered(invocation_id, result, None))
        case CallerSink():
            step.deliver(slot_of(sink.id), Respond(sink, result))


def _ended(invocation_id: InvocationId, row: InvocationRow | None, request: RequestId) -> Answer:
    earlier = _earlier_result(row, request)
    if earlier is not None:
        return Answered(invocation_id, earlier, None)
    if type(row) is Completed:
        return Answered(invocation_id, row.result, row.expires_ms, row.target)
    if type(row) is Proof and known_request(row, request) is not None:
        return Answered(invocation_id, row.result, None)
    return Missing()


def _earlier_result(row: InvocationRow | None, request: RequestId) -> Result | None:
    """How the life of this id ended that the request belongs to, if it is not the present one."""
    known = None if row is None else known_request(row, request)
    return None if known is None else known.result


def _execution_ms(row: InvocationRow) -> Millis:
    return row.execution_ms if type(row) is Live else Millis(0)

"""● core · Notifications: what reaches a handler from outside its attempt; stored, then forwarded or woken for."""

from __future__ import annotations

from perdure.protocol import framing, messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import HEADER_BYTES, MessageType
from perdure.protocol.messages import SIGNAL_INDEX_MIN
from perdure_processor.model.actions import Expired, ForwardNotification, Taken
from perdure_processor.model.commands import Respond, Signal
from perdure_processor.model.futures import Lookup, Outcome, resolve, signal_leaf
from perdure_processor.model.ids import CompletionId, InvocationId, Millis
from perdure_processor.model.limits import REPLY_KEEP_MS, REQUEST_HORIZON_MS
from perdure_processor.model.results import Failed, KnownRequest, Result, SinkKind, Succeeded
from perdure_processor.state_machine import lifecycle
from perdure_processor.state_machine.step import Step
from perdure_processor.storage.records import Live, Status

_COMPLETED_BY: dict[int, MessageType] = {
    SinkKind.CALL: MessageType.CALL_COMPLETION_NOTIFICATION,
    SinkKind.ATTACH: MessageType.ATTACH_INVOCATION_COMPLETION_NOTIFICATION,
    SinkKind.OUTPUT: MessageType.GET_INVOCATION_OUTPUT_COMPLETION_NOTIFICATION,
    SinkKind.PROMISE: MessageType.GET_PROMISE_COMPLETION_NOTIFICATION,
}


def add(
    step: Step,
    invocation_id: InvocationId,
    row: Live,
    frame: bytes,
    leaf: int | str,
    outcome: Outcome,
    ack: CompletionId | None = None,
) -> None:
    """Store a notification; forward it to the running attempt, or wake the handler that waits for it.

    `leaf` is how a future names it: a completion id, a signal leaf, or a signal's name."""
    index = step.tables.append_entry(invocation_id, row, frame, is_command=False)
    row.modified_ms = step.now_ms
    step.tables.put_invocation(invocation_id, row)
    if row.status is Status.INVOKED:
        if not row.next_retry_ms:  # else no attempt runs: the next one finds it in the journal
            step.actions.append(ForwardNotification(invocation_id, row.attempt, index, frame, ack))
    elif row.status is Status.SUSPENDED:
        assert row.awaiting is not None, "the suspended wait for something"
        left = resolve(row.awaiting, lambda known: outcome if known == leaf else None)
        if isinstance(left, Outcome):
            lifecycle.begin(step, invocation_id, row)
        else:
            row.awaiting = left


def complete(
    step: Step, invocation_id: InvocationId, row: Live, kind: MessageType, completion_id: CompletionId, result: Result
) -> None:
    """Store the result of one completable command."""
    match result:
        case Succeeded():
            frame = messages.value_notification(kind, completion_id, result.value)
            outcome = Outcome.SUCCESS
        case Failed():
            frame = messages.failure_notification(
                kind, completion_id, result.code, result.message, result.metadata if row.protocol_version != 5 else {}
            )
            outcome = Outcome.FAILURE
    add(step, invocation_id, row, frame, completion_id, outcome)


def on_respond(step: Step, respond: Respond) -> None:
    """What a handler waits for comes home; dropped when that handler's life is over (correctness 2)."""
    sink = respond.sink
    row = step.tables.invocation(sink.id)
    if type(row) is not Live or row.incarnation != sink.incarnation:
        return
    kind = _COMPLETED_BY[sink.kind]
    if respond.result is None:
        void = messages.void_notification(kind, sink.completion_id)
        add(step, sink.id, row, void, sink.completion_id, Outcome.SUCCESS)
    else:
        complete(step, sink.id, row, kind, sink.completion_id, respond.result)


def on_sleep_over(step: Step, invocation_id: InvocationId, row: Live, completion_id: int, deadline: int) -> None:
    """A sleep's time has come."""
    if (completion_id, deadline) in row.open_sleeps:
        row.open_sleeps.remove((completion_id, deadline))
    frame = messages.void_notification(MessageType.SLEEP_COMPLETION_NOTIFICATION, completion_id)
    add(step, invocation_id, row, frame, completion_id, Outcome.SUCCESS)


def on_signal(step: Step, signal: Signal) -> None:
    """Deliver a signal to a handler that has begun; others never see it. An awakeable completes once."""
    request = signal.request
    if request is not None:
        if step.now_ms > signal.issued_ms + REQUEST_HORIZON_MS:
            step.respond(request, Expired())
            return
        step.respond(request, Taken(signal.id, False, Millis(0)))
    row = step.tables.invocation(signal.id)
    if type(row) is not Live or row.status in (Status.SCHEDULED, Status.INBOXED):
        return
    outcome = outcome_of(signal.frame)
    if isinstance(signal.signal, int) and signal.signal >= SIGNAL_INDEX_MIN:
        if signal.signal in row.signals:
            return
        row.signals.append(signal.signal)
    elif request is not None:
        # These may come more than once, but each request of a client once (correctness 3).
        if lifecycle.known_request(row, request) is not None:
            return
        row.requests = [known for known in row.requests if step.now_ms <= known.issued_ms + REPLY_KEEP_MS]
        row.requests.append(KnownRequest(request, signal.issued_ms))
    leaf = signal.signal if isinstance(signal.signal, str) else signal_leaf(signal.signal)
    add(step, signal.id, row, signal.frame, leaf, outcome)


def known(step: Step, invocation_id: InvocationId, row: Live) -> Lookup:
    """Every notification in the journal, to hold a suspension against (correctness 5)."""
    outcomes: dict[int | str, Outcome] = {}
    for _, _, frames in step.tables.journal_segments(invocation_id, row.segments):
        for kind, _, payload in framing.iter_frames(frames):
            if not framing.is_notification(kind):
                continue
            message = pb.Notification.FromString(payload)
            outcome = Outcome.FAILURE if message.HasField("failure") else Outcome.SUCCESS
            match message.WhichOneof("id"):
                case "completion_id":
                    outcomes[message.completion_id] = outcome
                case "signal_id":
                    outcomes[signal_leaf(message.signal_id)] = outcome
                case _:
                    outcomes[message.signal_name] = outcome
    return outcomes.get


def outcome_of(frame: bytes) -> Outcome:
    """Whether a notification's frame carries a failure."""
    failed = pb.Notification.FromString(frame[HEADER_BYTES:]).HasField("failure")
    return Outcome.FAILURE if failed else Outcome.SUCCESS

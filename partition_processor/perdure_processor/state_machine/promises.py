"""● core · Durable promises of a workflow: completed once, from either side, and known to whoever asks.

They belong to the workflow's key, not to its run: they may be completed before the run begins, and they go
with the run's result.
"""

from __future__ import annotations

import hashlib

from perdure.protocol import messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import HEADER_BYTES, MessageType, message_name
from perdure_processor.model.commands import Respond
from perdure_processor.model.effects import PromiseUsed
from perdure_processor.model.futures import Outcome
from perdure_processor.model.ids import CompletionId, InvocationId, slot_of
from perdure_processor.model.limits import ANSWER_BYTES_PER_RECORD_MAX, ANSWERS_PER_RECORD_MAX, PROMISE_WAITERS_MAX
from perdure_processor.model.results import CallerSink, Failed, Result, SinkKind, Succeeded
from perdure_processor.state_machine import notifications, objects
from perdure_processor.state_machine.step import Step
from perdure_processor.storage import keys
from perdure_processor.storage.records import Live, PromiseRow

ALREADY_COMPLETED = Failed(409, "promise was already completed")
# The result of the run expired, or an operator purged it, or the promises of a key that never ran.
DROPPED = Failed(410, "the promise was dropped, with all that was kept of its workflow")


def on_used(step: Step, invocation_id: InvocationId, row: Live, effect: PromiseUsed) -> None:
    """Get, peek or complete a promise of the handler's workflow."""
    suffix = objects.suffix_of(invocation_id, row.target)
    frame = effect.frame
    step.tables.append_entry(invocation_id, row, frame, is_command=True)
    match int.from_bytes(frame[:2], "big"):
        case MessageType.GET_PROMISE_COMMAND:
            name = pb.GetPromiseCommandMessage.FromString(frame[HEADER_BYTES:]).key
            _get(step, invocation_id, row, keys.promise(suffix, name), name, effect.completion_id)
        case MessageType.PEEK_PROMISE_COMMAND:
            name = pb.PeekPromiseCommandMessage.FromString(frame[HEADER_BYTES:]).key
            promise = step.tables.promise(keys.promise(suffix, name))
            result = None if promise is None else promise.result
            _tell(
                step, invocation_id, row, MessageType.PEEK_PROMISE_COMPLETION_NOTIFICATION, effect.completion_id, result
            )
        case MessageType.COMPLETE_PROMISE_COMMAND:
            _complete(step, invocation_id, row, suffix, effect)
        case other:
            raise AssertionError(f"{message_name(other)} does not use a promise")


def _get(
    step: Step, invocation_id: InvocationId, row: Live, place: bytes, name: str, completion_id: CompletionId
) -> None:
    promise = step.tables.promise(place) or PromiseRow(None)
    answer = promise.result
    if answer is None and len(promise.waiting) >= PROMISE_WAITERS_MAX:
        # Those that were killed meanwhile left their place behind.
        promise.waiting = [sink for sink in promise.waiting if _still_waits(step, sink)]
        step.rows_left -= PROMISE_WAITERS_MAX
    if answer is None and len(promise.waiting) >= PROMISE_WAITERS_MAX:
        answer = Failed(429, f"{PROMISE_WAITERS_MAX} handlers wait for the promise '{name}' already")
    if answer is not None:
        kind = MessageType.GET_PROMISE_COMPLETION_NOTIFICATION
        notifications.complete(step, invocation_id, row, kind, completion_id, answer)
        return
    promise.waiting.append(CallerSink(invocation_id, row.incarnation, completion_id, SinkKind.PROMISE))
    step.tables.put_promise(place, promise)


def _complete(step: Step, invocation_id: InvocationId, row: Live, suffix: bytes, effect: PromiseUsed) -> None:
    message = pb.CompletePromiseCommandMessage.FromString(effect.frame[HEADER_BYTES:])
    place = keys.promise(suffix, message.key)
    promise = step.tables.promise(place)
    kind = MessageType.COMPLETE_PROMISE_COMPLETION_NOTIFICATION
    if promise is not None and promise.result is not None:
        notifications.complete(step, invocation_id, row, kind, effect.completion_id, ALREADY_COMPLETED)
        return
    result: Result
    if message.HasField("completion_failure"):
        failure = message.completion_failure
        metadata = {entry.key: entry.value for entry in failure.metadata}
        result = Failed(messages.failure_code(failure.code), failure.message, metadata)
    else:
        result = Succeeded(message.completion_value.content)
    _tell(step, invocation_id, row, kind, effect.completion_id, None)
    waiting = [] if promise is None else promise.waiting
    _tell_and_go_on(step, _timer(invocation_id, place), place, PromiseRow(result, waiting), result)


def _tell(
    step: Step,
    invocation_id: InvocationId,
    row: Live,
    kind: MessageType,
    completion_id: CompletionId,
    result: Result | None,
) -> None:
    if result is None:
        void = messages.void_notification(kind, completion_id)
        notifications.add(step, invocation_id, row, void, completion_id, Outcome.SUCCESS)
    else:
        notifications.complete(step, invocation_id, row, kind, completion_id, result)


def drop(step: Step, invocation_id: InvocationId, workflow: str, key: str) -> bool:
    """Delete the promises of a key, as many as this record may; False when some are left (correctness 27).

    Whoever waits for one is told: it can no longer be completed."""
    tables = step.tables
    suffix = keys.object_suffix(invocation_id, workflow, key)
    for place, promise in tables.promises(suffix, max(step.rows_left, 0)):
        step.rows_left -= 1
        _tell_waiting(step, promise, promise.result or DROPPED)
        if promise.waiting:
            tables.put_promise(place, promise)
            return False
        tables.delete_promise(place)
    return step.rows_left > 0


def tell_on(step: Step, timer_key: bytes, place: bytes) -> None:
    """Tell the next of those who wait for a completed promise, unless it was dropped meanwhile."""
    promise = step.tables.promise(place)
    if promise is not None:
        assert promise.result is not None, "only of a completed promise is somebody left to tell"
        _tell_and_go_on(step, timer_key, place, promise, promise.result)


def _tell_and_go_on(step: Step, timer_key: bytes, place: bytes, promise: PromiseRow, result: Result) -> None:
    _tell_waiting(step, promise, result)
    step.tables.put_promise(place, promise)
    if promise.waiting:
        step.go_on(timer_key, 0, place)


def _tell_waiting(step: Step, promise: PromiseRow, result: Result) -> None:
    """As many as one record may: each of them gets the value into its journal (correctness 27)."""
    size = len(result.value) if type(result) is Succeeded else 0
    now = min(ANSWERS_PER_RECORD_MAX, ANSWER_BYTES_PER_RECORD_MAX // (size + 1) + 1)
    for sink in promise.waiting[:now]:
        step.deliver(slot_of(sink.id), Respond(sink, result))
    step.rows_left -= min(now, len(promise.waiting))
    promise.waiting = promise.waiting[now:]


def _timer(invocation_id: InvocationId, place: bytes) -> bytes:
    """Where telling goes on: one timer for each promise, in the slot of its key."""
    subject = InvocationId(invocation_id[:8] + hashlib.sha256(place).digest()[:16])
    return keys.timer(0, subject, keys.TIMER_PROMISE, 0)


def _still_waits(step: Step, sink: CallerSink) -> bool:
    row = step.tables.invocation(sink.id)
    return type(row) is Live and row.incarnation == sink.incarnation

"""● core · One function per kind of journal entry: apply its effect, store it, then its immediate completions."""

from __future__ import annotations

from perdure.protocol import ids, messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import HEADER_BYTES, MessageType, message_name
from perdure_processor.model.actions import SetTimer
from perdure_processor.model.commands import Ask, Invoke, Signal
from perdure_processor.model.effects import (
    Called,
    InvocationAsked,
    OutputSet,
    RunCompleted,
    RunStarted,
    SignalSent,
    SleepStarted,
    StateRead,
    StateSet,
)
from perdure_processor.model.futures import Outcome
from perdure_processor.model.ids import CompletionId, InvocationId, InvocationTarget, Millis, slot_of
from perdure_processor.model.limits import SLEEPS_LISTED_MAX
from perdure_processor.model.results import CallerSink, Failed, Parent, SinkKind, Succeeded
from perdure_processor.state_machine import notifications, objects
from perdure_processor.state_machine.step import Step
from perdure_processor.storage import keys
from perdure_processor.storage.records import Live


def on_output(step: Step, invocation_id: InvocationId, row: Live, effect: OutputSet) -> None:
    message = pb.OutputCommandMessage.FromString(effect.frame[HEADER_BYTES:])
    if message.HasField("failure"):
        failure = message.failure
        metadata = {entry.key: entry.value for entry in failure.metadata}
        row.result = Failed(messages.failure_code(failure.code), failure.message, metadata)
    else:
        row.result = Succeeded(message.value.content)
    step.tables.append_entry(invocation_id, row, effect.frame, is_command=True)


def on_state_set(step: Step, invocation_id: InvocationId, row: Live, effect: StateSet) -> None:
    suffix = objects.suffix_of(invocation_id, row.target)
    frame = effect.frame
    match _type_of(frame):
        case MessageType.SET_STATE_COMMAND:
            put = pb.SetStateCommandMessage.FromString(frame[HEADER_BYTES:])
            step.tables.put_state(suffix, put.key, put.value.content)
        case MessageType.CLEAR_STATE_COMMAND:
            step.tables.delete_state(suffix, pb.ClearStateCommandMessage.FromString(frame[HEADER_BYTES:]).key)
        case MessageType.CLEAR_ALL_STATE_COMMAND:
            objects.clear_state(step, invocation_id, row.target)
        case other:
            raise AssertionError(f"{message_name(other)} does not set state")
    step.tables.append_entry(invocation_id, row, frame, is_command=True)


def on_state_read(step: Step, invocation_id: InvocationId, row: Live, effect: StateRead) -> None:
    """A lazy read sees the state as of its place in the journal."""
    suffix = objects.suffix_of(invocation_id, row.target)
    frame = effect.frame
    step.tables.append_entry(invocation_id, row, frame, is_command=True)
    if _type_of(frame) == MessageType.GET_LAZY_STATE_COMMAND:
        read = pb.GetLazyStateCommandMessage.FromString(frame[HEADER_BYTES:])
        completion_id = read.result_completion_id
        found = step.tables.state(suffix, read.key)
        if found is None:
            answer = messages.void_notification(MessageType.GET_LAZY_STATE_COMPLETION_NOTIFICATION, completion_id)
        else:
            answer = messages.value_notification(
                MessageType.GET_LAZY_STATE_COMPLETION_NOTIFICATION, completion_id, found
            )
    else:
        completion_id = pb.GetLazyStateKeysCommandMessage.FromString(frame[HEADER_BYTES:]).result_completion_id
        answer = messages.state_keys_notification(completion_id, step.tables.state_keys(suffix))
    notifications.add(step, invocation_id, row, answer, completion_id, Outcome.SUCCESS)


def on_run_started(step: Step, invocation_id: InvocationId, row: Live, effect: RunStarted) -> None:
    row.open_runs.append(effect.completion_id)
    step.tables.append_entry(invocation_id, row, effect.frame, is_command=True)


def on_run_completed(step: Step, invocation_id: InvocationId, row: Live, effect: RunCompleted) -> None:
    """The closure's result is recorded: from here on it never runs again."""
    if effect.completion_id in row.open_runs:
        row.open_runs.remove(effect.completion_id)
    outcome = notifications.outcome_of(effect.frame)
    ack = effect.completion_id if effect.ack_wanted else None
    notifications.add(step, invocation_id, row, effect.frame, effect.completion_id, outcome, ack)


def on_sleep(step: Step, invocation_id: InvocationId, row: Live, effect: SleepStarted) -> None:
    step.tables.append_entry(invocation_id, row, effect.frame, is_command=True)
    deadline = Millis(min(effect.wake_up_ms, keys.DEADLINE_MAX))
    if len(row.open_sleeps) < SLEEPS_LISTED_MAX:
        row.open_sleeps.append((effect.completion_id, deadline))
    key = keys.timer(deadline, invocation_id, keys.TIMER_SLEEP, effect.completion_id)
    step.tables.put_timer(key, row.incarnation)
    step.actions.append(SetTimer(deadline))


def on_call(step: Step, invocation_id: InvocationId, row: Live, effect: Called) -> None:
    """Enqueue the callee and tell the handler its id; the result of a call comes home later."""
    frame = effect.frame
    if _type_of(frame) == MessageType.CALL_COMMAND:
        call = pb.CallCommandMessage.FromString(frame[HEADER_BYTES:])
        execution_ms, one_way = 0, False
        caller = CallerSink(invocation_id, row.incarnation, CompletionId(call.result_completion_id))
        message: pb.CallCommandMessage | pb.OneWayCallCommandMessage = call
    else:
        message = send = pb.OneWayCallCommandMessage.FromString(frame[HEADER_BYTES:])
        execution_ms, one_way, caller = min(send.invoke_time, keys.DEADLINE_MAX), True, None
    target = InvocationTarget(message.service_name, message.key if effect.service_kind else None, message.handler_name)
    headers = [(header.key, header.value) for header in message.headers]
    step.tables.append_entry(invocation_id, row, frame, is_command=True)
    step.deliver(
        slot_of(effect.id),
        Invoke(
            effect.id,
            target,
            effect.service_kind,
            effect.handler_kind,
            messages.input_frame(headers, message.parameter),
            effect.journal_retention_ms,
            effect.completion_retention_ms,
            message.idempotency_key if message.HasField("idempotency_key") else None,
            one_way,
            Millis(execution_ms),
            step.now_ms,
            None,
            caller,
            Parent(invocation_id, str(row.target), row.target.service),
        ),
    )
    completion_id = message.invocation_id_notification_idx
    told = messages.invocation_id_notification(completion_id, ids.encode_invocation_id(effect.id))
    notifications.add(step, invocation_id, row, told, completion_id, Outcome.SUCCESS)


def on_signal_sent(step: Step, invocation_id: InvocationId, row: Live, effect: SignalSent) -> None:
    """SendSignal, or CompleteAwakeable, which is a signal by another name."""
    frame = effect.frame
    signal: messages.Signal
    if _type_of(frame) == MessageType.SEND_SIGNAL_COMMAND:
        sent = pb.SendSignalCommandMessage.FromString(frame[HEADER_BYTES:])
        signal = sent.name if sent.HasField("name") else sent.idx
        message: pb.SendSignalCommandMessage | pb.CompleteAwakeableCommandMessage = sent
    else:
        message = completed = pb.CompleteAwakeableCommandMessage.FromString(frame[HEADER_BYTES:])
        _, signal = ids.decode_awakeable_id(completed.awakeable_id)
    if message.HasField("failure"):
        failure = message.failure
        metadata = {entry.key: entry.value for entry in failure.metadata}
        notification = messages.failure_signal(signal, failure.code, failure.message, metadata)
    elif message.HasField("value"):
        notification = messages.value_signal(signal, message.value.content)
    else:
        notification = messages.void_signal(signal)
    step.tables.append_entry(invocation_id, row, frame, is_command=True)
    step.deliver(slot_of(effect.id), Signal(effect.id, signal, notification, None, step.now_ms))


def on_invocation_asked(step: Step, invocation_id: InvocationId, row: Live, effect: InvocationAsked) -> None:
    """Attach to another invocation, or ask for its output: its partition answers."""
    step.tables.append_entry(invocation_id, row, effect.frame, is_command=True)
    attach = _type_of(effect.frame) == MessageType.ATTACH_INVOCATION_COMMAND
    kind = SinkKind.ATTACH if attach else SinkKind.OUTPUT
    sink = CallerSink(invocation_id, row.incarnation, effect.completion_id, kind)
    step.deliver(slot_of(effect.id), Ask(effect.id, sink))


def _type_of(frame: bytes) -> int:
    return int.from_bytes(frame[:2], "big")

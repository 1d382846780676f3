"""● core · Cancel, kill and purge: how an invocation ends because somebody else wants it to."""

from __future__ import annotations

from perdure.protocol import framing, ids, messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType
from perdure_processor.model.actions import AbortAttempt, Deed
from perdure_processor.model.commands import KillCall, Signal
from perdure_processor.model.futures import Outcome, signal_leaf
from perdure_processor.model.ids import InvocationId
from perdure_processor.model.results import Failed
from perdure_processor.model.schema import HandlerKind
from perdure_processor.state_machine import lifecycle, notifications, objects, promises
from perdure_processor.state_machine.step import Step
from perdure_processor.storage.records import Completed, Live, Status

# As the original spells it where no SDK has a say: an invocation that never began.
CANCELED = Failed(409, "canceled")
KILLED = Failed(409, "killed")


def cancel(step: Step, invocation_id: InvocationId, row: Live) -> Deed:
    """What has not begun ends here; a handler that has is told, and decides itself."""
    # Else it would pause when it suspends, and hear of this from nobody.
    row.pausing = False
    if row.status in (Status.SCHEDULED, Status.INBOXED):
        lifecycle.end_unstarted(step, invocation_id, row, CANCELED)
        return Deed.DONE
    frame = messages.void_signal(messages.SIGNAL_CANCEL)
    notifications.add(step, invocation_id, row, frame, signal_leaf(messages.SIGNAL_CANCEL), Outcome.SUCCESS)
    if row.status is Status.PAUSED or (row.status is Status.INVOKED and row.next_retry_ms):
        # Nobody would tell it otherwise until an operator, or the end of its back-off, does.
        lifecycle.begin_now(step, invocation_id, row)
    return Deed.ACCEPTED


def on_cancel_signal(step: Step, signal: Signal) -> None:
    """A handler cancels an invocation, perhaps its own."""
    row = step.tables.invocation(signal.id)
    if type(row) is Live:
        cancel(step, signal.id, row)


def kill(step: Step, invocation_id: InvocationId, row: Live) -> Deed:
    """End it now, whatever it does, and the calls it waits for with it."""
    if row.status in (Status.SCHEDULED, Status.INBOXED):
        lifecycle.end_unstarted(step, invocation_id, row, KILLED)
        return Deed.DONE
    if row.status is Status.INVOKED:
        step.actions.append(AbortAttempt(invocation_id, row.attempt))
    to_kill = _open_calls(step, invocation_id, row)
    lifecycle.complete(step, invocation_id, row, KILLED, to_kill)
    return Deed.DONE


def on_kill_call(step: Step, command: KillCall) -> None:
    """Kill a callee, if it is the one that this very call made or joined (correctness 2)."""
    row = step.tables.invocation(command.id)
    if type(row) is Live and command.caller in row.sinks:
        kill(step, command.id, row)


def _open_calls(step: Step, invocation_id: InvocationId, row: Live) -> list[tuple[bytes, int]]:
    """(callee, completion id) of every call in the journal that has no result yet."""
    calls: dict[int, int] = {}  # completion id of the callee's id → of its result
    callees: dict[int, bytes] = {}
    done: dict[int, None] = {}
    for _, _, frames in step.tables.journal_segments(invocation_id, row.segments):
        for code, _, payload in framing.iter_frames(frames):
            match code:
                case MessageType.CALL_COMMAND:
                    call = pb.CallCommandMessage.FromString(payload)
                    calls[call.invocation_id_notification_idx] = call.result_completion_id
                case MessageType.CALL_INVOCATION_ID_COMPLETION_NOTIFICATION:
                    told = pb.Notification.FromString(payload)
                    if told.completion_id in calls:
                        callees[calls[told.completion_id]] = ids.decode_invocation_id(told.invocation_id)
                case MessageType.CALL_COMPLETION_NOTIFICATION:
                    done[pb.Notification.FromString(payload).completion_id] = None
    return [(callee, result) for result, callee in callees.items() if result not in done]


def purge(step: Step, invocation_id: InvocationId, row: Completed) -> Deed:
    """Drop all that is kept; what proves its requests is seen by nobody but those who repeat one."""
    if row.waiting or row.to_kill:
        return Deed.UNFINISHED  # those who wait are told first: their answer is in this row
    if not _drop_journal(step, invocation_id, row):
        return Deed.UNFINISHED
    if row.handler_kind == HandlerKind.WORKFLOW:
        assert row.target.key is not None, "a workflow has a key"
        if not promises.drop(step, invocation_id, row.target.service, row.target.key):
            return Deed.UNFINISHED
        objects.clear_state(step, invocation_id, row.target)
    lifecycle.forget(step, invocation_id, row)
    return Deed.DONE


def purge_journal(step: Step, invocation_id: InvocationId, row: Completed) -> Deed:
    """Drop the journal and its events; the result is kept as long as before."""
    return Deed.DONE if _drop_journal(step, invocation_id, row) else Deed.UNFINISHED


def _drop_journal(step: Step, invocation_id: InvocationId, row: Completed) -> bool:
    row.segments = lifecycle.drop_journal(step, invocation_id, row.segments, row.events)
    if not row.segments:
        row.events = 0
    step.tables.put_invocation(invocation_id, row)
    return not row.segments

"""● core · What attempts report: pinned, commands, suspended, ended, failed."""

from __future__ import annotations

from typing import assert_never

from perdure.protocol import messages
from perdure_processor.model.actions import AckCommand, SetTimer
from perdure_processor.model.commands import AttemptEffects
from perdure_processor.model.effects import (
    AckWanted,
    AttemptFailed,
    Called,
    Ended,
    InvocationAsked,
    Kill,
    OutputSet,
    Pause,
    Pinned,
    PromiseUsed,
    Recorded,
    RetryAt,
    RunCompleted,
    RunStarted,
    SignalSent,
    SleepStarted,
    StateRead,
    StateSet,
    Suspended,
)
from perdure_processor.model.futures import Outcome, resolve
from perdure_processor.model.ids import InvocationId
from perdure_processor.model.results import Failed
from perdure_processor.state_machine import events, journal, lifecycle, notifications, promises
from perdure_processor.state_machine.step import Step
from perdure_processor.storage import keys
from perdure_processor.storage.records import Live, Status

NOTHING_FOLLOWS = "nothing follows the end of an attempt"


def on_attempt_effects(step: Step, command: AttemptEffects) -> None:
    """Record what an attempt did, unless another attempt or another life has taken its place."""
    row = step.tables.invocation(command.id)
    if (
        type(row) is not Live
        or row.status is not Status.INVOKED
        or row.incarnation != command.incarnation
        or row.attempt != command.attempt
    ):
        return
    assert row.commands == command.command_index, f"command {command.command_index} reported, {row.commands} is next"
    invocation_id = command.id
    row.modified_ms = step.now_ms
    step.tables.put_invocation(invocation_id, row)
    for effect in command.effects:
        match effect:
            case OutputSet():
                journal.on_output(step, invocation_id, row, effect)
            case Ended():
                assert effect is command.effects[-1], NOTHING_FOLLOWS
                _on_ended(step, invocation_id, row)
            case Pinned():
                row.deployment_id = effect.deployment_id
                row.protocol_version = effect.protocol_version
            case Recorded():
                step.tables.append_entry(invocation_id, row, effect.frame, is_command=True)
            case StateSet():
                journal.on_state_set(step, invocation_id, row, effect)
            case RunStarted():
                journal.on_run_started(step, invocation_id, row, effect)
            case RunCompleted():
                journal.on_run_completed(step, invocation_id, row, effect)
            case SleepStarted():
                journal.on_sleep(step, invocation_id, row, effect)
            case Called():
                journal.on_call(step, invocation_id, row, effect)
            case StateRead():
                journal.on_state_read(step, invocation_id, row, effect)
            case SignalSent():
                journal.on_signal_sent(step, invocation_id, row, effect)
            case PromiseUsed():
                promises.on_used(step, invocation_id, row, effect)
            case InvocationAsked():
                journal.on_invocation_asked(step, invocation_id, row, effect)
            case AckWanted():
                step.actions.append(AckCommand(invocation_id, row.attempt, row.commands - 1))
            case Suspended():
                assert effect is command.effects[-1], NOTHING_FOLLOWS
                _on_suspended(step, invocation_id, row, effect)
            case AttemptFailed():
                assert effect is command.effects[-1], NOTHING_FOLLOWS
                _on_failed(step, invocation_id, row, effect)
            case _:
                assert_never(effect)


def _on_ended(step: Step, invocation_id: InvocationId, row: Live) -> None:
    assert row.result is not None, "the attempt checks that an output comes before the end"
    lifecycle.complete(step, invocation_id, row, row.result)


def _on_suspended(step: Step, invocation_id: InvocationId, row: Live, effect: Suspended) -> None:
    """Wait, unless what is awaited is there already or can only come from an attempt."""
    row.retry_count = 0
    if row.pausing:
        _pause(step, invocation_id, row)
        return
    left = resolve(effect.awaiting, notifications.known(step, invocation_id, row))
    # A run whose result was never recorded completes only when an attempt runs it again (correctness 5).
    if isinstance(left, Outcome) or (row.open_runs and left.awaits_any_of(row.open_runs)):
        lifecycle.begin(step, invocation_id, row)
        return
    row.status = Status.SUSPENDED
    row.awaiting = left
    step.tables.delete_active(invocation_id)
    events.suspended(step, invocation_id, row, left)


def _pause(step: Step, invocation_id: InvocationId, row: Live) -> None:
    """Wait for an operator; nothing more is accepted of the attempt that ended."""
    row.attempt += 1
    row.pausing = False
    row.status = Status.PAUSED
    step.tables.delete_active(invocation_id)
    events.paused(step, invocation_id, row)


def _on_failed(step: Step, invocation_id: InvocationId, row: Live, effect: AttemptFailed) -> None:
    row.last_failure = effect.failure
    row.last_failure_ms = step.now_ms
    if effect.counts_since_entry:
        row.retries_since_entry += 1
    events.failed(step, invocation_id, row, effect.failure)
    match effect.then:
        case RetryAt() | Pause() if row.pausing:
            row.retry_count += 1
            _pause(step, invocation_id, row)
        case RetryAt(at_ms=at_ms, counted=counted):
            row.retry_count += counted
            row.attempt += 1  # nothing more is accepted of the failed one
            row.next_retry_ms = at_ms
            assert at_ms <= keys.DEADLINE_MAX, "retry.py bounds it"
            step.tables.put_timer(keys.timer(at_ms, invocation_id, keys.TIMER_RETRY, 0), row.incarnation)
            step.tables.delete_active(invocation_id)
            step.actions.append(SetTimer(at_ms))
        case Pause():
            row.retry_count += 1
            _pause(step, invocation_id, row)
        case Kill():
            failure = effect.failure
            result = Failed(messages.failure_code(failure.code), failure.message)
            lifecycle.complete(step, invocation_id, row, result)
        case _:
            assert_never(effect.then)

"""● core · Journal events: facts about attempts that people ask for and no handler ever sees."""

from __future__ import annotations

from perdure_processor.model.effects import FailureInfo
from perdure_processor.model.futures import Future
from perdure_processor.model.ids import InvocationId
from perdure_processor.state_machine.step import Step
from perdure_processor.storage.records import EventKind, JournalEvent, Live


def failed(step: Step, invocation_id: InvocationId, row: Live, failure: FailureInfo) -> None:
    """An attempt failed; the same failure again, with nothing recorded in between, is no news."""
    last = step.tables.last_event(invocation_id, row)
    if (
        last is not None
        and last.kind is EventKind.TRANSIENT_ERROR
        and last.failure == failure
        and last.after_entry == row.entries - 1
    ):
        return
    _append(step, invocation_id, row, EventKind.TRANSIENT_ERROR, failure, None)


def paused(step: Step, invocation_id: InvocationId, row: Live) -> None:
    """It waits for an operator."""
    _append(step, invocation_id, row, EventKind.PAUSED, row.last_failure, None)


def suspended(step: Step, invocation_id: InvocationId, row: Live, awaiting: Future) -> None:
    """It waits for what it asked for."""
    _append(step, invocation_id, row, EventKind.SUSPENDED, None, awaiting)


def _append(
    step: Step, invocation_id: InvocationId, row: Live, kind: EventKind, failure: FailureInfo | None, on: Future | None
) -> None:
    event = JournalEvent(kind, row.events, step.now_ms, row.entries - 1, failure, on)
    step.tables.append_event(invocation_id, row, event)

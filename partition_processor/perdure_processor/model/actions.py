"""● core · What the leader must do after a commit; everyone else drops it.

Every action can be derived again from a table, named with it: a crash between commit and action loses
nothing (correctness 17).
"""

from __future__ import annotations

import enum
from dataclasses import field
from typing import TYPE_CHECKING, TypeAlias

from perdure_processor.model.commands import Command
from perdure_processor.model.ids import CompletionId, Incarnation, InvocationId, InvocationTarget, Millis, PartitionId
from perdure_processor.model.results import RequestId, Result
from perdure_processor.model.value import value

if TYPE_CHECKING:  # the vocabulary names the row, only storage knows it
    from perdure_processor.storage.records import Live


@value
class StartAttempt:
    """Run the handler (table: active). `input` is given for a fresh invocation, else the journal is read.

    `row` saves the leader a read; it is valid as long as it still names this attempt."""

    id: InvocationId
    incarnation: Incarnation
    attempt: int
    input: bytes | None
    row: Live | None = field(default=None, compare=False, repr=False)


@value
class AbortAttempt:
    """Cut the attempt, whatever it does (the row no longer names it)."""

    id: InvocationId
    attempt: int


@value
class PauseAttempt:
    """Ask the running attempt to suspend, so that its invocation can pause (the row says so too)."""

    id: InvocationId
    attempt: int


@value
class ForwardNotification:
    """Send a stored notification to the running attempt; dropped if it has it already (correctness 4).

    `ack` is set when the attempt itself proposed this run's result and wants only an acknowledgement."""

    id: InvocationId
    attempt: int
    index: int
    frame: bytes
    ack: CompletionId | None


@value
class AckCommand:
    """Tell the running attempt that a command is stored; it asked to be told (table: the journal)."""

    id: InvocationId
    attempt: int
    command_index: int


@value
class SetTimer:
    """A timer row was written (table: timers)."""

    deadline_ms: Millis


@value
class ShipOutboxMessage:
    """Append to another partition's log (table: outbox)."""

    target: PartitionId
    sequence: int
    command: Command


@value
class Answered:
    """The end of an invocation. `expires_ms` is set when it was stored before the request came."""

    id: InvocationId
    result: Result
    expires_ms: Millis | None
    # Whose output it is, for who asked by id only; None where the row no longer says.
    target: InvocationTarget | None = field(default=None, compare=False)


@value
class Taken:
    """A send was recorded, now or by an earlier request. `execution_ms` is 0 unless it was scheduled."""

    id: InvocationId
    previously: bool
    execution_ms: Millis


@value
class Missing:
    """There is no such invocation, or its result is no longer kept."""


@value
class Running:
    """The invocation exists and has not ended."""


@value
class Unkept:
    """The invocation has neither an idempotency key nor is it a workflow's run."""


@value
class Expired:
    """The request was older than REQUEST_HORIZON_MS when it was applied: nothing was done."""


@value
class Crowded:
    """SINKS_MAX others wait for this invocation already."""


class Deed(enum.IntEnum):
    """What an operator's request did, or why it did nothing. Persisted since 0.2.0."""

    DONE = 0
    ACCEPTED = 1
    # Too much for one record: a piece was done, ask again.
    UNFINISHED = 2
    COMPLETED = 3
    NOT_COMPLETED = 4
    NOT_RUNNING = 5
    NOT_STARTED = 6
    NOT_PINNED = 7
    WRONG_VERSION = 8
    IS_WORKFLOW = 9
    NO_INPUT = 10
    BAD_PREFIX = 11
    TOO_LARGE = 12
    HAS_RUN = 13
    WRONG_STATE = 14


@value
class Acted:
    """What an operator's request did; `new_id` when it created an invocation."""

    deed: Deed
    new_id: InvocationId | None = None
    # What a refusal is about: protocol versions, an index.
    detail: str = ""


Answer: TypeAlias = Answered | Taken | Missing | Running | Unkept | Expired | Crowded | Acted


@value
class RespondToIngress:
    """Answer a request (table: invocations; the ingress asks again when it hears nothing)."""

    request: RequestId
    answer: Answer


@value
class ReportRefusedPatch:
    """Tell the operators that a state patch was refused when its turn came. No table: a crash loses the report."""

    service: str
    key: str
    deed: Deed


Action: TypeAlias = (
    StartAttempt
    | AbortAttempt
    | PauseAttempt
    | ForwardNotification
    | AckCommand
    | SetTimer
    | ShipOutboxMessage
    | RespondToIngress
    | ReportRefusedPatch
)

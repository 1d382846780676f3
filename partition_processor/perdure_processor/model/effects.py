"""● core · What one attempt may report, in the order in which it happened.

Every command keeps the frame that the SDK sent, byte for byte: the journal stores it and replays it.
What `apply` must not look up again (which invocation a call goes to, what kind of handler that is) was
resolved by the leader and stands beside the frame.
"""

from __future__ import annotations

from typing import TypeAlias

from perdure_processor.model import codec
from perdure_processor.model.futures import Future
from perdure_processor.model.ids import CompletionId, DeploymentId, InvocationId, Millis
from perdure_processor.model.value import value


@value
class Pinned:
    """From here on only this deployment, in this protocol version, continues the invocation."""

    deployment_id: DeploymentId
    protocol_version: int


@value
class Recorded:
    """A command that only needs to be in the journal: an eager state read."""

    frame: bytes


@value
class OutputSet:
    """The handler's result; the last one before the end counts."""

    frame: bytes


@value
class StateSet:
    """SetState, ClearState or ClearAllState: which one the frame says."""

    frame: bytes


@value
class StateRead:
    """GetLazyState or GetLazyStateKeys: answered on apply, as of this place in the journal."""

    frame: bytes


@value
class SleepStarted:
    frame: bytes
    completion_id: CompletionId
    wake_up_ms: Millis


@value
class RunStarted:
    frame: bytes
    completion_id: CompletionId


@value
class RunCompleted:
    """A proposal of the attempt; `frame` is the RunCompletion notification that goes into the journal.

    `ack_wanted`: the peer keeps the value itself and wants a ProposeRunCompletionAck (V7)."""

    frame: bytes
    completion_id: CompletionId
    ack_wanted: bool


@value
class Called:
    """Call or OneWayCall. The callee's id, kinds and retentions were resolved when the command arrived."""

    frame: bytes
    id: InvocationId
    service_kind: int
    handler_kind: int
    journal_retention_ms: int
    completion_retention_ms: int


@value
class SignalSent:
    """SendSignal or CompleteAwakeable, to this invocation."""

    frame: bytes
    id: InvocationId


@value
class PromiseUsed:
    """GetPromise, PeekPromise or CompletePromise: which one the frame says."""

    frame: bytes
    completion_id: CompletionId


@value
class InvocationAsked:
    """AttachInvocation or GetInvocationOutput, about this invocation."""

    frame: bytes
    id: InvocationId
    completion_id: CompletionId


@value
class AckWanted:
    """The handler's side wants to be told when the command before this is stored."""


@value
class Suspended:
    """The attempt ended; another starts when the future resolves."""

    awaiting: Future


@value
class Ended:
    """The attempt ended with a result: the last OutputSet."""


@value
class FailureInfo:
    """Why an attempt failed, for people: shown by the admin API and sent nowhere else."""

    code: int
    message: str
    doc_code: str | None
    stacktrace: str = ""
    command_index: int | None = None
    command_name: str | None = None
    command_type: int | None = None
    # Of a journal mismatch: what the journal has at `command_index`, while the fields above say what the code did now.
    recorded_name: str | None = None
    recorded_type: int | None = None


@value
class RetryAt:
    """Try again at this time; `counted` is False when the SDK named the delay itself."""

    at_ms: Millis
    counted: bool


@value
class Pause:
    """Wait for an operator."""


@value
class Kill:
    """End the invocation with the failure."""


AfterFailure: TypeAlias = RetryAt | Pause | Kill


@value
class AttemptFailed:
    failure: FailureInfo
    then: AfterFailure
    # False when the failure says nothing of the handler (no deployment, protocol version refused).
    counts_since_entry: bool


Effect: TypeAlias = (
    Pinned
    | Recorded
    | OutputSet
    | StateSet
    | StateRead
    | SleepStarted
    | RunStarted
    | RunCompleted
    | Called
    | SignalSent
    | PromiseUsed
    | InvocationAsked
    | AckWanted
    | Suspended
    | Ended
    | AttemptFailed
)

for _tag, _cls in (
    (20, Pinned),
    (21, Recorded),
    (22, OutputSet),
    (23, StateSet),
    (24, StateRead),
    (25, SleepStarted),
    (26, RunStarted),
    (27, RunCompleted),
    (28, Called),
    (29, SignalSent),
    (30, Suspended),
    (31, Ended),
    (32, AttemptFailed),
    (33, PromiseUsed),
    (34, InvocationAsked),
    (35, AckWanted),
    (40, RetryAt),
    (41, Pause),
    (42, Kill),
):
    codec.register(_tag, _cls)

"""● core · What the log of a partition may contain: nothing else ever changes a table."""

from __future__ import annotations

import enum
from typing import TypeAlias

from perdure_processor.model import codec
from perdure_processor.model.effects import Effect
from perdure_processor.model.ids import (
    DeploymentId,
    Incarnation,
    InvocationId,
    InvocationTarget,
    LeaderEpoch,
    Millis,
    NodeId,
    PartitionId,
)
from perdure_processor.model.results import CallerSink, Parent, RequestId, Result
from perdure_processor.model.value import value


@value
class Invoke:
    """Run a handler, once per id. From an ingress (`request` set) or from a handler (`parent` set).

    `input` is the Input message's frame, built once and never looked into again. `execution_ms` > 0
    schedules it. A call is answered at `request` or `caller`; a send (`one_way`) only with its id."""

    id: InvocationId
    target: InvocationTarget
    service_kind: int
    handler_kind: int
    input: bytes
    journal_retention_ms: int
    completion_retention_ms: int
    idempotency_key: str | None
    one_way: bool
    execution_ms: Millis
    issued_ms: Millis
    request: RequestId | None
    caller: CallerSink | None
    parent: Parent | None


@value
class Attach:
    """Answer `request` when the invocation ends, or now if it has."""

    id: InvocationId
    request: RequestId
    issued_ms: Millis


@value
class GetOutput:
    """Answer `request` now, with what there is."""

    id: InvocationId
    request: RequestId
    issued_ms: Millis


@value
class Signal:
    """A signal for an invocation, by index or name; `frame` is the notification.

    Awakeables have an index of 17 or more.

    From a client (`request` set, to be told that it was taken) or from a handler."""

    id: InvocationId
    signal: int | str
    frame: bytes
    request: RequestId | None
    issued_ms: Millis


class Verb(enum.IntEnum):
    """What an operator may do to an invocation by its id alone."""

    CANCEL = 0
    KILL = 1
    PAUSE = 2
    PURGE = 3
    PURGE_JOURNAL = 4


@value
class Operate:
    """An operator's verb; what it did is the answer (actions.Acted)."""

    id: InvocationId
    verb: int
    request: RequestId
    issued_ms: Millis


@value
class Repin:
    """The deployment that shall continue an invocation, and the protocol versions that it speaks."""

    deployment_id: DeploymentId
    min_protocol_version: int
    max_protocol_version: int


@value
class Resume:
    """Go on now: after a pause, or without the rest of a back-off. `repin` None keeps the deployment."""

    id: InvocationId
    repin: Repin | None
    request: RequestId
    issued_ms: Millis


@value
class RestartAsNew:
    """Run a completed invocation again, as `new_id`, from journal entry `from_index` on (0: from its input).

    `keep` continues on the deployment of the old one, `repin` on another; neither: on the latest when it starts."""

    id: InvocationId
    new_id: InvocationId
    from_index: int
    keep: bool
    repin: Repin | None
    request: RequestId
    issued_ms: Millis


@value
class KillCall:
    """The caller was killed: so is the callee, if it still works for this very call (correctness 2)."""

    id: InvocationId
    caller: CallerSink


@value
class Ask:
    """A handler attaches to an invocation, or looks for its output (`sink.kind`)."""

    id: InvocationId
    sink: CallerSink


@value
class DropPromises:
    """An operator drops the promises and the state of a workflow key that has no run.

    `id` is new, and in the key's partition: what remembers the request."""

    id: InvocationId
    workflow: str
    key: str
    request: RequestId
    issued_ms: Millis


@value
class ReplaceState:
    """An operator makes `state` the whole state of a key, if it still has `version` (None: whatever it has).

    `id` is new, and in the key's partition: what remembers the request."""

    id: InvocationId
    service: str
    key: str
    version: str | None
    state: list[tuple[bytes, bytes]]
    request: RequestId
    issued_ms: Millis


@value
class Respond:
    """The result of a call, for the caller's journal; None is the output of an invocation that has not ended."""

    sink: CallerSink
    result: Result | None


@value
class AttemptEffects:
    """What an attempt did. Dropped as a whole unless the token (incarnation, attempt) is the row's.

    `command_index` is the index of its first command among the invocation's commands (correctness 1)."""

    id: InvocationId
    incarnation: Incarnation
    attempt: int
    command_index: int
    effects: list[Effect]


@value
class TimersFired:
    """These timer rows are due; each is valid iff it still exists (correctness 22)."""

    keys: list[bytes]


@value
class Expire:
    """Drop what was kept until `until_ms`, at most `limit` rows."""

    until_ms: Millis
    limit: int


@value
class TruncateOutbox:
    """The target's log holds every message up to this sequence."""

    target: PartitionId
    sequence: int


@value
class AnnounceLeader:
    """A candidate's claim: accepted iff its epoch is greater than the current one."""

    node: NodeId
    epoch: LeaderEpoch
    nonce: int


@value
class Part:
    """A piece of an envelope over RECORD_MAX; the last one assembles and applies it (correctness 12).

    `group` begins with the time of the first append (u64 big-endian), so that the abandoned are found by age."""

    group: bytes
    index: int
    count: int
    payload: bytes


# What an operator's request becomes: answered by number, applied once.
OperatorCommand: TypeAlias = Operate | Resume | RestartAsNew | DropPromises | ReplaceState

Command: TypeAlias = (
    Invoke
    | Attach
    | GetOutput
    | Signal
    | Operate
    | Resume
    | RestartAsNew
    | KillCall
    | Ask
    | DropPromises
    | ReplaceState
    | Respond
    | AttemptEffects
    | TimersFired
    | Expire
    | TruncateOutbox
    | AnnounceLeader
    | Part
)


@value
class ByLeader:
    """A leader's proposal: accepted iff the epoch is current and the sequence is the next."""

    epoch: LeaderEpoch
    sequence: int


@value
class ByOutbox:
    """A message of another partition: accepted iff the sequence is that source's next (correctness 6)."""

    source: PartitionId
    sequence: int


@value
class Envelope:
    """A command, where it belongs (slot; None for the partition itself) and what makes it apply once."""

    slot: int | None
    dedup: ByLeader | ByOutbox | None
    command: Command


for _tag, _cls in (
    (100, Envelope),
    (101, ByLeader),
    (102, ByOutbox),
    (110, Invoke),
    (111, Attach),
    (112, GetOutput),
    (113, Signal),
    (114, Respond),
    (115, AttemptEffects),
    (116, TimersFired),
    (117, Expire),
    (118, TruncateOutbox),
    (119, AnnounceLeader),
    (120, Part),
    (121, Ask),
    (122, DropPromises),
    (130, Operate),
    (131, Resume),
    (132, RestartAsNew),
    (133, KillCall),
    (140, ReplaceState),
):
    codec.register(_tag, _cls)

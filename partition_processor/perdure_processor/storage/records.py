"""● core · The rows: what is stored of an invocation, an object, a partition. Persisted since 0.1.0."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from typing import TypeAlias

from perdure_processor.model import codec
from perdure_processor.model.effects import FailureInfo
from perdure_processor.model.futures import Future
from perdure_processor.model.ids import (
    DeploymentId,
    Incarnation,
    InvocationId,
    InvocationTarget,
    Millis,
)
from perdure_processor.model.results import CallerSink, KnownRequest, Parent, Result, Sink


class Status(enum.IntEnum):
    """Where a live invocation stands."""

    SCHEDULED = 0
    INBOXED = 1
    INVOKED = 2
    SUSPENDED = 3
    PAUSED = 4


@dataclass(slots=True)
class Live:
    """An invocation that has not ended. Changed in place by apply and encoded once per batch."""

    status: Status
    incarnation: Incarnation
    # The token of the attempt that may report; raised whenever another one is to start (correctness 1).
    attempt: int
    target: InvocationTarget
    service_kind: int
    handler_kind: int
    idempotency_key: str | None
    # The request that created this life, then those of earlier lives that may still be repeated.
    requests: list[KnownRequest]
    parent: Parent | None
    sinks: list[Sink]
    journal_retention_ms: int
    completion_retention_ms: int
    created_ms: Millis
    modified_ms: Millis
    # When it entered its present queue or was first started; 0 when it never was.
    inboxed_ms: Millis = Millis(0)
    execution_ms: Millis = Millis(0)
    running_ms: Millis = Millis(0)
    inbox_sequence: int = 0
    deployment_id: DeploymentId | None = None
    protocol_version: int = 0
    # Journal: segments (rows), entries (commands and notifications), commands.
    segments: int = 0
    entries: int = 0
    commands: int = 0
    result: Result | None = None
    awaiting: Future | None = None
    # Completion ids of runs without a result: only an attempt can complete them (correctness 5).
    open_runs: list[int] = field(default_factory=list)
    # (completion id, deadline) of timers that have not fired, the first SLEEPS_LISTED_MAX.
    open_sleeps: list[tuple[int, int]] = field(default_factory=list)
    # Indexes of awakeables that were completed: the first completion wins.
    signals: list[int] = field(default_factory=list)
    retry_count: int = 0
    retries_since_entry: int = 0
    # When the next attempt is due while it backs off, else 0.
    next_retry_ms: Millis = Millis(0)
    last_failure: FailureInfo | None = None
    last_failure_ms: Millis = Millis(0)
    # An operator wants it to pause as soon as its attempt has ended.
    pausing: bool = False
    # Journal events so far (rows: the last EVENTS_MAX).
    events: int = 0
    restarted_from: InvocationId | None = None


@dataclass(slots=True)
class Completed:
    """An invocation that has ended, as long as its result or its journal is kept."""

    incarnation: Incarnation
    target: InvocationTarget
    service_kind: int
    handler_kind: int
    idempotency_key: str | None
    requests: list[KnownRequest]
    parent: Parent | None
    result: Result
    created_ms: Millis
    running_ms: Millis
    completed_ms: Millis
    # Until when the result is kept, and the journal.
    expires_ms: Millis
    journal_expires_ms: Millis
    deployment_id: DeploymentId | None
    protocol_version: int
    segments: int
    entries: int
    commands: int
    journal_retention_ms: int
    completion_retention_ms: int
    # Who is still to be told, a few with each record (correctness 27); it does not expire before.
    waiting: list[Sink] = field(default_factory=list)
    events: int = 0
    restarted_from: InvocationId | None = None
    # Calls of a killed invocation whose callees are still to be killed: (callee, completion id of the call).
    to_kill: list[tuple[bytes, int]] = field(default_factory=list)


@dataclass(slots=True)
class Proof:
    """What is left of an expired invocation until nobody can repeat its requests: invisible to everyone else."""

    requests: list[KnownRequest]
    result: Result
    drop_ms: Millis
    # When an operator ended it before its time, so that no room was kept for requests that the row answered by itself.
    purged_ms: Millis = Millis(0)


InvocationRow: TypeAlias = Live | Completed | Proof


@dataclass(slots=True)
class ObjectRow:
    """The lock of one key and its queue: waiting invocations are inbox rows head … tail - 1.

    `holder` is None only while the state patches before the next holder have their turn."""

    holder: InvocationId | None
    head: int
    tail: int
    # State patches that wait, each at a place of the same queue.
    patches: int = 0


@dataclass(slots=True)
class PendingPatch:
    """The state that a key shall have, all of it, once its turn has come; `version` as in ReplaceState."""

    version: str | None
    state: list[tuple[bytes, bytes]]


@dataclass(slots=True)
class PromiseRow:
    """A workflow's durable promise: how it was completed, or who waits for it."""

    result: Result | None
    waiting: list[CallerSink] = field(default_factory=list)


class EventKind(enum.IntEnum):
    """What happened to an invocation beside its journal."""

    TRANSIENT_ERROR = 0
    PAUSED = 1
    SUSPENDED = 2


@dataclass(slots=True)
class JournalEvent:
    """A fact about an attempt, for people; `number` counts the events of the invocation."""

    kind: EventKind
    number: int
    at_ms: Millis
    after_entry: int
    failure: FailureInfo | None = None
    awaiting: Future | None = None


@dataclass(slots=True)
class Progress:
    """How far the partition is: written with every batch, so that tables and position are one commit."""

    # Where to read on, and the offset of the last applied record.
    position: int = 0
    applied: int = -1
    now_ms: Millis = Millis(0)
    epoch: int = 0
    sequence: int = 0
    leader: str = ""
    # Last sequence accepted from each source partition, and assigned to each target.
    inbound: dict[int, int] = field(default_factory=dict)
    outbound: dict[int, int] = field(default_factory=dict)
    # Large clears of state so far: a state row is older than a clear iff its number is smaller.
    clears: int = 0


@dataclass(slots=True)
class StoreIdentity:
    """Whose data this is: checked when the store is opened."""

    cluster_id: str
    log_id: str
    partition: int
    partitions: int
    machine_version: int


for _tag, _cls in (
    (60, Live),
    (61, Completed),
    (62, Proof),
    (63, ObjectRow),
    (64, Progress),
    (65, StoreIdentity),
    (66, PromiseRow),
    (70, JournalEvent),
    (74, PendingPatch),
):
    codec.register(_tag, _cls)

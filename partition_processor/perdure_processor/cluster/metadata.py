"""◐ shell · Follows the metadata log into a Schema, and proposes to it.

The store beside it is the log's snapshot: state and position in one batch, flushed now and then, and
only behind a flush is the log trimmed (correctness 16, 23).
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias, TypeVar

from perdure_processor.cluster.metadata_machine import (
    Answer,
    Layout,
    MetadataCommand,
    MetadataOutcome,
    MetadataState,
    Rejected,
    VersionConflict,
    apply,
)
from perdure_processor.log import Appended, Log, Outcome, Refused, Unknown
from perdure_processor.model import codec
from perdure_processor.model.errors import AheadOfLog, StoreFull
from perdure_processor.model.ids import METADATA_PARTITION, SLOTS, DeploymentId, Millis, NodeId, Offset, PartitionId
from perdure_processor.model.limits import (
    FLUSH_MS,
    METADATA_CONFLICTS_MAX,
    METADATA_PROPOSE_TIMEOUT_S,
    METADATA_RECORDS_PER_FLUSH,
    METADATA_RECORDS_PER_READ_MAX,
    METADATA_RETRY_PAUSE_S,
    RECORD_MAX,
)
from perdure_processor.model.resolution import Defaults, Known, build_schema
from perdure_processor.model.results import RequestId
from perdure_processor.model.schema import Schema
from perdure_processor.model.value import value
from perdure_processor.storage.keyvalue import KeyValue

log = logging.getLogger(__name__)


_HEAD = b"H"
_DEPLOYMENT = b"D"
_PATCH = b"P"

RunBlocking: TypeAlias = Callable[[Callable[[], None]], Awaitable[None]]
Rows: TypeAlias = dict[bytes, bytes | None]
N = TypeVar("N", bound=str)


@value
class Head:
    """The small part of the stored state, in one row. Since 0.1."""

    position: Offset  # where to read on
    applied: Offset  # of the last record applied; -1 before the first
    version: int
    layout: Layout | None
    skips: dict[int, list[int]]
    answers: list[Answer]


codec.register(210, Head)


class MetadataUnavailable(Exception):
    """The metadata log does not take or give back commands now; the message says why.

    `may_have_applied` is True when the command may still come to hold."""

    def __init__(self, reason: str, *, may_have_applied: bool) -> None:
        super().__init__(reason)
        self.may_have_applied = may_have_applied


class LayoutRefused(Exception):
    """This node was started with another layout than the cluster has; the message names both."""


class Metadata:
    """The cluster's metadata on one node. `schema` is always there to be read, at some version.

    `run_blocking` runs the store's flush off the loop; `poll_s` is how often other nodes' commands are
    looked for (None: nobody else writes this log); `trim` is True where the log is this node's own."""

    def __init__(
        self,
        log: Log,
        store: KeyValue,
        node: NodeId,
        defaults: Defaults,
        *,
        run_blocking: RunBlocking,
        poll_s: float | None = None,
        trim: bool = True,
    ) -> None:
        self._log = log
        self._store = store
        self._node = node
        self._defaults = defaults
        self._run_blocking = run_blocking
        self._poll_s = poll_s
        self._trim = trim
        self._state, self._position, self._applied = _load(store)
        self._schema = self._build(None)
        self._requests = 0
        self._waiters: dict[RequestId, asyncio.Future[MetadataOutcome | MetadataUnavailable]] = {}
        self._listeners: list[Callable[[Schema], None]] = []
        self._changing = asyncio.Lock()
        self._news = asyncio.Event()
        self._unflushed = 0
        self._flush_due_s: float | None = None  # on the loop's clock; None while nothing is unflushed
        self._follower: asyncio.Task[None] | None = None
        self._failure: Exception | None = None

    @property
    def schema(self) -> Schema:
        return self._schema

    @property
    def state(self) -> MetadataState:
        return self._state

    @property
    def layout(self) -> Layout:
        assert self._state.layout is not None, "start() returns only with a layout"
        return self._state.layout

    @property
    def failure(self) -> Exception | None:
        """Why this node no longer follows the log, if so; what it knows stays readable."""
        return self._failure

    def skipped(self, partition: PartitionId) -> frozenset[Offset]:
        """Offsets of a partition's records that an operator told us not to apply."""
        return frozenset(map(Offset, self._state.skips.get(partition, [])))

    def on_change(self, listener: Callable[[Schema], None]) -> None:
        """Call `listener` with each new schema, right after it came to hold."""
        self._listeners.append(listener)

    async def start(self, cluster_id: str, partitions: int) -> Layout:
        """Read to the log's end and follow it from there; lay the cluster out if nobody has.

        Raises LayoutRefused if it is laid out otherwise, AheadOfLog or LogGap if log and store do not fit."""
        end = await self._log.end(METADATA_PARTITION)
        if self._applied >= end:
            raise AheadOfLog(
                f"the metadata store has applied the record at offset {self._applied}, but the log ends at {end}: "
                "the log lost records, or belongs to another cluster"
            )
        if self._trim:
            self._log.trim(METADATA_PARTITION, self._position)  # what an opened store shows was flushed
        await self._catch_up()
        self._follower = asyncio.create_task(self._follow(), name="metadata")
        try:
            await self._lay_out(cluster_id, partitions)
        except BaseException:
            await self.stop()
            raise
        return self.layout

    async def _lay_out(self, cluster_id: str, partitions: int) -> None:
        wanted = Layout(self.next_request(), cluster_id, partitions, SLOTS)
        if self._state.layout is None:
            outcome = await self.propose(wanted)
        else:  # every later start only compares: what the machine would say needs no record
            _, outcome = apply(self._state, wanted, Millis(0))
        if isinstance(outcome, Rejected):
            raise LayoutRefused(outcome.message)

    async def stop(self) -> None:
        """Stop following and keep what is known; log and store stay open, they are the caller's."""
        follower, self._follower = self._follower, None
        if follower is not None:
            follower.cancel()
            await asyncio.wait([follower])
        self._fail_waiters("the server is stopping")
        if self._failure is None and self._unflushed:
            await self._flush()

    def next_request(self) -> RequestId:
        """The id of one command; a command keeps it however often it is appended."""
        self._requests += 1
        return RequestId(self._node.name, self._node.generation, self._requests)

    async def change(self, decide: Callable[[MetadataState, RequestId], MetadataCommand]) -> MetadataOutcome:
        """Propose what `decide` makes of the current state, anew whenever another command came first."""
        async with self._changing:  # so that this node's own commands do not overtake each other
            for _ in range(METADATA_CONFLICTS_MAX):
                outcome = await self.propose(decide(self._state, self.next_request()))
                if not isinstance(outcome, VersionConflict):
                    return outcome
        raise MetadataUnavailable(
            f"{METADATA_CONFLICTS_MAX} times another change of the metadata came first", may_have_applied=False
        )

    def preview(self, command: MetadataCommand, now_ms: Millis) -> tuple[MetadataOutcome, Schema]:
        """What `command` would answer and lead to, if it were the next in the log; nothing is appended."""
        state, outcome = apply(self._state, command, now_ms)
        known = Known(self._state.deployments, self._state.patches, self._schema)
        return outcome, build_schema(state.version, state.deployments, state.patches, self._defaults, known)

    async def propose(self, command: MetadataCommand) -> MetadataOutcome:
        """Append a command and wait until it was applied here; raises MetadataUnavailable."""
        payload = codec.encode(command)
        if len(payload) > RECORD_MAX:
            return Rejected(
                400,
                None,
                f"this change takes {len(payload)} bytes, and at most {RECORD_MAX} are kept for one",
            )
        if self._failure is not None:
            raise MetadataUnavailable(_stopped(self._failure), may_have_applied=False)
        if self._follower is None:
            raise MetadataUnavailable(
                "the metadata log is not followed: not started, or stopping", may_have_applied=False
            )
        applied = asyncio.get_running_loop().create_future()
        self._waiters[command.request] = applied
        sent = False
        try:
            async with asyncio.timeout(METADATA_PROPOSE_TIMEOUT_S):
                while not applied.done():
                    match await self._append(payload):
                        case Appended():
                            sent = True
                            self._news.set()
                            await asyncio.wait([applied])
                        case Refused(reason):
                            raise MetadataUnavailable(reason, may_have_applied=sent)
                        case Unknown():
                            # Its request makes a second copy harmless, so asking again is how we find out.
                            sent = True
                            self._news.set()
                            await asyncio.wait([applied], timeout=METADATA_RETRY_PAUSE_S)
        except TimeoutError as error:
            raise MetadataUnavailable(
                f"the metadata log did not answer within {METADATA_PROPOSE_TIMEOUT_S:g} s", may_have_applied=True
            ) from error
        finally:
            del self._waiters[command.request]
        outcome: MetadataOutcome | MetadataUnavailable = applied.result()
        if isinstance(outcome, MetadataUnavailable):
            raise outcome
        return outcome

    async def _append(self, payload: bytes) -> Outcome:
        outcome: asyncio.Future[Outcome] = asyncio.get_running_loop().create_future()

        def done(result: Outcome) -> None:
            if not outcome.done():  # the proposer may have been cancelled
                outcome.set_result(result)

        self._log.append(METADATA_PARTITION, payload, done)
        return await outcome

    async def _follow(self) -> None:
        try:
            while True:
                self._news.clear()
                await self._catch_up()
                pause_s = self._poll_s
                if self._flush_due_s is not None:
                    due_in_s = self._flush_due_s - asyncio.get_running_loop().time()
                    if due_in_s <= 0 or self._unflushed >= METADATA_RECORDS_PER_FLUSH:
                        await self._flush()
                    else:
                        pause_s = due_in_s if pause_s is None else min(pause_s, due_in_s)
                with contextlib.suppress(TimeoutError):  # then it is time to look for others' commands, or to flush
                    async with asyncio.timeout(pause_s):
                        await self._news.wait()
        except Exception as error:
            # Not survived: this node's metadata stands still from here, and whoever asks for more is told so.
            self._failure = error
            log.exception("metadata stops at position=%d", self._position)
            self._fail_waiters(_stopped(error))

    async def _catch_up(self) -> None:
        """Apply what the log holds now. An empty read says nothing about the end, so the end is asked for."""
        end = await self._log.end(METADATA_PARTITION)
        while self._position < end:
            batch = await self._log.read(METADATA_PARTITION, self._position, METADATA_RECORDS_PER_READ_MAX)
            if not batch.records and batch.position == self._position:
                await asyncio.sleep(METADATA_RETRY_PAUSE_S)
                continue
            before, outcomes = self._state, list[tuple[RequestId, MetadataOutcome]]()
            for record in batch.records:
                command: MetadataCommand = codec.decode(record.payload)
                self._state, outcome = apply(self._state, command, record.timestamp_ms)
                outcomes.append((command.request, outcome))
                self._applied = record.offset
            self._position = batch.position
            self._store.write(_changes(before, self._state, self._position, self._applied))
            self._unflushed += len(batch.records)
            if self._flush_due_s is None:
                self._flush_due_s = asyncio.get_running_loop().time() + FLUSH_MS / 1000
            if self._state.version != before.version:
                self._schema = self._build(Known(before.deployments, before.patches, self._schema))
                for listener in self._listeners:
                    listener(self._schema)
            for request, outcome in outcomes:
                waiter = self._waiters.get(request)
                if waiter is not None and not waiter.done():
                    waiter.set_result(outcome)

    async def _flush(self) -> None:
        position = self._position
        self._unflushed, self._flush_due_s = 0, None
        await self._log.sync()
        try:
            await self._run_blocking(self._store.flush)
        except StoreFull as error:
            log.warning("the metadata is not flushed: %s", error)
            self._flush_due_s = asyncio.get_running_loop().time() + FLUSH_MS / 1000  # the log keeps it until then
            return
        if self._trim:
            self._log.trim(METADATA_PARTITION, position)

    def _build(self, known: Known | None) -> Schema:
        state = self._state
        return build_schema(state.version, state.deployments, state.patches, self._defaults, known)

    def _fail_waiters(self, reason: str) -> None:
        for waiter in self._waiters.values():
            if not waiter.done():
                waiter.set_result(MetadataUnavailable(reason, may_have_applied=True))


def _stopped(failure: Exception) -> str:
    return f"this node no longer follows the metadata log: {failure}"


def _load(store: KeyValue) -> tuple[MetadataState, Offset, Offset]:
    stored = store.get(_HEAD)
    if stored is None:
        return MetadataState(), Offset(0), Offset(-1)
    head: Head = codec.decode(stored)
    state = MetadataState(
        version=head.version,
        layout=head.layout,
        deployments={
            DeploymentId(key[1:].decode()): codec.decode(row)
            for key, row in store.scan(_DEPLOYMENT, _after(_DEPLOYMENT))
        },
        patches={key[1:].decode(): codec.decode(row) for key, row in store.scan(_PATCH, _after(_PATCH))},
        skips=head.skips,
        answers=head.answers,
    )
    return state, head.position, head.applied


def _changes(before: MetadataState, after: MetadataState, position: Offset, applied: Offset) -> Rows:
    """The rows in which two states differ; what did not change is the same object in both."""
    head = Head(position, applied, after.version, after.layout, after.skips, after.answers)
    changes: Rows = {_HEAD: codec.encode(head)}
    changes.update(_table_changes(_DEPLOYMENT, before.deployments, after.deployments))
    changes.update(_table_changes(_PATCH, before.patches, after.patches))
    return changes


def _table_changes(prefix: bytes, old: Mapping[N, object], new: Mapping[N, object]) -> Rows:
    changes: Rows = {prefix + name.encode(): codec.encode(row) for name, row in new.items() if old.get(name) is not row}
    changes.update({prefix + name.encode(): None for name in old if name not in new})
    return changes


def _after(prefix: bytes) -> bytes:
    return bytes([prefix[0] + 1])

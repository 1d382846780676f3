"""◐ shell · The life of one partition on this node: read → apply → commit → act."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from typing import Protocol

from perdure_processor.clock import Clock
from perdure_processor.leader.leader import Leader, LeaderServices
from perdure_processor.log import Appended, Log, Outcome
from perdure_processor.log.tail import Done, Tail
from perdure_processor.metrics import Metrics
from perdure_processor.model import codec
from perdure_processor.model.commands import AnnounceLeader, Envelope
from perdure_processor.model.errors import AheadOfLog, CorruptStore, PartitionStopped, StoreFull
from perdure_processor.model.ids import LeaderEpoch, NodeId, Offset, PartitionId
from perdure_processor.model.limits import ANNOUNCE_AGAIN_S, FLUSH_BYTES, FLUSH_MS, RECORDS_PER_BATCH_MAX
from perdure_processor.state_machine.machine import AppliedRecord, Elected, Machine
from perdure_processor.state_machine.partition import group_of
from perdure_processor.storage import keys
from perdure_processor.storage.keyvalue import KeyValue
from perdure_processor.storage.records import StoreIdentity
from perdure_processor.storage.tables import Tables

logger = logging.getLogger(__name__)

MACHINE_VERSION = 1  # what apply means; any change of that is a new version (correctness 25)


class RunBlocking(Protocol):
    """Runs something slow (a flush) off the loop; the simulator runs it in place."""

    def __call__(self, work: Callable[[], None]) -> Awaitable[None]: ...


class Processor:
    """One partition: its tail of the log, its tables, its machine, and the leader while this node leads."""

    def __init__(
        self,
        partition: PartitionId,
        identity: StoreIdentity,
        *,
        node: NodeId,
        log: Log,
        store: KeyValue,
        clock: Clock,
        services: LeaderServices,
        run_blocking: RunBlocking,
        random_bytes: Callable[[int], bytes],
        skipped: frozenset[Offset],
        stopped: Callable[[PartitionId, BaseException], None],
        metrics: Metrics,
    ) -> None:
        check_identity(store, identity)
        self.partition = partition
        self.store = store
        self.leader: Leader | None = None
        self._node = node
        self._log = log
        self._clock = clock
        self._services = services
        self._run_blocking = run_blocking
        self._random_bytes = random_bytes
        self._stopped = stopped
        self._metrics = metrics
        self._tables = Tables(store)
        self._machine = Machine(self._tables, partition, identity.partitions, skipped)
        self._loop = asyncio.get_running_loop()
        self.tail = Tail(
            log,
            partition,
            Offset(self._tables.progress.position),
            deliver=self._apply,
            failed=self._stop,
            new_group=lambda: group_of(clock.now_ms(), random_bytes(8)),
        )
        # The claim that was appended and not yet read back; only it may lead (correctness 21).
        self._claim: AnnounceLeader | None = None
        self._unflushed_bytes = 0
        self._flushed_ms = clock.monotonic_ms()
        self._flushing = False
        self._closed = False
        self.failure: BaseException | None = None
        # The record whose apply raised, when a bug stopped the partition: an operator may skip it (correctness 26).
        self.stopped_at: Offset | None = None

    # -- life ------------------------------------------------------------------
    async def start(self) -> None:
        """Catch up with the log, then claim leadership; returns when this node leads or has failed."""
        end = await self._log.end(self.partition)
        if self._tables.progress.position > end:
            raise AheadOfLog(
                f"partition {self.partition}: the store has applied up to {self._tables.progress.applied}, "
                f"the log ends at {end}: it is not the log that this store was written from"
            )
        await self.tail.catch_up()
        self._announce()

    def close(self) -> None:
        """Stop acting. What is in flight in the log is applied by whoever comes next."""
        self._closed = True
        self._end_term("the node stops")
        self.tail.close()

    async def flush(self) -> None:
        """Make the tables durable and let the log forget what they cover; where there is no room, later."""
        self._flushing = True
        position = Offset(self._tables.progress.position)
        unflushed_bytes, self._unflushed_bytes = self._unflushed_bytes, 0
        self._flushed_ms = self._clock.monotonic_ms()
        try:
            await self._log.sync()  # the store never gets ahead of what a power cut leaves of the log
            await self._run_blocking(self.store.flush)
            self._log.trim(self.partition, position)
        except StoreFull as error:
            # The log keeps what is not flushed; the next sweep tries again.
            logger.warning("not flushed partition=%d reason=%s", self.partition, error)
            self._unflushed_bytes += unflushed_bytes
        except Exception as error:
            self._stop(error)
        finally:
            self._flushing = False

    def sweep(self) -> None:
        """Called about once a second: flush when it is time, let the leader look after what is due."""
        if self.failure is not None or self._closed:
            return
        due = self._unflushed_bytes and self._clock.monotonic_ms() - self._flushed_ms >= FLUSH_MS
        if not self._flushing and (due or self._unflushed_bytes >= FLUSH_BYTES):
            self._loop.create_task(self.flush())
        if self.leader is not None:
            self.leader.sweep()

    def append(self, envelope: Envelope, done: Done | None) -> int:
        """Append a command of a client or of another partition. Raises TooLarge."""
        return self.tail.append(envelope, done)

    @property
    def position(self) -> Offset:
        """Everything before it is applied and committed."""
        return Offset(self._tables.progress.position)

    # -- apply -----------------------------------------------------------------
    def _apply(self, records: Sequence[AppliedRecord]) -> None:
        if self.failure is not None or self._closed:
            return
        try:
            while records:
                records = records[self._apply_batch(records[:RECORDS_PER_BATCH_MAX]) :]
        except BaseException as error:
            self._stop(error)

    def _apply_batch(self, records: Sequence[AppliedRecord]) -> int:
        tables = self._tables
        tables.begin()
        batch = self._machine.apply_all(records)
        changes = tables.finish()
        self.store.write(changes)
        for value in changes.values():
            self._unflushed_bytes += 64 if value is None else 64 + len(value)
        metrics = self._metrics
        metrics.records_applied += batch.taken
        metrics.batches_applied += 1
        if batch.elected is not None:
            self._on_elected(batch.elected)
        elif self.leader is not None:
            self.leader.on_applied(tables.progress, batch.actions)
        return batch.taken

    def _stop(self, error: BaseException) -> None:
        """A broken apply is never survived: this replica would disagree, silently."""
        if self.failure is not None:
            return
        self.failure = error
        applied = self._tables.progress.applied
        if isinstance(error, PartitionStopped):
            logger.error("partition stopped partition=%d applied=%d reason=%s", self.partition, applied, error)
        else:
            self.stopped_at = Offset(applied)
            logger.critical(
                "partition stopped by a bug partition=%d offset=%d: please report it; "
                "to go on without this record: perdure partitions skip %d %d",
                self.partition,
                applied,
                self.partition,
                applied,
                exc_info=error,
            )
        self._end_term(f"the partition stopped: {error}")
        self._stopped(self.partition, error)

    # -- leadership ------------------------------------------------------------
    def _announce(self) -> None:
        if self._closed or self.failure is not None:
            return
        nonce = int.from_bytes(self._random_bytes(8), "big")
        self._claim = AnnounceLeader(self._node, LeaderEpoch(self._tables.progress.epoch + 1), nonce)
        self.tail.append(Envelope(None, None, self._claim), self._on_announced)

    def _on_announced(self, outcome: Outcome) -> None:
        if type(outcome) is not Appended:
            logger.warning("claim not recorded partition=%d outcome=%s", self.partition, outcome)
            self._claim = None
            self._announce_later()

    def _announce_later(self) -> None:
        if not self._closed:
            self._loop.call_later(ANNOUNCE_AGAIN_S, self._claim_again)

    def _claim_again(self) -> None:
        if self.leader is None and self._claim is None:
            # An append whose outcome was unknown may lie in the log: read it before claiming the next epoch.
            self.tail.poll()
            self._announce()

    def _on_elected(self, elected: Elected) -> None:
        self._end_term(f"epoch {elected.epoch} began")
        claim, self._claim = self._claim, None
        if claim is None or (elected.node, elected.epoch, elected.nonce) != (self._node, claim.epoch, claim.nonce):
            self._announce_later()
            return
        self.leader = Leader(
            self.partition,
            elected.epoch,
            tail=self.tail,
            store=self.store,
            clock=self._clock,
            services=self._services,
            deposed=self._on_deposed,
            metrics=self._metrics,
        )
        logger.debug("leader partition=%d epoch=%d", self.partition, elected.epoch)
        self.leader.start(self._tables.progress)

    def _on_deposed(self, reason: str) -> None:
        """The leader ended its own term: an append of it failed or has an unknown outcome."""
        self._end_term(reason)
        self._announce_later()

    def _end_term(self, reason: str) -> None:
        leader, self.leader = self.leader, None
        if leader is not None:
            logger.info("term ended partition=%d epoch=%d reason=%s", self.partition, leader.epoch, reason)
            leader.close()


def check_identity(store: KeyValue, identity: StoreIdentity) -> None:
    """Write the identity into a new store, compare it in an old one."""
    data = store.get(keys.metadata("identity"))
    if data is None:
        store.write({keys.metadata("identity"): codec.encode(identity)})
        return
    found = codec.decode(data)
    if found != identity:
        raise CorruptStore(f"the store belongs to {found}, this node is {identity}")

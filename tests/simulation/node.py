"""One life of the node: what `perdure_server.node` wires, over fakes that crash, fill up and forget."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

from perdure_processor.cluster.metadata import Metadata
from perdure_processor.host import Host
from perdure_processor.invoker.invoker import Invoker, InvokerOptions
from perdure_processor.leader.leader import LeaderServices
from perdure_processor.log import Appended, Outcome, Record
from perdure_processor.log.memory import MemoryLog, StoredRecords
from perdure_processor.metrics import Metrics
from perdure_processor.model.actions import Answer
from perdure_processor.model.ids import Millis, NodeId, PartitionId
from perdure_processor.model.resolution import Defaults
from perdure_processor.model.results import RequestId
from perdure_processor.processor import MACHINE_VERSION, Processor
from perdure_processor.storage.memory import MemoryKeyValue
from perdure_processor.storage.records import StoreIdentity
from perdure_server.ingress.dispatcher import LogDispatcher
from simulation.loop import Life
from simulation.network import NodeTransport

if TYPE_CHECKING:
    from simulation.world import World

BEGINNING_MS = 1_800_000_000_000  # the wall clock's first moment
METADATA_STORE = PartitionId(-1)
FLUSH_TAKES_S_MAX = 0.05


class NodeDown(Exception):
    """The node died, or was dead, while a client waited for it."""


class VirtualClock:
    """The Clock port. The wall clock can be put forward and back, the other one cannot."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self.step_ms = 0

    def now_ms(self) -> Millis:
        return Millis(BEGINNING_MS + self.step_ms + self.monotonic_ms())

    def monotonic_ms(self) -> int:
        # Half a microsecond makes up for sums of fractions: a timer never comes a millisecond early.
        return int(self._loop.time() * 1000 + 0.0005)


class History(StoredRecords):
    """The stored records, and all there ever were: trimming does not reach these."""

    def __init__(self, trace: Callable[[str], None]) -> None:
        super().__init__()
        self.all: dict[PartitionId, list[Record]] = {}
        self.counts: dict[str, int] = {}
        self._trace = trace

    def add(self, partition: PartitionId, payload: bytes, now_ms: Millis, gap: int) -> Appended:
        appended = super().add(partition, payload, now_ms, gap)
        self.all.setdefault(partition, []).append(Record(appended.offset, appended.timestamp_ms, payload))
        digest = hashlib.blake2b(payload, digest_size=8).hexdigest()
        self._trace(f"append {partition} {appended.offset} {appended.timestamp_ms} {digest}")
        return appended


class NodeLog(MemoryLog):
    """A node's connection to the log; counts its bad news, and tells when it refuses everything until a restart."""

    poisoned: Callable[[], None] | None = None

    def append(self, partition: PartitionId, payload: bytes, done: Callable[[Outcome], None]) -> None:
        def counted(outcome: Outcome) -> None:
            if not isinstance(outcome, Appended):
                name = type(outcome).__name__.lower()
                counts[name] = counts.get(name, 0) + 1
            done(outcome)

        assert isinstance(self.stored, History)
        counts = self.stored.counts
        super().append(partition, payload, counted)

    def poison(self, reason: str) -> None:
        super().poison(reason)
        if self.poisoned is not None:
            self.poisoned()


class ObservedStore:
    """The KeyValue port over a crashable store, seen by the checker."""

    def __init__(self, world: World, partition: PartitionId, inner: MemoryKeyValue) -> None:
        self._world = world
        self._partition = partition
        self.inner = inner

    def get(self, key: bytes) -> bytes | None:
        return self.inner.get(key)

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        return self.inner.scan(low, high)

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        self.inner.write(changes)
        self._world.checker.committed(self._partition, changes)
        self._world.on_write()

    def flush(self) -> None:
        self.inner.flush()

    def close(self) -> None:
        self.inner.close()


class Node:
    """One life of the node: what `perdure_server.node` wires, over fakes."""

    def __init__(self, world: World, number: int) -> None:
        self.world = world
        self.life = Life(f"node {number}")
        self.id = NodeId("node", world.node_draw.getrandbits(63))
        self.metrics = Metrics()
        self.stores: dict[PartitionId, ObservedStore] = {}
        self.waiting: dict[asyncio.Future[Any], None] = {}
        self.log = self.life.call(self._open_log)
        self.metadata: Metadata
        self.host: Host
        self.dispatcher: LogDispatcher

    def _open_log(self) -> NodeLog:
        world = self.world
        log = NodeLog(world.history, clock=world.clock, faults=world.weather, chooser=world.log_draw)
        log.poisoned = world.on_poisoned
        return log

    def open_store(self, partition: PartitionId) -> ObservedStore:
        world = self.world
        inner = world.disks.get(partition) or MemoryKeyValue(crashable=True)
        store = self.stores[partition] = ObservedStore(world, partition, inner)
        if partition != METADATA_STORE:
            world.checker.opened(partition, store)
        return store

    async def start(self) -> None:
        world, options = self.world, self.world.options
        # Retries and resumptions are the node's business; what a client must know is when it can ask.
        self.metadata = Metadata(
            self.log, self.open_store(METADATA_STORE), self.id, Defaults(), run_blocking=self._run_blocking
        )
        layout = await self.metadata.start("sim", options.partitions)
        invoker = Invoker(
            NodeTransport(world.network, self.life),
            lambda: self.metadata.schema,
            world.clock,
            InvokerOptions(
                protocol_v7=options.protocol_v7,
                attempts_max=options.attempts_max,
                attempts_per_deployment_max=max(1, options.attempts_max - 1),
                effect_bytes_in_flight_max=options.effect_bytes_in_flight_max,
                eager_state_bytes_max=options.eager_state_bytes_max,
            ),
            random=world.node_draw.random,
            metrics=self.metrics,
        )
        self.host = Host(layout.partitions)
        self.dispatcher = LogDispatcher(
            self.host, self.id, world.clock, random_bits=world.node_draw.getrandbits, metrics=self.metrics
        )
        services = LeaderServices(invoker, self.host.append, self._respond)

        def build(partition: PartitionId) -> Processor:
            return Processor(
                partition,
                StoreIdentity(layout.cluster_id, "log", partition, layout.partitions, MACHINE_VERSION),
                node=self.id,
                log=self.log,
                store=self.open_store(partition),
                clock=world.clock,
                services=services,
                run_blocking=self._run_blocking,
                random_bytes=world.node_draw.randbytes,
                skipped=self.metadata.skipped(partition),
                stopped=self._on_stopped,
                metrics=self.metrics,
            )

        await self.host.start(build)

    async def _run_blocking(self, work: Callable[[], None]) -> None:
        await asyncio.sleep(self.world.node_draw.uniform(0, FLUSH_TAKES_S_MAX))
        work()

    def _respond(self, request: RequestId, answer: Answer) -> None:
        if not self.world.network.happens("lost_reply"):
            self.dispatcher.respond(request, answer)

    def _on_stopped(self, partition: PartitionId, error: BaseException) -> None:
        self.world.checker.violated(f"partition {partition} stopped: {type(error).__name__}: {error}")

    def die(self) -> None:
        """The power goes: of everything in memory nothing is left, of the disk what was synced, and some more."""
        self.life.die()
        self.log.crash()
        self.world.network.died(self.life)
        for partition, store in self.stores.items():
            kept = self.world.node_draw.randint(0, store.inner.unflushed)
            self.world.disks[partition] = store.inner.crash(kept)
        waiting, self.waiting = self.waiting, {}
        for future in waiting:
            if not future.done():
                future.set_exception(NodeDown())

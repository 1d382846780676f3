"""One record that makes apply raise must not be for ever (correctness 26)."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest

from perdure_processor.clock import SystemClock
from perdure_processor.cluster.metadata import Metadata
from perdure_processor.host import Host
from perdure_processor.invoker.invoker import Invoker, InvokerOptions
from perdure_processor.invoker.memory_transport import MemoryTransport
from perdure_processor.leader.leader import LeaderServices
from perdure_processor.log.memory import MemoryLog, StoredRecords
from perdure_processor.metrics import Metrics
from perdure_processor.model import codec
from perdure_processor.model.commands import AttemptEffects, Envelope, Invoke
from perdure_processor.model.ids import NodeId, PartitionId, slot_of
from perdure_processor.model.resolution import Defaults
from perdure_processor.processor import MACHINE_VERSION, Processor
from perdure_processor.storage import keys
from perdure_processor.storage.memory import MemoryKeyValue
from perdure_processor.storage.records import StoreIdentity
from perdure_server.admin.queries import SkipRefused
from perdure_server.admin.store_queries import StoreQueries
from support.builders import invoke

NODE = NodeId("n", 1)
PARTITION = PartitionId(0)


class KeptStore(MemoryKeyValue):
    """Stays when its processor closes it, as a directory does."""

    def close(self) -> None:
        """Nothing to let go of."""


class Node:
    """One partition, its metadata and nothing listening."""

    def __init__(self) -> None:
        self.clock = SystemClock()
        self.log = MemoryLog(StoredRecords(), clock=self.clock)
        self.store = KeptStore()
        self.host = Host(1)
        self.stopped: list[BaseException] = []

    async def start(self) -> None:
        async def at_once(work: Callable[[], None]) -> None:
            work()

        metrics = Metrics()
        self.metadata = Metadata(self.log, MemoryKeyValue(), NODE, Defaults(), run_blocking=at_once)
        await self.metadata.start("cluster", 1)
        self.invoker = Invoker(
            MemoryTransport(),
            lambda: self.metadata.schema,
            self.clock,
            InvokerOptions(),
            random=lambda: 0.0,
            metrics=metrics,
        )
        services = LeaderServices(self.invoker, self.host.append, lambda request, answer: None)

        def build(partition: PartitionId) -> Processor:
            return Processor(
                partition,
                StoreIdentity("cluster", "log", partition, 1, MACHINE_VERSION),
                node=NODE,
                log=self.log,
                store=self.store,
                clock=self.clock,
                services=services,
                run_blocking=at_once,
                random_bytes=bytes,
                skipped=self.metadata.skipped(partition),
                stopped=lambda _, error: self.stopped.append(error),
                metrics=metrics,
            )

        await self.host.start(build)
        self.queries = StoreQueries(self.host, self.invoker, self.metadata)

    async def append(self, command: Invoke | AttemptEffects) -> None:
        """Append, and give the record time to be applied."""
        recorded = asyncio.get_running_loop().create_future()
        self.host.append(PARTITION, Envelope(slot_of(command.id), None, command), recorded.set_result)
        await recorded
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def stop(self) -> None:
        await self.host.stop()
        await self.invoker.close()
        await self.metadata.stop()


def test_a_poisonous_record_stops_its_partition_until_it_is_skipped() -> None:
    async def scenario() -> None:
        node = Node()
        await node.start()
        first, second = (invoke(name=name, issued_ms=node.clock.now_ms()) for name in ("A", "B"))
        await node.append(first)
        row = codec.decode(node.store.get(keys.invocation(first.id)) or b"")
        # No attempt begins with its ninth command: apply asserts that, and stops.
        await node.append(AttemptEffects(first.id, row.incarnation, row.attempt, 9, []))
        assert [type(error) for error in node.stopped] == [AssertionError]
        (shown,) = node.queries.list_partitions()
        poison = shown["stopped_at"]
        assert "AssertionError" in shown["failure"]
        await node.append(second)
        assert node.host.unhealthy() is not None

        with pytest.raises(SkipRefused, match=f"offset {poison}"):
            await node.queries.skip_record(PARTITION, poison - 1)
        await node.queries.skip_record(PARTITION, poison)
        await node.append(second)

        assert len(node.stopped) == 1
        assert node.metadata.skipped(PARTITION) == frozenset([poison])
        assert node.store.get(keys.invocation(first.id)) is not None
        assert node.store.get(keys.invocation(second.id)) is not None
        await node.stop()

    asyncio.run(scenario())


def test_only_a_partition_that_a_record_stopped_skips() -> None:
    async def scenario() -> None:
        node = Node()
        await node.start()
        with pytest.raises(SkipRefused, match="was not stopped by a record"):
            await node.queries.skip_record(PARTITION, 0)
        await node.stop()

    asyncio.run(scenario())

"""◐ shell · Which partitions run on this node: starts them, routes appends to them, stops them together."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from perdure_processor.log import Outcome, Refused
from perdure_processor.log.tail import Done
from perdure_processor.model.commands import Envelope
from perdure_processor.model.ids import InvocationId, PartitionId, partition_of_slot, slot_of
from perdure_processor.model.limits import HOST_SWEEP_S
from perdure_processor.processor import Processor


class Host:
    """The partitions of one node."""

    def __init__(self, partitions: int, *, sweep_s: float = HOST_SWEEP_S) -> None:
        self.partitions = partitions
        self.processors: dict[PartitionId, Processor] = {}
        self._loop = asyncio.get_running_loop()
        self._sweep_s = sweep_s
        self._sweep_handle: asyncio.TimerHandle | None = None
        self._build: Callable[[PartitionId], Processor] | None = None

    async def start(self, build: Callable[[PartitionId], Processor]) -> None:
        """Start every partition; each catches up with the log before the next one begins."""
        self._build = build
        for number in range(self.partitions):
            partition = PartitionId(number)
            processor = build(partition)
            self.processors[partition] = processor
            await processor.start()
        self._sweep_handle = self._loop.call_later(self._sweep_s, self._sweep)

    async def restart(self, partition: PartitionId) -> None:
        """Begin a stopped partition anew from what it has committed, e.g. with a record to skip."""
        stopped = self.processors[partition]
        assert stopped.failure is not None, f"partition {partition} runs"
        assert self._build is not None
        stopped.close()
        stopped.store.close()
        processor = self.processors[partition] = self._build(partition)
        await processor.start()

    def partition_of(self, invocation_id: InvocationId) -> PartitionId:
        return partition_of_slot(slot_of(invocation_id), self.partitions)

    def append(self, partition: PartitionId, envelope: Envelope, done: Done) -> int:
        """Append to a partition's log. A stopped partition refuses. Raises TooLarge."""
        processor = self.processors.get(partition)
        if processor is None or processor.failure is not None:
            reason = "not on this node" if processor is None else f"stopped: {processor.failure}"
            refused: Outcome = Refused(f"partition {partition} is {reason}")
            self._loop.call_soon(done, refused)
            return 0
        return processor.append(envelope, done)

    def unhealthy(self) -> str | None:
        """Why this node does not serve everything, or None."""
        for partition, processor in self.processors.items():
            if processor.failure is not None:
                return f"partition {partition} stopped: {processor.failure}"
            if processor.leader is None:
                return f"partition {partition} has no leader"
        return None

    def _sweep(self) -> None:
        for processor in self.processors.values():
            processor.sweep()
        self._sweep_handle = self._loop.call_later(self._sweep_s, self._sweep)

    async def stop(self) -> None:
        """End all terms and make the tables durable, so that the next start is quick."""
        if self._sweep_handle is not None:
            self._sweep_handle.cancel()
        for processor in self.processors.values():
            processor.close()
        for processor in self.processors.values():
            if processor.failure is None:
                await processor.flush()
            processor.store.close()

"""◐ shell · Reads over the partitions of this node, for the admin API: what is committed now."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from perdure.protocol import ids
from perdure_processor.cluster.metadata import Metadata
from perdure_processor.cluster.metadata_machine import Rejected, SkipRecord
from perdure_processor.host import Host
from perdure_processor.invoker.invoker import Invoker
from perdure_processor.model import codec
from perdure_processor.model.ids import InvocationId, Millis, Offset, PartitionId
from perdure_processor.processor import Processor
from perdure_processor.storage import keys
from perdure_processor.storage.records import Completed, InvocationRow, Live, Proof
from perdure_processor.storage.tables import read_invocation, read_segments
from perdure_server.admin.invocation_rows import invocation_row, journal_rows, status_of
from perdure_server.admin.queries import InFlight, QueryUnavailable, SkipRefused
from perdure_server.limits import QUERY_ROWS_PER_TURN


class StoreQueries:
    """The Queries port of admin/queries.py over the stores of this node."""

    def __init__(self, host: Host, invoker: Invoker, metadata: Metadata) -> None:
        self._host = host
        self._metadata = metadata
        self._invoker = invoker

    async def get_invocation(self, invocation_id: bytes) -> tuple[dict[str, Any], list[dict[str, Any]]] | None:
        found = InvocationId(invocation_id)
        processor = self._serving(self._host.processors[self._host.partition_of(found)])
        row = read_invocation(processor.store, found)
        if row is None or isinstance(row, Proof):
            return None
        segments = read_segments(processor.store, found, row.segments)
        return invocation_row(found, row, self._invoker.has(found)), journal_rows(segments)

    async def service_of(self, invocation_id: bytes) -> str | None:
        found = InvocationId(invocation_id)
        processor = self._serving(self._host.processors[self._host.partition_of(found)])
        row = read_invocation(processor.store, found)
        return row.target.service if isinstance(row, Live | Completed) else None

    async def in_flight(self, deployment_id: str) -> InFlight:
        by_service: dict[str, int] = {}
        oldest_ms: Millis | None = None
        seen = 0
        for processor in list(self._host.processors.values()):
            for _, data in self._serving(processor).store.scan(keys.INVOCATION, keys.end_of(keys.INVOCATION)):
                seen += 1
                if seen % QUERY_ROWS_PER_TURN == 0:
                    await asyncio.sleep(0)
                row = cast(InvocationRow, codec.decode(data))
                if type(row) is Live and row.deployment_id == deployment_id:
                    service = row.target.service
                    by_service[service] = by_service.get(service, 0) + 1
                    if oldest_ms is None or row.created_ms < oldest_ms:
                        oldest_ms = row.created_ms
        return InFlight(by_service, oldest_ms)

    async def list_invocations(
        self, service: str | None, handler: str | None, key: str | None, status: str | None, limit: int
    ) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = []
        low, high = keys.INVOCATION, keys.end_of(keys.INVOCATION)
        if key is not None:
            # A key's invocations share its partition key, which their ids begin with.
            low = keys.INVOCATION + ids.partition_key_of_key(key).to_bytes(8, "big")
            high = keys.end_of(low)
        seen = 0
        for processor in list(self._host.processors.values()):
            for name, data in self._serving(processor).store.scan(low, high):
                seen += 1
                if seen % QUERY_ROWS_PER_TURN == 0:
                    await asyncio.sleep(0)
                row = cast(InvocationRow, codec.decode(data))
                if isinstance(row, Proof):
                    continue
                invocation_id = InvocationId(name[len(keys.INVOCATION) :])
                running = self._invoker.has(invocation_id)
                if _fits(row, service, handler, key) and (status is None or status_of(row, running) == status):
                    rows.append(invocation_row(invocation_id, row, running))
                    if len(rows) == limit:
                        return rows
        return rows

    def list_partitions(self) -> list[dict[str, Any]]:
        return [_partition_row(processor) for processor in self._host.processors.values()]

    async def skip_record(self, partition: int, offset: int) -> dict[str, Any]:
        processor = self._host.processors[PartitionId(partition)]
        if processor.stopped_at is None:
            raise SkipRefused(f"partition {partition} was not stopped by a record")
        if processor.stopped_at != offset:
            raise SkipRefused(f"partition {partition} was stopped by the record at offset {processor.stopped_at}")
        outcome = await self._metadata.change(
            lambda state, request_id: SkipRecord(request_id, processor.partition, Offset(offset))
        )
        if isinstance(outcome, Rejected):
            raise SkipRefused(outcome.message)
        await self._host.restart(processor.partition)
        return _partition_row(self._host.processors[processor.partition])

    def _serving(self, processor: Processor) -> Processor:
        if processor.failure is not None:
            raise QueryUnavailable(f"partition {processor.partition} stopped: {processor.failure}")
        return processor


def _partition_row(processor: Processor) -> dict[str, Any]:
    row: dict[str, Any] = {"id": processor.partition, "position": processor.position}
    if processor.leader is not None:
        row["leader_epoch"] = processor.leader.epoch
    if processor.failure is not None:
        row["failure"] = f"{type(processor.failure).__name__}: {processor.failure}"
    if processor.stopped_at is not None:
        row["stopped_at"] = processor.stopped_at
    return row


def _fits(row: Live | Completed, service: str | None, handler: str | None, key: str | None) -> bool:
    target = row.target
    return (
        (service is None or target.service == service)
        and (handler is None or target.handler == handler)
        and (key is None or target.key == key)
    )

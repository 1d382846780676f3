"""An admin API on loopback over a memory log, with endpoints and invocations that a test makes up."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any

import aiohttp

from perdure.protocol.manifest import manifest_content_type
from perdure_processor.clock import SystemClock
from perdure_processor.cluster.metadata import Metadata
from perdure_processor.invoker.transport import Address
from perdure_processor.log.memory import MemoryLog
from perdure_processor.model.actions import Answer
from perdure_processor.model.commands import OperatorCommand
from perdure_processor.model.ids import Millis, NodeId
from perdure_processor.model.resolution import Defaults
from perdure_processor.model.results import RequestId
from perdure_processor.storage.memory import MemoryKeyValue
from perdure_server.admin.app import AdminServer
from perdure_server.admin.discovery import Discovered, DiscoveryError
from perdure_server.admin.queries import InFlight, QueryUnavailable, SkipRefused
from perdure_server.admin.sql.routes import Sql
from perdure_server.ingress.requests import Overloaded, Unavailable

Json = dict[str, Any]


async def at_once(work: Callable[[], None]) -> None:
    work()


class Endpoints:
    """What is listening where: a manifest, another answer, or nobody."""

    def __init__(self) -> None:
        self.answers: dict[str, bytes | Discovered] = {}
        self.asked: list[tuple[Address, dict[str, str]]] = []
        self.silent = asyncio.Event()

    async def __call__(self, address: Address, additional_headers: Mapping[str, str]) -> Discovered:
        self.asked.append((address, dict(additional_headers)))
        if address.uri.startswith("http://silent"):
            await self.silent.wait()
        answer = self.answers.get(address.uri)
        if answer is None:
            raise DiscoveryError("META0003", f"error when calling {address.uri}/discover: nobody listens")
        if isinstance(answer, Discovered):
            return answer
        return Discovered(manifest_content_type(4), "restate-sdk-python/1.3.0", answer)


class Invocations:
    """The partitions' side of the admin API."""

    def __init__(self) -> None:
        self.rows: dict[bytes, tuple[Json, list[Json]]] = {}
        self.listed: list[tuple[Any, ...]] = []
        self.unavailable: str | None = None

    async def get_invocation(self, invocation_id: bytes) -> tuple[Json, list[Json]] | None:
        if self.unavailable is not None:
            raise QueryUnavailable(self.unavailable)
        return self.rows.get(invocation_id)

    async def in_flight(self, deployment_id: str) -> InFlight:
        pinned = [row for row, _ in self.rows.values() if row.get("pinned_deployment_id") == deployment_id]
        services = [row["target_service_name"] for row in pinned]
        oldest_ms = min((Millis(row["created_ms"]) for row in pinned), default=None)
        return InFlight({name: services.count(name) for name in services}, oldest_ms)

    async def service_of(self, invocation_id: bytes) -> str | None:
        found = await self.get_invocation(invocation_id)
        return None if found is None else found[0]["target_service_name"]

    async def list_invocations(
        self, service: str | None, handler: str | None, key: str | None, status: str | None, limit: int
    ) -> list[Json]:
        self.listed.append((service, handler, key, status, limit))
        return [row for row, _ in self.rows.values()]


class StoppedPartition:
    """Partition 3 was stopped by the record at offset 17; skipping that one mends it."""

    def __init__(self) -> None:
        self.stopped_at: int | None = 17

    def list_partitions(self) -> list[Json]:
        row: Json = {"id": 3, "position": 17}
        return [row if self.stopped_at is None else {**row, "stopped_at": self.stopped_at}]

    async def skip_record(self, partition: int, offset: int) -> Json:
        if partition != 3:
            raise KeyError(partition)
        if offset != self.stopped_at:
            raise SkipRefused(f"partition 3 was stopped by the record at offset {self.stopped_at}")
        self.stopped_at = None
        return self.list_partitions()[0]


class Operator:
    """The log's side of an operator's verbs: what was asked, and what a test has it answer."""

    def __init__(self) -> None:
        self.asked: list[OperatorCommand] = []
        self.answers: list[Answer | Unavailable | Overloaded] = []

    async def operate(self, make: Callable[[RequestId, Millis], OperatorCommand]) -> Answer | Unavailable | Overloaded:
        self.asked.append(make(RequestId("n", 1, len(self.asked) + 1), Millis(0)))
        return self.answers.pop(0)


class Tables:
    """The SQL side: whatever a test puts there, or else the question is the answer."""

    def __init__(self) -> None:
        self.sql: Sql | None = None

    async def query(self, sql: str, as_json: bool) -> AsyncGenerator[bytes, None]:
        if self.sql is None:
            yield sql.encode()
            return
        async with contextlib.aclosing(self.sql.query(sql, as_json)) as pieces:
            async for piece in pieces:
                yield piece


class Admin:
    """A running admin API and everything behind it."""

    http: aiohttp.ClientSession
    server: AdminServer

    def __init__(self, metadata: Metadata, log: MemoryLog) -> None:
        self.metadata = metadata
        self.log = log
        self.endpoints = Endpoints()
        self.invocations = Invocations()
        self.partitions = StoppedPartition()
        self.operator = Operator()
        self.tables = Tables()

    async def json(self, method: str, path: str, body: Any = None, *, status: int = 200) -> Any:
        """The JSON answer of a request that must end with `status`."""
        async with self.http.request(method, path, json=body) as answer:
            text = await answer.text()
            assert answer.status == status, text
            assert answer.content_type == "application/json"
            return await answer.json()

    async def text(
        self, method: str, path: str, body: bytes | None = None, content_type: str | None = "application/json"
    ) -> tuple[int, str]:
        """Status and text of an answer that is plain text or empty."""
        skipped = ["content-type"] if content_type is None else []
        headers = {} if content_type is None else {"content-type": content_type}
        async with self.http.request(method, path, data=body, headers=headers, skip_auto_headers=skipped) as answer:
            text = await answer.text()
            assert answer.content_type != "application/json", text
            return answer.status, text

    async def register(self, uri: str, *, status: int = 201, prefix: str = "", **options: Any) -> Json:
        found: Json = await self.json("POST", f"{prefix}/deployments", {"uri": uri, **options}, status=status)
        return found

    async def revisions(self) -> dict[str, tuple[str, int]]:
        """Where each service is served now, and at which revision, as the API says."""
        listed = await self.json("GET", "/services")
        return {each["name"]: (each["deployment_id"], each["revision"]) for each in listed["services"]}


@contextlib.asynccontextmanager
async def running_admin() -> AsyncIterator[Admin]:
    log = MemoryLog()
    metadata = Metadata(log, MemoryKeyValue(), NodeId("n", 1), Defaults(), run_blocking=at_once)
    await metadata.start("cluster", 8)
    admin = Admin(metadata, log)
    server = AdminServer(
        metadata,
        admin.endpoints,
        admin.invocations,
        admin.partitions,
        admin.operator,
        admin.tables,
        clock=SystemClock(),
        version="0.1.0",
        ingress_endpoint="http://127.0.0.1:8080/",
        features={"protocol_v7": False},
    )
    admin.server = server
    port = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as admin.http:
        try:
            yield admin
        finally:
            await server.stop()
            await metadata.stop()


def with_admin(scenario: Callable[[Admin], Awaitable[None]]) -> None:
    """Run a scenario against an admin API of its own."""

    async def run() -> None:
        async with asyncio.timeout(20), running_admin() as admin:
            await scenario(admin)

    asyncio.run(run())

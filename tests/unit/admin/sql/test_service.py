"""Queries beside the loop: how many there may be, and that each ends when nobody wants it any more."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Coroutine, Iterator
from typing import Any

import aiohttp
import pytest

from perdure_processor.model.errors import PartitionStopped
from perdure_server.admin.errors import AdminError, QueryError
from perdure_server.admin.sql import routes
from perdure_server.admin.sql.pruning import Constraints
from perdure_server.admin.sql.scans import Pacer, Rows
from perdure_server.admin.sql.service import SqlService
from perdure_server.limits import QUERIES_AT_ONCE_MAX, QUERY_BATCH_ROWS
from support.admin import Admin, with_admin

EVERYTHING = "SELECT name FROM sys_service"
COUNT = "SELECT count(*) FROM sys_service"


class Services:
    """sys_service with as many rows as a test asks for, for ever if it asks for none."""

    def __init__(self, count: int | None = None, failure: Exception | None = None) -> None:
        self.reads = 0
        self.ended = 0
        self._count = count
        self._failure = failure

    def __call__(self, pacer: Pacer) -> Rows:
        def rows(table: str, known: Constraints) -> Iterator[dict[str, Any]]:
            number = 0
            try:
                while number != self._count:
                    pacer.row()
                    self.reads += 1
                    yield {"name": "s" * 200 + str(number)}
                    number += 1
                if self._failure is not None:
                    raise self._failure
            finally:
                self.ended += 1

        return rows


def run(scenario: Callable[[], Coroutine[Any, Any, None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await scenario()

    asyncio.run(bounded())


async def all_of(pieces: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([piece async for piece in pieces])


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0)


def test_the_rows_and_then_the_end() -> None:
    async def scenario() -> None:
        services = Services(count=3 * QUERY_BATCH_ROWS + 1)
        found = json.loads(await all_of(SqlService(services, "0").query(EVERYTHING, as_json=True)))
        assert len(found["rows"]) == 3 * QUERY_BATCH_ROWS + 1
        assert services.ended == 1

    run(scenario)


def test_one_query_too_many_is_refused_until_another_one_is_over() -> None:
    async def scenario() -> None:
        service = SqlService(Services(), "0")
        running = [service.query(EVERYTHING, as_json=True) for _ in range(QUERIES_AT_ONCE_MAX)]
        for each in running:
            await anext(each)
        with pytest.raises(AdminError) as refused:
            await anext(service.query(EVERYTHING, as_json=True))
        assert refused.value.status == 429

        await running.pop().aclose()
        while True:  # its thread ends in a moment
            another = service.query(EVERYTHING, as_json=True)
            try:
                await anext(another)
                break
            except AdminError:
                await asyncio.sleep(0)
        for each in (another, *running):
            await each.aclose()

    run(scenario)


def test_a_query_that_nobody_waits_for_reads_no_more() -> None:
    async def scenario() -> None:
        services = Services()
        query = SqlService(services, "0").query(EVERYTHING, as_json=False)
        await anext(query)
        assert services.reads > 0
        await query.aclose()
        del query
        await until(lambda: services.ended == 1)

    run(scenario)


def test_a_query_that_has_no_rows_to_show_yet_is_stopped_too() -> None:
    async def scenario() -> None:
        services = Services()
        counting = asyncio.create_task(all_of(SqlService(services, "0").query(COUNT, as_json=True)))
        await until(lambda: services.reads > 0)
        counting.cancel()
        await asyncio.wait([counting])
        await until(lambda: services.ended == 1)

    run(scenario)


def test_a_node_that_stops_ends_its_queries() -> None:
    async def scenario() -> None:
        services = Services()
        service = SqlService(services, "0")
        query = service.query(EVERYTHING, as_json=True)
        await anext(query)
        service.close()
        with pytest.raises(AdminError, match="the node stops") as stopped:
            await all_of(query)
        assert stopped.value.status == 503
        await until(lambda: services.ended == 1)

    run(scenario)


def test_a_store_that_fails_is_no_mistake_of_the_query() -> None:
    async def scenario() -> None:
        service = SqlService(Services(count=1, failure=PartitionStopped("the store failed")), "0")
        with pytest.raises(AdminError, match="the store failed") as failed:
            await all_of(service.query(EVERYTHING, as_json=True))
        assert failed.value.status == 503

    run(scenario)


def test_a_mistake_of_ours_is_not_told_as_one_of_the_query() -> None:
    async def scenario() -> None:
        service = SqlService(Services(count=1, failure=AssertionError("ours")), "0")
        with pytest.raises(AssertionError, match="ours"):
            await all_of(service.query(EVERYTHING, as_json=True))

    run(scenario)


def test_what_does_not_fit_in_memory_fails() -> None:
    async def scenario() -> None:
        sort = "SELECT repeat(name, 100) AS long FROM sys_service ORDER BY long"
        with pytest.raises(QueryError, match="Resources exhausted"):
            await all_of(SqlService(Services(count=20_000), "0").query(sort, as_json=True))

    run(scenario)


# -- over HTTP ----------------------------------------------------------------------------------------------


async def ask(admin: Admin) -> aiohttp.ClientResponse:
    return await admin.http.post("/query", json={"query": EVERYTHING}, headers={"accept": "application/json"})


def test_a_result_that_breaks_off_does_not_look_whole() -> None:
    async def scenario(admin: Admin) -> None:
        failing = Services(count=2 * QUERY_BATCH_ROWS, failure=PartitionStopped("the store failed"))
        admin.tables.sql = SqlService(failing, "0")
        async with await ask(admin) as answer:
            assert answer.status == 200
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()

    with_admin(scenario)


def test_a_mistake_of_ours_cuts_the_result_too() -> None:
    async def scenario(admin: Admin) -> None:
        admin.tables.sql = SqlService(Services(count=2 * QUERY_BATCH_ROWS, failure=AssertionError("ours")), "0")
        async with await ask(admin) as answer:
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()

    with_admin(scenario)


def test_a_client_that_goes_away_ends_its_query() -> None:
    async def scenario(admin: Admin) -> None:
        services = Services()
        admin.tables.sql = SqlService(services, "0")
        async with await ask(admin) as answer:
            await answer.content.readany()
        await until(lambda: services.ended == 1)

    with_admin(scenario)


def test_a_client_that_does_not_read_is_cut_off_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "QUERY_SECONDS_MAX", 0.5)

    async def scenario(admin: Admin) -> None:
        services = Services()
        admin.tables.sql = SqlService(services, "0")
        async with await ask(admin) as answer:
            await until(lambda: services.ended == 1)
            with pytest.raises(aiohttp.ClientPayloadError):
                await answer.read()

    with_admin(scenario)


def test_a_query_that_takes_too_long_before_its_first_row_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(routes, "QUERY_SECONDS_MAX", 0.5)

    async def scenario(admin: Admin) -> None:
        admin.tables.sql = SqlService(Services(), "0")
        refused = await admin.json("POST", "/query", {"query": COUNT}, status=503)
        assert "took longer than" in refused["message"]

    with_admin(scenario)

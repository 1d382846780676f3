"""The metrics page, read by the official parser, and the node port that serves it."""

from __future__ import annotations

import asyncio
import dataclasses
import math
import re
from pathlib import Path

import aiohttp
import pytest
from prometheus_client.parser import text_string_to_metric_families

from perdure_processor.metrics import Metrics
from perdure_server.metrics_text import Family, render
from perdure_server.node_metrics import processor_families
from perdure_server.nodeport import NodePort

ROOT = Path(__file__).resolve().parents[3]
ODD = 'a "quoted" back\\slash\nand a new line'


def test_the_page_says_to_a_scraper_what_was_counted() -> None:
    page = render(
        [
            Family(
                "perdure_requests_total", "counter", f"Requests. {ODD}", [({"status": "2xx", "path": ODD}, 1 << 62)]
            ),
            Family("perdure_open", "gauge", "Open now.", [({}, 0.25)]),
            Family("perdure_empty", "gauge", "Nothing yet.", []),
        ]
    )
    requests, open_now, empty = text_string_to_metric_families(page)
    assert (requests.name, requests.type) == ("perdure_requests", "counter")
    assert requests.documentation == f"Requests. {ODD}"
    assert requests.samples[0].labels == {"status": "2xx", "path": ODD}
    assert requests.samples[0].value == 1 << 62
    assert (open_now.type, open_now.samples[0].value) == ("gauge", 0.25)
    assert empty.samples == []


@pytest.mark.parametrize("number", [math.inf, -math.inf, 0, -1, 1e300, 1e-9])
def test_every_number_survives(number: float) -> None:
    (family,) = text_string_to_metric_families(render([Family("m", "gauge", "h", [({}, number)])]))
    assert family.samples[0].value == number


def test_not_a_number_survives() -> None:
    (family,) = text_string_to_metric_families(render([Family("m", "gauge", "h", [({}, math.nan)])]))
    assert math.isnan(family.samples[0].value)


@pytest.mark.parametrize(
    "families",
    [
        [Family("m", "gauge", "h", []), Family("m", "gauge", "h", [])],
        [Family("m", "gauge", "h", [({"a": "1"}, 1), ({"a": "1"}, 2)])],
        [Family("not a name", "gauge", "h", [])],
        [Family("m", "gauge", "h", [({"__reserved": "1"}, 1)])],
    ],
)
def test_what_strict_scrapers_refuse_is_our_mistake(families: list[Family]) -> None:
    with pytest.raises(AssertionError):
        render(families)


def test_nothing_counted_is_an_empty_page() -> None:
    assert render([]) == ""


def test_every_number_of_the_processors_is_counted_somewhere_and_explained() -> None:
    sources = {
        path: path.read_text()
        for room in ("partition_processor", "server")
        for path in (ROOT / room).rglob("*.py")
        if path.name not in ("metrics.py", "node_metrics.py")
    }
    for field in dataclasses.fields(Metrics):
        written = re.compile(rf"metrics\.{field.name} (\+=|=) ")
        assert any(written.search(source) for source in sources.values()), f"{field.name} never changes"
    assert {family.name for family in processor_families(Metrics())} >= {"perdure_attempts_suspended_total"}


def test_the_node_port_serves_metrics_and_health() -> None:
    async def scenario() -> None:
        scrapes, healthy = [0], [True]

        def families() -> list[Family]:
            scrapes[0] += 1
            return [Family("scrapes_total", "counter", "Scrapes.", [({}, scrapes[0])])]

        node = NodePort(families, lambda: healthy[0])
        port = await node.start("127.0.0.1", 0)
        async with aiohttp.ClientSession(f"http://127.0.0.1:{port}") as http:
            for scrape in (1, 2):
                async with http.get("/metrics", headers={"accept": "application/openmetrics-text"}) as answer:
                    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
                    assert f"scrapes_total {scrape}\n" in await answer.text()
            async with http.get("/health") as answer:
                assert answer.status == 200
            healthy[0] = False
            async with http.get("/health") as answer:
                assert answer.status == 503
        await node.stop()

    asyncio.run(scenario())

"""The Transport port: what an attempt may rely on, whatever carries its bytes.

Every scenario runs over the fake, over HTTP/2 with prior knowledge, HTTP/2 agreed by ALPN and HTTP/1.1; the real
ones against hypercorn, which serves the official Python SDK.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TypeAlias

import pytest

from perdure_processor.invoker.memory_transport import Exchange, MemoryTransport
from perdure_processor.invoker.pool import DeploymentTransport
from perdure_processor.invoker.transport import Address, Transport
from support.transports import Attempt, Handler, PrivateCa, free_port, hypercorn_deployment

KINDS = ["memory", "http2", "https-h2", "https-http1", "http1"]
WINDOW = 2_097_152

Serve: TypeAlias = Callable[["Deployment"], Awaitable[None]]


class ExchangePeer:
    """A Peer over the fake's Exchange."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self.path = exchange.request.path
        self.headers = exchange.request.headers
        self.read = exchange.read
        self.write = exchange.write

    async def respond(self, status: int, headers: list[tuple[str, str]] = []) -> None:  # noqa: B006
        self._exchange.respond(status, headers)

    async def end(self) -> None:
        self._exchange.end()


class Deployment:
    """One transport and one address behind which `handler` runs."""

    def __init__(self, transport: Transport, address: Address) -> None:
        self.transport = transport
        self.address = address


@pytest.fixture
def run(request: pytest.FixtureRequest, kind: str, tmp_path: Path) -> Callable[[Handler, Serve], None]:
    @asynccontextmanager
    async def deployed(handler: Handler) -> AsyncIterator[Deployment]:
        if kind == "memory":
            memory = MemoryTransport()
            memory.serve("http://deployment:9080", lambda exchange: handler(ExchangePeer(exchange)))
            yield Deployment(memory, Address("http://deployment:9080", False))
            await memory.close()
            return
        ca = PrivateCa(tmp_path) if kind.startswith("https") else None
        alpn = "http/1.1" if kind == "https-http1" else "h2"
        transport = DeploymentTransport(ca_file=str(ca.ca_file) if ca else None)
        async with hypercorn_deployment(handler, tls=ca, alpn=alpn) as uri:
            try:
                yield Deployment(transport, Address(uri, kind == "http1"))
            finally:
                await transport.close()

    def run_it(handler: Handler, scenario: Serve) -> None:
        async def main() -> None:
            async with deployed(handler) as deployment:
                await scenario(deployment)

        asyncio.run(main())

    return run_it


pytestmark = pytest.mark.parametrize("kind", KINDS)
Run: TypeAlias = Callable[[Handler, Serve], None]


async def echo(peer) -> None:  # type: ignore[no-untyped-def]
    """Answers at once, and then each piece as it comes."""
    await peer.respond(200, [("content-type", "text/plain"), ("x-restate-server", "test/1")])
    while (data := await peer.read()) is not None:
        await peer.write(data)
    await peer.end()


def test_a_response_is_told_once_and_in_order(run: Run) -> None:
    async def scenario(at: Deployment) -> None:
        attempt = Attempt().start(at.transport, at.address, "/base/invoke/A/b")
        attempt.send(b"hello")
        attempt.finish()
        assert (await attempt.end()).error is None
        assert attempt.status == 200
        assert attempt.headers["content-type"] == "text/plain"
        assert attempt.headers["x-restate-server"] == "test/1"
        assert attempt.body == b"hello"

    run(echo, scenario)


def test_response_bytes_arrive_before_the_request_ends(run: Run) -> None:
    async def scenario(at: Deployment) -> None:
        attempt = Attempt().start(at.transport, at.address)
        for round_number in range(5):
            attempt.send(b"ping %d." % round_number)
            expected = b"".join(b"ping %d." % n for n in range(round_number + 1))
            await attempt.until(lambda it, expected=expected: it.body == expected)  # type: ignore[misc]
        attempt.finish()
        assert (await attempt.end()).error is None

    run(echo, scenario)


def test_the_deployment_sees_the_path_and_headers_it_was_sent_and_no_others(run: Run, kind: str) -> None:
    seen: list[tuple[str, list[tuple[str, str]]]] = []

    async def handler(peer) -> None:  # type: ignore[no-untyped-def]
        seen.append((peer.path, list(peer.headers)))
        await echo(peer)

    async def scenario(at: Deployment) -> None:
        headers = [("content-type", "application/x"), ("accept", "application/x"), ("x-restate-invocation-id", "inv_1")]
        attempt = Attempt().start(at.transport, at.address, "/invoke/Svc/do", headers=headers)
        attempt.finish()
        await attempt.end()
        path, arrived = seen[0]
        transport_headers = {"host", ":authority", "transfer-encoding", "content-length"}
        assert path == "/invoke/Svc/do"
        assert [(name, content) for name, content in arrived if name not in transport_headers] == headers

    run(handler, scenario)


def test_a_request_without_a_body(run: Run) -> None:
    async def scenario(at: Deployment) -> None:
        attempt = Attempt().start(at.transport, at.address, "/discover", method="GET", full_duplex=False)
        attempt.finish()
        assert (await attempt.end()).error is None
        assert (attempt.status, attempt.body) == (200, b"")

    run(echo, scenario)


def test_an_unfriendly_status_is_a_regular_response(run: Run) -> None:
    async def handler(peer) -> None:  # type: ignore[no-untyped-def]
        await peer.respond(503, [("retry-after", "7")])
        await peer.end()

    async def scenario(at: Deployment) -> None:
        attempt = Attempt().start(at.transport, at.address)
        attempt.send(b"x")
        assert (await attempt.end()).error is None
        assert attempt.status == 503
        assert attempt.headers["retry-after"] == "7"

    run(handler, scenario)


def test_large_bodies_flow_both_ways(run: Run) -> None:
    async def scenario(at: Deployment) -> None:
        attempt = Attempt().start(at.transport, at.address)
        piece = bytes(range(256)) * 2048
        for _ in range(12):  # 6 MiB: three windows
            attempt.send(piece)
        attempt.finish()
        assert (await attempt.end()).error is None
        assert attempt.body == piece * 12

    run(echo, scenario)


def test_a_deployment_that_does_not_read_is_felt_by_the_sender(run: Run) -> None:
    gate = asyncio.Event()

    async def handler(peer) -> None:  # type: ignore[no-untyped-def]
        await gate.wait()
        await echo(peer)

    async def scenario(at: Deployment) -> None:
        attempt = Attempt().start(at.transport, at.address)
        assert attempt.stream is not None
        for _ in range(32):
            attempt.send(bytes(1024 * 1024))
        attempt.finish()
        for _ in range(200):
            await asyncio.sleep(0)
        assert attempt.stream.unsent > 1024 * 1024
        gate.set()
        assert (await attempt.end()).error is None
        assert len(attempt.body) == 32 * 1024 * 1024
        assert attempt.stream.unsent == 0

    run(handler, scenario)


def test_an_attempt_that_does_not_consume_is_felt_by_the_deployment(run: Run) -> None:
    written = [0]

    async def handler(peer) -> None:  # type: ignore[no-untyped-def]
        await peer.respond(200)
        for _ in range(512):
            await peer.write(bytes(64 * 1024))
            written[0] += 64 * 1024
        await peer.end()

    async def scenario(at: Deployment) -> None:
        attempt = Attempt(consumes=False).start(at.transport, at.address)
        attempt.finish()
        await attempt.until(lambda it: len(it.body) >= WINDOW)
        assert len(attempt.body) <= WINDOW + 1024 * 1024
        assert written[0] < 512 * 64 * 1024
        attempt.consume()
        assert (await attempt.end()).error is None
        assert len(attempt.body) == 512 * 64 * 1024

    run(handler, scenario)


def test_a_reset_ends_both_sides(run: Run) -> None:
    seen = asyncio.Event()
    gone = asyncio.Event()

    async def handler(peer) -> None:  # type: ignore[no-untyped-def]
        await peer.respond(200)
        await peer.write(b"here")
        seen.set()
        try:
            while await peer.read() is not None:
                pass
        except asyncio.CancelledError:
            gone.set()
            raise

    async def scenario(at: Deployment) -> None:
        attempt = Attempt().start(at.transport, at.address)
        attempt.send(b"x")
        await attempt.until(lambda it: it.body == b"here")
        attempt.reset()
        closed = await attempt.end()
        assert closed.error is not None
        assert not closed.never_sent
        async with asyncio.timeout(10):
            await gone.wait()

    run(handler, scenario)


def test_methods_after_the_end_do_nothing(run: Run) -> None:
    async def scenario(at: Deployment) -> None:
        attempt = Attempt().start(at.transport, at.address)
        attempt.reset()
        await attempt.end()
        attempt.send(b"late")
        attempt.finish()
        attempt.reset()
        assert attempt.stream is not None
        attempt.stream.consumed(10)
        assert attempt.stream.unsent == 0
        for _ in range(10):
            await asyncio.sleep(0)  # on_closed twice would be an assertion in Attempt

    run(echo, scenario)


def test_a_refused_connection_was_never_sent(run: Run, kind: str) -> None:
    async def scenario(at: Deployment) -> None:
        scheme = at.address.uri.partition(":")[0]
        nobody = Address(f"{scheme}://127.0.0.1:{free_port()}", at.address.http1)
        attempt = Attempt().start(at.transport, nobody)
        attempt.send(b"x")
        closed = await attempt.end()
        assert closed.never_sent
        assert "cannot connect" in (closed.error or "")

    run(echo, scenario)


def test_many_streams_at_once_do_not_mix(run: Run) -> None:
    async def scenario(at: Deployment) -> None:
        attempts = [Attempt().start(at.transport, at.address) for _ in range(60)]
        for number, attempt in enumerate(attempts):
            attempt.send(b"stream %d " % number * 100)
            attempt.finish()
        for number, attempt in enumerate(attempts):
            assert (await attempt.end()).error is None
            assert attempt.body == b"stream %d " % number * 100

    run(echo, scenario)


def test_close_ends_open_streams_and_refuses_new_ones(run: Run) -> None:
    async def scenario(at: Deployment) -> None:
        attempt = Attempt().start(at.transport, at.address)
        attempt.send(b"x")
        await attempt.until(lambda it: it.body == b"x")
        await at.transport.close()
        assert (await attempt.end()).error is not None
        late = Attempt().start(at.transport, at.address)
        assert (await late.end()).never_sent

    run(echo, scenario)

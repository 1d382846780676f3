"""Discovery: what a deployment answers, what is asked again, and what an operator is told otherwise."""

from __future__ import annotations

import asyncio

import pytest

from perdure_processor.invoker.memory_transport import Exchange, Faults, MemoryTransport
from perdure_processor.invoker.pool import DeploymentTransport
from perdure_processor.invoker.transport import Address
from perdure_server.admin.discovery import Discovered, DiscoveryError, discover
from perdure_server.limits import MANIFEST_BYTES_MAX

URI = "http://deployment:9080/base"
V3 = "application/vnd.restate.endpointmanifest.v3+json"


def ask(memory: MemoryTransport, headers: dict[str, str] | None = None, timeout_s: float = 10.0) -> Discovered:
    async def main() -> Discovered:
        return await discover(memory, timeout_s=timeout_s)(Address(URI, False), headers or {})

    return asyncio.run(main())


def answering(*statuses: int, body: bytes = b"{}", seen: list[Exchange] | None = None) -> MemoryTransport:
    """A deployment that answers with these statuses in turn, the last one for ever."""
    left = list(statuses)

    async def endpoint(exchange: Exchange) -> None:
        if seen is not None:
            seen.append(exchange)
        assert await exchange.read() is None
        status = left.pop(0) if len(left) > 1 else left[0]
        exchange.respond(status, [("content-type", V3), ("x-restate-server", "test-sdk/1.0")])
        await exchange.write(body)
        exchange.end()

    memory = MemoryTransport()
    memory.serve(URI, endpoint)
    return memory


def test_the_manifest_comes_with_what_the_sdk_says_of_itself() -> None:
    seen: list[Exchange] = []
    found = ask(answering(200, body=b'{"services":[]}', seen=seen), {"X-Api-Key": "k"})
    assert found == Discovered(V3, "test-sdk/1.0", b'{"services":[]}')
    request = seen[0].request
    assert (request.method, request.path) == ("GET", "/discover")
    accepted = ", ".join(f"application/vnd.restate.endpointmanifest.v{version}+json" for version in (1, 2, 3, 4))
    assert list(request.headers) == [("accept", accepted), ("x-api-key", "k")]


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_what_may_pass_is_asked_again(status: int) -> None:
    seen: list[Exchange] = []
    assert ask(answering(status, 200, seen=seen)).body == b"{}"
    assert len(seen) == 2


@pytest.mark.parametrize("status", [204, 301, 401, 404, 415])
def test_what_will_not_pass_is_told_at_once(status: int) -> None:
    seen: list[Exchange] = []
    with pytest.raises(DiscoveryError) as raised:
        ask(answering(status, body=b"go away", seen=seen))
    assert raised.value.code == "META0003"
    assert f"status {status}: go away" in raised.value.message
    assert len(seen) == 1


def test_patience_ends_with_the_last_reason() -> None:
    with pytest.raises(DiscoveryError) as raised:
        ask(answering(503), timeout_s=0.25)
    assert raised.value.code == "META0003"
    assert "status 503" in raised.value.message


@pytest.mark.parametrize(
    ("faults", "expected"),
    [
        (Faults(hang=True), "no complete answer within 0.05 s"),
        (Faults(refuse=True), "connection refused"),
        (Faults(cut_after_bytes=1), "cut by the network"),
    ],
)
def test_a_deployment_that_cannot_be_reached(faults: Faults, expected: str) -> None:
    memory = answering(200)
    memory.faults = lambda _address, _request: faults
    with pytest.raises(DiscoveryError) as raised:
        ask(memory, timeout_s=0.05)
    assert raised.value.code == "META0003"
    assert expected in raised.value.message


def test_a_first_refusal_is_not_the_last_word() -> None:
    memory = answering(200)
    tries: list[int] = []

    def first_refused(*_: object) -> Faults:
        tries.append(1)
        return Faults(refuse=len(tries) == 1)

    memory.faults = first_refused
    assert ask(memory).body == b"{}"
    assert len(tries) == 2


def test_a_manifest_without_end_is_malformed() -> None:
    with pytest.raises(DiscoveryError) as raised:
        ask(answering(200, body=bytes(MANIFEST_BYTES_MAX + 1)))
    assert raised.value.code == "META0013"


def test_a_deployment_that_speaks_http1_is_told_apart() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(1)
        writer.write(b"HTTP/1.1 505 HTTP Version Not Supported\r\n\r\n")
        writer.close()

    async def main() -> None:
        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        transport = DeploymentTransport()
        uri = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        with pytest.raises(DiscoveryError) as raised:
            await discover(transport)(Address(uri, False), {})
        assert raised.value.code == "META0014"
        assert "use_http_11" in raised.value.message
        await transport.close()
        server.close()

    asyncio.run(main())


def test_giving_up_leaves_no_stream_behind() -> None:
    resets: list[str] = []

    async def endpoint(exchange: Exchange) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            resets.append("reset")
            raise

    memory = MemoryTransport()
    memory.serve(URI, endpoint)
    with pytest.raises(DiscoveryError):
        ask(memory, timeout_s=0.02)
    assert resets == ["reset"]

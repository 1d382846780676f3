"""The ingress over a real socket: what clients do to it, good and bad, and what it answers."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

import pytest

from perdure.protocol.ids import encode_awakeable_id, encode_invocation_id
from perdure_processor.model.ids import Millis
from perdure_server import limits
from perdure_server.ingress.app import IngressServer
from perdure_server.ingress.requests import (
    Accepted,
    Failed,
    InvokeRequest,
    NoOutput,
    NotFound,
    NotReady,
    Overloaded,
    Success,
    Unavailable,
)
from support.ingress import ID, FakeClock, ScriptedNode, sample_schema

INV = encode_invocation_id(ID)
SIZE_LIMIT = 100_000
GREET = b"GET /Greeter/greet HTTP/1.1\r\nhost: h\r\n\r\n"
WAIT_S = 10  # a bound on a broken test, never waited for by a good one


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass
class Client:
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    def write(self, data: bytes) -> None:
        self.writer.write(data)

    async def read(self, *, head_only: bool = False) -> Answer:
        async with asyncio.timeout(WAIT_S):
            head = await self.reader.readuntil(b"\r\n\r\n")
            lines = head.decode().split("\r\n")
            headers = dict(line.split(": ", 1) for line in lines[1:-2])
            length = 0 if head_only else int(headers.get("content-length", 0))
            return Answer(int(lines[0].split()[1]), headers, await self.reader.readexactly(length))

    async def ask(self, data: bytes) -> Answer:
        self.write(data)
        return await self.read()

    async def closed(self) -> bool:
        """Whether the server has nothing more to say and says so."""
        async with asyncio.timeout(WAIT_S):
            return await self.reader.read(1) == b""


@dataclass
class World:
    node: ScriptedNode
    server: IngressServer
    clock: FakeClock
    port: int
    clients: list[Client] = field(default_factory=list)

    async def client(self) -> Client:
        client = Client(*await asyncio.open_connection("127.0.0.1", self.port, limit=2**20))
        self.clients.append(client)
        return client

    async def asked(self) -> Any:
        async with asyncio.timeout(WAIT_S):
            return await self.node.asked.get()

    async def until(self, holds: Callable[[], bool]) -> None:
        """Turns of the loop until something that the server does on its own has happened."""
        async with asyncio.timeout(WAIT_S):
            while not holds():
                await asyncio.sleep(0)

    def unsent(self) -> int:
        """What the server has written and the socket not taken."""
        return self.server.unsent_bytes


@asynccontextmanager
async def a_world(**options: int) -> AsyncIterator[World]:
    node, clock, schema = ScriptedNode(), FakeClock(), sample_schema()
    node.call_answer = Success(ID, b'"hi"')
    options.setdefault("request_size_limit", SIZE_LIMIT)
    server = IngressServer(node, lambda: schema, clock=clock, **options)
    world = World(node, server, clock, await server.start("127.0.0.1", 0))
    try:
        yield world
    finally:
        for client in world.clients:
            client.writer.close()
        await server.stop(1)
        assert server.connections == 0
        assert server.buffered_bytes == 0


def scenario(
    **options: int,
) -> Callable[[Callable[[World], Coroutine[Any, Any, None]]], Callable[[], None]]:
    """Run the test on a loop of its own, with a server that must have given everything back at the end."""

    def decorate(test: Callable[[World], Coroutine[Any, Any, None]]) -> Callable[[], None]:
        @wraps(test)
        def run() -> None:
            async def main() -> None:
                async with a_world(**options) as world:
                    await test(world)

            asyncio.run(main())

        del run.__wrapped__  # pytest would ask for its parameters
        return run

    return decorate


def post(path: str, body: bytes, *lines: str, content_type: str = "application/json") -> bytes:
    head = [f"POST {path} HTTP/1.1", "host: h", f"content-length: {len(body)}", *lines]
    if content_type:
        head.append(f"content-type: {content_type}")
    return "\r\n".join([*head, "", ""]).encode() + body


def chunked(path: str, *chunks: bytes, content_type: str = "application/json") -> bytes:
    head = f"POST {path} HTTP/1.1\r\nhost: h\r\ncontent-type: {content_type}\r\ntransfer-encoding: chunked\r\n\r\n"
    return head.encode() + b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"


# -- answers --------------------------------------------------------------------------------------------


@scenario()
async def test_a_call_is_answered_with_id_content_type_and_body(world: World) -> None:
    client = await world.client()
    answer = await client.ask(post("/Counter/alice/add?x=1", b"1", "X-Mine: v"))
    assert (answer.status, answer.body) == (200, b'"hi"')
    assert answer.headers == {
        "x-restate-id": INV,
        "content-type": "application/json",
        "vary": "origin, access-control-request-method, access-control-request-headers",
        "access-control-allow-credentials": "true",
        "date": "Tue, 14 Nov 2023 22:13:20 GMT",
        "content-length": "4",
    }
    request = await world.asked()
    assert isinstance(request, InvokeRequest)
    assert (str(request.target), request.body) == ("Counter/alice/add", b"1")
    assert ("x-mine", "v") in request.headers
    assert request.headers[0] == ("x-restate-ingress-path", "/Counter/alice/add?x=1")
    assert world.server.counters.answers_by_class[2] == 1


@scenario()
async def test_content_types_come_from_the_handler(world: World) -> None:
    client = await world.client()

    async def content_type(handler: str, body: bytes) -> str | None:
        world.node.call_answer = Success(ID, body)
        answer = await client.ask(b"GET /Greeter/%b HTTP/1.1\r\nhost: h\r\n\r\n" % handler.encode())
        return answer.headers.get("content-type")

    assert await content_type("greet", b"1") == "application/json"
    assert await content_type("greet", b"") is None
    assert await content_type("raw", b"1") == "application/octet-stream"
    assert await content_type("raw", b"") == "application/octet-stream"  # setContentTypeIfEmpty
    assert await content_type("untyped", b"1") is None


@scenario()
async def test_a_stored_result_says_when_it_expires(world: World) -> None:
    client = await world.client()
    world.node.call_answer = Success(ID, b"1", expires_ms=Millis(1_795_487_064_494))
    answer = await client.ask(GREET)
    assert answer.headers["idempotency-expires"] == "2026-11-24T02:24:24.494+00:00"


@scenario()
async def test_a_handlers_failure_keeps_its_code_and_names_the_invocation(world: World) -> None:
    client = await world.client()
    for code, status in ((418, 418), (500, 500), (570, 570), (0, 500), (200, 500), (70_000, 500)):
        world.node.call_answer = Failed(ID, code, 'no "tea"', {"kind": "pot"} if code == 418 else {})
        answer = await client.ask(GREET)
        assert answer.status == status
        assert answer.headers["x-restate-error-source"] == "invocation"
        assert answer.headers["x-restate-id"] == INV
        assert answer.headers["content-type"] == "application/json"
        expected: dict[str, object] = {"code": code, "message": 'no "tea"', "source": "invocation"}
        if code == 418:
            expected["metadata"] = {"kind": "pot"}
        assert answer.json == expected


@scenario()
async def test_sends_say_whether_they_were_new_and_when_they_run(world: World) -> None:
    client = await world.client()
    world.node.send_answer = Accepted(ID, previously=False)
    answer = await client.ask(post("/Greeter/greet/send", b"1"))
    assert (answer.status, answer.headers["x-restate-id"]) == (202, INV)
    assert answer.body == b'{"invocationId":"%b","status":"Accepted"}' % INV.encode()
    world.node.send_answer = Accepted(ID, previously=True, execution_time_ms=Millis(1_795_487_064_494))
    answer = await client.ask(post("/restate/send/Greeter/greet?delay=10s", b"1"))
    assert answer.status == 202
    due = "2026-11-24T02:24:24.494000000Z"
    expected = f'{{"invocationId":"{INV}","executionTime":"{due}","status":"PreviouslyAccepted"}}'
    assert answer.body.decode() == expected
    await world.asked()
    assert (await world.asked()).delay_ms == 10_000


@scenario()
async def test_health_lists_every_service_private_ones_too(world: World) -> None:
    client = await world.client()
    answer = await client.ask(b"GET /restate/health HTTP/1.1\r\nhost: h\r\n\r\n")
    assert answer.status == 200
    assert sorted(answer.json["services"]) == ["Ancient", "Counter", "Flow", "Greeter", "Private"]


@scenario()
async def test_attach_and_output_in_all_their_outcomes(world: World) -> None:
    client, node = await world.client(), world.node

    async def ask(verb: str) -> tuple[int, object, str | None]:
        answer = await client.ask(f"GET /restate/{verb}/{INV} HTTP/1.1\r\nhost: h\r\n\r\n".encode())
        return answer.status, answer.json, answer.headers.get("x-restate-id")

    def error(code: int, message: str, source: str) -> dict[str, object]:
        return {"code": code, "message": message, "source": source}

    node.attach_answer = node.output_answer = Success(ID, b"7")
    assert await ask("attach") == await ask("output") == (200, 7, INV)
    node.attach_answer = node.output_answer = Failed(ID, 409, "killed", {})
    assert await ask("attach") == await ask("output") == (409, error(409, "killed", "invocation"), INV)
    node.attach_answer = node.output_answer = NotFound()
    assert await ask("attach") == (404, error(404, "not found", "invocation"), INV)
    assert await ask("output") == (404, error(404, "invocation not found", "ingress"), None)
    node.output_answer = NotReady()
    text = "the invocation exists but has not completed yet"
    assert await ask("output") == (470, error(470, text, "ingress"), None)
    node.output_answer = NoOutput()
    status, body, _ = await ask("output")
    assert status == 400
    assert "only for invocations created with an idempotency key" in json.dumps(body)


@scenario()
async def test_lookup_is_answered_without_asking_the_node(world: World) -> None:
    client = await world.client()
    target = json.dumps({"target": "invocation", "invocationId": INV}).encode()
    answer = await client.ask(post("/restate/lookup", target))
    assert (answer.status, answer.json) == (200, {"invocationId": INV})
    assert world.node.asked.empty()


@scenario()
async def test_awakeables_are_resolved_and_rejected(world: World) -> None:
    client = await world.client()
    awakeable = encode_awakeable_id(ID, 17)
    world.node.completion_answer = Accepted(ID, previously=False)
    answer = await client.ask(post(f"/restate/awakeables/{awakeable}/resolve", b'"yes"'))
    assert (answer.status, answer.body) == (202, b"")
    assert "x-restate-id" not in answer.headers
    assert await world.asked() == (ID, 17, b'"yes"', None)
    answer = await client.ask(post(f"/restate/a/{awakeable}/reject", b"no", content_type="text/plain"))
    assert answer.status == 202
    assert await world.asked() == (ID, 17, None, (500, "no"))


@scenario()
async def test_the_nodes_troubles_come_with_a_hint_and_a_time_to_retry(world: World) -> None:
    client = await world.client()
    keyed = b"GET /Greeter/greet HTTP/1.1\r\nhost: h\r\nidempotency-key: k\r\n\r\n"
    run = b"GET /Flow/w/run HTTP/1.1\r\nhost: h\r\n\r\n"
    attach = f"GET /restate/attach/{INV} HTTP/1.1\r\nhost: h\r\n\r\n".encode()
    world.node.call_answer = Unavailable("the disk is full")
    await check_unavailable(await client.ask(GREET), "the disk is full. Retrying is safe, nothing")
    world.node.call_answer = Unavailable("no leader", may_have_run=True)
    await check_unavailable(await client.ask(GREET), "no leader. Retrying may execute the request twice")
    await check_unavailable(await client.ask(keyed), "no leader. Retrying is safe, the request is idempotent")
    await check_unavailable(await client.ask(run), "no leader. Retrying is safe, the request is idempotent")
    world.node.attach_answer = Unavailable("no leader", may_have_run=True)
    await check_unavailable(await client.ask(attach), "no leader. Retrying is safe, this request changes")
    world.node.call_answer = Overloaded()
    answer = await client.ask(GREET)
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert answer.json["message"] == "too many requests, the ingress is overloaded. Retry later."


async def check_unavailable(answer: Answer, message: str) -> None:
    assert answer.status == 503
    assert answer.headers["retry-after"] == "1"
    assert answer.headers["x-restate-error-source"] == "ingress"
    assert "x-restate-id" not in answer.headers
    assert answer.json["message"].startswith(f"internal routing error: {message}")


@scenario()
async def test_a_mistake_of_ours_is_a_500_and_a_log_line(world: World) -> None:
    client = await world.client()
    world.node.call_answer = RuntimeError("a bug")
    answer = await client.ask(GREET)
    assert (answer.status, answer.json["source"]) == (500, "ingress")
    assert "a bug" not in answer.body.decode()
    world.node.call_answer = Success(ID, b"1")
    assert (await client.ask(GREET)).status == 200


@scenario()
async def test_any_origin_is_allowed(world: World) -> None:
    client = await world.client()
    origin = b"origin: https://app.example\r\n"
    for line in (b"GET /Greeter/greet", b"GET /x"):
        answer = await client.ask(line + b" HTTP/1.1\r\nhost: h\r\n" + origin + b"\r\n")
        assert answer.headers["access-control-allow-origin"] == "https://app.example"
    answer = await client.ask(
        b"OPTIONS /Greeter/greet HTTP/1.1\r\nhost: h\r\n" + origin + b"access-control-request-method: POST\r\n"
        b"access-control-request-headers: x-a, x-b\r\n\r\n"
    )
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["access-control-allow-origin"] == "https://app.example"
    assert answer.headers["access-control-allow-methods"] == "POST"
    assert answer.headers["access-control-allow-headers"] == "x-a, x-b"
    assert answer.headers["access-control-allow-credentials"] == "true"


# -- connections ----------------------------------------------------------------------------------------


@scenario()
async def test_a_connection_serves_many_requests(world: World) -> None:
    client = await world.client()
    for number in range(20):
        world.node.call_answer = Success(ID, b"%d" % number)
        assert (await client.ask(GREET)).body == b"%d" % number
    assert world.server.counters.connections_accepted == 1


@scenario()
async def test_pipelined_requests_are_answered_in_order_and_one_at_a_time(world: World) -> None:
    client = await world.client()
    world.node.gate = asyncio.Event()
    client.write(
        GREET + b"GET /x HTTP/1.1\r\nhost: h\r\n\r\n" + post("/Counter/k/add", b"2") + chunked("/Greeter/greet", b"3")
    )
    first = await world.asked()
    assert first.target.service == "Greeter"
    assert world.node.asked.empty()
    world.node.gate.set()
    assert [(await client.read()).status for _ in range(4)] == [200, 400, 200, 200]
    assert (await world.asked()).body == b"2"
    assert (await world.asked()).body == b"3"


@scenario()
async def test_a_thousand_pipelined_requests_fit_through_a_small_window(world: World) -> None:
    client = await world.client()
    world.node.gate = asyncio.Event()
    big = b"GET /Greeter/greet HTTP/1.1\r\nhost: h\r\nx-fill: %b\r\n\r\n" % (b"f" * 1000)
    client.write(big * 1000)
    await world.asked()
    await world.until(lambda: world.server.buffered_bytes > limits.INGRESS_PIPELINED_BYTES_MAX)
    # One more read can have been under way when the limit was passed.
    assert world.server.buffered_bytes <= limits.INGRESS_PIPELINED_BYTES_MAX + 2 * 256 * 1024
    world.node.gate.set()
    for _ in range(1000):
        assert (await client.read()).status == 200


@scenario()
async def test_connections_end_when_the_client_wants_it(world: World) -> None:
    close = b"GET /Greeter/greet HTTP/1.1\r\nhost: h\r\nconnection: close\r\n\r\n"
    client = await world.client()
    answer = await client.ask(close)
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await client.closed()

    old = await world.client()
    answer = await old.ask(b"GET /Greeter/greet HTTP/1.0\r\nconnection: keep-alive\r\n\r\n")
    assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")
    answer = await old.ask(b"GET /Greeter/greet HTTP/1.0\r\n\r\n")
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await old.closed()


@scenario()
async def test_head_is_refused_without_a_body(world: World) -> None:
    client = await world.client()
    client.write(b"HEAD /Greeter/greet HTTP/1.1\r\nhost: h\r\n\r\n")
    assert (await client.read(head_only=True)).status == 405
    assert (await client.ask(GREET)).status == 200


@scenario()
async def test_an_upgrade_is_not_taken(world: World) -> None:
    client = await world.client()
    client.write(b"GET /Greeter/greet HTTP/1.1\r\nhost: h\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nxyz")
    answer = await client.read()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    assert await client.closed()
    tunnel = await world.client()
    answer = await tunnel.ask(b"CONNECT h:1 HTTP/1.1\r\nhost: h\r\n\r\n")
    assert answer.status == 405
    assert await tunnel.closed()


# -- bodies ---------------------------------------------------------------------------------------------


@scenario()
async def test_bodies_arrive_whole_however_they_are_cut(world: World) -> None:
    client = await world.client()
    body = bytes(range(256)) * 300
    for request in (
        post("/Greeter/greet", body),
        chunked("/Greeter/greet", body),
        chunked("/Greeter/greet", *(body[at : at + 997] for at in range(0, len(body), 997))),
    ):
        for size in (len(request), 5000, 33_000):
            for at in range(0, len(request), size):
                client.write(request[at : at + size])
                await client.writer.drain()
                await asyncio.sleep(0)
            assert (await client.read()).status == 200
            assert (await world.asked()).body == body


@scenario()
async def test_a_small_request_byte_by_byte(world: World) -> None:
    client = await world.client()
    for byte in chunked("/Greeter/greet", b"12", b"3"):
        client.write(bytes([byte]))
        await client.writer.drain()
        await asyncio.sleep(0)
    assert (await client.read()).status == 200
    assert (await world.asked()).body == b"123"


@scenario()
async def test_who_asks_first_is_told_to_continue(world: World) -> None:
    client = await world.client()
    request = post("/Greeter/greet", b"12345", "expect: 100-continue")
    client.write(request[:-5])
    assert (await client.read()).status == 100
    assert (await client.ask(request[-5:])).status == 200
    refused = post("/Greeter/greet", b"1" * (SIZE_LIMIT + 1), "expect: 100-continue")
    answer = await client.ask(refused[: -SIZE_LIMIT - 1])
    assert (answer.status, answer.headers["connection"]) == (413, "close")
    assert await client.closed()


@scenario()
async def test_a_declared_body_over_the_limit_is_413_as_text_and_the_connection_stays(world: World) -> None:
    client = await world.client()
    too_long = b"1" * (SIZE_LIMIT + 1)
    answer = await client.ask(post("/Greeter/greet", too_long))
    assert (answer.status, answer.body) == (413, b"length limit exceeded")
    assert answer.headers["content-type"].startswith("text/plain")
    assert not [name for name in answer.headers if name.startswith("x-restate")]
    assert (await client.ask(GREET)).status == 200
    assert (await client.ask(post("/Greeter/greet", too_long[1:]))).status == 200
    assert (await world.asked()).body == b""
    assert (await world.asked()).body == too_long[1:]


@scenario(request_size_limit=10)
async def test_a_small_limit_holds_for_bodies_that_come_at_once(world: World) -> None:
    client = await world.client()
    assert (await client.ask(post("/Greeter/greet", b"1" * 11))).body == b"length limit exceeded"
    assert (await client.ask(post("/Greeter/greet", b"1" * 10))).status == 200
    assert (await client.ask(chunked("/Greeter/greet", b"1" * 11))).json["code"] == 413


@scenario()
async def test_a_chunked_body_over_the_limit_is_413_as_json_and_the_connection_stays(world: World) -> None:
    client = await world.client()
    answer = await client.ask(chunked("/Greeter/greet", *[b"1" * 1000] * 101))
    assert answer.status == 413
    assert answer.json == {"code": 413, "message": "cannot read body: LengthLimitError", "source": "ingress"}
    assert answer.headers["x-restate-error-source"] == "ingress"
    assert (await client.ask(GREET)).status == 200
    assert (await client.ask(chunked("/Greeter/greet", *[b"1" * 1000] * 100))).status == 200


@scenario()
async def test_a_client_that_never_ends_its_refused_body_is_hung_up_on(
    world: World,
) -> None:
    client = await world.client()
    declared = 10 * limits.INGRESS_BODY_BYTES_DISCARDED_MAX
    head = f"POST /Greeter/greet HTTP/1.1\r\nhost: h\r\ncontent-length: {declared}\r\n\r\n".encode()
    assert (await client.ask(head)).status == 413
    world.clock.advance_s(limits.INGRESS_READ_GRACE_S + 1)
    world.server.sweep()
    assert await client.closed()


@scenario(buffered_bytes_max=150_000, request_size_limit=1_000_000)
async def test_all_unfinished_requests_together_are_bounded(world: World) -> None:
    first, second = await world.client(), await world.client()
    request = post("/Greeter/greet", b"1" * 100_000)
    first.write(request[:-1])
    await world.until(lambda: world.server.buffered_bytes == 99_999)
    second.write(request)
    answer = await second.read()
    assert (answer.status, answer.headers["retry-after"]) == (429, "1")
    assert await second.closed()
    assert (await first.ask(b"1")).status == 200
    assert (await first.ask(request)).status == 200


# -- bad HTTP -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(200),  # TLS
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x00\xff\xfe garbage \r\n\r\n",
        b"hello\r\n\r\n",
        b"GET /Greeter/greet\r\n\r\n",  # HTTP/0.9
        b"CONNECT \nh:1 HTTP/1.1\r\nhost: h\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # no host
        b"GET / HTTP/9.9\r\nhost: h\r\n\r\n",
        b"GET /Greeter/greet HTTP/1.1\r\nhost: h\r\nx y: z\r\n\r\n",
        b"GET /Greeter/greet HTTP/1.1\r\nhost: h\r\nx: a\x00b\r\n\r\n",
        b"GET /Greeter/greet HTTP/1.1\r\nhost: h\r\nhost: i\r\n\r\n",
        b"POST /Greeter/greet HTTP/1.1\r\nhost: h\r\ncontent-length: -1\r\n\r\n",
        b"POST /Greeter/greet HTTP/1.1\r\nhost: h\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\n12",
        b"POST /Greeter/greet HTTP/1.1\r\nhost: h\r\ncontent-length: 99999999999999999999999\r\n\r\n",
        b"POST /Greeter/greet HTTP/1.1\r\nhost: h\r\ncontent-length: 0\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        b"POST /Greeter/greet HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\nnonsense\r\n",
        b"POST /Greeter/greet HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n1\r\n22\r\n",
    ],
)
def test_what_is_not_http_gets_400_and_the_end(garbage: bytes) -> None:
    @scenario()
    async def run(world: World) -> None:
        client = await world.client()
        answer = await client.ask(garbage)
        assert answer.status == 400
        assert answer.json["message"].startswith("bad HTTP request: ")
        assert answer.headers["connection"] == "close"
        assert await client.closed()
        assert world.server.counters.bad_http == 1
        assert world.node.asked.empty()
        assert (await (await world.client()).ask(GREET)).status == 200

    run()


@scenario()
async def test_what_follows_a_good_request_does_not_harm_its_answer(world: World) -> None:
    client = await world.client()
    world.node.gate = asyncio.Event()
    client.write(GREET + b"\x00\x00garbage\r\n\r\n")
    await world.asked()
    world.node.gate.set()
    assert (await client.read()).status == 200
    assert (await client.read()).status == 400
    assert await client.closed()


@pytest.mark.parametrize(
    ("head", "status", "limit"),
    [
        (
            b"".join(b"x-%d: %b\r\n" % (n, b"v" * 1024) for n in range(200)),
            431,
            f"at most {limits.INGRESS_HEADERS_MAX} headers",
        ),
        (b"x-big: " + b"v" * 256 * 1024 + b"\r\n", 431, f"at most {limits.INGRESS_HEAD_BYTES_MAX} bytes"),
        (b"x: v\r\n" * (limits.INGRESS_HEADERS_MAX + 1), 431, f"at most {limits.INGRESS_HEADERS_MAX} headers"),
    ],
)
def test_large_headers_are_431_with_the_limit_and_the_connection_stays(head: bytes, status: int, limit: str) -> None:
    @scenario()
    async def run(world: World) -> None:
        client = await world.client()
        answer = await client.ask(GREET[:-2] + head + b"\r\n")
        assert (answer.status, answer.headers.get("connection")) == (status, None)
        assert limit in answer.json["message"]
        assert (await client.ask(GREET)).status == 200
        big_but_fine = GREET[:-2] + b"x-big: " + b"v" * 64 * 1024 + b"\r\n\r\n"
        assert (await client.ask(big_but_fine)).status == 200

    run()


@scenario()
async def test_a_long_path_is_414(world: World) -> None:
    client = await world.client()
    answer = await client.ask(
        b"GET /Counter/%b/get HTTP/1.1\r\nhost: h\r\n\r\n" % (b"k" * limits.INGRESS_TARGET_BYTES_MAX)
    )
    assert (answer.status, str(limits.INGRESS_TARGET_BYTES_MAX) in answer.json["message"]) == (414, True)
    assert (await client.ask(GREET)).status == 200


@scenario()
async def test_headers_without_end_are_cut_off(world: World) -> None:
    client = await world.client()
    client.write(GREET[:-2] + b"x: v\r\n" * (limits.INGRESS_HEAD_BYTES_DISCARDED_MAX // 3))
    answer = await client.read()
    assert (answer.status, answer.headers["connection"]) == (431, "close")
    assert await client.closed()


# -- time -----------------------------------------------------------------------------------------------


@scenario()
async def test_a_head_that_trickles_in_is_timed_out(world: World) -> None:
    client = await world.client()
    client.write(GREET[:20])
    await world.until(lambda: world.server.buffered_bytes == 20)
    world.clock.advance_s(limits.INGRESS_READ_GRACE_S)
    world.server.sweep()
    client.write(GREET[20:30])
    await world.until(lambda: world.server.buffered_bytes == 30)
    world.clock.advance_s(1)
    world.server.sweep()
    answer = await client.read()
    assert (answer.status, answer.headers["connection"]) == (408, "close")
    assert await client.closed()
    assert world.server.buffered_bytes == 0
    assert world.server.counters.timeouts == 1


@scenario(request_size_limit=10_000_000)
async def test_a_long_body_has_the_time_that_its_bytes_need(world: World) -> None:
    client = await world.client()
    client.write(post("/Greeter/greet", b"1" * 1_000_000)[:-1])
    await world.until(lambda: world.server.buffered_bytes >= 999_999)
    world.clock.advance_s(limits.INGRESS_READ_GRACE_S + 1_000_000 // limits.INGRESS_READ_BYTES_PER_S_MIN - 1)
    world.server.sweep()
    assert (await client.ask(b"1")).status == 200


@scenario()
async def test_idle_connections_are_closed_and_waiting_ones_are_not(world: World) -> None:
    idle, used, waiting = await world.client(), await world.client(), await world.client()
    assert (await used.ask(GREET)).status == 200
    await world.asked()
    world.node.gate = asyncio.Event()
    waiting.write(GREET)
    await world.asked()
    world.clock.advance_s(limits.INGRESS_KEEP_ALIVE_S + 1)
    world.server.sweep()
    assert await idle.closed()
    assert await used.closed()
    world.node.gate.set()
    assert (await waiting.read()).status == 200


@scenario()
async def test_a_client_that_does_not_read_gets_no_further_answers_and_is_cut_off(world: World) -> None:
    client = await world.client()
    client.writer.transport.pause_reading()  # type: ignore[attr-defined]
    world.node.call_answer = Success(ID, b"1" * 20_000_000)
    client.write(GREET * 3)
    await world.asked()
    await world.until(lambda: world.server.counters.answers_by_class[2] == 1)
    for _ in range(3):
        world.clock.advance_s(limits.INGRESS_WRITE_STALL_S)
        world.server.sweep()
    await world.until(lambda: world.server.connections == 0)
    assert world.node.asked.empty()
    assert world.server.counters.timeouts == 1


@scenario()
async def test_a_slow_but_steady_reader_is_left_alone(world: World) -> None:
    client = await world.client()
    world.node.call_answer = Success(ID, b"1" * 20_000_000)
    client.write(GREET)
    await world.until(lambda: world.unsent() > 0)
    while (unsent := world.unsent()) > 0:
        while world.unsent() == unsent:
            assert await client.reader.read(1_000_000)
        world.clock.advance_s(limits.INGRESS_WRITE_STALL_S)
        world.server.sweep()
    assert world.server.counters.timeouts == 0
    assert world.server.connections == 1


# -- going away -----------------------------------------------------------------------------------------


@scenario()
async def test_a_client_that_goes_away_ends_the_waiting(world: World) -> None:
    client = await world.client()
    world.node.gate = asyncio.Event()
    client.write(GREET)
    await world.asked()
    client.writer.close()
    async with asyncio.timeout(WAIT_S):
        await world.node.cancelled.wait()
    assert world.server.counters.disconnects_while_waiting == 1


@scenario(connections_max=2)
async def test_connections_are_bounded(world: World) -> None:
    first, second = await world.client(), await world.client()
    assert (await first.ask(GREET)).status == (await second.ask(GREET)).status == 200
    third = await world.client()
    assert (await third.read()).status == 503
    assert await third.closed()
    first.writer.close()
    await world.until(lambda: world.server.connections == 1)
    assert (await (await world.client()).ask(GREET)).status == 200


async def stopped(world: World, grace_s: float) -> None:
    async with asyncio.timeout(WAIT_S):
        await world.server.stop(grace_s)


@scenario()
async def test_a_stop_lets_answers_out_and_closes_the_rest(world: World) -> None:
    idle, busy = await world.client(), await world.client()
    assert (await idle.ask(GREET)).status == 200
    await world.asked()
    world.node.gate = asyncio.Event()
    busy.write(GREET)
    await world.asked()
    stopping: Awaitable[None] = asyncio.ensure_future(stopped(world, WAIT_S))
    assert await idle.closed()
    with pytest.raises(OSError, match=r".*"):
        await asyncio.open_connection("127.0.0.1", world.port)
    world.node.gate.set()
    answer = await busy.read()
    assert (answer.status, answer.headers["connection"]) == (200, "close")
    busy.writer.close()
    await stopping


@scenario()
async def test_who_waits_longer_than_the_grace_of_a_stop_is_told(world: World) -> None:
    busy = await world.client()
    world.node.gate = asyncio.Event()
    busy.write(GREET)
    await world.asked()
    stopping: Awaitable[None] = asyncio.ensure_future(stopped(world, 0))
    answer = await busy.read()
    assert (answer.status, answer.headers["connection"]) == (503, "close")
    assert "the server is stopping. Retrying may execute the request twice" in answer.json["message"]
    busy.writer.close()
    await stopping

"""However the bytes of a connection are cut, and whatever stands in them, the ingress sees the same requests."""

from __future__ import annotations

import asyncio
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from perdure_server.ingress.connection import Connection
from perdure_server.ingress.requests import Accepted, InvokeRequest, Success
from perdure_server.ingress.shared import Shared
from support.ingress import ID, ScriptedNode, sample_schema

SCHEMA = sample_schema()
REQUESTS = [
    b"GET /Greeter/greet HTTP/1.1\r\nhost: h\r\n\r\n",
    b"POST /Counter/a%2Fb/add?x=1 HTTP/1.1\r\nHost: h\r\ncontent-type: application/json\r\n"
    b"content-length: 5\r\n\r\n12345",
    b"POST /Greeter/greet HTTP/1.1\r\nhost: h\r\ncontent-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n"
    b"3\r\nabc\r\n4;x=y\r\ndefg\r\n0\r\ntrailer: v\r\n\r\n",
    b"POST /Greeter/any/send?delay=1s HTTP/1.1\r\nhost: h\r\ncontent-type: a/b\r\ncontent-length: 60\r\n\r\n"
    + b"z" * 60,
    b"POST /Greeter/any HTTP/1.1\r\nhost: h\r\ncontent-type: a/b\r\ncontent-length: 101\r\n\r\n"
    + b"z" * 101,  # too long
    b"PUT /Nope/any HTTP/1.1\r\nhost: h\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nhost: h\r\norigin: o\r\n\r\n",
]


class Pipe(asyncio.Transport):
    """A socket whose other end takes everything at once."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.ended = False

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended
        self.written += data

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.ended = True

    def is_closing(self) -> bool:
        return False

    def pause_reading(self) -> None:
        pass

    def resume_reading(self) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


async def converse(pieces: list[bytes]) -> tuple[bytes, list[InvokeRequest], bool]:
    """What a connection answers and asks the node, and whether it ended."""
    errors: list[dict[str, Any]] = []
    loop = asyncio.get_running_loop()
    loop.set_exception_handler(lambda _, context: errors.append(context))
    node = ScriptedNode(call_answer=Success(ID, b"1"), send_answer=Accepted(ID, previously=False))
    shared = Shared(node, lambda: SCHEMA, request_size_limit=100, buffered_bytes_max=1_000_000, connections_max=1)
    connection, pipe = Connection(shared, loop), Pipe()
    connection.connection_made(pipe)
    for piece in pieces:
        connection.data_received(piece)
        await asyncio.sleep(0)
    for _ in range(10 * len(REQUESTS)):
        await asyncio.sleep(0)
    connection.connection_lost(None)
    await asyncio.sleep(0)
    assert not errors
    assert shared.buffered_bytes == 0
    asked = [node.asked.get_nowait() for _ in range(node.asked.qsize())]
    return pipe.written, [each for each in asked if isinstance(each, InvokeRequest)], pipe.ended


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    return [*pieces, data[at:]]


sizes = st.lists(st.integers(1, 200), max_size=20)


@settings(max_examples=200, deadline=None)
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=6), sizes)
def test_any_cutting_gives_the_same_requests_and_answers(requests: list[bytes], sizes: list[int]) -> None:
    data = b"".join(requests)
    whole = asyncio.run(converse([data]))
    assert whole[0].count(b"HTTP/1.1 ") == len(requests)
    assert asyncio.run(converse(cut(data, sizes))) == whole
    assert asyncio.run(converse(requests)) == whole


@settings(max_examples=300, deadline=None)
@given(st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=3), st.data(), sizes)
def test_damaged_bytes_get_an_answer_or_wait_for_more(
    requests: list[bytes], data: st.DataObject, sizes: list[int]
) -> None:
    damaged = bytearray(b"".join(requests))
    for _ in range(data.draw(st.integers(1, 4))):
        at = data.draw(st.integers(0, len(damaged) - 1))
        damaged[at : at + data.draw(st.integers(0, 3))] = data.draw(st.binary(max_size=3))
        if not damaged:
            return
    written, _, ended = asyncio.run(converse(cut(bytes(damaged), sizes)))
    # 400 for bad HTTP is the end; other answers keep their connection unless the client asked otherwise.
    assert not (b"bad HTTP request" in written and not ended)

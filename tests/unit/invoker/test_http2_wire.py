"""The client's half of HTTP/2, frame by frame: what is heard, and what a peer may not say.

That what we say is right is judged by jh2's and h2's servers in test_http2.py and the transport's contract.
"""

from __future__ import annotations

import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from jh2.hpack import Encoder

from perdure_processor.invoker.http2_wire import Http2Wire, WireError, WireStream
from perdure_processor.model.limits import HTTP2_CONNECTION_WINDOW_BYTES, HTTP2_FRAME_BYTES_MAX, STREAM_WINDOW_BYTES

DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS, PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(10)
END_STREAM, ACK, END_HEADERS, PADDED, WITH_PRIORITY = 1, 1, 4, 8, 32
HEAD = [(b":method", b"POST", False), (b":path", b"/", False)]
OK = Encoder().encode([(":status", "200"), ("x-a", "1")])


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return struct.pack(">L", len(payload))[1:] + bytes([kind, flags]) + struct.pack(">L", stream_id) + payload


def setting(name: int, number: int) -> bytes:
    return struct.pack(">HL", name, number)


class Heard:
    """WireEvents that write down what they are told."""

    def __init__(self) -> None:
        self.events: list[tuple[object, ...]] = []

    def on_response(self, stream_id: int, status: int, headers: list[tuple[bytes, bytes, bool]]) -> None:
        self.events.append(("response", stream_id, status, [pair[:2] for pair in headers]))

    def on_data(self, stream_id: int, data: bytes) -> None:
        self.events.append(("data", stream_id, data))

    def on_end(self, stream_id: int) -> None:
        self.events.append(("end", stream_id))

    def on_reset(self, stream_id: int, code: int, reason: str | None) -> None:
        self.events.append(("reset", stream_id, code, reason is not None))

    def on_window(self, stream_id: int) -> None:
        self.events.append(("window", stream_id))

    def on_settings(self) -> None:
        self.events.append(("settings",))

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self.events.append(("goaway", last_stream_id, code, debug))


def opened(streams: int = 1) -> tuple[Http2Wire, Heard, list[WireStream]]:
    heard = Heard()
    wire = Http2Wire(heard)
    wire.start()
    opened_streams = [wire.open(HEAD, end=False) for _ in range(streams)]
    wire.take()
    return wire, heard, opened_streams


CONVERSATION = b"".join(
    [
        frame(SETTINGS, 0, 0, setting(3, 100) + setting(4, 1000) + setting(0x99, 7)),
        frame(SETTINGS, ACK, 0),
        frame(0xEE, 0xFF, 1, b"an extension"),
        frame(HEADERS, END_HEADERS, 1, Encoder().encode([(":status", "103")])),
        frame(HEADERS, PADDED | WITH_PRIORITY, 1, b"\x02" + bytes(5) + OK[:2] + b"\0\0"),
        frame(CONTINUATION, 0, 1, OK[2:3]),
        frame(CONTINUATION, END_HEADERS, 1, OK[3:]),
        frame(PING, 0, 0, b"12345678"),
        frame(DATA, 0, 1, b"first"),
        frame(DATA, PADDED, 1, b"\x03second\0\0\0"),
        frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", 10)),
        frame(WINDOW_UPDATE, 0, 1, struct.pack(">L", 10)),
        frame(PRIORITY, 0, 1, bytes(5)),
        frame(GOAWAY, 0, 0, struct.pack(">LL", 3, 0) + b"bye"),
        frame(HEADERS, END_HEADERS | END_STREAM, 1, Encoder().encode([("trailer", "x")])),
        frame(RST_STREAM, 0, 3, struct.pack(">L", 8)),
    ]
)
UNDERSTOOD = [
    ("settings",),
    ("response", 1, 200, [(b":status", b"200"), (b"x-a", b"1")]),
    ("data", 1, b"first"),
    ("data", 1, b"second"),
    ("window", 0),
    ("window", 1),
    ("goaway", 3, 0, b"bye"),
    ("end", 1),
    ("reset", 3, 8, False),
]


def test_a_conversation_is_understood_and_answered() -> None:
    wire, heard, _ = opened(2)
    wire.receive(CONVERSATION)
    assert heard.events == UNDERSTOOD
    assert wire.take() == frame(SETTINGS, ACK, 0) + frame(PING, ACK, 0, b"12345678") + frame(
        WINDOW_UPDATE, 0, 1, struct.pack(">L", 4)
    )
    assert wire.streams_max == 100


@given(st.lists(st.integers(0, len(CONVERSATION))))
def test_any_cut_of_the_bytes_is_understood_alike(cuts: list[int]) -> None:
    wire, heard, _ = opened(2)
    edges = [0, *sorted(cuts), len(CONVERSATION)]
    for start, end in pairwise(edges):
        wire.receive(CONVERSATION[start:end])
    assert heard.events == UNDERSTOOD


@given(st.lists(st.binary(max_size=40)), st.integers(0, 9), st.integers(0, 255), st.integers(0, 5))
def test_no_bytes_do_worse_than_end_the_connection(pieces: list[bytes], kind: int, flags: int, stream_id: int) -> None:
    wire, _, _ = opened(2)
    try:
        for piece in pieces:
            wire.receive(frame(kind, flags, stream_id, piece))
            wire.receive(piece)
    except WireError:
        assert frame(GOAWAY, 0, 0)[3:9] in wire.take()


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (frame(DATA, 0, 0, b"x"), 1),
        (frame(DATA, 0, 5, b"x"), 1),
        (frame(DATA, 0, 2, b"x"), 1),
        (frame(DATA, PADDED, 1, b"\x05xx"), 1),
        (frame(DATA, PADDED, 1, b""), 1),
        (frame(HEADERS, END_HEADERS, 7, OK), 1),
        (frame(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff"), 9),
        (frame(HEADERS, END_HEADERS, 1, b"\x40\x01a"), 9),  # on this the compiled decoder panics
        (frame(HEADERS, 0, 1, OK) + frame(PING, 0, 0, bytes(8)), 1),
        (frame(HEADERS, 0, 1, OK) + frame(CONTINUATION, END_HEADERS, 3), 1),
        (frame(HEADERS, 0, 1, OK) + frame(CONTINUATION, 0, 1), 1),
        (frame(HEADERS, 0, 1) + frame(CONTINUATION, 0, 1, bytes(HTTP2_FRAME_BYTES_MAX)) * 5, 1),
        (frame(CONTINUATION, END_HEADERS, 1, OK), 1),
        (frame(PUSH_PROMISE, END_HEADERS, 1, bytes(4) + OK), 1),
        (frame(SETTINGS, 0, 1), 1),
        (frame(SETTINGS, 0, 0, bytes(5)), 6),
        (frame(SETTINGS, ACK, 0, bytes(6)), 6),
        (frame(SETTINGS, 0, 0, setting(4, 2**31)), 3),
        (frame(SETTINGS, 0, 0, setting(5, 100)), 1),
        (frame(WINDOW_UPDATE, 0, 0, bytes(4)), 1),
        (frame(WINDOW_UPDATE, 0, 0, b"\x7f\xff\xff\xff"), 3),
        (frame(WINDOW_UPDATE, 0, 0, bytes(3)), 6),
        (frame(RST_STREAM, 0, 9, bytes(4)), 1),
        (frame(PING, 0, 1, bytes(8)), 1),
        (frame(PING, 0, 0, bytes(7)), 6),
        (frame(GOAWAY, 0, 0, bytes(7)), 1),
        (b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", 6),
    ],
)
def test_a_broken_rule_ends_the_connection_with_its_code(said: bytes, code: int) -> None:
    wire, _, _ = opened(2)
    with pytest.raises(WireError):
        wire.receive(said)
    assert wire.take().endswith(frame(GOAWAY, 0, 0, struct.pack(">LL", 0, code)))


@pytest.mark.parametrize(
    ("said", "code"),
    [
        (frame(DATA, 0, 1, b"early"), 1),
        (frame(HEADERS, END_HEADERS, 1, Encoder().encode([("x", "y")])), 1),
        (frame(HEADERS, END_HEADERS, 1, Encoder().encode([(":status", "abc")])), 1),
        (frame(HEADERS, END_HEADERS | END_STREAM, 1, Encoder().encode([(":status", "100")])), 1),
        (frame(HEADERS, END_HEADERS, 1, OK) + frame(HEADERS, END_HEADERS, 1, Encoder().encode([("x", "y")])), 1),
        (frame(WINDOW_UPDATE, 0, 1, bytes(4)), 1),
        (frame(WINDOW_UPDATE, 0, 1, b"\x7f\xff\xff\xff"), 3),
    ],
)
def test_a_rule_broken_on_a_stream_ends_that_stream_alone(said: bytes, code: int) -> None:
    wire, heard, _ = opened(2)
    wire.receive(said + frame(HEADERS, END_HEADERS | END_STREAM, 3, OK))
    assert ("reset", 1, code, True) in heard.events
    assert heard.events[-1] == ("end", 3)
    assert frame(RST_STREAM, 0, 1, struct.pack(">L", code)) in wire.take()


def test_more_than_the_window_of_a_stream_is_refused() -> None:
    wire, heard, _ = opened()
    wire.receive(frame(HEADERS, END_HEADERS, 1, OK))
    for _ in range(STREAM_WINDOW_BYTES // HTTP2_FRAME_BYTES_MAX):
        wire.receive(frame(DATA, 0, 1, bytes(HTTP2_FRAME_BYTES_MAX)))
    assert heard.events[-1][0] == "data"
    wire.receive(frame(DATA, 0, 1, b"x"))
    assert heard.events[-1] == ("reset", 1, 3, True)


def test_late_frames_of_a_stream_that_was_given_up_are_swallowed_and_credited() -> None:
    wire, heard, streams = opened()
    wire.reset(streams[0], 8)
    wire.take()
    wire.receive(frame(HEADERS, END_HEADERS, 1, OK))
    for _ in range(HTTP2_CONNECTION_WINDOW_BYTES // HTTP2_FRAME_BYTES_MAX * 2):
        wire.receive(frame(DATA, 0, 1, bytes(HTTP2_FRAME_BYTES_MAX)))
    wire.receive(frame(RST_STREAM, 0, 1, bytes(4)) + frame(WINDOW_UPDATE, 0, 1, bytes(4)))
    assert heard.events == []
    assert wire.take() == frame(WINDOW_UPDATE, 0, 0, struct.pack(">L", HTTP2_CONNECTION_WINDOW_BYTES // 2)) * 4


def test_a_changed_initial_window_moves_open_streams_even_below_zero() -> None:
    wire, _, streams = opened()
    wire.send(streams[0], bytes(1000), end=False)
    wire.receive(frame(SETTINGS, 0, 0, setting(4, 100)))
    assert wire.room(streams[0]) == 100 - 1000
    assert wire.room(wire.open(HEAD, end=False)) == 100


def test_long_headers_are_continued() -> None:
    wire, _, _ = opened(0)
    wire.open([*HEAD, (b"x-long", b"\x01" * 40_000, True)], end=True)
    said = wire.take()
    kinds = []
    while said:
        size = int.from_bytes(said[:3], "big")
        kinds.append((said[3], said[4]))
        said = said[9 + size :]
    assert kinds[0] == (HEADERS, END_STREAM)
    assert {kind for kind, _ in kinds[1:]} == {CONTINUATION}
    assert [flags for _, flags in kinds[1:]] == [0] * (len(kinds) - 2) + [END_HEADERS]

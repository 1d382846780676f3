"""○ adapter · The attempt's end of an HTTP/2 stream, and what waits there for the connection's next flush."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import Protocol

from perdure_processor.invoker.http2_wire import Head, WireStream
from perdure_processor.invoker.transport import Closed, StreamEvents


class Carrier(Protocol):
    """The connection, as its streams see it; it reads and writes their public attributes."""

    def note(self, stream: Http2Stream, size: int) -> None:
        """The stream has something for the next flush, `size` bytes among it."""

    def abandon(self, stream: Http2Stream) -> None:
        """The stream is reset by us, if the peer has heard of it at all."""

    def credit(self, stream: Http2Stream, size: int) -> None:
        """Give consumed bytes back to the peer, half a window at a time."""


class Http2Stream:
    """The attempt's end of a stream; what it sends waits here until its connection's next flush."""

    __slots__ = (
        "_chunks",
        "closed",
        "connection",
        "events",
        "finished",
        "head",
        "noted",
        "placements",
        "served",
        "to_credit",
        "unconsumed",
        "unsent",
        "wire",
    )

    def __init__(self, head: Head, events: StreamEvents) -> None:
        self.head = head
        self.events = events
        self.connection: Carrier | None = None
        self.wire: WireStream | None = None  # until the next flush the peer has not heard of this stream
        self._chunks: deque[bytes | memoryview] = deque()
        self.unsent = 0
        self.unconsumed = 0  # received, not yet consumed by the attempt
        self.to_credit = 0  # consumed, not yet given back to the peer
        self.placements = 0
        self.served = 0  # the flush that last took bytes from here
        self.finished = False
        self.closed = False
        self.noted = False  # whether the connection has this stream on its list for the next flush

    def send(self, data: bytes) -> None:
        assert not self.finished, "send after finish"
        if self.closed or not data:
            return
        self._chunks.append(data)
        self.unsent += len(data)
        if self.connection is not None:
            self.connection.note(self, len(data))

    def finish(self) -> None:
        if self.closed or self.finished:
            return
        self.finished = True
        if self.connection is not None:
            self.connection.note(self, 0)

    def reset(self) -> None:
        if not self.closed:
            connection, sent = self.connection, self.wire is not None
            if connection is not None:
                connection.abandon(self)
            self.close_soon(Closed("the stream was reset by this server", never_sent=not sent))

    def consumed(self, size: int) -> None:
        if not self.closed:
            assert size <= self.unconsumed, "more consumed than received"
            self.unconsumed -= size
            self.to_credit += size
            if self.connection is not None:
                self.connection.credit(self, size)

    def close_soon(self, closed: Closed) -> None:
        """Tell the attempt that it is over, but not from within its own call."""
        self._let_go()
        asyncio.get_running_loop().call_soon(self.events.on_closed, closed)

    def close(self, closed: Closed) -> None:
        """Tell the attempt now; for callbacks of the loop."""
        self._let_go()
        self.events.on_closed(closed)

    def _let_go(self) -> None:
        self.closed = True
        self.connection = None
        self._chunks.clear()
        self.unsent = 0

    def take(self, size: int) -> bytes:
        """At most `size` bytes from the front of what waits to be sent; small pieces are joined."""
        chunks = self._chunks
        if self.unsent <= size:
            data = b"".join(chunks)
            chunks.clear()
            self.unsent = 0
            return data
        front = memoryview(chunks.popleft())  # slices of a view are free, of 32 MiB of bytes they are not
        if len(front) > size:
            chunks.appendleft(front[size:])
            front = front[:size]
        self.unsent -= len(front)
        return bytes(front)

"""● core · The Transport port: a stream of bytes each way between one attempt and one deployment.

Callbacks, not coroutines: a task, a queue or a timer per attempt costs a fifth of the throughput.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from perdure_processor.model.value import value


@value
class Address:
    """Where a deployment listens and how to speak to it.

    uri: "http://host:port/base" or "https://…"; no trailing slash.
    http1: True asks for HTTP/1.1 (registered with use_http_11); else http:// is HTTP/2 with prior
    knowledge and https:// is what ALPN agrees on."""

    uri: str
    http1: bool


@value
class StreamRequest:
    """One request to open: `path` is appended to the address's own path; headers are lower case, in order."""

    method: str
    path: str
    headers: Sequence[tuple[str, str]]
    # The body is sent whole before the answer is looked at (request/response), or stays open (full duplex).
    full_duplex: bool


@value
class Closed:
    """How a stream ended. `error` is None after a regular end of the response.

    `status` is the response's status if headers arrived. `never_sent` is True when no byte of the
    request can have reached the deployment (connection refused, pool closed): safe to try elsewhere.
    `spoke_http1` is True when the deployment answered in HTTP/1.1 where HTTP/2 was expected."""

    error: str | None
    never_sent: bool = False
    spoke_http1: bool = False


class StreamEvents(Protocol):
    """What the attempt implements. Called on the event loop, never from within a Stream method or open()."""

    def on_response(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        """Response headers arrived (names lower case); at most once, before any data."""

    def on_data(self, data: bytes) -> None:
        """Response bytes, cut anywhere. The receiver calls Stream.consumed for them, now or later."""

    def on_closed(self, closed: Closed) -> None:
        """The stream is over; exactly once, last."""


class Stream(Protocol):
    """The attempt's end of an open stream; every method may be called before the connection is up."""

    def send(self, data: bytes) -> None:
        """Queue request bytes; written together with those of other streams at the latest at the end of this turn."""

    def finish(self) -> None:
        """No more request bytes (half-close)."""

    def reset(self) -> None:
        """Abandon the stream (RST_STREAM CANCEL, or close the connection). on_closed still follows."""

    def consumed(self, size: int) -> None:
        """`size` received bytes are dealt with: the peer may send that many more (flow control)."""

    @property
    def unsent(self) -> int:
        """Request bytes queued here because the peer does not take them: the sender's push-back signal."""


class Transport(Protocol):
    """Opens streams; pools connections behind the scenes."""

    def open(self, address: Address, request: StreamRequest, events: StreamEvents) -> Stream:
        """Start a stream. Never raises for the world's faults: they arrive as on_closed."""

    async def close(self) -> None:
        """Reset what is open and close all connections."""

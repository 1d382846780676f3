"""◐ shell · What the connections of one ingress have in common: the node, the limits, the counters, the time of day."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from email.utils import formatdate
from typing import Protocol

from perdure_processor.model.schema import Schema
from perdure_server.ingress import responses
from perdure_server.ingress.requests import Dispatcher


class IngressCounters:
    """Plain numbers, rendered by whoever serves metrics."""

    __slots__ = (
        "answers_by_class",
        "bad_http",
        "connections_accepted",
        "connections_refused",
        "disconnects_while_waiting",
        "overloaded",
        "timeouts",
    )

    def __init__(self) -> None:
        self.answers_by_class = [0] * 10  # index 2 counts 2xx
        self.bad_http = 0
        self.connections_accepted = 0
        self.connections_refused = 0
        self.disconnects_while_waiting = 0
        self.overloaded = 0
        self.timeouts = 0


class ClientConnection(Protocol):
    """What the server may do to a connection from outside."""

    def check_time(self, now_s: int) -> None: ...

    def drain(self) -> None: ...

    def cancel(self) -> None: ...

    def abort(self) -> None: ...

    def unsent_bytes(self) -> int: ...


class Shared:
    """What the connections of one server have in common."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        current_schema: Callable[[], Schema],
        *,
        request_size_limit: int,
        buffered_bytes_max: int,
        connections_max: int,
    ) -> None:
        self.dispatcher = dispatcher
        self.current_schema = current_schema
        self.request_size_limit = request_size_limit
        self.counters = IngressCounters()
        self.connections: set[ClientConnection] = set()
        self.empty = asyncio.Event()  # whether there are no connections
        self.stopping = False
        self.buffered_bytes = 0
        self._buffered_bytes_max = buffered_bytes_max
        self._connections_max = connections_max
        # The time as of the last sweep: good enough for timeouts and the date, and free to read.
        self.now_s = 0
        self.head = b""  # the header lines that every answer of this moment carries

    def set_time(self, monotonic_s: int, epoch_s: float) -> None:
        self.now_s = monotonic_s
        self.head = responses.CORS + b"date: %b\r\n" % formatdate(epoch_s, usegmt=True).encode()

    def admit(self, connection: ClientConnection) -> bool:
        """Whether one more connection may stay."""
        if len(self.connections) >= self._connections_max or self.stopping:
            self.counters.connections_refused += 1
            return False
        self.counters.connections_accepted += 1
        self.connections.add(connection)
        self.empty.clear()
        return True

    def gone(self, connection: ClientConnection) -> None:
        self.connections.discard(connection)
        if not self.connections:
            self.empty.set()

    def hold(self, size: int) -> bool:
        """Account for bytes of an unfinished request; False when there is no room for them."""
        if self.buffered_bytes + size > self._buffered_bytes_max:
            self.counters.overloaded += 1
            return False
        self.buffered_bytes += size
        return True

"""○ adapter · The server of the ingress: a listening socket, its connections, and the sweep that times them out."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from typing import cast

from perdure_processor.clock import Clock, SystemClock
from perdure_processor.model.schema import Schema
from perdure_server.ingress.connection import Connection
from perdure_server.ingress.requests import Dispatcher
from perdure_server.ingress.shared import IngressCounters, Shared
from perdure_server.limits import (
    INGRESS_ACCEPT_BACKLOG,
    INGRESS_BODY_BYTES_MAX,
    INGRESS_BUFFERED_BYTES_MAX,
    INGRESS_CONNECTIONS_MAX,
    INGRESS_STOP_FLUSH_S,
    INGRESS_SWEEP_S,
)


class IngressServer:
    """Listens, sweeps and stops; the work is done by its connections."""

    def __init__(
        self,
        dispatcher: Dispatcher,
        current_schema: Callable[[], Schema],
        *,
        request_size_limit: int = INGRESS_BODY_BYTES_MAX,
        buffered_bytes_max: int = INGRESS_BUFFERED_BYTES_MAX,
        connections_max: int = INGRESS_CONNECTIONS_MAX,
        clock: Clock | None = None,
    ) -> None:
        self._shared = Shared(
            dispatcher,
            current_schema,
            request_size_limit=request_size_limit,
            buffered_bytes_max=buffered_bytes_max,
            connections_max=connections_max,
        )
        self._clock: Clock = SystemClock() if clock is None else clock
        self._read_clock()
        self._listener: asyncio.Server | None = None
        self._sweeping: asyncio.TimerHandle | None = None

    async def start(self, host: str, port: int) -> int:
        """Listen; returns the port, which the system chooses when 0 is asked for. OSError if it is taken."""
        assert self._listener is None
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(
            lambda: Connection(self._shared, loop), host, port, backlog=INGRESS_ACCEPT_BACKLOG
        )
        self._sweeping = loop.call_later(INGRESS_SWEEP_S, self._sweep_and_again, loop)
        return cast(int, self._listener.sockets[0].getsockname()[1])

    async def stop(self, grace_s: float) -> None:
        """Accept nothing more, let what is being answered end within the grace, then say 503 and hang up.

        The invocations behind the calls cut off go on: they are the node's."""
        assert self._listener is not None
        self._listener.close()
        self._shared.stopping = True
        for connection in list(self._shared.connections):
            connection.drain()
        if not await self._wait_until_empty(grace_s):
            for connection in list(self._shared.connections):
                connection.cancel()
            await self._wait_until_empty(INGRESS_STOP_FLUSH_S)
            for connection in list(self._shared.connections):
                connection.abort()
            await self._wait_until_empty(INGRESS_STOP_FLUSH_S)
        if self._sweeping is not None:
            self._sweeping.cancel()

    async def _wait_until_empty(self, timeout_s: float) -> bool:
        if self._shared.connections:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._shared.empty.wait(), timeout_s)
        return not self._shared.connections

    def sweep(self) -> None:
        """Cut off the connections that wait for too long; once a second, for all of them at once."""
        self._read_clock()
        for connection in list(self._shared.connections):
            connection.check_time(self._shared.now_s)

    def _sweep_and_again(self, loop: asyncio.AbstractEventLoop) -> None:
        self.sweep()
        self._sweeping = loop.call_later(INGRESS_SWEEP_S, self._sweep_and_again, loop)

    def _read_clock(self) -> None:
        self._shared.set_time(self._clock.monotonic_ms() // 1000, self._clock.now_ms() / 1000)

    @property
    def counters(self) -> IngressCounters:
        return self._shared.counters

    @property
    def connections(self) -> int:
        """How many there are now."""
        return len(self._shared.connections)

    @property
    def buffered_bytes(self) -> int:
        """How much of `buffered_bytes_max` is taken now."""
        return self._shared.buffered_bytes

    @property
    def unsent_bytes(self) -> int:
        """What was answered and the clients' sockets have not taken yet."""
        return sum(connection.unsent_bytes() for connection in self._shared.connections)

"""The network between node and deployment: the Transport port with latency, windows, cuts and dead ends."""

from __future__ import annotations

import asyncio
import contextvars
import random
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from perdure_processor.invoker.transport import Address, Closed, Stream, StreamEvents, StreamRequest
from simulation.faults import Options
from simulation.loop import Life

PIECES_MAX = 4  # a write arrives in at most this many pieces, unless the window is smaller


class Handling(Protocol):
    """What a deployment does with one request."""

    def receive(self, data: bytes) -> None: ...

    def input_closed(self) -> None: ...

    def reset(self) -> None: ...


class Network:
    """All streams there are. `options` may be replaced: calm weather."""

    def __init__(self, options: Options, serve: Callable[[str, StreamRequest, Exchange], Handling]) -> None:
        self.options = options
        self.draw = random.Random(f"{options.seed}/network")
        self.serve = serve
        self.counts: dict[str, int] = {}
        self.loop = asyncio.get_running_loop()
        # What the deployment schedules belongs to nobody's life.
        self.outside = contextvars.copy_context()
        self.open_exchanges: dict[Exchange, None] = {}

    def happens(self, fault: str) -> bool:
        """Whether a fault, named as in Options, strikes here; counted if so."""
        probability: float = getattr(self.options, fault)
        # Nothing is drawn for what is switched off: a fault more does not change the runs without it.
        struck = probability > 0 and self.draw.random() < probability
        if struck:
            self.counts[fault] = self.counts.get(fault, 0) + 1
        return struck

    def latency(self) -> float:
        return self.draw.randint(0, self.options.latency_ms_max) / 1000

    def died(self, life: Life) -> None:
        """A node is gone: its peers see their streams reset, sooner or later."""
        for exchange in list(self.open_exchanges):
            if exchange.life is life:
                exchange.node_died()


class NodeTransport:
    """The Transport port of one node's life."""

    def __init__(self, network: Network, life: Life) -> None:
        self._network = network
        self._life = life

    def open(self, address: Address, request: StreamRequest, events: StreamEvents) -> Stream:
        return Exchange(self._network, self._life, address, request, events)

    async def close(self) -> None:
        for exchange in list(self._network.open_exchanges):
            if exchange.life is self._life:
                exchange.reset()


class _Line:
    """One direction: what is put in comes out in order, each piece later by some latency."""

    def __init__(self, network: Network, context: contextvars.Context) -> None:
        self._network = network
        self._context = context
        self._waiting: deque[Callable[[], None]] = deque()
        self._due = 0.0

    def put(self, deliver: Callable[[], None]) -> None:
        loop = self._network.loop
        self._due = max(self._due, loop.time() + self._network.latency())
        self._waiting.append(deliver)
        # Timers of one moment come in any order, so each of them takes whatever is first in line.
        loop.call_at(self._due, self._deliver_next, context=self._context)

    def _deliver_next(self) -> None:
        self._waiting.popleft()()


class Exchange:
    """One request and its response. To the node it is a Stream, to the deployment what it answers through."""

    def __init__(
        self, network: Network, life: Life, address: Address, request: StreamRequest, events: StreamEvents
    ) -> None:
        self.life = life
        self.network = network
        self.request = request
        self._events = events
        self._to_node = _Line(network, life.context)
        self._to_deployment = _Line(network, network.outside)
        self._window = network.options.window
        self._outgoing = bytearray()
        self._ending = False
        self._answered = False
        # Each side may have heard of the end already.
        self._node_open = True
        self._handling: Handling | None = None
        self._bytes_to_cut = -1
        options, happens = network.options, network.happens
        network.open_exchanges[self] = None
        if happens("unreachable"):
            self._to_node.put(lambda: self._node_closed(Closed("connection refused", never_sent=True)))
        elif happens("status_503"):
            headers = [("retry-after", "1")] if network.draw.random() < 0.5 else []
            self._to_node.put(lambda: self._events_if_open(lambda: events.on_response(503, headers)))
            self._to_node.put(lambda: self._node_closed(Closed(None)))
        elif not happens("hang"):
            self._handling = network.serve(address.uri, request, self)
            if happens("stream_cut"):
                at = network.loop.time() + network.draw.uniform(0, options.stream_cut_s_max)
                network.loop.call_at(at, self.cut, context=network.outside)
            if happens("response_cut"):
                self._bytes_to_cut = network.draw.randint(0, options.response_cut_bytes_max)

    # -- the node's end ----------------------------------------------------------------------------------
    def send(self, data: bytes) -> None:
        self._to_deployment.put(lambda: self._handling_receives(data))

    def finish(self) -> None:
        self._to_deployment.put(lambda: self._handling.input_closed() if self._handling else None)

    def reset(self) -> None:
        if self._node_open:
            self._to_deployment.put(self._handling_reset)
            self._to_node.put(lambda: self._node_closed(Closed("reset here")))

    def consumed(self, size: int) -> None:
        self._to_deployment.put(lambda: self._widen(size))

    @property
    def unsent(self) -> int:
        return 0

    def node_died(self) -> None:
        self.network.open_exchanges.pop(self, None)
        self._node_open = False
        self._to_deployment.put(self._handling_reset)

    # -- the deployment's end ----------------------------------------------------------------------------
    def respond(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        if not self._answered:
            self._answered = True
            self._to_node.put(lambda: self._events_if_open(lambda: self._events.on_response(status, headers)))

    def write(self, data: bytes) -> None:
        self._outgoing += data
        self._pump()

    def end(self) -> None:
        self._ending = True
        self._pump()

    def cut(self) -> None:
        """Both sides lose each other."""
        if self._node_open:
            self._to_node.put(lambda: self._node_closed(Closed("connection reset by peer")))
        self._to_deployment.put(self._handling_reset)

    # -- between them ------------------------------------------------------------------------------------
    def _pump(self) -> None:
        outgoing, draw = self._outgoing, self.network.draw
        while outgoing and self._window:
            size = min(len(outgoing), self._window)
            if draw.random() < 0.3:
                size = draw.randint(max(1, size // PIECES_MAX), size)
            if self._bytes_to_cut >= 0:
                size = min(size, self._bytes_to_cut)
                self._bytes_to_cut -= size
                if not size:
                    outgoing.clear()
                    self.cut()
                    return
            piece = bytes(outgoing[:size])
            del outgoing[:size]
            self._window -= size
            self._to_node.put(lambda piece=piece: self._events_if_open(lambda: self._events.on_data(piece)))
        if self._ending and not outgoing:
            self._to_node.put(lambda: self._node_closed(Closed(None)))

    def _widen(self, size: int) -> None:
        self._window += size
        if self._outgoing:
            self._pump()

    def _events_if_open(self, event: Callable[[], None]) -> None:
        if self._node_open:
            event()

    def _node_closed(self, closed: Closed) -> None:
        self.network.open_exchanges.pop(self, None)
        if self._node_open:
            self._node_open = False
            self._events.on_closed(closed)

    def _handling_receives(self, data: bytes) -> None:
        if self._handling is not None:
            self._handling.receive(data)

    def _handling_reset(self) -> None:
        handling, self._handling = self._handling, None
        if handling is not None:
            handling.reset()

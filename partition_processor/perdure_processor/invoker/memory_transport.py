"""◐ shell · The Transport's fake: deployments in this process, and a network that a test or the simulator scripts.

An endpoint is a coroutine function that is given one Exchange per request.  Faults are values drawn per stream: the
connection is refused, the answer is 503 or never comes, bytes are delayed, split or cut off.  Flow control is that
of HTTP/2, with the same window, so that push-back is met in tests as in production.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence

from perdure_processor.invoker.transport import Address, Closed, Stream, StreamEvents, StreamRequest
from perdure_processor.model.limits import STREAM_WINDOW_BYTES
from perdure_processor.model.value import value


@value
class Faults:
    """What happens to one stream; the default is nothing."""

    refuse: bool = False  # the connection is refused: never_sent
    answer_status: int | None = None  # this status and an empty body, without reaching the endpoint
    hang: bool = False  # the request is taken, nothing ever comes back
    delay_s: float = 0.0  # added to everything that arrives, in both directions
    split_bytes: int | None = None  # response bytes arrive in pieces of at most this size
    cut_after_bytes: int | None = None  # the connection breaks once so many response bytes have arrived


Endpoint = Callable[["Exchange"], Awaitable[None]]


class MemoryTransport:
    """Streams to endpoints that are registered here by the address they are called under.

    faults: asked once per stream; may be replaced at any time."""

    def __init__(
        self, faults: Callable[[Address, StreamRequest], Faults] = lambda _address, _request: Faults()
    ) -> None:
        self.faults = faults
        self._endpoints: dict[str, Endpoint] = {}
        self._streams: dict[MemoryStream, None] = {}
        self._closed = False

    def serve(self, uri: str, endpoint: Endpoint) -> None:
        """From now on requests to addresses of this uri are the endpoint's."""
        self._endpoints[uri] = endpoint

    def withdraw(self, uri: str) -> None:
        """The deployment's process dies: its connections break, new ones are refused."""
        del self._endpoints[uri]
        for stream in list(self._streams):
            if stream.address.uri == uri:
                stream.break_off(f"the connection to {uri} was lost")

    def open(self, address: Address, request: StreamRequest, events: StreamEvents) -> Stream:
        faults = self.faults(address, request)
        stream = MemoryStream(address, request, events, faults, self._forget)
        endpoint = self._endpoints.get(address.uri)
        if self._closed:
            stream.break_off("this server is stopping", never_sent=True)
        elif endpoint is None or faults.refuse:
            stream.break_off(f"cannot connect to {address.uri}: connection refused", never_sent=True)
        else:
            self._streams[stream] = None
            stream.start(endpoint)
        return stream

    async def close(self) -> None:
        self._closed = True
        for stream in list(self._streams):
            stream.reset()

    def _forget(self, stream: MemoryStream) -> None:
        self._streams.pop(stream, None)


class Exchange:
    """The deployment's end of a stream."""

    def __init__(self, stream: MemoryStream) -> None:
        self._stream = stream

    @property
    def request(self) -> StreamRequest:
        return self._stream.request

    async def read(self) -> bytes | None:
        """The next request bytes; None after their end. Cancelled when the stream is reset."""
        return await self._stream.take_request()

    def respond(self, status: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        self._stream.deliver_response(status, headers)

    async def write(self, data: bytes) -> None:
        """Response bytes; returns when the peer's window has taken them."""
        await self._stream.deliver_data(data)

    def end(self) -> None:
        """The regular end of the response."""
        self._stream.deliver_closed(Closed(None))

    def abort(self, reason: str = "the deployment reset the stream") -> None:
        """An RST_STREAM, or the process dies."""
        self._stream.deliver_closed(Closed(reason))


class MemoryStream:
    """One stream: the attempt's end, and the wire between it and the Exchange."""

    def __init__(
        self,
        address: Address,
        request: StreamRequest,
        events: StreamEvents,
        faults: Faults,
        forget: Callable[[MemoryStream], None],
    ) -> None:
        self.address = address
        self.request = request
        self._events = events
        self._faults = faults
        self._forget = forget
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        # Towards the deployment.
        self._request_chunks: deque[bytes] = deque()
        self._request_bytes = 0
        self._arrived: deque[bytes | None] = deque()  # None is the half-close
        self._request_changed = asyncio.Event()
        self._finished = False
        # Towards the attempt: what is on the way, delivered in order by one pump.
        self._on_the_way: deque[tuple[float, Callable[[], None]]] = deque()
        self._pumping = False
        self._unconsumed = 0  # sent by the deployment, not yet consumed by the attempt
        self._undelivered = 0
        self._delivered = 0
        self._window_changed = asyncio.Event()
        self._closed = False

    def start(self, endpoint: Endpoint) -> None:
        if self._faults.answer_status is not None:
            self.deliver_response(self._faults.answer_status, ())
            self.deliver_closed(Closed(None))
        elif not self._faults.hang:
            self._task = self._loop.create_task(self._run(endpoint))

    async def _run(self, endpoint: Endpoint) -> None:
        await endpoint(Exchange(self))
        if not self._closed:
            self.deliver_closed(Closed("the deployment's handler returned without ending the response"))

    # The attempt's end.

    def send(self, data: bytes) -> None:
        assert not self._finished, "send after finish"
        if not self._closed and data:
            self._request_bytes += len(data)
            self._after_delay(lambda: self._arrive(data))

    def finish(self) -> None:
        if not self._closed and not self._finished:
            self._finished = True
            self._after_delay(lambda: self._arrive(None))

    def reset(self) -> None:
        self.break_off("the stream was reset by this server")

    def consumed(self, size: int) -> None:
        if not self._closed:
            self._unconsumed -= size
            assert self._unconsumed >= 0, "more consumed than received"
            self._window_changed.set()

    @property
    def unsent(self) -> int:
        """What exceeds the window that the deployment has not read from."""
        return max(0, self._request_bytes - STREAM_WINDOW_BYTES)

    # The deployment's end.

    async def take_request(self) -> bytes | None:
        while not self._arrived:
            self._request_changed.clear()
            await self._request_changed.wait()
        data = self._arrived.popleft()
        if data is None:
            self._arrived.appendleft(None)  # the end stays the end
        else:
            self._request_bytes -= len(data)
        return data

    def deliver_response(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self._after_delay(lambda: self._events.on_response(status, headers))

    async def deliver_data(self, data: bytes) -> None:
        piece_bytes = self._faults.split_bytes or len(data)
        for start in range(0, len(data), max(1, piece_bytes)):
            while self._unconsumed >= STREAM_WINDOW_BYTES and not self._closed:
                self._window_changed.clear()
                await self._window_changed.wait()
            piece = data[start : start + piece_bytes]
            self._unconsumed += len(piece)
            self._after_delay(lambda piece=piece: self._deliver_piece(piece))  # type: ignore[misc]

    def deliver_closed(self, closed: Closed) -> None:
        self._after_delay(lambda: self._end(closed))

    def break_off(self, reason: str, *, never_sent: bool = False) -> None:
        """End at once, whatever is on the way; the attempt hears of it in the next turn."""
        if not self._closed:
            self._let_go()
            self._loop.call_soon(self._events.on_closed, Closed(reason, never_sent))

    def _arrive(self, data: bytes | None) -> None:
        self._arrived.append(data)
        self._request_changed.set()

    def _deliver_piece(self, piece: bytes) -> None:
        limit = self._faults.cut_after_bytes
        if limit is not None and self._delivered + len(piece) >= limit:
            piece = piece[: limit - self._delivered]
            if piece:
                self._delivered += len(piece)
                self._events.on_data(piece)
            self._end(Closed("the connection was lost: cut by the network"))
        else:
            self._delivered += len(piece)
            self._events.on_data(piece)

    def _end(self, closed: Closed) -> None:
        if not self._closed:
            self._let_go()
            self._events.on_closed(closed)

    def _let_go(self) -> None:
        self._closed = True
        self._on_the_way.clear()
        self._forget(self)
        if self._task is not None and self._task is not asyncio.current_task():
            self._task.cancel()

    # The wire: first in, first out, each thing not before its time.

    def _after_delay(self, deliver: Callable[[], None]) -> None:
        if self._closed:
            return
        self._on_the_way.append((self._loop.time() + self._faults.delay_s, deliver))
        if not self._pumping:
            self._pumping = True
            self._schedule_pump()

    def _schedule_pump(self) -> None:
        due_s = self._on_the_way[0][0]
        if due_s <= self._loop.time():
            self._loop.call_soon(self._pump)
        else:
            self._loop.call_at(due_s, self._pump)

    def _pump(self) -> None:
        now_s = self._loop.time()
        while self._on_the_way and self._on_the_way[0][0] <= now_s:
            self._on_the_way.popleft()[1]()
        if self._on_the_way:
            self._schedule_pump()
        else:
            self._pumping = False

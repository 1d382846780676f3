"""A deployment that says whatever a test wants: an HTTP/2 endpoint (h2) with hand-made frames, in a thread.

Discovery is answered in good order. What an attempt is answered is a script: a coroutine function that is given
the Exchange, until the test calls `behave`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
import threading
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Future
from typing import Any, TypeAlias

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.errors import ErrorCodes
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import H2Error

from perdure.protocol import messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import Decoder, MessageType, encode_frame, is_command

MANIFEST_TYPE = "application/vnd.restate.endpointmanifest.v3+json"


class Exchange:
    """One attempt, seen from the deployment."""

    def __init__(self, connection: _Connection, stream_id: int, headers: dict[str, str]) -> None:
        self._connection = connection
        self._stream_id = stream_id
        self.headers = headers
        self.path = headers[":path"]
        self.invocation_id = headers.get("x-restate-invocation-id", "")
        # How many attempts of this invocation came before, and the frames of the request so far.
        self.number = 0
        self.received: list[tuple[int, bool, bytes]] = []
        self.decoder = Decoder(1 << 30)
        self.changed = asyncio.Event()
        self.request_ended = False
        self.over = False

    # -- what came ---------------------------------------------------------------
    async def start(self) -> pb.StartMessage:
        while not self.received:
            await self._change()
        return pb.StartMessage.FromString(self.received[0][2])

    async def replay(self) -> list[tuple[int, bytes]]:
        """The known journal, Start apart: (type, payload)."""
        known = (await self.start()).known_entries
        while len(self.received) <= known:
            await self._change()
        return [(code, payload) for code, _, payload in self.received[1 : known + 1]]

    async def after_replay(self, count: int) -> list[tuple[int, bytes]]:
        """The first `count` messages that came while the attempt ran: (type, payload)."""
        first = 1 + (await self.start()).known_entries
        while len(self.received) < first + count:
            await self._change()
        return [(code, payload) for code, _, payload in self.received[first : first + count]]

    async def ended(self) -> None:
        """Wait until the server has half-closed."""
        while not self.request_ended and not self.over:
            await self._change()

    async def _change(self) -> None:
        self.changed.clear()
        await self.changed.wait()

    # -- what is said --------------------------------------------------------------
    def respond(self, status: int = 200, content_type: str | None = None, **headers: str) -> None:
        """Response headers; by default those that an SDK sends."""
        listed = [(":status", str(status)), ("content-type", content_type or self.headers.get("content-type", ""))]
        listed += [(name.replace("_", "-"), text) for name, text in headers.items()]
        self._connection.h2.send_headers(self._stream_id, listed)
        self._connection.flush()

    async def write(self, data: bytes, piece: int = 16_384) -> None:
        """Response bytes, as far and as fast as the server takes them."""
        h2 = self._connection.h2
        view = memoryview(data)
        while view and not self.over:
            room = min(h2.local_flow_control_window(self._stream_id), h2.max_outbound_frame_size, piece)
            if room <= 0:
                await self._change()
                continue
            h2.send_data(self._stream_id, bytes(view[:room]))
            view = view[room:]
            self._connection.flush()
            await self._connection.drained()

    def end(self) -> None:
        if not self.over:
            self._connection.h2.end_stream(self._stream_id)
            self._connection.flush()

    def reset(self, code: int = ErrorCodes.INTERNAL_ERROR) -> None:
        self._connection.h2.reset_stream(self._stream_id, code)
        self._connection.flush()

    def go_away(self, *, knows_this: bool) -> None:
        """GOAWAY: the stream counts as taken, or as never seen."""
        last = self._stream_id if knows_this else max(0, self._stream_id - 2)
        self._connection.transport.write(
            b"\0\0\x08\x07\0" + bytes(4) + last.to_bytes(4, "big") + int(ErrorCodes.NO_ERROR).to_bytes(4, "big")
        )

    def raw(self, data: bytes) -> None:
        """Bytes past HTTP/2, into the connection."""
        self._connection.transport.write(data)

    def hang_up(self) -> None:
        self._connection.transport.abort()

    async def answer(self, data: bytes) -> None:
        """Headers, these bytes, and a close in good order."""
        self.respond()
        await self.write(data)
        await self.ended()
        self.end()


Script: TypeAlias = Callable[[Exchange], Awaitable[None]]


async def good(exchange: Exchange) -> None:
    """Whatever was recorded before, the result is "good"; what belongs into the journal stays as it is."""
    await exchange.replay()
    await exchange.answer(output(b'"good"') + end())


class FakeEndpoint:
    """Listens from construction to `stop`, on the port given or on one of its own."""

    def __init__(self, services: Sequence[dict[str, Any]], port: int = 0) -> None:
        self.script: Script = good
        self.attempts: Counter[str] = Counter()
        # Mistakes of scripts, which a test must not overlook.
        self.errors: list[BaseException] = []
        self._manifest = json.dumps(
            {
                "protocolMode": "BIDI_STREAM",
                "minProtocolVersion": 5,
                "maxProtocolVersion": 6,
                "services": list(services),
            }
        ).encode()
        self._tasks: dict[asyncio.Task[None], None] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fake endpoint", daemon=True)
        self._thread.start()
        self.port: int = self._call(self._listen(port))
        self.uri = f"http://127.0.0.1:{self.port}"

    def _call(self, work: Awaitable[Any]) -> Any:
        done: Future[Any] = asyncio.run_coroutine_threadsafe(work, self._loop)  # type: ignore[arg-type]
        return done.result(30)

    async def _listen(self, port: int) -> int:
        server = await self._loop.create_server(lambda: _Connection(self), "127.0.0.1", port)
        bound: int = server.sockets[0].getsockname()[1]
        return bound

    def behave(self) -> None:
        """From the next attempt on: answer well."""
        self.script = good

    def stop(self) -> None:
        async def cancel() -> None:
            for task in self._tasks:
                task.cancel()

        self._call(cancel())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    def serve(self, exchange: Exchange) -> None:
        task = self._loop.create_task(self._serve(exchange))
        self._tasks[task] = None
        task.add_done_callback(lambda done: self._tasks.pop(done))

    async def _serve(self, exchange: Exchange) -> None:
        if exchange.path == "/discover":
            exchange.respond(content_type=MANIFEST_TYPE)
            await exchange.write(self._manifest)
            exchange.end()
            return
        exchange.number = self.attempts[exchange.invocation_id]
        self.attempts[exchange.invocation_id] += 1
        try:
            await self.script(exchange)
        except H2Error:
            pass  # the server has reset the stream meanwhile, as it may
        except asyncio.CancelledError:
            raise
        except BaseException as error:
            self.errors.append(error)


class _Connection(asyncio.Protocol):
    def __init__(self, endpoint: FakeEndpoint) -> None:
        self._endpoint = endpoint
        self.h2 = H2Connection(H2Configuration(client_side=False, header_encoding="utf-8"))
        self.transport: asyncio.Transport
        self._exchanges: dict[int, Exchange] = {}
        self._writable = asyncio.Event()
        self._writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        transport.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.h2.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        try:
            events = self.h2.receive_data(data)
        except H2Error:
            self.flush()
            self.transport.close()
            return
        for event in events:
            self._on_event(event)
        self.flush()

    def _on_event(self, event: object) -> None:
        if isinstance(event, RequestReceived):
            exchange = Exchange(self, event.stream_id, dict(event.headers))  # type: ignore[arg-type]
            self._exchanges[event.stream_id] = exchange
            self._endpoint.serve(exchange)
        elif isinstance(event, DataReceived):
            exchange = self._exchanges[event.stream_id]
            exchange.received += exchange.decoder.feed(event.data)
            self.h2.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
            exchange.changed.set()
        elif isinstance(event, StreamEnded):
            self._exchanges[event.stream_id].request_ended = True
            self._exchanges[event.stream_id].changed.set()
        elif isinstance(event, StreamReset):
            self._exchanges[event.stream_id].over = True
            self._exchanges[event.stream_id].changed.set()
        elif isinstance(event, WindowUpdated | RemoteSettingsChanged):
            for exchange in self._exchanges.values():
                exchange.changed.set()
        elif isinstance(event, ConnectionTerminated):
            self._over()

    def flush(self) -> None:
        data = self.h2.data_to_send()
        if data:
            self.transport.write(data)

    async def drained(self) -> None:
        await self._writable.wait()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self._over()
        self._writable.set()

    def _over(self) -> None:
        for exchange in self._exchanges.values():
            exchange.over = True
            exchange.changed.set()


# -- frames ----------------------------------------------------------------------------------------------------


def frame(code: int, payload: bytes = b"", *, ack: bool = False, announced: int | None = None) -> bytes:
    """A frame; `announced` puts a wrong length into its header."""
    whole = encode_frame(code, payload, ack)
    return whole if announced is None else whole[:4] + announced.to_bytes(4, "big") + payload


def of(message: Any, *, ack: bool = False) -> bytes:
    """The frame of a message, whatever is in it."""
    codes = [code for code, cls in messages.MESSAGE_CLASSES.items() if cls is type(message)]
    return frame(codes[0], message.SerializeToString(), ack=ack)


def output(value: bytes) -> bytes:
    return of(pb.OutputCommandMessage(value=pb.Value(content=value)))


def end() -> bytes:
    return frame(MessageType.END)


def error(code: int, text: str, **fields: Any) -> bytes:
    return of(pb.ErrorMessage(code=code, message=text, **fields))


def set_state(key: bytes, value: bytes) -> bytes:
    return of(pb.SetStateCommandMessage(key=key, value=pb.Value(content=value)))


def commands_in(replay: Sequence[tuple[int, bytes]]) -> list[int]:
    return [code for code, _ in replay if is_command(code)]


@contextlib.contextmanager
def serving(services: Sequence[dict[str, Any]]) -> Any:
    endpoint = FakeEndpoint(services)
    try:
        yield endpoint
    finally:
        endpoint.stop()

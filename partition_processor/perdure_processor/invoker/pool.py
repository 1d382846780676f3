"""○ adapter · The Transport to deployments: pools of HTTP/2 connections, HTTP/1.1 where asked for or agreed.

One pool per origin (scheme, host, port), shared by all deployments that live there.  A connection that comes
near the end of its life gets its successor before it is needed, so that no attempt waits for a handshake.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final
from urllib.parse import SplitResult, urlsplit

from perdure_processor.invoker.http1 import Http1Transport
from perdure_processor.invoker.http2 import Http2Connection, Http2Options, request_head, tls_context
from perdure_processor.invoker.http2_stream import Http2Stream
from perdure_processor.invoker.transport import Address, Closed, Stream, StreamEvents, StreamRequest, Transport
from perdure_processor.model.limits import (
    HTTP1_REMEMBERED_S,
    HTTP2_CONNECTIONS_PER_ORIGIN_MAX,
    HTTP2_GOAWAY_HABIT_REQUESTS_MIN,
    HTTP2_PLACEMENTS_MAX,
    HTTP2_REQUESTS_PER_CONNECTION_MAX,
    HTTP2_STREAMS_PER_CONNECTION_MAX,
    HTTP2_SUCCESSOR_AHEAD_REQUESTS,
    HTTP2_SUCCESSOR_AHEAD_STREAMS,
    TARGETS_REMEMBERED,
    UNDECIDED_STREAMS_MAX,
)


class DeploymentTransport:
    """Opens streams to deployments: HTTP/2 with prior knowledge, https by ALPN, HTTP/1.1 if registered so.

    ca_file: the only certificate authorities trusted for https; None means the system's."""

    def __init__(self, *, ca_file: str | None = None, options: Http2Options | None = None) -> None:
        self._options: Final = options or Http2Options()
        self._ca_file = ca_file
        self._http1 = Http1Transport(ca_file=ca_file, connect_timeout_s=self._options.connect_timeout_s)
        self._tls: ssl.SSLContext | None = None
        self._origins: dict[tuple[str, str, int], Origin] = {}
        self._targets: dict[Address, _Target] = {}
        self._sweep: asyncio.TimerHandle | None = None
        self._closed = False

    def open(self, address: Address, request: StreamRequest, events: StreamEvents) -> Stream:
        if address.http1:
            return self._http1.open(address, request, events)
        target = self._targets.get(address)
        if target is None:
            try:
                target = self._target_of(address)
            except (ValueError, OSError, ssl.SSLError) as error:
                return _refused(events, f"cannot use the address {address.uri!r}: {error}")
        if self._closed:
            return _refused(events, "this server is stopping")
        if self._sweep is None:
            self._sweep = asyncio.get_running_loop().call_later(self._options.sweep_interval_s, self._on_sweep)
        origin = target.origin
        if not origin.speaks_http2:
            if origin.speaks_http1:
                return self._http1.open(address, request, events)
            return origin.open_undecided(_UndecidedStream(target, address, request, events, self._http1))
        stream = target.stream(request, events)
        origin.place(stream)
        return stream

    async def close(self) -> None:
        self._closed = True
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for origin in self._origins.values():
            origin.close()
        await self._http1.close()

    def _target_of(self, address: Address) -> _Target:
        parts = urlsplit(address.uri)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise ValueError("it must begin with http:// or https:// and a host")
        port = parts.port or (443 if parts.scheme == "https" else 80)
        key = (parts.scheme, parts.hostname, port)
        origin = self._origins.get(key)
        if origin is None:
            if parts.scheme == "https" and self._tls is None:
                self._tls = tls_context(self._ca_file, ["h2", "http/1.1"])
            tls = self._tls if parts.scheme == "https" else None
            origin = self._origins[key] = Origin(parts.hostname, port, tls, self._options)
        if len(self._targets) >= TARGETS_REMEMBERED:
            self._targets.clear()
        target = self._targets[address] = _Target(origin, parts)
        return target

    def _on_sweep(self) -> None:
        self._sweep = None
        now_s = asyncio.get_running_loop().time()
        alive = False
        for origin in self._origins.values():
            alive |= origin.sweep(now_s)
        if alive and not self._closed:
            self._sweep = asyncio.get_running_loop().call_later(self._options.sweep_interval_s, self._on_sweep)


class Origin:
    """The connections to one scheme, host and port."""

    def __init__(self, host: str, port: int, tls: ssl.SSLContext | None, options: Http2Options) -> None:
        self._host = host
        self._port = port
        self._tls = tls
        self._options = options
        self._label = f"{'https' if tls else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"
        self._usable: list[Http2Connection] = []  # oldest first; the first with room is taken
        self._all: dict[Http2Connection, None] = {}
        self._connecting: dict[Http2Connection, asyncio.Task[None]] = {}
        self._undecided: list[_UndecidedStream] = []
        # What this origin is known to bear.
        self._requests_max = HTTP2_REQUESTS_PER_CONNECTION_MAX
        self._streams_max = HTTP2_STREAMS_PER_CONNECTION_MAX
        self._http1_until_s = 0.0
        self.speaks_http2 = tls is None

    @property
    def speaks_http1(self) -> bool:
        return asyncio.get_running_loop().time() < self._http1_until_s

    def place(self, stream: Http2Stream) -> None:
        """Give the stream to the oldest connection with room, or to a new one."""
        for connection in self._usable:
            room = connection.free
            if room > 0:
                connection.add(stream)
                break
        else:
            if len(self._all) >= HTTP2_CONNECTIONS_PER_ORIGIN_MAX:
                reason = f"{HTTP2_CONNECTIONS_PER_ORIGIN_MAX} connections to {self._label} are full"
                stream.close_soon(Closed(reason, never_sent=True))
                return
            connection = self._connect()
            room = connection.free
            connection.add(stream)
        if room <= HTTP2_SUCCESSOR_AHEAD_STREAMS or connection.requests_left <= HTTP2_SUCCESSOR_AHEAD_REQUESTS:
            self._prepare_successor(connection)

    def _prepare_successor(self, connection: Http2Connection) -> None:
        if connection.requests_left <= 0:
            self._usable.remove(connection)
        last = self._usable[-1] if self._usable else None
        if (last is None or last is connection) and len(self._all) < HTTP2_CONNECTIONS_PER_ORIGIN_MAX:
            self._connect()

    def open_undecided(self, stream: _UndecidedStream) -> Stream:
        """Hold the stream until the first handshake has told whether this origin speaks HTTP/2."""
        if len(self._undecided) >= UNDECIDED_STREAMS_MAX:
            stream.give_up_soon(Closed(f"too many streams wait for {self._label}", never_sent=True))
            return stream
        self._undecided.append(stream)
        if not any(connection.free > 0 for connection in self._usable):
            self._connect()
        return stream

    def sweep(self, now_s: float) -> bool:
        for connection in list(self._all):
            connection.sweep(now_s)
        return bool(self._all)

    def close(self) -> None:
        undecided, self._undecided = self._undecided, []
        for stream in undecided:
            stream.give_up_soon(Closed("this server is stopping", never_sent=True))
        for connection in list(self._all):
            connection.close()
        for task in self._connecting.values():
            task.cancel()

    def _connect(self) -> Http2Connection:
        connection = Http2Connection(
            self._label, self, self._options, streams_max=self._streams_max, requests_max=self._requests_max
        )
        self._usable.append(connection)
        self._all[connection] = None
        task = asyncio.get_running_loop().create_task(self._dial(connection))
        self._connecting[connection] = task
        task.add_done_callback(lambda _: self._connecting.pop(connection, None))
        return connection

    async def _dial(self, connection: Http2Connection) -> None:
        loop = asyncio.get_running_loop()
        try:
            async with asyncio.timeout(self._options.connect_timeout_s):
                await loop.create_connection(lambda: connection, self._host, self._port, ssl=self._tls)
        except TimeoutError:
            reason = f"no connection within {self._options.connect_timeout_s:g} s"
            connection.fail(f"cannot connect to {self._label}: {reason}")
        except OSError as error:  # among them ssl.SSLError and failed look-ups
            connection.fail(f"cannot connect to {self._label}: {str(error) or type(error).__name__}")

    # What connections report.

    def on_ready(self, connection: Http2Connection) -> None:
        self.speaks_http2 = True
        undecided, self._undecided = self._undecided, []
        for stream in undecided:
            inner = stream.decide_http2()
            if inner is not None:
                self.place(inner)
                stream.replay(inner)

    def on_streams_max(self, streams_max: int) -> None:
        self._streams_max = max(1, streams_max)  # 0 is said by a peer that is going away, not by its successor

    def on_http1(self, connection: Http2Connection, streams: list[Http2Stream]) -> None:
        self.speaks_http2 = False
        self._http1_until_s = asyncio.get_running_loop().time() + HTTP1_REMEMBERED_S
        undecided, self._undecided = self._undecided, []
        for held in undecided:
            held.decide_http1()
        for stream in streams:  # were placed when this origin still spoke HTTP/2
            stream.close(Closed(f"{self._label} has turned to HTTP/1.1", never_sent=True))

    def on_turned_away(self, streams: list[Http2Stream]) -> None:
        for stream in streams:
            if stream.closed:
                continue
            if stream.placements >= HTTP2_PLACEMENTS_MAX:
                reason = f"{self._label} closed {HTTP2_PLACEMENTS_MAX} connections before the request was sent"
                stream.close_soon(Closed(reason, never_sent=True))
            else:
                self.place(stream)

    def on_retired(self, connection: Http2Connection, requests_taken: int | None) -> None:
        if connection in self._usable:
            self._usable.remove(connection)
        if requests_taken is not None and HTTP2_GOAWAY_HABIT_REQUESTS_MIN <= requests_taken <= self._requests_max:
            self._requests_max = requests_taken - 1

    def on_gone(self, connection: Http2Connection, reason: str) -> None:
        self._all.pop(connection, None)
        undecided, self._undecided = self._undecided, []
        for stream in undecided:
            stream.give_up(Closed(reason, never_sent=True))


class _Target:
    """An address, taken apart once."""

    __slots__ = ("_authority", "_base_path", "_scheme", "origin")

    def __init__(self, origin: Origin, parts: SplitResult) -> None:
        self.origin = origin
        self._scheme = parts.scheme.encode()
        self._authority = parts.netloc.rpartition("@")[2].encode()
        self._base_path = parts.path.rstrip("/").encode()

    def stream(self, request: StreamRequest, events: StreamEvents) -> Http2Stream:
        return Http2Stream(request_head(self._scheme, self._authority, self._base_path, request), events)


class _UndecidedStream:
    """A stream to an https origin of which we do not know yet whether it speaks HTTP/2."""

    def __init__(
        self,
        target: _Target,
        address: Address,
        request: StreamRequest,
        events: StreamEvents,
        http1: Transport,
    ) -> None:
        self._target = target
        self._address = address
        self._request = request
        self._events = events
        self._http1 = http1
        self._held: list[bytes] = []
        self._finished = False
        self._closed = False
        self._inner: Stream | None = None

    def send(self, data: bytes) -> None:
        if self._inner is not None:
            self._inner.send(data)
        elif not self._closed:
            self._held.append(data)

    def finish(self) -> None:
        if self._inner is not None:
            self._inner.finish()
        self._finished = True

    def reset(self) -> None:
        if self._inner is not None:
            self._inner.reset()
        else:
            self.give_up_soon(Closed("the stream was reset by this server", never_sent=True))

    def consumed(self, size: int) -> None:
        if self._inner is not None:
            self._inner.consumed(size)

    @property
    def unsent(self) -> int:
        return self._inner.unsent if self._inner is not None else sum(map(len, self._held))

    def give_up(self, closed: Closed) -> None:
        if not self._closed:
            self._closed = True
            self._events.on_closed(closed)

    def give_up_soon(self, closed: Closed) -> None:
        if not self._closed:
            self._closed = True
            asyncio.get_running_loop().call_soon(self._events.on_closed, closed)

    def decide_http2(self) -> Http2Stream | None:
        return None if self._closed else self._target.stream(self._request, self._events)

    def decide_http1(self) -> None:
        if not self._closed:
            self.replay(self._http1.open(self._address, self._request, self._events))

    def replay(self, inner: Stream) -> None:
        for data in self._held:
            inner.send(data)
        if self._finished:
            inner.finish()
        self._held.clear()
        self._inner = inner


def _refused(events: StreamEvents, reason: str) -> Stream:
    stream = Http2Stream([], events)
    stream.close_soon(Closed(reason, never_sent=True))
    return stream

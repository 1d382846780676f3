"""○ adapter · One HTTP/2 connection to a deployment and the streams on it.

No task, queue or timer belongs to a stream.  Stream methods only note what is to be sent; a flush turns the
notes of all streams into frames and writes them with one call: after every few streams or kilobytes, so that
the deployment starts to work while we still do, and at the latest at the end of the loop's turn.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Sequence
from typing import Protocol, cast

from perdure_processor.invoker.http2_stream import Http2Stream
from perdure_processor.invoker.http2_wire import (
    CANCEL,
    NO_ERROR,
    REFUSED_STREAM,
    Head,
    Http2Wire,
    WireError,
    WireStream,
    error_name,
)
from perdure_processor.invoker.transport import Closed, StreamRequest
from perdure_processor.model.limits import (
    CONNECT_TIMEOUT_S,
    HTTP2_IDLE_TIMEOUT_S,
    HTTP2_PING_INTERVAL_S,
    HTTP2_PING_TIMEOUT_S,
    HTTP2_REQUESTS_PER_CONNECTION_MAX,
    HTTP2_STREAM_QUANTUM_BYTES,
    HTTP2_STREAMS_PER_CONNECTION_MAX,
    HTTP2_SWEEP_S,
    HTTP2_WRITE_AFTER_BYTES,
    HTTP2_WRITE_AFTER_STREAMS,
    HTTP2_WRITE_BUFFER_BYTES,
    HTTP2_WRITE_BUFFER_BYTES_MAX,
    STREAM_WINDOW_BYTES,
)
from perdure_processor.model.value import value

_FIRST_BYTE_OF_HTTP1 = ord("H")  # as the high byte of a frame's length it would exceed every limit

# Values that differ from request to request: kept out of the compression table, whose space they would waste.
_UNREPEATED_HEADERS = frozenset(
    {"x-restate-invocation-id", "x-restate-service-key", "x-restate-jwt-v1", "traceparent", "x-perdure-attempt"}
)


@value
class Http2Options:
    """The times that govern a connection; tests shorten them.

    connect_timeout_s is once for TCP and TLS, and once more for the peer's SETTINGS."""

    connect_timeout_s: float = CONNECT_TIMEOUT_S
    ping_interval_s: float = HTTP2_PING_INTERVAL_S
    ping_timeout_s: float = HTTP2_PING_TIMEOUT_S
    idle_timeout_s: float = HTTP2_IDLE_TIMEOUT_S
    sweep_interval_s: float = HTTP2_SWEEP_S  # how exact the three above are


class ConnectionOwner(Protocol):
    """What a connection needs from its pool; called from loop callbacks, never from a stream's methods."""

    def on_ready(self, connection: Http2Connection) -> None:
        """The connection is up and speaks HTTP/2."""

    def on_streams_max(self, streams_max: int) -> None:
        """The peer says how many streams it takes on a connection."""

    def on_http1(self, connection: Http2Connection, streams: list[Http2Stream]) -> None:
        """ALPN agreed on HTTP/1.1: the connection is closed; `streams` have sent nothing."""

    def on_turned_away(self, streams: list[Http2Stream]) -> None:
        """The connection takes no more streams; these have sent nothing and may go elsewhere."""

    def on_retired(self, connection: Http2Connection, requests_taken: int | None) -> None:
        """No new streams here: the peer said GOAWAY (after taking that many), or the connection is gone."""

    def on_gone(self, connection: Http2Connection, reason: str) -> None:
        """The connection is closed, its streams have been told why."""


class Http2Connection(asyncio.Protocol):
    """One TCP or TLS connection: frames in, events out; what streams note, in frames.

    Streams may be added from the start; they are opened on the wire once the peer's SETTINGS have come, since
    peers built on h2 drop the whole connection for one stream more than they allow.
    `streams_max`: what is assumed until then. `requests_max`: how many streams it may carry in its life."""

    def __init__(
        self,
        label: str,
        owner: ConnectionOwner,
        options: Http2Options,
        *,
        streams_max: int = HTTP2_STREAMS_PER_CONNECTION_MAX,
        requests_max: int = HTTP2_REQUESTS_PER_CONNECTION_MAX,
    ) -> None:
        self._label = label
        self._owner = owner
        self._options = options
        self._requests_max = requests_max
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._wire = Http2Wire(self)
        self._streams: dict[int, Http2Stream] = {}
        self._noted: list[Http2Stream] = []  # to be looked at by the next flush
        self._blocked: dict[Http2Stream, None] = {}  # the peer or the kernel does not take their bytes now
        self._noted_bytes = 0
        self._unwritten_bytes = 0
        self._flushes = 0
        self._open = 0  # streams that count against the limit: on the wire or noted to be
        self._started = 0
        self._streams_max = streams_max
        self._flush_scheduled = False
        self._writable = True
        self._up = False
        self._retired = False
        self._gone = False
        self._received = False
        self._last_received_s = self._idle_since_s = self._loop.time()
        self._ping_sent_s: float | None = None

    # What the pool asks.

    @property
    def free(self) -> int:
        """How many more streams this connection takes now."""
        if self._retired:
            return 0
        return min(self._streams_max - self._open, self._requests_max - self._started)

    @property
    def requests_left(self) -> int:
        return self._requests_max - self._started

    def add(self, stream: Http2Stream) -> None:
        """Carry a stream; it is opened on the wire by the next flush after the connection is up."""
        self._open += 1
        self._started += 1
        stream.connection = self
        stream.noted = False  # it may still be marked from a connection that turned it away
        stream.placements += 1
        self.note(stream, stream.unsent)
        if self._started >= self._requests_max:
            self.retire()

    def retire(self) -> None:
        """Take no new streams; close when the last one is over."""
        self._retired = True
        self._close_if_done()

    def sweep(self, now_s: float) -> None:
        """Once in a while: close when idle for long, see whether a silent peer is still there."""
        if not self._up:
            if self._transport is not None and now_s - self._last_received_s >= self._options.connect_timeout_s:
                self.fail(f"{self._label} did not speak HTTP/2 within {self._options.connect_timeout_s:g} s")
        elif self._open == 0 and now_s - self._idle_since_s >= self._options.idle_timeout_s:
            self._shut()
        elif self._ping_sent_s is not None:
            if now_s - self._ping_sent_s >= self._options.ping_timeout_s:
                self.fail(f"{self._label} does not answer: no byte after a keep-alive ping")
        elif now_s - self._last_received_s >= self._options.ping_interval_s:
            self._ping_sent_s = now_s
            self._wire.ping()
            self._write()

    def close(self) -> None:
        """Reset what is open, say goodbye, close."""
        for stream in [*self._streams.values(), *self._noted]:
            stream.reset()
        self._shut()

    def fail(self, reason: str, *, spoke_http1: bool = False) -> None:
        """The connection is of no more use, or never came about: end all streams with the reason."""
        if self._gone:
            return
        was_up = self._up
        self._gone = self._retired = True
        self._up = False
        self._wire.stop()
        if self._transport is not None:
            self._transport.abort()
        self._owner.on_retired(self, None)
        streams = list(self._streams.values())
        waiting = [stream for stream in self._noted if stream.wire is None and not stream.closed]
        self._streams.clear()
        self._noted.clear()
        self._blocked.clear()
        for stream in streams:
            if not stream.closed:  # an earlier one's on_closed may have reset it
                stream.close(Closed(reason, spoke_http1=spoke_http1))
        if was_up:
            self._owner.on_turned_away(waiting)  # it worked once: what has sent nothing may try another one
        else:
            for stream in waiting:
                if not stream.closed:
                    stream.close(Closed(reason, never_sent=True, spoke_http1=spoke_http1))
        self._owner.on_gone(self, reason)

    # What streams ask.

    def note(self, stream: Http2Stream, size: int) -> None:
        """The stream has something for the next flush."""
        self._noted_bytes += size
        if not stream.noted:
            stream.noted = True
            self._noted.append(stream)
        if self._up:
            if len(self._noted) >= HTTP2_WRITE_AFTER_STREAMS or self._noted_bytes >= HTTP2_WRITE_AFTER_BYTES:
                self._flush()
            elif not self._flush_scheduled:
                self._schedule_flush()

    def abandon(self, stream: Http2Stream) -> None:
        """The stream is reset by us, if the peer has heard of it at all."""
        if self._gone:
            return
        if stream.wire is not None:
            self._wire.reset(stream.wire, CANCEL)
            self._forget(stream, stream.wire)
            self._schedule_flush()
        else:
            self._noted.remove(stream)
            self._count_down()

    def credit(self, stream: Http2Stream, size: int) -> None:
        """Give consumed bytes back to the peer, half a window at a time."""
        wire = stream.wire
        assert wire is not None
        if self._wire.credit_connection(size):
            self._schedule_flush()
        if stream.to_credit * 2 >= STREAM_WINDOW_BYTES:
            self._wire.credit(wire, stream.to_credit)
            stream.to_credit = 0
            self._schedule_flush()

    # Frames out.

    def _schedule_flush(self) -> None:
        if not self._flush_scheduled:
            self._flush_scheduled = True
            self._loop.call_soon(self._flush_at_end_of_turn)

    def _flush_at_end_of_turn(self) -> None:
        self._flush_scheduled = False
        if self._up:
            self._flush()

    def _flush(self) -> None:
        noted, self._noted = self._noted, []
        self._noted_bytes = 0
        self._flushes += 1
        for stream in noted:
            stream.noted = False
            if not stream.closed:
                self._emit(stream)
        self._write()

    def _emit(self, stream: Http2Stream) -> None:
        """Frames for what the stream has to send, as far as peer and kernel take them."""
        wire = stream.wire
        if wire is None:
            only_headers = stream.finished and not stream.unsent
            wire = stream.wire = self._wire.open(stream.head, end=only_headers)
            self._streams[wire.stream_id] = stream
        quantum = HTTP2_STREAM_QUANTUM_BYTES
        while stream.unsent:
            room = self._wire.room(wire)
            if room <= 0 or not self._writable:
                self._blocked[stream] = None
                return
            if quantum <= 0:
                stream.noted = True
                self._noted.append(stream)
                self._schedule_flush()
                return
            data = stream.take(room)
            stream.served = self._flushes
            quantum -= len(data)
            self._wire.send(wire, data, end=stream.finished and not stream.unsent)
            self._unwritten_bytes += len(data)
            if self._unwritten_bytes >= HTTP2_WRITE_AFTER_BYTES:
                self._write()
        if stream.finished and not wire.local_ended:
            self._wire.send(wire, b"", end=True)

    def _write(self) -> None:
        self._unwritten_bytes = 0
        data = self._wire.take()
        if data and self._transport is not None:
            self._transport.write(data)
            if not self._writable and self._transport.get_write_buffer_size() > HTTP2_WRITE_BUFFER_BYTES_MAX:
                # Not from here: a stream's method may be our caller.
                self._loop.call_soon(self.fail, f"{self._label} does not read what it is sent")

    def _unblock(self) -> None:
        # Who waited longest comes first: a small window would else always be the same stream's.
        for stream in sorted(self._blocked, key=lambda stream: stream.served):
            if not stream.noted:
                stream.noted = True
                self._noted.append(stream)
        self._blocked.clear()
        if self._noted:
            self._schedule_flush()

    # The loop's callbacks.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        if self._gone:  # failed or closed while connecting
            cast(asyncio.Transport, transport).abort()
            return
        self._transport = cast(asyncio.Transport, transport)  # uvloop's are not subclasses of it
        tls = self._transport.get_extra_info("ssl_object")
        if tls is not None and tls.selected_alpn_protocol() != "h2":
            self._gone = self._retired = True
            self._transport.close()
            streams, self._noted = self._noted, []
            self._owner.on_http1(self, streams)
            self._owner.on_gone(self, "the deployment chose HTTP/1.1")
            return
        self._transport.set_write_buffer_limits(high=HTTP2_WRITE_BUFFER_BYTES)
        self._last_received_s = self._loop.time()
        self._wire.start()
        self._write()

    def data_received(self, data: bytes) -> None:
        if self._gone:
            return
        self._last_received_s = self._loop.time()
        self._ping_sent_s = None
        if not self._received:
            if data[0] == _FIRST_BYTE_OF_HTTP1:
                self.fail(
                    f"{self._label} answered in HTTP/1.1 where HTTP/2 was expected; "
                    "if it cannot speak HTTP/2, register it with use_http_11",
                    spoke_http1=True,
                )
                return
            if data[0] != 0:  # the first frame is SETTINGS, whose length has no high byte
                self.fail(f"{self._label} does not speak HTTP/2: its first bytes are {data[:16]!r}")
                return
            self._received = True
        try:
            self._wire.receive(data)
        except WireError as error:
            self._write()  # a GOAWAY that says why
            self.fail(f"{self._label} broke the HTTP/2 protocol: {error}")
            return
        # Answers of the wire itself, such as acknowledgements of pings and settings.
        if self._up and not self._flush_scheduled:
            self._schedule_flush()

    def eof_received(self) -> bool:
        return False  # close: a peer that sends no more cannot end its streams

    def connection_lost(self, exc: Exception | None) -> None:
        if self._transport is None or self._gone:
            return
        reason = f"the connection to {self._label} was lost: {exc or 'closed by the deployment'}"
        if not self._received:
            reason += "; it has not said a word of HTTP/2: if it speaks HTTP/1.1, register it with use_http_11"
        self.fail(reason)

    def pause_writing(self) -> None:
        self._writable = False

    def resume_writing(self) -> None:
        self._writable = True
        self._unblock()

    # Frames in.

    def on_response(self, stream_id: int, status: int, headers: list[tuple[bytes, bytes, bool]]) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None:
            pairs = [
                (name.decode("latin-1"), content.decode("latin-1"))
                for name, content, _ in headers
                if name != b":status"
            ]
            stream.events.on_response(status, pairs)

    def on_data(self, stream_id: int, data: bytes) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            self._wire.credit_connection(len(data))
        else:
            stream.unconsumed += len(data)
            stream.events.on_data(data)

    def on_end(self, stream_id: int) -> None:
        stream = self._streams.get(stream_id)
        if stream is None:
            return
        wire = stream.wire
        assert wire is not None
        if not wire.local_ended:
            if stream.finished and not stream.unsent:
                self._wire.send(wire, b"", end=True)  # the next flush would come too late
            else:
                # The response is complete, the rest of the request is of no use to anybody.
                self._wire.reset(wire, CANCEL)
        self._forget(stream, wire)
        stream.close(Closed(None))

    def on_reset(self, stream_id: int, code: int, reason: str | None) -> None:
        stream = self._streams.get(stream_id)
        if stream is not None and stream.wire is not None:
            self._forget(stream, stream.wire)
            if reason is not None:
                closed = Closed(f"{self._label} broke the HTTP/2 protocol: {reason}")
            else:
                # REFUSED_STREAM is the peer's word that nothing of the request was processed (RFC 9113, 8.7).
                closed = Closed(f"{self._label} reset the stream: {error_name(code)}", code == REFUSED_STREAM)
            stream.close(closed)

    def on_window(self, stream_id: int) -> None:
        if not self._blocked:
            return
        if stream_id == 0:
            self._unblock()
        else:
            stream = self._streams.get(stream_id)
            if stream is not None and stream in self._blocked:
                del self._blocked[stream]
                self.note(stream, 0)

    def on_settings(self) -> None:
        self._streams_max = min(HTTP2_STREAMS_PER_CONNECTION_MAX, self._wire.streams_max)
        self._owner.on_streams_max(self._streams_max)
        if self._open > self._streams_max:  # before anything can flush
            self._turn_away_waiting(self._open - self._streams_max)
        if not self._up:
            self._up = True
            self._idle_since_s = self._last_received_s
            self._owner.on_ready(self)
        self._unblock()

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None:
        self._retired = True
        self._owner.on_retired(self, (last_stream_id + 1) // 2 if code == NO_ERROR else None)
        reason = f"{self._label} is closing the connection: GOAWAY {error_name(code)}"
        if debug:
            reason += f" {debug[:200]!r}"
        self._turn_away_waiting(self._open)
        for stream in [stream for stream_id, stream in self._streams.items() if stream_id > last_stream_id]:
            if not stream.closed and stream.wire is not None:
                self._wire.forget(stream.wire)
                self._forget(stream, stream.wire)
                stream.close(Closed(reason, never_sent=True))
        self._close_if_done()

    def _turn_away_waiting(self, count: int) -> None:
        """The last `count` streams, of those that the peer has not heard of yet, go to another connection."""
        waiting = [stream for stream in self._noted if stream.wire is None][-count:]
        for stream in waiting:
            self._noted.remove(stream)
        self._open -= len(waiting)
        self._owner.on_turned_away(waiting)

    # Books.

    def _forget(self, stream: Http2Stream, wire: WireStream) -> None:
        """The stream is over on the wire."""
        del self._streams[wire.stream_id]
        if self._blocked:
            self._blocked.pop(stream, None)
        if stream.unconsumed:
            self._wire.credit_connection(stream.unconsumed)  # nobody will consume what is left
        self._count_down()

    def _count_down(self) -> None:
        self._open -= 1
        if self._open == 0:
            self._idle_since_s = self._last_received_s
            if self._retired:
                # Not now: the caller is in the middle of something.
                self._loop.call_soon(self._close_if_done)

    def _close_if_done(self) -> None:
        if self._retired and self._open == 0 and self._up:
            self._shut()

    def _shut(self) -> None:
        """Close an idle connection in good order."""
        if self._gone:
            return
        self._gone = self._retired = True
        if self._transport is not None:
            self._wire.goaway()
            self._write()
            self._transport.close()
        self._up = False
        self._owner.on_retired(self, None)
        self._owner.on_gone(self, "the connection was closed by this server")


def request_head(scheme: bytes, authority: bytes, base_path: bytes, request: StreamRequest) -> Head:
    """The headers of a request, in the form that the wire encodes without looking at them again."""
    head = [
        (b":method", request.method.encode(), False),
        (b":scheme", scheme, False),
        (b":authority", authority, False),
        (b":path", base_path + request.path.encode(), False),
    ]
    for name, content in request.headers:
        head.append((name.encode(), content.encode(), name in _UNREPEATED_HEADERS))
    return head


def tls_context(ca_file: str | None, protocols: Sequence[str]) -> ssl.SSLContext:
    """Verify deployments against the system's trust store, or against `ca_file` alone."""
    context = ssl.create_default_context(cafile=ca_file)
    context.set_alpn_protocols(list(protocols))
    return context

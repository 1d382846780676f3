"""○ adapter · One HTTP/1.1 connection of the ingress, around the C parser of aiohttp.

One request at a time, one task per request that must wait for the node.  aiohttp's own web server costs
twice as much per request (a second task, a request object, a response writer); its parser gives all that
is needed: llhttp's strictness, and a pause after each pipelined message.

What a client can make us keep in memory is bounded at every step: a request is parsed in slices, a head and
a body have limits, all unfinished requests together have one, and what comes too slowly is cut off by a sweep.
"""

from __future__ import annotations

import asyncio
import enum
from typing import cast

from aiohttp.base_protocol import BaseProtocol
from aiohttp.http import HttpProcessingError, HttpRequestParser, HttpVersion10, HttpVersion11, RawRequestMessage
from aiohttp.http_exceptions import LineTooLong
from aiohttp.streams import StreamReader

from perdure_server.ingress import errors, responses
from perdure_server.ingress.answering import Waiting, respond, stopping_response
from perdure_server.ingress.paths import Health, Lookup, read_request
from perdure_server.ingress.responses import Response
from perdure_server.ingress.shared import Shared
from perdure_server.limits import (
    INGRESS_BODY_BYTES_DISCARDED_MAX,
    INGRESS_HEAD_BYTES_DISCARDED_MAX,
    INGRESS_HEAD_BYTES_MAX,
    INGRESS_HEADERS_DISCARDED_MAX,
    INGRESS_HEADERS_MAX,
    INGRESS_KEEP_ALIVE_S,
    INGRESS_LINGER_S,
    INGRESS_PARSE_SLICE_BYTES,
    INGRESS_PIPELINED_BYTES_MAX,
    INGRESS_READ_BYTES_PER_S_MIN,
    INGRESS_READ_GRACE_S,
    INGRESS_TARGET_BYTES_MAX,
    INGRESS_WRITE_STALL_S,
)


class _State(enum.Enum):
    IDLE = enum.auto()  # between requests
    READING = enum.auto()  # part of a request is here
    ANSWERING = enum.auto()  # a whole request is here, or its answer is not written out
    LINGERING = enum.auto()  # the last answer is written; what comes is dropped


# As module names: a lookup on the enum class costs more than the comparison.
_IDLE, _READING, _ANSWERING, _LINGERING = _State


class Connection(BaseProtocol):
    """One client connection: bytes → requests, one at a time and in order → answers."""

    __slots__ = (
        "_backlog",
        "_body",
        "_discarding",
        "_held",
        "_http",
        "_keep_alive",
        "_message",
        "_origin",
        "_payload",
        "_received",
        "_shared",
        "_since_s",
        "_socket_unread",
        "_state",
        "_task",
        "_unsent",
        "_write_full",
    )

    def __init__(self, shared: Shared, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(loop)
        self._shared = shared
        self._http: HttpRequestParser | None = HttpRequestParser(
            self,
            loop,
            INGRESS_PARSE_SLICE_BYTES,
            max_line_size=INGRESS_HEAD_BYTES_DISCARDED_MAX,
            max_field_size=INGRESS_HEAD_BYTES_DISCARDED_MAX,
            max_headers=INGRESS_HEADERS_DISCARDED_MAX,
            auto_decompress=False,
            max_msg_queue_size=1,
        )
        self._state = _IDLE
        self._since_s = shared.now_s  # when the state began, or the last progress was seen
        self._received = 0  # bytes of the current request, once it is known to come in parts
        self._message: RawRequestMessage | None = None  # the request whose body is being read or answered
        self._payload: StreamReader | None = None  # set while the body is not complete
        self._body = bytearray()  # what of a body in parts has come
        self._discarding = False  # the answer is written already, the body is only read away
        self._keep_alive = True
        self._origin: str | None = None
        self._backlog = bytearray()  # received and not yet shown to the parser
        self._held = 0  # what of all this the server has accounted for
        self._socket_unread = False
        self._write_full = False
        self._unsent = 0
        self._task: asyncio.Task[None] | None = None

    # -- the transport's calls --------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        super().connection_made(transport)
        if not self._shared.admit(self):
            self._keep_alive = False
            self._write(responses.refusal(errors.too_many_connections()))
            cast(asyncio.Transport, transport).close()
            self._state = _LINGERING

    def connection_lost(self, exc: BaseException | None) -> None:
        super().connection_lost(exc)
        self._shared.gone(self)
        self._release()
        if self._task is not None:
            self._shared.counters.disconnects_while_waiting += 1
            self._task.cancel()
        # The parser holds this protocol: without this the pair would wait for the cycle collector.
        self._http = self._message = self._payload = None
        self._backlog.clear()
        self._body.clear()
        self._state = _LINGERING

    def data_received(self, data: bytes) -> None:
        if self._state is _LINGERING:
            return
        if self._state is not _ANSWERING and not self._backlog and len(data) <= INGRESS_PARSE_SLICE_BYTES:
            self._feed(data)
            return
        if not self._hold(len(data)):
            return
        self._backlog += data
        if self._state is not _ANSWERING:
            self._feed_backlog()
        elif len(self._backlog) > INGRESS_PIPELINED_BYTES_MAX and not self._socket_unread:
            assert self.transport is not None
            self._socket_unread = True
            self.transport.pause_reading()

    def pause_writing(self) -> None:
        self._write_full = True

    def resume_writing(self) -> None:
        self._write_full = False
        self._next_request()

    # The parser's stream calls these when it is full or read: it is emptied after every slice instead.

    def pause_reading(self) -> None:
        pass

    def resume_reading(self, resume_parser: bool = True) -> None:
        pass

    # -- reading ----------------------------------------------------------------------------------------

    def _feed_backlog(self) -> None:
        backlog = self._backlog
        while backlog and self._state in (_IDLE, _READING):
            data = bytes(backlog[:INGRESS_PARSE_SLICE_BYTES])
            del backlog[:INGRESS_PARSE_SLICE_BYTES]
            self._held -= len(data)
            self._shared.buffered_bytes -= len(data)
            self._feed(data)
        if self._socket_unread and not backlog and self.transport is not None:
            self._socket_unread = False
            self.transport.resume_reading()

    def _feed(self, data: bytes) -> None:
        assert self._http is not None
        try:
            messages, _, _ = self._http.feed_data(data)
        except HttpProcessingError as error:
            self._refuse_http(error)
            return
        if messages:
            message, payload = messages[0]
            body = payload.read_nowait()
            if (
                self._received == 0
                and message.version is HttpVersion11
                and payload.is_eof()
                and len(body) <= self._shared.request_size_limit
                and len(message.raw_headers) <= INGRESS_HEADERS_MAX
                and len(message.path) <= INGRESS_TARGET_BYTES_MAX
            ):
                self._dispatch(message, body)
                return
            self._begin_parts(message, payload, body, len(data))
        elif self._payload is not None:
            self._note_part(len(data))
            self._take_body(self._payload.read_nowait())
        elif data:
            self._note_part(len(data))
            # Until the head is complete the parser holds it.
            if self._hold(len(data)) and self._received > INGRESS_HEAD_BYTES_DISCARDED_MAX:
                self._refuse(errors.headers_too_large(f"at most {INGRESS_HEAD_BYTES_MAX} bytes"))

    def _note_part(self, size: int) -> None:
        if self._state is not _READING:
            self._state = _READING
            self._since_s = self._shared.now_s
        self._received += size

    def _begin_parts(self, message: RawRequestMessage, payload: StreamReader, body: bytes, fed: int) -> None:
        """A head is complete whose body is not, or that came in parts, or that is over a limit."""
        self._note_part(fed)
        if message.version not in (HttpVersion10, HttpVersion11):
            # A request line without a version is HTTP/0.9 to the parser, which may then find no path either.
            self._shared.counters.bad_http += 1
            self._refuse(errors.bad_http("only HTTP/1.1 and HTTP/1.0 are spoken here"))
            return
        self._message, self._payload = message, payload
        self._keep_alive = not (message.should_close or message.upgrade)
        self._origin = message.headers.get("origin")
        declared = int(message.headers.get("content-length", 0))
        if len(message.raw_headers) > INGRESS_HEADERS_MAX:
            refusal = responses.refusal(errors.headers_too_large(f"at most {INGRESS_HEADERS_MAX} headers"))
        elif self._received > INGRESS_HEAD_BYTES_MAX and _head_size(message) > INGRESS_HEAD_BYTES_MAX:
            refusal = responses.refusal(errors.headers_too_large(f"at most {INGRESS_HEAD_BYTES_MAX} bytes"))
        elif len(message.path) > INGRESS_TARGET_BYTES_MAX:
            refusal = responses.refusal(errors.uri_too_long(INGRESS_TARGET_BYTES_MAX))
        elif declared > self._shared.request_size_limit:
            refusal = responses.declared_too_long()
        else:
            if not payload.is_eof() and message.headers.get("expect", "").lower() == "100-continue":
                assert self.transport is not None
                self.transport.write(responses.CONTINUE)
            self._take_body(body)
            return
        self._refuse_body(refusal)

    def _take_body(self, part: bytes) -> None:
        payload = self._payload
        assert payload is not None
        complete = payload.is_eof()
        if self._discarding:
            if complete:
                self._discarding = False
                self._state = _ANSWERING
                self._loop.call_soon(self._next_request)
            elif self._received > INGRESS_BODY_BYTES_DISCARDED_MAX:
                self._hang_up()
            return
        if len(self._body) + len(part) > self._shared.request_size_limit:
            self._refuse_body(responses.refusal(errors.body_too_long()))
            return
        if part and not self._hold(len(part)):
            return
        self._body += part
        if complete:
            assert self._message is not None
            body = bytes(self._body)
            self._body = bytearray()
            self._dispatch(self._message, body)

    def _refuse_body(self, response: Response) -> None:
        """Answer before the body is read, and read it away: its sender need not be cut off."""
        assert self._payload is not None and self._message is not None
        expecting = self._message.headers.get("expect", "").lower() == "100-continue"
        if expecting and not self._payload.is_eof():
            # Whether the body still comes is now the client's choice, which we cannot tell from the bytes.
            self._keep_alive = False
        self._body = bytearray()
        self._release_request()
        self._write(response)
        if not self._keep_alive:
            self._hang_up()
            return
        self._discarding = True
        self._take_body(b"")

    # -- answering --------------------------------------------------------------------------------------

    def _dispatch(self, message: RawRequestMessage, body: bytes) -> None:
        self._state = _ANSWERING
        self._payload = None
        self._message = message
        self._keep_alive = not (message.should_close or message.upgrade)
        self._origin = message.headers.get("origin")
        if message.method == "OPTIONS":
            self._answer(_preflight(message))
            return
        try:
            request = read_request(
                self._shared.current_schema(), message.method, message.path, message.raw_headers, body
            )
        except errors.RequestError as error:
            self._answer(responses.refusal(error))
            return
        match request:
            case Health():
                self._answer(responses.health(self._shared.current_schema().services))
            case Lookup():
                self._answer(responses.lookup(request.invocation_id))
            case _:
                self._task = self._loop.create_task(self._answer_later(request))

    def _answer(self, response: Response) -> None:
        """Answer at once; the next request has its turn after everyone else's."""
        self._write(response)
        self._loop.call_soon(self._next_request)

    async def _answer_later(self, request: Waiting) -> None:
        try:
            response = await respond(self._shared.dispatcher, self._shared.current_schema(), request)
        except asyncio.CancelledError:
            if self.transport is None:
                raise  # The client went away; the invocation goes on.
            response = stopping_response(request)
        if self.transport is None:
            return
        self._task = None
        self._write(response)
        self._next_request()

    def _write(self, response: Response) -> None:
        transport = self.transport
        assert transport is not None
        message = self._message
        shared = self._shared.head
        if self._origin is not None:
            shared += b"access-control-allow-origin: %b\r\n" % _raw(self._origin)
        if not self._keep_alive or self._shared.stopping:
            self._keep_alive = False
            shared += b"connection: close\r\n"
        elif message is not None and message.version == HttpVersion10:
            shared += b"connection: keep-alive\r\n"
        self._since_s, self._unsent = self._shared.now_s, 0
        self._shared.counters.answers_by_class[response.status // 100] += 1
        body_allowed = message is None or message.method != "HEAD"
        transport.write(responses.render(response, shared, body_allowed=body_allowed))

    def _next_request(self) -> None:
        """The answer is written: go on with what the client has sent meanwhile, or wait."""
        if self._state is not _ANSWERING or self._task is not None or self._write_full:
            return  # When the buffer is full, resume_writing comes back: who reads nothing gets no more answers.
        if not self._keep_alive:
            self._hang_up()
            return
        assert self._http is not None
        self._http.message_consumed()
        self._release_request()
        self._message = self._payload = self._origin = None
        self._state = _IDLE
        self._since_s = self._shared.now_s
        self._received = 0
        self._feed(b"")
        if self._backlog or self._socket_unread:
            self._feed_backlog()

    # -- refusing and closing ---------------------------------------------------------------------------

    def _refuse_http(self, error: HttpProcessingError) -> None:
        self._shared.counters.bad_http += 1
        if isinstance(error, LineTooLong):
            self._refuse(errors.headers_too_large(f"at most {INGRESS_HEAD_BYTES_MAX} bytes"))
        elif error.message == "Too many headers received":
            self._refuse(errors.headers_too_large(f"at most {INGRESS_HEADERS_MAX} headers"))
        else:
            # The first line says what; the parser's others quote the client's bytes.
            self._refuse(errors.bad_http(error.message.split("\n", 1)[0].rstrip(":")))

    def _refuse(self, error: errors.RequestError) -> None:
        """Answer, unless an answer to this request is out already, and close: the bytes cannot be trusted."""
        self._keep_alive = False
        if not self._discarding:
            self._write(responses.refusal(error))
        self._hang_up()

    def _hang_up(self) -> None:
        """Close for writing and go on reading for a moment: closing at once would reset the connection and
        could take the answer from the client's hands."""
        self._state = _LINGERING
        self._since_s = self._shared.now_s
        self._release()
        self._backlog.clear()
        self._body.clear()
        assert self.transport is not None
        if self._socket_unread:
            self._socket_unread = False
            self.transport.resume_reading()
        if not self.transport.is_closing():
            self.transport.write_eof()

    def check_time(self, now_s: int) -> None:
        """Called by the sweep: close what has waited too long."""
        transport = self.transport
        assert transport is not None
        waited_s = now_s - self._since_s
        unsent = transport.get_write_buffer_size()
        if unsent:
            if unsent < self._unsent or self._unsent == 0:
                self._since_s = now_s
            elif waited_s > INGRESS_WRITE_STALL_S:
                self._shared.counters.timeouts += 1
                transport.abort()
            self._unsent = unsent
        elif self._state is _IDLE and waited_s > INGRESS_KEEP_ALIVE_S:
            transport.close()
        elif (
            self._state is _READING and waited_s > INGRESS_READ_GRACE_S + self._received // INGRESS_READ_BYTES_PER_S_MIN
        ):
            self._shared.counters.timeouts += 1
            self._refuse(errors.read_timeout())
        elif self._state is _LINGERING and waited_s > INGRESS_LINGER_S:
            transport.abort()

    def unsent_bytes(self) -> int:
        return 0 if self.transport is None else self.transport.get_write_buffer_size()

    def drain(self) -> None:
        """The server stops: end after the answer that is due, or now if none is."""
        if self._state is _ANSWERING:
            self._keep_alive = False
        elif self.transport is not None:
            self.transport.close()

    def cancel(self) -> None:
        """The grace is over: whoever still waits gets 503."""
        if self._task is not None:
            self._task.cancel()

    def abort(self) -> None:
        if self.transport is not None:
            self.transport.abort()

    # -- accounting -------------------------------------------------------------------------------------

    def _hold(self, size: int) -> bool:
        """Account for bytes kept; when there is no room, the client is told and the connection ends."""
        if self._shared.hold(size):
            self._held += size
            return True
        if self._task is not None:
            # A request is being answered: only what came after it has to go.
            self._keep_alive = False
            self._socket_unread = True
            assert self.transport is not None
            self.transport.pause_reading()
        else:
            self._refuse(errors.overloaded())
        return False

    def _release(self) -> None:
        self._shared.buffered_bytes -= self._held
        self._held = 0

    def _release_request(self) -> None:
        """The request is answered; only the backlog is still kept."""
        done = self._held - len(self._backlog)
        self._shared.buffered_bytes -= done
        self._held -= done


def _preflight(message: RawRequestMessage) -> Response:
    method = message.headers.get("access-control-request-method")
    headers = message.headers.get("access-control-request-headers")
    return responses.preflight(None if method is None else _raw(method), None if headers is None else _raw(headers))


def _head_size(message: RawRequestMessage) -> int:
    """The head's bytes, but for optional white space: only asked for when the sum may be over the limit."""
    lines = sum(len(name) + len(text) + 4 for name, text in message.raw_headers)
    return len(message.path) + lines


def _raw(text: str) -> bytes:
    """A header's bytes as they came; the parser shows bytes that are no UTF-8 as lone surrogates."""
    return text.encode("utf-8", "surrogateescape")

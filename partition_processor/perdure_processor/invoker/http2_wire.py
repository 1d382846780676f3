"""○ adapter · The client's half of HTTP/2 (RFC 9113) without a socket: bytes in, calls out; over jh2's HPACK.

jh2's own connection object makes several objects and a dozen state lookups per frame, which costs twice what all
the rest of a stream does.  A client that never pushes, prioritises or upgrades needs little of it, so the frames
are read and written here, and jh2 does what is hard to do fast and right in Python: the header compression.
The tests let jh2's and h2's servers judge what is written here.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Protocol

from jh2._hazmat import Decoder, Encoder  # the compiled HPACK; what jh2.hpack offers is the slow one

from perdure_processor.model.limits import (
    HTTP2_CONNECTION_WINDOW_BYTES,
    HTTP2_FRAME_BYTES_MAX,
    HTTP2_HEADER_BYTES_MAX,
    HTTP2_HEADER_TABLE_BYTES_MAX,
    STREAM_WINDOW_BYTES,
)

NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR, FLOW_CONTROL_ERROR = 0, 1, 2, 3
FRAME_SIZE_ERROR, REFUSED_STREAM, CANCEL, COMPRESSION_ERROR = 6, 7, 8, 9
_ERROR_NAMES = (
    *("NO_ERROR", "PROTOCOL_ERROR", "INTERNAL_ERROR", "FLOW_CONTROL_ERROR", "SETTINGS_TIMEOUT", "STREAM_CLOSED"),
    *("FRAME_SIZE_ERROR", "REFUSED_STREAM", "CANCEL", "COMPRESSION_ERROR", "CONNECT_ERROR", "ENHANCE_YOUR_CALM"),
    *("INADEQUATE_SECURITY", "HTTP_1_1_REQUIRED"),
)

_DATA, _HEADERS, _PRIORITY, _RST_STREAM, _SETTINGS, _PUSH_PROMISE, _PING, _GOAWAY, _WINDOW_UPDATE, _CONTINUATION = (
    range(10)
)
_END_STREAM = _ACK = 0x1
_END_HEADERS, _PADDED, _WITH_PRIORITY = 0x4, 0x8, 0x20
_HEADER_TABLE_SIZE, _ENABLE_PUSH, _MAX_CONCURRENT_STREAMS, _INITIAL_WINDOW_SIZE, _MAX_FRAME_SIZE = 1, 2, 3, 4, 5
_MAX_HEADER_LIST_SIZE = 6
_WINDOW_MAX = 2**31 - 1
_DEFAULT_WINDOW = 65_535
_UNLIMITED = 2**31
_FRAME = struct.Struct(">HBBBL")  # the 24-bit length as its upper 16 and lower 8 bits
_SETTING = struct.Struct(">HL")
_PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"

# (name, value, whether to keep it out of the compression table)
Head = Sequence[tuple[bytes, bytes, bool]]


class WireError(Exception):
    """The peer broke the protocol; a GOAWAY that says so is ready to be written, nothing more can be read."""


class WireStream:
    """What the protocol knows of one stream."""

    __slots__ = ("local_ended", "receive_window", "remote_ended", "responded", "send_window", "stream_id")

    def __init__(self, stream_id: int, send_window: int) -> None:
        self.stream_id = stream_id
        self.send_window = send_window
        self.receive_window = STREAM_WINDOW_BYTES
        self.local_ended = False
        self.remote_ended = False
        self.responded = False


class WireEvents(Protocol):
    """Called from within `receive`, in the order of the frames; may call back into the wire."""

    def on_response(self, stream_id: int, status: int, headers: list[tuple[bytes, bytes, bool]]) -> None: ...

    def on_data(self, stream_id: int, data: bytes) -> None: ...

    def on_end(self, stream_id: int) -> None:
        """The response is complete. If the request is not, the stream is still the caller's to end or reset."""

    def on_reset(self, stream_id: int, code: int, reason: str | None) -> None:
        """The stream is gone: by the peer, or (with a reason) by us because the peer broke the rules on it."""

    def on_window(self, stream_id: int) -> None:
        """The peer takes more on this stream, or on all (0)."""

    def on_settings(self) -> None:
        """`streams_max` and windows may have changed."""

    def on_goaway(self, last_stream_id: int, code: int, debug: bytes) -> None: ...


class Http2Wire:
    """One connection's frames. What is to be written gathers until `take`."""

    def __init__(self, events: WireEvents) -> None:
        self._events = events
        self._encoder = Encoder()
        self._decoder = Decoder(HTTP2_HEADER_BYTES_MAX)
        self._out: list[bytes] = []
        self._streams: dict[int, WireStream] = {}
        self._last_stream_id = -1
        self._in = bytearray()  # an incomplete frame
        self._header_block: bytearray | None = None  # HEADERS without END_HEADERS, being continued
        self._header_stream_id = 0
        self._header_flags = 0
        self._receive_window = HTTP2_CONNECTION_WINDOW_BYTES
        self._to_credit = 0
        self._initial_send_window = _DEFAULT_WINDOW
        self._stopped = False
        self.send_window = _DEFAULT_WINDOW
        self.frame_bytes_max = HTTP2_FRAME_BYTES_MAX
        self.streams_max = _UNLIMITED

    # What we say.

    def start(self) -> None:
        """The preface: our settings, and the connection's window."""
        settings = (
            (_ENABLE_PUSH, 0),
            (_INITIAL_WINDOW_SIZE, STREAM_WINDOW_BYTES),
            (_MAX_FRAME_SIZE, HTTP2_FRAME_BYTES_MAX),
            (_MAX_HEADER_LIST_SIZE, HTTP2_HEADER_BYTES_MAX),
        )
        self._out.append(_PREFACE)
        self._frame(_SETTINGS, 0, 0, b"".join(_SETTING.pack(*setting) for setting in settings))
        self._frame(_WINDOW_UPDATE, 0, 0, (HTTP2_CONNECTION_WINDOW_BYTES - _DEFAULT_WINDOW).to_bytes(4, "big"))

    def open(self, head: Head, *, end: bool) -> WireStream:
        """A new stream, its request headers said."""
        stream_id = self._last_stream_id = self._last_stream_id + 2
        stream = self._streams[stream_id] = WireStream(stream_id, self._initial_send_window)
        stream.local_ended = end
        block = self._encoder.encode(head)
        flags = _END_STREAM if end else 0
        limit = self.frame_bytes_max
        if len(block) <= limit:
            self._frame(_HEADERS, flags | _END_HEADERS, stream_id, block)
        else:
            self._frame(_HEADERS, flags, stream_id, block[:limit])
            rest = block[limit:]
            while len(rest) > limit:
                self._frame(_CONTINUATION, 0, stream_id, rest[:limit])
                rest = rest[limit:]
            self._frame(_CONTINUATION, _END_HEADERS, stream_id, rest)
        return stream

    def room(self, stream: WireStream) -> int:
        """How many bytes one more DATA frame may carry."""
        return min(self.send_window, stream.send_window, self.frame_bytes_max)

    def send(self, stream: WireStream, data: bytes, *, end: bool) -> None:
        """A DATA frame; the caller has asked for `room`."""
        size = len(data)
        assert not stream.local_ended
        assert size == 0 or size <= self.room(stream), "more than the peer takes"
        self.send_window -= size
        stream.send_window -= size
        self._frame(_DATA, _END_STREAM if end else 0, stream.stream_id, data)
        if end:
            stream.local_ended = True
            if stream.remote_ended:
                self._streams.pop(stream.stream_id, None)

    def reset(self, stream: WireStream, code: int) -> None:
        """Abandon the stream; nothing more is heard of it. No frame is needed if it is over anyway."""
        if self._streams.pop(stream.stream_id, None) is not None:
            self._frame(_RST_STREAM, 0, stream.stream_id, code.to_bytes(4, "big"))

    def forget(self, stream: WireStream) -> None:
        """The peer does not know the stream and never will."""
        self._streams.pop(stream.stream_id, None)

    def credit(self, stream: WireStream, size: int) -> None:
        """Received bytes of the stream are dealt with: the peer may send as many more on it."""
        if size and not stream.remote_ended and stream.stream_id in self._streams:
            stream.receive_window += size
            self._frame(_WINDOW_UPDATE, 0, stream.stream_id, size.to_bytes(4, "big"))

    def credit_connection(self, size: int) -> bool:
        """The same for the connection; said (True) once half its window is used up."""
        self._to_credit += size
        if self._to_credit * 2 < HTTP2_CONNECTION_WINDOW_BYTES:
            return False
        self._receive_window += self._to_credit
        self._frame(_WINDOW_UPDATE, 0, 0, self._to_credit.to_bytes(4, "big"))
        self._to_credit = 0
        return True

    def ping(self) -> None:
        self._frame(_PING, 0, 0, b"perdure.")

    def goaway(self, code: int = NO_ERROR) -> None:
        self._frame(_GOAWAY, 0, 0, bytes(4) + code.to_bytes(4, "big"))

    def take(self) -> bytes:
        """What is to be written, in order; it is the caller's now."""
        out = b"".join(self._out)
        self._out.clear()
        return out

    def _frame(self, kind: int, flags: int, stream_id: int, payload: bytes) -> None:
        size = len(payload)
        self._out.append(_FRAME.pack(size >> 8, size & 0xFF, kind, flags, stream_id))
        if size:
            self._out.append(payload)

    # What we hear.

    def stop(self) -> None:
        """Handle no more frames, not even of the bytes now being received."""
        self._stopped = True

    def receive(self, data: bytes) -> None:
        """Handle the frames that are complete. Raises WireError."""
        if self._in:
            self._in += data
            data = bytes(self._in)
            self._in.clear()
        position, end = 0, len(data)
        unpack = _FRAME.unpack_from
        while end - position >= 9 and not self._stopped:
            high, low, kind, flags, stream_id = unpack(data, position)
            size = high << 8 | low
            if size > HTTP2_FRAME_BYTES_MAX:
                self._fail(FRAME_SIZE_ERROR, f"a frame of {size} bytes where {HTTP2_FRAME_BYTES_MAX} are allowed")
            start = position + 9
            position = start + size
            if position > end:
                position = start - 9
                break
            payload = data[start:position]
            stream_id &= 0x7FFF_FFFF
            if self._header_block is not None and kind != _CONTINUATION:
                self._fail(PROTOCOL_ERROR, "a header block was interrupted")
            if kind == _DATA:
                self._on_data(stream_id, flags, payload)
            elif kind == _HEADERS:
                self._on_headers(stream_id, flags, payload)
            else:
                self._on_other(kind, stream_id, flags, payload)
        if position < end and not self._stopped:
            self._in += data[position:]

    def _on_data(self, stream_id: int, flags: int, payload: bytes) -> None:
        size = len(payload)
        self._receive_window -= size
        if self._receive_window < 0:
            self._fail(FLOW_CONTROL_ERROR, "more data than the connection's window allows")
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            self.credit_connection(size)  # a stream that we have given up: its bytes are dealt with
            return
        stream.receive_window -= size
        if flags & _PADDED:
            payload = self._without_padding(payload)
            padding = size - len(payload)
            self.credit_connection(padding)
            self.credit(stream, padding)
        if stream.receive_window < 0:
            self.credit_connection(len(payload))
            self._break(stream, FLOW_CONTROL_ERROR, "more data than the stream's window allows")
        elif not stream.responded:
            self.credit_connection(len(payload))
            self._break(stream, PROTOCOL_ERROR, "data before the response's headers")
        else:
            if flags & _END_STREAM:
                stream.remote_ended = True
            if payload:
                self._events.on_data(stream_id, payload)
            if flags & _END_STREAM:
                self._end(stream)

    def _on_headers(self, stream_id: int, flags: int, payload: bytes) -> None:
        if flags & _PADDED:
            payload = self._without_padding(payload)
        if flags & _WITH_PRIORITY:
            payload = payload[5:]
        if flags & _END_HEADERS:
            self._on_header_block(stream_id, flags, payload)
        else:
            self._header_block = bytearray(payload)
            self._header_stream_id = stream_id
            self._header_flags = flags

    def _on_continuation(self, stream_id: int, flags: int, payload: bytes) -> None:
        block = self._header_block
        if block is None or stream_id != self._header_stream_id:
            self._fail(PROTOCOL_ERROR, "a CONTINUATION of nothing")
        assert block is not None
        if not payload and not flags & _END_HEADERS:
            self._fail(PROTOCOL_ERROR, "an empty CONTINUATION that is not the last")
        block += payload
        if len(block) > HTTP2_HEADER_BYTES_MAX:
            self._fail(PROTOCOL_ERROR, f"more than {HTTP2_HEADER_BYTES_MAX} bytes of headers")
        if flags & _END_HEADERS:
            self._header_block = None
            self._on_header_block(stream_id, self._header_flags, bytes(block))

    def _on_header_block(self, stream_id: int, flags: int, block: bytes) -> None:
        # Decoded even if nobody wants it any more: the compression's state must follow.
        headers = self._decode(block)
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            return
        ended = bool(flags & _END_STREAM)
        if stream.responded:
            if not ended:
                self._break(stream, PROTOCOL_ERROR, "trailers that are not the end")
                return
        else:
            status = _status(headers)
            if status is None or (status < 200 and ended):
                self._break(stream, PROTOCOL_ERROR, "a response without a valid status")
                return
            if status < 200:
                return  # an interim response, of which nobody here has a use
            stream.responded = True
            if ended:
                stream.remote_ended = True
            self._events.on_response(stream_id, status, headers)
        if ended:
            stream.remote_ended = True
            self._end(stream)

    def _decode(self, block: bytes) -> list[tuple[bytes, bytes, bool]]:
        try:
            headers: list[tuple[bytes, bytes, bool]] = self._decoder.decode(block, raw=True)
            return headers
        except Exception as error:
            self._fail(COMPRESSION_ERROR, f"headers that do not decode: {error}")
        except BaseException as error:
            # The compiled decoder panics on some malformed blocks, with an exception that is no Exception.
            if type(error).__name__ != "PanicException":
                raise
            self._fail(COMPRESSION_ERROR, f"headers that do not decode: {error}")
        raise AssertionError("_fail raises")

    def _end(self, stream: WireStream) -> None:
        if stream.stream_id in self._streams:  # else a callback has reset it
            if stream.local_ended:
                del self._streams[stream.stream_id]
            self._events.on_end(stream.stream_id)

    def _on_other(self, kind: int, stream_id: int, flags: int, payload: bytes) -> None:
        if kind == _WINDOW_UPDATE:
            self._on_window_update(stream_id, payload)
        elif kind == _RST_STREAM:
            self._sized(payload, 4)
            self._check_known(stream_id)
            if self._streams.pop(stream_id, None) is not None:
                self._events.on_reset(stream_id, int.from_bytes(payload, "big"), None)
        elif kind == _CONTINUATION:
            self._on_continuation(stream_id, flags, payload)
        elif kind == _SETTINGS:
            self._on_settings(stream_id, flags, payload)
        elif kind == _PING:
            self._sized(payload, 8)
            if stream_id:
                self._fail(PROTOCOL_ERROR, "a PING on a stream")
            if not flags & _ACK:
                self._frame(_PING, _ACK, 0, payload)
        elif kind == _GOAWAY:
            if stream_id or len(payload) < 8:
                self._fail(PROTOCOL_ERROR, "a malformed GOAWAY")
            last = int.from_bytes(payload[:4], "big") & 0x7FFF_FFFF
            self._events.on_goaway(last, int.from_bytes(payload[4:8], "big"), payload[8:])
        elif kind == _PUSH_PROMISE:
            self._fail(PROTOCOL_ERROR, "a push, which was forbidden")
        # PRIORITY means nothing to a client, and unknown kinds are to be ignored.

    def _on_window_update(self, stream_id: int, payload: bytes) -> None:
        self._sized(payload, 4)
        size = int.from_bytes(payload, "big") & 0x7FFF_FFFF
        if stream_id == 0:
            self.send_window += size
            if size == 0 or self.send_window > _WINDOW_MAX:
                self._fail(FLOW_CONTROL_ERROR if size else PROTOCOL_ERROR, f"a window update by {size}")
            self._events.on_window(0)
            return
        stream = self._streams.get(stream_id)
        if stream is None:
            self._check_known(stream_id)
            return
        stream.send_window += size
        if size == 0 or stream.send_window > _WINDOW_MAX:
            self._break(stream, FLOW_CONTROL_ERROR if size else PROTOCOL_ERROR, f"a window update by {size}")
        else:
            self._events.on_window(stream_id)

    def _on_settings(self, stream_id: int, flags: int, payload: bytes) -> None:
        if stream_id:
            self._fail(PROTOCOL_ERROR, "SETTINGS on a stream")
        if flags & _ACK:
            self._sized(payload, 0)
            return
        if len(payload) % 6:
            self._fail(FRAME_SIZE_ERROR, "SETTINGS of a wrong size")
        for setting, number in _SETTING.iter_unpack(payload):
            if setting == _HEADER_TABLE_SIZE:
                self._encoder.header_table_size = min(number, HTTP2_HEADER_TABLE_BYTES_MAX)
            elif setting == _MAX_CONCURRENT_STREAMS:
                self.streams_max = number
            elif setting == _INITIAL_WINDOW_SIZE:
                if number > _WINDOW_MAX:
                    self._fail(FLOW_CONTROL_ERROR, f"an initial window of {number}")
                change = number - self._initial_send_window
                self._initial_send_window = number
                for stream in self._streams.values():
                    stream.send_window += change
            elif setting == _MAX_FRAME_SIZE:
                if not 16_384 <= number < 2**24:
                    self._fail(PROTOCOL_ERROR, f"a maximal frame size of {number}")
                # Larger frames would only let one stream hold the connection longer.
                self.frame_bytes_max = HTTP2_FRAME_BYTES_MAX
        self._frame(_SETTINGS, _ACK, 0, b"")
        self._events.on_settings()

    def _without_padding(self, payload: bytes) -> bytes:
        if not payload or payload[0] >= len(payload):
            self._fail(PROTOCOL_ERROR, "more padding than frame")
        return payload[1 : len(payload) - payload[0]]

    def _sized(self, payload: bytes, size: int) -> None:
        if len(payload) != size:
            self._fail(FRAME_SIZE_ERROR, f"a frame of {len(payload)} bytes where {size} are meant")

    def _check_known(self, stream_id: int) -> None:
        """Frames of streams that are over may come late; those of streams that never were must not come."""
        if stream_id > self._last_stream_id or stream_id % 2 == 0:
            self._fail(PROTOCOL_ERROR, f"a frame on stream {stream_id}, which was never opened")

    def _break(self, stream: WireStream, code: int, reason: str) -> None:
        self.reset(stream, code)
        self._events.on_reset(stream.stream_id, code, reason)

    def _fail(self, code: int, reason: str) -> None:
        self._stopped = True
        self.goaway(code)
        raise WireError(reason)


def error_name(code: int) -> str:
    return _ERROR_NAMES[code] if code < len(_ERROR_NAMES) else hex(code)


def _status(headers: list[tuple[bytes, bytes, bool]]) -> int | None:
    for name, content, _ in headers:
        if name == b":status":
            return int(content) if len(content) == 3 and content.isdigit() and content[:1] != b"0" else None
    return None

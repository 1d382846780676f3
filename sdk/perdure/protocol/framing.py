"""● core · Frames on the wire: type codes, the 8-byte header, and a decoder that takes bytes cut anywhere.

A header is one big-endian word: type (16 bits), flags (16), length of the payload alone (32).  The
highest flag asks for an acknowledgement; the others are reserved, written as 0 and ignored.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Iterator

from perdure.protocol.errors import ProtocolError

# A header that announces this many bytes is refused before any of them is stored: 32 MiB, the limit of a
# message, and 256 KiB for what is around it.
FRAME_BYTES_MAX = 32 * 1024 * 1024 + 256 * 1024

HEADER_BYTES = 8
REQUESTED_ACK = 0x8000

_HEADER = struct.Struct(">HHI")
_pack_header = _HEADER.pack
_unpack_header = _HEADER.unpack_from


class MessageType(enum.IntEnum):
    """Every code of V5 to V7. Control below 0x0400, commands below 0x8000, then notifications."""

    START = 0x0000
    SUSPENSION = 0x0001
    ERROR = 0x0002
    END = 0x0003
    COMMAND_ACK = 0x0004
    PROPOSE_RUN_COMPLETION = 0x0005
    AWAITING_ON = 0x0006
    PROPOSE_RUN_COMPLETION_ACK = 0x0007

    INPUT_COMMAND = 0x0400
    OUTPUT_COMMAND = 0x0401
    GET_LAZY_STATE_COMMAND = 0x0402
    SET_STATE_COMMAND = 0x0403
    CLEAR_STATE_COMMAND = 0x0404
    CLEAR_ALL_STATE_COMMAND = 0x0405
    GET_LAZY_STATE_KEYS_COMMAND = 0x0406
    GET_EAGER_STATE_COMMAND = 0x0407
    GET_EAGER_STATE_KEYS_COMMAND = 0x0408
    GET_PROMISE_COMMAND = 0x0409
    PEEK_PROMISE_COMMAND = 0x040A
    COMPLETE_PROMISE_COMMAND = 0x040B
    SLEEP_COMMAND = 0x040C
    CALL_COMMAND = 0x040D
    ONE_WAY_CALL_COMMAND = 0x040E
    SEND_SIGNAL_COMMAND = 0x0410
    RUN_COMMAND = 0x0411
    ATTACH_INVOCATION_COMMAND = 0x0412
    GET_INVOCATION_OUTPUT_COMMAND = 0x0413
    COMPLETE_AWAKEABLE_COMMAND = 0x0414

    GET_LAZY_STATE_COMPLETION_NOTIFICATION = 0x8002
    GET_LAZY_STATE_KEYS_COMPLETION_NOTIFICATION = 0x8006
    GET_PROMISE_COMPLETION_NOTIFICATION = 0x8009
    PEEK_PROMISE_COMPLETION_NOTIFICATION = 0x800A
    COMPLETE_PROMISE_COMPLETION_NOTIFICATION = 0x800B
    SLEEP_COMPLETION_NOTIFICATION = 0x800C
    CALL_COMPLETION_NOTIFICATION = 0x800D
    CALL_INVOCATION_ID_COMPLETION_NOTIFICATION = 0x800E  # for Call and OneWayCall alike
    RUN_COMPLETION_NOTIFICATION = 0x8011
    ATTACH_INVOCATION_COMPLETION_NOTIFICATION = 0x8012
    GET_INVOCATION_OUTPUT_COMPLETION_NOTIFICATION = 0x8013
    SIGNAL_NOTIFICATION = 0xFBFF


class FrameTooLarge(ProtocolError):
    """A header announces more than the limit. `frames` are the complete ones that came before it."""

    def __init__(self, announced: int, limit: int, frames: list[tuple[int, bool, bytes]]) -> None:
        super().__init__(f"hit message size limit: {announced} >= {limit}")
        self.announced = announced
        self.limit = limit
        self.frames = frames


def message_name(code: int) -> str:
    """How error texts call a message: 'CallCommandMessage', or 'unknown message 0x0420'."""
    return _NAMES.get(code) or f"unknown message 0x{code:04X}"


def is_command(code: int) -> bool:
    """Whether the code is in the range of commands, listed or not."""
    return 0x0400 <= code < 0x8000


def is_notification(code: int) -> bool:
    """Whether the code is in the range of notifications, listed or not."""
    return 0x8000 <= code <= 0xFBFF


def encode_frame(type: int, payload: bytes, requested_ack: bool = False) -> bytes:
    """Header and payload, ready to send."""
    return _pack_header(type, REQUESTED_ACK if requested_ack else 0, len(payload)) + payload


class Decoder:
    """Bytes in, frames out, however the bytes are cut; the work is linear in the bytes fed.

    `limit` is the first announced length that is refused.  A decoder that has raised keeps raising: what
    follows a refused header cannot be told from its payload."""

    __slots__ = ("_buffer", "_limit", "_needed", "_refused")

    def __init__(self, limit: int = FRAME_BYTES_MAX) -> None:
        self._limit = limit
        self._buffer = bytearray()  # the beginning of one unfinished frame
        self._needed = HEADER_BYTES  # buffered bytes from which parsing can get on
        self._refused = -1

    @property
    def pending(self) -> int:
        """Bytes held of a frame that is not complete; not 0 at the end of a stream means it was truncated."""
        return len(self._buffer)

    def feed(self, data: bytes) -> list[tuple[int, bool, bytes]]:
        """The frames that `data` completes: (type, requested_ack, payload). Raises FrameTooLarge."""
        if self._refused >= 0:
            raise FrameTooLarge(self._refused, self._limit, [])
        buffer = self._buffer
        if buffer:
            # Growing one buffer and cutting it only when a frame is complete keeps many small pieces of a
            # large frame linear; cutting frames out of its front one by one would not be.
            buffer += data
            if len(buffer) < self._needed:
                return []
            data = bytes(buffer)
            buffer.clear()
        frames: list[tuple[int, bool, bytes]] = []
        limit = self._limit
        start = 0
        end = len(data)
        while end - start >= 8:
            code, flags, length = _unpack_header(data, start)
            if length >= limit:
                self._refused = length
                raise FrameTooLarge(length, limit, frames)
            stop = start + 8 + length
            if stop > end:
                self._needed = 8 + length
                break
            frames.append((code, flags >= REQUESTED_ACK, data[start + 8 : stop]))
            start = stop
        else:
            self._needed = HEADER_BYTES
        if start < end:
            buffer += data[start:] if start else data
        return frames


def iter_frames(blob: bytes) -> Iterator[tuple[int, bool, bytes]]:
    """The frames of a stored journal: (type, requested_ack, payload). Raises ProtocolError if one is cut."""
    start = 0
    end = len(blob)
    while start < end:
        if end - start < HEADER_BYTES:
            raise ProtocolError(f"a frame's header is cut after {end - start} bytes")
        code, flags, length = _unpack_header(blob, start)
        stop = start + HEADER_BYTES + length
        if stop > end:
            raise ProtocolError(f"{message_name(code)} is cut: {end - start} of {stop - start} bytes")
        yield code, flags >= REQUESTED_ACK, blob[start + HEADER_BYTES : stop]
        start = stop


_NAMES = {code.value: code.name.title().replace("_", "") + "Message" for code in MessageType}

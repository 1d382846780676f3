"""Frames: the header's bits, limits, and bytes that come in pieces."""

from __future__ import annotations

import tracemalloc

import pytest

from perdure.protocol.errors import ProtocolError
from perdure.protocol.framing import (
    FRAME_BYTES_MAX,
    Decoder,
    FrameTooLarge,
    MessageType,
    encode_frame,
    is_command,
    is_notification,
    iter_frames,
    message_name,
)

SLEEP = encode_frame(MessageType.SLEEP_COMMAND, b"\x08\x01")
END = encode_frame(MessageType.END, b"")


def test_a_frame_is_type_flags_length_and_payload() -> None:
    assert encode_frame(MessageType.PROPOSE_RUN_COMPLETION, b"abc", True) == bytes.fromhex("0005 8000 00000003 616263")
    assert bytes.fromhex("0003 0000 00000000") == END


def test_reserved_flags_are_ignored() -> None:
    frames = Decoder().feed(bytes.fromhex("0003 7fff 00000000 0003 8001 00000000"))
    assert frames == [(3, False, b""), (3, True, b"")]


def test_several_frames_in_one_piece_and_one_frame_in_several() -> None:
    decoder = Decoder()
    assert decoder.feed(SLEEP + END + SLEEP[:3]) == [(0x040C, False, b"\x08\x01"), (3, False, b"")]
    assert decoder.pending == 3
    assert decoder.feed(SLEEP[3:9]) == []
    assert decoder.pending == 9
    assert decoder.feed(SLEEP[9:] + END[:1]) == [(0x040C, False, b"\x08\x01")]
    assert decoder.feed(END[1:]) == [(3, False, b"")]
    assert decoder.pending == 0
    assert decoder.feed(b"") == []


def test_the_header_alone_is_enough_to_refuse_a_frame() -> None:
    decoder = Decoder(limit=16)
    with pytest.raises(FrameTooLarge) as caught:
        decoder.feed(bytes.fromhex("0401 0000 00000010"))
    assert (caught.value.announced, caught.value.limit) == (16, 16)
    assert str(caught.value) == "hit message size limit: 16 >= 16"


def test_one_byte_below_the_limit_passes() -> None:
    assert Decoder(limit=16).feed(encode_frame(0x0401, bytes(15))) == [(0x0401, False, bytes(15))]


def test_the_default_limit_is_the_protocol_s() -> None:
    assert FRAME_BYTES_MAX == 33816576
    with pytest.raises(FrameTooLarge, match="33816576 >= 33816576"):
        Decoder().feed(bytes.fromhex("0401 0000 02040000"))
    assert Decoder().feed(bytes.fromhex("0401 0000 0203ffff")) == []


def test_what_came_before_a_refused_frame_is_not_lost() -> None:
    decoder = Decoder(limit=16)
    with pytest.raises(FrameTooLarge) as caught:
        decoder.feed(SLEEP + END + bytes.fromhex("0401 0000 ffffffff") + END)
    assert caught.value.frames == [(0x040C, False, b"\x08\x01"), (3, False, b"")]


def test_nothing_is_read_after_a_refused_frame() -> None:
    decoder = Decoder(limit=16)
    for _ in range(2):
        with pytest.raises(FrameTooLarge):
            decoder.feed(bytes.fromhex("0401 0000 00000010"))
    with pytest.raises(FrameTooLarge):
        decoder.feed(END)


class CountingBytes(bytes):
    """Counts the bytes that are cut out of it and its pieces, to tell linear work from quadratic without a clock."""

    copied = 0

    def __getitem__(self, index):  # type: ignore[no-untyped-def,override]
        part = super().__getitem__(index)
        if not isinstance(part, bytes):
            return part
        CountingBytes.copied += len(part)
        return CountingBytes(part)


def test_many_small_frames_at_once_are_each_copied_once() -> None:
    CountingBytes.copied = 0
    data = CountingBytes(SLEEP * 100_000 + SLEEP[:5])
    assert len(Decoder().feed(data)) == 100_000
    assert CountingBytes.copied <= len(data)


def test_a_large_frame_in_many_pieces_is_held_once() -> None:
    frame = encode_frame(0x0401, bytes(4_000_000))
    decoder = Decoder()
    tracemalloc.start()
    try:
        for at in range(0, 4_000_000, 100):
            assert decoder.feed(frame[at : at + 100]) == []
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert decoder.pending == 4_000_000
    # One growing buffer: a copy for each piece, or a list of the pieces, would show up here.
    assert peak < 1.5 * len(frame)
    assert decoder.feed(frame[4_000_000:]) == [(0x0401, False, bytes(4_000_000))]


def test_a_stored_journal_that_is_cut_is_refused() -> None:
    assert list(iter_frames(SLEEP + END)) == [(0x040C, False, b"\x08\x01"), (3, False, b"")]
    assert list(iter_frames(b"")) == []
    with pytest.raises(ProtocolError, match=r"SleepCommandMessage is cut: 9 of 10 bytes"):
        list(iter_frames(SLEEP[:-1]))
    with pytest.raises(ProtocolError, match="header is cut after 3 bytes"):
        list(iter_frames(END + SLEEP[:3]))


def test_messages_are_called_by_their_names() -> None:
    assert message_name(0x0000) == "StartMessage"
    assert message_name(MessageType.ONE_WAY_CALL_COMMAND) == "OneWayCallCommandMessage"
    assert message_name(0x8011) == "RunCompletionNotificationMessage"
    assert message_name(0x0420) == "unknown message 0x0420"


def test_the_ranges_of_codes() -> None:
    for code in MessageType:
        kinds = (is_command(code), is_notification(code))
        assert kinds == ("_COMMAND" in code.name, code.name.endswith("_NOTIFICATION"))
    assert not is_command(0x03FF)
    assert is_command(0x7FFF)
    assert not is_notification(0xFC00)

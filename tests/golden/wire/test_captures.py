"""Every recorded stream of the official SDKs decodes here, and encodes again to the same bytes."""

from __future__ import annotations

import pytest

from golden.wire.captures import Capture, invocation_streams, manifests
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import Decoder, MessageType, encode_frame, iter_frames
from perdure.protocol.ids import decode_invocation_id, encode_invocation_id, random_seed
from perdure.protocol.manifest import HandlerType, ServiceType, parse_manifest
from perdure.protocol.manifest_writer import to_json
from perdure.protocol.messages import decode_message, input_frame, start_frame

STREAMS = invocation_streams()
MANIFESTS = manifests()


def test_the_recordings_are_complete() -> None:
    by_file = {name: sum(s.name.startswith(name) for s in STREAMS) for name in ("v6", "v7", "ts7", "h11")}
    # Two directions for each attempt.
    assert by_file == {"v6": 66, "v7": 22, "ts7": 24, "h11": 6}
    codes = {code for stream in STREAMS for code, _, _ in iter_frames(stream.body)}
    assert len(codes) == 31


@pytest.mark.parametrize("stream", STREAMS, ids=repr)
def test_a_stream_decodes_and_encodes_to_the_same_bytes(stream: Capture) -> None:
    decoder = Decoder()
    frames = [frame for piece in stream.pieces for frame in decoder.feed(piece)]

    assert decoder.pending == 0
    again = [
        encode_frame(code, decode_message(code, payload).SerializeToString(), ack) for code, ack, payload in frames
    ]
    assert b"".join(again) == stream.body


@pytest.mark.parametrize("stream", STREAMS, ids=repr)
def test_a_stream_says_nothing_that_our_messages_do_not_know(stream: Capture) -> None:
    """Unknown fields would survive the round trip of the test above unnoticed."""
    for code, _, payload in iter_frames(stream.body):
        message = decode_message(code, payload)
        size = len(payload)
        message.DiscardUnknownFields()
        assert message.ByteSize() == size, MessageType(code).name


@pytest.mark.parametrize("stream", STREAMS, ids=repr)
@pytest.mark.parametrize("size", [1, 7, 4096])
def test_the_cut_of_the_bytes_does_not_matter(stream: Capture, size: int) -> None:
    body = stream.body
    decoder = Decoder()
    frames = [frame for at in range(0, len(body), size) for frame in decoder.feed(body[at : at + size])]
    assert frames == list(iter_frames(body))


@pytest.mark.parametrize("stream", [s for s in STREAMS if s.name.endswith("S>D")], ids=repr)
def test_what_the_server_sent_first_is_what_our_builders_make(stream: Capture) -> None:
    frames = list(iter_frames(stream.body))
    start = pb.StartMessage.FromString(frames[0][2])
    assert start_frame(
        start.id,
        start.debug_id,
        start.known_entries,
        [(entry.key, entry.value) for entry in start.state_map],
        partial_state=start.partial_state,
        key=start.key,
        retry_count=start.retry_count_since_last_stored_entry,
        duration_since_last_entry_ms=start.duration_since_last_stored_entry,
        random_seed=start.random_seed,
    ) == encode_frame(MessageType.START, frames[0][2])

    given = pb.InputCommandMessage.FromString(frames[1][2])
    headers = [(header.key, header.value) for header in given.headers]
    assert input_frame(headers, given.value.content) == encode_frame(MessageType.INPUT_COMMAND, frames[1][2])


@pytest.mark.parametrize("stream", [s for s in STREAMS if s.name.endswith("S>D")], ids=repr)
def test_the_ids_in_a_start_message_are_one_id(stream: Capture) -> None:
    start = pb.StartMessage.FromString(next(iter_frames(stream.body))[2])
    assert encode_invocation_id(start.id) == start.debug_id == stream.headers["x-restate-invocation-id"]
    assert decode_invocation_id(start.debug_id) == start.id


def test_the_server_seeds_by_the_invocation_id() -> None:
    starts = [pb.StartMessage.FromString(next(iter_frames(s.body))[2]) for s in STREAMS if s.name.endswith("S>D")]
    assert [random_seed(start.id) for start in starts] == [start.random_seed for start in starts]


@pytest.mark.parametrize("manifest", MANIFESTS, ids=repr)
def test_a_recorded_manifest_is_read_and_written(manifest: Capture) -> None:
    content_type = manifest.headers["content-type"]
    parsed = parse_manifest(content_type, manifest.body, manifest.headers["x-restate-server"])

    assert (parsed.min_protocol_version, parsed.max_protocol_version) == (5, 7)
    assert parsed.services
    for service in parsed.services:
        assert service.handlers
        keyed = service.type is not ServiceType.SERVICE
        assert all(isinstance(handler.type, HandlerType) == keyed for handler in service.handlers)
    assert parse_manifest(content_type, to_json(parsed, 4)) == parsed

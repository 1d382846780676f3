"""The wire, whatever the bytes: any cut gives the same frames, and garbage raises our errors and no others."""

from __future__ import annotations

import contextlib
import itertools
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from perdure.protocol import ids, messages
from perdure.protocol.errors import PerdureError, ProtocolError
from perdure.protocol.framing import Decoder, FrameTooLarge, MessageType, encode_frame, iter_frames
from perdure.protocol.manifest import MANIFEST_VERSIONS, ManifestError, manifest_content_type, parse_manifest
from perdure.protocol.manifest_writer import to_json

LIMIT = 64
FRAMES = st.lists(st.tuples(st.integers(0, 0xFFFF), st.booleans(), st.binary(max_size=LIMIT - 1)), max_size=8)
CUTS = st.lists(st.integers(0, 300), max_size=12)
RAW_IDS = st.binary(min_size=24, max_size=24)


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    places = [0, *sorted(cut for cut in cuts if cut < len(data)), len(data)]
    return [data[start:stop] for start, stop in itertools.pairwise(places)]


def feed_all(parts: list[bytes]) -> tuple[list[tuple[int, bool, bytes]], int, str | None]:
    """The frames, what is pending, and what was refused: all that a decoder tells."""
    decoder = Decoder(LIMIT)
    frames: list[tuple[int, bool, bytes]] = []
    for part in parts:
        try:
            frames += decoder.feed(part)
        except FrameTooLarge as error:
            return frames + error.frames, -1, str(error)
    return frames, decoder.pending, None


@given(FRAMES, CUTS)
def test_any_cut_gives_the_frames_that_were_written(frames: list[tuple[int, bool, bytes]], cuts: list[int]) -> None:
    data = b"".join(encode_frame(code, payload, ack) for code, ack, payload in frames)
    assert feed_all(pieces(data, cuts)) == (frames, 0, None)
    assert list(iter_frames(data)) == frames


@given(st.binary(max_size=300), CUTS)
def test_any_cut_of_garbage_gives_the_same(data: bytes, cuts: list[int]) -> None:
    assert feed_all(pieces(data, cuts)) == feed_all([data])


@given(FRAMES, CUTS, st.integers(LIMIT, 2**32 - 1))
def test_a_refusal_does_not_depend_on_the_cut(
    frames: list[tuple[int, bool, bytes]], cuts: list[int], announced: int
) -> None:
    good = b"".join(encode_frame(code, payload, ack) for code, ack, payload in frames)
    data = good + b"\x04\x01\x00\x00" + announced.to_bytes(4, "big") + b"rest"
    assert feed_all(pieces(data, cuts)) == (frames, -1, f"hit message size limit: {announced} >= {LIMIT}")


@given(st.binary(max_size=300))
def test_garbage_in_a_journal_is_a_protocol_error(data: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        assert sum(8 + len(payload) for _, _, payload in iter_frames(data)) == len(data)


@given(st.sampled_from(MessageType) | st.integers(0, 0xFFFF), st.binary(max_size=60))
def test_garbage_in_a_message_is_a_protocol_error(code: int, payload: bytes) -> None:
    try:
        message = messages.decode_message(code, payload)
    except ProtocolError:
        return
    # What decodes is stable: decoding what we write gives the same message.
    assert messages.decode_message(code, message.SerializeToString()) == message


@given(st.binary(max_size=60))
def test_a_garbage_proposal_is_a_protocol_error(payload: bytes) -> None:
    with contextlib.suppress(ProtocolError):
        [(code, _, _)] = iter_frames(messages.proposal_to_run_completion(payload)[1])
        assert code == MessageType.RUN_COMPLETION_NOTIFICATION


# --- identifiers -------------------------------------------------------------------------------------------


@given(RAW_IDS)
def test_invocation_ids_round_trip(raw: bytes) -> None:
    text = ids.encode_invocation_id(raw)
    assert len(text) == 38
    assert ids.decode_invocation_id(text) == raw


@given(RAW_IDS)
def test_the_text_is_base62_of_the_swapped_numbers(raw: bytes) -> None:
    """The fast way against the definition."""
    digits = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"

    def base62(number: int, width: int) -> str:
        return "".join(digits[number // 62**place % 62] for place in reversed(range(width)))

    expected = base62(int.from_bytes(raw[:8], "little"), 11) + base62(int.from_bytes(raw[8:], "little"), 22)
    assert ids.encode_invocation_id(raw) == "inv_1" + expected


@given(RAW_IDS, st.integers(0, 2**32 - 1))
def test_awakeable_ids_round_trip(raw: bytes, index: int) -> None:
    assert ids.decode_awakeable_id(ids.encode_awakeable_id(raw, index)) == (raw, index)


@given(st.integers(0, 2**48 - 1), st.integers(0, 2**80 - 1), st.integers(0, 2**48 - 1), st.integers(0, 2**80 - 1))
def test_ulids_sort_as_their_numbers(time: int, chance: int, other_time: int, other_chance: int) -> None:
    one, other = ids.ulid_text(time, chance), ids.ulid_text(other_time, other_chance)
    assert (one < other) == ((time, chance) < (other_time, other_chance))


TEXTS = st.text(max_size=50) | st.builds(
    lambda prefix, body: prefix + body,
    st.sampled_from(["inv_1", "sign_1", "prom_1", "dp_1"]),
    st.text(max_size=50) | st.text(alphabet="abcXYZ019-_=+/", min_size=22, max_size=40),
)


@given(TEXTS)
def test_any_text_is_an_id_or_an_id_error(text: str) -> None:
    with contextlib.suppress(ids.IdError):
        assert ids.encode_invocation_id(ids.decode_invocation_id(text)) == text
    with contextlib.suppress(ids.IdError):
        again = ids.encode_awakeable_id(*ids.decode_awakeable_id(text))
        assert again[6:] == text[6:].removesuffix("==")
    with contextlib.suppress(ids.IdError):
        ids.decode_resource_id("dp", text)


def test_id_errors_can_be_caught_with_all_of_ours() -> None:
    with pytest.raises(PerdureError):
        ids.decode_invocation_id("nothing")


# --- manifests ---------------------------------------------------------------------------------------------

NAMES = st.sampled_from(["Greeter", "a", "restate", "_x", "", "greet"])
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-1, 9) | st.floats() | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)
PAYLOADS = st.fixed_dictionaries(
    {}, optional={"contentType": NAMES | st.just("a/b"), "jsonSchema": JSON, "required": st.booleans()}
)
COMMON = {
    "ingressPrivate": st.booleans(),
    "journalRetention": st.integers(-1, 10),
    "documentation": st.text(max_size=3),
    "retryPolicyMaxAttempts": st.integers(0, 3),
    "retryPolicyExponentiationFactor": st.floats(),
    "other": JSON,
}
HANDLERS = st.fixed_dictionaries(
    {"name": NAMES},
    optional={"ty": st.sampled_from(["EXCLUSIVE", "SHARED", "WORKFLOW"]), "input": PAYLOADS, "output": JSON} | COMMON,
)
SERVICES = st.fixed_dictionaries(
    {
        "name": NAMES,
        "ty": st.sampled_from(["SERVICE", "VIRTUAL_OBJECT", "WORKFLOW"]),
        "handlers": st.lists(HANDLERS, max_size=2),
    },
    optional=COMMON,
)
ENDPOINTS = st.fixed_dictionaries(
    {
        "protocolMode": st.just("BIDI_STREAM") | JSON,
        "minProtocolVersion": st.integers(1, 9),
        "maxProtocolVersion": st.integers(5, 9),
        "services": st.lists(SERVICES, max_size=2),
    }
)


@given(ENDPOINTS | JSON, st.sampled_from(MANIFEST_VERSIONS))
def test_any_document_is_a_manifest_or_a_manifest_error(document: object, version: int) -> None:
    try:
        manifest = parse_manifest(manifest_content_type(version), json.dumps(document).encode())
    except ManifestError:
        return
    assert parse_manifest(manifest_content_type(4), to_json(manifest, 4)) == manifest


@given(st.binary(max_size=40))
def test_any_bytes_are_no_manifest(body: bytes) -> None:
    with pytest.raises(ManifestError):
        parse_manifest(manifest_content_type(4), body)

"""Messages: a class for each code, and the server's frames in the cases that are easy to get wrong."""

from __future__ import annotations

import pytest

from perdure.protocol import messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.errors import ProtocolError
from perdure.protocol.framing import MessageType, is_notification, iter_frames, message_name


def notification(frame: bytes) -> tuple[int, pb.Notification]:
    [(code, requested_ack, payload)] = iter_frames(frame)
    assert not requested_ack
    return code, pb.Notification.FromString(payload)


def test_every_code_has_its_class() -> None:
    assert list(messages.MESSAGE_CLASSES) == list(MessageType)
    for code, cls in messages.MESSAGE_CLASSES.items():
        expected = "Notification" if is_notification(code) else message_name(code)
        assert cls.DESCRIPTOR.name == expected


def test_bytes_that_are_no_message_are_refused_by_its_name() -> None:
    with pytest.raises(ProtocolError, match="CallCommandMessage does not decode"):
        messages.decode_message(MessageType.CALL_COMMAND, b"\x0a\x05ab")
    with pytest.raises(ProtocolError, match="CallCommandMessage does not decode"):
        messages.decode_as(pb.CallCommandMessage, b"\x0a\x02\xff\xfe")  # not UTF-8
    with pytest.raises(ProtocolError, match="unknown message 0x0420"):
        messages.decode_message(0x0420, b"")


def test_fields_of_a_later_version_are_skipped() -> None:
    run = messages.decode_as(pb.RunCommandMessage, bytes.fromhex("5802 6204726f6c6c a206026869"))
    assert (run.result_completion_id, run.name) == (2, "roll")


def test_a_failure_carries_its_metadata_in_order() -> None:
    frame = messages.failure_notification(
        MessageType.CALL_COMPLETION_NOTIFICATION, 5, 409, "no", {"zone": "b", "attempt": "3"}
    )
    code, message = notification(frame)
    assert code == MessageType.CALL_COMPLETION_NOTIFICATION
    assert (message.failure.code, message.failure.message) == (409, "no")
    assert [(entry.key, entry.value) for entry in message.failure.metadata] == [("zone", "b"), ("attempt", "3")]


@pytest.mark.parametrize(("given", "sent"), [(0, 0), (422, 422), (65535, 65535), (65536, 500), (2**32 - 1, 500)])
def test_a_failure_code_beyond_16_bits_is_500(given: int, sent: int) -> None:
    _, message = notification(messages.failure_notification(MessageType.CALL_COMPLETION_NOTIFICATION, 1, given, "x"))
    assert message.failure.code == sent

    proposal = pb.ProposeRunCompletionMessage(result_completion_id=1, failure=pb.Failure(code=given, message="x"))
    completion_id, frame = messages.proposal_to_run_completion(proposal.SerializeToString())
    _, message = notification(frame)
    assert completion_id == message.completion_id
    assert message.failure.code == sent


def test_a_failure_that_says_nothing_is_still_a_failure() -> None:
    for frame in (
        messages.failure_notification(MessageType.CALL_COMPLETION_NOTIFICATION, 1, 0, ""),
        messages.failure_signal(17, 0, ""),
        messages.proposal_to_run_completion(bytes.fromhex("0801 7a00"))[1],
    ):
        _, message = notification(frame)
        assert message.WhichOneof("result") == "failure"


def test_a_proposed_failure_keeps_everything() -> None:
    failure = pb.Failure(code=422, message="no way", metadata=[pb.FailureMetadata(key="k", value="v")])
    proposal = pb.ProposeRunCompletionMessage(result_completion_id=3, failure=failure)
    code, message = notification(messages.proposal_to_run_completion(proposal.SerializeToString())[1])
    assert code == MessageType.RUN_COMPLETION_NOTIFICATION
    assert message == pb.Notification(completion_id=3, failure=failure)


def test_a_proposed_empty_value_is_a_value() -> None:
    _, message = notification(messages.proposal_to_run_completion(bytes.fromhex("0801 7200"))[1])
    assert message == pb.Notification(completion_id=1, value=pb.Value())


def test_a_proposal_must_have_a_result() -> None:
    with pytest.raises(ProtocolError, match="neither a value nor a failure"):
        messages.proposal_to_run_completion(bytes.fromhex("0801"))
    with pytest.raises(ProtocolError, match="ProposeRunCompletionMessage does not decode"):
        messages.proposal_to_run_completion(bytes.fromhex("0801 7205 61"))


def test_signals_go_by_index_or_by_name() -> None:
    cases = [
        (messages.void_signal(1), pb.Notification(signal_id=1, void=pb.Void())),
        (messages.value_signal(17, b""), pb.Notification(signal_id=17, value=pb.Value())),
        (messages.void_signal(""), pb.Notification(signal_name="", void=pb.Void())),
        (
            messages.failure_signal("go", 500, "stop", {"by": "hand"}),
            pb.Notification(
                signal_name="go",
                failure=pb.Failure(code=500, message="stop", metadata=[pb.FailureMetadata(key="by", value="hand")]),
            ),
        ),
    ]
    for frame, expected in cases:
        assert notification(frame) == (MessageType.SIGNAL_NOTIFICATION, expected)


def test_a_start_carries_state_and_what_only_v7_has() -> None:
    frame = messages.start_frame(
        bytes(24),
        "inv_1",
        4,
        [(b"b", b"2"), (b"a", b"")],
        partial_state=True,
        key="k",
        retry_count=2,
        duration_since_last_entry_ms=1838,
        random_seed=2**64 - 1,
        scope="s",
        limit_key="l",
        idempotency_key="i",
    )
    [(code, _, payload)] = iter_frames(frame)
    assert code == MessageType.START
    assert pb.StartMessage.FromString(payload) == pb.StartMessage(
        id=bytes(24),
        debug_id="inv_1",
        known_entries=4,
        state_map=[
            pb.StartMessage.StateEntry(key=b"b", value=b"2"),
            pb.StartMessage.StateEntry(key=b"a", value=b""),
        ],
        partial_state=True,
        key="k",
        retry_count_since_last_stored_entry=2,
        duration_since_last_stored_entry=1838,
        random_seed=2**64 - 1,
        scope="s",
        limit_key="l",
        idempotency_key="i",
    )


def test_an_empty_input_is_an_input() -> None:
    assert messages.input_frame([], b"") == bytes.fromhex("0400 0000 00000002 7200")

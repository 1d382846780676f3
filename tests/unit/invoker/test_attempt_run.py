"""What a running attempt makes of a response's head, and the proposals it lets through."""

from __future__ import annotations

import pytest

from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType, encode_frame
from perdure_processor.invoker.attempt import Attempt, AttemptError, AttemptStart
from perdure_processor.invoker.attempt_run import _retry_after_ms
from perdure_processor.model.effects import RunCompleted
from perdure_processor.model.ids import DeploymentId, Incarnation, InvocationId
from perdure_processor.model.schema import HandlerKind, ServiceKind
from support import builders as b

NOW_MS = 1_700_000_000_000  # Tue, 14 Nov 2023 22:13:20 GMT


@pytest.mark.parametrize(
    ("text", "delay_ms"),
    [
        (None, None),
        ("0", 0),
        (" 7 ", 7_000),
        ("Tue, 14 Nov 2023 22:14:20 GMT", 60_000),
        ("Tue, 14 Nov 2023 22:14:20 -0000", 60_000),  # UTC too, wherever this server stands
        ("Tue, 14 Nov 2023 22:12:20 GMT", 0),
        ("-1", None),
        ("1.5", None),
        ("\u00b2", None),  # a digit to str.isdigit, and no number to int
        ("\u0661", None),
        ("9" * 5_000, None),  # more digits than int takes
        ("Tue, 14 Nov 2023 99:14:20 GMT", None),
        ("later", None),
        ("", None),
    ],
)
def test_retry_after_is_seconds_or_a_date_or_nothing(text: str | None, delay_ms: int | None) -> None:
    assert _retry_after_ms(text, NOW_MS) == delay_ms


def attempt(*open_runs: int) -> Attempt:
    start = AttemptStart(
        InvocationId(bytes(24)),
        Incarnation(1),
        1,
        b.service(),
        ServiceKind.SERVICE,
        HandlerKind.STATELESS,
        1,
        1,
        False,
        DeploymentId("dp_1"),
        6,
        True,
        open_runs,
    )
    return Attempt(start, lambda _service, _handler: None)


def proposal(completion_id: int) -> bytes:
    message = pb.ProposeRunCompletionMessage(result_completion_id=completion_id, value=b"1")
    return encode_frame(MessageType.PROPOSE_RUN_COMPLETION, message.SerializeToString())


def run(completion_id: int) -> bytes:
    message = pb.RunCommandMessage(result_completion_id=completion_id)
    return encode_frame(MessageType.RUN_COMMAND, message.SerializeToString())


def proposed(one: Attempt, *frames: bytes) -> list[int]:
    one.receive(b"".join(frames))
    assert not one.advance(100)
    return [effect.completion_id for effect in one.take_effects()[1] if type(effect) is RunCompleted]


def test_a_run_of_this_attempt_or_one_left_open_by_another_may_be_proposed() -> None:
    assert proposed(attempt(4), run(5), proposal(5), proposal(4)) == [5, 4]


@pytest.mark.parametrize(
    "frames", [(proposal(7),), (run(5), proposal(5), proposal(5)), (proposal(4), proposal(4))], ids=str
)
def test_no_other_and_none_twice(frames: tuple[bytes, ...]) -> None:
    """A second result would be what some attempts were given, and others not."""
    with pytest.raises(AttemptError, match="which no open run has") as caught:
        proposed(attempt(4), *frames)
    assert caught.value.failure.doc_code == "RT0012"


def test_bytes_are_decoded_when_their_turn_comes() -> None:
    """A flood in one piece is handled in steps, and what lies behind the end is never looked at."""
    one = attempt()
    one.receive(run(1) * 10)
    one.receive(run(2) * 10)
    assert one.advance(15) and len(one.effects) == 15
    assert not one.advance(15) and len(one.effects) == 20


@pytest.mark.parametrize("code", [MessageType.SUSPENSION, MessageType.AWAITING_ON])
def test_what_is_waited_for_is_bounded(code: MessageType) -> None:
    """Thirty megabytes of leaves, or of levels, are refused before they become objects."""
    leaves = pb.Future(waiting_completions=range(1, 400_000))
    message = (
        pb.SuspensionMessage(awaiting_on=leaves)
        if code is MessageType.SUSPENSION
        else pb.AwaitingOnMessage(awaiting_on=leaves)
    )
    with pytest.raises(AttemptError, match=r"names what it waits for in [0-9]+ bytes, at most 262144") as caught:
        proposed(attempt(), encode_frame(code, message.SerializeToString()))
    assert caught.value.failure.doc_code == "RT0012"

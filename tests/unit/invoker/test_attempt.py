"""One attempt, from bytes to effects: every message a deployment may send, and everything it may not."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Any

import pytest
from google.protobuf.message import Message
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure.protocol import ids
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import HEADER_BYTES, MessageType, encode_frame, message_name
from perdure_processor.invoker.attempt import Attempt, AttemptError, AttemptStart, Behavior, callee_id
from perdure_processor.model import codec
from perdure_processor.model.commands import AttemptEffects
from perdure_processor.model.effects import (
    AckWanted,
    Called,
    Effect,
    Ended,
    FailureInfo,
    OutputSet,
    Pinned,
    Recorded,
    RunCompleted,
    RunStarted,
    SignalSent,
    SleepStarted,
    StateRead,
    StateSet,
    Suspended,
)
from perdure_processor.model.futures import Combinator, Future
from perdure_processor.model.futures import resolve as resolve_future
from perdure_processor.model.ids import CompletionId, DeploymentId, Incarnation, InvocationId
from perdure_processor.model.limits import EFFECTS_HELD_BYTES_MAX, FAILURE_TEXT_MAX, FUTURE_DEPTH_MAX, MESSAGE_SIZE_MAX
from perdure_processor.model.schema import HandlerKind, HandlerSchema, RetryPolicy, ServiceKind, ServiceSchema
from support import builders as b

ID = b.invocation_id(b.thing(), 1)
POLICY = RetryPolicy(500, 2.0, 60_000, 70, False)


def schema(
    name: str, kind: ServiceKind, handler: str, handler_kind: HandlerKind
) -> tuple[ServiceSchema, HandlerSchema]:
    found = HandlerSchema(handler, handler_kind, True, [], None, False, 1, 2, 3, 4, False, POLICY)
    return ServiceSchema(name, kind, 1, DeploymentId("dp_1"), True, {handler: found}), found


def resolve(service: str, handler: str) -> tuple[ServiceSchema, HandlerSchema] | None:
    return {
        ("Greeter", "greet"): schema("Greeter", ServiceKind.SERVICE, "greet", HandlerKind.STATELESS),
        ("Counter", "add"): schema("Counter", ServiceKind.VIRTUAL_OBJECT, "add", HandlerKind.EXCLUSIVE),
        ("Flow", "run"): schema("Flow", ServiceKind.WORKFLOW, "run", HandlerKind.WORKFLOW),
    }.get((service, handler))


def attempt(
    kind: HandlerKind = HandlerKind.EXCLUSIVE,
    *,
    version: int = 7,
    pinned: bool = True,
    has_output: bool = False,
    entries: int = 1,
    commands: int = 1,
    open_runs: Sequence[int] = (),
) -> Attempt:
    target = b.service() if kind is HandlerKind.STATELESS else b.thing()
    start = AttemptStart(
        ID,
        Incarnation(4),
        1,
        target,
        ServiceKind.VIRTUAL_OBJECT,
        kind,
        entries,
        commands,
        has_output,
        DeploymentId("dp_1"),
        version,
        pinned,
        open_runs,
    )
    return Attempt(start, resolve)


def frame(code: int, message: Message | bytes = b"", ack: bool = False) -> bytes:
    payload = message if isinstance(message, bytes) else message.SerializeToString()
    return encode_frame(code, payload, ack)


def effects_of(one: Attempt, *frames: bytes) -> list[Effect]:
    one.receive(b"".join(frames))
    assert not one.advance(1_000)
    return one.take_effects()[1]


def refusal(one: Attempt, *frames: bytes) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        effects_of(one, *frames)
    return caught.value


def outcome(one: Attempt) -> FailureInfo | None:
    """Handle what was received; what an attempt may say is an AttemptError, and nothing else."""
    try:
        while one.advance(3):
            pass
    except AttemptError as error:
        return error.failure
    return None


def value(content: bytes) -> pb.Value:
    return pb.Value(content=content)


OUTPUT = frame(MessageType.OUTPUT_COMMAND, pb.OutputCommandMessage(value=value(b"7")))
END = frame(MessageType.END)
RUN = frame(MessageType.RUN_COMMAND, pb.RunCommandMessage(result_completion_id=1, name="side effect"))
PROPOSAL = frame(
    MessageType.PROPOSE_RUN_COMPLETION, pb.ProposeRunCompletionMessage(result_completion_id=1, value=b"1"), ack=True
)
SLEEP = frame(MessageType.SLEEP_COMMAND, pb.SleepCommandMessage(wake_up_time=99, result_completion_id=2))
ROWS: list[tuple[bytes, Effect]] = [
    (OUTPUT, OutputSet(OUTPUT)),
    (RUN, RunStarted(RUN, CompletionId(1))),
    (SLEEP, SleepStarted(SLEEP, CompletionId(2), 99)),  # type: ignore[arg-type]
]
for _code, _message, _effect in (
    (MessageType.GET_EAGER_STATE_COMMAND, pb.GetEagerStateCommandMessage(key=b"k", void=pb.Void()), Recorded),
    (MessageType.GET_EAGER_STATE_KEYS_COMMAND, pb.GetEagerStateKeysCommandMessage(value=pb.StateKeys()), Recorded),
    (MessageType.GET_LAZY_STATE_COMMAND, pb.GetLazyStateCommandMessage(key=b"k", result_completion_id=3), StateRead),
    (MessageType.GET_LAZY_STATE_KEYS_COMMAND, pb.GetLazyStateKeysCommandMessage(result_completion_id=3), StateRead),
    (MessageType.SET_STATE_COMMAND, pb.SetStateCommandMessage(key=b"k", value=value(b"v")), StateSet),
    (MessageType.CLEAR_STATE_COMMAND, pb.ClearStateCommandMessage(key=b"k"), StateSet),
    (MessageType.CLEAR_ALL_STATE_COMMAND, pb.ClearAllStateCommandMessage(), StateSet),
):
    _frame = frame(_code, _message)
    ROWS.append((_frame, _effect(_frame)))


# -- what it may send ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("sent", "effect"), ROWS, ids=[message_name(int.from_bytes(row[0][:2], "big")) for row in ROWS]
)
def test_a_command_becomes_an_effect_that_keeps_its_frame(sent: bytes, effect: Effect) -> None:
    one = attempt()
    assert effects_of(one, sent) == [effect]
    assert (one.first_command_index, one.command_index) == (2, 2)


def test_flags_other_than_the_acknowledgement_are_not_kept() -> None:
    odd = bytearray(RUN)
    odd[2:4] = b"\x40\x01"
    assert effects_of(attempt(), bytes(odd)) == [RunStarted(RUN, CompletionId(1))]


def test_what_nobody_waits_for_is_held_and_what_somebody_does_is_flushed() -> None:
    waits = {
        MessageType.GET_LAZY_STATE_COMMAND,
        MessageType.GET_LAZY_STATE_KEYS_COMMAND,
        MessageType.SLEEP_COMMAND,
    }
    for sent, _ in ROWS:
        one = attempt()
        one.receive(sent)
        one.advance(10)
        assert one.wants_flush == (int.from_bytes(sent[:2], "big") in waits), sent


def test_a_run_is_proposed_and_then_recorded() -> None:
    one = attempt()
    one.receive(RUN)
    one.advance(10)
    assert not one.wants_flush
    started, done = effects_of(one, PROPOSAL)
    assert started == RunStarted(RUN, CompletionId(1))
    assert type(done) is RunCompleted and done.ack_wanted
    assert b.notification(done.frame).value.content == b"1"
    assert one.command_index == 2, "a proposal is no command"


def test_a_result_is_taken_once_and_only_for_a_run_that_began() -> None:
    assert refusal(attempt(), PROPOSAL).failure.doc_code == "RT0012"
    assert refusal(attempt(), RUN, PROPOSAL, PROPOSAL).failure.doc_code == "RT0012"
    (done,) = effects_of(attempt(open_runs=[1]), PROPOSAL)
    assert type(done) is RunCompleted, "the run began in an earlier attempt, which did not come to its end"


@pytest.mark.parametrize("version", [5, 6])
def test_before_version_7_a_run_is_answered_with_its_completion_whatever_the_flag_says(version: int) -> None:
    _, done = effects_of(attempt(version=version), RUN, PROPOSAL)
    assert type(done) is RunCompleted and not done.ack_wanted


def test_a_runs_failure_is_a_result() -> None:
    proposal = pb.ProposeRunCompletionMessage(
        result_completion_id=1, failure=pb.Failure(code=70_000, message="no", metadata=[pb.FailureMetadata(key="k")])
    )
    _, done = effects_of(attempt(), RUN, frame(MessageType.PROPOSE_RUN_COMPLETION, proposal))
    assert type(done) is RunCompleted
    failure = b.notification(done.frame).failure
    assert (failure.code, failure.message, failure.metadata[0].key) == (500, "no", "k")


def test_the_end_needs_an_output_of_this_attempt_or_an_earlier_one() -> None:
    assert effects_of(attempt(), OUTPUT, END) == [OutputSet(OUTPUT), Ended()]
    one = attempt(has_output=True)
    assert effects_of(one, END) == [Ended()]
    assert one.ended
    error = refusal(attempt(), END)
    assert (error.failure.code, error.failure.doc_code) == (571, "RT0012")
    assert "EndMessage without an OutputCommandMessage" in error.failure.message


def test_after_the_end_nothing_counts() -> None:
    one = attempt()
    assert effects_of(one, OUTPUT, END, RUN, b"\x12garbage" * 5) == [OutputSet(OUTPUT), Ended()]


def test_the_first_effect_of_all_pins_the_deployment() -> None:
    pin = Pinned(DeploymentId("dp_1"), 6)
    suspension = frame(MessageType.SUSPENSION, pb.SuspensionMessage(waiting_signals=[17]))
    for sent in (RUN, PROPOSAL, OUTPUT, suspension):
        one = attempt(pinned=False, version=6, open_runs=[1])
        first, *rest = effects_of(one, sent, RUN)
        assert first == pin and pin not in rest


def test_awaiting_flushes_what_is_held() -> None:
    awaiting = frame(MessageType.AWAITING_ON, pb.AwaitingOnMessage(awaiting_on=pb.Future(waiting_completions=[1])))
    one = attempt()
    one.receive(awaiting)
    one.advance(10)
    assert not one.wants_flush, "there is nothing to flush"
    one.receive(RUN + awaiting)
    one.advance(10)
    assert one.wants_flush
    assert one.take_effects() == (1, [RunStarted(RUN, CompletionId(1))])
    assert not one.wants_flush


def test_taking_effects_counts_their_commands() -> None:
    one = attempt(commands=5)
    one.receive(RUN + PROPOSAL + SLEEP)
    one.advance(10)
    assert one.take_effects()[0] == 5
    one.receive(RUN)
    one.advance(10)
    assert one.take_effects()[0] == 7


def test_empty_commands_count_towards_what_may_be_held() -> None:
    one = attempt()
    many = 2_000
    one.receive(frame(MessageType.CLEAR_ALL_STATE_COMMAND) * many)
    one.advance(many)
    assert one.effects_bytes >= EFFECTS_HELD_BYTES_MAX


# -- suspension ------------------------------------------------------------------------------------
def test_flat_lists_wait_for_any_of_them() -> None:
    message = pb.SuspensionMessage(waiting_completions=[1, 2], waiting_signals=[1], waiting_named_signals=["go"])
    one = attempt(version=6)
    assert effects_of(one, frame(MessageType.SUSPENSION, message)) == [
        Suspended(Future([1, 2], [1], ["go"], [], Combinator.FIRST_COMPLETED))
    ]
    assert one.ended


def test_a_tree_is_kept_as_it_came() -> None:
    inner = pb.Future(waiting_completions=[1, 2], combinator_type=pb.ALL_SUCCEEDED_OR_FIRST_FAILED)
    tree = pb.Future(waiting_signals=[1], nested_futures=[inner], combinator_type=pb.FIRST_COMPLETED)
    (suspended,) = effects_of(attempt(), frame(MessageType.SUSPENSION, pb.SuspensionMessage(awaiting_on=tree)))
    below = Future([1, 2], [], [], [], Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED)
    assert suspended == Suspended(Future([], [1], [], [below], Combinator.FIRST_COMPLETED))


@pytest.mark.parametrize(
    "message",
    [
        pb.SuspensionMessage(),
        pb.SuspensionMessage(awaiting_on=pb.Future()),
        pb.SuspensionMessage(awaiting_on=pb.Future(nested_futures=[pb.Future(), pb.Future()])),
    ],
)
def test_waiting_for_nothing_is_refused(message: pb.SuspensionMessage) -> None:
    error = refusal(attempt(), frame(MessageType.SUSPENSION, message))
    assert error.failure.doc_code == "RT0012" and "waits for nothing" in error.failure.message


def nested(levels: int) -> bytes:
    """An encoded future of so many levels, as deep as one likes."""
    data = pb.Future(waiting_completions=[1]).SerializeToString()
    for _ in range(levels - 1):
        data = b"\x22" + varint(len(data)) + data
    return data


def varint(number: int) -> bytes:
    digits = []
    while number > 0x7F:
        digits.append(number & 0x7F | 0x80)
        number >>= 7
    return bytes([*digits, number])


@pytest.mark.parametrize("levels", [FUTURE_DEPTH_MAX + 1, 150, 3_000])
def test_a_future_too_deep_pauses(levels: int) -> None:
    tree = nested(levels)
    for code, field in ((MessageType.SUSPENSION, b"\x22"), (MessageType.AWAITING_ON, b"\x0a")):
        error = refusal(attempt(), frame(code, field + varint(len(tree)) + tree))
        assert (error.failure.doc_code, error.behavior) == ("RT0025", Behavior.PAUSE)
        assert "more than 90 levels deep" in error.failure.message


def test_the_deepest_future_that_is_taken_can_be_stored() -> None:
    tree = nested(FUTURE_DEPTH_MAX)
    (suspended,) = effects_of(attempt(), frame(MessageType.SUSPENSION, b"\x22" + varint(len(tree)) + tree))
    assert codec.decode(codec.encode(suspended)) == suspended
    assert type(suspended) is Suspended
    assert resolve_future(suspended.awaiting, lambda _: None) == suspended.awaiting


# -- errors -----------------------------------------------------------------------------------------
def error_message(**fields: Any) -> bytes:
    return frame(MessageType.ERROR, pb.ErrorMessage(**fields))


@pytest.mark.parametrize(
    ("code", "kept", "doc_code"), [(500, 500, "RT0007"), (0, 500, "RT0007"), (570, 570, "RT0016"), (571, 571, "RT0012")]
)
def test_an_error_fails_the_attempt_with_its_own_words(code: int, kept: int, doc_code: str) -> None:
    error = refusal(
        attempt(),
        RUN,
        error_message(
            code=code,
            message="boom",
            stacktrace="at line 1",
            related_command_index=1,
            related_command_name="side effect",
            related_command_type=0x0411,
        ),
    )
    failure = error.failure
    assert (failure.code, failure.message, failure.doc_code, failure.stacktrace) == (
        kept,
        "boom",
        doc_code,
        "at line 1",
    )
    assert (failure.command_index, failure.command_name, failure.command_type) == (1, "side effect", 0x0411)
    assert (error.behavior, error.delay_ms, error.counts_since_entry) == (Behavior.RETRY, None, True)


def test_what_came_before_an_error_is_still_proposed() -> None:
    one = attempt()
    with pytest.raises(AttemptError):
        effects_of(one, RUN, error_message(code=500))
    assert one.take_effects() == (1, [RunStarted(RUN, CompletionId(1))])


@pytest.mark.parametrize(("number", "behavior"), [(0, Behavior.RETRY), (1, Behavior.PAUSE), (2, Behavior.KILL)])
def test_an_error_may_say_what_shall_follow(number: int, behavior: Behavior) -> None:
    error = refusal(attempt(), error_message(code=500, behavior=number, next_retry_delay=250))  # type: ignore[arg-type]
    assert (error.behavior, error.delay_ms) == (behavior, 250)


def test_an_errors_text_is_cut() -> None:
    error = refusal(attempt(), error_message(code=500, message="m" * 100_000, stacktrace="s" * 100_000))
    assert len(error.failure.message) == len(error.failure.stacktrace) == FAILURE_TEXT_MAX


# -- what it may not send -----------------------------------------------------------------------------
NEVER_FROM_A_DEPLOYMENT = [
    *(0x0000, 0x0004, 0x0007, 0x0008, 0x03FF),
    *(0x0400, 0x040F, 0x0415, 0x0420, 0x7FFF),
    *(0x8002, 0x800C, 0x8011, 0xFBFF, 0xFC00, 0xFFFF),
]


@pytest.mark.parametrize("code", NEVER_FROM_A_DEPLOYMENT, ids=[f"0x{code:04X}" for code in NEVER_FROM_A_DEPLOYMENT])
def test_a_message_that_a_deployment_may_not_send_is_refused_by_name(code: int) -> None:
    error = refusal(attempt(), RUN, frame(code))
    assert (error.failure.code, error.failure.doc_code) == (571, "RT0012")
    assert message_name(code) in error.failure.message
    assert error.failure.message.startswith("Counter/add, command 2: ")


@pytest.mark.parametrize(
    "code",
    [
        *(MessageType.OUTPUT_COMMAND, MessageType.RUN_COMMAND, MessageType.SLEEP_COMMAND, MessageType.CALL_COMMAND),
        *(MessageType.ONE_WAY_CALL_COMMAND, MessageType.SET_STATE_COMMAND, MessageType.GET_EAGER_STATE_COMMAND),
        *(MessageType.GET_LAZY_STATE_COMMAND, MessageType.GET_LAZY_STATE_KEYS_COMMAND, MessageType.CLEAR_STATE_COMMAND),
        *(MessageType.CLEAR_ALL_STATE_COMMAND, MessageType.GET_EAGER_STATE_KEYS_COMMAND, MessageType.SUSPENSION),
        *(MessageType.SEND_SIGNAL_COMMAND, MessageType.COMPLETE_AWAKEABLE_COMMAND, MessageType.AWAITING_ON),
        *(MessageType.PROPOSE_RUN_COMPLETION, MessageType.ERROR),
        *(MessageType.ATTACH_INVOCATION_COMMAND, MessageType.GET_INVOCATION_OUTPUT_COMMAND),
    ],
)
def test_garbage_in_a_message_is_refused_by_its_name(code: MessageType) -> None:
    error = refusal(attempt(), frame(code, b"\xff\xff\xff"))
    assert error.failure.doc_code == "RT0012"
    assert "does not decode" in error.failure.message


@pytest.mark.parametrize(
    ("sent", "words"),
    [
        (frame(MessageType.OUTPUT_COMMAND), "OutputCommandMessage has neither a value nor a failure"),
        (frame(MessageType.PROPOSE_RUN_COMPLETION), "ProposeRunCompletionMessage has neither a value nor a failure"),
        (frame(MessageType.AWAITING_ON), "AwaitingOnMessage waits for nothing"),
        (
            frame(
                MessageType.SEND_SIGNAL_COMMAND,
                pb.SendSignalCommandMessage(target_invocation_id=ids.encode_invocation_id(ID)),
            ),
            "names no signal",
        ),
        (frame(MessageType.SET_STATE_COMMAND, pb.SetStateCommandMessage(key=b"\xff")), "the key is not UTF-8"),
    ],
)
def test_what_is_missing_is_said(sent: bytes, words: str) -> None:
    error = refusal(attempt(), sent)
    assert (error.failure.code, error.failure.doc_code) == (571, "RT0012")
    assert words in error.failure.message


def test_a_refused_command_and_what_follows_it_are_discarded_and_what_came_before_is_kept() -> None:
    one = attempt()
    with pytest.raises(AttemptError):
        effects_of(one, RUN, frame(MessageType.OUTPUT_COMMAND), SLEEP)
    assert one.take_effects() == (1, [RunStarted(RUN, CompletionId(1))])


def test_a_message_that_announces_too_much_is_refused_before_it_came() -> None:
    header = MESSAGE_SIZE_MAX.to_bytes(4, "big")
    one = attempt()
    error = refusal(one, RUN, b"\x04\x01\x00\x00" + header)
    assert error.failure.doc_code == "RT0003"
    assert "hit message size limit: 33816576 >= 33816576" in error.failure.message
    assert one.take_effects()[1] == [RunStarted(RUN, CompletionId(1))]


def test_a_stream_that_ends_early_says_where() -> None:
    one = attempt()
    effects_of(one, RUN)
    error = one.closed_early()
    assert (error.failure.code, error.failure.doc_code) == (500, "RT0007")
    assert "Counter/add, command 2" in error.failure.message and "in the middle" not in error.failure.message
    one.receive(SLEEP[:11])
    one.advance(10)
    assert "in the middle of a message (11 bytes of it came)" in one.closed_early().failure.message


@pytest.mark.parametrize(
    ("kind", "reads", "writes"),
    [
        (HandlerKind.STATELESS, False, False),
        (HandlerKind.SHARED, True, False),
        (HandlerKind.EXCLUSIVE, True, True),
        (HandlerKind.WORKFLOW, True, True),
    ],
)
def test_state_belongs_to_handlers_with_a_key_and_is_written_by_its_holder(
    kind: HandlerKind, reads: bool, writes: bool
) -> None:
    for sent, effect in ROWS:
        if type(effect) not in (Recorded, StateRead, StateSet):
            continue
        allowed = writes if type(effect) is StateSet else reads
        one = attempt(kind)
        if allowed:
            assert effects_of(one, sent) == [effect]
        else:
            assert refusal(one, sent).failure.doc_code == "RT0017"


# -- calls and signals --------------------------------------------------------------------------------
def call(service: str, handler: str, **fields: Any) -> bytes:
    message = pb.CallCommandMessage(service_name=service, handler_name=handler, **fields)
    return frame(MessageType.CALL_COMMAND, message)


def send(service: str, handler: str, **fields: Any) -> bytes:
    message = pb.OneWayCallCommandMessage(service_name=service, handler_name=handler, **fields)
    return frame(MessageType.ONE_WAY_CALL_COMMAND, message)


@pytest.mark.parametrize("make", [call, send])
def test_a_call_is_resolved_when_it_comes(make: Any) -> None:
    one = attempt(commands=3)
    sent = make("Counter", "add", key="alice")
    (called,) = effects_of(one, sent)
    callee = callee_id(ID, Incarnation(4), 3, b.thing(), HandlerKind.EXCLUSIVE, None)
    assert called == Called(sent, callee, ServiceKind.VIRTUAL_OBJECT, HandlerKind.EXCLUSIVE, 3, 4)


@pytest.mark.parametrize("make", [call, send])
@pytest.mark.parametrize(
    ("fields", "code", "doc_code", "words"),
    [
        (("Nope", "greet", {}), 404, "RT0018", "no such service or handler is registered"),
        (("Greeter", "nope", {}), 404, "RT0018", "Greeter/nope"),
        (("Greeter", "greet", {"key": "k"}), 500, "RT0017", "a plain service has no key"),
        (("Greeter", "greet", {"idempotency_key": ""}), 500, "RT0017", "the idempotency key is empty"),
        (("Greeter", "greet", {"scope": "s"}), 500, "RT0024", "flow control"),
        (("Greeter", "greet", {"limit_key": "l"}), 500, "RT0024", "flow control"),
    ],
)
def test_a_call_that_cannot_be_made_fails_the_caller(
    make: Any, fields: tuple[str, str, dict[str, Any]], code: int, doc_code: str, words: str
) -> None:
    service, handler, more = fields
    error = refusal(attempt(), make(service, handler, **more))
    assert (error.failure.code, error.failure.doc_code, error.behavior) == (code, doc_code, Behavior.RETRY)
    assert words in error.failure.message
    assert error.failure.command_type in (0x040D, 0x040E)


def test_the_ids_of_callees_are_those_of_the_protocol_where_it_says_so() -> None:
    by_key = callee_id(ID, Incarnation(1), 1, b.service("callee", "TsSvc"), HandlerKind.STATELESS, "kk")
    assert ids.encode_invocation_id(by_key) == "inv_11L9iNs3WHNC52XgZumqO6IBnQT4UD2hC5"
    workflow = callee_id(ID, Incarnation(1), 1, b.flow(), HandlerKind.WORKFLOW, "ignored")
    assert ids.encode_invocation_id(workflow) == "inv_12kpUQONmeFb40HPiUbKSfrH18FxSmvYzH"
    unkeyed = [callee_id(ID, Incarnation(1), n, b.service(), HandlerKind.STATELESS, None) for n in range(50)]
    assert len(dict.fromkeys(unkeyed)) == 50
    assert len(dict.fromkeys(each[:8] for each in unkeyed)) > 10, "spread over the buckets of the service"


def test_signals_are_addressed() -> None:
    text = ids.encode_invocation_id(ID)
    sent = frame(MessageType.SEND_SIGNAL_COMMAND, pb.SendSignalCommandMessage(target_invocation_id=text, idx=1))
    assert effects_of(attempt(), sent) == [SignalSent(sent, ID)]
    awakeable = pb.CompleteAwakeableCommandMessage(awakeable_id=ids.encode_awakeable_id(ID, 17), value=value(b""))
    sent = frame(MessageType.COMPLETE_AWAKEABLE_COMMAND, awakeable)
    assert effects_of(attempt(), sent) == [SignalSent(sent, ID)]


@pytest.mark.parametrize(
    "sent",
    [
        frame(MessageType.SEND_SIGNAL_COMMAND, pb.SendSignalCommandMessage(target_invocation_id="inv_1x", idx=1)),
        frame(MessageType.COMPLETE_AWAKEABLE_COMMAND, pb.CompleteAwakeableCommandMessage(awakeable_id="sign_1x")),
        frame(
            MessageType.COMPLETE_AWAKEABLE_COMMAND,
            pb.CompleteAwakeableCommandMessage(awakeable_id=ids.encode_awakeable_id(ID, 1)),
        ),
    ],
)
def test_an_address_that_is_none_fails_the_attempt(sent: bytes) -> None:
    assert refusal(attempt(), sent).failure.doc_code == "RT0012"


# -- notifications ---------------------------------------------------------------------------------------
def test_what_was_in_the_replay_is_not_forwarded_again() -> None:
    one = attempt(entries=3)
    assert one.forward(2, b"in the replay", None) is None
    assert one.forward(3, b"new", None) == b"new"
    assert one.forward(3, b"new", None) is None
    assert one.forward(5, b"later", None) == b"later"


def test_an_acknowledgement_stands_in_for_the_result_that_the_peer_keeps_itself() -> None:
    data = attempt().forward(1, b"frame", CompletionId(7))
    assert data == frame(MessageType.PROPOSE_RUN_COMPLETION_ACK, pb.ProposeRunCompletionAckMessage(completion_id=7))


def test_a_command_that_asks_for_it_is_acknowledged_by_its_index() -> None:
    one = attempt()
    sent = [encode_frame(MessageType.RUN_COMMAND, RUN[HEADER_BYTES:], True), SLEEP]
    first, *rest = effects_of(one, *sent)
    assert (first, rest[0]) == (RunStarted(RUN, CompletionId(1)), AckWanted())
    assert AckWanted() not in rest[1:]
    assert one.acknowledge(1) == frame(MessageType.COMMAND_ACK, pb.CommandAckMessage(command_index=1))


def test_what_was_in_the_replay_is_not_acknowledged() -> None:
    assert attempt().acknowledge(0) is None


# -- bytes, however they come -----------------------------------------------------------------------------
WHOLE = b"".join([RUN, SLEEP, PROPOSAL, OUTPUT, END])


@settings(max_examples=60)
@given(st.lists(st.integers(1, len(WHOLE)), max_size=20), st.integers(1, 5))
def test_any_chunking_and_any_pace_give_the_same_effects(cuts: list[int], pace: int) -> None:
    one, expected = attempt(pinned=False), effects_of(attempt(pinned=False), WHOLE)
    found: list[Effect] = []
    places = [0, *sorted(cuts), len(WHOLE)]
    for first, last in itertools.pairwise(places):
        one.receive(WHOLE[first:last])
        while one.advance(pace):
            pass
        found += one.take_effects()[1]
    assert found == expected
    assert one.ended


@settings(max_examples=300)
@given(st.binary(max_size=60))
def test_garbage_never_raises_anything_else(data: bytes) -> None:
    one = attempt()
    one.receive(data)
    failure = outcome(one)
    assert failure is None or failure.message


@settings(max_examples=300)
@given(st.sampled_from(sorted(int(code) for code in MessageType)), st.binary(max_size=30), st.booleans())
def test_garbage_in_frames_never_raises_anything_else(code: int, payload: bytes, ack: bool) -> None:
    one = attempt(HandlerKind.WORKFLOW)
    one.receive(frame(code, payload, ack))
    failure = outcome(one)
    index, effects = one.take_effects()
    assert index == 1
    if failure is not None:
        assert failure.message and not effects
    else:
        command = AttemptEffects(InvocationId(ID), Incarnation(4), 1, index, effects)
        assert codec.decode(codec.encode(command)) == command

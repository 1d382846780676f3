"""The byte strings worked out in the protocol's description: each is exactly this message, both ways."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from perdure.protocol import messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType as T
from perdure.protocol.framing import encode_frame, iter_frames
from perdure.protocol.ids import decode_invocation_id

ID = "inv_1foAirY4KKzi5ipvSC9KGhcJm5fwsQLRU6"
CHILD = "inv_1jR7TgV9WLo04jESB9vxtIsMy9ZUhf6Ux3"
AWAKEABLE = b'"sign_1vzWaW9-sTCkrN3AIrbM_AIiMkCHEKS2LAAAAEQ"'
RACE = pb.FIRST_COMPLETED
VOID = pb.Void()


def text(content: str | bytes) -> str:
    """The hex of some text, to be placed among hex."""
    return (content.encode() if isinstance(content, str) else content).hex()


def value(content: bytes) -> pb.Value:
    return pb.Value(content=content)


def failure(code: int, message: str) -> pb.Failure:
    return pb.Failure(code=code, message=message)


def waits(completions: list[int], signals: list[int], **more: object) -> pb.Future:
    return pb.Future(waiting_completions=completions, waiting_signals=signals, combinator_type=RACE, **more)  # type: ignore[arg-type]


HEADERS = [
    ("x-restate-ingress-path", "/Counter/k1/add"),
    ("user-agent", "curl/7.88.1"),
    ("accept", "*/*"),
    ("content-type", "application/json"),
    ("content-length", "1"),
]
INPUT = pb.InputCommandMessage(headers=[pb.Header(key=k, value=v) for k, v in HEADERS], value=value(b"5"))

# What it is, the type, whether an acknowledgement is asked for, the message, its frame in hex.
EXAMPLES: list[tuple[str, T, bool, Message, str]] = [
    # 8.1 One complete attempt in V7
    (
        "start",
        T.START,
        False,
        pb.StartMessage(
            id=bytes.fromhex("548ae3cba54055b3 32b29b1a330fddb90d0b8dc8749c0aae"),
            debug_id=ID,
            known_entries=1,
            key="k1",
            duration_since_last_stored_entry=2,
            random_seed=6139382026615683929,
        ),
        f"0000 0000 00000054 0a18 548ae3cba54055b3 32b29b1a330fddb90d0b8dc8749c0aae 1226 {text(ID)}"
        " 1801 32026b31 4002 48d9f6e1a6ceeddd9955",
    ),
    (
        "input",
        T.INPUT_COMMAND,
        False,
        INPUT,
        f"0400 0000 00000091 0a29 0a16{text(HEADERS[0][0])} 120f{text(HEADERS[0][1])}"
        f" 0a19 0a0a{text('user-agent')} 120b{text('curl/7.88.1')} 0a0d 0a06{text('accept')} 1203{text('*/*')}"
        f" 0a20 0a0c{text('content-type')} 1210{text('application/json')}"
        f" 0a13 0a0e{text('content-length')} 1201{text('1')} 72030a0135",
    ),
    (
        "eager state that is missing",
        T.GET_EAGER_STATE_COMMAND,
        False,
        pb.GetEagerStateCommandMessage(key=b"count", void=VOID),
        "0407 0000 00000009 0a05636f756e74 6a00",
    ),
    (
        "run",
        T.RUN_COMMAND,
        False,
        pb.RunCommandMessage(result_completion_id=2, name="roll"),
        "0411 0000 00000008 5802 6204726f6c6c",
    ),
    (
        "run proposal that asks for an ack",
        T.PROPOSE_RUN_COMPLETION,
        True,
        pb.ProposeRunCompletionMessage(result_completion_id=2, value=b"7"),
        "0005 8000 00000005 0802 720137",
    ),
    (
        "ack of a run proposal",
        T.PROPOSE_RUN_COMPLETION_ACK,
        False,
        pb.ProposeRunCompletionAckMessage(completion_id=2),
        "0007 0000 00000002 0802",
    ),
    (
        "awaiting a run, or cancellation",
        T.AWAITING_ON,
        False,
        pb.AwaitingOnMessage(awaiting_on=waits([2], [1])),
        "0006 0000 0000000a 0a08 0a0102 120101 2801",
    ),
    (
        "set state",
        T.SET_STATE_COMMAND,
        False,
        pb.SetStateCommandMessage(key=b"count", value=value(b"12")),
        "0403 0000 0000000d 0a05636f756e74 1a04 0a023132",
    ),
    (
        "sleep",
        T.SLEEP_COMMAND,
        False,
        pb.SleepCommandMessage(wake_up_time=1795486634210, result_completion_id=3, name="nap"),
        "040c 0000 0000000e 08e2a1dfdaa034 5803 62036e6170",
    ),
    (
        "sleep is over",
        T.SLEEP_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=3, void=VOID),
        "800c 0000 00000004 0803 2200",
    ),
    (
        "call",
        T.CALL_COMMAND,
        False,
        pb.CallCommandMessage(
            service_name="Greeter",
            handler_name="greet",
            parameter=b'"bob"',
            invocation_id_notification_idx=4,
            result_completion_id=5,
        ),
        f"040d 0000 0000001b 0a07{text('Greeter')} 1205{text('greet')} 1a0522626f6222 5004 5805",
    ),
    (
        "invocation id of a call",
        T.CALL_INVOCATION_ID_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=4, invocation_id=CHILD),
        f"800e 0000 0000002b 0804 820126{text(CHILD)}",
    ),
    (
        "result of a call",
        T.CALL_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=5, value=value(b'"hi bob"')),
        "800d 0000 0000000e 0805 2a0a 0a08226869 20626f6222",
    ),
    (
        "delayed send",
        T.ONE_WAY_CALL_COMMAND,
        False,
        pb.OneWayCallCommandMessage(
            service_name="Greeter",
            handler_name="greet",
            parameter=b'"eve"',
            invoke_time=1795486634242,
            invocation_id_notification_idx=6,
        ),
        f"040e 0000 00000020 0a07{text('Greeter')} 1205{text('greet')} 1a05{text(chr(34) + 'eve' + chr(34))}"
        " 2082a2dfdaa034 5006",
    ),
    (
        "output",
        T.OUTPUT_COMMAND,
        False,
        pb.OutputCommandMessage(value=value(b"12")),
        "0401 0000 00000006 7204 0a023132",
    ),
    ("end", T.END, False, pb.EndMessage(), "0003 0000 00000000"),
    # 8.2 The same in V6
    (
        "eager state with a value",
        T.GET_EAGER_STATE_COMMAND,
        False,
        pb.GetEagerStateCommandMessage(key=b"count", value=value(b"12")),
        "0407 0000 0000000d 0a05636f756e74 7204 0a023132",
    ),
    (
        "run proposal without ack",
        T.PROPOSE_RUN_COMPLETION,
        False,
        pb.ProposeRunCompletionMessage(result_completion_id=2, value=b"7"),
        "0005 0000 00000005 0802 720137",
    ),
    (
        "run completion",
        T.RUN_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=2, value=value(b"7")),
        "8011 0000 00000007 0802 2a03 0a0137",
    ),
    # 8.3 Suspension and resumption
    (
        "run of an awakeable's publication",
        T.RUN_COMMAND,
        False,
        pb.RunCommandMessage(result_completion_id=1, name="pub"),
        "0411 0000 00000007 5801 6203707562",
    ),
    (
        "proposal of an awakeable id",
        T.PROPOSE_RUN_COMPLETION,
        True,
        pb.ProposeRunCompletionMessage(result_completion_id=1, value=AWAKEABLE),
        f"0005 8000 00000032 0801 722e{text(AWAKEABLE)}",
    ),
    (
        "suspension on signals",
        T.SUSPENSION,
        False,
        pb.SuspensionMessage(awaiting_on=waits([], [17, 1])),
        "0001 0000 00000008 2206 12021101 2801",
    ),
    (
        "run completion in place of the ack",
        T.RUN_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=1, value=value(AWAKEABLE)),
        f"8011 0000 00000034 0801 2a30 0a2e{text(AWAKEABLE)}",
    ),
    (
        "signal of a resolved awakeable",
        T.SIGNAL_NOTIFICATION,
        False,
        pb.Notification(signal_id=17, value=value(b'"done!"')),
        "fbff 0000 0000000d 1011 2a09 0a0722646f6e652122",
    ),
    (
        "output of it",
        T.OUTPUT_COMMAND,
        False,
        pb.OutputCommandMessage(value=value(b'"done!"')),
        "0401 0000 0000000b 7209 0a0722646f6e652122",
    ),
    (
        "suspension of V6 on signals",
        T.SUSPENSION,
        False,
        pb.SuspensionMessage(waiting_signals=[17, 1]),
        "0001 0000 00000004 12021101",
    ),
    (
        "suspension of V6 on everything",
        T.SUSPENSION,
        False,
        pb.SuspensionMessage(waiting_completions=[1], waiting_signals=[1, 17], waiting_named_signals=["nm"]),
        "0001 0000 0000000b 0a0101 12020111 1a026e6d",
    ),
    # 8.4 Nested combinators
    (
        "all of a run and a race",
        T.AWAITING_ON,
        False,
        pb.AwaitingOnMessage(
            awaiting_on=waits(
                [],
                [1],
                nested_futures=[
                    pb.Future(
                        waiting_completions=[3],
                        nested_futures=[waits([2], [17])],
                        combinator_type=pb.ALL_SUCCEEDED_OR_FIRST_FAILED,
                    )
                ],
            )
        ),
        "0006 0000 00000018 0a16 120101 220f 0a0103 2208 0a0102 120111 2801 2804 2801",
    ),
    # 8.5 Small ones
    (
        "cancel",
        T.SIGNAL_NOTIFICATION,
        False,
        pb.Notification(signal_id=1, void=VOID),
        "fbff 0000 00000004 1001 2200",
    ),
    (
        "output of a cancelled handler",
        T.OUTPUT_COMMAND,
        False,
        pb.OutputCommandMessage(failure=failure(409, "cancelled")),
        f"0401 0000 00000010 7a0e 089903 1209{text('cancelled')}",
    ),
    (
        "terminal failure",
        T.OUTPUT_COMMAND,
        False,
        pb.OutputCommandMessage(failure=failure(422, "no way")),
        f"0401 0000 0000000d 7a0b 08a603 1206{text('no way')}",
    ),
    (
        "error 500",
        T.ERROR,
        False,
        pb.ErrorMessage(code=500, message="oh", stacktrace="at"),
        "0002 0000 0000000b 08f403 12026f68 1a026174",
    ),
    (
        "journal mismatch",
        T.ERROR,
        False,
        pb.ErrorMessage(code=570, message="no"),
        "0002 0000 00000007 08ba04 12026e6f",
    ),
    (
        "tail of a third attempt's start",
        T.START,
        False,
        pb.StartMessage(retry_count_since_last_stored_entry=2, duration_since_last_stored_entry=1838),
        "0000 0000 00000005 3802 40ae0e",
    ),
    (
        "promise that is not completed",
        T.PEEK_PROMISE_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=1, void=VOID),
        "800a 0000 00000004 0801 2200",
    ),
    (
        "promise completed before",
        T.COMPLETE_PROMISE_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=2, failure=failure(409, "promise was already completed")),
        f"800b 0000 00000026 0802 3222 089903 121d{text('promise was already completed')}",
    ),
    (
        "signal by name",
        T.SIGNAL_NOTIFICATION,
        False,
        pb.Notification(signal_name="nm", value=value(b"1")),
        "fbff 0000 00000009 1a026e6d 2a030a0131",
    ),
    (
        "state keys read eagerly",
        T.GET_EAGER_STATE_KEYS_COMMAND,
        False,
        pb.GetEagerStateKeysCommandMessage(value=pb.StateKeys(keys=[b"count"])),
        "0408 0000 00000009 7207 0a05636f756e74",
    ),
    (
        "clear state",
        T.CLEAR_STATE_COMMAND,
        False,
        pb.ClearStateCommandMessage(key=b"count"),
        "0404 0000 00000007 0a05636f756e74",
    ),
    ("clear all state", T.CLEAR_ALL_STATE_COMMAND, False, pb.ClearAllStateCommandMessage(), "0405 0000 00000000"),
    (
        "ack of a command",
        T.COMMAND_ACK,
        False,
        pb.CommandAckMessage(command_index=1),
        "0004 0000 00000002 0801",
    ),
    (
        "lazy get",
        T.GET_LAZY_STATE_COMMAND,
        False,
        pb.GetLazyStateCommandMessage(key=b"k", result_completion_id=1),
        "0402 0000 00000005 0a016b 5801",
    ),
    (
        "lazy get, missing",
        T.GET_LAZY_STATE_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=1, void=VOID),
        "8002 0000 00000004 0801 2200",
    ),
    (
        "lazy get, a value",
        T.GET_LAZY_STATE_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=3, value=value(b"1")),
        "8002 0000 00000007 0803 2a030a0131",
    ),
    (
        "lazy get, an empty value",
        T.GET_LAZY_STATE_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=4, value=value(b"")),
        "8002 0000 00000004 0804 2a00",
    ),
    (
        "lazy keys",
        T.GET_LAZY_STATE_KEYS_COMMAND,
        False,
        pb.GetLazyStateKeysCommandMessage(result_completion_id=2),
        "0406 0000 00000002 5802",
    ),
    (
        "lazy keys, none",
        T.GET_LAZY_STATE_KEYS_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=2, state_keys=pb.StateKeys()),
        "8006 0000 00000005 0802 8a0100",
    ),
    (
        "lazy keys, two",
        T.GET_LAZY_STATE_KEYS_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=5, state_keys=pb.StateKeys(keys=[b"e", b"k"])),
        "8006 0000 0000000b 0805 8a0106 0a0165 0a016b",
    ),
    (
        "output not ready",
        T.GET_INVOCATION_OUTPUT_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=4, void=VOID),
        "8013 0000 00000004 0804 2200",
    ),
    (
        "output of an unknown invocation",
        T.GET_INVOCATION_OUTPUT_COMPLETION_NOTIFICATION,
        False,
        pb.Notification(completion_id=5, failure=failure(404, "not found")),
        f"8013 0000 00000012 0805 320e 089403 1209{text('not found')}",
    ),
]


@pytest.mark.parametrize(
    ("type_", "ack", "message", "written"), [e[1:] for e in EXAMPLES], ids=[e[0] for e in EXAMPLES]
)
def test_the_bytes_are_the_message(type_: T, ack: bool, message: Message, written: str) -> None:
    frame = bytes.fromhex(written)
    [(code, requested_ack, payload)] = iter_frames(frame)

    assert (code, requested_ack) == (type_, ack)
    assert messages.decode_message(code, payload) == message
    assert encode_frame(type_, message.SerializeToString(), ack) == frame


def frame_of(name: str) -> bytes:
    return next(bytes.fromhex(example[4]) for example in EXAMPLES if example[0] == name)


def test_the_builders_make_the_bytes_of_the_examples() -> None:
    assert messages.start_frame(
        decode_invocation_id(ID),
        ID,
        1,
        [],
        partial_state=False,
        key="k1",
        retry_count=0,
        duration_since_last_entry_ms=2,
        random_seed=6139382026615683929,
    ) == frame_of("start")
    assert messages.input_frame(HEADERS, b"5") == frame_of("input")
    assert messages.run_ack_frame(2) == frame_of("ack of a run proposal")
    assert messages.command_ack_frame(1) == frame_of("ack of a command")
    assert messages.void_notification(T.SLEEP_COMPLETION_NOTIFICATION, 3) == frame_of("sleep is over")
    assert messages.invocation_id_notification(4, CHILD) == frame_of("invocation id of a call")
    assert messages.value_notification(T.CALL_COMPLETION_NOTIFICATION, 5, b'"hi bob"') == frame_of("result of a call")
    assert messages.value_notification(T.GET_LAZY_STATE_COMPLETION_NOTIFICATION, 4, b"") == frame_of(
        "lazy get, an empty value"
    )
    assert messages.failure_notification(
        T.COMPLETE_PROMISE_COMPLETION_NOTIFICATION, 2, 409, "promise was already completed"
    ) == frame_of("promise completed before")
    assert messages.state_keys_notification(2, []) == frame_of("lazy keys, none")
    assert messages.state_keys_notification(5, [b"e", b"k"]) == frame_of("lazy keys, two")
    assert messages.void_signal(messages.SIGNAL_CANCEL) == frame_of("cancel")
    assert messages.value_signal(17, b'"done!"') == frame_of("signal of a resolved awakeable")
    assert messages.value_signal("nm", b"1") == frame_of("signal by name")
    proposal = frame_of("run proposal without ack")[8:]
    assert messages.proposal_to_run_completion(proposal)[1] == frame_of("run completion")


def test_numbers_in_lists_are_packed_when_written_and_read_either_way() -> None:
    unpacked = pb.SuspensionMessage.FromString(bytes.fromhex("1011 1001"))
    assert unpacked == pb.SuspensionMessage(waiting_signals=[17, 1])
    assert unpacked.SerializeToString() == bytes.fromhex("12021101")

"""Deployments that break the protocol, stop talking or talk too much: from outside, over real HTTP/2.

Each test lets a deployment misbehave in one way, reads at the admin API what the server has to say about it, lets
the deployment behave, and gets the result.  At the end nothing is left: no attempt, no byte on its way.
"""

from __future__ import annotations

import asyncio
import datetime
import email.utils
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from e2e import fake_endpoint
from e2e.fake_endpoint import Exchange, FakeEndpoint, Script, end, error, frame, of, output, set_state
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import FRAME_BYTES_MAX, MessageType
from support.processes import Server, request

WAIT_S = 20.0
POLL_S = 0.02
# Timeouts of the handler `quick`, told by the manifest.
INACTIVITY_MS = 300
ABORT_MS = 400
MIB = 1 << 20

SERVICES: list[dict[str, Any]] = [
    {
        "name": "Bad",
        "ty": "SERVICE",
        "handlers": [
            {"name": "run"},
            {"name": "quick", "inactivityTimeout": INACTIVITY_MS, "abortTimeout": ABORT_MS},
        ],
    },
    {"name": "BadObject", "ty": "VIRTUAL_OBJECT", "handlers": [{"name": "run", "ty": "EXCLUSIVE"}]},
    {"name": "Echo", "ty": "SERVICE", "handlers": [{"name": "run"}]},
    {"name": "Shared", "ty": "VIRTUAL_OBJECT", "handlers": [{"name": "run", "ty": "SHARED"}]},
]


@pytest.fixture(scope="module")
def endpoint() -> Iterator[FakeEndpoint]:
    with fake_endpoint.serving(SERVICES) as endpoint:
        yield endpoint


@pytest.fixture(scope="module")
def server(endpoint: FakeEndpoint, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    settings = {
        "num_partitions": "2",
        "retry_initial_interval": "50ms",
        "retry_max_interval": "200ms",
        "retry_max_attempts": "unlimited",
    }
    server = Server("perdure", tmp_path_factory.mktemp("server"), settings)
    server.start()
    try:
        server.register(endpoint.uri)
        yield server
        assert server.running(), server.log_tail()
        assert "Traceback" not in server.log.read_text(), server.log_tail(80)
    finally:
        server.kill()


@pytest.fixture(autouse=True)
def nothing_is_left(server: Server, endpoint: FakeEndpoint) -> Iterator[None]:
    """After every test: the server lives, holds no slot and no byte; the scripts made no mistake."""
    endpoint.behave()
    yield
    endpoint.behave()
    eventually(lambda: gauge(server, "attempts_running") == 0)
    eventually(lambda: gauge(server, "effect_bytes_in_flight") == 0)
    assert not endpoint.errors, endpoint.errors


# -- what the tests do ------------------------------------------------------------------------------------------


def eventually(condition: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
    """The first true answer."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"still {answer!r} after {timeout_s:.0f} s"
        time.sleep(POLL_S)
    return answer


def gauge(server: Server, name: str) -> int:
    status, body = request("GET", f"{server.node_url}/metrics")
    assert status == 200
    found = re.search(rf"^perdure_{name} (\d+)$", body.decode(), re.MULTILINE)
    assert found is not None, f"{name} is not among the metrics"
    return int(found[1])


def send(server: Server, target: str = "Bad/run", body: Any = None) -> str:
    status, answer = request("POST", f"{server.ingress_url}/{target}/send", body)
    assert status == 202, answer
    invocation_id: str = json.loads(answer)["invocationId"]
    return invocation_id


def invocation(server: Server, invocation_id: str) -> dict[str, Any]:
    status, answer = request("GET", f"{server.admin_url}/invocations/{invocation_id}")
    assert status == 200, answer
    row: dict[str, Any] = json.loads(answer)["invocation"]
    return row


def failure(server: Server, invocation_id: str) -> dict[str, Any]:
    """The row once it tells of a failure."""

    def failed() -> dict[str, Any] | None:
        row = invocation(server, invocation_id)
        return row if "last_failure" in row else None

    row: dict[str, Any] = eventually(failed)
    return row


def result(server: Server, invocation_id: str) -> bytes:
    status, answer = request("GET", f"{server.ingress_url}/restate/invocation/{invocation_id}/attach")
    assert status == 200, answer
    return answer


def saying(*frames: bytes) -> Script:
    """Answers every attempt with these bytes."""

    async def script(exchange: Exchange) -> None:
        await exchange.answer(b"".join(frames))

    return script


def ending_after(*frames: bytes) -> Script:
    """Says this and ends the response by itself, without a word that the protocol asks for."""

    async def script(exchange: Exchange) -> None:
        exchange.respond()
        await exchange.write(b"".join(frames))
        exchange.end()

    return script


def status(code: int, **headers: str) -> Script:
    async def script(exchange: Exchange) -> None:
        exchange.respond(code, **headers)
        exchange.end()

    return script


@dataclass
class Bad:
    """One way to misbehave, and what is said about it."""

    script: Script
    doc_code: str
    says: str
    target: str = "Bad/run"
    names: str = ""  # what the message begins with; by default service and handler


# -- scripts ------------------------------------------------------------------------------------------------------


async def other_content_type(exchange: Exchange) -> None:
    exchange.respond(content_type="application/json")
    await exchange.write(b'{"hello": "world"}')
    exchange.end()


async def resets_at_once(exchange: Exchange) -> None:
    await exchange.replay()
    exchange.reset()


async def resets_in_the_middle(exchange: Exchange) -> None:
    exchange.respond()
    await exchange.write(output(b"half")[:-2])
    exchange.reset()


async def answers_before_it_reads(exchange: Exchange) -> None:
    """An error, complete, as soon as the headers are there."""
    exchange.respond()
    await exchange.write(error(500, "did not even look"))
    exchange.end()


async def hangs_up(exchange: Exchange) -> None:
    await exchange.replay()
    exchange.hang_up()


async def goes_away_knowing(exchange: Exchange) -> None:
    """GOAWAY that counts this stream among the taken ones, and then the connection ends."""
    exchange.respond()
    await exchange.write(set_state(b"a", b"1")[:5])
    exchange.go_away(knows_this=True)
    exchange.hang_up()


async def goes_away_without(exchange: Exchange) -> None:
    await exchange.replay()
    exchange.go_away(knows_this=False)
    exchange.hang_up()


async def speaks_no_http(exchange: Exchange) -> None:
    await exchange.replay()
    exchange.raw(b"\xffThis is not HTTP/2 at all, and much longer than a frame's header.")


async def headers_that_do_not_decode(exchange: Exchange) -> None:
    await exchange.replay()
    stream_id = exchange._stream_id.to_bytes(4, "big")
    exchange.raw(b"\0\0\x04\x01\x04" + stream_id + b"\xff\xff\xff\xff")


async def odd_retry_after(exchange: Exchange) -> None:
    """What looks like a number to some functions and is none."""
    text = "\u00b2".encode("latin-1")
    exchange._connection.h2.send_headers(
        exchange._stream_id, [(b":status", b"503"), (b"retry-after", text)], end_stream=True
    )
    exchange._connection.flush()


VOID = frame(
    MessageType.SLEEP_COMPLETION_NOTIFICATION, pb.Notification(completion_id=1, void=pb.Void()).SerializeToString()
)
BROKEN = b"\x0f"  # a field of wire type 7, which there is not

BAD: dict[str, Bad] = {
    # What is no answer of the protocol at all.
    "garbage": Bad(saying(b"\x03\x7f\x00\x00\x00\x00\x00\x05hello" * 3), "RT0012", "unknown message 0x037F"),
    "garbage that announces much": Bad(saying(b"garbage bytes, not frames"), "RT0003", "hit message size limit: "),
    "another content type": Bad(
        other_content_type,
        "RT0012",
        "content-type 'application/json', expected 'application/vnd.restate.invocation.v6'",
    ),
    "no HTTP": Bad(speaks_no_http, "RT0010", "broke the HTTP/2 protocol"),
    "broken HPACK": Bad(headers_that_do_not_decode, "RT0010", "broke the HTTP/2 protocol"),
    # Statuses (spec 1.6).
    "413": Bad(status(413), "RT0019", "the deployment answered with status 413"),
    "415": Bad(status(415), "RT0015", "status 415"),
    "429": Bad(status(429, retry_after="0"), "RT0023", "status 429"),
    "503": Bad(status(503), "RT0023", "status 503"),
    "503 with an odd retry-after": Bad(odd_retry_after, "RT0023", "status 503"),
    "503 with a huge retry-after": Bad(status(503, retry_after="later"), "RT0023", "status 503"),
    "502": Bad(status(502), "RT0010", "status 502"),
    "504": Bad(status(504), "RT0010", "status 504"),
    "404": Bad(status(404), "RT0012", "status 404"),
    "500": Bad(status(500), "RT0012", "status 500"),
    "301": Bad(status(301, location="http://127.0.0.1:9/"), "RT0012", "status 301"),
    # Messages nobody knows, or that are not a deployment's to send.
    "unknown control": Bad(saying(frame(0x0123)), "RT0012", "unknown message 0x0123"),
    "unknown command": Bad(saying(frame(0x0420)), "RT0012", "unknown message 0x0420"),
    "unknown notification": Bad(saying(frame(0x8FFF)), "RT0012", "unknown message 0x8FFF"),
    "custom message": Bad(saying(frame(0xFC00)), "RT0012", "unknown message 0xFC00"),
    "Start": Bad(saying(frame(MessageType.START)), "RT0012", "StartMessage is not a message that a deployment may"),
    "a notification": Bad(saying(VOID), "RT0012", "SleepCompletionNotificationMessage is not a message that"),
    "CommandAck": Bad(saying(frame(MessageType.COMMAND_ACK)), "RT0012", "CommandAckMessage is not a message that"),
    "Input": Bad(saying(frame(MessageType.INPUT_COMMAND)), "RT0012", "InputCommandMessage is written by the server"),
    # Frames that are too long.
    "a frame of the limit": Bad(
        saying(frame(MessageType.OUTPUT_COMMAND, announced=FRAME_BYTES_MAX)),
        "RT0003",
        "hit message size limit: 33816576 >= 33816576",
    ),
    "a frame of 4 GiB": Bad(
        saying(frame(MessageType.SET_STATE_COMMAND, announced=0xFFFFFFFF)), "RT0003", "4294967295 >= 33816576"
    ),
    # Ends that are none.
    "nothing": Bad(ending_after(), "RT0007", "the stream ended without End, Suspension or Error"),
    "no end": Bad(ending_after(output(b"1")), "RT0007", "the stream ended without End, Suspension or Error"),
    "a truncated header": Bad(ending_after(output(b"1"), end()[:5]), "RT0007", "in the middle of a message"),
    "a truncated frame": Bad(ending_after(output(b"12345678")[:-3]), "RT0007", "in the middle of a message"),
    "RST": Bad(resets_at_once, "RT0010", "reset the stream: INTERNAL_ERROR"),
    "RST in a frame": Bad(resets_in_the_middle, "RT0010", "reset the stream: INTERNAL_ERROR"),
    "hangs up": Bad(hangs_up, "RT0010", "the connection failed: "),
    "GOAWAY and gone": Bad(goes_away_knowing, "RT0010", "the connection failed: "),
    "GOAWAY that forgets": Bad(goes_away_without, "RT0010", "the connection failed: "),
    "End without Output": Bad(saying(end()), "RT0012", "EndMessage without an OutputCommandMessage before it"),
    "an empty Output": Bad(
        saying(frame(MessageType.OUTPUT_COMMAND), end()), "RT0012", "has neither a value nor a failure"
    ),
    "Suspension on nothing": Bad(
        saying(frame(MessageType.SUSPENSION)), "RT0012", "SuspensionMessage waits for nothing"
    ),
    # The SDK's own words.
    "Error 500": Bad(saying(error(500, "the handler raised")), "RT0007", "the handler raised", names="[500 Internal] "),
    "Error 570": Bad(
        saying(error(570, "expected Run, found Sleep", related_command_index=1)),
        "RT0016",
        "expected Run, found Sleep",
        names="[570] ",
    ),
    "Error 571": Bad(saying(error(571, "unexpected message")), "RT0012", "unexpected message", names="[571] "),
    "Error 572": Bad(saying(error(572, "other")), "RT0007", "other", names="[572] "),
    "Error without anything": Bad(saying(frame(MessageType.ERROR)), "RT0007", "", names="[500 Internal] "),
    "Error with a long text": Bad(saying(error(500, "x" * MIB)), "RT0007", "x" * 1000, names="[500 Internal] x"),
    "answers before it reads": Bad(answers_before_it_reads, "RT0007", "did not even look", names="[500 Internal] "),
    # Entries that do not decode.
    **{
        f"{name} that does not decode": Bad(saying(frame(MessageType[name], BROKEN)), "RT0012", "does not decode")
        for name in (
            "OUTPUT_COMMAND",
            "RUN_COMMAND",
            "SLEEP_COMMAND",
            "CALL_COMMAND",
            "ONE_WAY_CALL_COMMAND",
            "SEND_SIGNAL_COMMAND",
            "COMPLETE_AWAKEABLE_COMMAND",
            "PROPOSE_RUN_COMPLETION",
            "SUSPENSION",
            "AWAITING_ON",
            "ERROR",
        )
    },
    **{
        f"{name} that does not decode": Bad(
            saying(frame(MessageType[name], BROKEN)), "RT0012", "does not decode", "BadObject/{key}/run"
        )
        for name in (
            "SET_STATE_COMMAND",
            "CLEAR_STATE_COMMAND",
            "GET_LAZY_STATE_COMMAND",
            "GET_LAZY_STATE_KEYS_COMMAND",
            "GET_EAGER_STATE_COMMAND",
            "GET_EAGER_STATE_KEYS_COMMAND",
        )
    },
    # Commands that may not be.
    "state in a plain service": Bad(
        saying(set_state(b"a", b"1")), "RT0017", "SetStateCommandMessage: this kind of handler may not write state"
    ),
    "reading state in a plain service": Bad(
        saying(of(pb.GetLazyStateCommandMessage(key=b"a", result_completion_id=1))), "RT0017", "may not read state"
    ),
    "writing state in a shared handler": Bad(
        saying(set_state(b"a", b"1")), "RT0017", "may not write state", "Shared/{key}/run"
    ),
    "a call to nobody": Bad(
        saying(of(pb.CallCommandMessage(service_name="Nobody", handler_name="run"))),
        "RT0018",
        "CallCommandMessage to Nobody/run: no such service or handler is registered",
        names="[404] Bad/run, command 1",
    ),
    "a call to no handler": Bad(
        saying(of(pb.OneWayCallCommandMessage(service_name="Echo", handler_name="walk"))),
        "RT0018",
        "OneWayCallCommandMessage to Echo/walk",
        names="[404] Bad/run, command 1",
    ),
    "a key to a plain service": Bad(
        saying(of(pb.CallCommandMessage(service_name="Echo", handler_name="run", key="k"))), "RT0017", "has no key"
    ),
    "an empty idempotency key": Bad(
        saying(of(pb.CallCommandMessage(service_name="Echo", handler_name="run", idempotency_key=""))),
        "RT0017",
        "the idempotency key is empty",
    ),
    "a signal to no id": Bad(
        saying(of(pb.SendSignalCommandMessage(target_invocation_id="inv_1", idx=17, void=pb.Void()))),
        "RT0012",
        "bad invocation id 'inv_1'",
    ),
    "an awakeable of no id": Bad(
        saying(of(pb.CompleteAwakeableCommandMessage(awakeable_id="sign_1", value=pb.Value()))),
        "RT0012",
        "bad awakeable id 'sign_1'",
    ),
    "a proposal for nothing": Bad(
        saying(of(pb.ProposeRunCompletionMessage(result_completion_id=7, value=b"1"))), "RT0012", "completion 7"
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_the_failure_says_who_what_and_which_code(server: Server, endpoint: FakeEndpoint, name: str) -> None:
    bad = BAD[name]
    endpoint.script = bad.script
    invocation_id = send(server, bad.target.format(key=re.sub(r"\W", "-", name)))
    row = failure(server, invocation_id)
    assert row["last_failure_error_code"] == bad.doc_code, row
    assert bad.says in row["last_failure"]
    assert row["status"] in ("backing-off", "running", "ready"), row
    if bad.names:
        assert row["last_failure"].startswith(bad.names)
    else:
        service = bad.target.partition("/")[0]
        assert re.match(rf"\[\d+( Internal)?\] (unknown: )?{service}/run\b", row["last_failure"]), row["last_failure"]
    # It is tried again by the policy, and heals when the deployment does.
    eventually(lambda: endpoint.attempts[invocation_id] >= 2)
    endpoint.behave()
    assert result(server, invocation_id) == b'"good"'
    status, journal = request("GET", f"{server.admin_url}/invocations/{invocation_id}")
    assert status == 200, journal


def test_the_entry_is_named(server: Server, endpoint: FakeEndpoint) -> None:
    endpoint.script = saying(of(pb.RunCommandMessage(result_completion_id=1, name="r")), frame(0x0420))
    invocation_id = send(server)
    row = failure(server, invocation_id)
    assert row["last_failure"].startswith("[571] Bad/run, command 2: protocol violation: unknown message 0x0420")
    assert row["last_failure_related_command_index"] == 2
    endpoint.behave()
    assert result(server, invocation_id) == b'"good"'


# -- time ---------------------------------------------------------------------------------------------------------


def test_a_deployment_that_never_answers_is_cut_off(server: Server, endpoint: FakeEndpoint) -> None:
    """Asked to suspend after the inactivity timeout, and reset after the abort timeout."""

    async def never(exchange: Exchange) -> None:
        await exchange.replay()
        while not exchange.over:
            await exchange._change()

    endpoint.script = never
    invocation_id = send(server, "Bad/quick")
    row = failure(server, invocation_id)
    assert row["last_failure_error_code"] == "RT0001"
    assert f"Bad/quick: the attempt was aborted: nothing came for {ABORT_MS} ms" in row["last_failure"]
    endpoint.behave()
    assert result(server, invocation_id) == b'"good"'


def test_one_that_goes_on_saying_something_is_not_cut_off(server: Server, endpoint: FakeEndpoint) -> None:
    """One byte at a time, for longer than both timeouts together."""

    async def slowly(exchange: Exchange) -> None:
        exchange.respond()
        for byte in output(b'"slow"') + end():
            await exchange.write(bytes([byte]))
            await asyncio.sleep(0.05)  # what is tested: the deployment takes its time
        await exchange.ended()
        exchange.end()

    assert len(output(b'"slow"') + end()) * 50 > INACTIVITY_MS + ABORT_MS
    endpoint.script = slowly
    invocation_id = send(server, "Bad/quick")
    assert result(server, invocation_id) == b'"slow"'
    assert endpoint.attempts[invocation_id] == 1


def test_the_sdks_own_delay_comes_before_the_policy(server: Server, endpoint: FakeEndpoint) -> None:
    async def once(exchange: Exchange) -> None:
        if exchange.number == 0:
            await exchange.answer(error(500, "come back later", next_retry_delay=60_000))
        else:
            await fake_endpoint.good(exchange)

    endpoint.script = once
    row = failure(server, send(server))
    assert seconds_until(row["next_retry_at"]) > 30


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_retry_after_comes_before_the_policy(server: Server, endpoint: FakeEndpoint, form: str) -> None:
    text = "60" if form == "seconds" else email.utils.formatdate(time.time() + 60, usegmt=True)
    endpoint.script = status(503, retry_after=text)
    row = failure(server, send(server))
    assert 30 < seconds_until(row["next_retry_at"]) < 62


def seconds_until(text: str) -> float:
    return datetime.datetime.fromisoformat(text).timestamp() - time.time()


# -- too much -------------------------------------------------------------------------------------------------------


def test_a_hundred_thousand_small_frames(server: Server, endpoint: FakeEndpoint) -> None:
    """They are taken as fast as they can be recorded, and the result counts."""
    writes = b"".join(set_state(b"k%d" % (number % 50), b"%d" % number) for number in range(100_000))
    endpoint.script = saying(writes, output(b"1"), end())
    invocation_id = send(server, "BadObject/many/run")
    assert result(server, invocation_id) == b"1"
    row = invocation(server, invocation_id)
    assert row["journal_commands_size"] == 100_002


def test_a_hundred_thousand_frames_of_nothing(server: Server, endpoint: FakeEndpoint) -> None:
    """Messages that leave nothing behind, and then a response that just ends."""
    awaiting = of(pb.AwaitingOnMessage(awaiting_on=pb.Future(waiting_signals=[1])))
    endpoint.script = ending_after(awaiting * 100_000)
    invocation_id = send(server)
    assert failure(server, invocation_id)["last_failure_error_code"] == "RT0007"


def test_two_thousand_entries_are_replayed(server: Server, endpoint: FakeEndpoint) -> None:
    async def script(exchange: Exchange) -> None:
        known = len(await exchange.replay()) - 1
        writes = b"".join(set_state(b"k", b"%d" % number) for number in range(known, 2_000))
        if exchange.number == 0:
            await exchange.answer(writes + error(500, "once more"))
        else:
            await exchange.answer(writes + output(b"%d" % known) + end())

    endpoint.script = script
    assert result(server, send(server, "BadObject/entries/run")) == b"2000"


@pytest.mark.parametrize("size", [MIB, 30 * MIB])
def test_a_large_state_value_and_a_large_output(server: Server, endpoint: FakeEndpoint, size: int) -> None:
    """Kept in parts, given back whole: as eager state to the next attempt, and to the client."""
    value = b"\x5a" * size

    async def script(exchange: Exchange) -> None:
        await exchange.replay()
        state = {entry.key: entry.value for entry in (await exchange.start()).state_map}
        if exchange.number == 0:
            await exchange.answer(set_state(b"large", value) + error(500, "once more"))
        elif state.get(b"large") == value:
            await exchange.answer(output(value) + end())
        else:
            await exchange.answer(error(500, f"the state is {len(state.get(b'large', b''))} bytes"))

    endpoint.script = script
    assert result(server, send(server, f"BadObject/large-{size}/run")) == value


def test_a_large_parameter(server: Server, endpoint: FakeEndpoint) -> None:
    """A call with 30 MiB, to a handler that gives them back."""
    parameter = b"\xa5" * (30 * MIB)

    async def script(exchange: Exchange) -> None:
        replay = await exchange.replay()
        if exchange.path == "/invoke/Echo/run":
            body = pb.InputCommandMessage.FromString(replay[0][1]).value.content
            await exchange.answer(output(body) + end())
            return
        results = [
            pb.Notification.FromString(payload)
            for code, payload in replay
            if code == MessageType.CALL_COMPLETION_NOTIFICATION
        ]
        if results:
            await exchange.answer(output(b"%d" % len(results[0].value.content)) + end())
        elif len(replay) > 1:
            await exchange.answer(of(pb.SuspensionMessage(waiting_completions=[2])))
        else:
            call = pb.CallCommandMessage(
                service_name="Echo",
                handler_name="run",
                parameter=parameter,
                invocation_id_notification_idx=1,
                result_completion_id=2,
            )
            await exchange.answer(of(call) + of(pb.SuspensionMessage(waiting_completions=[2])))

    endpoint.script = script
    assert result(server, send(server)) == b"%d" % (30 * MIB)


# -- more than one word at the end -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "more",
    [
        end(),
        error(500, "and now this"),
        of(pb.SuspensionMessage(waiting_signals=[1])),
        output(b"2"),
        frame(0x0420),
        b"some bytes that are no frame",
        frame(MessageType.OUTPUT_COMMAND, announced=0xFFFFFFFF),
    ],
    ids=["End", "Error", "Suspension", "Output", "unknown", "bytes", "a long frame"],
)
def test_nothing_counts_after_the_end(server: Server, endpoint: FakeEndpoint, more: bytes) -> None:
    endpoint.script = saying(output(b"1"), end(), more)
    invocation_id = send(server)
    assert result(server, invocation_id) == b"1"
    assert endpoint.attempts[invocation_id] == 1


def test_after_an_error_nothing_counts_either(server: Server, endpoint: FakeEndpoint) -> None:
    endpoint.script = saying(error(500, "first word"), output(b"1"), end())
    invocation_id = send(server)
    assert "first word" in failure(server, invocation_id)["last_failure"]
    endpoint.behave()
    assert result(server, invocation_id) == b'"good"'


def test_a_command_that_wants_an_acknowledgement_gets_one(server: Server, endpoint: FakeEndpoint) -> None:
    """No SDK asks for one; it comes once the command is recorded, with its place among the commands."""
    heard: list[tuple[int, bytes]] = []

    async def asks(exchange: Exchange) -> None:
        await exchange.replay()
        exchange.respond()
        await exchange.write(of(pb.RunCommandMessage(result_completion_id=1), ack=True))
        heard.extend(await exchange.after_replay(1))
        await exchange.write(output(b"1") + end())
        await exchange.ended()
        exchange.end()

    endpoint.script = asks
    assert result(server, send(server)) == b"1"
    ((code, payload),) = heard
    assert code == MessageType.COMMAND_ACK
    assert pb.CommandAckMessage.FromString(payload).command_index == 1


def test_a_result_is_proposed_once(server: Server, endpoint: FakeEndpoint) -> None:
    """A second proposal for the same run fails the attempt; the first one stays."""
    proposal = of(pb.ProposeRunCompletionMessage(result_completion_id=1, value=b"1"))
    endpoint.script = saying(of(pb.RunCommandMessage(result_completion_id=1, name="r")), proposal, proposal)
    invocation_id = send(server)
    row = failure(server, invocation_id)
    assert row["last_failure_error_code"] == "RT0012"
    assert "ProposeRunCompletionMessage for completion 1, which no open run has" in row["last_failure"]
    _, body = request("GET", f"{server.admin_url}/invocations/{invocation_id}")
    entries = [entry["entry_type"] for entry in json.loads(body)["journal"]]
    assert entries[:3] == ["Command: Input", "Command: Run", "Notification: Run"]
    endpoint.behave()
    assert result(server, invocation_id) == b'"good"'


def test_several_outputs_count_as_the_last(server: Server, endpoint: FakeEndpoint) -> None:
    endpoint.script = saying(output(b"1"), output(b"2"), end())
    assert result(server, send(server)) == b"2"


def test_numbers_at_their_ends_are_survived(server: Server, endpoint: FakeEndpoint) -> None:
    """The largest ids and times a message can hold, and ids used twice."""
    far = 2**64 - 1
    endpoint.script = saying(
        of(pb.SleepCommandMessage(wake_up_time=far, result_completion_id=2**32 - 1)),
        of(pb.SleepCommandMessage(wake_up_time=far, result_completion_id=2**32 - 1)),
        of(pb.SleepCommandMessage(wake_up_time=0, result_completion_id=0)),
        of(pb.OneWayCallCommandMessage(service_name="Echo", handler_name="run", invoke_time=far)),
        of(pb.RunCommandMessage(result_completion_id=5)),
        of(pb.RunCommandMessage(result_completion_id=5)),
        output(b"1"),
        end(),
    )
    assert result(server, send(server)) == b"1"


def test_a_connection_lost_takes_only_its_attempts_along(server: Server, endpoint: FakeEndpoint) -> None:
    """Twenty attempts, a third of which break the connection they share with the others: all end in the end."""

    async def script(exchange: Exchange) -> None:
        if exchange.number == 0 and int(exchange.headers["x-restate-invocation-id"][-1:] in "aeiouAEIOU0123456789"):
            await speaks_no_http(exchange)
        else:
            await fake_endpoint.good(exchange)

    endpoint.script = script
    sent = [send(server) for _ in range(20)]
    assert {result(server, invocation_id) for invocation_id in sent} == {b'"good"'}

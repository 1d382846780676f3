"""Messages on the wire: what a deployment sends, what it hears, and what SQL shows of the invocation afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from e2e.fake_endpoint import Exchange, end, error, frame, of, output, set_state
from parity.comparing import normalised
from parity.side import Side
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType

SETTLED = ("completed", "suspended", "backing-off", "paused", "gone")


@dataclass(frozen=True)
class WireRow:
    """Frames that the first attempt sends before it closes; a later attempt answers "good"."""

    title: str
    frames: bytes
    service: str = "Wire"
    # What the invocation comes to; a suspension that is over at once must not be looked at too early.
    settles: tuple[str, ...] = SETTLED


def wire_rows() -> Iterator[WireRow]:
    """One row for each message that a deployment may send, well-formed and not."""

    def waits(*completions: int, signals: tuple[int, ...] = ()) -> bytes:
        return of(pb.SuspensionMessage(waiting_completions=completions, waiting_signals=signals))

    value = pb.Value(content=b"1")
    done = output(b'"good"') + end()
    yield WireRow("output, end", done)
    yield WireRow("nothing at all", b"")
    # The real server does not survive an end without output nor an unknown command: those cannot be compared here.
    yield WireRow("output without end", output(b"1"))
    failure = pb.Failure(code=422, message="no way")
    yield WireRow("failed output", of(pb.OutputCommandMessage(failure=failure)) + end())
    yield WireRow("two outputs", output(b"1") + output(b"2") + end())
    for code in (0, 400, 409, 500, 570, 571, 572, 573, 70_000):
        yield WireRow(f"error {code}", error(code, "what went wrong"))
    yield WireRow("error, command named", error(500, "no", related_command_index=1, related_command_name="x"))
    yield WireRow("unknown control message", frame(0x00AA, b"") + done)
    yield WireRow("bytes that are no message", frame(MessageType.SET_STATE_COMMAND, b"\xff\xff") + done)
    yield WireRow("suspension on nothing", waits())
    yield WireRow("suspension on an unknown completion", waits(7))
    yield WireRow("suspension on a signal", waits(signals=(17,)))
    for service in ("Wire", "WireObject", "WireFlow"):
        yield WireRow(f"set state in {service}", set_state(b"a", b"1") + done, service)
        clear = of(pb.ClearStateCommandMessage(key=b"a")) + of(pb.ClearAllStateCommandMessage())
        yield WireRow(f"clear state in {service}", clear + done, service)
        lazy = of(pb.GetLazyStateCommandMessage(key=b"a", result_completion_id=1)) + waits(1)
        yield WireRow(f"lazy state in {service}", lazy, service, ("completed", "backing-off"))
        keys = of(pb.GetLazyStateKeysCommandMessage(result_completion_id=1)) + waits(1)
        yield WireRow(f"lazy state keys in {service}", keys, service, ("completed", "backing-off"))
        get = of(pb.GetPromiseCommandMessage(key="p", result_completion_id=1)) + waits(1)
        yield WireRow(f"get promise in {service}", get, service)
        peek = of(pb.PeekPromiseCommandMessage(key="p", result_completion_id=1)) + waits(1)
        yield WireRow(f"peek promise in {service}", peek, service, ("completed", "backing-off"))
        complete = pb.CompletePromiseCommandMessage(key="p", result_completion_id=1, completion_value=value)
        yield WireRow(f"complete promise in {service}", of(complete) + waits(1), service, ("completed", "backing-off"))
    sleep = pb.SleepCommandMessage(wake_up_time=1, result_completion_id=1)
    yield WireRow("sleep that is over", of(sleep) + waits(1), settles=("completed", "backing-off"))
    far = pb.SleepCommandMessage(wake_up_time=4_000_000_000_000, result_completion_id=1)
    yield WireRow("sleep until 2096", of(far) + waits(1), settles=("suspended", "backing-off"))
    yield WireRow("sleep with a completion id used twice", of(far) * 2 + waits(1))

    def call(service: str, handler: str, key: str = "", **more: Any) -> bytes:
        message = pb.CallCommandMessage(
            service_name=service,
            handler_name=handler,
            key=key,
            parameter=b'"x"',
            invocation_id_notification_idx=1,
            result_completion_id=2,
            **more,
        )
        return of(message) + waits(2)

    over = ("completed", "backing-off")
    yield WireRow("call", call("Plain", "greet"), settles=over)
    yield WireRow("call that fails", call("Plain", "terminal"), settles=over)
    yield WireRow("call of an unknown service", call("Nope", "greet"), settles=over)
    yield WireRow("call of an unknown handler", call("Plain", "nope"), settles=over)
    yield WireRow("call of a private service", call("Hidden", "greet"), settles=over)
    yield WireRow("call of a service with a key", call("Plain", "greet", "k"), settles=over)
    yield WireRow("call with an idempotency key", call("Plain", "greet", idempotency_key="wire"), settles=over)
    yield WireRow("call with an empty idempotency key", call("Plain", "greet", idempotency_key=""), settles=over)
    for service in ("Plain", "Nope"):
        one_way = pb.OneWayCallCommandMessage(
            service_name=service, handler_name="greet", parameter=b'"x"', invocation_id_notification_idx=1
        )
        yield WireRow(f"one-way call of {service}", of(one_way) + done)
    yield WireRow("run", of(pb.RunCommandMessage(result_completion_id=1, name="r")) + waits(1))
    run = of(pb.RunCommandMessage(result_completion_id=1, name="r"))
    proposal = of(pb.ProposeRunCompletionMessage(result_completion_id=1, value=b"1"))
    yield WireRow("run and its proposal", run + proposal + waits(1), settles=over)
    failed = of(pb.ProposeRunCompletionMessage(result_completion_id=1, failure=failure))
    yield WireRow("run and its failure", run + failed + waits(1), settles=over)
    yield WireRow("proposal without a run", proposal + done)
    unknown = "inv_1" + "0" * 33
    for target in ("x", unknown):
        signal = pb.SendSignalCommandMessage(target_invocation_id=target, idx=17, value=value)
        yield WireRow(f"signal to {target}", of(signal) + done)
    for awakeable in ("x", "sign_1" + "A" * 36 + "EQ", "prom_1" + "A" * 36 + "EQ"):
        complete_it = pb.CompleteAwakeableCommandMessage(awakeable_id=awakeable, value=value)
        yield WireRow(f"complete awakeable {awakeable[:8]}", of(complete_it) + done)
    workflow = pb.WorkflowTarget(workflow_name="Flow", workflow_key="never")
    key = pb.IdempotentRequestTarget(service_name="Plain", handler_name="greet", idempotency_key="never")
    for title, named in (
        ("a bad id", {"invocation_id": "x"}),
        ("an unknown id", {"invocation_id": unknown}),
        ("a run not submitted", {"workflow_target": workflow}),
        ("a key not used", {"idempotent_request_target": key}),
    ):
        ask = pb.AttachInvocationCommandMessage(result_completion_id=1, **named)
        yield WireRow(f"attach to {title}", of(ask) + waits(1), settles=over)
        get_output = pb.GetInvocationOutputCommandMessage(result_completion_id=1, **named)
        yield WireRow(f"output of {title}", of(get_output) + waits(1), settles=over)


def observe(side: Side, row: WireRow) -> dict[str, Any]:
    """Run the row against one side: the replays its attempts got, and what SQL shows in the end."""
    # By invocation: an earlier row's, woken late, is not this row's.
    replays: dict[str, list[list[str]]] = {}

    async def script(exchange: Exchange) -> None:
        replay = await exchange.replay()
        attempts = replays.setdefault(exchange.invocation_id, [])
        attempts.append([f"{code:04X}" for code, _ in replay])
        exchange.respond()
        await exchange.write(row.frames if exchange.number == 0 else output(b'"good"') + end())
        exchange.end()

    side.fake.script = script
    key = side.key()
    path = f"{row.service}/run" if row.service == "Wire" else f"{row.service}/{key}/run"
    invocation_id = side.send(path)
    status = side.until(invocation_id, *row.settles)
    columns = "completion_result, completion_failure, last_failure_error_code, last_failure_related_command_index"
    shown = side.rows(f"SELECT {columns} FROM sys_invocation WHERE id = '{invocation_id}'")
    journal = side.rows(f"SELECT entry_type FROM sys_journal WHERE id = '{invocation_id}' ORDER BY \"index\"")
    return {
        "status": status,
        "replays": replays.get(invocation_id, []),
        "journal": [entry["entry_type"] for entry in journal],
        **{name: normalised(str(text)) for found in shown for name, text in found.items()},
    }

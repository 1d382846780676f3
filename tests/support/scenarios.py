"""Scenario pages: commands on the left, what the leader is asked to do on the right.

    invoke r1 A Counter/alice/add           -> start A
    effects A: set n=1, output 1, end       -> respond r1 A 1

`effects A@1:` is what attempt 1 of A reports, whatever its row says of the present one.
A name (A, B, …) stands for an invocation from the line that makes it on, r1, r2, … for requests of clients.
Times are milliseconds since the scenario began; `+500` moves the clock there.
"""

from __future__ import annotations

import re
from typing import Any, assert_never

from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import HEADER_BYTES, message_name
from perdure_processor.model.actions import (
    AbortAttempt,
    AckCommand,
    Acted,
    Action,
    Answered,
    ForwardNotification,
    PauseAttempt,
    RespondToIngress,
    SetTimer,
    ShipOutboxMessage,
    StartAttempt,
    Taken,
)
from perdure_processor.model.commands import (
    AnnounceLeader,
    ByOutbox,
    Envelope,
    Invoke,
    KillCall,
    Operate,
    Repin,
    Respond,
    RestartAsNew,
    Resume,
    Signal,
    Verb,
)
from perdure_processor.model.effects import AfterFailure, Effect, Ended, Kill, Pause, RetryAt
from perdure_processor.model.ids import (
    DeploymentId,
    InvocationId,
    InvocationTarget,
    LeaderEpoch,
    Millis,
    NodeId,
    PartitionId,
    slot_of,
)
from perdure_processor.model.results import CallerSink, Failed, RequestId, Result, Succeeded
from support import builders as b
from support.env import START_MS, Env

COLUMN = 62


class Scenario:
    """One page, executed line by line."""

    def __init__(self) -> None:
        self.env = Env()
        self._names: dict[InvocationId, str] = {}
        self._ids: dict[str, InvocationId] = {}
        self._unkeyed = 0

    def run(self, page: str) -> str:
        """The page with its right side as it is found."""
        lines = []
        for line in page.splitlines():
            command = line.partition("->")[0].rstrip()
            if not command or command.startswith("#"):
                lines.append(command)
                continue
            actions = "; ".join(self._shown(action) for action in self._perform(command))
            lines.append(f"{command:<{COLUMN}} -> {actions}".rstrip())
        self.env.check_replay()
        return "\n".join(lines) + "\n"

    # -- the left side ---------------------------------------------------------------
    def _perform(self, line: str) -> list[Action]:
        env = self.env
        if line.startswith("effects "):
            whose, _, effects = line.removeprefix("effects ").partition(":")
            name, _, attempt = whose.strip().partition("@")
            token = int(attempt) if attempt else None
            return env.effects(self._ids[name], *self._effects(name, effects), attempt=token)
        words = line.split()
        match words:
            case ["partition", number, "of", count]:
                self.env = Env(int(number), int(count))
                return []
            case ["invoke" | "send" as verb, request, name, target, *options]:
                return env.apply(self._invoke(verb, request, name, target, options))
            case ["attach", request, name]:
                return env.apply(b.attach(self._ids[name], _request(request), env.now_ms))
            case ["get-output", request, name]:
                return env.apply(b.get_output(self._ids[name], _request(request)))
            case ["signal", name, index, value]:
                return env.apply(b.signal(self._ids[name], int(index) if index.isdigit() else index, value.encode()))
            case ["arrive", source, sequence, "invoke", name, target]:
                command = b.invoke(_target(target), self._number(), one_way=True, from_handler=True)
                self._bind(name, command.id)
                dedup = ByOutbox(PartitionId(int(source)), int(sequence))
                return env.apply(Envelope(slot_of(command.id), dedup, command))
            case ["arrive", source, sequence, "result", name, completion_id, value]:
                row = env.live(self._ids[name])
                sink = CallerSink(self._ids[name], row.incarnation, int(completion_id))  # type: ignore[arg-type]
                dedup = ByOutbox(PartitionId(int(source)), int(sequence))
                return env.apply(Envelope(slot_of(sink.id), dedup, Respond(sink, b.ok(value.encode()))))
            case ["cancel" | "kill" | "pause" | "purge" | "purge-journal" as verb, request, name]:
                number = Verb[verb.upper().replace("-", "_")]
                return env.apply(Operate(self._ids[name], number, _request(request), Millis(env.now_ms)))
            case ["resume", request, name, *deployment]:
                return env.apply(Resume(self._ids[name], _repin(deployment), _request(request), Millis(env.now_ms)))
            case ["restart", request, name, "as", new_name, "from", index]:
                old = self._ids[name]
                new = self._ids.get(new_name) or InvocationId(old[:8] + self._number().to_bytes(16, "big"))
                self._bind(new_name, new)
                asked = _request(request)
                return env.apply(RestartAsNew(old, new, int(index), index != "0", None, asked, Millis(env.now_ms)))
            case ["arrive", source, sequence, "kill", name, "called", "by", caller, completion_id]:
                row = env.live(self._ids[name])
                sink = CallerSink(self._ids[caller], row.incarnation, int(completion_id))  # type: ignore[arg-type]
                dedup = ByOutbox(PartitionId(int(source)), int(sequence))
                return env.apply(Envelope(slot_of(self._ids[name]), dedup, KillCall(self._ids[name], sink)))
            case ["timers", at]:
                return env.fire_timers(until_ms=START_MS + int(at))
            case ["expire", at]:
                return env.expire(until_ms=START_MS + int(at))
            case ["leader", epoch]:
                return env.apply(AnnounceLeader(NodeId("node", 1), LeaderEpoch(int(epoch)), 1))
            case _:
                raise AssertionError(f"no such line: {line}")

    def _invoke(self, verb: str, request: str, name: str, target: str, options: list[str]) -> Invoke:
        given: dict[str, Any] = dict(option.split("=") for option in options)
        key = given.pop("key", None) or self._number()
        names = {"retention": "completion_retention_ms", "journal": "journal_retention_ms", "delay": "delay_ms"}
        command = b.invoke(
            _target(target),
            key,
            asked=_request(request),
            one_way=verb == "send",
            issued_ms=self.env.now_ms,
            **{names[option]: int(value) for option, value in given.items()},
        )
        self._bind(name, command.id)
        return command

    def _effects(self, name: str, text: str) -> list[Effect]:
        row = self.env.live(self._ids[name])
        effects: list[Effect] = []
        commands = row.commands
        for item in text.split(","):
            effects.append(self._effect(name, item.split(), commands))
            commands += not item.split()[0].startswith(("pinned", "done", "end", "suspend", "fail"))
        return effects

    def _effect(self, name: str, words: list[str], command_index: int) -> Effect:
        match words:
            case ["pinned"]:
                return b.pinned()
            case ["output", value]:
                return b.output(value.encode())
            case ["output", "failure", code, message]:
                return b.output_failure(int(code), message)
            case ["end"]:
                return Ended()
            case ["set", pair]:
                key, _, value = pair.partition("=")
                return b.set_state(key.encode(), value.encode())
            case ["clear", key]:
                return b.clear_state(key.encode())
            case ["clear-all"]:
                return b.clear_all()
            case ["get", key, completion_id]:
                return b.read_lazily(key.encode(), int(completion_id))
            case ["keys", completion_id]:
                return b.read_keys_lazily(int(completion_id))
            case ["run", completion_id]:
                return b.run(int(completion_id))
            case ["done", completion_id, value]:
                return b.run_done(int(completion_id), value.encode())
            case ["sleep", completion_id, at]:
                return b.sleep(int(completion_id), START_MS + int(at))
            case ["call" | "send" as verb, callee, target, completion_id, *rest]:
                make = b.call if verb == "call" else b.send
                row = self.env.live(self._ids[name])
                more: dict[str, Any] = {"at_ms": START_MS + int(rest[0])} if rest else {}
                called = make(
                    self._ids[name],
                    _target(target),
                    int(completion_id),
                    incarnation=row.incarnation,
                    command_index=command_index,
                    **more,
                )
                self._bind(callee, called.id)
                return called
            case ["suspend", *leaves]:
                return b.suspended(*(int(leaf) for leaf in leaves))
            case ["fail", then]:
                return b.attempt_failed(_then(then))
            case _:
                raise AssertionError(f"no such effect: {' '.join(words)}")

    def _bind(self, name: str, id: InvocationId) -> None:
        self._ids[name] = id
        self._names.setdefault(id, name)

    def _number(self) -> int:
        self._unkeyed += 1
        return self._unkeyed

    # -- the right side --------------------------------------------------------------
    def _shown(self, action: Action) -> str:
        match action:
            case StartAttempt():
                return f"start {self._name(action.id)}" + (f" again ({action.attempt})" if action.attempt > 1 else "")
            case AbortAttempt():
                return f"abort {self._name(action.id)}"
            case PauseAttempt():
                return f"ask {self._name(action.id)} to suspend"
            case AckCommand():
                return f"acknowledge {self._name(action.id)} {action.command_index}"
            case ForwardNotification():
                return f"tell {self._name(action.id)} {_notification(action.frame, self)}"
            case SetTimer():
                return f"timer +{action.deadline_ms - START_MS}" if action.deadline_ms else "timer now"
            case ShipOutboxMessage():
                return f"ship {action.target}.{action.sequence} {self._message(action.command)}"
            case RespondToIngress():
                return f"respond r{action.request.number} {self._answer(action.answer)}"
            case _:
                assert_never(action)

    def _answer(self, answer: Any) -> str:
        match answer:
            case Answered():
                return f"{self._name(answer.id)} {_result(answer.result)}"
            case Taken():
                accepted = "accepted previously" if answer.previously else "accepted"
                at = f" for +{answer.execution_ms - START_MS}" if answer.execution_ms else ""
                return f"{self._name(answer.id)} {accepted}{at}"
            case Acted():
                said = answer.deed.name.lower().replace("_", " ")
                return said + (f" {self._name(answer.new_id)}" if answer.new_id else "")
            case _:
                return type(answer).__name__.lower()

    def _message(self, command: Any) -> str:
        match command:
            case Invoke():
                return f"invoke {self._name(command.id)}"
            case Respond():
                return f"result for {self._name(command.sink.id)} {_result(command.result)}"
            case Signal():
                return f"signal for {self._name(command.id)}"
            case KillCall():
                return f"kill {self._name(command.id)}"
            case _:
                return type(command).__name__

    def _name(self, id: InvocationId) -> str:
        return self._names.get(id, "somebody")


def _request(text: str) -> RequestId:
    return b.request(int(text.removeprefix("r")))


def _target(text: str) -> InvocationTarget:
    parts = text.split("/")
    return InvocationTarget(parts[0], parts[1] if len(parts) == 3 else None, parts[-1])


def _repin(words: list[str]) -> Repin | None:
    """A deployment and the protocol versions that it speaks: dp_2 5 6."""
    if not words:
        return None
    name, least, most = words
    return Repin(DeploymentId(name), int(least), int(most))


def _then(text: str) -> AfterFailure:
    match text:
        case "pause":
            return Pause()
        case "kill":
            return Kill()
        case _:
            return RetryAt(Millis(START_MS + int(text)), counted=True)


def _result(result: Result) -> str:
    match result:
        case Succeeded():
            return result.value.decode()
        case Failed():
            return f"!{result.code} {result.message}"


def _notification(frame: bytes, scenario: Scenario) -> str:
    kind = re.sub(r"(Completion)?NotificationMessage", "", message_name(int.from_bytes(frame[:2], "big")))
    said = pb.Notification.FromString(frame[HEADER_BYTES:])
    which = said.WhichOneof("id")
    leaf = getattr(said, which) if which else "?"
    match said.WhichOneof("result"):
        case "value":
            what = f" {said.value.content.decode()}"
        case "failure":
            what = f" !{said.failure.code} {said.failure.message}"
        case "state_keys":
            what = f" [{', '.join(key.decode() for key in said.state_keys.keys)}]"
        case _:
            what = ""
    return f"{kind} {leaf}{what}"

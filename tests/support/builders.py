"""Short words for commands and effects: a test says what it is about, the rest is as usual."""

from __future__ import annotations

import itertools
from typing import Any

from perdure.protocol import ids, messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import HEADER_BYTES, MessageType, encode_frame
from perdure_processor.invoker.attempt import callee_id
from perdure_processor.model.commands import Attach, GetOutput, Invoke, Respond, Signal, TimersFired
from perdure_processor.model.effects import (
    AfterFailure,
    AttemptFailed,
    Called,
    Ended,
    FailureInfo,
    OutputSet,
    Pinned,
    Recorded,
    RetryAt,
    RunCompleted,
    RunStarted,
    SleepStarted,
    StateRead,
    StateSet,
    Suspended,
)
from perdure_processor.model.futures import Future
from perdure_processor.model.ids import CompletionId, DeploymentId, InvocationId, InvocationTarget, Millis
from perdure_processor.model.results import CallerSink, Failed, Parent, RequestId, Result, Succeeded
from perdure_processor.model.schema import HandlerKind, ServiceKind
from support.env import START_MS

HOUR_MS = 3_600_000
DAY_MS = 24 * HOUR_MS

_requests = itertools.count(1)
INPUT = messages.input_frame([], b"in")


def request(number: int | None = None) -> RequestId:
    """A client's request; without a number, one that nobody made before."""
    return RequestId("node", 7, next(_requests) + 1_000_000 if number is None else number)


# -- targets -------------------------------------------------------------------------
def service(handler: str = "greet", name: str = "Greeter") -> InvocationTarget:
    return InvocationTarget(name, None, handler)


def thing(key: str = "alice", handler: str = "add", name: str = "Counter") -> InvocationTarget:
    """A virtual object."""
    return InvocationTarget(name, key, handler)


def flow(key: str = "w1", handler: str = "run", name: str = "Flow") -> InvocationTarget:
    return InvocationTarget(name, key, handler)


KINDS = {"Greeter": ServiceKind.SERVICE, "Counter": ServiceKind.VIRTUAL_OBJECT, "Flow": ServiceKind.WORKFLOW}
SHARED = {"get", "peek", "status"}


def kinds_of(target: InvocationTarget) -> tuple[ServiceKind, HandlerKind]:
    """Service and handler kind by name: get, peek and status are shared, `run` of Flow is the workflow."""
    kind = KINDS[target.service]
    if kind is ServiceKind.SERVICE:
        return kind, HandlerKind.STATELESS
    if target.handler in SHARED or (kind is ServiceKind.WORKFLOW and target.handler != "run"):
        return kind, HandlerKind.SHARED
    return kind, HandlerKind.WORKFLOW if kind is ServiceKind.WORKFLOW else HandlerKind.EXCLUSIVE


def invocation_id(target: InvocationTarget, name: int | str = 1) -> InvocationId:
    """The id of `target` with an idempotency key (str) or a given uuid (int)."""
    if kinds_of(target)[1] is HandlerKind.WORKFLOW:
        assert target.key is not None
        uuid = ids.workflow_uuid(target.service, target.key)
    elif isinstance(name, str):
        uuid = ids.idempotent_uuid(target.service, target.key, target.handler, name)
    else:
        uuid = name
    if target.key is not None:
        partition_key = ids.partition_key_of_key(target.key)
    elif isinstance(name, str):
        partition_key = ids.partition_key_of_idempotency_key(target.service, name)
    else:
        partition_key = ids.partition_key_of_bucket(target.service, name % ids.SERVICE_BUCKETS)
    return InvocationId(ids.invocation_id(partition_key, uuid))


def _here_and_elsewhere() -> tuple[str, str]:
    found: dict[int, str] = {}
    for number in range(100):
        found.setdefault(invocation_id(thing(f"k{number}"), 1)[0] >> 7, f"k{number}")
    return found[0], found[1]


# A key of partition 0 of two, and one of partition 1.
HERE, ELSEWHERE = _here_and_elsewhere()


# -- commands ------------------------------------------------------------------------
def invoke(
    target: InvocationTarget | None = None,
    name: int | str = 1,
    *,
    asked: RequestId | None = None,
    caller: CallerSink | None = None,
    one_way: bool = False,
    delay_ms: int = 0,
    input: bytes = INPUT,
    journal_retention_ms: int = HOUR_MS,
    completion_retention_ms: int = DAY_MS,
    issued_ms: int = START_MS,
    from_handler: bool = False,
) -> Invoke:
    """A call of a client, unless `caller` is set or `from_handler`."""
    target = target or service()
    service_kind, handler_kind = kinds_of(target)
    internal = caller is not None or from_handler
    return Invoke(
        invocation_id(target, name),
        target,
        service_kind,
        handler_kind,
        input,
        journal_retention_ms,
        completion_retention_ms,
        name if isinstance(name, str) else None,
        one_way,
        Millis(issued_ms + delay_ms if delay_ms else 0),
        Millis(issued_ms),
        None if internal else asked or request(),
        caller,
        Parent(caller.id, "Greeter/parent", "Greeter") if caller is not None else None,
    )


def attach(id: InvocationId, asked: RequestId, issued_ms: int = START_MS) -> Attach:
    return Attach(id, asked, Millis(issued_ms))


def get_output(id: InvocationId, asked: RequestId) -> GetOutput:
    return GetOutput(id, asked, Millis(START_MS))


def signal(
    id: InvocationId, index: int | str, value: bytes = b"", asked: RequestId | None = None, issued_ms: int = START_MS
) -> Signal:
    return Signal(id, index, messages.value_signal(index, value), asked, Millis(issued_ms))


def respond(sink: CallerSink, result: Result) -> Respond:
    return Respond(sink, result)


def timers_fired(*timer_keys: bytes) -> TimersFired:
    return TimersFired(list(timer_keys))


def ok(value: bytes = b"ok") -> Succeeded:
    return Succeeded(value)


def failed(code: int = 500, message: str = "boom") -> Failed:
    return Failed(code, message)


# -- effects -------------------------------------------------------------------------
def frame(kind: MessageType, message: Any) -> bytes:
    return encode_frame(kind, message.SerializeToString())


def pinned(deployment: str = "dp_1", version: int = 6) -> Pinned:
    return Pinned(DeploymentId(deployment), version)


def output(value: bytes = b"ok") -> OutputSet:
    message = pb.OutputCommandMessage()
    message.value.content = value
    return OutputSet(frame(MessageType.OUTPUT_COMMAND, message))


def output_failure(code: int = 500, message: str = "boom") -> OutputSet:
    return OutputSet(
        frame(MessageType.OUTPUT_COMMAND, pb.OutputCommandMessage(failure=pb.Failure(code=code, message=message)))
    )


def ended(value: bytes = b"ok") -> list[Any]:
    """The two effects that a successful handler ends with."""
    return [output(value), Ended()]


def set_state(key: bytes, value: bytes) -> StateSet:
    message = pb.SetStateCommandMessage(key=key)
    message.value.content = value
    return StateSet(frame(MessageType.SET_STATE_COMMAND, message))


def clear_state(key: bytes) -> StateSet:
    return StateSet(frame(MessageType.CLEAR_STATE_COMMAND, pb.ClearStateCommandMessage(key=key)))


def clear_all() -> StateSet:
    return StateSet(frame(MessageType.CLEAR_ALL_STATE_COMMAND, pb.ClearAllStateCommandMessage()))


def read_lazily(key: bytes, completion_id: int) -> StateRead:
    message = pb.GetLazyStateCommandMessage(key=key, result_completion_id=completion_id)
    return StateRead(frame(MessageType.GET_LAZY_STATE_COMMAND, message))


def read_keys_lazily(completion_id: int) -> StateRead:
    message = pb.GetLazyStateKeysCommandMessage(result_completion_id=completion_id)
    return StateRead(frame(MessageType.GET_LAZY_STATE_KEYS_COMMAND, message))


def read_eagerly(key: bytes, value: bytes | None) -> Recorded:
    message = pb.GetEagerStateCommandMessage(key=key)
    if value is None:
        message.void.SetInParent()
    else:
        message.value.content = value
    return Recorded(frame(MessageType.GET_EAGER_STATE_COMMAND, message))


def sleep(completion_id: int, wake_up_ms: int) -> SleepStarted:
    message = pb.SleepCommandMessage(wake_up_time=wake_up_ms, result_completion_id=completion_id)
    return SleepStarted(frame(MessageType.SLEEP_COMMAND, message), CompletionId(completion_id), Millis(wake_up_ms))


def run(completion_id: int) -> RunStarted:
    message = pb.RunCommandMessage(result_completion_id=completion_id)
    return RunStarted(frame(MessageType.RUN_COMMAND, message), CompletionId(completion_id))


def run_done(completion_id: int, value: bytes = b"done", *, ack_wanted: bool = False) -> RunCompleted:
    done = messages.value_notification(MessageType.RUN_COMPLETION_NOTIFICATION, completion_id, value)
    return RunCompleted(done, CompletionId(completion_id), ack_wanted)


def call(
    parent: InvocationId,
    target: InvocationTarget,
    completion_id: int,
    *,
    incarnation: int = 0,
    command_index: int = 1,
    idempotency_key: str | None = None,
    journal_retention_ms: int = 0,
    completion_retention_ms: int = DAY_MS,
) -> Called:
    """Completion ids `completion_id` (the callee's id) and the next one (its result)."""
    message = pb.CallCommandMessage(
        service_name=target.service,
        handler_name=target.handler,
        parameter=b"in",
        key=target.key or "",
        invocation_id_notification_idx=completion_id,
        result_completion_id=completion_id + 1,
    )
    if idempotency_key is not None:
        message.idempotency_key = idempotency_key
    return _called(
        frame(MessageType.CALL_COMMAND, message),
        parent,
        target,
        incarnation,
        command_index,
        idempotency_key,
        journal_retention_ms,
        completion_retention_ms,
    )


def send(
    parent: InvocationId,
    target: InvocationTarget,
    completion_id: int,
    *,
    at_ms: int = 0,
    incarnation: int = 0,
    command_index: int = 1,
    idempotency_key: str | None = None,
    journal_retention_ms: int = 0,
    completion_retention_ms: int = DAY_MS,
) -> Called:
    message = pb.OneWayCallCommandMessage(
        service_name=target.service,
        handler_name=target.handler,
        parameter=b"in",
        key=target.key or "",
        invoke_time=at_ms,
        invocation_id_notification_idx=completion_id,
    )
    if idempotency_key is not None:
        message.idempotency_key = idempotency_key
    return _called(
        frame(MessageType.ONE_WAY_CALL_COMMAND, message),
        parent,
        target,
        incarnation,
        command_index,
        idempotency_key,
        journal_retention_ms,
        completion_retention_ms,
    )


def _called(
    call_frame: bytes,
    parent: InvocationId,
    target: InvocationTarget,
    incarnation: int,
    command_index: int,
    idempotency_key: str | None,
    journal_retention_ms: int,
    completion_retention_ms: int,
) -> Called:
    service_kind, handler_kind = kinds_of(target)
    callee = callee_id(parent, incarnation, command_index, target, handler_kind, idempotency_key)  # type: ignore[arg-type]
    return Called(call_frame, callee, service_kind, handler_kind, journal_retention_ms, completion_retention_ms)


def suspended(*completions: int, signals: tuple[int, ...] = (1,)) -> Suspended:
    """Waits for any of these completions, or for CANCEL, as V5 and V6 do."""
    return Suspended(Future(list(completions), list(signals)))


def attempt_failed(then: AfterFailure | None = None, *, code: int = 500, counts: bool = True) -> AttemptFailed:
    return AttemptFailed(
        FailureInfo(code, "boom", "RT0007"), then or RetryAt(Millis(START_MS + 500), counted=True), counts
    )


def notification(data: bytes) -> pb.Notification:
    """What a stored notification's frame says."""
    return pb.Notification.FromString(data[HEADER_BYTES:])

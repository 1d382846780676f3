"""◐ shell · From request to command, and back: append, await the answer, ask again if it is late.

Replies are lossy: what is applied between a leader's end and the next announcement answers nobody.  So
the ingress owns liveness (correctness 17): the same request is asked again, with the same id, until it is
answered or so old that nothing could act on it any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass

from perdure.protocol import ids, messages
from perdure_processor.clock import Clock
from perdure_processor.host import Host
from perdure_processor.log import Appended, Outcome, Refused
from perdure_processor.log.tail import TooLarge
from perdure_processor.metrics import Metrics
from perdure_processor.model import actions
from perdure_processor.model.commands import (
    Attach,
    Command,
    Envelope,
    GetOutput,
    Invoke,
    OperatorCommand,
    Signal,
)
from perdure_processor.model.derived_ids import idempotent_id, workflow_id
from perdure_processor.model.ids import InvocationId, Millis, NodeId, slot_of
from perdure_processor.model.limits import (
    INGRESS_BYTES_IN_FLIGHT_MAX,
    REASK_AFTER_MS,
    REASK_AFTER_MS_MAX,
    REQUEST_HORIZON_MS,
    WAITING_REQUESTS_MAX,
)
from perdure_processor.model.results import Failed as FailedResult
from perdure_processor.model.results import RequestId, Succeeded
from perdure_processor.model.schema import HandlerKind, ServiceKind
from perdure_server.ingress import errors, requests
from perdure_server.ingress.requests import InvokeRequest
from perdure_server.limits import REASK_SWEEP_S


@dataclass(slots=True, eq=False)
class _Waiter:
    """A request that has no answer yet."""

    command: Command
    request: RequestId
    invocation_id: InvocationId
    issued_ms: Millis
    answered: asyncio.Future[actions.Answer | Outcome]
    # The command is in the log: from here on it is only asked for, never made again.
    recorded: bool
    ask_at_ms: int
    pause_ms: int
    in_flight: int = 0
    asked_again: bool = False


class LogDispatcher:
    """The node's Dispatcher (see requests.py): every request becomes a command of the partition it belongs to."""

    def __init__(
        self,
        host: Host,
        node: NodeId,
        clock: Clock,
        *,
        random_bits: Callable[[int], int],
        metrics: Metrics,
        refusal: Callable[[], str | None] = lambda: None,
        waiting_max: int = WAITING_REQUESTS_MAX,
    ) -> None:
        self._host = host
        self._node = node
        self._clock = clock
        self._random_bits = random_bits
        self._metrics = metrics
        # Why new requests are turned away for now (disk nearly full), or None.
        self._refusal = refusal
        self._waiting_max = waiting_max
        self._loop = asyncio.get_running_loop()
        self._number = 0
        self._waiters: dict[int, _Waiter] = {}
        self._bytes_in_flight = 0
        self._sweep_handle = self._loop.call_later(REASK_SWEEP_S, self._sweep)

    def close(self) -> None:
        """Nobody is answered any more."""
        self._sweep_handle.cancel()
        for waiter in list(self._waiters.values()):
            self._resolve(waiter, Refused("the node stops"))

    # -- requests ----------------------------------------------------------------
    async def call(self, request: InvokeRequest) -> requests.CallAnswer:
        match await self._ask(self._invoke(request, one_way=False)):
            case actions.Answered() as answered:
                return _ended(answered)
            case actions.Crowded():
                return requests.Overloaded()
            case other:
                return _unavailable(other, write=request.idempotency_key is None)

    async def send(self, request: InvokeRequest) -> requests.SendAnswer:
        match await self._ask(self._invoke(request, one_way=True)):
            case actions.Taken(id=invocation_id, previously=previously, execution_ms=execution_ms):
                return requests.Accepted(invocation_id, previously, execution_ms or None)
            case other:
                return _unavailable(other, write=request.idempotency_key is None)

    async def attach(self, invocation_id: InvocationId) -> requests.AttachAnswer:
        match await self._ask(Attach(invocation_id, self._next_request(), self._clock.now_ms())):
            case actions.Answered() as answered:
                return _ended(answered)
            case actions.Missing():
                return requests.NotFound()
            case actions.Crowded():
                return requests.Overloaded()
            case other:
                return _unavailable(other, write=False)

    async def output(self, invocation_id: InvocationId) -> requests.OutputAnswer:
        match await self._ask(GetOutput(invocation_id, self._next_request(), self._clock.now_ms())):
            case actions.Answered() as answered:
                return _ended(answered)
            case actions.Missing():
                return requests.NotFound()
            case actions.Running():
                return requests.NotReady()
            case actions.Unkept():
                return requests.NoOutput()
            case other:
                return _unavailable(other, write=False)

    async def complete_awakeable(
        self, invocation_id: InvocationId, signal_index: int, value: bytes | None, failure: tuple[int, str] | None
    ) -> requests.CompletionAnswer:
        if failure is None:
            frame = messages.value_signal(signal_index, value or b"")
        else:
            frame = messages.failure_signal(signal_index, *failure)
        command = Signal(invocation_id, signal_index, frame, self._next_request(), self._clock.now_ms())
        match await self._ask(command):
            case actions.Taken():
                return requests.Accepted(invocation_id, previously=False)
            case other:
                # An awakeable is completed once: asking again is safe.
                return _unavailable(other, write=False)

    async def operate(
        self, make: Callable[[RequestId, Millis], OperatorCommand]
    ) -> actions.Answer | requests.Unavailable | requests.Overloaded:
        """Do what an operator asks for, once; `make` is given the number and the time of the request."""
        answer = await self._ask(make(self._next_request(), self._clock.now_ms()))
        if isinstance(answer, actions.Acted | actions.Missing):
            return answer
        return _unavailable(answer, write=True)

    # -- commands ----------------------------------------------------------------
    def _next_request(self) -> RequestId:
        self._number += 1
        return RequestId(self._node.name, self._node.generation, self._number)

    def _invoke(self, request: InvokeRequest, one_way: bool) -> Invoke:
        now_ms = self._clock.now_ms()
        service, handler, target = request.service, request.handler, request.target
        idempotency_key = request.idempotency_key
        if idempotency_key is None and service.kind is not ServiceKind.WORKFLOW:
            # Everybody may attach to what they sent: a key of our own makes the result kept like any other.
            idempotency_key = ids.ulid_text(now_ms, self._random_bits(80))
        if handler.kind is HandlerKind.WORKFLOW:
            assert target.key is not None, "a workflow has a key"
            invocation_id = workflow_id(target.service, target.key)
        elif idempotency_key is not None:
            invocation_id = idempotent_id(target.service, target.key, target.handler, idempotency_key)
        else:
            assert target.key is not None, "a plain service is no workflow"
            partition_key = ids.partition_key_of_key(target.key)
            invocation_id = InvocationId(ids.invocation_id(partition_key, self._random_bits(128)))
        execution_ms = 0 if request.delay_ms is None else max(1, now_ms + request.delay_ms)
        return Invoke(
            invocation_id,
            target,
            service.kind,
            handler.kind,
            messages.input_frame(request.headers, request.body),
            handler.journal_retention_ms,
            handler.completion_retention_ms,
            idempotency_key,
            one_way,
            Millis(execution_ms),
            now_ms,
            self._next_request(),
            None,
            None,
        )

    async def _ask(
        self, command: Invoke | Attach | GetOutput | Signal | OperatorCommand
    ) -> actions.Answer | Outcome | requests.Overloaded:
        if len(self._waiters) >= self._waiting_max or self._bytes_in_flight >= INGRESS_BYTES_IN_FLIGHT_MAX:
            return requests.Overloaded()
        reason = self._refusal()
        if reason is not None:
            return Refused(reason)
        request = command.request
        assert request is not None, "what the ingress asks, it asks by number"
        waiter = _Waiter(
            command,
            request,
            command.id,
            command.issued_ms,
            self._loop.create_future(),
            False,
            self._clock.monotonic_ms() + REASK_AFTER_MS,
            REASK_AFTER_MS,
        )
        # Before the append: the answer may come with its acknowledgement.
        self._waiters[request.number] = waiter
        try:
            self._append(waiter, command)
            return await waiter.answered
        except TooLarge as error:
            raise errors.body_too_long() from error
        finally:
            self._waiters.pop(request.number, None)

    def _append(self, waiter: _Waiter, command: Command) -> None:
        def on_outcome(outcome: Outcome) -> None:
            self._bytes_in_flight -= size
            waiter.in_flight -= 1
            if type(outcome) is Appended:
                waiter.recorded = True
            elif type(outcome) is Refused and not waiter.asked_again:
                # Never sent, and nothing sent before may turn up: the client can be told so.
                self._resolve(waiter, outcome)
            # Unknown: the same request is made again when its time comes; apply takes it once.

        size = self._host.append(
            self._host.partition_of(waiter.invocation_id),
            Envelope(slot_of(waiter.invocation_id), None, command),
            on_outcome,
        )
        waiter.in_flight += 1
        self._bytes_in_flight += size

    # -- answers -----------------------------------------------------------------
    def respond(self, request: RequestId, answer: actions.Answer) -> None:
        """A leader's answer. One that nobody waits for any more is dropped."""
        if request.generation == self._node.generation and request.node == self._node.name:
            waiter = self._waiters.get(request.number)
            if waiter is not None:
                self._resolve(waiter, answer)

    def _resolve(self, waiter: _Waiter, answer: actions.Answer | Outcome) -> None:
        if not waiter.answered.done():
            waiter.answered.set_result(answer)

    # -- liveness ----------------------------------------------------------------
    def _sweep(self) -> None:
        now_ms = self._clock.monotonic_ms()
        wall_ms = self._clock.now_ms()
        for waiter in list(self._waiters.values()):
            if now_ms >= waiter.ask_at_ms:
                self._ask_again(waiter, now_ms, wall_ms)
        self._sweep_handle = self._loop.call_later(REASK_SWEEP_S, self._sweep)

    def _ask_again(self, waiter: _Waiter, now_ms: int, wall_ms: Millis) -> None:
        waiter.pause_ms = min(waiter.pause_ms * 2, REASK_AFTER_MS_MAX)
        waiter.ask_at_ms = now_ms + waiter.pause_ms
        if waiter.in_flight:
            return  # the log has not said yet what became of the last one
        self._metrics.requests_asked_again += 1
        waiter.asked_again = True
        command = waiter.command
        if waiter.recorded and _may_attach(command, wall_ms):
            # It is known and may take long: a question of its own, which never grows too old.
            self._append(waiter, Attach(waiter.invocation_id, waiter.request, wall_ms))
        elif isinstance(command, GetOutput):
            self._append(waiter, GetOutput(waiter.invocation_id, waiter.request, wall_ms))
        elif wall_ms > waiter.issued_ms + REQUEST_HORIZON_MS:
            self._resolve(waiter, actions.Expired())
        else:
            # The same request, word for word: if it was taken it changes nothing and is answered again.
            self._append(waiter, command)


def _may_attach(command: Command, wall_ms: Millis) -> bool:
    """Whether a recorded command may be asked about by attaching to what it created."""
    if not isinstance(command, Invoke):
        return isinstance(command, Attach)
    if command.handler_kind == HandlerKind.WORKFLOW and wall_ms <= command.issued_ms + REQUEST_HORIZON_MS:
        # Of two that start a workflow one is told 409: attached, it would be given the other one's result.
        # Later there is no other way to ask, and that one has been told long since.
        return False
    return not command.one_way


def _ended(answered: actions.Answered) -> requests.Success | requests.Failed:
    match answered.result:
        case Succeeded(value=body):
            return requests.Success(answered.id, body, answered.expires_ms, answered.target)
        case FailedResult(code=code, message=message, metadata=metadata):
            return requests.Failed(answered.id, code, message, metadata, answered.expires_ms)


def _unavailable(answer: object, write: bool) -> requests.Unavailable | requests.Overloaded:
    """Why there is no answer. A write may have happened unless the log refused it outright."""
    match answer:
        case requests.Overloaded():
            return answer
        case actions.Crowded():
            return requests.Overloaded()
        case Refused(reason=reason):
            return requests.Unavailable(reason)
        case actions.Expired():
            seconds = REQUEST_HORIZON_MS // 1000
            return requests.Unavailable(f"no answer from the partition within {seconds} s", may_have_run=write)
        case actions.Missing():
            return requests.Unavailable("the result is no longer kept", may_have_run=write)
        case _:
            raise AssertionError(f"{answer!r} answers no such request")

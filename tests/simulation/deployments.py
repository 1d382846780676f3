"""A deployment in the test: a small SDK that replays and compares journals as service-protocol §4 says.

Handlers are generators (context.py). A session is one attempt: it runs the handler along the journal, decides
when closures run and when to suspend, and tells the checker what it was sent.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Generator
from typing import TYPE_CHECKING, Any

from google.protobuf.message import Message

from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import Decoder, MessageType, encode_frame, is_command, message_name
from perdure.protocol.messages import decode_message
from perdure_processor.invoker.transport import StreamRequest
from simulation.context import (
    NAMED,
    Closure,
    Context,
    Handler,
    Mismatch,
    Retryable,
    Terminal,
    Wait,
    named_handle,
)
from simulation.network import Exchange

if TYPE_CHECKING:
    from simulation.world import World

CANCEL = 1  # the signal that every wait is raced with


class Deployment:
    """One endpoint: its handlers, its mode and the highest version it speaks."""

    def __init__(
        self, world: World, uri: str, handlers: dict[tuple[str, str], Handler], full_duplex: bool, version_max: int
    ) -> None:
        self.world = world
        self.uri = uri
        self.handlers = handlers
        self.full_duplex = full_duplex
        self.version_max = version_max
        self.draw = random.Random(f"{world.options.seed}/{uri}")

    def serve(self, request: StreamRequest, exchange: Exchange) -> Session:
        _, _, service, handler = request.path.split("/")
        headers = dict(request.headers)
        version = int(headers["content-type"].rpartition(".v")[2])
        assert 5 <= version <= self.version_max, "the server negotiated a version that nobody offered"
        return Session(self, exchange, self.handlers[service, handler], version, request.full_duplex)


class Session:
    """One attempt as the SDK sees it."""

    def __init__(
        self, deployment: Deployment, exchange: Exchange, handler: Handler, version: int, full_duplex: bool
    ) -> None:
        self.deployment = deployment
        self.world = deployment.world
        self.version = version
        # The moment the request was made: what was recorded before it must be in its replay.
        self.opened_at = self.world.checker.tick()
        self.invocation_id = b""
        self._exchange = exchange
        self._handler = handler
        self._decoder = Decoder()
        self._start: pb.StartMessage | None = None
        self._left_to_replay = 0
        self._replayed: deque[tuple[int, bytes]] = deque()
        self._arrived: deque[tuple[int, Any]] = deque()
        self._ready: dict[int, pb.Notification] = {}
        self._heard: set[int] = set()
        self._names: dict[int, str] = {}  # of signals, by their handles
        self._input_closed = False
        self._full_duplex = full_duplex
        self._over = False
        self._program: Generator[Wait, None, bytes] | None = None
        self._waiting: Wait | None = None
        self._closures: dict[int, Closure] = {}
        self._executing: set[int] = set()  # only asked, never walked through
        self._proposed: dict[int, pb.ProposeRunCompletionMessage] = {}
        self._output = bytearray()
        self._slow = 0.0
        options, network = self.world.options, self.world.network
        if network.happens("slow"):
            self._slow = self.deployment.draw.randint(0, options.slow_ms_max) / 1000

    # -- the stream ----------------------------------------------------------------------------------------
    def receive(self, data: bytes) -> None:
        if self._over:
            return
        for code, _, payload in self._decoder.feed(data):
            self._on_frame(code, payload)
        self._go_on()

    def input_closed(self) -> None:
        self._input_closed = True
        if self._start is None or self._left_to_replay:
            self._fail(571, "the request ended before the replay was complete")
        self._go_on()

    def reset(self) -> None:
        self._over = True

    def _on_frame(self, code: int, payload: bytes) -> None:
        if self._over:
            return
        message: Any = decode_message(code, payload)
        if code == MessageType.START:
            assert self._start is None, "Start is sent once"
            self._start = message
            self.invocation_id = message.id
            self._left_to_replay = message.known_entries
            self._exchange.respond(200, [("content-type", f"application/vnd.restate.invocation.v{self.version}")])
            return
        assert self._start is not None, "Start comes first"
        if code == MessageType.PROPOSE_RUN_COMPLETION_ACK:
            proposed = self._proposed.get(message.completion_id)
            self.world.checker.expect(
                proposed is not None and not self._left_to_replay, "an ack came for a run this attempt never proposed"
            )
            assert proposed is not None
            notification = pb.Notification(completion_id=message.completion_id)
            if proposed.HasField("failure"):
                notification.failure.CopyFrom(proposed.failure)
            else:
                notification.value.content = proposed.value
            self._arrive(message.completion_id, notification)
            return
        if is_command(code):
            self.world.checker.expect(self._left_to_replay > 0, f"{message_name(code)} after the replay")
            self._replayed.append((code, payload))
        else:
            handle = _handle(message)
            self.world.checker.saw_notification(self, handle, payload)
            self._arrive(handle, message)
        if self._left_to_replay:
            self._left_to_replay -= 1
            if not self._left_to_replay:
                self._begin()

    def _arrive(self, handle: int, notification: pb.Notification) -> None:
        # An operator who was not answered cancels again.
        once = handle not in self._heard or handle == -CANCEL
        self.world.checker.expect(once, f"completion {handle} came twice to one attempt")
        self._heard.add(handle)
        self._arrived.append((handle, notification))

    def _begin(self) -> None:
        code, payload = self._replayed.popleft()
        assert code == MessageType.INPUT_COMMAND, "entry 0 is the input"
        assert self._start is not None
        message = pb.InputCommandMessage.FromString(payload)
        context = Context(self, self._start)
        self._program = self._handler(context, message.value.content)
        self._advance()

    # -- running the handler -------------------------------------------------------------------------------
    def _advance(self) -> None:
        """Let the handler run to where it waits next."""
        program = self._program
        assert program is not None
        try:
            self._waiting = next(program)
        except StopIteration as returned:
            self._finish(pb.OutputCommandMessage(value=pb.Value(content=returned.value)))
        except Terminal as failure:
            self._finish(pb.OutputCommandMessage(failure=pb.Failure(code=failure.code, message=str(failure))))
        except Retryable as failure:
            self._fail(500, str(failure), failure.delay_ms)
        except Mismatch as mismatch:
            self.world.checker.violated(f"journal mismatch: {mismatch}")
            self._fail(570, str(mismatch))

    def _go_on(self) -> None:
        """Resolve what the handler waits for, one notification at a time (§4.5)."""
        while self._waiting is not None and not self._over:
            if self._resolved(self._waiting):
                self._waiting = None
                self._advance()
            elif self._arrived:
                handle, notification = self._arrived.popleft()
                self._ready[handle] = notification
            else:
                self._progress(self._waiting)
                break
        self._flush()

    def _resolved(self, wait: Wait) -> bool:
        found = [handle for handle in wait.handles if handle in self._ready]
        if not wait.all:
            return bool(found)
        failed = any(self._ready[handle].HasField("failure") for handle in found)
        return failed or len(found) == len(wait.handles)

    def _progress(self, wait: Wait) -> None:
        """Nothing more is here: start the closures that are waited for, suspend, or wait."""
        for handle in wait.handles:
            if handle in self._closures and handle not in self._ready and not self._replayed:
                self._execute(handle)
        if self._executing.intersection(wait.handles):
            return
        # What is there already is left out: the server would take it for a reason to start again at once.
        wait = Wait(tuple(handle for handle in wait.handles if handle not in self._ready), wait.all)
        if self._replayed:
            self.world.checker.violated("the handler waits for what the journal cannot resolve")
            self._fail(570, "awaiting in replay")
        elif self._input_closed:
            self._suspend(wait)
        elif self.version >= 7 and not self._executing:
            self._send(MessageType.AWAITING_ON, pb.AwaitingOnMessage(awaiting_on=self._future(wait)))

    def _execute(self, completion_id: int) -> None:
        closure = self._closures.pop(completion_id)
        self._executing.add(completion_id)
        self.world.checker.closure_runs(self, completion_id)
        pause = self._slow if self._slow else self.deployment.draw.randint(0, 30) / 1000
        self.world.loop.call_later(pause, self._executed, completion_id, closure, context=self.world.network.outside)

    def _executed(self, completion_id: int, closure: Closure) -> None:
        self._executing.discard(completion_id)
        if self._over:
            return
        proposal = pb.ProposeRunCompletionMessage(result_completion_id=completion_id)
        try:
            if self.world.run_fails(self.invocation_id, completion_id):
                raise Retryable("the other system said no", self.deployment.draw.choice((None, 20, 300)))
            proposal.value = closure()
        except Terminal as failure:
            proposal.failure.code = failure.code
            proposal.failure.message = str(failure)
        except Retryable as failure:
            self._fail(500, str(failure), failure.delay_ms)
            return
        if self.world.network.happens("die_before_proposal"):
            self._over = True
            self._exchange.cut()
            return
        self._proposed[completion_id] = proposal
        self._output += encode_frame(
            MessageType.PROPOSE_RUN_COMPLETION, proposal.SerializeToString(), requested_ack=self.version >= 7
        )
        self._go_on()

    # -- what goes out -------------------------------------------------------------------------------------
    def command(self, code: MessageType, message: Message, *ignored: str, also: MessageType | None = None) -> Any:
        """Write a command, or take the replayed one and hold the handler to it. Returns the one in the journal."""
        if not self._replayed:
            self._send(code, message)
            return message
        found_code, payload = self._replayed.popleft()
        if found_code == also:
            return decode_message(found_code, payload)
        if found_code != code:
            raise Mismatch(f"{message_name(found_code)} in the journal, {message_name(code)} from the handler")
        found = decode_message(code, payload)
        journaled = type(message).FromString(payload)
        for name in ignored:
            message.ClearField(name)
            journaled.ClearField(name)
        if journaled != message:
            raise Mismatch(f"{message_name(code)}: {journaled} in the journal, {message} from the handler")
        return found

    @property
    def replaying(self) -> bool:
        return bool(self._replayed)

    def run(self, completion_id: int, closure: Closure) -> None:
        self._closures[completion_id] = closure

    def named(self, name: str) -> int:
        handle = named_handle(name)
        self._names[handle] = name
        return handle

    def take(self, handle: int) -> Any:
        """A completed handle's notification."""
        return self._ready.pop(handle)

    def failed(self, handle: int) -> bool:
        return self._ready[handle].HasField("failure")

    def settled(self, handle: int) -> bool:
        return handle in self._ready

    def _finish(self, output: pb.OutputCommandMessage) -> None:
        try:
            self.command(MessageType.OUTPUT_COMMAND, output)
        except Mismatch as mismatch:
            self.world.checker.violated(f"journal mismatch: {mismatch}")
        self.world.checker.expect(not self._replayed, "commands were left to replay after the handler's end")
        options, network = self.world.options, self.world.network
        if network.happens("late_end"):
            self._flush()
            pause = self.deployment.draw.randint(0, options.late_end_ms_max) / 1000
            self.world.loop.call_later(pause, self._end, context=network.outside)
        else:
            self._end()

    def _end(self) -> None:
        self._last(MessageType.END, pb.EndMessage())

    def _suspend(self, wait: Wait) -> None:
        message = pb.SuspensionMessage()
        if self.version >= 7:
            message.awaiting_on.CopyFrom(self._future(wait))
        else:
            message.waiting_completions.extend(handle for handle in wait.handles if handle > 0)
            message.waiting_signals.append(CANCEL)
            message.waiting_signals.extend(-handle for handle in wait.handles if NAMED < handle < -CANCEL)
            message.waiting_named_signals.extend(self._names[handle] for handle in wait.handles if handle <= NAMED)
        self._last(MessageType.SUSPENSION, message)

    def _fail(self, code: int, text: str, delay_ms: int | None = None) -> None:
        message = pb.ErrorMessage(code=code, message=text)
        if delay_ms is not None:
            message.next_retry_delay = delay_ms
        self._last(MessageType.ERROR, message)

    def _last(self, code: MessageType, message: Message) -> None:
        if not self._over:
            self._send(code, message)
            self._flush()
            self._over = True
            self._exchange.end()

    def _send(self, code: MessageType, message: Message) -> None:
        self._output += encode_frame(code, message.SerializeToString())

    def _flush(self) -> None:
        if self._output and not self._over:
            data = bytes(self._output)
            self._output.clear()
            self._exchange.write(data)

    def _future(self, wait: Wait) -> pb.Future:
        """The awaited tree, raced with the cancellation signal as every SDK does."""
        every = wait.all and len(wait.handles) > 1
        leaves = pb.Future(
            waiting_completions=[handle for handle in wait.handles if handle > 0],
            waiting_signals=[-handle for handle in wait.handles if NAMED < handle < 0],
            waiting_named_signals=[self._names[handle] for handle in wait.handles if handle <= NAMED],
            combinator_type=pb.ALL_SUCCEEDED_OR_FIRST_FAILED if every else pb.FIRST_COMPLETED,
        )
        if len(wait.handles) == 1:
            leaves.waiting_signals.append(CANCEL)
            return leaves
        return pb.Future(waiting_signals=[CANCEL], nested_futures=[leaves], combinator_type=pb.FIRST_COMPLETED)


def _handle(notification: pb.Notification) -> int:
    match notification.WhichOneof("id"):
        case "completion_id":
            return notification.completion_id
        case "signal_id":
            return -notification.signal_id
        case _:
            return named_handle(notification.signal_name)

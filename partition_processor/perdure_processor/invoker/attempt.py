"""● core · One attempt: bytes from the deployment become effects, notifications become bytes for it.

The machine holds no stream, no clock and no schema.  `receive` decodes what came; the caller proposes the
effects when `wants_flush` says that somebody waits for an answer, or when its own bounds say so.
"""

from __future__ import annotations

import enum
import hashlib
from collections import deque
from collections.abc import Callable, Sequence
from typing import TypeVar

from perdure.protocol import ids, messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.errors import ProtocolError
from perdure.protocol.framing import (
    Decoder,
    FrameTooLarge,
    MessageType,
    encode_frame,
    is_command,
    message_name,
)
from perdure.protocol.ids import IdError
from perdure.protocol.messages import SIGNAL_INDEX_MIN, DecodeError
from perdure_processor.model.derived_ids import idempotent_id, workflow_id
from perdure_processor.model.effects import (
    AckWanted,
    Called,
    Effect,
    Ended,
    FailureInfo,
    InvocationAsked,
    OutputSet,
    Pinned,
    PromiseUsed,
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
from perdure_processor.model.ids import CompletionId, DeploymentId, Incarnation, InvocationId, InvocationTarget, Millis
from perdure_processor.model.limits import (
    EFFECT_OVERHEAD_BYTES,
    FAILURE_TEXT_MAX,
    FUTURE_BYTES_MAX,
    FUTURE_DEPTH_MAX,
    MESSAGE_SIZE_MAX,
)
from perdure_processor.model.schema import HandlerKind, HandlerSchema, ServiceKind, ServiceSchema
from perdure_processor.model.value import value

Awaiting = TypeVar("Awaiting", pb.SuspensionMessage, pb.AwaitingOnMessage)


class Behavior(enum.Enum):
    """What shall follow a failure: the retry policy decides, or the SDK has (V7) or we have."""

    RETRY = "retry"
    PAUSE = "pause"
    KILL = "kill"


class AttemptError(Exception):
    """The attempt fails; `failure` says why, and names the documented code."""

    def __init__(
        self,
        failure: FailureInfo,
        behavior: Behavior = Behavior.RETRY,
        delay_ms: int | None = None,
        counts_since_entry: bool = True,
    ) -> None:
        super().__init__(failure.message)
        self.failure = failure
        self.behavior = behavior
        self.delay_ms = delay_ms
        self.counts_since_entry = counts_since_entry


@value
class AttemptStart:
    """What an attempt knows of its invocation when it starts."""

    id: InvocationId
    incarnation: Incarnation
    attempt: int
    target: InvocationTarget
    service_kind: int
    handler_kind: int
    # Entries and commands in the replay; completion and result as the row has them.
    entries: int
    commands: int
    has_output: bool
    deployment_id: DeploymentId
    protocol_version: int
    pinned: bool
    # Runs in the replay whose result is not: these may be proposed.
    open_runs: Sequence[int] = ()


@value
class AttemptState:
    """What is known of the last attempt and stored nowhere: the running one, or one that failed."""

    running: bool
    started_ms: Millis
    deployment_id: DeploymentId
    # `x-restate-server` of its response, once that has begun.
    server: str | None
    # What the handler last said it waits for (V7).
    awaiting: Future | None


# Finds what a call names: (service, handler) → schemas, or None. Looked up when the command arrives.
Resolve = Callable[[str, str], tuple[ServiceSchema, HandlerSchema] | None]


class Attempt:
    """The protocol of one attempt, server side."""

    __slots__ = (
        "_decoder",
        "_frames",
        "_has_output",
        "_needs_pin",
        "_open_runs",
        "_received",
        "_resolve",
        "awaiting",
        "command_index",
        "cursor",
        "effects",
        "effects_bytes",
        "ended",
        "first_command_index",
        "start",
        "wants_flush",
    )

    def __init__(self, start: AttemptStart, resolve: Resolve, message_size_max: int = MESSAGE_SIZE_MAX) -> None:
        self.start = start
        self._resolve = resolve
        self._decoder = Decoder(message_size_max)
        # Bytes are decoded when their turn comes: small frames are many times their size once they are decoded.
        self._received: deque[bytes] = deque()
        self._frames: deque[tuple[int, bool, bytes]] = deque()
        self._open_runs = set(start.open_runs)
        self._has_output = start.has_output
        self._needs_pin = not start.pinned
        # Effects not yet proposed, and the index of the first command among them.
        self.effects: list[Effect] = []
        self.effects_bytes = 0
        self.command_index = start.commands
        self.first_command_index = start.commands
        # Journal entries the attempt has been sent: what lies below is never forwarded again (correctness 4).
        self.cursor = start.entries
        self.wants_flush = False
        # What the handler last said it waits for (V7), until something arrives: for display only.
        self.awaiting: Future | None = None
        # A terminal message was seen: nothing counts after it.
        self.ended = False

    # -- what came from the deployment ---------------------------------------
    def receive(self, data: bytes) -> None:
        """Take bytes in; `advance` handles the frames they complete."""
        self._received.append(data)

    def _decode(self, data: bytes) -> None:
        try:
            self._frames.extend(self._decoder.feed(data))
        except FrameTooLarge as error:
            self._frames.extend(error.frames)
            self._frames.append((-1, False, str(error).encode()))

    def advance(self, frames_max: int) -> bool:
        """Handle up to `frames_max` frames; True when more are waiting. Raises AttemptError."""
        frames, received = self._frames, self._received
        while frames_max and not self.ended:
            if not frames:
                if not received:
                    return False
                self._decode(received.popleft())
                continue
            frames_max -= 1
            code, ack, payload = frames.popleft()
            try:
                self._on_frame(code, ack, payload)
            except DecodeError as error:
                raise self._violation(f"{message_name(code)} does not decode: {error}") from error
        return not self.ended and bool(frames or received)

    @property
    def pending_bytes(self) -> int:
        """Bytes of a frame that is not complete yet, once `advance` has handled all that are."""
        return self._decoder.pending

    def take_effects(self) -> tuple[int, list[Effect]]:
        """What is to be proposed now: (index of its first command, effects)."""
        taken = self.first_command_index, self.effects
        self.effects = []
        self.effects_bytes = 0
        self.first_command_index = self.command_index
        self.wants_flush = False
        return taken

    def closed_early(self) -> AttemptError:
        """The response ended without a terminal message."""
        rest = self._decoder.pending
        cut = f", in the middle of a message ({rest} bytes of it came)" if rest else ""
        return AttemptError(
            FailureInfo(
                500, f"unknown: {self._where()}: the stream ended without End, Suspension or Error{cut}", "RT0007"
            )
        )

    # -- what goes to the deployment -------------------------------------------
    def forward(self, index: int, frame: bytes, ack: CompletionId | None) -> bytes | None:
        """The bytes for a stored notification, or None if the attempt has it already."""
        if index < self.cursor:
            return None
        self.cursor = index + 1
        self.awaiting = None
        return frame if ack is None else messages.run_ack_frame(ack)

    def acknowledge(self, command_index: int) -> bytes | None:
        """The bytes that say a command is stored, or None if the attempt was sent that command itself."""
        return None if command_index < self.start.commands else messages.command_ack_frame(command_index)

    # -- frames ------------------------------------------------------------------
    def _on_frame(self, code: int, ack: bool, payload: bytes) -> None:
        start = self.start
        if is_command(code):
            effect = self._command(code, payload)
            self._pin()
            self.command_index += 1
            self.effects.append(effect)
            self.effects_bytes += len(payload) + EFFECT_OVERHEAD_BYTES
            if ack:
                self.effects.append(AckWanted())
                self.effects_bytes += EFFECT_OVERHEAD_BYTES
                self.wants_flush = True
            return
        match code:
            case MessageType.PROPOSE_RUN_COMPLETION:
                try:
                    proposed, frame = messages.proposal_to_run_completion(payload)
                except ProtocolError as error:
                    raise self._violation(str(error)) from error
                completion_id = CompletionId(proposed)
                # A second result of the same run would be given to some attempts and not to others.
                if completion_id not in self._open_runs:
                    raise self._violation(
                        f"ProposeRunCompletionMessage for completion {completion_id}, which no open run has"
                    )
                self._open_runs.remove(completion_id)
                self._pin()
                wanted = ack and start.protocol_version >= 7
                self.effects.append(RunCompleted(frame, completion_id, wanted))
                self.effects_bytes += len(frame) + EFFECT_OVERHEAD_BYTES
                self.wants_flush = True
            case MessageType.END:
                if not self._has_output:
                    raise self._violation("EndMessage without an OutputCommandMessage before it")
                self._pin()
                self._end(Ended())
            case MessageType.SUSPENSION:
                awaiting = self._awaiting(payload)
                self._pin()
                self._end(Suspended(awaiting))
            case MessageType.AWAITING_ON:
                awaiting_on = self._decode_awaiting(pb.AwaitingOnMessage, payload)
                if not awaiting_on.HasField("awaiting_on"):
                    raise self._violation("AwaitingOnMessage waits for nothing")
                self.awaiting = _future_of(awaiting_on.awaiting_on)
                # The handler waits: what was held back may be what it waits for.
                self.wants_flush = bool(self.effects)
            case MessageType.ERROR:
                raise self._error_of(payload)
            case -1:
                raise AttemptError(FailureInfo(500, f"{self._where()}: {payload.decode()}", "RT0003"))
            case _:
                raise self._violation(f"{message_name(code)} is not a message that a deployment may send")

    def _command(self, code: int, payload: bytes) -> Effect:
        frame = encode_frame(code, payload)
        kind = self.start.handler_kind
        match code:
            case MessageType.OUTPUT_COMMAND:
                output = pb.OutputCommandMessage.FromString(payload)
                if output.WhichOneof("result") is None:
                    raise self._violation("OutputCommandMessage has neither a value nor a failure")
                self._has_output = True
                return OutputSet(frame)
            case MessageType.RUN_COMMAND:
                completion_id = CompletionId(pb.RunCommandMessage.FromString(payload).result_completion_id)
                self._open_runs.add(completion_id)
                return RunStarted(frame, completion_id)
            case MessageType.GET_EAGER_STATE_COMMAND | MessageType.GET_EAGER_STATE_KEYS_COMMAND:
                self._check_state(code, kind != HandlerKind.STATELESS, "read")
                self._decode_state(code, payload)
                return Recorded(frame)
            case MessageType.GET_LAZY_STATE_COMMAND | MessageType.GET_LAZY_STATE_KEYS_COMMAND:
                self._check_state(code, kind != HandlerKind.STATELESS, "read")
                self._decode_state(code, payload)
                self.wants_flush = True
                return StateRead(frame)
            case MessageType.SET_STATE_COMMAND | MessageType.CLEAR_STATE_COMMAND | MessageType.CLEAR_ALL_STATE_COMMAND:
                self._check_state(code, kind in (HandlerKind.EXCLUSIVE, HandlerKind.WORKFLOW), "write")
                self._decode_state(code, payload)
                return StateSet(frame)
            case MessageType.SLEEP_COMMAND:
                sleep = pb.SleepCommandMessage.FromString(payload)
                self.wants_flush = True
                return SleepStarted(frame, CompletionId(sleep.result_completion_id), Millis(sleep.wake_up_time))
            case MessageType.CALL_COMMAND:
                self.wants_flush = True
                return self._call(frame, pb.CallCommandMessage.FromString(payload))
            case MessageType.ONE_WAY_CALL_COMMAND:
                self.wants_flush = True
                return self._call(frame, pb.OneWayCallCommandMessage.FromString(payload))
            case MessageType.SEND_SIGNAL_COMMAND:
                return self._signal(frame, pb.SendSignalCommandMessage.FromString(payload))
            case MessageType.COMPLETE_AWAKEABLE_COMMAND:
                return self._awakeable(frame, pb.CompleteAwakeableCommandMessage.FromString(payload))
            case (
                MessageType.GET_PROMISE_COMMAND
                | MessageType.PEEK_PROMISE_COMMAND
                | MessageType.COMPLETE_PROMISE_COMMAND
            ):
                self.wants_flush = True
                return self._promise(code, frame, payload)
            case MessageType.ATTACH_INVOCATION_COMMAND:
                self.wants_flush = True
                return self._asked(frame, pb.AttachInvocationCommandMessage.FromString(payload))
            case MessageType.GET_INVOCATION_OUTPUT_COMMAND:
                self.wants_flush = True
                return self._asked(frame, pb.GetInvocationOutputCommandMessage.FromString(payload))
            case MessageType.INPUT_COMMAND:
                raise self._violation("InputCommandMessage is written by the server")
            case _:
                raise self._violation(f"{message_name(code)} is not a message that a deployment may send")

    def _promise(self, code: int, frame: bytes, payload: bytes) -> PromiseUsed:
        if self.start.service_kind != ServiceKind.WORKFLOW:
            raise self._refused("RT0017", f"{message_name(code)}: only a workflow's handlers have promises", frame)
        message = messages.MESSAGE_CLASSES[code].FromString(payload)
        if isinstance(message, pb.CompletePromiseCommandMessage) and message.WhichOneof("completion") is None:
            raise self._violation("CompletePromiseCommandMessage has neither a value nor a failure")
        return PromiseUsed(frame, CompletionId(messages.completion_ids(code, payload)[0]))

    def _asked(
        self, frame: bytes, asked: pb.AttachInvocationCommandMessage | pb.GetInvocationOutputCommandMessage
    ) -> InvocationAsked:
        name = asked.DESCRIPTOR.name
        match asked.WhichOneof("target"):
            case "invocation_id":
                try:
                    target = InvocationId(ids.decode_invocation_id(asked.invocation_id))
                except IdError as error:
                    text = f"{name}: bad invocation id '{asked.invocation_id}': {error}"
                    raise self._refused("RT0017", text, frame) from error
            case "idempotent_request_target":
                request = asked.idempotent_request_target
                self._check_scope(name, request.HasField("scope"), frame)
                key = request.service_key if request.HasField("service_key") else None
                target = idempotent_id(request.service_name, key, request.handler_name, request.idempotency_key)
            case "workflow_target":
                workflow = asked.workflow_target
                self._check_scope(name, workflow.HasField("scope"), frame)
                target = workflow_id(workflow.workflow_name, workflow.workflow_key)
            case _:
                raise self._violation(f"{name} names no invocation")
        return InvocationAsked(frame, target, CompletionId(asked.result_completion_id))

    def _check_scope(self, name: str, used: bool, frame: bytes) -> None:
        if used:
            raise self._refused("RT0024", f"{name}: scope and limit key need flow control, which is not enabled", frame)

    def _call(self, frame: bytes, call: pb.CallCommandMessage | pb.OneWayCallCommandMessage) -> Called:
        name = "CallCommandMessage" if isinstance(call, pb.CallCommandMessage) else "OneWayCallCommandMessage"
        found = self._resolve(call.service_name, call.handler_name)
        if found is None:
            raise self._refused(
                "RT0018",
                f"{name} to {call.service_name}/{call.handler_name}: no such service or handler is registered; "
                "register the deployment that serves it",
                frame,
                code=404,
            )
        service, handler = found
        keyed = service.kind is not ServiceKind.SERVICE
        if call.key and not keyed:
            raise self._refused("RT0017", f"{name} to {service.name}: a plain service has no key", frame)
        self._check_scope(name, call.HasField("scope") or call.HasField("limit_key"), frame)
        idempotency_key = call.idempotency_key if call.HasField("idempotency_key") else None
        if idempotency_key == "":
            raise self._refused("RT0017", f"{name}: the idempotency key is empty", frame)
        target = InvocationTarget(service.name, call.key if keyed else None, handler.name)
        return Called(
            frame,
            callee_id(self.start.id, self.start.incarnation, self.command_index, target, handler.kind, idempotency_key),
            service.kind,
            handler.kind,
            handler.journal_retention_ms,
            handler.completion_retention_ms,
        )

    def _signal(self, frame: bytes, sent: pb.SendSignalCommandMessage) -> SignalSent:
        if sent.WhichOneof("signal_id") is None:
            raise self._violation("SendSignalCommandMessage names no signal")
        try:
            return SignalSent(frame, InvocationId(ids.decode_invocation_id(sent.target_invocation_id)))
        except IdError as error:
            raise self._refused(
                "RT0012", f"SendSignalCommandMessage: bad invocation id '{sent.target_invocation_id}': {error}", frame
            ) from error

    def _awakeable(self, frame: bytes, completed: pb.CompleteAwakeableCommandMessage) -> SignalSent:
        try:
            raw, index = ids.decode_awakeable_id(completed.awakeable_id)
            if index < SIGNAL_INDEX_MIN:
                raise IdError(f"signal {index} is no awakeable")
        except IdError as error:
            raise self._refused(
                "RT0012",
                f"CompleteAwakeableCommandMessage: bad awakeable id '{completed.awakeable_id}': {error}",
                frame,
            ) from error
        return SignalSent(frame, InvocationId(raw))

    def _check_state(self, code: int, allowed: bool, verb: str) -> None:
        if not allowed:
            raise self._refused(
                "RT0017", f"{message_name(code)}: this kind of handler may not {verb} state", encode_frame(code, b"")
            )

    def _decode_state(self, code: int, payload: bytes) -> None:
        """Whatever `apply` will read of it is there: it may not fail on what a deployment sent."""
        message = messages.MESSAGE_CLASSES[code].FromString(payload)
        if code in _WITH_STATE_KEY:
            try:
                message.key.decode()  # type: ignore[attr-defined]
            except UnicodeDecodeError as error:
                raise self._violation(f"{message_name(code)}: the key is not UTF-8: {error}") from error

    # -- ends --------------------------------------------------------------------
    def _pin(self) -> None:
        if self._needs_pin:
            self._needs_pin = False
            self.effects.append(Pinned(self.start.deployment_id, self.start.protocol_version))

    def _end(self, effect: Effect) -> None:
        self.effects.append(effect)
        self.ended = True
        self.wants_flush = True

    def _awaiting(self, payload: bytes) -> Future:
        message = self._decode_awaiting(pb.SuspensionMessage, payload)
        if message.HasField("awaiting_on"):
            future = _future_of(message.awaiting_on)
        else:
            future = Future(
                list(message.waiting_completions),
                list(message.waiting_signals),
                list(message.waiting_named_signals),
                [],
                Combinator.FIRST_COMPLETED,
            )
        if not future.has_leaves():
            raise self._violation("SuspensionMessage waits for nothing")
        return future

    def _decode_awaiting(self, cls: type[Awaiting], payload: bytes) -> Awaiting:
        """The message; one whose future is too deep is a reason to pause, not to try again."""
        if len(payload) > FUTURE_BYTES_MAX:
            raise self._violation(
                f"{cls.DESCRIPTOR.name} names what it waits for in {len(payload)} bytes, at most {FUTURE_BYTES_MAX} "
                "are taken"
            )
        try:
            message = cls.FromString(payload)
            levels = _depth(message.awaiting_on)
        except DecodeError:
            levels = _encoded_levels(payload, 4 if cls is pb.SuspensionMessage else 1)
            if levels <= FUTURE_DEPTH_MAX:
                raise
        if levels > FUTURE_DEPTH_MAX:
            what = f"the awaited future is more than {FUTURE_DEPTH_MAX} levels deep"
            raise AttemptError(FailureInfo(500, f"{self._where()}: {what}", "RT0025"), Behavior.PAUSE)
        return message

    def _error_of(self, payload: bytes) -> AttemptError:
        message = pb.ErrorMessage.FromString(payload)
        code = message.code if message.code else 500
        doc_code = {570: "RT0016", 571: "RT0012"}.get(code, "RT0007")
        failure = FailureInfo(
            code,
            message.message[:FAILURE_TEXT_MAX] or "unknown",
            doc_code,
            message.stacktrace[:FAILURE_TEXT_MAX],
            message.related_command_index if message.HasField("related_command_index") else None,
            message.related_command_name[:FAILURE_TEXT_MAX] if message.HasField("related_command_name") else None,
            message.related_command_type if message.HasField("related_command_type") else None,
        )
        behavior = {1: Behavior.PAUSE, 2: Behavior.KILL}.get(message.behavior, Behavior.RETRY)
        delay_ms = message.next_retry_delay if message.HasField("next_retry_delay") else None
        return AttemptError(failure, behavior, delay_ms)

    def _violation(self, what: str, code: int = 571) -> AttemptError:
        return AttemptError(
            FailureInfo(
                code, f"{self._where()}: protocol violation: {what}", "RT0012", command_index=self.command_index
            )
        )

    def _refused(self, doc_code: str, what: str, frame: bytes, code: int = 500) -> AttemptError:
        return AttemptError(
            FailureInfo(
                code,
                f"{self._where()}: {what}",
                doc_code,
                command_index=self.command_index,
                command_type=int.from_bytes(frame[:2], "big"),
            )
        )

    def _where(self) -> str:
        target = self.start.target
        return f"{target.service}/{target.handler}, command {self.command_index}"


def callee_id(
    parent: InvocationId,
    incarnation: Incarnation,
    command_index: int,
    target: InvocationTarget,
    kind: HandlerKind,
    idempotency_key: str | None,
) -> InvocationId:
    """The id of a call's target: derived from the target where the protocol says so, else from the call itself.

    Derived, not random: a command that is reported again after a lost append names the same callee (correctness 2)."""
    if target.key is not None and kind is HandlerKind.WORKFLOW:
        return workflow_id(target.service, target.key)
    if idempotency_key is not None:
        return idempotent_id(target.service, target.key, target.handler, idempotency_key)
    place = parent + incarnation.to_bytes(8, "big") + command_index.to_bytes(4, "big")
    digest = hashlib.sha256(b"call," + place).digest()
    if target.key is not None:
        partition_key = ids.partition_key_of_key(target.key)
    else:
        bucket = int.from_bytes(digest[16:18], "big") % ids.SERVICE_BUCKETS
        partition_key = ids.partition_key_of_bucket(target.service, bucket)
    return InvocationId(ids.invocation_id(partition_key, int.from_bytes(digest[:16], "big")))


_WITH_STATE_KEY = frozenset(
    (
        MessageType.GET_LAZY_STATE_COMMAND,
        MessageType.GET_EAGER_STATE_COMMAND,
        MessageType.SET_STATE_COMMAND,
        MessageType.CLEAR_STATE_COMMAND,
    )
)


def _depth(future: pb.Future) -> int:
    deepest, level = 0, [future]
    while level:
        deepest += 1
        level = [child for node in level for child in node.nested_futures]
    return deepest


def _encoded_levels(message: bytes, field: int) -> int:
    """How deep the future in `field` of an encoded message is nested, or at least is where that is too deep;
    0 if the bytes are no such message.

    Read from the bytes, since the protobuf library refuses deep ones without saying so."""
    deepest, level, number = 0, [message], field
    while level and deepest <= FUTURE_DEPTH_MAX:
        below: list[bytes] = []
        for data in level:
            below += _length_delimited(data, number)
        level, number = below, _NESTED_FUTURES
        deepest += bool(level)
    return deepest


def _length_delimited(data: bytes, number: int) -> list[bytes]:
    """The values of one length-delimited field of an encoded message, up to the first bytes that are not one."""
    found: list[bytes] = []
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(data, at)
        elif kind == 2:
            length, at = _varint(data, at)
            if tag >> 3 == number:
                found.append(data[at : at + length])
            at += length
        elif kind in (1, 5):
            at += 8 if kind == 1 else 4
        else:
            break
    return found


def _varint(data: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends; what is cut off counts as 0."""
    number = shift = 0
    while at < len(data) and shift < 70:
        byte = data[at]
        at += 1
        number |= (byte & 0x7F) << shift
        if byte < 0x80:
            return number, at
        shift += 7
    return 0, len(data)


_NESTED_FUTURES = 4  # the field number of Future.nested_futures


def _future_of(future: pb.Future) -> Future:
    return Future(
        list(future.waiting_completions),
        list(future.waiting_signals),
        list(future.waiting_named_signals),
        [_future_of(child) for child in future.nested_futures],
        future.combinator_type,
    )

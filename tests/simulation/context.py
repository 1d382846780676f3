"""What a handler sees: commands are method calls, and only waiting is a `yield`."""

from __future__ import annotations

import base64
import zlib
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType

if TYPE_CHECKING:
    from simulation.deployments import Session


class Terminal(Exception):
    """The handler fails for good."""

    def __init__(self, code: int, message: str) -> None:
        super().__init__(message)
        self.code = code


class Retryable(Exception):
    """This attempt fails, the next one may do better."""

    def __init__(self, message: str, delay_ms: int | None = None) -> None:
        super().__init__(message)
        self.delay_ms = delay_ms


class Mismatch(Exception):
    """The journal says something else than the handler does: 570, and never the fault of these handlers."""


@dataclass(frozen=True)
class Wait:
    """What a handler waits for: completions as positive numbers, signals as negative ones (see named_handle)."""

    handles: tuple[int, ...]
    all: bool


Closure: TypeAlias = Callable[[], bytes]
Program: TypeAlias = Generator[Wait, None, bytes]
# Handles below this are signals that have a name instead of an index.
NAMED = -(1 << 32)


class Context:
    """The handler's end of a session."""

    def __init__(self, session: Session, start: pb.StartMessage) -> None:
        self._session = session
        self._state: dict[bytes, bytes | None] = {entry.key: entry.value for entry in start.state_map}
        self._partial = start.partial_state
        self._completion_id = 0
        self._signal = 16
        # Signal 1, to wait for: nothing but a handler that names it hears that it was cancelled.
        self.cancelled = -1
        self.id: bytes = start.id
        self.key = start.key
        self.world = session.world

    def _next_id(self) -> int:
        self._completion_id += 1
        return self._completion_id

    # -- waiting ---------------------------------------------------------------------------------------------
    def wait(self, handle: int) -> Generator[Wait, None, bytes]:
        """The value of one handle; raises Terminal if it failed."""
        if not self._session.settled(handle):
            yield Wait((handle,), all=False)
        return _value(self._session.take(handle))

    def all(self, *handles: int) -> Generator[Wait, None, list[bytes]]:
        """All values, or the first failure."""
        yield Wait(handles, all=True)
        for handle in handles:
            if self._session.settled(handle) and self._session.failed(handle):
                _value(self._session.take(handle))
        return [_value(self._session.take(handle)) for handle in handles]

    def first(self, *handles: int) -> Generator[Wait, None, int]:
        """Which one is there first."""
        yield Wait(handles, all=False)
        return next(handle for handle in handles if self._session.settled(handle))

    # -- state -----------------------------------------------------------------------------------------------
    def get(self, name: str) -> Generator[Wait, None, bytes | None]:
        key, completion_id = name.encode(), self._next_id()
        known = key in self._state or not self._partial
        eager, lazy = MessageType.GET_EAGER_STATE_COMMAND, MessageType.GET_LAZY_STATE_COMMAND
        if known:
            message = pb.GetEagerStateCommandMessage(key=key)
            value = self._state.get(key)
            if value is None:
                message.void.SetInParent()
            else:
                message.value.content = value
            found = self._session.command(eager, message, "void", "value", also=lazy)
        else:
            found = self._session.command(
                lazy, pb.GetLazyStateCommandMessage(key=key, result_completion_id=completion_id), also=eager
            )
        if isinstance(found, pb.GetEagerStateCommandMessage):
            return found.value.content if found.HasField("value") else None
        if not self._session.settled(completion_id):
            yield Wait((completion_id,), all=False)
        notification = self._session.take(completion_id)
        return notification.value.content if notification.HasField("value") else None

    def set(self, name: str, value: bytes) -> None:
        self._state[name.encode()] = value
        message = pb.SetStateCommandMessage(key=name.encode(), value=pb.Value(content=value))
        self._session.command(MessageType.SET_STATE_COMMAND, message)

    def clear(self, name: str) -> None:
        self._state[name.encode()] = None
        self._session.command(MessageType.CLEAR_STATE_COMMAND, pb.ClearStateCommandMessage(key=name.encode()))

    def clear_all(self) -> None:
        self._state = {}
        self._partial = False
        self._session.command(MessageType.CLEAR_ALL_STATE_COMMAND, pb.ClearAllStateCommandMessage())

    def keys(self) -> Generator[Wait, None, list[str]]:
        completion_id = self._next_id()
        eager, lazy = MessageType.GET_EAGER_STATE_KEYS_COMMAND, MessageType.GET_LAZY_STATE_KEYS_COMMAND
        if self._partial:
            message = pb.GetLazyStateKeysCommandMessage(result_completion_id=completion_id)
            found = self._session.command(lazy, message, also=eager)
        else:
            known = sorted(key for key, value in self._state.items() if value is not None)
            eager_message = pb.GetEagerStateKeysCommandMessage(value=pb.StateKeys(keys=known))
            found = self._session.command(eager, eager_message, "value", also=lazy)
        if isinstance(found, pb.GetEagerStateKeysCommandMessage):
            return [key.decode() for key in found.value.keys]
        if not self._session.settled(completion_id):
            yield Wait((completion_id,), all=False)
        return [key.decode() for key in self._session.take(completion_id).state_keys.keys]

    # -- what completes later --------------------------------------------------------------------------------
    def sleep(self, ms: int) -> int:
        completion_id = self._next_id()
        wake_up = self.world.clock.now_ms() + ms
        message = pb.SleepCommandMessage(wake_up_time=wake_up, result_completion_id=completion_id)
        self._session.command(MessageType.SLEEP_COMMAND, message, "wake_up_time", "result_completion_id")
        return completion_id

    def run(self, name: str, closure: Closure) -> int:
        completion_id = self._next_id()
        message = pb.RunCommandMessage(result_completion_id=completion_id, name=name)
        self._session.command(MessageType.RUN_COMMAND, message)
        self._session.run(completion_id, closure)
        return completion_id

    def call(self, service: str, key: str, handler: str, parameter: bytes, idempotency_key: str | None = None) -> int:
        id_completion, completion_id = self._next_id(), self._next_id()
        message = pb.CallCommandMessage(
            service_name=service,
            handler_name=handler,
            parameter=parameter,
            key=key,
            invocation_id_notification_idx=id_completion,
            result_completion_id=completion_id,
        )
        if idempotency_key is not None:
            message.idempotency_key = idempotency_key
        self._session.command(MessageType.CALL_COMMAND, message)
        return completion_id

    def callee(self, call: int) -> int:
        """The handle of a call's invocation id."""
        return call - 1

    def send(
        self,
        service: str,
        key: str,
        handler: str,
        parameter: bytes,
        delay_ms: int = 0,
        idempotency_key: str | None = None,
    ) -> int:
        """Returns the handle of the callee's invocation id."""
        id_completion = self._next_id()
        message = pb.OneWayCallCommandMessage(
            service_name=service,
            handler_name=handler,
            parameter=parameter,
            key=key,
            invoke_time=self.world.clock.now_ms() + delay_ms if delay_ms else 0,
            invocation_id_notification_idx=id_completion,
        )
        if idempotency_key is not None:
            message.idempotency_key = idempotency_key
        self._session.command(MessageType.ONE_WAY_CALL_COMMAND, message, "invoke_time")
        return id_completion

    def awakeable(self) -> tuple[str, int]:
        """An id to give away, and the handle to wait for."""
        self._signal += 1
        raw = self.id + self._signal.to_bytes(4, "big")
        return "sign_1" + base64.urlsafe_b64encode(raw).rstrip(b"=").decode(), -self._signal

    def resolve(self, awakeable_id: str, value: bytes) -> None:
        message = pb.CompleteAwakeableCommandMessage(awakeable_id=awakeable_id, value=pb.Value(content=value))
        self._session.command(MessageType.COMPLETE_AWAKEABLE_COMMAND, message)

    def signal(self, name: str) -> int:
        """The handle of a signal with a name; there is no command of it."""
        return self._session.named(name)

    def send_signal(self, target: str, name: str, value: bytes) -> None:
        message = pb.SendSignalCommandMessage(target_invocation_id=target, name=name, value=pb.Value(content=value))
        self._session.command(MessageType.SEND_SIGNAL_COMMAND, message)

    def cancel(self, target: str) -> None:
        message = pb.SendSignalCommandMessage(target_invocation_id=target, idx=pb.CANCEL, void=pb.Void())
        self._session.command(MessageType.SEND_SIGNAL_COMMAND, message)

    def attach(self, target: str) -> int:
        completion_id = self._next_id()
        message = pb.AttachInvocationCommandMessage(invocation_id=target, result_completion_id=completion_id)
        self._session.command(MessageType.ATTACH_INVOCATION_COMMAND, message)
        return completion_id

    def output(self, target: str) -> int:
        """The handle of an output: nothing, while the invocation has not ended."""
        completion_id = self._next_id()
        message = pb.GetInvocationOutputCommandMessage(invocation_id=target, result_completion_id=completion_id)
        self._session.command(MessageType.GET_INVOCATION_OUTPUT_COMMAND, message)
        return completion_id

    # -- promises of a workflow --------------------------------------------------------------------------------
    def promise(self, name: str) -> int:
        completion_id = self._next_id()
        message = pb.GetPromiseCommandMessage(key=name, result_completion_id=completion_id)
        self._session.command(MessageType.GET_PROMISE_COMMAND, message)
        return completion_id

    def peek_promise(self, name: str) -> int:
        """The handle of its value: nothing, while it is not completed."""
        completion_id = self._next_id()
        message = pb.PeekPromiseCommandMessage(key=name, result_completion_id=completion_id)
        self._session.command(MessageType.PEEK_PROMISE_COMMAND, message)
        return completion_id

    def complete_promise(self, name: str, value: bytes) -> int:
        """The handle of whether it was completed: a failure if it had been before."""
        completion_id = self._next_id()
        message = pb.CompletePromiseCommandMessage(
            key=name, completion_value=pb.Value(content=value), result_completion_id=completion_id
        )
        self._session.command(MessageType.COMPLETE_PROMISE_COMMAND, message)
        return completion_id


def named_handle(name: str) -> int:
    """A number for a name, the same in every attempt whoever names it first."""
    return NAMED - zlib.crc32(name.encode())


def _value(notification: pb.Notification) -> bytes:
    match notification.WhichOneof("result"):
        case "failure":
            raise Terminal(notification.failure.code, notification.failure.message)
        case "value":
            return notification.value.content
        case "invocation_id":
            return notification.invocation_id.encode()
        case _:
            return b""


Handler: TypeAlias = Callable[[Context, bytes], Program]

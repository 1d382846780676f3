"""● core · Messages: the class behind each type code, and the frames that a server sends, ready as bytes.

The frames are built in one call each, header included: they lie on the path of every request.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping
from types import MappingProxyType
from typing import TypeAlias, TypeVar

# `as` exports the name: who parses a class directly catches this, and protobuf stays behind this package.
from google.protobuf.message import DecodeError as DecodeError
from google.protobuf.message import Message

from perdure.protocol import service_pb2 as pb
from perdure.protocol.errors import ProtocolError
from perdure.protocol.framing import MessageType, message_name

M = TypeVar("M", bound=Message)

# Every notification has the one shape; its code says which results are legal.
MESSAGE_CLASSES: dict[int, type[Message]] = {
    MessageType.START: pb.StartMessage,
    MessageType.SUSPENSION: pb.SuspensionMessage,
    MessageType.ERROR: pb.ErrorMessage,
    MessageType.END: pb.EndMessage,
    MessageType.COMMAND_ACK: pb.CommandAckMessage,
    MessageType.PROPOSE_RUN_COMPLETION: pb.ProposeRunCompletionMessage,
    MessageType.AWAITING_ON: pb.AwaitingOnMessage,
    MessageType.PROPOSE_RUN_COMPLETION_ACK: pb.ProposeRunCompletionAckMessage,
    MessageType.INPUT_COMMAND: pb.InputCommandMessage,
    MessageType.OUTPUT_COMMAND: pb.OutputCommandMessage,
    MessageType.GET_LAZY_STATE_COMMAND: pb.GetLazyStateCommandMessage,
    MessageType.SET_STATE_COMMAND: pb.SetStateCommandMessage,
    MessageType.CLEAR_STATE_COMMAND: pb.ClearStateCommandMessage,
    MessageType.CLEAR_ALL_STATE_COMMAND: pb.ClearAllStateCommandMessage,
    MessageType.GET_LAZY_STATE_KEYS_COMMAND: pb.GetLazyStateKeysCommandMessage,
    MessageType.GET_EAGER_STATE_COMMAND: pb.GetEagerStateCommandMessage,
    MessageType.GET_EAGER_STATE_KEYS_COMMAND: pb.GetEagerStateKeysCommandMessage,
    MessageType.GET_PROMISE_COMMAND: pb.GetPromiseCommandMessage,
    MessageType.PEEK_PROMISE_COMMAND: pb.PeekPromiseCommandMessage,
    MessageType.COMPLETE_PROMISE_COMMAND: pb.CompletePromiseCommandMessage,
    MessageType.SLEEP_COMMAND: pb.SleepCommandMessage,
    MessageType.CALL_COMMAND: pb.CallCommandMessage,
    MessageType.ONE_WAY_CALL_COMMAND: pb.OneWayCallCommandMessage,
    MessageType.SEND_SIGNAL_COMMAND: pb.SendSignalCommandMessage,
    MessageType.RUN_COMMAND: pb.RunCommandMessage,
    MessageType.ATTACH_INVOCATION_COMMAND: pb.AttachInvocationCommandMessage,
    MessageType.GET_INVOCATION_OUTPUT_COMMAND: pb.GetInvocationOutputCommandMessage,
    MessageType.COMPLETE_AWAKEABLE_COMMAND: pb.CompleteAwakeableCommandMessage,
    MessageType.GET_LAZY_STATE_COMPLETION_NOTIFICATION: pb.Notification,
    MessageType.GET_LAZY_STATE_KEYS_COMPLETION_NOTIFICATION: pb.Notification,
    MessageType.GET_PROMISE_COMPLETION_NOTIFICATION: pb.Notification,
    MessageType.PEEK_PROMISE_COMPLETION_NOTIFICATION: pb.Notification,
    MessageType.COMPLETE_PROMISE_COMPLETION_NOTIFICATION: pb.Notification,
    MessageType.SLEEP_COMPLETION_NOTIFICATION: pb.Notification,
    MessageType.CALL_COMPLETION_NOTIFICATION: pb.Notification,
    MessageType.CALL_INVOCATION_ID_COMPLETION_NOTIFICATION: pb.Notification,
    MessageType.RUN_COMPLETION_NOTIFICATION: pb.Notification,
    MessageType.ATTACH_INVOCATION_COMPLETION_NOTIFICATION: pb.Notification,
    MessageType.GET_INVOCATION_OUTPUT_COMPLETION_NOTIFICATION: pb.Notification,
    MessageType.SIGNAL_NOTIFICATION: pb.Notification,
}

# A signal is addressed by index (1 is CANCEL, handlers' own start at 17) or by name.
Signal: TypeAlias = int | str

SIGNAL_CANCEL = 1
SIGNAL_INDEX_MIN = 17  # lower indexes are the protocol's: no awakeable has one

_FAILURE_CODE_MAX = 0xFFFF
_FAILURE_CODE_UNKNOWN = 500
_NO_METADATA: Mapping[str, str] = MappingProxyType({})

_pack_header = struct.Struct(">HHI").pack
_Notification = pb.Notification
_RUN_COMPLETION = int(MessageType.RUN_COMPLETION_NOTIFICATION)
_SIGNAL = int(MessageType.SIGNAL_NOTIFICATION)


def failure_code(code: int) -> int:
    """The code as it travels: what no failure can have becomes 500."""
    return code if 0 <= code <= _FAILURE_CODE_MAX else _FAILURE_CODE_UNKNOWN


def completion_ids(code: int, payload: bytes) -> list[int]:
    """The completion ids that a command waits for: two for a call, none for most."""
    message = MESSAGE_CLASSES[code].FromString(payload)
    fields = message.DESCRIPTOR.fields_by_name
    names = ("invocation_id_notification_idx", "result_completion_id")
    return [getattr(message, name) for name in names if name in fields]


def decode_message(code: int, payload: bytes) -> Message:
    """The message of a frame. Raises ProtocolError for unlisted codes and for bytes that do not decode."""
    cls = MESSAGE_CLASSES.get(code)
    if cls is None:
        raise ProtocolError(message_name(code))
    try:
        return cls.FromString(payload)
    except DecodeError as error:
        raise ProtocolError(f"{message_name(code)} does not decode: {error}") from error


def decode_as(cls: type[M], payload: bytes) -> M:
    """The message of a class already known, typed so. Raises ProtocolError for bytes that do not decode."""
    try:
        return cls.FromString(payload)
    except DecodeError as error:
        raise ProtocolError(f"{cls.__name__} does not decode: {error}") from error


# --- the beginning of an attempt ---------------------------------------------------------------------------


def start_frame(
    invocation_id: bytes,
    debug_id: str,
    known_entries: int,
    state: Iterable[tuple[bytes, bytes]],
    *,
    partial_state: bool,
    key: str,
    retry_count: int,
    duration_since_last_entry_ms: int,
    random_seed: int,
    scope: str | None = None,
    limit_key: str | None = None,
    idempotency_key: str | None = None,
) -> bytes:
    """StartMessage. `known_entries` counts what follows as replay; the last three belong to V7 alone."""
    assert known_entries >= 1, "the Input is always known"
    message = pb.StartMessage()
    message.id = invocation_id
    message.debug_id = debug_id
    message.known_entries = known_entries
    add = message.state_map.add
    for state_key, value in state:
        entry = add()
        entry.key = state_key
        entry.value = value
    message.partial_state = partial_state
    message.key = key
    message.retry_count_since_last_stored_entry = retry_count
    message.duration_since_last_stored_entry = duration_since_last_entry_ms
    message.random_seed = random_seed
    if scope is not None:
        message.scope = scope
    if limit_key is not None:
        message.limit_key = limit_key
    if idempotency_key is not None:
        message.idempotency_key = idempotency_key
    payload = message.SerializeToString()
    return _pack_header(0x0000, 0, len(payload)) + payload


def input_frame(headers: Iterable[tuple[str, str]], body: bytes) -> bytes:
    """InputCommandMessage, entry 0 of a journal."""
    message = pb.InputCommandMessage()
    add = message.headers.add
    for key, value in headers:
        header = add()
        header.key = key
        header.value = value
    message.value.content = body
    payload = message.SerializeToString()
    return _pack_header(0x0400, 0, len(payload)) + payload


# --- answers that are not in the journal -------------------------------------------------------------------


def command_ack_frame(command_index: int) -> bytes:
    """CommandAckMessage, only for a command whose frame asked for it."""
    payload = pb.CommandAckMessage(command_index=command_index).SerializeToString()
    return _pack_header(0x0004, 0, len(payload)) + payload


def run_ack_frame(completion_id: int) -> bytes:
    """ProposeRunCompletionAckMessage: V7, only for a proposal whose frame asked for it."""
    payload = pb.ProposeRunCompletionAckMessage(completion_id=completion_id).SerializeToString()
    return _pack_header(0x0007, 0, len(payload)) + payload


# --- completions -------------------------------------------------------------------------------------------


def void_notification(type: int, completion_id: int) -> bytes:
    """A completion that says "nothing": a sleep is over, a key has no state, an output is not ready."""
    message = _Notification()
    message.completion_id = completion_id
    message.void.SetInParent()
    payload = message.SerializeToString()
    return _pack_header(type, 0, len(payload)) + payload


def value_notification(type: int, completion_id: int, content: bytes) -> bytes:
    """A completion with a value; empty content is a value too."""
    message = _Notification()
    message.completion_id = completion_id
    message.value.content = content
    payload = message.SerializeToString()
    return _pack_header(type, 0, len(payload)) + payload


def failure_notification(
    type: int, completion_id: int, code: int, message: str, metadata: Mapping[str, str] = _NO_METADATA
) -> bytes:
    """A completion with a terminal failure."""
    notification = _Notification()
    notification.completion_id = completion_id
    _fill_failure(notification.failure, code, message, metadata)
    payload = notification.SerializeToString()
    return _pack_header(type, 0, len(payload)) + payload


def invocation_id_notification(completion_id: int, text: str) -> bytes:
    """CallInvocationIdCompletion: what a Call or OneWayCall started, as `inv_…`."""
    message = _Notification()
    message.completion_id = completion_id
    message.invocation_id = text
    payload = message.SerializeToString()
    return _pack_header(0x800E, 0, len(payload)) + payload


def state_keys_notification(completion_id: int, keys: Iterable[bytes]) -> bytes:
    """GetLazyStateKeysCompletion, in the order given; no keys is an answer too."""
    message = _Notification()
    message.completion_id = completion_id
    message.state_keys.SetInParent()
    message.state_keys.keys.extend(keys)
    payload = message.SerializeToString()
    return _pack_header(0x8006, 0, len(payload)) + payload


def proposal_to_run_completion(payload: bytes) -> tuple[int, bytes]:
    """Completion id and RunCompletionNotification of a ProposeRunCompletionMessage.

    Raises ProtocolError without a result."""
    proposal = decode_as(pb.ProposeRunCompletionMessage, payload)
    message = _Notification()
    message.completion_id = proposal.result_completion_id
    match proposal.WhichOneof("result"):
        case "value":
            message.value.content = proposal.value
        case "failure":
            message.failure.CopyFrom(proposal.failure)
            message.failure.code = failure_code(proposal.failure.code)
        case None:
            raise ProtocolError("ProposeRunCompletionMessage has neither a value nor a failure")
    completion = message.SerializeToString()
    return proposal.result_completion_id, _pack_header(_RUN_COMPLETION, 0, len(completion)) + completion


# --- signals -----------------------------------------------------------------------------------------------


def void_signal(signal: Signal) -> bytes:
    """A signal without content; void_signal(SIGNAL_CANCEL) asks a handler to give up."""
    message = _signal(signal)
    message.void.SetInParent()
    payload = message.SerializeToString()
    return _pack_header(_SIGNAL, 0, len(payload)) + payload


def value_signal(signal: Signal, content: bytes) -> bytes:
    """A signal with a value, as a resolved awakeable gets it."""
    message = _signal(signal)
    message.value.content = content
    payload = message.SerializeToString()
    return _pack_header(_SIGNAL, 0, len(payload)) + payload


def failure_signal(signal: Signal, code: int, message: str, metadata: Mapping[str, str] = _NO_METADATA) -> bytes:
    """A signal with a terminal failure, as a rejected awakeable gets it."""
    notification = _signal(signal)
    _fill_failure(notification.failure, code, message, metadata)
    payload = notification.SerializeToString()
    return _pack_header(_SIGNAL, 0, len(payload)) + payload


def _signal(signal: Signal) -> pb.Notification:
    message = _Notification()
    if isinstance(signal, str):
        message.signal_name = signal
    else:
        message.signal_id = signal
    return message


def _fill_failure(failure: pb.Failure, code: int, message: str, metadata: Mapping[str, str]) -> None:
    # Setting the message even when empty also makes the failure present.
    failure.code = failure_code(code)
    failure.message = message
    for key, value in metadata.items():
        entry = failure.metadata.add()
        entry.key = key
        entry.value = value

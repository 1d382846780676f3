"""● core · Journal entries as JSON text, in the shapes that the original's console and command line read."""

from __future__ import annotations

import json
from typing import Any

from perdure.protocol import framing, messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType
from perdure_processor.model.effects import FailureInfo
from perdure_processor.storage.records import EventKind, JournalEvent
from perdure_server.admin.invocation_rows import future_json, short_name

Json = dict[str, Any]

_NO_TRACE = {
    "span_context": {
        "trace_id": [0] * 16,
        "span_id": [0] * 8,
        "trace_flags": 0,
        "is_remote": False,
        "trace_state": "",
    },
    "cause": None,
}
_NO_TIME = {"secs": 0, "nanos": 0}


def entry_json(code: int, payload: bytes, callee: str | None) -> str:
    """The whole entry; `callee` is the invocation id that a call's first completion told."""
    message = messages.decode_message(code, payload)
    if framing.is_notification(code):
        return _text({"Notification": _notification(code, message)})
    name = message.entry_name if isinstance(message, pb.SendSignalCommandMessage) else message.name  # type: ignore[attr-defined]
    return _text({"Command": {short_name(code): {**_command(message, callee, lite=False), "name": name}}})


def entry_lite_json(code: int, payload: bytes, callee: str | None) -> str:
    """The entry without payloads."""
    message = messages.decode_message(code, payload)
    if framing.is_notification(code):
        return _text({"Notification": _notification_lite(code, message)})
    return _text({"Command": {short_name(code): _command(message, callee, lite=True)}})


def event_json(event: JournalEvent) -> str:
    """A journal event."""
    match event.kind:
        case EventKind.TRANSIENT_ERROR:
            assert event.failure is not None
            return _text({"ty": "TransientError", **_failure(event.failure)})
        case EventKind.PAUSED:
            failure = {} if event.failure is None else {"last_failure": _failure(event.failure)}
            return _text({"ty": "Paused", **failure})
        case EventKind.SUSPENDED:
            assert event.awaiting is not None
            return _text({"ty": "Suspended", "awaiting_on": future_json(event.awaiting)})


EVENT_TYPES = {
    EventKind.TRANSIENT_ERROR: "TransientError",
    EventKind.PAUSED: "Paused",
    EventKind.SUSPENDED: "Suspended",
}


def _failure(failure: FailureInfo) -> Json:
    found: Json = {"error_code": failure.code, "error_message": failure.message}
    if failure.stacktrace:
        found["error_stacktrace"] = failure.stacktrace
    if failure.doc_code is not None:
        found["restate_doc_error_code"] = failure.doc_code
    if failure.command_index is not None:
        found["related_command_index"] = failure.command_index
    if failure.command_name is not None:
        found["related_command_name"] = failure.command_name
    if failure.command_type is not None:
        found["related_command_type"] = short_name(failure.command_type)
    # Ours: of a journal mismatch, what was recorded at that index.
    if failure.recorded_name is not None:
        found["recorded_command_name"] = failure.recorded_name
    if failure.recorded_type is not None:
        found["recorded_command_type"] = short_name(failure.recorded_type)
    return found


def _command(message: Any, callee: str | None, *, lite: bool) -> Json:
    match message:
        case pb.InputCommandMessage():
            if lite:
                return {}
            return {"headers": _headers(message.headers), "payload": list(message.value.content)}
        case pb.OutputCommandMessage():
            return {"result": _result(message, lite)}
        case pb.RunCommandMessage():
            run: Json = {"completion_id": message.result_completion_id}
            return {**run, "name": message.name} if lite else run
        case pb.CallCommandMessage() | pb.OneWayCallCommandMessage():
            return _call(message, callee, lite)
        case pb.SleepCommandMessage():
            return {"wake_up_time": message.wake_up_time, "completion_id": message.result_completion_id}
        case pb.GetEagerStateCommandMessage():
            return {"key": _utf8(message.key), "result": _result(message, lite)}
        case pb.GetEagerStateKeysCommandMessage():
            return {"state_keys": [_utf8(key) for key in message.value.keys]}
        case pb.SetStateCommandMessage():
            return {"key": _utf8(message.key)} | ({} if lite else {"value": list(message.value.content)})
        case pb.ClearStateCommandMessage():
            return {"key": _utf8(message.key)}
        case pb.ClearAllStateCommandMessage():
            return {}
        case pb.GetLazyStateCommandMessage():
            return {"key": _utf8(message.key), "completion_id": message.result_completion_id}
        case pb.GetLazyStateKeysCommandMessage():
            return {"completion_id": message.result_completion_id}
        case pb.GetPromiseCommandMessage() | pb.PeekPromiseCommandMessage():
            return {"key": message.key, "completion_id": message.result_completion_id}
        case pb.CompletePromiseCommandMessage():
            value = {} if lite else {"value": _completion(message)}
            return {"key": message.key, **value, "completion_id": message.result_completion_id}
        case pb.SendSignalCommandMessage():
            signal: Json = {"Name": message.name} if message.HasField("name") else {"Index": message.idx}
            sent: Json = {"target_invocation_id": message.target_invocation_id, "signal_id": signal}
            return sent if lite else {**sent, "result": _result(message, lite)}
        case pb.CompleteAwakeableCommandMessage():
            return {"id": message.awakeable_id} | ({} if lite else {"result": _result(message, lite)})
        case pb.AttachInvocationCommandMessage() | pb.GetInvocationOutputCommandMessage():
            return {"target": _target(message), "completion_id": message.result_completion_id}
        case _:
            raise AssertionError(f"{type(message).__name__} is no command")


def _call(message: Any, callee: str | None, lite: bool) -> Json:
    target: Json
    if message.key:
        target = {
            "VirtualObject": {
                "name": message.service_name,
                "key": message.key,
                "handler": message.handler_name,
                "handler_ty": "Exclusive",
                "scope": None,
            }
        }
    else:
        target = {"Service": {"name": message.service_name, "handler": message.handler_name, "scope": None}}
    request: Json = {"invocation_id": callee, "invocation_target": target}
    if not lite:
        request |= {
            "span_context": _NO_TRACE,
            "parameter": list(message.parameter),
            "headers": _headers(message.headers),
            "idempotency_key": message.idempotency_key if message.HasField("idempotency_key") else None,
            # The callee has them; clients expect the names.
            "completion_retention_duration": _NO_TIME,
            "journal_retention_duration": _NO_TIME,
        }
    ids: Json = {"invocation_id_completion_id": message.invocation_id_notification_idx}
    if isinstance(message, pb.CallCommandMessage):
        ids["result_completion_id"] = message.result_completion_id
    else:
        ids = {"invoke_time": message.invoke_time, **ids}
    return {**request, **ids} if lite else {"request": request, **ids}


def _target(message: Any) -> Json:
    match message.WhichOneof("target"):
        case "invocation_id":
            return {"InvocationId": message.invocation_id}
        case "workflow_target":
            workflow = message.workflow_target
            return {"Workflow": {"service_name": workflow.workflow_name, "key": workflow.workflow_key}}
        case _:
            request = message.idempotent_request_target
            return {
                "IdempotentRequest": {
                    "service_name": request.service_name,
                    "service_key": request.service_key if request.HasField("service_key") else None,
                    "handler_name": request.handler_name,
                    "idempotency_key": request.idempotency_key,
                }
            }


def _notification(code: int, message: Any) -> Json:
    if code == MessageType.SIGNAL_NOTIFICATION:
        return {"Signal": {"id": _signal_id(message), "result": _result(message, lite=False)}}
    told: Json = {"completion_id": message.completion_id}
    if message.HasField("invocation_id"):
        told["invocation_id"] = message.invocation_id
    elif message.HasField("state_keys"):
        told["state_keys"] = [_utf8(key) for key in message.state_keys.keys]
    else:
        told["result"] = _result(message, lite=False)
    return {"Completion": {short_name(code): told}}


def _notification_lite(code: int, message: Any) -> Json:
    if code == MessageType.SIGNAL_NOTIFICATION:
        ty: Any = "Signal"
        named = message.WhichOneof("id") == "signal_name"
        found: Json = {"SignalName": message.signal_name} if named else {"SignalIndex": message.signal_id}
    else:
        ty = {"Completion": short_name(code)}
        found = {"CompletionId": message.completion_id}
    if message.HasField("invocation_id"):
        result: Any = "InvocationId"
    elif message.HasField("state_keys"):
        result = "StateKeys"
    else:
        result = _result(message, lite=True)
    return {"ty": ty, "id": found, "result": result}


def _signal_id(message: Any) -> Json:
    if message.WhichOneof("id") == "signal_name":
        return {"Name": message.signal_name}
    return {"Index": message.signal_id}


def _result(message: Any, lite: bool) -> Any:
    """`"Void"`, {"Success": […]} or {"Failure": …}; only the word where payloads are left out."""
    if message.HasField("failure") if "failure" in message.DESCRIPTOR.fields_by_name else False:
        return "Failure" if lite else {"Failure": _failed(message.failure)}
    if message.HasField("value"):
        return "Success" if lite else {"Success": list(message.value.content)}
    return "Void"


def _completion(message: Any) -> Json:
    if message.HasField("completion_failure"):
        return {"Failure": _failed(message.completion_failure)}
    return {"Success": list(message.completion_value.content)}


def _failed(failure: pb.Failure) -> Json:
    found: Json = {"code": failure.code, "message": failure.message}
    if failure.metadata:
        found["metadata"] = [{"key": entry.key, "value": entry.value} for entry in failure.metadata]
    return found


def _headers(headers: Any) -> list[Json]:
    return [{"name": header.key, "value": header.value} for header in headers]


def _utf8(data: bytes) -> str:
    return data.decode(errors="replace")


def _text(document: Json) -> str:
    return json.dumps(document, ensure_ascii=False, separators=(",", ":"))

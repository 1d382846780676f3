"""● core · Stored rows as people read them: the columns of sys_invocation and sys_journal, nulls left out."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from perdure.protocol import framing, ids, messages
from perdure.protocol import service_pb2 as pb
from perdure_processor.model.effects import FailureInfo
from perdure_processor.model.futures import Combinator, Future
from perdure_processor.model.ids import InvocationId, Millis
from perdure_processor.model.results import Failed
from perdure_processor.model.schema import ServiceKind
from perdure_processor.storage.records import Completed, Live, Status
from perdure_server.durations import format_iso_duration_ms, format_time_ms

Row = dict[str, Any]

KINDS: dict[int, str] = {
    ServiceKind.SERVICE: "service",
    ServiceKind.VIRTUAL_OBJECT: "virtual_object",
    ServiceKind.WORKFLOW: "workflow",
}


def invoked_by(row: Live | Completed) -> str:
    """Who made it: an ingress, a handler (service), or an operator who restarted another one."""
    if row.restarted_from is not None:
        return "restart_as_new"
    return "service" if row.parent is not None else "ingress"


def status_of(row: Live | Completed, running: bool) -> str:
    """The status that people see; `running` says that an attempt is in flight."""
    if isinstance(row, Completed):
        return "completed"
    match row.status:
        case Status.SCHEDULED:
            return "scheduled"
        case Status.INBOXED:
            return "pending"
        case Status.SUSPENDED:
            return "suspended"
        case Status.PAUSED:
            return "paused"
        case Status.INVOKED:
            if row.next_retry_ms:
                return "backing-off"
            if running:
                return "running"
            return "backing-off" if row.retry_count else "ready"


def invocation_row(invocation_id: InvocationId, row: Live | Completed, running: bool) -> Row:
    """One row of sys_invocation."""
    target = row.target
    columns: dict[str, Any] = {
        "id": ids.encode_invocation_id(invocation_id),
        "target": str(target),
        "target_service_name": target.service,
        "target_service_key": target.key,
        "target_handler_name": target.handler,
        "target_service_ty": KINDS[ServiceKind(row.service_kind)],
        "idempotency_key": row.idempotency_key,
        "invoked_by": invoked_by(row),
        "invoked_by_id": None if row.parent is None else ids.encode_invocation_id(row.parent.id),
        "invoked_by_service_name": None if row.parent is None else row.parent.service,
        "invoked_by_target": None if row.parent is None else row.parent.target,
        "pinned_deployment_id": row.deployment_id,
        "pinned_service_protocol_version": row.protocol_version or None,
        "journal_size": row.entries,
        "journal_commands_size": row.commands,
        "created_at": format_time_ms(row.created_ms),
        "running_at": format_time_ms(row.running_ms) if row.running_ms else None,
        "completion_retention": format_iso_duration_ms(row.completion_retention_ms),
        "journal_retention": format_iso_duration_ms(row.journal_retention_ms),
        "status": status_of(row, running),
    }
    if isinstance(row, Completed):
        failed = row.result if isinstance(row.result, Failed) else None
        columns["modified_at"] = columns["completed_at"] = format_time_ms(row.completed_ms)
        columns["completion_result"] = "success" if failed is None else "failure"
        columns["completion_failure"] = None if failed is None else f"[{failed.code}] {failed.message}"
    else:
        columns["modified_at"] = format_time_ms(row.modified_ms)
        columns["inboxed_at"] = format_time_ms(row.inboxed_ms) if row.inboxed_ms else None
        columns["scheduled_start_at"] = format_time_ms(row.execution_ms) if row.execution_ms else None
        columns["retry_count"] = row.retry_count or None
        columns["next_retry_at"] = format_time_ms(row.next_retry_ms) if row.next_retry_ms else None
        if row.awaiting is not None:
            columns["suspended_waiting_future"] = future_json(row.awaiting)
        if row.last_failure is not None:
            columns.update(_failure_columns(row.last_failure))
    return {name: value for name, value in columns.items() if value is not None}


def _failure_columns(failure: FailureInfo) -> dict[str, Any]:
    return {
        "last_failure": failure_text(failure),
        "last_failure_error_code": failure.doc_code,
        "last_failure_related_command_index": failure.command_index,
        "last_failure_related_command_name": failure.command_name,
        "last_failure_related_command_type": (
            None if failure.command_type is None else short_name(failure.command_type)
        ),
        # Ours: of a journal mismatch, what was recorded at that index.
        "last_failure_recorded_command_name": failure.recorded_name,
        "last_failure_recorded_command_type": (
            None if failure.recorded_type is None else short_name(failure.recorded_type)
        ),
    }


def failure_text(failure: FailureInfo) -> str:
    """A failure in one text, with the stack trace where there is one."""
    # The original names the one code that says nothing by itself.
    text = f"[{failure.code}{' Internal' if failure.code == 500 else ''}] {failure.message}"
    if failure.doc_code == "RT0016":
        text += "\n" + "\n".join(_mismatch_lines(failure))
    return f"{text}\n{failure.stacktrace}" if failure.stacktrace else text


def _mismatch_lines(failure: FailureInfo) -> Iterator[str]:
    """The two sides of a journal mismatch, as far as they are known, and what an operator can do."""
    if failure.recorded_type is not None:
        recorded = _command_text(failure.recorded_type, failure.recorded_name)
        now = "another one"
        if failure.command_type is not None:
            now = _command_text(failure.command_type, failure.command_name)
        yield f"Command {failure.command_index} in the journal is {recorded}, the code now asks for {now}."
    yield (
        "What helps: put the code back, resume the invocation on a deployment whose code fits (resume?deployment=ID), "
        "or restart it as new."
    )


def _command_text(code: int, name: str | None) -> str:
    return f"{short_name(code)} '{name}'" if name else short_name(code)


def future_json(future: Future) -> Row:
    """A future as the tables show it: {"FirstCompleted": [{"Single": {"CompletionId": 1}}, …]}."""
    children: list[Row] = [{"Single": {"CompletionId": leaf}} for leaf in future.completions]
    children += [{"Single": {"SignalIndex": leaf}} for leaf in future.signals]
    children += [{"Single": {"SignalName": leaf}} for leaf in future.names]
    children += [future_json(child) for child in future.nested]
    names = {
        Combinator.FIRST_COMPLETED: "FirstCompleted",
        Combinator.ALL_COMPLETED: "AllCompleted",
        Combinator.FIRST_SUCCEEDED_OR_ALL_FAILED: "FirstSucceededOrAllFailed",
        Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED: "AllSucceededOrFirstFailed",
    }
    return {names.get(Combinator(future.combinator), "Unknown"): children}


def journal_rows(segments: Iterator[tuple[int, Millis, bytes]]) -> list[Row]:
    """The entries of a journal, one row each, in order."""
    rows: list[Row] = []
    for index, appended_ms, frames in segments:
        for number, (code, _, payload) in enumerate(framing.iter_frames(frames), start=index):
            row: Row = {
                "index": number,
                "entry_type": entry_type(code),
                "appended_at": format_time_ms(appended_ms),
                "raw_length": len(payload),
            }
            name = entry_name(code, payload)
            if name:
                row["name"] = name
            rows.append(row)
    return rows


def entry_type(code: int) -> str:
    """`Command: Run`, `Notification: Call`, …"""
    kind = "Notification" if framing.is_notification(code) else "Command"
    return f"{kind}: {short_name(code)}"


def short_name(code: int) -> str:
    """`Run`, `CallInvocationId`, …: a message's name without what its kind adds to it."""
    name = framing.message_name(code)
    for ending in ("CompletionNotificationMessage", "NotificationMessage", "CommandMessage", "Message"):
        if name.endswith(ending):
            return name.removesuffix(ending)
    return name


def entry_name(code: int, payload: bytes) -> str:
    """The label that the user gave a command."""
    if framing.is_notification(code):
        return ""
    message = messages.decode_message(code, payload)
    if isinstance(message, pb.SendSignalCommandMessage):
        return message.entry_name
    return getattr(message, "name", "")

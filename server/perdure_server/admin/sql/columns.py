"""● core · One function per column: from what is stored to a value of the column's type, or None.

Only the columns that a query names are computed; times and durations stay numbers until they are printed.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeAlias

from perdure.protocol import ids
from perdure_processor.invoker.attempt import AttemptState
from perdure_processor.model.effects import FailureInfo
from perdure_processor.model.ids import InvocationId
from perdure_processor.model.results import Failed, Succeeded
from perdure_processor.storage.records import Completed, JournalEvent, Live, PromiseRow, Status
from perdure_server.admin.invocation_rows import (
    KINDS,
    entry_name,
    entry_type,
    failure_text,
    future_json,
    invoked_by,
    short_name,
    status_of,
)
from perdure_server.admin.sql import journal_json


@dataclass(slots=True)
class Invocation:
    """A stored invocation, and its last attempt if this node remembers it."""

    id: InvocationId
    row: Live | Completed
    attempt: AttemptState | None

    @property
    def runs(self) -> bool:
        return self.attempt is not None and self.attempt.running


@dataclass(slots=True)
class Entry:
    """A journal entry; `callee` is the id that a call's first completion told."""

    id: InvocationId
    index: int
    appended_ms: int
    code: int
    payload: bytes
    callee: str | None


@dataclass(slots=True)
class Keyed:
    """A row that belongs to an object's key: `name` and `value` as the table means them."""

    service: str
    key: str
    name: bytes
    value: Any


@dataclass(slots=True)
class Event:
    id: InvocationId
    event: JournalEvent


Column: TypeAlias = Callable[[Any], Any]

_RAW_STATUS = {
    Status.SCHEDULED: "scheduled",
    Status.INBOXED: "inboxed",
    Status.INVOKED: "invoked",
    Status.SUSPENDED: "suspended",
    Status.PAUSED: "paused",
}


def _none(_: Any) -> None:
    return None


def _partition_key(entry: Any) -> int:
    return int.from_bytes(entry.id[:8], "big")


def _id(entry: Any) -> str:
    return ids.encode_invocation_id(entry.id)


def _live(pick: Callable[[Live], Any]) -> Column:
    """A column that only invocations have which have not ended."""

    def column(entry: Invocation) -> Any:
        return pick(entry.row) if type(entry.row) is Live else None

    return column


def _unstarted(entry: Invocation) -> bool:
    return type(entry.row) is Live and entry.row.status in (Status.SCHEDULED, Status.INBOXED)


def _status(entry: Invocation) -> str:
    return status_of(entry.row, entry.runs)


def _raw_status(entry: Invocation) -> str:
    return _RAW_STATUS[entry.row.status] if type(entry.row) is Live else "completed"


def _completion_result(entry: Invocation) -> str | None:
    if type(entry.row) is not Completed:
        return None
    return "success" if isinstance(entry.row.result, Succeeded) else "failure"


def _completion_failure(entry: Invocation) -> str | None:
    if type(entry.row) is not Completed or not isinstance(entry.row.result, Failed):
        return None
    return f"[{entry.row.result.code}] {entry.row.result.message}"


def _parent(pick: Callable[[Any], Any]) -> Column:
    def column(entry: Invocation) -> Any:
        return None if entry.row.parent is None else pick(entry.row.parent)

    return column


def _modified(entry: Invocation) -> int:
    return entry.row.modified_ms if type(entry.row) is Live else entry.row.completed_ms  # type: ignore[union-attr]


def _scheduled_at(row: Live) -> int | None:
    return row.created_ms if row.status is Status.SCHEDULED else None


def _waiting(pick: Callable[[Any], list[int]]) -> Column:
    return _live(lambda row: None if row.awaiting is None else pick(row.awaiting))


def _awaiting(row: Live) -> str | None:
    return None if row.awaiting is None else json.dumps(future_json(row.awaiting), separators=(",", ":"))


def _retry_count(entry: Invocation) -> int | None:
    row = entry.row
    if type(row) is not Live or row.status not in (Status.INVOKED, Status.PAUSED):
        return None
    return (row.retry_count + entry.runs) or None


def _attempt(pick: Callable[[AttemptState], Any]) -> Column:
    def column(entry: Invocation) -> Any:
        return None if entry.attempt is None else pick(entry.attempt)

    return column


def _attempted_on(entry: Invocation) -> str | None:
    if entry.attempt is not None:
        return entry.attempt.deployment_id
    row = entry.row
    return row.deployment_id if type(row) is Live and row.status in (Status.INVOKED, Status.PAUSED) else None


def _failure(pick: Callable[[FailureInfo], Any]) -> Column:
    """Of the last failure, as long as it explains what the invocation does."""

    def column(entry: Invocation) -> Any:
        row = entry.row
        if type(row) is not Live or row.last_failure is None or row.status not in (Status.INVOKED, Status.PAUSED):
            return None
        return pick(row.last_failure)

    return column


_COMMAND_INDEX = _failure(lambda failure: failure.command_index)
_COMMAND_NAME = _failure(lambda failure: failure.command_name)
_COMMAND_TYPE = _failure(lambda failure: None if failure.command_type is None else short_name(failure.command_type))

_STATUS_COLUMNS: dict[str, Column] = {
    "partition_key": _partition_key,
    "id": _id,
    "vqueue_id": _none,
    "target": lambda entry: str(entry.row.target),
    "target_service_name": lambda entry: entry.row.target.service,
    "target_service_key": lambda entry: entry.row.target.key,
    "target_handler_name": lambda entry: entry.row.target.handler,
    "target_service_ty": lambda entry: KINDS[entry.row.service_kind],
    "scope": _none,
    "limit_key": _none,
    "idempotency_key": lambda entry: entry.row.idempotency_key,
    "invoked_by": lambda entry: invoked_by(entry.row),
    "invoked_by_service_name": _parent(lambda parent: parent.service),
    "invoked_by_id": _parent(lambda parent: ids.encode_invocation_id(parent.id)),
    "invoked_by_subscription_id": _none,
    "invoked_by_target": _parent(lambda parent: parent.target),
    "restarted_from": lambda entry: (
        None if entry.row.restarted_from is None else ids.encode_invocation_id(entry.row.restarted_from)
    ),
    "pinned_deployment_id": lambda entry: entry.row.deployment_id,
    "pinned_service_protocol_version": lambda entry: entry.row.protocol_version or None,
    "trace_id": _none,
    "journal_size": lambda entry: None if _unstarted(entry) else (entry.row.entries if entry.row.segments else 0),
    "journal_commands_size": lambda entry: (
        None if _unstarted(entry) else (entry.row.commands if entry.row.segments else 0)
    ),
    "created_at": lambda entry: entry.row.created_ms,
    "modified_at": _modified,
    "inboxed_at": _live(lambda row: row.inboxed_ms or None),
    "scheduled_at": _live(_scheduled_at),
    "scheduled_start_at": _live(lambda row: row.execution_ms or None),
    "running_at": lambda entry: entry.row.running_ms or None,
    "completed_at": lambda entry: entry.row.completed_ms if type(entry.row) is Completed else None,
    "completion_retention": lambda entry: entry.row.completion_retention_ms,
    "journal_retention": lambda entry: entry.row.journal_retention_ms,
    "suspended_waiting_for_completions": _waiting(lambda future: future.completions),
    "suspended_waiting_for_signals": _waiting(lambda future: future.signals),
    "suspended_waiting_future_json": _live(_awaiting),
    "completion_result": _completion_result,
    "completion_failure": _completion_failure,
}
_STATE_COLUMNS: dict[str, Column] = {
    "partition_key": _partition_key,
    "id": _id,
    "in_flight": lambda entry: entry.runs,
    "retry_count": _retry_count,
    "last_start_at": _attempt(lambda attempt: attempt.started_ms),
    "next_retry_at": _live(lambda row: row.next_retry_ms or None),
    "last_attempt_deployment_id": _attempted_on,
    "last_attempt_server": _attempt(lambda attempt: attempt.server),
    "last_failure": _failure(failure_text),
    "last_failure_error_code": _failure(lambda failure: failure.doc_code),
    "last_failure_related_command_index": _COMMAND_INDEX,
    "last_failure_related_command_name": _COMMAND_NAME,
    "last_failure_related_command_type": _COMMAND_TYPE,
    # The older names of the same facts.
    "last_failure_related_entry_index": _COMMAND_INDEX,
    "last_failure_related_entry_name": _COMMAND_NAME,
    "last_failure_related_entry_type": _COMMAND_TYPE,
    "last_awaiting_on_future_json": _attempt(
        lambda attempt: (
            None if attempt.awaiting is None else json.dumps(future_json(attempt.awaiting), separators=(",", ":"))
        )
    ),
}


def _utf8(data: bytes | None) -> str | None:
    try:
        return None if data is None else data.decode()
    except UnicodeDecodeError:
        return None


def _keyed(columns: dict[str, Column]) -> dict[str, Column]:
    common: dict[str, Column] = {
        "partition_key": lambda entry: ids.partition_key_of_key(entry.key),
        "scope": _none,
        "service_name": lambda entry: entry.service,
        "service_key": lambda entry: entry.key,
    }
    return {**common, **columns}


def _promised(promise: PromiseRow) -> bytes | None:
    return promise.result.value if isinstance(promise.result, Succeeded) else None


def _promise_failure(promise: PromiseRow) -> str | None:
    return f"[{promise.result.code}] {promise.result.message}" if isinstance(promise.result, Failed) else None


def columns_of(version: str) -> dict[str, dict[str, Column]]:
    """Table → column → what computes it, for the tables over the partitions. `version` is shown with invocations."""
    status = {**_STATUS_COLUMNS, "created_using_restate_version": lambda entry: version}
    return {
        "sys_invocation": {**status, **_STATE_COLUMNS, "status": _status},
        "sys_invocation_status": {**status, "status": _raw_status},
        "sys_invocation_state": _STATE_COLUMNS,
        "sys_journal": {
            "partition_key": _partition_key,
            "id": _id,
            "index": lambda entry: entry.index,
            "entry_type": lambda entry: entry_type(entry.code),
            "name": lambda entry: entry_name(entry.code, entry.payload),
            "completed": _none,
            "invoked_id": _none,
            "invoked_target": _none,
            "sleep_wakeup_at": _none,
            "promise_name": _none,
            "raw": lambda entry: entry.payload,
            "raw_length": lambda entry: len(entry.payload),
            "version": lambda entry: 2,
            "entry_json": lambda entry: journal_json.entry_json(entry.code, entry.payload, entry.callee),
            "entry_lite_json": lambda entry: journal_json.entry_lite_json(entry.code, entry.payload, entry.callee),
            "appended_at": lambda entry: entry.appended_ms,
        },
        "sys_journal_events": {
            "partition_key": _partition_key,
            "id": _id,
            "after_journal_entry_index": lambda entry: entry.event.after_entry,
            "appended_at": lambda entry: entry.event.at_ms,
            "event_type": lambda entry: journal_json.EVENT_TYPES[entry.event.kind],
            "event_json": lambda entry: journal_json.event_json(entry.event),
        },
        "state": _keyed(
            {
                "key": lambda entry: entry.name.decode(errors="replace"),
                "key_length": lambda entry: len(entry.name),
                "value_utf8": lambda entry: _utf8(entry.value),
                "value": lambda entry: entry.value,
                "value_length": lambda entry: len(entry.value),
            }
        ),
        "sys_inbox": _keyed(
            {
                "id": lambda entry: ids.encode_invocation_id(entry.value),
                "sequence_number": lambda entry: int.from_bytes(entry.name, "big"),
                "created_at": _none,
            }
        ),
        "sys_keyed_service_status": _keyed({"invocation_id": lambda entry: ids.encode_invocation_id(entry.value)}),
        "sys_promise": _keyed(
            {
                "key": lambda entry: entry.name.decode(),
                "completed": lambda entry: entry.value.result is not None,
                "completion_success_value": lambda entry: _promised(entry.value),
                "completion_success_value_utf8": lambda entry: _utf8(_promised(entry.value)),
                "completion_failure": lambda entry: _promise_failure(entry.value),
            }
        ),
    }

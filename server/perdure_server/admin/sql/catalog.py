"""● core · The tables that SQL sees: their columns in order, with their types, as the original's clients know them."""

from __future__ import annotations

import enum


class Type(enum.Enum):
    """Column types; the adapter knows their Arrow names."""

    U32 = "u32"
    U64 = "u64"
    TEXT = "text"
    BYTES = "bytes"
    FLAG = "flag"
    TIME = "time"  # milliseconds since the epoch, UTC
    DURATION = "duration"  # milliseconds
    U32S = "u32s"
    TEXTS = "texts"


def _columns(text: str) -> dict[str, Type]:
    """`name:type` by blanks; without a type it is text."""
    pairs = (each.partition(":") for each in text.split())
    return {name: Type(kind or "text") for name, _, kind in pairs}


_ATTEMPT = """
    retry_count:u64 last_start_at:time next_retry_at:time last_attempt_deployment_id last_attempt_server last_failure
    last_failure_error_code last_failure_related_entry_index:u64 last_failure_related_entry_name
    last_failure_related_entry_type last_failure_related_command_index:u64 last_failure_related_command_name
    last_failure_related_command_type last_awaiting_on_future_json
"""
_TIMES = """
    pinned_deployment_id pinned_service_protocol_version:u32 trace_id journal_size:u32 journal_commands_size:u32
    created_at:time created_using_restate_version modified_at:time inboxed_at:time scheduled_at:time
    scheduled_start_at:time running_at:time completed_at:time completion_retention:duration journal_retention:duration
    suspended_waiting_for_completions:u32s suspended_waiting_for_signals:u32s suspended_waiting_future_json
"""

TABLES: dict[str, dict[str, Type]] = {
    "state": _columns(
        "partition_key:u64 scope service_name service_key key key_length:u64 value_utf8 value:bytes value_length:u64"
    ),
    "sys_deployment": _columns(
        "id ty endpoint created_at:time min_service_protocol_version:u32 max_service_protocol_version:u32 "
        "services:texts"
    ),
    "sys_inbox": _columns("partition_key:u64 service_name service_key id sequence_number:u64 created_at:time"),
    "sys_invocation": _columns(
        "id vqueue_id target target_service_name target_service_key target_handler_name target_service_ty scope "
        "limit_key idempotency_key invoked_by invoked_by_service_name invoked_by_id invoked_by_subscription_id "
        f"invoked_by_target restarted_from {_TIMES} {_ATTEMPT} status completion_result completion_failure"
    ),
    "sys_invocation_state": _columns(
        "partition_key:u64 id in_flight:flag retry_count:u64 last_start_at:time last_attempt_deployment_id "
        "last_attempt_server next_retry_at:time last_failure last_failure_error_code "
        "last_failure_related_command_index:u64 last_failure_related_command_name last_failure_related_command_type "
        "last_failure_related_entry_index:u64 last_failure_related_entry_name last_failure_related_entry_type "
        "last_awaiting_on_future_json"
    ),
    "sys_invocation_status": _columns(
        "partition_key:u64 id vqueue_id status completion_result completion_failure target target_service_name "
        "target_service_key target_handler_name target_service_ty scope limit_key idempotency_key invoked_by "
        f"invoked_by_id invoked_by_subscription_id invoked_by_service_name invoked_by_target restarted_from {_TIMES}"
    ),
    "sys_journal": _columns(
        "partition_key:u64 id index:u32 entry_type name completed:flag invoked_id invoked_target sleep_wakeup_at:time "
        "promise_name raw:bytes raw_length:u64 version:u32 entry_json entry_lite_json appended_at:time"
    ),
    "sys_journal_events": _columns(
        "partition_key:u64 id after_journal_entry_index:u32 appended_at:time event_type event_json"
    ),
    "sys_keyed_service_status": _columns("partition_key:u64 service_name service_key invocation_id"),
    "sys_promise": _columns(
        "partition_key:u64 scope service_name service_key key completed:flag completion_success_value:bytes "
        "completion_success_value_utf8 completion_failure"
    ),
    "sys_service": _columns("name revision:u64 public:flag ty deployment_id"),
}

# Flow control, which there is not: the original's clients ask, and are told that there is nothing.
EMPTY_TABLES: dict[str, dict[str, Type]] = {
    "sys_locks": _columns("partition_key:u64 scope lock_name acquired_at:time acquired_by "),
    "sys_rules": _columns("pattern concurrency:u32 description disabled:flag version:u32 last_modified:time "),
    "sys_scheduler": _columns(
        "partition_key:u64 id num_inbox:u64 status head_entry_id scheduled_at:time blocked_on blocked_on_json "
        "invoker_concurrency_block_duration:duration throttling_rules_block_duration:duration "
        "invoker_throttling_block_duration:duration invoker_memory_block_duration:duration "
        "concurrency_rules_block_duration:duration lock_block_duration:duration "
        "deployment_concurrency_block_duration:duration "
    ),
    "sys_user_limits": _columns(
        "partition_key:u64 scope l1 l2 level usage:u32 concurrency_limit:u32 rule_pattern available:u32 "
        "num_waiters:u64 "
    ),
    "sys_vqueue_entry_status": _columns(
        "partition_key:u64 entry_id vqueue_id stage status has_lock:flag next_at:time sequence_number:u64 "
        "entry_kind created_at:time transitioned_at:time num_attempts:u32 num_errors:u32 num_pauses:u32 "
        "num_suspensions:u32 num_yields:u32 first_attempt_at:time latest_attempt_at:time "
        "first_runnable_at:time deployment needed_memory:u64 retry_attempts:u32 "
        "retry_count_since_last_stored_command:u32 latest_attempt_blocked_on_invoker_concurrency:duration "
        "latest_attempt_blocked_on_throttling_rules:duration "
        "latest_attempt_blocked_on_invoker_throttling:duration "
        "latest_attempt_blocked_on_invoker_memory:duration "
        "latest_attempt_blocked_on_concurrency_rules:duration latest_attempt_blocked_on_lock:duration "
        "latest_attempt_blocked_on_deployment_concurrency:duration "
        "total_blocked_on_invoker_concurrency:duration total_blocked_on_throttling_rules:duration "
        "total_blocked_on_invoker_throttling:duration total_blocked_on_invoker_memory:duration "
        "total_blocked_on_concurrency_rules:duration total_blocked_on_lock:duration "
        "total_blocked_on_deployment_concurrency:duration "
    ),
    "sys_vqueue_meta": _columns(
        "partition_key:u64 id is_active:flag queue_is_paused:flag service_name scope limit_key lock_name "
        "created_at:time last_enqueued_at:time last_start_at:time last_attempt_at:time last_finish_at:time "
        "avg_queue_duration:duration avg_inbox_duration:duration avg_run_duration:duration "
        "avg_suspension_duration:duration avg_end_to_end_duration:duration "
        "avg_blocked_on_concurrency_rules:duration avg_blocked_on_invoker_concurrency:duration "
        "avg_blocked_on_invoker_throttling:duration avg_blocked_on_lock:duration num_inbox:u64 "
        "num_running:u64 num_suspended:u64 num_paused:u64 num_finished:u64 "
    ),
    "sys_vqueues": _columns(
        "partition_key:u64 id stage status has_lock:flag run_at:time sequence_number:u64 entry_id entry_kind "
        "created_at:time transitioned_at:time num_attempts:u32 num_errors:u32 num_pauses:u32 "
        "num_suspensions:u32 num_yields:u32 first_attempt_at:time latest_attempt_at:time "
        "first_runnable_at:time deployment "
    ),
}

"""● core · Every number the processors count: plain integers in slots, rendered when somebody asks."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(slots=True)
class Metrics:
    """Counters only grow; gauges are set. Names are those of the rendered metrics, less the prefix."""

    records_applied: int = 0
    batches_applied: int = 0
    proposals: int = 0
    proposals_refused: int = 0
    terms_ended: int = 0
    attempts_started: int = 0
    attempts_completed: int = 0
    attempts_suspended: int = 0
    attempts_failed: int = 0
    attempts_waiting: int = 0
    attempts_running: int = 0
    effect_bytes_in_flight: int = 0
    timers_fired: int = 0
    outbox_shipped: int = 0
    requests_asked_again: int = 0
    state_patches_refused: int = 0

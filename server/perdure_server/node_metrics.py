"""● core · The node's numbers as Prometheus families."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

from perdure_processor.metrics import Metrics
from perdure_server.metrics_text import Family

_GAUGES = ("attempts_waiting", "attempts_running", "effect_bytes_in_flight")
_HELP = {
    "records_applied": "Records of the command log that were applied.",
    "batches_applied": "Write batches committed to the stores.",
    "proposals": "Commands that leaders appended.",
    "proposals_refused": "Proposals that the log refused and that were made again, e.g. because the disk was full.",
    "terms_ended": "Terms of leadership that ended.",
    "attempts_started": "Attempts for which a stream to a deployment was opened.",
    "attempts_completed": "Attempts that ended with the end of their invocation.",
    "attempts_suspended": "Attempts that ended because their handler waits.",
    "attempts_failed": "Attempts that failed.",
    "attempts_waiting": "Attempts waiting for a slot.",
    "attempts_running": "Attempts that hold a slot.",
    "effect_bytes_in_flight": "Bytes between the streams of attempts and the log.",
    "timers_fired": "Timers proposed as due.",
    "outbox_shipped": "Messages appended to other partitions' logs.",
    "requests_asked_again": "Requests whose answer was late and that were asked again.",
    "state_patches_refused": "State patches that waited and were refused in their turn: the state had another version.",
}


def processor_families(metrics: Metrics) -> list[Family]:
    """Every number of the processors."""
    families = []
    for field in dataclasses.fields(metrics):
        number: int = getattr(metrics, field.name)
        if field.name in _GAUGES:
            families.append(Family(f"perdure_{field.name}", "gauge", _HELP[field.name], [({}, number)]))
        else:
            families.append(Family(f"perdure_{field.name}_total", "counter", _HELP[field.name], [({}, number)]))
    return families


def ingress_families(answers_by_class: Sequence[int], numbers: dict[str, int]) -> list[Family]:
    """The ingress' answers by status class, and its other counters."""
    answers = [({"class": f"{index}xx"}, count) for index, count in enumerate(answers_by_class) if 1 <= index <= 5]
    families = [Family("perdure_ingress_answers_total", "counter", "Answers by status class.", answers)]
    for name, number in numbers.items():
        text = f"{name.replace('_', ' ').capitalize()}."
        families.append(Family(f"perdure_ingress_{name}_total", "counter", text, [({}, number)]))
    return families

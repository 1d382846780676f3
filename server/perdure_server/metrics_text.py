"""● core · Metrics in Prometheus' text form (version 0.0.4)."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Literal

from perdure_processor.model.value import value

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"

_METRIC_NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
_LABEL_NAME = re.compile(r"(?!__)[a-zA-Z_][a-zA-Z0-9_]*")


@value
class Family:
    """One metric: its samples differ in labels only."""

    name: str
    type: Literal["counter", "gauge", "untyped"]
    help: str
    samples: Sequence[tuple[Mapping[str, str], int | float]]


def render(families: Sequence[Family]) -> str:
    """The page of /metrics. Each family once, each label set once: strict scrapers refuse anything else."""
    lines: list[str] = []
    names: dict[str, None] = {}
    for family in families:
        assert _METRIC_NAME.fullmatch(family.name), family.name
        assert family.name not in names, f"{family.name} is rendered twice"
        names[family.name] = None
        lines.append(f"# HELP {family.name} {_escape_help(family.help)}")
        lines.append(f"# TYPE {family.name} {family.type}")
        series: dict[str, None] = {}
        for labels, number in family.samples:
            sample = family.name + _labels(labels)
            assert sample not in series, f"{sample} is rendered twice"
            series[sample] = None
            lines.append(f"{sample} {_number(number)}")
    return "\n".join(lines) + "\n" if lines else ""


def _labels(labels: Mapping[str, str]) -> str:
    if not labels:
        return ""
    for name in labels:
        assert _LABEL_NAME.fullmatch(name), name
    pairs = ",".join(f'{name}="{_escape_label(text)}"' for name, text in sorted(labels.items()))
    return f"{{{pairs}}}"


def _number(number: int | float) -> str:
    if isinstance(number, int):
        return str(number)
    if math.isnan(number):
        return "NaN"
    if math.isinf(number):
        return "+Inf" if number > 0 else "-Inf"
    return repr(number)


def _escape_help(text: str) -> str:
    return text.replace("\\", "\\\\").replace("\n", "\\n")


def _escape_label(text: str) -> str:
    return _escape_help(text).replace('"', '\\"')

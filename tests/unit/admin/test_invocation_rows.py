"""Stored rows as the admin API shows them."""

from __future__ import annotations

import pytest

from perdure_processor.model.effects import FailureInfo
from perdure_processor.model.ids import Incarnation, Millis
from perdure_processor.storage.records import Live, Status
from perdure_server.admin.invocation_rows import failure_text, invocation_row
from support import builders as b


def row(**changed: int) -> Live:
    fields = {"journal_retention_ms": 0, "completion_retention_ms": 0, "created_ms": 1, **changed}
    return Live(
        Status.INVOKED,
        Incarnation(1),
        1,
        b.service(),
        0,
        0,
        None,
        [],
        None,
        [],
        fields["journal_retention_ms"],
        fields["completion_retention_ms"],
        Millis(fields["created_ms"]),
        Millis(fields["created_ms"]),
    )


@pytest.mark.parametrize(
    ("milliseconds", "shown"), [(0, "P0D"), (500, "PT0.5S"), (86_400_000, "PT86400S"), (123_456_789, "PT123456.789S")]
)
def test_a_retention_is_shown_to_the_millisecond(milliseconds: int, shown: str) -> None:
    shown_row = invocation_row(b.invocation_id(b.service()), row(journal_retention_ms=milliseconds), running=True)
    assert shown_row["journal_retention"] == shown
    assert shown_row["completion_retention"] == "P0D"


@pytest.mark.parametrize(
    ("milliseconds", "shown"), [(1, "1970-01-01T00:00:00.001Z"), (1 << 63, "9999-12-31T23:59:59.999Z")]
)
def test_a_time_is_shown_to_the_millisecond_up_to_the_last_year(milliseconds: int, shown: str) -> None:
    assert (
        invocation_row(b.invocation_id(b.service()), row(created_ms=milliseconds), running=True)["created_at"] == shown
    )


HELP = (
    "What helps: put the code back, resume the invocation on a deployment whose code fits (resume?deployment=ID), "
    "or restart it as new."
)


@pytest.mark.parametrize(
    ("failure", "lines"),
    [
        (
            FailureInfo(570, "they differ", "RT0016", "at bank.py:7", 3, "refund", 0x0411, "charge", 0x0411),
            [
                "[570] they differ",
                "Command 3 in the journal is Run 'charge', the code now asks for Run 'refund'.",
                HELP,
                "at bank.py:7",
            ],
        ),
        (
            FailureInfo(570, "they differ", "RT0016", "", 3, None, None, None, 0x040C),
            ["[570] they differ", "Command 3 in the journal is Sleep, the code now asks for another one.", HELP],
        ),
        (FailureInfo(570, "they differ", "RT0016"), ["[570] they differ", HELP]),
        (FailureInfo(500, "boom", "RT0007", "", 3, "charge", 0x0411), ["[500 Internal] boom"]),
    ],
    ids=["both sides", "the recorded side", "neither", "no mismatch"],
)
def test_a_mismatch_is_shown_with_both_sides_and_what_helps(failure: FailureInfo, lines: list[str]) -> None:
    assert failure_text(failure).splitlines() == lines

"""Stored rows as the admin API shows them."""

from __future__ import annotations

import pytest

from perdure_processor.model.ids import Incarnation, Millis
from perdure_processor.storage.records import Live, Status
from perdure_server.admin.invocation_rows import invocation_row
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

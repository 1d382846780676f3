"""The comparison with the real server over HTTP; `make parity` adds the messages on the wire and writes a report."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from parity.comparison import both, compare
from parity.rows import admin_rows, ingress_rows, query_rows, verb_rows
from support import tools


@pytest.mark.skipif(tools.restate_server() is None, reason="the real restate-server is missing")
def test_rows_are_answered_alike_or_differ_for_a_reason(tmp_path: Path) -> None:
    rows = itertools.chain(ingress_rows(), admin_rows(), query_rows(), verb_rows())
    with both(tmp_path) as sides:
        unexplained = [(row.title, row.differs) for row in compare(sides, rows) if row.unexplained]
    assert unexplained == []

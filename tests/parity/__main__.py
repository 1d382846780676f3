"""Compare every row and write tests/parity.md; exit 1 if a difference has no reason.

    PYTHONPATH=tests python -m parity [PATTERN]

With a pattern only rows whose title matches are compared, and the report goes to standard output.
"""

from __future__ import annotations

import fnmatch
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from parity.comparison import both, compare, report
from parity.rows import Row, admin_rows, ingress_rows, query_rows, verb_rows
from parity.wire import WireRow, wire_rows
from support import tools

REPORT = tools.ROOT / "tests" / "parity.md"


def every_row() -> Iterator[Row | WireRow]:
    """The whole comparison, in the order of the report."""
    for rows in (ingress_rows, admin_rows, query_rows, verb_rows, wire_rows):
        yield from rows()


def main(pattern: str | None) -> int:
    if tools.restate_server() is None:
        print("missing: the real restate-server (make tools)", file=sys.stderr)
        return 2
    rows: list[Row | WireRow] = [
        row
        for row in every_row()
        if pattern is None
        or fnmatch.fnmatchcase(f"wire: {row.title}" if isinstance(row, WireRow) else row.title, pattern)
    ]
    compared = []
    with tempfile.TemporaryDirectory(prefix="parity-") as directory, both(Path(directory)) as sides:
        for outcome in compare(sides, rows):
            compared.append(outcome)
            if outcome.unexplained:
                print(f"{outcome.title}\n    " + "\n    ".join(outcome.differs), flush=True)
    if pattern is None:
        REPORT.write_text(report(compared))
    else:
        print(report(compared))
    unexplained = sum(row.unexplained for row in compared)
    print(f"{len(compared)} rows, {unexplained} differences without a reason")
    return 1 if unexplained else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1] if len(sys.argv) > 1 else None))

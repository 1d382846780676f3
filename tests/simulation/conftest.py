"""The simulator's table: what the seeds of this run did, printed behind the results."""

from __future__ import annotations

from collections import Counter

import pytest

from simulation.run import Report

_reports: list[Report] = []


@pytest.fixture
def reports() -> list[Report]:
    """Where a test leaves its report for the table."""
    return _reports


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if not _reports:
        return
    totals: Counter[str] = Counter()
    for report in _reports:
        totals.update(report.counts)
    terminalreporter.section("simulation")
    records, virtual_s = sum(report.records for report in _reports), sum(report.virtual_s for report in _reports)
    terminalreporter.write_line(f"{len(_reports)} seeds, {records} records, {virtual_s:.0f} virtual seconds")
    for name, total in totals.items():
        terminalreporter.write_line(f"  {name:<24}{total:>8}")

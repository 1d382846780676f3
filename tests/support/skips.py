"""A pytest plugin: the run fails if a test was skipped that tests/skips.txt does not list.

A skip is a test that nobody runs; it may only happen for a reason that somebody wrote down.
"""

from __future__ import annotations

import fnmatch
from pathlib import Path

import pytest

LIST = Path(__file__).resolve().parent.parent / "skips.txt"


def announced(text: str) -> list[tuple[str, str]]:
    """Pairs of (pattern of node ids, reason) of a skip list; a line without a reason is refused."""
    pairs = []
    for line in text.splitlines():
        line = line.strip()
        if not line or line.startswith("#"):
            continue
        pattern, separator, reason = line.partition(" -- ")
        if not separator or not reason.strip():
            raise ValueError(f"skips.txt: no reason given (PATTERN -- REASON): {line}")
        pairs.append((pattern.strip(), reason.strip()))
    return pairs


def is_announced(node_id: str, pairs: list[tuple[str, str]]) -> bool:
    # Square brackets are part of a node id, not a character class of the pattern.
    return any(fnmatch.fnmatchcase(node_id, pattern.replace("[", "[[]")) for pattern, _ in pairs)


class SkipWatch:
    """Collects what was skipped and turns the session's exit status if one was not announced."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs
        self.unannounced: list[str] = []

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.skipped and not hasattr(report, "wasxfail"):
            self._skipped(report.nodeid)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.skipped:
            self._skipped(report.nodeid)

    def _skipped(self, node_id: str) -> None:
        if not is_announced(node_id, self.pairs):
            self.unannounced.append(node_id)

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        for node_id in self.unannounced:
            terminalreporter.write_line(f"SKIP NOT ANNOUNCED in tests/skips.txt: {node_id}", red=True)

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        if self.unannounced and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--no-skips", action="store_true", help="even a skip that skips.txt lists fails the run")


def pytest_configure(config: pytest.Config) -> None:
    pairs = [] if config.getoption("--no-skips") else announced(LIST.read_text())
    config.pluginmanager.register(SkipWatch(pairs), "skip-watch")

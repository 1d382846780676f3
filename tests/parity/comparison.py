"""Both sides, row by row at the same time; and the report."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parity.comparing import differences, essence
from parity.reasons import reason
from parity.rows import Row
from parity.side import NeverReached, Side
from parity.wire import WireRow, observe


@dataclass(frozen=True)
class Compared:
    """One row's outcome: what differs, and why that may be."""

    title: str
    differs: list[str]
    reason: str | None

    @property
    def unexplained(self) -> bool:
        return bool(self.differs) and self.reason is None


@contextlib.contextmanager
def both(directory: Path) -> Iterator[tuple[Side, Side]]:
    """The real server and Perdure, started, each with deployments of its own."""
    sides = Side("restate", directory / "restate"), Side("perdure", directory / "perdure")
    try:
        for side in sides:
            side.start()
        yield sides
    finally:
        for side in sides:
            side.close()


def compare(sides: tuple[Side, Side], rows: Iterable[Row | WireRow]) -> Iterator[Compared]:
    """Each row against both sides."""
    with ThreadPoolExecutor(2) as pool:
        for row in rows:
            title = row.title if isinstance(row, Row) else f"wire: {row.title}"
            real, ours = pool.map(_seen, sides, (row, row))
            differs = differences(real, ours)
            yield Compared(title, differs, reason(title, differs) if differs else None)


def _seen(side: Side, row: Row | WireRow) -> dict[str, Any]:
    try:
        if isinstance(row, WireRow):
            return observe(side, row)
        names = {**side.names, "key": side.key()}
        if row.state is not None:
            names["id"] = side.invocation(row.state)

        def filled(text: str) -> str:
            for name, value in names.items():
                text = text.replace("{" + name + "}", value)
            return text

        body = None if row.body is None else filled(row.body.decode()).encode()
        headers = {name: filled(value) for name, value in row.headers.items()}
        return essence(side.ask(row.door, row.method, filled(row.path), body, headers), row.compare)
    except (NeverReached, OSError) as error:
        return {"failed": f"{type(error).__name__}: {error}"}


def report(compared: Sequence[Compared]) -> str:
    """The whole run as Markdown, one line a row."""
    same = sum(not row.differs for row in compared)
    lines = [
        "# Perdure and the real server, row by row",
        "",
        "Written by `make parity`, which sends the same requests to restate-server 1.7.12 and to Perdure. Ids, times,"
        " ports and free orders are taken out before answers are compared. A difference is shown as `real -> Perdure`.",
        "",
        f"{len(compared)} rows: {same} the same, {len(compared) - same} differ,"
        f" {sum(row.unexplained for row in compared)} of these without a reason.",
        "",
        "| row | outcome |",
        "|---|---|",
    ]
    for row in compared:
        outcome = "same"
        if row.differs:
            shown = "; ".join(row.differs).replace("|", "\\|").replace("\n", " ")
            outcome = f"**{row.reason or 'no reason'}**: `{shown}`"
        lines.append(f"| {row.title.replace('|', chr(92) + '|')} | {outcome} |")
    return "\n".join(lines) + "\n"

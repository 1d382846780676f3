"""● core · Plain tables for people, and JSON for programs."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Sequence
from typing import Any

COLUMN_GAP = "  "
MISSING = "-"


def table(headings: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Columns as wide as they need to be, a heading above each; None is a dash."""
    lines = [list(headings)] + [[_cell(field) for field in row] for row in rows]
    assert all(len(line) == len(headings) for line in lines), "a row has other columns than the table"
    widths = [max(_width(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        COLUMN_GAP.join(
            field + " " * (width - _width(field)) for field, width in zip(line, widths, strict=True)
        ).rstrip()
        for line in lines
    )


def details(pairs: Sequence[tuple[str, object]]) -> str:
    """One `name: value` a line, the values aligned; pairs without a value are left out."""
    shown = [(f"{name}:", _cell(field)) for name, field in pairs if field is not None]
    width = max((_width(name) for name, _ in shown), default=0)
    return "\n".join(f"{name}{' ' * (width - _width(name))}{COLUMN_GAP}{field}".rstrip() for name, field in shown)


def as_json(answer: Any) -> str:
    """What the server answered, indented; programs get the same fields as the admin API has."""
    return json.dumps(answer, indent=2, ensure_ascii=False)


def in_one_cell(field: object) -> object:
    """What a table can show of a field: lists and objects as JSON, the rest as it is."""
    return json.dumps(field, ensure_ascii=False) if isinstance(field, (dict, list)) else field


def printable(text: str, keep: str = "") -> str:
    """Other people's text, in which nothing moves the cursor or colours the terminal; `keep` stays as it is."""
    if text.isprintable():
        return text
    return "".join(
        character if character.isprintable() or character in keep else character.encode("unicode_escape").decode()
        for character in text
    )


def _cell(field: object) -> str:
    if field is None or field == "":
        return MISSING
    if isinstance(field, bool):
        return "yes" if field else "no"
    return printable(str(field))


def _width(text: str) -> int:
    """Columns on a terminal: wide characters take two, combining ones none."""
    if text.isascii():
        return len(text)
    return sum(
        0 if unicodedata.combining(character) else 2 if unicodedata.east_asian_width(character) in "WF" else 1
        for character in text
    )

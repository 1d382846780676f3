"""● core · What a filter says for certain of a few columns, so that a scan reads no more than it must.

The filter comes as the text of an Arrow expression. What this cannot read prunes nothing: the filter itself is
applied to every row afterwards, so too many rows are only slow, and too few would be wrong.
"""

from __future__ import annotations

import re
from typing import TypeAlias

# Column → the only values it may have.
Constraints: TypeAlias = dict[str, list[str]]

_TOKEN = re.compile(r'\s*(?:(\()|(\))|(==)|(and|or)\b|"([^"\\]*)"|([A-Za-z_]\w*)|(\d+))')


def constraints(filter_text: str) -> Constraints:
    """Of `((id == "a") and (n > 0))`: id is "a". Empty where nothing is certain."""
    reader = _Reader(filter_text)
    try:
        found = reader.expression()
    except _Unreadable:
        return {}
    return found if reader.at_end() else {}


class _Unreadable(Exception):
    """Not of the few forms that are understood."""


class _Reader:
    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def at_end(self) -> bool:
        return not self._text[self._at :].strip()

    def expression(self) -> Constraints:
        """( expression and|or expression ), ( column == value ), or anything else in brackets, which says nothing."""
        start = self._at
        self._expect("(")
        try:
            if self._peek() == "(":
                left = self.expression()
                word = self._next()
                if word not in ("and", "or"):
                    raise _Unreadable
                right = self.expression()
                self._expect(")")
                return {**right, **left} if word == "and" else _either(left, right)
            column = self._next()
            self._expect("==")
            literal = self._next()
            self._expect(")")
            return {column: [literal]}
        except _Unreadable:
            self._skip(start)
            return {}

    def _skip(self, start: int) -> None:
        """Past the bracket that closes the one at `start`; strings may hold brackets."""
        depth = 0
        for found in re.finditer(r'"(?:[^"\\]|\\.)*"|[()]', self._text[start:]):
            depth += {"(": 1, ")": -1}.get(found[0], 0)
            if depth == 0:
                self._at = start + found.end()
                return
        raise _Unreadable

    def _match(self) -> re.Match[str]:
        found = _TOKEN.match(self._text, self._at)
        if found is None:
            raise _Unreadable
        return found

    def _peek(self) -> str:
        return self._match()[0].strip()

    def _next(self) -> str:
        found = self._match()
        self._at = found.end()
        quoted = found[5]
        return quoted if quoted is not None else found[0].strip()

    def _expect(self, token: str) -> None:
        if self._next() != token:
            raise _Unreadable


def _either(left: Constraints, right: Constraints) -> Constraints:
    return {column: [*left[column], *right[column]] for column in left if column in right}

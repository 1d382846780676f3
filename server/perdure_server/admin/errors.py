"""● core · What the admin API refuses with: JSON from the application, plain text where a request has no form."""

from __future__ import annotations


class AdminError(Exception):
    """An answer of the form `{"message": …, "restate_code": …}`."""

    def __init__(self, status: int, code: str | None, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


class ExtractorError(Exception):
    """The request cannot be taken apart: an answer in plain text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(text)
        self.status = status
        self.text = text


class QueryError(Exception):
    """A query that cannot be planned or run: for the one who wrote it, in DataFusion's words."""


def invalid_field(name: str, reason: str) -> AdminError:
    """A field or parameter whose type is right and whose value is not."""
    return AdminError(400, None, f"The request field '{name}' is invalid. Reason: {reason}")

"""● core · The roots of all errors of this project, defined here because every room may import this package."""

from __future__ import annotations


class PerdureError(Exception):
    """Something of ours went wrong, and somebody other than us can act on it."""


class ProtocolError(PerdureError):
    """The peer sent bytes that the service protocol does not allow."""

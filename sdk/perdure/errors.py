"""● core · What can go wrong, by who must act; the roots are shared with the server's rooms."""

from __future__ import annotations

from perdure.protocol.errors import PerdureError, ProtocolError

__all__ = ["PerdureError", "ProtocolError"]

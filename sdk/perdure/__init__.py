"""● core · Perdure's SDK: the public names and nothing else."""

from __future__ import annotations

from perdure.errors import PerdureError, ProtocolError

__all__ = ["PerdureError", "ProtocolError"]

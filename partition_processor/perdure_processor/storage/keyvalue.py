"""● core · The KeyValue port: ordered bytes to bytes, written in atomic batches that carry their position."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol


class KeyValue(Protocol):
    """One store, one column family, no write-ahead log of its own: the command log is that.

    After a crash the store holds a prefix of the batches written to it, never a part of one."""

    def get(self, key: bytes) -> bytes | None:
        """The value of one key; microseconds."""

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with low <= key < high in key order. Both bounds are real: never walks beyond them."""

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        """Apply all changes (None deletes) as one batch, or raise and apply none."""

    def flush(self) -> None:
        """What was written before this call survives a crash once it returns. May take long: call it from a thread.

        Raises StoreFull if the disk has no room for it."""

    def close(self) -> None:
        """Flush and release the directory."""

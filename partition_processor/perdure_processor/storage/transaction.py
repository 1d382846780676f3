"""● core · Transaction: what one batch of records has changed so far, over a store that it does not touch.

The hot path of apply: every call is a dict operation and at most one get of the store.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from typing import Final

from perdure_processor.storage.keyvalue import KeyValue

# Compared by identity, so that no stored value is mistaken for it; bytes, so that the dicts keep their type.
_UNSEEN: Final = bytes(bytearray(b"unseen"))


class Transaction:
    """Reads see this transaction's own writes; nothing reaches the store until someone writes `changes()`.

    Nothing is written that the same transaction deletes: a delete drops an earlier put.  The delete itself
    stays, or an older row in the store would come back to life (correctness 15); it goes too only where this
    transaction has itself read from the store that there is no such row."""

    __slots__ = ("_changes", "_fresh", "_ordered", "_reads", "_store")

    def __init__(self, store: KeyValue) -> None:
        self._store = store
        self._reads: dict[bytes, bytes | None] = {}
        self._changes: dict[bytes, bytes | None] = {}
        # The keys of _changes in key order, for scans: _ordered is sorted, _fresh came since the last scan.
        # Both may name keys twice, or keys whose change was dropped again.
        self._ordered: list[bytes] = []
        self._fresh: list[bytes] = []

    def get(self, key: bytes) -> bytes | None:
        """The value as this transaction sees it; the store is asked once per key."""
        value = self._changes.get(key, _UNSEEN)
        if value is not _UNSEEN:
            return value
        value = self._reads.get(key, _UNSEEN)
        if value is not _UNSEEN:
            return value
        value = self._reads[key] = self._store.get(key)
        return value

    def put(self, key: bytes, value: bytes) -> None:
        changes = self._changes
        if key not in changes:
            self._fresh.append(key)
        changes[key] = value

    def delete(self, key: bytes) -> None:
        changes = self._changes
        if self._reads.get(key, _UNSEEN) is None:
            # Read as absent: to the store, this key never was.
            changes.pop(key, None)
            return
        if key not in changes:
            self._fresh.append(key)
        changes[key] = None

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Pairs with low <= key < high in key order, as of this call: what changes later is not seen."""
        if self._fresh:
            # Two sorted runs, which is what the sort is fastest at.
            self._fresh.sort()
            self._ordered = sorted(self._ordered + self._fresh)
            self._fresh = []
        ordered = self._ordered
        first, last = bisect_left(ordered, low), bisect_left(ordered, high)
        stored = self._store.scan(low, high)
        if first >= last:
            return stored
        changes = self._changes
        return _merged(stored, {key: changes[key] for key in ordered[first:last] if key in changes})

    def changes(self) -> Mapping[bytes, bytes | None]:
        """What to write to the store in one batch; None deletes. Not a copy."""
        return self._changes


def _merged(stored: Iterator[tuple[bytes, bytes]], changed: dict[bytes, bytes | None]) -> Iterator[tuple[bytes, bytes]]:
    """Stored pairs overlaid with changed ones, both in key order."""
    own = iter(changed.items())
    own_pair = next(own, None)
    for pair in stored:
        key = pair[0]
        while own_pair is not None and own_pair[0] < key:
            if own_pair[1] is not None:
                yield own_pair[0], own_pair[1]
            own_pair = next(own, None)
        if own_pair is None or own_pair[0] != key:
            yield pair
            continue
        if own_pair[1] is not None:
            yield key, own_pair[1]
        own_pair = next(own, None)
    while own_pair is not None:
        if own_pair[1] is not None:
            yield own_pair[0], own_pair[1]
        own_pair = next(own, None)

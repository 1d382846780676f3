"""● core · MemoryKeyValue: the KeyValue port in a dict and a sorted list; a crash loses what is unflushed."""

from __future__ import annotations

from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping


class MemoryKeyValue:
    """A store for unit tests and the simulator.

    With `crashable` every batch since the last flush can be taken back: `crash` keeps a prefix of them,
    which is what RocksDB promises when its own write-ahead log is off."""

    def __init__(self, *, crashable: bool = False) -> None:
        self._version = _Version([], {})
        self._crashable = crashable
        # Per unflushed batch, what its keys held before: only the way back is kept, never the batches.
        self._undo: list[dict[bytes, bytes | None]] = []
        self._open = True

    def get(self, key: bytes) -> bytes | None:
        assert self._open, "the store is closed"
        return self._version.values.get(key)

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        assert self._open, "the store is closed"
        keys = self._version.keys
        return _Scan(self._version, bisect_left(keys, low), bisect_left(keys, high))

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        assert self._open, "the store is closed"
        if self._crashable:
            values = self._version.values
            self._undo.append({key: values.get(key) for key in changes})
        self._apply(changes)

    def flush(self) -> None:
        assert self._open, "the store is closed"
        self._undo.clear()

    def close(self) -> None:
        if self._open:
            self.flush()
            self._open = False

    @property
    def unflushed(self) -> int:
        """How many batches a crash may take; only counted when crashable."""
        return len(self._undo)

    def crash(self, batches_kept: int) -> MemoryKeyValue:
        """The store as found after a crash that kept the first `batches_kept` unflushed batches."""
        assert self._crashable, "made without crashable=True"
        assert self._open, "the store is closed"
        assert 0 <= batches_kept <= len(self._undo)
        for undo in reversed(self._undo[batches_kept:]):
            self._apply(undo)
        self._open = False
        found = MemoryKeyValue(crashable=True)
        found._version = self._version
        return found

    def _apply(self, changes: Mapping[bytes, bytes | None]) -> None:
        version = self._version
        if version.scans:
            version = self._version = _Version(version.keys.copy(), version.values.copy())
        keys, values = version.keys, version.values
        for key, value in changes.items():
            if value is not None:
                if key not in values:
                    insort(keys, key)
                values[key] = value
            elif values.pop(key, None) is not None:
                del keys[bisect_left(keys, key)]


class _Version:
    """One state of the store. A scan keeps its own; a write during a scan makes the next one."""

    __slots__ = ("keys", "scans", "values")

    def __init__(self, keys: list[bytes], values: dict[bytes, bytes]) -> None:
        self.keys = keys
        self.values = values
        self.scans = 0


class _Scan:
    """The pairs of a range of one version, counted there from the first moment to the last.

    A class, since a generator that is never advanced would not run its `finally`."""

    __slots__ = ("_at", "_last", "_version")

    def __init__(self, version: _Version, first: int, last: int) -> None:
        self._version: _Version | None = version if first < last else None
        self._at = first
        self._last = last
        if self._version is not None:
            version.scans += 1

    def __iter__(self) -> Iterator[tuple[bytes, bytes]]:
        return self

    def __next__(self) -> tuple[bytes, bytes]:
        version = self._version
        if version is None:
            raise StopIteration
        key = version.keys[self._at]
        pair = key, version.values[key]
        self._at += 1
        if self._at == self._last:
            self._finish()
        return pair

    def __del__(self) -> None:
        self._finish()

    def _finish(self) -> None:
        if self._version is not None:
            self._version.scans -= 1
            self._version = None

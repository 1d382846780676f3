"""Transaction ≡ a dict: whatever is put, deleted, read, scanned and committed, in any order.

`changes()` is compared with a second model too, for what reaches the store is as much a promise as what reads
see: a put that was deleted again is dropped, a delete is not (correctness 15).
"""

from __future__ import annotations

from collections.abc import Iterator

import hypothesis.strategies as st
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from perdure_processor.storage.memory import MemoryKeyValue
from perdure_processor.storage.transaction import Transaction

# Few keys, so that they meet; some are prefixes of others.
KEYS = [b"", b"a", b"a\0", b"a\0b", b"ab", b"b", b"b\xff", b"c"]
keys = st.sampled_from(KEYS)
bounds = st.sampled_from([*KEYS, b"\xff"])
values = st.sampled_from([b"", b"1", b"2", b"unseen"])


class CountingStore(MemoryKeyValue):
    """A memory store that knows how often each key was asked for."""

    def __init__(self) -> None:
        super().__init__()
        self.gets: dict[bytes, int] = {}

    def get(self, key: bytes) -> bytes | None:
        self.gets[key] = self.gets.get(key, 0) + 1
        return super().get(key)


class TransactionIsADict(RuleBasedStateMachine):
    @initialize(rows=st.dictionaries(keys, values))
    def open(self, rows: dict[bytes, bytes]) -> None:
        self.store = CountingStore()
        self.store.write(rows)
        self.expected = dict(rows)
        self.begin()

    def begin(self) -> None:
        self.transaction = Transaction(self.store)
        self.store.gets.clear()
        self.stored = dict(self.store.scan(b"", b"\xff\xff"))
        self.read_as_absent: list[bytes] = []
        self.to_write: dict[bytes, bytes | None] = {}
        self.scans: list[tuple[Iterator[tuple[bytes, bytes]], list[tuple[bytes, bytes]]]] = []

    @rule(key=keys)
    def get(self, key: bytes) -> None:
        if key not in self.to_write and key not in self.stored:
            self.read_as_absent.append(key)
        assert self.transaction.get(key) == self.expected.get(key)

    @rule(key=keys, value=values)
    def put(self, key: bytes, value: bytes) -> None:
        self.transaction.put(key, value)
        self.expected[key] = value
        self.to_write[key] = value

    @rule(key=keys)
    def delete(self, key: bytes) -> None:
        self.transaction.delete(key)
        self.expected.pop(key, None)
        if key in self.read_as_absent:
            self.to_write.pop(key, None)
        else:
            self.to_write[key] = None

    @rule(low=bounds, high=bounds)
    def scan(self, low: bytes, high: bytes) -> None:
        assert list(self.transaction.scan(low, high)) == self.rows(low, high)

    @rule(low=bounds, high=bounds, taken=st.integers(0, 3))
    def begin_scan(self, low: bytes, high: bytes, taken: int) -> None:
        """Changes made between its pairs do not disturb a scan."""
        pairs = self.transaction.scan(low, high)
        expected = self.rows(low, high)
        for pair in expected[:taken]:
            assert next(pairs) == pair
        self.scans.append((pairs, expected[taken:]))

    @rule()
    def end_scans(self) -> None:
        for pairs, rest in self.scans:
            assert list(pairs) == rest
        self.scans.clear()

    @rule()
    def commit(self) -> None:
        self.store.write(self.transaction.changes())
        assert dict(self.store.scan(b"", b"\xff\xff")) == self.expected
        self.begin()

    @rule()
    def abandon(self) -> None:
        self.expected = dict(self.stored)
        self.begin()

    @invariant()
    def writes_what_it_must_and_nothing_else(self) -> None:
        assert self.transaction.changes() == self.to_write

    @invariant()
    def asks_the_store_once_per_key(self) -> None:
        assert all(count == 1 for count in self.store.gets.values())

    def rows(self, low: bytes, high: bytes) -> list[tuple[bytes, bytes]]:
        return sorted((key, value) for key, value in self.expected.items() if low <= key < high)


TransactionIsADict.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
test_transaction_is_a_dict = TransactionIsADict.TestCase


def test_a_put_and_delete_over_an_older_row_still_deletes_it() -> None:
    store = MemoryKeyValue()
    store.write({b"lock": b"held by A"})
    transaction = Transaction(store)
    transaction.put(b"lock", b"held by B")
    transaction.delete(b"lock")
    store.write(transaction.changes())
    assert store.get(b"lock") is None, "or the object would be locked for ever"


def test_a_put_and_delete_of_a_row_read_as_absent_writes_nothing() -> None:
    transaction = Transaction(MemoryKeyValue())
    assert transaction.get(b"lock") is None
    transaction.put(b"lock", b"held by A")
    transaction.delete(b"lock")
    assert transaction.changes() == {}

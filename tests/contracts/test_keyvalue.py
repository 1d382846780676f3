"""The KeyValue port, against the memory store and RocksDB: batches, bounded scans, and what a crash leaves."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias

import pytest

from perdure_processor.model.errors import CorruptStore, PartitionStopped
from perdure_processor.storage.keyvalue import KeyValue
from perdure_processor.storage.memory import MemoryKeyValue
from perdure_processor.storage.rocks import RocksKeyValue, RocksMemory

OpenStore: TypeAlias = Callable[[], KeyValue]


@pytest.fixture(params=["memory", "rocks"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> KeyValue:
    return MemoryKeyValue() if request.param == "memory" else open_rocks(tmp_path)


def open_rocks(tmp_path: Path) -> RocksKeyValue:
    return RocksKeyValue(tmp_path / "store", RocksMemory(block_cache_bytes=1 << 20, write_buffers_bytes=4 << 20))


def test_a_batch_puts_replaces_and_deletes(store: KeyValue) -> None:
    store.write({b"a": b"1", b"b": b"2"})
    store.write({b"a": b"3", b"b": None, b"never there": None})
    assert store.get(b"a") == b"3"
    assert store.get(b"b") is None
    assert list(store.scan(b"", b"\xff")) == [(b"a", b"3")]


def test_keys_and_values_are_any_bytes(store: KeyValue) -> None:
    pairs = {bytes([first, second]): bytes([second]) * 3 for first in (0, 255) for second in (0, 10, 255)}
    store.write({**pairs, b"\x00": b""})
    assert store.get(b"\x00") == b""
    assert list(store.scan(b"", b"\xff\xff\xff")) == sorted({**pairs, b"\x00": b""}.items())


def test_a_scan_stays_within_both_bounds(store: KeyValue) -> None:
    store.write({b"%02d" % n: b"" for n in range(20)})

    def keys(low: bytes, high: bytes) -> list[bytes]:
        return [key for key, _ in store.scan(low, high)]

    assert keys(b"05", b"08") == [b"05", b"06", b"07"]
    assert keys(b"05", b"0500") == [b"05"], "the low bound belongs to the range"
    assert keys(b"0500", b"06") == [], "the high bound does not"
    assert keys(b"05", b"05") == []
    assert keys(b"08", b"05") == []
    assert keys(b"19", b"99") == [b"19"]


def test_a_scan_shows_the_store_as_it_was_when_it_began(store: KeyValue) -> None:
    store.write({b"%d" % n: b"old" for n in range(6)})
    begun, untouched = store.scan(b"0", b"9"), store.scan(b"0", b"9")
    assert next(begun) == (b"0", b"old")
    store.write({b"1": b"new", b"2": None, b"25": b"new"})
    assert list(begun) == [(b"%d" % n, b"old") for n in range(1, 6)]
    assert list(untouched) == [(b"%d" % n, b"old") for n in range(6)]
    assert list(store.scan(b"0", b"4")) == [(b"0", b"old"), (b"1", b"new"), (b"25", b"new"), (b"3", b"old")]


def test_a_scan_may_be_left_before_its_end(store: KeyValue) -> None:
    store.write({b"%d" % n: b"" for n in range(6)})
    assert next(store.scan(b"2", b"9"))[0] == b"2"
    store.write({b"2": None})
    assert next(store.scan(b"2", b"9"))[0] == b"3"


def test_what_was_flushed_and_closed_is_found_again(tmp_path: Path) -> None:
    store = open_rocks(tmp_path)
    store.write({b"flushed": b"1"})
    store.flush()
    store.write({b"closed": b"2"})
    store.close()
    again = open_rocks(tmp_path)
    assert list(again.scan(b"", b"z")) == [(b"closed", b"2"), (b"flushed", b"1")]
    again.close()


def test_two_stores_of_one_directory_are_refused(tmp_path: Path) -> None:
    store = open_rocks(tmp_path)
    with pytest.raises(PartitionStopped, match="store"):
        open_rocks(tmp_path)
    store.close()


@pytest.mark.parametrize("kept", [0, 1, 3])
def test_a_crash_of_the_memory_store_keeps_a_prefix_of_the_unflushed_batches(kept: int) -> None:
    store = MemoryKeyValue(crashable=True)
    store.write({b"a": b"0", b"b": b"0"})
    store.flush()
    store.write({b"a": b"1", b"c": b"1"})
    store.write({b"b": None})
    store.write({b"a": None, b"c": b"3"})
    assert store.unflushed == 3
    states = [
        {b"a": b"0", b"b": b"0"},
        {b"a": b"1", b"b": b"0", b"c": b"1"},
        {b"a": b"1", b"c": b"1"},
        {b"c": b"3"},
    ]
    found = store.crash(kept)
    assert dict(found.scan(b"", b"z")) == states[kept]
    assert found.unflushed == 0, "what was found after a crash is on the disk"
    with pytest.raises(AssertionError):
        store.get(b"a")


KILLED = """
    import os, signal, sys
    from pathlib import Path
    from perdure_processor.storage.rocks import RocksKeyValue, RocksMemory

    memory = RocksMemory(block_cache_bytes=1 << 20, write_buffers_bytes=4 << 20)
    store = RocksKeyValue(Path(sys.argv[1]), memory, write_buffer_bytes=64 << 10)
    for batch in range(400):
        # One row per batch, one that every batch overwrites, and one that the next batch deletes.
        store.write({b"row %06d" % batch: bytes(500), b"last": b"%d" % batch, b"mark %d" % batch: b"",
                     b"mark %d" % (batch - 1): None})
        if batch == 200:
            store.flush()
    os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_process_leaves_a_prefix_of_its_batches(tmp_path: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", textwrap.dedent(KILLED), str(tmp_path / "store")], check=False)
    assert killed.returncode == -signal.SIGKILL
    store = open_rocks(tmp_path)
    last = int(store.get(b"last") or b"-1")
    assert last >= 200, "what was flushed is there"
    assert [key for key, _ in store.scan(b"row", b"row~")] == [b"row %06d" % batch for batch in range(last + 1)]
    assert [key for key, _ in store.scan(b"mark", b"mark~")] == [b"mark %d" % last]
    store.close()


def test_a_broken_block_is_an_error_and_never_a_shorter_scan(tmp_path: Path) -> None:
    store = open_rocks(tmp_path)
    store.write({b"%06d" % n: os.urandom(100) for n in range(2_000)})
    store.close()
    (file,) = (tmp_path / "store").glob("*.sst")
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 0xFF
    file.write_bytes(data)
    store = open_rocks(tmp_path)
    with pytest.raises(CorruptStore, match="checksum"):
        list(store.scan(b"", b"9"))
    with pytest.raises(CorruptStore, match="checksum"):
        [store.get(b"%06d" % n) for n in range(2_000)]

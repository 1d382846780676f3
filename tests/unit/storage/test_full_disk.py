"""A disk without room for a flush: nothing is lost or stopped, and it is flushed when there is room."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from perdure_processor.cluster.metadata import Metadata
from perdure_processor.log.memory import MemoryLog
from perdure_processor.model.errors import StoreFull
from perdure_processor.model.ids import METADATA_PARTITION, NodeId
from perdure_processor.model.resolution import Defaults
from perdure_processor.storage.memory import MemoryKeyValue
from perdure_processor.storage.rocks import RocksKeyValue, RocksMemory


def fill_disks(monkeypatch: pytest.MonkeyPatch, free_bytes: int) -> None:
    """What every file system says it has left."""
    found = os.statvfs("/")
    blocks = free_bytes // found.f_frsize
    monkeypatch.setattr(os, "statvfs", lambda _: os.statvfs_result((*found[:4], blocks, *found[5:])))


def test_a_flush_without_room_is_refused_before_rocksdb_hears_of_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = RocksKeyValue(tmp_path / "store", RocksMemory())
    store.write({b"k": b"v"})
    with monkeypatch.context() as full:
        fill_disks(full, 1 << 20)
        with pytest.raises(StoreFull, match="no room to flush"):
            store.flush()
        assert store.get(b"k") == b"v"
        store.write({b"k": b"w"})
    store.flush()
    store.close()
    again = RocksKeyValue(tmp_path / "store", RocksMemory())
    assert again.get(b"k") == b"w"
    again.close()


def test_a_store_is_closed_without_a_flush_where_there_is_no_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The log has it all: closing is no reason to fail."""
    store = RocksKeyValue(tmp_path / "store", RocksMemory())
    store.write({b"k": b"v"})
    fill_disks(monkeypatch, 0)
    store.close()


class FullStore(MemoryKeyValue):
    """Memory that has no room to flush until the test says so."""

    full = True

    def flush(self) -> None:
        if self.full:
            raise StoreFull("no room")
        super().flush()


async def at_once(work: Callable[[], None]) -> None:
    work()


def test_metadata_stops_in_good_order_without_room() -> None:
    async def main() -> None:
        log, store = MemoryLog(), FullStore()
        metadata = Metadata(log, store, NodeId("n", 1), Defaults(), run_blocking=at_once)
        layout = await metadata.start("c", 2)
        await metadata.stop()
        assert metadata.failure is None
        assert log.stored.partition(METADATA_PARTITION).start == 0, "what is not flushed is not trimmed"
        store.full = False
        again = Metadata(log, store, NodeId("n", 2), Defaults(), run_blocking=at_once)
        assert await again.start("c", 2) == layout
        await again.stop()

    asyncio.run(main())

"""○ adapter · RocksKeyValue: the KeyValue port in RocksDB.

The command log is the write-ahead log, so RocksDB runs without its own.  One column family: with two, a
crash could keep the newer half of a batch of one and the older of the other.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NoReturn

from rocksdict import (
    BlockBasedOptions,
    Cache,
    DBCompressionType,
    Options,
    Rdict,
    RdictIter,
    ReadOptions,
    WriteBatch,
    WriteBufferManager,
    WriteOptions,
)

from perdure_processor.model.errors import CorruptStore, PartitionStopped, StoreFull
from perdure_processor.model.limits import (
    STORE_BLOCK_CACHE_BYTES,
    STORE_BLOOM_BITS_PER_KEY,
    STORE_FLUSH_ROOM_BYTES,
    STORE_INFO_LOG_BYTES_MAX,
    STORE_INFO_LOG_FILES_MAX,
    STORE_MEMTABLE_BYTES,
    STORE_OPEN_FILES_MAX,
    STORE_WRITE_BUFFERS_BYTES,
)


class RocksMemory:
    """The memory that all stores of one process share, so that more partitions do not mean more memory."""

    def __init__(
        self, *, block_cache_bytes: int = STORE_BLOCK_CACHE_BYTES, write_buffers_bytes: int = STORE_WRITE_BUFFERS_BYTES
    ) -> None:
        self.cache = Cache(block_cache_bytes)
        # When full, the largest memtable is flushed; writers are not stalled, for they are the event loop.
        self.write_buffers = WriteBufferManager(write_buffers_bytes, False)


class RocksKeyValue:
    """One RocksDB directory. Every error of RocksDB, also a late one of its threads, is a PartitionStopped."""

    def __init__(self, directory: Path, memory: RocksMemory, *, write_buffer_bytes: int = STORE_MEMTABLE_BYTES) -> None:
        """Open or create the store; blocks for some ten milliseconds."""
        self._directory = directory
        directory.parent.mkdir(parents=True, exist_ok=True)
        try:
            self._db = Rdict(str(directory), _options(memory, write_buffer_bytes))
        except Exception as error:
            self._stop(error)
        self._get = self._db.get
        self._without_wal = WriteOptions()
        # The stub says it is a method; it is a property.
        self._without_wal.disable_wal = True  # type: ignore[method-assign,assignment]

    def get(self, key: bytes) -> bytes | None:
        # rocksdict raises bare Exception for whatever RocksDB reports, so that is what can be named here.
        try:
            value: bytes | None = self._get(key)
        except Exception as error:
            self._stop(error)
        return value

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]:
        options = ReadOptions()
        options.set_iterate_upper_bound(high)
        # Not items(): that iterator ends silently where a block cannot be read, as if the rest did not exist.
        return self._pairs(self._db.iter(options), low, options)

    def write(self, changes: Mapping[bytes, bytes | None]) -> None:
        batch = WriteBatch(raw_mode=True)
        put, delete = batch.put, batch.delete
        for key, value in changes.items():
            if value is None:
                delete(key)
            else:
                put(key, value)
        try:
            self._db.write(batch, self._without_wal)
        except Exception as error:
            self._stop(error)

    def flush(self) -> None:
        try:
            unflushed = self._db.property_int_value("rocksdb.cur-size-all-mem-tables") or 0
            found = os.statvfs(self._directory)
            if found.f_bavail * found.f_frsize < unflushed + STORE_FLUSH_ROOM_BYTES:
                raise StoreFull(f"no room to flush {unflushed} bytes of {self._directory}")
            self._db.flush()
        except StoreFull:
            raise
        except Exception as error:
            self._stop(error)

    def close(self) -> None:
        """Flush and close; where there is no room to flush, the log has it all, and the process is about to end."""
        try:
            self.flush()
        except StoreFull:
            return  # RocksDB's close would flush
        self._db.close()

    def _pairs(self, iterator: RdictIter, low: bytes, options: ReadOptions) -> Iterator[tuple[bytes, bytes]]:
        # `options` owns the memory of the upper bound, and RocksDB only points to it: it lives as long as the scan.
        bound = options
        try:
            iterator.seek(low)
            while iterator.valid():
                yield iterator.key(), iterator.value()
                iterator.next()
            # Invalid is the end of the range or an error; only this call tells which.
            iterator.status()
            del bound
        except Exception as error:
            self._stop(error)

    def _stop(self, error: Exception) -> NoReturn:
        kind = CorruptStore if str(error).startswith("Corruption") else PartitionStopped
        raise kind(f"the store in {self._directory} failed: {error}") from error


def _options(memory: RocksMemory, write_buffer_bytes: int) -> Options:
    options = Options(raw_mode=True)
    options.create_if_missing(True)
    options.set_write_buffer_manager(memory.write_buffers)
    options.set_write_buffer_size(write_buffer_bytes)
    options.set_max_open_files(STORE_OPEN_FILES_MAX)
    options.set_max_log_file_size(STORE_INFO_LOG_BYTES_MAX)
    options.set_keep_log_file_num(STORE_INFO_LOG_FILES_MAX)
    options.set_compression_type(DBCompressionType.lz4())
    options.set_level_compaction_dynamic_level_bytes(True)
    table = BlockBasedOptions()
    table.set_block_cache(memory.cache)
    # Filters live in the cache too, so that its size bounds them. Without a filter a miss reads blocks.
    table.set_cache_index_and_filter_blocks(True)
    table.set_pin_l0_filter_and_index_blocks_in_cache(True)
    table.set_bloom_filter(STORE_BLOOM_BITS_PER_KEY, block_based=False)
    options.set_block_based_table_factory(table)
    return options

"""○ adapter · SQL over our tables with Apache DataFusion: read-only, streamed, within a bounded memory.

Loaded when the first query comes. DataFusion asks a table for batches of the columns it needs, and hands down the
part of the filter that it can; both come to `_Table` as an Arrow dataset, the one extension point of its Python
package that streams and pushes down.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from typing import Any

import datafusion
import pyarrow
import pyarrow.dataset

from perdure_server.admin.sql.catalog import EMPTY_TABLES, TABLES, Type
from perdure_server.admin.sql.columns import Column
from perdure_server.admin.sql.pruning import Constraints, constraints
from perdure_server.admin.sql.scans import Pacer, Rows
from perdure_server.durations import format_iso_duration_ms, format_time_ms
from perdure_server.limits import QUERY_BATCH_BYTES, QUERY_BATCH_ROWS, QUERY_MEMORY_MAX, QUERY_TIME_DISPLAYED_MAX_MS

_ARROW: dict[Type, Any] = {
    Type.U32: pyarrow.uint32(),
    Type.U64: pyarrow.uint64(),
    Type.TEXT: pyarrow.large_utf8(),
    Type.BYTES: pyarrow.large_binary(),
    Type.FLAG: pyarrow.bool_(),
    Type.TIME: pyarrow.timestamp("ms", "+00:00"),
    Type.DURATION: pyarrow.duration("ms"),
    Type.U32S: pyarrow.list_(pyarrow.uint32()),
    Type.TEXTS: pyarrow.list_(pyarrow.large_utf8()),
}
# Not even a statement: nothing that a query says can change or read anything but these tables.
_READ_ONLY = datafusion.SQLOptions().with_allow_ddl(False).with_allow_dml(False).with_allow_statements(False)


class QueryRefused(Exception):
    """What DataFusion says of a query that it cannot plan or run: for the one who wrote it."""


class Query:
    """A planned query; `batches` runs it. Not used by two threads at a time."""

    def __init__(self, sql: str, rows: Rows, columns: Mapping[str, Mapping[str, Column]], pacer: Pacer) -> None:
        config = (
            datafusion.SessionConfig()
            .with_information_schema(True)
            .with_default_catalog_and_schema("restate", "public")
            .with_target_partitions(1)
            .with_batch_size(QUERY_BATCH_ROWS)
        )
        runtime = datafusion.RuntimeEnvBuilder().with_disk_manager_disabled().with_greedy_memory_pool(QUERY_MEMORY_MAX)
        context = datafusion.SessionContext(config, runtime)
        noticed = _Noticed(rows)
        for name, types in TABLES.items():
            context.register_dataset(name, _Table(name, types, noticed, columns[name], pacer))
        for name, types in EMPTY_TABLES.items():
            context.register_dataset(name, _Table(name, types, _nothing, dict.fromkeys(types, _none), pacer))
        self._noticed = noticed
        self._pacer = pacer
        try:
            planned = context.sql_with_options(sql, _READ_ONLY)
            self.schema: pyarrow.Schema = planned.schema()
            self._stream = planned.execute_stream()
        except Exception as error:  # whatever the library raises of a query, it is about the query
            raise QueryRefused(_words(error)) from error

    def arrow(self) -> Iterator[bytes]:
        """The result as an Arrow IPC stream, in pieces."""
        sink = _Sink()
        with pyarrow.ipc.new_stream(sink, self.schema) as writer:
            for batch in self._batches():
                writer.write_batch(batch)
                yield sink.take()
        yield sink.take()

    def json(self) -> Iterator[bytes]:
        """The result as `{"rows":[…]}`, in pieces; nulls are left out of their rows."""
        before = b'{"rows":['
        for batch in self._batches():
            values = []
            for column in batch.columns:
                values.append(_printed(column))
                self._pacer.pause()
            names = batch.schema.names
            pieces = []
            for number in range(batch.num_rows):
                self._pacer.row()
                row = {name: column[number] for name, column in zip(names, values, strict=True)}
                text = {name: value for name, value in row.items() if value is not None}
                pieces.append(
                    before + json.dumps(text, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
                )
                before = b","
            yield b"".join(pieces)
        yield b"]}" if before == b"," else before + b"]}"

    def _batches(self) -> Iterator[Any]:
        try:
            for batch in self._stream:
                yield batch.to_pyarrow()
        except Exception as error:  # as above, or one of ours in the library's wrapping
            self._pacer.check()
            if self._noticed.failure is not None:
                raise self._noticed.failure from None
            raise QueryRefused(_words(error)) from error


class _Noticed:
    """Rows, and what went wrong with them. Not part of the query: what its stream holds must not hold it."""

    def __init__(self, rows: Rows) -> None:
        self.failure: Exception | None = None
        self._rows = rows

    def __call__(self, table: str, known: Constraints) -> Iterator[Any]:
        try:
            yield from self._rows(table, known)
        except Exception as error:
            self.failure = error
            raise


def _nothing(_table: str, _known: Constraints) -> Iterator[Any]:
    return iter(())


def _none(_entry: Any) -> None:
    return None


class _Sink:
    """A file for Arrow to write to; what was written is taken away again."""

    closed = False

    def __init__(self) -> None:
        self._pieces: list[bytes] = []

    def write(self, data: Any) -> int:
        piece = bytes(data)
        self._pieces.append(piece)
        return len(piece)

    def flush(self) -> None:
        """Everything is in memory."""

    def close(self) -> None:
        self.closed = True

    def readable(self) -> bool:
        return False

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def take(self) -> bytes:
        taken = b"".join(self._pieces)
        self._pieces.clear()
        return taken


class _Table(pyarrow.dataset.Dataset):  # type: ignore[misc]
    """A table of ours as DataFusion reads it. The base class is for recognition: it keeps nothing of its own."""

    def __init__(
        self, name: str, types: Mapping[str, Type], rows: Rows, columns: Mapping[str, Column], pacer: Pacer
    ) -> None:
        self._name = name
        self._types = types
        self._rows = rows
        self._columns = columns
        self._pacer = pacer
        self._arrow = pyarrow.schema(
            [
                pyarrow.field(column, _ARROW[kind], nullable=(name, column) != ("sys_invocation", "status"))
                for column, kind in types.items()
            ]
        )

    @property
    def schema(self) -> Any:
        return self._arrow

    def get_fragments(self, filter: Any = None) -> list[_Table]:
        return [self]

    def scanner(self, *_: Any, columns: list[str] | None = None, filter: Any = None, **__: Any) -> _Scanner:
        return _Scanner(self, list(self._types) if columns is None else columns, filter)

    def batches(self, columns: list[str], expression: Any) -> Iterator[Any]:
        """The rows that fit, as batches of these columns."""
        text = "" if expression is None else str(expression)
        words = set(re.findall(r"\w+", text))
        needed = [column for column in self._types if column in columns or column in words]
        pick = [self._columns[column] for column in needed]
        schema = pyarrow.schema([self._arrow.field(column) for column in needed])
        values: list[list[Any]] = [[] for _ in needed]
        count = size = 0
        for entry in self._rows(self._name, constraints(text)):
            for column, of in zip(values, pick, strict=True):
                value = of(entry)
                column.append(value)
                if type(value) is str or type(value) is bytes:
                    size += len(value)
            count += 1
            if count == QUERY_BATCH_ROWS or size >= QUERY_BATCH_BYTES:
                yield self._batch(needed, schema, values, count, columns, expression)
                values, count, size = [[] for _ in needed], 0, 0
        if count:
            yield self._batch(needed, schema, values, count, columns, expression)

    def _batch(
        self, needed: list[str], schema: Any, values: list[list[Any]], count: int, columns: list[str], expression: Any
    ) -> Any:
        if not needed:  # count(*): only how many there are
            return pyarrow.record_batch([pyarrow.nulls(count)], names=["none"]).select([])
        arrays = []
        for at, column in enumerate(needed):
            arrays.append(_array(values[at], self._types[column]))
            self._pacer.pause()
        batch = pyarrow.record_batch(arrays, schema=schema)
        if expression is not None:
            batch = batch.filter(expression)
        return batch.select(columns)


class _Scanner:
    """One reading of a table."""

    def __init__(self, table: _Table, columns: list[str], expression: Any) -> None:
        self._table = table
        self._names = columns
        self._expression = expression

    @property
    def projected_schema(self) -> Any:
        return pyarrow.schema([self._table.schema.field(name) for name in self._names])

    @property
    def dataset_schema(self) -> Any:
        return self._table.schema

    def to_batches(self) -> Iterator[Any]:
        return self._table.batches(self._names, self._expression)


def _array(values: list[Any], kind: Type) -> Any:
    if kind in (Type.TIME, Type.DURATION):
        # A wake-up time of a handler's own choosing may lie beyond what a calendar shows.
        values = [None if value is None else min(value, QUERY_TIME_DISPLAYED_MAX_MS) for value in values]
    return pyarrow.array(values, _ARROW[kind])


def _printed(column: Any) -> list[Any]:
    """A column's values as JSON has them."""
    kind = column.type
    if pyarrow.types.is_timestamp(kind):
        zone = "Z" if kind.tz is not None else ""
        milliseconds = column.cast(pyarrow.timestamp("ms", kind.tz), safe=False).cast(pyarrow.int64()).to_pylist()
        return [None if value is None else format_time_ms(value).removesuffix("Z") + zone for value in milliseconds]
    if pyarrow.types.is_duration(kind):
        milliseconds = column.cast(pyarrow.duration("ms"), safe=False).cast(pyarrow.int64()).to_pylist()
        return [None if value is None else _duration(value) for value in milliseconds]
    return [_plain(value) for value in column.to_pylist()]


def _duration(milliseconds: int) -> str:
    text = format_iso_duration_ms(abs(milliseconds))
    return f"-{text}" if milliseconds < 0 else text


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, list):
        return [_plain(each) for each in value]
    if isinstance(value, dict):
        return {name: _plain(each) for name, each in value.items()}
    if value is None or isinstance(value, bool | int | float | str):
        return None if isinstance(value, float) and not (abs(value) < float("inf")) else value
    return str(value)


def _words(error: Exception) -> str:
    """The library's message on one line, without its own prefix."""
    return re.sub(r"\s*\n\s*", " ", str(error)).removeprefix("DataFusion error: ")

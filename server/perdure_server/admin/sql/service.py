"""◐ shell · Queries beside the loop: each in a thread of its own, and a few at a time.

DataFusion is loaded with the first query, in such a thread: a node that nobody queries pays nothing for it.
"""

from __future__ import annotations

import importlib
from collections.abc import AsyncGenerator, Callable, Iterator
from typing import Any

from perdure_processor.model.errors import PartitionStopped
from perdure_server.admin.errors import AdminError, QueryError
from perdure_server.admin.queries import QueryUnavailable
from perdure_server.admin.sql.columns import columns_of
from perdure_server.admin.sql.node_tables import REGISTERED
from perdure_server.admin.sql.scans import Pacer, QueryStopped, Rows
from perdure_server.admin.sql.threads import QueryThread
from perdure_server.limits import QUERIES_AT_ONCE_MAX

ENGINE = "perdure_server.admin.sql.engine"


class SqlService:
    """SQL over tables: `tables` is asked what they hold when a query begins."""

    def __init__(self, tables: Callable[[Pacer], Rows], version: str) -> None:
        self._tables = tables
        self._columns = {**columns_of(version), **REGISTERED}
        # A query is here until its thread has ended, so that there are never more threads than that.
        self._running: dict[Pacer, None] = {}

    async def query(self, sql: str, as_json: bool) -> AsyncGenerator[bytes, None]:
        """The result's pieces, JSON or an Arrow stream. Raises QueryError or AdminError, mostly before the first piece.

        Whoever stops asking closes the iterator, and so stops the query."""
        if len(self._running) >= QUERIES_AT_ONCE_MAX:
            raise AdminError(429, None, f"{QUERIES_AT_ONCE_MAX} queries run already, try again later")
        pacer = Pacer()
        rows = self._tables(pacer)
        thread = QueryThread(lambda: self._running.pop(pacer))
        self._running[pacer] = None
        try:
            pieces = await thread.run(lambda: self._open(sql, as_json, rows, pacer))
            while (piece := await thread.run(lambda: next(pieces, None))) is not None:
                yield piece
        except QueryStopped as error:
            raise AdminError(503, None, f"the query was stopped: {error}") from error
        finally:
            pacer.stop("nobody waits for it")
            thread.end()

    def close(self) -> None:
        """Stop every query. None reads the stores any more, although it may be computing still."""
        for pacer in self._running:
            pacer.stop("the node stops")
            with pacer.reading:
                pass

    def _open(self, sql: str, as_json: bool, rows: Rows, pacer: Pacer) -> Any:
        engine = importlib.import_module(ENGINE)
        try:
            query = engine.Query(sql, rows, self._columns, pacer)
        except engine.QueryRefused as error:
            raise QueryError(str(error)) from error
        return _refused_by(engine.QueryRefused, query.json() if as_json else query.arrow())


def _refused_by(kind: type[Exception], pieces: Iterator[bytes]) -> Iterator[bytes]:
    try:
        yield from pieces
    except kind as error:
        raise QueryError(str(error)) from error
    except (PartitionStopped, QueryUnavailable) as error:
        raise AdminError(503, None, str(error)) from error

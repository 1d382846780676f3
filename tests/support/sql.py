"""SQL over the tables of one state machine: what the admin API answers, without the HTTP around it."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from typing import Any

import pyarrow

from perdure_processor.model.ids import InvocationId
from perdure_processor.storage.keyvalue import KeyValue
from perdure_server.admin.sql.columns import columns_of
from perdure_server.admin.sql.engine import Query
from perdure_server.admin.sql.node_tables import REGISTERED
from perdure_server.admin.sql.pruning import Constraints
from perdure_server.admin.sql.scans import Attempts, Pacer, Scans
from support.env import Env


class OneStore:
    def __init__(self, store: KeyValue) -> None:
        self._store = store

    def all(self) -> Iterator[KeyValue]:
        yield self._store

    def of(self, invocation_id: InvocationId) -> KeyValue:
        return self._store


class Sql:
    """Runs queries; `read` counts the rows that the last one took from the store."""

    def __init__(self, env: Env, attempts: Attempts | None = None) -> None:
        self._env = env
        self._attempts = attempts or {}
        self.read = 0

    def _query(self, text: str) -> Query:
        pacer = Pacer()
        scans = Scans(OneStore(self._env.store), self._attempts, pacer)
        self.read = 0

        def rows(table: str, known: Constraints) -> Iterator[Any]:
            if table in REGISTERED:
                return
            for row in scans.rows(table, known):
                self.read += 1
                yield row

        return Query(text, rows, {**columns_of("0"), **REGISTERED}, pacer)

    def json(self, text: str) -> list[dict[str, Any]]:
        """The rows of the JSON form."""
        rows: list[dict[str, Any]] = json.loads(b"".join(self._query(text).json()))["rows"]
        return rows

    def arrow(self, text: str) -> Any:
        """The table of the Arrow form."""
        return pyarrow.ipc.open_stream(io.BytesIO(b"".join(self._query(text).arrow()))).read_all()

"""◐ shell · Reads the partitions' stores for a query, from a thread beside the loop: in small pages, with pauses.

A page is read under an iterator of its own, so that a query that is read slowly holds nothing of the store. What a
partition writes meanwhile may be seen or not; there is no snapshot across pages, as in the original.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any, Protocol, TypeAlias, cast

from perdure.protocol import framing, ids, messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType
from perdure_processor.host import Host
from perdure_processor.invoker.attempt import AttemptState
from perdure_processor.model import codec
from perdure_processor.model.ids import SLOTS, InvocationId
from perdure_processor.processor import Processor
from perdure_processor.storage import keys
from perdure_processor.storage.records import Completed, InvocationRow, Live, ObjectRow
from perdure_processor.storage.tables import (
    Readable,
    read_events,
    read_invocation,
    read_promise_row,
    read_segments,
    state_value,
)
from perdure_server.admin.queries import QueryUnavailable
from perdure_server.admin.sql.columns import Entry, Event, Invocation, Keyed
from perdure_server.admin.sql.pruning import Constraints
from perdure_server.limits import QUERY_BATCH_BYTES, QUERY_PAGE_ROWS, QUERY_SLICE_S

Attempts = dict[InvocationId, AttemptState]
Pair = tuple[bytes, bytes]
# (table, what the filter says for certain) → entries, for the functions of columns.py.
Rows: TypeAlias = Callable[[str, Constraints], Iterator[Any]]


class Pacer:
    """Gives the loop as much time as the query takes: the interpreter runs one of them at a time.

    `reading` is held while a store is read, so that whoever closes the stores can wait for that."""

    def __init__(self) -> None:
        self.rows = 0
        self.reading = threading.Lock()
        self._since = time.perf_counter()
        self._stopped: str | None = None

    def stop(self, why: str) -> None:
        """End the query at its next row; from any thread."""
        if self._stopped is None:
            self._stopped = why

    def check(self) -> None:
        """Raise QueryStopped if it is to end."""
        if self._stopped is not None:
            raise QueryStopped(self._stopped)

    def row(self) -> None:
        """Called for each row that is read or written."""
        self.rows += 1
        if self.rows % 8 == 0:
            self.pause()

    def pause(self) -> None:
        """Called wherever much was done: rest for as long as it worked, if that was long."""
        self.check()
        spent = time.perf_counter() - self._since
        if spent >= QUERY_SLICE_S:
            time.sleep(spent)
            self._since = time.perf_counter()


class QueryStopped(Exception):
    """The query is not wanted any more, or has taken too long."""


class Stores(Protocol):
    """The stores of the partitions; both raise QueryUnavailable where one has stopped."""

    def all(self) -> Iterator[Readable]: ...

    def of(self, invocation_id: InvocationId) -> Readable: ...


class _Paced:
    """A store as a query reads it: page by page, and not at all once the query has been stopped."""

    def __init__(self, store: Readable, pacer: Pacer) -> None:
        self._store = store
        self._pacer = pacer

    def get(self, key: bytes) -> bytes | None:
        with self._pacer.reading:
            self._pacer.check()
            return self._store.get(key)

    def scan(self, low: bytes, high: bytes) -> Iterator[Pair]:
        while True:
            with self._pacer.reading:
                self._pacer.check()
                page, more = self._page(low, high)
            for pair in page:
                self._pacer.row()
                yield pair
            if not more:
                return
            low = page[-1][0] + b"\0"

    def _page(self, low: bytes, high: bytes) -> tuple[list[Pair], bool]:
        page: list[Pair] = []
        size = 0
        for pair in self._store.scan(low, high):
            page.append(pair)
            size += len(pair[1])
            if len(page) == QUERY_PAGE_ROWS or size >= QUERY_BATCH_BYTES:
                return page, True
        return page, False


class HostStores:
    """Those of this node."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def all(self) -> Iterator[Readable]:
        for processor in list(self._host.processors.values()):
            yield _open_store(processor)

    def of(self, invocation_id: InvocationId) -> Readable:
        return _open_store(self._host.processors[self._host.partition_of(invocation_id)])


def _open_store(processor: Processor) -> Readable:
    if processor.failure is not None:
        raise QueryUnavailable(f"partition {processor.partition} stopped: {processor.failure}")
    return processor.store


class Scans:
    """The rows of each table, for one query. `attempts` was copied when it began."""

    def __init__(self, stores: Stores, attempts: Attempts, pacer: Pacer) -> None:
        self._stores = stores
        self._attempts = attempts
        self._pacer = pacer

    def rows(self, table: str, known: Constraints) -> Iterator[Any]:
        """What `columns_of` takes the values of: a superset of what fits the constraints."""
        scan: dict[str, Callable[[Constraints], Iterator[Any]]] = {
            "sys_invocation": self._invocations,
            "sys_invocation_status": self._invocations,
            "sys_invocation_state": self._attempted,
            "sys_journal": self._journal,
            "sys_journal_events": self._events,
            "sys_inbox": self._inbox,
            "sys_keyed_service_status": self._locks,
            "sys_promise": self._promises,
            "state": self._state,
        }
        for row in scan[table](known):
            self._pacer.row()
            yield row

    def _all(self) -> Iterator[Readable]:
        for store in self._stores.all():
            yield _Paced(store, self._pacer)

    # -- invocations ----------------------------------------------------------------------------------------

    def _found(self, known: Constraints) -> Iterator[tuple[Readable, Invocation]]:
        wanted = _ids(known)
        if wanted is not None:
            for invocation_id in wanted:
                store: Readable = _Paced(self._stores.of(invocation_id), self._pacer)
                row = read_invocation(store, invocation_id)
                if isinstance(row, Live | Completed):
                    yield store, self._invocation(invocation_id, row)
            return
        for low, high in _invocation_ranges(known):
            for store in self._all():
                for key, data in store.scan(low, high):
                    stored = cast(InvocationRow, codec.decode(data))
                    if isinstance(stored, Live | Completed):  # a proof is nobody's to see
                        yield store, self._invocation(InvocationId(key[len(keys.INVOCATION) :]), stored)

    def _invocation(self, invocation_id: InvocationId, row: Live | Completed) -> Invocation:
        return Invocation(invocation_id, row, self._attempts.get(invocation_id) if type(row) is Live else None)

    def _invocations(self, known: Constraints) -> Iterator[Invocation]:
        for _, found in self._found(known):
            yield found

    def _attempted(self, known: Constraints) -> Iterator[Invocation]:
        """Those that the leader drives: in flight, or between two attempts."""
        for _, found in self._found(known):
            row = found.row
            if type(row) is Live and (found.runs or row.next_retry_ms or row.retry_count):
                yield found

    def _journal(self, known: Constraints) -> Iterator[Entry]:
        for store, found in self._found(known):
            # What a call's first completion told stands after the call: found first.
            callees = _callees(store, found)
            for first, appended_ms, frames in read_segments(store, found.id, found.row.segments):
                for index, (code, _, payload) in enumerate(framing.iter_frames(frames), start=first):
                    callee = callees.get(_told_by(code, payload))
                    yield Entry(found.id, index, appended_ms, code, payload, callee)

    def _events(self, known: Constraints) -> Iterator[Event]:
        for store, found in self._found(known):
            if found.row.events:
                for event in read_events(store, found.id, found.row):
                    yield Event(found.id, event)

    # -- what belongs to a key ------------------------------------------------------------------------------

    def _keyed(self, kind: bytes, known: Constraints) -> Iterator[tuple[Readable, bytes, bytes]]:
        for low, high in _keyed_ranges(kind, known):
            for store in self._all():
                for key, data in store.scan(low, high):
                    yield store, key, data

    def _inbox(self, known: Constraints) -> Iterator[Keyed]:
        for _, key, data in self._keyed(keys.INBOX, known):
            service, object_key, sequence = keys.parse_object_suffix(key)
            yield Keyed(service, object_key, sequence, data[1:])

    def _locks(self, known: Constraints) -> Iterator[Keyed]:
        for _, key, data in self._keyed(keys.OBJECT, known):
            service, object_key, _ = keys.parse_object_suffix(key)
            lock = cast(ObjectRow, codec.decode(data))
            yield Keyed(service, object_key, b"", lock.holder)

    def _promises(self, known: Constraints) -> Iterator[Keyed]:
        for _, key, data in self._keyed(keys.PROMISE, known):
            service, object_key, name = keys.parse_object_suffix(key)
            yield Keyed(service, object_key, name, read_promise_row(data))

    def _state(self, known: Constraints) -> Iterator[Keyed]:
        for store, key, data in self._keyed(keys.STATE, known):
            value = state_value(store, key, data)
            if value is not None:
                service, object_key, name = keys.parse_object_suffix(key)
                yield Keyed(service, object_key, name, value)


def _ids(known: Constraints) -> list[InvocationId] | None:
    """The ids that a filter names; one that does not parse is no invocation's."""
    if "id" not in known:
        return None
    found: dict[InvocationId, None] = {}
    for text in known["id"]:
        try:
            found[InvocationId(ids.decode_invocation_id(text))] = None
        except ids.IdError:
            continue
    return list(found)


def _partition_keys(known: Constraints, key_column: str) -> list[int] | None:
    if key_column in known:
        return [ids.partition_key_of_key(key) for key in dict.fromkeys(known[key_column])]
    if "partition_key" in known:
        numbers = [int(text) for text in dict.fromkeys(known["partition_key"]) if text.isdecimal()]
        return [number for number in numbers if number < 1 << 64]
    return None


def _invocation_ranges(known: Constraints) -> Iterator[tuple[bytes, bytes]]:
    partition_keys = _partition_keys(known, "target_service_key")
    if partition_keys is None:
        yield keys.INVOCATION, keys.end_of(keys.INVOCATION)
        return
    for partition_key in dict.fromkeys(partition_keys):
        low = keys.INVOCATION + partition_key.to_bytes(8, "big")
        yield low, keys.end_of(low)


def _keyed_ranges(kind: bytes, known: Constraints) -> Iterator[tuple[bytes, bytes]]:
    partition_keys = _partition_keys(known, "service_key")
    if partition_keys is None:
        yield kind, keys.end_of(kind)
        return
    slots = dict.fromkeys(partition_key * SLOTS >> 64 for partition_key in partition_keys)
    services = known.get("service_name")
    for slot in slots:
        low = kind + slot.to_bytes(2, "big")
        for service in [None] if services is None else dict.fromkeys(services):
            prefix = low
            if service is not None:
                name = service.encode()
                prefix = low + len(name).to_bytes(2, "big") + name
            yield prefix, keys.end_of(prefix)


def _callees(store: Readable, found: Invocation) -> dict[int | None, str]:
    """Completion id → the invocation id that it told."""
    told: dict[int | None, str] = {}
    for _, _, frames in read_segments(store, found.id, found.row.segments):
        for code, _, payload in framing.iter_frames(frames):
            if code == MessageType.CALL_INVOCATION_ID_COMPLETION_NOTIFICATION:
                message = pb.Notification.FromString(payload)
                told[message.completion_id] = message.invocation_id
    return told


def _told_by(code: int, payload: bytes) -> int | None:
    if code in (MessageType.CALL_COMMAND, MessageType.ONE_WAY_CALL_COMMAND):
        return messages.completion_ids(code, payload)[0]
    return None

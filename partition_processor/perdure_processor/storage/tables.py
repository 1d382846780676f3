"""● core · Typed tables over a Transaction: what apply reads and writes, encoded once per batch.

Rows of invocations and objects are kept decoded while a batch is applied; `seal_record` closes the
journal segments of one record, `finish` turns what changed into bytes.  Segment borders follow records,
never batches: two replicas that read the same log in different batches store the same bytes.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Protocol, cast

from perdure_processor.model import codec
from perdure_processor.model.commands import Command
from perdure_processor.model.errors import CorruptStore, UpgradeRequired
from perdure_processor.model.ids import InvocationId, Millis, PartitionId
from perdure_processor.model.limits import EVENTS_MAX, STORE_ROWS_CACHED_MAX
from perdure_processor.storage import keys
from perdure_processor.storage.keyvalue import KeyValue
from perdure_processor.storage.records import (
    Completed,
    InvocationRow,
    JournalEvent,
    Live,
    ObjectRow,
    PendingPatch,
    Progress,
    PromiseRow,
)
from perdure_processor.storage.transaction import Transaction

_SEGMENT_HEAD = struct.Struct(">BQII")  # format version, appended ms, index of the first entry, entries
_SEGMENT_VERSION = 1
_RAW = b"\x01"  # format version of rows that hold a user's bytes
_NUMBERED = struct.Struct(">BQ")  # the same, followed by a number and then perhaps bytes


class Readable(Protocol):
    """A store, or a transaction over one."""

    def get(self, key: bytes) -> bytes | None: ...

    def scan(self, low: bytes, high: bytes) -> Iterator[tuple[bytes, bytes]]: ...


class Tables:
    """One partition's tables. `begin`, then reads and writes, then `finish` gives the batch to write."""

    __slots__ = (
        "_dirty_objects",
        "_dirty_rows",
        "_objects",
        "_open",
        "_passing",
        "_rows",
        "_store",
        "_transaction",
        "progress",
    )

    def __init__(self, store: KeyValue) -> None:
        self._store = store
        self._transaction = Transaction(store)
        self._rows: dict[InvocationId, InvocationRow | None] = {}
        self._dirty_rows: dict[InvocationId, None] = {}
        # Rows read in this batch that the next one has no use for: ended invocations, and that there is none.
        self._passing: list[InvocationId] = []
        self._objects: dict[bytes, ObjectRow | None] = {}
        self._dirty_objects: dict[bytes, None] = {}
        # Frames this record adds to journals: (row, index of the first one, frames).
        self._open: dict[InvocationId, tuple[Live, int, list[bytes]]] = {}
        self.progress = load_progress(store)

    # -- one batch -----------------------------------------------------------
    def begin(self) -> None:
        assert not self._dirty_rows, "the batch before was not finished"
        assert not self._open
        self._transaction = Transaction(self._store)

    def seal_record(self, now_ms: Millis) -> None:
        """Close what one record added to journals."""
        if not self._open:
            return
        for invocation_id, (row, first, frames) in self._open.items():
            head = _SEGMENT_HEAD.pack(_SEGMENT_VERSION, now_ms, first, len(frames))
            self._transaction.put(keys.segment(invocation_id, row.segments), head + b"".join(frames))
            row.segments += 1
            self._dirty_rows[invocation_id] = None
        self._open.clear()

    def finish(self) -> Mapping[bytes, bytes | None]:
        """The batch, progress included. Rows of running invocations stay decoded for the next one."""
        transaction = self._transaction
        rows = self._rows
        for invocation_id in self._dirty_rows:
            row = rows[invocation_id]
            if row is None:
                transaction.delete(keys.INVOCATION + invocation_id)
            else:
                transaction.put(keys.INVOCATION + invocation_id, codec.encode(row))
            if type(row) is not Live:
                del rows[invocation_id]
        self._dirty_rows.clear()
        for invocation_id in self._passing:
            if type(rows.get(invocation_id)) is not Live:
                rows.pop(invocation_id, None)
        self._passing.clear()
        if len(rows) > STORE_ROWS_CACHED_MAX:
            rows.clear()
        objects = self._objects
        for suffix in self._dirty_objects:
            lock = objects[suffix]
            if lock is None:
                transaction.delete(keys.OBJECT + suffix)
                del objects[suffix]
            else:
                transaction.put(keys.OBJECT + suffix, codec.encode(lock))
        self._dirty_objects.clear()
        if len(objects) > STORE_ROWS_CACHED_MAX:
            objects.clear()
        transaction.put(keys.metadata("progress"), codec.encode(self.progress))
        return transaction.changes()

    # -- invocations ---------------------------------------------------------
    def invocation(self, invocation_id: InvocationId) -> InvocationRow | None:
        rows = self._rows
        if invocation_id in rows:
            return rows[invocation_id]
        row = read_invocation(self._transaction, invocation_id)
        rows[invocation_id] = row
        if type(row) is not Live:
            self._passing.append(invocation_id)
        return row

    def put_invocation(self, invocation_id: InvocationId, row: InvocationRow) -> None:
        """Store a new row, or a changed one (rows are changed in place)."""
        self._rows[invocation_id] = row
        self._dirty_rows[invocation_id] = None

    def delete_invocation(self, invocation_id: InvocationId) -> None:
        self._rows[invocation_id] = None
        self._dirty_rows[invocation_id] = None

    # -- journals ------------------------------------------------------------
    def append_entry(self, invocation_id: InvocationId, row: Live, frame: bytes, is_command: bool) -> int:
        """Add an entry to the journal; its index."""
        index = row.entries
        row.entries = index + 1
        if is_command:
            row.commands += 1
            row.retries_since_entry = 0
        opened = self._open.get(invocation_id)
        if opened is None:
            self._open[invocation_id] = (row, index, [frame])
        else:
            opened[2].append(frame)
        return index

    def journal_segments(self, invocation_id: InvocationId, segments: int) -> Iterator[tuple[int, Millis, bytes]]:
        """(index of the first entry, when it was appended, frames), what this record added so far included."""
        yield from read_segments(self._transaction, invocation_id, segments)
        opened = self._open.get(invocation_id)
        if opened is not None:
            yield opened[1], Millis(0), b"".join(opened[2])

    def drop_journal(self, invocation_id: InvocationId, first: int, end: int) -> None:
        """Delete the segments first … end - 1."""
        for number in range(first, end):
            self._transaction.delete(keys.segment(invocation_id, number))

    # -- journal events --------------------------------------------------------
    def last_event(self, invocation_id: InvocationId, row: Live) -> JournalEvent | None:
        if not row.events:
            return None
        data = self._transaction.get(keys.event(invocation_id, (row.events - 1) % EVENTS_MAX))
        return None if data is None else cast(JournalEvent, codec.decode(data))

    def append_event(self, invocation_id: InvocationId, row: Live, event: JournalEvent) -> None:
        """Store an event; of more than EVENTS_MAX the oldest gives way."""
        assert event.number == row.events
        self._transaction.put(keys.event(invocation_id, row.events % EVENTS_MAX), codec.encode(event))
        row.events += 1

    def drop_events(self, invocation_id: InvocationId, events: int) -> None:
        for place in range(min(events, EVENTS_MAX)):
            self._transaction.delete(keys.event(invocation_id, place))

    # -- promises ----------------------------------------------------------------
    def promise(self, key: bytes) -> PromiseRow | None:
        data = self._transaction.get(key)
        return None if data is None else cast(PromiseRow, codec.decode(data))

    def put_promise(self, key: bytes, row: PromiseRow) -> None:
        self._transaction.put(key, codec.encode(row))

    def delete_promise(self, key: bytes) -> None:
        self._transaction.delete(key)

    def promises(self, suffix: bytes, limit: int) -> list[tuple[bytes, PromiseRow]]:
        """Key and row of up to `limit` promises of one workflow key."""
        low = keys.PROMISE + suffix
        rows = islice(self._transaction.scan(low, keys.end_of(low)), limit)
        return [(key, cast(PromiseRow, codec.decode(data))) for key, data in rows]

    # -- objects, inboxes ------------------------------------------------------
    def object(self, suffix: bytes) -> ObjectRow | None:
        if suffix in self._objects:
            return self._objects[suffix]
        data = self._transaction.get(keys.OBJECT + suffix)
        if data is None:
            return None
        row = self._objects[suffix] = cast(ObjectRow, codec.decode(data))
        return row

    def put_object(self, suffix: bytes, row: ObjectRow | None) -> None:
        """Store the lock; None when nobody holds it and nobody waits."""
        self._objects[suffix] = row
        self._dirty_objects[suffix] = None

    def next_in_inbox(self, suffix: bytes, head: int, tail: int) -> tuple[int, InvocationId] | None:
        """The first that waits at a place in head … tail - 1; places may be empty."""
        if head == tail:
            return None
        data = self._transaction.get(keys.inbox(suffix, head))
        if data is not None:
            return head, InvocationId(data[1:])
        for key, data in self._transaction.scan(keys.inbox(suffix, head + 1), keys.inbox(suffix, tail)):
            return int.from_bytes(key[-8:], "big"), InvocationId(data[1:])
        return None

    def put_inbox(self, suffix: bytes, sequence: int, invocation_id: InvocationId) -> None:
        self._transaction.put(keys.inbox(suffix, sequence), _RAW + invocation_id)

    def delete_inbox(self, suffix: bytes, sequence: int) -> None:
        self._transaction.delete(keys.inbox(suffix, sequence))

    def patches(self, suffix: bytes, before: int) -> Iterator[tuple[int, PendingPatch]]:
        """Place and content of the state patches that wait below a place, in order."""
        for key, data in self._transaction.scan(keys.state_patch(suffix, 0), keys.state_patch(suffix, before)):
            yield int.from_bytes(key[-8:], "big"), cast(PendingPatch, codec.decode(data))

    def put_patch(self, suffix: bytes, place: int, patch: PendingPatch) -> None:
        self._transaction.put(keys.state_patch(suffix, place), codec.encode(patch))

    def delete_patch(self, suffix: bytes, place: int) -> None:
        self._transaction.delete(keys.state_patch(suffix, place))

    # -- state -----------------------------------------------------------------
    def state(self, suffix: bytes, state_key: bytes) -> bytes | None:
        data = self._transaction.get(keys.state(suffix, state_key))
        if data is None or _NUMBERED.unpack_from(data)[1] < self.cleared(suffix):
            return None
        return data[_NUMBERED.size :]

    def put_state(self, suffix: bytes, state_key: bytes, value: bytes) -> None:
        self._transaction.put(keys.state(suffix, state_key), _NUMBERED.pack(1, self.progress.clears) + value)

    def delete_state(self, suffix: bytes, state_key: bytes) -> None:
        self._transaction.delete(keys.state(suffix, state_key))

    def state_keys(self, suffix: bytes) -> list[bytes]:
        """All state keys of one object, in order."""
        return [state_key for state_key, _ in read_state(self._transaction, suffix)]

    def state_rows(self, suffix: bytes) -> Iterator[tuple[bytes, bytes]]:
        """Name and value of all state of one object, in order of the names."""
        return read_state(self._transaction, suffix)

    def stored_state_keys(self, suffix: bytes) -> Iterator[bytes]:
        """The same, cleared ones that are not deleted yet included."""
        low = keys.STATE + suffix
        return (key[len(low) :] for key, _ in self._transaction.scan(low, keys.end_of(low)))

    def state_rows_from(self, suffix: bytes, position: bytes) -> Iterator[tuple[bytes, int]]:
        """Row keys from `position` on, and the number of clears when each was written."""
        for key, data in self._transaction.scan(position, keys.end_of(keys.STATE + suffix)):
            yield key, _NUMBERED.unpack_from(data)[1]

    def delete_row(self, key: bytes) -> None:
        self._transaction.delete(key)

    def cleared(self, suffix: bytes) -> int:
        """State written when there had been fewer clears than this is cleared; 0 when all that is stored counts."""
        return _cleared(self._transaction, suffix)

    def put_cleared(self, suffix: bytes, number: int) -> None:
        """Mark as cleared what was written before clear `number`; 0 takes the mark away."""
        if number:
            self._transaction.put(keys.cleared(suffix), _NUMBERED.pack(1, number))
        else:
            self._transaction.delete(keys.cleared(suffix))

    # -- what the leader works from ----------------------------------------------
    def put_active(self, invocation_id: InvocationId) -> None:
        self._transaction.put(keys.ACTIVE + invocation_id, _RAW)

    def delete_active(self, invocation_id: InvocationId) -> None:
        self._transaction.delete(keys.ACTIVE + invocation_id)

    def put_timer(self, key: bytes, number: int, detail: bytes = b"") -> None:
        """`number` is the incarnation it is set for, where it belongs to an invocation."""
        self._transaction.put(key, _NUMBERED.pack(1, number) + detail)

    def timer(self, key: bytes) -> tuple[int, bytes] | None:
        """Number and detail of a timer that has not fired."""
        data = self._transaction.get(key)
        return None if data is None else (_NUMBERED.unpack_from(data)[1], data[_NUMBERED.size :])

    def delete_timer(self, key: bytes) -> None:
        self._transaction.delete(key)

    def put_outbox(self, target: PartitionId, sequence: int, command: Command) -> None:
        self._transaction.put(keys.outbox(target, sequence), codec.encode(command))

    def truncate_outbox(self, target: PartitionId, sequence: int, limit: int) -> int:
        """Delete the first `limit` rows up to `sequence`; how many there were."""
        low, high = keys.outbox(target, 0), keys.outbox(target, sequence + 1)
        deleted = 0
        for key, _ in islice(self._transaction.scan(low, high), limit):
            self._transaction.delete(key)
            deleted += 1
        return deleted

    # -- retention -----------------------------------------------------------------
    def put_expiry(self, deadline_ms: Millis, subject: bytes) -> None:
        """`subject` is an ended invocation, or a group of parts."""
        self._transaction.put(keys.expiry(deadline_ms, subject), _RAW)

    def delete_expiry(self, deadline_ms: Millis, subject: bytes) -> None:
        self._transaction.delete(keys.expiry(deadline_ms, subject))

    def due_expiries(self, until_ms: Millis) -> Iterator[tuple[Millis, bytes]]:
        for key, _ in self._transaction.scan(keys.EXPIRY, keys.deadline_bound(keys.EXPIRY, until_ms)):
            yield keys.parse_expiry(key)

    # -- parts of large commands ------------------------------------------------------
    def put_part(self, group: bytes, index: int, now_ms: Millis, payload: bytes) -> None:
        self._transaction.put(keys.part(group, index), _NUMBERED.pack(1, now_ms) + payload)

    def has_part(self, group: bytes, index: int) -> bool:
        return self._transaction.get(keys.part(group, index)) is not None

    def take_parts(self, group: bytes, count: int) -> tuple[Millis, list[bytes]] | None:
        """When the first part came and all of them, deleted; None when one is missing."""
        parts = []
        for index in range(count):
            data = self._transaction.get(keys.part(group, index))
            if data is None:
                return None
            parts.append(data)
        for index in range(count):
            self._transaction.delete(keys.part(group, index))
        return Millis(_NUMBERED.unpack_from(parts[0])[1]), [data[_NUMBERED.size :] for data in parts]

    def drop_parts(self, group: bytes) -> int:
        """Delete what came of a group; how many rows. A command has few parts: PAYLOAD_MAX / PART_PAYLOAD_MAX."""
        low = keys.PART + group
        dropped = 0
        for key, _ in self._transaction.scan(low, keys.end_of(low)):
            self._transaction.delete(key)
            dropped += 1
        return dropped


def parse_segment(data: bytes) -> tuple[int, Millis, bytes]:
    """Index of the first entry, when it was appended, and the frames of one journal segment."""
    if len(data) < _SEGMENT_HEAD.size:
        raise CorruptStore("a journal segment is shorter than its head")
    version, appended_ms, first, _count = _SEGMENT_HEAD.unpack_from(data)
    if version != _SEGMENT_VERSION:
        raise UpgradeRequired(f"journal segment of format version {version}")
    return first, Millis(appended_ms), data[_SEGMENT_HEAD.size :]


def read_invocation(store: Readable, invocation_id: InvocationId) -> InvocationRow | None:
    """The row of one invocation."""
    data = store.get(keys.INVOCATION + invocation_id)
    return None if data is None else cast(InvocationRow, codec.decode(data))


def read_segments(store: Readable, invocation_id: InvocationId, segments: int) -> Iterator[tuple[int, Millis, bytes]]:
    """The first `segments` segments of a journal, as parse_segment gives them."""
    for number in range(segments):
        data = store.get(keys.segment(invocation_id, number))
        if data is None:
            raise CorruptStore(f"journal segment {number} of {invocation_id.hex()} is missing")
        yield parse_segment(data)


def read_events(store: Readable, invocation_id: InvocationId, row: Live | Completed) -> list[JournalEvent]:
    """The events of one invocation that are kept, the oldest first."""
    found = [store.get(keys.event(invocation_id, place)) for place in range(min(row.events, EVENTS_MAX))]
    events = [cast(JournalEvent, codec.decode(data)) for data in found if data is not None]
    return sorted(events, key=lambda event: event.number)


def read_promise_row(data: bytes) -> PromiseRow:
    """A stored promise."""
    return cast(PromiseRow, codec.decode(data))


def state_value(store: Readable, key: bytes, data: bytes) -> bytes | None:
    """The value in a state row, or None if it was cleared and is not deleted yet."""
    if _NUMBERED.unpack_from(data)[1] < _cleared(store, keys.object_suffix_of(key)):
        return None
    return data[_NUMBERED.size :]


def read_state(store: Readable, suffix: bytes) -> Iterator[tuple[bytes, bytes]]:
    """State key and value of one object, in key order."""
    low = keys.STATE + suffix
    cleared = _cleared(store, suffix)
    for key, data in store.scan(low, keys.end_of(low)):
        if _NUMBERED.unpack_from(data)[1] >= cleared:
            yield key[len(low) :], data[_NUMBERED.size :]


def _cleared(store: Readable, suffix: bytes) -> int:
    data = store.get(keys.cleared(suffix))
    return 0 if data is None else cast(int, _NUMBERED.unpack_from(data)[1])


def load_progress(store: KeyValue) -> Progress:
    """Where this store is; a new store is at the beginning."""
    data = store.get(keys.metadata("progress"))
    return Progress() if data is None else cast(Progress, codec.decode(data))

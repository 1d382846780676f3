"""What must hold: watched at every commit, and proved from the log at the end.

The checker reads what was stored and what was appended, never what the node believes.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType, iter_frames
from perdure_processor.log import Record
from perdure_processor.model import codec
from perdure_processor.model.commands import ByOutbox, Envelope
from perdure_processor.model.ids import InvocationId, Offset, PartitionId
from perdure_processor.model.results import Result
from perdure_processor.state_machine.machine import Machine
from perdure_processor.storage import keys
from perdure_processor.storage.keyvalue import KeyValue
from perdure_processor.storage.memory import MemoryKeyValue
from perdure_processor.storage.records import Completed, InvocationRow, Live, Progress, Status
from perdure_processor.storage.tables import Tables, parse_segment, read_state
from simulation import handlers

if TYPE_CHECKING:
    from simulation.deployments import Session

_PROGRESS = keys.metadata("progress")
_IDENTITY = keys.metadata("identity")
_EXCLUSIVE_STATES = (Status.INVOKED, Status.SUSPENDED, Status.PAUSED)
REPLAY_BATCH_MAX = 40
VIOLATIONS_MAX = 5  # what follows the first few is their consequence


class Checker:
    """Collects violations; the World stops at the first one."""

    def __init__(self, seed: int) -> None:
        self.violations: list[str] = []
        self._draw = random.Random(f"{seed}/checker")
        self._tick = 0
        # The highest offset each partition ever applied: below it, a write is a repetition after a crash.
        self._applied: dict[PartitionId, int] = defaultdict(lambda: -1)
        self._incarnation: dict[bytes, int] = {}
        self._segments: dict[tuple[bytes, int, int], bytes] = {}
        self._results: dict[tuple[bytes, int], Result] = {}
        self._notifications: dict[tuple[bytes, int, int], bytes] = {}
        # When the result of a run was recorded, by (invocation, incarnation, completion id).
        self._recorded: dict[tuple[bytes, int, int], int] = {}
        # Who has passed the lock of an object and not ended, in the tables as they are now.
        self._holders: dict[tuple[PartitionId, str, str], dict[bytes, None]] = defaultdict(dict)
        self._held: dict[bytes, tuple[PartitionId, str, str]] = {}
        self.broken = asyncio.Event()
        self.closures_run = 0
        self.commits = 0

    def violated(self, what: str) -> None:
        if len(self.violations) < VIOLATIONS_MAX:
            self.violations.append(what)
        self.broken.set()

    def expect(self, holds: bool, what: str) -> None:
        if not holds:
            self.violated(what)

    def tick(self) -> int:
        """A number that grows with everything that happens: what is before what, also within one moment."""
        self._tick += 1
        return self._tick

    # -- at every commit -----------------------------------------------------------------------------------
    def opened(self, partition: PartitionId, store: KeyValue) -> None:
        """A node opened the store, perhaps as it was a while ago."""
        for invocation_id, place in list(self._held.items()):
            if place[0] == partition:
                self._let_go(invocation_id)
        for key, value in store.scan(keys.INVOCATION, keys.end_of(keys.INVOCATION)):
            self._watch_lock(partition, key[len(keys.INVOCATION) :], codec.decode(value))

    def committed(self, partition: PartitionId, changes: Mapping[bytes, bytes | None]) -> None:
        """A batch was written to a store."""
        data = changes.get(_PROGRESS)
        if data is None:
            return  # the store's identity
        self.commits += 1
        progress: Progress = codec.decode(data)
        repeated = progress.applied <= self._applied[partition]
        self._applied[partition] = max(self._applied[partition], progress.applied)
        invocations: list[tuple[bytes, InvocationRow | None]] = []
        for key, value in changes.items():
            if key.startswith(keys.INVOCATION):
                row = None if value is None else codec.decode(value)
                invocations.append((key[len(keys.INVOCATION) :], row))
        for invocation_id, row in invocations:
            if isinstance(row, Live | Completed):
                self._incarnation[invocation_id] = row.incarnation
            self._watch_end(invocation_id, row, repeated)
            if not isinstance(row, Live):
                self._let_go(invocation_id)
        for invocation_id, row in invocations:
            self._watch_lock(partition, invocation_id, row)
        for key, value in changes.items():
            if value is not None and key.startswith(keys.JOURNAL):
                self._watch_segment(key[2:26], int.from_bytes(key[26:30], "big"), value)

    def _watch_end(self, invocation_id: bytes, row: InvocationRow | None, repeated: bool) -> None:
        if isinstance(row, Completed):
            known = self._results.setdefault((invocation_id, row.incarnation), row.result)
            self.expect(known == row.result, f"{invocation_id.hex()} ended twice: {known}, then {row.result}")
        elif isinstance(row, Live) and not repeated:
            ended = (invocation_id, row.incarnation) in self._results
            self.expect(not ended, f"{invocation_id.hex()} had ended and lives on")

    def _watch_lock(self, partition: PartitionId, invocation_id: bytes, row: InvocationRow | None) -> None:
        if not isinstance(row, Live) or row.handler_kind not in (1, 3) or row.status not in _EXCLUSIVE_STATES:
            return
        assert row.target.key is not None
        place = (partition, row.target.service, row.target.key)
        self._held[invocation_id] = place
        holders = self._holders[place]
        holders[invocation_id] = None
        self.expect(len(holders) == 1, f"{row.target} runs {len(holders)} exclusive invocations at once")

    def _let_go(self, invocation_id: bytes) -> None:
        place = self._held.pop(invocation_id, None)
        if place is not None:
            self._holders[place].pop(invocation_id, None)

    def _watch_segment(self, invocation_id: bytes, number: int, value: bytes) -> None:
        incarnation = self._incarnation.get(invocation_id)
        if incarnation is None:
            return
        known = self._segments.get((invocation_id, incarnation, number))
        if known is not None:
            self.expect(known == value, f"segment {number} of {invocation_id.hex()} was rewritten")
            return
        self._segments[invocation_id, incarnation, number] = value
        for code, _, payload in iter_frames(parse_segment(value)[2]):
            if code == MessageType.RUN_COMPLETION_NOTIFICATION:
                completion_id = pb.Notification.FromString(payload).completion_id
                place = (invocation_id, incarnation, completion_id)
                self.expect(place not in self._recorded, f"run {completion_id} of {invocation_id.hex()} recorded twice")
                self._recorded[place] = self.tick()

    # -- from the deployment -------------------------------------------------------------------------------
    def closure_runs(self, session: Session, completion_id: int) -> None:
        """A closure begins: wrong if its result was recorded before this attempt was even asked for."""
        self.closures_run += 1
        invocation_id = session.invocation_id
        place = (invocation_id, self._incarnation.get(invocation_id, -1), completion_id)
        recorded_at = self._recorded.get(place)
        if recorded_at is not None and recorded_at < session.opened_at:
            self.violated(f"the recorded run {completion_id} of {invocation_id.hex()} was executed again")

    def saw_notification(self, session: Session, handle: int, payload: bytes) -> None:
        """Every attempt of one life must see the same answer in the same place."""
        incarnation = self._incarnation.get(session.invocation_id)
        if incarnation is None:
            return
        known = self._notifications.setdefault((session.invocation_id, incarnation, handle), payload)
        self.expect(known == payload, f"completion {handle} of {session.invocation_id.hex()} changed")

    # -- at the end ------------------------------------------------------------------------------------------
    def check_replay(
        self, history: Mapping[PartitionId, list[Record]], stores: Mapping[PartitionId, KeyValue], partitions: int
    ) -> None:
        """From an empty store and the whole log, in other batches, the same tables come out, byte for byte."""
        shipped: dict[tuple[int, int], dict[int, object]] = defaultdict(dict)
        arrived: dict[tuple[int, int], list[tuple[int, object]]] = defaultdict(list)
        for number in range(partitions):
            partition = PartitionId(number)
            records = history.get(partition, [])
            replayed = self._replay(partition, partitions, records)
            self._compare(partition, dict(_rows(replayed)), dict(_rows(stores[partition])))
            for target, sequence, command in self._messages(partition, partitions, records, arrived):
                shipped[partition, target][sequence] = command
        for pair in sorted({*shipped, *arrived}):
            took = arrived[pair]
            source, target = pair
            self.expect(
                [sequence for sequence, _ in took] == list(range(1, len(shipped[pair]) + 1)),
                f"messages {source}→{target} arrived as {[sequence for sequence, _ in took]}, "
                f"{len(shipped[pair])} were sent",
            )
            for sequence, command in took:
                sent = shipped[pair].get(sequence)
                self.expect(
                    command == sent, f"message {sequence} {source}→{target} arrived as another one than was sent"
                )

    def _replay(self, partition: PartitionId, partitions: int, records: list[Record]) -> KeyValue:
        store = MemoryKeyValue()
        tables = Tables(store)
        machine = Machine(tables, partition, partitions, frozenset[Offset]())
        left = [(record.offset, record.timestamp_ms, codec.decode(record.payload)) for record in records]
        at = 0
        while at < len(left):
            tables.begin()
            batch = machine.apply_all(left[at : at + self._draw.randint(1, REPLAY_BATCH_MAX)])
            store.write(tables.finish())
            at += batch.taken
        return store

    def _messages(
        self,
        partition: PartitionId,
        partitions: int,
        records: list[Record],
        arrived: dict[tuple[int, int], list[tuple[int, object]]],
    ) -> Iterator[tuple[int, int, object]]:
        """What one partition put into its outbox; what it accepted of others is added to `arrived`."""
        store = MemoryKeyValue()
        tables = Tables(store)
        machine = Machine(tables, partition, partitions, frozenset[Offset]())
        for record in records:
            envelope: Envelope = codec.decode(record.payload)
            dedup = envelope.dedup
            before = dict(tables.progress.inbound)
            tables.begin()
            machine.apply_all([(record.offset, record.timestamp_ms, envelope)])
            changes = tables.finish()
            store.write(changes)
            if isinstance(dedup, ByOutbox) and tables.progress.inbound != before:
                arrived[dedup.source, partition].append((dedup.sequence, codec.encode(envelope.command)))
            for key, value in changes.items():
                if value is not None and key.startswith(keys.OUTBOX):
                    target, sequence = keys.parse_outbox(key)
                    yield target, sequence, value

    def _compare(self, partition: PartitionId, replayed: dict[bytes, bytes], stored: dict[bytes, bytes]) -> None:
        for key in sorted({*replayed, *stored}):
            if replayed.get(key) != stored.get(key):
                self.violated(
                    f"partition {partition}: replay of the log gives {key[:2]!r} {key.hex()} = "
                    f"{_show(replayed.get(key))}, stored is {_show(stored.get(key))}"
                )
                return

    def check_leftovers(self, stores: Mapping[PartitionId, KeyValue]) -> None:
        """When all has ended and expired, only what users stored is left."""
        for partition, store in stores.items():
            left = [key for key, _ in _rows(store) if not _may_stay(key)]
            if left:
                kinds = sorted({key[:2].decode() for key in left})
                self.violated(f"partition {partition} keeps {len(left)} rows of kinds {kinds}, e.g. {left[0].hex()}")


def live_rows(store: KeyValue) -> Iterator[tuple[InvocationId, Live]]:
    """The invocations of a store that have not ended."""
    for key, value in store.scan(keys.INVOCATION, keys.end_of(keys.INVOCATION)):
        row = codec.decode(value)
        if isinstance(row, Live):
            yield InvocationId(key[len(keys.INVOCATION) :]), row


def state_of(stores: Mapping[PartitionId, KeyValue], service: str) -> dict[tuple[str, str], bytes]:
    """The state of all objects of a service, by object key and state key."""
    found = {}
    for store in stores.values():
        suffixes: dict[bytes, str] = {}
        for key, _ in store.scan(keys.STATE, keys.end_of(keys.STATE)):
            owner, object_key, state_key = keys.parse_object_suffix(key)
            if owner == service:
                suffixes[key[len(keys.STATE) : len(key) - len(state_key)]] = object_key
        for suffix, object_key in suffixes.items():
            for state_key, value in read_state(store, suffix):
                found[object_key, state_key.decode()] = value
    return found


def _may_stay(key: bytes) -> bool:
    """Whether this row outlives every retention: the state of an object does, that of a workflow goes with its run."""
    if key[:2] == keys.STATE:
        return keys.parse_object_suffix(key)[0] in handlers.OBJECTS
    return key[:2] == keys.METADATA


def _rows(store: KeyValue) -> Iterator[tuple[bytes, bytes]]:
    for key, value in store.scan(b"", b"\xff"):
        if key != _IDENTITY:
            yield key, value


def _show(value: bytes | None) -> str:
    return "nothing" if value is None else f"{value[:60]!r}"

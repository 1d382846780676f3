"""One partition's state machine over a memory store: commands in, actions out, and nothing else.

After every record the tables are compared with what their bytes decode to.  `check_replay` applies all
records again from nothing, in other batch sizes, and compares the tables byte for byte.
"""

from __future__ import annotations

from collections.abc import Sequence

from perdure.protocol import ids
from perdure_processor.model import codec
from perdure_processor.model.actions import Action, SetTimer, ShipOutboxMessage, StartAttempt
from perdure_processor.model.commands import AttemptEffects, ByLeader, Command, Envelope, Expire, TimersFired
from perdure_processor.model.effects import Effect
from perdure_processor.model.ids import InvocationId, Millis, Offset, PartitionId
from perdure_processor.state_machine.machine import AppliedRecord, Elected, Machine
from perdure_processor.storage import keys
from perdure_processor.storage.memory import MemoryKeyValue
from perdure_processor.storage.records import Completed, InvocationRow, Live, Proof
from perdure_processor.storage.tables import Tables, parse_segment, read_state

START_MS = 1_700_000_000_000


class Env:
    """A partition (by default the only one). Time stands still unless a test moves it; offsets have gaps."""

    def __init__(
        self,
        partition: int = 0,
        partitions: int = 1,
        *,
        skipped: frozenset[Offset] = frozenset(),
        now_ms: int = START_MS,
    ) -> None:
        self.partition = PartitionId(partition)
        self.partitions = partitions
        self.now_ms = now_ms
        self.offset = -1
        self.records: list[AppliedRecord] = []
        self.elected: Elected | None = None
        self._skipped = skipped
        self.store = MemoryKeyValue()
        self._tables = Tables(self.store)
        self._machine = Machine(self._tables, self.partition, partitions, skipped)

    # -- what a test does --------------------------------------------------------
    def apply(self, *commands: Command | Envelope) -> list[Action]:
        """Apply commands, each as a record and a batch of its own; the actions of all of them."""
        return [action for command in commands for action in self.apply_batch(command)]

    def apply_batch(self, *commands: Command | Envelope) -> list[Action]:
        """Apply commands as records of one batch."""
        records = [self._record(command) for command in commands]
        self.records += records
        self._tables.begin()
        batch = self._machine.apply_all(records)
        self.store.write(self._tables.finish())
        assert batch.taken == len(records) or batch.elected is not None
        self.elected = batch.elected
        self._compare_with_bytes()
        if batch.taken < len(records):
            del self.records[-len(records) + batch.taken :]
            return batch.actions + self.apply_batch(*commands[batch.taken :])
        return batch.actions

    def effects(self, invocation_id: InvocationId, *effects: Effect, attempt: int | None = None) -> list[Action]:
        """What the running attempt of an invocation reports."""
        row = self.live(invocation_id)
        token = row.attempt if attempt is None else attempt
        return self.apply(AttemptEffects(invocation_id, row.incarnation, token, row.commands, list(effects)))

    def fire_timers(self, *, until_ms: int | None = None) -> list[Action]:
        """What the leader proposes when time has passed: everything due, as one command."""
        self.now_ms = max(self.now_ms, until_ms or 0)
        high = keys.deadline_bound(keys.TIMER, self.now_ms)
        due = [key for key, _ in self.store.scan(keys.TIMER, high)]
        return self.apply(TimersFired(due)) if due else []

    def expire(self, *, until_ms: int | None = None, limit: int = 512) -> list[Action]:
        """What the leader proposes about once a second."""
        self.now_ms = max(self.now_ms, until_ms or 0)
        return self.apply(Expire(Millis(self.now_ms), limit))

    def expire_everything(self) -> None:
        """Let all retention pass, and all work that was left for later be done."""
        for _ in range(10_000):
            rows = [*self.store.scan(keys.EXPIRY, keys.end_of(keys.EXPIRY))]
            if rows:
                self.expire(until_ms=max(keys.parse_expiry(key)[0] for key, _ in rows))
            due = [*self.store.scan(keys.TIMER, keys.deadline_bound(keys.TIMER, 0))]
            if due:
                self.apply(TimersFired([key for key, _ in due]))
            if not rows and not due:
                return
        raise AssertionError("retention never ends")

    # -- what a test looks at ------------------------------------------------------
    def row(self, invocation_id: InvocationId) -> InvocationRow | None:
        data = self.store.get(keys.invocation(invocation_id))
        return None if data is None else codec.decode(data)  # type: ignore[no-any-return]

    def live(self, invocation_id: InvocationId) -> Live:
        row = self.row(invocation_id)
        assert type(row) is Live, f"{row} is not live"
        return row

    def completed(self, invocation_id: InvocationId) -> Completed:
        row = self.row(invocation_id)
        assert type(row) is Completed, f"{row} is not completed"
        return row

    def proof(self, invocation_id: InvocationId) -> Proof:
        row = self.row(invocation_id)
        assert type(row) is Proof, f"{row} is no proof"
        return row

    def state(self, invocation_id: InvocationId, service: str, key: str) -> dict[bytes, bytes]:
        return dict(read_state(self.store, keys.object_suffix(invocation_id, service, key)))

    def journal(self, invocation_id: InvocationId) -> bytes:
        """All frames of a journal, in order."""
        low = keys.JOURNAL + invocation_id
        return b"".join(parse_segment(data)[2] for _, data in self.store.scan(low, keys.end_of(low)))

    def count(self, kind: bytes) -> int:
        """Rows of one kind."""
        return sum(1 for _ in self.store.scan(kind, keys.end_of(kind)))

    def dump(self) -> dict[bytes, bytes]:
        """Everything in the store."""
        return dict(self.store.scan(b"", b"\xff"))

    def leftovers(self) -> dict[bytes, int]:
        """How many rows of each kind there are, the partition's own progress apart."""
        counts: dict[bytes, int] = {}
        for key in self.dump():
            if key[:2] != keys.METADATA:
                counts[key[:2]] = counts.get(key[:2], 0) + 1
        return counts

    # -- what holds always -----------------------------------------------------------
    def check_replay(self) -> None:
        """The same records from nothing, in other batches: the same tables on every replica, byte for byte."""
        expected = self.dump()
        for size in (1, 3, 64, len(self.records) + 1):
            assert replay(self, size) == expected, f"batches of {size} give other tables"

    def _record(self, command: Command | Envelope) -> AppliedRecord:
        envelope = command if isinstance(command, Envelope) else Envelope(None, None, command)
        # Gaps are legal; and what an attempt or a client sent went through bytes on its way.
        self.offset += 2 if self.offset % 4 == 2 else 1
        decoded = codec.decode(codec.encode(envelope))
        assert decoded == envelope, f"{envelope} comes back as {decoded}"
        return Offset(self.offset), Millis(self.now_ms), decoded

    def _compare_with_bytes(self) -> None:
        """What the machine keeps decoded is what a replica would find after a restart."""
        for invocation_id, kept in self._tables._rows.items():
            assert self.row(invocation_id) == kept, f"the cached row of {invocation_id.hex()} is not the stored one"
        assert self._tables.progress == codec.decode(self.store.get(keys.metadata("progress")) or b"")


def replay(env: Env, batch_size: int) -> dict[bytes, bytes]:
    """The tables after applying an environment's records again; the store is reopened after each batch."""
    store = MemoryKeyValue()
    records: Sequence[AppliedRecord] = env.records
    while records:
        tables = Tables(store)
        machine = Machine(tables, env.partition, env.partitions, env._skipped)
        tables.begin()
        batch = machine.apply_all(records[:batch_size])
        store.write(tables.finish())
        records = records[batch.taken :]
    return dict(store.scan(b"", b"\xff"))


def started(actions: Sequence[Action]) -> list[InvocationId]:
    """Whose attempts are to start."""
    return [action.id for action in actions if type(action) is StartAttempt]


def shipped(actions: Sequence[Action]) -> list[ShipOutboxMessage]:
    return [action for action in actions if type(action) is ShipOutboxMessage]


def without_timers(actions: Sequence[Action]) -> list[Action]:
    return [action for action in actions if type(action) is not SetTimer]


def by_leader(command: Command, sequence: int, epoch: int = 1) -> Envelope:
    return Envelope(None, ByLeader(epoch, sequence), command)  # type: ignore[arg-type]


def text_id(invocation_id: InvocationId) -> str:
    return ids.encode_invocation_id(invocation_id)

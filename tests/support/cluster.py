"""Several partitions wired together, driven at random: the core alone, without a shell.

`python -m support.cluster SEED` prints the digest of the tables that a seed leads to, so that two processes
with different string hashes can be compared.
"""

from __future__ import annotations

import hashlib
import random
import sys
from dataclasses import dataclass, field

from perdure_processor.model import codec
from perdure_processor.model.actions import (
    AbortAttempt,
    Acted,
    Action,
    Answer,
    Answered,
    RespondToIngress,
    StartAttempt,
)
from perdure_processor.model.commands import (
    AnnounceLeader,
    AttemptEffects,
    ByLeader,
    ByOutbox,
    Command,
    Envelope,
    Invoke,
    KillCall,
    Operate,
    OperatorCommand,
    Part,
    Repin,
    Respond,
    RestartAsNew,
    Resume,
    Signal,
    TruncateOutbox,
    Verb,
)
from perdure_processor.model.effects import AfterFailure, Effect, Kill, Pause, RetryAt, Suspended
from perdure_processor.model.futures import Future
from perdure_processor.model.ids import (
    DeploymentId,
    Incarnation,
    InvocationId,
    InvocationTarget,
    LeaderEpoch,
    Millis,
    NodeId,
    PartitionId,
    partition_of_slot,
    slot_of,
)
from perdure_processor.model.results import RequestId, Result
from perdure_processor.storage import keys
from perdure_processor.storage.records import Live, Status
from support import builders as b
from support.env import Env

PARTITIONS = 3
KEYS = ("alice", "bob", "carol")


@dataclass
class Handler:
    """An attempt that runs somewhere."""

    env: Env
    id: InvocationId
    incarnation: Incarnation
    attempt: int
    waits_for: list[int] = field(default_factory=list)
    open_runs: list[int] = field(default_factory=list)


class Cluster:
    """Partitions, their leaders, clients and handlers, all played by one random number generator."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.envs = [Env(number, PARTITIONS) for number in range(PARTITIONS)]
        self.handlers: dict[tuple[InvocationId, Incarnation], Handler] = {}
        self.answers: dict[RequestId, Result | Answer] = {}
        self._cut_short: set[InvocationId] = set()
        self._completion_ids: dict[tuple[InvocationId, Incarnation], int] = {}
        self._epochs = [0] * PARTITIONS
        self._sequences = [0] * PARTITIONS
        self._shipped = [dict.fromkeys(range(PARTITIONS), 0) for _ in range(PARTITIONS)]
        self._requests: list[Invoke | Operate | Resume | RestartAsNew] = []
        self._request_number = 0
        for env in self.envs:
            self._announce(env)

    # -- what may happen -----------------------------------------------------------
    def run(self, steps: int) -> None:
        moves = [
            (self._client, 5),
            (self._operator, 2),
            (self._report, 14),
            (self._fire, 3),
            (self._ship, 6),
            (self._expire, 1),
            (self._elect, 1),
        ]
        choices = [move for move, weight in moves for _ in range(weight)]
        for _ in range(steps):
            for env in self.envs:
                env.now_ms += self.random.randrange(50)
            self.random.choice(choices)()

    def drain(self) -> None:
        """No more faults and no more work: everything ends, is delivered and expires."""
        for _ in range(200):
            for handler in list(self.handlers.values()):
                self._effects(handler, b.ended(b"drained"))
            for env in self.envs:
                self._cancel_waiting(env)
                self._apply(env, *env_timers(env))
            shipped = self._ship(everything=True)
            if not shipped and not self.handlers and not any(env.count(keys.TIMER) for env in self.envs):
                break
        else:
            raise AssertionError(f"still busy: {[env.leftovers() for env in self.envs]}")
        for env in self.envs:
            env.expire_everything()

    def digest(self) -> str:
        total = hashlib.sha256()
        for env in self.envs:
            for key, value in env.dump().items():
                total.update(len(key).to_bytes(4, "big") + key + len(value).to_bytes(4, "big") + value)
        return total.hexdigest()

    # -- clients -------------------------------------------------------------------
    def _client(self) -> None:
        rng = self.random
        if self._requests and rng.random() < 0.3:
            again = rng.choice(self._requests)  # an append whose outcome was unknown
            self._send(again.id, again)
            return
        self._request_number += 1
        asked = RequestId("client", 1, self._request_number)
        target = self._target()
        name: int | str = rng.choice((f"key{rng.randrange(3)}", rng.randrange(1, 1 << 60)))
        kind = rng.randrange(10)
        issued_ms = self.envs[0].now_ms - rng.choice((0, 0, 0, 200_000))
        if kind < 7:
            command = b.invoke(
                target,
                name,
                asked=asked,
                one_way=rng.random() < 0.3,
                delay_ms=0,
                completion_retention_ms=rng.choice((0, 100, b.DAY_MS)),
                journal_retention_ms=rng.choice((0, 50, b.HOUR_MS)),
                issued_ms=issued_ms,
            )
            if command.one_way and rng.random() < 0.5:
                command = b.invoke(target, name, asked=asked, one_way=True, delay_ms=100, issued_ms=issued_ms)
            self._requests.append(command)
            self._send(command.id, command)
        elif kind == 7:
            self._send(b.invocation_id(target, name), b.attach(b.invocation_id(target, name), asked, issued_ms))
        elif kind == 8:
            self._send(b.invocation_id(target, name), b.get_output(b.invocation_id(target, name), asked))
        else:
            self._signal(asked)

    def _operator(self) -> None:
        if not self._requests:
            return
        rng = self.random
        id = rng.choice(self._requests).id
        self._request_number += 1
        asked, issued_ms = RequestId("client", 1, self._request_number), self.envs[0].now_ms
        command: Operate | Resume | RestartAsNew
        kind = rng.randrange(10)
        if kind < 6:
            command = Operate(id, rng.choice(list(Verb)), asked, issued_ms)
        elif kind < 8:
            repin = rng.choice((None, Repin(DeploymentId("dp_2"), 5, 6)))
            command = Resume(id, repin, asked, issued_ms)
        else:
            index = rng.randrange(4)
            new_id = InvocationId(id[:8] + rng.randbytes(16))
            command = RestartAsNew(id, new_id, index, index > 0, None, asked, issued_ms)
        if isinstance(command, Operate):
            # Who asked in an earlier life, and was not answered yet, may be answered by the next one.
            self._cut_short.add(id)
        self._requests.append(command)
        self._send(id, command)

    def _target(self) -> InvocationTarget:
        rng = self.random
        return rng.choice(
            (
                b.service(),
                b.thing(rng.choice(KEYS)),
                b.thing(rng.choice(KEYS)),
                b.thing(rng.choice(KEYS), "get"),
                b.flow(f"w{rng.randrange(3)}"),
                b.flow(f"w{rng.randrange(3)}", "status"),
            )
        )

    def _signal(self, asked: RequestId | None) -> None:
        if self._requests:
            id = self.random.choice(self._requests).id
            index: int | str = self.random.choice((1, 17, 18, "go"))
            self._send(id, b.signal(id, index, b"", asked, self.envs[0].now_ms))

    def _send(self, id: InvocationId, command: Command) -> None:
        envelope = Envelope(slot_of(id), None, command)
        here = partition_of_slot(slot_of(id), PARTITIONS)
        # Now and then to the wrong partition, which forwards it.
        target = here if self.random.random() < 0.95 or not _travels(command) else self.random.randrange(PARTITIONS)
        self._append(self.envs[target], envelope)

    # -- handlers --------------------------------------------------------------------
    def _report(self) -> None:
        if not self.handlers:
            return
        handler = self.random.choice(list(self.handlers.values()))
        row = handler.env.row(handler.id)
        assert type(row) is Live, "what runs is live"
        effects: list[Effect] = [] if row.deployment_id else [b.pinned(version=self.random.choice((5, 6, 7)))]
        commands = row.commands
        for _ in range(self.random.randrange(4)):
            effect = self._effect(handler, row, commands)
            commands += type(effect).__name__ != "RunCompleted"
            effects.append(effect)
        end = self.random.random()
        if end < 0.25:
            effects += b.ended(f"{commands}".encode())
        elif end < 0.35:
            effects.append(b.attempt_failed(self._then(handler.env)))
        elif end < 0.5:
            awaited = self.random.sample(handler.waits_for, min(2, len(handler.waits_for)))
            tree = Future([], [1], [], [Future(awaited, [17], [], [], self.random.randrange(5))], 1)
            effects.append(Suspended(tree))
        self._effects(handler, effects)

    def _effect(self, handler: Handler, row: Live, command_index: int) -> Effect:
        rng = self.random
        kind = rng.randrange(12)
        keyed = row.target.key is not None
        if kind == 0 and handler.open_runs:
            return b.run_done(handler.open_runs.pop(), ack_wanted=rng.random() < 0.5)
        if kind <= 2:
            completion_id = self._next_ids(handler, 1)
            handler.open_runs.append(completion_id)
            return b.run(completion_id)
        if kind <= 4:
            completion_id = self._next_ids(handler, 1)
            handler.waits_for.append(completion_id)
            return b.sleep(completion_id, handler.env.now_ms + rng.randrange(200))
        if kind <= 7:
            completion_id = self._next_ids(handler, 2)
            handler.waits_for += [completion_id, completion_id + 1]
            return b.call(
                handler.id,
                self._target(),
                completion_id,
                incarnation=handler.incarnation,
                command_index=command_index,
                idempotency_key=rng.choice((None, "k1")),
            )
        if kind == 8:
            return b.send(
                handler.id,
                self._target(),
                self._next_ids(handler, 1),
                incarnation=handler.incarnation,
                command_index=command_index,
                at_ms=rng.choice((0, handler.env.now_ms + 100)),
            )
        if keyed and row.handler_kind in (1, 3):
            return rng.choice((b.set_state(b"a", b"1"), b.set_state(b"b", b"2"), b.clear_state(b"a"), b.clear_all()))
        if keyed:
            return b.read_lazily(b"a", self._next_ids(handler, 1))
        return b.output(b"early")

    def _next_ids(self, handler: Handler, count: int) -> int:
        place = (handler.id, handler.incarnation)
        first = self._completion_ids.get(place, 1)
        self._completion_ids[place] = first + count
        return first

    def _then(self, env: Env) -> AfterFailure:
        if self.random.random() < 0.2:
            return Kill()
        if self.random.random() < 0.2:
            return Pause()
        return RetryAt(Millis(env.now_ms + self.random.randrange(100)), counted=self.random.random() < 0.8)

    def _effects(self, handler: Handler, effects: list[Effect]) -> None:
        row = handler.env.row(handler.id)
        assert type(row) is Live
        command = AttemptEffects(handler.id, handler.incarnation, handler.attempt, row.commands, effects)
        if type(effects[-1] if effects else None).__name__ in ("Ended", "AttemptFailed", "Suspended"):
            del self.handlers[handler.id, handler.incarnation]
        self._apply(handler.env, command)

    # -- leaders ---------------------------------------------------------------------
    def _fire(self) -> None:
        env = self.random.choice(self.envs)
        self._apply(env, *env_timers(env, env.now_ms))

    def _expire(self) -> None:
        for env in self.envs:
            if self.random.random() < 0.3:
                env.now_ms += self.random.choice((0, 100, 250_000))
            env.expire(limit=self.random.randrange(1, 20))

    def _elect(self) -> None:
        self._announce(self.random.choice(self.envs))

    def _announce(self, env: Env) -> None:
        """A new term: its leader finds what should run in `active`, and ships the outbox from the first row."""
        number = env.partition
        self._epochs[number] += 1
        self._sequences[number] = 0
        env.apply(AnnounceLeader(NodeId("n", 1), LeaderEpoch(self._epochs[number]), self._epochs[number]))
        assert env.elected is not None
        for place in [place for place, handler in self.handlers.items() if handler.env is env]:
            del self.handlers[place]
        for key, _ in env.store.scan(keys.ACTIVE, keys.end_of(keys.ACTIVE)):
            id = InvocationId(key[2:])
            row = env.live(id)
            assert row.status is Status.INVOKED and not row.next_retry_ms, "active names what should run"
            self._started(env, StartAttempt(id, row.incarnation, row.attempt, None))
        self._shipped[number] = dict.fromkeys(range(PARTITIONS), 0)

    def _ship(self, everything: bool = False) -> int:
        """Carry messages on, some of them twice; truncate what the target holds."""
        count = 0
        for env in self.envs:
            done = self._shipped[env.partition]
            for key, data in list(env.store.scan(keys.OUTBOX, keys.end_of(keys.OUTBOX))):
                target, sequence = keys.parse_outbox(key)
                if sequence <= done[target] or (not everything and self.random.random() < 0.3):
                    if sequence <= done[target] and self.random.random() < 0.9:
                        continue
                    if sequence > done[target]:
                        break
                command: Command = codec.decode(data)
                slot = slot_of(command.sink.id if type(command) is Respond else command.id)  # type: ignore[union-attr]
                self._append(self.envs[target], Envelope(slot, ByOutbox(env.partition, sequence), command))
                done[target] = max(done[target], sequence)
                count += 1
            for target, sequence in done.items():
                if sequence and (everything or self.random.random() < 0.2):
                    self._apply(env, TruncateOutbox(PartitionId(target), sequence))
        return count

    def _cancel_waiting(self, env: Env) -> None:
        for key, data in list(env.store.scan(keys.INVOCATION, keys.end_of(keys.INVOCATION))):
            row = codec.decode(data)
            if type(row) is Live and row.status in (Status.SUSPENDED, Status.PAUSED):
                id = InvocationId(key[2:])
                self._append(env, Envelope(slot_of(id), None, b.signal(id, 1)))

    def _apply(self, env: Env, *commands: Command) -> None:
        """Propose as the leader of the present term."""
        for command in commands:
            self._sequences[env.partition] += 1
            dedup = ByLeader(LeaderEpoch(self._epochs[env.partition]), self._sequences[env.partition])
            self._append(env, Envelope(None, dedup, command))

    def _append(self, env: Env, envelope: Envelope) -> None:
        if self.random.random() < 0.05:
            for part in self._parts(envelope):
                self._act(env, env.apply(part))
        else:
            self._act(env, env.apply(envelope))

    def _parts(self, envelope: Envelope) -> list[Envelope]:
        payload = codec.encode(Envelope(envelope.slot, None, envelope.command))
        size = len(payload) // 3 + 1
        pieces = [payload[at : at + size] for at in range(0, len(payload), size)]
        group = self.random.randbytes(16)
        last = len(pieces) - 1
        return [
            Envelope(None, envelope.dedup if index == last else None, Part(group, index, len(pieces), piece))
            for index, piece in enumerate(pieces)
        ]

    def _act(self, env: Env, actions: list[Action]) -> None:
        for action in actions:
            if type(action) is StartAttempt:
                self._started(env, action)
            elif type(action) is AbortAttempt:
                for place in [(at, life) for at, life in self.handlers if at == action.id]:
                    if self.handlers[place].attempt == action.attempt:
                        del self.handlers[place]
            elif type(action) is RespondToIngress and isinstance(action.answer, Answered | Acted):
                answer = action.answer
                if isinstance(answer, Acted) and answer.detail:
                    continue  # one refusal may follow another, but no deed
                said = answer.result if isinstance(answer, Answered) else answer
                known = self.answers.setdefault(action.request, said)
                if isinstance(answer, Answered) and answer.id in self._cut_short:
                    continue
                assert known == said, f"{action.request} was answered {known} and then {said}"

    def _started(self, env: Env, action: StartAttempt) -> None:
        row = env.row(action.id)
        if type(row) is Live and row.attempt == action.attempt:
            handler = Handler(env, action.id, action.incarnation, action.attempt, [], list(row.open_runs))
            assert row.status is Status.INVOKED
            self.handlers[action.id, action.incarnation] = handler
            self._one_holder(env, row)

    def _one_holder(self, env: Env, row: Live) -> None:
        """Whoever runs an exclusive handler holds the lock of its key."""
        if row.target.key is None or row.handler_kind not in (1, 3):
            return
        running = [
            handler
            for handler in self.handlers.values()
            if (other := env.row(handler.id)) is not None
            and handler.env is env
            and type(other) is Live
            and (other.target.service, other.target.key) == (row.target.service, row.target.key)
            and other.handler_kind in (1, 3)
        ]
        assert len(running) == 1, f"{len(running)} run on {row.target}"


def env_timers(env: Env, until_ms: int = keys.DEADLINE_MAX - 1) -> list[Command]:
    due = [key for key, _ in env.store.scan(keys.TIMER, keys.deadline_bound(keys.TIMER, until_ms))]
    return [b.timers_fired(*due)] if due else []


def _travels(command: Command) -> bool:
    return isinstance(command, Invoke | Respond | Signal | KillCall | OperatorCommand)


def digest_of(seed: int, steps: int = 150) -> str:
    """The tables' digest when the steps of a seed are over, and once everything has ended."""
    cluster = Cluster(seed)
    cluster.run(steps)
    middle = cluster.digest()
    cluster.drain()
    return f"{middle} {cluster.digest()}"


if __name__ == "__main__":
    print(digest_of(int(sys.argv[1])))

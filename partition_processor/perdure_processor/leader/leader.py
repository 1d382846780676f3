"""◐ shell · Everything one term of leadership owns, and the only door to propose.

Made when this node's claim was read back, closed when the term ends, never used again: a counter that
outlives its term was the first bug of the first prototype.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, assert_never

from perdure_processor.clock import Clock
from perdure_processor.leader.deadlines import DeadlineClock
from perdure_processor.leader.shuffle import Shuffle
from perdure_processor.leader.timer_service import TimerService
from perdure_processor.log import Outcome, Refused, Unknown
from perdure_processor.log.tail import Done, Tail
from perdure_processor.metrics import Metrics
from perdure_processor.model.actions import (
    AbortAttempt,
    AckCommand,
    Action,
    Answer,
    ForwardNotification,
    PauseAttempt,
    ReportRefusedPatch,
    RespondToIngress,
    SetTimer,
    ShipOutboxMessage,
    StartAttempt,
)
from perdure_processor.model.commands import AttemptEffects, ByLeader, Command, Envelope, Expire
from perdure_processor.model.ids import InvocationId, LeaderEpoch, Millis, Offset, PartitionId
from perdure_processor.model.limits import ACTIVE_SCAN_PAGE, CLEANUP_MS, EXPIRIES_PER_COMMAND_MAX, PROPOSE_AGAIN_S
from perdure_processor.model.results import RequestId
from perdure_processor.storage import keys
from perdure_processor.storage.keyvalue import KeyValue
from perdure_processor.storage.records import Live, Progress, Status
from perdure_processor.storage.tables import read_invocation

if TYPE_CHECKING:  # the invoker calls back into the leader that started an attempt
    from perdure_processor.invoker.invoker import Invoker

logger = logging.getLogger(__name__)


@dataclass(slots=True)
class LeaderServices:
    """What the node lends to every leader."""

    invoker: Invoker
    append: Callable[[PartitionId, Envelope, Done], int]  # to any partition's log
    respond: Callable[[RequestId, Answer], None]
    cleanup_ms: int = CLEANUP_MS  # how often a leader looks for what has expired


class Leader:
    """One term. Whatever happens outside comes back through `propose`."""

    def __init__(
        self,
        partition: PartitionId,
        epoch: LeaderEpoch,
        *,
        tail: Tail,
        store: KeyValue,
        clock: Clock,
        services: LeaderServices,
        deposed: Callable[[str], None],
        metrics: Metrics,
    ) -> None:
        self.partition = partition
        self.epoch = epoch
        self.store = store
        self.invoker = services.invoker
        self.closed = False
        self._tail = tail
        self._services = services
        self._deposed = deposed
        self.metrics = metrics
        self._loop = asyncio.get_running_loop()
        self._sequence = 0
        # Proposals appended and not yet answered by the log, in order.
        self._outstanding: deque[tuple[Command, Done | None]] = deque()
        # Refused by the log, with what was appended behind it: proposed again, in order, when there may be room.
        self._refused: deque[tuple[Command, Done | None]] = deque()
        # What came while some were refused: proposed behind them.
        self._held_back: deque[tuple[Command, Done | None]] = deque()
        self.deadlines = DeadlineClock(clock, Millis(0))
        self._shuffle = Shuffle(self, services.append)
        self._timers = TimerService(self)
        # The last proposal that the log took, and the position up to which everything is applied.
        self._recorded = Offset(-1)
        self._position = Offset(0)
        # Where the scan of `active` goes on; None when everything active was handed to the invoker.
        self._scan_from: bytes | None = keys.ACTIVE
        self._scan_scheduled = False
        self._scan_waits = False  # for what is recorded to be applied
        self._expiring = False
        self._cleanup_ms = services.cleanup_ms
        self._clock = clock
        self._expired_ms = clock.monotonic_ms()

    # -- life ------------------------------------------------------------------
    def start(self, progress: Progress) -> None:
        """Derive all work from the tables: attempts, timers, outbox."""
        self.deadlines.observe(progress.now_ms)
        self._position = Offset(progress.position)
        self._schedule_scan()
        self._timers.start()
        self._shuffle.start()

    def close(self) -> None:
        """The term is over: attempts are reset, nothing is proposed any more."""
        self.closed = True
        self.metrics.terms_ended += 1
        self._timers.close()
        self._shuffle.close()
        self.invoker.leader_gone(self)
        ended = Unknown("the term ended")
        for _, done in (*self._refused, *self._outstanding, *self._held_back):
            if done is not None:
                done(ended)

    # -- the door ----------------------------------------------------------------
    def propose(self, command: Command, done: Done | None = None) -> None:
        """Append a command of this term to the partition's own log.

        `done` hears once: that it is durable, or Unknown when the term ended before that.  A refused append (disk
        full) is made again later, and what is proposed meanwhile waits behind it."""
        if self.closed:
            return
        if self._refused:
            self._held_back.append((command, done))
            return
        self._sequence += 1
        self._outstanding.append((command, done))
        self.metrics.proposals += 1
        self._tail.append(Envelope(None, ByLeader(self.epoch, self._sequence), command), self._on_outcome)

    def _on_outcome(self, outcome: Outcome) -> None:
        if self.closed:
            return
        command, done = self._outstanding.popleft()
        if isinstance(outcome, Unknown):
            self._outstanding.appendleft((command, done))
            self._end(f"an append has an unknown outcome: {outcome.reason}")
            return
        if isinstance(outcome, Refused):
            self.metrics.proposals_refused += 1
            if not self._refused:
                logger.warning("proposals wait partition=%d reason=%s", self.partition, outcome.reason)
        elif not self._refused:
            self._recorded = outcome.offset
            if done is not None:
                done(outcome)
            return
        # One that was taken behind a refused one is as good as refused: its sequence is not the next, apply drops it.
        self._refused.append((command, done))
        if not self._outstanding:
            self._sequence -= len(self._refused)
            self._loop.call_later(PROPOSE_AGAIN_S, self._propose_refused)

    def _propose_refused(self) -> None:
        again = (*self._refused, *self._held_back)
        self._refused.clear()
        self._held_back.clear()
        for command, done in again:
            self.propose(command, done)

    def _end(self, reason: str) -> None:
        if not self.closed:
            self._deposed(reason)

    # -- after every commit ------------------------------------------------------
    def on_applied(self, progress: Progress, actions: Sequence[Action]) -> None:
        """A batch was committed: do what it asks for."""
        self.deadlines.observe(progress.now_ms)
        invoker = self.invoker
        for action in actions:
            match action:
                case RespondToIngress(request=request, answer=answer):
                    self._services.respond(request, answer)
                case StartAttempt():
                    invoker.start(self, action)
                case ForwardNotification():
                    invoker.forward(self, action)
                case ShipOutboxMessage():
                    self._shuffle.ship(action)
                case SetTimer(deadline_ms=deadline_ms):
                    self._timers.set(deadline_ms)
                case AbortAttempt():
                    invoker.abort(self, action)
                case PauseAttempt():
                    invoker.pause(self, action)
                case AckCommand():
                    invoker.acknowledge(self, action)
                case ReportRefusedPatch(service=service, key=key, deed=deed):
                    self.metrics.state_patches_refused += 1
                    logger.warning(
                        "state patch refused service=%s key=%r reason=%s: nothing was changed", service, key, deed.name
                    )
                case _:
                    assert_never(action)
        self._position = Offset(progress.position)
        self._timers.on_applied(progress.position)
        if self._scan_waits:
            self._schedule_scan()

    def sweep(self) -> None:
        """Called about once a second: expire what is due, as often as the cleanup interval says."""
        now_ms = self._clock.monotonic_ms()
        if self._expiring or now_ms - self._expired_ms < self._cleanup_ms:
            return
        self._expired_ms = now_ms
        self._expire()

    def _expire(self) -> None:
        if self.closed:
            return
        if self.deadlines.skewed():
            logger.error(
                "nothing expires: this clock and the log's differ by more than 5 minutes partition=%d", self.partition
            )
            return
        until_ms = self.deadlines.now_ms()
        for _ in self.store.scan(keys.EXPIRY, keys.deadline_bound(keys.EXPIRY, until_ms)):
            self._expiring = True
            self.propose(Expire(until_ms, EXPIRIES_PER_COMMAND_MAX), self._on_expired)
            return

    def _on_expired(self, _outcome: Outcome) -> None:
        self._expiring = False
        # More than one command's worth may be due: look again once this one is applied, two turns from here.
        self._loop.call_soon(self._loop.call_soon, self._expire)

    # -- attempts that should run --------------------------------------------------
    def scan_again(self) -> None:
        """The invoker had no room: what should run stands in `active`, and is looked up when there is."""
        # From the start, also when a scan is under way: what found no room may lie before its place.
        self._scan_from = keys.ACTIVE

    def on_room(self) -> None:
        """The invoker has room again."""
        if self._scan_from is not None:
            self._schedule_scan()

    def _schedule_scan(self) -> None:
        if not self._scan_scheduled and not self.closed:
            self._scan_scheduled = True
            self._loop.call_soon(self._scan_active)

    def _scan_active(self) -> None:
        """One page of `active`; the next page in a later turn, so that a long table holds up nobody."""
        self._scan_scheduled = False
        if self.closed or self._scan_from is None:
            return
        # The table names attempts that have ended, as long as what they reported last is not applied: started
        # again they would be the same attempt twice (correctness 1).  What is applied may start the next one.
        self._scan_waits = self._recorded >= self._position
        if self._scan_waits:
            return
        unrecorded = (*self._refused, *self._outstanding, *self._held_back)
        reporting = {command.id for command, _ in unrecorded if type(command) is AttemptEffects}
        found = 0
        for key, _ in self.store.scan(self._scan_from, keys.end_of(keys.ACTIVE)):
            if found == ACTIVE_SCAN_PAGE:
                self._scan_from = key
                self._schedule_scan()
                return
            found += 1
            invocation_id = InvocationId(key[len(keys.ACTIVE) :])
            if invocation_id in reporting or self.invoker.has(invocation_id):
                continue
            row = read_invocation(self.store, invocation_id)
            assert type(row) is Live and row.status is Status.INVOKED, "active names only the invoked"
            action = StartAttempt(invocation_id, row.incarnation, row.attempt, None, row)
            if not self.invoker.start(self, action):
                return  # it asked to scan again when there is room
        self._scan_from = None

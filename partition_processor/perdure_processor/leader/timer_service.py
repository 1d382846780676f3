"""◐ shell · Sleeps until the next due timer, and proposes that it fired. Holds one deadline, not the timers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from perdure_processor.log import Appended, Outcome
from perdure_processor.model.commands import TimersFired
from perdure_processor.model.limits import TIMER_LOOK_AGAIN_MS, TIMERS_PER_COMMAND_MAX
from perdure_processor.storage import keys

if TYPE_CHECKING:
    from perdure_processor.leader.leader import Leader


class TimerService:
    """The `timers` table is the truth; this only knows when to look at it."""

    def __init__(self, leader: Leader) -> None:
        self._leader = leader
        self._loop = asyncio.get_running_loop()
        self._handle: asyncio.TimerHandle | None = None
        self._next_ms = -1  # the deadline `_handle` waits for; -1 when there is none
        # A proposal is on its way: nothing is looked up until the log position that follows it is applied.
        self._proposed = False
        self._proposed_offset = -1
        self._position = 0  # everything before it is applied

    def start(self) -> None:
        self._look()

    def close(self) -> None:
        if self._handle is not None:
            self._handle.cancel()
            self._handle = None

    def set(self, deadline_ms: int) -> None:
        """A timer row was written."""
        if not self._proposed and (self._next_ms < 0 or deadline_ms < self._next_ms):
            self._sleep_until(deadline_ms)

    def on_applied(self, position: int) -> None:
        self._position = position
        if self._proposed and 0 <= self._proposed_offset < position:
            self._proposed = False
            self._proposed_offset = -1
            self._look()

    def _look(self) -> None:
        """Propose what is due; else sleep until the first timer."""
        self._handle = None
        self._next_ms = -1
        if self._leader.closed or self._proposed:
            return
        now_ms = self._leader.deadlines.now_ms()
        due: list[bytes] = []
        for key, _ in self._leader.store.scan(keys.TIMER, keys.end_of(keys.TIMER)):
            deadline_ms = keys.parse_timer(key)[0]
            if deadline_ms > now_ms:
                if not due:
                    self._sleep_until(deadline_ms)
                break
            due.append(key)
            if len(due) == TIMERS_PER_COMMAND_MAX:
                break
        if due:
            self._proposed = True
            self._leader.metrics.timers_fired += len(due)
            self._leader.propose(TimersFired(due), self._on_recorded)

    def _on_recorded(self, outcome: Outcome) -> None:
        if type(outcome) is Appended:
            self._proposed_offset = outcome.offset
            # The record may have been read, and applied, before its acknowledgement came.
            self.on_applied(self._position)

    def _sleep_until(self, deadline_ms: int) -> None:
        if self._handle is not None:
            self._handle.cancel()
        self._next_ms = deadline_ms
        pause_ms = min(max(deadline_ms - self._leader.deadlines.now_ms(), 0), TIMER_LOOK_AGAIN_MS)
        self._handle = self._loop.call_later(pause_ms / 1000, self._look)

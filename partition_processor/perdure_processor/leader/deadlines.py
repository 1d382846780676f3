"""◐ shell · When a deadline has come, although clocks step (correctness 22)."""

from __future__ import annotations

from perdure_processor.clock import Clock
from perdure_processor.model.ids import Millis
from perdure_processor.model.limits import SKEW_MS_MAX


class DeadlineClock:
    """The earlier of the wall clock and the log's clock: nothing fires early when the wall clock runs ahead."""

    def __init__(self, clock: Clock, log_now_ms: Millis) -> None:
        self._clock = clock
        self._log_now_ms = log_now_ms
        self._observed_ms = clock.monotonic_ms()

    def observe(self, log_now_ms: Millis) -> None:
        """A record with this timestamp was applied just now."""
        if log_now_ms > self._log_now_ms:
            self._log_now_ms = log_now_ms
            self._observed_ms = self._clock.monotonic_ms()

    def now_ms(self) -> Millis:
        """A deadline at or before this has come."""
        wall = self._clock.now_ms()
        if not self._log_now_ms:
            return wall
        return Millis(min(wall, self._log_now_ms + self._clock.monotonic_ms() - self._observed_ms))

    def skewed(self) -> bool:
        """Whether the clocks differ so much that nothing may expire."""
        since = self._clock.monotonic_ms() - self._observed_ms
        return bool(self._log_now_ms) and abs(self._clock.now_ms() - (self._log_now_ms + since)) > SKEW_MS_MAX

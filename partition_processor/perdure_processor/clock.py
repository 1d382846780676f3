"""◐ shell · The Clock port and the system clock behind it."""

from __future__ import annotations

import time
from typing import Protocol

from perdure_processor.model.ids import Millis


class Clock(Protocol):
    """Where the shell learns the time; the core gets it with each record instead."""

    def now_ms(self) -> Millis:
        """Wall clock, milliseconds since the Unix epoch."""

    def monotonic_ms(self) -> int:
        """A clock that never steps, milliseconds since an arbitrary moment."""


class SystemClock:
    """The machine's clocks."""

    def now_ms(self) -> Millis:
        return Millis(time.time_ns() // 1_000_000)

    def monotonic_ms(self) -> int:
        return time.monotonic_ns() // 1_000_000

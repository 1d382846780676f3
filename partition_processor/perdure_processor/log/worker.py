"""○ adapter · Worker: one thread that does blocking jobs in order and reports each back on the event loop.

Not an executor: its futures, locks and wake-ups cost a tenth of a millisecond a job, which is what a sync costs.
"""

from __future__ import annotations

from asyncio import AbstractEventLoop
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeAlias, TypeVar

T = TypeVar("T")
_Job: TypeAlias = tuple[Callable[[], Any], Callable[[Any, Exception | None], None]]


class Worker:
    """The thread starts with the first job and ends with `stop`."""

    def __init__(self, name: str, loop: AbstractEventLoop) -> None:
        self._name = name
        self._loop = loop
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._thread: Thread | None = None

    def submit(self, job: Callable[[], T], done: Callable[[T | None, Exception | None], None]) -> None:
        """Run `job` on the thread, then `done(result, None)` or `done(None, error)` on the loop."""
        if self._thread is None:
            self._thread = Thread(target=self._run, name=self._name, daemon=True)
            self._thread.start()
        self._jobs.put((job, done))

    def stop(self) -> None:
        """Wait for the jobs handed over so far; nothing may be submitted any more."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join()

    def _run(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, done = entry
            result, error = None, None
            try:
                result = job()
            except Exception as raised:
                error = raised
            self._loop.call_soon_threadsafe(done, result, error)

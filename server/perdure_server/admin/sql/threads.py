"""◐ shell · A thread for one query: what it does in order, and its end.

Not a pool: an engine that computes cannot be interrupted, and a pool's threads keep the process until they are done.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from queue import SimpleQueue
from threading import Thread
from typing import Any, TypeVar

T = TypeVar("T")


class QueryThread:
    """Runs jobs one after the other until `end`; then `ended` is called on the loop, once the last one is done."""

    def __init__(self, ended: Callable[[], object]) -> None:
        self._loop = asyncio.get_running_loop()
        self._ended = ended
        self._jobs: SimpleQueue[tuple[Callable[[], Any], asyncio.Future[Any]] | None] = SimpleQueue()
        Thread(target=self._run, name="sql", daemon=True).start()

    def run(self, job: Callable[[], T]) -> asyncio.Future[T]:
        """What the job returns or raises. Who is cancelled while waiting does not end the job."""
        future: asyncio.Future[T] = self._loop.create_future()
        self._jobs.put((job, future))
        return future

    def end(self) -> None:
        """No more jobs will come."""
        self._jobs.put(None)

    def _run(self) -> None:
        while (entry := self._jobs.get()) is not None:
            job, future = entry
            try:
                result = job()
            except Exception as error:
                self._tell(_settle, future, None, error)
            else:
                self._tell(_settle, future, result, None)
                del result
            del entry, job, future  # what a query holds goes with the thread, not with the next job
        self._tell(self._ended)

    def _tell(self, callback: Callable[..., object], *arguments: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop has closed: nobody is left to tell
            self._loop.call_soon_threadsafe(callback, *arguments)


def _settle(future: asyncio.Future[Any], result: Any, error: Exception | None) -> None:
    if future.cancelled():
        return
    if error is None:
        future.set_result(result)
    else:
        future.set_exception(error)

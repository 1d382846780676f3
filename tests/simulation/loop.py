"""Virtual time: an asyncio loop whose clock jumps to the next deadline, and processes that can die on it.

A `Life` is one process: whatever was scheduled from inside it is silently dropped once it is dead, as if the
machine had lost power between two callbacks.  Nobody's `finally` runs.
"""

from __future__ import annotations

import asyncio
import contextvars
import selectors
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Stuck(Exception):
    """Nothing is runnable and no timer is pending: whoever still waits would wait for ever."""


class Life:
    """One process on the loop, from its start to its death."""

    current: contextvars.ContextVar[Life | None] = contextvars.ContextVar("life", default=None)

    def __init__(self, name: str) -> None:
        self.name = name
        self.alive = True
        self.context = contextvars.copy_context()
        self.context.run(Life.current.set, self)
        self.tasks: list[asyncio.Task[Any]] = []

    def guard(self, callback: Callable[..., object], *args: object) -> None:
        if self.alive:
            callback(*args)

    def call(self, function: Callable[..., T], *args: object) -> T:
        """Run something synchronous as this process; what it schedules belongs to it."""
        return self.context.copy().run(function, *args)

    def spawn(self, coroutine: Coroutine[Any, Any, T]) -> asyncio.Task[T]:
        """Run a coroutine as this process."""
        return asyncio.get_running_loop().create_task(coroutine, context=self.context)

    def die(self) -> None:
        self.alive = False

    def bury(self) -> None:
        """Close what the dead process left suspended, after everything is over: nothing of it runs on."""
        for task in self.tasks:
            if not task.done():
                # The C task has no public way to say that being destroyed is meant.
                task._log_destroy_pending = False  # type: ignore[attr-defined]
        self.tasks.clear()


class _JumpingSelector(selectors.BaseSelector):
    """Never waits: told to, it moves the loop's clock instead. The loop's own wake-up socket is all it holds."""

    def __init__(self) -> None:
        self._keys: dict[int, selectors.SelectorKey] = {}
        self.now = 0.0

    def register(self, fileobj: int, events: int, data: Any = None) -> selectors.SelectorKey:  # type: ignore[override]
        key = self._keys[fileobj] = selectors.SelectorKey(fileobj, fileobj, events, data)
        return key

    def unregister(self, fileobj: int) -> selectors.SelectorKey:  # type: ignore[override]
        return self._keys.pop(fileobj)

    def get_map(self) -> dict[int, selectors.SelectorKey]:  # type: ignore[override]
        return self._keys

    def get_key(self, fileobj: int) -> selectors.SelectorKey:  # type: ignore[override]
        return self._keys[fileobj]

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            raise Stuck("nothing is runnable and no timer is pending")
        if timeout > 0:
            self.now += timeout
        return []


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop that takes no real time."""

    def __init__(self) -> None:
        self._jumping = _JumpingSelector()
        super().__init__(self._jumping)

    def time(self) -> float:
        return self._jumping.now

    def call_soon(self, callback: Callable[..., object], *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        life = Life.current.get() if context is None else context.get(Life.current)
        if life is None:
            return super().call_soon(callback, *args, context=context)
        return super().call_soon(life.guard, callback, *args, context=context)

    def call_at(  # type: ignore[override]
        self, when: float, callback: Callable[..., object], *args: Any, context: Any = None
    ) -> asyncio.TimerHandle:
        life = Life.current.get() if context is None else context.get(Life.current)
        if life is None:
            return super().call_at(when, callback, *args, context=context)
        return super().call_at(when, life.guard, callback, *args, context=context)

    def create_task(self, coro: Any, *, name: str | None = None, context: Any = None) -> asyncio.Task[Any]:  # type: ignore[override]
        task = super().create_task(coro, name=name, context=context)
        life = Life.current.get() if context is None else context.get(Life.current)
        if life is not None:
            life.tasks.append(task)
        return task


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end in virtual time.

    Not asyncio.run: that would wait for the tasks of dead processes, which never end."""
    loop = VirtualLoop()
    try:
        return loop.run_until_complete(main)
    finally:
        loop.close()

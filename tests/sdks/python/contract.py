"""The contract of ../README.md on the official Python SDK."""

from __future__ import annotations

from collections import Counter as Tally
from datetime import timedelta
from typing import Any, TypedDict

import restate
from restate import TerminalError

ATTEMPTS: Tally[str] = Tally()

basics = restate.Service("Basics")
runs = restate.Service("Runs")
calls = restate.Service("Calls")
mailbox = restate.VirtualObject("Mailbox")
waits = restate.Service("Waits")
combine = restate.Service("Combine")
flow = restate.Workflow("Flow")


class Letter(TypedDict):
    id: str
    text: str


@basics.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    return f"Hello, {name}!"


@basics.handler()
async def header(ctx: restate.Context) -> str | None:
    return ctx.request().headers.get("x-color")


@basics.handler()
async def fail(ctx: restate.Context, message: str) -> str:
    raise TerminalError(message, 418, metadata={"pot": "small"})


@basics.handler()
async def chance(ctx: restate.Context) -> list[str]:
    """What this attempt drew, and what the first one drew."""
    drawn = f"{ctx.uuid()} {ctx.random().randint(0, 1 << 30)}"
    recorded = await ctx.run_typed("draw", lambda: drawn)
    await ctx.sleep(timedelta(milliseconds=1))
    return [drawn, recorded]


@basics.handler()
async def nap(ctx: restate.Context, millis: int) -> str:
    await ctx.sleep(timedelta(milliseconds=millis))
    return "rested"


@runs.handler()
async def value(ctx: restate.Context, number: int) -> int:
    return await ctx.run_typed("double", lambda: number * 2)


@runs.handler()
async def refused(ctx: restate.Context) -> str:
    def refuse() -> str:
        raise TerminalError("not today", 422)

    return await ctx.run_typed("refuse", refuse)


@runs.handler()
async def retried(ctx: restate.Context, name: str) -> int:
    """Works the third time; how often it was tried."""

    def flaky() -> int:
        ATTEMPTS[name] += 1
        if ATTEMPTS[name] < 3:
            raise RuntimeError("not yet")
        return ATTEMPTS[name]

    return await ctx.run_typed("flaky", flaky, restate.RunOptions(initial_retry_interval=timedelta(milliseconds=10)))


@runs.handler()
async def exhausted(ctx: restate.Context, name: str) -> str:
    """Never works; what is said after two attempts."""

    def broken() -> str:
        ATTEMPTS[name] += 1
        raise RuntimeError("broken")

    options = restate.RunOptions[str](max_attempts=2, initial_retry_interval=timedelta(milliseconds=10))
    try:
        return await ctx.run_typed("broken", broken, options)
    except TerminalError:
        return f"gave up after {ATTEMPTS[name]}"


def counter_of(name: str, lazy: bool) -> restate.VirtualObject:
    counter = restate.VirtualObject(name, enable_lazy_state=lazy)

    @counter.handler()
    async def add(ctx: restate.ObjectContext, amount: int) -> int:
        count = (await ctx.get("count", type_hint=int) or 0) + amount
        ctx.set("count", count)
        return count

    @counter.handler(kind="shared")
    async def get(ctx: restate.ObjectSharedContext) -> int:
        return await ctx.get("count", type_hint=int) or 0

    @counter.handler(kind="shared")
    async def keys(ctx: restate.ObjectSharedContext) -> list[str]:
        return sorted(await ctx.state_keys())

    @counter.handler()
    async def note(ctx: restate.ObjectContext, text: str) -> None:
        ctx.set("note", text)

    @counter.handler()
    async def clear(ctx: restate.ObjectContext) -> None:
        ctx.clear("count")

    @counter.handler(name="clearAll")
    async def clear_all(ctx: restate.ObjectContext) -> None:
        ctx.clear_all()

    @counter.handler()
    async def spoil(ctx: restate.ObjectContext, count: int) -> None:
        """Fails after its change: a failed handler is not a transaction that is rolled back."""
        ctx.set("count", count)
        raise TerminalError("spoilt", 400)

    return counter


counter = counter_of("Counter", lazy=False)
lazy_counter = counter_of("LazyCounter", lazy=True)


@calls.handler()
async def call(ctx: restate.Context, name: str) -> str:
    return await ctx.service_call(greet, arg=name)


@calls.handler()
async def failing(ctx: restate.Context, message: str) -> dict[str, Any]:
    try:
        await ctx.service_call(fail, arg=message)
    except TerminalError as error:
        return {"code": error.status_code, "message": error.message, "metadata": error.metadata}
    raise TerminalError("the call did not fail")


@calls.handler(name="header")
async def header_of_call(ctx: restate.Context, color: str) -> str | None:
    return await ctx.service_call(header, arg=None, headers={"x-color": color})


@calls.handler()
async def send(ctx: restate.Context, key: str) -> str:
    handle = ctx.generic_send("Counter", "add", b"1", key=key)
    return await handle.invocation_id()


@calls.handler(name="sendLater")
async def send_later(ctx: restate.Context, key: str) -> list[str]:
    """Twice with one idempotency key: one invocation."""
    delay = timedelta(milliseconds=50)
    handles = [
        ctx.generic_send("Counter", "add", b"1", key=key, send_delay=delay, idempotency_key="once") for _ in range(2)
    ]
    return [await handle.invocation_id() for handle in handles]


@calls.handler()
async def identified(ctx: restate.Context, name: str) -> list[str]:
    future = ctx.service_call(greet, arg=name, idempotency_key=name)
    return [await future.invocation_id(), await future]


@calls.handler()
async def attach(ctx: restate.Context, invocation: str) -> str:
    return await ctx.attach_invocation(invocation, type_hint=str)


@calls.handler()
async def cancel(ctx: restate.Context, invocation: str) -> None:
    ctx.cancel_invocation(invocation)


@mailbox.handler()
async def wait(ctx: restate.ObjectContext) -> str:
    address, letter = ctx.awakeable(type_hint=str)
    ctx.set("address", address)
    try:
        return await letter
    except TerminalError as error:
        return f"rejected: {error.message}"


@mailbox.handler(kind="shared")
async def address(ctx: restate.ObjectSharedContext) -> str | None:
    return await ctx.get("address", type_hint=str)


@waits.handler()
async def resolve(ctx: restate.Context, letter: Letter) -> None:
    ctx.resolve_awakeable(letter["id"], letter["text"])


@waits.handler()
async def reject(ctx: restate.Context, letter: Letter) -> None:
    ctx.reject_awakeable(letter["id"], letter["text"])


@waits.handler()
async def signal(ctx: restate.Context) -> str:
    try:
        return await ctx.signal("go", type_hint=str)
    except TerminalError as error:
        return f"rejected: {error.message}"


@waits.handler(name="sendSignal")
async def send_signal(ctx: restate.Context, letter: Letter) -> None:
    ctx.resolve_signal(letter["id"], "go", letter["text"])


@waits.handler(name="rejectSignal")
async def reject_signal(ctx: restate.Context, letter: Letter) -> None:
    ctx.reject_signal(letter["id"], "go", letter["text"])


@waits.handler()
async def forever(ctx: restate.Context, key: str) -> str:
    """Counts its cancellation, as a compensation would be done."""
    try:
        return await ctx.awakeable(type_hint=str)[1]
    except TerminalError:
        ctx.generic_send("Counter", "add", b"1", key=key)
        raise


@waits.handler()
async def parent(ctx: restate.Context, key: str) -> str:
    return await ctx.service_call(forever, arg=key)


@combine.handler(name="all")
async def all_of(ctx: restate.Context, names: list[str]) -> list[str]:
    futures = [ctx.service_call(greet, arg=name) for name in names]
    return [await future for future in await restate.gather(*futures)]


@combine.handler()
async def race(ctx: restate.Context, name: str) -> str:
    winner, result = await restate.select(
        sleep=ctx.sleep(timedelta(hours=1)), greeting=ctx.service_call(greet, arg=name)
    )
    return result if winner == "greeting" else "overslept"


@combine.handler()
async def timeout(ctx: restate.Context) -> str:
    winner, _ = await restate.select(
        letter=ctx.awakeable(type_hint=str)[1], sleep=ctx.sleep(timedelta(milliseconds=10))
    )
    return "timed out" if winner == "sleep" else "a letter"


@combine.handler(name="any")
async def any_of(ctx: restate.Context, name: str) -> str:
    """The first that succeeds."""
    async for future in restate.as_completed(ctx.service_call(fail, arg=name), ctx.service_call(greet, arg=name)):
        try:
            return str(await future)
        except TerminalError:
            continue
    raise TerminalError("nothing succeeded")


@flow.main()
async def run(ctx: restate.WorkflowContext, item: str) -> str:
    ctx.set("status", "waiting")
    try:
        approval = await ctx.promise("approval", type_hint=str).value()
    except TerminalError as error:
        approval = f"refused, {error.message}"
    ctx.set("status", "done")
    return f"{item}: {approval}"


@flow.handler()
async def status(ctx: restate.WorkflowSharedContext) -> str | None:
    return await ctx.get("status", type_hint=str)


@flow.handler()
async def approve(ctx: restate.WorkflowSharedContext, text: str) -> None:
    await ctx.promise("approval", type_hint=str).resolve(text)


@flow.handler()
async def refuse(ctx: restate.WorkflowSharedContext, reason: str) -> None:
    await ctx.promise("approval", type_hint=str).reject(reason)


@flow.handler()
async def peek(ctx: restate.WorkflowSharedContext) -> str | None:
    return await ctx.promise("approval", type_hint=str).peek()


@flow.handler(name="wait")
async def wait_beside(ctx: restate.WorkflowSharedContext) -> str:
    return await ctx.promise("approval", type_hint=str).value()


app = restate.app([basics, runs, counter, lazy_counter, calls, mailbox, waits, combine, flow])

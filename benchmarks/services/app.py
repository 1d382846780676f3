"""The workloads on the official Python SDK: no step, one object's state, three recorded steps; and a long sleep."""

from __future__ import annotations

from datetime import timedelta

import restate

greeter = restate.Service("Greeter")
counter = restate.VirtualObject("Counter")
steps = restate.Service("Steps")
# Suspended as soon as it waits: a hundred thousand of them shall not take turns in a thousand slots.
sleeper = restate.Service("Sleeper", inactivity_timeout=timedelta(0))


@greeter.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    return f"Hello {name}"


@counter.handler()
async def add(ctx: restate.ObjectContext, amount: int) -> int:
    count = (await ctx.get("count", type_hint=int) or 0) + amount
    ctx.set("count", count)
    return count


@steps.handler()
async def three(ctx: restate.Context, name: str) -> str:
    for number in range(3):
        name = await ctx.run_typed(f"step {number}", lambda name=name: name + ".")
    return name


@sleeper.handler()
async def sleep(ctx: restate.Context, seconds: int) -> None:
    await ctx.sleep(timedelta(seconds=seconds))


app = restate.app([greeter, counter, steps, sleeper])

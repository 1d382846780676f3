"""Services with an invocation in every state, for the command lines to look at (official Python SDK)."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import restate

work = restate.Service("Work")
shelf = restate.VirtualObject("Shelf")
order = restate.Workflow("Order")


@work.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    return f"hi {name}"


@work.handler()
async def refuse(ctx: restate.Context) -> str:
    raise restate.TerminalError("no way", 422)


@work.handler()
async def fail(ctx: restate.Context) -> str:
    await ctx.run_typed("step", lambda: "done")
    raise RuntimeError("boom")


@work.handler()
async def wait(ctx: restate.Context) -> str:
    _, value = ctx.awakeable()
    return await value


@work.handler()
async def nap(ctx: restate.Context) -> None:
    await ctx.sleep(timedelta(hours=1))


@work.handler()
async def parent(ctx: restate.Context) -> str:
    return await ctx.service_call(wait, arg=None)


@shelf.handler()
async def hold(ctx: restate.ObjectContext) -> None:
    await asyncio.sleep(3600)


@shelf.handler()
async def put(ctx: restate.ObjectContext, amount: int) -> int:
    ctx.set("amount", amount)
    return amount


@order.main()
async def run(ctx: restate.WorkflowContext, item: str) -> str:
    return await ctx.promise("paid").value()


@order.handler()
async def pay(ctx: restate.WorkflowSharedContext, how: str) -> None:
    await ctx.promise("paid").resolve(how)


app = restate.app([work, shelf, order])

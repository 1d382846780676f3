"""What both servers serve while they are compared: handlers of the official Python SDK that end in every way."""

from __future__ import annotations

import asyncio

import restate

plain = restate.Service("Plain")
thing = restate.VirtualObject("Thing")
flow = restate.Workflow("Flow")
hidden = restate.Service("Hidden", ingress_private=True)


@plain.handler()
async def greet(ctx: restate.Context, name: str) -> str:
    return f"hi {name}"


@plain.handler()
async def nothing(ctx: restate.Context) -> None:
    return None


@plain.handler()
async def busy(ctx: restate.Context) -> None:
    """Runs, after a recorded step, for as long as it is let."""
    await ctx.run_typed("one", lambda: "x")
    await asyncio.Event().wait()


@plain.handler()
async def fails(ctx: restate.Context) -> None:
    """Fails for now, after a recorded step, each time."""
    await ctx.run_typed("one", lambda: "x")
    raise RuntimeError("boom")


@plain.handler()
async def terminal(ctx: restate.Context) -> None:
    raise restate.TerminalError("no way", 422)


@thing.handler()
async def hold(ctx: restate.ObjectContext) -> None:
    await asyncio.Event().wait()


@thing.handler()
async def add(ctx: restate.ObjectContext, amount: int) -> int:
    total = (await ctx.get("total", type_hint=int) or 0) + amount
    ctx.set("total", total)
    return total


@flow.main()
async def run(ctx: restate.WorkflowContext, start: str) -> str:
    return await ctx.promise("go", type_hint=str).value()


@flow.handler()
async def go(ctx: restate.WorkflowSharedContext, value: str) -> None:
    await ctx.promise("go", type_hint=str).resolve(value)


@hidden.handler(name="greet")
async def hidden_greet(ctx: restate.Context, name: str) -> str:
    return name


app = restate.app([plain, thing, flow, hidden])

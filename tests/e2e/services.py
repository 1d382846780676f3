"""What the kill test runs: ordinary services on the official Python SDK, with witnesses outside of the server.

Every handler and every closure writes lines to WITNESS before and after, so that the test can say what really ran:

    begin CALL ATTEMPT           a handler started (again)
    ran   CALL ATTEMPT           the closure of ctx.run ran, as part of that attempt
    saw   CALL ATTEMPT RESULT    the handler was given RESULT, so it is recorded; RESULT names the attempt that ran it
"""

from __future__ import annotations

import os
import uuid
from pathlib import Path
from typing import TypedDict

import restate

WITNESS = Path(os.environ["WITNESS"])

counter = restate.VirtualObject("KillCounter")
transfer = restate.Service("KillTransfer")
step = restate.VirtualObject("KillStep")


class Transfer(TypedDict):
    first: str
    second: str


def note(*words: str) -> None:
    """One line with one write: a killed process leaves whole lines, and their order is that of the writes."""
    descriptor = os.open(WITNESS, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(descriptor, (" ".join(words) + "\n").encode())
    finally:
        os.close(descriptor)


@counter.handler()
async def add(ctx: restate.ObjectContext, amount: int) -> int:
    count = (await ctx.get("count", type_hint=int) or 0) + amount
    ctx.set("count", count)
    return count


@counter.handler(kind="shared")
async def read(ctx: restate.ObjectSharedContext) -> int:
    return await ctx.get("count", type_hint=int) or 0


@transfer.handler(name="both")
async def both(ctx: restate.Context, keys: Transfer) -> list[int]:
    """Two nested calls, one after the other; each adds one."""
    first = await ctx.object_call(add, key=keys["first"], arg=1)
    second = await ctx.object_call(add, key=keys["second"], arg=1)
    return [first, second]


@step.handler(name="once")
async def once(ctx: restate.ObjectContext, call: str) -> str:
    """A recorded step between two nested calls, so that it is replayed often."""
    attempt = uuid.uuid4().hex[:8]
    note("begin", call, attempt)

    def closure() -> str:
        note("ran", call, attempt)
        return attempt

    recorded = await ctx.run_typed("once", closure)
    note("saw", call, attempt, recorded)
    await ctx.object_call(add, key=f"{ctx.key()}-steps", arg=1)
    return recorded


app = restate.app([counter, transfer, step])

"""What the kill test runs: ordinary services on the official Python SDK, with witnesses outside of the server.

Every handler and every closure writes lines to WITNESS before and after, so that the test can say what really ran:

    begin CALL ATTEMPT           a handler started (again)
    ran   STEP ATTEMPT           the closure of ctx.run ran, as part of that attempt
    saw   STEP ATTEMPT RESULT    the handler was given RESULT, so it is recorded
    gave  CALL ATTEMPT ID        an awakeable was handed to the outside, which completes it

A step is named after its call: the only one of a call like the call, others CALL-book, CALL-undo.
"""

from __future__ import annotations

import os
import uuid
from datetime import timedelta
from pathlib import Path
from typing import TypedDict

import restate

WITNESS = Path(os.environ["WITNESS"])

counter = restate.VirtualObject("KillCounter")
transfer = restate.Service("KillTransfer")
step = restate.VirtualObject("KillStep")
wait = restate.Service("KillWait")
flow = restate.Workflow("KillFlow")
trip = restate.Service("KillTrip")

# A trip of a guide lasts until it is cancelled, longer than any test.
FOREVER_MS = 3_600_000


class Transfer(TypedDict):
    first: str
    second: str


class Deep(TypedDict):
    key: str
    depth: int


class Race(TypedDict):
    call: str
    sleep_ms: int


class Completion(TypedDict):
    awakeable: str
    value: str


class Trip(TypedDict):
    call: str
    rest_ms: int


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


@transfer.handler(name="deep")
async def deep(ctx: restate.Context, below: Deep) -> int:
    """Calls itself some levels down; the last one adds."""
    if below["depth"] == 0:
        return await ctx.object_call(add, key=below["key"], arg=1)
    return await ctx.service_call(deep, arg=Deep(key=below["key"], depth=below["depth"] - 1))


@transfer.handler(name="later")
async def later(ctx: restate.Context, key: str) -> str:
    """One add now and one later, and nobody waits for them."""
    ctx.object_send(add, key=key, arg=1)
    ctx.object_send(add, key=key, arg=1, send_delay=timedelta(milliseconds=150))
    return "sent"


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


async def recorded_step(ctx: restate.Context, name: str, attempt: str) -> str:
    """A step whose result names the attempt that ran it, with all that the witness wants to know."""

    def closure() -> str:
        note("ran", name, attempt)
        return attempt

    result = await ctx.run_typed(name, closure)
    note("saw", name, attempt, result)
    return result


# -- waiting -------------------------------------------------------------------------------------------------
@wait.handler(name="nap")
async def nap(ctx: restate.Context, call: str) -> str:
    for _ in range(2):
        await ctx.sleep(timedelta(milliseconds=40))
    return call


@wait.handler(name="join")
async def join(ctx: restate.Context, call: str) -> str:
    """Sends, and attaches to what it sent."""
    sent = ctx.service_send(nap, arg=call)
    answer: str = await ctx.attach_invocation(await sent.invocation_id(), type_hint=str)
    return answer


@wait.handler(name="outside")
async def outside(ctx: restate.Context, call: str) -> str:
    """Hands out an awakeable; the outside completes it more than once."""
    attempt = uuid.uuid4().hex[:8]
    awakeable, completed = ctx.awakeable(type_hint=str)
    await ctx.run_typed("give", lambda: note("gave", call, attempt, awakeable))
    value: str = await completed
    note("saw", call, attempt, value)
    return value


@wait.handler(name="inside")
async def inside(ctx: restate.Context, call: str) -> str:
    """Another handler completes the awakeable."""
    awakeable, completed = ctx.awakeable(type_hint=str)
    ctx.service_send(complete, arg=Completion(awakeable=awakeable, value=call))
    value: str = await completed
    return value


@wait.handler(name="complete")
async def complete(ctx: restate.Context, completion: Completion) -> None:
    ctx.resolve_awakeable(completion["awakeable"], completion["value"])


@wait.handler(name="race")
async def race(ctx: restate.Context, wanted: Race) -> str:
    """The outside against the clock, at about the same time: whoever wins has won in every replay."""
    call, attempt = wanted["call"], uuid.uuid4().hex[:8]
    awakeable, completed = ctx.awakeable(type_hint=str)
    await ctx.run_typed("give", lambda: note("gave", call, attempt, awakeable))
    match await restate.select(outside=completed, clock=ctx.sleep(timedelta(milliseconds=wanted["sleep_ms"]))):
        case ["outside", _]:
            winner = "outside"
        case _:
            winner = "clock"
    recorded = await ctx.run_typed("winner", lambda: winner)
    note("saw", call, attempt, f"{winner}={recorded}")
    return recorded


# -- a workflow ----------------------------------------------------------------------------------------------
@flow.main()
async def run(ctx: restate.WorkflowContext, call: str) -> str:
    attempt = uuid.uuid4().hex[:8]
    note("begin", call, attempt)
    await recorded_step(ctx, call, attempt)
    approver = await ctx.promise("approved", type_hint=str).value()
    note("saw", f"{call}-approved", attempt, approver)
    await ctx.sleep(timedelta(milliseconds=20))
    return approver


@flow.handler(name="approve")
async def approve(ctx: restate.WorkflowSharedContext, approver: str) -> bool:
    """Whether this one was first."""
    try:
        await ctx.promise("approved", type_hint=str).resolve(approver)
    except restate.TerminalError:
        return False
    return True


# -- what is cancelled ---------------------------------------------------------------------------------------
@trip.handler(name="go")
async def go(ctx: restate.Context, wanted: Trip) -> str:
    """Books, rests, and takes the booking back if it is cancelled meanwhile."""
    call, attempt = wanted["call"], uuid.uuid4().hex[:8]
    note("begin", call, attempt)
    await recorded_step(ctx, f"{call}-book", attempt)
    try:
        await ctx.sleep(timedelta(milliseconds=wanted["rest_ms"]))
    except restate.TerminalError:
        await recorded_step(ctx, f"{call}-undo", attempt)
        raise restate.TerminalError("taken back", status_code=409) from None
    note("saw", f"{call}-end", attempt, "done")
    return "done"


@trip.handler(name="lead")
async def lead(ctx: restate.Context, call: str) -> str:
    """Waits for a trip that ends only if the cancellation of this one reaches it."""
    return await ctx.service_call(go, arg=Trip(call=call, rest_ms=FOREVER_MS))


@trip.handler(name="cancel")
async def cancel(ctx: restate.Context, invocation_id: str) -> str:
    ctx.cancel_invocation(invocation_id)
    return "cancelled"


app = restate.app([counter, transfer, step, wait, flow, trip])

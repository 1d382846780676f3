"""Services under simulation whose handlers wait for others: by signals, promises, attached calls, cancellations."""

from __future__ import annotations

import json

from perdure.protocol import ids
from simulation.context import Context, Handler, Program, Terminal

# Longer than it takes a node to ask again for an answer that was lost.
SETTLES_MS = 1_300


# -- Waiter: awakeables and signals, completed from outside or by another handler -----------------------------
def waiter_outside(context: Context, argument: bytes) -> Program:
    awakeable_id, handle = context.awakeable()

    def give_away() -> bytes:
        context.world.give_away(argument, awakeable_id)
        return b""

    yield from context.wait(context.run("give away", give_away))
    return (yield from context.wait(handle))


def waiter_inside(context: Context, argument: bytes) -> Program:
    awakeable_id, handle = context.awakeable()
    context.send("Completer", "", "resolve", json.dumps([awakeable_id, argument.decode()]).encode())
    return (yield from context.wait(handle))


def waiter_signal(context: Context, argument: bytes) -> Program:
    own_id = ids.encode_invocation_id(context.id)
    context.send("Completer", "", "signal", json.dumps([own_id, argument.decode()]).encode())
    return (yield from context.wait(context.signal("go")))


def waiter_race(context: Context, argument: bytes) -> Program:
    """The outside against the clock; a replay that sees another winner asks for another run, and is found out."""
    awakeable_id, handle = context.awakeable()

    def give_away() -> bytes:
        context.world.give_away(argument, awakeable_id)
        return b""

    yield from context.wait(context.run("give away", give_away))
    winner = "outside" if (yield from context.first(handle, context.sleep(60))) == handle else "clock"
    return (yield from context.wait(context.run(winner, winner.encode)))


def completer_resolve(context: Context, argument: bytes) -> Program:
    awakeable_id, value = json.loads(argument)
    context.resolve(awakeable_id, value.encode())
    return b""
    yield  # a generator that never waits


def completer_signal(context: Context, argument: bytes) -> Program:
    target, value = json.loads(argument)
    context.send_signal(target, "go", value.encode())
    return b""
    yield  # a generator that never waits


def completer_cancel(context: Context, argument: bytes) -> Program:
    context.cancel(argument.decode())
    return b""
    yield  # a generator that never waits


# -- Joiner and Parrot: calls that are sent, and attached to --------------------------------------------------
def joiner_join(context: Context, argument: bytes) -> Program:
    """Attaches to what it sent, and looks for its output before and after the end."""
    sent = yield from context.wait(context.send("Runner", "", "steps", argument, idempotency_key=argument.decode()))
    target = sent.decode()
    early, attached = context.output(target), context.attach(target)
    before = yield from context.wait(early)
    value = yield from context.wait(attached)
    after = yield from context.wait(context.output(target))
    context.world.checker.expect(before in (b"", value), f"an output was {before!r}, then {value!r}")
    context.world.checker.expect(after == value, f"attached to {value!r}, the output is {after!r}")
    return value


def parrot_say(context: Context, argument: bytes) -> Program:
    """Attaches to a slow one and does not always wait: as Echo, with an attached call for a call."""
    mark = yield from context.wait(context.run("mark", context.world.unique))
    sent = yield from context.wait(context.send("Slow", "", "repeat", mark, idempotency_key=mark.decode()))
    attached, pause = context.attach(sent.decode()), context.sleep(30)
    if (yield from context.first(attached, pause)) == attached:
        answer = yield from context.wait(attached)
        expect = context.world.checker.expect
        expect(answer == mark, f"an attached call of another life was answered: {answer!r} for {mark!r}")
    return argument


# -- Deal and Brief: workflows that wait for a promise --------------------------------------------------------
def deal_run(context: Context, _: bytes) -> Program:
    signature = yield from context.wait(context.promise("signed"))
    context.set("stage", b"signed")
    noted = yield from context.wait(context.run("note", lambda: signature))
    yield from context.wait(context.complete_promise("closed", noted))
    return noted


def deal_sign(context: Context, argument: bytes) -> Program:
    try:
        yield from context.wait(context.complete_promise("signed", argument))
    except Terminal as failure:
        context.world.checker.expect(failure.code == 409, f"a promise refused its value: {failure.code} {failure}")
        return b"late"
    return b"first"


def deal_watch(context: Context, _: bytes) -> Program:
    signed, closed = yield from context.all(context.promise("signed"), context.promise("closed"))
    context.world.checker.expect(signed == closed, f"signed as {signed!r}, closed as {closed!r}")
    return signed


def deal_peek(context: Context, _: bytes) -> Program:
    return (yield from context.wait(context.peek_promise("signed")))


# -- Trip, Guide, Keeper and Mayfly: what is cancelled, killed and paused -------------------------------------
def trip_go(context: Context, argument: bytes) -> Program:
    """Books, rests, and takes the booking back when it is cancelled; cancelled once more it gives up."""
    yield from context.wait(context.run("book", lambda: b"booked"))
    rest = context.sleep(int(argument))
    if (yield from context.first(rest, context.cancelled)) == rest:
        return b"done"
    yield from context.wait(context.cancelled)
    undo = context.run("undo", lambda: b"undone")
    if (yield from context.first(undo, context.cancelled)) != undo:
        raise Terminal(409, "given up")
    settled = context.sleep(SETTLES_MS)
    if (yield from context.first(settled, context.cancelled)) != settled:
        raise Terminal(409, "given up")
    raise Terminal(409, "taken back")


def guide_lead(context: Context, argument: bytes) -> Program:
    """Two trips one after the other, on keys that others want too."""
    key, rest = json.loads(argument)
    for _ in range(2):
        yield from context.wait(context.call("Trip", key, "go", b"%d" % rest))
    return b"done"


def guide_mind(context: Context, argument: bytes) -> Program:
    """One trip, which is called off when this is cancelled, and waited for nevertheless."""
    key, rest = json.loads(argument)
    trip = context.call("Trip", key, "go", b"%d" % rest)
    if (yield from context.first(trip, context.cancelled)) == trip:
        return (yield from context.wait(trip))
    callee = yield from context.wait(context.callee(trip))
    context.cancel(callee.decode())
    try:
        end = (yield from context.wait(trip)).decode()
    except Terminal as failure:
        end = str(failure)
    raise Terminal(409, f"called off after {end}")


def keeper_keep(context: Context, argument: bytes) -> Program:
    key, rest = json.loads(argument)
    argument = json.dumps([key, rest]).encode()
    return (yield from context.wait(context.call("Mayfly", "", "live", argument, idempotency_key=key)))


def mayfly_live(context: Context, argument: bytes) -> Program:
    """Nothing is kept of it: the same key names another life as soon as it has ended."""
    key, rest = json.loads(argument)
    context.world.mayflies.setdefault(key, context.world.loop.time() + rest / 1000)
    yield from context.wait(context.sleep(rest))
    return b"lived"


HANDLERS: dict[tuple[str, str], Handler] = {
    ("Waiter", "outside"): waiter_outside,
    ("Waiter", "inside"): waiter_inside,
    ("Waiter", "signal"): waiter_signal,
    ("Waiter", "race"): waiter_race,
    ("Completer", "resolve"): completer_resolve,
    ("Completer", "signal"): completer_signal,
    ("Completer", "cancel"): completer_cancel,
    ("Joiner", "join"): joiner_join,
    ("Parrot", "say"): parrot_say,
    ("Deal", "run"): deal_run,
    ("Deal", "sign"): deal_sign,
    ("Deal", "watch"): deal_watch,
    ("Deal", "peek"): deal_peek,
    ("Brief", "run"): deal_run,
    ("Brief", "sign"): deal_sign,
    ("Trip", "go"): trip_go,
    ("Guide", "lead"): guide_lead,
    ("Guide", "mind"): guide_mind,
    ("Keeper", "keep"): keeper_keep,
    ("Mayfly", "live"): mayfly_live,
}

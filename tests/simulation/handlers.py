"""The services under simulation: small programs that count, move, wait and ask others."""

from __future__ import annotations

import json

from perdure_processor.model.registration import (
    HandlerKind,
    Options,
    RegisteredHandler,
    RegisteredService,
    ServiceKind,
)
from simulation import handlers_waiting
from simulation.context import Context, Handler, Program, Terminal

# Longer than any client goes on asking under one idempotency key, so that the key still names the same run.
KEPT_MS = 600_000
# Short enough to expire, and to be used again, while things go wrong.
BRIEF_MS = 1_500
INACTIVITY_MS = 1_200
ABORT_MS = 1_500


def number(value: bytes | None) -> int:
    return int(value) if value else 0


# -- Counter: a virtual object ------------------------------------------------------------------------------
def counter_add(context: Context, argument: bytes) -> Program:
    total = number((yield from context.get("total"))) + int(argument)
    context.set("total", b"%d" % total)
    return b"%d" % total


def counter_add_slowly(context: Context, argument: bytes) -> Program:
    """Reads, waits, writes: a second writer in between would lose an update."""
    total = number((yield from context.get("total")))
    yield from context.wait(context.sleep(150))
    context.set("total", b"%d" % (total + int(argument)))
    written = number((yield from context.get("total")))
    context.world.checker.expect(written == total + int(argument), "a handler does not read its own write")
    return b"%d" % written


def counter_get(context: Context, _: bytes) -> Program:
    return b"%d" % number((yield from context.get("total")))


# -- Notes: several state keys of one object ------------------------------------------------------------------
def notes_write(context: Context, argument: bytes) -> Program:
    generation = number((yield from context.get("generation"))) + 1
    expect = context.world.checker.expect
    for name in ("a", "b", "c"):
        found = yield from context.get(name)
        expect(found in (None, b"%s%d" % (name.encode(), generation - 1)), f"state {name} is of another generation")
    if generation % 3 == 0:
        context.clear_all()
        expect((yield from context.keys()) == [], "cleared state has keys")
    else:
        context.clear("b")
    for name in ("a", "b", "c")[: 1 + generation % 3]:
        context.set(name, b"%s%d" % (name.encode(), generation))
    for name in ("a", "b", "c")[1 + generation % 3 :]:
        context.clear(name)
    context.set("generation", b"%d" % generation)
    yield from context.wait(context.run("note", lambda: argument))
    names = yield from context.keys()
    wanted = sorted([*("a", "b", "c")[: 1 + generation % 3], "generation"])
    expect(names == wanted, f"state keys are {names}, {wanted} were set")
    return json.dumps(names).encode()


# -- Account and Bank: calls across objects and partitions ----------------------------------------------------
def account_change(context: Context, argument: bytes) -> Program:
    balance = number((yield from context.get("balance"))) + int(argument)
    if balance < -1000:
        raise Terminal(409, "overdrawn")
    context.set("balance", b"%d" % balance)
    return b"%d" % balance


def bank_transfer(context: Context, argument: bytes) -> Program:
    """The transfer's note is written once, then one account after the other."""
    source, target, amount = json.loads(argument)
    yield from context.wait(context.run("note", lambda: argument))
    yield from context.wait(context.call("Account", source, "change", b"%d" % -amount))
    yield from context.wait(context.call("Account", target, "change", b"%d" % amount))
    return b"moved"


def bank_spread(context: Context, argument: bytes) -> Program:
    """Calls made at once, answered in any order."""
    keys = json.loads(argument)
    calls = [context.call("Account", key, "change", b"0") for key in keys]
    yield from context.all(*calls)
    return b"%d" % len(keys)


# -- Chain: an object that holds its own key while it waits for the next one's --------------------------------
def chain_pass(context: Context, argument: bytes) -> Program:
    depth = int(argument)
    count = number((yield from context.get("count"))) + 1
    below = b""
    if depth > 1:
        # Keys only grow along the chain, so that two chains never wait for each other.
        below = yield from context.wait(
            context.call("Chain", f"{int(context.key) + 1:04d}", "pass", b"%d" % (depth - 1))
        )
    context.set("count", b"%d" % count)
    return below + b"."


# -- Runner: closures that touch the outside ------------------------------------------------------------------
def runner_steps(context: Context, argument: bytes) -> Program:
    done = []
    for step in range(3):
        done.append(
            (yield from context.wait(context.run(f"step {step}", lambda step=step: b"%s-%d" % (argument, step))))
        )
    return b",".join(done)


def runner_together(context: Context, argument: bytes) -> Program:
    runs = [context.run(f"part {part}", lambda part=part: b"%s-%d" % (argument, part)) for part in range(3)]
    done = yield from context.all(*runs)
    return b",".join(done)


def runner_refused(context: Context, argument: bytes) -> Program:
    def refuse() -> bytes:
        raise Terminal(422, "no: " + argument.decode())

    try:
        yield from context.wait(context.run("refused", refuse))
    except Terminal as failure:
        yield from context.wait(context.run("undo", lambda: b"undone"))
        raise Terminal(422, f"undone after {failure}") from failure
    raise AssertionError("a refused run gave a value")


def runner_race(context: Context, argument: bytes) -> Program:
    """Two sleeps that end together, against a long one that is left open at the end."""
    short, twin, long = context.sleep(int(argument)), context.sleep(int(argument)), context.sleep(3_600_000)
    winner = yield from context.first(short, twin, long)
    context.world.checker.expect(winner != long, "an hour is over before a moment is")
    return b"woken"


def runner_large(context: Context, argument: bytes) -> Program:
    """More than a record holds: as input, as a run's result, and as output."""
    twice = yield from context.wait(context.run("twice", lambda: argument + argument))
    return twice


# -- Sender: one-way calls, now and later ---------------------------------------------------------------------
def sender_scatter(context: Context, argument: bytes) -> Program:
    """Adds one to several counters without waiting for any, and half of it later."""
    keys = json.loads(argument)
    for index, key in enumerate(keys):
        context.send("Counter", key, "add", b"1", delay_ms=500 if index % 2 else 0)
    return b"%d" % len(keys)
    yield  # a generator that never waits


# -- Flow: a workflow -----------------------------------------------------------------------------------------
def flow_run(context: Context, argument: bytes) -> Program:
    context.set("stage", b"begun")
    note = yield from context.wait(context.run("note", lambda: b"note of " + argument))
    yield from context.wait(context.sleep(200))
    yield from context.wait(context.call("Account", context.key, "change", b"7"))
    context.send("Account", context.key, "change", b"-7")
    context.set("stage", b"done")
    return note


def flow_stage(context: Context, _: bytes) -> Program:
    return (yield from context.get("stage")) or b"none"


# -- Echo: its results are forgotten quickly ------------------------------------------------------------------
def echo_say(context: Context, argument: bytes) -> Program:
    """Asks a slow one and does not always wait: the answer may come home to the next life of the same id."""
    mark = yield from context.wait(context.run("mark", context.world.unique))
    asked, pause = context.call("Slow", "", "repeat", mark), context.sleep(30)
    if (yield from context.first(asked, pause)) == asked:
        answer = yield from context.wait(asked)
        context.world.checker.expect(answer == mark, f"a call of another life was answered: {answer!r} for {mark!r}")
    return argument


def slow_repeat(context: Context, argument: bytes) -> Program:
    """Takes no time, or longer than Echo's results are kept."""
    yield from context.wait(context.sleep((0, BRIEF_MS, BRIEF_MS + 600)[int(argument) % 3]))
    return argument


HANDLERS: dict[tuple[str, str], Handler] = {
    ("Counter", "add"): counter_add,
    ("Counter", "add_slowly"): counter_add_slowly,
    ("Counter", "get"): counter_get,
    ("Notes", "write"): notes_write,
    ("Account", "change"): account_change,
    ("Bank", "transfer"): bank_transfer,
    ("Bank", "spread"): bank_spread,
    ("Chain", "pass"): chain_pass,
    ("Runner", "steps"): runner_steps,
    ("Runner", "together"): runner_together,
    ("Runner", "refused"): runner_refused,
    ("Runner", "race"): runner_race,
    ("Runner", "large"): runner_large,
    ("Sender", "scatter"): sender_scatter,
    ("Flow", "run"): flow_run,
    ("Flow", "stage"): flow_stage,
    ("Echo", "say"): echo_say,
    ("Slow", "repeat"): slow_repeat,
    ("Tally", "add"): counter_add,
    **handlers_waiting.HANDLERS,
}

OBJECTS = ("Counter", "Notes", "Account", "Chain", "Tally", "Trip")
WORKFLOWS = ("Flow", "Deal", "Brief")
_SHARED = {
    ("Counter", "get"),
    ("Flow", "stage"),
    *(("Deal", "sign"), ("Deal", "watch"), ("Deal", "peek"), ("Brief", "sign")),
}


def registered(service: str) -> RegisteredService:
    """The service as its deployment announces it."""
    if service in WORKFLOWS:
        kind = ServiceKind.WORKFLOW
    else:
        kind = ServiceKind.VIRTUAL_OBJECT if service in OBJECTS else ServiceKind.SERVICE
    kept_ms = {"Echo": BRIEF_MS, "Parrot": BRIEF_MS, "Tally": 0, "Mayfly": 0}.get(service, KEPT_MS)
    options = Options(
        public=True,
        inactivity_timeout_ms=INACTIVITY_MS,
        abort_timeout_ms=ABORT_MS,
        # Some keep no journal at all, Echo and Parrot as long as their results, the others for a while.
        journal_retention_ms={
            "Notes": 0,
            "Chain": 0,
            "Tally": 0,
            "Mayfly": 0,
            "Echo": BRIEF_MS,
            "Parrot": BRIEF_MS,
        }.get(service, 20_000),
        idempotency_retention_ms=kept_ms,
        retry_initial_interval_ms=50,
        retry_factor=2.0,
        retry_max_interval_ms=800,
        retry_max_attempts=1_000,
    )
    run_kept_ms = BRIEF_MS if service == "Brief" else KEPT_MS
    handlers = [
        RegisteredHandler(
            name, _kind(kind, service, name), Options(), run_kept_ms if name == "run" else None, None, None, None
        )
        for owner, name in HANDLERS
        if owner == service
    ]
    return RegisteredService(service, kind, options, handlers, None)


def _kind(kind: ServiceKind, service: str, handler: str) -> HandlerKind:
    match kind:
        case ServiceKind.SERVICE:
            return HandlerKind.STATELESS
        case ServiceKind.VIRTUAL_OBJECT:
            return HandlerKind.SHARED if (service, handler) in _SHARED else HandlerKind.EXCLUSIVE
        case ServiceKind.WORKFLOW:
            return HandlerKind.SHARED if (service, handler) in _SHARED else HandlerKind.WORKFLOW

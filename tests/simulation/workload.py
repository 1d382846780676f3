"""Seeded clients: what they ask, how they insist, and what they hold the answers to."""

from __future__ import annotations

import asyncio
import json
import random
from collections import defaultdict
from collections.abc import Awaitable, Callable
from typing import TypeVar

from perdure.protocol import ids
from perdure_processor.model.actions import Acted, Deed, Missing
from perdure_processor.model.commands import Operate, Resume, Verb
from perdure_processor.model.ids import InvocationId, InvocationTarget
from perdure_processor.model.limits import RECORD_MAX
from perdure_server.ingress import requests
from perdure_server.ingress.requests import InvokeRequest
from simulation.checker import state_of
from simulation.node import Node, NodeDown
from simulation.world import World

T = TypeVar("T")

AGAIN_S_MAX = 0.6  # a client that got no answer asks again within this
LARGE_BYTES = RECORD_MAX + 50_000

# What a client asks for, as often as it is named: the methods of Clients.
KINDS = (
    *("add", "add", "add", "add_once", "tally", "peek", "scatter", "scatter_later", "transfer", "spread", "pass"),
    *("steps", "together", "refused", "race", "write", "say", "say", "wait_outside", "wait_inside", "flow"),
    *("interrupt", "interrupt"),
)


class Clients:
    """All clients of a run, and what they know to be true."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.draw = random.Random(f"{world.options.seed}/workload")
        self._number = 0
        # Adds that were acknowledged or will be, and those of which nobody can know.
        self.added: dict[str, int] = defaultdict(int)
        self.maybe_added: dict[str, int] = defaultdict(int)
        self.tallied: dict[str, int] = defaultdict(int)
        self.maybe_tallied: dict[str, int] = defaultdict(int)
        self.passed: dict[str, int] = defaultdict(int)
        self.written: dict[str, int] = defaultdict(int)
        self.transferred: dict[str, int] = defaultdict(int)
        # Every answer given under one idempotency key.
        self.answers: dict[tuple[str, str], requests.Success | requests.Failed] = {}
        self.done = 0
        self.asked_again = 0

    async def run(self) -> None:
        """All requests, from several clients at once; returns when every one has its answer."""
        options = self.world.options
        each = max(1, options.requests // options.clients)
        pause = options.safety_s / each
        finisher = asyncio.create_task(self._complete_awakeables())
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(options.clients):
                    group.create_task(self._client(each, pause))
        finally:
            finisher.cancel()

    async def _client(self, count: int, pause: float) -> None:
        names = self.world.options.focus.split(",") if self.world.options.focus else KINDS
        kinds = [getattr(self, f"_{name}") for name in names]
        for _ in range(count):
            await asyncio.sleep(self.draw.uniform(0, 2 * pause))
            large = self.draw.random() < self.world.options.large
            await (self._large() if large else self.draw.choice(kinds)())
            self.done += 1

    # -- asking --------------------------------------------------------------------------------------------
    def _next_key(self) -> str:
        self._number += 1
        return f"request-{self._number}"

    def _object(self) -> str:
        return f"object-{self.draw.randrange(self.world.options.objects)}"

    def _request(
        self,
        node: Node,
        service: str,
        key: str | None,
        handler: str,
        body: bytes,
        idempotency: str | None,
        delay_ms: int,
    ) -> InvokeRequest:
        schema = node.metadata.schema.services[service]
        target = InvocationTarget(service, key, handler)
        delay = delay_ms if delay_ms else None
        return InvokeRequest(schema, schema.handlers[handler], target, [], body, idempotency, delay)

    async def _insist(self, question: Callable[[Node], Awaitable[T]]) -> T:
        """Ask until there is an answer: only for what may safely be asked twice."""
        while True:
            try:
                answer = await self._ask_and_perhaps_leave(question)
            except (NodeDown, TimeoutError):
                answer = None
            if answer is not None and not isinstance(answer, requests.Unavailable | requests.Overloaded):
                return answer
            self.asked_again += 1
            await asyncio.sleep(self.draw.uniform(0.05, AGAIN_S_MAX))

    async def _ask_and_perhaps_leave(self, question: Callable[[Node], Awaitable[T]]) -> T:
        if self.world.network.happens("client_gone"):
            async with asyncio.timeout(self.draw.uniform(0, 0.3)):
                return await self.world.ask(question)
        return await self.world.ask(question)

    async def _call(
        self, service: str, key: str | None, handler: str, body: bytes, idempotency: str | None = None
    ) -> requests.Success | requests.Failed:
        """Call under an idempotency key, until it is answered; perhaps from two connections at once."""
        idempotency = idempotency or self._next_key()

        async def once() -> requests.Success | requests.Failed:
            answer = await self._insist(
                lambda node: node.dispatcher.call(
                    self._request(node, service, key, handler, body, idempotency, delay_ms=0)
                )
            )
            assert isinstance(answer, requests.Success | requests.Failed), answer
            return self._agreed(service, idempotency, answer)

        if self.world.network.happens("duplicate_request"):
            first, _ = await asyncio.gather(once(), once())
            return first
        return await once()

    def _agreed(
        self, service: str, idempotency: str, answer: requests.Success | requests.Failed
    ) -> requests.Success | requests.Failed:
        """Everybody who asks under one key gets the same answer."""
        known = self.answers.setdefault((service, idempotency), answer)
        self.world.checker.expect(
            _content(known) == _content(answer), f"key {idempotency}: {_content(known)}, then {_content(answer)}"
        )
        self.world.trace(f"answer {service} {idempotency} {_content(answer)!r}")
        return answer

    async def _succeed(self, service: str, key: str | None, handler: str, body: bytes) -> bytes:
        answer = await self._call(service, key, handler, body)
        if isinstance(answer, requests.Failed):
            self.world.checker.violated(f"{service}/{handler} failed: {answer.code} {answer.message}")
            return b""
        return answer.body

    def _expect(self, holds: bool, what: str) -> None:
        self.world.checker.expect(holds, what)

    # -- counters ------------------------------------------------------------------------------------------
    async def _add(self) -> None:
        key, amount = self._object(), self.draw.randint(1, 9)
        self.added[key] += amount
        total = int(await self._succeed("Counter", key, self.draw.choice(("add", "add_slowly")), b"%d" % amount))
        self._expect(amount <= total, f"Counter/{key} answers {total} to an add of {amount}")

    async def _add_once(self) -> None:
        """Without a key: when no answer comes, nobody knows whether it counted."""
        key = self._object()
        try:
            answer = await self._ask_and_perhaps_leave(
                lambda node: node.dispatcher.call(self._request(node, "Counter", key, "add", b"1", None, delay_ms=0))
            )
        except (NodeDown, TimeoutError):
            self.maybe_added[key] += 1
            return
        match answer:
            case requests.Success():
                self.added[key] += 1
            case requests.Unavailable(may_have_run=False) | requests.Overloaded():
                pass
            case _:
                self.maybe_added[key] += 1

    async def _tally(self) -> None:
        """Nothing of it is kept, but whoever waits for it is answered for sure while the node lives."""
        key = self._object()
        try:
            answer = await self.world.ask(
                lambda node: node.dispatcher.call(self._request(node, "Tally", key, "add", b"1", None, delay_ms=0))
            )
        except NodeDown:
            self.maybe_tallied[key] += 1
            return
        match answer:
            case requests.Success():
                self.tallied[key] += 1
            case requests.Unavailable(may_have_run=True):
                self._expect("no longer kept" not in answer.reason, "an answer was dropped that somebody waited for")
                self.maybe_tallied[key] += 1
            case _:
                self._expect(isinstance(answer, requests.Unavailable | requests.Overloaded), f"tally: {answer}")

    async def _scatter(self) -> None:
        keys = [self._object() for _ in range(self.draw.randint(1, 4))]
        for key in keys:
            self.added[key] += 1
        await self._succeed("Sender", None, "scatter", json.dumps(keys).encode())

    async def _scatter_later(self) -> None:
        """A delayed send, accepted now; attached to, and asked for its output meanwhile."""
        idempotency, key = self._next_key(), self._object()
        self.added[key] += 1
        due = self.world.loop.time() + 0.4
        asked = self.asked_again
        accepted = await self._insist(
            lambda node: node.dispatcher.send(
                self._request(node, "Counter", key, "add", b"1", idempotency, delay_ms=400)
            )
        )
        assert isinstance(accepted, requests.Accepted), accepted
        if asked == self.asked_again:
            self._expect(not accepted.previously, "a send's only request is told that there was one before")
        if self.draw.random() < 0.5:
            answer = await self._insist(lambda node: node.dispatcher.attach(accepted.invocation_id))
        else:
            answer = requests.NotReady()
            while isinstance(answer, requests.NotReady):
                await asyncio.sleep(0.2)
                answer = await self._insist(lambda node: node.dispatcher.output(accepted.invocation_id))
        if not self.world.stepped:
            self._expect(self.world.loop.time() >= due - 0.002, "a delayed send ran before its time")
        if isinstance(answer, requests.Success | requests.Failed):
            self._agreed("Counter", idempotency, answer)
        else:
            self._expect(False, f"the output of an accepted send is {answer}")

    async def _peek(self) -> None:
        key = self._object()
        total = int(await self._succeed("Counter", key, "get", b""))
        self._expect(total >= 0, "a counter is negative")

    # -- calls -----------------------------------------------------------------------------------------------
    async def _transfer(self) -> None:
        source, target, amount = self._object(), self._object(), self.draw.randint(1, 5)
        moved = await self._call("Bank", None, "transfer", json.dumps([source, target, amount]).encode())
        if isinstance(moved, requests.Success):
            self.transferred[source] -= amount
            self.transferred[target] += amount
        else:
            self._expect(moved.code == 409, f"a transfer failed with {moved.code} {moved.message}")

    async def _spread(self) -> None:
        keys = [self._object() for _ in range(3)]
        self._expect(
            await self._succeed("Bank", None, "spread", json.dumps(keys).encode()) == b"3", "spread lost a call"
        )

    async def _pass(self) -> None:
        first, depth = self.draw.randint(0, 3), self.draw.randint(1, 4)
        for link in range(first, first + depth):
            self.passed[f"{link:04d}"] += 1
        self._expect(
            await self._succeed("Chain", f"{first:04d}", "pass", b"%d" % depth) == b"." * depth, "a chain lost a link"
        )

    # -- runs and sleeps ---------------------------------------------------------------------------------------
    async def _steps(self) -> None:
        self._expect(await self._succeed("Runner", None, "steps", b"s") == b"s-0,s-1,s-2", "steps came out wrong")

    async def _together(self) -> None:
        self._expect(await self._succeed("Runner", None, "together", b"t") == b"t-0,t-1,t-2", "parts came out wrong")

    async def _refused(self) -> None:
        answer = await self._call("Runner", None, "refused", b"why")
        text = answer.message if isinstance(answer, requests.Failed) else "no failure"
        self._expect(text == "undone after no: why", f"a refusal came out as {text}")

    async def _race(self) -> None:
        body = b"%d" % self.draw.choice((0, 40, 900, 3_000))
        self._expect(await self._succeed("Runner", None, "race", body) == b"woken", "a race came out wrong")

    async def _large(self) -> None:
        body = self.draw.randbytes(8) * (LARGE_BYTES // 8)
        self._expect(await self._succeed("Runner", None, "large", body) == body + body, "large came out wrong")

    async def _write(self) -> None:
        key = self._object()
        self.written[key] += 1
        await self._succeed("Notes", key, "write", b"note")

    async def _say(self) -> None:
        """Few keys, kept briefly: the same key names one life after the other."""
        key = f"word-{self.draw.randrange(4)}"
        answer = await self._insist(
            lambda node: node.dispatcher.call(self._request(node, "Echo", None, "say", key.encode(), key, delay_ms=0))
        )
        said = answer.body if isinstance(answer, requests.Success) else answer
        self._expect(said == key.encode(), f"echo of {key} is {said!r}")

    # -- awakeables and workflows ------------------------------------------------------------------------------
    async def _wait_outside(self) -> None:
        label = self._next_key()
        answer = await self._succeed("Waiter", None, "outside", label.encode())
        self._expect(answer == b"for " + label.encode(), f"an awakeable came out as {answer!r}")

    async def _wait_inside(self) -> None:
        self._expect(await self._succeed("Waiter", None, "inside", b"inner") == b"inner", "an awakeable came out wrong")

    async def _complete_awakeables(self) -> None:
        """Somebody outside completes every awakeable that was given away, each time it was."""
        while True:
            label, awakeable_id = await self.world.awakeables.get()
            raw, signal = ids.decode_awakeable_id(awakeable_id)
            await self._insist(
                lambda node, raw=raw, signal=signal, label=label: node.dispatcher.complete_awakeable(
                    InvocationId(raw), signal, b"for " + label, None
                )
            )

    # -- operators -----------------------------------------------------------------------------------------------
    async def _interrupt(self) -> None:
        """Send a trip on its way, alone or with a guide, and cancel, kill or pause it at any moment of its life."""
        idempotency, key, rest = self._next_key(), f"trip-{self.draw.randrange(3)}", self.draw.choice((0, 50, 700))
        guided = self.draw.random() < 0.4
        delay_ms = self.draw.choice((0, 0, 0, 200))
        service, handler, body = "Trip", "go", b"%d" % rest
        if guided:
            service, handler, body = "Guide", "lead", json.dumps([key, rest]).encode()
        accepted = await self._insist(
            lambda node: node.dispatcher.send(
                self._request(node, service, None if guided else key, handler, body, idempotency, delay_ms)
            )
        )
        assert isinstance(accepted, requests.Accepted), accepted
        await asyncio.sleep(self.draw.uniform(0, 1.5))
        # A guide waits for its trips and for nothing else: it would not hear that it was cancelled.
        verb = self.draw.choice((Verb.KILL, Verb.PAUSE) if guided else (Verb.CANCEL, Verb.KILL, Verb.PAUSE))
        deed = await self._operate(accepted.invocation_id, verb)
        if verb is Verb.PAUSE:
            await asyncio.sleep(self.draw.uniform(0, 1.0))
        await self._see_interrupted(accepted.invocation_id, verb, deed)

    async def _see_interrupted(self, invocation_id: InvocationId, verb: Verb, deed: Deed | None) -> None:
        answer = await self._attach_while_resuming(invocation_id)
        if isinstance(answer, requests.NotFound):
            self._expect(verb is not Verb.PAUSE, "one that was paused is unknown")
            return  # it ended before it began, or was canceled by a request whose answer was lost
        ends = {Verb.PAUSE: "done", Verb.KILL: "killed", Verb.CANCEL: "taken back"}
        text = answer.message if isinstance(answer, requests.Failed) else answer.body.decode()
        wanted = [ends[verb]] if verb is Verb.KILL and deed is Deed.DONE else ["done", "canceled", ends[verb]]
        # The guide's trip is one like any other: nobody cancels it, but for its guide's end.
        self._expect(text in wanted, f"after {verb.name}, {deed}: {text}, not {wanted}")
        if self.draw.random() < 0.5:
            purged = await self._operate(invocation_id, Verb.PURGE)
            self._expect(purged in (Deed.DONE, None), f"what had ended is not purged but {purged}")
            gone = await self._insist(lambda node: node.dispatcher.attach(invocation_id))
            self._expect(isinstance(gone, requests.NotFound), f"after its purge it is {gone}")

    async def _operate(self, invocation_id: InvocationId, verb: Verb) -> Deed | None:
        """What the verb did, at the first attempt that was answered; None when nobody knows the invocation."""
        while True:
            answer = await self._insist(
                lambda node: node.dispatcher.operate(lambda request, at: Operate(invocation_id, verb, request, at))
            )
            if isinstance(answer, Missing):
                return None
            assert isinstance(answer, Acted), answer
            if answer.deed is not Deed.UNFINISHED:
                return answer.deed

    async def _attach_while_resuming(
        self, invocation_id: InvocationId
    ) -> requests.Success | requests.Failed | requests.NotFound:
        """Its end; it is resumed again and again, because a pause may arrive long after it was asked for."""

        async def resume() -> None:
            while True:
                await self._insist(
                    lambda node: node.dispatcher.operate(
                        lambda request, at: Resume(invocation_id, None, request, at),
                    )
                )
                await asyncio.sleep(3.0)

        resuming = asyncio.create_task(resume())
        try:
            answer = await self._insist(lambda node: node.dispatcher.attach(invocation_id))
        finally:
            resuming.cancel()
        assert isinstance(answer, requests.Success | requests.Failed | requests.NotFound), answer
        return answer

    async def _flow(self) -> None:
        """Two clients submit one workflow: it runs once, and only one of them is told so."""
        key = f"flow-{self._next_key()}"

        async def submit() -> requests.Success | requests.Failed | None:
            try:
                answer = await self.world.ask(
                    lambda node: node.dispatcher.call(self._request(node, "Flow", key, "run", b"x", None, delay_ms=0))
                )
            except NodeDown:
                return None
            return answer if isinstance(answer, requests.Success | requests.Failed) else None

        answers = await asyncio.gather(submit(), submit())
        succeeded = [answer for answer in answers if isinstance(answer, requests.Success)]
        refused = [answer for answer in answers if isinstance(answer, requests.Failed)]
        self._expect(len(refused) <= 1, "both who started a workflow were told that it had been started")
        self._expect(len(succeeded) <= 1, "a workflow told two submitters that it was theirs")
        self._expect(all(answer.code == 409 for answer in refused), f"a workflow failed: {refused}")
        stage = await self._insist(
            lambda node: node.dispatcher.call(self._request(node, "Flow", key, "stage", b"", None, delay_ms=0))
        )
        if not succeeded and not refused:
            return  # perhaps nothing was recorded at all
        self._expect(isinstance(stage, requests.Success), f"a shared handler answered {stage}")
        uuid = ids.workflow_uuid("Flow", key)
        invocation_id = InvocationId(ids.invocation_id(ids.partition_key_of_key(key), uuid))
        attached = await self._insist(lambda node: node.dispatcher.attach(invocation_id))
        body = attached.body if isinstance(attached, requests.Success) else attached
        self._expect(body == b"note of x", f"a workflow ended with {body!r}")

    # -- what must be true in the end ----------------------------------------------------------------------------
    def check(self) -> None:
        """The tables say what the answers said."""
        stores = self.world.partition_stores()
        totals = state_of(stores, "Counter")
        for key in sorted({*self.added, *self.maybe_added}):
            total = int(totals.get((key, "total"), b"0"))
            low = self.added[key]
            high = low + self.maybe_added[key]
            self._expect(low <= total <= high, f"Counter/{key} is {total}, its adds make {low} to {high}")
        tallies = state_of(stores, "Tally")
        for key in sorted({*self.tallied, *self.maybe_tallied}):
            total = int(tallies.get((key, "total"), b"0"))
            low = self.tallied[key]
            high = low + self.maybe_tallied[key]
            self._expect(low <= total <= high, f"Tally/{key} is {total}, its adds make {low} to {high}")
        counts = state_of(stores, "Chain")
        for key, passes in sorted(self.passed.items()):
            count = int(counts.get((key, "count"), b"0"))
            self._expect(count == passes, f"Chain/{key} was passed {count} times instead of {passes}")
        balances = state_of(stores, "Account")
        for key, amount in sorted(self.transferred.items()):
            balance = int(balances.get((key, "balance"), b"0"))
            self._expect(balance == amount, f"Account/{key} has {balance} instead of {amount}")
        notes = state_of(stores, "Notes")
        for key, writes in sorted(self.written.items()):
            generation = int(notes.get((key, "generation"), b"0"))
            self._expect(generation == writes, f"Notes/{key} was written {generation} times instead of {writes}")


def _content(answer: requests.Success | requests.Failed) -> bytes | tuple[int, str]:
    return answer.body if isinstance(answer, requests.Success) else (answer.code, answer.message)

"""Seeded clients: what they ask, and what they hold the answers to."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict

from perdure_processor.model.derived_ids import workflow_id
from perdure_processor.model.limits import RECORD_MAX
from perdure_server.ingress import requests
from simulation.checker import state_of
from simulation.node import NodeDown
from simulation.workload_waiting import Waiting
from simulation.world import World

LARGE_BYTES = RECORD_MAX + 50_000

# What a client asks for, as often as it is named: the methods of Clients.
KINDS = (
    *("add", "add", "add", "add_once", "tally", "peek", "scatter", "scatter_later", "transfer", "spread", "pass"),
    *("steps", "together", "refused", "race", "write", "say", "say", "wait_outside", "wait_inside", "flow"),
    *("interrupt", "interrupt", "wait_signal", "wait_race", "join", "say_attached", "deal", "deal_dropped", "brief"),
    *("call_off", "call_off", "outlive"),
)


class Clients(Waiting):
    """All clients of a run, and what they know to be true."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        # Adds that were acknowledged or will be, and those of which nobody can know.
        self.added: dict[str, int] = defaultdict(int)
        self.maybe_added: dict[str, int] = defaultdict(int)
        self.tallied: dict[str, int] = defaultdict(int)
        self.maybe_tallied: dict[str, int] = defaultdict(int)
        self.passed: dict[str, int] = defaultdict(int)
        self.written: dict[str, int] = defaultdict(int)
        self.transferred: dict[str, int] = defaultdict(int)
        self.done = 0

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
            await self.clear_up()
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

    # -- workflows ---------------------------------------------------------------------------------------------
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
        attached = await self._insist(lambda node: node.dispatcher.attach(workflow_id("Flow", key)))
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

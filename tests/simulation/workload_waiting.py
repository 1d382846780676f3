"""What clients ask of handlers that wait for others: awakeables, signals, promises, attached calls, cancellations."""

from __future__ import annotations

import asyncio
import json

from perdure.protocol import ids
from perdure_processor.model.actions import Acted, Deed
from perdure_processor.model.commands import DropPromises, Verb
from perdure_processor.model.derived_ids import idempotent_id, workflow_id
from perdure_processor.model.ids import InvocationId
from perdure_server.ingress import requests
from simulation.handlers import KEPT_MS
from simulation.workload_operators import Operators

RACE_S = 0.08  # about as long as the clock in Waiter/race
BRIEF_KEYS = 2


class Waiting(Operators):
    """Clients on whom handlers wait, and who wait for them."""

    # -- awakeables and signals --------------------------------------------------------------------------------
    async def _wait_outside(self) -> None:
        label = self._next_key()
        answer = await self._succeed("Waiter", None, "outside", label.encode())
        self._expect(answer == b"for " + label.encode(), f"an awakeable came out as {answer!r}")

    async def _wait_inside(self) -> None:
        self._expect(await self._succeed("Waiter", None, "inside", b"inner") == b"inner", "an awakeable came out wrong")

    async def _wait_signal(self) -> None:
        self._expect(await self._succeed("Waiter", None, "signal", b"sent") == b"sent", "a signal came out wrong")

    async def _wait_race(self) -> None:
        """Completed about when the time is up, and twice: the winner is the same in every replay."""
        answer = await self._succeed("Waiter", None, "race", f"race-{self._next_key()}".encode())
        self._expect(answer in (b"outside", b"clock"), f"a race was won by {answer!r}")

    async def _complete_awakeables(self) -> None:
        """Somebody outside completes every awakeable that was given away, each time it was."""
        async with asyncio.TaskGroup() as group:
            while True:
                label, awakeable_id = await self.world.awakeables.get()
                if label.startswith(b"race-"):
                    for _ in range(2):
                        group.create_task(self._complete(label, awakeable_id, self.draw.uniform(0, RACE_S)))
                else:
                    group.create_task(self._complete(label, awakeable_id, 0.0))

    async def _complete(self, label: bytes, awakeable_id: str, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        raw, signal = ids.decode_awakeable_id(awakeable_id)
        await self._insist(
            lambda node: node.dispatcher.complete_awakeable(InvocationId(raw), signal, b"for " + label, None)
        )

    # -- attached calls ----------------------------------------------------------------------------------------
    async def _join(self) -> None:
        label = self._next_key().encode()
        value = await self._succeed("Joiner", None, "join", label)
        self._expect(value == b"%s-0,%s-1,%s-2" % (label, label, label), f"an attached handler was given {value!r}")

    async def _say_attached(self) -> None:
        """As `_say`: few keys, kept briefly, so that an answer may find another life of the one who asked."""
        key = f"phrase-{self.draw.randrange(4)}"
        answer = await self._insist(
            lambda node: node.dispatcher.call(self._request(node, "Parrot", None, "say", key.encode(), key, 0))
        )
        said = answer.body if isinstance(answer, requests.Success) else answer
        self._expect(said == key.encode(), f"echo of {key} is {said!r}")

    # -- promises ----------------------------------------------------------------------------------------------
    async def _deal(self) -> None:
        """A workflow, two who would sign it, and some who watch: all of them see the one signature."""
        key = f"deal-{self._next_key()}"

        async def at_any_time(handler: str, body: bytes) -> bytes:
            await asyncio.sleep(self.draw.uniform(0, 0.5))
            return await self._succeed("Deal", key, handler, body)

        async with asyncio.TaskGroup() as group:
            group.create_task(self._submit("Deal", key))
            signing = {name: group.create_task(at_any_time("sign", name)) for name in (b"ann", b"bob")}
            watching = [group.create_task(at_any_time("watch", b"")) for _ in range(self.draw.randint(1, 3))]
        first = [name for name, task in signing.items() if task.result() == b"first"]
        self._expect(len(first) == 1, f"a promise was completed by {first}")
        run = await self._insist(lambda node: node.dispatcher.attach(workflow_id("Deal", key)))
        self._expect(isinstance(run, requests.Success), f"a workflow ended with {run}")
        seen = [run.body if isinstance(run, requests.Success) else b"", *(task.result() for task in watching)]
        seen.append(await self._succeed("Deal", key, "peek", b""))
        self._expect(seen == first * len(seen), f"a promise completed with {first} was seen as {seen}")

    async def _deal_dropped(self) -> None:
        """The workflow is killed and purged while others watch, and its promises are dropped: they are told."""
        key = f"deal-{self._next_key()}"
        run = workflow_id("Deal", key)
        watching = [asyncio.create_task(self._call("Deal", key, "watch", b"")) for _ in range(2)]
        await self._submit("Deal", key)
        await asyncio.sleep(self.draw.uniform(0, 0.3))
        killed, _ = await self._operate(run, Verb.KILL)
        self._expect(killed in (Deed.DONE, Deed.COMPLETED, None), f"a workflow that waits is not killed but {killed}")
        purged, _ = await self._operate(run, Verb.PURGE)
        self._expect(purged in (Deed.DONE, None), f"a workflow that was killed is not purged but {purged}")
        # A watcher who came after the purge waits again, for a promise that nobody will complete.
        while True:
            # Those who are told of one promise may ask for the other after that: the last drop is behind them all.
            all_told = all(task.done() for task in watching)
            await self._drop_promises("Deal", key)
            if all_told:
                break
            await asyncio.wait(watching, timeout=0.5)
        for task in watching:
            answer = task.result()
            code = answer.code if isinstance(answer, requests.Failed) else 200
            self._expect(code == 410, f"who watched a promise that was dropped was told {answer}")

    async def _brief(self) -> None:
        """Few keys, kept briefly: the promises of one run are gone before the next."""
        key = f"brief-{self.draw.randrange(BRIEF_KEYS)}"
        await self._submit("Brief", key)
        run = workflow_id("Brief", key)
        ended = asyncio.create_task(self._insist(lambda node: node.dispatcher.attach(run)))
        while not ended.done():
            signed = await self._call("Brief", key, "sign", self._next_key().encode())
            self._expect(isinstance(signed, requests.Success), f"a shared handler of a workflow failed: {signed}")
            await asyncio.wait({ended}, timeout=1.0)
        answer = ended.result()
        forgotten = isinstance(answer, requests.NotFound)
        signature = answer.body if isinstance(answer, requests.Success) else b""
        self._expect(forgotten or signature.startswith(b"request-"), f"a brief workflow ended with {answer}")

    async def _submit(self, workflow: str, key: str) -> None:
        accepted = await self._insist(
            lambda node: node.dispatcher.send(self._request(node, workflow, key, "run", b"", None, 0))
        )
        assert isinstance(accepted, requests.Accepted), accepted

    async def _drop_promises(self, workflow: str, key: str) -> None:
        """Drop what a key has gathered, as soon as no run is kept for it."""
        drop_id = InvocationId(ids.invocation_id(ids.partition_key_of_key(key), self.draw.getrandbits(128)))
        while True:
            answer = await self._insist(
                lambda node: node.dispatcher.operate(
                    lambda request, at: DropPromises(drop_id, workflow, key, request, at)
                )
            )
            assert isinstance(answer, Acted), answer
            if answer.deed is Deed.DONE:
                return
            assert answer.deed in (Deed.HAS_RUN, Deed.UNFINISHED), answer
            await asyncio.sleep(1.0)

    async def clear_up(self) -> None:
        """What nobody will run any more: promises that were completed after their workflow was forgotten."""
        for number in range(BRIEF_KEYS):
            await self._drop_promises("Brief", f"brief-{number}")

    # -- cancellation and its travels --------------------------------------------------------------------------
    async def _call_off(self) -> None:
        """Cancel one that waits for a trip: by hand or through a handler, and it passes that on."""
        key = f"trip-{self.draw.randrange(3)}"
        endless = self.draw.random() < 0.5
        rest = KEPT_MS if endless else self.draw.choice((0, 50, 700))
        guide = await self._send("Guide", None, "mind", json.dumps([key, rest]).encode())
        await asyncio.sleep(self.draw.uniform(0, 1.0))
        if self.draw.random() < 0.5:
            body = ids.encode_invocation_id(guide).encode()
            self._expect(await self._succeed("Completer", None, "cancel", body) == b"", "a cancellation came out wrong")
        else:
            await self._operate(guide, Verb.CANCEL)
        answer = await self._insist(lambda node: node.dispatcher.attach(guide))
        assert isinstance(answer, requests.Success | requests.Failed), answer
        text = answer.message if isinstance(answer, requests.Failed) else answer.body.decode()
        called_off = ("called off after taken back", "called off after canceled")
        wanted = called_off if endless else (*called_off, "called off after done", "done")
        self._expect(text in wanted, f"a guide that was cancelled ended with {text}")

    async def _outlive(self) -> None:
        """Kill a caller while its callee's answer is on its way: the callee's next life belongs to somebody else."""
        key, rest = self._next_key(), self.draw.choice((30, 100, 200))
        keeper = await self._send("Keeper", None, "keep", json.dumps([key, rest]).encode())
        over = asyncio.create_task(self._insist(lambda node: node.dispatcher.attach(keeper)))
        killing = asyncio.create_task(self._kill_about_when_it_ends(key, keeper, over))
        mayfly = idempotent_id("Mayfly", None, "live", key)
        found = await self._insist(lambda node: node.dispatcher.attach(mayfly))
        while isinstance(found, requests.NotFound) and not over.done():
            await asyncio.sleep(0.02)
            found = await self._insist(lambda node: node.dispatcher.attach(mayfly))
        if isinstance(found, requests.Success):
            # Nothing that is meant for the life that ended may reach this one.
            lived = await self._call("Mayfly", None, "live", json.dumps([key, 1_000]).encode(), key)
            self._expect(isinstance(lived, requests.Success), f"a callee that nobody killed ended with {lived}")
        await killing
        await over

    async def _kill_about_when_it_ends(self, key: str, keeper: InvocationId, over: asyncio.Task[object]) -> None:
        while key not in self.world.mayflies and not over.done():
            await asyncio.sleep(0.01)
        rest = max(0.0, self.world.mayflies.get(key, 0.0) - self.world.loop.time())
        await asyncio.sleep(self.draw.uniform(rest * 0.8, rest + 0.1))
        await self._operate(keeper, Verb.KILL)

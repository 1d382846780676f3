"""What operators do to invocations of their own: cancel, kill, pause and purge, at any moment of their lives."""

from __future__ import annotations

import asyncio
import json

from perdure_processor.model.actions import Acted, Deed, Missing
from perdure_processor.model.commands import Operate, Resume, Verb
from perdure_processor.model.ids import InvocationId, Millis
from perdure_processor.model.results import RequestId
from perdure_server.ingress import requests
from simulation.asking import Asking


class Operators(Asking):
    """Clients who interrupt what they sent."""

    async def _interrupt(self) -> None:
        """Send a trip on its way, alone or with a guide, and cancel, kill or pause it at any moment of its life."""
        key, rest = f"trip-{self.draw.randrange(3)}", self.draw.choice((0, 50, 700))
        guided = self.draw.random() < 0.4
        delay_ms = self.draw.choice((0, 0, 0, 200))
        service, handler, body = "Trip", "go", b"%d" % rest
        if guided:
            service, handler, body = "Guide", "lead", json.dumps([key, rest]).encode()
        invocation_id = await self._send(service, None if guided else key, handler, body, delay_ms)
        await asyncio.sleep(self.draw.uniform(0, 1.5))
        # A guide waits for its trips and for nothing else: it would not hear that it was cancelled.
        verb = self.draw.choice((Verb.KILL, Verb.PAUSE) if guided else (Verb.CANCEL, Verb.KILL, Verb.PAUSE))
        deed, times = await self._operate(invocation_id, verb)
        if verb is Verb.PAUSE:
            await asyncio.sleep(self.draw.uniform(0, 1.0))
        await self._see_interrupted(invocation_id, verb, deed, times)

    async def _see_interrupted(self, invocation_id: InvocationId, verb: Verb, deed: Deed | None, times: int) -> None:
        answer = await self._attach_while_resuming(invocation_id)
        if isinstance(answer, requests.NotFound):
            self._expect(verb is not Verb.PAUSE, "one that was paused is unknown")
            return  # it ended before it began, or was canceled by a request whose answer was lost
        ends = {Verb.PAUSE: "done", Verb.KILL: "killed", Verb.CANCEL: "taken back"}
        text = answer.message if isinstance(answer, requests.Failed) else answer.body.decode()
        wanted = [ends[verb]] if verb is Verb.KILL and deed is Deed.DONE else ["done", "canceled", ends[verb]]
        if verb is Verb.CANCEL and times > 1:
            wanted.append("given up")  # who cancels again may reach the one who takes the booking back
        # The guide's trip is one like any other: nobody cancels it, but for its guide's end.
        self._expect(text in wanted, f"after {verb.name}, {deed}: {text}, not {wanted}")
        if self.draw.random() < 0.5:
            purged, _ = await self._operate(invocation_id, Verb.PURGE)
            self._expect(purged in (Deed.DONE, None), f"what had ended is not purged but {purged}")
            gone = await self._insist(lambda node: node.dispatcher.attach(invocation_id))
            self._expect(isinstance(gone, requests.NotFound), f"after its purge it is {gone}")

    async def _operate(self, invocation_id: InvocationId, verb: Verb) -> tuple[Deed | None, int]:
        """What the verb did, at the first attempt that was answered, and how many there were.

        None when nobody knows the invocation."""
        times = 0

        def make(request: RequestId, issued_ms: Millis) -> Operate:
            nonlocal times
            times += 1
            return Operate(invocation_id, verb, request, issued_ms)

        while True:
            answer = await self._insist(lambda node: node.dispatcher.operate(make))
            if isinstance(answer, Missing):
                return None, times
            assert isinstance(answer, Acted), answer
            if answer.deed is not Deed.UNFINISHED:
                return answer.deed, times

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

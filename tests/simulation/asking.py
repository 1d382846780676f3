"""How the clients of a run ask: again and again, from two connections at once, and under keys that agree."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from perdure_processor.model.ids import InvocationId, InvocationTarget
from perdure_server.ingress import requests
from perdure_server.ingress.requests import InvokeRequest
from simulation.node import Node, NodeDown
from simulation.world import World

T = TypeVar("T")

AGAIN_S_MAX = 0.6  # a client that got no answer asks again within this


class Asking:
    """A client's means; what it asks for is in the classes built on this one."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.draw = random.Random(f"{world.options.seed}/workload")
        self._number = 0
        # Every answer given under one idempotency key.
        self.answers: dict[tuple[str, str], requests.Success | requests.Failed] = {}
        self.asked_again = 0

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

    async def _send(self, service: str, key: str | None, handler: str, body: bytes, delay_ms: int = 0) -> InvocationId:
        """Send under an idempotency key of its own, until it is accepted."""
        idempotency = self._next_key()
        accepted = await self._insist(
            lambda node: node.dispatcher.send(self._request(node, service, key, handler, body, idempotency, delay_ms))
        )
        assert isinstance(accepted, requests.Accepted), accepted
        return accepted.invocation_id

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


def _content(answer: requests.Success | requests.Failed) -> bytes | tuple[int, str]:
    return answer.body if isinstance(answer, requests.Success) else (answer.code, answer.message)

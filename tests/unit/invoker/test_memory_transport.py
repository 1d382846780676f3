"""The scripted network of the fake: each fault does what it says, and only that."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from perdure_processor.invoker.memory_transport import Exchange, Faults, MemoryTransport
from perdure_processor.invoker.transport import Address
from support.transports import Attempt

DEPLOYMENT = Address("http://deployment:9080", False)


async def echo(exchange: Exchange) -> None:
    exchange.respond(200, [("content-type", "text/plain")])
    while (data := await exchange.read()) is not None:
        await exchange.write(data)
    exchange.end()


class PiecewiseAttempt(Attempt):
    """Also keeps where the bytes were cut."""

    def __init__(self) -> None:
        super().__init__()
        self.pieces: list[bytes] = []

    def on_data(self, data: bytes) -> None:
        self.pieces.append(data)
        super().on_data(data)


def run(faults: Faults, scenario: Callable[[MemoryTransport], Awaitable[None]]) -> None:
    async def main() -> None:
        memory = MemoryTransport(lambda _address, _request: faults)
        memory.serve(DEPLOYMENT.uri, echo)
        await scenario(memory)
        await memory.close()

    asyncio.run(main())


def test_bytes_are_split() -> None:
    async def scenario(memory: MemoryTransport) -> None:
        attempt = PiecewiseAttempt()
        attempt.start(memory, DEPLOYMENT)
        attempt.send(b"abcdefgh")
        attempt.finish()
        assert (await attempt.end()).error is None
        assert attempt.pieces == [b"abc", b"def", b"gh"]

    run(Faults(split_bytes=3), scenario)


def test_the_connection_is_cut_within_the_response() -> None:
    async def scenario(memory: MemoryTransport) -> None:
        attempt = Attempt().start(memory, DEPLOYMENT)
        attempt.send(b"abcdefgh")
        attempt.finish()
        closed = await attempt.end()
        assert closed.error is not None
        assert not closed.never_sent
        assert attempt.body == b"abcde"

    run(Faults(cut_after_bytes=5), scenario)


def test_another_status_does_not_reach_the_endpoint() -> None:
    async def scenario(memory: MemoryTransport) -> None:
        attempt = Attempt().start(memory, DEPLOYMENT)
        attempt.send(b"abc")
        assert (await attempt.end()).error is None
        assert (attempt.status, attempt.body) == (503, b"")

    run(Faults(answer_status=503), scenario)


def test_everything_is_delayed_and_stays_in_order() -> None:
    async def scenario(memory: MemoryTransport) -> None:
        loop = asyncio.get_running_loop()
        started_s = loop.time()
        attempt = PiecewiseAttempt()
        attempt.start(memory, DEPLOYMENT)
        for number in range(20):
            attempt.send(b"%d " % number)
        attempt.finish()
        assert (await attempt.end()).error is None
        assert attempt.pieces == [b"%d " % number for number in range(20)]
        assert loop.time() - started_s >= 0.02, "there and back"

    run(Faults(delay_s=0.01), scenario)


def test_a_hanging_deployment_is_left_by_a_reset() -> None:
    async def scenario(memory: MemoryTransport) -> None:
        attempt = Attempt().start(memory, DEPLOYMENT)
        attempt.send(b"abc")
        attempt.finish()
        for _ in range(50):
            await asyncio.sleep(0)
        assert attempt.status is None
        attempt.reset()
        assert (await attempt.end()).error is not None

    run(Faults(hang=True), scenario)


def test_a_deployment_that_dies_breaks_its_streams_and_refuses_the_next() -> None:
    async def scenario(memory: MemoryTransport) -> None:
        attempt = Attempt().start(memory, DEPLOYMENT)
        attempt.send(b"abc")
        await attempt.until(lambda it: it.body == b"abc")
        memory.withdraw(DEPLOYMENT.uri)
        closed = await attempt.end()
        assert closed.error is not None
        assert not closed.never_sent
        assert (await Attempt().start(memory, DEPLOYMENT).end()).never_sent

    run(Faults(), scenario)

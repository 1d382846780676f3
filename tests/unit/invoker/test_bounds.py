"""Each bound around attempts, filled: who is pushed back, who is not, and that it goes on when there is room.

A whole node in one process: memory log, memory stores, deployments as coroutines behind the memory transport.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import pytest

from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType, encode_frame
from perdure_processor.clock import SystemClock
from perdure_processor.cluster.metadata import Metadata
from perdure_processor.cluster.metadata_machine import Applied, RegisterDeployment
from perdure_processor.host import Host
from perdure_processor.invoker import attempt_run, invoker
from perdure_processor.invoker.invoker import Invoker, InvokerOptions
from perdure_processor.invoker.memory_transport import Endpoint, Exchange, MemoryTransport
from perdure_processor.leader.leader import LeaderServices
from perdure_processor.log import Outcome, tail
from perdure_processor.log.memory import MemoryLog
from perdure_processor.metrics import Metrics
from perdure_processor.model.ids import DeploymentId, InvocationTarget, NodeId, PartitionId
from perdure_processor.model.limits import (
    EFFECTS_IN_FLIGHT_MAX,
    EFFECTS_PER_PROPOSAL_MAX,
    FRAMES_AT_ONCE_MAX,
    STREAM_WINDOW_BYTES,
)
from perdure_processor.model.resolution import Defaults
from perdure_processor.processor import MACHINE_VERSION, Processor
from perdure_processor.storage.memory import MemoryKeyValue
from perdure_processor.storage.records import StoreIdentity
from perdure_server.ingress import answering, dispatcher, paths
from perdure_server.ingress.dispatcher import LogDispatcher
from perdure_server.ingress.requests import Accepted, InvokeRequest, Overloaded, Success
from support.metadata import service

WAIT_S = 20.0
GOOD, DEAD = "http://good", "http://dead"


class HeldLog(MemoryLog):
    """A log whose disk is slow: while `held`, what is appended is not acknowledged."""

    def __init__(self) -> None:
        super().__init__()
        self.held = False
        self._waiting: list[tuple[PartitionId, bytes, Callable[[Outcome], None]]] = []

    def append(self, partition: PartitionId, payload: bytes, done: Callable[[Outcome], None]) -> None:
        if self.held:
            self._waiting.append((partition, payload, done))
        else:
            super().append(partition, payload, done)

    def release(self) -> None:
        self.held = False
        waiting, self._waiting = self._waiting, []
        for append in waiting:
            super().append(*append)


class Node:
    """What perdure_server.node wires, over fakes; one partition. Service Good lives at GOOD, Dead at DEAD."""

    def __init__(self, **options: Any) -> None:
        self.log = HeldLog()
        self.transport = MemoryTransport()
        self.metrics = Metrics()
        self.clock = SystemClock()
        self.id = NodeId("n", 1)
        self.metadata = Metadata(self.log, MemoryKeyValue(), self.id, Defaults(), run_blocking=at_once)
        self.invoker = Invoker(
            self.transport,
            lambda: self.metadata.schema,
            self.clock,
            InvokerOptions(**options),
            random=random.Random(1).random,
            metrics=self.metrics,
        )
        self.host = Host(1)
        self.dispatcher = LogDispatcher(
            self.host, self.id, self.clock, random_bits=random.Random(2).getrandbits, metrics=self.metrics
        )

    async def start(self) -> None:
        await self.metadata.start("c", 1)
        services = LeaderServices(self.invoker, self.host.append, lambda *answer: self.dispatcher.respond(*answer))

        def build(partition: PartitionId) -> Processor:
            return Processor(
                partition,
                StoreIdentity("c", "log", partition, 1, MACHINE_VERSION),
                node=self.id,
                log=self.log,
                store=MemoryKeyValue(),
                clock=self.clock,
                services=services,
                run_blocking=at_once,
                random_bytes=random.Random(3).randbytes,
                skipped=frozenset(),
                stopped=lambda _, error: pytest.fail(f"the partition stopped: {error!r}"),
                metrics=self.metrics,
            )

        await self.host.start(build)
        for uri, name in ((GOOD, "Good"), (DEAD, "Dead")):
            await self._register(uri, name)
        await until(lambda: self.host.unhealthy() is None)

    async def _register(self, uri: str, name: str) -> None:
        outcome = await self.metadata.change(
            lambda state, request: RegisterDeployment(
                request=request,
                expected_version=state.version,
                id=DeploymentId(f"dp_{name}"),
                uri=uri,
                http1=False,
                bidirectional=True,
                additional_headers={},
                metadata={},
                min_protocol_version=5,
                max_protocol_version=6,
                sdk_version=None,
                services=[service(name)],
                force=False,
                permit_type_change=False,
            )
        )
        assert isinstance(outcome, Applied)

    async def stop(self) -> None:
        self.log.release()
        self.dispatcher.close()
        await self.host.stop()
        await self.invoker.close()
        await self.metadata.stop()

    def request(self, name: str = "Good", body: bytes = b"", key: str | None = None) -> InvokeRequest:
        found = self.metadata.schema.services[name]
        handler = next(iter(found.handlers.values()))
        return InvokeRequest(found, handler, InvocationTarget(name, None, handler.name), [], body, key, None)

    async def send(self, name: str = "Good", count: int = 1) -> None:
        for _ in range(count):
            assert isinstance(await self.dispatcher.send(self.request(name)), Accepted)


class Handlers:
    """A deployment whose handlers wait until the test lets them go on."""

    def __init__(self, answer: bytes = b"") -> None:
        self.running = 0
        self.most = 0
        self.ended = 0
        self._answer = answer
        self._gate = asyncio.Semaphore(0)

    async def __call__(self, exchange: Exchange) -> None:
        self.running += 1
        self.most = max(self.most, self.running)
        try:
            await self._gate.acquire()
        finally:
            self.running -= 1  # from here on its slot may be another's, though its stream is not over
        await answer(exchange, self._answer or output(b"1") + END)
        self.ended += 1

    def let(self, count: int) -> None:
        for _ in range(count):
            self._gate.release()


async def at_once(work: Callable[[], None]) -> None:
    work()


async def until(condition: Callable[[], bool]) -> None:
    """Let the loop turn until it is so."""
    deadline_s = asyncio.get_running_loop().time() + WAIT_S
    while not condition():
        assert asyncio.get_running_loop().time() < deadline_s, f"not within {WAIT_S:.0f} s"
        await asyncio.sleep(0)


async def turns(count: int) -> None:
    """Let everything happen that would."""
    for _ in range(count):
        await asyncio.sleep(0)


async def answer(exchange: Exchange, data: bytes) -> None:
    """Say it, and close in good order."""
    respond(exchange)
    await exchange.write(data)
    while await exchange.read() is not None:
        pass
    exchange.end()


def respond(exchange: Exchange) -> None:
    exchange.respond(200, [("content-type", dict(exchange.request.headers)["content-type"])])


def output(value: bytes) -> bytes:
    message = pb.OutputCommandMessage(value=pb.Value(content=value))
    return encode_frame(MessageType.OUTPUT_COMMAND, message.SerializeToString())


def run_command(completion_id: int) -> bytes:
    message = pb.RunCommandMessage(result_completion_id=completion_id)
    return encode_frame(MessageType.RUN_COMMAND, message.SerializeToString())


END = encode_frame(MessageType.END, b"")
AWAITING = encode_frame(
    MessageType.AWAITING_ON, pb.AwaitingOnMessage(awaiting_on=pb.Future(waiting_signals=[1])).SerializeToString()
)


def scenario(work: Callable[[Node], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        node = Node(**options)
        await node.start()
        try:
            await asyncio.wait_for(work(node), 60)
        finally:
            await node.stop()
        assert node.invoker.bytes_in_flight == 0
        assert node.metrics.attempts_running == 0

    asyncio.run(main())


def endpoints(node: Node, good: Endpoint, dead: Endpoint | None = None) -> None:
    node.transport.serve(GOOD, good)
    if dead is not None:
        node.transport.serve(DEAD, dead)


# -- slots ------------------------------------------------------------------------------------------------------------


def test_attempts_beyond_the_limit_wait_for_a_slot() -> None:
    async def work(node: Node) -> None:
        handlers = Handlers()
        endpoints(node, handlers)
        await node.send(count=10)
        await until(lambda: handlers.running == 3 and node.metrics.attempts_waiting == 7)
        handlers.let(4)
        await until(lambda: handlers.ended == 4 and handlers.running == 3 and node.metrics.attempts_waiting == 3)
        handlers.let(6)
        await until(lambda: handlers.ended == 10)
        assert handlers.most == 3

    scenario(work, attempts_max=3, attempts_per_deployment_max=3)


def test_a_dead_deployment_leaves_slots_to_the_others() -> None:
    async def work(node: Node) -> None:
        handlers, dead = Handlers(), Handlers()
        endpoints(node, handlers, dead)
        await node.send("Dead", 20)
        await until(lambda: dead.running == 3)
        await node.send("Good", 5)
        handlers.let(5)
        await until(lambda: handlers.ended == 5)
        assert dead.most == 3
        dead.let(20)
        await until(lambda: dead.ended == 20)

    scenario(work, attempts_max=4, attempts_per_deployment_max=3)


def test_what_finds_no_place_to_wait_is_found_in_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(invoker, "ATTEMPTS_WAITING_MAX", 4)

    async def work(node: Node) -> None:
        handlers = Handlers()
        endpoints(node, handlers)
        await node.send(count=50)
        await until(lambda: handlers.running == 2 and node.metrics.attempts_waiting == 4)
        handlers.let(50)
        await until(lambda: handlers.ended == 50)
        assert handlers.most == 2

    scenario(work, attempts_max=2, attempts_per_deployment_max=2)


# -- between the streams and the log ----------------------------------------------------------------------------------


def test_a_stream_is_not_read_on_while_its_effects_wait_for_the_log() -> None:
    """The disk stands still: of an endless stream no more is taken than the bound and the window allow."""
    count = 200_000

    async def work(node: Node) -> None:
        written = 0

        async def writer(exchange: Exchange) -> None:
            nonlocal written
            respond(exchange)
            node.log.held = True
            for number in range(0, count, 1_000):
                data = b"".join(run_command(number + index) for index in range(1, 1_001))
                await exchange.write(data)
                written += len(data)
            await answer_rest(exchange)

        async def answer_rest(exchange: Exchange) -> None:
            await exchange.write(output(b"1") + END)
            while await exchange.read() is not None:
                pass
            exchange.end()

        endpoints(node, writer)
        call = asyncio.ensure_future(node.dispatcher.call(node.request()))
        await until(lambda: node.log.held)
        run = next(iter(node.invoker._runs.values()))
        await until(lambda: run._effects_in_flight > EFFECTS_IN_FLIGHT_MAX)
        await turns(1_000)
        total = len(b"".join(run_command(number) for number in range(1, 1_001))) * count // 1_000
        assert STREAM_WINDOW_BYTES <= written < total
        assert run._effects_in_flight <= EFFECTS_IN_FLIGHT_MAX + EFFECTS_PER_PROPOSAL_MAX + FRAMES_AT_ONCE_MAX
        call.cancel()
        node.transport.withdraw(GOOD)
        node.log.release()
        await until(lambda: node.invoker.bytes_in_flight == 0)

    scenario(work)


def test_streams_wait_while_too_many_bytes_wait_for_the_log() -> None:
    """One that was let in uses up the room; the next one's bytes stay where they are until there is some again."""
    large = output(bytes(300_000)) + END

    async def work(node: Node) -> None:
        handlers = Handlers(large)
        endpoints(node, handlers)
        await node.send(count=12)
        await until(lambda: handlers.running == 12)
        node.log.held = True
        handlers.let(12)
        await turns(500)
        held = node.invoker.bytes_in_flight
        # Each may have come to its end, for its window is larger than what it has to say; none begins another.
        assert held >= 400_000
        assert not node.invoker.may_read()
        node.log.release()
        await until(lambda: handlers.ended == 12 and node.invoker.bytes_in_flight == 0)

    scenario(work, effect_bytes_in_flight_max=400_000)


def test_a_flood_does_not_hold_up_who_comes_after_it() -> None:
    """A thousand frames in one piece, from several streams, and then a short answer: that one is done first."""

    async def work(node: Node) -> None:
        ended: list[str] = []
        floods = Handlers(AWAITING * 5_000 + output(b"flood") + END)
        short = Handlers(output(b"short") + END)
        endpoints(node, short, floods)

        async def call(name: str) -> None:
            assert isinstance(await node.dispatcher.call(node.request(name)), Success)
            ended.append(name)

        calls = [asyncio.ensure_future(call(name)) for name in ("Dead", "Dead", "Dead", "Good")]
        await until(lambda: (floods.running, short.running) == (3, 1))
        floods.let(3)
        short.let(1)
        await asyncio.gather(*calls)
        assert ended[0] == "Good"

    scenario(work)


def test_frames_left_behind_by_a_closed_stream_are_handled_in_their_turn() -> None:
    """The response ended in good order behind a flood: everything it said counts, the end as well."""

    async def work(node: Node) -> None:
        async def writer(exchange: Exchange) -> None:
            respond(exchange)
            await exchange.write(AWAITING * 5_000 + output(b"1") + END)
            exchange.end()

        endpoints(node, writer)
        answered = await node.dispatcher.call(node.request())
        assert isinstance(answered, Success) and answered.body == b"1"
        assert node.metrics.attempts_failed == 0

    scenario(work)


def test_a_deployment_that_takes_nothing_fails_the_attempt(monkeypatch: pytest.MonkeyPatch) -> None:
    """What is forwarded to it queues up here, to a bound."""
    monkeypatch.setattr(attempt_run, "UNSENT_BYTES_MAX", 1_000_000)

    async def work(node: Node) -> None:
        begun = asyncio.Event()

        async def deaf(exchange: Exchange) -> None:
            respond(exchange)
            await exchange.write(AWAITING)
            begun.set()
            await asyncio.Event().wait()

        endpoints(node, deaf)
        sent = await node.dispatcher.send(node.request())
        assert isinstance(sent, Accepted)
        await begun.wait()
        for index in range(17, 17 + 4):
            await node.dispatcher.complete_awakeable(sent.invocation_id, index, bytes(1_000_000), None)
        await until(lambda: node.metrics.attempts_failed == 1)
        row = node.host.processors[PartitionId(0)]._tables.invocation(sent.invocation_id)
        await until(lambda: getattr(row, "last_failure", None) is not None)
        failure = row.last_failure  # type: ignore[union-attr]
        assert failure is not None and failure.doc_code == "RT0001"
        assert "does not take what it is sent (1000000 bytes wait)" in failure.message

    scenario(work)


# -- the ingress' side ------------------------------------------------------------------------------------------------


def test_more_waiting_requests_than_may_be_are_told_to_come_later() -> None:
    async def work(node: Node) -> None:
        handlers = Handlers()
        endpoints(node, handlers)
        node.dispatcher._waiting_max = 3
        calls = [asyncio.ensure_future(node.dispatcher.call(node.request())) for _ in range(3)]
        await until(lambda: handlers.running == 3)
        assert await node.dispatcher.call(node.request()) == Overloaded()
        handlers.let(4)
        assert all(isinstance(answered, Success) for answered in await asyncio.gather(*calls))
        assert isinstance(await node.dispatcher.call(node.request()), Success)

    scenario(work)


def test_more_bytes_than_the_log_has_taken_are_told_to_come_later(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dispatcher, "INGRESS_BYTES_IN_FLIGHT_MAX", 100_000)

    async def work(node: Node) -> None:
        handlers = Handlers()
        endpoints(node, handlers)
        handlers.let(10)
        node.log.held = True
        calls = [asyncio.ensure_future(node.dispatcher.call(node.request(body=bytes(60_000)))) for _ in range(2)]
        await turns(5)
        assert await node.dispatcher.call(node.request()) == Overloaded()
        node.log.release()
        assert all(isinstance(answered, Success) for answered in await asyncio.gather(*calls))
        assert isinstance(await node.dispatcher.call(node.request()), Success)

    scenario(work)


def test_a_request_that_no_command_can_carry_is_too_large(monkeypatch: pytest.MonkeyPatch) -> None:
    """413, and not 503: coming again will not help. The largest body that fits goes through, in parts."""
    monkeypatch.setattr(tail, "PAYLOAD_MAX", 2_000_000)

    async def work(node: Node) -> None:
        handlers = Handlers()
        endpoints(node, handlers)
        handlers.let(2)
        call = paths.Call(node.request(body=bytes(2_000_000)))
        refused = await answering.respond(node.dispatcher, node.metadata.schema, call)
        assert refused.status == 413
        assert not node.dispatcher._waiters
        taken = paths.Call(node.request(body=bytes(1_990_000)))
        assert (await answering.respond(node.dispatcher, node.metadata.schema, taken)).status == 200

    scenario(work)


@pytest.fixture(autouse=True)
def quiet(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Nothing is logged as an error, whatever is full."""
    yield
    assert not [record for record in caplog.records if record.levelname in ("ERROR", "CRITICAL")], caplog.text

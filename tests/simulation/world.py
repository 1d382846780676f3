"""The world of one seed: a node that dies and comes back, its deployments, the weather, and the moment of calm."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import random
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeVar

from perdure_processor import processor as processor_module
from perdure_processor.cluster.metadata_machine import Applied, RegisterDeployment
from perdure_processor.invoker import invoker as invoker_module
from perdure_processor.invoker.transport import StreamRequest
from perdure_processor.leader import shuffle as shuffle_module
from perdure_processor.log.memory import LogFaults
from perdure_processor.model.ids import DeploymentId, PartitionId
from perdure_processor.model.results import RequestId
from perdure_processor.storage import keys
from perdure_processor.storage.keyvalue import KeyValue
from perdure_processor.storage.memory import MemoryKeyValue
from simulation import handlers
from simulation.checker import Checker, live_rows
from simulation.deployments import Deployment, Session
from simulation.faults import Options
from simulation.loop import Life
from simulation.network import Exchange, Network
from simulation.node import METADATA_STORE, History, Node, NodeDown, VirtualClock

T = TypeVar("T")

DOWN_S_MAX = 2.0
WEATHER_S = 0.25  # how often the log's weather is looked at
# Within this virtual time after the last fault everything accepted must have ended.
LIVENESS_S = 400.0
# Results, journals and the proofs of requests are gone by then.
EXPIRED_AFTER_S = handlers.KEPT_MS / 1000 + 300.0


class World:
    """A seed's whole run. Used once."""

    def __init__(self, options: Options) -> None:
        # Until the storm begins nothing goes wrong: a deployment that is not registered cannot be called.
        self._storm = options
        self.options = options.calm()
        self.loop = asyncio.get_running_loop()
        self.clock = VirtualClock(self.loop)
        self.checker = Checker(options.seed)
        self.node_draw = random.Random(f"{options.seed}/node")
        self.log_draw = random.Random(f"{options.seed}/log")
        self.fault_draw = random.Random(f"{options.seed}/faults")
        self.weather: LogFaults = self.options.log_faults()
        self._digest = hashlib.blake2b(digest_size=16)
        self.history = History(self.trace)
        self.disks: dict[PartitionId, MemoryKeyValue] = {}
        self.network = Network(self.options, self._serve)
        self.deployments = self._deploy()
        self.node: Node | None = None
        self.up = asyncio.Event()
        self.lives: list[Life] = []
        self.counts: dict[str, int] = {"crashes": 0, "poisoned": 0, "disk_full": 0, "clock_steps": 0}
        self.awakeables: asyncio.Queue[tuple[bytes, str]] = asyncio.Queue()
        # When the first life of each Mayfly is about to end, for those who aim at that moment.
        self.mayflies: dict[str, float] = {}
        self._uniques = 0
        self._closure_failures: dict[tuple[bytes, int], int] = {}
        self._crash_after_writes = -1
        self._crash_wanted = asyncio.Event()
        # Whether the wall clock was ever wrong: then moments cannot be compared.
        self.stepped = False
        self.loop.set_exception_handler(self._on_exception)

    # -- the trace -----------------------------------------------------------------------------------------
    def trace(self, what: str) -> None:
        """Add to the digest of everything that happened; two runs of a seed must give the same."""
        self._digest.update(f"{self.loop.time():.6f} {what}\n".encode())

    @property
    def digest(self) -> str:
        return self._digest.hexdigest()

    # -- deployments -----------------------------------------------------------------------------------------
    def _deploy(self) -> dict[str, Deployment]:
        """Two endpoints: one speaks full duplex, one answers requests; which serves what is drawn."""
        draw = random.Random(f"{self.options.seed}/deployments")
        services = sorted({service for service, _ in handlers.HANDLERS})
        deployments = {}
        placed = {service: draw.random() < self.options.turns for service in services}
        for uri, full_duplex in (("http://duplex", True), ("http://turns", False)):
            served = {
                place: handler for place, handler in handlers.HANDLERS.items() if placed[place[0]] is not full_duplex
            }
            deployments[uri] = Deployment(self, uri, served, full_duplex, draw.choice((5, 6, 7, 7)))
        return deployments

    def _serve(self, uri: str, request: StreamRequest, exchange: Exchange) -> Session:
        return self.deployments[uri].serve(request, exchange)

    def run_fails(self, invocation_id: bytes, completion_id: int) -> bool:
        """Whether the outside fails this closure once more; the number of failures is drawn at the first one."""
        place = (invocation_id, completion_id)
        left = self._closure_failures.get(place)
        if left is None:
            options = self.options
            fails = self.network.happens("run_fails")
            left = self.network.draw.randint(1, options.run_fails_max) if fails else 0
        self._closure_failures[place] = max(0, left - 1)
        return left > 0

    def unique(self) -> bytes:
        """A number that no closure was given before."""
        self._uniques += 1
        return b"%d" % self._uniques

    def give_away(self, label: bytes, awakeable_id: str) -> None:
        """A handler hands its awakeable to the outside, where somebody completes it; again in each attempt."""
        self.awakeables.put_nowait((label, awakeable_id))

    # -- the node ----------------------------------------------------------------------------------------------
    async def ask(self, question: Callable[[Node], Awaitable[T]]) -> T:
        """Ask the node as a client would; raises NodeDown if it dies before it answers."""
        node = self.node
        if node is None or not self.up.is_set():
            raise NodeDown
        answer: asyncio.Future[T] = self.loop.create_future()
        node.waiting[answer] = None

        async def run() -> None:
            try:
                result = await question(node)
            except Exception as error:
                # The ingress answers for everything; what it raises is a bug of the node.
                self.checker.violated(f"asked, the node raised {type(error).__name__}: {error}")
                if not answer.done():
                    answer.set_exception(NodeDown())
            else:
                if not answer.done():
                    answer.set_result(result)

        task = node.life.spawn(run())
        try:
            return await answer
        finally:
            node.waiting.pop(answer, None)
            if not task.done() and node.life.alive:
                node.life.call(task.cancel)  # the client went away

    async def keep_up(self) -> None:
        """Start the node, and start it again whenever it died."""
        number = 0
        while True:
            number += 1
            node = self.node = Node(self, number)
            self.lives.append(node.life)
            self._crash_wanted.clear()
            started = node.life.spawn(node.start())
            started.add_done_callback(
                lambda task, node=node: self._on_started(node, task), context=self.network.outside
            )
            await self._crash_wanted.wait()
            self.up.clear()
            self.counts["crashes"] += 1
            self.trace("crash")
            node.die()
            self.node = None
            await asyncio.sleep(self.fault_draw.uniform(0, DOWN_S_MAX))

    def _on_started(self, node: Node, task: asyncio.Task[None]) -> None:
        if node is not self.node or not node.life.alive:
            return
        error = None if task.cancelled() else task.exception()
        if error is None:
            self.up.set()
        elif self._log_is_trusty() and not isinstance(error, NodeDown):
            self.checker.violated(f"the node does not start: {type(error).__name__}: {error}")
        else:
            self._crash_wanted.set()  # refused by the log: the operator tries again

    def _log_is_trusty(self) -> bool:
        return self.weather.refused == 0 and self.weather.unknown == 0

    def crash(self) -> None:
        self._crash_wanted.set()

    def on_poisoned(self) -> None:
        """The embedded log refuses everything after a failed sync: the operator restarts the node, after a while."""
        self.counts["poisoned"] += 1
        node = self.node
        pause = self.fault_draw.uniform(0, 1.5)
        self.loop.call_later(pause, lambda: self.crash() if self.node is node else None, context=self.network.outside)

    def on_write(self) -> None:
        if self._crash_after_writes > 0:
            self._crash_after_writes -= 1
            if not self._crash_after_writes:
                self.loop.call_soon(self.crash, context=self.network.outside)

    # -- weather -----------------------------------------------------------------------------------------------
    async def crash_now_and_then(self) -> None:
        draw = self.fault_draw
        for _ in range(self.options.crash_count_max):
            if not self.options.crash_every_s:
                return
            await asyncio.sleep(draw.expovariate(1 / self.options.crash_every_s))
            if not self.options.crash_every_s:
                return
            if draw.random() < 0.5:
                # Right behind a commit: what it asks for was begun, and is lost.
                self._crash_after_writes = draw.randint(1, 10)
            else:
                self.crash()

    async def change_weather(self) -> None:
        draw = self.fault_draw
        full_until = -1.0
        while True:
            options = self.options
            faults = options.log_faults()
            now = self.loop.time()
            fills = options.disk_full_every_s and now > full_until
            if fills and draw.random() < WEATHER_S / options.disk_full_every_s:
                full_until = now + draw.uniform(0, options.disk_full_s_max)
                self.counts["disk_full"] += 1
            changes: dict[str, Any] = {}
            if options.disk_full_every_s and now <= full_until:
                changes["refused"] = 1.0
            if options.slow_sync and draw.random() < options.slow_sync * 4:
                changes["delay_ms_max"] = options.slow_sync_ms_max
            self.weather = LogFaults(**{**_fields(faults), **changes})
            if self.node is not None:
                self.node.log.faults = self.weather
            if options.clock_step_every_s and draw.random() < WEATHER_S / options.clock_step_every_s:
                self.clock.step_ms = int(draw.uniform(-options.clock_step_s_max, options.clock_step_s_max) * 1000)
                self.counts["clock_steps"] += 1
                self.stepped = True
            await asyncio.sleep(WEATHER_S)

    def storm(self) -> None:
        """From here on everything goes wrong that the options name."""
        self.options = self.network.options = self._storm

    def calm(self) -> None:
        """From here on nothing goes wrong any more."""
        self.options = self.network.options = self.options.calm()
        self.weather = self.options.log_faults()
        if self.node is not None:
            self.node.log.faults = self.weather
        self._crash_after_writes = -1
        self.clock.step_ms = 0

    # -- waiting for the end -------------------------------------------------------------------------------------
    def partition_stores(self) -> dict[PartitionId, KeyValue]:
        assert self.node is not None
        return {number: store for number, store in self.node.stores.items() if number != METADATA_STORE}

    def unended(self) -> list[str]:
        """What has not ended, said in words."""
        if not self.up.is_set():
            return ["the node is down"]
        found = []
        for partition, store in self.partition_stores().items():
            for invocation_id, row in live_rows(store):
                found.append(
                    f"{row.target} {invocation_id.hex()} partition={partition} {row.status.name} "
                    f"attempt={row.attempt} entries={row.entries} awaiting={row.awaiting} "
                    f"last failure: {row.last_failure.message if row.last_failure else None}"
                )
            for key, _ in store.scan(keys.OUTBOX, keys.end_of(keys.OUTBOX)):
                found.append(f"message {keys.parse_outbox(key)} of partition {partition} is on its way")
        return found

    def check_idle(self) -> None:
        """A node that has nothing to do holds nothing."""
        assert self.node is not None
        metrics = self.node.metrics
        held = (metrics.attempts_running, metrics.attempts_waiting, metrics.effect_bytes_in_flight)
        self.checker.expect(held == (0, 0, 0), f"attempts running, waiting and bytes in flight of an idle node: {held}")

    def _on_exception(self, _: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        self.checker.violated(f"unhandled: {context['message']}: {type(error).__name__}: {error}")
        logging.getLogger("simulation").error("unhandled in the loop: %s", context["message"], exc_info=error)


def _fields(faults: LogFaults) -> dict[str, Any]:
    return {name: getattr(faults, name) for name in faults.__slots__}


async def register(world: World) -> None:
    """Tell the node of both deployments."""
    for uri, deployment in world.deployments.items():
        services = sorted({service for service, _ in deployment.handlers})

        def command(
            state: Any, request: RequestId, uri: str = uri, services: list[str] = services
        ) -> RegisterDeployment:
            return RegisterDeployment(
                request=request,
                expected_version=state.version,
                id=DeploymentId("dp_" + uri.rpartition("/")[2]),
                uri=uri,
                http1=False,
                bidirectional=world.deployments[uri].full_duplex,
                additional_headers={},
                metadata={},
                min_protocol_version=5,
                max_protocol_version=world.deployments[uri].version_max,
                sdk_version="simulated/1",
                services=[handlers.registered(service) for service in services],
                force=False,
                permit_type_change=False,
            )

        outcome = await world.ask(lambda node, command=command: node.metadata.change(command))
        assert isinstance(outcome, Applied), outcome


@contextlib.contextmanager
def bounds(options: Options) -> Iterator[None]:
    """Bounds that a run would never reach, put where it does."""
    places = (
        (invoker_module, "ATTEMPTS_WAITING_MAX", options.attempts_waiting_max),
        (shuffle_module, "OUTBOX_IN_FLIGHT_MAX", options.outbox_in_flight_max),
        (processor_module, "FLUSH_BYTES", options.flush_bytes),
    )
    before = [getattr(module, name) for module, name, _ in places]
    for module, name, value in places:
        setattr(module, name, value)
    try:
        yield
    finally:
        for (module, name, _), value in zip(places, before, strict=True):
            setattr(module, name, value)

"""◐ shell · Runs attempts: slots, streams, time-outs, and how their effects get to the log.

No task, queue or timer belongs to an attempt: everything here happens in callbacks, and one sweep serves
all time-outs.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from urllib.parse import quote

from perdure.protocol import ids, messages
from perdure.protocol.manifest import negotiate
from perdure_processor.clock import Clock
from perdure_processor.invoker.attempt import Attempt, AttemptError, AttemptStart, AttemptState
from perdure_processor.invoker.attempt_run import AttemptRun
from perdure_processor.invoker.transport import Address, StreamRequest, Transport
from perdure_processor.leader.leader import Leader
from perdure_processor.metrics import Metrics
from perdure_processor.model.actions import AbortAttempt, AckCommand, ForwardNotification, PauseAttempt, StartAttempt
from perdure_processor.model.effects import FailureInfo
from perdure_processor.model.ids import DeploymentId, InvocationId
from perdure_processor.model.limits import (
    ATTEMPT_SWEEP_MS,
    ATTEMPTS_MAX,
    ATTEMPTS_PER_DEPLOYMENT_MAX,
    ATTEMPTS_REMEMBERED,
    ATTEMPTS_WAITING_MAX,
    EAGER_STATE_BYTES_MAX,
    EFFECT_BYTES_IN_FLIGHT_MAX,
    EFFECTS_HELD_MS,
    FLOOD_PAUSE_MS,
    FLOOD_SHARES_AT_ONCE_MAX,
    MESSAGE_SIZE_MAX,
    STREAMS_PER_TURN_MAX,
)
from perdure_processor.model.resolution import DEFAULT_RETRY_POLICY
from perdure_processor.model.schema import DeploymentSchema, HandlerSchema, RetryPolicy, Schema, ServiceSchema
from perdure_processor.state_machine.objects import suffix_of
from perdure_processor.storage.records import Live
from perdure_processor.storage.tables import read_invocation, read_segments, read_state


@dataclass(slots=True)
class InvokerOptions:
    """What the configuration says about attempts."""

    cluster_name: str = "localcluster"
    protocol_v7: bool = False
    disable_eager_state: bool = False
    eager_state_bytes_max: int = EAGER_STATE_BYTES_MAX
    message_size_max: int = MESSAGE_SIZE_MAX
    attempts_max: int = ATTEMPTS_MAX
    attempts_per_deployment_max: int = ATTEMPTS_PER_DEPLOYMENT_MAX
    effect_bytes_in_flight_max: int = EFFECT_BYTES_IN_FLIGHT_MAX
    sweep_ms: int = ATTEMPT_SWEEP_MS
    # Holds where no service says otherwise, e.g. because none of that name is registered any more.
    default_policy: RetryPolicy = DEFAULT_RETRY_POLICY


class Invoker:
    """All attempts of this node, whichever partition leads them."""

    def __init__(
        self,
        transport: Transport,
        schema: Callable[[], Schema],
        clock: Clock,
        options: InvokerOptions,
        *,
        random: Callable[[], float],
        metrics: Metrics,
    ) -> None:
        self.clock = clock
        self.options = options
        self.random = random
        self.schema = schema
        self.metrics = metrics
        self.loop = asyncio.get_running_loop()
        self._transport = transport
        self._runs: dict[InvocationId, AttemptRun] = {}
        # Attempts that failed, the last of each invocation, the oldest first: for people.
        self._failed: dict[InvocationId, AttemptState] = {}
        # Streams whose attempt has ended, until the peer ends its response.
        self._draining: dict[AttemptRun, None] = {}
        self._waiting: deque[tuple[Leader, StartAttempt]] = deque()
        self._waiting_ids: dict[InvocationId, int] = {}
        # Attempts held back because their deployment has all the slots it may have.
        self._blocked: dict[DeploymentId, deque[tuple[Leader, StartAttempt]]] = {}
        self._per_deployment: dict[DeploymentId, int] = {}
        self._leaders_behind: dict[Leader, None] = {}
        self._held: dict[AttemptRun, None] = {}
        self._hold_timer: asyncio.TimerHandle | None = None
        self._unread: dict[AttemptRun, None] = {}
        # Turns of the loop in which frames were handled, and how many streams may still be served in this one.
        self._turn = 0
        self._turn_ends = False
        self._served_left = STREAMS_PER_TURN_MAX
        # Streams that wait for the next turn; and those with more frames than their share of one, in a circle.
        self._next: deque[AttemptRun] = deque()
        self._floods: deque[AttemptRun] = deque()
        self._floods_timer: asyncio.TimerHandle | None = None
        self.bytes_in_flight = 0
        self._sweep_handle = self.loop.call_later(options.sweep_ms / 1000, self._sweep)

    # -- what leaders ask for ----------------------------------------------------
    def has(self, invocation_id: InvocationId) -> bool:
        """Whether an attempt of it runs or waits here."""
        return invocation_id in self._runs or invocation_id in self._waiting_ids

    def attempts(self) -> dict[InvocationId, AttemptState]:
        """The last attempt of each invocation that is running or backing off, as far as this node remembers."""
        return {**self._failed, **{invocation_id: run.state(running=True) for invocation_id, run in self._runs.items()}}

    def failed(self, run: AttemptRun) -> None:
        """Remember an attempt for those who ask about it until the next one."""
        self._failed.pop(run.id, None)
        self._failed[run.id] = run.state(running=False)
        if len(self._failed) > ATTEMPTS_REMEMBERED:
            del self._failed[next(iter(self._failed))]

    def start(self, leader: Leader, action: StartAttempt) -> bool:
        """Run an attempt, now or when a slot is free. False when too many wait: the leader's scan offers it again."""
        if len(self._runs) >= self.options.attempts_max:
            return self._wait(self._waiting, leader, action)
        return self._start(leader, action)

    def forward(self, leader: Leader, action: ForwardNotification) -> None:
        run = self._runs.get(action.id)
        if run is not None and run.leader is leader and run.attempt_number == action.attempt:
            run.forward(action)

    def acknowledge(self, leader: Leader, action: AckCommand) -> None:
        run = self._runs.get(action.id)
        if run is not None and run.leader is leader and run.attempt_number == action.attempt:
            run.acknowledge(action)

    def abort(self, leader: Leader, action: AbortAttempt) -> None:
        run = self._runs.get(action.id)
        if run is not None and run.leader is leader and run.attempt_number == action.attempt:
            run.abandon()

    def pause(self, leader: Leader, action: PauseAttempt) -> None:
        run = self._runs.get(action.id)
        if run is not None and run.leader is leader and run.attempt_number == action.attempt:
            run.ask_to_suspend()

    def leader_gone(self, leader: Leader) -> None:
        """A term ended: reset its attempts, forget what waited for it."""
        for run in [run for run in self._runs.values() if run.leader is leader]:
            run.abandon()
        self._forget_waiting(self._waiting, leader)
        for queue in self._blocked.values():
            self._forget_waiting(queue, leader)
        self.metrics.attempts_waiting = len(self._waiting_ids)
        self._leaders_behind.pop(leader, None)

    async def close(self) -> None:
        """Reset every stream."""
        self._sweep_handle.cancel()
        for timer in (self._hold_timer, self._floods_timer):
            if timer is not None:
                timer.cancel()
        for run in list(self._runs.values()):
            run.abandon()
        await self._transport.close()

    # -- slots -------------------------------------------------------------------
    def _wait(self, queue: deque[tuple[Leader, StartAttempt]], leader: Leader, action: StartAttempt) -> bool:
        if len(self._waiting_ids) >= ATTEMPTS_WAITING_MAX:
            self._leaders_behind[leader] = None
            leader.scan_again()
            return False
        # Only the id is kept: the input is in the journal, the row may change until its turn comes.
        queue.append((leader, StartAttempt(action.id, action.incarnation, action.attempt, None)))
        self._waiting_ids[action.id] = action.attempt
        self.metrics.attempts_waiting = len(self._waiting_ids)
        return True

    def _forget_waiting(self, queue: deque[tuple[Leader, StartAttempt]], leader: Leader) -> None:
        kept = [entry for entry in queue if entry[0] is not leader]
        for other, action in queue:
            if other is leader:
                self._waiting_ids.pop(action.id, None)
        queue.clear()
        queue.extend(kept)

    def release(self, run: AttemptRun) -> None:
        """An attempt is over: its slot goes to the next one."""
        if self._runs.get(run.id) is run:
            del self._runs[run.id]
        self._held.pop(run, None)
        deployment_id = run.deployment_id
        left = self._per_deployment[deployment_id] - 1
        if left:
            self._per_deployment[deployment_id] = left
        else:
            del self._per_deployment[deployment_id]
        self.metrics.attempts_running = len(self._runs)
        if self._waiting or self._blocked:
            self._start_waiting(deployment_id)
        if self._leaders_behind and len(self._waiting_ids) <= ATTEMPTS_WAITING_MAX // 2:
            behind, self._leaders_behind = self._leaders_behind, {}
            for leader in behind:
                leader.on_room()

    def _start_waiting(self, freed: DeploymentId) -> None:
        """One slot came free: first for the deployment that had to hold back, else for whoever is next."""
        blocked = self._blocked.get(freed)
        while len(self._runs) < self.options.attempts_max:
            if blocked and self._per_deployment.get(freed, 0) < self.options.attempts_per_deployment_max:
                leader, action = blocked.popleft()
                if not blocked:
                    del self._blocked[freed]
            elif self._waiting:
                leader, action = self._waiting.popleft()
            else:
                break
            self._waiting_ids.pop(action.id, None)
            if not leader.closed:
                self._start(leader, action)
        self.metrics.attempts_waiting = len(self._waiting_ids)

    # -- starting an attempt -------------------------------------------------------
    def _start(self, leader: Leader, action: StartAttempt) -> bool:
        row = action.row
        if row is None or row.attempt != action.attempt:
            found = read_invocation(leader.store, action.id)
            if type(found) is not Live or (found.incarnation, found.attempt) != (action.incarnation, action.attempt):
                return True  # another attempt, or the end, has taken its place
            row = found
        assert action.id not in self._runs, f"{row.target} has an attempt that has not ended"
        schema = self.schema()
        service = schema.services.get(row.target.service)
        handler = None if service is None else service.handlers.get(row.target.handler)
        pinned = row.deployment_id is not None
        deployment_id = row.deployment_id or (service.deployment_id if service is not None else None)
        deployment = None if deployment_id is None else schema.deployments.get(deployment_id)
        if deployment is None:
            self._fail_unstarted(leader, action, row, handler, _no_deployment(row))
            return True
        if self._per_deployment.get(deployment.id, 0) >= self.options.attempts_per_deployment_max:
            return self._wait(self._blocked.setdefault(deployment.id, deque()), leader, action)
        version = row.protocol_version or negotiate(
            deployment.min_protocol_version, deployment.max_protocol_version, self.options.protocol_v7
        )
        if version is None or not deployment.min_protocol_version <= version <= deployment.max_protocol_version:
            self._fail_unstarted(leader, action, row, handler, _no_version(row, deployment))
            return True
        start = AttemptStart(
            action.id,
            action.incarnation,
            action.attempt,
            row.target,
            row.service_kind,
            row.handler_kind,
            row.entries,
            row.commands,
            row.result is not None,
            deployment.id,
            version,
            pinned,
            row.open_runs,
        )
        run = AttemptRun(
            self, leader, Attempt(start, self._resolve, self.options.message_size_max), row, deployment, handler
        )
        self._runs[action.id] = run
        self._per_deployment[deployment.id] = self._per_deployment.get(deployment.id, 0) + 1
        self.metrics.attempts_started += 1
        self.metrics.attempts_running = len(self._runs)
        # One that is to pause is sent what there is and no more, so that it suspends at once.
        bidirectional = deployment.bidirectional and run.inactivity_ms > 0 and not row.pausing
        debug_id = ids.encode_invocation_id(action.id)
        body = self._first_bytes(leader, action, row, handler, debug_id)
        run.open(
            self._transport.open(
                Address(deployment.uri, deployment.http1),
                self._request(leader, start, deployment, debug_id, bidirectional),
                run,
            ),
            body,
            bidirectional,
        )
        return True

    def _resolve(self, service_name: str, handler_name: str) -> tuple[ServiceSchema, HandlerSchema] | None:
        service = self.schema().services.get(service_name)
        handler = None if service is None else service.handlers.get(handler_name)
        return None if service is None or handler is None else (service, handler)

    def _first_bytes(
        self, leader: Leader, action: StartAttempt, row: Live, handler: HandlerSchema | None, debug_id: str
    ) -> bytes:
        """Start and the replay, read in one go: nothing can change between them."""
        if action.input is not None and row.entries == 1:
            replay = action.input
        else:
            segments = read_segments(leader.store, action.id, row.segments)
            replay = b"".join([frames for _, _, frames in segments])
        state: list[tuple[bytes, bytes]] = []
        partial = True
        key = row.target.key
        if (
            key is not None
            and not self.options.disable_eager_state
            and not (handler is not None and handler.lazy_state)
        ):
            state, partial = self._eager_state(leader, action.id, row)
        now_ms = self.clock.now_ms()
        return (
            messages.start_frame(
                action.id,
                debug_id,
                row.entries,
                state,
                partial_state=partial,
                key=key or "",
                retry_count=row.retries_since_entry,
                duration_since_last_entry_ms=max(0, now_ms - row.modified_ms),
                random_seed=seed_of(action.id),
            )
            + replay
        )

    def _eager_state(
        self, leader: Leader, invocation_id: InvocationId, row: Live
    ) -> tuple[list[tuple[bytes, bytes]], bool]:
        """The object's state up to the size limit, and whether something was left out."""
        suffix = suffix_of(invocation_id, row.target)
        room = self.options.eager_state_bytes_max
        state: list[tuple[bytes, bytes]] = []
        for name, value in read_state(leader.store, suffix):
            room -= len(name) + len(value)
            if room < 0:
                return state, True
            state.append((name, value))
        return state, False

    def _request(
        self, leader: Leader, start: AttemptStart, deployment: DeploymentSchema, debug_id: str, bidirectional: bool
    ) -> StreamRequest:
        content_type = f"application/vnd.restate.invocation.v{start.protocol_version}"
        headers = [
            ("content-type", content_type),
            ("accept", content_type),
            ("x-restate-invocation-id", debug_id),
            ("x-restate-cluster-name", self.options.cluster_name),
            ("x-perdure-attempt", f"{leader.epoch}.{start.attempt}"),
        ]
        if start.target.key is not None:
            headers.append(("x-restate-service-key", quote(start.target.key, safe="")))
        headers.extend(deployment.additional_headers.items())
        path = f"/invoke/{start.target.service}/{start.target.handler}"
        return StreamRequest("POST", path, headers, bidirectional)

    def _fail_unstarted(
        self, leader: Leader, action: StartAttempt, row: Live, handler: HandlerSchema | None, failure: FailureInfo
    ) -> None:
        """There is nowhere to send it: a failed attempt all the same, so that it is retried and seen."""
        error = AttemptError(failure, counts_since_entry=False)
        AttemptRun.propose_failure(self, leader, action, row, handler, error)

    # -- effects on their way --------------------------------------------------------
    def hold(self, run: AttemptRun) -> None:
        """Nobody waits for its effects: propose them in EFFECTS_HELD_MS, or with what comes until then."""
        self._held[run] = None
        if self._hold_timer is None:
            self._hold_timer = self.loop.call_later(EFFECTS_HELD_MS / 1000, self._flush_held)

    def _flush_held(self) -> None:
        self._hold_timer = None
        held, self._held = self._held, {}
        for run in held:
            run.flush()

    def may_handle(self, run: AttemptRun) -> bool:
        """Whether frames that just came may be handled in this turn; if not, `handle` is called in the next one."""
        may = run.turn != self._turn and self._served_left > 0
        if may:
            run.turn = self._turn
            self._served_left -= 1
        else:
            self._next.append(run)
        if not self._turn_ends:
            self._turn_ends = True
            self.loop.call_soon(self._next_turn)
        return may

    def handle_flood(self, run: AttemptRun) -> None:
        """Call its `handle` when everyone else who has more than a share of frames had one, and others had time."""
        self._floods.append(run)
        if self._floods_timer is None:
            self._floods_timer = self.loop.call_later(FLOOD_PAUSE_MS / 1000, self._handle_floods)

    def _next_turn(self) -> None:
        self._turn_ends = False
        self._turn += 1
        self._served_left = STREAMS_PER_TURN_MAX
        for _ in range(min(STREAMS_PER_TURN_MAX, len(self._next))):
            run = self._next.popleft()
            if self.may_handle(run):
                run.handle()

    def _handle_floods(self) -> None:
        self._floods_timer = None
        for _ in range(FLOOD_SHARES_AT_ONCE_MAX):
            if not self._floods:
                return
            self._floods.popleft().handle()  # one that is not done comes back
        if self._floods and self._floods_timer is None:
            self._floods_timer = self.loop.call_later(FLOOD_PAUSE_MS / 1000, self._handle_floods)

    def may_read(self) -> bool:
        """Whether streams may send more; when not, they are resumed as room comes back."""
        return self.bytes_in_flight < self.options.effect_bytes_in_flight_max

    def count_bytes(self, change: int) -> None:
        self.bytes_in_flight += change
        self.metrics.effect_bytes_in_flight = self.bytes_in_flight
        if change < 0 and self._unread and self.may_read():
            unread, self._unread = self._unread, {}
            for run in unread:
                run.read_on()

    def stop_reading(self, run: AttemptRun) -> None:
        self._unread[run] = None

    # -- time ------------------------------------------------------------------------
    def drain(self, run: AttemptRun) -> None:
        """The attempt has ended, its stream not yet."""
        self._draining[run] = None

    def drained(self, run: AttemptRun) -> None:
        self._draining.pop(run, None)

    def _sweep(self) -> None:
        """Once per `sweep_ms`: every time-out of every attempt."""
        now_ms = self.clock.monotonic_ms()
        for run in list(self._runs.values()):
            run.check_time(now_ms)
        for run in list(self._draining):
            run.check_drain(now_ms)
        self._sweep_handle = self.loop.call_later(self.options.sweep_ms / 1000, self._sweep)


def seed_of(invocation_id: InvocationId) -> int:
    """The handler's random seed: any number that is the same in every attempt."""
    return int.from_bytes(invocation_id[16:24], "big") ^ int.from_bytes(invocation_id[8:16], "big")


def _no_deployment(row: Live) -> FailureInfo:
    if row.deployment_id is not None:
        return FailureInfo(
            500,
            f"the deployment {row.deployment_id}, which this invocation is pinned to, is no longer registered; "
            "register it again, or resume the invocation on another deployment",
            "RT0014",
        )
    return FailureInfo(500, f"no deployment is registered for the service '{row.target.service}'", "RT0011")


def _no_version(row: Live, deployment: DeploymentSchema) -> FailureInfo:
    offered = f"the deployment {deployment.id} speaks protocol versions {deployment.min_protocol_version} to "
    offered += str(deployment.max_protocol_version)
    if row.protocol_version:
        return FailureInfo(
            500, f"this invocation is pinned to protocol version {row.protocol_version}, but {offered}", "RT0014"
        )
    return FailureInfo(500, f"incompatible protocol versions: {offered}, this server 5 to 6 (7 when enabled)", "RT0013")

"""◐ shell · One running attempt: its stream on one side, its leader on the other, its time-outs between."""

from __future__ import annotations

import datetime
import email.utils
import enum
import re
from collections import deque
from collections.abc import Sequence
from typing import TYPE_CHECKING

from perdure_processor.invoker.attempt import Attempt, AttemptError, AttemptState, Behavior
from perdure_processor.invoker.mismatch import with_recorded
from perdure_processor.invoker.retry import after_failure
from perdure_processor.invoker.transport import Closed, Stream
from perdure_processor.log import Outcome
from perdure_processor.model.actions import AckCommand, ForwardNotification, StartAttempt
from perdure_processor.model.commands import AttemptEffects
from perdure_processor.model.effects import AfterFailure, AttemptFailed, Effect, FailureInfo, Kill, Pause, Suspended
from perdure_processor.model.ids import DeploymentId, InvocationId
from perdure_processor.model.limits import (
    ABORT_TIMEOUT_MS,
    DRAIN_MS,
    EFFECT_RECORD_OVERHEAD_BYTES,
    EFFECTS_HELD_BYTES_MAX,
    EFFECTS_IN_FLIGHT_MAX,
    EFFECTS_PER_PROPOSAL_MAX,
    FRAMES_AT_ONCE_MAX,
    INACTIVITY_TIMEOUT_MS,
    PART_PAYLOAD_MAX,
    UNSENT_BYTES_MAX,
)
from perdure_processor.model.schema import DeploymentSchema, HandlerSchema
from perdure_processor.storage.records import Live
from perdure_processor.storage.tables import read_invocation, read_segments

if TYPE_CHECKING:
    from perdure_processor.invoker.invoker import Invoker
    from perdure_processor.leader.leader import Leader


class Phase(enum.Enum):
    """RUNNING until a terminal message or a failure; DRAINING until the response ends; then CLOSED."""

    RUNNING = 0
    DRAINING = 1
    CLOSED = 2


class AttemptRun:
    """Implements StreamEvents for one attempt."""

    __slots__ = (
        "_attempt",
        "_closed",
        "_deadline_ms",
        "_effects_in_flight",
        "_failures",
        "_half_closed",
        "_handler",
        "_invoker",
        "_phase",
        "_proposed",
        "_response_ok",
        "_stalled",
        "_stream",
        "_unconsumed",
        "_waiting",
        "abort_ms",
        "attempt_number",
        "deployment_id",
        "id",
        "inactivity_ms",
        "leader",
        "server",
        "started_ms",
        "turn",
    )

    def __init__(
        self,
        invoker: Invoker,
        leader: Leader,
        attempt: Attempt,
        row: Live,
        deployment: DeploymentSchema,
        handler: HandlerSchema | None,
    ) -> None:
        self._invoker = invoker
        self.leader = leader
        self._attempt = attempt
        self.id: InvocationId = attempt.start.id
        self.attempt_number = attempt.start.attempt
        self.deployment_id: DeploymentId = deployment.id
        self._handler = handler
        self._failures = row.retry_count
        self.inactivity_ms = INACTIVITY_TIMEOUT_MS if handler is None else handler.inactivity_timeout_ms
        self.abort_ms = ABORT_TIMEOUT_MS if handler is None else handler.abort_timeout_ms
        self.started_ms = invoker.clock.now_ms()
        self.server: str | None = None
        self._phase = Phase.RUNNING
        self._stream: Stream | None = None
        self._half_closed = False
        self._response_ok = False
        self._deadline_ms = 0
        # Received and not yet given back to the peer as room.
        self._unconsumed = 0
        # The turn of the loop in which frames were last handled; the invoker's to read and write.
        self.turn = -1
        # Frames wait for a turn, or (stalled) for what was proposed to be recorded.
        self._waiting = False
        self._stalled = False
        # The stream is over, and frames that it has left behind are not handled yet.
        self._closed: Closed | None = None
        # (effects, bytes) of each proposal on its way, oldest first.
        self._proposed: deque[tuple[int, int]] = deque()
        self._effects_in_flight = 0

    def state(self, *, running: bool) -> AttemptState:
        """What there is to say of it beside what is stored."""
        return AttemptState(running, self.started_ms, self.deployment_id, self.server, self._attempt.awaiting)

    # -- the stream ----------------------------------------------------------------
    def open(self, stream: Stream, body: bytes, bidirectional: bool) -> None:
        """Send Start and the replay; in request/response mode that is all there will be."""
        self._stream = stream
        stream.send(body)
        if not bidirectional:
            self._half_close()
        self._touch()

    def on_response(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        if self._phase is not Phase.RUNNING:
            return
        values = dict(headers)
        self.server = values.get("x-restate-server")
        self._touch()
        if not 200 <= status < 300:
            self.fail(_status_error(self._attempt, status, values, self._invoker.clock.now_ms()))
            return
        expected = f"application/vnd.restate.invocation.v{self._attempt.start.protocol_version}"
        found = values.get("content-type")
        if found != expected:
            self.fail(
                _error(self._attempt, "RT0012", f"the response has content-type '{found}', expected '{expected}'")
            )
            return
        self._response_ok = True

    def on_data(self, data: bytes) -> None:
        size = len(data)
        if self._phase is not Phase.RUNNING:
            if self._stream is not None:
                self._stream.consumed(size)
            return
        self._unconsumed += size
        self._invoker.count_bytes(size)
        self._touch()
        self._attempt.receive(data)
        if not self._waiting:
            if self._invoker.may_handle(self):
                self.handle()
            else:
                self._waiting = True

    def on_closed(self, closed: Closed) -> None:
        self._stream = None
        if self._waiting and self._phase is Phase.RUNNING:
            self._closed = closed  # complete messages are still waiting for their turn: they count
        else:
            self._close(closed)

    def _close(self, closed: Closed) -> None:
        if self._phase is Phase.RUNNING:
            if closed.error is None:
                self.fail(self._attempt.closed_early())
            else:
                self.fail(_error(self._attempt, "RT0010", f"the connection failed: {closed.error}"))
        self._phase = Phase.CLOSED
        self._invoker.drained(self)

    # -- frames ----------------------------------------------------------------------
    def handle(self) -> None:
        """Some frames now, the rest later: a flood must not hold up the others."""
        self._waiting = False
        if self._phase is not Phase.RUNNING:
            return
        attempt = self._attempt
        try:
            more = attempt.advance(FRAMES_AT_ONCE_MAX)
        except AttemptError as error:
            self.fail(error)
            return
        if attempt.ended:
            self._end()
            return
        effects = len(attempt.effects)
        if (
            attempt.wants_flush
            or attempt.effects_bytes >= EFFECTS_HELD_BYTES_MAX
            or effects >= EFFECTS_PER_PROPOSAL_MAX
        ):
            self.flush()
        elif effects:
            self._invoker.hold(self)
        if more:
            self._waiting = True
            if self._effects_in_flight > EFFECTS_IN_FLIGHT_MAX:
                self._stalled = True  # the next acknowledgement goes on
            else:
                self._invoker.handle_flood(self)
        elif self._closed is not None:
            self._close(self._closed)
        else:
            self.read_on()

    def read_on(self) -> None:
        """Give the peer room again, unless too much of it is on its way already."""
        if self._effects_in_flight > EFFECTS_IN_FLIGHT_MAX:
            return  # the next acknowledgement reads on
        if self._stalled:
            self._stalled = False
            self._invoker.handle_flood(self)
            return
        if not self._unconsumed or self._stream is None or self._waiting:
            return
        # A frame that has begun may come to its end, or nobody's would.
        if not self._invoker.may_read() and not self._attempt.pending_bytes:
            self._invoker.stop_reading(self)
            return
        self._give_back()

    def _give_back(self) -> None:
        size, self._unconsumed = self._unconsumed, 0
        if size:
            if self._stream is not None:
                self._stream.consumed(size)
            self._invoker.count_bytes(-size)

    # -- proposals -------------------------------------------------------------------
    def flush(self) -> None:
        """Propose what was held back."""
        if self._phase is Phase.CLOSED or not self._attempt.effects:
            return
        index, effects = self._attempt.take_effects()
        self._propose(index, effects)

    def _propose(self, index: int, effects: list[Effect]) -> None:
        """One command, or several that each fit into a record: cut between effects (correctness 12)."""
        start = self._attempt.start
        for first, chunk, size in _chunks(index, effects):
            self._proposed.append((len(chunk), size))
            self._effects_in_flight += len(chunk)
            self._invoker.count_bytes(size)
            self.leader.propose(
                AttemptEffects(self.id, start.incarnation, self.attempt_number, first, chunk), self._on_recorded
            )

    def _on_recorded(self, _outcome: Outcome) -> None:
        count, size = self._proposed.popleft()
        self._effects_in_flight -= count
        self._invoker.count_bytes(-size)
        self.read_on()

    def forward(self, action: ForwardNotification) -> None:
        """A notification was stored: pass it on, unless this attempt will see it in no other way than a replay."""
        if self._phase is not Phase.RUNNING or self._half_closed or self._stream is None:
            return
        self._send(self._attempt.forward(action.index, action.frame, action.ack))

    def acknowledge(self, action: AckCommand) -> None:
        """A command was stored whose frame asked for this; a stream that is half closed hears nothing more."""
        if self._phase is not Phase.RUNNING or self._half_closed or self._stream is None:
            return
        self._send(self._attempt.acknowledge(action.command_index))

    def _send(self, data: bytes | None) -> None:
        if data is None or self._stream is None:
            return
        self._stream.send(data)
        self._touch()
        if self._stream.unsent > UNSENT_BYTES_MAX:
            self.fail(
                _error(
                    self._attempt,
                    "RT0001",
                    f"the deployment does not take what it is sent ({UNSENT_BYTES_MAX} bytes wait)",
                )
            )

    # -- ends ------------------------------------------------------------------------
    def _end(self) -> None:
        if isinstance(self._attempt.effects[-1], Suspended):
            self._invoker.metrics.attempts_suspended += 1
        else:
            self._invoker.metrics.attempts_completed += 1
        self.flush()
        self._finish()

    def fail(self, error: AttemptError) -> None:
        """The attempt ends here: by one proposal, sequenced after all its effects (correctness 1)."""
        if self._phase is not Phase.RUNNING:
            return
        self._invoker.metrics.attempts_failed += 1
        self._invoker.failed(self)
        index, effects = self._attempt.take_effects()
        then = decide(self._invoker, self._handler, self._failures, error)
        effects.append(AttemptFailed(self._explained(error.failure), then, error.counts_since_entry))
        self._propose(index, effects)
        if error.failure.doc_code in ("RT0007", "RT0016") and self._response_ok:
            self._finish()  # the SDK said so itself, and closes the stream in order
        else:
            self.abandon()

    def _explained(self, failure: FailureInfo) -> FailureInfo:
        """A failure as it is, but a mismatch with what was recorded, for whoever has to mend it."""
        start = self._attempt.start
        index = failure.command_index
        if failure.doc_code != "RT0016" or index is None or index >= start.commands:
            return failure
        row = read_invocation(self.leader.store, self.id)
        if not isinstance(row, Live) or row.incarnation != start.incarnation:
            return failure  # it was ended meanwhile, and nobody hears of this attempt
        return with_recorded(failure, read_segments(self.leader.store, self.id, row.segments))

    def _finish(self) -> None:
        """Half-close, and wait a little for the peer to end its response."""
        self._phase = Phase.DRAINING
        self._give_back()
        self._invoker.release(self)
        if self._stream is not None:
            self._half_close()
            self._deadline_ms = self._invoker.clock.monotonic_ms() + DRAIN_MS
            self._invoker.drain(self)

    def abandon(self) -> None:
        """Reset the stream, now; nothing it still says counts."""
        if self._phase is Phase.RUNNING:
            self._phase = Phase.DRAINING
            self._give_back()
            self._invoker.release(self)
        if self._stream is not None:
            self._stream.reset()

    def _half_close(self) -> None:
        if not self._half_closed and self._stream is not None:
            self._half_closed = True
            self._stream.finish()

    def ask_to_suspend(self) -> None:
        """The handler shall suspend as soon as it waits; one that does not is aborted in the end."""
        if self._phase is Phase.RUNNING and not self._half_closed:
            self._half_close()
            self._touch()

    # -- time --------------------------------------------------------------------------
    def _touch(self) -> None:
        wait_ms = self.abort_ms if self._half_closed else self.inactivity_ms
        self._deadline_ms = self._invoker.clock.monotonic_ms() + wait_ms

    def check_time(self, now_ms: int) -> None:
        if now_ms < self._deadline_ms or self._waiting:
            return  # what has come and was not looked at yet is no silence
        if not self._half_closed:
            # Nothing happened for a while: the handler is asked to suspend.
            self._half_close()
            self._touch()
            return
        self.fail(
            _error(
                self._attempt,
                "RT0001",
                f"the attempt was aborted: nothing came for {self.abort_ms} ms after the handler was asked to suspend",
            )
        )

    def check_drain(self, now_ms: int) -> None:
        if now_ms >= self._deadline_ms:
            self.abandon()
            self._invoker.drained(self)

    @staticmethod
    def propose_failure(
        invoker: Invoker,
        leader: Leader,
        action: StartAttempt,
        row: Live,
        handler: HandlerSchema | None,
        error: AttemptError,
    ) -> None:
        """An attempt that could not even be started."""
        invoker.metrics.attempts_failed += 1
        then = decide(invoker, handler, row.retry_count, error)
        failed = AttemptFailed(error.failure, then, error.counts_since_entry)
        leader.propose(AttemptEffects(action.id, action.incarnation, action.attempt, row.commands, [failed]))


def decide(invoker: Invoker, handler: HandlerSchema | None, failures: int, error: AttemptError) -> AfterFailure:
    """What follows a failure: as the SDK or the failure itself says, else by the retry policy."""
    match error.behavior:
        case Behavior.PAUSE:
            return Pause()
        case Behavior.KILL:
            return Kill()
    policy = invoker.options.default_policy if handler is None else handler.retry_policy
    return after_failure(policy, failures + 1, error.delay_ms, invoker.clock.now_ms(), invoker.random())


def _chunks(index: int, effects: list[Effect]) -> list[tuple[int, list[Effect], int]]:
    """Effects cut into commands that fit a record: (index of the first command, effects, bytes)."""
    chunks: list[tuple[int, list[Effect], int]] = []
    chunk: list[Effect] = []
    size = 0
    first = index
    for effect in effects:
        frame = getattr(effect, "frame", b"")
        cost = len(frame) + EFFECT_RECORD_OVERHEAD_BYTES
        if chunk and size + cost > PART_PAYLOAD_MAX:
            chunks.append((first, chunk, size))
            chunk, size, first = [], 0, index
        chunk.append(effect)
        size += cost
        if len(frame) > 1 and 0x04 <= frame[0] < 0x80:
            index += 1
    chunks.append((first, chunk, size))
    return chunks


def _error(attempt: Attempt, doc_code: str, what: str) -> AttemptError:
    target = attempt.start.target
    return AttemptError(
        FailureInfo(500, f"{target.service}/{target.handler}: {what}", doc_code, command_index=attempt.command_index)
    )


# Digits of ASCII, and no more of them than a wait can have; others are as good as none.
_SECONDS = re.compile(r"\s*([0-9]{1,12})\s*", re.ASCII)
_STATUS_CODES = {413: "RT0019", 415: "RT0015", 429: "RT0023", 503: "RT0023", 502: "RT0010", 504: "RT0010"}


def _status_error(attempt: Attempt, status: int, headers: dict[str, str], now_ms: int) -> AttemptError:
    error = _error(attempt, _STATUS_CODES.get(status, "RT0012"), f"the deployment answered with status {status}")
    if status in (429, 503):
        error.delay_ms = _retry_after_ms(headers.get("retry-after"), now_ms)
    error.counts_since_entry = status != 415
    return error


def _retry_after_ms(text: str | None, now_ms: int) -> int | None:
    """Retry-After in seconds or as a date; None when absent or unreadable."""
    if text is None:
        return None
    match = _SECONDS.fullmatch(text)
    if match is not None:
        return int(match[1]) * 1000
    try:
        date = email.utils.parsedate_to_datetime(text)
        # "-0000" is UTC of which nothing more is known, and no local time.
        date = date if date.tzinfo is not None else date.replace(tzinfo=datetime.UTC)
        return max(0, int(date.timestamp() * 1000) - now_ms)
    except (ValueError, OverflowError):
        return None

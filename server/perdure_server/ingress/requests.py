"""● core · What the ingress asks of the node, and what it gets back: the seam between HTTP and the log."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol, TypeAlias

from perdure_processor.model.ids import InvocationId, InvocationTarget, Millis
from perdure_processor.model.schema import HandlerSchema, ServiceSchema
from perdure_processor.model.value import value


@value
class InvokeRequest:
    """A call or send of one handler, checked against the schema; nothing is stored yet.

    `headers` are what the handler shall see, in order: x-restate-ingress-path first.
    `delay_ms` is None for "now" and only ever set on sends."""

    service: ServiceSchema
    handler: HandlerSchema
    target: InvocationTarget
    headers: Sequence[tuple[str, str]]
    body: bytes
    idempotency_key: str | None
    delay_ms: int | None


@value
class Success:
    """The handler's output. `expires_ms` is set when the result was stored before the request came."""

    invocation_id: InvocationId
    body: bytes
    expires_ms: Millis | None = None
    # Whose output it is, where that is known: it decides the content type for who asked by id only.
    target: InvocationTarget | None = None


@value
class Failed:
    """The handler's terminal failure (or the system's in its place, e.g. 409 for a second workflow run)."""

    invocation_id: InvocationId
    code: int
    message: str
    metadata: Mapping[str, str]
    expires_ms: Millis | None = None


@value
class Accepted:
    """A send was recorded. `execution_time_ms` is set for delayed ones: the first due time stands."""

    invocation_id: InvocationId
    previously: bool
    execution_time_ms: Millis | None = None


@value
class NotReady:
    """The invocation exists and has not ended: status 470."""


@value
class NotFound:
    """No such invocation, or its result is no longer kept."""


@value
class NoOutput:
    """The invocation has neither an idempotency key nor is it a workflow run: its output is not kept for clients."""


@value
class Unavailable:
    """Nothing was promised: 503 with the reason. `may_have_run` is True when a repeated write could run twice."""

    reason: str
    may_have_run: bool = False


@value
class Overloaded:
    """Too much is waiting already: 429, try later."""


CallAnswer: TypeAlias = Success | Failed | Unavailable | Overloaded
SendAnswer: TypeAlias = Accepted | Unavailable | Overloaded
AttachAnswer: TypeAlias = Success | Failed | NotFound | Unavailable | Overloaded
OutputAnswer: TypeAlias = Success | Failed | NotFound | NotReady | NoOutput | Unavailable | Overloaded
CompletionAnswer: TypeAlias = Accepted | Unavailable | Overloaded


class Dispatcher(Protocol):
    """The node behind the ingress. Awaiting may be cancelled (the client went away): the invocation goes on."""

    async def call(self, request: InvokeRequest) -> CallAnswer: ...

    async def send(self, request: InvokeRequest) -> SendAnswer: ...

    async def attach(self, invocation_id: InvocationId) -> AttachAnswer: ...

    async def output(self, invocation_id: InvocationId) -> OutputAnswer: ...

    async def complete_awakeable(
        self,
        invocation_id: InvocationId,
        signal_index: int,
        value: bytes | None,
        failure: tuple[int, str] | None,
    ) -> CompletionAnswer:
        """Deliver a signal to an invocation, whether or not it exists: first one wins, others are ignored."""

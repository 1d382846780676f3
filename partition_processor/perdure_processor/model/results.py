"""● core · How an invocation ended, who asked for it, and who is to hear of it."""

from __future__ import annotations

import enum
from dataclasses import field
from typing import TypeAlias

from perdure_processor.model import codec
from perdure_processor.model.ids import CompletionId, Incarnation, InvocationId, Millis
from perdure_processor.model.value import value


@value
class Succeeded:
    """The handler's output, as bytes."""

    value: bytes


@value
class Failed:
    """A terminal failure: the handler's own, or the system's in its place (killed, already invoked, …)."""

    code: int
    message: str
    metadata: dict[str, str] = field(default_factory=dict)


Result: TypeAlias = Succeeded | Failed


@value
class RequestId:
    """What one client or operator asked, once: node, its generation, and a number within it (correctness 3)."""

    node: str
    generation: int
    number: int


@value
class KnownRequest:
    """A request that was applied: made again it changes nothing and gets the same answer (correctness 3)."""

    request: RequestId
    # When it was made or, from then on, when its invocation ended: how long it may still be repeated counts from here.
    issued_ms: Millis
    # What a send was told.
    previously: bool = False
    execution_ms: Millis = Millis(0)
    # The answer, where it is not how the present life of the id ends: that of an earlier life, or a refusal.
    result: Result | None = None
    # What an operator's request did (actions.Deed), and the invocation it created.
    deed: int | None = None
    new_id: InvocationId | None = None


class SinkKind(enum.IntEnum):
    """Which command in the caller's journal waits, and so which notification completes it."""

    CALL = 0
    ATTACH = 1
    OUTPUT = 2
    PROMISE = 3


@value
class CallerSink:
    """A command in another invocation's journal that waits for the result."""

    id: InvocationId
    incarnation: Incarnation
    completion_id: CompletionId
    kind: int = SinkKind.CALL


# Who hears of the end: a waiting request of an ingress node, or a waiting call.
Sink: TypeAlias = RequestId | CallerSink


@value
class Parent:
    """The invocation that called or sent this one; shown to people, never answered."""

    id: InvocationId
    target: str
    service: str


codec.register(1, Succeeded)
codec.register(2, Failed)
codec.register(3, RequestId)
codec.register(4, CallerSink)

"""One sample of everything that is persisted: each command, effect and row, with every field set."""

from __future__ import annotations

from typing import Any

from perdure_processor.model import effects
from perdure_processor.model.commands import (
    AnnounceLeader,
    AttemptEffects,
    ByLeader,
    ByOutbox,
    Envelope,
    Expire,
    Part,
    Respond,
    TimersFired,
    TruncateOutbox,
)
from perdure_processor.model.futures import Combinator, Future
from perdure_processor.model.ids import (
    CompletionId,
    DeploymentId,
    Incarnation,
    LeaderEpoch,
    Millis,
    NodeId,
    PartitionId,
)
from perdure_processor.model.results import CallerSink, Failed, KnownRequest, Parent, RequestId, Succeeded
from perdure_processor.model.schema import HandlerKind, ServiceKind
from perdure_processor.storage.records import Completed, Live, ObjectRow, Progress, Proof, Status, StoreIdentity
from support import builders as b

ID, OTHER = b.invocation_id(b.thing(), "key"), b.invocation_id(b.service(), 7)
REQUEST = RequestId("node-1", (1 << 62) + 5, 42)
SINK = CallerSink(OTHER, Incarnation(9), CompletionId(2))
FAILED = Failed(409, "killed", {"why": "tested"})
FAILURE = effects.FailureInfo(570, "the journal does not match", "RT0016", "at line 1", 3, "name", 0x0411)
FUTURE = Future([1, 2], [1, 17], ["go"], [Future([3], combinator=Combinator.ALL_COMPLETED)])
KNOWN = KnownRequest(REQUEST, Millis(1_000), True, Millis(2_000), FAILED)


def samples() -> dict[str, Any]:
    """By name of the class, a second one with a number."""
    invoke = b.invoke(b.thing(), "key", asked=REQUEST, delay_ms=5_000)
    called = b.call(ID, b.thing("bob"), 4, command_index=3, idempotency_key="k")
    values: list[Any] = [
        # commands
        Envelope(513, ByOutbox(PartitionId(3), 77), invoke),
        Envelope(None, ByLeader(LeaderEpoch(5), 6), Expire(Millis(1_000), 512)),
        invoke,
        b.invoke(b.service(), 7, caller=SINK),
        b.attach(ID, REQUEST),
        b.get_output(ID, REQUEST),
        b.signal(ID, 17, b"v", REQUEST),
        b.signal(ID, "go", b"v"),
        Respond(SINK, Succeeded(b"\x00\xff")),
        Respond(SINK, FAILED),
        AttemptEffects(ID, Incarnation(9), 2, 3, [b.pinned(), called, effects.Suspended(FUTURE)]),
        TimersFired([b"TM1", b"TM2"]),
        Expire(Millis(1_000), 512),
        TruncateOutbox(PartitionId(3), 77),
        AnnounceLeader(NodeId("node-1", 1 << 62), LeaderEpoch(5), 1 << 63),
        Part(b"g" * 16, 1, 3, b"payload"),
        # effects
        b.pinned(),
        b.read_eagerly(b"k", b"v"),
        b.output(b"out"),
        b.set_state(b"k", b"v"),
        b.read_lazily(b"k", 1),
        b.sleep(2, 1_000),
        b.run(3),
        b.run_done(3, ack_wanted=True),
        called,
        effects.SignalSent(b"frame", ID),
        effects.Suspended(FUTURE),
        effects.Ended(),
        effects.AttemptFailed(FAILURE, effects.RetryAt(Millis(1_000), counted=True), True),
        effects.AttemptFailed(FAILURE, effects.Pause(), False),
        effects.AttemptFailed(FAILURE, effects.Kill(), True),
        # rows
        Live(
            Status.SUSPENDED,
            Incarnation(9),
            2,
            b.thing(),
            ServiceKind.VIRTUAL_OBJECT,
            HandlerKind.EXCLUSIVE,
            "key",
            [KNOWN],
            Parent(OTHER, "Greeter/greet", "Greeter"),
            [REQUEST, SINK],
            *(1_000, 2_000),
            *(Millis(at) for at in (10, 20, 30, 40, 50)),
            6,
            DeploymentId("dp_1"),
            7,
            *(3, 4, 5),
            Succeeded(b"out"),
            FUTURE,
            [1, 2],
            [(3, 1_000)],
            [17, 18],
            *(4, 5),
            Millis(60),
            FAILURE,
            Millis(70),
        ),
        Completed(
            Incarnation(9),
            b.thing(),
            ServiceKind.VIRTUAL_OBJECT,
            HandlerKind.EXCLUSIVE,
            "key",
            [KNOWN],
            Parent(OTHER, "Greeter/greet", "Greeter"),
            FAILED,
            *(Millis(at) for at in (10, 20, 30, 40, 50)),
            DeploymentId("dp_1"),
            7,
            *(3, 4, 5),
            *(1_000, 2_000),
            [SINK],
        ),
        Proof([KNOWN], FAILED, Millis(10)),
        ObjectRow(ID, 1, 5),
        Progress(10, 9, Millis(1_000), 5, 6, "node-1:1:2", {1: 7}, {2: 8}, 3),
        StoreIdentity("cluster", "log", 3, 8, 1),
    ]
    named: dict[str, Any] = {}
    for value in values:
        name = type(value).__name__
        named[name if name not in named else f"{name}-{sum(key.startswith(name) for key in named) + 1}"] = value
    return named

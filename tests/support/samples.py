"""One sample of everything that is persisted: each command, effect and row, with every field set."""

from __future__ import annotations

from typing import Any

from perdure_processor.model import effects
from perdure_processor.model.actions import Deed
from perdure_processor.model.commands import (
    AnnounceLeader,
    Ask,
    AttemptEffects,
    ByLeader,
    ByOutbox,
    DropPromises,
    Envelope,
    Expire,
    KillCall,
    Operate,
    Part,
    Repin,
    ReplaceState,
    Respond,
    RestartAsNew,
    Resume,
    TimersFired,
    TruncateOutbox,
    Verb,
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
from perdure_processor.model.results import CallerSink, Failed, KnownRequest, Parent, RequestId, SinkKind, Succeeded
from perdure_processor.model.schema import HandlerKind, ServiceKind
from perdure_processor.storage.records import (
    Completed,
    EventKind,
    JournalEvent,
    Live,
    ObjectRow,
    PendingPatch,
    Progress,
    PromiseRow,
    Proof,
    Status,
    StoreIdentity,
)
from support import builders as b

ID, OTHER = b.invocation_id(b.thing(), "key"), b.invocation_id(b.service(), 7)
REQUEST = RequestId("node-1", (1 << 62) + 5, 42)
SINK = CallerSink(OTHER, Incarnation(9), CompletionId(2))
FAILED = Failed(409, "killed", {"why": "tested"})
FAILURE = effects.FailureInfo(570, "the journal does not match", "RT0016", "at line 1", 3, "name", 0x0411)
MISMATCH = effects.FailureInfo(570, "the journal does not match", "RT0016", "", 3, None, 0x040C, "charge", 0x0411)
FUTURE = Future([1, 2], [1, 17], ["go"], [Future([3], combinator=Combinator.ALL_COMPLETED)])
KNOWN = KnownRequest(REQUEST, Millis(1_000), True, Millis(2_000), FAILED)
OPERATED = KnownRequest(REQUEST, Millis(1_000), deed=Deed.DONE, new_id=OTHER)
ASKER = CallerSink(OTHER, Incarnation(9), CompletionId(2), SinkKind.PROMISE)
REPIN = Repin(DeploymentId("dp_2"), 5, 7)


def samples() -> dict[str, Any]:
    """By name of the class, a second one with a number."""
    invoke = b.invoke(b.thing(), "key", asked=REQUEST, delay_ms=5_000)
    called = b.call(ID, b.thing("bob"), 4, command_index=3, idempotency_key="k")
    # As 0.1.0 wrote them: fields that came later have their defaults.
    live = (
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
    )
    completed = (
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
    )
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
        Respond(ASKER, None),
        Ask(ID, ASKER),
        Operate(ID, Verb.PURGE_JOURNAL, REQUEST, Millis(1_000)),
        Resume(ID, REPIN, REQUEST, Millis(1_000)),
        Resume(ID, None, REQUEST, Millis(1_000)),
        RestartAsNew(ID, OTHER, 3, True, REPIN, REQUEST, Millis(1_000)),
        KillCall(ID, SINK),
        DropPromises(ID, "Flow", "w1", REQUEST, Millis(1_000)),
        ReplaceState(ID, "Counter", "alice", "version", [(b"", b"\x00"), (b"n", b"v")], REQUEST, Millis(1_000)),
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
        effects.PromiseUsed(b"frame", CompletionId(1)),
        effects.InvocationAsked(b"frame", ID, CompletionId(1)),
        effects.AckWanted(),
        effects.AttemptFailed(MISMATCH, effects.Pause(), True),
        # rows
        Live(*live),
        Completed(*completed),
        Live(*live, pausing=True, events=4, restarted_from=OTHER),
        Completed(*completed, 4, OTHER, [(OTHER, 5)]),
        Proof([KNOWN], FAILED, Millis(10)),
        Proof([OPERATED], FAILED, Millis(10), Millis(5)),
        PromiseRow(FAILED, [ASKER]),
        JournalEvent(EventKind.SUSPENDED, 3, Millis(10), 5, FAILURE, FUTURE),
        ObjectRow(ID, 1, 5),
        ObjectRow(None, 1, 5, 2),
        PendingPatch(None, [(b"", b"\x00"), (b"n", b"v")]),
        Progress(10, 9, Millis(1_000), 5, 6, "node-1:1:2", {1: 7}, {2: 8}, 3),
        StoreIdentity("cluster", "log", 3, 8, 1),
    ]
    named: dict[str, Any] = {}
    for value in values:
        name = type(value).__name__
        named[name if name not in named else f"{name}-{sum(key.startswith(name) for key in named) + 1}"] = value
    return named

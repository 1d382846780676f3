"""What the pure core costs: apply and commit, in microseconds for each invocation.

No log, no network, no SDK: commands are built before the clock starts, one process, one thread.  Records are
applied in batches of 1 and of 16, over the memory store and over RocksDB; batches of 16 are 16 invocations side
by side, as under load.  `--profile` shows where the time goes.

    python benchmarks/apply.py [--invocations 20000] [--rounds 5] [--profile greet]
"""

from __future__ import annotations

import argparse
import cProfile
import gc
import pstats
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from perdure.protocol import ids, messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType, encode_frame
from perdure_processor.model.commands import AttemptEffects, ByLeader, Command, Envelope, Invoke
from perdure_processor.model.effects import (
    Effect,
    Ended,
    OutputSet,
    Pinned,
    Recorded,
    RunCompleted,
    RunStarted,
    StateSet,
)
from perdure_processor.model.ids import (
    CompletionId,
    DeploymentId,
    Incarnation,
    InvocationId,
    InvocationTarget,
    LeaderEpoch,
    Millis,
    Offset,
    PartitionId,
    slot_of,
)
from perdure_processor.model.results import RequestId
from perdure_processor.model.schema import HandlerKind, ServiceKind
from perdure_processor.state_machine.machine import AppliedRecord, Machine
from perdure_processor.storage.keyvalue import KeyValue
from perdure_processor.storage.memory import MemoryKeyValue
from perdure_processor.storage.rocks import RocksKeyValue, RocksMemory
from perdure_processor.storage.tables import Tables

START_MS = 1_700_000_000_000
DAY_MS = 86_400_000
OBJECT_KEYS = 100_000
AIMS_US = {"greet": 25, "counter": 45, "three steps": 60}  # apply and commit with RocksDB
INPUT = messages.input_frame(
    [("x-restate-ingress-path", "/Greeter/greet"), ("content-type", "application/json"), ("user-agent", "bench/1")],
    b'"Perdure"',
)

Report = list[tuple[int, list[Effect]]]  # (commands before, effects) of each record of the attempt


def frame(
    kind: MessageType, message: pb.OutputCommandMessage | pb.RunCommandMessage | pb.SetStateCommandMessage
) -> bytes:
    return encode_frame(kind, message.SerializeToString())


PINNED = Pinned(DeploymentId("dp_17sztQp4gnEC1L0OCFM9aEh"), 6)
OUTPUT = OutputSet(
    frame(MessageType.OUTPUT_COMMAND, pb.OutputCommandMessage(value=pb.Value(content=b'"Hello Perdure"')))
)


def greet() -> Report:
    """A handler without a step."""
    return [(1, [PINNED, OUTPUT, Ended()])]


def counter() -> Report:
    """An object that reads a number (eagerly), adds one and stores it."""
    message = pb.GetEagerStateCommandMessage(key=b"count", value=pb.Value(content=b"41"))
    read = Recorded(encode_frame(MessageType.GET_EAGER_STATE_COMMAND, message.SerializeToString()))
    put = pb.SetStateCommandMessage(key=b"count", value=pb.Value(content=b"42"))
    return [(1, [PINNED, read, StateSet(frame(MessageType.SET_STATE_COMMAND, put)), OUTPUT, Ended()])]


def three_steps() -> Report:
    """ctx.run three times; each result is recorded before the handler goes on."""
    report: Report = []
    first: list[Effect] = [PINNED]
    for step in (1, 2, 3):
        run = RunStarted(
            frame(MessageType.RUN_COMMAND, pb.RunCommandMessage(result_completion_id=step, name=f"step {step}")),
            CompletionId(step),
        )
        done = messages.value_notification(MessageType.RUN_COMPLETION_NOTIFICATION, step, b'"done"')
        report.append((step, [*first, run, RunCompleted(done, CompletionId(step), False)]))
        first = []
    report.append((4, [OUTPUT, Ended()]))
    return report


WORKLOADS: dict[str, tuple[Callable[[], Report], bool]] = {
    "greet": (greet, False),
    "counter": (counter, True),
    "three steps": (three_steps, False),
}


def invoke(number: int, keyed: bool) -> Invoke:
    """As an ingress node makes it: everybody gets an idempotency key, so that results are kept."""
    idempotency_key = f"01J{number:023d}"
    key = f"key-{number % OBJECT_KEYS}" if keyed else None
    target = InvocationTarget("Counter" if keyed else "Greeter", key, "add" if keyed else "greet")
    uuid = ids.idempotent_uuid(target.service, key, target.handler, idempotency_key)
    if key is None:
        partition_key = ids.partition_key_of_idempotency_key(target.service, idempotency_key)
    else:
        partition_key = ids.partition_key_of_key(key)
    return Invoke(
        InvocationId(ids.invocation_id(partition_key, uuid)),
        target,
        ServiceKind.VIRTUAL_OBJECT if keyed else ServiceKind.SERVICE,
        HandlerKind.EXCLUSIVE if keyed else HandlerKind.STATELESS,
        INPUT,
        DAY_MS,
        DAY_MS,
        idempotency_key,
        False,
        Millis(0),
        Millis(START_MS),
        RequestId("node", 1 << 62, number),
        None,
        None,
    )


def records_of(workload: str, invocations: int, side_by_side: int) -> list[list[AppliedRecord]]:
    """Batches: `side_by_side` invocations begin together, and go from step to step together."""
    report_of, keyed = WORKLOADS[workload]
    report = report_of()
    batches: list[list[AppliedRecord]] = []
    offset = sequence = 0
    for first in range(0, invocations, side_by_side):
        group: list[tuple[InvocationId, int]] = []
        batch: list[AppliedRecord] = []
        for number in range(first, min(first + side_by_side, invocations)):
            command = invoke(number, keyed)
            group.append((command.id, offset))
            batch.append(record(offset, Envelope(slot_of(command.id), None, command)))
            offset += 1
        batches.append(batch)
        for index, effects in report:
            batch = []
            for invocation_id, incarnation in group:
                sequence += 1
                reported: Command = AttemptEffects(invocation_id, Incarnation(incarnation), 1, index, effects)
                batch.append(record(offset, Envelope(None, ByLeader(LeaderEpoch(0), sequence), reported)))
                offset += 1
            batches.append(batch)
    return batches


def record(offset: int, envelope: Envelope) -> AppliedRecord:
    return Offset(offset), Millis(START_MS + offset // 100), envelope


def apply(store: KeyValue, batches: list[list[AppliedRecord]]) -> float:
    """Seconds for all of it; how it ends is checked, so that nothing was dropped on the way."""
    tables = Tables(store)
    machine = Machine(tables, PartitionId(0), 1, frozenset())
    started = answered = 0
    # The time of this thread alone: what else the machine does, RocksDB's own threads included, does not count.
    begin = time.thread_time()
    for batch in batches:
        tables.begin()
        applied = machine.apply_all(batch)
        store.write(tables.finish())
        for action in applied.actions:
            name = type(action).__name__
            started += name == "StartAttempt"
            answered += name == "RespondToIngress"
    elapsed = time.thread_time() - begin
    assert started == answered > 0, f"{started} started, {answered} answered"
    return elapsed


def measure(workload: str, store_name: str, side_by_side: int, invocations: int) -> float:
    """Microseconds for each invocation, in a new store."""
    batches = records_of(workload, invocations, side_by_side)
    gc.collect()
    gc.freeze()
    if store_name == "memory":
        return apply(MemoryKeyValue(), batches) / invocations * 1e6
    directory = Path(tempfile.mkdtemp(prefix="perdure-apply-"))
    store = RocksKeyValue(directory / "store", RocksMemory(block_cache_bytes=64 << 20, write_buffers_bytes=64 << 20))
    try:
        return apply(store, batches) / invocations * 1e6
    finally:
        store.close()
        shutil.rmtree(directory)
        gc.unfreeze()


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--invocations", type=int, default=20_000, help="in each round (default %(default)s)")
    parser.add_argument("--rounds", type=int, default=5, help="the median counts (default %(default)s)")
    parser.add_argument(
        "--profile", choices=sorted(WORKLOADS), help="profile one workload instead (RocksDB, batches of 16)"
    )
    options = parser.parse_args(arguments)
    gc.set_threshold(50_000, 20, 100)
    if options.profile:
        profiler = cProfile.Profile()
        profiler.enable()
        measure(options.profile, "rocks", 16, options.invocations)
        profiler.disable()
        pstats.Stats(profiler).sort_stats("tottime").print_stats(30)
        return 0
    print(f"apply and commit, µs for each invocation; median of {options.rounds} rounds of {options.invocations}")
    print(f"{'workload':<12} {'store':<8} {'batch of 1':>11} {'batch of 16':>12} {'aim':>5}")
    for workload in WORKLOADS:
        for store_name in ("memory", "rocks"):
            found = [
                statistics.median(
                    measure(workload, store_name, size, options.invocations) for _ in range(options.rounds)
                )
                for size in (1, 16)
            ]
            aim = AIMS_US[workload] if store_name == "rocks" else ""
            print(f"{workload:<12} {store_name:<8} {found[0]:>11.1f} {found[1]:>12.1f} {aim:>5}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

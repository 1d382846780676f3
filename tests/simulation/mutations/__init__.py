"""Rules of ARCHITECTURE.md taken out of the code, each with a seed that finds out.

A mutation is a small patch in text: `before` must stand in its file exactly once, so that a mutation that has
lost its place fails loudly instead of proving nothing.  The patched copy runs in a process of its own.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PROCESSOR = "partition_processor/perdure_processor"
SERVER = "server/perdure_server"
SEARCHED = 25
SEED_TAKES_S_MAX = 30


@dataclass(frozen=True)
class Mutation:
    """One rule taken out."""

    name: str
    rule: str
    # Where the search begins: the seed that found it last.  Any change of the code changes what a seed does.
    seed: int
    # The weather in which the rule is needed, as `name=value` words.
    weather: str
    file: str
    before: str
    after: str


MUTATIONS = [
    Mutation(
        name="ended-attempt-started-again",
        rule="1: the next attempt starts from the apply of the record that ended the last one",
        seed=24,
        weather="attempts_max=3 attempts_waiting_max=2 stream_cut=0.3 append_delay_ms_max=20 clients=12 requests=90",
        file=f"{PROCESSOR}/leader/leader.py",
        before="            if invocation_id in reporting or self.invoker.has(invocation_id):\n",
        after="            if self.invoker.has(invocation_id):\n",
    ),
    Mutation(
        name="no-incarnation",
        rule="2: the answer to a call of an earlier life is dropped",
        seed=198,
        weather="focus=say clients=12 requests=240",
        file=f"{PROCESSOR}/state_machine/notifications.py",
        before="    if type(row) is not Live or row.incarnation != sink.incarnation:\n",
        after="    if type(row) is not Live:\n",
    ),
    Mutation(
        name="requests-forgotten",
        rule="3: a known request changes nothing and is answered again with the same answer",
        seed=2,
        weather="focus=flow,scatter_later lost_reply=0.3",
        file=f"{PROCESSOR}/state_machine/submission.py",
        before="    elif (known := known_request(row, invoke.request)) is not None:\n",
        after="    elif (known := known_request(row, None)) is not None:\n",
    ),
    Mutation(
        name="refusal-answered-with-result",
        rule="3: a request is answered again with the same answer, also when that was a refusal",
        seed=7,
        weather="focus=flow lost_reply=0.3",
        file=f"{SERVER}/ingress/dispatcher.py",
        before="    if command.handler_kind == HandlerKind.WORKFLOW and wall_ms <=",
        after="    if command.handler_kind < 0 and wall_ms <=",
    ),
    Mutation(
        name="no-cursor",
        rule="4: what the replay contained is not forwarded again",
        seed=5,
        weather="focus=race turns=0",
        file=f"{PROCESSOR}/invoker/attempt.py",
        before="        if index < self.cursor:\n",
        after="        if index < 0:\n",
    ),
    Mutation(
        name="suspension-not-evaluated",
        rule="5: a suspension is evaluated against what is stored",
        seed=0,
        weather="",
        file=f"{PROCESSOR}/state_machine/execution.py",
        before="    left = resolve(effect.awaiting, notifications.known(step, invocation_id, row))\n",
        after="    left = effect.awaiting\n",
    ),
    Mutation(
        name="gaps-accepted",
        rule="6: a message of another partition is accepted only as its source's next",
        seed=34,
        weather="broker=True unknown=0.05 partitions=4 focus=spread,scatter,transfer",
        file=f"{PROCESSOR}/state_machine/machine.py",
        before="    return dedup.sequence == progress.inbound.get(dedup.source, 0) + 1\n",
        after="    return dedup.sequence > progress.inbound.get(dedup.source, 0)\n",
    ),
    Mutation(
        name="unknown-taken-for-appended",
        rule="6: the outbox is truncated only behind known appends",
        seed=6,
        weather="broker=True unknown=0.05 partitions=4 focus=spread,scatter,transfer",
        file=f"{PROCESSOR}/leader/shuffle.py",
        before="        if type(outcome) is Appended:\n",
        after="        if type(outcome) is not None:\n",
    ),
    Mutation(
        name="sequence-not-checked",
        rule="leadership: a proposal is accepted only as its term's next",
        seed=7,
        weather="refused=0.05",
        file=f"{PROCESSOR}/state_machine/machine.py",
        before="        return dedup.epoch == progress.epoch and dedup.sequence == progress.sequence + 1\n",
        after="        return dedup.epoch == progress.epoch\n",
    ),
    Mutation(
        name="term-survives-unknown",
        rule="leadership: an append of unknown outcome ends the term",
        seed=7,
        weather="broker=True unknown=0.02 crash_every_s=0",
        file=f"{PROCESSOR}/leader/leader.py",
        before='            self._end(f"an append has an unknown outcome: {outcome.reason}")\n',
        after="            self._outstanding.popleft()\n",
    ),
    Mutation(
        name="record-too-large",
        rule="12: no record exceeds RECORD_MAX, a larger command travels in parts",
        seed=24,
        weather="focus=large clients=3 requests=6 window=1048576",
        file=f"{PROCESSOR}/log/tail.py",
        before="        if len(payload) > RECORD_MAX:\n",
        after="        if len(payload) > PAYLOAD_MAX:\n",
    ),
    Mutation(
        name="memory-ahead-of-reader",
        rule="13: a record is applied from memory only at the reader's position",
        seed=4,
        weather="broker=True unknown=0.05 append_delay_ms_max=20",
        file=f"{PROCESSOR}/log/tail.py",
        before="        if self._beyond or self._reading or outcome.position > self.position:\n",
        after="        if self._beyond or self._reading:\n",
    ),
    Mutation(
        name="delete-dropped-with-its-put",
        rule="15: the overlay drops the put, not the delete",
        seed=0,
        weather="",
        file=f"{PROCESSOR}/storage/transaction.py",
        before="        if self._reads.get(key, _UNSEEN) is None:\n",
        after="        if key in changes or self._reads.get(key, _UNSEEN) is None:\n",
    ),
    Mutation(
        name="never-asked-again",
        rule="17: the ingress asks again when no answer comes",
        seed=3,
        weather="lost_reply=0.3",
        file=f"{SERVER}/ingress/dispatcher.py",
        before="            if now_ms >= waiter.ask_at_ms:\n",
        after="            if now_ms < 0:\n",
    ),
    Mutation(
        name="no-proof",
        rule="17: what ended is kept for those who waited, whatever the retention says",
        seed=10,
        weather="focus=tally lost_reply=0.3",
        file=f"{PROCESSOR}/state_machine/lifecycle.py",
        before="    if kept == 0 and not (requests or waiting or segments or to_kill or is_workflow):\n",
        after="    if kept == 0 and not (waiting or segments or to_kill or is_workflow):\n",
    ),
    Mutation(
        name="promise-completed-twice",
        rule="promises: completed once, and everybody sees that value",
        seed=0,
        weather="focus=deal",
        file=f"{PROCESSOR}/state_machine/promises.py",
        before="    if promise is not None and promise.result is not None:\n        notifications",
        after="    if promise is not None and promise.result == 0:\n        notifications",
    ),
    Mutation(
        name="promise-tells-one",
        rule="promises: all who wait for one are told",
        seed=0,
        weather="focus=deal",
        file=f"{PROCESSOR}/state_machine/promises.py",
        before="    for sink in promise.waiting[:now]:\n",
        after="    for sink in promise.waiting[: min(now, 1)]:\n",
    ),
    Mutation(
        name="promise-dropped-in-silence",
        rule="promises: who waits for one that is dropped is told",
        seed=0,
        weather="focus=deal_dropped",
        file=f"{PROCESSOR}/state_machine/promises.py",
        before="        _tell_waiting(step, promise, promise.result or DROPPED)\n",
        after="        promise.waiting = []\n",
    ),
    Mutation(
        name="promises-outlive-their-run",
        rule="retention: a workflow's promises go with its result",
        seed=0,
        weather="focus=deal",
        file=f"{PROCESSOR}/state_machine/retention.py",
        before="        if not promises.drop(step, invocation_id, row.target.service, row.target.key):\n",
        after="        if step.rows_left < 0:\n",
    ),
    Mutation(
        name="attached-in-another-life",
        rule="2: what a handler of an earlier life attached to does not answer the next one",
        seed=0,
        weather="focus=say_attached clients=12 requests=240",
        file=f"{PROCESSOR}/state_machine/notifications.py",
        before="    if type(row) is not Live or row.incarnation != sink.incarnation:\n",
        after="    if type(row) is not Live or (row.incarnation != sink.incarnation and sink.kind == SinkKind.CALL):\n",
    ),
    Mutation(
        name="cancelled-again-by-the-same-request",
        rule="3: an operator's request that is asked again does not reach the compensation",
        seed=10,
        weather="focus=interrupt lost_reply=0.3",
        file=f"{PROCESSOR}/state_machine/operations.py",
        before="""        return
    row = step.tables.invocation(command.id)
    if not isinstance(row, Live | Completed):
        step.respond(command.request, Missing())
    elif crowded""",
        after="""        pass
    row = step.tables.invocation(command.id)
    if not isinstance(row, Live | Completed):
        step.respond(command.request, Missing())
    elif crowded""",
    ),
    Mutation(
        name="kill-reaches-another-life",
        rule="2: a kill reaches the callee that works for this very call, not its next life",
        seed=6,
        weather="focus=outlive clients=12 requests=240 partitions=4 append_delay_ms_max=20 slow_sync=0.1",
        file=f"{PROCESSOR}/state_machine/termination.py",
        before="    if type(row) is Live and command.caller in row.sinks:\n",
        after="    if type(row) is Live:\n",
    ),
    Mutation(
        name="killed-and-started",
        rule="1: the end of a life makes its attempt's token stale, also for the leader that is to start it",
        seed=312,
        weather="focus=outlive,call_off,interrupt clients=12 requests=240",
        file=f"{PROCESSOR}/state_machine/lifecycle.py",
        before="""gone by then (correctness 1).
    row.attempt += 1
""",
        after="gone by then (correctness 1).\n",
    ),
    Mutation(
        name="deadline-compared-in-apply",
        rule="22: a timer is valid iff its row exists, whatever the time",
        seed=48,
        weather="clock_step_every_s=0.5 append_delay_ms_max=20 focus=race,add clients=12 requests=90",
        file=f"{PROCESSOR}/state_machine/partition.py",
        before="        row = tables.invocation(invocation_id)\n        if row is None or",
        after="        row = tables.invocation(invocation_id)\n        if deadline > step.now_ms or row is None or",
    ),
]


def overlay(mutation: Mutation, into: Path) -> dict[str, str]:
    """Copy the rooms, take the rule out, and give the environment of a process that runs the copy."""
    for room in (PROCESSOR, SERVER):
        shutil.copytree(ROOT / room, into / room, ignore=shutil.ignore_patterns("__pycache__"))
    path = into / mutation.file
    source = path.read_text()
    found = source.count(mutation.before)
    assert found == 1, f"{mutation.name}: its place stands {found} times in {mutation.file}; move the mutation along"
    path.write_text(source.replace(mutation.before, mutation.after))
    paths = [into / "partition_processor", into / "server", ROOT / "sdk", ROOT / "tests"]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), "PYTHONDONTWRITEBYTECODE": "1"}


def search(mutation: Mutation, environment: dict[str, str]) -> tuple[int, str]:
    """The first seed from the mutation's own on that finds it, and what it says. Raises AssertionError."""
    said = ""
    for seed in range(mutation.seed, mutation.seed + SEARCHED):
        command = [sys.executable, "-m", "simulation", str(seed), *mutation.weather.split()]
        try:
            run = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=SEED_TAKES_S_MAX)
        except subprocess.TimeoutExpired:
            continue  # too busy to say anything
        said = run.stdout + run.stderr
        if "VIOLATION" in run.stdout:
            return seed, said
    raise AssertionError(
        f"{mutation.name}: not found by {SEARCHED} seeds from {mutation.seed} on; the last said {said}"
    )

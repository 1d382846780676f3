"""Kill everything, again and again, while clients work; then count.

Twenty clients make 2,000 calls to services on the official Python SDK and repeat a call until it is answered:
adds and nested calls, recorded steps, delayed sends, sleeps, awakeables completed by the outside and by other
handlers, workflows whose promise two shared handlers would complete, and trips that are cancelled and take
their booking back.  Meanwhile the server is killed (SIGKILL) twenty times and the deployment five times, at
random moments of the work.  Afterwards everything has ended, the state equals what was acknowledged, every
call has one answer, every key still works, and no step that was recorded ran again.

KILL_TEST_RUNS=10 (or make kill RUNS=10) does it ten times, each with a draw of its own; KILL_TEST_SEED replays
a draw.  KILL_TEST_SERVER=restate runs the same against the real restate-server.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from e2e.kill_calls import KEYS, REQUEST_TIMEOUT_S, Call, Client, Witness, check_answer, draw_calls
from support.processes import Deployment, Server, python_deployment

HERE = Path(__file__).resolve().parent
CLIENTS = 20
CALLS = 2000
SERVER_KILLS = 20
DEPLOYMENT_KILLS = 5
RUNS = int(os.environ.get("KILL_TEST_RUNS") or 1)
# When all answers are there, what nobody waits for (delayed sends, cancelled children) must end within this.
ENDS_WITHIN_S = 60.0
POLL_S = 0.2


@dataclass
class Answers:
    """What the clients were told."""

    by_call: dict[int, Any] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    async def reached(self, count: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.by_call) >= count)

    async def add(self, call: Call, answer: Any) -> None:
        async with self.changed:
            self.by_call[call.number] = answer
            self.changed.notify_all()


@asynccontextmanager
async def client_of(server: Server) -> AsyncIterator[Client]:
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    # An operator, 20 callers and everybody who completes an awakeable: none waits for another's connection.
    connector = aiohttp.TCPConnector(limit=0)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as http:
        yield Client(http, server.ingress_url, server.admin_url)


async def killer(chance: random.Random, server: Server, deployment: Deployment, answers: Answers) -> Counter[str]:
    """Kill at random moments of the work: after random numbers of answers, and a random little while."""
    victims = ["server"] * SERVER_KILLS + ["deployment"] * DEPLOYMENT_KILLS
    chance.shuffle(victims)
    moments = sorted(chance.sample(range(1, int(CALLS * 0.97)), len(victims)))
    kills: Counter[str] = Counter()
    for victim, moment in zip(victims, moments, strict=True):
        await answers.reached(moment)
        await asyncio.sleep(chance.uniform(0, 0.05))
        process = server if victim == "server" else deployment
        await asyncio.to_thread(process.kill)
        await asyncio.to_thread(process.start)
        kills[victim] += 1
    return kills


async def work(
    chance: random.Random, calls: list[Call], client: Client, server: Server, deployment: Deployment, witness: Path
) -> tuple[Answers, Counter[str]]:
    """All calls answered while everything is killed; the answers, and the kills."""
    answers = Answers()
    waiting = list(reversed(calls))

    async def caller() -> None:
        while waiting:
            call = waiting.pop()
            await answers.add(call, await client.ask(call))

    async with asyncio.TaskGroup() as group:
        completing = group.create_task(client.complete_awakeables(witness, random.Random(chance.random())))
        killing = group.create_task(killer(chance, server, deployment, answers))
        callers = [group.create_task(caller()) for _ in range(CLIENTS)]
        await asyncio.wait({killing, *callers})
        completing.cancel()
    return answers, killing.result()


async def ask_again(client: Client, calls: list[Call]) -> dict[int, Any]:
    """Every call once more with its idempotency keys: results that are kept, not second runs."""
    limit = asyncio.Semaphore(CLIENTS)
    found: dict[int, Any] = {}

    async def one(call: Call) -> None:
        async with limit:
            found[call.number] = await client.ask(call, again=True)

    async with asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(one(call))
    return found


async def all_ended(client: Client) -> None:
    deadline = time.monotonic() + ENDS_WITHIN_S
    while left := await client.unended():
        assert time.monotonic() < deadline, f"{len(left)} invocations are stuck: {left[:5]}"
        await asyncio.sleep(POLL_S)


async def kill_and_count(chance: random.Random, server: Server, deployment: Deployment, witness: Path) -> None:
    calls = draw_calls(chance, CALLS)
    async with client_of(server) as client:
        answers, kills = await work(chance, calls, client, server, deployment, witness)
        print(f"{kills}, {client.repeats} requests repeated by clients")
        assert kills == {"server": SERVER_KILLS, "deployment": DEPLOYMENT_KILLS}
        # No call lost, nothing stuck, and one answer for each, now and later.
        assert len(answers.by_call) == CALLS
        await all_ended(client)
        assert await ask_again(client, calls) == answers.by_call
        await check_counters(client, calls, answers)

        seen = Witness.of(witness.read_text())
        for call in calls:
            check_answer(call, answers.by_call[call.number], seen, call.number in client.cancelled_again)
        print(f"{len(seen.recorded)} results seen, {seen.ran.total() - len(seen.ran)} closures ran more than once")

        # No key of the other object is stuck either.
        for index in range(KEYS):
            assert await client.invoke_once(f"/KillStep/k{index}/once", f"last-{index}")


async def check_counters(client: Client, calls: list[Call], answers: Answers) -> None:
    """State equals the acknowledged adds, and each add was a step of one: a counter's answers are 1, 2, 3, ..."""
    seen = Counter(name for call in calls for name in call.adds)
    expected = seen + Counter(name for call in calls for name in call.adds_unseen)
    # Asked through the exclusive handler: a key that is stuck does not answer.
    found = {name: await client.invoke_once(f"/KillCounter/{name}/add", 0) for name in sorted(expected)}
    assert found == dict(expected)
    told: dict[str, list[int]] = defaultdict(list)
    for call in calls:
        if call.adds:
            answer = answers.by_call[call.number]
            for name, count in zip(call.adds, answer if isinstance(answer, list) else [answer], strict=True):
                told[name].append(count)
    for name, counts in told.items():
        assert sorted(counts) == list(range(1, seen[name] + 1)), name


@pytest.mark.timeout(900)
@pytest.mark.parametrize("run", range(RUNS))
def test_the_server_and_the_deployment_are_killed(run: int, tmp_path: Path) -> None:
    kind = os.environ.get("KILL_TEST_SERVER", "perdure")
    seed = int(os.environ.get("KILL_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"KILL_TEST_SERVER={kind} KILL_TEST_SEED={seed}, run {run + 1} of {RUNS}")
    witness = tmp_path / "witness"
    settings = {"retry_initial_interval": "50ms", "retry_max_interval": "500ms", "num_partitions": "4"}
    server = Server(kind, tmp_path / "server", settings)
    deployment = python_deployment("services:app", HERE, tmp_path / "deployment.log", {"WITNESS": str(witness)})
    try:
        deployment.start()
        server.start()
        server.register(deployment.uri)
        asyncio.run(kill_and_count(random.Random(seed), server, deployment, witness))
    except BaseException:
        print(server.log_tail(), deployment.log_tail(), sep="\n")
        raise
    finally:
        server.kill()
        deployment.kill()


def trip(kind: str) -> Call:
    return Call(7, kind, "k0", "k1", 50)


@pytest.mark.parametrize(
    ("witness", "complaint"),
    [
        ("begin c a\nran c a\nsaw c a a\nbegin c b\nran c b\n", "ran again"),
        ("begin c a\nran c a\nsaw c a a\nbegin c b\nsaw c b b\n", "two results"),
    ],
)
def test_the_witness_can_accuse(witness: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        Witness.of(witness)


@pytest.mark.parametrize(
    ("call", "answer", "witness", "complaint"),
    [
        (trip("trip"), "done", "saw call-7-book a a\nsaw call-7-undo a a\nsaw call-7-end a done", "and taken back"),
        (trip("trip"), "taken back", "saw call-7-book a a", "was not taken back"),
        (trip("trip"), "canceled", "", "ended with"),
        (trip("guide"), "cancelled", "saw call-7-book a a", "neither completed nor taken back"),
        (trip("guide"), "done", "saw call-7-book a a\nsaw call-7-end a done", "ended with"),
        (trip("flow"), ["ann", True, True], "saw call-7-approved a ann", "completed once"),
        (trip("flow"), ["bob", True, False], "saw call-7-approved a bob", "flow"),
        (trip("race"), "clock", "saw call-7 a outside=clock", "winner differ"),
    ],
)
def test_an_answer_can_be_accused(call: Call, answer: Any, witness: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_answer(call, answer, Witness.of(witness), cancelled_again=False)

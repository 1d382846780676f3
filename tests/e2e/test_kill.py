"""Kill everything, again and again, while clients work; then count.

Twenty clients make 2,000 calls with idempotency keys to services on the official Python SDK, and repeat a call
until it is answered. Meanwhile the server is killed (SIGKILL) twenty times and the deployment five times, at
random moments of the work. Afterwards the state equals what was acknowledged, every call has one answer,
every key still works, and no step that was recorded ran again.

KILL_TEST_SERVER=restate runs the same against the real restate-server; KILL_TEST_SEED replays a draw.
"""

from __future__ import annotations

import asyncio
import os
import random
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from support.processes import Deployment, Server, python_deployment

HERE = Path(__file__).resolve().parent
CLIENTS = 20
CALLS = 2000
SERVER_KILLS = 20
DEPLOYMENT_KILLS = 5
KEYS = 12
# One request may wait for a server that restarts and for its retries; a call that takes longer is lost.
REQUEST_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 120.0
RETRY_S = 0.02


@dataclass
class Call:
    """One call, its key, and what every answer to it has to be."""

    number: int
    path: str
    body: object
    adds: list[str]  # the counters that it adds one to, in the order of its answer

    @property
    def idempotency_key(self) -> str:
        return f"call-{self.number}"


@dataclass
class Answers:
    """What the clients were told."""

    by_call: dict[int, object] = field(default_factory=dict)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)
    repeats: int = 0

    async def reached(self, count: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.by_call) >= count)


def draw_calls(chance: random.Random) -> list[Call]:
    """Adds, nested calls that add to two counters, and recorded steps that add to a third kind."""
    calls = []
    for number in range(CALLS):
        first, second = (f"k{index}" for index in chance.sample(range(KEYS), 2))
        kind = chance.choices(("add", "both", "once"), (4, 3, 3))[0]
        if kind == "add":
            calls.append(Call(number, f"/KillCounter/{first}/add", 1, [first]))
        elif kind == "both":
            body = {"first": first, "second": second}
            calls.append(Call(number, "/KillTransfer/both", body, [first, second]))
        else:
            calls.append(Call(number, f"/KillStep/{first}/once", f"call-{number}", [f"{first}-steps"]))
    return calls


async def ask(http: aiohttp.ClientSession, base: str, call: Call, answers: Answers | None) -> object:
    """The answer to a call, however often it takes: after 429, 502 to 504 or a lost connection it is asked again."""
    deadline = time.monotonic() + CALL_TIMEOUT_S
    headers = {"idempotency-key": call.idempotency_key}
    last = ""
    while time.monotonic() < deadline:
        try:
            async with http.post(base + call.path, json=call.body, headers=headers) as response:
                if response.status == 200:
                    return await response.json()
                last = f"{response.status} {await response.text()}"
                assert response.status in (429, 502, 503, 504), f"{call.path}: {last}"
        except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
            last = repr(error)
        if answers is not None:
            answers.repeats += 1
        await asyncio.sleep(RETRY_S)
    raise AssertionError(f"no answer within {CALL_TIMEOUT_S:.0f} s: {call} (last: {last})")


async def client(http: aiohttp.ClientSession, base: str, waiting: list[Call], answers: Answers) -> None:
    while waiting:
        call = waiting.pop()
        answer = await ask(http, base, call, answers)
        async with answers.changed:
            answers.by_call[call.number] = answer
            answers.changed.notify_all()


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
    chance: random.Random, server: Server, deployment: Deployment
) -> tuple[list[Call], Answers, Counter[str]]:
    calls = draw_calls(chance)
    answers = Answers()
    waiting = list(reversed(calls))
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    async with aiohttp.ClientSession(timeout=timeout) as http, asyncio.TaskGroup() as group:
        killing = group.create_task(killer(chance, server, deployment, answers))
        for _ in range(CLIENTS):
            group.create_task(client(http, server.ingress_url, waiting, answers))
    return calls, answers, killing.result()


async def ask_again(server: Server, calls: list[Call]) -> dict[int, object]:
    """Every call once more with its idempotency key: a result that is kept, not a second run."""
    limit = asyncio.Semaphore(CLIENTS)
    found: dict[int, object] = {}

    async def one(http: aiohttp.ClientSession, call: Call) -> None:
        async with limit:
            found[call.number] = await ask(http, server.ingress_url, call, None)

    async with aiohttp.ClientSession() as http, asyncio.TaskGroup() as group:
        for call in calls:
            group.create_task(one(http, call))
    return found


async def counters(server: Server, names: list[str]) -> dict[str, object]:
    """What each counter says, through its exclusive handler: a key that is stuck does not answer."""
    return {name: await ask_once(server, f"/KillCounter/{name}/add", 0) for name in names}


async def ask_once(server: Server, path: str, body: object) -> object:
    timeout = aiohttp.ClientTimeout(total=REQUEST_TIMEOUT_S)
    async with (
        aiohttp.ClientSession(timeout=timeout) as http,
        http.post(server.ingress_url + path, json=body) as response,
    ):
        assert response.status == 200, f"{path}: {response.status} {await response.text()}"
        return await response.json()


@pytest.mark.timeout(900)
def test_the_server_and_the_deployment_are_killed(tmp_path: Path) -> None:
    kind = os.environ.get("KILL_TEST_SERVER", "perdure")
    seed = int(os.environ.get("KILL_TEST_SEED") or random.SystemRandom().randrange(1 << 32))
    print(f"KILL_TEST_SERVER={kind} KILL_TEST_SEED={seed}")
    chance = random.Random(seed)
    witness = tmp_path / "witness"
    settings = {"retry_initial_interval": "50ms", "retry_max_interval": "500ms", "num_partitions": "4"}
    server = Server(kind, tmp_path / "server", settings)
    deployment = python_deployment("services:app", HERE, tmp_path / "deployment.log", {"WITNESS": str(witness)})
    try:
        deployment.start()
        server.start()
        server.register(deployment.uri)
        calls, answers, kills = asyncio.run(work(chance, server, deployment))
        print(f"{kills}, {answers.repeats} requests repeated by clients")
        assert kills == {"server": SERVER_KILLS, "deployment": DEPLOYMENT_KILLS}

        # No call lost, and one answer for each, now and later.
        assert len(answers.by_call) == CALLS
        assert asyncio.run(ask_again(server, calls)) == answers.by_call

        # State equals the acknowledged adds, and each add was a step of one: the answers of a counter are 1, 2, 3, ...
        expected: Counter[str] = Counter(name for call in calls for name in call.adds)
        assert asyncio.run(counters(server, sorted(expected))) == dict(expected)
        told: dict[str, list[int]] = defaultdict(list)
        for call in calls:
            if call.path.endswith("/once"):
                continue
            answer = answers.by_call[call.number]
            for name, count in zip(call.adds, answer if isinstance(answer, list) else [answer], strict=True):
                told[name].append(count)
        for name, counts in told.items():
            assert sorted(counts) == list(range(1, expected[name] + 1)), name

        check_steps(witness.read_text(), calls, answers)

        # No key of the other object is stuck either.
        for index in range(KEYS):
            assert asyncio.run(ask_once(server, f"/KillStep/k{index}/once", f"last-{index}"))
    except BaseException:
        print(server.log_tail(), deployment.log_tail(), sep="\n")
        raise
    finally:
        server.kill()
        deployment.kill()


def check_steps(witness: str, calls: list[Call], answers: Answers) -> None:
    """A recorded step never runs again, and its one result is what everybody was given."""
    began: dict[str, int] = {}  # attempt -> line
    recorded: dict[str, tuple[int, str]] = {}  # call -> (line that first saw the result, result)
    ran = Counter[str]()
    for line, text in enumerate(witness.splitlines()):
        word, name, attempt, *rest = text.split()
        if word == "begin":
            began[attempt] = line
        elif word == "ran":
            ran[name] += 1
            # An attempt that began before the result was recorded may still have been running its closure:
            # at least once is the promise then. One that began afterwards must be given the result instead.
            if name in recorded:
                assert began[attempt] < recorded[name][0], f"{name} ran again after its result was recorded"
        else:
            first = recorded.setdefault(name, (line, rest[0]))
            assert rest[0] == first[1], f"{name} was given two results"
    for call in calls:
        if call.path.endswith("/once"):
            assert recorded[call.idempotency_key][1] == answers.by_call[call.number]
    print(f"{len(recorded)} steps recorded, {ran.total() - len(ran)} closures ran more than once before that")


@pytest.mark.parametrize(
    ("witness", "complaint"),
    [
        ("begin c a\nran c a\nsaw c a a\nbegin c b\nran c b\n", "ran again"),
        ("begin c a\nran c a\nsaw c a a\nbegin c b\nsaw c b b\n", "two results"),
    ],
)
def test_the_witness_can_accuse(witness: str, complaint: str) -> None:
    with pytest.raises(AssertionError, match=complaint):
        check_steps(witness, [], Answers())

"""What the clients of the kill test ask of its services (services.py), how they insist, and what must come of it.

A call is asked until it is answered, through every kill. Asked again under its idempotency keys it must give
the same answer, so everything here may be repeated, but for one cancellation by the operator's API.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import aiohttp

# One request may wait for a server that restarts and for its retries; a call that takes longer is lost.
REQUEST_TIMEOUT_S = 30.0
CALL_TIMEOUT_S = 120.0
RETRY_S = 0.05
LOOK_S = 0.01  # how often the witness is looked at
KEYS = 12
TRY_AGAIN = (429, 502, 503, 504)
# How an operator's request may be answered: done or accepted, or the invocation had ended, or it is unknown.
OPERATED = (200, 202, 404, 409)

# How often each kind is drawn.
KINDS = {
    "add": 4,
    "both": 3,
    "once": 3,
    "deep": 1,
    "later": 1,
    "nap": 1,
    "join": 1,
    "outside": 1,
    "inside": 1,
    "race": 1,
    "flow": 1,
    "trip": 2,
    "guide": 1,
}


@dataclass(frozen=True)
class Call:
    """One call, and the counters that it adds one to, in the order of its answer."""

    number: int
    kind: str
    first: str
    second: str
    wait_ms: int

    @property
    def name(self) -> str:
        """Its idempotency key, and what the witness calls it."""
        return f"call-{self.number}"

    @property
    def adds(self) -> list[str]:
        return {"add": [self.first], "both": [self.first, self.second], "deep": [self.first]}.get(self.kind, [])

    @property
    def adds_unseen(self) -> list[str]:
        """Adds of which the answer says nothing; they are done in the end."""
        return {"once": [f"{self.first}-steps"], "later": [f"{self.first}-later"] * 2}.get(self.kind, [])


def draw_calls(chance: random.Random, count: int) -> list[Call]:
    kinds = chance.choices(list(KINDS), list(KINDS.values()), k=count)
    calls = []
    for number, kind in enumerate(kinds):
        first, second = (f"k{index}" for index in chance.sample(range(KEYS), 2))
        calls.append(Call(number, kind, first, second, chance.randint(10, 250)))
    return calls


class Answer(NamedTuple):
    """What a server said at last, and how often it was asked."""

    status: int
    body: bytes
    attempts: int


@dataclass
class Client:
    """Everything that stands outside of the server: callers, operators, and who completes awakeables."""

    http: aiohttp.ClientSession
    ingress_url: str
    admin_url: str
    repeats: int = 0
    # The numbers of calls that were cancelled more than once, because an answer was lost.
    cancelled_again: set[int] = field(default_factory=set)

    async def ask(self, call: Call, again: bool = False) -> Any:
        """The call's answer, however often it takes. `again`: it was answered once, and must be now as it was."""
        name = call.name
        match call.kind:
            case "add":
                return await self._invoke(f"/KillCounter/{call.first}/add", 1, name)
            case "both":
                return await self._invoke("/KillTransfer/both", {"first": call.first, "second": call.second}, name)
            case "deep":
                return [await self._invoke("/KillTransfer/deep", {"key": call.first, "depth": 3}, name)]
            case "later":
                return await self._invoke("/KillTransfer/later", f"{call.first}-later", name)
            case "once":
                return await self._invoke(f"/KillStep/{call.first}/once", name, name)
            case "nap" | "join" | "outside" | "inside":
                return await self._invoke(f"/KillWait/{call.kind}", name, name)
            case "race":
                return await self._invoke("/KillWait/race", {"call": name, "sleep_ms": call.wait_ms % 25}, name)
            case "flow":
                return await self._flow(name, early=call.wait_ms % 3 == 0)
            case "trip":
                sent = await self._send("/KillTrip/go", {"call": name, "rest_ms": call.wait_ms}, name)
                return await self._cancel_and_see(call, sent, again)
            case "guide":
                return await self._cancel_and_see(call, await self._send("/KillTrip/lead", name, name), again)
        raise AssertionError(call.kind)

    async def _flow(self, name: str, early: bool) -> Any:
        """A workflow and two who would approve it, perhaps before it runs: its output, and who was first."""

        async def submit() -> None:
            status, body, _ = await self._insist("POST", f"{self.ingress_url}/KillFlow/{name}/run/send", name)
            assert status in (200, 202), f"{status} {body!r}"

        async def approve(approver: str) -> Any:
            return await self._invoke(f"/KillFlow/{name}/approve", approver, f"{name}-{approver}")

        if not early:
            await submit()
        approving = asyncio.gather(approve("ann"), approve("bob"))
        if early:
            await submit()
        attach_url = f"{self.ingress_url}/restate/workflow/KillFlow/{name}/attach"
        status, body, _ = await self._insist("GET", attach_url, None)
        assert status == 200, f"{status} {body!r}"
        return [json.loads(body), *await approving]

    async def _cancel_and_see(self, call: Call, invocation_id: str, again: bool) -> Any:
        """Cancel it after a while, through a handler or as an operator, and say how it ended."""
        if call.wait_ms % 2:
            # Recorded by the handler and sent once, however often we ask.
            await self._invoke("/KillTrip/cancel", invocation_id, f"{call.name}-cancel")
        elif not again:
            await asyncio.sleep(call.wait_ms / 2000)
            cancel_url = f"{self.admin_url}/invocations/{invocation_id}/cancel"
            status, body, attempts = await self._insist("PATCH", cancel_url, None)
            assert status in OPERATED, f"{status} {body!r}"
            if attempts > 1:
                self.cancelled_again.add(call.number)
        attach_url = f"{self.ingress_url}/restate/invocation/{invocation_id}/attach"
        status, body, _ = await self._insist("GET", attach_url, None)
        assert status in (200, 409), f"{status} {body!r}"
        answer = json.loads(body)
        return answer if status == 200 else answer["message"]

    async def complete_awakeables(self, witness: Path, chance: random.Random) -> None:
        """Complete every awakeable that the witness saw handed out, twice at once, in a moment."""
        witness.touch()
        with witness.open() as lines:
            async with asyncio.TaskGroup() as group:
                while True:
                    # Lines are written whole.
                    for line in lines.readlines():
                        if line.startswith("gave "):
                            for value in ("one", "two"):
                                group.create_task(self._complete(line.split()[3], value, chance.uniform(0, 0.03)))
                    await asyncio.sleep(LOOK_S)

    async def _complete(self, awakeable: str, value: str, pause_s: float) -> None:
        await asyncio.sleep(pause_s)
        url = f"{self.ingress_url}/restate/awakeables/{awakeable}/resolve"
        status, body, _ = await self._insist("POST", url, value)
        assert status in (200, 202), f"{status} {body!r}"

    async def invoke_once(self, path: str, body: Any) -> Any:
        """Without an idempotency key, where nothing is killed any more."""
        async with self.http.post(self.ingress_url + path, json=body) as response:
            assert response.status == 200, f"{path}: {response.status} {await response.text()}"
            return await response.json()

    async def unended(self) -> list[Any]:
        """The invocations that the server still has to end."""
        query = "select id, target, status, last_failure from sys_invocation where status <> 'completed'"
        headers = {"accept": "application/json"}
        async with self.http.post(f"{self.admin_url}/query", json={"query": query}, headers=headers) as response:
            assert response.status == 200, f"{response.status} {await response.text()}"
            rows: list[Any] = (await response.json())["rows"]
            return rows

    # -- insisting ---------------------------------------------------------------------------------------------
    async def _invoke(self, path: str, body: Any, idempotency_key: str) -> Any:
        status, answer, _ = await self._insist("POST", self.ingress_url + path, body, idempotency_key)
        assert status == 200, f"{path}: {status} {answer!r}"
        return json.loads(answer)

    async def _send(self, path: str, body: Any, idempotency_key: str) -> str:
        status, answer, _ = await self._insist("POST", f"{self.ingress_url}{path}/send", body, idempotency_key)
        assert status in (200, 202), f"{path}: {status} {answer!r}"
        invocation_id: str = json.loads(answer)["invocationId"]
        return invocation_id

    async def _insist(self, method: str, url: str, body: Any, idempotency_key: str | None = None) -> Answer:
        """After 429, 502 to 504 or a lost connection it is asked again."""
        deadline = time.monotonic() + CALL_TIMEOUT_S
        attempts = 0
        headers = {} if idempotency_key is None else {"idempotency-key": idempotency_key}
        last = ""
        while time.monotonic() < deadline:
            attempts += 1
            try:
                async with self.http.request(method, url, json=body, headers=headers) as response:
                    answer = await response.read()
                    if response.status not in TRY_AGAIN:
                        return Answer(response.status, answer, attempts)
                    last = f"{response.status} {answer!r}"
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                last = repr(error)
            self.repeats += 1
            await asyncio.sleep(RETRY_S)
        raise AssertionError(f"no answer within {CALL_TIMEOUT_S:.0f} s: {method} {url} {body} (last: {last})")


# -- what the witness must say ---------------------------------------------------------------------------------
@dataclass
class Witness:
    """What really ran. Raises AssertionError for a step that ran again, or whose result changed."""

    # Step → (line that first saw its result, result).
    recorded: dict[str, tuple[int, str]] = field(default_factory=dict)
    ran: Counter[str] = field(default_factory=Counter)

    @classmethod
    def of(cls, text: str) -> Witness:
        witness = cls()
        began: dict[str, int] = {}  # attempt → line
        for line, words in enumerate(map(str.split, text.splitlines())):
            word, name, attempt, *rest = words
            if word == "begin":
                began[attempt] = line
            elif word == "ran":
                witness.ran[name] += 1
                # An attempt that began before the result was recorded may still have been running its closure:
                # at least once is the promise then. One that began afterwards must be given the result instead.
                if name in witness.recorded:
                    assert began[attempt] < witness.recorded[name][0], f"{name} ran again after its result was recorded"
            elif word == "saw":
                first = witness.recorded.setdefault(name, (line, rest[0]))
                assert rest[0] == first[1], f"{name} was given two results: {first[1]}, then {rest[0]}"
        return witness

    def result(self, step: str) -> str | None:
        return self.recorded[step][1] if step in self.recorded else None


def check_answer(call: Call, answer: Any, witness: Witness, cancelled_again: bool) -> None:
    """One call's answer, against what the witness saw."""
    name, result = call.name, witness.result
    match call.kind:
        case "once":
            assert result(name) == answer, call
        case "nap" | "join" | "inside":
            assert answer == name, call
        case "outside":
            assert answer in ("one", "two"), call
            assert answer == result(name), call
        case "race":
            assert answer in ("outside", "clock"), call
            assert result(name) == f"{answer}={answer}", f"{call}: live and recorded winner differ"
        case "flow":
            output, *first = answer
            assert sorted(first) == [False, True], f"{call}: a promise is completed once: {answer}"
            assert output == "ann" if first[0] else output == "bob", f"{call}: {answer}"
            assert result(f"{name}-approved") == output, call
        case "trip" | "guide":
            check_trip(call, answer, witness, cancelled_again)


def check_trip(call: Call, answer: str, witness: Witness, cancelled_again: bool) -> None:
    """Completed, or cancelled and, if anything had been booked, the booking taken back once."""
    booked, undone, ended = (witness.result(f"{call.name}-{step}") for step in ("book", "undo", "end"))
    # A second cancellation may reach the compensation itself: then all are free to fail.
    allowed = ("done", "taken back", "cancelled") if call.kind == "trip" else ("cancelled", "taken back")
    assert answer in allowed, f"{call} ended with {answer!r}"
    assert not (ended and undone), f"{call} was completed and taken back"
    if call.kind == "trip":
        assert (answer == "done") == (ended == "done"), f"{call}: {answer}, {ended}"
        assert answer != "taken back" or undone, f"{call} was not taken back"
    if booked and not cancelled_again:
        assert undone or ended, f"{call} was booked and neither completed nor taken back"

"""One of the two servers, with its deployments: what rows ask it for, and the states they want invocations in."""

from __future__ import annotations

import http.client
import itertools
import json
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from e2e.fake_endpoint import Exchange, FakeEndpoint, of
from perdure.protocol import service_pb2 as pb
from support.processes import Server, python_deployment

HERE = Path(__file__).resolve().parent
FAKE_SERVICES: list[dict[str, Any]] = [
    {"name": "Wire", "ty": "SERVICE", "handlers": [{"name": "run"}]},
    {"name": "WireObject", "ty": "VIRTUAL_OBJECT", "handlers": [{"name": "run", "ty": "EXCLUSIVE"}]},
    {"name": "WireFlow", "ty": "WORKFLOW", "handlers": [{"name": "run", "ty": "WORKFLOW"}]},
]
# Nothing that failed is tried again while rows look at it.
SETTINGS = {
    "num_partitions": "2",
    "retry_initial_interval": "1h",
    "retry_max_interval": "1h",
}
STATE_TIMEOUT_S = 15.0
POLL_S = 0.02


@dataclass(frozen=True)
class Answered:
    """A response, whole."""

    status: int
    headers: dict[str, str]
    body: bytes


async def suspends(exchange: Exchange) -> None:
    """Sleeps for decades; a deployment is pinned with the first stored entry, so there is one."""
    known = await exchange.replay()
    exchange.respond()
    sleep = of(pb.SleepCommandMessage(wake_up_time=4_000_000_000_000, result_completion_id=1))
    await exchange.write((sleep if len(known) == 1 else b"") + of(pb.SuspensionMessage(waiting_completions=[1])))
    exchange.end()


class NeverReached(Exception):
    """An invocation did not come into the state that a row needs."""


class Side:
    """A running server; `close` ends everything."""

    def __init__(self, kind: str, directory: Path) -> None:
        self.kind = kind
        self.server = Server(kind, directory, SETTINGS)
        self.sdk = python_deployment("services:app", HERE, directory / "services.log")
        self.fake = FakeEndpoint(FAKE_SERVICES)
        self._numbers = itertools.count()
        self.names: dict[str, str] = {}

    def start(self) -> None:
        self.sdk.start()
        self.server.start()
        registered = self.server.register(self.sdk.uri)
        self.server.register(self.fake.uri)
        self.names = {"deployment": str(registered["id"]), "sdk_uri": self.sdk.uri}

    def close(self) -> None:
        self.server.kill()
        self.sdk.kill()
        self.fake.stop()

    def ask(
        self, door: str, method: str, path: str, body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> Answered:
        """One request with these headers and no others that matter."""
        where = urlsplit(self.server.ingress_url if door == "ingress" else self.server.admin_url)
        connection = http.client.HTTPConnection(where.hostname or "", where.port, timeout=30)
        try:
            connection.request(method, path, body, dict(headers or {}))
            response = connection.getresponse()
            answer = {name.lower(): value for name, value in response.getheaders()}
            return Answered(response.status, answer, response.read())
        finally:
            connection.close()

    def key(self) -> str:
        """A key that nobody has used."""
        return f"key{next(self._numbers)}"

    def send(self, path: str, value: Any = None, query: str = "") -> str:
        """The id of an invocation just sent."""
        body = None if value is None else json.dumps(value).encode()
        headers = {} if value is None else {"content-type": "application/json"}
        answer = self.ask("ingress", "POST", f"/{path}/send{query}", body, headers)
        return str(json.loads(answer.body)["invocationId"])

    def rows(self, query: str) -> list[dict[str, Any]]:
        """What SQL says."""
        headers = {"content-type": "application/json", "accept": "application/json"}
        answer = self.ask("admin", "POST", "/query", json.dumps({"query": query}).encode(), headers)
        if answer.status != 200:
            raise NeverReached(f"{self.kind}: {answer.status} {answer.body!r} for {query}")
        found: list[dict[str, Any]] = json.loads(answer.body)["rows"]
        return found

    def until(self, invocation_id: str, *states: str) -> str:
        """Wait until SQL shows the invocation in one of these states ("gone" is no row); which one."""
        deadline = time.monotonic() + STATE_TIMEOUT_S
        while True:
            found = self.rows(f"SELECT status FROM sys_invocation WHERE id = '{invocation_id}'")
            state = str(found[0]["status"]) if found else "gone"
            if state in states:
                return state
            if time.monotonic() > deadline:
                raise NeverReached(f"{self.kind}: {invocation_id} is {state}, not {' or '.join(states)}")
            time.sleep(POLL_S)

    def recorded(self, invocation_id: str, journal_size: int) -> None:
        """Wait until the journal has this many entries."""
        deadline = time.monotonic() + STATE_TIMEOUT_S
        while True:
            found = self.rows(f"SELECT journal_size FROM sys_invocation WHERE id = '{invocation_id}'")
            if found and found[0].get("journal_size", 0) >= journal_size:
                return
            if time.monotonic() > deadline:
                raise NeverReached(f"{self.kind}: {invocation_id} has recorded {found}")
            time.sleep(POLL_S)

    def invocation(self, state: str) -> str:
        """The id of a new invocation in a state of public-surface 2.4."""
        match state:
            case "unknown":
                target = {"target": "idempotentInvocation", "service": "Plain", "handler": "greet"}
                body = json.dumps({**target, "idempotencyKey": self.key()}).encode()
                answer = self.ask("ingress", "POST", "/restate/lookup", body, {"content-type": "application/json"})
                return str(json.loads(answer.body)["invocationId"])
            case "scheduled":
                return self.send("Plain/greet", "x", "?delay=1h")
            case "pending":
                key = self.key()
                self.until(self.send(f"Thing/{key}/hold"), "running")
                return self._in(self.send(f"Thing/{key}/add", 1), "pending")
            case "running":
                # Input, run, and its completion: from here on it is pinned.
                invocation_id = self._in(self.send("Plain/busy"), "running")
                self.recorded(invocation_id, 3)
                return invocation_id
            case "backing-off":
                return self._in(self.send("Plain/fails"), "backing-off")
            case "suspended":
                self.fake.script = suspends
                return self._in(self.send("Wire/run"), "suspended")
            case "paused":
                invocation_id = self.invocation("backing-off")
                self.ask("admin", "PATCH", f"/invocations/{invocation_id}/pause")
                return self._in(invocation_id, "paused")
            case "completed":
                return self._in(self.send("Plain/greet", "x"), "completed")
            case "failed":
                return self._in(self.send("Plain/terminal"), "completed")
            case "workflow completed":
                key = self.key()
                invocation_id = self.send(f"Flow/{key}/run", "x")
                answer = self.ask("ingress", "POST", f"/Flow/{key}/go", b'"y"', {"content-type": "application/json"})
                assert answer.status == 200, answer
                return self._in(invocation_id, "completed")
            case "purged":
                invocation_id = self.invocation("completed")
                self.ask("admin", "PATCH", f"/invocations/{invocation_id}/purge")
                return self._in(invocation_id, "gone")
        raise ValueError(state)

    def _in(self, invocation_id: str, state: str) -> str:
        self.until(invocation_id, state)
        return invocation_id

"""The samples of both SDKs, started exactly as their users start them, and called as their READMEs say.

They run against Perdure and against the real restate-server: a sample is no proof of compatibility if it only
works here.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from support import tools
from support.processes import Deployment, Server, free_port, request

EXAMPLES = tools.ROOT / "sdk" / "examples"
SEEN_TIMEOUT_S = 30.0
JSON_ONLY = {"accept": "application/json"}


def python_sample(directory: Path, env: dict[str, str]) -> Deployment:
    shutil.copytree(EXAMPLES / "python", directory)
    port = free_port()
    argv = [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", "app:app"]
    return Deployment("python sample", argv, directory / "sample.log", port, env, directory)


def typescript_sample(directory: Path, env: dict[str, str]) -> Deployment:
    """`npm install && npm start`, with Node 22 first on the path."""
    node, npm = tools.node(), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("Node 22 or npm is missing")
    shutil.copytree(EXAMPLES / "typescript", directory, ignore=shutil.ignore_patterns("node_modules"))
    path = f"{node.parent}{os.pathsep}{os.environ['PATH']}"
    install = [npm, "install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-package-lock"]
    done = subprocess.run(install, cwd=directory, env={**os.environ, "PATH": path}, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"npm install did not work: {done.stderr[-300:]}")
    port = free_port()
    env = {**env, "PORT": str(port), "PATH": path}
    return Deployment("typescript sample", [npm, "start"], directory / "sample.log", port, env, directory)


SAMPLES: dict[str, Callable[[Path, dict[str, str]], Deployment]] = {
    "python": python_sample,
    "typescript": typescript_sample,
}


class World:
    """A server with a sample on it, and the systems that the sample writes to."""

    def __init__(self, server: Server, sample: Deployment, systems: Path) -> None:
        self.server, self.sample, self.systems = server, sample, systems

    def call(self, path: str, body: object) -> tuple[int, object]:
        status, answer = request("POST", self.server.ingress_url + path, body, timeout=60)
        return status, json.loads(answer)

    def lines(self, system: str) -> list[str]:
        path = self.systems / f"{system}.log"
        return path.read_text().splitlines() if path.exists() else []

    def has_recorded_a_step(self, invocation: str) -> bool:
        """Whether the server has the result of a `ctx.run`: until then a killed one may run its closure again."""
        if self.server.kind == "restate":
            query = f"SELECT entry_type FROM sys_journal WHERE id = '{invocation}'"
            answer = request("POST", f"{self.server.admin_url}/query", {"query": query}, headers=JSON_ONLY)[1]
            entries = json.loads(answer)["rows"]
        else:
            entries = json.loads(request("GET", f"{self.server.admin_url}/invocations/{invocation}")[1])["journal"]
        return any(entry["entry_type"] == "Notification: Run" for entry in entries)


@pytest.fixture(scope="module", params=["perdure", "restate"])
def server(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    if request.param == "restate" and tools.restate_server() is None:
        pytest.skip("the real restate-server is missing")
    settings = {"retry_initial_interval": "50ms", "retry_max_interval": "200ms"}
    server = Server(request.param, tmp_path_factory.mktemp(request.param), settings)
    try:
        server.start()
        yield server
    finally:
        server.kill()


@pytest.fixture(scope="module", params=list(SAMPLES))
def world(server: Server, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    base = tmp_path_factory.mktemp(request.param)
    systems = base / "systems"
    sample = SAMPLES[request.param](base / "sample", {"SYSTEMS_DIR": str(systems)})
    try:
        sample.start()
        server.register(sample.uri)
        systems.mkdir()
        yield World(server, sample, systems)
    finally:
        sample.kill()


def until(seen: Callable[[], bool], what: str) -> None:
    """Wait for something that another process does; its file is the only witness."""
    deadline = time.monotonic() + SEEN_TIMEOUT_S
    while not seen():
        assert time.monotonic() < deadline, f"did not happen within {SEEN_TIMEOUT_S:.0f} s: {what}"
        time.sleep(0.02)


def test_the_greeter_counts_per_key(world: World) -> None:
    sdk = world.sample.name.split()[0]
    ada, bob = f"Ada-{sdk}", f"Bob-{sdk}"
    assert world.call(f"/Greeter/{ada}/greet", "Hello") == (200, f"Hello, {ada}! That makes 1.")
    assert world.call(f"/Greeter/{ada}/greet", "Hi") == (200, f"Hi, {ada}! That makes 2.")
    assert world.call(f"/Greeter/{bob}/greet", "Hello") == (200, f"Hello, {bob}! That makes 1.")
    assert request("GET", f"{world.server.ingress_url}/Greeter/{ada}/count") == (200, b"2")


def test_all_systems_are_updated(world: World) -> None:
    status, receipts = world.call("/ProfileUpdater/update", {"user": "ada", "email": "ada@example.org"})
    assert status == 200
    assert isinstance(receipts, dict)
    assert list(receipts) == ["crm", "billing", "newsletter"]
    for system, receipt in receipts.items():
        assert world.lines(system).count(f"ada ada@example.org {receipt}") == 1


def test_a_refused_update_reaches_the_caller_and_no_system(world: World) -> None:
    status, answer = world.call("/ProfileUpdater/update", {"user": "eve", "email": "nowhere"})
    assert status == 400
    assert isinstance(answer, dict)
    assert answer["message"] == "not an e-mail address: nowhere"
    assert [line for line in world.lines("crm") if line.startswith("eve")] == []


@pytest.mark.parametrize("fault", ["a system is down", "the server is killed", "the sample is killed"])
def test_a_done_update_is_not_repeated(world: World, fault: str) -> None:
    """While billing is down the update of the CRM is recorded, and never runs again, whatever is killed then."""
    user = fault.replace(" ", "-")
    down = world.systems / "billing.down"
    down.touch()
    # A send is accepted and then belongs to the server.
    profile = {"user": user, "email": f"{user}@example.org"}
    status, accepted = request("POST", f"{world.server.ingress_url}/ProfileUpdater/update/send", profile)
    assert status == 202
    invocation = json.loads(accepted)["invocationId"]
    until(lambda: world.has_recorded_a_step(invocation), "the update of the CRM is recorded")

    if fault == "the server is killed":
        world.server.kill()
        world.server.start()
    elif fault == "the sample is killed":
        world.sample.kill()
        world.sample.start()
    down.unlink()

    status, body = request("GET", f"{world.server.ingress_url}/restate/attach/{invocation}", timeout=60)
    assert status == 200, body
    receipts = json.loads(body)
    for system in ("crm", "billing", "newsletter"):
        assert [line for line in world.lines(system) if line.startswith(user)] == [
            f"{user} {user}@example.org {receipts[system]}"
        ]

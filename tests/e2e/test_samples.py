"""The samples of three SDKs, started exactly as their users start them, and called as their READMEs say.

They run against Perdure and against the real restate-server: a sample is no proof of compatibility if it only
works here.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
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


def java_sample(directory: Path, env: dict[str, str]) -> Deployment:
    """`mvn -q compile exec:java`; compiled before, so that what cannot be fetched is told from what does not start."""
    mvn = shutil.which("mvn")
    if mvn is None or shutil.which("javac") is None:
        pytest.skip("a JDK or Maven is missing")
    shutil.copytree(EXAMPLES / "java", directory, ignore=shutil.ignore_patterns("target", "systems"))
    done = subprocess.run([mvn, "-q", "-B", "compile"], cwd=directory, capture_output=True, text=True)
    if done.returncode != 0:
        pytest.skip(f"mvn compile did not work: {done.stdout[-300:]}")
    port = free_port()
    env = {**env, "PORT": str(port)}
    argv = [mvn, "-q", "compile", "exec:java"]
    return Deployment("java sample", argv, directory / "sample.log", port, env, directory)


SAMPLES: dict[str, Callable[[Path, dict[str, str]], Deployment]] = {
    "python": python_sample,
    "typescript": typescript_sample,
    "java": java_sample,
}


class World:
    """A server with a sample on it, and the systems that the sample writes to."""

    def __init__(self, server: Server, sample: Deployment, systems: Path) -> None:
        self.server, self.sample, self.systems = server, sample, systems

    def call(self, path: str, body: object) -> tuple[int, object]:
        status, answer = request("POST", self.server.ingress_url + path, body, timeout=60)
        return status, json.loads(answer)

    def status(self, payment: str) -> object:
        return json.loads(request("GET", f"{self.server.ingress_url}{payment}/status")[1])

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


@dataclass(frozen=True)
class ReadmeStep:
    """A command of a README and what it says comes out; "…" stands for anything, an empty text for who cares."""

    command: str
    output: str

    def run(self, world: World) -> str:
        """What really comes out, with this world's port and a key of its own."""
        sdk = world.sample.name.split()[0]
        command = self.command.replace("localhost:8080", f"127.0.0.1:{world.server.ingress_port}")
        command = command.replace("curl ", "curl -sS --max-time 60 --noproxy '*' ").replace("order-1", f"order-{sdk}")
        done = subprocess.run(["sh", "-c", command], capture_output=True, text=True)
        assert done.returncode == 0, f"{command}: {done.stderr}"
        return done.stdout

    def gives(self, said: str) -> bool:
        """Whether that is what the README promises; JSON counts by its value, not by its spaces."""
        pattern = re.escape(compact(self.output)).replace("…", ".*")
        return re.fullmatch(pattern, compact(said), re.DOTALL) is not None


def compact(text: str) -> str:
    return json.dumps(json.loads(text), ensure_ascii=False)


def readme_steps(sdk: str, heading: str) -> list[ReadmeStep]:
    """The commands under a heading, each with the lines that follow it."""
    section = (EXAMPLES / sdk / "README.md").read_text().partition(f"## {heading}\n")[2].partition("\n## ")[0]
    blocks = "\n\n".join(re.findall(r"```sh\n(.*?)```", section, re.DOTALL))
    steps = []
    for part in re.split(r"^(?=curl )", blocks.replace("\\\n", ""), flags=re.MULTILINE):
        command, _, output = part.partition("\n")
        if command:
            steps.append(ReadmeStep(command, output.strip()))
    return steps


def test_a_payment_goes_as_its_readme_says(world: World) -> None:
    """And the server is killed while it waits for the bank, as the README invites to."""
    sdk = world.sample.name.split()[0]
    order, status, webhook, attach, again = readme_steps(sdk, "A payment")
    assert order.gives(order.run(world))
    until(lambda: status.gives(status.run(world)), "the payment waits for the bank")

    world.server.kill()
    world.server.start()

    assert status.gives(status.run(world))
    webhook.run(world)
    said = attach.run(world)
    assert attach.gives(said)
    assert again.gives(again.run(world))
    assert world.status(f"/Payment/order-{sdk}") == "settled"
    receipt = json.loads(said)["receipt"]
    assert [line for line in world.lines("bank") if f"order-{sdk} " in line] == [f"order-{sdk} 30 {receipt}"]
    assert len([line for line in world.lines("mail") if f"order-{sdk}:settled" in line]) == 1


def test_a_payment_waits_for_a_bank_that_is_down(world: World) -> None:
    down = world.systems / "bank.down"
    down.touch()
    path = f"/Payment/patient-{world.sample.name.split()[0]}"
    assert world.call(f"{path}/run/send", {"account": "ada", "amount": 5})[0] == 202
    until(lambda: world.status(path) == "charging", "the payment is being charged")
    down.unlink()
    until(lambda: world.status(path) == "waiting for the bank", "the bank is asked again")


def test_a_payment_of_nothing_is_refused(world: World) -> None:
    status, answer = world.call(f"/Payment/empty-{world.sample.name.split()[0]}/run", {"account": "ada", "amount": 0})
    assert status == 400
    assert isinstance(answer, dict)
    assert answer["message"] == "not an amount: 0"

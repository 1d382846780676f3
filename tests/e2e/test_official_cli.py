"""The official command line, unmodified, against Perdure and against the real server: the same input means the same.

Both servers are brought to the same state, then every verb is run on both. Ids, times, ports and orders that
neither promises are taken out of the output; what remains must be equal.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from support import tools
from support.processes import Deployment, Server, python_deployment, request

HERE = Path(__file__).resolve().parent
REACHED_TIMEOUT_S = 20.0
# Verb by verb; {greet}, {fail}, … are invocations, {deployment} and {uri} the deployment. The order matters.
COMMANDS = [
    "whoami",
    "services list",
    "services list --extra",
    "services describe Shelf",
    "services describe Nope",
    "services status",
    "services status Shelf",
    "services config view Work",
    "services config patch Work --journal-retention 2d",
    "services config view Work",
    "deployments list --extra",
    "deployments register {uri}",
    "deployments describe {deployment} --extra",
    "invocations list",
    "invocations list --all --limit 100",
    "invocations list --status backing-off",
    "invocations list --service Shelf --key k1",
    "invocations describe {greet}",
    "invocations describe {refuse}",
    "invocations describe {fail}",
    "invocations describe {parent}",
    "invocations describe {queued}",
    "invocations describe {later}",
    "invocations describe {order}",
    "invocations pause {fail}",
    "invocations describe {fail}",
    "invocations resume {fail}",
    "invocations cancel {nap}",
    "invocations cancel --kill Work/parent",
    # Alone, and before the one that it waits for: of two at once, either may be the first.
    "invocations kill {queued}",
    "invocations kill Shelf/k1",
    "invocations cancel {later}",
    "invocations restart-as-new {refuse}",
    "invocations purge {greet}",
    "invocations describe {greet}",
    "state get Shelf k2",
    'state patch Shelf k2 -p [{{"op":"replace","path":"/amount","value":9}}]',
    "state get Shelf k2",
    "state clear Shelf/k2",
    "state get Shelf k2",
    "sql --json SELECT@status@FROM@sys_invocation@ORDER@BY@target,created_at",
    "sql --jsonl SELECT@name,ty,public@FROM@sys_service@ORDER@BY@name",
    "sql SELECT@1@AS@a",
    "sql SELEC",
    "subscriptions list",
    "kafka-clusters list",
    "rules list",
    "vqueues list",
    "deployments remove {deployment}",
    "deployments register {uri} --force",
    "deployments remove {deployment} --force",
    "services list",
    "config view",
    "completions generate bash",
]
# What a run differs in from the next one, on the same server as well.
NOISE = [
    (re.compile(r"\x1b\[[0-9;]*m"), ""),
    (re.compile(r"\b(inv|dp|sign)_1[0-9A-Za-z_-]+"), r"\1_ID"),
    (re.compile(r"\b01[0-9A-HJKMNP-TV-Z]{24}\b"), "ULID"),
    (re.compile(r"127\.0\.0\.1:\d+"), "HOST"),
    (re.compile(r"\d{4}-\d\d-\d\d[ T][\d:.]+(?: \+00:00|Z)?"), "TIME"),
    (re.compile(r"[A-Z][a-z]{2} \d\d [A-Z][a-z]{2} \d{4} [\d:]+ \+00:00"), "TIME"),
    (re.compile(r"\bnow(?= ago)|\b(?:\d+ (?:seconds?|minutes?|ms)(?: and )?)+"), "DURATION"),
    # The older server has tried more often.
    (re.compile(r"Retried \d+ time"), "Retried N time"),
    (re.compile(r"Query took [\d.]+m?s"), "Query took DURATION"),
    (re.compile(r"[-─―━└├╰╭│┌┐┘┤▸❯>=─ \t]+"), " "),
]


class Side:
    """One server with the services registered, and the command line pointed at it."""

    def __init__(self, server: Server, uri: str, home: Path) -> None:
        self.server, self.uri, self.home = server, uri, home
        self.deployment = server.register(uri)["id"]
        self.ids: dict[str, str] = {}

    def send(self, name: str, path: str, body: Any = None) -> None:
        status, answer = request("POST", f"{self.server.ingress_url}/{path}", body)
        assert status in (200, 202), answer
        self.ids[name] = json.loads(answer).get("invocationId", "") if status == 202 else ""

    def rows(self, query: str) -> list[dict[str, Any]]:
        headers = {"accept": "application/json"}
        found: list[dict[str, Any]] = json.loads(
            request("POST", f"{self.server.admin_url}/query", {"query": query}, headers=headers)[1]
        )["rows"]
        return found

    def reach(self, condition: str, count: int) -> None:
        """Wait until so many invocations fit."""
        deadline = time.monotonic() + REACHED_TIMEOUT_S
        while len(self.rows(f"SELECT id FROM sys_invocation WHERE {condition}")) < count:
            assert time.monotonic() < deadline, f"{self.server.kind}: {condition}"
            time.sleep(0.05)

    def run(self, command: str) -> list[str]:
        """Exit code and lines of the output, in no order, without what differs from run to run."""
        filled = command.format(**self.ids, deployment=self.deployment, uri=self.uri)
        binary = tools.restate_cli()
        assert binary is not None
        env = {
            **os.environ,
            "RESTATE_ADMIN_URL": self.server.admin_url,
            "RESTATE_CLI_CONFIG_HOME": str(self.home),
            "HOME": str(self.home),
            "CI": "1",
            "NO_COLOR": "1",
            "DO_NOT_TRACK": "1",
        }
        words = [word.replace("@", " ") for word in filled.split(" ")]
        done = subprocess.run([str(binary), *words], env=env, capture_output=True, text=True, timeout=60)
        text = f"exit {done.returncode}\n{done.stdout}\n{done.stderr}".replace(str(self.home), "DIR")
        for pattern, instead in NOISE:
            text = pattern.sub(instead, text)
        if command.endswith("list --extra"):
            # What belongs together stands below each other, and any of it may be on the first line.
            return sorted(text.split())
        return sorted(line.strip() for line in text.splitlines() if line.strip())


def occupy(side: Side) -> None:
    """An invocation in each state."""
    side.send("greet", "Work/greet/send", "Ada")
    side.send("refuse", "Work/refuse/send")
    side.send("fail", "Work/fail/send")
    side.send("nap", "Work/nap/send")
    side.send("parent", "Work/parent/send")
    side.send("later", "Work/greet/send?delay=1h", "Ada")
    side.send("held", "Shelf/k1/hold/send")
    side.reach("target = 'Shelf/k1/hold' AND status = 'running'", 1)
    side.send("queued", "Shelf/k1/hold/send")
    side.send("put", "Shelf/k2/put", 5)
    side.send("order", "Order/w1/run/send", "book")
    side.reach("status = 'completed'", 3)
    side.reach("status = 'running'", 5)
    # Far into its back-off, so that it is in it whenever a command looks.
    side.reach("status = 'backing-off' AND retry_count >= 3", 1)


@pytest.fixture(scope="module", name="sides")
def both(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Side]]:
    if tools.restate_server() is None or tools.restate_cli() is None:
        pytest.skip("the real restate-server or its command line is missing")
    base = tmp_path_factory.mktemp("official-cli")
    deployment: Deployment = python_deployment("cli_services:app", HERE, base / "services.log")
    settings = {"retry_initial_interval": "3s", "retry_max_interval": "60s"}
    servers = [Server(kind, base / kind, settings) for kind in ("restate", "perdure")]
    try:
        deployment.start()
        found = []
        for server in servers:
            server.start()
            (base / f"{server.kind}-home").mkdir()
            side = Side(server, deployment.uri, base / f"{server.kind}-home")
            occupy(side)
            found.append(side)
        yield found
    finally:
        for process in (*servers, deployment):
            process.kill()


def test_every_verb_means_the_same(sides: list[Side]) -> None:
    restate, perdure = sides
    differences = []
    for command in COMMANDS:
        theirs, ours = restate.run(command), perdure.run(command)
        if theirs != ours:
            missing = [line for line in theirs if line not in ours]
            added = [line for line in ours if line not in theirs]
            differences.append(
                "\n".join(
                    [f"restate {command}", *(f"  - {line}" for line in missing), *(f"  + {line}" for line in added)]
                )
            )
    assert not differences, "\n\n".join(["", *differences])

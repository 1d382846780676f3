"""Real processes for end-to-end tests and benchmarks: servers and deployments, to be killed, stopped, measured.

Every process leads a session of its own, so that a signal reaches it and its children and nothing else.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from support import tools

SETTINGS = tools.ROOT / "tests" / "conformance" / "settings"
READY_TIMEOUT_S = 60.0
POLL_S = 0.02
CLOCK_TICKS = os.sysconf("SC_CLK_TCK")


class NotReady(Exception):
    """A process did not come up; the message ends with its log."""


_given_ports: set[int] = set()


def free_port() -> int:
    """A free loopback port below the ephemeral range, so that no client takes it while its server is down.

    Never the same one twice: who was given one may not listen on it yet, or be down for a moment."""
    for _ in range(500):
        port = random.randint(20000, 31999)
        if port in _given_ports:
            continue
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            _given_ports.add(port)
            return port
    raise RuntimeError("no free port")


def request(
    method: str, url: str, body: Any = None, timeout: float = 30, headers: Mapping[str, str] | None = None
) -> tuple[int, bytes]:
    """One HTTP request with a JSON body, past any proxy; an error status is an answer, not an exception."""
    data = None if body is None else json.dumps(body).encode()
    headers = {**({} if data is None else {"content-type": "application/json"}), **(headers or {})}
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(urllib.request.Request(url, data, headers, method=method), timeout=timeout) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def answers(url: str) -> bool:
    """Whether a GET gives 200."""
    try:
        return request("GET", url, timeout=2)[0] == 200
    except OSError:
        return False


def accepts(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


class Process:
    """A child process that can be killed, stopped, continued and started again with the same arguments."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        ready: Callable[[], bool] = lambda: True,
    ) -> None:
        self.name, self.argv, self.log, self.cwd = name, list(argv), log, cwd
        self.env = {**os.environ, **(env or {})}
        self._ready = ready
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        assert self._child is not None, f"{self.name} was never started"
        return self._child.pid

    def running(self) -> bool:
        return self._child is not None and self._child.poll() is None

    def start(self) -> None:
        """Start and wait until it is ready to serve."""
        assert not self.running(), f"{self.name} already runs"
        with self.log.open("ab") as out:
            self._child = subprocess.Popen(
                self.argv,
                env=self.env,
                cwd=self.cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not self._ready():
            if not self.running():
                raise NotReady(f"{self.name} ended with {self._child.returncode}:\n{self.log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise NotReady(f"{self.name} was not ready within {READY_TIMEOUT_S:.0f} s:\n{self.log_tail()}")
            time.sleep(POLL_S)

    def _signal(self, number: int) -> None:
        if self._child is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._child.pid, number)

    def kill(self) -> None:
        """SIGKILL: nothing is flushed, nothing is said goodbye to."""
        self._signal(signal.SIGKILL)
        if self._child is not None:
            self._child.wait(10)

    def terminate(self, timeout: float = 10) -> int | None:
        """SIGTERM, then SIGKILL for what is left; the exit status, None if it had to be killed."""
        if self._child is None:
            return None
        self._signal(signal.SIGCONT)
        self._signal(signal.SIGTERM)
        try:
            return self._child.wait(timeout)
        except subprocess.TimeoutExpired:
            return None
        finally:
            self.kill()

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def family(self) -> list[int]:
        """The process and its descendants."""
        found = [self.pid]
        for pid in found:
            for task in Path(f"/proc/{pid}/task").glob("*/children"):
                with contextlib.suppress(OSError):
                    found += map(int, task.read_text().split())
        return found

    def cpu_seconds(self) -> float:
        """User and system time used so far, from /proc."""
        ticks = 0
        for pid in self.family():
            with contextlib.suppress(OSError):
                # Field 2 is a name in parentheses that may hold spaces; utime and stime are fields 14 and 15.
                fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
                ticks += int(fields[11]) + int(fields[12])
        return ticks / CLOCK_TICKS

    def rss_bytes(self) -> int:
        """Memory in use now."""
        total = 0
        for pid in self.family():
            with contextlib.suppress(OSError):
                total += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return total * os.sysconf("SC_PAGE_SIZE")

    def log_tail(self, lines: int = 30) -> str:
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])


class Server(Process):
    """Perdure or the real restate-server on ports and a directory of its own.

    Settings have the conformance suite's abstract names (tests/conformance/settings); one that a server does not
    know is an error.
    """

    def __init__(self, kind: str, directory: Path, settings: Mapping[str, str] | None = None) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        data = directory / "data"
        ports = {name: free_port() for name in ("ingress_port", "admin_port", "node_port")}
        wanted = {
            **{name: str(port) for name, port in ports.items()},
            "bind_ip": "127.0.0.1",
            **(settings or {}),
        }
        if kind == "restate":
            wanted.update(listen_mode="tcp", disable_ansi="true", disable_telemetry="true")
        names = json.loads((SETTINGS / f"{kind}.json").read_text())
        env = {single: text for key, text in wanted.items() for single in names[key].split(",")}
        self.kind = kind
        self.data = data
        self.ingress_port = ports["ingress_port"]
        self.ingress_url = f"http://127.0.0.1:{ports['ingress_port']}"
        self.admin_url = f"http://127.0.0.1:{ports['admin_port']}"
        self.node_url = f"http://127.0.0.1:{ports['node_port']}"
        super().__init__(
            kind,
            {"perdure": tools.perdure_command, "restate": tools.restate_command}[kind](data),
            directory / "server.log",
            {"DO_NOT_TRACK": "1", **env},
            ready=lambda: answers(f"{self.admin_url}/health") and answers(f"{self.ingress_url}/restate/health"),
        )

    def register(self, uri: str, force: bool = False) -> dict[str, Any]:
        """Register a deployment; raises with the server's words if it refuses."""
        status, body = request("POST", f"{self.admin_url}/deployments", {"uri": uri, "force": force})
        if status not in (200, 201):
            raise NotReady(f"{self.name} refused {uri}: {status} {body.decode(errors='replace')}\n{self.log_tail()}")
        answer: dict[str, Any] = json.loads(body)
        return answer


class Deployment(Process):
    """User code that listens on a port."""

    def __init__(
        self,
        name: str,
        argv: Sequence[str],
        log: Path,
        port: int,
        env: Mapping[str, str],
        cwd: Path | None = None,
    ) -> None:
        self.port = port
        self.uri = f"http://127.0.0.1:{port}"
        super().__init__(name, argv, log, env, cwd, ready=lambda: accepts(port))


def python_deployment(
    app: str, directory: Path, log: Path, env: Mapping[str, str] | None = None, port: int | None = None
) -> Deployment:
    """An app of the official Python SDK on hypercorn; `app` is "module:name", looked for in `directory`."""
    port = port or free_port()
    argv = [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", app]
    return Deployment("python deployment", argv, log, port, env or {}, directory)

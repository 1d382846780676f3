"""`make run` on a clean copy of the repository: what a newcomer types first, and types again tomorrow."""

from __future__ import annotations

import json
import os
import queue
import re
import shlex
import shutil
import signal
import subprocess
import threading
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from support.processes import accepts, free_port, request
from support.tools import ROOT

# The first one installs everything.
READY_TIMEOUT_S = 400.0
STOP_TIMEOUT_S = 40.0


class MakeRun:
    """One `make run` in a session of its own, like one terminal."""

    def __init__(self, copy: Path, ports: Mapping[str, int]) -> None:
        self.lines: list[str] = []
        self._new: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        # Nothing of the environment that runs the tests: the copy has to make its own.
        foreign = ("MAKE", "MFLAGS", "VIRTUAL_ENV", "PYTHON", "PERDURE_")
        env = {key: text for key, text in os.environ.items() if not key.startswith(foreign)}
        argv = ["make", "run", *(f"{name}={port}" for name, port in ports.items())]
        self.process = subprocess.Popen(
            argv,
            cwd=copy,
            env=env,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._new.put(line.rstrip("\n"))
        self._new.put(None)

    def until(self, text: str, timeout: float) -> str:
        """The output up to the line that holds `text`."""
        deadline = time.monotonic() + timeout
        while True:
            try:
                line = self._new.get(timeout=max(0.0, deadline - time.monotonic()))
            except queue.Empty:
                raise AssertionError(f"not said within {timeout:.0f} s: {text}\n{self.said()}") from None
            assert line is not None, f"ended without saying {text!r}:\n{self.said()}"
            self.lines.append(line)
            if text in line:
                return self.said()

    def said(self) -> str:
        return "\n".join(self.lines)

    def ctrl_c(self) -> None:
        """What a terminal does: SIGINT to every process of the foreground group."""
        os.killpg(self.process.pid, signal.SIGINT)

    def end(self) -> str:
        """The rest of the output, once it has ended."""
        self.process.wait(STOP_TIMEOUT_S)
        while (line := self._new.get(timeout=STOP_TIMEOUT_S)) is not None:
            self.lines.append(line)
        return self.said()


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `git clone` would give, changes that are not committed included."""
    target = tmp_path_factory.mktemp("clone")
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    names = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    for name in filter(None, names.split("\0")):
        if (ROOT / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, target / name)
    return target


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return {name: free_port() for name in ("INGRESS_PORT", "ADMIN_PORT", "NODE_PORT", "SAMPLE_PORT")}


@pytest.fixture
def runs() -> Iterator[list[MakeRun]]:
    """Whatever a test starts, it is not left behind."""
    started: list[MakeRun] = []
    yield started
    for run in started:
        if run.process.poll() is None:
            run.ctrl_c()
            run.process.wait(STOP_TIMEOUT_S)


def paste(said: str, path: str) -> str:
    """Run the printed call, as a user would; without a curl on the machine, do what it says."""
    printed = re.search(rf"curl \S*{path} .*?'(?=\n\n)", said, re.DOTALL)
    assert printed is not None, said
    argv = shlex.split(printed.group().replace("\\\n", " "))
    if shutil.which("curl") is None:
        return request("POST", argv[1], json.loads(argv[argv.index("-d") + 1]))[1].decode()
    done = subprocess.run([argv[0], "--silent", "--noproxy", "*", *argv[1:]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(900)
def test_run_call_stop_and_run_again(copy: Path, ports: dict[str, int], runs: list[MakeRun]) -> None:
    for expected in ("1", "2"):
        run = MakeRun(copy, ports)
        runs.append(run)
        said = run.until("Ctrl-C stops both", READY_TIMEOUT_S)
        assert f"admin    http://127.0.0.1:{ports['ADMIN_PORT']}" in said
        assert request("GET", f"http://127.0.0.1:{ports['ADMIN_PORT']}/health")[0] == 200
        assert paste(said, "/Greeter/Ada/greet") == f'"Hello, Ada! That makes {expected}."'
        assert '"newsletter"' in paste(said, "/ProfileUpdater/update")
        run.ctrl_c()
        assert "stopped; the data is kept" in run.end()
        assert [name for name, port in ports.items() if accepts(port)] == []
    assert (copy / "perdure-data").is_dir()


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["INGRESS_PORT", "ADMIN_PORT", "NODE_PORT", "SAMPLE_PORT"])
def test_a_port_in_use_is_one_clear_line(copy: Path, ports: dict[str, int], runs: list[MakeRun], name: str) -> None:
    first = MakeRun(copy, ports)
    runs.append(first)
    first.until("Ctrl-C stops both", READY_TIMEOUT_S)
    others = {other: free_port() for other in ports}
    run = MakeRun(copy, {**others, name: ports[name]})
    said = run.end()
    assert run.process.returncode != 0
    errors = [line for line in said.splitlines() if line.startswith("make run: ")]
    assert len(errors) == 1, said
    assert f"port {ports[name]} cannot be used" in errors[0]
    assert f"{name}=" in errors[0]
    assert [port for other, port in others.items() if other != name and accepts(port)] == []


@pytest.mark.timeout(900)
def test_a_second_run_on_the_same_data_says_who_has_it(copy: Path, ports: dict[str, int], runs: list[MakeRun]) -> None:
    first = MakeRun(copy, ports)
    runs.append(first)
    first.until("Ctrl-C stops both", READY_TIMEOUT_S)
    others = {other: free_port() for other in ports}
    second = MakeRun(copy, others)
    said = second.end()
    assert second.process.returncode != 0
    assert "make run: the server ended" in said
    assert "perdure-data" in said
    assert [port for port in others.values() if accepts(port)] == []
    assert request("GET", f"http://127.0.0.1:{ports['ADMIN_PORT']}/health")[0] == 200

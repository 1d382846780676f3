"""A full disk, and data directories that a server cannot use: it says so, keeps what it promised, and goes on.

The data directory is a small tmpfs in a mount namespace of its own, seen through /proc; that takes root.
"""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from e2e import fake_endpoint
from e2e.fake_endpoint import Exchange, FakeEndpoint, end, output, set_state
from support import tools
from support.processes import NotReady, Server, request

MIB = 1 << 20
DISK_BYTES = 256 * MIB
WAIT_S = 30.0
START_S = 20.0
COUNTERS = 4
SERVICES = [{"name": "Count", "ty": "VIRTUAL_OBJECT", "handlers": [{"name": "add", "ty": "EXCLUSIVE"}]}]


async def add(exchange: Exchange) -> None:
    """Adds one to the key's count and answers with it."""
    await exchange.replay()
    state = {entry.key: entry.value for entry in (await exchange.start()).state_map}
    count = b"%d" % (int(state.get(b"count", b"0")) + 1)
    await exchange.answer(set_state(b"count", count) + output(count) + end())


@pytest.fixture
def endpoint() -> Iterator[FakeEndpoint]:
    with fake_endpoint.serving(SERVICES) as endpoint:
        endpoint.script = add
        yield endpoint


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of DISK_BYTES that goes with the process that holds it."""
    if os.geteuid() != 0:
        pytest.skip("a file system of a small size takes root")
    place = tmp_path / "disk"
    place.mkdir()
    mount = 'mount --make-rprivate / && mount -t tmpfs -o size="$1" none "$0" && echo mounted && exec sleep infinity'
    holder = subprocess.Popen(
        ["unshare", "-m", "sh", "-c", mount, str(place), str(DISK_BYTES)], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None and holder.stdout.readline() == "mounted\n"
        yield Path(f"/proc/{holder.pid}/root{place}")
    finally:
        holder.kill()
        holder.wait(10)


def server_on(disk: Path, directory: Path, free_min: str) -> Server:
    """A server whose data lies on the disk; its output does not."""
    server = Server("perdure", directory / "server", {"num_partitions": "2", "retry_initial_interval": "50ms"})
    server.data.symlink_to(disk / "data")
    (disk / "data").mkdir(exist_ok=True)
    server.env["PERDURE_STORAGE__DISK_FREE_MIN"] = free_min
    return server


@contextlib.contextmanager
def ballast(disk: Path) -> Iterator[None]:
    """Not a byte is free meanwhile."""
    file = disk / "ballast"
    with file.open("wb", buffering=0) as out, contextlib.suppress(OSError):
        while out.write(bytes(MIB)):
            pass
    assert free(disk) < MIB
    try:
        yield
    finally:
        file.unlink()


def free(disk: Path) -> int:
    found = os.statvfs(disk)
    return found.f_bavail * found.f_frsize


def eventually(condition: Callable[[], Any], timeout_s: float = WAIT_S) -> Any:
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"still {answer!r} after {timeout_s:.0f} s"
        time.sleep(0.02)
    return answer


class Clients:
    """One thread per counter; each adds and adds, and repeats what was not acknowledged with the same key."""

    def __init__(self, server: Server, body: Any = None) -> None:
        self._server = server
        self._body = body
        self._stop = threading.Event()
        self.acknowledged = [0] * COUNTERS
        self.counts: list[list[int]] = [[] for _ in range(COUNTERS)]
        # What was said instead, by status; 0 is a connection that was refused or lost.
        self.refusals: list[tuple[int, str]] = []
        self.failures: list[str] = []
        self._threads = [threading.Thread(target=self._run, args=(number,)) for number in range(COUNTERS)]
        for thread in self._threads:
            thread.start()

    def _run(self, number: int) -> None:
        while not self._stop.is_set():
            key = f"{number}-{self.acknowledged[number]}"
            while (count := self._add(number, key)) is None:
                self._stop.wait(0.02)
                if self._stop.is_set():
                    return
            self.counts[number].append(count)
            self.acknowledged[number] += 1

    def _add(self, number: int, key: str) -> int | None:
        url = f"{self._server.ingress_url}/Count/c{number}/add"
        try:
            status, body = request("POST", url, self._body, headers={"idempotency-key": key})
        except OSError as error:
            self.refusals.append((0, str(error)))
            return None
        if status == 200:
            return int(body)
        self.refusals.append((status, body.decode(errors="replace")))
        if status not in (429, 503):
            self.failures.append(f"{status} {body!r}")
        return None

    def total(self) -> int:
        return sum(self.acknowledged)

    def stop(self) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join(60)
        assert not self.failures, self.failures[:3]


def check_counts(server: Server, clients: Clients) -> None:
    """Each add counted once, in the order in which it was acknowledged; none was forgotten."""
    for number, counts in enumerate(clients.counts):
        assert counts == list(range(1, len(counts) + 1)), f"counter {number} went {counts[-5:]}"
        url = f"{server.ingress_url}/Count/c{number}/add"
        # A last request may have been let go without having been acknowledged.
        pending = f"{number}-{clients.acknowledged[number]}"
        status, body = request("POST", url, headers={"idempotency-key": pending})
        assert (status, int(body)) == (200, len(counts) + 1)


def refused_with(clients: Clients, word: str) -> Callable[[], bool]:
    before = len(clients.refusals)
    return lambda: any(status == 503 and word in text for status, text in clients.refusals[before:])


def test_full_disk_refuses_and_goes_on(disk: Path, tmp_path: Path, endpoint: FakeEndpoint) -> None:
    """New requests are turned away early; what was acknowledged stays, with and without a kill meanwhile."""
    server = server_on(disk, tmp_path, "96MiB")
    server.start()
    server.register(endpoint.uri)
    clients = Clients(server)
    try:
        eventually(lambda: clients.total() > 40)
        refused = refused_with(clients, "disk full: ")
        with ballast(disk):
            eventually(refused)
            told = json.loads(next(text for status, text in clients.refusals if status == 503))
            assert told["code"] == 503 and "are needed" in told["message"] and "Retrying is safe" in told["message"]
            assert server.running()
        reached = clients.total()
        eventually(lambda: clients.total() > reached + 40)

        refused = refused_with(clients, "disk full: ")
        with ballast(disk):
            eventually(refused)
            server.kill()
        server.start()
        reached = clients.total()
        eventually(lambda: clients.total() > reached + 40)
    finally:
        clients.stop()
    check_counts(server, clients)
    assert server.terminate() == 0, server.log_tail()
    assert "Traceback" not in server.log.read_text(), server.log_tail(60)


def test_full_disk_found_by_the_log(disk: Path, tmp_path: Path, endpoint: FakeEndpoint) -> None:
    """Nobody watches: the log runs into the full disk, refuses, and takes again what waited for it."""
    server = server_on(disk, tmp_path, "1B")
    server.start()
    server.register(endpoint.uri)
    clients = Clients(server, body="x" * 200_000)
    try:
        eventually(lambda: clients.total() > 10)
        refused = refused_with(clients, "")
        with ballast(disk):
            eventually(refused)
            assert server.running()
        reached = clients.total()
        eventually(lambda: clients.total() > reached + 20)
    except AssertionError:
        print(server.log_tail(), *clients.refusals[-3:], f"{free(disk)} bytes are free", sep="\n")
        raise
    finally:
        clients.stop()
    check_counts(server, clients)
    assert server.terminate() == 0, server.log_tail()
    assert "Traceback" not in server.log.read_text(), server.log_tail(60)


def test_full_disk_at_a_stop(disk: Path, tmp_path: Path, endpoint: FakeEndpoint) -> None:
    """A regular stop with no room to flush loses nothing: the log has it all."""
    server = server_on(disk, tmp_path, "96MiB")
    server.start()
    server.register(endpoint.uri)
    clients = Clients(server)
    try:
        eventually(lambda: clients.total() > 40)
        with ballast(disk):
            assert server.terminate() == 0, server.log_tail()
            # Started now it may come up and refuse, or say why it cannot; it must not lose anything.
            with contextlib.suppress(NotReady):
                server.start()
            server.kill()
        server.start()
        reached = clients.total()
        eventually(lambda: clients.total() > reached + 40)
    finally:
        clients.stop()
        server_lives = server.running()
    assert server_lives
    check_counts(server, clients)
    server.kill()


# -- directories that cannot be used ------------------------------------------------------------------------------


def refusal(data: Path, *arguments: str, env: dict[str, str] | None = None) -> str:
    """What a server that does not start says: exit code 1 and one line, no traceback."""
    done = subprocess.run(
        [*tools.perdure_command(data), "--ingress-port=0", "--admin-port=0", "--node-port=0", *arguments],
        env={**os.environ, **(env or {})},
        capture_output=True,
        text=True,
        timeout=START_S,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 1, f"{done.returncode}: {said}"
    assert "Traceback" not in said
    lines = [line for line in said.splitlines() if "cannot start" in line]
    assert len(lines) == 1, said
    return lines[0]


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A data directory that a server has used and left."""
    server = Server("perdure", tmp_path, {"num_partitions": "2"})
    server.start()
    assert server.terminate() == 0
    return server.data


def test_a_second_server_on_the_same_data_refuses(tmp_path: Path) -> None:
    server = Server("perdure", tmp_path, {"num_partitions": "2"})
    server.start()
    try:
        said = refusal(server.data)
        assert "belongs to a running server" in said and f"process id {server.pid}" in said
        assert request("GET", f"{server.ingress_url}/restate/health")[0] == 200
    finally:
        server.kill()


def test_another_number_of_partitions_is_refused(used: Path) -> None:
    said = refusal(used, "--partitions=3")
    assert "3" in said and "2" in said and "partitions" in said


def test_a_damaged_log_is_refused(used: Path) -> None:
    """A byte flipped in the middle: named by file and place, nothing is applied."""
    segment = min((used / "log").glob("segment-*.log"))
    data = bytearray(segment.read_bytes())
    last = len(data.rstrip(b"\0"))
    assert last > 200
    data[last // 2] ^= 0xFF
    segment.write_bytes(data)
    assert segment.name in refusal(used)


def test_a_format_of_the_future_is_refused(used: Path) -> None:
    segment = min((used / "log").glob("segment-*.log"))
    data = bytearray(segment.read_bytes())
    assert data[:8] == b"perdure\0" and data[8:12] == (1).to_bytes(4, "little")
    data[8:12] = (7).to_bytes(4, "little")
    data[36:40] = zlib.crc32(data[:36]).to_bytes(4, "little")  # of the header's fields, which end there
    segment.write_bytes(data)
    assert "segment format 7; this release knows 1" in refusal(used)


def test_a_directory_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    """A file where the directory should be, and a file system that takes no writes."""
    (tmp_path / "file").write_text("")
    assert "cannot be used" in refusal(tmp_path / "file")
    assert "cannot be used" in refusal(Path("/proc/perdure-data"))


def test_a_damaged_store_is_refused(used: Path) -> None:
    (used / "partitions" / "0000" / "CURRENT").write_text("nothing\n")
    assert "0000" in refusal(used)

"""What a call costs when much is stored: *counter* on an empty server and on one that remembers a million calls.

    python benchmarks/stored.py                       # 10^6 completed, 10^5 sleeping: minutes to fill
    python benchmarks/stored.py --completed 20000 --sleeping 2000 --pairs 3 --seconds 4

Both servers run the same release on the same deployment, in turn, as compare.py describes. Exits with 1 if the full
one is slower by more than the bar.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from compare import HERE, Cell, deployment, take_turns, work_directory

from support.processes import NotReady, Server

# The full server keeps at least this share of the empty one's throughput.
THROUGHPUT_BAR = 0.85
FILL_CONNECTIONS = 64
FILL_TIMEOUT_S = 3600.0
# Filled is when the server has nothing left to do: it uses less than this share of a core.
QUIET_CORES = 0.05
QUIET_TIMEOUT_S = 900.0


def fill(server: Server, workload: str, count: int) -> None:
    """Make `count` calls as fast as they are answered."""
    argv = [sys.executable, str(HERE / "load.py"), "--port", str(server.ingress_port), "--workload", workload]
    argv += ["--connections", str(FILL_CONNECTIONS), "--warmup", "0", "--seconds", str(FILL_TIMEOUT_S)]
    began = time.monotonic()
    done = subprocess.run([*argv, "--count", str(count)], capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"filling with {workload}: {done.stderr}\n{server.log_tail()}")
    answered = json.loads(done.stdout.splitlines()[-1])["requests"]
    if answered < count:
        raise SystemExit(f"only {answered} of {count} {workload} calls within {FILL_TIMEOUT_S:.0f} s")
    print(f"  {count} {workload} calls in {time.monotonic() - began:.0f} s", flush=True)


def wait_until_quiet(server: Server) -> None:
    deadline = time.monotonic() + QUIET_TIMEOUT_S
    while True:
        before = server.cpu_seconds()
        time.sleep(2.0)
        if (server.cpu_seconds() - before) / 2.0 < QUIET_CORES:
            return
        if time.monotonic() > deadline:
            raise SystemExit(f"the server is still busy {QUIET_TIMEOUT_S:.0f} s after it was filled")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--completed", type=int, default=1_000_000, help="calls that are done and kept (10^6)")
    parser.add_argument("--sleeping", type=int, default=100_000, help="invocations that sleep for a day (10^5)")
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--sdk", choices=("typescript", "python"), default="typescript")
    parser.add_argument("--pairs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--server", choices=("perdure", "restate"), default="perdure", help="which one to ask")
    given = parser.parse_args()

    work = Path(tempfile.mkdtemp(prefix="perdure-stored-", dir=work_directory()))
    app = deployment(given.sdk, work)
    servers = {name: Server(given.server, work / name) for name in ("empty", "full")}
    cell = Cell("counter", given.connections, given.sdk)
    try:
        app.start()
        for server in servers.values():
            server.start()
            server.register(app.uri)
        servers["empty"].pause()
        if given.completed:
            fill(servers["full"], "counter", given.completed)
        if given.sleeping:
            fill(servers["full"], "sleepers", given.sleeping)
        wait_until_quiet(servers["full"])
        take_turns(servers, app, cell, given.pairs, given.seconds)
    except NotReady as error:
        raise SystemExit(str(error)) from None
    finally:
        for server in servers.values():
            server.kill()
        app.kill()
        shutil.rmtree(work, ignore_errors=True)

    pairs = zip(cell.turns["full"], cell.turns["empty"], strict=True)
    ratio = statistics.median(full.per_second / empty.per_second for full, empty in pairs)
    print(f"\n| {given.server} | req/s | p50 ms | p99 ms | CPU µs/req | RSS MB |\n|---|---|---|---|---|---|")
    for name in servers:
        print(
            f"| {name} | {cell.median(name, 'per_second'):.0f} | {cell.median(name, 'p50_us') / 1e3:.2f} "
            f"| {cell.median(name, 'p99_us') / 1e3:.2f} | {cell.median(name, 'server_cpu_us'):.0f} "
            f"| {cell.median(name, 'rss_mb'):.0f} |"
        )
    print(f"\nthroughput, full / empty: {ratio:.2f} (median of {given.pairs} pairs; the bar is {THROUGHPUT_BAR})")
    return 0 if ratio >= THROUGHPUT_BAR else 1


if __name__ == "__main__":
    sys.exit(main())

"""How much one deployment's misbehaviour costs another one's callers: p99 of *greet* beside a hostile deployment.

    python benchmarks/hostile.py
    python benchmarks/hostile.py --connections 16 --seconds 10 --case flood

Three cases, each on a server of its own: 1000 calls that are never answered; 100 that are answered with one byte each
50 ms; a few that write 10^5 small frames each, again and again. The good deployment is the official Python SDK. In one
run *greet* is measured without and with them, in turn; exits with 1 if a median of the ratios of p99 exceeds the bar.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from compare import HERE, deployment, work_directory

from e2e.fake_endpoint import Exchange, FakeEndpoint, end, output, set_state
from support.processes import Deployment, Server, free_port, request

P99_BAR = 3.0
NEVER_CALLS = 1000
SLOW_CALLS = 100
SLOW_PAUSE_S = 0.05
FLOOD_CALLS = 4
FLOOD_FRAMES = 100_000
SETTLE_S = 2.0

SERVICES = [
    {
        "name": "Hostile",
        "ty": "VIRTUAL_OBJECT",
        "handlers": [{"name": name, "ty": "EXCLUSIVE"} for name in ("never", "slowly", "flood")],
    }
]
FRAMES = b"".join(set_state(b"k%d" % (number % 50), b"%d" % number) for number in range(FLOOD_FRAMES))


# -- the hostile deployment: a process of its own -------------------------------------------------------------------


async def misbehave(exchange: Exchange) -> None:
    """What the handler is called is what it does."""
    match exchange.path.rpartition("/")[2]:
        case "never":
            await exchange.ended()
        case "slowly":
            exchange.respond()
            for byte in set_state(b"k", bytes(10_000)):
                await exchange.write(bytes([byte]))
                await asyncio.sleep(SLOW_PAUSE_S)
        case "flood":
            await exchange.answer(FRAMES + output(b"1") + end())


def serve(port: int) -> None:
    endpoint = FakeEndpoint(SERVICES, port)
    endpoint.script = misbehave
    threading.Event().wait()


# -- its callers ----------------------------------------------------------------------------------------------------


def send_all(server: Server, handler: str, count: int) -> None:
    """Calls nobody waits for, each to a key of its own."""
    for number in range(count):
        status, body = request("POST", f"{server.ingress_url}/Hostile/{handler}-{number}/{handler}/send")
        if status != 202:
            raise SystemExit(f"{handler}: {status} {body.decode(errors='replace')}")


@contextlib.contextmanager
def once(server: Server, handler: str, count: int) -> Iterator[None]:
    """Calls that stay pending; they end with their server."""
    send_all(server, handler, count)
    yield


@contextlib.contextmanager
def flooding(server: Server) -> Iterator[None]:
    """A few callers that call again as soon as they are answered."""
    stop = threading.Event()
    answered = [0] * FLOOD_CALLS

    def call(number: int) -> None:
        while not stop.is_set():
            url = f"{server.ingress_url}/Hostile/flood-{number}-{answered[number]}/flood"
            status, body = request("POST", url, timeout=120)
            if status != 200:
                print(f"flood: {status} {body.decode(errors='replace')}", file=sys.stderr)
                return
            answered[number] += 1

    threads = [threading.Thread(target=call, args=(number,), daemon=True) for number in range(FLOOD_CALLS)]
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in threads:
            thread.join(120)
        print(f"  {sum(answered)} floods of {FLOOD_FRAMES} frames were answered", flush=True)


CASES: dict[str, Callable[[Server], contextlib.AbstractContextManager[None]]] = {
    "never": lambda server: once(server, "never", NEVER_CALLS),
    "slowly": lambda server: once(server, "slowly", SLOW_CALLS),
    "flood": flooding,
}


# -- measuring ------------------------------------------------------------------------------------------------------


def greet(server: Server, connections: int, seconds: float) -> dict[str, float]:
    argv = [sys.executable, str(HERE / "load.py"), "--port", str(server.ingress_port), "--workload", "greet"]
    argv += ["--connections", str(connections), "--warmup", "0.5", "--seconds", str(seconds)]
    done = subprocess.run(argv, capture_output=True, text=True)
    if done.returncode != 0:
        raise SystemExit(f"greet: {done.stderr}\n{server.log_tail()}")
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measure(case: str, app: Deployment, hostile: Deployment, work: Path, given: argparse.Namespace) -> float:
    """The median of the ratios of the p99s: each turn without, divided into the turn with that follows it.

    What is pending stays pending, so for those cases all turns without come first."""
    server = Server("perdure", work / case)
    server.start()
    try:
        server.register(app.uri)
        server.register(hostile.uri)
        greet(server, given.connections, 1.0)  # caches and pools are as they will be
        idle = [greet(server, given.connections, given.seconds) for _ in range(given.turns)]
        with CASES[case](server):
            time.sleep(SETTLE_S)
            hostile_turns = [greet(server, given.connections, given.seconds) for _ in range(given.turns)]
        for name, turns in (("idle", idle), (case, hostile_turns)):
            p50, p99, most = (
                statistics.median(turn[key] for turn in turns) / 1e3 for key in ("p50_us", "p99_us", "max_us")
            )
            print(f"| {name} | {p50:.2f} | {p99:.2f} | {most:.2f} |", flush=True)
        return statistics.median(turn["p99_us"] for turn in hostile_turns) / statistics.median(
            turn["p99_us"] for turn in idle
        )
    finally:
        server.kill()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--case", choices=tuple(CASES), action="append", help="by default all")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--serve", type=int, metavar="PORT", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.serve is not None:
        serve(given.serve)
        return 0
    work = Path(tempfile.mkdtemp(prefix="perdure-hostile-", dir=work_directory()))
    app = deployment("python", work)
    port = free_port()
    argv = [sys.executable, str(HERE / "hostile.py"), "--serve", str(port)]
    hostile = Deployment("hostile deployment", argv, work / "hostile.log", port, {})
    ratios = {}
    try:
        app.start()
        hostile.start()
        print("| beside | p50 ms | p99 ms | max ms |\n|---|---|---|---|")
        for case in given.case or CASES:
            ratios[case] = measure(case, app, hostile, work, given)
    finally:
        hostile.kill()
        app.kill()
        shutil.rmtree(work, ignore_errors=True)
    for case, ratio in ratios.items():
        print(f"p99 beside {case}: {ratio:.2f} times idle (the bar is {P99_BAR})")
    return 0 if max(ratios.values()) <= P99_BAR else 1


if __name__ == "__main__":
    sys.exit(main())

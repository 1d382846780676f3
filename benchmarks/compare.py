"""Perdure and the real restate-server side by side: same deployment, same machine, same durability, in turn.

    python benchmarks/compare.py                                             # everything: about an hour
    python benchmarks/compare.py --cells greet:16:typescript --pairs 2 --seconds 4
    python benchmarks/compare.py --only restate --cells '*:16:*'

How it measures, and how to read the table: benchmarks/README.md.
"""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from support import tools  # noqa: E402
from support.processes import (  # noqa: E402
    CLOCK_TICKS,
    Deployment,
    NotReady,
    Process,
    Server,
    free_port,
    python_deployment,
)

WORKLOADS = ("greet", "counter", "steps")
CONNECTIONS = (1, 16, 64)
SDKS = ("typescript", "python")
SERVERS = ("restate", "perdure")
# What this release promises in every cell, and what it aims at.
THROUGHPUT_BAR, P50_BAR, PAIR_BAR = 1.5, 0.67, 1.2
# A server that was stopped gets this long, under load, to be itself again before the clock starts.
WARMUP_S = 2.0
IDLE_S = 3.0
LOAD_TIMEOUT_S = 120.0


@dataclass
class Turn:
    """One server under load for the measured time."""

    per_second: float
    p50_us: float
    p99_us: float
    server_cpu_us: float  # per request
    sdk_cpu_us: float
    load_cpu_us: float
    rss_mb: float
    cores: dict[str, float]  # process -> share of one core while it was measured

    def line(self) -> str:
        return (
            f"{self.per_second:8.0f}/s  p50 {self.p50_us / 1e3:8.2f} ms  p99 {self.p99_us / 1e3:8.2f} ms"
            f"  server {self.server_cpu_us:5.0f} µs/request"
        )


@dataclass
class Cell:
    """One workload at one concurrency on one SDK, all its turns."""

    workload: str
    connections: int
    sdk: str
    turns: dict[str, list[Turn]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return f"{self.workload}:{self.connections}:{self.sdk}"

    def median(self, server: str, what: str) -> float:
        return float(statistics.median(getattr(turn, what) for turn in self.turns[server]))

    def ratios(self, what: str) -> list[float]:
        """perdure / restate, pair by pair: a pair shares whatever the machine was doing at the time."""
        pairs = zip(self.turns["perdure"], self.turns["restate"], strict=True)
        return [getattr(ours, what) / getattr(theirs, what) for ours, theirs in pairs]


def cells_of(patterns: Sequence[str]) -> list[Cell]:
    """The cells that the patterns name, in measuring order; a pattern without any cell is an error."""
    cells = [Cell(workload, connections, sdk) for sdk in SDKS for workload in WORKLOADS for connections in CONNECTIONS]
    for pattern in patterns:
        parts = pattern.split(":")
        if len(parts) == 3 and parts[0] in WORKLOADS and parts[1].isdigit() and parts[2] in SDKS:
            if not any(cell.name == pattern for cell in cells):
                cells.append(Cell(parts[0], int(parts[1]), parts[2]))
        elif not any(fnmatch.fnmatchcase(cell.name, pattern) for cell in cells):
            raise SystemExit(
                f"no cell is called {pattern}; cells are WORKLOAD:CONNECTIONS:SDK, such as {cells[0].name}"
            )
    return [cell for cell in cells if any(fnmatch.fnmatchcase(cell.name, pattern) for pattern in patterns)]


def deployment(sdk: str, directory: Path) -> Deployment:
    log = directory / f"{sdk}.log"
    if sdk == "python":
        app = python_deployment("app:app", HERE / "services", log)
        app.argv += ["--config", "hypercorn.toml"]
        return app
    node, modules = tools.node(), tools.node_modules()
    if node is None or tools.typescript_sdk() is None:
        raise SystemExit("missing: Node 22 or the TypeScript SDK; `make tools` fetches them")
    port = free_port()
    env = {"PORT": str(port), "NODE_MODULES_DIR": str(modules), "RESTATE_LOGGING": "WARN"}
    return Deployment("typescript deployment", [str(node), str(HERE / "services" / "services.mjs")], log, port, env)


def load(server: Server, app: Process, cell: Cell, seconds: float, seed: int) -> Turn:
    """Put `server` under load and measure; everything else is stopped or idle meanwhile."""
    argv = [sys.executable, str(HERE / "load.py"), "--port", str(server.ingress_port)]
    argv += ["--workload", cell.workload, "--connections", str(cell.connections)]
    argv += ["--warmup", str(WARMUP_S), "--seconds", str(seconds), "--seed", str(seed)]
    child = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert child.stdout is not None
    used = {}
    for moment in ("begin", "end"):
        line = child.stdout.readline().strip()
        used[moment] = (server.cpu_seconds(), app.cpu_seconds(), machine_cpu_seconds())
        if line != moment:
            break
    rss = server.rss_bytes()
    try:
        out, errors = child.communicate(timeout=LOAD_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        child.kill()
        raise SystemExit(f"{server.name}, {cell.name}: the load did not end\n{server.log_tail()}") from None
    if child.returncode != 0:
        raise SystemExit(f"{server.name}, {cell.name}: {errors}\n{server.log_tail()}")
    result: dict[str, float] = json.loads(out)
    requests, took = result["requests"], result["seconds"]
    server_cpu, sdk_cpu, all_cpu = (after - before for before, after in zip(used["begin"], used["end"], strict=True))
    load_cpu = result["load_cpu_seconds"]
    return Turn(
        per_second=result["per_second"],
        p50_us=result["p50_us"],
        p99_us=result["p99_us"],
        server_cpu_us=server_cpu / requests * 1e6,
        sdk_cpu_us=sdk_cpu / requests * 1e6,
        load_cpu_us=load_cpu / requests * 1e6,
        rss_mb=rss / 1e6,
        cores={
            server.name: server_cpu / took,
            f"{cell.sdk} SDK": sdk_cpu / took,
            "load": load_cpu / took,
            "everything else": max(0.0, all_cpu - server_cpu - sdk_cpu - load_cpu) / took,
        },
    )


def machine_cpu_seconds() -> float:
    """What all cores did so far besides being idle or waiting for the disk."""
    # The fields of `cpu`: user, nice, system, idle, iowait, irq, softirq, steal, ...
    fields = Path("/proc/stat").read_text().partition("\n")[0].split()[1:9]
    return sum(int(fields[index]) for index in (0, 1, 2, 5, 6, 7)) / CLOCK_TICKS


def take_turns(servers: dict[str, Server], app: Process, cell: Cell, pairs: int, seconds: float) -> None:
    """Interleaved pairs; the order within a pair alternates, so that no server is always the second one."""
    cell.turns = {name: [] for name in servers}
    for pair in range(pairs):
        order = list(servers) if pair % 2 == 0 else list(reversed(servers))
        for name in order:
            for other in servers.values():
                if other is not servers[name]:
                    other.pause()
            servers[name].resume()
            turn = load(servers[name], app, cell, seconds, seed=pair + 1)
            cell.turns[name].append(turn)
            print(f"  {cell.name} pair {pair + 1}/{pairs} {name:8} {turn.line()}", flush=True)


def machine() -> dict[str, str]:
    """What the numbers depend on."""
    cpu = "unknown"
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            cpu = line.partition(":")[2].strip()
            break
    memory = Path("/proc/meminfo").read_text().split()[1]
    node = tools.node()
    versions = {
        "node": subprocess.run([node, "--version"], capture_output=True, text=True).stdout.strip() if node else "none"
    }
    if tools.restate_server() is not None:
        answer = subprocess.run([tools.restate_server() or "", "--version"], capture_output=True, text=True)
        versions["restate-server"] = answer.stdout.strip().removeprefix("restate-server ")
    sdk = tools.typescript_sdk()
    if sdk is not None:
        versions["TypeScript SDK"] = json.loads((sdk / "package.json").read_text())["version"]
    return {
        "cpu": f"{cpu}, {len(os.sched_getaffinity(0))} cores",
        "memory": f"{int(memory) / 1e6:.0f} GB",
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        **versions,
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def report(cells: Sequence[Cell], idle: dict[str, dict[str, float]], names: Sequence[str]) -> Iterator[str]:
    """The closing tables, as Markdown."""
    both = set(names) == set(SERVERS)
    heads = ["cell"]
    for name in names:
        heads += [f"{name} req/s", "p50 ms", "p99 ms", "CPU µs/req", "RSS MB"]
    if both:
        heads += ["throughput ratio (lowest pair)", "p50 ratio", "CPU ratio"]
    yield "| " + " | ".join(heads) + " |"
    yield "|" + "---|" * len(heads)
    for cell in cells:
        row = [cell.name]
        for name in names:
            row += [
                f"{cell.median(name, 'per_second'):.0f}",
                f"{cell.median(name, 'p50_us') / 1e3:.2f}",
                f"{cell.median(name, 'p99_us') / 1e3:.2f}",
                f"{cell.median(name, 'server_cpu_us'):.0f}",
                f"{cell.median(name, 'rss_mb'):.0f}",
            ]
        if both:
            speeds = cell.ratios("per_second")
            row += [
                f"{statistics.median(speeds):.2f} ({min(speeds):.2f})",
                f"{statistics.median(cell.ratios('p50_us')):.2f}",
                f"{statistics.median(cell.ratios('server_cpu_us')):.2f}",
            ]
        yield "| " + " | ".join(row) + " |"
    yield ""
    yield "Who used the cores while it was measured (1.00 is one core; first pair of each cell):"
    yield ""
    for cell in cells:
        for name in names:
            shares = ", ".join(f"{process} {share:.2f}" for process, share in cell.turns[name][0].cores.items())
            yield f"- {cell.name}, {name}'s turn: {shares}"
    yield ""
    for sdk, sizes in idle.items():
        memory = ", ".join(f"{name} {size:.0f} MB" for name, size in sizes.items())
        yield f"Idle memory before the first {sdk} cell: {memory}"


def below_the_bar(cells: Sequence[Cell]) -> Iterator[str]:
    for cell in cells:
        speeds, p50 = cell.ratios("per_second"), statistics.median(cell.ratios("p50_us"))
        if statistics.median(speeds) < THROUGHPUT_BAR:
            yield f"{cell.name}: throughput {statistics.median(speeds):.2f}x, the bar is {THROUGHPUT_BAR}x"
        if min(speeds) < PAIR_BAR:
            yield f"{cell.name}: one pair has {min(speeds):.2f}x, the bar is {PAIR_BAR}x"
        if p50 > P50_BAR:
            yield f"{cell.name}: p50 {p50:.2f}x, the bar is {P50_BAR}x"


def measure(cells: Sequence[Cell], names: Sequence[str], given: argparse.Namespace, work: Path) -> dict[str, Any]:
    """Run the cells, SDK by SDK: new servers with empty stores, one deployment that both know."""
    idle: dict[str, dict[str, float]] = {}
    for sdk in dict.fromkeys(cell.sdk for cell in cells):
        app = deployment(sdk, work)
        servers = {name: Server(name, work / f"{name}-{sdk}") for name in names}
        try:
            app.start()
            for server in servers.values():
                server.start()
                server.register(app.uri)
            time.sleep(IDLE_S)
            idle[sdk] = {name: server.rss_bytes() / 1e6 for name, server in servers.items()}
            for cell in cells:
                if cell.sdk == sdk:
                    take_turns(servers, app, cell, given.pairs, given.seconds)
        finally:
            for server in servers.values():
                server.kill()
            app.kill()
    return {
        "machine": machine(),
        "pairs": given.pairs,
        "seconds": given.seconds,
        "idle_mb": idle,
        "cells": [asdict(cell) for cell in cells],
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--cells", default="*", help="WORKLOAD:CONNECTIONS:SDK, comma separated, * matches (all)")
    parser.add_argument("--pairs", type=int, default=5, help="interleaved pairs per cell (5)")
    parser.add_argument("--seconds", type=float, default=10.0, help="measured seconds per server and pair (10)")
    parser.add_argument("--only", choices=SERVERS, help="one server alone, no ratios")
    parser.add_argument("--output", type=Path, help="write every turn to this JSON file, too")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a cell is below the bar")
    given = parser.parse_args()
    cells = cells_of(given.cells.split(","))
    names = [given.only] if given.only else list(SERVERS)
    if "restate" in names and tools.restate_server() is None:
        raise SystemExit("missing: the real restate-server; `make tools` fetches it")

    work = Path(tempfile.mkdtemp(prefix="perdure-bench-", dir=work_directory()))
    try:
        result = measure(cells, names, given, work)
    except NotReady as error:
        raise SystemExit(str(error)) from None
    finally:
        shutil.rmtree(work, ignore_errors=True)

    print("\n" + "\n".join(f"{key}: {value}" for key, value in result["machine"].items()) + "\n")
    print("\n".join(report(cells, result["idle_mb"], names)))
    if given.output is not None:
        given.output.write_text(json.dumps(result, indent=1) + "\n")
    if given.only:
        return 0
    below = list(below_the_bar(cells))
    print("\n" + ("\n".join(["below the bar:", *below]) if below else "every cell is above the bar"))
    return 1 if below and given.check else 0


def work_directory() -> Path:
    """On the disk of the checkout, not in a /tmp that may be memory: fsync is part of what is compared."""
    path = HERE / ".work"
    path.mkdir(exist_ok=True)
    return path


if __name__ == "__main__":
    sys.exit(main())

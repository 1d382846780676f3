"""Where a request's CPU goes: the server's microseconds for each request, by part, beside the budget.

Each workload runs twice at 64 connections on the TypeScript SDK: once plain, for the CPU per request as the
system counts it, and once under cProfile, for the shares.  A profiler slows Python down and C hardly, so the
shares are good to a few points, no more.

    python benchmarks/cpu.py [--seconds 8] [--workloads greet,counter,steps]
"""

from __future__ import annotations

import argparse
import cProfile
import pstats
import shutil
import sys
import tempfile
from pathlib import Path

from compare import HERE, Cell, deployment, load, work_directory

from perdure_server.cli import main as perdure
from support.processes import Server

CONNECTIONS = 64
# What a release may cost, µs: (greet, counter, steps). The sum is the ceiling's half, see README.md.
BUDGET = {
    "ingress": (46, 48, 48),
    "commands": (5, 6, 12),
    "write and sync": (28, 33, 77),
    "apply and store": (14, 35, 38),
    "start": (15, 15, 15),
    "HTTP/2": (77, 86, 141),
    "the rest": (33, 44, 50),
}
# The first part whose words a file's path contains has it.
PARTS = (
    ("ingress", ("perdure_server/ingress/", "aiohttp/")),
    ("commands", ("model/codec.py", "log/tail.py", "model/commands.py")),
    ("write and sync", ("perdure_processor/log/",)),
    ("apply and store", ("state_machine/", "perdure_processor/storage/", "perdure_processor/processor.py")),
    ("HTTP/2", ("invoker/http2", "invoker/pool.py", "jh2/")),
    ("start", ("invoker/invoker.py",)),
)
Function = tuple[str, int, str]


def part_of(function: Function) -> str:
    path = function[0].replace("\\", "/")
    return next((part for part, words in PARTS if any(word in path for word in words)), "the rest")


def shares(stats: pstats.Stats) -> dict[str, float]:
    """Each part's share of the time that was not spent waiting; what C does counts for who called it."""
    seconds = dict.fromkeys(BUDGET, 0.0)
    table: dict[Function, tuple[int, int, float, float, dict[Function, tuple[int, int, float, float]]]]
    table = stats.stats  # type: ignore[attr-defined]
    for function, (_, _, own, _, callers) in table.items():
        if "poll" in function[2] and "select" in function[2]:
            continue
        if function[0] == "~" and callers:
            for caller, (_, _, own_there, _) in callers.items():
                seconds[part_of(caller)] += own_there
        else:
            seconds[part_of(function)] += own
    total = sum(seconds.values())
    return {part: spent / total for part, spent in seconds.items()}


def serve(profile: str, arguments: list[str]) -> None:
    """Run the server under the profiler until it is told to stop."""
    profiler = cProfile.Profile()
    sys.argv = ["perdure", *arguments]
    try:
        profiler.runcall(perdure)
    finally:
        profiler.dump_stats(profile)


def measure(workload: str, seconds: float, directory: Path) -> tuple[float, dict[str, float]]:
    """CPU per request in microseconds, and the parts' shares of it."""
    cell = Cell(workload, CONNECTIONS, "typescript")
    profile = directory / f"{workload}.profile"
    cpu_us = 0.0
    for name in ("plain", "profiled"):
        server = Server("perdure", directory / f"{workload}-{name}")
        if name == "profiled":
            server.argv = [sys.executable, str(HERE / "cpu.py"), "--serve", str(profile), *server.argv[1:]]
        app = deployment("typescript", directory)
        try:
            server.start()
            app.start()
            server.register(app.uri)
            turn = load(server, app, cell, seconds, seed=1)
        finally:
            server.terminate()
            app.kill()
        if name == "plain":
            cpu_us = turn.server_cpu_us
    return cpu_us, shares(pstats.Stats(str(profile)))


def main() -> int:
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], sys.argv[3:])
        return 0
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=8.0)
    parser.add_argument("--workloads", default="greet,counter,steps")
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="perdure-cpu-", dir=work_directory()))
    try:
        measured = {name: measure(name, given.seconds, work) for name in given.workloads.split(",")}
    finally:
        shutil.rmtree(work, ignore_errors=True)
    print(f"\n| µs of server CPU per request | {' | '.join(f'{name} (budget)' for name in measured)} |")
    print("|---|" + "---|" * len(measured))
    order = ("greet", "counter", "steps")
    for part, budget in BUDGET.items():
        cells = [
            f"{cpu * part_shares[part]:.0f} ({budget[order.index(name)]})"
            for name, (cpu, part_shares) in measured.items()
        ]
        print(f"| {part} | {' | '.join(cells)} |")
    totals = [
        f"{cpu:.0f} ({sum(b[order.index(name)] for b in BUDGET.values())})" for name, (cpu, _) in measured.items()
    ]
    print(f"| total | {' | '.join(totals)} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())

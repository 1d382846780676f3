"""What SQL over a million invocations costs the callers of *greet*, and how much memory it takes.

    python benchmarks/query.py                        # 10^6 invocations: minutes to fill
    python benchmarks/query.py --rows 100000 --turns 1 --query 'SELECT count(*) FROM sys_invocation'

In one run *greet* is measured without a query and beside one that is asked again as soon as it is answered, in turn;
exits with 1 if a median of the ratios of p99 exceeds the bar, or if the server grows by more than the bar.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import shutil
import statistics
import sys
import tempfile
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

from compare import deployment, work_directory
from hostile import P99_BAR, greet
from stored import fill, wait_until_quiet

from support.processes import Server

# What the engine itself takes once it is loaded, and the rows under way of one query.
RSS_GROWTH_BAR_BYTES = 400 << 20
READ_BYTES = 1 << 16
QUERIES = (
    "SELECT count(*) FROM sys_invocation",
    "SELECT * FROM sys_invocation",
    "SELECT target_service_name, status, count(*) FROM sys_invocation GROUP BY 1, 2",
    "SELECT id, entry_type, entry_json FROM sys_journal",
)


class Asking:
    """A query asked again and again, on a thread, until `stop`: how often it was answered, and with how much."""

    def __init__(self, server: Server, query: str) -> None:
        self.answers = 0
        self.size = 0
        self.rss_bytes = 0
        self._server = server
        self._body = json.dumps({"query": query}).encode()
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def stop(self) -> None:
        """What is left of the running query is given up, once it has begun to answer."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        headers = {"content-type": "application/json", "accept": "application/json"}
        while not self._stopped.is_set():
            asked = urllib.request.Request(f"{self._server.admin_url}/query", self._body, headers)
            with urllib.request.urlopen(asked, timeout=600) as answer:
                while not self._stopped.is_set() and (piece := answer.read1(READ_BYTES)):
                    self.size += len(piece)
                    self.rss_bytes = max(self.rss_bytes, self._server.rss_bytes())
            self.answers += not self._stopped.is_set()


@contextlib.contextmanager
def beside(server: Server, query: str) -> Iterator[Asking]:
    asking = Asking(server, query)
    try:
        yield asking
    finally:
        asking.stop()


def measure(server: Server, query: str, given: argparse.Namespace) -> tuple[float, int]:
    """The median of the ratios of p99, and the most that the server had in memory."""
    ratios, most = [], 0
    for _ in range(given.turns):
        idle = greet(server, given.connections, given.seconds)
        with beside(server, query) as asking:
            turn = greet(server, given.connections, given.seconds)
        ratios.append(turn["p99_us"] / idle["p99_us"])
        most = max(most, asking.rss_bytes, server.rss_bytes())
        print(
            f"| {query} | {idle['p50_us'] / 1e3:.2f} | {idle['p99_us'] / 1e3:.2f} | {turn['p50_us'] / 1e3:.2f} "
            f"| {turn['p99_us'] / 1e3:.2f} | {turn['max_us'] / 1e3:.2f} | {asking.answers} "
            f"| {asking.size / 1e6:.1f} | {most >> 20} |",
            flush=True,
        )
    return statistics.median(ratios), most


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--rows", type=int, default=1_000_000, help="invocations that are done and kept (10^6)")
    parser.add_argument("--query", action="append", help="by default four of them")
    parser.add_argument("--connections", type=int, default=4)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=5.0)
    given = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="perdure-query-", dir=work_directory()))
    app = deployment("python", work)
    server = Server("perdure", work / "server")
    ratios, most = {}, 0
    try:
        app.start()
        server.start()
        server.register(app.uri)
        fill(server, "counter", given.rows)
        wait_until_quiet(server)
        greet(server, given.connections, 1.0)  # caches and pools are as they will be
        before = server.rss_bytes()
        print(f"RSS before the first query: {before >> 20} MB")
        print("| query | idle p50 ms | p99 ms | beside it p50 ms | p99 ms | max ms | answers | MB | RSS MB |")
        print("|---|---|---|---|---|---|---|---|---|")
        for query in given.query or QUERIES:
            ratios[query], rss = measure(server, query, given)
            most = max(most, rss)
    finally:
        server.kill()
        app.kill()
        shutil.rmtree(work, ignore_errors=True)
    for query, ratio in ratios.items():
        print(f"p99 beside {query}: {ratio:.2f} times idle (the bar is {P99_BAR})")
    print(f"the server grew by {(most - before) >> 20} MB (the bar is {RSS_GROWTH_BAR_BYTES >> 20})")
    return 0 if max(ratios.values()) <= P99_BAR and most - before <= RSS_GROWTH_BAR_BYTES else 1


if __name__ == "__main__":
    sys.exit(main())

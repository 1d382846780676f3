"""A closed-loop HTTP client that costs little: it shares the machine's cores with what it measures.

N connections, each sends its next request when the answer to the last one is complete. One thread on epoll,
requests built beforehand, answers parsed just enough to know that they are whole and good: 10 to 25 µs of CPU a
request against a trivial server, about twice that between the cold caches of a busy one; an HTTP library takes many
times that. Prints `begin` and `end` when the measured time begins and ends, so that the caller can read the servers'
CPU clocks then, and one line of JSON.
"""

from __future__ import annotations

import argparse
import array
import json
import random
import resource
import select
import socket
import sys
import time
from collections.abc import Iterator

KEYS = 100_000
DRAIN_TIMEOUT_S = 30.0


def post(path: str, body: str, port: int) -> bytes:
    return (
        f"POST {path} HTTP/1.1\r\nhost: 127.0.0.1:{port}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n\r\n{body}"
    ).encode()


def requests_of(workload: str, port: int, seed: int) -> Iterator[bytes]:
    """An endless supply; for *counter* a key of 100 000 at random for each."""
    if workload == "counter":
        head, _, tail = post("/Counter/KEY/add", "1", port).partition(b"KEY")
        chance = random.Random(seed)
        keys = [b"%sk%d%s" % (head, chance.randrange(KEYS), tail) for _ in range(KEYS)]
    elif workload == "greet":
        keys = [post("/Greeter/greet", '"Ada"', port)]
    elif workload == "steps":
        keys = [post("/Steps/three", '"Ada"', port)]
    elif workload == "sleepers":
        keys = [post("/Sleeper/sleep/send", "86400", port)]
    else:
        raise ValueError(f"no such workload: {workload}")
    while True:
        yield from keys


class Failed(Exception):
    """A server answered something else than success: there is nothing to measure."""


def is_whole(answer: bytes) -> bool:
    """Whether the bytes are one complete answer; raises Failed unless its status is 2xx."""
    head_end = answer.find(b"\r\n\r\n")
    if head_end < 0:
        return False
    if not answer.startswith(b"HTTP/1.1 20"):
        raise Failed(answer[:600].decode(errors="replace"))
    start = answer.find(b"ontent-length: ", 0, head_end)
    if start < 0:
        start = answer.find(b"ontent-Length: ", 0, head_end)
    if start < 0:
        return answer.endswith(b"\r\n0\r\n\r\n")  # chunked: the last chunk is here
    return len(answer) >= head_end + 4 + int(answer[start + 15 : answer.index(b"\r", start)])


def cpu_seconds() -> float:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def run(
    port: int, workload: str, connections: int, warmup_s: float, seconds: float, seed: int, count_max: int
) -> dict[str, float]:
    """Load until the measured time is over, or `count_max` requests were answered in it."""
    supply = requests_of(workload, port, seed)
    poll = select.epoll()
    sockets: dict[int, socket.socket] = {}
    for _ in range(connections):
        connection = socket.create_connection(("127.0.0.1", port), timeout=10)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        sockets[connection.fileno()] = connection
        poll.register(connection.fileno(), select.EPOLLIN)

    clock = time.perf_counter_ns
    started = {}
    for descriptor, connection in sockets.items():
        started[descriptor] = clock()
        connection.sendall(next(supply))

    partial: dict[int, bytes] = {}
    latencies = array.array("q")
    begin = clock() + int(warmup_s * 1e9)
    end = begin + int(seconds * 1e9)
    cpu_at_begin = 0.0
    measuring, sending = False, True
    outstanding = connections
    while outstanding:
        now = clock()
        if not measuring and sending and now >= begin:
            measuring, begin = True, now
            end = now + int(seconds * 1e9)
            cpu_at_begin = cpu_seconds()
            print("begin", flush=True)
        elif measuring and (now >= end or len(latencies) >= count_max):
            measuring, sending, end = False, False, now
            cpu_used = cpu_seconds() - cpu_at_begin
            print("end", flush=True)
        ready = poll.poll(0.1 if sending else DRAIN_TIMEOUT_S)
        if not ready and not sending:
            raise Failed(f"{outstanding} requests were not answered within {DRAIN_TIMEOUT_S:.0f} s")
        for descriptor, _ in ready:
            connection = sockets[descriptor]
            data = connection.recv(65536)
            now = clock()
            if not data:
                raise Failed("the server closed a connection with a request on it")
            if partial:
                data = partial.pop(descriptor, b"") + data
            if not is_whole(data):
                partial[descriptor] = data
                continue
            if measuring:
                latencies.append(now - started[descriptor])
            if sending:
                started[descriptor] = now
                connection.sendall(next(supply))
            else:
                outstanding -= 1
    for connection in sockets.values():
        connection.close()

    ordered = sorted(latencies)
    if not ordered:
        raise Failed("no request was answered in the measured time")
    took = (end - begin) / 1e9
    return {
        "requests": len(ordered),
        "per_second": len(ordered) / took,
        "p50_us": ordered[len(ordered) // 2] / 1e3,
        "p99_us": ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)] / 1e3,
        "max_us": ordered[-1] / 1e3,
        "seconds": took,
        "load_cpu_seconds": cpu_used,
    }


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--workload", choices=("greet", "counter", "steps", "sleepers"), required=True)
    parser.add_argument("--connections", type=int, default=16)
    parser.add_argument("--warmup", type=float, default=1.0)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--count", type=int, default=sys.maxsize, help="end after so many measured requests")
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    try:
        result = run(
            given.port,
            given.workload,
            given.connections,
            given.warmup,
            given.seconds,
            given.seed,
            given.count,
        )
    except (Failed, OSError) as error:
        print(f"load: {error}", file=sys.stderr)
        return 1
    print(json.dumps(result), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())

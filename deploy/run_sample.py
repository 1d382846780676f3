"""`make run`: a Perdure server on the embedded log and a sample service, until Ctrl-C.

Starts both, registers the sample, says what to try. Data stays in ./perdure-data and is found again next time.
Whatever goes wrong is said in one line, with what to do about it. Standard library only.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
import types
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
SAMPLE = ROOT / "sdk" / "examples" / "python"
LOGS = ROOT / ".cache" / "run"
READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 10.0
POLL_S = 0.05
LOG_LINES_SHOWN = 15


class Trouble(Exception):
    """What is wrong and what to do about it, in one line."""


class Interrupted(Exception):
    """Ctrl-C, or SIGTERM."""


class Child:
    """A process of ours, in a session of its own: Ctrl-C reaches only us, and we stop it in order."""

    def __init__(self, name: str, argv: list[str], env: dict[str, str], cwd: Path) -> None:
        self.name = name
        self.log = LOGS / f"{name}.log"
        with self.log.open("ab") as out:
            self.process = subprocess.Popen(
                argv,
                env={**os.environ, **env},
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def wait_until(self, ready: Callable[[], bool]) -> None:
        deadline = time.monotonic() + READY_TIMEOUT_S
        while not ready():
            self.check()
            if time.monotonic() > deadline:
                self.say_log()
                raise Trouble(f"the {self.name} was not ready within {READY_TIMEOUT_S:.0f} s; its log: {self.log}")
            time.sleep(POLL_S)

    def check(self) -> None:
        """Raise if it has ended."""
        if self.process.poll() is not None:
            self.say_log()
            raise Trouble(f"the {self.name} ended with status {self.process.returncode}; its whole log: {self.log}")

    def say_log(self) -> None:
        lines = self.log.read_text(errors="replace").splitlines()
        print("\n".join(f"  {self.name}: {line}" for line in lines[-LOG_LINES_SHOWN:]), file=sys.stderr)

    def stop(self) -> None:
        """Ask it to end, and see to it that it and its children do."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            print(f"the {self.name} did not stop within {STOP_TIMEOUT_S:.0f} s and is killed", file=sys.stderr)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()


def check_ports(ports: dict[str, int]) -> None:
    """Find out now, and by name, what would otherwise be a failed start."""
    for flag, port in ports.items():
        with socket.socket() as probe:
            # As servers do: a port whose last connections are still closing is free.
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError as error:
                name = flag.upper().replace("-", "_")
                raise Trouble(
                    f"port {port} cannot be used ({error.strerror}): stop what listens there, or name another one: "
                    f"make run {name}={port % 64000 + 1000}"
                ) from None


def port_number(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text} is no port (1 to 65535)")
    return int(text)


def ask(url: str, body: object = None) -> tuple[int, bytes]:
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(url, data, {"content-type": "application/json"} if data else {})
    try:
        with opener.open(request, timeout=15) as response:
            return response.status, response.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


def answers(url: str) -> bool:
    try:
        return ask(url)[0] == 200
    except OSError:
        return False


def listens(port: int) -> bool:
    with socket.socket() as probe:
        probe.settimeout(0.5)
        return probe.connect_ex(("127.0.0.1", port)) == 0


def register(admin: str, uri: str) -> None:
    # Forced: the sample may have been edited since the last start, at the same address.
    status, body = ask(f"{admin}/deployments", {"uri": uri, "force": True})
    if status not in (200, 201):
        raise Trouble(f"the server refused the sample at {uri}: {status} {body.decode(errors='replace')}")


def run(given: argparse.Namespace, children: list[Child]) -> NoReturn:
    """Start everything and watch over it; ends by an exception."""
    ingress = f"http://127.0.0.1:{given.ingress_port}"
    admin = f"http://127.0.0.1:{given.admin_port}"
    check_ports({flag: getattr(given, flag.replace("-", "_")) for flag in PORTS})
    LOGS.mkdir(parents=True, exist_ok=True)
    systems = LOGS / "systems"

    argv = [str(Path(sys.executable).parent / "perdure"), "server", "--data-dir", str(given.data_dir)]
    argv += ["--ingress-port", str(given.ingress_port), "--admin-port", str(given.admin_port)]
    argv += ["--node-port", str(given.node_port)]
    server = Child("server", argv, {}, ROOT)
    children.append(server)
    sample_argv = [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{given.sample_port}", "app:app"]
    sample = Child("sample", sample_argv, {"SYSTEMS_DIR": str(systems)}, SAMPLE)
    children.append(sample)

    server.wait_until(lambda: answers(f"{admin}/health") and answers(f"{ingress}/restate/health"))
    sample.wait_until(lambda: listens(given.sample_port))
    register(admin, f"http://127.0.0.1:{given.sample_port}")

    print(
        f"""
Perdure runs. Its data is in {given.data_dir}; logs are in {LOGS.relative_to(ROOT)}.

  ingress  {ingress}
  admin    {admin}
  sample   sdk/examples/python, registered

Try:

  curl {ingress}/Greeter/Ada/greet -H 'content-type: application/json' -d '"Hello"'

  curl {ingress}/ProfileUpdater/update -H 'content-type: application/json' \\
    -d '{{"user": "ada", "email": "ada@example.org"}}'

Make a system fail, call again, and see that the others are not written twice when it is back:

  touch {systems.relative_to(ROOT)}/billing.down
  rm {systems.relative_to(ROOT)}/billing.down

Ctrl-C stops both.
""",
        flush=True,
    )
    while True:
        for child in children:
            child.check()
        time.sleep(POLL_S)


PORTS = {"ingress-port": 8080, "admin-port": 9070, "node-port": 5122, "sample-port": 9080}


def interrupt(signal_number: int, frame: types.FrameType | None) -> None:
    raise Interrupted


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    for flag, port in PORTS.items():
        parser.add_argument(f"--{flag}", type=port_number, default=port, help=f"default {port}")
    parser.add_argument("--data-dir", type=Path, default=ROOT / "perdure-data", help="default ./perdure-data")
    given = parser.parse_args()
    signal.signal(signal.SIGINT, interrupt)
    signal.signal(signal.SIGTERM, interrupt)

    children: list[Child] = []
    status = 0
    try:
        run(given, children)
    except Interrupted:
        print("\nstopping", flush=True)
    except (Trouble, OSError) as error:
        print(f"make run: {error}", file=sys.stderr)
        status = 1
    finally:
        # A second Ctrl-C must not leave one of them behind.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        # The server first: it lets its streams end while the sample still answers.
        for child in children:
            child.stop()
    if not status:
        print("stopped; the data is kept")
    return status


if __name__ == "__main__":
    sys.exit(main())

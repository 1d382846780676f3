"""The program of tests/sdks in each of its four languages, ready to be started."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path

from support import tools
from support.processes import Deployment, free_port

SOURCES = tools.ROOT / "tests" / "sdks"


class NotBuilt(Exception):
    """The program cannot run here; the message says what is missing."""


def python_program(directory: Path) -> Deployment:
    port = free_port()
    argv = [sys.executable, "-m", "hypercorn", "--bind", f"127.0.0.1:{port}", "contract:app"]
    return Deployment("python program", argv, directory / "program.log", port, {}, SOURCES / "python")


def typescript_program(directory: Path) -> Deployment:
    """Node looks for packages beside a program's real place, so the program is copied to a link to them."""
    node = tools.node()
    if node is None or tools.typescript_sdk() is None:
        raise NotBuilt("Node 22 or the TypeScript SDK")
    shutil.copy(SOURCES / "typescript" / "contract.ts", directory)
    (directory / "package.json").write_text('{"type": "module"}')
    (directory / "node_modules").symlink_to(tools.node_modules())
    return _listening_on_port("typescript", [str(node), "contract.ts"], directory)


def java_program(directory: Path) -> Deployment:
    classpath = tools.java_program()
    if classpath is None:
        raise NotBuilt("the Java program")
    # A short life: the first compiler is enough.
    argv = ["java", "-XX:TieredStopAtLevel=1", "-Xmx256m", "-cp", classpath, "contract.Main"]
    return _listening_on_port("java", argv, directory)


def go_program(directory: Path) -> Deployment:
    binary = tools.go_program()
    if binary is None:
        raise NotBuilt("the Go program")
    return _listening_on_port("go", [str(binary)], directory)


def _listening_on_port(sdk: str, argv: list[str], directory: Path) -> Deployment:
    port = free_port()
    return Deployment(f"{sdk} program", argv, directory / "program.log", port, {"PORT": str(port)}, directory)


PROGRAMS: dict[str, Callable[[Path], Deployment]] = {
    "python": python_program,
    "typescript": typescript_program,
    "java": java_program,
    "go": go_program,
}

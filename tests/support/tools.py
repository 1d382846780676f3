"""Where the programs are that tests and benchmarks need and pip does not bring: Node, its packages, restate-server,
and what is built of tests/sdks.

`make tools` fetches them; NODE_BIN, NODE_MODULES_DIR, RESTATE_SERVER_BIN and SDK_PROGRAMS_DIR name others.
"""

from __future__ import annotations

import os
import platform
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
LOOPBACK_ONLY = ROOT / "tests" / "conformance" / "tools" / "loopback_only.sh"


def _machine() -> str:
    names = {"x86_64": "x64", "aarch64": "arm64"}
    return f"{sys.platform}-{names.get(platform.machine(), platform.machine())}"


def node_modules() -> Path:
    """The directory that holds @restatedev/restate-sdk, whether or not it exists."""
    named = os.environ.get("NODE_MODULES_DIR")
    return Path(named) if named else ROOT / ".cache" / "npm" / "node_modules"


def node() -> Path | None:
    """Node 22, or None."""
    named = os.environ.get("NODE_BIN")
    path = Path(named) if named else node_modules() / f"node-{_machine()}" / "bin" / "node"
    return path if path.is_file() else None


def typescript_sdk() -> Path | None:
    """The package directory of the official TypeScript SDK, or None."""
    path = node_modules() / "@restatedev" / "restate-sdk"
    return path if path.is_dir() else None


def _sdk_programs() -> Path:
    named = os.environ.get("SDK_PROGRAMS_DIR")
    return Path(named) if named else ROOT / ".cache" / "sdks"


def java_program() -> str | None:
    """The class path of the Java program of tests/sdks, or None: not built, or no `java`."""
    built = _sdk_programs() / "java"
    found = (built / ".built").is_file() and shutil.which("java")
    return f"{built / 'classes'}:{built / 'libs'}/*" if found else None


def go_program() -> Path | None:
    """The Go program of tests/sdks, or None."""
    path = _sdk_programs() / "go" / "contract"
    return path if path.is_file() else None


def restate_server() -> Path | None:
    """The real restate-server, or None."""
    named = os.environ.get("RESTATE_SERVER_BIN")
    path = (
        Path(named)
        if named
        else node_modules() / "@restatedev" / f"restate-server-{_machine()}" / "bin" / "restate-server"
    )
    return path if path.is_file() else None


def restate_cli() -> Path | None:
    """The official command line, or None."""
    path = node_modules() / "@restatedev" / f"restate-{_machine()}" / "bin" / "restate"
    return path if path.is_file() else None


def restate_command(base_dir: Path) -> list[str]:
    """How to start it. It asks for its newest release at every start; where we may, we keep that local."""
    binary = restate_server()
    assert binary is not None, "ask restate_server() first"
    wrapper = [str(LOOPBACK_ONLY)] if os.geteuid() == 0 and shutil.which("unshare") else []
    return [*wrapper, str(binary), "--no-logo", "--base-dir", str(base_dir)]


def perdure_command(data_dir: Path) -> list[str]:
    """`perdure server` of the environment that runs this."""
    return [str(Path(sys.executable).parent / "perdure"), "server", "--data-dir", str(data_dir)]

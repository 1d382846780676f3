"""A small admin API with canned answers on loopback, and the command line in front of it."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from click.testing import CliRunner, Result

from perdure_server.cli.commands import perdure


class Admin:
    """Answers per "METHOD /path?query"; whatever has none is an unknown route: 404 without a word."""

    def __init__(self) -> None:
        self.answers: dict[str, tuple[int, bytes]] = {}
        self.requests: list[tuple[str, Any]] = []
        self.port = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def answer(self, request: str, body: Any, status: int = 200) -> None:
        content = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.answers[request] = (status, content)

    def run(self, *arguments: str, env: dict[str, str] | None = None) -> Result:
        """The command line, told where this admin API is by its environment."""
        environment = {"PERDURE_ADMIN_URL": self.url, **(env or {})}
        return CliRunner().invoke(perdure, list(arguments), env=environment, prog_name="perdure")


@pytest.fixture
def admin() -> Iterator[Admin]:
    fake = Admin()

    class Handler(BaseHTTPRequestHandler):
        def answer(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            request = f"{self.command} {self.path}"
            fake.requests.append((request, body))
            status, content = fake.answers.get(request, (404, b""))
            self.send_response(status)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        do_GET = do_POST = do_PATCH = do_DELETE = answer  # noqa: N815

        def log_message(self, format: str, *args: object) -> None:
            """Quiet: what a test needs to know is in `requests`."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    fake.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield fake
    server.shutdown()
    thread.join()
    server.server_close()

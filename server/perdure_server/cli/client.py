"""○ adapter · A small client of the admin API for the command line (click); errors say what to do next."""

from __future__ import annotations

import http.client
import json
import re
import urllib.parse
from collections.abc import Mapping
from typing import Any

import click

from perdure_server.cli.tables import printable
from perdure_server.limits import CLI_ANSWER_BYTES_MAX, CLI_ANSWER_TIMEOUT_S, CLI_CONNECT_TIMEOUT_S, CLI_SHOWN_BYTES_MAX

# What can be in a host name or an address, IPv6 included.
_HOST = re.compile(r"[A-Za-z0-9._:%-]+", re.ASCII)

admin_option = click.option(
    "--admin-url",
    "admin",
    metavar="URL",
    envvar="PERDURE_ADMIN_URL",
    default="http://127.0.0.1:9070",
    show_default=True,
    show_envvar=True,
    callback=lambda _context, _parameter, url: AdminClient(url),
    help="Address of the server's admin API.",
)
json_option = click.option(
    "--json", "wants_json", is_flag=True, help="Print what the server answered as JSON, for programs."
)


class AdminError(click.ClickException):
    """The command cannot be carried out; click prints the message and exits with 1."""


class Unreachable(AdminError):
    """Nobody answered, or not in time."""

    def __init__(self, url: str, reason: str) -> None:
        super().__init__(
            f"no server answers at {url}: {reason}.\n"
            "Start one with `perdure server`, or say where it is with --admin-url or PERDURE_ADMIN_URL."
        )


class NotAnAdminApi(AdminError):
    """Something answered, but it is not the admin API of a server."""

    def __init__(self, url: str, what: str) -> None:
        super().__init__(
            f"{url} {what}.\nIs that the admin port of a Perdure server? It is 9070 by default; calls go to another."
        )


class Refused(AdminError):
    """The server understood the request and said no; `status` and its own words."""

    def __init__(self, status: int, message: str) -> None:
        self.status = status
        super().__init__(message)


class AdminClient:
    """One admin API, by its URL. Each request opens its own connection: commands are short-lived."""

    def __init__(self, url: str) -> None:
        try:
            parts = urllib.parse.urlsplit(url if "://" in url else f"http://{url}")
            self._host = (parts.hostname or "").encode("idna").decode("ascii")
            self._port = parts.port
        except ValueError:
            raise _no_address(url) from None
        if parts.scheme not in ("http", "https") or not _HOST.fullmatch(self._host):
            raise _no_address(url)
        self._secure = parts.scheme == "https"
        self._base = parts.path.rstrip("/")
        self.url = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{self._base}"

    def get(self, *path: str, field: str, query: Mapping[str, str] | None = None) -> dict[str, Any]:
        """The JSON object at a path, whose segments are quoted here. It has at least this field."""
        return self._decoded(self._request("GET", path, query, None)[1], field)

    def post(self, *path: str, field: str, body: Mapping[str, Any]) -> tuple[int, dict[str, Any]]:
        """Status and JSON object of the answer to a JSON body. It has at least this field."""
        status, received = self._request("POST", path, None, body)
        return status, self._decoded(received, field)

    def patch(self, *path: str, query: Mapping[str, str] | None = None) -> dict[str, Any] | None:
        """Do something to what is at a path; the JSON object that is answered, if there is one."""
        received = self._request("PATCH", path, query, None)[1]
        return self._decoded(received, "new_invocation_id") if received else None

    def change(self, method: str, *path: str, field: str, body: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Change what is at a path; the JSON object that shows it afterwards. It has at least this field."""
        return self._decoded(self._request(method, path, None, body)[1], field)

    def send(self, method: str, *path: str, body: Mapping[str, Any]) -> None:
        """Send a JSON body where the answer has nothing to say."""
        self._request(method, path, None, body)

    def delete(self, *path: str, query: Mapping[str, str] | None = None) -> None:
        """Delete what is at a path."""
        self._request("DELETE", path, query, None)

    def _request(
        self,
        method: str,
        path: tuple[str, ...],
        query: Mapping[str, str] | None,
        body: Mapping[str, Any] | None,
    ) -> tuple[int, bytes]:
        target = self._base + "".join("/" + urllib.parse.quote(segment, safe="") for segment in path)
        if query:
            target += "?" + urllib.parse.urlencode(query)
        headers = {"accept": "application/json"}
        content = None
        if body is not None:
            headers["content-type"] = "application/json"
            content = json.dumps(body).encode()
        connection_type = http.client.HTTPSConnection if self._secure else http.client.HTTPConnection
        connection = connection_type(self._host, self._port, timeout=CLI_CONNECT_TIMEOUT_S)
        try:
            connection.connect()
            connection.sock.settimeout(CLI_ANSWER_TIMEOUT_S)
            connection.request(method, target, content, headers)
            answer = connection.getresponse()
            received = answer.read(CLI_ANSWER_BYTES_MAX + 1)
        except http.client.IncompleteRead as error:
            raise Unreachable(self.url, "the connection broke off in the middle of its answer") from error
        except TimeoutError as error:
            raise Unreachable(self.url, "it did not answer in time") from error
        except OSError as error:
            raise Unreachable(self.url, (error.strerror or str(error)).lower()) from error
        except http.client.HTTPException as error:
            raise NotAnAdminApi(self.url, "does not speak HTTP/1.1") from error
        finally:
            connection.close()
        if len(received) > CLI_ANSWER_BYTES_MAX:
            raise NotAnAdminApi(self.url, f"answered with more than {CLI_ANSWER_BYTES_MAX} bytes")
        if answer.length:
            # With a limit, read() returns what there is when the peer hangs up, and leaves the rest in `length`.
            raise Unreachable(self.url, "the connection broke off in the middle of its answer")
        if answer.status >= 400:
            raise self._refusal(answer.status, received, f"{method} {target}")
        return answer.status, received

    def _decoded(self, received: bytes, field: str) -> dict[str, Any]:
        try:
            answer = json.loads(received)
        except ValueError as error:
            raise NotAnAdminApi(self.url, "answered with something other than JSON") from error
        if not isinstance(answer, dict) or field not in answer:
            raise NotAnAdminApi(self.url, f"answered with JSON that has no {field}")
        return answer

    def _refusal(self, status: int, received: bytes, request: str) -> AdminError:
        """Errors of the API are JSON with a message, of its parsing text; unknown routes say nothing."""
        try:
            answer = json.loads(received)
        except ValueError:
            answer = None
        if isinstance(answer, dict) and isinstance(answer.get("message"), str):
            if answer.get("source") == "ingress":
                return NotAnAdminApi(self.url, "is an ingress, where services are called")
            code = answer.get("restate_code")
            message = printable(answer["message"], keep="\n")
            return Refused(status, f"[{code}] {message}" if code and f"[{code}]" not in message else message)
        text = printable(received[:CLI_SHOWN_BYTES_MAX].decode("utf-8", "replace").strip(), keep="\n")
        if not text and status in (http.HTTPStatus.NOT_FOUND, http.HTTPStatus.METHOD_NOT_ALLOWED):
            return NotAnAdminApi(self.url, f"answered {request} with status {status} and not a word")
        return Refused(status, f"the server answered {status}: {text or 'it does not say why'}")


def sql_text(text: str) -> str:
    """A text as a literal of SQL."""
    return "'" + text.replace("'", "''") + "'"


def _no_address(url: str) -> click.BadParameter:
    return click.BadParameter(
        f"{url!r} is no address of a server; expected one such as http://127.0.0.1:9070", param_hint="--admin-url"
    )

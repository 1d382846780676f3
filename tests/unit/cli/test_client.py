"""When the admin API is not there, or something else is: the message names the address and what to do."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Iterator

import pytest

from .conftest import Admin

COMMAND = ("services", "list")


@contextlib.contextmanager
def peer_that_says(*said: bytes) -> Iterator[str]:
    """A listener that answers its one connection with these bytes and hangs up; yields its address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            connection, _ = listener.accept()
            with connection:
                connection.recv(65_536)
                for part in said:
                    connection.sendall(part)

        thread = threading.Thread(target=serve)
        thread.start()
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
        thread.join()


def run_against(admin: Admin, url: str) -> str:
    result = admin.run(*COMMAND, env={"PERDURE_ADMIN_URL": url})
    assert result.exit_code == 1
    return result.output


def test_nobody_listens(admin: Admin) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    assert run_against(admin, f"http://127.0.0.1:{port}") == (
        f"Error: no server answers at http://127.0.0.1:{port}: connection refused.\n"
        "Start one with `perdure server`, or say where it is with --admin-url or PERDURE_ADMIN_URL.\n"
    )


def test_the_flag_beats_the_environment(admin: Admin) -> None:
    admin.answer("GET /base/services", {"services": []})
    result = admin.run(*COMMAND, "--admin-url", f"{admin.url}/base/", env={"PERDURE_ADMIN_URL": "http://127.0.0.1:1"})
    assert result.exit_code == 0


def test_an_address_may_leave_out_the_scheme(admin: Admin) -> None:
    admin.answer("GET /services", {"services": []})
    assert admin.run(*COMMAND, env={"PERDURE_ADMIN_URL": f"127.0.0.1:{admin.port}"}).exit_code == 0


@pytest.mark.parametrize(
    "url",
    [
        "ftp://127.0.0.1",
        "http://",
        "http://127.0.0.1:port",
        "http://a b",
        "http://[::1",
        "http://" + "a" * 64,
        "http://127.0.0.1:70000",
    ],
)
def test_what_is_no_address_is_refused_by_name(admin: Admin, url: str) -> None:
    result = admin.run(*COMMAND, "--admin-url", url)
    assert result.exit_code == 2
    assert "--admin-url" in result.output
    assert url in result.output


def test_another_server_at_that_port_is_recognised(admin: Admin) -> None:
    admin.answer("GET /services", b"<html>hello</html>")
    output = run_against(admin, admin.url)
    assert f"{admin.url} answered with something other than JSON." in output
    assert "It is 9070 by default" in output


def test_another_api_at_that_port_is_recognised(admin: Admin) -> None:
    admin.answer("GET /services", [])
    assert f"{admin.url} answered with JSON that has no services." in run_against(admin, admin.url)


def test_the_ingress_is_recognised(admin: Admin) -> None:
    admin.answer("GET /services", {"code": 400, "message": "bad path: /services", "source": "ingress"}, 400)
    assert f"{admin.url} is an ingress, where services are called." in run_against(admin, admin.url)


def test_a_route_it_does_not_know(admin: Admin) -> None:
    assert f"{admin.url} answered GET /services with status 404 and not a word." in run_against(admin, admin.url)


def test_a_peer_that_speaks_something_else(admin: Admin) -> None:
    with peer_that_says(b"SSH-2.0-OpenSSH_9.6\r\n") as url:
        assert f"{url} does not speak HTTP/1.1." in run_against(admin, url)


def test_a_peer_that_hangs_up(admin: Admin) -> None:
    with peer_that_says() as url:
        assert run_against(admin, url).startswith(f"Error: no server answers at {url}: ")


def test_a_peer_that_hangs_up_in_the_middle(admin: Admin) -> None:
    with peer_that_says(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", b'{"serv') as url:
        assert "the connection broke off in the middle of its answer" in run_against(admin, url)


def test_plain_text_errors_are_passed_on(admin: Admin) -> None:
    admin.answer("GET /services", b"Unsupported Admin API version V1.", 400)
    assert run_against(admin, admin.url) == "Error: the server answered 400: Unsupported Admin API version V1.\n"


def test_an_error_without_a_reason_is_still_an_error(admin: Admin) -> None:
    admin.answer("GET /services", b"", 503)
    assert run_against(admin, admin.url) == "Error: the server answered 503: it does not say why\n"


def test_a_message_cannot_move_the_cursor(admin: Admin) -> None:
    admin.answer("GET /services", {"message": "two\nlines \x1b[2J"}, 500)
    assert run_against(admin, admin.url) == "Error: two\nlines \\x1b[2J\n"


def test_a_password_in_the_address_is_not_repeated(admin: Admin) -> None:
    output = run_against(admin, f"http://me:secret@127.0.0.1:{admin.port}")
    assert "secret" not in output
    assert admin.url in output

"""`perdure deployments`: what is asked of the admin API, and what a person reads."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .conftest import Admin

GREETER = {"name": "Greeter", "ty": "Service", "revision": 2, "handlers": [{"name": "hi"}, {"name": "greet"}]}
COUNTER = {"name": "Counter", "ty": "VirtualObject", "revision": 1, "handlers": [{"name": "add"}]}
REGISTERED = {"id": "dp_1abc", "services": [GREETER, COUNTER], "min_protocol_version": 5, "max_protocol_version": 6}


def body_of(admin: Admin) -> Any:
    ((request, body),) = admin.requests
    assert request == "POST /deployments"
    return body


def test_register_shows_what_can_be_called_now(admin: Admin) -> None:
    admin.answer("POST /deployments", REGISTERED, 201)
    result = admin.run("deployments", "register", "http://localhost:9080")
    assert result.exit_code == 0
    assert result.output == (
        "Registered as dp_1abc:\n"
        "\n"
        "SERVICE  TYPE           REVISION  HANDLERS\n"
        "Counter  VirtualObject  1         add\n"
        "Greeter  Service        2         greet, hi\n"
    )
    assert body_of(admin) == {
        "uri": "http://localhost:9080",
        "force": False,
        "breaking": False,
        "dry_run": False,
        "use_http_11": False,
    }


@pytest.mark.parametrize(
    ("options", "status", "first_line"),
    [
        ([], 200, "Known already as dp_1abc, nothing has changed (--force asks it again):"),
        (["--force"], 200, "Asked again; dp_1abc is now:"),
        (["--force"], 201, "Registered as dp_1abc:"),
        (["--dry-run"], 200, "Nothing was registered. This would be:"),
        (["--dry-run"], 201, "Nothing was registered. This would be:"),
    ],
)
def test_register_says_what_it_did(admin: Admin, options: list[str], status: int, first_line: str) -> None:
    admin.answer("POST /deployments", REGISTERED, status)
    result = admin.run("deployments", "register", "http://localhost:9080", *options)
    assert result.output.splitlines()[0] == first_line


def test_register_passes_every_option_on(admin: Admin) -> None:
    admin.answer("POST /deployments", REGISTERED, 201)
    options = ["--force", "--breaking", "--dry-run", "--use-http1.1"]
    headers = ["--extra-header", "authorization=Bearer a=b", "--extra-header", "x-empty="]
    result = admin.run("deployments", "register", "localhost:9080", *options, *headers, "--metadata", "team=pay")
    assert result.exit_code == 0
    assert body_of(admin) == {
        "uri": "http://localhost:9080",
        "force": True,
        "breaking": True,
        "dry_run": True,
        "use_http_11": True,
        "additional_headers": {"authorization": "Bearer a=b", "x-empty": ""},
        "metadata": {"team": "pay"},
    }


@pytest.mark.parametrize("headers", [["novalue"], ["=x"], ["a=1", "a=2"]])
def test_register_refuses_a_header_it_cannot_read(admin: Admin, headers: list[str]) -> None:
    options = [part for header in headers for part in ("--extra-header", header)]
    result = admin.run("deployments", "register", "http://localhost:9080", *options)
    assert result.exit_code == 2
    assert "--extra-header" in result.output
    assert admin.requests == []


def test_register_gives_the_server_s_reason_when_the_address_cannot_work(admin: Admin) -> None:
    admin.answer("POST /deployments", {"message": "cannot reach it", "restate_code": "META0003"}, 500)
    result = admin.run("deployments", "register", "http://localhost:9080")
    assert (result.exit_code, result.output) == (1, "Error: [META0003] cannot reach it\n")


def test_register_does_not_repeat_a_code_that_the_message_has_already(admin: Admin) -> None:
    admin.answer("POST /deployments", {"message": "[META0003] no", "restate_code": "META0003"}, 500)
    assert admin.run("deployments", "register", "http://localhost:9080").output == "Error: [META0003] no\n"


def test_list_is_a_table(admin: Admin) -> None:
    services = [{"name": "Greeter", "revision": 2}, {"name": "Counter", "revision": 1}]
    deployment = {"id": "dp_1a", "uri": "http://a:9080/", "created_at": "2026-11-24T02:24:24Z", "services": services}
    admin.answer("GET /deployments", {"deployments": [deployment]})
    assert admin.run("deployments", "list").output == (
        "ID     ADDRESS         CREATED               SERVICES\n"
        "dp_1a  http://a:9080/  2026-11-24T02:24:24Z  Counter (revision 1), Greeter (revision 2)\n"
    )


def test_list_says_how_to_begin_when_there_is_nothing(admin: Admin) -> None:
    admin.answer("GET /deployments", {"deployments": []})
    assert "perdure deployments register URL" in admin.run("deployments", "list").output


@pytest.mark.parametrize("command", [["list"], ["describe", "dp_1a"], ["register", "http://a"]])
def test_json_is_the_answer_of_the_server(admin: Admin, command: list[str]) -> None:
    answer = {"deployments": [], "services": [], "new in a later version": [1, "é"]}
    for request in ("GET /deployments", "GET /deployments/dp_1a", "POST /deployments"):
        admin.answer(request, answer)
    result = admin.run("deployments", *command, "--json")
    assert json.loads(result.output) == answer


def test_describe_names_headers_and_keeps_their_values_to_itself(admin: Admin) -> None:
    answer = REGISTERED | {
        "uri": "http://a:9080/",
        "http_version": "HTTP/2.0",
        "protocol_type": "BidiStream",
        "additional_headers": {"authorization": "Bearer secret"},
        "metadata": {"team": "pay"},
    }
    admin.answer("GET /deployments/dp_1abc", answer)
    output = admin.run("deployments", "describe", "dp_1abc").output
    assert output.splitlines()[:6] == [
        "ID:                 dp_1abc",
        "Address:            http://a:9080/",
        "Transport:          HTTP/2.0 BidiStream",
        "Protocol versions:  5 to 6",
        "Extra headers:      authorization",
        "Note team:          pay",
    ]
    assert "Counter  VirtualObject" in output
    assert "secret" not in output


def test_remove_needs_force_and_says_why(admin: Admin) -> None:
    admin.answer("DELETE /deployments/dp_1a", b"", 501)
    admin.answer("DELETE /deployments/dp_1a?force=true", b"", 202)
    refused = admin.run("deployments", "remove", "dp_1a")
    assert refused.exit_code == 1
    assert "only with --force" in refused.output
    removed = admin.run("deployments", "remove", "dp_1a", "--force")
    assert (removed.exit_code, removed.output) == (0, "Removed dp_1a.\n")


def test_remove_of_an_unknown_one_is_an_error(admin: Admin) -> None:
    admin.answer("DELETE /deployments/dp_1a", {"message": "The requested deployment 'dp_1a' does not exist"}, 404)
    result = admin.run("deployments", "remove", "dp_1a")
    assert (result.exit_code, result.output) == (1, "Error: The requested deployment 'dp_1a' does not exist\n")


# -- over time -------------------------------------------------------------------------------------------
DEPLOYMENT = {"id": "dp_1abc", "uri": "http://new:1/", "services": [GREETER]}


def test_activate_says_where_new_calls_go(admin: Admin) -> None:
    admin.answer("POST /deployments/dp_1abc/activate", DEPLOYMENT)
    result = admin.run("deployments", "activate", "dp_1abc")
    assert result.output.splitlines()[0] == "New calls go to dp_1abc:"
    assert "Greeter  Service  2         greet, hi" in result.output


def test_drain_shows_what_has_not_ended(admin: Admin) -> None:
    answer = {"in_flight": 3, "oldest_created_at": "2026-01-01T00:00:00Z", "by_service": {"B": 1, "A": 2}}
    admin.answer("GET /deployments/dp_1abc/drain", answer)
    lines = admin.run("deployments", "drain", "dp_1abc").output.splitlines()
    assert lines[0].startswith("3 invocations began at dp_1abc") and "2026-01-01T00:00:00Z" in lines[0]
    assert lines[2:] == ["SERVICE  IN FLIGHT", "A        2", "B        1"]
    admin.answer("GET /deployments/dp_1abc/drain", {"in_flight": 0, "oldest_created_at": None, "by_service": {}})
    assert "it can be removed" in admin.run("deployments", "drain", "dp_1abc").output


def test_update_sends_what_is_named(admin: Admin) -> None:
    admin.answer("PATCH /deployments/dp_1abc", DEPLOYMENT)
    result = admin.run("deployments", "update", "dp_1abc", "--url", "new:1", "--extra-header", "a=b")
    assert result.output.splitlines()[0] == "dp_1abc is now at http://new:1/:"
    body = {"uri": "http://new:1", "additional_headers": {"a": "b"}, "overwrite": False, "dry_run": False}
    assert admin.requests == [("PATCH /deployments/dp_1abc", body)]
    nothing = admin.run("deployments", "update", "dp_1abc")
    assert (nothing.exit_code, len(admin.requests)) == (2, 1)
    assert "Nothing to update" in nothing.output

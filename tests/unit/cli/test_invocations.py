"""`perdure invocations`: what runs, waits and has ended, as a person reads it."""

from __future__ import annotations

import json
from typing import Any

from .conftest import Admin

RUNNING: dict[str, Any] = {
    "id": "inv_1a",
    "target": "Counter/alice/add",
    "status": "running",
    "created_at": "2026-11-24T02:24:24.494Z",
}
FAILING = RUNNING | {
    "id": "inv_1b",
    "status": "backing-off",
    "retry_count": 3,
    "last_failure": "[500 Internal] no such table\n  at line 3",
}
FAILED = RUNNING | {"id": "inv_1c", "status": "completed", "completion_failure": "[409] cancelled"}
LATER = RUNNING | {"id": "inv_1d", "status": "scheduled", "scheduled_start_at": "2026-11-25T00:00:00.000Z"}


def test_list_says_what_each_is_doing(admin: Admin) -> None:
    admin.answer("GET /invocations?limit=100", {"invocations": [RUNNING, FAILING, FAILED, LATER]})
    lines = admin.run("invocations", "list").output.splitlines()
    assert [line.split("  ")[0] for line in lines] == ["ID", "inv_1a", "inv_1b", "inv_1c", "inv_1d"]
    assert [line[line.index("Z") + 3 :] for line in lines[1:]] == [
        "-",
        "after 3 attempts: [500 Internal] no such table",
        "[409] cancelled",
        "starts at 2026-11-25T00:00:00.000Z",
    ]


def test_filters_travel_quoted(admin: Admin) -> None:
    request = "GET /invocations?service=Counter&handler=add&key=a%2Fb+%26c&status=backing-off&limit=2"
    admin.answer(request, {"invocations": [FAILING, FAILING]})
    filters = ["--service", "Counter", "--handler", "add", "--key", "a/b &c", "--status", "backing-off"]
    result = admin.run("invocations", "list", *filters, "--limit", "2")
    assert admin.requests == [(request, None)]
    assert result.output.endswith("\nThese are the first 2; there may be more (see --limit).\n")


def test_list_tells_nothing_yet_from_nothing_like_that(admin: Admin) -> None:
    admin.answer("GET /invocations?limit=100", {"invocations": []})
    admin.answer("GET /invocations?service=Nope&limit=100", {"invocations": []})
    assert admin.run("invocations", "list").output == "There are none yet.\n"
    assert admin.run("invocations", "list", "--service", "Nope").output == "There are none like that.\n"


def test_an_unknown_status_is_refused_before_anything_is_asked(admin: Admin) -> None:
    result = admin.run("invocations", "list", "--status", "sleeping")
    assert result.exit_code == 2
    assert "backing-off" in result.output
    assert admin.requests == []


def test_describe_begins_with_what_matters_and_ends_with_the_journal(admin: Admin) -> None:
    journal = [
        {"index": 0, "entry_type": "Command: Input", "name": "", "raw_length": 12, "appended_at": "t0"},
        {"index": 1, "entry_type": "Command: Run", "name": "charge", "raw_length": 7, "appended_at": "t1"},
    ]
    invocation = FAILING | {"attempt": 4, "suspended_waiting_for_completions": [1, 2]}
    admin.answer("GET /invocations/inv_1b", {"invocation": invocation, "journal": journal})
    assert admin.run("invocations", "describe", "inv_1b").output == (
        "id:                                 inv_1b\n"
        "target:                             Counter/alice/add\n"
        "status:                             backing-off\n"
        "retry count:                        3\n"
        "last failure:                       [500 Internal] no such table\\n  at line 3\n"
        "attempt:                            4\n"
        "created at:                         2026-11-24T02:24:24.494Z\n"
        "suspended waiting for completions:  [1, 2]\n"
        "\n"
        "INDEX  ENTRY           NAME    APPENDED  BYTES\n"
        "0      Command: Input  -       t0        12\n"
        "1      Command: Run    charge  t1        7\n"
    )


def test_describe_says_when_the_journal_is_gone(admin: Admin) -> None:
    admin.answer("GET /invocations/inv_1c", {"invocation": FAILED, "journal": []})
    output = admin.run("invocations", "describe", "inv_1c").output
    assert output.endswith("\nThe journal is empty, or no longer kept.\n")


def test_an_id_cannot_name_another_route(admin: Admin) -> None:
    admin.answer("GET /invocations/..%2Fdeployments", {"message": "bad id", "restate_code": None}, 400)
    assert admin.run("invocations", "describe", "../deployments").output == "Error: bad id\n"


def test_a_key_cannot_move_the_cursor(admin: Admin) -> None:
    answer = {"invocations": [RUNNING | {"target": "Counter/\x1b[2Jalice/add"}]}
    admin.answer("GET /invocations?limit=100", answer)
    output = admin.run("invocations", "list").output
    assert "\x1b" not in output
    assert r"Counter/\x1b[2Jalice/add" in output


def test_json_is_the_answer_of_the_server(admin: Admin) -> None:
    listed, described = {"invocations": [FAILED]}, {"invocation": FAILED, "journal": []}
    admin.answer("GET /invocations?limit=100", listed)
    admin.answer("GET /invocations/inv_1c", described)
    assert json.loads(admin.run("invocations", "list", "--json").output) == listed
    assert json.loads(admin.run("invocations", "describe", "inv_1c", "--json").output) == described

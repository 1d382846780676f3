"""`perdure invocations cancel` and its kin: one by id, many by target, asked first, refusals in the server's words."""

from __future__ import annotations

import pytest

from perdure_server.cli.invocation_verbs import _targets

from .conftest import Admin

ROUTES = {
    "cancel": "cancel",
    "kill": "kill",
    "pause": "pause",
    "resume": "resume",
    "purge": "purge",
    "purge-journal": "purge-journal",
}
ROWS = {"rows": [{"id": "inv_1a", "target": "Counter/alice/add", "status": "running"}, {"id": "inv_1b"}]}


@pytest.mark.parametrize("verb", ROUTES)
def test_one_by_its_id(admin: Admin, verb: str) -> None:
    admin.answer(f"PATCH /invocations/inv_1a/{ROUTES[verb]}", b"", 202)
    result = admin.run("invocations", verb, "inv_1a")
    assert (result.exit_code, result.output) == (0, f"inv_1a: {verb} accepted\n")


def test_a_restart_names_the_new_one(admin: Admin) -> None:
    request = "PATCH /invocations/inv_1a/restart-as-new?deployment=latest&from=3"
    admin.answer(request, {"new_invocation_id": "inv_1z"})
    result = admin.run("invocations", "restart", "inv_1a", "--from", "3", "--deployment", "latest")
    assert result.output == "inv_1a runs again as inv_1z\n"


def test_a_refusal_is_the_servers(admin: Admin) -> None:
    words = "The invocation 'inv_1a' was already completed."
    admin.answer("PATCH /invocations/inv_1a/kill", {"message": words, "restate_code": None}, 409)
    result = admin.run("invocations", "kill", "inv_1a")
    assert (result.exit_code, result.output) == (1, f"Error: {words}\n")


def test_many_are_listed_and_asked_about(admin: Admin) -> None:
    admin.answer("POST /query", ROWS)
    result = admin.run("invocations", "cancel", "Counter")
    assert result.exit_code == 1  # nobody said yes
    assert "Cancel these 2 invocations? [y/N]" in result.output
    assert [request for request, _ in admin.requests] == ["POST /query"]


def test_many_at_once(admin: Admin) -> None:
    admin.answer("POST /query", ROWS)
    admin.answer(
        "POST /internal/invocations_batch_operations/kill",
        {"succeeded": ["inv_1a"], "failed": [{"invocation_id": "inv_1b", "error": "Invocation 'inv_1b' not found"}]},
    )
    result = admin.run("invocations", "kill", "Counter/alice", "--yes")
    assert admin.requests[1][1] == {"invocation_ids": ["inv_1a", "inv_1b"]}
    assert result.exit_code == 1
    assert "inv_1a: kill accepted\nError: 1 of 2 did not work:\ninv_1b: Invocation 'inv_1b' not found" in result.output


def test_nothing_to_do_is_no_error(admin: Admin) -> None:
    admin.answer("POST /query", {"rows": []})
    result = admin.run("invocations", "purge", "Counter", "--yes")
    assert (result.exit_code, result.output) == (0, "There is nothing to purge at Counter.\n")


@pytest.mark.parametrize(
    ("query", "condition"),
    [
        ("Svc", "target_service_name = 'Svc'"),
        (
            "Svc/x",
            "target_service_name = 'Svc' AND (target_service_key = 'x' OR "
            "(target_service_key IS NULL AND target_handler_name = 'x'))",
        ),
        (
            "Obj/a/b/add",
            "target_service_name = 'Obj' AND (target_service_key = 'a/b/add' OR "
            "(target_service_key = 'a/b' AND target_handler_name = 'add'))",
        ),
        ("O'Neil", "target_service_name = 'O''Neil'"),
    ],
)
def test_a_target_becomes_a_condition(query: str, condition: str) -> None:
    assert _targets(query) == condition

"""`perdure state` and `perdure sql`: rows as a person reads them, and changes that nobody else's are lost by."""

from __future__ import annotations

import json
from pathlib import Path

from perdure_processor.state_machine.state_patch import version_of

from .conftest import Admin

ROWS = {"rows": [{"key": "count", "value": "35"}, {"key": "raw", "value": "ff"}, {"key": "word", "value": "6869"}]}
STATE = [(b"count", b"5"), (b"raw", b"\xff"), (b"word", b"hi")]


def test_get_shows_json_text_and_bytes(admin: Admin) -> None:
    admin.answer("POST /query", ROWS)
    result = admin.run("state", "get", "Counter", "al'ice", "--json")
    assert json.loads(result.output) == {"count": 5, "raw": "0xff", "word": "hi"}
    assert "service_key = 'al''ice'" in admin.requests[0][1]["query"]


def test_get_of_nothing(admin: Admin) -> None:
    admin.answer("POST /query", {"rows": []})
    assert admin.run("state", "get", "Counter", "bob").output == "Counter/bob has no state.\n"


def test_patch_changes_some_names_of_the_state_it_read(admin: Admin) -> None:
    admin.answer("POST /query", ROWS)
    admin.answer("POST /services/Counter/state", b"", 202)
    result = admin.run("state", "patch", "Counter", "alice", '{"count": 6, "word": null}')
    assert result.output == "The next call of Counter/alice sees 2 names.\n"
    assert admin.requests[1][1] == {
        "object_key": "alice",
        "new_state": {"count": [54], "raw": [255]},
        "version": version_of(STATE),
    }


def test_put_replaces_all_of_it(admin: Admin, tmp_path: Path) -> None:
    admin.answer("POST /query", ROWS)
    admin.answer("POST /services/Counter/state", b"", 202)
    document = tmp_path / "state.json"
    document.write_text('{"list": [1]}')
    assert admin.run("state", "put", "Counter", "alice", str(document), "--force").exit_code == 0
    assert admin.requests[1][1] == {"object_key": "alice", "new_state": {"list": [91, 49, 93]}}


def test_what_is_no_object_is_no_state(admin: Admin) -> None:
    admin.answer("POST /query", ROWS)
    assert "must be a JSON object" in admin.run("state", "patch", "Counter", "alice", "[1]").output
    assert "is no JSON" in admin.run("state", "patch", "Counter", "alice", "{").output
    assert len(admin.requests) == 2  # it was only read


def test_a_stale_version_is_refused_in_the_servers_words(admin: Admin) -> None:
    admin.answer("POST /query", ROWS)
    admin.answer("POST /services/Counter/state", {"message": "has another version", "restate_code": None}, 409)
    result = admin.run("state", "patch", "Counter", "alice", "{}")
    assert (result.exit_code, result.output) == (1, "Error: has another version\n")


def test_sql_as_a_table_and_as_lines(admin: Admin) -> None:
    admin.answer("POST /query", {"rows": [{"id": "a"}, {"id": "b", "n": [1, 2]}]})
    assert admin.run("sql", "SELECT").output.splitlines()[:3] == ["ID  N", "a   -", "b   [1, 2]"]
    assert admin.run("sql", "SELECT", "--jsonl").output == '{"id": "a"}\n{"id": "b", "n": [1, 2]}\n'


def test_sql_errors_are_the_engines(admin: Admin) -> None:
    admin.answer("POST /query", {"message": "Datafusion error: SQL error: …"}, 400)
    result = admin.run("sql", "SELEC")
    assert (result.exit_code, result.output) == (1, "Error: Datafusion error: SQL error: …\n")

"""`perdure partitions`: which one stopped, and how it goes on."""

from __future__ import annotations

from .conftest import Admin


def test_list_names_the_record_that_stopped_a_partition(admin: Admin) -> None:
    stopped = {"id": 3, "position": 17, "stopped_at": 17, "failure": "AssertionError: 2 is next"}
    admin.answer("GET /partitions", {"partitions": [{"id": 0, "position": 40, "leader_epoch": 2}, stopped]})
    result = admin.run("partitions", "list")
    assert result.exit_code == 0, result.output
    lines = result.output.splitlines()
    assert lines[0].split() == ["PARTITION", "POSITION", "LEADER", "EPOCH", "STOPPED", "AT", "FAILURE"]
    assert "AssertionError: 2 is next" in lines[-1]


def test_skip_says_what_it_did(admin: Admin) -> None:
    admin.answer("POST /partitions/3/skip", {"id": 3, "position": 17})
    result = admin.run("partitions", "skip", "3", "17")
    assert result.exit_code == 0, result.output
    assert result.output == "Partition 3 goes on without the record at offset 17.\n"
    assert admin.requests == [("POST /partitions/3/skip", {"offset": 17})]


def test_a_refused_skip_ends_with_the_servers_reason(admin: Admin) -> None:
    reason = "partition 3 was stopped by the record at offset 17"
    admin.answer("POST /partitions/3/skip", {"message": reason, "restate_code": None}, 409)
    result = admin.run("partitions", "skip", "3", "16")
    assert result.exit_code == 1
    assert reason in result.output

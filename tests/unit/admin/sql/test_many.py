"""Five hundred invocations in all their states: the same facts in each way of asking."""

from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from perdure.protocol import ids
from perdure_processor.invoker.attempt import AttemptState
from perdure_processor.model.commands import Operate, Verb
from perdure_processor.model.effects import Pause, RetryAt
from perdure_processor.model.ids import DeploymentId, InvocationId, Millis
from perdure_server.admin.sql.catalog import TABLES
from support import builders as b
from support.env import START_MS, Env
from support.sql import Sql

EACH = 50
STATES = ("scheduled", "pending", "running", "backing-off", "suspended", "paused", "ready", "done", "failed", "killed")
# Columns that hold lists, which SQL does not compare with a text.
LISTS = {"suspended_waiting_for_completions", "suspended_waiting_for_signals"}


def bring(env: Env, state: str, number: int) -> InvocationId:
    """An invocation in this state; a pending one waits behind the one that holds its key, which is ready."""
    target = b.thing(f"k{number}") if state in ("ready", "pending") else b.service()
    invocation_id = b.invocation_id(target, f"{state}-{number}")
    delay_ms = 60_000 + number if state == "scheduled" else 0
    env.apply(b.invoke(target, f"{state}-{number}", delay_ms=delay_ms, one_way=True))
    if state not in ("scheduled", "pending", "ready"):
        env.effects(invocation_id, b.pinned(), b.run(1))
    match state:
        case "backing-off":
            env.effects(invocation_id, b.attempt_failed(RetryAt(Millis(START_MS + 5_000 + number), True)))
        case "suspended":
            env.effects(invocation_id, b.sleep(2, START_MS + 90_000 + number), b.suspended(2))
        case "paused":
            env.effects(invocation_id, b.attempt_failed(Pause()))
        case "done":
            env.effects(invocation_id, *b.ended(b"%d" % number))
        case "failed":
            env.effects(invocation_id, b.output_failure(500 + number % 3), b.ended()[1])
        case "killed":
            env.apply(Operate(invocation_id, Verb.KILL, b.request(), Millis(START_MS)))
    return invocation_id


@pytest.fixture(name="sql", scope="module")
def five_hundred() -> Sql:
    env = Env()
    running: dict[InvocationId, AttemptState] = {}
    for number in range(EACH):
        bring(env, "ready", number)  # first: it is to hold the key
        for state in STATES:
            if state != "ready":
                invocation_id = bring(env, state, number)
                if state == "running":
                    started_ms = Millis(START_MS + number)
                    running[invocation_id] = AttemptState(True, started_ms, DeploymentId("dp_1"), "sdk", None)
    return Sql(env, running)


@pytest.fixture(name="everything", scope="module")
def select_star(sql: Sql) -> list[dict[str, Any]]:
    return sql.json("SELECT * FROM sys_invocation")


def test_each_state_is_counted(sql: Sql) -> None:
    grouped = sql.json("SELECT status, completion_result, count(*) AS n FROM sys_invocation GROUP BY 1, 2")
    found = {(row["status"], row.get("completion_result")): row["n"] for row in grouped}
    assert found == {
        **{(state, None): EACH for state in STATES[:7]},
        ("completed", "success"): EACH,
        ("completed", "failure"): 2 * EACH,
    }
    assert sql.json("SELECT count(*) AS n FROM sys_invocation") == [{"n": len(STATES) * EACH}]


def test_order_and_pages_have_no_gaps(sql: Sql) -> None:
    listed = [row["id"] for row in sql.json("SELECT id FROM sys_invocation")]
    assert len(set(listed)) == len(listed) == len(STATES) * EACH
    ordered = [row["id"] for row in sql.json("SELECT id FROM sys_invocation ORDER BY id")]
    assert ordered == sorted(listed)
    backwards = [row["id"] for row in sql.json("SELECT id FROM sys_invocation ORDER BY id DESC")]
    assert backwards == ordered[::-1]
    paged = [
        row["id"]
        for at in range(0, len(ordered) + 70, 70)
        for row in sql.json(f"SELECT id FROM sys_invocation ORDER BY id LIMIT 70 OFFSET {at}")
    ]
    assert paged == ordered


@pytest.mark.parametrize("column", [name for name in TABLES["sys_invocation"] if name not in LISTS])
def test_a_column_says_the_same_however_it_is_asked_for(
    sql: Sql, everything: list[dict[str, Any]], column: str
) -> None:
    whole = {row["id"]: row.get(column) for row in everything}
    alone = sql.json(f'SELECT id, "{column}" AS it FROM sys_invocation')
    assert {row["id"]: row.get("it") for row in alone} == whole
    counted = Counter(str(value) for value in whole.values() if value is not None)
    nulls = sql.json(f'SELECT count(*) AS n FROM sys_invocation WHERE "{column}" IS NULL')
    assert nulls == [{"n": len(whole) - counted.total()}]
    grouped = sql.json(f'SELECT "{column}" AS it, count(*) AS n FROM sys_invocation GROUP BY 1')
    assert {str(row["it"]): row["n"] for row in grouped if "it" in row} == counted
    value = next((value for value in whole.values() if isinstance(value, str | int)), None)
    if value is not None and not column.endswith("retention"):
        literal = str(value) if isinstance(value, int) else "'" + value.replace("'", "''") + "'"
        same = sql.json(f'SELECT id FROM sys_invocation WHERE "{column}" = {literal}')
        assert {row["id"] for row in same} == {id for id, its in whole.items() if its == value}


def test_joins_agree_with_what_they_join(sql: Sql) -> None:
    entries = Counter(row["id"] for row in sql.json("SELECT id FROM sys_journal"))
    joined = sql.json(
        "SELECT i.id, i.journal_size, count(j.id) AS n FROM sys_invocation i "
        "LEFT JOIN sys_journal j ON i.id = j.id GROUP BY 1, 2",
    )
    assert {row["id"]: row["n"] for row in joined if row["n"]} == entries
    assert all(row["n"] == row.get("journal_size", row["n"]) for row in joined)
    queued = sql.json(
        "SELECT i.id, i.status, l.invocation_id AS holder FROM sys_invocation i JOIN sys_inbox q ON q.id = i.id "
        "JOIN sys_keyed_service_status l ON l.service_name = q.service_name AND l.service_key = q.service_key",
    )
    assert len(queued) == EACH
    for number in range(EACH):
        holder = ids.encode_invocation_id(b.invocation_id(b.thing(f"k{number}"), f"ready-{number}"))
        waiting = ids.encode_invocation_id(b.invocation_id(b.thing(f"k{number}"), f"pending-{number}"))
        assert {"id": waiting, "status": "pending", "holder": holder} in queued

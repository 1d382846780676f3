"""SQL over what a state machine has stored: the same facts in each way of asking."""

from __future__ import annotations

import pytest

from perdure.protocol import ids
from perdure_processor.model.commands import Operate, Verb
from perdure_processor.model.effects import RetryAt
from perdure_processor.model.ids import Millis
from perdure_server.admin.sql.catalog import TABLES
from perdure_server.admin.sql.engine import QueryRefused
from perdure_server.limits import QUERY_BATCH_BYTES
from support import builders as b
from support.env import START_MS, Env
from support.sql import Sql

GREET, HELD, QUEUED, LATER, WAITS, FAILS = (
    b.invocation_id(target, name)
    for target, name in (
        (b.service(), "greet"),
        (b.thing(), "held"),
        (b.thing(), "queued"),
        (b.service(), "later"),
        (b.service(), "waits"),
        (b.service(), "fails"),
    )
)


@pytest.fixture(name="env")
def busy() -> Env:
    """One invocation in each state."""
    env = Env()
    env.apply(b.invoke(b.service(), "greet"))
    env.effects(GREET, b.pinned(), *b.ended(b'"hi"'))
    env.apply(b.invoke(b.thing(), "held"), b.invoke(b.thing(), "queued"))
    env.effects(HELD, b.pinned(), b.set_state(b"n", b"5"), b.set_state(b"raw", b"\xff\x00"))
    env.apply(b.invoke(b.service(), "later", delay_ms=60_000, one_way=True))
    env.apply(b.invoke(b.service(), "waits"))
    env.effects(WAITS, b.pinned(), b.sleep(1, START_MS + 90_000), b.suspended(1))
    env.apply(b.invoke(b.service(), "fails"))
    env.effects(FAILS, b.pinned(), b.run(1), b.run_done(1))
    env.effects(FAILS, b.attempt_failed(RetryAt(Millis(START_MS + 5_000), True)))
    return env


def text(invocation_id: bytes) -> str:
    return ids.encode_invocation_id(invocation_id)


def test_each_state_has_its_name(env: Env) -> None:
    rows = Sql(env).json("SELECT id, status FROM sys_invocation")
    assert {row["id"]: row["status"] for row in rows} == {
        text(GREET): "completed",
        text(HELD): "ready",
        text(QUEUED): "pending",
        text(LATER): "scheduled",
        text(WAITS): "suspended",
        text(FAILS): "backing-off",
    }


@pytest.mark.parametrize("table", [name for name in TABLES if name not in ("sys_service", "sys_deployment")])
def test_a_column_asked_for_by_name_is_that_of_select_star(env: Env, table: str) -> None:
    sql = Sql(env)
    whole = sql.json(f"SELECT * FROM {table}")
    assert whole or table == "sys_promise"
    for column in TABLES[table]:
        alone = sql.json(f'SELECT "{column}" FROM {table}')
        assert [row.get(column) for row in alone] == [row.get(column) for row in whole], column
        nulls = sql.json(f'SELECT count(*) AS n FROM {table} WHERE "{column}" IS NULL')
        assert nulls == [{"n": sum(column not in row for row in whole)}], column


def test_counts_groups_orders_pages_and_joins_agree(env: Env) -> None:
    sql = Sql(env)
    everything = [row["id"] for row in sql.json("SELECT id FROM sys_invocation ORDER BY id")]
    assert everything == sorted(everything)
    assert sql.json("SELECT count(*) AS n FROM sys_invocation") == [{"n": len(everything)}]
    pages = [sql.json(f"SELECT id FROM sys_invocation ORDER BY id LIMIT 2 OFFSET {at}") for at in (0, 2, 4)]
    assert [row["id"] for page in pages for row in page] == everything
    grouped = sql.json("SELECT status, count(*) AS n FROM sys_invocation GROUP BY status")
    assert sum(row["n"] for row in grouped) == len(everything)
    joined = sql.json(
        "SELECT i.id, count(*) AS n FROM sys_invocation i JOIN sys_journal j ON i.id = j.id GROUP BY i.id, i.target"
    )
    assert {row["id"]: row["n"] for row in joined}[text(FAILS)] == 3


def test_an_id_is_one_read_and_a_key_its_own_rows(env: Env) -> None:
    sql = Sql(env)
    assert [row["id"] for row in sql.json(f"SELECT id FROM sys_invocation WHERE id = '{text(WAITS)}'")] == [text(WAITS)]
    assert sql.read == 1
    assert len(sql.json("SELECT id FROM sys_invocation WHERE target_service_key = 'alice'")) == 2
    assert sql.read == 2
    assert sql.json("SELECT key FROM state WHERE service_name = 'Counter' AND service_key = 'bob'") == []
    assert sql.read == 0
    assert sql.json("SELECT id FROM sys_invocation WHERE id = 'no id at all'") == []
    assert sql.read == 0


def test_state_shows_text_and_bytes(env: Env) -> None:
    rows = Sql(env).json("SELECT key, value, value_utf8, value_length FROM state ORDER BY key")
    assert rows == [
        {"key": "n", "value": "35", "value_utf8": "5", "value_length": 1},
        {"key": "raw", "value": "ff00", "value_length": 2},
    ]


def test_large_values_come_in_small_batches(env: Env) -> None:
    size = QUERY_BATCH_BYTES // 4
    env.effects(HELD, *(b.set_state(b"large%d" % number, bytes(size)) for number in range(10)))
    table = Sql(env).arrow("SELECT value FROM state WHERE key_length > 3")
    assert table.num_rows == 10
    assert max(batch.nbytes for batch in table.to_batches()) <= QUERY_BATCH_BYTES + size


def test_a_journal_its_events_and_the_failure(env: Env) -> None:
    sql = Sql(env)
    journal = sql.json(f"SELECT index, entry_type FROM sys_journal WHERE id = '{text(FAILS)}' ORDER BY index")
    assert [row["entry_type"] for row in journal] == ["Command: Input", "Command: Run", "Notification: Run"]
    events = sql.json(
        f"SELECT event_type, after_journal_entry_index FROM sys_journal_events WHERE id = '{text(FAILS)}'"
    )
    assert events == [{"event_type": "TransientError", "after_journal_entry_index": 2}]
    failure = sql.json(f"SELECT last_failure, retry_count FROM sys_invocation WHERE id = '{text(FAILS)}'")
    assert failure == [{"last_failure": "[500 Internal] boom", "retry_count": 1}]


def test_what_is_gone_is_not_seen(env: Env) -> None:
    env.apply(Operate(GREET, Verb.PURGE, b.request(), Millis(START_MS)))
    env.apply(Operate(LATER, Verb.CANCEL, b.request(), Millis(START_MS)))
    found = {row["id"] for row in Sql(env).json("SELECT id FROM sys_invocation")}
    assert found == {text(each) for each in (HELD, QUEUED, WAITS, FAILS)}  # although proof of both is kept


def test_both_forms_say_the_same(env: Env) -> None:
    sql = Sql(env)
    table = sql.arrow("SELECT id, created_at, completion_retention, journal_size FROM sys_invocation ORDER BY id")
    rows = sql.json("SELECT id, created_at, completion_retention, journal_size FROM sys_invocation ORDER BY id")
    assert table.column("id").to_pylist() == [row["id"] for row in rows]
    assert str(table.schema.field("created_at").type) == "timestamp[ms, tz=+00:00]"
    assert rows[0]["created_at"] == "2023-11-14T22:13:20.000Z"
    assert {row["completion_retention"] for row in rows} == {"PT86400S"}
    assert sql.arrow("SELECT id FROM sys_invocation WHERE false").schema.names == ["id"]


@pytest.mark.parametrize(
    ("query", "words"),
    [
        ("SELEC 1", "SQL error: ParserError"),
        ("", "No SQL statements were provided"),
        ("SELECT * FROM nope", "table 'restate.public.nope' not found"),
        ("SELECT nope FROM state", "No field named nope"),
        ("DELETE FROM state", "Error during planning: DML not supported: Delete"),
        ("INSERT INTO state (key) VALUES ('x')", "DML not supported"),
        ("CREATE TABLE t AS SELECT 1", "DDL not supported"),
        ("CREATE EXTERNAL TABLE t STORED AS CSV LOCATION '/'", "DDL not supported"),
        ("COPY state TO 'state.csv'", "DML not supported: COPY"),
        ("SET datafusion.execution.batch_size = 1", "Statement not supported"),
        ("SELECT * FROM 'state.csv'", "not found"),
    ],
)
def test_what_is_refused_and_why(env: Env, query: str, words: str) -> None:
    with pytest.raises(QueryRefused) as refused:
        Sql(env).json(query)
    assert words in str(refused.value)

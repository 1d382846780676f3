"""What is kept, for how long, and that nothing is left (correctness 17, 22, 27)."""

from __future__ import annotations

import pytest

from perdure_processor.model.actions import Answered, RespondToIngress, StartAttempt
from perdure_processor.model.commands import Expire, Part, TruncateOutbox
from perdure_processor.model.ids import CompletionId, Incarnation, Millis, PartitionId
from perdure_processor.model.limits import ANSWERS_PER_RECORD_MAX, PARTS_KEEP_MS, REPLY_KEEP_MS
from perdure_processor.model.results import CallerSink
from perdure_processor.state_machine import machine
from perdure_processor.storage import keys
from perdure_processor.storage.records import Completed
from support.builders import (
    DAY_MS,
    ELSEWHERE,
    HERE,
    HOUR_MS,
    attach,
    attempt_failed,
    call,
    ended,
    flow,
    invocation_id,
    invoke,
    ok,
    pinned,
    request,
    run,
    send,
    service,
    set_state,
    sleep,
    thing,
)
from support.env import START_MS, Env, shipped

A = invocation_id(service(), "key")
R1 = request(1)


def test_the_journal_goes_first_then_the_result(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=R1))
    env.effects(A, pinned(), run(1), *ended())
    assert env.expire(until_ms=START_MS + HOUR_MS - 1) == []
    assert env.count(keys.JOURNAL) == 2
    env.expire(until_ms=START_MS + HOUR_MS)
    assert (env.count(keys.JOURNAL), env.completed(A).segments) == (0, 0)
    env.expire(until_ms=START_MS + DAY_MS)
    assert env.leftovers() == {}


def test_a_journal_is_never_kept_longer_than_the_result(env: Env) -> None:
    env.apply(invoke(service(), "key", journal_retention_ms=DAY_MS, completion_retention_ms=HOUR_MS))
    env.effects(A, pinned(), *ended())
    env.expire(until_ms=START_MS + HOUR_MS)
    assert env.leftovers() == {}


def test_a_journal_that_is_not_kept_goes_with_the_end(env: Env) -> None:
    env.apply(invoke(service(), "key", journal_retention_ms=0))
    env.effects(A, pinned(), run(1))
    env.effects(A, *ended())
    assert env.count(keys.JOURNAL) == 0
    assert env.completed(A).result == ok()


def test_without_a_key_the_journals_retention_holds_for_the_result_too(env: Env) -> None:
    env.apply(invoke(service(), 1, one_way=True, from_handler=True))
    a = invocation_id(service(), 1)
    env.effects(a, pinned(), *ended())
    env.expire(until_ms=START_MS + HOUR_MS)
    assert env.leftovers() == {}


def test_a_handlers_call_that_keeps_nothing_is_gone_with_its_end(env: Env) -> None:
    env.apply(invoke(service(), 1, one_way=True, from_handler=True, journal_retention_ms=0))
    env.effects(invocation_id(service(), 1), pinned(), *ended())
    assert env.leftovers() == {}


def test_a_clients_call_that_keeps_nothing_leaves_proof_for_a_while(env: Env) -> None:
    env.apply(invoke(service(), "key", completion_retention_ms=0))
    env.effects(A, pinned(), *ended())
    env.expire(until_ms=START_MS)
    env.expire(until_ms=START_MS + REPLY_KEEP_MS - 1)
    assert env.proof(A).result == ok()
    env.expire(until_ms=START_MS + REPLY_KEEP_MS)
    assert env.leftovers() == {}


def test_retention_without_end_is_a_date(env: Env) -> None:
    forever = (1 << 64) - 1
    env.apply(invoke(service(), "key", completion_retention_ms=forever, journal_retention_ms=forever))
    env.effects(A, pinned(), *ended())
    env.expire(until_ms=START_MS + 1000 * DAY_MS)
    assert type(env.row(A)) is Completed


def test_an_expiry_takes_so_many_rows_as_it_was_allowed(env: Env) -> None:
    for number in range(5):
        env.apply(invoke(service(), f"key{number}"))
        env.effects(invocation_id(service(), f"key{number}"), pinned(), *ended())
    env.expire(until_ms=START_MS + DAY_MS, limit=2)
    assert env.count(keys.EXPIRY) == 5, "two journals went, and their results are due next"
    env.expire_everything()
    assert env.leftovers() == {}


def test_an_expiry_before_anything_is_due_does_nothing(env: Env) -> None:
    env.apply(invoke(service(), "key"))
    env.effects(A, pinned(), *ended())
    before = env.completed(A)
    assert env.apply(Expire(Millis(0), 512)) == []
    assert env.completed(A) == before


def test_everything_that_ever_was_is_gone_when_its_time_is_over(env: Env) -> None:
    a, run_id = invocation_id(thing(), 1), invocation_id(flow())
    env.apply(invoke(thing(), 1), invoke(thing(), 2), invoke(flow(), one_way=True), invoke(service(), "key"))
    called = call(A, service("other"), 1, incarnation=4, idempotency_key="k")
    env.effects(A, pinned(), called, sleep(3, START_MS + 5), attempt_failed())
    env.effects(called.id, pinned(), *ended())
    env.effects(a, pinned(), sleep(1, START_MS + 100), run(2), *ended())
    env.effects(invocation_id(thing(), 2), pinned(), *ended())
    env.effects(run_id, pinned(), set_state(b"n", b"1"), *ended())
    env.fire_timers(until_ms=START_MS + 500)
    env.effects(A, *ended())
    env.expire_everything()
    assert env.leftovers() == {}


# -- more than one record may touch (correctness 27) -------------------------------------------
def test_many_waiters_are_answered_over_several_records() -> None:
    count = 2 * ANSWERS_PER_RECORD_MAX + 10
    env = Env()
    env.apply(invoke(service(), "key", asked=request(0)))
    env.apply_batch(*(attach(A, request(n)) for n in range(1, count)))
    told = [env.effects(A, pinned(), *ended())]
    while env.count(keys.TIMER):
        assert len(env.completed(A).waiting) > 0
        told.append(env.fire_timers())
    answers = [[action for action in each if type(action) is RespondToIngress] for each in told]
    assert [len(each) for each in answers] == [ANSWERS_PER_RECORD_MAX, ANSWERS_PER_RECORD_MAX, 10]
    assert [answer.request.number for each in answers for answer in each] == list(range(count))
    env.expire_everything()
    assert env.leftovers() == {}


def test_waiters_are_told_even_if_nothing_is_kept() -> None:
    count = ANSWERS_PER_RECORD_MAX + 1
    env = Env()
    callers = [CallerSink(invocation_id(service(), n), Incarnation(n), CompletionId(1)) for n in range(count)]
    env.apply_batch(
        *(invoke(service(), "key", caller=c, completion_retention_ms=0, journal_retention_ms=0) for c in callers)
    )
    env.effects(A, pinned(), *ended())
    assert len(env.completed(A).waiting) == 1
    env.fire_timers()
    env.expire_everything()
    assert env.leftovers() == {}


def test_a_large_result_is_copied_into_the_outbox_a_few_at_a_time(one_of_two: Env) -> None:
    env = one_of_two
    a = invocation_id(thing(HERE), 1)
    callers = [CallerSink(invocation_id(thing(ELSEWHERE), n), Incarnation(n), CompletionId(1)) for n in range(5)]
    env.apply(*(invoke(thing(HERE), 1, caller=caller) for caller in callers))
    large = bytes(6 << 20)
    messages = shipped(env.effects(a, pinned(), *ended(large)))
    assert len(messages) == 2
    while env.count(keys.TIMER):
        messages += shipped(env.fire_timers())
    assert [message.command.sink for message in messages] == callers  # type: ignore[union-attr]


def test_a_long_journal_is_dropped_over_several_expiries(monkeypatch: pytest.MonkeyPatch, env: Env) -> None:
    monkeypatch.setattr(machine, "ROWS_MAX", 10)
    env.apply(invoke(service(), "key", journal_retention_ms=0))
    for _ in range(24):
        env.effects(A, run(1))
    env.effects(A, *ended())
    assert env.count(keys.JOURNAL) == 16
    while env.count(keys.JOURNAL):
        before = env.count(keys.JOURNAL)
        env.expire()
        assert 0 < before - env.count(keys.JOURNAL) <= 10
    assert env.completed(A).result == ok()
    env.expire_everything()
    assert env.leftovers() == {}


def test_a_long_outbox_is_truncated_over_several_records(monkeypatch: pytest.MonkeyPatch, one_of_two: Env) -> None:
    env = one_of_two
    a = invocation_id(thing(HERE), 1)
    env.apply(invoke(thing(HERE), 1))
    env.effects(a, pinned(), *(send(a, thing(ELSEWHERE), n, command_index=n) for n in range(1, 31)))
    monkeypatch.setattr(machine, "ROWS_MAX", 10)
    env.apply(TruncateOutbox(PartitionId(1), 28))
    assert env.count(keys.OUTBOX) == 20
    while env.count(keys.TIMER):
        before = env.count(keys.OUTBOX)
        env.fire_timers()
        assert before - env.count(keys.OUTBOX) <= 10
    assert env.count(keys.OUTBOX) == 2


def test_timers_beyond_the_room_of_a_record_stay_due(monkeypatch: pytest.MonkeyPatch, env: Env) -> None:
    env.apply(invoke(service(), "key"))
    env.effects(A, pinned(), *(sleep(n, START_MS + n) for n in range(1, 8)))
    monkeypatch.setattr(machine, "ROWS_MAX", 10)
    env.fire_timers(until_ms=START_MS + 10)
    assert 0 < env.count(keys.TIMER) < 7
    while env.count(keys.TIMER):
        env.fire_timers()
    assert env.live(A).open_sleeps == []


def test_parts_whose_last_one_never_came_are_dropped(env: Env) -> None:
    group = b"g" * 16
    env.apply(Part(group, 0, 3, b"a"), Part(group, 1, 3, b"b"))
    env.expire(until_ms=START_MS + PARTS_KEEP_MS - 1)
    assert env.count(keys.PART) == 2
    env.expire(until_ms=START_MS + PARTS_KEEP_MS)
    assert env.leftovers() == {}


def test_a_new_life_starts_from_a_proof_and_leaves_no_expiry_of_the_old_one(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=R1, completion_retention_ms=0))
    env.effects(A, pinned(), *ended())
    env.expire(until_ms=START_MS)
    (start,) = env.apply(invoke(service(), "key", asked=request(2)))
    assert type(start) is StartAttempt and env.count(keys.EXPIRY) == 0
    env.expire(until_ms=START_MS + REPLY_KEEP_MS)
    (answer,) = env.effects(A, pinned(), *ended(b"2"))
    assert answer == RespondToIngress(request(2), Answered(A, ok(b"2"), None))

"""Invoke, Attach, GetOutput: applied once however often they are appended (correctness 3, 17, 22)."""

from __future__ import annotations

import pytest

from perdure_processor.model.actions import (
    Answered,
    Crowded,
    Expired,
    Missing,
    RespondToIngress,
    Running,
    SetTimer,
    StartAttempt,
    Taken,
    Unkept,
)
from perdure_processor.model.ids import Millis
from perdure_processor.model.limits import REPLY_KEEP_MS, REQUEST_HORIZON_MS, SINKS_MAX
from perdure_processor.state_machine import submission
from perdure_processor.storage import keys
from perdure_processor.storage.records import Live, Status
from support.builders import (
    DAY_MS,
    attach,
    ended,
    failed,
    flow,
    get_output,
    invocation_id,
    invoke,
    ok,
    pinned,
    request,
    service,
    thing,
)
from support.env import START_MS, Env, started, without_timers

A = invocation_id(service(), "key")
R1, R2, R3 = request(1), request(2), request(3)


# -- once ------------------------------------------------------------------------------
def test_the_same_request_again_joins_what_it_started(env: Env) -> None:
    twice = invoke(service(), "key", asked=R1)
    assert started(env.apply(twice)) == [A]
    assert env.apply(twice) == []
    assert env.live(A).sinks == [R1]
    assert env.effects(A, pinned(), *ended()) == [RespondToIngress(R1, Answered(A, ok(), None))]


def test_the_same_request_after_the_end_gets_the_same_answer(env: Env) -> None:
    once = invoke(service(), "key", asked=R1)
    env.apply(once)
    env.effects(A, pinned(), *ended(b"first"))
    assert env.apply(once) == [RespondToIngress(R1, Answered(A, ok(b"first"), None))]


def test_with_retention_zero_the_same_request_does_not_run_again(env: Env) -> None:
    once = invoke(service(), "key", asked=R1, completion_retention_ms=0)
    env.apply(once)
    env.effects(A, pinned(), *ended(b"first"))
    env.expire(until_ms=START_MS)
    assert env.proof(A).result == ok(b"first")
    assert env.apply(once) == [RespondToIngress(R1, Answered(A, ok(b"first"), None))]


def test_with_retention_zero_another_request_runs_again_and_each_gets_its_own_answer(env: Env) -> None:
    first = invoke(service(), "key", asked=R1, completion_retention_ms=0)
    second = invoke(service(), "key", asked=R2, completion_retention_ms=0)
    env.apply(first)
    env.effects(A, pinned(), *ended(b"first"))
    env.expire(until_ms=START_MS)
    assert started(env.apply(second)) == [A]
    assert env.apply(first) == [RespondToIngress(R1, Answered(A, ok(b"first"), None))]
    assert env.apply(attach(A, R1)) == [RespondToIngress(R1, Answered(A, ok(b"first"), None))]
    assert env.effects(A, pinned(), *ended(b"second")) == [RespondToIngress(R2, Answered(A, ok(b"second"), None))]
    assert env.apply(first) == [RespondToIngress(R1, Answered(A, ok(b"first"), None))]
    env.expire(until_ms=START_MS)
    assert env.apply(first, second) == [
        RespondToIngress(R1, Answered(A, ok(b"first"), None)),
        RespondToIngress(R2, Answered(A, ok(b"second"), None)),
    ]


def test_proof_of_a_request_outlives_the_moment_it_is_refused_from(env: Env) -> None:
    once = invoke(service(), "key", asked=R1, completion_retention_ms=0)
    env.apply(once)
    env.effects(A, pinned(), *ended())
    env.expire(until_ms=START_MS + REQUEST_HORIZON_MS)
    assert env.apply(once) == [RespondToIngress(R1, Answered(A, ok(), None))]
    env.now_ms += 1
    assert env.apply(once) == [RespondToIngress(R1, Expired())]
    env.expire(until_ms=START_MS + REPLY_KEEP_MS)
    assert env.leftovers() == {}


def test_a_request_that_is_too_old_does_nothing(env: Env) -> None:
    env.now_ms = START_MS + REQUEST_HORIZON_MS + 1
    assert env.apply(invoke(service(), "key", asked=R1)) == [RespondToIngress(R1, Expired())]
    assert env.apply(attach(A, R2)) == [RespondToIngress(R2, Expired())]
    assert env.leftovers() == {}


def test_a_handlers_invocation_is_never_too_old(env: Env) -> None:
    env.now_ms = START_MS + DAY_MS
    assert started(env.apply(invoke(service(), "key", one_way=True, from_handler=True))) == [A]


def test_a_send_told_again_is_told_the_same(env: Env) -> None:
    once = invoke(service(), "key", asked=R1, one_way=True, delay_ms=1000)
    taken = RespondToIngress(R1, Taken(A, False, Millis(START_MS + 1000)))
    assert without_timers(env.apply(once)) == [taken]
    assert env.apply(once) == [taken]
    env.fire_timers(until_ms=START_MS + 1000)
    env.effects(A, pinned(), *ended())
    assert env.apply(once) == [taken]


def test_a_doubled_workflow_run_is_not_refused_to_its_own_caller(env: Env) -> None:
    a = invocation_id(flow())
    once = invoke(flow(), asked=R1)
    env.apply(once)
    assert env.apply(once) == []
    assert env.effects(a, pinned(), *ended()) == [RespondToIngress(R1, Answered(a, ok(), None))]


# -- joining -----------------------------------------------------------------------------
def test_a_second_call_with_the_key_waits_for_the_first(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=R1))
    assert env.apply(invoke(service(), "key", asked=R2)) == []
    assert env.effects(A, pinned(), *ended()) == [
        RespondToIngress(R1, Answered(A, ok(), None)),
        RespondToIngress(R2, Answered(A, ok(), None)),
    ]


def test_a_call_with_the_key_of_an_ended_invocation_gets_its_stored_result(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=R1))
    env.effects(A, pinned(), *ended())
    stored_until = Millis(START_MS + DAY_MS)
    assert env.apply(invoke(service(), "key", asked=R2)) == [RespondToIngress(R2, Answered(A, ok(), stored_until))]


def test_a_second_send_with_the_key_was_accepted_previously(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=R1, one_way=True))
    assert env.apply(invoke(service(), "key", asked=R2, one_way=True)) == [
        RespondToIngress(R2, Taken(A, True, Millis(0)))
    ]


def test_a_second_delayed_send_is_told_the_time_of_the_first(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=R1, one_way=True, delay_ms=1000))
    assert env.apply(invoke(service(), "key", asked=R2, one_way=True, delay_ms=9000)) == [
        RespondToIngress(R2, Taken(A, True, Millis(START_MS + 1000)))
    ]


def test_a_call_joins_a_scheduled_send_and_waits(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=R1, one_way=True, delay_ms=1000))
    assert env.apply(invoke(service(), "key", asked=R2)) == []
    env.fire_timers(until_ms=START_MS + 1000)
    assert env.effects(A, pinned(), *ended()) == [RespondToIngress(R2, Answered(A, ok(), None))]


def test_a_second_call_of_a_workflow_is_refused_and_a_second_send_is_not(env: Env) -> None:
    a = invocation_id(flow())
    env.apply(invoke(flow(), asked=R1))
    refused = failed(409, "the workflow method was already invoked")
    assert env.apply(invoke(flow(), asked=R2)) == [RespondToIngress(R2, Answered(a, refused, None))]
    assert env.apply(invoke(flow(), asked=R3, one_way=True)) == [RespondToIngress(R3, Taken(a, True, Millis(0)))]
    env.effects(a, pinned(), *ended())
    assert env.apply(invoke(flow(), asked=request(4)))[0] == RespondToIngress(request(4), Answered(a, refused, None))


def test_waiters_are_bounded() -> None:
    env = Env()
    env.apply_batch(invoke(service(), "key", asked=request(0)), *(attach(A, request(n)) for n in range(1, SINKS_MAX)))
    assert env.apply(attach(A, request(SINKS_MAX))) == [RespondToIngress(request(SINKS_MAX), Crowded())]
    assert env.apply(attach(A, request(5))) == [], "who waits already is not one more"


# -- later -------------------------------------------------------------------------------
def test_a_delayed_send_starts_when_its_time_comes(env: Env) -> None:
    at = Millis(START_MS + 5000)
    actions = env.apply(invoke(service(), "key", asked=R1, one_way=True, delay_ms=5000))
    assert SetTimer(at) in actions and started(actions) == []
    row = env.live(A)
    assert (row.status, row.execution_ms, row.running_ms) == (Status.SCHEDULED, at, 0)
    assert started(env.fire_timers(until_ms=at - 1)) == []
    assert env.fire_timers(until_ms=at) == [StartAttempt(A, row.incarnation, 1, None)]
    assert env.count(keys.TIMER) == 0


def test_a_delayed_send_to_a_busy_key_waits_its_turn(env: Env) -> None:
    a, b = invocation_id(thing(), 1), invocation_id(thing(), 2)
    env.apply(invoke(thing(), 2, one_way=True, delay_ms=10))
    env.apply(invoke(thing(), 1))
    assert env.fire_timers(until_ms=START_MS + 10) == []
    assert env.live(b).status is Status.INBOXED
    assert started(env.effects(a, pinned(), *ended())) == [b]


def test_a_time_beyond_all_times_is_kept(env: Env) -> None:
    env.apply(invoke(service(), "key", one_way=True, delay_ms=(1 << 64) - 1 - START_MS))
    assert env.fire_timers(until_ms=START_MS + 1000 * DAY_MS) == []
    assert type(env.row(A)) is Live


# -- attach and output ---------------------------------------------------------------------
def test_attach_waits_for_the_end(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=R1, one_way=True))
    assert env.apply(attach(A, R2), attach(A, R2)) == []
    assert env.effects(A, pinned(), *ended()) == [RespondToIngress(R2, Answered(A, ok(), None))]


def test_attach_after_the_end_is_answered_now(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=R1))
    env.effects(A, pinned(), *ended())
    assert env.apply(attach(A, R2)) == [RespondToIngress(R2, Answered(A, ok(), Millis(START_MS + DAY_MS)))]


def test_who_attached_may_ask_again_after_the_result_has_expired(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=R1, completion_retention_ms=0))
    env.apply(attach(A, R2))
    env.effects(A, pinned(), *ended())
    env.expire(until_ms=START_MS)
    assert env.apply(attach(A, R2)) == [RespondToIngress(R2, Answered(A, ok(), None))]
    assert env.apply(attach(A, R3)) == [RespondToIngress(R3, Missing())]


def test_attach_to_an_unknown_id_finds_nothing(env: Env) -> None:
    assert env.apply(attach(A, R1)) == [RespondToIngress(R1, Missing())]
    assert env.leftovers() == {}


def test_output_says_what_there_is(env: Env) -> None:
    assert env.apply(get_output(A, R1)) == [RespondToIngress(R1, Missing())]
    env.apply(invoke(service(), "key"))
    assert env.apply(get_output(A, R1)) == [RespondToIngress(R1, Running())]
    env.effects(A, pinned(), *ended())
    assert env.apply(get_output(A, R1)) == [RespondToIngress(R1, Answered(A, ok(), Millis(START_MS + DAY_MS)))]


def test_output_without_a_key_is_not_kept_for_clients(env: Env) -> None:
    a = invocation_id(service(), 1)
    env.apply(invoke(service(), 1))
    assert env.apply(get_output(a, R1)) == [RespondToIngress(R1, Unkept())]
    env.effects(a, pinned(), *ended())
    assert env.apply(get_output(a, R1)) == [RespondToIngress(R1, Unkept())]


# -- requests that joined something that is not kept long -------------------------------------
def test_a_refused_request_does_not_run_when_it_comes_again_after_the_workflow_is_gone(env: Env) -> None:
    a = invocation_id(flow())
    env.apply(invoke(flow(), asked=R1, completion_retention_ms=0))
    twice = invoke(flow(), asked=R2, completion_retention_ms=0)
    refused = RespondToIngress(R2, Answered(a, failed(409, "the workflow method was already invoked"), None))
    assert env.apply(twice) == [refused]
    env.effects(a, pinned(), *ended())
    env.expire(until_ms=START_MS)
    assert env.apply(twice) == [refused]


def test_a_request_answered_from_a_stored_result_does_not_run_when_that_has_expired(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=R1, completion_retention_ms=100))
    env.effects(A, pinned(), *ended(b"first"))
    late = invoke(service(), "key", asked=R2, completion_retention_ms=100)
    env.apply(late)
    env.expire(until_ms=START_MS + 100)
    assert env.apply(late) == [RespondToIngress(R2, Answered(A, ok(b"first"), None))]


def test_a_send_that_joined_does_not_run_when_the_first_is_gone(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=R1, one_way=True, completion_retention_ms=0))
    late = invoke(service(), "key", asked=R2, one_way=True, completion_retention_ms=0)
    joined = RespondToIngress(R2, Taken(A, True, Millis(0)))
    assert env.apply(late) == [joined]
    env.effects(A, pinned(), *ended())
    env.expire(until_ms=START_MS)
    assert env.apply(late) == [joined]


def test_a_result_that_is_kept_long_is_not_written_again_for_everyone_who_joins(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=R1))
    env.effects(A, pinned(), *ended())
    before = env.store.get(keys.invocation(A))
    env.apply(invoke(service(), "key", asked=R2))
    assert env.store.get(keys.invocation(A)) == before


def test_an_id_that_has_to_remember_too_many_requests_asks_for_patience(
    monkeypatch: pytest.MonkeyPatch, env: Env
) -> None:
    monkeypatch.setattr(submission, "REQUESTS_KNOWN_MAX", 2)
    for number in (1, 2):
        env.apply(invoke(service(), "key", asked=request(number), completion_retention_ms=0))
        env.effects(A, pinned(), *ended())
        env.expire(until_ms=START_MS)
    third = invoke(service(), "key", asked=R3, completion_retention_ms=0)
    assert env.apply(third) == [RespondToIngress(R3, Crowded())]
    assert env.proof(A).result == ok()
    env.expire(until_ms=START_MS + REPLY_KEEP_MS)
    later = invoke(service(), "key", asked=request(4), issued_ms=env.now_ms)
    assert started(env.apply(later)) == [A]


def test_joining_is_refused_when_a_row_that_will_not_last_remembers_too_many(
    monkeypatch: pytest.MonkeyPatch, env: Env
) -> None:
    monkeypatch.setattr(submission, "REQUESTS_KNOWN_MAX", 1)
    env.apply(invoke(service(), "key", asked=R1, one_way=True, completion_retention_ms=0))
    second = invoke(service(), "key", asked=R2, one_way=True, completion_retention_ms=0)
    assert env.apply(second) == [RespondToIngress(R2, Crowded())]

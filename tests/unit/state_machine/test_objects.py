"""Virtual objects and workflows: one writer for each key, in the order of the log."""

from __future__ import annotations

from perdure_processor.model.actions import RespondToIngress, StartAttempt
from perdure_processor.model.effects import RetryAt
from perdure_processor.model.ids import Millis
from perdure_processor.storage import keys
from perdure_processor.storage.records import Status
from support.builders import attempt_failed, ended, flow, invocation_id, invoke, pinned, sleep, suspended, thing
from support.env import START_MS, Env, started

A, B, C = (invocation_id(thing(), number) for number in (1, 2, 3))


def test_the_second_waits_until_the_first_has_ended(env: Env) -> None:
    assert started(env.apply(invoke(thing(), 1))) == [A]
    assert env.apply(invoke(thing(), 2)) == []
    assert env.live(B).status is Status.INBOXED
    answer, start = env.effects(A, pinned(), *ended())
    assert type(answer) is RespondToIngress
    assert start == StartAttempt(B, env.live(B).incarnation, 1, None)


def test_the_queue_is_served_in_the_order_of_the_log(env: Env) -> None:
    env.apply(invoke(thing(), 1), invoke(thing(), 3), invoke(thing(), 2))
    assert started(env.effects(A, pinned(), *ended())) == [C]
    assert started(env.effects(C, pinned(), *ended())) == [B]
    assert started(env.effects(B, pinned(), *ended())) == []
    assert (env.count(keys.OBJECT), env.count(keys.INBOX)) == (0, 0)


def test_a_key_that_was_free_is_taken_again(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    env.effects(A, pinned(), *ended())
    assert started(env.apply(invoke(thing(), 2))) == [B]


def test_another_key_does_not_wait(env: Env) -> None:
    env.apply(invoke(thing("alice"), 1))
    bob = invocation_id(thing("bob"), 2)
    assert started(env.apply(invoke(thing("bob"), 2))) == [bob]


def test_keys_of_two_objects_are_two_locks(env: Env) -> None:
    env.apply(invoke(thing("ab", name="Counter"), 1))
    other = flow("ab", handler="run")
    assert started(env.apply(invoke(other))) == [invocation_id(other)]


def test_shared_handlers_run_beside_the_holder(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    reader = invocation_id(thing(handler="get"), 2)
    assert started(env.apply(invoke(thing(handler="get"), 2))) == [reader]
    assert started(env.effects(reader, pinned(), *ended())) == []
    assert env.apply(invoke(thing(), 3)) == [], "a shared handler's end frees no lock"


def test_a_suspended_holder_keeps_the_key(env: Env) -> None:
    env.apply(invoke(thing(), 1), invoke(thing(), 2))
    assert started(env.effects(A, pinned(), sleep(1, START_MS + 10), suspended(1))) == []
    assert started(env.fire_timers(until_ms=START_MS + 10)) == [A]


def test_a_holder_that_backs_off_keeps_the_key(env: Env) -> None:
    env.apply(invoke(thing(), 1), invoke(thing(), 2))
    assert started(env.effects(A, attempt_failed(RetryAt(Millis(START_MS + 10), counted=True)))) == []
    assert started(env.fire_timers(until_ms=START_MS + 10)) == [A]


def test_an_heir_starts_in_the_record_that_ended_its_predecessor_in_any_batch(env: Env) -> None:
    env.apply_batch(invoke(thing(), 1), invoke(thing(), 2), invoke(thing(), 3))
    assert started(env.effects(A, pinned(), *ended())) == [B]
    assert started(env.effects(B, *ended())) == [C]


def test_a_workflow_runs_once_for_each_key(env: Env) -> None:
    first, second = flow("w1"), flow("w2")
    assert started(env.apply(invoke(first))) == [invocation_id(first)]
    assert started(env.apply(invoke(second))) == [invocation_id(second)]
    assert started(env.apply(invoke(first, one_way=True))) == []


def test_a_workflows_other_handlers_run_beside_its_run(env: Env) -> None:
    env.apply(invoke(flow()))
    status = flow(handler="status")
    assert started(env.apply(invoke(status, 7))) == [invocation_id(status, 7)]

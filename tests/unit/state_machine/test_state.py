"""State of objects: set, get, clear, keys; lazily read as of a place in the journal; cleared however much there is."""

from __future__ import annotations

import pytest

from perdure_processor.model.actions import ForwardNotification
from perdure_processor.model.ids import InvocationId
from perdure_processor.state_machine import machine
from perdure_processor.storage import keys
from support.builders import (
    clear_all,
    clear_state,
    ended,
    flow,
    invocation_id,
    invoke,
    notification,
    pinned,
    read_eagerly,
    read_keys_lazily,
    read_lazily,
    set_state,
    thing,
)
from support.env import START_MS, Env

A, B = invocation_id(thing(), 1), invocation_id(thing(), 2)
ROOM = 10  # rows a record may touch, where a test makes that few


@pytest.fixture
def little_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "ROWS_MAX", ROOM)


def state(env: Env, id: InvocationId = A) -> dict[bytes, bytes]:
    return env.state(id, "Counter", "alice")


def test_what_is_set_is_stored_with_its_journal_entry(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    env.effects(A, pinned(), set_state(b"n", b"1"), set_state(b"n", b"2"), set_state(b"empty", b""))
    assert state(env) == {b"n": b"2", b"empty": b""}
    assert env.live(A).commands == 4


def test_what_is_cleared_is_gone(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    env.effects(A, pinned(), set_state(b"a", b"1"), set_state(b"b", b"2"), clear_state(b"a"), clear_state(b"never"))
    assert state(env) == {b"b": b"2"}
    env.effects(A, clear_all(), set_state(b"c", b"3"))
    assert state(env) == {b"c": b"3"}


def test_state_outlives_the_invocation_and_belongs_to_its_key(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    env.effects(A, pinned(), set_state(b"n", b"1"), *ended())
    env.expire_everything()
    assert state(env) == {b"n": b"1"}
    assert env.state(invocation_id(thing("bob"), 1), "Counter", "bob") == {}
    assert env.state(A, "Counte", "ralice") == {}


def test_an_eager_read_is_only_recorded(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    assert env.effects(A, pinned(), read_eagerly(b"n", b"1"), read_eagerly(b"m", None)) == []
    assert env.live(A).entries == 3


def test_a_lazy_read_sees_the_state_at_its_place_in_the_journal(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    actions = env.effects(
        A, pinned(), read_lazily(b"n", 1), set_state(b"n", b""), read_lazily(b"n", 2), clear_all(), read_lazily(b"n", 3)
    )
    answers = [notification(action.frame) for action in actions if type(action) is ForwardNotification]
    assert [answer.WhichOneof("result") for answer in answers] == ["void", "value", "void"]
    assert answers[1].value.content == b""


def test_keys_are_read_lazily_in_order(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    (answer,) = env.effects(A, pinned(), set_state(b"b", b""), set_state(b"a", b""), read_keys_lazily(1))
    assert type(answer) is ForwardNotification
    assert list(notification(answer.frame).state_keys.keys) == [b"a", b"b"]


def test_no_keys_is_an_answer_too(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    (answer,) = env.effects(A, pinned(), read_keys_lazily(1))
    assert type(answer) is ForwardNotification
    assert notification(answer.frame).HasField("state_keys")


def test_a_workflows_state_goes_with_its_result(env: Env) -> None:
    run = invocation_id(flow())
    env.apply(invoke(flow()))
    env.effects(run, pinned(), set_state(b"n", b"1"), *ended())
    assert env.state(run, "Flow", "w1") == {b"n": b"1"}
    env.expire_everything()
    assert env.leftovers() == {}


def test_a_workflow_that_is_not_kept_leaves_no_state(env: Env) -> None:
    run = invocation_id(flow())
    env.apply(invoke(flow(), one_way=True, from_handler=True, completion_retention_ms=0))
    env.effects(run, pinned(), set_state(b"n", b"1"), *ended())
    env.expire_everything()
    assert env.leftovers() == {}


# -- more state than one record may touch (correctness 27) ------------------------------------
def fill(env: Env, id: InvocationId, count: int) -> None:
    for number in range(count):
        env.effects(id, set_state(f"k{number:04}".encode(), b"old"))


@pytest.mark.usefixtures("little_room")
def test_clearing_much_state_takes_many_records_and_nobody_sees_any_of_it_meanwhile(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    fill(env, A, 35)
    touched = env.count(keys.STATE)
    env.effects(A, clear_all())
    assert state(env) == {}
    assert touched - env.count(keys.STATE) <= ROOM
    rounds = 0
    while env.count(keys.TIMER):
        before = env.count(keys.STATE)
        env.fire_timers()
        assert before - env.count(keys.STATE) <= ROOM
        assert state(env) == {}
        rounds += 1
    assert rounds >= 3
    env.effects(A, *ended())
    env.expire_everything()
    assert env.leftovers() == {}


@pytest.mark.usefixtures("little_room")
def test_what_is_set_after_a_clear_that_is_not_finished_is_kept(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    fill(env, A, 35)
    actions = env.effects(
        A,
        clear_all(),
        set_state(b"k0034", b"new"),
        set_state(b"a", b"new"),
        read_lazily(b"k0030", 1),
        read_keys_lazily(2),
    )
    answers = [notification(action.frame) for action in actions if type(action) is ForwardNotification]
    assert answers[0].HasField("void")
    assert list(answers[1].state_keys.keys) == [b"a", b"k0034"]
    expected = {b"a": b"new", b"k0034": b"new"}
    assert state(env) == expected
    while env.count(keys.TIMER):
        env.fire_timers()
        assert state(env) == expected
    assert (env.count(keys.STATE), env.count(keys.CLEARED)) == (2, 0)


@pytest.mark.usefixtures("little_room")
def test_a_second_clear_before_the_first_is_finished(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    fill(env, A, 35)
    env.effects(A, clear_all())
    env.fire_timers()
    fill(env, A, 20)
    env.effects(A, clear_all(), set_state(b"last", b"1"))
    assert state(env) == {b"last": b"1"}
    while env.count(keys.TIMER):
        env.fire_timers(until_ms=START_MS)
    assert state(env) == {b"last": b"1"}
    assert (env.count(keys.STATE), env.count(keys.CLEARED)) == (1, 0)


@pytest.mark.usefixtures("little_room")
def test_a_workflow_with_much_state_may_run_again_before_that_is_deleted(env: Env) -> None:
    run = invocation_id(flow())
    env.apply(invoke(flow(), one_way=True, from_handler=True, completion_retention_ms=0))
    fill(env, run, 35)
    env.effects(run, *ended())
    while env.row(run) is not None:
        env.expire()
    assert env.count(keys.CLEARED) == 1
    env.apply(invoke(flow(), one_way=True, from_handler=True))
    env.effects(run, set_state(b"k0001", b"second life"))
    while env.count(keys.TIMER):
        env.fire_timers()
    assert env.state(run, "Flow", "w1") == {b"k0001": b"second life"}

"""One attempt at a time: tokens, lives, ends, and what follows a failure (correctness 1, 2, 5)."""

from __future__ import annotations

import pytest

from perdure_processor.model.actions import Answered, ForwardNotification, RespondToIngress, SetTimer, StartAttempt
from perdure_processor.model.commands import AttemptEffects, TimersFired
from perdure_processor.model.effects import Ended, Kill, Pause, RetryAt
from perdure_processor.model.ids import Incarnation, Millis
from perdure_processor.model.results import CallerSink
from perdure_processor.storage import keys
from perdure_processor.storage.records import Status
from support.builders import (
    INPUT,
    attempt_failed,
    ended,
    failed,
    invocation_id,
    invoke,
    ok,
    output,
    output_failure,
    pinned,
    request,
    respond,
    run,
    run_done,
    service,
    set_state,
    sleep,
    suspended,
    thing,
)
from support.env import START_MS, Env, started

A = invocation_id(service(), 1)
ASKED = request(1)


def begin(env: Env) -> None:
    env.apply(invoke(asked=ASKED))


def test_a_call_starts_an_attempt_with_its_input_and_the_end_is_answered(env: Env) -> None:
    assert env.apply(invoke(asked=ASKED)) == [StartAttempt(A, Incarnation(0), 1, INPUT)]
    assert env.effects(A, pinned(), *ended(b"hi")) == [RespondToIngress(ASKED, Answered(A, ok(b"hi"), None))]
    assert env.completed(A).result == ok(b"hi")
    assert env.count(keys.ACTIVE) == 0


def test_a_terminal_failure_is_a_result(env: Env) -> None:
    begin(env)
    actions = env.effects(A, pinned(), output_failure(404, "no such thing"), Ended())
    assert actions == [RespondToIngress(ASKED, Answered(A, failed(404, "no such thing"), None))]


def test_a_failure_code_that_is_no_status_becomes_500(env: Env) -> None:
    begin(env)
    env.effects(A, pinned(), output_failure(70_000, "odd"), Ended())
    assert env.completed(A).result == failed(500, "odd")


def test_the_last_output_counts(env: Env) -> None:
    begin(env)
    env.effects(A, pinned(), output(b"first"), output(b"second"), Ended())
    assert env.completed(A).result == ok(b"second")


def test_an_output_of_an_earlier_record_is_the_result_when_the_end_comes(env: Env) -> None:
    begin(env)
    assert env.effects(A, pinned(), output(b"hi")) == []
    assert env.effects(A, Ended()) == [RespondToIngress(ASKED, Answered(A, ok(b"hi"), None))]


def test_an_output_of_an_earlier_attempt_is_the_result_when_a_later_one_ends(env: Env) -> None:
    begin(env)
    env.effects(A, pinned(), output(b"hi"), attempt_failed())
    env.fire_timers(until_ms=START_MS + 500)
    assert env.effects(A, Ended()) == [RespondToIngress(ASKED, Answered(A, ok(b"hi"), None))]


def test_effects_of_an_attempt_that_was_replaced_change_nothing(env: Env) -> None:
    begin(env)
    env.effects(A, pinned(), run(1), attempt_failed(RetryAt(Millis(START_MS + 1), counted=True)))
    env.fire_timers(until_ms=START_MS + 1)
    before = env.dump()
    late = AttemptEffects(A, Incarnation(0), 1, 2, [run_done(1)])
    assert env.apply(late) == []
    assert unchanged(env, before)


def test_effects_of_an_attempt_that_failed_change_nothing_while_the_next_one_is_due(env: Env) -> None:
    begin(env)
    env.effects(A, pinned(), attempt_failed())
    before = env.dump()
    assert env.apply(AttemptEffects(A, Incarnation(0), 1, 1, [run(1)])) == []
    assert unchanged(env, before)


def test_effects_of_an_earlier_life_change_nothing(env: Env) -> None:
    target, a = service(), invocation_id(service(), "key")
    env.apply(invoke(target, "key", completion_retention_ms=0, asked=request(1)))
    env.effects(a, pinned(), *ended())
    env.expire(until_ms=START_MS)
    env.apply(invoke(target, "key", asked=request(2)))
    assert env.live(a).attempt == 1, "both lives count their attempts from 1"
    before = env.dump()
    assert env.apply(AttemptEffects(a, Incarnation(0), 1, 1, ended(b"of the first life"))) == []
    assert unchanged(env, before)


def test_the_answer_to_a_call_of_an_earlier_life_changes_nothing(env: Env) -> None:
    begin(env)
    before = env.dump()
    sink = CallerSink(A, Incarnation(99), 2)  # type: ignore[arg-type]
    assert env.apply(respond(sink, ok())) == []
    assert unchanged(env, before)


def test_effects_of_a_suspended_attempt_change_nothing(env: Env) -> None:
    begin(env)
    env.effects(A, pinned(), sleep(1, START_MS + 100), suspended(1))
    before = env.dump()
    assert env.apply(AttemptEffects(A, Incarnation(0), 1, 2, [run(2)])) == []
    assert unchanged(env, before)


def test_a_gap_in_an_attempts_commands_is_our_bug(env: Env) -> None:
    begin(env)
    with pytest.raises(AssertionError, match="command 5 reported, 1 is next"):
        env.apply(AttemptEffects(A, Incarnation(0), 1, 5, [run(1)]))
    env.records.pop()


def test_nothing_follows_the_end_of_an_attempt(env: Env) -> None:
    begin(env)
    with pytest.raises(AssertionError, match="nothing follows"):
        env.apply(AttemptEffects(A, Incarnation(0), 1, 1, [suspended(1), run(1)]))
    env.records.pop()


def test_effects_cut_into_several_commands_count_on(env: Env) -> None:
    begin(env)
    env.apply(AttemptEffects(A, Incarnation(0), 1, 1, [pinned(), run(1), run(2)]))
    env.apply(AttemptEffects(A, Incarnation(0), 1, 3, [run_done(1)]))
    env.apply(AttemptEffects(A, Incarnation(0), 1, 3, [run_done(2), run(3)]))
    env.apply(AttemptEffects(A, Incarnation(0), 1, 4, ended()))
    row = env.completed(A)
    assert (row.commands, row.entries, row.segments) == (5, 7, 5)


def test_a_failed_attempt_is_tried_again_when_its_time_comes(env: Env) -> None:
    begin(env)
    at = Millis(START_MS + 500)
    assert env.effects(A, pinned(), attempt_failed(RetryAt(at, counted=True))) == [SetTimer(at)]
    row = env.live(A)
    assert (row.status, row.next_retry_ms, row.retry_count, row.retries_since_entry) == (Status.INVOKED, at, 1, 1)
    assert env.count(keys.ACTIVE) == 0, "a back-off holds no slot"
    assert env.fire_timers(until_ms=at) == [StartAttempt(A, Incarnation(0), 3, None)]
    assert env.count(keys.TIMER) == 0
    env.effects(A, *ended())


def test_a_delay_that_the_handler_named_is_not_counted(env: Env) -> None:
    begin(env)
    env.effects(A, pinned(), attempt_failed(RetryAt(Millis(START_MS + 9), counted=False)))
    assert (env.live(A).retry_count, env.live(A).retries_since_entry) == (0, 1)


def test_a_new_command_starts_the_count_of_failures_since_the_last_one_again(env: Env) -> None:
    begin(env)
    for _ in range(3):
        env.effects(A, attempt_failed(RetryAt(Millis(env.now_ms + 1), counted=True)))
        env.fire_timers(until_ms=env.now_ms + 1)
    assert env.live(A).retries_since_entry == 3
    env.effects(A, pinned(), run(1), attempt_failed(RetryAt(Millis(env.now_ms + 1), counted=True)))
    assert (env.live(A).retry_count, env.live(A).retries_since_entry) == (4, 1)
    env.fire_timers(until_ms=env.now_ms + 1)
    env.effects(A, run_done(1), sleep(2, env.now_ms))
    assert env.live(A).retries_since_entry == 0


def test_a_failure_that_says_nothing_of_the_handler_is_not_told_to_it(env: Env) -> None:
    begin(env)
    env.effects(A, attempt_failed(counts=False))
    assert (env.live(A).retry_count, env.live(A).retries_since_entry) == (1, 0)


def test_exhausted_retries_pause(env: Env) -> None:
    begin(env)
    assert env.effects(A, pinned(), run(1), attempt_failed(Pause())) == []
    row = env.live(A)
    assert row.status is Status.PAUSED and row.last_failure is not None
    assert (env.count(keys.ACTIVE), env.count(keys.TIMER)) == (0, 0)
    assert env.apply(AttemptEffects(A, Incarnation(0), row.attempt, 2, ended())) == []


def test_a_paused_invocation_keeps_what_arrives_and_does_not_run(env: Env) -> None:
    begin(env)
    env.effects(A, pinned(), sleep(1, START_MS + 10), attempt_failed(Pause()))
    assert env.fire_timers(until_ms=START_MS + 10) == []
    assert env.live(A).entries == 3


def test_exhausted_retries_may_kill(env: Env) -> None:
    begin(env)
    actions = env.effects(A, pinned(), attempt_failed(Kill(), code=99_999))
    assert actions == [RespondToIngress(ASKED, Answered(A, failed(500, "boom"), None))]


def test_a_killed_holder_gives_the_key_to_the_next(env: Env) -> None:
    a, b = invocation_id(thing(), 1), invocation_id(thing(), 2)
    env.apply(invoke(thing(), 1), invoke(thing(), 2))
    assert started(env.effects(a, pinned(), set_state(b"n", b"1"), attempt_failed(Kill()))) == [b]


def test_a_timer_of_a_retry_that_is_no_longer_due_does_nothing(env: Env) -> None:
    begin(env)
    env.effects(A, pinned(), attempt_failed(RetryAt(Millis(START_MS + 500), counted=True)))
    key = keys.timer(START_MS + 500, A, keys.TIMER_RETRY, 0)
    env.fire_timers(until_ms=START_MS + 500)
    before = env.dump()
    assert env.apply(TimersFired([key]), TimersFired([key, key])) == []
    assert unchanged(env, before)


# -- suspension ------------------------------------------------------------------------
def test_a_suspended_handler_is_woken_by_what_it_waits_for(env: Env) -> None:
    begin(env)
    env.effects(A, pinned(), sleep(1, START_MS + 100), sleep(2, START_MS + 200), suspended(2))
    assert env.live(A).status is Status.SUSPENDED
    assert env.count(keys.ACTIVE) == 0
    assert started(env.fire_timers(until_ms=START_MS + 100)) == []
    assert env.fire_timers(until_ms=START_MS + 200) == [StartAttempt(A, Incarnation(0), 2, None)]


def test_a_suspension_on_what_is_there_already_starts_at_once(env: Env) -> None:
    begin(env)
    env.effects(A, pinned(), sleep(1, START_MS + 100))
    env.fire_timers(until_ms=START_MS + 100)
    assert env.effects(A, suspended(1)) == [StartAttempt(A, Incarnation(0), 2, None)]


def test_a_suspension_sees_what_the_same_command_recorded(env: Env) -> None:
    begin(env)
    actions = env.effects(A, pinned(), run(1), run_done(1), suspended(1))
    assert actions[-1] == StartAttempt(A, Incarnation(0), 2, None)
    forwarded = [action for action in actions if type(action) is ForwardNotification]
    assert [action.attempt for action in forwarded] == [1], "the new attempt finds it in its replay"


def test_a_suspension_on_a_run_that_only_an_attempt_can_complete_starts_at_once(env: Env) -> None:
    begin(env)
    assert started(env.effects(A, pinned(), run(1), suspended(1))) == [A]


def test_a_suspension_counts_failures_anew(env: Env) -> None:
    begin(env)
    env.effects(A, pinned(), attempt_failed(RetryAt(Millis(START_MS + 1), counted=True)))
    env.fire_timers(until_ms=START_MS + 1)
    env.effects(A, sleep(1, START_MS + 100), suspended(1))
    assert env.live(A).retry_count == 0


def unchanged(env: Env, before: dict[bytes, bytes]) -> bool:
    """Whether only the partition's position is another one."""
    progress = keys.metadata("progress")
    return {k: v for k, v in env.dump().items() if k != progress} == {k: v for k, v in before.items() if k != progress}

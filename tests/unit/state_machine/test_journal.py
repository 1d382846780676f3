"""Runs, sleeps and signals: what is recorded, what is forwarded, what wakes (correctness 4, 5, 22)."""

from __future__ import annotations

from perdure.protocol.framing import MessageType, iter_frames
from perdure_processor.model.actions import Expired, ForwardNotification, RespondToIngress, SetTimer, Taken
from perdure_processor.model.commands import TimersFired
from perdure_processor.model.effects import Pause, Suspended
from perdure_processor.model.futures import Combinator, Future
from perdure_processor.model.ids import CompletionId, Millis
from perdure_processor.model.limits import REQUEST_HORIZON_MS, SLEEPS_LISTED_MAX
from perdure_processor.storage import keys
from perdure_processor.storage.records import Status
from support.builders import (
    INPUT,
    attempt_failed,
    ended,
    invocation_id,
    invoke,
    notification,
    pinned,
    request,
    run,
    run_done,
    service,
    set_state,
    signal,
    sleep,
    suspended,
    thing,
)
from support.env import START_MS, Env, started

A = invocation_id(service(), 1)
TAKEN = Taken(A, False, Millis(0))


def codes(env: Env) -> list[int]:
    return [code for code, _, _ in iter_frames(env.journal(A))]


# -- runs ------------------------------------------------------------------------------------
def test_a_runs_result_is_recorded_and_forwarded_to_the_attempt_that_proposed_it(env: Env) -> None:
    env.apply(invoke())
    assert env.effects(A, pinned(), run(1)) == []
    assert env.live(A).open_runs == [1]
    (done,) = env.effects(A, run_done(1, b"7"))
    assert type(done) is ForwardNotification
    assert (done.attempt, done.index, done.ack) == (1, 2, None)
    assert notification(done.frame).value.content == b"7"
    assert env.live(A).open_runs == []


def test_an_acknowledgement_takes_the_place_of_the_result_when_the_attempt_asked_for_one(env: Env) -> None:
    env.apply(invoke())
    (done,) = env.effects(A, pinned(version=7), run(1), run_done(1, ack_wanted=True))
    assert type(done) is ForwardNotification and done.ack == CompletionId(1)
    assert codes(env)[-1] == MessageType.RUN_COMPLETION_NOTIFICATION, "the journal holds the result all the same"


def test_a_recorded_result_is_in_the_next_attempts_replay(env: Env) -> None:
    env.apply(invoke())
    env.effects(A, pinned(), run(1), run_done(1), run(2), attempt_failed())
    env.fire_timers(until_ms=START_MS + 500)
    assert codes(env) == [
        MessageType.INPUT_COMMAND,
        MessageType.RUN_COMMAND,
        MessageType.RUN_COMPLETION_NOTIFICATION,
        MessageType.RUN_COMMAND,
    ]
    assert env.live(A).open_runs == [2]


def test_a_result_for_a_run_that_nobody_began_is_recorded_all_the_same(env: Env) -> None:
    env.apply(invoke())
    (done,) = env.effects(A, pinned(), run_done(9))
    assert type(done) is ForwardNotification and done.index == 1


def test_a_run_deep_in_a_future_is_found_and_its_handler_started_again(env: Env) -> None:
    env.apply(invoke())
    inner = Future([3], combinator=Combinator.ALL_COMPLETED)
    middle = Future([2], nested=[inner], combinator=Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED)
    tree = Future(signals=[1], nested=[middle])
    assert started(env.effects(A, pinned(), sleep(2, START_MS + 9), run(3), Suspended(tree))) == [A]


def test_the_journal_keeps_frames_byte_for_byte(env: Env) -> None:
    env.apply(invoke())
    effects = [run(1), run_done(1, b"x"), sleep(2, START_MS)]
    env.effects(A, pinned(), *effects)
    assert env.journal(A) == INPUT + b"".join(effect.frame for effect in effects)


# -- sleeps ------------------------------------------------------------------------------------
def test_a_sleep_ends_when_its_timer_fires(env: Env) -> None:
    env.apply(invoke())
    assert env.effects(A, pinned(), sleep(1, START_MS + 100)) == [SetTimer(Millis(START_MS + 100))]
    (over,) = env.fire_timers(until_ms=START_MS + 100)
    assert type(over) is ForwardNotification and notification(over.frame).HasField("void")
    assert env.live(A).open_sleeps == []
    assert env.count(keys.TIMER) == 0


def test_a_sleep_into_the_past_is_over_at_once(env: Env) -> None:
    env.apply(invoke())
    env.effects(A, pinned(), sleep(1, 0))
    assert len(env.fire_timers()) == 1


def test_a_timer_that_fires_twice_is_heard_once(env: Env) -> None:
    env.apply(invoke())
    env.effects(A, pinned(), sleep(1, START_MS + 100), sleep(2, START_MS + 100))
    fired = [keys.timer(START_MS + 100, A, keys.TIMER_SLEEP, 1)] * 2
    assert len(env.apply(TimersFired(fired))) == 1
    assert env.apply(TimersFired(fired)) == []
    assert env.live(A).open_sleeps == [(2, START_MS + 100)]


def test_the_row_decides_whether_a_timer_counts_and_not_the_clock(env: Env) -> None:
    env.apply(invoke())
    env.effects(A, pinned(), sleep(1, START_MS + 1_000_000))
    key = keys.timer(START_MS + 1_000_000, A, keys.TIMER_SLEEP, 1)
    assert len(env.apply(TimersFired([key]))) == 1, (
        "applied long before its deadline: the leader is who looks at clocks"
    )


def test_the_timers_of_an_ended_invocation_go_with_it(env: Env) -> None:
    env.apply(invoke())
    env.effects(A, pinned(), sleep(1, START_MS + 100), sleep(2, START_MS + 200), *ended())
    assert env.count(keys.TIMER) == 0


def test_timers_beyond_the_listed_ones_stay_until_they_are_due_and_do_nothing(env: Env) -> None:
    env.apply(invoke())
    env.effects(A, pinned(), *(sleep(n, START_MS + n) for n in range(1, SLEEPS_LISTED_MAX + 3)))
    assert len(env.fire_timers(until_ms=START_MS + 1)) == 1
    assert len(env.live(A).open_sleeps) == SLEEPS_LISTED_MAX - 1
    env.effects(A, *ended())
    assert env.count(keys.TIMER) == 2
    assert env.fire_timers(until_ms=START_MS + DAY) == []
    assert env.count(keys.TIMER) == 0


DAY = 24 * 3_600_000


def test_an_unlisted_sleep_ends_like_any_other(env: Env) -> None:
    env.apply(invoke())
    last = SLEEPS_LISTED_MAX + 1
    env.effects(A, pinned(), *(sleep(n, START_MS + n) for n in range(1, last + 1)))
    over = 0
    while env.count(keys.TIMER):
        fired = env.fire_timers(until_ms=START_MS + last)
        over += sum(type(action) is ForwardNotification for action in fired)
    assert over == last


# -- futures ------------------------------------------------------------------------------------
def test_a_handler_that_waits_for_all_is_woken_by_the_last(env: Env) -> None:
    env.apply(invoke())
    tree = Future(signals=[1], nested=[Future([1, 2], combinator=Combinator.ALL_SUCCEEDED_OR_FIRST_FAILED)])
    env.effects(A, pinned(version=7), sleep(1, START_MS + 10), sleep(2, START_MS + 20), Suspended(tree))
    assert started(env.fire_timers(until_ms=START_MS + 10)) == []
    awaiting = env.live(A).awaiting
    assert awaiting is not None and awaiting.nested[0].completions == [2], "the reduced tree is stored"
    assert started(env.fire_timers(until_ms=START_MS + 20)) == [A]


def test_what_arrived_before_the_suspension_counts_in_the_tree(env: Env) -> None:
    env.apply(invoke())
    env.effects(A, pinned(version=7), sleep(1, START_MS + 10), sleep(2, START_MS + 20))
    env.fire_timers(until_ms=START_MS + 10)
    tree = Future(signals=[1], nested=[Future([1, 2], combinator=Combinator.ALL_COMPLETED)])
    assert started(env.effects(A, Suspended(tree))) == []
    assert started(env.fire_timers(until_ms=START_MS + 20)) == [A]


# -- signals ------------------------------------------------------------------------------------
def test_an_awakeable_is_completed_once(env: Env) -> None:
    env.apply(invoke())
    env.effects(A, pinned(), suspended(signals=(17,)))
    assert started(env.apply(signal(A, 17, b"first", request(1)))) == [A]
    assert env.apply(signal(A, 17, b"second", request(2))) == [RespondToIngress(request(2), TAKEN)]
    assert b"second" not in env.journal(A)


def test_signals_of_one_name_are_all_delivered_in_order(env: Env) -> None:
    env.apply(invoke())
    forwarded = env.apply(signal(A, "go", b"1"), signal(A, "go", b"2"))
    assert [notification(a.frame).value.content for a in forwarded if type(a) is ForwardNotification] == [b"1", b"2"]


def test_a_clients_signal_applied_twice_is_heard_once(env: Env) -> None:
    env.apply(invoke())
    once = signal(A, "go", b"1", request(1))
    assert env.apply(once)[0] == RespondToIngress(request(1), TAKEN)
    assert env.apply(once) == [RespondToIngress(request(1), TAKEN)]
    assert codes(env).count(MessageType.SIGNAL_NOTIFICATION) == 1
    cancel = signal(A, 1, b"", request(2))
    env.apply(cancel, cancel)
    assert codes(env).count(MessageType.SIGNAL_NOTIFICATION) == 2


def test_a_clients_signal_that_is_too_old_is_refused(env: Env) -> None:
    env.now_ms = START_MS + REQUEST_HORIZON_MS + 1
    assert env.apply(signal(A, 17, b"", request(1))) == [RespondToIngress(request(1), Expired())]


def test_requests_of_signals_are_forgotten_when_they_cannot_be_repeated(env: Env) -> None:
    env.apply(invoke())
    for number in range(50):
        env.now_ms += REQUEST_HORIZON_MS
        env.apply(signal(A, "go", b"", request(number), issued_ms=env.now_ms))
    assert len(env.live(A).requests) <= 4


def test_signals_for_what_has_not_begun_or_has_ended_are_taken_and_dropped(env: Env) -> None:
    holder, waiting = invocation_id(thing(), 1), invocation_id(thing(), 2)
    env.apply(invoke(thing(), 1), invoke(thing(), 2))
    for target in (A, waiting):
        env.apply(signal(target, 17, b"lost", request(1)))
    env.effects(holder, pinned(), set_state(b"n", b""), *ended())
    env.apply(signal(holder, 17, b"lost", request(2)))
    assert all(b"lost" not in value for value in env.dump().values())


def test_a_paused_invocation_is_not_woken_by_a_notification(env: Env) -> None:
    env.apply(invoke())
    env.effects(A, pinned(), attempt_failed(Pause()))
    assert env.apply(signal(A, 17, b"kept")) == []
    assert env.live(A).status is Status.PAUSED
    assert b"kept" in env.journal(A)

"""Operators' verbs where a page of commands does not show enough: what is left, who is told, what is bounded."""

from __future__ import annotations

from perdure.protocol import messages
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType, iter_frames
from perdure_processor.model.actions import (
    AbortAttempt,
    Acted,
    Answered,
    Crowded,
    Deed,
    Expired,
    Missing,
    RespondToIngress,
    ShipOutboxMessage,
    StartAttempt,
)
from perdure_processor.model.commands import AttemptEffects, KillCall, Operate, RestartAsNew, TimersFired, Verb
from perdure_processor.model.effects import AttemptFailed, FailureInfo, Pause, RetryAt
from perdure_processor.model.ids import CompletionId, Incarnation, InvocationId, Millis
from perdure_processor.model.limits import (
    EVENTS_MAX,
    KILLS_PER_RECORD_MAX,
    REQUEST_HORIZON_MS,
    REQUESTS_KNOWN_MAX,
    ROWS_MAX,
)
from perdure_processor.model.results import CallerSink
from perdure_processor.storage import keys
from perdure_processor.storage.records import EventKind, JournalEvent, Proof, Status
from perdure_processor.storage.tables import read_events
from support.builders import (
    DAY_MS,
    ELSEWHERE,
    HERE,
    attempt_failed,
    call,
    ended,
    flow,
    invocation_id,
    invoke,
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
from support.env import START_MS, Env, shipped, started

A = invocation_id(service(), 1)
K = invocation_id(service(), "key")
W = invocation_id(flow())


def operate(id: InvocationId, verb: Verb, number: int = 100, issued_ms: int = START_MS) -> Operate:
    return Operate(id, verb, request(number), Millis(issued_ms))


def events(env: Env, id: InvocationId) -> list[JournalEvent]:
    row = env.row(id)
    assert row is not None and not isinstance(row, Proof)
    return read_events(env.store, id, row)


# -- once, however often ---------------------------------------------------------------------------
def test_a_doubled_cancel_does_not_abort_the_compensation(env: Env) -> None:
    env.apply(invoke())
    cancel = operate(A, Verb.CANCEL)
    env.apply(cancel, cancel)
    told = [payload for code, _, payload in iter_frames(env.journal(A)) if code == MessageType.SIGNAL_NOTIFICATION]
    assert [pb.Notification.FromString(each).signal_id for each in told] == [messages.SIGNAL_CANCEL]


def test_what_was_refused_once_is_not_done_by_the_same_request_later(env: Env) -> None:
    env.apply(invoke(service(), "key"))
    refused = RespondToIngress(request(100), Acted(Deed.NOT_COMPLETED))
    assert env.apply(operate(K, Verb.PURGE)) == [refused]
    env.effects(K, pinned(), *ended())
    assert env.apply(operate(K, Verb.PURGE)) == [refused]
    assert env.completed(K).result


def test_a_request_that_comes_too_late_is_not_done(env: Env) -> None:
    env.apply(invoke())
    env.now_ms += REQUEST_HORIZON_MS + 1
    assert env.apply(operate(A, Verb.KILL)) == [RespondToIngress(request(100), Expired())]
    assert env.live(A)


def test_a_call_that_was_answered_before_the_purge_does_not_run_after_it(env: Env) -> None:
    env.apply(invoke(flow(), asked=request(1)))
    env.effects(W, pinned(), *ended())
    second = invoke(flow(), asked=request(2))
    (refused,) = env.apply(second)
    env.now_ms += 5
    env.apply(operate(W, Verb.PURGE))
    assert env.apply(second) == [refused]
    assert started(env.apply(invoke(flow(), asked=request(3), issued_ms=env.now_ms))) == [W]


def test_a_send_that_joined_before_the_cancel_does_not_run_after_it(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=request(1), one_way=True, delay_ms=1_000))
    again = invoke(service(), "key", asked=request(2), one_way=True)
    env.apply(again)
    env.now_ms += 5
    env.apply(operate(K, Verb.CANCEL))
    assert started(env.apply(again)) == []
    assert started(env.apply(invoke(service(), "key", asked=request(3), issued_ms=env.now_ms))) == [K]


def test_an_invocation_that_knows_too_many_requests_can_still_be_killed() -> None:
    env = Env()  # not the fixture's, which applies all of it again and again
    env.apply(invoke())
    env.apply_batch(*(operate(A, Verb.CANCEL, 1_000 + number) for number in range(REQUESTS_KNOWN_MAX)))
    assert env.apply(operate(A, Verb.CANCEL)) == [RespondToIngress(request(100), Crowded())]
    assert RespondToIngress(request(101), Acted(Deed.DONE)) in env.apply(operate(A, Verb.KILL, 101))


# -- nothing is left -------------------------------------------------------------------------------
def test_a_purge_leaves_only_proof_and_that_for_a_while(env: Env) -> None:
    env.apply(invoke(flow(), asked=request(1)))
    env.effects(W, pinned(), set_state(b"n", b"1"), attempt_failed())
    env.fire_timers(until_ms=START_MS + 500)
    env.effects(W, *ended())
    env.apply(operate(W, Verb.PURGE))
    assert env.leftovers() == {keys.INVOCATION: 1, keys.EXPIRY: 1}
    env.expire_everything()
    assert env.leftovers() == {}


def test_a_canceled_one_in_the_queue_leaves_the_queue(env: Env) -> None:
    first, second, third = (invocation_id(thing(), number) for number in (1, 2, 3))
    for number in (1, 2, 3):
        env.apply(invoke(thing(), number, one_way=True))
    env.apply(operate(second, Verb.CANCEL))
    assert env.count(keys.INBOX) == 1
    assert started(env.effects(first, pinned(), *ended())) == [third]
    env.effects(third, pinned(), *ended())
    env.expire_everything()
    assert env.leftovers() == {}


def test_a_killed_one_leaves_no_timer(env: Env) -> None:
    env.apply(invoke())
    env.effects(A, pinned(), sleep(1, START_MS + 1_000), attempt_failed(RetryAt(Millis(START_MS + 500), counted=True)))
    assert env.count(keys.TIMER) == 2
    env.apply(operate(A, Verb.KILL))
    assert env.count(keys.TIMER) == 0


def test_what_is_killed_in_the_batch_that_began_it_is_not_started(env: Env) -> None:
    """The leader acts after the batch: it would look for a journal that is gone, and stop the partition."""
    env.apply(invoke(journal_retention_ms=0))
    env.effects(A, pinned(), sleep(1, START_MS + 100), suspended(1))
    env.now_ms += 100
    wake_up = TimersFired([key for key, _ in env.store.scan(keys.TIMER, keys.end_of(keys.TIMER))])
    actions = env.apply_batch(wake_up, operate(A, Verb.KILL))
    (start,) = [action for action in actions if type(action) is StartAttempt]
    assert start.row is not None
    assert start.row.attempt != start.attempt, "the row it brings names it no more, so the leader drops it"
    assert env.count(keys.JOURNAL) == 0


# -- bounded ---------------------------------------------------------------------------------------
def test_a_large_journal_prevents_neither_kill_nor_purge(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=request(1), journal_retention_ms=DAY_MS))
    env.effects(K, pinned())
    steps = range(1, ROWS_MAX + 100)
    env.apply_batch(*(AttemptEffects(K, Incarnation(0), 1, n, [run(n), run_done(n)]) for n in steps))
    assert RespondToIngress(request(100), Acted(Deed.DONE)) in env.apply(operate(K, Verb.KILL))
    asked = 0
    deed = Deed.UNFINISHED
    while deed is Deed.UNFINISHED:
        before = env.count(keys.JOURNAL)
        (said,) = env.apply(operate(K, Verb.PURGE, 200 + asked))
        asked += 1
        assert isinstance(said, RespondToIngress) and isinstance(said.answer, Acted)
        deed = said.answer.deed
        assert before - env.count(keys.JOURNAL) <= ROWS_MAX
    assert deed is Deed.DONE and asked > 1
    assert env.count(keys.JOURNAL) == 0


def test_many_open_calls_are_killed_a_few_with_each_record(env: Env) -> None:
    callees = KILLS_PER_RECORD_MAX + 10
    env.apply(invoke(asked=request(1)))
    env.effects(A, pinned())
    for number in range(callees):
        env.effects(A, call(A, service(), 1 + 2 * number, command_index=1 + number))
    first = env.apply(operate(A, Verb.KILL))
    assert sum(type(action) is AbortAttempt for action in first) == 1 + KILLS_PER_RECORD_MAX
    # Until the others are told, the row that lists them stays.
    assert env.apply(operate(A, Verb.PURGE, 101)) == [RespondToIngress(request(101), Acted(Deed.UNFINISHED))]
    assert sum(type(action) is AbortAttempt for action in env.fire_timers()) == 10
    assert env.apply(operate(A, Verb.PURGE, 102)) == [RespondToIngress(request(102), Acted(Deed.DONE))]
    env.expire_everything()
    assert env.leftovers() == {}


def test_restart_copies_no_more_than_its_bound(env: Env) -> None:
    env.apply(invoke(service(), "key", asked=request(1)))
    env.effects(K, pinned())
    for first in range(1, 10_100, 100):
        env.effects(K, *(effect for number in range(first, first + 100) for effect in (run(number), run_done(number))))
    env.effects(K, *ended())
    new_id = InvocationId(K[:8] + bytes(16))
    restart = RestartAsNew(K, new_id, 20_101, True, None, request(100), Millis(START_MS))
    (said,) = env.apply(restart)
    assert isinstance(said, RespondToIngress) and isinstance(said.answer, Acted)
    assert said.answer.deed is Deed.TOO_LARGE
    assert env.row(new_id) is None


# -- over partitions and lives ---------------------------------------------------------------------
def test_a_kill_travels_to_the_callee_of_another_partition() -> None:
    env = Env(0, 2)
    parent = invocation_id(thing(HERE))
    env.apply(invoke(thing(HERE)))
    env.effects(parent, pinned(), call(parent, thing(ELSEWHERE), 1), suspended(2))
    (message,) = shipped(env.apply(operate(parent, Verb.KILL)))
    assert isinstance(message, ShipOutboxMessage)
    assert isinstance(message.command, KillCall)
    assert message.command.caller == CallerSink(parent, Incarnation(0), CompletionId(2))


def test_only_the_callee_of_that_very_call_is_killed(env: Env) -> None:
    caller = CallerSink(K, Incarnation(7), CompletionId(2))
    env.apply(invoke(caller=caller))
    for other in (
        CallerSink(K, Incarnation(8), CompletionId(2)),
        CallerSink(K, Incarnation(7), CompletionId(4)),
        CallerSink(W, Incarnation(7), CompletionId(2)),
    ):
        assert env.apply(KillCall(A, other)) == []
    assert env.apply(KillCall(A, caller))[0] == AbortAttempt(A, 1)


def test_a_handler_cancels_what_has_not_begun(env: Env) -> None:
    env.apply(invoke(service(), 1, asked=request(1)), invoke(service(), "key", asked=request(2), delay_ms=1_000))
    told = env.apply(signal(K, messages.SIGNAL_CANCEL))
    assert [type(action.answer) for action in told if type(action) is RespondToIngress] == [Answered]
    assert type(env.row(K)) is Proof


def test_nobody_by_that_id(env: Env) -> None:
    assert env.apply(operate(A, Verb.CANCEL)) == [RespondToIngress(request(100), Missing())]
    assert env.leftovers() == {}


def test_a_restarted_one_is_another_life_with_the_same_steps(env: Env) -> None:
    env.apply(invoke(thing(), "key", asked=request(1)))
    old = invocation_id(thing(), "key")
    env.effects(old, pinned(), run(1), run_done(1, b"one"), *ended(b"first"))
    new_id = InvocationId(old[:8] + bytes(16))
    env.apply(RestartAsNew(old, new_id, 2, True, None, request(100), Millis(START_MS)))
    new = env.live(new_id)
    assert (new.restarted_from, new.idempotency_key, new.requests, new.sinks) == (old, None, [], [])
    assert (new.entries, new.commands, new.deployment_id) == (3, 2, "dp_1")
    assert new.incarnation != env.completed(old).incarnation
    assert env.journal(old).startswith(env.journal(new_id))


# -- journal events --------------------------------------------------------------------------------
def test_events_tell_why_it_stopped(env: Env) -> None:
    env.apply(invoke())
    env.effects(A, pinned(), sleep(1, START_MS + 1_000), suspended(1))
    env.fire_timers(until_ms=START_MS + 1_000)
    env.effects(A, attempt_failed(Pause()))
    kept = events(env, A)
    assert [(each.kind, each.number, each.after_entry) for each in kept] == [
        (EventKind.SUSPENDED, 0, 1),
        (EventKind.TRANSIENT_ERROR, 1, 2),
        (EventKind.PAUSED, 2, 2),
    ]
    assert kept[0].awaiting is not None and kept[0].awaiting.completions == [1]
    assert kept[1].failure is not None and kept[1].failure.message == "boom"
    assert env.live(A).status is Status.PAUSED


def test_the_same_failure_again_is_no_news_and_old_events_give_way(env: Env) -> None:
    env.apply(invoke())
    env.effects(A, pinned())
    for number in range(EVENTS_MAX + 10):
        for _ in range(2):
            failure = FailureInfo(500, f"boom {number}", "RT0007")
            env.effects(A, AttemptFailed(failure, RetryAt(Millis(env.now_ms + 1), counted=True), True))
            env.fire_timers(until_ms=env.now_ms + 1)
    kept = events(env, A)
    assert [each.number for each in kept] == list(range(10, EVENTS_MAX + 10))
    assert env.count(keys.EVENT) == EVENTS_MAX
    env.apply(operate(A, Verb.KILL))
    env.expire_everything()
    assert env.leftovers() == {}

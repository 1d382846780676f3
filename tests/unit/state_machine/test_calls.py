"""Calls and sends: within a partition, between two, and their answers (correctness 2, 6, 7)."""

from __future__ import annotations

from perdure.protocol import ids
from perdure_processor.model.actions import ForwardNotification, SetTimer, StartAttempt
from perdure_processor.model.commands import (
    ByLeader,
    ByOutbox,
    Envelope,
    Invoke,
    Respond,
    TruncateOutbox,
)
from perdure_processor.model.effects import Ended
from perdure_processor.model.ids import (
    CompletionId,
    Incarnation,
    InvocationId,
    LeaderEpoch,
    Millis,
    PartitionId,
    slot_of,
)
from perdure_processor.model.results import CallerSink
from perdure_processor.storage import keys
from perdure_processor.storage.records import Status
from support.builders import (
    ELSEWHERE,
    HERE,
    attach,
    call,
    ended,
    failed,
    flow,
    invocation_id,
    invoke,
    notification,
    ok,
    output,
    output_failure,
    pinned,
    request,
    respond,
    run,
    send,
    service,
    suspended,
    thing,
)
from support.env import START_MS, Env, shipped, started

A = invocation_id(service(), 1)


def forwarded(actions: list[object]) -> list[ForwardNotification]:
    return [action for action in actions if type(action) is ForwardNotification]


# -- within a partition ------------------------------------------------------------------
def test_a_call_starts_its_callee_and_tells_the_caller_its_id(env: Env) -> None:
    env.apply(invoke())
    called = call(A, thing(), 1)
    told, start = env.effects(A, pinned(), called)
    assert type(told) is ForwardNotification
    assert told.index == 2 and notification(told.frame).invocation_id == ids.encode_invocation_id(called.id)
    assert type(start) is StartAttempt and start.id == called.id
    assert env.live(called.id).sinks == [CallerSink(A, Incarnation(0), CompletionId(2))]


def test_the_callees_result_comes_home(env: Env) -> None:
    env.apply(invoke())
    called = call(A, thing(), 1)
    env.effects(A, pinned(), called)
    (home,) = env.effects(called.id, pinned(), *ended(b"7"))
    assert type(home) is ForwardNotification and (home.id, home.index) == (A, 3)
    said = notification(home.frame)
    assert (said.completion_id, said.value.content) == (2, b"7")


def test_the_callees_failure_comes_home_with_its_code(env: Env) -> None:
    env.apply(invoke())
    called = call(A, service("other"), 1)
    env.effects(A, pinned(), called)
    (home,) = env.effects(called.id, pinned(), output_failure(404, "none"), Ended())
    assert type(home) is ForwardNotification
    failure = notification(home.frame).failure
    assert (failure.code, failure.message) == (404, "none")


def test_a_suspended_caller_is_woken_by_the_result(env: Env) -> None:
    env.apply(invoke())
    called = call(A, thing(), 1)
    env.effects(A, pinned(), called, suspended(2))
    assert env.live(A).status is Status.SUSPENDED
    assert started(env.effects(called.id, pinned(), *ended())) == [A]


def test_a_call_to_a_busy_key_waits(env: Env) -> None:
    env.apply(invoke(thing(), 9), invoke())
    called = call(A, thing(), 1)
    assert started(env.effects(A, pinned(), called)) == []
    assert started(env.effects(invocation_id(thing(), 9), pinned(), *ended())) == [called.id]


def test_a_call_to_ones_own_key_waits_for_ever_and_blocks_nothing_else(env: Env) -> None:
    a = invocation_id(thing(), 1)
    env.apply(invoke(thing(), 1))
    called = call(a, thing(handler="again"), 1)
    assert started(env.effects(a, pinned(), called, suspended(2))) == []
    assert env.live(called.id).status is Status.INBOXED
    assert env.live(a).status is Status.SUSPENDED
    assert started(env.apply(invoke(thing("bob"), 2))) == [invocation_id(thing("bob"), 2)]


def test_a_send_to_ones_own_key_runs_afterwards(env: Env) -> None:
    a = invocation_id(thing(), 1)
    env.apply(invoke(thing(), 1))
    sent = send(a, thing(handler="again"), 1)
    assert started(env.effects(a, pinned(), sent, *ended())) == [sent.id]


def test_a_call_with_the_callers_own_idempotency_key_leaves_nothing_behind(env: Env) -> None:
    a = invocation_id(service(), "key")
    env.apply(invoke(service(), "key"))
    called = call(a, service(), 1, idempotency_key="key")
    assert called.id == a
    env.effects(a, pinned(), called)
    env.effects(a, *ended())
    env.expire_everything()
    assert env.leftovers() == {}


def test_a_send_is_not_answered(env: Env) -> None:
    env.apply(invoke())
    sent = send(A, service("other"), 1)
    env.effects(A, pinned(), sent)
    assert env.live(sent.id).sinks == []
    assert env.effects(sent.id, pinned(), *ended()) == []


def test_a_delayed_send_is_told_its_id_now_and_starts_later(env: Env) -> None:
    env.apply(invoke())
    sent = send(A, service("other"), 1, at_ms=START_MS + 100)
    actions = env.effects(A, pinned(), sent)
    assert [type(action) for action in actions] == [ForwardNotification, SetTimer]
    assert env.live(sent.id).status is Status.SCHEDULED
    assert started(env.fire_timers(until_ms=START_MS + 100)) == [sent.id]


def test_sends_with_one_idempotency_key_are_one_invocation(env: Env) -> None:
    env.apply(invoke())
    first = send(A, service("other"), 1, idempotency_key="k", command_index=1)
    second = send(A, service("other"), 2, idempotency_key="k", command_index=2)
    assert first.id == second.id
    assert started(env.effects(A, pinned(), first, second)) == [first.id]
    assert env.live(A).commands == 3


def test_calls_with_one_idempotency_key_share_the_result(env: Env) -> None:
    env.apply(invoke())
    first = call(A, service("other"), 1, idempotency_key="k", command_index=1)
    second = call(A, service("other"), 3, idempotency_key="k", command_index=2)
    env.effects(A, pinned(), first, second)
    home = forwarded(env.effects(first.id, pinned(), *ended(b"one")))
    assert [notification(each.frame).completion_id for each in home] == [2, 4]
    third = call(A, service("other"), 5, idempotency_key="k", command_index=3)
    later = forwarded(env.effects(A, third))
    assert notification(later[-1].frame).value.content == b"one"


def test_a_workflow_called_twice_is_refused_to_the_second_caller(env: Env) -> None:
    env.apply(invoke())
    first = call(A, flow(), 1, command_index=1)
    second = call(A, flow(), 3, command_index=2)
    actions = env.effects(A, pinned(), first, second)
    assert started(actions) == [first.id]
    failure = notification(forwarded(actions)[-1].frame)
    assert (failure.completion_id, failure.failure.code) == (4, 409)
    assert failure.failure.message == "the workflow method was already invoked"


def test_two_calls_of_one_handler_have_two_callees(env: Env) -> None:
    first, second = call(A, service("other"), 1, command_index=1), call(A, service("other"), 3, command_index=2)
    assert first.id != second.id
    again = call(A, service("other"), 1, command_index=1)
    assert first.id == again.id, "a command reported again names the same callee"
    later_life = call(A, service("other"), 1, command_index=1, incarnation=5)
    assert first.id != later_life.id


def test_a_result_for_a_caller_that_has_ended_is_dropped(env: Env) -> None:
    env.apply(invoke())
    called = call(A, service("other"), 1)
    env.effects(A, pinned(), called, *ended())
    assert env.effects(called.id, pinned(), *ended()) == []


# -- between partitions --------------------------------------------------------------------
def caller_in(env: Env, key: str) -> InvocationId:
    a = invocation_id(thing(key), 1)
    env.apply(invoke(thing(key), 1))
    return a


def test_a_call_elsewhere_goes_through_the_outbox(one_of_two: Env) -> None:
    env = one_of_two
    a = caller_in(env, HERE)
    called = call(a, thing(ELSEWHERE), 1)
    (message,) = shipped(env.effects(a, pinned(), called))
    assert (message.target, message.sequence) == (1, 1)
    assert type(message.command) is Invoke and message.command.id == called.id
    assert message.command.caller == CallerSink(a, Incarnation(0), CompletionId(2))
    assert env.row(called.id) is None
    assert env.count(keys.OUTBOX) == 1


def test_the_answer_from_elsewhere_comes_home(one_of_two: Env) -> None:
    env = one_of_two
    a = caller_in(env, HERE)
    called = call(a, thing(ELSEWHERE), 1)
    env.effects(a, pinned(), called, suspended(2))
    answer = respond(CallerSink(a, Incarnation(0), CompletionId(2)), ok(b"7"))
    assert started(env.apply(from_elsewhere(1, answer, a))) == [a]
    assert b"7" in env.journal(a)


def from_elsewhere(sequence: int, command: Invoke | Respond, id: InvocationId) -> Envelope:
    return Envelope(slot_of(id), ByOutbox(PartitionId(1), sequence), command)


def test_messages_of_one_source_are_taken_once_and_in_order(one_of_two: Env) -> None:
    env = one_of_two
    first, second, third = (invocation_id(thing(HERE), number) for number in (1, 2, 3))
    messages = [
        from_elsewhere(n, invoke(thing(HERE), n, one_way=True, from_handler=True), id)
        for n, id in ((1, first), (2, second), (3, third))
    ]
    assert started(env.apply(messages[0])) == [first]
    assert env.apply(messages[2]) == [], "the second is missing: its turn comes when it was shipped again"
    assert env.row(third) is None
    env.apply(messages[1], messages[1], messages[0], messages[2])
    assert env.live(third).inbox_sequence == 1


def test_sequences_are_counted_for_each_target() -> None:
    env = Env(0, 4)
    key_of = {invocation_id(thing(f"k{n}"), 1)[0] >> 6: f"k{n}" for n in range(200)}
    a = caller_in(env, key_of[0])
    sends = [
        send(a, thing(key_of[target]), 1 + index, command_index=1 + index)
        for index, target in enumerate((1, 2, 1, 3, 2, 1))
    ]
    messages = [(m.target, m.sequence) for m in shipped(env.effects(a, pinned(), *sends))]
    assert messages == [(1, 1), (2, 1), (1, 2), (3, 1), (2, 2), (1, 3)]
    env.check_replay()


def test_what_the_target_holds_is_truncated_and_the_rest_stays(one_of_two: Env) -> None:
    env = one_of_two
    a = caller_in(env, HERE)
    sends = [send(a, thing(ELSEWHERE), n, command_index=n) for n in (1, 2, 3)]
    env.effects(a, pinned(), *sends)
    env.apply(TruncateOutbox(PartitionId(1), 2))
    assert [keys.parse_outbox(key) for key in env.dump() if key[:2] == keys.OUTBOX] == [(1, 3)]
    more = shipped(env.effects(a, send(a, thing(ELSEWHERE), 4, command_index=4)))
    assert more[0].sequence == 4, "a number is never given twice"


def test_a_command_for_a_foreign_slot_is_forwarded(one_of_two: Env) -> None:
    env = one_of_two
    foreign = invocation_id(thing(ELSEWHERE), 1)
    command = invoke(thing(ELSEWHERE), 1)
    (message,) = env.apply(Envelope(slot_of(foreign), None, command))
    assert shipped([message])[0].command == command
    asked = attach(foreign, request(9))
    (second,) = env.apply(Envelope(slot_of(foreign), None, asked))
    assert shipped([second])[0].sequence == 2
    assert env.row(foreign) is None


def test_an_answer_is_sent_home_by_the_callees_partition(one_of_two: Env) -> None:
    env = one_of_two
    b = invocation_id(thing(HERE), 5)
    caller = CallerSink(invocation_id(thing(ELSEWHERE), 1), Incarnation(44), CompletionId(2))
    env.apply(from_elsewhere(1, invoke(thing(HERE), 5, caller=caller), b))
    (message,) = shipped(env.effects(b, pinned(), *ended(b"7")))
    assert message.command == Respond(caller, ok(b"7"))


def test_a_refused_workflow_is_told_to_a_caller_elsewhere(one_of_two: Env) -> None:
    env = one_of_two
    run_id = invocation_id(flow(HERE))
    env.apply(invoke(flow(HERE)))
    caller = CallerSink(invocation_id(thing(ELSEWHERE), 1), Incarnation(44), CompletionId(2))
    (message,) = shipped(env.apply(from_elsewhere(1, invoke(flow(HERE), caller=caller), run_id)))
    assert message.command == Respond(caller, failed(409, "the workflow method was already invoked"))


def test_a_proposals_dedup_is_spent_even_when_its_command_is_dropped(one_of_two: Env) -> None:
    env = one_of_two
    stray = respond(CallerSink(invocation_id(thing(HERE), 9), Incarnation(1), CompletionId(1)), ok())
    env.apply(from_elsewhere(1, stray, invocation_id(thing(HERE), 9)))
    b = invocation_id(thing(HERE), 5)
    assert started(env.apply(from_elsewhere(2, invoke(thing(HERE), 5, one_way=True, from_handler=True), b))) == [b]


def test_a_leaders_proposals_do_not_count_as_messages(one_of_two: Env) -> None:
    env = one_of_two
    b = invocation_id(thing(HERE), 5)
    dropped = Envelope(None, ByLeader(LeaderEpoch(1), 1), invoke(thing(HERE), 5, one_way=True, from_handler=True))
    assert env.apply(dropped) == [], "nobody leads yet"
    assert env.row(b) is None


def test_the_parent_is_remembered(env: Env) -> None:
    env.apply(invoke())
    sent = send(A, service("other"), 1)
    env.effects(A, pinned(), run(9), output(), sent)
    parent = env.live(sent.id).parent
    assert parent is not None and (parent.id, parent.service, parent.target) == (A, "Greeter", "Greeter/greet")
    assert env.live(sent.id).created_ms == Millis(START_MS)

"""Durable promises: completed once, from either side, before, in and after the run."""

from __future__ import annotations

import pytest

from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType
from perdure_processor.model.actions import Acted, Action, Deed, Expired, ForwardNotification, RespondToIngress
from perdure_processor.model.commands import DropPromises, TimersFired
from perdure_processor.model.effects import Ended, PromiseUsed
from perdure_processor.model.ids import CompletionId, InvocationId, Millis
from perdure_processor.model.limits import (
    ANSWERS_PER_RECORD_MAX,
    REPLY_KEEP_MS,
    REQUEST_HORIZON_MS,
)
from perdure_processor.model.results import Failed, RequestId, Succeeded
from perdure_processor.state_machine import promises
from perdure_processor.storage import keys
from perdure_processor.storage.records import PromiseRow, Status
from perdure_processor.storage.tables import read_promise_row
from support.builders import (
    DAY_MS,
    ended,
    flow,
    frame,
    invocation_id,
    invoke,
    notification,
    output,
    pinned,
    request,
    set_state,
    suspended,
)
from support.env import START_MS, Env, started, without_timers

RUN = invocation_id(flow())
SUFFIX = keys.object_suffix(RUN, "Flow", "w1")


def get(completion_id: int, name: str = "p") -> PromiseUsed:
    message = pb.GetPromiseCommandMessage(key=name, result_completion_id=completion_id)
    return PromiseUsed(frame(MessageType.GET_PROMISE_COMMAND, message), CompletionId(completion_id))


def peek(completion_id: int, name: str = "p") -> PromiseUsed:
    message = pb.PeekPromiseCommandMessage(key=name, result_completion_id=completion_id)
    return PromiseUsed(frame(MessageType.PEEK_PROMISE_COMMAND, message), CompletionId(completion_id))


def resolve(completion_id: int, value: bytes = b"v", name: str = "p") -> PromiseUsed:
    message = pb.CompletePromiseCommandMessage(
        key=name, result_completion_id=completion_id, completion_value=pb.Value(content=value)
    )
    return PromiseUsed(frame(MessageType.COMPLETE_PROMISE_COMMAND, message), CompletionId(completion_id))


def reject(completion_id: int, code: int = 500, name: str = "p") -> PromiseUsed:
    failure = pb.Failure(code=code, message="no", metadata=[pb.FailureMetadata(key="k", value="m")])
    message = pb.CompletePromiseCommandMessage(key=name, result_completion_id=completion_id, completion_failure=failure)
    return PromiseUsed(frame(MessageType.COMPLETE_PROMISE_COMMAND, message), CompletionId(completion_id))


def shared(env: Env, number: int = 2, key: str = "w1") -> InvocationId:
    """A running shared handler of the workflow."""
    target = flow(key, "signal")
    env.apply(invoke(target, number, journal_retention_ms=0))
    return invocation_id(target, number)


def told(actions: list[Action]) -> list[tuple[InvocationId, str, int, object]]:
    """Which handlers were told what: (id, message, completion id, value or failure)."""
    found = []
    for action in actions:
        if type(action) is not ForwardNotification:
            continue
        said = notification(action.frame)
        kind = MessageType(int.from_bytes(action.frame[:2], "big")).name.removesuffix("_COMPLETION_NOTIFICATION")
        answer: object = None
        if said.HasField("value"):
            answer = said.value.content
        elif said.HasField("failure"):
            answer = (said.failure.code, said.failure.message)
        found.append((action.id, kind, said.completion_id, answer))
    return found


def promise(env: Env, name: str = "p") -> PromiseRow | None:
    data = env.store.get(keys.promise(SUFFIX, name))
    return None if data is None else read_promise_row(data)


# -- both sides ---------------------------------------------------------------------------------------------
def test_the_run_waits_and_a_shared_handler_completes(env: Env) -> None:
    env.apply(invoke(flow()))
    assert told(env.effects(RUN, pinned(), get(1), suspended(1))) == []
    other = shared(env)
    actions = env.effects(other, pinned(), resolve(1))
    assert told(actions) == [(other, "COMPLETE_PROMISE", 1, None)]
    assert started(actions) == [RUN]
    assert promise(env) == PromiseRow(Succeeded(b"v"))


def test_a_shared_handler_waits_and_the_run_completes(env: Env) -> None:
    env.apply(invoke(flow()))
    other = shared(env)
    env.effects(other, pinned(), get(1))
    assert told(env.effects(RUN, pinned(), resolve(1))) == [
        (RUN, "COMPLETE_PROMISE", 1, None),
        (other, "GET_PROMISE", 1, b"v"),
    ]


def test_one_handler_waits_and_completes_itself(env: Env) -> None:
    env.apply(invoke(flow()))
    assert told(env.effects(RUN, pinned(), get(1), resolve(2))) == [
        (RUN, "COMPLETE_PROMISE", 2, None),
        (RUN, "GET_PROMISE", 1, b"v"),
    ]


def test_one_that_is_completed_answers_at_once(env: Env) -> None:
    env.apply(invoke(flow()))
    actions = env.effects(RUN, pinned(), resolve(1), get(2), peek(3))
    assert told(actions)[1:] == [(RUN, "GET_PROMISE", 2, b"v"), (RUN, "PEEK_PROMISE", 3, b"v")]


def test_a_peek_waits_for_nothing(env: Env) -> None:
    env.apply(invoke(flow()))
    assert told(env.effects(RUN, pinned(), peek(1))) == [(RUN, "PEEK_PROMISE", 1, None)]
    assert promise(env) is None


def test_a_rejection_reaches_everybody_with_its_code(env: Env) -> None:
    env.apply(invoke(flow()))
    actions = env.effects(RUN, pinned(), get(1), reject(2, 418), peek(3))
    assert told(actions) == [
        (RUN, "COMPLETE_PROMISE", 2, None),
        (RUN, "PEEK_PROMISE", 3, (418, "no")),
        (RUN, "GET_PROMISE", 1, (418, "no")),
    ]
    assert promise(env) == PromiseRow(Failed(418, "no", {"k": "m"}))


@pytest.mark.parametrize("again", [resolve(2, b"other"), reject(2)], ids=["resolve", "reject"])
def test_the_first_completion_wins_and_the_next_is_told(env: Env, again: PromiseUsed) -> None:
    env.apply(invoke(flow()))
    actions = env.effects(RUN, pinned(), resolve(1), again)
    assert told(actions)[1:] == [(RUN, "COMPLETE_PROMISE", 2, (409, "promise was already completed"))]
    assert promise(env) == PromiseRow(Succeeded(b"v"))


def test_promises_have_names_and_belong_to_a_key(env: Env) -> None:
    env.apply(invoke(flow()), invoke(flow("w2")))
    env.effects(RUN, pinned(), resolve(1, b"one", "p"), resolve(2, b"two", "pp"))
    assert told(env.effects(RUN, get(3, "p"), get(4, "pp"), peek(5, ""))) == [
        (RUN, "GET_PROMISE", 3, b"one"),
        (RUN, "GET_PROMISE", 4, b"two"),
        (RUN, "PEEK_PROMISE", 5, None),
    ]
    assert told(env.effects(invocation_id(flow("w2")), pinned(), peek(1))) == [
        (invocation_id(flow("w2")), "PEEK_PROMISE", 1, None)
    ]


def test_one_completed_while_the_suspension_is_under_way_is_not_missed(env: Env) -> None:
    """The completion is in the log before the suspension that waits for it: the handler goes on at once."""
    env.apply(invoke(flow()))
    other = shared(env)
    env.effects(RUN, pinned(), get(1))
    env.effects(other, pinned(), resolve(1))
    assert started(env.effects(RUN, suspended(1))) == [RUN]
    assert env.live(RUN).status is Status.INVOKED


# -- how long they live ----------------------------------------------------------------------------------------
def test_one_completed_before_the_run_is_honoured(env: Env) -> None:
    env.effects(shared(env), pinned(), resolve(1), *ended())
    env.apply(invoke(flow()))
    assert told(env.effects(RUN, pinned(), get(1))) == [(RUN, "GET_PROMISE", 1, b"v")]


def test_they_live_as_long_as_the_result(env: Env) -> None:
    env.apply(invoke(flow()))
    env.effects(RUN, pinned(), resolve(1), set_state(b"n", b"1"), *ended())
    other = shared(env)
    assert told(env.effects(other, pinned(), peek(1))) == [(other, "PEEK_PROMISE", 1, b"v")]
    env.effects(other, *ended())
    env.expire(until_ms=START_MS + DAY_MS)
    env.expire(until_ms=START_MS + DAY_MS)
    assert promise(env) is None and env.state(RUN, "Flow", "w1") == {}
    env.expire_everything()
    assert env.leftovers() == {}


def test_whoever_waits_for_one_that_is_dropped_is_told(env: Env) -> None:
    env.apply(invoke(flow()))
    env.effects(RUN, pinned(), *ended())
    other = shared(env)
    env.effects(other, pinned(), get(1))
    assert told(env.expire(until_ms=START_MS + DAY_MS) + env.expire()) == [
        (other, "GET_PROMISE", 1, (410, "the promise was dropped, with all that was kept of its workflow"))
    ]


def test_many_of_them_are_dropped_a_record_at_a_time(monkeypatch: pytest.MonkeyPatch, env: Env) -> None:
    env.apply(invoke(flow(), journal_retention_ms=0))
    env.effects(RUN, pinned(), *(resolve(1 + number, b"v", f"p{number:03}") for number in range(100)), *ended())
    monkeypatch.setattr("perdure_processor.state_machine.machine.ROWS_MAX", 40)
    env.now_ms = START_MS + DAY_MS
    left = [env.count(keys.PROMISE)]
    while left[-1]:
        env.expire()
        left.append(env.count(keys.PROMISE))
        assert left[-2] - left[-1] <= 40 and left[-1] < left[-2]
    assert len(left) >= 3


# -- bounds -------------------------------------------------------------------------------------------------
def wait_all(env: Env, count: int) -> list[InvocationId]:
    return [_waits(env, number) for number in range(2, count + 2)]


def _waits(env: Env, number: int) -> InvocationId:
    waiting = shared(env, number)
    env.effects(waiting, pinned(), get(1))
    return waiting


def test_many_who_wait_are_told_a_record_at_a_time(env: Env) -> None:
    waiting = wait_all(env, 2 * ANSWERS_PER_RECORD_MAX + 10)
    env.apply(invoke(flow()))
    first = told(env.effects(RUN, pinned(), resolve(1)))[1:]
    assert [id for id, *_ in first] == waiting[:ANSWERS_PER_RECORD_MAX]
    rest = []
    for _ in range(2):
        rest += told(env.fire_timers())
    assert [id for id, *_ in rest] == waiting[ANSWERS_PER_RECORD_MAX:]
    assert env.count(keys.TIMER) == 0 and promise(env) == PromiseRow(Succeeded(b"v"))


def test_a_large_value_is_copied_to_few_with_one_record(env: Env) -> None:
    wait_all(env, 5)
    env.apply(invoke(flow()))
    large = bytes(5 << 20)
    assert len(told(env.effects(RUN, pinned(), resolve(1, large)))[1:]) == 2
    assert len(told(env.fire_timers())) == 2
    assert len(told(env.fire_timers())) == 1


def test_one_that_was_dropped_before_all_were_told_leaves_nothing(env: Env) -> None:
    waiting = wait_all(env, ANSWERS_PER_RECORD_MAX + 1)
    env.effects(shared(env, 9_000), pinned(), resolve(1))
    late = [key for key, _ in env.store.scan(keys.TIMER, keys.end_of(keys.TIMER))]
    assert told(env.apply(drop())) == [(waiting[-1], "GET_PROMISE", 1, b"v")]
    assert env.apply(TimersFired(late)) == []
    assert env.count(keys.TIMER) == 0


def test_no_more_wait_than_a_bound_and_the_dead_give_way(monkeypatch: pytest.MonkeyPatch, env: Env) -> None:
    monkeypatch.setattr(promises, "PROMISE_WAITERS_MAX", 3)
    first, *_ = wait_all(env, 3)
    refused = shared(env, 10)
    assert told(env.effects(refused, pinned(), get(1))) == [
        (refused, "GET_PROMISE", 1, (429, "3 handlers wait for the promise 'p' already"))
    ]
    env.effects(first, *ended())
    taken = shared(env, 11)
    assert told(env.effects(taken, pinned(), get(1))) == []
    found = promise(env)
    assert found is not None and [sink.id for sink in found.waiting][-1] == taken


# -- of keys that never ran ------------------------------------------------------------------------------------
DROPPER = InvocationId(RUN[:8] + bytes(16))


def drop(asked: RequestId | None = None, issued_ms: int = START_MS) -> DropPromises:
    return DropPromises(DROPPER, "Flow", "w1", asked or request(), Millis(issued_ms))


def answers(actions: list[Action]) -> list[object]:
    return [action.answer for action in actions if type(action) is RespondToIngress]


def test_an_operator_drops_what_a_key_without_a_run_has(env: Env) -> None:
    other = shared(env)
    env.effects(other, pinned(), resolve(1), *ended())
    assert answers(env.apply(drop())) == [Acted(Deed.DONE)]
    env.now_ms += REPLY_KEEP_MS
    env.expire_everything()
    assert env.leftovers() == {}


def test_a_repeated_request_drops_nothing_that_came_later(env: Env) -> None:
    asked = request()
    env.apply(drop(asked))
    env.effects(shared(env), pinned(), resolve(1))
    assert without_timers(env.apply(drop(asked))) == [RespondToIngress(asked, Acted(Deed.DONE))]
    assert promise(env) == PromiseRow(Succeeded(b"v"))


def test_a_run_or_its_result_keeps_them(env: Env) -> None:
    env.apply(invoke(flow()))
    env.effects(RUN, pinned(), resolve(1))
    assert answers(env.apply(drop())) == [Acted(Deed.HAS_RUN)]
    env.effects(RUN, output(), Ended())
    assert answers(env.apply(drop())) == [Acted(Deed.HAS_RUN)]
    assert promise(env) is not None


def test_a_drop_that_comes_too_late_is_refused(env: Env) -> None:
    env.effects(shared(env), pinned(), resolve(1))
    env.now_ms += REQUEST_HORIZON_MS + 1
    assert answers(env.apply(drop())) == [Expired()]
    assert promise(env) is not None

"""A handler attaches to another invocation, or looks whether it has an output."""

from __future__ import annotations

import pytest

from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType
from perdure_processor.model.actions import AckCommand, Action, ForwardNotification
from perdure_processor.model.commands import Ask, ByOutbox, Envelope, Respond
from perdure_processor.model.effects import AckWanted, Ended, InvocationAsked
from perdure_processor.model.ids import CompletionId, InvocationId, PartitionId, slot_of
from perdure_processor.model.results import CallerSink, SinkKind
from perdure_processor.state_machine import submission
from perdure_processor.storage.records import Status
from support.builders import (
    DAY_MS,
    ELSEWHERE,
    HERE,
    ended,
    flow,
    frame,
    invocation_id,
    invoke,
    notification,
    ok,
    output_failure,
    pinned,
    run,
    service,
    set_state,
    sleep,
    suspended,
    thing,
)
from support.env import START_MS, Env, shipped, started

A = invocation_id(service(), 1)
B = invocation_id(thing(), "key")


def attach(id: InvocationId, completion_id: int = 1) -> InvocationAsked:
    message = pb.AttachInvocationCommandMessage(result_completion_id=completion_id)
    return InvocationAsked(frame(MessageType.ATTACH_INVOCATION_COMMAND, message), id, CompletionId(completion_id))


def look(id: InvocationId, completion_id: int = 1) -> InvocationAsked:
    message = pb.GetInvocationOutputCommandMessage(result_completion_id=completion_id)
    return InvocationAsked(frame(MessageType.GET_INVOCATION_OUTPUT_COMMAND, message), id, CompletionId(completion_id))


def told(actions: list[Action]) -> list[tuple[InvocationId, int, object]]:
    """(id, code of the notification, value or failure)."""
    found = []
    for action in actions:
        if type(action) is ForwardNotification:
            said = notification(action.frame)
            answer: object = said.value.content if said.HasField("value") else None
            if said.HasField("failure"):
                answer = (said.failure.code, said.failure.message)
            found.append((action.id, int.from_bytes(action.frame[:2], "big"), answer))
    return found


ATTACHED = MessageType.ATTACH_INVOCATION_COMPLETION_NOTIFICATION
LOOKED = MessageType.GET_INVOCATION_OUTPUT_COMPLETION_NOTIFICATION


def test_attach_waits_for_the_end(env: Env) -> None:
    env.apply(invoke(), invoke(thing(), "key"))
    assert told(env.effects(A, pinned(), attach(B), suspended(1))) == []
    assert started(env.effects(B, pinned(), *ended(b"7"))) == [A]
    assert told(env.effects(A, look(B, 2), attach(B, 3))) == [(A, LOOKED, b"7"), (A, ATTACHED, b"7")]


def test_a_look_never_waits(env: Env) -> None:
    env.apply(invoke(), invoke(thing(), "key"))
    assert told(env.effects(A, pinned(), look(B))) == [(A, LOOKED, None)]


def test_a_failure_comes_home_as_one(env: Env) -> None:
    env.apply(invoke(), invoke(thing(), "key"))
    env.effects(A, pinned(), attach(B))
    assert told(env.effects(B, pinned(), output_failure(418, "tea"), Ended())) == [(A, ATTACHED, (418, "tea"))]


@pytest.mark.parametrize(("ask", "code"), [(attach, ATTACHED), (look, LOOKED)])
def test_what_never_was_is_not_found(env: Env, ask: object, code: int) -> None:
    env.apply(invoke())
    assert told(env.effects(A, pinned(), ask(B))) == [(A, code, (404, "not found"))]  # type: ignore[operator]


@pytest.mark.parametrize(("ask", "code"), [(attach, ATTACHED), (look, LOOKED)])
def test_what_has_expired_is_not_found_although_its_request_is_remembered(env: Env, ask: object, code: int) -> None:
    env.apply(invoke(), invoke(thing(), "key", journal_retention_ms=0, completion_retention_ms=0))
    env.effects(B, pinned(), *ended())
    env.expire()
    env.proof(B)
    assert told(env.effects(A, pinned(), ask(B))) == [(A, code, (404, "not found"))]  # type: ignore[operator]


def test_attach_to_a_workflow_and_to_one_that_waits_for_its_turn(env: Env) -> None:
    waiting = invocation_id(thing(), 2)
    env.apply(invoke(), invoke(flow()), invoke(thing(), "key"), invoke(thing(), 2))
    assert env.live(waiting).status is Status.INBOXED
    assert told(env.effects(A, pinned(), attach(invocation_id(flow())), attach(waiting, 2), look(waiting, 3))) == [
        (A, LOOKED, None)
    ]
    assert told(env.effects(invocation_id(flow()), pinned(), *ended(b"w"))) == [(A, ATTACHED, b"w")]
    env.effects(B, pinned(), *ended())
    assert told(env.effects(waiting, pinned(), *ended(b"2"))) == [(A, ATTACHED, b"2")]


def test_one_that_attaches_to_itself_waits_for_ever_and_holds_up_nobody(env: Env) -> None:
    other = invocation_id(service(), 2)
    env.apply(invoke(), invoke(service(), 2))
    env.effects(A, pinned(), attach(A), suspended(1))
    assert env.live(A).status is Status.SUSPENDED
    env.effects(other, pinned(), *ended())
    env.completed(other)


def test_one_that_attached_to_itself_and_went_on_ends(env: Env) -> None:
    env.apply(invoke())
    assert told(env.effects(A, pinned(), attach(A), *ended())) == []
    env.completed(A)
    env.expire_everything()
    assert env.leftovers() == {}


def test_too_many_waiters_are_one_too_many_for_a_handler_as_well(monkeypatch: pytest.MonkeyPatch, env: Env) -> None:
    monkeypatch.setattr(submission, "SINKS_MAX", 2)
    env.apply(invoke(), invoke(thing(), "key"))
    assert told(env.effects(A, pinned(), attach(B, 1), attach(B, 2))) == [
        (A, ATTACHED, (429, "2 others wait for Counter/alice/add already"))
    ]


def test_the_answer_for_a_life_that_is_over_is_dropped(env: Env) -> None:
    first = invoke(service(), "again", journal_retention_ms=0, completion_retention_ms=0)
    env.apply(first, invoke(thing(), "key"))
    env.effects(first.id, pinned(), attach(B), *ended())
    env.expire_everything()
    env.apply(invoke(service(), "again"))
    assert told(env.effects(B, pinned(), *ended())) == []


# -- between partitions -----------------------------------------------------------------------------------------
def test_the_question_travels_and_the_answer_comes_home(one_of_two: Env) -> None:
    env = one_of_two
    here, there = invocation_id(thing(HERE), 1), invocation_id(thing(ELSEWHERE), 1)
    env.apply(invoke(thing(HERE), 1))
    (message,) = shipped(env.effects(here, pinned(), attach(there)))
    sink = CallerSink(here, env.live(here).incarnation, CompletionId(1), SinkKind.ATTACH)
    assert message.command == Ask(there, sink)
    answer = Envelope(slot_of(here), ByOutbox(PartitionId(1), 1), Respond(sink, ok(b"7")))
    assert told(env.apply(answer)) == [(here, ATTACHED, b"7")]
    assert told(env.apply(answer)) == []


def test_a_question_from_elsewhere_is_answered_through_the_outbox(one_of_two: Env) -> None:
    env = one_of_two
    here, there = invocation_id(thing(HERE), 1), invocation_id(thing(ELSEWHERE), 1)
    env.apply(invoke(thing(HERE), 1))
    asker = CallerSink(there, env.live(here).incarnation, CompletionId(1), SinkKind.OUTPUT)
    (message,) = shipped(env.apply(Envelope(slot_of(here), ByOutbox(PartitionId(1), 1), Ask(here, asker))))
    assert message.command == Respond(asker, None)


# -- acknowledgements ---------------------------------------------------------------------------------------------
def test_a_command_is_acknowledged_by_its_index_once_it_is_stored(env: Env) -> None:
    env.apply(invoke(thing(), 1))
    one = invocation_id(thing(), 1)
    actions = env.effects(
        one, pinned(), run(1), AckWanted(), set_state(b"n", b"1"), sleep(2, START_MS + DAY_MS), AckWanted()
    )
    assert [action for action in actions if type(action) is AckCommand] == [
        AckCommand(one, 1, 1),
        AckCommand(one, 1, 3),
    ]


def test_the_next_attempt_is_acknowledged_what_it_sends_itself(env: Env) -> None:
    env.apply(invoke(), invoke(thing(), "key"))
    env.effects(A, pinned(), attach(B), AckWanted(), suspended(1))
    env.effects(B, pinned(), *ended())
    assert [action for action in env.effects(A, run(2), AckWanted()) if type(action) is AckCommand] == [
        AckCommand(A, 2, 2)
    ]
    assert env.effects(A, run(3), AckWanted(), attempt=1) == [], "what an older attempt still reports is not stored"

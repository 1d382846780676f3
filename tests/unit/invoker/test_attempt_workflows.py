"""One attempt: promises, and what a handler asks about other invocations."""

from __future__ import annotations

import pytest

from perdure.protocol import ids
from perdure.protocol import service_pb2 as pb
from perdure.protocol.framing import MessageType
from perdure_processor.invoker.attempt import Attempt, AttemptError, AttemptStart
from perdure_processor.model.derived_ids import idempotent_id, workflow_id
from perdure_processor.model.effects import Effect, InvocationAsked, PromiseUsed
from perdure_processor.model.ids import CompletionId, DeploymentId, Incarnation, InvocationId
from perdure_processor.model.schema import HandlerKind, ServiceKind
from support.builders import flow, frame, invocation_id, service

GET = frame(MessageType.GET_PROMISE_COMMAND, pb.GetPromiseCommandMessage(key="p", result_completion_id=1))
PEEK = frame(MessageType.PEEK_PROMISE_COMMAND, pb.PeekPromiseCommandMessage(key="p", result_completion_id=2))
COMPLETE = frame(
    MessageType.COMPLETE_PROMISE_COMMAND,
    pb.CompletePromiseCommandMessage(key="p", result_completion_id=3, completion_value=pb.Value(content=b"v")),
)
OTHER = invocation_id(service(), 5)


def attempt(kind: ServiceKind = ServiceKind.WORKFLOW, handler_kind: HandlerKind = HandlerKind.WORKFLOW) -> Attempt:
    start = AttemptStart(
        InvocationId(bytes(24)),
        Incarnation(1),
        1,
        flow(),
        kind,
        handler_kind,
        1,
        1,
        False,
        DeploymentId("dp_1"),
        6,
        True,
    )
    return Attempt(start, lambda _service, _handler: None)


def effects_of(one: Attempt, *frames: bytes) -> list[Effect]:
    one.receive(b"".join(frames))
    assert not one.advance(100)
    return one.take_effects()[1]


def refused(one: Attempt, sent: bytes) -> AttemptError:
    with pytest.raises(AttemptError) as caught:
        effects_of(one, sent)
    return caught.value


# -- promises -----------------------------------------------------------------------------------------------
@pytest.mark.parametrize("handler_kind", [HandlerKind.WORKFLOW, HandlerKind.SHARED])
@pytest.mark.parametrize(("sent", "completion_id"), [(GET, 1), (PEEK, 2), (COMPLETE, 3)], ids=["get", "peek", "set"])
def test_all_handlers_of_a_workflow_use_promises_and_are_answered_soon(
    handler_kind: HandlerKind, sent: bytes, completion_id: int
) -> None:
    one = attempt(handler_kind=handler_kind)
    one.receive(sent)
    one.advance(1)
    assert one.wants_flush
    assert one.take_effects() == (1, [PromiseUsed(sent, CompletionId(completion_id))])


@pytest.mark.parametrize("kind", [ServiceKind.SERVICE, ServiceKind.VIRTUAL_OBJECT])
@pytest.mark.parametrize("sent", [GET, PEEK, COMPLETE], ids=["get", "peek", "set"])
def test_no_other_service_has_promises(kind: ServiceKind, sent: bytes) -> None:
    failure = refused(attempt(kind, HandlerKind.SHARED), sent).failure
    assert failure.doc_code == "RT0017" and "only a workflow's handlers have promises" in failure.message


def test_a_completion_without_a_result_is_none() -> None:
    sent = frame(MessageType.COMPLETE_PROMISE_COMMAND, pb.CompletePromiseCommandMessage(key="p"))
    failure = refused(attempt(), sent).failure
    assert failure.doc_code == "RT0012" and "has neither a value nor a failure" in failure.message


@pytest.mark.parametrize(
    "code",
    [MessageType.GET_PROMISE_COMMAND, MessageType.PEEK_PROMISE_COMMAND, MessageType.COMPLETE_PROMISE_COMMAND],
)
def test_a_promise_that_does_not_decode_never_reaches_the_log(code: MessageType) -> None:
    failure = refused(attempt(), code.to_bytes(2, "big") + b"\0\0" + b"\0\0\0\x03" + b"\x0a\x01\xff").failure
    assert failure.doc_code == "RT0012" and "does not decode" in failure.message


# -- attach and output --------------------------------------------------------------------------------------
TARGETS = [
    ({"invocation_id": ids.encode_invocation_id(OTHER)}, OTHER),
    (
        {
            "idempotent_request_target": pb.IdempotentRequestTarget(
                service_name="Greeter", handler_name="greet", idempotency_key="k"
            )
        },
        idempotent_id("Greeter", None, "greet", "k"),
    ),
    (
        {
            "idempotent_request_target": pb.IdempotentRequestTarget(
                service_name="Counter", service_key="", handler_name="add", idempotency_key="k"
            )
        },
        idempotent_id("Counter", "", "add", "k"),
    ),
    (
        {"workflow_target": pb.WorkflowTarget(workflow_name="Flow", workflow_key="w2")},
        workflow_id("Flow", "w2"),
    ),
]


@pytest.mark.parametrize(("target", "id"), TARGETS, ids=["id", "idempotent", "keyed", "workflow"])
def test_the_one_that_is_asked_about_is_known_when_the_command_arrives(
    target: dict[str, object], id: InvocationId
) -> None:
    attach = frame(
        MessageType.ATTACH_INVOCATION_COMMAND,
        pb.AttachInvocationCommandMessage(result_completion_id=4, **target),
    )
    output = frame(
        MessageType.GET_INVOCATION_OUTPUT_COMMAND,
        pb.GetInvocationOutputCommandMessage(result_completion_id=5, **target),
    )
    assert effects_of(attempt(), attach, output) == [
        InvocationAsked(attach, id, CompletionId(4)),
        InvocationAsked(output, id, CompletionId(5)),
    ]


@pytest.mark.parametrize(
    ("message", "doc_code", "words"),
    [
        (pb.AttachInvocationCommandMessage(invocation_id="inv_nope"), "RT0017", "bad invocation id 'inv_nope'"),
        (pb.AttachInvocationCommandMessage(), "RT0012", "names no invocation"),
        (
            pb.AttachInvocationCommandMessage(
                idempotent_request_target=pb.IdempotentRequestTarget(service_name="Greeter", scope="s")
            ),
            "RT0024",
            "need flow control",
        ),
        (
            pb.AttachInvocationCommandMessage(
                workflow_target=pb.WorkflowTarget(workflow_name="Flow", workflow_key="w", scope="s")
            ),
            "RT0024",
            "need flow control",
        ),
    ],
)
def test_what_names_nothing_fails_the_attempt(
    message: pb.AttachInvocationCommandMessage, doc_code: str, words: str
) -> None:
    failure = refused(attempt(), frame(MessageType.ATTACH_INVOCATION_COMMAND, message)).failure
    assert failure.doc_code == doc_code and words in failure.message

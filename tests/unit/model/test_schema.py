"""What holds for a handler, from what it, its service, an operator and the server said."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from perdure_processor.cluster.metadata_machine import MetadataOutcome
from perdure_processor.model import codec
from perdure_processor.model.ids import DeploymentId
from perdure_processor.model.registration import (
    HandlerKind,
    Options,
    RegisteredInput,
    RegisteredOutput,
    ServiceKind,
    ServicePatch,
)
from perdure_processor.model.resolution import Defaults, Known, build_schema, input_rules
from perdure_processor.model.schema import HandlerSchema, InputRule, Note, RetryPolicy
from support.metadata import Operator, handler, service

NOTHING = InputRule(only_empty=True, content_type=None, body_required=False)
HOUR = 3_600_000
DAY = 24 * HOUR


def resolved(operator: Operator, defaults: Defaults = Defaults(), name: str = "S") -> HandlerSchema:  # noqa: B008
    return operator.schema(defaults).services[name].handlers["greet"]


def test_a_handler_that_asks_for_nothing_gets_the_servers_defaults() -> None:
    operator = Operator()
    operator.register("a", service("S"))
    found = resolved(operator)
    assert found.public
    assert (found.inactivity_timeout_ms, found.abort_timeout_ms) == (60_000, 600_000)
    assert (found.journal_retention_ms, found.completion_retention_ms) == (DAY, DAY)
    assert found.retry_policy == RetryPolicy(500, 2.0, 60_000, 70, kill_on_max_attempts=False)
    assert not found.lazy_state


def test_the_handler_stands_above_the_service_and_the_service_above_the_server() -> None:
    operator = Operator()
    of_service = Options(
        inactivity_timeout_ms=1, abort_timeout_ms=2, journal_retention_ms=3, lazy_state=True, retry_factor=1.5
    )
    of_handler = Options(inactivity_timeout_ms=10, lazy_state=False, retry_max_attempts=4)
    operator.register("a", service("S", ServiceKind.SERVICE, handler(options=of_handler), options=of_service))
    found = resolved(operator, Defaults(abort_timeout_ms=77, idempotency_retention_ms=88))
    assert found.inactivity_timeout_ms == 10
    assert found.abort_timeout_ms == 2
    assert found.journal_retention_ms == 3
    assert found.completion_retention_ms == 88
    assert not found.lazy_state
    assert found.retry_policy == RetryPolicy(500, 1.5, 60_000, 4, kill_on_max_attempts=False)


def test_a_patch_stands_above_the_service_and_below_the_handler() -> None:
    operator = Operator()
    own = handler("own", options=Options(idempotency_retention_ms=7))
    operator.register(
        "a", service("S", ServiceKind.SERVICE, handler(), own, options=Options(idempotency_retention_ms=5))
    )
    operator.patch("S", idempotency_retention_ms=6)
    handlers = operator.schema().services["S"].handlers
    assert handlers["greet"].completion_retention_ms == 6
    assert handlers["own"].completion_retention_ms == 7


def test_a_patch_survives_the_next_revision_and_adds_up() -> None:
    operator = Operator()
    operator.register("a", service("S"))
    operator.patch("S", public=False)
    operator.patch("S", abort_timeout_ms=9)
    operator.register("a", service("S"), force=True)
    operator.register("b", service("S"))
    found = operator.schema().services["S"]
    assert (found.revision, found.deployment_id) == (3, "dp_b")
    assert not found.public
    assert found.handlers["greet"].abort_timeout_ms == 9


def test_a_patch_goes_with_the_last_deployment_of_its_service() -> None:
    operator = Operator()
    operator.register("a", service("S"))
    operator.patch("S", public=False)
    operator.remove("dp_a")
    operator.register("a", service("S"))
    assert operator.schema().services["S"].public


@pytest.mark.parametrize(
    ("service_public", "patched", "handler_public", "outcome"),
    [
        (None, None, None, True),
        (None, None, False, False),
        (False, None, None, False),
        (False, True, None, True),
        (False, True, False, False),  # publishing the service leaves a private handler private
        (True, False, True, False),  # hiding the service hides all of it
    ],
)
def test_who_may_be_called_from_outside(
    service_public: bool | None, patched: bool | None, handler_public: bool | None, outcome: bool
) -> None:
    operator = Operator()
    own = handler(options=Options(public=handler_public))
    operator.register("a", service("S", ServiceKind.SERVICE, own, options=Options(public=service_public)))
    operator.patch("S", public=patched)
    assert resolved(operator).public is outcome


def test_only_a_workflows_run_is_kept_by_the_workflow_retention() -> None:
    operator = Operator()
    run = handler("greet", HandlerKind.WORKFLOW, workflow_retention_ms=5)
    operator.register("a", service("S", ServiceKind.WORKFLOW, run, handler("ask", HandlerKind.SHARED)))
    handlers = operator.schema(Defaults(idempotency_retention_ms=6)).services["S"].handlers
    assert handlers["greet"].completion_retention_ms == 5
    assert handlers["ask"].completion_retention_ms == 6


def test_a_patch_of_the_workflow_retention_holds_where_the_run_handler_says_nothing() -> None:
    operator = Operator()
    operator.register("a", service("S", ServiceKind.WORKFLOW))
    operator.patch("S", workflow_retention_ms=HOUR)
    assert resolved(operator).completion_retention_ms == HOUR


def test_what_is_over_the_servers_maximum_is_clamped_and_said() -> None:
    operator = Operator()
    asked = Options(journal_retention_ms=9 * DAY, retry_max_attempts=1000)
    operator.register("a", service("S", ServiceKind.SERVICE, handler(options=asked)))
    found = resolved(operator, Defaults(journal_retention_ms_max=2 * DAY, retry_max_attempts_max=100))
    assert found.journal_retention_ms == 2 * DAY
    assert found.retry_policy.max_attempts == 100
    assert found.notes == [
        Note("RT0022", "journal_retention", 9 * DAY, 2 * DAY),
        Note("RT0022", "max_attempts", 1000, 100),
    ]


def test_no_attempts_at_all_means_one() -> None:
    operator = Operator()
    operator.register("a", service("S", options=Options(retry_max_attempts=0)))
    assert resolved(operator).retry_policy.max_attempts == 1


def test_in_request_response_mode_there_is_no_waiting_for_inactivity() -> None:
    operator = Operator()
    operator.register("a", service("S", options=Options(inactivity_timeout_ms=5000)), bidirectional=False)
    found = operator.schema().services["S"]
    assert found.handlers["greet"].inactivity_timeout_ms == 0
    assert found.notes == [Note("RT0021", "inactivity_timeout", 5000, 0)]


@pytest.mark.parametrize(
    ("announced", "rules"),
    [
        (None, [NOTHING, InputRule(False, "*/*", False)]),
        (RegisteredInput(False, None, None), [NOTHING]),
        (RegisteredInput(True, None, None), [InputRule(False, "*/*", True)]),
        (RegisteredInput(False, "text/plain", None), [NOTHING, InputRule(False, "text/plain", False)]),
        (RegisteredInput(True, "text/*", None), [InputRule(False, "text/*", False)]),
        (RegisteredInput(True, "application/json", "{}"), [InputRule(False, "application/json", True)]),
    ],
)
def test_the_ways_a_request_may_look(announced: RegisteredInput | None, rules: list[InputRule]) -> None:
    assert input_rules(announced) == rules


@pytest.mark.parametrize(
    ("announced", "content_type", "set_if_empty"),
    [
        (None, "application/json", False),
        (RegisteredOutput(None, False, None), None, False),
        (RegisteredOutput("text/plain", True, None), "text/plain", True),
    ],
)
def test_the_content_type_of_an_answer(
    announced: RegisteredOutput | None, content_type: str | None, set_if_empty: bool
) -> None:
    operator = Operator()
    operator.register("a", service("S", ServiceKind.SERVICE, handler(gives=announced)))
    found = resolved(operator)
    assert (found.output_content_type, found.set_content_type_if_empty) == (content_type, set_if_empty)


def test_a_pinned_deployment_keeps_its_own_description_of_a_service() -> None:
    operator = Operator()
    operator.register("a", service("S", ServiceKind.SERVICE, handler("old")))
    operator.register("b", service("S", ServiceKind.SERVICE, handler("new")))
    schema = operator.schema()
    assert list(schema.services["S"].handlers) == ["new"]
    assert list(schema.deployments[DeploymentId("dp_a")].described["S"].handlers) == ["old"]
    assert schema.deployments[DeploymentId("dp_a")].services == {"S": 1}


def test_building_on_the_schema_before_gives_the_same_and_takes_over_what_did_not_change() -> None:
    operator = Operator()
    operator.register("a", service("A"), service("B"))
    operator.register("b", service("B"))
    operator.register("c", service("C"))
    before = operator.state
    known = Known(before.deployments, before.patches, operator.schema())
    changes: list[Callable[[], MetadataOutcome]] = [
        lambda: operator.patch("B", public=False),
        lambda: operator.remove("dp_b"),
        lambda: operator.register("c", service("C"), force=True),
    ]
    for change in changes:
        change()
        state = operator.state
        built = build_schema(state.version, state.deployments, state.patches, Defaults(), known)
        assert built == operator.schema()
        known = Known(state.deployments, state.patches, built)
    assert known.schema.deployments[DeploymentId("dp_a")].described["B"].public is False

    again = build_schema(0, operator.state.deployments, operator.state.patches, Defaults(), known)
    assert all(again.deployments[each] is known.schema.deployments[each] for each in again.deployments)


def test_what_was_announced_survives_the_codec() -> None:
    operator = Operator()
    odd = handler(
        "greet",
        options=Options(retry_factor=1.25, public=False, retry_kill_on_max_attempts=True),
        takes=RegisteredInput(True, "application/json", '{"title":"é"}'),
        gives=RegisteredOutput(None, True, None),
    )
    operator.register("a", service("S", ServiceKind.SERVICE, odd))
    row = operator.state.deployments[DeploymentId("dp_a")]
    assert codec.decode(codec.encode(row)) == row
    assert codec.decode(codec.encode(ServicePatch(public=True))) == ServicePatch(public=True)

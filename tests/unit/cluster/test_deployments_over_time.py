"""Several deployments of one service: which is the latest, after updates, removals and rollbacks."""

from __future__ import annotations

from perdure_processor.cluster.metadata_machine import (
    ActivateDeployment,
    Applied,
    Found,
    MetadataOutcome,
    Rejected,
    UpdateDeployment,
)
from perdure_processor.model import codec
from perdure_processor.model.ids import DeploymentId
from perdure_processor.model.registration import RegisteredService, ServiceKind
from support.metadata import Operator, service

A, B = DeploymentId("dp_a"), DeploymentId("dp_b")


def activate(operator: Operator, deployment: DeploymentId) -> MetadataOutcome:
    return operator.do(ActivateDeployment(operator.request(), operator.state.version, deployment))


def update(
    operator: Operator,
    deployment: DeploymentId,
    *,
    uri: str | None = None,
    headers: dict[str, str] | None = None,
    services: list[RegisteredService] | None = None,
    versions: tuple[int, int] | None = None,
) -> MetadataOutcome:
    found = None if versions is None else Found(True, *versions, "sdk/2", services)
    command = UpdateDeployment(operator.request(), operator.state.version, deployment, uri, None, headers, found)
    assert codec.decode(codec.encode(command)) == command
    return operator.do(command)


def test_an_older_deployment_becomes_the_latest_of_what_it_has() -> None:
    operator = Operator()
    operator.register("a", service("A"), service("B"))
    operator.register("b", service("A"), service("C"))
    assert activate(operator, A) == Applied(operator.state.version, A)
    assert operator.latest() == {"A": ("dp_a", 3), "B": ("dp_a", 1), "C": ("dp_b", 1)}
    before = operator.state
    assert activate(operator, A) == Applied(before.version, A)
    assert operator.state.deployments == before.deployments, "it is the latest already"
    activate(operator, B)
    assert operator.latest()["A"] == ("dp_b", 4)


def test_what_cannot_be_activated_changes_nothing() -> None:
    operator = Operator()
    operator.register("a", service("Z"), service("A"))
    operator.register("b", service("A", ServiceKind.VIRTUAL_OBJECT), service("Z"), breaking=True)
    before = operator.latest()
    refused = activate(operator, A)
    assert isinstance(refused, Rejected) and refused.status == 409
    assert "'A' is a VirtualObject now and would become a Service" in refused.message
    assert operator.latest() == before
    unknown = activate(operator, DeploymentId("dp_x"))
    assert isinstance(unknown, Rejected) and unknown.status == 404


def test_the_one_before_is_the_latest_after_a_removal() -> None:
    operator = Operator()
    operator.register("a", service("A"))
    operator.register("b", service("A"))
    activate(operator, A)
    operator.remove(A)
    assert operator.latest() == {"A": ("dp_b", 2)}


def test_an_update_moves_a_deployment_and_keeps_its_services() -> None:
    operator = Operator()
    operator.register("a", service("A"))
    operator.register("b", service("A"))
    before = operator.state.deployments[A]
    update(operator, A, uri="http://elsewhere:1", headers={"x": "y"}, versions=(5, 7))
    after = operator.state.deployments[A]
    assert (after.uri, after.additional_headers) == ("http://elsewhere:1", {"x": "y"})
    assert (after.max_protocol_version, after.sdk_version) == (7, "sdk/2")
    assert (after.services, after.revisions, after.created_at_ms) == (
        before.services,
        before.revisions,
        before.created_at_ms,
    )
    assert operator.latest() == {"A": ("dp_b", 2)}


def test_an_update_that_overwrites_makes_nothing_the_latest_that_it_served_before() -> None:
    operator = Operator()
    operator.register("a", service("A"), service("Gone"))
    operator.register("b", service("A"), service("B"))
    update(operator, A, services=[service("A"), service("B"), service("New")], versions=(5, 6))
    assert operator.state.deployments[A].revisions == {"A": 1, "B": 2, "New": 1}
    assert operator.latest() == {"A": ("dp_b", 2), "B": ("dp_a", 2), "New": ("dp_a", 1)}
    refused = update(operator, A, services=[service("A", ServiceKind.VIRTUAL_OBJECT)], versions=(5, 6))
    assert isinstance(refused, Rejected) and (refused.status, refused.code) == (409, "META0006")


def test_two_deployments_never_share_an_address() -> None:
    operator = Operator()
    operator.register("a", service("A"))
    operator.register("b", service("A"))
    refused = update(operator, A, uri=operator.state.deployments[B].uri)
    assert isinstance(refused, Rejected) and refused.status == 409
    unknown = update(operator, DeploymentId("dp_x"))
    assert isinstance(unknown, Rejected) and unknown.status == 404
    version = operator.state.version
    assert update(operator, A) == Applied(version, A), "nothing to change is no change"

"""The metadata machine, command by command."""

from __future__ import annotations

import pytest

from perdure_processor.cluster import metadata_machine as machine
from perdure_processor.cluster.metadata_machine import (
    Applied,
    Layout,
    PatchService,
    Rejected,
    RemoveDeployment,
    SkipRecord,
    VersionConflict,
)
from perdure_processor.model import codec
from perdure_processor.model.ids import SLOTS, DeploymentId, Offset, PartitionId
from perdure_processor.model.limits import METADATA_ANSWERS_KEPT
from perdure_processor.model.registration import ServiceKind, ServicePatch
from support.metadata import Operator, service


def test_nothing_happens_before_the_layout() -> None:
    operator = Operator(partitions=None)
    assert operator.register("a", service("A")) == Rejected(503, None, "the cluster has no layout yet")
    assert operator.lay_out(8) == Applied(1)
    assert operator.register("a", service("A")) == Applied(2, DeploymentId("dp_a"), created=True)


def test_the_layout_is_for_good() -> None:
    operator = Operator(partitions=8)
    refused = operator.lay_out(16)
    assert isinstance(refused, Rejected)
    assert refused.status == 409
    assert "laid out with 8 partitions" in refused.message
    assert "16 partitions" in refused.message
    assert operator.state.layout is not None
    assert operator.state.layout.partitions == 8


def test_of_two_first_starts_the_first_in_the_log_names_the_cluster() -> None:
    operator = Operator(partitions=None)
    operator.lay_out(8, "first")
    assert operator.lay_out(8, "second") == Applied(1)
    assert operator.state.layout is not None
    assert operator.state.layout.cluster_id == "first"


def test_a_new_deployment_is_the_latest_of_each_of_its_services() -> None:
    operator = Operator()
    operator.register("a", service("A"), service("B"))
    operator.register("b", service("A"))
    assert operator.latest() == {"A": ("dp_b", 2), "B": ("dp_a", 1)}


def test_an_address_that_is_known_changes_nothing_unless_forced() -> None:
    operator = Operator()
    operator.register("a", service("A"))
    operator.register("b", service("A"))
    before = operator.state.version
    assert operator.register("a", service("A"), service("New")) == Applied(before, DeploymentId("dp_a"))
    assert operator.latest() == {"A": ("dp_b", 2)}


def test_force_overwrites_in_place_and_makes_it_the_latest() -> None:
    operator = Operator()
    operator.register("a", service("A"), service("Gone"))
    operator.register("b", service("A"))
    outcome = operator.register("a", service("A"), service("New"), force=True)
    assert outcome == Applied(operator.state.version, DeploymentId("dp_a"), created=False)
    assert operator.latest() == {"A": ("dp_a", 3), "New": ("dp_a", 1)}
    assert operator.state.deployments[DeploymentId("dp_a")].created_at_ms == operator.now_ms


def test_a_service_that_a_forced_deployment_no_longer_has_goes_back_to_the_one_before() -> None:
    operator = Operator()
    operator.register("a", service("A"))
    operator.register("b", service("A"), service("B"))
    operator.register("b", service("B"), force=True)
    assert operator.latest() == {"A": ("dp_a", 1), "B": ("dp_b", 2)}


def test_a_change_of_type_needs_permission() -> None:
    operator = Operator()
    operator.register("a", service("A"))
    refused = operator.register("b", service("A", ServiceKind.WORKFLOW), service("B"))
    assert isinstance(refused, Rejected)
    assert (refused.status, refused.code) == (409, "META0006")
    assert "'A'" in refused.message
    assert "Service now and would become a Workflow" in refused.message
    assert operator.latest() == {"A": ("dp_a", 1)}  # and nothing of it is registered
    assert operator.register("b", service("A", ServiceKind.WORKFLOW), breaking=True) == Applied(
        operator.state.version, DeploymentId("dp_b"), created=True
    )


def test_removing_the_latest_deployment_brings_the_one_before_back() -> None:
    operator = Operator()
    operator.register("a", service("A"))
    operator.register("b", service("A"), service("B"))
    assert operator.remove("dp_b") == Applied(operator.state.version, DeploymentId("dp_b"))
    assert operator.latest() == {"A": ("dp_a", 1)}
    operator.register("c", service("A"))
    assert operator.latest() == {"A": ("dp_c", 2)}


def test_removing_an_older_deployment_leaves_the_latest_alone() -> None:
    operator = Operator()
    operator.register("a", service("A"))
    operator.register("b", service("A"))
    operator.remove("dp_a")
    assert operator.latest() == {"A": ("dp_b", 2)}
    operator.remove("dp_b")
    assert operator.latest() == {}


def test_what_is_unknown_cannot_be_removed_or_patched() -> None:
    operator = Operator()
    assert operator.remove("dp_x") == Rejected(404, None, "not found in the schema registry: deployment with id 'dp_x'")
    assert operator.patch("X", public=True) == Rejected(
        404, None, "not found in the schema registry: service with name 'X'"
    )


def test_only_workflows_have_a_workflow_retention_to_patch() -> None:
    operator = Operator()
    operator.register("a", service("A", ServiceKind.VIRTUAL_OBJECT))
    assert operator.patch("A", workflow_retention_ms=1, public=False) == Rejected(
        400, None, "modifying retention time for service type VirtualObject is unsupported"
    )
    assert operator.schema().services["A"].public


def test_a_command_for_another_version_changes_nothing() -> None:
    operator = Operator()
    late = operator.registration("b", service("A"))
    operator.register("a", service("A"))
    assert operator.do(late) == VersionConflict(operator.state.version)
    assert operator.latest() == {"A": ("dp_a", 1)}


def test_a_doubled_append_is_applied_once_and_answered_twice() -> None:
    operator = Operator()
    command = operator.registration("a", service("A"), force=True)
    first = operator.do(command)
    version = operator.state.version
    assert operator.do(command) == first
    assert operator.state.version == version
    assert operator.latest() == {"A": ("dp_a", 1)}


def test_a_doubled_append_whose_answer_is_forgotten_still_changes_nothing() -> None:
    operator = Operator()
    command = operator.registration("a", service("A"), force=True)
    operator.do(command)
    for number in range(METADATA_ANSWERS_KEPT):
        operator.patch("A", abort_timeout_ms=number)
    assert len(operator.state.answers) == METADATA_ANSWERS_KEPT
    assert operator.do(command) == VersionConflict(operator.state.version)
    assert operator.latest() == {"A": ("dp_a", 1)}


def test_a_refused_command_stays_refused_when_its_copy_comes() -> None:
    operator = Operator()
    command = RemoveDeployment(operator.request(), operator.state.version, DeploymentId("dp_a"))
    refused = operator.do(command)
    operator.register("a", service("A"))
    assert operator.do(command) == refused
    assert operator.latest() == {"A": ("dp_a", 1)}


def test_an_operator_skips_a_record_once() -> None:
    operator = Operator(partitions=4)
    assert operator.do(SkipRecord(operator.request(), PartitionId(3), Offset(12))) == Applied(2)
    assert operator.do(SkipRecord(operator.request(), PartitionId(3), Offset(12))) == Applied(2)
    assert operator.state.skips == {3: [12]}
    assert operator.do(SkipRecord(operator.request(), PartitionId(4), Offset(1))) == Rejected(
        404, None, "there is no partition 4: they are numbered 0 to 3"
    )


def test_no_more_records_are_skipped_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "SKIPS_PER_PARTITION_MAX", 2)
    operator = Operator()
    for offset in range(2):
        operator.do(SkipRecord(operator.request(), PartitionId(0), Offset(offset)))
    refused = operator.do(SkipRecord(operator.request(), PartitionId(0), Offset(2)))
    assert isinstance(refused, Rejected)
    assert refused.status == 429


def test_no_more_deployments_are_registered_than_the_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine, "DEPLOYMENTS_MAX", 2)
    operator = Operator()
    operator.register("a", service("A"))
    operator.register("b", service("B"))
    refused = operator.register("c", service("C"))
    assert isinstance(refused, Rejected)
    assert refused.status == 429
    assert operator.register("b", service("B"), force=True) == Applied(4, DeploymentId("dp_b"))
    operator.remove("dp_a")
    assert isinstance(operator.register("c", service("C")), Applied)


def test_every_command_and_outcome_survives_the_codec() -> None:
    operator = Operator()
    for sent in (
        Layout(operator.request(), "cluster", 8, SLOTS),
        operator.registration("a", service("A", ServiceKind.WORKFLOW), force=True),
        RemoveDeployment(operator.request(), 3, DeploymentId("dp_a")),
        PatchService(operator.request(), 3, "A", ServicePatch(public=False, abort_timeout_ms=5)),
        SkipRecord(operator.request(), PartitionId(1), Offset(1 << 40)),
        Applied(1, DeploymentId("dp_a"), created=True),
        VersionConflict(4),
        Rejected(409, "META0006", "no"),
    ):
        assert codec.decode(codec.encode(sent)) == sent

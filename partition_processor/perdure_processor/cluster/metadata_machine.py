"""● core · The state machine of the metadata log: who is registered where, and how the cluster is laid out.

Everything a cluster agrees on outside its partitions is the result of this log (correctness 23).  A
command says which version it was made for; if another came first it changes nothing and its proposer
looks again.  That also makes a doubled append harmless: only one copy can find the version it names.
The answers are remembered for a while, so that the second copy gets the first one's.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from dataclasses import field
from typing import TypeAlias, assert_never

from perdure_processor.model import codec
from perdure_processor.model.ids import DeploymentId, Millis, Offset, PartitionId
from perdure_processor.model.limits import DEPLOYMENTS_MAX, METADATA_ANSWERS_KEPT, SKIPS_PER_PARTITION_MAX
from perdure_processor.model.registration import (
    RegisteredDeployment,
    RegisteredService,
    ServiceKind,
    ServicePatch,
)
from perdure_processor.model.results import RequestId
from perdure_processor.model.value import value

KIND_NAMES = {
    ServiceKind.SERVICE: "Service",
    ServiceKind.VIRTUAL_OBJECT: "VirtualObject",
    ServiceKind.WORKFLOW: "Workflow",
}


@value
class Layout:
    """The first record ever: which cluster this is, and how many partitions its slots are cut into."""

    request: RequestId
    cluster_id: str
    partitions: int
    slots: int


@value
class RegisterDeployment:
    """An endpoint was discovered at `uri`; its services become the latest of their names.

    Without `force` an address that is known already changes nothing. `id` is used if the address is new."""

    request: RequestId
    expected_version: int
    id: DeploymentId
    uri: str
    http1: bool
    bidirectional: bool
    additional_headers: dict[str, str]
    metadata: dict[str, str]
    min_protocol_version: int
    max_protocol_version: int
    sdk_version: str | None
    services: list[RegisteredService]
    force: bool
    permit_type_change: bool


@value
class RemoveDeployment:
    """Forget a deployment; the previous one of each of its services becomes the latest again."""

    request: RequestId
    expected_version: int
    id: DeploymentId


@value
class PatchService:
    """Set what `settings` names on a service, above its manifest, until no deployment serves it any more."""

    request: RequestId
    expected_version: int
    service: str
    settings: ServicePatch


@value
class SkipRecord:
    """An operator's act: this record makes apply raise, the partition goes on without it (correctness 26)."""

    request: RequestId
    partition: PartitionId
    offset: Offset


@value
class Found:
    """What an address said about itself when it was asked; `services` None keeps those that are registered."""

    bidirectional: bool
    min_protocol_version: int
    max_protocol_version: int
    sdk_version: str | None
    services: list[RegisteredService] | None


@value
class UpdateDeployment:
    """Reach a deployment elsewhere or otherwise; None keeps what there is. Its revisions stay what they are."""

    request: RequestId
    expected_version: int
    id: DeploymentId
    uri: str | None
    http1: bool | None
    additional_headers: dict[str, str] | None
    found: Found | None


@value
class ActivateDeployment:
    """Make a deployment the latest of each of its services again, as it is registered."""

    request: RequestId
    expected_version: int
    id: DeploymentId


MetadataCommand: TypeAlias = (
    Layout | RegisterDeployment | RemoveDeployment | PatchService | SkipRecord | UpdateDeployment | ActivateDeployment
)


@value
class Applied:
    """The command holds from `version` on. `deployment_id` is what was registered; `created` if it was new."""

    version: int
    deployment_id: DeploymentId | None = None
    created: bool = False


@value
class VersionConflict:
    """Another command came first: look at `version` and decide again."""

    version: int


@value
class Rejected:
    """The command can not hold; status, code and message are for the client."""

    status: int
    code: str | None
    message: str


MetadataOutcome: TypeAlias = Applied | VersionConflict | Rejected


@value
class Answer:
    request: RequestId
    outcome: MetadataOutcome


@value
class MetadataState:
    """All of the cluster's metadata at one version; replaced as a whole, unchanged parts are shared."""

    version: int = 0
    layout: Layout | None = None
    deployments: dict[DeploymentId, RegisteredDeployment] = field(default_factory=dict)
    patches: dict[str, ServicePatch] = field(default_factory=dict)
    skips: dict[int, list[int]] = field(default_factory=dict)  # partition → offsets
    answers: list[Answer] = field(default_factory=list)  # oldest first


for _tag, _cls in (
    (200, Layout),
    (201, RegisterDeployment),
    (202, RemoveDeployment),
    (203, PatchService),
    (204, SkipRecord),
    (205, Applied),
    (206, VersionConflict),
    (207, Rejected),
    (208, UpdateDeployment),
    (209, ActivateDeployment),
):
    codec.register(_tag, _cls)


def apply(state: MetadataState, command: MetadataCommand, now_ms: Millis) -> tuple[MetadataState, MetadataOutcome]:
    """The state after one command, and what its proposer is told. `now_ms` is the record's timestamp."""
    for answer in state.answers:
        if answer.request == command.request:
            return state, answer.outcome
    changed, outcome = _decide(state, command, now_ms)
    answers = [*state.answers, Answer(command.request, outcome)][-METADATA_ANSWERS_KEPT:]
    return dataclasses.replace(changed, answers=answers), outcome


def _decide(state: MetadataState, command: MetadataCommand, now_ms: Millis) -> tuple[MetadataState, MetadataOutcome]:
    if isinstance(command, Layout):
        return _on_layout(state, command)
    if state.layout is None:
        return state, Rejected(503, None, "the cluster has no layout yet")
    if isinstance(command, SkipRecord):
        return _on_skip(state, state.layout, command)
    if command.expected_version != state.version:
        return state, VersionConflict(state.version)
    match command:
        case RegisterDeployment():
            return _on_register(state, command, now_ms)
        case RemoveDeployment():
            return _on_remove(state, command)
        case PatchService():
            return _on_patch(state, command)
        case UpdateDeployment():
            return _on_update(state, command)
        case ActivateDeployment():
            return _on_activate(state, command)
        case _:
            assert_never(command)


def _on_layout(state: MetadataState, command: Layout) -> tuple[MetadataState, MetadataOutcome]:
    known = state.layout
    if known is None:
        version = state.version + 1
        return dataclasses.replace(state, version=version, layout=command), Applied(version)
    if (known.partitions, known.slots) == (command.partitions, command.slots):
        return state, Applied(state.version)  # two nodes' first start: the first one's cluster id stands
    return state, Rejected(
        409,
        None,
        f"this cluster was laid out with {known.partitions} partitions (of {known.slots} slots) at its first "
        "start, and that is fixed because it says where every key is stored: "
        f"{command.partitions} partitions (of {command.slots} slots) cannot be used with this data",
    )


def _on_register(
    state: MetadataState, command: RegisterDeployment, now_ms: Millis
) -> tuple[MetadataState, MetadataOutcome]:
    known = deployment_at(state, command.uri)
    if known is not None and not command.force:
        return state, Applied(state.version, known.id)
    if known is None and len(state.deployments) >= DEPLOYMENTS_MAX:
        return state, Rejected(
            429, None, f"{DEPLOYMENTS_MAX} deployments are registered, no more are kept: remove one first"
        )
    revisions: dict[str, int] = {}
    for service in command.services:
        latest = _latest(state.deployments.values(), service.name)
        if latest is None:
            revisions[service.name] = 1
            continue
        revision, kind = latest
        if kind is not service.kind and not command.permit_type_change:
            return state, Rejected(
                409,
                "META0006",
                f"[META0006] detected a new service revision for '{service.name}' changing the service type "
                "from previous revision. Service type cannot be changed across revisions. "
                f"It is a {KIND_NAMES[kind]} now and would become a {KIND_NAMES[service.kind]}; "
                '"breaking": true permits that.',
            )
        revisions[service.name] = revision + 1
    deployment = RegisteredDeployment(
        id=command.id if known is None else known.id,
        uri=command.uri,
        http1=command.http1,
        bidirectional=command.bidirectional,
        additional_headers=command.additional_headers,
        metadata=command.metadata,
        min_protocol_version=command.min_protocol_version,
        max_protocol_version=command.max_protocol_version,
        sdk_version=command.sdk_version,
        services=command.services,
        created_at_ms=now_ms,
        revisions=revisions,
    )
    changed = _with_deployments(state, {**state.deployments, deployment.id: deployment})
    return changed, Applied(changed.version, deployment.id, created=known is None)


def _on_remove(state: MetadataState, command: RemoveDeployment) -> tuple[MetadataState, MetadataOutcome]:
    if command.id not in state.deployments:
        return state, Rejected(404, None, f"not found in the schema registry: deployment with id '{command.id}'")
    deployments = {key: kept for key, kept in state.deployments.items() if key != command.id}
    changed = _with_deployments(state, deployments)
    return changed, Applied(changed.version, command.id)


def _on_update(state: MetadataState, command: UpdateDeployment) -> tuple[MetadataState, MetadataOutcome]:
    known = state.deployments.get(command.id)
    if known is None:
        return state, Rejected(404, None, f"The requested deployment '{command.id}' does not exist")
    uri = known.uri if command.uri is None else command.uri
    other = deployment_at(state, uri)
    if other is not None and other.id != command.id:
        return state, Rejected(409, None, f"deployment {other.id} is registered at {uri} already")
    changed = dataclasses.replace(
        known,
        uri=uri,
        http1=known.http1 if command.http1 is None else command.http1,
        additional_headers=known.additional_headers
        if command.additional_headers is None
        else command.additional_headers,
    )
    if command.found is not None:
        found = command.found
        changed = dataclasses.replace(
            changed,
            bidirectional=found.bidirectional,
            min_protocol_version=found.min_protocol_version,
            max_protocol_version=found.max_protocol_version,
            sdk_version=found.sdk_version,
        )
        if found.services is not None:
            revisions: dict[str, int] = {}
            for service in found.services:
                latest = _latest(state.deployments.values(), service.name)
                if latest is not None and latest[1] is not service.kind:
                    return state, _other_type(service.name, latest[1], service.kind)
                # What it served already keeps its number: an update makes nothing the latest.
                number = 1 if latest is None else latest[0] + 1
                revisions[service.name] = known.revisions.get(service.name, number)
            changed = dataclasses.replace(changed, services=found.services, revisions=revisions)
    if changed == known:
        return state, Applied(state.version, known.id)
    after = _with_deployments(state, {**state.deployments, known.id: changed})
    return after, Applied(after.version, known.id)


def _on_activate(state: MetadataState, command: ActivateDeployment) -> tuple[MetadataState, MetadataOutcome]:
    known = state.deployments.get(command.id)
    if known is None:
        return state, Rejected(404, None, f"The requested deployment '{command.id}' does not exist")
    revisions = dict(known.revisions)
    for service in known.services:
        latest = _latest(state.deployments.values(), service.name)
        assert latest is not None, "it serves it itself"
        revision, kind = latest
        if kind is not service.kind:
            return state, _other_type(service.name, kind, service.kind)
        if revisions[service.name] != revision:
            revisions[service.name] = revision + 1
    if revisions == known.revisions:
        return state, Applied(state.version, known.id)  # it is the latest of all it has
    deployment = dataclasses.replace(known, revisions=revisions)
    after = _with_deployments(state, {**state.deployments, known.id: deployment})
    return after, Applied(after.version, known.id)


def _other_type(service: str, now: ServiceKind, then: ServiceKind) -> Rejected:
    return Rejected(
        409,
        "META0006",
        f"[META0006] the service '{service}' is a {KIND_NAMES[now]} now and would become a {KIND_NAMES[then]}: "
        "its type cannot be changed this way",
    )


def _on_patch(state: MetadataState, command: PatchService) -> tuple[MetadataState, MetadataOutcome]:
    latest = _latest(state.deployments.values(), command.service)
    if latest is None:
        return state, Rejected(404, None, f"not found in the schema registry: service with name '{command.service}'")
    _, kind = latest
    if command.settings.workflow_retention_ms is not None and kind is not ServiceKind.WORKFLOW:
        return state, Rejected(
            400, None, f"modifying retention time for service type {KIND_NAMES[kind]} is unsupported"
        )
    merged = _merge(state.patches.get(command.service, ServicePatch()), command.settings)
    version = state.version + 1
    patches = {**state.patches, command.service: merged}
    return dataclasses.replace(state, version=version, patches=patches), Applied(version)


def _on_skip(state: MetadataState, layout: Layout, command: SkipRecord) -> tuple[MetadataState, MetadataOutcome]:
    if not 0 <= command.partition < layout.partitions:
        return state, Rejected(
            404,
            None,
            f"there is no partition {command.partition}: they are numbered 0 to {layout.partitions - 1}",
        )
    known = state.skips.get(command.partition, [])
    if command.offset in known:
        return state, Applied(state.version)
    if len(known) >= SKIPS_PER_PARTITION_MAX:
        return state, Rejected(
            429,
            None,
            f"{SKIPS_PER_PARTITION_MAX} records of partition {command.partition} are skipped already",
        )
    version = state.version + 1
    skips = {**state.skips, command.partition: [*known, command.offset]}
    return dataclasses.replace(state, version=version, skips=skips), Applied(version)


def deployment_at(state: MetadataState, uri: str) -> RegisteredDeployment | None:
    """The deployment registered at an address, if any; addresses come without a trailing slash."""
    return next((known for known in state.deployments.values() if known.uri == uri), None)


def _latest(deployments: Iterable[RegisteredDeployment], name: str) -> tuple[int, ServiceKind] | None:
    """Highest revision of a service among these deployments, and its kind there."""
    latest: tuple[int, ServiceKind] | None = None
    for deployment in deployments:
        revision = deployment.revisions.get(name)
        if revision is not None and (latest is None or revision > latest[0]):
            service = next(service for service in deployment.services if service.name == name)
            latest = (revision, service.kind)
    return latest


def _with_deployments(state: MetadataState, deployments: dict[DeploymentId, RegisteredDeployment]) -> MetadataState:
    """The next version with these deployments; a PATCH goes with the last one that serves its service."""
    patches = {
        name: patch
        for name, patch in state.patches.items()
        if any(name in deployment.revisions for deployment in deployments.values())
    }
    return dataclasses.replace(state, version=state.version + 1, deployments=deployments, patches=patches)


def _merge(below: ServicePatch, above: ServicePatch) -> ServicePatch:
    """`above` where it says something, `below` elsewhere."""
    said = {part.name: getattr(above, part.name) for part in dataclasses.fields(ServicePatch)}
    return dataclasses.replace(below, **{name: setting for name, setting in said.items() if setting is not None})

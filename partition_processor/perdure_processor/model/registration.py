"""● core · What deployments announced, as the metadata log and its snapshot keep it: unresolved.

These shapes are persisted, so they are ours and not those of the wire's manifest: fields are only ever
appended, with a default. What they mean together with the server's defaults is in resolution.py.
"""

from __future__ import annotations

import enum
from dataclasses import field

from perdure_processor.model import codec
from perdure_processor.model.ids import DeploymentId, Millis
from perdure_processor.model.value import value


class ServiceKind(enum.IntEnum):
    SERVICE = 0
    VIRTUAL_OBJECT = 1
    WORKFLOW = 2

    @property
    def keyed(self) -> bool:
        return self is not ServiceKind.SERVICE


class HandlerKind(enum.IntEnum):
    """STATELESS is a plain service's only kind; WORKFLOW is the run handler of a workflow."""

    STATELESS = 0
    EXCLUSIVE = 1
    SHARED = 2
    WORKFLOW = 3


@value
class Options:
    """What a service or a handler asks for; None leaves the matter to the next level."""

    public: bool | None = None
    inactivity_timeout_ms: int | None = None
    abort_timeout_ms: int | None = None
    journal_retention_ms: int | None = None
    idempotency_retention_ms: int | None = None
    lazy_state: bool | None = None
    retry_initial_interval_ms: int | None = None
    retry_factor: float | None = None
    retry_max_interval_ms: int | None = None
    retry_max_attempts: int | None = None
    retry_kill_on_max_attempts: bool | None = None


@value
class RegisteredInput:
    """A handler's `input` object; the schema is JSON text, shown to people and never enforced."""

    required: bool
    content_type: str | None
    json_schema: str | None


@value
class RegisteredOutput:
    """A handler's `output` object."""

    content_type: str | None
    set_content_type_if_empty: bool
    json_schema: str | None


@value
class RegisteredHandler:
    """One handler as announced. Without `input` anything passes; without `output` the answer is JSON."""

    name: str
    kind: HandlerKind
    options: Options
    workflow_retention_ms: int | None
    input: RegisteredInput | None
    output: RegisteredOutput | None
    documentation: str | None
    metadata: dict[str, str] = field(default_factory=dict)


@value
class RegisteredService:
    """One service as announced, with its handlers in the manifest's order."""

    name: str
    kind: ServiceKind
    options: Options
    handlers: list[RegisteredHandler]
    documentation: str | None
    metadata: dict[str, str] = field(default_factory=dict)


@value
class RegisteredDeployment:
    """An address and the manifest it answered with. `revisions` numbers each of its services."""

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
    created_at_ms: Millis
    revisions: dict[str, int]


@value
class ServicePatch:
    """What an operator set by PATCH on a service: it stands above the manifest's service level.

    None leaves a setting as it was. It lasts over new revisions, until no deployment serves the service."""

    public: bool | None = None
    idempotency_retention_ms: int | None = None
    workflow_retention_ms: int | None = None
    journal_retention_ms: int | None = None
    inactivity_timeout_ms: int | None = None
    abort_timeout_ms: int | None = None


codec.register(211, RegisteredDeployment)
codec.register(212, ServicePatch)

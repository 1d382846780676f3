"""● core · What is registered: services, handlers, deployments and their policies, all resolved."""

from __future__ import annotations

from dataclasses import dataclass, field

from perdure_processor.model.ids import DeploymentId, Millis
from perdure_processor.model.registration import (
    HandlerKind,
    RegisteredHandler,
    RegisteredService,
    ServiceKind,
)
from perdure_processor.model.value import value

__all__ = [
    "DeploymentSchema",
    "HandlerKind",
    "HandlerSchema",
    "InputRule",
    "Note",
    "RetryPolicy",
    "Schema",
    "ServiceKind",
    "ServiceSchema",
    "ServiceSettings",
]


@value
class RetryPolicy:
    """The server's retries of failed attempts. `max_attempts` counts the first one; None is without end."""

    initial_interval_ms: int
    factor: float
    max_interval_ms: int
    max_attempts: int | None
    kill_on_max_attempts: bool  # False pauses


@value
class InputRule:
    """One way a request may look: each is an alternative, any one that fits lets the request pass.

    only_empty: body empty and no content type. content_type: must match (wildcards allowed).
    body_required: the body must not be empty."""

    only_empty: bool
    content_type: str | None
    body_required: bool


@value
class Note:
    """Something was asked for and not granted: RT0021 (has no meaning in this mode) or RT0022 (clamped).

    The numbers are milliseconds, or attempts for `max_attempts`."""

    code: str
    setting: str
    asked: int
    granted: int


@value
class HandlerSchema:
    """One handler with everything resolved: handler over service over server defaults, clamped."""

    name: str
    kind: HandlerKind
    public: bool
    input_rules: list[InputRule]
    output_content_type: str | None  # None: answer without a content type
    set_content_type_if_empty: bool
    inactivity_timeout_ms: int
    abort_timeout_ms: int
    journal_retention_ms: int
    # What keeps the result: idempotency retention, or the workflow's for its run handler.
    completion_retention_ms: int
    lazy_state: bool
    retry_policy: RetryPolicy
    # As announced, for the admin API; None only in tests that need no more than the above.
    registered: RegisteredHandler | None = None
    notes: list[Note] = field(default_factory=list)


@value
class ServiceSettings:
    """What holds for the handlers of a service that ask for nothing themselves."""

    inactivity_timeout_ms: int
    abort_timeout_ms: int
    journal_retention_ms: int
    idempotency_retention_ms: int
    workflow_retention_ms: int | None  # of the run handler; None if this is no workflow
    lazy_state: bool
    retry_policy: RetryPolicy


@value
class ServiceSchema:
    """One revision of a service: the latest in Schema.services, each deployment's own in its `described`."""

    name: str
    kind: ServiceKind
    revision: int
    deployment_id: DeploymentId
    public: bool
    handlers: dict[str, HandlerSchema]
    # For the admin API, as in HandlerSchema.
    settings: ServiceSettings | None = None
    registered: RegisteredService | None = None
    notes: list[Note] = field(default_factory=list)


@value
class DeploymentSchema:
    """One registered deployment: an address and the manifest it answered with."""

    id: DeploymentId
    uri: str
    http1: bool
    bidirectional: bool
    additional_headers: dict[str, str]
    min_protocol_version: int
    max_protocol_version: int
    created_at_ms: Millis
    sdk_version: str | None
    # (service, revision) of what this deployment serves
    services: dict[str, int]
    metadata: dict[str, str] = field(default_factory=dict)
    # The services as this deployment serves them, latest or not: what a pinned invocation runs under.
    described: dict[str, ServiceSchema] = field(default_factory=dict)


@dataclass(slots=True)
class Schema:
    """All that is registered, at one version of the metadata; replaced as a whole, never changed in place."""

    version: int = 0
    services: dict[str, ServiceSchema] = field(default_factory=dict)
    deployments: dict[DeploymentId, DeploymentSchema] = field(default_factory=dict)

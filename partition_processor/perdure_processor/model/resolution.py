"""● core · From what was announced to what holds: handler over PATCH over service over defaults, clamped."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from perdure_processor.model.ids import DeploymentId
from perdure_processor.model.limits import (
    ABORT_TIMEOUT_MS,
    INACTIVITY_TIMEOUT_MS,
    RETRY_ATTEMPTS_MAX,
    RETRY_DELAY_MS_FIRST,
    RETRY_DELAY_MS_MAX,
    RETRY_FACTOR,
)
from perdure_processor.model.registration import (
    HandlerKind,
    Options,
    RegisteredDeployment,
    RegisteredHandler,
    RegisteredInput,
    RegisteredService,
    ServiceKind,
    ServicePatch,
)
from perdure_processor.model.schema import (
    DeploymentSchema,
    HandlerSchema,
    InputRule,
    Note,
    RetryPolicy,
    Schema,
    ServiceSchema,
    ServiceSettings,
)
from perdure_processor.model.value import value

T = TypeVar("T")

_DAY_MS = 86_400_000
_UNPATCHED = ServicePatch()
DEFAULT_RETRY_POLICY = RetryPolicy(RETRY_DELAY_MS_FIRST, RETRY_FACTOR, RETRY_DELAY_MS_MAX, RETRY_ATTEMPTS_MAX, False)


@value
class Defaults:
    """What the server's configuration says where nobody else does, and the most it grants (None: any)."""

    inactivity_timeout_ms: int = INACTIVITY_TIMEOUT_MS
    abort_timeout_ms: int = ABORT_TIMEOUT_MS
    journal_retention_ms: int = _DAY_MS
    idempotency_retention_ms: int = _DAY_MS
    workflow_retention_ms: int = _DAY_MS
    retry_policy: RetryPolicy = DEFAULT_RETRY_POLICY
    journal_retention_ms_max: int | None = None
    idempotency_retention_ms_max: int | None = None
    workflow_retention_ms_max: int | None = None
    retry_max_attempts_max: int | None = None


@value
class Known:
    """What a Schema was built from; the next one takes over what did not change."""

    deployments: Mapping[DeploymentId, RegisteredDeployment]
    patches: Mapping[str, ServicePatch]
    schema: Schema


def build_schema(
    version: int,
    deployments: Mapping[DeploymentId, RegisteredDeployment],
    patches: Mapping[str, ServicePatch],
    defaults: Defaults,
    known: Known | None = None,
) -> Schema:
    """The schema at one version of the metadata. With `known` (of the same defaults) only changes cost."""
    schema = Schema(version)
    for deployment in deployments.values():
        resolved = _unchanged(deployment, patches, known) if known is not None else None
        if resolved is None:
            resolved = _resolve_deployment(deployment, patches, defaults)
        schema.deployments[deployment.id] = resolved
        for name, service in resolved.described.items():
            latest = schema.services.get(name)
            if latest is None or service.revision > latest.revision:
                schema.services[name] = service
    return schema


def _unchanged(
    deployment: RegisteredDeployment, patches: Mapping[str, ServicePatch], known: Known
) -> DeploymentSchema | None:
    if known.deployments.get(deployment.id) is not deployment:
        return None
    if any(patches.get(name) is not known.patches.get(name) for name in deployment.revisions):
        return None
    return known.schema.deployments[deployment.id]


def _resolve_deployment(
    deployment: RegisteredDeployment, patches: Mapping[str, ServicePatch], defaults: Defaults
) -> DeploymentSchema:
    return DeploymentSchema(
        id=deployment.id,
        uri=deployment.uri,
        http1=deployment.http1,
        bidirectional=deployment.bidirectional,
        additional_headers=deployment.additional_headers,
        min_protocol_version=deployment.min_protocol_version,
        max_protocol_version=deployment.max_protocol_version,
        created_at_ms=deployment.created_at_ms,
        sdk_version=deployment.sdk_version,
        services=deployment.revisions,
        metadata=deployment.metadata,
        described={
            service.name: _resolve_service(service, deployment, patches.get(service.name, _UNPATCHED), defaults)
            for service in deployment.services
        },
    )


def _resolve_service(
    service: RegisteredService, deployment: RegisteredDeployment, patch: ServicePatch, defaults: Defaults
) -> ServiceSchema:
    asked, notes = service.options, list[Note]()
    inactivity_timeout_ms = patch.inactivity_timeout_ms
    if inactivity_timeout_ms is None:
        inactivity_timeout_ms = asked.inactivity_timeout_ms
    settings = ServiceSettings(
        inactivity_timeout_ms=_inactivity(inactivity_timeout_ms, defaults.inactivity_timeout_ms, deployment, notes),
        abort_timeout_ms=_first(patch.abort_timeout_ms, asked.abort_timeout_ms, defaults.abort_timeout_ms),
        journal_retention_ms=_clamp(
            _first(patch.journal_retention_ms, asked.journal_retention_ms, defaults.journal_retention_ms),
            defaults.journal_retention_ms_max,
            "journal_retention",
            notes,
        ),
        idempotency_retention_ms=_clamp(
            _first(
                patch.idempotency_retention_ms,
                asked.idempotency_retention_ms,
                defaults.idempotency_retention_ms,
            ),
            defaults.idempotency_retention_ms_max,
            "idempotency_retention",
            notes,
        ),
        workflow_retention_ms=_workflow_retention(service, patch, defaults, notes),
        lazy_state=_first(asked.lazy_state, False),
        retry_policy=_retry_policy(asked, defaults.retry_policy, defaults.retry_max_attempts_max, notes),
    )
    public = _first(patch.public, asked.public, True)
    return ServiceSchema(
        name=service.name,
        kind=service.kind,
        revision=deployment.revisions[service.name],
        deployment_id=deployment.id,
        public=public,
        handlers={
            handler.name: _resolve_handler(handler, deployment, public, settings, defaults)
            for handler in service.handlers
        },
        settings=settings,
        registered=service,
        notes=notes,
    )


def _resolve_handler(
    handler: RegisteredHandler,
    deployment: RegisteredDeployment,
    service_public: bool,
    settings: ServiceSettings,
    defaults: Defaults,
) -> HandlerSchema:
    asked, notes = handler.options, list[Note]()
    output = handler.output
    if handler.kind is HandlerKind.WORKFLOW:
        assert settings.workflow_retention_ms is not None, "only a workflow has a run handler"
        completion_retention_ms = settings.workflow_retention_ms
    elif asked.idempotency_retention_ms is not None:
        completion_retention_ms = _clamp(
            asked.idempotency_retention_ms,
            defaults.idempotency_retention_ms_max,
            "idempotency_retention",
            notes,
        )
    else:
        completion_retention_ms = settings.idempotency_retention_ms
    if asked.journal_retention_ms is not None:
        journal_retention_ms = _clamp(
            asked.journal_retention_ms, defaults.journal_retention_ms_max, "journal_retention", notes
        )
    else:
        journal_retention_ms = settings.journal_retention_ms
    return HandlerSchema(
        name=handler.name,
        kind=handler.kind,
        # A private service hides all its handlers; a PATCH that publishes it leaves private handlers private.
        public=service_public and asked.public is not False,
        input_rules=input_rules(handler.input),
        output_content_type="application/json" if output is None else output.content_type,
        set_content_type_if_empty=output is not None and output.set_content_type_if_empty,
        inactivity_timeout_ms=_inactivity(
            asked.inactivity_timeout_ms, settings.inactivity_timeout_ms, deployment, notes
        ),
        abort_timeout_ms=_first(asked.abort_timeout_ms, settings.abort_timeout_ms),
        journal_retention_ms=journal_retention_ms,
        completion_retention_ms=completion_retention_ms,
        lazy_state=_first(asked.lazy_state, settings.lazy_state),
        retry_policy=_retry_policy(asked, settings.retry_policy, defaults.retry_max_attempts_max, notes),
        registered=handler,
        notes=notes,
    )


def input_rules(announced: RegisteredInput | None) -> list[InputRule]:
    """The alternatives a request to this handler may choose from; never empty."""
    nothing = InputRule(only_empty=True, content_type=None, body_required=False)
    if announced is None:
        return [nothing, InputRule(only_empty=False, content_type="*/*", body_required=False)]
    rules = [] if announced.required else [nothing]
    if announced.content_type is not None:
        rules.append(InputRule(False, announced.content_type, body_required=announced.json_schema is not None))
    elif announced.required:
        # A body of no named type: Restate makes a handler of this that nobody can call.
        rules.append(InputRule(False, "*/*", body_required=True))
    return rules


def _workflow_retention(
    service: RegisteredService, patch: ServicePatch, defaults: Defaults, notes: list[Note]
) -> int | None:
    if service.kind is not ServiceKind.WORKFLOW:
        return None
    announced = next(
        (handler.workflow_retention_ms for handler in service.handlers if handler.kind is HandlerKind.WORKFLOW),
        None,
    )
    return _clamp(
        _first(announced, patch.workflow_retention_ms, defaults.workflow_retention_ms),
        defaults.workflow_retention_ms_max,
        "workflow_completion_retention",
        notes,
    )


def _retry_policy(asked: Options, base: RetryPolicy, max_attempts_max: int | None, notes: list[Note]) -> RetryPolicy:
    max_attempts = base.max_attempts
    if asked.retry_max_attempts is not None:
        max_attempts = max(1, asked.retry_max_attempts)  # the first attempt is one, so none at all is not on offer
    if max_attempts_max is not None and (max_attempts is None or max_attempts > max_attempts_max):
        max_attempts = max_attempts_max
        if asked.retry_max_attempts is not None:
            notes.append(Note("RT0022", "max_attempts", asked.retry_max_attempts, max_attempts_max))
    return RetryPolicy(
        initial_interval_ms=_first(asked.retry_initial_interval_ms, base.initial_interval_ms),
        factor=_first(asked.retry_factor, base.factor),
        max_interval_ms=_first(asked.retry_max_interval_ms, base.max_interval_ms),
        max_attempts=max_attempts,
        kill_on_max_attempts=_first(asked.retry_kill_on_max_attempts, base.kill_on_max_attempts),
    )


def _inactivity(asked_ms: int | None, otherwise_ms: int, deployment: RegisteredDeployment, notes: list[Note]) -> int:
    if deployment.bidirectional:
        return otherwise_ms if asked_ms is None else asked_ms
    # The request's end is sent with the request, so the handler is told to suspend from the start.
    if asked_ms is not None:
        notes.append(Note("RT0021", "inactivity_timeout", asked_ms, 0))
    return 0


def _clamp(asked_ms: int, max_ms: int | None, setting: str, notes: list[Note]) -> int:
    if max_ms is None or asked_ms <= max_ms:
        return asked_ms
    notes.append(Note("RT0022", setting, asked_ms, max_ms))
    return max_ms


def _first(*candidates: T | None) -> T:
    for candidate in candidates:
        if candidate is not None:
            return candidate
    raise AssertionError("the last level always says something")

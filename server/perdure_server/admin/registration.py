"""● core · From a discovery answer to the command that registers it: the manifest as the metadata log keeps it."""

from __future__ import annotations

import json
from typing import Any

from perdure.protocol.manifest import (
    EndpointManifest,
    HandlerManifest,
    HandlerType,
    OnMaxAttempts,
    ProtocolMode,
    ServiceManifest,
    ServiceType,
)
from perdure.protocol.manifest import Options as ManifestOptions
from perdure_processor.cluster.metadata_machine import Found, RegisterDeployment, UpdateDeployment
from perdure_processor.model.ids import DeploymentId
from perdure_processor.model.registration import (
    HandlerKind,
    Options,
    RegisteredHandler,
    RegisteredInput,
    RegisteredOutput,
    RegisteredService,
    ServiceKind,
)
from perdure_processor.model.results import RequestId
from perdure_server.admin.bodies import RegisterBody, UpdateBody
from perdure_server.admin.errors import AdminError
from perdure_server.limits import SCHEMA_BYTES_MAX

_SERVICE_KINDS = {
    ServiceType.SERVICE: ServiceKind.SERVICE,
    ServiceType.VIRTUAL_OBJECT: ServiceKind.VIRTUAL_OBJECT,
    ServiceType.WORKFLOW: ServiceKind.WORKFLOW,
}
_HANDLER_KINDS = {
    None: HandlerKind.STATELESS,
    HandlerType.EXCLUSIVE: HandlerKind.EXCLUSIVE,
    HandlerType.SHARED: HandlerKind.SHARED,
    HandlerType.WORKFLOW: HandlerKind.WORKFLOW,
}


def registered_services(manifest: EndpointManifest) -> list[RegisteredService]:
    """The services of a manifest; raises AdminError for what it is too large to keep."""
    return [_service(service) for service in manifest.services]


def register_command(
    request: RequestId,
    expected_version: int,
    new_id: DeploymentId,
    body: RegisterBody,
    manifest: EndpointManifest,
    services: list[RegisteredService],
    sdk_version: str | None,
) -> RegisterDeployment:
    """The command of one registration, to be made anew for each version it is tried at."""
    return RegisterDeployment(
        request=request,
        expected_version=expected_version,
        id=new_id,
        uri=body.uri,
        http1=body.use_http_11,
        bidirectional=manifest.protocol_mode is ProtocolMode.BIDI_STREAM,
        additional_headers=body.additional_headers,
        metadata=body.metadata,
        min_protocol_version=manifest.min_protocol_version,
        max_protocol_version=manifest.max_protocol_version,
        sdk_version=sdk_version,
        services=services,
        force=body.force,
        # As the original: who forces accepts a change of type, at a new address too.
        permit_type_change=body.breaking or body.force,
    )


def update_command(
    request: RequestId,
    expected_version: int,
    deployment_id: DeploymentId,
    body: UpdateBody,
    asked: tuple[EndpointManifest, str | None] | None,
) -> UpdateDeployment:
    """The command of one update; `asked` is what the address said, if it was asked."""
    found = None
    if asked is not None:
        manifest, sdk_version = asked
        found = Found(
            bidirectional=manifest.protocol_mode is ProtocolMode.BIDI_STREAM,
            min_protocol_version=manifest.min_protocol_version,
            max_protocol_version=manifest.max_protocol_version,
            sdk_version=sdk_version,
            services=registered_services(manifest) if body.overwrite else None,
        )
    return UpdateDeployment(
        request, expected_version, deployment_id, body.uri, body.use_http_11, body.additional_headers, found
    )


def _service(service: ServiceManifest) -> RegisteredService:
    return RegisteredService(
        name=service.name,
        kind=_SERVICE_KINDS[service.type],
        options=_options(service),
        handlers=[_handler(service.name, handler) for handler in service.handlers],
        documentation=service.documentation,
        metadata=dict(service.metadata),
    )


def _handler(service: str, handler: HandlerManifest) -> RegisteredHandler:
    place = f"{service}/{handler.name}"
    announced_input, announced_output = handler.input, handler.output
    return RegisteredHandler(
        name=handler.name,
        kind=_HANDLER_KINDS[handler.type],
        options=_options(handler),
        workflow_retention_ms=handler.workflow_completion_retention_ms,
        input=None
        if announced_input is None
        else RegisteredInput(
            required=announced_input.required,
            content_type=announced_input.content_type,
            json_schema=_schema_text(f"{place} input", announced_input.json_schema),
        ),
        output=None
        if announced_output is None
        else RegisteredOutput(
            content_type=announced_output.content_type,
            set_content_type_if_empty=announced_output.set_content_type_if_empty,
            json_schema=_schema_text(f"{place} output", announced_output.json_schema),
        ),
        documentation=handler.documentation,
        metadata=dict(handler.metadata),
    )


def _options(announced: ManifestOptions) -> Options:
    private, on_max_attempts = announced.ingress_private, announced.retry_on_max_attempts
    return Options(
        public=None if private is None else not private,
        inactivity_timeout_ms=announced.inactivity_timeout_ms,
        abort_timeout_ms=announced.abort_timeout_ms,
        journal_retention_ms=announced.journal_retention_ms,
        idempotency_retention_ms=announced.idempotency_retention_ms,
        lazy_state=announced.enable_lazy_state,
        retry_initial_interval_ms=announced.retry_initial_interval_ms,
        retry_factor=announced.retry_exponentiation_factor,
        retry_max_interval_ms=announced.retry_max_interval_ms,
        retry_max_attempts=announced.retry_max_attempts,
        retry_kill_on_max_attempts=None if on_max_attempts is None else on_max_attempts is OnMaxAttempts.KILL,
    )


def _schema_text(place: str, schema: Any) -> str | None:
    if schema is None:
        return None
    text = json.dumps(schema, separators=(",", ":"))
    if len(text) > SCHEMA_BYTES_MAX:
        raise AdminError(
            400,
            None,
            f"the json schema for {place} is invalid: it has {len(text)} bytes, at most {SCHEMA_BYTES_MAX} are kept",
        )
    return text

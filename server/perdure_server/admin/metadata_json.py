"""● core · Services, handlers and deployments as the admin API shows them."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any
from urllib.parse import urlsplit

from perdure_processor.cluster.metadata_machine import KIND_NAMES
from perdure_processor.model.registration import HandlerKind, Options, RegisteredInput, RegisteredOutput
from perdure_processor.model.schema import DeploymentSchema, HandlerSchema, Note, RetryPolicy, Schema, ServiceSchema
from perdure_server.durations import format_duration_ms, format_time_nanos

Json = dict[str, Any]

_HANDLER_KIND_NAMES = {
    HandlerKind.EXCLUSIVE: "Exclusive",
    HandlerKind.SHARED: "Shared",
    HandlerKind.WORKFLOW: "Workflow",
}


def services_json(schema: Schema) -> Json:
    """GET /services: the latest revision of each, by name."""
    return {"services": [service_json(service) for _, service in sorted(schema.services.items())]}


def service_json(service: ServiceSchema) -> Json:
    """ServiceMetadata."""
    settings, registered = service.settings, service.registered
    assert settings is not None and registered is not None, "a registered service knows what was announced"
    shown: Json = {
        "name": service.name,
        "ty": KIND_NAMES[service.kind],
        "handlers": [handler_json(handler) for handler in service.handlers.values()],
    }
    if registered.documentation is not None:
        shown["documentation"] = registered.documentation
    if registered.metadata:
        shown["metadata"] = registered.metadata
    shown["deployment_id"] = service.deployment_id
    shown["revision"] = service.revision
    shown["public"] = service.public
    shown["idempotency_retention"] = format_duration_ms(settings.idempotency_retention_ms)
    if settings.workflow_retention_ms is not None:
        shown["workflow_completion_retention"] = format_duration_ms(settings.workflow_retention_ms)
    shown["journal_retention"] = format_duration_ms(settings.journal_retention_ms)
    shown["inactivity_timeout"] = format_duration_ms(settings.inactivity_timeout_ms)
    shown["abort_timeout"] = format_duration_ms(settings.abort_timeout_ms)
    shown["enable_lazy_state"] = settings.lazy_state
    shown["retry_policy"] = _retry_policy_json(settings.retry_policy)
    _add_info(shown, service.notes, "service")
    return shown


def handlers_json(service: ServiceSchema) -> Json:
    """GET /services/{s}/handlers: in the manifest's order."""
    return {"handlers": [handler_json(handler) for handler in service.handlers.values()]}


def handler_json(handler: HandlerSchema) -> Json:
    """HandlerMetadata: of the settings only those that the handler has asked for itself."""
    registered = handler.registered
    assert registered is not None, "a registered handler knows what was announced"
    asked = registered.options
    shown: Json = {"name": handler.name}
    if handler.kind in _HANDLER_KIND_NAMES:
        shown["ty"] = _HANDLER_KIND_NAMES[handler.kind]
    if registered.documentation is not None:
        shown["documentation"] = registered.documentation
    if registered.metadata:
        shown["metadata"] = registered.metadata
    if asked.idempotency_retention_ms is not None:
        shown["idempotency_retention"] = format_duration_ms(handler.completion_retention_ms)
    if asked.journal_retention_ms is not None:
        shown["journal_retention"] = format_duration_ms(handler.journal_retention_ms)
    # In request/response mode it is asked for in vain; the note says so.
    if asked.inactivity_timeout_ms is not None and not any(note.code == "RT0021" for note in handler.notes):
        shown["inactivity_timeout"] = format_duration_ms(handler.inactivity_timeout_ms)
    if asked.abort_timeout_ms is not None:
        shown["abort_timeout"] = format_duration_ms(handler.abort_timeout_ms)
    if asked.lazy_state is not None:
        shown["enable_lazy_state"] = asked.lazy_state
    shown["public"] = handler.public
    shown["input_description"] = _input_description(registered.input)
    shown["output_description"] = _output_description(registered.output)
    if registered.input is not None and registered.input.content_type is not None:
        _add_schema(shown, "input_json_schema", registered.input.json_schema)
    if registered.output is not None and registered.output.content_type is not None:
        _add_schema(shown, "output_json_schema", registered.output.json_schema)
    shown["retry_policy"] = _retry_overrides_json(asked, handler.retry_policy)
    _add_info(shown, handler.notes, "handler")
    return shown


def deployments_json(schema: Schema) -> Json:
    """GET /deployments: oldest first, services by name and revision only."""
    ordered = sorted(schema.deployments.values(), key=lambda deployment: (deployment.created_at_ms, deployment.id))
    return {
        "deployments": [
            _deployment_json(
                deployment,
                [{"name": name, "revision": revision} for name, revision in deployment.services.items()],
            )
            for deployment in ordered
        ]
    }


def deployment_json(deployment: DeploymentSchema) -> Json:
    """GET /deployments/{id}: its services in full, as this deployment serves them."""
    return _deployment_json(deployment, map(service_json, deployment.described.values()))


def registration_json(deployment: DeploymentSchema) -> Json:
    """The answer to a registration."""
    shown: Json = {
        "id": deployment.id,
        "services": [service_json(service) for service in deployment.described.values()],
        "min_protocol_version": deployment.min_protocol_version,
        "max_protocol_version": deployment.max_protocol_version,
    }
    if deployment.sdk_version is not None:
        shown["sdk_version"] = deployment.sdk_version
    return shown


def _deployment_json(deployment: DeploymentSchema, services: Iterable[Json]) -> Json:
    shown: Json = {
        "id": deployment.id,
        "uri": deployment.uri if urlsplit(deployment.uri).path else deployment.uri + "/",
        "protocol_type": "BidiStream" if deployment.bidirectional else "RequestResponse",
        "http_version": "HTTP/1.1" if deployment.http1 else "HTTP/2.0",
    }
    if deployment.additional_headers:
        shown["additional_headers"] = deployment.additional_headers
    if deployment.metadata:
        shown["metadata"] = deployment.metadata
    shown["created_at"] = format_time_nanos(deployment.created_at_ms)
    shown["min_protocol_version"] = deployment.min_protocol_version
    shown["max_protocol_version"] = deployment.max_protocol_version
    if deployment.sdk_version is not None:
        shown["sdk_version"] = deployment.sdk_version
    shown["services"] = list(services)
    return shown


def _retry_policy_json(policy: RetryPolicy) -> Json:
    return {
        "initial_interval": format_duration_ms(policy.initial_interval_ms),
        "exponentiation_factor": policy.factor,
        "max_attempts": policy.max_attempts,
        "max_interval": format_duration_ms(policy.max_interval_ms),
        "on_max_attempts": _on_max_attempts(policy),
    }


def _retry_overrides_json(asked: Options, policy: RetryPolicy) -> Json:
    shown: Json = {}
    if asked.retry_initial_interval_ms is not None:
        shown["initial_interval"] = format_duration_ms(policy.initial_interval_ms)
    if asked.retry_factor is not None:
        shown["exponentiation_factor"] = policy.factor
    # Always there: clients read null as "as the service has it".
    shown["max_attempts"] = None if asked.retry_max_attempts is None else policy.max_attempts
    if asked.retry_max_interval_ms is not None:
        shown["max_interval"] = format_duration_ms(policy.max_interval_ms)
    if asked.retry_kill_on_max_attempts is not None:
        shown["on_max_attempts"] = _on_max_attempts(policy)
    return shown


def _on_max_attempts(policy: RetryPolicy) -> str:
    return "Kill" if policy.kill_on_max_attempts else "Pause"


def _input_description(announced: RegisteredInput | None) -> str:
    if announced is None:
        return "*/*"
    if announced.content_type is None:
        return "*/*" if announced.required else "none"
    return _schema_description(announced.json_schema) or announced.content_type


def _output_description(announced: RegisteredOutput | None) -> str:
    if announced is None:
        return "application/json"
    if announced.content_type is None:
        return "none"
    described = _schema_description(announced.json_schema)
    if described is not None:
        return described
    return f"optional {announced.content_type}" if announced.set_content_type_if_empty else announced.content_type


def _schema_description(text: str | None) -> str | None:
    """`JSON 'Title'` or `JSON string`, if the schema has a title or one type."""
    schema = None if text is None else json.loads(text)
    if not isinstance(schema, dict):
        return None
    if isinstance(schema.get("title"), str):
        return f"JSON '{schema['title']}'"
    return f"JSON {schema['type']}" if isinstance(schema.get("type"), str) else None


def _add_schema(shown: Json, name: str, text: str | None) -> None:
    if text is not None:
        shown[name] = json.loads(text)


def _add_info(shown: Json, notes: list[Note], what: str) -> None:
    if notes:
        shown["info"] = [{"code": note.code, "message": _note_message(note, what)} for note in notes]


def _note_message(note: Note, what: str) -> str:
    if note.code == "RT0021":
        return (
            f"The configured {note.setting} {format_duration_ms(note.asked)} will not be applied "
            f"because the {what} is exposed in Request/Response mode."
        )
    if note.setting == "max_attempts":
        return f"The configured max_attempts {note.asked} is clamped to the maximum of {note.granted}."
    asked, granted = format_duration_ms(note.asked), format_duration_ms(note.granted)
    return f"The configured {note.setting} {asked} is clamped to the maximum of {granted}."

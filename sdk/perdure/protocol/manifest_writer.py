"""● core · The endpoint manifest as JSON, with no member that the agreed version does not know."""

from __future__ import annotations

import json
from typing import Any

from perdure.protocol.manifest import (
    MANIFEST_OPTIONS,
    MANIFEST_VERSIONS,
    EndpointManifest,
    HandlerManifest,
    ManifestError,
    Options,
    ServiceManifest,
)


def to_json(manifest: EndpointManifest, version: int) -> bytes:
    """The body of a discovery answer. Raises ManifestError if it says what the version has no member for."""
    assert version in MANIFEST_VERSIONS
    document: dict[str, Any] = {
        "protocolMode": manifest.protocol_mode,
        "minProtocolVersion": manifest.min_protocol_version,
        "maxProtocolVersion": manifest.max_protocol_version,
    }
    if manifest.lambda_compression is not None:
        _require_version("the manifest", "lambdaCompression", 4, version)
        document["lambdaCompression"] = manifest.lambda_compression
    document["services"] = [_service_document(service, version) for service in manifest.services]
    return json.dumps(document, ensure_ascii=False, allow_nan=False).encode()


def _service_document(service: ServiceManifest, version: int) -> dict[str, Any]:
    place = f"service '{service.name}'"
    return {
        "name": service.name,
        "ty": service.type,
        **_option_members(place, service, version),
        "handlers": [_handler_document(place, handler, version) for handler in service.handlers],
    }


def _handler_document(service_place: str, handler: HandlerManifest, version: int) -> dict[str, Any]:
    place = f"{service_place}, handler '{handler.name}'"
    document: dict[str, Any] = {"name": handler.name}
    if handler.type is not None:
        document["ty"] = handler.type
    if handler.input is not None:
        document["input"] = _without_defaults(
            required=handler.input.required or None,
            contentType=handler.input.content_type,
            jsonSchema=handler.input.json_schema,
        )
    if handler.output is not None:
        document["output"] = _without_defaults(
            contentType=handler.output.content_type,
            setContentTypeIfEmpty=handler.output.set_content_type_if_empty or None,
            jsonSchema=handler.output.json_schema,
        )
    document |= _option_members(place, handler, version)
    if handler.workflow_completion_retention_ms is not None:
        _require_version(place, "workflowCompletionRetention", 3, version)
        document["workflowCompletionRetention"] = handler.workflow_completion_retention_ms
    return document


def _option_members(place: str, options: Options, version: int) -> dict[str, Any]:
    document = {}
    for name, member, _, since in MANIFEST_OPTIONS:
        value = getattr(options, name)
        if value is None or (name == "metadata" and not value):
            continue
        _require_version(place, member, since, version)
        document[member] = dict(value) if name == "metadata" else value
    return document


def _without_defaults(**members: Any) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _require_version(place: str, member: str, since: int, version: int) -> None:
    if version < since:
        raise ManifestError(
            None, 500, f"{place}: {member} needs manifest version {since}, but the server asked for {version}"
        )

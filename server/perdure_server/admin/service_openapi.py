"""● core · OpenAPI of one service: how to call each of its handlers through the ingress."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

from perdure_processor.model.registration import RegisteredHandler
from perdure_processor.model.schema import HandlerKind, ServiceSchema

Json = dict[str, Any]

_ERROR: Json = {"$ref": "#/components/responses/GenericError"}
_SEND: Json = {"$ref": "#/components/responses/Send"}
_ERROR_CONTENT: Json = {"application/json": {"schema": {"$ref": "#/components/schemas/RestateError"}}}


def service_openapi(service: ServiceSchema, ingress_endpoint: str) -> Json:
    """The document of GET /services/{service}/openapi; private handlers cannot be called, and are not in it."""
    paths: Json = {}
    schemas: Json = {"RestateError": _RESTATE_ERROR}
    if service.public:
        for handler in service.handlers.values():
            if handler.public:
                registered = handler.registered
                assert registered is not None, "a registered handler knows what was announced"
                paths.update(_paths(service, registered, handler.kind, schemas))
    return {
        "openapi": "3.1.0",
        "info": {"title": service.name, "version": str(service.revision), **_described(service)},
        "servers": [{"url": ingress_endpoint, "description": "Ingress URL"}],
        "paths": paths,
        "components": {"parameters": _PARAMETERS, "responses": _RESPONSES, "schemas": schemas},
        "tags": [
            {"name": "Request Response", "description": "Call a handler and wait for its answer"},
            {"name": "Send", "description": "Call a handler and do not wait"},
            {"name": "Attach", "description": "Wait for an earlier call"},
            {"name": "Get Output", "description": "Look for the output of an earlier call"},
        ],
    }


def _described(service: ServiceSchema) -> Json:
    registered = service.registered
    if registered is None or registered.documentation is None:
        return {}
    return {"description": registered.documentation}


def _paths(service: ServiceSchema, handler: RegisteredHandler, kind: HandlerKind, schemas: Json) -> Json:
    keyed, is_run = service.kind.keyed, kind is HandlerKind.WORKFLOW
    target = quote(service.name, safe="") + ("/{key}" if keyed else "") + "/" + quote(handler.name, safe="")
    key = [_parameter("key")] if keyed else []
    # A workflow's key is all that names its run.
    idempotency = [] if is_run else [_parameter("idempotencyKeyHeader")]
    body = _body(service, handler, schemas)
    output: Json = {"200": _output(service, handler, schemas), "default": _ERROR}
    common: Json = {"summary": handler.name}
    if handler.documentation is not None:
        common["description"] = handler.documentation
    paths: Json = {
        f"/restate/call/{target}": {
            "post": {
                **common,
                "operationId": handler.name,
                "tags": ["Request Response"],
                "parameters": [*key, *idempotency],
                **body,
                "responses": output,
            }
        },
        f"/restate/send/{target}": {
            "post": {
                **common,
                "operationId": f"{handler.name}Send",
                "tags": ["Send"],
                "parameters": [*key, *idempotency, _parameter("delay")],
                **body,
                "responses": {"200": _SEND, "202": _SEND, "default": _ERROR},
            }
        },
    }
    named = "" if is_run else "/{idempotencyKey}"
    by = [*key, *([] if is_run else [_parameter("idempotencyKeyPath")])]
    not_found = {"404": {"$ref": "#/components/responses/InvocationNotFoundError"}}
    not_ready = {"470": {"$ref": "#/components/responses/InvocationNotReadyError"}}
    invocation = f"/restate/invocation/{target}{named}"
    paths[f"{invocation}/attach"] = {
        "get": {
            **common,
            "deprecated": True,
            "operationId": f"{handler.name}Attach",
            "tags": ["Attach"],
            "parameters": by,
            "responses": {**output, **not_found},
        }
    }
    paths[f"{invocation}/output"] = {
        "get": {
            **common,
            "deprecated": True,
            "operationId": f"{handler.name}Output",
            "tags": ["Get Output"],
            "parameters": by,
            "responses": {**output, **not_found, **not_ready},
        }
    }
    return paths


def _body(service: ServiceSchema, handler: RegisteredHandler, schemas: Json) -> Json:
    announced = handler.input
    if announced is None:
        return {"requestBody": {"content": {"*/*": {}}, "required": False}}
    if announced.content_type is None and not announced.required:
        return {}
    media = _media(service, f"{handler.name}Request", announced.json_schema, schemas)
    return {"requestBody": {"content": {announced.content_type or "*/*": media}, "required": announced.required}}


def _output(service: ServiceSchema, handler: RegisteredHandler, schemas: Json) -> Json:
    announced = handler.output
    if announced is None:
        return {"description": "", "content": {"application/json": {}}}
    if announced.content_type is None:
        return {"description": ""}
    media = _media(service, f"{handler.name}Response", announced.json_schema, schemas)
    return {"description": "", "content": {announced.content_type: media}}


def _media(service: ServiceSchema, name: str, text: str | None, schemas: Json) -> Json:
    if text is None:
        return {}
    schema = json.loads(text)
    if isinstance(schema, dict) and "$id" not in schema and "#/" in text:
        # With a name of its own it stays the root of what its references point to.
        schema = {"$id": f"urn:restate:{quote(service.name, safe='')}:{name}", **schema}
    schemas[name] = schema
    return {"schema": {"$ref": f"#/components/schemas/{name}"}}


def _parameter(name: str) -> Json:
    return {"$ref": f"#/components/parameters/{name}"}


_TEXT: Json = {"type": "string"}
_PARAMETERS: Json = {
    "key": {"name": "key", "in": "path", "required": True, "schema": _TEXT},
    "delay": {
        "name": "delay",
        "in": "query",
        "required": False,
        "schema": _TEXT,
        "example": "10s",
        "description": "How long from now the handler shall begin, as `10s` or `PT10S`",
    },
    "idempotencyKeyHeader": {
        "name": "idempotency-key",
        "in": "header",
        "required": False,
        "schema": _TEXT,
        "description": "Calls with the same key are one call",
    },
    "idempotencyKeyPath": {
        "name": "idempotencyKey",
        "in": "path",
        "required": True,
        "schema": _TEXT,
        "description": "The idempotency key of the call",
    },
}
_RESPONSES: Json = {
    "GenericError": {"description": "Error response", "content": _ERROR_CONTENT},
    "InvocationNotFoundError": {"description": "Invocation not found", "content": _ERROR_CONTENT},
    "InvocationNotReadyError": {
        "description": "Invocation still running, output is not ready yet",
        "content": _ERROR_CONTENT,
    },
    "Send": {
        "description": "Send response",
        "content": {
            "application/json": {
                "schema": {
                    "title": "RestateSendResponse",
                    "type": "object",
                    "required": ["invocationId", "status"],
                    "properties": {
                        "invocationId": _TEXT,
                        "status": {"type": "string", "enum": ["Accepted", "PreviouslyAccepted"]},
                        "executionTime": {"type": "string", "format": "date-time"},
                    },
                    "additionalProperties": False,
                }
            }
        },
    },
}
_RESTATE_ERROR: Json = {
    "title": "RestateError",
    "type": "object",
    "required": ["message", "source"],
    "properties": {
        "code": {"type": "number"},
        "message": _TEXT,
        "metadata": {"type": "object", "additionalProperties": _TEXT},
        "source": {"type": "string", "enum": ["ingress", "invocation"]},
        "stacktrace": _TEXT,
    },
    "additionalProperties": False,
}

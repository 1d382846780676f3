"""● core · OpenAPI of the admin API: one table of its operations, which a test compares with the routes."""

from __future__ import annotations

import re
from typing import Any

from perdure_processor.model.value import value

Json = dict[str, Any]

_ERROR_CODES = (400, 404, 405, 409, 500)
_PATH_PARAMETER = re.compile(r"\{(\w+)\}")


@value
class Operation:
    """One method of one path. `statuses` are those of success; `query` and `body` name what it takes."""

    method: str
    path: str
    id: str
    summary: str
    statuses: tuple[int, ...] = (200,)
    errors: tuple[int, ...] = _ERROR_CODES
    query: tuple[str, ...] = ()
    body: tuple[str, ...] = ()
    required: tuple[str, ...] = ()


_VERB_ERRORS = (400, 404, 409, 503)
_SETTINGS = (
    "public",
    "idempotency_retention",
    "workflow_completion_retention",
    "journal_retention",
    "inactivity_timeout",
    "abort_timeout",
)
OPERATIONS = (
    Operation("GET", "/health", "health", "Health check", errors=()),
    Operation("GET", "/version", "version", "Version, API versions and features", errors=()),
    Operation("GET", "/cluster-health", "cluster_health", "The cluster's name and members", errors=(500, 503)),
    Operation("GET", "/openapi", "openapi", "This document", errors=()),
    Operation("GET", "/deployments", "list_deployments", "List deployments", errors=()),
    Operation(
        "POST",
        "/deployments",
        "create_deployment",
        "Register a deployment",
        (200, 201),
        body=("uri", "additional_headers", "metadata", "use_http_11", "force", "breaking", "dry_run"),
        required=("uri",),
    ),
    Operation("GET", "/deployments/{deployment}", "get_deployment", "Get a deployment"),
    Operation(
        "PATCH",
        "/deployments/{deployment}",
        "update_deployment",
        "Change a deployment's address or headers",
        body=("uri", "additional_headers", "use_http_11", "overwrite", "dry_run"),
    ),
    Operation(
        "DELETE",
        "/deployments/{deployment}",
        "delete_deployment",
        "Forget a deployment",
        (202,),
        (*_ERROR_CODES, 501),
        ("force",),
    ),
    Operation(
        "POST",
        "/deployments/{deployment}/activate",
        "activate_deployment",
        "Make a deployment the latest of its services again",
    ),
    Operation(
        "GET", "/deployments/{deployment}/drain", "drain_deployment", "What began at a deployment and has not ended"
    ),
    Operation("GET", "/services", "list_services", "List services"),
    Operation("GET", "/services/{service}", "get_service", "Get a service"),
    Operation("PATCH", "/services/{service}", "modify_service", "Change a service's settings", body=_SETTINGS),
    Operation("GET", "/services/{service}/handlers", "list_service_handlers", "List the handlers of a service"),
    Operation("GET", "/services/{service}/handlers/{handler}", "get_service_handler", "Get a handler"),
    Operation("GET", "/services/{service}/openapi", "get_service_openapi", "OpenAPI of a service"),
    Operation(
        "POST",
        "/services/{service}/state",
        "modify_service_state",
        "Replace the whole state of a key",
        (202,),
        (*_ERROR_CODES, 413, 422, 429, 503),
        body=("object_key", "new_state", "version"),
        required=("object_key", "new_state"),
    ),
    Operation(
        "DELETE",
        "/services/{service}/promises/{key}",
        "drop_promises",
        "Drop the promises of a workflow key that has no run",
        (200, 202),
    ),
    Operation(
        "GET",
        "/invocations",
        "list_invocations",
        "List invocations",
        errors=(400, 503),
        query=("service", "handler", "key", "status", "limit"),
    ),
    Operation("GET", "/invocations/{invocation}", "get_invocation", "Get an invocation and its journal"),
    Operation(
        "DELETE",
        "/invocations/{invocation}",
        "delete_invocation",
        "Cancel, kill or purge an invocation (deprecated)",
        (202,),
        query=("mode",),
    ),
    Operation(
        "PATCH",
        "/invocations/{invocation}/cancel",
        "cancel_invocation",
        "Cancel an invocation",
        (200, 202),
        _VERB_ERRORS,
    ),
    Operation("PATCH", "/invocations/{invocation}/kill", "kill_invocation", "Kill an invocation", (200,), _VERB_ERRORS),
    Operation(
        "PATCH", "/invocations/{invocation}/pause", "pause_invocation", "Pause an invocation", (200, 202), _VERB_ERRORS
    ),
    Operation(
        "PATCH",
        "/invocations/{invocation}/resume",
        "resume_invocation",
        "Resume an invocation",
        (200,),
        (*_VERB_ERRORS, 425),
        ("deployment",),
    ),
    Operation(
        "PATCH",
        "/invocations/{invocation}/restart-as-new",
        "restart_as_new_invocation",
        "Run an invocation again as a new one",
        (200,),
        (*_VERB_ERRORS, 410, 422, 425),
        ("from", "deployment"),
    ),
    Operation(
        "PATCH", "/invocations/{invocation}/purge", "purge_invocation", "Drop an ended invocation", (200,), _VERB_ERRORS
    ),
    Operation(
        "PATCH",
        "/invocations/{invocation}/purge-journal",
        "purge_journal",
        "Drop the journal of an ended invocation",
        (200,),
        _VERB_ERRORS,
    ),
    Operation(
        "POST",
        "/query",
        "query",
        "Ask the tables by SQL",
        (200,),
        (400, 500, 503),
        body=("query",),
        required=("query",),
    ),
    Operation("GET", "/subscriptions", "list_subscriptions", "List subscriptions: there are none", errors=()),
    Operation("GET", "/kafka-clusters", "list_kafka_clusters", "List Kafka clusters: there are none", errors=()),
    Operation("GET", "/partitions", "list_partitions", "List the partitions of this node", errors=()),
    Operation(
        "POST",
        "/partitions/{partition}/skip",
        "skip_record",
        "Go on without a record that stopped a partition",
        body=("offset",),
        required=("offset",),
    ),
)

_OBJECT: Json = {"type": "object"}
_TYPES: Json = {
    **{name: {"type": "boolean"} for name in ("public", "use_http_11", "force", "breaking", "dry_run", "overwrite")},
    "additional_headers": {"type": "object", "additionalProperties": {"type": "string"}},
    "metadata": {"type": "object", "additionalProperties": {"type": "string"}},
    "new_state": {
        "type": "object",
        "additionalProperties": {"type": "array", "items": {"type": "integer", "minimum": 0, "maximum": 255}},
    },
    "offset": {"type": "integer", "minimum": 0},
    "limit": {"type": "integer", "minimum": 1},
    "from": {"type": "integer", "minimum": 0},
}


def admin_openapi(version: str) -> Json:
    """The document of GET /openapi."""
    paths: dict[str, Json] = {}
    for operation in OPERATIONS:
        paths.setdefault(operation.path, {})[operation.method.lower()] = _operation(operation)
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Admin API",
            "version": version,
            "description": "Register deployments, look at services and invocations, and act on them.",
        },
        "paths": paths,
        "components": {
            "schemas": {
                "ErrorDescriptionResponse": {
                    "type": "object",
                    "required": ["message"],
                    "properties": {"message": {"type": "string"}, "restate_code": {"type": ["string", "null"]}},
                }
            }
        },
    }


def _operation(operation: Operation) -> Json:
    shown: Json = {
        "operationId": operation.id,
        "summary": operation.summary,
        "tags": [operation.path.split("/")[1].removesuffix("s")],
        "parameters": [
            *(
                {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
                for name in _PATH_PARAMETER.findall(operation.path)
            ),
            *({"name": name, "in": "query", "required": False, "schema": _type(name)} for name in operation.query),
        ],
        "responses": {
            **{str(status): {"description": "Done" if status < 202 else "Accepted"} for status in operation.statuses},
            **{str(status): _error() for status in operation.errors},
        },
    }
    if operation.body:
        schema = {
            **_OBJECT,
            "properties": {name: _type(name) for name in operation.body},
            "required": list(operation.required),
        }
        shown["requestBody"] = {"required": True, "content": {"application/json": {"schema": schema}}}
    return shown


def _type(name: str) -> Json:
    found: Json = _TYPES.get(name, {"type": "string"})
    return found


def _error() -> Json:
    return {
        "description": "Refused",
        "content": {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorDescriptionResponse"}}},
    }

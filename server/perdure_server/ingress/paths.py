"""● core · What a client asked for: path, query, headers and body → one Request, or a RequestError."""

from __future__ import annotations

import json
from typing import NoReturn, TypeAlias
from urllib.parse import unquote_to_bytes

from perdure.protocol import ids
from perdure_processor.model.derived_ids import idempotent_id, workflow_id
from perdure_processor.model.ids import InvocationId, InvocationTarget
from perdure_processor.model.schema import (
    HandlerKind,
    HandlerSchema,
    Schema,
    ServiceKind,
    ServiceSchema,
)
from perdure_processor.model.value import value
from perdure_server.ingress import errors, inputs
from perdure_server.ingress.inputs import RawHeaders, Verb
from perdure_server.ingress.requests import InvokeRequest
from perdure_server.limits import INGRESS_TARGET_BODY_BYTES_MAX

SEGMENTS_MIN = 2
SEGMENTS_MAX = 7
# Deployments that speak only older protocols can stay registered, but nothing new is sent to them.
PROTOCOL_VERSION_MIN = 5
# Signals 1 to 15 belong to the protocol (1 is cancel): completing one is not an awakeable's business.
RESERVED_SIGNALS_MAX = 15


@value
class _Asked:
    """One HTTP request and what it is judged against."""

    schema: Schema
    method: str
    target: str
    query: str
    headers: RawHeaders
    body: bytes


@value
class Call:
    """Run a handler and wait for its output."""

    request: InvokeRequest


@value
class Send:
    """Run a handler, answer as soon as that is recorded."""

    request: InvokeRequest


@value
class Attach:
    """Wait for the result of an invocation. `handler` is its schema where the request names it."""

    invocation_id: InvocationId
    handler: HandlerSchema | None


@value
class Output:
    """The result of an invocation if there is one."""

    invocation_id: InvocationId
    handler: HandlerSchema | None


@value
class Lookup:
    """The id that a target has, whether or not it was ever invoked."""

    invocation_id: InvocationId


@value
class CompleteAwakeable:
    """Resolve with `value`, or reject with `failure`: exactly one is set."""

    invocation_id: InvocationId
    signal_index: int
    value: bytes | None
    failure: tuple[int, str] | None


@value
class Health:
    """The names of all services."""


Request: TypeAlias = Call | Send | Attach | Output | Lookup | CompleteAwakeable | Health


def read_request(schema: Schema, method: str, target: str, headers: RawHeaders, body: bytes) -> Request:
    """The request, checked against the schema; raises RequestError with the answer the client gets."""
    if method in ("HEAD", "CONNECT"):
        raise errors.method_not_allowed()
    target = _origin_form(target)
    path, _, query = target.partition("?")
    segments = path.split("/")
    if segments[-1] == "":
        segments.pop()
    del segments[:1]
    if not (SEGMENTS_MIN <= len(segments) <= SEGMENTS_MAX and "" not in segments):
        raise errors.bad_path(path)
    if segments[0] != "restate":
        return _legacy_service(_Asked(schema, method, target, query, headers, body), segments)
    match segments[1]:
        case "call" | "send":
            verb: Verb = "call" if segments[1] == "call" else "send"
            asked = _Asked(schema, method, target, query, headers, body)
            return _service(asked, segments[2:], verb, None, errors.EXPECTED_API_PATH[verb])
        case "scope":
            return _scoped(_Asked(schema, method, target, query, headers, body), segments)
        case "attach" | "output" | "lookup":
            return _result(method, segments, path, body)
        case "invocation":
            return _invocation(schema, method, segments[2:])
        case "workflow":
            return _workflow(schema, method, segments[2:])
        case "awakeables" | "a":
            return _awakeable(method, segments[2:], body)
        case "health":
            if len(segments) != 2:
                raise errors.not_found()
            _allow(method, "GET")
            return Health()
    raise errors.not_found()


# -- calls and sends ------------------------------------------------------------------------------------


def _legacy_service(asked: _Asked, segments: list[str]) -> Request:
    """`/{service}[/{key}]/{handler}[/send]`: only the kind of the service tells what a segment means."""
    service = _find_service(asked.schema, segments[0])
    length = 3 if service.kind.keyed else 2
    verb: Verb = "call"
    if len(segments) == length + 1 and segments[-1] == "send":
        segments.pop()
        verb = "send"
    return _service(asked, segments, verb, None, errors.EXPECTED_SERVICE_PATH)


def _scoped(asked: _Asked, segments: list[str]) -> Request:
    if len(segments) < 4 or segments[3] not in ("call", "send"):
        raise errors.wrong_shape(errors.EXPECTED_SCOPE_PATH)
    scope = _decode(segments[2])
    inputs.check_scope(scope)
    verb: Verb = "call" if segments[3] == "call" else "send"
    return _service(asked, segments[4:], verb, scope, errors.EXPECTED_SCOPE_PATH)


def _service(asked: _Asked, segments: list[str], verb: Verb, scope: str | None, expected: str) -> Request:
    if not segments:
        raise errors.wrong_shape(expected)
    service = _find_service(asked.schema, segments[0])
    if service.kind.keyed:
        if len(segments) != 3:
            raise errors.wrong_shape(expected)
        key = _decode(segments[1])
    else:
        if len(segments) != 2:
            raise errors.wrong_shape(expected)
        key = None
    if asked.method not in ("POST", "GET"):
        raise errors.method_not_allowed()
    handler = service.handlers.get(segments[-1])
    if handler is None:
        raise errors.handler_not_found(service.name, segments[-1])
    if not (service.public and handler.public):
        raise errors.not_public()
    deployment = asked.schema.deployments.get(service.deployment_id)
    if deployment is not None and deployment.max_protocol_version < PROTOCOL_VERSION_MIN:
        raise errors.deprecated_deployment(service.name, deployment.id)

    passed, content_type, idempotency_key, limit_key = inputs.read_headers(asked.target, asked.headers)
    delay_ms = None
    if asked.query:
        delay_ms, query_limit_key = inputs.read_query(asked.query, verb)
        # The header wins.
        limit_key = query_limit_key if limit_key is None else limit_key
    if limit_key is not None:
        inputs.check_limit_key(limit_key)
        if scope is None:
            raise errors.limit_key_without_scope()
    if scope is not None:
        if service.kind is ServiceKind.VIRTUAL_OBJECT:
            raise errors.scope_on_object()
        raise errors.scope_without_vqueues()
    if idempotency_key is not None and handler.kind is HandlerKind.WORKFLOW:
        raise errors.idempotency_key_on_workflow()
    inputs.check_input(handler.input_rules, content_type, asked.body)

    invoke = InvokeRequest(
        service,
        handler,
        InvocationTarget(service.name, key, handler.name),
        passed,
        asked.body,
        idempotency_key,
        delay_ms,
    )
    return Call(invoke) if verb == "call" else Send(invoke)


def _find_service(schema: Schema, name: str) -> ServiceSchema:
    service = schema.services.get(name)
    if service is None:
        raise errors.service_not_found(name)
    return service


# -- results of earlier invocations ---------------------------------------------------------------------


def _result(method: str, segments: list[str], path: str, body: bytes) -> Request:
    """`/restate/attach|output/{id}`, and the same and `lookup` by a target body."""
    verb = segments[1]
    if len(segments) == 2:
        _allow(method, "POST")
        invocation_id = _read_target(body)
        if verb == "lookup":
            return Lookup(invocation_id)
    elif len(segments) == 3 and verb != "lookup":
        _allow(method, "GET")
        invocation_id = _invocation_id(segments[2])
    else:
        raise errors.bad_path(path)
    return _attach_or_output(verb, invocation_id, None)


def _read_target(body: bytes) -> InvocationId:
    if len(body) > INGRESS_TARGET_BODY_BYTES_MAX:
        raise errors.body_too_long()
    try:
        target = json.loads(body)
    except (ValueError, RecursionError) as error:
        reason = str(error) if isinstance(error, ValueError) else "nested too deeply"
        raise errors.bad_target(f"it is not JSON: {reason}") from None
    if not isinstance(target, dict):
        raise errors.bad_target("it is not a JSON object")
    if target.get("scope") is not None:
        inputs.check_scope(_text(target, "scope"))
        raise errors.scope_without_vqueues()
    match target.get("target"):
        case "invocation":
            return _invocation_id(_text(target, "invocationId"))
        case "workflow":
            return workflow_id(_text(target, "workflowName"), _text(target, "workflowKey"))
        case "idempotentInvocation":
            key = None if target.get("key") is None else _text(target, "key")
            return idempotent_id(
                _text(target, "service"), key, _text(target, "handler"), _text(target, "idempotencyKey")
            )
    raise errors.bad_target("'target' must be one of 'invocation', 'workflow', 'idempotentInvocation'")


def _text(target: dict[str, object], name: str) -> str:
    text = target.get(name)
    if not isinstance(text, str):
        raise errors.bad_target(f"'{name}' must be a string")
    try:
        text.encode()
    except UnicodeEncodeError:
        # JSON can spell half of a surrogate pair, which is no text and has no hash.
        raise errors.bad_target(f"'{name}' is not valid Unicode") from None
    return text


def _invocation(schema: Schema, method: str, segments: list[str]) -> Request:
    """The older spelling: by id, or by service, handler and idempotency key."""
    verb = segments[-1] if segments else ""
    if verb not in ("attach", "output") or len(segments) not in (2, 4, 5):
        raise errors.wrong_shape(errors.EXPECTED_INVOCATION_PATH)
    if len(segments) == 2:
        _allow(method, "GET")
        return _attach_or_output(verb, _invocation_id(segments[0]), None)
    service = _find_service(schema, segments[0])
    if len(segments) != (5 if service.kind.keyed else 4):
        raise errors.wrong_shape(errors.EXPECTED_INVOCATION_PATH)
    _allow(method, "GET")
    key = _decode(segments[1]) if service.kind.keyed else None
    handler_name, idempotency_key = segments[-3], _decode(segments[-2])
    invocation_id = idempotent_id(service.name, key, handler_name, idempotency_key)
    return _attach_or_output(verb, invocation_id, service.handlers.get(handler_name))


def _workflow(schema: Schema, method: str, segments: list[str]) -> Request:
    if len(segments) != 3:
        raise errors.wrong_shape(errors.EXPECTED_WORKFLOW_PATH)
    if segments[2] not in ("attach", "output"):
        raise errors.not_found()
    service = _find_service(schema, segments[0])
    if service.kind is not ServiceKind.WORKFLOW:
        raise errors.wrong_shape(errors.EXPECTED_WORKFLOW_PATH)
    _allow(method, "GET")
    run = next((h for h in service.handlers.values() if h.kind is HandlerKind.WORKFLOW), None)
    return _attach_or_output(segments[2], workflow_id(service.name, _decode(segments[1])), run)


def _attach_or_output(verb: str, invocation_id: InvocationId, handler: HandlerSchema | None) -> Request:
    return Attach(invocation_id, handler) if verb == "attach" else Output(invocation_id, handler)


def _invocation_id(text: str) -> InvocationId:
    try:
        return InvocationId(ids.decode_invocation_id(text))
    except ids.IdError as error:
        raise errors.bad_invocation_id(text, str(error)) from None


# -- awakeables -----------------------------------------------------------------------------------------


def _awakeable(method: str, segments: list[str], body: bytes) -> Request:
    if len(segments) != 2 or segments[1] not in ("resolve", "reject"):
        raise errors.wrong_shape(errors.EXPECTED_AWAKEABLE_PATH)
    _allow(method, "POST")
    text = segments[0]
    try:
        invocation_id, index = ids.decode_awakeable_id(text)
    except ids.IdError as error:
        raise errors.bad_awakeable_id(text, str(error)) from None
    if index <= RESERVED_SIGNALS_MAX and text.startswith("sign_"):
        raise errors.bad_awakeable_id(text, f"signal {index} is reserved")
    if segments[1] == "resolve":
        return CompleteAwakeable(InvocationId(invocation_id), index, body, None)
    try:
        reason = body.decode()
    except UnicodeDecodeError:
        raise errors.body_not_text() from None
    return CompleteAwakeable(InvocationId(invocation_id), index, None, (500, reason))


# -- small parts ----------------------------------------------------------------------------------------


def _allow(method: str, allowed: str) -> None:
    if method != allowed:
        raise errors.method_not_allowed()


def _origin_form(target: str) -> str:
    """The target as path and query: proxies may send a whole URL, and bytes that are no UTF-8 are refused."""
    if not target.isascii():
        try:
            target.encode()
        except UnicodeEncodeError:
            _refuse_bytes(target)
    if target[:1] == "/":
        return target
    _, separator, rest = target.partition("://")
    if not separator:
        raise errors.bad_path(target)
    slash = rest.find("/")
    return rest[slash:] if slash >= 0 else "/"


def _refuse_bytes(target: str) -> NoReturn:
    shown = target.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
    raise errors.undecodable_key(f"'{shown}' is not valid UTF-8")


def _decode(segment: str) -> str:
    """Percent-decoded, once the path is split: `a%2Fb` is the key `a/b`."""
    if "%" not in segment:
        return segment
    try:
        return unquote_to_bytes(segment).decode()
    except UnicodeDecodeError as error:
        raise errors.undecodable_key(str(error)) from None

"""● core · The endpoint manifest, what a deployment says about itself: read and checked; versions agreed.

A refusal carries the status that registration answers with and the documented code, where there is one.
What is refused, and how, follows restate-server 1.7.12: a deployment that registers there registers here,
except where it contradicts itself (a service, a handler or a workflow's run handler given twice).
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from perdure.protocol.errors import PerdureError
from perdure.protocol.json_members import (
    Malformed,
    Members,
    anything,
    array,
    boolean,
    choice,
    load,
    mapping,
    positive_number,
    string_map,
    text,
    whole_number,
)
from perdure.protocol.schema_check import json_schema_fault

MANIFEST_VERSIONS = (1, 2, 3, 4)
PROTOCOL_VERSION_MIN = 5
PROTOCOL_VERSION_MAX = 7
PROTOCOL_VERSION_DEFAULT_MAX = 6  # V7 only where the operator has switched it on

# Durations end up in sums with epoch milliseconds that are stored as unsigned 64-bit numbers.
MANIFEST_MILLIS_MAX = (1 << 63) - 1

_PROTOCOL_NUMBER_MAX = 2147483647

_SERVICE_NAME = re.compile(r"([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9._-]*", re.ASCII)
_HANDLER_NAME = re.compile(r"([a-zA-Z]|_[a-zA-Z0-9])[a-zA-Z0-9_]*", re.ASCII)
_CONTENT_TYPE = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+/[!#$%&'*+.^_`|~0-9A-Za-z-]+([ \t]*;[ -~\t]*)?", re.ASCII)
_OLD_TYPESCRIPT = re.compile(r"restate-sdk-typescript/1\.[012]\.", re.ASCII)


class ManifestError(PerdureError):
    """A manifest that cannot be registered: `status` and `code` (META…, or None) are the answer's."""

    def __init__(self, code: str | None, status: int, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.message = message


class ProtocolMode(enum.StrEnum):
    BIDI_STREAM = "BIDI_STREAM"
    REQUEST_RESPONSE = "REQUEST_RESPONSE"


class ServiceType(enum.StrEnum):
    SERVICE = "SERVICE"
    VIRTUAL_OBJECT = "VIRTUAL_OBJECT"
    WORKFLOW = "WORKFLOW"


class HandlerType(enum.StrEnum):
    """WORKFLOW is the run handler of a workflow."""

    EXCLUSIVE = "EXCLUSIVE"
    SHARED = "SHARED"
    WORKFLOW = "WORKFLOW"


class OnMaxAttempts(enum.StrEnum):
    PAUSE = "PAUSE"
    KILL = "KILL"


class LambdaCompression(enum.StrEnum):
    ZSTD = "zstd"


@dataclass(frozen=True, slots=True)
class InputPayload:
    """What a handler takes. With every member absent: nothing but an empty body without content type."""

    required: bool = False
    content_type: str | None = None  # may be a wildcard: */* or type/*
    json_schema: Any = None  # None is "no schema"; False is one


@dataclass(frozen=True, slots=True)
class OutputPayload:
    """What a handler gives. Without a content type the answer has none."""

    content_type: str | None = None
    set_content_type_if_empty: bool = False
    json_schema: Any = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What may be said of a service, and of a handler over its service; None leaves it to the server."""

    documentation: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    inactivity_timeout_ms: int | None = None
    abort_timeout_ms: int | None = None
    journal_retention_ms: int | None = None
    idempotency_retention_ms: int | None = None
    enable_lazy_state: bool | None = None
    ingress_private: bool | None = None
    retry_initial_interval_ms: int | None = None
    retry_max_interval_ms: int | None = None
    retry_max_attempts: int | None = None  # counts the first one: never 0
    retry_exponentiation_factor: float | None = None
    retry_on_max_attempts: OnMaxAttempts | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class HandlerManifest(Options):
    """One handler. `type` is None exactly for handlers of plain services."""

    name: str
    type: HandlerType | None
    input: InputPayload | None = None  # None takes anything
    output: OutputPayload | None = None  # None is application/json, left out when the body is empty
    workflow_completion_retention_ms: int | None = None  # only on a workflow's run handler


@dataclass(frozen=True, slots=True, kw_only=True)
class ServiceManifest(Options):
    """One service; its handlers in the order given."""

    name: str
    type: ServiceType
    handlers: tuple[HandlerManifest, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class EndpointManifest:
    """One deployment."""

    protocol_mode: ProtocolMode
    min_protocol_version: int
    max_protocol_version: int
    services: tuple[ServiceManifest, ...]
    lambda_compression: LambdaCompression | None = None


# --- negotiation -------------------------------------------------------------------------------------------


def manifest_content_type(version: int) -> str:
    """The media type of a manifest version."""
    return f"application/vnd.restate.endpointmanifest.v{version}+json"


# What a server sends as `accept` of GET /discover.
DISCOVERY_ACCEPT = ", ".join(manifest_content_type(version) for version in MANIFEST_VERSIONS)


def choose_manifest_version(accept: str | None) -> int | None:
    """The version an SDK answers with: the highest that both know; None is a 415. No `accept` means v2."""
    if accept is None:
        return 2
    offered = {part.partition(";")[0].strip().lower() for part in accept.split(",")}
    for version in reversed(MANIFEST_VERSIONS):
        if manifest_content_type(version) in offered:
            return version
    return None


def accepted_range(min_version: int, max_version: int) -> bool:
    """Whether a deployment that speaks these protocol versions may register."""
    return min_version <= PROTOCOL_VERSION_MAX and max_version >= PROTOCOL_VERSION_MIN


def negotiate(min_version: int, max_version: int, protocol_v7: bool) -> int | None:
    """The protocol version of a new invocation; None when deployment and server have none in common."""
    highest = PROTOCOL_VERSION_MAX if protocol_v7 else PROTOCOL_VERSION_DEFAULT_MAX
    version = min(max_version, highest)
    return version if max(min_version, PROTOCOL_VERSION_MIN) <= version else None


# --- parsing -----------------------------------------------------------------------------------------------


def parse_manifest(content_type: str | None, body: bytes, server: str | None = None) -> EndpointManifest:
    """The manifest of a discovery answer; `server` is its x-restate-server header. Raises ManifestError."""
    if content_type not in _CONTENT_TYPES:
        expected = " or ".join(_CONTENT_TYPES)
        raise _bad_answer("META0013", f"content-type is {content_type!r}, expected exactly {expected}")
    try:
        return _parse_endpoint(load(body), server)
    except Malformed as error:
        raise _bad_answer(None, f"cannot decode the manifest: {error}") from error


def _parse_endpoint(document: Any, server: str | None) -> EndpointManifest:
    members = Members("the manifest", document, _ENDPOINT_MEMBERS)
    minimum = members.required("minProtocolVersion", _protocol_version)
    maximum = members.required("maxProtocolVersion", _protocol_version)
    service_documents = members.required("services", array)
    compression = members.optional("lambdaCompression", choice(LambdaCompression))
    mode = members.optional("protocolMode", choice(ProtocolMode))
    if mode is None:
        raise _bad_answer("META0013", "missing protocol mode")
    if minimum > maximum:
        raise _bad_answer("META0013", f"minProtocolVersion {minimum} is greater than maxProtocolVersion {maximum}")
    if server is not None and _OLD_TYPESCRIPT.match(server):
        # As restate-server has it: whatever these releases advertise, they count as speaking version 1 only.
        minimum = maximum = 1
    if not accepted_range(minimum, maximum):
        raise ManifestError(
            "META0012",
            500,
            f"the deployment speaks service protocol versions {minimum} to {maximum}, "
            f"this server speaks {PROTOCOL_VERSION_MIN} to {PROTOCOL_VERSION_MAX}: use another SDK version",
        )
    return EndpointManifest(
        protocol_mode=mode,
        min_protocol_version=minimum,
        max_protocol_version=maximum,
        lambda_compression=compression,
        services=_parse_services(service_documents),
    )


def _parse_services(documents: list[Any]) -> tuple[ServiceManifest, ...]:
    services: dict[str, ServiceManifest] = {}
    for position, document in enumerate(documents):
        service = _parse_service(_place("service", position, document), document)
        if service.name in services:
            raise _invalid(f"service '{service.name}' is given twice")
        services[service.name] = service
    return tuple(services.values())


def _parse_service(place: str, document: Any) -> ServiceManifest:
    members = Members(place, document, _SERVICE_MEMBERS)
    name = members.required("name", text)
    if not _SERVICE_NAME.fullmatch(name):
        raise Malformed(f"{place}: the name does not match '^{_SERVICE_NAME.pattern}$'")
    if name.lower().startswith("restate") or name.lower() == "openapi":
        raise ManifestError("META0005", 400, f"{place}: names that begin with 'restate', and 'openapi', are reserved")
    type_ = members.required("ty", choice(ServiceType))
    options = _parse_options(members)
    handlers: dict[str, HandlerManifest] = {}
    for position, handler_document in enumerate(members.required("handlers", array)):
        handler_place = f"{place}, {_place('handler', position, handler_document)}"
        handler = _parse_handler(handler_place, type_, handler_document)
        if handler.name in handlers:
            raise _invalid(f"{handler_place} is given twice")
        if options["ingress_private"] is True and handler.ingress_private is False:
            raise _invalid(f"{handler_place}: a handler of a private service cannot be public")
        handlers[handler.name] = handler
    runs = [handler.name for handler in handlers.values() if handler.type is HandlerType.WORKFLOW]
    if len(runs) > 1:
        raise _invalid(f"{place}: handlers '{runs[0]}' and '{runs[1]}' are both of type WORKFLOW, only one may be")
    return ServiceManifest(name=name, type=type_, handlers=tuple(handlers.values()), **options)


def _parse_handler(place: str, service_type: ServiceType, document: Any) -> HandlerManifest:
    members = Members(place, document, _HANDLER_MEMBERS)
    name = members.required("name", text)
    if not _HANDLER_NAME.fullmatch(name):
        raise Malformed(f"{place}: the name does not match '^{_HANDLER_NAME.pattern}$'")
    type_ = _resolve_handler_type(place, service_type, members.optional("ty", choice(HandlerType)))
    options = _parse_options(members)
    workflow_retention = members.optional("workflowCompletionRetention", _millis)
    if type_ is HandlerType.WORKFLOW:
        if options["idempotency_retention_ms"] is not None:
            raise _invalid(
                f"{place}: idempotencyRetention is not for the WORKFLOW handler: its key makes it idempotent"
            )
    elif workflow_retention is not None:
        raise _invalid(f"{place}: workflowCompletionRetention is only for the handler of type WORKFLOW")
    return HandlerManifest(
        name=name,
        type=type_,
        input=_parse_input(place, members.optional("input", mapping)),
        output=_parse_output(place, members.optional("output", mapping)),
        workflow_completion_retention_ms=workflow_retention,
        **options,
    )


def _resolve_handler_type(place: str, service_type: ServiceType, given: HandlerType | None) -> HandlerType | None:
    """What an absent type means, and which pairs there are. The schema's text says that a workflow's
    handler without a type is its run handler; the server that it must agree with says SHARED."""
    match service_type, given:
        case ServiceType.SERVICE, None | HandlerType.SHARED:
            return None
        case ServiceType.VIRTUAL_OBJECT, None:
            return HandlerType.EXCLUSIVE
        case ServiceType.VIRTUAL_OBJECT, HandlerType.EXCLUSIVE | HandlerType.SHARED:
            return given
        case ServiceType.WORKFLOW, None:
            return HandlerType.SHARED
        case ServiceType.WORKFLOW, HandlerType.WORKFLOW | HandlerType.SHARED:
            return given
        case _:
            raise _invalid(f"{place}: a {service_type} has no handlers of type {given}")


def _parse_input(place: str, document: dict[str, Any] | None) -> InputPayload | None:
    if document is None:
        return None
    members = Members(f"{place}, input", document, _INPUT_MEMBERS)
    return InputPayload(
        required=members.optional("required", boolean) or False,
        content_type=_parse_content_type(members),
        json_schema=_parse_json_schema(members),
    )


def _parse_output(place: str, document: dict[str, Any] | None) -> OutputPayload | None:
    if document is None:
        return None
    members = Members(f"{place}, output", document, _OUTPUT_MEMBERS)
    return OutputPayload(
        content_type=_parse_content_type(members),
        set_content_type_if_empty=members.optional("setContentTypeIfEmpty", boolean) or False,
        json_schema=_parse_json_schema(members),
    )


def _parse_content_type(members: Members) -> str | None:
    content_type = members.optional("contentType", text)
    if content_type is not None and not _CONTENT_TYPE.fullmatch(content_type):
        raise _invalid(f"{members.place}: contentType {content_type!r} is not a media type")
    return content_type


def _parse_json_schema(members: Members) -> Any:
    schema = members.optional("jsonSchema", anything)
    if schema is not None and (fault := json_schema_fault(schema)) is not None:
        raise _invalid(f"{members.place}: jsonSchema is not a valid JSON Schema: {fault}")
    return schema


def _parse_options(members: Members) -> dict[str, Any]:
    options = {name: members.optional(member, read) for name, member, read, _ in MANIFEST_OPTIONS}
    options["metadata"] = options["metadata"] or {}
    if options["retry_max_attempts"] == 0:
        options["retry_max_attempts"] = 1
    return options


def _place(kind: str, position: int, document: Any) -> str:
    """How errors call an element of a list: by its name if it has one, else by its number."""
    name = document.get("name") if isinstance(document, dict) else None
    return f"{kind} '{name}'" if isinstance(name, str) else f"{kind} {position}"


def _bad_answer(code: str | None, message: str) -> ManifestError:
    return ManifestError(code, 500, f"bad discovery answer: {message}")


def _invalid(message: str) -> ManifestError:
    return ManifestError(None, 400, message)


_millis = whole_number(0, MANIFEST_MILLIS_MAX)
_protocol_version = whole_number(1, _PROTOCOL_NUMBER_MAX)

# What services and handlers have in common: (our name, member, how to read it, version that brought it).
# A server reads a member whatever version the answer names, as 1.7.12 does, and refuses only what no version
# up to 4 knows; a writer keeps to the version.
MANIFEST_OPTIONS: tuple[tuple[str, str, Callable[[Any], Any], int], ...] = (
    ("documentation", "documentation", text, 2),
    ("metadata", "metadata", string_map, 2),
    ("inactivity_timeout_ms", "inactivityTimeout", _millis, 3),
    ("abort_timeout_ms", "abortTimeout", _millis, 3),
    ("journal_retention_ms", "journalRetention", _millis, 3),
    ("idempotency_retention_ms", "idempotencyRetention", _millis, 3),
    ("enable_lazy_state", "enableLazyState", boolean, 3),
    ("ingress_private", "ingressPrivate", boolean, 3),
    ("retry_initial_interval_ms", "retryPolicyInitialInterval", _millis, 4),
    ("retry_max_interval_ms", "retryPolicyMaxInterval", _millis, 4),
    ("retry_max_attempts", "retryPolicyMaxAttempts", whole_number(0, MANIFEST_MILLIS_MAX), 4),
    ("retry_exponentiation_factor", "retryPolicyExponentiationFactor", positive_number, 4),
    ("retry_on_max_attempts", "retryPolicyOnMaxAttempts", choice(OnMaxAttempts), 4),
)

_CONTENT_TYPES = tuple(manifest_content_type(version) for version in MANIFEST_VERSIONS)
_OPTION_MEMBERS = frozenset(member for _, member, _, _ in MANIFEST_OPTIONS)
_ENDPOINT_MEMBERS = frozenset(
    ("protocolMode", "minProtocolVersion", "maxProtocolVersion", "lambdaCompression", "services")
)
_SERVICE_MEMBERS = _OPTION_MEMBERS | {"name", "ty", "handlers"}
_HANDLER_MEMBERS = _OPTION_MEMBERS | {"name", "ty", "input", "output", "workflowCompletionRetention"}
_INPUT_MEMBERS = frozenset(("required", "contentType", "jsonSchema"))
_OUTPUT_MEMBERS = frozenset(("contentType", "setContentTypeIfEmpty", "jsonSchema"))

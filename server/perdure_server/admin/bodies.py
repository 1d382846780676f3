"""● core · Bodies of admin requests, taken apart with the original's words of refusal. Unknown fields are ignored."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping
from typing import Any, TypeVar
from urllib.parse import urlsplit

from perdure_processor.model.limits import STATE_PATCH_NAMES_MAX
from perdure_processor.model.registration import ServicePatch
from perdure_processor.model.value import value
from perdure_server.admin.errors import AdminError, ExtractorError, invalid_field
from perdure_server.durations import DurationError, parse_duration_ms
from perdure_server.limits import DEPLOYMENT_PAIRS_MAX, DEPLOYMENT_URI_LENGTH_MAX

_ABSOLUTE = re.compile(r"[a-zA-Z][a-zA-Z0-9+.-]*://")
_PLAIN_URI = re.compile(r"[!-~]+")
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_HEADER_VALUE = re.compile(r"[\t -~]*")
_DEFAULT_PORTS = {"http": 80, "https": 443}
# Headers that belong to the connection or to the protocol: a deployment's own would break the stream.
_OUR_HEADERS = (
    "accept",
    "connection",
    "content-length",
    "content-type",
    "expect",
    "host",
    "keep-alive",
    "proxy-connection",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)

T = TypeVar("T")


@value
class RegisterBody:
    """What POST /deployments asks for. `uri` is normalised: no trailing slash, no default port."""

    uri: str
    use_http_11: bool
    additional_headers: dict[str, str]
    metadata: dict[str, str]
    force: bool
    breaking: bool
    dry_run: bool


@value
class UpdateBody:
    """What PATCH /deployments/{id} asks for; None leaves a thing as it is."""

    uri: str | None
    use_http_11: bool | None
    additional_headers: dict[str, str] | None
    overwrite: bool
    dry_run: bool


@value
class StateBody:
    """What POST /services/{s}/state asks for: names and values in the order of the names."""

    object_key: str
    version: str | None
    state: list[tuple[bytes, bytes]]


def parse_json(content_type: str | None, body: bytes) -> Any:
    """The document of a JSON body."""
    media_type = (content_type or "").partition(";")[0].strip().lower()
    kind, _, subtype = media_type.partition("/")
    if kind != "application" or not (subtype == "json" or subtype.endswith("+json")):
        raise ExtractorError(415, "Expected request with `Content-Type: application/json`")
    try:
        return json.loads(body.decode(), parse_constant=_refuse_constant)
    except json.JSONDecodeError as error:
        text = f"{error.msg} at line {error.lineno} column {error.colno}"
    except (ValueError, RecursionError) as error:
        text = str(error)
    raise ExtractorError(400, f"Failed to parse the request body as JSON: {text}")


def parse_register_body(document: Any, force_default: bool) -> RegisterBody:
    """The registration that a document asks for; raises ExtractorError (its shape) or AdminError (its values)."""
    fields = _Fields(document)
    if "uri" not in fields and "arn" in fields:
        raise invalid_field("arn", "Lambda functions cannot be registered here, only http and https addresses")
    uri = fields.required("uri", _text)
    if fields.optional("auth", _anything, None) is not None:
        raise invalid_field("auth", "authentication with identity tokens is not supported; use additional_headers")
    return RegisterBody(
        uri=normalised_uri(uri),
        use_http_11=fields.optional("use_http_11", _boolean, False),
        additional_headers=_headers(fields.optional("additional_headers", _nullable_pairs, {})),
        metadata=fields.optional("metadata", _nullable_pairs, {}),
        force=fields.optional("force", _boolean, force_default),
        breaking=fields.optional("breaking", _boolean, False),
        dry_run=fields.optional("dry_run", _boolean, False),
    )


def parse_update_body(document: Any) -> UpdateBody:
    """The update that a document asks for; raises ExtractorError (its shape) or AdminError (its values)."""
    fields = _Fields(document)
    if "uri" not in fields and "arn" in fields:
        raise invalid_field("arn", "Lambda functions cannot be registered here, only http and https addresses")
    uri = fields.optional("uri", _nullable(_text), None)
    headers = fields.optional("additional_headers", _nullable(_nullable_pairs), None)
    return UpdateBody(
        uri=None if uri is None else normalised_uri(uri),
        use_http_11=fields.optional("use_http_11", _nullable(_boolean), None),
        additional_headers=None if headers is None else _headers(headers),
        overwrite=fields.optional("overwrite", _boolean, False),
        dry_run=fields.optional("dry_run", _boolean, False),
    )


def parse_patch_body(document: Any) -> ServicePatch:
    """The settings that PATCH /services/{s} names; null is as good as absent."""
    fields = _Fields(document)
    return ServicePatch(
        public=fields.optional("public", _nullable(_boolean), None),
        idempotency_retention_ms=fields.optional("idempotency_retention", _nullable(_duration_ms), None),
        workflow_retention_ms=fields.optional("workflow_completion_retention", _nullable(_duration_ms), None),
        journal_retention_ms=fields.optional("journal_retention", _nullable(_duration_ms), None),
        inactivity_timeout_ms=fields.optional("inactivity_timeout", _nullable(_duration_ms), None),
        abort_timeout_ms=fields.optional("abort_timeout", _nullable(_duration_ms), None),
    )


def parse_state_body(document: Any) -> StateBody:
    """The state that a document gives to a key; raises ExtractorError (its shape) or AdminError (its values)."""
    fields = _Fields(document)
    version = fields.optional("version", _nullable(_text), None)
    object_key = fields.required("object_key", _text)
    state = fields.required("new_state", _state)
    if fields.optional("scope", _nullable(_text), None) is not None:
        raise invalid_field("scope", "scopes are not supported without flow control")
    if len(state) > STATE_PATCH_NAMES_MAX:
        raise AdminError(413, None, f"new_state has {len(state)} names, at most {STATE_PATCH_NAMES_MAX} are taken")
    return StateBody(object_key, version, sorted(state))


def parse_skip_body(document: Any) -> int:
    """The offset that POST /partitions/{p}/skip names."""
    return _Fields(document).required("offset", _natural)


def normalised_uri(uri: str) -> str:
    """The one way of writing an address: two deployments are the same iff these are equal."""
    if not _ABSOLUTE.match(uri):
        raise invalid_field(
            "uri",
            f"The provided uri {uri} is not absolute, only absolute URIs can be used. "
            "Write for example http://localhost:9080",
        )
    if len(uri) > DEPLOYMENT_URI_LENGTH_MAX:
        raise invalid_field("uri", f"it has {len(uri)} characters, at most {DEPLOYMENT_URI_LENGTH_MAX} are taken")
    if not _PLAIN_URI.fullmatch(uri):
        raise invalid_field("uri", "blanks, control characters and letters beyond ASCII must be percent-encoded")
    try:
        parts = urlsplit(uri)
        port = parts.port
    except ValueError as error:
        raise invalid_field("uri", f"{uri} is not a valid URI: {error}") from error
    scheme = parts.scheme.lower()
    if scheme not in _DEFAULT_PORTS:
        raise invalid_field("uri", f"the scheme '{parts.scheme}' is not supported, only http and https are")
    if parts.username is not None or parts.password is not None:
        raise invalid_field("uri", "user and password cannot be given in it; use additional_headers")
    if parts.query or parts.fragment:
        raise invalid_field("uri", "a query or a fragment cannot be part of a deployment's address")
    if not parts.hostname or port == 0:
        raise invalid_field("uri", f"{uri} names no {'port' if parts.hostname else 'host'} to connect to")
    host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
    authority = host if port in (None, _DEFAULT_PORTS[scheme]) else f"{host}:{port}"
    return f"{scheme}://{authority}{parts.path.rstrip('/')}"


def _headers(pairs: Mapping[str, str]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for name, text in pairs.items():
        lower = name.lower()
        if not _HEADER_NAME.fullmatch(name):
            raise invalid_field("additional_headers", f"'{name}' is not a header name")
        if lower in _OUR_HEADERS or lower.startswith("x-restate-"):
            raise invalid_field("additional_headers", f"the header '{lower}' is set by the server itself")
        if not _HEADER_VALUE.fullmatch(text):
            raise invalid_field("additional_headers", f"the value of '{lower}' is not printable ASCII")
        if lower in headers:
            raise invalid_field("additional_headers", f"the header '{lower}' is given twice")
        headers[lower] = text.strip()
    return headers


class _Fields:
    """The members of a body that must be an object."""

    def __init__(self, document: Any) -> None:
        if not isinstance(document, dict):
            raise _wrong_shape(f"invalid type: {_kind(document)}, expected an object")
        self._document = document

    def __contains__(self, name: str) -> bool:
        return name in self._document

    def required(self, name: str, read: Callable[[str, Any], T]) -> T:
        if name not in self._document:
            raise _wrong_shape(f"missing field `{name}`")
        return read(name, self._document[name])

    def optional(self, name: str, read: Callable[[str, Any], T], default: T) -> T:
        return read(name, self._document[name]) if name in self._document else default


def _text(name: str, given: Any) -> str:
    if not isinstance(given, str):
        raise _wrong_shape(f"{name}: invalid type: {_kind(given)}, expected a string")
    if not given.isascii() and any("\ud800" <= letter <= "\udfff" for letter in given):
        raise _wrong_shape(f"{name}: half of a surrogate pair is no text")
    return given


def _boolean(name: str, given: Any) -> bool:
    if not isinstance(given, bool):
        raise _wrong_shape(f"{name}: invalid type: {_kind(given)}, expected a boolean")
    return given


def _natural(name: str, given: Any) -> int:
    if not isinstance(given, int) or isinstance(given, bool) or not 0 <= given < 1 << 63:
        raise _wrong_shape(f"{name}: invalid type: {_kind(given)}, expected a whole number from 0")
    return given


def _state(name: str, given: Any) -> list[tuple[bytes, bytes]]:
    if not isinstance(given, dict):
        raise _wrong_shape(f"{name}: invalid type: {_kind(given)}, expected an object of lists of bytes")
    return [(_text(name, key).encode(), _bytes(f"{name}.{key}", member)) for key, member in given.items()]


def _bytes(name: str, given: Any) -> bytes:
    if not isinstance(given, list):
        raise _wrong_shape(f"{name}: invalid type: {_kind(given)}, expected a list of bytes")
    if not set(map(type, given)) <= {int} or (given and not (min(given) >= 0 and max(given) <= 255)):
        raise _wrong_shape(f"{name}: invalid value, expected a list of whole numbers from 0 to 255")
    return bytes(given)


def _duration_ms(name: str, given: Any) -> int:
    if not isinstance(given, str):
        raise _wrong_shape(f"{name}: invalid type: {_kind(given)}, expected a human-friendly duration string")
    try:
        return parse_duration_ms(given)
    except DurationError as error:
        raise _wrong_shape(f"{name}: {error}") from error


def _nullable_pairs(name: str, given: Any) -> dict[str, str]:
    if given is None:
        return {}
    if not isinstance(given, dict):
        raise _wrong_shape(f"{name}: invalid type: {_kind(given)}, expected an object of strings")
    if len(given) > DEPLOYMENT_PAIRS_MAX:
        raise invalid_field(name, f"it has {len(given)} members, at most {DEPLOYMENT_PAIRS_MAX} are kept")
    return {_text(name, key): _text(f"{name}.{key}", member) for key, member in given.items()}


def _nullable(read: Callable[[str, Any], T]) -> Callable[[str, Any], T | None]:
    return lambda name, given: None if given is None else read(name, given)


def _anything(name: str, given: Any) -> Any:
    return given


def _kind(given: Any) -> str:
    match given:
        case None:
            return "null"
        case bool():
            return f"boolean `{'true' if given else 'false'}`"
        case int():
            return f"integer `{given}`" if abs(given) < 1 << 64 else "integer"
        case float():
            return f"floating point `{given}`"
        case str():
            return f'string "{given[:40]}"'
        case list():
            return "sequence"
        case _:
            return "map"


def _wrong_shape(text: str) -> ExtractorError:
    return ExtractorError(422, f"Failed to deserialize the JSON body into the target type: {text}")


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")

"""● core · What the ingress refuses, and how it says so: every status and text is here."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Literal

Source = Literal["ingress", "invocation"]

NOT_COMPLETED = 470  # outside the IANA list; Restate's own

EXPECTED_SERVICE_PATH = "either /:service-name/:handler or /:object-name/:object-key/:handler"
EXPECTED_API_PATH = {
    verb: f"either /restate/{verb}/:service-name/:handler or /restate/{verb}/:object-name/:object-key/:handler"
    for verb in ("call", "send")
}
EXPECTED_SCOPE_PATH = (
    "either /restate/scope/:scope/call/:service-name[/:key]/:handler "
    "or /restate/scope/:scope/send/:service-name[/:key]/:handler"
)
EXPECTED_INVOCATION_PATH = (
    "either /restate/invocation/:invocation-id/(attach|output), "
    "/restate/invocation/:service-name/:handler/:idempotency-key/(attach|output) "
    "or /restate/invocation/:object-name/:object-key/:handler/:idempotency-key/(attach|output)"
)
EXPECTED_WORKFLOW_PATH = (
    "either /restate/workflow/:workflow-name/:workflow-key/attach "
    "or /restate/workflow/:workflow-name/:workflow-key/output"
)
EXPECTED_AWAKEABLE_PATH = "either /restate/awakeables/:awakeable-id/resolve or /restate/awakeables/:awakeable-id/reject"


class RequestError(Exception):
    """The client must act: a status below 600 and a text that names what was wrong with this request."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


def body(code: int, message: str, source: Source, metadata: Mapping[str, str] | None = None) -> bytes:
    """The JSON body of an error answer."""
    fields: dict[str, object] = {"code": code, "message": message, "source": source}
    if metadata:
        fields["metadata"] = dict(metadata)
    return json.dumps(fields, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")


def status_of_failure(code: int) -> int:
    """The HTTP status of a handler's terminal error: its code where that can be an error status, else 500."""
    return code if 400 <= code <= 999 else 500


# -- the request line -----------------------------------------------------------------------------------


def bad_path(path: str) -> RequestError:
    return RequestError(400, f"bad path: {path}")


def wrong_shape(expected: str) -> RequestError:
    return RequestError(400, f"bad path, expected {expected}")


def undecodable_key(reason: str) -> RequestError:
    return RequestError(400, f"bad path, cannot decode key: {reason}")


def bad_query(reason: str) -> RequestError:
    return RequestError(400, f"bad query: {reason}")


def not_found() -> RequestError:
    return RequestError(404, "not found")


def method_not_allowed() -> RequestError:
    return RequestError(405, "method not allowed")


# -- the target -----------------------------------------------------------------------------------------


def service_not_found(service: str) -> RequestError:
    return RequestError(404, f"service '{service}' not found, make sure to register the service before calling it.")


def handler_not_found(service: str, handler: str) -> RequestError:
    return RequestError(
        404,
        f"the service '{service}' exists, but the handler '{handler}' was not found, "
        "check that the handler exists in the latest registered service version.",
    )


def not_public() -> RequestError:
    return RequestError(400, "the invoked service is not public")


def deprecated_deployment(service: str, deployment_id: str) -> RequestError:
    return RequestError(
        400,
        f"the service {service} is exposed by the deprecated deployment {deployment_id}. "
        f"Upgrade the SDK used by {service}.",
    )


def bad_invocation_id(text: str, reason: str) -> RequestError:
    return RequestError(400, f"bad invocation id '{text}': {reason}")


def bad_awakeable_id(text: str, reason: str) -> RequestError:
    return RequestError(400, f"bad awakeable id '{text}': {reason}")


def bad_target(reason: str) -> RequestError:
    return RequestError(400, f"bad target body: {reason}")


# -- inputs ---------------------------------------------------------------------------------------------


def bad_header(name: str, reason: str) -> RequestError:
    return RequestError(400, f"bad header '{name}': {reason}")


def input_validation(reason: str) -> RequestError:
    return RequestError(400, f"input validation error: {reason}")


def delay_on_call() -> RequestError:
    return RequestError(400, "cannot use the delay query parameter with calls. The delay is supported only with sends")


def bad_delay(reason: str) -> RequestError:
    return RequestError(400, f"bad delay query parameter, must be a ISO8601 duration: {reason}")


def idempotency_key_on_workflow() -> RequestError:
    return RequestError(
        400,
        "cannot use the idempotency key with workflow handlers. "
        "The handler invocation will already be idempotent by the workflow key itself.",
    )


def limit_key_without_scope() -> RequestError:
    return RequestError(400, "limit-key requires a scope to be set")


def bad_limit_key(reason: str) -> RequestError:
    return RequestError(400, f"invalid limit-key: {reason}")


def bad_scope(reason: str) -> RequestError:
    return RequestError(400, f"bad scope value: {reason}")


def scope_without_vqueues() -> RequestError:
    return RequestError(400, "scoped invocations require vqueues to be enabled")


def scope_on_object() -> RequestError:
    return RequestError(400, "scope is not supported for Virtual Object targets")


def body_too_long() -> RequestError:
    return RequestError(413, "cannot read body: LengthLimitError")


def body_not_text() -> RequestError:
    return RequestError(400, "cannot read body: it is not valid UTF-8 text")


def headers_too_large(limit: str) -> RequestError:
    return RequestError(431, f"the request headers are too large: {limit}")


def uri_too_long(limit_bytes: int) -> RequestError:
    return RequestError(414, f"the path and query are too long: at most {limit_bytes} bytes")


def read_timeout() -> RequestError:
    return RequestError(408, "the request did not arrive in time")


def bad_http(reason: str) -> RequestError:
    return RequestError(400, f"bad HTTP request: {reason}")


# -- answers of the node --------------------------------------------------------------------------------


def no_output() -> RequestError:
    return RequestError(
        400,
        "cannot get output for the given invocation. You can get output only for invocations created "
        "with an idempotency key, or for workflow methods.",
    )


def output_not_found() -> RequestError:
    return RequestError(404, "invocation not found")


def not_completed() -> RequestError:
    return RequestError(NOT_COMPLETED, "the invocation exists but has not completed yet")


def overloaded() -> RequestError:
    return RequestError(429, "too many requests, the ingress is overloaded. Retry later.")


def internal() -> RequestError:
    return RequestError(500, "internal error, see the server's log")


def too_many_connections() -> RequestError:
    return RequestError(503, "internal routing error: too many connections. Retrying is safe, nothing was read.")


def unavailable(reason: str, *, reads: bool, idempotent: bool, may_have_run: bool) -> RequestError:
    """503 with the reason and whether a retry is safe, which is what the client must decide on."""
    if reads:
        hint = "Retrying is safe, this request changes nothing."
    elif idempotent:
        hint = "Retrying is safe, the request is idempotent."
    elif may_have_run:
        hint = "Retrying may execute the request twice; an idempotency key makes it safe."
    else:
        hint = "Retrying is safe, nothing was recorded."
    return RequestError(503, f"internal routing error: {reason}. {hint}")

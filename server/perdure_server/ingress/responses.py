"""● core · What a client gets: the node's answers and our refusals → bytes of one HTTP/1.1 response."""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import lru_cache
from http import HTTPStatus
from typing import assert_never

from perdure.protocol.ids import encode_invocation_id
from perdure_processor.model.ids import InvocationId
from perdure_processor.model.schema import HandlerSchema
from perdure_processor.model.value import value
from perdure_server.durations import format_time_nanos, format_time_offset
from perdure_server.ingress import errors
from perdure_server.ingress.errors import RequestError
from perdure_server.ingress.requests import (
    Accepted,
    AttachAnswer,
    CallAnswer,
    CompletionAnswer,
    Failed,
    NoOutput,
    NotFound,
    NotReady,
    OutputAnswer,
    Overloaded,
    SendAnswer,
    Success,
    Unavailable,
)
from perdure_server.limits import CONTENT_TYPES_REMEMBERED, INGRESS_RETRY_AFTER_S, STATUS_LINES_REMEMBERED

JSON = b"content-type: application/json\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
# On every answer: any origin may call, with credentials, and caches must know what the answer depends on.
CORS = (
    b"vary: origin, access-control-request-method, access-control-request-headers\r\n"
    b"access-control-allow-credentials: true\r\n"
)
_DEFAULT_CONTENT_TYPE = "application/json"


@value
class Response:
    """One answer: `head` is its own header lines; length, CORS, date and connection are added by `render`."""

    status: int
    head: bytes
    body: bytes


def render(response: Response, shared_head: bytes, *, body_allowed: bool = True) -> bytes:
    """The bytes to write; `shared_head` is what every answer of this moment carries."""
    return b"%b%b%bcontent-length: %d\r\n\r\n%b" % (
        _status_line(response.status),
        response.head,
        shared_head,
        len(response.body),
        response.body if body_allowed else b"",
    )


@lru_cache(STATUS_LINES_REMEMBERED)
def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:  # 470 and what handlers choose
        phrase = "Not Completed" if status == errors.NOT_COMPLETED else "Unassigned"
    return f"HTTP/1.1 {status} {phrase}\r\n".encode()


# -- our own answers ------------------------------------------------------------------------------------


def refusal(error: RequestError) -> Response:
    """What the ingress itself has against a request; never with an invocation id."""
    head = b"x-restate-error-source: ingress\r\n" + JSON
    if error.status in (429, 503):
        head += b"retry-after: %d\r\n" % INGRESS_RETRY_AFTER_S
    return Response(error.status, head, errors.body(error.status, error.message, "ingress"))


def declared_too_long() -> Response:
    """A body whose declared length is over the limit: plain text, as Restate answers it."""
    return Response(413, b"content-type: text/plain; charset=utf-8\r\n", b"length limit exceeded")


def preflight(method: bytes | None, headers: bytes | None) -> Response:
    """The answer to OPTIONS: whatever the browser asks for is allowed."""
    head = b""
    if method is not None:
        head += b"access-control-allow-methods: %b\r\n" % method
    if headers is not None:
        head += b"access-control-allow-headers: %b\r\n" % headers
    return Response(200, head, b"")


def health(services: Iterable[str]) -> Response:
    return Response(200, JSON, json.dumps({"services": list(services)}, separators=(",", ":")).encode())


def lookup(invocation_id: InvocationId) -> Response:
    return Response(200, JSON, b'{"invocationId":"%b"}' % encode_invocation_id(invocation_id).encode())


# -- the node's answers ---------------------------------------------------------------------------------


def call_response(answer: CallAnswer, handler: HandlerSchema, *, idempotent: bool) -> Response:
    match answer:
        case Success():
            return _success(answer, handler)
        case Failed():
            return _failure(answer)
        case Unavailable() | Overloaded():
            return _unavailable(answer, reads=False, idempotent=idempotent)
    assert_never(answer)


def send_response(answer: SendAnswer, *, idempotent: bool) -> Response:
    match answer:
        case Accepted():
            text = encode_invocation_id(answer.invocation_id)
            status = "PreviouslyAccepted" if answer.previously else "Accepted"
            due = ""
            if answer.execution_time_ms is not None:
                due = f'"executionTime":"{format_time_nanos(answer.execution_time_ms)}",'
            body = f'{{"invocationId":"{text}",{due}"status":"{status}"}}'
            return Response(202, b"x-restate-id: %b\r\n" % text.encode() + JSON, body.encode())
        case Unavailable() | Overloaded():
            return _unavailable(answer, reads=False, idempotent=idempotent)
    assert_never(answer)


def attach_response(answer: AttachAnswer, invocation_id: InvocationId, handler: HandlerSchema | None) -> Response:
    match answer:
        case Success():
            return _success(answer, handler)
        case Failed():
            return _failure(answer)
        case NotFound():
            # As Restate has it: the attach went through, it is the invocation that does not exist.
            return _failure(Failed(invocation_id, 404, "not found", {}))
        case Unavailable() | Overloaded():
            return _unavailable(answer, reads=True, idempotent=True)
    assert_never(answer)


def output_response(answer: OutputAnswer, handler: HandlerSchema | None) -> Response:
    match answer:
        case Success():
            return _success(answer, handler)
        case Failed():
            return _failure(answer)
        case NotFound():
            return refusal(errors.output_not_found())
        case NotReady():
            return refusal(errors.not_completed())
        case NoOutput():
            return refusal(errors.no_output())
        case Unavailable() | Overloaded():
            return _unavailable(answer, reads=True, idempotent=True)
    assert_never(answer)


def completion_response(answer: CompletionAnswer) -> Response:
    match answer:
        case Accepted():
            return Response(202, b"", b"")
        case Unavailable() | Overloaded():
            # The first completion wins, so a second one of the same awakeable does no harm.
            return _unavailable(answer, reads=False, idempotent=True)
    assert_never(answer)


def _success(answer: Success, handler: HandlerSchema | None) -> Response:
    head = b"x-restate-id: %b\r\n" % encode_invocation_id(answer.invocation_id).encode()
    if handler is None:
        # By id alone the handler is not known here; JSON is what the SDKs write unless told otherwise.
        content_type = _DEFAULT_CONTENT_TYPE if answer.body else None
    elif answer.body or handler.set_content_type_if_empty:
        content_type = handler.output_content_type
    else:
        content_type = None
    if content_type is not None:
        head += _content_type_line(content_type)
    if answer.expires_ms is not None:
        head += b"idempotency-expires: %b\r\n" % format_time_offset(answer.expires_ms).encode()
    return Response(200, head, answer.body)


@lru_cache(CONTENT_TYPES_REMEMBERED)
def _content_type_line(content_type: str) -> bytes:
    # It comes from a deployment's manifest: nothing in it may end the header line.
    shown = "".join(char for char in content_type if char.isascii() and char.isprintable())
    return f"content-type: {shown}\r\n".encode("ascii")


def _failure(answer: Failed) -> Response:
    head = b"x-restate-id: %b\r\nx-restate-error-source: invocation\r\n%b" % (
        encode_invocation_id(answer.invocation_id).encode(),
        JSON,
    )
    if answer.expires_ms is not None:
        head += b"idempotency-expires: %b\r\n" % format_time_offset(answer.expires_ms).encode()
    body = errors.body(answer.code, answer.message, "invocation", answer.metadata)
    return Response(errors.status_of_failure(answer.code), head, body)


def _unavailable(answer: Unavailable | Overloaded, *, reads: bool, idempotent: bool) -> Response:
    match answer:
        case Overloaded():
            return refusal(errors.overloaded())
        case Unavailable():
            return refusal(
                errors.unavailable(answer.reason, reads=reads, idempotent=idempotent, may_have_run=answer.may_have_run)
            )
    assert_never(answer)

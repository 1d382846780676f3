"""● core · What a request brings along: headers, query, scope, limit key; and the manifest's rules for its input."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache
from typing import Literal, TypeAlias
from urllib.parse import parse_qsl

from perdure_processor.model.schema import InputRule
from perdure_server.durations import DurationError, parse_duration_ms
from perdure_server.ingress import errors
from perdure_server.limits import HEADER_NAMES_REMEMBERED, INGRESS_QUERY_FIELDS_MAX

RawHeaders: TypeAlias = Sequence[tuple[bytes, bytes]]
Verb = Literal["call", "send"]

LIMIT_KEY_LEVELS_MAX = 2

_SCOPE = re.compile(r"[a-zA-Z0-9_.-]{1,36}")
_SCOPE_RULE = "only letters, digits, '_', '.' and '-', at most 36 characters"

# Received headers that mean something here; all others go to the handler as they came.
_DROPPED, _CONTENT_TYPE, _IDEMPOTENCY_KEY, _LIMIT_KEY = range(4)
_HEADER_MEANING = {
    "connection": _DROPPED,
    "host": _DROPPED,
    "idempotency-expires": _DROPPED,
    "idempotency-key": _IDEMPOTENCY_KEY,
    "content-type": _CONTENT_TYPE,
    "x-restate-limit-key": _LIMIT_KEY,
    # The server's own words: a client's value would look to the handler as if the server had said it.
    "x-restate-ingress-path": _DROPPED,
    "x-restate-id": _DROPPED,
    "x-restate-server": _DROPPED,
    "x-restate-error-source": _DROPPED,
    # What it says to a deployment about one attempt, and how a deployment knows that it is the server who speaks.
    "x-restate-invocation-id": _DROPPED,
    "x-restate-service-key": _DROPPED,
    "x-restate-cluster-name": _DROPPED,
    "x-restate-signature-scheme": _DROPPED,
    "x-restate-jwt-v1": _DROPPED,
    "x-perdure-attempt": _DROPPED,
}


def read_headers(target: str, headers: RawHeaders) -> tuple[list[tuple[str, str]], str | None, str | None, str | None]:
    """What the handler shall see, and the content type, idempotency key and limit key."""
    passed = [("x-restate-ingress-path", target)]
    content_type = idempotency_key = limit_key = None
    for raw_name, raw_value in headers:
        name, meaning = _name_of(raw_name)
        text = raw_value.decode("latin-1")
        if not (text.isascii() and text.isprintable()):
            _check_odd_text(name, text)
        if meaning is None:
            passed.append((name, text))
        elif meaning == _CONTENT_TYPE:
            content_type = text
            passed.append((name, text))
        elif meaning == _IDEMPOTENCY_KEY:
            if idempotency_key is not None and idempotency_key != text:
                raise errors.bad_header(name, "it is given twice, with different values")
            idempotency_key = text
        elif meaning == _LIMIT_KEY:
            if limit_key is not None and limit_key != text:
                raise errors.bad_header(name, "it is given twice, with different values")
            limit_key = text
            passed.append((name, text))
    return passed, content_type, idempotency_key, limit_key


@lru_cache(HEADER_NAMES_REMEMBERED)
def _name_of(raw_name: bytes) -> tuple[str, int | None]:
    """The header's name in lower case and its meaning; clients send the same few names again and again."""
    name = raw_name.decode("latin-1").lower()
    return name, _HEADER_MEANING.get(name)


def _check_odd_text(name: str, text: str) -> None:
    # A tab is the one control character that a header value may hold.
    if not (text.isascii() and text.replace("\t", " ").isprintable()):
        raise errors.bad_header(name, "its value is not visible ASCII text")


def read_query(query: str, verb: Verb) -> tuple[int | None, str | None]:
    """The delay in milliseconds and the limit key; parameters that mean nothing here are the handler's."""
    try:
        fields = parse_qsl(query, keep_blank_values=True, max_num_fields=INGRESS_QUERY_FIELDS_MAX)
    except ValueError:
        raise errors.bad_query(f"more than {INGRESS_QUERY_FIELDS_MAX} parameters") from None
    delay_ms = limit_key = None
    for name, text in fields:
        if name == "delay":
            if verb == "call":
                raise errors.delay_on_call()
            if delay_ms is not None:
                raise errors.bad_delay("it is given more than once")
            try:
                delay_ms = parse_duration_ms(text)
            except DurationError as error:
                raise errors.bad_delay(str(error)) from None
        elif name == "limit-key":
            limit_key = text
    return delay_ms, limit_key


def check_limit_key(limit_key: str) -> None:
    levels = limit_key.split("/")
    if len(levels) > LIMIT_KEY_LEVELS_MAX:
        raise errors.bad_limit_key(f"too many path components in the given limit-key (max {LIMIT_KEY_LEVELS_MAX})")
    if not all(_SCOPE.fullmatch(level) for level in levels):
        raise errors.bad_limit_key(_SCOPE_RULE)


def check_scope(scope: str) -> None:
    if not _SCOPE.fullmatch(scope):
        raise errors.bad_scope(_SCOPE_RULE)


def check_input(rules: Sequence[InputRule], content_type: str | None, body: bytes) -> None:
    """Any alternative that fits lets the request pass; else the most telling one says what is wrong."""
    complaint = None
    for rule in rules:
        if rule.only_empty:
            if not body and content_type is None:
                return
            if complaint is None:
                given = "None" if content_type is None else f'Some("{content_type}")'
                complaint = f"Expected body and content-type to be empty, but wasn't with content-type '{given}'"
            continue
        if rule.content_type is not None:
            if content_type is None:
                complaint = "Empty content-type"
                continue
            if content_type != rule.content_type and not _matches(content_type, rule.content_type):
                complaint = f"Content-type '{content_type}' does not match '{rule.content_type}'"
                continue
        if rule.body_required and not body:
            complaint = "Empty body not allowed"
            continue
        return
    if complaint is not None:
        raise errors.input_validation(complaint)


def _matches(content_type: str, pattern: str) -> bool:
    given, _, _ = content_type.partition(";")
    wanted, _, _ = pattern.partition(";")
    given, wanted = given.strip().lower(), wanted.strip().lower()
    if wanted in ("*/*", given):
        return True
    return wanted.endswith("/*") and given.startswith(wanted[:-1])

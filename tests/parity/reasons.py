"""Why a row may differ: (pattern of the row's title, what of it may differ, reason). Anything else is a fault."""

from __future__ import annotations

import fnmatch

_WORDS = "only the words for people differ"
_BAD_REQUEST = "a client's mistake is answered 400, not 500"
_RELATED = "the failing command is named also where the real server is silent"

REASONS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("ingress: path *", ("message",), _WORDS),
    ("ingress: call of an object, key that is not UTF-8", ("message",), _WORDS),
    ("ingress: send with a bare number as delay", ("message",), _WORDS),
    ("ingress: scope, bad", ("message",), _WORDS),
    ("ingress: scope, object", ("message",), "scopes are refused either way; the first of two reasons named differs"),
    ("ingress: awakeable *, cut id", ("message",), _WORDS),
    ("ingress: * by target body: *", ("status", "body", "message"), _BAD_REQUEST),
    (
        "ingress: workflow: *",
        ("status", "body", "message", "x-restate-error-source", "x-restate-id"),
        "a workflow that is not registered is named, instead of a run that is not found",
    ),
    (
        "ingress: * by target body: scope",
        ("x-restate-error-source", "x-restate-id"),
        "a scope is refused wherever there is no flow control",
    ),
    ("admin: deployment by PUT", ("allow", "body", "message", "content-type"), "405 either way"),
    ("admin: register, not a uri", ("status", "content-type"), "refused either way; one answer for every bad uri"),
    (
        "admin: state with a version",
        ("body", "message", "content-type"),
        "202 either way; here it says that nothing will change",
    ),
    ("admin: change an unknown deployment", ("message",), _WORDS),
    ("admin: register, ftp", ("status",), _BAD_REQUEST),
    (
        "admin: pause, suspended",
        ("status", "body", "message", "content-type"),
        "the real server answers 200 and leaves it suspended; 409 says that nothing was paused",
    ),
    (
        "admin: restart-as-new[?]from=x, bad id",
        ("body", "message", "content-type"),
        "400 either way; the first of two mistakes named differs",
    ),
    ("query: no rows", ("status", "body", "message"), "an id that is none equals no id; 500 is no answer to a filter"),
    ("query: unknown *", ("status",), _BAD_REQUEST),
    ("query: SET", ("status",), _BAD_REQUEST),
    ("wire: run", ("status", "completion_result", "journal", "replays"), "a handler suspended on its own run goes on"),
    (
        "wire: proposal without a run",
        ("status", "completion_result", "journal", "last_failure_error_code"),
        "a result that belongs to no run breaks the protocol",
    ),
    ("wire: *", ("last_failure_related_command_index",), _RELATED),
)


def reason(title: str, parts: list[str]) -> str | None:
    """The reason for all these differences of a row, or None if one of them has none."""
    said: dict[str, None] = {}
    for part in parts:
        name = part.partition(":")[0]
        allowed = [why for pattern, names, why in REASONS if name in names and fnmatch.fnmatchcase(title, pattern)]
        if not allowed:
            return None
        said[allowed[0]] = None
    return "; ".join(said)

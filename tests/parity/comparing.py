"""What of an answer must be equal: ids, times, ports and orders that are free are taken out first."""

from __future__ import annotations

import io
import json
import re
from typing import Any

import pyarrow

from parity.side import Answered

# Headers whose value counts, and those that merely must be there or not.
VALUES = (
    "content-type",
    "x-restate-error-source",
    "location",
    "allow",
    "access-control-allow-origin",
    "access-control-allow-credentials",
    "access-control-allow-methods",
    "access-control-allow-headers",
    "access-control-expose-headers",
)
PRESENCE = ("x-restate-id", "idempotency-expires")
# Lists that no server promises an order of.
UNORDERED = ("services", "handlers", "deployments")
ARROW = "application/vnd.apache.arrow.stream"
_FREE = (
    (re.compile(r"\b(inv|dp|sign|prom)_1[0-9A-Za-z_-]{8,}"), r"\1_ID"),
    (re.compile(r"127\.0\.0\.1:\d+"), "127.0.0.1:PORT"),
    (re.compile(r"\d{4}-\d\d-\d\dT[0-9:.]+(Z|\+00:00)"), "TIME"),
)


def normalised(text: str) -> str:
    """The text without what differs from run to run."""
    for pattern, stand_in in _FREE:
        text = pattern.sub(stand_in, text)
    return text


def essence(answer: Answered, compare: str) -> dict[str, Any]:
    """The part of an answer that both servers must agree about."""
    seen: dict[str, Any] = {"status": answer.status}
    for name in VALUES:
        if name in answer.headers:
            seen[name] = normalised(answer.headers[name])
    for name in PRESENCE:
        if name in answer.headers:
            seen[name] = "there"
    if compare != "nothing":
        body = _body(answer, compare)
        if isinstance(body, dict) and "message" in body:
            # Apart, since words for people may differ where codes may not.
            seen["message"] = body.pop("message")
        seen["body"] = body
    return seen


def _body(answer: Answered, compare: str) -> Any:
    content_type = answer.headers.get("content-type", "")
    if content_type.startswith(ARROW):
        table = pyarrow.ipc.open_stream(io.BytesIO(answer.body)).read_all()
        return {"schema": str(table.schema.remove_metadata()), "rows": _settled(table.to_pylist())}
    text = answer.body.decode(errors="replace")
    if not text or not content_type.startswith("application/json"):
        return normalised(text)
    value = json.loads(text)
    return sorted(value) if compare == "kind" and isinstance(value, dict) else _settled(value)


def _settled(value: Any, name: str = "") -> Any:
    match value:
        case dict():
            return {key: _settled(member, key) for key, member in sorted(value.items())}
        case list():
            members = [_settled(member) for member in value]
            return sorted(members, key=lambda member: json.dumps(member)) if name in UNORDERED else members
        case str():
            return normalised(value)
    return value


def differences(real: dict[str, Any], ours: dict[str, Any]) -> list[str]:
    """One line for each part that differs: `part: real -> ours`."""
    found = []
    for part in sorted({*real, *ours}):
        left, right = real.get(part), ours.get(part)
        if left != right:
            found.append(f"{part}: {_short(left, right)} -> {_short(right, left)}")
    return found


def _short(value: Any, other: Any) -> str:
    """Of two objects only the members that differ."""
    if isinstance(value, dict) and isinstance(other, dict):
        value = {key: member for key, member in value.items() if other.get(key, ...) != member}
    text = "absent" if value is None else value if isinstance(value, str) else json.dumps(value)
    return text if len(text) <= 300 else text[:300] + "…"

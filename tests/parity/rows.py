"""The rows: requests of public-surface 1, 2 and 3.1, each with the state its invocation is in."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

JSON = {"content-type": "application/json"}
QUERY = {"content-type": "application/json", "accept": "application/json"}
VERBS = (
    "cancel",
    "kill",
    "pause",
    "resume",
    "resume?deployment=latest",
    "resume?deployment=keep",
    "resume?deployment={deployment}",
    "resume?deployment=dp_nope",
    "restart-as-new",
    "restart-as-new?from=1",
    "restart-as-new?from=99",
    "restart-as-new?from=x",
    "restart-as-new?deployment=latest",
    "purge",
    "purge-journal",
)
STATES = (
    "unknown",
    "scheduled",
    "pending",
    "running",
    "backing-off",
    "suspended",
    "paused",
    "completed",
    "failed",
    "workflow completed",
    "purged",
)
TABLES = (
    "state",
    "sys_deployment",
    "sys_inbox",
    "sys_invocation",
    "sys_invocation_state",
    "sys_invocation_status",
    "sys_journal",
    "sys_journal_events",
    "sys_keyed_service_status",
    "sys_promise",
    "sys_service",
)


@dataclass(frozen=True)
class Row:
    """One request; `{id}`, `{key}` and names of the side are filled into path and body."""

    title: str
    door: str
    method: str
    path: str
    body: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    state: str | None = None
    # What of the body is compared: "all", the "kind" (its members' names), or "nothing".
    compare: str = "all"


def _ingress(title: str, method: str, path: str, body: Any = None, **more: Any) -> Row:
    return _row("ingress", title, method, path, body, **more)


def _admin(title: str, method: str, path: str, body: Any = None, **more: Any) -> Row:
    return _row("admin", title, method, path, body, **more)


def _row(door: str, title: str, method: str, path: str, body: Any, **more: Any) -> Row:
    """`body` as it is if bytes, else as JSON; `also` are headers beside the content type."""
    headers = dict(more.pop("also", {}))
    if body is not None and not isinstance(body, bytes):
        body = json.dumps(body).encode()
        headers = {**JSON, **headers}
    return Row(f"{door}: {title}", door, method, path, body, headers, **more)


def ingress_rows() -> Iterator[Row]:
    """Routes, inputs, responses and errors of public-surface 1."""
    yield _ingress("health", "GET", "/restate/health")
    yield _ingress("health by POST", "POST", "/restate/health")
    for shape, path in (("old", "/Plain/greet"), ("new", "/restate/call/Plain/greet")):
        yield _ingress(f"call, {shape} form", "POST", path, "x")
        yield _ingress(f"call, {shape} form, slash at the end", "POST", path + "/", "x")
        yield _ingress(f"call by GET, {shape} form", "GET", path)
        yield _ingress(f"call by PUT, {shape} form", "PUT", path, "x")
        yield _ingress(f"call by HEAD, {shape} form", "HEAD", path)
    yield _ingress("call of an object", "POST", "/Thing/{key}/add", 1)
    yield _ingress("call of an object, new form", "POST", "/restate/call/Thing/{key}/add", 1)
    yield _ingress("call of an object, encoded key", "POST", "/Thing/a%2Fb%20{key}/add", 1)
    yield _ingress("call of an object, key that is not UTF-8", "POST", "/Thing/%ff/add", 1)
    yield _ingress("call, malformed JSON", "POST", "/Plain/greet", b"{", also=JSON)
    yield _ingress("call, no result", "POST", "/Plain/nothing")
    yield _ingress("call that fails for good", "POST", "/Plain/terminal")
    yield _ingress("send", "POST", "/Plain/greet/send", "x")
    yield _ingress("send, new form", "POST", "/restate/send/Plain/greet", "x")
    yield _ingress("send with delay", "POST", "/Plain/greet/send?delay=1h", "x")
    yield _ingress("send with ISO delay", "POST", "/restate/send/Plain/greet?delay=PT1H", "x")
    yield _ingress("send with a bare number as delay", "POST", "/Plain/greet/send?delay=10", "x")
    yield _ingress("call with delay", "POST", "/Plain/greet?delay=10s", "x")
    yield _ingress("call with a key", "POST", "/Plain/greet", "x", also={"idempotency-key": "{key}"})
    yield _ingress("call with a key, twice", "POST", "/Plain/greet", "x", also={"idempotency-key": "twice"})
    yield _ingress("call with a key, again", "POST", "/Plain/greet", "y", also={"idempotency-key": "twice"})
    yield _ingress("send with a key, again", "POST", "/Plain/greet/send", "y", also={"idempotency-key": "twice"})
    yield _ingress("call with an empty key", "POST", "/Plain/greet", "x", also={"idempotency-key": ""})
    yield _ingress("workflow run with a key", "POST", "/Flow/{key}/run", "x", also={"idempotency-key": "k"})
    yield _ingress("limit key without scope", "POST", "/Plain/greet", "x", also={"x-restate-limit-key": "a"})
    yield _ingress("limit key of three levels", "POST", "/Plain/greet", "x", also={"x-restate-limit-key": "a/b/c"})
    yield _ingress("limit key in the query", "POST", "/Plain/greet?limit-key=a", "x")
    yield _ingress("scope, call", "POST", "/restate/scope/s/call/Plain/greet", "x")
    yield _ingress("scope, send", "POST", "/restate/scope/s/send/Plain/greet", "x")
    yield _ingress("scope, bad", "POST", "/restate/scope/s!/call/Plain/greet", "x")
    yield _ingress("scope, object", "POST", "/restate/scope/s/call/Thing/{key}/add", 1)
    yield _ingress("private service", "POST", "/Hidden/greet", "x")
    yield _ingress("unknown service", "POST", "/Nope/greet", "x")
    yield _ingress("unknown handler", "POST", "/Plain/nope", "x")
    yield _ingress("unknown service, new form", "POST", "/restate/call/Nope/greet", "x")
    yield _ingress("unknown handler, new form", "POST", "/restate/call/Plain/nope", "x")
    for path in (
        "/",
        "/x",
        "/a/b/c/d/e/f/g/h",
        "/Plain/k/greet",
        "/Thing/add",
        "/Plain/greet/x/y",
        "/restate/nope",
        "/restate/call",
        "/restate/call/Plain",
        "/restate/call/Plain/a/b/c",
        "/restate/send/Plain",
        "/restate/attach/a/b",
        "/restate/invocation/x",
        "/restate/workflow/Flow",
        "/restate/workflow/Flow/k/nope",
        "/restate/awakeables/x",
        "/restate/scope/s",
        "/restate/scope/s/nope/Plain/greet",
        "/openapi",
    ):
        yield _ingress(f"path {path}", "POST", path)
        yield _ingress(f"path {path} by GET", "GET", path)
    text = {"content-type": "text/plain"}
    yield _ingress("input: wrong content type", "POST", "/Plain/greet", b"x", also=text)
    yield _ingress("input: no content type", "POST", "/Plain/greet", b"x")
    yield _ingress("input: empty with a content type", "POST", "/Plain/greet", b"", also=JSON)
    yield _ingress("input: content type with a parameter", "POST", "/Plain/greet", b'"x"', also={
        "content-type": "application/json; charset=utf-8"
    })  # fmt: skip
    yield _ingress("input: for a handler without", "POST", "/Plain/nothing", b"x", also=JSON)
    yield _ingress("input: content type alone for a handler without", "POST", "/Plain/nothing", b"", also=JSON)
    yield _ingress("preflight", "OPTIONS", "/Plain/greet", also={
        "origin": "http://a.example",
        "access-control-request-method": "POST",
        "access-control-request-headers": "content-type",
    })  # fmt: skip
    yield _ingress("origin", "POST", "/Plain/greet", "x", also={"origin": "http://a.example"})
    for verb in ("resolve", "reject"):
        sign = "sign_1" + "A" * 36 + "EQ"  # signal 17 of an invocation that never was
        yield _ingress(f"awakeable {verb}, well-formed", "POST", f"/restate/awakeables/{sign}/{verb}", b"x", also=text)
        yield _ingress(f"awakeable {verb}, short form", "POST", f"/restate/a/{sign}/{verb}", "x")
        yield _ingress(f"awakeable {verb}, empty", "POST", f"/restate/awakeables/{sign}/{verb}")
        yield _ingress(f"awakeable {verb}, bad id", "POST", f"/restate/awakeables/x/{verb}", "x")
        yield _ingress(f"awakeable {verb}, cut id", "POST", f"/restate/awakeables/sign_1AAAA/{verb}", "x")
        yield _ingress(f"awakeable {verb} by GET", "GET", f"/restate/awakeables/{sign}/{verb}")
    yield _ingress("workflow: attach to a run not submitted", "GET", "/restate/workflow/Flow/{key}/attach")
    yield _ingress("workflow: output of a run not submitted", "GET", "/restate/workflow/Flow/{key}/output")
    yield _ingress("workflow: attach, unknown workflow", "GET", "/restate/workflow/Nope/{key}/attach")
    yield _ingress("workflow: output, not a workflow", "GET", "/restate/workflow/Thing/{key}/output")
    for what in ("attach", "output"):
        yield _ingress(f"{what} by key, known", "GET", f"/restate/invocation/Plain/greet/twice/{what}")
        yield _ingress(f"{what} by key, unknown", "GET", f"/restate/invocation/Plain/greet/{{key}}/{what}")
        yield _ingress(f"{what} by key, unknown service", "GET", f"/restate/invocation/Nope/greet/k/{what}")
        yield _ingress(f"{what}, bad id", "GET", f"/restate/{what}/x")
        yield _ingress(f"{what}, bad id, older form", "GET", f"/restate/invocation/x/{what}")
    for state in STATES:
        yield _ingress(f"output, {state}", "GET", "/restate/output/{id}", state=state)
        yield _ingress(f"output, {state}, older form", "GET", "/restate/invocation/{id}/output", state=state)
    for state in ("unknown", "completed", "failed", "workflow completed", "purged"):
        yield _ingress(f"attach, {state}", "GET", "/restate/attach/{id}", state=state)
    known = {"target": "idempotentInvocation", "service": "Plain", "handler": "greet", "idempotencyKey": "twice"}
    bodies: tuple[tuple[str, Any], ...] = (
        ("workflow", {"target": "workflow", "workflowName": "Flow", "workflowKey": "never"}),
        ("unregistered workflow", {"target": "workflow", "workflowName": "Nope", "workflowKey": "w"}),
        ("key", known),
        ("unused key", {**known, "idempotencyKey": "never"}),
        ("unregistered service", {**known, "service": "Nope"}),
        ("scope", {**known, "scope": "s"}),
        ("bad invocation id", {"target": "invocation", "invocationId": "x"}),
        ("missing member", {"target": "invocation"}),
        ("unknown target", {"target": "nope"}),
        ("no target", {}),
        ("malformed", b"{"),
        ("empty", b""),
    )
    for what in ("attach", "output", "lookup"):
        for title, body in bodies:
            also = JSON if isinstance(body, bytes) else {}
            yield _ingress(f"{what} by target body: {title}", "POST", f"/restate/{what}", body, also=also)
        yield _ingress(f"{what} by target body, GET", "GET", f"/restate/{what}")
        yield _ingress(
            f"{what} by target body, no content type", "POST", f"/restate/{what}", json.dumps(known).encode()
        )


def admin_rows() -> Iterator[Row]:
    """Health, deployments, services, handlers, state: public-surface 2.1 to 2.3."""
    yield _admin("health", "GET", "/health")
    yield _admin("version", "GET", "/version", compare="kind")
    yield _admin("cluster health", "GET", "/cluster-health", compare="kind")
    yield _admin("OpenAPI", "GET", "/openapi", compare="nothing")
    yield _admin("root", "GET", "/")
    yield _admin("unknown route", "GET", "/nope")
    yield _admin("version 1", "GET", "/v1/services")
    yield _admin("version 2", "GET", "/v2/health")
    yield _admin("version 9", "GET", "/v9/services")
    yield _admin("deployments", "GET", "/deployments")
    yield _admin("deployments, prefix", "GET", "/v3/deployments")
    yield _admin("deployments by DELETE", "DELETE", "/deployments")
    yield _admin("deployment", "GET", "/deployments/{deployment}")
    yield _admin("deployment, unknown", "GET", "/deployments/dp_10Fm3fFPNQD9kPKgIPbcvGx")
    yield _admin("deployment, bad id", "GET", "/deployments/x")
    yield _admin("deployment by PUT", "PUT", "/deployments/{deployment}", {"uri": "{sdk_uri}"})
    yield _admin("register again", "POST", "/deployments", {"uri": "{sdk_uri}"})
    yield _admin("register again, dry run", "POST", "/deployments", {"uri": "{sdk_uri}", "dry_run": True})
    yield _admin("register, nobody listens", "POST", "/deployments", {"uri": "http://127.0.0.1:1"}, compare="kind")
    yield _admin("register, no uri", "POST", "/deployments", {}, compare="nothing")
    yield _admin("register, malformed", "POST", "/deployments", b"{", also=JSON, compare="nothing")
    yield _admin("register, no content type", "POST", "/deployments", b"{}")
    yield _admin("register, not a uri", "POST", "/deployments", {"uri": "::"}, compare="nothing")
    yield _admin("register, ftp", "POST", "/deployments", {"uri": "ftp://127.0.0.1/"}, compare="nothing")
    yield _admin("change nothing of a deployment", "PATCH", "/deployments/{deployment}", {}, compare="nothing")
    yield _admin("change headers, dry run", "PATCH", "/deployments/{deployment}", {
        "additional_headers": {"a": "b"}, "dry_run": True
    })  # fmt: skip
    yield _admin("change an unknown deployment", "PATCH", "/deployments/dp_10Fm3fFPNQD9kPKgIPbcvGx", {
        "additional_headers": {"a": "b"}
    })  # fmt: skip
    yield _admin("delete without force", "DELETE", "/deployments/{deployment}")
    yield _admin("delete, unknown", "DELETE", "/deployments/dp_10Fm3fFPNQD9kPKgIPbcvGx?force=true")
    yield _admin("services", "GET", "/services")
    for name in ("Plain", "Thing", "Flow", "Hidden", "Nope"):
        yield _admin(f"service {name}", "GET", f"/services/{name}")
        yield _admin(f"handlers of {name}", "GET", f"/services/{name}/handlers")
        yield _admin(f"OpenAPI of {name}", "GET", f"/services/{name}/openapi", compare="kind")
    yield _admin("handler", "GET", "/services/Plain/handlers/greet")
    yield _admin("handler, unknown", "GET", "/services/Plain/handlers/nope")
    yield _admin("handler, unknown service", "GET", "/services/Nope/handlers/nope")
    changes: tuple[tuple[str, Any], ...] = (
        ("nothing", {}),
        ("public", {"public": True}),
        ("retention", {"idempotency_retention": "2 days"}),
        ("ISO retention", {"journal_retention": "PT2H"}),
        ("workflow retention of a service", {"workflow_completion_retention": "1h"}),
        ("inactivity", {"inactivity_timeout": "2m"}),
        ("abort", {"abort_timeout": "3m"}),
        ("unknown member", {"nope": 1}),
    )
    for title, body in changes:
        yield _admin(f"change of a service: {title}", "PATCH", "/services/Plain", body)
    yield _admin("change of a service: a number", "PATCH", "/services/Plain", {"abort_timeout": 3}, compare="nothing")
    yield _admin("change of an unknown service", "PATCH", "/services/Nope", {"public": True})
    state = {"object_key": "{key}", "new_state": {"total": [49]}}
    yield _admin("state", "POST", "/services/Thing/state", state)
    yield _admin("state with a version", "POST", "/services/Thing/state", {**state, "version": "abc"})
    yield _admin("state cleared", "POST", "/services/Thing/state", {**state, "new_state": {}})
    yield _admin("state of a workflow", "POST", "/services/Flow/state", state)
    yield _admin("state of a service", "POST", "/services/Plain/state", state)
    yield _admin("state of an unknown service", "POST", "/services/Nope/state", state)
    yield _admin("state, a byte too large", "POST", "/services/Thing/state", {
        **state, "new_state": {"total": [256]}
    }, compare="nothing")  # fmt: skip
    yield _admin("state, missing member", "POST", "/services/Thing/state", {}, compare="nothing")


def verb_rows() -> Iterator[Row]:
    """Every verb on an invocation in every state: public-surface 2.4."""
    for verb in VERBS:
        yield _admin(f"{verb}, bad id", "PATCH", f"/invocations/x/{verb}")
        for state in STATES:
            yield _admin(f"{verb}, {state}", "PATCH", f"/invocations/{{id}}/{verb}", state=state)
    for mode in ("cancel", "kill", "purge"):
        yield _admin(f"delete as {mode}, completed", "DELETE", f"/invocations/{{id}}?mode={mode}", state="completed")
        yield _admin(f"delete as {mode}, running", "DELETE", f"/invocations/{{id}}?mode={mode}", state="running")
    yield _admin("delete without mode", "DELETE", "/invocations/{id}", state="completed")
    yield _admin("delete, bad mode", "DELETE", "/invocations/{id}?mode=x", state="completed", compare="nothing")
    yield _admin("unknown verb", "PATCH", "/invocations/{id}/nope", state="completed")
    yield _admin("verb by GET", "GET", "/invocations/{id}/cancel", state="completed")
    batch = "/internal/invocations_batch_operations/"
    for verb in ("kill", "cancel", "purge", "purge-journal", "restart-as-new", "resume", "pause"):
        for state in ("unknown", "scheduled", "running", "completed"):
            body = {"invocation_ids": ["{id}"]}
            yield _admin(f"batch {verb}, {state}", "POST", batch + verb, body, state=state)
    yield _admin("batch, bad id", "POST", batch + "kill", {"invocation_ids": ["x"]}, compare="nothing")
    yield _admin("batch, nothing named", "POST", batch + "kill", {}, compare="nothing")
    yield _admin("batch, none", "POST", batch + "kill", {"invocation_ids": []})
    yield _admin("batch, unknown verb", "POST", batch + "nope", {"invocation_ids": []})


def query_rows() -> Iterator[Row]:
    """POST /query: forms, refusals, and the columns of each table."""

    def query(title: str, text: str, headers: Mapping[str, str] = QUERY, compare: str = "all") -> Row:
        body = json.dumps({"query": text}).encode()
        return Row(f"query: {title}", "admin", "POST", "/query", body, headers, None, compare)

    for table in TABLES:
        columns = f"SELECT column_name, data_type FROM information_schema.columns WHERE table_name = '{table}'"
        yield query(f"columns of {table}", columns + " ORDER BY column_name")
    services = "SELECT name, ty, public, deployment_id FROM sys_service ORDER BY name"
    yield query("services", services)
    yield query("services as Arrow", services, JSON)
    yield query("two media types are Arrow", services, {**JSON, "accept": "application/json, text/plain"})
    yield query("no rows", "SELECT id FROM sys_invocation WHERE id = 'inv_1'")
    yield query("count", "SELECT count(*) AS n FROM sys_service")
    yield query(
        "deployments", "SELECT id, ty, endpoint, services FROM sys_deployment ORDER BY endpoint", compare="kind"
    )
    yield query("syntax error", "SELEC 1", compare="kind")
    yield query("unknown table", "SELECT * FROM nope", compare="kind")
    yield query("unknown column", "SELECT nope FROM sys_service", compare="kind")
    yield query("DELETE", "DELETE FROM state", compare="kind")
    yield query("INSERT", "INSERT INTO state (key) VALUES ('x')", compare="kind")
    yield query("CREATE TABLE", "CREATE TABLE x AS SELECT 1", compare="kind")
    yield query("SET", "SET a = 1", compare="kind")
    yield query("empty", "", compare="kind")
    yield Row("query: no member", "admin", "POST", "/query", b"{}", QUERY, None, "nothing")
    yield Row("query: malformed", "admin", "POST", "/query", b"{", QUERY, None, "nothing")
    yield Row("query: no content type", "admin", "POST", "/query", b"{}", {})

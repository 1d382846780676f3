"""What the ingress takes and refuses: a request line, headers and a body → what is asked, or why not."""

from __future__ import annotations

import json
from collections.abc import Mapping

import pytest

from perdure.protocol.ids import encode_awakeable_id, encode_invocation_id
from perdure_processor.model.ids import InvocationTarget
from perdure_server.ingress.errors import RequestError
from perdure_server.ingress.paths import (
    Attach,
    Call,
    CompleteAwakeable,
    Health,
    Lookup,
    Output,
    Request,
    Send,
    idempotent_id,
    read_request,
    workflow_id,
)
from support.ingress import ID, sample_schema

SCHEMA = sample_schema()
INV = encode_invocation_id(ID)
SIGN = encode_awakeable_id(ID, 17)


def read(line: str, *headers: tuple[str, str], body: bytes = b"", content_type: str | None = None) -> Request:
    method, _, target = line.partition(" ")
    raw = [(name.encode(), text.encode("latin-1")) for name, text in headers]
    if content_type is not None:
        raw.append((b"Content-Type", content_type.encode()))
    return read_request(SCHEMA, method, target, raw, body)


def refused(
    line: str, *headers: tuple[str, str], body: bytes = b"", content_type: str | None = None
) -> tuple[int, str]:
    with pytest.raises(RequestError) as caught:
        read(line, *headers, body=body, content_type=content_type)
    return caught.value.status, caught.value.message


def target(body: Mapping[str, object]) -> bytes:
    return json.dumps(body).encode()


# -- 1.1 routes -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize(
    ("path", "kind", "service", "key", "handler"),
    [
        ("/Greeter/greet", Call, "Greeter", None, "greet"),
        ("/Greeter/greet/", Call, "Greeter", None, "greet"),
        ("/Greeter/greet/send", Send, "Greeter", None, "greet"),
        ("/Counter/alice/add", Call, "Counter", "alice", "add"),
        ("/Counter/alice/add/send", Send, "Counter", "alice", "add"),
        ("/Counter/send/add", Call, "Counter", "send", "add"),
        ("/Flow/w1/run", Call, "Flow", "w1", "run"),
        ("/restate/call/Greeter/greet", Call, "Greeter", None, "greet"),
        ("/restate/call/Counter/alice/add", Call, "Counter", "alice", "add"),
        ("/restate/call/Counter/alice/add/", Call, "Counter", "alice", "add"),
        ("/restate/send/Greeter/greet", Send, "Greeter", None, "greet"),
        ("/restate/send/Flow/w1/run", Send, "Flow", "w1", "run"),
        # Key segments are percent-decoded after the path is split; + is a plus.
        ("/Counter/a%2Fb/add", Call, "Counter", "a/b", "add"),
        ("/Counter/a%20b+c/add", Call, "Counter", "a b+c", "add"),
        ("/Counter/%C3%A9/add", Call, "Counter", "é", "add"),
        ("/Counter/é/add", Call, "Counter", "é", "add"),
        ("/Counter/100%/add", Call, "Counter", "100%", "add"),
        ("/Counter/%00/add", Call, "Counter", "\x00", "add"),
        ("http://proxy:8080/Counter/alice/add", Call, "Counter", "alice", "add"),
    ],
)
def test_calls_and_sends(
    method: str, path: str, kind: type[Call] | type[Send], service: str, key: str | None, handler: str
) -> None:
    asked = read(f"{method} {path}")
    assert isinstance(asked, kind)
    assert asked.request.target == InvocationTarget(service, key, handler)
    assert asked.request.service is SCHEMA.services[service]
    assert asked.request.handler is SCHEMA.services[service].handlers[handler]
    assert asked.request.delay_ms is None


BY_KEY = idempotent_id("Counter", "alice", "add", "k/1")
BY_KEY_UNKEYED = idempotent_id("Greeter", None, "greet", "k1")
GREET = SCHEMA.services["Greeter"].handlers["greet"]
ADD = SCHEMA.services["Counter"].handlers["add"]
RUN = SCHEMA.services["Flow"].handlers["run"]


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("GET /restate/health", Health()),
        ("GET /restate/health/", Health()),
        (f"GET /restate/attach/{INV}", Attach(ID, None)),
        (f"GET /restate/output/{INV}", Output(ID, None)),
        (f"GET /restate/invocation/{INV}/attach", Attach(ID, None)),
        (f"GET /restate/invocation/{INV}/output", Output(ID, None)),
        ("GET /restate/invocation/Greeter/greet/k1/attach", Attach(BY_KEY_UNKEYED, GREET)),
        ("GET /restate/invocation/Counter/alice/add/k%2F1/output", Output(BY_KEY, ADD)),
        ("GET /restate/invocation/Greeter/gone/k/output", Output(idempotent_id("Greeter", None, "gone", "k"), None)),
        ("GET /restate/workflow/Flow/w1/attach", Attach(workflow_id("Flow", "w1"), RUN)),
        ("GET /restate/workflow/Flow/a%2Fb/output", Output(workflow_id("Flow", "a/b"), RUN)),
    ],
)
def test_results_of_earlier_invocations(line: str, expected: Request) -> None:
    assert read(line) == expected


@pytest.mark.parametrize(
    ("body", "invocation_id"),
    [
        ({"target": "invocation", "invocationId": INV}, ID),
        ({"target": "workflow", "workflowName": "Flow", "workflowKey": "w1"}, workflow_id("Flow", "w1")),
        ({"target": "workflow", "workflowName": "Never", "workflowKey": "w"}, workflow_id("Never", "w")),
        (
            {
                "target": "idempotentInvocation",
                "service": "Counter",
                "key": "alice",
                "handler": "add",
                "idempotencyKey": "k/1",
            },
            BY_KEY,
        ),
        (
            {
                "target": "idempotentInvocation",
                "service": "Greeter",
                "handler": "greet",
                "idempotencyKey": "k1",
                "scope": None,
            },
            BY_KEY_UNKEYED,
        ),
    ],
)
def test_target_bodies(body: dict[str, object], invocation_id: bytes) -> None:
    """Pure computation: none of these has to exist."""
    assert read("POST /restate/lookup", body=target(body)) == Lookup(invocation_id)  # type: ignore[arg-type]
    assert read("POST /restate/attach", body=target(body)) == Attach(invocation_id, None)  # type: ignore[arg-type]
    assert read("POST /restate/output", body=target(body)) == Output(invocation_id, None)  # type: ignore[arg-type]


@pytest.mark.parametrize("word", ["awakeables", "a"])
def test_awakeables(word: str) -> None:
    resolved = read(f"POST /restate/{word}/{SIGN}/resolve", body=b'"value"')
    assert resolved == CompleteAwakeable(ID, 17, b'"value"', None)
    assert read(f"POST /restate/{word}/{SIGN}/resolve") == CompleteAwakeable(ID, 17, b"", None)
    rejected = read(f"POST /restate/{word}/{SIGN}/reject", body="zu spät".encode())
    assert rejected == CompleteAwakeable(ID, 17, None, (500, "zu spät"))


def test_the_old_form_of_an_awakeable_counts_entries_from_the_first() -> None:
    old = encode_awakeable_id(ID, 3).replace("sign_", "prom_")
    assert read(f"POST /restate/a/{old}/resolve", body=b"1") == CompleteAwakeable(ID, 3, b"1", None)


# -- 1.2 inputs -----------------------------------------------------------------------------------------


def test_what_the_handler_sees_of_the_headers() -> None:
    asked = read(
        "POST /Greeter/greet?x=1",
        ("Host", "h"),
        ("Connection", "keep-alive"),
        ("Idempotency-Key", "k"),
        ("Idempotency-Expires", "never"),
        ("X-Custom", "one"),
        ("x-custom", "two\tthree"),
        ("Authorization", "Bearer t"),
        ("traceparent", "nonsense"),
        body=b"1",
        content_type="application/json",
    )
    assert isinstance(asked, Call)
    assert asked.request.headers == [
        ("x-restate-ingress-path", "/Greeter/greet?x=1"),
        ("x-custom", "one"),
        ("x-custom", "two\tthree"),
        ("authorization", "Bearer t"),
        ("traceparent", "nonsense"),
        ("content-type", "application/json"),
    ]
    assert asked.request.idempotency_key == "k"
    assert asked.request.body == b"1"


@pytest.mark.parametrize(
    "name",
    [
        "x-restate-ingress-path",
        "X-Restate-Ingress-Path",
        "x-restate-id",
        "x-restate-server",
        "x-restate-error-source",
        "x-restate-invocation-id",
        "x-restate-service-key",
        "x-restate-cluster-name",
        "x-restate-signature-scheme",
        "x-restate-jwt-v1",
        "x-perdure-attempt",
    ],
)
def test_the_servers_own_headers_cannot_be_sent_by_a_client(name: str) -> None:
    asked = read("GET /Greeter/greet", (name, "forged"))
    assert isinstance(asked, Call)
    assert asked.request.headers == [("x-restate-ingress-path", "/Greeter/greet")]


@pytest.mark.parametrize("text", ["caf\xe9", "a\x01b", "a\x7fb"])
def test_a_header_that_is_no_text_is_refused(text: str) -> None:
    expected = (400, "bad header 'x-odd': its value is not visible ASCII text")
    assert refused("GET /Greeter/greet", ("X-Odd", text)) == expected


def test_idempotency_keys() -> None:
    empty = read("GET /Greeter/greet", ("idempotency-key", ""))
    assert isinstance(empty, Call)
    assert empty.request.idempotency_key == ""
    same_twice = read("GET /Greeter/greet", ("idempotency-key", "k"), ("Idempotency-Key", "k"))
    assert isinstance(same_twice, Call)
    assert same_twice.request.idempotency_key == "k"
    status, message = refused("GET /Greeter/greet", ("idempotency-key", "k"), ("idempotency-key", "l"))
    assert (status, message[:28]) == (400, "bad header 'idempotency-key'")
    assert read("GET /Flow/w1/poke", ("idempotency-key", "k"))
    assert refused("GET /Flow/w1/run", ("idempotency-key", "k")) == (
        400,
        "cannot use the idempotency key with workflow handlers. "
        "The handler invocation will already be idempotent by the workflow key itself.",
    )


@pytest.mark.parametrize(
    ("query", "delay_ms"),
    [("delay=10s", 10_000), ("delay=PT0.5S", 500), ("delay=0s", 0), ("delay=1h%2030m", 5_400_000), ("other=1", None)],
)
def test_delays_of_sends(query: str, delay_ms: int | None) -> None:
    for path in ("/Greeter/greet/send", "/restate/send/Greeter/greet"):
        asked = read(f"POST {path}?{query}")
        assert isinstance(asked, Send)
        assert asked.request.delay_ms == delay_ms


@pytest.mark.parametrize("delay", ["0", "", "-5s", "abc", "?", "P1Y", "1000y", "400000d", "1s&delay=1s"])
def test_delays_that_cannot_be_read(delay: str) -> None:
    status, message = refused(f"POST /Greeter/greet/send?delay={delay}")
    assert status == 400
    assert message.startswith("bad delay query parameter, must be a ISO8601 duration: ")


@pytest.mark.parametrize("delay", ["1s", "", "nonsense"])
def test_a_delay_on_a_call(delay: str) -> None:
    assert refused(f"POST /restate/call/Greeter/greet?delay={delay}") == (
        400,
        "cannot use the delay query parameter with calls. The delay is supported only with sends",
    )


def test_more_parameters_than_anyone_needs() -> None:
    status, message = refused("POST /Greeter/greet?" + "&".join("x=1" for _ in range(101)))
    assert (status, message) == (400, "bad query: more than 100 parameters")


LIMIT_KEY_NEEDS_SCOPE = (400, "limit-key requires a scope to be set")
TOO_MANY_LEVELS = (400, "invalid limit-key: too many path components in the given limit-key (max 2)")


def test_limit_keys_and_scopes_are_checked_and_not_there_yet() -> None:
    assert refused("POST /Greeter/greet", ("x-restate-limit-key", "a")) == LIMIT_KEY_NEEDS_SCOPE
    assert refused("POST /Greeter/greet?limit-key=a/b") == LIMIT_KEY_NEEDS_SCOPE
    assert refused("POST /Greeter/greet?limit-key=a/b/c") == TOO_MANY_LEVELS
    assert refused("POST /Greeter/greet?limit-key=a/b/c", ("x-restate-limit-key", "a")) == LIMIT_KEY_NEEDS_SCOPE
    assert refused("POST /Greeter/greet?limit-key=a%20b")[1].startswith("invalid limit-key: only letters")
    no_vqueues = (400, "scoped invocations require vqueues to be enabled")
    assert refused("POST /restate/scope/s/call/Greeter/greet") == no_vqueues
    assert refused("POST /restate/scope/s/send/Flow/w/run", ("x-restate-limit-key", "a/b")) == no_vqueues
    assert refused("POST /restate/scope/s/call/Greeter/greet?limit-key=a/b/c") == TOO_MANY_LEVELS
    assert refused("POST /restate/scope/s/call/Counter/k/add") == (
        400,
        "scope is not supported for Virtual Object targets",
    )
    for scope in ("a%2Fb", "a b", "x" * 37):
        status, message = refused(f"POST /restate/scope/{scope}/call/Greeter/greet")
        assert (status, message[:17]) == (400, "bad scope value: ")
    body = {"target": "workflow", "workflowName": "Flow", "workflowKey": "w", "scope": "s"}
    assert refused("POST /restate/lookup", body=target(body)) == no_vqueues


# -- 1.5 what is checked of the input -------------------------------------------------------------------

NOT_EMPTY = "Expected body and content-type to be empty, but wasn't with content-type"


@pytest.mark.parametrize(
    ("handler", "body", "content_type", "complaint"),
    [
        ("greet", b"", None, None),
        ("greet", b"1", "application/json", None),
        ("greet", b"1", "Application/JSON; charset=utf-8", None),
        ("greet", b"", "application/json", None),
        ("greet", b"1", None, "Empty content-type"),
        ("greet", b"1", "text/plain", "Content-type 'text/plain' does not match 'application/json'"),
        ("any", b"", None, None),
        ("any", b"1", "text/plain", None),
        ("any", b"1", None, "Empty content-type"),
        ("text", b"1", "text/html", None),
        ("text", b"1", "textual/html", "Content-type 'textual/html' does not match 'text/*'"),
        ("text", b"", None, "Empty content-type"),
        ("must", b"{", "application/json", None),  # JSON is never parsed
        ("must", b"", "application/json", "Empty body not allowed"),
        ("must", b"", None, "Empty content-type"),
        ("nothing", b"", None, None),
        ("nothing", b"1", "application/json", f"{NOT_EMPTY} 'Some(\"application/json\")'"),
        ("nothing", b"1", None, f"{NOT_EMPTY} 'None'"),
    ],
)
def test_input_rules(handler: str, body: bytes, content_type: str | None, complaint: str | None) -> None:
    line = f"POST /Greeter/{handler}"
    if complaint is None:
        assert isinstance(read(line, body=body, content_type=content_type), Call)
    else:
        expected = (400, f"input validation error: {complaint}")
        assert refused(line, body=body, content_type=content_type) == expected


# -- 1.6 errors -----------------------------------------------------------------------------------------

SHAPE = "bad path, expected either /:service-name/:handler or /:object-name/:object-key/:handler"


@pytest.mark.parametrize(
    ("line", "status", "message"),
    [
        ("GET /", 400, "bad path: /"),
        ("GET /x", 400, "bad path: /x"),
        ("GET /openapi", 400, "bad path: /openapi"),
        ("GET /x/?a=1", 400, "bad path: /x/"),
        ("POST /Counter//add", 400, "bad path: /Counter//add"),
        ("POST //Counter/k/add", 400, "bad path: //Counter/k/add"),
        ("POST /Greeter/greet//", 400, "bad path: /Greeter/greet//"),
        ("POST /1/2/3/4/5/6/7/8", 400, "bad path: /1/2/3/4/5/6/7/8"),
        ("POST *", 400, "bad path: *"),
        ("POST /Counter/key", 400, SHAPE),
        ("POST /Counter/key/add/nonsense", 400, SHAPE),
        ("POST /Greeter/greet/nonsense", 400, SHAPE),
        ("POST /Greeter/greet/too/much", 400, SHAPE),
        ("POST /restate/call/Counter/add", 400, "bad path, expected either /restate/call/"),
        ("POST /restate/call/Greeter/k/greet", 400, "bad path, expected either /restate/call/"),
        ("POST /restate/call", 400, "bad path, expected either /restate/call/"),
        ("POST /restate/send/Greeter", 400, "bad path, expected either /restate/send/"),
        ("POST /restate/scope/s", 400, "bad path, expected either /restate/scope/"),
        ("POST /restate/scope/s/attach/Greeter/greet", 400, "bad path, expected either /restate/scope/"),
        ("GET /restate/awakeables", 400, "bad path, expected either /restate/awakeables/"),
        (f"POST /restate/awakeables/{SIGN}", 400, "bad path, expected either /restate/awakeables/"),
        (f"POST /restate/a/{SIGN}/nonsense", 400, "bad path, expected either /restate/awakeables/"),
        ("GET /restate/workflow", 400, "bad path, expected either /restate/workflow/"),
        ("GET /restate/workflow/Flow/w1/nope", 404, "not found"),
        ("GET /restate/workflow/Flow/w1", 400, "bad path, expected either /restate/workflow/"),
        ("GET /restate/workflow/Counter/w1/attach", 400, "bad path, expected either /restate/workflow/"),
        ("GET /restate/invocation", 400, "bad path, expected either /restate/invocation/"),
        (f"GET /restate/invocation/{INV}", 400, "bad path, expected either /restate/invocation/"),
        ("GET /restate/invocation/Counter/add/k/attach", 400, "bad path, expected either /restate/invocation/"),
        ("GET /restate/attach/a/b", 400, "bad path: /restate/attach/a/b"),
        (f"GET /restate/lookup/{INV}", 400, "bad path: /restate/lookup/"),
        ("POST /Counter/%FF/add", 400, "bad path, cannot decode key: "),
        ("POST /Counter/\udcff/add", 400, "bad path, cannot decode key: "),
        ("POST /Private/greet", 400, "the invoked service is not public"),
        ("POST /Greeter/hidden", 400, "the invoked service is not public"),
        (
            "POST /Ancient/greet",
            400,
            "the service Ancient is exposed by the deprecated deployment dp_old. Upgrade the SDK used by Ancient.",
        ),
        ("POST /restate/awakeables/not-an-id/resolve", 400, "bad awakeable id 'not-an-id': "),
        (f"POST /restate/awakeables/{INV}/reject", 400, f"bad awakeable id '{INV}': "),
        (f"POST /restate/a/{encode_awakeable_id(ID, 1)}/resolve", 400, "bad awakeable id "),
        ("GET /restate/attach/inv_nonsense", 400, "bad invocation id 'inv_nonsense': "),
        ("GET /restate/output/inv_nonsense", 400, "bad invocation id 'inv_nonsense': "),
        (f"GET /restate/invocation/{SIGN}/attach", 400, f"bad invocation id '{SIGN}': "),
        (
            "POST /Nope/greet",
            404,
            "service 'Nope' not found, make sure to register the service before calling it.",
        ),
        ("POST /restate/call/Nope/greet", 404, "service 'Nope' not found, "),
        ("POST /restate/send/Nope/greet", 404, "service 'Nope' not found, "),
        ("GET /restate/workflow/Nope/key/output", 404, "service 'Nope' not found, "),
        (
            "POST /Greeter/nope",
            404,
            "the service 'Greeter' exists, but the handler 'nope' was not found, check that the handler "
            "exists in the latest registered service version.",
        ),
        ("POST /Counter/key/nope", 404, "the service 'Counter' exists, but the handler 'nope' was not found, "),
        ("GET /restate/nothing/here", 404, "not found"),
        ("GET /restate/nothing", 404, "not found"),
        ("GET /restate/health/deep", 404, "not found"),
        ("HEAD /Greeter/greet", 405, "method not allowed"),
        ("HEAD /x", 405, "method not allowed"),
        ("PUT /Greeter/greet", 405, "method not allowed"),
        ("DELETE /Counter/key/get", 405, "method not allowed"),
        ("PATCH /restate/call/Greeter/greet", 405, "method not allowed"),
        ("POST /restate/health", 405, "method not allowed"),
        ("GET /restate/awakeables/whatever/resolve", 405, "method not allowed"),
        ("GET /restate/lookup", 405, "method not allowed"),
        ("GET /restate/attach", 405, "method not allowed"),
        (f"POST /restate/attach/{INV}", 405, "method not allowed"),
        (f"POST /restate/invocation/{INV}/output", 405, "method not allowed"),
        ("POST /restate/invocation/Greeter/greet/k/output", 405, "method not allowed"),
        ("POST /restate/workflow/Flow/w/attach", 405, "method not allowed"),
    ],
)
def test_refusals(line: str, status: int, message: str) -> None:
    """Texts that end in a space or a slash are beginnings; all others are whole."""
    got_status, got_message = refused(line)
    assert got_status == status
    if message.endswith((" ", "/")):
        assert got_message.startswith(message)
    else:
        assert got_message == message


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "it is not JSON"),
        (b"{", "it is not JSON"),
        (b"\xff", "it is not JSON"),
        (b"[" * 50_000, "it is not JSON"),
        (b"[]", "it is not a JSON object"),
        (b"{}", "'target' must be one of"),
        (b'{"target":"nope"}', "'target' must be one of"),
        (b'{"target":["invocation"]}', "'target' must be one of"),
        (b'{"target":"invocation"}', "'invocationId' must be a string"),
        (b'{"target":"workflow","workflowName":"Flow","workflowKey":1}', "'workflowKey' must be a string"),
        (b'{"target":"workflow","workflowName":"Flow","workflowKey":"\\ud800"}', "'workflowKey' is not valid Unicode"),
    ],
)
@pytest.mark.parametrize("verb", ["attach", "output", "lookup"])
def test_target_bodies_that_make_no_sense(verb: str, body: bytes, reason: str) -> None:
    status, message = refused(f"POST /restate/{verb}", body=body)
    assert status == 400
    assert message.startswith(f"bad target body: {reason}")


def test_target_bodies_with_a_bad_id_and_of_absurd_size() -> None:
    bad = target({"target": "invocation", "invocationId": "inv_nonsense"})
    assert refused("POST /restate/lookup", body=bad)[1].startswith("bad invocation id 'inv_nonsense': ")
    status, message = refused("POST /restate/lookup", body=b" " * 65_537)
    assert (status, message) == (413, "cannot read body: LengthLimitError")


def test_a_rejection_must_be_text() -> None:
    status, message = refused(f"POST /restate/a/{SIGN}/reject", body=b"\xff")
    assert (status, message) == (400, "cannot read body: it is not valid UTF-8 text")

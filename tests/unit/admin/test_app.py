"""The admin API over real HTTP, word for word where the public surface gives words."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from perdure.protocol.ids import encode_invocation_id
from perdure_server.admin import app as module
from perdure_server.admin.discovery import Discovered
from perdure_server.limits import ADMIN_BODY_BYTES_MAX, SCHEMA_BYTES_MAX
from support.admin import Admin, with_admin
from support.metadata import greeter, manifest

UNKNOWN_DEPLOYMENT = "dp_15N0hS8vR0uX8m1d2V3e4k5"


# -- about --------------------------------------------------------------------------------------------------


def test_health_and_version_under_every_prefix() -> None:
    async def scenario(admin: Admin) -> None:
        for prefix in ("", "/v2", "/v3", "/v4"):
            assert (await admin.text("GET", f"{prefix}/health"))[0] == 200
            about = await admin.json("GET", f"{prefix}/version")
            assert about == {
                "version": "0.1.0",
                "min_admin_api_version": 2,
                "max_admin_api_version": 4,
                "ingress_endpoint": "http://127.0.0.1:8080/",
                "features": {"protocol_v7": False},
            }

    with_admin(scenario)


def test_the_withdrawn_version_says_which_there_are() -> None:
    async def scenario(admin: Admin) -> None:
        words = "Unsupported Admin API version V1. This server supports versions between V2 and V4."
        for path in ("/v1", "/v1/services", "/v1/no/such/thing"):
            assert await admin.text("GET", path) == (400, words)

    with_admin(scenario)


@pytest.mark.parametrize("path", ["/nope", "/v5/services", "/services/", "/deployments/a/b", "/v11"])
def test_an_unknown_route_is_an_empty_404(path: str) -> None:
    async def scenario(admin: Admin) -> None:
        assert await admin.text("GET", path) == (404, "")

    with_admin(scenario)


@pytest.mark.parametrize(
    ("method", "path", "allow"),
    [
        ("PUT", "/deployments", "GET,HEAD,POST"),
        ("POST", "/services", "GET,HEAD"),
        ("DELETE", "/services/Greeter", "GET,HEAD,PATCH"),
        ("PUT", f"/v3/deployments/{UNKNOWN_DEPLOYMENT}", "DELETE,GET,HEAD,PATCH"),
    ],
)
def test_a_method_that_a_route_does_not_have_is_an_empty_405(method: str, path: str, allow: str) -> None:
    async def scenario(admin: Admin) -> None:
        async with admin.http.request(method, path) as answer:
            assert (answer.status, await answer.text(), answer.headers["allow"]) == (405, "", allow)

    with_admin(scenario)


def test_head_is_get_without_the_body_and_long_answers_are_compressed_on_request() -> None:
    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers["http://a:1"] = manifest(*(greeter(f"Greeter{number}") for number in range(20)))
        await admin.register("http://a:1")
        async with admin.http.head("/services") as answer:
            assert (answer.status, await answer.read()) == (200, b"")
        async with admin.http.get("/services", headers={"accept-encoding": "gzip, br"}) as answer:
            assert answer.headers["content-encoding"] == "gzip"
            assert len((await answer.json())["services"]) == 20
        async with admin.http.get("/services", headers={"accept-encoding": "identity"}) as answer:
            assert "content-encoding" not in answer.headers
            assert answer.headers["vary"] == "accept-encoding"

    with_admin(scenario)


# -- registering --------------------------------------------------------------------------------------------


def test_a_registered_deployment_is_shown_as_announced() -> None:
    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers["http://127.0.0.1:9080"] = manifest(greeter(documentation="says hello"))
        async with admin.http.post(
            "/deployments",
            json={
                "uri": "http://127.0.0.1:9080/",
                "additional_headers": {"X-Team": "blue"},
                "metadata": {"build": "7"},
                "unknown field": 1,
            },
        ) as answer:
            assert answer.status == 201
            registered = await answer.json()
            assert answer.headers["location"] == f"deployments/{registered['id']}"
        address, headers = admin.endpoints.asked[0]
        assert (address.uri, address.http1, headers) == ("http://127.0.0.1:9080", False, {"x-team": "blue"})

        service = {
            "name": "Greeter",
            "ty": "Service",
            "handlers": [
                {
                    "name": "greet",
                    "public": True,
                    "input_description": "*/*",
                    "output_description": "application/json",
                    "retry_policy": {"max_attempts": None},
                }
            ],
            "documentation": "says hello",
            "deployment_id": registered["id"],
            "revision": 1,
            "public": True,
            "idempotency_retention": "1d",
            "journal_retention": "1d",
            "inactivity_timeout": "1m",
            "abort_timeout": "10m",
            "enable_lazy_state": False,
            "retry_policy": {
                "initial_interval": "500ms",
                "exponentiation_factor": 2.0,
                "max_attempts": 70,
                "max_interval": "1m",
                "on_max_attempts": "Pause",
            },
        }
        assert registered == {
            "id": registered["id"],
            "services": [service],
            "min_protocol_version": 5,
            "max_protocol_version": 7,
            "sdk_version": "restate-sdk-python/1.3.0",
        }
        shown = await admin.json("GET", f"/deployments/{registered['id']}")
        created_at = shown.pop("created_at")
        assert created_at.endswith("Z")
        deployment = {
            "id": registered["id"],
            "uri": "http://127.0.0.1:9080/",
            "protocol_type": "BidiStream",
            "http_version": "HTTP/2.0",
            "additional_headers": {"x-team": "blue"},
            "metadata": {"build": "7"},
            "min_protocol_version": 5,
            "max_protocol_version": 7,
            "sdk_version": "restate-sdk-python/1.3.0",
            "services": [service],
        }
        assert shown == deployment
        listed = await admin.json("GET", "/deployments")
        short = {**deployment, "created_at": created_at, "services": [{"name": "Greeter", "revision": 1}]}
        assert listed == {"deployments": [short]}
        assert await admin.json("GET", "/services") == {"services": [service]}
        assert await admin.json("GET", "/services/Greeter") == service
        assert await admin.json("GET", "/services/Greeter/handlers") == {"handlers": service["handlers"]}
        assert await admin.json("GET", "/services/Greeter/handlers/greet") == service["handlers"][0]

    with_admin(scenario)


def test_every_option_of_a_handler_is_shown() -> None:
    full = {
        "name": "full",
        "ty": "SHARED",
        "documentation": "Größe 📏",
        "metadata": {"a": "b"},
        "input": {
            "required": True,
            "contentType": "application/json",
            "jsonSchema": {"type": "string", "title": "Name"},
        },
        "output": {"contentType": "application/json", "jsonSchema": {"type": "object"}},
        "inactivityTimeout": 1500,
        "abortTimeout": 90_000,
        "journalRetention": 3_600_000,
        "idempotencyRetention": 7_200_000,
        "enableLazyState": True,
        "ingressPrivate": True,
        "retryPolicyInitialInterval": 100,
        "retryPolicyMaxInterval": 5_000,
        "retryPolicyMaxAttempts": 3,
        "retryPolicyExponentiationFactor": 1.5,
        "retryPolicyOnMaxAttempts": "KILL",
    }

    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers["http://a:1"] = manifest(
            {"name": "Obj", "ty": "VIRTUAL_OBJECT", "handlers": [full, {"name": "plain"}]}
        )
        await admin.register("http://a:1", use_http_11=True)
        assert await admin.json("GET", "/services/Obj/handlers/full") == {
            "name": "full",
            "ty": "Shared",
            "documentation": "Größe 📏",
            "metadata": {"a": "b"},
            "idempotency_retention": "2h",
            "journal_retention": "1h",
            "inactivity_timeout": "1s 500ms",
            "abort_timeout": "1m 30s",
            "enable_lazy_state": True,
            "public": False,
            "input_description": "JSON 'Name'",
            "output_description": "JSON object",
            "input_json_schema": {"type": "string", "title": "Name"},
            "output_json_schema": {"type": "object"},
            "retry_policy": {
                "initial_interval": "100ms",
                "exponentiation_factor": 1.5,
                "max_attempts": 3,
                "max_interval": "5s",
                "on_max_attempts": "Kill",
            },
        }
        assert (await admin.json("GET", "/services/Obj/handlers/plain"))["ty"] == "Exclusive"
        assert (await admin.json("GET", "/deployments"))["deployments"][0]["http_version"] == "HTTP/1.1"

    with_admin(scenario)


@pytest.mark.parametrize(
    ("payloads", "described"),
    [
        ({}, ("*/*", "application/json")),
        ({"input": {}, "output": {}}, ("none", "none")),
        ({"input": {"contentType": "text/*"}, "output": {"contentType": "text/plain"}}, ("text/*", "text/plain")),
        (
            {"output": {"contentType": "application/json", "setContentTypeIfEmpty": True}},
            ("*/*", "optional application/json"),
        ),
        (
            {"input": {"contentType": "application/json", "jsonSchema": True}, "output": {"jsonSchema": {}}},
            ("application/json", "none"),
        ),
    ],
)
def test_inputs_and_outputs_are_described(payloads: dict[str, object], described: tuple[str, str]) -> None:
    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers["http://a:1"] = manifest(
            {"name": "S", "ty": "SERVICE", "handlers": [{"name": "h", **payloads}]}
        )
        await admin.register("http://a:1")
        shown = await admin.json("GET", "/services/S/handlers/h")
        assert (shown["input_description"], shown["output_description"]) == described

    with_admin(scenario)


def test_a_workflow_shows_its_retention_and_request_response_mode_its_remark() -> None:
    async def scenario(admin: Admin) -> None:
        workflow = greeter("Flow", "WORKFLOW", inactivityTimeout=5_000)
        workflow["handlers"][0]["workflowCompletionRetention"] = 60_000
        admin.endpoints.answers["http://a:1"] = manifest(workflow, mode="REQUEST_RESPONSE")
        await admin.register("http://a:1")
        shown = await admin.json("GET", "/services/Flow")
        assert shown["workflow_completion_retention"] == "1m"
        assert shown["inactivity_timeout"] == "0s"
        assert shown["info"] == [
            {
                "code": "RT0021",
                "message": "The configured inactivity_timeout 5s will not be applied because the service is exposed "
                "in Request/Response mode.",
            }
        ]
        assert (await admin.json("GET", "/deployments"))["deployments"][0]["protocol_type"] == "RequestResponse"

    with_admin(scenario)


def test_the_same_address_again_changes_nothing_and_asks_nobody() -> None:
    async def scenario(admin: Admin) -> None:
        for uri in ("http://a:80", "http://b:1"):
            admin.endpoints.answers[uri.removesuffix(":80")] = manifest(greeter())
        first = await admin.register("http://a:80")
        second = await admin.register("http://b:1/")
        asked = len(admin.endpoints.asked)
        for spelling in ("http://a", "HTTP://A:80/", "http://a//"):
            assert await admin.register(spelling, status=200) == first
        assert len(admin.endpoints.asked) == asked
        assert await admin.revisions() == {"Greeter": (second["id"], 2)}

    with_admin(scenario)


def test_force_asks_again_and_overwrites_in_place() -> None:
    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers["http://a:1"] = manifest(greeter(), greeter("Gone"))
        admin.endpoints.answers["http://b:1"] = manifest(greeter())
        first = await admin.register("http://a:1")
        await admin.register("http://b:1")
        admin.endpoints.answers["http://a:1"] = manifest(greeter(), greeter("New"))
        again = await admin.register("http://a:1", status=200, force=True)
        assert again["id"] == first["id"]
        assert await admin.revisions() == {"Greeter": (first["id"], 3), "New": (first["id"], 1)}

    with_admin(scenario)


def test_a_change_of_type_needs_breaking_or_force() -> None:
    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers["http://a:1"] = manifest(greeter())
        admin.endpoints.answers["http://b:1"] = manifest(greeter(ty="VIRTUAL_OBJECT"))
        first = await admin.register("http://a:1")
        refused = await admin.register("http://b:1", status=409)
        assert refused["restate_code"] == "META0006"
        assert refused["message"].startswith(
            "[META0006] detected a new service revision for 'Greeter' changing the service type from previous "
            "revision. Service type cannot be changed across revisions."
        )
        assert await admin.revisions() == {"Greeter": (first["id"], 1)}
        second = await admin.register("http://b:1", breaking=True)
        assert await admin.revisions() == {"Greeter": (second["id"], 2)}

    with_admin(scenario)


def test_version_2_forces_unless_told_otherwise() -> None:
    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers["http://a:1"] = manifest(greeter())
        first = await admin.register("http://a:1", prefix="/v2")
        assert (await admin.register("http://a:1", prefix="/v2"))["services"][0]["revision"] == 2
        refused = await admin.register("http://a:1", prefix="/v2", force=False, status=409)
        assert refused == {"message": f"Conflict: deployment {first['id']} already exists", "restate_code": None}

    with_admin(scenario)


def test_a_dry_run_shows_what_would_be_and_registers_nothing() -> None:
    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers["http://a:1"] = manifest(greeter())
        shown = await admin.register("http://a:1", dry_run=True)
        assert shown["services"][0]["revision"] == 1
        assert await admin.json("GET", "/deployments") == {"deployments": []}
        await admin.register("http://a:1")
        shown = await admin.register("http://a:1", dry_run=True, force=True, status=200)
        assert shown["services"][0]["revision"] == 2
        assert (await admin.revisions())["Greeter"][1] == 1
        admin.endpoints.answers["http://b:1"] = manifest(greeter(ty="WORKFLOW"))
        assert (await admin.register("http://b:1", dry_run=True, status=409))["restate_code"] == "META0006"

    with_admin(scenario)


@pytest.mark.parametrize(
    ("uri", "reason"),
    [
        ("localhost:9080", "The provided uri localhost:9080 is not absolute, only absolute URIs can be used."),
        ("/abc", "The provided uri /abc is not absolute, only absolute URIs can be used."),
        ("ftp://a:1", "the scheme 'ftp' is not supported"),
        ("http://user:secret@a:1", "user and password cannot be given in it"),
        ("http://a:1/?q=1", "a query or a fragment"),
        ("http://a:1/#f", "a query or a fragment"),
        ("http://a:99999", "is not a valid URI: Port out of range"),
        ("http://a:0", "names no port"),
        ("http://:9080", "names no host"),
        ("http://[::1", "is not a valid URI"),
        ("http://a b:1", "blanks"),
        ("http://ä:1", "beyond ASCII"),
        ("http://a/" + "x" * 3000, "at most 2048"),
    ],
)
def test_an_address_that_cannot_work_is_refused_before_anybody_is_asked(uri: str, reason: str) -> None:
    async def scenario(admin: Admin) -> None:
        refused = await admin.register(uri, status=400)
        assert refused["restate_code"] is None
        assert refused["message"].startswith("The request field 'uri' is invalid. Reason: ")
        assert reason in refused["message"]
        assert "secret" not in refused["message"]
        assert admin.endpoints.asked == []

    with_admin(scenario)


@pytest.mark.parametrize("uri", ["http://[::1]:9080", "https://host/base/path", "http://host/base"])
def test_addresses_that_can_work(uri: str) -> None:
    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers[uri] = manifest(greeter())
        registered = await admin.register(uri + "/")
        shown = await admin.json("GET", f"/deployments/{registered['id']}")
        assert shown["uri"].rstrip("/") == uri

    with_admin(scenario)


@pytest.mark.parametrize(
    ("options", "field"),
    [
        ({"additional_headers": {"a b": "c"}}, "additional_headers"),
        ({"additional_headers": {"a": "x\ny"}}, "additional_headers"),
        ({"additional_headers": {"Host": "x"}}, "additional_headers"),
        ({"additional_headers": {"x-restate-invocation-id": "x"}}, "additional_headers"),
        ({"additional_headers": {"a": "1", "A": "2"}}, "additional_headers"),
        ({"metadata": {str(number): "x" for number in range(65)}}, "metadata"),
        ({"auth": {"GoogleIdToken": {}}}, "auth"),
    ],
)
def test_options_that_are_not_for_a_deployment(options: dict[str, Any], field: str) -> None:
    async def scenario(admin: Admin) -> None:
        refused = await admin.register("http://a:1", status=400, **options)
        assert refused["message"].startswith(f"The request field '{field}' is invalid. Reason: ")

    with_admin(scenario)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (b'{"uri":', 400, "Failed to parse the request body as JSON: Expecting value at line 1 column 8"),
        (b"", 400, "Failed to parse the request body as JSON: Expecting value at line 1 column 1"),
        (b"\xff", 400, "Failed to parse the request body as JSON: 'utf-8' codec can't decode"),
        (b'{"uri": NaN}', 400, "Failed to parse the request body as JSON: NaN is not JSON"),
        (b"[" * 100_000, 400, "Failed to parse the request body as JSON: "),
        (b"{}", 422, "Failed to deserialize the JSON body into the target type: missing field `uri`"),
        (b"[]", 422, "Failed to deserialize the JSON body into the target type: invalid type: sequence"),
        (
            b'{"uri": 5}',
            422,
            "Failed to deserialize the JSON body into the target type: uri: invalid type: integer `5`",
        ),
        (b'{"uri": "http://a\\ud800"}', 422, "Failed to deserialize the JSON body into the target type: uri: half"),
        (
            b'{"uri": "http://a", "force": "x"}',
            422,
            'Failed to deserialize the JSON body into the target type: force: invalid type: string "x", '
            "expected a boolean",
        ),
        (
            b'{"uri": "http://a", "metadata": {"a": 1}}',
            422,
            "Failed to deserialize the JSON body into the target type: metadata.a: invalid type: integer `1`",
        ),
    ],
)
def test_a_body_that_cannot_be_taken_apart_is_refused_in_plain_text(body: bytes, status: int, text: str) -> None:
    async def scenario(admin: Admin) -> None:
        found_status, found = await admin.text("POST", "/deployments", body)
        assert (found_status, found[: len(text)]) == (status, text)

    with_admin(scenario)


def test_a_body_needs_a_content_type_and_an_end() -> None:
    async def scenario(admin: Admin) -> None:
        expected = "Expected request with `Content-Type: application/json`"
        for content_type in (None, "text/plain", "application/x-json5"):
            assert await admin.text("POST", "/deployments", b"{}", content_type) == (415, expected)
        refused = await admin.text("POST", "/deployments", b"{}", "application/vnd.x+json; charset=utf-8")
        assert refused[0] == 422
        too_large = json.dumps({"uri": "x" * ADMIN_BODY_BYTES_MAX}).encode()
        assert await admin.text("POST", "/deployments", too_large) == (
            413,
            "Failed to buffer the request body: length limit exceeded",
        )

    with_admin(scenario)


@pytest.mark.parametrize(
    ("answer", "status", "code", "words"),
    [
        (None, 500, "META0003", "http://a:1"),
        (Discovered("text/html", None, b"<html>"), 500, "META0013", "text/html"),
        (manifest(greeter(), versions=(8, 9)), 500, "META0012", "8 to 9"),
        (manifest(greeter("restateX")), 400, "META0005", "restateX"),
        (manifest(greeter(), greeter()), 400, None, "Greeter"),
        (b'{"protocolMode": 1}', 500, None, "minProtocolVersion"),
    ],
)
def test_an_endpoint_that_cannot_be_registered(
    answer: bytes | Discovered | None, status: int, code: str | None, words: str
) -> None:
    async def scenario(admin: Admin) -> None:
        if answer is not None:
            admin.endpoints.answers["http://a:1"] = answer
        refused = await admin.register("http://a:1", status=status)
        assert refused["restate_code"] == code
        assert words in refused["message"]
        assert code is None or refused["message"].startswith(f"[{code}] ")
        assert await admin.json("GET", "/deployments") == {"deployments": []}

    with_admin(scenario)


def test_a_schema_that_is_too_large_names_its_handler() -> None:
    async def scenario(admin: Admin) -> None:
        service = greeter()
        service["handlers"][0]["input"] = {
            "contentType": "application/json",
            "jsonSchema": {"description": "x" * SCHEMA_BYTES_MAX},
        }
        admin.endpoints.answers["http://a:1"] = manifest(service, greeter("Other"))
        refused = await admin.register("http://a:1", status=400)
        assert refused["message"].startswith("the json schema for Greeter/greet input is invalid: it has ")
        many = [greeter(f"S{number}", documentation="x" * 100_000) for number in range(9)]
        admin.endpoints.answers["http://a:1"] = manifest(*many)
        assert "at most" in (await admin.register("http://a:1", status=400))["message"]

    with_admin(scenario)


def test_a_silent_endpoint_holds_nobody_up() -> None:
    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers["http://a:1"] = manifest(greeter())
        waiting = asyncio.create_task(admin.register("http://silent:1", status=500))
        while not admin.endpoints.asked:
            await asyncio.sleep(0)
        await admin.register("http://a:1")
        assert list(await admin.revisions()) == ["Greeter"]
        assert not waiting.done()
        admin.endpoints.silent.set()
        await waiting
        assert len((await admin.json("GET", "/deployments"))["deployments"]) == 1

    with_admin(scenario)


def test_endpoints_asked_at_once_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "DISCOVERIES_MAX", 2)

    async def scenario(admin: Admin) -> None:
        waiting = [asyncio.create_task(admin.register(f"http://silent{each}", status=500)) for each in range(2)]
        while len(admin.endpoints.asked) < 2:
            await asyncio.sleep(0)
        refused = await admin.register("http://a:1", status=429)
        assert "2 endpoints are being asked already" in refused["message"]
        admin.endpoints.silent.set()
        await asyncio.gather(*waiting)
        await admin.register("http://a:1", status=500)

    with_admin(scenario)


def test_registrations_at_once_all_hold() -> None:
    async def scenario(admin: Admin) -> None:
        for number in range(10):
            admin.endpoints.answers[f"http://a:{number + 1}"] = manifest(greeter())
        await asyncio.gather(*(admin.register(uri) for uri in admin.endpoints.answers))
        revisions = [
            deployment["services"][0]["revision"]
            for deployment in (await admin.json("GET", "/deployments"))["deployments"]
        ]
        assert sorted(revisions) == list(range(1, 11))

    with_admin(scenario)


def test_a_log_that_takes_nothing_is_a_503_with_the_reason() -> None:
    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers["http://a:1"] = manifest(greeter())
        admin.log.poison("disk full")
        assert await admin.register("http://a:1", status=503) == {"message": "disk full", "restate_code": None}
        assert await admin.json("GET", "/services") == {"services": []}

    with_admin(scenario)


# -- removing -----------------------------------------------------------------------------------------------


def test_removing_needs_force_and_brings_the_one_before_back() -> None:
    async def scenario(admin: Admin) -> None:
        for uri in ("http://a:1", "http://b:1"):
            admin.endpoints.answers[uri] = manifest(greeter())
        first = await admin.register("http://a:1")
        second = await admin.register("http://b:1")
        path = f"/deployments/{second['id']}"
        assert await admin.text("DELETE", path) == (501, "")
        assert await admin.text("DELETE", f"{path}?force=false") == (501, "")
        assert await admin.text("DELETE", f"{path}?force=x") == (
            400,
            "Failed to deserialize query string: force: provided string was not `true` or `false`",
        )
        assert (await admin.revisions())["Greeter"] == (second["id"], 2)
        assert await admin.text("DELETE", f"{path}?force=true") == (202, "")
        assert (await admin.revisions())["Greeter"] == (first["id"], 1)
        assert await admin.json("DELETE", f"{path}?force=true", status=404) == {
            "message": f"not found in the schema registry: deployment with id '{second['id']}'",
            "restate_code": None,
        }

    with_admin(scenario)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("xx", "bad format"),
        ("inv_1gabxA3iqxx52nIbNcWBhqNqUGlzjz7YQy", "id doesn't match the expected type"),
        ("dp_25N0hS8vR0uX8m1d2V3e4k5", "unrecognized codec version"),
    ],
)
def test_an_id_that_is_none_is_refused_in_plain_text(text: str, reason: str) -> None:
    async def scenario(admin: Admin) -> None:
        words = f"Invalid URL: Cannot parse `deployment` with value `{text}`: {reason}"
        assert await admin.text("GET", f"/deployments/{text}") == (400, words)
        assert await admin.text("DELETE", f"/deployments/{text}?force=true") == (400, words)

    with_admin(scenario)


@pytest.mark.parametrize(
    ("path", "message"),
    [
        (f"/deployments/{UNKNOWN_DEPLOYMENT}", f"The requested deployment '{UNKNOWN_DEPLOYMENT}' does not exist"),
        ("/services/X", "The requested service 'X' does not exist"),
        ("/services/X/handlers", "The requested service 'X' does not exist"),
        ("/services/X/handlers/y", "The requested handler 'y' on service 'X' does not exist"),
        ("/services/Greeter/handlers/y", "The requested handler 'y' on service 'Greeter' does not exist"),
    ],
)
def test_what_is_not_registered(path: str, message: str) -> None:
    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers["http://a:1"] = manifest(greeter())
        await admin.register("http://a:1")
        assert await admin.json("GET", path, status=404) == {"message": message, "restate_code": None}

    with_admin(scenario)


# -- patching -----------------------------------------------------------------------------------------------


def test_a_patch_holds_at_once_and_over_the_next_registration() -> None:
    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers["http://a:1"] = manifest(greeter(idempotencyRetention=1000))
        await admin.register("http://a:1")
        patched = await admin.json(
            "PATCH",
            "/services/Greeter",
            {
                "public": False,
                "idempotency_retention": "1h 30m",
                "journal_retention": "0s",
                "inactivity_timeout": "PT77S",
                "abort_timeout": None,
                "unknown": 1,
            },
        )
        expected = {
            "public": False,
            "idempotency_retention": "1h 30m",
            "journal_retention": "0s",
            "inactivity_timeout": "1m 17s",
            "abort_timeout": "10m",
        }
        assert {name: patched[name] for name in expected} == expected
        assert await admin.json("GET", "/services/Greeter") == patched
        assert await admin.json("PATCH", "/services/Greeter", {}) == patched
        await admin.register("http://a:1", force=True, status=200)
        shown = await admin.json("GET", "/services/Greeter")
        assert shown == {**patched, "revision": 2}

    with_admin(scenario)


@pytest.mark.parametrize(
    ("body", "status", "text"),
    [
        (
            {"idempotency_retention": 5},
            422,
            "Failed to deserialize the JSON body into the target type: idempotency_retention: "
            "invalid type: integer `5`, expected a human-friendly duration string",
        ),
        (
            {"abort_timeout": "soon"},
            422,
            "Failed to deserialize the JSON body into the target type: abort_timeout: 'soon'",
        ),
        (
            {"public": "yes"},
            422,
            "Failed to deserialize the JSON body into the target type: public: "
            'invalid type: string "yes", expected a boolean',
        ),
    ],
)
def test_a_patch_that_cannot_be_taken_apart(body: dict[str, object], status: int, text: str) -> None:
    async def scenario(admin: Admin) -> None:
        admin.endpoints.answers["http://a:1"] = manifest(greeter())
        await admin.register("http://a:1")
        found_status, found = await admin.text("PATCH", "/services/Greeter", json.dumps(body).encode())
        assert (found_status, found[: len(text)]) == (status, text)

    with_admin(scenario)


def test_a_patch_of_what_is_not_there() -> None:
    async def scenario(admin: Admin) -> None:
        assert await admin.json("PATCH", "/services/X", {"public": True}, status=404) == {
            "message": "not found in the schema registry: service with name 'X'",
            "restate_code": None,
        }
        admin.endpoints.answers["http://a:1"] = manifest(greeter())
        await admin.register("http://a:1")
        refused = await admin.json("PATCH", "/services/Greeter", {"workflow_completion_retention": "1h"}, status=400)
        assert refused["message"] == "modifying retention time for service type Service is unsupported"

    with_admin(scenario)


# -- invocations --------------------------------------------------------------------------------------------


def test_one_invocation_and_its_journal() -> None:
    raw = bytes(range(24))

    async def scenario(admin: Admin) -> None:
        text = encode_invocation_id(raw)
        admin.invocations.rows[raw] = (
            {"id": text, "status": "running"},
            [{"index": 0, "entry_type": "Command: Input"}],
        )
        assert await admin.json("GET", f"/invocations/{text}") == {
            "invocation": {"id": text, "status": "running"},
            "journal": [{"index": 0, "entry_type": "Command: Input"}],
        }
        other = encode_invocation_id(bytes(24))
        assert (await admin.json("GET", f"/invocations/{other}", status=404))["message"] == (
            f"The requested invocation '{other}' does not exist"
        )
        assert (await admin.json("GET", "/invocations/xx", status=400))["message"] == (
            "The request field 'invocation_id' is invalid. Reason: bad format"
        )
        admin.invocations.unavailable = "partition 3 is not led by anybody"
        assert (await admin.json("GET", f"/invocations/{text}", status=503))["message"] == (
            "partition 3 is not led by anybody"
        )

    with_admin(scenario)


def test_invocations_are_listed_by_what_they_are() -> None:
    async def scenario(admin: Admin) -> None:
        admin.invocations.rows[bytes(24)] = ({"id": "inv"}, [])
        assert await admin.json("GET", "/invocations") == {"invocations": [{"id": "inv"}]}
        await admin.json("GET", "/v3/invocations?service=S&handler=h&key=a%2Fb&status=backing-off&limit=1000")
        assert admin.invocations.listed == [(None, None, None, None, 100), ("S", "h", "a/b", "backing-off", 1000)]

    with_admin(scenario)


@pytest.mark.parametrize(
    ("query", "message"),
    [
        ("status=done", "The request field 'status' is invalid. Reason: 'done' is none of scheduled, pending"),
        ("limit=0", "The request field 'limit' is invalid. Reason: '0' is not a whole number from 1 to 1000"),
        ("limit=1001", "The request field 'limit' is invalid. Reason: '1001' is not"),
        ("limit=-1", "The request field 'limit' is invalid. Reason: '-1' is not"),
        ("limit=%D9%A3", "The request field 'limit' is invalid. Reason: "),
        ("limit=" + "9" * 5000, "The request field 'limit' is invalid. Reason: "),
        ("sevice=S", "The request field 'sevice' is invalid. Reason: there is no such query parameter"),
    ],
)
def test_a_list_that_cannot_be_made(query: str, message: str) -> None:
    async def scenario(admin: Admin) -> None:
        refused = await admin.json("GET", f"/invocations?{query}", status=400)
        assert refused["message"][: len(message)] == message
        assert admin.invocations.listed == []

    with_admin(scenario)

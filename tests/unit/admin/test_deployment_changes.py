"""Deployments over time, state patches and descriptions, over HTTP."""

from __future__ import annotations

import json
from typing import Any

import pytest

from perdure_processor.model.actions import Acted, Deed
from perdure_processor.model.commands import ReplaceState
from perdure_server.admin.openapi import OPERATIONS
from perdure_server.ingress.requests import Overloaded, Unavailable
from support.admin import Admin, with_admin
from support.metadata import greeter, manifest

VERSION = "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU"


async def two_deployments(admin: Admin) -> tuple[str, str]:
    ids = []
    for uri in ("http://old:1", "http://new:1"):
        admin.endpoints.answers[uri] = manifest(greeter())
        ids.append((await admin.register(uri))["id"])
    return ids[0], ids[1]


# -- update, activate, drain -----------------------------------------------------------------------------
def test_an_older_deployment_is_made_the_latest_without_asking_it() -> None:
    async def scenario(admin: Admin) -> None:
        old, new = await two_deployments(admin)
        assert (await admin.revisions())["Greeter"] == (new, 2)
        admin.endpoints.asked.clear()
        answer = await admin.json("POST", f"/deployments/{old}/activate")
        assert (answer["id"], answer["services"][0]["revision"]) == (old, 3)
        assert (await admin.revisions())["Greeter"] == (old, 3)
        assert admin.endpoints.asked == []
        unknown = await admin.json("POST", "/deployments/dp_14wkrT95ZN2gf4yXNYMUPUA/activate", status=404)
        assert unknown["message"] == "The requested deployment 'dp_14wkrT95ZN2gf4yXNYMUPUA' does not exist"
        assert (await admin.text("POST", "/deployments/xx/activate"))[0] == 400

    with_admin(scenario)


def test_headers_change_without_asking_and_an_address_must_answer() -> None:
    async def scenario(admin: Admin) -> None:
        old, new = await two_deployments(admin)
        admin.endpoints.asked.clear()
        changed = await admin.json("PATCH", f"/deployments/{old}", {"additional_headers": {"X-A": "b"}, "unknown": 1})
        assert changed["additional_headers"] == {"x-a": "b"}
        assert admin.endpoints.asked == []
        await admin.json("PATCH", f"/deployments/{old}", {"uri": "http://nobody:1"}, status=500)
        assert (await admin.json("GET", f"/deployments/{old}"))["uri"] == "http://old:1/"
        admin.endpoints.answers["http://moved:1"] = manifest(greeter(), greeter("Other"), versions=(5, 5))
        dry = await admin.json("PATCH", f"/deployments/{old}", {"uri": "http://moved:1", "dry_run": True})
        assert dry["uri"] == "http://moved:1/"
        assert (await admin.json("GET", f"/deployments/{old}"))["uri"] == "http://old:1/"
        moved = await admin.json("PATCH", f"/deployments/{old}", {"uri": "http://moved:1"})
        assert ([each["name"] for each in moved["services"]], moved["max_protocol_version"]) == (["Greeter"], 5)
        assert admin.endpoints.asked[-1][1] == {"x-a": "b"}
        overwritten = await admin.json("PATCH", f"/deployments/{old}", {"overwrite": True})
        assert {each["name"]: each["revision"] for each in overwritten["services"]} == {"Greeter": 1, "Other": 1}
        assert await admin.revisions() == {"Greeter": (new, 2), "Other": (old, 1)}
        taken = await admin.json("PATCH", f"/deployments/{old}", {"uri": "http://new:1"}, status=409)
        assert "is registered at http://new:1 already" in taken["message"]

    with_admin(scenario)


def test_drain_counts_what_is_pinned() -> None:
    async def scenario(admin: Admin) -> None:
        old, _ = await two_deployments(admin)
        nothing = await admin.json("GET", f"/deployments/{old}/drain")
        assert nothing == {"in_flight": 0, "oldest_created_at": None, "by_service": {}}
        for number in range(3):
            row = {"target_service_name": "AB"[number % 2], "pinned_deployment_id": old, "created_ms": 5_000 - number}
            admin.invocations.rows[bytes([number])] = row, []
        found = await admin.json("GET", f"/deployments/{old}/drain")
        assert (found["in_flight"], found["by_service"]) == (3, {"A": 2, "B": 1})
        assert found["oldest_created_at"] == "1970-01-01T00:00:04.998000000Z"

    with_admin(scenario)


# -- state patches ---------------------------------------------------------------------------------------
async def objects(admin: Admin) -> None:
    handlers = [{"name": "add", "ty": "EXCLUSIVE"}]
    admin.endpoints.answers["http://a:1"] = manifest(greeter(), greeter("Obj", "VIRTUAL_OBJECT", handlers=handlers))
    await admin.register("http://a:1")


async def patch(admin: Admin, service: str = "Obj", **body: Any) -> tuple[int, str]:
    async with admin.http.post(f"/services/{service}/state", json=body) as answer:
        return answer.status, await answer.text()


def test_a_state_patch_goes_to_the_partition_of_its_key() -> None:
    async def scenario(admin: Admin) -> None:
        await objects(admin)
        admin.operator.answers = [Acted(Deed.ACCEPTED)]
        state = {"é/.😀": list(range(256)), "": [], "b": [0] * 1_048_576}
        assert await patch(admin, object_key="a/b", new_state=state, version=VERSION, more=1) == (202, "")
        (command,) = admin.operator.asked
        assert isinstance(command, ReplaceState)
        assert (command.service, command.key, command.version) == ("Obj", "a/b", VERSION)
        assert command.state == [(b"", b""), (b"b", bytes(1_048_576)), ("é/.😀".encode(), bytes(range(256)))]

    with_admin(scenario)


def test_a_state_patch_that_cannot_be_says_so() -> None:
    async def scenario(admin: Admin) -> None:
        await objects(admin)
        good: dict[str, Any] = {"object_key": "k", "new_state": {"a": [1]}}
        assert (await patch(admin, "Nope", **good))[0] == 404
        status, text = await patch(admin, "Greeter", **good)
        assert (status, json.loads(text)["message"]) == (400, "Cannot modify state for service type Service")
        for shape in ({"new_state": {}}, {"object_key": "k"}, {"object_key": "k", "new_state": []}):
            assert (await patch(admin, **shape))[0] == 422
        for value in ("text", [256], [-1], [True], [1.0], None):
            assert (await patch(admin, object_key="k", new_state={"a": value}))[0] == 422
        assert (await patch(admin, object_key="k", new_state={}, scope="s"))[0] == 400
        assert (await patch(admin, object_key="k", new_state={f"{n}": [] for n in range(4097)}))[0] == 413
        assert (await patch(admin, object_key="k", new_state={"a": [255] * 2_200_000}))[0] == 413
        assert admin.operator.asked == []

    with_admin(scenario)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (Acted(Deed.WRONG_STATE), 409, "'Obj/k' has another version than the given one, nothing changed"),
        (Acted(Deed.TOO_LARGE), 422, "too many names"),
        (Overloaded(), 429, "try again later"),
        (Unavailable("no leader"), 503, "no leader"),
    ],
)
def test_what_the_partition_refuses(answer: Any, status: int, words: str) -> None:
    async def scenario(admin: Admin) -> None:
        await objects(admin)
        admin.operator.answers = [answer]
        refused = await patch(admin, object_key="k", new_state={}, version=VERSION)
        assert refused[0] == status
        assert words in refused[1]

    with_admin(scenario)


def test_a_version_that_no_state_has_is_accepted_as_by_the_original_and_said_to_do_nothing() -> None:
    async def scenario(admin: Admin) -> None:
        await objects(admin)
        status, text = await patch(admin, object_key="k", new_state={}, version="no-such-version")
        assert status == 202
        assert "nothing will change" in json.loads(text)["message"]
        assert admin.operator.asked == []

    with_admin(scenario)


# -- descriptions ----------------------------------------------------------------------------------------
def test_openapi_names_every_route_and_no_other() -> None:
    async def scenario(admin: Admin) -> None:
        served = {(method, path) for method, path in admin.server.routes() if not path.startswith(("/v", "/ui"))}
        served |= {("GET", "/version")}
        public = {(method, path) for method, path in served if not path.startswith("/internal") and path != "/"}
        assert public == {(operation.method, operation.path) for operation in OPERATIONS}
        document = await admin.json("GET", "/openapi")
        assert document["openapi"] == "3.1.0"
        ids = [each["operationId"] for methods in document["paths"].values() for each in methods.values()]
        assert len(ids) == len(set(ids)) == len(OPERATIONS)

    with_admin(scenario)


def test_openapi_of_a_service() -> None:
    async def scenario(admin: Admin) -> None:
        recursive = {"$ref": "#/$defs/Node", "$defs": {"Node": {"properties": {"next": {"$ref": "#/$defs/Node"}}}}}
        handlers = [
            {"name": "run", "ty": "WORKFLOW", "input": {"contentType": "application/json", "jsonSchema": recursive}},
            {"name": "get", "ty": "SHARED", "output": {"contentType": "text/plain"}},
            {"name": "hidden", "ty": "SHARED", "ingressPrivate": True},
        ]
        admin.endpoints.answers["http://a:1"] = manifest(greeter("Flow", "WORKFLOW", handlers=handlers))
        await admin.register("http://a:1")
        document = await admin.json("GET", "/services/Flow/openapi")
        assert set(document["paths"]) == {
            "/restate/call/Flow/{key}/run",
            "/restate/send/Flow/{key}/run",
            "/restate/invocation/Flow/{key}/run/attach",
            "/restate/invocation/Flow/{key}/run/output",
            "/restate/call/Flow/{key}/get",
            "/restate/send/Flow/{key}/get",
            "/restate/invocation/Flow/{key}/get/{idempotencyKey}/attach",
            "/restate/invocation/Flow/{key}/get/{idempotencyKey}/output",
        }
        schema = document["components"]["schemas"]["runRequest"]
        assert schema == {"$id": "urn:restate:Flow:runRequest", **recursive}
        got = document["paths"]["/restate/call/Flow/{key}/get"]["post"]["responses"]["200"]
        assert list(got["content"]) == ["text/plain"]
        assert "470" in document["paths"]["/restate/invocation/Flow/{key}/run/output"]["get"]["responses"]
        await admin.json("GET", "/services/Nope/openapi", status=404)

    with_admin(scenario)


def test_the_cluster_and_the_page_for_browsers() -> None:
    async def scenario(admin: Admin) -> None:
        found = await admin.json("GET", "/cluster-health")
        assert found == {"cluster_name": "cluster", "metadata_cluster_health": {"members": [1]}}
        for path in ("/", "/ui"):
            async with admin.http.get(path, allow_redirects=False) as answer:
                assert (answer.status, answer.headers["location"]) == (308, "/ui/")
        status, page = await admin.text("GET", "/ui/")
        assert status == 200 and "/openapi" in page

    with_admin(scenario)


@pytest.mark.parametrize(
    "schema",
    [
        {"$ref": "#/definitions/Missing"},
        {"$id": "Node", "properties": {"next": {"$ref": "#"}}},
        True,
        {},
    ],
    ids=json.dumps,
)
def test_a_schema_is_taken_whatever_it_points_to(schema: Any) -> None:
    """It is shown to people and never followed: no handler of the deployment suffers."""

    async def scenario(admin: Admin) -> None:
        odd = {"name": "odd", "documentation": "🙂", "input": {"contentType": "application/json", "jsonSchema": schema}}
        admin.endpoints.answers["http://a:1"] = manifest(greeter("Odd", handlers=[odd]), greeter())
        await admin.register("http://a:1")
        assert set(await admin.revisions()) == {"Odd", "Greeter"}
        document = await admin.json("GET", "/services/Odd/openapi")
        assert "/restate/call/Odd/odd" in document["paths"]
        assert (await admin.json("GET", "/services/Odd/handlers/odd"))["documentation"] == "🙂"

    with_admin(scenario)


@pytest.mark.parametrize(
    "schema", [{"$ref": "https://example.invalid/schema.json"}, {"type": 17, "pattern": "("}], ids=json.dumps
)
def test_a_schema_that_is_none_or_lies_elsewhere_is_refused_by_name(schema: Any) -> None:
    async def scenario(admin: Admin) -> None:
        odd = {"name": "odd", "input": {"contentType": "application/json", "jsonSchema": schema}}
        admin.endpoints.answers["http://a:1"] = manifest(greeter("Odd", handlers=[odd]), greeter())
        refused = await admin.json("POST", "/deployments", {"uri": "http://a:1"}, status=400)
        assert "service 'Odd', handler 'odd', input" in refused["message"]
        assert await admin.revisions() == {}, "nothing is half registered"

    with_admin(scenario)

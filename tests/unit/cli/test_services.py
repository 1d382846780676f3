"""`perdure services`: what can be called, as a person reads it."""

from __future__ import annotations

import json
from typing import Any

from .conftest import Admin

COUNTER: dict[str, Any] = {
    "name": "Counter",
    "ty": "VirtualObject",
    "revision": 3,
    "public": True,
    "deployment_id": "dp_1a",
    "inactivity_timeout": "1m",
    "abort_timeout": "10m",
    "idempotency_retention": "1d",
    "retry_policy": {
        "initial_interval": "500ms",
        "exponentiation_factor": 2.0,
        "max_attempts": 70,
        "max_interval": "1m",
        "on_max_attempts": "Pause",
    },
    "handlers": [
        {
            "name": "get",
            "ty": "Shared",
            "public": False,
            "input_description": "none",
            "output_description": "JSON value",
        },
        {"name": "add", "ty": "Exclusive", "public": True, "input_description": "JSON value"},
    ],
}
HIDDEN = COUNTER | {"name": "Audit", "public": False, "handlers": []}


def test_list_is_a_table_by_name(admin: Admin) -> None:
    admin.answer("GET /services", {"services": [COUNTER, HIDDEN]})
    assert admin.run("services", "list").output == (
        "SERVICE  TYPE           REVISION  PUBLIC  DEPLOYMENT  HANDLERS\n"
        "Audit    VirtualObject  3         no      dp_1a       -\n"
        "Counter  VirtualObject  3         yes     dp_1a       add, get\n"
    )


def test_list_says_how_to_begin_when_there_is_nothing(admin: Admin) -> None:
    admin.answer("GET /services", {"services": []})
    assert "perdure deployments register URL" in admin.run("services", "list").output


def test_describe_has_the_policies_and_the_handlers(admin: Admin) -> None:
    admin.answer("GET /services/Counter", COUNTER)
    output = admin.run("services", "describe", "Counter").output
    assert "Abort timeout:" in output
    assert "after 500ms, each wait 2.0 times longer, at most 1m; 70 attempts, then pause" in output
    assert output.splitlines()[-3:] == [
        "HANDLER  TYPE       PUBLIC  INPUT       OUTPUT",
        "add      Exclusive  yes     JSON value  -",
        "get      Shared     no      none        JSON value",
    ]


def test_describe_tells_of_retries_without_end(admin: Admin) -> None:
    policy = COUNTER["retry_policy"] | {"max_attempts": None}
    admin.answer("GET /services/Counter", COUNTER | {"retry_policy": policy})
    assert "at most 1m; without end" in admin.run("services", "describe", "Counter").output


def test_describe_of_an_unknown_one_is_the_server_s_sentence(admin: Admin) -> None:
    admin.answer("GET /services/Nope", {"message": "The requested service 'Nope' does not exist"}, 404)
    result = admin.run("services", "describe", "Nope")
    assert (result.exit_code, result.output) == (1, "Error: The requested service 'Nope' does not exist\n")


def test_json_is_the_answer_of_the_server(admin: Admin) -> None:
    admin.answer("GET /services", {"services": [COUNTER]})
    admin.answer("GET /services/Counter", COUNTER)
    assert json.loads(admin.run("services", "list", "--json").output) == {"services": [COUNTER]}
    assert json.loads(admin.run("services", "describe", "Counter", "--json").output) == COUNTER

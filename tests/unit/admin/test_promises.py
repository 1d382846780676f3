"""DELETE /services/{workflow}/promises/{key}: what is asked of the log, and what its answers become."""

from __future__ import annotations

import pytest

from perdure.protocol import ids
from perdure_processor.model.actions import Acted, Answer, Deed
from perdure_processor.model.commands import DropPromises
from perdure_processor.model.derived_ids import workflow_id
from perdure_server.ingress.requests import Overloaded, Unavailable
from support.admin import Admin, with_admin
from support.metadata import greeter, manifest

FLOW = {"name": "Flow", "ty": "WORKFLOW", "handlers": [{"name": "run", "ty": "WORKFLOW"}]}


async def _register(admin: Admin) -> None:
    admin.endpoints.answers["http://a:1"] = manifest(greeter(), FLOW)
    await admin.register("http://a:1")


@pytest.mark.parametrize("prefix", ["", "/v3"])
def test_promises_of_a_key_are_dropped_until_none_is_left(prefix: str) -> None:
    async def scenario(admin: Admin) -> None:
        await _register(admin)
        admin.operator.answers = [Acted(Deed.UNFINISHED), Acted(Deed.DONE)]
        assert await admin.text("DELETE", f"{prefix}/services/Flow/promises/a%2Fb%20%C3%A9") == (202, "")
        assert len(admin.operator.asked) == 2
        for asked in admin.operator.asked:
            assert isinstance(asked, DropPromises)
            assert (asked.workflow, asked.key) == ("Flow", "a/b é")
            assert asked.id[:8] == workflow_id("Flow", "a/b é")[:8], "in the partition of the key"
        one, two = (asked.request for asked in admin.operator.asked)
        assert one != two

    with_admin(scenario)


def test_only_workflows_have_promises() -> None:
    async def scenario(admin: Admin) -> None:
        await _register(admin)
        unknown = await admin.json("DELETE", "/services/Nope/promises/k", status=404)
        assert unknown["message"] == "The requested service 'Nope' does not exist"
        other = await admin.json("DELETE", "/services/Greeter/promises/k", status=400)
        assert other["message"] == "The service 'Greeter' has no promises, it is no workflow"
        assert admin.operator.asked == []

    with_admin(scenario)


@pytest.mark.parametrize(
    ("answer", "status", "words"),
    [
        (
            Acted(Deed.HAS_RUN),
            409,
            f"Purge the invocation '{ids.encode_invocation_id(workflow_id('Flow', 'k'))}' instead",
        ),
        (Overloaded(), 429, "too many requests"),
        (Unavailable("no leader"), 503, "Reason: no leader"),
    ],
    ids=["has run", "overloaded", "unavailable"],
)
def test_a_refusal_says_why(answer: Answer | Overloaded | Unavailable, status: int, words: str) -> None:
    async def scenario(admin: Admin) -> None:
        await _register(admin)
        admin.operator.answers = [answer]
        assert words in (await admin.json("DELETE", "/services/Flow/promises/k", status=status))["message"]

    with_admin(scenario)

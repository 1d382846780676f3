"""Operators' verbs over real HTTP: what each deed is said as, alone and among up to a thousand."""

from __future__ import annotations

import pytest

from perdure.protocol.ids import encode_invocation_id
from perdure_processor.model.actions import Acted, Deed, Missing
from perdure_processor.model.commands import Operate, RestartAsNew, Resume, Verb
from perdure_processor.model.ids import InvocationId
from perdure_server.ingress.requests import Overloaded, Unavailable
from perdure_server.limits import BATCH_INVOCATIONS_MAX
from support import builders as b
from support.admin import Admin, with_admin

ID = b.invocation_id(b.thing(), 1)
OTHER = b.invocation_id(b.thing("bob"), 2)
NAME, OTHER_NAME = encode_invocation_id(ID), encode_invocation_id(OTHER)
BATCH = "/internal/invocations_batch_operations"


@pytest.mark.parametrize(
    ("verb", "deed", "status"),
    [
        ("cancel", Deed.DONE, 200),
        ("cancel", Deed.ACCEPTED, 202),
        ("kill", Deed.DONE, 200),
        ("pause", Deed.DONE, 200),
        ("pause", Deed.ACCEPTED, 202),
        ("resume", Deed.DONE, 200),
        ("purge", Deed.DONE, 200),
        ("purge-journal", Deed.DONE, 200),
    ],
)
def test_what_was_done_is_said_without_a_body(verb: str, deed: Deed, status: int) -> None:
    async def scenario(admin: Admin) -> None:
        admin.operator.answers = [Acted(deed)]
        assert await admin.text("PATCH", f"/invocations/{NAME}/{verb}") == (status, "")
        (asked,) = admin.operator.asked
        assert isinstance(asked, Resume if verb == "resume" else Operate)
        assert asked.id == ID

    with_admin(scenario)


@pytest.mark.parametrize(
    ("verb", "deed", "status", "words"),
    [
        ("cancel", Deed.COMPLETED, 409, "The invocation '{}' was already completed."),
        ("kill", Deed.COMPLETED, 409, "The invocation '{}' was already completed."),
        ("pause", Deed.COMPLETED, 409, "The invocation '{}' is not running, cannot be paused."),
        ("pause", Deed.NOT_RUNNING, 409, "The invocation '{}' is not running, cannot be paused."),
        ("purge", Deed.NOT_COMPLETED, 409, "The invocation '{}' is not yet completed."),
        ("purge-journal", Deed.NOT_COMPLETED, 409, "The invocation '{}' is not yet completed."),
        ("resume", Deed.COMPLETED, 409, "The invocation '{}' is completed, cannot be resumed."),
        ("resume", Deed.NOT_STARTED, 425, "The invocation '{}' is either inboxed or scheduled, cannot be resumed."),
        ("restart-as-new", Deed.NOT_COMPLETED, 409, "The invocation '{}' is still running."),
        (
            "restart-as-new",
            Deed.NOT_STARTED,
            425,
            "The invocation '{}' cannot be restarted because it's not running yet.",
        ),
        (
            "restart-as-new",
            Deed.BAD_PREFIX,
            400,
            "The prefix of the journal '{}' up to 'from' (included) contains some Commands without respective "
            "Completions.",
        ),
    ],
)
def test_a_refusal_has_the_words_of_the_original(verb: str, deed: Deed, status: int, words: str) -> None:
    async def scenario(admin: Admin) -> None:
        admin.operator.answers = [Acted(deed)]
        found = await admin.json("PATCH", f"/invocations/{NAME}/{verb}", status=status)
        assert found == {"message": words.format(NAME), "restate_code": None}

    with_admin(scenario)


def test_what_needs_more_than_one_record_is_asked_for_again_until_it_is_done() -> None:
    async def scenario(admin: Admin) -> None:
        admin.operator.answers = [Acted(Deed.UNFINISHED), Acted(Deed.UNFINISHED), Acted(Deed.DONE)]
        assert await admin.text("PATCH", f"/invocations/{NAME}/purge") == (200, "")
        asked = [command for command in admin.operator.asked if isinstance(command, Operate)]
        assert [command.verb for command in asked] == [Verb.PURGE] * 3
        assert len({command.request for command in asked}) == 3

    with_admin(scenario)


def test_a_restart_names_the_new_invocation_which_is_of_the_same_key() -> None:
    async def scenario(admin: Admin) -> None:
        new_id = InvocationId(ID[:8] + bytes(16))
        admin.operator.answers = [Acted(Deed.DONE, new_id)]
        found = await admin.json("PATCH", f"/invocations/{NAME}/restart-as-new?from=3")
        assert found == {"new_invocation_id": encode_invocation_id(new_id)}
        (asked,) = admin.operator.asked
        assert isinstance(asked, RestartAsNew)
        assert (asked.id, asked.new_id[:8], asked.from_index, asked.keep) == (ID, ID[:8], 3, True)

    with_admin(scenario)


def test_nobody_by_that_id_no_id_and_no_answer() -> None:
    async def scenario(admin: Admin) -> None:
        admin.operator.answers = [Missing(), Unavailable("no leader"), Overloaded()]
        path = f"/invocations/{NAME}/kill"
        unknown = await admin.json("PATCH", path, status=404)
        assert unknown["message"] == f"The requested invocation '{NAME}' does not exist"
        unavailable = await admin.json("PATCH", path, status=503)
        assert unavailable["message"] == "Error when routing the request internally. Reason: no leader"
        await admin.json("PATCH", path, status=429)
        malformed = await admin.json("PATCH", "/invocations/inv_nonsense/kill", status=400)
        assert malformed["message"].startswith("The request field 'invocation_id' is invalid. Reason: ")
        assert len(admin.operator.asked) == 3

    with_admin(scenario)


def test_a_deployment_must_be_known_before_anything_is_asked() -> None:
    async def scenario(admin: Admin) -> None:
        for deployment in ("dp_nope", "dp_15N0hS8vR0uX8m1d2V3e4k5"):
            found = await admin.json("PATCH", f"/invocations/{NAME}/resume?deployment={deployment}", status=400)
            assert found["message"].startswith("The query parameter 'deployment' is invalid. Reason: ")
        status, _ = await admin.text("PATCH", f"/invocations/{NAME}/restart-as-new?from=-1")
        assert status == 400
        assert admin.operator.asked == []

    with_admin(scenario)


def test_the_deprecated_delete_accepts_whatever_there_was_to_do() -> None:
    async def scenario(admin: Admin) -> None:
        admin.operator.answers = [Acted(Deed.ACCEPTED), Acted(Deed.COMPLETED), Acted(Deed.NOT_COMPLETED)]
        for mode in ("", "?mode=kill", "?mode=Purge"):
            assert await admin.text("DELETE", f"/invocations/{NAME}{mode}") == (202, "")
        asked = [command.verb for command in admin.operator.asked if isinstance(command, Operate)]
        assert asked == [Verb.CANCEL, Verb.KILL, Verb.PURGE]
        assert (await admin.text("DELETE", f"/invocations/{NAME}?mode=pause"))[0] == 400

    with_admin(scenario)


def test_a_batch_says_for_each_what_became_of_it() -> None:
    async def scenario(admin: Admin) -> None:
        admin.operator.answers = [Acted(Deed.DONE), Acted(Deed.NOT_COMPLETED)]
        found = await admin.json("POST", f"{BATCH}/purge", {"invocation_ids": [NAME, OTHER_NAME]})
        assert found == {
            "succeeded": [NAME],
            "failed": [{"invocation_id": OTHER_NAME, "error": f"Invocation '{OTHER_NAME}' is not yet completed"}],
        }
        new_id = InvocationId(ID[:8] + bytes(16))
        admin.operator.answers = [Acted(Deed.DONE, new_id), Missing()]
        found = await admin.json("POST", f"{BATCH}/restart-as-new", {"invocation_ids": [NAME, OTHER_NAME]})
        assert found == {
            "succeeded": [{"old_invocation_id": NAME, "new_invocation_id": encode_invocation_id(new_id)}],
            "failed": [{"invocation_id": OTHER_NAME, "error": f"Invocation '{OTHER_NAME}' not found"}],
        }

    with_admin(scenario)


def test_a_batch_with_something_wrong_does_nothing_at_all() -> None:
    async def scenario(admin: Admin) -> None:
        for body in (b"{}", b'{"invocation_ids":["x"]}', b'{"invocation_ids":"%s"}' % NAME.encode()):
            status, text = await admin.text("POST", f"{BATCH}/kill", body)
            assert status == 422
            assert text.startswith("Failed to deserialize the JSON body into the target type: ")
        many = {"invocation_ids": [NAME] * (BATCH_INVOCATIONS_MAX + 1)}
        await admin.json("POST", f"{BATCH}/kill", many, status=400)
        assert admin.operator.asked == []

    with_admin(scenario)

"""○ adapter · What operators do to invocations over HTTP (aiohttp): one at a time, or up to a thousand at once.

The answers are the original's, word for word: its command line and its console read them.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import Any, TypeAlias

from aiohttp import web

from perdure.protocol.ids import IdError, decode_invocation_id, decode_resource_id, encode_invocation_id
from perdure_processor.model.actions import Acted, Deed, Missing
from perdure_processor.model.commands import Operate, Repin, RestartAsNew, Resume, Verb
from perdure_processor.model.ids import DeploymentId, InvocationId
from perdure_processor.model.schema import Schema
from perdure_server.admin.answers import json_answer
from perdure_server.admin.bodies import parse_json
from perdure_server.admin.errors import AdminError, ExtractorError, invalid_field
from perdure_server.admin.operator import Make, Operator, not_asked
from perdure_server.admin.queries import Queries, parse_invocation_id
from perdure_server.limits import BATCH_AT_ONCE_MAX, BATCH_INVOCATIONS_MAX

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_VERBS = {
    "cancel": Verb.CANCEL,
    "kill": Verb.KILL,
    "pause": Verb.PAUSE,
    "purge": Verb.PURGE,
    "purge-journal": Verb.PURGE_JOURNAL,
}
_MODES = ("Cancel", "cancel", "Kill", "kill", "Purge", "purge")
_REFUSED = {
    (verb, Deed.COMPLETED): (409, "The invocation '{id}' was already completed.") for verb in ("cancel", "kill")
} | {
    ("pause", Deed.COMPLETED): (409, "The invocation '{id}' is not running, cannot be paused."),
    ("pause", Deed.NOT_RUNNING): (409, "The invocation '{id}' is not running, cannot be paused."),
    ("purge", Deed.NOT_COMPLETED): (409, "The invocation '{id}' is not yet completed."),
    ("purge-journal", Deed.NOT_COMPLETED): (409, "The invocation '{id}' is not yet completed."),
    ("resume", Deed.COMPLETED): (409, "The invocation '{id}' is completed, cannot be resumed."),
    ("resume", Deed.NOT_STARTED): (
        425,
        "The invocation '{id}' is either inboxed or scheduled, cannot be resumed.",
    ),
    ("resume", Deed.NOT_PINNED): (
        409,
        "The invocation '{id}' is still running or the deployment id is not pinned yet, deployment id cannot be "
        "changed.",
    ),
    ("resume", Deed.WRONG_VERSION): (400, "The invocation '{id}' cannot be resumed on that deployment: {detail}."),
    ("restart", Deed.NOT_COMPLETED): (409, "The invocation '{id}' is still running."),
    ("restart", Deed.NOT_STARTED): (425, "The invocation '{id}' cannot be restarted because it's not running yet."),
    ("restart", Deed.IS_WORKFLOW): (
        422,
        "Restarting the invocation '{id}' is not supported. Restarting workflows is not supported, and restarting "
        "invocations created using the old service protocol.",
    ),
    ("restart", Deed.NO_INPUT): (410, "The invocation '{id}' cannot be restarted: its input is no longer stored."),
    ("restart", Deed.BAD_PREFIX): (
        400,
        "The prefix of the journal '{id}' up to 'from' (included) contains some Commands without respective "
        "Completions.",
    ),
    ("restart", Deed.TOO_LARGE): (422, "The invocation '{id}' cannot be restarted from there: {detail}."),
    ("restart", Deed.NOT_PINNED): (400, "The invocation '{id}' has no deployment to keep, it never recorded a step."),
    ("restart", Deed.WRONG_VERSION): (400, "The invocation '{id}' cannot be restarted on that deployment: {detail}."),
}


class InvocationVerbs:
    """The routes of the verbs; `schema` is asked which deployment is meant."""

    def __init__(self, operator: Operator, queries: Queries, schema: Callable[[], Schema]) -> None:
        self._operator = operator
        self._queries = queries
        self._schema = schema

    def routes(self) -> Iterator[tuple[str, str, Handler]]:
        """(method, path, handler) of each."""
        for verb in (*_VERBS, "resume", "restart-as-new"):
            yield "PATCH", f"/invocations/{{invocation}}/{verb}", self._patch(verb)
            yield "POST", f"/internal/invocations_batch_operations/{verb}", self._batch(verb)
        yield "DELETE", "/invocations/{invocation}", self._delete

    # -- one ------------------------------------------------------------------------------------------------

    def _patch(self, verb: str) -> Handler:
        async def patch(request: web.Request) -> web.StreamResponse:
            invocation_id = parse_invocation_id(request.match_info["invocation"])
            deployment = _deployment(request.query.get("deployment"))
            from_index = _from(request.query.get("from"))
            acted = await self._act(verb, invocation_id, deployment, from_index)
            if acted.new_id is not None:
                return json_answer(request, {"new_invocation_id": encode_invocation_id(acted.new_id)})
            return web.Response(status=202 if acted.deed is Deed.ACCEPTED else 200)

        return patch

    async def _delete(self, request: web.Request) -> web.StreamResponse:
        """The deprecated spelling: whatever there was to do, it was accepted."""
        named = request.query.get("mode", "cancel")
        if named not in _MODES:
            one_of = ", ".join(f"`{mode}`" for mode in _MODES)
            raise ExtractorError(
                400, f"Failed to deserialize query string: mode: unknown variant `{named}`, expected one of {one_of}"
            )
        try:
            await self._act(named.lower(), parse_invocation_id(request.match_info["invocation"]), None, 0)
        except AdminError as error:
            if error.status != 409:
                raise
        return web.Response(status=202)

    async def _act(self, verb: str, invocation_id: InvocationId, deployment: str | None, from_index: int) -> Acted:
        """Do it; raises AdminError with the original's words when it cannot be done."""
        make = await self._command(verb, invocation_id, deployment, from_index)
        answer = await self._operator.operate(make)
        while isinstance(answer, Acted) and answer.deed is Deed.UNFINISHED:
            answer = await self._operator.operate(make)
        text = encode_invocation_id(invocation_id)
        match answer:
            case Acted(deed=Deed.DONE | Deed.ACCEPTED):
                return answer
            case Acted(deed=deed, detail=detail):
                status, words = _REFUSED["restart" if verb == "restart-as-new" else verb, deed]
                raise AdminError(status, None, words.format(id=text, detail=detail))
            case Missing():
                raise AdminError(404, None, f"The requested invocation '{text}' does not exist")
            case _:
                raise not_asked(answer)

    async def _command(self, verb: str, invocation_id: InvocationId, deployment: str | None, from_index: int) -> Make:
        if verb in _VERBS:
            plain = _VERBS[verb]
            return lambda request, now_ms: Operate(invocation_id, plain, request, now_ms)
        repin = await self._repin(invocation_id, deployment)
        if verb == "resume":
            return lambda request, now_ms: Resume(invocation_id, repin, request, now_ms)
        # The key decides the partition, so a new id differs from the old one in what follows it.
        new_id = InvocationId(invocation_id[:8] + secrets.token_bytes(16))
        keep = deployment == "keep" or (deployment is None and from_index > 0)
        return lambda request, now_ms: RestartAsNew(invocation_id, new_id, from_index, keep, repin, request, now_ms)

    async def _repin(self, invocation_id: InvocationId, deployment: str | None) -> Repin | None:
        if deployment is None or deployment == "keep":
            return None
        schema = self._schema()
        deployment_id: DeploymentId | None = DeploymentId(deployment)
        if deployment == "latest":
            name = await self._queries.service_of(invocation_id)
            if name is None:
                raise AdminError(
                    404, None, f"The requested invocation '{encode_invocation_id(invocation_id)}' does not exist"
                )
            service = schema.services.get(name)
            deployment_id = None if service is None else service.deployment_id
        found = None if deployment_id is None else schema.deployments.get(deployment_id)
        if found is None:
            raise _invalid_parameter("deployment", f"there is no deployment '{deployment}'")
        return Repin(found.id, found.min_protocol_version, found.max_protocol_version)

    # -- many -----------------------------------------------------------------------------------------------

    def _batch(self, verb: str) -> Handler:
        async def batch(request: web.Request) -> web.StreamResponse:
            body = parse_json(request.headers.get("content-type"), await request.read())
            texts, deployment, from_index = _batch_body(body)
            room = asyncio.Semaphore(BATCH_AT_ONCE_MAX)
            succeeded: list[Any] = []
            failed: list[dict[str, str]] = []

            async def one(text: str) -> tuple[str, InvocationId | None, str | None]:
                async with room:
                    try:
                        acted = await self._act(verb, parse_invocation_id(text), deployment, from_index)
                    except AdminError as error:
                        return text, None, _batch_words(text, error)
                    return text, acted.new_id, None

            for text, new_id, error in await asyncio.gather(*(one(text) for text in texts)):
                if error is not None:
                    failed.append({"invocation_id": text, "error": error})
                elif new_id is not None:
                    succeeded.append({"old_invocation_id": text, "new_invocation_id": encode_invocation_id(new_id)})
                else:
                    succeeded.append(text)
            return json_answer(request, {"succeeded": succeeded, "failed": failed})

        return batch


def _batch_words(text: str, error: AdminError) -> str:
    """The original says the same things in other words here."""
    if error.status == 404:
        return f"Invocation '{text}' not found"
    return error.message.removeprefix("The ").removesuffix(".").replace("invocation", "Invocation", 1)


def _batch_body(body: Any) -> tuple[list[str], str | None, int]:
    texts = body.get("invocation_ids") if isinstance(body, dict) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise ExtractorError(
            422,
            "Failed to deserialize the JSON body into the target type: missing field `invocation_ids`, a list of ids",
        )
    if len(texts) > BATCH_INVOCATIONS_MAX:
        raise invalid_field("invocation_ids", f"at most {BATCH_INVOCATIONS_MAX} invocations fit into one request")
    for index, text in enumerate(texts):  # one that is no id makes the whole request a bad one: nothing is done
        try:
            decode_invocation_id(text)
        except IdError as error:
            reason = f"Failed to deserialize the JSON body into the target type: invocation_ids[{index}]: {error}"
            raise ExtractorError(422, reason) from error
    deployment, from_index = body.get("deployment"), body.get("from", 0)
    if deployment is not None and not isinstance(deployment, str):
        raise invalid_field("deployment", "it is 'latest', 'keep' or the id of a deployment")
    if not isinstance(from_index, int) or isinstance(from_index, bool) or not 0 <= from_index < 1 << 32:
        raise invalid_field("from", "it is the index of a journal entry")
    return texts, _deployment(deployment), from_index


def _deployment(text: str | None) -> str | None:
    if text is None or text.lower() in ("latest", "keep"):
        return None if text is None else text.lower()
    try:
        decode_resource_id("dp", text)
    except IdError as error:
        raise _invalid_parameter("deployment", str(error)) from error
    return text


def _from(text: str | None) -> int:
    if text is None:
        return 0
    if not (text.isascii() and text.isdecimal() and len(text) <= 10 and int(text) < 1 << 32):
        raise ExtractorError(400, "Failed to deserialize query string: from: invalid digit found in string")
    return int(text)


def _invalid_parameter(name: str, reason: str) -> AdminError:
    return AdminError(400, None, f"The query parameter '{name}' is invalid. Reason: {reason}")

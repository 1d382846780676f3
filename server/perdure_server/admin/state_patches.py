"""○ adapter · POST /services/{service}/state (aiohttp): an operator gives a key another state, all of it."""

from __future__ import annotations

import re
import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

from aiohttp import web

from perdure.protocol import ids
from perdure_processor.model.actions import Acted, Deed
from perdure_processor.model.commands import ReplaceState
from perdure_processor.model.ids import InvocationId
from perdure_processor.model.schema import Schema, ServiceKind
from perdure_server.admin.answers import json_answer
from perdure_server.admin.bodies import StateBody, parse_json, parse_state_body
from perdure_server.admin.errors import AdminError
from perdure_server.admin.operator import Operator, not_asked
from perdure_server.limits import ADMIN_STATE_BODY_BYTES_MAX

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_VERSION = re.compile(r"[A-Za-z0-9_-]{43}")  # SHA-256 in base64 without padding
_REFUSED = {
    Deed.WRONG_STATE: (409, "The state of '{service}/{key}' has another version than the given one, nothing changed."),
    Deed.TOO_LARGE: (422, "The state of '{service}/{key}' has too many names to be compared with a version."),
}


class StatePatches:
    """The route of state patches; `schema` is asked which services have state."""

    def __init__(self, operator: Operator, schema: Callable[[], Schema]) -> None:
        self._operator = operator
        self._schema = schema

    def routes(self) -> Iterator[tuple[str, str, Handler]]:
        """(method, path, handler)."""
        yield "POST", "/services/{service}/state", self._replace

    async def _replace(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["service"]
        document = await _read(request)
        body = parse_state_body(parse_json(request.headers.get("content-type"), document))
        service = self._schema().services.get(name)
        if service is None:
            raise AdminError(404, None, f"The requested service '{name}' does not exist")
        if service.kind is ServiceKind.SERVICE:
            raise AdminError(400, None, "Cannot modify state for service type Service")
        if body.version is not None and not _VERSION.fullmatch(body.version):
            # The original answers so to every version that is not the state's. Of one that no state can ever have
            # it is safe to say, and the answer says it too; all others are compared.
            note = f"'{body.version}' is not the version of any state, nothing will change"
            return json_answer(request, {"message": note, "restate_code": None}, 202)
        await self._act(name, body)
        return web.Response(status=202)

    async def _act(self, service: str, body: StateBody) -> None:
        partition_key = ids.partition_key_of_key(body.object_key)
        patch_id = InvocationId(ids.invocation_id(partition_key, secrets.randbits(128)))
        answer = await self._operator.operate(
            lambda request, now_ms: ReplaceState(
                patch_id, service, body.object_key, body.version, body.state, request, now_ms
            )
        )
        match answer:
            case Acted(deed=Deed.DONE | Deed.ACCEPTED):
                return
            case Acted(deed=deed):
                status, words = _REFUSED[deed]
                raise AdminError(status, None, words.format(service=service, key=body.object_key))
            case _:
                raise not_asked(answer, "too many requests are under way, or wait for this key: try again later")


async def _read(request: web.Request) -> bytes:
    """The body, which may be larger than others: each byte of state takes up to four of JSON."""
    pieces = bytearray()
    async for piece in request.content.iter_any():
        pieces += piece
        if len(pieces) > ADMIN_STATE_BODY_BYTES_MAX:
            raise web.HTTPRequestEntityTooLarge(ADMIN_STATE_BODY_BYTES_MAX, len(pieces))
    return bytes(pieces)

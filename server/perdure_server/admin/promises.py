"""○ adapter · DELETE /services/{workflow}/promises/{key} (aiohttp): drop the promises of a key that never ran.

Ours. A promise may be completed before its workflow runs; where the run never comes, nothing else takes it away.
"""

from __future__ import annotations

import secrets
from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

from aiohttp import web

from perdure.protocol import ids
from perdure_processor.model.actions import Acted, Deed
from perdure_processor.model.commands import DropPromises
from perdure_processor.model.derived_ids import workflow_id
from perdure_processor.model.ids import InvocationId
from perdure_processor.model.schema import Schema, ServiceKind
from perdure_server.admin.errors import AdminError
from perdure_server.admin.operator import Operator, not_asked

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Promises:
    """The route that drops promises; `schema` is asked which services are workflows."""

    def __init__(self, operator: Operator, schema: Callable[[], Schema]) -> None:
        self._operator = operator
        self._schema = schema

    def routes(self) -> Iterator[tuple[str, str, Handler]]:
        """(method, path, handler)."""
        yield "DELETE", "/services/{service}/promises/{key}", self._drop

    async def _drop(self, request: web.Request) -> web.StreamResponse:
        name, key = request.match_info["service"], request.match_info["key"]
        service = self._schema().services.get(name)
        if service is None:
            raise AdminError(404, None, f"The requested service '{name}' does not exist")
        if service.kind is not ServiceKind.WORKFLOW:
            raise AdminError(400, None, f"The service '{name}' has no promises, it is no workflow")
        while await self._act(name, key) is Deed.UNFINISHED:
            pass  # each request drops as much as one record may
        return web.Response(status=202)

    async def _act(self, workflow: str, key: str) -> Deed:
        partition_key = ids.partition_key_of_key(key)
        drop_id = InvocationId(ids.invocation_id(partition_key, secrets.randbits(128)))
        answer = await self._operator.operate(
            lambda request, now_ms: DropPromises(drop_id, workflow, key, request, now_ms)
        )
        match answer:
            case Acted(deed=Deed.DONE | Deed.UNFINISHED as deed):
                return deed
            case Acted(deed=Deed.HAS_RUN):
                run = ids.encode_invocation_id(workflow_id(workflow, key))
                raise AdminError(
                    409,
                    None,
                    f"The workflow '{workflow}/{key}' has run: its promises go with its result. "
                    f"Purge the invocation '{run}' instead, once it has completed.",
                )
            case _:
                raise not_asked(answer)

"""○ adapter · POST /query over HTTP (aiohttp): JSON for who asks for exactly that, else an Arrow stream."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Protocol, TypeAlias

from aiohttp import web

from perdure_server.admin.bodies import parse_json
from perdure_server.admin.errors import AdminError, ExtractorError, QueryError
from perdure_server.limits import QUERY_SECONDS_MAX

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_JSON = "application/json"
_ARROW = "application/vnd.apache.arrow.stream"


class Sql(Protocol):
    """Runs a query; the pieces of its result as they come."""

    def query(self, sql: str, as_json: bool) -> AsyncGenerator[bytes, None]: ...


def query_route(sql: Sql) -> Handler:
    """The handler of POST /query."""

    async def query(request: web.Request) -> web.StreamResponse:
        body = parse_json(request.headers.get("content-type"), await request.read())
        text = body.get("query") if isinstance(body, dict) else None
        if not isinstance(text, str):
            raise ExtractorError(
                422, "Failed to deserialize the JSON body into the target type: missing field `query`, a text"
            )
        as_json = request.headers.get("accept") == _JSON
        pieces = sql.query(text, as_json)
        answer = web.StreamResponse(headers={"content-type": _JSON if as_json else _ARROW, "vary": "accept-encoding"})
        try:
            # Its client's reading takes time too: who reads nothing is cut off, and the query with it.
            async with asyncio.timeout(QUERY_SECONDS_MAX):
                async for piece in pieces:
                    if not answer.prepared:  # until here an error is an answer of its own
                        await answer.prepare(request)
                    await answer.write(piece)
                await answer.write_eof()
        except ConnectionError:
            pass  # its client has gone, which ends it
        except Exception as error:
            if answer.prepared:
                _cut(request)
            if isinstance(error, QueryError):
                words = json.dumps({"message": f"Datafusion error: {error}"})
                return web.Response(status=400, body=words.encode(), content_type=_JSON)
            if isinstance(error, TimeoutError):
                raise AdminError(503, None, f"the query took longer than {QUERY_SECONDS_MAX:.0f} s") from error
            raise
        finally:
            await pieces.aclose()
        return answer

    return query


def _cut(request: web.Request) -> None:
    """The status has been sent: that the result is not whole, only the connection's end can say."""
    if request.transport is not None:
        request.transport.abort()

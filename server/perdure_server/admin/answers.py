"""○ adapter · How the admin API answers over HTTP (aiohttp): compact JSON, compressed for those who take it."""

from __future__ import annotations

import json
from typing import Any

from aiohttp import web

from perdure_server.limits import ADMIN_COMPRESS_BYTES_MIN


def json_answer(request: web.Request, document: Any, status: int = 200) -> web.Response:
    """A JSON document as the answer to this request."""
    body = json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode("utf-8", "replace")
    return finished(request, web.Response(status=status, body=body, content_type="application/json"))


def finished(request: web.Request, answer: web.Response) -> web.Response:
    """The answer with what every one has: compressed where it is worth it."""
    answer.headers["vary"] = "accept-encoding"
    size = len(answer.body) if isinstance(answer.body, bytes) else 0
    if size >= ADMIN_COMPRESS_BYTES_MIN and "gzip" in request.headers.get("accept-encoding", "").lower():
        answer.enable_compression(web.ContentCoding.gzip)
    return answer

"""○ adapter · The node port (aiohttp): /metrics for Prometheus and /health for whoever restarts nodes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from aiohttp import web

from perdure_server.limits import NODE_PORT_STOP_GRACE_S
from perdure_server.metrics_text import CONTENT_TYPE, Family, render
from perdure_server.web_listener import WebListener


class NodePort:
    """Serves what `families` counts at the moment of the scrape, and 200 while `healthy` says so."""

    def __init__(self, families: Callable[[], Sequence[Family]], healthy: Callable[[], bool]) -> None:
        self._families = families
        self._healthy = healthy
        application = web.Application()
        application.router.add_get("/metrics", self._metrics)
        application.router.add_get("/health", self._health)
        self._listener = WebListener(application, NODE_PORT_STOP_GRACE_S)

    async def start(self, host: str, port: int) -> int:
        """Listen; the answer is the port that was bound."""
        return await self._listener.start(host, port)

    async def stop(self) -> None:
        await self._listener.stop()

    async def _metrics(self, request: web.Request) -> web.Response:
        # The header is written whole: the version parameter tells a scraper which grammar to expect.
        return web.Response(body=render(self._families()).encode(), headers={"content-type": CONTENT_TYPE})

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response(status=200 if self._healthy() else 503)

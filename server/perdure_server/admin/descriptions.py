"""○ adapter · What the admin API says about itself, the cluster and its services (aiohttp)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator
from typing import TypeAlias

from aiohttp import web

from perdure_processor.cluster.metadata import Metadata
from perdure_server.admin.answers import json_answer
from perdure_server.admin.errors import AdminError
from perdure_server.admin.openapi import admin_openapi
from perdure_server.admin.service_openapi import service_openapi

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]

_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>Perdure</title></head>
<body><h1>Perdure</h1><p>This server has no web console. See <a href="/openapi">/openapi</a> for its admin API,
and <code>perdure --help</code> or the <code>restate</code> command line for what they show.</p></body></html>
"""


class Descriptions:
    """The routes that describe; `version` and `ingress_endpoint` are shown."""

    def __init__(self, metadata: Metadata, version: str, ingress_endpoint: str) -> None:
        self._metadata = metadata
        self._ingress_endpoint = ingress_endpoint
        self._openapi = admin_openapi(version)

    def routes(self) -> Iterator[tuple[str, str, Handler]]:
        """(method, path, handler) of each."""
        yield "GET", "/openapi", self._admin
        yield "GET", "/cluster-health", self._cluster_health
        yield "GET", "/services/{service}/openapi", self._service

    def pages(self) -> Iterator[tuple[str, str, Handler]]:
        """Those for browsers, which are no part of the API."""
        yield "GET", "/", self._to_page
        yield "GET", "/ui", self._to_page
        yield "GET", "/ui/{rest:.*}", self._page

    async def _admin(self, request: web.Request) -> web.StreamResponse:
        return json_answer(request, self._openapi)

    async def _cluster_health(self, request: web.Request) -> web.StreamResponse:
        layout = self._metadata.layout
        return json_answer(
            request, {"cluster_name": layout.cluster_id, "metadata_cluster_health": {"members": [_ONLY_MEMBER]}}
        )

    async def _service(self, request: web.Request) -> web.StreamResponse:
        name = request.match_info["service"]
        service = self._metadata.schema.services.get(name)
        if service is None:
            raise AdminError(404, None, f"The requested service '{name}' does not exist")
        return json_answer(request, service_openapi(service, self._ingress_endpoint))

    async def _to_page(self, request: web.Request) -> web.StreamResponse:
        return web.Response(status=308, headers={"location": "/ui/"})

    async def _page(self, request: web.Request) -> web.StreamResponse:
        if request.match_info["rest"]:
            return web.Response(status=404)
        return web.Response(text=_PAGE, content_type="text/html")


# The original numbers the nodes of a cluster from 1; a node with an embedded log is its cluster.
_ONLY_MEMBER = 1

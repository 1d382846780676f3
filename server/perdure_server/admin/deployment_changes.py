"""○ adapter · Deployments over time (aiohttp): another address, the latest again, and what still runs there."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import TypeAlias, assert_never

from aiohttp import web

from perdure.protocol.ids import IdError, decode_resource_id
from perdure.protocol.manifest import EndpointManifest
from perdure_processor.clock import Clock
from perdure_processor.cluster.metadata import Metadata
from perdure_processor.cluster.metadata_machine import (
    ActivateDeployment,
    Applied,
    MetadataOutcome,
    MetadataState,
    Rejected,
    UpdateDeployment,
    VersionConflict,
)
from perdure_processor.invoker.transport import Address
from perdure_processor.model.ids import DeploymentId
from perdure_processor.model.results import RequestId
from perdure_processor.model.schema import DeploymentSchema
from perdure_server.admin.answers import json_answer
from perdure_server.admin.bodies import parse_json, parse_update_body
from perdure_server.admin.errors import AdminError, ExtractorError
from perdure_server.admin.metadata_json import deployment_json
from perdure_server.admin.queries import Queries
from perdure_server.admin.registration import update_command
from perdure_server.durations import format_time_nanos

Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
# What an address says about itself: its manifest, and the SDK's name.
Ask: TypeAlias = Callable[[Address, Mapping[str, str]], Awaitable[tuple[EndpointManifest, str | None]]]


class DeploymentChanges:
    """The routes that change a registered deployment, or look what it still has to do."""

    def __init__(self, metadata: Metadata, ask: Ask, queries: Queries, clock: Clock) -> None:
        self._metadata = metadata
        self._ask = ask
        self._queries = queries
        self._clock = clock

    def routes(self) -> Iterator[tuple[str, str, Handler]]:
        """(method, path, handler) of each; the last two are ours."""
        yield "PATCH", "/deployments/{deployment}", self._update
        yield "POST", "/deployments/{deployment}/activate", self._activate
        yield "GET", "/deployments/{deployment}/drain", self._drain

    async def _update(self, request: web.Request) -> web.StreamResponse:
        """Reach it elsewhere or otherwise. A new address must answer; its services are read only to overwrite."""
        deployment_id = deployment_id_of(request)
        body = parse_update_body(parse_json(request.headers.get("content-type"), await request.read()))
        known = self._deployment(deployment_id)
        http1 = known.http1 if body.use_http_11 is None else body.use_http_11
        headers = known.additional_headers if body.additional_headers is None else body.additional_headers
        asked = None
        if body.uri is not None or body.overwrite:
            asked = await self._ask(Address(body.uri or known.uri, http1), headers)

        def command(state: MetadataState, request_id: RequestId) -> UpdateDeployment:
            return update_command(request_id, state.version, deployment_id, body, asked)

        if body.dry_run:
            draft = command(self._metadata.state, self._metadata.next_request())
            outcome, schema = self._metadata.preview(draft, self._clock.now_ms())
            applied(outcome)
            return json_answer(request, deployment_json(schema.deployments[deployment_id]))
        applied(await self._metadata.change(command))
        return json_answer(request, deployment_json(self._deployment(deployment_id)))

    async def _activate(self, request: web.Request) -> web.StreamResponse:
        """Make it the latest of each of its services again, as it is registered: nobody is asked anything."""
        deployment_id = deployment_id_of(request)
        applied(
            await self._metadata.change(
                lambda state, request_id: ActivateDeployment(request_id, state.version, deployment_id)
            )
        )
        return json_answer(request, deployment_json(self._deployment(deployment_id)))

    async def _drain(self, request: web.Request) -> web.StreamResponse:
        """What began there and has not ended: at 0 the deployment can go."""
        deployment_id = deployment_id_of(request)
        self._deployment(deployment_id)
        found = await self._queries.in_flight(deployment_id)
        oldest_ms = found.oldest_created_ms
        return json_answer(
            request,
            {
                "in_flight": sum(found.by_service.values()),
                "oldest_created_at": None if oldest_ms is None else format_time_nanos(oldest_ms),
                "by_service": dict(sorted(found.by_service.items())),
            },
        )

    def _deployment(self, deployment_id: DeploymentId) -> DeploymentSchema:
        known = self._metadata.schema.deployments.get(deployment_id)
        if known is None:
            raise AdminError(404, None, f"The requested deployment '{deployment_id}' does not exist")
        return known


def applied(outcome: MetadataOutcome) -> Applied:
    """What the machine took; raises AdminError with what it refused."""
    match outcome:
        case Applied():
            return outcome
        case Rejected(status, code, message):
            raise AdminError(status, code, message)
        case VersionConflict():
            raise AssertionError("change() and preview() are asked at the current version")
        case _:
            assert_never(outcome)


def deployment_id_of(request: web.Request) -> DeploymentId:
    """The id in the path."""
    text = request.match_info["deployment"]
    try:
        decode_resource_id("dp", text)
    except IdError as error:
        raise ExtractorError(400, f"Invalid URL: Cannot parse `deployment` with value `{text}`: {error}") from error
    return DeploymentId(text)

"""○ adapter · The admin API over HTTP (aiohttp): deployments, services, invocations.

Every route also stands under /v2, /v3 and /v4. Refusals of the application are JSON, refusals of a
request's form are plain text, an unknown route is an empty 404: as the original, whose clients read them.
"""

from __future__ import annotations

import functools
import logging
import secrets
from collections.abc import Awaitable, Callable, Mapping
from typing import TypeAlias

from aiohttp import web

from perdure.protocol.ids import new_resource_id
from perdure.protocol.manifest import EndpointManifest, ManifestError, parse_manifest
from perdure_processor.clock import Clock
from perdure_processor.cluster.metadata import Metadata, MetadataUnavailable
from perdure_processor.cluster.metadata_machine import (
    MetadataState,
    PatchService,
    RegisterDeployment,
    RemoveDeployment,
)
from perdure_processor.invoker.transport import Address
from perdure_processor.model.ids import DeploymentId
from perdure_processor.model.results import RequestId
from perdure_processor.model.schema import DeploymentSchema, Schema, ServiceSchema
from perdure_server.admin.answers import finished, json_answer
from perdure_server.admin.bodies import (
    parse_json,
    parse_patch_body,
    parse_register_body,
    parse_skip_body,
)
from perdure_server.admin.deployment_changes import DeploymentChanges, applied, deployment_id_of
from perdure_server.admin.descriptions import Descriptions
from perdure_server.admin.discovery import Discover
from perdure_server.admin.errors import AdminError, ExtractorError
from perdure_server.admin.invocation_verbs import InvocationVerbs
from perdure_server.admin.metadata_json import (
    deployment_json,
    deployments_json,
    handler_json,
    handlers_json,
    registration_json,
    service_json,
    services_json,
)
from perdure_server.admin.operator import Operator
from perdure_server.admin.promises import Promises
from perdure_server.admin.queries import (
    Partitions,
    Queries,
    QueryUnavailable,
    SkipRefused,
    parse_invocation_filter,
    parse_invocation_id,
)
from perdure_server.admin.registration import register_command, registered_services
from perdure_server.admin.sql.routes import Sql, query_route
from perdure_server.admin.state_patches import StatePatches
from perdure_server.limits import ADMIN_BODY_BYTES_MAX, ADMIN_STOP_GRACE_S, DISCOVERIES_MAX
from perdure_server.web_listener import WebListener

log = logging.getLogger(__name__)

API_VERSION_MIN = 2
API_VERSION_MAX = 4


Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]


class AdminServer:
    """The admin API of one node; it decides nothing that the metadata machine can decide.

    `discover` and `queries` are how it reaches deployments and partitions; `features` are shown by /version."""

    def __init__(
        self,
        metadata: Metadata,
        discover: Discover,
        queries: Queries,
        partitions: Partitions,
        operator: Operator,
        sql: Sql,
        *,
        clock: Clock,
        version: str,
        ingress_endpoint: str,
        features: Mapping[str, bool],
    ) -> None:
        self._metadata = metadata
        self._discover = discover
        self._queries = queries
        self._partitions = partitions
        self._verbs = InvocationVerbs(operator, queries, lambda: metadata.schema)
        self._state_patches = StatePatches(operator, lambda: metadata.schema)
        self._promises = Promises(operator, lambda: metadata.schema)
        self._query = query_route(sql)
        self._clock = clock
        self._deployment_changes = DeploymentChanges(metadata, self._ask, queries, clock)
        self._about = {
            "version": version,
            "min_admin_api_version": API_VERSION_MIN,
            "max_admin_api_version": API_VERSION_MAX,
            "ingress_endpoint": ingress_endpoint,
            "features": dict(features),
        }
        self._descriptions = Descriptions(metadata, version, ingress_endpoint)
        self._discovering = 0
        self._served = self._application()
        self._listener = WebListener(self._served, ADMIN_STOP_GRACE_S)

    async def start(self, host: str, port: int) -> int:
        """Listen; the answer is the port that was bound (for port 0, one that was free)."""
        return await self._listener.start(host, port)

    async def stop(self) -> None:
        """Finish what is under way, for a moment, and close."""
        await self._listener.stop()

    def routes(self) -> set[tuple[str, str]]:
        """(method, path) of every route of the newest version."""
        return {
            (route.method, route.resource.canonical)
            for route in self._served.router.routes()
            if route.resource is not None and route.method != "HEAD"
        }

    def _application(self) -> web.Application:
        application = web.Application(client_max_size=ADMIN_BODY_BYTES_MAX, middlewares=[_answer_refusals])
        route = application.router
        for version in (None, *range(API_VERSION_MIN, API_VERSION_MAX + 1)):
            prefix = "" if version is None else f"/v{version}"
            # Version 2 registered with force unless told otherwise, and answered 201 to every registration.
            register = functools.partial(self._register, version == 2)
            route.add_get(f"{prefix}/health", self._health)
            route.add_get(f"{prefix}/version", self._version)
            route.add_get(f"{prefix}/deployments", self._list_deployments)
            route.add_post(f"{prefix}/deployments", register)
            route.add_get(f"{prefix}/deployments/{{deployment}}", self._get_deployment)
            route.add_delete(f"{prefix}/deployments/{{deployment}}", self._remove_deployment)
            route.add_get(f"{prefix}/services", self._list_services)
            route.add_get(f"{prefix}/services/{{service}}", self._get_service)
            route.add_patch(f"{prefix}/services/{{service}}", self._patch_service)
            route.add_get(f"{prefix}/services/{{service}}/handlers", self._list_handlers)
            route.add_get(f"{prefix}/services/{{service}}/handlers/{{handler}}", self._get_handler)
            for method, path, handler in (
                *self._verbs.routes(),
                *self._state_patches.routes(),
                *self._promises.routes(),
                *self._deployment_changes.routes(),
                *self._descriptions.routes(),
            ):
                route.add_route(method, prefix + path, handler)
            route.add_post(f"{prefix}/query", self._query)
            route.add_get(f"{prefix}/subscriptions", self._no_subscriptions)
            route.add_get(f"{prefix}/kafka-clusters", self._no_clusters)
            # Ours; the original answers these questions by SQL.
            route.add_get(f"{prefix}/invocations", self._list_invocations)
            route.add_get(f"{prefix}/invocations/{{invocation}}", self._get_invocation)
            route.add_get(f"{prefix}/partitions", self._list_partitions)
            route.add_post(f"{prefix}/partitions/{{partition}}/skip", self._skip_record)
        for method, path, handler in self._descriptions.pages():
            route.add_route(method, path, handler)
        route.add_route("*", "/v1{rest:(/.*)?}", self._withdrawn)
        return application

    # -- about ----------------------------------------------------------------------------------------------

    async def _health(self, request: web.Request) -> web.Response:
        return web.Response()

    async def _version(self, request: web.Request) -> web.Response:
        return json_answer(request, self._about)

    async def _withdrawn(self, request: web.Request) -> web.Response:
        raise ExtractorError(
            400,
            "Unsupported Admin API version V1. "
            f"This server supports versions between V{API_VERSION_MIN} and V{API_VERSION_MAX}.",
        )

    # -- deployments ----------------------------------------------------------------------------------------

    async def _list_deployments(self, request: web.Request) -> web.Response:
        return json_answer(request, deployments_json(self._metadata.schema))

    async def _get_deployment(self, request: web.Request) -> web.Response:
        deployment_id = deployment_id_of(request)
        deployment = self._metadata.schema.deployments.get(deployment_id)
        if deployment is None:
            raise AdminError(404, None, f"The requested deployment '{deployment_id}' does not exist")
        return json_answer(request, deployment_json(deployment))

    async def _register(self, as_version_2: bool, request: web.Request) -> web.Response:
        document = parse_json(request.headers.get("content-type"), await request.read())
        body = parse_register_body(document, force_default=as_version_2)
        known = _deployment_at(self._metadata.schema, body.uri)
        if known is not None and not body.force:
            if as_version_2:
                raise AdminError(409, None, f"Conflict: deployment {known.id} already exists")
            return _registered(request, 200, known)  # whatever the endpoint says today: force asks it again
        manifest, sdk_version = await self._ask(Address(body.uri, body.use_http_11), body.additional_headers)
        services = registered_services(manifest)
        random_bits = secrets.randbits(80)
        new_id = DeploymentId(new_resource_id("dp", self._clock.now_ms(), random_bits))

        def command(state: MetadataState, request_id: RequestId) -> RegisterDeployment:
            return register_command(request_id, state.version, new_id, body, manifest, services, sdk_version)

        if body.dry_run:
            draft = command(self._metadata.state, self._metadata.next_request())
            outcome, schema = self._metadata.preview(draft, self._clock.now_ms())
        else:
            outcome = await self._metadata.change(command)
            schema = self._metadata.schema
        done = applied(outcome)
        assert done.deployment_id is not None
        deployment = schema.deployments.get(done.deployment_id)
        if deployment is None:  # registered, and removed by somebody else before this line
            raise AdminError(409, None, f"deployment {done.deployment_id} was removed while it was registered")
        return _registered(request, 201 if done.created or as_version_2 else 200, deployment)

    async def _remove_deployment(self, request: web.Request) -> web.Response:
        deployment_id = deployment_id_of(request)
        force = request.query.get("force", "false")
        if force not in ("true", "false"):
            raise ExtractorError(
                400, "Failed to deserialize query string: force: provided string was not `true` or `false`"
            )
        if force == "false":
            return web.Response(status=501)  # only running work could make it safe, and nobody looks for that
        applied(
            await self._metadata.change(
                lambda state, request_id: RemoveDeployment(request_id, state.version, deployment_id)
            )
        )
        return web.Response(status=202)

    async def _ask(
        self, address: Address, additional_headers: Mapping[str, str]
    ) -> tuple[EndpointManifest, str | None]:
        """What the endpoint says about itself. Nothing is kept yet, so giving up leaves nothing behind."""
        if self._discovering >= DISCOVERIES_MAX:
            raise AdminError(429, None, f"{DISCOVERIES_MAX} endpoints are being asked already, try again later")
        self._discovering += 1
        try:
            found = await self._discover(address, additional_headers)
        finally:
            self._discovering -= 1
        try:
            return parse_manifest(found.content_type, found.body, found.server), found.server
        except ManifestError as error:
            raise AdminError(error.status, error.code, _with_code(error.code, error.message)) from error

    # -- services -------------------------------------------------------------------------------------------

    async def _list_services(self, request: web.Request) -> web.Response:
        return json_answer(request, services_json(self._metadata.schema))

    async def _get_service(self, request: web.Request) -> web.Response:
        return json_answer(request, service_json(self._service(request)))

    async def _patch_service(self, request: web.Request) -> web.Response:
        name = request.match_info["service"]
        settings = parse_patch_body(parse_json(request.headers.get("content-type"), await request.read()))
        applied(
            await self._metadata.change(
                lambda state, request_id: PatchService(request_id, state.version, name, settings)
            )
        )
        return json_answer(request, service_json(self._service(request)))

    async def _list_handlers(self, request: web.Request) -> web.Response:
        return json_answer(request, handlers_json(self._service(request)))

    async def _get_handler(self, request: web.Request) -> web.Response:
        name, handler_name = request.match_info["service"], request.match_info["handler"]
        service = self._metadata.schema.services.get(name)
        handler = None if service is None else service.handlers.get(handler_name)
        if handler is None:
            raise AdminError(404, None, f"The requested handler '{handler_name}' on service '{name}' does not exist")
        return json_answer(request, handler_json(handler))

    # -- Kafka ----------------------------------------------------------------------------------------------
    # Nothing can be subscribed to on the embedded log; the original's command line asks, and is told so.

    async def _no_subscriptions(self, request: web.Request) -> web.Response:
        return json_answer(request, {"subscriptions": []})

    async def _no_clusters(self, request: web.Request) -> web.Response:
        return json_answer(request, {"clusters": []})

    # -- partitions -----------------------------------------------------------------------------------------

    async def _list_partitions(self, request: web.Request) -> web.Response:
        return json_answer(request, {"partitions": self._partitions.list_partitions()})

    async def _skip_record(self, request: web.Request) -> web.Response:
        offset = parse_skip_body(parse_json(request.headers.get("content-type"), await request.read()))
        named = request.match_info["partition"]
        try:
            partition = int(named) if named.isascii() and named.isdecimal() else -1
            return json_answer(request, await self._partitions.skip_record(partition, offset))
        except KeyError as error:
            raise AdminError(404, None, f"The requested partition '{named}' does not exist") from error
        except SkipRefused as error:
            raise AdminError(409, None, str(error)) from error

    def _service(self, request: web.Request) -> ServiceSchema:
        name = request.match_info["service"]
        service = self._metadata.schema.services.get(name)
        if service is None:
            raise AdminError(404, None, f"The requested service '{name}' does not exist")
        return service

    # -- invocations ----------------------------------------------------------------------------------------

    async def _get_invocation(self, request: web.Request) -> web.Response:
        text = request.match_info["invocation"]
        found = await self._queries.get_invocation(parse_invocation_id(text))
        if found is None:
            raise AdminError(404, None, f"The requested invocation '{text}' does not exist")
        invocation, journal = found
        return json_answer(request, {"invocation": invocation, "journal": journal})

    async def _list_invocations(self, request: web.Request) -> web.Response:
        wanted = parse_invocation_filter(request.query)
        rows = await self._queries.list_invocations(
            wanted.service, wanted.handler, wanted.key, wanted.status, wanted.limit
        )
        return json_answer(request, {"invocations": rows})


@web.middleware
async def _answer_refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    try:
        return await handler(request)
    except AdminError as error:
        return _refusal(request, error.status, error.code, error.message)
    except ExtractorError as error:
        return finished(request, web.Response(status=error.status, text=error.text))
    except MetadataUnavailable as error:
        hint = "; the change may still come to hold, look before asking again" if error.may_have_applied else ""
        return _refusal(request, 503, None, f"{error}{hint}")
    except QueryUnavailable as error:
        return _refusal(request, 503, None, str(error))
    except web.HTTPRequestEntityTooLarge:
        text = "Failed to buffer the request body: length limit exceeded"
        return finished(request, web.Response(status=413, text=text))
    except web.HTTPMethodNotAllowed as error:
        return web.Response(status=405, headers={"allow": ",".join(sorted(error.allowed_methods))})
    except web.HTTPNotFound:
        return web.Response(status=404)
    except Exception:
        # The edge: a bug in one request must not be an empty connection to the person who asks.
        log.exception("admin request failed method=%s path=%s", request.method, request.path)
        return _refusal(request, 500, None, "internal error, see the server's log")


def _deployment_at(schema: Schema, uri: str) -> DeploymentSchema | None:
    return next((known for known in schema.deployments.values() if known.uri == uri), None)


def _registered(request: web.Request, status: int, deployment: DeploymentSchema) -> web.Response:
    answer = json_answer(request, registration_json(deployment), status)
    answer.headers["location"] = f"deployments/{deployment.id}"
    return answer


def _refusal(request: web.Request, status: int, code: str | None, message: str) -> web.Response:
    return json_answer(request, {"message": message, "restate_code": code}, status)


def _with_code(code: str | None, message: str) -> str:
    return message if code is None or message.startswith(f"[{code}]") else f"[{code}] {message}"

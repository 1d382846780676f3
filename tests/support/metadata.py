"""Builders for metadata commands and for manifests, with everything said that a test does not care about."""

from __future__ import annotations

import json
from typing import Any

from perdure_processor.cluster.metadata_machine import (
    Layout,
    MetadataCommand,
    MetadataOutcome,
    MetadataState,
    PatchService,
    RegisterDeployment,
    RemoveDeployment,
    apply,
)
from perdure_processor.model.ids import SLOTS, DeploymentId, Millis
from perdure_processor.model.registration import (
    HandlerKind,
    Options,
    RegisteredHandler,
    RegisteredInput,
    RegisteredOutput,
    RegisteredService,
    ServiceKind,
    ServicePatch,
)
from perdure_processor.model.resolution import Defaults, build_schema
from perdure_processor.model.results import RequestId
from perdure_processor.model.schema import Schema

_KIND_OF_HANDLERS = {
    ServiceKind.SERVICE: HandlerKind.STATELESS,
    ServiceKind.VIRTUAL_OBJECT: HandlerKind.EXCLUSIVE,
    ServiceKind.WORKFLOW: HandlerKind.WORKFLOW,
}


def handler(
    name: str = "greet",
    kind: HandlerKind = HandlerKind.STATELESS,
    *,
    options: Options = Options(),  # noqa: B008 - a frozen value
    workflow_retention_ms: int | None = None,
    takes: RegisteredInput | None = None,
    gives: RegisteredOutput | None = None,
) -> RegisteredHandler:
    return RegisteredHandler(name, kind, options, workflow_retention_ms, takes, gives, None)


def service(
    name: str,
    kind: ServiceKind = ServiceKind.SERVICE,
    *handlers: RegisteredHandler,
    options: Options = Options(),  # noqa: B008 - a frozen value
) -> RegisteredService:
    return RegisteredService(name, kind, options, list(handlers) or [handler(kind=_KIND_OF_HANDLERS[kind])], None)


class Operator:
    """Someone at the machine: each call is the next command, made for the version that holds."""

    def __init__(self, *, partitions: int | None = 8) -> None:
        self.state = MetadataState()
        self.now_ms = 1_000
        self._requests = 0
        if partitions is not None:
            self.lay_out(partitions)

    def request(self) -> RequestId:
        self._requests += 1
        return RequestId("node", 7, self._requests)

    def do(self, command: MetadataCommand) -> MetadataOutcome:
        self.now_ms += 1
        self.state, outcome = apply(self.state, command, Millis(self.now_ms))
        return outcome

    def lay_out(self, partitions: int, cluster_id: str = "cluster") -> MetadataOutcome:
        return self.do(Layout(self.request(), cluster_id, partitions, SLOTS))

    def register(
        self,
        name: str,
        *services: RegisteredService,
        force: bool = False,
        breaking: bool = False,
        bidirectional: bool = True,
    ) -> MetadataOutcome:
        return self.do(self.registration(name, *services, force=force, breaking=breaking, bidirectional=bidirectional))

    def registration(
        self,
        name: str,
        *services: RegisteredService,
        force: bool = False,
        breaking: bool = False,
        bidirectional: bool = True,
    ) -> RegisterDeployment:
        """The command that registers http://`name` under the id `dp_name`, at the current version."""
        return RegisterDeployment(
            request=self.request(),
            expected_version=self.state.version,
            id=DeploymentId(f"dp_{name}"),
            uri=f"http://{name}",
            http1=False,
            bidirectional=bidirectional,
            additional_headers={},
            metadata={},
            min_protocol_version=5,
            max_protocol_version=7,
            sdk_version="sdk/1",
            services=list(services),
            force=force,
            permit_type_change=breaking,
        )

    def remove(self, deployment_id: str) -> MetadataOutcome:
        return self.do(RemoveDeployment(self.request(), self.state.version, DeploymentId(deployment_id)))

    def patch(self, name: str, **settings: Any) -> MetadataOutcome:
        return self.do(PatchService(self.request(), self.state.version, name, ServicePatch(**settings)))

    def schema(self, defaults: Defaults = Defaults()) -> Schema:  # noqa: B008 - a frozen value
        return build_schema(self.state.version, self.state.deployments, self.state.patches, defaults)

    def latest(self) -> dict[str, tuple[str, int]]:
        """Where each service is served now, and at which revision."""
        return {name: (each.deployment_id, each.revision) for name, each in sorted(self.schema().services.items())}


def manifest(*services: dict[str, Any], mode: str = "BIDI_STREAM", versions: tuple[int, int] = (5, 7)) -> bytes:
    """What an endpoint answers to GET /discover (version 4)."""
    document = {
        "protocolMode": mode,
        "minProtocolVersion": versions[0],
        "maxProtocolVersion": versions[1],
        "services": list(services),
    }
    return json.dumps(document).encode()


def greeter(name: str = "Greeter", ty: str = "SERVICE", **members: Any) -> dict[str, Any]:
    """A service of a manifest with one handler, `greet`; a workflow's is its run handler."""
    main = {"name": "greet", "ty": "WORKFLOW"} if ty == "WORKFLOW" else {"name": "greet"}
    return {"name": name, "ty": ty, "handlers": [main], **members}

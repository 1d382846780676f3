"""◐ shell · What the tables of a node hold: its partitions' stores, its attempts, and what is registered."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from perdure_processor.cluster.metadata import Metadata
from perdure_processor.host import Host
from perdure_processor.invoker.invoker import Invoker
from perdure_processor.model.schema import Schema, ServiceKind
from perdure_server.admin.invocation_rows import KINDS
from perdure_server.admin.sql.pruning import Constraints
from perdure_server.admin.sql.scans import HostStores, Pacer, Rows, Scans

Fact = dict[str, Any]


class NodeTables:
    """Called on the loop when a query begins: what only the loop may read is copied then."""

    def __init__(self, host: Host, invoker: Invoker, metadata: Metadata) -> None:
        self._host = host
        self._invoker = invoker
        self._metadata = metadata

    def __call__(self, pacer: Pacer) -> Rows:
        schema = self._metadata.schema
        registered = {"sys_service": _services(schema), "sys_deployment": _deployments(schema)}
        scans = Scans(HostStores(self._host), self._invoker.attempts(), pacer)

        def rows(table: str, known: Constraints) -> Iterator[Any]:
            facts = registered.get(table)
            return scans.rows(table, known) if facts is None else iter(facts)

        return rows


def _services(schema: Schema) -> list[Fact]:
    return [
        {
            "name": service.name,
            "revision": service.revision,
            "public": service.public,
            "ty": KINDS[ServiceKind(service.kind)],
            "deployment_id": service.deployment_id,
        }
        for service in schema.services.values()
    ]


def _deployments(schema: Schema) -> list[Fact]:
    return [
        {
            "id": deployment.id,
            "ty": "http",
            "endpoint": deployment.uri if deployment.uri.count("/") > 2 else f"{deployment.uri}/",
            "created_at": deployment.created_at_ms,
            "min_service_protocol_version": deployment.min_protocol_version,
            "max_service_protocol_version": deployment.max_protocol_version,
            "services": list(deployment.services),
        }
        for deployment in schema.deployments.values()
    ]


def _fact(name: str) -> Callable[[Fact], Any]:
    return lambda fact: fact[name]


REGISTERED: dict[str, dict[str, Callable[[Fact], Any]]] = {
    "sys_service": {name: _fact(name) for name in ("name", "revision", "public", "ty", "deployment_id")},
    "sys_deployment": {
        name: _fact(name)
        for name in (
            "id",
            "ty",
            "endpoint",
            "created_at",
            "min_service_protocol_version",
            "max_service_protocol_version",
            "services",
        )
    },
}

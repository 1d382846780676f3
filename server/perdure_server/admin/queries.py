"""● core · What the admin API asks about invocations, and how such a question may look."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Protocol, TypeAlias

from perdure.protocol.ids import IdError, decode_invocation_id
from perdure_processor.model.ids import InvocationId, Millis
from perdure_processor.model.value import value
from perdure_server.admin.errors import invalid_field
from perdure_server.limits import INVOCATIONS_LISTED_DEFAULT, INVOCATIONS_LISTED_MAX

STATUSES = ("scheduled", "pending", "ready", "running", "backing-off", "suspended", "paused", "completed")


_FILTERS = ("service", "handler", "key", "status", "limit")

# One row of sys_invocation, or one of sys_journal: JSON values by column, nulls left out.
Row: TypeAlias = dict[str, Any]


class QueryUnavailable(Exception):
    """A partition that has to be asked cannot answer now; the message says which and why."""


@value
class InFlight:
    """The invocations that began at a deployment and have not ended."""

    by_service: dict[str, int]
    oldest_created_ms: Millis | None


class Queries(Protocol):
    """Reads over all partitions of the node; all raise QueryUnavailable."""

    async def get_invocation(self, invocation_id: bytes) -> tuple[Row, list[Row]] | None:
        """One invocation and its journal in order; None if there is no such invocation."""

    async def service_of(self, invocation_id: bytes) -> str | None:
        """The service that an invocation runs; None if there is no such invocation."""

    async def in_flight(self, deployment_id: str) -> InFlight:
        """What is pinned to a deployment and has not ended, of all partitions."""

    async def list_invocations(
        self, service: str | None, handler: str | None, key: str | None, status: str | None, limit: int
    ) -> list[Row]:
        """At most `limit` invocations that fit every filter that is not None."""


class SkipRefused(Exception):
    """The record cannot be skipped; the message says why and what can."""


class Partitions(Protocol):
    """What an operator sees of the partitions, and the one thing to be done about a stopped one."""

    def list_partitions(self) -> list[Row]:
        """Each partition of this node: how far it is, its leader's epoch, why it stopped."""

    async def skip_record(self, partition: int, offset: int) -> Row:
        """Go on without the record that stopped a partition. Raises SkipRefused; KeyError if there is no such one."""


@value
class InvocationFilter:
    service: str | None
    handler: str | None
    key: str | None
    status: str | None
    limit: int


def parse_invocation_id(text: str) -> InvocationId:
    """The id in a path; raises AdminError (400)."""
    try:
        return InvocationId(decode_invocation_id(text))
    except IdError as error:
        raise invalid_field("invocation_id", str(error)) from error


def parse_invocation_filter(parameters: Mapping[str, str]) -> InvocationFilter:
    """The filter of GET /invocations; raises AdminError (400) naming the parameter and what it may be."""
    for name in parameters:
        if name not in _FILTERS:
            raise invalid_field(name, f"there is no such query parameter; there are {', '.join(_FILTERS)}")
    status = parameters.get("status")
    if status is not None and status not in STATUSES:
        raise invalid_field("status", f"'{status}' is none of {', '.join(STATUSES)}")
    return InvocationFilter(
        parameters.get("service"),
        parameters.get("handler"),
        parameters.get("key"),
        status,
        _limit(parameters.get("limit")),
    )


def _limit(text: str | None) -> int:
    if text is None:
        return INVOCATIONS_LISTED_DEFAULT
    if not (text.isascii() and text.isdecimal() and len(text) <= 9 and 1 <= int(text) <= INVOCATIONS_LISTED_MAX):
        raise invalid_field("limit", f"'{text}' is not a whole number from 1 to {INVOCATIONS_LISTED_MAX}")
    return int(text)

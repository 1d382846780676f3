"""◐ shell · Where an operator's request goes, and what is said when it could not be asked at all."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol, TypeAlias

from perdure_processor.model.actions import Answer
from perdure_processor.model.commands import OperatorCommand
from perdure_processor.model.ids import Millis
from perdure_processor.model.results import RequestId
from perdure_server.admin.errors import AdminError
from perdure_server.ingress.requests import Overloaded, Unavailable

Make: TypeAlias = Callable[[RequestId, Millis], OperatorCommand]
Answered: TypeAlias = Answer | Unavailable | Overloaded


class Operator(Protocol):
    """The log of the partition that owns what the request is about."""

    async def operate(self, make: Make) -> Answered: ...


def not_asked(
    answer: Answered, crowded: str = "too many requests are under way already, try again later"
) -> AdminError:
    """The error for an answer that no verb gives: there was no room, or nobody who could answer."""
    match answer:
        case Overloaded():
            return AdminError(429, None, crowded)
        case Unavailable(reason=reason):
            return AdminError(503, None, f"Error when routing the request internally. Reason: {reason}")
        case _:
            raise AssertionError(f"{answer!r} answers no operator")

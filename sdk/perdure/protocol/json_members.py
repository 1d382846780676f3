"""● core · Reading JSON objects strictly: every member is known and of its kind, or one sentence says which is not."""

from __future__ import annotations

import enum
import json
import math
from collections.abc import Callable
from typing import Any, TypeVar

E = TypeVar("E", bound=enum.StrEnum)
T = TypeVar("T")


class Malformed(ValueError):
    """The document does not have the shape asked for; the text begins with the place."""


def load(body: bytes) -> Any:
    """The JSON value of UTF-8 text. Raises Malformed for anything that other JSON readers would refuse."""
    try:
        document = json.loads(body.decode(), parse_constant=_refuse_constant)
        if b"\\u" in body:
            # Half of a surrogate pair can be escaped, but is no text: it could be neither stored nor sent.
            json.dumps(document, ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:
        raise Malformed(f"not JSON: {error}") from error
    return document


class Members:
    """The members of one object; unknown ones are refused, null counts as absent."""

    def __init__(self, place: str, document: Any, known: frozenset[str]) -> None:
        if not isinstance(document, dict):
            raise Malformed(f"{place}: expected an object, found {_kind(document)}")
        for name in document:
            if name not in known:
                raise Malformed(f"{place}: unknown member '{name}'")
        self.place = place
        self._document = document

    def optional(self, name: str, read: Callable[[Any], T]) -> T | None:
        """The member as `read` gives it, or None."""
        value = self._document.get(name)
        if value is None:
            return None
        try:
            return read(value)
        except ValueError as error:
            raise Malformed(f"{self.place}: {name}: {error}") from error

    def required(self, name: str, read: Callable[[Any], T]) -> T:
        """The member as `read` gives it; its absence is an error."""
        value = self.optional(name, read)
        if value is None:
            raise Malformed(f"{self.place}: {name} is missing")
        return value


# --- readers: from any JSON value but null to a typed one, or ValueError -----------------------------------


def text(value: Any) -> str:
    if not isinstance(value, str):
        raise ValueError(f"expected a string, found {_kind(value)}")
    return value


def boolean(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"expected true or false, found {_kind(value)}")
    return value


def whole_number(low: int, high: int) -> Callable[[Any], int]:
    def read(value: Any) -> int:
        if not isinstance(value, int) or isinstance(value, bool):
            raise ValueError(f"expected a whole number, found {_kind(value)}")
        if not low <= value <= high:
            raise ValueError(f"expected a number from {low} to {high}, found {value}")
        return value

    return read


def positive_number(value: Any) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"expected a number, found {_kind(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if not 0 < number < math.inf:
        raise ValueError(f"expected a positive number, found {value}")
    return number


def choice(choices: type[E]) -> Callable[[Any], E]:
    def read(value: Any) -> E:
        for one in choices:
            if one.value == value:
                return one
        raise ValueError(f"expected {' or '.join(choices)}, found {value!r}")

    return read


def array(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ValueError(f"expected an array, found {_kind(value)}")
    return value


def mapping(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {_kind(value)}")
    return value


def string_map(value: Any) -> dict[str, str]:
    return {key: text(member) for key, member in mapping(value).items()}


def anything(value: Any) -> Any:
    return value


def _kind(value: Any) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "a boolean"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "an array"
        case _:
            return "an object"


def _refuse_constant(name: str) -> Any:
    raise ValueError(f"{name} is not JSON")

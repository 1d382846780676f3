"""● core · Kinds of settings: what text each takes, the value it means, and how that is written in TOML."""

from __future__ import annotations

import ipaddress
import json
import math
import re
from collections.abc import Callable, Mapping
from fractions import Fraction
from typing import Generic, Literal, TypeAlias, TypeVar

from perdure_processor.model.value import value
from perdure_server.durations import format_duration_ms, parse_duration_ms
from perdure_server.limits import FSYNC_INTERVAL_MS_MAX, NAME_LENGTH_MAX, RETRY_FACTOR_MAX

T = TypeVar("T")
Fsync: TypeAlias = Literal["always", "never"] | tuple[Literal["interval"], int]

UNITS: Mapping[str, int] = {
    "TiB": 1 << 40,
    "TB": 10**12,
    "GiB": 1 << 30,
    "GB": 10**9,
    "MiB": 1 << 20,
    "MB": 10**6,
    "KiB": 1 << 10,
    "KB": 10**3,
    "B": 1,
}

_UNIT_BY_LOWER_CASE = {name.lower(): size for name, size in UNITS.items()}
_SIZE = re.compile(r"([0-9]{1,20}(?:\.[0-9]{1,9})?)\s*([a-z]{0,3})", re.IGNORECASE | re.ASCII)
_WHOLE = re.compile(r"[0-9]{1,20}", re.ASCII)
_NAME = re.compile(rf"[A-Za-z0-9._-]{{1,{NAME_LENGTH_MAX}}}", re.ASCII)
_TRUE = ("true", "yes", "on", "1")
_FALSE = ("false", "no", "off", "0")


@value
class Kind(Generic[T]):
    """One kind of setting. `parse` raises ValueError for whatever is not `expected`.

    `expected` completes the sentence "expected …". `show` gives a TOML literal that is parsed to the same
    value. `toml_types` are the types that a file may use: text always, numbers and booleans where they
    cannot be misread."""

    expected: str
    parse: Callable[[str], T]
    show: Callable[[T], str]
    toml_types: tuple[type, ...] = (str,)


def parse_size(text: str) -> int:
    """'64KiB', '512 MB', '1.5GiB' or a bare number of bytes; raises ValueError."""
    match = _SIZE.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"not a size: {text!r}")
    number, unit = match.groups()
    size_of_unit = _UNIT_BY_LOWER_CASE.get(unit.lower() or "b")
    if size_of_unit is None:
        raise ValueError(f"unknown unit of size: {unit!r}")
    exact = Fraction(number) * size_of_unit
    if exact.denominator != 1:
        raise ValueError(f"not a whole number of bytes: {text!r}")
    return exact.numerator


def format_size(size: int) -> str:
    """The shortest exact spelling; the larger unit when two are as short."""
    spellings = [f"{size // unit}{name}" for name, unit in UNITS.items() if size % unit == 0 and size >= unit]
    return min(spellings, key=len, default="0B")


def quoted(text: str) -> str:
    """A TOML basic string. JSON's escapes are TOML's for everything that `_parse_text` lets through."""
    return json.dumps(text, ensure_ascii=False)


def choice(*words: str) -> Kind[str]:
    """Exactly one of some words, in any case."""

    def parse(text: str) -> str:
        if text.lower() not in words:
            raise ValueError(f"not one of {words}: {text!r}")
        return text.lower()

    return Kind("one of " + ", ".join(words), parse, quoted)


def whole_number(low: int, high: int, expected: str = "a whole number from {low} to {high}") -> Kind[int]:
    """Decimal digits, both ends included."""

    def parse(text: str) -> int:
        number = _parse_whole(text)
        if not low <= number <= high:
            raise ValueError(f"not in {low}..{high}: {number}")
        return number

    return Kind(expected.format(low=low, high=high), parse, str, (str, int))


def attempts() -> Kind[int | None]:
    """A number of attempts, the first one included; None is without end."""

    def parse(text: str) -> int | None:
        if text.lower() == "unlimited":
            return None
        number = _parse_whole(text)
        if not 1 <= number <= 0xFFFF_FFFF:
            raise ValueError(f"not a number of attempts: {number}")
        return number

    def show(number: int | None) -> str:
        return quoted("unlimited") if number is None else str(number)

    return Kind("a number of attempts, at least 1, or the word unlimited", parse, show, (str, int))


def factor() -> Kind[float]:
    """What each interval is multiplied with: below 1 it would shrink to nothing."""

    def parse(text: str) -> float:
        number = float(text)
        if not (math.isfinite(number) and 1.0 <= number <= RETRY_FACTOR_MAX):
            raise ValueError(f"not a factor: {text!r}")
        return number

    return Kind(f"a number from 1.0 to {RETRY_FACTOR_MAX}", parse, repr, (str, int, float))


def duration(low_ms: int = 0) -> Kind[int]:
    """Milliseconds, from humanised or ISO 8601 text."""

    def parse(text: str) -> int:
        duration_ms = parse_duration_ms(text)
        if duration_ms < low_ms:
            raise ValueError(f"too short: {text!r}")
        return duration_ms

    at_least = f", at least {format_duration_ms(low_ms)}" if low_ms else ""
    return Kind(
        f"a duration with its unit, such as 500ms, 10s, 1h 30m or PT10S{at_least}",
        parse,
        lambda duration_ms: quoted(format_duration_ms(duration_ms)),
    )


def size(high: int, low: int = 1) -> Kind[int]:
    """Bytes, from text with a unit or a bare number."""

    def parse(text: str) -> int:
        number = parse_size(text)
        if not low <= number <= high:
            raise ValueError(f"size out of range: {text!r}")
        return number

    limits = f"from {format_size(low)} to {format_size(high)}"
    return Kind(
        f"a size such as 64KiB, 32MiB or 512MB, {limits}",
        parse,
        lambda number: quoted(format_size(number)),
        (str, int),
    )


def optional(kind: Kind[T]) -> Kind[T | None]:
    """The same kind for a setting that may be left out; None is never written, and never shown."""

    def show(given: T | None) -> str:
        assert given is not None, "a setting that is not set has no literal"
        return kind.show(given)

    return Kind(kind.expected, kind.parse, show, kind.toml_types)


def _parse_whole(text: str) -> int:
    if _WHOLE.fullmatch(text.strip()) is None:
        raise ValueError(f"not a whole number: {text!r}")
    return int(text)


def _parse_flag(text: str) -> bool:
    word = text.strip().lower()
    if word not in _TRUE + _FALSE:
        raise ValueError(f"neither true nor false: {text!r}")
    return word in _TRUE


def _parse_text(text: str) -> str:
    if not text or not text.isprintable():
        raise ValueError(f"empty, or with control characters: {text!r}")
    return text


def _parse_name(text: str) -> str:
    # Names travel in request headers and in the log, so they are held to what both carry unquoted.
    if _NAME.fullmatch(text) is None:
        raise ValueError(f"not a name: {text!r}")
    return text


def _parse_fsync(text: str) -> Fsync:
    word, colon, interval = text.strip().lower().partition(":")
    if word == "interval" and colon:
        interval_ms = _parse_whole(interval.removesuffix("ms"))
        if not 1 <= interval_ms <= FSYNC_INTERVAL_MS_MAX:
            raise ValueError(f"interval out of range: {text!r}")
        return ("interval", interval_ms)
    if word == "always" and not colon:
        return "always"
    if word == "never" and not colon:
        return "never"
    raise ValueError(f"not a way to sync: {text!r}")


def _show_fsync(fsync: Fsync) -> str:
    return quoted(fsync if isinstance(fsync, str) else f"interval:{fsync[1]}")


PATH: Kind[str] = Kind("a path", _parse_text, quoted)
NAME: Kind[str] = Kind(f"a name of letters, digits, '.', '_' and '-', at most {NAME_LENGTH_MAX}", _parse_name, quoted)
IP_ADDRESS: Kind[str] = Kind(
    "an IP address such as 127.0.0.1, 0.0.0.0 or ::1",
    lambda text: str(ipaddress.ip_address(text.strip())),
    quoted,
)
BOOLEAN: Kind[bool] = Kind("true or false", _parse_flag, lambda given: "true" if given else "false", (str, bool))
PORT: Kind[int] = whole_number(0, 65535, "a port number from {low} to {high}, where 0 lets the system choose")
FSYNC: Kind[Fsync] = Kind(
    f"always, never, or interval:MS with 1 to {FSYNC_INTERVAL_MS_MAX} milliseconds", _parse_fsync, _show_fsync
)

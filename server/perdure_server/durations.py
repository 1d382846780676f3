"""● core · Durations and times as people and clients write them: parse and format."""

from __future__ import annotations

import datetime
import re

from perdure_server.limits import DURATION_MS_MAX, DURATION_TEXT_LENGTH_MAX

_NS_PER_MS = 1_000_000
_SECOND = 1_000_000_000
_MINUTE = 60 * _SECOND
_HOUR = 60 * _MINUTE
_DAY = 24 * _HOUR
_WEEK = 7 * _DAY

_UNIT_NAMES: dict[int, str] = {
    _WEEK: "weeks week wks wk w",
    _DAY: "days day d",
    _HOUR: "hours hour hrs hr h",
    _MINUTE: "minutes minute mins min m",
    _SECOND: "seconds second secs sec s",
    _NS_PER_MS: "milliseconds millisecond millis milli msecs msec ms",
    1_000: "microseconds microsecond micros micro usecs usec us µs μs",
    1: "nanoseconds nanosecond nanos nano nsecs nsec ns",
}
_NS_OF_UNIT = {name: ns for ns, names in _UNIT_NAMES.items() for name in names.split()}
_VARIABLE_UNITS = frozenset(["years", "year", "yrs", "yr", "y", "months", "month", "mos", "mo"])

_PART = re.compile(r"([0-9]+)(?:[.,]([0-9]+))?\s*([a-zµμ]+)\s*")
_SEPARATOR = re.compile(r",\s*")
_ISO = re.compile(
    r"P(?:([0-9]+)Y)?(?:([0-9]+)M)?(?:([0-9.,]+)W)?(?:([0-9.,]+)D)?"
    r"(T(?:([0-9.,]+)H)?(?:([0-9.,]+)M)?(?:([0-9.,]+)S)?)?",
    re.IGNORECASE,
)
_ISO_NUMBER = re.compile(r"([0-9]+)(?:[.,]([0-9]+))?")

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_LAST_MS = (datetime.datetime.max.replace(tzinfo=datetime.UTC) - _EPOCH) // datetime.timedelta(milliseconds=1)


class DurationError(ValueError):
    """The text is no duration; the message says why, for the person who wrote it."""


def parse_duration_ms(text: str) -> int:
    """Milliseconds of `10s`, `1h 30m`, `60 sec`, `5d` or of ISO 8601 `PT10S`; raises DurationError.

    Parts of a millisecond count as a whole one, so that nothing comes earlier than asked."""
    text = text.strip()
    if not text:
        raise DurationError("it is empty")
    if len(text) > DURATION_TEXT_LENGTH_MAX:
        raise DurationError(f"it is longer than {DURATION_TEXT_LENGTH_MAX} characters")
    if text[0] == "-":
        raise DurationError(f"'{text}' is negative")
    text = text.removeprefix("+")
    nanoseconds = _parse_iso(text) if text[:1] in ("P", "p") else _parse_humanised(text)
    milliseconds = -(-nanoseconds // _NS_PER_MS)
    if milliseconds > DURATION_MS_MAX:
        raise DurationError(f"'{text}' is longer than the maximum of {DURATION_MS_MAX // 86_400_000} days")
    return milliseconds


def _parse_humanised(text: str) -> int:
    if text.isdecimal():
        raise DurationError(f"'{text}' has no unit; write for example '{text}s' or 'PT{text}S'")
    total, position, last_unit_ns = 0, 0, _WEEK + 1
    while position < len(text):
        part = _PART.match(text, position)
        if part is None:
            raise DurationError(f"'{text}' is neither like '1h 30m' nor like 'PT1H30M'")
        whole, fraction, unit = part.groups()
        if unit in _VARIABLE_UNITS:
            raise DurationError(f"'{text}' uses years or months, whose lengths vary; use days")
        unit_ns = _NS_OF_UNIT.get(unit)
        if unit_ns is None:
            raise DurationError(f"'{text}' has the unknown unit '{unit}'")
        if unit_ns >= last_unit_ns:
            raise DurationError(f"'{text}' must go from larger to smaller units, each once")
        total += _nanoseconds(whole, fraction, unit_ns)
        last_unit_ns, position = unit_ns, part.end()
        separator = _SEPARATOR.match(text, position)
        if separator is not None and separator.end() < len(text):
            position = separator.end()
    return total


def _parse_iso(text: str) -> int:
    found = _ISO.fullmatch(text)
    if found is None:
        raise DurationError(f"'{text}' is not an ISO 8601 duration such as 'PT10S'")
    years, months, weeks, days, time, hours, minutes, seconds = found.groups()
    if years is not None or months is not None:
        raise DurationError(f"'{text}' uses years or months, whose lengths vary; use days")
    parts = [(weeks, _WEEK), (days, _DAY), (hours, _HOUR), (minutes, _MINUTE), (seconds, _SECOND)]
    given = [(number, unit_ns) for number, unit_ns in parts if number is not None]
    if not given or (time is not None and len(time) == 1):
        raise DurationError(f"'{text}' is not an ISO 8601 duration such as 'PT10S'")
    total = 0
    for number, unit_ns in given:
        parsed = _ISO_NUMBER.fullmatch(number)
        if parsed is None or (parsed.group(2) is not None and unit_ns != given[-1][1]):
            raise DurationError(f"'{text}': only the last number may have a fraction")
        total += _nanoseconds(parsed.group(1), parsed.group(2), unit_ns)
    return total


def _nanoseconds(whole: str, fraction: str | None, unit_ns: int) -> int:
    total = int(whole) * unit_ns
    if fraction is not None:
        total += -(-int(fraction) * unit_ns // 10 ** len(fraction))
    return total


def format_duration_ms(milliseconds: int) -> str:
    """The humanised form of the admin API: `1d`, `1h 30m`, `500ms`, `0s`."""
    assert milliseconds >= 0, milliseconds
    parts = []
    for unit_ms, unit in ((86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1000, "s"), (1, "ms")):
        count, milliseconds = divmod(milliseconds, unit_ms)
        if count:
            parts.append(f"{count}{unit}")
    return " ".join(parts) or "0s"


def format_iso_duration_ms(milliseconds: int) -> str:
    """The ISO form of query results: `PT86400S`, `PT0.5S`, zero is `P0D`."""
    assert milliseconds >= 0, milliseconds
    if milliseconds == 0:
        return "P0D"
    seconds, rest = divmod(milliseconds, 1000)
    fraction = f".{rest:03d}".rstrip("0") if rest else ""
    return f"PT{seconds}{fraction}S"


def format_time_offset(epoch_ms: int) -> str:
    """RFC 3339 with `+00:00`, milliseconds only where there are any: the form of `idempotency-expires`."""
    return f"{_seconds_text(epoch_ms)}{_fraction_ms(epoch_ms)}+00:00"


def format_time_nanos(epoch_ms: int) -> str:
    """RFC 3339 with `Z` and nanoseconds, where there is a fraction: the form of REST answers."""
    fraction = _fraction_ms(epoch_ms)
    return f"{_seconds_text(epoch_ms)}{fraction and fraction + '000000'}Z"


def format_time_ms(epoch_ms: int) -> str:
    """RFC 3339 with `Z` and always milliseconds: the form of query results."""
    return f"{_seconds_text(epoch_ms)}.{_clamp(epoch_ms) % 1000:03d}Z"


def _clamp(epoch_ms: int) -> int:
    # A retention or a wake-up time of a handler's own choosing may lie beyond the last year there is.
    return min(max(epoch_ms, 0), _LAST_MS)


def _fraction_ms(epoch_ms: int) -> str:
    rest = _clamp(epoch_ms) % 1000
    return f".{rest:03d}" if rest else ""


def _seconds_text(epoch_ms: int) -> str:
    moment = _EPOCH + datetime.timedelta(seconds=_clamp(epoch_ms) // 1000)
    return moment.strftime("%Y-%m-%dT%H:%M:%S") if moment.year >= 1000 else moment.isoformat()[:19]

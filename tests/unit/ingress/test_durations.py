"""Durations and times as people write them."""

from __future__ import annotations

import pytest

from perdure_server import durations
from perdure_server.durations import DurationError, parse_duration_ms
from perdure_server.limits import DURATION_MS_MAX


@pytest.mark.parametrize(
    ("text", "milliseconds"),
    [
        ("10s", 10_000),
        ("60 sec", 60_000),
        ("1h 30m", 5_400_000),
        ("1h30m", 5_400_000),
        ("1 hour, 30 minutes", 5_400_000),
        ("5d", 5 * 86_400_000),
        ("2w", 14 * 86_400_000),
        ("500ms", 500),
        ("1.5s", 1_500),
        ("0s", 0),
        ("1us", 1),  # never earlier than asked
        ("99999999s", 99_999_999_000),
        ("PT10S", 10_000),
        ("PT0.5S", 500),
        ("PT0,5S", 500),
        ("pt1h30m", 5_400_000),
        ("P1DT1M", 86_460_000),
        ("P2W", 14 * 86_400_000),
        ("PT86400S", 86_400_000),
        ("P0D", 0),
        ("P365000D", DURATION_MS_MAX),
    ],
)
def test_durations_that_are_understood(text: str, milliseconds: int) -> None:
    assert parse_duration_ms(text) == milliseconds


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "empty"),
        ("  ", "empty"),
        ("0", "no unit"),
        ("10", "no unit"),
        ("-5s", "negative"),
        ("-PT5S", "negative"),
        ("PT-5S", "ISO 8601"),
        ("abc", "neither"),
        ("?", "neither"),
        ("10 parsecs", "unknown unit"),
        ("1s 1h", "larger to smaller"),
        ("1s 1s", "larger to smaller"),
        ("1s 2", "neither"),
        ("1y", "years or months"),
        ("P1Y", "years or months"),
        ("P1M", "years or months"),
        ("P", "ISO 8601"),
        ("PT", "ISO 8601"),
        ("P1DT", "ISO 8601"),
        ("PT1.5H3M", "only the last number"),
        ("PT1..5S", "only the last number"),
        ("365001d", "longer than the maximum"),
        ("9" * 99 + "s", "longer than the maximum"),
        ("9" * 200 + "s", "characters"),
        ("١s", "neither"),  # a digit, but not one of ours
    ],
)
def test_durations_that_are_refused_with_the_reason(text: str, reason: str) -> None:
    with pytest.raises(DurationError, match=reason):
        parse_duration_ms(text)


@pytest.mark.parametrize(
    ("milliseconds", "humanised", "iso"),
    [
        (0, "0s", "P0D"),
        (500, "500ms", "PT0.5S"),
        (86_400_000, "1d", "PT86400S"),
        (5_400_000, "1h 30m", "PT5400S"),
        (1_001, "1s 1ms", "PT1.001S"),
    ],
)
def test_both_written_forms_read_back(milliseconds: int, humanised: str, iso: str) -> None:
    assert durations.format_duration_ms(milliseconds) == humanised
    assert durations.format_iso_duration_ms(milliseconds) == iso
    assert parse_duration_ms(humanised) == parse_duration_ms(iso) == milliseconds


def test_times_in_their_three_forms() -> None:
    moment = 1_795_487_064_494
    assert durations.format_time_ms(moment) == "2026-11-24T02:24:24.494Z"
    assert durations.format_time_nanos(moment) == "2026-11-24T02:24:24.494000000Z"
    assert durations.format_time_offset(moment) == "2026-11-24T02:24:24.494+00:00"
    assert durations.format_time_offset(moment - 494) == "2026-11-24T02:24:24+00:00"
    assert durations.format_time_nanos(moment - 494) == "2026-11-24T02:24:24Z"


def test_a_time_beyond_the_last_year_is_shown_as_the_last_moment() -> None:
    assert durations.format_time_ms(2**64 - 1) == "9999-12-31T23:59:59.999Z"

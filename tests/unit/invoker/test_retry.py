"""When a failed attempt is tried again: 1.7's defaults, whatever a policy says, and no number that does not fit."""

from __future__ import annotations

import pytest

from perdure_processor.invoker.retry import after_failure, delay_ms
from perdure_processor.model import codec
from perdure_processor.model.effects import Kill, Pause, RetryAt
from perdure_processor.model.ids import Millis
from perdure_processor.model.schema import RetryPolicy
from perdure_processor.storage.keys import DEADLINE_MAX

DEFAULT = RetryPolicy(500, 2.0, 60_000, 70, kill_on_max_attempts=False)
NOW = Millis(1_000)


def policy(initial: int = 500, factor: float = 2.0, longest: int = 60_000, attempts: int | None = None) -> RetryPolicy:
    return RetryPolicy(initial, factor, longest, attempts, kill_on_max_attempts=True)


def test_delays_double_up_to_the_longest() -> None:
    assert [delay_ms(DEFAULT, failures, 0.0) for failures in range(1, 10)] == [
        *(500, 1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000)
    ]


def test_each_delay_is_lengthened_by_up_to_30_percent() -> None:
    assert delay_ms(DEFAULT, 1, 0.999999) == 649
    assert delay_ms(DEFAULT, 20, 0.5) == 69_000


@pytest.mark.parametrize(
    ("factor", "expected"),
    [(1e308, 60_000), (float("inf"), 60_000), (1.0, 500), (0.5, 0), (0.0, 0), (float("nan"), 60_000)],
)
def test_no_factor_is_too_large_or_too_small(factor: float, expected: int) -> None:
    assert delay_ms(policy(factor=factor), 70, 0.0) == expected


def test_a_first_delay_above_the_longest_is_cut() -> None:
    assert delay_ms(policy(initial=90_000), 1, 0.0) == 60_000


def test_the_attempts_of_a_policy_include_the_first() -> None:
    two = policy(attempts=2)
    assert after_failure(two, 1, None, NOW, 0.0) == RetryAt(Millis(1_500), counted=True)
    assert after_failure(two, 2, None, NOW, 0.0) == Kill()


def test_by_default_the_seventieth_failure_pauses() -> None:
    assert after_failure(DEFAULT, 69, None, NOW, 0.0) == RetryAt(Millis(61_000), counted=True)
    assert after_failure(DEFAULT, 70, None, NOW, 0.0) == Pause()


def test_without_a_limit_there_is_always_a_next_attempt() -> None:
    assert after_failure(policy(), 10**9, None, NOW, 0.0) == RetryAt(Millis(61_000), counted=True)


def test_a_delay_that_the_handler_named_is_taken_as_it_is_and_not_counted() -> None:
    assert after_failure(policy(attempts=1), 1, 0, NOW, 0.9) == RetryAt(NOW, counted=False)
    assert after_failure(DEFAULT, 70, 123, NOW, 0.9) == RetryAt(Millis(1_123), counted=False)


@pytest.mark.parametrize("asked", [(1 << 64) - 1, None])
def test_no_time_is_so_far_that_it_cannot_be_stored(asked: int | None) -> None:
    then = after_failure(policy(initial=1 << 63, longest=1 << 63), 1, asked, NOW, 0.9)
    assert then == RetryAt(Millis(DEADLINE_MAX), counted=asked is None)
    assert codec.decode(codec.encode(then)) == then

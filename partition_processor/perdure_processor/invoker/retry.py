"""● core · When a failed attempt is tried again."""

from __future__ import annotations

from perdure_processor.model.effects import AfterFailure, Kill, Pause, RetryAt
from perdure_processor.model.ids import Millis
from perdure_processor.model.limits import RETRY_JITTER
from perdure_processor.model.schema import RetryPolicy
from perdure_processor.storage.keys import DEADLINE_MAX

_DOUBLINGS_MAX = 64  # enough for a factor of 2 to take a millisecond to the year 584 million


def delay_ms(policy: RetryPolicy, failures: int, jitter: float) -> int:
    """The pause after the `failures`-th counted failure (1, 2, …); jitter in [0, 1) lengthens it by up to 30 %."""
    assert failures >= 1
    pause = float(policy.initial_interval_ms)
    # Multiplied, not raised: a power that is too large for a float is an error, a product is infinite.
    for _ in range(min(failures - 1, _DOUBLINGS_MAX)):
        pause *= policy.factor
    if not pause < policy.max_interval_ms:
        pause = policy.max_interval_ms
    return int(pause * (1 + RETRY_JITTER * jitter))


def after_failure(
    policy: RetryPolicy, failures: int, asked_delay_ms: int | None, now_ms: Millis, jitter: float
) -> AfterFailure:
    """What follows the `failures`-th counted failure, this one included. A delay named by the SDK is not counted."""
    if asked_delay_ms is not None:
        return RetryAt(Millis(min(now_ms + asked_delay_ms, DEADLINE_MAX)), counted=False)
    if policy.max_attempts is not None and failures >= policy.max_attempts:
        return Kill() if policy.kill_on_max_attempts else Pause()
    return RetryAt(Millis(min(now_ms + delay_ms(policy, failures, jitter), DEADLINE_MAX)), counted=True)

"""A state machine to talk to; whatever a test did is applied again from nothing afterwards."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from support.env import Env


@pytest.fixture
def env() -> Iterator[Env]:
    """The only partition there is."""
    env = Env()
    yield env
    env.check_replay()


@pytest.fixture
def one_of_two() -> Iterator[Env]:
    """Partition 0 of two: half of all keys live elsewhere."""
    env = Env(0, 2)
    yield env
    env.check_replay()

"""A rule that can be taken out without anybody noticing is not tested: here each is, and somebody does."""

from __future__ import annotations

from pathlib import Path

import pytest

from simulation.faults import Options
from simulation.mutations import MUTATIONS, Mutation, overlay, search
from simulation.run import run_options


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_a_rule_taken_out_is_found(mutation: Mutation, tmp_path: Path) -> None:
    """By a seed on which the whole code has nothing to hide."""
    seed, said = search(mutation, overlay(mutation, tmp_path))
    print(f"seed {seed} {mutation.weather}\n{said}")
    intact = run_options(Options.of(seed).changed(mutation.weather.split()))
    assert intact.ok, intact.violations

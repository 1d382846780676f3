"""200 seeds: a hundred that never change, a hundred drawn from the commit, and those that once failed."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

from simulation.run import Report, run_seed

HERE = Path(__file__).parent
FIXED = 100
DRAWN = 100


def seeds() -> list[int]:
    once_failed = [int(line.split()[0]) for line in (HERE / "seeds.txt").read_text().splitlines() if line[:1].isdigit()]
    drawn = [int(hashlib.sha256(f"{_commit()}/{number}".encode()).hexdigest()[:8], 16) for number in range(DRAWN)]
    return list(dict.fromkeys([*once_failed, *range(FIXED), *drawn]))


def _commit() -> str:
    """The commit under test; without git every run draws the same."""
    try:
        return subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=HERE, capture_output=True, text=True, check=True
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return "no commit"


@pytest.mark.parametrize("seed", seeds())
def test_nothing_is_lost_or_done_twice(seed: int, reports: list[Report]) -> None:
    report = run_seed(seed)
    reports.append(report)
    assert report.ok, "\n".join([f"make sim SEED={seed}", report.options.describe(), *report.violations])


def test_a_seed_has_one_trace() -> None:
    """In this process and in one that hashes strings otherwise."""
    here = run_seed(7)
    assert here.digest == run_seed(7).digest
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(HERE.parent)}
    elsewhere = subprocess.run(
        [sys.executable, "-m", "simulation", "7"], env=environment, capture_output=True, text=True, check=True
    )
    assert f"trace {here.digest}" in elsewhere.stdout
    assert run_seed(8).digest != here.digest

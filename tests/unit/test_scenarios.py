"""Scenario pages that a reviewer can judge: tests/golden/scenarios. After a change: pytest --update-golden."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from support.golden import GOLDEN
from support.scenarios import Scenario

PAGES = sorted((GOLDEN / "scenarios").glob("*.txt"))


@pytest.mark.parametrize("page", PAGES, ids=[page.stem for page in PAGES])
def test_a_page_reads_as_it_happens(page: Path, golden: Callable[[str, str], None]) -> None:
    golden(f"scenarios/{page.name}", Scenario().run(page.read_text()))


def test_there_are_pages() -> None:
    assert len(PAGES) >= 5

"""The plugin that makes an unannounced skip fail the run."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from support.skips import announced, is_announced

TESTS = Path(__file__).resolve().parent.parent
SKIPPING = "import pytest\n\ndef test_runs():\n    pass\n\ndef test_skips():\n    pytest.skip('no such tool')\n"


def run(directory: Path, listed: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """pytest on one file with a skip in it, with `listed` as the skip list."""
    (directory / "test_it.py").write_text(SKIPPING)
    (directory / "skips.txt").write_text(listed)
    (directory / "with_list.py").write_text(
        "import pathlib, support.skips\nsupport.skips.LIST = pathlib.Path(__file__).parent / 'skips.txt'\n"
    )
    argv = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-p", "with_list", "-p", "support.skips"]
    env = {**os.environ, "PYTHONPATH": f"{TESTS}{os.pathsep}{directory}", "PYTHONDONTWRITEBYTECODE": "1"}
    return subprocess.run([*argv, *arguments], cwd=directory, env=env, capture_output=True, text=True)


def test_an_announced_skip_passes(tmp_path: Path) -> None:
    done = run(tmp_path, "test_it.py::test_skips -- the tool may be missing\n")
    assert done.returncode == 0, done.stdout
    assert "1 passed, 1 skipped" in done.stdout


def test_an_unannounced_skip_fails_the_run_and_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, "test_it.py::test_other -- another one\n")
    assert done.returncode == 1
    assert "SKIP NOT ANNOUNCED in tests/skips.txt: test_it.py::test_skips" in done.stdout


def test_no_skips_takes_no_excuse(tmp_path: Path) -> None:
    assert run(tmp_path, "* -- anything\n", "--no-skips").returncode == 1


def test_brackets_of_a_node_id_are_meant_literally() -> None:
    pairs = announced("# comment\n\ntests/a.py::test[x-*] -- why\n")
    assert is_announced("tests/a.py::test[x-1]", pairs)
    assert not is_announced("tests/a.py::testx", pairs)


def test_a_skip_without_a_reason_is_refused() -> None:
    with pytest.raises(ValueError, match="no reason given"):
        announced("tests/a.py::test\n")

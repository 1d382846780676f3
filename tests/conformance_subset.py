"""Run the part of the conformance suite that this release answers for: tests/conformance-deselect.txt says which.

The suite itself is not touched. It starts `perdure server` of this environment unless SERVER_CMD names another
server (then SERVER_SETTINGS says how that one takes its settings). Every failure and every skip fails the run.
Arguments go to pytest:

    python tests/conformance_subset.py -k ordering
    python tests/conformance_subset.py --sdk typescript
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parent
SUITE = TESTS / "conformance"
LIST = TESTS / "conformance-deselect.txt"


def selection(text: str) -> tuple[list[str], list[str]]:
    """The files to run and the tests in them to leave out; a name that the suite does not have is an error."""
    files, left_out = [], []
    for line in text.splitlines():
        word, _, name = line.strip().partition(" ")
        if word == "file":
            files.append(name)
        elif word == "not":
            left_out.append(name)
        elif word and not word.startswith("#"):
            raise ValueError(f"conformance-deselect.txt: {line}")
    for name in left_out:
        file, _, test = name.partition("::")
        if file not in files or f"def {test}(" not in (SUITE / file).read_text():
            raise ValueError(f"conformance-deselect.txt: the suite has no {name}")
    return files, left_out


def main(arguments: Sequence[str]) -> int:
    files, left_out = selection(LIST.read_text())
    perdure = shlex.quote(str(Path(sys.executable).parent / "perdure"))
    os.environ.setdefault("SERVER_CMD", f"{perdure} server --data-dir {{base_dir}}")
    os.environ.setdefault("SERVER_SETTINGS", str(SUITE / "settings" / "perdure.json"))
    os.chdir(SUITE)
    # The suite imports its own `harness`; `support` is where the plugin that counts skips lives.
    sys.path[:0] = [str(SUITE), str(TESTS)]
    plugins = ["-p", "support.skips", "--no-skips"]
    return int(pytest.main([*plugins, *files, *(f"--deselect={name}" for name in left_out), *arguments]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))

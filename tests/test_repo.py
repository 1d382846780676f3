"""The repository as strangers find it: nothing in it speaks of one person's machine, and its papers agree."""

from __future__ import annotations

import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import conformance_subset

ROOT = Path(__file__).resolve().parent.parent
# Besides the rooms, deploy, benchmarks and tests only paperwork stands at the top.
TOP = {
    *("README.md", "pyproject.toml", "sdk", "partition_processor", "server", "deploy", "benchmarks", "tests"),
    *("LICENSE", "CHANGELOG.md", "ARCHITECTURE.md", "Makefile", ".ci", ".gitignore"),
}
# Written in pieces, so that this file does not accuse itself.
FORBIDDEN = {
    "a path of one machine": re.compile(r"(?<![\w.$}])/(?:home|root|Users|work|opt)/(?=[\w.])|/tmp/(?=[a-z]/)"),
    "a package registry's host": re.compile(
        r"https?://[\w.-]*(?:pypi\.org|python" + r"hosted\.org|npm" + r"js\.org|artifactory|nexus)[\w./-]*"
    ),
    "a private index": re.compile(r"--(?:extra-)?index" + r"-url|--find" + r"-links|\.npm" + r"rc\b"),
    "an unfinished merge": re.compile(r"^(?:<{7}|>{7}) ", re.MULTILINE),
}


def files() -> list[str]:
    """What is, or is about to be, in the repository."""
    listing = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    done = subprocess.run(listing, cwd=ROOT, capture_output=True, text=True, check=True)
    return [name for name in done.stdout.split("\0") if name and (ROOT / name).is_file()]


def offences(text: str) -> Iterator[str]:
    for what, pattern in FORBIDDEN.items():
        for match in pattern.finditer(text):
            yield f"line {text.count(chr(10), 0, match.start()) + 1}: {what}: {match.group()}"


def test_no_file_speaks_of_one_machine() -> None:
    found = []
    for name in files():
        try:
            text = (ROOT / name).read_text()
        except UnicodeDecodeError:
            continue  # golden data is bytes
        found += [f"{name}: {offence}" for offence in offences(text)]
    assert not found, "\n".join(["", *found])


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("cp x /home" + "/ada/y", "a path of one machine"),
        ("see https://pypi" + ".org/simple", "a package registry's host"),
        ("pip install --index" + "-url x", "a private index"),
        ("<<<<<<" + "< ours", "an unfinished merge"),
    ],
)
def test_each_offence_is_noticed(text: str, what: str) -> None:
    assert what in "".join(offences(text))


def test_only_rooms_and_paperwork_at_the_top() -> None:
    assert {name.partition("/")[0] for name in files()} - TOP == set()


def test_the_conformance_list_names_what_the_suite_has() -> None:
    files, left_out = conformance_subset.selection(conformance_subset.LIST.read_text())
    assert (len(files), len(left_out)) == (19, 0)
    with pytest.raises(ValueError, match="the suite has no"):
        conformance_subset.selection("file test_run.py\nnot test_run.py::test_that_is_gone\n")


def test_the_changelog_begins_with_the_version_that_is_built() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    released = re.findall(r"^## \[(\d[^\]]*)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert released[0] == version


def test_the_links_between_our_papers_lead_somewhere() -> None:
    broken = []
    for name in files():
        if not name.endswith(".md") or name.startswith("tests/conformance/"):
            continue
        for target in re.findall(r"\]\((?!https?:|#|mailto:)([^)#\s]+)", (ROOT / name).read_text()):
            if not ((ROOT / name).parent / target).exists():
                broken.append(f"{name}: {target}")
    assert not broken, "\n".join(["", *broken])


def test_architecture_has_a_row_for_every_file() -> None:
    paper = (ROOT / "ARCHITECTURE.md").read_text()
    rooms = ("sdk/perdure", "partition_processor/perdure_processor", "server/perdure_server")
    wrong = []
    for room in rooms:
        _, found, table = paper.partition(f"**`{room}`**")
        assert found, f"no table for {room}"
        rows = dict(
            re.findall(r"^\| `([\w/]+\.py)` \| ?([●◐○]?) ?\|", table.partition("\n**`")[0].partition("\n## ")[0], re.M)
        )
        marks = {}
        for path in sorted((ROOT / room).rglob("*.py")):
            text = path.read_text()
            if text.strip():  # an empty __init__.py needs no words
                mark = re.match(r'"""([●◐○]) ', text)
                marks[path.relative_to(ROOT / room).as_posix()] = mark[1] if mark else ""
        wrong += [f"{room}: {name} {mark}" for name, mark in sorted(rows.items() ^ marks.items())]
    assert not wrong, "\n".join(["the tables of ARCHITECTURE.md and the files differ:", *wrong])

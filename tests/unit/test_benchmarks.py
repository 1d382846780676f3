"""What the benchmarks conclude from what they see: whole answers, cells, and the verdict on a cell."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parent.parent.parent / "benchmarks"


def load_script(name: str) -> ModuleType:
    """A benchmark is a script, not a package; its module lives under a name of its own."""
    spec = importlib.util.spec_from_file_location(f"benchmarks_{name}", BENCHMARKS / f"{name}.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


load = load_script("load")
compare = load_script("compare")


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 5\r\n\r\n12345",
        b"HTTP/1.1 202 Accepted\r\nContent-Length: 2\r\nx-restate-id: a\r\n\r\n{}",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\n12345\r\n0\r\n\r\n",
    ],
)
def test_an_answer_is_whole_with_its_last_byte_and_not_before(answer: bytes) -> None:
    assert load.is_whole(answer)
    assert not any(load.is_whole(answer[:end]) for end in range(len(answer)))


def test_an_error_ends_the_measurement() -> None:
    with pytest.raises(load.Failed, match="503"):
        load.is_whole(b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n")


def test_cells_are_named_by_patterns() -> None:
    assert len(compare.cells_of(["*"])) == 18
    assert [cell.name for cell in compare.cells_of(["greet:*:python"])] == [f"greet:{n}:python" for n in (1, 16, 64)]
    assert [cell.name for cell in compare.cells_of(["greet:5:python"])] == ["greet:5:python"]
    with pytest.raises(SystemExit, match="no cell is called"):
        compare.cells_of(["greeting:1:python"])


def turn(per_second: float, p50_us: float) -> Any:
    return compare.Turn(per_second, p50_us, 1.0, 1.0, 1.0, 1.0, 1.0, {})


def test_a_cell_is_judged_by_the_ratios_within_its_pairs() -> None:
    cell = compare.Cell("greet", 1, "python")
    # The machine slows down from pair to pair, both servers alike: the ratios do not see it.
    cell.turns = {
        "restate": [turn(100, 1000), turn(50, 2000), turn(10, 9000)],
        "perdure": [turn(200, 500), turn(100, 1000), turn(20, 4500)],
    }
    assert cell.ratios("per_second") == [2, 2, 2]
    assert list(compare.below_the_bar([cell])) == []

    cell.turns["perdure"] = [turn(140, 700), turn(70, 1400), turn(11, 6300)]
    assert list(compare.below_the_bar([cell])) == [
        "greet:1:python: throughput 1.40x, the bar is 1.5x",
        "greet:1:python: one pair has 1.10x, the bar is 1.2x",
        "greet:1:python: p50 0.70x, the bar is 0.67x",
    ]

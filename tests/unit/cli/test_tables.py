"""Tables line up whatever is in them."""

from __future__ import annotations

from perdure_server.cli.tables import details, table


def test_columns_are_as_wide_as_their_widest_cell() -> None:
    assert table(("A", "LONG"), [("wide cell", 1), (None, True)]) == "A          LONG\nwide cell  1\n-          yes"


def test_wide_and_combining_characters_are_counted_as_a_terminal_shows_them() -> None:
    lines = table(("K", "V"), [("日本", "x"), ("e\u0301a", "x"), ("abcd", "x")]).splitlines()
    assert lines[1:] == ["日本  x", "e\u0301a    x", "abcd  x"]


def test_a_line_break_does_not_break_the_table() -> None:
    assert table(("K",), [("a\nb\tc",)]) == "K\na\\nb\\tc"


def test_details_leave_out_what_is_not_there() -> None:
    assert details([("ID", "x"), ("Gone", None), ("Public", False)]) == "ID:      x\nPublic:  no"
    assert details([]) == ""

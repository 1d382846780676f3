"""What a filter says for certain: read right, or not at all."""

from __future__ import annotations

import pyarrow.compute as pc
import pytest

from perdure_server.admin.sql.pruning import constraints

ID, KEY, N = pc.field("id"), pc.field("target_service_key"), pc.field("n")


@pytest.mark.parametrize(
    ("expression", "known"),
    [
        (ID == "inv_1", {"id": ["inv_1"]}),
        ((ID == "a") & (N > 3), {"id": ["a"]}),
        ((N > 3) & (ID == "a"), {"id": ["a"]}),
        ((ID == "a") | (ID == "b"), {"id": ["a", "b"]}),
        (((ID == "a") | (ID == "b")) & (KEY == "k"), {"id": ["a", "b"], "target_service_key": ["k"]}),
        ((ID == "a") | (N > 3), {}),
        ((ID == "a") | (KEY == "k"), {}),
        (~(ID == "a"), {}),
        (ID != "a", {}),
        (ID.is_null(), {}),
        (N == 7, {"n": ["7"]}),
        (N > 3, {}),
    ],
    ids=str,
)
def test_of_each_form(expression: object, known: dict[str, list[str]]) -> None:
    assert constraints(str(expression)) == known


@pytest.mark.parametrize("key", ['a"b', "a\\b", "(", ") or (", 'x") and (id == "y', "é", "", " a "])
def test_a_value_is_itself_or_nothing(key: str) -> None:
    found = constraints(str((key == KEY) & (N > 3)))
    assert found in ({}, {"target_service_key": [key]})


def test_nothing_of_what_is_no_filter() -> None:
    assert constraints("") == {}
    assert constraints("((((") == {}

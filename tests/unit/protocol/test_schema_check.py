"""Which JSON values pass for a JSON Schema that stands alone."""

from __future__ import annotations

from typing import Any

import pytest

from perdure.protocol.schema_check import json_schema_fault


@pytest.mark.parametrize(
    "schema",
    [
        True,
        False,
        {},
        {"type": ["string", "null"], "minLength": 0, "maxLength": 4.0},
        {"$defs": {"A": {"type": "object"}}, "$ref": "#/$defs/A"},
        {"$id": "https://here/root", "$ref": "https://here/root#/$defs/A", "$defs": {"A": True}},
        {"$defs": {"A": {"$id": "item.json"}}, "items": {"$ref": "item.json"}},
        {"items": [{"type": "string"}, True], "required": ["a"]},
        {"required": True},
        # Names of properties are not keywords, and data is not a schema.
        {"properties": {"$ref": {"type": "string"}, "type": {"type": "string"}, "const": True}},
        {"const": {"$ref": "https://elsewhere/"}, "enum": [{"type": 5}], "default": {"items": 3}, "examples": [7]},
        {"x-ours": {"type": "text"}, "description": 7},
    ],
)
def test_these_pass(schema: Any) -> None:
    assert json_schema_fault(schema) is None


@pytest.mark.parametrize(
    ("schema", "fault"),
    [
        ("string", "#: expected an object or a boolean"),
        ([], "#: expected an object or a boolean"),
        ({"type": "text"}, "#/type: expected one or more of array, boolean"),
        ({"type": []}, "#/type: expected one or more of"),
        ({"type": [{}]}, "#/type: expected one or more of"),
        ({"properties": []}, "#/properties: expected an object of schemas"),
        ({"properties": {"a": 1}}, "#/properties/a: expected an object or a boolean"),
        ({"properties": {"const": {"type": 1}}}, "#/properties/const/type: expected one or more"),
        ({"anyOf": {}}, "#/anyOf: expected an array of schemas"),
        ({"allOf": [{}, 1]}, "#/allOf/1: expected an object or a boolean"),
        ({"items": [{}, "x"]}, "#/items/1: expected an object or a boolean"),
        ({"not": None}, "#/not: expected an object or a boolean"),
        ({"required": ["a", 1]}, "#/required: expected an array of strings"),
        ({"enum": "a"}, "#/enum: expected an array"),
        ({"minItems": -1}, "#/minItems: expected a whole number from 0"),
        ({"maxLength": 1.5}, "#/maxLength: expected a whole number from 0"),
        ({"maxLength": True}, "#/maxLength: expected a whole number from 0"),
        ({"$ref": 1}, "#/$ref: expected a string"),
        ({"$ref": "https://elsewhere/s"}, "#/$ref: refers to 'https://elsewhere/s', outside of this schema"),
        ({"oneOf": [{"$ref": "other.json#/A"}]}, "#/oneOf/0/$ref: refers to 'other.json#/A', outside"),
    ],
)
def test_these_do_not(schema: Any, fault: str) -> None:
    found = json_schema_fault(schema)
    assert found is not None
    assert found.startswith(fault)


def test_depth_is_not_a_danger() -> None:
    schema: Any = {"type": "text"}
    for _ in range(5_000):
        schema = {"not": schema}
    found = json_schema_fault(schema)
    assert found is not None
    assert found.endswith("/type: expected one or more of array, boolean, integer, null, number, object, string")

"""● core · Is this JSON value a JSON Schema that stands alone? As far as can be told without a library.

The schema is shown to people and never enforced, so this finds what would break a reader: wrong shapes and
references that lead out of the document. Nothing is ever fetched.
"""

from __future__ import annotations

from typing import Any

_SCHEMA_KEYWORDS = frozenset(
    (
        "additionalItems",
        "additionalProperties",
        "contains",
        "contentSchema",
        "else",
        "if",
        "not",
        "propertyNames",
        "then",
        "unevaluatedItems",
        "unevaluatedProperties",
    )
)
_SCHEMA_LIST_KEYWORDS = frozenset(("allOf", "anyOf", "oneOf", "prefixItems"))
_SCHEMA_MAP_KEYWORDS = frozenset(("$defs", "definitions", "dependentSchemas", "patternProperties", "properties"))
_REFERENCE_KEYWORDS = frozenset(("$ref", "$dynamicRef", "$recursiveRef"))
_ID_KEYWORDS = frozenset(("$id", "id"))
_COUNT_KEYWORDS = frozenset(
    (
        "maxContains",
        "maxItems",
        "maxLength",
        "maxProperties",
        "minContains",
        "minItems",
        "minLength",
        "minProperties",
    )
)
_TYPES = frozenset(("array", "boolean", "integer", "null", "number", "object", "string"))


def json_schema_fault(schema: Any) -> str | None:
    """What is wrong with `schema`, or None. The place is a path of member names from the top."""
    ids: dict[str, None] = {}
    references: list[tuple[str, str]] = []
    # An explicit stack: the depth of the document is not ours to choose.
    pending: list[tuple[str, Any]] = [("#", schema)]
    while pending:
        place, node = pending.pop()
        if isinstance(node, bool):
            continue
        if not isinstance(node, dict):
            return f"{place}: expected an object or a boolean"
        for keyword, value in node.items():
            here = f"{place}/{keyword}"
            if keyword in _SCHEMA_KEYWORDS:
                pending.append((here, value))
            elif keyword == "items":
                # One schema, or before draft 2020-12 a list of them.
                pending.extend(_numbered(here, value) if isinstance(value, list) else [(here, value)])
            elif keyword in _SCHEMA_LIST_KEYWORDS:
                if not isinstance(value, list):
                    return f"{here}: expected an array of schemas"
                pending.extend(_numbered(here, value))
            elif keyword in _SCHEMA_MAP_KEYWORDS:
                if not isinstance(value, dict):
                    return f"{here}: expected an object of schemas"
                pending.extend((f"{here}/{name}", member) for name, member in value.items())
            elif keyword in _REFERENCE_KEYWORDS:
                if isinstance(value, bool) and keyword == "$recursiveRef":
                    continue
                if not isinstance(value, str):
                    return f"{here}: expected a string"
                references.append((here, value))
            elif keyword in _ID_KEYWORDS and isinstance(value, str):
                ids[value.partition("#")[0]] = None
            elif (fault := _simple_fault(keyword, value)) is not None:
                return f"{here}: {fault}"
    for here, reference in references:
        document = reference.partition("#")[0]
        if document and document not in ids:
            return f"{here}: refers to {reference!r}, outside of this schema"
    return None


def _numbered(place: str, schemas: list[Any]) -> list[tuple[str, Any]]:
    return [(f"{place}/{position}", member) for position, member in enumerate(schemas)]


def _simple_fault(keyword: str, value: Any) -> str | None:
    """What is wrong with the value of a keyword that holds no schema; unknown keywords are annotations."""
    if keyword == "type":
        names = value if isinstance(value, list) else [value]
        if not names or not all(isinstance(name, str) and name in _TYPES for name in names):
            return f"expected one or more of {', '.join(sorted(_TYPES))}"
    elif keyword == "enum":
        if not isinstance(value, list):
            return "expected an array"
    elif keyword == "required":
        # Draft 3 had a boolean here, and generators still write it.
        if not isinstance(value, bool) and not (
            isinstance(value, list) and all(isinstance(name, str) for name in value)
        ):
            return "expected an array of strings"
    elif keyword in _COUNT_KEYWORDS and (
        isinstance(value, bool) or not isinstance(value, int | float) or value < 0 or value % 1 != 0
    ):
        return "expected a whole number from 0"
    return None

"""● core · @value: a plain value, frozen to the checker and in tests, cheap at run time.

A frozen dataclass costs five times as much to build, because each field goes through
``object.__setattr__``.  The type checker sees ``frozen=True``; tests set PERDURE_FROZEN_VALUES
(see tests/conftest.py) through :func:`freeze_values`, production builds ordinary slotted classes.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar, dataclass_transform

T = TypeVar("T")
_frozen = False


def freeze_values() -> None:
    """From here on @value makes really frozen classes; called by the test suite before any import of values."""
    global _frozen
    _frozen = True


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def value(cls: type[T]) -> type[T]:
    """Class decorator: slotted, comparable, hashable by value, not to be changed after construction."""
    if _frozen:
        return dataclasses.dataclass(slots=True, frozen=True)(cls)
    return dataclasses.dataclass(slots=True, unsafe_hash=True)(cls)

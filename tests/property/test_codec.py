"""The codec: every registered class comes back equal, and bytes of anyone else are refused by name."""

from __future__ import annotations

import dataclasses
import enum
import types
import typing
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from perdure_processor.cluster import metadata_machine
from perdure_processor.model import codec, commands
from perdure_processor.model.errors import CorruptStore, UpgradeRequired
from perdure_processor.model.futures import Future
from perdure_processor.storage import records

REGISTERED = sorted(codec._class_of.items())
INTEGERS = st.integers(-(1 << 63), (1 << 64) - 1)


def values(hint: Any, depth: int = 0) -> st.SearchStrategy[Any]:
    """Values of a type hint, as the fields of our classes use them."""
    while hasattr(hint, "__supertype__"):
        hint = hint.__supertype__
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return st.one_of([values(member, depth) for member in arguments])
    if origin is list:
        # Trees end somewhere.
        return st.lists(values(arguments[0], depth + 1), max_size=2 if depth < 3 else 0)
    if origin is tuple:
        return st.tuples(*(values(argument, depth) for argument in arguments))
    if origin is dict:
        return st.dictionaries(values(arguments[0]), values(arguments[1]), max_size=2)
    if hint is type(None):
        return st.none()
    if hint is int:
        return INTEGERS
    if hint is float:
        return st.floats(allow_nan=False)
    if hint in (str, bytes, bool):
        return {str: st.text(max_size=8), bytes: st.binary(max_size=8), bool: st.booleans()}[hint]
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return st.sampled_from(list(hint))
    assert dataclasses.is_dataclass(hint), hint
    hints = typing.get_type_hints(hint)
    if depth > 8:
        return st.just(Future())
    fields = {field.name: values(hints[field.name], depth + 1) for field in dataclasses.fields(hint)}
    return st.builds(hint, **fields)


@pytest.mark.parametrize(("tag", "cls"), REGISTERED, ids=[cls.__name__ for _, cls in REGISTERED])
def test_what_is_encoded_decodes_equal(tag: int, cls: type) -> None:
    @settings(max_examples=15, deadline=None)
    @given(value=st.deferred(lambda: values(cls)))
    def check(value: Any) -> None:
        data = codec.encode(value)
        decoded = codec.decode(data)
        assert decoded == value
        assert type(decoded) is cls
        assert codec.encode(decoded) == data

    check()


def test_commands_and_rows_are_all_registered() -> None:
    registered = {cls for _, cls in REGISTERED}
    for union in (commands.Command, records.InvocationRow, metadata_machine.MetadataCommand):
        assert set(typing.get_args(union)) <= registered
    assert {records.ObjectRow, records.Progress, records.StoreIdentity, commands.Envelope} <= registered


@settings(max_examples=300)
@given(st.binary(max_size=40))
def test_bytes_of_anyone_else_are_refused(data: bytes) -> None:
    for attempt in (data, b"\x01" + data):
        try:
            value = codec.decode(attempt)
        except (CorruptStore, UpgradeRequired):
            continue
        assert codec.decode(codec.encode(value)) == value


@settings(max_examples=200)
@given(st.data())
def test_a_damaged_value_is_refused_or_is_another_value(data: st.DataObject) -> None:
    cls = data.draw(st.sampled_from([cls for _, cls in REGISTERED]))
    encoded = bytearray(codec.encode(data.draw(values(cls))))
    place = data.draw(st.integers(0, len(encoded) - 1))
    encoded[place] = data.draw(st.integers(0, 255))
    try:
        codec.decode(bytes(encoded))
    except (CorruptStore, UpgradeRequired):
        return


@pytest.mark.parametrize("body", [b"\x81\x90\x00", b"\x91\x90", b"\x91\xc0", b"\x90", b"\x00", b"\xc1", b"\x92\x01"])
def test_bytes_that_are_no_tagged_list_are_refused(body: bytes) -> None:
    with pytest.raises(CorruptStore):
        codec.decode(bytes([codec.FORMAT_VERSION]) + body)


def test_a_newer_field_stops_the_reader_and_an_older_writer_is_completed() -> None:
    data = codec.encode(records.ObjectRow(None, 1, 2))
    newer = data[:1] + bytes([data[1] + 1]) + data[2:] + b"\x07"  # a list of one more element
    with pytest.raises(UpgradeRequired, match="newer fields of ObjectRow"):
        codec.decode(newer)
    progress = codec.encode(records.Progress(position=5))
    older = progress[:1] + bytes([0x92]) + progress[2:4]  # tag and position only
    assert codec.decode(older) == records.Progress(position=5)


def test_another_format_version_is_refused() -> None:
    with pytest.raises(UpgradeRequired, match="format version 2"):
        codec.decode(b"\x02" + codec.encode(records.ObjectRow(None, 1, 2))[1:])

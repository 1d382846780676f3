"""Keys: parts cannot run together, numbers keep their order, and what was put in comes out again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from perdure_processor.model.ids import InvocationId, PartitionId, slot_of
from perdure_processor.storage import keys

IDS = st.binary(min_size=24, max_size=24).map(InvocationId)
NAMES = st.text(max_size=6)
U16, U32, U64 = (st.integers(0, (1 << bits) - 1) for bits in (16, 32, 64))
OBJECTS = st.tuples(IDS, NAMES, NAMES)


@given(OBJECTS, OBJECTS)
def test_rows_of_one_object_are_never_among_those_of_another(
    one: tuple[InvocationId, str, str], other: tuple[InvocationId, str, str]
) -> None:
    a, b = keys.object_suffix(*one), keys.object_suffix(*other)
    same = (slot_of(one[0]), *one[1:]) == (slot_of(other[0]), *other[1:])
    assert (a == b) == same
    if not same:
        assert not a.startswith(b) and not b.startswith(a)


@given(OBJECTS, st.binary(max_size=4), st.binary(max_size=4))
def test_state_keys_keep_their_order_and_stay_within_their_object(
    target: tuple[InvocationId, str, str], one: bytes, other: bytes
) -> None:
    suffix = keys.object_suffix(*target)
    low, high = keys.STATE + suffix, keys.end_of(keys.STATE + suffix)
    a, b = keys.state(suffix, one), keys.state(suffix, other)
    assert (a < b) == (one < other)
    assert low <= a < high
    assert keys.parse_object_suffix(a) == (target[1], target[2], one)
    assert keys.object_suffix_of(a) == suffix


@given(OBJECTS, U64, U64)
def test_the_inbox_keeps_its_order(target: tuple[InvocationId, str, str], one: int, other: int) -> None:
    suffix = keys.object_suffix(*target)
    assert (keys.inbox(suffix, one) < keys.inbox(suffix, other)) == (one < other)


@given(IDS, U32, U32)
def test_segments_keep_their_order(id: InvocationId, one: int, other: int) -> None:
    assert (keys.segment(id, one) < keys.segment(id, other)) == (one < other)
    assert keys.JOURNAL + id <= keys.segment(id, one) < keys.end_of(keys.JOURNAL + id) or set(id) == {0xFF}


@given(U64, IDS, st.integers(0, 5), U32, U64)
def test_timers_are_in_the_order_of_their_deadlines(
    deadline: int, id: InvocationId, kind: int, number: int, other: int
) -> None:
    key = keys.timer(deadline, id, kind, number)
    clamped = min(deadline, keys.DEADLINE_MAX)
    assert keys.parse_timer(key) == (clamped, id, kind, number)
    assert (key < keys.deadline_bound(keys.TIMER, other)) == (clamped <= min(other, keys.DEADLINE_MAX))


@given(U64, st.binary(min_size=16, max_size=24), U64)
def test_expiries_are_in_the_order_of_their_deadlines(deadline: int, subject: bytes, other: int) -> None:
    key = keys.expiry(deadline, subject)
    clamped = min(deadline, keys.DEADLINE_MAX)
    assert keys.parse_expiry(key) == (clamped, subject)
    assert (key < keys.deadline_bound(keys.EXPIRY, other)) == (clamped <= min(other, keys.DEADLINE_MAX))


@given(U16, U64, U64)
def test_the_outbox_is_one_queue_for_each_target(target: int, one: int, other: int) -> None:
    partition = PartitionId(target)
    assert (keys.outbox(partition, one) < keys.outbox(partition, other)) == (one < other)
    assert keys.parse_outbox(keys.outbox(partition, one)) == (target, one)
    assert keys.parse_outbox_subject(keys.outbox_subject(partition)) == target
    if target:
        assert keys.outbox(PartitionId(target - 1), one) < keys.outbox(partition, other)


@given(st.binary(min_size=1, max_size=5), st.binary(max_size=5))
def test_the_end_of_a_prefix_is_after_everything_that_begins_with_it(prefix: bytes, rest: bytes) -> None:
    if prefix.strip(b"\xff"):
        assert prefix + rest < keys.end_of(prefix)


def test_kinds_are_two_bytes_and_all_different() -> None:
    kinds = [
        getattr(keys, name)
        for name in (
            *("METADATA", "INVOCATION", "JOURNAL", "ACTIVE", "OBJECT", "INBOX", "STATE", "CLEARED"),
            *("TIMER", "EXPIRY", "OUTBOX", "PART"),
        )
    ]
    assert all(len(kind) == 2 for kind in kinds)
    assert len({*kinds}) == len(kinds)

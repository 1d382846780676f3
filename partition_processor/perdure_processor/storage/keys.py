"""● core · The key layout: two bytes of kind, then parts that cannot run together and numbers that keep order.

Kinds are never reused.  The slot (top 12 bits of the partition key) stands first in every key that
belongs to an invocation or an object, so that a range of slots is a range of keys (correctness 7).

    MT  metadata of the store                        name
    IN  invocation                                   id
    JS  journal segment                              id, segment u32
    AC  invocation that should have an attempt       id
    OB  virtual object: lock and queue               slot u16, service, key
    IB  inbox                                        slot u16, service, key, sequence u64
    ST  state                                        slot u16, service, key, state key
    TM  timer                                        deadline u64, id, kind u8, number u32
    CL  state that was cleared and is not deleted    slot u16, service, key
    SP  state patch that waits for its turn          slot u16, service, key, place in the queue u64
    PR  durable promise of a workflow                slot u16, service, key, name
    JE  journal event                                id, number modulo EVENTS_MAX u32
    EX  expiry of what is kept                       deadline u64, id of an invocation or group of parts
    OX  outbox                                       target u16, sequence u64
    PT  part of a large command                      group, index u32
"""

from __future__ import annotations

import struct
from functools import lru_cache

from perdure_processor.model.ids import InvocationId, Millis, PartitionId, slot_of
from perdure_processor.model.limits import OBJECT_KEYS_REMEMBERED

METADATA = b"MT"
INVOCATION = b"IN"
JOURNAL = b"JS"
ACTIVE = b"AC"
OBJECT = b"OB"
INBOX = b"IB"
STATE = b"ST"
CLEARED = b"CL"
STATE_PATCH = b"SP"
PROMISE = b"PR"
EVENT = b"JE"
TIMER = b"TM"
EXPIRY = b"EX"
OUTBOX = b"OX"
PART = b"PT"

_U16 = struct.Struct(">H").pack
_U32 = struct.Struct(">I").pack
_U64 = struct.Struct(">Q").pack
_TIMER_TAIL = struct.Struct(">BI").pack

TIMER_SLEEP = 0
TIMER_RETRY = 1
TIMER_START = 2
# Work too large for one record goes on with these, due at once (correctness 27).
TIMER_ANSWER = 3
TIMER_CLEAR = 4
TIMER_TRUNCATE = 5
TIMER_PATCH = 6
TIMER_PROMISE = 7

# Times beyond this do not fit into the key: a sleep of 2^64 ms waits until the year 292 million instead.
DEADLINE_MAX = (1 << 63) - 1


def metadata(name: str) -> bytes:
    return METADATA + name.encode()


def invocation(invocation_id: InvocationId) -> bytes:
    return INVOCATION + invocation_id


def segment(invocation_id: InvocationId, number: int) -> bytes:
    return JOURNAL + invocation_id + _U32(number)


def active(invocation_id: InvocationId) -> bytes:
    return ACTIVE + invocation_id


def object_suffix(invocation_id: InvocationId, service: str, key: str) -> bytes:
    """slot, service, key: what object, inbox and state rows of one key have in common."""
    return _object_suffix(slot_of(invocation_id), service, key)


@lru_cache(OBJECT_KEYS_REMEMBERED)  # an invocation of an object asks for the same one three times
def _object_suffix(slot: int, service: str, key: str) -> bytes:
    service_bytes, key_bytes = service.encode(), key.encode()
    return b"".join((_U16(slot), _U16(len(service_bytes)), service_bytes, _U32(len(key_bytes)), key_bytes))


def parse_object_suffix(key: bytes) -> tuple[str, str, bytes]:
    """Service, object key and what follows them, from any OB, IB, ST or PR key."""
    service_length = int.from_bytes(key[4:6], "big")
    service = key[6 : 6 + service_length]
    at = 6 + service_length
    key_length = int.from_bytes(key[at : at + 4], "big")
    return service.decode(), key[at + 4 : at + 4 + key_length].decode(), key[at + 4 + key_length :]


def object_suffix_of(key: bytes) -> bytes:
    """The object's suffix in any OB, IB, ST or CL key."""
    at = 6 + int.from_bytes(key[4:6], "big")
    return key[2 : at + 4 + int.from_bytes(key[at : at + 4], "big")]


def inbox(suffix: bytes, sequence: int) -> bytes:
    return INBOX + suffix + _U64(sequence)


def state(suffix: bytes, state_key: bytes) -> bytes:
    return STATE + suffix + state_key


def cleared(suffix: bytes) -> bytes:
    return CLEARED + suffix


def state_patch(suffix: bytes, place: int) -> bytes:
    return STATE_PATCH + suffix + _U64(place)


def promise(suffix: bytes, name: str) -> bytes:
    return PROMISE + suffix + name.encode()


def event(invocation_id: InvocationId, place: int) -> bytes:
    return EVENT + invocation_id + _U32(place)


def timer(deadline_ms: int, invocation_id: InvocationId, kind: int, number: int) -> bytes:
    return TIMER + _U64(min(deadline_ms, DEADLINE_MAX)) + invocation_id + _TIMER_TAIL(kind, number)


def parse_timer(key: bytes) -> tuple[Millis, InvocationId, int, int]:
    """Deadline, invocation, kind (TIMER_…) and number (a completion id for sleeps)."""
    return (
        Millis(int.from_bytes(key[2:10], "big")),
        InvocationId(key[10:34]),
        key[34],
        int.from_bytes(key[35:39], "big"),
    )


def deadline_bound(kind: bytes, deadline_ms: int) -> bytes:
    """The smallest key of `kind` (TIMER, EXPIRY) that lies after every row due at `deadline_ms`."""
    return kind + _U64(min(deadline_ms, DEADLINE_MAX) + 1)


def expiry(deadline_ms: int, subject: bytes) -> bytes:
    return EXPIRY + _U64(min(deadline_ms, DEADLINE_MAX)) + subject


def parse_expiry(key: bytes) -> tuple[Millis, bytes]:
    """Deadline, and the invocation's id or the group of parts."""
    return Millis(int.from_bytes(key[2:10], "big")), key[10:]


def outbox(target: PartitionId, sequence: int) -> bytes:
    return OUTBOX + _U16(target) + _U64(sequence)


def parse_outbox(key: bytes) -> tuple[PartitionId, int]:
    return PartitionId(int.from_bytes(key[2:4], "big")), int.from_bytes(key[4:12], "big")


def part(group: bytes, index: int) -> bytes:
    return PART + group + _U32(index)


def outbox_subject(target: PartitionId) -> InvocationId:
    """What stands for a queue of the outbox where a timer's key has an invocation's id."""
    return InvocationId(_U16(target).rjust(24, b"\0"))


def parse_outbox_subject(subject: InvocationId) -> PartitionId:
    return PartitionId(int.from_bytes(subject, "big"))


def end_of(prefix: bytes) -> bytes:
    """The smallest key after every key that begins with `prefix`."""
    stripped = prefix.rstrip(b"\xff")
    assert stripped, "a prefix of 0xff bytes has no end"
    return stripped[:-1] + bytes([stripped[-1] + 1])

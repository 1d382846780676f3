"""● core · Identifiers: text and byte forms, and the ones that are derived instead of drawn.

Text is `<prefix>_1<body>`: `1` is the codec version, the body is fixed-width base62 (awakeables: base64url).
Nothing here draws randomness or reads a clock: both are arguments.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct

import xxhash

from perdure.protocol.errors import PerdureError

INVOCATION_ID_BYTES = 24
# Plain services have no key: their invocations are spread over this many partition keys per service.
SERVICE_BUCKETS = 512

_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
# Two digits at a time: half the divisions, and a table that stays in the cache.
_PAIRS = [high + low for high in _DIGITS for low in _DIGITS]
_PAIR_VALUES = {pair: number for number, pair in enumerate(_PAIRS)}
_PAIR = 62**2
_POW4 = 62**4
_POW8 = 62**8
_POW16 = 62**16

_PREFIXES = frozenset(("inv", "dp", "sub", "snap", "mut", "sign", "prom", "vq"))
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_MILLIS_BITS = 48
_ULID_RANDOM_BITS = 80
_BUCKET_MARK = b"\xffunscoped/service\xff"

_xxh3 = xxhash.xxh3_64_intdigest
_from_bytes = int.from_bytes


class IdError(PerdureError):
    """Text that is no identifier of the kind expected."""


# --- invocation ids ----------------------------------------------------------------------------------------


def invocation_id(partition_key: int, uuid: int) -> bytes:
    """The 24 raw bytes: partition key and uuid, big-endian."""
    return partition_key.to_bytes(8, "big") + uuid.to_bytes(16, "big")


def encode_invocation_id(raw: bytes) -> str:
    """`inv_1…`, 38 characters. The number encoded is the little-endian reading of the bytes."""
    pairs = _PAIRS
    # 11 digits are 3 + 4 + 4, 22 digits are 2 + 4 * 5: four digits fit the machine word of Python's integers.
    top, low = divmod(_from_bytes(raw[:8], "little"), _POW8)
    a, b = divmod(top, _PAIR)
    c, d = divmod(low, _POW4)
    top, low = divmod(_from_bytes(raw[8:], "little"), _POW16)
    e, f = divmod(top, _POW4)
    high, low = divmod(low, _POW8)
    g, h = divmod(high, _POW4)
    i, j = divmod(low, _POW4)
    return (
        f"inv_1{_DIGITS[a]}{pairs[b]}"
        f"{pairs[c // 3844]}{pairs[c % 3844]}{pairs[d // 3844]}{pairs[d % 3844]}"
        f"{pairs[e]}{pairs[f // 3844]}{pairs[f % 3844]}"
        f"{pairs[g // 3844]}{pairs[g % 3844]}{pairs[h // 3844]}{pairs[h % 3844]}"
        f"{pairs[i // 3844]}{pairs[i % 3844]}{pairs[j // 3844]}{pairs[j % 3844]}"
    )


def decode_invocation_id(text: str) -> bytes:
    """The 24 raw bytes of `inv_1…`. Raises IdError."""
    body = _body(text, "inv")
    if len(body) != 33:
        raise IdError("bad format")
    return _unbase62(body[:11], 8) + _unbase62(body[11:], 16)


def partition_key_of_id(raw: bytes) -> int:
    """The partition key that a raw invocation id begins with."""
    return _from_bytes(raw[:8], "big")


# --- partition keys ----------------------------------------------------------------------------------------
# XXH3-64 over strings as UTF-8 with a byte 0xFF behind each, and numbers as eight little-endian bytes.


def partition_key_of_key(key: str) -> int:
    """Where an object or workflow lives; the service's name has no part in it."""
    return _xxh3(key.encode() + b"\xff")


def partition_key_of_bucket(service: str, bucket: int) -> int:
    """Where one of a plain service's buckets lives."""
    assert 0 <= bucket < SERVICE_BUCKETS
    return _xxh3(service.encode() + _BUCKET_MARK + bucket.to_bytes(8, "little"))


def partition_key_of_idempotency_key(service: str, idempotency_key: str) -> int:
    """Where a plain service's invocation with an idempotency key lives: the key chooses the bucket."""
    return partition_key_of_bucket(service, _xxh3(idempotency_key.encode() + b"\xff") % SERVICE_BUCKETS)


# --- derived uuids -----------------------------------------------------------------------------------------


def workflow_uuid(service: str, key: str) -> int:
    """The run of a workflow: one for each key, whatever idempotency key the request had."""
    return _uuid_of("wf", service, key)


def idempotent_uuid(service: str, key: str | None, handler: str, idempotency_key: str) -> int:
    """Any other invocation with an idempotency key; `key` is None exactly for plain services."""
    if key is None:
        return _uuid_of("ik", service, handler, idempotency_key)
    return _uuid_of("ik", service, key, handler, idempotency_key)


def _uuid_of(*parts: str) -> int:
    return _from_bytes(hashlib.sha256(",".join(parts).encode()).digest()[:16], "big")


# --- ULIDs and the ids made of them ------------------------------------------------------------------------


def new_ulid(now_ms: int, random80: int) -> int:
    """128 bits that grow with time: 48 of milliseconds, 80 of randomness."""
    assert 0 <= now_ms < 1 << _MILLIS_BITS
    assert 0 <= random80 < 1 << _ULID_RANDOM_BITS
    return now_ms << _ULID_RANDOM_BITS | random80


def ulid_text(now_ms: int, random80: int) -> str:
    """The usual 26 characters of a ULID (Crockford's base 32)."""
    number = new_ulid(now_ms, random80)
    return "".join(_CROCKFORD[number >> shift & 31] for shift in range(125, -1, -5))


def new_resource_id(prefix: str, now_ms: int, random80: int) -> str:
    """A new `dp_1…`, `sub_1…` or `snap_1…`."""
    assert prefix in _PREFIXES, prefix
    return f"{prefix}_1{_base62(new_ulid(now_ms, random80), 16, 22)}"


def decode_resource_id(prefix: str, text: str) -> int:
    """The 128 bits of a `dp_1…`, `sub_1…` or `snap_1…`. Raises IdError."""
    body = _body(text, prefix)
    if len(body) != 22:
        raise IdError("bad format")
    return _from_bytes(_unbase62(body, 16), "big")


# --- awakeables --------------------------------------------------------------------------------------------


def encode_awakeable_id(raw: bytes, index: int) -> str:
    """`sign_1…` of an invocation and a signal index."""
    assert len(raw) == INVOCATION_ID_BYTES
    return "sign_1" + base64.urlsafe_b64encode(raw + struct.pack(">I", index)).decode().rstrip("=")


def decode_awakeable_id(text: str) -> tuple[bytes, int]:
    """(raw invocation id, signal index) of `sign_1…`; also of the old `prom_1…`, whose index is an entry's.

    Padding is optional.  Raises IdError."""
    prefix = "prom" if text.startswith("prom_") else "sign"
    body = _body(text, prefix)
    digits = body.removesuffix("==")
    if len(digits) != 38:
        raise IdError("bad format")
    try:
        data = binascii.a2b_base64(digits.translate(_FROM_URLSAFE) + "==", strict_mode=True)
    except ValueError as error:  # not ASCII, or (as binascii.Error) not base64
        raise IdError("bad format") from error
    raw, index = data[:INVOCATION_ID_BYTES], _from_bytes(data[INVOCATION_ID_BYTES:], "big")
    # One id has one text: bits behind the last byte that are not zero, and the other alphabet, are refused.
    if encode_awakeable_id(raw, index)[6:] != digits:
        raise IdError("bad format")
    return raw, index


_FROM_URLSAFE = str.maketrans("-_", "+/")


# --- random seed -------------------------------------------------------------------------------------------


def random_seed(raw: bytes) -> int:
    """The seed that a handler's random numbers start from: SipHash-1-3, key 0, over u64le(24) and the id."""
    assert len(raw) == INVOCATION_ID_BYTES
    v0, v1, v2, v3 = _SEED_START
    for word in struct.unpack("<QQQ", raw):
        v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3 ^ word)
        v0 ^= word
    # The last block holds what is left of the input, here nothing, and its length of 8 + 24 bytes.
    v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3 ^ _SEED_LAST_BLOCK)
    v0, v1, v2, v3 = _sip_round(v0 ^ _SEED_LAST_BLOCK, v1, v2 ^ 0xFF, v3)
    v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
    v0, v1, v2, v3 = _sip_round(v0, v1, v2, v3)
    return v0 ^ v1 ^ v2 ^ v3


_MASK = (1 << 64) - 1


def _sip_round(v0: int, v1: int, v2: int, v3: int) -> tuple[int, int, int, int]:
    v0 = v0 + v1 & _MASK
    v1 = (v1 << 13 & _MASK | v1 >> 51) ^ v0
    v0 = v0 << 32 & _MASK | v0 >> 32
    v2 = v2 + v3 & _MASK
    v3 = (v3 << 16 & _MASK | v3 >> 48) ^ v2
    v0 = v0 + v3 & _MASK
    v3 = (v3 << 21 & _MASK | v3 >> 43) ^ v0
    v2 = v2 + v1 & _MASK
    v1 = (v1 << 17 & _MASK | v1 >> 47) ^ v2
    v2 = v2 << 32 & _MASK | v2 >> 32
    return v0, v1, v2, v3


def _seed_start() -> tuple[int, int, int, int]:
    """The state after the first block, which is the same for every id: its length, 24."""
    v0, v1, v2, v3 = _sip_round(
        0x736F6D6570736575, 0x646F72616E646F6D, 0x6C7967656E657261, 0x7465646279746573 ^ INVOCATION_ID_BYTES
    )
    return v0 ^ INVOCATION_ID_BYTES, v1, v2, v3


_SEED_START = _seed_start()
_SEED_LAST_BLOCK = (8 + INVOCATION_ID_BYTES) << 56


# --- base62 ------------------------------------------------------------------------------------------------


def _base62(number: int, size: int, width: int) -> str:
    """Fixed-width base62 of the byte-swapped number."""
    number = _from_bytes(number.to_bytes(size, "big"), "little")
    digits = []
    for _ in range(width):
        number, digit = divmod(number, 62)
        digits.append(_DIGITS[digit])
    assert number == 0
    return "".join(reversed(digits))


def _unbase62(text: str, size: int) -> bytes:
    """The big-endian bytes whose little-endian reading `text` is. Raises IdError."""
    try:
        number = _DIGITS.index(text[0]) if len(text) % 2 else 0
        for at in range(len(text) % 2, len(text), 2):
            number = number * _PAIR + _PAIR_VALUES[text[at : at + 2]]
        return number.to_bytes(size, "little")
    except (KeyError, ValueError, OverflowError) as error:  # not base62, or more than `size` bytes can hold
        raise IdError("bad format") from error


def _body(text: str, prefix: str) -> str:
    """What follows `<prefix>_1`."""
    found, separator, rest = text.partition("_")
    if not separator or found not in _PREFIXES:
        raise IdError("bad format")
    if found != prefix:
        raise IdError("id doesn't match the expected type")
    if rest[:1] != "1":
        raise IdError("bad format" if not rest else "unrecognized codec version")
    return rest[1:]

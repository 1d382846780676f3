"""Identifiers: the published vectors, and what is refused with which words."""

from __future__ import annotations

import hashlib

import pytest

from perdure.protocol import ids

KEYED = "inv_1foAirY4KKzi14DIZyKHi8zYCNWEYP8eMD"
SLEEPER = "inv_195qHIDlwRkY3DPpj2Sk2VBvlODABQb7K2"
AWAKEABLE = "sign_12Fk7rZFL2WkK6TymJFMAfZjoVxGska13AAAAEQ"


def test_an_invocation_id_as_text_and_as_bytes() -> None:
    raw = ids.invocation_id(0x548AE3CBA54055B3, 0x6F93BAAEBA89E4D766D6255E32F35023)
    assert raw.hex() == "548ae3cba54055b36f93baaeba89e4d766d6255e32f35023"
    assert ids.encode_invocation_id(raw) == KEYED
    assert ids.decode_invocation_id(KEYED) == raw
    assert ids.partition_key_of_id(raw) == 0x548AE3CBA54055B3


@pytest.mark.parametrize("raw", [bytes(24), b"\xff" * 24, bytes(23) + b"\x01", b"\x01" + bytes(23)])
def test_the_smallest_and_the_largest_id(raw: bytes) -> None:
    text = ids.encode_invocation_id(raw)
    assert len(text) == 38
    assert ids.decode_invocation_id(text) == raw


def test_partition_keys() -> None:
    assert ids.partition_key_of_key("k1") == 0x548AE3CBA54055B3
    assert ids.partition_key_of_key("w1") == 0x5164C775648D211B
    assert ids.partition_key_of_key("ik1") == 0xEC673C6B1CF22EF2
    assert ids.partition_key_of_bucket("Greeter", 242) == 0xFCA07383F0881CDF
    assert ids.partition_key_of_idempotency_key("Greeter", "ik1") == 0xFCA07383F0881CDF


def test_ids_that_are_derived() -> None:
    def text(partition_key: int, uuid: int) -> str:
        return ids.encode_invocation_id(ids.invocation_id(partition_key, uuid))

    workflow = text(ids.partition_key_of_key("w1"), ids.workflow_uuid("Flow", "w1"))
    assert workflow == "inv_12kpUQONmeFb40HPiUbKSfrH18FxSmvYzH"

    service = text(
        ids.partition_key_of_idempotency_key("Greeter", "ik1"), ids.idempotent_uuid("Greeter", None, "greet", "ik1")
    )
    assert service == "inv_1j9Cg5UTs00I5oCM9njnLbCxIV8dHayQR5"

    keyed = text(ids.partition_key_of_key("k1"), ids.idempotent_uuid("Counter", "k1", "peek", "ik1"))
    assert keyed == "inv_1foAirY4KKzi7pg45VgCaw8drPDAocmqWC"

    called_by_a_handler = text(
        ids.partition_key_of_idempotency_key("TsSvc", "kk"), ids.idempotent_uuid("TsSvc", None, "callee", "kk")
    )
    assert called_by_a_handler == "inv_11L9iNs3WHNC52XgZumqO6IBnQT4UD2hC5"


def test_an_empty_key_is_a_key() -> None:
    assert ids.idempotent_uuid("S", "", "h", "i") != ids.idempotent_uuid("S", None, "h", "i")
    expected = hashlib.sha256(b"ik,S,,h,i").digest()[:16]
    assert ids.idempotent_uuid("S", "", "h", "i") == int.from_bytes(expected, "big")


def test_keys_beyond_ascii_count_as_utf8() -> None:
    expected = hashlib.sha256("wf,Flow,schlüssel,☂".encode()).digest()[:16]
    assert ids.workflow_uuid("Flow", "schlüssel,☂") == int.from_bytes(expected, "big")


def test_an_awakeable_id_as_text_and_as_parts() -> None:
    raw = ids.decode_invocation_id(SLEEPER)
    assert raw.hex() == "d8593bad914bd9690ae93ca62453007d98e85711ac91ad77"
    assert ids.encode_awakeable_id(raw, 17) == AWAKEABLE
    assert ids.decode_awakeable_id(AWAKEABLE) == (raw, 17)


def test_an_awakeable_id_may_be_padded_or_of_the_old_kind() -> None:
    expected = ids.decode_awakeable_id(AWAKEABLE)
    assert ids.decode_awakeable_id(AWAKEABLE + "==") == expected
    assert ids.decode_awakeable_id(AWAKEABLE.replace("sign", "prom")) == expected


def test_the_random_seed() -> None:
    assert ids.random_seed(ids.decode_invocation_id(KEYED)) == 427707614594649010
    assert ids.random_seed(ids.decode_invocation_id(SLEEPER)) == 2196306896024130133


def test_a_ulid_is_the_time_and_then_chance() -> None:
    assert ids.ulid_text(1469918176385, 0) == "01ARYZ6S41" + "0" * 16
    assert ids.ulid_text(0, 33) == "0" * 24 + "11"
    assert ids.ulid_text((1 << 48) - 1, (1 << 80) - 1) == "7" + "Z" * 25


def test_a_new_resource_id_can_be_taken_apart() -> None:
    text = ids.new_resource_id("dp", 1795486634210, 7)
    assert text.startswith("dp_1")
    assert len(text) == 26
    assert ids.decode_resource_id("dp", text) == 1795486634210 << 80 | 7
    assert ids.new_resource_id("sub", 1, 2).startswith("sub_1")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "bad format"),
        ("inv", "bad format"),
        ("inv_", "bad format"),
        ("foo_1" + "0" * 33, "bad format"),
        ("inv_1", "bad format"),
        (KEYED[:-1], "bad format"),
        (KEYED + "0", "bad format"),
        (KEYED[:-1] + "-", "bad format"),
        (KEYED[:-1] + "é", "bad format"),
        (KEYED[:-1] + "\x00", "bad format"),
        # 62^11 exceeds 2^64, and 62^22 exceeds 2^128: not every text of the right length is an id.
        ("inv_1" + "Z" * 11 + "0" * 22, "bad format"),
        ("inv_1" + "0" * 11 + "Z" * 22, "bad format"),
        (KEYED.replace("inv_1", "inv_2"), "unrecognized codec version"),
        (KEYED.replace("inv_1", "dp_1"), "id doesn't match the expected type"),
        (AWAKEABLE, "id doesn't match the expected type"),
    ],
)
def test_what_is_no_invocation_id(text: str, words: str) -> None:
    with pytest.raises(ids.IdError) as caught:
        ids.decode_invocation_id(text)
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("x", "bad format"),
        ("sign_1", "bad format"),
        (AWAKEABLE[:-1], "bad format"),
        (AWAKEABLE + "=", "bad format"),
        (AWAKEABLE + "A", "bad format"),
        (AWAKEABLE[:-1] + "!", "bad format"),
        (AWAKEABLE[:-1] + "é", "bad format"),
        # Bits behind the last byte: a second text for the same id.
        (AWAKEABLE[:-1] + "R", "bad format"),
        # The alphabet with + and / is another one.
        ("sign_1" + "+" * 36 + "AA", "bad format"),
        (AWAKEABLE.replace("sign_1", "sign_2"), "unrecognized codec version"),
        (KEYED, "id doesn't match the expected type"),
    ],
)
def test_what_is_no_awakeable_id(text: str, words: str) -> None:
    with pytest.raises(ids.IdError) as caught:
        ids.decode_awakeable_id(text)
    assert str(caught.value) == words


def test_an_id_of_another_resource_is_refused() -> None:
    with pytest.raises(ids.IdError, match="expected type"):
        ids.decode_resource_id("dp", ids.new_resource_id("sub", 1, 2))

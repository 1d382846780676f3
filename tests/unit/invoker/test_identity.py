"""Signed requests: the token that deployments verify, and no trace of it where there is no key."""

from __future__ import annotations

import base64
import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from perdure_processor.invoker.identity import Signer, SigningTransport, base58, identity_token
from perdure_processor.invoker.memory_transport import MemoryTransport
from perdure_processor.invoker.transport import StreamRequest

PRIVATE = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = PRIVATE.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
SIGNER = Signer(PRIVATE.sign, PUBLIC)
NOW_S = 1_700_000_000


def request(path: str = "/invoke/Counter/add", key: str | None = None) -> StreamRequest:
    headers = [("content-type", "application/vnd.restate.invocation.v6")]
    if key is not None:
        headers.append(("x-restate-service-key", key))
    return StreamRequest("POST", path, headers, True)


def opened(token: str) -> tuple[dict[str, object], dict[str, object]]:
    """JOSE header and claims of a token whose signature is right."""
    head, claims, signature = (base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)) for part in token.split("."))
    Ed25519PublicKey.from_public_bytes(PUBLIC).verify(signature, token.rpartition(".")[0].encode())
    return json.loads(head), json.loads(claims)


def test_the_public_key_as_sdks_write_it() -> None:
    raw = base64.b64decode("j5BTvH+WJo0QGHm2hdLOuk6P7szKgTQxmpnnmZe/DcU=")
    assert Signer(PRIVATE.sign, raw).key_id == "publickeyv1_AfQwmwfgEZhrWpvv8N52SHpRtZqGGaFr4AZN6qtYWSiY"
    assert base58(b"\0\0\1") == "112"


def test_a_token_is_for_one_path_and_a_while_around_now() -> None:
    head, claims = opened(identity_token(SIGNER, request(), NOW_S, 60))
    assert head == {"typ": "JWT", "alg": "EdDSA", "kid": SIGNER.key_id}
    assert claims == {"aud": "/invoke/Counter/add", "iat": NOW_S, "nbf": NOW_S - 60, "exp": NOW_S + 60}


def test_a_key_is_the_subject_as_it_is_not_as_it_is_quoted() -> None:
    _, claims = opened(identity_token(SIGNER, request(key="a%2Fb%20%C3%A9"), NOW_S, 60))
    assert claims["sub"] == "a/b é"


@pytest.mark.parametrize("signer", [None, SIGNER], ids=["no key", "a key"])
def test_headers_are_added_with_a_key_and_not_without(signer: Signer | None) -> None:
    seen: list[StreamRequest] = []

    class Recording(MemoryTransport):
        def open(self, address, request, events):  # type: ignore[no-untyped-def]
            seen.append(request)

    class Clock:
        def now_ms(self) -> int:
            return NOW_S * 1000

    signing = SigningTransport(Recording.__new__(Recording), Clock(), 60_000, signer)  # type: ignore[arg-type]
    signing.open(None, request(), None)  # type: ignore[arg-type]
    names = [name for name, _ in seen[0].headers]
    added = ["x-restate-signature-scheme", "x-restate-jwt-v1"]
    assert names == ["content-type", *(added if signer else [])]

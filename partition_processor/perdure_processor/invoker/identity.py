"""◐ shell · Request identity: what a request to a deployment carries to show that it is ours.

A token per request: an Ed25519-signed JWT for the path below the deployment's address, which the official SDKs
verify with the public key that this server prints at its start.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from urllib.parse import unquote

from perdure_processor.clock import Clock
from perdure_processor.invoker.transport import Address, Stream, StreamEvents, StreamRequest, Transport
from perdure_processor.model.value import value

_ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"


@value
class Signer:
    """A key: how to sign with it, and its public half's raw bytes."""

    sign: Callable[[bytes], bytes]
    public_key: bytes

    @property
    def key_id(self) -> str:
        """The public key as SDKs take it (`identity_keys`)."""
        return f"publickeyv1_{base58(self.public_key)}"


class SigningTransport:
    """A Transport that signs what it opens; without a key it adds no header at all."""

    def __init__(self, transport: Transport, clock: Clock, validity_ms: int, signer: Signer | None) -> None:
        self._transport = transport
        self._clock = clock
        self._validity_s = validity_ms // 1000
        # Replaced as a whole when the key file is read again.
        self.signer = signer

    def open(self, address: Address, request: StreamRequest, events: StreamEvents) -> Stream:
        signer = self.signer
        if signer is not None:
            token = identity_token(signer, request, self._clock.now_ms() // 1000, self._validity_s)
            headers = [*request.headers, ("x-restate-signature-scheme", "v1"), ("x-restate-jwt-v1", token)]
            request = StreamRequest(request.method, request.path, headers, request.full_duplex)
        return self._transport.open(address, request, events)

    async def close(self) -> None:
        await self._transport.close()


def identity_token(signer: Signer, request: StreamRequest, now_s: int, validity_s: int) -> str:
    """The JWT of one request: for its path without the deployment's own, for a while around now."""
    claims: dict[str, int | str] = {
        "aud": request.path,
        "iat": now_s,
        "nbf": now_s - validity_s,
        "exp": now_s + validity_s,
    }
    key = next((content for name, content in request.headers if name == "x-restate-service-key"), None)
    if key is not None:
        claims["sub"] = unquote(key)
    head = {"typ": "JWT", "alg": "EdDSA", "kid": signer.key_id}
    signed = f"{_part(json.dumps(head, separators=(',', ':')).encode())}.{_part(json.dumps(claims).encode())}"
    return f"{signed}.{_part(signer.sign(signed.encode()))}"


def base58(raw: bytes) -> str:
    """Bytes in the alphabet of Bitcoin, without a checksum."""
    number = int.from_bytes(raw, "big")
    text = ""
    while number:
        number, digit = divmod(number, 58)
        text = _ALPHABET[digit] + text
    return "1" * (len(raw) - len(raw.lstrip(b"\0"))) + text


def _part(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")

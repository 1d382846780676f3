"""○ adapter · The private key of request identity, from a PEM file (cryptography)."""

from __future__ import annotations

from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key

from perdure_processor.invoker.identity import Signer

_MAKE_ONE = "make one with `openssl genpkey -algorithm ed25519`"


class KeyUnusable(Exception):
    """The file holds no key that can sign; the message says what it holds, and what to do."""


def load_signer(path: str) -> Signer:
    """The key in a file of exactly one PEM block, PKCS#8, Ed25519, without a password."""
    try:
        text = Path(path).read_bytes()
    except OSError as error:
        raise KeyUnusable(f"the key file {path} cannot be read: {error.strerror or error}") from error
    blocks = text.count(b"-----BEGIN ")
    if blocks != 1:
        raise KeyUnusable(f"the key file {path} has {blocks} PEM blocks, it must have exactly one; {_MAKE_ONE}")
    try:
        key = load_pem_private_key(text, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise KeyUnusable(f"the key file {path} holds no private key in PKCS#8 without a password: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyUnusable(f"the key in {path} is a {type(key).__name__}, it must be Ed25519; {_MAKE_ONE}")
    return Signer(key.sign, key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw))

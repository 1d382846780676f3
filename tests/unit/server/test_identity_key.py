"""The key file of request identity: what is taken, and what is refused with what to do."""

from __future__ import annotations

from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from perdure_server.identity_key import KeyUnusable, load_signer


def pem(key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey, password: bytes | None = None) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(password) if password else serialization.NoEncryption(),
    )


def test_a_key_signs(tmp_path: Path) -> None:
    key = Ed25519PrivateKey.generate()
    path = tmp_path / "key.pem"
    path.write_bytes(pem(key))
    signer = load_signer(str(path))
    key.public_key().verify(signer.sign(b"text"), b"text")
    assert signer.key_id.startswith("publickeyv1_")


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "has 0 PEM blocks, it must have exactly one"),
        (pem(Ed25519PrivateKey.generate()) * 2, "has 2 PEM blocks"),
        (b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n", "holds no private key in PKCS#8"),
        (pem(Ed25519PrivateKey.generate(), b"secret"), "without a password"),
        (pem(ec.generate_private_key(ec.SECP256R1())), "it must be Ed25519; make one with `openssl genpkey"),
    ],
    ids=["empty", "two", "broken", "with a password", "of another kind"],
)
def test_what_cannot_sign_is_refused(tmp_path: Path, content: bytes, words: str) -> None:
    path = tmp_path / "key.pem"
    path.write_bytes(content)
    with pytest.raises(KeyUnusable) as refused:
        load_signer(str(path))
    assert words in str(refused.value)
    assert str(path) in str(refused.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(KeyUnusable, match="cannot be read: No such file"):
        load_signer(str(tmp_path / "none.pem"))

"""A key is rotated under the official Python SDK: both keys are known there, the file changes, a signal is sent."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from perdure_server.identity_key import load_signer
from support.processes import NotReady, Server, python_deployment, request

HERE = Path(__file__).resolve().parent
SAID_TIMEOUT_S = 10.0


def new_key(path: Path) -> str:
    """Write a private key; the public one as SDKs take it."""
    path.write_bytes(
        Ed25519PrivateKey.generate().private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return load_signer(str(path)).key_id


def until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + SAID_TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_rotation_with_both_keys_known(tmp_path: Path) -> None:
    old, new, broken = (tmp_path / f"{name}.pem" for name in ("old", "new", "broken"))
    keys = new_key(old), new_key(new)
    broken.write_text("no key\n")
    in_use = tmp_path / "key.pem"
    in_use.write_bytes(old.read_bytes())
    server = Server("perdure", tmp_path / "server")
    server.env["PERDURE_REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE"] = str(in_use)
    deployments = [
        python_deployment("identity_services:app", HERE, tmp_path / f"{place}.log", {"IDENTITY_KEYS": known})
        for place, known in enumerate((",".join(keys), keys[1]))
    ]
    knows_both, knows_the_new = deployments
    try:
        for process in (server, *deployments):
            process.start()

        def told(text: str, times: int = 1) -> Callable[[], bool]:
            return lambda: server.log.read_text().count(text) >= times

        def reread(path: Path) -> None:
            in_use.write_bytes(path.read_bytes())
            os.kill(server.pid, signal.SIGHUP)

        def greets() -> bool:
            return request("POST", f"{server.ingress_url}/Greeter/greet", "Ada") == (200, b'"hi Ada"')

        assert told(keys[0])()
        server.register(knows_both.uri)
        assert greets()
        with pytest.raises(NotReady, match="401"):
            server.register(knows_the_new.uri, force=True)

        reread(new)
        until(told(keys[1]))
        assert greets()
        server.register(knows_the_new.uri, force=True)
        assert greets()

        reread(broken)
        until(told("the key in use is kept"))
        assert greets()
    finally:
        for process in (server, *deployments):
            process.kill()


def test_a_server_whose_key_is_none_does_not_start(tmp_path: Path) -> None:
    broken = tmp_path / "key.pem"
    broken.write_text("no key\n")
    server = Server("perdure", tmp_path / "server")
    server.env["PERDURE_REQUEST_IDENTITY_PRIVATE_KEY_PEM_FILE"] = str(broken)
    try:
        with pytest.raises(NotReady, match="has 0 PEM blocks, it must have exactly one"):
            server.start()
    finally:
        server.kill()

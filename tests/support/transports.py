"""What tests of transports share: an attempt that writes down what it is told, deployments, a private CA."""

from __future__ import annotations

import asyncio
import datetime
import ipaddress
import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Protocol

import hypercorn.asyncio
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from hypercorn.config import Config
from jh2.config import H2Configuration
from jh2.connection import H2Connection
from jh2.events import ConnectionTerminated, DataReceived, RequestReceived, StreamEnded, StreamReset, WindowUpdated
from jh2.settings import Settings

from perdure_processor.invoker.transport import Address, Closed, Stream, StreamRequest, Transport

PATIENCE_S = 20.0


class Attempt:
    """Implements StreamEvents: keeps what arrives, and consumes it unless told not to."""

    def __init__(self, *, consumes: bool = True) -> None:
        self.consumes = consumes
        self.stream: Stream | None = None
        self.status: int | None = None
        self.headers: dict[str, str] = {}
        self.body = bytearray()
        self.closed: Closed | None = None
        self._changed = asyncio.Event()
        self._in_a_call = False

    def start(
        self,
        transport: Transport,
        address: Address,
        path: str = "/echo",
        *,
        method: str = "POST",
        headers: Sequence[tuple[str, str]] = (),
        full_duplex: bool = True,
    ) -> Attempt:
        with self._calling():
            self.stream = transport.open(address, StreamRequest(method, path, headers, full_duplex), self)
        return self

    def send(self, data: bytes) -> None:
        with self._calling():
            self._open.send(data)

    def finish(self) -> None:
        with self._calling():
            self._open.finish()

    def reset(self) -> None:
        with self._calling():
            self._open.reset()

    def consume(self) -> None:
        """Deal with everything that has arrived, and from now on with everything at once."""
        self.consumes = True
        with self._calling():
            self._open.consumed(len(self.body))

    async def until(self, condition: Callable[[Attempt], Any]) -> None:
        """Wait for what the condition says; an end that comes instead is a failure."""
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self):
                assert self.closed is None, f"the stream ended before: {self.closed}"
                self._changed.clear()
                await self._changed.wait()

    async def end(self) -> Closed:
        await self.until(lambda attempt: attempt.closed is not None)
        assert self.closed is not None
        return self.closed

    def on_response(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self._check()
        assert self.status is None, "two responses"
        assert not self.body, "data before the response"
        self.status, self.headers = status, dict(headers)

    def on_data(self, data: bytes) -> None:
        self._check()
        assert self.status is not None, "data before the response"
        self.body += data
        if self.consumes:
            self._open.consumed(len(data))

    def on_closed(self, closed: Closed) -> None:
        self._check()
        self.closed = closed

    @property
    def _open(self) -> Stream:
        assert self.stream is not None
        return self.stream

    def _check(self) -> None:
        assert not self._in_a_call, "called from within a method of the stream"
        assert self.closed is None, "called after on_closed"
        self._changed.set()

    def _calling(self) -> _Calling:
        return _Calling(self)


class _Calling:
    def __init__(self, attempt: Attempt) -> None:
        self._attempt = attempt

    def __enter__(self) -> None:
        self._attempt._in_a_call = True

    def __exit__(self, *_: object) -> None:
        self._attempt._in_a_call = False


class Peer(Protocol):
    """A deployment's end of one stream, whatever carries it."""

    @property
    def path(self) -> str: ...

    @property
    def headers(self) -> Sequence[tuple[str, str]]: ...

    async def read(self) -> bytes | None: ...

    async def respond(self, status: int, headers: Sequence[tuple[str, str]] = ()) -> None: ...

    async def write(self, data: bytes) -> None: ...

    async def end(self) -> None: ...


Handler = Callable[[Peer], Awaitable[None]]


class AsgiPeer:
    """A Peer behind an ASGI server."""

    def __init__(self, scope: Any, receive: Any, send: Any) -> None:
        self._scope, self._receive, self._send = scope, receive, send
        self._ended = False

    @property
    def path(self) -> str:
        return str(self._scope["path"])

    @property
    def headers(self) -> Sequence[tuple[str, str]]:
        return [(name.decode(), content.decode()) for name, content in self._scope["headers"]]

    async def read(self) -> bytes | None:
        while not self._ended:
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise asyncio.CancelledError
            self._ended = not message.get("more_body", False)
            if message["body"]:
                return bytes(message["body"])
        return None

    async def respond(self, status: int, headers: Sequence[tuple[str, str]] = ()) -> None:
        pairs = [(name.encode(), content.encode()) for name, content in headers]
        await self._send({"type": "http.response.start", "status": status, "headers": pairs})

    async def write(self, data: bytes) -> None:
        await self._send({"type": "http.response.body", "body": data, "more_body": True})

    async def end(self) -> None:
        await self._send({"type": "http.response.body", "body": b"", "more_body": False})


@asynccontextmanager
async def hypercorn_deployment(
    handler: Handler, *, tls: PrivateCa | None = None, alpn: str = "h2"
) -> AsyncIterator[str]:
    """The handler behind hypercorn, as the official Python SDK is served; gives its uri."""

    async def app(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            try:
                await handler(AsgiPeer(scope, receive, send))
            except asyncio.CancelledError:
                return  # the client went away: the handler has had its chance to note it

    port = free_port()
    config = Config()
    config.bind = [f"127.0.0.1:{port}"]
    config.alpn_protocols = [alpn]
    config.graceful_timeout = config.shutdown_timeout = 0.2
    config.loglevel = "CRITICAL"
    if tls is not None:
        config.certfile, config.keyfile = str(tls.certificate), str(tls.key)
    stop = asyncio.Event()
    server = asyncio.create_task(hypercorn.asyncio.serve(app, config, shutdown_trigger=stop.wait))  # type: ignore[arg-type]
    try:
        await _listening(port)
        yield f"{'https' if tls else 'http'}://127.0.0.1:{port}"
    finally:
        stop.set()
        await asyncio.wait([server])


class H2Peer(asyncio.Protocol):
    """A deployment that speaks HTTP/2 and does what the test says: frame by frame, or by `behave`."""

    def __init__(self, behave: Callable[[H2Peer, Any], None], settings: dict[int, int] | None = None) -> None:
        self.wire = H2Connection(H2Configuration(client_side=False))
        if settings:
            self.wire.local_settings = Settings(client=False, initial_values=settings)
        self._behave = behave
        self.requests: list[int] = []
        self.ended: list[int] = []
        self.resets: list[tuple[int, int]] = []
        self.received: dict[int, int] = {}
        self.goaways = 0
        self.lost = asyncio.Event()
        self._changed = asyncio.Event()
        self._to_write: dict[int, memoryview] = {}

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport: Any = transport
        self.wire.initiate_connection()
        self.flush()

    def data_received(self, data: bytes) -> None:
        for event in self.wire.receive_data(data):
            match event:
                case RequestReceived():
                    self.requests.append(event.stream_id)
                case StreamEnded():
                    self.ended.append(event.stream_id)
                case StreamReset():
                    self.resets.append((event.stream_id, event.error_code))
                case ConnectionTerminated():
                    self.goaways += 1
                case DataReceived():
                    self.received[event.stream_id] = self.received.get(event.stream_id, 0) + len(event.data)
                case WindowUpdated():
                    self._pump()
            self._behave(self, event)
        self.flush()
        self._changed.set()

    def connection_lost(self, exc: Exception | None) -> None:
        self.lost.set()
        self._changed.set()

    def flush(self) -> None:
        if not self.transport.is_closing():
            self.transport.write(self.wire.data_to_send())

    def answer(self, stream_id: int, body: bytes = b"", *, end: bool = True) -> None:
        self.wire.send_headers(stream_id, [(":status", "200")], end_stream=end and not body)
        if body:
            self._to_write[stream_id] = memoryview(body)
            self._pump()

    def _pump(self) -> None:
        for stream_id, rest in list(self._to_write.items()):
            while rest:
                room = min(self.wire.local_flow_control_window(stream_id), self.wire.max_outbound_frame_size)
                if room <= 0:
                    break
                data, rest = bytes(rest[:room]), rest[room:]
                self.wire.send_data(stream_id, data, end_stream=not rest)
            if rest:
                self._to_write[stream_id] = rest
            else:
                del self._to_write[stream_id]

    async def until(self, condition: Callable[[H2Peer], Any]) -> None:
        async with asyncio.timeout(PATIENCE_S):
            while not condition(self):
                self._changed.clear()
                await self._changed.wait()


class H2Deployment:
    """Accepts connections, each an H2Peer."""

    def __init__(self) -> None:
        self.peers: list[H2Peer] = []
        self.address = Address("", False)


def answer_at_the_end(peer: H2Peer, event: Any) -> None:
    """The plain deployment: takes everything, answers once the request is complete."""
    if isinstance(event, DataReceived) and event.flow_controlled_length:
        peer.wire.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
    elif isinstance(event, StreamEnded):
        peer.answer(event.stream_id)


def say_nothing(peer: H2Peer, event: Any) -> None:
    """Takes requests and leaves the answers to the test."""


@asynccontextmanager
async def h2_deployment(
    behave: Callable[[H2Peer, Any], None] = answer_at_the_end, *, settings: dict[int, int] | None = None
) -> AsyncIterator[H2Deployment]:
    deployment = H2Deployment()

    def accept() -> H2Peer:
        peer = H2Peer(behave, settings)
        deployment.peers.append(peer)
        return peer

    server = await asyncio.get_running_loop().create_server(accept, "127.0.0.1", 0)
    deployment.address = Address(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", False)
    try:
        yield deployment
    finally:
        server.close()
        for peer in deployment.peers:
            peer.transport.abort()


class PrivateCa:
    """A certificate authority that nobody trusts by itself, and a certificate of it for 127.0.0.1."""

    def __init__(self, directory: Path) -> None:
        self.ca_file = directory / "ca.pem"
        self.certificate = directory / "certificate.pem"
        self.key = directory / "key.pem"
        ca_key = ec.generate_private_key(ec.SECP256R1())
        ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a private CA")])
        ca = _certificate(ca_name, ca_name, ca_key, ca_key).sign(ca_key, hashes.SHA256())
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a deployment")])
        certificate = _certificate(name, ca_name, key, ca_key).sign(ca_key, hashes.SHA256())
        self.ca_file.write_bytes(ca.public_bytes(serialization.Encoding.PEM))
        self.certificate.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
        self.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                serialization.NoEncryption(),
            )
        )

    def server_context(self) -> ssl.SSLContext:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.certificate, self.key)
        return context


def _certificate(
    name: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePrivateKey, issuer_key: ec.EllipticCurvePrivateKey
) -> x509.CertificateBuilder:
    now = datetime.datetime.now(datetime.UTC)
    is_ca = name == issuer
    return (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), critical=False)
    )


def free_port() -> int:
    """A port on which nobody listens at this moment."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


async def _listening(port: int) -> None:
    async with asyncio.timeout(PATIENCE_S):
        while True:
            try:
                _, writer = await asyncio.open_connection("127.0.0.1", port)
            except ConnectionRefusedError:
                await asyncio.sleep(0.01)
            else:
                writer.close()
                return

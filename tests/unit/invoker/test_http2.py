"""HTTP/2 to deployments: what the pool and its connections do when a peer behaves as peers do.

The peer is jh2's server side in this process, frame by frame under the test's control.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from jh2.errors import ErrorCodes
from jh2.events import DataReceived, StreamEnded
from jh2.settings import SettingCodes

from perdure_processor.invoker.http2 import Http2Connection, Http2Options
from perdure_processor.invoker.http2_stream import Http2Stream
from perdure_processor.invoker.pool import DeploymentTransport
from perdure_processor.invoker.transport import Address
from perdure_processor.model.limits import (
    HTTP2_CONNECTIONS_PER_ORIGIN_MAX,
    HTTP2_REQUESTS_PER_CONNECTION_MAX,
    HTTP2_STREAMS_PER_CONNECTION_MAX,
)
from support.transports import (
    Attempt,
    H2Peer,
    PrivateCa,
    answer_at_the_end,
    h2_deployment,
    hypercorn_deployment,
    say_nothing,
)

QUICK = Http2Options(
    connect_timeout_s=0.2, ping_interval_s=0.05, ping_timeout_s=0.1, idle_timeout_s=60.0, sweep_interval_s=0.01
)


def run(scenario: Callable[[DeploymentTransport], Awaitable[None]], **arguments: Any) -> None:
    async def main() -> None:
        transport = DeploymentTransport(**arguments)
        try:
            async with asyncio.timeout(30):
                await scenario(transport)
        finally:
            await transport.close()

    asyncio.run(main())


def test_settings_and_windows_are_those_of_the_original_server() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment() as deployment:
            attempt = Attempt().start(transport, deployment.address)
            attempt.finish()
            await attempt.end()
            wire = deployment.peers[0].wire
            assert wire.remote_settings.initial_window_size == 2_097_152
            assert wire.remote_settings.max_frame_size == 16_384
            assert wire.remote_settings.enable_push == 0
            assert wire.outbound_flow_control_window == 16 * 2_097_152

    run(scenario)


def test_33_megabytes_flow_both_ways_under_flow_control() -> None:
    body = bytes(33 * 1000 * 1000)

    def behave(peer: H2Peer, event: Any) -> None:
        if isinstance(event, DataReceived) and event.flow_controlled_length:
            peer.wire.acknowledge_received_data(event.flow_controlled_length, event.stream_id)
        elif isinstance(event, StreamEnded):
            peer.answer(event.stream_id, body)

    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment(behave) as deployment:
            attempt = Attempt().start(transport, deployment.address)
            attempt.send(body)
            attempt.finish()
            assert (await attempt.end()).error is None
            assert deployment.peers[0].received == {1: len(body)}
            assert len(attempt.body) == len(body)

    run(scenario)


def test_a_long_request_does_not_hold_up_a_short_one_on_the_same_connection() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment() as deployment:
            long, short = (Attempt().start(transport, deployment.address) for _ in range(2))
            long.send(bytes(16 * 1024 * 1024))
            long.finish()
            short.send(b"quick")
            short.finish()
            await short.end()
            assert long.closed is None
            await long.end()
            assert len(deployment.peers) == 1

    run(scenario)


def test_streams_beyond_the_bound_go_to_a_second_connection() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment(say_nothing, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 1000}) as deployment:
            attempts = [Attempt().start(transport, deployment.address) for _ in range(200)]
            await first_connection(deployment.peers)
            await deployment.peers[0].until(lambda peer: len(peer.requests) == HTTP2_STREAMS_PER_CONNECTION_MAX)
            while len(deployment.peers) < 2:
                await asyncio.sleep(0)
            await deployment.peers[1].until(lambda peer: len(peer.requests) == 200 - HTTP2_STREAMS_PER_CONNECTION_MAX)
            for peer in deployment.peers:
                for stream_id in peer.requests:
                    peer.answer(stream_id)
                peer.flush()
            for attempt in attempts:
                assert (await attempt.end()).error is None

    run(scenario)


def test_a_peer_that_allows_fewer_streams_is_not_asked_for_more() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment(say_nothing, settings={SettingCodes.MAX_CONCURRENT_STREAMS: 10}) as deployment:
            attempts = [Attempt().start(transport, deployment.address) for _ in range(45)]
            for number, expected in enumerate([10, 10, 10, 10, 5]):
                while len(deployment.peers) <= number:
                    await asyncio.sleep(0)
                await deployment.peers[number].until(lambda peer, expected=expected: len(peer.requests) == expected)  # type: ignore[misc]
            assert all(attempt.closed is None for attempt in attempts)

    run(scenario)


def test_a_header_that_cannot_be_sent_over_http1_is_told_as_an_end() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment() as deployment:
            address = Address(deployment.address.uri, True)
            attempt = Attempt().start(transport, address, headers=[("x-broken", "a\r\nb")])
            assert (await attempt.end()).never_sent

    run(scenario)


def test_full_connections_refuse_instead_of_growing() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment(say_nothing) as deployment:
            room = HTTP2_CONNECTIONS_PER_ORIGIN_MAX * HTTP2_STREAMS_PER_CONNECTION_MAX
            attempts = [Attempt().start(transport, deployment.address) for _ in range(room + 1)]
            closed = await attempts[-1].end()
            assert closed.never_sent
            assert "full" in (closed.error or "")
            assert attempts[-2].closed is None

    run(scenario)


def test_goaway_spares_the_streams_that_the_peer_took() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment(say_nothing) as deployment:
            taken, refused = (Attempt().start(transport, deployment.address) for _ in range(2))
            await first_connection(deployment.peers)
            old = deployment.peers[0]
            await old.until(lambda peer: len(peer.requests) == 2)
            say_goaway(old, last_stream_id=1)
            closed = await refused.end()
            assert closed.never_sent
            assert "GOAWAY" in (closed.error or "")
            new = Attempt().start(transport, deployment.address)
            while len(deployment.peers) < 2:
                await asyncio.sleep(0)
            await deployment.peers[1].until(lambda peer: peer.requests)
            old.answer(1, b"finished on the old connection")
            old.flush()
            assert (await taken.end()).error is None
            assert taken.body == b"finished on the old connection"
            await old.lost.wait()  # nothing is left on it
            assert new.closed is None

    run(scenario)


def test_a_connection_is_replaced_before_hypercorn_would_cut_it() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment() as deployment:
            for batch in range(25):
                attempts = [Attempt().start(transport, deployment.address) for _ in range(50)]
                for attempt in attempts:
                    attempt.finish()
                for attempt in attempts:
                    assert (await attempt.end()).error is None
                if (batch + 1) * 50 == HTTP2_REQUESTS_PER_CONNECTION_MAX - 50:
                    assert len(deployment.peers) == 2, "the successor is there before it is needed"
            assert [len(peer.requests) for peer in deployment.peers] == [HTTP2_REQUESTS_PER_CONNECTION_MAX, 250]
            await deployment.peers[0].lost.wait()

    run(scenario)


def test_the_bound_is_learned_from_a_peer_that_is_stricter() -> None:
    def behave(peer: H2Peer, event: Any) -> None:
        answer_at_the_end(peer, event)
        if len(peer.requests) == 301 and not peer.goaways:
            peer.goaways = 1
            say_goaway(peer, last_stream_id=601)

    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment(behave) as deployment:
            for _ in range(700):
                attempt = Attempt().start(transport, deployment.address)
                attempt.finish()
                assert (await attempt.end()).error is None
            assert [len(peer.requests) for peer in deployment.peers] == [301, 300, 99]

    run(scenario)


@pytest.mark.parametrize(
    ("code", "name", "never_sent"),
    [(ErrorCodes.INTERNAL_ERROR, "INTERNAL_ERROR", False), (ErrorCodes.REFUSED_STREAM, "REFUSED_STREAM", True)],
)
def test_a_reset_by_the_peer(code: ErrorCodes, name: str, never_sent: bool) -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment(say_nothing) as deployment:
            hit, other = (Attempt().start(transport, deployment.address) for _ in range(2))
            await first_connection(deployment.peers)
            peer = deployment.peers[0]
            await peer.until(lambda peer: len(peer.requests) == 2)
            peer.wire.reset_stream(1, code)
            peer.answer(3)
            peer.flush()
            closed = await hit.end()
            assert name in (closed.error or "")
            assert closed.never_sent is never_sent
            assert (await other.end()).error is None

    run(scenario)


def test_a_reset_of_ours_is_a_cancel_on_the_wire() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment(say_nothing) as deployment:
            attempt = Attempt().start(transport, deployment.address)
            await first_connection(deployment.peers)
            await deployment.peers[0].until(lambda peer: peer.requests)
            attempt.reset()
            await deployment.peers[0].until(lambda peer: peer.resets)
            assert deployment.peers[0].resets == [(1, ErrorCodes.CANCEL)]
            assert not (await attempt.end()).never_sent

    run(scenario)


def test_a_response_that_is_complete_before_the_request_is_a_success() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment(say_nothing) as deployment:
            attempt = Attempt().start(transport, deployment.address)
            await first_connection(deployment.peers)
            peer = deployment.peers[0]
            await peer.until(lambda peer: peer.requests)
            peer.answer(1, b"early")
            peer.flush()
            assert (await attempt.end()).error is None
            await peer.until(lambda peer: peer.resets)  # so that the peer's stream does not stay half-open

    run(scenario)


def test_unconsumed_bytes_of_a_finished_stream_are_given_back_to_the_connection() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment(say_nothing) as deployment:
            for number in range(40):  # 40 MiB through a window of 32
                attempt = Attempt(consumes=False).start(transport, deployment.address)
                await first_connection(deployment.peers)
                peer = deployment.peers[0]
                await peer.until(lambda peer, number=number: len(peer.requests) == number + 1)  # type: ignore[misc]
                peer.answer(peer.requests[-1], bytes(1024 * 1024))
                peer.flush()
                assert (await attempt.end()).error is None

    run(scenario)


def test_an_http1_server_is_named_as_such() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n")
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        attempt = Attempt().start(transport, address_of(server))
        closed = await attempt.end()
        assert closed.spoke_http1
        assert "HTTP/1.1" in (closed.error or "")
        assert "use_http_11" in (closed.error or "")
        server.close()

    run(scenario)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (b"\x00\x00\x04\x08\x00\x00\x00\x00\x00\x00\x00\x00\x00", "broke the HTTP/2 protocol"),
        (b"SSH-2.0-OpenSSH_9.6\r\n", "does not speak HTTP/2"),
        (b"", "was lost"),
    ],
    ids=["window update by zero", "another protocol", "a closed door"],
)
def test_garbage_ends_the_connection_with_a_reason(said: bytes, expected: str) -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(100_000)
            writer.write(said)
            writer.close()

        server = await asyncio.start_server(answer, "127.0.0.1", 0)
        attempt = Attempt().start(transport, address_of(server))
        closed = await attempt.end()
        assert expected in (closed.error or "")
        assert closed.never_sent, "nothing is sent before the peer's SETTINGS"
        server.close()

    run(scenario)


@pytest.mark.parametrize("uri", ["ftp://x", "http://", "http://h:99999", "https://no-such-host.invalid:1", "nonsense"])
def test_an_address_that_cannot_work_is_told_as_an_end(uri: str) -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        closed = await Attempt().start(transport, Address(uri, False)).end()
        assert closed.never_sent
        assert closed.error

    run(scenario)


def test_a_handshake_that_does_not_come_is_given_up() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async def hold(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read()
            writer.close()

        server = await asyncio.start_server(hold, "127.0.0.1", 0)
        uri = address_of(server).uri.replace("http:", "https:")
        closed = await Attempt().start(transport, Address(uri, False)).end()
        assert closed.never_sent
        assert "within 0.2 s" in (closed.error or "")
        server.close()

    run(scenario, options=QUICK)


def test_a_silent_peer_is_pinged_and_lives_if_it_answers() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        pings = []

        def behave(peer: H2Peer, event: Any) -> None:
            if type(event).__name__ == "PingReceived":
                pings.append(event)

        async with h2_deployment(behave) as deployment:
            attempt = Attempt().start(transport, deployment.address)
            await first_connection(deployment.peers)
            peer = deployment.peers[0]
            await peer.until(lambda _: len(pings) >= 3)
            assert attempt.closed is None
            peer.answer(1)
            peer.flush()
            assert (await attempt.end()).error is None

    run(scenario, options=QUICK)


def test_a_peer_that_answers_no_ping_is_given_up() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment(say_nothing) as deployment:
            attempt = Attempt().start(transport, deployment.address)
            await first_connection(deployment.peers)
            await deployment.peers[0].until(lambda peer: peer.requests)
            deployment.peers[0].transport.pause_reading()
            closed = await attempt.end()
            assert "ping" in (closed.error or "")
            assert not closed.never_sent

    run(scenario, options=QUICK)


def test_an_idle_connection_is_closed_in_good_order() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment() as deployment:
            attempt = Attempt().start(transport, deployment.address)
            attempt.finish()
            await attempt.end()
            await deployment.peers[0].lost.wait()
            assert deployment.peers[0].goaways == 1

    run(scenario, options=Http2Options(idle_timeout_s=0.02, sweep_interval_s=0.01))


def test_a_connection_that_the_peer_closed_while_idle_is_replaced_unnoticed() -> None:
    async def scenario(transport: DeploymentTransport) -> None:
        async with h2_deployment() as deployment:
            for round_number in range(3):
                attempt = Attempt().start(transport, deployment.address)
                attempt.finish()
                assert (await attempt.end()).error is None
                peer = deployment.peers[round_number]
                peer.transport.close()
                await peer.lost.wait()
                for _ in range(10):
                    await asyncio.sleep(0)

    run(scenario)


@pytest.mark.parametrize("alpn", ["h2", "http/1.1"])
def test_https_agrees_by_alpn_under_a_private_ca(tmp_path: Path, alpn: str) -> None:
    ca = PrivateCa(tmp_path)
    versions = []

    async def handler(peer: Any) -> None:
        versions.append(peer._scope["http_version"])
        await peer.respond(200)
        while (data := await peer.read()) is not None:
            await peer.write(data)
        await peer.end()

    async def scenario(transport: DeploymentTransport) -> None:
        async with hypercorn_deployment(handler, tls=ca, alpn=alpn) as uri:
            attempts = [Attempt().start(transport, Address(uri, False)) for _ in range(5)]
            for attempt in attempts:
                attempt.send(b"secret")
                attempt.finish()
            for attempt in attempts:
                assert (await attempt.end()).error is None
                assert attempt.body == b"secret"
            assert versions == [{"h2": "2", "http/1.1": "1.1"}[alpn]] * 5

    run(scenario, ca_file=str(ca.ca_file))


def test_a_certificate_of_an_unknown_ca_is_refused(tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path)

    async def handler(peer: Any) -> None:
        raise AssertionError("reached without trust")

    async def scenario(transport: DeploymentTransport) -> None:
        async with hypercorn_deployment(handler, tls=ca) as uri:
            for http1 in (False, True):
                closed = await Attempt().start(transport, Address(uri, http1)).end()
                assert closed.never_sent
                assert "certificate" in (closed.error or "").lower()

    run(scenario)


def test_a_door_that_closes_after_the_tls_handshake_is_told(tmp_path: Path) -> None:
    ca = PrivateCa(tmp_path)
    context = ca.server_context()
    context.set_alpn_protocols(["h2"])

    async def close_at_once(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.close()

    async def scenario(transport: DeploymentTransport) -> None:
        server = await asyncio.start_server(close_at_once, "127.0.0.1", 0, ssl=context)
        uri = address_of(server).uri.replace("http:", "https:")
        attempts = [Attempt().start(transport, Address(uri, False)) for _ in range(3)]
        for attempt in attempts:
            assert (await attempt.end()).never_sent
        server.close()

    run(scenario, ca_file=str(ca.ca_file))


class RecordedTransport(asyncio.Transport):
    """Keeps the writes of a connection under test."""

    def __init__(self) -> None:
        super().__init__()
        self.writes: list[bytes] = []

    def write(self, data: Any) -> None:
        self.writes.append(bytes(data))

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def get_write_buffer_size(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def abort(self) -> None:
        pass


class NobodyOwns:
    """A ConnectionOwner without interest."""

    def on_ready(self, connection: Http2Connection) -> None: ...

    def on_streams_max(self, streams_max: int) -> None: ...

    def on_http1(self, connection: Http2Connection, streams: list[Http2Stream]) -> None: ...

    def on_turned_away(self, streams: list[Http2Stream]) -> None: ...

    def on_retired(self, connection: Http2Connection, requests_taken: int | None) -> None: ...

    def on_gone(self, connection: Http2Connection, reason: str) -> None: ...


HEAD = [(b":method", b"POST", False), (b":scheme", b"http", False), (b":path", b"/", False)]


def test_writes_come_after_eight_streams_or_16_kib_and_at_the_end_of_the_turn() -> None:
    async def main() -> None:
        wire = RecordedTransport()
        connection = Http2Connection("http://a", NobodyOwns(), Http2Options())
        connection.connection_made(wire)
        connection.data_received(b"\0\0\0\x04\0\0\0\0\0")  # the peer's SETTINGS
        await asyncio.sleep(0)
        del wire.writes[:]

        def open_with(size: int) -> None:
            stream = Http2Stream(list(HEAD), Attempt())
            connection.add(stream)
            stream.send(bytes(size))

        for _ in range(7):
            open_with(10)
        assert wire.writes == []
        open_with(10)
        assert len(wire.writes) == 1, "the eighth stream"
        open_with(10)
        assert len(wire.writes) == 1
        await asyncio.sleep(0)
        assert len(wire.writes) == 2, "the end of the turn"
        open_with(17 * 1024)
        assert len(wire.writes) >= 3, "16 KiB"

    asyncio.run(main())


async def first_connection(peers: list[H2Peer]) -> None:
    async with asyncio.timeout(10):
        while not peers:
            await asyncio.sleep(0)


def address_of(server: asyncio.Server) -> Address:
    return Address(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", False)


def say_goaway(peer: H2Peer, *, last_stream_id: int) -> None:
    """As nginx does it: the frame alone; jh2's own close_connection would refuse to go on with other streams."""
    peer.transport.write(
        peer.wire.data_to_send() + b"\x00\x00\x08\x07\x00\x00\x00\x00\x00" + last_stream_id.to_bytes(4) + bytes(4)
    )

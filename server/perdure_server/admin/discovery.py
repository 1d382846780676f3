"""◐ shell · Discovery: ask a deployment for its endpoint manifest, over the transport that will call it later."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import TypeAlias

from perdure_processor.invoker.transport import Address, Closed, Stream, StreamRequest, Transport
from perdure_processor.model.value import value
from perdure_server.admin.errors import AdminError
from perdure_server.limits import (
    DISCOVERY_EXCERPT_BYTES_MAX,
    DISCOVERY_FIRST_PAUSE_S,
    DISCOVERY_TIMEOUT_S,
    DISCOVERY_TRIES_MAX,
    MANIFEST_BYTES_MAX,
)

MANIFEST_CONTENT_TYPES = tuple(f"application/vnd.restate.endpointmanifest.v{version}+json" for version in (1, 2, 3, 4))

_RETRIED_STATUSES = frozenset({408, 429, 500, 502, 503, 504})


@value
class Discovered:
    """What the endpoint answered; the manifest is parsed elsewhere. `server` is its x-restate-server header."""

    content_type: str | None
    server: str | None
    body: bytes


class DiscoveryError(AdminError):
    """No manifest: META0003 unreachable, META0013 malformed, META0014 the endpoint spoke HTTP/1.1."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(500, code, f"[{code}] {message}")


Discover: TypeAlias = Callable[[Address, Mapping[str, str]], Awaitable[Discovered]]


def discover(transport: Transport, *, timeout_s: float = DISCOVERY_TIMEOUT_S) -> Discover:
    """A function that asks an endpoint, and asks again for a while about what may pass by itself."""

    async def ask(address: Address, additional_headers: Mapping[str, str]) -> Discovered:
        headers = [("accept", ", ".join(MANIFEST_CONTENT_TYPES))]
        headers += [(name.lower(), content) for name, content in additional_headers.items()]
        return await _ask_repeatedly(transport, address, headers, timeout_s)

    return ask


async def _ask_repeatedly(
    transport: Transport, address: Address, headers: Sequence[tuple[str, str]], timeout_s: float
) -> Discovered:
    request = StreamRequest("GET", "/discover", headers, full_duplex=False)
    last = _unreachable(address, f"no complete answer within {timeout_s:g} s")
    try:
        async with asyncio.timeout(timeout_s):
            for attempt in range(DISCOVERY_TRIES_MAX):
                if attempt:
                    await asyncio.sleep(DISCOVERY_FIRST_PAUSE_S * 2 ** (attempt - 1))
                answer = await _ask_once(transport, address, request)
                if isinstance(answer, Discovered):
                    return answer
                last = answer
    except TimeoutError:
        pass  # the last failure says more than the time that passed
    raise last


async def _ask_once(transport: Transport, address: Address, request: StreamRequest) -> Discovered | DiscoveryError:
    """The answer, or an error worth another try; raises those that are not."""
    response = _Response()
    response.stream = stream = transport.open(address, request, response)
    stream.finish()
    try:
        await response.closed.wait()
    except asyncio.CancelledError:
        stream.reset()
        raise
    if response.too_large:
        raise DiscoveryError("META0013", f"the manifest of '{address.uri}' exceeds {MANIFEST_BYTES_MAX} bytes")
    end = response.end
    assert end is not None
    if end.spoke_http1:
        raise DiscoveryError("META0014", f"error when calling '{address.uri}/discover': {end.error}")
    if end.error is not None:
        return _unreachable(address, end.error)
    if response.status != 200:
        excerpt = bytes(response.body[:DISCOVERY_EXCERPT_BYTES_MAX]).decode("utf-8", "replace")
        error = _unreachable(address, f"status {response.status}" + (f": {excerpt}" if excerpt else ""))
        if response.status in _RETRIED_STATUSES:
            return error
        raise error
    return Discovered(response.header("content-type"), response.header("x-restate-server"), bytes(response.body))


def _unreachable(address: Address, reason: str) -> DiscoveryError:
    return DiscoveryError("META0003", f"error when calling '{address.uri}/discover': {reason}")


class _Response:
    """Collects one response, up to a bound."""

    def __init__(self) -> None:
        self.stream: Stream | None = None
        self.status = 0
        self.body = bytearray()
        self.end: Closed | None = None
        self.too_large = False
        self.closed = asyncio.Event()
        self._headers: Sequence[tuple[str, str]] = ()

    def header(self, name: str) -> str | None:
        return next((content for key, content in self._headers if key == name), None)

    def on_response(self, status: int, headers: Sequence[tuple[str, str]]) -> None:
        self.status = status
        self._headers = headers

    def on_data(self, data: bytes) -> None:
        assert self.stream is not None
        if len(self.body) + len(data) > MANIFEST_BYTES_MAX:
            if not self.too_large:
                self.too_large = True
                self.stream.reset()
            return
        self.body += data
        self.stream.consumed(len(data))

    def on_closed(self, closed: Closed) -> None:
        self.end = closed
        self.closed.set()

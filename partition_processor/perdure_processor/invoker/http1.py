"""○ adapter · Streams over HTTP/1.1, with aiohttp: one connection per request, both bodies chunked.

The deployments that need it (request/response SDKs, load balancers without HTTP/2) are not the hot path: here a
stream is a task, as aiohttp wants it.  Request and response may overlap; nothing waits for the end of the other.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator

import aiohttp
from yarl import URL

from perdure_processor.invoker.transport import Address, Closed, Stream, StreamEvents, StreamRequest
from perdure_processor.model.limits import (
    CONNECT_TIMEOUT_S,
    HTTP1_CONNECTIONS_MAX,
    HTTP1_KEEP_ALIVE_S,
    STREAM_WINDOW_BYTES,
)

# What aiohttp would add of its own; a deployment sees the headers that were asked for.
_NO_HEADERS_OF_ITS_OWN = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")


class Http1Transport:
    """Opens streams over HTTP/1.1, with TLS for https addresses."""

    def __init__(self, *, ca_file: str | None = None, connect_timeout_s: float = CONNECT_TIMEOUT_S) -> None:
        self._ca_file = ca_file
        self._connect_timeout_s = connect_timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._streams: dict[Http1Stream, None] = {}
        self._closed = False

    def open(self, address: Address, request: StreamRequest, events: StreamEvents) -> Stream:
        stream = Http1Stream(request, events)
        if self._closed:
            stream.end_soon(Closed("this server is stopping", never_sent=True))
            return stream
        if self._session is None:
            try:
                self._session = self._new_session()
            except (OSError, ssl.SSLError) as error:
                stream.end_soon(Closed(f"cannot read {self._ca_file}: {error}", never_sent=True))
                return stream
        self._streams[stream] = None
        stream.start(self._session, address.uri + request.path).add_done_callback(
            lambda _: self._streams.pop(stream, None)
        )
        return stream

    async def close(self) -> None:
        self._closed = True
        for stream in list(self._streams):
            stream.reset()
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _new_session(self) -> aiohttp.ClientSession:
        tls = ssl.create_default_context(cafile=self._ca_file)
        tls.set_alpn_protocols(["http/1.1"])
        return aiohttp.ClientSession(
            connector=aiohttp.TCPConnector(limit=HTTP1_CONNECTIONS_MAX, ssl=tls, keepalive_timeout=HTTP1_KEEP_ALIVE_S),
            # An attempt's own timeouts end a slow response; here only the connection has a limit.
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=self._connect_timeout_s),
            skip_auto_headers=_NO_HEADERS_OF_ITS_OWN,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
        )


class Http1Stream:
    """One request and its response."""

    def __init__(self, request: StreamRequest, events: StreamEvents) -> None:
        self._request = request
        self._events = events
        self._chunks: deque[bytes] = deque()
        self._unsent = 0
        self._unconsumed = 0
        self._finished = False
        self._ended = False
        self._sendable = asyncio.Event()
        self._readable = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def start(self, session: aiohttp.ClientSession, url: str) -> asyncio.Task[None]:
        self._task = asyncio.get_running_loop().create_task(self._run(session, url))
        return self._task

    def send(self, data: bytes) -> None:
        assert not self._finished, "send after finish"
        if self._ended or not data:
            return
        self._chunks.append(data)
        self._unsent += len(data)
        self._sendable.set()

    def finish(self) -> None:
        self._finished = True
        self._sendable.set()

    def reset(self) -> None:
        if self._ended:
            return
        if self._task is not None:
            self._task.cancel()
        self.end_soon(Closed("the stream was reset by this server"))

    def consumed(self, size: int) -> None:
        if self._ended:
            return
        assert size <= self._unconsumed, "more consumed than received"
        self._unconsumed -= size
        if self._unconsumed < STREAM_WINDOW_BYTES:
            self._readable.set()

    @property
    def unsent(self) -> int:
        return self._unsent

    def end_soon(self, closed: Closed) -> None:
        """Tell the attempt that it is over, but not from within its own call."""
        self._let_go()
        asyncio.get_running_loop().call_soon(self._events.on_closed, closed)

    def _end(self, closed: Closed) -> None:
        if not self._ended:
            self._let_go()
            self._events.on_closed(closed)

    def _let_go(self) -> None:
        self._ended = True
        self._chunks.clear()
        self._unsent = 0

    async def _run(self, session: aiohttp.ClientSession, url: str) -> None:
        request = self._request
        # A request that was finished in the turn it was opened in, without a body, has none on the wire either.
        body = None if self._finished and not self._chunks else self._body()
        try:
            async with session.request(
                request.method,
                URL(url, encoded=True),
                headers=list(request.headers),
                data=body,
                allow_redirects=False,
            ) as response:
                await self._receive(response)
        except (
            aiohttp.ClientConnectorError,
            aiohttp.ConnectionTimeoutError,
            aiohttp.ClientConnectorDNSError,
        ) as error:
            self._end(Closed(f"cannot connect to {url}: {_text(error)}", never_sent=True))
        except ValueError as error:  # an address or a header that aiohttp refuses to put on the wire
            self._end(Closed(f"cannot send this request to {url}: {_text(error)}", never_sent=True))
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            self._end(Closed(f"the exchange with {url} failed: {_text(error)}"))

    async def _receive(self, response: aiohttp.ClientResponse) -> None:
        headers = [(name.lower(), content) for name, content in response.headers.items()]
        self._events.on_response(response.status, headers)
        async for data in response.content.iter_any():
            if self._ended:
                return
            self._unconsumed += len(data)
            self._events.on_data(data)
            while self._unconsumed >= STREAM_WINDOW_BYTES and not self._ended:
                self._readable.clear()
                await self._readable.wait()
        self._end(Closed(None))

    async def _body(self) -> AsyncIterator[bytes]:
        while True:
            while self._chunks:
                data = self._chunks.popleft()
                yield data
                if not self._ended:  # resumed when the socket took it, or when all is over
                    self._unsent -= len(data)
            if self._finished or self._ended:
                return
            self._sendable.clear()
            await self._sendable.wait()


def _text(error: Exception) -> str:
    return str(error) or type(error).__name__

"""A proxy in front of the object store that counts, holds back, cuts and damages."""

import contextlib
import http.client
import socket
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import unquote, urlsplit

_PIECE_BYTES = 16 << 10


@dataclass(slots=True)
class Exchange:
    """One request through the proxy.

    Attributes:
        sent: Bytes of an object's content that reached the client.
    """

    method: str
    key: str
    byte_range: str
    sent: int = 0

    @property
    def first_byte(self) -> int:
        return int(self.byte_range.removeprefix("bytes=").partition("-")[0])


@dataclass(slots=True)
class Proxy:
    """Hands requests on to the object store.

    Attributes:
        exchanges: All GETs of objects so far.
        before: Called before such a GET, or a listing (it has no key), is handed on; may wait.
        alter: Gets each piece of an answer; returns what is sent instead, None to cut the connection.
        hidden: Prefixes of headers that are left out of the answers, in small letters.
    """

    target: str
    exchanges: list[Exchange] = field(default_factory=list)
    before: Callable[[Exchange], None] = lambda _exchange: None
    alter: Callable[[Exchange, bytes], bytes | None] = lambda _exchange, piece: piece
    hidden: tuple[str, ...] = ()
    url: str = ""

    @property
    def bytes_sent(self) -> int:
        return sum(exchange.sent for exchange in self.exchanges)


@contextlib.contextmanager
def running_proxy(target: str) -> Iterator[Proxy]:
    proxy = Proxy(target)
    server = _Server(("127.0.0.1", 0), _Handler)
    server.proxy = proxy
    proxy.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        thread.join(10)
        server.server_close()


class _Server(ThreadingHTTPServer):
    proxy: Proxy
    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that were killed are what some tests are about."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    @property
    def _proxy(self) -> Proxy:
        return self.server.proxy

    def do_GET(self) -> None:
        self._forward()

    def do_HEAD(self) -> None:
        self._forward()

    def log_message(self, *_: Any) -> None:
        """Silent."""

    def _forward(self) -> None:
        path = urlsplit(self.path)
        exchange = Exchange(self.command, unquote(path.path).lstrip("/").partition("/")[2], self.headers["Range"])
        if self.command == "GET":
            self._proxy.exchanges.extend([exchange] if exchange.key else [])
            self._proxy.before(exchange)
        connection = http.client.HTTPConnection(urlsplit(self._proxy.target).netloc, timeout=20)
        try:
            # As they are: the signature covers the proxy's own name.
            connection.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                connection.putheader(name, value)
            connection.endheaders()
            self._answer(connection.getresponse(), exchange)
        finally:
            connection.close()

    def _answer(self, answer: http.client.HTTPResponse, exchange: Exchange) -> None:
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if not name.lower().startswith(("date", "server", "connection", *self._proxy.hidden)):
                self.send_header(name, value)
        self.end_headers()
        while piece := answer.read(_PIECE_BYTES):
            altered = self._proxy.alter(exchange, piece) if exchange.key else piece
            if altered is None:
                self.wfile.flush()
                self.connection.shutdown(socket.SHUT_RDWR)
                self.close_connection = True
                return
            self.wfile.write(altered)
            exchange.sent += len(altered)

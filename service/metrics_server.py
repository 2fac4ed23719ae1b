"""Serves metrics and status page over HTTP."""

from __future__ import annotations

import hmac
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any, Protocol
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from service.address import Address
from service.page.app import Answer

METRICS = "/metrics"
OWN_NAMES = frozenset({"localhost", "127.0.0.1", "[::1]"})
"""Under which a browser may ask for jobs where no token is needed: another name leads here from a stranger's page."""

Environ = dict[str, Any]
Start = Callable[..., Any]
Wsgi = Callable[[Environ, Start], Iterable[bytes]]


class Pages(Protocol):
    """What is served beside the metrics."""

    def is_secret(self, path: str) -> bool:
        """Whether one has to show the token for it."""

    def answer(self, path: str, query: str) -> Answer:
        """What a GET gets."""


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    timeout = 10.0  # seconds; for who connects and says nothing

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Scrapes are no transitions."""


class MetricsServer:
    """`GET /metrics` and the page on an address, in threads of its own; with a token, only for those who show it."""

    def __init__(self, address: Address, registry: CollectorRegistry, pages: Pages, token: str | None) -> None:
        """Listens at once. Raises `OSError` if the address cannot be had."""
        app = _App(make_wsgi_app(registry), pages, token)
        kind = _Server6 if ":" in address.host else _Server
        self._server = make_server(address.host, address.port, app, kind, _Quiet)
        self.address = Address(address.host, self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends listening."""
        self._server.shutdown()
        self._server.server_close()


class _App:
    def __init__(self, metrics: Wsgi, pages: Pages, token: str | None) -> None:
        self._metrics = metrics
        self._pages = pages
        self._expected = f"Bearer {token}".encode() if token is not None else None

    def __call__(self, environ: Environ, start_response: Start) -> Iterable[bytes]:
        path = str(environ.get("PATH_INFO") or "/")
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            return _plain(start_response, "405 Method Not Allowed", "only GET and HEAD are answered", Allow="GET, HEAD")
        if (path == METRICS or self._pages.is_secret(path)) and not self._is_known(environ):
            why = "show the server's token: Authorization: Bearer TOKEN"
            return _plain(start_response, "401 Unauthorized", why, **{"WWW-Authenticate": "Bearer"})
        if path == METRICS:
            return self._metrics(environ, start_response)
        if self._expected is None and _host(environ) not in OWN_NAMES:
            return _plain(start_response, "403 Forbidden", "ask for this page as localhost")
        answer = self._pages.answer(path, str(environ.get("QUERY_STRING", "")))
        length = ("Content-Length", str(len(answer.body)))
        start_response(answer.status, [("Content-Type", answer.kind), length, *answer.headers.items()])
        return [answer.body if environ["REQUEST_METHOD"] == "GET" else b""]

    def _is_known(self, environ: Environ) -> bool:
        shown = str(environ.get("HTTP_AUTHORIZATION", "")).encode("latin-1", "replace")
        return self._expected is None or hmac.compare_digest(shown, self._expected)


def _host(environ: Environ) -> str:
    """The name by which the client knows this server, without the port."""
    name = str(environ.get("HTTP_HOST", "")).lower()
    return name if name.endswith("]") else name.rpartition(":")[0] or name


def _plain(start_response: Start, status: str, text: str, **headers: str) -> list[bytes]:
    start_response(status, [("Content-Type", "text/plain; charset=utf-8"), *headers.items()])
    return [f"{text}\n".encode()]

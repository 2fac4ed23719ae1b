"""Serves the metrics over HTTP."""

from __future__ import annotations

import hmac
import socket
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from prometheus_client import CollectorRegistry, make_wsgi_app

from service.address import Address

Wsgi = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Server6(_Server):
    address_family = socket.AF_INET6


class _Quiet(WSGIRequestHandler):
    timeout = 10.0  # seconds; for who connects and says nothing

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Scrapes are no transitions."""


class MetricsServer:
    """`GET /metrics` on an address, in threads of its own; with a token, only for those who show it."""

    def __init__(self, address: Address, registry: CollectorRegistry, token: str | None) -> None:
        """Listens at once. Raises `OSError` if the address cannot be had."""
        app = _app(registry, token)
        kind = _Server6 if ":" in address.host else _Server
        self._server = make_server(address.host, address.port, app, kind, _Quiet)
        self.address = Address(address.host, self._server.server_port)
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.1,), name="metrics", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Ends listening."""
        self._server.shutdown()
        self._server.server_close()


def _app(registry: CollectorRegistry, token: str | None) -> Wsgi:
    metrics: Wsgi = make_wsgi_app(registry)
    expected = f"Bearer {token}".encode()

    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ.get("PATH_INFO") not in ("/metrics", "/"):
            start_response("404 Not Found", [("Content-Type", "text/plain")])
            return [b"the metrics are at /metrics\n"]
        shown = str(environ.get("HTTP_AUTHORIZATION", "")).encode("latin-1", "replace")
        if token is not None and not hmac.compare_digest(shown, expected):
            start_response("401 Unauthorized", [("WWW-Authenticate", "Bearer"), ("Content-Type", "text/plain")])
            return [b"show the server's token: Authorization: Bearer TOKEN\n"]
        return metrics(environ, start_response)

    return app

"""Whether a Ray may be used, against a server that answers as Ray's GCS does."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import grpc
import pytest

from gradwire.errors import GradwireError, Unauthenticated, Unavailable
from service.cluster import access
from service.cluster.given import GivenRay

Admit = Callable[[str | None], bool]


class Gate(grpc.GenericRpcHandler):
    """Answers every call whose token it admits."""

    def __init__(self, admit: Admit) -> None:
        self._admit = admit

    def service(self, details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler | None:
        return grpc.unary_unary_rpc_method_handler(self._answer) if details.method == access.PROBE else None

    def _answer(self, _: bytes, context: grpc.ServicerContext) -> bytes:
        token = dict(context.invocation_metadata()).get("authorization")
        if not self._admit(str(token) if token else None):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "InvalidAuthToken")
        return b""


@contextmanager
def gate(admit: Admit) -> Iterator[str]:
    server = grpc.server(ThreadPoolExecutor(1), handlers=[Gate(admit)])
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"127.0.0.1:{port}"
    finally:
        server.stop(None).wait()


def test_the_right_token_passes() -> None:
    with gate(lambda token: token == "Bearer secret") as address:
        access.prove(address, "secret")


def test_a_wrong_token_is_told_as_such() -> None:
    with gate(lambda token: token == "Bearer secret") as address, pytest.raises(Unauthenticated, match=address):
        access.prove(address, "guess")


def test_a_ray_that_admits_everybody_is_refused() -> None:
    with gate(lambda _: True) as address, pytest.raises(GradwireError, match=r"without a token.*RAY_AUTH_MODE=token"):
        access.prove(address, "secret")


def test_nobody_there_is_told_with_the_address() -> None:
    with socket.socket() as taken:  # bound and not listening: nobody else gets the port, and it refuses connections
        taken.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(Unavailable, match=f"no Ray answers at {address}"):
            access.prove(address, "secret")


@pytest.mark.parametrize(
    ("address", "token", "kind", "message"),
    [
        ("127.0.0.1:1", "", GradwireError, "set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH"),
        ("127.0.0.1:1", "secret", Unavailable, "no Ray answers at 127.0.0.1:1"),
        ("ray://127.0.0.1:1", "secret", GradwireError, "give HOST:PORT"),
    ],
)
def test_a_given_ray_that_cannot_be_used_is_told_soon(
    monkeypatch: pytest.MonkeyPatch, address: str, token: str, kind: type[GradwireError], message: str
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    given = GivenRay(address)
    started = time.monotonic()
    with pytest.raises(kind, match=message):
        given.start()
    given.stop()
    assert time.monotonic() - started < 2 * access.PROBE_TIMEOUT_S
    assert os.environ["RAY_AUTH_MODE"] == "disabled"

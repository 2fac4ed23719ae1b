"""Whether a Ray may be used, against a server that answers as Ray's GCS does."""

from __future__ import annotations

import os
import re
import socket
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import grpc
import pytest

from gradwire.errors import GradwireError, Unauthenticated, Unavailable
from service.cluster import access, node
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
        ("no-such-host.invalid:6379", "secret", Unavailable, "no Ray answers at no-such-host.invalid:6379"),
    ],
)
def test_a_given_ray_that_cannot_be_used_is_told_soon(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, address: str, token: str, kind: type[GradwireError], message: str
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    given = GivenRay(address, tmp_path)
    started = time.monotonic()
    with pytest.raises(kind, match=rf"^--ray {re.escape(address)}: .*{message}"):
        given.start()
    given.stop()
    assert time.monotonic() - started < 2 * access.PROBE_TIMEOUT_S
    assert os.environ["RAY_AUTH_MODE"] == "disabled"


@pytest.mark.parametrize(
    ("arguments", "token", "code", "message"),
    [
        (["lead"], "secret", 2, "usage: "),
        (["join"], "secret", 2, "usage: "),
        (["head"], "", 2, "no Ray token: set RAY_AUTH_TOKEN"),
        (["join", "127.0.0.1:1"], "", 2, "no Ray token: set RAY_AUTH_TOKEN"),
        (["join", "127.0.0.1:1"], "secret", 1, "no Ray answers at 127.0.0.1:1"),
        (["join", "gate"], "guess", 2, "refuses the token; set RAY_AUTH_TOKEN"),
    ],
)
def test_a_node_that_cannot_join_says_why(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    token: str,
    code: int,
    message: str,
) -> None:
    monkeypatch.delenv("RAY_AUTH_TOKEN_PATH", raising=False)
    monkeypatch.setenv("RAY_AUTH_TOKEN", token)
    with gate(lambda shown: shown == "Bearer secret") as address, pytest.raises(SystemExit) as raised:
        node.main([address if word == "gate" else word for word in arguments])
    assert raised.value.code == code
    assert f"gradwire: {message}" in capsys.readouterr().err.replace(f"Ray at {address} ", "")


def test_a_node_becomes_ray_start_with_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    became: list[list[str]] = []
    monkeypatch.setenv("RAY_AUTH_TOKEN", "secret")
    monkeypatch.setenv("RAY_AUTH_MODE", "disabled")
    monkeypatch.setattr(os, "execv", lambda _, command: became.append(command))
    with gate(lambda shown: shown == "Bearer secret") as address:
        node.main(["join", address, "--num-cpus=2"])
    node.main(["head", "--port=6379"])
    [joined, head] = became
    assert joined[1:3] == ["start", f"--address={address}"] and joined[-1] == "--num-cpus=2"
    assert head[1:3] == ["start", "--head"] and "health_check_period_ms" in head[4] and head[-1] == "--port=6379"
    assert os.environ["RAY_AUTH_MODE"] == "token"

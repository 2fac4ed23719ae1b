"""How the client reaches a server: addresses, tokens, encryption, and servers that are not there."""

from __future__ import annotations

import socket
import time
from pathlib import Path

import grpc
import pytest

from gradwire import Client
from gradwire.errors import InvalidSpec, Unauthenticated, Unavailable
from protos.gradwire.v1 import service_pb2 as pb
from tests.contract.job_service_double import JobServiceDouble, document, sha256, start

pytestmark = pytest.mark.timeout(60)


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def test_a_missing_server_is_told_with_its_address_and_the_way_to_start_one() -> None:
    address = f"127.0.0.1:{closed_port()}"
    began = time.monotonic()
    with Client(address) as client:
        for call in (lambda: client.get("j"), lambda: next(client.watch("j")), lambda: client.submit(document())):
            with pytest.raises(Unavailable) as caught:
                call()
            assert address in caught.value.message
            assert "gradwire serve" in caught.value.message
            assert caught.value.code == "unavailable"
    assert time.monotonic() - began < 3 * 5


def test_a_port_that_never_answers_is_given_up_in_time() -> None:
    with socket.socket() as silent:
        silent.bind(("127.0.0.1", 0))
        silent.listen()
        began = time.monotonic()
        with (
            Client(f"127.0.0.1:{silent.getsockname()[1]}") as client,
            pytest.raises(Unavailable, match="gradwire serve"),
        ):
            client.get("j")
        assert time.monotonic() - began < 8


def test_a_token_is_asked_for(tmp_path: Path) -> None:
    running = start(JobServiceDouble(token="secret"))
    running.service.add_job("j", events=1, state=pb.JOB_STATE_SUCCEEDED)
    running.service.files["j", "log"] = b"line"
    (tmp_path / "token").write_text("secret\nanything else\n")
    (tmp_path / "rows").write_bytes(b"rows")
    try:
        for wrong in (None, "guess"):
            with Client(running.address, token=wrong) as client, pytest.raises(Unauthenticated) as caught:
                client.get("j")
            assert caught.value.message == "the token is missing or wrong"
        for token, token_file in (("secret", None), (None, tmp_path / "token")):
            with Client(running.address, token=token, token_file=token_file) as client:
                assert [event.cursor for event in client.watch("j")] == [1]
                assert client.submit(document()).name == "small"
                assert len(client.list()) >= 2
                assert client.upload(tmp_path / "rows") == sha256(b"rows")
                client.download("j", "log", tmp_path / "log")
    finally:
        running.stop()


@pytest.mark.parametrize("address", ["192.0.2.1:50551", "example.invalid:50551", "[2001:db8::1]:50551"])
def test_a_token_does_not_leave_this_machine_in_plain_text(address: str) -> None:
    with pytest.raises(InvalidSpec, match=r"token: is not sent to .* without encryption"):
        Client(address, token="secret")


def test_a_tokens_file_must_have_one(tmp_path: Path) -> None:
    with pytest.raises(InvalidSpec, match="cannot be read"):
        Client(token_file=tmp_path / "gone")
    (tmp_path / "empty").touch()
    with pytest.raises(InvalidSpec, match="no token in its first line"):
        Client(token_file=tmp_path / "empty")
    with pytest.raises(InvalidSpec, match="printable ASCII"):
        Client(token="sécret")


@pytest.mark.parametrize("address", ["localhost", "", ":50551", "http://127.0.0.1:50551", "127.0.0.1:port"])
def test_an_address_is_host_and_port(address: str) -> None:
    with pytest.raises(InvalidSpec, match="host:port"):
        Client(address)


def test_tls_with_the_servers_own_certificate(certificate: tuple[Path, Path]) -> None:
    cert, key = certificate
    credentials = grpc.ssl_server_credentials([(key.read_bytes(), cert.read_bytes())])
    running = start(JobServiceDouble(token="secret"), credentials=credentials)
    running.service.add_job("j")
    try:
        with Client(running.address, token="secret", tls_cert=cert) as client:
            assert client.get("j").id == "j"
        with Client(running.address) as client, pytest.raises(Unavailable):
            client.get("j")
    finally:
        running.stop()

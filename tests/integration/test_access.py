"""Who is let in, and what `gradwire serve` refuses to start with."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from gradwire.client import Client
from gradwire.errors import GradwireError, Unauthenticated
from protos.gradwire.v1 import service_pb2 as pb
from tests.integration.server import Server, serving
from tests.overload import overload

pytestmark = [pytest.mark.integration, pytest.mark.timeout(120)]

GRADWIRE = str(Path(sys.executable).with_name("gradwire"))
REFUSED_WITHIN_S = 10.0
SERVICE = pb.DESCRIPTOR.services_by_name["JobService"]
REFLECTION = "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo"


@dataclass(frozen=True)
class Guarded:
    """A service that asks for a token, and the file that has it."""

    server: Server
    token_file: Path


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    folder = tmp_path_factory.mktemp("guarded")
    token_file = folder / "token"
    token_file.write_text("open sesame\n")
    with serving(folder / "state", token_file=str(token_file), warm=0, refill=False) as server:
        yield Guarded(server, token_file)


def gradwire(*arguments: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GRADWIRE_")}
    return subprocess.run(
        [GRADWIRE, *arguments],
        capture_output=True, text=True, cwd=folder, env=environment, check=False, timeout=60,
    )  # fmt: skip


def refused(folder: Path, **options: str) -> tuple[int, str]:
    """The exit code of `gradwire serve`, and the one line it says."""
    given = {"listen": "127.0.0.1:0", "metrics": "127.0.0.1:0", "state": str(folder / "state"), **options}
    started = time.monotonic()
    words = [word for name, value in given.items() for word in (f"--{name}", value)]
    ended = gradwire("serve", *words, folder=folder)
    assert time.monotonic() - started < REFUSED_WITHIN_S * overload()
    (line,) = ended.stderr.splitlines()
    assert ended.stdout == ""
    return ended.returncode, line


@pytest.mark.parametrize(
    "show", [{}, {"token": "open sesam"}, {"token": "open sesame "}], ids=["none", "wrong", "long"]
)
def test_without_the_token_a_client_is_not_let_in(guarded: Guarded, tmp_path: Path, show: dict[str, str]) -> None:
    file = tmp_path / "file"
    file.write_text("anything")
    with Client(guarded.server.address, **show) as client:
        calls: list[Callable[[], Any]] = [
            client.list,
            lambda: client.get("any"),
            lambda: client.cancel("any"),
            lambda: list(client.watch("any")),
            lambda: client.upload(file),
            lambda: client.download("any", "log", tmp_path / "log"),
        ]
        for call in calls:
            with pytest.raises(Unauthenticated, match="--token-file"):
                call()
    assert not (tmp_path / "log").exists()


def test_no_method_of_the_service_answers_without_the_token(guarded: Guarded) -> None:
    """Those too that are added later; reflection as well, but not the health check, which carries nothing."""
    methods = {f"/{SERVICE.full_name}/{method.name}": method for method in SERVICE.methods}
    with grpc.insecure_channel(guarded.server.address) as channel:
        for name in (*methods, REFLECTION):
            call = channel.stream_stream(name, None, None)(iter([b""]), timeout=10)
            with pytest.raises(grpc.RpcError) as caught:
                list(call)
            assert caught.value.code() == grpc.StatusCode.UNAUTHENTICATED, name
        health = health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest(), timeout=10)
    assert len(methods) > 10
    assert health.status == health_pb2.HealthCheckResponse.SERVING


def test_with_the_token_everything_works(guarded: Guarded, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("anything")
    with Client(guarded.server.address, token_file=guarded.token_file) as client:
        assert client.list() == []
        sha256 = client.upload(file)
        assert client.download(sha256, None, tmp_path / "back").read_text() == "anything"
    assert guarded.server.log().count("open sesame") == 0, "the log has the token"
    # The metrics listen on loopback, where a scraper needs no token.
    with urllib.request.urlopen(f"http://{guarded.server.metrics}/metrics", timeout=10) as answer:
        assert b"gradwire_jobs" in answer.read()


def test_the_command_line_shows_the_token(guarded: Guarded, tmp_path: Path) -> None:
    jobs = ("jobs", "--server", guarded.server.address)
    wrong = tmp_path / "wrong"
    wrong.write_text("open sesam\n")
    for words in (jobs, (*jobs, "--token-file", str(wrong))):
        ended = gradwire(*words, folder=tmp_path)
        assert (ended.returncode, ended.stdout) == (2, "")
        assert ended.stderr.startswith("gradwire: the server asks for a token") and "--token-file" in ended.stderr
    ended = gradwire(*jobs, "--token-file", str(guarded.token_file), folder=tmp_path)
    assert (ended.returncode, ended.stdout.splitlines()[0], ended.stderr) == (0, "no jobs yet", "")


def test_a_token_is_not_sent_to_another_machine_in_plain_text(guarded: Guarded) -> None:
    with pytest.raises(GradwireError, match="without encryption"):
        Client("192.0.2.1:50551", token_file=guarded.token_file)


@pytest.mark.parametrize("name", ["listen", "metrics"])
@pytest.mark.parametrize("host", ["0.0.0.0", "[::]", "192.0.2.1"])
def test_without_a_token_it_listens_on_loopback_only(tmp_path: Path, name: str, host: str) -> None:
    code, line = refused(tmp_path, **{name: f"{host}:0"})
    assert code == 2
    assert line.startswith(f"gradwire: --{name}: {host}:0 can be reached from other machines")
    assert "--token-file" in line


def test_json_says_where_it_listens_or_what_is_wrong(tmp_path: Path) -> None:
    words = ("serve", "--json", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0", "--state", str(tmp_path / "s"))
    with subprocess.Popen([GRADWIRE, *words], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        assert process.stdout is not None
        places = json.loads(process.stdout.readline())
        with Client(places["listen"]) as client:
            assert client.list() == []
        process.terminate()
        assert process.stdout.read() == b""
        assert process.wait(60) == 0
    ended = gradwire(*words, "--listen", "0.0.0.0:0", folder=tmp_path)
    assert ended.returncode == 2
    assert json.loads(ended.stdout)["error"]["message"].startswith("--listen: 0.0.0.0:0")


def test_an_empty_token_file_is_no_token(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("\nsecond line\n")
    code, line = refused(tmp_path, listen="0.0.0.0:0", **{"token-file": str(tmp_path / "token")})
    assert code == 2 and "--token-file" in line and "no token" in line


@pytest.mark.parametrize("name", ["listen", "metrics"])
def test_a_port_that_is_taken_is_named(tmp_path: Path, name: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        code, line = refused(tmp_path, **{name: address})
    assert code == 1
    assert line.startswith(f"gradwire: --{name}: {address} is taken")


def test_a_state_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    # The second is refused to root too.
    for state in (f"{tmp_path}/file/state", "/proc/gradwire"):
        code, line = refused(tmp_path, state=state)
        assert code == 2
        assert line.startswith(f"gradwire: --state: {state} cannot be written") and "name another folder" in line


def test_a_state_folder_of_another_service_is_named_with_that_service(guarded: Guarded, tmp_path: Path) -> None:
    code, line = refused(tmp_path, state=str(guarded.server.state))
    assert code == 2
    assert line.startswith(f"gradwire: --state: {guarded.server.state} is in use by another service")
    assert str(guarded.server.process.pid) in line and guarded.server.address in line
    with Client(guarded.server.address, token_file=guarded.token_file) as client:
        assert client.list() == []

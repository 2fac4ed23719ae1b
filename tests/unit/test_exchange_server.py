"""The trainer's end of the exchange against clients of every kind."""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest

from gradwire.assignment import Assignment
from gradwire.errors import JobFailed
from service.training import exchange
from service.training.exchange import Event, Left, Said, SharedMemoryServer
from workers.exchange.client import SOCKET, SharedMemoryClient
from workers.exchange.messages import Codec, Dismiss, Heartbeat, Hello, Ready, Refused, Welcome
from workers.exchange.segment import Segment

Connect = Callable[[Hello], SharedMemoryClient]

ASSIGNMENT = Assignment(
    job_id=f"test{os.getpid()}", generation=2, spec_json="{}", storage_url="/nowhere", service_id="unit",
    token="right", cache_dir="/nowhere",
)  # fmt: skip
HELLO = Hello(token="right", job_id=ASSIGNMENT.job_id, generation=2, worker_id="w1", pid=1, node="here")


@pytest.fixture
def server() -> Iterator[SharedMemoryServer]:
    made = SharedMemoryServer(ASSIGNMENT)
    yield made
    made.close()
    assert not made.folder.exists()


@pytest.fixture
def connect(server: SharedMemoryServer) -> Iterator[Callable[[Hello], SharedMemoryClient]]:
    with contextlib.ExitStack() as stack:

        def made(hello: Hello) -> SharedMemoryClient:
            client = SharedMemoryClient(server.folder, hello)
            stack.callback(client.close)
            return client

        yield made


def events(server: SharedMemoryServer, until: Callable[[list[Event]], bool]) -> list[Event]:
    found: list[Event] = []
    for _ in range(50):
        found += server.poll(0.1)
        if until(found):
            break
    return found


def hear_for_a_while(server: SharedMemoryServer) -> list[Event]:
    """A connection and its first word are two rounds of the selector."""
    return [event for _ in range(3) for event in server.poll(0.05)]


def test_a_worker_is_heard_after_its_hello_and_its_end_is_told(server: SharedMemoryServer, connect: Connect) -> None:
    client = connect(HELLO)
    client.send(Heartbeat(phase="data"))
    assert events(server, lambda found: len(found) == 2) == [Said("w1", HELLO), Said("w1", Heartbeat(phase="data"))]
    server.send("w1", Dismiss(reason="enough"))
    assert client.receive() == Dismiss(reason="enough")
    client.close()
    assert events(server, bool) == [Left("w1", "hung up")]


@pytest.mark.parametrize(
    "hello",
    [replace(HELLO, token="wrong"), replace(HELLO, job_id="other"), replace(HELLO, generation=1), Dismiss()],
)
def test_who_is_not_of_this_job_is_hung_up_on(server: SharedMemoryServer, connect: Connect, hello: Hello) -> None:
    client = connect(hello)
    assert hear_for_a_while(server) == []
    assert client.receive() is None


def test_garbage_costs_its_sender_the_connection_and_nobody_else(server: SharedMemoryServer, connect: Connect) -> None:
    good = connect(HELLO)
    bad = connect(replace(HELLO, worker_id="w2"))
    events(server, lambda found: len(found) == 2)
    bad._socket.send(b"\xff garbage")
    assert events(server, bool) == [Left("w2", "hung up")]
    good.send(Heartbeat(phase="compute"))
    assert events(server, bool) == [Said("w1", Heartbeat(phase="compute"))]


def test_a_name_is_taken_while_its_worker_is_there(server: SharedMemoryServer, connect: Connect) -> None:
    first = connect(HELLO)
    events(server, bool)
    second = connect(HELLO)
    assert hear_for_a_while(server) == []
    assert second.receive() is None
    first.send(Heartbeat(phase="idle"))
    assert events(server, bool) == [Said("w1", Heartbeat(phase="idle"))]


def test_who_does_not_say_who_it_is_is_forgotten(
    server: SharedMemoryServer, connect: Connect, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exchange, "HELLO_TIMEOUT_S", 0.0)
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as stranger:
        stranger.connect(str(server.folder / SOCKET))
        stranger.settimeout(5)
        hear_for_a_while(server)
        assert stranger.recv(10) == b""


def test_a_worker_that_reads_nothing_is_dropped(server: SharedMemoryServer, connect: Connect) -> None:
    client = connect(HELLO)
    events(server, bool)
    for _ in range(5000):
        server.send("w1", Refused(reason="x" * 1000))
    left = events(server, bool)
    assert len(left) == 1 and isinstance(left[0], Left) and "does not take words" in left[0].reason
    client.close()


def test_segments_travel_with_the_words_that_name_them(server: SharedMemoryServer, connect: Connect) -> None:
    weights = server.create("weights", 4096)
    client = connect(HELLO)
    events(server, bool)
    server.send("w1", Welcome(segment="weights", layout_digest="d"))
    assert client.receive() == Welcome(segment="weights", layout_digest="d")
    weights.buffer[:5] = b"hello"
    assert client.attach("weights").buffer[:5] == b"hello"

    client.create("slots", 8192).buffer[:3] = b"sum"
    client.publish("document", b"{}")
    client.send(Ready(segment="slots", document="document"))
    [said] = events(server, bool)
    assert isinstance(said, Said)
    client.close()
    assert said.segments["slots"].buffer[:3] == b"sum", "it outlives its maker"
    assert bytes(said.segments["document"].buffer) == b"{}"


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.mark.parametrize("count", [0, 1, 2, 5])
def test_descriptors_that_do_not_belong_to_a_word_are_closed(
    server: SharedMemoryServer, connect: Connect, count: int
) -> None:
    """A file whose size is not sealed could end the trainer by shrinking."""
    client = connect(HELLO)
    events(server, bool)
    before = open_files()
    loose = os.memfd_create("loose")
    os.truncate(loose, 4096)
    good = Segment.create("good", 64)
    socket.send_fds(client._socket, [Codec.encode(Ready(segment="a", document="b"))], [good.descriptor, loose] * count)
    os.close(loose)
    del good
    assert events(server, bool) == [Left("w1", "hung up")]
    assert open_files() == before - 1, "the connection is closed, and nothing else is left open"


def test_a_segment_that_does_not_fit_is_an_error_and_costs_nothing(server: SharedMemoryServer) -> None:
    before = open_files()
    for size in (1 << 45, 1 << 70):
        with pytest.raises(JobFailed, match="no memory for") as caught:
            server.create("weights", size)
        assert caught.value.code == "shared_memory_full"
    del caught
    assert open_files() == before


def test_segments_can_be_recognised(server: SharedMemoryServer) -> None:
    segment = server.create("weights", 64)
    name = os.readlink(f"/proc/self/fd/{segment.descriptor}")
    assert name == f"/memfd:gradwire-unit-{ASSIGNMENT.job_id}-2-weights (deleted)"

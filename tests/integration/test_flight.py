"""Workers that connect by Flight, as from another node: the same bits, and strangers are refused."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pyarrow as pa
import pytest
from pyarrow import flight

from gradwire.assignment import ExchangeAddress
from service.exchange_certificate import make_certificate
from tests.integration.cases import convolutional, several_heads, write_npz
from tests.integration.lab import SERVICE_ID, Lab, lab, run
from tests.integration.test_same_bits import spec, undisturbed
from workers.exchange import frames
from workers.exchange.dial import ENCRYPTED, PLAIN, dial
from workers.exchange.frames import Frame, Kind
from workers.exchange.messages import Codec, Hello
from workers.exchange.segment import job_folder

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("flight")
    write_npz(convolutional(has_state=True), made / "convolutional.npz")
    write_npz(several_heads(), made / "several_heads.npz")
    return made


def test_flight_gives_the_bits_of_shared_memory(folder: Path) -> None:
    result = run(spec("convolutional"), folder, workers=2, is_remote=True)
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    assert {view.transport for view in result.progress.snapshot.workers} == {"flight"}
    assert result.digest == undisturbed("convolutional", folder).digest


@pytest.mark.parametrize("name", ["convolutional", "several_heads"])
def test_what_crosses_the_network_is_what_one_worker_would_send(name: str, folder: Path) -> None:
    """Two workers of one node share a stream, and are added up before it."""
    one, two = (
        run(spec(name, min_workers=workers), folder, workers=workers, is_remote=True, shares_stream=True)
        for workers in (1, 2)
    )
    for result in (one, two):
        assert result.outcome.state == "SUCCEEDED", result.outcome.error
        assert {view.transport for view in result.progress.snapshot.workers} == {"flight"}
        assert result.digest == undisturbed(name, folder).digest
    once, bytes_ = (result.progress.telemetry.exchanged_bytes for result in (one, two))
    assert bytes_["flight", "weights"] == once["flight", "weights"] > 0
    # A worker that is done before its sibling is told to begin goes alone.
    assert bytes_["flight", "gradients"] < 1.5 * once["flight", "gradients"]


def test_a_worker_that_is_killed_takes_no_other_of_its_node_with_it(folder: Path) -> None:
    """The first one, which has started the relay."""
    with held_up(folder) as (job, victim):
        os.kill(victim, signal.SIGKILL)
        result = job.result()
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    left = [event.message for event in result.progress.events if " left: " in event.message]
    assert len(left) == 1 and "w1 left" in left[0]
    assert result.digest == undisturbed("convolutional", folder).digest


def test_a_relay_that_is_killed_is_the_death_of_its_workers(folder: Path) -> None:
    with held_up(folder) as (job, stopped):
        relays = relays_of(job)
        assert len(relays) == 1
        relays[0].kill()
        os.kill(stopped, signal.SIGCONT)
        job.wait_for(lambda progress: sum(" left: " in event.message for event in progress.events) == 2)
        job.add_worker()
        result = job.result()
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    assert result.digest == undisturbed("convolutional", folder).digest


@contextmanager
def held_up(folder: Path) -> Iterator[tuple[Lab, int]]:
    """A job with two workers of one node, whose first step waits for the first of them, which is stopped; its pid."""
    with lab(spec("convolutional", min_workers=2), folder, workers=1, is_remote=True, shares_stream=True) as job:
        yield job, job.hold_up()


def relays_of(job: Lab) -> list[psutil.Process]:
    """The processes that listen for workers of a job."""
    name = job_folder(SERVICE_ID, job.job_id, job.generation).name
    pids = {end.pid for end in psutil.net_connections("unix") if name in str(end.laddr) and end.pid}
    commands = [(psutil.Process(pid), psutil.Process(pid).cmdline()) for pid in pids]
    return [process for process, command in commands if "workers.exchange.relay" in command]


def test_near_and_remote_workers_share_a_job(folder: Path) -> None:
    with lab(spec("convolutional", min_workers=2), folder, workers=1, is_remote=True) as job:
        job.add_worker(is_remote=False)
        result = job.result()
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    assert {view.transport for view in result.progress.snapshot.workers} == {"flight", "shared_memory"}
    assert result.digest == undisturbed("convolutional", folder).digest


def test_a_remote_worker_killed_in_mid_step_changes_no_bit(folder: Path) -> None:
    with lab(spec("convolutional", min_workers=2), folder, workers=1, is_remote=True) as job:
        os.kill(job.hold_up(), signal.SIGKILL)
        result = job.result()
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    assert any("w1 left" in event.message for event in result.progress.events)
    assert result.digest == undisturbed("convolutional", folder).digest


def test_strangers_are_refused_and_nothing_is_lost(folder: Path) -> None:
    with lab(spec("convolutional"), folder, workers=0, is_remote=True) as job:
        for token, said in (
            ("", a_hello(job)),
            ("wrong", a_hello(job)),
            ("secret", a_hello(job, job_id="another")),
            ("secret", a_hello(job, generation=7)),
            ("secret", b"\x00garbage"),
            ("secret", b""),
        ):
            with pytest.raises(flight.FlightError):
                talk(job, token, said)
        job.add_worker()
        result = job.result()
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    assert result.digest == undisturbed("convolutional", folder).digest


def test_under_tls_the_bits_are_the_same_and_nobody_else_is_trusted(folder: Path) -> None:
    """One worker with a stream of its own, one behind a relay."""
    mine, other = make_certificate(), make_certificate()
    with lab(spec("convolutional", min_workers=2), folder, workers=0, is_remote=True, certificate=mine) as job:
        assert job.trainer is not None
        address = ExchangeAddress.parse(job.trainer.address).flight
        assert address.startswith(ENCRYPTED)
        for wrong, certificate in ((address, other.certificate), (address.replace(ENCRYPTED, PLAIN), "")):
            with pytest.raises(flight.FlightUnavailableError):
                listen(wrong, certificate)
        job.add_worker()
        job.shares_stream = True
        job.add_worker()
        result = job.result()
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    assert {view.transport for view in result.progress.snapshot.workers} == {"flight"}
    assert result.digest == undisturbed("convolutional", folder).digest


def test_a_worker_that_sends_garbage_later_is_dropped_by_name(folder: Path) -> None:
    with lab(spec("convolutional"), folder, workers=0, is_remote=True) as job:
        with pytest.raises((flight.FlightError, pa.ArrowException, StopIteration)):
            talk(job, "secret", a_hello(job), Frame(Kind.SLOTS, 1 << 60, 1).pack())
        job.add_worker()
        result = job.result()
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    assert any("stranger left: sent what is no frame" in event.message for event in result.progress.events)
    assert result.digest == undisturbed("convolutional", folder).digest


def listen(address: str, certificate: str) -> None:
    """Opens a stream and waits for what the trainer says."""
    _, _, reader = dial(address, "secret", certificate)
    reader.read_chunk()


def a_hello(job: Lab, *, job_id: str = "", generation: int = 1) -> bytes:
    hello = Hello(
        token="secret", job_id=job_id or job.job_id, generation=generation, worker_id="stranger", pid=1, node="n"
    )
    return Frame(Kind.WORD, datagram=Codec.encode(hello)).pack()


def talk(job: Lab, token: str, *said: bytes) -> None:
    """Opens a stream, says something, and reads until the stream ends with an error."""
    assert job.trainer is not None
    with flight.FlightClient(ExchangeAddress.parse(job.trainer.address).flight) as client:
        options = flight.FlightCallOptions(timeout=20, headers=[(b"authorization", f"Bearer {token}".encode())])
        writer, reader = client.do_exchange(flight.FlightDescriptor.for_command(b"gradwire"), options)
        writer.begin(frames.SCHEMA)
        for metadata in said:
            writer.write_metadata(metadata)
        while True:
            reader.read_chunk()

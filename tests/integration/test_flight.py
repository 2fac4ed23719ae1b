"""Workers that connect by Flight, as from another node: the same bits, and strangers are refused."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import flight

from gradwire.assignment import ExchangeAddress
from tests.integration.cases import convolutional, several_heads, write_npz
from tests.integration.lab import Lab, lab, run
from tests.integration.test_same_bits import spec, undisturbed
from workers.exchange import frames
from workers.exchange.frames import Frame, Kind
from workers.exchange.messages import Codec, Hello

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("flight")
    write_npz(convolutional(has_state=True), made / "convolutional.npz")
    write_npz(several_heads(), made / "several_heads.npz")
    return made


@pytest.mark.parametrize("name", ["convolutional", "several_heads"])
def test_flight_gives_the_bits_of_shared_memory(name: str, folder: Path) -> None:
    result = run(spec(name), folder, workers=2, is_remote=True)
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    assert {view.transport for view in result.progress.snapshot.workers} == {"flight"}
    assert result.digest == undisturbed(name, folder).digest


def test_near_and_remote_workers_share_a_job(folder: Path) -> None:
    with lab(spec("convolutional", min_workers=2), folder, workers=1, is_remote=True) as job:
        job.add_worker(is_remote=False)
        result = job.result()
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    assert {view.transport for view in result.progress.snapshot.workers} == {"flight", "shared_memory"}
    assert result.digest == undisturbed("convolutional", folder).digest


def test_a_remote_worker_killed_in_mid_step_changes_no_bit(folder: Path) -> None:
    with lab(spec("convolutional", min_workers=2), folder, workers=1, is_remote=True) as job:
        job.wait_for(lambda progress: any(view.state == "READY" for view in progress.snapshot.workers))
        victim = job.workers[0].process.pid
        assert victim is not None
        os.kill(victim, signal.SIGSTOP)
        job.add_worker()
        job.wait_for(lambda progress: progress.snapshot.is_running)
        os.kill(victim, signal.SIGKILL)
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


def test_a_worker_that_sends_garbage_later_is_dropped_by_name(folder: Path) -> None:
    with lab(spec("convolutional"), folder, workers=0, is_remote=True) as job:
        with pytest.raises((flight.FlightError, pa.ArrowException, StopIteration)):
            talk(job, "secret", a_hello(job), Frame(Kind.SLOTS, 1 << 60, 1).pack())
        job.add_worker()
        result = job.result()
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    assert any("stranger left: sent what is no frame" in event.message for event in result.progress.events)
    assert result.digest == undisturbed("convolutional", folder).digest


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

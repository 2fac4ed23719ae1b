"""The state folder's disk fills up in mid-job: training goes on, and so does the service, once there is room."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from gradwire.client import Client
from gradwire.errors import Unavailable
from gradwire.spec.job import JobSpec
from gradwire.view import state_word
from protos.gradwire.v1 import service_pb2 as pb
from tests.faults.traces import wait_until
from tests.integration.jobs import a_spec, finished, trainer_pid, wait_for
from tests.integration.server import serving

pytestmark = pytest.mark.timeout(240)

DISK_BYTES = 256 << 20
STEPS = 2000
"""So many that the job is far from its end when the disk is full."""
WORK_S = 0.5
"""CPU time in which a trainer commits hundreds of steps."""
IDLE_PERCENT = 10.0
"""Of a core: one that trains takes more."""


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "gradwire-test", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"a small disk cannot be mounted here: {mounted.stderr.decode().strip()}")
    yield folder
    subprocess.run(["umount", "--lazy", folder], check=True)


def fill(path: Path) -> None:
    """Writes until there is no byte of room."""
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0" * 65536):
            pass
    with path.open("ab", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"\0"):
            pass
    found = os.statvfs(path)
    assert found.f_bavail == 0


def test_training_goes_on_without_room_and_the_last_checkpoint_stays(disk: Path, tmp_path: Path) -> None:
    state = disk / "state"
    state.mkdir()
    (state / "stderr.log").symlink_to(tmp_path / "stderr.log")  # what is logged meanwhile is asked for
    spec = a_spec(tmp_path, steps=STEPS, checkpoint={"everySteps": 20})
    with serving(state, data_root=str(tmp_path), warm=3, refill=False) as server, server.client() as client:
        job = client.submit(spec)
        before = wait_for(client, job, lambda found: found.checkpoint_step >= 20)
        fill(disk / "fill")
        wait_until(lambda: "event=store_not_writable" in server.log(), 30)
        trainer = psutil.Process(trainer_pid(job.id))
        worked_s = sum(trainer.cpu_times()[:2])
        wait_until(lambda: sum(trainer.cpu_times()[:2]) > worked_s + WORK_S, 60)
        checkpoints = state / "storage" / "jobs" / job.id / "checkpoints"
        assert [path for path in checkpoints.glob("step-*") if (path / "manifest.json").stat().st_size > 0]
        with pytest.raises(Unavailable, match=r"cannot write .*jobs\.sqlite3 .*free some room"):
            client.submit(spec)
        found = client.get(job.id)
        assert state_word(found.state) == "RUNNING", "nothing is lost or given up"

        (disk / "fill").unlink()
        again = wait_for(client, job, lambda now: now.checkpoint_step > found.checkpoint_step)
        assert again.generation == 1 and trainer.is_running() and again.step > before.step
        ended = finished(client, job)
        assert (state_word(ended.state), ended.step, ended.generation) == ("SUCCEEDED", STEPS, 1), ended.error.message
        assert_the_result_waits_for_room(client, spec, disk / "fill", ended)
    assert "event=store_writable_again" in (tmp_path / "stderr.log").read_text()


def assert_the_result_waits_for_room(client: Client, spec: JobSpec, fill_path: Path, before: pb.Job) -> None:
    """A job that is trained while the disk is full keeps its result until there is room for it."""
    job = client.submit(spec)
    wait_for(client, job, lambda found: found.checkpoint_step >= 20)
    fill(fill_path)
    trainer = psutil.Process(trainer_pid(job.id))
    wait_until(lambda: trainer.cpu_percent(interval=1.0) < IDLE_PERCENT, 120)
    fill_path.unlink()
    ended = finished(client, job)
    assert (state_word(ended.state), ended.step, ended.checkpoint_step) == ("SUCCEEDED", STEPS, STEPS)
    assert list(ended.exports) == ["keras", "saved_model"] and ended.weights_digest == before.weights_digest

"""The disk fills up: training goes on, and so does the service, once there is room; Prometheus raises the alarm."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import urllib.request
from pathlib import Path

import psutil
import pytest

from gradwire import parse
from gradwire.client import Client
from gradwire.errors import Unavailable
from gradwire.spec.job import JobSpec
from gradwire.view import state_word
from protos.gradwire.v1 import service_pb2 as pb
from tests.conftest import Require
from tests.faults.traces import wait_until
from tests.integration.jobs import a_spec, finished, trainer_pid, wait_for
from tests.integration.prometheus_server import Prometheus, prometheus
from tests.integration.server import serving
from tests.integration.test_dashboards_live import DOCUMENT

pytestmark = pytest.mark.timeout(240)

STEPS = 2000
"""So many that the job is far from its end when the disk is full."""
WORK_S = 0.5
"""CPU time in which a trainer commits hundreds of steps."""
IDLE_PERCENT = 10.0
"""Of a core: one that trains takes more."""


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


def test_training_goes_on_without_room_and_the_last_checkpoint_stays(small_disk: Path, tmp_path: Path) -> None:
    disk, state = small_disk, small_disk / "state"
    state.mkdir()
    (state / "stderr.log").symlink_to(tmp_path / "stderr.log")  # what is logged meanwhile is asked for
    spec = a_spec(tmp_path, steps=STEPS, resources={"workers": 2}, checkpoint={"everySteps": 20})
    with serving(state, data_root=str(tmp_path), warm=3, refill=False) as server, server.client() as client:
        job = client.submit(spec)
        before = wait_for(client, job, lambda found: found.checkpoint_step >= 20)
        fill(disk / "fill")
        wait_until(lambda: "event=store_not_writable" in server.log(), 30)
        with urllib.request.urlopen(f"http://{server.metrics}/metrics", timeout=20) as answer:
            assert b"gradwire_store_is_writable 0.0" in answer.read()
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


def test_jobs_start_on_a_full_disk_or_wait_and_alerts_fire(small_disk: Path, tmp_path: Path, require: Require) -> None:
    """The store has room, the storage has none: checkpoints, data caches, the numbers of trainers' starts."""
    require("prometheus", "Debian's package prometheus has it")
    state = tmp_path / "state"
    state.mkdir()
    for name in ("storage", "cache"):
        (small_disk / name).mkdir()
        (state / name).symlink_to(small_disk / name)
    fill_path = small_disk / "fill"
    with contextlib.ExitStack() as outer:
        with serving(state, data_root=str(tmp_path), warm=3) as server, server.client() as client:
            scraper = outer.enter_context(prometheus(server.metrics, tmp_path, is_patient=False))
            assert state_word(finished(client, client.submit(digits(steps=1))).state) == "SUCCEEDED"
            fill(fill_path)
            safe = client.submit(digits(steps=3000))
            wait_for(client, safe, lambda found: found.step > 0)
            assert_told(client, safe, r"no room left in .*/storage/jobs/\w+ .*takes 4\.1 kB, .* are free")
            wait_until(lambda: "GradwireCheckpointNotWritten" in firing(scraper), 60)
            assert_told(client, safe, r"cannot write the checkpoint of step .* takes \d+\.\d kB, .* are free")
            waiting = client.submit(a_spec(tmp_path, resources={"workers": 1}))
            wait_until(lambda: {"GradwireDiskNearlyFull", "GradwireJobStalled"} <= firing(scraper).keys(), 60)
            assert firing(scraper)["GradwireJobStalled"]["job_id"] == waiting.id
            # The alert may be earlier than the trainer, which imports TensorFlow before it looks for data.
            found = wait_for(client, waiting, lambda now: now.state_reason.startswith("waiting for room"))
            assert state_word(found.state) == "STARTING"
            assert_told(client, waiting, r"no room left in the data cache .*/cache: .* are free")

            os.kill(trainer_pid(safe.id), signal.SIGKILL)
            wait_for(client, safe, lambda found: "waits: no room left" in found.state_reason)
            assert state_word(client.get(safe.id).state) == "RECOVERING"
            fill_path.unlink()
            for job in (safe, waiting):
                ended = finished(client, job)
                assert (state_word(ended.state), ended.step) == ("SUCCEEDED", ended.total_steps), ended.error.message
            wait_until(lambda: not firing(scraper).keys() & {"GradwireDiskNearlyFull", "GradwireJobStalled"}, 60)
        wait_until(lambda: "GradwireCoordinatorDown" in firing(scraper), 60)


def digits(steps: int) -> JobSpec:
    """A job whose data takes no room once another has had it."""
    training = {**DOCUMENT["training"], "steps": steps}
    return parse({**DOCUMENT, "training": training, "resources": {"workers": 1, "cpusPerWorker": 0.25}}, Path())


def assert_told(client: Client, job: pb.Job, pattern: str) -> None:
    """Waits for an event; a job that ends without it fails."""
    seen = []
    for event in client.watch(job):
        seen.append(event.message)
        if re.search(pattern, event.message):
            return
    raise AssertionError(f"nothing like {pattern!r} among {seen}")


def firing(scraper: Prometheus) -> dict[str, dict[str, str]]:
    """The labels of the alerts that fire, by name."""
    found = scraper.get("alerts")["alerts"]
    return {one["labels"]["alertname"]: one["labels"] for one in found if one["state"] == "firing"}

"""One digest for one specification: whatever workers there are, and whatever becomes of them."""

from __future__ import annotations

import os
import signal
from functools import cache
from pathlib import Path

import pytest

from gradwire.spec.job import JobSpec
from tests.integration.cases import convolutional, several_heads, spec_of, write_npz
from tests.integration.lab import Result, lab, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(200)]

STEPS = 21
"""Three epochs of 200 rows in batches of 32: every seventh batch has 8 rows, which leaves shards empty."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("same_bits")
    write_npz(convolutional(has_state=True), made / "convolutional.npz")
    write_npz(several_heads(), made / "several_heads.npz")
    return made


def spec(name: str, *, checkpoint_every: int = 5, min_workers: int = 1) -> JobSpec:
    case = convolutional(has_state=True) if name == "convolutional" else several_heads()
    training = {"steps": STEPS, "checkpoint": {"everySteps": checkpoint_every}}
    return spec_of(case, f"server:{name}.npz", training=training, resources={"minWorkers": min_workers})


@cache
def undisturbed(name: str, folder: Path) -> Result:
    result = run(spec(name), folder, workers=2)
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    return result


@pytest.mark.parametrize("name", ["convolutional", "several_heads"])
@pytest.mark.parametrize("workers", [1, 4])
def test_the_number_of_workers_changes_no_bit(name: str, workers: int, folder: Path) -> None:
    result = run(spec(name), folder, workers)
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    assert result.digest == undisturbed(name, folder).digest
    assert result.progress.snapshot.step == STEPS
    told = [event.step for event in result.progress.events if event.kind == "progress"]
    assert told == sorted(set(told)) and told[-1] == STEPS, "no step is told twice"


@pytest.mark.parametrize("name", ["convolutional", "several_heads"])
def test_a_worker_killed_in_mid_step_changes_no_bit(name: str, folder: Path) -> None:
    with lab(spec(name, min_workers=2), folder, workers=1) as job:
        victim = job.hold_up()
        assert job.progress().snapshot.step == 0
        os.kill(victim, signal.SIGKILL)
        result = job.result()
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    assert any("w1 left" in event.message for event in result.progress.events)
    assert result.digest == undisturbed(name, folder).digest


@pytest.mark.parametrize("name", ["convolutional", "several_heads"])
def test_resuming_from_a_checkpoint_equals_not_stopping(name: str, folder: Path) -> None:
    with lab(spec(name), folder, workers=2) as first:
        first.wait_for(lambda progress: progress.snapshot.checkpoint_step >= 5)
        assert first.trainer is not None and first.trainer.process.pid is not None
        os.kill(first.trainer.process.pid, signal.SIGKILL)
        first.trainer.process.join(10)
    with lab(spec(name), folder, workers=1, job_id=first.job_id, generation=2) as second:
        result = second.result()
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    resumed = [event.message for event in result.progress.events if "goes on from" in event.message]
    assert len(resumed) == 1, "it must go on from a checkpoint"
    assert result.digest == undisturbed(name, folder).digest
    assert result.progress.snapshot.metrics == undisturbed(name, folder).progress.snapshot.metrics


def test_cancelling_keeps_what_is_trained(folder: Path) -> None:
    with lab(spec("convolutional", checkpoint_every=1000), folder, workers=1) as job:
        job.wait_for(lambda progress: progress.snapshot.is_running)
        assert job.trainer is not None
        job.trainer.call("cancel")
        result = job.result()
    assert result.outcome.state == "CANCELLED"
    assert result.progress.snapshot.checkpoint_step == result.progress.snapshot.step

"""Options of `training` that change what is computed, or when it ends."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.integration.cases import convolutional, spec_of, write_npz
from tests.integration.lab import Result, run

pytestmark = [pytest.mark.integration, pytest.mark.timeout(150)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("options")
    write_npz(convolutional(), made / "rows.npz")
    return made


def trained(folder: Path, workers: int = 1, validation: float | None = None, **training: Any) -> Result:
    spec = spec_of(convolutional(), "server:rows.npz", training=training, validation=validation)
    result = run(spec, folder, workers)
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    return result


def test_clipping_changes_the_result_and_an_ample_limit_does_not(folder: Path) -> None:
    plain = trained(folder, steps=5)
    ample = trained(folder, steps=5, gradientClip={"kind": "value", "limit": 1e9})
    tight = trained(folder, steps=5, gradientClip={"kind": "global_norm", "limit": 1e-3})
    assert plain.digest == ample.digest != tight.digest


def test_xla_gives_one_digest_for_1_and_2_workers(folder: Path) -> None:
    results = [trained(folder, workers, steps=5, xla="on") for workers in (1, 2)]
    assert results[0].digest == results[1].digest
    assert results[0].progress.snapshot.fingerprint["xla"] == "on"


def test_evaluations_come_when_asked_and_stop_the_job_that_does_not_improve(folder: Path) -> None:
    stopping = {"patience": 2, "monitor": "loss", "minDelta": 1e6}
    result = trained(folder, validation=0.25, steps=50, evaluateEvery=3, earlyStopping=stopping)
    steps = [event.step for event in result.progress.events if event.kind == "evaluation"]
    assert steps == [3, 6, 9]  # the first is an improvement over nothing
    assert result.progress.snapshot.step == 9
    assert result.progress.snapshot.checkpoint_step == 9


def test_a_job_that_has_stopped_early_trains_no_further_when_it_is_started_again(folder: Path) -> None:
    stopping = {"patience": 1, "monitor": "loss", "minDelta": 1e6}
    training = {"steps": 30, "evaluateEvery": 2, "earlyStopping": stopping}
    spec = spec_of(convolutional(), "server:rows.npz", training=training, validation=0.25)
    first = run(spec, folder, 1, job_id="stoppedearly")
    again = run(spec, folder, 1, job_id="stoppedearly", generation=2)
    assert first.progress.snapshot.step == again.progress.snapshot.step == 4
    assert first.digest == again.digest


def test_a_metric_that_nobody_reports_fails_before_the_first_step(folder: Path) -> None:
    training = {"steps": 5, "checkpoint": {"monitor": "acuracy"}}
    result = run(spec_of(convolutional(), "server:rows.npz", training=training), folder, 1)
    assert result.outcome.error is not None and result.outcome.error.code == "unknown_metric"
    assert "training.checkpoint.monitor is 'acuracy'; this job reports loss" in result.outcome.error.message


def test_a_job_that_is_started_again_after_its_last_step_reports_what_it_reported(folder: Path) -> None:
    stopping = {"patience": 1, "monitor": "loss", "minDelta": 1e6}
    steps_per_epoch = 5
    training = {"steps": 50, "evaluateEvery": steps_per_epoch, "earlyStopping": stopping}
    for name, spec in (
        ("ran out", spec_of(convolutional(), "server:rows.npz", training={"steps": 7})),
        (
            "stopped at the end of an epoch",
            spec_of(convolutional(), "server:rows.npz", training=training, validation=0.25),
        ),
    ):
        first = run(spec, folder, 1, job_id=name.replace(" ", ""))
        again = run(spec, folder, 1, job_id=name.replace(" ", ""), generation=2)
        assert first.progress.snapshot.step == again.progress.snapshot.step
        assert first.progress.snapshot.step % (7 if name == "ran out" else steps_per_epoch) == 0
        assert first.progress.snapshot.metrics.keys() == {"loss"}, name
        assert again.progress.snapshot.metrics == first.progress.snapshot.metrics, name

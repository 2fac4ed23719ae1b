"""One specification, every fault, one digest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from gradwire.spec.job import JobSpec
from tests.faults.schedule import BRIEFLY_S, TOO_LONG_S, TRAINER, Fault, Schedule, Way, schedules
from tests.faults.stage import Play
from tests.integration.cases import convolutional, spec_of, write_npz
from tests.integration.lab import Result, run

pytestmark = pytest.mark.timeout(200)

STEPS = 200
"""Of 7 to an epoch: 200 rows in batches of 32 samples, the last of which has 8, for one shard of the four."""
EVERY_STEPS = 10


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("one_digest")
    write_npz(convolutional(has_state=True), made / "rows.npz")
    return made


@pytest.fixture(scope="module")
def spec(folder: Path) -> JobSpec:
    """Dropout, BatchNorm and Adam, 4 shards."""
    training = {"steps": STEPS, "checkpoint": {"everySteps": EVERY_STEPS}}
    made = spec_of(convolutional(has_state=True), "server:rows.npz", training=training)
    assert made.training.shards == 4
    return made


@pytest.fixture(scope="module")
def undisturbed(folder: Path, spec: JobSpec) -> Result:
    result = run(spec, folder, workers=2)
    assert result.outcome.state == "SUCCEEDED", result.outcome.error
    return result


@pytest.fixture(scope="module")
def play(folder: Path, spec: JobSpec, undisturbed: Result) -> Callable[[Schedule], Play]:
    """Plays a schedule, and sees that the job comes to the same end and leaves nothing."""

    def played(schedule: Schedule) -> Play:
        made = Play(spec, folder, schedule)
        try:
            result = made.perform()
            assert result.outcome.state == "SUCCEEDED", f"{result.outcome.error} after {made.story()}"
            assert result.digest == undisturbed.digest, f"another digest after {made.story()}"
            metrics, expected = result.progress.snapshot.metrics, undisturbed.progress.snapshot.metrics
            assert metrics == expected, f"{metrics} for {expected} after {made.story()}"
            assert_no_committed_step_is_lost(made)
            left = made.left()
            assert left == [], f"left: {', '.join(left)} after {made.story()}"
        finally:
            made.close()
        return made

    return played


def assert_no_committed_step_is_lost(played: Play) -> None:
    """A start of the trainer goes on from the newest checkpoint, and never back.

    That may be a newer one than there was when it was started: one that is given up may just be about to name its own.
    """
    for generation, cast in enumerate(played.casts, start=1):
        steps = [step for step, _ in played.commits(generation)]
        told = f"start {generation} goes on from {cast.restored} with {steps}: {played.story()}"
        if steps:
            assert steps[0] > cast.restored, told
            assert steps == list(range(steps[0], steps[0] + len(steps))), told
    assert steps[-1:] == [STEPS] or played.casts[-1].restored == STEPS, f"{steps[-1:]} is the end: {played.story()}"
    for cast in played.casts:
        if cast.is_given_up:
            assert cast.outcome is not None, f"a trainer that was given up goes on: {played.story()}"
            code = cast.outcome.error and cast.outcome.error.code
            assert code == "superseded", f"two trainers of one job may not both write: {code} in {played.story()}"


@pytest.mark.parametrize(("workers", "way"), [(1, "near"), (4, "near"), (4, "relayed")])
def test_any_number_of_workers(workers: int, way: Way, play: Callable[[Schedule], Play]) -> None:
    assert play(Schedule(workers=workers, way=way)).struck == []


def kill(who: int, step: int, moment: str = "before") -> Fault:
    return Fault(who=who, step=step, moment=moment, blow="kill")  # type: ignore[arg-type]


def stop(who: int, step: int, for_s: float, moment: str = "before") -> Fault:
    return Fault(who=who, step=step, moment=moment, blow="stop", for_s=for_s)  # type: ignore[arg-type]


# Each comes about for sure: whoever is struck is there from the start, or the only one that there is.
EVERY_FAULT = {
    "workers are killed": Schedule(workers=2, faults=(kill(1, 3), kill(2, 3, "after"))),
    "the only worker is killed, again and again": Schedule(
        workers=1, faults=(kill(1, 0), kill(2, 50, "after"), kill(3, 51), kill(4, 150, "after"))
    ),
    "a worker is stopped and continued": Schedule(
        workers=2, faults=(stop(1, 20, BRIEFLY_S), stop(2, 20, BRIEFLY_S, "after"))
    ),
    "a worker is stopped, dropped, and continued": Schedule(workers=2, faults=(stop(1, 20, TOO_LONG_S, "after"),)),
    "workers behind a relay are killed, and stopped for too long": Schedule(
        workers=3, faults=(kill(1, 3), kill(2, 3, "after"), stop(3, 4, TOO_LONG_S, "after")), way="relayed"
    ),
    "the trainer of workers behind a relay is killed, and stopped": Schedule(
        workers=2, faults=(kill(TRAINER, 33), stop(TRAINER, 60, 1.0)), way="relayed"
    ),
    "the trainer is killed in a step": Schedule(workers=2, faults=(kill(TRAINER, 33), kill(TRAINER, 34))),
    "the trainer is killed while it writes": Schedule(workers=2, faults=(kill(TRAINER, 40, "after"),)),
    "the trainer is stopped in a step, and continued": Schedule(workers=2, faults=(stop(TRAINER, 33, 1.0),)),
    "the trainer is stopped while it writes, and continued": Schedule(
        workers=2, faults=(stop(TRAINER, 40, 1.0, "after"),)
    ),
}


@pytest.mark.parametrize("name", EVERY_FAULT)
def test_every_fault(name: str, play: Callable[[Schedule], Play]) -> None:
    schedule = EVERY_FAULT[name]
    played = play(schedule)
    assert len(played.struck) == len(schedule.faults), f"only these came about: {played.struck}"


@settings(
    max_examples=16, deadline=None, derandomize=True, phases=[Phase.generate], suppress_health_check=list(HealthCheck)
)
@given(schedule=schedules(steps=STEPS, worker_faults=4, trainer_faults=2))
def test_any_schedule_of_faults(schedule: Schedule, play: Callable[[Schedule], Play]) -> None:
    play(schedule)

"""What follows from the end of a process."""

from __future__ import annotations

from gradwire.progress import ErrorView, Outcome
from service.engine import Death
from service.jobs.states import JobState
from service.recovery import (
    MAX_TRAINER_DEATHS,
    MAX_WORKER_DEATHS,
    End,
    Hold,
    Losses,
    Restart,
    after_trainer,
    after_worker,
)

DEATH = Death("killed by signal 9")


def test_an_outcome_is_the_jobs() -> None:
    error = ErrorView(code="nonfinite", message="the loss is not finite")
    ends = [(Outcome(state="SUCCEEDED"), JobState.SUCCEEDED), (Outcome(state="FAILED", error=error), JobState.FAILED)]
    for wish in ({}, {"is_cancelling": True}, {"is_pausing": True}):
        for outcome, state in ends:
            end = after_trainer(outcome, losses=Losses(), **wish)
            assert isinstance(end, End) and end.state is state and end.error == outcome.error


def test_a_trainer_that_was_stopped_has_a_job_that_is_cancelled_or_held() -> None:
    stopped = Outcome(state="CANCELLED")
    end = after_trainer(stopped, is_cancelling=True, losses=Losses())
    assert isinstance(end, End) and end.state is JobState.CANCELLED
    assert after_trainer(stopped, is_pausing=True, losses=Losses()) == Hold()
    assert after_trainer(stopped, losses=Losses()) == Hold(), "resumed before it had stopped"
    assert after_trainer(DEATH, is_pausing=True, losses=Losses()) == Hold(why=f"the trainer died ({DEATH.reason})")


def test_a_failure_without_a_reason_has_an_error_too() -> None:
    end = after_trainer(Outcome(state="FAILED"), is_cancelling=False, losses=Losses())
    assert isinstance(end, End) and end.error is not None and end.error.code == "internal"


def test_deaths_are_forgiven_up_to_a_bound() -> None:
    losses = Losses(high_step=5)
    for _ in range(MAX_TRAINER_DEATHS):
        losses = losses.trainer_died()
        assert isinstance(after_trainer(DEATH, is_cancelling=False, losses=losses), Restart)
    end = after_trainer(DEATH, is_cancelling=False, losses=losses.trainer_died())
    assert isinstance(end, End) and end.error is not None and end.error.code == "trainer_died"
    cancelled = after_trainer(DEATH, is_cancelling=True, losses=losses)
    assert isinstance(cancelled, End) and cancelled.state is JobState.CANCELLED


def test_workers_deaths_are_forgiven_up_to_a_bound() -> None:
    losses = Losses()
    for _ in range(MAX_WORKER_DEATHS):
        losses = losses.worker_died()
        assert after_worker(losses, "w", "oom") is None
    end = after_worker(losses.worker_died(), "w", "oom")
    assert end is not None and end.error is not None and end.error.worker == "w"


def test_only_a_new_high_forgets_deaths() -> None:
    losses = Losses(high_step=5).trainer_died().worker_died()
    assert losses.committed(4) == losses.committed(5) == losses
    assert losses.committed(6) == Losses(high_step=6)

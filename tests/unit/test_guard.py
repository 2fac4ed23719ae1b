"""Which steps are skipped, and how the loss scale moves: as Keras's LossScaleOptimizer moves it."""

from __future__ import annotations

import numpy as np
import pytest

from gradwire.errors import JobFailed
from gradwire.spec.job import TrainingSpec
from service.training.guard import GROWTH_STEPS, INITIAL_SCALE, MAX_SKIPS_IN_A_ROW, Guard


def guard(**options: str) -> Guard:
    return Guard(TrainingSpec.model_validate({"globalBatch": 4, "steps": 9, **options}))


def sums(loss: float = 1.0, nonfinite: float = 0.0) -> dict[str, np.ndarray]:
    return {"loss": np.array([loss, loss]), "nonfinite": np.array([nonfinite])}


def test_the_scale_is_halved_by_a_skipped_step_and_doubled_by_many_good_ones() -> None:
    judge = guard(precision="mixed_float16")
    assert judge.scale == INITIAL_SCALE
    assert not judge.accepts(0, sums(nonfinite=2))
    assert judge.scale == INITIAL_SCALE / 2
    for step in range(GROWTH_STEPS):
        assert judge.accepts(step, sums())
    assert judge.scale == INITIAL_SCALE
    assert str(judge) == "1 step skipped so far; the loss scale is now 32768"


def test_a_restored_guard_goes_on_as_the_first() -> None:
    first, second = guard(precision="mixed_float16"), guard(precision="mixed_float16")
    for step in range(GROWTH_STEPS - 1):
        first.accepts(step, sums(nonfinite=step == 3))
    second.restore(first.array())
    for step in range(5):
        assert first.accepts(step, sums()) and second.accepts(step, sums())
        assert first.scale == second.scale
    assert first.scale == INITIAL_SCALE


def test_without_skipping_a_loss_that_is_not_finite_ends_the_job_even_under_float16() -> None:
    for options in ({}, {"precision": "mixed_float16"}):
        with pytest.raises(JobFailed, match="the summed loss of step 4 is not finite"):
            guard(**options).accepts(3, sums(loss=np.nan))
    assert not guard(onNonfinite="skip").accepts(3, sums(loss=np.inf))


def test_a_job_that_skips_without_end_is_ended() -> None:
    judge = guard(onNonfinite="skip")
    assert not any(judge.accepts(step, sums(nonfinite=1)) for step in range(MAX_SKIPS_IN_A_ROW - 1))
    with pytest.raises(JobFailed, match="last 100 steps, up to step 100"):
        judge.accepts(MAX_SKIPS_IN_A_ROW - 1, sums(nonfinite=1))
    assert judge.scale == 1.0

"""Evaluations beside training, on paper: every decision is as if each had been waited for, also after a resume."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire.spec.job import TrainingSpec
from service.training.milestones import Milestones, Moment
from service.training.reporter import Reporter
from service.training.saver import Held
from service.training.stopping import Stopper

EPOCH = 4


@dataclass
class Paper:
    """A job's evaluations, and what its storage holds after it was killed."""

    training: TrainingSpec
    losses: list[float]
    """Of the evaluation after each step, from the first."""
    durations: list[int]
    """In steps, likewise; 0 is done at once."""
    checkpoints: dict[int, dict[str, Any]] = field(default_factory=dict)
    reporter: Reporter = field(default_factory=Reporter)

    @property
    def steps(self) -> int:
        return len(self.losses)

    def run(self, until: int) -> int:
        """Trains from the last checkpoint on until the trainer is killed after a step; returns where it came to."""
        step = max(self.checkpoints, default=0)
        start = Start(self, step)
        milestones = start.milestones
        if step:
            milestones.resume(step, self.checkpoints[step]["totals"])
        is_over = milestones.stopper.is_over
        while step < min(until, self.steps) and not is_over:
            step += 1
            start.step = step
            is_epoch_end, is_last = step % EPOCH == 0, step == self.steps
            now = Moment(step=step, epoch=(step - 1) // EPOCH + 1, is_epoch_end=is_epoch_end, is_last=is_last)
            is_over = milestones.evaluate(now)
            milestones.save(now, is_end=is_over or is_last)
        return step

    @property
    def evaluated(self) -> list[tuple[int, float]]:
        events = self.reporter.progress(0).events
        return [(event.step, event.metrics["loss"]) for event in events if event.kind == "evaluation"]


class Start:
    """One start of the trainer: stands in for examiner, saver, guard, totals and board."""

    def __init__(self, paper: Paper, step: int) -> None:
        self.paper = paper
        self.step = step
        self.under_way = 0
        self.released: list[int] = []
        training = paper.training
        self.every_steps = training.checkpoint.every_steps
        self.milestones = Milestones(
            examiner=self, evaluate_every=training.evaluate_every, stopper=Stopper(training), saver=self, guard=self,
            totals=self, board=self, reporter=paper.reporter,
        )  # type: ignore[arg-type]  # fmt: skip

    # the examiner
    @property
    def is_done(self) -> bool:
        return self.step >= self.under_way + self.paper.durations[self.under_way - 1]

    def begin(self, step: int, tensors: Mapping[str, np.ndarray]) -> None:
        assert not self.under_way
        assert tensors["weights/w"] == self.step == step, "it reads the weights of its step"
        self.under_way = step

    def result(self) -> Start:
        return self

    def values(self) -> dict[str, float]:
        step, self.under_way = self.under_way, 0
        return {"loss": self.paper.losses[step - 1]}

    # the saver
    def hold(self, step: int) -> Held:
        return Held(step, {"weights/w": np.array(step)}, lambda: self.released.append(step))

    try_to_hold = hold

    def write(self, held: Held, metrics: Mapping[str, float], totals: Mapping[str, np.ndarray], **options: Any) -> bool:
        assert held.step > max(self.paper.checkpoints, default=0), "checkpoints come in the order of their steps"
        self.paper.checkpoints[held.step] = {"metrics": dict(metrics), "totals": dict(totals), **options}
        return True

    def is_retry_due(self) -> bool:
        return False

    def tell(self) -> None:
        """Nothing is written in the background."""

    # totals, guard and board
    def arrays(self) -> dict[str, np.ndarray]:
        return {"samples": np.array(self.step)}

    def array(self) -> np.ndarray:
        return np.zeros(1)

    def curves(self, *_: Any) -> None:
        """Draws nothing."""


def expected(training: TrainingSpec, losses: list[float]) -> tuple[int, int]:
    """The last step and the best one, where each evaluation is waited for; in plain words."""
    best, best_step, waited = float("inf"), 0, 0
    rule = training.early_stopping
    for step, loss in enumerate(losses, start=1):
        every = training.evaluate_every
        if not (step == len(losses) or (step % every == 0 if every else step % EPOCH == 0)):
            continue
        if loss < best - (rule.min_delta if rule else 0.0):
            best, best_step, waited = loss, step, 0
        else:
            waited += 1
        if rule and waited >= rule.patience:
            return step, best_step
    return len(losses), best_step


@st.composite
def papers(draw: st.DrawFn) -> Paper:
    steps = draw(st.integers(1, 24))
    rule = draw(st.one_of(st.none(), st.fixed_dictionaries({"patience": st.integers(1, 4)})))
    training = TrainingSpec.model_validate(
        {
            "globalBatch": 4,
            "steps": steps,
            "evaluateEvery": draw(st.integers(0, 5)),
            "earlyStopping": rule,
            "checkpoint": {"everySteps": draw(st.integers(0, 5))},
        }
    )
    losses = draw(st.lists(st.sampled_from([0.0, 1.0, 2.0, 3.0, float("nan")]), min_size=steps, max_size=steps))
    durations = draw(st.lists(st.integers(0, 6), min_size=steps, max_size=steps))
    return Paper(training, losses, durations)


@settings(max_examples=300, deadline=None)
@given(papers(), st.lists(st.integers(1, 24), max_size=4))
def test_every_decision_is_as_if_evaluations_had_been_waited_for(paper: Paper, kills: list[int]) -> None:
    for kill in kills:
        paper.run(until=max(paper.checkpoints, default=0) + kill)
    last = paper.run(until=paper.steps)
    assert (last, paper.checkpoints[last]["best_step"]) == expected(paper.training, paper.losses)
    assert last == max(paper.checkpoints)
    for step, stored in paper.checkpoints.items():
        assert stored["totals"]["samples"] == step, "totals are those of the checkpoint's own step"
        best = stored["best_step"]
        assert not best or best in paper.checkpoints, "the best evaluation's was written before"
        if stored["metrics"]:
            assert stored["metrics"]["loss"] == pytest.approx(paper.losses[step - 1], nan_ok=True)
    told = dict(paper.evaluated)
    assert all(np.isclose(told[step], paper.losses[step - 1], equal_nan=True) for step in told)
    assert paper.evaluated[-1][0] == last


def paper_of(durations: list[int], **training: Any) -> Paper:
    steps = len(durations)
    spec = TrainingSpec.model_validate({"globalBatch": 4, "steps": steps, **training})
    return Paper(spec, [float(steps - step) for step in range(steps)], durations)


def test_steps_go_on_beside_an_evaluation_and_its_checkpoint_waits_for_it() -> None:
    paper = paper_of([3] * 8, evaluateEvery=2, checkpoint={"everySteps": 1})
    start = Start(paper, 0)
    for step in (1, 2, 3, 4):
        start.step = step
        now = Moment(step=step, epoch=1, is_epoch_end=False, is_last=False)
        start.milestones.evaluate(now)
        start.milestones.save(now, is_end=False)
        assert sorted(paper.checkpoints) == {1: [1], 2: [1], 3: [1], 4: [1, 2]}[step]
    assert [step for step, _ in paper.evaluated] == [2], "that of step 2 is waited for before that of step 4 begins"


def test_an_evaluation_that_may_end_the_job_is_waited_for() -> None:
    rule = {"patience": 1, "minDelta": 1e6}
    paper = paper_of([100] * 8, evaluateEvery=2, earlyStopping=rule)
    assert paper.run(until=8) == 4
    assert paper.checkpoints[4]["best_step"] == 2


def test_a_state_that_is_too_large_for_a_copy_is_evaluated_before_the_next_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    live = lambda self, step: Held(step, {"weights/w": np.array(step)}, lambda: None, is_live=True)  # noqa: E731
    monkeypatch.setattr(Start, "hold", live)
    paper = paper_of([100] * 8, evaluateEvery=3)
    start = Start(paper, 0)
    start.step = 3
    start.milestones.evaluate(Moment(step=3, epoch=1, is_epoch_end=False, is_last=False))
    assert paper.evaluated == [(3, 6.0)]


def test_a_failed_job_still_writes_the_checkpoint_that_waits_for_its_evaluation() -> None:
    paper = paper_of([100] * 8, evaluateEvery=2, checkpoint={"everySteps": 2})
    start = Start(paper, 0)
    start.step = 2
    start.milestones.evaluate(Moment(step=2, epoch=1, is_epoch_end=False, is_last=False))
    assert not paper.checkpoints
    start.milestones.give_up()
    assert paper.checkpoints[2]["metrics"] == {"loss": 7.0}

"""Whether a job stops early, and which evaluation was its best: decisions on numbers alone."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from gradwire.errors import JobFailed
from gradwire.spec.job import TrainingSpec


@dataclass(frozen=True, slots=True)
class Verdict:
    """What an evaluation means: whether it is the best so far, and whether the job ends with it."""

    is_best: bool
    is_over: bool


class Stopper:
    """Counts evaluations without improvement, by early stopping's metric; without early stopping by the checkpoints'.

    Its state goes into checkpoints, so that a resumed job decides alike.
    """

    def __init__(self, training: TrainingSpec) -> None:
        rule, checkpoint = training.early_stopping, training.checkpoint
        self.monitor = rule.monitor if rule is not None else checkpoint.monitor
        is_max = is_better_when_larger(rule.monitor) if rule is not None else checkpoint.mode == "max"
        self._sign = -1.0 if is_max else 1.0
        self._min_delta = rule.min_delta if rule is not None else 0.0
        self._patience = rule.patience if rule is not None else math.inf
        self._best = math.inf
        self._waited = 0
        self.best_step = 0
        """The best evaluation's; 0 before the first."""

    def judge(self, step: int, metrics: Mapping[str, float]) -> Verdict:
        """Takes the metrics of the evaluation after a step.

        Raises:
            JobFailed: the monitored metric is not among them (code `unknown_metric`).
        """
        value = self._sign * require_metric(metrics, self.monitor, "the monitored metric")
        is_best = value < self._best - self._min_delta
        if is_best:
            self._best, self._waited, self.best_step = value, 0, step
        else:
            self._waited += 1
        return Verdict(is_best, self.is_over)

    @property
    def best_value(self) -> float:
        """Of the best evaluation; not a finite number before the first."""
        return self._sign * self._best

    @property
    def is_decisive(self) -> bool:
        """Whether the next evaluation may be one too many: nothing can be trained beyond it before it is known."""
        return self._waited + 1 >= self._patience

    @property
    def is_over(self) -> bool:
        """Whether the last evaluation was one too many; a job resumed from its checkpoint trains no further."""
        return self._waited >= self._patience

    def array(self) -> np.ndarray:
        return np.array([self._best, float(self._waited), float(self.best_step)])

    def restore(self, array: np.ndarray) -> None:
        self._best, self._waited = float(array[0]), int(array[1])
        self.best_step = int(array[2]) if len(array) > 2 else 0  # checkpoints of earlier versions have two numbers


def require_metric(metrics: Mapping[str, float], name: str, field: str) -> float:
    """The metric's value; raises `JobFailed` with code `unknown_metric`, naming the field and what there is."""
    if name not in metrics:
        raise JobFailed(f"{field} is '{name}'; this job reports {', '.join(sorted(metrics))}", code="unknown_metric")
    return metrics[name]


def is_better_when_larger(name: str) -> bool:
    """Whether a metric of this name grows as the model gets better."""
    return not any(word in name for word in ("loss", "error", "entropy", "divergence", "hinge", "poisson", "cosh"))

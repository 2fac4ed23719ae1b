"""Whether a job stops early, and which evaluation was its best: decisions on numbers alone."""

from __future__ import annotations

import math

import numpy as np

from gradwire.errors import JobFailed
from gradwire.spec.job import EarlyStopping


class Stopper:
    """Counts evaluations without improvement; smaller is better, unless the metric's name says otherwise.

    Without a rule it never stops. Its state goes into checkpoints, so that a resumed job decides alike.
    """

    def __init__(self, rule: EarlyStopping | None, *, is_max: bool) -> None:
        self._rule = rule
        self._sign = -1.0 if is_max else 1.0
        self._best = math.inf
        self._waited = 0

    def should_stop(self, metrics: dict[str, float]) -> bool:
        """Takes one evaluation's metrics.

        Raises:
            JobFailed: the monitored metric is not among them (code `unknown_metric`).
        """
        if self._rule is None:
            return False
        value = self._sign * require_metric(metrics, self._rule.monitor, "training.earlyStopping.monitor")
        if value < self._best - self._rule.min_delta:
            self._best, self._waited = value, 0
        else:
            self._waited += 1
        return self.is_over

    @property
    def has_improved(self) -> bool:
        """Whether the last evaluation was the best so far."""
        return self._rule is not None and not self._waited

    @property
    def is_over(self) -> bool:
        """Whether the last evaluation was one too many; a job resumed from its checkpoint trains no further."""
        return self._rule is not None and self._waited >= self._rule.patience

    def array(self) -> np.ndarray:
        return np.array([self._best, float(self._waited)])

    def restore(self, array: np.ndarray) -> None:
        self._best, self._waited = float(array[0]), int(array[1])


def require_metric(metrics: dict[str, float], name: str, field: str) -> float:
    """The metric's value; raises `JobFailed` with code `unknown_metric`, naming the field and what there is."""
    if name not in metrics:
        raise JobFailed(f"{field} is '{name}'; this job reports {', '.join(sorted(metrics))}", code="unknown_metric")
    return metrics[name]


def is_better_when_larger(name: str) -> bool:
    """Whether a metric of this name grows as the model gets better."""
    return not any(word in name for word in ("loss", "error", "entropy", "divergence", "hinge", "poisson", "cosh"))

"""What becomes of a step whose numbers are not finite, and the factor of the losses under float16."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from gradwire.errors import JobFailed
from gradwire.spec.job import TrainingSpec
from workers.program import LOSS, NONFINITE

INITIAL_SCALE = 2.0**15
GROWTH_STEPS = 2000
"""Both as in `keras.optimizers.LossScaleOptimizer`; a power of two, by which dividing is exact."""

MAX_SKIPS_IN_A_ROW = 100
"""Then nothing will come of the job: a loss scale that helps is found in a few tens of steps."""


class Guard:
    """Judges the sums of steps, in order. Belongs to the trainer's loop; its state goes into checkpoints.

    A step is judged by what its shards have found, not by who computed them, so that every run of a job skips the same.
    """

    def __init__(self, training: TrainingSpec) -> None:
        self._is_scaling = training.precision == "mixed_float16"
        self._skips = training.on_nonfinite == "skip"
        self._scale = INITIAL_SCALE if self._is_scaling else 1.0
        self._good_steps = 0
        self.skipped = 0
        self._in_a_row = 0

    @property
    def scale(self) -> float:
        """What workers multiply the next step's loss by before they differentiate it, and divide the gradients by."""
        return self._scale

    def accepts(self, step: int, sums: Mapping[str, np.ndarray]) -> bool:
        """Whether the step's update may be applied. False skips it: weights, state and optimiser stay as they are.

        Args:
            sums: what the step's contributions add up to, by name.

        Raises:
            JobFailed: the summed loss is not finite and the job does not skip, or too many steps in a row were skipped
                (code `nonfinite`).
        """
        is_finite = math.isfinite(float(sums[LOSS][0]))
        if not is_finite and not self._skips:  # workers check their shards; a sum of finite numbers can still overflow
            raise JobFailed(f"the summed loss of step {step + 1} is not finite", code="nonfinite")
        if is_finite and not (NONFINITE in sums and sums[NONFINITE][0]):
            self._count_good()
            return True
        self._count_skipped(step)
        return False

    def _count_good(self) -> None:
        self._in_a_row = 0
        self._good_steps += 1
        if self._is_scaling and self._good_steps == GROWTH_STEPS:
            self._scale, self._good_steps = self._scale * 2, 0

    def _count_skipped(self, step: int) -> None:
        self.skipped += 1
        self._in_a_row += 1
        self._good_steps = 0
        if self._is_scaling:
            self._scale /= 2
        if self._in_a_row == MAX_SKIPS_IN_A_ROW:
            raise JobFailed(
                f"the gradients of the last {MAX_SKIPS_IN_A_ROW} steps, up to step {step + 1}, were not finite, and "
                "were skipped: look at the data, lower the learning rate, or clip gradients (training.gradientClip)",
                code="nonfinite",
            )

    def __str__(self) -> str:
        scale = f"; the loss scale is now {self._scale:g}" if self._is_scaling else ""
        return f"{self.skipped} step{'s' * (self.skipped > 1)} skipped so far{scale}"

    def array(self) -> np.ndarray:
        """Everything, to be put in a checkpoint."""
        return np.array([self._scale, self._good_steps, self.skipped, self._in_a_row], np.float64)

    def restore(self, array: np.ndarray) -> None:
        self._scale = float(array[0])
        self._good_steps, self.skipped, self._in_a_row = (int(value) for value in array[1:])

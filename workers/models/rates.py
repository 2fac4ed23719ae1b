"""Learning rates that are a multiple of another."""

from __future__ import annotations

from typing import Any

import keras


class MultipliedSchedule(keras.optimizers.schedules.LearningRateSchedule):
    """Another schedule's rate times a factor."""

    def __init__(self, schedule: keras.optimizers.schedules.LearningRateSchedule, factor: float) -> None:
        self._schedule = schedule
        self._factor = factor

    def __call__(self, step: Any) -> Any:
        return self._schedule(step) * self._factor

    def get_config(self) -> dict[str, Any]:
        return {"schedule": self._schedule, "factor": self._factor}


def multiply_rate(optimizer: keras.optimizers.Optimizer, factor: float) -> None:
    """Multiplies the learning rate of an optimiser that is not built yet."""
    rate = optimizer._learning_rate
    if isinstance(rate, keras.optimizers.schedules.LearningRateSchedule):
        optimizer.learning_rate = MultipliedSchedule(rate, factor)
    else:
        # The number as it was written, not as float32 rounds it: 0.001 times 0.1 is 0.0001.
        optimizer.learning_rate = float(str(rate.numpy())) * factor

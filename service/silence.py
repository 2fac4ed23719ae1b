"""Whether a trainer hangs: how long it has owed an answer, and how long it may."""

from __future__ import annotations

from dataclasses import dataclass

RUNNING_S = 5.0
"""While it trains; its calls are answered by another thread than the one that trains."""
STARTING_S = 30.0
"""While it builds its model, where a single call of TensorFlow may keep the interpreter for seconds."""
MAX_TICK_S = 1.0
"""More than so much is not counted between two looks: then it was the coordinator that stood still."""


@dataclass(slots=True)
class Silence:
    """Counts the seconds without an answer, from the first look on."""

    owed_s: float = 0.0
    _looked_at: float | None = None

    def look(self, now: float, *, is_answered: bool) -> None:
        """What the look at `now` has found, in seconds of a clock that never goes back."""
        since = 0.0 if self._looked_at is None else now - self._looked_at
        self._looked_at = now
        self.owed_s = 0.0 if is_answered else self.owed_s + min(since, MAX_TICK_S)

    def is_over(self, *, is_running: bool) -> bool:
        """Whether it has lasted so long that the trainer hangs."""
        return self.owed_s >= (RUNNING_S if is_running else STARTING_S)

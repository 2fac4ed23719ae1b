"""What a run measures, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil

from benchmarks.models import SIZED, Model
from benchmarks.recovery import KILLS_OF_A_SERVICE
from benchmarks.system import Feed, Pace

QUICK_PACE = Pace(warmup_s=0.3, window_s=0.7)
PACE = Pace(warmup_s=0.5, window_s=1.5)
ROUNDS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """One run of the benchmarks."""

    models: Sequence[Model]
    systems: Sequence[str]
    transports: Sequence[str]
    """Of Gradwire."""
    feeds: Sequence[Feed]
    rounds: int
    with_extras: bool
    """Whether starts, recovery and checkpoints are measured too."""
    is_quick: bool

    @property
    def pace(self) -> Pace:
        return QUICK_PACE if self.is_quick else PACE

    @property
    def starts(self) -> int:
        """How often the start of a job is measured, cold and warm."""
        return 1 if self.is_quick or self.rounds == 1 else 3

    @property
    def kills(self) -> int:
        """Of workers that have another beside them."""
        return 2 if self.is_quick else KILLS_OF_A_SERVICE if self.rounds == 1 else 50

    @property
    def measurements(self) -> int:
        """How many there are if nothing fails; the progress bar's end."""
        ends = sum(self._columns(model) * self._turns(model) for model in self.models)
        return 1 + ends + (self._extras if self.with_extras else 0)

    @property
    def _extras(self) -> int:
        """Starts, kills by service and alone, checkpoints, the idle service, tables."""
        return 2 * self.starts + ceil(self.kills / KILLS_OF_A_SERVICE) + 2 + 1 + 1 + len(SIZED)

    def _columns(self, model: Model) -> int:
        ours = len(self.transports) * (2 if model.has_tables else 1) if "gradwire" in self.systems else 0
        peers = len(set(self.systems) - {"gradwire"} - (set() if model.has_tables else {"keras_fit"}))
        return ours + peers

    def _turns(self, model: Model) -> int:
        """Starts and windows of one system."""
        return (1 if model.fits_beside else self.rounds) + self.rounds * len(self.feeds)

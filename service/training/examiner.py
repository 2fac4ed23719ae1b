"""Evaluates snapshots while the steps go on."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor, wait

import numpy as np

from service.training.totals import EpochTotals
from workers.denormals import flush_denormals

Evaluate = Callable[[int, Mapping[str, np.ndarray]], EpochTotals]
"""(step, the tensors of the snapshot after it) -> what the evaluation has added up."""


class Examiner:
    """One evaluation at a time, in a thread of its own. Belongs to the trainer's loop."""

    def __init__(self, evaluate: Evaluate) -> None:
        self._evaluate = evaluate
        # TensorFlow's threads count denormal numbers as zero, and so must the one that calls it.
        self._thread = ThreadPoolExecutor(1, "evaluation", initializer=flush_denormals)
        self._under_way: Future[EpochTotals] | None = None

    @property
    def is_done(self) -> bool:
        """Whether `result` would return at once."""
        return self._under_way is not None and self._under_way.done()

    def begin(self, step: int, tensors: Mapping[str, np.ndarray]) -> None:
        """Nobody may write the tensors until the result is there."""
        assert self._under_way is None  # one result is fetched before the next is wanted
        self._under_way = self._thread.submit(self._evaluate, step, tensors)

    def result(self) -> EpochTotals:
        """Waits for the evaluation that was begun; raises what it raised."""
        assert self._under_way is not None  # begin comes before result
        wait([self._under_way])
        done, self._under_way = self._under_way, None
        return done.result()

    def close(self) -> None:
        """Does not wait for an evaluation whose result nobody fetches any more."""
        self._thread.shutdown(wait=False, cancel_futures=True)

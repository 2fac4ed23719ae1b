"""Faults as data: who is struck, at which step, by what, and for how long; and Hypothesis's schedules of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from hypothesis import strategies as st

TRAINER = 0

Moment = Literal["before", "after"]
"""Of a worker: before it computes an order, or when that is computed and not yet told. Of a trainer: when a step's
orders are out, or when a checkpoint is written and has not got its name yet."""

Blow = Literal["kill", "stop"]
"""SIGKILL; or SIGSTOP, and SIGCONT after a while."""


Way = Literal["near", "far", "relayed"]
"""Where the workers are: on the trainer's node, each on another one, or all on one other, behind a relay."""


@dataclass(frozen=True, kw_only=True)
class Fault:
    """Strikes the first time that `who` comes to this moment of `step` or of a later one."""

    who: int
    """Workers are counted from 1 as they come, replacements too; 0 is the trainer, each time the next start of it."""
    step: int
    moment: Moment
    blow: Blow
    for_s: float = 0.0
    """Of a stop. A worker that is silent for 3 s is dropped; for a trainer that is stopped the next one is started."""


@dataclass(frozen=True, kw_only=True)
class Schedule:
    """What a job has to bear."""

    workers: int
    """At the start; whoever goes is replaced."""
    faults: tuple[Fault, ...] = ()
    way: Way = "near"

    def of(self, who: int) -> tuple[Fault, ...]:
        """The faults of one, in the order in which they strike."""
        return tuple(sorted((fault for fault in self.faults if fault.who == who), key=lambda fault: fault.step))


BRIEFLY_S = 0.1
TOO_LONG_S = 3.6


@st.composite
def schedules(draw: st.DrawFn, *, steps: int, worker_faults: int, trainer_faults: int) -> Schedule:
    """Schedules with at most so many faults."""
    workers = draw(st.integers(1, 4))
    step, moment = st.integers(0, steps - 1), st.sampled_from(("before", "after"))
    stop = st.tuples(st.just("stop"), st.sampled_from((BRIEFLY_S, TOO_LONG_S)))
    blow = st.one_of(st.just(("kill", 0.0)), stop)

    def faults(who: st.SearchStrategy[int], most: int) -> st.SearchStrategy[list[Fault]]:
        one = st.builds(
            lambda who, step, moment, blow: Fault(who=who, step=step, moment=moment, blow=blow[0], for_s=blow[1]),
            who, step, moment, blow,
        )  # fmt: skip
        return st.lists(one, max_size=most)

    of_workers = draw(faults(st.integers(1, workers + 2), worker_faults))
    of_trainer = draw(faults(st.just(TRAINER), trainer_faults))
    way = draw(st.sampled_from(("near", "far", "relayed")))
    return Schedule(workers=workers, faults=(*of_workers, *of_trainer), way=way)

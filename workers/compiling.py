"""Whether a model's gradient program is faster when XLA compiles it: measured, once for a job."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import structlog

from gradwire.spec.job import TrainingSpec
from workers.data.batch import Batch
from workers.exchange.messages import MEASURE
from workers.program import GradientProgram, Objective, Prepared, Share
from workers.retracing import TraceBound

T = TypeVar("T")

RUNS = 9
WORTH = 0.95
"""XLA must take no more than this part of the time: it costs a compilation in every process."""

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Compiled:
    """A traced program, and the milliseconds that it took with and without XLA, if that was measured."""

    program: GradientProgram
    is_xla: bool
    ms: dict[str, float] = field(default_factory=dict)

    @property
    def xla(self) -> str:
        """on or off."""
        return "on" if self.is_xla else "off"


def program_of(objective: Objective, training: TrainingSpec, bound: TraceBound, is_xla: bool) -> GradientProgram:
    """A job's gradient program, not traced yet."""
    is_scaling = training.precision == "mixed_float16"
    is_flagged = is_scaling or training.on_nonfinite == "skip"
    return GradientProgram(
        objective,
        xla=is_xla,
        is_scaling=is_scaling,
        is_flagged=is_flagged,
        sparse=training.sparse,
        parts=training.shards * training.accumulation,
        bound=bound,
    )


def traced(
    make: Callable[[bool], GradientProgram], sizes: Sequence[T], batch_of: Callable[[T], Batch], xla: str
) -> Compiled:
    """The program, traced for batches of these sizes, the largest last; XLA has compiled it for all of them.

    Args:
        xla: on, off, or `MEASURE`.

    Raises:
        JobFailed: as `GradientProgram.trace`.
    """
    if xla == MEASURE:
        compiled = faster(make, batch_of(sizes[-1]))
        sizes = sizes[:-1]
    else:
        compiled = Compiled(make(xla == "on"), xla == "on")
    for samples in sizes:
        batch = batch_of(samples)
        compiled.program.trace(batch)
        if compiled.is_xla:
            _run_ms(compiled.program, batch, runs=1)  # or the first such batch of an epoch would stall a step
    return compiled


def faster(make: Callable[[bool], GradientProgram], batch: Batch) -> Compiled:
    """Traces the program with and without XLA, runs both, and keeps one.

    Args:
        make: a fresh program, compiled by XLA or not.
        batch: a shard's samples, of the usual size.

    Raises:
        JobFailed: as `GradientProgram.trace`. What only XLA cannot do is no error; then it is off.
    """
    plain = make(False)
    plain.trace(batch)
    ms = {"off": _run_ms(plain, batch, RUNS)}
    compiled = make(True)
    try:
        compiled.trace(batch)
        ms["on"] = _run_ms(compiled, batch, RUNS)
    except Exception as error:  # XLA knows fewer operations than TensorFlow, and says so in many ways
        log.info("xla_not_possible", why=str(error)[:500])
        return Compiled(plain, is_xla=False, ms=ms)
    is_xla = ms["on"] < ms["off"] * WORTH
    return Compiled(compiled if is_xla else plain, is_xla, ms)


def _run_ms(program: GradientProgram, batch: Batch, runs: int) -> float:
    """The fastest of some runs: whatever disturbs a run makes it slower, and the first ones compile."""
    prepared = Prepared.of(batch)
    share = Share(batch.samples, batch.samples, (float(batch.samples),) * program.exchanged_heads, is_first=True)
    seeds = np.zeros((len(program.variables.seeds), 2), np.int64)
    times = []
    for _ in range(runs):
        begun = time.perf_counter()
        program.run(prepared, share, seeds)
        times.append(time.perf_counter() - begun)
    return min(times) * 1e3

"""The results as rows, and the decisions over them: medians, ratios, whether losses agree. No processes, no files."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from benchmarks.order import SHARDS
from benchmarks.system import Window

STEP = "step"
PHASE = "phase "
"""What the metrics of a step's phases begin with."""
IDLE_MEMORY = "memory idle process"
LOSS = "loss"
LOSS_STEP = "loss_step"
LOSS_DIFFERENCE = "loss_difference"
LAZY_SYSTEM = "gradwire_lazy"
"""Another optimiser than the others': its loss is shown, and judges none."""
LOSS_TOLERANCE = 1e-3
"""Relative."""

Column = tuple[str, str]
"""System and transport."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One number of the results."""

    model: str
    system: str
    transport: str
    input: str
    metric: str
    value: float
    unit: str

    @property
    def column(self) -> Column:
        return self.system, self.transport

    def document(self) -> dict[str, Any]:
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All windows of one system on one model and input, in the order of the rounds."""

    model: str
    input: str
    column: Column
    windows: Sequence[Window]

    def row(self, metric: str, value: float, unit: str) -> Row:
        system, transport = self.column
        return Row(
            model=self.model,
            system=system,
            transport=transport,
            input=self.input,
            metric=metric,
            value=value,
            unit=unit,
        )


def rows_of(measured: Measured) -> list[Row]:
    """Medians over the rounds, with the smallest and the largest step time beside them."""
    steps = [window.step_ms for window in measured.windows]
    rows = [
        measured.row(STEP, median(steps), "ms"),
        measured.row("step_min", min(steps), "ms"),
        measured.row("step_max", max(steps), "ms"),
    ]
    for phase in measured.windows[-1].phases_ms:
        values = [window.phases_ms.get(phase, 0.0) for window in measured.windows]
        rows.append(measured.row(f"{PHASE}{phase}", median(values), "ms"))
    if measured.column[1] != "none":
        carried = median(window.network_bytes for window in measured.windows)
        rows.append(measured.row("network_bytes_per_step", carried, "bytes"))
    for role in measured.windows[-1].memory_mb:
        values = [window.memory_mb[role] for window in measured.windows if role in window.memory_mb]
        rows.append(measured.row(f"memory {role}", median(values), "MB"))
    if measured.input == "shuffled":  # the first steps of all were on shuffled batches
        rows += [measured.row(metric, value, "s") for metric, value in measured.windows[0].starts_s.items()]
    return rows


def payload_row(measured: Measured, model_bytes: int) -> Row | None:
    """What goes through shared memory in a step, by arithmetic: each worker's gradients, and the weights."""
    if measured.column != ("gradwire", "shared_memory"):
        return None
    return measured.row("shared_memory_bytes_per_step", (SHARDS + 1) * model_bytes, "bytes")


def loss_rows(group: Sequence[Measured]) -> list[Row]:
    """What each system's first round ended on, as far as it can be compared: its loss, after which step, and how far
    the loss of the system that knows most steps was from it then."""
    if not group:
        return []
    judges = [one for one in group if one.column[0] != LAZY_SYSTEM] or group
    reference = max((one.windows[0].losses for one in judges), key=len)
    rows = []
    for one in group:
        losses = one.windows[0].losses
        step = max(set(losses) & set(reference), default=None)
        if step is not None:
            rows.append(one.row(LOSS, losses[step], "1"))
            rows.append(one.row(LOSS_STEP, step, "steps"))
            rows.append(one.row(LOSS_DIFFERENCE, difference(losses[step], reference[step]), "relative"))
    return rows


def difference(loss: float, other: float) -> float:
    """Relative to the larger one; infinite where one of them is no number."""
    if not (math.isfinite(loss) and math.isfinite(other)):
        return math.inf
    return abs(loss - other) / max(abs(loss), abs(other), sys.float_info.min)


def step_ms(rows: Iterable[Row]) -> Mapping[tuple[str, str, Column], float]:
    """(model, input, column) -> median milliseconds of a step."""
    return {(row.model, row.input, row.column): row.value for row in rows if row.metric == STEP}


def ratio(numerator: float | None, denominator: float | None) -> float | None:
    """None where a side was not measured."""
    return numerator / denominator if numerator is not None and denominator else None

"""The page of results: one table of step times with ratios, then what else was measured. Text from rows, no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.models import MODELS
from benchmarks.results import LOSS, LOSS_DIFFERENCE, LOSS_STEP, LOSS_TOLERANCE, Column, Row, ratio, step_ms
from benchmarks.rounds import Failures

SHARED: Column = ("gradwire", "shared_memory")
FLIGHT: Column = ("gradwire", "flight")
SINGLE: Column = ("single", "none")
MWMS: Column = ("mwms", "grpc")
RAY_TRAIN: Column = ("ray_train", "grpc")

TITLES: Mapping[Column, str] = {
    SHARED: "Gradwire, shared memory",
    FLIGHT: "Gradwire, Flight",
    SINGLE: "one process",
    MWMS: "MWMS",
    RAY_TRAIN: "Ray Train",
}
RATIOS: Sequence[tuple[str, Column, Column]] = (
    ("MWMS ÷ Gradwire", MWMS, SHARED),
    ("one process ÷ Gradwire", SINGLE, SHARED),
    ("Ray Train ÷ Gradwire", RAY_TRAIN, SHARED),
    ("MWMS ÷ Flight", MWMS, FLIGHT),
)
OF_STEPS = ("step", "step_min", "step_max", LOSS, LOSS_STEP, LOSS_DIFFERENCE)
"""Metrics that the first table shows, or stands on."""
MISSING = "–"

Cells = list[list[str]]


def step_table(rows: Sequence[Row]) -> Cells:
    """The header and a line for each model and input: milliseconds of a step, the ratios, and whether losses agree."""
    steps = step_ms(rows)
    lines = [["model", "input", *TITLES.values(), *(title for title, _, _ in RATIOS), "losses"]]
    for model, feed in dict.fromkeys((row.model, row.input) for row in rows if row.metric == "step"):
        values = {column: steps.get((model, feed, column)) for column in TITLES}
        found = [row for row in rows if (row.model, row.input) == (model, feed)]
        ratios = [ratio(values[above], values[below]) for _, above, below in RATIOS]
        lines.append(
            [
                _title(model),
                feed,
                *(_number(values[column]) for column in TITLES),
                *(MISSING if value is None else f"{value:.2f}" for value in ratios),
                loss_cell(found),
            ]
        )
    return lines


def loss_cell(rows: Sequence[Row]) -> str:
    """Whether the systems' losses agree, and how well; or whose does not."""
    differences = {row.column: row.value for row in rows if row.metric == LOSS_DIFFERENCE}
    if len(differences) < 2:
        return MISSING
    wrong = [f"{TITLES[column]}: {value:.0e}" for column, value in differences.items() if value > LOSS_TOLERANCE]
    return f"NOT EQUAL ({', '.join(wrong)})" if wrong else f"equal to {max(differences.values()):.0e}"


def other_table(rows: Sequence[Row]) -> Cells:
    """Everything else that was measured, a line for each metric and model."""
    lines = [["metric", "model", "input", *TITLES.values()]]
    table: dict[tuple[str, str, str, str], dict[Column, float]] = {}
    found = [row for row in rows if row.metric not in OF_STEPS]
    seen = {(row.metric, row.model) for row in found if row.input == "shuffled"}
    for row in found:
        # A process takes the same memory, and a step the same bytes, on either input.
        if row.input == "shuffled" or (row.metric, row.model) not in seen:
            table.setdefault((row.metric, row.unit, row.model, row.input), {})[row.column] = row.value
    for (metric, unit, model, feed), values in sorted(table.items(), key=lambda item: item[0][0]):
        cells = [_number(values.get(column)) for column in TITLES]
        lines.append([f"{metric.replace('_', ' ')} ({unit})", _title(model), feed, *cells])
    return lines


def page(rows: Sequence[Row], failures: Failures, facts: Mapping[str, str], how: str) -> str:
    """The whole page as Markdown."""
    parts = ["# Benchmarks", how, "\n".join(f"* {name}: {value}" for name, value in facts.items())]
    parts += ["## Milliseconds per step", markdown(step_table(rows))]
    parts += [f"* {line}" for line in failure_lines(failures)]
    others = other_table(rows)
    if len(others) > 1:
        parts += ["## Other measures", markdown(others)]
    return "\n\n".join(parts) + "\n"


def failure_lines(failures: Failures) -> list[str]:
    """Why a cell is empty."""
    return [f"{_title(model)}, {TITLES[column]}: {why}" for (model, column), why in failures.items()]


def markdown(cells: Cells) -> str:
    """A table whose numbers stand right."""
    header, *lines = cells
    texts = {index for index in range(len(header)) if header[index] in ("model", "input", "metric", "losses")}
    rule = ["---" if index in texts else "--:" for index in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *lines])


def _title(model: str) -> str:
    return MODELS[model].title if model in MODELS else model


def _number(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return MISSING
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"

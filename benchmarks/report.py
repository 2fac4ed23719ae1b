"""The page of results: one table of step times with ratios, then what else was measured. Text from rows, no more."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from benchmarks.models import MODELS, SIZED, weights_gb
from benchmarks.results import (
    IDLE_MEMORY,
    LAZY_SYSTEM,
    LOSS,
    LOSS_DIFFERENCE,
    LOSS_STEP,
    LOSS_TOLERANCE,
    PHASE,
    STEP,
    Column,
    Row,
    ratio,
    step_ms,
)
from benchmarks.rounds import Failures

SHARED: Column = ("gradwire", "shared_memory")
FLIGHT: Column = ("gradwire", "flight")
SINGLE: Column = ("single", "none")
LAZY: Column = (LAZY_SYSTEM, "shared_memory")
LAZY_FLIGHT: Column = (LAZY_SYSTEM, "flight")
FIT: Column = ("keras_fit", "none")
MWMS: Column = ("mwms", "grpc")
RAY_TRAIN: Column = ("ray_train", "grpc")

TITLES: Mapping[Column, str] = {
    SHARED: "Gradwire, shared memory",
    FLIGHT: "Gradwire, Flight",
    SINGLE: "one process",
    MWMS: "MWMS",
    RAY_TRAIN: "Ray Train",
}
TABLE_TITLES: Mapping[Column, str] = {
    LAZY: "lazy",
    SHARED: "exact",
    LAZY_FLIGHT: "lazy, Flight",
    FLIGHT: "exact, Flight",
    FIT: "model.fit",
    SINGLE: "one process",
    MWMS: "MWMS",
}
"""Of models with tables: Gradwire's two ways to update them, and the peers."""
TABLE_RATIOS: Sequence[tuple[str, Column, Column]] = (
    ("model.fit ÷ lazy", FIT, LAZY),
    ("MWMS ÷ lazy", MWMS, LAZY),
    ("model.fit ÷ exact", FIT, SHARED),
    ("MWMS ÷ exact", MWMS, SHARED),
)
RATIOS: Sequence[tuple[str, Column, Column]] = (
    ("MWMS ÷ Gradwire", MWMS, SHARED),
    ("one process ÷ Gradwire", SINGLE, SHARED),
    ("Ray Train ÷ Gradwire", RAY_TRAIN, SHARED),
    ("MWMS ÷ Flight", MWMS, FLIGHT),
)
OF_STEPS = (STEP, "step_min", "step_max", LOSS, LOSS_STEP, LOSS_DIFFERENCE)
"""Metrics that the first table shows, or stands on."""
EVENTS = ("first_step", "recovery", "checkpoint", "step_adam")
"""What the metrics of starts, deaths and checkpoints begin with."""
OTHERS = "Memory and bytes"
MISSING = "–"
WORDS = ("model", "input", "metric", "system", "losses")
"""Columns of words; the others are of numbers."""

Cells = list[list[str]]


def step_table(rows: Sequence[Row]) -> Cells:
    """The header and a line for each model and input: milliseconds of a step, the ratios, and whether losses agree."""
    return _step_table(rows, TITLES, RATIOS)


def sparse_table(rows: Sequence[Row]) -> Cells:
    """The same of the models with tables, for which there are more systems."""
    found = [row for row in rows if row.model in MODELS and MODELS[row.model].has_tables]
    return _step_table(found, TABLE_TITLES, TABLE_RATIOS)


def _step_table(
    rows: Sequence[Row], titles: Mapping[Column, str], wanted: Sequence[tuple[str, Column, Column]]
) -> Cells:
    steps = step_ms(rows)
    lines = [["model", "input", *titles.values(), *(title for title, _, _ in wanted), "losses"]]
    for model, feed in dict.fromkeys((row.model, row.input) for row in rows if _is_main(row) and row.metric == STEP):
        values = {column: steps.get((model, feed, column)) for column in titles}
        found = [row for row in rows if (row.model, row.input) == (model, feed)]
        ratios = [ratio(values[above], values[below]) for _, above, below in wanted]
        lines.append(
            [
                _title(model),
                feed,
                *(_number(values[column]) for column in titles),
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
    judged = {column: value for column, value in differences.items() if column[0] != LAZY_SYSTEM}
    wrong = [f"{_title_of(column)}: {value:.0e}" for column, value in judged.items() if value > LOSS_TOLERANCE]
    return f"NOT EQUAL ({', '.join(wrong)})" if wrong else f"equal to {max(judged.values()):.0e}"


def phase_table(rows: Sequence[Row]) -> Cells:
    """What Gradwire's steps were made of, as its jobs report it, and one process's step beside it."""
    found = [row for row in rows if row.metric.startswith(PHASE) and _is_main(row)]
    phases = [*dict.fromkeys(row.metric for row in found)]
    lines = [["model", "input", "system", *(phase.removeprefix(PHASE) for phase in phases), "step", "one process"]]
    steps = step_ms(rows)
    for model, feed, column in dict.fromkeys((row.model, row.input, row.column) for row in found):
        here = {row.metric: row.value for row in found if (row.model, row.input, row.column) == (model, feed, column)}
        numbers = [*(here.get(phase) for phase in phases), steps.get((model, feed, column))]
        numbers.append(steps.get((model, feed, SINGLE)))
        lines.append([_title(model), feed, _title_of(column), *map(_number, numbers)])
    return lines


def rows_table(rows: Sequence[Row]) -> Cells:
    """How lazy steps, and the memory of a job's processes, follow from the rows of the tables."""
    lines = [["model", "weights GB", "step ms", "trainer MB", "a worker MB", "an idle process MB"]]
    idle = next((row.value for row in rows if row.metric == IDLE_MEMORY), None)
    for table_rows, model in SIZED.items():
        found = {row.metric: row.value for row in rows if row.model == model.name}
        if found:
            numbers = [weights_gb(table_rows), *map(found.get, (STEP, "memory trainer", "memory worker 1")), idle]
            lines.append([model.title, *map(_number, numbers)])
    return lines


def event_table(rows: Sequence[Row]) -> Cells:
    """Starts, recoveries and checkpoints."""
    return _metric_table([row for row in rows if row.metric.startswith(EVENTS)])


def other_table(rows: Sequence[Row]) -> Cells:
    """Memory and bytes."""
    shown = (*EVENTS, PHASE, IDLE_MEMORY)
    return _metric_table([row for row in rows if not row.metric.startswith(shown) and row.metric not in OF_STEPS])


def _metric_table(rows: Sequence[Row]) -> Cells:
    """A line for each metric and model."""
    lines = [["metric", "model", "input", *TITLES.values()]]
    table: dict[tuple[str, str, str, str], dict[Column, float]] = {}
    found = [row for row in rows if _is_main(row) and row.column in TITLES]
    seen = {(row.metric, row.model) for row in found if row.input == "shuffled"}
    for row in found:
        # A process takes the same memory, and a step the same bytes, on either input.
        if row.input == "shuffled" or (row.metric, row.model) not in seen:
            table.setdefault((row.metric, row.unit, row.model, row.input), {})[row.column] = row.value
    for (metric, unit, model, feed), values in sorted(table.items(), key=lambda item: item[0][0]):
        cells = [_number(values.get(column)) for column in TITLES]
        lines.append([f"{metric.replace('_', ' ')} ({unit})", _title(model), feed, *cells])
    return lines


def sections(rows: Sequence[Row]) -> list[tuple[str, Cells]]:
    """The tables that have lines, by their titles; the last is long, and of memory and bytes."""
    found = [
        ("Milliseconds per step", step_table(rows)),
        ("Milliseconds per step of models with tables", sparse_table(rows)),
        ("What Gradwire's steps are made of, milliseconds", phase_table(rows)),
        ("Lazy updates by the number of rows", rows_table(rows)),
        ("Starts, recovery, checkpoints", event_table(rows)),
        (OTHERS, other_table(rows)),
    ]
    return [(title, cells) for title, cells in found if len(cells) > 1]


def page(rows: Sequence[Row], failures: Failures, facts: Mapping[str, str], how: str) -> str:
    """The whole page as Markdown."""
    parts = ["# Benchmarks", how, "\n".join(f"* {name}: {value}" for name, value in facts.items())]
    parts += [f"* {line}" for line in failure_lines(failures)]
    for title, cells in sections(rows):
        parts += [f"## {title}", markdown(cells)]
    return "\n\n".join(parts) + "\n"


def failure_lines(failures: Failures) -> list[str]:
    """Why a cell is empty."""
    return [f"{_title(model)}, {_title_of(column)}: {why}" for (model, column), why in failures.items()]


def markdown(cells: Cells) -> str:
    """A table whose numbers stand right."""
    header, *lines = cells
    texts = {index for index in range(len(header)) if header[index] in WORDS}
    rule = ["---" if index in texts else "--:" for index in range(len(header))]
    return "\n".join("| " + " | ".join(line) + " |" for line in [header, rule, *lines])


def _title_of(column: Column) -> str:
    if column in TITLES:
        return TITLES[column]
    return f"Gradwire, {TABLE_TITLES[column]}" if column[0] == LAZY_SYSTEM else TABLE_TITLES[column]


def _title(model: str) -> str:
    known = {one.name: one.title for one in (*MODELS.values(), *SIZED.values())}
    return known.get(model, model)


def _is_main(row: Row) -> bool:
    """Not of a size of tables that is measured beside the models."""
    return row.model not in {model.name for model in SIZED.values()}


def _number(value: float | None) -> str:
    """Three digits, or all before the point."""
    if value is None:
        return MISSING
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}" if abs(value) >= 1 else f"{value:.3f}"

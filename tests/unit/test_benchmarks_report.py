"""The benchmarks' decisions: rows, ratios, tables, windows, and what follows from the times of commits."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from benchmarks.commits import costs_ms, longest_stall_ms, recovery_s, stalls_ms
from benchmarks.display import stand
from benchmarks.gradwire_system import Mark, Marks, window_of
from benchmarks.models import MODELS, SIZED, Model
from benchmarks.report import (
    FIT,
    FLIGHT,
    LAZY,
    MWMS,
    SHARED,
    SINGLE,
    loss_cell,
    markdown,
    page,
    phase_table,
    rows_table,
    sections,
    sparse_table,
    step_table,
)
from benchmarks.results import IDLE_MEMORY, Column, Measured, Row, difference, loss_rows, ratio, rows_of
from benchmarks.rounds import Failures, Rounds
from benchmarks.run import _noted
from benchmarks.system import Feed, SystemFailed, Window, epoch_means
from benchmarks.tables import require_memory, resized

MODEL = MODELS["mlp_small"]


def window(step_ms: float, **more: object) -> Window:
    values = {"steps": 10, "losses": {1: 2.0, 2: 1.5}, "network_bytes": 0.0, **more}
    return Window(step_ms=step_ms, **values)  # type: ignore[arg-type]


def measured(column: Column, *windows: Window, feed: Feed = "constant") -> Measured:
    return Measured(model=MODEL.name, input=feed, column=column, windows=windows)


def row(column: Column, metric: str, value: float) -> Row:
    return measured(column).row(metric, value, "ms")


def values(rows: list[Row]) -> dict[str, float]:
    return {row.metric: row.value for row in rows}


def test_a_row_is_the_median_over_the_rounds() -> None:
    found = values(rows_of(measured(SHARED, window(3.0), window(1.0), window(1.5))))
    assert found["step"] == 1.5
    assert (found["step_min"], found["step_max"]) == (1.0, 3.0)


def test_memory_is_of_the_rounds_that_saw_the_process() -> None:
    windows = [window(1.0, memory_mb={"trainer": 300.0}), window(1.0, memory_mb={"trainer": 310.0, "worker 1": 200.0})]
    found = values(rows_of(measured(SHARED, *windows)))
    assert found["memory trainer"] == 305.0
    assert found["memory worker 1"] == 200.0


def test_a_document_has_the_names_that_scripts_read() -> None:
    assert row(MWMS, "step", 2.0).document() == {
        "model": "mlp_small",
        "system": "mwms",
        "transport": "grpc",
        "input": "constant",
        "metric": "step",
        "value": 2.0,
        "unit": "ms",
    }


def test_the_table_divides_peers_by_gradwire() -> None:
    header, line = step_table([row(SHARED, "step", 2.0), row(MWMS, "step", 5.0), row(SINGLE, "step", 1.0)])
    cells = dict(zip(header, line, strict=True))
    assert cells["MWMS ÷ Gradwire"] == "2.50"
    assert cells["one process ÷ Gradwire"] == "0.50"
    assert cells["MWMS ÷ Flight"] == cells["Ray Train"] == "–"


def test_a_ratio_needs_both_sides() -> None:
    assert ratio(6.0, 2.0) == 3.0
    assert ratio(None, 2.0) is None
    assert ratio(6.0, None) is None


def test_each_systems_loss_is_compared_after_its_last_step_that_another_knows() -> None:
    ours = window(1.0, losses={1: 2.0, 8: 1.0, 16: 0.5})
    theirs = window(1.0, losses=dict.fromkeys(range(1, 12), 0.9))
    found = {(row.system, row.metric): row.value for row in loss_rows([measured(SHARED, ours), measured(MWMS, theirs)])}
    assert found["gradwire", "loss"] == 1.0
    assert found["gradwire", "loss_step"] == 8
    assert found["gradwire", "loss_difference"] == pytest.approx(0.1)
    assert (found["mwms", "loss_step"], found["mwms", "loss_difference"]) == (11, 0.0)
    assert loss_rows([]) == []


def test_a_loss_that_is_no_number_equals_none() -> None:
    assert difference(0.0, 0.0) == 0.0
    assert difference(math.nan, math.nan) == math.inf


def test_unequal_losses_are_shown() -> None:
    equal = [row(SHARED, "loss_difference", 2e-7), row(MWMS, "loss_difference", 0.0)]
    assert loss_cell(equal) == "equal to 2e-07"
    assert loss_cell([*equal, row(SINGLE, "loss_difference", 2e-3)]) == "NOT EQUAL (one process: 2e-03)"
    assert loss_cell(equal[:1]) == "–"


def test_an_epochs_mean_begins_anew() -> None:
    assert epoch_means([4.0, 2.0, 1.0, 3.0, 5.0], 2) == {1: 4.0, 2: 3.0, 3: 1.0, 4: 2.0, 5: 5.0}


def test_the_page_says_what_is_missing_and_where_it_was_measured() -> None:
    text = page([row(SHARED, "step", 2.0)], {("mlp_small", FLIGHT): "no such exchange"}, {"memory": "8 GB"}, "how")
    assert "* memory: 8 GB" in text
    assert "* MLP 0.14 MB, Gradwire, Flight: no such exchange" in text


def test_a_markdown_table_aligns_numbers_right() -> None:
    assert markdown([["model", "MWMS"], ["a", "1"]]).splitlines() == ["| model | MWMS |", "| --- | --: |", "| a | 1 |"]


def test_the_window_begins_when_it_is_warm_and_is_long_enough() -> None:
    marks = Marks(warmup_s=1.0, window_s=2.0, warmup_steps=3, min_steps=5)
    for step, time_s in ((1, 10.0), (2, 12.0), (4, 12.1), (9, 13.0), (11, 14.2), (12, 15.0)):
        marks.add(Mark(step, time_s, 0), loss=float(step))
    assert marks.first is not None and marks.first.step == 1
    assert marks.begin is not None and marks.begin.step == 4
    assert marks.end is not None and marks.end.step == 11
    assert marks.losses[9] == 9.0


def test_recovery_ends_with_the_second_commit_after_the_death() -> None:
    assert recovery_s({1: 1.0, 2: 2.0, 3: 2.1, 4: 2.5}, died_at=2.05) == pytest.approx(0.45)
    with pytest.raises(ValueError, match="too few"):
        recovery_s({1: 1.0, 2: 2.0}, died_at=1.5)


def test_a_checkpoint_costs_what_steps_take_longer() -> None:
    commits, now = {}, 0.0
    for step in range(1, 31):
        commits[step] = now
        now += {10: 0.5, 11: 0.2, 20: 0.3}.get(step, 0.1)
    assert stalls_ms(commits, 10) == pytest.approx([400.0, 200.0])
    assert costs_ms(commits, 10) == pytest.approx([500.0, 200.0])
    assert longest_stall_ms(commits, 10, 5) == pytest.approx(400.0)
    assert longest_stall_ms(commits, 11, 5) < 400.0


class FakeSystem:
    """Notes what is asked of it; fails at a window if it is told to."""

    transport = "none"

    def __init__(self, name: str, notes: list[str], fails_at: int = -1) -> None:
        self.name = name
        self._notes = notes
        self._fails_at = fails_at
        self._windows = 0

    @contextmanager
    def opened(self, model: Model) -> Iterator[None]:
        self._notes.append(f"open {self.name}")
        yield
        self._notes.append(f"close {self.name}")

    def measure(self, feed: Feed) -> Window:
        self._windows += 1
        if self._windows == self._fails_at:
            raise SystemFailed("it broke")
        self._notes.append(f"{self.name} {feed}")
        return window(1.0)


def test_systems_take_turns_while_all_are_open() -> None:
    notes: list[str] = []
    rounds = Rounds(2, ["constant"], lambda text: None)
    found = rounds.measure(MODEL, [FakeSystem("a", notes), FakeSystem("b", notes)])
    turns = ["a constant", "b constant"]
    assert notes == ["open a", "open b", *turns, *turns, "close b", "close a"]
    assert [len(one.windows) for one in found] == [2, 2]


def test_a_large_model_is_open_in_one_system_at_a_time() -> None:
    notes: list[str] = []
    rounds = Rounds(1, ["constant"], lambda text: None)
    rounds.measure(MODELS["recommender"], [FakeSystem("a", notes), FakeSystem("b", notes)])
    assert notes == ["open a", "a constant", "close a", "open b", "b constant", "close b"]


def test_a_system_that_fails_is_closed_and_the_others_go_on() -> None:
    notes: list[str] = []
    rounds = Rounds(3, ["constant"], lambda text: None)
    found = rounds.measure(MODEL, [FakeSystem("a", notes, fails_at=2), FakeSystem("b", notes)])
    assert rounds.failures == {("mlp_small", ("a", "none")): "it broke"}
    assert [(one.column, len(one.windows)) for one in found] == [(("b", "none"), 3)]
    assert notes.index("close a") < notes.index("close b")
    assert notes.count("a constant") == 1


def test_models_with_tables_have_a_table_of_their_own() -> None:
    tables = MODELS["recommender"]
    found = [
        Measured(model=tables.name, input="shuffled", column=column, windows=[window(step_ms, losses={1: loss})])
        for column, step_ms, loss in ((LAZY, 2.0, 1.5), (SHARED, 8.0, 1.0), (FIT, 200.0, 1.0), (MWMS, 500.0, 1.0))
    ]
    rows = [row for one in found for row in rows_of(one)] + loss_rows(found) + rows_of(measured(SHARED, window(1.0)))
    header, line = sparse_table(rows)
    cells = dict(zip(header, line, strict=True))
    assert (cells["model.fit ÷ lazy"], cells["MWMS ÷ lazy"], cells["model.fit ÷ exact"]) == (
        "100.00",
        "250.00",
        "25.00",
    )
    assert cells["losses"] == "equal to 0e+00", "lazy updates are another optimiser"
    assert "models with tables" in page(rows, {}, {}, "how")
    assert "models with tables" not in page(rows_of(measured(SHARED, window(1.0))), {}, {}, "how")


def test_phases_are_those_of_the_window_alone() -> None:
    marks = Marks(warmup_s=0.0, window_s=1.0, warmup_steps=1, min_steps=1)
    for step, time_s, compute_ms in ((1, 0.0, 500.0), (3, 1.0, 504.0), (13, 2.5, 534.0)):
        marks.add(Mark(step, time_s, 0, {"compute": compute_ms}), loss=None)
    found = window_of(marks, {})
    assert found.phases_ms == {"compute": 3.0}, "the first step, which is slow, is not in it"
    rows = rows_of(measured(SHARED, found)) + rows_of(measured(SINGLE, window(4.0)))
    header, line = phase_table(rows)
    cells = dict(zip(header, line, strict=True))
    assert (cells["compute"], cells["step"], cells["one process"]) == ("3.00", "150", "4.00")


def test_sizes_of_tables_have_a_table_of_their_own() -> None:
    model = SIZED[10_000]
    sized = Measured(
        model=model.name, input="shuffled", column=LAZY, windows=[window(7.0, memory_mb={"worker 1": 300.0})]
    )
    idle = Row(
        model="recommender", system="gradwire", transport="shared_memory", input="shuffled", metric=IDLE_MEMORY,
        value=200.0, unit="MB",
    )  # fmt: skip
    rows = [*rows_of(sized), idle]
    header, line = rows_table(rows)
    cells = dict(zip(header, line, strict=True))
    assert (cells["step ms"], cells["a worker MB"], cells["an idle process MB"]) == ("7.00", "300", "200")
    assert [title for title, _ in sections(rows)] == ["Lazy updates by the number of rows"]


def test_starts_recoveries_and_checkpoints_stand_together() -> None:
    titles = dict(sections([row(SHARED, "recovery_p95", 0.2), row(SHARED, "memory trainer", 300.0)]))
    assert [line[0] for line in titles["Starts, recovery, checkpoints"]] == ["metric", "recovery p95 (ms)"]
    assert [line[0] for line in titles["Memory and bytes"]] == ["metric", "memory trainer (ms)"]


def test_tables_that_do_not_fit_are_left_out_with_a_reason() -> None:
    require_memory(10_000_000, free_gb=24.0)
    with pytest.raises(SystemFailed, match="needs about 20 GB of free memory, and 12 GB are free"):
        require_memory(10_000_000, free_gb=12.0)


def test_a_config_gets_tables_of_another_size() -> None:
    config = {"layers": [{"config": {"input_dim": 5, "output_dim": 64}}, {"config": {"units": 1}}]}
    assert resized(config, 7)["layers"][0]["config"] == {"input_dim": 7, "output_dim": 64}
    assert resized(config, 7)["layers"][1] == config["layers"][1]


def test_an_estimate_stands_on_what_is_done() -> None:
    assert stand(0, 64, 0.0) == "0/64, 0 min"
    assert stand(16, 64, 240.0) == "16/64, 4 min, about 12 min left"


def test_what_comes_after_the_rounds_loses_none_of_their_rows() -> None:
    class Broken:
        def measure(self) -> list[Row]:
            raise KeyError("worker 1")

    failures: Failures = {}
    assert _noted(Broken().measure, failures) == []
    assert [*failures.values()] == ["KeyError: 'worker 1'"]

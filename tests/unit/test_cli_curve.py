"""The training curve: which points there are, and that the picture has them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from matplotlib.image import imread

from gradwire.curve import Curve, Point, curve_of, draw
from protos.gradwire.v1 import service_pb2 as pb
from tests.unit.cli_double import make_events


def test_progress_is_training_and_evaluation_is_validation() -> None:
    curve = curve_of(make_events())
    assert curve.training["loss"] == [Point(6, 1, 1.0), Point(12, 1, 0.5), Point(18, 2, 6 / 18), Point(24, 2, 0.25)]
    assert [point.step for point in curve.validation["digit_accuracy"]] == [12, 24]


def test_a_step_that_was_computed_again_counts_once_and_nan_not_at_all() -> None:
    events = [
        pb.JobEvent(kind="progress", step=8, metrics={"loss": 3.0}),
        pb.JobEvent(kind="progress", step=4, metrics={"loss": 2.0}),
        pb.JobEvent(kind="progress", step=8, metrics={"loss": 1.0}),
        pb.JobEvent(kind="progress", step=9, metrics={"loss": float("nan")}),
    ]
    assert curve_of(events).training == {"loss": [Point(4, 0, 2.0), Point(8, 0, 1.0)]}


def test_the_view_is_json() -> None:
    view = json.loads(json.dumps(curve_of(make_events()).view()))
    assert view["validation"]["loss"] == {"steps": [12, 24], "values": [7 / 12, 7 / 24]}


@pytest.mark.parametrize("metrics", [{"loss": 0.5}, {"loss": 0.5, "digit_accuracy": 0.5}, {"mae": 3.0}])
@pytest.mark.parametrize("steps", [1, 40])
def test_any_curve_can_be_drawn(metrics: dict[str, float], steps: int, tmp_path: Path) -> None:
    events = [
        pb.JobEvent(
            kind="progress", step=step, epoch=step // 2, metrics={name: value / step for name, value in metrics.items()}
        )
        for step in range(1, steps + 1)
    ]
    draw(curve_of(events), "job [v2]", tmp_path / "curve.png")
    picture = imread(tmp_path / "curve.png")
    assert picture.shape[0] > 400 and picture.shape[1] > 400
    assert float(picture.std()) > 0.01  # more than an empty page


def test_nothing_to_draw_is_said(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="nothing to draw"):
        draw(Curve(), "job", tmp_path / "curve.png")
    assert not (tmp_path / "curve.png").exists()

"""The training curve of a job: gathered from its events, drawn as a PNG.

Loads matplotlib: import it where a curve is wanted, not before.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from protos.gradwire.v1 import service_pb2 as pb

LOSS = "loss"
LOG_FROM_RATIO = 20.0
"""A loss that falls by more than this factor is drawn on a logarithmic axis."""
COLORS = ("#2563a8", "#d9702b", "#3a8f5c", "#8b5fb0", "#b0403f", "#6b7280")
SIZE_INCHES = (9.0, 4.2)
DOTS_PER_INCH = 150
TOTAL_COLOR = "#374151"
LEGEND_COLUMNS = 4
MANY_POINTS = 12
"""From here on the last point of each epoch makes a line of its own, over the fainter line of all points."""


@dataclass(frozen=True, slots=True)
class Point:
    """A value after a step of an epoch."""

    step: int
    epoch: int
    value: float


@dataclass(frozen=True, slots=True)
class Curve:
    """Points by metric, in the order of steps; values that are not finite are left out."""

    training: Mapping[str, Sequence[Point]] = field(default_factory=dict)
    validation: Mapping[str, Sequence[Point]] = field(default_factory=dict)

    @property
    def is_empty(self) -> bool:
        return not self.training and not self.validation

    def view(self) -> dict[str, Any]:
        """The points as JSON: by metric the steps and the values."""
        return {
            "training": {name: _columns(points) for name, points in self.training.items()},
            "validation": {name: _columns(points) for name, points in self.validation.items()},
        }


def curve_of(events: Iterable[pb.JobEvent]) -> Curve:
    """The curve that progress and evaluation events tell; a step that was computed again counts as it was last."""
    found: dict[str, dict[str, dict[int, Point]]] = {"progress": {}, "evaluation": {}}
    for event in events:
        if event.kind not in found:
            continue
        for name, value in event.metrics.items():
            if math.isfinite(value):
                found[event.kind].setdefault(name, {})[event.step] = Point(event.step, event.epoch, value)
    return Curve(_ordered(found["progress"]), _ordered(found["evaluation"]))


def draw(curve: Curve, title: str, path: Path) -> None:
    """Writes the curve as a PNG: the losses left, the other metrics right.

    Raises:
        ValueError: there is no point to draw.
        OSError: the file cannot be written.
    """
    if curve.is_empty:
        raise ValueError("there is nothing to draw before the first step")
    panels = [names for names in _panels(curve) if names]
    width = SIZE_INCHES[0] if len(panels) > 1 else SIZE_INCHES[0] * 0.62
    figure = Figure(figsize=(width, SIZE_INCHES[1]), layout="constrained", facecolor="white")
    FigureCanvasAgg(figure)
    figure.suptitle(title, fontsize=12, fontweight="bold", x=0.01, ha="left")
    for index, names in enumerate(panels):
        axes = figure.add_subplot(1, len(panels), index + 1)
        is_loss = names[0] == LOSS or names[0].endswith(f"_{LOSS}")
        _draw_panel(axes, curve, names, "loss" if is_loss else "metrics")
    figure.savefig(path, dpi=DOTS_PER_INCH, format="png")


def _ordered(by_name: Mapping[str, Mapping[int, Point]]) -> dict[str, list[Point]]:
    return {name: [points[step] for step in sorted(points)] for name, points in sorted(by_name.items())}


def _columns(points: Sequence[Point]) -> dict[str, list[float]]:
    return {"steps": [point.step for point in points], "values": [point.value for point in points]}


def _panels(curve: Curve) -> tuple[list[str], list[str]]:
    names = sorted({*curve.training, *curve.validation}, key=lambda name: (name != LOSS, name))
    losses = [name for name in names if name == LOSS or name.endswith(f"_{LOSS}")]
    return losses, [name for name in names if name not in losses]


def _draw_panel(axes: Axes, curve: Curve, names: Sequence[str], label: str) -> None:
    for index, name in enumerate(names):
        color = _color(names, index)
        _draw_training(axes, curve.training.get(name, ()), color, name)
        _draw_validation(axes, curve.validation.get(name, ()), color, name)
    values = [
        point.value for points in (curve.training, curve.validation) for name in names for point in points.get(name, ())
    ]
    if min(values) > 0 and max(values) / min(values) > LOG_FROM_RATIO and label == LOSS:
        axes.set_yscale("log")
    elif label != LOSS and min(values) >= 0 and max(values) <= 1:
        axes.set_ylim(top=1.01)
    axes.set_xlabel("step")
    axes.set_title(label, fontsize=10, loc="left", color="#374151")
    axes.grid(visible=True, which="major", color="#e5e7eb", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    axes.margins(x=0.02)
    _legend(axes, names, has_validation=any(name in curve.validation for name in names))


def _color(names: Sequence[str], index: int) -> str:
    """Grey for the total loss, so that the heads have the same colours in both panels."""
    if names[index] == LOSS:
        return TOTAL_COLOR
    return COLORS[(index - (names[0] == LOSS)) % len(COLORS)]


def _draw_training(axes: Axes, points: Sequence[Point], color: str, name: str) -> None:
    """All points, and over them the last of each epoch: a value is a mean over its epoch so far."""
    ends = list({point.epoch: point for point in points}.values())
    is_split = len(ends) >= MANY_POINTS and len(points) > len(ends)
    if is_split:
        axes.plot([p.step for p in points], [p.value for p in points], color=color, linewidth=0.8, alpha=0.3)
    shown = ends if is_split else points
    if shown:
        marker = "o" if len(shown) == 1 else ""
        axes.plot(
            [p.step for p in shown], [p.value for p in shown], color=color, linewidth=1.6, marker=marker, label=name
        )


def _draw_validation(axes: Axes, points: Sequence[Point], color: str, name: str) -> None:
    if points:
        axes.plot(
            [p.step for p in points],
            [p.value for p in points],
            color=color,
            linestyle="none",
            marker="o",
            markersize=4.2,
            markerfacecolor="white",
            markeredgewidth=1.3,
        )


def _legend(axes: Axes, names: Sequence[str], *, has_validation: bool) -> None:
    """Below the axes, where it hides nothing: a colour for each metric, a shape for training and validation."""
    handles = [
        Line2D([], [], color=_color(names, index), linewidth=1.6, label=name) for index, name in enumerate(names)
    ]
    if has_validation:
        handles.append(
            Line2D([], [], color="#4b5563", marker="o", linestyle="none", markerfacecolor="white", label="validation")
        )
    axes.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, -0.14),
        ncols=min(len(handles), LEGEND_COLUMNS),
        frameon=False,
        fontsize=8,
    )

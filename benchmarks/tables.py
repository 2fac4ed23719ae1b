"""How a step, and the memory of a job's processes, follow from the number of rows of a recommender's tables."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from benchmarks import meters
from benchmarks.gradwire_system import GradwireSystem
from benchmarks.models import MODELS, SIZED, Model, weights_gb
from benchmarks.order import SHARDS
from benchmarks.results import IDLE_MEMORY, LAZY_SYSTEM, Measured, Row, rows_of
from benchmarks.rounds import Failures, Tell
from benchmarks.service import Service, serving
from benchmarks.system import Pace, SystemFailed

PROCESSES = 1 + SHARDS
QUIET_TIMEOUT_S = 240.0
COLUMN = (LAZY_SYSTEM, "shared_memory")
FEED = "shuffled"
COPIES = 3.5
"""Of the weights, in memory: they, Adam's two slots, and what a start takes for a while."""
BESIDE_GB = 2.0
"""What the rest of a service takes."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Tables:
    """Measures each size in its turn, on one service; one that has not enough memory is left out, and that is noted."""

    folder: Path
    tell: Tell
    pace: Pace
    failures: Failures

    def measure(self) -> list[Row]:
        """The idle process, then a step and the memory of each size."""
        rows: list[Row] = []
        with serving(self.folder, warm=PROCESSES) as service:
            self.tell("memory of idle processes")
            service.wait_until_quiet(QUIET_TIMEOUT_S)
            rows.append(idle_row(service))
            for table_rows, model in SIZED.items():
                self.tell(f"tables of {table_rows:,} rows")
                try:
                    require_memory(table_rows, psutil.virtual_memory().available / 1e9)
                    self._write(model, table_rows)
                    rows += self._rows(service, model)
                except SystemFailed as failure:
                    self.failures[model.name, COLUMN] = str(failure)
        return rows

    def _rows(self, service: Service, model: Model) -> list[Row]:
        system = GradwireSystem(service, COLUMN[1], self.pace, is_lazy=True)
        with system.opened(model):
            window = system.measure(FEED)
        return rows_of(Measured(model=model.name, input=FEED, column=COLUMN, windows=[window]))

    def _write(self, model: Model, table_rows: int) -> None:
        """The recommender's config, with tables of another size: building it would fill them."""
        config = json.loads((self.folder / f"{MODELS['recommender'].name}.json").read_text())
        (self.folder / f"{model.name}.json").write_text(json.dumps(resized(config, table_rows)))


def require_memory(table_rows: int, free_gb: float) -> None:
    """Raises `SystemFailed` where tables of so many rows cannot be trained."""
    needed_gb = COPIES * weights_gb(table_rows) + BESIDE_GB
    if free_gb < needed_gb:
        raise SystemFailed(f"needs about {needed_gb:.0f} GB of free memory, and {free_gb:.0f} GB are free")


def resized(config: Any, table_rows: int) -> Any:
    """A Keras config whose embeddings have so many rows."""
    if isinstance(config, list):
        return [resized(item, table_rows) for item in config]
    if isinstance(config, dict):
        return {
            name: table_rows if name == "input_dim" else resized(value, table_rows) for name, value in config.items()
        }
    return config


def idle_row(service: Service) -> Row:
    """The proportional set size of a process that is ready for a job, among as many as a job has."""
    found = [meters.proportional_mb(pid) for role, pid in service.roles({}) if role == "trainer"]
    return Row(
        model=MODELS["recommender"].name,
        system="gradwire",
        transport=COLUMN[1],
        input=FEED,
        metric=IDLE_MEMORY,
        value=sum(found) / max(len(found), 1),
        unit="MB",
    )

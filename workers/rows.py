"""A job's rows: the training and validation sources, and which of them belongs to which step and shard."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from gradwire.assignment import Assignment
from gradwire.spec.job import DataSpec, JobSpec
from gradwire.spec.part import ONLY
from gradwire.storage import Storage
from workers.data.batch import BatchMaker
from workers.data.opening import DataPlace, open_data
from workers.data.padding import Padding
from workers.data.schedule import Schedule
from workers.data.source import ArrayInfo, Source
from workers.models.heads import Heads
from workers.retracing import TraceBound

MAX_SHOWN = 10
"""Rows in a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Rows:
    """Equal on every node: the split and the schedule follow from the specification and the number of rows."""

    data: DataSpec
    train: Source
    validation: Source | None
    schedule: Schedule
    padding: Padding

    @classmethod
    def open(cls, spec: JobSpec, assignment: Assignment) -> Self:
        """Opens the sources, making this node's caches where they are missing.

        Raises:
            JobFailed: codes data_…, naming file, array, row and column.
        """
        place = DataPlace(
            storage=Storage(assignment.storage_url),
            cache_dir=Path(assignment.cache_dir),
            data_root=Path(assignment.data_root) if assignment.data_root else None,
            is_code_allowed=assignment.allow_code,
        )
        train, validation = open_data(spec.data, spec.training.seed, place)
        schedule = Schedule.of(spec.training, train.rows, shuffle=spec.data.shuffle)
        padding = Padding.of(spec.data.padding, [train] if validation is None else [train, validation])
        return cls(data=spec.data, train=train, validation=validation, schedule=schedule, padding=padding)

    @property
    def arrays(self) -> Mapping[str, ArrayInfo]:
        """Every array as batches have it."""
        return self.padding.infos

    def samples(self, step: int, shard: int) -> str:
        """Which rows of the training source a shard holds, for messages."""
        ids = [str(row) for row in self.train.file_rows(self.schedule.ids(step, shard))]
        shown = ", ".join(ids[:MAX_SHOWN]) + ", …" * (len(ids) > MAX_SHOWN)
        return f"row{'s' * (len(ids) > 1)} {shown} of {self.train.name}"

    def batches(self, source: Source, heads: Heads, input_dtypes: Mapping[str, str]) -> BatchMaker:
        """Makes batches of a source for a model's named inputs and outputs."""
        weights = self.data.sample_weights
        everywhere = dict.fromkeys(heads.output_names, weights[ONLY]) if ONLY in weights else {}
        named = {output: array for output, array in weights.items() if output != ONLY}
        return BatchMaker(
            source,
            inputs=_resolve(self.data.inputs, heads.input_names[0]),
            labels=_resolve(self.data.labels, heads.output_names[0]),
            sample_weights={**everywhere, **named},
            input_dtypes=input_dtypes,
            padding=self.padding,
        )

    def trace_bound(self, heads: Heads, sizes: int) -> TraceBound:
        """How often programs are traced for batches of so many sizes."""
        inputs = _resolve(self.data.inputs, heads.input_names[0])
        labels = _resolve(self.data.labels, heads.output_names[0])
        named = {"data.inputs": inputs, "data.labels": labels, "data.sampleWeights": self.data.sample_weights}
        arrays = {f"{field}.{name}": array for field, group in named.items() for name, array in group.items()}
        return TraceBound(sizes * self.padding.max_shapes, arrays)


def _resolve(names: Mapping[str, str], only: str) -> dict[str, str]:
    return {(only if key == ONLY else key): array for key, array in names.items()}

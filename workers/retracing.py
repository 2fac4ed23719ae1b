"""The bound on traces: a program that is traced again and again is slower than none, and never says so itself."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from gradwire.errors import JobFailed
from workers.data.batch import Batch

Shapes = tuple[tuple[int, ...], ...]
"""Of a batch's arrays: inputs, labels and sample weights, in their order."""

MAX_SHOWN = 5
"""Shapes in a message."""


def shapes_of(batch: Batch) -> Shapes:
    """The shapes by which programs are traced."""
    return tuple(array.shape for group in _groups(batch).values() for array in group.values())


@dataclass(frozen=True, slots=True)
class TraceBound:
    """How many shapes of batches a job may have, and the array behind each argument."""

    shapes: int
    arrays: Mapping[str, str] = field(default_factory=dict)
    """By field and name, as in the specification: data.inputs.NAME."""

    def require(self, seen: Collection[Shapes], batch: Batch) -> None:
        """Before one more trace.

        Raises:
            JobFailed: there have been as many as the job may have (code `endless_retracing`).
        """
        if len(seen) < self.shapes:
            return
        names = [(kind, name) for kind, group in _groups(batch).items() for name in group]
        arrays = [array for group in _groups(batch).values() for array in group.values()]
        found: list[str] = []
        for place, ((kind, name), array) in enumerate(zip(names, arrays, strict=True)):
            shapes = list(dict.fromkeys(shapes[place] for shapes in (*seen, shapes_of(batch))))
            if len({shape[1:] for shape in shapes}) > 1:
                shown = ", ".join(map(str, shapes[-MAX_SHOWN:]))
                source = self.arrays.get(f"{kind}.{name}", name)
                found.append(
                    f"{kind}.{name} (array {source!r}, {array.dtype}) had {len(shapes)} shapes, of late {shown}"
                )
        raise JobFailed(
            f"the program was traced for {len(seen)} shapes of batches, each of which holds a step up, and here is one "
            f"more: {'; '.join(found) or 'the number of samples changes'}. Allow fewer lengths, as data.padding: "
            "{buckets: [64, 256]}, or give a larger multiple and a max",
            code="endless_retracing",
        )


def _groups(batch: Batch) -> dict[str, Mapping[str, np.ndarray]]:
    return {"data.inputs": batch.inputs, "data.labels": batch.labels, "data.sampleWeights": batch.sample_weights}

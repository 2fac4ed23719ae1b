"""Which trained weights lie as their dense gradients do: between them lie tables, whose gradients are sparse."""

from __future__ import annotations

from dataclasses import dataclass

from service.training.summation import GRADIENT
from workers.alignment import aligned
from workers.layout import Layout
from workers.variables import ModelVariables


@dataclass(frozen=True, slots=True)
class Run:
    """So many float32 elements, padding included, from one element on of the weights and one of the gradients."""

    weights: int
    gradients: int
    size: int


def runs_of(contribution: Layout, variables: ModelVariables) -> list[Run]:
    """The longest runs, in order, of the trained variables that have a dense gradient; all are float32."""
    gradients = dict(zip((tensor.name for tensor in contribution.tensors), contribution.offsets, strict=True))
    layout = variables.layout()
    runs: list[Run] = []
    for path, tensor, offset in zip(variables.trained_paths, layout.tensors, layout.offsets, strict=False):
        if (found := gradients.get(f"{GRADIENT}{path}")) is None:
            continue
        size = aligned(tensor.elements * 4) // 4
        run = Run(offset // 4, found // 4, size)
        last = runs[-1] if runs else Run(0, 0, 0)
        if runs and (last.weights + last.size, last.gradients + last.size) == (run.weights, run.gradients):
            runs[-1] = Run(last.weights, last.gradients, last.size + size)
        else:
            runs.append(run)
    return runs

"""Ids that look rows up in tables: which inputs they come from, and whether the tables have such rows.

TensorFlow raises for an id out of range on a CPU; XLA and GPUs read the nearest row in silence, and Keras counts
negative ids from the end. A job fails instead, and says which row of the data is at fault.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf

from gradwire.errors import JobFailed
from workers.data.batch import Batch
from workers.data.source import Source
from workers.origins import origins
from workers.slices import Slices, Table

GATHERS = ("ResourceGather", "GatherV2")


@dataclass(frozen=True, slots=True)
class IdInput:
    """An input of the model whose values are looked up in a table.

    columns: of a sample's values, counted in its flat order; empty for all. size: values of a sample, where columns
    are named: of longer or shorter samples they would be others.
    """

    input: str
    table: str
    rows: int
    columns: tuple[int, ...] = ()
    size: int = 0


def id_inputs(graph: Any, inputs: Sequence[str], tables: Mapping[str, tf.Variable]) -> list[IdInput]:
    """The inputs that reach a gather's ids unchanged, whole or in part; ids that the graph computes, and graphs within
    it, are left out.

    Args:
        graph: of a concrete function. inputs: the names of its first arguments. tables: variables by name.
    """
    names = {id(graph.inputs[number]): name for number, name in enumerate(inputs)}
    by_handle = {id(variable.handle): (name, int(variable.shape[0] or 0)) for name, variable in tables.items()}
    captured = {id(inner): by_handle[id(outer)] for outer, inner in graph.captures if id(outer) in by_handle}
    found: dict[IdInput, None] = {}
    for op in graph.get_operations():
        if op.type not in GATHERS or (op.type == "GatherV2" and tf.get_static_value(op.inputs[2]) != 0):
            continue
        tables_read = [captured[id(origin.tensor)] for origin in origins(op.inputs[0]) if id(origin.tensor) in captured]
        for origin in origins(op.inputs[1]):
            columns = origin.columns() if id(origin.tensor) in names else None
            if columns is not None:
                name = names[id(origin.tensor)]
                size = origin.tensor.shape[1:].num_elements() if columns else 0
                found |= {IdInput(name, table, rows, columns, size): None for table, rows in tables_read}
    return list(found)


@dataclass(frozen=True, slots=True)
class IdCheck:
    """Looks at batches before they are computed; safe in several threads."""

    inputs: Collection[IdInput]
    source: Source

    def check(self, batch: Batch) -> Batch:
        """The batch itself.

        Raises:
            JobFailed: an id is negative or too large for its table (code `id_out_of_range`).
        """
        for item in self.inputs:
            values = _looked_up(item, batch)
            # A float is cut to an integer, towards zero.
            is_wrong = (values <= -1) | (values >= item.rows)
            if is_wrong.any():
                raise self._fault(item, batch, int(is_wrong.reshape(-1).argmax()))
        return batch

    def _fault(self, item: IdInput, batch: Batch, at: int) -> JobFailed:
        values = _looked_up(item, batch)
        row = self.source.file_rows(batch.ids[at * len(batch.ids) // values.size :][:1])[0]
        return JobFailed(
            f"{self.source.name}: input '{item.input}' has the id {values.flat[at]} in row {row} (counted from 0), but "
            f"the table '{item.table}' has the rows 0 to {item.rows - 1}: correct the data, or make the table larger",
            code="id_out_of_range",
        )


def _looked_up(item: IdInput, batch: Batch) -> np.ndarray:
    """The values of a batch that an item is about; none if it is about samples of another size."""
    values = batch.inputs[item.input]
    if not item.columns:
        return values
    samples = values.reshape(batch.samples, -1) if values.size else values[:0]
    return samples[:, item.columns] if samples.shape[1:] == (item.size,) else samples[:0]


def require_known(table: Table, slices: Slices, samples: Callable[[], str]) -> None:
    """Raises `JobFailed` for an id that the model has computed and the table does not have; `samples` names rows."""
    ids = slices.ids
    if ids.size and not (ids[0] >= 0 and ids[-1] < table.rows):
        wrong = ids[0] if ids[0] < 0 else ids[-1]
        raise JobFailed(
            f"the model looks up the id {wrong} in the table '{table.name}', which has the rows 0 to {table.rows - 1}, "
            f"for {samples()}: correct the layer that computes it",
            code="id_out_of_range",
        )

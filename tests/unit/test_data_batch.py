"""Batches have the model's names and dtypes, and memory that TensorFlow can share."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradwire.errors import JobFailed
from workers.data.batch import Batch, BatchMaker
from workers.data.source import ArraySource
from workers.data.split import SubsetSource, split


def maker(arrays: dict[str, np.ndarray], dtype: str = "float32") -> BatchMaker:
    source = ArraySource("rows.npz", arrays)
    return BatchMaker(
        source, inputs={"in": "x"}, labels={"out": "y"}, sample_weights={"out": "w"}, input_dtypes={"in": dtype}
    )


def batch_of(values: Any, dtype: str, ids: list[int]) -> Batch:
    rows = len(values)
    arrays = {"x": np.asarray(values), "y": np.arange(rows), "w": np.linspace(0, 1, rows)}
    return maker(arrays, dtype).make(np.array(ids, np.int64))


def everything(batch: Batch) -> list[np.ndarray]:
    return [*batch.inputs.values(), *batch.labels.values(), *batch.sample_weights.values()]


@pytest.mark.parametrize("ids", [[3, 0, 3], [1], []])
@pytest.mark.parametrize("dtype", ["float32", "int32", "uint8", "float16", "bfloat16", "float64", "int64"])
def test_arrays_can_be_shared(ids: list[int], dtype: str) -> None:
    values = np.arange(4 * 3 * 5).reshape(4, 3, 5)
    batch = batch_of(values, dtype, ids)
    assert batch.samples == len(ids)
    assert batch.ids.tolist() == ids
    assert str(batch.inputs["in"].dtype) == dtype
    assert np.array_equal(batch.inputs["in"].astype(np.int64), values[ids])
    assert batch.labels["out"].tolist() == ids
    for array in everything(batch):
        assert array.ctypes.data % 64 == 0
        assert array.flags.c_contiguous
        assert array.flags.writeable
        assert len(array) == len(ids)


def test_floats_of_labels_and_weights_become_float32_and_other_labels_stay() -> None:
    arrays = {"x": np.zeros(3), "y": np.arange(3, dtype=np.int16), "w": np.arange(3)}
    batch = maker(arrays).make(np.arange(3))
    assert [str(array.dtype) for array in everything(batch)] == ["float32", "int16", "float32"]
    batch = maker(arrays | {"y": np.zeros(3, np.float64)}).make(np.arange(3))
    assert str(batch.labels["out"].dtype) == "float32"


def test_one_array_may_serve_twice() -> None:
    source = ArraySource("rows.npz", {"x": np.arange(4.0)})
    twice = BatchMaker(
        source,
        inputs={"a": "x", "b": "x"},
        labels={"c": "x"},
        sample_weights={},
        input_dtypes={"a": "int32", "b": "float32"},
    )
    batch = twice.make(np.array([2, 1]))
    assert [array.tolist() for array in everything(batch)] == [[2, 1], [2.0, 1.0], [2.0, 1.0]]
    assert batch.sample_weights == {}


@pytest.mark.parametrize(
    ("values", "dtype", "row", "said"),
    [
        ([1.0, 2.5], "int32", 1, "2.5"),
        ([[1, 2], [3, 2**40]], "int32", 1, str(2**40)),
        ([-1, 0], "uint8", 0, "-1"),
        ([0, 2], "bool", 1, "2"),
        ([1.0, 1e300], "float32", 1, "1e+300"),
        ([1.0, 2.0**63], "int64", 1, "9.22"),
    ],
)
def test_values_that_a_cast_would_change_are_named(values: Any, dtype: str, row: int, said: str) -> None:
    with pytest.raises(JobFailed) as caught:
        batch_of(values, dtype, [1, 0])
    assert caught.value.code == "data_dtype"
    assert f"array 'x' has {said}" in caught.value.message
    assert f"in row {row} " in caught.value.message
    assert dtype in caught.value.message


def test_integral_floats_are_good_ids() -> None:
    assert batch_of([1.0, 7.0], "int32", [1, 0]).inputs["in"].tolist() == [7, 1]


def test_a_subset_names_the_row_of_the_file() -> None:
    values = np.zeros(50)
    values[31] = 0.5
    subset = next(part for part in split(50, 0.5, 0) if 31 in part.ids(np.arange(part.rows)))
    source = SubsetSource(ArraySource("rows.npz", {"x": values}), subset)
    batches = BatchMaker(source, inputs={"a": "x"}, labels={}, sample_weights={}, input_dtypes={"a": "int32"})
    with pytest.raises(JobFailed, match=r"0\.5 in row 31 "):
        batches.make(np.arange(source.rows))


def test_unknown_arrays_are_named_at_once() -> None:
    with pytest.raises(JobFailed, match="no array 'y'") as caught:
        maker({"x": np.zeros(2), "w": np.zeros(2)})
    assert caught.value.code == "data_unknown_array"

"""Training and validation share no row and leave none out."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gradwire.errors import JobFailed
from workers.data.source import ArraySource
from workers.data.split import Subset, SubsetSource, split


def every_id(subset: Subset) -> np.ndarray:
    return subset.ids(np.arange(subset.rows))


@given(rows=st.integers(2, 500), share=st.floats(0.001, 0.999), seed=st.integers(0, 2**31 - 1))
@settings(max_examples=100, deadline=None)
def test_the_parts_are_disjoint_and_together_everything(rows: int, share: float, seed: int) -> None:
    train, validation = split(rows, share, seed)
    assert validation.rows == min(max(round(rows * share), 1), rows - 1)
    together = np.concatenate([every_id(train), every_id(validation)])
    assert np.array_equal(np.sort(together), np.arange(rows))


def test_the_seed_alone_decides() -> None:
    assert np.array_equal(every_id(split(100, 0.2, 1)[1]), every_id(split(100, 0.2, 1)[1]))
    assert not np.array_equal(every_id(split(100, 0.2, 1)[1]), every_id(split(100, 0.2, 2)[1]))


def test_one_row_cannot_be_split() -> None:
    with pytest.raises(JobFailed, match="at least 2 rows") as caught:
        split(1, 0.5, 0)
    assert caught.value.code == "data_shape"


@pytest.mark.parametrize("ids", [[-1], [3], [0, -2, 1]])
def test_rows_outside_are_refused(ids: list[int]) -> None:
    with pytest.raises(IndexError, match="rows 0 to 2"):
        ArraySource("whole", {"x": np.zeros(3)}).take(np.array(ids, np.int64))


def test_a_subset_is_a_source() -> None:
    whole = ArraySource("whole", {"x": np.arange(40, dtype=np.float32).reshape(20, 2), "y": np.arange(20)})
    _, validation = split(20, 0.25, 9)
    source = SubsetSource(whole, validation)
    ids = np.array([4, 0, 4], np.int64)
    assert source.rows == 5
    assert source.arrays == whole.arrays
    taken = source.take(ids)
    assert np.array_equal(taken["y"], every_id(validation)[ids])
    assert np.array_equal(taken["y"], source.file_rows(ids))
    assert np.array_equal(taken["x"], whole.take(taken["y"], ["x"])["x"])
    for outside in ([5], [-1]):
        with pytest.raises(IndexError):
            source.take(np.array(outside, np.int64))

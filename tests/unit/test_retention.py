import math
from typing import Literal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training.retention import Entry, best_step, to_delete

MODES = st.sampled_from(["min", "max"])
VALUES = st.none() | st.floats(allow_nan=True, allow_infinity=True) | st.sampled_from([0.0, 1.0])
ENTRIES = st.dictionaries(st.integers(0, 2**31 - 1), VALUES, max_size=12).map(
    lambda values: [Entry(step=step, value=value) for step, value in values.items()]
)


@given(ENTRIES, st.integers(1, 6), MODES)
def test_what_stays_is_the_last_ones_and_the_best(
    existing: list[Entry], keep: int, mode: Literal["min", "max"]
) -> None:
    deleted = to_delete(existing, keep, mode)
    steps = sorted(entry.step for entry in existing)
    stay = sorted(set(steps) - set(deleted))
    assert deleted == sorted(set(deleted))
    assert stay[-keep:] == steps[-keep:]
    assert len(stay) <= keep + 1
    finite = {e.step: e.value for e in existing if e.value is not None and math.isfinite(e.value)}
    if finite:
        best = min(finite.values()) if mode == "min" else max(finite.values())
        assert best in [finite[step] for step in stay if step in finite]
    else:
        assert stay == steps[-keep:]


@given(ENTRIES, st.integers(1, 6), MODES)
def test_deleting_is_done_in_one_go(existing: list[Entry], keep: int, mode: Literal["min", "max"]) -> None:
    deleted = to_delete(existing, keep, mode)
    assert to_delete([entry for entry in existing if entry.step not in deleted], keep, mode) == []


def test_the_best_stays_and_a_nonfinite_value_is_never_the_best() -> None:
    existing = [
        Entry(step=1, value=-math.inf),
        Entry(step=2, value=0.5),
        Entry(step=3, value=math.nan),
        Entry(step=4, value=0.7),
        Entry(step=5),
    ]
    assert to_delete(existing, 1, "min") == [1, 3, 4]
    assert to_delete(existing, 1, "max") == [1, 2, 3]
    assert best_step(existing, "min") == 2
    assert best_step([Entry(step=1, value=math.nan)], "max") is None


def test_of_equal_values_the_earliest_is_the_best() -> None:
    assert best_step([Entry(step=9, value=1.0), Entry(step=3, value=1.0)], "max") == 3


def test_keeping_none_is_refused() -> None:
    with pytest.raises(ValueError, match="keep is 0"):
        to_delete([], 0, "min")

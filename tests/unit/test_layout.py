"""Layouts: every tensor has a place of its own, aligned, and sections cover them all."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.alignment import ALIGNMENT_BYTES
from workers.layout import Layout, Tensor
from workers.seeds import WORD_BOUND, seed_states

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
DTYPES = st.sampled_from(["float32", "float64", "float16", "bfloat16", "int32", "int64", "uint32"])
TENSORS = st.lists(st.tuples(SHAPES, DTYPES), max_size=12).map(
    lambda items: [Tensor(f"t{index}", shape, dtype) for index, (shape, dtype) in enumerate(items)]
)


@given(TENSORS)
def test_views_are_apart_and_aligned(tensors: list[Tensor]) -> None:
    layout = Layout.of(tensors)
    buffer = bytearray(layout.total_bytes)
    views = layout.views(buffer)
    for index, view in enumerate(views):
        assert view.shape == tensors[index].shape
        view[...] = index + 1
    for index, view in enumerate(views):
        assert (view == index + 1).all()
    assert all(offset % ALIGNMENT_BYTES == 0 for offset in layout.offsets)


@given(TENSORS)
def test_adding_sections_adds_every_tensor_and_leaves_padding_zero(tensors: list[Tensor]) -> None:
    layout = Layout.of(tensors)
    buffer = bytearray(layout.total_bytes)
    for view in layout.views(buffer):
        view[...] = 3
    for section in layout.flat(buffer):
        np.add(section, section, out=section)
    assert all((view == 6).all() for view in layout.views(buffer))
    elements = sum(int(np.count_nonzero(section)) for section in layout.flat(buffer))
    assert elements == sum(tensor.elements for tensor in tensors)


@given(TENSORS)
def test_a_layout_survives_json(tensors: list[Tensor]) -> None:
    layout = Layout.of(tensors)
    again = Layout.from_json(layout.to_json())
    assert again == layout and again.digest() == layout.digest()


def test_two_tensors_cannot_share_a_name() -> None:
    with pytest.raises(ValueError, match="same name"):
        Layout.of([Tensor("a", (1,), "float32"), Tensor("a", (2,), "float32")])


@given(st.integers(0, 2**31 - 1), st.integers(0, 2**31), st.integers(0, 1023), st.integers(0, 20))
def test_seed_states_follow_from_their_place(seed: int, step: int, shard: int, generators: int) -> None:
    states = seed_states(seed, step, shard, generators)
    assert states.shape == (generators, 2) and states.dtype == np.int64
    assert ((states >= 0) & (states < WORD_BOUND)).all()
    assert (states == seed_states(seed, step, shard, generators)).all()
    others = [seed_states(seed, step + 1, shard, generators), seed_states(seed, step, shard + 1, generators)]
    assert all(not np.array_equal(states, other) for other in others) or not generators

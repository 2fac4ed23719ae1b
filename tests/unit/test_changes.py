"""What other nodes are sent: the rows that changed since the weights that they have, and what is no table."""

from __future__ import annotations

import mmap
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.training.changes import MAX_VERSIONS, NO_ROWS, Changes, News, Rows
from workers.exchange import frames
from workers.exchange.frames import Kind, Received
from workers.exchange.messages import Malformed
from workers.layout import Layout, Tensor
from workers.slices import Slices, Table

TABLES = [Table("a", 40, 3, 8), Table("b", 9, 1, 8)]
WEIGHTS = Layout.of(
    [
        Tensor("weights/a", (40, 3), "float32"),
        Tensor("weights/kernel", (5, 5), "float32"),
        Tensor("weights/b", (9, 1), "float32"),
        Tensor("state/mean", (3,), "float32"),
    ]
)
IDS = st.one_of(st.none(), st.sets(st.integers(0, 8)).map(lambda ids: np.array(sorted(ids), np.int64)))
STEPS = st.lists(st.tuples(IDS, IDS), min_size=1, max_size=6)


def transferred(memory: memoryview, news: News | None, into: bytearray) -> int:
    """Sends it all, as a stream does; returns the bytes that went."""
    sent = 0
    for extent, ids in news.rows if news is not None else ():
        for frame, body in frames.row_chunks(memory, extent.offset, extent.row_bytes, ids):
            frames.place_rows(Received(frame, body), memoryview(into))
            sent += len(body)
    ranges = news.ranges if news is not None else [(0, len(memory))]
    for frame, body in frames.chunks(Kind.WEIGHTS, memory, ranges, b"word"):
        frames.place(Received(frame, body), memoryview(into))
        sent += len(body)
    return sent


def changed(step: Sequence[Rows], buffer: mmap.mmap, rng: np.random.Generator) -> None:
    """Changes these rows, and all that is no table."""
    a, kernel, b, mean = WEIGHTS.views(buffer)
    for table, ids in zip((a, b), step, strict=True):
        part = slice(None) if ids is None else ids
        table[part] = rng.random(table[part].shape)
    kernel[...], mean[...] = rng.random((5, 5)), rng.random(3)


@given(STEPS, st.integers(0, 6))
def test_who_is_sent_the_news_has_the_weights(steps: list[tuple[Rows, Rows]], known: int) -> None:
    known = min(known, len(steps))
    rng = np.random.default_rng(0)
    changes, buffer = Changes(), mmap.mmap(-1, WEIGHTS.total_bytes)
    changes.watch(WEIGHTS, TABLES)
    theirs = bytearray(buffer[:])
    for version, step in enumerate(steps, start=1):
        changed(step, buffer, rng)
        changes.committed(version, step)
        if version == known:
            theirs = bytearray(buffer[:])
    if known < len(steps):
        news = changes.since(known, len(steps))
        assert news is not None
        transferred(memoryview(buffer), news, theirs)
    assert bytes(theirs) == buffer[:]


def test_few_rows_are_few_bytes_and_the_unknown_is_sent_in_whole() -> None:
    changes, buffer = Changes(), mmap.mmap(-1, WEIGHTS.total_bytes)
    assert changes.since(0, 1) is None, "no tables are known"
    changes.watch(WEIGHTS, TABLES)
    changes.committed(1, [np.array([7]), NO_ROWS])
    sent = transferred(memoryview(buffer), changes.since(0, 1), bytearray(len(buffer)))
    assert sent <= len(buffer) - 4 * 39 * 3
    assert changes.since(-1, 1) is None, "who has none"
    assert changes.since(0, 2) is None, "what was never committed"
    for version in range(2, MAX_VERSIONS + 2):
        changes.committed(version, [NO_ROWS, NO_ROWS])
    assert changes.since(0, MAX_VERSIONS + 1) is None, "what is long ago"
    assert changes.since(1, MAX_VERSIONS + 1) is not None


def test_a_slot_is_sent_as_far_as_it_is_used() -> None:
    layout = Layout.of([Tensor("loss", (1,), "float64")], TABLES)
    first, second = bytearray(2 * layout.total_bytes), bytearray(2 * layout.total_bytes)
    place = layout.places(first, layout.total_bytes)[0]
    place.set(Slices(np.array([3, 5]), np.ones((2, 3), np.float32)))
    used = layout.used(first, layout.total_bytes)
    assert sum(end - start for start, end in used) < layout.total_bytes
    for frame, body in frames.chunks(Kind.SLOTS, memoryview(first), used, b"done"):
        frames.place(Received(frame, body), memoryview(second))
    found = layout.places(second, layout.total_bytes)
    assert found[0].get().ids.tolist() == [3, 5] and found[1].get().ids.size == 0


@pytest.mark.parametrize("head", [(12, 3), (12, -1), (0, 1), (-4, 1)])
def test_rows_that_do_not_fit_are_malformed(head: tuple[int, int]) -> None:
    buffer = mmap.mmap(-1, 4096)
    ((frame, body),) = frames.row_chunks(memoryview(buffer), 64, 12, np.array([0, 330]))
    frames.place_rows(Received(frame, body), memoryview(buffer))
    forged = bytearray(body)
    forged[:16] = np.array(head).tobytes()
    for received in (
        Received(frame, memoryview(forged)),
        Received(frame, memoryview(b"short")),
        Received(replace(frame, offset=5000), body),
        Received(replace(frame, offset=3000), body),
    ):
        with pytest.raises(Malformed):
            frames.place_rows(received, memoryview(buffer))

"""The words of the exchange: what one end says the other understands, and nothing else."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workers.exchange.messages import (
    Codec,
    Count,
    Counted,
    Dismiss,
    Done,
    Failed,
    Heartbeat,
    Hello,
    Key,
    Malformed,
    Part,
    Ready,
    Refused,
    Summed,
    Welcome,
    Word,
    Work,
)  # fmt: skip
from workers.tree import Node

KEYS = st.builds(
    Key,
    st.integers(0, 2**32 - 1),
    st.integers(0, 1000).flatmap(lambda lo: st.builds(Node, st.just(lo), st.integers(lo + 1, 2000))),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**32 - 1),
    st.integers(0, 2**16 - 1),
)
NUMBERS = st.lists(st.floats(allow_nan=False), max_size=8).map(tuple)
SECONDS = st.floats(0, 1e6)
TEXT = st.text(max_size=50)


def summed(parts: list[tuple[int, str, float]]) -> Summed:
    """Of workers that have computed so many shards each, one after the other."""
    made, lo = [], 0
    for size, name, seconds in parts:
        made.append(Part(name, Done(Key(7, Node(lo, lo + size), 1, 7, 0), seconds, seconds, seconds)))
        lo += size
    return Summed(Node(0, lo), 3, tuple(made))


WORDS = st.one_of(
    st.builds(Work, KEYS, NUMBERS, SECONDS, st.integers(1, 2000), st.booleans()),
    st.lists(st.tuples(st.integers(1, 3), st.text(max_size=20), SECONDS), min_size=1, max_size=5).map(summed),
    st.builds(Done, KEYS, SECONDS, SECONDS, SECONDS),
    st.builds(Count, KEYS),
    st.builds(Counted, KEYS, NUMBERS),
    st.builds(
        Hello, token=TEXT, job_id=TEXT, generation=st.integers(0, 9), worker_id=TEXT, pid=st.integers(1, 9), node=TEXT
    ),
    st.builds(Welcome, segment=TEXT, layout_digest=TEXT),
    st.builds(Ready, segment=TEXT, document=TEXT),
    st.builds(Failed, code=TEXT, message=TEXT, details=TEXT, step=st.integers(0, 9), shard=st.integers(-1, 9)),
    st.builds(Heartbeat, phase=TEXT),
    st.builds(Refused, reason=TEXT),
    st.builds(Dismiss, reason=TEXT),
)


def test_a_sum_of_other_nodes_than_it_says_is_no_word() -> None:
    word = summed([(2, "a", 0.0), (1, "b", 0.0)])
    for parts in (word.parts[:1], (word.parts[0], word.parts[0], word.parts[1])):
        with pytest.raises(Malformed, match="of other nodes"):
            Codec.decode(Codec.encode(replace(word, parts=parts)))


@given(WORDS)
def test_a_word_survives_the_way(word: Word) -> None:
    assert Codec.decode(Codec.encode(word)) == word


@given(st.binary(max_size=200))
def test_garbage_is_malformed_or_a_word(datagram: bytes) -> None:
    try:
        word = Codec.decode(datagram)
    except Malformed:
        return
    assert type(word) in Codec.kinds


@pytest.mark.parametrize("datagram", [b"", b"\x00", b"\xff", b"\x01", b"\x01\x00\x00", b"\x05not json", b"\x05[]"])
def test_what_is_no_word_is_malformed(datagram: bytes) -> None:
    with pytest.raises(Malformed):
        Codec.decode(datagram)

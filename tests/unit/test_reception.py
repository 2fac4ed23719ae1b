"""Who is let in when: all at once, or the one that measures before the others."""

from __future__ import annotations

from service.training.reception import Reception
from workers.exchange.messages import MEASURE, Welcome


def reception(xla: str) -> tuple[Reception, list[tuple[str, str]]]:
    let_in: list[tuple[str, str]] = []
    made = Reception(lambda worker_id, welcome: let_in.append((worker_id, welcome.xla)))
    made.arrive("w1")
    made.arrive("w2")
    assert let_in == []
    made.open(Welcome(segment="weights", layout_digest="d", xla=xla))
    return made, let_in


def test_where_nothing_is_to_be_measured_all_come_in() -> None:
    made, let_in = reception("on")
    made.arrive("w3")
    assert let_in == [("w1", "on"), ("w2", "on"), ("w3", "on")]


def test_one_measures_and_the_others_do_as_it_found() -> None:
    made, let_in = reception(MEASURE)
    made.arrive("w3")
    assert let_in == [("w1", MEASURE)]
    made.settle("on")
    made.arrive("w4")
    assert let_in[1:] == [("w2", "on"), ("w3", "on"), ("w4", "on")]


def test_when_the_one_that_measures_is_lost_the_next_one_does() -> None:
    made, let_in = reception(MEASURE)
    made.arrive("w3")
    made.leave("w2")
    made.leave("w1")
    assert let_in == [("w1", MEASURE), ("w3", MEASURE)]

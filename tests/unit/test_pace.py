"""Who is slow, decided from numbers."""

from __future__ import annotations

from service.training.pace import MIN_EXCESS_S, Pace, Paces, Straggler, stragglers


def pace(worker_id: str, usual_s: float | None = None, present_s: float = 0.0) -> Pace:
    return Pace(worker_id=worker_id, usual_s=usual_s, present_s=present_s)


def names(*paces: Pace) -> list[str]:
    return [straggler.worker_id for straggler in stragglers(paces)]


def test_a_worker_is_compared_with_the_median_of_the_others() -> None:
    assert stragglers([pace("a", 1.0), pace("b", 1.5), pace("c", 0.5), pace("d", 5.0)]) == [
        Straggler(worker_id="d", shard_s=5.0, others_s=1.0)
    ]
    assert names(pace("a", 1.0), pace("b", 2.9)) == []


def test_what_is_not_finished_counts_as_soon_as_it_takes_too_long() -> None:
    assert names(pace("a", 1.0), pace("b", 1.0, present_s=2.9)) == []
    assert names(pace("a", 1.0), pace("b", 1.0, present_s=3.1)) == ["b"]
    assert names(pace("a", 1.0), pace("b", None, present_s=3.1)) == ["b"], "its first order"


def test_small_differences_are_nobody_s_business() -> None:
    assert names(pace("a", 0.001), pace("b", 0.4)) == []
    assert names(pace("a", 0.001), pace("b", 0.01 + MIN_EXCESS_S)) == ["b"]


def test_alone_nobody_is_slow() -> None:
    assert names(pace("a", 1.0, present_s=100.0)) == []
    assert names(pace("a", None, present_s=100.0), pace("b", None, present_s=1.0)) == [], "nobody has finished yet"
    assert names() == []


def test_times_are_kept_for_each_shard() -> None:
    paces = Paces()
    paces.given("a", 2, 10.0)
    paces.given("b", 1, 10.0)
    assert paces.at(11.0) == [pace("a", None, 0.5), pace("b", None, 1.0)]
    paces.finished("a", 12.0)
    assert paces.at(13.0) == [pace("a", 1.0), pace("b", None, 3.0)]
    paces.left("b")
    assert paces.at(13.0) == [pace("a", 1.0)]

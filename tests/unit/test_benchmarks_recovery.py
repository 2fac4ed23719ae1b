"""Killing workers in turn, and what the times of their recoveries come to."""

from __future__ import annotations

from benchmarks.recovery import SETTLE_S, Killer, Recovery, Scene, summary


def test_workers_are_killed_in_turn_and_only_when_all_have_worked_for_a_while() -> None:
    killed: list[int] = []
    killer = Killer(Scene(metric="recovery", workers=2, kills=2), killed.append)
    assert not killer.is_done(1.0, [7, 8], 2)
    assert not killer.is_done(1.0 + SETTLE_S, [7, 8], 2)
    assert killed == [8]
    assert not killer.is_done(1.5 + 2 * SETTLE_S, [7, 8], 2), "its death is not known yet"
    assert not killer.is_done(2.0 + SETTLE_S, [7], 1)
    assert not killer.is_done(3.0 + SETTLE_S, [7, 9], 2)
    assert not killer.is_done(3.0 + 2 * SETTLE_S, [7, 9], 2)
    assert killed == [8, 7]
    assert not killer.is_done(4.0 + 2 * SETTLE_S, [9, 10], 2)
    assert killer.is_done(4.0 + 3 * SETTLE_S, [9, 10], 2)
    assert len(killer.died_at) == 2


def test_who_has_a_spare_is_killed_when_the_spare_is_ready() -> None:
    killed: list[int] = []
    killer = Killer(Scene(metric="recovery_spare", workers=1, spares=1, kills=1), killed.append)
    killer.is_done(1.0, [7], 1)
    killer.is_done(1.0 + SETTLE_S, [7], 1)
    assert killed == []
    killer.is_done(2.0, [7], 2)
    killer.is_done(2.0 + SETTLE_S, [7], 2)
    assert killed == [7]


def test_a_summary_has_a_percentile_of_many_and_the_trace_of_who_was_alone() -> None:
    many = {row.metric: row.value for row in summary("recovery", [Recovery(number / 50, 0.1) for number in range(51)])}
    assert many == {"recovery": 0.5, "recovery_max": 1.0, "recovery_p95": 0.95, "recovery_kills": 51}
    alone = summary("recovery_alone", [Recovery(1.5, 0.75), Recovery(2.0, 0.5), Recovery(1.25, 0.75)])
    assert {row.metric: row.value for row in alone} == {
        "recovery_alone": 1.5,
        "recovery_alone_max": 2.0,
        "recovery_alone_trace": 0.75,
        "recovery_alone_rest_max": 1.5,
        "recovery_alone_kills": 3,
    }

"""The soak's decisions: what is submitted, and how memory's growth is read off."""

from __future__ import annotations

import pytest

from benchmarks import soak
from gradwire.spec import file as job_file
from gradwire.spec.check import violations


@pytest.mark.parametrize("what", [*soak.ENDS, soak.WAITS])
def test_what_is_submitted_is_a_job(what: str) -> None:
    spec = job_file.parse(soak.spec(what))
    assert violations(spec) == []
    assert (spec.resources.min_workers > 1) == (what == soak.WAITS)


def sample(minutes: float, rss_mb: float) -> soak.Sample:
    return soak.Sample(
        minutes=minutes, rss_mb=rss_mb, anonymous_mb=0.0, threads=1, files=1, submitted=0, ended={}, stored=0
    )  # fmt: skip


def test_growth_is_that_of_the_second_half() -> None:
    warm = [sample(minute, 100.0 + 10 * minute) for minute in range(5)]
    flat = [sample(minute, 150.0 + 0.1 * minute) for minute in range(5, 10)]
    assert soak.growth_mb_per_hour([*warm, *flat]) == pytest.approx(6.0)
    assert soak.growth_mb_per_hour([sample(0.0, 1.0)]) == 0.0

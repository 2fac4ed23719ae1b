"""What follows from the times at which steps were committed: how long a recovery took, what a checkpoint cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from statistics import median

Commits = Mapping[int, float]
"""Step -> when it was committed, in seconds; without gaps."""

WARMUP_STEPS = 5


def recovery_s(commits: Commits, died_at: float) -> float:
    """From a worker's death to the commit of the first step that began after it.

    The first step that is committed after a death may have had the worker's part already, so the second one counts.

    Raises:
        ValueError: fewer than two steps were committed afterwards.
    """
    after = sorted(time_s for time_s in commits.values() if time_s > died_at)
    if len(after) < 2:
        raise ValueError("too few steps were committed after the death")
    return after[1] - died_at


def stalls_ms(commits: Commits, every_steps: int) -> list[float]:
    """What each checkpoint added to the step after it; the steps before the first checkpoint say what is usual."""
    usual = usual_step_s(commits, every_steps)
    saved = [step for step in commits if step % every_steps == 0 and step + 1 in commits]
    return [(commits[step + 1] - commits[step] - usual) * 1e3 for step in sorted(saved)]


def costs_ms(commits: Commits, every_steps: int) -> list[float]:
    """What each checkpoint added to all steps up to the next one, so with the writing in the background."""
    usual = usual_step_s(commits, every_steps)
    saved = [step for step in commits if step % every_steps == 0 and step + every_steps in commits]
    return [(commits[step + every_steps] - commits[step] - every_steps * usual) * 1e3 for step in sorted(saved)]


def longest_stall_ms(commits: Commits, saved_at: int, watched: int) -> float:
    """What a checkpoint whose copy goes on beside the steps adds to the longest of so many steps after it."""
    longest = max(differences(commits, range(saved_at, saved_at + watched)))
    return (longest - usual_step_s(commits, saved_at)) * 1e3


def usual_step_s(commits: Commits, every_steps: int) -> float:
    """The median step before the first checkpoint, without the first steps of all."""
    return median(differences(commits, range(WARMUP_STEPS, every_steps)))


def differences(commits: Commits, steps: Sequence[int]) -> list[float]:
    """From each of these steps to the next."""
    return [commits[step + 1] - commits[step] for step in steps if step in commits and step + 1 in commits]

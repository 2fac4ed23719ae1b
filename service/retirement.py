"""Processes of runs that are over: they may end by themselves for a while, then they are killed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from service.admission import Grant
from service.engine import TrainerHandle, WorkerHandle
from service.run import Run

GRACE_S = 5.0
"""How long a process may take to end by itself."""
GIVE_UP_S = 15.0
"""After so long a killed process that does not end no longer counts, so that its job's share can be used again."""

Handle = TrainerHandle | WorkerHandle


@dataclass(slots=True, eq=False)
class _Retiree:
    run: Run
    since: float
    grace_s: float
    keeps_grant: bool
    alive: list[Handle] = field(default_factory=list)
    is_killed: bool = False


class Retirement:
    """The supervisor's thread alone uses it. `cleared` is called once a run's last process is gone."""

    def __init__(self, cleared: Callable[[Run], None] = lambda run: None) -> None:
        self._retirees: list[_Retiree] = []
        self._cleared = cleared

    def __len__(self) -> int:
        return len(self._retirees)

    @property
    def grants(self) -> list[Grant]:
        """What the processes that are still there hold."""
        return [retiree.run.grant for retiree in self._retirees if retiree.keeps_grant]

    def add(self, run: Run, now: float, *, grace_s: float = GRACE_S, keeps_grant: bool = True) -> None:
        """Takes over all processes of a run; `keeps_grant` is False where a successor has the run's share."""
        handles: list[Handle] = [run.trainer, *(worker.handle for worker in run.workers.values())]
        self._retirees.append(_Retiree(run, now, grace_s, keeps_grant, handles))
        self.tick(now)

    def tick(self, now: float) -> None:
        """Looks who has ended, and kills who is late."""
        for retiree in self._retirees:
            self._look(retiree, now)
        gone = [retiree for retiree in self._retirees if not retiree.alive or _is_hopeless(retiree, now)]
        self._retirees = [retiree for retiree in self._retirees if retiree not in gone]
        for retiree in gone:
            self._cleared(retiree.run)

    def _look(self, retiree: _Retiree, now: float) -> None:
        ended = [handle for handle in retiree.alive if handle.outcome() is not None]
        for handle in ended:
            handle.kill()  # the run is over, the process waits for nothing
        retiree.alive = [handle for handle in retiree.alive if handle not in ended]
        if not retiree.is_killed and now - retiree.since >= retiree.grace_s:
            retiree.is_killed = True
            for handle in retiree.alive:
                handle.kill()


def _is_hopeless(retiree: _Retiree, now: float) -> bool:
    return now - retiree.since >= retiree.grace_s + GIVE_UP_S

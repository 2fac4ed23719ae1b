"""Who is slow: a worker that lives, but takes much longer for a shard than the others do."""

from __future__ import annotations

import statistics
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

FACTOR = 3.0
"""So many times the others' median is slow."""

MIN_EXCESS_S = 0.5
"""So much longer, at least, a shard takes: below that it costs nobody anything that they would notice."""

REMEMBERED = 15
"""Orders of each worker."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pace:
    """Seconds for a shard: of a worker's last orders, and so far of the one that it is at."""

    worker_id: str
    usual_s: float | None
    present_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Straggler:
    """A slow worker."""

    worker_id: str
    shard_s: float
    others_s: float
    """The median of the others."""


def stragglers(paces: Sequence[Pace]) -> list[Straggler]:
    """Those who take, or have been taking, far longer than the others' median; alone, nobody is slow."""
    found = []
    for pace in paces:
        others = [other.usual_s for other in paces if other is not pace and other.usual_s is not None]
        shard_s = max(pace.present_s, pace.usual_s or 0.0)
        if others and shard_s > max(FACTOR * statistics.median(others), statistics.median(others) + MIN_EXCESS_S):
            found.append(Straggler(worker_id=pace.worker_id, shard_s=shard_s, others_s=statistics.median(others)))
    return found


@dataclass(slots=True)
class _Record:
    """Seconds for a shard, and since when the worker has been at so many shards."""

    shard_s: deque[float] = field(default_factory=lambda: deque(maxlen=REMEMBERED))
    since_s: float = 0.0
    shards: int = 0


@dataclass(slots=True)
class Paces:
    """Keeps the times of orders; the trainer's loop writes it."""

    _records: dict[str, _Record] = field(default_factory=dict)

    def given(self, worker_id: str, shards: int, now_s: float) -> None:
        """A worker got an order."""
        record = self._records.setdefault(worker_id, _Record())
        record.since_s, record.shards = now_s, shards

    def finished(self, worker_id: str, now_s: float) -> None:
        """A worker is done with its order, or with something else that it was told to do."""
        record = self._records.get(worker_id)
        if record is not None and record.shards:
            record.shard_s.append((now_s - record.since_s) / record.shards)
            record.shards = 0

    def left(self, worker_id: str) -> None:
        """A worker is gone."""
        self._records.pop(worker_id, None)

    def at(self, now_s: float) -> list[Pace]:
        """All workers that ever got an order, and are there."""
        return [
            Pace(
                worker_id=worker_id,
                usual_s=statistics.median(record.shard_s) if record.shard_s else None,
                present_s=(now_s - record.since_s) / record.shards if record.shards else 0.0,
            )
            for worker_id, record in self._records.items()
        ]

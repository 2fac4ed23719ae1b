"""Waits for the storage: what is trained is not thrown away because a disk is full."""

from __future__ import annotations

from collections.abc import Callable

from workers.full_disk import MAX_WAIT_S, RETRY_S


def until_stored(is_stored: Callable[[], bool], again: Callable[[], object], wait: Callable[[float], bool]) -> bool:
    """Tries `again` every `RETRY_S` until it is stored; returns whether it is.

    `wait` waits for so many seconds, and returns True where nobody wants the result any more.
    """
    for _ in range(int(MAX_WAIT_S / RETRY_S)):
        if is_stored() or wait(RETRY_S):
            break
        again()
    return is_stored()

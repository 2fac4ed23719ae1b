"""Waits for room on a full disk: a job that has to put its data there first starts when it can."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from gradwire.errors import JobFailed

STORAGE_FULL = "storage_full"
RETRY_S = 10.0
MAX_WAIT_S = 24 * 3600.0
"""Long enough for somebody who comes in the morning."""

Made = TypeVar("Made")


def when_there_is_room(make: Callable[[], Made], tell: Callable[[str], None], wait: Callable[[float], object]) -> Made:
    """What `make` returns; where the disk is full, it is tried again every `RETRY_S`, and `tell` is told of it once.

    Raises:
        JobFailed: what `make` raised; `storage_full` only after `MAX_WAIT_S`.
    """
    for attempt in range(int(MAX_WAIT_S / RETRY_S)):
        try:
            return make()
        except JobFailed as error:
            if error.code != STORAGE_FULL:
                raise
            if not attempt:
                tell(error.message)
        wait(RETRY_S)
    return make()

"""Waiting for a storage that has no room."""

from __future__ import annotations

import pytest

from gradwire.errors import JobFailed
from service.training.patience import until_stored
from workers.full_disk import MAX_WAIT_S, RETRY_S, STORAGE_FULL, when_there_is_room


def test_it_is_tried_until_it_is_stored() -> None:
    waited: list[float] = []
    tries = iter([False, False, True])
    stored = [False]

    def wait(seconds: float) -> bool:
        waited.append(seconds)
        return False

    def again() -> None:
        stored[0] = next(tries)

    assert until_stored(lambda: stored[0], again, wait)
    assert waited == [RETRY_S] * 3


def test_what_is_stored_waits_for_nobody() -> None:
    assert until_stored(lambda: True, again=lambda: 1 / 0, wait=lambda seconds: 1 / 0 > 0)


def test_it_ends_when_nobody_wants_it_and_at_last_by_itself() -> None:
    tries: list[None] = []
    assert not until_stored(lambda: False, lambda: tries.append(None), lambda seconds: True)
    assert tries == []
    assert not until_stored(lambda: False, lambda: tries.append(None), lambda seconds: False)
    assert len(tries) == MAX_WAIT_S / RETRY_S


def test_what_needs_room_first_is_made_when_there_is_some_and_told_of_once() -> None:
    codes, told, waited = [STORAGE_FULL, STORAGE_FULL], [], []

    def make() -> str:
        if codes:
            raise JobFailed("no room", code=codes.pop())
        return "made"

    assert when_there_is_room(make, told.append, waited.append) == "made"
    assert told == ["no room"] and waited == [RETRY_S] * 2
    codes.append("data_missing")
    with pytest.raises(JobFailed):
        when_there_is_room(make, told.append, waited.append)
    assert len(waited) == 2, "room would not help"

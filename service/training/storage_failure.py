"""The storage's errors, as a job reports them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from gradwire.errors import JobFailed
from gradwire.storage import is_full


@contextmanager
def storage_failure(doing: str, place: str, room: Callable[[], str] = lambda: "") -> Iterator[None]:
    """Turns an `OSError` of the block into `JobFailed`.

    `doing` is a phrase such as "write the checkpoint of step 7", `place` the folder's address, `room` tells what is
    wanted and what is free. The code is storage_full or storage_unavailable.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            said = f" ({text})" if (text := room()) else ""
            message = (
                f"cannot {doing}: no room left in {place}{said}; free some or give the server a larger --state folder"
            )
            raise JobFailed(message, code="storage_full", details=repr(error)) from error
        message = f"cannot {doing} in {place}: {error}; check that it is there and that the server may write to it"
        raise JobFailed(message, code="storage_unavailable", details=repr(error)) from error

"""The storage's errors, as a job reports them."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from gradwire.errors import JobFailed

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


def is_full(error: OSError) -> bool:
    """Whether the error means that there is no more room."""
    return error.errno in _FULL


@contextmanager
def storage_failure(doing: str, place: str) -> Iterator[None]:
    """Turns an `OSError` of the block into `JobFailed`.

    `doing` is a phrase such as "write the checkpoint of step 7", `place` the folder's address. The code is storage_full
    or storage_unavailable.
    """
    try:
        yield
    except OSError as error:
        if is_full(error):
            message = f"cannot {doing}: no room left in {place}; free some or give the server a larger --state folder"
            raise JobFailed(message, code="storage_full", details=repr(error)) from error
        message = f"cannot {doing} in {place}: {error}; check that it is there and that the server may write to it"
        raise JobFailed(message, code="storage_unavailable", details=repr(error)) from error

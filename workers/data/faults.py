"""The errors of data, each with a word for programs.

data_missing         a file is not there, or is not to be read
data_unreadable      a file is there, but is no whole NumPy archive
data_unknown_array   a name that the source does not have
data_shape           numbers of rows, or shapes, that do not fit
data_dtype           values that are no numbers, or that the wanted dtype cannot hold
data_nonfinite       NaN or an infinity
data_cache           the node's cache folder cannot be written
storage_full         it has no room just now
"""

from __future__ import annotations

import difflib
from collections.abc import Collection
from pathlib import Path

from gradwire.byte_size import byte_size
from gradwire.errors import JobFailed
from gradwire.storage import Storage, is_full
from workers.full_disk import STORAGE_FULL


def missing(message: str) -> JobFailed:
    """A file that is not there, or is refused."""
    return JobFailed(message, code="data_missing")


def unreadable(message: str) -> JobFailed:
    """A file that is no whole NumPy archive, or changed while it was read."""
    return JobFailed(message, code="data_unreadable")


def wrong_shape(message: str) -> JobFailed:
    """Rows or shapes that do not fit."""
    return JobFailed(message, code="data_shape")


def wrong_dtype(message: str) -> JobFailed:
    """Values that are no numbers, or that the wanted dtype cannot hold."""
    return JobFailed(message, code="data_dtype")


def nonfinite(message: str) -> JobFailed:
    """NaN or an infinity."""
    return JobFailed(message, code="data_nonfinite")


def unknown_array(source: str, wanted: Collection[str], known: Collection[str]) -> JobFailed:
    """For names of `wanted` that are not in `known`; near matches are named."""
    names = sorted(set(wanted) - set(known))
    near = [match for name in names for match in difflib.get_close_matches(name, sorted(known), n=1)]
    hint = f"did you mean {', '.join(map(repr, near))}? " if near else ""
    has = ", ".join(map(repr, sorted(known))) or "no arrays"
    return JobFailed(
        f"{source} has no array {', '.join(map(repr, names))}; {hint}it has {has}", code="data_unknown_array"
    )


def cache_full(folder: Path, source: str, need_bytes: int, free_bytes: int) -> JobFailed:
    """A cache folder without room for a source; somebody may make some."""
    return _no_room(folder, f"{source} takes {byte_size(need_bytes)} there, {byte_size(free_bytes)} are free")


def _no_room(folder: Path, what: str) -> JobFailed:
    return JobFailed(
        f"no room left in the data cache {folder}: {what}; the job waits until there is some "
        "(what the cache holds may be deleted, it is made again when needed)",
        code=STORAGE_FULL,
    )


def cache(folder: Path, problem: object) -> JobFailed:
    """A cache folder that cannot be written: `storage_full` where it has no room just now, else `data_cache`."""
    if isinstance(problem, OSError) and is_full(problem):
        return _no_room(folder, f"it has to be written, {Storage(str(folder)).room}")
    return JobFailed(
        f"the data cache in {folder} cannot be used: {problem}; "
        "make room there (what it holds may be deleted, it is made again when needed) or check its permissions",
        code="data_cache",
    )

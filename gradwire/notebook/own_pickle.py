"""Pickles of the caller's classes and functions whose tracebacks still name files and lines."""

from __future__ import annotations

import copy
import linecache
import re
from collections.abc import Mapping
from types import CodeType
from typing import IO, Any

import cloudpickle

PLACE = f"/gradwire/sources/{'0' * 64}/"
"""Stands where a worker has a source folder of a job: what is below it is the user's in the eyes of its messages."""


def dump(objects: Mapping[str, Any], named: Mapping[str, Any], file: IO[bytes]) -> None:
    """Writes (objects, named, text of each source by name), to be read by `pickle.load`."""
    pickler = _Pickler(file)
    pickler.dump((dict(objects), dict(named), pickler.sources))


class _Pickler(cloudpickle.Pickler):
    """Gives code the name of its file alone, below `PLACE`."""

    def __init__(self, file: IO[bytes]) -> None:
        super().__init__(file)
        self.sources: dict[str, str] = {}

    def reducer_override(self, value: Any) -> Any:
        if isinstance(value, CodeType) and not value.co_filename.startswith(PLACE):
            name = PLACE + re.sub(r"[^\w.<>-]", "_", value.co_filename.rpartition("/")[2])
            self.sources[name] = "".join(linecache.getlines(value.co_filename))
            return copy.copy, (value.replace(co_filename=name),)
        return super().reducer_override(value)

"""The log of a process: one line per transition, as key=value or as JSON."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import Any, Literal, TextIO, get_args

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

LogFormat = Literal["text", "json"]
FORMATS: tuple[str, ...] = get_args(LogFormat)

FIRST = ("timestamp", "level", "event", "job", "generation", "worker", "step")
"""In this order, where a line has them."""


def configure(format_: str = "text", file: TextIO | None = None, **known: Any) -> None:
    """Sets the log up for the whole process; every line has what is `known`, unless it says otherwise.

    Args:
        format_: one of `FORMATS`.
        file: standard error, if none is given.
    """
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            _Known({name: value for name, value in known.items() if value}),
            _renderer(format_),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=file or sys.stderr),
        cache_logger_on_first_use=True,
    )


def _renderer(format_: str) -> Processor:
    if format_ == "json":
        return structlog.processors.JSONRenderer(ensure_ascii=False)
    return structlog.processors.LogfmtRenderer(key_order=("timestamp", "level", "event"), bool_as_flag=False)


class _Known:
    """Adds what every line of the process has, and puts the keys in order."""

    def __init__(self, known: Mapping[str, Any]) -> None:
        self._known = known

    def __call__(self, logger: WrappedLogger, method_name: str, event_dict: EventDict) -> EventDict:
        line = {**self._known, **event_dict}
        first = {name: line.pop(name) for name in FIRST if name in line}
        return {**first, **line}

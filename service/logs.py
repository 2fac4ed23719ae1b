"""The log of a process: one line per transition, as key=value or as JSON."""

from __future__ import annotations

import logging
import sys
import threading
from collections.abc import Mapping
from types import TracebackType
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


def catch_others() -> None:
    """What libraries log, and what ends a thread or the process, becomes lines of this log."""
    logging.basicConfig(handlers=[_Bridge()], level=logging.WARNING, force=True)
    sys.excepthook = _ended
    threading.excepthook = _thread_ended


class _Bridge(logging.Handler):
    """Hands the records of Python's own logging over."""

    def emit(self, record: logging.LogRecord) -> None:
        try:
            is_bad = record.levelno >= logging.ERROR
            write = structlog.get_logger().error if is_bad else structlog.get_logger().warning
            write("library", logger=record.name, text=record.getMessage(), exc_info=record.exc_info or None)
        except Exception:
            self.handleError(record)


def _ended(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    structlog.get_logger().critical("process_crashed", exc_info=(kind, error, trace))


def _thread_ended(what: threading.ExceptHookArgs) -> None:
    if what.exc_value is not None and not isinstance(what.exc_value, SystemExit):
        thread = what.thread.name if what.thread is not None else ""
        trace = (what.exc_type, what.exc_value, what.exc_traceback)
        structlog.get_logger().error("thread_crashed", thread=thread, exc_info=trace)


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

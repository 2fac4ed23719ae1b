"""The service's own log: one line per transition, key=value, on standard error."""

from __future__ import annotations

import contextlib
import sys
from typing import TextIO, cast

import structlog


class _Forgiving:
    """A stream where losing a line is no error: it may end on the disk that is full."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            return self._stream.write(text)
        return 0

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure() -> None:
    """Sets the log up for the whole process."""
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], bool_as_flag=False),
        ],
        logger_factory=structlog.PrintLoggerFactory(file=cast(TextIO, _Forgiving(sys.stderr))),
        cache_logger_on_first_use=True,
    )

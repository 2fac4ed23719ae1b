"""The signals that end the service."""

from __future__ import annotations

import signal
import threading
from types import FrameType

ENDING = (signal.SIGTERM, signal.SIGINT)


def stop_on_signals(stop: threading.Event) -> None:
    """Sets `stop` when a signal comes that asks for the end. The main thread must call it, and again after Ray's start.

    Ray puts a handler of its own before SIGTERM's, which prints a stack trace and aborts the process three seconds
    later, by an alarm.
    """

    def handle(number: int, frame: FrameType | None) -> None:
        signal.alarm(0)
        stop.set()

    for number in ENDING:
        signal.signal(number, handle)

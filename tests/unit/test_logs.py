"""The log: one event a line, whatever is in it."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from collections.abc import Iterator

import pytest
import structlog

from service import logs


@pytest.fixture(autouse=True)
def _default_log() -> Iterator[None]:
    yield
    structlog.reset_defaults()


def lines(format_: str, **known: object) -> list[str]:
    file = io.StringIO()
    logs.configure(format_, file=file, **known)
    log = structlog.get_logger()
    log.info("worker_died", step=3, why='it said "no"\nand left', worker="w1")
    try:
        raise ValueError("first\nsecond")
    except ValueError:
        log.exception("tick_failed", job="cd")
    return file.getvalue().splitlines()


def test_json_is_a_document_a_line() -> None:
    first, second = map(json.loads, lines("json", job="ab", generation=2, worker=""))
    assert list(first)[:7] == ["timestamp", "level", "event", "job", "generation", "worker", "step"]
    assert (first["job"], first["worker"], first["step"], first["why"]) == ("ab", "w1", 3, 'it said "no"\nand left')
    assert second["job"] == "cd" and "worker" not in second and "ValueError: first\nsecond" in second["exception"]


def test_text_is_one_line_an_event() -> None:
    first, second = lines("text", job="ab")
    assert 'event=worker_died job=ab worker=w1 step=3 why="it said \\"no\\"\\nand left"' in first
    assert "level=error event=tick_failed job=cd" in second and "ValueError: first\\nsecond" in second


def test_what_libraries_log_and_what_ends_a_thread_are_lines_too() -> None:
    """In a process of its own: hooks are the whole process's."""
    script = (
        "import logging, threading; from service import logs;"
        "logs.configure('json', job='ab', worker='w1'); logs.catch_others();"
        "logging.getLogger('keras').warning('first\\n%s', 'second'); logging.getLogger('absl').info('chatter');"
        "thread = threading.Thread(target=lambda: 1 / 0, name='beat'); thread.start(); thread.join();"
        "raise KeyError('last')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False, timeout=60)
    library, thread, process = map(json.loads, done.stderr.splitlines())
    assert {line["job"] for line in (library, thread, process)} == {"ab"} and done.returncode == 1
    assert (library["event"], library["logger"], library["text"]) == ("library", "keras", "first\nsecond")
    assert thread["event"] == "thread_crashed" and thread["thread"] == "beat" and "ZeroDivision" in thread["exception"]
    assert process["event"] == "process_crashed" and "KeyError: 'last'" in process["exception"]

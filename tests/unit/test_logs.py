"""The log: one event a line, whatever is in it."""

from __future__ import annotations

import io
import json
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

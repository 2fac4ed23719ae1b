"""Processes by number and start time."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from service.identity import Identity, _stat


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"]) as made:
        yield made
        made.kill()


def identity(process: subprocess.Popen[bytes]) -> Identity:
    found = _stat(process.pid)
    assert found is not None
    return Identity(process.pid, found[1])


def test_a_stopped_process_is_alive_until_it_is_killed(process: subprocess.Popen[bytes]) -> None:
    who = identity(process)
    os.kill(process.pid, signal.SIGSTOP)
    assert who.is_alive()
    assert who.end(5.0)
    assert not who.is_alive()
    assert process.wait(5) == -signal.SIGKILL
    assert who.end(0.0), "it is gone"


def test_another_process_with_the_number_is_left_alone(process: subprocess.Popen[bytes]) -> None:
    before = replace(identity(process), start_ticks=identity(process).start_ticks - 1)
    assert not before.is_alive()
    assert before.end(1.0)
    assert process.poll() is None


def test_this_process_knows_itself() -> None:
    assert Identity.own().is_alive() and Identity.own().pid == os.getpid()

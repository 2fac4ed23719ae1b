"""`gradwire demo` as a person runs it: to its end, interrupted, with its server killed. It leaves nothing behind."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Thread

import pytest

from tests.faults.traces import Traces, traces, wait_until

pytestmark = pytest.mark.timeout(180)

GRADWIRE = str(Path(sys.executable).with_name("gradwire"))
RUN_TIMEOUT_S = 120.0
TRAINING_TIMEOUT_S = 60.0
END_TIMEOUT_S = 30.0
PROCESSES = 7
"""At least so many run while it trains: the demo, its server, Ray's two, a trainer and two workers."""

# What `show --json` has at least, with the types that a script relies on.
FIELDS = {
    "id": str, "name": str, "state": str, "step": int, "totalSteps": int, "epoch": int, "metrics": dict,
    "evalMetrics": dict, "workers": list, "weightsDigest": str, "error": type(None), "specDigest": str,
    "createdAt": str, "startedAt": str, "finishedAt": str,
}  # fmt: skip


class Demo:
    """A demo under way, in a session of its own; what it prints is in `out` and `err`."""

    def __init__(self, folder: Path, traces: Traces, *arguments: str) -> None:
        self.folder = folder
        self.traces = traces
        self.out, self.err = folder / "out", folder / "err"
        with self.out.open("wb") as out, self.err.open("wb") as err:
            self.process = subprocess.Popen(
                [GRADWIRE, "demo", *arguments],
                cwd=folder, env=traces.environment, stdin=subprocess.DEVNULL, stdout=out, stderr=err,
                start_new_session=True,
            )  # fmt: skip

    def says(self, pattern: str) -> bool:
        assert self.process.poll() is None, self.err.read_text()
        return re.search(pattern, self.err.read_text() + self.out.read_text()) is not None

    def wait_for(self, pattern: str, timeout_s: float) -> None:
        wait_until(lambda: self.says(pattern), timeout_s)

    def ended(self, timeout_s: float = END_TIMEOUT_S) -> int:
        return self.process.wait(timeout_s)

    def left(self) -> str:
        """What is there afterwards, one a line."""
        return "\n".join(self.traces.left())

    def server_pid(self) -> int:
        found = next(self.traces.folder.glob("gradwire-demo-*/server.json"))
        return int(json.loads(found.read_text())["pid"])


@pytest.fixture
def marked() -> Iterator[Traces]:
    with traces("demo") as made:
        yield made


def test_it_trains_shows_and_exports_a_model_and_leaves_nothing_else(tmp_path: Path, marked: Traces) -> None:
    demo = Demo(tmp_path, marked, "--json")
    demo.wait_for(r"RUNNING", TRAINING_TIMEOUT_S)
    assert len(marked.see()) >= PROCESSES and marked.service_ids, "the marks are not found"
    assert demo.ended(RUN_TIMEOUT_S) == 0, demo.err.read_text()
    assert demo.left() == ""

    job = json.loads(demo.out.read_text())
    assert {name: type(job[name]) for name in FIELDS} == FIELDS
    assert (job["state"], job["error"]) == ("SUCCEEDED", None)
    assert job["step"] == job["totalSteps"] > 0
    assert isinstance(job["metrics"]["loss"], float) and isinstance(job["evalMetrics"]["loss"], float)
    assert job["evalMetrics"]["digit_accuracy"] >= 0.97
    assert len(job["workers"]) == 2
    for worker in job["workers"]:
        assert set(worker) >= {"id", "pid", "node", "state", "phase", "transport"} and isinstance(worker["pid"], int)
    assert re.fullmatch("[0-9a-f]{64}", job["weightsDigest"]) and re.fullmatch("[0-9a-f]{64}", job["specDigest"])

    made = tmp_path / "gradwire-demo"
    assert sorted(path.name for path in made.iterdir()) == ["curve.png", "model.keras", "saved_model"]
    assert (made / "curve.png").read_bytes().startswith(b"\x89PNG")
    assert (made / "saved_model" / "saved_model.pb").stat().st_size > 0
    shown = demo.err.read_text()
    for text in ("starting a server", "examples/s", "2 workers", "validation", "99.", "time of a step", "curve.png"):
        assert text in shown
    for phase in ("data", "compute", "exchange", "sum", "apply"):
        assert re.search(rf"^{phase} +[\d.,]+ ms", shown, re.MULTILINE), phase


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_it_starts_ends_it_without_a_trace(tmp_path: Path, marked: Traces, number: int) -> None:
    demo = Demo(tmp_path, marked, "--json")
    demo.wait_for("loading Ray|starting Ray", END_TIMEOUT_S)
    marked.see()
    demo.process.send_signal(number)
    assert demo.ended() == 130
    assert demo.left() == ""
    assert json.loads(demo.out.read_text())["error"]["code"] == "interrupted"
    assert "Traceback" not in demo.err.read_text()
    assert not (tmp_path / "gradwire-demo").exists()


def test_ctrl_c_on_a_terminal_while_it_trains_ends_it_without_a_trace(tmp_path: Path, marked: Traces) -> None:
    with on_terminal([GRADWIRE, "demo"], tmp_path, marked) as (process, keyboard, screen):
        wait_until(lambda: "examples/s" in text(screen) or process.poll() is not None, TRAINING_TIMEOUT_S)
        assert len(marked.see()) >= PROCESSES, text(screen)
        os.write(keyboard, b"\x03")
        assert process.wait(END_TIMEOUT_S) == 130
    assert "\n".join(marked.left()) == ""
    shown = text(screen)
    assert re.search(r"step \d+/360 +\d+ %", shown), "a bar with the steps"
    assert re.search(r"training +loss [\d.]+ +digit_accuracy", shown)
    last = shown.rstrip().splitlines()[-1]
    assert last.endswith("the demo was interrupted; everything it started is stopped and removed")
    assert "Traceback" not in shown


def test_a_server_that_is_killed_ends_the_demo_with_an_error_and_without_a_trace(
    tmp_path: Path, marked: Traces
) -> None:
    demo = Demo(tmp_path, marked, "--json")
    demo.wait_for("RUNNING", TRAINING_TIMEOUT_S)
    marked.see()
    os.kill(demo.server_pid(), signal.SIGKILL)
    assert demo.ended(60) == 1
    assert demo.left() == ""
    assert json.loads(demo.out.read_text())["error"]["code"] == "server_died"
    assert "killed by SIGKILL" in demo.err.read_text() and "event=listening" in demo.err.read_text()
    assert "Traceback" not in demo.err.read_text()


@contextmanager
def on_terminal(
    command: list[str], folder: Path, traces: Traces
) -> Iterator[tuple[subprocess.Popen[bytes], int, bytearray]]:
    """A command on a terminal of its own; gives its process, where to type, and what the screen has got so far."""
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        ["setsid", "--ctty", *command],
        cwd=folder, env={**traces.environment, "TERM": "xterm", "COLUMNS": "120"},
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    screen = bytearray()

    def read() -> None:
        try:
            while data := os.read(ours, 65536):
                screen.extend(data)
        except OSError:
            pass  # nobody is left who could write

    reader = Thread(target=read, daemon=True)
    reader.start()
    try:
        yield process, ours, screen
    finally:
        process.kill()
        process.wait()
        reader.join(5)
        os.close(ours)


def text(screen: bytearray) -> str:
    """What was written, without colours and moves of the cursor."""
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", screen.decode(errors="replace")).replace("\r", "\n")

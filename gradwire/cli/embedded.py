"""A server of one's own, for as long as a block runs: the demo's."""

from __future__ import annotations

import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradwire.cli import process_session
from gradwire.errors import Unavailable

START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 15.0
"""How long the server may take to end by itself; then its processes are killed."""
POLL_S = 0.1
LOG_LINES_SHOWN = 15
SEGMENTS = Path("/dev/shm")
LOG = "service.log"
RAY_NOTE, RAY_PREFIX = "ray_folder", "gw-ray-"
"""In its state folder the server notes where Ray's own folder is, which it removes itself unless it is killed."""

Command = Callable[[dict[str, Any]], Sequence[str]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Ready:
    """What the server says when it answers gRPC."""

    listen: str
    metrics: str
    service_id: str


@contextlib.contextmanager
def embedded_service(command: Command, settings: dict[str, Any], on_stage: Callable[[str], None]) -> Iterator[Ready]:
    """Starts a server in a temporary folder and a session of its own; leaves no process, segment or folder behind.

    Args:
        command: makes the command line from the settings, to which `state` and `ready_fd` are added.
        on_stage: gets what the server says it is doing, on another thread.

    Raises:
        Unavailable: the server ended, was not ready within `START_TIMEOUT_S`, or went away within the block; the
            details are the last lines of its log.
    """
    folder = Path(tempfile.mkdtemp(prefix="gradwire-demo-"))
    child: subprocess.Popen[bytes] | None = None
    ready: Ready | None = None
    try:
        with _signals_held() as arrived:  # an interruption before `child` has its name would leave it running
            messages, child = _start(command, {**settings, "state": str(folder)}, folder, on_stage)
        if arrived:
            raise KeyboardInterrupt
        ready = _await_ready(child, messages)
        yield ready
    except Unavailable as error:
        if ready is not None and child is not None and child.poll() is not None:
            message = f"the server ended before the job did ({_ending(child)})"
            raise Unavailable(message, code="server_died", details=_tail(folder / LOG)) from error
        error.details = error.details or _tail(folder / LOG)
        raise
    finally:
        with _signals_held():  # a second Ctrl-C must not stop the cleaning up
            try:
                on_stage("stopping the server")
            finally:  # even if nobody reads the display any more
                if child is not None:
                    stop(child)
                _remove_segments(ready)
                _remove_ray(folder)
                shutil.rmtree(folder, ignore_errors=True)


def stop(child: subprocess.Popen[bytes]) -> None:
    """Ends a child that leads a session: politely, after `STOP_TIMEOUT_S` by force, with all that it started."""
    found = process_session.members(child.pid)
    if child.poll() is None:
        child.terminate()
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=STOP_TIMEOUT_S)
    # Without it nobody needs what it has started; of a killed one, Ray's agents would live on for a minute.
    process_session.kill(found | process_session.members(child.pid))
    child.wait()


def _start(
    command: Command, settings: dict[str, Any], folder: Path, on_stage: Callable[[str], None]
) -> tuple[queue.Queue[Ready | None], subprocess.Popen[bytes]]:
    read_fd, write_fd = os.pipe()
    try:
        with (folder / LOG).open("wb") as log:
            child = subprocess.Popen(
                command({**settings, "ready_fd": write_fd}),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                pass_fds=(write_fd,),
                start_new_session=True,  # Ctrl-C on the terminal reaches the demo alone
            )
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
    messages: queue.Queue[Ready | None] = queue.Queue()
    threading.Thread(target=_read, args=(read_fd, messages, on_stage), daemon=True).start()
    return messages, child


def _read(read_fd: int, messages: queue.Queue[Ready | None], on_stage: Callable[[str], None]) -> None:
    """Passes on what the server says, until it ends or closes the pipe; then None."""
    try:
        with open(read_fd, encoding="utf-8") as lines:
            for line in lines:
                message = json.loads(line)
                if "stage" in message:
                    on_stage(message["stage"])
                if "listen" in message:
                    messages.put(Ready(**{name: message.get(name, "") for name in ("listen", "metrics", "service_id")}))
    finally:
        messages.put(None)


def _await_ready(child: subprocess.Popen[bytes], messages: queue.Queue[Ready | None]) -> Ready:
    deadline = time.monotonic() + START_TIMEOUT_S
    while time.monotonic() < deadline:
        try:
            ready = messages.get(timeout=POLL_S)
        except queue.Empty:
            continue
        if ready is not None:
            return ready
        with contextlib.suppress(subprocess.TimeoutExpired):
            child.wait(timeout=STOP_TIMEOUT_S)
        raise Unavailable(f"the server did not start ({_ending(child)})", code="start_failed")
    raise Unavailable(f"the server was not ready within {START_TIMEOUT_S:.0f} s", code="start_failed")


def _ending(child: subprocess.Popen[bytes]) -> str:
    if child.returncode is None:
        return "it closed its pipe and goes on"
    if child.returncode < 0:
        return f"killed by {signal.Signals(-child.returncode).name}"
    return f"exit code {child.returncode}"


def _tail(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    return "\n".join(lines[-LOG_LINES_SHOWN:]) or "(its log is empty)"


def _remove_segments(ready: Ready | None) -> None:
    if ready is not None and ready.service_id:
        for path in SEGMENTS.glob(f"gradwire-{ready.service_id}-*"):
            shutil.rmtree(path, ignore_errors=True)


def _remove_ray(state: Path) -> None:
    with contextlib.suppress(FileNotFoundError):
        folder = Path((state / RAY_NOTE).read_text(encoding="utf-8").strip())
        if folder.name.startswith(RAY_PREFIX):
            shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _signals_held() -> Iterator[list[int]]:
    """Collects the signals that ask the process to end, instead of acting on them."""
    arrived: list[int] = []
    if threading.current_thread() is not threading.main_thread():  # which alone gets signals, and may ask for them
        yield arrived
        return
    numbers = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda received, _: arrived.append(received)) for number in numbers]
    try:
        yield arrived
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)

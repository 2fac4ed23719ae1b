"""What a service and all that it starts have left on this machine: processes, temporary files, shared memory."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import psutil

from tests.overload import overload

MARK = "GRADWIRE_TEST_MARK"
END_TIMEOUT_S = 10.0
"""So long after the end nothing may be left. Processes whose parent was killed end by themselves."""
POLL_S = 0.05


@dataclass
class Traces:
    """Of processes that were started with `environment`. A mark in it is inherited; some of Ray's processes overwrite
    theirs with a title, but stay in the session of one that has it."""

    mark: str
    folder: Path
    """Their folder for temporary files; its path is short, as Ray's sockets need it."""
    service_ids: set[str] = field(default_factory=set)
    """Of the services that write below `folder`; `see` finds them."""
    sessions: set[int] = field(default_factory=set)

    @property
    def environment(self) -> dict[str, str]:
        return {**os.environ, MARK: self.mark, "TMPDIR": str(self.folder), "TF_CPP_MIN_LOG_LEVEL": "3"}

    def see(self) -> list[psutil.Process]:
        """The living processes; what tells them and their files from others is remembered."""
        for path in self.folder.glob("*/service_id"):
            self.service_ids.add(path.read_text())
        everybody = [process for process in psutil.process_iter() if _is_alive(process)]
        marked = [process for process in everybody if _mark(process) == self.mark]
        self.sessions |= {_session(process) for process in marked} - {os.getsid(0), -1}
        return [process for process in everybody if process in marked or _session(process) in self.sessions]

    def left(self) -> list[str]:
        """Processes that do not end in time, then files and segments."""
        with contextlib.suppress(TimeoutError):
            wait_until(lambda: not self.see(), end_timeout_s())
        processes = [f"{process.pid} {_title(process)}" for process in self.see()]
        files = [str(path) for path in self.folder.iterdir()]
        segments = [str(path) for one in self.service_ids for path in Path("/dev/shm").glob(f"gradwire-{one}-*")]
        return processes + files + segments


@contextmanager
def traces(mark: str) -> Iterator[Traces]:
    """A folder for them that is removed afterwards; what was left is the test's to judge, and is ended here."""
    folder = Path(tempfile.mkdtemp(prefix="gw-t", dir="/tmp"))
    made = Traces(f"{mark} {folder.name}", folder)
    try:
        yield made
    finally:
        for process in made.see():
            with contextlib.suppress(psutil.NoSuchProcess):
                process.kill()
        shutil.rmtree(folder, ignore_errors=True)


def end_timeout_s() -> float:
    """How long processes may take to end: as much longer as this machine is overloaded by others."""
    return END_TIMEOUT_S * overload()


def wait_until(is_so: Callable[[], bool], timeout_s: float) -> None:
    """Returns as soon as something that another process does is so; raises TimeoutError if that takes too long."""
    deadline = time.monotonic() + timeout_s
    while not is_so():
        if time.monotonic() > deadline:
            raise TimeoutError(f"not so after {timeout_s:.0f} s")
        time.sleep(POLL_S)


def _is_alive(process: psutil.Process) -> bool:
    with contextlib.suppress(psutil.NoSuchProcess):
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    return False


def _mark(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error, OSError):
        return str(process.environ().get(MARK, ""))
    return ""


def _session(process: psutil.Process) -> int:
    try:
        return os.getsid(process.pid)
    except OSError:
        return -1


def _title(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return " ".join(process.cmdline())[:100]
    return ""

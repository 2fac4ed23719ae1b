"""A real coordinator with a local Ray, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gradwire.client import Client

READY_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 30.0


@dataclass(frozen=True)
class Server:
    """Where it listens, and its process."""

    address: str
    metrics: str
    service_id: str
    process: subprocess.Popen[bytes]
    state: Path

    def client(self) -> Client:
        return Client(self.address)

    def log(self) -> str:
        return (self.state / "stderr.log").read_text()


def settings(state: Path, **values: Any) -> dict[str, Any]:
    """The service's document; ports are free ones, and a trainer and a worker are kept warm."""
    return {
        "listen": "127.0.0.1:0",
        "metrics": "127.0.0.1:0",
        "state": str(state),
        "warm": 2,
        "refill": True,
        **values,
    }


@contextmanager
def serving(state: Path, **values: Any) -> Iterator[Server]:
    """Starts `python -m service` and ends it; what it leaves behind is an error."""
    state.mkdir(parents=True, exist_ok=True)
    read_end, write_end = os.pipe()
    document = json.dumps(settings(state, ready_fd=write_end, **values))
    with (state / "stderr.log").open("ab") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "service", document],
            pass_fds=[write_end],
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    os.close(write_end)
    try:
        with os.fdopen(read_end) as ready:
            lines = (json.loads(line) for line in ready)
            found = next((line for line in lines if "listen" in line), None)
        assert found is not None, f"the service ended: {(state / 'stderr.log').read_text()[-3000:]}"
        server = Server(found["listen"], found["metrics"], found["service_id"], process, state)
        yield server
    finally:
        _stop(process)
    left = [path.name for path in Path("/dev/shm").glob(f"gradwire-{server.service_id}-*")]
    assert not left, f"segments are left: {left}"


def _stop(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        raise AssertionError("the service did not stop") from None

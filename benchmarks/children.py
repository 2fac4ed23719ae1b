"""Child processes that end with the run, and the socket on which they are told what to do."""

from __future__ import annotations

import os
import select
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from benchmarks.system import SystemFailed
from gradwire.cli import embedded

ROOT = Path(__file__).resolve().parents[1]
POLL_S = 0.2
LOG_LINES_SHOWN = 3


class Child:
    """A process that leads a session, and its log."""

    def __init__(self, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,  # Ctrl-C reaches whoever started it, who ends it
            )

    def check(self, name: str) -> None:
        """Raises `SystemFailed` with the last lines of the log if the process has ended."""
        if self.process.poll() is not None:
            raise SystemFailed(f"{name} ended with code {self.process.returncode}: {self.last_words()}")

    def last_words(self) -> str:
        lines = [line.strip() for line in self.log.read_text(errors="replace").splitlines() if line.strip()]
        return " / ".join(lines[-LOG_LINES_SHOWN:]) or "(no output)"

    def stop(self, patience_s: float = 0.0) -> None:
        """Ends it and all that it started; it has so long to end by itself."""
        try:
            self.process.wait(patience_s)
        except subprocess.TimeoutExpired:
            pass
        finally:
            embedded.stop(self.process)


def python(module: str, *arguments: str) -> list[str]:
    return [sys.executable, "-m", module, *arguments]


class Gate:
    """A listening Unix socket; whoever connects is a child of this run, since the folder is nobody else's."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.bind(str(path))
        self._socket.listen()

    def accept(self, child: Child, name: str, timeout_s: float) -> Connection:
        """The next connection. Raises `SystemFailed` if the child ends first, or the time is over."""
        _wait(self._socket, child, name, timeout_s, "did not connect")
        return Connection(self._socket.accept()[0].detach())

    def close(self) -> None:
        self._socket.close()
        self.path.unlink(missing_ok=True)


def send(connection: Connection, message: object, child: Child, name: str) -> None:
    """Raises `SystemFailed` if nobody is there to read it."""
    try:
        connection.send(message)
    except OSError as error:
        raise SystemFailed(f"{name} hung up: {child.last_words()}") from error


def receive(connection: Connection, child: Child, name: str, timeout_s: float) -> Any:
    """The next message. Raises `SystemFailed` if the child ends first, or the time is over."""
    _wait(connection, child, name, timeout_s, "did not answer")
    try:
        return connection.recv()
    except (EOFError, OSError) as error:
        raise SystemFailed(f"{name} hung up: {child.last_words()}") from error


def _wait(source: Any, child: Child, name: str, timeout_s: float, fault: str) -> None:
    for _ in range(int(timeout_s / POLL_S) + 1):
        if select.select([source], [], [], POLL_S)[0]:
            return
        child.check(name)
    raise SystemFailed(f"{name} {fault} within {timeout_s:.0f} s: {child.last_words()}")


@contextmanager
def gate(path: Path) -> Iterator[Gate]:
    found = Gate(path)
    try:
        yield found
    finally:
        found.close()

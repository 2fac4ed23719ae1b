"""The folder where a service keeps everything, held by one service at a time."""

from __future__ import annotations

import fcntl
import json
import os
import re
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from service.config import WrongSetting


class StateFolder:
    """The state folder while this process has it: its parts, and the service's id.

    lock, service_id, server.json      who is here
    jobs.sqlite3                       the store
    storage/                           artifacts, checkpoints, exports, logs
    cache/                             of data, by content hash
    spool/                             job logs on their way into a remote storage
    """

    def __init__(self, path: Path) -> None:
        """Takes the folder's lock. Raises `WrongSetting` if another service has it, or a file cannot be used."""
        self.path = path
        with _usable(path / "lock"):
            self._lock = os.open(path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600)
        try:
            # The system gives the lock back when the process ends, however it does.
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise WrongSetting(
                "--state", f"{path} is in use by another service{self._who()}; stop it, or name another folder"
            ) from error
        self.service_id = self._read_id()

    @property
    def store(self) -> Path:
        return self.path / "jobs.sqlite3"

    @property
    def storage(self) -> Path:
        return self.path / "storage"

    @property
    def cache(self) -> Path:
        return self.path / "cache"

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    def announce(self, document: Mapping[str, Any]) -> None:
        """Writes server.json: where the service listens, for people and scripts on this machine."""
        temporary = self.path / "server.json.tmp"
        temporary.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
        temporary.replace(self._server)

    def close(self) -> None:
        """Gives the folder back."""
        self._server.unlink(missing_ok=True)
        os.close(self._lock)

    @property
    def _server(self) -> Path:
        return self.path / "server.json"

    def _read_id(self) -> str:
        path = self.path / "service_id"
        with _usable(path):
            if not path.exists():
                path.write_text(secrets.token_hex(4), encoding="ascii")
            service_id = path.read_text(encoding="ascii", errors="replace").strip()
        if re.fullmatch(r"[0-9a-f]{8}", service_id) is None:
            raise WrongSetting("--state", f"{path} does not hold 8 hexadecimal digits; remove it")
        return service_id

    def _who(self) -> str:
        try:
            document = json.loads(self._server.read_text(encoding="utf-8"))
            return f" (process {document['pid']} at {document['listen']})"
        except (OSError, ValueError, KeyError, TypeError):
            return ""


@contextmanager
def _usable(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WrongSetting(
            "--state",
            f"{path} cannot be used: {error.strerror}; give the folder to the service's user, with all in it, or name "
            "another",
        ) from error

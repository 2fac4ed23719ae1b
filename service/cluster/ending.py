"""What Ray's errors say of a process: an outcome that it reported, or how it died."""

from __future__ import annotations

import re
from pathlib import Path

from ray.exceptions import RayActorError, RayTaskError

from gradwire.errors import GradwireError
from gradwire.progress import ErrorView, Outcome
from service.engine import Death

_PID = re.compile(r"^\s*pid: (\d+)$", re.MULTILINE)
_SIGNAL = re.compile(r"^\*\*\* (SIG[A-Z]+) received", re.MULTILINE)
_EXIT = re.compile(r"Worker exit type: (\w+) Worker exit detail: (.*)", re.DOTALL)
_FATAL = re.compile(r"^(?:F\d{4}|Fatal Python error|.*\bF tensorflow).*$", re.MULTILINE)

MAX_REASON_CHARACTERS = 500
TAIL_BYTES = 1 << 16


def ending(error: BaseException, logs: Path | None) -> Outcome | Death:
    """What became of a process whose call raised `error`; `logs` is Ray's log folder, where it is on this machine."""
    if isinstance(error, RayTaskError):
        return Outcome(state="FAILED", error=_view(error))
    if isinstance(error, RayActorError):
        return Death(_reason(str(error), logs)[:MAX_REASON_CHARACTERS])
    return Death(f"Ray lost the process: {type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS])


def _view(error: RayTaskError) -> ErrorView:
    cause = error.cause
    if isinstance(cause, GradwireError):
        return ErrorView(code=cause.code, message=cause.message, details=cause.details)
    return ErrorView(code="internal", message=f"{type(cause).__name__}: {cause}", details=str(error))


def _reason(message: str, logs: Path | None) -> str:
    """Ray tells a lost connection from an orderly exit; the signal stands in the process's own last words."""
    found = _PID.search(message)
    process = f"process {found[1]}" if found else "the process"
    words = _last_words(logs, found[1]) if logs and found else ""
    fatal = f": {said[0].strip()}" if (said := _FATAL.findall(words)) else ""
    if signals := _SIGNAL.findall(words):
        return f"{process} died of {signals[-1]}{fatal}"
    kind, detail = exit_match.groups() if (exit_match := _EXIT.search(message)) else ("", message)
    detail = " ".join(detail.split())
    if "OUT_OF_MEMORY" in kind or "memory monitor" in detail.lower():
        return f"{process} was ended by Ray because its node ran out of memory: {detail}"
    if "connection error code 2" in detail:
        return (
            f"{process} died without a word (SIGKILL, as the kernel's for lack of memory, SIGTERM, or an exit){fatal}"
        )
    return f"{process} ended: {detail}{fatal}"


def _last_words(logs: Path, pid: str) -> str:
    for path in logs.glob(f"worker-*-{pid}.err"):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - TAIL_BYTES))
            return file.read().decode(errors="replace")
    return ""

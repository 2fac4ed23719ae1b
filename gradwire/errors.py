"""What can go wrong, as people and programs see it.

    GradwireError                code, message, details
    ├── InvalidSpec              the specification; carries every violation with its field path
    ├── NotFound                 a job, an artifact, an export
    ├── AlreadyExists            a request id used for another spec
    ├── NotPossible              a move that the job's state does not allow
    ├── Unauthenticated          no token, or the wrong one
    ├── Exhausted                a bound of the server is reached
    ├── Unavailable              no server at the address, or it went away
    ├── Unsupported              a verb that this server does not have
    └── JobFailed                a job ended without a result

A message says what happened, where, and what to do. `code` is a word for programs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Violation:
    """One fault of a specification: the field's path (camelCase, dots and brackets) and what is wrong with it."""

    field: str
    description: str


class GradwireError(Exception):
    """Base of all errors that Gradwire raises on purpose."""

    code = "internal"

    def __init__(self, message: str, *, code: str | None = None, details: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        if code is not None:
            self.code = code

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions with keyword arguments do not survive pickling by themselves.
        return _rebuild, (type(self), self.message, self.code, self.details)


def _rebuild(kind: type[GradwireError], message: str, code: str, details: str) -> GradwireError:
    error = kind.__new__(kind)
    GradwireError.__init__(error, message, code=code, details=details)
    return error


class InvalidSpec(GradwireError):
    """A specification with at least one violation."""

    code = "invalid_spec"

    def __init__(self, violations: list[Violation], *, message: str = "") -> None:
        lines = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        super().__init__(message or lines)
        self.violations = violations

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild_invalid, (self.violations, self.message)


def _rebuild_invalid(violations: list[Violation], message: str) -> InvalidSpec:
    return InvalidSpec(violations, message=message)


class NotFound(GradwireError):
    """Something asked for by name is not there."""

    code = "not_found"


class AlreadyExists(GradwireError):
    """A request id was used before, for another specification."""

    code = "already_exists"


class NotPossible(GradwireError):
    """The job's state does not allow the request."""

    code = "not_possible"


class Unauthenticated(GradwireError):
    """The token is missing or wrong."""

    code = "unauthenticated"


class Exhausted(GradwireError):
    """A bound of the server is reached: watchers, sizes, queue."""

    code = "exhausted"


class Unavailable(GradwireError):
    """No server answers at the address."""

    code = "unavailable"


class Unsupported(GradwireError):
    """The server has no such verb."""

    code = "unsupported"


class JobFailed(GradwireError):
    """A job ended without a result. `code` says why, in a word: see ARCHITECTURE.md, "Why jobs fail"."""

    code = "job_failed"

"""From an error to what the terminal shows: an exit code, a line or two, and the next command to type."""

from __future__ import annotations

import json
import sys
import traceback
from dataclasses import dataclass

import click

from gradwire.errors import (
    AlreadyExists,
    GradwireError,
    InvalidSpec,
    NotFound,
    NotPossible,
    Unauthenticated,
    Unavailable,
    Unsupported,
    Violation,
)

DONE, FAILED, WRONG_INPUT, INTERRUPTED = 0, 1, 2, 130

EXIT_CODES: tuple[tuple[type[BaseException], int], ...] = (
    (InvalidSpec, WRONG_INPUT),
    (NotFound, WRONG_INPUT),
    (AlreadyExists, WRONG_INPUT),
    (NotPossible, WRONG_INPUT),
    (Unauthenticated, WRONG_INPUT),
    (Unsupported, WRONG_INPUT),
    (click.UsageError, WRONG_INPUT),
    (FileNotFoundError, WRONG_INPUT),
    (FileExistsError, WRONG_INPUT),
    (NotADirectoryError, WRONG_INPUT),
    (IsADirectoryError, WRONG_INPUT),
    (PermissionError, WRONG_INPUT),
    (click.Abort, INTERRUPTED),
    (KeyboardInterrupt, INTERRUPTED),
)
"""The first that fits; any other error is FAILED."""

NEXT: tuple[tuple[type[GradwireError], str], ...] = (
    (Unavailable, "gradwire serve"),
    (NotFound, "gradwire jobs"),
    (AlreadyExists, "leave --request-id out, or take another"),
    (Unauthenticated, "give the server's token: --token-file FILE"),
)
"""What to do next, where the error has no note of its own."""


class Interrupted(click.Abort):
    """The user stopped a command; the message says what goes on without it, its notes what to type next."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    """An error as the terminal shows it."""

    exit_code: int
    code: str
    message: str
    next: str = ""
    details: str = ""
    violations: tuple[Violation, ...] = ()


def failure_of(error: BaseException) -> Failure:
    """How to show an error. An error's notes (`add_note`) are the next commands to type."""
    exit_code = next((code for kind, code in EXIT_CODES if isinstance(error, kind)), FAILED)
    following = "; ".join(getattr(error, "__notes__", ()))
    if isinstance(error, GradwireError):
        following = following or next((text for kind, text in NEXT if isinstance(error, kind)), "")
        violations = tuple(error.violations) if isinstance(error, InvalidSpec) else ()
        return Failure(
            exit_code=exit_code,
            code=error.code,
            message=error.message,
            next=following,
            details=error.details,
            violations=violations,
        )
    code, message = _named(error, exit_code)
    if isinstance(error, click.UsageError) and error.ctx is not None:
        following = following or f"see: {error.ctx.command_path} --help"
    return Failure(exit_code=exit_code, code=code, message=message, next=following)


def _named(error: BaseException, exit_code: int) -> tuple[str, str]:
    if exit_code == INTERRUPTED:
        return "interrupted", str(error) or "interrupted"
    if isinstance(error, click.ClickException):
        return "usage", error.format_message()
    if isinstance(error, OSError):
        return "file", f"{error.filename}: {error.strerror}" if error.filename else str(error)
    return "internal", f"{type(error).__name__}: {error}"


def report(error: BaseException, *, is_json: bool) -> int:
    """Says on stderr what went wrong, under --json on stdout as well, and returns the exit code."""
    failure = failure_of(error)
    if failure.code == "internal" and not isinstance(error, GradwireError):
        traceback.print_exception(error)  # a fault of this program: its place matters more than plain lines
    for line in _lines(failure):
        print(line, file=sys.stderr)
    if is_json:
        print(json.dumps({"error": _document(failure)}, ensure_ascii=False), flush=True)
    return failure.exit_code


def _lines(failure: Failure) -> list[str]:
    if len(failure.violations) > 1:
        lines = [f"gradwire: {len(failure.violations)} things are wrong with the job"]
        lines += [f"  {_one(violation)}" for violation in failure.violations]
    elif failure.violations:
        lines = [f"gradwire: {_one(failure.violations[0])}"]
    else:
        lines = [f"gradwire: {failure.message}"]
    return [*lines, f"  {failure.next}"] if failure.next else lines


def _one(violation: Violation) -> str:
    return f"{violation.field}: {violation.description}" if violation.field else violation.description


def _document(failure: Failure) -> dict[str, object]:
    document: dict[str, object] = {"code": failure.code, "message": failure.message}
    if failure.next:
        document["next"] = failure.next
    if failure.details:
        document["details"] = failure.details
    if failure.violations:
        document["violations"] = [
            {"field": violation.field, "description": violation.description} for violation in failure.violations
        ]
    return document

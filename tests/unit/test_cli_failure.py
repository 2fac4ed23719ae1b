"""Errors as the terminal shows them."""

from __future__ import annotations

import errno

import click
import pytest

from gradwire.cli.failure import Interrupted, failure_of
from gradwire.errors import Exhausted, GradwireError, InvalidSpec, JobFailed, NotPossible, Unavailable, Violation


@pytest.mark.parametrize(
    ("error", "exit_code", "code"),
    [
        (InvalidSpec([Violation("name", "is empty")]), 2, "invalid_spec"),
        (NotPossible("job 3f2a has ended"), 2, "not_possible"),
        (Unavailable("nobody at 127.0.0.1:1"), 1, "unavailable"),
        (Exhausted("the queue is full"), 1, "exhausted"),
        (JobFailed("NaN", code="nonfinite"), 1, "nonfinite"),
        (GradwireError("damaged", code="checksum_mismatch"), 1, "checksum_mismatch"),
        (click.UsageError("no such option"), 2, "usage"),
        (FileNotFoundError(errno.ENOENT, "No such file or directory", "x.npz"), 2, "file"),
        (PermissionError(errno.EACCES, "Permission denied", "out"), 2, "file"),
        (OSError(errno.ENOSPC, "No space left on device", "out"), 1, "file"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (click.Abort(), 130, "interrupted"),
        (Interrupted("stopped watching"), 130, "interrupted"),
        (RuntimeError("a fault"), 1, "internal"),
    ],
)
def test_exit_codes_and_words(error: BaseException, exit_code: int, code: str) -> None:
    failure = failure_of(error)
    assert (failure.exit_code, failure.code) == (exit_code, code)
    assert failure.message


def test_a_file_error_names_the_file_and_the_reason() -> None:
    assert (
        failure_of(OSError(errno.ENOSPC, "No space left on device", "/x/out")).message
        == "/x/out: No space left on device"
    )
    assert failure_of(IsADirectoryError("/x is a folder")).message == "/x is a folder"


def test_notes_are_the_next_commands_and_beat_the_general_advice() -> None:
    error = Unavailable("nobody")
    assert "gradwire serve" in failure_of(error).next
    error.add_note("gradwire demo")
    assert failure_of(error).next == "gradwire demo"

"""The rule for what a test needs: skipped where it is missing, failed in continuous integration."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest

Require = Callable[[str | bool, str], None]
ABSENT = "a-program-that-nobody-has"


def test_what_is_there_lets_the_test_run(require: Require, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CI", "true")
    require(sys.executable, "a program by its path")
    require(True, "a condition")


def test_what_is_missing_skips_here(require: Require, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CI", raising=False)
    with pytest.raises(pytest.skip.Exception, match=f"'{ABSENT}' is not on PATH: it starts the server"):
        require(ABSENT, "it starts the server")


@pytest.mark.parametrize("what", [ABSENT, False])
def test_what_is_missing_fails_in_ci(require: Require, monkeypatch: pytest.MonkeyPatch, what: str | bool) -> None:
    monkeypatch.setenv("CI", "true")
    with pytest.raises(pytest.fail.Exception, match=r"missing in CI: .*needs a GPU"):
        require(what, "needs a GPU")

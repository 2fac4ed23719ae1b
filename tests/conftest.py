"""What every test may use: the rule for missing tools, and a marker per folder."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MARKED_FOLDERS = ("integration", "faults", "deploy")

Require = Callable[[str | bool, str], None]


@pytest.fixture
def require() -> Require:
    """`require(what, reason)`: what this test needs, a program on PATH by name, or a condition.

    Where it is missing the test is skipped, but under CI=true it fails: there, a check that does not run is an error.
    """
    return require_or_skip


def require_or_skip(what: str | bool, reason: str) -> None:
    """The rule itself; raises pytest's Skipped, or Failed under CI=true."""
    is_there = shutil.which(what) is not None if isinstance(what, str) else what
    if is_there:
        return
    message = f"'{what}' is not on PATH: {reason}" if isinstance(what, str) else reason
    if os.environ.get("CI") == "true":
        pytest.fail(f"missing in CI: {message}", pytrace=False)
    pytest.skip(message)


@pytest.fixture
def short_path() -> Iterator[Path]:
    """A temporary folder for sockets, whose paths may have 107 bytes: `tmp_path` may need them all."""
    with tempfile.TemporaryDirectory(prefix="gw") as name:
        yield Path(name)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Marks each test with its folder, so that `-m "not integration"` works without a line in every file."""
    for item in items:
        for folder in MARKED_FOLDERS:
            if item.path.is_relative_to(TESTS / folder):
                item.add_marker(folder)

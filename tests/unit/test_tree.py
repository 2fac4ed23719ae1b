"""The tree as a whole: sizes, package list, and nothing that belongs to one machine."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MAX_LINES = 400
PACKAGE_ROOTS = ("gradwire", "protos", "service", "workers")
UNTRACKED = {".git", ".venv", "__pycache__", "build", "dist"}

# Each breaks an installation elsewhere, or tells where the code was written. The lock's header says `--no-emit-…`.
MACHINE_TRACES = {
    "a package index": re.compile(r"(?<!no-emit-)index[-_]url\b", re.IGNORECASE),
    "a package host": re.compile(r"trusted[-_]host\b|(?<!no-emit-)find[-_]links\b", re.IGNORECASE),
    "a home folder": re.compile(r"(?<![\w.~-])/(home|root|Users)/\w"),
}


def files() -> list[Path]:
    """The files of the tree, tracked or new; without git, every file that no tool has left behind."""
    if (ROOT / ".git").exists():
        command = ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
        names = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.split("\0")
        found = [ROOT / name for name in names if name]
    else:
        found = [path for path in ROOT.rglob("*") if not is_left_behind(path.relative_to(ROOT))]
    return sorted(path for path in found if path.is_file())


def is_left_behind(path: Path) -> bool:
    return any(part in UNTRACKED or part.endswith(("_cache", ".egg-info")) for part in path.parts)


def traces(text: str) -> list[str]:
    return [what for what, pattern in MACHINE_TRACES.items() if pattern.search(text)]


def test_no_python_file_is_longer_than_the_limit() -> None:
    written = [path for path in files() if path.suffix == ".py" and not path.stem.endswith(("_pb2", "_pb2_grpc"))]
    assert written
    lines = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in written}
    assert {name: count for name, count in lines.items() if count > MAX_LINES} == {}


def test_no_file_names_a_machine_or_a_package_host() -> None:
    found = {}
    for path in files():
        try:
            text = path.read_text()
        except UnicodeDecodeError:
            continue  # a picture or an archive
        if what := traces(text):
            found[str(path.relative_to(ROOT))] = what
    assert found == {}


def test_the_lock_has_hashes_and_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text()
    assert "://" not in lock
    requirements = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE | re.IGNORECASE)[1:]
    assert requirements
    assert [text.split()[0] for text in requirements if "--hash=sha256:" not in text] == []


def test_every_package_is_installed() -> None:
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    folders = {
        path.parent for path in files() if path.suffix == ".py" and path.relative_to(ROOT).parts[0] in PACKAGE_ROOTS
    }
    assert sorted(listed) == sorted(".".join(folder.relative_to(ROOT).parts) for folder in folders)
    assert [folder for folder in folders if not (folder / "__init__.py").exists()] == []


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("pip install --index" + "-url https://example.org/simple", ["a package index"]),
        ("PIP_EXTRA_INDEX" + "_URL=https://example.org", ["a package index"]),
        ("--find" + "-links wheels", ["a package host"]),
        ("state in /home" + "/someone/state", ["a home folder"]),
        ("see https://example.org/home" + "/page", []),
        ("pip-compile --no-emit-index" + "-url --no-emit-find" + "-links", []),
        ("the root folder /", []),
    ],
)
def test_traces_are_found(text: str, what: list[str]) -> None:
    assert traces(text) == what

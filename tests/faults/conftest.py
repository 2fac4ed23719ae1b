"""A small disk that tests fill up: where this process may not mount one, they run in a namespace where they may."""

from __future__ import annotations

import functools
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

DISK_BYTES = 256 << 20
NAMESPACE = ("unshare", "--user", "--map-root-user", "--mount")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A small file system of its own."""
    folder = tmp_path / "disk"
    folder.mkdir()
    is_mounted = not mount(folder)
    yield folder
    if is_mounted:
        subprocess.run(["umount", "--lazy", folder], check=True)


def mount(folder: Path) -> str:
    """Mounts a small disk; why it cannot, or nothing."""
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_BYTES}", "gradwire-test", folder]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() or f"mount exited with {done.returncode}" if done.returncode else ""


@functools.cache
def mount_fault() -> str:
    """Why this process may mount nothing, or nothing."""
    with tempfile.TemporaryDirectory(prefix="gradwire-mount-") as folder:
        fault = mount(Path(folder))
        if not fault:
            subprocess.run(["umount", "--lazy", folder], check=True)
    return fault


def namespace_fault() -> str:
    """Why there is no namespace in which anybody may mount, or nothing."""
    if shutil.which(NAMESPACE[0]) is None:
        return "there is no unshare"
    command = [*NAMESPACE, "mount", "-t", "tmpfs", "gradwire-test", tempfile.gettempdir()]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stderr.strip() if done.returncode else ""


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    """Runs a test that wants a small disk in a user and mount namespace, where that is the only way to have one.

    Where it is none either the test is skipped, under CI=true too: no package that one installs brings the permission.
    """
    if "small_disk" not in pyfuncitem.fixturenames or not mount_fault():
        return None
    if fault := namespace_fault():
        pytest.skip(f"a small disk cannot be mounted here: {mount_fault()}; nor in a namespace: {fault}")
    inner = [sys.executable, "-m", "pytest", "-q", "-rs", "-p", "no:cacheprovider", pyfuncitem.nodeid]
    root = pyfuncitem.config.rootpath
    done = subprocess.run([*NAMESPACE, *inner], cwd=root, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.fail(f"in a namespace of its own it failed:\n{done.stdout}{done.stderr}", pytrace=False)
    if "1 passed" not in done.stdout:
        pytest.skip(f"in a namespace of its own: {done.stdout}")
    return True

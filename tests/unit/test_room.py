"""How much memory may be taken, read from files as Linux writes them."""

from __future__ import annotations

from pathlib import Path

import pytest

from workers.exchange.room import KEEP_BYTES, Room

GIB = 2**30


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc" / "self").mkdir(parents=True)
    (tmp_path / "proc" / "meminfo").write_text(f"MemTotal: 99 kB\nMemAvailable: {8 * GIB // 1024} kB\n")
    (tmp_path / "proc" / "self" / "cgroup").write_text("1:name=systemd:/x\n0::/pod/box\n")
    return tmp_path / "proc"


def limit(folder: Path, limit: str, used: int = 0, inactive: int = 0) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text(f"anon 5\ninactive_file {inactive}\n")


def test_without_control_groups_the_machine_is_the_bound(proc: Path, tmp_path: Path) -> None:
    assert Room.now(proc, tmp_path / "none") == Room(8 * GIB, "the machine's memory")
    (proc / "self" / "cgroup").unlink()
    assert Room.now(proc, tmp_path / "none").free_bytes == 8 * GIB


def test_the_tightest_group_around_us_is_the_bound(proc: Path, tmp_path: Path) -> None:
    groups = tmp_path / "groups"
    limit(groups / "pod" / "box", "max", used=5)
    limit(groups / "pod", str(2 * GIB), used=GIB, inactive=1000)
    limit(groups / "pod" / "other", "1")
    room = Room.now(proc, groups)
    assert room.free_bytes == GIB + 1000
    assert str(2 * GIB) in room.bound


def test_in_a_container_the_group_is_the_root(proc: Path, tmp_path: Path) -> None:
    (proc / "self" / "cgroup").write_text("0::/\n")
    limit(tmp_path / "groups", str(GIB), used=GIB // 2)
    assert Room.now(proc, tmp_path / "groups").free_bytes == GIB // 2


def test_something_is_left_to_others() -> None:
    room = Room(KEEP_BYTES + 100, "this")
    assert room.refusal(100) is None
    assert room.refusal(101) == f"this has {KEEP_BYTES + 100} bytes free"
    assert Room(-5, "this").refusal(0) == "this has 0 bytes free"

"""One copy per node: made once, remade when damaged, never half there."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from gradwire.errors import JobFailed
from workers.data.cache import Cache, Writing

VALUES = np.arange(3000, dtype=np.float64)

PROCESS = """
import sys, time
from pathlib import Path
import numpy as np
from workers.data.cache import Cache
folder = Path(sys.argv[1])
def make(lacking, writing):
    with (folder / "made").open("a") as log:
        log.write("made\\n")
    for name in lacking:
        with writing(name, (200_000,), np.dtype(np.int64)) as target:
            for start in range(0, 200_000, 1000):
                target[start:start + 1000] = np.arange(start, start + 1000)
print(int(Cache(folder / "cache").load("key", ["x"], make)["x"].sum()))
"""

LIMITED = """
import resource, sys
from pathlib import Path
import numpy as np
from gradwire.errors import JobFailed
from workers.data.cache import Cache
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
def make(lacking, writing):
    with writing("x", (1_000_000,), np.dtype(np.int64)) as target:
        target[:] = 1
try:
    Cache(Path(sys.argv[1])).load("key", ["x"], make)
except JobFailed as error:
    print(error.code, error.message)
"""


class Maker:
    """Fills arrays with `VALUES` and remembers for which it was asked."""

    def __init__(self) -> None:
        self.asked: list[list[str]] = []

    def __call__(self, lacking: Collection[str], writing: Writing) -> None:
        self.asked.append(list(lacking))
        for name in lacking:
            with writing(name, VALUES.shape, VALUES.dtype) as target:
                target[...] = VALUES


def test_it_makes_each_array_once(tmp_path: Path) -> None:
    maker = Maker()
    for names in (["a"], ["a"], ["b", "a"], ["a", "b"]):
        arrays = Cache(tmp_path).load("key", names, maker)
        assert sorted(arrays) == sorted(names)
        assert all(np.array_equal(array, VALUES) for array in arrays.values())
        assert not any(array.flags.writeable for array in arrays.values())
    assert maker.asked == [["a"], ["b"]]
    Cache(tmp_path).load("other", ["a"], maker)
    assert maker.asked == [["a"], ["b"], ["a"]]


def test_names_from_archives_never_become_paths(tmp_path: Path) -> None:
    names = ["../../escape", "/etc/passwd", "a" * 5000, "nul\0", "\udc80", ""]
    arrays = Cache(tmp_path / "cache").load("key", names, Maker())
    assert sorted(arrays) == sorted(names)
    assert [path.name for path in tmp_path.iterdir()] == ["cache"]


class Damage(NamedTuple):
    suffix: str
    act: Callable[[Path], object]


def _flip(path: Path) -> None:
    with path.open("r+b") as file:
        file.seek(2000)
        file.write(b"\xff")
    os.utime(path, ns=(1, 1))


def _cut(path: Path) -> None:
    status = path.stat()
    os.truncate(path, 1000)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))  # as an interrupted copy may leave it


@pytest.mark.parametrize(
    "damage",
    [
        pytest.param(Damage(".npy", Path.unlink), id="array gone"),
        pytest.param(Damage(".npy", _cut), id="array cut short"),
        pytest.param(Damage(".npy", _flip), id="a byte changed"),
        pytest.param(Damage(".json", Path.unlink), id="half made"),
        pytest.param(Damage(".json", lambda path: path.write_text("")), id="record empty"),
        pytest.param(Damage(".json", lambda path: path.write_text("[1]")), id="record of another kind"),
    ],
)
def test_a_damaged_array_is_made_again(tmp_path: Path, damage: Damage) -> None:
    maker = Maker()
    Cache(tmp_path).load("key", ["a"], maker)
    (path,) = tmp_path.rglob(f"*{damage.suffix}")
    damage.act(path)
    assert np.array_equal(Cache(tmp_path).load("key", ["a"], maker)["a"], VALUES)
    assert maker.asked == [["a"], ["a"]]


def test_a_copied_cache_is_taken_as_it_is(tmp_path: Path) -> None:
    maker = Maker()
    Cache(tmp_path / "old").load("key", ["a"], maker)
    shutil.copytree(tmp_path / "old", tmp_path / "new", copy_function=shutil.copyfile)
    Cache(tmp_path / "new").load("key", ["a"], maker)
    assert maker.asked == [["a"]]


def test_a_failed_make_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    def fail(lacking: Collection[str], writing: Writing) -> None:
        with writing("a", (10,), np.dtype(np.int64)) as target:
            target[:5] = 1
            raise JobFailed("the file ends", code="data_unreadable")

    with pytest.raises(JobFailed, match="the file ends"):
        Cache(tmp_path).load("key", ["a"], fail)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["lock"]
    assert np.array_equal(Cache(tmp_path).load("key", ["a"], Maker())["a"], VALUES)


def test_several_processes_make_it_once(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROCESS, os.fspath(tmp_path)]
    processes = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(4)]
    sums = [int(process.communicate(timeout=60)[0]) for process in processes]
    assert sums == [200_000 * 199_999 // 2] * 4
    assert (tmp_path / "made").read_text().count("made") == 1


def test_several_threads_make_it_once(tmp_path: Path) -> None:
    maker = Maker()
    with ThreadPoolExecutor(4) as threads:
        for future in [threads.submit(Cache(tmp_path).load, "key", ["a"], maker) for _ in range(8)]:
            assert np.array_equal(future.result()["a"], VALUES)
    assert maker.asked == [["a"]]


def test_a_file_that_cannot_grow_names_the_folder(tmp_path: Path) -> None:
    """A page fault on a full disk would end the process with a signal; the room is taken before."""
    command = [sys.executable, "-c", LIMITED, os.fspath(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout.startswith(f"data_cache the data cache in {tmp_path} cannot be used")
    assert not list(tmp_path.rglob("*.tmp"))


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(JobFailed, match=f"{tmp_path}/file cannot be used") as caught:
        Cache(tmp_path / "file").load("key", ["a"], Maker())
    assert caught.value.code == "data_cache"


def test_more_than_the_disk_holds_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    disk = shutil.disk_usage(tmp_path)
    for size_bytes, words, code in (
        (disk.free, "are free", "storage_full"),
        (disk.total, "more than", "data_cache"),
    ):
        with pytest.raises(JobFailed, match=rf"big\.npz takes .* {words}") as caught:
            Cache(tmp_path).check_room("big.npz", size_bytes)
        assert caught.value.code == code
    Cache(tmp_path).check_room("small.npz", 1)


def test_it_remembers(tmp_path: Path) -> None:
    answers = iter(["first", "second"])
    assert Cache(tmp_path).remembered("a", lambda: next(answers)) == "first"
    assert Cache(tmp_path).remembered("a", lambda: next(answers)) == "first"
    assert Cache(tmp_path).remembered("b", lambda: next(answers)) == "second"

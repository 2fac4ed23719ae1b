"""A node's memory-mapped copies of arrays, made once for all its processes.

<folder>/<key>/lock                held while arrays are looked up or made
<folder>/<key>/<name hash>.npy     one array, C order, the machine's byte order
<folder>/<key>/<name hash>.json    its size, modification time and CRC-32; an array without it is half made
<folder>/remembered/<hash>         a text that was expensive to compute: the hash of a server's file
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from workers.data import faults

CHUNK_BYTES = 1 << 22
SPARE_BYTES = 64 << 20
"""Disk that a new array leaves free."""

Writing = Callable[[str, tuple[int, ...], "np.dtype[Any]"], AbstractContextManager[np.ndarray]]
"""(array name, shape, dtype) -> a block in which the writable array is filled."""
Make = Callable[[Collection[str], Writing], None]
"""(names of the arrays to make, how to write one); raises what is wrong with the source."""


class Cache:
    """Arrays below one folder of this node, by key and name. Each key's folder is written by who holds its lock."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load(self, key: str, names: Collection[str], make: Make) -> dict[str, np.ndarray]:
        """The named arrays, mapped read-only; those that are missing or damaged are made first.

        Blocks while another process makes arrays of this key.

        Raises:
            JobFailed: `data_cache` if the folder cannot be written, `storage_full` if it has no room just now; whatever
                `make` raises.
        """
        folder = self.folder / key
        try:
            with _locked(folder):
                lacking = [name for name in sorted(names) if not _is_sound(folder, name)]
                if lacking:
                    make(lacking, partial(_writing, folder))
                return {name: _mapped(folder, name) for name in sorted(names)}
        except OSError as error:
            raise faults.cache(self.folder, error) from error

    def check_room(self, source: str, size_bytes: int) -> None:
        """Raises JobFailed if the disk has no room for so many bytes: `storage_full`; `data_cache` if it never has."""
        try:
            disk = shutil.disk_usage(self.folder)
        except OSError as error:
            raise faults.cache(self.folder, error) from error
        need_bytes = size_bytes + SPARE_BYTES
        if need_bytes > disk.total:
            raise faults.cache(self.folder, f"{source} takes {size_bytes / 1e9:.2f} GB, more than the disk has")
        if need_bytes > disk.free:
            raise faults.cache_full(self.folder, source, need_bytes, disk.free)

    def remembered(self, identity: str, compute: Callable[[], str]) -> str:
        """What `compute` returned when it was first asked for this identity; alone on the node while it computes.

        Raises:
            JobFailed: as `load`; whatever `compute` raises.
        """
        folder = self.folder / "remembered"
        note = folder / hashlib.sha256(identity.encode("utf-8", "surrogateescape")).hexdigest()
        try:
            with _locked(folder):
                if note.exists():
                    return note.read_text()
                text = compute()
                _write_text(note, text)
                return text
        except OSError as error:
            raise faults.cache(self.folder, error) from error


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Alone in the folder among all threads and processes of this node; the system frees the lock of a dead one."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("wb") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _array_path(folder: Path, name: str) -> Path:
    # Names come from users' archives and may hold anything.
    return folder / f"{hashlib.sha256(name.encode('utf-8', 'surrogatepass')).hexdigest()[:32]}.npy"


def _mapped(folder: Path, name: str) -> np.ndarray:
    return np.asarray(np.load(_array_path(folder, name), mmap_mode="r", allow_pickle=False))


@contextmanager
def _writing(folder: Path, name: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Iterator[np.ndarray]:
    """A new array to fill, which takes its name only when the block ends without an error."""
    path = _array_path(folder, name)
    temporary = path.with_suffix(".tmp")  # one name: under the lock there is one writer, and a dead one's is replaced
    path.with_suffix(".json").unlink(missing_ok=True)
    try:
        target = np.lib.format.open_memmap(temporary, mode="w+", dtype=dtype, shape=shape)
        with temporary.open("r+b") as file:
            # A page of a sparse file that finds the disk full kills the process; so take the room before.
            os.posix_fallocate(file.fileno(), 0, temporary.stat().st_size)
            yield target
            target.flush()
            os.fsync(file.fileno())
        temporary.rename(path)
        _write_record(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _write_record(path: Path) -> None:
    status = path.stat()
    record = {"bytes": status.st_size, "mtimeNs": status.st_mtime_ns, "crc32": _crc32(path)}
    _write_text(path.with_suffix(".json"), json.dumps(record))


def _is_sound(folder: Path, name: str) -> bool:
    """Whether an array is whole and as it was written. Its content is read only if someone touched the file since."""
    path = _array_path(folder, name)
    try:
        record = json.loads(path.with_suffix(".json").read_text())
        status = path.stat()
        if status.st_size != record["bytes"]:
            return False
        return bool(status.st_mtime_ns == record["mtimeNs"] or _crc32(path) == record["crc32"])
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _crc32(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            value = zlib.crc32(chunk, value)
    return value


def _write_text(path: Path, text: str) -> None:
    temporary = path.with_suffix(".new")
    temporary.write_text(text)
    temporary.rename(path)

"""The one place where bytes live: a folder or an fsspec URL that every node reaches by the same address.

artifacts/<sha256>                        uploaded files, by content
jobs/<id>/generation                      the newest start of the job's trainer
jobs/<id>/log                             one event per line
jobs/<id>/checkpoints/step-<n>-g<m>/      manifest.json beside tensors; of step n, by the trainer's m-th start
jobs/<id>/export/model.keras, saved_model.tar
jobs/<id>/tensorboard/train, validation     event files, one of each start of the trainer
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import fsspec
from fsspec.implementations.local import LocalFileSystem

from gradwire.byte_size import byte_size

CHUNK_BYTES = 1 << 20
MAX_REMOVALS = 5
"""Of one folder, where another process removes it too, and each stumbles over what the other was faster with."""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})


def is_full(error: OSError) -> bool:
    """Whether the error means that there is no more room."""
    return error.errno in _FULL


class Storage:
    """Files below one URL, by relative name.

    Writers never expose half a file: `writing` gives a temporary name, which is renamed at the end. Any error is an
    `OSError`.
    """

    def __init__(self, url: str) -> None:
        self.url = url
        self._fs, root = fsspec.core.url_to_fs(url)
        self._root = root.rstrip("/")

    @property
    def is_local(self) -> bool:
        """Whether the storage is a folder of this machine's file system."""
        return isinstance(self._fs, LocalFileSystem)

    def _path(self, name: str) -> str:
        parts = name.split("/")
        if not name or any(part in ("", ".", "..") for part in parts):
            raise ValueError(f"not a storage name: {name!r}")
        return f"{self._root}/{name}"

    def local_path(self, name: str) -> Path:
        """The file's path, for libraries that want one; only if `is_local`."""
        if not self.is_local:
            raise OSError(f"{self.url} is no local folder")
        return Path(self._path(name))

    def exists(self, name: str) -> bool:
        return bool(self._fs.exists(self._path(name)))

    def size_bytes(self, name: str) -> int:
        return int(self._fs.size(self._path(name)))

    def names(self, folder: str) -> list[str]:
        """The last parts of the names directly in a folder, sorted; empty where there is none."""
        path = self._path(folder)
        if not self._fs.isdir(path):
            return []
        entries = self._fs.ls(path, detail=False, refresh=True)
        return sorted(str(entry).rstrip("/").rsplit("/", 1)[-1] for entry in entries)

    def read(self, name: str) -> bytes:
        content: bytes = self._fs.cat_file(self._path(name))
        return content

    def chunks(self, name: str) -> Iterator[bytes]:
        """The file's bytes, at most `CHUNK_BYTES` at a time."""
        with self.open(name) as file:
            while chunk := file.read(CHUNK_BYTES):
                yield chunk

    def open(self, name: str) -> IO[Any]:
        """The file, open for reading bytes."""
        file: IO[Any] = self._fs.open(self._path(name), "rb")
        return file

    def write(self, name: str, content: bytes) -> None:
        with self.writing(name) as file:
            file.write(content)

    @contextmanager
    def writing(self, name: str) -> Iterator[IO[Any]]:
        """A file to write, which appears under its name only when the block ends without an error."""
        path = self._path(name)
        temporary = f"{path}.{secrets.token_hex(4)}.tmp"
        self._fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
        try:
            with self._fs.open(temporary, "wb") as file:
                yield file
            self._fs.mv(temporary, path)
        except BaseException:
            if self._fs.exists(temporary):
                self._fs.rm(temporary)
            raise

    def write_over(self, name: str, content: bytes) -> None:
        """Writes over the beginning of a file, which takes no room; only if `is_local`."""
        with self.local_path(name).open("r+b", buffering=0) as file:
            file.write(content)

    @property
    def room(self) -> str:
        """How much is free, for people; empty where the storage does not tell."""
        if not self.is_local:
            return ""
        with contextlib.suppress(OSError):
            return f"{byte_size(shutil.disk_usage(self._root).free)} are free"
        return ""

    def rename(self, old: str, new: str) -> None:
        """Gives a file or folder another name, replacing what had it."""
        self._fs.makedirs(self._path(new).rsplit("/", 1)[0], exist_ok=True)
        if self._fs.isdir(self._path(new)):
            self._fs.rm(self._path(new), recursive=True)
        self._fs.mv(self._path(old), self._path(new), recursive=True)

    def delete(self, name: str) -> None:
        """Removes a file or folder, if it is there; somebody else may remove it at the same time."""
        path = self._path(name)
        for _ in range(MAX_REMOVALS):
            if self._fs.exists(path):
                with contextlib.suppress(FileNotFoundError):
                    self._fs.rm(path, recursive=True)

    def sha256(self, name: str) -> str:
        digest = hashlib.sha256()
        for chunk in self.chunks(name):
            digest.update(chunk)
        return digest.hexdigest()

"""A model's source folder as one zip archive: the same bytes for the same files, and safe to unpack."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from gradwire.errors import InvalidSpec, Violation

MAX_FILES = 10_000
MAX_SOURCE_BYTES = 64 << 20
"""All files of a source folder together."""
MAX_NAME_CHARS = 1024

FIELD = "model.python.source"
EARLIEST = (1980, 1, 1, 0, 0, 0)
"""Zip's first moment: the time of every file, so that archives differ only where files do."""


def pack(folder: Path, target: Path) -> None:
    """Writes the files of a folder to the zip archive `target`: sorted, uncompressed, with fixed times and permissions.

    Leaves out what is no source: names that begin with a dot (.git, .venv, .env), __pycache__, *.pyc and virtual
    environments.
    Raises `InvalidSpec` if nothing is left, for links, unreadable files, and above `MAX_SOURCE_BYTES` or `MAX_FILES`.
    """
    try:
        files = _listed(folder)
        with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
            for path in files:
                entry = zipfile.ZipInfo(path.relative_to(folder).as_posix(), EARLIEST)
                entry.external_attr = (stat.S_IFREG | 0o644) << 16
                entry.create_system = 3
                archive.writestr(entry, path.read_bytes())
    except OSError as error:
        raise _refused(f"{error.filename or folder} cannot be packed: {error.strerror or error}") from error


def unpack(archive: Path, target: Path) -> None:
    """Unpacks a source archive into `target`, which must be new or empty, and has all files or none.

    Raises `InvalidSpec` for what is no zip archive, is damaged, grows above `MAX_SOURCE_BYTES` or `MAX_FILES`, or has
    links, absolute paths or '..' in it; `OSError` if the target is in use or cannot be written.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    fresh = Path(tempfile.mkdtemp(prefix=f".{target.name}.", dir=target.parent))
    try:
        with zipfile.ZipFile(archive) as source:
            for name, entry in _checked(source).items():
                path = fresh / name
                path.parent.mkdir(parents=True, exist_ok=True)
                with source.open(entry) as content, path.open("xb") as file:
                    shutil.copyfileobj(content, file)
        fresh.chmod(0o755)
        fresh.rename(target)
    except (zipfile.BadZipFile, zlib.error, NotImplementedError, EOFError) as error:
        raise _refused(f"{archive.name} is no sound zip archive: {error}") from error
    finally:
        shutil.rmtree(fresh, ignore_errors=True)


def _refused(message: str) -> InvalidSpec:
    return InvalidSpec([Violation(FIELD, message)])


def _listed(folder: Path) -> list[Path]:
    """The source files below a folder, sorted by name."""
    files, size_bytes = [], 0
    for path in _walked(folder):
        files.append(path)
        size_bytes += path.stat().st_size
        if size_bytes > MAX_SOURCE_BYTES or len(files) > MAX_FILES:
            raise _refused(
                f"{folder} has more than {MAX_SOURCE_BYTES >> 20} MiB or {MAX_FILES:,} files; name a folder of "
                "source code alone, and give data as data"
            )
    if not files:
        raise _refused(f"{folder} has no files to send; names that begin with a dot are left out")
    return sorted(files, key=lambda path: path.relative_to(folder).as_posix())


def _walked(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder, onerror=_raise):
        here = Path(parent)
        folders[:] = [name for name in folders if _is_source(name) and not (here / name / "pyvenv.cfg").exists()]
        for name in [*folders, *files]:
            path = here / name
            if not _is_source(name):
                continue
            if path.is_symlink() or (name in files and not path.is_file()):
                raise _refused(f"{path} is a link or no plain file; copy what it stands for into the folder")
            if name in files:
                yield path


def _raise(error: OSError) -> None:
    raise error


def _is_source(name: str) -> bool:
    return not name.startswith(".") and name != "__pycache__" and not name.endswith(".pyc")


def _checked(archive: zipfile.ZipFile) -> dict[PurePosixPath, zipfile.ZipInfo]:
    """The files of an archive and where they go, after a look at all of them."""
    entries = archive.infolist()
    size_bytes = sum(entry.file_size for entry in entries)
    if size_bytes > MAX_SOURCE_BYTES or len(entries) > MAX_FILES:
        raise _refused(f"the archive unpacks to more than {MAX_SOURCE_BYTES >> 20} MiB or {MAX_FILES:,} files")
    seen: set[PurePosixPath] = set()
    for entry in entries:
        if fault := _entry_fault(entry, seen):
            raise _refused(f"the archive's {entry.filename!r} {fault}")
        seen.add(PurePosixPath(entry.filename))
    files = {PurePosixPath(entry.filename): entry for entry in entries if not entry.is_dir()}
    for name in files:
        if any(parent in files for parent in name.parents):
            raise _refused(f"the archive's {str(name)!r} is in a file as if that were a folder")
    return files


def _entry_fault(entry: zipfile.ZipInfo, seen: set[PurePosixPath]) -> str | None:
    name = PurePosixPath(entry.filename)
    kind = stat.S_IFMT(entry.external_attr >> 16)
    if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        return "is a link or no plain file"
    if entry.flag_bits & 0x1 or entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        return "is encrypted, or compressed in another way than deflate"
    if not name.parts or name.is_absolute() or ".." in name.parts or "\\" in entry.filename or ":" in entry.filename:
        return "leaves the folder, or is no portable name"
    if len(entry.filename) > MAX_NAME_CHARS:
        return "has too long a name"
    return "is in it twice" if name in seen else None

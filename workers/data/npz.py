"""NumPy archives (.npz): equally long arrays, one .npy file each in a zip file.

Rows of several lengths are two of them: NAME has the values of all rows, NAME.lengths how many each row has.
The format: https://numpy.org/doc/stable/reference/generated/numpy.lib.format.html. Nothing is ever unpickled.
"""

from __future__ import annotations

import json
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

import numpy as np

from gradwire.ragged_rows import LENGTHS, Ragged
from workers.data import faults
from workers.data.cache import Cache, Writing
from workers.data.source import ArraySource, Rows, common_rows

BLOCK_BYTES = 1 << 22
MAX_ARRAYS_BYTES = 1 << 40
"""Of the needed arrays of one archive, uncompressed."""

AGAIN = "write it again with numpy.savez and submit the job again"
_NUMERIC_KINDS = "biuf"
_MAX_ITEM_BYTES = 8
_READ_ERRORS = (
    OSError,
    EOFError,
    ValueError,
    RuntimeError,  # an encrypted member, or, as NotImplementedError, an unknown compression
    struct.error,
    zlib.error,
    lzma.LZMAError,
    zipfile.BadZipFile,
    zipfile.LargeZipFile,
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Archive:
    """A .npz file: what messages call it, the SHA-256 of its content, and how to open it for reading bytes."""

    name: str
    sha256: str
    open: Callable[[], IO[bytes]]
    check_unchanged: Callable[[], object] = lambda: None
    """Raises JobFailed if the file is no longer the one of the hash; called before what was read is kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """One array of an archive, by its header."""

    name: str
    info: zipfile.ZipInfo
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    is_fortran: bool
    """Whether the first index varies fastest in the file."""
    header_bytes: int

    @property
    def size_bytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


def open_npz(archive: Archive, cache: Cache, needed: Collection[str]) -> ArraySource:
    """The needed arrays of an archive, through the cache, in the dtypes of the file.

    Raises:
        JobFailed: `data_missing`, `data_unreadable`, `data_unknown_array`, `data_shape`, `data_dtype`,
            `data_nonfinite`, `data_cache`; the message names file and array, and the row and column where there is one.
    """

    def names() -> str:
        with _opened(archive) as file:
            found = json.dumps(sorted(_known(file)))
        archive.check_unchanged()
        return found

    known = set(json.loads(cache.remembered(f"npz-names-{archive.sha256}", names)))
    ragged = {name for name in needed if f"{name}{LENGTHS}" in known}
    lengths = {f"{name}{LENGTHS}" for name in ragged}

    def make(lacking: Collection[str], writing: Writing) -> None:
        with _opened(archive) as file:
            members = {name: _member(archive.name, file, name) for name in sorted({*needed, *lengths})}
            # An array with lengths has as many rows as they are.
            by_row = {name: member.shape for name, member in members.items() if name not in ragged}
            common_rows(archive.name, by_row)
            wanted = [members[name] for name in lacking]
            _check_size(archive.name, wanted, cache)
            for member in wanted:
                with writing(member.name, member.shape, member.dtype.newbyteorder("=")) as target:
                    _copy(archive.name, file, member, target)
                    _check_finite(archive.name, member.name, target)
                    archive.check_unchanged()

    arrays = cache.load(f"npz-{archive.sha256}", {*needed, *lengths}, make)
    rows: dict[str, Rows] = {
        name: _joined(archive.name, name, arrays[name], arrays[f"{name}{LENGTHS}"]) if name in ragged else arrays[name]
        for name in needed
    }
    return ArraySource(archive.name, rows)


def _joined(source: str, name: str, values: np.ndarray, lengths: np.ndarray) -> Ragged:
    """A ragged array of its two parts, checked against each other."""
    where = f"{source}: array {name + LENGTHS!r}"
    if lengths.ndim != 1 or lengths.dtype.kind not in "iu" or values.ndim == 0:
        raise faults.wrong_shape(
            f"{where} has shape {lengths.shape} and dtype {lengths.dtype}; give one whole number a row"
        )
    is_wrong = (lengths < 0) | (lengths > len(values))
    if is_wrong.any():
        at = int(is_wrong.argmax())
        raise faults.wrong_shape(
            f"{where} is {lengths[at]} in row {at} (counted from 0), of {len(values)} values in all"
        )
    if int(lengths.sum()) != len(values):
        raise faults.wrong_shape(
            f"{where} adds up to {int(lengths.sum())}, but array {name!r} has {len(values)} values"
        )
    return Ragged.joined(values, lengths)


@contextmanager
def _reading(where: str) -> Iterator[None]:
    """Turns every error of reading a foreign file into one that names it."""
    try:
        yield
    except FileNotFoundError as error:
        raise faults.missing(f"{where} is not in the server's storage; submit the job again") from error
    except _READ_ERRORS as error:
        problem = getattr(error, "strerror", None) or str(error) or type(error).__name__
        raise faults.unreadable(
            f"{where} cannot be read ({problem}); it may be cut short or damaged: {AGAIN}"
        ) from error


@contextmanager
def _opened(archive: Archive) -> Iterator[zipfile.ZipFile]:
    with _reading(archive.name):
        content = archive.open()
    with content:
        with _reading(archive.name):
            start = content.read(6)
            content.seek(0)
        if not start:
            raise faults.unreadable(f"{archive.name} is an empty file; {AGAIN}")
        if start == b"\x93NUMPY":
            raise faults.unreadable(f"{archive.name} is one .npy array; give it a name: numpy.savez(FILE, name=array)")
        with _reading(archive.name):
            file = zipfile.ZipFile(content)
        with file:
            yield file


def _member(source: str, file: zipfile.ZipFile, name: str) -> Member:
    """An array's header, checked against what we take and against the member's size."""
    known = _known(file)
    if name not in known:
        raise faults.unknown_array(source, [name], known)
    where = f"{source}: array {name!r}"
    with _reading(where), file.open(known[name]) as stream:
        shape, is_fortran, dtype = _header(stream)
        header_bytes = stream.tell()
        if min(shape, default=0) < 0:
            raise ValueError(f"shape {shape}")
    if dtype.kind not in _NUMERIC_KINDS or dtype.itemsize > _MAX_ITEM_BYTES:
        raise faults.wrong_dtype(f"{where} {_not_numbers(dtype)}; save integers, booleans or floats of up to 64 bits")
    member = Member(
        name=name, info=known[name], shape=shape, dtype=dtype, is_fortran=is_fortran, header_bytes=header_bytes
    )
    holds = known[name].file_size - header_bytes
    if holds != member.size_bytes:
        raise faults.unreadable(
            f"{where} has shape {shape} and dtype {dtype}, which are {member.size_bytes} bytes, "
            f"but {holds} are there; {AGAIN}"
        )
    return member


def _known(file: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    return {info.filename.removesuffix(".npy"): info for info in file.infolist() if info.filename.endswith(".npy")}


def _header(stream: IO[bytes]) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        return np.lib.format.read_array_header_1_0(stream)
    if version == (2, 0):
        return np.lib.format.read_array_header_2_0(stream)
    raise ValueError(f"format version {version} is for named fields, which are no numbers")


def _not_numbers(dtype: np.dtype[Any]) -> str:
    if dtype.hasobject:
        return "holds Python objects, which are never loaded"
    if dtype.kind in "US":
        return f"holds text (dtype {dtype})"
    return f"has dtype {dtype}"


def _check_size(source: str, members: Collection[Member], cache: Cache) -> None:
    total = sum(member.size_bytes for member in members)
    if total > MAX_ARRAYS_BYTES:
        limit = MAX_ARRAYS_BYTES / 1e9
        raise faults.unreadable(f"{source} unpacks to {total / 1e9:.0f} GB, more than the limit of {limit:.0f} GB")
    cache.check_room(source, total)


def _copy(source: str, file: zipfile.ZipFile, member: Member, target: np.ndarray) -> None:
    """Fills the target block by block; zipfile compares the CRC when the last byte is read."""
    # In the order of the file; blocks are of elements, since one row may be larger than memory.
    elements = target.T.flat if member.is_fortran else target.reshape(-1)
    step = BLOCK_BYTES // member.dtype.itemsize
    with _reading(f"{source}: array {member.name!r}"), file.open(member.info) as stream:
        _read_exactly(stream, member.header_bytes)
        for start in range(0, target.size, step):
            stop = min(start + step, target.size)
            elements[start:stop] = np.frombuffer(
                _read_exactly(stream, (stop - start) * member.dtype.itemsize), member.dtype
            )


def _read_exactly(stream: IO[bytes], size: int) -> bytes:
    content = stream.read(size)
    if len(content) < size:
        raise EOFError("it ends too early")
    return content


def _check_finite(source: str, name: str, array: np.ndarray) -> None:
    """Raises JobFailed (`data_nonfinite`) with the row and column of the first value that is no finite number."""
    if array.dtype.kind != "f":
        return
    elements = array.reshape(-1)
    for start in range(0, array.size, BLOCK_BYTES):
        is_finite = np.isfinite(elements[start : start + BLOCK_BYTES])
        if not is_finite.all():
            first = start + int(is_finite.argmin())
            row, *column = (int(index) for index in np.unravel_index(first, array.shape))
            place = f"row {row}" + (f", column {', '.join(map(str, column))}" if column else "")
            raise faults.nonfinite(
                f"{source}: array {name!r} has {elements[first]} in {place} (counted from 0); "
                "remove or replace such values"
            )

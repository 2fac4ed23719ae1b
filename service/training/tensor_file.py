"""One safetensors file, written and read as a stream that is hashed on the way.

The format is safetensors' own (https://huggingface.co/docs/safetensors): eight bytes of header length, a JSON header,
the tensors' bytes without gaps. The library wants a local path, or the whole file a second time in memory, and its
NumPy reader does not know bfloat16; checkpoints need neither limit, and hashes in the same pass.

Each tensor has a hash, the SHA-256 of its bytes. The file's digest is the SHA-256 of the header, length included, and
the tensors' hashes as 32 bytes each, in the order of their bytes: it covers every byte, and no byte is hashed twice.
"""

from __future__ import annotations

import hashlib
import json
import math
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import IO, Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

CHUNK_BYTES = 1 << 22
MAX_HEADER_BYTES = 100_000_000
"""safetensors' own bound."""

Array = npt.NDArray[Any]

DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype(np.bool_),
    "U8": np.dtype(np.uint8),
    "I8": np.dtype(np.int8),
    "U16": np.dtype(np.uint16),
    "I16": np.dtype(np.int16),
    "U32": np.dtype(np.uint32),
    "I32": np.dtype(np.int32),
    "U64": np.dtype(np.uint64),
    "I64": np.dtype(np.int64),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "F8_E4M3": np.dtype(ml_dtypes.float8_e4m3fn),
    "F8_E5M2": np.dtype(ml_dtypes.float8_e5m2),
    "F32": np.dtype(np.float32),
    "F64": np.dtype(np.float64),
    "C64": np.dtype(np.complex64),
}
"""safetensors' names of data types."""

_CODES = {dtype.name: code for code, dtype in DTYPES.items()}


class DamagedFile(ValueError):
    """The bytes are not a safetensors file."""


@dataclass(frozen=True, slots=True, kw_only=True)
class FileHash:
    """What a stream of one file found: its size, its digest, and every tensor's SHA-256, in hexadecimal."""

    size_bytes: int
    digest: str
    tensors: Mapping[str, str]


def little_endian_bytes(array: Array) -> memoryview:
    """The array's values as little-endian bytes in C order; a view where the array is already so."""
    ordered = np.asarray(array, order="C")
    is_big = ordered.dtype.byteorder == ">" or (ordered.dtype.byteorder == "=" and sys.byteorder == "big")
    if is_big:
        ordered = ordered.byteswap()
    return _bytes_of(ordered)


def write_tensors(file: IO[bytes], tensors: Mapping[str, Array]) -> FileHash:
    """Writes the tensors in the order given; any shape, the data types of `DTYPES`.

    Raises `TypeError` for another data type, `ValueError` for the name that the format keeps for itself.
    """
    header = _header(tensors)
    file.write(header)
    size_bytes = len(header)
    hashes = {}
    for name, array in tensors.items():
        content = little_endian_bytes(array)
        own = hashlib.sha256()
        for start in range(0, len(content), CHUNK_BYTES):
            chunk = content[start : start + CHUNK_BYTES]
            file.write(chunk)
            own.update(chunk)
        size_bytes += len(content)
        hashes[name] = own.hexdigest()
    return FileHash(size_bytes=size_bytes, digest=_digest(header, hashes), tensors=hashes)


def read_tensors(file: IO[bytes], size_bytes: int) -> tuple[dict[str, Array], FileHash]:
    """Reads a file of that many bytes into new, writable arrays in the machine's byte order.

    Raises `DamagedFile`, before any memory is taken, when the header does not describe exactly that many bytes.
    """
    prefix, places = _read_header(file, size_bytes)
    arrays = {}
    hashes = {}
    for name, (dtype, shape) in places.items():
        array = np.empty(shape, dtype)
        hashes[name] = _fill(file, array)
        arrays[name] = array.byteswap() if sys.byteorder == "big" else array
    return arrays, FileHash(size_bytes=size_bytes, digest=_digest(prefix, hashes), tensors=hashes)


def dtype_code(name: str, array: Array) -> str:
    """safetensors' name of the array's data type; raises `TypeError` where it has none."""
    code = _CODES.get(array.dtype.name)
    if code is None:
        raise TypeError(f"tensor {name}: dtype {array.dtype} cannot be stored; cast it to one of {sorted(_CODES)}")
    return code


def _digest(header: bytes, hashes: Mapping[str, str]) -> str:
    digest = hashlib.sha256(header)
    for own in hashes.values():
        digest.update(bytes.fromhex(own))
    return digest.hexdigest()


def _header(tensors: Mapping[str, Array]) -> bytes:
    entries: dict[str, Any] = {}
    offset = 0
    for name, array in tensors.items():
        if name == "__metadata__":
            raise ValueError("the tensor name __metadata__ belongs to the safetensors format; take another")
        end = offset + array.nbytes
        entries[name] = {"dtype": dtype_code(name, array), "shape": list(array.shape), "data_offsets": [offset, end]}
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # the format asks for data that start on eight bytes
    return len(text).to_bytes(8, "little") + text


def _read_header(file: IO[bytes], size_bytes: int) -> tuple[bytes, dict[str, tuple[np.dtype[Any], tuple[int, ...]]]]:
    """The file's first bytes, and each tensor's data type and shape in the order of their bytes."""
    length = file.read(8)
    count = int.from_bytes(length, "little")
    if len(length) < 8 or count > min(MAX_HEADER_BYTES, size_bytes - 8):
        raise DamagedFile(f"header of {count} bytes in a file of {size_bytes}")
    text = file.read(count)
    try:
        entries = json.loads(text)
        entries.pop("__metadata__", None)
        ordered = sorted(entries.items(), key=lambda item: item[1]["data_offsets"])
        places = {str(name): _place(entry) for name, entry in ordered}
        offsets = [tuple(entry["data_offsets"]) for _, entry in ordered]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise DamagedFile(f"header cannot be read: {error!r}") from error
    _check_offsets(list(places.items()), offsets, size_bytes - 8 - count)
    return length + text, places


def _place(entry: dict[str, Any]) -> tuple[np.dtype[Any], tuple[int, ...]]:
    return DTYPES[entry["dtype"]], tuple(int(size) for size in entry["shape"])


def _check_offsets(
    places: list[tuple[str, tuple[np.dtype[Any], tuple[int, ...]]]], offsets: list[tuple[int, ...]], data_bytes: int
) -> None:
    position = 0
    for (name, (dtype, shape)), span in zip(places, offsets, strict=True):
        end = position + dtype.itemsize * math.prod(shape)
        if span != (position, end) or any(size < 0 for size in shape):
            raise DamagedFile(f"tensor {name} of shape {shape} and dtype {dtype} lies at {span}, not {(position, end)}")
        position = end
    if position != data_bytes:
        raise DamagedFile(f"tensors of {position} bytes in a file that holds {data_bytes}")


def _bytes_of(array: Array) -> memoryview:
    """The memory of an array in C order."""
    # bfloat16 does not export a buffer of its own, and memoryview cannot cast an empty one.
    return array.reshape(-1).view(np.uint8).data


def _fill(file: IO[bytes], array: Array) -> str:
    """Reads the array's bytes into it; gives their SHA-256."""
    content = _bytes_of(array)
    own = hashlib.sha256()
    start = 0
    while start < len(content):
        count = file.readinto(content[start : start + CHUNK_BYTES])  # type: ignore[attr-defined]
        if not count:
            raise DamagedFile(f"file ends {len(content) - start} bytes early")
        own.update(content[start : start + count])
        start += count
    return own.hexdigest()

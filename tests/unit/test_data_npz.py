"""What a NumPy archive may hold, and what is said of one that is wrong."""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gradwire.errors import JobFailed
from workers.data import npz
from workers.data.cache import Cache
from workers.data.npz import Archive, open_npz
from workers.data.source import ArraySource

Open = Callable[..., ArraySource]


@pytest.fixture
def opened(tmp_path: Path) -> Open:
    """Opens bytes, or saved arrays, as an archive named data.npz."""

    def open_(content: bytes | dict[str, Any], *needed: str) -> ArraySource:
        file = content if isinstance(content, bytes) else saved(**content)
        archive = Archive(name="data.npz", sha256="0" * 64, open=lambda: io.BytesIO(file))
        return open_npz(archive, Cache(tmp_path), needed)

    return open_


def saved(save: Callable[..., None] = np.savez, **arrays: Any) -> bytes:
    buffer = io.BytesIO()
    save(buffer, **arrays)
    return buffer.getvalue()


def header(shape: str, descr: str = "<f4") -> bytes:
    text = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}".encode().ljust(117) + b"\n"
    return b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text


def zipped(**members: bytes) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as file:
        for name, content in members.items():
            file.writestr(f"{name}.npy", content)
    return buffer.getvalue()


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", "u1", "i2", "i4", "i8", "u8", "?", ">f4", ">i8"])
def test_any_rows_of_any_numbers(
    opened: Open, monkeypatch: pytest.MonkeyPatch, save: Callable[..., None], dtype: str
) -> None:
    monkeypatch.setattr(npz, "BLOCK_BYTES", 256)  # so that arrays are of many blocks
    random = np.random.default_rng(0)
    wide = random.integers(0, 2, (50, 3, 4)).astype(dtype)
    arrays = {"c": wide, "fortran": np.asfortranarray(wide), "flat": wide[:, 0, 0].copy(), "other/ä": wide}
    source = opened(saved(save, **arrays), *arrays)
    ids = np.array([49, 0, 7, 7], np.int64)
    for name, rows in source.take(ids).items():
        assert np.array_equal(rows, arrays[name][ids])
        assert rows.dtype == np.dtype(dtype).newbyteorder("=") == source.arrays[name].dtype
        assert rows.flags.c_contiguous
        assert rows.flags.writeable
        assert source.arrays[name].shape == arrays[name].shape[1:]
    assert source.rows == 50


def test_only_needed_arrays_are_read(opened: Open) -> None:
    arrays = {"x": np.zeros((4, 2)), "text": np.array(["a"]), "objects": np.array([{}], dtype=object)}
    source = opened(arrays, "x")
    assert list(source.arrays) == ["x"]
    assert list(source.take(np.arange(2), ["x"])) == ["x"]


NAN_LATE = np.zeros((1000, 5), np.float32)
NAN_LATE[700, 3] = NAN_LATE[900, 0] = np.nan
INFINITE = np.array([0.0, np.inf, np.nan])


@pytest.mark.parametrize(
    ("arrays", "code", "said"),
    [
        ({"x": np.zeros(3), "y": np.zeros(4)}, "data_shape", ["'x' has 3", "'y' has 4"]),
        ({"x": np.zeros((0, 2)), "y": np.zeros(0)}, "data_shape", ["'x' is empty", "(0, 2)"]),
        ({"x": np.zeros((3, 0)), "y": np.zeros(3)}, "data_shape", ["'x' is empty", "(3, 0)"]),
        ({"x": np.float32(1), "y": np.zeros(3)}, "data_shape", ["'x' is a single number"]),
        ({"x": np.array(["a", "b"]), "y": np.zeros(2)}, "data_dtype", ["'x' holds text", "<U1"]),
        ({"x": np.array([{}, 1], dtype=object), "y": np.zeros(2)}, "data_dtype", ["'x' holds Python objects"]),
        ({"x": np.zeros(2, np.complex64), "y": np.zeros(2)}, "data_dtype", ["'x' has dtype complex64"]),
        ({"x": np.zeros(2, "M8[s]"), "y": np.zeros(2)}, "data_dtype", ["datetime64"]),
        ({"x": np.zeros(2, [("a", "f4")]), "y": np.zeros(2)}, "data_dtype", ["'x' has dtype"]),
        ({"x": NAN_LATE, "y": np.zeros(1000)}, "data_nonfinite", ["'x' has nan in row 700, column 3 "]),
        ({"x": np.asfortranarray(NAN_LATE), "y": np.zeros(1000)}, "data_nonfinite", ["row 700, column 3 "]),
        ({"x": NAN_LATE.reshape(1000, 5, 1), "y": np.zeros(1000)}, "data_nonfinite", ["row 700, column 3, 0 "]),
        ({"x": INFINITE, "y": np.zeros(3)}, "data_nonfinite", ["'x' has inf in row 1 "]),
        ({"xs": np.zeros(2), "y": np.zeros(2)}, "data_unknown_array", ["no array 'x'", "mean 'xs'", "'xs', 'y'"]),
        ({"q": np.zeros(2), "y": np.zeros(2)}, "data_unknown_array", ["no array 'x'; it has 'q', 'y'"]),
        ({}, "data_unknown_array", ["it has no arrays"]),
    ],
    ids=lambda value: "" if isinstance(value, dict) else None,
)
def test_wrong_arrays_are_named(opened: Open, arrays: dict[str, Any], code: str, said: list[str]) -> None:
    with pytest.raises(JobFailed) as caught:
        opened(arrays, "x", "y")
    assert caught.value.code == code
    assert caught.value.message.startswith("data.npz")
    for part in said:
        assert part in caught.value.message


WHOLE = saved(x=np.arange(5000, dtype=np.float64))
AT = WHOLE.index(np.arange(1000, 1010, dtype=np.float64).tobytes())


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"", "empty file"),
        (b"PK\x03\x04", "cut short"),
        (b"rows of text, not an archive", "cut short"),
        (WHOLE[: len(WHOLE) // 2], "cut short"),
        (WHOLE[:-5], "cut short"),
        (WHOLE[:AT] + b"\x01\x02\x03" + WHOLE[AT + 3 :], "array 'x' cannot be read (Bad CRC-32"),
        (header("(5,)") + bytes(20), "one .npy array"),
        (zipped(x=b"no header at all"), "array 'x' cannot be read"),
        (zipped(x=header("(5,)") + bytes(16)), "shape (5,) and dtype float32, which are 20 bytes, but 16 are there"),
        (zipped(x=header("(5,)") + bytes(24)), "but 24 are there"),
        (zipped(x=header("(1000000000000,)")), "but 0 are there"),
        (zipped(x=header("(-2, -3)") + bytes(24)), "shape (-2, -3)"),
        (zipped(x=header("(5,)", descr="nonsense") + bytes(20)), "array 'x' cannot be read"),
        (zipped(x=b"\x93NUMPY\x03\x00" + header("(1,)")[8:]), "version (3, 0)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_damaged_files_are_named(opened: Open, tmp_path: Path, content: bytes, said: str) -> None:
    with pytest.raises(JobFailed) as caught:
        opened(content, "x")
    assert caught.value.code == "data_unreadable"
    assert caught.value.message.startswith("data.npz")
    assert said in caught.value.message
    assert not list(tmp_path.rglob("*.npy"))
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_content_is_compared_with_its_checksum(opened: Open, save: Callable[..., None]) -> None:
    content = bytearray(saved(save, x=np.arange(5000)))
    content[content.index(b"PK\x01\x02") + 16] ^= 1  # the CRC-32 in the archive's directory
    with pytest.raises(JobFailed, match=r"array 'x' cannot be read \(Bad CRC-32"):
        opened(bytes(content), "x")


def test_a_file_that_changes_while_it_is_read_is_not_kept(tmp_path: Path) -> None:
    def changed() -> None:
        raise JobFailed("changed while it was read")

    archive = Archive(name="a", sha256="0" * 64, open=lambda: io.BytesIO(WHOLE), check_unchanged=changed)
    with pytest.raises(JobFailed, match="changed while it was read"):
        open_npz(archive, Cache(tmp_path), ["x"])
    assert not list(tmp_path.rglob("*.npy"))


def test_unequal_lengths_are_found_before_anything_is_written(opened: Open, tmp_path: Path) -> None:
    with pytest.raises(JobFailed, match="equally many rows"):
        opened({"x": np.zeros(3), "y": np.zeros(4)}, "x", "y")
    assert not list(tmp_path.rglob("*.npy"))


def test_an_encrypted_archive_is_named(opened: Open) -> None:
    content = bytearray(zipped(x=header("(5,)") + bytes(20)))
    content[6] |= 1  # the flag in the member's own header,
    content[content.index(b"PK\x01\x02") + 8] |= 1  # and in the directory
    with pytest.raises(JobFailed, match="encrypted"):
        opened(bytes(content), "x")


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    archive = Archive(name="gone.npz", sha256="0" * 64, open=lambda: (tmp_path / "gone").open("rb"))
    with pytest.raises(JobFailed, match=r"gone\.npz is not in the server's storage") as caught:
        open_npz(archive, Cache(tmp_path), ["x"])
    assert caught.value.code == "data_missing"


def test_what_unpacks_to_more_than_the_limit_is_refused(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    bomb = saved(np.savez_compressed, x=np.zeros(10**6))
    monkeypatch.setattr(npz, "MAX_ARRAYS_BYTES", 10**6)
    with pytest.raises(JobFailed, match="more than the limit"):
        opened(bomb, "x")


def test_unequal_lengths_are_found_even_if_each_array_is_cached(opened: Open) -> None:
    content = saved(x=np.zeros(3), y=np.zeros(4))
    opened(content, "x")
    opened(content, "y")
    with pytest.raises(JobFailed, match="equally many rows"):
        opened(content, "x", "y")

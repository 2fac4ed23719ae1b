"""Source folders as archives: equal bytes for equal files, and nothing outside of the target."""

from __future__ import annotations

import os
import stat
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from gradwire import packing
from gradwire.errors import InvalidSpec
from gradwire.packing import pack, unpack


def source(folder: Path) -> Path:
    (folder / "net" / "parts").mkdir(parents=True)
    (folder / "net" / "__init__.py").write_text("")
    (folder / "net" / "parts" / "block.py").write_text("x = 1\n")
    (folder / "a.py").write_bytes(b"y = 2\r\n")
    return folder


def files(folder: Path) -> dict[str, bytes]:
    return {
        path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()
    }


def test_what_is_packed_is_unpacked(tmp_path: Path) -> None:
    folder = source(tmp_path / "source")
    pack(folder, tmp_path / "source.zip")
    unpack(tmp_path / "source.zip", tmp_path / "new" / "target")
    assert files(tmp_path / "new" / "target") == files(folder)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["target"]


def test_equal_files_make_equal_archives(tmp_path: Path) -> None:
    one, other = source(tmp_path / "one"), source(tmp_path / "other")
    os.utime(other / "a.py", (1, 1))
    (other / "a.py").chmod(0o700)
    pack(one, tmp_path / "one.zip")
    pack(other, tmp_path / "other.zip")
    assert (tmp_path / "one.zip").read_bytes() == (tmp_path / "other.zip").read_bytes()


def test_what_is_no_source_is_left_out(tmp_path: Path) -> None:
    folder = source(tmp_path / "source")
    sound = files(folder)
    for name in (".git", "__pycache__", ".venv", "env"):
        (folder / name).mkdir()
        (folder / name / "file").write_text("no")
    (folder / "env" / "pyvenv.cfg").write_text("")
    (folder / ".env").write_text("PASSWORD=1")
    (folder / "a.pyc").write_text("no")
    pack(folder, tmp_path / "source.zip")
    unpack(tmp_path / "source.zip", tmp_path / "target")
    assert files(tmp_path / "target") == sound


@pytest.mark.parametrize("target", ["a.py", "net", "gone"])
def test_links_are_refused(tmp_path: Path, target: str) -> None:
    folder = source(tmp_path / "source")
    (folder / "link").symlink_to(folder / target)
    with pytest.raises(InvalidSpec, match="link is a link"):
        pack(folder, tmp_path / "source.zip")


def test_a_large_and_an_empty_and_a_missing_folder_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = source(tmp_path / "source")
    monkeypatch.setattr(packing, "MAX_SOURCE_BYTES", 8)
    with pytest.raises(InvalidSpec, match="give data as data"):
        pack(folder, tmp_path / "source.zip")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidSpec, match="has no files"):
        pack(tmp_path / "empty", tmp_path / "source.zip")
    with pytest.raises(InvalidSpec, match="gone cannot be packed"):
        pack(tmp_path / "gone", tmp_path / "source.zip")


def link(archive: zipfile.ZipFile) -> None:
    entry = zipfile.ZipInfo("link")
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
    archive.writestr(entry, "/etc/passwd")


def named(*names: str) -> Callable[[zipfile.ZipFile], None]:
    def write(archive: zipfile.ZipFile) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of zipfile, about a name that is there twice
            for name in names:
                archive.writestr(name, "x")

    return write


@pytest.mark.parametrize(
    ("write", "says"),
    [
        (link, "'link' is a link"),
        (named("/abs.py"), "leaves the folder"),
        (named("a/../../b.py"), "leaves the folder"),
        (named("..\\b.py"), "leaves the folder"),
        (named("C:b.py"), "leaves the folder"),
        (named("a.py", "a.py"), "is in it twice"),
        (named("a", "a/b"), "'a/b' is in a file"),
        (named("n" * 2000), "too long a name"),
        (lambda archive: archive.writestr("a", b"x", zipfile.ZIP_LZMA), "in another way than deflate"),
        (lambda archive: archive.writestr("a", bytes(packing.MAX_SOURCE_BYTES + 1), zipfile.ZIP_DEFLATED), "64 MiB"),
    ],
)
def test_a_hostile_archive_leaves_nothing(tmp_path: Path, write: Callable[[zipfile.ZipFile], None], says: str) -> None:
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "source.zip", "w") as archive:
        write(archive)
    with pytest.raises(InvalidSpec) as caught:
        unpack(tmp_path / "in" / "source.zip", tmp_path / "out" / "target")
    assert says in caught.value.violations[0].description
    assert list((tmp_path / "out").iterdir()) == []


def test_a_size_that_lies_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "source.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("zeros", bytes(100_000))
    lying = path.read_bytes().replace((100_000).to_bytes(4, "little"), (10).to_bytes(4, "little"))
    path.write_bytes(lying)
    with pytest.raises(InvalidSpec, match="no sound zip archive"):
        unpack(path, tmp_path / "target")
    assert not (tmp_path / "target").exists()


@pytest.mark.parametrize("cut", [0, 10, 100])
def test_a_damaged_archive_is_named(tmp_path: Path, cut: int) -> None:
    folder = source(tmp_path / "source")
    path = tmp_path / "source.zip"
    pack(folder, path)
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(InvalidSpec, match=r"source\.zip is no sound zip archive"):
        unpack(path, tmp_path / "target")


def test_a_flipped_bit_is_noticed(tmp_path: Path) -> None:
    path = tmp_path / "source.zip"
    pack(source(tmp_path / "source"), path)
    path.write_bytes(path.read_bytes().replace(b"x = 1", b"x = 3"))
    with pytest.raises(InvalidSpec, match="no sound zip archive"):
        unpack(path, tmp_path / "target")


def test_a_target_in_use_is_left_alone(tmp_path: Path) -> None:
    pack(source(tmp_path / "source"), tmp_path / "source.zip")
    (tmp_path / "target").mkdir()
    unpack(tmp_path / "source.zip", tmp_path / "target")
    before = files(tmp_path / "target")
    with pytest.raises(OSError, match="not empty"):
        unpack(tmp_path / "source.zip", tmp_path / "target")
    assert files(tmp_path / "target") == before

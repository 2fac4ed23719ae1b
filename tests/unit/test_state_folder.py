"""The state folder: one service at a time, one id for ever."""

from __future__ import annotations

import json
import os
import time
from pathlib import Path

import pytest

from service.config import WrongSetting
from service.segments import FRESH_S, hold_segments, remove_segments, sweep_segments
from service.state_folder import StateFolder


def test_two_services_never_share_one(tmp_path: Path) -> None:
    first = StateFolder(tmp_path)
    first.announce({"pid": 7, "listen": "127.0.0.1:1"})
    with pytest.raises(WrongSetting, match=r"--state: .* in use by another service \(process 7 at 127.0.0.1:1\)"):
        StateFolder(tmp_path)
    first.close()
    second = StateFolder(tmp_path)
    assert second.service_id == first.service_id and len(first.service_id) == 8
    second.close()


def test_server_json_is_there_as_long_as_the_service(tmp_path: Path) -> None:
    folder = StateFolder(tmp_path)
    folder.announce({"listen": "127.0.0.1:1"})
    assert json.loads((tmp_path / "server.json").read_text()) == {"listen": "127.0.0.1:1"}
    folder.close()
    assert not (tmp_path / "server.json").exists()


def test_a_damaged_id_is_refused(tmp_path: Path) -> None:
    (tmp_path / "service_id").write_text("*")
    with pytest.raises(WrongSetting, match="does not hold 8 hexadecimal digits"):
        StateFolder(tmp_path)


@pytest.mark.parametrize("name", ["lock", "service_id"])
def test_a_file_that_cannot_be_written_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / name).mkdir()  # the tests may run as root, for whom no file is read-only
    with pytest.raises(WrongSetting, match=rf"^--state: .*{name}.* cannot be used: .*; give the folder"):
        StateFolder(tmp_path)


def test_only_the_named_segments_go(tmp_path: Path) -> None:
    for name in ("gradwire-aa-job1-1", "gradwire-aa-job1-2", "gradwire-aa-job2-1", "gradwire-bb-job1-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "weights").write_bytes(b"x")
    remove_segments("aa", "job1", 1, root=tmp_path)
    assert len(list(tmp_path.iterdir())) == 3
    remove_segments("aa", root=tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["gradwire-bb-job1-1"]


def test_only_the_segments_of_nobody_are_swept(tmp_path: Path) -> None:
    for name in ("gradwire-aa-job1-1", "gradwire-aa-job2-1", "gradwire-aa-job3-1", "gradwire-bb-job1-1"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "control").write_bytes(b"")
    long_ago = time.time() - FRESH_S
    for name in ("gradwire-aa-job1-1", "gradwire-aa-job2-1", "gradwire-bb-job1-1"):
        os.utime(tmp_path / name, (long_ago, long_ago))
    held = hold_segments(tmp_path / "gradwire-aa-job1-1")
    try:
        sweep_segments("aa", root=tmp_path)
        left = {path.name for path in tmp_path.iterdir()}
        assert left == {"gradwire-aa-job1-1", "gradwire-aa-job3-1", "gradwire-bb-job1-1"}, "held, new, another's"
    finally:
        os.close(held)
    sweep_segments("aa", root=tmp_path)
    assert not (tmp_path / "gradwire-aa-job1-1").exists()

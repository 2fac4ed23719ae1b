"""The Ray token: its file, and where it is looked for."""

from __future__ import annotations

from pathlib import Path

import pytest

from gradwire.errors import GradwireError
from service import ray_token


def test_the_file_is_private_and_kept(tmp_path: Path) -> None:
    path = ray_token.own_token(tmp_path / "state")
    token = path.read_text()
    assert path.stat().st_mode & 0o777 == 0o600
    assert len(bytes.fromhex(token)) == 32
    assert ray_token.own_token(tmp_path / "state").read_text() == token
    assert [entry.name for entry in path.parent.iterdir()] == ["ray_token"]


def test_two_services_have_two_tokens(tmp_path: Path) -> None:
    first, second = (ray_token.own_token(tmp_path / name).read_text() for name in "ab")
    assert first != second


def test_a_lost_race_reads_the_winners_token(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    winner = ray_token.own_token(tmp_path).read_text()
    seen = iter([False])
    exists = Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: next(seen, exists(path)))
    assert ray_token.own_token(tmp_path).read_text() == winner
    assert [entry.name for entry in tmp_path.iterdir()] == ["ray_token"]


@pytest.mark.parametrize(("mode", "content", "message"), [(0o640, "ab", "read by others"), (0o600, "", "is empty")])
def test_a_bad_file_is_refused_by_name(tmp_path: Path, mode: int, content: str, message: str) -> None:
    path = tmp_path / "ray_token"
    path.write_text(content)
    path.chmod(mode)
    with pytest.raises(GradwireError, match=message) as caught:
        ray_token.own_token(tmp_path)
    assert str(path) in caught.value.message


def test_own_environment_overrides_a_token_in_the_environment(tmp_path: Path) -> None:
    path = ray_token.own_token(tmp_path)
    environment = {"RAY_AUTH_TOKEN": "other", "RAY_AUTH_MODE": "disabled"}
    undo = ray_token.apply(ray_token.own_environment(path), environment)
    assert environment == {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(path)}
    ray_token.apply(undo, environment)
    assert environment == {"RAY_AUTH_TOKEN": "other", "RAY_AUTH_MODE": "disabled"}


def test_the_given_token_comes_from_either_variable(tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.write_text("abc\n")
    assert ray_token.given_token({"RAY_AUTH_TOKEN": "xyz"}) == "xyz"
    assert ray_token.given_token({"RAY_AUTH_TOKEN_PATH": str(file)}) == "abc"
    assert ray_token.given_token({"RAY_AUTH_TOKEN": "xyz", "RAY_AUTH_TOKEN_PATH": str(file)}) == "xyz"


def test_without_a_token_both_variables_are_named(tmp_path: Path) -> None:
    with pytest.raises(GradwireError, match="set RAY_AUTH_TOKEN, or RAY_AUTH_TOKEN_PATH"):
        ray_token.given_token({})
    with pytest.raises(GradwireError, match=f"^RAY_AUTH_TOKEN_PATH: {tmp_path / 'none'}"):
        ray_token.given_token({"RAY_AUTH_TOKEN_PATH": str(tmp_path / "none")})
